//! What is odd about the resources, by what it is about: a warning goes with its cause.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::claims::EndpointKey;
use crate::resources::NodeName;

/// What a warning is about, in the order in which people read them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// This node has no Node resource.
    NoNode,
    /// A node's own addresses.
    Node(NodeName),
    /// An address of several nodes.
    Peer(IpAddr),
    /// A workload of this node.
    Endpoint(EndpointKey),
    /// A block.
    Block(IpNet),
    /// An address in use.
    Address(IpAddr),
}

/// All warnings.
#[derive(Debug, Default)]
pub struct Warnings {
    sentences: BTreeMap<Topic, Vec<String>>,
    /// The prefixes without a route, by the node that lacks an address, IPv4 or not.
    blamed: BTreeMap<(NodeName, bool), BTreeSet<IpNet>>,
    blames: BTreeMap<IpNet, BTreeSet<(NodeName, bool)>>,
    changed: bool,
}

impl Warnings {
    /// What is odd about one topic, in place of what was.
    pub fn set(&mut self, topic: Topic, sentences: Vec<String>) {
        let old = if sentences.is_empty() {
            self.sentences.remove(&topic)
        } else {
            self.sentences.insert(topic.clone(), sentences)
        };
        self.changed |= old.as_ref() != self.sentences.get(&topic);
    }

    /// Forgets the warnings of the topics that `of` picks.
    pub fn clear(&mut self, of: impl Fn(&Topic) -> bool) {
        let before = self.sentences.len();
        self.sentences.retain(|topic, _| !of(topic));
        self.changed |= self.sentences.len() != before;
    }

    /// The nodes whose missing addresses keep a prefix from being routed, in place of those that did.
    pub fn blame(&mut self, prefix: IpNet, nodes: BTreeSet<(NodeName, bool)>) {
        let old = self.blames.remove(&prefix).unwrap_or_default();
        if old == nodes {
            if !nodes.is_empty() {
                self.blames.insert(prefix, nodes);
            }
            return;
        }
        self.changed = true;
        for node in old.difference(&nodes) {
            if let Some(prefixes) = self.blamed.get_mut(node) {
                prefixes.remove(&prefix);
                if prefixes.is_empty() {
                    self.blamed.remove(node);
                }
            }
        }
        for node in &nodes {
            let prefixes = self.blamed.entry(node.clone()).or_default();
            prefixes.insert(prefix);
        }
        if !nodes.is_empty() {
            self.blames.insert(prefix, nodes);
        }
    }

    /// All of them, if there are others than at the last call.
    pub fn changed(&mut self) -> Option<Vec<String>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let sentences = self.sentences.values().flatten().cloned();
        let blamed = self.blamed.iter().filter_map(|((name, is_v4), prefixes)| {
            let family = if *is_v4 { "ipv4Address" } else { "ipv6Address" };
            let prefix = prefixes.first()?;
            Some(format!(
                "{prefix} has no route, nor has anything else that needs it: there is no \
                 Node({name}) with an {family} under spec.bgp; add it"
            ))
        });
        Some(sentences.chain(blamed).collect())
    }
}
