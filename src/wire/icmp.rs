//! ICMP for IPv4 (RFC 792; hosts: RFC 1122 section 3.2.2; routers: RFC 1812 section 4.3).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     Type      |     Code      |          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  rest of the header: identifier and sequence number (echo),   |
//! |  zero (unreachable, time exceeded), zero and next-hop MTU     |
//! |  (fragmentation needed, RFC 1191 section 4)                   |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  echo data, or the offending packet from its IP header on …   |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! * An error MUST quote the offender's header and at least 8 bytes behind it, and SHOULD quote as
//!   much as makes no more than 576 bytes (RFC 1812 section 4.3.2.3).
//! * An error MUST NOT be sent about an ICMP error, a packet to a broadcast or multicast address, a
//!   fragment but the first, or a source that is no single host's (section 4.3.2.7).
//! * An error SHOULD have precedence 6 or 7 and the offender's TOS (section 4.3.2.5).
//! * An echo's identifier, sequence number and data MUST come back (RFC 1122 section 3.2.2.6), with
//!   the TOS of the request (RFC 1812 section 4.3.2.5).

use core::net::Ipv4Addr;

use super::checksum;
use super::ipv4::{self, Ipv4, protocol};

/// Bytes of a message's header.
pub const HEADER_LEN: usize = 8;

/// Bytes that an error has at most, its IP header included (RFC 1812 section 4.3.2.3).
pub const MAX_ERROR_LEN: usize = 576;

/// No IPv4 link has less (RFC 791 section 3.2, RFC 1191 section 3).
pub const LEAST_MTU: u16 = 68;

/// MTUs of common links, for routers that do not say theirs (RFC 1191 section 7.1).
pub const PLATEAUS: [u16; 11] = [
    65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, LEAST_MTU,
];

/// The TTL of messages that the router makes (IANA, IP option numbers: the default TTL).
const TTL: u8 = 64;

/// Message types (IANA, ICMP parameters).
pub mod types {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const DESTINATION_UNREACHABLE: u8 = 3;
    /// Source quench (deprecated by RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Codes of destination unreachable and time exceeded (IANA, ICMP parameters).
pub mod codes {
    /// Destination unreachable: no route to the network.
    pub const NET_UNREACHABLE: u8 = 0;
    /// Destination unreachable: the network is reached, the host is not.
    pub const HOST_UNREACHABLE: u8 = 1;
    /// Destination unreachable: the host does not know the protocol.
    pub const PROTOCOL_UNREACHABLE: u8 = 2;
    /// Destination unreachable: nobody listens on the port.
    pub const PORT_UNREACHABLE: u8 = 3;
    /// Destination unreachable: too big, and DF is set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Destination unreachable: the source route leads nowhere.
    pub const SOURCE_ROUTE_FAILED: u8 = 5;
    /// Destination unreachable: forbidden by a filter.
    pub const ADMINISTRATIVELY_PROHIBITED: u8 = 13;
    /// Time exceeded: the TTL ran out on the way.
    pub const TTL_EXCEEDED: u8 = 0;
    /// Time exceeded: a fragment was missing for too long.
    pub const REASSEMBLY_TIME_EXCEEDED: u8 = 1;
}

/// A message's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    /// The type: see [`types`].
    pub message_type: u8,
    /// The code: see [`codes`].
    pub code: u8,
    /// The four bytes behind the checksum.
    pub rest: [u8; 4],
}

/// Bytes that are no ICMP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IcmpError {
    /// The message is shorter than 8 bytes.
    #[error("the packet ends within its ICMP header of 8 bytes")]
    Truncated,
    /// The checksum is wrong.
    #[error("the ICMP checksum is wrong")]
    Checksum,
}

impl Icmp {
    /// Parses a message and checks its checksum; `message` is the whole IP payload, nothing behind.
    #[inline]
    pub fn parse(message: &[u8]) -> Result<Self, IcmpError> {
        let header: &[u8; HEADER_LEN] = message.first_chunk().ok_or(IcmpError::Truncated)?;
        if !checksum::is_valid(message) {
            return Err(IcmpError::Checksum);
        }
        let [message_type, code, _, _, r0, r1, r2, r3] = *header;
        Ok(Self {
            message_type,
            code,
            rest: [r0, r1, r2, r3],
        })
    }

    /// The identifier of an echo request or reply.
    pub const fn identifier(&self) -> u16 {
        u16::from_be_bytes([self.rest[0], self.rest[1]])
    }

