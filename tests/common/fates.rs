//! Packets of every fate: what the packet path does with each, by port and bytes.

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;
use underpass::fib::NextHop;
use underpass::forward::{Punt, Verdict};
use underpass::packet::DropReason;
use underpass::port::PortId;
use underpass::wire::{MacAddr, Mtu};

use super::*;

/// One packet and its fate.
pub struct Case {
    /// What is particular about it.
    pub name: &'static str,
    /// The port that it comes in by.
    pub port: PortId,
    /// The frame as it comes in.
    pub frame: Vec<u8>,
    /// What the packet path says.
    pub verdict: Verdict,
}

fn case(name: &'static str, port: PortId, frame: Vec<u8>, verdict: Verdict) -> Case {
    Case {
        name,
        port,
        frame,
        verdict,
    }
}

/// All of [`forwarded`], [`punted`] and [`dropped`].
pub fn all() -> Vec<Case> {
    let mut cases = forwarded(b"payload");
    cases.extend(punted());
    cases.extend(dropped());
    cases
}

/// Packets that go on, one for each way in and out; all end with `payload`.
pub fn forwarded(payload: &[u8]) -> Vec<Case> {
    let to = |destination| from_pod(&udp(POD, destination, 64, payload));
    let from_far = udp(FAR_IPIP, POD, 64, payload);
    let from_far_v6 = udp6(FAR_VXLAN_V6, POD_V6, 64, payload);
    let wrapped = |inner: &[u8]| {
        let frame = ethernet(FAR_VTEP_MAC, VTEP_MAC, inner);
        from_uplink(&vxlan(FAR_NODE, CALICO_VXLAN, &frame))
    };
    let out = |port| Verdict::Transmit(port);
    vec![
        case("IPIP encap", WORKLOAD, to(FAR_IPIP), out(UPLINK)),
        case("VXLAN encap", WORKLOAD, to(FAR_VXLAN), out(UPLINK)),
        case("direct", WORKLOAD, to(FAR_DIRECT), out(UPLINK)),
        case(
            "VXLAN encap, inner IPv6",
            WORKLOAD,
            from_pod(&udp6(POD_V6, FAR_VXLAN_V6, 64, payload)),
            out(UPLINK),
        ),
        case(
            "IPIP decap",
            UPLINK,
            from_uplink(&ipip(FAR_NODE, NODE, &from_far)),
            out(WORKLOAD),
        ),
        case("VXLAN decap", UPLINK, wrapped(&from_far), out(WORKLOAD)),
        case(
            "VXLAN decap, inner IPv6",
            UPLINK,
            wrapped(&from_far_v6),
            out(WORKLOAD),
        ),
        case(
            "direct from the uplink",
            UPLINK,
            from_uplink(&from_far),
            out(WORKLOAD),
        ),
        case("to the other workload", WORKLOAD, to(OTHER_POD), {
            out(OTHER_WORKLOAD)
        }),
        case("to the world", WORKLOAD, to(WORLD), out(HOST)),
        case(
            "from the host by IPIP",
            HOST,
            udp(NODE, FAR_IPIP, 64, payload),
            out(UPLINK),
        ),
        case(
            "from the host to a workload",
            HOST,
            udp(WORLD, POD, 64, payload),
            out(WORKLOAD),
        ),
    ]
}

