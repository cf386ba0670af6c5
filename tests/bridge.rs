//! VXLAN as a virtual Ethernet, on paper: where each frame goes, what is around it, what is learnt.
#![allow(missing_docs)]

#[path = "bridge/answers.rs"]
mod answers;
mod common;
#[path = "bridge/control.rs"]
mod control;
#[path = "workers/harness.rs"]
#[allow(dead_code)]
mod harness;
#[path = "bridge/model.rs"]
mod model;
#[path = "bridge/paper.rs"]
mod paper;
#[path = "bridge/sizes.rs"]
mod sizes;
#[path = "bridge/table.rs"]
mod table;
#[path = "bridge/underlay.rs"]
mod underlay;
#[path = "bridge/workers.rs"]
mod workers;

use std::net::IpAddr;

use common::*;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use paper::*;
use proptest::prelude::*;
use underpass::forward::{
    BridgeId, Flood, Place, Punt, Snapshot, Verdict, WorkerState, deliver, resume,
};
use underpass::packet::{DropReason, Frame, HEADROOM};
use underpass::port::PortId;
use underpass::wire::{MacAddr, Mtu};

// Where a frame goes.

#[test]
fn what_is_for_everybody_or_unknown_goes_to_all_ports_and_remotes_but_back() {
    let paper = Paper::new();
    for destination in [MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 9]), NOBODY] {
        let sent = frame(ALICE, destination, b"words");
        let (verdict, held) = paper.receive(ALICES, &sent);
        assert_eq!(verdict, flood(Place::Port(ALICES)));
        assert_eq!(held, sent, "as it came");
        let all = [Place::Port(BOBS), remote(0), remote(1)];
        assert_eq!(paper.targets(Place::Port(ALICES)), all);
        let sent = frame(CAROL, destination, b"words");
        let (verdict, held) = paper.receive(UPLINK, &tunnelled(FAR_NODE, 77, &sent));
        assert_eq!(verdict, flood(remote(0)));
        assert_eq!(held, sent, "as it went in");
        assert_eq!(
            paper.targets(remote(0)),
            [Place::Port(ALICES), Place::Port(BOBS)]
        );
    }
}

#[test]
fn a_station_that_was_heard_of_gets_its_frames_alone() {
    let paper = Paper::new();
    paper.receive(ALICES, &frame(ALICE, MacAddr::BROADCAST, b""));
    paper.receive(UPLINK, &tunnelled(FAR_NODE, 77, &frame(CAROL, ALICE, b"")));
    let to_alice = frame(BOB, ALICE, b"words");
    let (verdict, held) = paper.receive(BOBS, &to_alice);
    assert_eq!((verdict, held), (Verdict::Transmit(ALICES), to_alice));
    let (verdict, held) = paper.receive(ALICES, &frame(ALICE, CAROL, b"words"));
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    assert_eq!(outer(&held).destination, IpAddr::from(FAR_NODE));
    // By either port; and what nobody may know is not told.
    assert_eq!(
        paper.receive(BOBS, &frame(BOB, CAROL, b"")).0,
        Verdict::Transmit(UPLINK)
    );
}

#[test]
fn nothing_goes_back_nor_from_a_tunnel_into_one() {
    let paper = Paper::new();
    paper.receive(ALICES, &frame(ALICE, MacAddr::BROADCAST, b""));
    paper.receive(UPLINK, &tunnelled(FAR_NODE, 77, &frame(CAROL, ALICE, b"")));
    paper.receive(UPLINK, &tunnelled(THIRD_NODE, 77, &frame(DAVE, ALICE, b"")));
    let drop = |reason| Verdict::Drop(reason);
    assert_eq!(
        paper.receive(ALICES, &frame(BOB, ALICE, b"")).0,
        drop(DropReason::SamePort)
    );
    let (verdict, _) = paper.receive(UPLINK, &tunnelled(FAR_NODE, 77, &frame(CAROL, DAVE, b"")));
    assert_eq!(verdict, drop(DropReason::BridgeSplitHorizon));
    let (verdict, _) = paper.receive(UPLINK, &tunnelled(FAR_NODE, 77, &frame(DAVE, CAROL, b"")));
    assert_eq!(verdict, drop(DropReason::SamePort), "and Dave has moved");
    for last in 0..=16 {
        let group = MacAddr([0x01, 0x80, 0xc2, 0, 0, last]);
        let (verdict, _) = paper.receive(ALICES, &frame(ALICE, group, b""));
        let expected = match last {
            16 => flood(Place::Port(ALICES)),
            _ => drop(DropReason::BridgeLinkLocal),
        };
        assert_eq!(verdict, expected, "{group}");
        let (verdict, _) = Paper::with(|bridge| bridge.link_local_groups = true)
            .receive(ALICES, &frame(ALICE, group, b""));
        // A pause is for the link alone.
        let expected = match last {
            1 => drop(DropReason::BridgeLinkLocal),
            _ => flood(Place::Port(ALICES)),
        };
        assert_eq!(verdict, expected, "{group}");
    }
}

