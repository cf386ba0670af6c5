//! Neighbour discovery (RFC 4861): solicitation and advertisement, in ICMPv6.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Type 135 or 136|   Code 0      |          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |R|S|O|       Reserved (all of it in a solicitation)            |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                                                               |
//! +                    Target address (16 bytes)                  +
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Type 1 or 2  |  Length 1     |  options, of which these are  |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//! |  the source (1) and target (2) link-layer address             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! A message MUST be silently discarded (sections 7.1.1 and 7.1.2) unless
//! * the hop limit is 255: no router forwarded it;
//! * the checksum is right, the code 0, and the length 24 or more;
//! * the target is no multicast address;
//! * all options have a length greater than zero; unknown ones are skipped;
//! * a solicitation from the unspecified address goes to a solicited-node multicast address and has
//!   no source link-layer address;
//! * an advertisement to a multicast address has the S flag clear.

use core::net::Ipv6Addr;

use super::MacAddr;
use super::icmpv6::{self, Icmpv6, Icmpv6Error, types};
use super::ipv4::protocol;
use super::ipv6::{self, Ipv6, Ipv6Error};

/// The longest packet that is written here, in bytes.
pub const MAX_LEN: usize = ipv6::HEADER_LEN + BODY + OPTION_LEN;

/// The hop limit of every message: one that a router forwarded has less.
pub const HOP_LIMIT: u8 = 255;

/// Bytes of a message without options.
const BODY: usize = icmpv6::HEADER_LEN + 16;
/// Bytes of a link-layer address option for Ethernet.
const OPTION_LEN: usize = 8;
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A neighbour discovery message and the addresses of the packet that it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourMessage {
    /// The packet's source; unspecified in duplicate address detection.
    pub source: Ipv6Addr,
    /// The packet's destination.
    pub destination: Ipv6Addr,
    /// The address asked for or advertised.
    pub target: Ipv6Addr,
    /// Which message it is, and what only it has.
    pub kind: NeighbourKind,
    /// The link-layer address option: the source's in a solicitation, the target's in an
    /// advertisement.
    pub link_address: Option<MacAddr>,
}

/// Which neighbour discovery message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourKind {
    /// Who has the target?
    Solicitation,
    /// The target is here.
    Advertisement {
        /// R: the sender is a router.
        router: bool,
        /// S: the answer to a solicitation.
        solicited: bool,
        /// O: replace what was cached before.
        override_cached: bool,
    },
}

