//! Who may send tunnel packets, with the kernel as the sender.

use super::world::*;

/// The far kernel as a stranger: it tunnels from an address that is no node's.
fn stranger(world: &World) {
    world.cluster("vxlanMode: Always", "vxlanMode: Always");
    far_vxlan(false, "");
    inside(
        "far",
        "ip addr add 10.30.0.99/24 dev eth0; ip link set vxlan.calico down;
         ip link set vxlan.calico type vxlan local 10.30.0.99; ip link set vxlan.calico up;
         ip neigh replace 192.168.1.0 lladdr 66:00:00:00:04:01 dev vxlan.calico nud permanent;
         ip route replace 192.168.1.0/26 via 192.168.1.0 dev vxlan.calico onlink src 192.168.2.10",
    );
}

#[test]
fn a_strangers_tunnel_packets_are_dropped_and_counted() {
    run(|world| {
        stranger(world);
        world.start("");
        assert!(!is_answered("far", POD));
        until("it is counted", || world.drops("unknown_peer") > 0);
        assert_eq!(world.drops("reverse_path"), 0);
    });
}

#[test]
fn an_external_nodes_packets_are_taken() {
    run(|world| {
        stranger(world);
        world.start("fence: {externalNodes: [10.30.0.96/28]}");
        // The pod hears it; the answer goes to the node that has the address, which is there too.
        ping("far", POD, "");
        assert_eq!(world.drops("unknown_peer"), 0);
    });
}

#[test]
fn sources_are_held_against_the_route_back() {
    run(|world| {
        world.cluster("vxlanMode: Always", "vxlanMode: Always");
        far_vxlan(false, "");
        // One that is out in the world, one in a block of nobody.
        inside(
            "far",
            "ip addr add 203.0.113.9/32 dev lo; ip addr add 192.168.77.1/32 dev lo",
        );
        let heard = |source: &str| {
            let capture = Capture::start("pod", "icmp");
            within("far", || {
                try_sh(&format!("ping -n -c 2 -i 0.2 -W 1 -I {source} {POD}"))
            });
            !capture.stop().is_empty()
        };
        for (mode, world_passes) in [("loose", true), ("strict", false)] {
            world.start(&format!("fence: {{reversePath: {mode}}}"));
            ping("far", POD, "");
            assert_eq!(heard("203.0.113.9"), world_passes, "{mode}");
            let before = world.drops("reverse_path");
            assert!(!heard("192.168.77.1"), "{mode}");
            until("both are counted", || {
                world.drops("reverse_path") >= before + 2
            });
            world.signal(nix::sys::signal::Signal::SIGTERM);
        }
    });
}
