//! What goes for nodes beyond single resources, as Calico's client does it.

use std::sync::Arc;

use super::pool::of_ipam;
use crate::datastore::{Datastore, DatastoreError, Selection};
use crate::ipam::Ipam;
use crate::resources::{Kind, NodeName, Resource, ResourceKey, WorkloadEndpoint};

type Result<T> = std::result::Result<T, DatastoreError>;

/// With a node goes what is only there because of it: its workloads' endpoints, the addresses and blocks
/// that IPAM gave it, its peers, host endpoints and settings; the node itself comes last. What is left
/// of one that is no more goes, too.
pub(super) fn delete(
    store: &Arc<dyn Datastore>,
    key: &ResourceKey,
    version: Option<&str>,
) -> Result<()> {
    if let Ok(node) = store.get(key)
        && version.is_some()
        && version != node.metadata().resource_version.as_deref()
    {
        return Err(DatastoreError::Conflict(key.clone()));
    }
    let name: NodeName = key.name.clone().into();
    let list = store.list(&Selection::kinds([
        Kind::WorkloadEndpoint,
        Kind::BgpPeer,
        Kind::HostEndpoint,
        Kind::FelixConfiguration,
        Kind::BgpConfiguration,
    ]))?;
    let dependent: Vec<&Resource> = list.resources().filter(|one| is_of(one, &name)).collect();
    let workloads: Vec<WorkloadEndpoint> = dependent
        .iter()
        .filter_map(|resource| match resource {
            Resource::WorkloadEndpoint(endpoint) => Some(endpoint.clone()),
            _ => None,
        })
        .collect();
    let ipam = Ipam::new(Arc::clone(store));
    let cleaned = ipam.clean_up_after(&name, &workloads);
    cleaned.map_err(|error| of_ipam(key, error))?;
    for resource in dependent {
        match store.delete(&resource.key(), None) {
            Ok(_) | Err(DatastoreError::DoesNotExist(_)) => {}
            Err(error) => return Err(error),
        }
    }
    store.delete(key, None).map(|_| ())
}

fn is_of(resource: &Resource, node: &NodeName) -> bool {
    let own = format!("node.{node}");
    match resource {
        Resource::WorkloadEndpoint(endpoint) => endpoint.spec.node == *node,
        Resource::BgpPeer(peer) => peer.spec.node.as_ref() == Some(node),
        Resource::HostEndpoint(endpoint) => endpoint.spec.node.as_ref() == Some(node),
        Resource::FelixConfiguration(one) => one.metadata.name.as_str() == own,
        Resource::BgpConfiguration(one) => one.metadata.name.as_str() == own,
        _ => false,
    }
}
