//! Packets too large for a link, against the kernel's own senders and routers: path MTU discovery
//! through tunnels, fragments, and what an operator sees of it.
//!
//! Where a filter on the way drops ICMP, nothing can be learnt from it: `underpass probe-mtu` finds
//! the path's MTU then, and `tunnel.mtu` sets it.
#![allow(missing_docs)]

#[path = "../common/fast_path.rs"]
mod fast_path;
mod lab;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Lab, Mode, PATIENCE, Shape, inside, run, said, sh, wait_for};

const MEBIBYTE: usize = 1 << 20;

const NARROW: Shape = Shape {
    mode: Mode::Ipip,
    uplink: 1500,
    narrow: 1400,
};

/// No link is narrower than the uplinks.
const fn wide(mode: Mode) -> Shape {
    Shape {
        mode,
        uplink: 1500,
        narrow: 1500,
    }
}

/// Sends 1 MiB from one pod to the other and says whether it arrived as it was.
fn transfer(from: &str, to: &str, address: &str) -> bool {
    let bytes: Vec<u8> = (0..MEBIBYTE).map(|n| (n * 31 + n / 997) as u8).collect();
    let listener = inside(to, || TcpListener::bind((address, 5001)).expect("listen"));
    let received = thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut stream = accept(&listener)?;
            stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            let mut received = Vec::new();
            let outcome = stream.read_to_end(&mut received);
            println!("{} bytes received, {outcome:?}", received.len());
            Some(received)
        });
        inside(from, || {
            let to = std::net::SocketAddr::new(address.parse().expect("address"), 5001);
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE).expect("connect");
            stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
            stream.write_all(&bytes).expect("send");
        });
        receiver.join().expect("receiver")
    });
    received == Some(bytes)
}

/// A connection, unless none comes in time.
fn accept(listener: &TcpListener) -> Option<TcpStream> {
    listener.set_nonblocking(true).expect("listener");
    let mut accepted = None;
    let end = Instant::now() + PATIENCE;
    while accepted.is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
        accepted = listener.accept().ok();
    }
    let (stream, _) = accepted?;
    stream.set_nonblocking(false).expect("stream");
    Some(stream)
}

fn a_mebibyte_crosses_the_narrow_link(mode: Mode) {
    run(|| {
        let lab = Lab::start(Shape { mode, ..NARROW });
        // Each sender is told the narrow link's MTU less the tunnel's header, and its node keeps it.
        let inner = 1400 - mode.overhead();
        for (n, far) in [(1, 2), (2, 1)] {
            let to = format!("192.168.{far}.10");
            assert!(transfer(&format!("pod{n}"), &format!("pod{far}"), &to));
            let told = sh(&format!("ip -n pod{n} route get {to}"));
            assert!(told.contains(&format!("mtu {inner}")), "{told}");
            let route = lab.route_mtu(n, &format!("192.168.{far}.0/26"));
            assert_eq!(route, Some(inner as u64));
            assert_eq!(lab.drops(n, "invalid_quote"), 0);
            // What it learnt would have it ask for small segments when it is the receiver.
            sh(&format!("ip -n pod{n} route flush cache"));
        }
    });
}

#[test]
fn a_mebibyte_crosses_a_narrow_link_in_ipip() {
    a_mebibyte_crosses_the_narrow_link(Mode::Ipip);
}

#[test]
fn a_mebibyte_crosses_a_narrow_link_in_vxlan() {
    a_mebibyte_crosses_the_narrow_link(Mode::Vxlan);
}

/// Over IPv6 nobody on the way fragments: the router says packet too big, and only our node can know what
/// that is about.
#[test]
fn a_mebibyte_crosses_a_narrow_link_in_vxlan_over_ipv6() {
    run(|| {
        let lab = Lab::start(Shape {
            mode: Mode::VxlanV6,
            ..NARROW
        });
        for (n, far) in [(1, 2), (2, 1)] {
            let to = format!("fd00:65:{far}::10");
            wait_for("a first answer", || {
                pings(&format!("pod{n}"), &to, "-c 1 -s 56")
            });
            assert!(transfer(&format!("pod{n}"), &format!("pod{far}"), &to));
            let told = sh(&format!("ip -n pod{n} -6 route get {to}"));
            assert!(told.contains("mtu 1330"), "{told}");
            let route = lab.route_mtu(n, &format!("fd00:65:{far}::/122"));
            assert_eq!(route, Some(1330));
            assert_eq!(lab.drops(n, "invalid_quote"), 0);
            sh(&format!("ip -n pod{n} -6 route flush cache"));
        }
        let said = lab.ask(1, "probe-mtu fd00:65:2::10");
        assert!(
            said.ends_with(
                "inner 1330 + 70 = 1400 fits, 1331 does not: the link after fd00:30::fe is 1400\n"
            ),
            "{said}"
        );
    });
}

