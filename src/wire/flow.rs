//! A packet's flow as a number: for VXLAN's source port and for spreading work.

use super::ipv4::{self, protocol};
use super::ipv6;

/// The first and last source port of VXLAN packets: the dynamic ports (RFC 7348 section 5).
const SOURCE_PORTS: core::ops::RangeInclusive<u16> = 49152..=65535;

/// 2⁶⁴ divided by the golden ratio, odd: multiplication by it spreads every bit upwards.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash of an IP packet's addresses, protocol and ports.
///
/// All packets of a flow have the same hash; its two directions do not. Ports count for TCP, UDP,
/// UDP-Lite, SCTP and DCCP, but in no fragment, so that all fragments of one packet have the same
/// hash. What is no IP packet, or ends too early, is hashed as far as it goes.
///
/// The packet need not have been checked. Not for tables that an attacker may fill: there is no key.
#[inline]
pub fn flow_hash(ip_packet: &[u8]) -> u32 {
    match ip_packet.first() {
        Some(byte) if byte >> 4 == 4 => flow_hash_ipv4(ip_packet),
        Some(byte) if byte >> 4 == 6 => hash_ipv6(ip_packet),
        _ => 0,
    }
}

/// A hash of an Ethernet frame's two stations, for frames that carry no IP packet; 0 if it is too short.
#[inline]
pub fn station_hash(frame: &[u8]) -> u32 {
    let Some([d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5]) = frame.first_chunk() else {
        return 0;
    };
    let destination = u64::from_be_bytes([0, 0, *d0, *d1, *d2, *d3, *d4, *d5]);
    let source = u64::from_be_bytes([0, 0, *s0, *s1, *s2, *s3, *s4, *s5]);
    finish(mix(mix(0, destination), source))
}

/// The UDP source port for a VXLAN packet whose inner packet has this hash: 49152–65535.
///
/// As the kernel's `udp_flow_src_port`: the lower half of the hash is folded into the upper one, of
/// which the port is made by multiplication in place of a division.
#[inline]
pub const fn vxlan_source_port(hash: u32) -> u16 {
    let hash = hash ^ hash << 16;
    let count = *SOURCE_PORTS.end() as u64 - *SOURCE_PORTS.start() as u64 + 1;
    *SOURCE_PORTS.start() + ((hash as u64 * count) >> 32) as u16
}

/// The IPv6 flow label for an outer header around a packet that has this hash: 1–0xfffff, as none is
/// 0 (RFC 6437 section 3, RFC 6438 section 3).
#[inline]
pub const fn ipv6_flow_label(hash: u32) -> u32 {
    match (hash ^ hash >> 20) & 0x000f_ffff {
        0 => 1,
        label => label,
    }
}

/// [`flow_hash`] of what is known to be IPv4.
#[inline(always)]
pub fn flow_hash_ipv4(packet: &[u8]) -> u32 {
    let Some(h) = packet.first_chunk::<{ ipv4::HEADER_LEN }>() else {
        return 0;
    };
    let addresses = u64::from_ne_bytes([h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19]]);
    let is_fragment = u16::from_be_bytes([h[6], h[7]]) & 0x3fff != 0;
    let offset = usize::from(h[0] & 0x0f) * 4;
    let ports = if is_fragment {
        0
    } else {
        ports(packet, h[9], offset)
    };
    finish(mix(
        mix(0, addresses),
        u64::from(ports) << 8 | u64::from(h[9]),
    ))
}

#[inline]
fn hash_ipv6(packet: &[u8]) -> u32 {
    let Some(header) = packet.first_chunk::<{ ipv6::HEADER_LEN }>() else {
        return 0;
    };
    let (words, _) = header[8..].as_chunks::<8>();
    let addresses = words
        .iter()
        .fold(0, |hash, word| mix(hash, u64::from_ne_bytes(*word)));
    let (protocol, ports) = match ipv6::upper_layer(packet) {
        // The first fragment is walked to its upper layer, later ones end at the fragment header, so
        // the protocols found may differ.
        Some(layer) if layer.is_fragment() => (protocol::FRAGMENT, 0),
        Some(layer) => (layer.protocol, ports(packet, layer.protocol, layer.offset)),
        None => (header[6], 0),
    };
    finish(mix(addresses, u64::from(ports) << 8 | u64::from(protocol)))
}

/// Source and destination port, 0 if the protocol has none or the packet ends before them.
#[inline]
fn ports(packet: &[u8], protocol: u8, offset: usize) -> u32 {
    let has_ports = matches!(
        protocol,
        protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP | protocol::DCCP
    );
    if !has_ports {
        return 0;
    }
    let ports = packet
        .get(offset..)
        .and_then(|payload| payload.first_chunk::<4>());
    ports.map_or(0, |ports| u32::from_ne_bytes(*ports))
}

/// Both steps are invertible, so that two words differ in their hash if they differ at all.
#[inline]
const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word ^ MULTIPLIER).wrapping_mul(MULTIPLIER);
    product ^ product >> 32
}