#[test]
fn impossible_sources_are_refused_and_configured_ones_stay() {
    let paper = Paper::with(|bridge| {
        bridge.stations.insert(BOB, Place::Port(BOBS));
        bridge.stations.insert(CAROL, remote(1));
    });
    for source in [
        MacAddr::default(),
        MacAddr::BROADCAST,
        MacAddr([3, 0, 0, 0, 0, 1]),
    ] {
        let (verdict, _) = paper.receive(ALICES, &frame(source, BOB, b""));
        assert_eq!(verdict, Verdict::Drop(DropReason::BridgeSource), "{source}");
    }
    for source in [BOB, CAROL] {
        let (verdict, _) = paper.receive(ALICES, &frame(source, NOBODY, b""));
        assert_eq!(verdict, Verdict::Drop(DropReason::BridgeStatic), "{source}");
    }
    let (verdict, held) = paper.receive(ALICES, &frame(ALICE, CAROL, b""));
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    assert_eq!(outer(&held).destination, IpAddr::from(THIRD_NODE));
    assert_eq!(paper.table().len(), 1, "Alice alone is learnt");
}

#[test]
fn a_bridge_that_does_not_learn_floods_what_is_not_configured() {
    let paper = Paper::with(|bridge| bridge.learning = false);
    paper.receive(BOBS, &frame(BOB, MacAddr::BROADCAST, b""));
    let (verdict, _) = paper.receive(ALICES, &frame(ALICE, BOB, b""));
    assert_eq!(verdict, flood(Place::Port(ALICES)));
    assert!(paper.table().is_empty());
}

/// Carol sends by these ports, one after the other, the uplink's out of the far node's tunnel; what became
/// of each of her frames.
fn heard(paper: &Paper, ports: &[PortId]) -> Vec<Verdict> {
    let words = frame(CAROL, MacAddr::BROADCAST, b"");
    let hear = |port: &PortId| match *port {
        UPLINK => paper.receive(UPLINK, &tunnelled(FAR_NODE, 77, &words)).0,
        port => paper.receive(port, &words).0,
    };
    ports.iter().map(hear).collect()
}

const FLAPPING: Verdict = Verdict::Drop(DropReason::BridgeFlapping);

#[test]
fn a_station_that_keeps_moving_is_at_home_for_a_while() {
    let paper = Paper::new();
    let [home, away] = [ALICES, BOBS].map(|port| flood(Place::Port(port)));
    let turns = [ALICES, BOBS, ALICES, BOBS, ALICES, BOBS];
    let verdicts = [home, away, home, away, home, FLAPPING];
    assert_eq!(heard(&paper, &turns), verdicts);
    let turns = [ALICES, BOBS, ALICES];
    assert_eq!(heard(&paper, &turns), [home, FLAPPING, home]);
    paper.table().set_now(29);
    assert_eq!(heard(&paper, &turns), [home, FLAPPING, home]);
    paper.table().set_now(30);
    assert_eq!(heard(&paper, &[BOBS]), [away], "believed again");
    assert_eq!(paper.table().moved(), 5);
}

