//! ICMP errors about our own tunnel packets: what they say, and whether to believe it.
//!
//! Anybody can send such an error. It is believed only where it quotes a packet that this node can
//! have sent: from its address to a known node, with the header that its tunnels write, and larger
//! than what the error says would fit (RFC 5927 section 4).

use std::net::IpAddr;

use crate::forward::{Adjacency, Bridge, BridgeId, Encapsulation, OuterTtl, PortRole, Snapshot};
use crate::wire::icmp::{self, Icmp, LEAST_MTU, PLATEAUS, codes, types};
use crate::wire::icmpv6::{self, Icmpv6};
use crate::wire::ipv4::{self, Ipv4, protocol};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::vxlan::{self, Vxlan};
use crate::wire::{Mtu, ethernet, udp};

/// Source ports of VXLAN packets begin here (RFC 7348 section 5).
const FIRST_SOURCE_PORT: u16 = 49152;

/// An error to believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TunnelError<'a> {
    /// The node that the quoted packet was sent to.
    pub far_end: IpAddr,
    /// What is the matter.
    pub trouble: Trouble,
    /// Bytes that our tunnel put around the inner packet.
    pub overhead: u16,
    /// As much of the inner packet as is quoted; perhaps nothing.
    pub inner: &'a [u8],
    /// Whether it was a bridge's packet: what is within was not routed here.
    pub bridged: bool,
}

/// Why a tunnel packet did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Larger than a link on the way takes: packets up to this size, outer header included, fit.
    TooBig(Mtu),
    /// The far end, or its tunnel, is not reached.
    Unreachable,
    /// Its TTL ran out on the way.
    TimeExceeded,
}

/// Reads a packet with an ICMP error: destination unreachable, time exceeded, or ICMPv6's packet too
/// big; nothing if it is not to be believed.
pub(super) fn read<'a>(snapshot: &Snapshot, packet: &'a [u8]) -> Option<TunnelError<'a>> {
    match packet.first()? >> 4 {
        4 => read_v4(snapshot, packet),
        6 => read_v6(snapshot, packet),
        _ => None,
    }
}

fn read_v4<'a>(snapshot: &Snapshot, packet: &'a [u8]) -> Option<TunnelError<'a>> {
    let ip = Ipv4::parse(packet).ok()?;
    if ip.protocol != protocol::ICMP || ip.is_fragment() {
        return None;
    }
    let message = packet.get(ip.header_len..ip.total_len)?;
    let icmp = Icmp::parse(message).ok()?;
    let quoted = quotation(&icmp, message.get(icmp::HEADER_LEN..)?);
    let outer = Ipv4::parse_quoted(quoted).ok()?;
    let ours = snapshot.tunnels.node_address == Some(outer.source)
        && outer.header_len == ipv4::HEADER_LEN
        && outer.fragment_offset == 0;
    if !ours {
        return None;
    }
    let quoted = &quoted[..quoted.len().min(outer.total_len)];
    let far_end = outer.destination.into();
    let (overhead, network) = match outer.protocol {
        protocol::IPIP => (Encapsulation::Ipip.overhead(), Network::Routed),
        protocol::UDP => {
            let behind = &quoted[ipv4::HEADER_LEN..];
            let network = vxlan_network(snapshot, far_end, outer.payload_len(), behind)?;
            (Encapsulation::Vxlan.overhead(), network)
        }
        _ => return None,
    };
    if !network.has(snapshot, far_end) {
        return None;
    }
    if outer.total_len < usize::from(overhead) + ipv4::HEADER_LEN {
        return None;
    }
    let trouble = trouble(&icmp, &outer)?;
    // A bridge's packets may be fragmented: no router complains of their size.
    if network != Network::Routed && matches!(trouble, Trouble::TooBig(_)) {
        return None;
    }
    Some(TunnelError {
        far_end,
        trouble,
        overhead,
        inner: quoted.get(usize::from(overhead)..).unwrap_or_default(),
        bridged: network != Network::Routed,
    })
}

