//! How often a port is looked at that has nothing.

/// Rounds that are passed over at most.
const LONGEST: u8 = 15;

/// When to look at a port next.
///
/// An AF_XDP ring that is empty is seen to be so in memory; a device that is read from takes a system
/// call to say so, half a microsecond of each round in which other ports are busy. So one that had nothing
/// is passed over, for a round, then three, up to [`LONGEST`]; what comes meanwhile waits for so many batches
/// of the other ports at most, some 50 microseconds each where these are full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    costs_a_call: bool,
    gap: u8,
    left: u8,
}

impl Pace {
    pub(super) const fn new(costs_a_call: bool) -> Self {
        Self {
            costs_a_call,
            gap: 0,
            left: 0,
        }
    }

    /// Whether to look now; asked once a round.
    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                false
            }
            None => true,
        }
    }

    /// What looking has shown.
    #[inline]
    pub(super) fn note(&mut self, found: bool) {
        self.gap = match (found, self.costs_a_call) {
            (false, true) => (2 * self.gap + 1).min(LONGEST),
            _ => 0,
        };
        self.left = self.gap;
    }

    /// Look at once: something may have come.
    pub(super) const fn reset(&mut self) {
        (self.gap, self.left) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::run::SPIN_ROUNDS;

    /// In which of so many rounds an empty port is looked at.
    fn looks(pace: &mut Pace, rounds: usize) -> Vec<usize> {
        let due = |_: &usize| {
            let due = pace.is_due();
            if due {
                pace.note(false);
            }
            due
        };
        (0..rounds).filter(due).collect()
    }

    #[test]
    fn an_empty_port_is_looked_at_less_and_less_but_before_every_sleep() {
        let mut pace = Pace::new(true);
        assert_eq!(looks(&mut pace, 50), [0, 2, 6, 14, 30, 46]);
        assert!(looks(&mut pace, SPIN_ROUNDS as usize).len() > 1);
        pace.reset();
        assert_eq!(looks(&mut pace, 3), [0, 2]);
    }

    #[test]
    fn what_is_busy_or_costs_nothing_is_looked_at_each_round() {
        let mut free = Pace::new(false);
        assert_eq!(looks(&mut free, 4), [0, 1, 2, 3]);
        let mut busy = Pace::new(true);
        for _ in 0..4 {
            assert!(busy.is_due());
            busy.note(true);
        }
    }
}
