//! ICMPv6 (RFC 4443); neighbour discovery is in [`nd`](super::nd).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     Type      |     Code      |          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  rest of the header: identifier and sequence number (echo),   |
//! |  MTU (packet too big), zero (unreachable, time exceeded)      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  echo data, or the offending packet from its IPv6 header on … |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! * The checksum covers the IPv6 pseudo-header (section 2.3).
//! * An error MUST quote as much of the offender as makes no more than 1280 bytes (section 2.4 c).
//! * An error MUST NOT be sent about an ICMPv6 error or redirect, a packet to a multicast address, or
//!   a source that is no single node's (section 2.4 e). The exceptions for packet too big to
//!   multicast groups are not made use of: the router forwards none.
//! * Errors MUST be rate limited (section 2.4 f): the caller does so.
//! * An echo's identifier, sequence number and data MUST come back (section 4.2).

use core::net::Ipv6Addr;

use super::checksum::{self, Checksum};
use super::ipv4::protocol;
use super::ipv6::{self, Ipv6};

/// Bytes of a message's header.
pub const HEADER_LEN: usize = 8;

/// Bytes that an error has at most, its IPv6 header included: the least MTU.
pub const MAX_ERROR_LEN: usize = ipv6::MIN_MTU;

/// The hop limit of messages that the router makes (IANA, IP option numbers: the default TTL).
const HOP_LIMIT: u8 = 64;

/// Message types (IANA, ICMPv6 parameters).
pub mod types {
    /// Destination unreachable.
    pub const DESTINATION_UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
}

/// Codes of destination unreachable and time exceeded (IANA, ICMPv6 parameters).
pub mod codes {
    /// Destination unreachable: no route.
    pub const NO_ROUTE: u8 = 0;
    /// Destination unreachable: forbidden by a filter.
    pub const ADMINISTRATIVELY_PROHIBITED: u8 = 1;
    /// Destination unreachable: the network is reached, the address is not.
    pub const ADDRESS_UNREACHABLE: u8 = 3;
    /// Destination unreachable: nobody listens on the port.
    pub const PORT_UNREACHABLE: u8 = 4;
    /// Time exceeded: the hop limit ran out on the way.
    pub const HOP_LIMIT_EXCEEDED: u8 = 0;
    /// Time exceeded: a fragment was missing for too long.
    pub const REASSEMBLY_TIME_EXCEEDED: u8 = 1;
}

/// A message's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmpv6 {
    /// The type: see [`types`].
    pub message_type: u8,
    /// The code: see [`codes`].
    pub code: u8,
    /// The four bytes behind the checksum.
    pub rest: [u8; 4],
}

/// Bytes that are no ICMPv6 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Icmpv6Error {
    /// The message is shorter than 8 bytes.
    #[error("the packet ends within its ICMPv6 header of 8 bytes")]
    Truncated,
    /// The checksum is wrong.
    #[error("the ICMPv6 checksum is wrong")]
    Checksum,
}

