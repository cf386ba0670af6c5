//! Sets of next hops that prefixes share, so that a failure is repaired by one write a set, whatever
//! the number of prefixes.
//!
//! A group is its paths' next hops, each with the peer that told it, and the next hop that stands in when
//! they are gone. Which of them are used now is worked out from who is alive.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use super::PeerIndex;
use crate::bgp::event::{Event, NextHop, NextHopGroupId};

/// A next hop by the peer that told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::bgp) struct Via {
    pub(in crate::bgp) peer: PeerIndex,
    pub(in crate::bgp) next_hop: NextHop,
}

/// All groups in use.
#[derive(Debug, Default)]
pub(in crate::bgp) struct Groups {
    by_id: BTreeMap<u32, Group>,
    index: HashTable<u32>,
    last: u32,
}

#[derive(Debug)]
struct Group {
    /// Equal ones, then the one that stands in.
    vias: Box<[Via]>,
    equal: usize,
    users: usize,
    told: Arc<[NextHop]>,
}

impl Groups {
    /// The group of `vias`, of which the first `equal` are used and the rest stand in; its event, if it
    /// is new.
    pub(in crate::bgp) fn of(
        &mut self,
        vias: &[Via],
        equal: usize,
        alive: &dyn Fn(&Via) -> bool,
    ) -> (NextHopGroupId, Option<Event>) {
        let hash = hash(vias, equal);
        let same = |id: &u32| {
            let group = &self.by_id[id];
            group.equal == equal && *group.vias == *vias
        };
        if let Some(id) = self.index.find(hash, same) {
            return (NextHopGroupId(*id), None);
        }
        self.last += 1;
        let id = self.last;
        let told = used(vias, equal, alive);
        let event = Event::Group {
            id: NextHopGroupId(id),
            next_hops: told.clone(),
        };
        let group = Group {
            vias: vias.into(),
            equal,
            users: 0,
            told,
        };
        self.by_id.insert(id, group);
        let by_id = &self.by_id;
        self.index.insert_unique(hash, id, |id| {
            let group = &by_id[id];
            self::hash(&group.vias, group.equal)
        });
        (NextHopGroupId(id), Some(event))
    }

    /// One more prefix uses the group.
    pub(in crate::bgp) fn join(&mut self, id: NextHopGroupId) {
        if let Some(group) = self.by_id.get_mut(&id.0) {
            group.users += 1;
        }
    }

    /// One prefix less; the event of its end, if it was the last.
    pub(in crate::bgp) fn leave(&mut self, id: NextHopGroupId) -> Option<Event> {
        let group = self.by_id.get_mut(&id.0)?;
        group.users -= 1;
        if group.users > 0 {
            return None;
        }
        let group = self.by_id.remove(&id.0)?;
        let hash = hash(&group.vias, group.equal);
        if let Ok(entry) = self.index.find_entry(hash, |of| *of == id.0) {
            entry.remove();
        }
        Some(Event::GroupGone(id))
    }

    /// Events of all groups that are other next hops now than what was told.
    pub(in crate::bgp) fn repair(&mut self, alive: &dyn Fn(&Via) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        for (id, group) in &mut self.by_id {
            let now = used(&group.vias, group.equal, alive);
            if now != group.told {
                group.told = now.clone();
                events.push(Event::Group {
                    id: NextHopGroupId(*id),
                    next_hops: now,
                });
            }
        }
        events
    }

    pub(in crate::bgp) fn len(&self) -> usize {
        self.by_id.len()
    }
}

fn hash(vias: &[Via], equal: usize) -> u64 {
    FxBuildHasher.hash_one((vias, equal))
}

fn used(vias: &[Via], equal: usize, alive: &dyn Fn(&Via) -> bool) -> Arc<[NextHop]> {
    let living = |vias: &[Via]| {
        let living = vias.iter().filter(|via| alive(via));
        let mut hops: Vec<_> = living.map(|via| via.next_hop).collect();
        hops.sort_unstable();
        hops.dedup();
        hops
    };
    let (first, then) = vias.split_at(equal);
    let hops = living(first);
    if hops.is_empty() { living(then) } else { hops }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(peer: PeerIndex) -> Via {
        Via {
            peer,
            next_hop: NextHop {
                address: [10, 0, 0, peer as u8].into(),
                scope_id: 0,
            },
        }
    }

    fn hops(event: &Event) -> Vec<u8> {
        let Event::Group { next_hops, .. } = event else {
            panic!("{event:?}");
        };
        let last = |hop: &NextHop| match hop.address {
            std::net::IpAddr::V4(address) => address.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        next_hops.iter().map(last).collect()
    }

    #[test]
    fn a_dead_peer_is_replaced_by_one_event_a_group() {
        let mut groups = Groups::default();
        let all = |_: &Via| true;
        let (pair, event) = groups.of(&[via(1), via(2)], 2, &all);
        assert_eq!(hops(&event.unwrap()), [1, 2]);
        let (single, event) = groups.of(&[via(1), via(3)], 1, &all);
        assert_eq!(hops(&event.unwrap()), [1]);
        assert_eq!(groups.of(&[via(1), via(2)], 2, &all), (pair, None));
        let (lone, _) = groups.of(&[via(1)], 1, &all);
        let events = groups.repair(&|via| via.peer != 1);
        let found: Vec<_> = events.iter().map(hops).collect();
        assert_eq!(found, [vec![2], vec![3], vec![]]);
        assert!(groups.repair(&|via| via.peer != 1).is_empty());
        assert_eq!(groups.repair(&all).len(), 3);
        for id in [pair, single, lone] {
            groups.join(id);
            groups.join(id);
            assert_eq!(groups.leave(id), None);
            assert_eq!(groups.leave(id), Some(Event::GroupGone(id)));
        }
        assert_eq!(groups.len(), 0);
        let (again, event) = groups.of(&[via(1)], 1, &all);
        assert!(event.is_some() && again > lone, "ids do not come again");
    }
}
