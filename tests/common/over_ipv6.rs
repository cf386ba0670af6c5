//! The node on paper with an IPv6 underlay, and packets as they come over it.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{Icmpv6Type, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket};
use underpass::fib::{Fib, NextHop};
use underpass::forward::{Adjacency, Egress, PeerId, Peers, Snapshot, TunnelHeaderV6, TunnelsV6};
use underpass::wire::{MacAddr, Mtu, Vni};
use underpass::worker::publish::Quiescence;

use super::*;

pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0x11);
pub const FAR_NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0x12);
pub const STRANGER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0x99);
/// A router of the underlay.
pub const MIDDLE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0xff);
pub const VTEP_MAC_V6: MacAddr = MacAddr([0x66, 0, 0, 0, 6, 1]);
pub const FAR_VTEP_MAC_V6: MacAddr = MacAddr([0x66, 0, 0, 0, 6, 2]);
pub const VXLAN_HOP: usize = 2;

/// The node on paper, its VXLAN route leading over IPv6.
pub fn over_ipv6(zero_checksum: bool) -> Snapshot {
    let mut snapshot = snapshot();
    let tunnel = TunnelHeaderV6 {
        source: NODE_V6,
        far_end: FAR_NODE_V6,
        vxlan: (Vni::CALICO, 4789, VTEP_MAC_V6, FAR_VTEP_MAC_V6),
        zero_checksum,
    };
    let egress = Egress::tunnel_v6(UPLINK, Mtu(1430), UPLINK_MAC, FAR_UPLINK_MAC, &tunnel);
    snapshot.adjacencies[VXLAN_HOP] = Adjacency::Forward(egress);
    snapshot.tunnels.peers = Peers::new([(IpAddr::V6(FAR_NODE_V6), PeerId(0))], Vec::new());
    snapshot.tunnels.v6 = Some(TunnelsV6 {
        node_address: NODE_V6,
        vtep_mac: VTEP_MAC_V6,
        zero_checksum,
    });
    let (fib, mut writer) = Fib::new(Quiescence::new());
    for (prefix, next_hop) in [
        ("192.168.1.2/32", 0),
        ("192.168.3.0/26", VXLAN_HOP as u32),
        ("fd00:0:0:1::2/128", 0),
        ("fd00:0:0:3::/122", VXLAN_HOP as u32),
        ("fd00:30::11/128", 5),
    ] {
        let prefix = prefix.parse().unwrap();
        writer.insert(prefix, NextHop(next_hop)).unwrap();
    }
    snapshot.fib = fib;
    snapshot
}

pub fn outer(frame: &[u8]) -> (Ipv6Header, &[u8]) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    assert!(matches!(sliced.net, Some(NetSlice::Ipv6(_))), "{sliced:?}");
    Ipv6Header::from_slice(&frame[14..]).unwrap()
}

pub fn ipv6_header(source: Ipv6Addr, protocol: u8, traffic_class: u8, payload: usize) -> Vec<u8> {
    let header = Ipv6Header {
        traffic_class,
        flow_label: 7.try_into().unwrap(),
        payload_length: payload as u16,
        next_header: protocol.into(),
        hop_limit: 64,
        source: source.octets(),
        destination: NODE_V6.octets(),
    };
    header.to_bytes().to_vec()
}

/// A VXLAN packet to this node as it comes by the uplink, its checksum by etherparse.
pub fn wrapped(source: Ipv6Addr, traffic_class: u8, inner: &[u8], checksum: bool) -> Vec<u8> {
    let frame = ethernet(FAR_VTEP_MAC_V6, VTEP_MAC_V6, inner);
    let payload = [&CALICO_VXLAN[..], &frame].concat();
    let header = ipv6_header(source, 17, traffic_class, payload.len() + 8);
    let (ip, _) = Ipv6Header::from_slice(&header).unwrap();
    let mut udp = etherparse::UdpHeader::without_ipv4_checksum(50000, 4789, payload.len()).unwrap();
    if checksum {
        udp.checksum = udp.calc_checksum_ipv6(&ip, &payload).unwrap();
    }
    from_uplink(&[&header[..], &udp.to_bytes(), &payload].concat())
}

/// An ICMPv6 error to this node.
pub fn error_v6(from: Ipv6Addr, kind: Icmpv6Type, quoted: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(from.octets(), NODE_V6.octets(), 60)
        .icmpv6(kind)
        .write(&mut packet, quoted)
        .unwrap();
    packet
}
