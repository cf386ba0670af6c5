//! The packet path against packets made by etherparse, row by row of how a packet is treated.
#![allow(missing_docs)]

mod common;

use common::*;
use etherparse::{EtherType, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use underpass::fib::NextHop;
use underpass::forward::{Punt, Verdict};
use underpass::packet::DropReason;
use underpass::port::PortId;
use underpass::wire::{MacAddr, Mtu};

#[test]
fn a_pods_packet_goes_out_by_ipip_with_a_hop_less() {
    let inner = udp(POD, FAR_IPIP, 64, b"payload");
    let (verdict, out) = forward_one(&snapshot(), WORKLOAD, &from_pod(&inner));
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    assert_eq!(out[..6], FAR_UPLINK_MAC.0);
    assert_eq!(out[6..12], UPLINK_MAC.0);
    let (outer, rest) = etherparse::Ipv4Header::from_slice(&out[14..]).unwrap();
    assert_eq!(outer.header_checksum, outer.calc_header_checksum());
    assert_eq!(
        (outer.source, outer.destination),
        (NODE.octets(), FAR_NODE.octets())
    );
    assert_eq!((outer.protocol.0, outer.time_to_live), (4, 64));
    assert_eq!(usize::from(outer.total_len), out.len() - 14);
    assert_eq!(rest, with_ttl(&inner, 63));
}

#[test]
fn a_pods_packet_goes_out_by_vxlan_with_both_headers_right() {
    let inner = udp(POD, FAR_VXLAN, 64, b"payload");
    let (verdict, out) = forward_one(&snapshot(), WORKLOAD, &from_pod(&inner));
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    let sliced = SlicedPacket::from_ethernet(&out).unwrap();
    let Some(TransportSlice::Udp(datagram)) = sliced.transport else {
        panic!("no UDP in {sliced:?}");
    };
    assert_eq!(
        (datagram.destination_port(), datagram.checksum()),
        (4789, 0)
    );
    assert!(datagram.source_port() >= 49152);
    assert_eq!(datagram.payload()[..8], CALICO_VXLAN);
    let frame = &datagram.payload()[8..];
    assert_eq!(frame[..6], FAR_VTEP_MAC.0);
    assert_eq!(frame[6..12], VTEP_MAC.0);
    assert_eq!(frame[12..14], EtherType::IPV4.0.to_be_bytes());
    assert_eq!(frame[14..], with_ttl(&inner, 63));
}

#[test]
fn a_pods_packet_goes_out_directly() {
    let inner = udp(POD, FAR_DIRECT, 64, b"payload");
    let (verdict, out) = forward_one(&snapshot(), WORKLOAD, &from_pod(&inner));
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    assert_eq!(
        out,
        ethernet(UPLINK_MAC, FAR_UPLINK_MAC, &with_ttl(&inner, 63))
    );
}

#[test]
fn ipv6_travels_in_vxlan_and_not_in_ipip() {
    let inner = udp6(POD_V6, FAR_VXLAN_V6, 64, b"payload");
    let (verdict, out) = forward_one(&snapshot(), WORKLOAD, &from_pod(&inner));
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    let sliced = SlicedPacket::from_ethernet(&out).unwrap();
    let Some(NetSlice::Ipv4(outer)) = &sliced.net else {
        panic!("{sliced:?}")
    };
    assert!(outer.header().dont_fragment());
    let frame = &out[14 + 20 + 8 + 8..];
    assert_eq!(frame[12..14], EtherType::IPV6.0.to_be_bytes());
    assert_eq!(frame[14 + 7], 63);
    assert_eq!(frame[14 + 8..], inner[8..]);

    let by_ipip = udp6(POD_V6, "fd00:0:0:2::2".parse().unwrap(), 64, b"x");
    let (verdict, _) = forward_one(&snapshot(), WORKLOAD, &from_pod(&by_ipip));
    assert_eq!(verdict, Verdict::Drop(DropReason::InnerProtocol));
}

#[test]
fn tunnel_packets_are_opened_whatever_mode_we_send_in() {
    let inner = udp(FAR_VXLAN, POD, 64, b"payload");
    let frame = ethernet(FAR_VTEP_MAC, VTEP_MAC, &inner);
    for packet in [
        ipip(FAR_NODE, NODE, &inner),
        vxlan(FAR_NODE, CALICO_VXLAN, &frame),
    ] {
        let (verdict, out) = forward_one(&snapshot(), UPLINK, &from_uplink(&packet));
        assert_eq!(verdict, Verdict::Transmit(WORKLOAD));
        let expected = ethernet(MacAddr::WORKLOAD_GATEWAY, POD_MAC, &with_ttl(&inner, 63));
        assert_eq!(out, expected);
    }
}

#[test]
fn dscp_ecn_and_df_go_into_the_outer_header() {
    for (tos, dont_fragment) in [
        (0b1011_1000, true),
        (0b0000_0011, false),
        (0b1111_1110, false),
    ] {
        let mut inner = udp(POD, FAR_IPIP, 64, b"payload");
        rewrite(&mut inner, |header| {
            header.dscp = (tos >> 2).try_into().unwrap();
            header.ecn = (tos & 3).try_into().unwrap();
            header.dont_fragment = dont_fragment;
        });
        let (_, out) = forward_one(&snapshot(), WORKLOAD, &from_pod(&inner));
        assert_eq!(out[15], tos);
        assert_eq!(out[20] & 0x40 != 0, dont_fragment);
        let (outer, _) = etherparse::Ipv4Header::from_slice(&out[14..]).unwrap();
        assert_eq!(outer.header_checksum, outer.calc_header_checksum());
    }
}

/// RFC 7126 section 4 has routers pass record route and timestamp on; only the host's kernel fills them in.
#[test]
fn an_inner_packets_options_are_passed_on_as_they_are() {
    let options = [7, 7, 4, 0, 0, 0, 0, 0];
    let plain = udp(POD, FAR_IPIP, 64, b"payload");
    let (mut header, behind) = etherparse::Ipv4Header::from_slice(&plain).unwrap();
    header.options = etherparse::Ipv4Options::from(options);
    header.total_len += 8;
    header.header_checksum = header.calc_header_checksum();
    let packet = [&header.to_bytes()[..], behind].concat();
    let (verdict, out) = forward_one(&snapshot(), WORKLOAD, &from_pod(&packet));
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    let (header, payload) = etherparse::Ipv4Header::from_slice(&out[34..]).unwrap();
    assert_eq!(header.options.as_slice(), options);
    assert_eq!(header.time_to_live, 63);
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!(payload[8..], *b"payload");
}

#[test]
fn outer_identifications_differ_when_the_underlay_may_fragment() {
    let snapshot = snapshot();
    let mut inner = udp(POD, FAR_IPIP, 64, b"payload");
    rewrite(&mut inner, |header| header.dont_fragment = false);
    let mut state = underpass::forward::WorkerState::new(0, 1);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        let mut frame = underpass::packet::Frame::leak(512, 256);
        assert!(frame.fill(&from_pod(&inner), 256));
        let mut verdicts = Vec::new();
        let batch = &mut [frame];
        underpass::forward::forward(&snapshot, &mut state, WORKLOAD, batch, &mut verdicts);
        let bytes = batch[0].bytes();
        seen.insert(u16::from_be_bytes([bytes[18], bytes[19]]));
    }
    assert_eq!(seen.len(), 1000);
}