/// Whoever sends the frame that is one too many: what is for a station goes to where it had stayed.
#[test]
fn nobody_gets_a_stations_frames_by_sending_in_its_name() {
    let [home, forged] = [ALICES, BOBS].map(|port| flood(Place::Port(port)));
    let far = flood(remote(0));
    let by_forger = [BOBS, ALICES, BOBS, ALICES, BOBS];
    let by_station = [BOBS, UPLINK, ALICES, BOBS, ALICES];
    let by_second_forger = [BOBS, UPLINK, ALICES, BOBS, UPLINK];
    for (turns, verdicts) in [
        (by_forger, [forged, home, forged, home, FLAPPING]),
        (by_station, [forged, far, home, forged, home]),
        (by_second_forger, [forged, far, home, forged, FLAPPING]),
    ] {
        let paper = Paper::new();
        heard(&paper, &[ALICES]);
        paper.table().set_now(100);
        assert_eq!(heard(&paper, &turns), verdicts);
        for now in [100, 129] {
            paper.table().set_now(now);
            let (verdict, _) = paper.receive(BOBS, &frame(BOB, CAROL, b""));
            assert_eq!(verdict, Verdict::Transmit(ALICES), "{turns:?}, {now} s");
            let fates = [FLAPPING, FLAPPING, home];
            assert_eq!(heard(&paper, &[BOBS, UPLINK, ALICES]), fates);
        }
    }
}

/// A forger who is slow enough never to be held on to does not become the station either.
#[test]
fn a_station_is_at_home_where_it_stayed() {
    let paper = Paper::new();
    heard(&paper, &[ALICES]);
    for (now, turns) in [(100, &[BOBS, ALICES][..]), (109, &[BOBS])] {
        paper.table().set_now(now);
        heard(&paper, turns);
    }
    // Moves are counted anew, but nine seconds are no stay.
    paper.table().set_now(118);
    heard(&paper, &[ALICES, BOBS, ALICES, BOBS, ALICES]);
    assert_eq!(paper.table().find(CAROL), Some(Place::Port(ALICES)));
    assert_eq!(heard(&paper, &[BOBS]), [FLAPPING]);
    // What has stayed elsewhere is at home there.
    let paper = Paper::new();
    heard(&paper, &[ALICES, BOBS]);
    paper.table().set_now(10);
    heard(&paper, &[ALICES, BOBS, ALICES, BOBS, ALICES]);
    assert_eq!(paper.table().find(CAROL), Some(Place::Port(BOBS)));
}

/// A home behind a remote that is one no more: the station is at home where it is.
#[test]
fn a_home_that_has_gone_is_none() {
    let paper = Paper::new();
    heard(&paper, &[UPLINK, ALICES]);
    paper.table().forget(|place| place == remote(0));
    heard(&paper, &[BOBS, ALICES, BOBS, ALICES]);
    assert_eq!(paper.table().find(CAROL), Some(Place::Port(ALICES)));
    assert_eq!(heard(&paper, &[BOBS]), [FLAPPING]);
}

// Who may send into a tunnel, and what.

#[test]
fn a_bridge_takes_its_own_network_from_its_remotes_only() {
    let paper = Paper::new();
    let sent = frame(CAROL, ALICE, b"");
    let fate = |packet: &[u8]| paper.receive(UPLINK, packet).0;
    let drop = |reason| Verdict::Drop(reason);
    assert_eq!(
        fate(&tunnelled(STRANGER, 77, &sent)),
        drop(DropReason::UnknownPeer)
    );
    assert_eq!(
        fate(&tunnelled(FAR_NODE, 78, &sent)),
        drop(DropReason::VxlanUnknownVni)
    );
    // The third node is a remote of the bridge and no node of the cluster: nothing is routed for it.
    assert_eq!(
        fate(&tunnelled(THIRD_NODE, 4096, &sent)),
        drop(DropReason::UnknownPeer)
    );
    assert_eq!(
        fate(&from_uplink(&ipip(THIRD_NODE, NODE, &[0x45; 40]))),
        drop(DropReason::UnknownPeer)
    );
    assert!(matches!(
        fate(&tunnelled(THIRD_NODE, 77, &sent)),
        Verdict::Flood(_)
    ));
    let mut elsewhere = tunnelled(FAR_NODE, 77, &sent);
    elsewhere[36..38].copy_from_slice(&8472_u16.to_be_bytes());
    assert_eq!(
        fate(&elsewhere),
        drop(DropReason::NotForUs),
        "another UDP port"
    );
    assert_eq!(
        fate(&tunnelled(FAR_NODE, 77, &sent[..13])),
        drop(DropReason::EthernetTruncated)
    );
    let flannel = Paper::with(|bridge| bridge.udp_port = 8472);
    assert!(matches!(
        flannel.receive(UPLINK, &elsewhere).0,
        Verdict::Flood(_)
    ));
    let (verdict, _) = flannel.receive(UPLINK, &tunnelled(FAR_NODE, 77, &sent));
    assert_eq!(
        verdict,
        drop(DropReason::VxlanUnknownVni),
        "the routed port"
    );
}

