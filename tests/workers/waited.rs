//! What the slow path is asked about a packet that comes from the slow path: too large for its way out.

use underpass::fib::NextHop;
use underpass::forward::{Adjacency, Snapshot};
use underpass::packet::DropReason;
use underpass::port::PortId;
use underpass::wire::Mtu;
use underpass::worker::publish::{Published, Quiescence};
use underpass::worker::slow_path::Event;

use super::{PORTS, share};
use crate::common::fates::rewrite;
use crate::common::*;
use crate::harness::*;

/// How large a packet may be is known when its next hop is: what waited for that is cut up or its sender
/// told, as if it had come in then.
#[test]
fn what_waited_and_is_too_large_is_cut_up_or_its_sender_told() {
    let waits = |packet: &[u8]| {
        let mut snapshot = snapshot();
        snapshot.adjacencies[VXLAN_HOP] = Adjacency::Unresolved;
        let published = Published::new(snapshot);
        let shares = [share(&PORTS, 256)];
        let rig = Rig::start(published.clone(), &Quiescence::new(), &shares);
        rig.inject(WORKLOAD, &from_pod(packet));
        let event = rig.events.recv_timeout(AT_MOST).unwrap();
        assert_eq!(event, Event::Unresolved(NextHop(VXLAN_HOP as u32)));
        published.publish(narrow(1280));
        rig
    };
    let mut whole = udp(POD, FAR_VXLAN, 64, &[0x5a; 1300]);
    rewrite(&mut whole, |header| header.dont_fragment = true);
    let rig = waits(&whole);
    let told = all_of(&rig, WORKLOAD, 1);
    assert_eq!(told[0][34..36], [3, 4]);
    assert_eq!(told[0][40..42], 1230_u16.to_be_bytes());
    assert_eq!(rig.drops(DropReason::TooBig), 1);

    rewrite(&mut whole, |header| header.dont_fragment = false);
    let rig = waits(&whole);
    let pieces = all_of(&rig, UPLINK, 2);
    for piece in &pieces {
        let inner = &piece[64..];
        assert!(piece.len() <= 14 + 1280);
        // One hop, not one for waiting and one for being cut up.
        assert_eq!((inner[8], &inner[12..20]), (63, &whole[12..20]));
    }
    let payload: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece[84..].to_vec())
        .collect();
    assert_eq!(payload, whole[20..]);
    assert_eq!(rig.balance().dropped, 0);

    let rig = waits(&udp6(POD_V6, FAR_VXLAN_V6, 64, &[0x5a; 1300]));
    let told = all_of(&rig, WORKLOAD, 1);
    assert_eq!(told[0][54..56], [2, 0]);
    assert_eq!(told[0][58..62], 1280_u32.to_be_bytes());

    let rig = waits(&udp6(POD_V6, FAR_VXLAN_V6, 64, &[0x5a; 1232]));
    assert_cut_outside(&rig, 1280);
    assert_eq!(rig.balance().dropped, 0);
}

/// A workload that has just said where it is may ask before all workers know: an answer to it waits as
/// others' packets do, and nobody is told when it waits in vain.
#[test]
fn the_routers_own_errors_wait_for_their_receivers_address() {
    for comes in [true, false] {
        let whole = snapshot();
        let mut without = snapshot();
        let hop = without.fib.lookup_v4(POD).unwrap();
        without.adjacencies[hop.0 as usize] = Adjacency::Unresolved;
        let published = Published::new(without);
        let shares = [share(&PORTS, 256)];
        let rig = Rig::start(published.clone(), &Quiescence::new(), &shares);
        rig.inject(WORKLOAD, &from_pod(&udp(POD, FAR_VXLAN, 1, b"words")));
        let event = rig.events.recv_timeout(AT_MOST).unwrap();
        assert_eq!(event, Event::Unresolved(hop));
        if comes {
            published.publish(whole);
            let told = all_of(&rig, WORKLOAD, 1);
            assert_eq!((told[0].len(), told[0][34]), (14 + 28 + 33, 11));
        }
        rig.rest();
        let lost = u64::from(!comes);
        assert_eq!(rig.drops(DropReason::NeighbourUnresolved), lost);
        let originated = rig.sum(|counters| counters.originated.get());
        assert_eq!(originated, 2 - lost, "it went twice, or nobody was told");
        assert!(rig.balance().is_even(), "{:?}", rig.balance());
    }
}

/// RFC 2473 section 7.1 holds for the router's own IPv6 packets, too.
#[test]
fn the_routers_own_errors_cross_a_narrow_path_in_fragments_outside() {
    let rig = Rig::start(
        Published::new(narrow(1280)),
        &Quiescence::new(),
        &[share(&PORTS, 256)],
    );
    let expired = udp6(FAR_VXLAN_V6, POD_V6, 1, &[0x5a; 1380]);
    let framed = ethernet(FAR_VTEP_MAC, VTEP_MAC, &expired);
    rig.inject(
        UPLINK,
        &from_uplink(&vxlan(FAR_NODE, CALICO_VXLAN, &framed)),
    );
    assert_cut_outside(&rig, 1280);
    assert_eq!(rig.drops(DropReason::TooBig), 0);
}

/// Next hop 2 of the node on paper: the far node by VXLAN.
const VXLAN_HOP: usize = 2;

/// The node on paper, its path to the far node that narrow.
fn narrow(path: u16) -> Snapshot {
    let mut snapshot = snapshot();
    let Adjacency::Forward(egress) = &mut snapshot.adjacencies[VXLAN_HOP] else {
        panic!("{:?}", snapshot.adjacencies[VXLAN_HOP]);
    };
    egress.mtu = Mtu(path - 50);
    snapshot
}

/// The frames that leave by a port: so many, and then no more.
fn all_of(rig: &Rig, port: PortId, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    wait_until("the frames to leave", || {
        frames.extend(rig.wire(port).sent());
        frames.len() >= count
    });
    rig.rest();
    frames.extend(rig.wire(port).sent());
    assert_eq!((frames.len(), rig.missing_frames()), (count, vec![0]));
    frames
}

/// One IPv6 packet of 1280 bytes left in VXLAN, in two fragments of the outer packet.
fn assert_cut_outside(rig: &Rig, path: usize) {
    let frames = all_of(rig, UPLINK, 2);
    let mut pool = etherparse::defrag::IpDefragPool::<(), ()>::new();
    let mut whole = None;
    for frame in &frames {
        assert!(frame.len() <= 14 + path);
        let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
        whole = pool.process_sliced_packet(&sliced, (), ()).unwrap();
    }
    // UDP, VXLAN, Ethernet.
    assert_eq!(
        whole.expect("all fragments").payload.len(),
        8 + 8 + 14 + 1280
    );
}
