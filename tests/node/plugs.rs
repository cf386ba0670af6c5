//! Workload ports that come and go while the node runs.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::flow::flow;
use super::netns::{Router, isolated, pings, quiet_counters, sh, wait_for};
use super::support::*;

/// Workloads of a round of the churn, of which there are two, and their place among the node's
/// addresses. The kernel takes its time to bind sockets where others change devices too.
const CHURNED: u8 = 50;
const FIRST: u8 = 100;

/// A node whose first workload is listed and whose others come by their names.
fn automatic(node: Node, max: u8) -> String {
    let file = node.config(&format!(
        "workloads: [{{ interface: cali0 }}]\nworkloadInterfaces: {{ prefix: cali, max: {max} }}\n"
    ));
    file.display().to_string()
}

fn status(node: &str) -> String {
    sh(&format!(
        "{} status --socket /run/underpass/{node}.sock",
        env!("CARGO_BIN_EXE_underpass")
    ))
}

fn wait_for_status(node: &str, what: &str) {
    wait_for(&format!("'{what}' in the status"), || {
        status(node).contains(what).then_some(())
    });
}

fn wait_for_ping(namespace: &str, to: Ipv4Addr) {
    wait_for(&format!("an answer from {to}"), || {
        pings(namespace, to, 1).then_some(())
    });
}

#[test]
fn a_listed_interface_that_is_made_again_is_served_again() {
    isolated(|| {
        let _nodes = running(ONE, TWO);
        for _ in 0..3 {
            sh("ip -n one link del cali0");
            wait_for_status("one", "waits: there is no such interface");
            ONE.build_workload(0);
            wait_for_ping("two0", ONE.workload(0));
        }
        assert!(!status("one").contains("waits"), "{}", status("one"));
        // What the ports before it have moved is still part of the balance.
        let counters = sh(&format!(
            "{} counters --socket {}",
            env!("CARGO_BIN_EXE_underpass"),
            ONE.socket()
        ));
        assert!(
            counters.contains("(closed)") && counters.contains('✓'),
            "{counters}"
        );
    });
}

#[test]
fn a_port_is_opened_when_both_its_endpoint_and_its_interface_are_there() {
    isolated(|| {
        build(&[ONE, TWO]);
        let _one = Router::start("one", automatic(ONE, 2).as_ref());
        let _two = Router::start("two", &TWO.config(""));
        wait_for_ping("one0", TWO.workload(0));

        // The interface first, then the endpoint.
        sh("ip netns add one1");
        ONE.build_workload(1);
        let first = endpoint("one", "pod1", "cali1", ONE.workload(1));
        write_resources("more", &first);
        wait_for_ping("two0", ONE.workload(1));
        assert!(pings("one1", ONE.workload(0), 1));

        // The endpoint first; and one that no prefix matches.
        let second = endpoint("one", "pod2", "cali2", ONE.workload(2));
        let other = endpoint("one", "pod9", "tap9", ONE.workload(9));
        write_resources("more", &[first.as_str(), &second, &other].concat());
        wait_for_status("one", "port cali2  ");
        wait_for_status(
            "one",
            "neither workloads nor workloadInterfaces.prefix (cali) names it",
        );
        sh("ip netns add one2");
        ONE.build_workload(2);
        wait_for_ping("one2", TWO.workload(0));

        // No more than were asked for, until one goes.
        let third = endpoint("one", "pod3", "cali3", ONE.workload(3));
        write_resources("more", &[first, third.clone(), second].concat());
        sh("ip netns add one3");
        ONE.build_workload(3);
        wait_for_status("one", "workloadInterfaces.max: 2 ports are open already");
        write_resources("more", &third);
        wait_for_ping("two0", ONE.workload(3));
        assert!(!pings("two0", ONE.workload(1), 1));
        assert_eq!(
            ours_in("one"),
            ["tunl0", "xdp cali0", "xdp cali3", "xdp eth0"]
        );
    });
}

