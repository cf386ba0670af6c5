//! Blocks of 256 entries, by number, in storage that grows without moving.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use zerocopy::FromZeros;

use super::entry::Entry;

/// The numbers below this one are not used; the first chunk holds as many blocks.
pub(super) const FIRST_NUMBER: u32 = 1 << FIRST_SHIFT;
const FIRST_SHIFT: u32 = 8;
const CHUNKS: usize = (Entry::BLOCK_LIMIT.ilog2() - FIRST_SHIFT) as usize;

/// 256 entries, one for each value of the 8 address bits that the block's level decides on.
///
/// `key` and `fallback` are for blocks that were reached past levels at which there was nothing to
/// decide: an address that differs from the key in a bit before the block's own gets the fallback,
/// which is the leaf that would be in the block's place. The key is written before the block is
/// published and stays until it is reused.
#[derive(Debug, FromZeros)]
#[repr(C)]
pub(super) struct Block {
    pub(super) entries: [AtomicU32; 256],
    pub(super) fallback: AtomicU32,
    key: [AtomicU32; 4],
}

impl Block {
    /// The address bits that lead to this block, left-aligned, the others zero.
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
        for entry in &self.entries {
            entry.store(leaf.0, Ordering::Relaxed);
        }
    }

    /// Gives a block that no reader can reach another one's content.
    pub(super) fn copy(&self, from: &Self) {
        // Relaxed: as in fill; and nobody but the writer stores to the other one.
        for (to, from) in self.words().zip(from.words()) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn words(&self) -> impl Iterator<Item = &AtomicU32> {
        let entries = self.entries.iter();
        entries.chain([&self.fallback]).chain(&self.key)
    }
}

/// Blocks by number. Chunk k holds the 2ᵏ numbers from 2ᵏ·[`FIRST_NUMBER`] on times
/// [`FIRST_NUMBER`]; its memory is zeroed by the kernel page by page as blocks are first used, so a
/// chunk that is half unused costs address space only.
#[derive(Debug)]
pub(super) struct Blocks {
    chunks: [OnceLock<Box<[Block]>>; CHUNKS],
}

impl Blocks {
    pub(super) const fn new() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
        }
    }

    /// The block of this number, if its chunk was allocated: always, for a number that was read
    /// from a table.
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&Block> {
        let (chunk, offset) = place(number);
        self.chunks.get(chunk)?.get()?.get(offset)
    }

    /// The block of this number; its chunk is allocated if it is the first of it.
    pub(super) fn get_or_allocate(&self, number: u32) -> &Block {
        let (chunk, offset) = place(number);
        let blocks = self.chunks[chunk].get_or_init(|| allocate((FIRST_NUMBER as usize) << chunk));
        &blocks[offset]
    }
}

/// The chunk of a number, and its offset there.
#[inline]
fn place(number: u32) -> (usize, usize) {
    let power = (number | FIRST_NUMBER).ilog2();
    (
        (power - FIRST_SHIFT) as usize,
        (number & !(1 << power)) as usize,
    )
}

fn allocate(blocks: usize) -> Box<[Block]> {
    <[Block]>::new_box_zeroed_with_elems(blocks).unwrap_or_else(|_| {
        let size = blocks.saturating_mul(size_of::<Block>());
        panic!("fib: out of memory: {size} bytes for {blocks} blocks")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_its_own_place() {
        let mut expected = (0, 0);
        for number in FIRST_NUMBER..FIRST_NUMBER * 64 {
            assert_eq!(place(number), expected, "block {number}");
            expected.1 += 1;
            if expected.1 == (FIRST_NUMBER as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(place(Entry::BLOCK_LIMIT - 1).0, CHUNKS - 1);
    }

    #[test]
    fn key_survives() {
        let blocks = Blocks::new();
        let block = blocks.get_or_allocate(FIRST_NUMBER);
        let key = 0x2001_0db8_1234_5678_9abc_def0_1122_3300;
        block.fill(key, Entry(7));
        assert_eq!(block.key(), key);
        assert!(blocks.get(FIRST_NUMBER).is_some());
        assert!(blocks.get(FIRST_NUMBER * 2).is_none());
    }
}