/// The same over IPv6, where a tunnel packet may be quoted as a first fragment: one that was cut outside.
fn read_v6<'a>(snapshot: &Snapshot, packet: &'a [u8]) -> Option<TunnelError<'a>> {
    let ip = Ipv6::parse(packet).ok()?;
    if ip.next_header != protocol::ICMPV6 {
        return None;
    }
    let message = packet.get(ipv6::HEADER_LEN..ip.total_len())?;
    let icmp = Icmpv6::parse(ip.source, ip.destination, message).ok()?;
    let quoted = quotation_v6(&icmp, message.get(icmpv6::HEADER_LEN..)?);
    let outer = Ipv6::parse_quoted(quoted).ok()?;
    if snapshot.tunnels.v6?.node_address != outer.source {
        return None;
    }
    let quoted = &quoted[..quoted.len().min(outer.total_len())];
    let trouble = trouble_v6(&icmp, &outer)?;
    let (overhead, datagram_len) = match outer.next_header {
        protocol::UDP => (
            Encapsulation::VxlanOverIpv6.overhead(),
            Some(outer.payload_len),
        ),
        protocol::FRAGMENT => {
            let (fragment, next) = ipv6::Fragment::parse(quoted.get(ipv6::HEADER_LEN..)?)?;
            if fragment.offset != 0 || next != protocol::UDP {
                return None;
            }
            let overhead = Encapsulation::VxlanOverIpv6.overhead() + ipv6::FRAGMENT_LEN as u16;
            (overhead, None)
        }
        _ => return None,
    };
    let udp_at = usize::from(overhead) - UDP_TO_INNER;
    let behind = quoted.get(udp_at..)?;
    let datagram_len = datagram_len.unwrap_or_else(|| {
        // Of a fragment the whole's length is not known: what its UDP header says has to do.
        behind.get(4..6).map_or(0, |length| {
            u16::from_be_bytes([length[0], length[1]]).into()
        })
    });
    let far_end = outer.destination.into();
    let network = vxlan_network(snapshot, far_end, datagram_len, behind)?;
    network.has(snapshot, far_end).then_some(TunnelError {
        far_end,
        trouble,
        overhead: Encapsulation::VxlanOverIpv6.overhead(),
        inner: quoted.get(usize::from(overhead)..).unwrap_or_default(),
        bridged: network != Network::Routed,
    })
}

/// What VXLAN has between the outer IP header and the inner packet.
const UDP_TO_INNER: usize = udp::HEADER_LEN + vxlan::HEADER_LEN + ethernet::HEADER_LEN;

/// The quoted bytes without the extensions that may follow them: of ICMPv6 only errors with a length
/// field have any (RFC 4884 section 4.5), and that counts words of eight bytes.
fn quotation_v6<'a>(icmp: &Icmpv6, behind_header: &'a [u8]) -> &'a [u8] {
    let length = match icmp.message_type {
        icmpv6::types::DESTINATION_UNREACHABLE | icmpv6::types::TIME_EXCEEDED => {
            usize::from(icmp.rest[0]) * 8
        }
        _ => 0,
    };
    match behind_header.get(..length) {
        Some(quoted) if length > 0 => quoted,
        _ => behind_header,
    }
}

/// Nothing below 1280 bytes is believed (RFC 8201 section 4).
fn trouble_v6(icmp: &Icmpv6, outer: &Ipv6) -> Option<Trouble> {
    match (icmp.message_type, icmp.mtu()) {
        (icmpv6::types::PACKET_TOO_BIG, Some(mtu)) => {
            let mtu = u16::try_from(mtu).ok()?;
            let sensible =
                usize::from(mtu) >= ipv6::MIN_MTU && usize::from(mtu) < outer.total_len();
            sensible.then_some(Trouble::TooBig(Mtu(mtu)))
        }
        (icmpv6::types::DESTINATION_UNREACHABLE, _) => Some(Trouble::Unreachable),
        (icmpv6::types::TIME_EXCEEDED, _) => {
            (icmp.code == icmpv6::codes::HOP_LIMIT_EXCEEDED).then_some(Trouble::TimeExceeded)
        }
        _ => None,
    }
}

