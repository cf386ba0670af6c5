//! The kernel's own routing, bare and with its tunnel devices, set up as Calico sets them up.

use super::Running;
use crate::bench::error::Result;
use crate::bench::namespace::Namespace;
use crate::bench::topology::{BLOCK_LENGTH, GATEWAY, Site, Topology, WORKLOAD_MTU};

/// Routing without a tunnel.
pub(super) fn native(topology: &Topology) -> Result<Running> {
    on_both(topology, |own, other| {
        format!(
            "route add {}/{BLOCK_LENGTH} via {} dev {}\n",
            other.block, other.address, own.uplink
        )
    })
}

/// A vxlan device for each node, with the other node as a fixed entry (felix, `vxlan_mgr.go`).
pub(super) fn vxlan(topology: &Topology) -> Result<Running> {
    let far_end = |own: &Site, other: &Site| {
        let device = "vxlan.calico";
        format!(
            "link add {device} address {own_mac} mtu {WORKLOAD_MTU} type vxlan id 4096 dstport 4789 \
             local {own_address} dev {uplink} nolearning\n\
             addr add {own_tunnel}/32 dev {device}\n\
             link set {device} up\n\
             neigh add {far_tunnel} lladdr {far_mac} dev {device} nud permanent\n\
             route add {block}/{BLOCK_LENGTH} via {far_tunnel} dev {device} onlink\n",
            own_mac = own.vtep_mac(),
            own_address = own.address,
            uplink = own.uplink,
            own_tunnel = own.tunnel_address,
            far_tunnel = other.tunnel_address,
            far_mac = other.vtep_mac(),
            block = other.block,
        )
    };
    let running = on_both(topology, far_end)?;
    for (own, other) in both(topology) {
        own.node.run(|| {
            super::super::run_command(
                "bridge",
                &[
                    "fdb",
                    "append",
                    &other.vtep_mac().to_string(),
                    "dev",
                    "vxlan.calico",
                    "dst",
                    &other.address.to_string(),
                ],
            )
        })?;
    }
    Ok(running)
}

/// An ipip device for each node (felix, `ipip_mgr.go`).
pub(super) fn ipip(topology: &Topology) -> Result<Running> {
    on_both(topology, |own, other| {
        format!(
            "link add ipip0 type ipip local {own_address} remote any ttl 64\n\
             link set ipip0 mtu {WORKLOAD_MTU} up\n\
             addr add {tunnel}/32 dev ipip0\n\
             route add {block}/{BLOCK_LENGTH} via {far} dev ipip0 onlink\n",
            own_address = own.address,
            tunnel = own.tunnel_address,
            block = other.block,
            far = other.address,
        )
    })
}

/// Why the kernel has no such tunnel device.
pub(super) fn missing(kind: &str, parameters: &str) -> Option<String> {
    let make =
        || Namespace::new("a trial")?.ip(&format!("link add trial type {kind} {parameters}\n"));
    make()
        .is_err()
        .then(|| format!("this kernel has no {kind} devices"))
}

fn on_both(topology: &Topology, lines: impl Fn(&Site, &Site) -> String) -> Result<Running> {
    for (own, other) in both(topology) {
        own.enable_napi()?;
        own.node.write("/proc/sys/net/ipv4/ip_forward", "1")?;
        own.node.ip(&format!(
            "addr add {GATEWAY}/32 dev {port}\n\
             route add {block}/{BLOCK_LENGTH} via {workload} dev {port} onlink\n",
            port = own.port,
            block = own.block,
            workload = own.workload_address,
        ))?;
        own.node.ip(&lines(own, other))?;
    }
    Ok(Running::default())
}

fn both(topology: &Topology) -> [(&Site, &Site); 2] {
    [(&topology.a, &topology.b), (&topology.b, &topology.a)]
}
