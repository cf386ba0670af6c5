//! UDP (RFC 768; over IPv6 RFC 8200 section 8.1 and RFC 6935).
//!
//! ```text
//!  0      7 8     15 16    23 24    31
//! +--------+--------+--------+--------+
//! |   source port   | destination port|
//! +--------+--------+--------+--------+
//! |     length      |    checksum     |
//! +--------+--------+--------+--------+
//! |  data …
//! +--------+
//! ```
//!
//! * The length is that of header and data: at least 8.
//! * A checksum of zero means none over IPv4. One that is computed as zero is sent as all ones.
//! * Over IPv6 a receiver MUST discard a datagram whose checksum is zero (RFC 8200 section 8.1),
//!   but for the ports of tunnels that were configured to allow it (RFC 6935 section 5).

use core::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::{self, Checksum};
use super::ipv4::protocol;

/// Bytes of a UDP header.
pub const HEADER_LEN: usize = 8;

/// Where the checksum is.
pub const CHECKSUM: usize = 6;

/// A UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Bytes in header and data.
    pub length: usize,
    /// The checksum; 0 if none was computed.
    pub checksum: u16,
}

/// Bytes that are no UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UdpError {
    /// The packet ends within the header.
    #[error("the packet ends within its UDP header of 8 bytes")]
    Truncated,
    /// The length is less than the header or more than the packet.
    #[error("the UDP length is under 8 bytes or beyond the packet")]
    Length,
}

impl Udp {
    /// Parses the header at the front of an IP payload; the payload may be longer than the datagram.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Self, UdpError> {
        let header: &[u8; HEADER_LEN] = payload.first_chunk().ok_or(UdpError::Truncated)?;
        let [s0, s1, d0, d1, l0, l1, c0, c1] = *header;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length < HEADER_LEN || length > payload.len() {
            return Err(UdpError::Length);
        }
        Ok(Self {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            length,
            checksum: u16::from_be_bytes([c0, c1]),
        })
    }

    /// Writes the header, its checksum as given, and returns 8, or 0 if `out` is too short or the
    /// length does not fit into 16 bits.
    #[inline]
    pub fn write(&self, out: &mut [u8]) -> usize {
        let (Some(out), Ok(length)) = (
            out.first_chunk_mut::<HEADER_LEN>(),
            u16::try_from(self.length),
        ) else {
            return 0;
        };
        out[..2].copy_from_slice(&self.source_port.to_be_bytes());
        out[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        out[4..6].copy_from_slice(&length.to_be_bytes());
        out[6..].copy_from_slice(&self.checksum.to_be_bytes());
        HEADER_LEN
    }
}

/// The checksum to send in `datagram` (header and data, nothing behind) over IPv4, never 0; what its
/// checksum field holds does not count.
#[inline]
pub fn checksum_ipv4(source: Ipv4Addr, destination: Ipv4Addr, datagram: &[u8]) -> u16 {
    compute(
        Checksum::pseudo_ipv4(source, destination, protocol::UDP, datagram.len()),
        datagram,
    )
}

/// The checksum to send in `datagram` (header and data, nothing behind) over IPv6, never 0; what its
/// checksum field holds does not count.
#[inline]
pub fn checksum_ipv6(source: Ipv6Addr, destination: Ipv6Addr, datagram: &[u8]) -> u16 {
    compute(
        Checksum::pseudo_ipv6(source, destination, protocol::UDP, datagram.len()),
        datagram,
    )
}

/// Whether the checksum of `datagram` (header and data, nothing behind) over IPv4 is right; none,
/// zero, is right.
#[inline]
pub fn verify_ipv4(source: Ipv4Addr, destination: Ipv4Addr, datagram: &[u8]) -> bool {
    has_no_checksum(datagram)
        || is_right(
            Checksum::pseudo_ipv4(source, destination, protocol::UDP, datagram.len()),
            datagram,
        )
}

/// Whether the checksum of `datagram` (header and data, nothing behind) over IPv6 is right; zero is
/// wrong, and for the caller to allow where RFC 6935 does.
#[inline]
pub fn verify_ipv6(source: Ipv6Addr, destination: Ipv6Addr, datagram: &[u8]) -> bool {
    !has_no_checksum(datagram)
        && is_right(
            Checksum::pseudo_ipv6(source, destination, protocol::UDP, datagram.len()),
            datagram,
        )
}

/// A UDP checksum after one 16-bit word that it covers changed; none stays none.
#[inline]
pub const fn update_checksum(old_checksum: u16, old_word: u16, new_word: u16) -> u16 {
    if old_checksum == 0 {
        return 0;
    }
    match checksum::update(old_checksum, old_word, new_word) {
        0 => 0xffff,
        checksum => checksum,
    }
}

#[inline]
fn compute(pseudo: Checksum, datagram: &[u8]) -> u16 {
    let (before, rest) = datagram.split_at(datagram.len().min(6));
    let behind = rest.get(2..).unwrap_or_default();
    match pseudo.add_bytes(before).add_bytes(behind).finish() {
        0 => 0xffff,
        checksum => checksum,
    }
}

#[inline]
fn has_no_checksum(datagram: &[u8]) -> bool {
    datagram.get(6..8) == Some(&[0, 0])
}

#[inline]
fn is_right(pseudo: Checksum, datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_LEN && pseudo.add_bytes(datagram).folded() == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_checked_against_header_and_payload() {
        let header = |length: u8| [0, 1, 0, 2, 0, length, 0, 0, 0xaa];
        assert_eq!(Udp::parse(&header(7)), Err(UdpError::Length));
        assert_eq!(Udp::parse(&header(8)).unwrap().length, 8);
        assert_eq!(Udp::parse(&header(9)).unwrap().length, 9);
        assert_eq!(Udp::parse(&header(10)), Err(UdpError::Length));
        assert_eq!(Udp::parse(&header(8)[..7]), Err(UdpError::Truncated));
    }

    #[test]
    fn a_checksum_computed_as_zero_is_sent_as_all_ones() {
        let (source, destination) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let mut datagram = [0, 1, 0, 2, 0, 10, 0, 0, 0, 0];
        // Data that equals the checksum of the rest makes the sum all ones, the checksum zero.
        let rest = checksum_ipv4(source, destination, &datagram);
        datagram[8..].copy_from_slice(&rest.to_be_bytes());
        assert_eq!(checksum_ipv4(source, destination, &datagram), 0xffff);
        datagram[6..8].copy_from_slice(&[0xff, 0xff]);
        assert!(verify_ipv4(source, destination, &datagram));
    }

    #[test]
    fn zero_is_no_checksum_over_ipv4_and_wrong_over_ipv6() {
        let datagram = [0, 1, 0, 2, 0, 8, 0, 0];
        assert!(verify_ipv4(
            Ipv4Addr::LOCALHOST,
            Ipv4Addr::LOCALHOST,
            &datagram
        ));
        assert!(!verify_ipv6(
            Ipv6Addr::LOCALHOST,
            Ipv6Addr::LOCALHOST,
            &datagram
        ));
        assert_eq!(update_checksum(0, 1, 2), 0);
    }

    #[test]
    fn short_slices_have_no_right_checksum() {
        for length in 0..HEADER_LEN {
            let datagram = &[0xffu8; HEADER_LEN][..length];
            assert!(!verify_ipv4(
                Ipv4Addr::LOCALHOST,
                Ipv4Addr::LOCALHOST,
                datagram
            ));
            assert_ne!(
                checksum_ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, datagram),
                0
            );
        }
    }
}
