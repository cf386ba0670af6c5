//! What workers read of the node's bridges.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{ForwardingTable, Place, RemoteId};
use crate::forward::Egress;
use crate::packet::PortId;
use crate::wire::{MacAddr, Mtu, Vni};

/// A bridge of the node's, by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgeId(pub u16);

/// One virtual Ethernet.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// The network.
    pub vni: Vni,
    /// The UDP port of its packets, at both ends.
    pub udp_port: u16,
    /// The node's ports in it.
    pub ports: Vec<PortId>,
    /// The other tunnel end points.
    pub remotes: Remotes,
    /// Stations whose place is configured.
    pub stations: FxHashMap<MacAddr, Place>,
    /// Addresses whose station is configured: its Ethernet address, and whether it is a router.
    pub neighbours: FxHashMap<IpAddr, (MacAddr, bool)>,
    /// Stations whose place is learnt; the same table in every snapshot.
    pub table: Arc<ForwardingTable>,
    /// Whether places are learnt.
    pub learning: bool,
    /// Seconds for which what was learnt holds; 0: for ever.
    pub ageing: u32,
    /// Whether ARP and neighbour solicitations for known addresses are answered here.
    pub suppression: bool,
    /// How often an address was not learnt for want of room; the same count in every snapshot.
    pub neighbours_refused: Arc<AtomicU64>,
    /// Whether frames to the groups of a link's own protocols are forwarded.
    pub link_local_groups: bool,
}

/// Another tunnel end point of a bridge.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Its underlay address.
    pub address: IpAddr,
    /// The way there, an outer header to be put before a frame; none while it is not known.
    pub egress: Option<Egress>,
}

/// The other tunnel end points of a bridge, by [`RemoteId`].
#[derive(Debug, Clone, Default)]
pub struct Remotes {
    list: Vec<Option<Remote>>,
    addresses: FxHashMap<IpAddr, RemoteId>,
    narrowest: Option<Mtu>,
}

impl Remotes {
    /// These remotes, numbered as they come; none where one has gone.
    pub fn new(list: Vec<Option<Remote>>) -> Self {
        let numbered = list.iter().zip(0..);
        let addresses = numbered
            .filter_map(|(remote, id)| Some((remote.as_ref()?.address, RemoteId::new(id)?)))
            .collect();
        let ways = list.iter().flatten();
        let narrowest = ways.filter_map(|remote| Some(remote.egress.as_ref()?.mtu));
        Self {
            narrowest: narrowest.min(),
            list,
            addresses,
        }
    }

    /// A remote, unless it has gone.
    #[inline]
    pub fn get(&self, id: RemoteId) -> Option<&Remote> {
        self.list.get(id.index())?.as_ref()
    }

    /// The remote with this address.
    #[inline]
    pub fn at(&self, address: IpAddr) -> Option<RemoteId> {
        self.addresses.get(&address).copied()
    }

    /// What every way to them takes behind a frame's Ethernet header; nothing while none is known.
    #[inline]
    pub fn narrowest(&self) -> Option<Mtu> {
        self.narrowest
    }

    /// All that there are.
    pub fn iter(&self) -> impl Iterator<Item = (RemoteId, &Remote)> {
        let numbered = self.list.iter().zip(0..);
        numbered.filter_map(|(remote, id)| Some((RemoteId::new(id)?, remote.as_ref()?)))
    }
}

impl Bridge {
    /// Where a station is: as configured, else as learnt.
    #[inline]
    pub fn place_of(&self, mac: MacAddr) -> Option<Place> {
        let configured = self.stations.get(&mac).copied();
        configured.or_else(|| self.table.find(mac))
    }
}

/// All bridges of a node.
#[derive(Debug, Clone, Default)]
pub struct Bridges {
    list: Vec<Bridge>,
    networks: FxHashMap<(u16, Vni), BridgeId>,
    /// Their UDP ports, each once.
    udp_ports: Vec<u16>,
    senders: FxHashSet<IpAddr>,
}

impl Bridges {
    /// These bridges, numbered as they come.
    pub fn new(list: Vec<Bridge>) -> Self {
        let numbered = list.iter().zip(0..);
        let networks = numbered
            .map(|(bridge, id)| ((bridge.udp_port, bridge.vni), BridgeId(id)))
            .collect();
        let mut udp_ports: Vec<_> = list.iter().map(|bridge| bridge.udp_port).collect();
        udp_ports.sort_unstable();
        udp_ports.dedup();
        let senders = list
            .iter()
            .flat_map(|bridge| bridge.remotes.addresses.keys().copied())
            .collect();
        Self {
            list,
            networks,
            udp_ports,
            senders,
        }
    }

    /// One bridge.
    #[inline]
    pub fn get(&self, id: BridgeId) -> Option<&Bridge> {
        self.list.get(usize::from(id.0))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (BridgeId, &Bridge)> {
        (0..).map(BridgeId).zip(&self.list)
    }

    /// Whether packets to this UDP port are a bridge's; nodes without one are asked for each packet.
    #[inline(always)]
    pub fn listen_on(&self, udp_port: u16) -> bool {
        !self.udp_ports.is_empty() && self.have_port(udp_port)
    }

    #[cold]
    #[inline(never)]
    fn have_port(&self, udp_port: u16) -> bool {
        self.udp_ports.contains(&udp_port)
    }

    /// The UDP ports of all, each once, in order.
    pub fn udp_ports(&self) -> &[u16] {
        &self.udp_ports
    }

    /// The bridge that packets of this network to this UDP port belong to.
    #[cold]
    pub fn network(&self, udp_port: u16, vni: Vni) -> Option<BridgeId> {
        self.networks.get(&(udp_port, vni)).copied()
    }

    /// Whether any bridge takes packets from this address.
    #[cold]
    pub fn take_from(&self, address: IpAddr) -> bool {
        self.senders.contains(&address)
    }

    /// Where a flooded frame goes: all ports but the one that it came by, and, unless it came out of
    /// a tunnel, all remotes.
    pub fn targets(&self, flood: Flood) -> Targets<'_> {
        Targets {
            bridge: self.get(flood.bridge),
            from: flood.from,
            next: 0,
        }
    }
}

/// A frame that goes to everybody but its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    /// The bridge that it is in.
    pub bridge: BridgeId,
    /// Where it came from.
    pub from: Place,
}

/// The places that a flooded frame goes to, one after another.
#[derive(Debug, Clone)]
pub struct Targets<'a> {
    bridge: Option<&'a Bridge>,
    from: Place,
    next: usize,
}

impl Iterator for Targets<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        let bridge = self.bridge?;
        loop {
            let index = self.next;
            self.next += 1;
            if let Some(port) = bridge.ports.get(index) {
                let port = Place::Port(*port);
                if port != self.from {
                    return Some(port);
                }
                continue;
            }
            let remote = index - bridge.ports.len();
            let remotes = &bridge.remotes.list;
            if matches!(self.from, Place::Remote(_)) || remote >= remotes.len() {
                return None;
            }
            if remotes[remote].is_some() {
                return RemoteId::new(remote as u16).map(Place::Remote);
            }
        }
    }
}
