//! What every datastore can do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::{DatastoreError, Watch};
use crate::resources::{Kind, Name, NodeName, Origin, Problem, Resource, ResourceKey};

/// What the operations of a datastore give.
pub type Result<T> = std::result::Result<T, DatastoreError>;

/// Where resources are kept: by whoever, and for however many nodes.
///
/// Every resource that comes out of a datastore has a `metadata.resourceVersion`, an opaque text that
/// is another one whenever the resource is. Whoever changes a resource hands that version back, and
/// gets [`DatastoreError::Conflict`] if somebody else was faster. All operations wait for their end,
/// at most some seconds; none is for the packet path.
pub trait Datastore: Send + Sync {
    /// One resource.
    fn get(&self, key: &ResourceKey) -> Result<Resource>;

    /// The resources that are selected, all of one moment.
    fn list(&self, selection: &Selection) -> Result<List>;

    /// Adds a resource that is not there yet, and gives it with its version.
    fn create(&self, resource: &Resource) -> Result<Resource>;

    /// Changes a resource that is there, and gives it with its new version. If the given one has a
    /// version, what is there must have the same; if it has none, it is replaced whatever it is.
    fn update(&self, resource: &Resource) -> Result<Resource>;

    /// Removes a resource, and gives what was there. With a version, what is there must have it.
    fn delete(&self, key: &ResourceKey, version: Option<&str>) -> Result<Resource>;

    /// Tells what is selected and then what changes in it. With a list, only what is other than in
    /// that list.
    ///
    /// The watch goes on whatever becomes of the datastore: while that is away, its reader is told so
    /// by [`super::Update::Problems`], and what it knows stays in effect.
    fn watch(&self, selection: &Selection, since: Option<&List>) -> Result<Watch>;

    /// How the datastore is.
    fn health(&self) -> Health;

    /// Says that a node is alive, until what it gives is dropped or the process ends; nothing where
    /// the datastore cannot tell.
    fn announce(&self, _node: &NodeName) -> Option<Presence> {
        None
    }

    /// The nodes that say that they are alive; nothing where the datastore cannot tell.
    fn present(&self) -> Result<Option<BTreeSet<NodeName>>> {
        Ok(None)
    }

    /// Creates a resource, or replaces the one that is there.
    fn apply(&self, resource: &Resource) -> Result<Resource> {
        loop {
            match self.update(resource) {
                Err(DatastoreError::DoesNotExist(_)) => match self.create(resource) {
                    Err(DatastoreError::AlreadyExists(_)) => {}
                    created => return created,
                },
                updated => return updated,
            }
        }
    }
}

/// Which resources are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    kinds: Option<BTreeSet<Kind>>,
    namespace: Option<Name>,
    prefix: String,
}

/// Resources of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct List {
    /// The resources, each with its version, and where each is kept.
    pub items: BTreeMap<ResourceKey, (Resource, Origin)>,
    /// What is kept there, but cannot be read as a resource.
    pub problems: Vec<Problem>,
    /// The datastore's own name for the moment.
    pub revision: String,
}

/// How a datastore is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Which datastore: `directory /etc/underpass/datastore`, `etcd http://10.0.0.1:2379`.
    pub place: String,
    /// Whether it answers.
    pub connected: bool,
    /// Since when it does, or does not.
    pub since: SystemTime,
    /// What is wrong with it.
    pub wrong: Option<String>,
}

/// A node's word that it is alive; dropping it takes it back.
pub struct Presence(Option<Box<dyn FnOnce() + Send>>);

impl Presence {
    /// A word that is taken back so.
    pub(super) fn new(take_back: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(take_back)))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(take_back) = self.0.take() {
            take_back();
        }
    }
}

impl Selection {
    /// Everything, IPAM's own records among it.
    pub fn everything() -> Self {
        Self::default()
    }

    /// All resources that people write and nodes act on: everything but IPAM's own records.
    pub fn resources() -> Self {
        let kinds = Kind::ALL.iter().copied();
        Self::kinds(kinds.filter(|kind| !kind.is_ipam_record()))
    }

    /// All of one kind.
    pub fn kind(kind: Kind) -> Self {
        Self::kinds([kind])
    }

    /// All of some kinds.
    pub fn kinds(kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self {
            kinds: Some(kinds.into_iter().collect()),
            ..Self::default()
        }
    }

    /// Of these, the ones in a namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: Name) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Of these, the ones whose names begin so.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Whether a resource is meant.
    pub fn has(&self, key: &ResourceKey) -> bool {
        self.has_kind(key.kind)
            && (self.namespace.is_none() || self.namespace == key.namespace)
            && key.name.as_str().starts_with(&self.prefix)
    }

    /// Whether resources of a kind may be meant.
    pub fn has_kind(&self, kind: Kind) -> bool {
        self.kinds
            .as_ref()
            .is_none_or(|kinds| kinds.contains(&kind))
    }
}

impl List {
    /// The resources alone.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.items.values().map(|(resource, _)| resource)
    }
}
