//! Modes change under traffic, and nothing is lost by it.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use underpass::observe::report::CounterReport;

use super::flow::{Flow, flow};
use super::netns::{isolated, quiet_counters};
use super::support::*;

#[test]
fn a_mode_switch_loses_nothing_and_restarts_nothing() {
    isolated(|| switch_under_traffic("ipip"));
}

/// Blocks and addresses from IPAM.
#[test]
fn on_a_directory_with_ipam_a_mode_switch_loses_nothing() {
    isolated(|| switch_under_traffic("ipip --datastore dir"));
}

#[test]
fn on_etcd_with_ipam_a_mode_switch_loses_nothing() {
    if Command::new("etcd").arg("--version").output().is_err() {
        println!("passed over: there is no etcd (Debian: etcd-server)");
        return;
    }
    isolated(|| switch_under_traffic("ipip --datastore etcd"));
}

fn switch_under_traffic(arguments: &str) {
    let lab = Lab::up(arguments);
    let pids = lab.pids();
    let (pod2, pod3) = (pod_address("pod2", POD2), pod_address("pod3", POD3));
    // Packets that wait for a workload's Ethernet address come after those that follow them.
    assert!(pings("pod1", pod2) && pings("pod1", pod3));
    let (near, far) = during_flows((pod2, pod3), || {
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
pub fn not_taken(report: &CounterReport) -> u64 {
    let xdp = report.ports.iter().filter_map(|port| port.xdp);
    xdp.map(|xdp| xdp.rx_dropped + xdp.rx_ring_full).sum()
}

/// Runs `action` while numbered datagrams go from pod1 to pod2 and to pod3.
fn during_flows((pod2, pod3): (Ipv4Addr, Ipv4Addr), action: impl FnOnce()) -> (Flow, Flow) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let near = scope.spawn(|| flow("up-pod1", "up-pod2", pod2, &stop));
        let far = scope.spawn(|| flow("up-pod1", "up-pod3", pod3, &stop));
        thread::sleep(Duration::from_millis(200));
        action();
        stop.store(true, Ordering::Relaxed);
        (near.join().expect("flow"), far.join().expect("flow"))
    })
}

/// A pod's address: IPAM's, or the lab's own.
pub fn pod_address(pod: &str, usual: Ipv4Addr) -> Ipv4Addr {
    let pods = std::fs::read_to_string("/run/underpass-lab/state/pods").unwrap_or_default();
    let line = pods.lines().find(|line| line.contains(&format!(" {pod} ")));
    let address = line.and_then(|line| line.split(' ').nth(2));
    address.map_or(usual, |address| address.parse().expect("an address"))
}
