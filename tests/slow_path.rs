//! The slow path's core on made-up time, against packets that scapy made and that etherparse makes
//! and reads.
#![allow(missing_docs)]

mod common;
#[path = "slow_path/fragments.rs"]
mod fragments;
#[path = "slow_path/waiting.rs"]
mod waiting;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use common::fates::{arp_request, rewrite};
use common::golden::Golden;
use common::*;
use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Type, Ipv4Header, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice, defrag::IpDefragPool, icmpv4, icmpv6,
};
use proptest::prelude::*;
use underpass::fib::NextHop;
use underpass::forward::{Adjacency, Punt, RouterAddresses, Snapshot};
use underpass::packet::DropReason;
use underpass::port::PortId;
use underpass::wire::arp::{Arp, Operation};
use underpass::wire::nd::{NeighbourKind, NeighbourMessage};
use underpass::wire::{MacAddr, Mtu};
use underpass::worker::slow_path::{Action, Event, Fate, Punted, SlowPath};

const GATEWAY: Ipv4Addr = RouterAddresses::GATEWAY_V4;
const GATEWAY_V6: Ipv6Addr = RouterAddresses::GATEWAY_V6;
/// A next hop of the node on paper without an Ethernet address.
const UNKNOWN: NextHop = NextHop(9);
const NOT_ANSWERED: Fate = Fate::Dropped(DropReason::NotAnswered);

// ARP.

#[test]
fn a_workload_that_asks_for_its_gateway_gets_scapys_answer_and_is_learnt() {
    let golden = Golden::load("arp");
    let (fate, actions) = Core::new().handle(WORKLOAD, Punt::Arp, golden.packet("request"));
    let mac = "66:3e:ca:a4:db:65".parse().unwrap();
    let seen = Action::Tell(Event::WorkloadSeen(WORKLOAD, POD.into(), mac));
    let answer = Action::Transmit(WORKLOAD, golden.packet("reply"));
    assert_eq!((fate, actions), (Fate::Absorbed, vec![seen, answer]));
}

#[test]
fn any_address_but_the_workloads_own_is_at_the_gateways_ethernet_address() {
    let others = [
        OTHER_POD,
        FAR_IPIP,
        NODE,
        GATEWAY,
        Ipv4Addr::new(8, 8, 8, 8),
    ];
    for target in others {
        let request = arp_request(POD, target);
        let (fate, actions) = Core::new().handle(WORKLOAD, Punt::Arp, request);
        assert_eq!(fate, Fate::Absorbed);
        let frame = transmitted(&actions[1..], WORKLOAD);
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(NetSlice::Arp(reply)) = &sliced.net else {
            panic!("{sliced:?}")
        };
        assert_eq!(reply.operation(), etherparse::ArpOperation::REPLY);
        assert_eq!(reply.sender_hw_addr(), MacAddr::WORKLOAD_GATEWAY.0);
        assert_eq!(reply.sender_protocol_addr(), target.octets());
        assert_eq!(reply.target_hw_addr(), POD_MAC.0);
        assert_eq!(reply.target_protocol_addr(), POD.octets());
        assert_eq!(frame[..6], POD_MAC.0);
    }
    // The workload's own address: whether somebody else has it, or an announcement (RFC 5227).
    let seen = Action::Tell(Event::WorkloadSeen(WORKLOAD, POD.into(), POD_MAC));
    let announcement = Core::new().handle(WORKLOAD, Punt::Arp, arp_request(POD, POD));
    assert_eq!(announcement, (Fate::Absorbed, vec![seen]));
}

/// Who has no address yet asks whether one is free. The gateway's is not; for all others the answer
/// would keep a workload from an address that it is about to be given (RFC 5227 section 2.1.1; Linux
/// answers a probe for its own addresses only).
#[test]
fn a_probe_is_answered_for_the_gateways_address_only() {
    let nobody = Ipv4Addr::UNSPECIFIED;
    for target in [POD, OTHER_POD, Ipv4Addr::new(192, 168, 1, 77), FAR_IPIP] {
        let (fate, actions) = Core::new().handle(WORKLOAD, Punt::Arp, arp_request(nobody, target));
        assert_eq!((fate, actions), (Fate::Absorbed, vec![]), "{target}");
    }
    let (_, actions) = Core::new().handle(WORKLOAD, Punt::Arp, arp_request(nobody, GATEWAY));
    assert_eq!(actions.len(), 1);
    transmitted(&actions, WORKLOAD);
}

