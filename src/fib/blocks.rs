//! Blocks of 256 entries, by number, in storage that grows without moving.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use zerocopy::FromZeros;

use super::entry::Entry;
use super::pages::{zeroed, zeroed_in_huge_pages};

/// Entries of a block: one for each value of the 8 address bits that its level decides on.
const ENTRIES: usize = 256;
/// Blocks of a chunk: 66 MiB of address space, of which the kernel gives memory, zeroed, to the
/// pages that were written to.
const CHUNK: usize = 1 << HOME_BITS;
const CHUNKS: usize = Entry::BLOCK_LIMIT as usize / CHUNK;
/// Blocks with numbers of no more bits are in the first chunk, the home, which most tables never
/// outgrow: a full Internet table fills four tenths of it.
pub(super) const HOME_BITS: u32 = 16;

/// Blocks by number, in chunks that are allocated when their first block is.
#[derive(Debug)]
pub(super) struct Blocks {
    chunks: [OnceLock<Chunk>; CHUNKS],
}

/// Entries and heads are apart so that an entry's place is the block's number and a byte, side by
/// side.
#[derive(Debug)]
pub(super) struct Chunk {
    entries: Box<[AtomicU32; CHUNK * ENTRIES]>,
    heads: Box<[Head; CHUNK]>,
}

/// What a block needs beside its entries if it was reached past levels at which there was nothing
/// to decide: an address that differs from the key in a bit before the block's own gets the
/// fallback, which is the leaf that would be in the block's place. The key is written before the
/// block is published and stays until it is reused.
#[derive(Debug, FromZeros)]
#[repr(C)]
struct Head {
    key: [AtomicU32; 4],
    fallback: AtomicU32,
}

/// One block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) entries: &'a [AtomicU32; ENTRIES],
    pub(super) fallback: &'a AtomicU32,
    key: &'a [AtomicU32; 4],
}

impl Blocks {
    pub(super) const fn new() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
        }
    }

    /// The first chunk; none if there was never a block.
    #[inline]
    pub(super) fn home(&self) -> Option<&Chunk> {
        self.chunks[0].get()
    }

    /// The block of this number, if its chunk was allocated: always, for a number that was read
    /// from a table.
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<Block<'_>> {
        let number = number as usize;
        let chunk = self.chunks[number / CHUNK % CHUNKS].get()?;
        Some(chunk.block(number % CHUNK))
    }

    /// The block of this number; its chunk is allocated if it is the first of it.
    pub(super) fn get_or_allocate(&self, number: u32) -> Block<'_> {
        let number = number as usize;
        let chunk = self.chunks[number / CHUNK % CHUNKS].get_or_init(Chunk::new);
        chunk.block(number % CHUNK)
    }
}

impl Chunk {
    fn new() -> Self {
        Self {
            entries: zeroed_in_huge_pages("blocks"),
            heads: zeroed("heads of blocks"),
        }
    }

    /// The entry of a block; the number's bits from [`HOME_BITS`] on are ignored.
    #[inline]
    pub(super) fn entry(&self, number: u32, byte: u8) -> &AtomicU32 {
        let place = number as usize * ENTRIES + usize::from(byte);
        &self.entries[place % (CHUNK * ENTRIES)]
    }

    #[inline]
    fn block(&self, offset: usize) -> Block<'_> {
        let head = &self.heads[offset];
        let (blocks, _) = self.entries.as_chunks();
        Block {
            entries: &blocks[offset],
            fallback: &head.fallback,
            key: &head.key,
        }
    }
}

impl Block<'_> {
    /// The address bits that lead to this block, left-aligned, the others zero.
    #[inline]
    pub(super) fn key(&self) -> u128 {
        self.key.iter().fold(0, |key, word| {
            // Relaxed: whoever knows the block's number by an acquiring load sees what was written
            // before the number was published.
            key << 32 | u128::from(word.load(Ordering::Relaxed))
        })
    }

    /// Gives a block that no reader can reach its content: the same leaf everywhere.
    pub(super) fn fill(&self, key: u128, leaf: Entry) {
        // Relaxed: the releasing store that publishes the number comes after.
        for (word, shift) in self.key.iter().zip([96, 64, 32, 0]) {
            word.store((key >> shift) as u32, Ordering::Relaxed);
        }
        self.fallback.store(leaf.0, Ordering::Relaxed);
        for entry in self.entries {
            entry.store(leaf.0, Ordering::Relaxed);
        }
    }

    /// Gives a block that no reader can reach another one's content.
    pub(super) fn copy(&self, from: Self) {
        // Relaxed: as in fill; and nobody but the writer stores to the other one.
        for (to, from) in self.words().zip(from.words()) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn words(&self) -> impl Iterator<Item = &AtomicU32> {
        let entries = self.entries.iter();
        entries.chain([self.fallback]).chain(self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_survives() {
        let blocks = Blocks::new();
        let block = blocks.get_or_allocate(0);
        let key = 0x2001_0db8_1234_5678_9abc_def0_1122_3300;
        block.fill(key, Entry(7));
        assert_eq!(block.key(), key);
        assert!(blocks.get(0).is_some());
        assert!(blocks.get(CHUNK as u32).is_none());
    }
}