#[test]
fn an_outer_congestion_mark_reaches_the_inner_header() {
    let mut inner = udp(FAR_IPIP, POD, 64, b"payload");
    rewrite(&mut inner, |header| header.ecn = 2.try_into().unwrap());
    let mut outer = ipip(FAR_NODE, NODE, &inner);
    rewrite(&mut outer, |header| header.ecn = 3.try_into().unwrap());
    let (verdict, out) = forward_one(&snapshot(), UPLINK, &from_uplink(&outer));
    assert_eq!(verdict, Verdict::Transmit(WORKLOAD));
    let (header, _) = etherparse::Ipv4Header::from_slice(&out[14..]).unwrap();
    assert_eq!(header.ecn.value(), 3);
    assert_eq!(header.header_checksum, header.calc_header_checksum());
}

#[test]
fn hosts_packets_are_not_charged_a_hop() {
    let inner = udp(NODE, FAR_IPIP, 1, b"payload");
    let (verdict, out) = forward_one(&snapshot(), HOST, &inner);
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    assert_eq!(out[34..], inner);
    let to_host = udp(POD, NODE, 1, b"payload");
    let (verdict, out) = forward_one(&snapshot(), WORKLOAD, &from_pod(&to_host));
    assert_eq!(verdict, Verdict::Transmit(HOST));
    assert_eq!(out, to_host);
}

