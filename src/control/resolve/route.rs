//! The rules: where packets to one prefix go, from the claims on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::claims::Claims;
use super::{Encap, Target, Wanted};
use crate::resources::ip_pool::AllowedUse;
use crate::resources::{ClusterState, EncapMode, IpPool, Node, NodeName};

/// The node to which each block belongs, once ties are decided.
#[derive(Debug, Default)]
pub struct Holders {
    nodes: BTreeMap<IpNet, NodeName>,
    /// How many blocks there are of each prefix length.
    lengths: BTreeMap<u8, usize>,
}

impl Holders {
    /// A block's holder is another, or nobody; whether that is news.
    pub fn set(&mut self, block: IpNet, node: Option<NodeName>) -> bool {
        let old = match node.clone() {
            Some(node) => self.nodes.insert(block, node),
            None => self.nodes.remove(&block),
        };
        let count = self.lengths.entry(block.prefix_len()).or_default();
        *count = *count + usize::from(node.is_some()) - usize::from(old.is_some());
        if *count == 0 {
            self.lengths.remove(&block.prefix_len());
        }
        old != node
    }

    /// The node that has the most specific block with this address.
    fn of(&self, address: IpAddr) -> Option<&NodeName> {
        let most = IpNet::from(address).max_prefix_len();
        let lengths = self.lengths.range(..=most).rev();
        lengths
            .filter_map(|(length, _)| IpNet::new(address, *length).ok())
            .find_map(|net| self.nodes.get(&net.trunc()))
    }
}

/// What a prefix leads to is decided by these.
pub struct Rules<'a> {
    pub state: &'a ClusterState,
    pub claims: &'a Claims,
    pub holders: &'a Holders,
    pub wanted: &'a Wanted,
    /// BGP tells where blocks are that VXLAN does not carry.
    pub by_bgp: bool,
}

/// The nodes without the address, IPv4 or not, that a route to them needs.
pub type Blame = BTreeSet<(NodeName, bool)>;

