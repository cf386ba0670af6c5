//! Guests as workloads: each behind a TAP that an underpass node serves.

use super::lab::{MODES, POD1, POD2, VmLab};
use super::netns::{isolated, quiet_counters, wait_for};

#[test]
fn two_guests_reach_each_other_in_every_mode() {
    isolated(|| {
        let Some(lab) = VmLab::up("A ipip") else {
            return;
        };
        for mode in MODES {
            lab.script(&format!("mode {mode}"));
            lab.pings("pod1", POD2);
            lab.fetched_whole("pod2", POD2, "pod1");
            lab.fetched_whole("pod1", POD1, "pod2");
            datagrams_arrive(&lab, mode);
        }
        for node in ["worker1", "worker2"] {
            let counted = quiet_counters(&format!("/run/underpass/{node}.sock"));
            assert_eq!(counted.balance().difference(), 0, "{node}: {counted:?}");
        }
    });
}

/// A TAP with all offloads, where the guest leaves checksums and segmentation to its node, and unix sockets.
/// A guest that ends and comes again finds its node as it was.
#[test]
fn guests_reach_each_other_by_every_kind_of_port() {
    isolated(|| {
        for (kind, restarts) in [("packet", false), ("stream", true), ("dgram", false)] {
            let Some(lab) = VmLab::up(&format!("A vxlan --port {kind}")) else {
                return;
            };
            let offload = "ethtool -k eth0 | grep -q 'tcp-segmentation-offload: on'";
            assert_eq!(
                lab.try_exec("pod2", offload).status.success(),
                kind == "packet",
                "{kind}"
            );
            if restarts {
                let before = lab.script("status");
                lab.script("restart pod2");
                assert_eq!(router_pids(&before), router_pids(&lab.script("status")));
            }
            lab.pings("pod1", POD2);
            lab.fetched_whole("pod2", POD2, "pod1");
            lab.fetched_whole("pod1", POD1, "pod2");
            datagrams_arrive(&lab, kind);
            let counted = quiet_counters("/run/underpass/worker1.sock");
            assert_eq!(counted.balance().difference(), 0, "{kind}: {counted:?}");
            let expected = [
                "multicast",
                "spoofed_source",
                "not_answered",
                "too_big",
                // A guest's datagrams wait in a short queue (net.unix.max_dgram_qlen).
                "tx_ring_full",
            ];
            let lost = counted.drops.iter().filter(|drop| drop.packets > 0);
            let lost: Vec<_> = lost
                .filter(|drop| !expected.contains(&drop.reason.as_str()))
                .collect();
            assert!(lost.is_empty(), "{kind}: {lost:?}");
        }
    });
}

fn router_pids(status: &str) -> Vec<String> {
    let rows = status.lines().filter(|line| line.contains(" underpass "));
    let pids = rows.filter_map(|line| line.split_whitespace().nth(3));
    pids.map(str::to_owned).collect()
}

/// Datagrams come as they were sent: of nearly a full packet's length, and cut into fragments.
fn datagrams_arrive(lab: &VmLab, mode: &str) {
    for length in [1400, 4000] {
        let text = format!("{mode:=>length$}");
        lab.exec(
            "pod2",
            "rm -f /tmp/datagram; (timeout 20 socat -u UDP-RECV:7000 OPEN:/tmp/datagram,creat >/dev/null 2>&1 </dev/null &)",
        );
        let got = wait_for("a datagram", || {
            let send = format!("printf %s {text} | socat -u -b 8192 - UDP-SENDTO:{POD2}:7000");
            lab.exec("pod1", &send);
            Some(lab.exec("pod2", "cat /tmp/datagram 2>/dev/null; true"))
                .filter(|got| !got.is_empty())
        });
        assert!(got.starts_with(&text), "{mode}: {length}: {got:?}");
        lab.exec("pod2", "killall socat; true");
    }
}
