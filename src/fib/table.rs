//! The readers' side of one family's table.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use zerocopy::FromZeros;

use super::blocks::Blocks;
use super::{Entry, NextHop};

/// Address bits that index the first level.
pub(super) const FIRST_LEVEL_BITS: u8 = 24;
/// Address bits that index a block.
pub(super) const STRIDE: u8 = 8;
const FIRST_LEVEL: usize = 1 << FIRST_LEVEL_BITS;
/// Look-ups whose loads are in flight together; more than a core has miss buffers for.
const GROUP: usize = 32;

/// 2²⁴ entries, the blocks behind them, and the default route beside them.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) first_level: Box<[AtomicU32; FIRST_LEVEL]>,
    pub(super) blocks: Blocks,
    /// The answer where the table has none: a default route fills this, and not 64 MiB.
    pub(super) default: AtomicU32,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            first_level: <[AtomicU32; FIRST_LEVEL]>::new_box_zeroed()
                .unwrap_or_else(|_| panic!("fib: out of memory: 64 MiB for a first level")),
            blocks: Blocks::new(),
            default: AtomicU32::new(0),
        }
    }

    // Memory order. The writer publishes every entry by a releasing store. A reader loads an
    // entry with Acquire (or Relaxed, and an acquire fence before it uses what it loaded), so
    // - the content of a block (filled before its number was published) is visible to whoever
    //   read its number, as is the chunk that it lies in;
    // - what the writer's thread did before an insert is visible to whoever got its next hop.
    // No order between entries is needed: a look-up's answer is decided by the last entry that it
    // reads, and each update changes an address's answer by one store to one entry.

    #[inline]
    pub(super) fn lookup_v4(&self, address: Ipv4Addr) -> Entry {
        let address = address.to_bits();
        let mut entry = self.first(address >> 8, Ordering::Acquire);
        if entry.is_block() {
            entry = self.second(entry, address, Ordering::Acquire);
        }
        self.or_default(entry)
    }

    #[inline]
    pub(super) fn lookup_v6(&self, address: Ipv6Addr) -> Entry {
        let bytes = address.octets();
        let mut entry = self.first(first_24(&bytes), Ordering::Acquire);
        let mut level = 0;
        while entry.is_block() {
            (entry, level) = self.step(entry, &bytes, level, Ordering::Acquire);
        }
        self.or_default(entry)
    }

    pub(super) fn lookup_v4_batch(&self, from: &[Ipv4Addr], to: &mut [Option<NextHop>]) {
        for (from, to) in from.chunks(GROUP).zip(to.chunks_mut(GROUP)) {
            self.lookup_v4_group(from, to);
        }
    }

    pub(super) fn lookup_v6_batch(&self, from: &[Ipv6Addr], to: &mut [Option<NextHop>]) {
        for (from, to) in from.chunks(GROUP).zip(to.chunks_mut(GROUP)) {
            self.lookup_v6_group(from, to);
        }
    }

    /// The first-level loads of a group, then the second-level ones of those that need it. Within
    /// a level the loads are relaxed and do not wait for each other on any processor.
    #[inline]
    fn lookup_v4_group(&self, from: &[Ipv4Addr], to: &mut [Option<NextHop>]) {
        let mut entries = [Entry::NONE; GROUP];
        let mut blocks = false;
        for (entry, address) in entries.iter_mut().zip(from) {
            *entry = self.first(address.to_bits() >> 8, Ordering::Relaxed);
            blocks |= entry.is_block();
        }
        fence(Ordering::Acquire);
        if blocks {
            for (entry, address) in entries.iter_mut().zip(from) {
                if entry.is_block() {
                    *entry = self.second(*entry, address.to_bits(), Ordering::Relaxed);
                }
            }
            fence(Ordering::Acquire);
        }
        self.answer(&entries[..from.len()], to);
    }

    #[inline]
    fn lookup_v6_group(&self, from: &[Ipv6Addr], to: &mut [Option<NextHop>]) {
        let mut states = [(Entry::NONE, 0); GROUP];
        let mut blocks = false;
        for ((entry, _), address) in states.iter_mut().zip(from) {
            *entry = self.first(first_24(&address.octets()), Ordering::Relaxed);
            blocks |= entry.is_block();
        }
        fence(Ordering::Acquire);
        while blocks {
            blocks = false;
            for (state, address) in states.iter_mut().zip(from) {
                if state.0.is_block() {
                    *state = self.step(state.0, &address.octets(), state.1, Ordering::Relaxed);
                    blocks |= state.0.is_block();
                }
            }
            fence(Ordering::Acquire);
        }
        self.answer(&states.map(|(entry, _)| entry)[..from.len()], to);
    }

    #[inline]
    fn answer(&self, entries: &[Entry], to: &mut [Option<NextHop>]) {
        for (entry, answer) in entries.iter().zip(to) {
            *answer = self.or_default(*entry).next_hop();
        }
    }

    #[inline]
    fn first(&self, index: u32, order: Ordering) -> Entry {
        Entry(self.first_level[index as usize & (FIRST_LEVEL - 1)].load(order))
    }

    /// The entry of an IPv4 address in its block. A block of this family has no level before it
    /// that was passed over.
    #[inline]
    fn second(&self, entry: Entry, address: u32, order: Ordering) -> Entry {
        match self.blocks.get(entry.number()) {
            Some(block) => Entry(block.entries[address as usize & 0xff].load(order)),
            None => Entry::NONE,
        }
    }

    /// One level on: the entry that the address has in the block that `entry` names, and the level
    /// that follows. `level` is the one that follows the table or block that `entry` was read from.
    #[inline]
    fn step(&self, entry: Entry, bytes: &[u8; 16], level: u8, order: Ordering) -> (Entry, u8) {
        let Some(block) = self.blocks.get(entry.number()) else {
            return (Entry::NONE, level);
        };
        let at = entry.level();
        if at != level && !matches(u128::from_be_bytes(*bytes), block.key(), bit_of_level(at)) {
            return (Entry(block.fallback.load(order)), level);
        }
        let byte = bytes[(usize::from(at) + 3) & 15];
        (Entry(block.entries[usize::from(byte)].load(order)), at + 1)
    }

    #[inline]
    fn or_default(&self, entry: Entry) -> Entry {
        if entry.is_none() {
            Entry(self.default.load(Ordering::Acquire))
        } else {
            entry
        }
    }

    pub(super) fn first_level_range(&self) -> (usize, usize) {
        let start = std::ptr::from_ref(&*self.first_level).addr();
        (start, size_of_val(&*self.first_level))
    }
}

/// The first address bit that a block of this level decides on.
#[inline]
pub(super) const fn bit_of_level(level: u8) -> u8 {
    FIRST_LEVEL_BITS + STRIDE * level
}

/// Whether the first `bits` (1 to 127) of both are equal.
#[inline]
fn matches(one: u128, other: u128, bits: u8) -> bool {
    (one ^ other) >> (128 - u32::from(bits)) == 0
}

#[inline]
fn first_24(bytes: &[u8; 16]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}
