//! From a cluster's resources to what one node wants to forward. Pure: the same resources give the
//! same result, whatever was before.
//!
//! The rules are Calico's: a block takes the mode of the most specific pool that contains it; the
//! *same subnet* is what the local node's CIDR contains; only confirmed affinities are routed; an
//! address held outside its holder's blocks is routed by itself. Where two claims are of one prefix,
//! this node's own workload wins, then the lower node name.
//!
//! One difference: Calico needs a remote node's VXLAN tunnel address as the route's next hop. Here
//! the inner destination MAC is enough, so a node without that address is reached all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::resources::ip_pool::AllowedUse;
use crate::resources::vtep::{vtep_mac, vtep_mac_v6};
use crate::resources::{
    BlockAffinity, ClusterState, EncapMode, IpPool, Node, NodeName, WorkloadEndpoint,
};
use crate::wire::MacAddr;

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

/// Says what the node of that name wants to forward.
pub fn resolve(state: &ClusterState, local: &NodeName) -> Wanted {
    let mut resolver = Resolver::new(state, local);
    resolver.warn_about_nodes();
    resolver.add_peers();
    resolver.add_host();
    resolver.add_workloads();
    let blocks = resolver.add_blocks();
    resolver.add_borrowed(&blocks);
    resolver.add_pools();
    resolver.wanted
}

/// Each block's holder, once ties are decided.
type Holders<'a> = BTreeMap<IpNet, &'a NodeName>;

struct Resolver<'a> {
    state: &'a ClusterState,
    /// Nodes whose missing address, IPv4 or not, has been warned about: one sentence each.
    blamed: BTreeSet<(NodeName, bool)>,
    wanted: Wanted,
}

impl<'a> Resolver<'a> {
    fn new(state: &'a ClusterState, local: &NodeName) -> Self {
        Self {
            state,
            blamed: BTreeSet::new(),
            wanted: Wanted {
                local: LocalNode::new(local, state.nodes.get(local)),
                routes: BTreeMap::new(),
                peers: BTreeMap::new(),
                workloads: BTreeMap::new(),
                warnings: Vec::new(),
            },
        }
    }

    fn is_local(&self, node: &NodeName) -> bool {
        *node == self.wanted.local.name
    }

    fn warn(&mut self, warning: String) {
        self.wanted.warnings.push(warning);
    }

    /// A node address without a subnet makes CrossSubnet tunnel everything, silently.
    fn warn_about_nodes(&mut self) {
        let name = &self.wanted.local.name;
        if !self.state.nodes.contains_key(name) {
            let warning = format!(
                "there is no Node({name}), which is this node: nothing can be tunnelled until it \
                 has one with an ipv4Address or ipv6Address"
            );
            self.warn(warning);
        }
        for node in self.state.nodes.values() {
            for address in node_nets(node).into_iter().flatten() {
                if address.prefix_len() < address.max_prefix_len() {
                    continue;
                }
                let is_v4 = address.addr().is_ipv4();
                let cross = self.state.pools.values().find(|pool| {
                    pool.cidr().addr().is_ipv4() == is_v4 && mode(pool) == EncapMode::CrossSubnet
                });
                if let Some(pool) = cross {
                    let warning = format!(
                        "Node({}) has the address {address}, whose subnet holds no other node, so \
                         CrossSubnet of IPPool({}) tunnels every packet that it sends to other \
                         nodes; give the prefix length of its network, such as {}",
                        node.metadata.name,
                        pool.metadata.name,
                        example(address)
                    );
                    self.warn(warning);
                }
            }
        }
    }

    fn add_peers(&mut self) {
        let own: Vec<IpAddr> = self.wanted.local.addresses().collect();
        for node in self.state.nodes.values() {
            let name = node.name();
            if self.is_local(&name) {
                continue;
            }
            for address in node_nets(node).into_iter().flatten().map(|net| net.addr()) {
                let taken = match self.wanted.peers.get(&address) {
                    Some(first) => Some(first.node.to_string()),
                    None if own.contains(&address) => Some(self.wanted.local.name.to_string()),
                    None => None,
                };
                if let Some(first) = taken {
                    self.warn(format!(
                        "Node({name}) has the address {address}, which Node({first}) has too; give \
                         each node an address of its own"
                    ));
                    continue;
                }
                let vtep_mac = match address {
                    IpAddr::V4(_) => node.vtep_mac(),
                    IpAddr::V6(_) => node.vtep_mac_v6(),
                };
                let node = name.clone();
                self.wanted.peers.insert(address, Peer { node, vtep_mac });
            }
        }
    }