    /// The sequence number of an echo request or reply.
    pub const fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.rest[2], self.rest[3]])
    }

    /// The next-hop MTU of a fragmentation needed, in bytes; `None` for other messages. 0 comes from
    /// routers older than RFC 1191.
    pub const fn next_hop_mtu(&self) -> Option<u16> {
        match (self.message_type, self.code) {
            (types::DESTINATION_UNREACHABLE, codes::FRAGMENTATION_NEEDED) => {
                Some(u16::from_be_bytes([self.rest[2], self.rest[3]]))
            }
            _ => None,
        }
    }
}

/// Whether messages of this type report an error about the packet that they quote.
#[inline]
pub const fn is_error(message_type: u8) -> bool {
    matches!(
        message_type,
        types::DESTINATION_UNREACHABLE
            | types::SOURCE_QUENCH
            | types::REDIRECT
            | types::TIME_EXCEEDED
            | types::PARAMETER_PROBLEM
    )
}

/// What an error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Destination unreachable with this code (see [`codes`]); for
    /// [`codes::FRAGMENTATION_NEEDED`] use [`ErrorKind::FragmentationNeeded`].
    DestinationUnreachable(u8),
    /// Destination unreachable, too big and DF set.
    FragmentationNeeded {
        /// The largest IP packet that fits, in bytes.
        mtu: u16,
    },
    /// Time exceeded with this code (see [`codes`]).
    TimeExceeded(u8),
}

/// Whether an error may be sent about a packet (RFC 1812 section 4.3.2.7). `packet` is the offender,
/// `ip` its parsed header. Broadcasts to a subnet or an Ethernet group are for the caller to know.
#[inline]
pub fn may_answer(ip: &Ipv4, packet: &[u8]) -> bool {
    ip.fragment_offset == 0
        && is_host(ip.source)
        && !ip.source.is_loopback()
        && is_host(ip.destination)
        && !(ip.protocol == protocol::ICMP
            && packet.get(ip.header_len).is_none_or(|t| is_error(*t)))
}

