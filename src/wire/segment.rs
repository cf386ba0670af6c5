//! Cutting a super-packet into the packets that the kernel would have made of it.
//!
//! A sender whose device takes them off its hands (TSO, USO) hands over up to 64 KB of one flow
//! behind one set of headers. Each segment gets a copy of these headers, changed as
//! `inet_gso_segment`, `ipv6_gso_segment`, `tcp_gso_segment` and `__udp_gso_segment` do:
//!
//! | field | in each segment |
//! |---|---|
//! | IPv4 total length, IPv6 payload length, UDP length | its own |
//! | IPv4 identification | one more than in the one before |
//! | TCP sequence number | more by the payload before it |
//! | TCP FIN and PSH | in the last one alone |
//! | TCP CWR | in the first one alone (RFC 3168 section 6.1.2) |
//! | checksums | finished |
//!
//! The super-packet's TCP or UDP checksum field holds the folded sum of its pseudo-header; a
//! segment's pseudo-header differs from it in the length alone, whatever headers are in between.

use super::checksum::{self, Checksum};
use super::virtio_net::{Gso, GsoKind, PartialChecksum};
use super::{ipv4, ipv6, tcp, udp};

/// How a super-packet is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    kind: GsoKind,
    version: Version,
    /// Where the IP header begins: behind the link header.
    network: usize,
    /// Where the TCP or UDP header begins.
    transport: usize,
    /// Where the payload begins.
    payload: usize,
    /// The byte behind the payload's last one.
    end: usize,
    segment_size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V4 { header_len: usize },
    V6,
}

/// Bytes that cannot be cut into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The headers are cut short, or say what is not so.
    #[error("the super-packet's headers are cut short or contradict each other")]
    Headers,
    /// Segments would be empty.
    #[error("the super-packet's segment size is zero")]
    SegmentSize,
    /// There is no checksum to be finished, so that nothing says where the transport header is.
    #[error("the super-packet's checksum is not left to its receiver")]
    NoChecksum,
}

impl Segments {
    /// Looks at a super-packet whose IP header is `network` bytes in.
    pub fn of(
        packet: &[u8],
        network: usize,
        gso: Gso,
        checksum: Option<PartialChecksum>,
    ) -> Result<Self, SegmentError> {
        let checksum = checksum.ok_or(SegmentError::NoChecksum)?;
        if gso.segment_size == 0 {
            return Err(SegmentError::SegmentSize);
        }
        let transport = usize::from(checksum.start);
        let version = Version::of(packet, network, transport).ok_or(SegmentError::Headers)?;
        let header = packet.get(transport..).ok_or(SegmentError::Headers)?;
        let header_len = match (gso.kind, version) {
            (GsoKind::TcpV4, Version::V4 { .. }) | (GsoKind::TcpV6, Version::V6) => {
                tcp::header_len(header).ok_or(SegmentError::Headers)?
            }
            (GsoKind::Udp, _) => udp::HEADER_LEN,
            _ => return Err(SegmentError::Headers),
        };
        if header.len() < header_len {
            return Err(SegmentError::Headers);
        }
        Ok(Self {
            kind: gso.kind,
            version,
            network,
            transport,
            payload: transport + header_len,
            end: packet.len(),
            segment_size: usize::from(gso.segment_size),
        })
    }

    /// How many segments there are: one for a packet without payload.
    pub fn count(&self) -> usize {
        (self.end - self.payload).div_ceil(self.segment_size).max(1)
    }

    /// Writes segment `number`, from 0, of the super-packet that was looked at, link header included,
    /// and returns its length; 0, and nothing written, if `out` is too short or there is no such
    /// segment.
    pub fn write(&self, packet: &[u8], number: usize, out: &mut [u8]) -> usize {
        let before = number * self.segment_size;
        let from = self.payload + before;
        if number >= self.count() || self.end > packet.len() {
            return 0;
        }
        let payload = &packet[from..self.end.min(from + self.segment_size)];
        let length = self.payload + payload.len();
        let Some(out) = out.get_mut(..length) else {
            return 0;
        };
        out[..self.payload].copy_from_slice(&packet[..self.payload]);
        out[self.payload..].copy_from_slice(payload);
        self.write_ip(number, &mut out[self.network..]);
        let is_last = from + payload.len() == self.end;
        self.write_transport(number, before, is_last, &mut out[self.transport..]);
        length
    }

