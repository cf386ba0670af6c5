//! ICMP errors about our own tunnel packets: what they say, and whether to believe it.
//!
//! Anybody can send such an error. It is believed only where it quotes a packet that this node can
//! have sent: from its address to a known node, with the header that its tunnels write, and larger
//! than what the error says would fit (RFC 5927 section 4).

use std::net::Ipv4Addr;

use crate::forward::{Adjacency, Encapsulation, PortRole, Snapshot, Tunnels};
use crate::wire::icmp::{self, Icmp, codes, types};
use crate::wire::ipv4::{self, Ipv4, protocol};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::vxlan::{self, Vxlan};
use crate::wire::{Mtu, ethernet, udp};

/// No IPv4 link has less (RFC 791 section 3.2, RFC 1191 section 3).
const LEAST_MTU: u16 = 68;

/// MTUs of common links, for routers that do not say theirs (RFC 1191 section 7.1).
const PLATEAUS: [u16; 11] = [
    65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, LEAST_MTU,
];

/// Source ports of VXLAN packets begin here (RFC 7348 section 5).
const FIRST_SOURCE_PORT: u16 = 49152;

/// An error to believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TunnelError<'a> {
    /// The node that the quoted packet was sent to.
    pub far_end: Ipv4Addr,
    /// What is the matter.
    pub trouble: Trouble,
    /// Bytes that our tunnel put around the inner packet.
    pub overhead: u16,
    /// As much of the inner packet as is quoted; perhaps nothing.
    pub inner: &'a [u8],
}

/// Why a tunnel packet did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Larger than a link on the way takes: packets up to this size, outer header included, fit.
    TooBig(Mtu),
    /// The far end, or its tunnel, is not reached.
    Unreachable,
}

/// Reads an IPv4 packet with an ICMP destination unreachable; nothing if it is not to be believed.
pub(super) fn read<'a>(tunnels: &Tunnels, packet: &'a [u8]) -> Option<TunnelError<'a>> {
    let ip = Ipv4::parse(packet).ok()?;
    if ip.protocol != protocol::ICMP || ip.is_fragment() {
        return None;
    }
    let message = packet.get(ip.header_len..ip.total_len)?;
    let icmp = Icmp::parse(message).ok()?;
    if icmp.message_type != types::DESTINATION_UNREACHABLE {
        return None;
    }
    let quoted = quotation(&icmp, message.get(icmp::HEADER_LEN..)?);
    let outer = Ipv4::parse_quoted(quoted).ok()?;
    let ours = tunnels.node_address == Some(outer.source)
        && tunnels.peers.contains(outer.destination)
        && outer.header_len == ipv4::HEADER_LEN
        && outer.fragment_offset == 0;
    if !ours {
        return None;
    }
    let quoted = &quoted[..quoted.len().min(outer.total_len)];
    let overhead = match outer.protocol {
        protocol::IPIP => Encapsulation::Ipip.overhead(),
        protocol::UDP if is_our_vxlan(tunnels, &outer, quoted) => Encapsulation::Vxlan.overhead(),
        _ => return None,
    };
    if outer.total_len < usize::from(overhead) + ipv4::HEADER_LEN {
        return None;
    }
    Some(TunnelError {
        far_end: outer.destination,
        trouble: trouble(&icmp, &outer)?,
        overhead,
        inner: quoted.get(usize::from(overhead)..).unwrap_or_default(),
    })
}

/// Whether a quoted inner packet is one that this node sends into a tunnel, and has enough of itself
/// for its sender to recognise it: its header and 8 bytes (RFC 792).
pub(super) fn inner_is_ours(snapshot: &Snapshot, inner: &[u8]) -> bool {
    let (source, destination) = match inner.first().map(|byte| byte >> 4) {
        Some(4) => match Ipv4::parse_quoted(inner) {
            Ok(ip) if inner.len() >= ip.header_len + 8 => (
                snapshot.fib.lookup_v4(ip.source),
                snapshot.fib.lookup_v4(ip.destination),
            ),
            _ => return false,
        },
        Some(6) => match Ipv6::parse_quoted(inner) {
            Ok(ip) if inner.len() >= ipv6::HEADER_LEN + 8 => (
                snapshot.fib.lookup_v6(ip.source),
                snapshot.fib.lookup_v6(ip.destination),
            ),
            _ => return false,
        },
        _ => return false,
    };
    let way = |next_hop: crate::fib::NextHop| snapshot.adjacencies.get(next_hop.0 as usize);
    let from_here = match source.and_then(way) {
        Some(Adjacency::Forward(egress)) => snapshot
            .ports
            .get(usize::from(egress.port.0))
            .is_some_and(|port| port.role != PortRole::Uplink),
        _ => false,
    };
    // A route may have changed since the packet left; an unresolved next hop is one all the same.
    let into_tunnel = match destination.and_then(way) {
        Some(Adjacency::Forward(egress)) => egress.encapsulation != Encapsulation::None,
        Some(Adjacency::Unresolved) => true,
        _ => false,
    };
    from_here && into_tunnel
}

/// The quoted bytes without the extensions that may follow them (RFC 4884 section 4.1).
fn quotation<'a>(icmp: &Icmp, behind_header: &'a [u8]) -> &'a [u8] {
    let length = usize::from(icmp.rest[1]) * 4;
    match behind_header.get(..length) {
        Some(quoted) if length > 0 => quoted,
        _ => behind_header,
    }
}

/// Whether what is quoted behind the outer IPv4 header is as our tunnels write it.
fn is_our_vxlan(tunnels: &Tunnels, outer: &Ipv4, quoted: &[u8]) -> bool {
    let behind = &quoted[ipv4::HEADER_LEN..];
    let Some(header) = behind.first_chunk::<{ udp::HEADER_LEN }>() else {
        return false;
    };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let datagram = word(0) >= FIRST_SOURCE_PORT
        && word(2) == tunnels.vxlan_port
        && usize::from(word(4)) == outer.payload_len();
    let payload = &behind[udp::HEADER_LEN..];
    // The least quotation ends with the UDP header.
    let network = payload.len() < vxlan::HEADER_LEN + ethernet::HEADER_LEN
        || Vxlan::parse(payload).is_ok_and(|vxlan| vxlan.vni == tunnels.vni);
    datagram && network
}

fn trouble(icmp: &Icmp, outer: &Ipv4) -> Option<Trouble> {
    match icmp.code {
        codes::FRAGMENTATION_NEEDED => {
            let mtu = match icmp.next_hop_mtu()? {
                0 => plateau_below(outer.total_len),
                said => said,
            };
            // Without DF a router fragments, and does not complain.
            let sensible = outer.dont_fragment
                && outer.identification == 0
                && mtu >= LEAST_MTU
                && usize::from(mtu) < outer.total_len;
            sensible.then_some(Trouble::TooBig(Mtu(mtu)))
        }
        // Our packets have no source route that could fail.
        codes::SOURCE_ROUTE_FAILED => None,
        _ => Some(Trouble::Unreachable),
    }
}

/// The largest common MTU that a packet of this length does not fit into.
fn plateau_below(total_len: usize) -> u16 {
    let smaller = PLATEAUS.iter().find(|mtu| usize::from(**mtu) < total_len);
    smaller.copied().unwrap_or(LEAST_MTU)
}