/// Somewhere beyond the host.
pub const WORLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// In no block.
pub const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 9);
/// In our own block, and nobody's.
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 60);
/// Behind a next hop without an Ethernet address.
pub const UNRESOLVED: Ipv4Addr = Ipv4Addr::new(192, 168, 5, 1);
/// The gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Packets for the slow path, one for each reason.
pub fn punted() -> Vec<Case> {
    let pod = |name, destination, ttl, payload: &[u8], punt| {
        let frame = from_pod(&udp(POD, destination, ttl, payload));
        case(name, WORKLOAD, frame, Verdict::Punt(punt))
    };
    vec![
        pod("TTL 1", FAR_IPIP, 1, b"", Punt::TtlExpired),
        pod("no route", NOWHERE, 64, b"", Punt::NoRoute),
        pod("blackhole", NOBODY, 64, b"", Punt::Blackhole),
        pod("to the gateway", GATEWAY, 64, b"", Punt::ToRouter),
        pod(
            "unresolved",
            UNRESOLVED,
            64,
            b"",
            Punt::Unresolved(NextHop(9)),
        ),
        pod("too big", FAR_IPIP, 64, &[0; 1460], Punt::TooBig(Mtu(1480))),
        case("ARP", WORKLOAD, arp_request(POD, GATEWAY), {
            Verdict::Punt(Punt::Arp)
        }),
        case(
            "solicitation",
            WORKLOAD,
            from_pod(&solicitation()),
            Verdict::Punt(Punt::NeighbourDiscovery),
        ),
        case(
            "DHCP",
            WORKLOAD,
            from_pod(&dhcp_discover()),
            Verdict::Punt(Punt::Dhcp),
        ),
        case(
            "outer fragment",
            UPLINK,
            from_uplink(&outer_fragment()),
            Verdict::Punt(Punt::OuterFragment),
        ),
        case(
            "error about a tunnel packet",
            UPLINK,
            from_uplink(&too_big_about_a_tunnel_packet()),
            Verdict::Punt(Punt::TunnelError),
        ),
    ]
}

/// The first fragment of a tunnel packet from a known node.
fn outer_fragment() -> Vec<u8> {
    let mut packet = ipip(FAR_NODE, NODE, &udp(FAR_IPIP, POD, 64, b"payload"));
    rewrite(&mut packet, |header| header.more_fragments = true);
    packet
}

/// A router of the underlay says that one of our own tunnel packets was too big for its next link.
fn too_big_about_a_tunnel_packet() -> Vec<u8> {
    let ours = ipip(NODE, FAR_NODE, &udp(POD, FAR_IPIP, 63, &[0; 1400]));
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4(STRANGER.octets(), NODE.octets(), 64)
        .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(
            etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 },
        ))
        .write(&mut packet, &ours[..28])
        .unwrap();
    packet
}

/// A workload's question who has `target`.
pub fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let header = etherparse::ArpEthIpv4Packet {
        operation: etherparse::ArpOperation::REQUEST,
        sender_mac: POD_MAC.0,
        sender_ipv4: sender.octets(),
        target_mac: [0; 6],
        target_ipv4: target.octets(),
    };
    let message = etherparse::ArpPacket::from(header);
    ethernet_of(POD_MAC, MacAddr::BROADCAST, 0x0806, &message.to_bytes())
}

/// The front of a neighbour solicitation, enough for the packet path.
fn solicitation() -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(POD_V6.octets(), [0xff; 16], 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut packet, &[0; 16])
        .unwrap();
    packet
}

/// Packets that are dropped at once: each reason that the packet path gives, at least once.
pub fn dropped() -> Vec<Case> {
    [
        bad_links(),
        bad_headers(),
        bad_addresses(),
        bad_tunnels(),
        tunnels_from_a_workload(),
    ]
    .into_iter()
    .flatten()
    .map(|(name, port, frame, reason)| case(name, port, frame, Verdict::Drop(reason)))
    .collect()
}

