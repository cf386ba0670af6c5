//! Quiescent-state-based reclamation: when has every reader let go of what it held?
//!
//! A reader says so once per batch ([`QuiescentReader::quiescent`]): one load of a line that seldom
//! changes and one store to a line of its own. The writer takes something out, asks for a ticket,
//! and may reuse what it took out once the ticket has passed.
//!
//! After Desnoyers, McKenney, Stern, Dagenais, Walpole, "User-Level Implementations of Read-Copy
//! Update", IEEE TPDS 23(2), 2012, section 5.1 (QSBR).
//!
//! # Why it is right
//!
//! Let U be the writer's store that takes something out, T the ticket that it starts afterwards.
//! A reader's slot holds the newest ticket that it knew of at its last quiescent state. T passes
//! when each slot holds at least T, or says that its reader is offline.
//!
//! 1. *What a reader did before happens before the reuse.* Whichever store makes the slot pass is a
//!    Release, comes after the reader's use, and is read by the writer with Acquire.
//! 2. *A reader whose slot passed by holding T or more finds U done.* It loaded the value from `now`
//!    with Acquire, and the writer's increment, a Release, came after U.
//! 3. *A reader whose slot passed by being offline finds U done when it comes back.* It stores its
//!    slot, fences, then reads; the writer stores U, fences, then reads the slot. Of two sequentially
//!    consistent fences one is first: if the reader's, the writer sees the slot online and waits; if
//!    the writer's, the reader sees U. Only here are fences needed.
//! 4. *A reader that registers after the writer looked* takes the registry's lock after the writer
//!    released it, and so finds U done.

use super::sync::{Arc, AtomicU64, Mutex, Ordering, fence, pause};

/// The slot of a reader that holds nothing. Tickets start above it.
const OFFLINE: u64 = 0;
/// The slot of a reader that was dropped. Tickets stay below it.
const GONE: u64 = u64::MAX;

/// The readers of something that a writer changes in place. Clones are the same domain.
#[derive(Debug, Clone)]
pub struct Quiescence(Arc<Domain>);

/// One thread's membership in a [`Quiescence`] domain. Dropping it leaves the domain.
#[derive(Debug)]
pub struct QuiescentReader {
    domain: Arc<Domain>,
    slot: Arc<Slot>,
}

#[derive(Debug)]
struct Domain {
    /// The newest ticket.
    now: Slot,
    /// Locked by who registers and by writers; readers at work do not touch it.
    readers: Mutex<Vec<Arc<Slot>>>,
}

/// A ticket number in a cache line of its own; two lines, as Intel fetches them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Slot(AtomicU64);

impl Quiescence {
    /// A domain without readers.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Arc::new(Domain {
            now: Slot(AtomicU64::new(OFFLINE + 1)),
            readers: Mutex::new(Vec::new()),
        }))
    }

    /// A new reader, online: the writer waits for it until it is quiescent, offline or dropped.
    pub fn register(&self) -> QuiescentReader {
        let slot = Arc::new(Slot(AtomicU64::new(OFFLINE)));
        self.0.lock_readers().push(Arc::clone(&slot));
        let domain = Arc::clone(&self.0);
        let mut reader = QuiescentReader { domain, slot };
        reader.online();
        reader
    }

    /// A ticket that passes when every reader which is online now has been through a quiescent
    /// state. Take out first, then call this.
    pub fn start(&self) -> u64 {
        // Between the caller's store and the load of the slots (3.).
        fence(Ordering::SeqCst);
        // Release: 2. Acquire: a ticket stands for all earlier ones too, of whichever thread.
        self.0.now.0.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether a ticket has passed. Takes the registry's lock and reads each reader's slot.
    pub fn has_passed(&self, ticket: u64) -> bool {
        let mut passed = true;
        self.0.lock_readers().retain(|slot| {
            // Acquire: 1.
            let at = slot.0.load(Ordering::Acquire);
            passed &= at == OFFLINE || at >= ticket;
            at != GONE
        });
        passed
    }

    /// Waits until every reader that is online now has been through a quiescent state. It yields,
    /// then sleeps between looks. A thread must not call this while a reader of its own is online.
    pub fn synchronize(&self) {
        let ticket = self.start();
        let mut round = 0;
        while !self.has_passed(ticket) {
            pause(round);
            round += 1;
        }
    }
}

impl QuiescentReader {
    /// Says that this thread holds nothing from before this call. Once per batch.
    #[inline]
    pub fn quiescent(&mut self) {
        // Acquire: 2. Release: 1.
        let now = self.domain.now.0.load(Ordering::Acquire);
        self.slot.0.store(now, Ordering::Release);
    }

    /// Says that this thread holds nothing and will not read until [`Self::online`]: before
    /// sleeping. The writer does not wait for an offline reader.
    pub fn offline(&mut self) {
        // Release: 1.
        self.slot.0.store(OFFLINE, Ordering::Release);
    }

    /// Says that this thread is about to read again: after waking, before the next batch.
    pub fn online(&mut self) {
        // Release although the reader holds nothing yet: the writer may read this store instead of
        // the one of offline(), and 1. must hold for it too.
        self.quiescent();
        // Between the store of the slot and the reads to come (3.).
        fence(Ordering::SeqCst);
    }
}

impl Drop for QuiescentReader {
    fn drop(&mut self) {
        // Release: 1.
        self.slot.0.store(GONE, Ordering::Release);
    }
}

impl Domain {
    fn lock_readers(&self) -> impl std::ops::DerefMut<Target = Vec<Arc<Slot>>> + '_ {
        // A list of slots is whole at every moment: a panic elsewhere does not spoil it.
        self.readers.lock().unwrap_or_else(|e| e.into_inner())
    }
}
