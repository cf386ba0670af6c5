//! IPv4 (RFC 791; routers: RFC 1812; identification: RFC 6864; DSCP and ECN: RFC 2474, RFC 3168).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Version|  IHL  |      TOS      |          Total length         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |         Identification        |0|D|M|     Fragment offset     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |      TTL      |    Protocol   |        Header checksum        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                        Source address                         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                      Destination address                      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    Options (0 to 40 bytes)                    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! * A router MUST verify the header checksum and discard what fails (RFC 1812 section 4.2.2.5);
//!   version, IHL, total length and the link's length MUST be consistent (section 5.2.2).
//! * A router MUST decrement the TTL, MUST NOT forward a packet whose TTL became zero, and MUST NOT
//!   drop one for its TTL when it is for the router (section 5.3.1).
//! * A router MUST ignore options that it does not know (section 5.2.4): they are summed and kept.
//! * The first bit of the flags is ignored on receipt and sent as zero.
//! * The identification of a packet that may not be fragmented (DF set, no fragment) means nothing;
//!   others MUST NOT repeat it within the packet lifetime for one source, destination and protocol
//!   (RFC 6864 section 4).

use core::net::Ipv4Addr;

use super::checksum;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Where the TTL lies in a header.
pub const TTL: usize = 8;

/// What an IP packet carries (IANA, protocol numbers), for IPv4's protocol and IPv6's next header.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// IPv6 in IP (RFC 4213).
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6: nothing follows.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

/// An IPv4 header, its options aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4 {
    /// Bytes in the header with its options: 20 to 60.
    pub header_len: usize,
    /// DSCP (upper six bits) and ECN (lower two).
    pub tos: u8,
    /// Bytes in header and payload.
    pub total_len: usize,
    /// What the fragments of one packet have in common.
    pub identification: u16,
    /// The DF flag.
    pub dont_fragment: bool,
    /// The MF flag.
    pub more_fragments: bool,
    /// Where the payload lies in that of the whole packet, in bytes: a multiple of 8.
    pub fragment_offset: u16,
    /// How many more routers may forward the packet.
    pub ttl: u8,
    /// What the payload is: see [`protocol`].
    pub protocol: u8,
    /// The sender.
    pub source: Ipv4Addr,
    /// The receiver.
    pub destination: Ipv4Addr,
}

/// The header of a packet like most: no options, no fragment. What it says is read where it lies, when it
/// is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain<'a> {
    header: &'a [u8; HEADER_LEN],
    total_len: u16,
}

impl<'a> Plain<'a> {
    /// The header of a packet of which `available` bytes are there; none if it has options, is that of
    /// a fragment, or [`Ipv4::parse`] would refuse it.
    #[inline(always)]
    pub fn parse(header: &'a [u8; HEADER_LEN], available: usize) -> Option<Self> {
        let (words, _) = header.as_chunks::<4>();
        let &[first, second, third, source, destination] = words else {
            return None;
        };
        let total_len = u16::from_be_bytes([first[2], first[3]]);
        let fits = (HEADER_LEN..=available).contains(&usize::from(total_len));
        // A ones' complement sum may be taken in any byte order (RFC 1071 section 2). 0xffff divides
        // 2³² - 1: what is right folds to a multiple of it, and is not zero.
        let sum: u64 = [first, second, third, source, destination]
            .map(|word| u64::from(u32::from_ne_bytes(word)))
            .into_iter()
            .sum();
        let fragment =
            u16::from_ne_bytes([second[2], second[3]]) & u16::from_ne_bytes([0x3f, 0xff]);
        let right = first[0] == 0x45 && fragment == 0 && fits && sum.is_multiple_of(0xffff);
        right.then_some(Self { header, total_len })
    }

    /// DSCP (upper six bits) and ECN (lower two).
    #[inline(always)]
    pub const fn tos(&self) -> u8 {
        self.header[1]
    }

    /// Bytes in header and payload.
    #[inline(always)]
    pub fn total_len(&self) -> usize {
        usize::from(self.total_len)
    }

