//! Frames too large for a tunnel, from the port by which they come in to all that becomes of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use underpass::forward::Remotes;
use underpass::packet::DropReason;
use underpass::wire::MacAddr;

use crate::answers::large;
use crate::common::*;
use crate::harness::*;
use crate::paper::*;
use crate::workers::rig;

/// Waits until so many packets were made here, and all have ended.
fn settled(rig: &Rig, originated: u64) {
    wait_until("all messages", || rig.balance().originated == originated);
    rig.settle();
    assert_eq!(rig.balance().originated, originated);
}

/// What an ICMP error about a packet too large names, and whom it comes from.
fn told(frame: &[u8]) -> (Ipv4Addr, u16) {
    assert_eq!(frame[..6], ALICE.0);
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) =
        (&sliced.net, &sliced.transport)
    else {
        panic!("not ICMP: {sliced:?}");
    };
    let Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
        next_hop_mtu,
    }) = icmp.icmp_type()
    else {
        panic!("not too big: {sliced:?}");
    };
    (ip.header().source_addr(), next_hop_mtu)
}

/// A station that is not known, or never is: the ports have its frames once, its sender hears once why no
/// remote has them.
#[test]
fn the_sender_of_a_flooded_frame_too_large_is_told_once() {
    for paper in [Paper::new(), Paper::with(|bridge| bridge.learning = false)] {
        let rig = rig(paper, 64);
        let packet = large(64, true);
        let sent = ethernet(ALICE, NOBODY, &packet);
        rig.inject(ALICES, &sent);
        // Two copies, and what is told.
        settled(&rig, 3);
        assert_eq!(rig.wire(BOBS).sent(), [sent]);
        assert!(rig.wire(UPLINK).sent().is_empty());
        let [answer] = &rig.wire(ALICES).sent()[..] else {
            panic!("not told once");
        };
        assert_eq!(answer[6..12], NOBODY.0);
        let receiver = Ipv4Addr::from_octets(packet[16..20].try_into().unwrap());
        assert_eq!(told(answer), (receiver, 1450));
        assert_eq!(rig.drops(DropReason::TooBig), 2);
        assert_eq!(rig.balance().dropped, 2);
    }
}

/// The remotes with wider paths have the frame as it is; what is named fits all of them.
#[test]
fn a_flooded_frame_reaches_the_remotes_that_it_fits() {
    let paper = Paper::with(|bridge| {
        let remotes = [(FAR_NODE, 1500), (THIRD_NODE, 1350), (STRANGER, 1450)];
        let remotes = remotes.map(|(address, mtu)| Some(to(address, mtu)));
        bridge.remotes = Remotes::new(remotes.to_vec());
    });
    let rig = rig(paper, 64);
    let sent = ethernet(ALICE, NOBODY, &large(64, true));
    rig.inject(ALICES, &sent);
    settled(&rig, 4);
    assert_eq!(rig.wire(BOBS).sent(), std::slice::from_ref(&sent));
    let [to_far_node] = &rig.wire(UPLINK).sent()[..] else {
        panic!("not sent once");
    };
    assert_eq!(to_far_node[30..34], FAR_NODE.octets());
    assert_eq!(to_far_node[50..], sent);
    let [answer] = &rig.wire(ALICES).sent()[..] else {
        panic!("not told once");
    };
    assert_eq!(told(answer).1, 1350);
    assert_eq!(rig.drops(DropReason::TooBig), 2);
}

#[test]
fn a_flooded_frame_that_may_be_cut_is_cut_once_for_all() {
    let rig = rig(Paper::new(), 64);
    let packet = large(64, false);
    rig.inject(ALICES, &ethernet(ALICE, NOBODY, &packet));
    // Two pieces, and two copies of each.
    settled(&rig, 6);
    let whole = |pieces: &[Vec<u8>]| {
        assert!(pieces.iter().all(|piece| piece.len() <= 1450 + 14));
        let payloads: Vec<_> = pieces.iter().map(|piece| &piece[34..]).collect();
        payloads.concat() == packet[20..]
    };
    let at_bob = rig.wire(BOBS).sent();
    assert!(at_bob.len() == 2 && whole(&at_bob), "once");
    let tunnelled = rig.wire(UPLINK).sent();
    for node in [FAR_NODE, THIRD_NODE] {
        let of_node = tunnelled
            .iter()
            .filter(|frame| frame[30..34] == node.octets());
        let pieces: Vec<_> = of_node.map(|frame| frame[50..].to_vec()).collect();
        assert!(pieces.len() == 2 && whole(&pieces), "{node}");
    }
    assert!(rig.wire(ALICES).sent().is_empty());
    assert_eq!(rig.balance().dropped, 0);
}

#[test]
fn an_ipv6_sender_of_a_flooded_frame_too_large_is_told() {
    let rig = rig(Paper::new(), 64);
    let [alices, nobodys] = [1, 9].map(|n| Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, n));
    let sent = ethernet(ALICE, NOBODY, &udp6(alices, nobodys, 64, &[0; 1452]));
    rig.inject(ALICES, &sent);
    settled(&rig, 3);
    assert_eq!(rig.wire(BOBS).sent(), [sent]);
    let [answer] = &rig.wire(ALICES).sent()[..] else {
        panic!("not told once");
    };
    let sliced = SlicedPacket::from_ethernet(answer).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = &sliced.transport else {
        panic!("not ICMPv6");
    };
    assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1450 });
}

/// About what many were to have nobody is told, nor is it cut up; those that it fits have it.
#[test]
fn what_is_for_a_group_and_too_large_is_dropped_for_the_remotes_alone() {
    let groups = [MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 9])];
    for (group, dont_fragment) in groups.into_iter().flat_map(|g| [(g, true), (g, false)]) {
        let rig = rig(Paper::new(), 64);
        let sent = ethernet(ALICE, group, &large(64, dont_fragment));
        rig.inject(ALICES, &sent);
        settled(&rig, 2);
        assert_eq!(rig.wire(BOBS).sent(), [sent]);
        assert!(rig.wire(ALICES).sent().is_empty() && rig.wire(UPLINK).sent().is_empty());
        assert_eq!(rig.drops(DropReason::TooBig), 2);
    }
}
