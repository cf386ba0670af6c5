//! Routes on their way through the speaker: in, judged, and out to other peers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use log::warn;
use rustc_hash::FxHashMap;

use super::{Core, Peer, format};
use crate::bgp::attributes::{Attributes, OwnRoute};
use crate::bgp::filter::{Action as Verdict, Change, Filter, Subject};
use crate::bgp::message::notification::cease;
use crate::bgp::message::update::{Prefixes, Problem, Update};
use crate::bgp::message::{Family, Notification};
use crate::bgp::rib::adj_out::{Telling, Written};
use crate::bgp::rib::decision::Rules;
use crate::bgp::rib::export::Reader;
use crate::bgp::rib::store::Store;
use crate::bgp::rib::table::{Key, Queue, Table, V4, V6};
use crate::bgp::rib::{OWN, Path, PeerFacts, PeerIndex, Unusable};
use crate::bgp::session::{Action, ConnectionId};
use crate::bgp::settings::{PeerSettings, Settings};

impl Core {
    /// A peer's UPDATE.
    pub(super) fn update(
        &mut self,
        index: PeerIndex,
        peer: &mut Peer,
        body: &[u8],
        id: ConnectionId,
        actions: &mut Vec<Action>,
    ) {
        let Some(context) = peer.agreed.as_ref().map(|agreed| agreed.context) else {
            return;
        };
        let update = match Update::read(body, &context) {
            Ok(update) => update,
            Err(error) => {
                peer.session.fail(self.now, id, error, actions);
                return;
            }
        };
        self.note_problems(peer, &update.problems);
        let counters = &mut peer.session.counters;
        counters.treated_as_withdraw += u64::from(update.treated_as_withdraw);
        counters.prefixes_withdrawn += update.withdrawn.len() as u64;
        for (path_id, net) in &update.withdrawn.v4 {
            self.v4.withdraw(V4::of(*net), index, *path_id);
        }
        for (path_id, net) in &update.withdrawn.v6 {
            self.v6.withdraw(V6::of(*net), index, *path_id);
        }
        for (attributes, prefixes) in update.announced {
            self.announce(index, peer, attributes, &prefixes);
        }
        if let Some(family) = update.end_of_rib {
            self.end_of_rib(index, peer, family);
        }
        let paths = self.v4.count(index).paths + self.v6.count(index).paths;
        if paths > peer.settings.max_prefixes {
            let text = format!("more than {}", peer.settings.max_prefixes);
            let error = Notification::cease(cease::MAX_PREFIXES, &text);
            peer.session.fail(self.now, id, error, actions);
        }
    }

    fn note_problems(&self, peer: &mut Peer, problems: &[Problem]) {
        for problem in problems {
            peer.session.counters.attributes_discarded += u64::from(problem.discarded);
            if peer.log.lets(self.now) {
                let what_then = match problem.discarded {
                    true => "it is left out",
                    false => "its routes are taken as withdrawn",
                };
                warn!(
                    "BGP: peer {} ({}): {} (code {}): {}: {what_then}",
                    peer.name, peer.settings.address, problem.about, problem.code, problem.what
                );
            }
        }
    }

    fn announce(
        &mut self,
        index: PeerIndex,
        peer: &mut Peer,
        attributes: Attributes,
        prefixes: &Prefixes,
    ) {
        let wrong = self.judge(&peer.settings, index, &attributes);
        let count = prefixes.len() as u64;
        let counters = &mut peer.session.counters;
        counters.prefixes_received += count;
        counters.loops += if wrong.is_some_and(Unusable::is_loop) {
            count
        } else {
            0
        };
        counters.bad_next_hops += if wrong.is_some_and(Unusable::is_bad_next_hop) {
            count
        } else {
            0
        };
        if let Some(wrong) = wrong
            && peer.log.lets(self.now)
        {
            warn!(
                "BGP: peer {} ({}): {count} routes are not used: {}",
                peer.name,
                peer.settings.address,
                wrong.text()
            );
        }
        let path = Path {
            attributes: self.store.intern(attributes),
            path_id: 0,
            since: self.now.as_secs() as u32,
            peer: index,
            stale: false,
            unusable: wrong,
        };
        let mut taker = Taker::new(&peer.settings, &self.settings, &mut self.store);
        announce_all(&mut self.v4, &prefixes.v4, &path, &mut taker);
        announce_all(&mut self.v6, &prefixes.v6, &path, &mut taker);
    }

    fn end_of_rib(&mut self, index: PeerIndex, peer: &mut Peer, family: Family) {
        peer.complete[family as usize] = true;
        self.withdraw_stale(index, family);
        if self.v4.count(index).stale + self.v6.count(index).stale == 0 {
            peer.keeps_until = None;
        }
    }