#[test]
fn arp_that_is_spoofed_wrong_or_from_elsewhere_does_nothing() {
    let request = arp_request(POD, GATEWAY);
    let spoofed = arp_request(OTHER_POD, GATEWAY);
    let mut token_ring = request.clone();
    token_ring[15] = 6;
    let cases = [
        (WORKLOAD, spoofed, Fate::Dropped(DropReason::SpoofedSource)),
        (UPLINK, request.clone(), NOT_ANSWERED),
        (HOST, request.clone(), NOT_ANSWERED),
        (PortId(77), request.clone(), NOT_ANSWERED),
        (WORKLOAD, request[..41].to_vec(), NOT_ANSWERED),
        (WORKLOAD, token_ring, NOT_ANSWERED),
        (
            WORKLOAD,
            request[..13].to_vec(),
            Fate::Dropped(DropReason::EthernetTruncated),
        ),
    ];
    for (port, frame, fate) in cases {
        let result = Core::new().handle(port, Punt::Arp, frame);
        assert_eq!(result, (fate, vec![]));
    }
}

#[test]
fn an_arp_reply_teaches_and_is_not_answered() {
    let mut reply = arp_request(POD, GATEWAY);
    reply[21] = 2;
    let (fate, actions) = Core::new().handle(WORKLOAD, Punt::Arp, reply);
    let seen = Action::Tell(Event::WorkloadSeen(WORKLOAD, POD.into(), POD_MAC));
    assert_eq!((fate, actions), (Fate::Absorbed, vec![seen]));
}

/// The control side has other things to do.
#[test]
fn a_workload_is_not_told_of_more_often_than_ten_times_a_second() {
    let mut core = Core::new();
    let mut told = 0;
    for nth in 0..1000_u32 {
        let mac = MacAddr([2, 9, 0, 0, (nth >> 8) as u8, nth as u8]);
        let arp = Arp {
            operation: Operation::Request,
            sender_mac: mac,
            sender_ip: POD,
            target_mac: MacAddr::default(),
            target_ip: GATEWAY,
        };
        let mut frame = ethernet_of(mac, MacAddr::BROADCAST, 0x0806, &[0; 28]);
        arp.write(&mut frame[14..]);
        let (_, actions) = core.handle(WORKLOAD, Punt::Arp, frame);
        told += actions
            .iter()
            .filter(|a| matches!(a, Action::Tell(_)))
            .count();
        core.now += Duration::from_millis(1);
    }
    assert_eq!(told, 10);
}

// Neighbour discovery.

