//! Prefix → paths: compact, since a full table has a million of them.
//!
//! Prefixes have slots in one long vector; a hash table of slot numbers finds them. Numbers of slots name
//! prefixes in every queue. A slot is given back when it has no path and nobody holds it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hashbrown::HashTable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustc_hash::FxBuildHasher;

use super::{Path, PeerIndex};
use crate::bgp::event::NextHopGroupId;

/// A prefix of one family in few bytes.
pub(in crate::bgp) trait Key: Copy + Eq + Ord + Hash {
    /// A prefix of the family.
    type Net: Copy;

    fn of(net: Self::Net) -> Self;
    fn net(self) -> IpNet;
}

/// An IPv4 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::bgp) struct V4 {
    address: u32,
    length: u8,
}

impl Key for V4 {
    type Net = Ipv4Net;

    fn of(net: Ipv4Net) -> Self {
        Self {
            address: net.addr().to_bits(),
            length: net.prefix_len(),
        }
    }

    fn net(self) -> IpNet {
        Ipv4Net::new_assert(Ipv4Addr::from_bits(self.address), self.length).into()
    }
}

/// An IPv6 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::bgp) struct V6 {
    address: [u8; 16],
    length: u8,
}

impl Key for V6 {
    type Net = Ipv6Net;

    fn of(net: Ipv6Net) -> Self {
        Self {
            address: net.addr().octets(),
            length: net.prefix_len(),
        }
    }

    fn net(self) -> IpNet {
        Ipv6Net::new_assert(Ipv6Addr::from(self.address), self.length).into()
    }
}

/// Names a prefix while it is in the table.
pub(in crate::bgp) type Slot = u32;

/// Prefixes of one family.
#[derive(Debug)]
pub(in crate::bgp) struct Table<K> {
    entries: Vec<Entry<K>>,
    free: Vec<Slot>,
    index: HashTable<Slot>,
    /// Slots that have changed and not been passed on, each once.
    touched: Vec<Slot>,
    /// By peer: paths, and how many of them are usable.
    counts: Vec<Count>,
}

/// A peer's paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::bgp) struct Count {
    pub(in crate::bgp) paths: usize,
    pub(in crate::bgp) usable: usize,
    pub(in crate::bgp) stale: usize,
}

#[derive(Debug)]
struct Entry<K> {
    key: K,
    touched: bool,
    paths: Paths,
    told: Option<NextHopGroup>,
    holds: u32,
}

/// Ids begin at 1, so that none costs no room.
type NextHopGroup = std::num::NonZeroU32;

/// Most prefixes have one path.
#[derive(Debug)]
enum Paths {
    One(Path),
    Some(Box<[Path]>),
}

impl Paths {
    fn none() -> Self {
        Self::Some(Box::default())
    }

    fn all(&self) -> &[Path] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Some(paths) => paths,
        }
    }

    fn all_mut(&mut self) -> &mut [Path] {
        match self {
            Self::One(path) => std::slice::from_mut(path),
            Self::Some(paths) => paths,
        }
    }

    fn push(&mut self, path: Path) {
        let mut all = self.take();
        all.push(path);
        self.put(all);
    }

    fn take(&mut self) -> Vec<Path> {
        match mem::replace(self, Self::none()) {
            Self::One(path) => vec![path],
            Self::Some(paths) => paths.into_vec(),
        }
    }

    fn put(&mut self, mut all: Vec<Path>) {
        *self = match (all.len(), all.pop()) {
            (1, Some(path)) => Self::One(path),
            (_, Some(path)) => {
                all.push(path);
                Self::Some(all.into())
            }
            (_, None) => Self::none(),
        };
    }
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            touched: Vec::new(),
            counts: Vec::new(),
        }
    }
}

impl<K: Key> Table<K> {
    /// How many slots there are, free ones too.
    pub(in crate::bgp) fn slots(&self) -> Slot {
        self.entries.len() as Slot
    }

    /// How many prefixes there are.
    pub(in crate::bgp) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(in crate::bgp) fn key(&self, slot: Slot) -> K {
        self.entries[slot as usize].key
    }

    pub(in crate::bgp) fn paths(&self, slot: Slot) -> &[Path] {
        self.entries[slot as usize].paths.all()
    }

