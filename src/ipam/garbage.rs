//! What nobody uses any more is given back, as Calico's kube-controllers do it: leaked addresses, handles
//! without addresses, and the blocks of nodes that are no more.
//!
//! Whoever sets a workload up has its address before its endpoint; so only what was found unused twice,
//! some time apart, is given back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Allocation, Check, Ipam, IpamError, LeakedHandle, Release, Result};
use crate::datastore::DatastoreError;
use crate::resources::block_affinity::AffinityKind;
use crate::resources::{NodeName, WorkloadEndpoint};

/// What a check found to be used by nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspects {
    addresses: BTreeMap<IpAddr, Allocation>,
    handles: BTreeMap<String, LeakedHandle>,
    /// Blocks without any address in use, of nodes that have others.
    blocks: BTreeSet<(NodeName, IpNet)>,
    /// Nodes that are no more, of which something is left.
    nodes: BTreeSet<NodeName>,
}

/// What was given back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// How many handles.
    pub handles: usize,
    /// How many blocks.
    pub blocks: usize,
}

impl Suspects {
    /// Those of a check.
    ///
    /// An address of a node that is there is one only if it is a workload's: what people and others
    /// handed out for themselves is theirs, and the node looks after its tunnels' itself.
    pub fn of(check: &Check) -> Self {
        let there = |name: &str| check.nodes.iter().any(|node| node.as_str() == name);
        let suspect = |leaked: &&Allocation| match leaked.attributes.get("node") {
            Some(node) if !there(node) => true,
            Some(_) => leaked.attributes.contains_key("pod"),
            None => false,
        };
        let addresses = check.leaked().filter(suspect);
        let mut nodes: BTreeSet<NodeName> = check
            .affinities
            .iter()
            .filter(|affinity| affinity.spec.kind == AffinityKind::Host)
            .map(|affinity| affinity.spec.node.clone())
            .collect();
        nodes.retain(|node| !check.nodes.contains(node));
        // A node whose workloads are still there may come back.
        for used in check.allocations.values().filter(|address| address.in_use) {
            nodes.retain(|node| {
                used.attributes.get("node").map(String::as_str) != Some(node.as_str())
            });
        }
        Self {
            addresses: addresses
                .map(|leaked| (leaked.ip, leaked.clone()))
                .collect(),
            handles: check
                .leaked_handles()
                .map(|handle| (handle.id.clone(), handle.clone()))
                .collect(),
            blocks: empty_blocks(check),
            nodes,
        }
    }
}

/// All but one of the blocks of a node, if nothing in them is in use by anybody.
fn empty_blocks(check: &Check) -> BTreeSet<(NodeName, IpNet)> {
    let used = check.in_use();
    let mut of_nodes: BTreeMap<NodeName, Vec<(IpNet, bool)>> = BTreeMap::new();
    for block in &check.blocks {
        let cidr = block.spec.cidr.net();
        let own = check.affinities.iter().find(|affinity| {
            affinity.block() == cidr && block.host() == Some(affinity.spec.node.as_str())
        });
        if let Some(affinity) = own {
            let range = cidr.network()..=cidr.broadcast();
            let empty = super::block::is_empty(block) && used.range(range).next().is_none();
            let blocks = of_nodes.entry(affinity.spec.node.clone()).or_default();
            blocks.push((cidr, empty));
        }
    }
    let mut found = BTreeSet::new();
    for (node, mut blocks) in of_nodes {
        // One that is in use comes first, and is the one that stays.
        blocks.sort_by_key(|(cidr, empty)| (*empty, *cidr));
        let empty = blocks.into_iter().skip(1).filter(|(_, empty)| *empty);
        found.extend(empty.map(|(cidr, _)| (node.clone(), cidr)));
    }
    found
}

impl Ipam {
    /// Gives back what two checks, some time apart, both found: what is being set up or torn down is in
    /// one of them at most. What changed its owner meanwhile stays.
    pub fn collect(&self, before: &Suspects, now: &Suspects) -> Result<Collected> {
        let mut collected = Collected::default();
        let addresses = now.addresses.iter();
        for (address, leaked) in
            addresses.filter(|(ip, leaked)| before.addresses.get(ip) == Some(leaked))
        {
            if self.give_back(leaked)? {
                collected.addresses.push(*address);
            }
        }
        let handles = now.handles.iter();
        for (_, handle) in handles.filter(|(id, handle)| before.handles.get(*id) == Some(handle)) {
            collected.handles += usize::from(self.delete_handle(handle)?);
        }
        for (node, cidr) in now.blocks.intersection(&before.blocks) {
            collected.blocks += usize::from(self.release_affinity(node, *cidr, true)?);
        }
        for node in now.nodes.intersection(&before.nodes) {
            collected.blocks += self.release_node(node)?;
        }
        Ok(collected)
    }

    /// Takes back all that a node was given: its workloads' addresses, its tunnels' and its blocks.
    pub fn clean_up_after(
        &self,
        node: &NodeName,
        workloads: &[WorkloadEndpoint],
    ) -> Result<Collected> {
        let mut held = self.held_by(node)?;
        let of_workloads = workloads.iter().flat_map(WorkloadEndpoint::addresses);
        held.extend(of_workloads.map(Release::address));
        let mut collected = Collected::default();
        for release in held {
            match self.release(std::slice::from_ref(&release)) {
                Ok(free) if free.is_empty() => collected.addresses.push(release.address),
                Ok(_) | Err(IpamError::Stale(_)) => {}
                Err(error) => return Err(error),
            }
        }
        collected.blocks = self.release_node(node)?;
        Ok(collected)
    }

    /// Gives all of the pool's blocks up; those with addresses in use stay, as nobody's, until the last
    /// one is released.
    pub fn release_pool(&self, cidr: IpNet) -> Result<usize> {
        let mut released = 0;
        for affinity in
            self.all::<crate::resources::BlockAffinity>(crate::resources::Kind::BlockAffinity)?
        {
            let inside = cidr.contains(&affinity.block());
            if inside && affinity.spec.kind == AffinityKind::Host {
                let given_up =
                    self.release_affinity(&affinity.spec.node, affinity.block(), false)?;
                released += usize::from(given_up);
            }
        }
        Ok(released)
    }

    /// Says whether it was still its owner's.
    fn give_back(&self, leaked: &Allocation) -> Result<bool> {
        let release = Release {
            address: leaked.ip,
            handle: leaked.handle.clone(),
            sequence: leaked.sequence_number,
        };
        match self.release(&[release]) {
            Ok(free) => Ok(free.is_empty()),
            Err(IpamError::Stale(_) | IpamError::Datastore(DatastoreError::DoesNotExist(_))) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
