//! Part of stage 1: what a workload must not send, whatever address it has.
//!
//! Far nodes believe tunnel packets, and errors about them, by the address that they come from. On the
//! way through this node's kernel a workload's packet may get this node's address (masquerading), so
//! neither is let out, unless workloads are trusted with tunnel packets ([`super::FromWorkloads`]);
//! Calico's Felix does the same.

use super::parse::Ip;
use super::{Snapshot, tunnel_error};
use crate::packet::DropReason;
use crate::wire::ipv4::protocol;
use crate::wire::{ipv6, udp};

/// Refuses IP-in-IP, VXLAN to a port of the routed network or of a bridge's, and ICMP errors about tunnel
/// packets between nodes.
#[inline]
pub(super) fn check(snapshot: &Snapshot, ip: &Ip, packet: &[u8]) -> Result<(), DropReason> {
    let refused = match ip {
        Ip::V4(ip) => match ip.protocol {
            protocol::IPIP => !snapshot.tunnels.from_workloads.ipip,
            protocol::UDP => {
                ip.fragment_offset == 0 && is_vxlan(snapshot, packet.get(ip.header_len..))
            }
            protocol::ICMP => tunnel_error::quotes_nodes(snapshot, ip, packet),
            _ => false,
        },
        Ip::V6(ip) => match ip.next_header {
            protocol::UDP => is_vxlan(snapshot, packet.get(ipv6::HEADER_LEN..)),
            protocol::ICMPV6 => {
                let message = packet.get(ipv6::HEADER_LEN..).unwrap_or_default();
                tunnel_error::quotes_nodes_v6(snapshot, message, false)
            }
            protocol::FRAGMENT
            | protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::DESTINATION_OPTIONS => is_behind_extensions(snapshot, packet),
            _ => false,
        },
    };
    if refused {
        return Err(DropReason::TunnelFromWorkload);
    }
    Ok(())
}

/// The same, for what a workload hides behind extension headers.
#[cold]
fn is_behind_extensions(snapshot: &Snapshot, packet: &[u8]) -> bool {
    // Headers that do not end where they can be seen hide anything (RFC 7112 section 5).
    let Some(layer) = ipv6::upper_layer(packet) else {
        return true;
    };
    if !layer.has_header() {
        return false;
    }
    let behind = packet.get(layer.offset..).unwrap_or_default();
    // What a first fragment does not show of a header another may (RFC 7112 section 4).
    let hidden = layer.is_fragment() && behind.len() < udp::HEADER_LEN;
    let trusted = snapshot.tunnels.from_workloads.vxlan;
    match layer.protocol {
        protocol::UDP => (hidden && !trusted) || is_vxlan(snapshot, Some(behind)),
        protocol::ICMPV6 => {
            hidden || tunnel_error::quotes_nodes_v6(snapshot, behind, layer.is_fragment())
        }
        _ => false,
    }
}

/// Whether a datagram is for a VXLAN port, and must not be.
#[inline]
fn is_vxlan(snapshot: &Snapshot, datagram: Option<&[u8]>) -> bool {
    let port = datagram.and_then(|datagram| datagram.get(2..4)?.first_chunk());
    let is_tunnels = |port: &[u8; 2]| snapshot.is_vxlan_port(u16::from_be_bytes(*port));
    !snapshot.tunnels.from_workloads.vxlan && port.is_some_and(is_tunnels)
}
