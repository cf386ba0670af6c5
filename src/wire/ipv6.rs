//! IPv6 (RFC 8200) and its extension headers.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Version| Traffic class |              Flow label               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |        Payload length         |  Next header  |   Hop limit   |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                                                               |
//! +                        Source address                         +
//! |                           (16 bytes)                          |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                                                               |
//! +                      Destination address                      +
//! |                           (16 bytes)                          |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!
//! options and routing headers              fragment header (8 bytes)
//! +--------+--------+----------------+     +--------+--------+-------------+--+-+
//! |  next  | length |  …             |     |  next  |  zero  | offset (13) |00|M|
//! +--------+--------+----------------+     +--------+--------+-------------+--+-+
//!  the length is in units of 8 bytes,      |           identification           |
//!  the first not counted                   +------------------------------------+
//! ```
//!
//! * A node that forwards MUST discard a packet received with hop limit 0 or whose hop limit it
//!   decrements to 0; a node that is the destination should not (section 3).
//! * Extension headers other than hop-by-hop options MUST NOT be processed, inserted or deleted on
//!   the way (section 4); finding the upper layer, for a flow's hash or an ICMP error, changes
//!   nothing.
//! * There is no header checksum. A router never fragments (section 5).
//! * A payload length of 0 is taken as an empty payload: jumbograms (RFC 2675) are not supported.

use core::net::Ipv6Addr;

use super::ipv4::protocol;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// The least MTU of a link (RFC 8200 section 5), in bytes.
pub const MIN_MTU: usize = 1280;

/// Extension headers that [`upper_layer`] walks at most: each of the four kinds once and destination
/// options twice is what section 4.1 recommends to senders.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// An IPv6 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6 {
    /// DSCP (upper six bits) and ECN (lower two).
    pub traffic_class: u8,
    /// The flow label, 20 bits.
    pub flow_label: u32,
    /// Bytes behind the fixed header.
    pub payload_len: usize,
    /// What the payload begins with: see [`protocol`].
    pub next_header: u8,
    /// How many more routers may forward the packet.
    pub hop_limit: u8,
    /// The sender.
    pub source: Ipv6Addr,
    /// The receiver, or the next one on a routing header's way.
    pub destination: Ipv6Addr,
}

/// Bytes that are no IPv6 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ipv6Error {
    /// The packet is shorter than 40 bytes.
    #[error("the packet ends within its IPv6 header of 40 bytes")]
    Truncated,
    /// The version is not 6.
    #[error("the IP version is not 6")]
    Version,
    /// The payload length is more than the packet.
    #[error("the IPv6 payload length is beyond the packet")]
    PayloadLength,
}

impl Ipv6 {
    /// Parses the header at the front of a packet. What lies behind the payload (Ethernet padding)
    /// is for the caller to trim.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, Ipv6Error> {
        let ip = Self::parse_quoted(packet)?;
        if ip.total_len() > packet.len() {
            return Err(Ipv6Error::PayloadLength);
        }
        Ok(ip)
    }

    /// Parses the header of a packet that may be cut short, as in an ICMPv6 error's quotation: the
    /// payload length is not checked against the slice.
    #[inline]
    pub fn parse_quoted(packet: &[u8]) -> Result<Self, Ipv6Error> {
        let h: &[u8; HEADER_LEN] = packet.first_chunk().ok_or(Ipv6Error::Truncated)?;
        if h[0] >> 4 != 6 {
            return Err(Ipv6Error::Version);
        }
        let (source, destination) = addresses(h);
        Ok(Self {
            traffic_class: h[0] << 4 | h[1] >> 4,
            flow_label: u32::from_be_bytes([0, h[1] & 0x0f, h[2], h[3]]),
            payload_len: usize::from(u16::from_be_bytes([h[4], h[5]])),
            next_header: h[6],
            hop_limit: h[7],
            source,
            destination,
        })
    }

    /// Bytes in header and payload.
    #[inline]
    pub const fn total_len(&self) -> usize {
        HEADER_LEN + self.payload_len
    }

    /// Writes the header and returns 40, or 0 if `out` is too short or the payload length does not
    /// fit into 16 bits.
    #[inline]
    pub fn write(&self, out: &mut [u8]) -> usize {
        let (Some(h), Ok(payload_len)) = (
            out.first_chunk_mut::<HEADER_LEN>(),
            u16::try_from(self.payload_len),
        ) else {
            return 0;
        };
        let word = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000f_ffff;
        h[..4].copy_from_slice(&word.to_be_bytes());
        h[4..6].copy_from_slice(&payload_len.to_be_bytes());
        h[6] = self.next_header;
        h[7] = self.hop_limit;
        h[8..24].copy_from_slice(&self.source.octets());
        h[24..].copy_from_slice(&self.destination.octets());
        HEADER_LEN
    }
}

