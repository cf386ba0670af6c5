//! Models of publishing and reclamation: loom runs every interleaving, and every value that a load
//! may return under the C++11 memory model, of a writer and its readers.
//!
//! The protocol is the crate's own source file, compiled here against loom's atomics. To show that
//! the models can fail, the same file is compiled against atomics that lack one thing each.

#![allow(clippy::duplicate_mod)] // That is the point.

use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

/// The protocol as it is.
#[path = "."]
mod whole {
    #[path = "../src/worker/publish/quiescence.rs"]
    pub mod quiescence;

    mod sync {
        pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};
        pub(super) use loom::sync::{Arc, Mutex};

        pub(super) fn pause(_round: u32) {
            loom::thread::yield_now();
        }
    }
}

/// A build of the protocol with other orders for its loads, stores, increments and fences.
macro_rules! weakened {
    ($name:ident, $load:expr, $store:expr, $add:expr, $fence:expr) => {
        #[path = "."]
        mod $name {
            #[path = "../src/worker/publish/quiescence.rs"]
            pub mod quiescence;

            mod sync {
                #[allow(unused_imports)]
                use loom::sync::atomic::{Ordering::Relaxed, fence as loom_fence};

                pub(super) use loom::sync::atomic::Ordering;
                pub(super) use loom::sync::{Arc, Mutex};

                #[derive(Debug)]
                pub(super) struct AtomicU64(loom::sync::atomic::AtomicU64);

                impl AtomicU64 {
                    pub(super) fn new(value: u64) -> Self {
                        Self(loom::sync::atomic::AtomicU64::new(value))
                    }

                    pub(super) fn load(&self, order: Ordering) -> u64 {
                        self.0.load(($load)(order))
                    }

                    pub(super) fn store(&self, value: u64, order: Ordering) {
                        self.0.store(value, ($store)(order));
                    }

                    pub(super) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
                        self.0.fetch_add(value, ($add)(order))
                    }
                }

                pub(super) fn fence(order: Ordering) {
                    ($fence)(order);
                }

                pub(super) fn pause(_round: u32) {
                    loom::thread::yield_now();
                }
            }
        }
    };
}

weakened!(fenceless, |o| o, |o| o, |o| o, |_| ());
weakened!(relaxed_loads, |_| Relaxed, |o| o, |o| o, loom_fence);
weakened!(relaxed_stores, |o| o, |_| Relaxed, |o| o, loom_fence);
// The writer's fence would do for an increment that is not a Release.
weakened!(relaxed_tickets, |o| o, |o| o, |_| Relaxed, |_| ());

/// A table of one entry, which is the number of a block, and the blocks.
///
/// A cell stands for a block's content: loom fails when it is read and written without one having
/// happened before the other, that is, when a reader uses a block that is not yet filled or is
/// being filled anew.
struct Table {
    entry: AtomicUsize,
    blocks: [UnsafeCell<()>; 2],
}

impl Table {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            entry: AtomicUsize::new(0),
            blocks: [UnsafeCell::new(()), UnsafeCell::new(())],
        })
    }

    fn look_up(&self) {
        let number = self.entry.load(Acquire);
        self.blocks[number].with(|_| ());
    }

    fn fill(&self, number: usize) {
        self.blocks[number].with_mut(|_| ());
    }

    fn publish(&self, number: usize, order: Ordering) {
        self.entry.store(number, order);
    }
}

/// Runs a model in every interleaving; with `preemptions` in those with no more of them.
fn check(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
}

/// The models, for one build of the protocol.
macro_rules! models {
    ($build:ident) => {
        use super::*;
        use $build::quiescence::{Quiescence, QuiescentReader};

        /// One batch after the other, then away.
        fn two_batches(table: &Table, mut reader: QuiescentReader) {
            table.look_up();
            reader.quiescent();
            table.look_up();
        }

        /// Asleep between two batches.
        fn sleep_between(table: &Table, mut reader: QuiescentReader) {
            table.look_up();
            reader.offline();
            reader.online();
            table.look_up();
        }

        /// Asleep at first, and working two batches on end after.
        fn wake_up(table: &Table, mut reader: QuiescentReader) {
            reader.online();
            table.look_up();
            reader.quiescent();
            table.look_up();
        }

        /// The writer puts another block in a block's place and fills the old one anew.
        fn replace(table: &Table, domain: &Quiescence) {
            table.fill(1);
            table.publish(1, Release);
            domain.synchronize();
            table.fill(0);
        }

        /// A writer that replaces a block beside one reader.
        pub fn with_reader(
            prepare: fn(&mut QuiescentReader),
            read: fn(&Table, QuiescentReader),
            write: fn(&Table, &Quiescence),
        ) {
            check(None, move || {
                let (table, domain) = (Table::new(), Quiescence::new());
                let mut reader = domain.register();
                prepare(&mut reader);
                let shared = Arc::clone(&table);
                let thread = thread::spawn(move || read(&shared, reader));
                write(&table, &domain);
                thread.join().expect("the reader's thread");
            });
        }

        pub fn batches() {
            with_reader(|_| (), two_batches, replace);
        }

        pub fn sleeping() {
            with_reader(|_| (), sleep_between, replace);
        }

        pub fn waking() {
            with_reader(QuiescentReader::offline, wake_up, replace);
        }
    };
}

