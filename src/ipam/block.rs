//! A block's addresses: what is handed out and taken back. Pure; the datastore's versions guard it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::resources::ipam_block::{AllocationAttribute, IpamBlock, IpamBlockSpec};
use crate::resources::net::Cidr;
use crate::resources::{Metadata, Name, NodeName};

/// Why an address was not released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody has it.
    Free,
    /// Somebody else has it: another handle, or the same one after it was handed out again.
    Stale,
}

/// A new block of a node's.
pub fn new(cidr: IpNet, name: Name, node: &NodeName, now: &str) -> Option<IpamBlock> {
    let mut block = IpamBlock {
        metadata: Metadata::named(name),
        spec: IpamBlockSpec {
            cidr: Cidr::new(cidr)?,
            affinity: Some(affinity(node)),
            affinity_claim_time: Some(now.to_owned()),
            allocations: Vec::new(),
            unallocated: Vec::new(),
            attributes: Vec::new(),
            sequence_number: 0,
            sequence_number_for_allocation: BTreeMap::new(),
            deleted: false,
            host_affinity: None,
            strict_affinity: None,
        },
    };
    block.spec.allocations = vec![None; block.size()];
    block.spec.unallocated = (0..block.size()).collect();
    Some(block)
}

/// How a block says that it is a node's.
pub fn affinity(node: &NodeName) -> String {
    format!("host:{node}")
}

/// Hands out up to `wanted` free addresses that are not reserved.
pub fn assign(
    block: &mut IpamBlock,
    wanted: usize,
    owner: &AllocationAttribute,
    reserved: impl Fn(IpAddr) -> bool,
) -> Vec<IpAddr> {
    let free = block.spec.unallocated.iter().copied();
    let ordinals: Vec<usize> = free
        .filter(|&ordinal| !reserved(block.address(ordinal)))
        .take(wanted)
        .collect();
    let given = ordinals.iter().map(|&ordinal| block.address(ordinal));
    let given = given.collect();
    take(block, &ordinals, owner);
    given
}

/// Hands out one address, if it is free.
pub fn assign_address(block: &mut IpamBlock, address: IpAddr, owner: &AllocationAttribute) -> bool {
    match block.ordinal(address) {
        Some(ordinal) if block.spec.unallocated.contains(&ordinal) => {
            take(block, &[ordinal], owner);
            true
        }
        _ => false,
    }
}

/// Takes an address back. A handle or a sequence number that is given must be the owner's. Gives the
/// handle that had it.
pub fn release(
    block: &mut IpamBlock,
    address: IpAddr,
    handle: Option<&str>,
    sequence: Option<u64>,
) -> Result<Option<String>, Refusal> {
    let ordinal = block.ordinal(address).ok_or(Refusal::Free)?;
    if block
        .spec
        .allocations
        .get(ordinal)
        .is_none_or(Option::is_none)
    {
        return Err(Refusal::Free);
    }
    let had = block
        .owner(ordinal)
        .and_then(|owner| owner.handle_id.clone());
    if handle.is_some_and(|handle| had.as_deref() != Some(handle)) {
        return Err(Refusal::Stale);
    }
    if sequence.is_some_and(|sequence| sequence != sequence_of(block, ordinal)) {
        return Err(Refusal::Stale);
    }
    give_back(block, &[ordinal]);
    Ok(had)
}

/// Takes all addresses back that a handle has. Gives them.
pub fn release_handle(block: &mut IpamBlock, handle: &str) -> Vec<IpAddr> {
    let of_handle = |&ordinal: &usize| {
        let owner = block.owner(ordinal);
        owner.is_some_and(|owner| owner.handle_id.as_deref() == Some(handle))
    };
    let ordinals: Vec<usize> = block.in_use().filter(of_handle).collect();
    give_back(block, &ordinals);
    ordinals
        .iter()
        .map(|&ordinal| block.address(ordinal))
        .collect()
}

/// The block's sequence number when an address was handed out.
pub fn sequence_of(block: &IpamBlock, ordinal: usize) -> u64 {
    let numbers = &block.spec.sequence_number_for_allocation;
    numbers.get(&ordinal.to_string()).copied().unwrap_or(0)
}

/// Whether no address is in use.
pub fn is_empty(block: &IpamBlock) -> bool {
    block.in_use().next().is_none()
}

fn take(block: &mut IpamBlock, ordinals: &[usize], owner: &AllocationAttribute) {
    if ordinals.is_empty() {
        return;
    }
    let spec = &mut block.spec;
    spec.sequence_number += 1;
    let index = match spec.attributes.iter().position(|known| known == owner) {
        Some(index) => index,
        None => {
            spec.attributes.push(owner.clone());
            spec.attributes.len() - 1
        }
    };
    for &ordinal in ordinals {
        spec.allocations[ordinal] = Some(index);
        let numbers = &mut spec.sequence_number_for_allocation;
        numbers.insert(ordinal.to_string(), spec.sequence_number);
    }
    spec.unallocated.retain(|free| !ordinals.contains(free));
}

/// What is given back is handed out again last.
fn give_back(block: &mut IpamBlock, ordinals: &[usize]) {
    if ordinals.is_empty() {
        return;
    }
    let spec = &mut block.spec;
    spec.sequence_number += 1;
    for &ordinal in ordinals {
        spec.allocations[ordinal] = None;
        spec.sequence_number_for_allocation
            .remove(&ordinal.to_string());
        spec.unallocated.push(ordinal);
    }
    drop_unused_attributes(spec);
}

fn drop_unused_attributes(spec: &mut IpamBlockSpec) {
    let used: Vec<bool> = (0..spec.attributes.len())
        .map(|index| spec.allocations.contains(&Some(index)))
        .collect();
    let mut moved = Vec::with_capacity(used.len());
    let mut next = 0;
    for &used in &used {
        moved.push(next);
        next += usize::from(used);
    }
    let mut used = used.into_iter();
    spec.attributes.retain(|_| used.next().unwrap_or(false));
    for index in spec.allocations.iter_mut().flatten() {
        *index = moved[*index];
    }
}
