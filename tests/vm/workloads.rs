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
