//! Node: a machine that carries workloads, and its addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::metadata::Metadata;
use super::name::NodeName;
use super::net::{AsNumber, Ipv4Interface, Ipv6Interface};
use super::problem::Fault;
use super::vtep::{vtep_mac, vtep_mac_v6};
use crate::wire::MacAddr;

/// A Node resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: NodeSpec,
    /// What the node reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NodeStatus>,
}

/// A node's addresses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// Addresses on the network between nodes, and BGP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<NodeBgp>,
    /// The address of the node's IPv4 VXLAN tunnel end point.
    #[serde(
        default,
        rename = "ipv4VXLANTunnelAddr",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv4_vxlan_tunnel_addr: Option<Ipv4Addr>,
    /// The inner Ethernet address of the node's IPv4 VXLAN tunnel end point; derived from the node's
    /// name if absent.
    #[serde(
        default,
        rename = "vxlanTunnelMACAddr",
        skip_serializing_if = "Option::is_none"
    )]
    pub vxlan_tunnel_mac_addr: Option<MacAddr>,
    /// The address of the node's IPv6 VXLAN tunnel end point.
    #[serde(
        default,
        rename = "ipv6VXLANTunnelAddr",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv6_vxlan_tunnel_addr: Option<Ipv6Addr>,
    /// The inner Ethernet address of the node's IPv6 VXLAN tunnel end point; derived from the node's
    /// name if absent.
    #[serde(
        default,
        rename = "vxlanTunnelMACAddrV6",
        skip_serializing_if = "Option::is_none"
    )]
    pub vxlan_tunnel_mac_addr_v6: Option<MacAddr>,
    /// What orchestrators call this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orch_refs: Vec<OrchRef>,
    /// WireGuard's addresses. Kept, not acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wireguard: Option<NodeWireguard>,
    /// Addresses at which clients reach the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<NodeAddress>,
    /// The node's network devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<NodeInterface>,
}

/// A node's addresses on the network between nodes, and its part in BGP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeBgp {
    /// The node's AS; the cluster's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,
    /// The node's IPv4 address and its network's prefix length, which decides what CrossSubnet takes
    /// for the same subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<Ipv4Interface>,
    /// The node's IPv6 address and its network's prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_address: Option<Ipv6Interface>,
    /// The address of the node's IP-in-IP tunnel.
    #[serde(
        default,
        rename = "ipv4IPIPTunnelAddr",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv4_ipip_tunnel_addr: Option<Ipv4Addr>,
    /// The node is a route reflector of this cluster (RFC 4456).
    #[serde(
        default,
        rename = "routeReflectorClusterID",
        skip_serializing_if = "Option::is_none"
    )]
    pub route_reflector_cluster_id: Option<Ipv4Addr>,
}

/// What an orchestrator calls a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrchRef {
    /// The node's name there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The orchestrator.
    pub orchestrator: String,
}

/// A node's WireGuard addresses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeWireguard {
    /// The interface's IPv4 address.
    #[serde(
        default,
        rename = "interfaceIPv4Address",
        skip_serializing_if = "Option::is_none"
    )]
    pub interface_ipv4_address: Option<Ipv4Addr>,
    /// The interface's IPv6 address.
    #[serde(
        default,
        rename = "interfaceIPv6Address",
        skip_serializing_if = "Option::is_none"
    )]
    pub interface_ipv6_address: Option<Ipv6Addr>,
}

/// An address at which clients reach a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeAddress {
    /// The address, alone or with a prefix length.
    pub address: String,
    /// Whose address it is.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<NodeAddressKind>,
}

/// Whose address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeAddressKind {
    /// The one Calico uses.
    #[serde(rename = "CalicoNodeIP")]
    CalicoNodeIp,
    /// Inside the cluster's network.
    #[serde(rename = "InternalIP")]
    InternalIp,
    /// Reachable from outside.
    #[serde(rename = "ExternalIP")]
    ExternalIp,
}

/// One of a node's network devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeInterface {
    /// The device's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// What a node reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeStatus {
    /// The key of its IPv4 WireGuard interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wireguard_public_key: Option<String>,
    /// The key of its IPv6 WireGuard interface.
    #[serde(
        default,
        rename = "wireguardPublicKeyV6",
        skip_serializing_if = "Option::is_none"
    )]
    pub wireguard_public_key_v6: Option<String>,
    /// The networks that Kubernetes gave it.
    #[serde(default, rename = "podCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<String>,
}

impl Node {
    /// The node's name.
    pub fn name(&self) -> NodeName {
        self.metadata.name.clone().into()
    }

    /// The node's IPv4 address on the network between nodes, with its prefix length.
    pub fn ipv4(&self) -> Option<Ipv4Interface> {
        self.spec.bgp.as_ref()?.ipv4_address
    }

    /// The node's IPv6 address on the network between nodes, with its prefix length.
    pub fn ipv6(&self) -> Option<Ipv6Interface> {
        self.spec.bgp.as_ref()?.ipv6_address
    }

    /// The address of its IP-in-IP tunnel.
    pub fn ipip_tunnel_addr(&self) -> Option<Ipv4Addr> {
        self.spec.bgp.as_ref()?.ipv4_ipip_tunnel_addr
    }

    /// The tunnels' own addresses, which the node's processes send from.
    pub fn tunnel_addrs(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [
            self.ipip_tunnel_addr().map(IpAddr::V4),
            self.spec.ipv4_vxlan_tunnel_addr.map(IpAddr::V4),
            self.spec.ipv6_vxlan_tunnel_addr.map(IpAddr::V6),
        ]
        .into_iter()
        .flatten()
    }

    /// Its addresses on the network between nodes.
    pub fn underlay_addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let own = [
            self.ipv4().map(|interface| IpAddr::V4(interface.0.addr())),
            self.ipv6().map(|interface| IpAddr::V6(interface.0.addr())),
        ];
        own.into_iter().flatten()
    }

    /// All its addresses: on the network between nodes, and its tunnels'.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.underlay_addresses().chain(self.tunnel_addrs())
    }

    /// The inner Ethernet address of its IPv4 VXLAN tunnel end point, given or derived.
    pub fn vtep_mac(&self) -> MacAddr {
        let given = self.spec.vxlan_tunnel_mac_addr;
        given.unwrap_or_else(|| vtep_mac(&self.name()))
    }

    /// The inner Ethernet address of its IPv6 VXLAN tunnel end point, given or derived.
    pub fn vtep_mac_v6(&self) -> MacAddr {
        let given = self.spec.vxlan_tunnel_mac_addr_v6;
        given.unwrap_or_else(|| vtep_mac_v6(&self.name()))
    }

    /// What is wrong beyond single fields' syntax.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.spec.bgp == Some(NodeBgp::default()) {
            faults.push(Fault::new(
                "spec.bgp",
                "Spec.BGP should not be empty",
                "give ipv4Address or ipv6Address, or remove bgp",
            ));
        }
        for (field, mac) in [
            ("spec.vxlanTunnelMACAddr", self.spec.vxlan_tunnel_mac_addr),
            (
                "spec.vxlanTunnelMACAddrV6",
                self.spec.vxlan_tunnel_mac_addr_v6,
            ),
        ] {
            if let Some(mac) = mac.filter(|mac| mac.is_multicast() || *mac == MacAddr::default()) {
                faults.push(Fault::new(
                    field,
                    format!("'{mac}' is no station's address"),
                    "write a unicast address, or remove the field to have it derived",
                ));
            }
        }
        faults
    }
}