    /// The DF flag.
    #[inline(always)]
    pub const fn dont_fragment(&self) -> bool {
        self.header[6] & 0x40 != 0
    }

    /// How many more routers may forward the packet.
    #[inline(always)]
    pub const fn ttl(&self) -> u8 {
        self.header[8]
    }

    /// What the payload is: see [`protocol`].
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// The sender.
    #[inline(always)]
    pub const fn source(&self) -> Ipv4Addr {
        let [.., a, b, c, d, _, _, _, _] = *self.header;
        Ipv4Addr::new(a, b, c, d)
    }

    /// The receiver.
    #[inline(always)]
    pub const fn destination(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.header;
        Ipv4Addr::new(a, b, c, d)
    }
}

/// Bytes that are no IPv4 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ipv4Error {
    /// The packet is shorter than 20 bytes.
    #[error("the packet ends within its IPv4 header of at least 20 bytes")]
    Truncated,
    /// The version is not 4.
    #[error("the IP version is not 4")]
    Version,
    /// The header length is under 20 bytes or beyond the packet.
    #[error("the IPv4 header length is under 20 bytes or beyond the packet")]
    HeaderLength,
    /// The total length is less than the header or more than the packet.
    #[error("the IPv4 total length is less than the header or beyond the packet")]
    TotalLength,
    /// The header checksum is wrong.
    #[error("the IPv4 header checksum is wrong")]
    Checksum,
}

impl Ipv4 {
    /// Parses and checks the header at the front of a packet. What lies behind the total length
    /// (Ethernet padding) is for the caller to trim.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, Ipv4Error> {
        let ip = Self::parse_quoted(packet)?;
        if ip.total_len > packet.len() {
            return Err(Ipv4Error::TotalLength);
        }
        if !ip.checksum_is_valid(packet) {
            return Err(Ipv4Error::Checksum);
        }
        Ok(ip)
    }

    /// Parses the header of a packet that may be cut short, as in an ICMP error's quotation: neither
    /// the total length against the slice nor the checksum is checked.
    #[inline]
    pub fn parse_quoted(packet: &[u8]) -> Result<Self, Ipv4Error> {
        let h: &[u8; HEADER_LEN] = packet.first_chunk().ok_or(Ipv4Error::Truncated)?;
        if h[0] >> 4 != 4 {
            return Err(Ipv4Error::Version);
        }
        let header_len = usize::from(h[0] & 0x0f) * 4;
        if header_len < HEADER_LEN || header_len > packet.len() {
            return Err(Ipv4Error::HeaderLength);
        }
        let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
        if total_len < header_len {
            return Err(Ipv4Error::TotalLength);
        }
        let fragment = u16::from_be_bytes([h[6], h[7]]);
        Ok(Self {
            header_len,
            tos: h[1],
            total_len,
            identification: u16::from_be_bytes([h[4], h[5]]),
            dont_fragment: fragment & DONT_FRAGMENT != 0,
            more_fragments: fragment & MORE_FRAGMENTS != 0,
            fragment_offset: fragment << 3,
            ttl: h[8],
            protocol: h[9],
            source: Ipv4Addr::new(h[12], h[13], h[14], h[15]),
            destination: Ipv4Addr::new(h[16], h[17], h[18], h[19]),
        })
    }

    /// Whether these bytes begin with the header of a packet that may be fragmented: DF is clear.
    pub fn may_be_fragmented(packet: &[u8]) -> bool {
        Self::parse_quoted(packet).is_ok_and(|ip| !ip.dont_fragment)
    }

    /// Bytes behind the header.
    #[inline]
    pub const fn payload_len(&self) -> usize {
        self.total_len.saturating_sub(self.header_len)
    }

    /// Whether this is one of several fragments.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    /// Whether this is the first of several fragments.
    #[inline]
    pub const fn is_first_fragment(&self) -> bool {
        self.more_fragments && self.fragment_offset == 0
    }

    /// Writes a header of 20 bytes with its checksum, whatever `header_len` says, and returns 20, or
    /// 0 if `out` is too short or the total length does not fit into 16 bits.
    #[inline]
    pub fn write(&self, out: &mut [u8]) -> usize {
        let (Some(h), Ok(total_len)) = (
            out.first_chunk_mut::<HEADER_LEN>(),
            u16::try_from(self.total_len),
        ) else {
            return 0;
        };
        h[0] = 0x45;
        h[1] = self.tos;
        h[2..4].copy_from_slice(&total_len.to_be_bytes());
        h[4..6].copy_from_slice(&self.identification.to_be_bytes());
        h[6..8].copy_from_slice(&self.fragment_word().to_be_bytes());
        h[8] = self.ttl;
        h[9] = self.protocol;
        h[10..12].copy_from_slice(&[0, 0]);
        h[12..16].copy_from_slice(&self.source.octets());
        h[16..].copy_from_slice(&self.destination.octets());
        let checksum = checksum::of(h);
        h[10..12].copy_from_slice(&checksum.to_be_bytes());
        HEADER_LEN
    }

    #[inline]
    fn checksum_is_valid(&self, packet: &[u8]) -> bool {
        // A length that the compiler knows makes five additions of it.
        if self.header_len == HEADER_LEN {
            packet
                .first_chunk::<HEADER_LEN>()
                .is_some_and(|header| checksum::is_valid(header))
        } else {
            packet
                .get(..self.header_len)
                .is_some_and(checksum::is_valid)
        }
    }

    #[inline]
    fn fragment_word(&self) -> u16 {
        let dont_fragment = if self.dont_fragment { DONT_FRAGMENT } else { 0 };
        let more_fragments = if self.more_fragments {
            MORE_FRAGMENTS
        } else {
            0
        };
        dont_fragment | more_fragments | self.fragment_offset >> 3
    }
}

