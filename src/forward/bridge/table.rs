//! Where stations are: the table that a bridge learns, one for all workers, without a lock.
//!
//! ```text
//!  entry    | Ethernet address (48 bits) | R | port or remote (15 bits) |   0: free
//!  history  | last heard of (32 bits, s) | moves counted since (24 bits, s) | moves (8 bits) |
//! ```
//!
//! A station and its place are one word, so a reader never sees one station with another's place.
//! An address has two buckets to be in; a free slot of either takes it. Two workers that learn one
//! address at the same time may take two slots; each looks again afterwards, and the slot that comes
//! first in the order of the look stays. Removing is done by the control side alone. It may hit an
//! entry that is heard of at that very moment, which the next frame brings back.

use std::ops::Range;

use super::sync::{AtomicU32, AtomicU64, Ordering, WAYS, fence};
use super::{MacAddr, PortId};

/// Moves within [`FLAP_WINDOW`] after which a station's place is held on to.
pub const FLAP_MOVES: u8 = 5;

/// Seconds within which moves are counted together.
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
    /// It is elsewhere, and has moved too often lately to be believed.
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

    /// Forgets all stations at such a place; how many.
    pub fn forget(&self, gone: impl Fn(Place) -> bool) -> usize {
        self.remove(|station| gone(station.place))
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
            (entry != 0 && entry >> 16 == mac).then(|| (slot, unpack_place(entry)))
        })
    }

    /// A store a second, however many frames come.
    #[inline]
    fn touch(&self, slot: usize) {
        let now = self.now.load(Ordering::Relaxed);
        let history = self.histories[slot].load(Ordering::Relaxed);
        if (history >> 32) as u32 != now {
            let heard = u64::from(now) << 32 | history & 0xffff_ffff;
            // If somebody else changes it now, it is as new as this.
            let _ = self.histories[slot].compare_exchange(
                history,
                heard,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    #[cold]
    fn relocate(&self, slot: usize, mac: u64, known: Place, place: Place) -> Learnt {
        let now = self.now.load(Ordering::Relaxed);
        let history = self.histories[slot].load(Ordering::Relaxed);
        let Some(next) = moved(history, now) else {
            return Learnt::Flapping;
        };
        let Some(packed) = pack_place(place) else {
            return Learnt::Full;
        };
        let old = mac << 16 | pack_place(known).unwrap_or(0);
        let entry = &self.entries[slot];
        let swapped =
            entry.compare_exchange(old, mac << 16 | packed, Ordering::AcqRel, Ordering::Relaxed);
        if swapped.is_err() {
            // Another worker has heard of it as well; the next frame decides.
            return Learnt::Known;
        }
        self.histories[slot].store(next, Ordering::Relaxed);
        self.moved.fetch_add(1, Ordering::Relaxed);
        Learnt::Moved
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
                    .compare_exchange(0, mac << 16 | packed, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        });
        let Some(slot) = taken else {
            return self.refuse();
        };
        let now = self.now.load(Ordering::Relaxed);
        self.histories[slot].store(u64::from(now) << 32, Ordering::Relaxed);
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
        if entry == 0 {
            return None;
        }
        let history = self.histories[slot].load(Ordering::Relaxed);
        let now = self.now.load(Ordering::Relaxed);
        let [_, _, mac @ ..] = (entry >> 16).to_be_bytes();
        let station = Station {
            mac: MacAddr(mac),
            place: unpack_place(entry),
            age: now.saturating_sub((history >> 32) as u32),
            flapping: moved(history, now).is_none(),
        };
        Some((entry, station))
    }
}

/// The history of a station that moves now; none if it has moved too often.
fn moved(history: u64, now: u32) -> Option<u64> {
    const SECONDS: u32 = 0x00ff_ffff;
    let (since, moves) = ((history >> 8) as u32 & SECONDS, history as u8);
    let passed = now.wrapping_sub(since) & SECONDS;
    let (since, moves) = match moves {
        FLAP_MOVES.. if passed < FLAP_HOLD => return None,
        1..FLAP_MOVES if passed < FLAP_WINDOW => (since, moves + 1),
        _ => (now & SECONDS, 1),
    };
    // The hold begins with the move that is one too many.
    let since = if moves == FLAP_MOVES {
        now & SECONDS
    } else {
        since
    };
    Some(u64::from(now) << 32 | u64::from(since) << 8 | u64::from(moves))
}

const REMOTE: u64 = 1 << 15;

fn pack_place(place: Place) -> Option<u64> {
    match place {
        Place::Port(PortId(port)) => (u64::from(port) < REMOTE).then_some(u64::from(port)),
        Place::Remote(RemoteId(remote)) => Some(REMOTE | u64::from(remote)),
    }
}

#[inline]
fn unpack_place(entry: u64) -> Place {
    let number = (entry & (REMOTE - 1)) as u16;
    if entry & REMOTE == 0 {
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