/// The narrowest path that IPv6 has, and packets that it has to take all the same (RFC 2473 section 7.1).
#[test]
fn a_path_of_1280_bytes_carries_ipv6_of_1280_in_fragments() {
    run(|| {
        let lab = Lab::start(Shape {
            mode: Mode::VxlanV6,
            uplink: 1500,
            narrow: 1280,
        });
        wait_for("a first answer", || {
            pings("pod1", "fd00:65:2::10", "-c 1 -s 56")
        });
        // The first of them tells the node.
        wait_for("the pod to be told", || {
            said("ip netns exec pod1 ping -c 2 -i 0.3 -W 1 -M do -s 1382 fd00:65:2::10");
            sh("ip -n pod1 -6 route get fd00:65:2::10").contains("mtu 1280")
        });
        wait_for("1210", || lab.route_mtu(1, "fd00:65:2::/122") == Some(1210));
        // The far node learns by its first answers.
        wait_for("1210 there too", || {
            pings("pod1", "fd00:65:2::10", "-c 1 -M do -s 1232")
                && lab.route_mtu(2, "fd00:65:1::/122") == Some(1210)
        });
        assert!(pings("pod1", "fd00:65:2::10", "-c 3 -i 0.2 -M do -s 1232"));
    });
}

/// With DF clear nobody complains: the router in the middle fragments the outer packet, and the far
/// node puts it together. The fragments are the kernel's.
fn outer_fragments_are_put_together(mode: Mode) {
    run(|| {
        let lab = Lab::start(Shape { mode, ..NARROW });
        let size = 1500 - mode.overhead() - 28;
        wait_for("a first answer", || {
            pings("pod1", "192.168.2.10", "-c 1 -s 56")
        });
        let absorbed = |n: u8| lab.counters(n)["absorbed"].as_u64().expect("absorbed");
        let before = (absorbed(1), absorbed(2));
        let ping = said(&format!(
            "ip netns exec pod1 ping -M dont -c 20 -i 0.05 -W 2 -s {size} 192.168.2.10"
        ));
        assert!(ping.contains(" 20 received"), "{ping}");
        // Requests came to node2 in two fragments each, answers to node1.
        for (n, before) in [(1, before.0), (2, before.1)] {
            wait_for("all fragments to be counted", || absorbed(n) - before >= 40);
            assert_eq!(lab.drops(n, "outer_fragment"), 0);
        }
        let mid = sh("ip netns exec mid1 cat /proc/net/snmp");
        assert!(fragments_created(&mid) >= 40, "{mid}");
    });
}

#[test]
fn outer_fragments_are_put_together_in_ipip() {
    outer_fragments_are_put_together(Mode::Ipip);
}

#[test]
fn outer_fragments_are_put_together_in_vxlan() {
    outer_fragments_are_put_together(Mode::Vxlan);
}

/// `FragCreates`, the last of the kernel's IPv4 counters.
fn fragments_created(snmp: &str) -> u64 {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Ip:"));
    let names = lines.next().expect("names").split(' ');
    let values = lines.next().expect("values").split(' ');
    let (_, value) = names
        .zip(values)
        .find(|(name, _)| *name == "FragCreates")
        .expect("FragCreates");
    value.parse().expect("a number")
}

fn pings(from: &str, to: &str, options: &str) -> bool {
    let ping = said(&format!("ip netns exec {from} ping -W 3 {options} {to}"));
    ping.contains(" 0% packet loss")
}

