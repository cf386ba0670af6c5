//! Blocks and the nodes that they belong to: affinity pending → block → affinity confirmed, and back.

use std::collections::BTreeSet;
use std::time::SystemTime;

use ipnet::IpNet;

use super::{ATTEMPTS, Ipam, IpamError, Result, block, block_key, pools};
use crate::datastore::{DatastoreError, name_of_cidr};
use crate::resources::block_affinity::{AffinityKind, AffinityState, BlockAffinitySpec};
use crate::resources::ip_pool::IpPool;
use crate::resources::net::Cidr;
use crate::resources::time::rfc3339;
use crate::resources::{BlockAffinity, IpamBlock, Kind, Metadata, NodeName, Resource, ResourceKey};

impl Ipam {
    /// A node's affinities, in the order of the blocks.
    pub fn affinities(&self, node: &NodeName) -> Result<Vec<BlockAffinity>> {
        let mut all: Vec<BlockAffinity> = self.all(Kind::BlockAffinity)?;
        all.retain(|one| one.spec.node == *node && one.spec.kind == AffinityKind::Host);
        all.sort_by_key(BlockAffinity::block);
        Ok(all)
    }

    /// Claims a block for a node. Gives it, or nothing if it is another's.
    pub fn claim(&self, node: &NodeName, cidr: IpNet) -> Result<Option<IpamBlock>> {
        for _ in 0..ATTEMPTS {
            let Some(affinity) = self.pend(node, cidr)? else {
                continue;
            };
            let Some(block) = self.make_block(node, cidr)? else {
                continue;
            };
            if block.host() != Some(node.as_str()) {
                // The block is another's: nothing is left of the claim.
                self.drop_affinity(&affinity)?;
                return Ok(None);
            }
            if self
                .set_state(&affinity, AffinityState::Confirmed)?
                .is_some()
            {
                return Ok(Some(block));
            }
        }
        Err(IpamError::Busy(cidr.to_string()))
    }

    /// Claims the first block of the pools that nobody has.
    pub(super) fn claim_any(
        &self,
        node: &NodeName,
        pools: &[&IpPool],
        reserved: &[IpNet],
    ) -> Result<Option<IpNet>> {
        let mut known: BTreeSet<IpNet> = self
            .blocks()?
            .iter()
            .map(|block| block.spec.cidr.net())
            .collect();
        // A person may tie a block to a node without IPAM's block being there yet.
        let affinities: Vec<BlockAffinity> = self.all(Kind::BlockAffinity)?;
        let others = affinities
            .iter()
            .filter(|affinity| affinity.spec.node != *node);
        known.extend(
            others
                .filter(|affinity| affinity.is_routed())
                .map(BlockAffinity::block),
        );
        let overlaps = |cidr: &IpNet| {
            let other = |known: &IpNet| known.contains(cidr) || cidr.contains(known);
            known.contains(cidr) || known.iter().any(other)
        };
        for pool in pools {
            for cidr in pools::blocks(pool, node) {
                let useless = reserved.iter().any(|net| net.contains(&cidr));
                if useless || overlaps(&cidr) {
                    continue;
                }
                if self.claim(node, cidr)?.is_some() {
                    return Ok(Some(cidr));
                }
            }
        }
        Ok(None)
    }

    /// Gives a node's block up; with addresses in use, the block stays, as nobody's. `only_empty`
    /// leaves it to the node in that case. Says whether it was given up.
    pub fn release_affinity(&self, node: &NodeName, cidr: IpNet, only_empty: bool) -> Result<bool> {
        let mut own = self.affinities(node)?;
        own.retain(|affinity| affinity.block() == cidr);
        let Some(affinity) = own.pop() else {
            return Ok(false);
        };
        for _ in 0..ATTEMPTS {
            let block = self
                .block(cidr)?
                .filter(|block| block.host() == Some(node.as_str()));
            if only_empty && block.as_ref().is_some_and(|block| !block::is_empty(block)) {
                return Ok(false);
            }
            let Some(affinity) = self.set_state(&affinity, AffinityState::PendingDeletion)? else {
                return Ok(false);
            };
            let Some(mut block) = block else {
                self.drop_affinity(&affinity)?;
                return Ok(true);
            };
            block.spec.affinity = None;
            block.spec.host_affinity = None;
            block.spec.affinity_claim_time = None;
            if self.store_or_delete(block)? {
                self.drop_affinity(&affinity)?;
                return Ok(true);
            }
            self.set_state(&affinity, AffinityState::Confirmed)?;
        }
        Err(IpamError::Busy(cidr.to_string()))
    }

