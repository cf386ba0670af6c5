//! Addresses for workloads: free ones of the node's own blocks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::WorkloadError;
use crate::resources::ip_pool::AllowedUse;
use crate::resources::{ClusterState, IpPool, NodeName};

/// The addresses that a workload gets: those asked for, if nobody has them, else one for each family
/// that the node has a block of.
pub fn choose(
    state: &ClusterState,
    node: &NodeName,
    pools: &[String],
    asked: &[IpAddr],
) -> Result<Vec<IpAddr>, WorkloadError> {
    let taken = taken(state);
    if let Some(address) = asked.iter().find(|address| taken.contains(address)) {
        return Err(WorkloadError::Address(format!(
            "{address} is in use; ask for another address, or for none to get a free one"
        )));
    }
    if let Some(unknown) = pools
        .iter()
        .find(|name| !state.pools.keys().any(|known| known.as_str() == *name))
    {
        return Err(WorkloadError::Address(format!(
            "there is no IPPool({unknown})"
        )));
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let free = |v4: bool| free(state, node, pools, v4, &taken);
    let found: Vec<IpAddr> = [true, false].into_iter().filter_map(free).collect();
    if found.is_empty() {
        return Err(WorkloadError::Address(format!(
            "no block of node {node} has a free address for a workload; give the node a \
             BlockAffinity in a pool that is not disabled, or name an address"
        )));
    }
    Ok(found)
}

/// The first free address of the node's blocks of a family.
fn free(
    state: &ClusterState,
    node: &NodeName,
    pools: &[String],
    v4: bool,
    taken: &BTreeSet<IpAddr>,
) -> Option<IpAddr> {
    let own = state
        .affinities
        .values()
        .filter(|affinity| affinity.is_routed() && affinity.spec.node == *node);
    let mut blocks = own.map(|affinity| affinity.block()).filter(|block| {
        block.addr().is_ipv4() == v4
            && pool_of(state, block.addr()).is_some_and(|pool| gives(pool, pools))
    });
    blocks.find_map(|block| block.hosts().find(|address| !taken.contains(address)))
}

fn pool_of(state: &ClusterState, address: IpAddr) -> Option<&IpPool> {
    let pools = state.pools.values();
    pools
        .filter(|pool| pool.cidr().contains(&address))
        .max_by_key(|pool| pool.cidr().prefix_len())
}

/// Whether workloads get addresses of a pool.
fn gives(pool: &IpPool, asked: &[String]) -> bool {
    let named = asked.iter().any(|name| *name == pool.metadata.name.as_str());
    let uses = &pool.spec.allowed_uses;
    let for_workloads = uses.is_empty() || uses.contains(&AllowedUse::Workload);
    !pool.spec.disabled && for_workloads && (asked.is_empty() || named)
}

/// Every address that somebody has.
fn taken(state: &ClusterState) -> BTreeSet<IpAddr> {
    let workloads = state.endpoints.values().flat_map(|e| e.addresses());
    let nodes = state.nodes.values().flat_map(|node| {
        let own = [
            node.ipv4().map(|interface| IpAddr::V4(interface.0.addr())),
            node.ipv6().map(|interface| IpAddr::V6(interface.0.addr())),
        ];
        own.into_iter().flatten().chain(node.tunnel_addrs())
    });
    workloads.chain(nodes).collect()
}
