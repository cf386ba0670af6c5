//! Whole workers carry a bridge: what is flooded is counted copy by copy, and the balance holds.

use underpass::packet::DropReason;
use underpass::port::PortId;
use underpass::wire::MacAddr;
use underpass::worker::publish::{Published, Quiescence};

use crate::common::*;
use crate::harness::*;
use crate::paper::*;

pub fn rig(paper: Paper, frames: usize) -> Rig {
    let shares = [
        Share {
            ports: vec![UPLINK, ALICES],
            frames,
        },
        Share {
            ports: vec![BOBS, WORKLOAD, HOST, OTHER_WORKLOAD],
            frames,
        },
    ];
    Rig::start(Published::new(paper.snapshot), &Quiescence::new(), &shares)
}

#[test]
fn every_copy_of_a_flooded_frame_is_accounted_for() {
    let rig = rig(Paper::new(), 256);
    let words = frame(ALICE, MacAddr::BROADCAST, b"words");
    for _ in 0..100 {
        rig.inject(ALICES, &words);
        rig.inject(UPLINK, &tunnelled(FAR_NODE, 77, &frame(CAROL, NOBODY, b"")));
        rig.settle();
    }
    // Alice's go to Bob, on another worker's port, and into two tunnels; Carol's to both ports.
    let sent = |port: PortId| rig.wire(port).sent().len();
    assert_eq!((sent(BOBS), sent(ALICES), sent(UPLINK)), (200, 100, 200));
    let balance = rig.balance();
    assert_eq!((balance.received, balance.originated), (200, 300));
    assert_eq!(balance.dropped, 0);
    rig.rest();
    assert_eq!(rig.missing_frames(), [0, 0]);
}

#[test]
fn without_free_frames_copies_are_lost_and_counted() {
    let rig = rig(Paper::new(), 8);
    for _ in 0..200 {
        rig.inject(ALICES, &frame(ALICE, MacAddr::BROADCAST, b"words"));
    }
    rig.settle();
    let balance = rig.balance();
    assert_eq!((balance.received, balance.originated), (200, 400));
    assert!(rig.drops(DropReason::NoFrame) > 0);
    rig.rest();
    assert_eq!(rig.missing_frames(), [0, 0]);
}

#[test]
fn nobody_to_flood_to_is_a_reason() {
    let paper = Paper::with(|bridge| {
        bridge.ports = vec![ALICES];
        bridge.remotes = Default::default();
    });
    let rig = rig(paper, 64);
    rig.inject(ALICES, &frame(ALICE, MacAddr::BROADCAST, b"words"));
    rig.settle();
    assert_eq!(rig.drops(DropReason::BridgeNobody), 1);
}

/// ARP goes through the slow path: what is known is answered to the asker alone, what is not is asked
/// on; both are accounted for.
#[test]
fn a_question_is_answered_or_asked_on() {
    let paper = Paper::with(|bridge| bridge.suppression = true);
    let rig = rig(paper, 256);
    let question = arp(
        1,
        ALICE,
        POD,
        MacAddr::default(),
        OTHER_POD,
        MacAddr::BROADCAST,
    );
    // The slow path counts what it was given before it says what is to be done.
    let settled = |originated: u64| {
        wait_until("all messages", || rig.balance().originated == originated);
        rig.settle();
    };
    rig.inject(ALICES, &question);
    settled(3);
    assert_eq!(rig.wire(BOBS).sent(), std::slice::from_ref(&question));
    assert_eq!(rig.wire(UPLINK).sent().len(), 2);
    let reply = arp(2, CAROL, OTHER_POD, ALICE, POD, ALICE);
    rig.inject(UPLINK, &tunnelled(FAR_NODE, 77, &reply));
    settled(4);
    assert_eq!(rig.wire(ALICES).sent(), std::slice::from_ref(&reply));
    // Now it is known.
    rig.inject(ALICES, &question);
    settled(5);
    assert_eq!(rig.wire(ALICES).sent(), [reply]);
    assert!(rig.wire(UPLINK).sent().is_empty() && rig.wire(BOBS).sent().is_empty());
}

/// Suppression spares others questions; it must not cost anybody an answer.
#[test]
fn what_the_slow_path_has_no_room_for_is_asked_on() {
    const FLOOD: u64 = 20_000;
    let paper = Paper::with(|bridge| {
        bridge.suppression = true;
        bridge.remotes = Default::default();
    });
    let shares = [Share {
        ports: vec![UPLINK, ALICES, BOBS, WORKLOAD, HOST, OTHER_WORKLOAD],
        frames: 512,
    }];
    let rig = Rig::start(Published::new(paper.snapshot), &Quiescence::new(), &shares);
    let nobody = MacAddr::default();
    let question = arp(1, ALICE, POD, nobody, OTHER_POD, MacAddr::BROADCAST);
    // However fast the slow path is: until it was too slow once.
    let full = (1..=50).any(|round| {
        (0..FLOOD).for_each(|_| rig.inject(ALICES, &question));
        rig.rest();
        rig.sum(|counters| counters.punted.get()) < round * FLOOD
    });
    assert!(full, "the queue was never full");
    assert_eq!(rig.drops(DropReason::SlowPathFull), 0);
    assert!(rig.balance().is_even(), "{:?}", rig.balance());
}

/// An ARP frame as Linux sends it.
pub fn arp(
    operation: u16,
    sender: MacAddr,
    sender_ip: std::net::Ipv4Addr,
    target: MacAddr,
    target_ip: std::net::Ipv4Addr,
    to: MacAddr,
) -> Vec<u8> {
    let message = [
        &[0, 1, 8, 0, 6, 4][..],
        &operation.to_be_bytes(),
        &sender.0,
        &sender_ip.octets(),
        &target.0,
        &target_ip.octets(),
    ]
    .concat();
    ethernet_of(sender, to, 0x0806, &message)
}
