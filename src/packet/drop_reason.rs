//! Why a packet did not leave.

use std::fmt;

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// The one reason under which a packet that did not leave is counted.
        ///
        /// A closed list: each is a counter that a user can read, exported as
        /// `underpass_drops_total{reason="…"}`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of the stages that give them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name under which it is counted.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

drop_reasons! {
    // Stage 1, parse: the link.
    /// The frame is shorter than an Ethernet header.
    EthernetTruncated => "ethernet_truncated",
    /// The Ethernet destination is another station's.
    NotForUs => "not_for_us",
    /// Broadcast or multicast that no rule lets through.
    Multicast => "multicast",
    /// The frame is a VLAN's, of which no port here is one, or the one in VXLAN is tagged.
    VlanTag => "vlan_tag",
    /// Neither IPv4, IPv6 nor ARP.
    UnknownEthertype => "unknown_ethertype",
    // Stage 1, parse: IPv4 (RFC 791, RFC 1812 section 5.2.2) and IPv6 (RFC 8200).
    /// The packet ends within its IPv4 header.
    Ipv4Truncated => "ipv4_truncated",
    /// The version field is neither 4 nor 6, or not what the link says.
    IpVersion => "ip_version",
    /// The IPv4 header length is under 20 bytes or beyond the packet.
    Ipv4HeaderLength => "ipv4_header_length",
    /// The IPv4 total length is shorter than its header or longer than the packet.
    Ipv4TotalLength => "ipv4_total_length",
    /// The IPv4 header checksum is wrong.
    Ipv4Checksum => "ipv4_checksum",
    /// The packet ends within its IPv6 header.
    Ipv6Truncated => "ipv6_truncated",
    /// The IPv6 payload length is longer than the packet.
    Ipv6PayloadLength => "ipv6_payload_length",
    /// A source that no packet may have: multicast, broadcast, loopback, unspecified; one that must stay on
    /// its link; from the underlay, one of this node's own.
    MartianSource => "martian_source",
    /// A destination that is never forwarded: loopback, unspecified, class E or another link's.
    MartianDestination => "martian_destination",
    /// A workload sent from an address that is not its own.
    SpoofedSource => "spoofed_source",
    /// A workload sent a tunnel packet, or an error about one, which only nodes may.
    TunnelFromWorkload => "tunnel_from_workload",
    // Stage 2, decap.
    /// A tunnel packet from an address that is no known node's.
    UnknownPeer => "unknown_peer",
    /// A fragment of a tunnel packet, or of one to the router, that could not be put together: others are
    /// missing or contradict it.
    OuterFragment => "outer_fragment",
    /// An outer fragment gave way to newer ones: the memory for reassembly was full.
    ReassemblyFull => "reassembly_full",
    /// An ICMP error that quotes no tunnel packet which this node can have sent.
    InvalidQuote => "invalid_quote",
    /// The UDP datagram is shorter than its header or longer than its packet.
    UdpLength => "udp_length",
    /// The outer UDP checksum is given and wrong.
    UdpChecksum => "udp_checksum",
    /// The VXLAN packet ends within its header or has no inner frame.
    VxlanTruncated => "vxlan_truncated",
    /// The VXLAN I flag is clear: there is no VNI.
    VxlanNoVni => "vxlan_no_vni",
    /// A VXLAN reserved bit is set and the configuration is strict.
    VxlanReservedBits => "vxlan_reserved_bits",
    /// The VNI is not ours.
    VxlanUnknownVni => "vxlan_unknown_vni",
    /// The inner Ethernet destination is not our VTEP's.
    VxlanInnerNotForUs => "vxlan_inner_not_for_us",
    /// The tunnel packet carries neither IPv4 nor IPv6.
    InnerProtocol => "inner_protocol",
    /// The outer header says congestion, the inner sender does not understand it (RFC 6040).
    EcnNotEctCe => "ecn_not_ect_ce",
    /// A tunnel packet whose inner source is one of our own workloads, multicast, loopback or link-local.
    SpoofedInner => "spoofed_inner",
    /// A tunnel packet whose inner source has no route, or, if the check is strict, one to another node.
    ReversePath => "reverse_path",
    // Bridges.
    /// A bridged frame whose source is no station's address: a group's, or zero.
    BridgeSource => "bridge_source",
    /// A bridged frame that came from elsewhere than its source's static entry says.
    BridgeStatic => "bridge_static",
    /// A bridged frame whose source has moved to and fro too often to be believed.
    BridgeFlapping => "bridge_flapping",
    /// A frame that came out of a tunnel and would have to go into one.
    BridgeSplitHorizon => "bridge_split_horizon",
    /// A frame to a group of the protocols that stay on one link (01:80:c2:00:00:00 to 0f).
    BridgeLinkLocal => "bridge_link_local",
    /// A frame for everybody in a bridge that has nobody else.
    BridgeNobody => "bridge_nobody",
    // Stages 4 and 5, lookup and TTL; each is answered by ICMP where that is allowed.
    /// No route to the destination.
    NoRoute => "no_route",
    /// The destination is in one of our own blocks and no workload has it.
    Blackhole => "blackhole",
    /// The TTL or hop limit ran out here.
    TtlExpired => "ttl_expired",
    /// The next hop's Ethernet address could not be learnt.
    NeighbourUnresolved => "neighbour_unresolved",
    /// The packet would leave through the port that it came in by.
    SamePort => "same_port",
    // Stage 6, encap.
    /// The packet is larger than the way out takes and may not be fragmented.
    TooBig => "too_big",
    /// The frame has no room for the outer header.
    NoHeadroom => "no_headroom",
    // The slow path.
    /// The slow path had no room for another packet.
    SlowPathFull => "slow_path_full",
    /// An answer was due and the rate limit forbade it.
    RateLimited => "rate_limited",
    /// A message to the router that it does not answer.
    NotAnswered => "not_answered",
    // Ports.
    /// What a TUN, TAP, packet or unix socket port read has a virtio header or a length that makes no sense.
    MalformedFrame => "malformed_frame",
    /// The packet does not fit into the port's buffers or its link.
    Oversized => "oversized",
    /// The transmit ring stayed full.
    TxRingFull => "tx_ring_full",
    /// The port refused the packet.
    TxError => "tx_error",
    /// No frame was free.
    NoFrame => "no_frame",
    /// Another worker's queue was full.
    HandoffFull => "handoff_full",
    /// The port that the packet should leave by is gone.
    NoPort => "no_port",
    /// The packet was still queued when the router stopped.
    Shutdown => "shutdown",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_indices_dense() {
        let names: BTreeSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(
                reason.meaning().ends_with('.'),
                "{reason}: {}",
                reason.meaning()
            );
        }
    }
}
