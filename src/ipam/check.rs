//! Whether the records agree with each other and with who is there, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Ipam, IpamError, Result, block};
use crate::datastore::DatastoreError;
use crate::resources::{
    BlockAffinity, IpamBlock, IpamHandle, Kind, Node, NodeName, ResourceKey, WorkloadEndpoint,
};

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Check {
    /// All blocks.
    pub blocks: Vec<IpamBlock>,
    /// The enabled pools' CIDRs.
    pub pools: Vec<ipnet::IpNet>,
    /// The nodes that there are.
    pub nodes: BTreeSet<NodeName>,
    /// Blocks' ties to nodes.
    pub affinities: Vec<BlockAffinity>,
    /// Addresses in use by nodes' tunnels, and by which.
    pub node_addresses: BTreeMap<IpAddr, Vec<String>>,
    /// Addresses in use by workloads, and by which.
    pub workload_addresses: BTreeMap<IpAddr, Vec<String>>,
    /// What is handed out.
    pub allocations: BTreeMap<IpAddr, Allocation>,
    /// Handles, and whether any address is theirs.
    pub handles: BTreeMap<String, (LeakedHandle, bool)>,
    /// Handles that addresses name, but that do not exist.
    pub missing_handles: BTreeSet<String>,
}

/// An address that is handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// The address.
    pub ip: IpAddr,
    /// The handle.
    pub handle: Option<String>,
    /// The block's sequence number when it was handed out.
    pub sequence_number: Option<u64>,
    /// Whether a node or workload uses it.
    pub in_use: bool,
    /// More about the owner.
    pub attributes: BTreeMap<String, String>,
}

/// A handle without addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeakedHandle {
    /// The handle.
    pub id: String,
    /// Its version.
    pub revision: String,
}

impl Check {
    /// Addresses that are handed out, but used by nobody.
    pub fn leaked(&self) -> impl Iterator<Item = &Allocation> {
        self.allocations
            .values()
            .filter(|allocation| !allocation.in_use)
    }

    /// Addresses that somebody uses, and who: workloads and nodes.
    pub fn in_use(&self) -> BTreeMap<IpAddr, Vec<String>> {
        let mut all = self.node_addresses.clone();
        for (address, owners) in &self.workload_addresses {
            all.entry(*address)
                .or_default()
                .extend(owners.iter().cloned());
        }
        all
    }

    /// Handles without addresses.
    pub fn leaked_handles(&self) -> impl Iterator<Item = &LeakedHandle> {
        self.handles
            .values()
            .filter(|(_, used)| !used)
            .map(|(handle, _)| handle)
    }
}

impl Ipam {
    /// Compares the records with each other, and with the nodes and workloads that are there.
    pub fn check(&self) -> Result<Check> {
        let mut check = Check {
            blocks: self.blocks()?,
            ..Check::default()
        };
        let enabled = self.pools()?.into_iter().filter(|pool| !pool.spec.disabled);
        check.pools = enabled.map(|pool| pool.cidr()).collect();
        check.affinities = self.all(Kind::BlockAffinity)?;
        for node in self.all::<Node>(Kind::Node)? {
            for address in node.tunnel_addrs() {
                let owner = format!("Node({})", node.metadata.name);
                check.node_addresses.entry(address).or_default().push(owner);
            }
            check.nodes.insert(node.name());
        }
        for endpoint in self.all::<WorkloadEndpoint>(Kind::WorkloadEndpoint)? {
            for address in endpoint.addresses() {
                let namespace = endpoint.metadata.namespace.as_ref();
                let namespace = namespace.map_or("", |namespace| namespace.as_str());
                let owner = format!("Workload({namespace}/{})", endpoint.metadata.name);
                check
                    .workload_addresses
                    .entry(address)
                    .or_default()
                    .push(owner);
            }
        }
        for handle in self.all::<IpamHandle>(Kind::IpamHandle)? {
            let leaked = LeakedHandle {
                id: handle.spec.handle_id.clone(),
                revision: handle.metadata.resource_version.unwrap_or_default(),
            };
            check.handles.insert(leaked.id.clone(), (leaked, false));
        }
        for block in check.blocks.clone() {
            for ordinal in block.in_use() {
                check.note(&block, ordinal);
            }
        }
        Ok(check)
    }

    /// Deletes a handle, if it is as it was found. Says whether it was.
    pub fn delete_handle(&self, handle: &LeakedHandle) -> Result<bool> {
        let name = IpamHandle::name_of(&handle.id);
        let key = ResourceKey {
            kind: Kind::IpamHandle,
            namespace: None,
            name: name.ok_or_else(|| IpamError::Handle(handle.id.clone()))?,
        };
        match self.store.delete(&key, Some(&handle.revision)) {
            Ok(_) => Ok(true),
            Err(DatastoreError::Conflict(_) | DatastoreError::DoesNotExist(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Check {
    fn note(&mut self, block: &IpamBlock, ordinal: usize) {
        let address = block.address(ordinal);
        let owner = block.owner(ordinal);
        let handle = owner.and_then(|owner| owner.handle_id.clone());
        if let Some(handle) = &handle {
            match self.handles.get_mut(handle) {
                Some((_, used)) => *used = true,
                None => {
                    self.missing_handles.insert(handle.clone());
                }
            }
        }
        let used = |map: &BTreeMap<IpAddr, Vec<String>>| map.contains_key(&address);
        let allocation = Allocation {
            ip: address,
            handle,
            sequence_number: Some(block::sequence_of(block, ordinal)),
            in_use: used(&self.node_addresses) || used(&self.workload_addresses),
            attributes: owner
                .and_then(|owner| owner.secondary.clone())
                .unwrap_or_default(),
        };
        self.allocations.insert(address, allocation);
    }
}
