//! ICMP errors: whether one may be sent, to whom, and what it says.

use std::net::IpAddr;

use crate::forward::{RouterAddresses, Snapshot};
use crate::wire::ipv4::{Ipv4, protocol};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{Mtu, icmp, icmpv6};

/// What went wrong with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No route: 3/0; IPv6 1/0.
    NetworkUnreachable,
    /// A blackhole: 3/1; IPv6 1/3.
    HostUnreachable,
    /// No such port here: 3/3; IPv6 1/4.
    PortUnreachable,
    /// Too many hops: 11/0; IPv6 3/0.
    TimeExceeded,
    /// Too large for the way out: 3/4; IPv6 2/0.
    TooBig(Mtu),
}

/// The error about `packet` and whom it goes to, unless no error may be sent about it: about ICMP
/// errors, fragments but the first, and what was sent to or claims to come from no single host
/// (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 e).
pub(super) fn message(
    router: &RouterAddresses,
    kind: Kind,
    packet: &[u8],
) -> Option<(IpAddr, Vec<u8>)> {
    let sound = match packet.first()? >> 4 {
        4 => Ipv4::parse(packet).is_ok(),
        6 => Ipv6::parse(packet).is_ok(),
        _ => false,
    };
    sound.then(|| about_quote(router, kind, packet)).flatten()
}

/// As [`message`], about a packet that may be cut short, as in another error's quotation.
pub(super) fn about_quote(
    router: &RouterAddresses,
    kind: Kind,
    packet: &[u8],
) -> Option<(IpAddr, Vec<u8>)> {
    let mut out = vec![0; icmp::MAX_ERROR_LEN.max(icmpv6::MAX_ERROR_LEN)];
    let (to, length) = match packet.first()? >> 4 {
        4 => {
            let ip = Ipv4::parse_quoted(packet)
                .ok()
                .filter(|ip| icmp::may_answer(ip, packet))?;
            let written = icmp::write_error(kind_v4(kind), packet, router.v4, ip.source, &mut out);
            (IpAddr::V4(ip.source), written)
        }
        6 => {
            let ip = Ipv6::parse_quoted(packet)
                .ok()
                .filter(|ip| icmpv6::may_answer(ip, packet))?;
            let written =
                icmpv6::write_error(kind_v6(kind), packet, router.v6, ip.source, &mut out);
            (IpAddr::V6(ip.source), written)
        }
        _ => return None,
    };
    out.truncate(length);
    (length > 0).then_some((to, out))
}

/// Whether a packet is an ICMP error that this router made.
pub(super) fn is_of(snapshot: &Snapshot, packet: &[u8]) -> bool {
    let own = [snapshot.router.v4, RouterAddresses::GATEWAY_V4];
    Ipv4::parse(packet).is_ok_and(|ip| {
        ip.protocol == protocol::ICMP
            && own.contains(&ip.source)
            && packet
                .get(ip.header_len)
                .is_some_and(|kind| icmp::is_error(*kind))
    })
}

/// An error that quotes less, so that it is of so many bytes: its way takes no more, and its receiver is not
/// to be told of that. IPv6's need it nowhere. Nothing if it would quote too little.
pub(super) fn shortened(mut error: Vec<u8>, mtu: Mtu) -> Option<Vec<u8>> {
    icmp::shorten_error(&mut error, mtu.0.into()).then_some(error)
}

fn kind_v4(kind: Kind) -> icmp::ErrorKind {
    use icmp::ErrorKind as Error;
    match kind {
        Kind::NetworkUnreachable => Error::DestinationUnreachable(icmp::codes::NET_UNREACHABLE),
        Kind::HostUnreachable => Error::DestinationUnreachable(icmp::codes::HOST_UNREACHABLE),
        Kind::PortUnreachable => Error::DestinationUnreachable(icmp::codes::PORT_UNREACHABLE),
        Kind::TimeExceeded => Error::TimeExceeded(icmp::codes::TTL_EXCEEDED),
        Kind::TooBig(mtu) => Error::FragmentationNeeded { mtu: mtu.0 },
    }
}

fn kind_v6(kind: Kind) -> icmpv6::ErrorKind {
    use icmpv6::ErrorKind as Error;
    match kind {
        Kind::NetworkUnreachable => Error::DestinationUnreachable(icmpv6::codes::NO_ROUTE),
        Kind::HostUnreachable => Error::DestinationUnreachable(icmpv6::codes::ADDRESS_UNREACHABLE),
        Kind::PortUnreachable => Error::DestinationUnreachable(icmpv6::codes::PORT_UNREACHABLE),
        Kind::TimeExceeded => Error::TimeExceeded(icmpv6::codes::HOP_LIMIT_EXCEEDED),
        // Smaller packets than 1280 bytes nobody need send (RFC 8201 section 4); a tunnel that takes less
        // fragments them outside.
        Kind::TooBig(mtu) => Error::PacketTooBig {
            mtu: u32::from(mtu.0).max(ipv6::MIN_MTU as u32),
        },
    }
}
