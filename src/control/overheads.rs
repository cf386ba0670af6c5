//! The bytes that encapsulation takes, over all routes.

use std::collections::BTreeMap;

use super::report::overhead;
use super::resolve::{Delta, Wanted};

/// How many routes there are of each overhead.
#[derive(Debug, Default)]
pub struct Overheads(BTreeMap<u16, usize>);

impl Overheads {
    /// Those of all routes.
    pub fn new(wanted: &Wanted) -> Self {
        let mut overheads = Self::default();
        for target in wanted.routes.values() {
            *overheads.0.entry(overhead(target)).or_default() += 1;
        }
        overheads
    }

    /// Follows what has changed.
    pub fn update(&mut self, wanted: &Wanted, delta: &Delta) {
        for (prefix, old) in &delta.routes {
            if let Some(target) = wanted.routes.get(prefix) {
                *self.0.entry(overhead(target)).or_default() += 1;
            }
            if let Some(old) = old
                && let Some(count) = self.0.get_mut(&overhead(old))
            {
                *count = count.saturating_sub(1);
            }
        }
        self.0.retain(|_, count| *count > 0);
    }

    /// The largest.
    pub fn largest(&self) -> u16 {
        self.0.keys().next_back().copied().unwrap_or(0)
    }
}
