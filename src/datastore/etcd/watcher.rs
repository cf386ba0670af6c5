//! Follows etcd: everything once, then changes as they happen, and everything again whenever the
//! connection was lost or history was compacted away.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use etcd_client::{EventType, WatchOptions, WatchResponse};
use tokio::sync::Notify;

use super::client::{Backoff, Members, large_watch, text};
use super::{Kept, end_of, keys, range};
use crate::datastore::interface::{List, Result, Selection};
use crate::datastore::{DatastoreError, Update, Watch};
use crate::resources::{Problem, Resource, ResourceKey};

/// Updates that wait for their reader, before etcd is no longer read on.
const WAITING: usize = 1024;

/// Starts a watch, from what is in a list on if there is one.
pub(super) fn start(
    members: Arc<Members>,
    selection: &Selection,
    since: Option<&List>,
) -> Result<Watch> {
    let place = members.place();
    let (sender, receiver) = bounded(WAITING);
    let (stop, stopped) = bounded(0);
    let wake = Arc::new(Notify::new());
    let mut watcher = Watcher {
        selection: selection.clone(),
        known: since.map(known).unwrap_or_default(),
        problems: BTreeMap::new(),
        lost: None,
        told: since.map(|list| list.problems.clone()).unwrap_or_default(),
        updates: sender,
        stopped,
        members,
    };
    let woken = Arc::clone(&wake);
    let thread = thread::Builder::new()
        .name("datastore".into())
        .spawn(move || {
            let members = Arc::clone(&watcher.members);
            members.block_on(async {
                tokio::select! {
                    () = watcher.run() => {}
                    () = woken.notified() => {}
                }
            });
        })
        .map_err(|error| DatastoreError::Unavailable {
            place,
            reason: format!("cannot start a thread: {error}"),
        })?;
    let mut stop = Some(stop);
    Ok(Watch::new(receiver, thread, move || {
        drop(stop.take());
        wake.notify_one();
        true
    }))
}

struct Watcher {
    members: Arc<Members>,
    selection: Selection,
    /// What the reader has been told is there: by etcd's key, its revision and resource.
    known: BTreeMap<String, (i64, ResourceKey)>,
    /// What is wrong with single values, by etcd's key.
    problems: BTreeMap<String, Problem>,
    /// Why etcd cannot be reached, while it cannot.
    lost: Option<Problem>,
    told: Vec<Problem>,
    updates: Sender<Update>,
    stopped: Receiver<()>,
}

/// Why following ended.
enum End {
    /// The reader is gone.
    Stopped,
    /// etcd is.
    Lost(String),
}

impl Watcher {
    async fn run(&mut self) {
        let mut backoff = Backoff::default();
        loop {
            let reason = match self.follow(&mut backoff).await {
                Err(End::Lost(reason)) => self.members.failed(reason),
                Ok(()) | Err(End::Stopped) => return,
            };
            let first = self.lost.is_none();
            self.lost = Some(self.unreachable(&reason));
            if first && self.tell_problems().is_err() {
                return;
            }
            backoff.pause().await;
        }
    }

    /// Reads everything, then follows the changes from that moment on.
    async fn follow(&mut self, backoff: &mut Backoff) -> std::result::Result<(), End> {
        let lost = |error: etcd_client::Error| End::Lost(text(&error));
        let prefix = keys::prefix(&self.selection);
        let client = self.members.client().await.map_err(lost)?;
        let (kept, revision) = timely(range(&client, &prefix)).await?;
        self.members.answered();
        self.lost = None;
        *backoff = Backoff::default();
        self.resync(kept)?;
        let options = WatchOptions::new()
            .with_range(end_of(&prefix))
            .with_start_revision(revision + 1)
            .with_progress_notify();
        let mut client = large_watch(&client);
        let mut stream = timely(client.watch(prefix, Some(options))).await?;
        loop {
            match stream.message().await.map_err(lost)? {
                Some(message) if message.canceled() => {
                    return Err(End::Lost(format!("the watch ended: {}", cause(&message))));
                }
                Some(message) => self.take(&message)?,
                None => return Err(End::Lost("the connection was closed".to_owned())),
            }
        }
    }

