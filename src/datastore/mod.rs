//! Where resources are kept: a stream of updates, then in-sync.
//!
//! Whatever keeps the resources, its reader sees the same: a [`Watch`], from which [`Update`]s come.
//! First everything there is, then [`Update::InSync`], then changes as they happen, each burst of
//! them followed by [`Update::InSync`] again. Nothing may be cleaned up before the first one.

mod directory;
mod files;

use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};

use crate::resources::{Origin, Problem, Resource, ResourceKey};

pub use directory::Directory;
pub use files::Listing;

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
#[derive(Debug)]
pub struct Watch {
    updates: Option<Receiver<Update>>,
    /// Closed to stop the thread; nothing is ever sent.
    stop: Option<Sender<()>>,
    waker: mio::Waker,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// The updates, in order. The channel ends only with the watch.
    pub fn updates(&self) -> Receiver<Update> {
        self.updates
            .clone()
            .unwrap_or_else(crossbeam_channel::never)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.updates.take());
        if self.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A thread that panicked has said so on its own.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