#[test]
fn a_solicitation_is_answered_for_any_address_but_the_workloads_own() {
    let pod_local: Ipv6Addr = "fe80::2".parse().unwrap();
    for source in [POD_V6, pod_local] {
        for target in [GATEWAY_V6, FAR_VXLAN_V6, "2001:db8::1".parse().unwrap()] {
            let (fate, mut actions) = Core::new().ask(source, target);
            assert_eq!(fate, Fate::Absorbed);
            // Of addresses that it has made up nobody is told.
            if source == POD_V6 {
                let seen = Action::Tell(Event::WorkloadSeen(WORKLOAD, source.into(), POD_MAC));
                assert_eq!(actions.remove(0), seen);
            }
            let frame = transmitted(&actions, WORKLOAD);
            assert_eq!(frame[..6], POD_MAC.0);
            let (header, options) = advertisement(frame, target, source);
            assert!(header.router && header.solicited && !header.r#override);
            let mac = [&[2, 1][..], &MacAddr::WORKLOAD_GATEWAY.0].concat();
            assert_eq!(options, mac);
        }
    }
    for own in [POD_V6, pod_local] {
        let (fate, actions) = Core::new().ask(POD_V6, own);
        assert_eq!((fate, actions.len()), (Fate::Absorbed, 1), "{own}: learnt");
    }
}

/// Who asks by unicast need not say where it is; a group's Ethernet address would not reach it.
#[test]
fn a_solicitation_without_its_senders_address_is_answered_to_the_station() {
    let mut core = Core::new();
    let message = NeighbourMessage {
        kind: NeighbourKind::Solicitation,
        source: POD_V6,
        destination: GATEWAY_V6,
        target: GATEWAY_V6,
        link_address: None,
    };
    let mut packet = vec![0; 200];
    let length = message.write(&mut packet);
    packet.truncate(length);
    let (fate, actions) = core.handle(WORKLOAD, Punt::NeighbourDiscovery, packet.clone());
    assert_eq!(fate, Fate::Absorbed);
    let frame = transmitted(&actions, WORKLOAD);
    assert_eq!(frame[..6], POD_MAC.0);
    advertisement(frame, GATEWAY_V6, POD_V6);
    // Where it is not known, nothing is sent to nobody.
    core.snapshot.adjacencies.clear();
    let result = core.handle(WORKLOAD, Punt::NeighbourDiscovery, packet);
    assert_eq!(result, (NOT_ANSWERED, vec![]));
}

#[test]
fn duplicate_address_detection_finds_the_gateways_address_only() {
    let nobody = Ipv6Addr::UNSPECIFIED;
    let (_, actions) = Core::new().ask(nobody, GATEWAY_V6);
    let frame = transmitted(&actions, WORKLOAD);
    let (header, _) = advertisement(frame, GATEWAY_V6, "ff02::1".parse().unwrap());
    assert!(!header.solicited);
    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
    for free in [POD_V6, FAR_VXLAN_V6, "fe80::2".parse().unwrap()] {
        let result = Core::new().ask(nobody, free);
        assert_eq!(result, (Fate::Absorbed, vec![]), "{free}");
    }
}

#[test]
fn a_solicitation_that_is_spoofed_wrong_or_from_elsewhere_does_nothing() {
    let spoofed = Core::new().ask(FAR_VXLAN_V6, GATEWAY_V6);
    let dropped = Fate::Dropped(DropReason::SpoofedSource);
    assert_eq!(spoofed, (dropped, vec![]));
    let good = solicitation(POD_V6, GATEWAY_V6);
    let mut forwarded = good.clone();
    forwarded[7] = 254;
    let mut damaged = good.clone();
    damaged[50] ^= 1;
    for (port, packet) in [
        (WORKLOAD, forwarded),
        (WORKLOAD, damaged),
        (WORKLOAD, good[..60].to_vec()),
        (UPLINK, good.clone()),
        (HOST, good),
    ] {
        let result = Core::new().handle(port, Punt::NeighbourDiscovery, packet);
        assert_eq!(result, (NOT_ANSWERED, vec![]));
    }
}

// Echo.

#[test]
fn an_echo_request_gets_scapys_reply() {
    for name in ["icmp_echo", "icmpv6_echo"] {
        let golden = Golden::load(name);
        let (fate, actions) =
            Core::new().handle(WORKLOAD, Punt::ToRouter, golden.packet("request"));
        let reply = vec![Action::Originate(golden.packet("reply"))];
        assert_eq!((fate, actions), (Fate::Absorbed, reply), "{name}");
    }
}

#[test]
fn an_echo_request_to_the_gateway_is_answered_and_nothing_else_is() {
    let ping = |kind: Icmpv4Type| {
        let builder = PacketBuilder::ipv4(POD.octets(), GATEWAY.octets(), 64);
        written(builder.icmpv4(kind), b"ping")
    };
    let echo = etherparse::IcmpEchoHeader { id: 7, seq: 8 };
    let request = ping(Icmpv4Type::EchoRequest(echo));
    let (fate, actions) = Core::new().handle(WORKLOAD, Punt::ToRouter, request.clone());
    assert_eq!(fate, Fate::Absorbed);
    let (ip, icmp, payload) = icmp_of(originated(&actions)[0]);
    assert_eq!(
        (ip.source, ip.destination),
        (GATEWAY.octets(), POD.octets())
    );
    assert_eq!(icmp.icmp_type, Icmpv4Type::EchoReply(echo));
    assert_eq!(payload, b"ping");

    let mut damaged = request.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let tcp = PacketBuilder::ipv4(POD.octets(), GATEWAY.octets(), 64).tcp(1, 80, 2, 1024);
    for packet in [
        ping(Icmpv4Type::EchoReply(echo)),
        damaged,
        written(tcp, b""),
        request[..10].to_vec(),
        vec![],
    ] {
        let result = Core::new().handle(WORKLOAD, Punt::ToRouter, packet);
        assert_eq!(result, (NOT_ANSWERED, vec![]));
    }
}

/// As `ping -s 3000` sends it; the answer, too, comes in pieces that any link takes.
#[test]
fn an_echo_request_in_fragments_is_answered() {
    let words: Vec<u8> = (0..3000_u32).map(|n| (n * 7) as u8).collect();
    let echo = etherparse::IcmpEchoHeader { id: 7, seq: 8 };
    let v4 = PacketBuilder::ipv4(POD.octets(), GATEWAY.octets(), 64).icmpv4_echo_request(7, 8);
    let mut request = written(v4, &words);
    rewrite(&mut request, |header| {
        header.dont_fragment = false;
        header.identification = 77;
    });
    let mut core = Core::new();
    let (_, pieces) = core.handle(WORKLOAD, Punt::TooBig(Mtu(1500)), request);
    let pieces: Vec<Vec<u8>> = originated(&pieces).into_iter().map(Vec::from).collect();
    assert_eq!(pieces.len(), 3);
    let mut answers = Vec::new();
    for (nth, piece) in pieces.into_iter().rev().enumerate() {
        let (fate, actions) = core.handle(WORKLOAD, Punt::ToRouter, piece);
        assert_eq!(fate, if nth < 2 { Fate::Waits } else { Fate::Absorbed });
        answers.extend(actions);
    }
    assert_eq!(core.tick().0, [Fate::Absorbed; 2]);
    let answers = originated(&answers);
    assert!(answers.iter().all(|piece| piece.len() <= 1280));
    let (header, message) = etherparse::Icmpv4Header::from_slice(&reassembled(&answers))
        .map(|(header, message)| (header, message.to_vec()))
        .unwrap();
    assert_eq!(
        (header.icmp_type, message),
        (Icmpv4Type::EchoReply(echo), words)
    );
}

/// The same over IPv6, where what goes out is not cut up on its way to a link of less than it came in by.
#[test]
fn an_ipv6_echo_request_in_fragments_is_answered_in_fragments() {
    let builder = PacketBuilder::ipv6(POD_V6.octets(), GATEWAY_V6.octets(), 64);
    let request = written(builder.icmpv6_echo_request(7, 8), &[5; 1430]);
    let (header, payload) = request.split_at(40);
    let mut core = Core::new();
    let mut answers = Vec::new();
    for (at, more, part) in [(0_u16, 1, &payload[..1208]), (1208, 0, &payload[1208..])] {
        let mut piece = header.to_vec();
        piece[4..6].copy_from_slice(&(part.len() as u16 + 8).to_be_bytes());
        piece[6] = 44;
        let word = (at | more).to_be_bytes();
        piece.extend([58, 0, word[0], word[1], 0, 0, 0, 9]);
        piece.extend_from_slice(part);
        answers.extend(core.handle(WORKLOAD, Punt::ToRouter, piece).1);
    }
    let answers = originated(&answers);
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|piece| piece.len() <= 1280));
    let answer = reassembled(&answers);
    assert_eq!((answer[0], &answer[8..]), (129, &[5; 1430][..]));
}

