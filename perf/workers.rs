//! One worker and two, with all that a node gives them, on ports in memory: `cargo bench --bench workers`.
//!
//! Each worker has a queue of its own on the workload's side, which always has a batch waiting, and one
//! on the uplink's, which takes all. Packets of 60 bytes, each a flow of its own, are encapsulated in
//! VXLAN. What a device would do, writing packets into frames, is done by the worker's own core and is
//! in the figures. Needs two cores that do nothing else.

mod common;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use mio::Poll;
use underpass::fib::{Fib, NextHop};
use underpass::forward::{
    Adjacency, Egress, PortConfig, PortRole, ReversePath, RouterAddresses, Snapshot, TunnelHeader,
    Tunnels, WorkloadSources,
};
use underpass::packet::{BATCH, Batch, FramePool, HEADROOM, Link};
use underpass::port::{Capabilities, Port, PortId, PortStatistics, TxOutcome};
use underpass::wire::{MacAddr, Mtu, Vni, checksum};
use underpass::worker::counters::Counters;
use underpass::worker::mailbox::{Message, mailbox};
use underpass::worker::publish::{Published, Quiescence};
use underpass::worker::run::{Parts, Worker};
use underpass::worker::slow_path;

const UPLINK: PortId = PortId(0);
const WORKLOAD: PortId = PortId(1);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 11);
const POD: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const FRAMES: usize = 4096;
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(200);

fn main() {
    println!("{}", common::machine());
    let mut rates: [Vec<f64>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for workers in [1, 2] {
            rates[workers - 1].push(run(workers));
        }
    }
    println!(
        "\n{:34} {:>9} {:>9} {:>11}",
        "VXLAN encap", "best M/s", "median", "ns, median"
    );
    let medians = [1, 2].map(|workers: usize| {
        let rates = &mut rates[workers - 1];
        rates.sort_by(f64::total_cmp);
        let (best, median) = (rates[ROUNDS - 1] / 1e6, rates[ROUNDS / 2] / 1e6);
        println!(
            "{:34} {best:9.2} {median:9.2} {:11.1}",
            format!("workers: {workers}"),
            1e3 / median
        );
        median
    });
    println!(
        "two are {:.2} times as fast as one",
        medians[1] / medians[0]
    );
}

/// Packets a second that so many workers send.
fn run(count: usize) -> f64 {
    let quiescence = Quiescence::new();
    let snapshot = Published::new(snapshot(&quiescence));
    let (punted, _queue) = slow_path::queue(2);
    let (mailboxes, inboxes): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| {
            let poll = Poll::new().expect("a poll");
            let (mailbox, inbox) = mailbox(&poll, FRAMES).expect("a mailbox");
            (mailbox, (poll, inbox))
        })
        .unzip();
    let counters: Vec<_> = (0..count).map(|_| Arc::new(Counters::new(2))).collect();
    let mut threads = Vec::new();
    for (number, (poll, inbox)) in inboxes.into_iter().enumerate() {
        let worker = Worker::new(Parts {
            number,
            identifications: count as u16,
            first_identification: 0,
            cpu: Some(number),
            ports: vec![Box::new(Source::new(number)), Box::new(Sink::new())],
            owners: vec![None, None],
            pool: FramePool::with_memory(FRAMES, 2048, HEADROOM),
            poll,
            inbox,
            workers: mailboxes.clone(),
            slow_path: punted.clone(),
            snapshot: snapshot.clone(),
            quiescence: quiescence.register(),
            counters: Arc::clone(&counters[number]),
        });
        let worker = worker.expect("a worker");
        threads.push(thread::spawn(move || {
            worker.run();
        }));
    }
    thread::sleep(ROUND / 4);
    let sent = || -> u64 {
        let of_uplink = |counters: &Arc<Counters>| counters.ports[0].tx_packets.get();
        counters.iter().map(of_uplink).sum()
    };
    let (before, start) = (sent(), Instant::now());
    thread::sleep(ROUND);
    let rate = (sent() - before) as f64 / start.elapsed().as_secs_f64();
    for mailbox in &mailboxes {
        assert!(mailbox.post(Message::Stop).is_ok(), "room to say stop");
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("a worker"));
    rate
}