    pub(in crate::bgp) fn find(&self, key: K) -> Option<Slot> {
        let entries = &self.entries;
        self.index
            .find(hash(&key), |slot| entries[*slot as usize].key == key)
            .copied()
    }

    /// All slots in order of prefix; takes its time.
    pub(in crate::bgp) fn sorted(&self) -> Vec<Slot> {
        let mut slots: Vec<_> = self.index.iter().copied().collect();
        slots.sort_unstable_by_key(|slot| self.key(*slot));
        slots
    }

    pub(in crate::bgp) fn count(&self, peer: PeerIndex) -> Count {
        self.counts.get(peer as usize).copied().unwrap_or_default()
    }

    /// Takes a path in place of what the peer said before under the same path identifier.
    pub(in crate::bgp) fn announce(&mut self, key: K, path: Path) {
        let slot = self.slot(key);
        self.count_in(&path);
        let entry = &mut self.entries[slot as usize];
        let same = |of: &&mut Path| of.peer == path.peer && of.path_id == path.path_id;
        match entry.paths.all_mut().iter_mut().find(same) {
            Some(old) => {
                let changed = !std::sync::Arc::ptr_eq(&old.attributes, &path.attributes)
                    || old.unusable != path.unusable;
                let mut path = path;
                if !changed {
                    path.since = old.since;
                }
                let old = mem::replace(old, path);
                self.count_out(&old);
                if changed {
                    self.touch(slot);
                }
            }
            None => {
                entry.paths.push(path);
                self.touch(slot);
            }
        }
    }

    /// False: the peer had not announced it.
    pub(in crate::bgp) fn withdraw(&mut self, key: K, peer: PeerIndex, path_id: u32) -> bool {
        let Some(slot) = self.find(key) else {
            return false;
        };
        self.remove(slot, |path| path.peer == peer && path.path_id == path_id)
    }

    /// Removes all paths of a peer that a condition holds for.
    pub(in crate::bgp) fn withdraw_all(&mut self, peer: PeerIndex, gone: impl Fn(&Path) -> bool) {
        if self.count(peer).paths == 0 {
            return;
        }
        for slot in 0..self.slots() {
            self.remove(slot, |path| path.peer == peer && gone(path));
        }
    }

    fn remove(&mut self, slot: Slot, gone: impl Fn(&Path) -> bool) -> bool {
        let entry = &mut self.entries[slot as usize];
        if !entry.paths.all().iter().any(&gone) {
            return false;
        }
        let (out, kept): (Vec<_>, Vec<_>) =
            entry.paths.take().into_iter().partition(|path| gone(path));
        entry.paths.put(kept);
        for path in &out {
            self.count_out(path);
        }
        self.touch(slot);
        true
    }

    /// Marks all paths of a peer as not repeated yet.
    pub(in crate::bgp) fn mark_stale(&mut self, peer: PeerIndex) {
        self.change_all(peer, |_, path| path.stale = true);
    }

    /// Judges all paths of a peer anew.
    pub(in crate::bgp) fn judge(&mut self, peer: PeerIndex, judge: impl FnMut(K, &mut Path)) {
        self.change_all(peer, judge);
    }

    fn change_all(&mut self, peer: PeerIndex, mut change: impl FnMut(K, &mut Path)) {
        if self.count(peer).paths == 0 {
            return;
        }
        let mut count = Count::default();
        for slot in 0..self.slots() {
            let entry = &mut self.entries[slot as usize];
            let key = entry.key;
            let mut touched = false;
            for path in entry
                .paths
                .all_mut()
                .iter_mut()
                .filter(|path| path.peer == peer)
            {
                let looks = |path: &Path| (path.unusable, Arc::as_ptr(&path.attributes));
                let before = looks(path);
                change(key, path);
                touched |= before != looks(path);
                count.add(path);
            }
            if touched {
                self.touch(slot);
            }
        }
        self.counts[peer as usize] = count;
    }

