//! IPPool: addresses for workloads, and how packets to them travel between nodes.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::json::Json;
use super::metadata::Metadata;
use super::net::Cidr;
use super::problem::Fault;
use super::selector::Selector;

/// An IPPool resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpPool {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    pub spec: IpPoolSpec,
    /// What the cluster reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Json>,
}

/// A pool's addresses and mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpPoolSpec {
    /// The pool's addresses.
    pub cidr: Cidr,
    /// When packets to these addresses are tunnelled in IP-in-IP.
    #[serde(default)]
    pub ipip_mode: EncapMode,
    /// When packets to these addresses are tunnelled in VXLAN.
    #[serde(default)]
    pub vxlan_mode: EncapMode,
    /// The prefix length of the blocks that nodes get; see [`IpPool::block_size`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// Whether packets to the world outside the pools leave with the node's address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nat_outgoing: bool,
    /// Whether new addresses are no longer handed out. Those in use are routed as before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Whether BGP keeps silent about the pool.
    #[serde(
        default,
        rename = "disableBGPExport",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub disable_bgp_export: bool,
    /// The nodes that may use the pool.
    #[serde(default = "Selector::all")]
    pub node_selector: Selector,
    /// The namespaces that may use the pool.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub namespace_selector: Selector,
    /// What the addresses are for.
    #[serde(default = "workloads_and_tunnels")]
    pub allowed_uses: Vec<AllowedUse>,
    /// Whether addresses are taken from the pool without being asked for by name.
    #[serde(default)]
    pub assignment_mode: AssignmentMode,
}

/// When packets to a pool's addresses are tunnelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EncapMode {
    /// Never.
    #[default]
    Never,
    /// To every other node.
    Always,
    /// To nodes outside the sender's subnet.
    CrossSubnet,
}

/// What a pool's addresses are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AllowedUse {
    /// Workloads.
    Workload,
    /// Nodes' tunnel addresses.
    Tunnel,
    /// Services of type LoadBalancer.
    LoadBalancer,
}

/// Whether addresses are taken from a pool without being asked for by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AssignmentMode {
    /// Yes.
    #[default]
    Automatic,
    /// No.
    Manual,
}

const LINK_LOCAL_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);
const LINK_LOCAL_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

impl IpPool {
    /// The pool's addresses.
    pub fn cidr(&self) -> IpNet {
        self.spec.cidr.net()
    }

    /// The prefix length of the pool's blocks: as given, or Calico's 26 (IPv6: 122).
    pub fn block_size(&self) -> u8 {
        let default = if self.is_ipv4() { 26 } else { 122 };
        self.spec.block_size.unwrap_or(default)
    }

    /// Writes out what follows from the rest, as Calico does when a pool is stored.
    pub fn fill_defaults(&mut self) {
        self.spec.block_size = Some(self.block_size());
        if self.spec.node_selector.is_empty() {
            self.spec.node_selector = Selector::all();
        }
        if self.spec.allowed_uses.is_empty() {
            self.spec.allowed_uses = workloads_and_tunnels();
        }
    }

    /// What is wrong beyond single fields' syntax, in the words of Calico's validation.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.validate_modes(&mut faults);
        self.validate_block_size(&mut faults);
        self.validate_cidr(&mut faults);
        self.validate_uses(&mut faults);
        faults
    }

    /// What is wrong with having this pool beside another one.
    pub fn validate_beside(&self, other: &IpPool) -> Option<Fault> {
        self.spec.cidr.overlaps(other.cidr()).then(|| {
            Fault::new(
                "spec.cidr",
                format!(
                    "IPPool({}) CIDR overlaps with IPPool({}) CIDR {}",
                    self.metadata.name, other.metadata.name, other.spec.cidr
                ),
                "give the pool a CIDR that no other pool shares an address with",
            )
        })
    }

    /// Whether its addresses are IPv4.
    pub fn is_ipv4(&self) -> bool {
        matches!(self.cidr(), IpNet::V4(_))
    }

    fn validate_modes(&self, faults: &mut Vec<Fault>) {
        let ipip = self.spec.ipip_mode != EncapMode::Never;
        if ipip && self.spec.vxlan_mode != EncapMode::Never {
            faults.push(Fault::new(
                "spec.ipipMode",
                "ipipMode and vxlanMode cannot both be enabled on the same IP pool",
                "set one of them to Never",
            ));
        }
        if ipip && !self.is_ipv4() {
            faults.push(Fault::new(
                "spec.ipipMode",
                "ipipMode is not supported on an IPv6 IP pool",
                "write Never, and choose a vxlanMode if packets must be tunnelled",
            ));
        }
    }

    fn validate_block_size(&self, faults: &mut Vec<Fault>) {
        let (family, least, most) = match self.is_ipv4() {
            true => ("IPv4", 20, 32),
            false => ("IPv6", 116, 128),
        };
        let size = self.block_size();
        if !(least..=most).contains(&size) {
            faults.push(Fault::new(
                "spec.blockSize",
                format!("{family} block size must be between {least} and {most}, not {size}"),
                format!("write a prefix length from {least} to {most}"),
            ));
        } else if self.cidr().prefix_len() > size && !self.spec.disabled {
            faults.push(Fault::new(
                "spec.cidr",
                "IP pool size is too small for use with Calico IPAM: \
                 it must be equal to or greater than the block size",
                format!(
                    "write a CIDR of /{size} or larger, or a blockSize of {} or more",
                    self.cidr().prefix_len()
                ),
            ));
        }
    }

    fn validate_cidr(&self, faults: &mut Vec<Fault>) {
        let (reserved, text): (IpNet, _) = match self.is_ipv4() {
            true => (LINK_LOCAL_V4.into(), "IPv4 Link Local range 169.254.0.0/16"),
            false => (LINK_LOCAL_V6.into(), "IPv6 Link Local range fe80::/10"),
        };
        if self.spec.cidr.overlaps(reserved) {
            faults.push(Fault::new(
                "spec.cidr",
                format!("IP pool range overlaps with {text}"),
                "write a CIDR outside that range",
            ));
        }
    }

    fn validate_uses(&self, faults: &mut Vec<Fault>) {
        let uses = &self.spec.allowed_uses;
        if uses.contains(&AllowedUse::LoadBalancer)
            && uses.iter().any(|&other| other != AllowedUse::LoadBalancer)
        {
            faults.push(Fault::new(
                "spec.allowedUses",
                "LoadBalancer cannot be combined with Workload or Tunnel",
                "make a pool of its own for load balancers",
            ));
        }
        let load_balancer = uses.contains(&AllowedUse::LoadBalancer);
        if load_balancer && self.spec.node_selector.canonical() != "all()" {
            faults.push(Fault::new(
                "spec.nodeSelector",
                "IP Pool with AllowedUse LoadBalancer must have node selector set to all()",
                "write all()",
            ));
        }
        let tunnelled = [self.spec.ipip_mode, self.spec.vxlan_mode] != [EncapMode::Never; 2];
        if load_balancer && tunnelled {
            faults.push(Fault::new(
                "spec.ipipMode",
                "Neither IPIPMode nor VXLANMode can be enabled on AllowedUses LoadBalancer IP pool",
                "write Never for both",
            ));
        }
    }
}

fn workloads_and_tunnels() -> Vec<AllowedUse> {
    vec![AllowedUse::Workload, AllowedUse::Tunnel]
}
