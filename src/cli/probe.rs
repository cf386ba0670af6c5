//! `underpass probe-mtu`.

use std::time::Duration;

use super::args::Format;
use super::client::{self, Client};
use super::{Failure, print, print_json};
use crate::observe::protocol::{ProbeRequest, Reply, Request};
use crate::observe::report::{MtuLimit, MtuReport};

/// How long a search takes at worst where larger packets are lost without an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// Has the node probe, and prints what it found.
pub fn run(client: &Client, far: String, format: Format) -> Result<(), Failure> {
    let request = Request::ProbeMtu(ProbeRequest { far });
    match client.ask_within(&request, PATIENCE)? {
        Reply::Mtu(report) if format == Format::Json => print_json(&report),
        Reply::Mtu(report) => print(&text(&report)),
        other => Err(client::unexpected(&other)),
    }
}

fn text(report: &MtuReport) -> String {
    let MtuReport {
        inner, overhead, ..
    } = report;
    let (outer, next) = (inner + overhead, inner + 1);
    let why = match &report.limit {
        MtuLimit::Uplink { interface, mtu } => format!("the uplink {interface} is {mtu}"),
        MtuLimit::Link { router } => format!("the link after {router} is {outer}"),
        MtuLimit::BehindTunnel { router } => {
            format!("the link after {router}, behind the tunnel, is {inner}")
        }
        // tunnel.mtu has no say where there is no tunnel.
        MtuLimit::Silent if *overhead == 0 => format!(
            "it is lost, and no ICMP error says where; give the workloads an MTU of {inner}"
        ),
        MtuLimit::Silent => format!(
            "it is lost, and no ICMP error says where; set tunnel.mtu: {inner} on both nodes, or \
             tunnel.probePaths"
        ),
    };
    let fits = match overhead {
        0 => format!("no tunnel: {inner}"),
        _ => format!("inner {inner} + {overhead} = {outer}"),
    };
    let node = report.node.as_deref().unwrap_or("unknown node");
    format!(
        "{} ({node}, {}): {fits} fits, {next} does not: {why}\n",
        report.destination, report.far_end
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_its_sentence() {
        let report = |limit| MtuReport {
            destination: [192, 168, 2, 1].into(),
            node: Some("worker2".to_owned()),
            far_end: [10, 30, 0, 12].into(),
            inner: 1450,
            overhead: 50,
            limit,
        };
        let said =
            "192.168.2.1 (worker2, 10.30.0.12): inner 1450 + 50 = 1500 fits, 1451 does not: ";
        for (limit, why) in [
            (
                MtuLimit::Uplink {
                    interface: "eth0".to_owned(),
                    mtu: 1500,
                },
                "the uplink eth0 is 1500\n",
            ),
            (
                MtuLimit::Link {
                    router: [10, 30, 0, 254].into(),
                },
                "the link after 10.30.0.254 is 1500\n",
            ),
            (
                MtuLimit::BehindTunnel {
                    router: [10, 30, 0, 12].into(),
                },
                "the link after 10.30.0.12, behind the tunnel, is 1450\n",
            ),
            (
                MtuLimit::Silent,
                "it is lost, and no ICMP error says where; set tunnel.mtu: 1450 on both nodes, or \
                 tunnel.probePaths\n",
            ),
        ] {
            assert_eq!(text(&report(limit)), format!("{said}{why}"));
        }
        let mut direct = report(MtuLimit::Silent);
        (direct.inner, direct.overhead) = (1400, 0);
        let said = "192.168.2.1 (worker2, 10.30.0.12): no tunnel: 1400 fits, 1401 does not: it is lost, \
                    and no ICMP error says where; give the workloads an MTU of 1400\n";
        assert_eq!(text(&direct), said);
    }
}
