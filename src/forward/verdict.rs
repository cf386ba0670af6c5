//! Stage 7: what is to become of a frame.

use super::bridge::{BridgeId, Flood, Place};
use crate::fib::NextHop;
use crate::packet::DropReason;
use crate::packet::PortId;
use crate::wire::Mtu;

/// What is to become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it by this port, as it is.
    Transmit(PortId),
    /// Drop it and count it under this reason.
    Drop(DropReason),
    /// Hand it to the slow path.
    Punt(Punt),
    /// Send a copy to each of the [`super::Targets`] ([`super::deliver`]); the frame is the bridged one.
    Flood(Flood),
}

/// Why the slow path gets a frame.
///
/// But for [`Punt::Arp`], [`Punt::CutOutside`] and what is bridged, whose frame is whole, the frame holds
/// an IP packet without a link header, as it was before its TTL was touched; after decapsulation it is
/// the inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Punt {
    /// ARP on a workload port; the frame begins with its Ethernet header.
    Arp,
    /// Neighbour or router solicitation on a workload port.
    NeighbourDiscovery,
    /// A DHCP client on a workload port asks for its address.
    Dhcp,
    /// Addressed to the router itself.
    ToRouter,
    /// No route: ICMP 3/0, ICMPv6 1/0.
    NoRoute,
    /// In one of our blocks, but nobody has the address: ICMP 3/1, ICMPv6 1/3.
    Blackhole,
    /// TTL or hop limit ran out: ICMP 11/0, ICMPv6 3/0.
    TtlExpired,
    /// Larger than the way out takes: fragment it, or ICMP 3/4, ICMPv6 2 with this MTU.
    TooBig(Mtu),
    /// The next hop's Ethernet address is not known yet.
    Unresolved(NextHop),
    /// Put into its tunnel, as it would be sent by this port, but its path takes tunnel packets of this
    /// size only, outer IP header included: fragment it outside.
    CutOutside(PortId, Mtu),
    /// A fragment of a tunnel packet from a known node, its outer header still there.
    OuterFragment,
    /// An ICMP error that quotes a tunnel packet of ours: unreachable, too big, or too many hops.
    TunnelError,
    /// ARP or neighbour discovery in a bridge, and where it came from.
    Bridged(BridgeId, Place),
    /// A bridged frame for one station whose payload is larger than this, which is what the remote takes
    /// that it goes to, or each of those that it is flooded to.
    BridgedTooBig(Mtu),
}

impl Punt {
    /// The reason to count when the slow path cannot or may not do anything for the packet.
    pub const fn drop_reason(self) -> DropReason {
        match self {
            Self::Arp
            | Self::NeighbourDiscovery
            | Self::Dhcp
            | Self::ToRouter
            | Self::TunnelError
            | Self::Bridged(..) => DropReason::NotAnswered,
            Self::NoRoute => DropReason::NoRoute,
            Self::Blackhole => DropReason::Blackhole,
            Self::TtlExpired => DropReason::TtlExpired,
            Self::TooBig(_) | Self::BridgedTooBig(_) | Self::CutOutside(..) => DropReason::TooBig,
            Self::Unresolved(_) => DropReason::NeighbourUnresolved,
            Self::OuterFragment => DropReason::OuterFragment,
        }
    }
}

impl From<DropReason> for Verdict {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}
