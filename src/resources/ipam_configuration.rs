//! IPAMConfiguration: how nodes come by blocks and addresses.

use serde::{Deserialize, Serialize};

use super::felix_configuration::Switch;
use super::metadata::Metadata;
use super::name::Name;
use super::problem::Fault;

/// An IPAMConfiguration resource; the one named `default` is in effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpamConfiguration {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: IpamConfigurationSpec,
}

/// How nodes come by blocks and addresses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IpamConfigurationSpec {
    /// Whether a node takes addresses from its own blocks only.
    pub strict_affinity: bool,
    /// Whether a node claims blocks as it needs them.
    pub auto_allocate_blocks: bool,
    /// The most blocks a node may have; 0 leaves it at Calico's default, see
    /// [`IpamConfigurationSpec::block_limit`].
    #[serde(skip_serializing_if = "is_zero")]
    pub max_blocks_per_host: i64,
    /// Whether KubeVirt's machines keep their addresses. Kept, not acted on.
    #[serde(
        rename = "kubeVirtVMAddressPersistence",
        skip_serializing_if = "Option::is_none"
    )]
    pub kube_virt_vm_address_persistence: Option<Switch>,
    /// The least age in seconds of a released address before it is assigned again.
    #[serde(
        rename = "minIPReclaimAgeSeconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub min_ip_reclaim_age_seconds: Option<u32>,
}

/// The most blocks a node may have where nothing else is said.
const BLOCKS_PER_HOST: usize = 20;
/// The most that can be asked for.
const BLOCKS_PER_HOST_MAX: i64 = 1_000_000;

impl Default for IpamConfigurationSpec {
    fn default() -> Self {
        Self {
            strict_affinity: false,
            auto_allocate_blocks: true,
            max_blocks_per_host: 0,
            kube_virt_vm_address_persistence: None,
            min_ip_reclaim_age_seconds: None,
        }
    }
}

impl IpamConfigurationSpec {
    /// The most blocks a node may have: as given, or 20.
    pub fn block_limit(&self) -> usize {
        match usize::try_from(self.max_blocks_per_host) {
            Ok(0) | Err(_) => BLOCKS_PER_HOST,
            Ok(most) => most,
        }
    }
}

impl IpamConfiguration {
    /// What is wrong beyond single fields' syntax, in the words of Calico's validation.
    pub fn validate(&self) -> Vec<Fault> {
        let most = self.spec.max_blocks_per_host;
        let mut faults = Vec::new();
        if self.metadata.name != Name::default_name() {
            faults.push(Fault::new(
                "metadata.name",
                "IPAM config resource name must be 'default'",
                "write name: default: no other is in effect",
            ));
        }
        if most < 0 {
            faults.push(Fault::new(
                "spec.maxBlocksPerHost",
                "must be greater than or equal to 0",
                "write 0 for no limit of your own",
            ));
        }
        if most > BLOCKS_PER_HOST_MAX {
            faults.push(Fault::new(
                "spec.maxBlocksPerHost",
                format!("{most} is too many"),
                format!("write at most {BLOCKS_PER_HOST_MAX}"),
            ));
        }
        faults
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]
fn is_zero(number: &i64) -> bool {
    *number == 0
}
