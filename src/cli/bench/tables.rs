//! What a bench found, as tables.

use super::super::table::{Column, Table};
use crate::bench::Report;
use crate::bench::load::profile::FrameSize;
use crate::bench::report::{self, Cell, Round, Spread, Verdict, compare};
use crate::bench::systems::System;
use crate::bench::topology::Direction;

/// A whole run.
pub(super) fn report(report: &Report) -> String {
    let mut text = format!(
        "{} · {} CPUs · Linux {} · load {:.2} at the start · {:.0} s\n",
        report.machine.cpu,
        report.machine.cpus,
        report.machine.kernel,
        report.machine.load,
        report.seconds,
    );
    for ceiling in &report.generator {
        text += &format!(
            "generator alone, {}: {} Mpps\n",
            ceiling.size.in_words(),
            mpps(Some(ceiling.rate))
        );
    }
    for setting in report.settings() {
        let (direction, size) = setting;
        let what = format!("{}, {}", direction.name(), size.in_words());
        text += &format!("\n{what}\n");
        text += &throughput(report, setting).text();
        text += &format!("\n{what}: one-way latency in us at parts of the PDR\n");
        text += &latency(report, setting).text();
        if report.systems().len() > 1 {
            text += &format!("\n{what}: ratios; ? where rounds disagree: not conclusive\n");
            text += &ratios(report, setting).text();
        }
    }
    if !report.tcp.is_empty() {
        text += "\nTCP, one connection, workload to workload\n";
        text += &tcp(report).text();
    }
    for note in &report.notes {
        text += &format!("\nnote: {note}");
    }
    if !report.notes.is_empty() {
        text.push('\n');
    }
    text
}

/// What changed from one run to another.
pub(super) fn comparison(comparison: &compare::Comparison) -> String {
    let mut table = Table::new(&[
        Column::Left("WHAT"),
        Column::Right("BEFORE"),
        Column::Right("AFTER"),
        Column::Left("UNIT"),
        Column::Right("RATIO"),
        Column::Left("VERDICT"),
    ]);
    for row in &comparison.rows {
        table.row(vec![
            row.what.clone(),
            format!("{:.3}", row.before),
            format!("{:.3}", row.after),
            row.unit.to_owned(),
            format!("{:.3}", row.after / row.before),
            row.change.name().to_owned(),
        ]);
    }
    let warnings: String = comparison
        .differences
        .iter()
        .map(|difference| format!("not the same: {difference}\n"))
        .collect();
    warnings + &table.text()
}

type Setting = (Direction, FrameSize);

fn throughput(report: &Report, setting: Setting) -> Table {
    let mut table = Table::new(&[
        Column::Left("SYSTEM"),
        Column::Right("PDR Mpps"),
        Column::Right("SPREAD"),
        Column::Right("NDR Mpps"),
        Column::Right("OVERLOAD"),
        Column::Left("AGAINST NATIVE"),
        Column::Right("ns/PACKET"),
        Column::Right("CYCLES"),
        Column::Right("Mpps/CORE"),
        Column::Right("REORDERED"),
        Column::Right("TWICE"),
    ]);
    for (system, cell) in cells(report, setting) {
        let pdr = cell.figure(|round| round.pdr);
        let against = (system != System::Native)
            .then(|| report.against(system, System::Native, setting, |round| round.pdr))
            .flatten();
        let cycles = |round: &Round| round.cost.as_ref()?.packet_cycles;
        let cycles = match (cell.figure(cycles), report.machine.tsc_mhz) {
            (None, None) => "not available".to_owned(),
            (cycles, _) => number(cycles, 1.0, 0),
        };
        let sum = |count: fn(&Round) -> u64| cell.rounds.iter().map(count).sum::<u64>().to_string();
        table.row(vec![
            system.name().to_owned(),
            mpps(median(pdr)),
            spread(pdr),
            mpps(median(cell.figure(|round| round.ndr))),
            mpps(median(cell.figure(|round| Some(round.overload)))),
            against.map_or(String::new(), against_text),
            number(
                cell.figure(|round| Some(round.cost.as_ref()?.packet_ns)),
                1.0,
                0,
            ),
            cycles,
            number(cell.figure(Round::per_core), 1e-6, 3),
            sum(|round| round.reordered),
            sum(|round| round.duplicates),
        ]);
    }
    table
}

