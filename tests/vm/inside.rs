//! underpass in a guest: by AF_XDP on virtio NICs, between a guest that is its workload and a guest whose
//! kernel is the far tunnel end.

use super::lab::{POD1, POD2, VmLab};
use super::netns::isolated;
use super::wire::carries;

#[test]
fn a_guest_routes_between_two_others_by_af_xdp_on_virtio() {
    isolated(|| {
        let Some(lab) = VmLab::up("C ipip") else {
            return;
        };
        let ports = lab.quiet_counters("worker1").ports;
        for name in ["eth0", "cali1"] {
            let port = ports.iter().find(|port| port.name == name);
            assert_eq!(port.expect(name).io, "af_xdp native copy", "{name}");
        }
        let driver = lab.exec(
            "worker1",
            "basename $(readlink /sys/class/net/cali1/device/driver)",
        );
        assert_eq!(driver.trim(), "virtio_net");
        // The other modes differ in nothing that a guest's devices see.
        for (mode, from, address, to) in [
            ("ipip", "pod2", POD2, "pod1"),
            ("vxlan", "pod1", POD1, "pod2"),
        ] {
            lab.script(&format!("mode {mode}"));
            lab.pings("pod1", POD2);
            lab.pings("pod2", POD1);
            carries(mode, "pod1");
            lab.fetched_whole(from, address, to);
        }
        lab.lost_nothing_but(
            "worker1",
            &["multicast", "spoofed_source", "not_answered", "too_big"],
        );
    });
}
