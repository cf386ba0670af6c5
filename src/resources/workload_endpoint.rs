//! WorkloadEndpoint: a workload's network interface on its node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::metadata::Metadata;
use super::name::{InterfaceName, NodeName};
use super::net::{HostAddress, Prefix};
use super::port::{Protocol, is_port_name};
use super::problem::Fault;
use crate::wire::{MacAddr, Mtu};

/// A WorkloadEndpoint resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadEndpoint {
    /// Name, namespace, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    pub spec: WorkloadEndpointSpec,
}

/// A workload's interface and addresses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadEndpointSpec {
    /// The node that the workload runs on.
    pub node: NodeName,
    /// Who started the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orchestrator: Option<String>,
    /// The workload, where it is no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The container.
    #[serde(
        default,
        rename = "containerID",
        skip_serializing_if = "Option::is_none"
    )]
    pub container_id: Option<String>,
    /// The interface's name inside the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The interface's name on the node.
    pub interface_name: InterfaceName,
    /// The interface's Ethernet address inside the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// The workload's addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_networks: Vec<HostAddress>,
    /// Addresses that are translated to the workload's. Kept, not acted on.
    #[serde(default, rename = "ipNATs", skip_serializing_if = "Vec::is_empty")]
    pub ip_nats: Vec<IpNat>,
    /// The workload's IPv4 gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_gateway: Option<Ipv4Addr>,
    /// The workload's IPv6 gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_gateway: Option<Ipv6Addr>,
    /// Profiles that apply to the workload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Ports with names, for policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
    /// The workload's Kubernetes service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Sources that the workload may send from beside its own addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_spoofed_source_prefixes: Vec<Prefix>,
    /// Limits on the workload's traffic. Kept, not acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos_controls: Option<QosControls>,
}

