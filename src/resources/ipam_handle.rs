//! IPAMHandle: in which blocks the addresses are that were handed out under one handle.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metadata::Metadata;
use super::name::Name;
use super::problem::Fault;

/// An IPAMHandle: IPAM's own record, which people look at but do not write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpamHandle {
    /// The handle's name; see [`IpamHandle::name_of`].
    pub metadata: Metadata,
    /// What it holds.
    pub spec: IpamHandleSpec,
}

/// A handle's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamHandleSpec {
    /// The handle, as whoever asked for the addresses spells it.
    #[serde(rename = "handleID")]
    pub handle_id: String,
    /// By block: how many of its addresses the handle holds.
    pub block: BTreeMap<String, usize>,
    /// Whether the handle is being deleted.
    #[serde(default)]
    pub deleted: bool,
}

impl IpamHandle {
    /// The name under which a handle is kept: the handle itself, if that is a name; else what is
    /// left of it, and a digest of what it was.
    pub fn name_of(handle: &str) -> Option<Name> {
        if let Ok(name) = handle.parse() {
            return Some(name);
        }
        let plain = |c: char| match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
            _ => '-',
        };
        let left: String = handle.chars().take(200).map(plain).collect();
        let digest = super::text::digest(handle.as_bytes());
        format!("h{}.{digest}", left.trim_end_matches('-'))
            .parse()
            .ok()
    }

    /// What contradicts itself in it.
    pub fn validate(&self) -> Vec<Fault> {
        if Self::name_of(&self.spec.handle_id).as_ref() == Some(&self.metadata.name) {
            return Vec::new();
        }
        vec![Fault::new(
            "metadata.name",
            format!("is not the name of the handle '{}'", self.spec.handle_id),
            "restore it from a backup",
        )]
    }
}
