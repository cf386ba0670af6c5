//! BGPPeer: a BGP session of some nodes, with a router or with other nodes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::metadata::Metadata;
use super::name::{Name, NodeName};
use super::net::{AsNumber, PeerAddress};
use super::problem::Fault;
use super::selector::Selector;

/// A BGPPeer resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BgpPeer {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: BgpPeerSpec,
}

/// Who peers with whom, and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPeerSpec {
    /// The node that has the session; all nodes if neither this nor `node_selector` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The nodes that have the session.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub node_selector: Selector,
    /// The peer's address, and its port if it is not BGP's own.
    #[serde(default, rename = "peerIP", skip_serializing_if = "Option::is_none")]
    pub peer_ip: Option<PeerAddress>,
    /// The peer's AS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,
    /// The AS that the node has in this session; its own if absent.
    #[serde(
        default,
        rename = "localASNumber",
        skip_serializing_if = "Option::is_none"
    )]
    pub local_as_number: Option<AsNumber>,
    /// The nodes that are peers.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub peer_selector: Selector,
    /// The node's own workloads that are peers.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub local_workload_selector: Selector,
    /// Whether routes keep their next hop. Calico would rather have `nextHopMode`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_original_next_hop: bool,
    /// The next hop that routes are told with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop_mode: Option<NextHopMode>,
    /// The sessions' password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<BgpPassword>,
    /// The address that the node speaks from; its BGP address if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<SourceAddress>,
    /// How long the peer keeps routes while the node restarts; 120 s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restart_time: Option<Duration>,
    /// The time between two keepalives; a third of the hold time if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<Duration>,
    /// How often the node's own AS may stand in a received path.
    #[serde(
        default,
        rename = "numAllowedLocalASNumbers",
        skip_serializing_if = "Option::is_none"
    )]
    pub num_allowed_local_as_numbers: Option<u8>,
    /// How many hops away the peer is, for TTL security (RFC 5082).
    #[serde(
        default,
        rename = "ttlSecurity",
        skip_serializing_if = "Option::is_none"
    )]
    pub ttl_security: Option<u8>,
    /// The gateway by which the peer is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable_by: Option<IpAddr>,
    /// Whether the peers that `peer_selector` selects get the session in the other direction, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_peering: Option<ReversePeering>,
    /// BGPFilters that routes pass, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Name>,
}

/// The next hop that routes are told with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NextHopMode {
    /// BGP's own rule.
    Auto,
    /// The node.
    #[serde(rename = "Self")]
    Itself,
    /// The one they came with.
    Keep,
}

/// The address that a node speaks from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SourceAddress {
    /// Its BGP address.
    #[serde(rename = "UseNodeIP")]
    UseNodeIp,
    /// The one that the kernel chooses.
    None,
}

/// Whether selected peers get a session in the other direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReversePeering {
    /// Yes.
    Auto,
    /// Only by a BGPPeer of their own.
    Manual,
}

/// Where a session's password is (RFC 2385).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPassword {
    /// The key of a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// A key of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The key in it.
    pub key: String,
    /// Whether it may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

impl BgpPeer {
    /// What is wrong beyond single fields' syntax, in the words of Calico's validation.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let spec = &self.spec;
        let (by_selector, by_workload) = (
            !spec.peer_selector.is_empty(),
            !spec.local_workload_selector.is_empty(),
        );
        let exclusive = [
            (
                spec.node.is_some() && !spec.node_selector.is_empty(),
                "node",
                "Node field must be empty when NodeSelector is specified",
            ),
            (
                spec.peer_ip.is_some() && by_selector,
                "peerIP",
                "PeerIP field must be empty when PeerSelector is specified",
            ),
            (
                spec.as_number.is_some() && by_selector,
                "asNumber",
                "ASNumber field must be empty when PeerSelector is specified",
            ),
            (
                spec.peer_ip.is_some() && by_workload,
                "peerIP",
                "PeerIP field must be empty when LocalWorkloadSelector is specified",
            ),
            (
                by_selector && by_workload,
                "peerSelector",
                "PeerSelector field must be empty when LocalWorkloadSelector is specified",
            ),
            (
                spec.reachable_by.is_some() && spec.peer_ip.is_none(),
                "reachableBy",
                "ReachableBy field must be empty when PeerIP is empty",
            ),
            (
                spec.keep_original_next_hop && spec.next_hop_mode.is_some(),
                "keepOriginalNextHop",
                "The KeepOriginalNextHop field is deprecated. \
                 It must not be set to true when NextHopMode is configured.",
            ),
        ];
        for (found, field, reason) in exclusive {
            if found {
                faults.push(Fault::new(
                    format!("spec.{field}"),
                    reason,
                    "remove one of the two",
                ));
            }
        }
        if by_workload && spec.as_number.is_none() {
            faults.push(Fault::new(
                "spec.asNumber",
                "ASNumber field must NOT be empty when LocalWorkloadSelector is specified",
                "add the workloads' AS number",
            ));
        }
        self.check_gateway(&mut faults);
        self.check_times(&mut faults);
        faults
    }

    fn check_gateway(&self, faults: &mut Vec<Fault>) {
        if let (Some(gateway), Some(peer)) = (self.spec.reachable_by, self.spec.peer_ip)
            && gateway.is_ipv4() != peer.address.is_ipv4()
        {
            faults.push(Fault::new(
                "spec.reachableBy",
                "ReachableBy and PeerIP address family mismatched",
                "write a gateway of the peer's IP version",
            ));
        }
    }

    fn check_times(&self, faults: &mut Vec<Fault>) {
        for (field, time) in [
            ("spec.maxRestartTime", self.spec.max_restart_time),
            ("spec.keepaliveTime", self.spec.keepalive_time),
        ] {
            if let Some(time) = time.filter(|time| time.is_negative()) {
                faults.push(Fault::new(
                    field,
                    format!("{time} is less than nothing"),
                    "write a time such as 120s",
                ));
            }
        }
    }
}
