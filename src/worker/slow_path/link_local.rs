//! Answers to IPv6 link-local addresses: they leave by the port that the question came in by, as no
//! route tells one link from another (RFC 4007 section 9).

use std::net::IpAddr;

use super::Action;
use crate::forward::{Egress, PortConfig, PortRole, Snapshot};
use crate::packet::PortId;
use crate::wire::ipv6::Ipv6;

/// How an answer to a packet that came in by `ingress` is sent.
pub(super) fn answer(
    snapshot: &Snapshot,
    ingress: Option<PortId>,
) -> impl Fn(Vec<u8>) -> Action + '_ {
    move |packet| match on_link(snapshot, ingress, &packet) {
        Some((port, mut frame)) => {
            frame.extend_from_slice(&packet);
            Action::Transmit(port, frame)
        }
        None => Action::Originate(packet),
    }
}

/// The way to a workload port's station: that of any of its addresses.
pub(super) fn way_to_station<'a>(snapshot: &'a Snapshot, port: &PortConfig) -> Option<&'a Egress> {
    port.sources.own.iter().find_map(|address| {
        let next_hop = match address {
            IpAddr::V4(address) => snapshot.fib.lookup_v4(*address),
            IpAddr::V6(address) => snapshot.fib.lookup_v6(*address),
        };
        let adjacency = snapshot.adjacencies.get(next_hop?.0 as usize)?;
        adjacency.egress().filter(|egress| egress.port == port.id)
    })
}

/// The workload port that a packet to a link-local address goes out by, and the link header for it:
/// that of any other way to the workload there.
fn on_link(
    snapshot: &Snapshot,
    ingress: Option<PortId>,
    packet: &[u8],
) -> Option<(PortId, Vec<u8>)> {
    let ip = Ipv6::parse(packet).ok()?;
    let port = snapshot.ports.get(usize::from(ingress?.0))?;
    if port.role != PortRole::Workload || !ip.destination.is_unicast_link_local() {
        return None;
    }
    Some((port.id, way_to_station(snapshot, port)?.link_header_v6()?))
}
