//! The cluster's resources as they concern this node, and what MTUs come of them.

use super::{Report, Severity};
use crate::control::report::overhead;
use crate::control::resolve::{Wanted, resolve};
use crate::kernel::{Mirror, veth};
use crate::resources::{ClusterState, NodeConfig};
use crate::wire::Mtu;

pub(super) fn examine(
    report: &mut Report,
    config: &NodeConfig,
    state: &ClusterState,
    mirror: &Mirror,
) {
    let wanted = resolve(state, &config.node);
    for warning in &wanted.warnings {
        // The one that has a word of its own for programs; each sentence says what to do.
        let (check, subject) = match warning.contains("CrossSubnet") {
            true => ("cross_subnet", "nodes"),
            false => ("resources", "datastore"),
        };
        report.add(Severity::Warning, check, subject, warning, "");
    }
    let own = wanted.local.addresses().next();
    let uplink = config.uplink.interface.to_string();
    if let Some(address) = own
        && !mirror.is_local(address)
    {
        report.add(
            Severity::Fault,
            "node_address",
            &uplink,
            format!(
                "Node({}) has the address {address}, which this machine has not",
                config.node
            ),
            format!("ip addr add {address}/… dev {uplink}, or correct the Node resource"),
        );
    }
    mtu(report, config, &wanted, mirror);
}

/// IPv6 needs links of that many bytes (RFC 8200 section 5).
const IPV6_LEAST: u16 = 1280;

fn mtu(report: &mut Report, config: &NodeConfig, wanted: &Wanted, mirror: &Mirror) {
    let name = config.uplink.interface.to_string();
    let Some(uplink) = mirror.link_named(&name) else {
        return;
    };
    let overhead = wanted.routes.values().map(overhead).max().unwrap_or(0);
    let room = uplink.mtu.less(overhead).0;
    let taken = match overhead {
        0 => String::new(),
        bytes => format!(" less the tunnel's {bytes}"),
    };
    let before = report.findings.len();
    let mut too_large = |subject: &str, what: String, remedy: String| {
        report.add(
            Severity::Fault,
            "mtu",
            subject,
            format!(
                "{what}, and {name} has room for {room} ({}{taken})",
                uplink.mtu.0
            ),
            remedy,
        );
    };
    let raise = |needed: u16| {
        let needed = needed.saturating_add(overhead);
        format!("raise the uplink's (ip link set {name} mtu {needed}, and the switches')")
    };
    let tunnel = config.tunnel.mtu;
    if tunnel > room {
        let what = format!("tunnel.mtu is {tunnel}");
        too_large(
            &name,
            what,
            format!("write at most {room}, or {}", raise(tunnel)),
        );
    }
    let host = config.host.as_ref().map_or(0, |host| host.mtu);
    if host > room {
        let what = format!("host.mtu is {host}");
        too_large(
            &name,
            what,
            format!("write at most {room}, or {}", raise(host)),
        );
    }
    if room < IPV6_LEAST {
        let what = format!("workloads need an MTU of {IPV6_LEAST}, the least of IPv6");
        too_large(&name, what, raise(IPV6_LEAST));
    }
    for (port, mtu) in workload_mtus(config, mirror) {
        if mtu.0 > room {
            let what = format!("the workload behind {port} has an MTU of {}", mtu.0);
            let remedy = format!(
                "give the workload's interface an MTU of at most {room}, or {}",
                raise(mtu.0)
            );
            too_large(&port, what, remedy);
        }
    }
    if report.findings.len() == before {
        report.ok(
            "mtu",
            &name,
            format!(
                "workloads have room for {room} bytes ({}{taken})",
                uplink.mtu.0
            ),
        );
    }
}

/// The MTUs of the workloads' own interfaces, as far as they can be seen: a veth's far end.
fn workload_mtus(config: &NodeConfig, mirror: &Mirror) -> Vec<(String, Mtu)> {
    let ports = config.workloads.iter().filter(|port| port.netns.is_none());
    let ports = ports.filter(|port| config.bridge_of(&port.interface).is_none());
    let mtus = ports.filter_map(|port| {
        let name = port.interface.to_string();
        let link = mirror.link_named(&name)?;
        let mtu = veth::on_peer(link, |peer| Ok(peer.mtu)).ok()??;
        Some((name, mtu))
    });
    mtus.collect()
}