/// A flow of one workload pair, while others come and go by the hundred.
#[test]
fn a_flow_loses_nothing_while_a_hundred_ports_come_and_go() {
    isolated(|| {
        build(&[ONE, TWO]);
        let one = Router::start("one", automatic(ONE, CHURNED).as_ref());
        let _two = Router::start("two", &TWO.config(""));
        wait_for_ping("one0", TWO.workload(0));
        let stop = AtomicBool::new(false);
        let (out, back) = thread::scope(|scope| {
            let out = scope.spawn(|| flow("one0", "two0", TWO.workload(0), &stop));
            let back = scope.spawn(|| flow("two0", "one0", ONE.workload(0), &stop));
            for round in 0..2 {
                churn(round);
            }
            stop.store(true, Ordering::Relaxed);
            (out.join().expect("flow"), back.join().expect("flow"))
        });
        println!(
            "beside {} ports that came and went: {out:?}, {back:?}",
            2 * CHURNED
        );
        // The kernel's word on rings that were full because a router was not given the processor.
        let reports = [&ONE, &TWO].map(|node| quiet_counters(&node.socket()));
        let ports = reports.iter().flat_map(|report| &report.ports);
        let xdp = ports.filter_map(|port| port.xdp);
        let starved: u64 = xdp.map(|xdp| xdp.rx_dropped + xdp.rx_ring_full).sum();
        println!("{starved} packets found a ring full");
        for flow in [out, back] {
            assert!(flow.sent > 500, "{flow:?}");
            assert!(
                flow.sent - flow.received <= starved,
                "{flow:?}, {starved} starved"
            );
            assert_eq!(flow.late, 0, "{flow:?}");
        }
        assert_eq!(ours_in("one"), ["tunl0", "xdp cali0", "xdp eth0"]);
        drop(one);
    });
}

/// A hundred workloads come, all are served, and all go: every other by its endpoint, the rest by its
/// interface.
fn churn(round: u8) {
    let mut links = String::new();
    for index in FIRST..FIRST + CHURNED {
        links += &format!(
            "link add cali{index} type veth peer name eth{index} netns churn\nlink set cali{index} up\n"
        );
    }
    fs::write("/run/test/links", links).expect("a batch");
    sh("ip netns add churn && ip -n churn link set lo up");
    sh("ip -n one -batch /run/test/links");
    let all: Vec<_> = (FIRST..FIRST + CHURNED)
        .map(|index| {
            let name = format!("churn{round}-{index}");
            endpoint("one", &name, &format!("cali{index}"), address(index))
        })
        .collect();
    write_resources("churn", &all.concat());
    wait_for_ports(3 + usize::from(CHURNED));
    sh(&format!(
        "ip -n churn addr add {}/32 dev eth{FIRST} && ip -n churn link set eth{FIRST} up && \
         ip -n churn route add default via 169.254.1.1 dev eth{FIRST} onlink",
        address(FIRST)
    ));
    wait_for_ping("two0", address(FIRST));
    write_resources("churn", &all[..usize::from(CHURNED) / 2].concat());
    thread::sleep(Duration::from_millis(50));
    sh("ip netns del churn");
    wait_for_ports(3);
    write_resources("churn", "");
}

/// Waits as long as their number changes.
fn wait_for_ports(count: usize) {
    let mut last = 0;
    while last != count {
        let before = last;
        wait_for("another number of ports", || {
            last = ours_in("one").len();
            (last == count || last != before).then_some(())
        });
    }
}

fn address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 9, index)
}

/// A workload that is made anew without a word: it has the same address, and another Ethernet address.
#[test]
fn a_workload_that_changes_its_ethernet_address_silently_is_reached_again() {
    isolated(|| {
        let _nodes = running(ONE, TWO);
        sh(
            "ip netns exec one0 sysctl -qw net.ipv4.conf.all.arp_notify=0 net.ipv4.conf.eth0.arp_notify=0",
        );
        sh("ip -n one0 link set eth0 address 02:00:00:00:99:04");
        wait_for_ping("two0", ONE.workload(0));
    });
}
