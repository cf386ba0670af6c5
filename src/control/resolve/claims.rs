//! Who claims which addresses: indexes over the resources, kept up as these change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::route::node_nets;
use crate::resources::{BlockAffinity, Name, Node, NodeName, WorkloadEndpoint};

/// A WorkloadEndpoint's namespace and name.
pub type EndpointKey = (Option<Name>, Name);

/// The claims that resources make.
#[derive(Debug, Default)]
pub struct Claims {
    /// Each block's confirmed claims, by node and BlockAffinity.
    pub blocks: BTreeMap<IpNet, BTreeMap<NodeName, BTreeSet<Name>>>,
    /// The addresses that are in use on each node, and by how many.
    pub addresses: BTreeMap<IpAddr, BTreeMap<NodeName, usize>>,
    /// The nodes that have an address on the network between nodes.
    pub nodes: BTreeMap<IpAddr, BTreeSet<NodeName>>,
    /// The prefixes that each node claims.
    prefixes: BTreeMap<NodeName, BTreeSet<IpNet>>,
    /// This node's endpoints.
    pub local_endpoints: BTreeSet<EndpointKey>,
}

impl Claims {
    /// Adds a node's own claims; its prefixes are those that may change with it.
    pub fn add_node(&mut self, name: &NodeName, node: &Node) {
        for address in addresses_of(node) {
            let nodes = self.nodes.entry(address).or_default();
            nodes.insert(name.clone());
        }
        for address in node.tunnel_addrs() {
            self.add_address(name, address);
        }
    }

    /// Takes a node's own claims back.
    pub fn remove_node(&mut self, name: &NodeName, node: &Node) {
        for address in addresses_of(node) {
            if let Some(nodes) = self.nodes.get_mut(&address) {
                nodes.remove(name);
                if nodes.is_empty() {
                    self.nodes.remove(&address);
                }
            }
        }
        for address in node.tunnel_addrs() {
            self.remove_address(name, address);
        }
    }

    /// Adds a confirmed affinity's claim.
    pub fn add_block(&mut self, affinity: &BlockAffinity) {
        let (block, node) = (affinity.block(), &affinity.spec.node);
        let claims = self.blocks.entry(block).or_default();
        let names = claims.entry(node.clone()).or_default();
        names.insert(affinity.metadata.name.clone());
        self.prefixes.entry(node.clone()).or_default().insert(block);
    }

    /// Takes a confirmed affinity's claim back.
    pub fn remove_block(&mut self, affinity: &BlockAffinity) {
        let (block, node) = (affinity.block(), &affinity.spec.node);
        let Some(claims) = self.blocks.get_mut(&block) else {
            return;
        };
        if let Some(names) = claims.get_mut(node) {
            names.remove(&affinity.metadata.name);
            if names.is_empty() {
                claims.remove(node);
            }
        }
        if claims.is_empty() {
            self.blocks.remove(&block);
        }
        self.forget_prefix(node, block);
    }

    /// Adds an endpoint's addresses.
    pub fn add_endpoint(&mut self, endpoint: &WorkloadEndpoint) {
        for address in endpoint.addresses() {
            self.add_address(&endpoint.spec.node, address);
        }
    }

    /// Takes an endpoint's addresses back.
    pub fn remove_endpoint(&mut self, endpoint: &WorkloadEndpoint) {
        for address in endpoint.addresses() {
            self.remove_address(&endpoint.spec.node, address);
        }
    }

    /// The prefixes that a node claims.
    pub fn prefixes_of(&self, node: &NodeName) -> impl Iterator<Item = IpNet> {
        self.prefixes.get(node).into_iter().flatten().copied()
    }

    /// The blocks and addresses within a prefix.
    pub fn within(&self, prefix: IpNet) -> impl Iterator<Item = IpNet> {
        let blocks = self.blocks.range(prefix..).map(|(block, _)| *block);
        let addresses = self.addresses_within(prefix).map(IpNet::from);
        blocks
            .take_while(move |block| prefix.contains(&block.addr()))
            .filter(move |block| prefix.contains(block))
            .chain(addresses)
    }

    /// The addresses in use within a prefix.
    pub fn addresses_within(&self, prefix: IpNet) -> impl Iterator<Item = IpAddr> {
        let range = prefix.network()..=prefix.broadcast();
        self.addresses.range(range).map(|(address, _)| *address)
    }

    /// Adds an address in use on a node.
    pub fn add_address(&mut self, node: &NodeName, address: IpAddr) {
        let users = self.addresses.entry(address).or_default();
        *users.entry(node.clone()).or_default() += 1;
        self.prefixes
            .entry(node.clone())
            .or_default()
            .insert(address.into());
    }

    /// Takes one such claim back.
    pub fn remove_address(&mut self, node: &NodeName, address: IpAddr) {
        let Some(users) = self.addresses.get_mut(&address) else {
            return;
        };
        if let Some(count) = users.get_mut(node) {
            *count -= 1;
            if *count == 0 {
                users.remove(node);
            }
        }
        if users.is_empty() {
            self.addresses.remove(&address);
        }
        self.forget_prefix(node, address.into());
    }

    /// Drops a prefix from those of a node that claims it neither as a block nor as an address.
    fn forget_prefix(&mut self, node: &NodeName, prefix: IpNet) {
        let block = self.blocks.get(&prefix);
        let host = prefix.prefix_len() == prefix.max_prefix_len();
        let users = host.then(|| self.addresses.get(&prefix.addr())).flatten();
        if block.is_some_and(|claims| claims.contains_key(node))
            || users.is_some_and(|users| users.contains_key(node))
        {
            return;
        }
        if let Some(prefixes) = self.prefixes.get_mut(node) {
            prefixes.remove(&prefix);
            if prefixes.is_empty() {
                self.prefixes.remove(node);
            }
        }
    }
}

/// A node's addresses on the network between nodes.
pub fn addresses_of(node: &Node) -> impl Iterator<Item = IpAddr> {
    node_nets(node).into_iter().flatten().map(|net| net.addr())
}
