//! What a node does for the cluster's records, and what it takes from FelixConfigurations while it runs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use underpass::datastore::{Datastore, Directory, Selection};
use underpass::ipam::{Ipam, Request};
use underpass::observe::report::RouteRow;
use underpass::resources::{Kind, Resource};

use super::flow::flow;
use super::netns::{Router, ask, isolated, pings, sh, try_sh, wait_for};
use super::support::*;

const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");

fn store() -> Arc<dyn Datastore> {
    Arc::new(Directory::new(format!("{DIRECTORY}/datastore")))
}

fn request(node: &str, handle: &str, pod: bool) -> Request {
    let mut request = Request::workload(node.parse().expect("name"), handle);
    if pod {
        let of_pod = [("namespace", "default"), ("pod", handle)];
        request.attributes = BTreeMap::from(of_pod.map(|(key, value)| (key.into(), value.into())));
    }
    request
}

#[test]
fn what_nobody_uses_is_given_back() {
    isolated(|| {
        build(&[ONE, TWO]);
        let store = store();
        let ipam = Ipam::new(Arc::clone(&store));
        // A workload that is no more; somebody's own; a whole node that is no more.
        ipam.assign(&request("one", "leaked", true))
            .expect("address");
        ipam.assign(&request("one", "mine", false))
            .expect("address");
        ipam.assign(&request("three", "lost", true))
            .expect("address");
        let three = "three".parse().expect("name");
        assert_eq!(ipam.affinities(&three).expect("affinities").len(), 1);
        let config = ONE.config("upkeep: { leakGracePeriod: 1s }\n");
        let one = Router::start("one", &config);
        let _two = Router::start("two", &TWO.config(""));
        wait_for("the leaked address to be given back", || {
            ipam.addresses_of("leaked")
                .expect("addresses")
                .is_empty()
                .then_some(())
        });
        wait_for("the block of the node that is no more", || {
            ipam.affinities(&three)
                .expect("affinities")
                .is_empty()
                .then_some(())
        });
        assert_eq!(ipam.addresses_of("mine").expect("addresses").len(), 1);
        // Blocks that people tied to nodes, and addresses that they wrote down, stay.
        let kept = store
            .list(&Selection::kind(Kind::BlockAffinity))
            .expect("list");
        assert_eq!(kept.items.len(), 2, "{:?}", kept.items.keys());
        assert!(pings("one0", TWO.workload(0), 2));
        assert!(
            one.log().contains("given back, as nobody uses them"),
            "{}",
            one.log()
        );
        assert!(!one.log().contains("ERROR"), "{}", one.log());
    });
}

#[test]
fn tunnels_get_addresses_and_those_of_people_stay() {
    isolated(|| {
        build(&[ONE, TWO]);
        // one has none; two has what a person wrote.
        let text =
            std::fs::read_to_string(format!("{DIRECTORY}/datastore/one.yaml")).expect("resources");
        let without: String = text
            .lines()
            .filter(|line| !line.contains("TunnelAddr"))
            .map(|line| format!("{line}\n"))
            .collect();
        write_resources("one", &without);
        let _one = Router::start("one", &ONE.config(""));
        let _two = Router::start("two", &TWO.config(""));
        let store = store();
        let address = wait_for("a tunnel address", || tunnel_address(&store, "one"));
        // Of its own block; neither the workload's nor anybody else's.
        assert_eq!(address.octets()[..3], [192, 168, 1], "{address}");
        assert_ne!(address, ONE.workload(0));
        wait_for("the address on the TUN device", || {
            sh("ip -n one addr show dev tunl0")
                .contains(&format!("{address}/32"))
                .then_some(())
        });
        wait_for("an answer from two's workload to one's host", || {
            pings("one", TWO.workload(0), 1).then_some(())
        });
        assert_eq!(
            tunnel_address(&store, "two"),
            Some(Ipv4Addr::new(192, 168, 2, 1))
        );
    });
}

fn tunnel_address(store: &Arc<dyn Datastore>, name: &str) -> Option<Ipv4Addr> {
    let list = store.list(&Selection::kind(Kind::Node)).expect("list");
    list.resources().find_map(|resource| match resource {
        Resource::Node(node) if node.metadata.name.as_str() == name => node.ipip_tunnel_addr(),
        _ => None,
    })
}

fn felix(name: &str, spec: &str) {
    write_resources(
        &format!("felix-{name}"),
        &format!(
            "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: {name}}}\n\
             spec: {{{spec}}}\n"
        ),
    );
}

fn mtu() -> Option<u16> {
    let rows: Vec<RouteRow> = serde_json::from_value(ask("routes", &ONE.socket())).expect("routes");
    let to_two = |row: &&RouteRow| row.destination.to_string() == "192.168.2.0/26";
    rows.iter().find(to_two).and_then(|row| row.mtu)
}

fn health(port: u16) -> bool {
    let line = format!("ip netns exec one {UNDERPASS} health --address 127.0.0.1:{port}");
    try_sh(&line).status.success()
}