    /// What makes a route unusable whatever its prefix (RFC 4271 §9.1.2, §5.1.3, RFC 4456 §8).
    fn judge(&self, peer: &PeerSettings, index: PeerIndex, said: &Attributes) -> Option<Unusable> {
        let local_as = peer.local_as.unwrap_or(self.settings.local_as);
        let mut own = said.as_path.count(local_as);
        if local_as != self.settings.local_as {
            own += said.as_path.count(self.settings.local_as);
        }
        if own > usize::from(peer.allowed_local_as) {
            return Some(Unusable::OwnAs);
        }
        if said.originator_id == Some(self.settings.router_id) {
            return Some(Unusable::OwnRouterId);
        }
        if said.cluster_list.contains(&self.cluster_id()) {
            return Some(Unusable::OwnCluster);
        }
        if no_unicast(&said.next_hop) {
            return Some(Unusable::NoNextHop);
        }
        let session = self.peers.get(index as usize).and_then(Option::as_ref);
        let local = session
            .and_then(|peer| peer.agreed.as_ref())
            .map(|agreed| agreed.local);
        let ours = self.settings.local_addresses.contains(&said.next_hop)
            || local == Some(said.next_hop)
            || IpAddr::V4(self.settings.router_id) == said.next_hop;
        ours.then_some(Unusable::OwnNextHop)
    }

    pub(super) fn judge_all(&mut self, index: PeerIndex, peer: &Peer) {
        let mut verdicts = FxHashMap::default();
        let mut of = |said: &Arc<Attributes>| {
            let said = Attributes::as_told(said);
            let key = Arc::as_ptr(said) as usize;
            *verdicts
                .entry(key)
                .or_insert_with(|| self.judge(&peer.settings, index, said))
        };
        // Attributes are judged first: the tables are borrowed while paths change.
        for slot in 0..self.v4.slots() {
            for path in self.v4.paths(slot).iter().filter(|path| path.peer == index) {
                of(&path.attributes);
            }
        }
        for slot in 0..self.v6.slots() {
            for path in self.v6.paths(slot).iter().filter(|path| path.peer == index) {
                of(&path.attributes);
            }
        }
        let mut taker = Taker::new(&peer.settings, &self.settings, &mut self.store);
        let mut judge = |net: IpNet, path: &mut Path| {
            let told = Attributes::as_told(&path.attributes).clone();
            path.unusable = verdicts[&(Arc::as_ptr(&told) as usize)];
            path.attributes = told;
            taker.take(net, path);
        };
        self.v4.judge(index, |key, path| judge(key.net(), path));
        self.v6.judge(index, |key, path| judge(key.net(), path));
    }

    /// Passes changes on to whoever may have to hear of them.
    pub(super) fn settle(&mut self) {
        let Self {
            v4,
            v6,
            changed: [changed4, changed6],
            peers,
            facts,
            ..
        } = self;
        fan_out(v4, Family::V4, changed4, peers, facts);
        fan_out(v6, Family::V6, changed6, peers, facts);
    }

    /// Appends what the peer has still to be told.
    pub(super) fn tell(&mut self, peer: &mut Peer, to: &mut Vec<u8>, limit: usize) {
        let (Some(agreed), Some(reader)) = (&peer.agreed, &peer.reader) else {
            return;
        };
        let unreachable = |of: &IpAddr| self.unreachable.contains(of);
        let rules = Rules {
            peers: &self.facts,
            max_paths: self.settings.max_paths,
            default_local_pref: self.settings.default_local_pref,
            unreachable: &unreachable,
        };
        let interface = self.settings.interface.as_deref();
        let mut written = Written::default();
        for family in Family::ALL {
            let out = &mut peer.out[family as usize];
            if !agreed.context.families[family as usize] || out.is_idle() {
                continue;
            }
            let mut teller = Teller {
                family,
                rules: &rules,
                reader,
                export: &peer.settings.export,
                own: &self.own,
                interface,
                store: &mut self.store,
                told: FxHashMap::default(),
            };
            let mut telling = Telling {
                family,
                format: format(agreed),
                wanted: &mut |paths, prefix| teller.wanted(paths, prefix),
            };
            written += match family {
                Family::V4 => out.write(to, limit, &mut self.v4, &mut telling),
                Family::V6 => out.write(to, limit, &mut self.v6, &mut telling),
            };
        }
        peer.session.counters.sent.updates += written.updates;
        peer.session.counters.sent.refreshes += written.refreshes;
        if written.too_long > 0 && peer.log.lets(self.now) {
            warn!(
                "BGP: peer {}: {} prefixes are not told: their attributes fill a whole message",
                peer.name, written.too_long
            );
        }
    }
}

