//! ICMP errors about our own tunnel packets, told from all other ICMP to the node.

use super::Tunnels;
use crate::wire::icmp::{self, types};
use crate::wire::ipv4::{Ipv4, protocol};
use crate::wire::udp;

/// Whether an ICMP packet to this node is a destination unreachable that quotes a tunnel packet of
/// this node's. Whether to believe it is for the slow path to say.
#[cold]
pub(super) fn quotes_tunnel(tunnels: &Tunnels, ip: &Ipv4, packet: &[u8]) -> bool {
    let message = packet.get(ip.header_len..).unwrap_or_default();
    if ip.is_fragment() || message.first() != Some(&types::DESTINATION_UNREACHABLE) {
        return false;
    }
    let quoted = message.get(icmp::HEADER_LEN..).unwrap_or_default();
    let Ok(outer) = Ipv4::parse_quoted(quoted) else {
        return false;
    };
    let ours = tunnels.node_address == Some(outer.source);
    ours && match outer.protocol {
        protocol::IPIP => true,
        protocol::UDP => quoted
            .get(outer.header_len..outer.header_len + udp::HEADER_LEN)
            .is_some_and(|udp| udp[2..4] == tunnels.vxlan_port.to_be_bytes()),
        _ => false,
    }
}