    fn add_host(&mut self) {
        let addresses: Vec<IpAddr> = self.wanted.local.addresses().collect();
        for address in addresses {
            self.wanted.routes.insert(address.into(), Target::Host);
        }
    }

    fn add_workloads(&mut self) {
        for endpoint in self.state.endpoints.values() {
            if self.is_local(&endpoint.spec.node) {
                self.add_workload(endpoint);
            }
        }
    }

    fn add_workload(&mut self, endpoint: &WorkloadEndpoint) {
        let name = qualified(endpoint);
        let interface = endpoint.spec.interface_name.to_string();
        if let Some(first) = self.wanted.workloads.get(&interface) {
            let warning = format!(
                "WorkloadEndpoint({name}) names the interface {interface}, which \
                 WorkloadEndpoint({}) names too, and is left out; give each its own",
                first.endpoint
            );
            return self.warn(warning);
        }
        let mut addresses = BTreeSet::new();
        for address in endpoint.addresses() {
            if self.wanted.routes.contains_key(&address.into()) {
                self.warn(format!(
                    "WorkloadEndpoint({name}) has the address {address}, which this node or another \
                     of its workloads has too, and does not get it; give it another address"
                ));
                continue;
            }
            addresses.insert(address);
            let target = Target::Workload {
                interface: interface.clone(),
                mac: endpoint.spec.mac,
                address,
            };
            self.wanted.routes.insert(address.into(), target);
        }
        let workload = Workload {
            endpoint: name,
            addresses,
            mac: endpoint.spec.mac,
            allowed_sources: endpoint.spoofable().collect(),
        };
        self.wanted.workloads.insert(interface, workload);
    }

