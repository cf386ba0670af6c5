//! Putting segments of one flow together again into one super-packet, for a receiver that takes them
//! so: what its kernel's GRO would do, done before the packets get there.
//!
//! The receiver must not be able to tell: cut again as [`segment`](super::segment) cuts, a
//! super-packet gives the very packets that went into it. So packets join only if
//!
//! * all headers are the same but for lengths, checksums, IPv4 identification, the TCP sequence
//!   number, FIN and PSH: addresses, ports, TTL, TOS, flow label, DF, window, options, link header;
//! * they are whole, without IPv4 options, IPv6 extension headers or anything behind the packet;
//! * IPv4 identifications count up by one; with DF set, where they mean nothing (RFC 6864 section
//!   4), they may all be the same;
//! * TCP sequence numbers follow upon each other, ACK is set, and no other flag but ECE; FIN or PSH
//!   ends the run (`tcp_gro_receive`);
//! * all payloads are of one size, but for the last one, which may be shorter and ends the run;
//! * all checksums are right: the super-packet's is then left to the receiver as checked.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::Checksum;
use super::ethernet::EtherType;
use super::ipv4::protocol;
use super::virtio_net::{Gso, GsoKind, PartialChecksum, VirtioNet};
use super::{ethernet, ipv4, ipv6, tcp, udp};

/// Bytes of the longest headers that are put together: Ethernet, IPv6, TCP with all its options.
pub const MAX_HEADERS: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + 60;

/// The most that an IP packet holds.
const MAX_IP_LEN: usize = 65535;

/// A packet that may be put together with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    is_v6: bool,
    is_tcp: bool,
    network: usize,
    transport: usize,
    payload: usize,
    payload_len: usize,
    identification: u16,
    sequence: u32,
    /// TCP: FIN and PSH.
    last_flags: u8,
}

/// Packets of one flow, each of which goes on where the one before ended.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    first: Part,
    count: usize,
    payload_len: usize,
    /// By how much identifications count up; nothing while there is one.
    identification_step: Option<u16>,
    last_flags: u8,
    /// Whether the first packet's checksum was found right; nothing while nobody looked.
    first_is_right: Option<bool>,
    is_closed: bool,
}

impl Part {
    /// Looks at a frame whose IP header is `network` bytes in; nothing if it cannot be part of a
    /// super-packet. Its TCP or UDP checksum is not checked.
    #[inline]
    pub fn of(frame: &[u8], network: usize) -> Option<Self> {
        let ip = frame.get(network..)?;
        let (is_v6, protocol, header_len, identification) = match ip.first()? {
            0x45 => {
                let ip = whole_ipv4(ip)?;
                (false, ip.protocol, ipv4::HEADER_LEN, ip.identification)
            }
            byte if byte >> 4 == 6 => {
                let header = ipv6::Ipv6::parse(ip).ok()?;
                let is_all = header.total_len() == ip.len();
                is_all.then_some((true, header.next_header, ipv6::HEADER_LEN, 0))?
            }
            _ => return None,
        };
        if !link_carries(frame.get(..network)?, is_v6) {
            return None;
        }
        let transport = network + header_len;
        let segment = frame.get(transport..)?;
        let (sequence, last_flags, transport_len) = match protocol {
            protocol::TCP => tcp_part(segment)?,
            protocol::UDP => udp_part(segment)?,
            _ => return None,
        };
        let payload_len = segment.len() - transport_len;
        let part = Self {
            is_v6,
            is_tcp: protocol == protocol::TCP,
            network,
            transport,
            payload: transport + transport_len,
            payload_len,
            identification,
            sequence,
            last_flags,
        };
        (payload_len > 0 && part.payload <= MAX_HEADERS).then_some(part)
    }

    /// Whether it is TCP, else UDP.
    #[inline]
    pub fn is_tcp(&self) -> bool {
        self.is_tcp
    }

    /// Where the payload begins in the frame.
    #[inline]
    pub fn payload(&self) -> usize {
        self.payload
    }

    /// Whether the frame's TCP or UDP checksum is right.
    fn checksum_is_right(&self, frame: &[u8]) -> bool {
        let Some(segment) = frame.get(self.transport..) else {
            return false;
        };
        let pseudo = self.pseudo_header(frame, segment.len());
        pseudo.add_bytes(segment).folded() == 0xffff
    }

