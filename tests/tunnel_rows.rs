//! Every row of how a tunnel packet is treated, in every kind of tunnel, byte for byte: packets go
//! through the packet path, and what comes out is what etherparse builds.
#![allow(missing_docs)]

mod common;

use common::over_ipv6::*;
use common::*;
use etherparse::{Ipv4Header, Ipv6Header, UdpHeader};
use proptest::prelude::*;
use underpass::forward::{Adjacency, Dscp, OuterTtl, Snapshot, Verdict};
use underpass::packet::DropReason;
use underpass::port::{Link, PortId};
use underpass::wire::{MacAddr, flow};

/// A kind of tunnel, with the IP version of what is within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    tunnel: Tunnel,
    inner_v6: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tunnel {
    Ipip,
    Vxlan,
    VxlanOverIpv6,
}

/// All that there are: IP-in-IP carries IPv4 alone.
const KINDS: [Kind; 5] = [
    Kind {
        tunnel: Tunnel::Ipip,
        inner_v6: false,
    },
    Kind {
        tunnel: Tunnel::Vxlan,
        inner_v6: false,
    },
    Kind {
        tunnel: Tunnel::Vxlan,
        inner_v6: true,
    },
    Kind {
        tunnel: Tunnel::VxlanOverIpv6,
        inner_v6: false,
    },
    Kind {
        tunnel: Tunnel::VxlanOverIpv6,
        inner_v6: true,
    },
];

/// What an outer header says beside addresses and lengths.
#[derive(Debug, Clone, Copy)]
struct Outer {
    tos: u8,
    ttl: u8,
    dont_fragment: bool,
    identification: u16,
}

impl Kind {
    fn snapshot(self) -> Snapshot {
        match self.tunnel {
            Tunnel::VxlanOverIpv6 => over_ipv6(false),
            _ => snapshot(),
        }
    }

    /// The adjacency that its packets take.
    fn hop(self) -> usize {
        match self.tunnel {
            Tunnel::Ipip => 1,
            _ => VXLAN_HOP,
        }
    }

    /// A packet between the pod here and a far one, with these marks.
    fn inner(self, outwards: bool, tos: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
        if self.inner_v6 {
            let (from, to) = if outwards {
                (POD_V6, FAR_VXLAN_V6)
            } else {
                (FAR_VXLAN_V6, POD_V6)
            };
            let mut packet = udp6(from, to, ttl, payload);
            set_tos(&mut packet, tos);
            return packet;
        }
        let far = if self.tunnel == Tunnel::Ipip {
            FAR_IPIP
        } else {
            FAR_VXLAN
        };
        let (from, to) = if outwards { (POD, far) } else { (far, POD) };
        let mut packet = udp(from, to, ttl, payload);
        set_tos(&mut packet, tos);
        packet
    }

    /// The whole frame around `inner`, from this node or to it, as etherparse builds it.
    fn wrapped(self, outwards: bool, inner: &[u8], outer: Outer) -> Vec<u8> {
        let (near, far) = (UPLINK_MAC, FAR_UPLINK_MAC);
        let (from, to) = if outwards { (near, far) } else { (far, near) };
        let v4 = if outwards {
            (NODE, FAR_NODE)
        } else {
            (FAR_NODE, NODE)
        };
        let v6 = if outwards {
            (NODE_V6, FAR_NODE_V6)
        } else {
            (FAR_NODE_V6, NODE_V6)
        };
        let vteps = match self.tunnel {
            Tunnel::VxlanOverIpv6 => (VTEP_MAC_V6, FAR_VTEP_MAC_V6),
            _ => (VTEP_MAC, FAR_VTEP_MAC),
        };
        let (own, other) = if outwards { vteps } else { (vteps.1, vteps.0) };
        let payload = [&CALICO_VXLAN[..], &ethernet(own, other, inner)].concat();
        let hash = flow::flow_hash(inner);
        let mut datagram =
            UdpHeader::without_ipv4_checksum(flow::vxlan_source_port(hash), 4789, payload.len())
                .unwrap();
        let packet = match self.tunnel {
            Tunnel::Ipip => [&v4_header(v4, 4, inner.len(), outer)[..], inner].concat(),
            Tunnel::Vxlan => {
                let header = v4_header(v4, 17, 8 + payload.len(), outer);
                [&header[..], &datagram.to_bytes(), &payload].concat()
            }
            Tunnel::VxlanOverIpv6 => {
                let header = Ipv6Header {
                    traffic_class: outer.tos,
                    flow_label: flow::ipv6_flow_label(hash).try_into().unwrap(),
                    payload_length: (8 + payload.len()) as u16,
                    next_header: 17.into(),
                    hop_limit: outer.ttl,
                    source: v6.0.octets(),
                    destination: v6.1.octets(),
                };
                datagram.checksum = datagram.calc_checksum_ipv6(&header, &payload).unwrap();
                [&header.to_bytes()[..], &datagram.to_bytes(), &payload].concat()
            }
        };
        ethernet(from, to, &packet)
    }
}

