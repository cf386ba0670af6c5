//! What happens to a running node's devices: they go down and come up, go for good, change their
//! address or MTU.

use std::time::Duration;

use super::netns::{idle_cpu_time, isolated, pings, sh, try_sh, wait_for};
use super::support::*;

const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");

const TWO_WORKLOADS: Node = Node {
    workloads: 2,
    ..ONE
};

#[test]
fn traffic_comes_back_after_the_uplink_was_down() {
    isolated(|| {
        let _nodes = running(ONE, TWO);
        sh("ip -n one link set eth0 down");
        assert!(!pings("one0", TWO.workload(0), 1));
        sh("ip -n one link set eth0 up");
        wait_for("traffic again", || {
            pings("one0", TWO.workload(0), 1).then_some(())
        });
        // The other end: the carrier goes.
        sh("ip -n net link set one down");
        assert!(!pings("one0", TWO.workload(0), 1));
        sh("ip -n net link set one up");
        wait_for("traffic again", || {
            pings("one0", TWO.workload(0), 1).then_some(())
        });
    });
}

/// Deleted, or lost with its peer, and made again: what was bound to the old interface is of no use.
#[test]
fn an_uplink_that_is_made_again_is_served_again() {
    isolated(|| {
        let mut nodes = running(TWO_WORKLOADS, TWO);
        let health = |what: &str| {
            try_sh(&format!(
                "{UNDERPASS} status --socket {} | {what}",
                ONE.socket()
            ))
        };
        for _ in 0..2 {
            sh("ip -n net link del one");
            wait_for("a status that says so", || {
                health("grep -q 'port eth0 .*waiting.*gone: the interface was deleted'")
                    .status
                    .success()
                    .then_some(())
            });
            assert!(
                pings("one0", TWO_WORKLOADS.workload(1), 2),
                "workloads are served on"
            );
            ONE.build_uplink();
            wait_for("traffic again, both ways", || {
                (pings("one0", TWO.workload(0), 1) && pings("two0", ONE.workload(0), 1))
                    .then_some(())
            });
        }
        assert!(nodes[0].is_running());
        assert_eq!(
            ours_in("one"),
            ["tunl0", "xdp cali0", "xdp cali1", "xdp eth0"]
        );
        let status = sh(&format!("{UNDERPASS} status --socket {}", ONE.socket()));
        assert!(status.starts_with("node one is ready"), "{status}");
    });
}

#[test]
fn another_ethernet_address_of_either_end_is_followed() {
    isolated(|| {
        let _nodes = running(ONE, TWO);
        for (node, address) in [("two", "02:00:00:00:99:02"), ("one", "02:00:00:00:99:01")] {
            sh(&format!("ip -n {node} link set eth0 address {address}"));
            wait_for(&format!("traffic with {node}'s new address"), || {
                pings("one0", TWO.workload(0), 1).then_some(())
            });
        }
        // A workload that was made anew announces itself.
        sh("ip -n one0 link set eth0 address 02:00:00:00:99:03");
        wait_for("traffic with the workload's new address", || {
            pings("one0", TWO.workload(0), 1).then_some(())
        });
    });
}

/// A workload ends and its veth with it: others are served on, and the processor is not kept busy.
#[test]
fn a_workload_port_that_goes_takes_nothing_with_it() {
    isolated(|| {
        let nodes = running(TWO_WORKLOADS, TWO);
        assert!(pings("one1", TWO.workload(0), 2));
        sh("ip -n one link del cali1");
        assert!(pings("one0", TWO.workload(0), 5));
        assert!(!pings("one0", TWO_WORKLOADS.workload(1), 1));
        std::thread::sleep(Duration::from_millis(500));
        let time = Duration::from_secs(2);
        let used = idle_cpu_time(nodes[0].pid(), time, time / 50);
        assert!(used < time / 50, "{used:?} of {time:?}");
        assert!(pings("two0", ONE.workload(0), 5));
    });
}

/// The kernel as the judge: path MTU discovery, and fragments of what may be fragmented.
#[test]
fn larger_packets_than_the_tunnels_are_refused_or_fragmented() {
    isolated(|| {
        let _nodes = running(ONE, TWO);
        for pod in ["one0", "two0"] {
            sh(&format!("ip -n {pod} link set eth0 mtu 1500"));
        }
        for (mode, mtu) in [
            ("ipipMode: Always", 1480),
            ("vxlanMode: Always\n  ipipMode: Never", 1450),
        ] {
            write_pool(mode);
            let ping = |size: i32, more: &str| {
                let to = TWO.workload(0);
                let line = format!(
                    "ip netns exec one0 ping -n -c 1 -W 2 -s {} {more} {to}",
                    size - 28
                );
                let output = try_sh(&line);
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                (output.status.success(), text)
            };
            wait_for("the mode", || {
                sh("ip -n one0 route flush cache");
                let (_, text) = ping(1500, "-M do");
                text.contains(&format!("(mtu = {mtu})")).then_some(())
            });
            assert!(ping(mtu, "-M do").0, "{mode}");
            // The kernel keeps to what it was told.
            let (sent, text) = ping(mtu + 1, "-M do");
            assert!(!sent && !text.contains("1 received"), "{mode}: {text}");
            // Fragments from the pod, and packets that only the router makes fragments of.
            assert!(ping(4000, "-M dont").0, "{mode}");
            sh("ip -n one0 route flush cache");
            assert!(ping(1500, "-M dont").0, "{mode}");
        }
    });
}
