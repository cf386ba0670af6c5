//! Every packet that came in left, or is counted under one reason.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use underpass::observe::report::CounterReport;

use super::netns::{inside, isolated, quiet_counters, sh, udp_socket};
use super::support::*;

/// Packets that the routers receive at least, in all.
const WANTED: u64 = 1_000_000;
/// Datagrams of one blast.
const BLAST: u64 = 500_000;
/// Of these: with an address in pod2's block that nobody has, with a TTL of 1, from an address that
/// is not pod1's.
const NOBODY: u64 = 25_000;
const SHORT_LIVED: u64 = 25_000;
const SPOOFED: u64 = 25_000;

#[test]
fn a_million_packets_are_accounted_for() {
    isolated(|| {
        let _lab = Lab::up("ipip");
        let before = NODES.map(|node| quiet_counters(&socket(node)));
        let (left_pod, entered_worker2) =
            (sent("up-pod1", "eth0"), sent("up-fabric", "to-worker2"));
        let (mut arrived, mut after, mut blasts) = (0, before.clone(), 0);
        while received(&after) < WANTED {
            assert!(
                blasts < 10,
                "{} packets received of {}",
                received(&after),
                blasts * BLAST
            );
            arrived += blast();
            blasts += 1;
            after = NODES.map(|node| quiet_counters(&socket(node)));
        }
        for (node, report) in NODES.iter().zip(&after) {
            println!("{node}: {:?} {:?}", report.balance(), drops(report));
            assert_eq!(report.balance().difference(), 0, "{node}");
        }
        let worker2 = change(&before[2], &after[2]);

        // The kernel drops what finds AF_XDP's ring full, and says how many; all else came in. The pod's kernel
        // has a word to say now and then, so both are read until it was silent between.
        let mut last = (0, 0);
        let mut worker1 = change(&before[1], &after[1]);
        for _ in 0..10 {
            let left = sent("up-pod1", "eth0") - left_pod;
            last = (worker1.received("cali1") + worker1.not_taken, left);
            if last.0 == last.1 {
                break;
            }
            worker1 = change(&before[1], &quiet_counters(&socket(NODES[1])));
        }
        let (taken, left_pod) = last;
        assert!(
            left_pod > blasts * BLAST / 2,
            "{left_pod} packets left pod1"
        );
        assert_eq!(taken, left_pod);
        let entered_worker2 = sent("up-fabric", "to-worker2") - entered_worker2;
        let steered = worker2.received("eth0") + worker2.not_taken;
        // A few more, ARP, were for worker2's kernel.
        assert!(
            (0..100).contains(&(entered_worker2 as i64 - steered as i64)),
            "{steered} of {entered_worker2}"
        );

        // What was wrong with a packet is why it was dropped, and nothing else was dropped.
        let blasts = |each: u64| 1..=each * blasts;
        assert!(
            blasts(SPOOFED).contains(&worker1.dropped("spoofed_source")),
            "{worker1:?}"
        );
        assert!(
            blasts(SHORT_LIVED).contains(&worker1.dropped("ttl_expired")),
            "{worker1:?}"
        );
        assert!(
            blasts(NOBODY).contains(&worker2.dropped("blackhole")),
            "{worker2:?}"
        );
        worker1.dropped_only_for(&[
            "spoofed_source",
            "ttl_expired",
            "slow_path_full",
            "tx_ring_full",
        ]);
        worker2.dropped_only_for(&[
            "blackhole",
            "slow_path_full",
            "tx_ring_full",
            "neighbour_unresolved",
        ]);
        assert!(
            worker2.sent("cali2") >= arrived && arrived > 0,
            "{worker2:?} {arrived}"
        );
    });
}

#[test]
fn tun_workloads_are_accounted_for() {
    isolated(|| {
        let _lab = Lab::up("vxlan --io tun");
        let arrived = blast();
        for node in NODES {
            let report = quiet_counters(&socket(node));
            println!("{node}: {:?} {:?}", report.balance(), drops(&report));
            assert_eq!(report.balance().difference(), 0, "{node}");
        }
        assert!(arrived > 0);
    });
}

fn received(reports: &[CounterReport]) -> u64 {
    reports.iter().map(|report| report.balance().received).sum()
}

/// Packets that left a device, by the kernel's word.
fn sent(namespace: &str, device: &str) -> u64 {
    let text = sh(&format!("ip -n {namespace} -j -s link show {device}"));
    let shown: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    shown[0]["stats64"]["tx"]["packets"]
        .as_u64()
        .expect("a number")
}

