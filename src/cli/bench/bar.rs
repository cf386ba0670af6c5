//! How far a bench is.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::bench::Progress;

/// One line on a terminal that says how far it is; nothing elsewhere.
pub(super) struct Bar {
    shown: bool,
    terminal: bool,
    start: Instant,
}

impl Bar {
    const WIDTH: usize = 24;

    pub(super) fn new() -> Self {
        Self {
            shown: false,
            terminal: io::stderr().is_terminal(),
            start: Instant::now(),
        }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        if !self.terminal {
            return;
        }
        let line = Self::line(progress, self.start.elapsed());
        eprint!("\r\x1b[K{line}");
        let _ = io::stderr().flush();
        self.shown = true;
    }

    fn line(progress: &Progress, elapsed: Duration) -> String {
        let Progress { done, of, doing } = progress;
        let filled = done * Self::WIDTH / (*of).max(1);
        let left = if *done > 0 {
            let left = elapsed.as_secs_f64() / *done as f64 * (of.saturating_sub(*done)) as f64;
            format!("{}:{:02} left", left as u64 / 60, left as u64 % 60)
        } else {
            String::new()
        };
        format!(
            "[{}{}] {done}/{of} {left}  {doing}",
            "=".repeat(filled),
            " ".repeat(Self::WIDTH - filled)
        )
    }

    pub(super) fn clear(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
            let _ = io::stderr().flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_says_how_far_it_is() {
        let progress = Progress {
            done: 10,
            of: 40,
            doing: "native".to_owned(),
        };
        assert_eq!(
            Bar::line(&progress, Duration::from_secs(50)),
            "[======                  ] 10/40 2:30 left  native"
        );
    }
}
