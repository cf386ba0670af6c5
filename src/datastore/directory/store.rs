//! Reading and changing single resources of a directory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::edit;
use super::files::{self, Files, Listing, stamp};
use super::write::{Lock, replace};
use crate::datastore::DatastoreError;
use crate::datastore::interface::{Health, List, Result, Selection};
use crate::datastore::metadata;
use crate::resources::text::digest;
use crate::resources::{Problem, Resource, ResourceKey, load};

/// A directory, and what was read of it so far.
pub(super) struct Store {
    path: PathBuf,
    files: Files,
    /// What each file that was read looked like then.
    seen: BTreeMap<PathBuf, Seen>,
    /// Since when the directory is as it is, and whether that is readable.
    state: Option<(bool, SystemTime)>,
}

/// What tells a file's content from another, as long as it was not written just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Files that were changed less than this ago may be changed again without looking other.
const SETTLED: Duration = Duration::from_millis(100);

pub(super) const UNREADABLE: &str = "the datastore's directory cannot be read";

/// What helps against that.
pub(super) const REMEDY: &str = "create it, or name another";

/// A directory whose files come and go while it is read is read again, so often.
const ATTEMPTS: usize = 20;

impl Store {
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            files: Files::default(),
            seen: BTreeMap::new(),
            state: None,
        }
    }

    pub fn get(&mut self, key: &ResourceKey) -> Result<Resource> {
        let listing = self.read()?;
        if let Some((resource, _)) = listing.resources.get(key) {
            return Ok(resource.clone());
        }
        match self.broken(key) {
            Some((_, problem)) => Err(DatastoreError::Corrupt(Box::new(problem))),
            None => Err(DatastoreError::DoesNotExist(key.clone())),
        }
    }

    pub fn list(&mut self, selection: &Selection) -> Result<List> {
        let mut listing = self.read()?;
        listing.resources.retain(|key, _| selection.has(key));
        let versions: Vec<u8> = listing
            .resources
            .iter()
            .flat_map(|(key, (resource, _))| {
                let version = resource.metadata().resource_version.as_deref();
                format!("{key} {}\n", version.unwrap_or("")).into_bytes()
            })
            .collect();
        Ok(List {
            items: listing.resources,
            problems: listing.problems,
            revision: digest(&versions),
        })
    }

    pub fn create(&mut self, resource: &Resource) -> Result<Resource> {
        let _lock = Lock::take(&self.path)?;
        let listing = self.read()?;
        let key = resource.key();
        if listing.resources.contains_key(&key) {
            return Err(DatastoreError::AlreadyExists(key));
        }
        let mut resource = resource.clone();
        metadata::created(&mut resource);
        self.put(&listing, resource)
    }

    pub fn update(&mut self, resource: &Resource) -> Result<Resource> {
        let _lock = Lock::take(&self.path)?;
        let listing = self.read()?;
        let key = resource.key();
        let Some((before, _)) = listing.resources.get(&key) else {
            return Err(DatastoreError::DoesNotExist(key));
        };
        same_version(before, resource.metadata().resource_version.as_deref())?;
        let mut resource = resource.clone();
        metadata::updated(&mut resource, before);
        self.put(&listing, resource)
    }

    pub fn delete(&mut self, key: &ResourceKey, version: Option<&str>) -> Result<Resource> {
        let _lock = Lock::take(&self.path)?;
        let listing = self.read()?;
        let Some((before, _)) = listing.resources.get(key) else {
            return Err(DatastoreError::DoesNotExist(key.clone()));
        };
        same_version(before, version)?;
        // A second document of that key must not take the first one's place.
        for file in self.files.holding(key) {
            let text = read_text(&file)?;
            match edit::remove(&text, key) {
                Ok(left) => replace(&self.path, &file, left.as_deref())?,
                Err(reason) => return Err(refused(key, &file, reason)),
            }
        }
        Ok(before.clone())
    }

    /// How the directory is, given what is wrong with it now.
    pub fn health(&mut self, wrong: Option<String>) -> Health {
        let connected = wrong.is_none();
        let since = match self.state {
            Some((before, since)) if before == connected => since,
            _ => SystemTime::now(),
        };
        self.state = Some((connected, since));
        Health {
            place: format!("directory {}", self.path.display()),
            connected,
            since,
            wrong,
        }
    }

    /// Writes a resource where it is, or where it belongs; the lock is held.
    fn put(&mut self, listing: &Listing, mut resource: Resource) -> Result<Resource> {
        let key = resource.key();
        if let Some(fault) = listing.conflict_of(&resource) {
            let reason = format!("{}; {}", fault.reason, fault.remedy);
            return Err(DatastoreError::Refused { key, reason });
        }
        resource.metadata_mut().resource_version = None;
        let file = match listing.resources.get(&key) {
            Some((_, origin)) => origin.file.to_path_buf(),
            None => match self.broken(&key) {
                Some((file, _)) => file,
                None => self.path.join(own_file(&key)),
            },
        };
        let text = match fs::symlink_metadata(&file) {
            Ok(metadata) if metadata.is_symlink() => {
                let reason = "the file is a link; change the file that it leads to".to_owned();
                return Err(refused(&key, &file, reason));
            }
            Ok(_) => read_text(&file)?,
            Err(_) => String::new(),
        };
        let json = file
            .extension()
            .is_some_and(|extension| extension == "json");
        let own = file == self.path.join(own_file(&key));
        match edit::put(&text, &resource, json, own) {
            Ok(text) => replace(&self.path, &file, Some(&text))?,
            Err(reason) => return Err(refused(&key, &file, reason)),
        }
        stamp(&mut resource);
        Ok(resource)
    }

    /// Reads what changed since the last time. A file that is there but cannot be read fails it all:
    /// what it holds would seem not to exist.
    fn read(&mut self) -> Result<Listing> {
        let path = self.path.clone();
        let failed = |error: io::Error| DatastoreError::Unavailable {
            place: path.display().to_string(),
            reason: format!("{UNREADABLE}: {error}; {REMEDY}"),
        };
        let mut vanished = true;
        for _ in 0..ATTEMPTS {
            let present = files::list(&self.path).map_err(failed)?;
            self.files.retain(&present);
            vanished = false;
            for file in &present {
                let Some(now) = Seen::look(file) else {
                    // A link that leads nowhere holds nothing; what cannot be looked at may hold much.
                    if let Err(error) = fs::metadata(file)
                        && error.kind() != io::ErrorKind::NotFound
                    {
                        return Err(DatastoreError::io(file, "cannot be looked at", &error));
                    }
                    vanished |= fs::symlink_metadata(file).is_err();
                    self.files.remove(file);
                    self.seen.remove(file);
                    continue;
                };
                if self.seen.get(file) == Some(&now) {
                    continue;
                }
                self.read_file(file, now)?;
            }
            if !vanished {
                break;
            }
        }
        if vanished {
            return Err(DatastoreError::Unavailable {
                place: self.path.display().to_string(),
                reason: "its files come and go too fast to be read".to_owned(),
            });
        }
        Ok(self.files.merge(&Listing::default()))
    }

    fn read_file(&mut self, file: &Path, now: Seen) -> Result<()> {
        let parsed = load::read(file);
        if parsed.unreadable {
            let reason = parsed
                .problems
                .first()
                .map(|problem| problem.reason.clone());
            return Err(DatastoreError::Unavailable {
                place: file.display().to_string(),
                reason: reason.unwrap_or_default(),
            });
        }
        self.files.remove(file);
        self.files.set(file, parsed);
        if now.is_settled() && Seen::look(file) == Some(now) {
            self.seen.insert(file.to_owned(), now);
        } else {
            self.seen.remove(file);
        }
        Ok(())
    }

    /// A document that says it is that resource, but has something wrong with it.
    fn broken(&self, key: &ResourceKey) -> Option<(PathBuf, Problem)> {
        let own = self.path.join(own_file(key));
        let problems = self.files.problems();
        let mut broken = problems.filter_map(|(file, problem)| {
            let text = load::read_text(file).ok()?;
            let documents = load::outline(&text);
            let claims = |document: &load::Document| document.keys.contains(key);
            (documents.iter().any(claims) || *file == own).then(|| (file.clone(), problem.clone()))
        });
        broken.next()
    }
}

