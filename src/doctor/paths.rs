//! The paths to other nodes: whether the encapsulation in use gets through, and the others would.
//!
//! The running node sends the packets, by the way that workloads' packets take; the host's own echo
//! request tells a node that is away from a network that drops what it does not know.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Options, Report, Severity};
use crate::control::echo::kernel_ping;
use crate::control::resolve::{Encap, Target, Wanted};
use crate::observe::protocol::{ProbeRequest, Reply, Request};
use crate::observe::report::{MtuLimit, Way, WayOutcome, WaysReport};

/// Nodes that are probed at most: each takes some seconds where packets are dropped.
const MOST: usize = 16;

/// How long all probes may take together.
const PATIENCE: Duration = Duration::from_secs(60);

/// `vxlan` is the UDP port of the nodes' tunnels.
pub(super) fn examine(report: &mut Report, options: &Options<'_>, wanted: &Wanted, vxlan: u16) {
    let nodes: Vec<_> = wanted.peers.iter().collect();
    if nodes.is_empty() {
        return;
    }
    let Some(ask) = options.node else {
        report.add(
            Severity::Note,
            "paths",
            "nodes",
            "paths to other nodes were not probed, as the node does not run",
            "start it (underpass run) and ask again",
        );
        return;
    };
    let end = Instant::now() + PATIENCE;
    let (mut probed, all) = (0, nodes.len());
    for (address, peer) in nodes.into_iter().take(MOST) {
        if Instant::now() > end {
            break;
        }
        let node = peer.node.to_string();
        let request = Request::ProbeWays(ProbeRequest { far: node.clone() });
        match ask(&request) {
            Ok(Reply::Ways(ways)) => {
                if judge(report, wanted, &node, &ways, vxlan) {
                    path_mtu(report, ask, &node);
                }
            }
            Ok(_) => {}
            Err(error) => unprobed(report, *address, &node, &error),
        }
        probed += 1;
    }
    if probed < all {
        report.add(
            Severity::Note,
            "paths",
            "nodes",
            format!("{probed} of {all} nodes were probed"),
            "underpass probe-mtu NODE probes another",
        );
    }
}

/// The node could not even send.
fn unprobed(report: &mut Report, address: IpAddr, node: &str, error: &str) {
    let away = matches!(address, IpAddr::V4(address) if !kernel_ping(address));
    let (severity, remedy) = match away {
        true => (
            Severity::Fault,
            format!("see to it that {address} is up and reached: ping {address}"),
        ),
        false => (Severity::Note, String::new()),
    };
    report.add(
        severity,
        "paths",
        node,
        format!("not probed: {error}"),
        remedy,
    );
}

/// Says what the outcomes mean; returns whether the way in use works.
fn judge(report: &mut Report, wanted: &Wanted, node: &str, ways: &WaysReport, vxlan: u16) -> bool {
    let Some((used, others)) = ways.ways.split_first() else {
        return false;
    };
    if used.outcome != WayOutcome::Answered {
        let alive = match ways.far_end {
            IpAddr::V4(address) => kernel_ping(address),
            IpAddr::V6(_) => true,
        };
        blocked(report, node, ways.far_end, used, alive, vxlan);
        return false;
    }
    let name = full_name(&used.encapsulation);
    report.ok(
        "paths",
        node,
        format!("{name}, which is in use, gets through"),
    );
    let modes = in_use(wanted);
    for other in others
        .iter()
        .filter(|other| other.outcome != WayOutcome::Answered)
    {
        // A cluster uses several where pools differ, or by CrossSubnet.
        let used = modes.contains(&other.encapsulation.as_str());
        let (check, cause, remedy) = cause(&other.encapsulation, node, ways.far_end, vxlan);
        report.add(
            if used {
                Severity::Warning
            } else {
                Severity::Note
            },
            check,
            node,
            format!(
                "{} would not get through: {cause}",
                full_name(&other.encapsulation)
            ),
            format!("before a pool's mode is changed to it: {remedy}"),
        );
    }
    true
}

fn blocked(report: &mut Report, node: &str, far_end: IpAddr, used: &Way, alive: bool, vxlan: u16) {
    let name = full_name(&used.encapsulation);
    let (check, found, remedy) = match used.outcome {
        // Protocol and port unreachable come from a kernel that nobody takes the packet from.
        WayOutcome::Refused { by, code: 2 | 3 } if by == far_end => (
            "far_node",
            format!("{name} arrives at {far_end}, and nobody takes it there"),
            format!("start underpass on {node}"),
        ),
        WayOutcome::Refused { by, code } => (
            "refused",
            format!("{by} refuses {name} (ICMP destination unreachable, code {code})"),
            match code {
                9 | 10 | 13 => format!("allow it in the firewall of {by}"),
                _ => format!("give {by} a route to {far_end} and to the cluster's pools"),
            },
        ),
        _ if !alive => (
            "far_node",
            format!("{far_end} answers nothing, its kernel's echo neither"),
            format!("see to it that {node} is up and reached: ping {far_end}"),
        ),
        _ => {
            let (check, cause, remedy) = cause(&used.encapsulation, node, far_end, vxlan);
            (
                check,
                format!(
                    "{name}, which is in use, does not get through, though {far_end} answers a ping: {cause}"
                ),
                remedy,
            )
        }
    };
    report.add(Severity::Fault, check, node, found, remedy);
}

