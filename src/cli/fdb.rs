//! `underpass fdb`.

use super::args::Format;
use super::client::{self, Client};
use super::table::{Column, Table, cell};
use super::{Failure, print, print_json};
use crate::observe::protocol::{Reply, Request};
use crate::observe::report::FdbRow;

/// Shows the stations of all bridges, or of the one with that name.
pub fn show(client: &Client, bridge: Option<&str>, format: Format) -> Result<(), Failure> {
    let rows = match client.ask(&Request::Fdb)? {
        Reply::Fdb(rows) => rows,
        other => return Err(client::unexpected(&other)),
    };
    if let Some(name) = bridge {
        known(client, name)?;
    }
    let wanted = |row: &FdbRow| bridge.is_none_or(|name| row.bridge == name);
    let rows: Vec<FdbRow> = rows.into_iter().filter(wanted).collect();
    match format {
        Format::Json => print_json(&rows),
        Format::Table => print(&text(&rows)),
    }
}

/// Whether the node has a bridge of that name, stations or none.
fn known(client: &Client, name: &str) -> Result<(), Failure> {
    let bridges = match client.ask(&Request::Status)? {
        Reply::Status(report) => report.bridges,
        other => return Err(client::unexpected(&other)),
    };
    let names: Vec<_> = bridges.iter().map(|bridge| &*bridge.name).collect();
    if names.contains(&name) {
        return Ok(());
    }
    let there_are = match names.is_empty() {
        true => "this node has none; see `bridges` in its configuration".to_owned(),
        false => format!("there are: {}", names.join(", ")),
    };
    Err(format!("no bridge is called '{name}'; {there_are}").into())
}

fn text(rows: &[FdbRow]) -> String {
    let mut table = Table::new(&[
        Column::Left("BRIDGE"),
        Column::Right("VNI"),
        Column::Left("MAC"),
        Column::Left("PORT/REMOTE"),
        Column::Left("NODE"),
        Column::Right("AGE"),
        Column::Left("FLAGS"),
    ]);
    for row in rows {
        let remote = row.remote.map(|address| address.to_string());
        let flapping = if row.flapping { " flapping" } else { "" };
        table.row(vec![
            row.bridge.clone(),
            row.vni.to_string(),
            row.mac.to_string(),
            cell(row.port.clone().or(remote)),
            cell(row.node.as_ref()),
            cell(row.age),
            format!("{}{flapping}", row.kind.name()),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::report::FdbKind;
    use crate::wire::MacAddr;

    #[test]
    fn a_station_is_behind_a_port_or_a_remote() {
        let learnt = FdbRow {
            bridge: "tenants".to_owned(),
            vni: 1,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            port: Some("cali1".to_owned()),
            remote: None,
            node: None,
            kind: FdbKind::Learned,
            age: Some(17),
            flapping: true,
        };
        let flood = FdbRow {
            mac: MacAddr::default(),
            port: None,
            remote: Some([10, 30, 0, 12].into()),
            node: Some("far".to_owned()),
            kind: FdbKind::Flood,
            age: None,
            flapping: false,
            ..learnt.clone()
        };
        assert_eq!(
            text(&[flood, learnt]),
            "\
BRIDGE   VNI  MAC                PORT/REMOTE  NODE  AGE  FLAGS
tenants    1  00:00:00:00:00:00  10.30.0.12   far     -  flood
tenants    1  02:00:00:00:00:01  cali1        -      17  learned flapping
"
        );
    }
}
