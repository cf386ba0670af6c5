//! Where stations are: the table that a bridge learns, one for all workers, without a lock.
//!
//! ```text
//!  entry    | Ethernet address (48 bits) | R | port or remote (15 bits) |   0: free
//!  history  | home (16 bits) | last moved (32 bits, s) | first to last move (8 bits, s) | moves (8 bits) |
//!  heard    | last heard of (32 bits, s) |
//! ```
//!
//! A station and its place are one word, so a reader never sees one station with another's place. A move
//! is written into the history before the entry: who sees the new place sees when it was taken.
//! An address has two buckets to be in; a free slot of either takes it. Two workers that learn one
//! address at the same time may take two slots; each looks again afterwards, and the slot that comes
//! first in the order of the look stays. Removing is done by the control side alone. It may hit an
//! entry that is heard of at that very moment, which the next frame brings back.
//!
//! Anybody can send with another station's address. Where a station's frames and a forger's take turns,
//! as those of a loop do, the place that is held on to is the station's home: the last one where it stayed
//! for [`FLAP_WINDOW`], or else the first. Whose frame was the one too many decides nothing.

use std::ops::Range;

use super::sync::{AtomicU32, AtomicU64, Ordering, WAYS, fence};
use super::{MacAddr, PortId};

/// Moves within [`FLAP_WINDOW`] after which a station's place is held on to.
pub const FLAP_MOVES: u8 = 5;

/// Seconds within which moves are counted together, and for which a station stays where it is at home.
pub const FLAP_WINDOW: u32 = 10;

/// Seconds for which the place of a station that moved too often is held on to.
pub const FLAP_HOLD: u32 = 30;

/// Another tunnel end point of a bridge, by its place in the bridge's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteId(u16);

impl RemoteId {
    /// How many there can be.
    pub const COUNT: u16 = 1 << 15;

    /// The remote of this number, if there can be so many.
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its place in the list.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a station is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Behind a port of this node; one numbered above 32767 cannot be learnt.
    Port(PortId),
    /// Behind another tunnel end point.
    Remote(RemoteId),
}

/// What became of the news that a station was heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learnt {
    /// It is where it was.
    Known,
    /// It was not known.
    New,
    /// It was elsewhere.
    Moved,
    /// It is elsewhere, and has moved too often lately to be believed: it is at home.
    Flapping,
    /// It was not known, and there is no room for it.
    Full,
}

/// A learnt station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Station {
    /// Its address.
    pub mac: MacAddr,
    /// Where it is.
    pub place: Place,
    /// Seconds since it was last heard of.
    pub age: u32,
    /// Whether its place is held on to because it moved too often.
    pub flapping: bool,
}

/// The learnt stations of one bridge.
#[derive(Debug)]
pub struct ForwardingTable {
    entries: Box<[AtomicU64]>,
    histories: Box<[AtomicU64]>,
    heard: Box<[AtomicU32]>,
    seed: u64,
    limit: u32,
    ageing: u32,
    now: AtomicU32,
    learnt: AtomicU32,
    refused: AtomicU64,
    moved: AtomicU64,
}

impl ForwardingTable {
    /// A table of up to `limit` stations, each forgotten `ageing` seconds after it was last heard of
    /// (0: never). `seed` is to be unknown to stations, so that none can choose addresses that all
    /// fall into one bucket.
    pub fn new(limit: u32, ageing: u32, seed: u64) -> Self {
        let slots = (limit as usize * 2).next_power_of_two().max(2 * WAYS);
        let words = || (0..slots).map(|_| AtomicU64::new(0)).collect();
        Self {
            entries: words(),
            histories: words(),
            heard: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            seed,
            limit,
            ageing,
            now: AtomicU32::new(0),
            learnt: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        }
    }

    /// Where a station is, if that is known.
    #[inline]
    pub fn find(&self, mac: MacAddr) -> Option<Place> {
        self.look_up(number(mac)).map(|(_, place)| place)
    }

    /// Takes note that a frame from `mac` has come from `place`. Any thread may.
    #[inline]
    pub fn learn(&self, mac: MacAddr, place: Place) -> Learnt {
        let mac = number(mac);
        match self.look_up(mac) {
            Some((slot, known)) if known == place => {
                self.touch(slot);
                Learnt::Known
            }
            Some((slot, known)) => self.relocate(slot, mac, known, place),
            None => self.insert(mac, place),
        }
    }

    /// Sets the time, in seconds from any beginning.
    pub fn set_now(&self, seconds: u32) {
        self.now.store(seconds, Ordering::Relaxed);
    }

    /// Forgets the stations that were not heard of for too long; how many.
    pub fn expire(&self) -> usize {
        let ageing = self.ageing;
        if ageing == 0 {
            return 0;
        }
        self.remove(|station| station.age >= ageing)
    }

    /// Forgets all stations at such a place; how many. One that had its home there is at home where it is.
    pub fn forget(&self, gone: impl Fn(Place) -> bool) -> usize {
        let forgotten = self.remove(|station| gone(station.place));
        (0..self.entries.len()).for_each(|slot| self.find_home(slot, &gone));
        forgotten
    }