/// What one peer is told of prefixes.
struct Teller<'a> {
    family: Family,
    rules: &'a Rules<'a>,
    reader: &'a Reader,
    export: &'a Filter,
    own: &'a BTreeMap<IpNet, OwnRoute>,
    /// Where peers' routes lead.
    interface: Option<&'a str>,
    store: &'a mut Store,
    /// By the addresses of a path's attributes and of what is changed in them, which live as long as this,
    /// and its peer.
    told: FxHashMap<(usize, usize, PeerIndex), Option<Arc<Attributes>>>,
}

impl Teller<'_> {
    fn wanted(&mut self, paths: &[Path], prefix: IpNet) -> Option<Arc<Attributes>> {
        let best = &paths[self.rules.best(paths)?];
        if !self.reader.may_hear(best, self.rules.peers) {
            return None;
        }
        let own = (best.peer == OWN).then(|| self.own.get(&prefix)).flatten();
        let subject = Subject {
            prefix,
            from_peer: best.peer != OWN,
            interface: match own {
                Some(route) => route.interface.as_deref(),
                None => self.interface,
            },
            says: &best.attributes,
            default_local_pref: self.rules.default_local_pref,
        };
        let (verdict, changes) = self.export.judge(&subject);
        if verdict == Verdict::Reject {
            return None;
        }
        let key = (
            Arc::as_ptr(&best.attributes) as usize,
            address(changes),
            best.peer,
        );
        let (reader, store) = (self.reader, &mut *self.store);
        let told = self.told.entry(key).or_insert_with(|| {
            let told = reader.tell(best, changes, self.family, self.rules.peers)?;
            Some(store.intern(told))
        });
        told.clone()
    }
}

/// What one peer's import filter makes of its paths.
struct Taker<'a> {
    import: &'a Filter,
    interface: Option<&'a str>,
    default_local_pref: u32,
    store: &'a mut Store,
    /// By the addresses of what was told and of what is changed in it.
    made: FxHashMap<(usize, usize), Arc<Attributes>>,
}

impl<'a> Taker<'a> {
    fn new(peer: &'a PeerSettings, settings: &'a Settings, store: &'a mut Store) -> Self {
        Self {
            import: &peer.import,
            interface: settings.interface.as_deref(),
            default_local_pref: settings.default_local_pref,
            store,
            made: FxHashMap::default(),
        }
    }

    /// Filters a path that is as it was told.
    fn take(&mut self, prefix: IpNet, path: &mut Path) {
        if self.import.takes_all() {
            return;
        }
        let told = path.attributes.clone();
        let subject = Subject {
            prefix,
            from_peer: true,
            interface: self.interface,
            says: &told,
            default_local_pref: self.default_local_pref,
        };
        let (verdict, changes) = self.import.judge(&subject);
        if verdict == Verdict::Reject {
            path.unusable.get_or_insert(Unusable::Filtered);
        } else if !changes.is_empty() {
            let key = (Arc::as_ptr(&told) as usize, address(changes));
            let store = &mut *self.store;
            let made = self.made.entry(key).or_insert_with(|| {
                let mut made = (*told).clone();
                changes.iter().for_each(|change| change.apply(&mut made));
                made.made_from = Some(told.clone());
                store.intern(made)
            });
            path.attributes = made.clone();
        }
    }
}

/// Names a rule's changes while the filter lives.
fn address(changes: &[Change]) -> usize {
    match changes {
        [] => 0,
        [first, ..] => std::ptr::from_ref(first) as usize,
    }
}

fn announce_all<K: Key>(
    table: &mut Table<K>,
    prefixes: &[(u32, K::Net)],
    path: &Path,
    taker: &mut Taker<'_>,
) {
    for (path_id, net) in prefixes {
        let key = K::of(*net);
        let mut path = Path {
            path_id: *path_id,
            ..path.clone()
        };
        taker.take(key.net(), &mut path);
        table.announce(key, path);
    }
}

/// Packets cannot be sent there.
fn no_unicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_unspecified() || v4.is_loopback() || v4.octets()[0] >= 224 || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_multicast()
                || v6.to_ipv4_mapped().is_some()
        }
    }
}

fn fan_out<K: Key>(
    table: &mut Table<K>,
    family: Family,
    changed: &mut Queue,
    peers: &mut [Option<Peer>],
    facts: &[PeerFacts],
) {
    let slots = table.take_touched();
    if slots.is_empty() {
        return;
    }
    let mut listening: Vec<_> = peers
        .iter_mut()
        .flatten()
        .filter_map(|peer| Some((peer.reader.as_ref()?, &mut peer.out[family as usize])))
        .collect();
    for slot in slots {
        for (reader, out) in &mut listening {
            let paths = table.paths(slot);
            let concerned =
                out.told(slot).is_some() || paths.iter().any(|path| reader.may_hear(path, facts));
            if concerned {
                out.enqueue(table, slot);
            }
        }
        if !changed.push(slot) {
            table.let_go(slot);
        }
    }
}
