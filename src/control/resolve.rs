//! From a cluster's resources to what one node wants to forward. Pure: the same resources give the
//! same result, whatever was before.
//!
//! The rules are Calico's: a block takes the mode of the most specific pool that contains it; the
//! *same subnet* is what the local node's CIDR contains; only confirmed affinities are routed; an
//! address held outside its holder's blocks is routed by itself. Where two claims are of one prefix,
//! this node's own workload wins, then the lower node name.
//!
//! [`Resolver`] follows changes one by one; what it wants depends on the resources that there are now,
//! never on how they came to be: [`resolve`] is a resolver that is given them all at once.
//!
//! One difference: Calico needs a remote node's VXLAN tunnel address as the route's next hop. Here
//! the inner destination MAC is enough, so a node without that address is reached all the same.

mod claims;
mod resolver;
mod route;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::resources::vtep::{vtep_mac, vtep_mac_v6};
use crate::resources::{ClusterState, Node, NodeName};
use crate::wire::MacAddr;

pub use resolver::Resolver;

/// What a node wants to forward: plain ordered data, to be compared with what is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// This node.
    pub local: LocalNode,
    /// Where packets go; the most specific prefix wins. There is no default route here.
    pub routes: BTreeMap<IpNet, Target>,
    /// The addresses from which tunnel packets are accepted: those of every other node.
    pub peers: BTreeMap<IpAddr, Peer>,
    /// This node's workloads, by the interface that WorkloadEndpoints name.
    pub workloads: BTreeMap<String, Workload>,
    /// What is odd about the resources, one sentence each, for people.
    pub warnings: Vec<String>,
}

/// The node that the result is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNode {
    /// Its name.
    pub name: NodeName,
    /// Its IPv4 address and subnet.
    pub ipv4: Option<Ipv4Net>,
    /// Its IPv6 address and subnet.
    pub ipv6: Option<Ipv6Net>,
    /// The address of its IP-in-IP tunnel.
    pub ipip_tunnel_addr: Option<Ipv4Addr>,
    /// The address of its IPv4 VXLAN tunnel end point.
    pub vxlan_tunnel_addr: Option<Ipv4Addr>,
    /// The address of its IPv6 VXLAN tunnel end point.
    pub vxlan_tunnel_addr_v6: Option<Ipv6Addr>,
    /// The inner Ethernet address of its VXLAN over IPv4.
    pub vtep_mac: MacAddr,
    /// The inner Ethernet address of its VXLAN over IPv6.
    pub vtep_mac_v6: MacAddr,
}

/// Where packets to a prefix go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To a workload of this node.
    Workload {
        /// The interface that its WorkloadEndpoint names.
        interface: String,
        /// Its Ethernet address, where the resource gives one.
        mac: Option<MacAddr>,
        /// Its address.
        address: IpAddr,
    },
    /// To this node's own processes, by the host's TUN device: one of its own addresses.
    Host,
    /// Nowhere: this node's own block, where no workload has the address.
    Blackhole,
    /// Nowhere: a pool, where no node has the block.
    Unreachable,
    /// To another node.
    Remote {
        /// Its name.
        node: NodeName,
        /// Its address: the tunnel's far end, or the next hop where nothing is tunnelled.
        far_end: IpAddr,
        /// How packets travel to it.
        encap: Encap,
        /// The pool whose mode says so; none for a destination in no pool.
        pool: Option<IpNet>,
    },
}

/// How packets travel between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encap {
    /// As they are.
    None,
    /// In IP-in-IP (RFC 2003).
    Ipip,
    /// In VXLAN (RFC 7348).
    Vxlan {
        /// The inner destination Ethernet address.
        vtep_mac: MacAddr,
        /// The far tunnel end point's address, where the node has one.
        vtep_address: Option<IpAddr>,
    },
}

/// Another node, as the outer source of tunnel packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub node: NodeName,
    /// The inner Ethernet address that its VXLAN packets come from.
    pub vtep_mac: MacAddr,
}

/// A workload of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its WorkloadEndpoint, as `namespace/name`.
    pub endpoint: String,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Its Ethernet address, where the resource gives one.
    pub mac: Option<MacAddr>,
    /// What else it may send from.
    pub allowed_sources: BTreeSet<IpNet>,
}