/// Whether a quoted inner packet is one that this node sends into a tunnel, and has enough of itself
/// for its sender to recognise it: its header and 8 bytes (RFC 792).
pub(super) fn inner_is_ours(snapshot: &Snapshot, inner: &[u8]) -> bool {
    let Some((source, destination)) = ends(inner) else {
        return false;
    };
    let from_here = match way(snapshot, source) {
        Some(Adjacency::Forward(egress)) => snapshot
            .ports
            .get(usize::from(egress.port.0))
            .is_some_and(|port| port.role != PortRole::Uplink),
        _ => false,
    };
    // A route may have changed since the packet left; an unresolved next hop is one all the same.
    let into_tunnel = match way(snapshot, destination) {
        Some(Adjacency::Unresolved) => true,
        Some(adjacency) => adjacency
            .egress()
            .is_some_and(|egress| egress.encapsulation != Encapsulation::None),
        None => false,
    };
    from_here && into_tunnel
}

/// Whether a quoted inner packet gave its TTL to its outer header: what ran out then was its sender's.
pub(super) fn inherits_ttl(snapshot: &Snapshot, inner: &[u8]) -> bool {
    ends(inner)
        .and_then(|(_, destination)| way(snapshot, destination)?.egress())
        .is_some_and(|egress| egress.ttl == OuterTtl::Inherit)
}

/// A quoted packet's source and destination, if 8 bytes behind its header are quoted too.
fn ends(inner: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (header_len, ends) = match inner.first()? >> 4 {
        4 => {
            let ip = Ipv4::parse_quoted(inner).ok()?;
            (ip.header_len, (ip.source.into(), ip.destination.into()))
        }
        6 => {
            let ip = Ipv6::parse_quoted(inner).ok()?;
            (ipv6::HEADER_LEN, (ip.source.into(), ip.destination.into()))
        }
        _ => return None,
    };
    (inner.len() >= header_len + 8).then_some(ends)
}

fn way(snapshot: &Snapshot, address: IpAddr) -> Option<&Adjacency> {
    let next_hop = match address {
        IpAddr::V4(address) => snapshot.fib.lookup_v4(address),
        IpAddr::V6(address) => snapshot.fib.lookup_v6(address),
    };
    snapshot.adjacencies.get(next_hop?.0 as usize)
}

/// The quoted bytes without the extensions that may follow them (RFC 4884 section 4.1).
fn quotation<'a>(icmp: &Icmp, behind_header: &'a [u8]) -> &'a [u8] {
    let length = usize::from(icmp.rest[1]) * 4;
    match behind_header.get(..length) {
        Some(quoted) if length > 0 => quoted,
        _ => behind_header,
    }
}

/// A network that a quoted tunnel packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Routed,
    Bridge(BridgeId),
    /// One of the bridges that use this UDP port: too little is quoted to say which.
    SomeBridge(u16),
}

impl Network {
    /// Whether this node sends packets of this network to that far end. External nodes only send: an error
    /// about a packet to one of them is forged, and their prefixes hold more far ends than can be remembered.
    fn has(self, snapshot: &Snapshot, far_end: IpAddr) -> bool {
        let has = |bridge: &Bridge| bridge.remotes.at(far_end).is_some();
        match self {
            Self::Routed => snapshot.tunnels.peers.node(far_end).is_some(),
            Self::Bridge(id) => snapshot.bridges.get(id).is_some_and(has),
            Self::SomeBridge(port) => {
                let mut bridges = snapshot.bridges.iter().map(|(_, bridge)| bridge);
                bridges.any(|bridge| bridge.udp_port == port && has(bridge))
            }
        }
    }
}

