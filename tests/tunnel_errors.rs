//! Fragments of tunnel packets and ICMP errors about them, from the packet path through the slow path
//! and back, on paper.
#![allow(missing_docs)]

mod common;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use common::*;
use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode};
use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use underpass::forward::{Adjacency, OuterTtl, Punt, Snapshot, Verdict};
use underpass::packet::DropReason;
use underpass::wire::{MacAddr, Mtu};
use underpass::worker::slow_path::{Action, Event, Fate, Punted, SlowPath};

const MIDDLE: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 254);

/// A tunnel packet cut into fragments of at most `mtu` bytes, as frames of the uplink.
fn fragments(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(20);
    let room = (mtu - 20) & !7;
    let count = payload.len().div_ceil(room);
    let part = |(n, part): (usize, &[u8])| {
        let mut fragment = [header, part].concat();
        rewrite(&mut fragment, |header| {
            header.identification = 77;
            header.total_len = (20 + part.len()) as u16;
            header.fragment_offset = ((n * room / 8) as u16).try_into().unwrap();
            header.more_fragments = n + 1 < count;
            header.dont_fragment = false;
        });
        from_uplink(&fragment)
    };
    payload.chunks(room).enumerate().map(part).collect()
}

fn slow(
    path: &mut SlowPath,
    snapshot: &Snapshot,
    punt: Punt,
    packet: Vec<u8>,
) -> (Fate, Vec<Action>) {
    let mut actions = Vec::new();
    let punted = Punted {
        ingress: Some(UPLINK),
        punt,
        packet,
    };
    let fate = path.handle(Instant::now(), snapshot, punted, &mut actions);
    (fate, actions)
}

#[test]
fn fragments_of_a_tunnel_packet_go_in_again_as_a_whole() {
    let snapshot = snapshot();
    let inner = udp(FAR_VXLAN, POD, 64, &[0x5a; 1400]);
    let frame = ethernet(FAR_VTEP_MAC, VTEP_MAC, &inner);
    for packet in [
        ipip(FAR_NODE, NODE, &inner),
        vxlan(FAR_NODE, CALICO_VXLAN, &frame),
    ] {
        let mut path = SlowPath::default();
        let parts = fragments(&packet, 600);
        assert_eq!(parts.len(), 3);
        let mut received = Vec::new();
        for part in parts.iter().rev() {
            let (verdict, left) = forward_one(&snapshot, UPLINK, part);
            assert_eq!(verdict, Verdict::Punt(Punt::OuterFragment));
            let (_, actions) = slow(&mut path, &snapshot, Punt::OuterFragment, left);
            received.extend(actions);
        }
        let [Action::Receive(UPLINK, whole)] = &received[..] else {
            panic!("{received:?}");
        };
        // Two waited, the last one was absorbed at once.
        let ended = path.tick(Instant::now(), &snapshot, &mut Vec::new());
        assert_eq!(ended, [Fate::Absorbed; 2]);
        let (verdict, out) = forward_one(&snapshot, UPLINK, whole);
        assert_eq!(verdict, Verdict::Transmit(WORKLOAD));
        let expected = ethernet(MacAddr::WORKLOAD_GATEWAY, POD_MAC, &with_ttl(&inner, 63));
        assert_eq!(out, expected);
    }
}

#[test]
fn a_strangers_fragments_take_no_memory() {
    let packet = ipip(STRANGER, NODE, &udp(FAR_IPIP, POD, 64, &[0; 1000]));
    for part in fragments(&packet, 600) {
        let (verdict, _) = forward_one(&snapshot(), UPLINK, &part);
        assert_eq!(verdict, Verdict::Drop(DropReason::UnknownPeer));
    }
}

#[test]
fn fragments_that_wait_in_vain_are_counted() {
    let (snapshot, mut path) = (snapshot(), SlowPath::default());
    let packet = ipip(FAR_NODE, NODE, &udp(FAR_IPIP, POD, 64, &[0; 1000]));
    let (_, left) = forward_one(&snapshot, UPLINK, &fragments(&packet, 600)[0]);
    let (fate, _) = slow(&mut path, &snapshot, Punt::OuterFragment, left);
    assert_eq!(fate, Fate::Waits);
    let later = Instant::now() + Duration::from_secs(30);
    let ended = path.tick(later, &snapshot, &mut Vec::new());
    assert_eq!(ended, [Fate::Dropped(DropReason::OuterFragment)]);
}

/// What our node sends for the pod's packet, from its outer IP header on.
fn sent(snapshot: &Snapshot, inner: &[u8]) -> Vec<u8> {
    let (verdict, out) = forward_one(snapshot, WORKLOAD, &from_pod(inner));
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    out[14..].to_vec()
}