    /// Says that whatever depends on the slot must be looked at again.
    pub(in crate::bgp) fn touch(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot as usize];
        if !mem::replace(&mut entry.touched, true) {
            entry.holds += 1;
            self.touched.push(slot);
        }
    }

    /// Touches all that some condition holds for.
    pub(in crate::bgp) fn touch_all(&mut self, which: impl Fn(&[Path]) -> bool) {
        for slot in 0..self.slots() {
            let paths = self.paths(slot);
            if !paths.is_empty() && which(paths) {
                self.touch(slot);
            }
        }
    }

    /// Slots touched since; the caller holds them now, and lets each go once.
    pub(in crate::bgp) fn take_touched(&mut self) -> Vec<Slot> {
        for slot in &self.touched {
            self.entries[*slot as usize].touched = false;
        }
        mem::take(&mut self.touched)
    }

    /// The slot stays what it is until it is let go as often.
    pub(in crate::bgp) fn hold(&mut self, slot: Slot) {
        self.entries[slot as usize].holds += 1;
    }

    pub(in crate::bgp) fn let_go(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot as usize];
        entry.holds -= 1;
        if entry.holds > 0 || !entry.paths.all().is_empty() || entry.told.is_some() {
            return;
        }
        let key = entry.key;
        let found = self.index.find_entry(hash(&key), |of| *of == slot);
        found
            .expect("every slot that is not free is found")
            .remove();
        self.free.push(slot);
    }

    /// What the consumer was told.
    pub(in crate::bgp) fn told(&self, slot: Slot) -> Option<NextHopGroupId> {
        let told = self.entries[slot as usize].told;
        told.map(|id| NextHopGroupId(id.get()))
    }

    /// The slot must be held.
    pub(in crate::bgp) fn tell(&mut self, slot: Slot, group: Option<NextHopGroupId>) {
        let told = group.and_then(|id| NextHopGroup::new(id.0));
        self.entries[slot as usize].told = told;
    }

    /// Gives memory back when most slots are free: where each slot has gone. Nobody may hold one by its
    /// number but those that are told.
    pub(in crate::bgp) fn compact(&mut self) -> Option<Vec<Option<Slot>>> {
        if self.entries.len() < 4096
            || self.len() > self.entries.len() / 4
            || !self.touched.is_empty()
        {
            return None;
        }
        let mut moved = vec![None; self.entries.len()];
        let mut used: Vec<_> = self.index.iter().copied().collect();
        used.sort_unstable();
        for (new, old) in used.iter().enumerate() {
            moved[*old as usize] = Some(new as Slot);
        }
        let entries = mem::take(&mut self.entries);
        self.entries = Vec::with_capacity(used.len());
        self.entries.extend(
            entries
                .into_iter()
                .zip(&moved)
                .filter_map(|(entry, to)| to.map(|_| entry)),
        );
        self.free = Vec::new();
        self.touched = Vec::new();
        self.index = HashTable::with_capacity(used.len());
        for slot in 0..self.slots() {
            let entries = &self.entries;
            let hash_of = |slot: &Slot| hash(&entries[*slot as usize].key);
            self.index.insert_unique(hash_of(&slot), slot, hash_of);
        }
        Some(moved)
    }

    fn slot(&mut self, key: K) -> Slot {
        if let Some(slot) = self.find(key) {
            return slot;
        }
        let entry = Entry {
            key,
            touched: false,
            paths: Paths::none(),
            told: None,
            holds: 0,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                self.slots() - 1
            }
        };
        let entries = &self.entries;
        self.index
            .insert_unique(hash(&key), slot, |slot| hash(&entries[*slot as usize].key));
        slot
    }

    fn count_in(&mut self, path: &Path) {
        let nth = path.peer as usize;
        if self.counts.len() <= nth {
            self.counts.resize(nth + 1, Count::default());
        }
        self.counts[nth].add(path);
    }

    fn count_out(&mut self, path: &Path) {
        let count = &mut self.counts[path.peer as usize];
        count.paths -= 1;
        count.usable -= usize::from(path.unusable.is_none());
        count.stale -= usize::from(path.stale);
    }
}

impl Count {
    fn add(&mut self, path: &Path) {
        self.paths += 1;
        self.usable += usize::from(path.unusable.is_none());
        self.stale += usize::from(path.stale);
    }
}

fn hash(key: &impl Hash) -> u64 {
    FxBuildHasher.hash_one(key)
}

/// Slots that wait for something, each once.
#[derive(Debug, Default)]
pub(in crate::bgp) struct Queue {
    slots: VecDeque<Slot>,
    waits: Vec<u64>,
}