/// The network of what is quoted behind the outer IP header, if that is as our tunnels write it: a
/// datagram of that length.
fn vxlan_network(
    snapshot: &Snapshot,
    far_end: IpAddr,
    datagram_len: usize,
    behind: &[u8],
) -> Option<Network> {
    let header = behind.first_chunk::<{ udp::HEADER_LEN }>()?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if word(0) < FIRST_SOURCE_PORT || usize::from(word(4)) != datagram_len {
        return None;
    }
    let (port, payload) = (word(2), &behind[udp::HEADER_LEN..]);
    let tunnels = &snapshot.tunnels;
    if payload.len() >= vxlan::HEADER_LEN + ethernet::HEADER_LEN {
        let vni = Vxlan::parse(payload).ok()?.vni;
        if tunnels.is_routed(port, vni) {
            return Some(Network::Routed);
        }
        return snapshot.bridges.network(port, vni).map(Network::Bridge);
    }
    // The least quotation ends with the UDP header.
    let routed = tunnels.listen_on(port) && Network::Routed.has(snapshot, far_end);
    let routed = routed.then_some(Network::Routed);
    let bridged = snapshot.bridges.listen_on(port);
    routed.or(bridged.then_some(Network::SomeBridge(port)))
}

fn trouble(icmp: &Icmp, outer: &Ipv4) -> Option<Trouble> {
    match (icmp.message_type, icmp.code) {
        (types::DESTINATION_UNREACHABLE, codes::FRAGMENTATION_NEEDED) => {
            let mtu = match icmp.next_hop_mtu()? {
                0 => plateau_below(outer.total_len),
                said => said,
            };
            // Without DF a router fragments, and does not complain.
            let sensible = outer.dont_fragment
                && outer.identification == 0
                && mtu >= LEAST_MTU
                && usize::from(mtu) < outer.total_len;
            sensible.then_some(Trouble::TooBig(Mtu(mtu)))
        }
        // Our packets have no source route that could fail.
        (types::DESTINATION_UNREACHABLE, codes::SOURCE_ROUTE_FAILED) => None,
        (types::DESTINATION_UNREACHABLE, _) => Some(Trouble::Unreachable),
        (types::TIME_EXCEEDED, codes::TTL_EXCEEDED) => Some(Trouble::TimeExceeded),
        _ => None,
    }
}

