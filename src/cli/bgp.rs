//! `underpass bgp`: the sessions and tables of a running node's BGP speaker.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::args::{Format, NodeArguments};
use super::client::{self, Client};
use super::functions::Functions;
use super::table::{Column, Table, cell};
use super::{Failure, print, print_json};
use crate::observe::bgp::{BgpAnswer, BgpQuestion, BgpRequest, BgpRow, NeighborRow};
use crate::observe::protocol::{Reply, Request};

/// How long a table of the Internet may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub enum BgpVerb {
    /// The sessions
    Neighbors {
        #[command(flatten)]
        node: NodeArguments,
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// The paths in use
    Routes(TableArguments),
    /// What a peer, or all of them, have told, used or not
    Received {
        /// The peer, by address or name
        peer: Option<String>,
        #[command(flatten)]
        table: TableArguments,
    },
    /// What a peer was told
    Advertised {
        /// The peer, by address or name
        peer: String,
        #[command(flatten)]
        table: TableArguments,
    },
    /// Have the node write all that peers have told into a file, as MRT (RFC 6396)
    Dump {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        node: NodeArguments,
    },
    /// End a peer's session and begin it anew
    Reset {
        /// The peer, by address or name
        peer: String,
        /// Only have it send its routes again, and send ours
        #[arg(long)]
        soft: bool,
        #[command(flatten)]
        node: NodeArguments,
    },
}

#[derive(Debug, Args)]
pub struct TableArguments {
    #[command(flatten)]
    node: NodeArguments,
    /// Only this prefix
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<IpNet>,
    /// Rows to show at most
    #[arg(long, value_name = "ROWS", default_value = "10000")]
    limit: usize,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

pub fn run(verb: &BgpVerb, functions: &Functions) -> Result<(), Failure> {
    match verb {
        BgpVerb::Neighbors { node, output } => {
            let report = match Client::find(node, functions)?.ask(&Request::Status)? {
                Reply::Status(report) => report,
                other => return Err(client::unexpected(&other)),
            };
            if report.bgp.mode != "internal" {
                return Err(silent(&report.bgp.mode).into());
            }
            match output {
                Format::Json => print_json(&report.bgp.neighbors),
                Format::Table => print(&neighbors(&report.bgp.neighbors)),
            }
        }
        BgpVerb::Routes(table) => show(table, BgpQuestion::Routes, None, functions),
        BgpVerb::Received { peer, table } => {
            show(table, BgpQuestion::Received, peer.clone(), functions)
        }
        BgpVerb::Advertised { peer, table } => show(
            table,
            BgpQuestion::Advertised,
            Some(peer.clone()),
            functions,
        ),
        BgpVerb::Dump { file, node } => {
            let file = std::path::absolute(file)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            let request = BgpRequest {
                file: Some(file),
                ..request(BgpQuestion::Dump)
            };
            ask(node, request, functions).map(drop)
        }
        BgpVerb::Reset { peer, soft, node } => {
            let what = match soft {
                true => BgpQuestion::Refresh,
                false => BgpQuestion::Reset,
            };
            let request = BgpRequest {
                peer: Some(peer.clone()),
                ..request(what)
            };
            ask(node, request, functions).map(drop)
        }
    }
}

/// Why a node has no sessions at all.
fn silent(mode: &str) -> String {
    let instead = match mode {
        "external" => "another daemon speaks in its place, and is to be asked",
        _ => "it takes blocks from the datastore; write `bgp: internal` into its configuration",
    };
    format!("this node speaks no BGP itself (`bgp: {mode}`): {instead}")
}

fn request(what: BgpQuestion) -> BgpRequest {
    BgpRequest {
        what,
        peer: None,
        prefix: None,
        limit: None,
        file: None,
    }
}

fn ask(
    node: &NodeArguments,
    request: BgpRequest,
    functions: &Functions,
) -> Result<BgpAnswer, Failure> {
    let client = Client::find(node, functions)?;
    match client.ask_within(&Request::Bgp(request), PATIENCE)? {
        Reply::Bgp(answer) => Ok(answer),
        other => Err(client::unexpected(&other)),
    }
}

fn show(
    arguments: &TableArguments,
    what: BgpQuestion,
    peer: Option<String>,
    functions: &Functions,
) -> Result<(), Failure> {
    let request = BgpRequest {
        peer,
        prefix: arguments.prefix,
        limit: Some(arguments.limit),
        ..request(what)
    };
    let answer = ask(&arguments.node, request, functions)?;
    match arguments.output {
        Format::Json => print_json(&answer.rows),
        Format::Table => print(&routes(&answer)),
    }
}

fn neighbors(rows: &[NeighborRow]) -> String {
    let mut table = Table::new(&[
        Column::Left("NEIGHBOR"),
        Column::Right("AS"),
        Column::Left("TYPE"),
        Column::Left("STATE"),
        Column::Right("RECEIVED"),
        Column::Right("ACCEPTED"),
        Column::Right("ADVERTISED"),
        Column::Right("MSG IN"),
        Column::Right("MSG OUT"),
        Column::Left("LAST ERROR"),
    ]);
    for row in rows {
        table.row(vec![
            row.address.to_string(),
            row.remote_as.to_string(),
            row.kind.clone(),
            row.state.clone(),
            row.received.to_string(),
            row.accepted.to_string(),
            row.advertised.to_string(),
            row.messages_in.to_string(),
            row.messages_out.to_string(),
            cell(row.last_error.as_ref()),
        ]);
    }
    table.text()
}

fn routes(answer: &BgpAnswer) -> String {
    let mut table = Table::new(&[
        Column::Left("PREFIX"),
        Column::Left("NEXT HOP"),
        Column::Left("PEER"),
        Column::Right("PREF"),
        Column::Right("MED"),
        Column::Left("PATH"),
        Column::Left("COMMUNITIES"),
        Column::Left("STATE"),
    ]);
    for row in &answer.rows {
        table.row(vec![
            row.prefix.to_string(),
            row.next_hop.to_string(),
            cell(row.peer.as_ref()),
            cell(row.local_pref),
            cell(row.med),
            format!("{} {}", row.as_path, origin(row)).trim().to_owned(),
            row.communities.join(" "),
            state(row),
        ]);
    }
    let mut text = table.text();
    let left = answer.total.saturating_sub(answer.rows.len() as u64);
    if left > 0 {
        text += &format!("and {left} more: --prefix and --limit choose\n");
    }
    text
}

/// As routers abbreviate it.
fn origin(row: &BgpRow) -> &'static str {
    match row.origin.as_str() {
        "IGP" => "i",
        "EGP" => "e",
        _ => "?",
    }
}

fn state(row: &BgpRow) -> String {
    let mut words: Vec<&str> = Vec::new();
    words.extend(row.best.then_some("best"));
    words.extend(row.stale.then_some("stale"));
    words.extend(row.unusable.as_deref());
    words.join(", ")
}
