//! What a node does with routes that others tell.

use super::Node;
use crate::control::kernel_routes::{KernelRoutes, RouteChanges};
use crate::control::learned::{GroupId, NextHops};
use crate::kernel::{Mirror, Touched};
use crate::port::heap;
use crate::resources::bgp_use::Bgp;

/// Ticks after a large table has gone.
const TRIM_AFTER: u8 = 3;

/// The daemon's routes that a node follows, if it is told to.
pub(super) fn external(bgp: &Bgp, mirror: &mut Mirror) -> Result<Option<KernelRoutes>, String> {
    let Bgp::External(selection) = bgp else {
        return Ok(None);
    };
    let routes = KernelRoutes::new(selection.clone());
    mirror
        .follow_table(routes.table())
        .map_err(|error| error.to_string())?;
    Ok(Some(routes))
}

impl Node {
    /// Takes over what another daemon changed in the kernel. `touched` is of the main table.
    pub(super) fn follow_daemon(&mut self, touched: &Touched) {
        let followed = self.mirror.take_followed_touched();
        let Some(external) = &mut self.external else {
            return;
        };
        let touched = if external.in_main_table() {
            touched
        } else {
            &followed
        };
        let changes = external.changes(touched, &self.mirror);
        self.learn(changes);
    }

    /// Takes over everything that another daemon has in the kernel.
    pub(super) fn take_daemons_routes(&mut self) {
        let everything = Touched {
            everything: true,
            ..Touched::default()
        };
        if let Some(external) = &mut self.external {
            let changes = external.changes(&everything, &self.mirror);
            self.learn(changes);
        }
    }

    fn learn(&mut self, changes: RouteChanges) {
        if changes == RouteChanges::default() {
            return;
        }
        for (group, next_hops) in changes.groups {
            self.set_group(group, next_hops);
        }
        for refused in self.learn_routes(changes.routes) {
            log::error!("no room in the route table for {refused}");
        }
        for group in changes.gone {
            self.forwarding.forget_group(group);
        }
        self.probe_nodes();
        self.show_learned_routes();
    }

    /// Has memory given back that a large table took which is gone.
    pub(super) fn give_memory_back(&mut self) {
        let facts = facts!(self);
        if self.forwarding.give_memory_back(&facts) {
            self.trim_in = TRIM_AFTER;
        }
        // By then the speaker has made its own tables smaller.
        if self.trim_in > 0 {
            self.trim_in -= 1;
            if self.trim_in == 0 {
                heap::give_pages_back();
            }
        }
    }

    pub(super) fn set_group(&mut self, group: GroupId, next_hops: NextHops) {
        let facts = facts!(self);
        self.forwarding.set_group(group, next_hops, &facts);
    }

    pub(super) fn learn_routes(
        &mut self,
        routes: Vec<(ipnet::IpNet, Option<GroupId>)>,
    ) -> Vec<String> {
        let facts = facts!(self);
        self.forwarding.learn(routes, &facts)
    }
}