#[test]
fn an_outer_congestion_mark_reaches_a_bridged_packet() {
    let paper = Paper::new();
    let marked = |outer_tos: u8, inner_tos: u8| {
        let mut inner = udp(POD, OTHER_POD, 64, b"data");
        rewrite_tos(&mut inner, inner_tos);
        let mut packet = tunnelled(FAR_NODE, 77, &ethernet(CAROL, ALICE, &inner));
        rewrite_tos(&mut packet[14..], outer_tos);
        let (verdict, held) = paper.receive(UPLINK, &packet);
        match verdict {
            Verdict::Drop(reason) => Err(reason),
            _ => {
                let ip = etherparse::Ipv4HeaderSlice::from_slice(&held[14..]).unwrap();
                assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
                Ok(held[15])
            }
        }
    };
    assert_eq!(marked(0b11, 0b10), Ok(0b11));
    assert_eq!(marked(0b01, 0b10), Ok(0b01));
    assert_eq!(marked(0b10, 0b00), Ok(0b00));
    assert_eq!(marked(0b11, 0b00), Err(DropReason::EcnNotEctCe));
    // What is no IP packet has no place for the mark.
    let mut arp = tunnelled(FAR_NODE, 77, &ethernet_of(CAROL, ALICE, 0x88cc, &[0; 46]));
    rewrite_tos(&mut arp[14..], 0b11);
    assert!(matches!(paper.receive(UPLINK, &arp).0, Verdict::Flood(_)));
}

// What is around a frame.

#[test]
fn a_bridged_frame_is_carried_whole_behind_an_outer_header_of_its_own() {
    let paper = Paper::new();
    paper.receive(UPLINK, &tunnelled(FAR_NODE, 77, &frame(CAROL, ALICE, b"")));
    let mut inner = udp(POD, OTHER_POD, 1, b"data");
    rewrite_tos(&mut inner, 0b1010_1001);
    let sent = ethernet(ALICE, CAROL, &inner);
    let (verdict, held) = paper.receive(ALICES, &sent);
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    let seen = outer(&held);
    assert_eq!(
        (seen.source, seen.destination),
        (IpAddr::from(NODE), FAR_NODE.into())
    );
    assert_eq!(
        (seen.tos, seen.ttl),
        (0b1010_1001, 64),
        "a bridge is no hop"
    );
    assert_eq!(seen.vxlan, [8, 0, 0, 0, 0, 0, 77, 0]);
    assert_eq!(seen.udp_port, 4789);
    assert!(seen.source_port >= 49152);
    assert_eq!(seen.frame, sent, "the inner TTL too");
    // Another flow, another source port; the same flow, the same.
    let port = |destination_port: u16| {
        let mut other = Vec::new();
        PacketBuilder::ethernet2(ALICE.0, CAROL.0)
            .ipv4(POD.octets(), OTHER_POD.octets(), 64)
            .udp(1000, destination_port)
            .write(&mut other, b"data")
            .unwrap();
        outer(&paper.receive(ALICES, &other).1).source_port
    };
    assert_eq!(port(7), port(7));
    let ports: std::collections::BTreeSet<u16> = (1..=20).map(port).collect();
    assert!(ports.len() > 15, "{ports:?}");
}

/// What is no IP has no mark to copy, and its two stations are its flow.
#[test]
fn around_what_is_no_ip_there_is_no_mark_and_a_port_of_its_stations() {
    let paper = Paper::new();
    paper.receive(UPLINK, &tunnelled(FAR_NODE, 77, &frame(CAROL, ALICE, b"")));
    let port = |station: u8, words: &[u8]| {
        let source = MacAddr([2, 0, 0, 0, 10, station]);
        let sent = frame(source, CAROL, words);
        let (verdict, held) = paper.receive(ALICES, &sent);
        assert_eq!(verdict, Verdict::Transmit(UPLINK));
        let seen = outer(&held);
        assert_eq!((seen.tos, seen.ttl, &seen.frame), (0, 64, &sent));
        assert!(seen.source_port >= 49152);
        seen.source_port
    };
    // Where IP would have its TOS, and its addresses and ports.
    assert_eq!(port(1, &[0xff; 60]), port(1, &[0x11; 60]));
    let ports: std::collections::BTreeSet<u16> = (1..=20).map(|n| port(n, b"words")).collect();
    assert!(ports.len() > 15, "{ports:?}");
}

