//! Changes to one family's table, in place.
//!
//! Prefixes and addresses are left-aligned in 128 bits here, for both families: an IPv4 prefix is
//! one of at most 32 bits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use super::blocks::Block;
use super::direct::Direct;
use super::table::{FIRST_LEVEL_BITS, STRIDE, Table, bit_of_level, load};
use super::{Entry, Grace, NextHop};

/// A prefix: its bits, left-aligned, those after the first `length` zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefix {
    pub(super) bits: u128,
    pub(super) length: u8,
}

/// What the writer knows of the blocks and readers need not.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Per block number: what it is needed for.
    uses: Vec<Uses>,
    free: Vec<u32>,
    /// Taken out of the table by the update at work.
    unlinked: Vec<u32>,
    /// Taken out of the table earlier, with the ticket after which they may be used again.
    waiting: VecDeque<(u64, u32)>,
}

/// A block with neither prefixes nor children is not needed; one with a single child and no prefix
/// is passed over.
#[derive(Debug, Clone, Copy, Default)]
struct Uses {
    prefixes: u16,
    children: u16,
}

/// The place of an entry.
#[derive(Debug, Clone, Copy)]
struct Slot<'a> {
    slot: &'a AtomicU32,
    /// The level of a block that nothing is skipped for.
    next_level: u8,
}

/// One update of a table.
pub(super) struct Update<'a> {
    pub(super) table: &'a Table,
    /// What follows from the table, in IPv4.
    pub(super) direct: Option<&'a Direct>,
    pub(super) pool: &'a mut Pool,
    pub(super) grace: &'a dyn Grace,
}

impl<'a> Update<'a> {
    /// Whether there are blocks enough for any one insert: it takes at most three, one where paths
    /// part, one to move what was there, and one for the prefix.
    pub(super) fn has_room(&mut self) -> bool {
        const MOST: u32 = 3;
        if self.pool.next_number() <= Entry::BLOCK_LIMIT - MOST {
            return true;
        }
        self.pool.reclaim(self.grace);
        self.pool.free.len() >= MOST as usize
    }

    /// Adds a prefix, or gives one that is there another next hop.
    pub(super) fn insert(&mut self, prefix: Prefix, next_hop: NextHop, is_new: bool) {
        let leaf = Entry::leaf(prefix.length, next_hop);
        if prefix.length == 0 {
            self.set_default(Entry::leaf(1, next_hop));
        } else if let Some(level) = level_of(prefix.length) {
            let number = self.block_for(prefix.bits, level);
            self.pool.uses_mut(number).prefixes += u16::from(is_new);
            overlay_all(self.table, block_slots(self.block(number), prefix), leaf);
        } else {
            overlay_all(self.table, first_level_slots(self.table, prefix), leaf);
        }
        self.finish(prefix);
    }

    /// Takes a prefix out. `covering` is the longest other prefix that covers it.
    pub(super) fn remove(&mut self, prefix: Prefix, covering: Option<(u8, NextHop)>) {
        let leaf = match covering {
            Some((length, next_hop)) if length > 0 => Entry::leaf(length, next_hop),
            _ => Entry::NONE,
        };
        if prefix.length == 0 {
            self.set_default(Entry::NONE);
        } else if let Some(level) = level_of(prefix.length) {
            let path = path_to(self.table, prefix.bits, level);
            if let Some(&(_, number)) = path.last() {
                let slots = block_slots(self.block(number), prefix);
                restore_all(self.table, slots, prefix.length, leaf);
                self.pool.uses_mut(number).prefixes -= 1;
                self.compact(&path);
            }
        } else {
            let slots = first_level_slots(self.table, prefix);
            restore_all(self.table, slots, prefix.length, leaf);
        }
        self.finish(prefix);
    }

    /// Has the direct answers follow the table, and then lets go of the blocks that were taken out of it:
    /// none of the answers leads to one any more. A block that moved need not be within the prefix.
    fn finish(&mut self, prefix: Prefix) {
        if let Some(direct) = self.direct
            && prefix.length > 0
        {
            direct.follow(self.table, prefix);
            for &number in &self.pool.unlinked {
                let bits = self.block(number).key();
                direct.follow(self.table, Prefix { bits, length: 24 });
            }
        }
        self.pool.retire(self.grace);
    }

    fn set_default(&self, leaf: Entry) {
        self.table.default.store(leaf.0, Ordering::Release);
    }