impl Queue {
    /// False: it waits already.
    #[must_use]
    pub(in crate::bgp) fn push(&mut self, slot: Slot) -> bool {
        let (word, bit) = (slot as usize / 64, 1u64 << (slot % 64));
        if self.waits.len() <= word {
            self.waits.resize(word + 1, 0);
        }
        if self.waits[word] & bit != 0 {
            return false;
        }
        self.waits[word] |= bit;
        self.slots.push_back(slot);
        true
    }

    pub(in crate::bgp) fn pop(&mut self) -> Option<Slot> {
        let slot = self.slots.pop_front()?;
        self.waits[slot as usize / 64] &= !(1u64 << (slot % 64));
        if self.slots.is_empty() {
            *self = Self::default();
        }
        Some(slot)
    }

    pub(in crate::bgp) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bgp::attributes::Attributes;

    fn path(peer: PeerIndex, attributes: &Arc<Attributes>) -> Path {
        Path {
            attributes: attributes.clone(),
            path_id: 0,
            since: 0,
            peer,
            stale: false,
            unusable: None,
        }
    }

    fn key(nth: u32) -> V4 {
        V4 {
            address: nth << 8,
            length: 24,
        }
    }

    fn attributes() -> Arc<Attributes> {
        Arc::new(Attributes::own([10, 0, 0, 1].into()))
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry<V4>>() <= 48, "{}", size_of::<Entry<V4>>());
        assert_eq!(size_of::<Path>(), 24);
    }

    #[test]
    fn slots_live_as_long_as_somebody_holds_them() {
        let mut table = Table::<V4>::default();
        let said = attributes();
        table.announce(key(1), path(1, &said));
        table.announce(key(1), path(2, &said));
        assert_eq!(table.take_touched(), [0]);
        table.announce(key(1), path(1, &said));
        assert!(table.take_touched().is_empty(), "nothing has changed");
        assert!(table.withdraw(key(1), 1, 0) && !table.withdraw(key(1), 1, 0));
        assert!(table.withdraw(key(1), 2, 0));
        table.let_go(0);
        assert_eq!(table.len(), 1, "the second change holds it");
        for slot in table.take_touched() {
            table.let_go(slot);
        }
        assert_eq!((table.len(), table.find(key(1))), (0, None));
        assert_eq!(
            (table.count(1), table.count(2)),
            (Count::default(), Count::default())
        );
        table.announce(key(2), path(1, &said));
        assert_eq!(table.find(key(2)), Some(0), "the slot is used again");
    }

    #[test]
    fn memory_is_given_back() {
        let mut table = Table::<V4>::default();
        let said = attributes();
        for nth in 0..10_000 {
            table.announce(key(nth), path(1, &said));
        }
        table.announce(key(9_999), path(2, &said));
        assert_eq!(table.compact(), None);
        table.withdraw_all(1, |_| true);
        for slot in table.take_touched() {
            table.let_go(slot);
        }
        let moved = table.compact().expect("most slots are free");
        assert_eq!(moved[9_999], Some(0));
        assert_eq!((table.len(), table.slots()), (1, 1));
        assert_eq!(table.find(key(9_999)), Some(0));
        assert_eq!(table.paths(0).len(), 1);
    }

    #[test]
    fn stale_paths_are_counted_and_swept() {
        let mut table = Table::<V4>::default();
        let said = attributes();
        table.announce(key(1), path(1, &said));
        table.announce(key(2), path(1, &said));
        table.mark_stale(1);
        assert_eq!(table.count(1).stale, 2);
        table.announce(key(1), path(1, &said));
        assert_eq!(table.count(1).stale, 1);
        table.withdraw_all(1, |path| path.stale);
        assert_eq!(
            table.count(1),
            Count {
                paths: 1,
                usable: 1,
                stale: 0
            }
        );
    }

    #[test]
    fn a_queue_has_each_slot_once() {
        let mut queue = Queue::default();
        assert!(queue.push(70) && !queue.push(70) && queue.push(1));
        assert_eq!((queue.pop(), queue.len()), (Some(70), 1));
        assert!(queue.push(70));
        assert_eq!(
            (queue.pop(), queue.pop(), queue.pop()),
            (Some(1), Some(70), None)
        );
    }
}
