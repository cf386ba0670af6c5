//! The lab on etcd: what its nodes do for the cluster's records, and what they do while etcd is away.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::flow::{Flow, flow};
use super::netns::{UNDERPASS, isolated, sh, try_sh, wait_for};
use super::support::*;
use super::switch::{not_taken, pod_address};

const ETCD: &str = "http://10.30.0.10:2379";

fn has_etcd() -> bool {
    let there = Command::new("etcd").arg("--version").output().is_ok();
    if !there {
        println!("passed over: there is no etcd (Debian: etcd-server)");
    }
    there
}

/// `underpass` on the master, against the cluster's etcd.
fn underpass(arguments: &str) -> String {
    sh(&format!(
        "ip netns exec up-master {UNDERPASS} {arguments} --datastore {ETCD}"
    ))
}

fn etcdctl(arguments: &str) -> String {
    sh(&format!(
        "ETCDCTL_API=3 ip netns exec up-master etcdctl --endpoints {ETCD} {arguments}"
    ))
}

/// As calico-node: each node says that it is alive and takes its tunnels' addresses from the pools. As
/// Calico's client and controllers: with a node goes what it was given.
#[test]
fn nodes_on_etcd_do_their_upkeep() {
    if !has_etcd() {
        return;
    }
    isolated(|| {
        let lab = Lab::up("ipip --datastore etcd");
        wait_for(
            "a tunnel address of each node, in its Node resource",
            || tunnel_addresses("ipv4IPIPTunnelAddr").map(|addresses| assert_eq!(addresses, 4)),
        );
        let alive = etcdctl("get --prefix /calico/felix/v2/no-region/host/ --keys-only");
        for node in NODES {
            assert!(alive.contains(&format!("/host/{node}/status")), "{alive}");
        }
        // They are the kernel's to send from.
        let shown = underpass("get node worker1 -o json");
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let address = &shown["spec"]["bgp"]["ipv4IPIPTunnelAddr"];
        let address = address.as_str().unwrap_or_else(|| panic!("{shown}"));
        wait_for("the address on the TUN device", || {
            let host = sh("ip -n up-worker1 -4 -o addr show dev tunl0");
            host.contains(&format!("{address}/32")).then_some(())
        });
        let owner = underpass(&format!("ipam show --ip {address}"));
        assert!(owner.contains("ipip-tunnel-addr-worker1"), "{owner}");

        // Another mode, other tunnels.
        lab.script("mode vxlan");
        wait_for("VXLAN tunnel addresses in place of the others", || {
            let gone = tunnel_addresses("ipv4IPIPTunnelAddr").is_none();
            let there = tunnel_addresses("ipv4VXLANTunnelAddr") == Some(4);
            (gone && there).then_some(())
        });
        let check = underpass("ipam check");
        assert!(
            check.contains("Check complete; found 0 problems"),
            "{check}"
        );

        // A node that is deleted leaves nothing behind.
        sh(&format!("kill -TERM {}", lab.pid("worker3")));
        underpass("delete node worker3");
        let left = etcdctl("get --prefix /calico/ --keys-only | grep worker3 || true");
        assert_eq!(left.trim(), "", "{left}");
        wait_for("worker3's block to go from the others' routes", || {
            let routes = sh(&format!("{UNDERPASS} routes --node worker1"));
            (!routes.contains("10.30.1.13")).then_some(())
        });
        let check = underpass("ipam check");
        assert!(
            check.contains("Check complete; found 0 problems"),
            "{check}"
        );
    });
}

/// How many nodes have such an address; nothing if none.
fn tunnel_addresses(field: &str) -> Option<usize> {
    let count = underpass("get nodes -o yaml").matches(field).count();
    (count > 0).then_some(count)
}

/// Forwarding goes on without a packet lost, health says what is the matter, and what was changed
/// meanwhile comes into effect when etcd is back: nothing before it has told all that it has.
#[test]
fn without_etcd_forwarding_goes_on_and_health_says_so() {
    if !has_etcd() {
        return;
    }
    isolated(|| {
        let lab = Lab::up("vxlan --datastore etcd");
        let pod2 = pod_address("pod2", POD2);
        assert!(pings("pod1", pod2));
        assert!(is_ready());
        let stop = AtomicBool::new(false);
        let flow = thread::scope(|scope| {
            let flowing = scope.spawn(|| flow("up-pod1", "up-pod2", pod2, &stop));
            let mut etcd = lose_and_change(&lab);
            stop.store(true, Ordering::Relaxed);
            etcd.kill().expect("kill");
            etcd.wait().expect("wait");
            flowing.join().expect("flow")
        });
        let Flow {
            sent,
            received,
            late,
        } = flow;
        println!("pod1 to pod2 while etcd was away: {sent} sent, {received} received, {late} late");
        let reports = NODES.map(|node| super::netns::quiet_counters(&socket(node)));
        let starved: u64 = reports.iter().map(not_taken).sum();
        assert!(
            sent > 1000 && sent - received <= starved,
            "{flow:?}, {starved} starved"
        );
        assert_eq!(late, 0, "{flow:?}");
    });
}

