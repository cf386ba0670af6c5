//! What one peer has been told in one family, and what it has still to be told.

use std::mem;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::Path;
use super::table::{Key, Queue, Slot, Table};
use crate::bgp::attributes::Attributes;
use crate::bgp::message::Family;
use crate::bgp::message::encode::{self, Format};

/// So many slots are looked at before what they have to say is written.
const STEP: usize = 2048;

/// What was told, by slot, and what is waiting.
#[derive(Debug, Default)]
pub(in crate::bgp) struct AdjOut {
    told: Vec<Option<Arc<Attributes>>>,
    count: usize,
    queue: Queue,
    walk: Option<Walk>,
    again: bool,
    end: Option<Ending>,
}

/// A pass over the whole table.
#[derive(Clone, Copy, Debug)]
struct Walk {
    next: Slot,
    /// What was told already is told again.
    repeat: bool,
}

/// What is said when a pass is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bgp) enum Ending {
    /// All routes have been sent (RFC 4724 §2).
    Rib,
    /// All routes have been sent again (RFC 7313 §4).
    Refresh,
    Nothing,
}

/// The attributes that a prefix with such paths is told with.
type Wanted<'a> = dyn FnMut(&[Path], IpNet) -> Option<Arc<Attributes>> + 'a;

/// How the peer reads, and what it shall be told of a slot.
pub(in crate::bgp) struct Telling<'a> {
    pub(in crate::bgp) family: Family,
    pub(in crate::bgp) format: Format,
    /// The attributes for a prefix with these paths; none: it is not told.
    pub(in crate::bgp) wanted: &'a mut Wanted<'a>,
}

impl AdjOut {
    /// Everything will be told; then `end` is said, unless something else will be: false.
    pub(in crate::bgp) fn begin(&mut self, repeat: bool, end: Ending) -> bool {
        if self.walk.is_some_and(|walk| walk.repeat && walk.next > 0) {
            // A peer that asks again and again is answered once more when this answer is over.
            self.again = true;
            return false;
        }
        let repeat = repeat || self.walk.is_some_and(|walk| walk.repeat);
        self.walk = Some(Walk { next: 0, repeat });
        if self.end == Some(Ending::Rib) {
            return end == Ending::Rib;
        }
        self.end = Some(end);
        true
    }

    /// The slot has changed.
    pub(in crate::bgp) fn enqueue<K: Key>(&mut self, table: &mut Table<K>, slot: Slot) {
        let comes_yet = self.walk.is_some_and(|walk| slot >= walk.next);
        if !comes_yet && self.queue.push(slot) {
            table.hold(slot);
        }
    }

    /// What the slot's peer was told.
    pub(in crate::bgp) fn told(&self, slot: Slot) -> Option<&Arc<Attributes>> {
        self.told.get(slot as usize)?.as_ref()
    }

    /// How many prefixes it has been told.
    pub(in crate::bgp) fn count(&self) -> usize {
        self.count
    }

    /// Whether nothing waits.
    pub(in crate::bgp) fn is_idle(&self) -> bool {
        self.walk.is_none() && self.queue.is_empty() && self.end.is_none()
    }

    /// Appends messages until `limit` bytes are there or nothing is left to be told.
    pub(in crate::bgp) fn write<K: Key>(
        &mut self,
        to: &mut Vec<u8>,
        limit: usize,
        table: &mut Table<K>,
        telling: &mut Telling<'_>,
    ) -> Written {
        let mut written = Written::default();
        while to.len() < limit && !self.is_idle() {
            let (slots, repeat) = self.next(table);
            if slots.is_empty() {
                if self.walk.is_none() && self.queue.is_empty() {
                    self.finish(to, telling.family, &mut written);
                }
                continue;
            }
            let mut news = News::default();
            for slot in slots {
                self.look(table, slot, repeat, telling, &mut news);
            }
            news.write(to, telling.format, &mut written);
        }
        written
    }

    /// The next slots, held.
    fn next<K: Key>(&mut self, table: &mut Table<K>) -> (Vec<Slot>, bool) {
        if let Some(slot) = self.queue.pop() {
            let mut slots = vec![slot];
            while slots.len() < STEP
                && let Some(slot) = self.queue.pop()
            {
                slots.push(slot);
            }
            return (slots, false);
        }
        let Some(walk) = &mut self.walk else {
            return (Vec::new(), false);
        };
        let end = table.slots().min(walk.next + STEP as Slot);
        // Nobody is told of a prefix without paths, unless it was told of it before.
        let told = &self.told;
        let has_news = |slot: &Slot| {
            !table.paths(*slot).is_empty() || told.get(*slot as usize).is_some_and(Option::is_some)
        };
        let slots: Vec<_> = (walk.next..end).filter(has_news).collect();
        let repeat = walk.repeat;
        walk.next = end;
        if end == table.slots() {
            self.walk = None;
        }
        for slot in &slots {
            table.hold(*slot);
        }
        (slots, repeat)
    }

