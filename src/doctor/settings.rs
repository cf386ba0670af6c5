//! The kernel's settings of IP: reverse-path filter, forwarding and the chains that drop it; and BGP's port.

use super::{Report, Scene, Severity};
use crate::control::bgp::plan::port_of;
use crate::kernel::forward_chains::{self, Direction, DroppingChain};
use crate::kernel::{listening, sysctl};
use crate::resources::bgp_use::Bgp;
use crate::resources::{ClusterState, NodeConfig};

pub(super) fn examine(report: &mut Report, scene: &Scene<'_>) {
    let Some(config) = scene.options.config else {
        return;
    };
    let uplink = config.uplink.interface.to_string();
    let tun = config.host.as_ref().map(|host| host.tun.to_string());
    for interface in std::iter::once(uplink).chain(tun) {
        reverse_path(report, scene, &interface);
    }
    forwarding(report, scene, config);
    if let Some(host) = &config.host {
        forward_chain(report, scene, &host.tun.to_string());
    }
    bgp_port(report, scene, config);
}

/// The kernel's value of strict reverse-path filtering (RFC 3704 section 2.2).
const STRICT: &str = "1";

fn reverse_path(report: &mut Report, scene: &Scene<'_>, interface: &str) {
    let own = value(interface, "rp_filter");
    let all = value("all", "rp_filter");
    // The host's device is not there before the node runs: it will get the default.
    let own = own.or_else(|| value("default", "rp_filter"));
    let (Some(own), Some(all)) = (own, all) else {
        return;
    };
    // The larger of the two counts (kernel, IN_DEV_RPFILTER).
    let effective = own.clone().max(all.clone());
    if effective != STRICT {
        let name = if effective == "0" { "off" } else { "loose" };
        report.ok(
            "rp_filter",
            interface,
            format!("the reverse-path filter is {name}"),
        );
        return;
    }
    let present = scene.mirror.link_named(interface).is_some();
    let key = |of: &str| format!("net.ipv4.conf.{of}.rp_filter=2");
    let mut wrong = Vec::new();
    if all == STRICT {
        wrong.push(key("all"));
    }
    if own == STRICT {
        wrong.push(key(if present { interface } else { "default" }));
    }
    report.add(
        Severity::Warning,
        "rp_filter",
        interface,
        format!(
            "the reverse-path filter is strict (all {all}, {interface} {own}): the host's kernel drops \
             what comes in by another device than its own route to the sender leaves by"
        ),
        format!("sysctl -w {}: loose", wrong.join(" ")),
    );
}

/// Whether BGP's port is free, or this program's already.
fn bgp_port(report: &mut Report, scene: &Scene<'_>, config: &NodeConfig) {
    let Bgp::Internal(_) = config.bgp else {
        return;
    };
    let nothing = ClusterState::default();
    let port = port_of(scene.state.unwrap_or(&nothing), &config.node);
    match listening::holder(port) {
        Some(holder) if !holder.starts_with("underpass ") => report.add(
            Severity::Fault,
            "bgp_port",
            "machine",
            format!("{holder} listens at BGP's port {port}: peers that connect reach it, not underpass"),
            "stop the other daemon, have it run beside underpass (bgp: external), or set listenPort in \
             BGPConfiguration",
        ),
        holder => {
            let found = holder.unwrap_or_else(|| "nobody".to_owned());
            report.ok("bgp_port", "machine", format!("{found} listens at port {port}"));
        }
    }
}

fn forwarding(report: &mut Report, scene: &Scene<'_>, config: &NodeConfig) {
    if config.host.is_none() {
        return;
    }
    let pools = scene
        .state
        .into_iter()
        .flat_map(|state| state.pools.values());
    let (mut v6, mut nat) = (false, false);
    for pool in pools {
        v6 |= pool.cidr().addr().is_ipv6();
        nat |= pool.spec.nat_outgoing;
    }
    let severity = if nat {
        Severity::Fault
    } else {
        Severity::Warning
    };
    for (key, name, matters) in [
        ("ipv4/ip_forward", "net.ipv4.ip_forward", true),
        (
            "ipv6/conf/all/forwarding",
            "net.ipv6.conf.all.forwarding",
            v6,
        ),
    ] {
        let off = sysctl::read(key).is_ok_and(|value| value == "0");
        if off && matters {
            report.add(
                severity,
                "forwarding",
                "machine",
                format!(
                    "{name} is 0: what workloads send to addresses in no pool, and to other nodes' own \
                     addresses, is dropped by the host's kernel{}",
                    if nat { ", and natOutgoing has no effect" } else { "" }
                ),
                format!("sysctl -w {name}=1, and into /etc/sysctl.d"),
            );
        } else if matters {
            report.ok("forwarding", "machine", format!("{name} is on"));
        }
    }
}

/// Whether what workloads send to the world, and its answers, get through the host's packet filter.
fn forward_chain(report: &mut Report, scene: &Scene<'_>, tun: &str) {
    // Without `nft` nothing is known: iptables without nftables may drop all the same.
    let Ok(chains) = forward_chains::dropping() else {
        return;
    };
    let in_force = |chain: &DroppingChain| match &*chain.family {
        "ip" => is_forwarded(scene, true),
        "ip6" => is_forwarded(scene, false),
        _ => is_forwarded(scene, true) || is_forwarded(scene, false),
    };
    let chains = chains.into_iter().filter(in_force);
    let lacks = chains.map(|chain| (missing_rules(&chain, tun), chain));
    let lacks: Vec<_> = lacks.filter(|(missing, _)| !missing.is_empty()).collect();
    if lacks.is_empty() {
        let found = format!("no chain drops what {tun} brings");
        report.ok("forward_chain", "machine", found);
    }
    for (missing, chain) in lacks {
        report.add(
            Severity::Warning,
            "forward_chain",
            "machine",
            format!(
                "chain {} of table {} {} drops what none of its rules accepts, and none does so for {tun}: \
                 what workloads send to addresses in no pool is lost in the host's kernel, or its answers \
                 are, with natOutgoing as well",
                chain.name, chain.family, chain.table
            ),
            format!(
                "{}; have who makes the chain do so, too, for they go with it (Docker: in chain DOCKER-USER)",
                missing.join("; ")
            ),
        );
    }
}

/// Whether the host forwards packets of a family between workloads and the world, or is to.
fn is_forwarded(scene: &Scene<'_>, ipv4: bool) -> bool {
    let key = if ipv4 {
        "ipv4/ip_forward"
    } else {
        "ipv6/conf/all/forwarding"
    };
    let forwards = sysctl::read(key).is_ok_and(|value| value != "0");
    let states = scene.state.into_iter();
    let mut pools = states.flat_map(|state| state.pools.values());
    pools.any(|pool| pool.cidr().addr().is_ipv4() == ipv4 && (forwards || pool.spec.nat_outgoing))
}

/// The commands that have a chain accept what a device brings and takes, as far as no rule does.
fn missing_rules(chain: &DroppingChain, tun: &str) -> Vec<String> {
    let place = format!("{} {} {}", chain.family, chain.table, chain.name);
    let missing = |(direction, key): (Direction, &str)| {
        let rule = format!("nft insert rule {place} {key} {tun} accept");
        (!chain.accepts(direction, tun)).then_some(rule)
    };
    let both = [(Direction::In, "iifname"), (Direction::Out, "oifname")];
    both.into_iter().filter_map(missing).collect()
}

fn value(interface: &str, name: &str) -> Option<String> {
    let key = sysctl::interface_key("ipv4", interface, name).ok()?;
    sysctl::read(&key).ok()
}
