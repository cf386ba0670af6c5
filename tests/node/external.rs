//! Another BGP daemon beside each node: BIRD on one, FRR on the other, each with the configuration that
//! config/ has as an example, but for addresses.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use underpass::observe::report::RouteRow;

use super::netns::{Router, ask, isolated, pings, sh, try_sh, wait_for};
use super::support::*;

const BIRD: &str = "/usr/sbin/bird";
const FRR: &str = "/usr/lib/frr";

/// A daemon in the foreground, killed when dropped.
struct Daemon(Child);

impl Daemon {
    fn start(namespace: &str, line: &str, log: &str) -> Self {
        let log = fs::File::create(log).expect("log");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]);
        command.args(line.split_whitespace());
        command.stdin(Stdio::null());
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

fn example(name: &str) -> String {
    fs::read_to_string(Path::new("config").join(name)).expect("an example")
}

/// Starts BIRD on a node, whose one peer is the other node.
fn bird(node: Node, peer: Node) -> Daemon {
    let text = example("bird.conf").replace("10.30.0.11", &node.address().to_string());
    let kept = text
        .lines()
        .filter(|line| !line.starts_with("protocol bgp "));
    let mut text: String = kept.map(|line| format!("{line}\n")).collect();
    text += &format!(
        "protocol bgp peer from node {{ neighbor {} as 64512; }}\n",
        peer.address()
    );
    fs::create_dir_all("/run/bird").expect("directory");
    fs::write("/run/bird/bird.conf", text).expect("configuration");
    let line = format!("{BIRD} -f -c /run/bird/bird.conf -s /run/bird/ctl -P /run/bird/pid");
    Daemon::start(node.name, &line, "/run/bird/log")
}

/// Starts FRR's zebra and bgpd on a node, whose one peer is the other node.
fn frr(node: Node, peer: Node) -> [Daemon; 2] {
    let text = example("frr.conf").replace("10.30.0.11", &node.address().to_string());
    let kept = text
        .lines()
        .filter(|line| !(line.contains("neighbor 10.") && line.contains("peer-group")));
    let neighbor = format!(" neighbor {} peer-group nodes", peer.address());
    let lines = kept.flat_map(|line| {
        let after = line.contains("update-source").then_some(neighbor.as_str());
        std::iter::once(line).chain(after)
    });
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    fs::create_dir_all("/run/frr").expect("directory");
    fs::write("/run/frr/frr.conf", text).expect("configuration");
    sh("chown -R frr:frr /run/frr");
    let daemon = |name: &str| {
        let line = format!(
            "{FRR}/{name} -u frr -g frr -f /run/frr/frr.conf -i /run/frr/{name}.pid \
             -z /run/frr/zserv.api --vty_socket /run/frr -A 127.0.0.1"
        );
        Daemon::start(node.name, &line, &format!("/run/frr/{name}.log"))
    };
    let zebra = daemon("zebra");
    wait_for("zebra", || {
        Path::new("/run/frr/zserv.api").exists().then_some(())
    });
    [zebra, daemon("bgpd")]
}

fn route_to(node: &str, block: &str) -> Option<RouteRow> {
    let rows: Vec<RouteRow> =
        serde_json::from_value(ask("routes", &format!("/run/underpass/{node}.sock")))
            .expect("routes");
    rows.into_iter()
        .find(|row| row.destination.to_string() == block)
}

