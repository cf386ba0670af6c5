//! The routes that a node makes in the host's own table.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use super::netns::{Router, isolated, pings, sh, try_sh, wait_for};
use super::support::*;

/// What the host's table of node `one` has of ours, one line a route.
fn shown() -> BTreeSet<String> {
    let text = sh("ip -n one route show proto 117");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(words).collect()
}

fn set(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

fn wait_for_routes(expected: &[&str]) {
    let expected = set(expected);
    let mut last = BTreeSet::new();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for("routes", || {
            last = shown();
            (last == expected).then_some(())
        });
    }));
    assert!(found.is_ok(), "{last:#?}\nin place of\n{expected:#?}");
}

const BLOCK: &str = "blackhole 192.168.1.0/26";
const WORKLOAD: &str = "192.168.1.10 dev tunl0 scope link src 10.30.0.1";
const TUNNELLED: &str = "192.168.2.0/26 dev tunl0 scope link src 192.168.1.1";
const DIRECT: &str = "192.168.2.0/26 via 10.30.0.2 dev eth0 src 10.30.0.1";

#[test]
fn the_hosts_table_shows_what_each_mode_does() {
    isolated(|| {
        let _nodes = running(ONE, TWO);
        // In direct mode a node's own address is answered by the far node's kernel.
        sh("ip netns exec two sysctl -qw net.ipv4.ip_forward=1");
        assert_eq!(shown(), set(&[BLOCK, WORKLOAD, TUNNELLED]));
        for (mode, route) in [
            ("ipipMode: Never", DIRECT),
            (
                "vxlanMode: Always",
                "192.168.2.0/26 dev tunl0 scope link src 192.168.1.2",
            ),
            ("ipipMode: CrossSubnet", DIRECT),
            ("ipipMode: Always", TUNNELLED),
        ] {
            write_pool(mode);
            wait_for_routes(&[BLOCK, WORKLOAD, route]);
            wait_for("the other node to follow", || {
                pings("one", TWO.workload(0), 2).then_some(())
            });
            assert!(pings("one", ONE.workload(0), 2));
            assert!(!pings("one", "192.168.1.63".parse().unwrap(), 1));
        }
    });
}

#[test]
fn what_others_do_to_our_routes_is_put_right_and_theirs_are_left_alone() {
    isolated(|| {
        build(&[ONE, TWO]);
        sh("ip -n one route add 192.168.2.0/26 via 10.30.0.9 dev eth0 metric 7 proto bird");
        sh("ip -n one route add 192.168.3.0/26 via 10.30.0.9 dev eth0");
        let theirs = || {
            let all = sh("ip -n one route show");
            let theirs = |line: &&str| line.contains("10.30.0.9");
            all.lines()
                .filter(theirs)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let before = theirs();
        let one = Router::start("one", &ONE.config(""));
        let all = [BLOCK, WORKLOAD, TUNNELLED];
        wait_for_routes(&all);
        for damage in [
            "route del 192.168.2.0/26 proto 117",
            "route flush proto 117",
            "route replace 192.168.2.0/26 dev tunl0 proto 117",
            "route add 192.168.77.0/26 dev tunl0 proto 117",
            "route add 192.168.1.0/26 dev tunl0 metric 9 proto 117",
            "link set tunl0 down",
        ] {
            sh(&format!("ip -n one {damage}"));
            if damage.starts_with("link") {
                sh("ip -n one link set tunl0 up");
            }
            wait_for_routes(&all);
        }
        // Another program takes our route's place: that is its own now, until it goes.
        sh("ip -n one route replace 192.168.2.0/26 via 10.30.0.8 dev eth0 proto static");
        wait_for("a message", || {
            one.log().contains("another program has one").then_some(())
        });
        wait_for_routes(&all[..2]);
        sh("ip -n one route del 192.168.2.0/26 via 10.30.0.8");
        wait_for_routes(&all);
        assert_eq!(theirs(), before);
    });
}

#[test]
fn gateways_are_followed_and_the_way_back_is_found() {
    isolated(|| {
        build(&[ONE, TWO]);
        write_pool("ipipMode: Never");
        let _one = Router::start("one", &ONE.config(""));
        wait_for_routes(&[BLOCK, WORKLOAD, DIRECT]);
        sh("ip -n one route add 10.30.0.2/32 via 10.30.0.3 dev eth0");
        let through = "192.168.2.0/26 via 10.30.0.3 dev eth0 src 10.30.0.1";
        wait_for_routes(&[BLOCK, WORKLOAD, through]);
        sh("ip -n one route del 10.30.0.2/32");
        wait_for_routes(&[BLOCK, WORKLOAD, DIRECT]);
        sh("ip -n one link set eth0 down");
        let nowhere = "192.168.2.0/26 dev tunl0 scope link src 10.30.0.1";
        wait_for_routes(&[BLOCK, WORKLOAD, nowhere]);
        sh("ip -n one link set eth0 up");
        wait_for_routes(&[BLOCK, WORKLOAD, DIRECT]);
    });
}

#[test]
fn a_crash_is_taken_over_and_a_clean_end_leaves_what_it_was_told_to() {
    isolated(|| {
        build(&[ONE, TWO]);
        write_pool("ipipMode: Never");
        let mut one = Router::start("one", &ONE.config(""));
        wait_for_routes(&[BLOCK, WORKLOAD, DIRECT]);
        one.signal(Signal::SIGKILL);
        one.wait();
        wait_for_routes(&[BLOCK, DIRECT]);
        sh("ip -n one route add blackhole 192.168.50.0/26 proto 117");

        let mut one = Router::start("one", &ONE.config(""));
        wait_for_routes(&[BLOCK, WORKLOAD, DIRECT]);
        one.signal(Signal::SIGTERM);
        assert_eq!(one.wait(), 0, "{}", one.log());
        assert_eq!(shown(), set(&[]));

        let keeping = ONE.config("host: { tun: tunl0, keepRoutes: true }");
        let mut one = Router::start("one", &keeping);
        wait_for_routes(&[BLOCK, WORKLOAD, DIRECT]);
        one.signal(Signal::SIGTERM);
        assert_eq!(one.wait(), 0, "{}", one.log());
        assert_eq!(shown(), set(&[BLOCK, DIRECT]));
        assert!(try_sh("ip -n one link show tunl0").status.code() != Some(0));
    });
}
