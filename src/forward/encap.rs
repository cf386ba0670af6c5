//! Stage 6: the adjacency's header goes before the packet, and what depends on the packet is
//! patched: lengths, marks, identification, DF, TTL, the UDP source port and the checksum.

use super::parse::Traits;
use super::{Dscp, Egress, Encapsulation, OuterTtl, WorkerState, ecn, encap_v6, ttl};
use crate::packet::{DropReason, Frame};
use crate::wire::ethernet::EtherType;
use crate::wire::{ethernet, flow, ipv4, ipv6};

/// Bytes of a link's header, and of the tunnels' over IPv4.
const LINK: usize = ethernet::HEADER_LEN;
const IPIP: usize = LINK + Encapsulation::Ipip.overhead() as usize;
const VXLAN: usize = LINK + Encapsulation::Vxlan.overhead() as usize;

/// Pushes the header of `egress` before the packet in the frame.
#[inline(always)]
pub(super) fn push(
    egress: &Egress,
    state: &mut WorkerState,
    ip: Traits,
    frame: &mut Frame,
) -> Result<(), DropReason> {
    if !ip.is_v6 && push_before_ipv4::<false>(egress, state, frame) {
        return Ok(());
    }
    push_any(egress, state, ip, frame)
}

/// What almost all packets need: one of three headers before IPv4, each of a length that the compiler
/// knows; with `HOP`, after a hop was taken off. False, and nothing changed, if it is another header, there
/// is no room for it, or the packet has no IPv4 header.
#[inline(always)]
pub(super) fn push_before_ipv4<const HOP: bool>(
    egress: &Egress,
    state: &mut WorkerState,
    frame: &mut Frame,
) -> bool {
    match egress.encapsulation {
        _ if frame.len() < ipv4::HEADER_LEN => false,
        Encapsulation::Vxlan => {
            let pushed = push_outer_ipv4::<VXLAN, HOP>(egress, state, frame);
            pushed.is_some_and(|(header, length, packet)| {
                let udp = &mut header[IPIP..];
                let port = flow::vxlan_source_port(flow::flow_hash_ipv4(packet));
                udp[0..2].copy_from_slice(&port.to_be_bytes());
                udp[4..6].copy_from_slice(&(length - ipv4::HEADER_LEN as u16).to_be_bytes());
                true
            })
        }
        Encapsulation::Ipip => push_outer_ipv4::<IPIP, HOP>(egress, state, frame).is_some(),
        Encapsulation::None if egress.header_len() == LINK => {
            push_template::<LINK, HOP>(egress, frame).is_some()
        }
        Encapsulation::None | Encapsulation::VxlanOverIpv6 => false,
    }
}

/// Pushes a header as it is before a packet's own values are patched in; the header and the packet.
#[inline(always)]
fn push_template<'a, const N: usize, const HOP: bool>(
    egress: &Egress,
    frame: &'a mut Frame,
) -> Option<(&'a mut [u8; N], &'a mut [u8])> {
    let (header, packet) = frame.push_array::<N>(egress.header_end()?)?;
    if HOP {
        ttl::decrement(false, packet);
    }
    Some((header, packet))
}

/// Pushes a header that is outer IPv4 behind the link's, and fills that in; the header, the length in
/// the outer header, and the packet.
#[inline(always)]
fn push_outer_ipv4<'a, const N: usize, const HOP: bool>(
    egress: &Egress,
    state: &mut WorkerState,
    frame: &'a mut Frame,
) -> Option<(&'a mut [u8; N], u16, &'a mut [u8])> {
    let (header, packet) = push_template::<N, HOP>(egress, frame)?;
    let inner: &[u8; ipv4::HEADER_LEN] = packet.first_chunk()?;
    let inherited = Inherited {
        tos: inner[1],
        ttl: inner[8],
        dont_fragment: inner[6] & 0x40 != 0,
    };
    let total_len = (N - LINK + packet.len()) as u16;
    patch_ipv4(egress, state, &inherited, total_len, &mut header[LINK..]);
    Some((header, total_len, packet))
}

/// Pushes any header before any packet.
fn push_any(
    egress: &Egress,
    state: &mut WorkerState,
    ip: Traits,
    frame: &mut Frame,
) -> Result<(), DropReason> {
    let hash = match (egress.encapsulation, ip.is_v6) {
        (Encapsulation::Ipip, true) => return Err(DropReason::InnerProtocol),
        (Encapsulation::Vxlan | Encapsulation::VxlanOverIpv6, _) => flow::flow_hash(frame.bytes()),
        (Encapsulation::None | Encapsulation::Ipip, _) => 0,
    };
    let inherited = Inherited::from(ip, frame, egress);
    if !egress.push_header(frame) {
        return Err(DropReason::NoHeadroom);
    }
    let header_len = egress.header_len();
    let header = &mut frame.bytes_mut()[..header_len];
    // The innermost Ethernet header, if there is one, is the last thing before the packet.
    if ip.is_v6 && header_len >= ethernet::HEADER_LEN {
        let ethertype = EtherType::IPV6.0.to_be_bytes();
        header[header_len - 2..].copy_from_slice(&ethertype);
    }
    patch(egress, state, &inherited, hash, frame);
    Ok(())
}

