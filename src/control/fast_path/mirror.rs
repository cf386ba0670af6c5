//! The fast path's maps follow what workers read.
//!
//! Whoever publishes a [`Snapshot`] or writes a route tells the [`FastPathMirror`] of it, in the same
//! order: what a route will point to is in the maps before the route is, and what it pointed to is used
//! again only when no program can be at it any more. So the fast path, too, loses no packet in an
//! update. What it may not carry it is not told: such packets go up to the workers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::fib::NextHop;
use crate::forward::{
    Adjacency, Dscp, Egress, Encapsulation, LeadsTo, OuterTtl, ReversePathMode, Snapshot,
};
use crate::packet::{Link, PortId};
use crate::port::PortError;
use crate::port::xdp::fast_path::{
    ADJACENCIES, FENCED_PORTS, FastAdjacency, FastLeadsTo, FastPath, Settings, grace,
};
use crate::wire::MacAddr;

/// The one writer of the fast path's maps.
pub struct FastPathMirror {
    fast: FastPath,
    identification_step: u16,
    /// By next hop.
    next_hops: Vec<Entry>,
    free: Vec<u32>,
    /// Slots that no next hop has any more, but a program may still be reading.
    waiting: Vec<u32>,
    settings: Option<Settings>,
    macs: BTreeMap<PortId, MacAddr>,
    sources: BTreeSet<(PortId, IpAddr)>,
    peers: BTreeMap<IpAddr, u32>,
    local_addresses: BTreeSet<IpAddr>,
    failure: Option<String>,
}

/// What the maps have for a next hop.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    adjacency: Option<(u32, FastAdjacency)>,
    leads_to: FastLeadsTo,
}

const NOTHING: Entry = Entry {
    adjacency: None,
    leads_to: FastLeadsTo::Nowhere,
};

impl FastPathMirror {
    /// A mirror of a node that forwards nothing yet. Outer identifications of one CPU are
    /// `identification_step` apart; with 0 the fast path gives none.
    pub fn new(fast: FastPath, identification_step: u16) -> Self {
        Self {
            fast,
            identification_step,
            next_hops: Vec::new(),
            free: (1..ADJACENCIES as u32).rev().collect(),
            waiting: Vec::new(),
            settings: None,
            macs: BTreeMap::new(),
            sources: BTreeSet::new(),
            peers: BTreeMap::new(),
            local_addresses: BTreeSet::new(),
            failure: None,
        }
    }

    /// What it mirrors to.
    pub fn fast_path(&mut self) -> &mut FastPath {
        &mut self.fast
    }

    /// Why the fast path was given up, if it was: it is off then, and the workers do everything.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Takes over everything of a snapshot but the routes.
    pub fn update(&mut self, snapshot: &Snapshot) {
        self.attempt(|mirror| {
            mirror.update_macs(snapshot);
            mirror.update_next_hops(snapshot)?;
            let refused = mirror.admit(snapshot)?;
            mirror.update_settings(snapshot)?;
            mirror.refuse(refused)
        });
    }

    /// Takes over a route that was inserted, or points to another next hop.
    pub fn insert_route(&mut self, prefix: IpNet, next_hop: NextHop) {
        self.attempt(|mirror| mirror.fast.insert_route(prefix, next_hop.0));
    }

    /// Takes over the removal of a route.
    pub fn remove_route(&mut self, prefix: IpNet) {
        self.attempt(|mirror| mirror.fast.remove_route(prefix));
    }

    /// Forgets next hops to which no route leads any more. When this returns no program holds them.
    pub fn retire(&mut self, next_hops: &[NextHop]) {
        for next_hop in next_hops {
            self.point(next_hop.0, NOTHING);
        }
        grace();
        self.free.append(&mut self.waiting);
    }

    /// A map that cannot be written ends the fast path: it must not do what is no longer true.
    fn attempt(&mut self, work: impl FnOnce(&mut Self) -> Result<(), PortError>) {
        if self.failure.is_some() {
            return;
        }
        if let Err(error) = work(self) {
            self.fast.give_up();
            log::error!("{error}; the workers forward everything from now on");
            self.failure = Some(error.to_string());
        }
    }

