//! The exercise of the notes: a Calico manifest as it is (BIRD and IP-in-IP), then with two lines of it
//! changed, which is VXLAN without BGP.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::flow::{Flow, flow};
use super::netns::{UNDERPASS, isolated, quiet_counters, sh, try_sh, wait_for};
use super::support::*;
use super::switch::{not_taken, pod_address};

const MANIFEST: &str = "/run/calico.yaml";

#[test]
fn a_calico_manifest_and_two_changed_lines_of_it_make_bgp_and_ipip_vxlan_alone() {
    let has_etcd = Command::new("etcd").arg("--version").output().is_ok();
    let datastore = if has_etcd { "etcd" } else { "dir" };
    isolated(|| exercise(datastore, &manifest()));
}

/// The manifest of the notes.
fn manifest() -> String {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/calico/octetz-calico.yaml");
    fs::read_to_string(file).unwrap_or_else(|_| {
        println!("octetz-calico.yaml is not beside the repository: config/lab/calico.yaml instead");
        committed()
    })
}

fn committed() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/lab/calico.yaml");
    fs::read_to_string(file).expect("config/lab/calico.yaml")
}

fn exercise(datastore: &str, manifest: &str) {
    fs::write(MANIFEST, manifest).expect("manifest");
    let lab = Lab::up(&format!("--manifest {MANIFEST} --datastore {datastore}"));
    let pids = lab.pids();
    // BGP brings the blocks, IP-in-IP carries the packets.
    wait_for("readiness, for which sessions are needed", is_ready);
    for node in NODES {
        assert!(listens(node), "{node} is to listen for BGP");
        let bgp = on(node, "health --bgp-ready");
        assert!(bgp.contains("ready: 3 of 3 session(s)"), "{bgp}");
        assert!(sh(&format!("cat {}", configuration(node))).contains("bgp: internal"));
    }
    let status = sh(&format!("{UNDERPASS} node status --node worker1"));
    assert_eq!(status.matches("| Established |").count(), 3, "{status}");
    assert_eq!(pool(), ["true", "Always", "Never"]);
    all_pods_ping();

    let changed = manifest
        .replace("calico_backend: \"bird\"", "calico_backend: \"vxlan\"")
        .replace("CALICO_IPV4POOL_IPIP", "CALICO_IPV4POOL_VXLAN");
    fs::write(MANIFEST, changed).expect("manifest");
    let (near, far) = during_flows(|| {
        let said = lab.script(&format!("import {MANIFEST}"));
        for line in [
            "IPPool(default-ipv4-ippool): ipipMode Always → Never, vxlanMode Never → Always\n",
            "-bird-ready: ignored: with this backend no BGP runs",
            "probes that fit the backend: -felix-live -felix-ready\n",
            "mode vxlan (before: ipip)\n",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
        for node in NODES {
            wait_for("BGP to end", || (!listens(node)).then_some(()));
        }
    });

    // No BGP, and nobody asks for it.
    wait_for("readiness", is_ready);
    for node in NODES {
        let bgp = on(node, "health --bgp-ready");
        assert!(bgp.contains("BGP is not in use by this node"), "{bgp}");
        assert!(sh(&format!("cat {}", configuration(node))).contains("bgp: off"));
        let sessions = sh(&format!("ip netns exec up-{node} ss -Htn"));
        assert!(!sessions.contains(":179"), "{sessions}");
    }
    assert_eq!(pool(), ["true", "Never", "Always"]);
    all_pods_ping();
    assert_eq!(lab.pids(), pids, "nothing restarts");

    let reports = NODES.map(|node| quiet_counters(&socket(node)));
    let starved: u64 = reports.iter().map(not_taken).sum();
    println!("pod1 to pod2: {near:?}; pod1 to pod3: {far:?}; {starved} found a ring full");
    for flow in [near, far] {
        assert!(flow.sent > 1000, "{flow:?}");
        assert!(flow.sent - flow.received <= starved, "{flow:?}");
        assert_eq!(flow.late, 0, "{flow:?}");
    }
}

fn during_flows(action: impl FnOnce()) -> (Flow, Flow) {
    let stop = AtomicBool::new(false);
    let (pod2, pod3) = (pod_address("pod2", POD2), pod_address("pod3", POD3));
    thread::scope(|scope| {
        let near = scope.spawn(|| flow("up-pod1", "up-pod2", pod2, &stop));
        let far = scope.spawn(|| flow("up-pod1", "up-pod3", pod3, &stop));
        thread::sleep(std::time::Duration::from_millis(300));
        action();
        thread::sleep(std::time::Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        (near.join().expect("flow"), far.join().expect("flow"))
    })
}

fn all_pods_ping() {
    let pods = [
        ("pod0", POD0),
        ("pod1", POD1),
        ("pod2", POD2),
        ("pod3", POD3),
    ];
    for (from, _) in pods {
        for (to, usual) in pods {
            assert!(
                from == to || pings(from, pod_address(to, usual)),
                "{from} to {to}"
            );
        }
    }
}

/// What `get ippool -o wide` says of NAT and of the modes.
fn pool() -> Vec<String> {
    let shown = on(
        "master",
        &format!("get ippool -o wide --config {}", configuration("master")),
    );
    let row = shown
        .lines()
        .find(|line| line.starts_with("default-ipv4-ippool "));
    let cells = row.unwrap_or_else(|| panic!("{shown}")).split_whitespace();
    cells.skip(2).take(3).map(str::to_owned).collect()
}

fn on(node: &str, arguments: &str) -> String {
    sh(&format!("ip netns exec up-{node} {UNDERPASS} {arguments}"))
}

fn configuration(node: &str) -> String {
    format!("/run/underpass-lab/nodes/{node}.yaml")
}

fn is_ready() -> Option<()> {
    let ready = |node: &str| {
        let line = format!("ip netns exec up-{node} {UNDERPASS} health --ready");
        try_sh(&line).status.success()
    };
    NODES.iter().all(|node| ready(node)).then_some(())
}

/// Whether anybody listens for BGP.
fn listens(node: &str) -> bool {
    !sh(&format!("ip netns exec up-{node} ss -Hltn sport = :179"))
        .trim()
        .is_empty()
}
