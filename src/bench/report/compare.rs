//! Two runs side by side: of two versions on one machine, say.

use super::{Report, Spread, spread};

/// What changed from one run to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What differs in how and where they were measured.
    pub differences: Vec<String>,
    /// Each figure that both have.
    pub rows: Vec<Row>,
}

/// One figure of both runs: medians over their rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// System, direction, size and figure.
    pub what: String,
    /// The first run's.
    pub before: f64,
    /// The second's.
    pub after: f64,
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
    /// The rounds overlap, or there is only one.
    NotConclusive,
}

impl Change {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::NotConclusive => "not conclusive",
        }
    }
}

/// Compares two runs.
pub fn compare(before: &Report, after: &Report) -> Comparison {
    let width = before.method.width.max(after.method.width);
    let mut rows = Vec::new();
    for old in &before.cells {
        let Some(new) = after.find(old.system, old.direction, old.size) else {
            continue;
        };
        let at = format!("{} {} {}", old.system, old.direction.name(), old.size);
        let mut add = |what: &str, unit, scale: f64, higher_is_better, figures: [Vec<f64>; 2]| {
            let [old, new] = figures.map(|values| values.iter().map(|v| v * scale).collect());
            rows.extend(row(
                format!("{at} {what}"),
                unit,
                higher_is_better,
                width,
                old,
                new,
            ));
        };
        let both = |figure: &dyn Fn(&super::Round) -> Option<f64>| {
            [old, new].map(|cell| cell.rounds.iter().filter_map(figure).collect::<Vec<_>>())
        };
        add("PDR", "Mpps", 1e-6, true, both(&|round| round.pdr));
        add("NDR", "Mpps", 1e-6, true, both(&|round| round.ndr));
        let cost = |round: &super::Round| Some(round.cost.as_ref()?.packet_ns);
        add("cost", "ns/packet", 1.0, false, both(&cost));
        let p99 = |round: &super::Round| Some(round.latency_at(0.5)?.p99 as f64);
        add("p99 at half load", "us", 1e-3, false, both(&p99));
    }
    for old in &before.tcp {
        let is =
            |cell: &&super::TcpCell| (cell.system, cell.offloads) == (old.system, old.offloads);
        let Some(new) = after.tcp.iter().find(is) else {
            continue;
        };
        let offloads = if old.offloads { "on" } else { "off" };
        let what = format!("{} TCP, offloads {offloads}", old.system);
        let [old, new] =
            [old, new].map(|cell| cell.rounds.iter().map(|round| round.bits / 1e9).collect());
        rows.extend(row(what, "Gb/s", true, width, old, new));
    }
    Comparison {
        differences: differences(before, after),
        rows,
    }
}

fn row(
    what: String,
    unit: &'static str,
    higher_is_better: bool,
    width: f64,
    before: Vec<f64>,
    after: Vec<f64>,
) -> Option<Row> {
    let (old, new) = (spread(&before)?, spread(&after)?);
    Some(Row {
        what,
        before: old.median,
        after: new.median,
        unit,
        change: change(old, new, higher_is_better, width),
    })
}

fn change(old: Spread, new: Spread, higher_is_better: bool, width: f64) -> Change {
    if old.rounds < 2 || new.rounds < 2 {
        return Change::NotConclusive;
    }
    let (higher, lower) = if higher_is_better {
        (Change::Better, Change::Worse)
    } else {
        (Change::Worse, Change::Better)
    };
    if new.least > old.most * (1.0 + width) {
        return higher;
    }
    if new.most < old.least * (1.0 - width) {
        return lower;
    }
    let (least, most) = (old.least.min(new.least), old.most.max(new.most));
    if most <= least * (1.0 + 2.0 * width) {
        Change::Same
    } else {
        Change::NotConclusive
    }
}

fn differences(before: &Report, after: &Report) -> Vec<String> {
    let (old, new) = (&before.machine, &after.machine);
    let (was, is) = (&before.method, &after.method);
    let pairs = [
        ("CPU", old.cpu.clone(), new.cpu.clone()),
        ("kernel", old.kernel.clone(), new.kernel.clone()),
        ("CPUs", old.cpus.to_string(), new.cpus.to_string()),
        ("flows", was.flows.to_string(), is.flows.to_string()),
        (
            "destinations",
            was.destinations.to_string(),
            is.destinations.to_string(),
        ),
        (
            "softirq",
            format!("{:?}", was.softirq),
            format!("{:?}", is.softirq),
        ),
        ("AF_XDP", format!("{:?}", was.io), format!("{:?}", is.io)),
        (
            "routes",
            format!("{:?}", was.routes),
            format!("{:?}", is.routes),
        ),
        (
            "real-time priority",
            was.realtime.to_string(),
            is.realtime.to_string(),
        ),
        (
            "trial length",
            was.trial_seconds.to_string(),
            is.trial_seconds.to_string(),
        ),
    ];
    let differs = pairs.into_iter().filter(|(_, old, new)| old != new);
    differs
        .map(|(what, old, new)| format!("{what}: {old}, then {new}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(values: &[f64]) -> Spread {
        spread(values).unwrap()
    }

    #[test]
    fn only_rounds_that_are_all_apart_decide() {
        let decide = |old: &[f64], new: &[f64]| change(rounds(old), rounds(new), true, 0.01);
        assert_eq!(decide(&[1.0, 1.1], &[1.2, 1.3]), Change::Better);
        assert_eq!(decide(&[1.2, 1.3], &[1.0, 1.1]), Change::Worse);
        assert_eq!(decide(&[1.0, 1.1], &[1.05, 1.3]), Change::NotConclusive);
        assert_eq!(decide(&[1.0, 1.01], &[1.005, 1.0]), Change::Same);
        assert_eq!(decide(&[1.0], &[2.0]), Change::NotConclusive);
    }

    #[test]
    fn less_is_better_for_latency() {
        let (low, high) = (rounds(&[1.0, 1.1]), rounds(&[2.0, 2.1]));
        assert_eq!(change(low, high, false, 0.01), Change::Worse);
        assert_eq!(change(high, low, false, 0.01), Change::Better);
    }
}