    fn write_ip(&self, number: usize, packet: &mut [u8]) {
        let total_len = packet.len();
        match self.version {
            Version::V4 { header_len } => {
                let header = &mut packet[..header_len];
                let identification = u16::from_be_bytes([header[4], header[5]]);
                let identification = identification.wrapping_add(number as u16);
                header[2..4].copy_from_slice(&(total_len as u16).to_be_bytes());
                header[4..6].copy_from_slice(&identification.to_be_bytes());
                header[10..12].fill(0);
                let sum = checksum::of(header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Version::V6 => {
                let payload_len = (total_len - ipv6::HEADER_LEN) as u16;
                packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
            }
        }
    }

    fn write_transport(&self, number: usize, before: usize, is_last: bool, segment: &mut [u8]) {
        let length = segment.len();
        let field = match self.kind {
            GsoKind::TcpV4 | GsoKind::TcpV6 => {
                tcp::advance(segment, before as u32);
                if !is_last {
                    segment[tcp::FLAGS] &= !(tcp::FIN | tcp::PSH);
                }
                if number > 0 {
                    segment[tcp::FLAGS] &= !tcp::CWR;
                }
                tcp::CHECKSUM
            }
            GsoKind::Udp => {
                segment[4..6].copy_from_slice(&(length as u16).to_be_bytes());
                udp::CHECKSUM
            }
        };
        // In place of the whole packet's length in the pseudo-header's sum comes the segment's.
        let whole = self.end - self.transport;
        let pseudo = u16::from_be_bytes([segment[field], segment[field + 1]]);
        let pseudo = Checksum::new()
            .add_word(pseudo)
            .add_word(!(whole as u16))
            .add_word(length as u16);
        segment[field..field + 2].fill(0);
        let sum = match pseudo.add_bytes(segment).finish() {
            0 if self.kind == GsoKind::Udp => 0xffff,
            sum => sum,
        };
        segment[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

impl Version {
    /// The IP version; nothing for what is no IP packet whose transport header is where it is said to
    /// be. The lengths in a super-packet's headers need not be believed: what was read is all.
    fn of(packet: &[u8], network: usize, transport: usize) -> Option<Self> {
        let ip = packet.get(network..)?;
        match ip.first()? >> 4 {
            4 => {
                let header_len = ipv4::Ipv4::parse_quoted(ip).ok()?.header_len;
                (transport == network + header_len).then_some(Self::V4 { header_len })
            }
            6 => (transport >= network + ipv6::HEADER_LEN).then_some(Self::V6),
            _ => None,
        }
    }
}

/// Finishes the checksum of a packet of its own, as `skb_checksum_help` does: the field holds the
/// folded sum of the pseudo-header; zero becomes 0xffff. False, and nothing changed, if the field is
/// not in the packet.
pub fn finish_checksum(packet: &mut [u8], checksum: PartialChecksum) -> bool {
    let Some(covered) = packet.get_mut(usize::from(checksum.start)..) else {
        return false;
    };
    let field = usize::from(checksum.offset);
    let Some(end) = field.checked_add(2).filter(|end| *end <= covered.len()) else {
        return false;
    };
    let sum = match checksum::of(covered) {
        0 => 0xffff,
        sum => sum,
    };
    covered[field..end].copy_from_slice(&sum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv6 header and TCP's before 25 bytes, behind a link header with these tags.
    fn super_packet(tags: &[u8]) -> Vec<u8> {
        let mut ip = vec![0; 60 + 25];
        ip[0] = 0x60;
        ip[6] = 6;
        ip[52] = 0x50;
        for (byte, at) in ip[60..].iter_mut().zip(1..) {
            *byte = at;
        }
        [&[2; 12], tags, &[0x86, 0xdd], &ip].concat()
    }

    fn segments(tags: &[u8]) -> Vec<Vec<u8>> {
        let packet = super_packet(tags);
        let network = 14 + tags.len();
        let gso = Gso {
            kind: GsoKind::TcpV6,
            ecn: false,
            segment_size: 10,
        };
        let checksum = PartialChecksum {
            start: network as u16 + 40,
            offset: 16,
        };
        let segments = Segments::of(&packet, network, gso, Some(checksum)).expect("a super-packet");
        let cut = (0..segments.count()).map(|number| {
            let mut out = vec![0; 200];
            let length = segments.write(&packet, number, &mut out);
            out[..length].to_vec()
        });
        cut.collect()
    }

    #[test]
    fn each_segment_has_the_tags_of_all() {
        let untagged = segments(&[]);
        let lengths: Vec<_> = untagged.iter().map(Vec::len).collect();
        assert_eq!(lengths, [84, 84, 79]);
        let one = [0x81, 0, 0x60, 10];
        let two = [0x88, 0xa8, 0, 20, 0x81, 0, 0, 10];
        for tags in [&one[..], &two] {
            let tagged = |frame: &Vec<u8>| [&frame[..12], tags, &frame[12..]].concat();
            let expected: Vec<_> = untagged.iter().map(tagged).collect();
            assert_eq!(segments(tags), expected);
        }
    }
}