type Bad = (&'static str, PortId, Vec<u8>, DropReason);

fn bad_links() -> Vec<Bad> {
    use DropReason as R;
    let good = udp(POD, FAR_IPIP, 64, b"payload");
    let from = |mac, ethertype| ethernet_of(POD_MAC, mac, ethertype, &good);
    vec![
        ("short frame", WORKLOAD, vec![0; 13], R::EthernetTruncated),
        (
            "another station's",
            WORKLOAD,
            from(FAR_UPLINK_MAC, 0x0800),
            R::NotForUs,
        ),
        (
            "IPX",
            WORKLOAD,
            from(WORKLOAD_DEVICE_MAC, 0x8137),
            R::UnknownEthertype,
        ),
        (
            "VLAN 100",
            WORKLOAD,
            tagged(&from_pod(&good), 100),
            R::VlanTag,
        ),
        (
            "IPv6's type, IPv4's packet",
            WORKLOAD,
            from(WORKLOAD_DEVICE_MAC, 0x86dd),
            R::IpVersion,
        ),
        ("no port", PortId(99), from_pod(&good), R::NoPort),
    ]
}

fn bad_headers() -> Vec<Bad> {
    use DropReason as R;
    let good = udp(NODE, FAR_IPIP, 64, b"payload");
    let good_v6 = udp6(POD_V6, FAR_VXLAN_V6, 64, b"payload");
    let with = |packet: &[u8], at: usize, byte: u8| {
        let mut packet = packet.to_vec();
        packet[at] = byte;
        packet
    };
    vec![
        ("19 bytes", HOST, good[..19].to_vec(), R::Ipv4Truncated),
        ("version 5", HOST, with(&good, 0, 0x55), R::IpVersion),
        ("IHL 4", HOST, with(&good, 0, 0x44), R::Ipv4HeaderLength),
        ("total length", HOST, with(&good, 2, 9), R::Ipv4TotalLength),
        ("checksum", HOST, with(&good, 10, !good[10]), {
            R::Ipv4Checksum
        }),
        ("39 bytes", HOST, good_v6[..39].to_vec(), R::Ipv6Truncated),
        ("payload length", HOST, with(&good_v6, 4, 9), {
            R::Ipv6PayloadLength
        }),
    ]
}

fn bad_addresses() -> Vec<Bad> {
    use DropReason as R;
    let pod = |destination: [u8; 4]| from_pod(&udp(POD, destination.into(), 9, b""));
    vec![
        (
            "from multicast",
            UPLINK,
            from_uplink(&udp([224, 0, 0, 1].into(), POD, 9, b"")),
            R::MartianSource,
        ),
        (
            "from an IPv4-mapped address",
            UPLINK,
            from_uplink(&udp6(FAR_NODE.to_ipv6_mapped(), POD_V6, 9, b"")),
            R::MartianSource,
        ),
        (
            "from its own address, IPv4-mapped",
            WORKLOAD,
            from_pod(&udp6(POD.to_ipv6_mapped(), POD_V6, 9, b"")),
            R::SpoofedSource,
        ),
        (
            "to an IPv4-mapped address",
            WORKLOAD,
            from_pod(&udp6(POD_V6, OTHER_POD.to_ipv6_mapped(), 9, b"")),
            R::MartianDestination,
        ),
        (
            "to loopback",
            WORKLOAD,
            pod([127, 0, 0, 1]),
            R::MartianDestination,
        ),
        ("to a group", WORKLOAD, pod([224, 0, 0, 5]), R::Multicast),
        (
            "spoofed",
            WORKLOAD,
            from_pod(&udp(OTHER_POD, FAR_IPIP, 9, b"")),
            R::SpoofedSource,
        ),
        ("to itself", WORKLOAD, pod(POD.octets()), R::SamePort),
        (
            "IPv6 by IPIP",
            WORKLOAD,
            from_pod(&udp6(POD_V6, "fd00:0:0:2::2".parse().unwrap(), 9, b"")),
            R::InnerProtocol,
        ),
    ]
}

/// What a workload sends as if it were a node.
fn tunnels_from_a_workload() -> Vec<Bad> {
    let inner = udp(FAR_IPIP, OTHER_POD, 64, b"payload");
    let mut vxlan = Vec::new();
    etherparse::PacketBuilder::ipv4(POD.octets(), FAR_NODE.octets(), 64)
        .udp(50000, 4789)
        .write(&mut vxlan, &[&CALICO_VXLAN[..], &inner].concat())
        .unwrap();
    let quoted = ipip(FAR_NODE, NODE, &inner);
    let mut error = Vec::new();
    etherparse::PacketBuilder::ipv4(POD.octets(), FAR_NODE.octets(), 64)
        .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(
            etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 68 },
        ))
        .write(&mut error, &quoted[..28])
        .unwrap();
    [
        ("IPIP from a workload", ipip(POD, FAR_NODE, &inner)),
        ("VXLAN from a workload", vxlan),
        ("an error about a tunnel, from a workload", error),
    ]
    .map(|(name, packet)| {
        (
            name,
            WORKLOAD,
            from_pod(&packet),
            DropReason::TunnelFromWorkload,
        )
    })
    .into()
}