    /// The block at `level` on the way of `bits`, put there if it is missing.
    fn block_for(&mut self, bits: u128, level: u8) -> u32 {
        let mut at = Slot::first(self.table, bits);
        let mut parent = None;
        loop {
            let entry = load(at.slot);
            if !entry.is_block() {
                self.add_child(parent);
                return self.put_leaf_block(at, entry, bits, level);
            }
            let number = entry.number();
            let common = common_level(bits, self.block(number).key()).min(level);
            if common < entry.level() {
                // The way parts from the block's, or ends, before the block.
                let between = self.put_block_before(at, entry, common);
                if common == level {
                    return between;
                }
            } else if entry.level() == level {
                return number;
            } else {
                parent = Some(number);
                at = Slot::below(self.table, entry, bits);
            }
        }
    }

    /// Puts a block where a leaf was; every address still resolves to that leaf.
    fn put_leaf_block(&mut self, at: Slot, leaf: Entry, bits: u128, level: u8) -> u32 {
        let number = self.pool.take(self.grace);
        let key = first_bits(bits, bit_of_level(level));
        self.block(number).fill(key, leaf);
        publish(at.slot, Entry::block(at.next_level, level, number));
        number
    }

    /// Puts a block in front of the one that `below` names; every address still resolves as before.
    ///
    /// The one below moves down, so a copy of it does. A reader that still comes from above it may
    /// yet need its fallback as it is; the one at the new place may change with prefixes that do
    /// not cover all that this reader asks for. (A block that moves up in [`Self::compact`] has no
    /// such trouble: its fallback changes with prefixes that cover all it ever stood for.)
    fn put_block_before(&mut self, at: Slot, below: Entry, level: u8) -> u32 {
        let (key, leaf) = {
            let block = self.block(below.number());
            (block.key(), load(block.fallback))
        };
        let moved = self.copy_block(below.number());
        let moved = Entry::block(level + 1, below.level(), moved);
        let number = self.pool.take(self.grace);
        let block = self.block(number);
        block.fill(first_bits(key, bit_of_level(level)), leaf);
        // Relaxed, as all of the fill: the store that publishes the block comes after.
        block.entries[byte(key, level)].store(moved.0, Ordering::Relaxed);
        self.pool.uses_mut(number).children = 1;
        publish(at.slot, Entry::block(at.next_level, level, number));
        self.pool.unlinked.push(below.number());
        number
    }

    fn copy_block(&mut self, from: u32) -> u32 {
        let number = self.pool.take(self.grace);
        *self.pool.uses_mut(number) = *self.pool.uses_mut(from);
        self.block(number).copy(self.block(from));
        number
    }

    fn add_child(&mut self, parent: Option<u32>) {
        if let Some(parent) = parent {
            self.pool.uses_mut(parent).children += 1;
        }
    }

    /// Takes out what the last removal left without use, from the end of the way up.
    fn compact(&mut self, path: &[(Slot<'a>, u32)]) {
        for (depth, &(at, number)) in path.iter().enumerate().rev() {
            let block = self.block(number);
            let uses = *self.pool.uses_mut(number);
            let heir = match (uses.prefixes, uses.children) {
                (0, 0) => Some(load(block.fallback)),
                (0, 1) => block.entries.iter().map(load).find(|e| e.is_block()),
                _ => None,
            };
            let Some(heir) = heir else { break };
            self.pool.unlinked.push(number);
            if heir.is_block() {
                let heir = Entry::block(at.next_level, heir.level(), heir.number());
                publish(at.slot, heir);
                break;
            }
            publish(at.slot, heir);
            if let Some(&(_, parent)) = depth.checked_sub(1).and_then(|above| path.get(above)) {
                self.pool.uses_mut(parent).children -= 1;
            }
        }
    }

    fn block(&self, number: u32) -> Block<'a> {
        self.table.blocks.get_or_allocate(number)
    }
}

impl Pool {
    /// Blocks in the table.
    pub(super) fn in_use(&self) -> usize {
        self.uses.len() - self.free.len() - self.waiting.len()
    }

    /// Blocks that were taken out and wait for readers.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Blocks that no reader can reach.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    fn next_number(&self) -> u32 {
        // Never truncated: numbers end before 2²².
        self.uses.len() as u32
    }

    fn uses_mut(&mut self, number: u32) -> &mut Uses {
        &mut self.uses[number as usize]
    }

    /// A block that no reader can reach.
    fn take(&mut self, grace: &dyn Grace) -> u32 {
        if self.free.is_empty() {
            self.reclaim(grace);
        }
        if let Some(number) = self.free.pop() {
            *self.uses_mut(number) = Uses::default();
            return number;
        }
        let number = self.next_number();
        self.uses.push(Uses::default());
        number
    }

