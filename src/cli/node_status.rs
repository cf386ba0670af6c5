//! `underpass node status`, in the shape of `calicoctl node status`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Failure;
use super::boxed::Boxed;
use crate::observe::bgp::NeighborRow;
use crate::observe::report::StatusReport;

/// What is said of a node that does not run.
const NOT_RUNNING: &str = "underpass process is not running.";

/// Parts that are there only when something is odd about them.
const WARNINGS: [&str; 4] = ["resources", "mtu", "ipam", "settings"];

/// The report of a running node.
pub fn text(report: &StatusReport) -> String {
    let mut text = format!(
        "underpass process is running.\n\nNode {}, process {}, version {}, address {}\n",
        report.node,
        report.pid,
        report.version,
        report
            .address
            .map_or("-".to_owned(), |address| address.to_string()),
    );
    text += &bgp(report, seconds_now());
    let routes: Vec<String> = report
        .routes
        .iter()
        .map(|count| format!("{} {}", count.routes, count.encapsulation.name()))
        .collect();
    let routes = match routes.is_empty() {
        true => "none".to_owned(),
        false => routes.join(", "),
    };
    text += &format!("\nRoutes: {routes}\n");
    let wrong = report
        .components
        .iter()
        .filter(|part| !part.live || !part.ready || WARNINGS.contains(&part.name.as_str()));
    for component in wrong {
        text += &format!("\nWARNING: {}: {}\n", component.name, component.detail);
    }
    for problem in &report.bgp.problems {
        text += &format!("\nWARNING: bgp: {problem}\n");
    }
    text
}

/// A node that cannot be asked: what calicoctl says of it, then why.
pub fn not_running(failure: Failure) -> Failure {
    match failure {
        Failure::Told(reasons) => {
            let first = [NOT_RUNNING.to_owned()];
            Failure::Told(first.into_iter().chain(reasons).collect())
        }
        other => other,
    }
}

fn bgp(report: &StatusReport, now: u64) -> String {
    match report.bgp.mode.as_str() {
        "internal" => {}
        "external" => {
            return "\nThe BGP backend is another daemon: this node's routes come from the kernel's.\n"
                .to_owned();
        }
        _ => {
            return "\nThe BGP backend process is not running: this node's routes come from the \
                    datastore's blocks.\n"
                .to_owned();
        }
    }
    let mut text = String::new();
    for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
        let of_family = |row: &&NeighborRow| row.address.is_ipv4() == is_v4;
        let rows: Vec<_> = report.bgp.neighbors.iter().filter(of_family).collect();
        text += &format!("\n{family} BGP status\n");
        if rows.is_empty() {
            text += &format!("No {family} peers found.\n");
            continue;
        }
        let mut table = Boxed::new(&["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"]);
        table.centred = true;
        table.rows.extend(rows.into_iter().map(|row| {
            vec![
                row.address.to_string(),
                row.kind.clone(),
                if row.is_up() { "up" } else { "start" }.to_owned(),
                since(row.since, now),
                row.info(),
            ]
        }));
        text += &table.text();
    }
    text
}

/// BIRD's: the time of day (UTC), or the date if it was longer ago.
fn since(then: u64, now: u64) -> String {
    const DAY: u64 = 86_400;
    if now.saturating_sub(then) < DAY {
        let second = then % DAY;
        return format!(
            "{:02}:{:02}:{:02}",
            second / 3600,
            second / 60 % 60,
            second % 60
        );
    }
    let (year, month, day) = date(then / DAY);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The Gregorian date of a day since 1970 (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

fn seconds_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(address: &str, state: &str, error: Option<&str>) -> NeighborRow {
        let row = serde_json::json!({
            "name": "x", "address": address, "kind": "node-to-node mesh", "remote_as": 64512,
            "state": state, "since": 84_604, "last_error": error, "received": 0, "accepted": 0,
            "advertised": 0, "messages_in": 0, "messages_out": 0, "established": 0,
            "treated_as_withdraw": 0, "errors": 0,
        });
        serde_json::from_value(row).unwrap()
    }

    /// The table is calicoctl's own, from its documentation.
    #[test]
    fn sessions_are_shown_as_calicoctl_shows_them() {
        let mut report = StatusReport::default();
        report.bgp.mode = "internal".to_owned();
        report.bgp.neighbors = vec![row("172.17.8.102", "Established", Some("Socket: closed"))];
        assert_eq!(
            bgp(&report, 90_000),
            "
IPv4 BGP status
+--------------+-------------------+-------+----------+-------------+
| PEER ADDRESS |     PEER TYPE     | STATE |  SINCE   |    INFO     |
+--------------+-------------------+-------+----------+-------------+
| 172.17.8.102 | node-to-node mesh | up    | 23:30:04 | Established |
+--------------+-------------------+-------+----------+-------------+

IPv6 BGP status
No IPv6 peers found.
"
        );
        report.bgp.neighbors = vec![
            row("10.0.0.1", "Active", Some("Socket: Connection refused")),
            row("fd00::1", "Idle", Some("Bad peer AS: 64513")),
        ];
        let text = bgp(&report, 90_000);
        assert!(
            text.contains("| start | 23:30:04 | Active Socket: Connection refused |"),
            "{text}"
        );
        assert!(text.contains("| Idle Bad peer AS: 64513 |"), "{text}");
    }

    #[test]
    fn old_sessions_have_a_date() {
        assert_eq!(since(0, 86_399), "00:00:00");
        assert_eq!(since(951_782_400, 2_000_000_000), "2000-02-29");
        assert_eq!(since(1_704_067_199, 2_000_000_000), "2023-12-31");
    }
}