mod right {
    models!(whole);

    #[test]
    fn no_reader_meets_a_reused_block() {
        batches();
    }

    #[test]
    fn nor_one_that_sleeps_between_batches() {
        sleeping();
    }

    #[test]
    fn nor_one_that_wakes_up() {
        waking();
    }

    #[test]
    fn nor_does_one_of_two_readers() {
        check(Some(2), || {
            let (table, domain) = (Table::new(), Quiescence::new());
            let threads: Vec<_> = [two_batches, sleep_between]
                .into_iter()
                .map(|read| {
                    let (table, reader) = (Arc::clone(&table), domain.register());
                    thread::spawn(move || read(&table, reader))
                })
                .collect();
            replace(&table, &domain);
            for thread in threads {
                thread.join().expect("a reader's thread");
            }
        });
    }

    #[test]
    fn nor_one_that_registers_meanwhile() {
        check(None, || {
            let (table, domain) = (Table::new(), Quiescence::new());
            let (shared, joined) = (Arc::clone(&table), domain.clone());
            let thread = thread::spawn(move || two_batches(&shared, joined.register()));
            replace(&table, &domain);
            thread.join().expect("the reader's thread");
        });
    }

    #[test]
    fn nor_when_the_writer_polls_a_ticket() {
        with_reader(
            |_| (),
            two_batches,
            |table, domain| {
                table.fill(1);
                table.publish(1, Release);
                let ticket = domain.start();
                if domain.has_passed(ticket) {
                    table.fill(0);
                }
            },
        );
    }

    /// Back and forth: the block that was reused is published again.
    #[test]
    fn nor_one_that_was_published_again() {
        with_reader(
            |_| (),
            two_batches,
            |table, domain| {
                replace(table, domain);
                table.publish(0, Release);
                domain.synchronize();
                table.fill(1);
            },
        );
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn it_would_without_waiting() {
        with_reader(
            |_| (),
            two_batches,
            |table, _| {
                table.fill(1);
                table.publish(1, Release);
                table.fill(0);
            },
        );
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn it_would_with_a_ticket_from_before() {
        with_reader(
            |_| (),
            two_batches,
            |table, domain| {
                table.fill(1);
                let ticket = domain.start();
                table.publish(1, Release);
                if domain.has_passed(ticket) {
                    table.fill(0);
                }
            },
        );
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn it_would_meet_an_unfilled_block_if_published_relaxed() {
        with_reader(
            |_| (),
            two_batches,
            |table, _| {
                table.fill(1);
                table.publish(1, Relaxed);
            },
        );
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn it_would_meet_an_unfilled_block_if_published_first() {
        with_reader(
            |_| (),
            two_batches,
            |table, _| {
                table.publish(1, Release);
                table.fill(1);
            },
        );
    }
}

mod without_fences {
    models!(fenceless);

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn a_waking_reader_meets_a_reused_block() {
        waking();
    }

    /// The fences are for readers that sleep; the others are right without.
    #[test]
    fn a_reader_that_stays_awake_does_not() {
        batches();
        let _ = sleeping;
    }
}

mod with_relaxed_loads {
    models!(relaxed_loads);

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn a_reader_meets_a_reused_block() {
        batches();
        let _ = (sleeping, waking);
    }
}

mod with_relaxed_stores {
    models!(relaxed_stores);

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn a_reader_meets_a_reused_block() {
        batches();
        let _ = (sleeping, waking);
    }
}

mod with_relaxed_tickets {
    models!(relaxed_tickets);

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn a_reader_meets_a_reused_block() {
        batches();
        let _ = (sleeping, waking);
    }
}