/// Each is there at the start, changes while packets flow, and yields to the node's own configuration.
#[test]
fn felix_configurations_are_followed() {
    isolated(|| {
        build(&[ONE, TWO]);
        felix(
            "default",
            "ipipMTU: 1400, healthEnabled: true, logSeverityScreen: Warning",
        );
        felix("node.one", "ipipMTU: 1300");
        let one = Router::spawn("one", &ONE.config(""), &["--log", "info"]);
        let two = Router::spawn("two", &TWO.config("tunnel: { mtu: 1350 }\n"), &[]);
        wait_for("health where the default configuration says", || {
            health(9099).then_some(())
        });
        wait_for("the node's own MTU", || (mtu() == Some(1300)).then_some(()));
        wait_for("an answer", || {
            pings("one0", TWO.workload(0), 1).then_some(())
        });
        let rows: Vec<RouteRow> =
            serde_json::from_value(ask("routes", &TWO.socket())).expect("routes");
        assert!(rows.iter().any(|row| row.mtu == Some(1350)), "{rows:?}");

        // How much is logged, too, but for what the command line says.
        assert!(one.log().contains("ready after") && !two.log().contains("ready after"));

        felix("default", "ipipMTU: 1400, healthPort: 9098");
        wait_for("health at another port", || health(9098).then_some(()));
        assert!(!health(9099));
        std::fs::remove_file(format!("{DIRECTORY}/datastore/felix-node.one.yaml")).expect("remove");
        wait_for("the cluster's MTU", || (mtu() == Some(1400)).then_some(()));

        // VXLAN by another port and network: both nodes follow.
        write_pool("vxlanMode: Always\n  ipipMode: Never");
        felix(
            "default",
            "vxlanPort: 14789, vxlanVNI: 77, allowIPIPPacketsFromWorkloads: true",
        );
        wait_for("the node to say so", || {
            let said = one.log();
            (said.contains("vxlanPort is 14789 now") && said.contains("vxlanVNI is 77 now"))
                .then_some(())
        });
        wait_for("an answer by the new network", || {
            pings("one0", TWO.workload(0), 1).then_some(())
        });
        let seen = std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                sh("timeout 10 ip netns exec net tcpdump -lnni one -c 1 udp port 14789 2>/dev/null || true")
            });
            wait_for("a packet on the wire", || {
                pings("one0", TWO.workload(0), 1);
                looking.is_finished().then_some(())
            });
            looking.join().expect("tcpdump")
        });
        assert!(seen.contains("14789"), "{seen}");

        // What a workload must not send, until it may.
        let tunnelled = "ip netns exec one0 python3 -c \"import socket; \
             s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 4); \
             s.sendto(bytes(40), ('192.168.2.10', 0))\"";
        let refused = || -> u64 {
            let counters = super::netns::counters(&ONE.socket());
            let drops = counters.drops.iter();
            drops
                .filter(|drop| drop.reason == "tunnel_from_workload")
                .map(|drop| drop.packets)
                .sum()
        };
        assert_eq!(refused(), 0);
        sh(tunnelled);
        felix("default", "vxlanPort: 14789, vxlanVNI: 77");
        wait_for("workloads to be distrusted again", || {
            sh(tunnelled);
            (refused() > 0).then_some(())
        });
        felix(
            "default",
            "vxlanPort: 14789, vxlanVNI: 77, externalNodesList: [10.30.0.99], healthPort: 9098, healthHost: nowhere",
        );
        wait_for("what could not be taken to be shown", || {
            let status = sh(&format!("{UNDERPASS} node status --node one"));
            status
                .contains("WARNING: settings: FelixConfiguration's healthHost")
                .then_some(())
        });
    });
}

/// One node hears of it two seconds after the other, and no packet is lost.
#[test]
fn vxlan_changes_port_and_network_under_traffic() {
    isolated(|| {
        let _nodes = running(ONE, TWO);
        write_pool("vxlanMode: Always");
        wait_for("VXLAN", || (mtu() == Some(1450)).then_some(()));
        assert!(pings("one0", TWO.workload(0), 2) && pings("two0", ONE.workload(0), 2));
        let stop = AtomicBool::new(false);
        let (out, back) = std::thread::scope(|scope| {
            let out = scope.spawn(|| flow("one0", "two0", TWO.workload(0), &stop));
            let back = scope.spawn(|| flow("two0", "one0", ONE.workload(0), &stop));
            let renumbered = "vxlanPort: 14789, vxlanVNI: 77";
            felix("node.one", renumbered);
            std::thread::sleep(Duration::from_secs(2));
            felix("node.two", renumbered);
            for node in ["one", "two"] {
                let seen = sh(&format!(
                    "timeout 20 ip netns exec net tcpdump -lnni {node} -Q out -c 1 udp port 14789 2>/dev/null"
                ));
                assert!(seen.contains("14789"), "{seen}");
            }
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
            (out.join().expect("flow"), back.join().expect("flow"))
        });
        let reports = [&ONE, &TWO].map(|node| super::netns::quiet_counters(&node.socket()));
        let ports = reports.iter().flat_map(|report| &report.ports);
        let xdp = ports.filter_map(|port| port.xdp);
        let starved: u64 = xdp.map(|xdp| xdp.rx_dropped + xdp.rx_ring_full).sum();
        println!("port and network changed: {out:?}, {back:?}; {starved} found a ring full");
        for flow in [out, back] {
            assert!(flow.sent > 1000, "{flow:?}");
            assert!(flow.sent - flow.received <= starved, "{flow:?}");
            assert_eq!(flow.late, 0, "{flow:?}");
        }
    });
}
