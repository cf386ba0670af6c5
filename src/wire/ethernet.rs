//! Ethernet II frames (IEEE 802.3 clause 3) with at most one 802.1Q tag.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                      Destination address                      |
//! +                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                               |                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//! |                         Source address                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   TPID 0x8100 (if tagged)     |PCP |D|         VID            |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |          EtherType            |  payload …
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! * An EtherType under 0x0600 is a length (IEEE 802.3 clause 3.2.6): such frames carry no IP and
//!   are for the caller to drop as an unknown EtherType.
//! * A second tag is not taken off: the EtherType is then 0x8100 (or 0x88a8, 802.1ad) itself.
//! * VID 0 is a priority tag, a frame of no VLAN; VID 4095 is reserved (IEEE 802.1Q clause 9.6).

use std::fmt;

use super::MacAddr;

/// Bytes of a header without a tag.
pub const HEADER_LEN: usize = 14;

/// Bytes of an 802.1Q tag: TPID and control information.
pub const TAG_LEN: usize = 4;

/// Bytes of a header with one 802.1Q tag.
pub const TAGGED_HEADER_LEN: usize = HEADER_LEN + TAG_LEN;

/// What an Ethernet frame carries (IANA, IEEE 802 numbers).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// An 802.1Q tag.
    pub const VLAN: Self = Self(0x8100);
    /// The outer of two tags (802.1ad).
    pub const SERVICE_VLAN: Self = Self(0x88a8);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4 => f.write_str("IPv4"),
            Self::ARP => f.write_str("ARP"),
            Self::VLAN => f.write_str("802.1Q"),
            Self::SERVICE_VLAN => f.write_str("802.1ad"),
            Self::IPV6 => f.write_str("IPv6"),
            Self(number) => write!(f, "0x{number:04x}"),
        }
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An 802.1Q tag's control information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VlanTag {
    /// Priority code point, 0–7.
    pub priority: u8,
    /// Drop eligible indicator.
    pub drop_eligible: bool,
    /// VLAN identifier, 0–4095.
    pub id: u16,
}

/// An Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// The station that the frame is for.
    pub destination: MacAddr,
    /// The station that sent it.
    pub source: MacAddr,
    /// What follows the header, behind the tag if there is one.
    pub ethertype: EtherType,
    /// The 802.1Q tag.
    pub vlan: Option<VlanTag>,
}

/// Bytes that are no Ethernet frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EthernetError {
    /// The frame ends within its header.
    #[error("the frame ends within its Ethernet header of 14 bytes, 18 with a tag")]
    Truncated,
}

