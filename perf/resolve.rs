//! From resources to forwarding, on a large cluster: `cargo bench --bench resolve`.
//!
//! 5,000 nodes with 10 blocks each and 100,000 workloads, seen from the first node; 20 of the workloads
//! are its own. From scratch: [`Resolver::new`], and [`Forwarding`] with every route in the FIB. Then
//! single changes of each kind, each put into the state, settled and applied; a reader of the FIB takes
//! part, as a worker does, so that the waits for it are counted.

#[path = "node.rs"]
mod node;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use underpass::control::apply::{Facts, Forwarding, Way};
use underpass::control::resolve::Resolver;
use underpass::port::PortId;
use underpass::resources::{ClusterState, Resource};
use underpass::wire::{MacAddr, Mtu};

const NODES: u32 = 5_000;
const BLOCKS: u32 = 10;
const WORKLOADS: u32 = 20;
const ROUNDS: u32 = 200;

/// The first address of the pool, a /8.
const POOL: u32 = 0x0a00_0000;
/// The first address of the nodes, in a /16.
const UNDERLAY: u32 = 0xac10_0001;

fn main() {
    let mut state: ClusterState = cluster().into_iter().collect();
    println!(
        "{NODES} nodes, {} blocks, {} workloads",
        NODES * BLOCKS,
        NODES * WORKLOADS
    );
    let local = "node-0000".parse().expect("a name");
    let start = Instant::now();
    let mut resolver = Resolver::new(&state, &local);
    let resolved = start.elapsed();
    let start = Instant::now();
    let mut forwarding = Forwarding::new(node::fixed(), resolver.wanted().clone());
    forwarding.apply(resolver.wanted().clone(), &Underlay);
    println!(
        "from scratch: resolved in {resolved:.1?}, applied in {:.1?}: {} routes",
        start.elapsed(),
        forwarding.routes().len()
    );

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
    let far = |round: u32| 1 + round * 7 % (NODES - 1);
    let mut measure = |what: &str, change: &dyn Fn(u32) -> Resource| {
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let resource = change(round);
            let start = Instant::now();
            resolver.put(&mut state, resource);
            let delta = resolver.settle(&state);
            forwarding.update(resolver.wanted(), &delta, &Underlay);
            times.push(start.elapsed());
        }
        times.sort();
        let at = |part: usize| times[(times.len() - 1) * part / 100];
        println!(
            "{what:<52} median {:>8.1?}   99 % {:>8.1?}   worst {:>8.1?}",
            at(50),
            at(99),
            at(100)
        );
    };
    measure("a workload comes within its node's block", &|round| {
        endpoint(far(round), 50, address(far(round), 0, 60))
    });
    measure("a workload comes with a borrowed address", &|round| {
        endpoint(far(round), 51, address(far(round + 1), 1, 61))
    });
    measure("a local workload comes", &|round| {
        endpoint(0, 100 + round, address(0, 2, round % 64))
    });
    measure("a block moves to another node", &|round| {
        affinity(far(round), 3, far(round + 1))
    });
    measure("a node gets another address", &|round| {
        node(far(round), UNDERLAY + 0x4000 + round)
    });
    measure("a node comes", &|round| {
        node(NODES + round, UNDERLAY + 0x8000 + round)
    });
    println!("and of everything at once:");
    measure("the pool changes its mode", &|round| {
        pool(["Always", "CrossSubnet"][round as usize % 2])
    });
    stop.store(true, Ordering::Relaxed);
    worker.join().expect("the reader");
}

fn cluster() -> Vec<Resource> {
    let mut resources = vec![pool("Always")];
    for number in 0..NODES {
        resources.push(node(number, UNDERLAY + number));
        resources.extend((0..BLOCKS).map(|block| affinity(number, block, number)));
        resources.extend((0..WORKLOADS).map(|workload| {
            let address = address(number, workload % BLOCKS, 1 + workload / BLOCKS);
            endpoint(number, workload, address)
        }));
    }
    resources
}

fn name(number: u32) -> String {
    format!("node-{number:04}")
}

fn address(node: u32, block: u32, host: u32) -> Ipv4Addr {
    Ipv4Addr::from(POOL + ((node * BLOCKS + block) << 6) + host)
}

fn pool(mode: &str) -> Resource {
    let spec = json!({ "cidr": format!("{}/8", Ipv4Addr::from(POOL)), "ipipMode": mode });
    Resource::IpPool(read("pool", spec))
}

fn node(number: u32, underlay: u32) -> Resource {
    let bgp = json!({ "ipv4Address": format!("{}/16", Ipv4Addr::from(underlay)) });
    Resource::Node(read(&name(number), json!({ "bgp": bgp })))
}

fn affinity(number: u32, block: u32, holder: u32) -> Resource {
    let cidr = format!("{}/26", address(number, block, 0));
    let spec = json!({ "state": "confirmed", "node": name(holder), "cidr": cidr });
    Resource::BlockAffinity(read(&format!("block-{number}-{block}"), spec))
}

fn endpoint(number: u32, workload: u32, address: Ipv4Addr) -> Resource {
    let spec = json!({
        "node": name(number),
        "interfaceName": format!("cali{workload}"),
        "ipNetworks": [address.to_string()],
    });
    Resource::WorkloadEndpoint(read(&format!("{}-{workload}", name(number)), spec))
}

fn read<T: serde::de::DeserializeOwned>(name: &str, spec: Value) -> T {
    let resource = json!({ "metadata": { "name": name }, "spec": spec });
    serde_json::from_value(resource).expect("a resource")
}

/// An underlay on which everybody is a neighbour.
struct Underlay;

impl Facts for Underlay {
    fn way(&self, _: IpAddr) -> Way {
        Way::Known(MacAddr([2, 0, 0, 0, 1, 0]), Mtu::ETHERNET)
    }

    fn workload_mac(&self, _: PortId, _: IpAddr) -> Option<MacAddr> {
        Some(MacAddr([2, 0, 0, 0, 2, 0]))
    }

    fn mtu(&self, _: PortId) -> Mtu {
        Mtu::ETHERNET
    }
}
