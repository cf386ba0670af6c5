//! `underpass status`.

use super::table::{Column, Table, cell};
use crate::observe::report::{BridgeStatus, StatusReport};

/// The report as a summary line and tables.
pub fn text(report: &StatusReport) -> String {
    let health = match (report.is_live(), report.is_ready()) {
        (true, true) => "ready",
        (true, false) => "not ready",
        (false, _) => "failed",
    };
    let mut text = format!(
        "node {} is {health}: underpass {}, process {}, up {}\n",
        report.node,
        report.version,
        report.pid,
        duration(report.uptime_seconds)
    );
    text.push_str(&format!(
        "address {}, uplink {}, routes: {}\n",
        cell(report.address),
        cell(report.uplink.as_ref()),
        routes(report)
    ));
    let mut components = Table::new(&[
        Column::Left("COMPONENT"),
        Column::Left("STATE"),
        Column::Left("DETAIL"),
    ]);
    for component in &report.components {
        let state = match (component.live, component.ready) {
            (true, true) => "ready",
            (true, false) => "waiting",
            (false, _) => "failed",
        };
        components.row(vec![
            component.name.clone(),
            state.to_owned(),
            component.detail.clone(),
        ]);
    }
    let mut workers = Table::new(&[
        Column::Right("WORKER"),
        Column::Right("CPU"),
        Column::Right("BUSY"),
    ]);
    for worker in &report.workers {
        let busy = format!("{:.1}%", worker.busy * 100.0);
        workers.row(vec![worker.id.to_string(), cell(worker.cpu), busy]);
    }
    let bridges = bridges(&report.bridges);
    format!("{text}\n{}\n{}{bridges}", components.text(), workers.text())
}

fn bridges(bridges: &[BridgeStatus]) -> String {
    if bridges.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        Column::Left("BRIDGE"),
        Column::Right("VNI"),
        Column::Right("UDP PORT"),
        Column::Left("ADDRESS"),
        Column::Right("PORTS"),
        Column::Right("REMOTES"),
        Column::Right("STATIONS"),
        Column::Right("LIMIT"),
        Column::Right("REFUSED"),
        Column::Right("MOVES"),
    ]);
    for bridge in bridges {
        table.row(vec![
            bridge.name.clone(),
            bridge.vni.to_string(),
            bridge.udp_port.to_string(),
            cell(bridge.address),
            bridge.ports.to_string(),
            bridge.remotes.to_string(),
            bridge.stations.to_string(),
            bridge.limit.to_string(),
            bridge.refused.to_string(),
            bridge.moves.to_string(),
        ]);
    }
    format!("\n{}", table.text())
}

fn routes(report: &StatusReport) -> String {
    let count = |count: &crate::observe::report::RouteCount| {
        format!("{} {}", count.routes, count.encapsulation.name())
    };
    match &report.routes[..] {
        [] => "none".to_owned(),
        counts => counts.iter().map(count).collect::<Vec<_>>().join(", "),
    }
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::report::{Component, Encapsulation, RouteCount, WorkerStatus};

    #[test]
    fn the_summary_names_what_is_not_ready() {
        let report = StatusReport {
            bgp: Default::default(),
            node: "worker1".to_owned(),
            version: "1.2.3".to_owned(),
            pid: 42,
            uptime_seconds: 3723,
            address: Some([10, 30, 0, 11].into()),
            uplink: Some("eth0".to_owned()),
            routes: vec![RouteCount {
                encapsulation: Encapsulation::Ipip,
                routes: 3,
            }],
            workers: vec![WorkerStatus {
                id: 0,
                cpu: Some(1),
                busy: 0.1234,
            }],
            components: vec![Component {
                name: "datastore".to_owned(),
                live: true,
                ready: false,
                detail: "reads config/lab".to_owned(),
            }],
            config: None,
            bridges: vec![BridgeStatus {
                name: "tenants".to_owned(),
                vni: 1,
                udp_port: 8472,
                address: Some([10, 30, 0, 11].into()),
                ports: 2,
                remotes: 3,
                reachable: 3,
                stations: 17,
                limit: 8192,
                refused: 0,
                moves: 4,
                neighbours_refused: 0,
            }],
        };
        assert_eq!(
            text(&report),
            "\
node worker1 is not ready: underpass 1.2.3, process 42, up 1 h 2 min
address 10.30.0.11, uplink eth0, routes: 3 ipip

COMPONENT  STATE    DETAIL
datastore  waiting  reads config/lab

WORKER  CPU   BUSY
     0    1  12.3%

BRIDGE   VNI  UDP PORT  ADDRESS     PORTS  REMOTES  STATIONS  LIMIT  REFUSED  MOVES
tenants    1      8472  10.30.0.11      2        3        17   8192        0      4
"
        );
    }
}