/// etcd is killed; worker3's Node is deleted and history compacted where no node sees it; etcd is back;
/// then it is back with nothing at all.
fn lose_and_change(lab: &Lab) -> Child {
    let block = route_to("10.30.1.13").expect("worker3's block");
    sh(&format!("kill -KILL {}", lab.pid("etcd")));
    wait_for("a node that is not ready for want of its datastore", || {
        (!is_ready()).then_some(())
    });
    let status = sh(&format!("{UNDERPASS} node status --node worker1"));
    assert!(
        status.contains(&format!("WARNING: datastore: etcd {ETCD} is away since ")),
        "{status}"
    );
    let live = on_worker1("health --live");
    assert!(live.status.success(), "{live:?}");
    assert_eq!(route_to("10.30.1.13").as_ref(), Some(&block));

    // Behind the nodes' backs, on another address.
    let elsewhere = "http://127.0.0.1:2399";
    let mut hidden = start_etcd(elsewhere, "/run/underpass-lab/etcd");
    let client = format!("ETCDCTL_API=3 ip netns exec up-master etcdctl --endpoints {elsewhere}");
    wait_for("etcd", || {
        try_sh(&format!("{client} endpoint health"))
            .status
            .success()
            .then_some(())
    });
    sh(&format!(
        "{client} del /calico/resources/v3/projectcalico.org/nodes/worker3"
    ));
    let revision = sh(&format!(
        "{client} get x -w json | python3 -c 'import json,sys; print(json.load(sys.stdin)[\"header\"][\"revision\"])'"
    ));
    sh(&format!("{client} compact {}", revision.trim()));
    hidden.kill().expect("kill");
    hidden.wait().expect("wait");
    assert_eq!(route_to("10.30.1.13").as_ref(), Some(&block));

    let mut back = start_etcd(ETCD, "/run/underpass-lab/etcd");
    wait_for("the deletion to be seen, and readiness", || {
        (route_to("10.30.1.13").is_none() && is_ready()).then_some(())
    });
    assert!(route_to("10.30.0.12").is_some());
    back.kill().expect("kill");
    back.wait().expect("wait");
    wait_for("a node that is not ready again", || {
        (!is_ready()).then_some(())
    });
    // What an empty etcd says is seen by `an_etcd_that_comes_back_empty_…`: here packets still flow.
    assert!(route_to("10.30.0.12").is_some());
    start_etcd(ETCD, "/run/underpass-lab/etcd")
}

/// Only once an etcd that lost everything has said so goes what the nodes knew.
#[test]
fn an_etcd_that_comes_back_empty_takes_the_routes_along() {
    if !has_etcd() {
        return;
    }
    isolated(|| {
        let lab = Lab::up("direct --datastore etcd");
        assert!(route_to("10.30.0.12").is_some());
        sh(&format!("kill -KILL {}", lab.pid("etcd")));
        wait_for("a node that is not ready", || (!is_ready()).then_some(()));
        assert!(route_to("10.30.0.12").is_some());
        fs::create_dir("/run/underpass-lab/etcd2").expect("directory");
        let mut etcd = start_etcd(ETCD, "/run/underpass-lab/etcd2");
        wait_for("the routes to go", || {
            route_to("10.30.0.12").is_none().then_some(())
        });
        // The nodes live, and take what is written next.
        sh(&format!("{UNDERPASS} node status --node worker1"));
        underpass("apply -f /run/underpass-lab/pool.yaml");
        assert_eq!(underpass("get ippool").lines().count(), 3);
        etcd.kill().expect("kill");
        etcd.wait().expect("wait");
    });
}

fn start_etcd(url: &str, data: &str) -> Child {
    Command::new("ip")
        .args(["netns", "exec", "up-master", "etcd", "--data-dir", data])
        .args(["--listen-client-urls", url, "--advertise-client-urls", url])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd")
}

fn on_worker1(arguments: &str) -> std::process::Output {
    try_sh(&format!("ip netns exec up-worker1 {UNDERPASS} {arguments}"))
}

fn is_ready() -> bool {
    on_worker1("health --ready").status.success()
}

/// worker1's route to another node's block.
fn route_to(node: &str) -> Option<String> {
    let routes = sh(&format!("{UNDERPASS} routes --node worker1"));
    let found = routes
        .lines()
        .find(|line| line.split_whitespace().any(|word| word == node));
    found.map(|line| line.split_whitespace().next().unwrap_or("").to_owned())
}