/// What is too large for the tunnel itself: cut up if that is allowed, else refused with the MTU.
#[test]
fn a_packet_too_large_for_the_tunnel_is_cut_up_or_refused() {
    run(|| {
        let _lab = Lab::start(wide(Mode::Vxlan));
        wait_for("a first answer", || pings("pod1", "192.168.2.10", "-c 1"));
        assert!(pings("pod1", "192.168.2.10", "-c 3 -M do -s 1422"));
        let refused = said("ip netns exec pod1 ping -c 1 -W 3 -M do -s 1423 192.168.2.10");
        assert!(
            refused.contains("From 10.30.0.11") && refused.contains("mtu = 1450"),
            "{refused}"
        );
        sh("ip -n pod1 route flush cache");
        assert!(pings("pod1", "192.168.2.10", "-c 3 -M dont -s 1472"));
        assert!(pings("pod1", "192.168.2.10", "-c 3 -M dont -s 4000"));
    });
}

/// The host's own processes are told too, through the TUN device.
#[test]
fn the_host_is_told_of_a_narrow_link() {
    run(|| {
        let _lab = Lab::start(NARROW);
        wait_for("a first answer", || pings("node1", "192.168.2.10", "-c 1"));
        // The first of them tells the node.
        wait_for("1380", || {
            said("ip netns exec node1 ping -c 2 -i 0.2 -W 1 -M do -s 1452 192.168.2.10");
            sh("ip -n node1 route get 192.168.2.10").contains("mtu 1380")
        });
        assert!(pings("node1", "192.168.2.10", "-c 3 -M dont -s 1452"));
    });
}

#[test]
fn the_tunnels_mtu_follows_the_uplinks() {
    run(|| {
        let lab = Lab::start(Shape {
            mode: Mode::Vxlan,
            uplink: 1400,
            narrow: 1500,
        });
        let shows = |mtu: u64| {
            let tun = sh("ip -n node1 link show tunl0");
            lab.route_mtu(1, "192.168.2.0/26") == Some(mtu) && tun.contains(&format!("mtu {mtu} "))
        };
        wait_for("1350", || shows(1350));
        wait_for("a first answer", || pings("pod1", "192.168.2.10", "-c 1"));
        assert!(pings("pod1", "192.168.2.10", "-c 3 -M do -s 1322"));
        for (node, mid) in [("node1", "mid1"), ("node2", "mid2")] {
            sh(&format!(
                "ip -n {mid} link set node mtu 1500; ip -n {node} link set eth0 mtu 1500"
            ));
        }
        wait_for("1450", || shows(1450));
        sh("ip -n pod1 route flush cache");
        // The first of them makes the port ask for its device's MTU.
        wait_for("1450 bytes", || {
            pings("pod1", "192.168.2.10", "-c 2 -M do -s 1422")
        });
        sh("ip -n node1 link set eth0 mtu 1300");
        wait_for("1250", || shows(1250));
        // What the node tells is what it has decided; its workers have it a moment later.
        wait_for("to be refused with 1250", || {
            sh("ip -n pod1 route flush cache");
            said("ip netns exec pod1 ping -c 1 -W 1 -M do -s 1423 192.168.2.10")
                .contains("mtu = 1250")
        });
    });
}

#[test]
fn a_jumbo_uplink_is_refused_with_what_would_be_right() {
    run(|| {
        let lab = Lab::build(Shape {
            mode: Mode::Ipip,
            uplink: 9000,
            narrow: 1500,
        });
        let started = said(&format!(
            "ip netns exec node1 timeout 10 {} run --config {}",
            env!("CARGO_BIN_EXE_underpass"),
            lab.config(1).display()
        ));
        assert!(
            started.contains("'eth0' has MTU 9000, and frames of 4096 bytes hold an MTU of 3772")
                && started.contains("ip link set eth0 mtu 3772"),
            "{started}"
        );
    });
}

/// The largest uplink that is not refused carries packets of its size.
#[test]
fn a_large_uplink_within_a_frame_is_used_in_full() {
    run(|| {
        let mut lab = Lab::build(Shape {
            mode: Mode::Vxlan,
            uplink: 3772,
            narrow: 3772,
        });
        // Before the nodes start: with an XDP program a veth takes no more than about 3500 bytes. They are
        // in generic mode so.
        for number in [1, 2] {
            sh(&format!(
                "ip -n node{number} link set cali{number} mtu 3722; ip -n pod{number} link set eth0 mtu 3722"
            ));
        }
        lab.run_nodes();
        wait_for("3722", || lab.route_mtu(1, "192.168.2.0/26") == Some(3722));
        wait_for("3722 bytes", || {
            pings("pod1", "192.168.2.10", "-c 3 -i 0.2 -M do -s 3694")
        });
    });
}