#[test]
fn a_fragment_in_a_fragment_is_for_nobody() {
    let mut packet = vec![0x60, 0, 0, 0, 0, 24, 44, 64];
    packet.extend(POD_V6.octets());
    packet.extend(GATEWAY_V6.octets());
    // Three fragment headers, each of a whole packet.
    for _ in 0..3 {
        packet.extend([44, 0, 0, 0, 0, 0, 0, 7]);
    }
    let result = Core::new().handle(WORKLOAD, Punt::ToRouter, packet);
    assert_eq!(result, (Fate::Dropped(DropReason::OuterFragment), vec![]));
}

// Errors.

#[test]
fn errors_are_what_scapy_makes_of_the_same_packets() {
    let mtu = Mtu(1430);
    let cases = [
        ("icmp_net_unreachable", Punt::NoRoute),
        ("icmp_host_unreachable", Punt::Blackhole),
        ("icmp_time_exceeded", Punt::TtlExpired),
        ("icmpv6_no_route", Punt::NoRoute),
        ("icmpv6_time_exceeded", Punt::TtlExpired),
        ("icmpv6_packet_too_big", Punt::TooBig(mtu)),
    ];
    for (name, punt) in cases {
        let golden = Golden::load(name);
        let (fate, actions) = Core::new().handle(WORKLOAD, punt, golden.packet("original"));
        assert_eq!(fate, Fate::Dropped(punt.drop_reason()), "{name}");
        let error = vec![Action::Originate(golden.packet("packet"))];
        assert_eq!(actions, error, "{name}");
    }
}

