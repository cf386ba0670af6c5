//! Whole workers, with their threads and their slow path, on ports in memory: every packet that came
//! in left, or is counted under the one reason that it was dropped for, and no frame gets lost.
#![allow(missing_docs)]

mod common;
#[path = "workers/harness.rs"]
mod harness;
#[path = "workers/traffic.rs"]
mod traffic;
#[path = "workers/waited.rs"]
mod waited;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::cluster::{self, Underlay, add_remote, at_home, mac_of, net, vxlan_to};
use common::*;
use harness::*;
use traffic::{Ledger, Template, ends, number, numbered};
use underpass::control::apply::{Forwarding, Way};
use underpass::control::resolve::{Encap, Wanted};
use underpass::forward::Snapshot;
use underpass::packet::DropReason;
use underpass::port::PortId;
use underpass::wire::{MacAddr, Mtu};
use underpass::worker::mailbox::Message;
use underpass::worker::publish::{Published, Quiescence};
use underpass::worker::slow_path::Event;

const PORTS: [PortId; 4] = [UPLINK, WORKLOAD, HOST, OTHER_WORKLOAD];

// The balance.

/// A million packets of every fate through one worker and the slow path.
#[test]
fn what_comes_in_leaves_or_is_counted_under_its_reason() {
    const PACKETS: usize = 1_000_000;
    /// Few enough that the slow path's queue holds those of them that need it.
    const ROUND: usize = 2000;
    let rig = one_worker(1024);
    let (templates, ends) = (Template::all(), ends());
    let mut ledger = Ledger::default();
    let mut expected: BTreeMap<traffic::End, u64> = BTreeMap::new();
    let mut dice = Dice(1);
    for _ in 0..PACKETS / ROUND {
        for _ in 0..ROUND {
            let kind = dice.roll(templates.len() + ends.len());
            if let Some((_, port, frame, end)) = kind.checked_sub(templates.len()).map(|n| &ends[n])
            {
                rig.inject(*port, frame);
                *expected.entry(*end).or_default() += 1;
            } else {
                let frame = templates[kind].frame(ledger.issue(kind));
                rig.inject(templates[kind].ingress, &frame);
            }
        }
        rig.settle();
        collect(&rig, &templates, &mut ledger);
    }
    // Those that wait for a next hop until their time is up.
    for _ in 0..300 {
        let packet = udp(POD, common::fates::UNRESOLVED, 64, b"");
        rig.inject(WORKLOAD, &from_pod(&packet));
    }
    *expected
        .entry(traffic::End::Dropped(DropReason::NeighbourUnresolved))
        .or_default() += 300;
    rig.rest();
    collect(&rig, &templates, &mut ledger);

    assert_eq!(ledger.arrived(), ledger.issued());
    let of = |end| expected.get(&end).copied().unwrap_or(0);
    let fragmented = of(traffic::End::Fragmented);
    let limited = rig.drops(DropReason::RateLimited);
    let absorbed = rig.sum(|counters| counters.absorbed.get());
    assert_eq!(
        absorbed + limited,
        of(traffic::End::Absorbed) + of(traffic::End::AbsorbedOrLimited) + fragmented
    );
    for reason in DropReason::ALL {
        let expected = match reason {
            DropReason::RateLimited => continue,
            reason => of(traffic::End::Dropped(*reason)),
        };
        assert_eq!(rig.drops(*reason), expected, "{reason}");
    }
    let refused = rig.counters[0].ports[usize::from(UPLINK.0)].device.get();
    assert_eq!(refused.rx_dropped, of(traffic::End::Refused));
    // What the router made itself: replies, errors and fragments; all of it left.
    let originated = rig.sum(|counters| counters.originated.get());
    assert_eq!(ledger.other_frames(), originated);
    assert!(originated >= 2 * fragmented + of(traffic::End::Absorbed));
    let balance = rig.balance();
    assert_eq!(balance.received + refused.rx_dropped, PACKETS as u64 + 300);
    assert!(balance.is_even(), "{balance:?}");
    assert_eq!(rig.missing_frames(), [0]);
}