fn snapshot(quiescence: &Quiescence) -> Snapshot {
    let (fib, mut writer) = Fib::new(quiescence.clone());
    let net: IpNet = "198.51.100.0/24".parse().expect("a prefix");
    writer.insert(net, NextHop(0)).expect("room");
    let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
    let tunnel = TunnelHeader {
        source: NODE,
        far_end: Ipv4Addr::new(10, 30, 0, 12),
        vxlan: Some((Vni::CALICO, 4789, mac(0x11), mac(0x12))),
    };
    let port = |id, role, last| PortConfig {
        id,
        role,
        link: Link::Ethernet(mac(last)),
        sources: WorkloadSources {
            allowed: vec![IpNet::from(IpAddr::V4(POD))],
            own: vec![IpAddr::V4(POD)],
        },
        partial_checksums: role == PortRole::Workload,
    };
    Snapshot {
        fib,
        adjacencies: vec![Adjacency::Forward(Egress::tunnel(
            UPLINK,
            Mtu(1450),
            mac(1),
            mac(9),
            &tunnel,
        ))],
        ports: vec![
            port(UPLINK, PortRole::Uplink, 1),
            port(WORKLOAD, PortRole::Workload, 2),
        ],
        tunnels: Tunnels {
            peers: [Ipv4Addr::new(10, 30, 0, 12)].into_iter().collect(),
            node_address: Some(NODE),
            vxlan_port: 4789,
            vni: Vni::CALICO,
            also: (4789, Vni::CALICO),
            vtep_mac: mac(0x11),
            strict_reserved_bits: false,
            local_addresses: [IpAddr::V4(NODE), IpAddr::V4(POD)].into_iter().collect(),
            v6: None,
            reverse_path: ReversePath::default(),
            from_workloads: Default::default(),
        },
        router: RouterAddresses {
            v4: NODE,
            v6: RouterAddresses::GATEWAY_V6,
        },
        bridges: Default::default(),
    }
}

/// A queue that always has a batch.
struct Source {
    capabilities: Capabilities,
    packet: [u8; 60],
    flow: u16,
}

impl Source {
    fn new(number: usize) -> Self {
        let mut packet = [0; 60];
        packet[..6].copy_from_slice(&MacAddr::WORKLOAD_GATEWAY.0);
        packet[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 3, 8, 0]);
        packet[14..26].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0]);
        packet[26..30].copy_from_slice(&POD.octets());
        packet[30..34].copy_from_slice(&[198, 51, 100, number as u8 + 1]);
        let sum = checksum::of(&packet[14..34]).to_be_bytes();
        packet[24..26].copy_from_slice(&sum);
        packet[36..42].copy_from_slice(&[0, 9, 0, 26, 0x12, 0x34]);
        Self {
            capabilities: capabilities(),
            packet,
            flow: 0,
        }
    }
}

impl Port for Source {
    fn id(&self) -> PortId {
        WORKLOAD
    }

    fn name(&self) -> &str {
        "source"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> io::Result<usize> {
        let before = batch.len();
        while batch.len() < BATCH {
            let Some(mut frame) = pool.take() else { break };
            self.flow = self.flow.wrapping_add(1);
            self.packet[34..36].copy_from_slice(&self.flow.to_be_bytes());
            assert!(frame.fill(&self.packet, HEADROOM));
            batch.push(frame);
        }
        Ok(batch.len() - before)
    }

    fn tx(&mut self, _pool: &mut FramePool, _batch: &mut Batch) -> TxOutcome {
        TxOutcome::default()
    }

    fn reap(&mut self, _pool: &mut FramePool) {}

    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }

    fn statistics(&self) -> PortStatistics {
        PortStatistics::default()
    }
}

/// A queue that takes all.
struct Sink {
    capabilities: Capabilities,
}

impl Sink {
    fn new() -> Self {
        Self {
            capabilities: capabilities(),
        }
    }
}

impl Port for Sink {
    fn id(&self) -> PortId {
        UPLINK
    }

    fn name(&self) -> &str {
        "sink"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, _pool: &mut FramePool, _batch: &mut Batch) -> io::Result<usize> {
        Ok(0)
    }

    fn tx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome {
        let sent_bytes = batch.iter().map(|frame| frame.len()).sum();
        let sent = batch.len();
        batch.drain(..).for_each(|frame| pool.give(frame));
        TxOutcome {
            sent,
            sent_bytes,
            ..TxOutcome::default()
        }
    }

    fn reap(&mut self, _pool: &mut FramePool) {}

    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }

    fn statistics(&self) -> PortStatistics {
        PortStatistics::default()
    }
}

fn capabilities() -> Capabilities {
    Capabilities {
        link: Link::Ethernet(MacAddr::default()),
        mtu: Mtu::ETHERNET,
        io: "memory".to_owned(),
    }
}