#[test]
fn fragmentation_needed_names_the_mtu_when_df_is_set() {
    let mut packet = udp(POD, FAR_IPIP, 64, &[7; 1460]);
    rewrite(&mut packet, |header| header.dont_fragment = true);
    let (fate, actions) = Core::new().handle(WORKLOAD, Punt::TooBig(Mtu(1480)), packet.clone());
    assert_eq!(fate, Fate::Dropped(DropReason::TooBig));
    let (ip, icmp, quoted) = icmp_of(originated(&actions)[0]);
    assert_eq!((ip.source, ip.destination), (NODE.octets(), POD.octets()));
    let expected = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1480 };
    assert_eq!(icmp.icmp_type, Icmpv4Type::DestinationUnreachable(expected));
    assert_eq!(quoted, &packet[..quoted.len()]);
    assert!((packet.len().min(28)..=548).contains(&quoted.len()));
}

#[test]
fn a_datagram_to_the_router_finds_no_port() {
    let packet = udp(POD, NODE, 1, b"traceroute");
    let (fate, actions) = Core::new().handle(WORKLOAD, Punt::ToRouter, packet.clone());
    assert_eq!(fate, Fate::Absorbed);
    let (_, icmp, quoted) = icmp_of(originated(&actions)[0]);
    let expected = icmpv4::DestUnreachableHeader::Port;
    assert_eq!(icmp.icmp_type, Icmpv4Type::DestinationUnreachable(expected));
    assert_eq!(quoted, packet);

    // With a wrong checksum it is for nobody.
    let mut damaged = packet.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let result = Core::new().handle(WORKLOAD, Punt::ToRouter, damaged);
    assert_eq!(result, (NOT_ANSWERED, vec![]));

    let packet = udp6(POD_V6, "fd00:30::11".parse().unwrap(), 1, b"traceroute");
    let mut without = packet.clone();
    without[46..48].fill(0);
    let result = Core::new().handle(WORKLOAD, Punt::ToRouter, without);
    assert_eq!(result, (NOT_ANSWERED, vec![]), "IPv6 has none without");
    let (fate, actions) = Core::new().handle(WORKLOAD, Punt::ToRouter, packet);
    assert_eq!(fate, Fate::Absorbed);
    let expected = icmpv6::DestUnreachableCode::Port;
    assert_eq!(
        icmpv6_type(originated(&actions)[0]),
        Icmpv6Type::DestinationUnreachable(expected)
    );
}

