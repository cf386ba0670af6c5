//! Graceful restart of either side: flows that need not lose a packet do not.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use underpass::observe::report::{RouteRow, RouteState, StatusReport};

use super::flow::{Flow, paced_flow};
use super::netns::{Router, UNDERPASS, ask, isolated, sh, try_sh, wait_for};
use super::support::*;

const THREE: Node = Node {
    name: "three",
    number: 3,
    ..ONE
};

/// Between two datagrams of a flow: restarts take seconds, in which the machine may be busy with others.
const PACE: Duration = Duration::from_millis(2);

/// Long enough for whoever would forget routes to do so.
const A_WHILE: Duration = Duration::from_millis(700);

/// A routing daemon in the foreground, in a namespace; killed when dropped, as a crash would.
pub struct Daemon(Child);

impl Daemon {
    pub fn start(namespace: &str, line: &str) -> Self {
        let log = fs::File::create(format!("/run/{namespace}.log")).expect("log");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]);
        command.args(line.split_whitespace()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("log")).stderr(log);
        Self(command.spawn().expect("ip netns exec"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A router on the nodes' Ethernet: 10.30.0.NUMBER, and an address behind it.
pub fn build_router(name: &str, number: u8, behind: Ipv4Addr) {
    sh(&format!(
        "ip netns add {name}
         ip -n net link add {name} type veth peer name eth0 netns {name}
         ip -n net link set {name} master bridge up
         ip -n {name} link set lo up
         ip -n {name} link set eth0 up
         ip netns exec {name} ethtool -K eth0 tx off tso off gso off gro off >/dev/null
         ip -n {name} addr add 10.30.0.{number}/24 dev eth0
         ip -n {name} addr add {behind}/32 dev lo"
    ));
}

pub fn start_bird(name: &str, number: u8, local_as: u32, prefix: &str, arguments: &str) -> Daemon {
    let text = format!(
        "router id 10.30.0.{number};
         protocol device {{}}
         protocol direct {{ ipv4; interface \"eth0\"; }}
         protocol kernel {{ persist; graceful restart; ipv4 {{ import none; export where source = RTS_BGP; }}; }}
         protocol static {{ ipv4; route {prefix} blackhole; }}
         protocol bgp one {{ local 10.30.0.{number} as {local_as}; neighbor 10.30.0.1 as 64512;
           graceful restart on; connect delay time 1; connect retry time 1; error wait time 1, 2;
           ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }}; }}\n"
    );
    fs::write(format!("/run/{name}.conf"), text).expect("configuration");
    let line = format!(
        "/usr/sbin/bird -f -c /run/{name}.conf -s /run/{name}.ctl -P /run/{name}.pid {arguments}"
    );
    Daemon::start(name, &line)
}

/// zebra and bgpd; zebra stays, as it does when bgpd crashes.
fn start_bgpd(name: &str, number: u8, local_as: u32, prefix: &str) -> Daemon {
    let text = format!(
        "router bgp {local_as}
 bgp router-id 10.30.0.{number}
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 neighbor 10.30.0.1 remote-as 64512
 neighbor 10.30.0.1 timers connect 1
 address-family ipv4 unicast
  network {prefix}
 exit-address-family
!
"
    );
    let directory = format!("/run/frr-{name}");
    fs::create_dir_all(&directory).expect("directory");
    fs::write(format!("{directory}/frr.conf"), text).expect("configuration");
    sh(&format!("chown -R frr:frr {directory}"));
    Daemon::start(name, &frr_line(name, "bgpd"))
}

fn start_zebra(name: &str) -> Daemon {
    let directory = format!("/run/frr-{name}");
    fs::create_dir_all(&directory).expect("directory");
    fs::write(format!("{directory}/frr.conf"), "").expect("configuration");
    sh(&format!("chown -R frr:frr {directory}"));
    let zebra = Daemon::start(name, &frr_line(name, "zebra"));
    let socket = format!("{directory}/zserv.api");
    wait_for("zebra", || Path::new(&socket).exists().then_some(()));
    zebra
}

fn frr_line(name: &str, daemon: &str) -> String {
    let directory = format!("/run/frr-{name}");
    format!(
        "/usr/lib/frr/{daemon} -u frr -g frr -f {directory}/frr.conf -i {directory}/{daemon}.pid \
         -z {directory}/zserv.api --vty_socket {directory} -A 127.0.0.1"
    )
}

/// GoBGP, and the prefix that it tells.
fn start_gobgp(name: &str, number: u8, local_as: u32, prefix: &str, arguments: &str) -> Daemon {
    let text = format!(
        r#"
[global.config]
  as = {local_as}
  router-id = "10.30.0.{number}"
  local-address-list = ["10.30.0.{number}"]
[[neighbors]]
  [neighbors.config]
    neighbor-address = "10.30.0.1"
    peer-as = 64512
  [neighbors.timers.config]
    connect-retry = 5
    idle-hold-time-after-reset = 2
  [neighbors.graceful-restart.config]
    enabled = true
    restart-time = 60
    deferral-time = 20
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv4-unicast"
    [neighbors.afi-safis.mp-graceful-restart.config]
      enabled = true
"#
    );
    fs::write(format!("/run/{name}.toml"), text).expect("configuration");
    let line = format!(
        "/usr/bin/gobgpd -f /run/{name}.toml --api-hosts 127.0.0.1:50051 --pprof-disable {arguments}"
    );
    // It has no file for its routes: a session that came up before this one is told would end with none.
    let inside = format!("ip netns exec {name}");
    sh(&format!(
        "{inside} nft 'add table ip hold; add chain ip hold in {{ type filter hook input priority 0; }}; \
         add rule ip hold in tcp dport 179 drop; add rule ip hold in tcp sport 179 drop'"
    ));
    let daemon = Daemon::start(name, &line);
    wait_for("the prefix", || {
        let add = format!("{inside} gobgp -u 127.0.0.1 global rib add {prefix}");
        try_sh(&add).status.success().then_some(())
    });
    sh(&format!("{inside} nft delete table ip hold"));
    daemon
}

fn status(node: Node) -> StatusReport {
    serde_json::from_value(ask("status", &node.socket())).expect("a status report")
}

fn neighbor_is(node: Node, address: &str, what: &str) -> bool {
    let neighbors = status(node).bgp.neighbors;
    let found = neighbors
        .iter()
        .find(|row| row.address.to_string() == address);
    found.is_some_and(|row| match what {
        "restarting" => row.restarting,
        _ => row.is_up(),
    })
}

/// Whether a node has a route that can be used, and the peer has told it since it is back.
fn knows(node: Node, prefix: &str) -> bool {
    let rows: Vec<RouteRow> =
        serde_json::from_value(ask("routes", &node.socket())).expect("routes");
    let usable = rows
        .iter()
        .any(|row| row.destination.to_string() == prefix && row.state == RouteState::Resolved);
    let heard = sh(&format!(
        "{UNDERPASS} bgp received --socket {} --prefix {prefix} -o json",
        node.socket()
    ));
    let heard: serde_json::Value = serde_json::from_str(&heard).expect("JSON");
    let heard = heard.as_array().expect("rows");
    usable && !heard.is_empty() && heard.iter().all(|row| row["stale"] == false)
}

/// What becomes of flows between namespaces while something happens.
fn meanwhile(flows: &[(&str, &str, Ipv4Addr)], what: impl FnOnce()) -> Vec<Flow> {
    // Neighbours are asked for beforehand: what waits for one in a kernel's queue may be too much for it.
    for (from, _, address) in flows {
        try_sh(&format!(
            "ip netns exec {from} ping -q -n -c 2 -i 0.2 -W 1 {address}"
        ));
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let running: Vec<_> = flows
            .iter()
            .map(|(from, to, address)| {
                scope.spawn(|| paced_flow((from, to), *address, PACE, &stop))
            })
            .collect();
        thread::sleep(A_WHILE);
        let happened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
        thread::sleep(A_WHILE);
        stop.store(true, Ordering::Relaxed);
        let flows = running.into_iter().map(|flow| flow.join().expect("a flow"));
        let flows = flows.collect();
        happened.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        flows
    })
}

#[track_caller]
fn none_lost(flows: &[Flow]) {
    for flow in flows {
        println!("{flow:?}");
        if flow.received < flow.sent {
            let counters = format!("{UNDERPASS} counters --socket {}", ONE.socket());
            println!("{}", String::from_utf8_lossy(&try_sh(&counters).stdout));
            println!("{}", sh("ip -n one -s link show"));
        }
        assert!(flow.sent > 500 && flow.received == flow.sent, "{flow:?}");
    }
}

pub fn no_mesh() {
    write_resources(
        "bgp",
        "apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
",
    );
}

pub fn write_peer(name: &str, spec: &str) {
    write_resources(
        name,
        &format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        ),
    );
}

