//! One entry of a table: 32 bits, read and written whole.

use super::{Answer, NextHop};

/// A leaf, a block or nothing.
///
/// ```text
///  31 30                   23 22                                   0
/// +--+-----------------------+--------------------------------------+
/// | 0| prefix length, 1..128 | next hop                             |  leaf
/// +--+-----------+-----------+--------------------------------------+
/// | 1| S| level     | 0         | number of the block               |  block
/// +--+--+-----------+-----------+-----------------------------------+
///  31 30 29       26             21                                0
/// ```
///
/// S says that the block lies further down than the next level, so that an address must be compared
/// with the block's key before it is looked up there.
///
/// All zeros is no route, so zeroed memory is an empty table. The length is there for the writer:
/// of two prefixes that cover an entry the longer one owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(pub(super) u32);

const BLOCK: u32 = 1 << 31;
const SKIPS: u32 = 1 << 30;
const LEVEL_SHIFT: u32 = 26;
const NUMBER_BITS: u32 = 22;
const LENGTH_SHIFT: u32 = 23;

impl Entry {
    /// No route.
    pub(super) const NONE: Self = Self(0);
    /// The first number too large for a block.
    pub(super) const BLOCK_LIMIT: u32 = 1 << NUMBER_BITS;

    /// The answer of a prefix of `length` bits. A default route (length 0) is kept outside of the
    /// tables' entries, where any length other than 0 will do for it.
    pub(super) const fn leaf(length: u8, next_hop: NextHop) -> Self {
        Self((length as u32) << LENGTH_SHIFT | next_hop.0 & NextHop::MAX.0)
    }

    /// A pointer to a block at `level`, which decides on address bits 16 + 8·level and the 7 after.
    /// `from` is the level that follows the table or block that the entry is in.
    pub(super) const fn block(from: u8, level: u8, number: u32) -> Self {
        let skips = if from == level { 0 } else { SKIPS };
        Self(BLOCK | skips | (level as u32) << LEVEL_SHIFT | number)
    }

    #[inline]
    pub(super) const fn is_block(self) -> bool {
        self.0 & BLOCK != 0
    }

    /// Whether this is a block further down than the next level.
    #[inline]
    pub(super) const fn skips(self) -> bool {
        self.0 >= BLOCK | SKIPS
    }

    /// This block; the block number 0 at level 0 for what is no block. Without a branch.
    #[inline]
    pub(super) const fn block_or_first(self) -> Self {
        Self(self.0 & (self.0.cast_signed() >> 31).cast_unsigned())
    }

    /// Of a block: whether it is at the next level, and its number has no more than `bits`.
    #[inline]
    pub(super) const fn is_near(self, bits: u32) -> bool {
        self.0 & (SKIPS | (Self::BLOCK_LIMIT - 1) >> bits << bits) == 0
    }

    #[inline]
    pub(super) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The number of a block; of no meaning for a leaf.
    #[inline]
    pub(super) const fn number(self) -> u32 {
        self.0 & (Self::BLOCK_LIMIT - 1)
    }

    /// The level of a block; of no meaning for a leaf.
    #[inline]
    pub(super) const fn level(self) -> u8 {
        (self.0 >> LEVEL_SHIFT & 0xf) as u8
    }

    /// The length of a leaf's prefix, 0 for no route; of no meaning for a block.
    pub(super) const fn length(self) -> u8 {
        (self.0 >> LENGTH_SHIFT & 0xff) as u8
    }

    /// What a leaf says. Both sides of the branch are free: it becomes a conditional move.
    #[inline]
    pub(super) const fn answer(self) -> Answer {
        if self.is_none() {
            Answer::NONE
        } else {
            Answer((self.0 & NextHop::MAX.0) + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_overlap() {
        for length in 1..=128 {
            for next_hop in [NextHop(0), NextHop(1), NextHop::MAX] {
                let entry = Entry::leaf(length, next_hop);
                assert!(!entry.is_block() && !entry.is_none());
                assert_eq!(
                    (entry.length(), entry.answer().next_hop()),
                    (length, Some(next_hop))
                );
            }
        }
        for (from, level) in [(0, 0), (0, 1), (0, 13), (12, 13), (13, 13)] {
            for number in [0, 256, Entry::BLOCK_LIMIT - 1] {
                let entry = Entry::block(from, level, number);
                assert!(entry.is_block());
                assert_eq!((entry.level(), entry.number()), (level, number));
                assert_eq!(entry.skips(), from != level);
            }
        }
        assert!(!Entry::leaf(128, NextHop::MAX).skips());
        assert_eq!(Entry::NONE.answer().next_hop(), None);
    }
}
