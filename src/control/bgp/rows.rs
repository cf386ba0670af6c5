//! What the speaker says, as rows for observers.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::side::{SpeakerSlot, current};
use crate::bgp::Speaker;
use crate::bgp::report::{Messages, NeighborReport, RouteQuery, RouteReport};
use crate::bgp::settings::PeerName;
use crate::observe::bgp::{BgpAnswer, BgpQuestion, BgpRequest, BgpRow, NeighborRow};

/// Rows that are told where no limit is given.
const ROWS: usize = 10_000;

impl From<NeighborReport> for NeighborRow {
    fn from(report: NeighborReport) -> Self {
        let session = report.session.as_ref();
        Self {
            name: report.name.to_string(),
            address: report.address,
            kind: report.kind.to_string(),
            remote_as: report.remote_as,
            state: report.state.name().to_owned(),
            since: seconds(report.since),
            last_error: report.last_error,
            restarting: report.restarting,
            capabilities: session.map_or_else(Vec::new, |session| {
                session
                    .capabilities
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect()
            }),
            hold_time: session.map(|session| session.hold_time),
            received: report.received_prefixes as u64,
            accepted: report.accepted_prefixes as u64,
            advertised: report.advertised_prefixes as u64,
            messages_in: all(report.counters.received),
            messages_out: all(report.counters.sent),
            established: report.counters.established,
            treated_as_withdraw: report.counters.treated_as_withdraw,
            errors: report.counters.errors,
        }
    }
}

impl From<RouteReport> for BgpRow {
    fn from(report: RouteReport) -> Self {
        let said = &report.attributes;
        let standard = said.communities.iter();
        let standard = standard.map(|value| format!("{}:{}", value >> 16, value & 0xffff));
        let large = said.large_communities.iter();
        let large = large.map(|[a, n, m]| format!("{a}:{n}:{m}"));
        Self {
            prefix: report.prefix,
            next_hop: said.next_hop,
            peer: report.peer.as_ref().map(ToString::to_string),
            as_path: said.as_path.to_string(),
            origin: said.origin.to_string(),
            local_pref: said.local_pref,
            med: said.med,
            communities: standard.chain(large).collect(),
            originator: said.originator_id.map(IpAddr::V4),
            best: report.best,
            unusable: report.unusable.map(str::to_owned),
            stale: report.stale,
            since: seconds(report.since),
        }
    }
}

/// Answers an observer, on its own thread.
pub fn answer(slot: &SpeakerSlot, request: &BgpRequest) -> Result<BgpAnswer, String> {
    let speaker = current(slot).ok_or(
        "this node speaks no BGP; write `bgp: internal` into its configuration, and see that it has \
         peers (underpass node status)",
    )?;
    let peer = match &request.peer {
        Some(peer) => Some(find(&speaker, peer)?),
        None => None,
    };
    let query = RouteQuery {
        peer: peer.clone(),
        prefix: request.prefix,
    };
    let need = || peer.clone().ok_or("which peer? give its address or name");
    let routes = match request.what {
        BgpQuestion::Routes => speaker.routes(query),
        BgpQuestion::Received => speaker.received(query),
        BgpQuestion::Advertised => {
            let all = RouteQuery {
                peer: None,
                ..query
            };
            speaker
                .advertised(&need()?, all)
                .map(Option::unwrap_or_default)
        }
        BgpQuestion::Reset | BgpQuestion::Refresh => {
            let softly = request.what == BgpQuestion::Refresh;
            speaker.reset(&need()?, softly).map(|_| Vec::new())
        }
        BgpQuestion::Dump => return dump(&speaker, request.file.as_deref()),
    };
    let routes = routes.map_err(|error| error.to_string())?;
    let total = routes.len() as u64;
    let most = request.limit.unwrap_or(ROWS);
    Ok(BgpAnswer {
        rows: routes.into_iter().take(most).map(BgpRow::from).collect(),
        total,
    })
}

fn dump(speaker: &Speaker, file: Option<&Path>) -> Result<BgpAnswer, String> {
    let file = file.ok_or("which file? give its path")?;
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut writer = BufWriter::new(File::create(file).map_err(failed)?);
    speaker.dump(&mut writer).map_err(failed)?;
    writer.flush().map_err(failed)?;
    Ok(BgpAnswer {
        rows: Vec::new(),
        total: 0,
    })
}

fn find(speaker: &Speaker, peer: &str) -> Result<PeerName, String> {
    let neighbors = speaker.neighbors().map_err(|error| error.to_string())?;
    let address = peer.parse::<IpAddr>().ok();
    let is_meant = |neighbor: &&NeighborReport| {
        neighbor.name.as_str() == peer || Some(neighbor.address) == address
    };
    let found = neighbors
        .iter()
        .find(is_meant)
        .map(|neighbor| neighbor.name.clone());
    found.ok_or_else(|| {
        let known: Vec<String> = neighbors.iter().map(|n| n.address.to_string()).collect();
        format!("there is no peer {peer}; there is {}", known.join(", "))
    })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn all(messages: Messages) -> u64 {
    let Messages {
        opens,
        updates,
        notifications,
        keepalives,
        refreshes,
    } = messages;
    opens + updates + notifications + keepalives + refreshes
}