/// The largest common MTU that a packet of this length does not fit into.
fn plateau_below(total_len: usize) -> u16 {
    let smaller = PLATEAUS.iter().find(|mtu| usize::from(**mtu) < total_len);
    smaller.copied().unwrap_or(LEAST_MTU)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::Fib;
    use crate::forward::{PeerId, Peers, RouterAddresses, Tunnels};
    use crate::wire::{MacAddr, Vni};
    use crate::worker::publish::Quiescence;
    use etherparse::{Icmpv4Type, IpNumber, Ipv4Header, icmpv4};
    use proptest::prelude::*;

    const NODE: [u8; 4] = [10, 30, 0, 11];
    const FAR: [u8; 4] = [10, 30, 0, 12];
    const ROUTER: [u8; 4] = [10, 30, 0, 254];

    fn snapshot() -> Snapshot {
        let (fib, _) = Fib::new(Quiescence::new());
        Snapshot {
            fib,
            adjacencies: Vec::new(),
            ports: Vec::new(),
            tunnels: tunnels(),
            router: RouterAddresses {
                v4: NODE.into(),
                v6: RouterAddresses::GATEWAY_V6,
            },
            bridges: Default::default(),
        }
    }

    fn tunnels() -> Tunnels {
        Tunnels {
            peers: [FAR.into()].into_iter().collect(),
            node_address: Some(NODE.into()),
            vxlan_port: 4789,
            vni: Vni::CALICO,
            also: (4789, Vni::CALICO),
            vtep_mac: MacAddr::default(),
            strict_reserved_bits: false,
            local_addresses: Default::default(),
            v6: None,
            reverse_path: Default::default(),
            from_workloads: Default::default(),
        }
    }

    /// One of our packets of 1500 bytes, DF set, as etherparse builds it.
    fn offender(protocol: u8, behind: &[u8]) -> Vec<u8> {
        let mut header = Ipv4Header::new(1480, 63, IpNumber(protocol), NODE, FAR).unwrap();
        header.dont_fragment = true;
        header.identification = 0;
        header.header_checksum = header.calc_header_checksum();
        let mut packet = header.to_bytes().to_vec();
        packet.extend_from_slice(behind);
        packet.resize(1500, 0xaa);
        packet
    }

    fn ipip() -> Vec<u8> {
        offender(4, &[0x45; 40])
    }

    fn vxlan() -> Vec<u8> {
        let mut behind = Vec::new();
        behind.extend_from_slice(&50000_u16.to_be_bytes());
        behind.extend_from_slice(&4789_u16.to_be_bytes());
        behind.extend_from_slice(&1480_u16.to_be_bytes());
        behind.extend_from_slice(&[0, 0, 8, 0, 0, 0, 0, 0x10, 0, 0]);
        offender(17, &behind)
    }

    /// What a router says about it, as etherparse builds it.
    fn error(kind: Icmpv4Type, quoted: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4(ROUTER, NODE, 60)
            .icmpv4(kind)
            .write(&mut packet, quoted)
            .unwrap();
        packet
    }

    fn too_big(mtu: u16, quoted: &[u8]) -> Vec<u8> {
        use icmpv4::DestUnreachableHeader as Why;
        let next_hop_mtu = mtu;
        error(
            Icmpv4Type::DestinationUnreachable(Why::FragmentationNeeded { next_hop_mtu }),
            quoted,
        )
    }

    fn unreachable(code: u8, quoted: &[u8]) -> Vec<u8> {
        let why = icmpv4::DestUnreachableHeader::from_values(code, 0).unwrap();
        error(Icmpv4Type::DestinationUnreachable(why), quoted)
    }

    fn told(packet: &[u8]) -> Option<Trouble> {
        let snapshot = snapshot();
        let found = read(&snapshot, packet)?;
        assert_eq!(found.far_end, std::net::Ipv4Addr::from(FAR));
        Some(found.trouble)
    }

    #[test]
    fn a_link_that_is_too_narrow_is_believed() {
        for (offender, overhead) in [(ipip(), 20), (vxlan(), 50)] {
            for quoted in [28, 64, 548, 1500] {
                let packet = too_big(1400, &offender[..quoted]);
                let snapshot = snapshot();
                let found = read(&snapshot, &packet).unwrap();
                assert_eq!(found.trouble, Trouble::TooBig(Mtu(1400)));
                assert_eq!(found.overhead, overhead);
                let inner = offender[..quoted].get(usize::from(overhead)..);
                assert_eq!(found.inner, inner.unwrap_or_default());
            }
        }
    }

    #[test]
    fn what_no_link_of_ours_can_be_is_not() {
        for mtu in [1, 67, 1500, 1501, 65535] {
            assert_eq!(told(&too_big(mtu, &ipip())), None, "{mtu}");
        }
        for mtu in [68, 1499] {
            assert_eq!(
                told(&too_big(mtu, &ipip())),
                Some(Trouble::TooBig(Mtu(mtu)))
            );
        }
    }

    #[test]
    fn a_router_that_says_no_mtu_means_the_next_plateau() {
        let of_length = |length: u16| {
            let mut quoted = ipip();
            assert!(ipv4::set_total_len(&mut quoted, length));
            told(&too_big(0, &quoted))
        };
        for (length, mtu) in [
            (1500, 1492),
            (1492, 1006),
            (1007, 1006),
            (300, 296),
            (69, 68),
        ] {
            assert_eq!(
                of_length(length),
                Some(Trouble::TooBig(Mtu(mtu))),
                "{length}"
            );
        }
        assert_eq!(of_length(68), None);
    }

    #[test]
    fn other_errors_mean_that_the_far_end_is_not_reached() {
        for code in [0, 1, 2, 3, 6, 13] {
            for offender in [ipip(), vxlan()] {
                let packet = unreachable(code, &offender[..28]);
                assert_eq!(told(&packet), Some(Trouble::Unreachable), "{code}");
            }
        }
        assert_eq!(told(&unreachable(5, &ipip())), None);
        for offender in [ipip(), vxlan()] {
            let exceeded = |code| error(Icmpv4Type::TimeExceeded(code), &offender[..28]);
            let ttl = icmpv4::TimeExceededCode::TtlExceededInTransit;
            assert_eq!(told(&exceeded(ttl)), Some(Trouble::TimeExceeded));
            let fragments = icmpv4::TimeExceededCode::FragmentReassemblyTimeExceeded;
            assert_eq!(told(&exceeded(fragments)), None);
        }
    }

    #[test]
    fn extensions_behind_the_quotation_are_not_taken_for_the_packet() {
        let mut behind = ipip()[..128].to_vec();
        behind.extend_from_slice(&[0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0, 1]);
        let mut packet = too_big(1400, &behind);
        // RFC 4884: the quotation's length in words of four bytes, in ICMP's sixth byte.
        packet[25] = 32;
        packet[22..24].fill(0);
        let sum = crate::wire::checksum::of(&packet[20..]);
        packet[22..24].copy_from_slice(&sum.to_be_bytes());
        let snapshot = snapshot();
        assert_eq!(read(&snapshot, &packet).unwrap().inner.len(), 108);
    }

    #[test]
    fn a_packet_that_we_cannot_have_sent_convinces_nobody() {
        let changed = |mut packet: Vec<u8>, at: usize, bytes: &[u8]| {
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            too_big(1400, &packet)
        };
        for (what, packet) in [
            ("from another node", changed(ipip(), 12, &[10, 30, 0, 13])),
            ("to a stranger", changed(ipip(), 16, &[10, 30, 0, 99])),
            ("DF clear", changed(ipip(), 6, &[0])),
            ("an identification", changed(ipip(), 4, &[0, 7])),
            ("a later fragment", changed(ipip(), 6, &[0x40, 9])),
            ("with options", changed(ipip(), 0, &[0x46])),
            ("TCP", changed(ipip(), 9, &[6])),
            ("another UDP port", changed(vxlan(), 22, &[0, 53])),
            ("a low source port", changed(vxlan(), 20, &[0, 53])),
            ("another UDP length", changed(vxlan(), 24, &[5, 0])),
            ("another network", changed(vxlan(), 32, &[0, 0, 9])),
            ("shorter than its headers", changed(vxlan(), 2, &[0, 60])),
            ("no ports quoted", too_big(1400, &vxlan()[..27])),
            ("no header quoted", too_big(1400, &ipip()[..19])),
            ("nothing quoted", too_big(1400, &[])),
        ] {
            assert_eq!(told(&packet), None, "{what}");
        }
        let mut bad_checksum = too_big(1400, &ipip());
        bad_checksum[30] ^= 1;
        assert_eq!(told(&bad_checksum), None);
    }

    /// Nothing is sent to them, so that a whole prefix of them has no room among the paths that are known.
    #[test]
    fn an_error_about_an_external_node_convinces_nobody() {
        let external: IpAddr = [10, 40, 7, 7].into();
        let peers = |nodes: &[IpAddr]| {
            let nodes = nodes.iter().map(|node| (*node, PeerId(0)));
            Peers::new(nodes, vec!["10.40.0.0/16".parse().unwrap()])
        };
        let mut snapshot = snapshot();
        for mut offender in [ipip(), vxlan()] {
            offender[16..20].copy_from_slice(&[10, 40, 7, 7]);
            for quoted in [28, 64, 1500] {
                let packet = too_big(1400, &offender[..quoted]);
                snapshot.tunnels.peers = peers(&[FAR.into()]);
                assert_eq!(read(&snapshot, &packet), None, "{quoted}");
                snapshot.tunnels.peers = peers(&[external]);
                let found = read(&snapshot, &packet).unwrap();
                assert_eq!(found.far_end, external, "a node, too");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&snapshot(), &bytes);
        }

        /// Damage behind right checksums, which is what a forger sends.
        #[test]
        fn any_quotation_is_read_without_harm(
            mtu: u16,
            cut in 0_usize..200,
            vx: bool,
            damage in proptest::collection::vec((0_usize..60, any::<u8>()), 0..6),
        ) {
            let mut quoted = if vx { vxlan() } else { ipip() };
            for (at, byte) in damage {
                quoted[at] = byte;
            }
            let packet = too_big(mtu, &quoted[..cut]);
            let snapshot = snapshot();
            if let Some(found) = read(&snapshot, &packet) {
                prop_assert!(found.inner.len() <= cut);
                if let Trouble::TooBig(mtu) = found.trouble {
                    prop_assert!(mtu.0 >= LEAST_MTU);
                }
            }
        }
    }
}
