//! A guest whose own kernel is the far tunnel end: `tunl0` set up as Calico sets it up, and `vxlan`.

use super::lab::{POD1, POD2, VmLab};
use super::netns::{isolated, quiet_counters, try_sh};

const WORKER1: &str = "/run/underpass/worker1.sock";

#[test]
fn a_guests_own_kernel_is_the_far_end_of_every_mode() {
    isolated(|| {
        let Some(lab) = VmLab::up("B ipip") else {
            return;
        };
        // The tunnel is what limits, not the pod's link.
        lab.exec("pod1", "ip link set eth0 mtu 1500");
        for (mode, mtu, outer) in [
            (
                "ipip",
                1480,
                "10.30.0.11 > 10.30.0.12: IP 192.168.1.10 > 192.168.2.10",
            ),
            (
                "vxlan",
                1450,
                "10.30.0.12.4789: VXLAN, flags [I] (0x08), vni 4096",
            ),
            (
                "direct",
                1500,
                " IP 192.168.1.10 > 192.168.2.10: ICMP echo request",
            ),
            (
                "ipip-cross",
                1500,
                " IP 192.168.1.10 > 192.168.2.10: ICMP echo request",
            ),
        ] {
            lab.script(&format!("mode {mode}"));
            lab.exec("pod1", "ip route flush cache");
            lab.exec("pod2", "ip route flush cache");
            lab.pings("pod1", POD2);
            lab.pings("pod2", POD1);
            on_the_wire(outer);
            fits_and_no_more(&lab, mode, mtu);
            lab.fetched_whole("pod2", POD2, "pod1");
            lab.fetched_whole("pod1", POD1, "pod2");
        }
        let counted = quiet_counters(WORKER1);
        assert_eq!(counted.balance().difference(), 0, "{counted:?}");
        // What was dropped is what was a byte too long, and its sender heard of it.
        let unexpected: Vec<_> = counted
            .drops
            .iter()
            .filter(|drop| drop.reason != "too_big" && drop.packets > 0)
            .collect();
        assert!(unexpected.is_empty(), "{unexpected:?}");
    });
}

/// The guest's kernel sees a ping's outer header as tcpdump, which is not ours, reads it.
fn on_the_wire(expected: &str) {
    let capture =
        "timeout 10 tcpdump -ni to-worker2 -c 1 -Q out 'not arp and not udp port 5353' 2>/dev/null";
    let ping = format!("sleep 1; ip netns exec vm-pod1 ping -n -c 3 -i 0.2 {POD2} >/dev/null");
    let output = try_sh(&format!(
        "({ping}) & ip netns exec vm-fabric {capture}; wait"
    ));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.replace(" (ipip-proto-4)", "").contains(expected),
        "{expected:?} is not in {text}"
    );
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
