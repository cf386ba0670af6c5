//! Calico's resource types and the node's own configuration.
//!
//! A resource is written as Calico writes it (apiVersion `projectcalico.org/v3`), one file a kind
//! here. To add a kind: write its type with `metadata`, a spec and `validate`, and add a line to the
//! table of [`kinds!`]. [`load::parse`] reads a file of many documents; every refusal says file,
//! line, column, field, reason and what would be right.

pub mod block_affinity;
pub mod config;
pub mod fence;
pub mod ip_pool;
pub mod load;
pub mod metadata;
pub mod name;
pub mod net;
pub mod node;
pub mod problem;
pub mod state;
mod text;
pub mod vtep;
pub mod workload_endpoint;
pub mod workload_interfaces;
mod yaml;

use std::fmt;

use serde::Serialize;

pub use block_affinity::BlockAffinity;
pub use config::NodeConfig;
pub use ip_pool::{EncapMode, IpPool};
pub use metadata::Metadata;
pub use name::{InterfaceName, Name, NodeName};
pub use node::Node;
pub use problem::{Fault, Origin, Position, Problem};
pub use state::ClusterState;
pub use workload_endpoint::WorkloadEndpoint;

use yaml::Tree;

/// The group and version of every resource here.
pub const API_VERSION: &str = "projectcalico.org/v3";

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident: $name:literal, $plural:literal, $namespaced:literal;)+) => {
        /// A kind of resource.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[doc = $doc])+ $kind,)+
        }

        /// A resource of any kind.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "moved rarely, read often")]
        pub enum Resource {
            $($(#[doc = $doc])+ $kind($kind),)+
        }

        impl Kind {
            /// Every kind, in the order in which they are listed to people.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// The name under `kind:`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// The plural in paths and keys.
            pub const fn plural(self) -> &'static str {
                match self { $(Self::$kind => $plural,)+ }
            }

            /// Whether names are unique within a namespace rather than in the cluster.
            pub const fn namespaced(self) -> bool {
                match self { $(Self::$kind => $namespaced,)+ }
            }
        }

        impl Resource {
            /// The kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)+ }
            }

            /// Name, namespace, labels and the like.
            pub fn metadata(&self) -> &Metadata {
                match self { $(Self::$kind(resource) => &resource.metadata,)+ }
            }

            fn metadata_mut(&mut self) -> &mut Metadata {
                match self { $(Self::$kind(resource) => &mut resource.metadata,)+ }
            }

            fn validate_fields(&self) -> Vec<Fault> {
                match self { $(Self::$kind(resource) => resource.validate(),)+ }
            }

            fn decode(kind: Kind, tree: &Tree) -> Result<Self, (Position, Fault)> {
                match kind {
                    $(Kind::$kind => tree.decode(&["apiVersion", "kind"]).map(Self::$kind),)+
                }
            }
        }

        impl Serialize for Resource {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$kind(resource) => Document {
                        api_version: API_VERSION,
                        kind: $name,
                        resource,
                    }.serialize(serializer),)+
                }
            }
        }
    };
}

kinds! {
    /// A machine that carries workloads.
    Node: "Node", "nodes", false;
    /// Addresses for workloads, and how packets to them travel.
    IpPool: "IPPool", "ippools", false;
    /// Which node a block of a pool belongs to.
    BlockAffinity: "BlockAffinity", "blockaffinities", false;
    /// A workload's interface on its node.
    WorkloadEndpoint: "WorkloadEndpoint", "workloadendpoints", true;
}

/// What tells one resource from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// The kind.
    pub kind: Kind,
    /// The namespace, of namespaced kinds only.
    pub namespace: Option<Name>,
    /// The name.
    pub name: Name,
}

impl Resource {
    /// What tells it from others.
    pub fn key(&self) -> ResourceKey {
        let metadata = self.metadata();
        ResourceKey {
            kind: self.kind(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
        }
    }

    /// What is wrong with it beyond single fields' syntax.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = self.validate_fields();
        let kind = self.kind();
        if !kind.namespaced() && self.metadata().namespace.is_some() {
            faults.push(Fault::new(
                "metadata.namespace",
                format!("kind {kind} has no namespaces"),
                "remove the field",
            ));
        }
        faults
    }
}

impl Kind {
    /// The kind of that name, in exactly this spelling.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// As Calico names resources in its messages: `IPPool(blue)`, `WorkloadEndpoint(default/web)`.
impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}({namespace}/{})", self.kind, self.name),
            None => write!(f, "{}({})", self.kind, self.name),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a, T> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    resource: &'a T,
}
