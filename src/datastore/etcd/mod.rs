//! etcd (version 3) as a datastore, with Calico's own keys and values.
//!
//! A version is the key's revision of last change (`mod_revision`), and every change a transaction
//! that compares it. The asynchronous client is kept in here: one thread of its own serves all
//! connections, and callers wait on theirs.

mod client;
pub(crate) mod keys;
mod presence;
mod watcher;

use std::collections::BTreeSet;
use std::sync::Arc;

use etcd_client::{
    Client, Compare, CompareOp, Error, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse,
};

use super::interface::{Datastore, Health, List, Presence, Result, Selection};
use super::{DatastoreError, Watch, metadata};
use crate::resources::datastore::Etcd as Config;
use crate::resources::{IpPool, Kind, NodeName, Resource, ResourceKey};

use client::{Members, large};

/// An etcd cluster that keeps resources.
#[derive(Clone)]
pub struct Etcd {
    members: Arc<Members>,
}

/// How many keys are read at a time.
const PAGE: i64 = 500;
/// How often a change without a version is tried again when others are faster.
const ATTEMPTS: usize = 50;

/// What is kept under a key.
struct Kept {
    path: String,
    value: Vec<u8>,
    revision: i64,
}

/// How a transaction ended.
enum Outcome {
    /// Done, at this revision.
    Done(i64),
    /// The key's revision was not the one that was expected.
    Other,
}

impl Etcd {
    /// A cluster; nothing is asked of it yet.
    pub fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            members: Arc::new(Members::new(config)?),
        })
    }

    /// What is kept for a key, as it is.
    fn find(&self, key: &ResourceKey) -> Result<Option<Kept>> {
        match keys::of_name(key) {
            Some(path) => self.read(&path),
            // The name alone does not tell: look at all of the kind.
            None => {
                let (kept, _) = self.range(&keys::prefix(&Selection::kind(key.kind)))?;
                Ok(kept.into_iter().find(|kept| {
                    let decoded = keys::decode(&kept.path, &kept.value, kept.revision);
                    matches!(decoded, Some(Ok(resource)) if resource.key() == *key)
                }))
            }
        }
    }

    fn read(&self, path: &str) -> Result<Option<Kept>> {
        self.members.ask(async |client, _| {
            let found = large(&client).get(path, None).await?;
            Ok(found.kvs().first().map(Kept::from))
        })
    }

    /// All keys that begin so, at one revision.
    fn range(&self, prefix: &str) -> Result<(Vec<Kept>, i64)> {
        self.members
            .ask(async |client, _| range(&client, prefix).await)
    }

    /// Writes a value if the key is still of that revision; 0 for a key that is not there.
    fn write(&self, path: &str, value: &[u8], expected: i64) -> Result<Outcome> {
        self.members.ask(async |client, again| {
            let put = TxnOp::put(path, value, None);
            let outcome = transact(&client, path, expected, put).await?;
            Ok(match outcome {
                (Outcome::Other, Some(kept)) if again && kept.value == value => {
                    // An attempt without an answer was ours, and was carried out.
                    Outcome::Done(kept.revision)
                }
                (outcome, _) => outcome,
            })
        })
    }

    fn remove(&self, path: &str, expected: i64) -> Result<Outcome> {
        self.members.ask(async |client, again| {
            let delete = TxnOp::delete(path, None);
            let outcome = transact(&client, path, expected, delete).await?;
            Ok(match outcome {
                (Outcome::Other, None) if again => Outcome::Done(expected),
                (outcome, _) => outcome,
            })
        })
    }

    fn put(&self, mut resource: Resource, expected: i64) -> Result<Option<Resource>> {
        self.refuse_overlap(&resource)?;
        let path = keys::of_resource(&resource);
        match self.write(&path, &keys::value_of(&resource), expected)? {
            Outcome::Done(revision) => {
                resource.metadata_mut().resource_version = Some(revision.to_string());
                Ok(Some(resource))
            }
            Outcome::Other => Ok(None),
        }
    }

    fn refuse_overlap(&self, resource: &Resource) -> Result<()> {
        let Resource::IpPool(pool) = resource else {
            return Ok(());
        };
        let list = self.list(&Selection::kind(Kind::IpPool))?;
        let others = list.resources().filter_map(|other| match other {
            Resource::IpPool(other) if other.metadata.name != pool.metadata.name => Some(other),
            _ => None,
        });
        let overlap = |other: &IpPool| pool.validate_beside(other);
        match others.into_iter().find_map(overlap) {
            None => Ok(()),
            Some(fault) => Err(DatastoreError::Refused {
                key: resource.key(),
                reason: format!("{}; {}", fault.reason, fault.remedy),
            }),
        }
    }
}

impl Datastore for Etcd {
    fn get(&self, key: &ResourceKey) -> Result<Resource> {
        match self.find(key)?.and_then(|kept| kept.decode()) {
            Some(Ok(resource)) => Ok(resource),
            Some(Err(problem)) => Err(DatastoreError::Corrupt(Box::new(problem))),
            None => Err(DatastoreError::DoesNotExist(key.clone())),
        }
    }