fn v4_header(
    (source, destination): (std::net::Ipv4Addr, std::net::Ipv4Addr),
    protocol: u8,
    payload: usize,
    outer: Outer,
) -> Vec<u8> {
    let mut header = ipv4_header(source, destination, protocol, payload);
    header.dscp = (outer.tos >> 2).try_into().unwrap();
    header.ecn = (outer.tos & 3).try_into().unwrap();
    header.time_to_live = outer.ttl;
    header.dont_fragment = outer.dont_fragment;
    header.identification = outer.identification;
    header.header_checksum = header.calc_header_checksum();
    header.to_bytes().to_vec()
}

/// Sets DSCP and ECN, and an IPv4 checksum right.
fn set_tos(packet: &mut [u8], tos: u8) {
    if packet[0] >> 4 == 4 {
        rewrite(packet, |header| {
            header.dscp = (tos >> 2).try_into().unwrap();
            header.ecn = (tos & 3).try_into().unwrap();
        });
    } else {
        packet[0] = 0x60 | tos >> 4;
        packet[1] = tos << 4 | packet[1] & 0x0f;
    }
}

fn rewrite(packet: &mut [u8], change: impl FnOnce(&mut Ipv4Header)) {
    let (mut header, _) = Ipv4Header::from_slice(packet).unwrap();
    change(&mut header);
    header.header_checksum = header.calc_header_checksum();
    let bytes = header.to_bytes();
    packet[..bytes.len()].copy_from_slice(&bytes);
}

/// The packet with other marks and one hop less.
fn hop_less(packet: &[u8], tos: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        rewrite(&mut packet, |header| header.time_to_live -= 1);
    } else {
        packet[7] -= 1;
    }
    set_tos(&mut packet, tos);
    packet
}

const PLAIN: Outer = Outer {
    tos: 0,
    ttl: 64,
    dont_fragment: true,
    identification: 0,
};

/// RFC 6040 figure 4: for each inner mark (Not-ECT, ECT(1), ECT(0), CE, as their two bits count), what
/// comes of each outer mark in that order; nothing where the packet is dropped.
const FIGURE_4: [[Option<u8>; 4]; 4] = [
    [Some(0), Some(0), Some(0), None],
    [Some(1), Some(1), Some(1), Some(3)],
    [Some(2), Some(1), Some(2), Some(3)],
    [Some(3), Some(3), Some(3), Some(3)],
];

#[test]
fn all_sixteen_rows_of_figure_4_in_every_tunnel() {
    for kind in KINDS {
        for (inner_ecn, row) in FIGURE_4.into_iter().enumerate() {
            for (outer_ecn, outcome) in row.into_iter().enumerate() {
                let tos = 0b1010_1000 | inner_ecn as u8;
                let inner = kind.inner(false, tos, 64, b"payload");
                let outer = Outer {
                    tos: 0b0101_0100 | outer_ecn as u8,
                    ..PLAIN
                };
                let frame = kind.wrapped(false, &inner, outer);
                let (verdict, out) = forward_one(&kind.snapshot(), UPLINK, &frame);
                let row = format!("{kind:?}: inner {inner_ecn:02b}, outer {outer_ecn:02b}");
                let Some(ecn) = outcome else {
                    assert_eq!(verdict, Verdict::Drop(DropReason::EcnNotEctCe), "{row}");
                    continue;
                };
                assert_eq!(verdict, Verdict::Transmit(WORKLOAD), "{row}");
                // The DSCP is the inner one's: the pipe model of RFC 2983.
                let expected = hop_less(&inner, 0b1010_1000 | ecn);
                let expected = ethernet(MacAddr::WORKLOAD_GATEWAY, POD_MAC, &expected);
                assert_eq!(out, expected, "{row}");
            }
        }
    }
}

