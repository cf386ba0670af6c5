//! The speaker without sockets and clocks: sessions and tables, and what one means for the other.
//!
//! Whoever runs it hands in bytes and times, does what [`Output`]s say, takes events when it can pass them
//! on ([`Core::events`]), and asks for bytes when a connection can take some ([`Core::write`]). Nothing
//! waits anywhere but as a slot in a queue, however slow anybody is.

mod configure;
mod connections;
mod events;
mod peer;
mod query;
mod routes;
mod sessions;

use self::peer::Peer;
pub(super) use self::query::View;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use log::warn;
use rustc_hash::FxHashMap;

use super::attributes::OwnRoute;
use super::event::Event;
use super::message::encode::Format;
use super::message::notification::cease;
use super::message::{Family, Notification, Refresh, Step as RefreshStep};
use super::rib::adj_out::Ending;
use super::rib::export::Reader;
use super::rib::groups::Groups;
use super::rib::store::Store;
use super::rib::table::{Queue, Table, V4, V6};
use super::rib::{PeerFacts, PeerIndex};
use super::session::{Action, Agreed, ConnectionId, NO_ANSWER, Time};
use super::settings::{PeerName, PeerSettings, Settings};

/// The speaker.
pub(super) struct Core {
    settings: Settings,
    now: Time,
    next_id: u64,
    seed: u64,
    connections: FxHashMap<ConnectionId, PeerIndex>,
    /// Walks over the tables, put off until the repair that needs none has been told.
    chores: Vec<Chore>,
    /// By index; 0 is the speaker itself, and none of them.
    peers: Vec<Option<Peer>>,
    facts: Vec<PeerFacts>,
    v4: Table<V4>,
    v6: Table<V6>,
    /// Slots whose best paths the consumer may not know.
    changed: [Queue; 2],
    store: Store,
    groups: Groups,
    urgent: VecDeque<Event>,
    outputs: Vec<Output>,
    own: BTreeMap<IpNet, OwnRoute>,
    unreachable: BTreeSet<IpAddr>,
    start: Beginning,
    body: Vec<u8>,
}

/// What is done by whoever has sockets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Open a connection.
    Connect { id: ConnectionId, peer: PeerName },
    /// Send this behind everything else, then close.
    Close { id: ConnectionId, last: Vec<u8> },
}

/// What takes a walk over the tables.
enum Chore {
    /// All routes of a peer are gone, in the families that are true.
    Withdraw(PeerIndex, [bool; 2]),
    /// Next hops are out of reach, or back.
    NextHops(BTreeSet<IpAddr>),
}

/// The time until every peer's routes are there.
struct Beginning {
    /// Peers that keep routes of an earlier run are told nothing before (RFC 4724 §4.1).
    defers: bool,
    /// Those that had sessions with the earlier run; none: all of the settings'.
    waits_for: Option<BTreeSet<PeerName>>,
    ends: Time,
    ready: bool,
    told: bool,
}

impl Core {
    /// A speaker at the time 0; `kept_by`: the peers that keep the routes of an earlier run.
    pub(super) fn new(settings: Settings, kept_by: Option<BTreeSet<PeerName>>, seed: u64) -> Self {
        // Peers keep our routes twice as long.
        let patience = match settings.graceful_restart.is_zero() {
            true => Time::from_secs(60),
            false => settings.graceful_restart / 2,
        };
        let mut core = Self {
            settings: Settings {
                peers: BTreeMap::new(),
                ..settings.clone()
            },
            now: Time::ZERO,
            next_id: 1,
            seed,
            connections: FxHashMap::default(),
            chores: Vec::new(),
            peers: vec![None],
            facts: vec![PeerFacts {
                external: false,
                client: false,
                router_id: settings.router_id,
                address: IpAddr::V4(settings.router_id),
                scope_id: 0,
            }],
            v4: Table::default(),
            v6: Table::default(),
            changed: Default::default(),
            store: Store::default(),
            groups: Groups::default(),
            urgent: VecDeque::new(),
            outputs: Vec::new(),
            own: BTreeMap::new(),
            unreachable: BTreeSet::new(),
            start: Beginning {
                defers: kept_by.is_some(),
                waits_for: kept_by,
                ends: patience,
                ready: false,
                told: false,
            },
            body: Vec::new(),
        };
        core.configure(Time::ZERO, settings);
        core
    }

