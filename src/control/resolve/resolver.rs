//! Following changes: which prefixes a change may concern, and what has become of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::claims::{Claims, EndpointKey, addresses_of};
use super::route::{Blame, Holders, Rules, mode, node_nets, pool_of};
use super::warnings::{Topic, Warnings};
use super::{Delta, LocalNode, Peer, Target, Wanted, Workload};
use crate::resources::{
    ClusterState, EncapMode, IpPool, IpamBlock, Kind, Node, NodeName, Resource, ResourceKey,
    WorkloadEndpoint,
};

/// What a node wants to forward, kept up with the resources.
///
/// Every change of the resources goes through [`Resolver::put`] and [`Resolver::delete`], which look at
/// the resource that was and the one that is; [`Resolver::settle`] then computes what they touched.
#[derive(Debug)]
pub struct Resolver {
    claims: Claims,
    holders: Holders,
    warnings: Warnings,
    wanted: Wanted,
    dirty: Dirty,
    by_bgp: bool,
}

/// What may have changed since the last [`Resolver::settle`].
#[derive(Debug, Default)]
struct Dirty {
    prefixes: BTreeSet<IpNet>,
    nodes: BTreeSet<NodeName>,
    node_addresses: BTreeSet<IpAddr>,
    /// This node's own resource.
    local: bool,
    workloads: bool,
    pools: bool,
}

impl Resolver {
    /// A resolver for the node of that name, settled.
    pub fn new(state: &ClusterState, local: &NodeName) -> Self {
        Self::with_bgp(state, local, false)
    }

    /// The same where BGP tells who has which block, if `by_bgp`: then only what VXLAN carries is routed
    /// by the resources, as with Calico.
    pub fn with_bgp(state: &ClusterState, local: &NodeName, by_bgp: bool) -> Self {
        let mut resolver = Self {
            claims: Claims::default(),
            holders: Holders::default(),
            warnings: Warnings::default(),
            wanted: Wanted {
                local: LocalNode::new(local, state.nodes.get(local)),
                routes: BTreeMap::new(),
                peers: BTreeMap::new(),
                workloads: BTreeMap::new(),
                warnings: Vec::new(),
            },
            dirty: Dirty {
                local: true,
                pools: true,
                ..Dirty::default()
            },
            by_bgp,
        };
        for pool in state.pools.values() {
            resolver.touch_pool(pool);
        }
        for node in state.nodes.values() {
            resolver.touch_node(node, true);
        }
        for affinity in state.affinities.values().filter(|a| a.is_routed()) {
            resolver.claims.add_block(affinity);
            resolver.dirty.prefixes.insert(affinity.block());
        }
        for resource in state.others.values() {
            if let Resource::IpamBlock(block) = resource {
                resolver.touch_allocations(block, true);
            }
        }
        for (key, endpoint) in &state.endpoints {
            resolver.touch_endpoint(key, endpoint, true);
        }
        resolver.settle(state);
        resolver
    }

    /// What is wanted, as of the last settling.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// What is wanted, for who follows no changes.
    pub fn into_wanted(self) -> Wanted {
        self.wanted
    }

    /// Adds a resource to the state, or replaces one.
    pub fn put(&mut self, state: &mut ClusterState, resource: Resource) {
        let key = resource.key();
        self.touch(state, &key, false);
        state.put(resource);
        self.touch(state, &key, true);
    }

    /// Removes a resource from the state.
    pub fn delete(&mut self, state: &mut ClusterState, key: &ResourceKey) {
        self.touch(state, key, false);
        state.delete(key);
    }

    /// Computes anew what the changes since the last call may concern, and says what has changed.
    pub fn settle(&mut self, state: &ClusterState) -> Delta {
        let mut delta = Delta::default();
        if std::mem::take(&mut self.dirty.local) {
            self.settle_local(state, &mut delta);
        }
        self.settle_nodes(state);
        self.settle_peers(state, &mut delta);
        if std::mem::take(&mut self.dirty.workloads) {
            self.settle_workloads(state, &mut delta);
        }
        self.settle_blocks(state);
        self.settle_routes(state, &mut delta);
        if let Some(warnings) = self.warnings.changed() {
            delta.warnings = true;
            self.wanted.warnings = warnings;
        }
        delta
    }
}

