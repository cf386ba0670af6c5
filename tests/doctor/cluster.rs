//! What is between nodes that run, in the lab: each time the fabric is broken in one way.

use std::process::Command;

use super::netns::{UNDERPASS, isolated, sh, wait_for};
use super::support::Diagnosis;

const WORKER1: &str = "up-worker1";
const CONFIG: &str = "--config /run/underpass-lab/nodes/worker1.yaml";

#[test]
fn what_a_network_drops_between_nodes_is_named() {
    isolated(|| {
        lab("up ipip");
        healthy();
        blocked("ip protocol 4 drop", "protocol_4", "protocol 4");
        node_does_not_run();
        lab("mode vxlan");
        blocked("udp dport 4789 drop", "udp_4789", "UDP 4789");
        narrow();
        lab("mode direct");
        source_check();
        lab("mode ipip");
        far_node_away();
        lab("down");
    });
}

fn healthy() {
    let all = Diagnosis::of(WORKER1, CONFIG);
    assert_eq!(all.with("fault"), [""; 0]);
    let fine = all.with("ok");
    for check in [
        "paths master",
        "paths worker2",
        "paths worker3",
        "path_mtu worker2",
        "xdp eth0",
    ] {
        assert!(fine.iter().any(|ok| ok == check), "{check}: {fine:?}");
    }
    // The fabric has no routes to the blocks: direct would not get through to the other subnet.
    let (found, _) = all.trouble("source_check", "worker3");
    assert!(found.starts_with("direct traffic would not"), "{found}");
    assert_eq!(all.status, Some(0));
}

/// A packet filter of the fabric's, on what it bridges and what it routes.
fn blocked(rule: &str, check: &str, what: &str) {
    fabric_drops(rule);
    let all = Diagnosis::of(WORKER1, CONFIG);
    for node in ["master", "worker2", "worker3"] {
        let (found, remedy) = all.trouble(check, node);
        assert!(
            found.contains("which is in use, does not get through"),
            "{found}"
        );
        assert!(found.contains("answers a ping"), "{found}");
        assert!(remedy.contains(what), "{remedy}");
    }
    assert_eq!(all.status, Some(1));
    fabric_drops_nothing();
}

/// A node whose kernel is there and whose underpass is not.
fn node_does_not_run() {
    let pid = sh("cat /run/underpass-lab/pids/worker2");
    sh(&format!("kill {}", pid.trim()));
    wait_for("worker2's end", || {
        let sockets = sh("ls /run/underpass");
        (!sockets.contains("worker2")).then_some(())
    });
    let (found, remedy) = Diagnosis::of(WORKER1, CONFIG).trouble("far_node", "worker2");
    assert!(found.contains("nobody takes it there"), "{found}");
    assert!(remedy.contains("start underpass on worker2"), "{remedy}");
    lab("up ipip");
}

fn narrow() {
    sh("ip -n up-fabric link set to-worker2 mtu 1400");
    sh("ip -n up-worker2 link set eth0 mtu 1400");
    let all = Diagnosis::of(WORKER1, CONFIG);
    let (found, remedy) = all.trouble("path_mtu", "worker2");
    assert!(found.contains("1350"), "{found}");
    assert!(remedy.contains("1350"), "{remedy}");
    sh("ip -n up-fabric link set to-worker2 mtu 1500");
    sh("ip -n up-worker2 link set eth0 mtu 1500");
}

fn source_check() {
    lab("srcdst on");
    let all = Diagnosis::of(WORKER1, CONFIG);
    for node in ["worker2", "worker3"] {
        let (found, remedy) = all.trouble("source_check", node);
        assert!(found.contains("source/destination check"), "{found}");
        assert!(remedy.contains("switch the check off"), "{remedy}");
    }
    assert_eq!(all.status, Some(1));
    lab("srcdst off");
}

fn far_node_away() {
    sh("ip -n up-worker3 link set eth0 down");
    let all = Diagnosis::of(WORKER1, CONFIG);
    let faults = all.with("fault");
    assert!(
        faults.contains(&"far_node worker3".to_owned()),
        "{faults:?}"
    );
    assert!(
        !faults.iter().any(|fault| fault.contains("worker2")),
        "{faults:?}"
    );
}

fn fabric_drops(rule: &str) {
    sh(&format!(
        "ip netns exec up-fabric nft 'add table netdev broken; add chain netdev broken ports \
         {{ type filter hook ingress devices = {{ to-master, to-worker1, to-worker2, to-worker3 }} priority 0; }}; \
         add rule netdev broken ports {rule}'"
    ));
}

fn fabric_drops_nothing() {
    sh("ip netns exec up-fabric nft delete table netdev broken");
}

fn lab(arguments: &str) {
    let output = Command::new("bash")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab"))
        .args(arguments.split(' '))
        .env("UNDERPASS_BIN", UNDERPASS)
        .env("UNDERPASS_LAB_DIR", "/run/underpass-lab")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("scripts/lab");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "scripts/lab {arguments}: {text}{errors}"
    );
}