impl Rules<'_> {
    /// Where packets to a prefix go: a workload of this node before the host's own address, an
    /// address by itself before a block, a block before a pool.
    pub fn target(&self, prefix: IpNet, blame: &mut Blame) -> Option<Target> {
        let host = prefix.prefix_len() == prefix.max_prefix_len();
        let address = prefix.addr();
        if host && self.wanted.local.addresses().any(|own| own == address) {
            return Some(Target::Host);
        }
        if host && let Some(workload) = self.workload(address) {
            return Some(workload);
        }
        let alone = host.then(|| self.borrowed(address, blame)).flatten();
        alone
            .or_else(|| self.block(prefix, blame))
            .or_else(|| self.pool(prefix))
    }

    /// The first claimant of a block that can be reached.
    pub fn holder(&self, block: IpNet) -> Option<&NodeName> {
        let claimants = self.claims.blocks.get(&block)?.keys();
        let mut ignored = Blame::new();
        claimants
            .into_iter()
            .find(|node| self.is_local(node) || self.remote(block, node, &mut ignored).is_some())
    }

    fn workload(&self, address: IpAddr) -> Option<Target> {
        let local = self.claims.addresses.get(&address)?;
        if !local.contains_key(&self.wanted.local.name) {
            return None;
        }
        let mut workloads = self.wanted.workloads.iter();
        let (interface, workload) =
            workloads.find(|(_, workload)| workload.addresses.contains(&address))?;
        Some(Target::Workload {
            interface: interface.clone(),
            mac: workload.mac,
            address,
        })
    }

    /// An address that lies outside its user's own blocks. A route to a node's own address would take
    /// the tunnels' outer packets with it.
    fn borrowed(&self, address: IpAddr, blame: &mut Blame) -> Option<Target> {
        let users = self.claims.addresses.get(&address)?;
        if self.wanted.peers.contains_key(&address) {
            return None;
        }
        let holder = self.holders.of(address);
        for node in users.keys().filter(|node| !self.is_local(node)) {
            if holder == Some(node) {
                return None;
            }
            let target = self.remote(address.into(), node, blame);
            if target.is_some() {
                return target;
            }
        }
        None
    }

    fn block(&self, block: IpNet, blame: &mut Blame) -> Option<Target> {
        for node in self.claims.blocks.get(&block)?.keys() {
            if self.is_local(node) {
                let more_than_one = block.prefix_len() < block.max_prefix_len();
                return more_than_one.then_some(Target::Blackhole);
            }
            let target = self.remote(block, node, blame);
            if target.is_some() {
                return target;
            }
        }
        None
    }

    /// Pools swallow what no node has, but not where the addresses have another use: pools that are
    /// disabled often stand for networks outside (so that NAT leaves them alone), and some contain
    /// the nodes themselves.
    fn pool(&self, prefix: IpNet) -> Option<Target> {
        let swallows = |pool: &&IpPool| {
            let uses = &pool.spec.allowed_uses;
            let for_services =
                !uses.is_empty() && uses.iter().all(|u| *u == AllowedUse::LoadBalancer);
            pool.cidr() == prefix && !pool.spec.disabled && !for_services
        };
        let mut pools = self.state.pools.values();
        pools.find(swallows)?;
        let range = prefix.network()..=prefix.broadcast();
        let holds_nodes = self.claims.nodes.range(range).next().is_some();
        (!holds_nodes).then_some(Target::Unreachable)
    }

    /// The way to a prefix that another node has, if the node can be reached.
    fn remote(&self, prefix: IpNet, name: &NodeName, blame: &mut Blame) -> Option<Target> {
        let is_v4 = prefix.addr().is_ipv4();
        let pool = pool_of(self.state, prefix);
        let by_vxlan = pool.is_some_and(|pool| pool.spec.vxlan_mode != EncapMode::Never);
        if self.by_bgp && !by_vxlan {
            return None;
        }
        let node = self.state.nodes.get(name);
        let address = node.and_then(|node| address_of_family(node, is_v4));
        let (Some(node), Some(far_end)) = (node, address) else {
            blame.insert((name.clone(), is_v4));
            return None;
        };
        let Some(encap) = self.encap(pool, node, far_end) else {
            blame.insert((self.wanted.local.name.clone(), is_v4));
            return None;
        };
        Some(Target::Remote {
            node: name.clone(),
            far_end,
            encap,
            pool: pool.map(IpPool::cidr),
        })
    }

    /// How packets of a pool travel to a node; nothing if they must be tunnelled and this node has no
    /// address to tunnel from.
    fn encap(&self, pool: Option<&IpPool>, node: &Node, far_end: IpAddr) -> Option<Encap> {
        let Some(pool) = pool else {
            return Some(Encap::None);
        };
        let local = &self.wanted.local;
        let tunnelled = match mode(pool) {
            EncapMode::Never => false,
            EncapMode::Always => true,
            EncapMode::CrossSubnet => !local.shares_subnet_with(far_end),
        };
        if !tunnelled {
            return Some(Encap::None);
        }
        local.address(far_end.is_ipv4())?;
        if pool.spec.ipip_mode != EncapMode::Never && far_end.is_ipv4() {
            return Some(Encap::Ipip);
        }
        Some(match far_end {
            IpAddr::V4(_) => Encap::Vxlan {
                vtep_mac: node.vtep_mac(),
                vtep_address: node.spec.ipv4_vxlan_tunnel_addr.map(IpAddr::V4),
            },
            IpAddr::V6(_) => Encap::Vxlan {
                vtep_mac: node.vtep_mac_v6(),
                vtep_address: node.spec.ipv6_vxlan_tunnel_addr.map(IpAddr::V6),
            },
        })
    }

    fn is_local(&self, node: &NodeName) -> bool {
        *node == self.wanted.local.name
    }
}

/// The most specific pool that contains a prefix.
pub fn pool_of(state: &ClusterState, prefix: IpNet) -> Option<&IpPool> {
    let pools = state.pools.values();
    pools
        .filter(|pool| pool.cidr().contains(&prefix))
        .max_by_key(|pool| pool.cidr().prefix_len())
}

/// The one mode of a pool that is not Never, if there is one.
pub fn mode(pool: &IpPool) -> EncapMode {
    match pool.spec.ipip_mode {
        EncapMode::Never => pool.spec.vxlan_mode,
        mode => mode,
    }
}

/// A node's addresses on the network between nodes, each with its subnet.
pub fn node_nets(node: &Node) -> [Option<IpNet>; 2] {
    [
        node.ipv4().map(|interface| interface.0.into()),
        node.ipv6().map(|interface| interface.0.into()),
    ]
}

fn address_of_family(node: &Node, ipv4: bool) -> Option<IpAddr> {
    let nets = node_nets(node).into_iter().flatten();
    nets.map(|net| net.addr())
        .find(|address| address.is_ipv4() == ipv4)
}