fn latency(report: &Report, setting: Setting) -> Table {
    let mut table = Table::new(&[
        Column::Left("SYSTEM"),
        Column::Right("10 % p50"),
        Column::Right("p99"),
        Column::Right("50 % p50"),
        Column::Right("p99"),
        Column::Right("p99.9"),
        Column::Right("90 % p50"),
        Column::Right("p99"),
        Column::Right("max"),
        Column::Right("10 % p99 OF NATIVE"),
    ]);
    let native = report.find(System::Native, setting.0, setting.1);
    let native = native.and_then(|cell| cell.latency(0.1, |one| one.p99));
    for (system, cell) in cells(report, setting) {
        let at = |load, percentile: fn(&report::Latency) -> u64| {
            number(cell.latency(load, percentile), 1e-3, 1)
        };
        let own = cell.latency(0.1, |one| one.p99);
        let ratio = own
            .zip(native)
            .map(|(own, native)| own.median / native.median);
        table.row(vec![
            system.name().to_owned(),
            at(0.1, |one| one.p50),
            at(0.1, |one| one.p99),
            at(0.5, |one| one.p50),
            at(0.5, |one| one.p99),
            at(0.5, |one| one.p999),
            at(0.9, |one| one.p50),
            at(0.9, |one| one.p99),
            at(0.9, |one| one.max),
            ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")),
        ]);
    }
    table
}

/// Each system against those that it has to be compared with.
fn ratios(report: &Report, setting: Setting) -> Table {
    let mut table = Table::new(&[
        Column::Left("SYSTEM"),
        Column::Right("PDR: native"),
        Column::Right("wire"),
        Column::Right("kernel-vxlan"),
        Column::Right("ovs"),
        Column::Right("PER CORE: native"),
        Column::Right("wire"),
        Column::Right("kernel-vxlan"),
        Column::Right("ovs"),
    ]);
    for (system, _) in cells(report, setting) {
        let mut row = vec![system.name().to_owned()];
        for figure in [
            (|round: &Round| round.pdr) as fn(&Round) -> Option<f64>,
            Round::per_core,
        ] {
            row.extend(System::BASES.map(|base| {
                let verdict = report.against(system, base, setting, figure);
                let verdict = verdict.filter(|_| base != system);
                verdict.map_or(String::new(), |verdict| {
                    let doubt = if verdict.is_conclusive() { "" } else { " ?" };
                    format!("{:.2}{doubt}", verdict.ratio())
                })
            }));
        }
        table.row(row);
    }
    table
}

fn tcp(found: &Report) -> Table {
    let mut table = Table::new(&[
        Column::Left("SYSTEM"),
        Column::Left("OFFLOADS"),
        Column::Right("Gb/s"),
        Column::Right("SPREAD"),
        Column::Right("RETRANSMITS"),
    ]);
    for cell in &found.tcp {
        let values: Vec<_> = cell.rounds.iter().map(|round| round.bits / 1e9).collect();
        let goodput = report::spread(&values);
        let again: u64 = cell.rounds.iter().map(|round| round.retransmits).sum();
        table.row(vec![
            cell.system.name().to_owned(),
            if cell.offloads { "on" } else { "off" }.to_owned(),
            number(goodput, 1.0, 2),
            spread(goodput),
            again.to_string(),
        ]);
    }
    table
}

fn cells(report: &Report, (direction, size): Setting) -> Vec<(System, &Cell)> {
    let systems = report.systems().into_iter();
    systems
        .filter_map(|system| Some((system, report.find(system, direction, size)?)))
        .collect()
}

fn against_text(verdict: Verdict) -> String {
    let ratio = verdict.ratio();
    if verdict.is_conclusive() {
        format!("{ratio:.2}")
    } else {
        format!("{ratio:.2} not conclusive")
    }
}

fn median(spread: Option<Spread>) -> Option<f64> {
    spread.map(|spread| spread.median)
}

fn mpps(rate: Option<f64>) -> String {
    rate.map_or(String::new(), |rate| format!("{:.3}", rate / 1e6))
}

fn number(value: Option<Spread>, scale: f64, digits: usize) -> String {
    value.map_or(String::new(), |value| {
        format!("{:.digits$}", value.median * scale)
    })
}

fn spread(value: Option<Spread>) -> String {
    value.map_or(String::new(), |value| {
        format!("{:.0} %", value.relative() * 100.0)
    })
}
