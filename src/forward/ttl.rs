//! Stage 5: one hop less, once per router (RFC 1812 section 5.3.1, RFC 8200 section 3).

use super::parse::Traits;
use crate::wire::{ipv4, ipv6};

/// Whether the packet may take one more hop.
#[inline]
pub(super) fn more_than_one(ip: Traits) -> bool {
    ip.ttl > 1
}

/// Takes one hop off a packet; the IPv4 checksum follows (RFC 1624).
#[inline]
pub(super) fn decrement(is_v6: bool, packet: &mut [u8]) {
    let decremented = if is_v6 {
        ipv6::decrement_hop_limit(packet)
    } else {
        ipv4::decrement_ttl(packet)
    };
    debug_assert!(
        decremented,
        "a packet without a hop left must not come here"
    );
}