/// Takes one off the TTL and updates the checksum; false, and nothing changed, if the TTL is 0 or the
/// slice is shorter than a header.
#[inline]
pub fn decrement_ttl(header: &mut [u8]) -> bool {
    let Some(h) = header.first_chunk_mut::<HEADER_LEN>() else {
        return false;
    };
    let Some(ttl) = h[8].checked_sub(1) else {
        return false;
    };
    h[8] = ttl;
    // What replacing the word comes to when it becomes 0x0100 less: 0x0100 more, and the carry (RFC 1624
    // equation 3; ip_decrease_ttl of the kernel).
    let checksum = u32::from(u16::from_be_bytes([h[10], h[11]])) + 0x0100;
    let checksum = checksum + u32::from(checksum >= 0xffff);
    h[10..12].copy_from_slice(&(checksum as u16).to_be_bytes());
    true
}

/// Sets the TTL and updates the checksum; false if the slice is shorter than a header.
#[inline]
pub fn set_ttl(header: &mut [u8], ttl: u8) -> bool {
    let Some(h) = header.first_chunk_mut::<HEADER_LEN>() else {
        return false;
    };
    replace_word::<8>(h, [ttl, h[9]]);
    true
}

/// Sets DSCP and ECN and updates the checksum; false if the slice is shorter than a header.
#[inline]
pub fn set_tos(header: &mut [u8], tos: u8) -> bool {
    let Some(h) = header.first_chunk_mut::<HEADER_LEN>() else {
        return false;
    };
    replace_word::<0>(h, [h[0], tos]);
    true
}

/// Sets the total length and updates the checksum; false if the slice is shorter than a header.
#[inline]
pub fn set_total_len(header: &mut [u8], total_len: u16) -> bool {
    let Some(h) = header.first_chunk_mut::<HEADER_LEN>() else {
        return false;
    };
    replace_word::<2>(h, total_len.to_be_bytes());
    true
}

/// Sets the identification and updates the checksum; false if the slice is shorter than a header.
#[inline]
pub fn set_identification(header: &mut [u8], identification: u16) -> bool {
    let Some(h) = header.first_chunk_mut::<HEADER_LEN>() else {
        return false;
    };
    replace_word::<4>(h, identification.to_be_bytes());
    true
}

