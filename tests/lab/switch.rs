//! Modes change under traffic, and nothing is lost by it.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use underpass::observe::report::CounterReport;

use super::netns::{isolated, quiet_counters, udp_socket};
use super::support::*;

/// Between two datagrams of a flow.
const PACE: Duration = Duration::from_micros(500);

#[test]
fn a_mode_switch_loses_nothing_and_restarts_nothing() {
    isolated(|| {
        let lab = Lab::up("ipip");
        let pids = lab.pids();
        // Packets that wait for a workload's Ethernet address come after those that follow them.
        assert!(pings("pod1", POD2) && pings("pod1", POD3));
        let (near, far) = during_flows(|| {
            for mode in [
                "vxlan",
                "direct",
                "vxlan-cross",
                "ipip-cross",
                "ipip",
                "direct",
                "ipip",
            ] {
                lab.script(&format!("mode {mode}"));
                // The new mode carries traffic for a while.
                thread::sleep(Duration::from_millis(200));
            }
        });
        println!("pod1 to pod2: {near:?}; pod1 to pod3: {far:?}");
        // The kernel's word on rings that were full because a router was not given the processor.
        let reports = NODES.map(|node| quiet_counters(&socket(node)));
        let starved: u64 = reports.iter().map(not_taken).sum();
        println!("{starved} packets found a ring full");
        for flow in [near, far] {
            assert!(flow.sent > 1000, "{flow:?}");
            assert_eq!(flow.late, 0, "{flow:?}");
            assert!(
                flow.sent - flow.received <= starved,
                "{flow:?}, {starved} starved"
            );
        }
        for report in &reports {
            let lost: Vec<_> = report
                .drops
                .iter()
                .filter(|drop| drop.packets > 0)
                .collect();
            assert!(lost.is_empty(), "{lost:?}");
        }
        assert_eq!(lab.pids(), pids);
        assert!(
            pids.iter()
                .all(|pid| std::path::Path::new(&format!("/proc/{pid}/exe")).exists())
        );
    });
}

#[test]
fn a_tcp_connection_survives_every_switch() {
    isolated(|| {
        let lab = Lab::up("direct");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let transfers = scope.spawn(|| {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    transfer("pod3", "pod1", POD1, 20_000_000);
                    count += 1;
                }
                count
            });
            for mode in MODES.iter().cycle().take(2 * MODES.len()) {
                lab.script(&format!("mode {mode}"));
            }
            stop.store(true, Ordering::Relaxed);
            assert!(transfers.join().expect("transfers") > 0);
        });
    });
}

/// Packets for a socket that found its ring full.
fn not_taken(report: &CounterReport) -> u64 {
    let xdp = report.ports.iter().filter_map(|port| port.xdp);
    xdp.map(|xdp| xdp.rx_dropped + xdp.rx_ring_full).sum()
}

/// What became of a flow's datagrams.
#[derive(Debug, Clone, Copy)]
struct Flow {
    sent: u64,
    received: u64,
    /// Those that came after a later one, or twice.
    late: u64,
}

/// Runs `action` while numbered datagrams go from pod1 to pod2 and to pod3.
fn during_flows(action: impl FnOnce()) -> (Flow, Flow) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let near = scope.spawn(|| flow("pod2", POD2, &stop));
        let far = scope.spawn(|| flow("pod3", POD3, &stop));
        thread::sleep(Duration::from_millis(200));
        action();
        stop.store(true, Ordering::Relaxed);
        (near.join().expect("flow"), far.join().expect("flow"))
    })
}

fn flow(to: &str, address: Ipv4Addr, stop: &AtomicBool) -> Flow {
    let (sender, receiver) = (udp_socket("up-pod1", 0), udp_socket(&space(to), 7000));
    // What a receiver that is not given the processor would lose is not the routers' loss.
    setsockopt(&receiver, RcvBufForce, &(64 << 20)).expect("receive buffer");
    thread::scope(|scope| {
        let receiving = scope.spawn(move || receive(&receiver));
        let sent = send(&sender, SocketAddrV4::new(address, 7000), stop);
        let (received, late) = receiving.join().expect("receiver");
        Flow {
            sent,
            received,
            late,
        }
    })
}

/// Sends numbers from 0 at a pace, then a last one that says it is.
fn send(socket: &UdpSocket, to: SocketAddrV4, stop: &AtomicBool) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let datagram = u64::to_be_bytes(number);
        socket.send_to(&datagram, to).expect("send");
        number += 1;
        // Time that this thread was not given is not made up for: a burst would overflow a ring.
        thread::sleep(PACE);
    }
    thread::sleep(Duration::from_millis(100));
    socket.send_to(&u64::MAX.to_be_bytes(), to).expect("send");
    number
}

/// How many numbers came, and how many of them not in order.
fn receive(socket: &UdpSocket) -> (u64, u64) {
    let (mut received, mut late, mut next) = (0, 0, 0);
    let mut buffer = [0; 8];
    loop {
        socket.recv(&mut buffer).expect("datagram");
        match u64::from_be_bytes(buffer) {
            u64::MAX => return (received, late),
            number if number >= next => next = number + 1,
            _ => late += 1,
        }
        received += 1;
    }
}
