//! A directory of YAML files as a datastore.
//!
//! People write files of many documents, programs write through [`Datastore`]. What is written goes
//! where the resource is already: its document is replaced in its file, the other documents, the
//! comments before it and the file's rights stay as they are. A new resource gets a file of its own,
//! `<kind>_[<namespace>_]<name>.yaml`. A file is replaced as a whole (written beside, synced, renamed
//! over), so that nobody ever sees half of one; writers exclude each other by a lock on `.lock`.
//!
//! A resource's version follows from its content. The same content has the same version again, which
//! is harmless: whoever compares versions has decided by the content.

mod edit;
mod files;
mod patch;
mod store;
mod watcher;
mod write;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::interface::{Datastore, Health, List, Result, Selection};
use super::{DatastoreError, Watch};
use crate::resources::{Problem, Resource, ResourceKey, load};

use files::Files;
pub use files::Listing;
use store::{REMEDY, Store, UNREADABLE};

/// A directory of files named `*.yaml`, `*.yml` or `*.json`, each of one or many documents.
///
/// Hidden files and subdirectories are not looked at.
#[derive(Clone)]
pub struct Directory {
    path: PathBuf,
    store: Arc<Mutex<Store>>,
}

impl Directory {
    /// A directory at a path; nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            store: Arc::new(Mutex::new(Store::new(&path))),
            path,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the directory once. A directory that cannot be read is a problem of an empty listing.
    pub fn load(&self) -> Listing {
        let mut files = Files::default();
        match files::list(&self.path) {
            Ok(present) => {
                for file in &present {
                    files.set(file, load::read(file));
                }
                files.merge(&Listing::default())
            }
            Err(error) => Listing {
                problems: vec![self.unreadable(&error)],
                ..Listing::default()
            },
        }
    }

    fn unreadable(&self, error: &io::Error) -> Problem {
        Problem::with_file(&self.path, format!("{UNREADABLE}: {error}"), REMEDY)
    }

    /// Works on what the directory holds now. Whoever panicked under the lock left nothing half done
    /// that the next reading would not mend.
    fn with<T>(&self, work: impl FnOnce(&mut Store) -> Result<T>) -> Result<T> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut store)
    }
}

impl Datastore for Directory {
    fn get(&self, key: &ResourceKey) -> Result<Resource> {
        self.with(|store| store.get(key))
    }

    fn list(&self, selection: &Selection) -> Result<List> {
        self.with(|store| store.list(selection))
    }

    fn create(&self, resource: &Resource) -> Result<Resource> {
        self.with(|store| store.create(resource))
    }

    fn update(&self, resource: &Resource) -> Result<Resource> {
        self.with(|store| store.update(resource))
    }

    fn delete(&self, key: &ResourceKey, version: Option<&str>) -> Result<Resource> {
        self.with(|store| store.delete(key, version))
    }

    /// A file that becomes broken, a document that contradicts another, and a directory that goes
    /// away leave in effect what was so before, and are told as problems.
    fn watch(&self, selection: &Selection, since: Option<&List>) -> Result<Watch> {
        let told = since.map_or_else(Listing::default, |list| Listing {
            resources: list.items.clone(),
            problems: list.problems.clone(),
        });
        watcher::start(self, selection, told).map_err(|error| DatastoreError::Unavailable {
            place: self.path.display().to_string(),
            reason: format!("{UNREADABLE}: {error}; {REMEDY}"),
        })
    }

    fn health(&self) -> Health {
        let wrong = match files::list(&self.path) {
            Ok(_) => None,
            Err(error) => Some(format!("{UNREADABLE}: {error}")),
        };
        self.store
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .health(wrong)
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Directory").field(&self.path).finish()
    }
}