    fn pseudo_header(&self, frame: &[u8], length: usize) -> Checksum {
        let protocol = if self.is_tcp {
            protocol::TCP
        } else {
            protocol::UDP
        };
        let ip = &frame[self.network..];
        if self.is_v6 {
            let address = |at: usize| ip[at..].first_chunk::<16>().copied().unwrap_or_default();
            let (source, destination) = (Ipv6Addr::from(address(8)), Ipv6Addr::from(address(24)));
            Checksum::pseudo_ipv6(source, destination, protocol, length)
        } else {
            let address = |at: usize| ip[at..].first_chunk::<4>().copied().unwrap_or_default();
            let (source, destination) = (Ipv4Addr::from(address(12)), Ipv4Addr::from(address(16)));
            Checksum::pseudo_ipv4(source, destination, protocol, length)
        }
    }

    /// Whether two frames' headers differ at most in what may differ within a run.
    fn same_headers(&self, frame: &[u8], other: &Self, other_frame: &[u8]) -> bool {
        let shape = |part: &Self| {
            (
                part.is_v6,
                part.is_tcp,
                part.network,
                part.transport,
                part.payload,
            )
        };
        if shape(self) != shape(other) {
            return false;
        }
        let same = |from: usize, to: usize| frame.get(from..to) == other_frame.get(from..to);
        let (ip, transport) = (self.network, self.transport);
        let ip_is_same = if self.is_v6 {
            // Payload length: 4–5.
            same(0, ip + 4) && same(ip + 6, transport)
        } else {
            // Total length: 2–3, identification: 4–5, checksum: 10–11.
            same(0, ip + 2) && same(ip + 6, ip + 10) && same(ip + 12, transport)
        };
        let transport_is_same = if self.is_tcp {
            // Sequence number: 4–7, flags: 13, checksum: 16–17.
            let others = |frame: &[u8]| frame[transport + tcp::FLAGS] & !(tcp::FIN | tcp::PSH);
            same(transport, transport + 4)
                && same(transport + 8, transport + tcp::FLAGS)
                && others(frame) == others(other_frame)
                && same(transport + tcp::FLAGS + 1, transport + tcp::CHECKSUM)
                && same(transport + tcp::CHECKSUM + 2, self.payload)
        } else {
            same(transport, transport + 4)
        };
        ip_is_same && transport_is_same
    }

    fn dont_fragment(&self, frame: &[u8]) -> bool {
        self.is_v6 || frame[self.network + 6] & 0x40 != 0
    }
}

impl Run {
    /// A run of one.
    #[inline]
    pub fn new(first: Part) -> Self {
        Self {
            first,
            count: 1,
            payload_len: first.payload_len,
            identification_step: None,
            last_flags: first.last_flags,
            first_is_right: None,
            is_closed: first.last_flags != 0,
        }
    }

    /// The run's first packet.
    pub fn first(&self) -> &Part {
        &self.first
    }

    /// How many packets there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Ends the run: nothing joins it any more.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether nothing joins it any more.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Takes a packet in, if it goes on where the run ends. `head` is the first packet's frame,
    /// `frame` is that of `part`.
    pub fn join(&mut self, head: &[u8], part: &Part, frame: &[u8]) -> bool {
        let step = part.identification.wrapping_sub(self.first.identification);
        let fits = !self.is_closed
            && part.payload_len <= self.first.payload_len
            && self.length() + part.payload_len <= MAX_IP_LEN
            && self.goes_on_with(part)
            && self.identification_fits(head, step)
            && self.first.same_headers(head, part, frame);
        if !fits {
            return false;
        }
        let first = self.first;
        let first_is_right = *self
            .first_is_right
            .get_or_insert_with(|| first.checksum_is_right(head));
        if !first_is_right || !part.checksum_is_right(frame) {
            return false;
        }
        self.identification_step.get_or_insert(step);
        self.count += 1;
        self.payload_len += part.payload_len;
        self.last_flags = part.last_flags;
        self.is_closed = part.last_flags != 0 || part.payload_len < self.first.payload_len;
        true
    }