#[test]
fn what_cannot_be_forwarded_is_punted_as_it_came() {
    let punts = [
        (udp(POD, FAR_IPIP, 1, b""), Punt::TtlExpired),
        (
            udp(POD, "192.168.9.9".parse().unwrap(), 64, b""),
            Punt::NoRoute,
        ),
        (
            udp(POD, "192.168.1.60".parse().unwrap(), 64, b""),
            Punt::Blackhole,
        ),
        (
            udp(POD, "169.254.1.1".parse().unwrap(), 64, b""),
            Punt::ToRouter,
        ),
        (
            udp(POD, "192.168.5.1".parse().unwrap(), 64, b""),
            Punt::Unresolved(NextHop(9)),
        ),
        (
            udp(POD, "192.168.5.1".parse().unwrap(), 1, b""),
            Punt::TtlExpired,
        ),
        (udp(POD, FAR_IPIP, 64, &[0; 1460]), Punt::TooBig(Mtu(1480))),
        (udp(POD, FAR_VXLAN, 64, &[0; 1423]), Punt::TooBig(Mtu(1450))),
    ];
    for (packet, punt) in punts {
        let (verdict, left) = forward_one(&snapshot(), WORKLOAD, &from_pod(&packet));
        assert_eq!(verdict, Verdict::Punt(punt));
        assert_eq!(left, packet);
    }
    let fits = udp(POD, FAR_VXLAN, 64, &[0; 1422]);
    assert_eq!(
        forward_one(&snapshot(), WORKLOAD, &from_pod(&fits)).0,
        Verdict::Transmit(UPLINK)
    );
    let arp = ethernet_of(POD_MAC, MacAddr::BROADCAST, 0x0806, &[0; 28]);
    assert_eq!(
        forward_one(&snapshot(), WORKLOAD, &arp),
        (Verdict::Punt(Punt::Arp), arp)
    );
}

#[test]
fn a_packet_that_the_kernel_wrongly_gives_us_is_not_passed_to_and_fro() {
    let packet = udp(NODE, "203.0.113.9".parse().unwrap(), 64, b"");
    assert_eq!(
        forward_one(&snapshot(), HOST, &packet).0,
        Verdict::Punt(Punt::NoRoute)
    );
}