#[test]
fn no_error_is_sent_about_what_must_not_be_answered() {
    let error = |kind| {
        written(
            PacketBuilder::ipv4(POD.octets(), [192, 168, 9, 9], 64).icmpv4(kind),
            &udp([192, 168, 9, 9].into(), POD, 1, b"quoted"),
        )
    };
    let with = |change: &dyn Fn(&mut Ipv4Header)| {
        let mut packet = udp(POD, [192, 168, 9, 9].into(), 64, &[0; 64]);
        rewrite(&mut packet, change);
        packet
    };
    let port = icmpv4::DestUnreachableHeader::Port;
    let ttl = icmpv4::TimeExceededCode::TtlExceededInTransit;
    let pointer = icmpv4::ParameterProblemHeader::PointerIndicatesError(0);
    let v6_error = {
        let builder = PacketBuilder::ipv6(
            POD_V6.octets(),
            "fd00:9::9".parse::<Ipv6Addr>().unwrap().octets(),
            64,
        )
        .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1300 });
        written(builder, b"quoted")
    };
    let silent: Vec<(&str, Vec<u8>)> = vec![
        (
            "unreachable",
            error(Icmpv4Type::DestinationUnreachable(port)),
        ),
        ("exceeded", error(Icmpv4Type::TimeExceeded(ttl))),
        ("problem", error(Icmpv4Type::ParameterProblem(pointer))),
        (
            "quench",
            error(Icmpv4Type::Unknown {
                type_u8: 4,
                code_u8: 0,
                bytes5to8: [0; 4],
            }),
        ),
        (
            "redirect",
            error(Icmpv4Type::Redirect(icmpv4::RedirectHeader {
                code: icmpv4::RedirectCode::RedirectForHost,
                gateway_internet_address: GATEWAY.octets(),
            })),
        ),
        (
            "later fragment",
            with(&|h| h.fragment_offset = 8.try_into().unwrap()),
        ),
        ("to a group", with(&|h| h.destination = [224, 0, 0, 9])),
        ("to all", with(&|h| h.destination = [255; 4])),
        ("from a group", with(&|h| h.source = [224, 0, 0, 9])),
        ("from all", with(&|h| h.source = [255; 4])),
        ("from nobody", with(&|h| h.source = [0; 4])),
        ("from loopback", with(&|h| h.source = [127, 0, 0, 1])),
        ("ICMPv6 error", v6_error),
        (
            "IPv6 group",
            udp6(POD_V6, "ff0e::9".parse().unwrap(), 64, b""),
        ),
        (
            "IPv6 nobody",
            udp6(Ipv6Addr::UNSPECIFIED, FAR_VXLAN_V6, 64, b""),
        ),
        ("no packet", b"x".to_vec()),
    ];
    for (name, packet) in silent {
        for punt in [Punt::NoRoute, Punt::Blackhole, Punt::TtlExpired] {
            let result = Core::new().handle(WORKLOAD, punt, packet.clone());
            let dropped = Fate::Dropped(punt.drop_reason());
            assert_eq!(result, (dropped, vec![]), "{name}");
        }
    }
    let echo = etherparse::IcmpEchoHeader { id: 7, seq: 8 };
    for packet in [
        error(Icmpv4Type::EchoRequest(echo)),
        with(&|h| h.more_fragments = true),
    ] {
        let (_, actions) = Core::new().handle(WORKLOAD, Punt::TtlExpired, packet);
        assert_eq!(originated(&actions).len(), 1);
    }
}

#[test]
fn a_source_is_told_ten_times_at_once_and_ten_times_a_second() {
    let mut core = Core::new();
    let told = |core: &mut Core, source: Ipv4Addr, times: usize| {
        (0..times)
            .filter(|_| {
                let packet = udp(source, FAR_IPIP, 1, b"");
                let (fate, actions) = core.handle(WORKLOAD, Punt::TtlExpired, packet);
                assert_eq!(fate, Fate::Dropped(DropReason::TtlExpired));
                !actions.is_empty()
            })
            .count()
    };
    assert_eq!(told(&mut core, POD, 100), 10);
    assert_eq!(told(&mut core, OTHER_POD, 100), 10);
    core.now += Duration::from_secs(1);
    assert_eq!(told(&mut core, POD, 100), 10);
    core.now += Duration::from_millis(300);
    assert_eq!(told(&mut core, POD, 100), 3);
    core.now += Duration::from_millis(900);
    assert_eq!(told(&mut core, POD, 100), 9);
    core.now += Duration::from_secs(3600);
    assert_eq!(told(&mut core, POD, 100), 10, "an hour saves nothing up");
}

#[test]
fn all_sources_together_are_told_a_thousand_times_a_second() {
    let mut core = Core::new();
    let mut told = 0;
    for number in 0..50_000 {
        let source = Ipv4Addr::from_bits(0x0a00_0000 + number);
        let packet = udp(source, FAR_IPIP, 1, b"");
        let (_, actions) = core.handle(UPLINK, Punt::TtlExpired, packet);
        told += actions.len();
    }
    assert_eq!(told, 1000);
    core.now += Duration::from_secs(1);
    let late = udp(POD, FAR_IPIP, 1, b"");
    let (_, actions) = core.handle(UPLINK, Punt::TtlExpired, late);
    assert_eq!(actions.len(), 1, "the flood is over");
}

#[test]
fn a_port_unreachable_beyond_the_limit_is_a_drop() {
    let mut core = Core::new();
    let fates: Vec<Fate> = (0..12)
        .map(|_| {
            core.handle(WORKLOAD, Punt::ToRouter, udp(POD, NODE, 9, b""))
                .0
        })
        .collect();
    assert_eq!(fates[..10], [Fate::Absorbed; 10]);
    assert_eq!(fates[10..], [Fate::Dropped(DropReason::RateLimited); 2]);
}

