//! Paths to other nodes measured with packets of our own, one after the other, in a thread.
//!
//! ICMP errors can be forged by whoever knows what our packets look like, and they can be filtered. A
//! probe's answer is neither: it comes from the far end, and nobody on the side knows its number
//! (RFC 8899 section 4.6.2, RFC 4821 section 7.7).

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::probe::{Prober, Target};
use crate::wire::Mtu;

/// A path's measurement.
#[derive(Debug)]
pub struct Measured {
    /// The far end.
    pub far_end: IpAddr,
    /// The largest packet that gets through, outer header included; none if nothing does, or the far
    /// end answers no echo.
    pub found: Option<Mtu>,
}

/// Whose paths are to be measured: first come, first served, and nobody twice; what errors have said takes
/// turns with what is measured by the clock. It holds no more than there are far ends, and turns none away:
/// who was would be the same ones each time.
#[derive(Debug, Default)]
pub struct Queue {
    doubtful: Turns,
    regular: Turns,
    /// Whether a doubtful one was the last.
    was_doubtful: bool,
    /// The one that is being measured.
    in_flight: Option<IpAddr>,
}

/// Those that wait, each once; who is no more among `all` has no turn.
#[derive(Debug, Default)]
struct Turns {
    order: VecDeque<IpAddr>,
    all: BTreeSet<IpAddr>,
}

impl Turns {
    fn add(&mut self, far_end: IpAddr) {
        if self.all.insert(far_end) {
            self.order.push_back(far_end);
        }
    }

    fn next(&mut self) -> Option<IpAddr> {
        while let Some(far_end) = self.order.pop_front() {
            if self.all.remove(&far_end) {
                return Some(far_end);
            }
        }
        None
    }
}

impl Queue {
    /// Adds a far end, unless it waits or is being measured already. `doubtful`: whether an error has said
    /// something of its path.
    pub fn add(&mut self, far_end: IpAddr, doubtful: bool) {
        if self.in_flight == Some(far_end) {
            return;
        }
        if doubtful {
            // It need not wait for its other turn.
            self.regular.all.remove(&far_end);
            self.doubtful.add(far_end);
        } else if !self.doubtful.all.contains(&far_end) {
            self.regular.add(far_end);
        }
    }

    /// Whose turn it is; nobody's while another one is being measured.
    pub fn begin(&mut self) -> Option<IpAddr> {
        if self.in_flight.is_some() {
            return None;
        }
        for doubtful in [!self.was_doubtful, self.was_doubtful] {
            let turns = match doubtful {
                true => &mut self.doubtful,
                false => &mut self.regular,
            };
            if let Some(far_end) = turns.next() {
                (self.was_doubtful, self.in_flight) = (doubtful, Some(far_end));
                break;
            }
        }
        self.in_flight
    }

    /// The measurement is done that was begun.
    pub fn finish(&mut self) {
        self.in_flight = None;
    }
}

/// The thread that measures, and who waits for it; it ends when this is dropped and its last measurement
/// is done.
pub struct PathProber {
    /// Whose paths are to be measured.
    pub queue: Queue,
    wanted: Sender<(IpAddr, Target)>,
    measured: Receiver<Measured>,
}

impl PathProber {
    /// Starts the thread. Without a prober, nothing is ever found.
    pub fn start(prober: Option<Arc<Prober>>) -> Self {
        let (wanted, targets) = bounded::<(IpAddr, Target)>(1);
        let (sender, measured) = bounded(1);
        thread::spawn(move || {
            for (far_end, target) in targets {
                let found = prober.as_ref().and_then(|prober| measure(prober, &target));
                if sender.send(Measured { far_end, found }).is_err() {
                    return;
                }
            }
        });
        Self {
            queue: Queue::default(),
            wanted,
            measured,
        }
    }

    /// Has the path measured whose turn it is. There is room: the queue begins one at a time.
    pub fn measure(&self, far_end: IpAddr, target: Target) {
        drop(self.wanted.try_send((far_end, target)));
    }

    /// Where measurements arrive.
    pub fn measured(&self) -> Receiver<Measured> {
        self.measured.clone()
    }
}

fn measure(prober: &Prober, target: &Target) -> Option<Mtu> {
    prober
        .measure(target)
        .inspect_err(|error| log::debug!("measuring a path: {error}"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// Measures what waits; returns whose turn it was, in that order.
    fn measure_all(queue: &mut Queue) -> Vec<IpAddr> {
        let turn = |_| {
            let far_end = queue.begin();
            queue.finish();
            far_end
        };
        (0..1000).map_while(turn).collect()
    }

    fn far(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(0x0a1e_0000 + n))
    }

    #[test]
    fn every_path_that_is_to_be_measured_has_its_turn_once() {
        let everybody: Vec<_> = (0..200).map(far).collect();
        let mut queue = Queue::default();
        for far_end in everybody.iter().chain(&everybody) {
            queue.add(*far_end, false);
        }
        assert_eq!(queue.begin(), Some(far(0)));
        queue.add(far(0), true);
        assert_eq!(queue.begin(), None, "one is being measured");
        queue.finish();
        assert_eq!(measure_all(&mut queue), everybody[1..]);
        // Who had a turn may have another.
        queue.add(far(7), false);
        assert_eq!(measure_all(&mut queue), [far(7)]);
    }

    /// A round of silent nodes takes long; a forger could name many. Neither keeps the other waiting.
    #[test]
    fn what_errors_have_said_takes_turns_with_the_clocks() {
        let mut queue = Queue::default();
        (0..3).for_each(|n| queue.add(far(n), false));
        (10..13).for_each(|n| queue.add(far(n), true));
        let turns = measure_all(&mut queue);
        assert_eq!(turns, [10, 0, 11, 1, 12, 2].map(far));
        // Who is asked for by both has one turn.
        (0..2).for_each(|n| queue.add(far(n), false));
        queue.add(far(1), true);
        queue.add(far(1), false);
        assert_eq!(measure_all(&mut queue), [1, 0].map(far));
    }
}