/// Takes one off the hop limit; false, and nothing changed, if it is 0 or the slice is shorter than a
/// header.
#[inline]
pub fn decrement_hop_limit(header: &mut [u8]) -> bool {
    let Some(h) = header.first_chunk_mut::<HEADER_LEN>() else {
        return false;
    };
    let Some(hop_limit) = h[7].checked_sub(1) else {
        return false;
    };
    h[7] = hop_limit;
    true
}

/// Sets DSCP and ECN; false if the slice is shorter than a header.
#[inline]
pub fn set_traffic_class(header: &mut [u8], traffic_class: u8) -> bool {
    let Some(h) = header.first_chunk_mut::<HEADER_LEN>() else {
        return false;
    };
    h[0] = h[0] & 0xf0 | traffic_class >> 4;
    h[1] = traffic_class << 4 | h[1] & 0x0f;
    true
}

/// Sets the payload length; false if the slice is shorter than a header.
#[inline]
pub fn set_payload_len(header: &mut [u8], payload_len: u16) -> bool {
    let Some(h) = header.first_chunk_mut::<HEADER_LEN>() else {
        return false;
    };
    h[4..6].copy_from_slice(&payload_len.to_be_bytes());
    true
}

/// A fragment header's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Where the fragment lies in the fragmentable part of the whole packet, in bytes.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
    /// What the fragments of one packet have in common.
    pub identification: u32,
}

/// Bytes in a fragment header.
pub const FRAGMENT_LEN: usize = 8;

impl Fragment {
    /// Reads a fragment header, and what it says follows in the whole packet; nothing if there is too
    /// little.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<(Self, u8)> {
        let h: &[u8; FRAGMENT_LEN] = bytes.first_chunk()?;
        let fragment = Self {
            offset: u16::from_be_bytes([h[2], h[3]]) & !7,
            more: h[3] & 1 != 0,
            identification: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        };
        Some((fragment, h[0]))
    }

    /// The header's bytes, before what `next_header` says.
    pub fn header(&self, next_header: u8) -> [u8; FRAGMENT_LEN] {
        let [high, low] = (self.offset & !7 | u16::from(self.more)).to_be_bytes();
        let [a, b, c, d] = self.identification.to_be_bytes();
        [next_header, 0, high, low, a, b, c, d]
    }

    /// Whether the header is there though the packet is whole (an atomic fragment, RFC 6946).
    pub const fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Where a packet's upper layer begins and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpperLayer {
    /// The upper-layer protocol, or an extension header that is not walked (ESP, AH, …).
    pub protocol: u8,
    /// Its first byte, counted from the packet's; in a fragment but the first it is not a header's.
    pub offset: usize,
    /// The fragment header, if there is one.
    pub fragment: Option<Fragment>,
    /// Whether a routing header has segments left: the packet's destination is not the last one.
    pub segments_left: bool,
}

impl UpperLayer {
    /// Whether the packet is one of several fragments.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        match self.fragment {
            Some(fragment) => !fragment.is_atomic(),
            None => false,
        }
    }

    /// Whether the upper layer's header is at `offset`: not so in fragments but the first.
    #[inline]
    pub const fn has_header(&self) -> bool {
        match self.fragment {
            Some(fragment) => fragment.offset == 0,
            None => true,
        }
    }
}

/// Finds the upper layer behind hop-by-hop options, routing, fragment and destination options
/// headers; nothing if the packet ends before it or has more than [`MAX_EXTENSION_HEADERS`].
///
/// A fragment but the first has no headers behind its fragment header, so the walk ends there.
#[inline]
pub fn upper_layer(packet: &[u8]) -> Option<UpperLayer> {
    let header: &[u8; HEADER_LEN] = packet.first_chunk()?;
    let mut layer = UpperLayer {
        protocol: header[6],
        offset: HEADER_LEN,
        fragment: None,
        segments_left: false,
    };
    for _ in 0..=MAX_EXTENSION_HEADERS {
        if !is_extension(layer.protocol) || !layer.has_header() {
            return Some(layer);
        }
        step(packet, &mut layer)?;
    }
    None
}

