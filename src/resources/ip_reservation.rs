//! IPReservation: addresses of pools that are never assigned.

use serde::{Deserialize, Serialize};

use super::metadata::Metadata;
use super::net::Network;
use super::problem::Fault;

/// An IPReservation resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpReservation {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: IpReservationSpec,
}

/// The addresses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpReservationSpec {
    /// Addresses and networks that are not assigned without being asked for by name.
    #[serde(
        default,
        rename = "reservedCIDRs",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub reserved_cidrs: Vec<Network>,
}

impl IpReservation {
    /// What is wrong beyond single fields' syntax: nothing can be.
    pub fn validate(&self) -> Vec<Fault> {
        Vec::new()
    }
}
