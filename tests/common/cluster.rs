//! A node of a made-up cluster: what it wants to forward, an underlay that answers as told, and where
//! a packet ends that the published snapshot sends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use underpass::control::apply::{Facts, Fixed, Way};
use underpass::control::resolve::{Encap, LocalNode, Peer, Target, Wanted, Workload};
use underpass::forward::{
    Dscp, FromWorkloads, OuterTtl, Punt, Snapshot, TunnelMtus, Verdict, WorkerState,
    WorkloadSources, originate,
};
use underpass::packet::{Frame, HEADROOM};
use underpass::port::PortId;
use underpass::wire::{MacAddr, Mtu, Vni};

use super::*;

/// The interface of [`WORKLOAD`].
pub const INTERFACE: &str = "cali1";
/// The interface of [`OTHER_WORKLOAD`].
pub const OTHER_INTERFACE: &str = "cali3";

/// The ports of the node on paper, without a packet's knowledge of workloads.
pub fn fixed() -> Fixed {
    let mut ports = snapshot().ports;
    for port in &mut ports {
        port.sources = WorkloadSources::default();
    }
    Fixed {
        ports,
        workload_ports: [(INTERFACE, WORKLOAD), (OTHER_INTERFACE, OTHER_WORKLOAD)]
            .map(|(name, port)| (name.to_owned(), port))
            .into(),
        uplink: (UPLINK, UPLINK_MAC),
        host: Some(HOST),
        vxlan_port: 4789,
        vni: Vni::CALICO,
        also: (4789, Vni::CALICO),
        strict_reserved_bits: false,
        ttl: OuterTtl::Fixed(64),
        dscp: Dscp::Inherit,
        tunnel_mtus: TunnelMtus::default(),
        from_workloads: FromWorkloads::default(),
        udp_zero_checksum_v6: false,
        fence: Default::default(),
    }
}

/// The node alone: no routes, no peers, no workloads.
pub fn alone() -> Wanted {
    Wanted {
        local: LocalNode {
            name: "worker1".parse().unwrap(),
            ipv4: Some("10.30.0.11/24".parse().unwrap()),
            ipv6: None,
            ipip_tunnel_addr: None,
            vxlan_tunnel_addr: None,
            vxlan_tunnel_addr_v6: None,
            vtep_mac: VTEP_MAC,
            vtep_mac_v6: VTEP_MAC,
        },
        routes: BTreeMap::new(),
        peers: BTreeMap::new(),
        workloads: BTreeMap::new(),
        warnings: Vec::new(),
    }
}

/// The node with its two workloads, its block, its own address, and the pool.
pub fn at_home() -> Wanted {
    let mut wanted = alone();
    add_workload(&mut wanted, INTERFACE, POD);
    add_workload(&mut wanted, OTHER_INTERFACE, OTHER_POD);
    let block = net("192.168.1.0/26");
    wanted.routes.insert(block, Target::Blackhole);
    wanted
        .routes
        .insert(net("192.168.0.0/16"), Target::Unreachable);
    wanted.routes.insert(net("10.30.0.11/32"), Target::Host);
    wanted
}

pub fn add_workload(wanted: &mut Wanted, interface: &str, address: Ipv4Addr) {
    let address = IpAddr::V4(address);
    let workload = Workload {
        endpoint: format!("default/{interface}"),
        addresses: BTreeSet::from([address]),
        mac: None,
        allowed_sources: BTreeSet::new(),
    };
    wanted.workloads.insert(interface.to_owned(), workload);
    let target = Target::Workload {
        interface: interface.to_owned(),
        mac: None,
        address,
    };
    wanted.routes.insert(address.into(), target);
}

