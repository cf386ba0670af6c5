//! Addresses that resources say are in use, whether IPAM handed them out or a person wrote them down.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Ipam, Release, Request, Result, Rules};
use crate::resources::selector::Labels;
use crate::resources::{IpPool, Kind, Node, NodeName, Profile, WorkloadEndpoint};

/// How many addresses that somebody uses without IPAM's knowledge are passed over.
const ATTEMPTS: usize = 64;

impl Ipam {
    /// Every address that a node or a workload has.
    pub fn used(&self) -> Result<BTreeSet<IpAddr>> {
        let nodes: Vec<Node> = self.all(Kind::Node)?;
        let endpoints: Vec<WorkloadEndpoint> = self.all(Kind::WorkloadEndpoint)?;
        let of_nodes = nodes.iter().flat_map(Node::addresses);
        let of_workloads = endpoints.iter().flat_map(WorkloadEndpoint::addresses);
        Ok(of_nodes.chain(of_workloads).collect())
    }

    /// Hands out one address that is not in use without IPAM's knowledge. Those that are, are held
    /// while the next one is looked for.
    pub fn assign_unused(
        &self,
        request: &Request,
        used: &BTreeSet<IpAddr>,
    ) -> Result<Option<IpAddr>> {
        let (mut passed_over, mut found) = (Vec::new(), None);
        while found.is_none() && passed_over.len() < ATTEMPTS {
            let Some(address) = self.assign(request)?.first().copied() else {
                break;
            };
            match used.contains(&address) {
                true => passed_over.push(Release {
                    address,
                    handle: Some(request.handle.clone()),
                    sequence: None,
                }),
                false => found = Some(address),
            }
        }
        self.release(&passed_over)?;
        Ok(found)
    }

    /// The labels of the namespace that a request is for: its name, and what its profile has of it, as
    /// Calico keeps namespaces in etcd. Nothing is looked up where no pool asks.
    pub(super) fn namespace_labels(&self, request: &Request, rules: &Rules) -> Result<Labels> {
        let mut labels = Labels::new();
        let asks = |pool: &IpPool| !pool.spec.namespace_selector.is_empty();
        let Some(namespace) = request.attributes.get("namespace") else {
            return Ok(labels);
        };
        if !rules.pools.iter().any(asks) {
            return Ok(labels);
        }
        for profile in self.all::<Profile>(Kind::Profile)? {
            if profile.metadata.name.as_str() == format!("kns.{namespace}") {
                let applied = profile.spec.labels_to_apply.iter();
                let own =
                    applied.filter_map(|(key, value)| Some((key.strip_prefix("pcns.")?, value)));
                labels.extend(own.map(|(key, value)| (key.to_owned(), value.clone())));
            }
        }
        for name in ["projectcalico.org/name", "kubernetes.io/metadata.name"] {
            labels.insert(name.to_owned(), namespace.clone());
        }
        Ok(labels)
    }

    /// The addresses that were handed out on behalf of a node, each as it is to be released.
    pub(super) fn held_by(&self, node: &NodeName) -> Result<Vec<Release>> {
        let mut held = Vec::new();
        for block in self.blocks()? {
            for ordinal in block.in_use() {
                let owner = block.owner(ordinal);
                let Some(owner) = owner.filter(|owner| owner.node() == Some(node.as_str())) else {
                    continue;
                };
                held.push(Release {
                    address: block.address(ordinal),
                    handle: owner.handle_id.clone(),
                    sequence: Some(super::block::sequence_of(&block, ordinal)),
                });
            }
        }
        Ok(held)
    }
}