#[test]
fn a_flood_that_the_slow_path_cannot_take_is_counted() {
    let rig = one_worker(512);
    let frame = from_pod(&udp(POD, common::fates::NOWHERE, 64, b""));
    const FLOOD: u64 = 50_000;
    (0..FLOOD).for_each(|_| rig.inject(WORKLOAD, &frame));
    rig.rest();
    let (no_route, full) = (DropReason::NoRoute, DropReason::SlowPathFull);
    assert_eq!(rig.drops(no_route) + rig.drops(full), FLOOD);
    assert_eq!(
        rig.sum(|counters| counters.punted.get()),
        rig.drops(no_route)
    );
    assert_eq!(rig.missing_frames(), [0]);
}

// Two workers.

#[test]
fn packets_pass_from_worker_to_worker_and_frames_go_home() {
    let rig = two_workers(256);
    let templates = Template::all();
    let mut ledger = Ledger::default();
    // Ten times as many as there are frames, and few enough at once that no pool runs dry.
    for round in 0..templates.len() * 60 {
        let kind = round % templates.len();
        for _ in 0..100 {
            let frame = templates[kind].frame(ledger.issue(kind));
            rig.inject(templates[kind].ingress, &frame);
        }
        rig.settle();
        collect(&rig, &templates, &mut ledger);
    }
    rig.rest();
    collect(&rig, &templates, &mut ledger);
    assert_eq!(ledger.arrived(), ledger.issued());
    assert_eq!(rig.balance().dropped, 0);
    assert_eq!(rig.missing_frames(), [0, 0]);
}

#[test]
fn a_flood_between_workers_loses_packets_under_a_reason_and_no_frames() {
    let rig = two_workers(256);
    let templates = Template::all();
    let mut ledger = Ledger::default();
    for _ in 0..5000 {
        for (kind, template) in templates.iter().enumerate() {
            let frame = template.frame(ledger.issue(kind));
            rig.inject(template.ingress, &frame);
        }
    }
    rig.rest();
    collect(&rig, &templates, &mut ledger);
    let lost = rig.drops(DropReason::NoFrame) + rig.drops(DropReason::HandoffFull);
    assert_eq!(rig.balance().dropped, lost);
    assert_eq!(ledger.arrived() + lost, ledger.issued());
    assert_eq!(rig.missing_frames(), [0, 0]);
}

#[test]
fn what_finds_the_transmit_ring_full_is_counted_and_its_frame_used_again() {
    for rig in [one_worker(256), two_workers(256)] {
        let templates = Template::between(UPLINK, WORKLOAD);
        let mut ledger = Ledger::default();
        for round in 1..=30 {
            rig.wire(WORKLOAD).set_room(Some(10));
            for n in 0..100 {
                let kind = n % templates.len();
                let frame = templates[kind].frame(ledger.issue(kind));
                rig.inject(UPLINK, &frame);
            }
            rig.settle();
            assert_eq!(rig.drops(DropReason::TxRingFull), round * 90);
            collect(&rig, &templates, &mut ledger);
            assert_eq!(ledger.arrived(), round * 10);
        }
        rig.rest();
        assert!(rig.missing_frames().iter().all(|missing| *missing == 0));
        assert!(rig.balance().is_even());
    }
}

#[test]
fn what_another_worker_has_no_room_for_is_counted() {
    /// What a mailbox holds.
    const ROOM: u64 = 4096;
    const PACKETS: u64 = 5000;
    let (published, quiescence) = on_paper();
    let shares = [share(&[UPLINK], 6000), share(&[WORKLOAD], 256)];
    let mut rig = Rig::prepare(published, &quiescence, &shares);
    let templates = Template::between(UPLINK, WORKLOAD);
    let mut ledger = Ledger::default();
    rig.run(0);
    for _ in 0..PACKETS {
        let frame = templates[0].frame(ledger.issue(0));
        rig.inject(UPLINK, &frame);
    }
    wait_until("the mailbox to be full", || {
        rig.drops(DropReason::HandoffFull) == PACKETS - ROOM
    });
    rig.run(1);
    rig.rest();
    collect(&rig, &templates, &mut ledger);
    assert_eq!(ledger.arrived(), ROOM);
    assert_eq!(rig.balance().dropped, PACKETS - ROOM);
    assert_eq!(rig.missing_frames(), [0, 0]);
}

