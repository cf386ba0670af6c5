//! Stage 6 over IPv6: what depends on the packet in an outer IPv6 and UDP header.

use super::Egress;
use super::encap::Inherited;
use crate::packet::Frame;
use crate::wire::{flow, ipv6, udp};

/// Fills in the header that [`super::encap::push`] has put before the packet. `hash` is the inner
/// flow's.
///
/// The checksum covers the whole datagram, as IPv6 demands (RFC 8200 section 8.1), unless the
/// configuration says that both ends go without (RFC 6935, RFC 6936).
#[inline]
pub(super) fn patch(egress: &Egress, inherited: &Inherited, hash: u32, frame: &mut Frame) {
    let (traffic_class, hop_limit) = inherited.marks(egress);
    let outer = &mut frame.bytes_mut()[egress.outer_ip()..];
    let udp_len = (outer.len() - ipv6::HEADER_LEN) as u16;
    let first = 6 << 28 | u32::from(traffic_class) << 20 | flow::ipv6_flow_label(hash);
    let (header, datagram) = outer.split_at_mut(ipv6::HEADER_LEN);
    header[..4].copy_from_slice(&first.to_be_bytes());
    header[4..6].copy_from_slice(&udp_len.to_be_bytes());
    header[7] = hop_limit;
    datagram[..2].copy_from_slice(&flow::vxlan_source_port(hash).to_be_bytes());
    datagram[4..6].copy_from_slice(&udp_len.to_be_bytes());
    if egress.udp_checksum()
        && let Ok(ip) = ipv6::Ipv6::parse_quoted(header)
    {
        let checksum = udp::checksum_ipv6(ip.source, ip.destination, datagram);
        datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
}
