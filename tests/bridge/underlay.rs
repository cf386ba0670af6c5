//! What the underlay says of a bridge's packets, and paths that are narrower than the uplink.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use etherparse::icmpv6::{DestUnreachableCode, TimeExceededCode};
use etherparse::{Icmpv6Type, PacketBuilder};
use underpass::forward::{
    Bridge, Bridges, Egress, Punt, Remote, Remotes, TunnelHeaderV6, Verdict, WorkerState, deliver,
};
use underpass::packet::{DropReason, Frame, HEADROOM};
use underpass::wire::{MacAddr, Mtu, Vni};
use underpass::worker::slow_path::{Action, Event, Fate, Punted, SlowPath};

use crate::common::over_ipv6::*;
use crate::common::*;
use crate::harness::*;
use crate::paper::*;
use crate::workers::rig;

const STATIONS_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 3),
];

/// The bridge on Flannel's port, its remotes over IPv6, the first behind a path of that many bytes.
fn over_v6(path: u16, change: impl FnOnce(&mut Bridge)) -> Paper {
    let mut paper = Paper::with(|bridge| {
        bridge.udp_port = 8472;
        let remote = |far_end, path| Some(to_v6(far_end, path));
        bridge.remotes = Remotes::new(vec![remote(FAR_NODE_V6, path), remote(THIRD_V6, 1500)]);
        change(bridge);
    });
    paper.snapshot.tunnels.v6 = over_ipv6(false).tunnels.v6;
    paper
}

/// A remote that is no node of the cluster.
const THIRD_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0x13);

fn to_v6(far_end: Ipv6Addr, path: u16) -> Remote {
    let none = MacAddr::default();
    let tunnel = TunnelHeaderV6 {
        source: NODE_V6,
        far_end,
        vxlan: (Vni::new(77).unwrap(), 8472, none, none),
        zero_checksum: false,
    };
    let mtu = Mtu(path - 70);
    let way = Egress::tunnel_v6(UPLINK, mtu, UPLINK_MAC, FAR_UPLINK_MAC, &tunnel);
    Remote {
        address: IpAddr::V6(far_end),
        egress: Some(way.for_frames()),
    }
}

/// A frame from Alice to Carol with that much IPv6 in it.
fn ipv6_of(length: usize) -> Vec<u8> {
    let [alices, carols] = STATIONS_V6;
    let packet = udp6(alices, carols, 64, &vec![7; length - 48]);
    assert_eq!(packet.len(), length);
    ethernet(ALICE, CAROL, &packet)
}

/// What the node sends to a remote for it, from the outer IP header on.
fn sent(paper: &Paper, number: u16, frame: &[u8]) -> Vec<u8> {
    let mut copy = Frame::leak(2048, HEADROOM);
    assert!(copy.fill(frame, HEADROOM));
    let (snapshot, mut state) = (&paper.snapshot, WorkerState::new(0, 1));
    let verdict = deliver(snapshot, &mut state, TENANTS, remote(number), &mut copy);
    assert_eq!(verdict, Verdict::Transmit(UPLINK));
    copy.bytes()[14..].to_vec()
}

/// What the node makes of what a router says about its packet.
fn heard(paper: &Paper, kind: Icmpv6Type, quoted: &[u8]) -> (Fate, Vec<Action>) {
    heeded(paper, &error_v6(MIDDLE, kind, quoted))
}

/// What the node makes of an error that comes by the uplink.
fn heeded(paper: &Paper, error: &[u8]) -> (Fate, Vec<Action>) {
    let (verdict, packet) = paper.receive(UPLINK, &from_uplink(error));
    assert_eq!(verdict, Verdict::Punt(Punt::TunnelError));
    let punted = Punted {
        ingress: Some(UPLINK),
        punt: Punt::TunnelError,
        packet,
    };
    let mut actions = Vec::new();
    let (mut path, now) = (SlowPath::default(), Instant::now());
    let fate = path.handle(now, &paper.snapshot, punted, &mut actions);
    (fate, actions)
}

