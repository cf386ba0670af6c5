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

/// Datagrams of nearly a full packet's length come as they were sent.
fn datagrams_arrive(lab: &VmLab, mode: &str) {
    let text = format!("{mode:=>1400}");
    lab.exec(
        "pod2",
        "rm -f /tmp/datagram; (timeout 15 nc -u -l -p 7000 </dev/null >/tmp/datagram &)",
    );
    let got = wait_for("a datagram", || {
        let send = format!("printf %s {text} | timeout 1 nc -u {POD2} 7000 || true");
        lab.exec("pod1", &send);
        Some(lab.exec("pod2", "cat /tmp/datagram")).filter(|got| !got.is_empty())
    });
    assert!(got.starts_with(&text), "{mode}: {got:?}");
    lab.exec("pod2", "killall nc; true");
}
