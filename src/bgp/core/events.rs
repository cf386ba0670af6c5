//! What the consumer is told: best paths by group, and groups that have changed.

use std::net::IpAddr;

use super::{Core, Peer};
use crate::bgp::event::{Event, NextHop, NextHopGroupId, RouteChange};
use crate::bgp::rib::decision::Rules;
use crate::bgp::rib::groups::{Groups, Via};
use crate::bgp::rib::table::{Key, Queue, Slot, Table};
use crate::bgp::rib::{OWN, Path, PeerFacts};

/// Prefixes in one event.
const BATCH: usize = 4096;

impl Core {
    /// The next events in order; none: the consumer knows everything.
    pub(in crate::bgp) fn events(&mut self) -> Vec<Event> {
        let mut events: Vec<_> = self.urgent.drain(..).collect();
        let Self {
            v4,
            v6,
            changed: [changed4, changed6],
            groups,
            peers,
            facts,
            settings,
            unreachable,
            ..
        } = self;
        let is_unreachable = |of: &IpAddr| unreachable.contains(of);
        let rules = Rules {
            peers: facts,
            max_paths: settings.max_paths,
            default_local_pref: settings.default_local_pref,
            unreachable: &is_unreachable,
        };
        let alive = |via: &Via| is_alive(via, peers, &is_unreachable);
        let mut teller = Teller {
            rules: &rules,
            groups,
            alive: &alive,
        };
        teller.tell(v4, changed4, &mut events);
        teller.tell(v6, changed6, &mut events);
        let known = changed4.is_empty() && changed6.is_empty();
        if self.start.ready && !self.start.told && known {
            self.start.told = true;
            events.push(Event::Converged);
        }
        events
    }

    /// Re-points groups whose next hops have gone or are back, before anything is said of prefixes.
    pub(super) fn repair(&mut self) {
        let (peers, unreachable) = (&self.peers, &self.unreachable);
        let is_unreachable = |of: &IpAddr| unreachable.contains(of);
        let events = self
            .groups
            .repair(&|via| is_alive(via, peers, &is_unreachable));
        self.urgent.extend(events);
    }
}

fn is_alive(via: &Via, peers: &[Option<Peer>], unreachable: &dyn Fn(&IpAddr) -> bool) -> bool {
    let peer = peers.get(via.peer as usize).and_then(Option::as_ref);
    let heard = peer.is_some_and(|peer| peer.agreed.is_some() || peer.keeps_until.is_some());
    heard && !unreachable(&via.next_hop.address)
}

struct Teller<'a> {
    rules: &'a Rules<'a>,
    groups: &'a mut Groups,
    alive: &'a dyn Fn(&Via) -> bool,
}

impl Teller<'_> {
    /// One event of changed routes, the groups that they need before it, those that nobody needs behind.
    fn tell<K: Key>(&mut self, table: &mut Table<K>, changed: &mut Queue, events: &mut Vec<Event>) {
        let (mut changes, mut gone) = (Vec::new(), Vec::new());
        while changes.len() < BATCH
            && let Some(slot) = changed.pop()
        {
            let (group, new) = self.group(table.paths(slot));
            events.extend(new);
            self.change(table, slot, group, &mut changes, &mut gone);
            table.let_go(slot);
        }
        if !changes.is_empty() {
            events.push(Event::Routes(changes));
        }
        events.extend(gone);
    }

    fn change<K: Key>(
        &mut self,
        table: &mut Table<K>,
        slot: Slot,
        group: Option<NextHopGroupId>,
        changes: &mut Vec<RouteChange>,
        gone: &mut Vec<Event>,
    ) {
        let told = table.told(slot);
        if told == group {
            return;
        }
        if let Some(group) = group {
            self.groups.join(group);
        }
        if let Some(told) = told {
            gone.extend(self.groups.leave(told));
        }
        table.tell(slot, group);
        changes.push(RouteChange {
            prefix: table.key(slot).net(),
            group,
        });
    }

    /// The group that paths lead to; none for own routes and where there is no way.
    fn group(&mut self, paths: &[Path]) -> (Option<NextHopGroupId>, Option<Event>) {
        let choice = self.rules.choose(paths);
        let Some(best) = choice.equal.first() else {
            return (None, None);
        };
        if paths[*best].peer == OWN {
            return (None, None);
        }
        let via = |nth: &usize| via(&paths[*nth], self.rules.peers);
        let mut vias: Vec<_> = choice.equal.iter().map(via).collect();
        vias.sort_unstable();
        let equal = vias.len();
        let backup = choice.backup.filter(|nth| paths[*nth].peer != OWN);
        vias.extend(backup.as_ref().map(via));
        let (id, event) = self.groups.of(&vias, equal, self.alive);
        (Some(id), event)
    }
}

fn via(path: &Path, peers: &[PeerFacts]) -> Via {
    let said = &path.attributes;
    let scope_id = peers[path.peer as usize].scope_id;
    let link_local = |of: &std::net::Ipv6Addr| of.is_unicast_link_local();
    // Beside a peer on the same link its link-local address is the next hop (RFC 2545 §3).
    let next_hop = match said.link_local {
        Some(local) if scope_id != 0 => NextHop {
            address: local.into(),
            scope_id,
        },
        _ => NextHop {
            address: said.next_hop,
            scope_id: match &said.next_hop {
                IpAddr::V6(address) if link_local(address) => scope_id,
                _ => 0,
            },
        },
    };
    Via {
        peer: path.peer,
        next_hop,
    }
}
