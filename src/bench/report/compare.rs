//! Two runs side by side: of two versions on one machine, say.

use super::statistics::ended_early;
use super::{Cell, Report, Round, Spread};

/// What changed from one run to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What differs in how and where they were measured.
    pub differences: Vec<String>,
    /// Each figure that either has.
    pub rows: Vec<Row>,
    /// What either says of what it left out.
    pub notes: Vec<String>,
}

/// One figure of both runs, over their rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// System, direction, size and figure.
    pub what: String,
    /// The first run's; nothing if it found none.
    pub before: Option<Spread>,
    /// The second's.
    pub after: Option<Spread>,
    /// How many rounds the runs had.
    pub rounds: [usize; 2],
    /// What they are in.
    pub unit: &'static str,
    /// What follows.
    pub change: Change,
}

/// What two figures say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Every round of the second run is better than every round of the first, by more than the
    /// search leaves open.
    Better,
    /// Every round is worse.
    Worse,
    /// All rounds of both are as good as the same.
    Same,
    /// The rounds overlap, some found nothing, or there is only one.
    NotConclusive,
    /// One of the runs, or both, found no such figure in any round.
    NoneFound,
    /// The second run did not measure this.
    OnlyInFirst,
    /// The first did not.
    OnlyInSecond,
}

impl Change {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::NotConclusive => "not conclusive",
            Self::NoneFound => "none found",
            Self::OnlyInFirst => "only in the first",
            Self::OnlyInSecond => "only in the second",
        }
    }
}

/// Compares two runs.
pub fn compare(before: &Report, after: &Report) -> Comparison {
    let runs = [before, after];
    let mut rows = Vec::new();
    for (system, direction, size) in both(runs, |report| {
        let cells = report.cells.iter();
        cells.map(|cell| (cell.system, cell.direction, cell.size))
    }) {
        let at = format!("{system} {} {size}", direction.name());
        let cells = runs.map(|report| report.find(system, direction, size));
        rows.extend(of_cells(&at, runs, cells));
    }
    for (system, offloads) in both(runs, |report| {
        let cells = report.tcp.iter();
        cells.map(|cell| (cell.system, cell.offloads))
    }) {
        let cells = runs.map(|report| {
            let mut cells = report.tcp.iter();
            cells.find(|cell| (cell.system, cell.offloads) == (system, offloads))
        });
        let on = if offloads { "on" } else { "off" };
        let what = format!("{system} TCP, offloads {on}");
        let sides = cells.map(|cell| cell.map(|cell| Side::of(cell.goodput(), 1e-9)));
        rows.push(row(what, "Gb/s", true, runs, sides));
    }
    Comparison {
        differences: differences(before, after),
        rows,
        notes: notes(before, after),
    }
}

