//! IPAMBlock: which addresses of a block are in use, by whom.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::metadata::Metadata;
use super::net::Cidr;
use super::problem::Fault;

/// An IPAMBlock: IPAM's own record, which people look at but do not write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpamBlock {
    /// The block's name: its CIDR, with `-` for every other character.
    pub metadata: Metadata,
    /// The addresses.
    pub spec: IpamBlockSpec,
}

/// A block's addresses, as Calico's AllocationBlock has them (libcalico-go
/// `lib/backend/model/block.go`). An address is told by its ordinal: how far into the block it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IpamBlockSpec {
    /// The block.
    pub cidr: Cidr,
    /// Whose block it is: `host:NODE`, `virtual:NAME`, or nobody's.
    #[serde(default)]
    pub affinity: Option<String>,
    /// When it became so (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_claim_time: Option<String>,
    /// By ordinal: the index of the attributes of an address in use; nothing for a free one.
    pub allocations: Vec<Option<usize>>,
    /// The ordinals of free addresses, in the order in which they are handed out.
    pub unallocated: Vec<usize>,
    /// Whose the addresses in use are.
    #[serde(default)]
    pub attributes: Vec<AllocationAttribute>,
    /// How often the block was written.
    #[serde(default, rename = "sequenceNumber")]
    pub sequence_number: u64,
    /// By ordinal in decimal: the block's sequence number when the address was handed out.
    #[serde(default, rename = "sequenceNumberForAllocation")]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// Whether the block is being deleted.
    #[serde(default)]
    pub deleted: bool,
    /// The node, as old versions of Calico wrote it.
    #[serde(
        default,
        rename = "hostAffinity",
        skip_serializing_if = "Option::is_none"
    )]
    pub host_affinity: Option<String>,
    /// A flag of old versions of Calico.
    #[serde(
        default,
        rename = "strictAffinity",
        skip_serializing_if = "Option::is_none"
    )]
    pub strict_affinity: Option<bool>,
}

/// Whose an address is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationAttribute {
    /// The handle by which the address is released.
    #[serde(default)]
    pub handle_id: Option<String>,
    /// More about the owner: `node`, `namespace`, `pod`, `type`, `timestamp`.
    #[serde(default)]
    pub secondary: Option<BTreeMap<String, String>>,
    /// About a former or future owner, during a live migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternate: Option<BTreeMap<String, String>>,
}

impl AllocationAttribute {
    /// The node on whose behalf the address was handed out.
    pub fn node(&self) -> Option<&str> {
        self.detail("node")
    }

    /// What is said of the owner under a key.
    pub fn detail(&self, key: &str) -> Option<&str> {
        self.secondary.as_ref()?.get(key).map(String::as_str)
    }
}

impl IpamBlock {
    /// How many addresses the block has.
    pub fn size(&self) -> usize {
        let cidr = self.spec.cidr.net();
        let bits = cidr.max_prefix_len() - cidr.prefix_len();
        1_usize.checked_shl(bits.into()).unwrap_or(usize::MAX)
    }

    /// The node whose block it is.
    pub fn host(&self) -> Option<&str> {
        match &self.spec.affinity {
            Some(affinity) => affinity.strip_prefix("host:"),
            None => self.spec.host_affinity.as_deref(),
        }
    }

    /// The address of an ordinal.
    pub fn address(&self, ordinal: usize) -> IpAddr {
        let offset = u128::try_from(ordinal).unwrap_or(0);
        match self.spec.cidr.net().network() {
            IpAddr::V4(base) => {
                let offset = u32::try_from(offset).unwrap_or(0);
                IpAddr::V4(u32::from(base).wrapping_add(offset).into())
            }
            IpAddr::V6(base) => IpAddr::V6(u128::from(base).wrapping_add(offset).into()),
        }
    }

    /// The ordinal of an address, if it is in the block.
    pub fn ordinal(&self, address: IpAddr) -> Option<usize> {
        if !self.spec.cidr.net().contains(&address) {
            return None;
        }
        match (self.spec.cidr.net().network(), address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                usize::try_from(u32::from(address) - u32::from(base)).ok()
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                usize::try_from(u128::from(address) - u128::from(base)).ok()
            }
            _ => None,
        }
    }

    /// Whose the address of an ordinal is; nothing for a free one.
    pub fn owner(&self, ordinal: usize) -> Option<&AllocationAttribute> {
        let index = (*self.spec.allocations.get(ordinal)?)?;
        self.spec.attributes.get(index)
    }

    /// The ordinals in use.
    pub fn in_use(&self) -> impl Iterator<Item = usize> {
        let allocations = self.spec.allocations.iter().enumerate();
        allocations.filter_map(|(ordinal, index)| index.map(|_| ordinal))
    }

    /// What contradicts itself in it.
    pub fn validate(&self) -> Vec<Fault> {
        let spec = &self.spec;
        let mut faults = Vec::new();
        let mut fault = |field: &str, reason: String| {
            faults.push(Fault::new(field, reason, "restore it from a backup"));
        };
        let (least, most) = match spec.cidr.net().max_prefix_len() {
            32 => (20, 32),
            _ => (116, 128),
        };
        if !(least..=most).contains(&spec.cidr.net().prefix_len()) {
            fault("spec.cidr", format!("{} is not a block", spec.cidr));
            return faults;
        }
        let size = self.size();
        if spec.allocations.len() != size {
            let length = spec.allocations.len();
            let reason = format!("{length} entries for a block of {size} addresses");
            fault("spec.allocations", reason);
        }
        let indices = spec.allocations.iter().flatten();
        if let Some(index) = indices.copied().find(|&i| i >= spec.attributes.len()) {
            let reason = format!("attributes {index} are missing");
            fault("spec.allocations", reason);
        }
        if let Some(ordinal) = spec.unallocated.iter().find(|&&ordinal| ordinal >= size) {
            let reason = format!("{ordinal} is outside the block");
            fault("spec.unallocated", reason);
        }
        faults
    }
}
