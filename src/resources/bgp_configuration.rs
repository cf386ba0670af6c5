//! BGPConfiguration: what goes for all of a cluster's BGP sessions.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::bgp_peer::BgpPassword;
use super::community::{CommunityError, CommunityValue};
use super::duration::Duration;
use super::felix_configuration::Switch;
use super::metadata::Metadata;
use super::name::Name;
use super::net::{AsNumber, Network};
use super::problem::Fault;

/// A BGPConfiguration resource: `default` for the cluster, `node.<name>` for one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BgpConfiguration {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: BgpConfigurationSpec,
}

/// BGP's settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpConfigurationSpec {
    /// How much is logged; Info if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_severity_screen: Option<LogSeverity>,
    /// Whether every node is every other's peer; see [`BgpConfiguration::mesh_enabled`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// The AS of nodes that name none; see [`BgpConfiguration::as_number`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,
    /// The TCP port that BGP listens at; see [`BgpConfiguration::listen_port`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// The addresses that BGP listens at; all of the node's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind_mode: Option<BindMode>,
    /// Names of communities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<Community>,
    /// Communities that prefixes are told with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    /// Networks of services' cluster addresses.
    #[serde(
        default,
        rename = "serviceClusterIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub service_cluster_ips: Vec<ServiceBlock>,
    /// Networks of services' external addresses.
    #[serde(
        default,
        rename = "serviceExternalIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub service_external_ips: Vec<ServiceBlock>,
    /// Networks of services' load balancers.
    #[serde(
        default,
        rename = "serviceLoadBalancerIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub service_load_balancer_ips: Vec<ServiceBlock>,
    /// Whether load balancers' networks are told as wholes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_load_balancer_aggregation: Option<Switch>,
    /// The password of the mesh's sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<BgpPassword>,
    /// How long the mesh's peers keep routes while a node restarts; 120 s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_max_restart_time: Option<Duration>,
    /// Interfaces whose routes BGP does not look at; `*` is a wildcard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_interfaces: Vec<String>,
    /// The address at which workloads reach their node's BGP.
    #[serde(
        default,
        rename = "localWorkloadPeeringIPV4",
        skip_serializing_if = "Option::is_none"
    )]
    pub local_workload_peering_ipv4: Option<IpAddr>,
    /// The IPv6 address at which workloads reach their node's BGP.
    #[serde(
        default,
        rename = "localWorkloadPeeringIPV6",
        skip_serializing_if = "Option::is_none"
    )]
    pub local_workload_peering_ipv6: Option<IpAddr>,
    /// Whether BGP brings the routes between nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_cluster_routes: Option<Switch>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the levels' names say it")]
pub enum LogSeverity {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Fatal,
}

/// The addresses that BGP listens at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BindMode {
    /// All of the node's.
    None,
    /// The node's BGP address.
    #[serde(rename = "NodeIP")]
    NodeIp,
}

/// A community with a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Community {
    /// The name.
    pub name: Name,
    /// The value.
    pub value: CommunityValue,
}

/// The communities that a prefix is told with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixAdvertisement {
    /// The prefix.
    pub cidr: Network,
    /// Values, or names under `communities`.
    pub communities: Vec<String>,
}

/// A network of services' addresses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceBlock {
    /// The network.
    pub cidr: Network,
}

/// BGP's own port (RFC 4271 §8.2.1).
const LISTEN_PORT: u16 = 179;

impl BgpConfiguration {
    /// Calico's AS where nothing else is said (RFC 6996: private use).
    pub const AS_NUMBER: AsNumber = AsNumber(64512);

    /// Whether every node is every other's peer: as given, or yes.
    pub fn mesh_enabled(&self) -> bool {
        self.spec.node_to_node_mesh_enabled.unwrap_or(true)
    }

    /// The AS of nodes that name none: as given, or 64512.
    pub fn as_number(&self) -> AsNumber {
        self.spec.as_number.unwrap_or(Self::AS_NUMBER)
    }

    /// The TCP port that BGP listens at: as given, or 179.
    pub fn listen_port(&self) -> u16 {
        self.spec.listen_port.unwrap_or(LISTEN_PORT)
    }

