//! Properties of the formats over arbitrary bytes, with etherparse and plain loops to compare with.

use core::net::{Ipv4Addr, Ipv6Addr};

use etherparse::checksum::Sum16BitWords;
use proptest::collection::vec;
use proptest::prelude::*;

use super::arp::Arp;
use super::checksum::{self, Checksum};
use super::ethernet::Ethernet;
use super::icmp::{self, Icmp};
use super::icmpv6::{self, Icmpv6};
use super::ipv4::{self, Ipv4, protocol};
use super::ipv6::{self, Ipv6};
use super::nd::NeighbourMessage;
use super::udp::{self, Udp};
use super::vxlan::Vxlan;
use super::{flow, partial};

/// RFC 1071 section 4.1, word by word.
fn naive_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The IPv4 header without its checksum, summed by etherparse.
fn etherparse_header_checksum(header: &[u8]) -> u16 {
    let sum = Sum16BitWords::new()
        .add_slice(&header[..10])
        .add_slice(&header[12..]);
    u16::from_be(sum.ones_complement())
}

fn has_right_checksum(header: &[u8]) -> bool {
    header[10..12] == etherparse_header_checksum(header).to_be_bytes()
}

prop_compose! {
    fn any_ipv4()(
        tos: u8, total_len in 20usize..=65535, identification: u16, dont_fragment: bool,
        more_fragments: bool, offset in 0u16..8192, ttl: u8, protocol: u8, source: u32,
        destination: u32,
    ) -> Ipv4 {
        Ipv4 {
            header_len: 20, tos, total_len, identification, dont_fragment, more_fragments,
            fragment_offset: offset * 8, ttl, protocol, source: source.into(),
            destination: destination.into(),
        }
    }
}

prop_compose! {
    fn any_ipv6()(
        traffic_class: u8, flow_label in 0u32..1 << 20, payload_len in 0usize..=65535,
        next_header: u8, hop_limit: u8, source: u128, destination: u128,
    ) -> Ipv6 {
        Ipv6 {
            traffic_class, flow_label, payload_len, next_header, hop_limit,
            source: source.into(), destination: destination.into(),
        }
    }
}

