//! Modes change under traffic, and nothing is lost by it.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::netns::{isolated, udp_socket};
use super::support::*;

/// Between two datagrams of a flow: 2000 a second.
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
        for flow in [near, far] {
            assert!(flow.sent > 2000, "{flow:?}");
            assert_eq!(
                flow,
                Flow {
                    sent: flow.sent,
                    received: flow.sent,
                    late: 0
                }
            );
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

/// What became of a flow's datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    let start = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        socket.send_to(&u64::to_be_bytes(number), to).expect("send");
        number += 1;
        let due = start + PACE * number as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
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
