//! Over an IPv6 underlay: fragments of tunnel packets, ICMPv6 errors about them, and packets that a narrow
//! path has to take all the same; on paper, from the packet path through the slow path and back.
#![allow(missing_docs)]

mod common;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use common::fates::rewrite;
use common::over_ipv6::*;
use common::*;
use etherparse::{Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use underpass::forward::{
    Adjacency, Egress, Punt, Snapshot, TunnelHeader, TunnelHeaderV6, Verdict,
};
use underpass::packet::DropReason;
use underpass::wire::{MacAddr, Mtu, Vni};
use underpass::worker::slow_path::{Action, Event, Fate, Punted, SlowPath};

fn slow(
    path: &mut SlowPath,
    snapshot: &Snapshot,
    ingress: underpass::port::PortId,
    punt: Punt,
    packet: Vec<u8>,
) -> (Fate, Vec<Action>) {
    let mut actions = Vec::new();
    let ingress = Some(ingress);
    let punted = Punted {
        ingress,
        punt,
        packet,
    };
    let fate = path.handle(Instant::now(), snapshot, punted, &mut actions);
    (fate, actions)
}

/// An IPv6 packet cut into fragments, by hand: RFC 8200 section 4.5.
fn fragments(packet: &[u8], room: usize) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(40);
    let count = payload.len().div_ceil(room);
    let part = |(n, part): (usize, &[u8])| {
        let mut fragment = header.to_vec();
        fragment[4..6].copy_from_slice(&((part.len() + 8) as u16).to_be_bytes());
        let offset = ((n * room) as u16 | u16::from(n + 1 < count)).to_be_bytes();
        let next = std::mem::replace(&mut fragment[6], 44);
        fragment.extend([next, 0, offset[0], offset[1], 0, 1, 2, 3]);
        fragment.extend_from_slice(part);
        from_uplink(&fragment)
    };
    payload.chunks(room).enumerate().map(part).collect()
}

/// Has fragments received; what the slow path made of them.
fn received(snapshot: &Snapshot, parts: &[Vec<u8>]) -> (Vec<Fate>, Vec<Action>) {
    let (mut path, mut made, mut fates) = (SlowPath::default(), Vec::new(), Vec::new());
    for part in parts {
        let (verdict, left) = forward_one(snapshot, UPLINK, part);
        assert_eq!(verdict, Verdict::Punt(Punt::OuterFragment));
        let (fate, actions) = slow(&mut path, snapshot, UPLINK, Punt::OuterFragment, left);
        made.extend(actions);
        fates.push(fate);
        fates.extend(path.tick(Instant::now(), snapshot, &mut Vec::new()));
    }
    (fates, made)
}

#[test]
fn fragments_over_ipv6_go_in_again_as_a_whole() {
    let snapshot = over_ipv6(false);
    for inner in [
        udp(FAR_VXLAN, POD, 64, &[0x5a; 1400]),
        udp6(FAR_VXLAN_V6, POD_V6, 64, &[0x5a; 1300]),
    ] {
        let packet = wrapped(FAR_NODE_V6, 0, &inner, true)[14..].to_vec();
        let mut parts = fragments(&packet, 600);
        assert_eq!(parts.len(), 3);
        for _ in 0..3 {
            parts.rotate_left(1);
            let (_, made) = received(&snapshot, &parts);
            let [Action::Receive(UPLINK, whole)] = &made[..] else {
                panic!("{made:?}");
            };
            assert_eq!(whole[14..], packet);
            let (verdict, out) = forward_one(&snapshot, UPLINK, whole);
            assert_eq!(verdict, Verdict::Transmit(WORKLOAD));
            assert_eq!(
                out[..12],
                ethernet(MacAddr::WORKLOAD_GATEWAY, POD_MAC, &[])[..12]
            );
            assert_eq!(out.len() - 14, inner.len());
        }
    }
}

#[test]
fn fragments_over_ipv6_that_overlap_are_all_refused() {
    let snapshot = over_ipv6(false);
    let packet = wrapped(FAR_NODE_V6, 0, &udp(FAR_VXLAN, POD, 64, &[7; 1400]), true)[14..].to_vec();
    let mut parts = fragments(&packet, 600);
    // The second begins eight bytes early (RFC 5722).
    parts[1][14 + 42..14 + 44].copy_from_slice(&(592_u16 | 1).to_be_bytes());
    let (fates, made) = received(&snapshot, &parts[..2]);
    assert!(made.is_empty(), "{made:?}");
    let refused = Fate::Dropped(DropReason::OuterFragment);
    assert_eq!(fates, [Fate::Waits, refused, refused]);
    // From a stranger they take no memory.
    parts[0][14 + 8..14 + 24].copy_from_slice(&STRANGER_V6.octets());
    let (verdict, _) = forward_one(&snapshot, UPLINK, &parts[0]);
    assert_eq!(verdict, Verdict::Drop(DropReason::UnknownPeer));
}