#[test]
fn what_the_slow_path_finds_no_room_for_is_counted() {
    /// What a mailbox holds.
    const ROOM: u64 = 4096;
    const PACKETS: u64 = 5000;
    let (published, quiescence) = on_paper();
    let shares = [share(&[UPLINK], 6000), share(&[WORKLOAD], 6000)];
    let mut rig = Rig::prepare(published, &quiescence, &shares);
    rig.run(1);
    let (_, _, echo, _) = ends().into_iter().find(|end| end.0 == "echo").unwrap();
    // Replies are routed by the first worker, which does not run yet.
    for n in 1..=PACKETS {
        rig.inject(WORKLOAD, &echo);
        if n % 500 == 0 {
            wait_until("the slow path", || {
                rig.sum(|counters| counters.absorbed.get()) == n
            });
        }
    }
    wait_until("the mailbox to be full", || {
        rig.drops(DropReason::HandoffFull) == PACKETS - ROOM
    });
    rig.run(0);
    rig.rest();
    assert_eq!(rig.wire(WORKLOAD).sent().len() as u64, ROOM);
    let balance = rig.balance();
    assert_eq!(
        (balance.originated, balance.dropped),
        (PACKETS, PACKETS - ROOM)
    );
    assert_eq!(rig.missing_frames(), [0, 0]);
}

/// All of a worker's frames are with another one; it has packets to receive and none to receive them
/// into. When frames come home it goes on at once, although no port has told it anything new.
#[test]
fn a_worker_out_of_frames_goes_on_when_they_come_home() {
    const FRAMES: usize = 8;
    let (published, quiescence) = on_paper();
    let (mut rig, puppet) = Rig::with_puppet(
        published,
        &quiescence,
        &[share(&[UPLINK], FRAMES)],
        &[WORKLOAD],
    );
    let templates = Template::between(UPLINK, WORKLOAD);
    rig.run(0);
    for round in 0..10 {
        for n in 0..2 * FRAMES as u32 {
            rig.inject(UPLINK, &templates[0].frame(n));
        }
        let handed_over = |at_most: Duration| -> Vec<_> {
            let deadline = Instant::now() + at_most;
            let mut frames = Vec::new();
            while frames.len() < FRAMES
                && let Ok(message) = puppet.inbox.messages.recv_deadline(deadline)
            {
                match message {
                    Message::Handoff { port, frame, owner } => {
                        assert_eq!((port, owner), (WORKLOAD, 0));
                        frames.push(frame);
                    }
                    other => panic!("{other:?}"),
                }
            }
            frames
        };
        let first = handed_over(AT_MOST);
        assert_eq!(first.len(), FRAMES);
        // Long enough for it to fall asleep.
        thread::sleep(Duration::from_millis(30));
        assert_eq!(rig.wire(UPLINK).waiting(), FRAMES);
        for frame in first {
            rig.mailboxes[0].give_back(frame);
        }
        let second = handed_over(LATE);
        assert_eq!(second.len(), FRAMES, "round {round}");
        for frame in second {
            rig.mailboxes[0].give_back(frame);
        }
    }
    drop(puppet);
    rig.stop();
    assert_eq!(rig.missing_frames(), [0]);
}

// Sleeping.

/// A worker that misses a call sleeps on for half a second; one that hears it is up well before.
const LATE: Duration = Duration::from_millis(300);

/// Waits until a frame has left by a port, [`LATE`] at most. Time in which this thread was not run itself
/// does not count: the worker was perhaps not run either.
fn leaves_in_time(rig: &Rig, port: PortId, what: &str, pause: impl Fn()) {
    let (mut waited, mut last) = (Duration::ZERO, Instant::now());
    while rig.wire(port).sent().is_empty() {
        pause();
        let since_last = last.elapsed();
        last += since_last;
        if since_last <= LATE / 6 {
            waited += since_last;
        }
        assert!(waited < LATE, "{what}: not within {LATE:?}");
    }
}

#[test]
fn an_idle_worker_sleeps() {
    let rig = two_workers(64);
    rig.rest();
    let rounds = || -> Vec<u64> {
        let workers = &rig.counters[..2];
        workers
            .iter()
            .map(|counters| counters.rounds.get())
            .collect()
    };
    let before = rounds();
    thread::sleep(Duration::from_millis(2200));
    for (before, after) in before.iter().zip(rounds()) {
        // At most five naps, and a hundred rounds after each.
        assert!(after - before <= 600, "{} rounds", after - before);
    }
}