    /// What is to be done since the last call.
    pub(super) fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`Self::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        let of_peers = self.peers.iter().flatten();
        let sessions = of_peers.flat_map(|peer| [peer.session.deadline(), peer.keeps_until]);
        let start =
            (!self.start.ready).then_some(self.start.ends.min(self.now + Time::from_secs(1)));
        let chores = (!self.chores.is_empty()).then_some(self.now);
        sessions.flatten().chain(start).chain(chores).min()
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Time) {
        self.now = now;
        self.do_chores();
        for index in self.indices() {
            self.with(index, |core, peer, actions| {
                peer.session.tick(now, &mut core.next_id, actions);
                if peer.keeps_until.is_some_and(|until| until <= now) {
                    core.forget_stale(index, peer);
                }
            });
        }
        self.begin_when_ready();
        self.settle();
        self.compact();
    }

    /// Ends a peer's session and begins it anew, or has all routes sent again without that. False: there
    /// is no such peer.
    pub(super) fn reset(&mut self, now: Time, name: &PeerName, softly: bool) -> bool {
        self.now = now;
        let Some(index) = self.index(name) else {
            return false;
        };
        self.with(index, |_, peer, actions| {
            let Some((id, agreed)) = peer.session.established() else {
                if !softly {
                    let config = peer.session.config().clone();
                    peer.session.stop(None, actions);
                    peer.session.start(now, config);
                }
                return;
            };
            if !softly {
                let config = peer.session.config().clone();
                let said = Notification::cease(cease::RESET, "");
                peer.session.stop(Some(&said), actions);
                peer.session.start(now, config);
                return;
            }
            let (families, refresh) = (agreed.context.families, agreed.refresh);
            for family in Family::ALL
                .into_iter()
                .filter(|family| families[*family as usize])
            {
                if refresh {
                    peer.session
                        .say(id, |to| Refresh::write(to, family, RefreshStep::Request));
                    peer.session.counters.sent.refreshes += 1;
                }
                peer.out[family as usize].begin(true, Ending::Nothing);
            }
        });
        self.settle();
        true
    }

    /// Ends all sessions with a NOTIFICATION and a text; `restarting`: but those whose peers keep our routes
    /// if nothing is said.
    pub(super) fn stop(&mut self, text: &str, restarting: bool) {
        let said = Notification::cease(cease::SHUTDOWN, text);
        for index in self.indices() {
            self.with(index, |_, peer, actions| {
                let silent = restarting && peer.session.is_kept();
                peer.session.stop((!silent).then_some(&said), actions)
            });
        }
    }

    fn indices(&self) -> Vec<PeerIndex> {
        (1..self.peers.len() as PeerIndex)
            .filter(|index| self.peers[*index as usize].is_some())
            .collect()
    }

    fn index(&self, name: &PeerName) -> Option<PeerIndex> {
        let same = |peer: &Option<Peer>| peer.as_ref().is_some_and(|peer| peer.name == *name);
        self.peers
            .iter()
            .position(same)
            .map(|index| index as PeerIndex)
    }

    fn index_of(&self, id: ConnectionId) -> Option<PeerIndex> {
        self.connections.get(&id).copied()
    }

    fn with_connection(
        &mut self,
        id: ConnectionId,
        change: impl FnOnce(&mut Self, &mut Peer, &mut Vec<Action>),
    ) {
        if let Some(index) = self.index_of(id) {
            self.with(index, change);
        }
    }

    /// Works on a peer beside everything else, then does what its session asks for.
    fn with(
        &mut self,
        index: PeerIndex,
        change: impl FnOnce(&mut Self, &mut Peer, &mut Vec<Action>),
    ) {
        let Some(mut peer) = self.peers[index as usize].take() else {
            return;
        };
        let mut actions = Vec::new();
        change(self, &mut peer, &mut actions);
        for action in actions {
            self.act(index, &mut peer, action);
        }
        let state = peer.session.state();
        if state != peer.state {
            (peer.state, peer.since) = (state, self.now);
        }
        self.peers[index as usize] = Some(peer);
    }

    fn act(&mut self, index: PeerIndex, peer: &mut Peer, action: Action) {
        match action {
            Action::Connect(id) => {
                self.connections.insert(id, index);
                self.outputs.push(Output::Connect {
                    id,
                    peer: peer.name.clone(),
                });
            }
            Action::Close(id, last) => {
                self.connections.remove(&id);
                self.outputs.push(Output::Close { id, last });
            }
            Action::Down { kept } => self.down(index, peer, kept),
            Action::Trouble { text, ours } => {
                let text = match text == NO_ANSWER && peer.settings.password.is_some() {
                    true => format!("{text} (nor is there one to a wrong password)"),
                    false => text,
                };
                let fresh = peer.trouble.as_ref() != Some(&text);
                if peer.log.lets(self.now) && (ours || fresh) {
                    warn!(
                        "BGP: peer {} ({}): {text}",
                        peer.name, peer.settings.address
                    );
                }
                peer.trouble = Some(text);
            }
        }
    }

    fn reader(&self, index: PeerIndex, peer: &PeerSettings, agreed: &Agreed) -> Reader {
        let (local_v4, local_v6) = match agreed.local {
            IpAddr::V4(address) => (Some(address), None),
            IpAddr::V6(address) => (None, Some(address)),
        };
        Reader {
            index,
            facts: self.facts[index as usize],
            local_as: peer.local_as.unwrap_or(self.settings.local_as),
            default_local_pref: self.settings.default_local_pref,
            cluster_id: self.cluster_id(),
            next_hop: peer.next_hop,
            own_v4: local_v4.or(self.settings.next_hop_v4),
            own_v6: local_v6.or(self.settings.next_hop_v6),
            extended_next_hop: agreed.context.extended_next_hop,
        }
    }

    fn cluster_id(&self) -> Ipv4Addr {
        self.settings.cluster_id.unwrap_or(self.settings.router_id)
    }

    fn compact(&mut self) {
        let idle = |peer: &Peer, family: Family| peer.out[family as usize].is_idle();
        for family in Family::ALL {
            let quiet = self.changed[family as usize].is_empty()
                && self.peers.iter().flatten().all(|peer| idle(peer, family));
            let moved = match family {
                _ if !quiet => None,
                Family::V4 => self.v4.compact(),
                Family::V6 => self.v6.compact(),
            };
            if let Some(moved) = moved {
                for peer in self.peers.iter_mut().flatten() {
                    peer.out[family as usize].follow(&moved);
                }
                self.store.purge();
            }
        }
    }
}

fn format(agreed: &Agreed) -> Format {
    Format {
        four_octet: agreed.context.four_octet,
        longest: agreed.longest,
    }
}

#[cfg(test)]
mod tests;
