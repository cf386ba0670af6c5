//! The table of stations against a plain map, and with several threads at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use underpass::forward::{
    FLAP_HOLD, FLAP_MOVES, FLAP_WINDOW, ForwardingTable, Learnt, Place, RemoteId,
};
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

/// Of many stations, or of so few that they move all the time.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![Just(3_u32), Just(40)].prop_flat_map(steps_of)
}

fn steps_of(stations: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..stations, 0..4_u8).prop_map(|(mac, place)| Step::Hear(mac, place)),
        2 => prop_oneof![1..5_u32, 1..60_u32].prop_map(Step::Wait),
        1 => (0..4_u8).prop_map(Step::Lose),
    ];
    prop::collection::vec(step, 1..300)
}

/// What a map knows of a station: its place, when it was heard of, and when it moved since it began to.
#[derive(Clone)]
struct Naive {
    place: Place,
    home: Place,
    heard: u32,
    /// When it was learnt or moved last.
    arrived: u32,
    moves: Vec<u32>,
}

impl Naive {
    fn new(place: Place, now: u32) -> Self {
        Self {
            place,
            home: place,
            heard: now,
            arrived: now,
            moves: Vec::new(),
        }
    }

    fn hear(&mut self, place: Place, now: u32) -> Learnt {
        if place == self.place {
            self.heard = now;
            return Learnt::Known;
        }
        if !self.is_held(now) {
            self.count(now);
        }
        if self.is_held(now) && place != self.home {
            if self.place != self.home {
                (self.place, self.heard) = (self.home, now);
            }
            return Learnt::Flapping;
        }
        (self.place, self.heard) = (place, now);
        Learnt::Moved
    }

    fn is_held(&self, now: u32) -> bool {
        self.moves.len() == usize::from(FLAP_MOVES) && now - self.arrived < FLAP_HOLD
    }

    fn count(&mut self, now: u32) {
        if now - self.arrived >= FLAP_WINDOW {
            self.home = self.place;
        }
        let first = self.moves.first().copied();
        if self.moves.len() == usize::from(FLAP_MOVES)
            || first.is_some_and(|at| now - at >= FLAP_WINDOW)
        {
            self.moves.clear();
        }
        self.moves.push(now);
        self.arrived = now;
    }
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
                            naive.insert(number, Naive::new(place(at), now));
                            Learnt::New
                        }
                        Some(known) => known.hear(place(at), now),
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
                    for known in naive.values_mut().filter(|known| known.home == place(at)) {
                        known.home = known.place;
                    }
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