proptest! {
    /// Whatever comes, for whatever reason, when: each packet ends once, and nothing panics.
    #[test]
    fn every_packet_ends_exactly_once(steps in proptest::collection::vec(step(), 1..200)) {
        let mut core = Core::new();
        let (mut given, mut ended) = (0, 0);
        for step in steps {
            core.now += Duration::from_millis(step.pause);
            core.snapshot.adjacencies[9] = if step.resolved {
                Adjacency::Unreachable
            } else {
                Adjacency::Unresolved
            };
            given += 1;
            let (fate, _) = core.handle(PortId(step.port), step.punt, step.packet);
            ended += usize::from(fate != Fate::Waits);
            ended += core.tick().0.len();
        }
        ended += core.core.stop().len();
        prop_assert_eq!(given, ended);
    }
}

#[derive(Debug)]
struct Step {
    punt: Punt,
    port: u16,
    packet: Vec<u8>,
    pause: u64,
    resolved: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let punts = vec![
        Punt::Arp,
        Punt::NeighbourDiscovery,
        Punt::Dhcp,
        Punt::ToRouter,
        Punt::NoRoute,
        Punt::Blackhole,
        Punt::TtlExpired,
        Punt::TooBig(Mtu(0)),
        Punt::TooBig(Mtu(68)),
        Punt::TooBig(Mtu(1400)),
        Punt::Unresolved(UNKNOWN),
        Punt::Unresolved(NextHop(u32::MAX)),
    ];
    let good = vec![
        vec![],
        udp(POD, FAR_IPIP, 64, &[0; 700]),
        udp6(POD_V6, FAR_VXLAN_V6, 64, b"x"),
        solicitation(POD_V6, GATEWAY_V6),
        arp_request(POD, GATEWAY),
    ];
    let bytes = proptest::collection::vec(any::<u8>(), 0..80);
    (
        prop::sample::select(punts),
        0..5_u16,
        prop::sample::select(good),
        bytes,
        0..2000_u64,
        any::<bool>(),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(punt, port, mut packet, bytes, pause, resolved, at)| {
            // A good packet, its end replaced by anything.
            packet.truncate(at.index(packet.len() + 1));
            packet.extend(bytes);
            Step {
                punt,
                port,
                packet,
                pause,
                resolved,
            }
        })
}

/// The slow path of the node on paper, and its time.
struct Core {
    core: SlowPath,
    snapshot: Snapshot,
    now: Instant,
}

impl Core {
    fn new() -> Self {
        let mut snapshot = snapshot();
        snapshot.router.v6 = "fd00:30::11".parse().unwrap();
        Self {
            core: SlowPath::default(),
            snapshot,
            now: Instant::now(),
        }
    }

    fn handle(&mut self, ingress: PortId, punt: Punt, packet: Vec<u8>) -> (Fate, Vec<Action>) {
        self.handle_of(Some(ingress), punt, packet)
    }

    /// As of what the router sent itself.
    fn handle_own(&mut self, punt: Punt, packet: Vec<u8>) -> (Fate, Vec<Action>) {
        self.handle_of(None, punt, packet)
    }

    fn handle_of(
        &mut self,
        ingress: Option<PortId>,
        punt: Punt,
        packet: Vec<u8>,
    ) -> (Fate, Vec<Action>) {
        let punted = Punted {
            ingress,
            punt,
            packet,
        };
        let mut actions = Vec::new();
        let fate = self
            .core
            .handle(self.now, &self.snapshot, punted, &mut actions);
        (fate, actions)
    }

    fn wait(&mut self, ingress: PortId, next_hop: NextHop, packet: Vec<u8>) -> (Fate, Vec<Action>) {
        self.handle(ingress, Punt::Unresolved(next_hop), packet)
    }

    /// A workload asks for a neighbour.
    fn ask(&mut self, source: Ipv6Addr, target: Ipv6Addr) -> (Fate, Vec<Action>) {
        let packet = solicitation(source, target);
        self.handle(WORKLOAD, Punt::NeighbourDiscovery, packet)
    }

