//! What a bench found, as tables.

use super::super::table::{Column, Table};
use crate::bench::Report;
use crate::bench::report::{self, Cell, Round, Setting, Spread, Verdict, compare};
use crate::bench::systems::System;

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
            "generator alone, {}: {:.3} Mpps\n",
            ceiling.size.in_words(),
            ceiling.rate / 1e6
        );
    }
    for setting in report.settings() {
        let (direction, size) = setting;
        let what = format!("{}, {}", direction.name(), size.in_words());
        text += &format!("\n{what}\n");
        text += &throughput(report, setting).text();
        if let Some(footnote) = report.footnote(setting) {
            text += &format!("{footnote}\n");
        }
        text += &format!("\n{what}: one-way latency in us at parts of the PDR\n");
        text += &latency(report, setting).text();
        if report.systems().len() > 1 {
            text += &format!(
                "\n{what}: ratios; ? where rounds disagree, or searches ended too early: not conclusive\n"
            );
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
        let figure = |side: usize| match (row.change, side) {
            (compare::Change::OnlyInFirst, 1) | (compare::Change::OnlyInSecond, 0) => String::new(),
            _ => report::of_rounds([row.before, row.after][side], row.rounds[side], 1.0, 3),
        };
        let ratio = row.before.zip(row.after);
        table.row(vec![
            row.what.clone(),
            figure(0),
            figure(1),
            row.unit.to_owned(),
            ratio.map_or(String::new(), |(before, after)| {
                format!("{:.3}", after.median / before.median)
            }),
            row.change.name().to_owned(),
        ]);
    }
    let warnings: String = comparison
        .differences
        .iter()
        .map(|difference| format!("not the same: {difference}\n"))
        .collect();
    let notes: String = comparison
        .notes
        .iter()
        .map(|note| format!("\nnote of {note}"))
        .collect();
    let end = if notes.is_empty() { "" } else { "\n" };
    warnings + &table.text() + &notes + end
}

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
            report.pdr(cell),
            spread(pdr),
            report.ndr(cell),
            number(cell.figure(|round| Some(round.overload)), 1e-6, 3),
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
        let again: u64 = cell.rounds.iter().map(|round| round.retransmits).sum();
        table.row(vec![
            cell.system.name().to_owned(),
            if cell.offloads { "on" } else { "off" }.to_owned(),
            found.goodput(cell),
            spread(cell.goodput()),
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