/// No link of the underlay is too narrow for a frame, whatever it carries: routers may fragment.
#[test]
fn the_underlay_may_fragment_whatever_a_bridged_packet_says() {
    let paper = Paper::new();
    paper.receive(UPLINK, &tunnelled(FAR_NODE, 77, &frame(CAROL, ALICE, b"")));
    let [alices, carols] = [1, 3].map(|n| std::net::Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, n));
    let mut cut_never = udp(POD, OTHER_POD, 64, &[7; 1400]);
    let (mut header, _) = etherparse::Ipv4Header::from_slice(&cut_never).unwrap();
    header.dont_fragment = true;
    header.header_checksum = header.calc_header_checksum();
    cut_never[..20].copy_from_slice(&header.to_bytes());
    for sent in [
        ethernet(ALICE, CAROL, &cut_never),
        ethernet(ALICE, CAROL, &udp6(alices, carols, 64, &[7; 1400])),
    ] {
        // One worker's packets, one after the other: what may be fragmented is told apart.
        let mut state = WorkerState::new(0, 1);
        let identifications = [0, 1].map(|_| {
            let mut copy = Frame::leak(2048, HEADROOM);
            assert!(copy.fill(&sent, HEADROOM));
            let verdict = deliver(&paper.snapshot, &mut state, TENANTS, remote(0), &mut copy);
            assert_eq!(verdict, Verdict::Transmit(UPLINK));
            let seen = outer(copy.bytes());
            assert_eq!(seen.frame, sent, "DF within stays");
            assert!(!seen.dont_fragment);
            seen.identification
        });
        assert_ne!(identifications[0], identifications[1]);
    }
}

#[test]
fn a_tagged_frame_keeps_its_tag_and_pays_for_it() {
    let paper = Paper::new();
    paper.receive(UPLINK, &tunnelled(FAR_NODE, 77, &frame(CAROL, ALICE, b"")));
    let tagged = |payload: usize| {
        let mut frame = ethernet_of(ALICE, CAROL, 0x8100, &[0x20, 5, 0x08, 0]);
        frame.extend(udp(POD, OTHER_POD, 64, &vec![0; payload - 28]));
        frame
    };
    let (verdict, held) = paper.receive(ALICES, &tagged(1446));
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    assert_eq!(outer(&held).frame, tagged(1446));
    assert_eq!(held.len(), 1514, "as much as the uplink takes");
    let (verdict, held) = paper.receive(ALICES, &tagged(1447));
    assert_eq!(verdict, Verdict::Punt(Punt::BridgedTooBig(Mtu(1450))));
    assert_eq!(held, tagged(1447));
    // Carol has not been heard of there.
    let paper = Paper::new();
    let (verdict, held) = paper.receive(UPLINK, &tunnelled(FAR_NODE, 77, &tagged(100)));
    assert!(matches!(verdict, Verdict::Flood(_)));
    assert_eq!(held, tagged(100));
}

#[test]
fn the_copies_of_a_flooded_frame_differ_in_their_outer_header_alone() {
    let paper = Paper::new();
    let sent = frame(ALICE, MacAddr::BROADCAST, b"words");
    let copy = |target: Place| {
        let mut state = WorkerState::new(0, 1);
        let mut frame = Frame::leak(2048, HEADROOM);
        assert!(frame.fill(&sent, HEADROOM));
        let verdict = deliver(&paper.snapshot, &mut state, TENANTS, target, &mut frame);
        (verdict, frame.bytes().to_vec())
    };
    assert_eq!(
        copy(Place::Port(BOBS)),
        (Verdict::Transmit(BOBS), sent.clone())
    );
    for (number, node) in [(0, FAR_NODE), (1, THIRD_NODE)] {
        let (verdict, held) = copy(remote(number));
        assert_eq!(verdict, Verdict::Transmit(UPLINK));
        let seen = outer(&held);
        assert_eq!((seen.destination, seen.frame), (node.into(), sent.clone()));
    }
    let (verdict, _) = copy(remote(2));
    assert_eq!(
        verdict,
        Verdict::Drop(DropReason::NeighbourUnresolved),
        "one that has gone"
    );
}

