//! A node on paper with one bridge: two ports, two remotes, of which one is a known node.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use underpass::forward::{
    Bridge, BridgeId, Bridges, Egress, ForwardingTable, Place, PortRole, Remote, RemoteId, Remotes,
    Snapshot, TunnelHeader, Verdict,
};
use underpass::port::{Link, PortId};
use underpass::wire::{MacAddr, Mtu, Vni};

use crate::common::*;

pub const TENANTS: BridgeId = BridgeId(0);
pub const ALICES: PortId = PortId(4);
pub const BOBS: PortId = PortId(5);
/// A remote that is no node of the cluster.
pub const THIRD_NODE: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 13);

pub const ALICE: MacAddr = MacAddr([2, 0, 0, 0, 9, 1]);
pub const BOB: MacAddr = MacAddr([2, 0, 0, 0, 9, 2]);
pub const CAROL: MacAddr = MacAddr([2, 0, 0, 0, 9, 3]);
pub const DAVE: MacAddr = MacAddr([2, 0, 0, 0, 9, 4]);
pub const NOBODY: MacAddr = MacAddr([2, 0, 0, 0, 9, 99]);

pub struct Paper {
    pub snapshot: Snapshot,
}

impl Paper {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// With a second bridge, of the same ports, in another network.
    pub fn with_second(mut self) -> Self {
        let first = self.snapshot.bridges.get(TENANTS).unwrap().clone();
        let second = Bridge {
            vni: Vni::new(78).unwrap(),
            table: Arc::new(ForwardingTable::new(1000, 300, 1)),
            neighbours_refused: Default::default(),
            ..first.clone()
        };
        self.snapshot.bridges = Bridges::new(vec![first, second]);
        self
    }

    /// With another bridge than usual.
    pub fn with(change: impl FnOnce(&mut Bridge)) -> Self {
        let mut snapshot = snapshot();
        for id in [ALICES, BOBS] {
            let mut port = snapshot.ports[usize::from(WORKLOAD.0)].clone();
            port.id = id;
            port.role = PortRole::Bridge(TENANTS);
            port.link = Link::Ethernet(WORKLOAD_DEVICE_MAC);
            snapshot.ports.push(port);
        }
        let mut bridge = Bridge {
            vni: Vni::new(77).unwrap(),
            udp_port: 4789,
            ports: vec![ALICES, BOBS],
            remotes: Remotes::new(vec![
                Some(to(FAR_NODE, 1450)),
                Some(to(THIRD_NODE, 1450)),
                None,
            ]),
            stations: Default::default(),
            neighbours: Default::default(),
            table: Arc::new(ForwardingTable::new(1000, 300, 1)),
            learning: true,
            ageing: 300,
            suppression: false,
            neighbours_refused: Default::default(),
            link_local_groups: false,
        };
        change(&mut bridge);
        snapshot.bridges = Bridges::new(vec![bridge]);
        Self { snapshot }
    }

    /// What becomes of a frame that a port receives.
    pub fn receive(&self, port: PortId, frame: &[u8]) -> (Verdict, Vec<u8>) {
        forward_one(&self.snapshot, port, frame)
    }

    pub fn targets(&self, from: Place) -> Vec<Place> {
        crate::targets(&self.snapshot, from)
    }

    pub fn table(&self) -> &ForwardingTable {
        &self.snapshot.bridges.get(TENANTS).unwrap().table
    }
}

/// A remote there, behind a path that takes frames with a payload of `mtu` bytes.
pub fn to(far_end: Ipv4Addr, mtu: u16) -> Remote {
    let none = MacAddr::default();
    let tunnel = TunnelHeader {
        source: NODE,
        far_end,
        vxlan: Some((Vni::new(77).unwrap(), 4789, none, none)),
    };
    let way = Egress::tunnel(UPLINK, Mtu(mtu), UPLINK_MAC, FAR_UPLINK_MAC, &tunnel);
    Remote {
        address: IpAddr::V4(far_end),
        egress: Some(way.for_frames()),
    }
}

pub fn remote(number: u16) -> Place {
    Place::Remote(RemoteId::new(number).unwrap())
}

/// A frame that carries something which is not IP.
pub fn frame(source: MacAddr, destination: MacAddr, words: &[u8]) -> Vec<u8> {
    ethernet_of(source, destination, 0x88b5, words)
}

/// A frame in a VXLAN packet of that network, as the uplink receives it.
pub fn tunnelled(source: Ipv4Addr, vni: u32, frame: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    from_uplink(&vxlan(source, [8, 0, 0, 0, a, b, c, 0], frame))
}