    fn list(&self, selection: &Selection) -> Result<List> {
        let (kept, revision) = self.range(&keys::prefix(selection))?;
        let mut list = List {
            revision: revision.to_string(),
            ..List::default()
        };
        for kept in kept {
            match kept.decode() {
                Some(Ok(resource)) if selection.has(&resource.key()) => {
                    let origin = keys::origin(&kept.path);
                    list.items.insert(resource.key(), (resource, origin));
                }
                Some(Err(problem)) => list.problems.push(problem),
                _ => {}
            }
        }
        Ok(list)
    }

    fn create(&self, resource: &Resource) -> Result<Resource> {
        let mut resource = resource.clone();
        metadata::created(&mut resource);
        // What cannot be read is no resource; this write repairs it.
        let expected = match self.read(&keys::of_resource(&resource))? {
            Some(kept) if matches!(kept.decode(), Some(Err(_))) => kept.revision,
            _ => 0,
        };
        let key = resource.key();
        self.put(resource, expected)?
            .ok_or(DatastoreError::AlreadyExists(key))
    }

    fn update(&self, resource: &Resource) -> Result<Resource> {
        let key = resource.key();
        let version = resource.metadata().resource_version.as_deref();
        for _ in 0..ATTEMPTS {
            let Some(kept) = self.read(&keys::of_resource(resource))? else {
                return Err(DatastoreError::DoesNotExist(key));
            };
            if version.is_some_and(|version| version != kept.revision.to_string()) {
                return Err(DatastoreError::Conflict(key));
            }
            let mut new = resource.clone();
            if let Some(Ok(before)) = kept.decode() {
                metadata::updated(&mut new, &before);
            }
            match self.put(new, kept.revision)? {
                Some(done) => return Ok(done),
                None if version.is_some() => break,
                None => {}
            }
        }
        Err(DatastoreError::Conflict(key))
    }

    fn delete(&self, key: &ResourceKey, version: Option<&str>) -> Result<Resource> {
        for _ in 0..ATTEMPTS {
            let Some(kept) = self.find(key)? else {
                return Err(DatastoreError::DoesNotExist(key.clone()));
            };
            if version.is_some_and(|version| version != kept.revision.to_string()) {
                break;
            }
            let before = match kept.decode() {
                Some(Ok(before)) => before,
                Some(Err(problem)) => return Err(DatastoreError::Corrupt(Box::new(problem))),
                None => return Err(DatastoreError::DoesNotExist(key.clone())),
            };
            match self.remove(&kept.path, kept.revision)? {
                Outcome::Done(_) => return Ok(before),
                Outcome::Other if version.is_some() => break,
                Outcome::Other => {}
            }
        }
        Err(DatastoreError::Conflict(key.clone()))
    }

    fn watch(&self, selection: &Selection, since: Option<&List>) -> Result<Watch> {
        watcher::start(Arc::clone(&self.members), selection, since)
    }

    fn health(&self) -> Health {
        self.members.health()
    }

    fn announce(&self, node: &NodeName) -> Option<Presence> {
        presence::announce(Arc::clone(&self.members), node)
    }

    fn present(&self) -> Result<Option<BTreeSet<NodeName>>> {
        let (kept, _) = self.range(presence::PREFIX)?;
        Ok(Some(
            kept.iter()
                .filter_map(|kept| presence::node_of(&kept.path))
                .collect(),
        ))
    }
}

impl Kept {
    fn decode(&self) -> keys::Decoded {
        keys::decode(&self.path, &self.value, self.revision)
    }
}

impl From<&KeyValue> for Kept {
    fn from(pair: &KeyValue) -> Self {
        Self {
            path: String::from_utf8_lossy(pair.key()).into_owned(),
            value: pair.value().to_owned(),
            revision: pair.mod_revision(),
        }
    }
}

/// All keys that begin so, at one revision, page by page.
async fn range(client: &Client, prefix: &str) -> std::result::Result<(Vec<Kept>, i64), Error> {
    let mut kv = large(client);
    let end = end_of(prefix);
    let (mut kept, mut from, mut revision) = (Vec::new(), prefix.as_bytes().to_owned(), 0);
    loop {
        let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
        let answer = kv.get(from, Some(options.with_revision(revision))).await?;
        if revision == 0 {
            revision = answer
                .header()
                .map_or(0, etcd_client::ResponseHeader::revision);
        }
        kept.extend(answer.kvs().iter().map(Kept::from));
        match answer.kvs().last() {
            Some(last) if answer.more() => {
                from = last.key().to_owned();
                from.push(0);
            }
            _ => return Ok((kept, revision)),
        }
    }
}

/// The key after all that begin so.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_owned();
    if let Some(last) = end.last_mut() {
        // A `/` is followed by `0`.
        *last += 1;
    }
    end
}

/// Carries out an operation if the key is of that revision; else gives what is there.
async fn transact(
    client: &Client,
    path: &str,
    expected: i64,
    operation: TxnOp,
) -> std::result::Result<(Outcome, Option<Kept>), Error> {
    let compare = Compare::mod_revision(path, CompareOp::Equal, expected);
    let transaction = Txn::new()
        .when([compare])
        .and_then([operation])
        .or_else([TxnOp::get(path, None)]);
    let answer = large(client).txn(transaction).await?;
    let revision = answer
        .header()
        .map_or(0, etcd_client::ResponseHeader::revision);
    if answer.succeeded() {
        return Ok((Outcome::Done(revision), None));
    }
    let kept = answer
        .op_responses()
        .into_iter()
        .find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(Kept::from),
            _ => None,
        });
    Ok((Outcome::Other, kept))
}