/// Over IPv6 nobody on the way fragments: the path MTU is learnt, whether or not the far end is a node of
/// the cluster. The sender within is told by its next frame.
#[test]
fn a_narrow_link_is_learnt_from_an_error_about_a_bridged_packet() {
    let paper = over_v6(1500, |_| ());
    let too_big = Icmpv6Type::PacketTooBig { mtu: 1400 };
    for (number, far_end) in [(0, FAR_NODE_V6), (1, THIRD_V6)] {
        let outer = sent(&paper, number, &ipv6_of(1400));
        // As much as an error quotes, and as little as one may.
        for length in [1232, 48] {
            let news = Event::PathMtu(far_end.into(), Mtu(1400));
            let result = heard(&paper, too_big, &outer[..length]);
            assert_eq!(result, (Fate::Absorbed, vec![Action::Tell(news)]));
        }
    }
}

/// A bridge is no router: about frames that do not arrive it has nothing to say.
#[test]
fn what_a_bridged_packet_did_not_reach_is_told_to_nobody() {
    let paper = over_v6(1500, |_| ());
    let outer = sent(&paper, 0, &ipv6_of(100));
    for kind in [
        Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Port),
        Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded),
    ] {
        assert_eq!(heard(&paper, kind, &outer), (Fate::Absorbed, vec![]));
    }
}

#[test]
fn errors_about_what_no_bridge_sends_convince_nobody() {
    let paper = over_v6(1500, |_| ());
    let too_big = |mtu| Icmpv6Type::PacketTooBig { mtu };
    let outer = sent(&paper, 0, &ipv6_of(1400));
    let with = |at: usize, bytes: &[u8]| {
        let mut quoted = outer.clone();
        quoted[at..at + bytes.len()].copy_from_slice(bytes);
        quoted.truncate(1232);
        quoted
    };
    let invalid = (Fate::Dropped(DropReason::InvalidQuote), vec![]);
    for (what, mtu, quoted) in [
        ("to a stranger", 1400, with(24, &STRANGER_V6.octets())),
        ("another network", 1400, with(52, &[0, 0, 78])),
        ("the routed network's", 1400, with(52, &[0, 16, 0])),
        ("a low source port", 1400, with(40, &[0, 53])),
        ("it would have fitted", 1500, with(0, &[0x60])),
        ("less than any link has", 1279, with(0, &[0x60])),
    ] {
        assert_eq!(heard(&paper, too_big(mtu), &quoted), invalid, "{what}");
    }
    // A stranger to which too little is quoted to say of which network.
    let mut least = with(24, &STRANGER_V6.octets());
    least.truncate(48);
    assert_eq!(heard(&paper, too_big(1400), &least), invalid);
}

/// A short quotation on the port that routed packets have too is of the bridge that has that remote.
#[test]
fn a_short_quotation_on_the_routed_port_is_of_the_bridge_that_has_the_remote() {
    let mut paper = over_v6(1500, |bridge| bridge.udp_port = 4789);
    paper.snapshot.tunnels.vxlan_port = 4789;
    let mut outer = sent(&paper, 1, &ipv6_of(1400));
    outer[42..44].copy_from_slice(&4789_u16.to_be_bytes());
    let too_big = Icmpv6Type::PacketTooBig { mtu: 1400 };
    let news = Event::PathMtu(THIRD_V6.into(), Mtu(1400));
    let result = heard(&paper, too_big, &outer[..48]);
    assert_eq!(result, (Fate::Absorbed, vec![Action::Tell(news)]));
}

/// Over IPv4 a bridge's packets may be fragmented, so that no router complains of their size.
#[test]
fn an_error_over_ipv4_about_a_bridged_packets_size_is_forged() {
    let paper = Paper::new();
    let mut quoted = vxlan(FAR_NODE, [8, 0, 0, 0, 0, 0, 77, 0], &ipv6_of(1400));
    let (mut header, _) = etherparse::Ipv4Header::from_slice(&quoted).unwrap();
    (header.source, header.destination) = (NODE.octets(), FAR_NODE.octets());
    (header.dont_fragment, header.identification) = (true, 0);
    header.header_checksum = header.calc_header_checksum();
    quoted[..20].copy_from_slice(&header.to_bytes());
    let too_big =
        etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 576 };
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 30, 0, 254], NODE.octets(), 60)
        .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(too_big))
        .write(&mut packet, &quoted[..548])
        .unwrap();
    let invalid = (Fate::Dropped(DropReason::InvalidQuote), vec![]);
    assert_eq!(heeded(&paper, &packet), invalid);
}

