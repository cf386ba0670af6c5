//! BlockAffinity: which node a block of a pool belongs to.

use std::fmt;

use ipnet::IpNet;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::metadata::Metadata;
use super::name::NodeName;
use super::net::Cidr;
use super::problem::Fault;

/// A BlockAffinity resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockAffinity {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    pub spec: BlockAffinitySpec,
}

/// A block and the node it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlockAffinitySpec {
    /// How far the claim has come; only a confirmed one is routed.
    pub state: AffinityState,
    /// The node.
    pub node: NodeName,
    /// The block.
    pub cidr: Cidr,
    /// Whether the affinity is being deleted.
    #[serde(default, deserialize_with = "deleted", serialize_with = "deleted_text")]
    pub deleted: bool,
    /// Whether the node is a host or stands for something else.
    #[serde(default, rename = "type")]
    pub kind: AffinityKind,
}

/// How far a node's claim to a block has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AffinityState {
    /// The block is the node's.
    Confirmed,
    /// The node has asked for the block.
    Pending,
    /// The node is giving the block back.
    PendingDeletion,
}

/// What an affinity's node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AffinityKind {
    /// A host.
    #[default]
    Host,
    /// Something without a host, such as the load balancers' addresses.
    Virtual,
}

impl AffinityKind {
    /// Whether it is a host.
    pub fn is_host(self) -> bool {
        self == Self::Host
    }
}

impl BlockAffinity {
    /// The block.
    pub fn block(&self) -> IpNet {
        self.spec.cidr.net()
    }

    /// Whether the block is routed to the node.
    pub fn is_routed(&self) -> bool {
        self.spec.state == AffinityState::Confirmed
            && self.spec.kind == AffinityKind::Host
            && !self.spec.deleted
    }

    /// What is wrong beyond single fields' syntax.
    pub fn validate(&self) -> Vec<Fault> {
        let (least, most) = match self.block() {
            IpNet::V4(_) => (20, 32),
            IpNet::V6(_) => (116, 128),
        };
        if (least..=most).contains(&self.block().prefix_len()) {
            return Vec::new();
        }
        vec![Fault::new(
            "spec.cidr",
            format!("{} is not a block", self.spec.cidr),
            format!("write a network with a prefix length from {least} to {most}"),
        )]
    }
}

/// Calico writes this flag as a text; booleans are what people write.
fn deleted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    deserializer.deserialize_any(FlagVisitor)
}

fn deleted_text<S: Serializer>(deleted: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(deleted)
}

struct FlagVisitor;

impl Visitor<'_> for FlagVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<bool, E> {
        Ok(flag)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
        match text {
            "true" => Ok(true),
            "false" | "" => Ok(false),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}
