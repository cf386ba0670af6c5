//! The table of stations against a plain map, and with several threads at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use underpass::forward::{FLAP_HOLD, FLAP_MOVES, ForwardingTable, Learnt, Place, RemoteId};
use underpass::port::PortId;
use underpass::wire::MacAddr;

fn mac(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr([2, 0, a, b, c, d])
}

fn place(number: u8) -> Place {
    match number % 2 {
        0 => Place::Port(PortId(number.into())),
        _ => Place::Remote(RemoteId::new(number.into()).unwrap()),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Hear(u32, u8),
    Wait(u32),
    Lose(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..40_u32, 0..4_u8).prop_map(|(mac, place)| Step::Hear(mac, place)),
        2 => (1..60_u32).prop_map(Step::Wait),
        1 => (0..4_u8).prop_map(Step::Lose),
    ];
    prop::collection::vec(step, 1..300)
}

/// What a map knows of a station: its place, when it was heard of, and when and how often it moved.
#[derive(Clone, Copy)]
struct Naive {
    place: Place,
    heard: u32,
    since: u32,
    moves: u8,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_table_knows_what_a_map_knows(steps in steps(), limit in 5..60_u32) {
        const AGEING: u32 = 100;
        let table = ForwardingTable::new(limit, AGEING, 7);
        let mut naive: HashMap<u32, Naive> = HashMap::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Hear(number, at) => {
                    let learnt = table.learn(mac(number), place(at));
                    let full = naive.len() >= limit as usize;
                    let expected = match naive.get_mut(&number) {
                        None if full => Learnt::Full,
                        None => {
                            let new = Naive { place: place(at), heard: now, since: 0, moves: 0 };
                            naive.insert(number, new);
                            Learnt::New
                        }
                        Some(known) if known.place == place(at) => {
                            known.heard = now;
                            Learnt::Known
                        }
                        Some(known) => {
                            let passed = now - known.since;
                            if known.moves >= FLAP_MOVES && passed < FLAP_HOLD {
                                Learnt::Flapping
                            } else {
                                if (1..FLAP_MOVES).contains(&known.moves) && passed < 10 {
                                    known.moves += 1;
                                } else {
                                    (known.moves, known.since) = (1, now);
                                }
                                if known.moves == FLAP_MOVES {
                                    known.since = now;
                                }
                                (known.place, known.heard) = (place(at), now);
                                Learnt::Moved
                            }
                        }
                    };
                    prop_assert_eq!(learnt, expected);
                }
                Step::Wait(seconds) => {
                    now += seconds;
                    table.set_now(now);
                    let before = naive.len();
                    naive.retain(|_, known| now - known.heard < AGEING);
                    prop_assert_eq!(table.expire(), before - naive.len());
                }
                Step::Lose(at) => {
                    let before = naive.len();
                    naive.retain(|_, known| known.place != place(at));
                    let forgotten = table.forget(|gone| gone == place(at));
                    prop_assert_eq!(forgotten, before - naive.len());
                }
            }
            prop_assert_eq!(table.len(), naive.len());
        }
        for number in 0..40 {
            let known = naive.get(&number).map(|known| known.place);
            prop_assert_eq!(table.find(mac(number)), known);
        }
        let mut seen: Vec<_> = table.stations().map(|s| (s.mac, s.place, s.age)).collect();
        let known = naive.iter().map(|(n, known)| (mac(*n), known.place, now - known.heard));
        let mut known: Vec<_> = known.collect();
        seen.sort();
        known.sort();
        prop_assert_eq!(seen, known);
    }
}

/// As many as it is made for find room, whatever their addresses.
#[test]
fn a_table_takes_all_that_it_is_made_for_and_counts_the_rest() {
    for seed in 0..5 {
        let table = ForwardingTable::new(8192, 0, seed);
        for number in 0..8192 {
            assert_eq!(
                table.learn(mac(number * 256), place(1)),
                Learnt::New,
                "{number}"
            );
        }
        assert_eq!(table.learn(mac(1), place(1)), Learnt::Full);
        assert_eq!((table.len(), table.refused()), (8192, 1));
        assert!((0..8192).all(|number| table.find(mac(number * 256)) == Some(place(1))));
        assert_eq!(table.expire(), 0, "nothing ages");
    }
}

/// Threads learn, move and forget at once: no station is ever seen at a place that nobody named for
/// it, and in the end every one is there once, and counted.
#[test]
fn threads_that_learn_at_once_leave_one_entry_each() {
    const STATIONS: u32 = 64;
    let table = ForwardingTable::new(1000, 5, 3);
    let done = AtomicBool::new(false);
    // Station n is at port n or at remote n, and nowhere else.
    let at = |number: u32, thread: u32| match thread % 2 {
        0 => Place::Port(PortId(number as u16)),
        _ => Place::Remote(RemoteId::new(number as u16).unwrap()),
    };
    thread::scope(|scope| {
        let learners: Vec<_> = (0..3)
            .map(|thread| {
                let (table, at) = (&table, &at);
                scope.spawn(move || {
                    for round in 0..2000 {
                        for number in 0..STATIONS {
                            table.learn(mac(number), at(number, thread));
                        }
                        table.set_now(round / 10);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                table.forget(|place| matches!(place, Place::Port(PortId(n)) if n % 3 == 0));
                for number in 0..STATIONS {
                    let found = table.find(mac(number));
                    let right = [None, Some(at(number, 0)), Some(at(number, 1))];
                    assert!(right.contains(&found), "{number}: {found:?}");
                }
            }
        });
        learners
            .into_iter()
            .for_each(|learner| learner.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    let mut seen: Vec<_> = table.stations().map(|station| station.mac).collect();
    assert_eq!(seen.len(), table.len());
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), table.len(), "each once");
}
