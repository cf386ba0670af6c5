//! What the control side makes of a configured bridge: what workers read of it, and how it says that it is.

use std::path::Path;
use std::sync::atomic::Ordering;

use underpass::control::apply::{Fixed, Forwarding};
use underpass::control::bridges::Bridging;
use underpass::forward::{BridgeId, OuterTtl, Place, Verdict, WorkerState, deliver};
use underpass::packet::{Frame, HEADROOM};
use underpass::resources::NodeConfig;
use underpass::wire::MacAddr;

use crate::common::cluster::*;
use crate::common::*;
use crate::outer;
use crate::paper::*;

/// A node with two bridges, each of which has the far node as its remote.
fn node(fixed: Fixed) -> Forwarding {
    let text = "node: worker1\nuplink: {interface: eth0}\ndatastore: {directory: d}\n\
                bridges: [{name: tenants, vni: 77, remotes: [10.30.0.12]},\n  \
                {name: others, vni: 78, remotes: [10.30.0.12]}]\n";
    let config = NodeConfig::parse(Path::new("node.yaml"), text).expect("a configuration");
    let bridging = Bridging::new(&config, &Default::default());
    let mut forwarding = Forwarding::new(fixed, alone()).with_bridges(bridging);
    forwarding.refresh(&Underlay::default());
    forwarding
}

#[test]
fn a_bridges_outer_ttl_is_as_configured() {
    for ttl in [64, 9] {
        let fixed = Fixed {
            ttl: OuterTtl::Fixed(ttl),
            ..fixed()
        };
        let snapshot = node(fixed).published().get();
        for packet in [
            frame(ALICE, MacAddr::BROADCAST, b"words"),
            ethernet(ALICE, CAROL, &udp(POD, OTHER_POD, 1, b"data")),
        ] {
            let mut copy = Frame::leak(2048, HEADROOM);
            assert!(copy.fill(&packet, HEADROOM));
            let mut state = WorkerState::new(0, 1);
            let verdict = deliver(&snapshot, &mut state, TENANTS, remote(0), &mut copy);
            assert_eq!(verdict, Verdict::Transmit(UPLINK));
            assert_eq!(outer(copy.bytes()).ttl, ttl);
        }
    }
}

#[test]
fn what_found_no_room_is_counted_by_bridge() {
    let mut forwarding = node(fixed());
    let snapshot = forwarding.published().get();
    let others = snapshot.bridges.get(BridgeId(1)).expect("the second one");
    others.neighbours_refused.fetch_add(3, Ordering::Relaxed);
    // Another snapshot has the same count.
    forwarding.refresh(&Underlay::default());
    forwarding.tick(1);
    let status = forwarding
        .bridging()
        .status(forwarding.wanted(), &Underlay::default());
    let refused = status.iter().map(|bridge| bridge.neighbours_refused);
    assert_eq!(refused.collect::<Vec<_>>(), [0, 3]);
}

/// As the kernel's bridge does it: who was behind a port that has gone may be anywhere.
#[test]
fn stations_behind_a_port_that_has_gone_are_forgotten() {
    let forwarding = node(fixed());
    let snapshot = forwarding.published().get();
    let table = &snapshot.bridges.get(TENANTS).expect("the first one").table;
    table.learn(ALICE, Place::Port(ALICES));
    table.learn(BOB, Place::Port(BOBS));
    forwarding.bridging().forget_port(ALICES);
    let (alice, bob) = (table.find(ALICE), table.find(BOB));
    assert_eq!((alice, bob), (None, Some(Place::Port(BOBS))));
}
