//! Calico's resource types and the node's own configuration.
//!
//! A resource is written as Calico writes it (apiVersion `projectcalico.org/v3`), one file a kind
//! here. To add a kind: write its type with `metadata`, a spec and `validate`, and add a line to the
//! table of [`kinds!`]. [`load::parse`] reads a file of many documents; every refusal says file,
//! line, column, field, reason and what would be right.

pub mod bgp_configuration;
pub mod bgp_filter;
pub mod bgp_peer;
pub mod bgp_use;
pub mod block_affinity;
pub mod bridge;
pub mod community;
pub mod config;
pub mod datastore;
pub mod duration;
pub mod felix_configuration;
pub mod fence;
pub mod host_endpoint;
pub mod ip_pool;
pub mod ip_reservation;
pub mod ipam_block;
pub mod ipam_configuration;
pub mod ipam_handle;
pub mod json;
pub mod load;
pub mod manifest;
pub mod metadata;
pub mod name;
pub mod net;
pub mod network_policy;
pub mod network_set;
pub mod node;
pub mod order;
pub mod port;
pub mod problem;
pub mod profile;
pub mod rule;
pub mod selector;
pub mod settings;
pub mod state;
pub(crate) mod text;
pub mod tier;
pub mod time;
pub mod upkeep;
pub mod vtep;
pub mod workload_endpoint;
pub mod workload_interfaces;
pub(crate) mod yaml;

use std::fmt;

use serde::Serialize;

pub use bgp_configuration::BgpConfiguration;
pub use bgp_filter::BgpFilter;
pub use bgp_peer::BgpPeer;
pub use block_affinity::BlockAffinity;
pub use config::{Io, NodeConfig};
pub use felix_configuration::FelixConfiguration;
pub use host_endpoint::HostEndpoint;
pub use ip_pool::{EncapMode, IpPool};
pub use ip_reservation::IpReservation;
pub use ipam_block::IpamBlock;
pub use ipam_configuration::IpamConfiguration;
pub use ipam_handle::IpamHandle;
pub use metadata::Metadata;
pub use name::{InterfaceName, Name, NodeName};
pub use network_policy::{GlobalNetworkPolicy, NetworkPolicy};
pub use network_set::{GlobalNetworkSet, NetworkSet};
pub use node::Node;
pub use problem::{Fault, Origin, Position, Problem};
pub use profile::Profile;
pub use selector::Selector;
pub use settings::Settings;
pub use state::ClusterState;
pub use tier::Tier;
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

            /// [`Resource::metadata`], to change.
            pub fn metadata_mut(&mut self) -> &mut Metadata {
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

        $(
            impl Typed for $kind {
                const KIND: Kind = Kind::$kind;

                fn of(resource: &Resource) -> Option<&Self> {
                    match resource {
                        Resource::$kind(resource) => Some(resource),
                        _ => None,
                    }
                }
            }

            impl From<$kind> for Resource {
                fn from(resource: $kind) -> Self {
                    Self::$kind(resource)
                }
            }
        )+

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
    /// Addresses of pools that are never assigned.
    IpReservation: "IPReservation", "ipreservations", false;
    /// How nodes come by blocks and addresses.
    IpamConfiguration: "IPAMConfiguration", "ipamconfigurations", false;
    /// Which node a block of a pool belongs to.
    BlockAffinity: "BlockAffinity", "blockaffinities", false;
    /// A workload's interface on its node.
    WorkloadEndpoint: "WorkloadEndpoint", "workloadendpoints", true;
    /// A machine's own interface, for policies.
    HostEndpoint: "HostEndpoint", "hostendpoints", false;
    /// What goes for all BGP sessions.
    BgpConfiguration: "BGPConfiguration", "bgpconfigurations", false;
    /// A BGP session of some nodes.
    BgpPeer: "BGPPeer", "bgppeers", false;
    /// Which routes a BGP session takes and tells.
    BgpFilter: "BGPFilter", "bgpfilters", false;
    /// The settings of the nodes' data planes.
    FelixConfiguration: "FelixConfiguration", "felixconfigurations", false;
    /// Policies that are decided on together.
    Tier: "Tier", "tiers", false;
    /// Which packets a namespace's endpoints may receive and send.
    NetworkPolicy: "NetworkPolicy", "networkpolicies", true;
    /// Which packets endpoints may receive and send.
    GlobalNetworkPolicy: "GlobalNetworkPolicy", "globalnetworkpolicies", false;
    /// Networks that a namespace's policies select by label.
    NetworkSet: "NetworkSet", "networksets", true;
    /// Networks that policies select by label.
    GlobalNetworkSet: "GlobalNetworkSet", "globalnetworksets", false;
    /// Rules and labels of the endpoints that name it.
    Profile: "Profile", "profiles", false;
    /// Which addresses of a block are in use; IPAM's own record.
    IpamBlock: "IPAMBlock", "ipamblocks", false;
    /// What was handed out under one handle; IPAM's own record.
    IpamHandle: "IPAMHandle", "ipamhandles", false;
}

/// A type of resource.
pub trait Typed: Sized {
    /// Its kind.
    const KIND: Kind;

    /// The resource, if it is of this type.
    fn of(resource: &Resource) -> Option<&Self>;
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

    /// Writes out what follows from the rest, as Calico does when a resource is stored.
    pub fn fill_defaults(&mut self) {
        match self {
            Self::IpPool(pool) => pool.fill_defaults(),
            Self::WorkloadEndpoint(endpoint) => endpoint.fill_defaults(),
            Self::NetworkPolicy(policy) => policy.fill_defaults(),
            Self::GlobalNetworkPolicy(policy) => policy.fill_defaults(),
            Self::Tier(tier) => tier.fill_defaults(),
            _ => {}
        }
    }

    /// What is wrong with it beyond single fields' syntax.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = self.validate_fields();
        self.metadata().check(&mut faults);
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
    /// What users call the kind beside its name and plural, as calicoctl has it.
    pub const fn short_names(self) -> &'static [&'static str] {
        match self {
            Self::Node => &["no", "nos"],
            Self::IpPool => &["ipp", "ipps", "pool", "pools"],
            Self::IpReservation => &["reservation", "reservations"],
            Self::IpamConfiguration => &["ipamconfig", "ipamconfigs"],
            Self::BlockAffinity => &["affinity", "affinities"],
            Self::WorkloadEndpoint => &["wep", "weps", "workload", "workloads"],
            Self::HostEndpoint => &["hep", "heps"],
            Self::BgpConfiguration => &["bgpconfig", "bgpconfigs"],
            Self::BgpPeer => &["bgpp", "bgpps", "bp", "bps"],
            Self::BgpFilter => &["bgpf", "bgpfs", "bf", "bfs"],
            Self::FelixConfiguration => &["felixconfig", "felixconfigs"],
            Self::NetworkPolicy => &["policy", "np", "policies", "pol", "pols"],
            Self::GlobalNetworkPolicy => &["gnp", "gnps"],
            Self::NetworkSet => &["netset", "netsets"],
            Self::GlobalNetworkSet => &["gnetset", "gnetsets"],
            Self::Profile => &["pro", "pros"],
            _ => &[],
        }
    }

    /// The kinds that people write, in the order in which they are listed to them.
    pub fn of_people() -> impl Iterator<Item = Self> {
        let kinds = Self::ALL.iter().copied();
        kinds.filter(|kind| !kind.is_ipam_record())
    }

    /// The kind of that name, in exactly this spelling.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Whether resources of this kind are IPAM's own records, which people do not write.
    pub fn is_ipam_record(self) -> bool {
        matches!(self, Self::IpamBlock | Self::IpamHandle)
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
