//! The packet path over an IPv6 underlay, and the fence, against packets made by etherparse.
#![allow(missing_docs)]

mod common;

use std::net::{IpAddr, Ipv4Addr};

use common::over_ipv6::*;
use common::*;
use etherparse::{Ipv6Header, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use underpass::forward::{
    Adjacency, Dscp, Encapsulation, LeadsTo, OuterTtl, PeerId, Peers, Punt, ReversePath,
    ReversePathMode, Snapshot, TunnelsV6, Verdict,
};
use underpass::packet::DropReason;
use underpass::wire::Mtu;

#[test]
fn vxlan_over_ipv6_has_every_header_right() {
    for (inner, ethertype) in [
        (udp(POD, FAR_VXLAN, 64, b"payload"), [0x08, 0x00]),
        (udp6(POD_V6, FAR_VXLAN_V6, 64, b"odd"), [0x86, 0xdd]),
    ] {
        let (verdict, out) = forward_one(&over_ipv6(false), WORKLOAD, &from_pod(&inner));
        assert_eq!(verdict, Verdict::Transmit(UPLINK));
        assert_eq!(out[12..14], [0x86, 0xdd]);
        let (outer, datagram) = outer(&out);
        assert_eq!(outer.source, NODE_V6.octets());
        assert_eq!(outer.destination, FAR_NODE_V6.octets());
        assert_eq!((outer.hop_limit, outer.next_header.0), (64, 17));
        assert_ne!(outer.flow_label.value(), 0);
        assert_eq!(usize::from(outer.payload_length), datagram.len());
        let sliced = SlicedPacket::from_ethernet(&out).unwrap();
        let Some(TransportSlice::Udp(header)) = sliced.transport else {
            panic!("no UDP in {sliced:?}");
        };
        assert_eq!(header.destination_port(), 4789);
        assert!(header.source_port() >= 49152);
        let expected = header
            .to_header()
            .calc_checksum_ipv6(&outer, header.payload())
            .unwrap();
        assert_eq!(header.checksum(), expected);
        assert_eq!(datagram[8..16], CALICO_VXLAN);
        let frame = &datagram[16..];
        assert_eq!(frame[..6], FAR_VTEP_MAC_V6.0);
        assert_eq!(frame[6..12], VTEP_MAC_V6.0);
        assert_eq!(frame[12..14], ethertype);
        assert_eq!(frame.len() - 14, inner.len());
    }
}

#[test]
fn the_checksum_over_ipv6_is_left_out_only_where_configured() {
    let inner = udp(POD, FAR_VXLAN, 64, b"payload");
    let (_, out) = forward_one(&over_ipv6(true), WORKLOAD, &from_pod(&inner));
    assert_eq!(outer(&out).1[6..8], [0, 0]);

    let inner = udp(FAR_VXLAN, POD, 64, b"payload");
    let none = wrapped(FAR_NODE_V6, 0, &inner, false);
    let (verdict, _) = forward_one(&over_ipv6(false), UPLINK, &none);
    assert_eq!(verdict, Verdict::Drop(DropReason::UdpChecksum));
    let (verdict, _) = forward_one(&over_ipv6(true), UPLINK, &none);
    assert_eq!(verdict, Verdict::Transmit(WORKLOAD));
    let mut wrong = wrapped(FAR_NODE_V6, 0, &inner, true);
    wrong[14 + 40 + 6] ^= 0x55;
    let (verdict, _) = forward_one(&over_ipv6(true), UPLINK, &wrong);
    assert_eq!(verdict, Verdict::Drop(DropReason::UdpChecksum));
}

#[test]
fn marks_and_hop_limits_go_into_the_outer_ipv6_header() {
    for (tos, expected) in [(0b1011_1000, 0b1011_1000), (0b0000_0011, 0b0000_0011)] {
        let mut inner = udp6(POD_V6, FAR_VXLAN_V6, 9, b"payload");
        let (mut header, _) = Ipv6Header::from_slice(&inner).unwrap();
        header.traffic_class = tos;
        inner[..40].copy_from_slice(&header.to_bytes());
        let mut snapshot = over_ipv6(false);
        let (_, out) = forward_one(&snapshot, WORKLOAD, &from_pod(&inner));
        assert_eq!(outer(&out).0.traffic_class, expected);

        let Adjacency::Forward(egress) = snapshot.adjacencies[VXLAN_HOP].clone() else {
            panic!("not a tunnel");
        };
        let marked = egress.marking(OuterTtl::Inherit, Dscp::Fixed(46));
        snapshot.adjacencies[VXLAN_HOP] = Adjacency::Forward(marked);
        let (_, out) = forward_one(&snapshot, WORKLOAD, &from_pod(&inner));
        let (header, _) = outer(&out);
        assert_eq!(header.hop_limit, 8, "the inner one, after its hop");
        assert_eq!(header.traffic_class, 46 << 2 | expected & 3);
    }
}

#[test]
fn flow_labels_and_source_ports_are_a_flows_own() {
    let label_and_port = |port: u16| {
        let mut inner = Vec::new();
        let builder = PacketBuilder::ipv4(POD.octets(), FAR_VXLAN.octets(), 64);
        builder.udp(port, 53).write(&mut inner, b"x").unwrap();
        let (_, out) = forward_one(&over_ipv6(false), WORKLOAD, &from_pod(&inner));
        let (header, datagram) = outer(&out);
        (
            header.flow_label.value(),
            u16::from_be_bytes([datagram[0], datagram[1]]),
        )
    };
    let seen: std::collections::BTreeSet<_> = (1000..1064).map(label_and_port).collect();
    assert!(seen.len() > 60, "{} of 64 flows differ", seen.len());
    assert_eq!(label_and_port(1000), label_and_port(1000));
}

#[test]
fn congestion_marks_of_an_outer_ipv6_header_reach_the_inner_one() {
    let mut inner = udp6(FAR_VXLAN_V6, POD_V6, 64, b"payload");
    let (mut header, _) = Ipv6Header::from_slice(&inner).unwrap();
    header.traffic_class = 2;
    inner[..40].copy_from_slice(&header.to_bytes());
    let packet = wrapped(FAR_NODE_V6, 3, &inner, true);
    let (verdict, out) = forward_one(&over_ipv6(false), UPLINK, &packet);
    assert_eq!(verdict, Verdict::Transmit(WORKLOAD));
    assert_eq!(
        Ipv6Header::from_slice(&out[14..]).unwrap().0.traffic_class,
        3
    );
    let unaware = wrapped(FAR_NODE_V6, 3, &udp(FAR_VXLAN, POD, 64, b""), true);
    let (verdict, _) = forward_one(&over_ipv6(false), UPLINK, &unaware);
    assert_eq!(verdict, Verdict::Drop(DropReason::EcnNotEctCe));
}

#[test]
fn what_is_not_vxlan_over_ipv6_is_left_as_it_is() {
    let inner = udp(FAR_VXLAN, POD, 64, b"payload");
    // IPv4 within IPv6 (protocol 4): routed to the host like any packet to the node.
    let mut ip_in_ip = ipv6_header(FAR_NODE_V6, 4, 0, inner.len());
    ip_in_ip.extend_from_slice(&inner);
    let (verdict, out) = forward_one(&over_ipv6(false), UPLINK, &from_uplink(&ip_in_ip));
    assert_eq!((verdict, out), (Verdict::Transmit(HOST), ip_in_ip));
    let (verdict, _) = forward_one(
        &over_ipv6(false),
        UPLINK,
        &wrapped(STRANGER_V6, 0, &inner, true),
    );
    assert_eq!(verdict, Verdict::Drop(DropReason::UnknownPeer));
}

#[test]
fn the_overhead_over_ipv6_is_70() {
    assert_eq!(Encapsulation::VxlanOverIpv6.overhead(), 70);
    let over = udp(POD, FAR_VXLAN, 64, &[0; 1430 - 28 + 1]);
    let (verdict, _) = forward_one(&over_ipv6(false), WORKLOAD, &from_pod(&over));
    assert_eq!(verdict, Verdict::Punt(Punt::TooBig(Mtu(1430))));
    let fits = udp(POD, FAR_VXLAN, 64, &[0; 1430 - 28]);
    let (verdict, out) = forward_one(&over_ipv6(false), WORKLOAD, &from_pod(&fits));
    assert_eq!((verdict, out.len()), (Verdict::Transmit(UPLINK), 1514));
}

/// Inner source, outer source, and whether each mode lets it pass: off, loose, strict.
#[test]
fn reverse_paths_are_judged_by_mode() {
    let world: Ipv4Addr = "203.0.113.9".parse().unwrap();
    let nobody: Ipv4Addr = "192.168.9.9".parse().unwrap();
    let own_block: Ipv4Addr = "192.168.1.60".parse().unwrap();
    let rows = [
        ("its own block", FAR_VXLAN, FAR_NODE, [true, true, true]),
        ("another's block", FAR_IPIP, FAR_NODE, [true, true, false]),
        ("its own address", FAR_NODE, FAR_NODE, [true, true, true]),
        ("another's address", THIRD, FAR_NODE, [true, true, false]),
        ("the world", world, FAR_NODE, [true, true, false]),
        ("a free block", nobody, FAR_NODE, [true, false, false]),
        ("our block", own_block, FAR_NODE, [true, false, false]),
        ("external, world", world, STRANGER, [true, true, true]),
        (
            "external, a node's",
            FAR_VXLAN,
            STRANGER,
            [true, true, false],
        ),
        ("external, free", nobody, STRANGER, [true, false, false]),
    ];
    for (what, inner, outer, passes) in rows {
        let modes = [
            ReversePathMode::Off,
            ReversePathMode::Loose,
            ReversePathMode::Strict,
        ];
        for (mode, passes) in modes.into_iter().zip(passes) {
            let packet = ipip(outer, NODE, &udp(inner, POD, 64, b""));
            let (verdict, _) = forward_one(&fenced(mode), UPLINK, &from_uplink(&packet));
            let expected = match passes {
                true => Verdict::Transmit(WORKLOAD),
                false => Verdict::Drop(DropReason::ReversePath),
            };
            assert_eq!(verdict, expected, "{what}, {mode:?}");
        }
    }
}

#[test]
fn strangers_stay_out_and_external_nodes_come_in() {
    let inner = udp(FAR_VXLAN, POD, 64, b"");
    let packet = from_uplink(&ipip(STRANGER, NODE, &inner));
    let (verdict, _) = forward_one(&snapshot(), UPLINK, &packet);
    assert_eq!(verdict, Verdict::Drop(DropReason::UnknownPeer));
    let (verdict, _) = forward_one(&fenced(ReversePathMode::Off), UPLINK, &packet);
    assert_eq!(verdict, Verdict::Transmit(WORKLOAD));
}

proptest! {
    /// Encapsulation by one node, decapsulation by the other: the packet is the same but for its TTL.
    #[test]
    fn what_one_node_wraps_in_ipv6_the_other_unwraps(
        payload in proptest::collection::vec(any::<u8>(), 0..1300),
        hops in 3..=255_u8,
        v6 in any::<bool>(),
        zero in any::<bool>(),
    ) {
        let inner = match v6 {
            true => udp6(POD_V6, FAR_VXLAN_V6, hops, &payload),
            false => udp(POD, FAR_VXLAN, hops, &payload),
        };
        let (verdict, wrapped) = forward_one(&over_ipv6(zero), WORKLOAD, &from_pod(&inner));
        prop_assert_eq!(verdict, Verdict::Transmit(UPLINK));

        let mut other = over_ipv6(zero);
        let id = PeerId(0);
        other.tunnels.peers = Peers::new([(IpAddr::V6(NODE_V6), id)], Vec::new());
        other.tunnels.v6 = Some(TunnelsV6 {
            node_address: FAR_NODE_V6,
            vtep_mac: FAR_VTEP_MAC_V6,
            zero_checksum: zero,
        });
        other.tunnels.local_addresses.clear();
        other.ports[0].link = underpass::port::Link::Ethernet(FAR_UPLINK_MAC);
        other.adjacencies[VXLAN_HOP] = other.adjacencies[0].clone();
        let (verdict, unwrapped) = forward_one(&other, UPLINK, &wrapped);
        prop_assert_eq!(verdict, Verdict::Transmit(WORKLOAD));
        let mut expected = inner.clone();
        for _ in 0..2 {
            if v6 {
                underpass::wire::ipv6::decrement_hop_limit(&mut expected);
            } else {
                underpass::wire::ipv4::decrement_ttl(&mut expected);
            }
        }
        prop_assert_eq!(&unwrapped[14..], &expected[..]);
    }

    /// Any bytes behind a good outer IPv6 header: a verdict, no panic.
    #[test]
    fn any_bytes_over_ipv6_get_a_verdict(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        kept in 14..100_usize,
    ) {
        let good = wrapped(FAR_NODE_V6, 0, &udp(FAR_VXLAN, POD, 64, b"payload"), false);
        let mut frame = good[..kept.min(good.len())].to_vec();
        frame.extend_from_slice(&bytes);
        if let Some(length) = frame.len().checked_sub(54)
            && kept >= 54
        {
            frame[18..20].copy_from_slice(&(length as u16).to_be_bytes());
        }
        forward_one(&over_ipv6(true), UPLINK, &frame);
    }
}

/// A second node, behind which the blocks reached by IPIP are said to be.
const THIRD: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 13);

/// The node on paper, with a third node and an external one.
fn fenced(mode: ReversePathMode) -> Snapshot {
    let mut snapshot = snapshot();
    let nodes = [
        (IpAddr::V4(FAR_NODE), PeerId(0)),
        (IpAddr::V4(THIRD), PeerId(1)),
    ];
    let external = vec!["10.30.0.99/32".parse().unwrap()];
    snapshot.tunnels.peers = Peers::new(nodes, external);
    let mut leads_to = vec![LeadsTo::Nowhere; snapshot.adjacencies.len()];
    leads_to[0] = LeadsTo::Elsewhere;
    leads_to[1] = LeadsTo::Node(PeerId(1));
    leads_to[2] = LeadsTo::Node(PeerId(0));
    leads_to[5] = LeadsTo::Elsewhere;
    snapshot.tunnels.reverse_path = ReversePath { mode, leads_to };
    snapshot
}