/// What either of two runs has: what the first has, then what only the second has.
fn both<'a, T: PartialEq, I: Iterator<Item = T>>(
    [before, after]: [&'a Report; 2],
    all: impl Fn(&'a Report) -> I,
) -> Vec<T> {
    let mut found: Vec<T> = all(before).collect();
    for one in all(after) {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// A run's figure.
#[derive(Debug, Clone, Copy)]
struct Side {
    figure: Option<Spread>,
    /// How far it may be from the truth, where a search left more open than it was to.
    open: f64,
}

impl Side {
    fn of(figure: Option<Spread>, scale: f64) -> Self {
        Self {
            figure: figure.map(|figure| figure.scaled(scale)),
            open: 0.0,
        }
    }
}

fn of_cells(at: &str, runs: [&Report; 2], cells: [Option<&Cell>; 2]) -> Vec<Row> {
    let rate = |what: &str, rate: fn(&Round) -> Option<f64>, width: fn(&Round) -> f64| {
        let sides = cells.map(|cell| {
            let cell = cell?;
            let found = cell.rounds.iter().filter(|round| rate(round).is_some());
            Some(Side {
                open: found.map(width).fold(0.0, f64::max),
                ..Side::of(cell.figure(rate), 1e-6)
            })
        });
        row(format!("{at} {what}"), "Mpps", true, runs, sides)
    };
    let pdr = rate("PDR", |round| round.pdr, |round| round.pdr_width);
    if matches!(pdr.change, Change::OnlyInFirst | Change::OnlyInSecond) {
        return vec![pdr];
    }
    let less = |what: &str, unit, scale: f64, figure: fn(&Round) -> Option<f64>| {
        let sides = cells.map(|cell| Some(Side::of(cell?.figure(figure), scale)));
        row(format!("{at} {what}"), unit, false, runs, sides)
    };
    let ndr = rate("NDR", |round| round.ndr, |round| round.ndr_width);
    let cost = |round: &Round| Some(round.cost.as_ref()?.packet_ns);
    let p99 = |round: &Round| Some(round.latency_at(0.5)?.p99 as f64);
    let mut rows = vec![pdr, ndr];
    // Of what neither run could tell, such as costs between interfaces, there is nothing to say.
    rows.extend(
        [
            less("cost", "ns/packet", 1.0, cost),
            less("p99 at half load", "us", 1e-3, p99),
        ]
        .into_iter()
        .filter(|row| row.before.is_some() || row.after.is_some()),
    );
    rows
}

fn row(
    what: String,
    unit: &'static str,
    higher_is_better: bool,
    runs: [&Report; 2],
    sides: [Option<Side>; 2],
) -> Row {
    let [before, after] = sides.map(|side| side?.figure);
    let rounds = runs.map(|report| report.method.rounds);
    let width = runs[0].method.width.max(runs[1].method.width);
    let change = match (sides, before, after) {
        ([Some(_), None], ..) => Change::OnlyInFirst,
        ([None, _], ..) => Change::OnlyInSecond,
        (_, Some(old), Some(new)) if old.rounds < rounds[0] || new.rounds < rounds[1] => {
            Change::NotConclusive
        }
        ([Some(first), Some(second)], Some(old), Some(new)) => {
            let open = first.open.max(second.open);
            change(old, new, higher_is_better, width, open)
        }
        _ => Change::NoneFound,
    };
    Row {
        what,
        before,
        after,
        rounds,
        unit,
        change,
    }
}

/// `width` is what searches were to leave open, `open` what the widest of them left.
fn change(old: Spread, new: Spread, higher_is_better: bool, width: f64, open: f64) -> Change {
    let ended_early = ended_early(open, width);
    let open = open.max(width);
    if old.rounds < 2 || new.rounds < 2 {
        return Change::NotConclusive;
    }
    let (higher, lower) = if higher_is_better {
        (Change::Better, Change::Worse)
    } else {
        (Change::Worse, Change::Better)
    };
    if new.least > old.most * (1.0 + open) {
        return higher;
    }
    if new.most < old.least * (1.0 - open) {
        return lower;
    }
    let (least, most) = (old.least.min(new.least), old.most.max(new.most));
    if !ended_early && most <= least * (1.0 + 2.0 * width) {
        Change::Same
    } else {
        Change::NotConclusive
    }
}

fn differences(before: &Report, after: &Report) -> Vec<String> {
    let pairs = circumstances(before).into_iter().zip(circumstances(after));
    let differs = pairs.filter(|(old, new)| old != new);
    differs
        .map(|((what, old), (_, new))| format!("{what}: {old}, then {new}"))
        .collect()
}

/// What a run's figures depend on, beside what is measured.
fn circumstances(report: &Report) -> [(&'static str, String); 16] {
    let (machine, method) = (&report.machine, &report.method);
    let interfaces = match &method.interfaces {
        None => "the bench's own nodes".to_owned(),
        Some(given) => format!(
            "{} to {}, {} to {}",
            given.from, given.to, given.source, given.destination
        ),
    };
    [
        ("underpass", report.version.clone()),
        ("CPU", machine.cpu.clone()),
        ("kernel", machine.kernel.clone()),
        ("CPUs", machine.cpus.to_string()),
        ("the load's CPU", method.generator_cpu.to_string()),
        ("the nodes' CPU", method.node_cpu.to_string()),
        ("between", interfaces),
        ("flows", method.flows.to_string()),
        ("destinations", method.destinations.to_string()),
        ("softirq", format!("{:?}", method.softirq)),
        ("AF_XDP", format!("{:?}", method.io)),
        ("routes", format!("{:?}", method.routes)),
        ("real-time priority", method.realtime.to_string()),
        ("trial length", method.trial_seconds.to_string()),
        ("trials at each rate", method.trials.to_string()),
        ("the search's width", method.width.to_string()),
    ]
}

fn notes(before: &Report, after: &Report) -> Vec<String> {
    let notes = both([before, after], |report| report.notes.iter());
    let whose = |note: &String| match [before, after].map(|report| report.notes.contains(note)) {
        [true, true] => "both",
        [true, false] => "the first",
        _ => "the second",
    };
    let notes = notes.into_iter();
    notes
        .map(|note| format!("{}: {note}", whose(note)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::spread;
    use super::*;

    fn rounds(values: &[f64]) -> Spread {
        spread(values).unwrap()
    }

    #[test]
    fn only_rounds_that_are_all_apart_decide() {
        let decide = |old: &[f64], new: &[f64]| change(rounds(old), rounds(new), true, 0.01, 0.0);
        assert_eq!(decide(&[1.0, 1.1], &[1.2, 1.3]), Change::Better);
        assert_eq!(decide(&[1.2, 1.3], &[1.0, 1.1]), Change::Worse);
        assert_eq!(decide(&[1.0, 1.1], &[1.05, 1.3]), Change::NotConclusive);
        assert_eq!(decide(&[1.0, 1.01], &[1.005, 1.0]), Change::Same);
        assert_eq!(decide(&[1.0], &[2.0]), Change::NotConclusive);
    }

    #[test]
    fn what_a_search_left_open_does_not_decide() {
        let decide = |old: &[f64], new: &[f64]| change(rounds(old), rounds(new), true, 0.01, 0.2);
        assert_eq!(decide(&[1.0, 1.1], &[1.2, 1.3]), Change::NotConclusive);
        assert_eq!(decide(&[1.0, 1.1], &[1.4, 1.5]), Change::Better);
        assert_eq!(decide(&[1.0, 1.01], &[1.005, 1.0]), Change::NotConclusive);
    }

    #[test]
    fn less_is_better_for_latency() {
        let (low, high) = (rounds(&[1.0, 1.1]), rounds(&[2.0, 2.1]));
        assert_eq!(change(low, high, false, 0.01, 0.0), Change::Worse);
        assert_eq!(change(high, low, false, 0.01, 0.0), Change::Better);
    }
}