    /// Tells what is other than known. What is new comes before the deletion of what is gone, so
    /// that what takes an old one's place is there first.
    fn resync(&mut self, kept: Vec<Kept>) -> std::result::Result<(), End> {
        let mut gone = std::mem::take(&mut self.known);
        self.problems.clear();
        for kept in kept {
            match gone.remove(&kept.path) {
                Some((revision, key)) if revision == kept.revision => {
                    self.known.insert(kept.path, (revision, key));
                }
                before => {
                    if let Some((revision, key)) = before {
                        self.known.insert(kept.path.clone(), (revision, key));
                    }
                    self.put(&kept)?;
                }
            }
        }
        for (_, key) in gone.into_values() {
            self.send(Update::Delete(key))?;
        }
        self.tell_problems()?;
        self.send(Update::InSync)
    }

    fn take(&mut self, message: &WatchResponse) -> std::result::Result<(), End> {
        for event in message.events() {
            let Some(pair) = event.kv() else { continue };
            let kept = Kept::from(pair);
            match event.event_type() {
                EventType::Put => self.put(&kept)?,
                EventType::Delete => {
                    self.problems.remove(&kept.path);
                    if let Some((_, key)) = self.known.remove(&kept.path) {
                        self.send(Update::Delete(key))?;
                    }
                }
            }
        }
        if message.events().is_empty() {
            return Ok(());
        }
        self.tell_problems()?;
        self.send(Update::InSync)
    }

    /// Takes a value in. One that cannot be read leaves in effect what was there.
    fn put(&mut self, kept: &Kept) -> std::result::Result<(), End> {
        match keys::decode(&kept.path, &kept.value, kept.revision) {
            Some(Ok(resource)) => {
                self.problems.remove(&kept.path);
                self.put_resource(kept, resource)
            }
            Some(Err(problem)) => {
                self.problems.insert(kept.path.clone(), problem);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn put_resource(&mut self, kept: &Kept, resource: Resource) -> std::result::Result<(), End> {
        let key = resource.key();
        if !self.selection.has(&key) {
            return Ok(());
        }
        self.known.insert(kept.path.clone(), (kept.revision, key));
        self.send(Update::Put {
            resource: Box::new(resource),
            origin: keys::origin(&kept.path),
        })
    }

    fn tell_problems(&mut self) -> std::result::Result<(), End> {
        let now: Vec<Problem> = self
            .problems
            .values()
            .cloned()
            .chain(self.lost.clone())
            .collect();
        if now == self.told {
            return Ok(());
        }
        self.told.clone_from(&now);
        self.send(Update::Problems(now))
    }

    /// Hands an update over. This thread serves nothing but this watch, and may wait.
    fn send(&self, update: Update) -> std::result::Result<(), End> {
        crossbeam_channel::select! {
            send(self.updates, update) -> sent => sent.map_err(|_| End::Stopped),
            recv(self.stopped) -> _ => Err(End::Stopped),
        }
    }

    fn unreachable(&self, reason: &str) -> Problem {
        Problem::with_file(
            Path::new(&self.members.place()),
            format!("the datastore cannot be reached: {reason}"),
            "what was read before stays in effect",
        )
    }
}

/// What a list tells of: what its reader knows already.
fn known(list: &List) -> BTreeMap<String, (i64, ResourceKey)> {
    let entry = |resource: &Resource| {
        let version = resource.metadata().resource_version.as_deref();
        let revision = version
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        (keys::of_resource(resource), (revision, resource.key()))
    };
    list.resources().map(entry).collect()
}

/// An answer that does not come is a lost connection.
async fn timely<T>(
    future: impl Future<Output = std::result::Result<T, etcd_client::Error>>,
) -> std::result::Result<T, End> {
    match tokio::time::timeout(super::client::READ, future).await {
        Ok(answer) => answer.map_err(|error| End::Lost(text(&error))),
        Err(_) => Err(End::Lost("no answer".to_owned())),
    }
}

fn cause(message: &WatchResponse) -> String {
    match message.compact_revision() {
        0 => message.cancel_reason().to_owned(),
        revision => format!("history before revision {revision} was compacted"),
    }
}