/// A route to another node, which is a peer then.
pub fn add_remote(
    wanted: &mut Wanted,
    prefix: IpNet,
    node: Ipv4Addr,
    encap: Encap,
    pool: Option<IpNet>,
) {
    let name = format!("node{}", node.octets()[3]);
    let name: underpass::resources::NodeName = name.parse().unwrap();
    let peer = Peer {
        node: name.clone(),
        vtep_mac: vtep_of(node),
    };
    wanted.peers.insert(node.into(), peer);
    let target = Target::Remote {
        node: name,
        far_end: node.into(),
        encap,
        pool,
    };
    wanted.routes.insert(prefix, target);
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// VXLAN to a node.
pub fn vxlan_to(node: Ipv4Addr) -> Encap {
    Encap::Vxlan {
        vtep_mac: vtep_of(node),
        vtep_address: None,
    }
}

/// A node's Ethernet address on the underlay.
pub fn mac_of(node: Ipv4Addr) -> MacAddr {
    let [.., c, d] = node.octets();
    MacAddr([2, 0, 0, 9, c, d])
}

fn vtep_of(node: Ipv4Addr) -> MacAddr {
    let [.., c, d] = node.octets();
    MacAddr([0x66, 0, 0, 9, c, d])
}

/// What the underlay and the workload links tell: all nodes are reached by an address of their own
/// and all workloads are at [`POD_MAC`], but for what is said otherwise.
#[derive(Debug, Clone, Default)]
pub struct Underlay {
    pub ways: BTreeMap<IpAddr, Way>,
    pub silent: BTreeSet<IpAddr>,
}

impl Facts for Underlay {
    fn way(&self, node: IpAddr) -> Way {
        let usual = match node {
            IpAddr::V4(v4) => Way::Known(mac_of(v4), Mtu(1500)),
            IpAddr::V6(_) => Way::None,
        };
        self.ways.get(&node).copied().unwrap_or(usual)
    }

    fn workload_mac(&self, _port: PortId, address: IpAddr) -> Option<MacAddr> {
        (!self.silent.contains(&address)).then_some(POD_MAC)
    }

    fn mtu(&self, _port: PortId) -> Mtu {
        Mtu(1500)
    }
}

/// Where a packet ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a port of this node.
    Port(PortId),
    /// By the uplink, as it is, to the node with this Ethernet address.
    Direct([u8; 6]),
    /// By the uplink, in IP-in-IP, to this far end.
    Ipip(Ipv4Addr),
    /// By the uplink, in VXLAN, to this far end and VTEP.
    Vxlan(Ipv4Addr, [u8; 6]),
    /// With the router, or as an error.
    Punted(Punt),
}

impl End {
    /// What a naive reader expects of the target.
    pub fn of(target: &Target) -> Self {
        match target {
            Target::Workload { interface, .. } => match interface.as_str() {
                INTERFACE => Self::Port(WORKLOAD),
                OTHER_INTERFACE => Self::Port(OTHER_WORKLOAD),
                _ => Self::Punted(Punt::NoRoute),
            },
            Target::Host => Self::Port(HOST),
            Target::Blackhole => Self::Punted(Punt::Blackhole),
            Target::Unreachable => Self::Punted(Punt::NoRoute),
            Target::Remote { far_end, encap, .. } => {
                let IpAddr::V4(node) = far_end else {
                    panic!("an IPv4 underlay")
                };
                match encap {
                    Encap::None => Self::Direct(mac_of(*node).0),
                    Encap::Ipip => Self::Ipip(*node),
                    Encap::Vxlan { vtep_mac, .. } => Self::Vxlan(*node, vtep_mac.0),
                }
            }
        }
    }

    /// Where a frame ends that left by `port`; `end` finds out for the uplink.
    pub fn of_frame(port: PortId, frame: &[u8]) -> Self {
        if port != UPLINK {
            return Self::Port(port);
        }
        let far_end = Ipv4Addr::new(frame[30], frame[31], frame[32], frame[33]);
        let ours = frame[26..30] == NODE.octets();
        let first = |at| *frame[at..].first_chunk::<6>().unwrap();
        match frame[23] {
            4 if ours => Self::Ipip(far_end),
            17 if ours && frame[36..38] == 4789_u16.to_be_bytes() => {
                Self::Vxlan(far_end, first(50))
            }
            _ => Self::Direct(first(0)),
        }
    }
}

/// Sends packets of the router's own through a snapshot.
pub struct Sender {
    state: WorkerState,
    frame: Frame,
}

impl Sender {
    pub fn new() -> Self {
        Self {
            state: WorkerState::new(0, 1),
            frame: Frame::leak(2048, HEADROOM),
        }
    }

    /// Where a packet to `destination` ends.
    pub fn end(&mut self, snapshot: &Snapshot, destination: Ipv4Addr) -> End {
        self.end_from(STRANGER, snapshot, destination)
    }

    /// The same for one from another source.
    pub fn end_from(
        &mut self,
        source: Ipv4Addr,
        snapshot: &Snapshot,
        destination: Ipv4Addr,
    ) -> End {
        let packet = udp(source, destination, 64, b"");
        assert!(self.frame.fill(&packet, HEADROOM));
        match originate(snapshot, &mut self.state, &mut self.frame) {
            Verdict::Transmit(port) => End::of_frame(port, self.frame.bytes()),
            Verdict::Punt(punt) => End::Punted(punt),
            Verdict::Drop(reason) => panic!("{destination}: {reason}"),
            Verdict::Flood(_) => panic!("{destination}: flooded"),
        }
    }
}
