//! What a node does so that the host's route table shows what it does.

use super::Node;
use crate::control::kernel_routes::KernelRoutes;
use crate::control::learned::FEW;

impl Node {
    /// Takes over another daemon's changes of the kernel's routes, puts right what was done to ours, and
    /// follows the gateways.
    pub(super) fn follow_routes(&mut self, links: bool) {
        let touched = self.mirror.take_touched();
        self.follow_daemon(&touched);
        if let Some(host) = &mut self.host {
            host.follow(&touched, links, &self.mirror);
        }
    }

    /// Has the host's table show learned routes to pools' destinations, unless another daemon has put
    /// them there itself.
    pub(super) fn show_learned_routes(&mut self) {
        let external = self.external.as_ref();
        if external.is_some_and(KernelRoutes::in_main_table) {
            return;
        }
        if let Some(ways) = self.forwarding.changed_ways()
            && let Some(host) = &mut self.host
        {
            host.set_learned(ways, self.forwarding.wanted(), &self.mirror);
        }
    }

    /// The same for destinations in no pool, once a second: a table of the Internet comes in less time, and
    /// is too large for the host's.
    pub(super) fn show_learned_routes_outside(&mut self) {
        let external = self.external.as_ref();
        if external.is_some_and(KernelRoutes::in_main_table) {
            return;
        }
        if let Some(ways) = self.forwarding.changed_ways_outside()
            && let Some(host) = &mut self.host
        {
            host.set_outside(ways, self.forwarding.wanted(), &self.mirror);
        }
        let too_many = self.forwarding.too_many_outside();
        if std::mem::replace(&mut self.too_many_outside, too_many) != too_many && too_many {
            log::warn!(
                "{}: more than {FEW} learned routes lead outside of pools: the host's table has none of \
                 them, and what natOutgoing translates leaves by the host's own routes",
                self.config.node
            );
        }
    }

    /// What an earlier run left in the host's table, and nobody has told again, goes.
    pub(super) fn forget_earlier_host_routes(&mut self) {
        if let Some(host) = &mut self.host {
            host.forget_earlier(&self.mirror);
        }
    }

    /// Compares all of our routes when it is time to.
    pub(super) fn look_after_host_routes(&mut self) {
        let interval = self.settings.route_refresh;
        if let Some(host) = &mut self.host {
            host.tick(interval, &self.mirror);
        }
    }
}
