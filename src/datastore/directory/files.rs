//! What a set of files amounts to: which documents count, and what is wrong with the others.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::resources::load::Parsed;
use crate::resources::text::digest;
use crate::resources::{ClusterState, Fault, IpPool, Origin, Problem, Resource, ResourceKey};

/// The resources that are in effect, with the place where each was read, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listing {
    /// The resources.
    pub resources: BTreeMap<ResourceKey, (Resource, Origin)>,
    /// What is wrong, in the order of the files.
    pub problems: Vec<Problem>,
}

/// Files and the documents in each; a broken file keeps what it last said.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<PathBuf, Parsed>,
}

impl Listing {
    /// The resources, indexed.
    pub fn state(&self) -> ClusterState {
        self.resources
            .values()
            .map(|(resource, _)| resource.clone())
            .collect()
    }
}

/// The files of a directory that hold resources, in order.
pub(super) fn list(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let file = directory.join(&name);
        if holds_resources(&name) && !file.is_dir() {
            files.insert(file);
        }
    }
    Ok(files)
}

/// Whether a file of that name is looked at.
pub(super) fn holds_resources(name: &OsStr) -> bool {
    let hidden = name.as_encoded_bytes().starts_with(b".");
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

impl Files {
    /// Takes in what a file says now. If something is wrong with it, resources that it no longer
    /// seems to hold stay: they may be in the part that cannot be read.
    pub fn set(&mut self, file: &Path, mut parsed: Parsed) {
        for (resource, _) in &mut parsed.resources {
            stamp(resource);
        }
        if let Some(before) = self.files.remove(file)
            && !parsed.problems.is_empty()
        {
            let now: BTreeSet<ResourceKey> =
                parsed.resources.iter().map(|(now, _)| now.key()).collect();
            let kept = before.resources.into_iter();
            parsed
                .resources
                .extend(kept.filter(|(before, _)| !now.contains(&before.key())));
        }
        self.files.insert(file.to_owned(), parsed);
    }

    /// Files in which a document is that resource, in order.
    pub fn holding(&self, key: &ResourceKey) -> Vec<PathBuf> {
        let holds = |parsed: &Parsed| parsed.resources.iter().any(|(held, _)| held.key() == *key);
        let holding = self.files.iter().filter(|(_, parsed)| holds(parsed));
        holding.map(|(file, _)| file.clone()).collect()
    }

    /// What is wrong with single documents, and in which file.
    pub fn problems(&self) -> impl Iterator<Item = (&PathBuf, &Problem)> {
        let files = self.files.iter();
        files.flat_map(|(file, parsed)| parsed.problems.iter().map(move |problem| (file, problem)))
    }

    /// Forgets a file.
    pub fn remove(&mut self, file: &Path) {
        self.files.remove(file);
    }

    /// Forgets files that are not there any more.
    pub fn retain(&mut self, present: &BTreeSet<PathBuf>) {
        self.files.retain(|file, _| present.contains(file));
    }

    /// What all files amount to. Where documents exclude each other, what is in effect stays so; of
    /// new ones, the first in the order of the files counts.
    pub fn merge(&self, in_effect: &Listing) -> Listing {
        let mut candidates: Vec<(Rank, &Resource, &Origin)> = self
            .files
            .values()
            .flat_map(|parsed| &parsed.resources)
            .map(|(resource, origin)| (rank(resource, origin, in_effect), resource, origin))
            .collect();
        candidates.sort_by_key(|&(rank, _, origin)| (rank, origin));
        let mut merged = Listing::default();
        for (_, resource, origin) in candidates {
            merged.admit(resource, origin, in_effect);
        }
        let broken = self.files.values().flat_map(|parsed| &parsed.problems);
        merged.problems.extend(broken.cloned());
        merged.problems.sort();
        merged
    }
}

/// Gives a resource the version that follows from its content.
pub(super) fn stamp(resource: &mut Resource) {
    resource.metadata_mut().resource_version = None;
    let content = serde_json::to_vec(resource).unwrap_or_default();
    resource.metadata_mut().resource_version = Some(digest(&content));
}

/// How much a document is in effect already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Unchanged,
    Changed,
    New,
}

fn rank(resource: &Resource, origin: &Origin, in_effect: &Listing) -> Rank {
    match in_effect.resources.get(&resource.key()) {
        Some((before, from)) if from.file == origin.file => match before == resource {
            true => Rank::Unchanged,
            false => Rank::Changed,
        },
        _ => Rank::New,
    }
}

impl Listing {
    fn admit(&mut self, resource: &Resource, origin: &Origin, in_effect: &Listing) {
        let key = resource.key();
        match self.conflict(resource) {
            None => {
                let entry = (resource.clone(), origin.clone());
                self.resources.insert(key, entry);
            }
            Some(fault) => {
                self.problems.push(fault.at(origin.clone()));
                // A refused change leaves what was there, as long as that fits.
                if let Some((before, from)) = in_effect.resources.get(&key)
                    && from.file == origin.file
                    && self.conflict(before).is_none()
                {
                    self.resources.insert(key, (before.clone(), from.clone()));
                }
            }
        }
    }

    /// What keeps a resource from standing beside the others that are in effect.
    pub(super) fn conflict_of(&self, resource: &Resource) -> Option<Fault> {
        let Resource::IpPool(pool) = resource else {
            return None;
        };
        let others = self
            .pools()
            .filter(|other| other.metadata.name != pool.metadata.name);
        others
            .into_iter()
            .find_map(|other| pool.validate_beside(other))
    }

    /// What keeps a resource from standing beside those admitted so far.
    fn conflict(&self, resource: &Resource) -> Option<Fault> {
        if let Some((_, first)) = self.resources.get(&resource.key()) {
            return Some(Fault::new(
                "metadata.name",
                format!("{} is also defined at {first}", resource.key()),
                "give it another name, or remove one of the two",
            ));
        }
        let Resource::IpPool(pool) = resource else {
            return None;
        };
        self.pools().find_map(|other| pool.validate_beside(other))
    }

    fn pools(&self) -> impl Iterator<Item = &IpPool> {
        self.resources
            .values()
            .filter_map(|(other, _)| match other {
                Resource::IpPool(pool) => Some(pool),
                _ => None,
            })
    }
}