#[test]
fn a_sleeping_worker_wakes_for_a_packet_and_for_a_message() {
    let rig = two_workers(64);
    let templates = Template::all();
    let asleep = || {
        let rounds = || rig.sum(|counters| counters.rounds.get());
        wait_until("the workers to sleep", || {
            let before = rounds();
            thread::sleep(Duration::from_millis(10));
            rounds() == before
        });
    };
    let arrives = |port: PortId, what: &str| {
        leaves_in_time(&rig, port, what, || {
            thread::sleep(Duration::from_micros(100))
        });
    };
    for round in 0..20 {
        for template in &templates {
            asleep();
            rig.inject(template.ingress, &template.frame(round));
            arrives(template.egress, template.name);
        }
        asleep();
        let frame = from_pod(&udp(POD, FAR_IPIP, 64, b""));
        let message = Message::Transmit(OTHER_WORKLOAD, frame);
        rig.mailboxes[1].post(message).unwrap();
        arrives(OTHER_WORKLOAD, "a message");
    }
    assert_eq!(rig.balance().dropped, 0);
}

#[test]
fn a_worker_that_is_about_to_sleep_hears_a_message() {
    let rig = two_workers(64);
    let frame = from_pod(&udp(POD, FAR_IPIP, 64, b""));
    let mut dice = Dice(2);
    for _ in 0..10_000 {
        // About as long as it takes a worker to fall asleep after the last message.
        let pause = Duration::from_micros(dice.roll(300) as u64);
        let start = Instant::now();
        while start.elapsed() < pause {
            std::hint::spin_loop();
        }
        let message = Message::Transmit(OTHER_WORKLOAD, frame.clone());
        rig.mailboxes[1].post(message).unwrap();
        leaves_in_time(&rig, OTHER_WORKLOAD, "a message", thread::yield_now);
    }
}

// The slow path's other half.

#[test]
fn what_waits_for_a_neighbour_goes_when_control_has_found_it() {
    let mut forwarding = Forwarding::new(cluster::fixed(), at_home());
    let mut underlay = Underlay::default();
    underlay.silent.insert(POD.into());
    forwarding.apply(at_home(), &underlay);
    let rig = Rig::start(
        forwarding.published(),
        &forwarding.quiescence(),
        &[
            share(&[UPLINK, HOST], 256),
            share(&[WORKLOAD, OTHER_WORKLOAD], 256),
        ],
    );
    let packet = |n| numbered(&udp(common::fates::WORLD, POD, 64, &[0; 8]), n);
    (0..100).for_each(|n| rig.inject(HOST, &packet(n)));
    wait_until("all to be punted", || {
        rig.sum(|counters| counters.punted.get()) == 100
    });
    let event = rig.events.recv_timeout(AT_MOST).unwrap();
    let Event::Unresolved(next_hop) = event else {
        panic!("{event:?}")
    };
    assert!(forwarding.hop(next_hop).is_some());
    underlay.silent.clear();
    forwarding.refresh(&underlay);
    let mut arrived = Vec::new();
    wait_until("all to arrive", || {
        arrived.extend(rig.wire(WORKLOAD).sent());
        arrived.len() == 100
    });
    let numbers: Vec<_> = arrived.iter().filter_map(|frame| number(frame)).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>(), "in order");
    rig.rest();
    let balance = rig.balance();
    assert_eq!((balance.absorbed, balance.originated), (100, 100));
    assert_eq!((balance.dropped, rig.missing_frames()), (0, vec![0, 0]));
}

// The end.