// What a resource's coming (`present`) or going may concern.
impl Resolver {
    fn touch(&mut self, state: &ClusterState, key: &ResourceKey, present: bool) {
        match key.kind {
            Kind::Node => {
                if let Some(node) = state.nodes.get(&key.name.clone().into()) {
                    self.touch_node(node, present);
                }
            }
            Kind::IpPool => {
                if let Some(pool) = state.pools.get(&key.name) {
                    self.touch_pool(pool);
                }
            }
            Kind::BlockAffinity => {
                let affinity = state.affinities.get(&key.name);
                if let Some(affinity) = affinity.filter(|affinity| affinity.is_routed()) {
                    self.dirty.prefixes.insert(affinity.block());
                    match present {
                        true => self.claims.add_block(affinity),
                        false => self.claims.remove_block(affinity),
                    }
                }
            }
            Kind::WorkloadEndpoint => {
                let key = (key.namespace.clone(), key.name.clone());
                if let Some(endpoint) = state.endpoints.get(&key) {
                    self.touch_endpoint(&key, endpoint, present);
                }
            }
            Kind::IpamBlock => {
                if let Some(Resource::IpamBlock(block)) = state.others.get(key) {
                    self.touch_allocations(block, present);
                }
            }
            // Other kinds bring no routes.
            _ => {}
        }
    }

    fn touch_node(&mut self, node: &Node, present: bool) {
        let name = node.name();
        if name == self.wanted.local.name {
            self.dirty.local = true;
        }
        match present {
            true => self.claims.add_node(&name, node),
            false => self.claims.remove_node(&name, node),
        }
        for address in addresses_of(node) {
            self.dirty.node_addresses.insert(address);
            self.dirty.prefixes.insert(address.into());
        }
        let tunnels = node.tunnel_addrs().map(IpNet::from);
        self.dirty.prefixes.extend(tunnels);
        self.dirty.nodes.insert(name);
    }

    fn touch_pool(&mut self, pool: &IpPool) {
        self.dirty.pools = true;
        self.dirty.prefixes.insert(pool.cidr());
        self.dirty.prefixes.extend(self.claims.within(pool.cidr()));
    }

    /// Addresses of a block that are in use on other nodes than the one whose block it is: borrowed.
    fn touch_allocations(&mut self, block: &IpamBlock, present: bool) {
        for ordinal in block.in_use() {
            let owner = block.owner(ordinal).and_then(|o| o.secondary.as_ref());
            let node = owner.and_then(|about| about.get("node"));
            let Some(node) = node.filter(|node| block.host() != Some(node.as_str())) else {
                continue;
            };
            let Ok(node) = node.parse::<NodeName>() else {
                continue;
            };
            let address = block.address(ordinal);
            match present {
                true => self.claims.add_address(&node, address),
                false => self.claims.remove_address(&node, address),
            }
            self.dirty.prefixes.insert(address.into());
        }
    }

    fn touch_endpoint(&mut self, key: &EndpointKey, endpoint: &WorkloadEndpoint, present: bool) {
        if endpoint.spec.node == self.wanted.local.name {
            self.dirty.workloads = true;
            match present {
                true => self.claims.local_endpoints.insert(key.clone()),
                false => self.claims.local_endpoints.remove(key),
            };
        }
        match present {
            true => self.claims.add_endpoint(endpoint),
            false => self.claims.remove_endpoint(endpoint),
        }
        let addresses = endpoint.addresses().map(IpNet::from);
        self.dirty.prefixes.extend(addresses);
    }
}

// Settling, in the order in which one thing depends on another.
impl Resolver {
    /// Everything depends on the node itself.
    fn settle_local(&mut self, state: &ClusterState, delta: &mut Delta) {
        let name = self.wanted.local.name.clone();
        let node = state.nodes.get(&name);
        let missing = node.is_none().then(|| {
            format!(
                "there is no Node({name}), which is this node: nothing can be tunnelled until it \
                 has one with an ipv4Address or ipv6Address"
            )
        });
        self.warnings
            .set(Topic::NoNode, missing.into_iter().collect());
        let local = LocalNode::new(&name, node);
        let fresh = self.wanted.routes.is_empty();
        if local == self.wanted.local && !fresh {
            return;
        }
        let own = self.wanted.local.addresses().chain(local.addresses());
        let own: BTreeSet<IpAddr> = own.collect();
        self.wanted.local = local;
        delta.local = true;
        let dirty = &mut self.dirty;
        dirty.workloads = true;
        dirty.prefixes.extend(own.into_iter().map(IpNet::from));
        dirty.prefixes.extend(self.claims.blocks.keys());
        let addresses = self.claims.addresses.keys().copied();
        dirty.prefixes.extend(addresses.map(IpNet::from));
        dirty.prefixes.extend(self.wanted.routes.keys());
        dirty.node_addresses.extend(self.claims.nodes.keys());
    }

