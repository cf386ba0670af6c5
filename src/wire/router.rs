//! Router solicitation and advertisement (RFC 4861 sections 4.1 and 4.2), for links with one router.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   Type 134    |     Code 0    |          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Cur Hop Limit |M|O|  Reserved |       Router Lifetime         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |             Reachable Time, then Retrans Timer (4 each)       |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   Options: source link-layer address (1), MTU (5)             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use core::net::Ipv6Addr;

use super::icmpv6::{self, Icmpv6, types};
use super::ipv4::protocol;
use super::ipv6::{self, Ipv6};
use super::nd::{ALL_NODES, HOP_LIMIT};
use super::{MacAddr, Mtu};

/// Bytes of an advertisement that is written here.
pub const ADVERTISEMENT_LEN: usize = ipv6::HEADER_LEN + icmpv6::HEADER_LEN + 8 + 8 + 8;

/// Whether a packet is a router solicitation that is to be heeded (RFC 4861 section 6.1.1); its source.
pub fn solicitation(packet: &[u8]) -> Option<Ipv6Addr> {
    let ip = Ipv6::parse(packet).ok()?;
    let message = packet.get(ipv6::HEADER_LEN..ip.total_len())?;
    if ip.next_header != protocol::ICMPV6 || ip.hop_limit != HOP_LIMIT {
        return None;
    }
    let icmp = Icmpv6::parse(ip.source, ip.destination, message).ok()?;
    let solicits = icmp.message_type == types::ROUTER_SOLICITATION && icmp.code == 0;
    (solicits && options_are_sound(&message[icmpv6::HEADER_LEN..], ip.source)).then_some(ip.source)
}

/// Every option has a length, and who has no address names no link-layer address.
fn options_are_sound(mut rest: &[u8], source: Ipv6Addr) -> bool {
    const SOURCE_LINK_ADDRESS: u8 = 1;
    while let [kind, units, ..] = *rest {
        let length = usize::from(units) * 8;
        if length == 0
            || length > rest.len()
            || (kind == SOURCE_LINK_ADDRESS && source.is_unspecified())
        {
            return false;
        }
        rest = &rest[length..];
    }
    rest.is_empty()
}

/// What a router says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertisement {
    /// Its link-local address.
    pub router: Ipv6Addr,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// The link's MTU: at least 1280.
    pub mtu: Mtu,
    /// Seconds for which it is a default router.
    pub lifetime: u16,
}

impl Advertisement {
    /// Writes a whole IPv6 packet, to all nodes on the link, and returns its length; 0 if `out` is too
    /// short. No prefix is on the link, and nobody makes himself an address of one.
    pub fn write(&self, out: &mut [u8]) -> usize {
        let [high, low] = self.lifetime.to_be_bytes();
        let header = Icmpv6 {
            message_type: types::ROUTER_ADVERTISEMENT,
            code: 0,
            rest: [64, 0, high, low],
        };
        let mut body = [0; 24];
        body[8..10].copy_from_slice(&[1, 1]);
        body[10..16].copy_from_slice(&self.mac.0);
        body[16..18].copy_from_slice(&[5, 1]);
        body[22..24].copy_from_slice(&self.mtu.0.to_be_bytes());
        let ip = Ipv6 {
            traffic_class: 0,
            flow_label: 0,
            payload_len: icmpv6::HEADER_LEN + body.len(),
            next_header: protocol::ICMPV6,
            hop_limit: HOP_LIMIT,
            source: self.router,
            destination: ALL_NODES,
        };
        icmpv6::write_packet(&ip, &header, &body, out)
    }
}
