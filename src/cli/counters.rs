//! `underpass counters`.

use super::table::{Column, Table};
use crate::observe::report::{Balance, CounterReport, DropCount, PortCounters};
use crate::packet::DropReason;

/// The report as tables; reasons to drop that have not occurred only if `all`.
pub fn text(report: &CounterReport, all: bool) -> String {
    let mut text = ports(&report.ports);
    let xdp = xdp(&report.ports);
    if !xdp.is_empty() {
        text.push('\n');
        text.push_str(&xdp);
    }
    let drops: Vec<_> = report
        .drops
        .iter()
        .filter(|drop| all || drop.packets > 0)
        .collect();
    text.push('\n');
    match &drops[..] {
        [] => text.push_str("no drops\n"),
        drops => text.push_str(&self::drops(drops)),
    }
    text.push_str(&format!("\npunted to the slow path: {}\n", report.punted));
    if let Some(packets) = report.fast_path {
        let received = report.balance().received;
        text.push_str(&format!(
            "forwarded by the fast path: {packets} of {received}\n"
        ));
    }
    text.push_str(&balance(&report.balance()));
    text
}

fn ports(ports: &[PortCounters]) -> String {
    let mut table = Table::new(&[
        Column::Left("PORT"),
        Column::Left("KIND"),
        Column::Left("IO"),
        Column::Right("RX PACKETS"),
        Column::Right("RX BYTES"),
        Column::Right("TX PACKETS"),
        Column::Right("TX BYTES"),
    ]);
    for port in ports {
        table.row(vec![
            port.name.clone(),
            port.kind.clone(),
            port.io.clone(),
            port.rx_packets.to_string(),
            port.rx_bytes.to_string(),
            port.tx_packets.to_string(),
            port.tx_bytes.to_string(),
        ]);
    }
    table.text()
}

/// The kernel's counters for AF_XDP that are not zero.
fn xdp(ports: &[PortCounters]) -> String {
    let mut table = Table::new(&[
        Column::Left("PORT"),
        Column::Left("AF_XDP COUNTER"),
        Column::Right("COUNT"),
    ]);
    let mut any = false;
    for (port, xdp) in ports.iter().filter_map(|port| Some((port, port.xdp?))) {
        for (name, count) in xdp.named().into_iter().filter(|(_, count)| *count > 0) {
            table.row(vec![port.name.clone(), name.to_owned(), count.to_string()]);
            any = true;
        }
    }
    if any { table.text() } else { String::new() }
}

fn drops(drops: &[&DropCount]) -> String {
    let mut table = Table::new(&[
        Column::Left("DROPPED"),
        Column::Right("PACKETS"),
        Column::Left("BECAUSE"),
    ]);
    for drop in drops {
        let reason = DropReason::ALL
            .iter()
            .find(|reason| reason.name() == drop.reason);
        let meaning = reason.map_or("", |reason| reason.meaning());
        table.row(vec![
            drop.reason.clone(),
            drop.packets.to_string(),
            meaning.to_owned(),
        ]);
    }
    table.text()
}

fn balance(balance: &Balance) -> String {
    let verdict = match balance.difference() {
        0 => "✓".to_owned(),
        difference => format!("off by {difference}"),
    };
    let Balance {
        received,
        originated,
        sent,
        dropped,
        absorbed,
        waiting,
    } = balance;
    let waiting = match waiting {
        0 => String::new(),
        some => format!(" + waiting {some}"),
    };
    format!(
        "balance: in {received} + originated {originated} = out {sent} + dropped {dropped} + \
         absorbed {absorbed}{waiting} {verdict}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::report::XdpStatistics;

    #[test]
    fn the_tables_account_for_every_packet() {
        let mut report = CounterReport {
            ports: vec![PortCounters {
                name: "eth0".to_owned(),
                kind: "uplink".to_owned(),
                io: "af_xdp native copy".to_owned(),
                rx_packets: 1000,
                rx_bytes: 64_000,
                tx_packets: 990,
                tx_bytes: 63_000,
                xdp: Some(XdpStatistics {
                    rx_ring_full: 3,
                    ..XdpStatistics::default()
                }),
            }],
            punted: 5,
            absorbed: 2,
            originated: 3,
            ..CounterReport::default()
        };
        let mut drops = [0; DropReason::COUNT];
        drops[DropReason::NoRoute as usize] = 11;
        report.set_drops(&drops);
        assert_eq!(
            text(&report, false),
            "\
PORT  KIND    IO                  RX PACKETS  RX BYTES  TX PACKETS  TX BYTES
eth0  uplink  af_xdp native copy        1000     64000         990     63000

PORT  AF_XDP COUNTER  COUNT
eth0  rx_ring_full        3

DROPPED   PACKETS  BECAUSE
no_route       11  No route to the destination.

punted to the slow path: 5
balance: in 1000 + originated 3 = out 990 + dropped 11 + absorbed 2 ✓
"
        );
        report.absorbed = 0;
        report.waiting = 2;
        let waits = text(&report, false);
        assert!(waits.ends_with(" + absorbed 0 + waiting 2 ✓\n"), "{waits}");
        report.waiting = 0;
        report.fast_path = Some(970);
        report.ports[0].xdp = None;
        report.set_drops(&[0; DropReason::COUNT]);
        let text = text(&report, false);
        assert!(
            text.contains("\nno drops\n") && text.ends_with(" off by 13\n"),
            "{text}"
        );
        assert!(!text.contains("AF_XDP COUNTER"), "{text}");
        assert!(
            text.contains("\nforwarded by the fast path: 970 of 1000\n"),
            "{text}"
        );
    }

    #[test]
    fn all_shows_the_reasons_that_have_not_occurred() {
        let mut report = CounterReport::default();
        report.set_drops(&[0; DropReason::COUNT]);
        for reason in DropReason::ALL {
            assert!(text(&report, true).contains(reason.meaning()), "{reason}");
        }
    }
}
