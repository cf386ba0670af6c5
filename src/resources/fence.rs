//! The `fence` of a node's configuration: from whom tunnel packets are taken.

use serde::Deserialize;

use super::net::Prefix;

/// From whom tunnel packets are taken, beyond the cluster's nodes, and how inner sources are judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Fence {
    /// Senders that are no node of the cluster: networks or single addresses, as Calico's
    /// `externalNodesList`.
    pub external_nodes: Vec<Prefix>,
    /// Whether the route back to an inner source must lead where the packet came from.
    pub reverse_path: ReversePath,
}

/// How strictly the sources of tunnelled packets are judged (RFC 3704), by the names that Linux'
/// `rp_filter` and Calico's `BPFEnforceRPF` have for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReversePath {
    /// The route back must lead to the sending node.
    Strict,
    /// There must be a route back.
    #[default]
    Loose,
    /// Not at all.
    Off,
}