#[test]
fn a_packet_with_a_fragment_header_that_is_whole_goes_in_at_once() {
    let snapshot = over_ipv6(false);
    let packet = wrapped(FAR_NODE_V6, 0, &udp(FAR_VXLAN, POD, 64, b"atomic"), true)[14..].to_vec();
    let parts = fragments(&packet, 2000);
    let (fates, made) = received(&snapshot, &parts);
    assert_eq!(fates, [Fate::Absorbed]);
    assert!(matches!(&made[..], [Action::Receive(UPLINK, whole)] if whole[14..] == packet));
}

/// What our node sends for the pod's packet, from its outer IP header on.
fn sent(snapshot: &Snapshot, inner: &[u8]) -> Vec<u8> {
    let (verdict, out) = forward_one(snapshot, WORKLOAD, &from_pod(inner));
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    out[14..].to_vec()
}

fn error(kind: Icmpv6Type, quoted: &[u8]) -> Vec<u8> {
    error_v6(MIDDLE, kind, quoted)
}

fn heard(snapshot: &Snapshot, error: &[u8]) -> (Fate, Vec<Action>) {
    let (verdict, left) = forward_one(snapshot, UPLINK, &from_uplink(error));
    assert_eq!(verdict, Verdict::Punt(Punt::TunnelError));
    assert_eq!(left, error);
    slow(
        &mut SlowPath::default(),
        snapshot,
        UPLINK,
        Punt::TunnelError,
        left,
    )
}

#[test]
fn a_narrow_link_over_ipv6_is_learnt_and_told_to_either_inner_sender() {
    let snapshot = over_ipv6(false);
    let far_end = IpAddr::V6(FAR_NODE_V6);
    for inner in [
        udp(POD, FAR_VXLAN, 64, &[0x5a; 1400]),
        udp6(POD_V6, FAR_VXLAN_V6, 64, &[0x5a; 1380]),
    ] {
        let outer = sent(&snapshot, &inner);
        let too_big = Icmpv6Type::PacketTooBig { mtu: 1400 };
        let (fate, actions) = heard(&snapshot, &error(too_big, &outer[..1232]));
        assert_eq!(fate, Fate::Absorbed);
        let [Action::Tell(event), Action::Originate(told)] = &actions[..] else {
            panic!("{actions:?}");
        };
        assert_eq!(*event, Event::PathMtu(far_end, Mtu(1400)));
        let sliced = SlicedPacket::from_ip(told).unwrap();
        match (&sliced.net, &sliced.transport) {
            (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
                assert_eq!(ip.header().destination_addr(), POD);
                assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 4));
                assert_eq!(icmp.bytes5to8()[2..], 1330_u16.to_be_bytes());
            }
            (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
                assert_eq!(ip.header().destination_addr(), POD_V6);
                assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1330 });
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_unreachable_far_end_over_ipv6_is_told_too() {
    use etherparse::icmpv6::DestUnreachableCode as Why;
    let snapshot = over_ipv6(false);
    let outer = sent(&snapshot, &udp6(POD_V6, FAR_VXLAN_V6, 64, b"x"));
    for why in [Why::NoRoute, Why::Address, Why::Port, Why::Prohibited] {
        let (fate, actions) = heard(
            &snapshot,
            &error(Icmpv6Type::DestinationUnreachable(why), &outer),
        );
        assert_eq!(fate, Fate::Absorbed);
        let [Action::Originate(told)] = &actions[..] else {
            panic!("{actions:?}");
        };
        let Some(TransportSlice::Icmpv6(icmp)) = SlicedPacket::from_ip(told).unwrap().transport
        else {
            panic!("{told:02x?}");
        };
        assert_eq!(
            icmp.icmp_type(),
            Icmpv6Type::DestinationUnreachable(Why::Address)
        );
    }
}

