//! HostEndpoint: a machine's own interface, for policies.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::metadata::Metadata;
use super::name::{InterfaceName, Name, NodeName};
use super::port::{Protocol, is_port_name};
use super::problem::Fault;

/// A HostEndpoint resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEndpoint {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: HostEndpointSpec,
}

/// A machine's interface.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostEndpointSpec {
    /// The machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The interface, or `*` for all of the machine's; found by its addresses if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_name: Option<InterfaceName>,
    /// The interface's addresses.
    #[serde(default, rename = "expectedIPs", skip_serializing_if = "Vec::is_empty")]
    pub expected_ips: Vec<IpAddr>,
    /// Profiles that apply to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Name>,
    /// Ports with names, for policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<HostEndpointPort>,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEndpointPort {
    /// The name.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port's number, from 1.
    pub port: u16,
}

impl HostEndpoint {
    /// What is wrong beyond single fields' syntax, in the words of Calico's validation.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let spec = &self.spec;
        if spec.interface_name.is_none() && spec.expected_ips.is_empty() {
            faults.push(Fault::new(
                "spec.interfaceName",
                "no interface or expected IPs have been specified",
                "add interfaceName or expectedIPs",
            ));
        }
        if let Some(name) = &spec.interface_name {
            name.check(&mut faults, "spec.interfaceName", true);
        }
        if spec.node.is_none() {
            faults.push(Fault::new(
                "spec.node",
                "no node has been specified",
                "add the name of the machine's Node",
            ));
        }
        for (index, port) in spec.ports.iter().enumerate() {
            port.check(&mut faults, &|name| format!("spec.ports[{index}].{name}"));
        }
        faults
    }
}

impl HostEndpointPort {
    fn check(&self, faults: &mut Vec<Fault>, at: &dyn Fn(&str) -> String) {
        if !is_port_name(&self.name) {
            faults.push(Fault::new(
                at("name"),
                format!("'{}' is not a port's name", self.name),
                "write at most 15 lower-case letters, digits and '-', with a letter among them",
            ));
        }
        if !self.protocol.has_ports() {
            faults.push(Fault::new(
                at("protocol"),
                "EndpointPort protocol does not support ports.",
                "write TCP, UDP or SCTP",
            ));
        }
        if self.port == 0 {
            faults.push(Fault::new(
                at("port"),
                "0 is not a port",
                "write a number from 1 to 65535",
            ));
        }
    }
}
