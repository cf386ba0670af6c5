//! How eagerly a peer is talked with: a peer whose sessions fail is tried, and let in, ever less often.

use std::time::Duration;

use super::Time;

/// One failure is forgotten in this time.
const FORGET: Duration = Duration::from_secs(5);
/// So many failures in a row are anybody's bad day; beyond, connections are refused until one is forgotten.
const PATIENCE: u32 = 60;
/// The longest pause between tries to reach a peer that does not answer.
const LONGEST_RETRY: Duration = Duration::from_secs(15);

/// What has failed lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    last: Time,
    unanswered: u32,
}

impl Backoff {
    /// A session has failed: when to try again.
    pub(super) fn failed(&mut self, now: Time) -> Duration {
        self.forget(now);
        self.failures = self.failures.saturating_add(1).min(PATIENCE + 1);
        self.unanswered = 0;
        Duration::from_secs(match self.failures {
            0..=10 => 1,
            11..=20 => 5,
            21..=40 => 15,
            _ => 30,
        })
    }

    /// The peer could not be reached: when to try again.
    pub(super) fn unanswered(&mut self) -> Duration {
        self.unanswered = (self.unanswered + 1).min(8);
        Duration::from_secs(1 << (self.unanswered - 1)).min(LONGEST_RETRY)
    }

    /// The peer has answered.
    pub(super) fn answered(&mut self) {
        self.unanswered = 0;
    }

    /// Whether the peer may connect.
    pub(super) fn lets_in(&mut self, now: Time) -> bool {
        self.forget(now);
        self.failures <= PATIENCE
    }

    fn forget(&mut self, now: Time) {
        let passed = now.saturating_sub(self.last).as_secs() / FORGET.as_secs();
        if passed > 0 {
            self.failures = self
                .failures
                .saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX));
            self.last += FORGET * u32::try_from(passed).unwrap_or(0);
        }
        if self.failures == 0 {
            self.last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that resets every second is let in once in five seconds in the long run.
    #[test]
    fn a_peer_that_fails_every_second_is_slowed_down() {
        let (mut backoff, mut let_in) = (Backoff::default(), Vec::new());
        for second in 0..1000 {
            let now = Duration::from_secs(second);
            if backoff.lets_in(now) {
                let_in.push(second);
                backoff.failed(now);
            }
        }
        let early = let_in.iter().filter(|second| **second < 60).count();
        let late = let_in.iter().filter(|second| **second >= 500).count();
        assert_eq!(early, 60);
        assert!((95..=105).contains(&late), "{late}");
        assert!(backoff.lets_in(Duration::from_secs(1010)));
        assert_eq!(
            backoff.failed(Duration::from_secs(10_000)),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn tries_become_rarer() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..6).map(|_| backoff.unanswered().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15]);
        backoff.answered();
        assert_eq!(backoff.unanswered().as_secs(), 1);
    }
}
