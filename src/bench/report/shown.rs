//! Rates as tables and pages write them, with what is to be known of them.

use super::statistics::ended_early;
use super::{Cell, Report, Round, Setting, Spread, TcpCell, spread};

impl Report {
    /// A cell's PDR in millions a second: `0.523`; `0.523 (2 of 3)` where not all rounds found one;
    /// `0.523 *` where a search ended early (see [`Report::footnote`]); `none` where no round did.
    pub fn pdr(&self, cell: &Cell) -> String {
        self.rate(cell, Searched::PDR)
    }

    /// The same of its NDR.
    pub fn ndr(&self, cell: &Cell) -> String {
        self.rate(cell, Searched::NDR)
    }

    /// What the `*` at a setting's rates means, if there is one.
    pub fn footnote(&self, (direction, size): Setting) -> Option<String> {
        let here = |cell: &&Cell| (cell.direction, cell.size) == (direction, size);
        let cells = self.cells.iter().filter(here);
        let open = cells.flat_map(|cell| {
            [Searched::PDR, Searched::NDR].map(|searched| self.left_open(cell, searched))
        });
        let open = open.flatten().max_by(f64::total_cmp)?;
        Some(format!(
            "* the search ended early, as it had made all trials that it may: such a rate is up to {:.0} % \
             below the smallest that failed",
            open * 100.0
        ))
    }

    /// TCP's goodput in Gb/s, over its rounds.
    pub fn goodput(&self, cell: &TcpCell) -> String {
        of_rounds(cell.goodput(), self.method.rounds, 1e-9, 2)
    }

    fn rate(&self, cell: &Cell, searched: Searched) -> String {
        let text = of_rounds(cell.figure(searched.rate), self.method.rounds, 1e-6, 3);
        match self.left_open(cell, searched) {
            Some(_) => text + " *",
            None => text,
        }
    }

    /// How far apart the bounds of a rate are, if that is more than was asked for.
    fn left_open(&self, cell: &Cell, searched: Searched) -> Option<f64> {
        let found = cell.rounds.iter();
        let found = found.filter(|round| (searched.rate)(round).is_some());
        let widest = found.map(searched.width).max_by(f64::total_cmp)?;
        ended_early(widest, self.method.width).then_some(widest)
    }
}

impl TcpCell {
    /// Bits a second, over its rounds.
    pub fn goodput(&self) -> Option<Spread> {
        let values: Vec<_> = self.rounds.iter().map(|round| round.bits).collect();
        spread(&values)
    }
}

/// A rate that was searched for.
#[derive(Clone, Copy)]
struct Searched {
    rate: fn(&Round) -> Option<f64>,
    width: fn(&Round) -> f64,
}

impl Searched {
    const PDR: Self = Self {
        rate: |round| round.pdr,
        width: |round| round.pdr_width,
    };
    const NDR: Self = Self {
        rate: |round| round.ndr,
        width: |round| round.ndr_width,
    };
}

/// A median, with how many rounds it is of where that is not all of them.
pub fn of_rounds(figure: Option<Spread>, rounds: usize, scale: f64, digits: usize) -> String {
    let Some(figure) = figure else {
        return "none".to_owned();
    };
    let median = format!("{:.digits$}", figure.median * scale);
    if figure.rounds < rounds {
        format!("{median} ({} of {rounds})", figure.rounds)
    } else {
        median
    }
}
