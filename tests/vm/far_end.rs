//! A guest whose own kernel is the far tunnel end: `tunl0` set up as Calico sets it up, and `vxlan`.

use super::lab::{POD1, POD2, VmLab};
use super::netns::isolated;
use super::wire::carries;

#[test]
fn a_guests_own_kernel_is_the_far_end_of_every_mode() {
    isolated(|| {
        let Some(lab) = VmLab::up("B ipip") else {
            return;
        };
        // The tunnel is what limits, not the pod's link.
        lab.exec("pod1", "ip link set eth0 mtu 1500");
        for (mode, mtu, outer) in [
            ("ipip", 1480, "ipip"),
            ("vxlan", 1450, "vxlan"),
            ("direct", 1500, "direct"),
            ("ipip-cross", 1500, "direct"),
        ] {
            lab.script(&format!("mode {mode}"));
            lab.exec("pod1", "ip route flush cache");
            lab.exec("pod2", "ip route flush cache");
            lab.pings("pod1", POD2);
            lab.pings("pod2", POD1);
            carries(outer, "pod1");
            fits_and_no_more(&lab, mode, mtu);
            lab.fetched_whole("pod2", POD2, "pod1");
            lab.fetched_whole("pod1", POD1, "pod2");
        }
        // What was dropped is what was a byte too long, and its sender heard of it.
        lab.lost_nothing_but("worker1", &["too_big"]);
    });
}

/// A packet as large as the tunnel takes, and one that is a byte larger, both ways.
fn fits_and_no_more(lab: &VmLab, mode: &str, mtu: usize) {
    for (from, to) in [("pod1", POD2), ("pod2", POD1)] {
        let whole = lab.ping_of(from, to, mtu);
        assert!(
            whole.status.success(),
            "{mode}: {mtu} bytes from {from}: {whole:?}"
        );
        if mtu == 1500 {
            continue;
        }
        let larger = lab.ping_of(from, to, mtu + 1);
        let text = String::from_utf8_lossy(&larger.stdout).into_owned();
        assert!(
            !larger.status.success() && text.contains(&format!("mtu = {mtu}")),
            "{mode}: {} bytes from {from}: {text}",
            mtu + 1
        );
    }
}
