//! From whom tunnel packets are taken, as the packet path wants to know it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::apply::Hop;
use super::learned::Learned;
use super::resolve::Wanted;
use crate::fib::NextHop;
use crate::forward::{LeadsTo, PeerId, Peers, ReversePath, ReversePathMode};
use crate::resources::NodeName;
use crate::resources::fence as config;

/// What the configuration says of the fence.
#[derive(Debug, Clone, Default)]
pub struct Fence {
    /// Senders that are no node of the cluster.
    pub external_nodes: Vec<IpNet>,
    /// How strictly inner sources are judged.
    pub reverse_path: ReversePathMode,
}

impl From<&config::Fence> for Fence {
    fn from(fence: &config::Fence) -> Self {
        Self {
            external_nodes: fence.external_nodes.iter().map(|prefix| prefix.0).collect(),
            reverse_path: match fence.reverse_path {
                config::ReversePath::Off => ReversePathMode::Off,
                config::ReversePath::Loose => ReversePathMode::Loose,
                config::ReversePath::Strict => ReversePathMode::Strict,
            },
        }
    }
}

/// The senders of tunnel packets: the cluster's other nodes, the far ends of tunnels that learned routes
/// lead into, and the external ones.
pub fn peers(fence: &Fence, wanted: &Wanted, learned: &BTreeSet<IpAddr>) -> Peers {
    let known = numbers(wanted);
    let next = known.len() as u32;
    let more = learned
        .iter()
        .filter(|address| !wanted.peers.contains_key(address));
    let more = more.zip(next..).map(|(address, id)| (*address, PeerId(id)));
    Peers::new(known.into_iter().chain(more), fence.external_nodes.clone())
}

/// Where the routes of each of `count` next hops lead. Nothing is asked of the underlay here: a
/// neighbour that is not resolved makes no source wrong.
pub fn reverse_path(
    fence: &Fence,
    peers: &Peers,
    hops: &BTreeMap<Hop, NextHop>,
    learned: &Learned,
    count: usize,
) -> ReversePath {
    let mode = fence.reverse_path;
    if mode == ReversePathMode::Off {
        return ReversePath::default();
    }
    let mut leads_to = vec![LeadsTo::Nowhere; count];
    for (hop, next_hop) in hops {
        let Some(entry) = leads_to.get_mut(next_hop.0 as usize) else {
            continue;
        };
        *entry = match hop {
            Hop::Remote(address, _) => match peers.node(*address) {
                Some(node) => LeadsTo::Node(node),
                None => LeadsTo::Elsewhere,
            },
            Hop::Learned(group, _) => {
                let nodes = learned.group(*group).iter();
                let nodes: BTreeSet<_> = nodes.map(|address| peers.node(*address)).collect();
                match nodes.first() {
                    Some(Some(node)) if nodes.len() == 1 => LeadsTo::Node(*node),
                    Some(_) if nodes.iter().all(Option::is_some) => LeadsTo::Nodes,
                    _ => LeadsTo::Elsewhere,
                }
            }
            Hop::Workload(..) | Hop::Host | Hop::Router => LeadsTo::Elsewhere,
            Hop::Blackhole | Hop::Unreachable => LeadsTo::Nowhere,
        };
    }
    ReversePath { mode, leads_to }
}

/// The other nodes' addresses, all of one node under one number.
fn numbers(wanted: &Wanted) -> Vec<(IpAddr, PeerId)> {
    let mut numbers: BTreeMap<&NodeName, PeerId> = BTreeMap::new();
    let peers = wanted.peers.iter().map(|(address, peer)| {
        let next = PeerId(numbers.len() as u32);
        (*address, *numbers.entry(&peer.node).or_insert(next))
    });
    peers.collect()
}