/// Every way in which a packet is refused, by port and bytes.
#[test]
fn each_bad_packet_has_its_reason() {
    use DropReason as R;
    let good = udp(POD, FAR_IPIP, 64, b"payload");
    let from_far = udp(FAR_IPIP, POD, 64, b"payload");
    let far_frame = ethernet(FAR_VTEP_MAC, VTEP_MAC, &from_far);
    let changed = |packet: &[u8], at: usize, byte: u8| {
        let mut packet = packet.to_vec();
        packet[at] = byte;
        packet
    };
    let header = |packet: &[u8], change: &dyn Fn(&mut etherparse::Ipv4Header)| {
        let mut packet = packet.to_vec();
        rewrite(&mut packet, change);
        packet
    };
    let outer = |change: &dyn Fn(&mut etherparse::Ipv4Header)| {
        from_uplink(&header(&ipip(FAR_NODE, NODE, &from_far), change))
    };
    let vx = |header, frame: &[u8]| from_uplink(&vxlan(FAR_NODE, header, frame));
    let mut bad_udp_checksum = vxlan(FAR_NODE, CALICO_VXLAN, &far_frame);
    bad_udp_checksum[26..28].copy_from_slice(&[0x12, 0x34]);
    let mut short_udp = vxlan(FAR_NODE, CALICO_VXLAN, &far_frame);
    short_udp[24..26].copy_from_slice(&[0, 7]);
    let mut long_udp = vxlan(FAR_NODE, CALICO_VXLAN, &far_frame);
    long_udp[24..26].copy_from_slice(&[0xff, 0xff]);
    let cases: Vec<(&str, PortId, Vec<u8>, DropReason)> = vec![
        ("short frame", WORKLOAD, vec![0; 13], R::EthernetTruncated),
        ("empty frame", WORKLOAD, vec![], R::EthernetTruncated),
        ("empty packet", HOST, vec![], R::Ipv4Truncated),
        (
            "another's",
            WORKLOAD,
            ethernet(POD_MAC, FAR_UPLINK_MAC, &good),
            R::NotForUs,
        ),
        (
            "IPX",
            WORKLOAD,
            ethernet_of(POD_MAC, WORKLOAD_DEVICE_MAC, 0x8137, &good),
            R::UnknownEthertype,
        ),
        (
            "a VLAN's",
            WORKLOAD,
            tagged(&from_pod(&good), 100),
            R::VlanTag,
        ),
        (
            "a VLAN's, by uplink",
            UPLINK,
            tagged(&from_uplink(&from_far), 4094),
            R::VlanTag,
        ),
        (
            "to all stations, for one address",
            WORKLOAD,
            ethernet(POD_MAC, MacAddr([0xff; 6]), &good),
            R::Multicast,
        ),
        (
            "to a group of stations, its last hop",
            WORKLOAD,
            ethernet(
                POD_MAC,
                MacAddr([1, 0, 0x5e, 0, 0, 9]),
                &udp(POD, FAR_IPIP, 1, b""),
            ),
            R::Multicast,
        ),
        (
            "to all stations, IPv6",
            WORKLOAD,
            ethernet(
                POD_MAC,
                MacAddr([0x33, 0x33, 0, 0, 0, 1]),
                &udp6(POD_V6, FAR_VXLAN_V6, 64, b""),
            ),
            R::Multicast,
        ),
        (
            "to all stations, by uplink",
            UPLINK,
            ethernet(FAR_UPLINK_MAC, MacAddr([0xff; 6]), &from_far),
            R::Multicast,
        ),
        (
            "inner tag",
            UPLINK,
            vx(CALICO_VXLAN, &tagged(&far_frame, 100)),
            R::VlanTag,
        ),
        (
            "inner priority tag",
            UPLINK,
            vx(CALICO_VXLAN, &tagged(&far_frame, 0)),
            R::VlanTag,
        ),
        (
            "ARP by uplink",
            UPLINK,
            ethernet_of(FAR_UPLINK_MAC, UPLINK_MAC, 0x0806, &good),
            R::UnknownEthertype,
        ),
        (
            "v6 type, v4 packet",
            WORKLOAD,
            ethernet_of(POD_MAC, WORKLOAD_DEVICE_MAC, 0x86dd, &good),
            R::IpVersion,
        ),
        ("version 5", HOST, changed(&good, 0, 0x55), R::IpVersion),
        ("19 bytes", HOST, good[..19].to_vec(), R::Ipv4Truncated),
        ("IHL 4", HOST, changed(&good, 0, 0x44), R::Ipv4HeaderLength),
        (
            "IHL beyond",
            HOST,
            changed(&good[..24], 0, 0x4f),
            R::Ipv4HeaderLength,
        ),
        (
            "total length short",
            HOST,
            header(&good, &|h| h.total_len = 19),
            R::Ipv4TotalLength,
        ),
        (
            "total length long",
            HOST,
            header(&good, &|h| h.total_len = 1000),
            R::Ipv4TotalLength,
        ),
        (
            "checksum",
            HOST,
            changed(&good, 10, good[10] ^ 1),
            R::Ipv4Checksum,
        ),
        ("v6 short", HOST, vec![0x60; 39], R::Ipv6Truncated),
        (
            "v6 payload",
            HOST,
            changed(&udp6(POD_V6, FAR_VXLAN_V6, 9, b""), 5, 200),
            R::Ipv6PayloadLength,
        ),
        (
            "multicast source",
            UPLINK,
            from_uplink(&udp([224, 0, 0, 1].into(), POD, 9, b"")),
            R::MartianSource,
        ),
        (
            "loopback source",
            UPLINK,
            from_uplink(&udp([127, 0, 0, 1].into(), POD, 9, b"")),
            R::MartianSource,
        ),
        (
            "one of this node's pods, from outside",
            UPLINK,
            from_uplink(&udp(OTHER_POD, POD, 9, b"")),
            R::MartianSource,
        ),
        (
            "the pods' gateway, from outside",
            UPLINK,
            from_uplink(&udp6(
                underpass::forward::RouterAddresses::GATEWAY_V6,
                POD_V6,
                9,
                b"",
            )),
            R::MartianSource,
        ),
        (
            "loopback",
            WORKLOAD,
            from_pod(&udp(POD, [127, 0, 0, 1].into(), 9, b"")),
            R::MartianDestination,
        ),
        (
            "class E",
            WORKLOAD,
            from_pod(&udp(POD, [250, 0, 0, 1].into(), 9, b"")),
            R::MartianDestination,
        ),
        (
            "multicast",
            WORKLOAD,
            from_pod(&udp(POD, [224, 0, 0, 5].into(), 9, b"")),
            R::Multicast,
        ),
        (
            "broadcast",
            WORKLOAD,
            from_pod(&udp(POD, [255; 4].into(), 9, b"")),
            R::Multicast,
        ),
        (
            "spoofed",
            WORKLOAD,
            from_pod(&udp(OTHER_POD, FAR_IPIP, 9, b"")),
            R::SpoofedSource,
        ),
        (
            "to itself",
            WORKLOAD,
            from_pod(&udp(POD, POD, 9, b"")),
            R::SamePort,
        ),
        (
            "stranger, IPIP",
            UPLINK,
            from_uplink(&ipip(STRANGER, NODE, &from_far)),
            R::UnknownPeer,
        ),
        (
            "stranger, VXLAN",
            UPLINK,
            from_uplink(&vxlan(STRANGER, CALICO_VXLAN, &far_frame)),
            R::UnknownPeer,
        ),
        (
            "outer checksum",
            UPLINK,
            changed(&outer(&|_| ()), 14 + 10, 0xff),
            R::Ipv4Checksum,
        ),
        (
            "UDP length short",
            UPLINK,
            from_uplink(&short_udp),
            R::UdpLength,
        ),
        (
            "UDP length long",
            UPLINK,
            from_uplink(&long_udp),
            R::UdpLength,
        ),
        (
            "UDP checksum",
            UPLINK,
            from_uplink(&bad_udp_checksum),
            R::UdpChecksum,
        ),
        (
            "VXLAN cut",
            UPLINK,
            vx(CALICO_VXLAN, &far_frame[..13]),
            R::VxlanTruncated,
        ),
        (
            "I flag clear",
            UPLINK,
            vx([0, 0, 0, 0, 0, 0x10, 0, 0], &far_frame),
            R::VxlanNoVni,
        ),
        (
            "VNI 1",
            UPLINK,
            vx([8, 0, 0, 0, 0, 0, 1, 0], &far_frame),
            R::VxlanUnknownVni,
        ),
        (
            "another VTEP's",
            UPLINK,
            vx(CALICO_VXLAN, &ethernet(FAR_VTEP_MAC, POD_MAC, &from_far)),
            R::VxlanInnerNotForUs,
        ),
        (
            "inner ARP",
            UPLINK,
            vx(
                CALICO_VXLAN,
                &ethernet_of(FAR_VTEP_MAC, VTEP_MAC, 0x0806, &from_far),
            ),
            R::InnerProtocol,
        ),
        (
            "inner garbage",
            UPLINK,
            from_uplink(&ipip(FAR_NODE, NODE, b"garbage")),
            R::InnerProtocol,
        ),
        (
            "inner nothing",
            UPLINK,
            from_uplink(&ipip(FAR_NODE, NODE, b"")),
            R::InnerProtocol,
        ),
        (
            "inner cut",
            UPLINK,
            from_uplink(&ipip(FAR_NODE, NODE, &from_far[..19])),
            R::Ipv4Truncated,
        ),
        (
            "inner from our pod",
            UPLINK,
            from_uplink(&ipip(FAR_NODE, NODE, &udp(OTHER_POD, POD, 9, b""))),
            R::SpoofedInner,
        ),
        (
            "inner from loopback",
            UPLINK,
            from_uplink(&ipip(
                FAR_NODE,
                NODE,
                &udp([127, 0, 0, 1].into(), POD, 9, b""),
            )),
            R::SpoofedInner,
        ),
        (
            "inner from multicast",
            UPLINK,
            from_uplink(&ipip(
                FAR_NODE,
                NODE,
                &udp([224, 1, 1, 1].into(), POD, 9, b""),
            )),
            R::SpoofedInner,
        ),
        (
            "CE over Not-ECT",
            UPLINK,
            outer(&|h| h.ecn = 3.try_into().unwrap()),
            R::EcnNotEctCe,
        ),
    ];
    let snapshot = snapshot();
    // A priority tag alone is no VLAN's, and does not go on.
    for (port, frame, egress) in [
        (WORKLOAD, from_pod(&good), UPLINK),
        (UPLINK, from_uplink(&from_far), WORKLOAD),
    ] {
        let untagged = forward_one(&snapshot, port, &frame);
        assert_eq!(untagged.0, Verdict::Transmit(egress));
        assert_eq!(forward_one(&snapshot, port, &tagged(&frame, 0)), untagged);
    }
    let fragment = outer(&|h| h.more_fragments = true);
    let (verdict, _) = forward_one(&snapshot, UPLINK, &fragment);
    assert_eq!(verdict, Verdict::Punt(Punt::OuterFragment));
    for (name, port, bytes, reason) in cases {
        assert_eq!(
            forward_one(&snapshot, port, &bytes).0,
            Verdict::Drop(reason),
            "{name}"
        );
    }
}

