//! The main routing table as the kernel announces it.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::NLM_F_REPLACE;
use prefix_trie::PrefixMap;

use super::state::Route;

/// Routes by destination. Those to one destination are in order of preference: by metric, and of one
/// metric in the kernel's order.
#[derive(Default)]
pub(super) struct RouteTable {
    v4: PrefixMap<Ipv4Net, Vec<Route>>,
    v6: PrefixMap<Ipv6Net, Vec<Route>>,
}

/// What an announcement did to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// Nothing: it was known.
    Unchanged,
    /// It changed the table.
    Changed,
    /// Several outcomes fit; only a new listing tells.
    Ambiguous,
}

impl RouteTable {
    pub fn from_routes(routes: impl IntoIterator<Item = Route>) -> Self {
        let mut table = Self::default();
        for route in routes {
            let routes = table.bucket(route.destination);
            let place = routes.partition_point(|other| other.metric <= route.metric);
            routes.insert(place, route);
        }
        table
    }

    /// Follows RTM_NEWROUTE with its flags.
    ///
    /// Routes with the same destination, TOS and metric take each other's place, stand beside each
    /// other or (IPv6) merge into one with several next hops, depending on how they were made. The
    /// announcement tells this apart only where there is at most one such route.
    pub fn announce(&mut self, route: Route, flags: u16) -> Applied {
        let routes = self.bucket(route.destination);
        if routes.contains(&route) {
            return Applied::Unchanged;
        }
        let mut same_key = (0..routes.len()).filter(|at| same_key(&routes[*at], &route));
        match (same_key.next(), same_key.next()) {
            (None, _) => {
                let place = routes.partition_point(|other| other.metric < route.metric);
                routes.insert(place, route);
                Applied::Changed
            }
            (Some(at), None) if flags & NLM_F_REPLACE != 0 => {
                routes[at] = route;
                Applied::Changed
            }
            _ => Applied::Ambiguous,
        }
    }

    /// Follows RTM_DELROUTE.
    pub fn withdraw(&mut self, route: &Route) -> Applied {
        let routes = self.bucket(route.destination);
        let applied = if let Some(at) = routes.iter().position(|other| other == route) {
            routes.remove(at);
            Applied::Changed
        } else if routes.iter().any(|other| same_key(other, route)) {
            Applied::Ambiguous
        } else {
            Applied::Unchanged
        };
        if routes.is_empty() {
            self.remove_bucket(route.destination);
        }
        applied
    }

    /// The routes that cover an address, the most specific first, and of one prefix the most
    /// preferred first.
    pub fn covering(&self, address: IpAddr) -> Vec<&Route> {
        fn reversed<'a>(covers: impl Iterator<Item = &'a Vec<Route>>) -> Vec<&'a Route> {
            let covers: Vec<_> = covers.collect();
            covers.into_iter().rev().flatten().collect()
        }
        match address {
            IpAddr::V4(address) => reversed(self.v4.cover_values(&Ipv4Net::from(address))),
            IpAddr::V6(address) => reversed(self.v6.cover_values(&Ipv6Net::from(address))),
        }
    }

    /// The routes to exactly this destination, the most preferred first.
    pub fn exactly(&self, destination: IpNet) -> &[Route] {
        let routes = match destination.trunc() {
            IpNet::V4(net) => self.v4.get(&net),
            IpNet::V6(net) => self.v6.get(&net),
        };
        routes.map_or(&[], Vec::as_slice)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.v4.values().flatten().chain(self.v6.values().flatten())
    }
}

impl PartialEq for RouteTable {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl RouteTable {
    fn bucket(&mut self, destination: IpNet) -> &mut Vec<Route> {
        match destination.trunc() {
            IpNet::V4(net) => self.v4.entry(net).or_default(),
            IpNet::V6(net) => self.v6.entry(net).or_default(),
        }
    }

    fn remove_bucket(&mut self, destination: IpNet) {
        match destination.trunc() {
            IpNet::V4(net) => drop(self.v4.remove(&net)),
            IpNet::V6(net) => drop(self.v6.remove(&net)),
        }
    }
}

/// Whether the kernel files both under the same key.
fn same_key(one: &Route, other: &Route) -> bool {
    (one.metric, one.tos) == (other.metric, other.tos)
}