fn error(why: DestUnreachableHeader, quoted: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(MIDDLE.octets(), NODE.octets(), 60)
        .icmpv4(Icmpv4Type::DestinationUnreachable(why))
        .write(&mut packet, quoted)
        .unwrap();
    packet
}

/// What an error to the pod, in the node's name, says and quotes.
fn told_by_the_node(error: &[u8]) -> (Icmpv4Type, Vec<u8>) {
    let sliced = SlicedPacket::from_ip(error).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
        panic!("{sliced:?}")
    };
    assert_eq!(ip.header().source_addr(), NODE);
    assert_eq!(ip.header().destination_addr(), POD);
    let Some(TransportSlice::Icmpv4(icmp)) = &sliced.transport else {
        panic!("{sliced:?}")
    };
    (icmp.icmp_type(), icmp.payload().to_vec())
}

fn time_exceeded(why: TimeExceededCode, quoted: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(MIDDLE.octets(), NODE.octets(), 60)
        .icmpv4(Icmpv4Type::TimeExceeded(why))
        .write(&mut packet, quoted)
        .unwrap();
    packet
}

fn heard(snapshot: &Snapshot, error: &[u8]) -> (Fate, Vec<Action>) {
    let (verdict, left) = forward_one(snapshot, UPLINK, &from_uplink(error));
    assert_eq!(verdict, Verdict::Punt(Punt::TunnelError));
    assert_eq!(left, error);
    slow(&mut SlowPath::default(), snapshot, Punt::TunnelError, left)
}

#[test]
fn a_narrow_link_is_learnt_and_told_to_the_inner_sender() {
    let snapshot = snapshot();
    for (to, overhead) in [(FAR_IPIP, 20), (FAR_VXLAN, 50)] {
        let mut inner = udp(POD, to, 64, &[0x5a; 1400]);
        rewrite(&mut inner, |header| header.dont_fragment = true);
        let outer = sent(&snapshot, &inner);
        let next_hop_mtu = 1400;
        let why = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
        let (fate, actions) = heard(&snapshot, &error(why, &outer[..548]));
        assert_eq!(fate, Fate::Absorbed);
        let [Action::Tell(event), Action::Originate(told)] = &actions[..] else {
            panic!("{actions:?}");
        };
        assert_eq!(*event, Event::PathMtu(FAR_NODE.into(), Mtu(1400)));
        let (kind, quoted) = told_by_the_node(told);
        let next_hop_mtu = 1400 - overhead;
        let why = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
        assert_eq!(kind, Icmpv4Type::DestinationUnreachable(why));
        assert_eq!(quoted, &with_ttl(&inner, 63)[..548 - usize::from(overhead)]);
        // It reaches the pod by the way that any packet does.
        assert_eq!(originate_one(&snapshot, told), Verdict::Transmit(WORKLOAD));
    }
}

/// Where errors have lied before, nobody is told what the next one says until it has been measured; that
/// the far end is not reached is no such claim.
#[test]
fn where_lies_were_told_about_the_path_the_inner_sender_hears_of_none() {
    let mut snapshot = snapshot();
    let mut inner = udp(POD, FAR_IPIP, 64, &[0x5a; 1400]);
    rewrite(&mut inner, |header| header.dont_fragment = true);
    let outer = sent(&snapshot, &inner);
    let why = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1280 };
    let claim = error(why, &outer[..548]);
    let event = Action::Tell(Event::PathMtu(FAR_NODE.into(), Mtu(1280)));
    let peers = snapshot.tunnels.peers.clone();
    snapshot.tunnels.peers = peers.clone().doubting([FAR_NODE.into()]);
    assert_eq!(heard(&snapshot, &claim), (Fate::Absorbed, vec![event]));
    let (_, actions) = heard(&snapshot, &error(DestUnreachableHeader::Host, &outer));
    assert!(matches!(actions[..], [Action::Originate(_)]), "{actions:?}");
    // About others, and when the lie is forgotten, it is told as fast as ever.
    for doubted in [vec![STRANGER.into()], vec![]] {
        snapshot.tunnels.peers = peers.clone().doubting(doubted);
        let (_, actions) = heard(&snapshot, &claim);
        assert!(
            matches!(actions[..], [Action::Tell(_), Action::Originate(_)]),
            "{actions:?}"
        );
    }
}