#[test]
fn every_mark_goes_into_every_tunnels_outer_header() {
    for kind in KINDS {
        for ecn in 0..4 {
            for dscp in [0, 0b10_1010, 0b11_1111] {
                let tos = dscp << 2 | ecn;
                let inner = kind.inner(true, tos, 64, b"payload");
                let mut expected = Outer { tos, ..PLAIN };
                if !kind.inner_v6 && kind.tunnel != Tunnel::VxlanOverIpv6 {
                    // etherparse's packets have DF set; the next test has it clear.
                    expected.dont_fragment = inner[6] & 0x40 != 0;
                    assert!(expected.dont_fragment);
                }
                sends(kind, &kind.snapshot(), &inner, expected);
            }
        }
    }
}

/// Sends a packet, and compares the whole frame.
fn sends(kind: Kind, snapshot: &Snapshot, inner: &[u8], outer: Outer) {
    let (verdict, out) = forward_one(snapshot, WORKLOAD, &from_pod(inner));
    assert_eq!(verdict, Verdict::Transmit(UPLINK), "{kind:?}");
    let tos = if inner[0] >> 4 == 4 {
        inner[1]
    } else {
        inner[0] << 4 | inner[1] >> 4
    };
    let expected = kind.wrapped(true, &hop_less(inner, tos), outer);
    assert_eq!(out, expected, "{kind:?}, {outer:?}");
}

#[test]
fn outer_ttl_and_dscp_are_fixed_or_inherited_in_every_tunnel() {
    for kind in KINDS {
        for (ttl, dscp, expected) in [
            (OuterTtl::Fixed(64), Dscp::Inherit, (64, 0b1010_1010)),
            (OuterTtl::Fixed(1), Dscp::Fixed(0), (1, 0b10)),
            (OuterTtl::Fixed(255), Dscp::Fixed(46), (255, 46 << 2 | 0b10)),
            (OuterTtl::Inherit, Dscp::Inherit, (8, 0b1010_1010)),
            (OuterTtl::Inherit, Dscp::Fixed(63), (8, 0b1111_1110)),
        ] {
            let mut snapshot = kind.snapshot();
            let Adjacency::Forward(egress) = snapshot.adjacencies[kind.hop()].clone() else {
                panic!("no tunnel");
            };
            snapshot.adjacencies[kind.hop()] = Adjacency::Forward(egress.marking(ttl, dscp));
            let inner = kind.inner(true, 0b1010_1010, 9, b"payload");
            let outer = Outer {
                ttl: expected.0,
                tos: expected.1,
                ..PLAIN
            };
            sends(kind, &snapshot, &inner, outer);
        }
    }
}

#[test]
fn df_is_the_inner_packets_and_without_it_there_is_an_identification() {
    for kind in KINDS.into_iter().filter(|kind| !kind.inner_v6) {
        let mut inner = kind.inner(true, 0, 64, b"payload");
        for dont_fragment in [true, false] {
            self::rewrite(&mut inner, |header| header.dont_fragment = dont_fragment);
            let identification = u16::from(!dont_fragment);
            let outer = Outer {
                dont_fragment,
                identification,
                ..PLAIN
            };
            sends(kind, &kind.snapshot(), &inner, outer);
        }
    }
}

