//! The kernel's own routing, bare and with its tunnel devices, set up as Calico sets them up.

use std::fmt::Write as _;

use super::{Place, Running};
use crate::bench::error::Result;
use crate::bench::namespace::Namespace;
use crate::bench::topology::{GATEWAY, Site, Topology, WORKLOAD_MTU};

/// Routing without a tunnel.
pub(super) fn native(topology: &Topology, place: &Place) -> Result<Running> {
    on_both(topology, place, |own, other| Way {
        set_up: String::new(),
        hop: format!("via {} dev {}", other.address, own.uplink),
    })
}

/// A vxlan device for each node, with the other node as a fixed entry (felix, `vxlan_mgr.go`).
pub(super) fn vxlan(topology: &Topology, place: &Place) -> Result<Running> {
    let far_end = |own: &Site, other: &Site| {
        let device = "vxlan.calico";
        let set_up = format!(
            "link add {device} address {own_mac} mtu {WORKLOAD_MTU} type vxlan id 4096 dstport 4789 \
             local {own_address} dev {uplink} nolearning\n\
             addr add {own_tunnel}/32 dev {device}\n\
             link set {device} up\n\
             neigh add {far_tunnel} lladdr {far_mac} dev {device} nud permanent\n",
            own_mac = own.vtep_mac(),
            own_address = own.address,
            uplink = own.uplink,
            own_tunnel = own.tunnel_address,
            far_tunnel = other.tunnel_address,
            far_mac = other.vtep_mac(),
        );
        let hop = format!("via {} dev {device} onlink", other.tunnel_address);
        Way { set_up, hop }
    };
    let running = on_both(topology, place, far_end)?;
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
pub(super) fn ipip(topology: &Topology, place: &Place) -> Result<Running> {
    on_both(topology, place, |own, other| Way {
        set_up: format!(
            "link add ipip0 type ipip local {own_address} remote any ttl 64\n\
             link set ipip0 mtu {WORKLOAD_MTU} up\n\
             addr add {tunnel}/32 dev ipip0\n",
            own_address = own.address,
            tunnel = own.tunnel_address,
        ),
        hop: format!("via {} dev ipip0 onlink", other.address),
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

/// How a node reaches the other one's workloads.
struct Way {
    /// Lines for `ip -batch`.
    set_up: String,
    /// What routes to them have behind the destination.
    hop: String,
}

/// Routes as Calico's: one for each address of the node's own workload, one for each of the other node's
/// blocks.
fn on_both(
    topology: &Topology,
    place: &Place,
    way: impl Fn(&Site, &Site) -> Way,
) -> Result<Running> {
    for (own, other) in both(topology) {
        own.enable_napi()?;
        own.node.write("/proc/sys/net/ipv4/ip_forward", "1")?;
        let way = way(own, other);
        let mut lines = format!("addr add {GATEWAY}/32 dev {}\n{}", own.port, way.set_up);
        for address in place.addresses(own) {
            let (workload, port) = (own.workload_address, &own.port);
            let hop = if address == workload {
                format!("dev {port} scope link")
            } else {
                format!("via {workload} dev {port} onlink")
            };
            let _ = writeln!(lines, "route add {address}/32 {hop}");
        }
        for prefix in place.prefixes(other) {
            let _ = writeln!(lines, "route add {prefix} {}", way.hop);
        }
        own.node.ip(&lines)?;
    }
    Ok(Running::default())
}

fn both(topology: &Topology) -> [(&Site, &Site); 2] {
    [(&topology.a, &topology.b), (&topology.b, &topology.a)]
}
