//! Why a datastore did not do what it was asked, in Calico's words.

use std::io;
use std::path::Path;

use crate::resources::{Problem, ResourceKey};

/// Why a datastore did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatastoreError {
    /// A resource of that kind and name is there.
    #[error("resource already exists: {0}")]
    AlreadyExists(ResourceKey),
    /// No resource of that kind and name is there.
    #[error("resource does not exist: {0}")]
    DoesNotExist(ResourceKey),
    /// The resource is another than the one that the change was made from: somebody else changed it
    /// meanwhile. Get it again, and change that.
    #[error("update conflict: {0}")]
    Conflict(ResourceKey),
    /// The resource cannot stand beside those that are there.
    #[error("{key}: {reason}")]
    Refused {
        /// The resource.
        key: ResourceKey,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// What is kept under that key cannot be read as a resource. The next write repairs it.
    #[error("{0}")]
    Corrupt(Box<Problem>),
    /// The datastore itself cannot be used, now or with this configuration. Whether a write that was
    /// under way took effect is not known.
    #[error("{place}: {reason}")]
    Unavailable {
        /// Which datastore.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl DatastoreError {
    /// A file or directory that could not be used, and what was being done to it.
    pub(super) fn io(path: &Path, doing: &str, error: &io::Error) -> Self {
        Self::Unavailable {
            place: path.display().to_string(),
            reason: format!("{doing}: {error}"),
        }
    }
}