#[test]
fn padding_behind_a_tunnel_packet_is_trimmed_and_what_is_cut_is_refused() {
    for kind in KINDS {
        let inner = kind.inner(false, 0, 64, b"payload");
        let frame = kind.wrapped(false, &inner, PLAIN);
        let expected = ethernet(MacAddr::WORKLOAD_GATEWAY, POD_MAC, &hop_less(&inner, 0));
        let padded = [&frame[..], &[0xee; 19]].concat();
        let (verdict, out) = forward_one(&kind.snapshot(), UPLINK, &padded);
        assert_eq!(
            (verdict, out),
            (Verdict::Transmit(WORKLOAD), expected),
            "{kind:?}"
        );
        // However short: one reason, and never a packet.
        for length in 0..frame.len() {
            let (verdict, _) = forward_one(&kind.snapshot(), UPLINK, &frame[..length]);
            assert!(
                matches!(verdict, Verdict::Drop(_)),
                "{kind:?}, {length}: {verdict:?}"
            );
        }
    }
}

#[test]
fn options_of_the_outer_header_are_stepped_over() {
    for kind in KINDS
        .into_iter()
        .filter(|kind| kind.tunnel != Tunnel::VxlanOverIpv6)
    {
        let inner = kind.inner(false, 0, 64, b"payload");
        let mut packet = kind.wrapped(false, &inner, PLAIN)[14..].to_vec();
        // Router alert, as IGMP has it.
        packet.splice(20..20, [0x94, 4, 0, 0]);
        packet[0] = 0x46;
        let length = (packet.len() as u16).to_be_bytes();
        packet[2..4].copy_from_slice(&length);
        rewrite(&mut packet, |_| ());
        let (verdict, out) = forward_one(&kind.snapshot(), UPLINK, &from_uplink(&packet));
        let expected = ethernet(MacAddr::WORKLOAD_GATEWAY, POD_MAC, &hop_less(&inner, 0));
        assert_eq!(
            (verdict, out),
            (Verdict::Transmit(WORKLOAD), expected),
            "{kind:?}"
        );
    }
}

#[test]
fn a_tunnel_within_any_tunnel_is_payload() {
    for kind in KINDS.into_iter().filter(|kind| !kind.inner_v6) {
        let far = if kind.tunnel == Tunnel::Ipip {
            FAR_IPIP
        } else {
            FAR_VXLAN
        };
        let innermost = udp(far, POD, 64, b"payload");
        let nested = [
            ipip(far, POD, &innermost),
            vxlan_to(far, POD, &ethernet(FAR_VTEP_MAC, VTEP_MAC, &innermost)),
        ];
        for inner in nested {
            let frame = kind.wrapped(false, &inner, PLAIN);
            let (verdict, out) = forward_one(&kind.snapshot(), UPLINK, &frame);
            let expected = ethernet(MacAddr::WORKLOAD_GATEWAY, POD_MAC, &hop_less(&inner, 0));
            assert_eq!(
                (verdict, out),
                (Verdict::Transmit(WORKLOAD), expected),
                "{kind:?}"
            );
        }
    }
}

/// A VXLAN packet as in [`vxlan`], to anybody.
fn vxlan_to(source: std::net::Ipv4Addr, to: std::net::Ipv4Addr, frame: &[u8]) -> Vec<u8> {
    let mut packet = vxlan(source, CALICO_VXLAN, frame);
    rewrite(&mut packet, |header| header.destination = to.octets());
    packet
}

