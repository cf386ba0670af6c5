//! Publishing to workers, and knowing when they have let go: the lock-free cells.
//!
//! Two ways, for two kinds of data:
//!
//! * [`Published`]: a value that is replaced whole (the forwarding snapshot). A worker loads it once
//!   per batch and holds on to it until the next.
//! * [`Quiescence`]: for what is changed in place (the FIB). It says when every worker has finished
//!   the batch that it was at, so that what was taken out can be used again.

mod quiescence;

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use crate::fib::Grace;

pub use quiescence::{Quiescence, QuiescentReader};

/// A value that one side replaces and others read without a lock.
#[derive(Debug)]
pub struct Published<T>(Arc<ArcSwap<T>>);

impl<T> Published<T> {
    /// Publishes a first value.
    pub fn new(value: impl Into<Arc<T>>) -> Self {
        Self(Arc::new(ArcSwap::new(value.into())))
    }

    /// Replaces the value. The old one is dropped once the last reader has loaded the new one.
    pub fn publish(&self, value: impl Into<Arc<T>>) {
        self.0.store(value.into());
    }

    /// The value as it is now, for a caller that asks seldom.
    pub fn get(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// A reader for one thread that asks often.
    pub fn reader(&self) -> PublishedReader<T> {
        PublishedReader(Cache::new(Arc::clone(&self.0)))
    }
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// One thread's cached view of a [`Published`] value. It keeps the value that it loaded last alive.
#[derive(Debug)]
pub struct PublishedReader<T>(Cache<Arc<ArcSwap<T>>, Arc<T>>);

impl<T> PublishedReader<T> {
    /// The newest value: one load of a pointer if nothing was published since the last call.
    #[inline]
    pub fn load(&mut self) -> &Arc<T> {
        self.0.load()
    }
}

impl Grace for Quiescence {
    fn start(&self) -> u64 {
        Self::start(self)
    }

    fn passed(&self, ticket: u64) -> bool {
        self.has_passed(ticket)
    }
}

/// What [`quiescence`] is built on; a model checker puts its own in this place.
mod sync {
    use std::time::Duration;

    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
    pub(super) use std::sync::{Arc, Mutex};

    /// Waits a little; longer, up to 2 ms, the higher the round.
    pub(super) fn pause(round: u32) {
        match round {
            0..8 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(32 << (round - 8).min(6))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_reader_sees_what_was_published_last() {
        let published = Published::new(1);
        let mut reader = published.reader();
        assert_eq!(**reader.load(), 1);
        published.publish(2);
        assert_eq!((**reader.load(), *published.get()), (2, 2));
    }

    #[test]
    fn an_old_value_is_dropped_when_its_readers_load_the_new_one() {
        let old = Arc::new(1);
        let published = Published::new(Arc::clone(&old));
        let mut reader = published.reader();
        published.publish(2);
        assert_eq!(Arc::strong_count(&old), 2, "the reader holds it");
        reader.load();
        assert_eq!(Arc::strong_count(&old), 1);
    }

    #[test]
    fn a_ticket_passes_when_each_online_reader_was_quiescent() {
        let domain = Quiescence::new();
        let (mut one, mut two) = (domain.register(), domain.register());
        let ticket = domain.start();
        assert!(!domain.has_passed(ticket));
        one.quiescent();
        assert!(!domain.has_passed(ticket));
        two.offline();
        assert!(domain.has_passed(ticket));
        let later = domain.start();
        assert!(!domain.has_passed(later) && domain.has_passed(ticket));
        two.online();
        drop(one);
        assert!(!domain.has_passed(domain.start()), "two is online again");
        drop(two);
        assert!(domain.has_passed(later));
    }

    #[test]
    fn synchronize_waits_for_a_reader_in_another_thread() {
        let domain = Quiescence::new();
        let mut reader = domain.register();
        let left = Arc::new(AtomicBool::new(false));
        let leaving = Arc::clone(&left);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            leaving.store(true, Ordering::Relaxed);
            reader.quiescent();
            reader
        });
        domain.synchronize();
        assert!(left.load(Ordering::Relaxed));
        thread.join().expect("the reader's thread");
    }

    #[test]
    fn synchronize_does_not_wait_for_nobody() {
        let domain = Quiescence::new();
        domain.synchronize();
        let mut asleep = domain.register();
        asleep.offline();
        domain.synchronize();
    }
}
