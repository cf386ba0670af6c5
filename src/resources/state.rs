//! What a cluster consists of, indexed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::WorkloadEndpoint;
use super::{
    BlockAffinity, EncapMode, IpPool, Kind, Name, Node, NodeName, Resource, ResourceKey, Typed,
};

/// All resources of a cluster, each kind by its name and in its order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterState {
    /// Nodes.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Pools.
    pub pools: BTreeMap<Name, IpPool>,
    /// Blocks' ties to nodes.
    pub affinities: BTreeMap<Name, BlockAffinity>,
    /// Workloads' interfaces, by namespace and name.
    pub endpoints: BTreeMap<(Option<Name>, Name), WorkloadEndpoint>,
    /// Resources of all other kinds.
    pub others: BTreeMap<ResourceKey, Resource>,
}

impl ClusterState {
    /// Adds a resource, or replaces the one of the same kind and name.
    pub fn put(&mut self, resource: Resource) {
        match resource {
            Resource::Node(node) => {
                self.nodes.insert(node.name(), node);
            }
            Resource::IpPool(pool) => {
                self.pools.insert(pool.metadata.name.clone(), pool);
            }
            Resource::BlockAffinity(affinity) => {
                self.affinities
                    .insert(affinity.metadata.name.clone(), affinity);
            }
            Resource::WorkloadEndpoint(endpoint) => {
                let metadata = &endpoint.metadata;
                let key = (metadata.namespace.clone(), metadata.name.clone());
                self.endpoints.insert(key, endpoint);
            }
            Resource::IpamHandle(_) => {}
            other => {
                self.others.insert(other.key(), other);
            }
        }
    }

    /// Removes a resource, and says whether it was there.
    pub fn delete(&mut self, key: &ResourceKey) -> bool {
        match key.kind {
            Kind::Node => self.nodes.remove(&key.name.clone().into()).is_some(),
            Kind::IpPool => self.pools.remove(&key.name).is_some(),
            Kind::BlockAffinity => self.affinities.remove(&key.name).is_some(),
            Kind::WorkloadEndpoint => {
                let key = (key.namespace.clone(), key.name.clone());
                self.endpoints.remove(&key).is_some()
            }
            Kind::IpamHandle => false,
            _ => self.others.remove(key).is_some(),
        }
    }

    /// The pool that an address is of: the smallest, if pools were ever to overlap.
    pub fn pool_of(&self, address: IpAddr) -> Option<&IpPool> {
        let pools = self.pools.values();
        pools
            .filter(|pool| pool.cidr().contains(&address))
            .max_by_key(|pool| pool.cidr().prefix_len())
    }

    /// Whether packets to an address may be tunnelled in IP-in-IP, and whether in VXLAN.
    pub fn tunnels_to(&self, address: IpAddr) -> (bool, bool) {
        let of = |pool: &IpPool| {
            let spec = &pool.spec;
            (
                spec.ipip_mode != EncapMode::Never,
                spec.vxlan_mode != EncapMode::Never,
            )
        };
        self.pool_of(address).map_or((false, false), of)
    }

    /// The resources of one of the other kinds, in order of their names.
    pub fn others<T: Typed + 'static>(&self) -> impl Iterator<Item = &T> {
        self.others.values().filter_map(T::of)
    }

    /// The resource of a name, of one of the other kinds that have no namespaces.
    pub fn other<T: Typed>(&self, name: &Name) -> Option<&T> {
        let key = ResourceKey {
            kind: T::KIND,
            namespace: None,
            name: name.clone(),
        };
        self.others.get(&key).and_then(T::of)
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
            + self.pools.len()
            + self.affinities.len()
            + self.endpoints.len()
            + self.others.len()
    }

    /// Whether there is no resource.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FromIterator<Resource> for ClusterState {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut state = Self::default();
        for resource in resources {
            state.put(resource);
        }
        state
    }
}
