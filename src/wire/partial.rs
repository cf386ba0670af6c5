//! Transport checksums that a sender left to its hardware.
//!
//! A veth device claims checksum offload, so the kernel at the other end leaves TCP and UDP
//! checksums unfinished (`CHECKSUM_PARTIAL`) and notes so beside the packet, where AF_XDP does not
//! show it. What it leaves in the field is the folded sum of the pseudo-header, not complemented:
//! `tcp_v4_check` and `udp_v4_check` (`tcp_v6_check`, `udp_v6_check`) are the complement of that sum
//! (`csum_fold`), and the sender complements them again:
//!
//! ```text
//! th->check = ~tcp_v4_check(skb->len, saddr, daddr, 0);        __tcp_v4_send_check
//! uh->check = ~udp_v4_check(len, saddr, daddr, 0);             udp_set_csum, udp4_hwcsum
//! skb->csum_start  = skb_transport_header(skb) - skb->head;
//! skb->csum_offset = offsetof(struct tcphdr, check);
//! ```
//!
//! The device then sums from `csum_start` to the end, that field included, and stores the complement
//! at `csum_start + csum_offset`; `skb_checksum_help` does the same in software. A super-packet that
//! the kernel cuts into segments has the field adjusted to each segment's length first
//! (`tcp_gso_segment`), so that the form is the same.
//!
//! A finished checksum equals the pseudo-header's sum for one packet in 65,536; completing it writes
//! what is there already. One in 65,536 of the packets with a damaged checksum is taken for an
//! unfinished one.

use super::checksum::{self, Checksum};
use super::ipv4::{Ipv4, Plain, protocol};
use super::ipv6::{self, Ipv6};
use super::udp;

const TCP_HEADER_LEN: usize = 20;

/// Completes the TCP or UDP checksum of an IP packet if it is partial, and says whether it was.
///
/// Unfragmented TCP and UDP over IPv4 and IPv6 only: the kernel finishes checksums before it
/// fragments. Left alone are SCTP, packets behind an IPv6 routing header that has segments left, and
/// what a workload has put into a tunnel of its own. The IP header need not have been checked; bytes
/// behind the packet do not count. A packet that is not partial costs the pseudo-header's sum.
#[inline]
pub fn complete_checksum(ip_packet: &mut [u8]) -> bool {
    let transport = match ip_packet.first() {
        Some(byte) if byte >> 4 == 4 => Ipv4::parse_quoted(ip_packet)
            .ok()
            .and_then(|ip| find_ipv4(&ip)),
        Some(byte) if byte >> 4 == 6 => find_ipv6(ip_packet),
        _ => None,
    };
    transport.is_some_and(|transport| complete_at(&transport, ip_packet))
}

/// The same for an IPv4 packet whose header `ip` is.
#[inline]
pub fn complete_ipv4(ip: &Ipv4, ip_packet: &mut [u8]) -> bool {
    find_ipv4(ip).is_some_and(|transport| complete_at(&transport, ip_packet))
}

/// Whether the TCP or UDP checksum of an ordinary packet seems to be partial; `segment` is what follows
/// its IP header.
#[inline(always)]
pub fn is_partial(ip: &Plain<'_>, segment: &[u8]) -> bool {
    let Some((field, least, _)) = field(ip.protocol()) else {
        return false;
    };
    let Some(field) = segment.get(field..field + 2) else {
        return false;
    };
    let (source, destination) = (ip.source().to_bits(), ip.destination().to_bits());
    let sum = u64::from(source)
        + u64::from(destination)
        + u64::from(ip.protocol())
        + segment.len() as u64;
    let field = u64::from(u16::from_be_bytes([field[0], field[1]]));
    segment.len() >= least && (sum + 0xffff - field).is_multiple_of(0xffff)
}

#[inline]
fn complete_at(transport: &Transport, ip_packet: &mut [u8]) -> bool {
    let Some(segment) = ip_packet.get_mut(transport.start..transport.end) else {
        return false;
    };
    let Some(field) = segment
        .get(transport.field..)
        .and_then(|rest| rest.first_chunk())
    else {
        return false;
    };
    if u16::from_be_bytes(*field) != transport.pseudo.folded() {
        return false;
    }
    complete(segment, transport)
}

/// A segment or datagram whose checksum may be partial.
struct Transport {
    /// The pseudo-header's sum.
    pseudo: Checksum,
    /// The transport header's first byte in the packet.
    start: usize,
    /// The byte behind the IP packet's last one.
    end: usize,
    /// Where the checksum lies in the transport header.
    field: usize,
    /// Whether a checksum of zero would mean none.
    zero_is_none: bool,
}

#[inline]
fn find_ipv4(ip: &Ipv4) -> Option<Transport> {
    if ip.is_fragment() {
        return None;
    }
    let (field, least, zero_is_none) = field(ip.protocol)?;
    let length = ip.payload_len();
    if length < least {
        return None;
    }
    Some(Transport {
        pseudo: Checksum::pseudo_ipv4(ip.source, ip.destination, ip.protocol, length),
        start: ip.header_len,
        end: ip.total_len,
        field,
        zero_is_none,
    })
}

#[inline]
fn find_ipv6(packet: &[u8]) -> Option<Transport> {
    let ip = Ipv6::parse_quoted(packet).ok()?;
    let layer = ipv6::upper_layer(packet)?;
    if layer.is_fragment() || layer.segments_left {
        return None;
    }
    let (field, least, zero_is_none) = field(layer.protocol)?;
    let length = ip.total_len().checked_sub(layer.offset)?;
    if length < least {
        return None;
    }
    Some(Transport {
        pseudo: Checksum::pseudo_ipv6(ip.source, ip.destination, layer.protocol, length),
        start: layer.offset,
        end: ip.total_len(),
        field,
        zero_is_none,
    })
}

