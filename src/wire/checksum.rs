//! The Internet checksum (RFC 1071), its incremental update (RFC 1624) and the pseudo-headers of
//! IPv4 (RFC 768, RFC 9293 section 3.1) and IPv6 (RFC 8200 section 8.1).
//!
//! ```text
//!  pseudo-header, IPv4                     pseudo-header, IPv6
//!  0      7 8     15 16    23 24    31     0      7 8     15 16    23 24    31
//! +--------+--------+--------+--------+   +--------+--------+--------+--------+
//! |          source address           |   |         source address (16)       |
//! +--------+--------+--------+--------+   +--------+--------+--------+--------+
//! |        destination address        |   |      destination address (16)     |
//! +--------+--------+--------+--------+   +--------+--------+--------+--------+
//! |  zero  |protocol|      length     |   |      upper-layer packet length    |
//! +--------+--------+--------+--------+   +--------+--------+--------+--------+
//!                                         |           zero           | next   |
//!                                         +--------+--------+--------+--------+
//! ```
//!
//! The checksum is the one's complement of the one's complement sum of the 16-bit words, an odd last
//! byte padded with a zero. That sum is the same in either byte order but for a swap of the result
//! (RFC 1071 section 2 B), so words are added as the machine loads them. One's complement has two
//! zeros: the sum of anything that is not all zeros folds to 0x0001–0xffff, never to 0x0000, so a
//! checksum made here is 0x0000–0xfffe.

use core::net::{Ipv4Addr, Ipv6Addr};

/// A running one's complement sum, over pieces of any length as if they were one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checksum {
    /// The sum of 32-bit words in memory order; every 8 bytes add less than 2³³, so that it cannot
    /// overflow below 16 GiB.
    sum: u64,
    /// Whether an odd number of bytes has been added.
    odd: bool,
}

impl Checksum {
    /// The empty sum.
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// The sum of the IPv4 pseudo-header; `length` is that of the upper-layer header and data.
    #[inline]
    pub fn pseudo_ipv4(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        length: usize,
    ) -> Self {
        Self::new()
            .add_bytes(&source.octets())
            .add_bytes(&destination.octets())
            .add_bytes(&upper_layer_words(protocol, length))
    }

    /// The sum of the IPv6 pseudo-header; `length` is that of the upper-layer header and data,
    /// `protocol` the upper layer's and not an extension header's. With a routing header that has
    /// segments left, `destination` is the last one in it.
    #[inline]
    pub fn pseudo_ipv6(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: u8,
        length: usize,
    ) -> Self {
        Self::new()
            .add_bytes(&source.octets())
            .add_bytes(&destination.octets())
            .add_bytes(&upper_layer_words(protocol, length))
    }

    /// The sum with `bytes` behind what was added before.
    #[inline]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let sum = raw_sum(bytes);
        // Bytes at an odd position are the other half of their word (RFC 1071 section 2 B).
        let sum = if self.odd {
            u64::from(fold(sum).swap_bytes())
        } else {
            sum
        };
        Self {
            sum: self.sum + sum,
            odd: self.odd ^ (bytes.len() % 2 == 1),
        }
    }

    /// The sum with one 16-bit word, in host order, behind what was added before.
    #[inline]
    pub fn add_word(self, word: u16) -> Self {
        self.add_bytes(&word.to_be_bytes())
    }

    /// The sum folded to 16 bits and not complemented, in host order: 0xffff over data with a right
    /// checksum within; what the kernel leaves in a partial checksum over a pseudo-header.
    #[inline]
    pub fn folded(self) -> u16 {
        u16::from_be(fold(self.sum))
    }

    /// The checksum: the complement of the folded sum, in host order.
    #[inline]
    pub fn finish(self) -> u16 {
        !self.folded()
    }
}

/// The sum of `bytes`, to be continued.
#[inline]
pub fn sum(bytes: &[u8]) -> Checksum {
    Checksum::new().add_bytes(bytes)
}

