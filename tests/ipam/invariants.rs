//! What must hold between the records, whatever was done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use underpass::datastore::{Datastore, Selection};
use underpass::ipam::{Ipam, Request};
use underpass::resources::{Kind, Name, Resource};

use super::contract::resources;

/// A pool's document.
pub fn pool(name: &str, spec: &str) -> Resource {
    let text = format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    );
    resources(&text).remove(0)
}

pub fn request(node: &str, handle: &str, count: usize) -> Request {
    let mut request = Request::workload(node.parse().unwrap(), handle);
    request.count = count;
    request
}

pub fn name(name: &str) -> Name {
    name.parse().unwrap()
}

/// Every address in a block, and who has it.
pub fn owners(ipam: &Ipam) -> BTreeMap<IpAddr, String> {
    let mut owners = BTreeMap::new();
    for block in ipam.blocks().unwrap() {
        for ordinal in block.in_use() {
            let handle = block.owner(ordinal).unwrap().handle_id.clone().unwrap();
            let twice = owners.insert(block.address(ordinal), handle);
            assert_eq!(twice, None, "{} twice", block.address(ordinal));
        }
    }
    owners
}

/// Holds the records against each other.
pub fn hold(store: &Arc<dyn Datastore>) {
    let ipam = Ipam::new(Arc::clone(store));
    let pools = ipam.pools().unwrap();
    let blocks = ipam.blocks().unwrap();
    let mut counted: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for block in &blocks {
        let cidr = block.spec.cidr.net();
        assert!(
            pools.iter().any(|pool| pool.cidr().contains(&cidr)),
            "{cidr} is in no pool"
        );
        let used: BTreeSet<usize> = block.in_use().collect();
        let free: BTreeSet<usize> = block.spec.unallocated.iter().copied().collect();
        assert_eq!(
            free.len(),
            block.spec.unallocated.len(),
            "{cidr}: free twice"
        );
        assert!(used.is_disjoint(&free), "{cidr}: free and in use");
        assert_eq!(
            used.len() + free.len(),
            block.size(),
            "{cidr}: counts do not add up"
        );
        let numbered: BTreeSet<usize> = block
            .spec
            .sequence_number_for_allocation
            .keys()
            .map(|key| key.parse().unwrap())
            .collect();
        assert_eq!(numbered, used, "{cidr}");
        for ordinal in used {
            let handle = block.owner(ordinal).unwrap().handle_id.clone().unwrap();
            *counted
                .entry(handle)
                .or_default()
                .entry(cidr.to_string())
                .or_insert(0) += 1;
        }
    }
    let list = store
        .list(&Selection::kinds([Kind::BlockAffinity, Kind::IpamHandle]))
        .unwrap();
    assert_eq!(list.problems, []);
    let mut handles = BTreeMap::new();
    let mut confirmed = BTreeMap::new();
    for resource in list.resources() {
        match resource {
            Resource::IpamHandle(handle) => {
                handles.insert(handle.spec.handle_id.clone(), handle.spec.block.clone());
            }
            Resource::BlockAffinity(affinity) if affinity.is_routed() => {
                let twice = confirmed.insert(affinity.block(), affinity.spec.node.to_string());
                assert_eq!(twice, None, "{} is two nodes'", affinity.block());
            }
            _ => {}
        }
    }
    assert_eq!(handles, counted, "handles and blocks");
    let hosts: BTreeMap<_, _> = blocks
        .iter()
        .filter_map(|block| Some((block.spec.cidr.net(), block.host()?.to_owned())))
        .collect();
    assert_eq!(confirmed, hosts, "affinities and blocks");
}