/// Bytes that are no valid neighbour solicitation or advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NeighbourError {
    /// The IPv6 header is wrong.
    #[error(transparent)]
    Ipv6(#[from] Ipv6Error),
    /// The ICMPv6 header or checksum is wrong, or there is none.
    #[error(transparent)]
    Icmpv6(#[from] Icmpv6Error),
    /// The packet carries something else, or has extension headers.
    #[error("the packet is no neighbour solicitation or advertisement")]
    NotNeighbour,
    /// The hop limit is not 255.
    #[error("the hop limit is {0}, not 255: the message may come from another link")]
    HopLimit(u8),
    /// The code is not 0.
    #[error("the neighbour discovery code is {0}, not 0")]
    Code(u8),
    /// The message is shorter than 24 bytes.
    #[error("the neighbour discovery message ends before its 24 bytes")]
    Truncated,
    /// The target is a multicast address.
    #[error("the neighbour discovery target is a multicast address")]
    Target,
    /// An option has length 0 or goes beyond the message.
    #[error("a neighbour discovery option has length 0 or goes beyond the message")]
    OptionLength,
    /// The addresses contradict the message.
    #[error("the message's source or destination contradicts its kind (RFC 4861 section 7.1)")]
    Addresses,
}

impl NeighbourMessage {
    /// A solicitation to the target's group; from the unspecified address it carries no link-layer
    /// address.
    pub fn solicitation(source: Ipv6Addr, mac: MacAddr, target: Ipv6Addr) -> Self {
        Self {
            source,
            destination: solicited_node_multicast(target),
            target,
            kind: NeighbourKind::Solicitation,
            link_address: (!source.is_unspecified()).then_some(mac),
        }
    }

    /// The advertisement that answers this solicitation: the target is at `mac`. Like a proxy's, it
    /// does not override what was cached (section 7.2.8), and it goes to all nodes if the asker has
    /// no address yet (section 7.2.4).
    pub fn advertisement(&self, mac: MacAddr) -> Self {
        let solicited = !self.source.is_unspecified();
        Self {
            source: self.target,
            destination: if solicited { self.source } else { ALL_NODES },
            target: self.target,
            kind: NeighbourKind::Advertisement {
                router: true,
                solicited,
                override_cached: false,
            },
            link_address: Some(mac),
        }
    }

    /// Parses and checks a whole IPv6 packet; bytes behind it do not count.
    pub fn parse(packet: &[u8]) -> Result<Self, NeighbourError> {
        let ip = Ipv6::parse(packet)?;
        if ip.next_header != protocol::ICMPV6 {
            return Err(NeighbourError::NotNeighbour);
        }
        let message = packet
            .get(ipv6::HEADER_LEN..ip.total_len())
            .unwrap_or_default();
        let icmp = Icmpv6::parse(ip.source, ip.destination, message)?;
        let kind = kind(&icmp)?;
        if ip.hop_limit != HOP_LIMIT {
            return Err(NeighbourError::HopLimit(ip.hop_limit));
        }
        if icmp.code != 0 {
            return Err(NeighbourError::Code(icmp.code));
        }
        let (body, options) = message
            .split_first_chunk::<BODY>()
            .ok_or(NeighbourError::Truncated)?;
        let (_, target) = body
            .split_last_chunk::<16>()
            .ok_or(NeighbourError::Truncated)?;
        let message = Self {
            source: ip.source,
            destination: ip.destination,
            target: Ipv6Addr::from(*target),
            kind,
            link_address: link_address(kind, options)?,
        };
        message.check_addresses()?;
        Ok(message)
    }

    /// Writes a whole IPv6 packet and returns its length, 64 or with a link-layer address 72 bytes,
    /// or 0 if `out` is too short.
    pub fn write(&self, out: &mut [u8]) -> usize {
        let mut body = [0; 16 + OPTION_LEN];
        body[..16].copy_from_slice(&self.target.octets());
        let mut length = 16;
        if let Some(mac) = self.link_address {
            body[16..18].copy_from_slice(&[option_type(self.kind), 1]);
            body[18..].copy_from_slice(&mac.0);
            length = body.len();
        }
        let ip = Ipv6 {
            traffic_class: 0,
            flow_label: 0,
            payload_len: icmpv6::HEADER_LEN + length,
            next_header: protocol::ICMPV6,
            hop_limit: HOP_LIMIT,
            source: self.source,
            destination: self.destination,
        };
        icmpv6::write_packet(&ip, &header(self.kind), &body[..length], out)
    }

    fn check_addresses(&self) -> Result<(), NeighbourError> {
        if self.target.is_multicast() {
            return Err(NeighbourError::Target);
        }
        let consistent = match self.kind {
            NeighbourKind::Solicitation if self.source.is_unspecified() => {
                is_solicited_node(self.destination) && self.link_address.is_none()
            }
            NeighbourKind::Solicitation => true,
            NeighbourKind::Advertisement { solicited, .. } => {
                !(solicited && self.destination.is_multicast())
            }
        };
        if consistent {
            Ok(())
        } else {
            Err(NeighbourError::Addresses)
        }
    }
}

/// The group of all nodes on the link, ff02::1.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The group in which an address is asked for: ff02::1:ff00:0/104 and its last 24 bits (RFC 4291
/// section 2.7.1).
pub const fn solicited_node_multicast(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet address of a multicast group: 33:33 and the group's last 32 bits (RFC 2464
/// section 7).
pub const fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

fn is_solicited_node(address: Ipv6Addr) -> bool {
    solicited_node_multicast(address) == address
}

fn kind(icmp: &Icmpv6) -> Result<NeighbourKind, NeighbourError> {
    let flags = icmp.rest[0];
    match icmp.message_type {
        types::NEIGHBOUR_SOLICITATION => Ok(NeighbourKind::Solicitation),
        types::NEIGHBOUR_ADVERTISEMENT => Ok(NeighbourKind::Advertisement {
            router: flags & ROUTER != 0,
            solicited: flags & SOLICITED != 0,
            override_cached: flags & OVERRIDE != 0,
        }),
        _ => Err(NeighbourError::NotNeighbour),
    }
}

fn header(kind: NeighbourKind) -> Icmpv6 {
    let (message_type, flags) = match kind {
        NeighbourKind::Solicitation => (types::NEIGHBOUR_SOLICITATION, 0),
        NeighbourKind::Advertisement {
            router,
            solicited,
            override_cached,
        } => {
            let flag = |set: bool, bit: u8| if set { bit } else { 0 };
            let flags =
                flag(router, ROUTER) | flag(solicited, SOLICITED) | flag(override_cached, OVERRIDE);
            (types::NEIGHBOUR_ADVERTISEMENT, flags)
        }
    };
    Icmpv6 {
        message_type,
        code: 0,
        rest: [flags, 0, 0, 0],
    }
}

const fn option_type(kind: NeighbourKind) -> u8 {
    match kind {
        NeighbourKind::Solicitation => SOURCE_LINK_ADDRESS,
        NeighbourKind::Advertisement { .. } => TARGET_LINK_ADDRESS,
    }
}

/// The link-layer address among the options; all of them must have a length that is possible.
fn link_address(kind: NeighbourKind, options: &[u8]) -> Result<Option<MacAddr>, NeighbourError> {
    let wanted = option_type(kind);
    let mut found = None;
    let mut rest = options;
    while let [option, units, ..] = *rest {
        let length = usize::from(units) * 8;
        if length == 0 || length > rest.len() {
            return Err(NeighbourError::OptionLength);
        }
        if let (true, [_, 1, a, b, c, d, e, f]) = (option == wanted, &rest[..length]) {
            found = Some(MacAddr([*a, *b, *c, *d, *e, *f]));
        }
        rest = &rest[length..];
    }
    if rest.is_empty() {
        Ok(found)
    } else {
        Err(NeighbourError::OptionLength)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum::Checksum;

    const ASKER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const TARGET: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x12, 0x3456);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn written(message: NeighbourMessage) -> Vec<u8> {
        let mut out = vec![0; MAX_LEN];
        let length = message.write(&mut out);
        out.truncate(length);
        out
    }

    /// The packet changed and its checksum made right again.
    fn changed(message: NeighbourMessage, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut packet = written(message);
        change(&mut packet);
        let length = packet.len() - 40;
        packet[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        packet[42..44].copy_from_slice(&[0, 0]);
        let ip = Ipv6::parse(&packet).unwrap();
        let pseudo = Checksum::pseudo_ipv6(ip.source, ip.destination, protocol::ICMPV6, length);
        let checksum = pseudo.add_bytes(&packet[40..]).finish();
        packet[42..44].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    fn error(message: NeighbourMessage, change: impl Fn(&mut Vec<u8>)) -> NeighbourError {
        NeighbourMessage::parse(&changed(message, change)).unwrap_err()
    }

    #[test]
    fn every_must_of_rfc_4861_has_its_error() {
        let ask = NeighbourMessage::solicitation(ASKER, MAC, TARGET);
        assert_eq!(NeighbourMessage::parse(&changed(ask, |_| {})), Ok(ask));
        assert_eq!(error(ask, |p| p[7] = 254), NeighbourError::HopLimit(254));
        assert_eq!(error(ask, |p| p[40] = 128), NeighbourError::NotNeighbour);
        assert_eq!(error(ask, |p| p[6] = 17), NeighbourError::NotNeighbour);
        assert_eq!(error(ask, |p| p[41] = 1), NeighbourError::Code(1));
        assert_eq!(error(ask, |p| p[48] = 0xff), NeighbourError::Target);
        assert_eq!(error(ask, |p| p[65] = 0), NeighbourError::OptionLength);
        assert_eq!(error(ask, |p| p[65] = 2), NeighbourError::OptionLength);
        assert_eq!(error(ask, |p| p.push(1)), NeighbourError::OptionLength);
        assert_eq!(error(ask, |p| p.truncate(63)), NeighbourError::Truncated);
        assert_eq!(error(ask, |p| p[8..24].fill(0)), NeighbourError::Addresses);

        let probe = NeighbourMessage::solicitation(Ipv6Addr::UNSPECIFIED, MAC, TARGET);
        assert_eq!(NeighbourMessage::parse(&written(probe)), Ok(probe));
        let to_target = |p: &mut Vec<u8>| p[24..40].copy_from_slice(&TARGET.octets());
        assert_eq!(error(probe, to_target), NeighbourError::Addresses);

        let to_all = |p: &mut Vec<u8>| p[24..40].copy_from_slice(&ALL_NODES.octets());
        assert_eq!(
            error(ask.advertisement(MAC), to_all),
            NeighbourError::Addresses
        );

        let mut damaged = written(ask);
        damaged[71] ^= 1;
        let wrong = NeighbourError::Icmpv6(Icmpv6Error::Checksum);
        assert_eq!(NeighbourMessage::parse(&damaged), Err(wrong));
    }

    #[test]
    fn a_probe_is_answered_to_all_nodes() {
        let probe = NeighbourMessage::solicitation(Ipv6Addr::UNSPECIFIED, MAC, TARGET);
        let answer = probe.advertisement(MacAddr::WORKLOAD_GATEWAY);
        assert_eq!(answer.destination, ALL_NODES);
        assert_eq!(NeighbourMessage::parse(&written(answer)), Ok(answer));
    }

    #[test]
    fn unknown_options_are_skipped() {
        let ask = NeighbourMessage::solicitation(ASKER, MAC, TARGET);
        let packet = changed(ask, |p| {
            p.splice(64..64, [14, 1, 0, 0, 0, 0, 0, 0]);
        });
        assert_eq!(
            NeighbourMessage::parse(&packet).unwrap().link_address,
            Some(MAC)
        );
    }

    #[test]
    fn no_room_writes_nothing() {
        let ask = NeighbourMessage::solicitation(ASKER, MAC, TARGET);
        let mut out = [0; MAX_LEN - 1];
        assert_eq!(ask.write(&mut out), 0);
        assert_eq!(out, [0; MAX_LEN - 1]);
    }
}