#[test]
fn workers_that_stop_under_load_count_every_packet_and_give_their_ports_back() {
    for round in 0..30 {
        let mut rig = two_workers(256);
        let templates = Template::all();
        let frames: Vec<_> = templates
            .iter()
            .map(|template| (rig.wire(template.ingress).clone(), template.frame(round)))
            .chain(
                ends()
                    .into_iter()
                    .map(|(_, port, frame, _)| (rig.wire(port).clone(), frame)),
            )
            .collect();
        let enough = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&enough);
        let feeder = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                for (wire, frame) in &frames {
                    if wire.waiting() < 1000 {
                        wire.inject(frame);
                    }
                }
            }
        });
        thread::sleep(Duration::from_millis(20));
        let ports = rig.stop();
        enough.store(true, Ordering::Relaxed);
        feeder.join().unwrap();
        assert_eq!(ports.len(), PORTS.len());
        let balance = rig.balance();
        assert!(balance.is_even(), "{balance:?}");
        assert!(balance.received > 100, "{balance:?}");
        let sent: usize = rig.wires.iter().map(|wire| wire.sent().len()).sum();
        assert_eq!(sent as u64, balance.transmitted);
    }
}

// Changes under traffic.

/// Modes, nodes, neighbours and next hops change while packets flow between two workers: none is
/// lost, none goes where it never belonged.
#[test]
fn no_packet_is_lost_or_led_astray_by_a_change() {
    const PACKETS: u32 = 300_000;
    let mut forwarding = Forwarding::new(cluster::fixed(), at_home());
    forwarding.apply(changing(0), &Underlay::default());
    let rig = Rig::start(
        forwarding.published(),
        &forwarding.quiescence(),
        &[
            share(&[UPLINK, HOST], 1024),
            share(&[WORKLOAD, OTHER_WORKLOAD], 1024),
        ],
    );
    let enough = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&enough);
    let changer = thread::spawn(move || {
        let mut changes = 0;
        while !told.load(Ordering::Relaxed) {
            change(&mut forwarding, changes);
            changes += 1;
        }
        changes
    });
    feed(&rig, PACKETS);
    enough.store(true, Ordering::Relaxed);
    let changes = changer.join().unwrap();
    assert!(changes >= 300, "{changes} changes only");
    rig.rest();
    let balance = rig.balance();
    assert_eq!((balance.dropped, balance.originated), (0, 0), "{balance:?}");
    assert_eq!(balance.transmitted, u64::from(PACKETS));
    assert_eq!(rig.missing_frames(), [0, 0]);
}

const NODE_A: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 21);
const NODE_B: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 22);
/// Always at A, in a pool whose mode changes.
const SETTLED: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 2);
/// At another node in each round: one of 10.30.1.0/24.
const MOVING: Ipv4Addr = Ipv4Addr::new(192, 168, 6, 2);
/// A's other Ethernet address.
const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0x77, 0, 21]);

/// What is wanted in a round.
fn changing(round: usize) -> Wanted {
    let mut wanted = at_home();
    let pool = Some(net("192.168.0.0/16"));
    let encap = |node| match round % 3 {
        0 => Encap::Ipip,
        1 => vxlan_to(node),
        _ => Encap::None,
    };
    let (a, b) = (NODE_A, NODE_B);
    add_remote(&mut wanted, net("192.168.2.0/26"), a, encap(a), pool);
    add_remote(&mut wanted, net("192.168.3.0/26"), b, encap(b), pool);
    // Two nodes that were not there before, so that next hops are made and their numbers used again.
    let host = (round % 250) as u8;
    let (there, astray) = (
        Ipv4Addr::new(10, 30, 1, host),
        Ipv4Addr::new(10, 30, 2, host),
    );
    add_remote(
        &mut wanted,
        net("192.168.6.0/26"),
        there,
        encap(there),
        pool,
    );
    add_remote(
        &mut wanted,
        net("192.168.7.0/26"),
        astray,
        Encap::Ipip,
        None,
    );
    // Addresses in the table's block come and go beside the watched one.
    for n in 0..(round % 7) as u8 {
        let address = Ipv4Addr::new(192, 168, 6, 64 + n);
        let prefix = ipnet::IpNet::from(std::net::IpAddr::V4(address));
        add_remote(&mut wanted, prefix, astray, Encap::Ipip, None);
    }
    wanted
}

fn change(forwarding: &mut Forwarding, round: usize) {
    let mut underlay = Underlay::default();
    let refused = forwarding.apply(changing(round), &underlay);
    assert!(refused.is_empty());
    underlay
        .ways
        .insert(NODE_A.into(), Way::Known(OTHER_MAC, Mtu(1500)));
    forwarding.refresh(&underlay);
    forwarding.refresh(&Underlay::default());
}

