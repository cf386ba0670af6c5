//! Answers to IPv6 link-local addresses: they leave by the port that the question came in by, as no
//! route tells one link from another (RFC 4007 section 9).

use super::Action;
use crate::forward::{Adjacency, PortRole, Snapshot};
use crate::packet::PortId;
use crate::wire::MacAddr;
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

/// The Ethernet address of a workload port's station, if a way leads there.
pub(super) fn station(snapshot: &Snapshot, port: PortId) -> Option<MacAddr> {
    let mut adjacencies = snapshot.adjacencies.iter();
    adjacencies.find_map(|adjacency| match adjacency {
        Adjacency::Forward(egress) if egress.port == port => egress.link_destination(),
        _ => None,
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
    snapshot
        .adjacencies
        .iter()
        .find_map(|adjacency| match adjacency {
            Adjacency::Forward(egress) if egress.port == port.id => {
                Some((port.id, egress.link_header_v6()?))
            }
            _ => None,
        })
}