#[test]
fn a_hop_limit_that_ran_out_over_ipv6_is_an_unreachable_host_to_the_inner_sender() {
    use etherparse::icmpv6::{DestUnreachableCode, TimeExceededCode};
    let snapshot = over_ipv6(false);
    let exceeded = Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded);
    for inner in [
        udp6(POD_V6, FAR_VXLAN_V6, 64, b"x"),
        udp(POD, FAR_VXLAN, 64, b"x"),
    ] {
        let (fate, actions) = heard(&snapshot, &error(exceeded, &sent(&snapshot, &inner)));
        assert_eq!(fate, Fate::Absorbed);
        let [Action::Originate(told)] = &actions[..] else {
            panic!("{actions:?}");
        };
        match SlicedPacket::from_ip(told).unwrap().transport {
            Some(TransportSlice::Icmpv6(icmp)) => {
                let address = DestUnreachableCode::Address;
                assert_eq!(
                    icmp.icmp_type(),
                    Icmpv6Type::DestinationUnreachable(address)
                );
            }
            Some(TransportSlice::Icmpv4(icmp)) => {
                assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 1));
            }
            _ => panic!("{told:02x?}"),
        }
    }
    // Fragments that never came together, and packets of the kernel's own, are the host's.
    let outer = sent(&snapshot, &udp6(POD_V6, FAR_VXLAN_V6, 64, b"x"));
    let mut dns = outer.clone();
    dns[42..44].copy_from_slice(&53_u16.to_be_bytes());
    let fragments = Icmpv6Type::TimeExceeded(TimeExceededCode::FragmentReassemblyTimeExceeded);
    for packet in [error(fragments, &outer), error(exceeded, &dns)] {
        let (verdict, _) = forward_one(&snapshot, UPLINK, &from_uplink(&packet));
        assert_eq!(verdict, Verdict::Transmit(HOST));
    }
}

/// It will be cut up within the tunnel from then on.
#[test]
fn nobody_is_told_of_a_narrow_path_over_ipv6_whose_packet_may_be_cut() {
    let snapshot = over_ipv6(false);
    let narrow = Icmpv6Type::PacketTooBig { mtu: 1400 };
    for (dont_fragment, told) in [(true, 2), (false, 1)] {
        let mut inner = udp(POD, FAR_VXLAN, 64, &[0; 1380]);
        rewrite(&mut inner, |header| header.dont_fragment = dont_fragment);
        let (fate, actions) = heard(&snapshot, &error(narrow, &sent(&snapshot, &inner)));
        assert_eq!(fate, Fate::Absorbed);
        let learnt = Action::Tell(Event::PathMtu(FAR_NODE_V6.into(), Mtu(1400)));
        assert_eq!((actions.len(), &actions[0]), (told, &learnt));
    }
}

#[test]
fn errors_over_ipv6_about_what_we_cannot_have_sent_convince_nobody() {
    let snapshot = over_ipv6(false);
    let outer = sent(&snapshot, &udp6(POD_V6, FAR_VXLAN_V6, 64, &[0; 1350]));
    let invalid = Fate::Dropped(DropReason::InvalidQuote);
    let with = |at: usize, bytes: &[u8]| {
        let mut quoted = outer.clone();
        quoted[at..at + bytes.len()].copy_from_slice(bytes);
        quoted.truncate(1232);
        quoted
    };
    let too_big = |mtu| Icmpv6Type::PacketTooBig { mtu };
    for (what, mtu, quoted) in [
        ("to a stranger", 1400, with(24, &STRANGER_V6.octets())),
        ("a low source port", 1400, with(40, &[0, 53])),
        ("another UDP length", 1400, with(44, &[0, 99])),
        ("another network", 1400, with(52, &[0, 0, 9])),
        ("it would have fitted", 1500, with(0, &[0x60])),
        ("less than any link has (RFC 8201)", 1279, with(0, &[0x60])),
        ("more than any link has", 70000, with(0, &[0x60])),
    ] {
        let (fate, actions) = heard(&snapshot, &error(too_big(mtu), &quoted));
        assert_eq!((fate, actions), (invalid, vec![]), "{what}");
    }
    let mut wrong = error(too_big(1400), &with(0, &[0x60]));
    wrong[42] ^= 1;
    assert_eq!(heard(&snapshot, &wrong), (invalid, vec![]));
    // About another node's packets, or the kernel's own: not for us, so routed to the host.
    for quoted in [with(8, &STRANGER_V6.octets()), with(42, &[0, 53])] {
        let packet = error(too_big(1400), &quoted);
        let (verdict, _) = forward_one(&snapshot, UPLINK, &from_uplink(&packet));
        assert_eq!(verdict, Verdict::Transmit(HOST));
    }
}