    /// A node's claims depend on it, and pools on whether it is within.
    fn settle_nodes(&mut self, state: &ClusterState) {
        let nodes = std::mem::take(&mut self.dirty.nodes);
        for node in &nodes {
            self.dirty.prefixes.extend(self.claims.prefixes_of(node));
        }
        if !self.dirty.node_addresses.is_empty() {
            let holding = state.pools.values().map(IpPool::cidr).filter(|cidr| {
                let mut addresses = self.dirty.node_addresses.iter();
                addresses.any(|address| cidr.contains(address))
            });
            self.dirty.prefixes.extend(holding);
        }
        if std::mem::take(&mut self.dirty.pools) {
            self.warnings.clear(|topic| matches!(topic, Topic::Node(_)));
            for (name, node) in &state.nodes {
                self.warn_about_subnet(state, name, Some(node));
            }
        } else {
            for name in &nodes {
                self.warn_about_subnet(state, name, state.nodes.get(name));
            }
        }
    }

    /// A node address without a subnet makes CrossSubnet tunnel everything, silently.
    fn warn_about_subnet(&mut self, state: &ClusterState, name: &NodeName, node: Option<&Node>) {
        let mut sentences = Vec::new();
        let nets = node.map(node_nets).into_iter().flatten().flatten();
        for address in nets.filter(|net| net.prefix_len() == net.max_prefix_len()) {
            let is_v4 = address.addr().is_ipv4();
            let cross = state.pools.values().find(|pool| {
                pool.cidr().addr().is_ipv4() == is_v4 && mode(pool) == EncapMode::CrossSubnet
            });
            sentences.extend(cross.map(|pool| {
                format!(
                    "Node({name}) has the address {address}, whose subnet holds no other node, so \
                     CrossSubnet of IPPool({}) tunnels every packet that it sends to other nodes; \
                     give the prefix length of its network, such as {}",
                    pool.metadata.name,
                    example(address)
                )
            }));
        }
        self.warnings.set(Topic::Node(name.clone()), sentences);
    }

    /// The first node of an address has it; this one before all others.
    fn settle_peers(&mut self, state: &ClusterState, delta: &mut Delta) {
        let own: BTreeSet<IpAddr> = self.wanted.local.addresses().collect();
        for address in std::mem::take(&mut self.dirty.node_addresses) {
            let local = &self.wanted.local.name;
            let nodes = self.claims.nodes.get(&address).into_iter().flatten();
            let mut others = nodes.filter(|node| *node != local);
            let owner = match own.contains(&address) {
                true => None,
                false => others.next(),
            };
            let first = owner.unwrap_or(local);
            let warn = |node: &NodeName| {
                format!(
                    "Node({node}) has the address {address}, which Node({first}) has too; give each \
                     node an address of its own"
                )
            };
            let sentences = others.map(warn).collect();
            let peer = owner
                .and_then(|name| state.nodes.get(name))
                .map(|node| Peer {
                    node: node.name(),
                    vtep_mac: match address {
                        IpAddr::V4(_) => node.vtep_mac(),
                        IpAddr::V6(_) => node.vtep_mac_v6(),
                    },
                });
            self.warnings.set(Topic::Peer(address), sentences);
            if self.wanted.peers.get(&address) != peer.as_ref() {
                delta.peers.insert(address);
                match peer {
                    Some(peer) => self.wanted.peers.insert(address, peer),
                    None => self.wanted.peers.remove(&address),
                };
            }
        }
    }

    /// The first endpoint of an interface has it, and of an address too.
    fn settle_workloads(&mut self, state: &ClusterState, delta: &mut Delta) {
        self.warnings
            .clear(|topic| matches!(topic, Topic::Endpoint(_)));
        let mut taken: BTreeSet<IpAddr> = self.wanted.local.addresses().collect();
        let mut workloads: BTreeMap<String, Workload> = BTreeMap::new();
        for key in &self.claims.local_endpoints {
            let Some(endpoint) = state.endpoints.get(key) else {
                continue;
            };
            let name = qualified(key);
            let interface = endpoint.spec.interface_name.to_string();
            let mut sentences = Vec::new();
            if let Some(first) = workloads.get(&interface) {
                sentences.push(format!(
                    "WorkloadEndpoint({name}) names the interface {interface}, which \
                     WorkloadEndpoint({}) names too, and is left out; give each its own",
                    first.endpoint
                ));
            } else {
                let workload = workload(name, endpoint, &mut taken, &mut sentences);
                workloads.insert(interface, workload);
            }
            self.warnings.set(Topic::Endpoint(key.clone()), sentences);
        }
        if workloads != self.wanted.workloads {
            let addresses = |workloads: &BTreeMap<String, Workload>| -> Vec<IpNet> {
                let all = workloads.values().flat_map(|w| &w.addresses);
                all.map(|address| IpNet::from(*address)).collect()
            };
            let dirty = &mut self.dirty.prefixes;
            dirty.extend(addresses(&workloads));
            dirty.extend(addresses(&self.wanted.workloads));
            self.wanted.workloads = workloads;
            delta.workloads = true;
        }
    }