/// Sets or clears DF and updates the checksum; false if the slice is shorter than a header.
#[inline]
pub fn set_dont_fragment(header: &mut [u8], dont_fragment: bool) -> bool {
    let Some(h) = header.first_chunk_mut::<HEADER_LEN>() else {
        return false;
    };
    let others = h[6] & !0x40;
    replace_word::<6>(h, [others | u8::from(dont_fragment) << 6, h[7]]);
    true
}

/// Replaces the 16-bit word at byte `AT` (even) and updates the checksum by RFC 1624 equation 3.
#[inline]
fn replace_word<const AT: usize>(h: &mut [u8; HEADER_LEN], word: [u8; 2]) {
    let old = u16::from_be_bytes([h[AT], h[AT + 1]]);
    let checksum = u16::from_be_bytes([h[10], h[11]]);
    let checksum = checksum::update(checksum, old, u16::from_be_bytes(word));
    h[AT..AT + 2].copy_from_slice(&word);
    h[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> [u8; HEADER_LEN] {
        let ip = Ipv4 {
            header_len: HEADER_LEN,
            tos: 0,
            total_len: HEADER_LEN,
            identification: 1,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: protocol::UDP,
            source: Ipv4Addr::new(192, 168, 0, 1),
            destination: Ipv4Addr::new(192, 168, 0, 2),
        };
        let mut bytes = [0; HEADER_LEN];
        assert_eq!(ip.write(&mut bytes), HEADER_LEN);
        bytes
    }

    #[test]
    fn each_wrong_field_has_its_error() {
        let error = |at: usize, value: u8| {
            let mut bytes = header();
            bytes[at] = value;
            Ipv4::parse(&bytes).unwrap_err()
        };
        assert_eq!(error(0, 0x65), Ipv4Error::Version);
        assert_eq!(error(0, 0x44), Ipv4Error::HeaderLength);
        assert_eq!(error(0, 0x46), Ipv4Error::HeaderLength);
        assert_eq!(error(3, 19), Ipv4Error::TotalLength);
        assert_eq!(error(3, 21), Ipv4Error::TotalLength);
        assert_eq!(error(8, 63), Ipv4Error::Checksum);
        assert_eq!(Ipv4::parse(&header()[..19]), Err(Ipv4Error::Truncated));
    }

    #[test]
    fn options_are_part_of_the_checksum() {
        let mut packet = [0; 24];
        packet[..HEADER_LEN].copy_from_slice(&header());
        packet[0] = 0x46;
        packet[3] = 24;
        packet[20..].copy_from_slice(&[1, 1, 1, 0]);
        packet[10..12].copy_from_slice(&[0, 0]);
        let checksum = checksum::of(&packet);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(Ipv4::parse(&packet).unwrap().header_len, 24);
        packet[22] = 2;
        assert_eq!(Ipv4::parse(&packet), Err(Ipv4Error::Checksum));
    }

    #[test]
    fn a_quotation_may_be_cut_short() {
        let mut packet = header();
        assert!(set_total_len(&mut packet, 1500));
        assert_eq!(Ipv4::parse(&packet), Err(Ipv4Error::TotalLength));
        assert_eq!(Ipv4::parse_quoted(&packet).unwrap().total_len, 1500);
    }

    #[test]
    fn a_ttl_of_zero_stays() {
        let mut packet = header();
        assert!(set_ttl(&mut packet, 0));
        let before = packet;
        assert!(!decrement_ttl(&mut packet));
        assert_eq!(packet, before);
        assert!(!decrement_ttl(&mut packet[..19]));
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let ip = Ipv4::parse(&header()).unwrap();
        assert_eq!(ip.write(&mut [0; 19]), 0);
        assert_eq!(
            Ipv4 {
                total_len: 65536,
                ..ip
            }
            .write(&mut [0; 20]),
            0
        );
    }
}
