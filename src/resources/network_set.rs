//! NetworkSet and GlobalNetworkSet: networks that policies select by label.

use serde::{Deserialize, Serialize};

use super::metadata::Metadata;
use super::net::Network;
use super::problem::Fault;

/// A NetworkSet resource: for policies of its own namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSet {
    /// Name, namespace, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: NetworkSetSpec,
}

/// A GlobalNetworkSet resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalNetworkSet {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: NetworkSetSpec,
}

/// A set's networks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSetSpec {
    /// The networks, of either IP version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<Network>,
}

impl NetworkSet {
    /// What is wrong beyond single fields' syntax.
    pub fn validate(&self) -> Vec<Fault> {
        reserved_label(&self.metadata)
    }
}

impl GlobalNetworkSet {
    /// What is wrong beyond single fields' syntax.
    pub fn validate(&self) -> Vec<Fault> {
        reserved_label(&self.metadata)
    }
}

/// Selectors see a set's namespace under this label.
const NAMESPACE: &str = "projectcalico.org/namespace";

fn reserved_label(metadata: &Metadata) -> Vec<Fault> {
    let reserved = metadata.labels.contains_key(NAMESPACE);
    let fault = || {
        Fault::new(
            "metadata.labels",
            format!("{NAMESPACE} is not a valid label name"),
            "remove it: the set's namespace is its metadata's",
        )
    };
    reserved.then(fault).into_iter().collect()
}
