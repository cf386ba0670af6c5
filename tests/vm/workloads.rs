//! Guests as workloads, each behind a port of its node's.

use super::lab::{MODES, POD1, POD2, VmLab};
use super::netns::isolated;
use super::wire::carries;

/// What guests do that a router does not forward.
const HARMLESS: [&str; 5] = [
    "multicast",
    "spoofed_source",
    "not_answered",
    "too_big",
    // A guest's datagrams wait in a short queue (net.unix.max_dgram_qlen).
    "tx_ring_full",
];

/// One guest finishes its packets itself and is served by AF_XDP; the other has all offloads, and leaves
/// checksums and segmentation to its node.
#[test]
fn two_guests_reach_each_other_in_every_mode() {
    isolated(|| {
        let Some(lab) = VmLab::up("A ipip --port tap,packet") else {
            return;
        };
        let offload = "ethtool -k eth0 | grep -q 'tcp-segmentation-offload: on'";
        assert!(!lab.try_exec("pod1", offload).status.success());
        assert!(lab.try_exec("pod2", offload).status.success());
        for mode in MODES {
            lab.script(&format!("mode {mode}"));
            everything_arrives(&lab, mode);
        }
        carries("direct", "pod1");
        // A guest that ends and comes again finds its node as it was.
        restarts(&lab, &["pod2"]);
        lab.pings("pod1", POD2);
        for node in ["worker1", "worker2"] {
            lab.lost_nothing_but(node, &[&HARMLESS[..], &["no_neighbour"]].concat());
        }
    });
}

#[test]
fn guests_at_unix_sockets_reach_each_other_and_come_again() {
    isolated(|| {
        let Some(lab) = VmLab::up("A vxlan --port stream,dgram") else {
            return;
        };
        everything_arrives(&lab, "before");
        restarts(&lab, &["pod1", "pod2"]);
        everything_arrives(&lab, "after");
        for node in ["worker1", "worker2"] {
            lab.lost_nothing_but(node, &HARMLESS);
        }
    });
}

fn everything_arrives(lab: &VmLab, when: &str) {
    lab.pings("pod1", POD2);
    lab.fetched_whole("pod2", POD2, "pod1");
    lab.fetched_whole("pod1", POD1, "pod2");
    datagrams_arrive(lab, when);
}

fn restarts(lab: &VmLab, guests: &[&str]) {
    let before = router_pids(&lab.script("status"));
    assert_eq!(before.len(), 2);
    for guest in guests {
        lab.script(&format!("restart {guest}"));
    }
    assert_eq!(router_pids(&lab.script("status")), before);
}

fn router_pids(status: &str) -> Vec<String> {
    let rows = status.lines().filter(|line| line.contains(" underpass "));
    let pids = rows.filter_map(|line| line.split_whitespace().nth(3));
    pids.map(str::to_owned).collect()
}

/// Datagrams come as they were sent: of nearly a full packet's length, and cut into fragments.
fn datagrams_arrive(lab: &VmLab, when: &str) {
    for length in [1400, 4000] {
        let text = format!("{when:=>length$}");
        lab.exec(
            "pod2",
            "rm -f /tmp/datagram; (timeout 20 socat -u UDP-RECV:7000 OPEN:/tmp/datagram,creat >/dev/null 2>&1 </dev/null &)",
        );
        let got = lab.wait_for("a datagram", || {
            let send = format!("printf %s {text} | socat -u -b 8192 - UDP-SENDTO:{POD2}:7000");
            lab.exec("pod1", &send);
            Some(lab.exec("pod2", "cat /tmp/datagram 2>/dev/null; true"))
                .filter(|got| !got.is_empty())
        });
        assert!(got.starts_with(&text), "{when}: {length}: {got:?}");
        lab.exec("pod2", "killall socat; true");
    }
}