/// Writes an IPv4 packet with an error about `original` and returns its length; 0, and nothing
/// written, if `original` has no IPv4 header or `out` has no room for the least quotation (the
/// offender's header and 8 bytes).
///
/// `original` is the offender from its IP header on, as it was received; as much of it is quoted as
/// makes 576 bytes or fits into `out`. `destination` is its source, `source` an address of the router.
/// Whether an error is due, [`may_answer`] says.
pub fn write_error(
    kind: ErrorKind,
    original: &[u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    out: &mut [u8],
) -> usize {
    let Ok(offender) = Ipv4::parse_quoted(original) else {
        return 0;
    };
    const BEFORE: usize = ipv4::HEADER_LEN + HEADER_LEN;
    let available = offender.total_len.min(original.len());
    let least = available.min(offender.header_len + 8);
    let Some(room) = out.len().checked_sub(BEFORE).filter(|room| *room >= least) else {
        return 0;
    };
    let quoted = available.min(MAX_ERROR_LEN - BEFORE).min(room);
    let total_len = BEFORE + quoted;
    let header = Ipv4 {
        header_len: ipv4::HEADER_LEN,
        // Precedence 6, the offender's TOS, and no ECN: the router does not react to congestion.
        tos: 0xc0 | offender.tos & 0x1c,
        total_len,
        // With DF set and within the least MTU of any link that matters, it may be the same in all
        // (RFC 6864 section 4.1).
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: TTL,
        protocol: protocol::ICMP,
        source,
        destination,
    };
    let (ip, message) = out[..total_len].split_at_mut(ipv4::HEADER_LEN);
    header.write(ip);
    message[HEADER_LEN..].copy_from_slice(&original[..quoted]);
    write_header(kind, message);
    total_len
}

/// Makes an IPv4 packet with an error shorter, to at most `length` bytes: it quotes less.
///
/// False, and nothing changed, if it is no error, or would have to quote less than the offender's header
/// and 8 bytes.
pub fn shorten_error(packet: &mut Vec<u8>, length: usize) -> bool {
    let Ok(mut ip) = Ipv4::parse(packet) else {
        return false;
    };
    const BEFORE: usize = ipv4::HEADER_LEN + HEADER_LEN;
    let bytes = packet.get(..ip.total_len).unwrap_or_default();
    let is_error = bytes.get(ipv4::HEADER_LEN).is_some_and(|t| is_error(*t));
    let whole = ip.header_len == ipv4::HEADER_LEN && !ip.is_fragment();
    let offender = bytes.get(BEFORE..).map(Ipv4::parse_quoted);
    let Some(Ok(offender)) = offender.filter(|_| is_error && whole) else {
        return false;
    };
    if ip.protocol != protocol::ICMP || length < BEFORE + offender.header_len + 8 {
        return false;
    }
    ip.total_len = ip.total_len.min(length);
    packet.truncate(ip.total_len);
    ip.write(packet);
    let message = &mut packet[ipv4::HEADER_LEN..];
    message[2..4].fill(0);
    let checksum = checksum::of(message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Turns an IPv4 packet with an echo request into the reply to it: addresses swapped, TTL 64, both
/// checksums updated, all else kept. Bytes behind the packet do not count.
///
/// False, and nothing changed, if it is no echo request, is a fragment, has a wrong checksum in either
/// header, or has a source route: that would have to be reversed (RFC 1122 section 3.2.2.6). Whether
/// the destination is the router's, and the source one to answer, is for the caller to know.
pub fn echo_reply(packet: &mut [u8]) -> bool {
    let Ok(ip) = Ipv4::parse(packet) else {
        return false;
    };
    if ip.protocol != protocol::ICMP || ip.is_fragment() || has_source_route(&ip, packet) {
        return false;
    }
    let message = &mut packet[ip.header_len..ip.total_len];
    match Icmp::parse(message) {
        Ok(Icmp {
            message_type: types::ECHO_REQUEST,
            code,
            ..
        }) => set_type_reply(message, code),
        _ => return false,
    }
    packet[12..16].copy_from_slice(&ip.destination.octets());
    packet[16..20].copy_from_slice(&ip.source.octets());
    ipv4::set_ttl(packet, TTL)
}

/// Whether the address can be one host's.
fn is_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && address.octets()[0] < 224
}

/// Writes the header before the quotation in `message`, which is longer than a header.
fn write_header(kind: ErrorKind, message: &mut [u8]) {
    let (message_type, code, mtu) = match kind {
        ErrorKind::DestinationUnreachable(code) => (types::DESTINATION_UNREACHABLE, code, 0),
        ErrorKind::FragmentationNeeded { mtu } => (
            types::DESTINATION_UNREACHABLE,
            codes::FRAGMENTATION_NEEDED,
            mtu,
        ),
        ErrorKind::TimeExceeded(code) => (types::TIME_EXCEEDED, code, 0),
    };
    let [m0, m1] = mtu.to_be_bytes();
    message[..HEADER_LEN].copy_from_slice(&[message_type, code, 0, 0, 0, 0, m0, m1]);
    let checksum = checksum::of(message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
}

fn set_type_reply(message: &mut [u8], code: u8) {
    let old_checksum = u16::from_be_bytes([message[2], message[3]]);
    let checksum = checksum::update(
        old_checksum,
        u16::from_be_bytes([types::ECHO_REQUEST, code]),
        u16::from_be_bytes([types::ECHO_REPLY, code]),
    );
    message[0] = types::ECHO_REPLY;
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
}

/// Whether the options have a loose or a strict source route, or cannot be read to their end.
fn has_source_route(ip: &Ipv4, packet: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    let mut options = packet
        .get(ipv4::HEADER_LEN..ip.header_len)
        .unwrap_or_default();
    loop {
        options = match options {
            [] | [END, ..] => return false,
            [NO_OPERATION, rest @ ..] => rest,
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] => return true,
            [_, length, ..] if *length >= 2 => match options.get(usize::from(*length)..) {
                Some(rest) => rest,
                None => return true,
            },
            _ => return true,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKLOAD: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 1);

    fn packet(protocol: u8, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let ip = Ipv4 {
            header_len: 20,
            tos: 0,
            total_len: 20 + payload.len(),
            identification: 7,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 3,
            protocol,
            source: WORKLOAD,
            destination,
        };
        let mut packet = vec![0; 20];
        assert_eq!(ip.write(&mut packet), 20);
        packet.extend_from_slice(payload);
        packet
    }

    fn answerable(packet: &[u8]) -> bool {
        may_answer(&Ipv4::parse(packet).unwrap(), packet)
    }

    #[test]
    fn errors_are_not_sent_about_what_rfc_1812_excludes() {
        let to = |destination| packet(protocol::UDP, destination, &[0; 8]);
        assert!(answerable(&to(ROUTER)));
        assert!(!answerable(&to(Ipv4Addr::new(224, 0, 0, 5))));
        assert!(!answerable(&to(Ipv4Addr::BROADCAST)));
        for message_type in 0..=255 {
            let about = packet(protocol::ICMP, ROUTER, &[message_type; 8]);
            assert_eq!(
                answerable(&about),
                !is_error(message_type),
                "type {message_type}"
            );
        }
        assert!(!answerable(&packet(protocol::ICMP, ROUTER, &[])));
        let with = |change: fn(&mut Ipv4)| {
            let mut ip = Ipv4::parse(&to(ROUTER)).unwrap();
            change(&mut ip);
            may_answer(&ip, &to(ROUTER))
        };
        assert!(with(|ip| ip.more_fragments = true));
        assert!(!with(|ip| ip.fragment_offset = 8));
        for source in [[0; 4], [127, 0, 0, 1], [239, 0, 0, 1], [255; 4]] {
            let mut ip = Ipv4::parse(&to(ROUTER)).unwrap();
            ip.source = source.into();
            assert!(!may_answer(&ip, &to(ROUTER)), "{source:?}");
        }
    }

    #[test]
    fn the_quotation_fits_into_576_bytes_and_into_the_buffer() {
        let original = packet(protocol::UDP, ROUTER, &[0x5a; 1400]);
        let kind = ErrorKind::TimeExceeded(codes::TTL_EXCEEDED);
        let error = |room: usize| {
            let mut out = vec![0; room];
            let length = write_error(kind, &original, ROUTER, WORKLOAD, &mut out);
            out.truncate(length);
            out
        };
        assert_eq!(error(2048).len(), MAX_ERROR_LEN);
        assert_eq!(error(100).len(), 100);
        assert_eq!(error(56).len(), 56);
        assert_eq!(error(55).len(), 0);
        for room in [56, 100, 2048] {
            let out = error(room);
            let ip = Ipv4::parse(&out).unwrap();
            assert_eq!(ip.total_len, out.len());
            assert!(Icmp::parse(&out[20..]).is_ok());
            assert_eq!(out[28..], original[..out.len() - 28]);
        }
    }

    #[test]
    fn a_short_offender_is_quoted_whole_and_its_padding_is_not() {
        let mut original = packet(protocol::UDP, ROUTER, &[1, 2]);
        original.extend_from_slice(&[0xee; 24]);
        let mut out = [0; 100];
        let kind = ErrorKind::DestinationUnreachable(codes::NET_UNREACHABLE);
        assert_eq!(
            write_error(kind, &original, ROUTER, WORKLOAD, &mut out),
            28 + 22
        );
        assert_eq!(
            write_error(kind, &[0x60; 40], ROUTER, WORKLOAD, &mut out),
            0
        );
    }

    #[test]
    fn only_whole_and_right_echo_requests_are_answered() {
        let mut message = [8, 0, 0, 0, 0, 1, 0, 2, 0xaa];
        let checksum = checksum::of(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let request = packet(protocol::ICMP, ROUTER, &message);
        assert!(echo_reply(&mut request.clone()));

        let refused = |change: fn(&mut Vec<u8>)| {
            let mut packet = request.clone();
            change(&mut packet);
            let before = packet.clone();
            !echo_reply(&mut packet) && packet == before
        };
        assert!(refused(|p| p[28] ^= 1));
        assert!(refused(|p| p[8] = 9));
        assert!(refused(|p| (p[20], p[22]) = (0, p[22].wrapping_add(8))));
        assert!(refused(|p| p.truncate(28)));
        assert!(refused(|p| ipv4_fragment(p)));
    }

    fn ipv4_fragment(packet: &mut [u8]) {
        let ip = Ipv4 {
            more_fragments: true,
            ..Ipv4::parse(packet).unwrap()
        };
        ip.write(packet);
    }

    #[test]
    fn source_routes_are_found_behind_other_options() {
        let found = |options: &[u8]| {
            let mut packet = vec![0; 20];
            packet.extend_from_slice(options);
            let mut ip = Ipv4::parse(&self::packet(1, ROUTER, &[])).unwrap();
            ip.header_len = packet.len();
            has_source_route(&ip, &packet)
        };
        assert!(!found(&[]));
        assert!(!found(&[1, 1, 1, 0]));
        assert!(!found(&[7, 7, 4, 0, 0, 0, 0, 0]));
        assert!(!found(&[0, 131, 3, 4]));
        assert!(found(&[7, 3, 4, 1, 131, 3, 4, 0]));
        assert!(found(&[1, 137, 3, 4]));
        assert!(found(&[7, 9, 4, 0]));
        assert!(found(&[7, 0, 4, 0]));
        assert!(found(&[1, 1, 1, 7]));
    }
}