    /// What is wrong beyond single fields' syntax, in the words of Calico's validation.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.check_communities(&mut faults);
        self.check_mesh(&mut faults);
        self.check_networks(&mut faults);
        self.check_peering(&mut faults);
        let spec = &self.spec;
        if spec.listen_port == Some(0) {
            faults.push(Fault::new(
                "spec.listenPort",
                "0 is not a port",
                "write a number from 1 to 65535",
            ));
        }
        for (index, name) in spec.ignored_interfaces.iter().enumerate() {
            if name == "*" || !is_interface_pattern(name) {
                faults.push(Fault::new(
                    format!("spec.ignoredInterfaces[{index}]"),
                    format!("'{name}' is not an interface's name"),
                    "write 1 to 15 letters, digits, '_', '.', '-' and '*', but not '*' alone",
                ));
            }
        }
        faults
    }

    fn check_communities(&self, faults: &mut Vec<Fault>) {
        let spec = &self.spec;
        if spec.prefix_advertisements.is_empty() && !spec.communities.is_empty() {
            faults.push(Fault::new(
                "spec.communities",
                "communities are defined but not used in Spec.PrefixAdvertisement[].",
                "add prefixAdvertisements, or remove the communities",
            ));
        }
        for (i, advertisement) in spec.prefix_advertisements.iter().enumerate() {
            let field = format!("spec.prefixAdvertisements[{i}].communities");
            if advertisement.communities.is_empty() {
                faults.push(Fault::new(
                    field.as_str(),
                    "there is no community",
                    "write one, or remove the prefix",
                ));
            }
            for (j, text) in advertisement.communities.iter().enumerate() {
                let known = || {
                    spec.communities
                        .iter()
                        .any(|known| known.name.as_str() == text)
                };
                let fault = match text.parse::<CommunityValue>() {
                    Err(error @ CommunityError::TooLarge(..)) => error.to_string(),
                    Err(CommunityError::Format(_)) if !known() => {
                        format!("'{text}': community used is invalid or not defined.; define it")
                    }
                    _ => continue,
                };
                let (reason, remedy) = fault.split_once("; ").unwrap_or((&fault, ""));
                faults.push(Fault::new(format!("{field}[{j}]"), reason, remedy));
            }
        }
    }

    fn check_mesh(&self, faults: &mut Vec<Fault>) {
        let spec = &self.spec;
        if spec.node_to_node_mesh_enabled != Some(false) {
            return;
        }
        for (given, field, name) in [
            (
                spec.node_mesh_password.is_some(),
                "spec.nodeMeshPassword",
                "NodeMeshPassword",
            ),
            (
                spec.node_mesh_max_restart_time.is_some(),
                "spec.nodeMeshMaxRestartTime",
                "NodeMeshMaxRestartTime",
            ),
        ] {
            if given {
                faults.push(Fault::new(
                    field,
                    format!("spec.{name} cannot be set if spec.NodeToNodeMesh is disabled"),
                    "remove it, or enable the mesh",
                ));
            }
        }
    }

    fn check_networks(&self, faults: &mut Vec<Fault>) {
        let spec = &self.spec;
        let services = [
            ("serviceClusterIPs", &spec.service_cluster_ips),
            ("serviceExternalIPs", &spec.service_external_ips),
            ("serviceLoadBalancerIPs", &spec.service_load_balancer_ips),
        ];
        for (name, blocks) in services {
            for (index, block) in blocks.iter().enumerate() {
                block
                    .cidr
                    .check_masked(faults, &format!("spec.{name}[{index}].cidr"));
            }
        }
        for (index, advertisement) in spec.prefix_advertisements.iter().enumerate() {
            let field = format!("spec.prefixAdvertisements[{index}].cidr");
            advertisement.cidr.check_masked(faults, &field);
        }
    }

    fn check_peering(&self, faults: &mut Vec<Fault>) {
        let spec = &self.spec;
        for (name, address, v4) in [
            (
                "localWorkloadPeeringIPV4",
                spec.local_workload_peering_ipv4,
                true,
            ),
            (
                "localWorkloadPeeringIPV6",
                spec.local_workload_peering_ipv6,
                false,
            ),
        ] {
            if let Some(address) = address.filter(|address| address.is_ipv4() != v4) {
                faults.push(Fault::new(
                    format!("spec.{name}"),
                    format!("{address} is of the other IP version"),
                    if v4 {
                        "write an IPv4 address"
                    } else {
                        "write an IPv6 address"
                    },
                ));
            }
        }
    }
}

/// Whether a text names an interface, or several by `*`.
pub(super) fn is_interface_pattern(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-*".contains(c);
    (1..=15).contains(&name.len()) && name.chars().all(inner)
}