/// An address that is translated to one of a workload's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpNat {
    /// The workload's own address.
    #[serde(rename = "internalIP")]
    pub internal_ip: IpAddr,
    /// The address that others use.
    #[serde(rename = "externalIP")]
    pub external_ip: IpAddr,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointPort {
    /// The name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The port's number, from 1.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The port on the node that is forwarded to it; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub host_port: u16,
    /// The node's address of that forwarding.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// Limits on a workload's traffic: bits and packets a second, bursts, connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields' names are Calico's and say it all")]
pub struct QosControls {
    pub ingress_bandwidth: Option<i64>,
    pub egress_bandwidth: Option<i64>,
    pub ingress_burst: Option<i64>,
    pub egress_burst: Option<i64>,
    pub ingress_peakrate: Option<i64>,
    pub egress_peakrate: Option<i64>,
    pub ingress_minburst: Option<i64>,
    pub egress_minburst: Option<i64>,
    pub ingress_packet_rate: Option<i64>,
    pub egress_packet_rate: Option<i64>,
    pub ingress_packet_burst: Option<i64>,
    pub egress_packet_burst: Option<i64>,
    pub ingress_max_connections: Option<i64>,
    pub egress_max_connections: Option<i64>,
}

impl WorkloadEndpoint {
    /// The workload's addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.spec.ip_networks.iter().map(|network| network.0)
    }

    /// Sources that the workload may send from beside its own addresses.
    pub fn spoofable(&self) -> impl Iterator<Item = IpNet> {
        let prefixes = &self.spec.allow_spoofed_source_prefixes;
        prefixes.iter().map(|prefix| prefix.0)
    }

    /// The MTU that its interface was given, where underpass made it.
    pub fn mtu(&self) -> Option<Mtu> {
        let text = self.metadata.annotations.get(MTU)?;
        text.parse().ok().map(Mtu)
    }

    /// Whether its interface was there before, and stays when it goes.
    pub fn is_taken(&self) -> bool {
        self.metadata.annotations.contains_key(TAKEN)
    }

    /// Notes that its interface was there before.
    pub fn set_taken(&mut self) {
        self.metadata
            .annotations
            .insert(TAKEN.into(), "true".into());
    }

    /// Notes the MTU of its interface.
    pub fn set_mtu(&mut self, mtu: Mtu) {
        self.metadata
            .annotations
            .insert(MTU.into(), mtu.to_string());
    }

    /// Writes out what follows from the rest, as Calico does when an endpoint is stored: labels by
    /// which selectors see where it is.
    pub fn fill_defaults(&mut self) {
        let labels = &mut self.metadata.labels;
        if let Some(namespace) = &self.metadata.namespace {
            labels.insert(NAMESPACE.into(), namespace.to_string());
        }
        if let Some(orchestrator) = &self.spec.orchestrator {
            labels.insert(ORCHESTRATOR.into(), orchestrator.clone());
        }
    }

    /// What is wrong beyond single fields' syntax, in the words of Calico's validation.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.spec
            .interface_name
            .check(&mut faults, "spec.interfaceName", false);
        if let Some(id) = self
            .spec
            .container_id
            .as_ref()
            .filter(|id| !is_container_id(id))
        {
            faults.push(Fault::new(
                "spec.containerID",
                format!("'{id}' is not a container's identifier"),
                "write letters, digits and '-', with a letter or digit at each end",
            ));
        }
        for (index, nat) in self.spec.ip_nats.iter().enumerate() {
            if !self.addresses().any(|address| address == nat.internal_ip) {
                faults.push(Fault::new(
                    format!("spec.ipNATs[{index}].internalIP"),
                    format!("{} is not among the endpoint's ipNetworks", nat.internal_ip),
                    "write one of the endpoint's own addresses",
                ));
            }
            if nat.internal_ip.is_ipv4() != nat.external_ip.is_ipv4() {
                faults.push(Fault::new(
                    format!("spec.ipNATs[{index}].externalIP"),
                    "mismatched IP versions",
                    "write an address of the internal one's IP version",
                ));
            }
        }
        for (index, port) in self.spec.ports.iter().enumerate() {
            port.check(&mut faults, &|name| format!("spec.ports[{index}].{name}"));
        }
        if let Some(mac) = self.spec.mac.filter(|mac| mac.is_multicast()) {
            faults.push(Fault::new(
                "spec.mac",
                format!("'{mac}' is a group's address"),
                "write the interface's unicast address",
            ));
        }
        faults
    }
}

/// The label under which selectors see an endpoint's namespace.
const NAMESPACE: &str = "projectcalico.org/namespace";

/// The annotation with the MTU of an interface that underpass made.
const MTU: &str = "underpass/mtu";

/// The annotation of an endpoint whose interface underpass took and did not make.
const TAKEN: &str = "underpass/interface-taken";
/// The label under which selectors see who started an endpoint.
const ORCHESTRATOR: &str = "projectcalico.org/orchestrator";

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

fn is_container_id(id: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !id.is_empty() && id.chars().all(inner) && !id.starts_with('-') && !id.ends_with('-')
}

impl EndpointPort {
    fn check(&self, faults: &mut Vec<Fault>, at: &dyn Fn(&str) -> String) {
        if self.port == 0 {
            faults.push(Fault::new(
                at("port"),
                "0 is not a port",
                "write a number from 1 to 65535",
            ));
        }
        if !self.protocol.has_ports() {
            faults.push(Fault::new(
                at("protocol"),
                "WorkloadEndpointPort protocol does not support ports.",
                "write TCP, UDP or SCTP",
            ));
        }
        match self.name.as_deref().filter(|name| !name.is_empty()) {
            None if self.host_port == 0 => faults.push(Fault::new(
                at("name"),
                "WorkloadEndpointPort name must not be empty if no HostPort is specified",
                "add a name",
            )),
            Some(name) if !is_port_name(name) => faults.push(Fault::new(
                at("name"),
                format!("'{name}' is not a port's name"),
                "write at most 15 lower-case letters, digits and '-', with a letter among them",
            )),
            _ => {}
        }
    }
}
