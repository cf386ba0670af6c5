//! The readers' side of one family's table.

use std::hint::select_unpredictable;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::address::Address;
use super::blocks::{Blocks, Chunk, HOME_BITS};
use super::pages::zeroed;
use super::{Answer, Entry};

/// Address bits that index the first level.
pub(super) const FIRST_LEVEL_BITS: u8 = 16;
/// Address bits that index a block.
pub(super) const STRIDE: u8 = 8;
const FIRST_LEVEL: usize = 1 << FIRST_LEVEL_BITS;
/// Look-ups whose loads are in flight together; more than a core has miss buffers for.
const GROUP: usize = 32;

/// 2¹⁶ entries, the blocks behind them, and the default route beside them.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) first_level: Box<[AtomicU32; FIRST_LEVEL]>,
    pub(super) blocks: Blocks,
    /// The answer where the table has none: a default route fills this, and not the first level.
    pub(super) default: AtomicU32,
}

// Memory order. The writer publishes every entry by a releasing store. A reader loads an entry with
// Acquire (or Relaxed, and an acquire fence before it uses what it loaded), so
// - the content of a block (filled before its number was published) is visible to whoever read its
//   number, as is the chunk that it lies in;
// - what the writer's thread did before an insert is visible to whoever got its next hop.
// No order between entries is needed: a look-up's answer is decided by the last entry that it
// reads, and each update changes an address's answer by one store to one entry.
impl Table {
    pub(super) fn new() -> Self {
        Self {
            first_level: zeroed("a first level"),
            blocks: Blocks::new(),
            default: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(super) fn look_up<A: Address>(&self, address: A) -> Answer {
        self.find(address).answer().or(self.default())
    }

    /// The leaf of an address, of which the default route is none.
    #[inline]
    pub(super) fn find<A: Address>(&self, address: A) -> Entry {
        self.finish(self.first(address, Ordering::Acquire), address)
    }

    /// The default route's answer.
    #[inline]
    pub(super) fn default(&self) -> Answer {
        Entry(self.default.load(Ordering::Acquire)).answer()
    }

    /// Answers as many as the shorter slice holds.
    #[inline]
    pub(super) fn look_up_batch<A: Address>(&self, from: &[A], to: &mut [Answer]) {
        for (from, to) in from.chunks(GROUP).zip(to.chunks_mut(GROUP)) {
            self.look_up_group(from, to);
        }
    }

    /// The first-level loads of a group, then the next level's, and so on while any needs one.
    ///
    /// What a core overlaps is what fits into its reorder buffer: the loops are short. Within a
    /// level no load waits for another: not by its memory order, not for a branch on what was
    /// loaded (where a look-up ends is often unpredictable), not for a store whose place depends on
    /// it. So a look-up that has its answer goes through the levels with the others: it reads a
    /// place that is always at hand, and keeps its answer.
    #[inline]
    fn look_up_group<A: Address>(&self, from: &[A], to: &mut [Answer]) {
        let mut entries = [Entry::NONE; GROUP];
        for (entry, &address) in entries.iter_mut().zip(from) {
            *entry = self.first(address, Ordering::Relaxed);
        }
        fence(Ordering::Acquire);
        if let Some(home) = self.blocks.home() {
            // A look-up that is left at this level has passed over none: finish() takes those.
            for level in 0..A::LEVELS {
                if !self.next_level(home, level, &mut entries, from) {
                    break;
                }
            }
        }
        let default = self.default();
        for ((&entry, _), answer) in entries.iter().zip(from).zip(to) {
            *answer = entry.answer().or(default);
        }
    }

    /// One level on, for those of a group that need it; whether any then needs another.
    #[inline]
    fn next_level<A: Address>(
        &self,
        home: &Chunk,
        level: u8,
        entries: &mut [Entry; GROUP],
        from: &[A],
    ) -> bool {
        let mut all = 0;
        for (entry, &address) in entries.iter_mut().zip(from) {
            let block = entry.block_or_first();
            let next = if block.is_near(HOME_BITS) {
                let place = home.entry(block.number(), address.byte_of_level(level));
                Entry(place.load(Ordering::Relaxed))
            } else {
                self.finish(block, address)
            };
            *entry = select_unpredictable(entry.is_block(), next, *entry);
            all |= entry.0;
        }
        fence(Ordering::Acquire);
        Entry(all).is_block()
    }

    #[inline]
    fn first<A: Address>(&self, address: A, order: Ordering) -> Entry {
        Entry(self.first_level[usize::from(address.first_16())].load(order))
    }

    /// The leaf that an entry of an address leads to, by any blocks.
    #[inline]
    fn finish<A: Address>(&self, mut entry: Entry, address: A) -> Entry {
        while entry.is_block() {
            let Some(block) = self.blocks.get(entry.number()) else {
                return Entry::NONE;
            };
            let level = entry.level();
            entry = if entry.skips() && !address.starts_as(block.key(), bit_of_level(level)) {
                Entry(block.fallback.load(Ordering::Acquire))
            } else {
                let byte = address.byte_of_level(level);
                Entry(block.entries[usize::from(byte)].load(Ordering::Acquire))
            };
        }
        entry
    }
}

/// The writer's own view of a slot: nobody else stores to it.
pub(super) fn load(slot: &AtomicU32) -> Entry {
    Entry(slot.load(Ordering::Relaxed))
}

/// The first address bit that a block of this level decides on.
#[inline]
pub(super) const fn bit_of_level(level: u8) -> u8 {
    FIRST_LEVEL_BITS + STRIDE * level
}
