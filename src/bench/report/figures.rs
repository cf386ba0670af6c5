//! Which figures of a report are drawn, and how.

use plotters::style::RGBColor;

use super::plots::{Bars, Lines, PARTS, colour};
use super::{Cell, Cost, Latency, Pair, Report, Round, Spread, TcpCell, spread};
use crate::bench::load::profile::FrameSize;
use crate::bench::systems::System;
use crate::bench::topology::Direction;

/// Throughput of each system, a group of bars for each size.
pub(super) fn throughput(report: &Report, direction: Direction) -> Bars {
    let rate = |cell: &Cell| cell.figure(|round| Some(round.pdr? / 1e6));
    by_size(report, direction, "throughput (PDR)", "Mpps", rate)
}

/// The same against native routing of the same rounds; nothing without that.
pub(super) fn ratios(report: &Report, direction: Direction) -> Option<Bars> {
    let is_native = |cell: &Cell| (cell.system, cell.direction) == (System::Native, direction);
    report.cells.iter().find(|cell| is_native(cell))?;
    let ratio = |cell: &Cell| {
        let native = report.find(System::Native, direction, cell.size)?;
        let pairs = cell.pairs(native, |round| round.pdr);
        let ratios: Vec<_> = pairs.iter().filter_map(Pair::ratio).collect();
        spread(&ratios)
    };
    let title = "throughput against native routing of the same round";
    let bars = by_size(report, direction, title, "native = 1", ratio);
    Some(Bars {
        line: Some(1.0),
        ..bars
    })
}

/// Percentiles of the latency at a part of the PDR.
pub(super) fn latency(report: &Report, direction: Direction, size: FrameSize, load: f64) -> Lines {
    const PERCENTILES: [fn(&Latency) -> u64; 5] = [
        |one| one.p50,
        |one| one.p90,
        |one| one.p99,
        |one| one.p999,
        |one| one.max,
    ];
    let of = |system: System| {
        let cell = report.find(system, direction, size)?;
        let values = PERCENTILES.map(|percentile| cell.latency(load, percentile));
        let values: Option<Vec<_>> = values.into_iter().collect();
        let values = values?.iter().map(|value| value.median / 1000.0).collect();
        Some((system.name().to_owned(), colour(system), values))
    };
    Lines {
        title: format!(
            "{}, {}: one-way latency at {:.0} % of the PDR",
            direction.name(),
            size.in_words(),
            load * 100.0
        ),
        unit: "microseconds",
        places: vec!["50 %", "90 %", "99 %", "99.9 %", "max"],
        series: report.measured(direction).filter_map(of).collect(),
    }
}

/// Who spends the time for a packet; nothing where it is not known.
pub(super) fn cost(report: &Report, direction: Direction, size: FrameSize) -> Option<Bars> {
    let group = |system: System| {
        let part = |part: fn(&Cost) -> f64| {
            let cell = report.find(system, direction, size)?;
            cell.figure(|round| round.cost.as_ref().map(part))
        };
        let parts = vec![
            part(|cost| cost.process_ns),
            part(|cost| cost.kernel_thread_ns),
            part(|cost| cost.sender_ns),
        ];
        (system.name().to_owned(), parts)
    };
    let groups: Vec<_> = report.measured(direction).map(group).collect();
    let known = groups.iter().any(|(_, parts)| parts[0].is_some());
    let names = ["process", "kernel threads", "sender's softirq"];
    known.then(|| Bars {
        title: format!(
            "{}, {}: CPU time for a packet at the PDR",
            direction.name(),
            size.in_words()
        ),
        unit: "ns",
        digits: 0,
        series: names.map(str::to_owned).into_iter().zip(PARTS).collect(),
        groups,
        stacked: true,
        line: None,
    })
}

/// TCP's goodput.
pub(super) fn tcp(cells: &[TcpCell]) -> Bars {
    let systems: Vec<_> = {
        let named = |system: &System| cells.iter().any(|cell| cell.system == *system);
        System::ALL.into_iter().filter(named).collect()
    };
    let group = |offloads: bool| {
        let of = |system: &System| {
            let mut cells = cells.iter();
            let cell = cells.find(|c| (c.system, c.offloads) == (*system, offloads))?;
            Some(cell.goodput()?.scaled(1e-9))
        };
        let name = if offloads {
            "links with offloads"
        } else {
            "links without offloads"
        };
        (name.to_owned(), systems.iter().map(of).collect())
    };
    Bars {
        title: "TCP goodput of one connection".to_owned(),
        unit: "Gb/s",
        digits: 2,
        series: systems.iter().map(|system| named(*system)).collect(),
        groups: [false, true].map(group).into(),
        stacked: false,
        line: None,
    }
}

fn by_size(
    report: &Report,
    direction: Direction,
    title: &str,
    unit: &'static str,
    figure: impl Fn(&Cell) -> Option<Spread>,
) -> Bars {
    let systems: Vec<_> = report.measured(direction).collect();
    let group = |size: FrameSize| {
        let values = systems.iter();
        let values = values.map(|system| figure(report.find(*system, direction, size)?));
        (size.in_words(), values.collect())
    };
    Bars {
        title: format!("{}: {title}", direction.name()),
        unit,
        digits: 2,
        series: systems.iter().map(|system| named(*system)).collect(),
        groups: report.sizes(direction).into_iter().map(group).collect(),
        stacked: false,
        line: None,
    }
}

fn named(system: System) -> (String, RGBColor) {
    (system.name().to_owned(), colour(system))
}

impl Report {
    /// The systems that were measured in a direction, in the order of [`System::ALL`].
    pub fn measured(&self, direction: Direction) -> impl Iterator<Item = System> {
        let of_direction = self
            .cells
            .iter()
            .filter(move |cell| cell.direction == direction);
        let systems: Vec<_> = of_direction.map(|cell| cell.system).collect();
        let all = System::ALL.into_iter().chain([System::Given]);
        all.filter(move |system| systems.contains(system))
    }

    /// The sizes that were measured in a direction.
    pub fn sizes(&self, direction: Direction) -> Vec<FrameSize> {
        let settings = self.settings().into_iter();
        let of_direction = settings.filter(|(one, _)| *one == direction);
        of_direction.map(|(_, size)| size).collect()
    }
}

/// A cell's figure that a round may lack.
pub(super) fn of_cost(round: &Round, part: fn(&Cost) -> f64) -> Option<f64> {
    round.cost.as_ref().map(part)
}
