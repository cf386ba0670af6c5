//! Equal paths that BIRD tells: every one has its share of the flows, in the node and in the host's table;
//! and what natOutgoing translates leaves with the node's address whatever was learned.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::Duration;

use underpass::observe::report::RouteRow;

use super::netns::{Router, UNDERPASS, ask, isolated, sh, try_sh, udp_socket, wait_for};
use super::restart::{build_router, no_mesh, start_bird, write_peer};
use super::support::*;

const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const FLOWS: u16 = 200;

/// Sends a datagram of each of many flows, and says how many came out at each router, by source address.
fn shares(from: &str, at: &[(&str, UdpSocket)]) -> BTreeMap<(String, IpAddr), u16> {
    for _ in 0..FLOWS {
        let sender = udp_socket(from, 0);
        sender
            .send_to(b"flow", SocketAddrV4::new(BEHIND, 7000))
            .expect("send");
    }
    let mut shares = BTreeMap::new();
    for (name, socket) in at {
        let mut buffer = [0; 8];
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("timeout");
        while let Ok((_, source)) = socket.recv_from(&mut buffer) {
            *shares.entry(((*name).to_owned(), source.ip())).or_default() += 1;
        }
    }
    shares
}

fn gateways() -> Vec<IpAddr> {
    let rows: Vec<RouteRow> = serde_json::from_value(ask("routes", &ONE.socket())).expect("routes");
    let row = rows
        .into_iter()
        .find(|row| row.destination.to_string() == "10.99.0.0/24");
    row.map_or_else(Vec::new, |row| {
        row.gateway().into_iter().chain(row.others).collect()
    })
}

#[test]
fn equal_paths_share_flows_and_natoutgoing_is_heeded() {
    isolated(|| {
        if !Path::new("/usr/sbin/bird").exists() {
            println!("passed over: no bird here (scripts/setup test installs it)");
            return;
        }
        build(&[ONE]);
        sh("ip netns exec one sysctl -qw net.ipv4.ip_forward=1");
        // By ports, as the node does; the kernel's default is by addresses.
        sh("ip netns exec one sysctl -qw net.ipv4.fib_multipath_hash_policy=1");
        no_mesh();
        let mut routers = Vec::new();
        for (name, number) in [("left", 8), ("right", 9)] {
            build_router(name, number, BEHIND);
            let spec = format!("peerIP: 10.30.0.{number}, asNumber: 65009");
            write_peer(name, &spec);
            routers.push(start_bird(name, number, 65009, "10.99.0.0/24", ""));
        }
        let _one = Router::start("one", &ONE.config("bgp: internal"));
        let (left, right): (IpAddr, IpAddr) = ([10, 30, 0, 8].into(), [10, 30, 0, 9].into());
        wait_for("both ways", || (gateways() == [left, right]).then_some(()));
        let at = ["left", "right"].map(|name| (name, udp_socket(name, 7000)));
        let pod = IpAddr::V4(ONE.workload(0));
        let key = |name: &str, source: IpAddr| (name.to_owned(), source);
        let found = shares("one0", &at);
        let of = |name: &str| found.get(&key(name, pod)).copied().unwrap_or(0);
        assert_eq!(of("left") + of("right"), FLOWS, "{found:?}");
        assert!(of("left").abs_diff(of("right")) < FLOWS / 2, "{found:?}");
        let shown = sh(&format!("{UNDERPASS} routes --socket {}", ONE.socket()));
        assert!(
            shown.contains("10.30.0.9\n") || shown.contains("10.30.0.9 "),
            "{shown}"
        );

        // The host's table has both, and its own flows share them.
        wait_for("the host's route", || {
            let shown = sh("ip -n one route show 10.99.0.0/24 proto 117");
            let both = ["10.30.0.8", "10.30.0.9"];
            both.iter()
                .all(|gateway| shown.contains(&format!("nexthop via {gateway} dev eth0")))
                .then_some(())
        });
        let node = IpAddr::V4(ONE.address());
        let found = shares("one", &at);
        let of = |name: &str| found.get(&key(name, node)).copied().unwrap_or(0);
        assert_eq!(of("left") + of("right"), FLOWS, "{found:?}");
        assert!(of("left") > 0 && of("right") > 0, "{found:?}");

        // Translated by the kernel, which goes the same ways.
        if try_sh("command -v nft").status.success() {
            write_pool("ipipMode: Always\n  natOutgoing: true");
            wait_for("translation", || {
                let found = shares("one0", &at);
                let translated = found.iter().filter(|((_, source), _)| *source == node);
                let translated: u16 = translated.map(|(_, count)| count).sum();
                (translated == FLOWS).then_some(())
            });
            write_pool("ipipMode: Always");
            wait_for("no translation", || {
                let found = shares("one0", &at);
                found.keys().all(|(_, source)| *source == pod).then_some(())
            });
        }

        // One of them withdraws.
        sh("birdc -s /run/left.ctl down");
        wait_for("the other alone", || (gateways() == [right]).then_some(()));
        let found = shares("one0", &at);
        assert_eq!(found, [(key("right", pod), FLOWS)].into());
        wait_for("the host to follow", || {
            let shown = sh("ip -n one route show 10.99.0.0/24 proto 117");
            shown
                .starts_with("10.99.0.0/24 via 10.30.0.9 dev eth0")
                .then_some(())
        });
        drop(routers);
    });
}