#[test]
fn blocks_are_learned_from_bird_and_frr_beside_the_nodes() {
    isolated(|| {
        if !Path::new(BIRD).exists() || !Path::new(FRR).join("bgpd").exists() {
            println!("skipped: bird2 or frr is not installed");
            return;
        }
        build(&[ONE, TWO]);
        let table = ONE.config("bgp: { external: { table: 1790 } }");
        let protocol = TWO.config("bgp: { external: { protocols: [bgp] } }");
        let one = Router::start("one", &table);
        let _two = Router::start("two", &protocol);
        assert_eq!(route_to("one", "192.168.2.0/26"), None, "nobody told it");
        let bird = bird(ONE, TWO);
        let _frr = frr(TWO, ONE);
        let encapsulation = |node: &str, block: &str| {
            let row = route_to(node, block)?;
            Some(row.encapsulation?.name().to_owned())
        };
        let learned = |mode: &str| {
            wait_for("the blocks", || {
                let two = encapsulation("one", "192.168.2.0/26");
                let one = encapsulation("two", "192.168.1.0/26");
                (two.as_deref() == Some(mode) && one.as_deref() == Some(mode)).then_some(())
            });
        };
        let pods = || {
            wait_for("packets between workloads", || {
                let there = pings("one0", TWO.workload(0), 2);
                (there && pings("two0", ONE.workload(0), 2)).then_some(())
            });
        };
        learned("ipip");
        pods();
        // The host of the node whose daemon has a table of its own goes the same way.
        let main = sh("ip -n one route show 192.168.2.0/26");
        assert!(main.contains("dev tunl0 proto 117"), "{main}");
        let theirs = sh("ip -n one route show table 1790");
        assert!(theirs.contains("192.168.2.0/26 via 10.30.0.2"), "{theirs}");

        for node in ["one", "two"] {
            sh(&format!(
                "ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1"
            ));
        }
        write_pool("ipipMode: Never");
        learned("none");
        pods();
        assert!(pings("one", TWO.workload(0), 2) && pings("two", ONE.workload(0), 2));

        // VXLAN needs no BGP.
        write_pool("vxlanMode: Always");
        learned("vxlan");
        pods();
        write_pool("ipipMode: Always");
        learned("ipip");
        pods();

        // A daemon that ends in order withdraws.
        sh("birdc -s /run/bird/ctl down");
        wait_for("the block to go", || {
            route_to("two", "192.168.1.0/26").is_none().then_some(())
        });
        drop(bird);
        assert!(!pings("two0", ONE.workload(0), 1));
        // Nothing but our own routes was touched.
        assert!(!one.log().contains("ERROR"), "{}", one.log());
        assert_eq!(try_sh("ip -n one route show table 1790").stdout, b"");
    });
}

#[test]
fn routes_of_a_chosen_interface_and_protocol_are_followed() {
    isolated(|| {
        build(&[ONE, TWO]);
        let config = ONE.config("bgp: { external: { protocols: [bird, 77], interfaces: [eth0] } }");
        let _one = Router::start("one", &config);
        let _two = Router::start("two", &TWO.config(""));
        let far = |block: &str| route_to("one", block).and_then(|row| row.gateway());
        let gateway = |block: &str, last: u8| {
            wait_for("the route", || {
                let expected = Ipv4Addr::new(10, 30, 0, last);
                (far(block) == Some(expected.into())).then_some(())
            });
        };
        sh("ip -n one route add 192.168.2.0/26 via 10.30.0.2 dev eth0 proto bird metric 32");
        gateway("192.168.2.0/26", 2);
        wait_for("packets", || {
            pings("one0", TWO.workload(0), 2).then_some(())
        });
        // The kernel prefers the lower metric, and so do we.
        sh("ip -n one route add 192.168.2.0/26 via 10.30.0.7 dev eth0 proto 77 metric 20");
        gateway("192.168.2.0/26", 7);
        sh("ip -n one route del 192.168.2.0/26 proto 77");
        gateway("192.168.2.0/26", 2);
        // Others' routes are not taken.
        sh("ip -n one route add 192.168.3.0/26 via 10.30.0.2 dev eth0 proto static");
        sh("ip -n one route add 192.168.4.0/26 dev tunl0 proto bird");
        // Several next hops: the first that answers.
        sh(
            "ip -n one route add 198.51.100.0/24 proto bird nexthop via 10.30.0.9 dev eth0 nexthop via 10.30.0.2 dev eth0",
        );
        wait_for("the one that answers", || {
            let row = route_to("one", "198.51.100.0/24")?;
            (row.next_hop == Some("10.30.0.2".parse().unwrap())).then_some(())
        });
        assert_eq!(far("192.168.3.0/26"), None);
        assert_eq!(route_to("one", "192.168.4.0/26"), None);
        // A link that goes takes its routes along without a word.
        sh("ip -n one link set eth0 down");
        wait_for("no route", || {
            route_to("one", "192.168.2.0/26").is_none().then_some(())
        });
    });
}
