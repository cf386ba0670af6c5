//! What of the packets that arrive is this node's own.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::control::resolve::{Target, Wanted};

/// This node's own underlay address, from which its tunnels start.
pub fn node_address(wanted: &Wanted) -> Option<Ipv4Addr> {
    wanted.local.ipv4.map(|net| net.addr())
}

/// This node's own underlay addresses, of either family.
pub fn node_addresses(wanted: &Wanted) -> Vec<IpAddr> {
    let v4 = wanted.local.ipv4.map(|net| IpAddr::V4(net.addr()));
    let v6 = wanted.local.ipv6.map(|net| IpAddr::V6(net.addr()));
    v4.into_iter().chain(v6).collect()
}

/// The destinations that an uplink takes from the kernel: local workloads, blocks and tunnel
/// addresses, but never the node's own addresses, which stay the kernel's.
pub fn steered_prefixes(wanted: &Wanted) -> BTreeSet<IpNet> {
    let own = |net: &IpNet| {
        let host = net.prefix_len() == net.max_prefix_len();
        host && node_addresses(wanted).contains(&net.addr())
    };
    wanted
        .routes
        .iter()
        .filter(|(net, target)| is_steered(target) && !own(net))
        .map(|(net, _)| *net)
        .collect()
}

/// Whether packets to such a target are this node's own.
pub fn is_steered(target: &Target) -> bool {
    matches!(
        target,
        Target::Workload { .. } | Target::Host | Target::Blackhole
    )
}