#[test]
fn reserved_bits_and_foreign_networks_over_either_family() {
    for kind in KINDS.into_iter().filter(|kind| kind.tunnel != Tunnel::Ipip) {
        let over_v6 = kind.tunnel == Tunnel::VxlanOverIpv6;
        let inner = kind.inner(false, 0, 64, b"payload");
        let at = if over_v6 { 14 + 40 + 8 } else { 14 + 20 + 8 };
        let with = |header: [u8; 8]| {
            let mut frame = kind.wrapped(false, &inner, PLAIN);
            frame[at..at + 8].copy_from_slice(&header);
            // Over IPv6 the checksum has to be right again.
            frame[at - 2..at].fill(0);
            frame
        };
        let mut snapshot = if over_v6 {
            over_ipv6(true)
        } else {
            kind.snapshot()
        };
        let reserved = with([0xff, 1, 2, 3, 0, 0x10, 0, 9]);
        assert_eq!(
            forward_one(&snapshot, UPLINK, &reserved).0,
            Verdict::Transmit(WORKLOAD)
        );
        for (header, reason) in [
            ([0, 0, 0, 0, 0, 0x10, 0, 0], DropReason::VxlanNoVni),
            ([8, 0, 0, 0, 0, 0, 1, 0], DropReason::VxlanUnknownVni),
        ] {
            let (verdict, _) = forward_one(&snapshot, UPLINK, &with(header));
            assert_eq!(verdict, Verdict::Drop(reason), "{kind:?}");
        }
        snapshot.tunnels.strict_reserved_bits = true;
        let (verdict, _) = forward_one(&snapshot, UPLINK, &reserved);
        assert_eq!(verdict, Verdict::Drop(DropReason::VxlanReservedBits));
    }
}

/// The fence over IPv6: who may send, and as whom.
#[test]
fn the_fence_holds_over_ipv6() {
    let kind = KINDS[4];
    let mut snapshot = over_ipv6(false);
    snapshot.tunnels.local_addresses.extend([POD_V6.into()]);
    let from =
        |source: std::net::Ipv6Addr| wrapped(FAR_NODE_V6, 0, &udp6(source, POD_V6, 64, b"x"), true);
    let spoofed = Verdict::Drop(DropReason::SpoofedInner);
    for (source, verdict) in [
        ("fd00:0:0:3::2", Verdict::Transmit(WORKLOAD)),
        ("fd00:0:0:1::2", spoofed),
        ("::1", spoofed),
        ("ff02::1", spoofed),
        ("::", spoofed),
        ("fe80::1", spoofed),
    ] {
        let got = forward_one(&snapshot, UPLINK, &from(source.parse().unwrap())).0;
        assert_eq!(got, verdict, "{source}");
    }
    let inner = kind.inner(false, 0, 64, b"x");
    let stranger = wrapped(STRANGER_V6, 0, &inner, true);
    let unknown = Verdict::Drop(DropReason::UnknownPeer);
    assert_eq!(forward_one(&snapshot, UPLINK, &stranger).0, unknown);
    let nodes = [(FAR_NODE_V6.into(), underpass::forward::PeerId(0))];
    let external = vec!["fd00:30::90/124".parse().unwrap()];
    snapshot.tunnels.peers = underpass::forward::Peers::new(nodes, external);
    assert_eq!(
        forward_one(&snapshot, UPLINK, &stranger).0,
        Verdict::Transmit(WORKLOAD)
    );
    // A workload: as itself, on its link, and as nobody else.
    for (source, destination, verdict) in [
        ("fd00:0:0:1::2", "fd00:0:0:3::2", Verdict::Transmit(UPLINK)),
        (
            "fd00:0:0:1::3",
            "fd00:0:0:3::2",
            Verdict::Drop(DropReason::SpoofedSource),
        ),
        (
            "fe80::1",
            "fd00:0:0:3::2",
            Verdict::Drop(DropReason::MartianSource),
        ),
    ] {
        let packet = udp6(
            source.parse().unwrap(),
            destination.parse().unwrap(),
            64,
            b"x",
        );
        let got = forward_one(&snapshot, WORKLOAD, &from_pod(&packet)).0;
        assert_eq!(got, verdict, "{source}");
    }
}