#[test]
fn reserved_vxlan_bits_are_ignored_unless_the_configuration_is_strict() {
    let inner = udp(FAR_VXLAN, POD, 64, b"payload");
    let frame = ethernet(FAR_VTEP_MAC, VTEP_MAC, &inner);
    let packet = from_uplink(&vxlan(FAR_NODE, [0xff, 1, 2, 3, 0, 0x10, 0, 9], &frame));
    let mut snapshot = snapshot();
    assert_eq!(
        forward_one(&snapshot, UPLINK, &packet).0,
        Verdict::Transmit(WORKLOAD)
    );
    snapshot.tunnels.strict_reserved_bits = true;
    let (verdict, _) = forward_one(&snapshot, UPLINK, &packet);
    assert_eq!(verdict, Verdict::Drop(DropReason::VxlanReservedBits));
}

#[test]
fn a_tunnel_within_a_tunnel_is_payload() {
    let innermost = udp(FAR_IPIP, POD, 64, b"payload");
    let nested = ipip(FAR_IPIP, POD, &innermost);
    let (verdict, out) = forward_one(
        &snapshot(),
        UPLINK,
        &from_uplink(&ipip(FAR_NODE, NODE, &nested)),
    );
    assert_eq!(verdict, Verdict::Transmit(WORKLOAD));
    assert_eq!(out[14..], with_ttl(&nested, 63));
}