impl Ethernet {
    /// Parses the header at the front of a frame.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, EthernetError> {
        let header: &[u8; HEADER_LEN] = frame.first_chunk().ok_or(EthernetError::Truncated)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let mut ethernet = Self {
            destination: MacAddr([d0, d1, d2, d3, d4, d5]),
            source: MacAddr([s0, s1, s2, s3, s4, s5]),
            ethertype: EtherType(u16::from_be_bytes([t0, t1])),
            vlan: None,
        };
        if ethernet.ethertype == EtherType::VLAN {
            ethernet.parse_tag(frame)?;
        }
        Ok(ethernet)
    }

    /// The header's length in bytes: where the payload begins.
    #[inline]
    pub const fn header_len(&self) -> usize {
        if self.vlan.is_some() {
            TAGGED_HEADER_LEN
        } else {
            HEADER_LEN
        }
    }

    /// Writes the header and returns its length, or 0 if `out` is too short.
    #[inline]
    pub fn write(&self, out: &mut [u8]) -> usize {
        match self.vlan {
            None => self.write_untagged(out),
            Some(tag) => self.write_tagged(tag, out),
        }
    }

    #[inline]
    fn parse_tag(&mut self, frame: &[u8]) -> Result<(), EthernetError> {
        let header: &[u8; TAGGED_HEADER_LEN] =
            frame.first_chunk().ok_or(EthernetError::Truncated)?;
        let control = u16::from_be_bytes([header[14], header[15]]);
        self.ethertype = EtherType(u16::from_be_bytes([header[16], header[17]]));
        self.vlan = Some(VlanTag {
            priority: (control >> 13) as u8,
            drop_eligible: control & 0x1000 != 0,
            id: control & 0x0fff,
        });
        Ok(())
    }

    #[inline]
    fn write_untagged(&self, out: &mut [u8]) -> usize {
        let Some(out) = out.first_chunk_mut::<HEADER_LEN>() else {
            return 0;
        };
        out[..6].copy_from_slice(&self.destination.0);
        out[6..12].copy_from_slice(&self.source.0);
        out[12..].copy_from_slice(&self.ethertype.0.to_be_bytes());
        HEADER_LEN
    }

    #[inline]
    fn write_tagged(&self, tag: VlanTag, out: &mut [u8]) -> usize {
        let Some(out) = out.first_chunk_mut::<TAGGED_HEADER_LEN>() else {
            return 0;
        };
        let control = u16::from(tag.priority & 7) << 13
            | u16::from(tag.drop_eligible) << 12
            | tag.id & 0x0fff;
        out[..6].copy_from_slice(&self.destination.0);
        out[6..12].copy_from_slice(&self.source.0);
        out[12..14].copy_from_slice(&EtherType::VLAN.0.to_be_bytes());
        out[14..16].copy_from_slice(&control.to_be_bytes());
        out[16..].copy_from_slice(&self.ethertype.0.to_be_bytes());
        TAGGED_HEADER_LEN
    }
}

/// What a frame carries behind up to two tags, and where in the frame that begins; nothing if the
/// frame ends before.
#[inline]
pub fn network(frame: &[u8]) -> Option<(EtherType, usize)> {
    let mut at = HEADER_LEN;
    for _ in 0..3 {
        let bytes = frame.get(at - 2..at)?;
        match EtherType(u16::from_be_bytes([bytes[0], bytes[1]])) {
            EtherType::VLAN | EtherType::SERVICE_VLAN => at += TAG_LEN,
            ethertype => return Some((ethertype, at)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_cut_short_is_truncated() {
        let mut frame = [0; TAGGED_HEADER_LEN];
        frame[12] = 0x81;
        assert!(Ethernet::parse(&frame).is_ok());
        assert_eq!(Ethernet::parse(&frame[..17]), Err(EthernetError::Truncated));
        assert_eq!(Ethernet::parse(&frame[..13]), Err(EthernetError::Truncated));
    }

    #[test]
    fn no_room_writes_nothing() {
        let mut ethernet = Ethernet {
            destination: MacAddr::BROADCAST,
            source: MacAddr::WORKLOAD_GATEWAY,
            ethertype: EtherType::ARP,
            vlan: None,
        };
        let mut out = [0; 17];
        assert_eq!(ethernet.write(&mut out[..13]), 0);
        ethernet.vlan = Some(VlanTag::default());
        assert_eq!(ethernet.write(&mut out), 0);
        assert_eq!(out, [0; 17]);
    }

    #[test]
    fn the_network_header_is_found_behind_tags() {
        let header = [0x02; 12];
        let frame = |types: &[u8]| [&header[..], types].concat();
        let ip = (EtherType::IPV4, 14);
        assert_eq!(network(&frame(&[8, 0])), Some(ip));
        let one = frame(&[0x81, 0, 0, 5, 0x86, 0xdd]);
        assert_eq!(network(&one), Some((EtherType::IPV6, 18)));
        let two = frame(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 6]);
        assert_eq!(network(&two), Some((EtherType::ARP, 22)));
        let three = [&two[..20], &[0x81, 0, 0, 7, 8, 0]].concat();
        assert_eq!(network(&three), None);
        assert_eq!(network(&two[..21]), None);
    }
}
