//! What a table asks of an address.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An address of either family.
pub(super) trait Address: Copy {
    /// How many levels of blocks follow the first 16 bits.
    const LEVELS: u8;

    /// The first 16 bits.
    fn first_16(self) -> u16;

    /// The 8 bits that a block of this level decides on: those from bit 16 + 8·level. Some value or
    /// other for a level beyond the address.
    fn byte_of_level(self, level: u8) -> u8;

    /// Whether the first `bits` (1 to the address's length) are those of a left-aligned key.
    fn starts_as(self, key: u128, bits: u8) -> bool;
}

impl Address for Ipv4Addr {
    const LEVELS: u8 = 2;

    #[inline]
    fn first_16(self) -> u16 {
        (self.to_bits() >> 16) as u16
    }

    #[inline]
    fn byte_of_level(self, level: u8) -> u8 {
        (self.to_bits() >> (8 - 8 * (level & 1))) as u8
    }

    #[inline]
    fn starts_as(self, key: u128, bits: u8) -> bool {
        let differences = self.to_bits() ^ (key >> 96) as u32;
        differences.leading_zeros() >= u32::from(bits)
    }
}

impl Address for Ipv6Addr {
    const LEVELS: u8 = 14;

    #[inline]
    fn first_16(self) -> u16 {
        (self.to_bits() >> 112) as u16
    }

    #[inline]
    fn byte_of_level(self, level: u8) -> u8 {
        self.octets()[(usize::from(level) + 2) % 16]
    }

    #[inline]
    fn starts_as(self, key: u128, bits: u8) -> bool {
        let differences = self.to_bits() ^ key;
        differences.leading_zeros() >= u32::from(bits)
    }
}