/// Sends everything from pod1 to pod2 as fast as it goes; how many datagrams pod2 got.
fn blast() -> u64 {
    let receiver = udp_socket("up-pod2", 9000);
    receiver
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("timeout");
    let (done, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| receive(&receiver, &done, &arrived));
        let plain = BLAST - NOBODY - SHORT_LIVED - SPOOFED;
        let senders = [
            scope.spawn(move || send(plain / 2, POD2, 64)),
            scope.spawn(move || send(plain - plain / 2, POD2, 64)),
            scope.spawn(|| {
                send(NOBODY, Ipv4Addr::new(192, 168, 2, 33), 64);
                send(SHORT_LIVED, POD2, 1);
                send_spoofed(SPOOFED);
            }),
        ];
        for sender in senders {
            sender.join().expect("sender");
        }
        done.store(true, Ordering::Relaxed);
    });
    arrived.into_inner()
}

fn send(count: u64, to: Ipv4Addr, ttl: u32) {
    let socket = udp_socket("up-pod1", 0);
    socket.set_ttl(ttl).expect("TTL");
    for number in 0..count {
        send_one(&socket, number, to);
    }
}

/// An unreachable message that came meanwhile makes a call fail before it sends.
fn send_one(socket: &UdpSocket, number: u64, to: Ipv4Addr) {
    let to = SocketAddrV4::new(to, 9000);
    while socket.send_to(&number.to_be_bytes(), to).is_err() {
        thread::yield_now();
    }
}

fn send_spoofed(count: u64) {
    let socket = inside("up-pod1", || {
        Socket::new(
            Domain::IPV4,
            Type::from(libc::SOCK_RAW),
            Some(Protocol::from(libc::IPPROTO_RAW)),
        )
    });
    let socket = socket.expect("raw socket");
    let to = SockAddr::from(SocketAddrV4::new(POD2, 0));
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4([192, 168, 1, 11], POD2.octets(), 64).udp(9000, 9000);
    builder.write(&mut packet, &[0; 8]).expect("a packet");
    for _ in 0..count {
        while socket.send_to(&packet, &to).is_err() {
            thread::yield_now();
        }
    }
}

fn receive(socket: &UdpSocket, done: &AtomicBool, arrived: &AtomicU64) {
    let mut buffer = [0; 64];
    loop {
        match socket.recv(&mut buffer) {
            Ok(_) => _ = arrived.fetch_add(1, Ordering::Relaxed),
            Err(_) if done.load(Ordering::Relaxed) => return,
            Err(_) => {}
        }
    }
}

/// What one node counted between two reports.
#[derive(Debug)]
struct Change {
    received: BTreeMap<String, u64>,
    sent: BTreeMap<String, u64>,
    drops: BTreeMap<String, u64>,
    /// What the kernel had for a socket and could not give it.
    not_taken: u64,
}

impl Change {
    fn received(&self, port: &str) -> u64 {
        self.received[port]
    }

    fn sent(&self, port: &str) -> u64 {
        self.sent[port]
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.drops.get(reason).copied().unwrap_or(0)
    }

    fn dropped_only_for(&self, reasons: &[&str]) {
        let others: Vec<_> = self
            .drops
            .keys()
            .filter(|reason| !reasons.contains(&reason.as_str()))
            .collect();
        assert!(others.is_empty(), "{others:?} beside {reasons:?}");
    }
}

fn change(before: &CounterReport, after: &CounterReport) -> Change {
    let ports = || before.ports.iter().zip(&after.ports);
    let xdp = |report: &CounterReport| -> u64 {
        let all = report.ports.iter().filter_map(|port| port.xdp);
        all.map(|xdp| xdp.rx_dropped + xdp.rx_ring_full).sum()
    };
    Change {
        received: ports()
            .map(|(b, a)| (a.name.clone(), a.rx_packets - b.rx_packets))
            .collect(),
        sent: ports()
            .map(|(b, a)| (a.name.clone(), a.tx_packets - b.tx_packets))
            .collect(),
        drops: before
            .drops
            .iter()
            .zip(&after.drops)
            .map(|(b, a)| (a.reason.clone(), a.packets - b.packets))
            .filter(|(_, packets)| *packets > 0)
            .collect(),
        not_taken: xdp(after) - xdp(before),
    }
}

fn drops(report: &CounterReport) -> BTreeMap<&str, u64> {
    let drops = report.drops.iter().filter(|drop| drop.packets > 0);
    drops
        .map(|drop| (drop.reason.as_str(), drop.packets))
        .collect()
}