    fn add_blocks(&mut self) -> Holders<'a> {
        let state = self.state;
        let mut claims: BTreeMap<IpNet, BTreeSet<&'a NodeName>> = BTreeMap::new();
        for affinity in state.affinities.values().filter(|a| a.is_routed()) {
            self.warn_about_block(affinity);
            let claim = claims.entry(affinity.block()).or_default();
            claim.insert(&affinity.spec.node);
        }
        let mut holders = Holders::new();
        for (block, nodes) in claims {
            if nodes.len() > 1 {
                let names: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
                self.warn(format!(
                    "block {block} is confirmed for the nodes {}; the first that can be reached \
                     gets the packets; delete the wrong BlockAffinity",
                    names.join(", ")
                ));
            }
            for node in nodes {
                let Some(target) = self.block_target(block, node) else {
                    continue;
                };
                holders.insert(block, node);
                if target != Target::Blackhole || block.prefix_len() < block.max_prefix_len() {
                    self.wanted.routes.entry(block).or_insert(target);
                }
                break;
            }
        }
        holders
    }

    fn block_target(&mut self, block: IpNet, node: &'a NodeName) -> Option<Target> {
        match self.is_local(node) {
            true => Some(Target::Blackhole),
            false => self.remote(block, node),
        }
    }

    fn warn_about_block(&mut self, affinity: &BlockAffinity) {
        let (name, block) = (&affinity.metadata.name, affinity.block());
        let warning = match self.pool_of(block) {
            None => format!(
                "BlockAffinity({name}) is of block {block}, which lies in no IPPool, so packets to \
                 it are never tunnelled; add a pool, or delete the affinity"
            ),
            Some(pool) if pool.block_size() != block.prefix_len() => format!(
                "BlockAffinity({name}) is of block {block}, but IPPool({}) has blocks of /{}; make \
                 the two agree",
                pool.metadata.name,
                pool.block_size()
            ),
            Some(_) => return,
        };
        self.warn(warning);
    }

    /// Addresses that lie outside their holders' own blocks: workloads' and tunnels'.
    fn add_borrowed(&mut self, holders: &Holders<'a>) {
        let state = self.state;
        let mut claims: BTreeMap<IpAddr, BTreeSet<&'a NodeName>> = BTreeMap::new();
        for endpoint in state.endpoints.values() {
            for address in endpoint.addresses() {
                let claim = claims.entry(address).or_default();
                claim.insert(&endpoint.spec.node);
            }
        }
        for (name, node) in &state.nodes {
            for address in node.tunnel_addrs() {
                claims.entry(address).or_default().insert(name);
            }
        }
        for (address, nodes) in claims {
            self.add_borrowed_address(address, nodes, holders);
        }
    }

    fn add_borrowed_address(
        &mut self,
        address: IpAddr,
        nodes: BTreeSet<&'a NodeName>,
        holders: &Holders<'a>,
    ) {
        let prefix = IpNet::from(address);
        let ours = matches!(
            self.wanted.routes.get(&prefix),
            Some(Target::Workload { .. } | Target::Host)
        );
        if nodes.len() > 1 {
            let names: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
            self.warn(format!(
                "the address {address} is in use on the nodes {}; give each user its own",
                names.join(", ")
            ));
        }
        // A route to a node's own address would take the tunnels' outer packets with it.
        if ours || self.wanted.peers.contains_key(&address) {
            return;
        }
        let holder = holder_of(address, holders);
        for node in nodes {
            if self.is_local(node) {
                continue;
            }
            if holder == Some(node) {
                return;
            }
            if let Some(target) = self.remote(prefix, node) {
                self.wanted.routes.insert(prefix, target);
                return;
            }
        }
    }

    /// Pools swallow what no node has, but not where the addresses have another use: pools that
    /// are disabled often stand for networks outside (so that NAT leaves them alone), and some
    /// contain the nodes themselves.
    fn add_pools(&mut self) {
        let nodes: Vec<IpNet> = self
            .state
            .nodes
            .values()
            .flat_map(node_nets)
            .flatten()
            .collect();
        for pool in self.state.pools.values() {
            let cidr = pool.cidr();
            let uses = &pool.spec.allowed_uses;
            let for_services =
                !uses.is_empty() && uses.iter().all(|u| *u == AllowedUse::LoadBalancer);
            let holds_nodes = nodes.iter().any(|net| cidr.contains(&net.addr()));
            if !(pool.spec.disabled || for_services || holds_nodes) {
                let routes = &mut self.wanted.routes;
                routes.entry(cidr).or_insert(Target::Unreachable);
            }
        }
    }

    /// The way to a prefix that another node has, if the node can be reached.
    fn remote(&mut self, prefix: IpNet, name: &'a NodeName) -> Option<Target> {
        let is_v4 = prefix.addr().is_ipv4();
        let node = self.state.nodes.get(name);
        let address = node.and_then(|node| address_of_family(node, is_v4));
        let (Some(node), Some(far_end)) = (node, address) else {
            self.blame(name.clone(), prefix);
            return None;
        };
        let Some(encap) = self.encap(prefix, node, far_end) else {
            self.blame(self.wanted.local.name.clone(), prefix);
            return None;
        };
        Some(Target::Remote {
            node: name.clone(),
            far_end,
            encap,
            pool: self.pool_of(prefix).map(IpPool::cidr),
        })
    }

    /// Warns that a node has no address of a prefix's family.
    fn blame(&mut self, name: NodeName, prefix: IpNet) {
        let is_v4 = prefix.addr().is_ipv4();
        let family = if is_v4 { "ipv4Address" } else { "ipv6Address" };
        let warning = format!(
            "{prefix} has no route, nor has anything else that needs it: there is no Node({name}) \
             with an {family} under spec.bgp; add it"
        );
        if self.blamed.insert((name, is_v4)) {
            self.warn(warning);
        }
    }

    /// How packets to a prefix travel to its node; nothing if they must be tunnelled and this node
    /// has no address to tunnel from.
    fn encap(&self, prefix: IpNet, node: &Node, far_end: IpAddr) -> Option<Encap> {
        let Some(pool) = self.pool_of(prefix) else {
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

    /// The most specific pool that contains a prefix.
    fn pool_of(&self, prefix: IpNet) -> Option<&'a IpPool> {
        let pools = self.state.pools.values();
        pools
            .filter(|pool| pool.cidr().contains(&prefix))
            .max_by_key(|pool| pool.cidr().prefix_len())
    }
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

/// The one mode of a pool that is not Never, if there is one.
fn mode(pool: &IpPool) -> EncapMode {
    match pool.spec.ipip_mode {
        EncapMode::Never => pool.spec.vxlan_mode,
        mode => mode,
    }
}

fn node_nets(node: &Node) -> [Option<IpNet>; 2] {
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

/// The node that has the most specific block with this address.
fn holder_of<'a>(address: IpAddr, holders: &Holders<'a>) -> Option<&'a NodeName> {
    (0..=IpNet::from(address).max_prefix_len())
        .rev()
        .filter_map(|length| IpNet::new(address, length).ok())
        .find_map(|net| holders.get(&net.trunc()).copied())
}

fn qualified(endpoint: &WorkloadEndpoint) -> String {
    let metadata = &endpoint.metadata;
    match &metadata.namespace {
        Some(namespace) => format!("{namespace}/{}", metadata.name),
        None => metadata.name.to_string(),
    }
}

/// A node address as it would be with the usual subnet.
fn example(address: IpNet) -> String {
    match address.addr() {
        IpAddr::V4(address) => format!("{address}/24"),
        IpAddr::V6(address) => format!("{address}/64"),
    }
}