/// Each router of the overlay is a hop, the underlay's are none.
#[test]
fn traceroute_shows_every_router_of_the_overlay() {
    for mode in [Mode::Ipip, Mode::Vxlan] {
        run(|| {
            let _lab = Lab::start(wide(mode));
            wait_for("a first answer", || pings("pod1", "192.168.2.10", "-c 1"));
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sizes/traceroute.py");
            for kind in ["udp", "icmp"] {
                let hops = sh(&format!(
                    "ip netns exec pod1 /usr/bin/python3 {script} {kind} 192.168.2.10"
                ));
                let hops: Vec<_> = hops.lines().collect();
                assert_eq!(
                    hops,
                    ["10.30.0.11", "10.30.1.12", "192.168.2.10"],
                    "{mode:?} by {kind}"
                );
            }
        });
    }
}

/// An error that the underlay reports about a tunnel packet becomes one about the packet within.
#[test]
fn a_far_node_that_is_not_reached_is_reported_to_the_sender() {
    for mode in [Mode::Ipip, Mode::Vxlan] {
        run(|| {
            let lab = Lab::start(wide(mode));
            wait_for("a first answer", || pings("pod1", "192.168.2.10", "-c 1"));
            sh("ip -n mid1 route replace unreachable 10.30.1.0/24");
            let ping = said("ip netns exec pod1 ping -c 2 -i 0.3 -W 3 192.168.2.10");
            assert!(
                ping.contains("From 10.30.0.11") && ping.contains("Destination Host Unreachable"),
                "{mode:?}: {ping}"
            );
            assert_eq!(lab.drops(1, "invalid_quote"), 0);
        });
    }
}