impl Icmpv6 {
    /// Parses a message and checks its checksum; `message` is the whole upper-layer packet, nothing
    /// behind, and the addresses are those of its IPv6 header.
    #[inline]
    pub fn parse(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        message: &[u8],
    ) -> Result<Self, Icmpv6Error> {
        let header: &[u8; HEADER_LEN] = message.first_chunk().ok_or(Icmpv6Error::Truncated)?;
        if sum(source, destination, message).folded() != 0xffff {
            return Err(Icmpv6Error::Checksum);
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

    /// The MTU of a packet too big, in bytes; `None` for other messages.
    pub const fn mtu(&self) -> Option<u32> {
        match self.message_type {
            types::PACKET_TOO_BIG => Some(u32::from_be_bytes(self.rest)),
            _ => None,
        }
    }
}

/// Whether messages of this type report an error about the packet that they quote (section 2.1).
#[inline]
pub const fn is_error(message_type: u8) -> bool {
    message_type < 128
}

/// What an error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Destination unreachable with this code (see [`codes`]).
    DestinationUnreachable(u8),
    /// Packet too big.
    PacketTooBig {
        /// The largest IPv6 packet that fits, in bytes.
        mtu: u32,
    },
    /// Time exceeded with this code (see [`codes`]).
    TimeExceeded(u8),
}

/// Whether an error may be sent about a packet (section 2.4 e). `packet` is the offender, `ip` its
/// parsed header. Of fragments only the first is answered, and what an upper layer cannot be found in
/// is not. Ethernet groups are for the caller to know.
#[inline]
pub fn may_answer(ip: &Ipv6, packet: &[u8]) -> bool {
    let Some(layer) = ipv6::upper_layer(packet) else {
        return false;
    };
    let is_error_or_redirect = |t: &u8| is_error(*t) || *t == types::REDIRECT;
    layer.has_header()
        && is_node(ip.source)
        && !ip.source.is_loopback()
        && is_node(ip.destination)
        && !(layer.protocol == protocol::ICMPV6
            && packet.get(layer.offset).is_none_or(is_error_or_redirect))
}

/// Writes an IPv6 packet with an error about `original` and returns its length; 0, and nothing
/// written, if `original` has no IPv6 header or `out` has no room for the least quotation (the
/// offender's header and 8 bytes).
///
/// `original` is the offender from its IPv6 header on, as it was received; as much of it is quoted as
/// makes 1280 bytes or fits into `out`. `destination` is its source, `source` an address of the
/// router. Whether an error is due, [`may_answer`] says.
pub fn write_error(
    kind: ErrorKind,
    original: &[u8],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    out: &mut [u8],
) -> usize {
    let Ok(offender) = Ipv6::parse_quoted(original) else {
        return 0;
    };
    const BEFORE: usize = ipv6::HEADER_LEN + HEADER_LEN;
    let available = offender.total_len().min(original.len());
    let least = available.min(ipv6::HEADER_LEN + 8);
    let Some(room) = out.len().checked_sub(BEFORE).filter(|room| *room >= least) else {
        return 0;
    };
    let quoted = available.min(MAX_ERROR_LEN - BEFORE).min(room);
    let (message_type, code, rest) = match kind {
        ErrorKind::DestinationUnreachable(code) => (types::DESTINATION_UNREACHABLE, code, 0),
        ErrorKind::PacketTooBig { mtu } => (types::PACKET_TOO_BIG, 0, mtu),
        ErrorKind::TimeExceeded(code) => (types::TIME_EXCEEDED, code, 0),
    };
    let header = Icmpv6 {
        message_type,
        code,
        rest: rest.to_be_bytes(),
    };
    let ip = Ipv6 {
        traffic_class: offender.traffic_class & 0xfc,
        flow_label: 0,
        payload_len: HEADER_LEN + quoted,
        next_header: protocol::ICMPV6,
        hop_limit: HOP_LIMIT,
        source,
        destination,
    };
    write_packet(&ip, &header, &original[..quoted], out)
}

/// Turns an IPv6 packet with an echo request into the reply to it: addresses swapped, hop limit 64,
/// the checksum updated, all else kept. Bytes behind the packet do not count.
///
/// False, and nothing changed, if it is no echo request, has extension headers, has a wrong checksum,
/// or is from or to a multicast address. Whether the destination is the router's is for the caller to
/// know.
pub fn echo_reply(packet: &mut [u8]) -> bool {
    let Ok(ip) = Ipv6::parse(packet) else {
        return false;
    };
    if ip.next_header != protocol::ICMPV6 || !is_node(ip.source) || !is_node(ip.destination) {
        return false;
    }
    let message = &mut packet[ipv6::HEADER_LEN..ip.total_len()];
    match Icmpv6::parse(ip.source, ip.destination, message) {
        Ok(Icmpv6 {
            message_type: types::ECHO_REQUEST,
            code,
            ..
        }) => set_type_reply(message, code),
        _ => return false,
    }
    packet[7] = HOP_LIMIT;
    packet[8..24].copy_from_slice(&ip.destination.octets());
    packet[24..40].copy_from_slice(&ip.source.octets());
    true
}

/// Writes an IPv6 packet of `ip`, an ICMPv6 header and `body`, with the checksum, and returns its
/// length, or 0 if `out` is too short. `ip` says the right payload length.
pub(super) fn write_packet(ip: &Ipv6, header: &Icmpv6, body: &[u8], out: &mut [u8]) -> usize {
    let Some(out) = out.get_mut(..ipv6::HEADER_LEN + HEADER_LEN + body.len()) else {
        return 0;
    };
    let (start, message) = out.split_at_mut(ipv6::HEADER_LEN);
    ip.write(start);
    let [r0, r1, r2, r3] = header.rest;
    message[..HEADER_LEN].copy_from_slice(&[
        header.message_type,
        header.code,
        0,
        0,
        r0,
        r1,
        r2,
        r3,
    ]);
    message[HEADER_LEN..].copy_from_slice(body);
    let checksum = sum(ip.source, ip.destination, message).finish();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    out.len()
}

fn sum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Checksum {
    Checksum::pseudo_ipv6(source, destination, protocol::ICMPV6, message.len()).add_bytes(message)
}

/// Whether the address can be one node's.
fn is_node(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
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

#[cfg(test)]
mod tests {
    use super::*;

    const WORKLOAD: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2);
    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

    fn packet(next_header: u8, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
        let ip = Ipv6 {
            traffic_class: 0xb9,
            flow_label: 5,
            payload_len: payload.len(),
            next_header,
            hop_limit: 3,
            source: WORKLOAD,
            destination,
        };
        let mut packet = vec![0; 40];
        assert_eq!(ip.write(&mut packet), 40);
        packet.extend_from_slice(payload);
        packet
    }

    fn answerable(packet: &[u8]) -> bool {
        may_answer(&Ipv6::parse(packet).unwrap(), packet)
    }

    #[test]
    fn errors_are_not_sent_about_what_rfc_4443_excludes() {
        assert!(answerable(&packet(protocol::UDP, ROUTER, &[0; 8])));
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        assert!(!answerable(&packet(protocol::UDP, group, &[0; 8])));
        for message_type in 0..=255 {
            let about = packet(protocol::ICMPV6, ROUTER, &[message_type; 8]);
            let allowed = message_type >= 128 && message_type != 137;
            assert_eq!(answerable(&about), allowed, "type {message_type}");
        }
        assert!(!answerable(&packet(protocol::ICMPV6, ROUTER, &[])));
        let fragment = |offset: u8| {
            packet(
                protocol::FRAGMENT,
                ROUTER,
                &[protocol::UDP, 0, 0, offset | 1, 0, 0, 0, 1],
            )
        };
        assert!(answerable(&fragment(0)));
        assert!(!answerable(&fragment(8)));
        for source in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, group] {
            let about = packet(protocol::UDP, ROUTER, &[0; 8]);
            let ip = Ipv6 {
                source,
                ..Ipv6::parse(&about).unwrap()
            };
            assert!(!may_answer(&ip, &about), "{source}");
        }
    }