fn bad_tunnels() -> Vec<Bad> {
    use DropReason as R;
    let inner = udp(FAR_IPIP, POD, 64, b"payload");
    let frame = ethernet(FAR_VTEP_MAC, VTEP_MAC, &inner);
    let wrapped = |header, frame: &[u8]| vxlan(FAR_NODE, header, frame);
    let with = |at: usize, bytes: [u8; 2]| {
        let mut packet = wrapped(CALICO_VXLAN, &frame);
        packet[at..at + 2].copy_from_slice(&bytes);
        packet
    };
    let outer = |change: &dyn Fn(&mut etherparse::Ipv4Header)| {
        let mut packet = ipip(FAR_NODE, NODE, &inner);
        rewrite(&mut packet, change);
        packet
    };
    let foreign = ethernet(FAR_VTEP_MAC, POD_MAC, &inner);
    let spoofed = udp(OTHER_POD, POD, 9, b"");
    let bad: Vec<(&'static str, Vec<u8>, DropReason)> = vec![
        ("stranger", ipip(STRANGER, NODE, &inner), R::UnknownPeer),
        ("UDP length", with(24, [0, 7]), R::UdpLength),
        ("UDP checksum", with(26, [0x12, 0x34]), R::UdpChecksum),
        (
            "cut VXLAN",
            wrapped(CALICO_VXLAN, &frame[..13]),
            R::VxlanTruncated,
        ),
        ("no VNI", wrapped([0; 8], &frame), R::VxlanNoVni),
        (
            "VNI 1",
            wrapped([8, 0, 0, 0, 0, 0, 1, 0], &frame),
            R::VxlanUnknownVni,
        ),
        (
            "another VTEP's",
            wrapped(CALICO_VXLAN, &foreign),
            R::VxlanInnerNotForUs,
        ),
        (
            "inner garbage",
            ipip(FAR_NODE, NODE, b"garbage"),
            R::InnerProtocol,
        ),
        (
            "from our own workload",
            ipip(FAR_NODE, NODE, &spoofed),
            R::SpoofedInner,
        ),
        (
            "CE over Not-ECT",
            outer(&|h| h.ecn = etherparse::IpEcn::try_new(3).unwrap()),
            R::EcnNotEctCe,
        ),
    ];
    bad.into_iter()
        .map(|(name, packet, reason)| (name, UPLINK, from_uplink(&packet), reason))
        .collect()
}

/// Changes an IPv4 packet's header and sets its checksum right.
pub fn rewrite(packet: &mut [u8], change: impl FnOnce(&mut etherparse::Ipv4Header)) {
    let (mut header, _) = etherparse::Ipv4Header::from_slice(packet).unwrap();
    change(&mut header);
    header.header_checksum = header.calc_header_checksum();
    let bytes = header.to_bytes();
    packet[..bytes.len()].copy_from_slice(&bytes);
}

/// What a DHCP client sends before it has an address.
fn dhcp_discover() -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend_from_slice(&[53, 1, 1, 255]);
    let builder = etherparse::PacketBuilder::ipv4([0; 4], [255; 4], 64).udp(68, 67);
    let mut packet = Vec::new();
    builder.write(&mut packet, &message).unwrap();
    packet
}