impl Seen {
    fn look(file: &Path) -> Option<Self> {
        let metadata = fs::metadata(file).ok()?;
        Some(Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether the next change will give the file another time.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = u64::try_from(self.changed.0).unwrap_or(0);
        let nanoseconds = u32::try_from(self.changed.1).unwrap_or(0);
        now > Duration::new(seconds, nanoseconds) + SETTLED
    }
}

fn same_version(before: &Resource, version: Option<&str>) -> Result<()> {
    match version {
        Some(version) if before.metadata().resource_version.as_deref() != Some(version) => {
            Err(DatastoreError::Conflict(before.key()))
        }
        _ => Ok(()),
    }
}

/// The file of a resource that has none yet. Names have no `_`, so no two have the same.
fn own_file(key: &ResourceKey) -> String {
    let namespace = key.namespace.as_ref();
    let namespace = namespace.map_or_else(String::new, |namespace| format!("{namespace}_"));
    let name = format!("{}_{namespace}{}", key.kind.name().to_lowercase(), key.name);
    // What a directory takes is 255 bytes; a hidden temporary name and the ending need some of them.
    if name.len() <= 200 {
        return format!("{name}.yaml");
    }
    format!("{}_{}.yaml", &name[..150], digest(name.as_bytes()))
}

fn read_text(file: &Path) -> Result<String> {
    load::read_text(file).map_err(|problem| DatastoreError::Unavailable {
        place: file.display().to_string(),
        reason: problem.reason,
    })
}

fn refused(key: &ResourceKey, file: &Path, reason: String) -> DatastoreError {
    DatastoreError::Refused {
        key: key.clone(),
        reason: format!("{}: {reason}", file.display()),
    }
}