/// A peer beyond a gateway is reached by it, though no route of the host's leads there.
#[test]
fn a_peer_behind_a_gateway_is_reached() {
    isolated(|| {
        if !Path::new("/usr/sbin/bird").exists() {
            println!("passed over: no bird here (scripts/setup test installs it)");
            return;
        }
        build(&[ONE]);
        no_mesh();
        build_router("gate", 8, Ipv4Addr::new(10, 98, 0, 1));
        sh("ip netns exec gate sysctl -qw net.ipv4.ip_forward=1
            ip netns add far
            ip -n gate link add far type veth peer name eth0 netns far
            ip -n far link set lo up
            ip -n far link set eth0 up
            ip -n gate link set far up
            ip -n gate addr add 10.40.0.1/24 dev far
            ip -n far addr add 10.40.0.9/24 dev eth0
            ip -n far addr add 10.99.0.1/32 dev lo
            ip -n far route add 10.30.0.0/24 via 10.40.0.1
            ip -n gate route add 10.99.0.0/24 via 10.40.0.9");
        let text = "router id 10.40.0.9; protocol device {}
            protocol static { ipv4; route 10.99.0.0/24 blackhole; }
            protocol bgp one { local 10.40.0.9 as 65009; neighbor 10.30.0.1 as 64512; multihop;
              connect delay time 1; connect retry time 1; error wait time 1, 2;
              ipv4 { import all; export all; }; }\n";
        std::fs::write("/run/far.conf", text).expect("configuration");
        let line = "/usr/sbin/bird -f -c /run/far.conf -s /run/far.ctl -P /run/far.pid";
        let _bird = super::restart::Daemon::start("far", line);
        write_peer(
            "far",
            "peerIP: 10.40.0.9, asNumber: 65009, reachableBy: 10.30.0.8",
        );
        let _one = Router::start("one", &ONE.config("bgp: internal"));
        wait_for("the session", || {
            let status = ask("status", &ONE.socket());
            (status["bgp"]["neighbors"][0]["state"] == "Established").then_some(())
        });
        let shown = sh("ip -n one route show 10.40.0.9");
        assert!(
            shown.starts_with("10.40.0.9 via 10.30.0.8 dev eth0 proto 117"),
            "{shown}"
        );
        // Packets to what it tells go by the gateway, too.
        wait_for("packets", || {
            let at = [("far", udp_socket("far", 7000))];
            let found = shares("one0", &at);
            (found.values().sum::<u16>() == FLOWS).then_some(())
        });
    });
}
