//! Answers about neighbours and routes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use super::{Core, Peer};
use crate::bgp::report::{NeighborReport, RouteQuery, RouteReport, SessionReport};
use crate::bgp::rib::decision::Rules;
use crate::bgp::rib::table::{Key, Slot, Table, V4, V6};
use crate::bgp::rib::{OWN, Path, PeerIndex};
use crate::bgp::session::Time;
use crate::bgp::settings::PeerName;

/// Which routes of a table are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bgp) enum View {
    /// What peers have told, used or not.
    Received,
    /// The paths in use, own ones too.
    Used,
}

impl Core {
    /// All neighbours, in order of name; `epoch`: when the speaker's time was 0.
    pub(in crate::bgp) fn neighbors(&self, epoch: SystemTime) -> Vec<NeighborReport> {
        let peers = self.peers.iter().enumerate();
        let mut reports: Vec<_> = peers
            .filter_map(|(index, peer)| {
                Some(self.neighbor(index as PeerIndex, peer.as_ref()?, epoch))
            })
            .collect();
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }

    fn neighbor(&self, index: PeerIndex, peer: &Peer, epoch: SystemTime) -> NeighborReport {
        let (v4, v6) = (self.v4.count(index), self.v6.count(index));
        let session = peer.agreed.as_ref().map(|agreed| SessionReport {
            router_id: agreed.router_id,
            local_address: agreed.local,
            hold_time: agreed.hold_time,
            keepalive_time: agreed.keepalive.as_secs() as u16,
            capabilities: agreed.names(),
        });
        NeighborReport {
            name: peer.name.clone(),
            address: peer.settings.address,
            kind: peer.settings.kind,
            remote_as: peer.settings.remote_as,
            state: peer.state,
            since: epoch + peer.since,
            last_error: peer.trouble.clone(),
            session,
            restarting: peer.agreed.is_none() && peer.keeps_until.is_some(),
            counters: peer.session.counters,
            received_prefixes: v4.paths + v6.paths,
            accepted_prefixes: v4.usable + v6.usable,
            advertised_prefixes: peer.out.iter().map(|out| out.count()).sum(),
        }
    }

    /// Routes of the tables, in order of prefix.
    pub(in crate::bgp) fn routes(
        &self,
        view: View,
        query: &RouteQuery,
        epoch: SystemTime,
    ) -> Vec<RouteReport> {
        let mut reports = Vec::new();
        let ask = Question {
            core: self,
            view,
            query,
            epoch,
        };
        match query.prefix {
            Some(IpNet::V4(net)) => ask.one(&self.v4, V4::of(net.trunc()), &mut reports),
            Some(IpNet::V6(net)) => ask.one(&self.v6, V6::of(net.trunc()), &mut reports),
            None => {
                ask.all(&self.v4, &mut reports);
                ask.all(&self.v6, &mut reports);
            }
        }
        reports
    }

    /// What a peer has been told, in order of prefix; none: there is no such peer.
    pub(in crate::bgp) fn advertised(
        &self,
        name: &PeerName,
        query: &RouteQuery,
        epoch: SystemTime,
    ) -> Option<Vec<RouteReport>> {
        let peer = self.peers[self.index(name)? as usize].as_ref()?;
        let mut reports = Vec::new();
        advertised(&self.v4, &peer.out[0], peer, query, epoch, &mut reports);
        advertised(&self.v6, &peer.out[1], peer, query, epoch, &mut reports);
        Some(reports)
    }

    /// How many different attributes and groups there are, for measurement.
    pub(in crate::bgp) fn shared(&self) -> (usize, usize) {
        (self.store.len(), self.groups.len())
    }
}

fn advertised<K: Key>(
    table: &Table<K>,
    out: &crate::bgp::rib::adj_out::AdjOut,
    peer: &Peer,
    query: &RouteQuery,
    epoch: SystemTime,
    reports: &mut Vec<RouteReport>,
) {
    if out.count() == 0 {
        return;
    }
    for slot in table.sorted() {
        let prefix = table.key(slot).net();
        if query.prefix.is_some_and(|wanted| wanted.trunc() != prefix) {
            continue;
        }
        if let Some(told) = out.told(slot) {
            reports.push(RouteReport {
                prefix,
                peer: Some(peer.name.clone()),
                path_id: 0,
                attributes: told.clone(),
                since: epoch + peer.up_since.unwrap_or_default(),
                best: true,
                unusable: None,
                stale: false,
            });
        }
    }
}

struct Question<'a> {
    core: &'a Core,
    view: View,
    query: &'a RouteQuery,
    epoch: SystemTime,
}

impl Question<'_> {
    fn one<K: Key>(&self, table: &Table<K>, key: K, reports: &mut Vec<RouteReport>) {
        if let Some(slot) = table.find(key) {
            self.slot(table, slot, reports);
        }
    }

    fn all<K: Key>(&self, table: &Table<K>, reports: &mut Vec<RouteReport>) {
        for slot in table.sorted() {
            self.slot(table, slot, reports);
        }
    }

    fn slot<K: Key>(&self, table: &Table<K>, slot: Slot, reports: &mut Vec<RouteReport>) {
        let unreachable = |of: &IpAddr| self.core.unreachable.contains(of);
        let rules = Rules {
            peers: &self.core.facts,
            max_paths: self.core.settings.max_paths,
            default_local_pref: self.core.settings.default_local_pref,
            unreachable: &unreachable,
        };
        let paths = table.paths(slot);
        let used = rules.choose(paths).equal;
        for (nth, path) in paths.iter().enumerate() {
            let best = used.contains(&nth);
            let shown = match self.view {
                View::Received => path.peer != OWN,
                View::Used => best,
            };
            let report = shown.then(|| self.report(path, table.key(slot).net(), best));
            let asked = |of: &RouteReport| self.query.peer.is_none() || of.peer == self.query.peer;
            reports.extend(report.filter(asked));
        }
    }

    fn report(&self, path: &Path, prefix: IpNet, best: bool) -> RouteReport {
        let peer = self
            .core
            .peers
            .get(path.peer as usize)
            .and_then(Option::as_ref);
        RouteReport {
            prefix,
            peer: peer.map(|peer| peer.name.clone()),
            path_id: path.path_id,
            attributes: Arc::clone(&path.attributes),
            since: self.epoch + Time::from_secs(path.since.into()),
            best,
            unusable: path.unusable.map(|why| why.text()),
            stale: path.stale,
        }
    }
}