#[test]
fn link_padding_is_trimmed() {
    let inner = udp(POD, FAR_DIRECT, 64, b"x");
    let mut padded = from_pod(&inner);
    padded.extend([0; 17]);
    let (_, out) = forward_one(&snapshot(), WORKLOAD, &padded);
    assert_eq!(out.len(), 14 + inner.len());
}

#[test]
fn a_checksum_left_to_hardware_is_completed() {
    let whole = udp(POD, FAR_DIRECT, 64, b"payload");
    let mut partial = whole.clone();
    // What the kernel leaves: the folded sum of the pseudo header, not complemented.
    let words = [&whole[12..20], &[0, 17], &whole[24..26]].concat();
    let sum: u32 = words
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let folded = ((sum & 0xffff) + (sum >> 16)) as u16;
    partial[26..28].copy_from_slice(&folded.to_be_bytes());
    let (_, out) = forward_one(&snapshot(), WORKLOAD, &from_pod(&partial));
    assert_eq!(out[14..], with_ttl(&whole, 63));
}

#[test]
fn one_flow_keeps_its_vxlan_source_port_and_many_flows_spread() {
    let snapshot = snapshot();
    let port_of = |payload: &[u8], source_port: u16| {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4(POD.octets(), FAR_VXLAN.octets(), 64)
            .udp(source_port, 80)
            .write(&mut packet, payload)
            .unwrap();
        let (_, out) = forward_one(&snapshot, WORKLOAD, &from_pod(&packet));
        u16::from_be_bytes([out[34], out[35]])
    };
    assert_eq!(port_of(b"a", 1000), port_of(b"something longer", 1000));
    let ports: std::collections::BTreeSet<_> = (1000..2000).map(|n| port_of(b"", n)).collect();
    assert!(ports.len() > 900, "{} ports for 1000 flows", ports.len());
    assert!(ports.iter().all(|port| *port >= 49152));
}