    fn tick(&mut self) -> (Vec<Fate>, Vec<Action>) {
        let mut actions = Vec::new();
        let fates = self.core.tick(self.now, &self.snapshot, &mut actions);
        (fates, actions)
    }

    fn resolve(&mut self, next_hop: NextHop) {
        let known = self.snapshot.adjacencies[1].clone();
        self.snapshot.adjacencies[next_hop.0 as usize] = known;
    }
}

/// A neighbour solicitation as a workload sends it, made by etherparse.
fn solicitation(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&target.octets()[13..]);
    let mut body = target.octets().to_vec();
    if !source.is_unspecified() {
        body.extend([1, 1]);
        body.extend(POD_MAC.0);
    }
    let builder = PacketBuilder::ipv6(source.octets(), group, 255);
    written(builder.icmpv6(Icmpv6Type::NeighborSolicitation), &body)
}

/// The advertisement in a frame: its header, and its options behind the target.
fn advertisement(
    frame: &[u8],
    target: Ipv6Addr,
    to: Ipv6Addr,
) -> (icmpv6::NeighborAdvertisementHeader, &[u8]) {
    assert_eq!(frame[6..12], MacAddr::WORKLOAD_GATEWAY.0);
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv6(ip)) = &sliced.net else {
        panic!("{sliced:?}")
    };
    let header = ip.header();
    assert_eq!(header.hop_limit(), 255);
    assert_eq!(header.destination_addr(), to);
    let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else {
        panic!("no ICMPv6")
    };
    assert!(icmp.is_checksum_valid(header.source(), header.destination()));
    let Icmpv6Type::NeighborAdvertisement(flags) = icmp.icmp_type() else {
        panic!("{:?}", icmp.icmp_type())
    };
    let body = &frame[14 + 40 + 8..];
    assert_eq!(body[..16], target.octets());
    (flags, &body[16..])
}

fn transmitted(actions: &[Action], by: PortId) -> &[u8] {
    match actions {
        [Action::Transmit(port, frame)] if *port == by => frame,
        _ => panic!("not one frame by {by:?}: {actions:?}"),
    }
}

fn originated(actions: &[Action]) -> Vec<&[u8]> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Originate(packet) => Some(packet.as_slice()),
            _ => None,
        })
        .collect()
}

fn icmp_of(packet: &[u8]) -> (Ipv4Header, Icmpv4Header, &[u8]) {
    let (ip, rest) = Ipv4Header::from_slice(packet).unwrap();
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    assert_eq!(usize::from(ip.total_len), packet.len());
    let (icmp, payload) = Icmpv4Header::from_slice(rest).unwrap();
    assert_eq!(icmp.icmp_type.calc_checksum(payload), icmp.checksum);
    (ip, icmp, payload)
}

fn icmpv6_type(packet: &[u8]) -> Icmpv6Type {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    match sliced.transport {
        Some(TransportSlice::Icmpv6(icmp)) => icmp.icmp_type(),
        other => panic!("{other:?}"),
    }
}

/// etherparse puts fragments together again.
fn reassembled(fragments: &[&[u8]]) -> Vec<u8> {
    let mut pool = IpDefragPool::<(), ()>::new();
    let mut whole = None;
    for fragment in fragments {
        let sliced = SlicedPacket::from_ip(fragment).unwrap();
        whole = whole.or(pool.process_sliced_packet(&sliced, (), ()).unwrap());
    }
    whole.expect("all fragments are there").payload
}

fn hop_less(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    rewrite(&mut packet, |header| header.time_to_live -= 1);
    packet
}

fn written<T: Build>(builder: etherparse::PacketBuilderStep<T>, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    T::write(builder, &mut packet, payload);
    packet
}

/// etherparse's last steps have `write` each, but no trait for it.
trait Build: Sized {
    fn write(builder: etherparse::PacketBuilderStep<Self>, out: &mut Vec<u8>, payload: &[u8]);
}

macro_rules! build {
    ($($header:ty),+) => {
        $(impl Build for $header {
            fn write(builder: etherparse::PacketBuilderStep<Self>, out: &mut Vec<u8>, payload: &[u8]) {
                builder.write(out, payload).unwrap();
            }
        })+
    };
}

build!(
    etherparse::Icmpv4Header,
    etherparse::Icmpv6Header,
    etherparse::TcpHeader
);