    fn look<K: Key>(
        &mut self,
        table: &mut Table<K>,
        slot: Slot,
        repeat: bool,
        telling: &mut Telling<'_>,
        news: &mut News,
    ) {
        let prefix = table.key(slot).net();
        let wanted = (telling.wanted)(table.paths(slot), prefix);
        let index = slot as usize;
        if self.told.len() <= index && wanted.is_some() {
            self.told.resize(index + 1, None);
        }
        let told = self.told.get(index).and_then(Option::as_ref);
        match (told, wanted) {
            (None, None) => {}
            (Some(told), Some(wanted)) if Arc::ptr_eq(told, &wanted) => {
                if repeat {
                    news.announce(wanted, prefix);
                }
            }
            (before, Some(wanted)) => {
                if before.is_none() {
                    self.count += 1;
                    table.hold(slot);
                }
                self.told[index] = Some(wanted.clone());
                news.announce(wanted, prefix);
            }
            (Some(_), None) => {
                self.told[index] = None;
                self.count -= 1;
                table.let_go(slot);
                news.withdrawn.push(prefix);
            }
        }
        table.let_go(slot);
    }

    fn finish(&mut self, to: &mut Vec<u8>, family: Family, written: &mut Written) {
        use crate::bgp::message::{Refresh, Step};
        match self.end.take() {
            Some(Ending::Rib) => {
                encode::end_of_rib(to, family);
                written.updates += 1;
            }
            Some(Ending::Refresh) => {
                Refresh::write(to, family, Step::End);
                written.refreshes += 1;
            }
            Some(Ending::Nothing) | None => {}
        }
        if mem::take(&mut self.again) {
            self.begin(true, Ending::Nothing);
        }
    }

    /// Forgets everything: the session has ended.
    pub(in crate::bgp) fn clear<K: Key>(&mut self, table: &mut Table<K>) {
        while let Some(slot) = self.queue.pop() {
            table.let_go(slot);
        }
        for (slot, told) in (0..).zip(mem::take(&mut self.told)) {
            if told.is_some() {
                table.let_go(slot);
            }
        }
        *self = Self::default();
    }

    /// Follows slots to where they have gone.
    pub(in crate::bgp) fn follow(&mut self, moved: &[Option<Slot>]) {
        let mut told = Vec::new();
        for (attributes, to) in mem::take(&mut self.told).into_iter().zip(moved) {
            if let (Some(attributes), Some(to)) = (attributes, to) {
                let to = *to as usize;
                if told.len() <= to {
                    told.resize(to + 1, None);
                }
                told[to] = Some(attributes);
            }
        }
        self.told = told;
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::bgp) struct Written {
    pub(in crate::bgp) updates: u64,
    pub(in crate::bgp) refreshes: u64,
    /// Prefixes whose attributes leave no room in a message.
    pub(in crate::bgp) too_long: usize,
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, more: Self) {
        self.updates += more.updates;
        self.refreshes += more.refreshes;
        self.too_long += more.too_long;
    }
}

#[derive(Default)]
struct News {
    withdrawn: Vec<IpNet>,
    announced: Vec<(Arc<Attributes>, Vec<IpNet>)>,
    places: FxHashMap<*const Attributes, usize>,
}

impl News {
    fn announce(&mut self, attributes: Arc<Attributes>, prefix: IpNet) {
        let place = *self
            .places
            .entry(Arc::as_ptr(&attributes))
            .or_insert_with(|| {
                self.announced.push((attributes, Vec::new()));
                self.announced.len() - 1
            });
        self.announced[place].1.push(prefix);
    }

    fn write(mut self, to: &mut Vec<u8>, format: Format, written: &mut Written) {
        let begin = to.len();
        for (attributes, prefixes) in &self.announced {
            if !encode::announce(to, attributes, prefixes, format) {
                // What the peer heard before is not so any more.
                written.too_long += prefixes.len();
                self.withdrawn.extend(prefixes);
            }
        }
        encode::withdraw(to, &self.withdrawn, format.longest);
        written.updates += messages(&to[begin..]);
    }
}

/// How many messages there are, one behind the other.
fn messages(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while let Some(length) = bytes.get(16..18) {
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        bytes = &bytes[length.min(bytes.len())..];
        count += 1;
    }
    count
}