/// The checksum of `bytes`, in host order.
#[inline]
pub fn of(bytes: &[u8]) -> u16 {
    sum(bytes).finish()
}

/// Whether `bytes`, with their checksum within, sum up to what a right checksum makes.
#[inline]
pub fn is_valid(bytes: &[u8]) -> bool {
    sum(bytes).folded() == 0xffff
}

/// The checksum after one 16-bit word that it covers, at an even offset, changed from `old_word` to
/// `new_word`; all in host order. RFC 1624 equation 3: HC' = ~(~HC + ~m + m').
///
/// Equal to a full computation over any data that is not all zeros, which equation 2 (RFC 1141) is
/// not (RFC 1624 section 3). A UDP checksum of 0 is none and must not be updated; one that
/// becomes 0 must be sent as 0xffff ([`udp`](super::udp)).
#[inline]
pub const fn update(old_checksum: u16, old_word: u16, new_word: u16) -> u16 {
    let sum = !old_checksum as u32 + !old_word as u32 + new_word as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Both pseudo-headers end in the length and the protocol; as the sum ignores zeros and order, the
/// 32-bit length of IPv6 serves IPv4 too.
#[inline]
fn upper_layer_words(protocol: u8, length: usize) -> [u8; 6] {
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [a, b, c, d, 0, protocol]
}

/// The sum of the 32-bit halves of 64-bit words in memory order, without folding: this shape has no
/// carry chain, so the compiler makes vector code of it.
#[inline]
fn raw_sum(bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut sum = 0;
    for word in words {
        let word = u64::from_ne_bytes(*word);
        sum += (word & 0xffff_ffff) + (word >> 32);
    }
    sum + tail_sum(tail)
}

/// The sum of the last 0–7 bytes.
#[inline]
fn tail_sum(mut tail: &[u8]) -> u64 {
    let mut sum = 0;
    if let Some((word, rest)) = tail.split_first_chunk::<4>() {
        sum += u64::from(u32::from_ne_bytes(*word));
        tail = rest;
    }
    if let Some((word, rest)) = tail.split_first_chunk::<2>() {
        sum += u64::from(u16::from_ne_bytes(*word));
        tail = rest;
    }
    if let Some(byte) = tail.first() {
        sum += u64::from(u16::from_ne_bytes([*byte, 0]));
    }
    sum
}

/// Folds to 16 bits with the end-around carry, in memory order.
#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes).folded(), 0xddf2);
        assert_eq!(of(&bytes), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: equation 2 gives 0xffff here, a full computation and equation 3 give 0x0000.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn an_update_carries_twice_where_it_must() {
        // One's complement arithmetic is arithmetic modulo 0xffff.
        let edges = [0, 1, 2, 0x7fff, 0x8000, 0xfffe, 0xffff];
        for (old, from, to) in edges.into_iter().flat_map(|a| {
            edges
                .into_iter()
                .flat_map(move |b| edges.map(|c| (a, b, c)))
        }) {
            let sum = u64::from(!old) + u64::from(!from) + u64::from(to);
            let updated = update(old, from, to);
            assert_eq!(
                u64::from(!updated) % 0xffff,
                sum % 0xffff,
                "{old:x} {from:x} {to:x}"
            );
            assert_eq!(updated == 0xffff, sum == 0, "{old:x} {from:x} {to:x}");
        }
    }

    #[test]
    fn the_largest_sums_fold() {
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0x0001_ffff_ffff), 1);
        assert_eq!(of(&[0xff; 65535]), !sum(&[0xff; 65535]).folded());
        assert_eq!(sum(&[0xff; 65534]).folded(), 0xffff);
    }

    #[test]
    fn nothing_sums_to_zero() {
        assert_eq!((sum(&[]).folded(), of(&[])), (0, 0xffff));
        assert!(!is_valid(&[0; 20]));
    }
}