    /// Which addresses lie within their user's own blocks depends on who has these.
    fn settle_blocks(&mut self, state: &ClusterState) {
        let mut within = Vec::new();
        for block in &self.dirty.prefixes {
            let rules = self.rules(state);
            let holder = rules.holder(*block).cloned();
            let sentences = block_warnings(&rules, *block);
            self.warnings.set(Topic::Block(*block), sentences);
            if self.holders.set(*block, holder) {
                within.extend(self.claims.addresses_within(*block).map(IpNet::from));
            }
        }
        self.dirty.prefixes.extend(within);
    }

    fn settle_routes(&mut self, state: &ClusterState, delta: &mut Delta) {
        for prefix in std::mem::take(&mut self.dirty.prefixes) {
            let mut blame = Blame::new();
            let target = self.rules(state).target(prefix, &mut blame);
            self.warnings.blame(prefix, blame);
            self.warn_about_users(prefix);
            if self.wanted.routes.get(&prefix) != target.as_ref() {
                let old: Option<Target> = match target {
                    Some(target) => self.wanted.routes.insert(prefix, target),
                    None => self.wanted.routes.remove(&prefix),
                };
                delta.routes.insert(prefix, old);
            }
        }
    }

    fn warn_about_users(&mut self, prefix: IpNet) {
        if prefix.prefix_len() < prefix.max_prefix_len() {
            return;
        }
        let address = prefix.addr();
        let users = self.claims.addresses.get(&address);
        let sentence = users.filter(|users| users.len() > 1).map(|users| {
            format!(
                "the address {address} is in use on the nodes {}; give each user its own",
                names(users.keys())
            )
        });
        self.warnings
            .set(Topic::Address(address), sentence.into_iter().collect());
    }

    fn rules<'a>(&'a self, state: &'a ClusterState) -> Rules<'a> {
        Rules {
            state,
            claims: &self.claims,
            holders: &self.holders,
            wanted: &self.wanted,
            by_bgp: self.by_bgp,
        }
    }
}

fn workload(
    name: String,
    endpoint: &WorkloadEndpoint,
    taken: &mut BTreeSet<IpAddr>,
    sentences: &mut Vec<String>,
) -> Workload {
    let mut addresses = BTreeSet::new();
    for address in endpoint.addresses() {
        if taken.insert(address) {
            addresses.insert(address);
        } else {
            sentences.push(format!(
                "WorkloadEndpoint({name}) has the address {address}, which this node or another of \
                 its workloads has too, and does not get it; give it another address"
            ));
        }
    }
    Workload {
        endpoint: name,
        addresses,
        mac: endpoint.spec.mac,
        allowed_sources: endpoint.spoofable().collect(),
    }
}

fn block_warnings(rules: &Rules<'_>, block: IpNet) -> Vec<String> {
    let Some(claims) = rules.claims.blocks.get(&block) else {
        return Vec::new();
    };
    let pool = pool_of(rules.state, block);
    let odd = |name| match pool {
        None => Some(format!(
            "BlockAffinity({name}) is of block {block}, which lies in no IPPool, so packets to it \
             are never tunnelled; add a pool, or delete the affinity"
        )),
        Some(pool) if pool.block_size() != block.prefix_len() => Some(format!(
            "BlockAffinity({name}) is of block {block}, but IPPool({}) has blocks of /{}; make the \
             two agree",
            pool.metadata.name,
            pool.block_size()
        )),
        Some(_) => None,
    };
    let mut sentences: Vec<String> = claims.values().flatten().filter_map(odd).collect();
    if claims.len() > 1 {
        sentences.push(format!(
            "block {block} is confirmed for the nodes {}; the first that can be reached gets the \
             packets; delete the wrong BlockAffinity",
            names(claims.keys())
        ));
    }
    sentences
}

fn names<'a>(nodes: impl Iterator<Item = &'a NodeName>) -> String {
    let names: Vec<&str> = nodes.map(NodeName::as_str).collect();
    names.join(", ")
}

fn qualified((namespace, name): &EndpointKey) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_string(),
    }
}

/// A node address as it would be with the usual subnet.
fn example(address: IpNet) -> String {
    match address.addr() {
        IpAddr::V4(address) => format!("{address}/24"),
        IpAddr::V6(address) => format!("{address}/64"),
    }
}