/// A workload's flow goes on to what BIRD, FRR or GoBGP told, while that daemon crashes and comes back.
#[test]
fn a_flow_outlives_the_daemon_that_told_its_route() {
    isolated(|| {
        build(&[ONE]);
        no_mesh();
        let behind = Ipv4Addr::new(10, 99, 0, 1);
        build_router("router", 9, behind);
        write_peer("router", "peerIP: 10.30.0.9, asNumber: 65009");
        let _one = Router::start("one", &ONE.config("bgp: internal"));
        type Start<'a> = &'a dyn Fn(&str) -> Daemon;
        let bird: Start<'_> =
            &|arguments| start_bird("router", 9, 65009, "10.99.0.0/24", arguments);
        let frr: Start<'_> = &|_| start_bgpd("router", 9, 65009, "10.99.0.0/24");
        let gobgp: Start<'_> =
            &|arguments| start_gobgp("router", 9, 65009, "10.99.0.0/24", arguments);
        for (program, again, start) in [
            ("/usr/sbin/bird", "-R", bird),
            ("/usr/lib/frr/bgpd", "", frr),
            ("/usr/bin/gobgpd", "-r", gobgp),
        ] {
            if !Path::new(program).exists() {
                println!("passed over: no {program} here (scripts/setup test installs it)");
                continue;
            }
            let _zebra = program.contains("frr").then(|| start_zebra("router"));
            let first = start("");
            wait_for("the route", || knows(ONE, "10.99.0.0/24").then_some(()));
            let mut second = None;
            let flows = meanwhile(&[("one0", "router", behind)], || {
                drop(first);
                wait_for("the crash", || {
                    neighbor_is(ONE, "10.30.0.9", "restarting").then_some(())
                });
                thread::sleep(A_WHILE);
                second = Some(start(again));
                wait_for("its routes again", || {
                    knows(ONE, "10.99.0.0/24").then_some(())
                });
            });
            println!("{program}");
            none_lost(&flows);
            // The next daemon begins where nobody waits.
            drop(second);
            sh(&format!(
                "{UNDERPASS} bgp reset 10.30.0.9 --socket {}",
                ONE.socket()
            ));
        }
    });
}