#[test]
fn arp_and_neighbour_discovery_are_looked_at_and_then_go_on() {
    let paper = Paper::with(|bridge| bridge.suppression = true);
    let arp = ethernet_of(ALICE, MacAddr::BROADCAST, 0x0806, &[0; 28]);
    let punted = Verdict::Punt(Punt::Bridged(TENANTS, Place::Port(ALICES)));
    assert_eq!(paper.receive(ALICES, &arp), (punted, arp.clone()));
    let tunnelled = tunnelled(FAR_NODE, 77, &ethernet_of(CAROL, ALICE, 0x0806, &[0; 28]));
    let punted = Verdict::Punt(Punt::Bridged(TENANTS, remote(0)));
    assert_eq!(paper.receive(UPLINK, &tunnelled).0, punted);
    let mut state = WorkerState::new(0, 1);
    let mut frame = Frame::leak(2048, HEADROOM);
    assert!(frame.fill(&arp, HEADROOM));
    let from = Place::Port(ALICES);
    let verdict = resume(&paper.snapshot, &mut state, TENANTS, from, &mut frame);
    assert_eq!(verdict, flood(from));
    // Within a VLAN addresses may be others.
    let tagged = ethernet_of(
        ALICE,
        MacAddr::BROADCAST,
        0x8100,
        &[&[0, 5, 8, 6][..], &[0; 28]].concat(),
    );
    assert_eq!(paper.receive(ALICES, &tagged).0, flood(from));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever comes, by a port or in a tunnel: one verdict, and no panic.
    #[test]
    fn any_bytes_get_one_verdict(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        ethertype in prop::sample::select(vec![0x0800_u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0]),
        inside: bool,
    ) {
        let paper = Paper::with(|bridge| bridge.suppression = true);
        let mut frame = bytes;
        if frame.len() > 14 {
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        }
        let (verdict, held) = match inside {
            true => paper.receive(UPLINK, &tunnelled(FAR_NODE, 77, &frame)),
            false => paper.receive(ALICES, &frame),
        };
        if let Verdict::Flood(Flood { bridge, .. }) = verdict {
            prop_assert_eq!(bridge, BridgeId(0));
            prop_assert_eq!(held.len(), frame.len());
        }
    }
}

/// Sets an IPv4 packet's TOS and mends its checksum.
fn rewrite_tos(packet: &mut [u8], tos: u8) {
    let mut header = etherparse::Ipv4HeaderSlice::from_slice(packet)
        .unwrap()
        .to_header();
    header.dscp = (tos >> 2).try_into().unwrap();
    header.ecn = (tos & 3).try_into().unwrap();
    header.header_checksum = header.calc_header_checksum();
    let mut bytes = Vec::new();
    header.write(&mut bytes).unwrap();
    packet[..bytes.len()].copy_from_slice(&bytes);
}

/// A tunnel packet as etherparse reads it.
struct Outer {
    source: IpAddr,
    destination: IpAddr,
    tos: u8,
    ttl: u8,
    dont_fragment: bool,
    identification: u16,
    source_port: u16,
    udp_port: u16,
    vxlan: [u8; 8],
    frame: Vec<u8>,
}

fn outer(frame: &[u8]) -> Outer {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ip)) = sliced.net else {
        panic!("no IPv4 packet: {frame:02x?}");
    };
    let Some(TransportSlice::Udp(udp)) = sliced.transport else {
        panic!("no UDP datagram");
    };
    let header = ip.header();
    let calculated = header.to_header().calc_header_checksum();
    assert_eq!(header.header_checksum(), calculated);
    Outer {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        tos: header.dcp().value() << 2 | header.ecn().value(),
        ttl: header.ttl(),
        dont_fragment: header.dont_fragment(),
        identification: header.identification(),
        source_port: udp.source_port(),
        udp_port: udp.destination_port(),
        vxlan: udp.payload()[..8].try_into().unwrap(),
        frame: udp.payload()[8..].to_vec(),
    }
}

fn flood(from: Place) -> Verdict {
    Verdict::Flood(Flood {
        bridge: TENANTS,
        from,
    })
}

/// The node on paper is also a snapshot for others.
fn targets(snapshot: &Snapshot, from: Place) -> Vec<Place> {
    let flood = Flood {
        bridge: TENANTS,
        from,
    };
    snapshot.bridges.targets(flood).collect()
}
