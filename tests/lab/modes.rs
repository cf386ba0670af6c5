//! Every mode carries ping and TCP between pods, and from and to nodes.

use std::time::Instant;

use super::netns::{isolated, sh};
use super::support::*;

const BYTES: usize = 100_000_000;

#[test]
fn ipip_carries_everything() {
    isolated(|| carries_everything("ipip"));
}

#[test]
fn vxlan_carries_everything() {
    isolated(|| carries_everything("vxlan"));
}

#[test]
fn direct_carries_everything() {
    isolated(|| carries_everything("direct"));
}

#[test]
fn ipip_cross_carries_everything() {
    isolated(|| carries_everything("ipip-cross"));
}

#[test]
fn vxlan_cross_carries_everything() {
    isolated(|| carries_everything("vxlan-cross"));
}

#[test]
fn tun_workloads_are_carried_by_ipip_and_vxlan() {
    isolated(|| {
        let lab = Lab::up("ipip --io tun");
        for mode in ["ipip", "vxlan"] {
            lab.script(&format!("mode {mode}"));
            between_pods(10_000_000);
        }
    });
}

/// The kernel alone, which the other modes are compared with; and back and forth.
#[test]
fn native_is_forwarded_by_the_kernel() {
    isolated(|| {
        let lab = Lab::up("native");
        for mode in ["native", "ipip", "native"] {
            lab.script(&format!("mode {mode}"));
            let alive = sh("ps -e -o stat=,args= | awk '$1 !~ /^Z/ && $2 ~ /underpass$/' | wc -l");
            assert_eq!(
                alive.trim(),
                if mode == "native" { "0" } else { "4" },
                "{mode}"
            );
            between_pods(10_000_000);
        }
    });
}

fn carries_everything(mode: &str) {
    let _lab = Lab::up(mode);
    between_pods(BYTES);
    from_and_to_nodes();
}

pub(super) fn between_pods(bytes: usize) {
    for (from, to, address) in [
        ("pod1", "pod2", POD2),
        ("pod2", "pod1", POD1),
        ("pod1", "pod3", POD3),
        ("pod3", "pod1", POD1),
    ] {
        assert!(pings(from, address), "{from} to {to}");
        let start = Instant::now();
        transfer(from, to, address, bytes);
        let rate = bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9;
        println!("{from} to {to}: {rate:.2} Gbit/s");
    }
}

/// Processes on a node reach pods everywhere; pods reach nodes.
fn from_and_to_nodes() {
    for (from, to, address) in [
        ("master", "pod0", POD0),
        ("master", "pod2", POD2),
        ("master", "pod3", POD3),
        ("worker3", "pod1", POD1),
        ("pod1", "worker1", WORKER1),
        ("pod1", "worker2", WORKER2),
        ("pod1", "worker3", WORKER3),
    ] {
        assert!(pings(from, address), "{from} to {to}");
        transfer(from, to, address, 1_000_000);
    }
}
