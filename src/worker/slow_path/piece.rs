//! One outer fragment, of either IP version (RFC 791 section 3.2, RFC 8200 section 4.5).

use std::net::IpAddr;

use crate::packet::PortId;
use crate::wire::checksum;
use crate::wire::ipv4::{Ipv4, protocol};
use crate::wire::ipv6::{self, Ipv6};

/// The largest IPv4 packet, and the largest payload of an IPv6 one.
const MOST_LENGTH: usize = 65535;

/// What the fragments of one packet have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IPv4's; over IPv6 it is the first fragment's business alone (RFC 8200 section 4.5).
    pub protocol: u8,
    pub identification: u32,
    /// The port that its link is behind, where its addresses may be the link's alone.
    pub link: Option<PortId>,
}

/// A fragment that can be part of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub key: Key,
    /// The IP header in front of it, the fragment header of IPv6 left out.
    pub header: &'a [u8],
    /// The protocol of its payload.
    pub next_header: u8,
    /// Where its payload begins in the whole packet's.
    pub start: usize,
    /// Whether others follow.
    pub more: bool,
    /// The two bits of its ECN field.
    pub ecn: u8,
    pub payload: &'a [u8],
}

impl<'a> Piece<'a> {
    /// Reads a packet; nothing if it is no fragment, or one that no packet can have.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let piece = match packet.first()? >> 4 {
            4 => Self::parse_v4(packet)?,
            6 => Self::parse_v6(packet)?,
            _ => return None,
        };
        let before = match piece.key.source {
            IpAddr::V4(_) => piece.header.len(),
            IpAddr::V6(_) => 0,
        };
        let sensible = !piece.payload.is_empty()
            && (!piece.more || piece.payload.len().is_multiple_of(8))
            && before + piece.start + piece.payload.len() <= MOST_LENGTH;
        sensible.then_some(piece)
    }

    /// Whether it is a whole packet by itself.
    pub(super) fn is_atomic(&self) -> bool {
        self.start == 0 && !self.more
    }

    fn parse_v4(packet: &'a [u8]) -> Option<Self> {
        let ip = Ipv4::parse(packet).ok().filter(Ipv4::is_fragment)?;
        Some(Self {
            key: Key {
                source: ip.source.into(),
                destination: ip.destination.into(),
                protocol: ip.protocol,
                identification: ip.identification.into(),
                link: None,
            },
            header: &packet[..ip.header_len],
            next_header: ip.protocol,
            start: usize::from(ip.fragment_offset),
            more: ip.more_fragments,
            ecn: ip.tos & 0b11,
            payload: packet.get(ip.header_len..ip.total_len)?,
        })
    }

    /// Only a fragment header right behind the fixed one: nobody's tunnel sends other extensions.
    fn parse_v6(packet: &'a [u8]) -> Option<Self> {
        let ip = Ipv6::parse(packet).ok()?;
        let header = ipv6::Fragment::parse(packet.get(ipv6::HEADER_LEN..)?)?;
        let (fragment, next_header) = header;
        // Nobody fragments fragments: they would be put together again and again.
        if ip.next_header != protocol::FRAGMENT || next_header == protocol::FRAGMENT {
            return None;
        }
        Some(Self {
            key: Key {
                source: ip.source.into(),
                destination: ip.destination.into(),
                protocol: protocol::FRAGMENT,
                identification: fragment.identification,
                link: None,
            },
            header: &packet[..ipv6::HEADER_LEN],
            next_header,
            start: usize::from(fragment.offset),
            more: fragment.more,
            ecn: ip.traffic_class & 0b11,
            payload: packet.get(ipv6::HEADER_LEN + ipv6::FRAGMENT_LEN..ip.total_len())?,
        })
    }
}

/// The header of the whole packet, made of its first fragment's and what that says comes behind; nothing if header and payload are too
/// long together.
pub(super) fn whole_header(
    key: &Key,
    (first, next_header): (&[u8], u8),
    payload_len: usize,
    ecn: u8,
) -> Option<Vec<u8>> {
    let mut header = first.to_vec();
    match key.source {
        IpAddr::V4(_) => {
            let length = u16::try_from(header.len() + payload_len).ok()?;
            header[1] = header[1] & !0b11 | ecn;
            header[2..4].copy_from_slice(&length.to_be_bytes());
            header[6..8].fill(0);
            header[10..12].fill(0);
            let sum = checksum::of(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        IpAddr::V6(_) => {
            let traffic_class = Ipv6::parse_quoted(&header).ok()?.traffic_class & !0b11 | ecn;
            ipv6::set_traffic_class(&mut header, traffic_class);
            ipv6::set_payload_len(&mut header, u16::try_from(payload_len).ok()?);
            header[6] = next_header;
        }
    }
    Some(header)
}
