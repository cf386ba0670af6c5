//! Stage 6: the adjacency's header goes before the packet, and what depends on the packet is
//! patched: lengths, marks, identification, DF, TTL, the UDP source port and the checksum.

use super::parse::Ip;
use super::{Dscp, Egress, Encapsulation, OuterTtl, WorkerState, ecn, encap_v6};
use crate::packet::{DropReason, Frame};
use crate::wire::ethernet::EtherType;
use crate::wire::{ethernet, flow, ipv4};

/// Pushes the header of `egress` before the packet in the frame.
#[inline]
pub(super) fn push(
    egress: &Egress,
    state: &mut WorkerState,
    ip: &Ip,
    frame: &mut Frame,
) -> Result<(), DropReason> {
    let hash = match (egress.encapsulation, ip) {
        (Encapsulation::Ipip, Ip::V6(_)) => return Err(DropReason::InnerProtocol),
        (Encapsulation::Vxlan | Encapsulation::VxlanOverIpv6, _) => flow::flow_hash(frame.bytes()),
        (Encapsulation::None | Encapsulation::Ipip, _) => 0,
    };
    let inherited = Inherited::from(ip, frame, egress);
    let inner_len = frame.len();
    if !frame.push(egress.header()) {
        return Err(DropReason::NoHeadroom);
    }
    let header_len = egress.header().len();
    let header = &mut frame.bytes_mut()[..header_len];
    // The innermost Ethernet header, if there is one, is the last thing before the packet.
    if let Ip::V6(_) = ip
        && header_len >= ethernet::HEADER_LEN
    {
        let ethertype = EtherType::IPV6.0.to_be_bytes();
        header[header_len - 2..].copy_from_slice(&ethertype);
    }
    match egress.encapsulation {
        Encapsulation::None => return Ok(()),
        Encapsulation::VxlanOverIpv6 => {
            encap_v6::patch(egress, &inherited, hash, frame);
            return Ok(());
        }
        Encapsulation::Ipip | Encapsulation::Vxlan => {}
    }
    let outer = &mut header[egress.outer_ip()..];
    let total_len = outer.len() + inner_len;
    patch_ipv4(egress, state, &inherited, total_len as u16, outer);
    if egress.encapsulation == Encapsulation::Vxlan {
        let udp = &mut outer[ipv4::HEADER_LEN..];
        let udp_len = (total_len - ipv4::HEADER_LEN) as u16;
        udp[0..2].copy_from_slice(&flow::vxlan_source_port(hash).to_be_bytes());
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    }
    Ok(())
}

/// What the outer header takes over from the inner one.
pub(super) struct Inherited {
    tos: u8,
    ttl: u8,
    dont_fragment: bool,
}

impl Inherited {
    #[inline]
    fn from(ip: &Ip, frame: &Frame, egress: &Egress) -> Self {
        match ip {
            Ip::V4(ip) => Self {
                tos: ip.tos,
                // Read again: the hop was taken off since the header was parsed.
                ttl: frame.bytes()[8],
                dont_fragment: ip.dont_fragment,
            },
            // IPv6 routers never fragment, so neither may the underlay (RFC 8200 section 5), but for
            // what a narrow path has to take all the same (RFC 2473 section 7.1).
            Ip::V6(ip) => Self {
                tos: ip.traffic_class,
                ttl: frame.bytes()[7],
                dont_fragment: !egress.cuts_outside(frame.len()),
            },
        }
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
#[inline]
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
