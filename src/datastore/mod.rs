//! Where resources are kept: a stream of updates, then in-sync.
//!
//! Whatever keeps the resources, its reader sees the same: a [`Watch`], from which [`Update`]s come.
//! First everything there is, then [`Update::InSync`], then changes as they happen, each burst of
//! them followed by [`Update::InSync`] again. Nothing may be cleaned up before the first one.

mod directory;
mod error;
mod etcd;
mod interface;
mod metadata;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;

use crate::resources::datastore as config;
use crate::resources::{Origin, Problem, Resource, ResourceKey};

pub use directory::{Directory, Listing};
pub use error::DatastoreError;
pub use etcd::Etcd;
pub(crate) use etcd::keys::name_of_cidr;
pub use interface::{Datastore, Health, List, Presence, Result, Selection};

/// Opens the datastore that a configuration names. Nothing is asked of it yet.
pub fn open(config: &config::Datastore) -> Result<Arc<dyn Datastore>> {
    Ok(match &config.etcd {
        None => Arc::new(Directory::new(&config.directory)),
        Some(etcd) => Arc::new(Etcd::new(etcd)?),
    })
}

/// A change of what is kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// A resource is new, or another than before.
    Put {
        /// The resource, valid.
        resource: Box<Resource>,
        /// Where it was read.
        origin: Origin,
    },
    /// A resource is gone.
    Delete(ResourceKey),
    /// All that is wrong now, in place of what was said to be wrong before; empty once all is right.
    Problems(Vec<Problem>),
    /// All that was known at some moment has been told: a good moment to act on it.
    InSync,
}

/// A running watch; dropping it ends it.
pub struct Watch {
    updates: Option<Receiver<Update>>,
    /// Has the thread stop, and says whether it will.
    stop: Box<dyn FnMut() -> bool + Send>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// A watch whose thread sends updates until `stop` is called or nobody takes them any more.
    fn new(
        updates: Receiver<Update>,
        thread: JoinHandle<()>,
        stop: impl FnMut() -> bool + Send + 'static,
    ) -> Self {
        Self {
            updates: Some(updates),
            stop: Box::new(stop),
            thread: Some(thread),
        }
    }

    /// The updates, in order. The channel ends only with the watch.
    pub fn updates(&self) -> Receiver<Update> {
        self.updates
            .clone()
            .unwrap_or_else(crossbeam_channel::never)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.updates.take());
        // What wakes the thread stays until the thread has ended.
        let stops = (self.stop)();
        if let Some(thread) = self.thread.take().filter(|_| stops) {
            // A thread that panicked has said so on its own.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