    fn update_macs(&mut self, snapshot: &Snapshot) {
        for port in &snapshot.ports {
            if let Link::Ethernet(mac) = port.link
                && self.macs.insert(port.id, mac) != Some(mac)
            {
                self.fast.set_mac(port.id, mac);
            }
        }
    }

    fn update_next_hops(&mut self, snapshot: &Snapshot) -> Result<(), PortError> {
        for (index, adjacency) in snapshot.adjacencies.iter().enumerate() {
            let wanted = translate(adjacency);
            let leads_to = match snapshot.tunnels.reverse_path.leads_to.get(index) {
                Some(LeadsTo::Node(peer)) => FastLeadsTo::Peer(peer.0),
                Some(LeadsTo::Elsewhere) => FastLeadsTo::Elsewhere,
                // It goes up to a worker, which knows.
                Some(LeadsTo::Nodes | LeadsTo::Nowhere) | None => FastLeadsTo::Nowhere,
            };
            let present = self.next_hops.get(index).copied().unwrap_or(NOTHING);
            let has = present.adjacency.map(|(_, adjacency)| adjacency);
            let adjacency = if has == wanted {
                present.adjacency
            } else {
                self.store(wanted)?
            };
            self.point(
                index as u32,
                Entry {
                    adjacency,
                    leads_to,
                },
            );
        }
        Ok(())
    }

    /// Writes an adjacency into a slot of its own. Where there is none left, its packets go up.
    fn store(
        &mut self,
        wanted: Option<FastAdjacency>,
    ) -> Result<Option<(u32, FastAdjacency)>, PortError> {
        let Some(adjacency) = wanted else {
            return Ok(None);
        };
        if self.free.is_empty() && !self.waiting.is_empty() {
            grace();
            self.free.append(&mut self.waiting);
        }
        let Some(slot) = self.free.pop() else {
            return Ok(None);
        };
        self.fast.set_adjacency(slot, &adjacency)?;
        Ok(Some((slot, adjacency)))
    }

    fn point(&mut self, next_hop: u32, to: Entry) {
        let index = next_hop as usize;
        if self.next_hops.len() <= index {
            self.next_hops.resize(index + 1, NOTHING);
        }
        let before = std::mem::replace(&mut self.next_hops[index], to);
        if before == to {
            return;
        }
        let slot = |entry: Entry| entry.adjacency.map_or(0, |(slot, _)| slot);
        self.fast.set_next_hop(next_hop, slot(to), to.leads_to);
        if slot(before) != slot(to) && slot(before) != 0 {
            self.waiting.push(slot(before));
        }
    }

    /// Admits whom the snapshot admits and the maps do not; what is to be refused comes back.
    fn admit(&mut self, snapshot: &Snapshot) -> Result<Refused, PortError> {
        let sources: BTreeSet<_> = snapshot
            .ports
            .iter()
            .flat_map(|port| port.sources.allowed.iter().map(|net| (port.id, net)))
            .filter(|(_, net)| net.prefix_len() == net.max_prefix_len())
            .map(|(port, net)| (port, net.addr()))
            .collect();
        let peers: BTreeMap<_, _> = snapshot.tunnels.peers.nodes().collect();
        let local: BTreeSet<_> = snapshot.tunnels.local_addresses.iter().collect();
        // An address that is ours now is refused as others' before anything else.
        for address in local.difference(&self.local_addresses) {
            self.fast.set_local_address(*address, true)?;
        }
        for (port, address) in sources.difference(&self.sources) {
            self.fast.set_source(*port, *address, true)?;
        }
        for (address, peer) in &peers {
            if self.peers.get(address) != Some(&peer.0) {
                self.fast.set_peer(*address, Some(peer.0))?;
            }
        }
        let peers: BTreeMap<_, _> = peers.into_iter().map(|(at, peer)| (at, peer.0)).collect();
        let refused = Refused {
            sources: self.sources.difference(&sources).copied().collect(),
            peers: self
                .peers
                .keys()
                .filter(|address| !peers.contains_key(*address))
                .copied()
                .collect(),
            local: self.local_addresses.difference(&local).copied().collect(),
        };
        (self.sources, self.peers, self.local_addresses) = (sources, peers, local);
        Ok(refused)
    }

