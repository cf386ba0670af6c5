//! Which pools may give addresses, and in which order their blocks are tried. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Request;
use crate::resources::NodeName;
use crate::resources::ip_pool::{AllowedUse, AssignmentMode, IpPool};
use crate::resources::selector::Labels;
use crate::resources::text::digest;

/// Whether a pool may give addresses for a request. A pool that is asked for by name need not be
/// automatic, nor select the node.
pub fn qualifies(pool: &IpPool, request: &Request, labels: &Labels) -> bool {
    let spec = &pool.spec;
    let named = request.pools.contains(&pool.metadata.name);
    let v4 = matches!(pool.cidr(), IpNet::V4(_));
    !spec.disabled
        && v4 == request.ipv4
        && (named || request.pools.is_empty())
        && (named || spec.assignment_mode == AssignmentMode::Automatic)
        && (named || selects(pool, labels))
        && serves(pool, request.purpose)
}

/// Whether a pool is for the namespace of the workload that asks. As with nodes, one that is asked for by
/// name need not select it.
pub fn is_for_namespace(pool: &IpPool, request: &Request, labels: &Labels) -> bool {
    let selector = &pool.spec.namespace_selector;
    selector.is_empty()
        || request.purpose != AllowedUse::Workload
        || request.pools.contains(&pool.metadata.name)
        || selector.matches(labels)
}

/// Whether a pool's addresses are for a use.
pub fn serves(pool: &IpPool, purpose: AllowedUse) -> bool {
    pool.spec.allowed_uses.contains(&purpose)
}

/// Whether a node may use a pool.
pub fn selects(pool: &IpPool, labels: &Labels) -> bool {
    pool.spec.node_selector.matches(labels)
}

/// A pool's blocks, from a place that is each node's own on, so that nodes seldom meet: as Calico
/// orders them.
pub fn blocks(pool: &IpPool, node: &NodeName) -> impl Iterator<Item = IpNet> {
    let (base, size) = (pool.cidr(), pool.block_size());
    let count = 1_u128 << size.saturating_sub(base.prefix_len()).min(100);
    let seed: u128 = digest(node.as_str().as_bytes()).parse().unwrap_or(0);
    (0..count).filter_map(move |step| nth(base, size, (seed + step) % count))
}

/// The block that an address is in.
pub fn block_of(pool: &IpPool, address: IpAddr) -> Option<IpNet> {
    let length = pool.block_size();
    IpNet::new(address, length).ok().map(|net| net.trunc())
}

fn nth(base: IpNet, size: u8, index: u128) -> Option<IpNet> {
    let offset = index << (base.max_prefix_len() - size);
    let address = match base.network() {
        IpAddr::V4(base) => IpAddr::V4((u32::from(base) + u32::try_from(offset).ok()?).into()),
        IpAddr::V6(base) => IpAddr::V6((u128::from(base) + offset).into()),
    };
    IpNet::new(address, size).ok()
}