    #[test]
    fn the_quotation_fits_into_1280_bytes_and_into_the_buffer() {
        let original = packet(protocol::UDP, ROUTER, &[0x5a; 1400]);
        let error = |room: usize| {
            let mut out = vec![0; room];
            let kind = ErrorKind::PacketTooBig { mtu: 1430 };
            let length = write_error(kind, &original, ROUTER, WORKLOAD, &mut out);
            out.truncate(length);
            out
        };
        assert_eq!(error(2048).len(), MAX_ERROR_LEN);
        assert_eq!(error(96).len(), 96);
        assert_eq!(error(95).len(), 0);
        for room in [96, 2048] {
            let out = error(room);
            let ip = Ipv6::parse(&out).unwrap();
            assert_eq!((ip.total_len(), ip.traffic_class), (out.len(), 0xb8));
            let message = Icmpv6::parse(ip.source, ip.destination, &out[40..]).unwrap();
            assert_eq!(message.mtu(), Some(1430));
            assert_eq!(out[48..], original[..out.len() - 48]);
        }
    }

    #[test]
    fn only_whole_and_right_echo_requests_are_answered() {
        let header = Icmpv6 {
            message_type: types::ECHO_REQUEST,
            code: 0,
            rest: [0, 1, 0, 2],
        };
        let ip = Ipv6::parse(&packet(protocol::ICMPV6, ROUTER, &[0; 9])).unwrap();
        let mut request = vec![0; 49];
        assert_eq!(write_packet(&ip, &header, &[0xaa], &mut request), 49);
        assert!(echo_reply(&mut request.clone()));

        let refused = |change: fn(&mut Vec<u8>)| {
            let mut packet = request.clone();
            change(&mut packet);
            let before = packet.clone();
            !echo_reply(&mut packet) && packet == before
        };
        assert!(refused(|p| p[48] ^= 1));
        assert!(refused(|p| p[6] = protocol::UDP));
        assert!(refused(|p| p[24] = 0xff));
        assert!(refused(|p| p.truncate(48)));
    }
}