/// The reverse path over IPv6, by mode: a source that another node has, and one that nobody has.
#[test]
fn reverse_paths_are_judged_over_ipv6_too() {
    use underpass::forward::{LeadsTo, PeerId, Peers, ReversePath, ReversePathMode as Mode};
    let refused = Verdict::Drop(DropReason::ReversePath);
    let passes = Verdict::Transmit(WORKLOAD);
    for (mode, anothers, nobodys) in [
        (Mode::Off, passes, passes),
        (Mode::Loose, passes, refused),
        (Mode::Strict, refused, refused),
    ] {
        let mut snapshot = over_ipv6(false);
        let other: std::net::Ipv6Addr = "fd00:30::13".parse().unwrap();
        let nodes = [(FAR_NODE_V6.into(), PeerId(0)), (other.into(), PeerId(1))];
        snapshot.tunnels.peers = Peers::new(nodes, Vec::new());
        let mut leads_to = vec![LeadsTo::Nowhere; snapshot.adjacencies.len()];
        leads_to[VXLAN_HOP] = LeadsTo::Node(PeerId(1));
        snapshot.tunnels.reverse_path = ReversePath { mode, leads_to };
        for (source, verdict) in [("fd00:0:0:3::2", anothers), ("fd00:0:0:9::2", nobodys)] {
            let inner = udp6(source.parse().unwrap(), POD_V6, 64, b"x");
            let frame = wrapped(FAR_NODE_V6, 0, &inner, true);
            assert_eq!(
                forward_one(&snapshot, UPLINK, &frame).0,
                verdict,
                "{mode:?} {source}"
            );
        }
    }
}

/// The far node on paper: it takes what this one sends.
fn far_node(kind: Kind) -> Snapshot {
    let mut far = kind.snapshot();
    far.ports[0].link = Link::Ethernet(FAR_UPLINK_MAC);
    far.tunnels.node_address = Some(FAR_NODE);
    far.tunnels.vtep_mac = FAR_VTEP_MAC;
    far.tunnels.local_addresses.clear();
    let nodes = [
        (NODE.into(), underpass::forward::PeerId(0)),
        (NODE_V6.into(), underpass::forward::PeerId(0)),
    ];
    far.tunnels.peers = underpass::forward::Peers::new(nodes, Vec::new());
    if let Some(v6) = &mut far.tunnels.v6 {
        v6.node_address = FAR_NODE_V6;
        v6.vtep_mac = FAR_VTEP_MAC_V6;
    }
    for hop in [1, VXLAN_HOP] {
        far.adjacencies[hop] = far.adjacencies[0].clone();
    }
    far
}

proptest! {
    /// What one node wraps, the other unwraps: the same packet, two hops less.
    #[test]
    fn encapsulation_and_decapsulation_together_change_the_ttl_alone(
        kind in 0..KINDS.len(),
        payload in proptest::collection::vec(any::<u8>(), 0..1360),
        tos: u8,
        ttl in 3..=255_u8,
        dont_fragment: bool,
        options in 0..=10_usize,
    ) {
        let kind = KINDS[kind];
        let mut inner = kind.inner(true, tos, ttl, &payload);
        if !kind.inner_v6 {
            // No-operation options, four at a time.
            inner.splice(20..20, vec![1; options * 4]);
            inner[0] = 0x45 + options as u8;
            let length = (inner.len() as u16).to_be_bytes();
            inner[2..4].copy_from_slice(&length);
            rewrite(&mut inner, |header| header.dont_fragment = dont_fragment);
        }
        let (verdict, wrapped) = forward_one(&kind.snapshot(), WORKLOAD, &from_pod(&inner));
        prop_assert_eq!(verdict, Verdict::Transmit(UPLINK));
        let (verdict, out) = forward_one(&far_node(kind), UPLINK, &wrapped);
        prop_assert_eq!(verdict, Verdict::Transmit(WORKLOAD));
        prop_assert_eq!(&out[14..], &hop_less(&hop_less(&inner, tos), tos)[..]);
    }

    /// A tunnel packet with any bytes changed comes in, or is dropped for one reason, on every port.
    #[test]
    fn a_damaged_tunnel_packet_gets_one_verdict(
        kind in 0..KINDS.len(),
        damage in proptest::collection::vec((0..120_usize, any::<u8>()), 1..8),
        port in 0..4_u16,
    ) {
        let kind = KINDS[kind];
        let mut frame = kind.wrapped(false, &kind.inner(false, 2, 64, b"payload"), PLAIN);
        for (at, byte) in damage {
            let at = at % frame.len();
            frame[at] = byte;
        }
        forward_one(&kind.snapshot(), PortId(port), &frame);
    }
}