/// Why a network that carries pings drops packets of a kind, and what to do.
fn cause(
    encapsulation: &str,
    node: &str,
    far_end: IpAddr,
    vxlan: u16,
) -> (&'static str, String, String) {
    match encapsulation {
        "ipip" => (
            "protocol_4",
            format!("IP protocol 4 is blocked on the way to {far_end} or back"),
            "allow protocol 4 (IP-in-IP) both ways in firewalls and security groups, or use vxlanMode; \
             clouds such as Azure carry no IP-in-IP at all"
                .to_owned(),
        ),
        "vxlan" => (
            "udp_4789",
            format!("UDP port {vxlan} is blocked on the way to {far_end} or back"),
            format!("allow UDP {vxlan} both ways in firewalls and security groups, or use ipipMode"),
        ),
        _ => (
            "source_check",
            format!(
                "packets with workloads' addresses are dropped on the way to {far_end} or back, as a \
                 cloud's source/destination check does, or a router without routes to the blocks"
            ),
            format!(
                "switch the check off on the network interfaces of this node and of {node}, have the \
                 routers know the blocks (BGP), or use ipipMode or vxlanMode"
            ),
        ),
    }
}

/// The encapsulations of this node's routes.
fn in_use(wanted: &Wanted) -> Vec<&'static str> {
    let mut all: Vec<_> = wanted
        .routes
        .values()
        .filter_map(|target| match target {
            Target::Remote { encap, .. } => Some(match encap {
                Encap::None => "direct",
                Encap::Ipip => "ipip",
                Encap::Vxlan { .. } => "vxlan",
            }),
            _ => None,
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn full_name(encapsulation: &str) -> &'static str {
    match encapsulation {
        "ipip" => "IP-in-IP",
        "vxlan" => "VXLAN",
        _ => "direct traffic",
    }
}

/// Whether the path is as wide as the uplink.
fn path_mtu(report: &mut Report, ask: super::Ask<'_>, node: &str) {
    let request = Request::ProbeMtu(ProbeRequest {
        far: node.to_owned(),
    });
    let Ok(Reply::Mtu(found)) = ask(&request) else {
        return;
    };
    let (inner, outer) = (found.inner, found.inner + found.overhead);
    let (found, remedy) = match found.limit {
        MtuLimit::Uplink { .. } => {
            report.ok("path_mtu", node, format!("{inner} bytes of workloads' packets get through, as many as the uplink has room for"));
            return;
        }
        MtuLimit::Link { router } => (
            format!("the link after {router} takes {outer} bytes: workloads have {inner}"),
            format!("raise that link's MTU, or give the workloads an MTU of {inner}"),
        ),
        MtuLimit::BehindTunnel { router } => (
            format!("a link after {router}, behind the tunnel, takes {inner} bytes"),
            format!("raise that link's MTU, or give the workloads an MTU of {inner}"),
        ),
        MtuLimit::Silent => (
            format!(
                "more than {outer} bytes get lost on the way, and no ICMP error says where: workloads have {inner}"
            ),
            format!(
                "raise the MTU on the way, let ICMP \"fragmentation needed\" through, or set tunnel.mtu: {inner}"
            ),
        ),
    };
    report.add(Severity::Warning, "path_mtu", node, found, remedy);
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 30, 0, 12));

    fn check_of(encapsulation: &str, outcome: WayOutcome, alive: bool) -> &'static str {
        let mut report = Report::default();
        let way = Way {
            encapsulation: encapsulation.to_owned(),
            outcome,
        };
        blocked(&mut report, "worker2", FAR, &way, alive, 4789);
        assert!(!report.findings[0].remedy.is_empty());
        report.findings[0].check
    }

    #[test]
    fn what_does_not_get_through_has_its_cause() {
        let refused = |by, code| WayOutcome::Refused { by, code };
        assert_eq!(check_of("ipip", WayOutcome::Lost, true), "protocol_4");
        assert_eq!(check_of("vxlan", WayOutcome::Lost, true), "udp_4789");
        assert_eq!(check_of("direct", WayOutcome::Lost, true), "source_check");
        assert_eq!(check_of("ipip", WayOutcome::Lost, false), "far_node");
        assert_eq!(check_of("ipip", refused(FAR, 2), true), "far_node");
        let router = [10, 30, 0, 254].into();
        assert_eq!(check_of("ipip", refused(router, 13), true), "refused");
    }
}