#[inline]
const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::DESTINATION_OPTIONS
    )
}

/// Goes over the extension header at `layer.offset`; nothing if the packet ends within it.
fn step(packet: &[u8], layer: &mut UpperLayer) -> Option<()> {
    let h: &[u8; 8] = packet.get(layer.offset..)?.first_chunk()?;
    let mut length = 8 + usize::from(h[1]) * 8;
    match layer.protocol {
        protocol::FRAGMENT => {
            length = FRAGMENT_LEN;
            layer.fragment = Fragment::parse(h).map(|(fragment, _)| fragment);
        }
        protocol::ROUTING => layer.segments_left |= h[3] != 0,
        _ => {}
    }
    layer.protocol = h[0];
    layer.offset += length;
    (layer.offset <= packet.len()).then_some(())
}

#[inline]
fn addresses(h: &[u8; HEADER_LEN]) -> (Ipv6Addr, Ipv6Addr) {
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    source.copy_from_slice(&h[8..24]);
    destination.copy_from_slice(&h[24..]);
    (source.into(), destination.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet whose fixed header says `next_header` and whose payload is `payload`.
    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER_LEN];
        let ip = Ipv6 {
            traffic_class: 0,
            flow_label: 0,
            payload_len: payload.len(),
            next_header,
            hop_limit: 1,
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::LOCALHOST,
        };
        assert_eq!(ip.write(&mut packet), HEADER_LEN);
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn each_wrong_field_has_its_error() {
        let mut bytes = packet(protocol::UDP, &[0; 8]);
        assert_eq!(Ipv6::parse(&bytes[..39]), Err(Ipv6Error::Truncated));
        assert_eq!(Ipv6::parse(&bytes[..47]), Err(Ipv6Error::PayloadLength));
        assert_eq!(Ipv6::parse_quoted(&bytes[..47]).unwrap().payload_len, 8);
        bytes[0] = 0x45;
        assert_eq!(Ipv6::parse(&bytes), Err(Ipv6Error::Version));
    }

    #[test]
    fn a_hop_limit_of_zero_stays() {
        let mut bytes = packet(protocol::UDP, &[]);
        assert!(decrement_hop_limit(&mut bytes));
        assert!(!decrement_hop_limit(&mut bytes));
        assert_eq!(Ipv6::parse(&bytes).unwrap().hop_limit, 0);
        assert!(!decrement_hop_limit(&mut bytes[..39]));
    }

    #[test]
    fn the_walk_is_bounded() {
        let options = |count: usize| {
            let mut payload = vec![0; count * 8];
            for header in payload.chunks_mut(8) {
                header[0] = protocol::DESTINATION_OPTIONS;
            }
            payload[count * 8 - 8] = protocol::TCP;
            upper_layer(&packet(protocol::DESTINATION_OPTIONS, &payload))
        };
        let layer = options(MAX_EXTENSION_HEADERS).unwrap();
        assert_eq!(
            (layer.protocol, layer.offset),
            (protocol::TCP, HEADER_LEN + 64)
        );
        assert_eq!(options(MAX_EXTENSION_HEADERS + 1), None);
    }

    #[test]
    fn the_walk_ends_with_the_packet() {
        let header = [protocol::TCP, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(upper_layer(&packet(protocol::HOP_BY_HOP, &header)), None);
        assert_eq!(
            upper_layer(&packet(protocol::HOP_BY_HOP, &header[..7])),
            None
        );
        assert_eq!(upper_layer(&[0x60; 39]), None);
    }

    #[test]
    fn the_walk_ends_at_a_later_fragment() {
        let header = [protocol::DESTINATION_OPTIONS, 0, 0, 8, 0, 0, 0, 7];
        let layer = upper_layer(&packet(protocol::FRAGMENT, &header)).unwrap();
        assert_eq!(
            layer.fragment,
            Some(Fragment {
                offset: 8,
                more: false,
                identification: 7
            })
        );
        assert_eq!(
            (layer.protocol, layer.offset),
            (protocol::DESTINATION_OPTIONS, 48)
        );
        assert!(layer.is_fragment() && !layer.has_header());
    }
}
