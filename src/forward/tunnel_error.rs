//! ICMP errors about our own tunnel packets, told from all other ICMP to the node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Snapshot;
use crate::wire::icmp;
use crate::wire::ipv4::{Ipv4, protocol};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{icmpv6, udp};

/// Whether an ICMP packet to this node says that a packet got lost, and quotes a tunnel packet of this
/// node's. Whether to believe it is for the slow path to say.
#[cold]
pub(super) fn quotes_tunnel(snapshot: &Snapshot, ip: &Ipv4, packet: &[u8]) -> bool {
    let message = packet.get(ip.header_len..).unwrap_or_default();
    !ip.is_fragment()
        && quoted_sender(snapshot, message)
            .is_some_and(|sender| is_this_node(snapshot, sender.into()))
}

/// Whether an ICMP packet says that a packet got lost, and quotes a tunnel packet of any node's; or may, as
/// what it quotes is in another fragment.
pub(super) fn quotes_nodes(snapshot: &Snapshot, ip: &Ipv4, packet: &[u8]) -> bool {
    let message = packet.get(ip.header_len..).unwrap_or_default();
    if ip.fragment_offset != 0 || !is_lost(message) {
        return false;
    }
    let hidden = ip.more_fragments && message.len() < ENOUGH;
    hidden
        || quoted_sender(snapshot, message)
            .is_some_and(|sender| is_end_point(snapshot, sender.into()))
}

/// The same for ICMPv6.
#[cold]
pub(super) fn quotes_tunnel_v6(snapshot: &Snapshot, ip: &Ipv6, packet: &[u8]) -> bool {
    let message = packet.get(ipv6::HEADER_LEN..).unwrap_or_default();
    ip.next_header == protocol::ICMPV6
        && quoted_sender_v6(snapshot, message)
            .is_some_and(|sender| is_this_node(snapshot, sender.into()))
}

/// The same for an ICMPv6 message, whatever is before it, of any node's.
pub(super) fn quotes_nodes_v6(snapshot: &Snapshot, message: &[u8], is_fragment: bool) -> bool {
    let hidden = is_fragment && is_lost_v6(message) && message.len() < ENOUGH;
    hidden
        || quoted_sender_v6(snapshot, message)
            .is_some_and(|sender| is_end_point(snapshot, sender.into()))
}

/// Bytes of an error that show what it quotes, whatever headers that has.
const ENOUGH: usize = 128;

fn is_this_node(snapshot: &Snapshot, sender: IpAddr) -> bool {
    let tunnels = &snapshot.tunnels;
    match sender {
        IpAddr::V4(sender) => tunnels.node_address == Some(sender),
        IpAddr::V6(sender) => tunnels.v6.is_some_and(|own| own.node_address == sender),
    }
}

/// Whether tunnel packets come from this address: this node's, or one that they are taken from.
fn is_end_point(snapshot: &Snapshot, sender: IpAddr) -> bool {
    is_this_node(snapshot, sender)
        || snapshot.tunnels.peers.contains(sender)
        || snapshot.bridges.take_from(sender)
}

/// Who sent the tunnel packet that an ICMPv6 error quotes, if it quotes one.
fn quoted_sender_v6(snapshot: &Snapshot, message: &[u8]) -> Option<Ipv6Addr> {
    if !is_lost_v6(message) {
        return None;
    }
    let quoted = message.get(icmpv6::HEADER_LEN..)?;
    let outer = Ipv6::parse_quoted(quoted).ok()?;
    let layer = ipv6::upper_layer(quoted)?;
    let udp = quoted.get(layer.offset..layer.offset + udp::HEADER_LEN)?;
    let tunnel = layer.protocol == protocol::UDP && layer.has_header() && is_vxlan(snapshot, udp);
    tunnel.then_some(outer.source)
}

/// Whether an ICMPv6 message says that a packet did not arrive: unreachable, too big, too many hops.
fn is_lost_v6(message: &[u8]) -> bool {
    use icmpv6::{codes, types};
    match message {
        [types::DESTINATION_UNREACHABLE | types::PACKET_TOO_BIG, ..] => true,
        [types::TIME_EXCEEDED, code, ..] => *code == codes::HOP_LIMIT_EXCEEDED,
        _ => false,
    }
}

/// Whether a UDP header is a VXLAN packet's, of a routed network or of a bridge's.
fn is_vxlan(snapshot: &Snapshot, udp: &[u8]) -> bool {
    snapshot.is_vxlan_port(u16::from_be_bytes([udp[2], udp[3]]))
}

/// Who sent the tunnel packet that an error quotes, if it quotes one.
fn quoted_sender(snapshot: &Snapshot, message: &[u8]) -> Option<Ipv4Addr> {
    if !is_lost(message) {
        return None;
    }
    let quoted = message.get(icmp::HEADER_LEN..)?;
    let outer = Ipv4::parse_quoted(quoted).ok()?;
    let tunnel = match outer.protocol {
        protocol::IPIP => true,
        protocol::UDP => quoted
            .get(outer.header_len..outer.header_len + udp::HEADER_LEN)
            .is_some_and(|udp| is_vxlan(snapshot, udp)),
        _ => false,
    };
    tunnel.then_some(outer.source)
}

/// Whether an ICMP message says that a packet did not arrive: unreachable, too big, too many hops.
fn is_lost(message: &[u8]) -> bool {
    use icmp::{codes, types};
    match message {
        [types::DESTINATION_UNREACHABLE, ..] => true,
        [types::TIME_EXCEEDED, code, ..] => *code == codes::TTL_EXCEEDED,
        _ => false,
    }
}