#[test]
fn a_workload_may_not_send_errors_about_tunnel_packets_over_ipv6() {
    let snapshot = over_ipv6(false);
    let outer = sent(&snapshot, &udp6(POD_V6, FAR_VXLAN_V6, 64, b"x"));
    let mut packet = Vec::new();
    PacketBuilder::ipv6(POD_V6.octets(), NODE_V6.octets(), 60)
        .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1280 })
        .write(&mut packet, &outer)
        .unwrap();
    let (verdict, _) = forward_one(&snapshot, WORKLOAD, &from_pod(&packet));
    assert_eq!(verdict, Verdict::Drop(DropReason::TunnelFromWorkload));
    // Nor behind other headers, or in fragments.
    let options = [58, 0, 1, 4, 0, 0, 0, 0];
    let mut hidden = [&packet[..40], &options, &packet[40..]].concat();
    hidden[6] = 60;
    let length = (hidden.len() - 40) as u16;
    hidden[4..6].copy_from_slice(&length.to_be_bytes());
    let (verdict, _) = forward_one(&snapshot, WORKLOAD, &from_pod(&hidden));
    assert_eq!(verdict, Verdict::Drop(DropReason::TunnelFromWorkload));
    for room in [8, 64, 128] {
        let first = &fragments(&packet, room)[0][14..];
        let (verdict, _) = forward_one(&snapshot, WORKLOAD, &from_pod(first));
        assert_eq!(
            verdict,
            Verdict::Drop(DropReason::TunnelFromWorkload),
            "{room}"
        );
    }
    // Headers that do not end hide anything.
    let mut chain = [
        &packet[..40],
        &[60, 0, 1, 4, 0, 0, 0, 0].repeat(8),
        &options,
        &packet[40..],
    ]
    .concat();
    chain[6] = 60;
    let length = (chain.len() - 40) as u16;
    chain[4..6].copy_from_slice(&length.to_be_bytes());
    let (verdict, _) = forward_one(&snapshot, WORKLOAD, &from_pod(&chain));
    assert_eq!(verdict, Verdict::Drop(DropReason::TunnelFromWorkload));
    // Nor tunnel packets themselves, behind whatever headers.
    let mut tunnel = outer.clone();
    tunnel[8..24].copy_from_slice(&POD_V6.octets());
    let plain = forward_one(&snapshot, WORKLOAD, &from_pod(&tunnel)).0;
    assert_eq!(plain, Verdict::Drop(DropReason::TunnelFromWorkload));
    let first = &fragments(&tunnel, 2000)[0][14..];
    let fragment = forward_one(&snapshot, WORKLOAD, &from_pod(first)).0;
    assert_eq!(fragment, Verdict::Drop(DropReason::TunnelFromWorkload));
}

/// A first fragment that ends before its UDP or ICMPv6 header: the next one has it, and no sign of it.
#[test]
fn a_workload_may_not_hide_a_header_in_its_second_fragment() {
    let snapshot = over_ipv6(false);
    let first = |upper: u8, more: u8, shown: &[u8]| {
        let fragment = [60, 0, 0, more, 0, 1, 2, 3];
        let payload = [&fragment[..], &[upper, 0, 1, 4, 0, 0, 0, 0], shown].concat();
        let mut packet = udp6(POD_V6, FAR_VXLAN_V6, 64, b"")[..40].to_vec();
        packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        packet[6] = 44;
        packet.extend(payload);
        from_pod(&packet)
    };
    let (udp, tcp, icmpv6) = (17, 6, 58);
    let refused = Verdict::Drop(DropReason::TunnelFromWorkload);
    for upper in [udp, icmpv6] {
        for shown in [&[][..], &[0, 53]] {
            let frame = first(upper, 1, shown);
            assert_eq!(forward_one(&snapshot, WORKLOAD, &frame).0, refused);
        }
    }
    let sent = Verdict::Transmit(UPLINK);
    let shown = [0, 53, 0, 53, 0, 8, 0, 0];
    for frame in [
        first(tcp, 1, &[]),
        first(udp, 1, &shown),
        first(udp, 0, &[]),
    ] {
        assert_eq!(forward_one(&snapshot, WORKLOAD, &frame).0, sent);
    }
    // A workload that is trusted with tunnels may.
    let mut trusting = over_ipv6(false);
    trusting.tunnels.from_workloads.vxlan = true;
    assert_eq!(
        forward_one(&trusting, WORKLOAD, &first(udp, 1, &[])).0,
        sent
    );
}