/// Flows between a route reflector's clients go on while the reflector restarts, in order and killed:
/// packets do not go through it. Two clients are nodes, one is BIRD, one is FRR.
#[test]
fn flows_outlive_the_reflector_that_told_their_routes() {
    isolated(|| {
        build(&[ONE, TWO, THREE]);
        no_mesh();
        let reflector = fs::read_to_string("/run/test/datastore/one.yaml").expect("resources");
        let reflector = reflector
            .replacen("  name: one\n", "  name: one\n  labels: {rr: 'yes'}\n", 1)
            .replacen(
                "  bgp:\n",
                "  bgp:\n    routeReflectorClusterID: 10.0.0.1\n",
                1,
            );
        write_resources("one", &reflector);
        write_peer("nodes", "nodeSelector: all(), peerSelector: has(rr)");
        let (behind_bird, behind_frr) = ("192.168.101.1", "192.168.102.1");
        let (behind_bird, behind_frr): (Ipv4Addr, Ipv4Addr) =
            (behind_bird.parse().unwrap(), behind_frr.parse().unwrap());
        build_router("bird", 8, behind_bird);
        build_router("frr", 9, behind_frr);
        for (name, number) in [("bird", 8), ("frr", 9)] {
            let spec = format!("nodeSelector: has(rr), peerIP: 10.30.0.{number}, asNumber: 64512");
            write_peer(name, &spec);
        }
        let config = |node: &Node| node.config("bgp: internal");
        let mut one = Router::start("one", &config(&ONE));
        let _two = Router::start("two", &config(&TWO));
        let _three = Router::start("three", &config(&THREE));
        let daemons =
            Path::new("/usr/sbin/bird").exists() && Path::new("/usr/lib/frr/bgpd").exists();
        let _daemons = daemons.then(|| {
            let zebra = start_zebra("frr");
            let bird = start_bird("bird", 8, 64512, "192.168.101.0/26", "");
            [bird, start_bgpd("frr", 9, 64512, "192.168.102.0/26"), zebra]
        });
        let kernel_knows = |name: &str, prefix: &str| {
            let shown = sh(&format!("ip -n {name} route show {prefix}"));
            shown.contains("via 10.30.0.")
        };
        let all_know = || {
            let nodes = knows(TWO, "192.168.3.0/26") && knows(THREE, "192.168.2.0/26");
            let others = !daemons
                || kernel_knows("bird", "192.168.102.0/26")
                    && kernel_knows("frr", "192.168.101.0/26");
            nodes
                && others
                && (2..=3).all(|last| neighbor_is(ONE, &format!("10.30.0.{last}"), "up"))
        };
        wait_for("everybody's routes", || all_know().then_some(()));
        let mut pairs = vec![("two0", "three0", THREE.workload(0))];
        if daemons {
            pairs.extend([("bird", "frr", behind_frr)]);
        } else {
            println!("BIRD and FRR are not here: scripts/setup test installs them");
        }
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let flows = meanwhile(&pairs, || {
                one.signal(signal);
                let code = one.wait();
                assert!(code == 0 || code == -(Signal::SIGKILL as i32), "{code}");
                wait_for("its clients to notice", || {
                    let noticed = |node| neighbor_is(node, "10.30.0.1", "restarting");
                    (noticed(TWO) && noticed(THREE)).then_some(())
                });
                thread::sleep(A_WHILE);
                one = Router::start("one", &config(&ONE));
                wait_for("everybody's routes again", || all_know().then_some(()));
                wait_for("the end of the restart", || {
                    one.log().contains("converged").then_some(())
                });
                assert!(one.log().contains("keep its routes"), "{}", one.log());
            });
            println!("{signal}");
            none_lost(&flows);
        }
        // For good: nobody waits.
        one.signal(Signal::SIGINT);
        assert_eq!(one.wait(), 0);
        wait_for("the routes to go", || {
            let rows = ask("routes", &TWO.socket()).to_string();
            (!rows.contains("192.168.3.0/26")).then_some(())
        });
        assert!(!neighbor_is(TWO, "10.30.0.1", "restarting"));
    });
}

