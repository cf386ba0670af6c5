//! A small node on paper: ports, adjacencies and routes, for tests of the packet path.
#![allow(dead_code, missing_docs)]

pub mod cluster;
pub mod fates;
pub mod golden;
pub mod over_ipv6;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use etherparse::PacketBuilder;
use underpass::fib::{Fib, NextHop};
use underpass::forward::{
    Adjacency, Egress, PortConfig, PortRole, RouterAddresses, Snapshot, TunnelHeader, Tunnels,
    Verdict, WorkerState, WorkloadSources,
};
use underpass::packet::{Frame, HEADROOM};
use underpass::port::{Link, PortId};
use underpass::wire::{MacAddr, Mtu, Vni};
use underpass::worker::publish::Quiescence;

pub const UPLINK: PortId = PortId(0);
pub const WORKLOAD: PortId = PortId(1);
pub const HOST: PortId = PortId(2);
pub const OTHER_WORKLOAD: PortId = PortId(3);

pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 11);
pub const FAR_NODE: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 12);
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 99);
pub const POD: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
pub const POD_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 2);
pub const OTHER_POD: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 3);
/// Reached by IPIP, VXLAN and direct, one block each.
pub const FAR_IPIP: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 2);
pub const FAR_VXLAN: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 2);
pub const FAR_DIRECT: Ipv4Addr = Ipv4Addr::new(192, 168, 4, 2);
pub const FAR_VXLAN_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd00, 0, 0, 3, 0, 0, 0, 2);

pub const UPLINK_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x11]);
pub const FAR_UPLINK_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x12]);
pub const WORKLOAD_DEVICE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
pub const POD_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);
pub const VTEP_MAC: MacAddr = MacAddr([0x66, 0, 0, 0, 0, 1]);
pub const FAR_VTEP_MAC: MacAddr = MacAddr([0x66, 0, 0, 0, 0, 2]);

const ROUTER: u32 = 6;
const BLACKHOLE: u32 = 7;
const UNREACHABLE: u32 = 8;
const UNRESOLVED: u32 = 9;
const OTHER: u32 = 10;

/// The node's routes: prefix and next hop.
pub const ROUTES: [(&str, u32); 14] = [
    ("0.0.0.0/0", 5),
    ("192.168.0.0/16", UNREACHABLE),
    ("192.168.1.0/26", BLACKHOLE),
    ("192.168.1.2/32", 0),
    ("192.168.1.3/32", OTHER),
    ("192.168.2.0/26", 1),
    ("192.168.3.0/26", 2),
    ("192.168.4.0/26", 3),
    ("192.168.5.0/26", UNRESOLVED),
    ("169.254.1.1/32", ROUTER),
    ("10.30.0.11/32", 5),
    ("fd00:0:0:1::2/128", 0),
    ("fd00:0:0:3::/122", 2),
    ("fd00:0:0:2::/122", 1),
];

/// The node's snapshot.
pub fn snapshot() -> Snapshot {
    let (fib, mut writer) = Fib::new(Quiescence::new());
    for (prefix, next_hop) in ROUTES {
        writer
            .insert(prefix.parse().unwrap(), NextHop(next_hop))
            .unwrap();
    }
    let tunnel = |vxlan| TunnelHeader {
        source: NODE,
        far_end: FAR_NODE,
        vxlan,
    };
    let far = |mtu: u16, vxlan| {
        Adjacency::Forward(Egress::tunnel(
            UPLINK,
            Mtu(mtu),
            UPLINK_MAC,
            FAR_UPLINK_MAC,
            &tunnel(vxlan),
        ))
    };
    let workload = |port| {
        Adjacency::Forward(Egress::ethernet(
            port,
            Mtu(1500),
            MacAddr::WORKLOAD_GATEWAY,
            POD_MAC,
        ))
    };
    Snapshot {
        fib,
        adjacencies: vec![
            workload(WORKLOAD),
            far(1480, None),
            far(1450, Some((Vni::CALICO, 4789, VTEP_MAC, FAR_VTEP_MAC))),
            Adjacency::Forward(Egress::ethernet(
                UPLINK,
                Mtu(1500),
                UPLINK_MAC,
                FAR_UPLINK_MAC,
            )),
            Adjacency::Unreachable,
            Adjacency::Forward(Egress::bare(HOST, Mtu(1500)).to_host()),
            Adjacency::Router,
            Adjacency::Blackhole,
            Adjacency::Unreachable,
            Adjacency::Unresolved,
            workload(OTHER_WORKLOAD),
        ],
        ports: vec![
            port(UPLINK, PortRole::Uplink, Link::Ethernet(UPLINK_MAC), &[]),
            port(
                WORKLOAD,
                PortRole::Workload,
                Link::Ethernet(WORKLOAD_DEVICE_MAC),
                &["192.168.1.2/32", "fd00:0:0:1::2/128"],
            ),
            port(HOST, PortRole::Host, Link::Ip, &[]),
            port(
                OTHER_WORKLOAD,
                PortRole::Workload,
                Link::Ethernet(WORKLOAD_DEVICE_MAC),
                &["192.168.1.3/32"],
            ),
        ],
        tunnels: Tunnels {
            peers: [FAR_NODE].into_iter().collect(),
            node_address: Some(NODE),
            vxlan_port: 4789,
            vni: Vni::CALICO,
            also: (4789, Vni::CALICO),
            vtep_mac: VTEP_MAC,
            strict_reserved_bits: false,
            local_addresses: [IpAddr::V4(POD), IpAddr::V4(OTHER_POD)]
                .into_iter()
                .collect(),
            v6: None,
            reverse_path: Default::default(),
            from_workloads: Default::default(),
        },
        router: RouterAddresses {
            v4: NODE,
            v6: RouterAddresses::GATEWAY_V6,
        },
        bridges: Default::default(),
    }
}