/// Errors that quote what the node cannot have sent change nothing and are counted; the kernel still
/// gets those about its own packets.
#[test]
fn forged_errors_are_counted_and_believed_by_nobody() {
    run(|| {
        let lab = Lab::start(wide(Mode::Ipip));
        wait_for("a first answer", || pings("pod1", "192.168.2.10", "-c 1"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sizes/forge.py");
        let forged: u64 = sh(&format!("ip netns exec mid1 /usr/bin/python3 {script}"))
            .trim()
            .parse()
            .expect("a number");
        wait_for("the forged errors", || {
            lab.drops(1, "invalid_quote") >= forged
        });
        assert_eq!(lab.drops(1, "invalid_quote"), forged);
        assert_eq!(lab.route_mtu(1, "192.168.2.0/26"), Some(1480));
        assert!(pings("pod1", "192.168.2.10", "-c 3 -M do -s 1452"));

        sh("ip -n mid1 link set over mtu 1400; ip -n mid2 link set over mtu 1400");
        said("ip netns exec node1 ping -c 1 -W 3 -M do -s 1472 10.30.1.12");
        let told = sh("ip -n node1 route get 10.30.1.12");
        assert!(told.contains("mtu 1400"), "the kernel's own: {told}");
        thread::sleep(Duration::from_millis(100));
        assert_eq!(lab.drops(1, "invalid_quote"), forged);
    });
}

#[test]
fn probe_mtu_finds_the_narrow_link_and_who_tells_of_it() {
    for mode in [Mode::Ipip, Mode::Vxlan] {
        run(|| {
            let lab = Lab::start(Shape { mode, ..NARROW });
            wait_for("a first answer", || pings("pod1", "192.168.2.10", "-c 1"));
            let (inner, overhead) = (1400 - mode.overhead(), mode.overhead());
            let found = format!(
                "inner {inner} + {overhead} = 1400 fits, {} does not: the link after 10.30.0.254 is 1400\n",
                inner + 1
            );
            // By the node's name, by a workload's address, and again with what was learnt from it.
            for far in ["node2", "192.168.2.10", "node2"] {
                let said = lab.ask(1, &format!("probe-mtu {far}"));
                assert!(said.ends_with(&found), "{far}: {said}");
            }
            sh("ip -n mid1 link set over mtu 1500; ip -n mid2 link set over mtu 1500");
            let (inner, next) = (1500 - overhead, 1501 - overhead);
            let said = lab.ask(1, "probe-mtu node2");
            assert!(
                said.ends_with(&format!(
                    "inner {inner} + {overhead} = 1500 fits, {next} does not: the uplink eth0 is 1500\n"
                )),
                "{said}"
            );
            for (far, why) in [
                ("node9", "there is no node 'node9'; there are: node1, node2"),
                ("192.168.1.10", "192.168.1.10 is not behind another node"),
                (
                    "192.168.2.33",
                    "does not answer an echo request of 68 bytes",
                ),
            ] {
                let said = lab.ask(1, &format!("probe-mtu {far}"));
                assert!(said.contains(why), "{far}: {said}");
            }
            sh("ip -n mid1 link set over down");
            let said = lab.ask(1, "probe-mtu node2");
            let why = "10.30.0.254 says that 10.30.1.12 is not reached (ICMP 3/0)";
            assert!(said.contains(why), "{said}");
        });
    }
}

/// A narrow link behind the far end of the tunnel takes packets without the tunnel's header.
#[test]
fn probe_mtu_tells_a_link_behind_the_tunnel_from_the_path() {
    for mode in [Mode::Ipip, Mode::Vxlan] {
        run(|| {
            let lab = Lab::start(wide(mode));
            sh("ip -n node2 link set cali2 mtu 1300; ip -n pod2 link set eth0 mtu 1300");
            wait_for("a first answer", || pings("pod1", "192.168.2.10", "-c 1"));
            let outer = 1300 + mode.overhead();
            let found = format!(
                "inner 1300 + {} = {outer} fits, 1301 does not: the link after 10.30.1.12, behind the \
                 tunnel, is 1300\n",
                mode.overhead()
            );
            let said = lab.ask(1, "probe-mtu 192.168.2.10");
            assert!(said.ends_with(&found), "{said}");
            let said = lab.ask(1, "probe-mtu node2");
            assert!(said.ends_with("the uplink eth0 is 1500\n"), "{said}");
        });
    }
}

/// Where ICMP is filtered, the path's MTU is found all the same.
#[test]
fn probe_mtu_finds_what_a_filter_hides() {
    run(|| {
        let lab = Lab::start(NARROW);
        wait_for("a first answer", || pings("pod1", "192.168.2.10", "-c 1"));
        for mid in ["mid1", "mid2"] {
            sh(&format!(
                "ip netns exec {mid} nft 'add table ip f; \
                 add chain ip f out {{ type filter hook output priority 0; }}; \
                 add rule ip f out icmp type destination-unreachable drop'"
            ));
        }
        let said = lab.ask(1, "probe-mtu node2");
        assert!(
            said.contains("inner 1380 + 20 = 1400 fits, 1381 does not: it is lost"),
            "{said}"
        );
        assert_eq!(lab.route_mtu(1, "192.168.2.0/26"), Some(1480));
    });
}

/// Somebody who knows what our packets look like tells lies about the path: a small one is believed until
/// it is found out, a great one never, and one that no path can have not even asked about.
#[test]
fn lies_about_the_path_are_found_out() {
    run(|| {
        let lab = Lab::start(wide(Mode::Ipip));
        wait_for("a first answer", || pings("pod1", "192.168.2.10", "-c 1"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sizes/forge.py");
        let lie = |mtu: u16| {
            sh(&format!(
                "ip netns exec mid1 /usr/bin/python3 {script} {mtu}"
            ))
        };
        let route = || lab.route_mtu(1, "192.168.2.0/26");
        let measured = || {
            lab.read_log(1)
                .matches("the path is measured to take packets of 1500")
                .count()
        };

        lie(1300);
        wait_for("the lie to be found out", || measured() == 1);
        assert!(
            lab.read_log(1)
                .contains("the path takes packets of 1300 bytes, not 1500")
        );
        wait_for("1480 again", || route() == Some(1480));

        // The first lie was told to the pod, too; the next ones are not.
        let told = || {
            let icmp = sh("ip netns exec pod1 grep ^IcmpMsg: /proc/net/snmp");
            let (names, values) = icmp.split_once('\n').expect("two lines");
            let mut counts = names.split(' ').zip(values.trim_end().split(' '));
            let found = counts.find(|(name, _)| *name == "InType3");
            found.map_or(0, |(_, count)| count.parse::<u64>().expect("a number"))
        };
        let before = told();
        assert!(before >= 1);
        for mtu in [1280, 600, 552, 68] {
            lie(mtu);
            let end = Instant::now() + Duration::from_secs(3);
            while Instant::now() < end {
                assert_eq!(route(), Some(1480), "{mtu} was believed");
                thread::sleep(Duration::from_millis(100));
            }
        }
        assert_eq!(
            told(),
            before,
            "the pod was told a lie that was not believed"
        );
        assert_eq!(measured(), 1, "{}", lab.read_log(1));
        assert!(pings("pod1", "192.168.2.10", "-c 3 -M dont -s 1452"));
    });
}

/// A truth that is hard to believe, too: measured first, then believed.
#[test]
fn a_very_narrow_link_is_measured_and_then_believed() {
    run(|| {
        let lab = Lab::start(Shape {
            mode: Mode::Vxlan,
            uplink: 1500,
            narrow: 800,
        });
        wait_for("a first answer", || {
            pings("pod1", "192.168.2.10", "-c 1 -s 56")
        });
        said("ip netns exec pod1 ping -c 1 -W 1 -M do -s 1422 192.168.2.10");
        wait_for("750", || lab.route_mtu(1, "192.168.2.0/26") == Some(750));
        assert!(
            lab.read_log(1)
                .contains("the path is measured to take packets of 800 bytes")
        );
        assert!(pings("pod1", "192.168.2.10", "-c 3 -M dont -s 1422"));
    });
}

/// ICMP is filtered, and nobody has to look: `tunnel.probePaths` finds the path's MTU by itself, and that
/// it has become wider again.
#[test]
fn a_path_where_icmp_is_filtered_is_found_by_probes() {
    run(|| {
        let mut lab = Lab::build(NARROW);
        for number in [1, 2] {
            let mut config = std::fs::read_to_string(lab.config(number)).expect("configuration");
            config.push_str("tunnel: { probePaths: 10 }\n");
            std::fs::write(lab.config(number), config).expect("configuration");
        }
        for mid in ["mid1", "mid2"] {
            sh(&format!(
                "ip netns exec {mid} nft 'add table ip f; \
                 add chain ip f out {{ type filter hook output priority 0; }}; \
                 add rule ip f out icmp type destination-unreachable drop'"
            ));
        }
        lab.run_nodes();
        let patient = |what: &str, mtu: u64| {
            let end = Instant::now() + 4 * PATIENCE;
            while lab.route_mtu(1, "192.168.2.0/26") != Some(mtu) {
                assert!(Instant::now() < end, "{what}: {}", lab.read_log(1));
                thread::sleep(Duration::from_millis(200));
            }
        };
        patient("the narrow link", 1380);
        // What the node tells is what it has decided; its workers have it a moment later.
        let refused = said("ip netns exec pod1 ping -c 5 -i 0.3 -W 1 -M do -s 1452 192.168.2.10");
        assert!(refused.contains("mtu = 1380"), "{refused}");
        sh("ip -n mid1 link set over mtu 1500; ip -n mid2 link set over mtu 1500");
        patient("the wider link", 1480);
    });
}

/// Without a tunnel there is no overhead, and what would be right is said of workloads, not of tunnels.
#[test]
fn probe_mtu_without_a_tunnel_says_so() {
    run(|| {
        let lab = Lab::start(Shape {
            mode: Mode::Direct,
            ..NARROW
        });
        sh("ip -n mid1 route add 192.168.1.0/26 via 10.30.0.11
            ip -n mid1 route add 192.168.2.0/26 via 10.99.0.2
            ip -n mid2 route add 192.168.1.0/26 via 10.99.0.1
            ip -n mid2 route add 192.168.2.0/26 via 10.30.1.12");
        wait_for("a first answer", || pings("pod1", "192.168.2.10", "-c 1"));
        let said = lab.ask(1, "probe-mtu 192.168.2.10");
        assert!(
            said.ends_with(
                "(node2, 10.30.1.12): no tunnel: 1400 fits, 1401 does not: the link after 10.30.0.254 \
                 is 1400\n"
            ),
            "{said}"
        );
    });
}
