//! A full Internet table learned: `cargo bench --bench learned`.
//!
//! 901,899 prefixes with 16 next hops come in batches, as a BGP peer's or another daemon's do, into the
//! tables of a node that has 20 workloads of its own; a reader of the FIB takes part, as a worker does, so
//! that the waits for it are counted. Each group has two next hops. Then one of the next hops fails, by
//! the kernel's word (its neighbour does not answer) and by a peer's (its session has ended), and all is
//! withdrawn.

#[path = "common.rs"]
mod common;
#[path = "node.rs"]
mod node;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use ipnet::IpNet;
use underpass::control::apply::{Facts, Forwarding, Way};
use underpass::control::learned::GroupId;
use underpass::control::resolve::resolve;
use underpass::forward::Adjacency;
use underpass::port::PortId;
use underpass::resources::ClusterState;
use underpass::wire::{MacAddr, Mtu};

const NEXT_HOPS: u32 = 16;
const BATCH: usize = 4096;
const ROUNDS: usize = 100;

fn main() {
    let Some(text) = common::internet() else {
        return;
    };
    let prefixes = text
        .lines()
        .filter_map(|line| line.trim().parse::<IpNet>().ok());
    let prefixes: Vec<IpNet> = prefixes.filter(|net| net.addr().is_ipv4()).collect();
    let name = "worker1".parse().expect("a name");
    let wanted = resolve(&ClusterState::default(), &name);
    let mut forwarding = Forwarding::new(node::fixed(), wanted.clone());
    let mut underlay = Underlay { failed: None };
    forwarding.apply(wanted, &underlay);
    let (stop, mut reader) = (
        Arc::new(AtomicBool::new(false)),
        forwarding.quiescence().register(),
    );
    let stopped = Arc::clone(&stop);
    let worker = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            reader.quiescent();
            thread::yield_now();
        }
    });

    let resident = || resident_kilobytes() / 1000;
    let before = resident();
    let start = Instant::now();
    for group in 0..NEXT_HOPS {
        let pair: Arc<[IpAddr]> = [next_hop(group), next_hop(group + 1)].into();
        forwarding.set_group(GroupId(group), pair, &underlay);
    }
    let mut told = prefixes
        .iter()
        .zip((0..NEXT_HOPS).cycle())
        .map(|(net, group)| (*net, Some(GroupId(group))));
    loop {
        let batch: Vec<(IpNet, Option<GroupId>)> = told.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        assert!(forwarding.learn(batch, &underlay).is_empty(), "room");
    }
    println!(
        "{} prefixes learned in {:.0?}, {} MB resident more than the {before} MB before",
        forwarding.learned_count(),
        start.elapsed(),
        resident() - before
    );

    let of_first = prefixes.len() / NEXT_HOPS as usize;
    let mut by_kernel = Vec::new();
    let mut by_peer = Vec::new();
    for round in 0..ROUNDS {
        let failed = next_hop(round as u32 % NEXT_HOPS);
        underlay.failed = Some(failed);
        let start = Instant::now();
        forwarding.refresh(&underlay);
        by_kernel.push(start.elapsed());
        assert!(leads_elsewhere(&forwarding, failed));
        underlay.failed = None;
        forwarding.refresh(&underlay);

        let group = round as u32 % NEXT_HOPS;
        let left: Arc<[IpAddr]> = [next_hop(group + 1)].into();
        let start = Instant::now();
        forwarding.set_group(GroupId(group), left, &underlay);
        by_peer.push(start.elapsed());
        let pair: Arc<[IpAddr]> = [next_hop(group), next_hop(group + 1)].into();
        forwarding.set_group(GroupId(group), pair, &underlay);
    }
    for (what, mut times) in [
        ("a neighbour of the kernel's fails", by_kernel),
        ("a peer's next hop goes", by_peer),
    ] {
        times.sort();
        println!(
            "{what}, with {of_first} prefixes: median {:.1?}, worst {:.1?}",
            times[times.len() / 2],
            times[times.len() - 1]
        );
    }

    let start = Instant::now();
    for batch in prefixes.chunks(BATCH) {
        forwarding.learn(batch.iter().map(|net| (*net, None)), &underlay);
    }
    let gone = start.elapsed();
    // As a node does some seconds later.
    forwarding.give_memory_back(&underlay);
    underpass::port::heap::give_pages_back();
    println!(
        "all withdrawn in {:.0?}, {} left, {} MB resident more than before",
        gone,
        forwarding.learned_count(),
        resident().saturating_sub(before)
    );
    stop.store(true, Ordering::Relaxed);
    worker.join().expect("the reader");
}

fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

fn next_hop(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a1e_0002 + number % NEXT_HOPS).into()
}

/// Whether no group leads to the failed next hop.
fn leads_elsewhere(forwarding: &Forwarding, failed: IpAddr) -> bool {
    let Way::Known(mac, _) = (Underlay { failed: None }).way(failed) else {
        return false;
    };
    let snapshot = forwarding.published().get();
    snapshot
        .adjacencies
        .iter()
        .all(|adjacency| match adjacency {
            Adjacency::Forward(egress) => !egress.header().starts_with(&mac.0),
            Adjacency::Several(several) => several
                .ways()
                .iter()
                .all(|egress| !egress.header().starts_with(&mac.0)),
            _ => true,
        })
}

/// An underlay on which everybody is a neighbour but for one who does not answer.
struct Underlay {
    failed: Option<IpAddr>,
}

impl Facts for Underlay {
    fn way(&self, node: IpAddr) -> Way {
        let IpAddr::V4(v4) = node else {
            return Way::None;
        };
        match self.failed == Some(node) {
            true => Way::Failed,
            false => Way::Known(MacAddr([2, 0, 0, 0, 1, v4.octets()[3]]), Mtu::ETHERNET),
        }
    }

    fn workload_mac(&self, _: PortId, _: IpAddr) -> Option<MacAddr> {
        Some(MacAddr([2, 0, 0, 0, 2, 0]))
    }

    fn mtu(&self, _: PortId) -> Mtu {
        Mtu::ETHERNET
    }
}
