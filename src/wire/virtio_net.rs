//! The header that the kernel puts before each packet of a TUN or TAP device with IFF_VNET_HDR
//! (virtio 1.2 section 5.1.6; linux/virtio_net.h, `struct virtio_net_hdr`).
//!
//! ```text
//! +-------+----------+---------+----------+-----------------+------------------+
//! | flags | gso type | hdr len | gso size | checksum start  | checksum offset  |
//! |   1   |    1     |    2    |    2     |       2         |        2         |
//! +-------+----------+---------+----------+-----------------+------------------+
//! ```
//!
//! * Numbers are in the machine's byte order, as TUNSETVNETLE and TUNSETVNETBE are not used.
//! * `hdr len` is a hint on what to copy, and not to be trusted (section 5.1.6.2).
//! * Offsets count from the packet's first byte, an Ethernet header included.

/// Bytes of the header.
pub const HEADER_LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What a packet has been spared so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VirtioNet {
    /// How it is to be cut into segments; nothing for a packet of its own.
    pub gso: Option<Gso>,
    /// Where its unfinished checksum is; nothing if it is finished.
    pub checksum: Option<PartialChecksum>,
    /// Bytes of headers, all of them: a hint.
    pub header_len: u16,
}

/// How a super-packet is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// What is in it.
    pub kind: GsoKind,
    /// Whether it is TCP with CWR set, which the first segment alone carries on (RFC 3168 section
    /// 6.1.2).
    pub ecn: bool,
    /// Bytes of payload in each segment but the last one.
    pub segment_size: u16,
}

/// What a super-packet holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GsoKind {
    /// A TCP segment over IPv4.
    TcpV4,
    /// A TCP segment over IPv6.
    TcpV6,
    /// UDP datagrams of one size, over either.
    Udp,
}

/// A checksum that is yet to be taken: from `start` to the packet's end, the field included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// The first byte that it covers.
    pub start: u16,
    /// Where the field is, counted from `start`.
    pub offset: u16,
}

/// Bytes that are no header of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VirtioNetError {
    /// The header is cut short.
    #[error("the packet ends within its virtio header of 10 bytes")]
    Truncated,
    /// A kind of super-packet that nobody asked for.
    #[error("a super-packet of unknown kind {0:#x}")]
    UnknownGso(u8),
}

impl VirtioNet {
    /// Parses the header at the front of what was read.
    pub fn parse(bytes: &[u8]) -> Result<Self, VirtioNetError> {
        let h: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(VirtioNetError::Truncated)?;
        let word = |at: usize| u16::from_ne_bytes([h[at], h[at + 1]]);
        let kind = match h[1] & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCP_V4 => Some(GsoKind::TcpV4),
            GSO_TCP_V6 => Some(GsoKind::TcpV6),
            GSO_UDP_L4 => Some(GsoKind::Udp),
            _ => return Err(VirtioNetError::UnknownGso(h[1])),
        };
        Ok(Self {
            gso: kind.map(|kind| Gso {
                kind,
                ecn: h[1] & GSO_ECN != 0,
                segment_size: word(4),
            }),
            checksum: (h[0] & NEEDS_CHECKSUM != 0).then(|| PartialChecksum {
                start: word(6),
                offset: word(8),
            }),
            header_len: word(2),
        })
    }

    /// The same before a packet that has `bytes` more in front of what it covers.
    #[must_use]
    pub fn moved(self, bytes: u16) -> Self {
        let checksum = self.checksum.map(|checksum| PartialChecksum {
            start: checksum.start.saturating_add(bytes),
            ..checksum
        });
        Self {
            checksum,
            header_len: self.header_len.saturating_add(bytes),
            ..self
        }
    }

    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut h = [0; HEADER_LEN];
        h[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        if let Some(gso) = self.gso {
            let kind = match gso.kind {
                GsoKind::TcpV4 => GSO_TCP_V4,
                GsoKind::TcpV6 => GSO_TCP_V6,
                GsoKind::Udp => GSO_UDP_L4,
            };
            h[1] = kind | if gso.ecn { GSO_ECN } else { 0 };
            h[4..6].copy_from_slice(&gso.segment_size.to_ne_bytes());
        }
        if let Some(checksum) = self.checksum {
            h[0] = NEEDS_CHECKSUM;
            h[6..8].copy_from_slice(&checksum.start.to_ne_bytes());
            h[8..].copy_from_slice(&checksum.offset.to_ne_bytes());
        }
        h
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        let checksum = Some(PartialChecksum {
            start: 34,
            offset: 16,
        });
        let gso = |kind, ecn| {
            Some(Gso {
                kind,
                ecn,
                segment_size: 1448,
            })
        };
        for gso in [
            None,
            gso(GsoKind::TcpV4, true),
            gso(GsoKind::TcpV6, false),
            gso(GsoKind::Udp, false),
        ] {
            for checksum in [None, checksum] {
                let header = VirtioNet {
                    gso,
                    checksum,
                    header_len: 54,
                };
                assert_eq!(VirtioNet::parse(&header.to_bytes()), Ok(header));
            }
        }
    }

    #[test]
    fn what_comes_before_the_packet_moves_its_offsets() {
        let header = |start, header_len| VirtioNet {
            gso: None,
            checksum: Some(PartialChecksum { start, offset: 16 }),
            header_len,
        };
        assert_eq!(header(34, 54).moved(4), header(38, 58));
        let plain = VirtioNet::default();
        assert_eq!(plain.moved(4).checksum, None);
    }

    #[test]
    fn what_is_cut_short_or_unknown_is_an_error() {
        assert_eq!(VirtioNet::parse(&[0; 9]), Err(VirtioNetError::Truncated));
        let ufo = [0, 3, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(VirtioNet::parse(&ufo), Err(VirtioNetError::UnknownGso(3)));
    }
}