/// What has changed in what a node wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Prefixes whose target is another, each with the one that it had.
    pub routes: BTreeMap<IpNet, Option<Target>>,
    /// Other nodes' addresses that came, went or changed their owner.
    pub peers: BTreeSet<IpAddr>,
    /// Whether this node itself has changed.
    pub local: bool,
    /// Whether this node's workloads have changed.
    pub workloads: bool,
    /// Whether there are other warnings than before.
    pub warnings: bool,
}

impl Delta {
    /// What makes `old` into `new`.
    pub fn between(old: &Wanted, new: &Wanted) -> Self {
        Self {
            routes: differences(&old.routes, &new.routes)
                .map(|prefix| (*prefix, old.routes.get(prefix).cloned()))
                .collect(),
            peers: differences(&old.peers, &new.peers).copied().collect(),
            local: old.local != new.local,
            workloads: old.workloads != new.workloads,
            warnings: old.warnings != new.warnings,
        }
    }

    /// Whether a target of a kind is among those that came or went.
    pub fn is_of(&self, new: &Wanted, kind: impl Fn(&Target) -> bool) -> bool {
        let mut changed = self.routes.iter();
        changed.any(|(prefix, old)| {
            let new = new.routes.get(prefix);
            old.as_ref().into_iter().chain(new).any(&kind)
        })
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Wanted {
    /// Takes over what has changed from `new`.
    pub fn update(&mut self, new: &Self, delta: &Delta) {
        for prefix in delta.routes.keys() {
            copy_entry(&mut self.routes, &new.routes, prefix);
        }
        for address in &delta.peers {
            copy_entry(&mut self.peers, &new.peers, address);
        }
        if delta.local {
            self.local = new.local.clone();
        }
        if delta.workloads {
            self.workloads.clone_from(&new.workloads);
        }
        if delta.warnings {
            self.warnings.clone_from(&new.warnings);
        }
    }
}

/// The keys whose values differ, those of one side only among them.
fn differences<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let changed = new
        .iter()
        .filter(|(key, value)| old.get(key) != Some(value));
    let gone = old.keys().filter(|key| !new.contains_key(key));
    changed.map(|(key, _)| key).chain(gone)
}

fn copy_entry<K: Ord + Clone, V: Clone>(to: &mut BTreeMap<K, V>, from: &BTreeMap<K, V>, key: &K) {
    match from.get(key) {
        Some(value) => to.insert(key.clone(), value.clone()),
        None => to.remove(key),
    };
}

/// Says what the node of that name wants to forward.
pub fn resolve(state: &ClusterState, local: &NodeName) -> Wanted {
    Resolver::new(state, local).into_wanted()
}

impl LocalNode {
    fn new(name: &NodeName, node: Option<&Node>) -> Self {
        let spec = node.map(|node| &node.spec);
        Self {
            name: name.clone(),
            ipv4: node.and_then(Node::ipv4).map(|interface| interface.0),
            ipv6: node.and_then(Node::ipv6).map(|interface| interface.0),
            ipip_tunnel_addr: node.and_then(Node::ipip_tunnel_addr),
            vxlan_tunnel_addr: spec.and_then(|spec| spec.ipv4_vxlan_tunnel_addr),
            vxlan_tunnel_addr_v6: spec.and_then(|spec| spec.ipv6_vxlan_tunnel_addr),
            vtep_mac: node.map_or_else(|| vtep_mac(name), Node::vtep_mac),
            vtep_mac_v6: node.map_or_else(|| vtep_mac_v6(name), Node::vtep_mac_v6),
        }
    }

    /// Its address on the network between nodes.
    pub fn address(&self, ipv4: bool) -> Option<IpAddr> {
        match ipv4 {
            true => self.ipv4.map(|net| net.addr().into()),
            false => self.ipv6.map(|net| net.addr().into()),
        }
    }

    /// All its own addresses: those between nodes, and its tunnels'.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [
            self.address(true),
            self.address(false),
            self.ipip_tunnel_addr.map(IpAddr::V4),
            self.vxlan_tunnel_addr.map(IpAddr::V4),
            self.vxlan_tunnel_addr_v6.map(IpAddr::V6),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether this node's subnet contains an address: what CrossSubnet asks.
    pub fn shares_subnet_with(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.is_some_and(|net| net.contains(&address)),
            IpAddr::V6(address) => self.ipv6.is_some_and(|net| net.contains(&address)),
        }
    }
}
