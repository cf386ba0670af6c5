//! `underpass routes`.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use super::args::RouteFormat;
use super::client::{self, Client};
use super::table::{Column, Table, cell};
use super::{Failure, print, print_json};
use crate::observe::protocol::{Reply, Request};
use crate::observe::report::{Encapsulation, RouteKind, RouteRow, RouteState};

/// Clears a terminal's screen and goes to its top (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows the table once, or each time that it has changed when looked at every `interval` seconds.
pub fn show(client: &Client, format: RouteFormat, interval: Option<f64>) -> Result<(), Failure> {
    let Some(interval) = interval else {
        return print_rows(&ask(client)?, format);
    };
    let mut last = None;
    let mut told = String::new();
    loop {
        match ask(client) {
            Ok(rows) if last.as_ref() != Some(&rows) => {
                separate(last.is_some())?;
                print_rows(&rows, format)?;
                last = Some(rows);
                told.clear();
            }
            Ok(_) => {}
            // A node that was there is waited for; it may be restarting.
            Err(Failure::Told(lines)) if last.is_some() => {
                let text = lines.join("; ");
                if told != text {
                    eprintln!("underpass: {text}; waiting for it");
                    told = text;
                }
            }
            Err(failure) => return Err(failure),
        }
        thread::sleep(Duration::from_secs_f64(interval));
    }
}

fn ask(client: &Client) -> Result<Vec<RouteRow>, Failure> {
    match client.ask(&Request::Routes)? {
        Reply::Routes(rows) => Ok(rows),
        other => Err(client::unexpected(&other)),
    }
}

fn separate(again: bool) -> Result<(), Failure> {
    match (io::stdout().is_terminal(), again) {
        (true, _) => print(CLEAR),
        (false, true) => print("\n"),
        (false, false) => Ok(()),
    }
}

fn print_rows(rows: &[RouteRow], format: RouteFormat) -> Result<(), Failure> {
    match format {
        RouteFormat::Json => print_json(&rows),
        RouteFormat::Table => print(&text(rows, false)),
        RouteFormat::Wide => print(&text(rows, true)),
    }
}

fn text(rows: &[RouteRow], wide: bool) -> String {
    let mut columns = vec![
        Column::Left("DESTINATION"),
        Column::Left("GATEWAY"),
        Column::Left("ENCAP"),
        Column::Left("FAR NODE"),
        Column::Left("INTERFACE"),
        Column::Right("MTU"),
        Column::Left("FLAGS"),
    ];
    if wide {
        columns.extend([
            Column::Left("NEXT HOP"),
            Column::Left("MAC"),
            Column::Left("POOL"),
        ]);
    }
    let mut table = Table::new(&columns);
    for row in rows {
        let mut cells = vec![
            row.destination.to_string(),
            cell(row.gateway()),
            cell(row.encapsulation.map(Encapsulation::name)),
            cell(row.node.as_ref()),
            cell(row.interface.as_ref()),
            cell(row.mtu),
            flags(row),
        ];
        if wide {
            cells.extend([cell(row.next_hop), cell(row.mac), cell(row.pool.as_ref())]);
        }
        table.row(cells.clone());
        // As `ip route` has several next hops: a line each.
        for other in &row.others {
            cells[0].clear();
            cells[1] = other.to_string();
            cells[3..].iter_mut().for_each(String::clear);
            table.row(cells.clone());
        }
    }
    table.text()
}

/// As `route -n` has them: U usable, G by a gateway, H a single host; in words what has no letter.
fn flags(row: &RouteRow) -> String {
    let mut flags = match row.kind {
        RouteKind::Blackhole | RouteKind::Unreachable => return row.kind.name().to_owned(),
        RouteKind::Unicast | RouteKind::Local | RouteKind::Host => Vec::new(),
    };
    if row.state == RouteState::Resolved {
        flags.push("U");
    }
    if row.gateway().is_some() {
        flags.push("G");
    }
    if row.destination.prefix_len() == row.destination.max_prefix_len() {
        flags.push("H");
    }
    if row.state == RouteState::Unresolved {
        flags.push("unresolved");
    }
    if row.kind != RouteKind::Unicast {
        flags.push(row.kind.name());
    }
    flags.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<RouteRow> {
        let blackhole = RouteRow {
            destination: "192.168.1.0/26".parse().unwrap(),
            kind: RouteKind::Blackhole,
            encapsulation: None,
            node: None,
            far_end: None,
            next_hop: None,
            others: Vec::new(),
            mac: None,
            interface: None,
            mtu: None,
            state: RouteState::Resolved,
            pool: None,
        };
        let workload = RouteRow {
            destination: "192.168.1.2/32".parse().unwrap(),
            kind: RouteKind::Unicast,
            encapsulation: Some(Encapsulation::None),
            node: Some("worker1".to_owned()),
            interface: Some("cali1".to_owned()),
            mtu: Some(1500),
            ..blackhole.clone()
        };
        let far = RouteRow {
            destination: "192.168.2.0/26".parse().unwrap(),
            encapsulation: Some(Encapsulation::Ipip),
            node: Some("worker2".to_owned()),
            far_end: Some([10, 30, 0, 12].into()),
            next_hop: Some([10, 30, 0, 1].into()),
            mac: "66:3e:ca:a4:db:65".parse().ok(),
            interface: Some("tunl0".to_owned()),
            mtu: Some(1480),
            ..workload.clone()
        };
        let host = RouteRow {
            destination: "10.30.0.11/32".parse().unwrap(),
            kind: RouteKind::Host,
            interface: Some("tunl0".to_owned()),
            ..blackhole.clone()
        };
        let waiting = RouteRow {
            destination: "192.168.3.0/26".parse().unwrap(),
            encapsulation: Some(Encapsulation::None),
            node: Some("worker3".to_owned()),
            far_end: None,
            mac: None,
            interface: Some("eth0".to_owned()),
            mtu: Some(1500),
            state: RouteState::Unresolved,
            pool: Some("pool".to_owned()),
            ..far.clone()
        };
        vec![host, blackhole, workload, far, waiting]
    }

    #[test]
    fn the_table_is_what_an_operator_expects() {
        assert_eq!(
            text(&rows(), false),
            "\
DESTINATION     GATEWAY     ENCAP  FAR NODE  INTERFACE   MTU  FLAGS
10.30.0.11/32   -           -      -         tunl0         -  U H host
192.168.1.0/26  -           -      -         -             -  blackhole
192.168.1.2/32  -           none   worker1   cali1      1500  U H
192.168.2.0/26  10.30.0.12  ipip   worker2   tunl0      1480  U G
192.168.3.0/26  10.30.0.1   none   worker3   eth0       1500  G unresolved
"
        );
        let wide = text(&rows(), true);
        assert!(
            wide.contains("U G           10.30.0.1  66:3e:ca:a4:db:65  -\n"),
            "{wide}"
        );
    }
}