    /// Gives all of a node's blocks up.
    pub fn release_node(&self, node: &NodeName) -> Result<usize> {
        let mut released = 0;
        for affinity in self.affinities(node)? {
            released += usize::from(self.release_affinity(node, affinity.block(), false)?);
        }
        Ok(released)
    }

    /// The node's affinity to a block, pending; nothing if somebody else is changing it.
    fn pend(&self, node: &NodeName, cidr: IpNet) -> Result<Option<BlockAffinity>> {
        let affinity = BlockAffinity {
            metadata: Metadata::named(affinity_key(node, cidr)?.name),
            spec: BlockAffinitySpec {
                state: AffinityState::Pending,
                node: node.clone(),
                cidr: Cidr::new(cidr).ok_or_else(|| IpamError::Busy(cidr.to_string()))?,
                deleted: false,
                kind: AffinityKind::Host,
            },
        };
        match self.store.create(&Resource::BlockAffinity(affinity)) {
            Ok(Resource::BlockAffinity(made)) => Ok(Some(made)),
            Ok(_) => Ok(None),
            Err(DatastoreError::AlreadyExists(key)) => match self.store.get(&key) {
                Ok(Resource::BlockAffinity(there)) => {
                    if there.is_routed() {
                        return Ok(Some(there));
                    }
                    self.set_state(&there, AffinityState::Pending)
                }
                Ok(_) | Err(DatastoreError::DoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// The block, made for the node if there is none; nothing if it went meanwhile.
    fn make_block(&self, node: &NodeName, cidr: IpNet) -> Result<Option<IpamBlock>> {
        let name = block_key(cidr)?.name;
        let now = rfc3339(SystemTime::now());
        let new = block::new(cidr, name, node, &now);
        let new = new.ok_or_else(|| IpamError::Busy(cidr.to_string()))?;
        match self.store.create(&Resource::IpamBlock(new)) {
            Ok(Resource::IpamBlock(made)) => Ok(Some(made)),
            Ok(_) => Ok(None),
            Err(DatastoreError::AlreadyExists(_)) => self.block(cidr),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes an affinity's state; nothing if somebody else changed it.
    fn set_state(
        &self,
        affinity: &BlockAffinity,
        state: AffinityState,
    ) -> Result<Option<BlockAffinity>> {
        if affinity.spec.state == state && !affinity.spec.deleted {
            return Ok(Some(affinity.clone()));
        }
        let mut changed = affinity.clone();
        changed.spec.state = state;
        changed.spec.deleted = false;
        match self.store.update(&Resource::BlockAffinity(changed)) {
            Ok(Resource::BlockAffinity(written)) => Ok(Some(written)),
            Ok(_) | Err(DatastoreError::Conflict(_) | DatastoreError::DoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn drop_affinity(&self, affinity: &BlockAffinity) -> Result<()> {
        let resource = Resource::BlockAffinity(affinity.clone());
        let version = affinity.metadata.resource_version.as_deref();
        match self.store.delete(&resource.key(), version) {
            // Somebody else took it up, or away.
            Ok(_) | Err(DatastoreError::Conflict(_) | DatastoreError::DoesNotExist(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn affinity_key(node: &NodeName, cidr: IpNet) -> Result<ResourceKey> {
    let name = format!("{node}-{}", name_of_cidr(cidr));
    Ok(ResourceKey {
        kind: Kind::BlockAffinity,
        namespace: None,
        name: name.parse().map_err(|_| IpamError::Busy(name))?,
    })
}
