//! WorkloadEndpoint: a workload's network interface on its node.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::metadata::Metadata;
use super::name::{InterfaceName, NodeName};
use super::net::{HostAddress, Prefix};
use super::problem::Fault;
use crate::wire::MacAddr;

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
    #[serde(default)]
    pub host_port: u16,
    /// The node's address of that forwarding.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// An IP protocol, by one of Calico's names or by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

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

    /// What is wrong beyond single fields' syntax.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (index, nat) in self.spec.ip_nats.iter().enumerate() {
            if !self.addresses().any(|address| address == nat.internal_ip) {
                faults.push(Fault::new(
                    format!("spec.ipNATs[{index}].internalIP"),
                    format!("{} is not among the endpoint's ipNetworks", nat.internal_ip),
                    "write one of the endpoint's own addresses",
                ));
            }
        }
        for (index, port) in self.spec.ports.iter().enumerate() {
            if port.port == 0 {
                faults.push(Fault::new(
                    format!("spec.ports[{index}].port"),
                    "0 is not a port",
                    "write a number from 1 to 65535",
                ));
            }
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

/// Calico's names of protocols, with IANA's numbers.
const PROTOCOLS: [(&str, u8); 6] = [
    ("TCP", 6),
    ("UDP", 17),
    ("ICMP", 1),
    ("ICMPv6", 58),
    ("SCTP", 132),
    ("UDPLite", 136),
];

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match PROTOCOLS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => serializer.serialize_str(name),
            None => serializer.serialize_u8(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProtocolVisitor)
    }
}

struct ProtocolVisitor;

impl Visitor<'_> for ProtocolVisitor {
    type Value = Protocol;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Protocol, E> {
        match u8::try_from(number) {
            Ok(number) if number != 0 => Ok(Protocol(number)),
            _ => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Protocol, E> {
        let known = PROTOCOLS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        known
            .map(|&(_, number)| Protocol(number))
            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(name), &self))
    }
}