proptest! {
    /// Encapsulation by one node, decapsulation by the other: the packet is the same but for its TTL.
    #[test]
    fn what_one_node_wraps_the_other_unwraps(
        payload in proptest::collection::vec(any::<u8>(), 0..1400),
        tos in any::<u8>(),
        ttl in 3..=255_u8,
        vxlan in any::<bool>(),
    ) {
        let far = if vxlan { FAR_VXLAN } else { FAR_IPIP };
        let mut inner = udp(POD, far, ttl, &payload);
        rewrite(&mut inner, |header| {
            header.dscp = (tos >> 2).try_into().unwrap();
            header.ecn = (tos & 3).try_into().unwrap();
        });
        let (verdict, wrapped) = forward_one(&snapshot(), WORKLOAD, &from_pod(&inner));
        prop_assert_eq!(verdict, Verdict::Transmit(UPLINK));

        let mut other = snapshot();
        other.tunnels.node_address = Some(FAR_NODE);
        other.tunnels.peers = [NODE].into_iter().collect();
        other.tunnels.vtep_mac = FAR_VTEP_MAC;
        other.tunnels.local_addresses.clear();
        other.ports[0].link = underpass::port::Link::Ethernet(FAR_UPLINK_MAC);
        other.adjacencies[1] = other.adjacencies[0].clone();
        other.adjacencies[2] = other.adjacencies[0].clone();
        let (verdict, unwrapped) = forward_one(&other, UPLINK, &wrapped);
        prop_assert_eq!(verdict, Verdict::Transmit(WORKLOAD));
        prop_assert_eq!(&unwrapped[14..], &with_ttl(&inner, ttl - 2)[..]);
    }

    /// Any bytes on any port: a verdict, no panic.
    #[test]
    fn any_bytes_get_a_verdict(
        bytes in proptest::collection::vec(any::<u8>(), 0..256),
        port in 0..5_u16,
        prefix in 0..4_usize,
    ) {
        let inner = udp(FAR_IPIP, POD, 64, b"payload");
        let good = from_uplink(&ipip(FAR_NODE, NODE, &inner));
        let wrapped = from_uplink(&vxlan(FAR_NODE, CALICO_VXLAN, &ethernet(FAR_VTEP_MAC, VTEP_MAC, &inner)));
        let start: &[u8] = [&[][..], &good[..14], &good[..34], &wrapped[..50]][prefix];
        let frame = [start, &bytes].concat();
        forward_one(&snapshot(), PortId(port), &frame);
    }
}

fn with_ttl(packet: &[u8], ttl: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    rewrite(&mut packet, |header| header.time_to_live = ttl);
    packet
}

/// Changes an IPv4 packet's header and sets its checksum right.
fn rewrite(packet: &mut [u8], change: impl FnOnce(&mut etherparse::Ipv4Header)) {
    let (mut header, _) = etherparse::Ipv4Header::from_slice(packet).unwrap();
    change(&mut header);
    header.header_checksum = header.calc_header_checksum();
    let bytes = header.to_bytes();
    packet[..bytes.len()].copy_from_slice(&bytes);
}
