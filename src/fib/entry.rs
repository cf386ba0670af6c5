//! One entry of a table: 32 bits, read and written whole.

use super::NextHop;

/// A leaf, a block or nothing.
///
/// ```text
///  31 30                   23 22                                   0
/// +--+-----------------------+--------------------------------------+
/// | 0| prefix length, 1..128 | next hop                             |  leaf
/// +--+-----------+-----------+--------------------------------------+
/// | 1| level     | number of the block                              |  block
/// +--+-----------+--------------------------------------------------+
///  31 30       27 26                                               0
/// ```
///
/// All zeros is no route, so zeroed memory is an empty table. The length is there for the writer:
/// of two prefixes that cover an entry the longer one owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(pub(super) u32);

const BLOCK: u32 = 1 << 31;
const LEVEL_SHIFT: u32 = 27;
const LENGTH_SHIFT: u32 = 23;

impl Entry {
    /// No route.
    pub(super) const NONE: Self = Self(0);
    /// The first number too large for a block.
    pub(super) const BLOCK_LIMIT: u32 = 1 << LEVEL_SHIFT;

    /// The answer of a prefix of `length` bits. A default route (length 0) is kept outside of the
    /// tables' entries, where any length other than 0 will do for it.
    pub(super) const fn leaf(length: u8, next_hop: NextHop) -> Self {
        Self((length as u32) << LENGTH_SHIFT | next_hop.0 & NextHop::MAX.0)
    }

    /// A pointer to a block at `level`, which decides on address bits 24 + 8·level and the 7 after.
    pub(super) const fn block(level: u8, number: u32) -> Self {
        Self(BLOCK | (level as u32) << LEVEL_SHIFT | number)
    }

    #[inline]
    pub(super) const fn is_block(self) -> bool {
        self.0 & BLOCK != 0
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

    /// A leaf's next hop.
    #[inline]
    pub(super) const fn next_hop(self) -> Option<NextHop> {
        if self.is_none() {
            None
        } else {
            Some(NextHop(self.0 & NextHop::MAX.0))
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
                assert_eq!((entry.length(), entry.next_hop()), (length, Some(next_hop)));
            }
        }
        for level in 0..=12 {
            for number in [0, 256, Entry::BLOCK_LIMIT - 1] {
                let entry = Entry::block(level, number);
                assert!(entry.is_block());
                assert_eq!((entry.level(), entry.number()), (level, number));
            }
        }
        assert_eq!(Entry::NONE.next_hop(), None);
    }
}