    fn refuse(&mut self, refused: Refused) -> Result<(), PortError> {
        for (port, address) in refused.sources {
            self.fast.set_source(port, address, false)?;
        }
        for address in refused.peers {
            self.fast.set_peer(address, None)?;
        }
        for address in refused.local {
            self.fast.set_local_address(address, false)?;
        }
        Ok(())
    }

    fn update_settings(&mut self, snapshot: &Snapshot) -> Result<(), PortError> {
        let wanted = settings(snapshot, self.identification_step);
        if self.settings != Some(wanted) {
            self.fast.set_settings(&wanted)?;
            self.settings = Some(wanted);
        }
        Ok(())
    }
}

/// What the maps still admit and the snapshot does not.
struct Refused {
    sources: Vec<(PortId, IpAddr)>,
    peers: Vec<IpAddr>,
    local: Vec<IpAddr>,
}

/// The adjacency as the program knows it; none for what is the workers' alone.
fn translate(adjacency: &Adjacency) -> Option<FastAdjacency> {
    let Adjacency::Forward(egress) = adjacency else {
        return None;
    };
    let plain = !egress.to_host && !egress.udp_checksum() && !egress.header().is_empty();
    plain.then(|| translate_egress(egress))
}

fn translate_egress(egress: &Egress) -> FastAdjacency {
    const INHERIT_TTL: u8 = 1;
    const INHERIT_DSCP: u8 = 2;
    let (ttl, ttl_flag) = match egress.ttl {
        OuterTtl::Fixed(ttl) => (ttl, 0),
        OuterTtl::Inherit => (0, INHERIT_TTL),
    };
    let (dscp, dscp_flag) = match egress.dscp {
        Dscp::Fixed(dscp) => (dscp, 0),
        Dscp::Inherit => (0, INHERIT_DSCP),
    };
    let mut header = [0; 88];
    header[..egress.header().len()].copy_from_slice(egress.header());
    FastAdjacency {
        port: egress.port.0,
        mtu: egress.mtu.0,
        encapsulation: match egress.encapsulation {
            Encapsulation::None => 0,
            Encapsulation::Ipip => 1,
            Encapsulation::Vxlan => 2,
            Encapsulation::VxlanOverIpv6 => 3,
        },
        flags: ttl_flag | dscp_flag,
        ttl,
        dscp,
        checksum_base: egress.checksum_base(),
        unused: 0,
        header,
    }
}

/// The UDP ports of all of the node's VXLAN packets, each once.
fn fenced_ports(snapshot: &Snapshot) -> [[u8; 2]; FENCED_PORTS] {
    let ports: BTreeSet<u16> = snapshot.vxlan_ports().collect();
    let mut fenced = [[0; 2]; FENCED_PORTS];
    for (place, port) in fenced.iter_mut().zip(ports) {
        *place = port.to_be_bytes();
    }
    fenced
}

fn settings(snapshot: &Snapshot, identification_step: u16) -> Settings {
    let tunnels = &snapshot.tunnels;
    let mut flags = 0;
    let mut set = |flag, on| flags |= if on { flag } else { 0 };
    set(Settings::HAS_IPV4, tunnels.node_address.is_some());
    set(Settings::HAS_IPV6, tunnels.v6.is_some());
    set(
        Settings::ZERO_CHECKSUM_IPV6,
        tunnels.v6.is_some_and(|v6| v6.zero_checksum),
    );
    set(Settings::STRICT_RESERVED_BITS, tunnels.strict_reserved_bits);
    let [_, vni @ ..] = tunnels.vni.get().to_be_bytes();
    Settings {
        node_ipv4: tunnels
            .node_address
            .map_or([0; 4], |address| address.octets()),
        node_ipv6: tunnels.v6.map_or([0; 16], |v6| v6.node_address.octets()),
        flags,
        vxlan_port: tunnels.vxlan_port.to_be_bytes(),
        fenced_ports: fenced_ports(snapshot),
        vtep_mac: tunnels.vtep_mac.0,
        vtep_mac_ipv6: tunnels.v6.map_or([0; 6], |v6| v6.vtep_mac.0),
        vni,
        reverse_path: match tunnels.reverse_path.mode {
            ReversePathMode::Off => 0,
            ReversePathMode::Loose => 1,
            ReversePathMode::Strict => 2,
        },
        identification_step,
    }
}