#[inline]
const fn finish(hash: u64) -> u32 {
    (hash.wrapping_mul(MULTIPLIER) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    fn udp_v4(host: u8, source_port: u16) -> Vec<u8> {
        let ip = ipv4::Ipv4 {
            header_len: 20,
            tos: 0,
            total_len: 28,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: protocol::UDP,
            source: Ipv4Addr::new(192, 168, 1, host),
            destination: Ipv4Addr::new(192, 168, 2, 1),
        };
        let mut packet = vec![0; 28];
        ip.write(&mut packet);
        packet[20..22].copy_from_slice(&source_port.to_be_bytes());
        packet[22..24].copy_from_slice(&53u16.to_be_bytes());
        packet
    }

    fn udp_v6(source_port: u16) -> Vec<u8> {
        let ip = ipv6::Ipv6 {
            traffic_class: 0,
            flow_label: 0,
            payload_len: 8,
            next_header: protocol::UDP,
            hop_limit: 64,
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
        };
        let mut packet = vec![0; 48];
        ip.write(&mut packet);
        packet[40..42].copy_from_slice(&source_port.to_be_bytes());
        packet
    }

    /// The largest share of `flows` that one of 64 buckets gets, as a multiple of a fair share.
    fn worst_bucket(buckets: impl Iterator<Item = usize>) -> f64 {
        let mut counts = [0usize; 64];
        buckets.for_each(|bucket| counts[bucket] += 1);
        let total: usize = counts.iter().sum();
        *counts.iter().max().unwrap() as f64 * 64.0 / total as f64
    }

    #[test]
    fn neighbouring_flows_spread_over_buckets_and_ports() {
        // 16,384 flows in 64 buckets: 256 each, standard deviation 16; 1.35 is over five of them.
        let v4 = || (0..=63).flat_map(|host| (1024..1280).map(move |port| udp_v4(host, port)));
        let v6 = || (1024..17408).map(udp_v6);
        assert!(worst_bucket(v4().map(|p| flow_hash(&p) as usize % 64)) < 1.35);
        assert!(worst_bucket(v6().map(|p| flow_hash(&p) as usize % 64)) < 1.35);
        assert!(worst_bucket(v4().map(|p| flow_hash(&p) as usize >> 26)) < 1.35);
        let port = |p: Vec<u8>| usize::from(vxlan_source_port(flow_hash(&p)) - 49152) / 256;
        assert!(worst_bucket(v4().map(port)) < 1.35);
        assert!(worst_bucket(v6().map(port)) < 1.35);
    }

    #[test]
    fn ports_are_those_of_the_kernel_s_formula() {
        // min + (((hash ^ hash << 16) * count) >> 32), worked out by hand.
        assert_eq!(vxlan_source_port(0), 49152);
        assert_eq!(vxlan_source_port(0x8000_0000), 49152 + 8192);
        assert_eq!(vxlan_source_port(0x0000_8000), 49152 + 8192);
        assert_eq!(vxlan_source_port(0xffff_0000), 65535);
        assert_eq!(vxlan_source_port(0x1234_5678), 49152 + (0x444c >> 2));
    }

    #[test]
    fn flow_labels_fit_and_are_never_zero() {
        assert_eq!(ipv6_flow_label(0), 1);
        assert_eq!(ipv6_flow_label(0x0010_0001), 1, "what folds to zero");
        assert!((0..1 << 12).all(|n| (1..1 << 20).contains(&ipv6_flow_label(n << 20 | n))));
        let label = |p: Vec<u8>| ipv6_flow_label(flow_hash(&p)) as usize >> 14;
        assert!(worst_bucket((1024..17408).map(udp_v6).map(label)) < 1.35);
    }

    #[test]
    fn fragments_of_a_packet_have_one_hash() {
        let mut first = udp_v4(1, 1024);
        first[6] = 0x20;
        let mut second = udp_v4(1, 999);
        second[6..8].copy_from_slice(&[0, 185]);
        assert_eq!(flow_hash(&first), flow_hash(&second));
        assert_ne!(flow_hash(&first), flow_hash(&udp_v4(1, 1024)));
    }

    #[test]
    fn fragments_of_an_ipv6_packet_have_one_hash_behind_any_headers() {
        let fragment = |offset: u8, more: u8, next: u8, ports: [u8; 4]| {
            let mut packet = udp_v6(0);
            packet[6] = protocol::FRAGMENT;
            packet[40..48].copy_from_slice(&[next, 0, 0, offset | more, 0, 0, 0, 9]);
            packet.extend_from_slice(&[protocol::UDP, 0, 1, 4, 0, 0, 0, 0]);
            packet.extend_from_slice(&ports);
            flow_hash(&packet)
        };
        let options = protocol::DESTINATION_OPTIONS;
        assert_eq!(
            fragment(0, 1, options, [1; 4]),
            fragment(8, 0, options, [2; 4])
        );
        assert_eq!(
            fragment(0, 1, protocol::UDP, [1; 4]),
            fragment(8, 0, protocol::UDP, [2; 4])
        );
    }
}