/// What the host's own kernel carries by routes that the node made goes on while the node restarts, if
/// the routes are to stay; and what nobody tells any more goes in the end.
#[test]
fn the_hosts_flows_outlive_the_node() {
    isolated(|| {
        build(&[ONE, TWO]);
        write_pool("ipipMode: Never");
        let config = ONE.config("bgp: internal\nhost: { tun: tunl0, keepRoutes: true }");
        let mut one = Router::start("one", &config);
        let _two = Router::start("two", &TWO.config("bgp: internal"));
        let route = || sh("ip -n one route show 192.168.2.0/26");
        wait_for("the route", || {
            route()
                .starts_with("192.168.2.0/26 via 10.30.0.2 dev eth0 proto 117")
                .then_some(())
        });
        wait_for("the block", || knows(ONE, "192.168.2.0/26").then_some(()));
        let flows = meanwhile(&[("one", "two0", TWO.workload(0))], || {
            one.signal(Signal::SIGTERM);
            assert_eq!(one.wait(), 0);
            sh("ip -n one route add 192.168.77.0/26 via 10.30.0.2 dev eth0 proto 117");
            thread::sleep(A_WHILE);
            one = Router::start("one", &config);
            wait_for("the block again", || {
                knows(ONE, "192.168.2.0/26").then_some(())
            });
            wait_for("what nobody told to go", || {
                sh("ip -n one route show 192.168.77.0/26")
                    .is_empty()
                    .then_some(())
            });
        });
        none_lost(&flows);
        assert!(route().contains("proto 117"), "{}", route());
    });
}