#[test]
fn an_ipv6_sender_is_told_packet_too_big() {
    let snapshot = snapshot();
    let inner = udp6(POD_V6, FAR_VXLAN_V6, 64, &[0x5a; 1350]);
    let outer = sent(&snapshot, &inner);
    let next_hop_mtu = 1400;
    let why = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
    let (_, actions) = heard(&snapshot, &error(why, &outer[..548]));
    let [_, Action::Originate(told)] = &actions[..] else {
        panic!("{actions:?}");
    };
    let sliced = SlicedPacket::from_ip(told).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = &sliced.transport else {
        panic!("{sliced:?}")
    };
    assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1350 });
}

#[test]
fn a_short_quotation_teaches_and_tells_nobody() {
    let snapshot = snapshot();
    let mut inner = udp(POD, FAR_IPIP, 64, &[0x5a; 1400]);
    rewrite(&mut inner, |header| header.dont_fragment = true);
    let outer = sent(&snapshot, &inner);
    let next_hop_mtu = 1400;
    let why = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
    let (fate, actions) = heard(&snapshot, &error(why, &outer[..28]));
    assert_eq!(fate, Fate::Absorbed);
    assert_eq!(
        actions,
        [Action::Tell(Event::PathMtu(FAR_NODE.into(), Mtu(1400)))]
    );
}

#[test]
fn an_unreachable_far_end_is_an_unreachable_host_to_the_inner_sender() {
    let snapshot = snapshot();
    let outer = sent(&snapshot, &udp(POD, FAR_VXLAN, 64, &[0x5a; 100]));
    for code in [0, 1, 2, 3, 13] {
        let why = DestUnreachableHeader::from_values(code, 0).unwrap();
        let (fate, actions) = heard(&snapshot, &error(why, &outer));
        assert_eq!(fate, Fate::Absorbed);
        let [Action::Originate(told)] = &actions[..] else {
            panic!("{actions:?}");
        };
        let sliced = SlicedPacket::from_ip(told).unwrap();
        let Some(TransportSlice::Icmpv4(icmp)) = &sliced.transport else {
            panic!("{sliced:?}")
        };
        let host = DestUnreachableHeader::Host;
        assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(host));
    }
}

/// RFC 2003 section 4.4: a loop in the underlay is an unreachable host to who sends into the tunnel.
#[test]
fn a_tunnel_packet_whose_ttl_ran_out_is_an_unreachable_host_to_the_inner_sender() {
    let snapshot = snapshot();
    let host = DestUnreachableHeader::Host;
    for to in [FAR_IPIP, FAR_VXLAN] {
        let inner = udp(POD, to, 64, &[0x5a; 100]);
        let outer = sent(&snapshot, &inner);
        let exceeded = time_exceeded(TimeExceededCode::TtlExceededInTransit, &outer);
        let (fate, actions) = heard(&snapshot, &exceeded);
        assert_eq!(fate, Fate::Absorbed);
        let [Action::Originate(told)] = &actions[..] else {
            panic!("{actions:?}");
        };
        let (kind, quoted) = told_by_the_node(told);
        assert_eq!(kind, Icmpv4Type::DestinationUnreachable(host.clone()));
        assert_eq!(quoted, with_ttl(&inner, 63));
        assert_eq!(originate_one(&snapshot, told), Verdict::Transmit(WORKLOAD));
        // A workload may not say so.
        let forged = from_pod(&from_to(POD, NODE, &exceeded));
        let (verdict, _) = forward_one(&snapshot, WORKLOAD, &forged);
        assert_eq!(verdict, Verdict::Drop(DropReason::TunnelFromWorkload));
    }
}

/// Far ends of other makes put fragments together, and would believe it.
#[test]
fn a_workloads_error_about_a_tunnel_packet_is_refused_in_fragments_too() {
    let snapshot = snapshot();
    let outer = sent(&snapshot, &udp(POD, FAR_IPIP, 64, &[0x5a; 400]));
    let why = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 600 };
    let error = from_to(POD, FAR_NODE, &error(why, &outer));
    let first = |length: usize| {
        let mut packet = error[..20 + length].to_vec();
        rewrite(&mut packet, |header| {
            header.total_len = 20 + length as u16;
            header.more_fragments = true;
        });
        forward_one(&snapshot, WORKLOAD, &from_pod(&packet)).0
    };
    let refused = Verdict::Drop(DropReason::TunnelFromWorkload);
    for length in [8, 32, 120, 200] {
        assert_eq!(first(length), refused, "{length}");
    }
    // An error about something else passes, in fragments or not.
    let dns = error_about(&udp(FAR_NODE, POD, 64, &[1; 200]));
    assert_ne!(forward_one(&snapshot, WORKLOAD, &from_pod(&dns)).0, refused);
    let mut piece = dns[..20 + 160].to_vec();
    rewrite(&mut piece, |header| {
        header.total_len = 180;
        header.more_fragments = true;
    });
    assert_ne!(
        forward_one(&snapshot, WORKLOAD, &from_pod(&piece)).0,
        refused
    );
}