/// Nor may a workload say so, nor send into a bridge: where the node's address becomes its packet's, the
/// far end would believe it.
#[test]
fn a_workload_has_no_part_in_a_bridges_tunnels() {
    let refused = Verdict::Drop(DropReason::TunnelFromWorkload);
    let mut paper = over_v6(1500, |_| ());
    let outer = sent(&paper, 0, &ipv6_of(1400));
    let too_big = Icmpv6Type::PacketTooBig { mtu: 1400 };
    let forged = error_v6(POD_V6, too_big, &outer[..1200]);
    let mut tunnels = Vec::new();
    for port in [8472, 8473] {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        PacketBuilder::ipv4(POD.octets(), FAR_NODE.octets(), 64)
            .udp(50000, port)
            .write(&mut v4, &[8, 0, 0, 0, 0, 0, 77, 0])
            .unwrap();
        PacketBuilder::ipv6(POD_V6.octets(), FAR_NODE_V6.octets(), 64)
            .udp(50000, port)
            .write(&mut v6, &[8, 0, 0, 0, 0, 0, 77, 0])
            .unwrap();
        tunnels.extend([v4, v6]);
    }
    let fate = |paper: &Paper, packet: &[u8]| paper.receive(WORKLOAD, &from_pod(packet)).0;
    assert_eq!(fate(&paper, &forged), refused);
    for packet in &tunnels[..2] {
        assert_eq!(fate(&paper, packet), refused);
    }
    for packet in &tunnels[2..] {
        assert_ne!(fate(&paper, packet), refused, "nobody's port");
    }
    paper.snapshot.tunnels.from_workloads.vxlan = true;
    assert_ne!(fate(&paper, &tunnels[0]), refused, "if it is trusted to");
    paper.snapshot.bridges = Bridges::default();
    paper.snapshot.tunnels.from_workloads.vxlan = false;
    assert_ne!(fate(&paper, &tunnels[0]), refused, "without a bridge");
}

/// No station sends less than 1280 bytes of IPv6 because somebody asks it to (RFC 8200 section 5).
#[test]
fn ipv6_of_1280_bytes_crosses_a_bridges_narrow_path_in_fragments_outside() {
    let paper = over_v6(1280, |bridge| {
        bridge.stations.insert(CAROL, remote(0));
    });
    let (verdict, _) = paper.receive(ALICES, &ipv6_of(1280));
    assert_eq!(verdict, Verdict::Punt(Punt::CutOutside(UPLINK, Mtu(1280))));
    let (verdict, held) = paper.receive(ALICES, &ipv6_of(1281));
    assert_eq!(verdict, Verdict::Punt(Punt::BridgedTooBig(Mtu(1210))));
    assert_eq!(held, ipv6_of(1281), "as it came");
    // Flooded: the copies for Bob's port, one remote and the other, which is two pieces.
    let rig = rig(over_v6(1280, |_| ()), 64);
    let sent = ipv6_of(1280);
    rig.inject(ALICES, &sent);
    wait_until("all messages", || rig.balance().originated == 4);
    rig.settle();
    assert_eq!(rig.wire(BOBS).sent(), std::slice::from_ref(&sent));
    let out = rig.wire(UPLINK).sent();
    let (whole, pieces): (Vec<_>, Vec<_>) = out.iter().partition(|frame| frame[20] == 17);
    assert_eq!((whole.len(), pieces.len()), (1, 2));
    assert_eq!(whole[0][38..54], THIRD_V6.octets());
    assert_eq!(whole[0][70..], sent);
    let mut pool = etherparse::defrag::IpDefragPool::<(), ()>::new();
    let mut together = None;
    for piece in pieces {
        assert!(piece.len() <= 14 + 1280);
        assert_eq!(piece[38..54], FAR_NODE_V6.octets());
        let sliced = etherparse::SlicedPacket::from_ethernet(piece).unwrap();
        together = pool.process_sliced_packet(&sliced, (), ()).unwrap();
    }
    assert_eq!(together.expect("all pieces").payload[16..], sent);
    assert!(rig.wire(ALICES).sent().is_empty(), "nobody is told");
    assert_eq!(rig.balance().dropped, 0);
}
