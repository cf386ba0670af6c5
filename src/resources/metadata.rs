//! What every resource carries beside its spec.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::json::Json;
use super::name::Name;
use super::problem::Fault;

/// Kubernetes' object metadata, as Calico uses it.
///
/// Fields that a cluster's API server writes are accepted and kept, so that what
/// `kubectl get -o yaml` or `calicoctl get -o yaml` prints can be used as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The name, unique within the kind (and the namespace, if the kind has them).
    pub name: Name,
    /// The namespace, of namespaced kinds only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// What selectors look at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Notes that nothing selects by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What tells it from an earlier one of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The datastore's revision, which a writer must know to replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// How often the spec changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When it was created, as the datastore wrote it (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// When it is to be deleted, as the datastore wrote it (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Seconds until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_grace_period_seconds: Option<i64>,
    /// The stem of a generated name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    /// Who must agree before it goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
    /// A path that older API servers wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_link: Option<String>,
    /// Whose child it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
    /// Who set which field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_fields: Option<Json>,
}

/// Whose child an object is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnerReference {
    /// The owner's group and version.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's identifier.
    pub uid: String,
    /// Whether the owner is the one that manages it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether the owner waits for it to go first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// The most bytes that all annotations may have together.
const ANNOTATIONS_MAX: usize = 256 << 10;
/// The most characters of a label's value and of a key's name.
const LABEL_MAX: usize = 63;
/// The most characters of a key's prefix.
const PREFIX_MAX: usize = 253;

impl Metadata {
    /// A name and nothing else.
    pub fn named(name: Name) -> Self {
        Self {
            name,
            namespace: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            uid: None,
            resource_version: None,
            generation: None,
            creation_timestamp: None,
            deletion_timestamp: None,
            deletion_grace_period_seconds: None,
            generate_name: None,
            finalizers: Vec::new(),
            self_link: None,
            owner_references: Vec::new(),
            managed_fields: None,
        }
    }

    /// Forgets what one cluster says of it, as `--export` does, so that another can take it.
    pub fn strip_cluster(&mut self) {
        *self = Self {
            namespace: self.namespace.take(),
            labels: std::mem::take(&mut self.labels),
            annotations: std::mem::take(&mut self.annotations),
            ..Self::named(self.name.clone())
        };
    }

    /// What is wrong with labels and annotations.
    pub(super) fn check(&self, faults: &mut Vec<Fault>) {
        check_labels(faults, "metadata.labels", &self.labels);
        check_annotations(faults, "metadata.annotations", &self.annotations);
    }
}

/// What is wrong with labels, as Kubernetes has it.
pub(super) fn check_labels(
    faults: &mut Vec<Fault>,
    field: &str,
    labels: &BTreeMap<String, String>,
) {
    for (key, value) in labels {
        check_key(faults, field, key);
        if let Some(reason) = label_value_error(value) {
            faults.push(Fault::new(
                field,
                format!("the value '{value}' of {key} {reason}"),
                "write at most 63 letters, digits, '-', '_' and '.', \
                 with a letter or digit at each end, or nothing",
            ));
        }
    }
}

/// What is wrong with annotations, as Kubernetes has it.
pub(super) fn check_annotations(
    faults: &mut Vec<Fault>,
    field: &str,
    annotations: &BTreeMap<String, String>,
) {
    let mut size = 0;
    for (key, value) in annotations {
        check_key(faults, field, &key.to_lowercase());
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_MAX {
        faults.push(Fault::new(
            field,
            format!(
                "total size of annotations is too large by {} bytes",
                size - ANNOTATIONS_MAX
            ),
            format!("write at most {ANNOTATIONS_MAX}"),
        ));
    }
}

fn check_key(faults: &mut Vec<Fault>, field: &str, key: &str) {
    if !is_key(key) {
        faults.push(Fault::new(
            field,
            format!("'{key}' is not a key"),
            "write a name such as role, or one after a DNS name, such as example.com/role",
        ));
    }
}

/// Whether a text is a key of labels (Kubernetes' `IsQualifiedName`).
pub fn is_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_fits =
        prefix.is_none_or(|prefix| prefix.len() <= PREFIX_MAX && prefix.parse::<Name>().is_ok());
    prefix_fits && (1..=LABEL_MAX).contains(&name.len()) && is_word(name)
}

/// Why a text is not a label's value; nothing if it is one (Kubernetes' `IsValidLabelValue`).
pub fn label_value_error(value: &str) -> Option<&'static str> {
    if value.len() > LABEL_MAX {
        Some("must be no more than 63 characters")
    } else if !value.is_empty() && !is_word(value) {
        Some("has characters that labels may not have")
    } else {
        None
    }
}

fn is_word(text: &str) -> bool {
    let inner = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    let outer = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    outer(bytes.first()) && outer(bytes.last()) && bytes.iter().all(inner)
}