fn written(ip: &Ipv4) -> [u8; 20] {
    let mut header = [0; 20];
    assert_eq!(ip.write(&mut header), 20);
    header
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_sum_equals_a_naive_one_and_etherparse_s(bytes in vec(any::<u8>(), 0..2000)) {
        prop_assert_eq!(checksum::of(&bytes), naive_checksum(&bytes));
        let other = Sum16BitWords::new().add_slice(&bytes).ones_complement();
        prop_assert_eq!(checksum::of(&bytes), u16::from_be(other));
    }

    #[test]
    fn pieces_sum_up_to_the_whole(pieces in vec(vec(any::<u8>(), 0..40), 0..10), word: u16) {
        let sum = pieces.iter().fold(Checksum::new(), |sum, piece| sum.add_bytes(piece)).add_word(word);
        let mut whole = pieces.concat();
        whole.extend_from_slice(&word.to_be_bytes());
        prop_assert_eq!(sum.finish(), naive_checksum(&whole));
    }

    #[test]
    fn an_update_equals_a_full_sum(
        mut bytes in vec(any::<u8>(), 2..200), at: proptest::sample::Index, word: u16,
    ) {
        let at = at.index(bytes.len() / 2) * 2;
        let before = naive_checksum(&bytes);
        let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        prop_assume!(bytes.iter().any(|byte| *byte != 0));
        bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
        prop_assume!(bytes.iter().any(|byte| *byte != 0));
        prop_assert_eq!(checksum::update(before, old, word), naive_checksum(&bytes));
    }

    #[test]
    fn an_update_is_right_at_the_two_zeros(
        rest in vec(any::<u8>(), 20), old in zeros(), new in zeros(),
    ) {
        let with = |word: u16| [&rest[..], &word.to_be_bytes()].concat();
        prop_assume!(rest.iter().any(|byte| *byte != 0));
        prop_assert_eq!(
            checksum::update(naive_checksum(&with(old)), old, new),
            naive_checksum(&with(new))
        );
    }

    #[test]
    fn ipv4_is_read_as_written(ip in any_ipv4()) {
        let header = written(&ip);
        prop_assert!(has_right_checksum(&header));
        prop_assert_eq!(Ipv4::parse_quoted(&header), Ok(ip));
        let mut packet = header.to_vec();
        packet.resize(ip.total_len + 3, 0xee);
        prop_assert_eq!(Ipv4::parse(&packet), Ok(ip));
    }

    #[test]
    fn changes_in_place_equal_a_new_header(
        ip in any_ipv4(), tos: u8, total_len in 20u16.., identification: u16, ttl in 1u8..,
        dont_fragment: bool,
    ) {
        let mut header = written(&ip);
        prop_assert!(ipv4::set_tos(&mut header, tos));
        prop_assert!(ipv4::set_total_len(&mut header, total_len));
        prop_assert!(ipv4::set_identification(&mut header, identification));
        prop_assert!(ipv4::set_dont_fragment(&mut header, dont_fragment));
        prop_assert!(ipv4::set_ttl(&mut header, ttl));
        let total_len = usize::from(total_len);
        let ip = Ipv4 { tos, total_len, identification, dont_fragment, ttl, ..ip };
        prop_assert_eq!(header, written(&ip));

        prop_assert!(ipv4::decrement_ttl(&mut header));
        prop_assert_eq!(header, written(&Ipv4 { ttl: ttl - 1, ..ip }));
    }

    #[test]
    fn ipv6_is_read_as_written_and_changed_in_place(ip in any_ipv6(), class: u8, length: u16) {
        let mut header = [0; 40];
        prop_assert_eq!(ip.write(&mut header), 40);
        prop_assert_eq!(Ipv6::parse_quoted(&header), Ok(ip));
        let (other, _) = etherparse::Ipv6Header::from_slice(&header).unwrap();
        prop_assert_eq!(other.traffic_class, ip.traffic_class);
        prop_assert_eq!(other.flow_label.value(), ip.flow_label);

        prop_assert!(ipv6::set_traffic_class(&mut header, class));
        prop_assert!(ipv6::set_payload_len(&mut header, length));
        let decremented = ipv6::decrement_hop_limit(&mut header);
        prop_assert_eq!(decremented, ip.hop_limit > 0);
        let expected = Ipv6 {
            traffic_class: class,
            payload_len: usize::from(length),
            hop_limit: ip.hop_limit.saturating_sub(1),
            ..ip
        };
        prop_assert_eq!(Ipv6::parse_quoted(&header), Ok(expected));
    }

    #[test]
    fn udp_checksums_equal_etherparse_s(
        source4: [u8; 4], destination4: [u8; 4], source6: [u8; 16], destination6: [u8; 16],
        ports: (u16, u16), data in vec(any::<u8>(), 0..1500),
    ) {
        let length = 8 + data.len();
        let mut header = Udp { source_port: ports.0, destination_port: ports.1, length, checksum: 0 };
        let mut datagram = vec![0; length];
        header.write(&mut datagram);
        datagram[8..].copy_from_slice(&data);
        let other = etherparse::UdpHeader {
            source_port: ports.0, destination_port: ports.1, length: length as u16, checksum: 0,
        };

        let (source, destination) = (Ipv4Addr::from(source4), Ipv4Addr::from(destination4));
        header.checksum = udp::checksum_ipv4(source, destination, &datagram);
        let expected = other.calc_checksum_ipv4_raw(source4, destination4, &data).unwrap();
        prop_assert_eq!(header.checksum, expected);
        header.write(&mut datagram);
        prop_assert!(udp::verify_ipv4(source, destination, &datagram));
        datagram[3] ^= 1;
        prop_assert!(!udp::verify_ipv4(source, destination, &datagram));
        datagram[3] ^= 1;

        let (source, destination) = (Ipv6Addr::from(source6), Ipv6Addr::from(destination6));
        header.checksum = udp::checksum_ipv6(source, destination, &datagram);
        let expected = other.calc_checksum_ipv6_raw(source6, destination6, &data).unwrap();
        prop_assert_eq!(header.checksum, expected);
        header.write(&mut datagram);
        prop_assert!(udp::verify_ipv6(source, destination, &datagram));
    }

    #[test]
    fn a_udp_update_equals_a_full_sum(
        source: [u8; 4], destination: [u8; 4], mut datagram in vec(any::<u8>(), 10..100), word: u16,
    ) {
        let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
        let before = udp::checksum_ipv4(source, destination, &datagram);
        let old = u16::from_be_bytes([datagram[8], datagram[9]]);
        datagram[8..10].copy_from_slice(&word.to_be_bytes());
        let after = udp::checksum_ipv4(source, destination, &datagram);
        prop_assert_eq!(udp::update_checksum(before, old, word), after);
    }

    #[test]
    fn a_flow_s_hash_is_that_of_its_five_tuple(
        ip in any_ipv4(), ports: [u8; 4], payload in vec(any::<u8>(), 0..30), tos: u8, ttl: u8,
        identification: u16, protocol in prop::sample::select(vec![6u8, 17, 33, 132, 136]),
    ) {
        let ip = Ipv4 { fragment_offset: 0, more_fragments: false, protocol, ..ip };
        let packet = |ip: &Ipv4, payload: &[u8]| [&written(ip), &ports[..], payload].concat();
        let hash = flow::flow_hash(&packet(&ip, &payload));
        let same = Ipv4 { tos, ttl, identification, total_len: 20, ..ip };
        prop_assert_eq!(flow::flow_hash(&packet(&same, &[])), hash);
        let other = Ipv4 { source: Ipv4Addr::from(u32::from(ip.source) ^ 1), ..ip };
        prop_assert_ne!(flow::flow_hash(&packet(&other, &payload)), hash);
        prop_assert!(flow::vxlan_source_port(hash) >= 49152);
    }

    #[test]
    fn fragments_have_one_hash(ip in any_ipv4(), a in vec(any::<u8>(), 0..30), b in vec(any::<u8>(), 0..30)) {
        let first = Ipv4 { fragment_offset: 0, more_fragments: true, ..ip };
        let last = Ipv4 { fragment_offset: 1480, more_fragments: false, ..ip };
        prop_assert_eq!(
            flow::flow_hash(&[&written(&first), &a[..]].concat()),
            flow::flow_hash(&[&written(&last), &b[..]].concat())
        );
    }

    #[test]
    fn a_partial_checksum_becomes_etherparse_s(
        ip in any_ipv4(), payload in vec(any::<u8>(), 20..200), padding in 0usize..20, is_tcp: bool,
    ) {
        let (protocol, at) = if is_tcp { (protocol::TCP, 16) } else { (protocol::UDP, 6) };
        let ip = Ipv4 {
            protocol, total_len: 20 + payload.len(), more_fragments: false, fragment_offset: 0, ..ip
        };
        let mut packet = [&written(&ip), &payload[..]].concat();
        let length = (payload.len() as u16).to_be_bytes();
        let pseudo = Sum16BitWords::new()
            .add_slice(&packet[12..20]).add_2bytes([0, protocol]).add_2bytes(length);
        let partial = (!pseudo.ones_complement()).to_ne_bytes();
        packet[20 + at..22 + at].copy_from_slice(&[0, 0]);
        let full = pseudo.add_slice(&packet[20..]);
        let full = if is_tcp { full.ones_complement() } else { full.to_ones_complement_with_no_zero() };
        packet[20 + at..22 + at].copy_from_slice(&partial);
        packet.resize(packet.len() + padding, 0xee);

        prop_assert_eq!(partial::complete_checksum(&mut packet), full.to_ne_bytes() != partial);
        prop_assert_eq!(&packet[20 + at..22 + at], &full.to_ne_bytes());
        // Once right it stays.
        let before = packet.clone();
        prop_assert!(!partial::complete_checksum(&mut packet));
        prop_assert_eq!(packet, before);
    }

    #[test]
    fn nothing_panics(mut bytes in vec(any::<u8>(), 0..200), version in prop::sample::select(vec![0x45u8, 0x4f, 0x60, 0xff])) {
        if let (Some(first), true) = (bytes.first_mut(), version != 0xff) {
            *first = version;
        }
        // A plausible length, so that the walk goes on behind the header.
        if bytes.len() > 5 && version == 0x45 {
            let length = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        if bytes.len() > 40 && version == 0x60 {
            let length = bytes.len() as u16 - 40;
            bytes[4..6].copy_from_slice(&length.to_be_bytes());
            bytes[6] = [0, 43, 44, 60, 58, 6, 17][usize::from(bytes[6]) % 7];
        }
        parse_as_everything(&bytes);
        change_as_everything(&mut bytes);
    }
}

fn zeros() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![0u16, 1, 0xfffe, 0xffff])
}