/// A port unreachable from the pod.
fn error_about(quoted: &[u8]) -> Vec<u8> {
    from_to(POD, FAR_NODE, &error(DestUnreachableHeader::Port, quoted))
}

#[test]
fn a_ttl_that_ran_out_is_told_as_often_as_other_errors() {
    let snapshot = snapshot();
    let outer = sent(&snapshot, &udp(POD, FAR_IPIP, 64, &[0x5a; 100]));
    let exceeded = time_exceeded(TimeExceededCode::TtlExceededInTransit, &outer);
    let (mut path, now, mut told) = (SlowPath::default(), Instant::now(), Vec::new());
    for _ in 0..100 {
        let punted = Punted {
            ingress: Some(UPLINK),
            punt: Punt::TunnelError,
            packet: exceeded.clone(),
        };
        let fate = path.handle(now, &snapshot, punted, &mut told);
        assert_eq!(fate, Fate::Absorbed);
    }
    assert_eq!(told.len(), 10);
}

/// What ran out there is the inner sender's own TTL: traceroute goes on to the overlay's next router.
#[test]
fn an_inherited_ttl_that_ran_out_in_the_underlay_is_told_to_nobody() {
    let mut snapshot = snapshot();
    for adjacency in &mut snapshot.adjacencies {
        if let Adjacency::Forward(egress) = adjacency {
            egress.ttl = OuterTtl::Inherit;
        }
    }
    let outer = sent(&snapshot, &udp(POD, FAR_IPIP, 3, b"traceroute"));
    assert_eq!(outer[8], 2);
    let exceeded = time_exceeded(TimeExceededCode::TtlExceededInTransit, &outer);
    assert_eq!(heard(&snapshot, &exceeded), (Fate::Absorbed, vec![]));
}

/// An inner packet that no workload of ours sent is not answered, whatever the outer header says.
#[test]
fn a_forged_inner_packet_makes_nobody_hear_of_it() {
    let snapshot = snapshot();
    let forged = ipip(NODE, FAR_NODE, &udp(FAR_VXLAN, FAR_IPIP, 64, &[0; 100]));
    let (fate, actions) = heard(&snapshot, &error(DestUnreachableHeader::Host, &forged));
    assert_eq!((fate, actions), (Fate::Absorbed, vec![]));
    let stranger = ipip(NODE, STRANGER, &udp(POD, FAR_IPIP, 64, &[0; 100]));
    let (fate, actions) = heard(&snapshot, &error(DestUnreachableHeader::Host, &stranger));
    assert_eq!(fate, Fate::Dropped(DropReason::InvalidQuote));
    assert_eq!(actions, vec![]);
}

/// All other ICMP to the node is the host kernel's.
#[test]
fn errors_about_what_the_host_sent_are_the_hosts() {
    let ours = ipip(NODE, FAR_NODE, &udp(POD, FAR_IPIP, 64, &[0; 100]));
    let about_udp = error(
        DestUnreachableHeader::Port,
        &udp(NODE, FAR_NODE, 64, b"dns"),
    );
    let another = ipip(STRANGER, FAR_NODE, &udp(POD, FAR_IPIP, 64, &[0; 100]));
    let dns = udp(NODE, FAR_NODE, 64, b"dns");
    let [ttl, fragments] = [
        TimeExceededCode::TtlExceededInTransit,
        TimeExceededCode::FragmentReassemblyTimeExceeded,
    ];
    for packet in [
        about_udp,
        error(DestUnreachableHeader::Host, &another),
        time_exceeded(ttl, &dns),
        time_exceeded(ttl, &another),
        // Says no more than that a packet of ours was lost.
        time_exceeded(fragments, &ours),
    ] {
        let (verdict, out) = forward_one(&snapshot(), UPLINK, &from_uplink(&packet));
        assert_eq!(verdict, Verdict::Transmit(HOST));
        assert_eq!(out, packet);
    }
}

fn with_ttl(packet: &[u8], ttl: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    rewrite(&mut packet, |header| header.time_to_live = ttl);
    packet
}

fn from_to(source: Ipv4Addr, destination: Ipv4Addr, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    rewrite(&mut packet, |header| {
        header.source = source.octets();
        header.destination = destination.octets();
    });
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

fn originate_one(snapshot: &Snapshot, packet: &[u8]) -> Verdict {
    let mut state = underpass::forward::WorkerState::new(0, 1);
    let mut frame = underpass::packet::Frame::leak(4096, 256);
    assert!(frame.fill(packet, 256));
    underpass::forward::originate(snapshot, &mut state, &mut frame)
}
