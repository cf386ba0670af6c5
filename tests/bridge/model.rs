//! The table of stations, compiled against loom's atomics: in every interleaving, two workers that hear
//! of a station at the same time leave one entry of it, the count is right, and its home is its own.

use loom::thread;
use table::{ForwardingTable, Learnt, Place, RemoteId};

use underpass::packet::PortId;
use underpass::wire::MacAddr;

#[path = "../../src/forward/bridge/table.rs"]
#[allow(dead_code)]
mod table;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

    /// Few, so that there are not too many interleavings.
    pub(super) const WAYS: usize = 1;
}

const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn remote() -> Place {
    Place::Remote(RemoteId::new(5).expect("a number"))
}

#[test]
fn two_that_learn_at_once_leave_one_entry() {
    check(|| {
        let table = loom::sync::Arc::new(ForwardingTable::new(2, 0, 0));
        let other = loom::sync::Arc::clone(&table);
        let thread = thread::spawn(move || other.learn(STATION, remote()));
        table.learn(STATION, Place::Port(PortId(1)));
        thread.join().expect("the other worker");
        let entries: Vec<_> = table.stations().collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(table.len(), 1);
        assert!([Some(remote()), Some(Place::Port(PortId(1)))].contains(&table.find(STATION)));
    });
}

#[test]
fn the_limit_holds_however_many_learn() {
    check(|| {
        let table = loom::sync::Arc::new(ForwardingTable::new(1, 0, 0));
        let other = loom::sync::Arc::clone(&table);
        let stranger = MacAddr([2, 0, 0, 0, 0, 2]);
        let thread = thread::spawn(move || other.learn(stranger, remote()));
        let own = table.learn(STATION, remote());
        let theirs = thread.join().expect("the other worker");
        assert!(own == Learnt::New || theirs == Learnt::New);
        let entries = table.stations().count();
        assert_eq!((entries, table.len()), (1, 1), "{own:?} {theirs:?}");
        assert_eq!(table.refused(), 1);
    });
}

#[test]
fn what_is_forgotten_while_it_is_heard_of_is_counted_right() {
    check(|| {
        let table = loom::sync::Arc::new(ForwardingTable::new(2, 0, 0));
        table.learn(STATION, remote());
        let other = loom::sync::Arc::clone(&table);
        let thread = thread::spawn(move || other.forget(|place| place == remote()));
        table.learn(STATION, Place::Port(PortId(1)));
        thread.join().expect("the control side");
        let entries: Vec<_> = table.stations().collect();
        assert_eq!(entries.len(), table.len(), "{entries:?}");
        assert!(
            entries
                .iter()
                .all(|entry| entry.place == Place::Port(PortId(1)))
        );
    });
}

/// A forger sends in a station's name while the station sends by another worker: the frame that is one too
/// many finds the station's home, not the forger's.
#[test]
fn who_moves_a_station_while_it_is_heard_of_gives_it_no_home() {
    check(|| {
        let table = loom::sync::Arc::new(ForwardingTable::new(2, 0, 0));
        let home = Place::Port(PortId(1));
        table.learn(STATION, home);
        table.set_now(100);
        // Neither is the model's own thread, which loom has go first.
        let hear = |place| {
            let table = loom::sync::Arc::clone(&table);
            thread::spawn(move || table.learn(STATION, place))
        };
        for worker in [hear(remote()), hear(home)] {
            worker.join().expect("a worker");
        }
        for _ in 0..3 {
            table.learn(STATION, remote());
            table.learn(STATION, home);
        }
        assert_eq!(table.find(STATION), Some(home));
        assert_eq!(table.learn(STATION, remote()), Learnt::Flapping);
    });
}
