//! What goes for pools beyond single resources, as Calico's client does it.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::datastore::{Datastore, DatastoreError, Selection};
use crate::ipam::{Ipam, IpamError};
use crate::resources::{IpPool, Kind, Resource, ResourceKey};

/// How long an assignment may be under way, as Calico takes it.
const LAST_ORDERS: Duration = Duration::from_millis(500);

type Result<T> = std::result::Result<T, DatastoreError>;

/// What keeps a pool from being added: another one that it overlaps with, or blocks of another size.
pub(super) fn check_new(store: &dyn Datastore, pool: &IpPool) -> Result<()> {
    let key = Resource::from(pool.clone()).key();
    let others = store.list(&Selection::kind(Kind::IpPool))?;
    for other in others.resources() {
        if let Resource::IpPool(other) = other
            && other.metadata.name != pool.metadata.name
            && let Some(fault) = pool.validate_beside(other)
        {
            return Err(invalid(
                &key,
                "IPPool.Spec.CIDR",
                &pool.spec.cidr,
                &fault.reason,
            ));
        }
    }
    let size = pool.block_size();
    match blocks(store, pool.cidr())?
        .into_iter()
        .find(|block| block.prefix_len() != size)
    {
        None => Ok(()),
        Some(block) => Err(invalid(
            &key,
            "IPPool.Spec.BlockSize",
            &size,
            &format!(
                "IPPool block size conflicts with existing allocations that use a different block \
                 size: {block}"
            ),
        )),
    }
}

/// What keeps a pool from becoming another: its addresses and its blocks' size stay.
pub(super) fn check_change(before: &IpPool, now: &IpPool) -> Result<()> {
    let key = Resource::from(now.clone()).key();
    if before.spec.cidr != now.spec.cidr {
        let reason = "IPPool CIDR cannot be modified";
        return Err(invalid(&key, "IPPool.Spec.CIDR", &now.spec.cidr, reason));
    }
    if before.block_size() != now.block_size() {
        let reason = "IPPool BlockSize cannot be modified";
        return Err(invalid(
            &key,
            "IPPool.Spec.BlockSize",
            &now.block_size(),
            reason,
        ));
    }
    Ok(())
}

/// Calico's procedure: no new addresses from the pool, then its blocks' ties to nodes go, then the
/// pool itself. Addresses that are in use stay so.
pub(super) fn delete(
    store: &Arc<dyn Datastore>,
    key: &ResourceKey,
    version: Option<&str>,
) -> Result<()> {
    let Resource::IpPool(mut pool) = store.get(key)? else {
        return Err(DatastoreError::DoesNotExist(key.clone()));
    };
    if version.is_some() && version != pool.metadata.resource_version.as_deref() {
        return Err(DatastoreError::Conflict(key.clone()));
    }
    if !pool.spec.disabled {
        pool.spec.disabled = true;
        store.update(&pool.clone().into())?;
        // Whoever is handing out an address of it comes to an end first.
        std::thread::sleep(LAST_ORDERS);
    }
    let released = Ipam::new(Arc::clone(store)).release_pool(pool.cidr());
    released.map_err(|error| of_ipam(key, error))?;
    store.delete(key, None).map(|_| ())
}

/// The blocks inside a network, or that it is inside of: those that are there, and those that are tied
/// to nodes by hand.
fn blocks(store: &dyn Datastore, cidr: IpNet) -> Result<Vec<IpNet>> {
    let list = store.list(&Selection::kinds([Kind::IpamBlock, Kind::BlockAffinity]))?;
    let all = list.resources().filter_map(|resource| match resource {
        Resource::IpamBlock(block) => Some(block.spec.cidr.net()),
        Resource::BlockAffinity(affinity) => Some(affinity.block()),
        _ => None,
    });
    Ok(all
        .filter(|block| cidr.contains(block) || block.contains(&cidr))
        .collect())
}

/// What IPAM says, as what became of a resource.
pub(super) fn of_ipam(key: &ResourceKey, error: IpamError) -> DatastoreError {
    match error {
        IpamError::Datastore(error) => error,
        other => DatastoreError::Refused {
            key: key.clone(),
            reason: other.to_string(),
        },
    }
}

/// Calico's words for a field that cannot be so.
fn invalid(
    key: &ResourceKey,
    field: &str,
    value: &dyn std::fmt::Display,
    reason: &str,
) -> DatastoreError {
    DatastoreError::Refused {
        key: key.clone(),
        reason: format!("error with field {field} = '{value}' ({reason})"),
    }
}