/// A tunnel through a path of that many bytes.
fn narrow(over_v6: bool, path: u16) -> Snapshot {
    let mut snapshot = over_ipv6(false);
    let egress = if over_v6 {
        let tunnel = TunnelHeaderV6 {
            source: NODE_V6,
            far_end: FAR_NODE_V6,
            vxlan: (Vni::CALICO, 4789, VTEP_MAC_V6, FAR_VTEP_MAC_V6),
            zero_checksum: false,
        };
        Egress::tunnel_v6(UPLINK, Mtu(path - 70), UPLINK_MAC, FAR_UPLINK_MAC, &tunnel)
    } else {
        let tunnel = TunnelHeader {
            source: NODE,
            far_end: FAR_NODE,
            vxlan: Some((Vni::CALICO, 4789, VTEP_MAC, FAR_VTEP_MAC)),
        };
        Egress::tunnel(UPLINK, Mtu(path - 50), UPLINK_MAC, FAR_UPLINK_MAC, &tunnel)
    };
    snapshot.adjacencies[VXLAN_HOP] = Adjacency::Forward(egress);
    snapshot
}

/// RFC 2473 section 7.1: 1280 bytes of IPv6 get through any path, in pieces outside if need be.
#[test]
fn ipv6_of_1280_bytes_crosses_a_narrower_path_in_fragments_outside() {
    let inner = udp6(POD_V6, FAR_VXLAN_V6, 64, &[0x5a; 1232]);
    assert_eq!(inner.len(), 1280);
    for (over_v6, path) in [(true, 1280), (false, 1280), (false, 576)] {
        let snapshot = narrow(over_v6, path);
        let (verdict, frame) = forward_one(&snapshot, WORKLOAD, &from_pod(&inner));
        let punt = Punt::CutOutside(UPLINK, Mtu(path));
        assert_eq!(verdict, Verdict::Punt(punt));
        let (fate, actions) = slow(
            &mut SlowPath::default(),
            &snapshot,
            WORKLOAD,
            punt,
            frame.clone(),
        );
        assert_eq!(fate, Fate::Absorbed);
        // The far end's kernel would put them together; etherparse does.
        let mut pool = etherparse::defrag::IpDefragPool::<(), ()>::new();
        let mut whole = None;
        assert!(actions.len() >= 2);
        for action in &actions {
            let Action::Transmit(UPLINK, fragment) = action else {
                panic!("{action:?}");
            };
            assert!(fragment.len() - 14 <= usize::from(path));
            assert_eq!(fragment[..14], frame[..14]);
            let sliced = SlicedPacket::from_ethernet(fragment).unwrap();
            whole = pool.process_sliced_packet(&sliced, (), ()).unwrap();
        }
        let header = if over_v6 { 40 } else { 20 };
        assert_eq!(whole.expect("all fragments").payload, frame[14 + header..]);
        // What one byte more is told.
        let larger = udp6(POD_V6, FAR_VXLAN_V6, 64, &[0x5a; 1233]);
        let (verdict, left) = forward_one(&snapshot, WORKLOAD, &from_pod(&larger));
        let Verdict::Punt(punt @ Punt::TooBig(_)) = verdict else {
            panic!("{verdict:?}");
        };
        let (_, actions) = slow(&mut SlowPath::default(), &snapshot, WORKLOAD, punt, left);
        let [Action::Originate(told)] = &actions[..] else {
            panic!("{actions:?}");
        };
        let Some(TransportSlice::Icmpv6(icmp)) = SlicedPacket::from_ip(told).unwrap().transport
        else {
            panic!("{told:02x?}");
        };
        assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1280 });
    }
}

/// A workload's link-local address is on its link alone: no route leads there.
#[test]
fn a_workloads_link_local_address_is_answered_on_its_link() {
    let snapshot = snapshot();
    let source: Ipv6Addr = "fe80::1234".parse().unwrap();
    let gateway = underpass::forward::RouterAddresses::GATEWAY_V6;
    let mut echo = Vec::new();
    PacketBuilder::ipv6(source.octets(), gateway.octets(), 64)
        .icmpv6_echo_request(7, 1)
        .write(&mut echo, b"who is there")
        .unwrap();
    let unroutable = udp6(source, "fd00:0:0:9::1".parse().unwrap(), 64, b"x");
    for (punt, packet) in [(Punt::ToRouter, echo), (Punt::NoRoute, unroutable)] {
        let (_, actions) = slow(&mut SlowPath::default(), &snapshot, WORKLOAD, punt, packet);
        let [Action::Transmit(WORKLOAD, frame)] = &actions[..] else {
            panic!("{actions:?}");
        };
        assert_eq!(frame[..6], POD_MAC.0);
        assert_eq!(frame[12..14], [0x86, 0xdd]);
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = &sliced.net else {
            panic!("{sliced:?}");
        };
        assert_eq!(ip.header().destination_addr(), source);
    }
}