fn parse_as_everything(bytes: &[u8]) {
    let (v4, v6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    let _ = (
        Ethernet::parse(bytes),
        Arp::parse(bytes),
        Vxlan::parse(bytes),
        Udp::parse(bytes),
    );
    let _ = (
        Icmp::parse(bytes),
        Icmpv6::parse(v6, v6, bytes),
        NeighbourMessage::parse(bytes),
    );
    let _ = (
        Ipv4::parse(bytes),
        Ipv6::parse(bytes),
        ipv6::upper_layer(bytes),
    );
    let _ = (
        udp::verify_ipv4(v4, v4, bytes),
        udp::verify_ipv6(v6, v6, bytes),
    );
    let _ = (udp::checksum_ipv4(v4, v4, bytes), flow::flow_hash(bytes));
    if let Ok(ip) = Ipv4::parse_quoted(bytes) {
        let _ = icmp::may_answer(&ip, bytes);
    }
    if let Ok(ip) = Ipv6::parse_quoted(bytes) {
        let _ = icmpv6::may_answer(&ip, bytes);
    }
    for room in [0, 28, 56, 100, 2048] {
        let mut out = vec![0; room];
        let kind = icmp::ErrorKind::TimeExceeded(0);
        assert!(icmp::write_error(kind, bytes, v4, v4, &mut out) <= room);
        let kind = icmpv6::ErrorKind::TimeExceeded(0);
        assert!(icmpv6::write_error(kind, bytes, v6, v6, &mut out) <= room);
    }
}

fn change_as_everything(bytes: &mut [u8]) {
    partial::complete_checksum(bytes);
    icmp::echo_reply(bytes);
    icmpv6::echo_reply(bytes);
    ipv4::decrement_ttl(bytes);
    ipv4::set_tos(bytes, 1);
    ipv6::decrement_hop_limit(bytes);
    ipv6::set_traffic_class(bytes, 1);
}