/// Where the protocol has its checksum, its header's least length, and whether zero means none.
#[inline]
const fn field(protocol: u8) -> Option<(usize, usize, bool)> {
    match protocol {
        protocol::TCP => Some((16, TCP_HEADER_LEN, false)),
        protocol::UDP => Some((6, udp::HEADER_LEN, true)),
        _ => None,
    }
}

fn complete(segment: &mut [u8], transport: &Transport) -> bool {
    // The field stands for the pseudo-header in this sum.
    let sum = checksum::sum(segment);
    let with_pseudo = u32::from(transport.pseudo.folded()) + u32::from(sum.folded());
    if with_pseudo.is_multiple_of(0xffff) {
        // The checksum was finished and equals the pseudo-header's sum by chance.
        return false;
    }
    let checksum = match sum.finish() {
        0 if transport.zero_is_none => 0xffff,
        checksum => checksum,
    };
    if let Some(field) = segment.get_mut(transport.field..transport.field + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 3);

    /// A UDP packet with the partial checksum and two bytes of data that make the complete one
    /// `checksum`.
    fn udp_to_become(checksum: u16) -> Vec<u8> {
        let ip = Ipv4 {
            header_len: 20,
            tos: 0,
            total_len: 30,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: protocol::UDP,
            source: SOURCE,
            destination: DESTINATION,
        };
        let mut packet = vec![0; 30];
        assert_eq!(ip.write(&mut packet), 20);
        packet[20..26].copy_from_slice(&[0, 1, 0, 2, 0, 10]);
        let pseudo = Checksum::pseudo_ipv4(SOURCE, DESTINATION, protocol::UDP, 10);
        // ~(pseudo + rest + data) = checksum
        let data = pseudo
            .add_bytes(&packet[20..26])
            .add_word(checksum)
            .finish();
        packet[26..28].copy_from_slice(&pseudo.folded().to_be_bytes());
        packet[28..].copy_from_slice(&data.to_be_bytes());
        packet
    }

    #[test]
    fn a_udp_checksum_completed_to_zero_is_all_ones() {
        let mut packet = udp_to_become(0);
        assert!(complete_checksum(&mut packet));
        assert_eq!(packet[26..28], [0xff, 0xff]);
        assert!(udp::verify_ipv4(SOURCE, DESTINATION, &packet[20..]));
    }

    #[test]
    fn a_finished_checksum_that_looks_partial_is_left() {
        let pseudo = Checksum::pseudo_ipv4(SOURCE, DESTINATION, protocol::UDP, 10);
        let mut packet = udp_to_become(pseudo.folded());
        assert!(udp::verify_ipv4(SOURCE, DESTINATION, &packet[20..]));
        let before = packet.clone();
        assert!(!complete_checksum(&mut packet));
        assert_eq!(packet, before);
    }

    #[test]
    fn a_segment_shorter_than_a_tcp_header_is_left() {
        let completed = |length: u8| {
            let mut packet = udp_to_become(1);
            packet.resize(60, 0);
            (packet[3], packet[9]) = (20 + length, protocol::TCP);
            let pseudo =
                Checksum::pseudo_ipv4(SOURCE, DESTINATION, protocol::TCP, usize::from(length));
            packet[36..38].copy_from_slice(&pseudo.folded().to_be_bytes());
            complete_checksum(&mut packet)
        };
        assert!(!completed(19));
        assert!(completed(20));
    }

    #[test]
    fn behind_extension_headers_only_whole_packets_are_completed() {
        let completed = |extension: u8, header: [u8; 8]| {
            let ip = Ipv6 {
                traffic_class: 0,
                flow_label: 0,
                payload_len: 16,
                next_header: extension,
                hop_limit: 64,
                source: Ipv6Addr::LOCALHOST,
                destination: Ipv6Addr::LOCALHOST,
            };
            let mut packet = vec![0; 56];
            ip.write(&mut packet);
            packet[40..48].copy_from_slice(&header);
            packet[48..54].copy_from_slice(&[0, 1, 0, 2, 0, 8]);
            let pseudo = Checksum::pseudo_ipv6(ip.source, ip.destination, protocol::UDP, 8);
            packet[54..].copy_from_slice(&pseudo.folded().to_be_bytes());
            let completed = complete_checksum(&mut packet);
            assert_eq!(
                completed,
                udp::verify_ipv6(ip.source, ip.destination, &packet[48..])
            );
            completed
        };
        let next = protocol::UDP;
        assert!(completed(protocol::HOP_BY_HOP, [next, 0, 1, 4, 0, 0, 0, 0]));
        assert!(completed(protocol::FRAGMENT, [next, 0, 0, 0, 0, 0, 0, 9]));
        assert!(!completed(protocol::FRAGMENT, [next, 0, 0, 1, 0, 0, 0, 9]));
        assert!(!completed(protocol::FRAGMENT, [next, 0, 0, 8, 0, 0, 0, 9]));
        assert!(completed(protocol::ROUTING, [next, 0, 0, 0, 0, 0, 0, 0]));
        assert!(!completed(protocol::ROUTING, [next, 0, 0, 1, 0, 0, 0, 0]));
    }
}
