//! Routes that another daemon (BIRD, FRR) puts into the kernel, as learned routes.
//!
//! Of the routes to one destination the kernel's choice counts, the one with the lowest metric. Its
//! gateways are a group's next hops. A route without a gateway leads to no other node and is left to
//! the kernel, as are those that drop.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::learned::{GroupId, NextHops};
use crate::kernel::{MAIN_TABLE, Mirror, ROUTE_PROTOCOL, Route, RouteKind, Touched};
use crate::resources::bgp_use::External;

/// What a daemon has put into the kernel, as far as it was told.
pub struct KernelRoutes {
    table: u32,
    selection: External,
    told: BTreeMap<IpNet, GroupId>,
    groups: FxHashMap<NextHops, GroupId>,
    users: FxHashMap<GroupId, (NextHops, usize)>,
    next: u32,
}

/// What has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RouteChanges {
    /// Groups that are new.
    pub groups: Vec<(GroupId, NextHops)>,
    /// Prefixes, and the group that each points to now, if it does.
    pub routes: Vec<(IpNet, Option<GroupId>)>,
    /// Groups that no prefix points to any more.
    pub gone: Vec<GroupId>,
}

impl KernelRoutes {
    /// Nothing told yet.
    pub fn new(selection: External) -> Self {
        Self {
            table: selection.table.unwrap_or(MAIN_TABLE),
            selection,
            told: BTreeMap::new(),
            groups: FxHashMap::default(),
            users: FxHashMap::default(),
            next: 0,
        }
    }

    /// The table that the routes are in.
    pub fn table(&self) -> u32 {
        self.table
    }

    /// Whether the routes are in the host's main table already.
    pub fn in_main_table(&self) -> bool {
        self.table == MAIN_TABLE
    }

    /// What has changed where the table was touched.
    pub fn changes(&mut self, touched: &Touched, mirror: &Mirror) -> RouteChanges {
        let mut changes = RouteChanges::default();
        if touched.everything {
            let mut now: BTreeMap<IpNet, NextHops> = BTreeMap::new();
            for route in mirror.routes_of(self.table) {
                if !now.contains_key(&route.destination)
                    && let Some(next_hops) = self.next_hops(route.destination, mirror)
                {
                    now.insert(route.destination, next_hops);
                }
            }
            let gone: Vec<IpNet> = self.told.keys().copied().collect();
            for prefix in gone.into_iter().filter(|prefix| !now.contains_key(prefix)) {
                self.tell(prefix, None, &mut changes);
            }
            for (prefix, next_hops) in now {
                self.tell(prefix, Some(next_hops), &mut changes);
            }
        }
        for prefix in &touched.destinations {
            let next_hops = self.next_hops(*prefix, mirror);
            self.tell(*prefix, next_hops, &mut changes);
        }
        changes.gone.retain(|group| !self.users.contains_key(group));
        changes
    }

    fn tell(&mut self, prefix: IpNet, next_hops: Option<NextHops>, changes: &mut RouteChanges) {
        let group = next_hops.map(|next_hops| self.group(next_hops, changes));
        let before = match group {
            Some(group) => self.told.insert(prefix, group),
            None => self.told.remove(&prefix),
        };
        if before == group {
            return;
        }
        changes.routes.push((prefix, group));
        if let Some((_, users)) = group.and_then(|group| self.users.get_mut(&group)) {
            *users += 1;
        }
        if let Some(before) = before
            && let Some((next_hops, users)) = self.users.get_mut(&before)
        {
            *users -= 1;
            if *users == 0 {
                self.groups.remove(next_hops);
                self.users.remove(&before);
                changes.gone.push(before);
            }
        }
    }

    fn group(&mut self, next_hops: NextHops, changes: &mut RouteChanges) -> GroupId {
        if let Some(group) = self.groups.get(&next_hops) {
            return *group;
        }
        let group = GroupId(self.next);
        self.next += 1;
        self.groups.insert(Arc::clone(&next_hops), group);
        self.users.insert(group, (Arc::clone(&next_hops), 0));
        changes.groups.push((group, next_hops));
        group
    }

    fn next_hops(&self, destination: IpNet, mirror: &Mirror) -> Option<NextHops> {
        let routes = mirror.routes_of_to(self.table, destination);
        let route = routes
            .iter()
            .find(|route| self.is_selected(route, mirror))?;
        let gateways = route
            .next_hops
            .iter()
            .filter_map(|next_hop| next_hop.gateway);
        let gateways: Vec<IpAddr> = gateways.collect();
        (!gateways.is_empty()).then(|| gateways.into())
    }

    fn is_selected(&self, route: &Route, mirror: &Mirror) -> bool {
        let External {
            protocols,
            interfaces,
            ..
        } = &self.selection;
        let by_protocol =
            || protocols.is_empty() || protocols.iter().any(|p| p.0 == route.protocol);
        let named = |interface: u32| {
            let link = mirror.link(interface);
            link.is_some_and(|link| interfaces.iter().any(|name| name.as_str() == link.name))
        };
        let by_interface =
            || interfaces.is_empty() || route.next_hops.iter().all(|way| named(way.interface));
        route.protocol != ROUTE_PROTOCOL
            && route.kind == RouteKind::Unicast
            && route.tos == 0
            && !route.encapsulated
            && by_protocol()
            && by_interface()
    }
}