    /// What was unlinked waits for the readers of this moment.
    fn retire(&mut self, grace: &dyn Grace) {
        if !self.unlinked.is_empty() {
            let ticket = grace.start();
            let unlinked = self.unlinked.drain(..);
            self.waiting.extend(unlinked.map(|number| (ticket, number)));
        }
    }

    fn reclaim(&mut self, grace: &dyn Grace) {
        let mut passed = None;
        while let Some(&(ticket, number)) = self.waiting.front() {
            if passed != Some(ticket) && !grace.passed(ticket) {
                break;
            }
            passed = Some(ticket);
            self.free.push(number);
            self.waiting.pop_front();
        }
    }
}

impl<'a> Slot<'a> {
    fn first(table: &'a Table, bits: u128) -> Self {
        Self {
            slot: &table.first_level[(bits >> (128 - FIRST_LEVEL_BITS)) as usize],
            next_level: 0,
        }
    }

    /// Where `bits` lead to in the block that `entry` names.
    fn below(table: &'a Table, entry: Entry, bits: u128) -> Self {
        let block = table.blocks.get_or_allocate(entry.number());
        Self {
            slot: &block.entries[byte(bits, entry.level())],
            next_level: entry.level() + 1,
        }
    }
}

/// Gives the leaf to every slot whose owner is no longer than it, blocks included.
fn overlay_all(table: &Table, slots: &[AtomicU32], leaf: Entry) {
    rewrite_all(table, slots, leaf, &|owner| owner <= leaf.length());
}

/// Gives the leaf to every slot that the prefix of `length` owns, blocks included.
fn restore_all(table: &Table, slots: &[AtomicU32], length: u8, leaf: Entry) {
    rewrite_all(table, slots, leaf, &|owner| owner == length);
}

fn rewrite_all(table: &Table, slots: &[AtomicU32], leaf: Entry, yields: &dyn Fn(u8) -> bool) {
    for slot in slots {
        let entry = load(slot);
        if entry.is_block() {
            let block = table.blocks.get_or_allocate(entry.number());
            // Where the fallback does not yield, a longer prefix covers the whole block.
            if yields(load(block.fallback).length()) {
                publish(block.fallback, leaf);
                rewrite_all(table, block.entries, leaf, yields);
            }
        } else if yields(entry.length()) {
            publish(slot, leaf);
        }
    }
}

/// The slots and numbers of the blocks on the way of `bits` down to the one at `level`, which is
/// there; empty if it is not.
fn path_to(table: &Table, bits: u128, level: u8) -> Vec<(Slot<'_>, u32)> {
    let mut path = Vec::new();
    let mut at = Slot::first(table, bits);
    loop {
        let entry = load(at.slot);
        if !entry.is_block() || entry.level() > level {
            return Vec::new();
        }
        path.push((at, entry.number()));
        if entry.level() == level {
            return path;
        }
        at = Slot::below(table, entry, bits);
    }
}

/// Release: whoever acquires this entry sees what was written before, a block's content above all.
fn publish(slot: &AtomicU32, entry: Entry) {
    slot.store(entry.0, Ordering::Release);
}

fn first_level_slots(table: &Table, prefix: Prefix) -> &[AtomicU32] {
    let start = (prefix.bits >> (128 - FIRST_LEVEL_BITS)) as usize;
    &table.first_level[start..][..1 << (FIRST_LEVEL_BITS - prefix.length)]
}

/// The slots of a prefix in the block of its last level.
fn block_slots(block: Block<'_>, prefix: Prefix) -> &[AtomicU32] {
    let used = (prefix.length - 1) % STRIDE + 1;
    let level = (prefix.length - 1 - FIRST_LEVEL_BITS) / STRIDE;
    &block.entries[byte(prefix.bits, level)..][..1 << (STRIDE - used)]
}

/// The level of the block in which a prefix of this length ends; none if that is the first level
/// of the table.
fn level_of(length: u8) -> Option<u8> {
    let beyond = length.checked_sub(FIRST_LEVEL_BITS + 1)?;
    Some(beyond / STRIDE)
}

/// The lowest level at which two addresses part, given that their first 16 bits are equal.
fn common_level(one: u128, other: u128) -> u8 {
    let bits = (one ^ other).leading_zeros() as u8;
    bits.saturating_sub(FIRST_LEVEL_BITS) / STRIDE
}

fn first_bits(bits: u128, count: u8) -> u128 {
    bits & !(u128::MAX >> count)
}

/// The address bits that index a block of this level.
fn byte(bits: u128, level: u8) -> usize {
    (bits >> (128 - STRIDE - bit_of_level(level))) as usize & 0xff
}