fn port(id: PortId, role: PortRole, link: Link, sources: &[&str]) -> PortConfig {
    let allowed: Vec<ipnet::IpNet> = sources.iter().map(|net| net.parse().unwrap()).collect();
    PortConfig {
        id,
        role,
        link,
        sources: WorkloadSources {
            own: allowed.iter().map(ipnet::IpNet::addr).collect(),
            allowed,
        },
        partial_checksums: role == PortRole::Workload,
    }
}

/// Sends one frame through [`underpass::forward::forward`]; the verdict and what the frame holds.
pub fn forward_one(snapshot: &Snapshot, ingress: PortId, bytes: &[u8]) -> (Verdict, Vec<u8>) {
    let mut state = WorkerState::new(0, 1);
    let mut frame = Frame::leak(4096, HEADROOM);
    assert!(frame.fill(bytes, HEADROOM));
    let mut verdicts = Vec::new();
    let mut batch = [frame];
    underpass::forward::forward(snapshot, &mut state, ingress, &mut batch, &mut verdicts);
    assert_eq!(verdicts.len(), 1);
    (verdicts[0], batch[0].bytes().to_vec())
}

/// An IPv4 UDP packet without a link header.
pub fn udp(source: Ipv4Addr, destination: Ipv4Addr, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(source.octets(), destination.octets(), ttl).udp(1000, 2000);
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    packet
}

/// An IPv6 UDP packet without a link header.
pub fn udp6(
    source: std::net::Ipv6Addr,
    destination: std::net::Ipv6Addr,
    ttl: u8,
    payload: &[u8],
) -> Vec<u8> {
    let builder = PacketBuilder::ipv6(source.octets(), destination.octets(), ttl).udp(1000, 2000);
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    packet
}

/// `packet` behind an Ethernet header.
pub fn ethernet(source: MacAddr, destination: MacAddr, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|byte| byte >> 4 == 6) {
        0x86dd
    } else {
        0x0800
    };
    ethernet_of(source, destination, ethertype, packet)
}

/// The frame with an 802.1Q tag of this VLAN (0: a priority tag).
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let (stations, rest) = frame.split_at(12);
    [stations, &[0x81, 0], &vlan.to_be_bytes(), rest].concat()
}

/// `packet` behind an Ethernet header of the given type.
pub fn ethernet_of(
    source: MacAddr,
    destination: MacAddr,
    ethertype: u16,
    packet: &[u8],
) -> Vec<u8> {
    [
        &destination.0[..],
        &source.0,
        &ethertype.to_be_bytes(),
        packet,
    ]
    .concat()
}

/// A frame as the pod sends it.
pub fn from_pod(packet: &[u8]) -> Vec<u8> {
    ethernet(POD_MAC, MacAddr::WORKLOAD_GATEWAY, packet)
}

/// A frame as it arrives by the uplink.
pub fn from_uplink(packet: &[u8]) -> Vec<u8> {
    ethernet(FAR_UPLINK_MAC, UPLINK_MAC, packet)
}

/// An IPIP packet around `inner`.
pub fn ipip(source: Ipv4Addr, destination: Ipv4Addr, inner: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let header = ipv4_header(source, destination, 4, inner.len());
    header.write(&mut packet).unwrap();
    packet.extend_from_slice(inner);
    packet
}

pub fn ipv4_header(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload: usize,
) -> etherparse::Ipv4Header {
    etherparse::Ipv4Header::new(
        payload as u16,
        64,
        protocol.into(),
        source.octets(),
        destination.octets(),
    )
    .unwrap()
}

/// A VXLAN packet whose eight VXLAN header bytes and inner frame are given.
pub fn vxlan(source: Ipv4Addr, header: [u8; 8], inner_frame: &[u8]) -> Vec<u8> {
    let payload = [&header[..], inner_frame].concat();
    let mut packet = Vec::new();
    ipv4_header(source, NODE, 17, payload.len() + 8)
        .write(&mut packet)
        .unwrap();
    packet.extend_from_slice(&50000_u16.to_be_bytes());
    packet.extend_from_slice(&4789_u16.to_be_bytes());
    packet.extend_from_slice(&(payload.len() as u16 + 8).to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(&payload);
    packet
}

/// The VXLAN header of Calico's network.
pub const CALICO_VXLAN: [u8; 8] = [0x08, 0, 0, 0, 0, 0x10, 0, 0];

/// The snapshot behind an `Arc`, as workers hold it.
pub fn shared() -> Arc<Snapshot> {
    Arc::new(snapshot())
}