/// Pushes the header of `egress` before the bridged Ethernet frame. What is inside is not checked: what
/// is not there to be read counts as zero.
pub(super) fn push_frame(
    egress: &Egress,
    state: &mut WorkerState,
    frame: &mut Frame,
) -> Result<(), DropReason> {
    let (inherited, hash) = Inherited::from_frame(frame.bytes());
    if !egress.push_header(frame) {
        return Err(DropReason::NoHeadroom);
    }
    patch(egress, state, &inherited, hash, frame);
    Ok(())
}

/// Fills in what depends on the packet, once the header is before it.
#[inline(always)]
fn patch(
    egress: &Egress,
    state: &mut WorkerState,
    inherited: &Inherited,
    hash: u32,
    frame: &mut Frame,
) {
    match egress.encapsulation {
        Encapsulation::None => return,
        Encapsulation::VxlanOverIpv6 => return encap_v6::patch(egress, inherited, hash, frame),
        Encapsulation::Ipip | Encapsulation::Vxlan => {}
    }
    let outer = &mut frame.bytes_mut()[egress.outer_ip()..];
    let total_len = outer.len();
    patch_ipv4(egress, state, inherited, total_len as u16, outer);
    if egress.encapsulation == Encapsulation::Vxlan {
        let udp = &mut outer[ipv4::HEADER_LEN..];
        let udp_len = (total_len - ipv4::HEADER_LEN) as u16;
        udp[0..2].copy_from_slice(&flow::vxlan_source_port(hash).to_be_bytes());
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    }
}

/// What the outer header takes over from the inner one.
pub(super) struct Inherited {
    tos: u8,
    ttl: u8,
    dont_fragment: bool,
}

impl Inherited {
    #[inline]
    fn from(ip: Traits, frame: &Frame, egress: &Egress) -> Self {
        // A narrow path has to take some IPv6 packets all the same (RFC 2473 section 7.1).
        let cut_outside = ip.is_v6 && egress.cuts_outside(frame.len());
        Self {
            tos: ip.tos,
            // Read again: the hop was taken off since the header was parsed.
            ttl: frame.bytes()[if ip.is_v6 { 7 } else { 8 }],
            dont_fragment: ip.dont_fragment && !cut_outside,
        }
    }

    /// What the packet in a bridged frame gives, and its flow's hash. A bridge is no hop, so the TTL
    /// is not the inner one's: that of a group may well be 1. Nor is DF: no path MTU is learnt from errors
    /// about bridged frames, so a narrow link would swallow them; the underlay fragments, and the far end
    /// puts together (as with Linux' vxlan device).
    fn from_frame(frame: &[u8]) -> (Self, u32) {
        const TTL: u8 = 64;
        let (tos, hash) = match ethernet::network(frame) {
            Some((EtherType::IPV4, at)) if frame.len() >= at + ipv4::HEADER_LEN => {
                let packet = &frame[at..];
                (packet[1], flow::flow_hash(packet))
            }
            Some((EtherType::IPV6, at)) if frame.len() >= at + ipv6::HEADER_LEN => {
                let packet = &frame[at..];
                let class = packet[0] << 4 | packet[1] >> 4;
                (class, flow::flow_hash(packet))
            }
            _ => (0, flow::station_hash(frame)),
        };
        let inherited = Self {
            tos,
            ttl: TTL,
            dont_fragment: false,
        };
        (inherited, hash)
    }
}

impl Inherited {
    /// The outer TOS or traffic class, and the outer TTL or hop limit.
    #[inline]
    pub(super) fn marks(&self, egress: &Egress) -> (u8, u8) {
        let dscp = match egress.dscp {
            Dscp::Fixed(dscp) => dscp,
            Dscp::Inherit => self.tos >> 2,
        };
        let ttl = match egress.ttl {
            OuterTtl::Fixed(ttl) => ttl,
            OuterTtl::Inherit => self.ttl,
        };
        (ecn::encapsulate(self.tos, dscp), ttl)
    }
}

/// Fills in the outer IPv4 header. Its checksum is the template's sum plus what is filled in.
#[inline(always)]
fn patch_ipv4(
    egress: &Egress,
    state: &mut WorkerState,
    inherited: &Inherited,
    total_len: u16,
    outer: &mut [u8],
) {
    let (tos, ttl) = inherited.marks(egress);
    let (identification, flags) = if inherited.dont_fragment {
        (0, 0x4000_u16)
    } else {
        (state.next_identification(), 0)
    };
    outer[1] = tos;
    outer[2..4].copy_from_slice(&total_len.to_be_bytes());
    outer[4..6].copy_from_slice(&identification.to_be_bytes());
    outer[6..8].copy_from_slice(&flags.to_be_bytes());
    outer[8] = ttl;
    let sum = egress.checksum_base()
        + u32::from(tos)
        + u32::from(total_len)
        + u32::from(identification)
        + u32::from(flags)
        + (u32::from(ttl) << 8);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    outer[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}