    /// The headers of the run as one packet, made of those of its first packet's frame: their length
    /// in `out`, and what goes before them.
    pub fn headers(&self, head: &[u8], out: &mut [u8; MAX_HEADERS]) -> (usize, VirtioNet) {
        let Part {
            network,
            transport,
            payload,
            ..
        } = self.first;
        out[..payload].copy_from_slice(&head[..payload]);
        let segment_len = payload - transport + self.payload_len;
        let ip_len = transport - network + segment_len;
        let pseudo = self.first.pseudo_header(head, segment_len).folded();
        if self.first.is_v6 {
            let payload_len = (ip_len - ipv6::HEADER_LEN) as u16;
            out[network + 4..network + 6].copy_from_slice(&payload_len.to_be_bytes());
        } else {
            ipv4::set_total_len(&mut out[network..], ip_len as u16);
        }
        let segment = &mut out[transport..payload];
        let field = if self.first.is_tcp {
            segment[tcp::FLAGS] |= self.last_flags;
            tcp::CHECKSUM
        } else {
            segment[4..6].copy_from_slice(&(segment_len as u16).to_be_bytes());
            udp::CHECKSUM
        };
        segment[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        (payload, self.offload(field))
    }

    fn offload(&self, field: usize) -> VirtioNet {
        let kind = match (self.first.is_tcp, self.first.is_v6) {
            (true, false) => GsoKind::TcpV4,
            (true, true) => GsoKind::TcpV6,
            (false, _) => GsoKind::Udp,
        };
        VirtioNet {
            gso: Some(Gso {
                kind,
                ecn: false,
                segment_size: self.first.payload_len as u16,
            }),
            checksum: Some(PartialChecksum {
                start: self.first.transport as u16,
                offset: field as u16,
            }),
            header_len: self.first.payload as u16,
        }
    }

    /// Bytes of the run as one IP packet.
    fn length(&self) -> usize {
        self.first.payload - self.first.network + self.payload_len
    }

    fn goes_on_with(&self, part: &Part) -> bool {
        !self.first.is_tcp
            || part.sequence == self.first.sequence.wrapping_add(self.payload_len as u32)
    }

    fn identification_fits(&self, head: &[u8], step: u16) -> bool {
        let counts_up = step == self.count as u16;
        let stays = step == 0 && self.first.dont_fragment(head);
        match self.identification_step {
            None => counts_up || stays,
            Some(0) => stays,
            Some(_) => counts_up,
        }
    }
}

/// Whether two frames, whose IP headers are `network` bytes in, may be of one flow, so that one must
/// not overtake the other: the addresses are the same and the ports, if both have them, are too.
pub fn may_be_one_flow(frame: &[u8], other: &[u8], network: usize) -> bool {
    let (Some(a), Some(b)) = (frame.get(network..), other.get(network..)) else {
        return true;
    };
    let version = |ip: &[u8]| ip.first().map(|byte| byte >> 4);
    let addresses = match (version(a), version(b)) {
        (Some(4), Some(4)) => 12..20,
        (Some(6), Some(6)) => 8..40,
        (a, b) => return a == b,
    };
    if a.get(addresses.clone()) != b.get(addresses) {
        return false;
    }
    match (ports(a), ports(b)) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

/// Protocol and ports of an unfragmented TCP or UDP packet without options or extension headers.
fn ports(ip: &[u8]) -> Option<(u8, [u8; 4])> {
    let (protocol, at) = match ip.first()? {
        0x45 => {
            let is_fragment = ip.get(6)? & 0x3f != 0 || *ip.get(7)? != 0;
            (!is_fragment).then_some((*ip.get(9)?, ipv4::HEADER_LEN))?
        }
        byte if byte >> 4 == 6 => (*ip.get(6)?, ipv6::HEADER_LEN),
        _ => return None,
    };
    let has_ports = matches!(protocol, protocol::TCP | protocol::UDP);
    has_ports.then_some((protocol, *ip.get(at..)?.first_chunk()?))
}

/// An IPv4 packet that is no fragment and all that there is, with a right header checksum.
fn whole_ipv4(packet: &[u8]) -> Option<ipv4::Ipv4> {
    let ip = ipv4::Ipv4::parse(packet).ok()?;
    (!ip.is_fragment() && ip.total_len == packet.len()).then_some(ip)
}

/// Whether a link header is none, or one without a tag that says what follows.
fn link_carries(link: &[u8], is_v6: bool) -> bool {
    let ethertype = if is_v6 {
        EtherType::IPV6
    } else {
        EtherType::IPV4
    };
    match link.len() {
        0 => true,
        ethernet::HEADER_LEN => link[12..] == ethertype.0.to_be_bytes(),
        _ => false,
    }
}

/// Sequence number, FIN and PSH, and header length of a segment that may be part of a run.
fn tcp_part(segment: &[u8]) -> Option<(u32, u8, usize)> {
    let header: &[u8; tcp::HEADER_LEN] = segment.first_chunk()?;
    let flags = header[tcp::FLAGS];
    let others = flags & !(tcp::FIN | tcp::PSH | tcp::ECE);
    let header_len = tcp::header_len(segment)?;
    (others == tcp::ACK).then_some((
        tcp::sequence(header),
        flags & (tcp::FIN | tcp::PSH),
        header_len,
    ))
}

/// The same for a datagram, which must have a checksum.
fn udp_part(datagram: &[u8]) -> Option<(u32, u8, usize)> {
    let udp = udp::Udp::parse(datagram).ok()?;
    (udp.length == datagram.len() && udp.checksum != 0).then_some((0, 0, udp::HEADER_LEN))
}
