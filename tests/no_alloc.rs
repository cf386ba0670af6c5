//! The packet path does not allocate: whole batches of every fate, counted at the allocator.
#![allow(missing_docs)]

#[path = "common/allocations.rs"]
mod allocations;
mod common;

use std::collections::BTreeSet;

use common::fates::{self, Case};
use common::*;
use underpass::forward::{Snapshot, Verdict, WorkerState, forward, originate};
use underpass::packet::{BATCH, DropReason, Frame, HEADROOM};

#[test]
fn batches_of_every_fate_are_forwarded_without_an_allocation() {
    let snapshot = snapshot();
    let mut bench = Bench::new();
    let cases = fates::all();
    // Once before: what a worker allocates, it allocates at its start.
    bench.run(&snapshot, &cases);
    bench.allocations = 0;
    for _ in 0..100 {
        bench.run(&snapshot, &cases);
    }
    assert_eq!(bench.allocations, 0);
    assert!(bench.packets > 100_000, "{} packets", bench.packets);
}

#[test]
fn packets_of_the_routers_own_are_sent_without_an_allocation() {
    let snapshot = snapshot();
    let mut state = WorkerState::new(0, 1);
    let packets = [
        udp(NODE, FAR_IPIP, 64, b"payload"),
        udp(NODE, POD, 64, b"payload"),
        udp6(FAR_VXLAN_V6, POD_V6, 64, b"payload"),
        udp(NODE, fates::NOWHERE, 64, b"payload"),
        b"no packet".to_vec(),
    ];
    let mut frame = Frame::leak(2048, HEADROOM);
    for packet in packets {
        assert!(frame.fill(&packet, HEADROOM));
        let (allocations, _) = counted(|| originate(&snapshot, &mut state, &mut frame));
        assert_eq!(allocations, 0);
    }
}

#[test]
fn the_cases_are_of_every_fate_that_the_packet_path_knows() {
    let cases = fates::all();
    let reasons: BTreeSet<DropReason> = cases
        .iter()
        .filter_map(|case| match case.verdict {
            Verdict::Drop(reason) => Some(reason),
            _ => None,
        })
        .collect();
    // Reasons of the slow path and of ports, those that need another configuration, and those that
    // stand for a punt which nobody can do anything for.
    use DropReason as R;
    let others = BTreeSet::from([
        R::VxlanReservedBits,
        R::ReversePath,
        R::OuterFragment,
        R::ReassemblyFull,
        R::InvalidQuote,
        R::NoHeadroom,
        R::NoRoute,
        R::Blackhole,
        R::TtlExpired,
        R::NeighbourUnresolved,
        R::TooBig,
        R::SlowPathFull,
        R::RateLimited,
        R::NotAnswered,
        // Ports' own, whose cases are in tests/ports.
        R::MalformedFrame,
        R::Oversized,
        R::TxRingFull,
        R::TxError,
        R::NoFrame,
        R::HandoffFull,
        R::Shutdown,
        // Those of bridges, whose cases are in tests/bridge.rs.
        R::BridgeSource,
        R::BridgeStatic,
        R::BridgeFlapping,
        R::BridgeSplitHorizon,
        R::BridgeLinkLocal,
        R::BridgeNobody,
    ]);
    let known: BTreeSet<DropReason> = reasons.union(&others).copied().collect();
    let missing: Vec<_> = DropReason::ALL
        .iter()
        .filter(|reason| !known.contains(reason))
        .collect();
    assert!(missing.is_empty(), "no case is dropped for {missing:?}");
    let punts: BTreeSet<String> = cases
        .iter()
        .filter_map(|case| match case.verdict {
            Verdict::Punt(punt) => Some(format!("{punt:?}")),
            _ => None,
        })
        .collect();
    assert_eq!(punts.len(), 11, "{punts:?}");
}

#[test]
fn the_allocator_counts() {
    let (allocations, boxed) = counted(|| Box::new([0_u8; 100]));
    assert_eq!((allocations, boxed.len()), (1, 100));
}

/// A worker's side of the packet path: a batch of frames that are filled anew each time.
struct Bench {
    state: WorkerState,
    batch: Vec<Frame>,
    verdicts: Vec<Verdict>,
    packets: usize,
    allocations: usize,
}

impl Bench {
    fn new() -> Self {
        Self {
            state: WorkerState::new(0, 1),
            batch: (0..BATCH).map(|_| Frame::leak(2048, HEADROOM)).collect(),
            verdicts: Vec::with_capacity(BATCH),
            packets: 0,
            allocations: 0,
        }
    }

    /// Sends each case in a whole batch of its own kind, and all of a port mixed.
    fn run(&mut self, snapshot: &Snapshot, cases: &[Case]) {
        for case in cases {
            self.send(snapshot, &[case]);
        }
        for port in [UPLINK, WORKLOAD, HOST] {
            let mixed: Vec<&Case> = cases.iter().filter(|case| case.port == port).collect();
            self.send(snapshot, &mixed);
        }
    }

    fn send(&mut self, snapshot: &Snapshot, cases: &[&Case]) {
        for (frame, case) in self.batch.iter_mut().zip(cases.iter().cycle()) {
            assert!(frame.fill(&case.frame, HEADROOM));
        }
        self.verdicts.clear();
        let (batch, verdicts) = (&mut self.batch, &mut self.verdicts);
        let state = &mut self.state;
        let (allocations, ()) =
            counted(|| forward(snapshot, state, cases[0].port, batch, verdicts));
        self.allocations += allocations;
        self.packets += BATCH;
        for (verdict, case) in self.verdicts.iter().zip(cases.iter().cycle()) {
            assert_eq!(*verdict, case.verdict, "{}", case.name);
        }
    }
}

/// How often `work` allocated on this thread.
fn counted<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = allocations::count();
    let result = work();
    (allocations::count() - before, result)
}

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;