    /// The stations, in no order.
    pub fn stations(&self) -> impl Iterator<Item = Station> + '_ {
        (0..self.entries.len()).filter_map(|slot| self.station(slot).map(|(_, station)| station))
    }

    /// How many stations there are.
    pub fn len(&self) -> usize {
        self.learnt.load(Ordering::Relaxed) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there can be.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// How often a station was not learnt for want of room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How often a station has moved.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// The slots that an address may be in, in the order of every look: two buckets of them.
    #[inline]
    fn buckets(&self, mac: u64) -> [Range<usize>; 2] {
        let hash = mix(mac ^ self.seed);
        let buckets = self.entries.len() / WAYS;
        let first = hash as usize & (buckets - 1);
        // Never the same bucket twice: the distance is odd, and the number of buckets even.
        let second = (first + ((hash >> 32) as usize | 1)) & (buckets - 1);
        [first, second].map(|bucket| bucket * WAYS..(bucket + 1) * WAYS)
    }

    #[inline]
    fn slots(&self, mac: u64) -> impl Iterator<Item = usize> + use<> {
        let [first, second] = self.buckets(mac);
        first.chain(second)
    }

    /// The same, the emptier bucket first: so a table half full has room for all but surely.
    fn slots_to_take(&self, mac: u64) -> impl Iterator<Item = usize> + use<> {
        let taken = |bucket: &Range<usize>| {
            let entries = &self.entries[bucket.clone()];
            let taken = entries.iter();
            taken
                .filter(|entry| entry.load(Ordering::Relaxed) != 0)
                .count()
        };
        let [first, second] = self.buckets(mac);
        if taken(&second) < taken(&first) {
            second.chain(first)
        } else {
            first.chain(second)
        }
    }

    #[inline]
    fn look_up(&self, mac: u64) -> Option<(usize, Place)> {
        self.slots(mac).find_map(|slot| {
            let entry = self.entries[slot].load(Ordering::Acquire);
            (entry != 0 && entry >> 16 == mac).then(|| (slot, unpack_place(entry as u16)))
        })
    }

    /// A store a second, however many frames come.
    #[inline]
    fn touch(&self, slot: usize) {
        let now = self.now.load(Ordering::Relaxed);
        if self.heard[slot].load(Ordering::Relaxed) != now {
            self.heard[slot].store(now, Ordering::Relaxed);
        }
    }

    #[cold]
    fn relocate(&self, slot: usize, mac: u64, known: Place, place: Place) -> Learnt {
        let (Some(known), Some(place)) = (pack_place(known), pack_place(place)) else {
            return Learnt::Full;
        };
        let now = self.now.load(Ordering::Relaxed);
        let before = History::unpack(self.histories[slot].load(Ordering::Relaxed));
        let history = before.moved(known, now);
        if history != before && !self.write_history(slot, before, history) {
            // Another worker has heard of it as well; the next frame decides.
            return Learnt::Known;
        }
        let refused = history.is_held(now) && place != history.home;
        let to = if refused { history.home } else { place };
        let moved = to != known && self.place_at(slot, mac, known, to);
        match (refused, moved) {
            (true, _) => Learnt::Flapping,
            (false, true) => Learnt::Moved,
            // Another worker was faster.
            (false, false) => Learnt::Known,
        }
    }

    /// Writes a station's history, unless it is another by now.
    fn write_history(&self, slot: usize, before: History, history: History) -> bool {
        self.histories[slot]
            .compare_exchange(
                before.pack(),
                history.pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Gives a station another place, unless it has another by now.
    fn place_at(&self, slot: usize, mac: u64, known: u16, place: u16) -> bool {
        let [old, new] = [known, place].map(|place| pack_entry(mac, place));
        let moved = self.entries[slot]
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if moved {
            self.touch(slot);
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        moved
    }

    /// Makes a station at home where it is, if its home has gone.
    fn find_home(&self, slot: usize, gone: &impl Fn(Place) -> bool) {
        loop {
            let before = History::unpack(self.histories[slot].load(Ordering::Relaxed));
            let entry = self.entries[slot].load(Ordering::Acquire);
            if entry == 0 || entry == RESERVED || !gone(unpack_place(before.home)) {
                return;
            }
            let home = entry as u16;
            if self.write_history(slot, before, History { home, ..before }) {
                return;
            }
        }
    }

    #[cold]
    fn insert(&self, mac: u64, place: Place) -> Learnt {
        let Some(packed) = pack_place(place) else {
            return Learnt::Full;
        };
        if self.learnt.fetch_add(1, Ordering::Relaxed) >= self.limit {
            return self.refuse();
        }
        let taken = self.slots_to_take(mac).find(|slot| {
            let entry = &self.entries[*slot];
            entry.load(Ordering::Relaxed) == 0
                && entry
                    .compare_exchange(0, RESERVED, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        });
        let Some(slot) = taken else {
            return self.refuse();
        };
        let now = self.now.load(Ordering::Relaxed);
        let history = History::new(packed, now);
        self.histories[slot].store(history.pack(), Ordering::Relaxed);
        self.heard[slot].store(now, Ordering::Relaxed);
        // With it goes the history: no station has one of who was in its slot before.
        self.entries[slot].store(pack_entry(mac, packed), Ordering::Release);
        // Pairs with itself in another worker: one of the two sees the other's entry.
        fence(Ordering::SeqCst);
        self.keep_first(mac);
        Learnt::New
    }

    /// Of all entries of one address only the first stays.
    fn keep_first(&self, mac: u64) {
        let is_its = |entry: u64| entry != 0 && entry >> 16 == mac;
        let mut found = false;
        for slot in self.slots(mac) {
            let mut entry = self.entries[slot].load(Ordering::Acquire);
            while found && is_its(entry) {
                if self.take_out(slot, entry) {
                    break;
                }
                entry = self.entries[slot].load(Ordering::Acquire);
            }
            found |= is_its(entry);
        }
    }

    #[cold]
    fn refuse(&self) -> Learnt {
        self.learnt.fetch_sub(1, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
        Learnt::Full
    }

    fn remove(&self, gone: impl Fn(&Station) -> bool) -> usize {
        let removed = |slot: &usize| {
            self.station(*slot)
                .is_some_and(|(entry, station)| gone(&station) && self.take_out(*slot, entry))
        };
        (0..self.entries.len()).filter(removed).count()
    }

    /// Frees a slot if it still holds that entry.
    fn take_out(&self, slot: usize, entry: u64) -> bool {
        let freed = self.entries[slot]
            .compare_exchange(entry, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if freed {
            self.learnt.fetch_sub(1, Ordering::Relaxed);
        }
        freed
    }

    fn station(&self, slot: usize) -> Option<(u64, Station)> {
        let entry = self.entries[slot].load(Ordering::Acquire);
        if entry == 0 || entry == RESERVED {
            return None;
        }
        let history = History::unpack(self.histories[slot].load(Ordering::Relaxed));
        let heard = self.heard[slot].load(Ordering::Relaxed);
        let now = self.now.load(Ordering::Relaxed);
        let [_, _, mac @ ..] = (entry >> 16).to_be_bytes();
        let station = Station {
            mac: MacAddr(mac),
            place: unpack_place(entry as u16),
            age: now.saturating_sub(heard),
            flapping: history.is_held(now),
        };
        Some((entry, station))
    }
}

/// How a station has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct History {
    /// Where it stayed before it began to move.
    home: u16,
    /// When it moved last, or was learnt.
    moved: u32,
    /// Seconds from the first of the moves that are counted together to the last.
    span: u8,
    /// How many these are.
    moves: u8,
}

impl History {
    const fn new(home: u16, now: u32) -> Self {
        Self {
            home,
            moved: now,
            span: 0,
            moves: 0,
        }
    }

    /// What follows when it leaves a place. What is held on to does not move.
    fn moved(self, from: u16, now: u32) -> Self {
        if self.is_held(now) {
            return self;
        }
        // Another worker's clock may be a second ahead.
        let stayed = now.saturating_sub(self.moved);
        let span = stayed.saturating_add(self.span.into());
        let (span, moves) = match self.moves {
            1..FLAP_MOVES if span < FLAP_WINDOW => (span as u8, self.moves + 1),
            _ => (0, 1),
        };
        Self {
            home: if stayed < FLAP_WINDOW {
                self.home
            } else {
                from
            },
            moved: now,
            span,
            moves,
        }
    }

    /// Whether it has moved too often lately. The hold begins with the move that is one too many.
    const fn is_held(self, now: u32) -> bool {
        self.moves >= FLAP_MOVES && now.saturating_sub(self.moved) < FLAP_HOLD
    }

    fn pack(self) -> u64 {
        let (home, moved) = (u64::from(self.home), u64::from(self.moved));
        let [span, moves] = [self.span, self.moves].map(u64::from);
        home << 48 | moved << 16 | span << 8 | moves
    }

    const fn unpack(word: u64) -> Self {
        Self {
            home: (word >> 48) as u16,
            moved: (word >> 16) as u32,
            span: (word >> 8) as u8,
            moves: word as u8,
        }
    }
}

/// The entry of a slot that is being filled: that of a group, which is never looked for.
const RESERVED: u64 = u64::MAX;

const REMOTE: u16 = RemoteId::COUNT;

fn pack_entry(mac: u64, place: u16) -> u64 {
    mac << 16 | u64::from(place)
}

fn pack_place(place: Place) -> Option<u16> {
    match place {
        Place::Port(PortId(port)) => (port < REMOTE).then_some(port),
        Place::Remote(RemoteId(remote)) => Some(REMOTE | remote),
    }
}

#[inline]
fn unpack_place(packed: u16) -> Place {
    let number = packed & (REMOTE - 1);
    if packed & REMOTE == 0 {
        Place::Port(PortId(number))
    } else {
        Place::Remote(RemoteId(number))
    }
}

#[inline]
fn number(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Spreads every bit over all others (the finalizer of splitmix64).
#[inline]
const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}