/// Packets from the pod to both far blocks, and from both nodes to the pod by every encapsulation;
/// each arrives once and at one of the places where it belonged at some time.
fn feed(rig: &Rig, packets: u32) {
    let to_pod = udp(SETTLED, POD, 64, &[0; 8]);
    let framed = ethernet(FAR_VTEP_MAC, VTEP_MAC, &to_pod);
    let kinds: [(PortId, Vec<u8>); 5] = [
        (WORKLOAD, from_pod(&udp(POD, SETTLED, 64, &[0; 8]))),
        (WORKLOAD, from_pod(&udp(POD, MOVING, 64, &[0; 8]))),
        (UPLINK, from_uplink(&ipip(NODE_A, NODE, &to_pod))),
        (UPLINK, from_uplink(&vxlan(NODE_B, CALICO_VXLAN, &framed))),
        (UPLINK, from_uplink(&to_pod)),
    ];
    let mut seen = vec![false; packets as usize];
    let mut arrived = 0;
    let mut last_arrival = Instant::now();
    let mut next = 0;
    while arrived < packets {
        while next < packets && next - arrived < 400 {
            let (port, frame) = &kinds[next as usize % kinds.len()];
            rig.inject(*port, &numbered(frame, next));
            next += 1;
        }
        for port in [UPLINK, WORKLOAD] {
            for frame in rig.wire(port).sent() {
                let number = number(&frame).expect("nothing else is sent");
                let kind = number as usize % kinds.len();
                assert!(
                    belongs(kind, port, &frame),
                    "{kind} by {port:?}: {frame:x?}"
                );
                assert!(!std::mem::replace(&mut seen[number as usize], true));
                arrived += 1;
                last_arrival = Instant::now();
            }
        }
        let missing = next - arrived;
        let balance = rig.balance();
        assert_eq!(balance.dropped, 0, "{:?}", reasons(rig));
        assert!(
            last_arrival.elapsed() < AT_MOST,
            "{missing} missing: {balance:?}"
        );
    }
}

fn belongs(kind: usize, port: PortId, frame: &[u8]) -> bool {
    use cluster::End;
    match (kind, End::of_frame(port, frame)) {
        (0, End::Ipip(node) | End::Vxlan(node, _)) => node == NODE_A,
        (0, End::Direct(mac)) => [mac_of(NODE_A).0, OTHER_MAC.0].contains(&mac),
        (1, End::Ipip(node) | End::Vxlan(node, _)) => node.octets()[..3] == [10, 30, 1],
        (1, End::Direct(mac)) => mac[..5] == mac_of(Ipv4Addr::new(10, 30, 1, 0)).0[..5],
        (2..=4, End::Port(port)) => port == WORKLOAD,
        _ => false,
    }
}

fn reasons(rig: &Rig) -> Vec<(DropReason, u64)> {
    let all = DropReason::ALL
        .iter()
        .map(|reason| (*reason, rig.drops(*reason)));
    all.filter(|(_, count)| *count > 0).collect()
}

fn on_paper() -> (Published<Snapshot>, Quiescence) {
    (Published::new(snapshot()), Quiescence::new())
}

fn share(ports: &[PortId], frames: usize) -> Share {
    Share {
        ports: ports.to_vec(),
        frames,
    }
}

fn one_worker(frames: usize) -> Rig {
    let (published, quiescence) = on_paper();
    Rig::start(published, &quiescence, &[share(&PORTS, frames)])
}

/// The uplink and the host with one, the workloads with the other.
fn two_workers(frames: usize) -> Rig {
    let (published, quiescence) = on_paper();
    let shares = [
        share(&[UPLINK, HOST], frames),
        share(&[WORKLOAD, OTHER_WORKLOAD], frames),
    ];
    Rig::start(published, &quiescence, &shares)
}

fn collect(rig: &Rig, templates: &[Template], ledger: &mut Ledger) {
    for port in PORTS {
        ledger.take(templates, port, rig.wire(port).sent());
    }
}

/// A generator good enough to mix packets (Knuth, The Art of Computer Programming, section 3.3.4).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}
