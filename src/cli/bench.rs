//! The verb `bench`: options, progress while it runs, the table at its end.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};

use super::table::{Column, Table};
use super::{Failure, print};
use crate::bench::load::profile::FrameSize;
use crate::bench::report::{Cell, Spread, Verdict, compare, html};
use crate::bench::systems::{System, wire};
use crate::bench::topology::Direction;
use crate::bench::{self, BenchError, Options, Progress, Report, Softirq, namespace};

#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArguments {
    #[command(subcommand)]
    pub verb: Option<BenchVerb>,
    #[command(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, Subcommand)]
pub enum BenchVerb {
    /// Compare two runs: what changed from the first to the second
    Compare {
        /// The JSON file of the first run
        before: PathBuf,
        /// The JSON file of the second run
        after: PathBuf,
    },
    /// Make the HTML page of a run's JSON file
    Html {
        /// The JSON file
        json: PathBuf,
        /// The page to write
        html: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
pub struct What {
    /// A minute: one direction, one size, two rounds, short trials
    #[arg(long)]
    quick: bool,
    /// What to measure; native is what the others are compared with [default: all that is there]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = system)]
    systems: Vec<System>,
    /// encap: workload to uplink; decap: uplink to workload; path: through two nodes
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    directions: Vec<DirectionName>,
    /// Frame lengths with FCS, before encapsulation, or imix; rfc2544 for all of that RFC
    #[arg(long, value_name = "BYTES", value_delimiter = ',')]
    sizes: Vec<String>,
    /// How often each system has its turn
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// Flows: a power of two, up to 65536
    #[arg(long, value_name = "COUNT")]
    flows: Option<u32>,
    /// Destination addresses: a power of two, no more than flows
    #[arg(long, value_name = "COUNT")]
    destinations: Option<u32>,
    /// A trial's length
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    trial: Option<Duration>,
    /// How close the search's bounds must come, as a part of the rate
    #[arg(long, value_name = "PART")]
    width: Option<f64>,
    /// Length of each TCP connection; 0 leaves TCP out
    #[arg(long, value_name = "SECONDS")]
    tcp: Option<u64>,
    /// Where a node's receive softirq runs: in threads on the node's CPU, which then bears all of its
    /// work [default], or on the sender's, as the kernel does with veth by itself
    #[arg(long, value_enum, value_name = "WHERE")]
    softirq: Option<SoftirqName>,
    /// Do not run before everything else on the machine: measure with what else runs there
    #[arg(long)]
    no_realtime: bool,
    /// The generator's CPU [default: the first]
    #[arg(long, value_name = "CPU")]
    generator_cpu: Option<usize>,
    /// The CPU of the nodes under test [default: the last]
    #[arg(long, value_name = "CPU")]
    node_cpu: Option<usize>,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Messages to print: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: log::LevelFilter,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DirectionName {
    Encap,
    Decap,
    Path,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SoftirqName {
    Sender,
    Node,
}

/// What [`namespace::enter`] is told.
#[derive(Debug, Clone, Args)]
pub struct EnterArguments {
    #[arg(long)]
    netns: PathBuf,
    #[arg(long)]
    parent: u32,
    #[arg(long)]
    cpu: Option<usize>,
    #[arg(last = true)]
    command: Vec<String>,
}

/// Runs `bench` and its own verbs.
pub fn run(arguments: &BenchArguments) -> Result<(), Failure> {
    match &arguments.verb {
        None => measure(&arguments.what),
        Some(BenchVerb::Compare { before, after }) => {
            let comparison = compare::compare(&read(before)?, &read(after)?);
            print(&comparison_text(&comparison))
        }
        Some(BenchVerb::Html { json, html: page }) => write(page, &html::page(&read(json)?)),
    }
}

/// Runs a program inside one of the bench's namespaces.
pub fn enter(arguments: &EnterArguments) -> Failure {
    let EnterArguments {
        netns,
        parent,
        cpu,
        command,
    } = arguments;
    failure(&namespace::enter(netns, *parent, *cpu, command))
}

/// Runs a wire between two devices.
pub fn wire(devices: &[String]) -> Result<(), Failure> {
    let [one, other] = devices else {
        return Err("name two interfaces".to_owned().into());
    };
    wire::run([one, other]).map_err(|error| failure(&error))
}

fn measure(what: &What) -> Result<(), Failure> {
    super::start_log();
    log::set_max_level(what.log);
    let options = options(what)?;
    // Found out now rather than after all the work.
    for file in [&what.json, &what.html].into_iter().flatten() {
        can_write(file)?;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in signal_hook::consts::TERM_SIGNALS {
        signal_hook::flag::register(*signal, interrupted.clone())
            .map_err(|error| format!("cannot listen for signals: {error}"))?;
    }
    let mut bar = Bar::new();
    let measured = bench::run(&options, &mut |progress| bar.show(progress), &interrupted);
    bar.clear();
    let report = measured.map_err(|error| failure(&error))?;
    if let Some(file) = &what.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        write(file, &format!("{text}\n"))?;
    }
    if let Some(file) = &what.html {
        write(file, &html::page(&report))?;
    }
    print(&text(&report))
}

fn options(what: &What) -> Result<Options, Failure> {
    let base = if what.quick {
        Options::quick()
    } else {
        Options::thorough()
    };
    let mut options = base.map_err(|error| failure(&error))?;
    if !what.systems.is_empty() {
        options.systems.clone_from(&what.systems);
    }
    if !what.directions.is_empty() {
        let directions = what.directions.iter();
        options.directions = directions.map(|name| (*name).into()).collect();
    }
    if !what.sizes.is_empty() {
        options.sizes = sizes(&what.sizes)?;
    }
    let Options {
        rounds,
        flows,
        destinations,
        trial,
        width,
        generator_cpu,
        node_cpu,
        ..
    } = &mut options;
    set(rounds, what.rounds);
    set(flows, what.flows);
    set(destinations, what.destinations.or(what.flows));
    set(trial, what.trial);
    set(width, what.width);
    set(generator_cpu, what.generator_cpu);
    set(node_cpu, what.node_cpu);
    *destinations = (*destinations).min(16384);
    if let Some(seconds) = what.tcp {
        options.tcp = (seconds > 0).then(|| Duration::from_secs(seconds));
    }
    if let Some(softirq) = what.softirq {
        options.softirq = match softirq {
            SoftirqName::Sender => Softirq::Sender,
            SoftirqName::Node => Softirq::Node,
        };
    }
    options.realtime &= !what.no_realtime;
    options.check().map_err(|error| failure(&error))?;
    Ok(options)
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn sizes(names: &[String]) -> Result<Vec<FrameSize>, Failure> {
    let mut sizes = Vec::new();
    for name in names {
        if name.eq_ignore_ascii_case("rfc2544") {
            sizes.extend(FrameSize::RFC_2544);
        } else {
            sizes.push(
                name.parse()
                    .map_err(|error| format!("size '{name}': {error}"))?,
            );
        }
    }
    Ok(sizes)
}

impl From<DirectionName> for Direction {
    fn from(name: DirectionName) -> Self {
        match name {
            DirectionName::Encap => Self::Encap,
            DirectionName::Decap => Self::Decap,
            DirectionName::Path => Self::Path,
        }
    }
}

/// One line on a terminal that says how far it is; nothing elsewhere.
struct Bar {
    shown: bool,
    terminal: bool,
    start: Instant,
}

impl Bar {
    const WIDTH: usize = 24;

    fn new() -> Self {
        Self {
            shown: false,
            terminal: io::stderr().is_terminal(),
            start: Instant::now(),
        }
    }

    fn show(&mut self, progress: &Progress) {
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

    fn clear(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
            let _ = io::stderr().flush();
        }
    }
}

/// The report as tables.
fn text(report: &Report) -> String {
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
            "generator alone, {} bytes: {} Mpps\n",
            ceiling.size,
            mpps(Some(ceiling.rate))
        );
    }
    for (direction, size) in report.settings() {
        text += &format!("\n{}, {size} bytes\n", direction.name());
        text += &throughput_table(report, direction, size).text();
    }
    if !report.tcp.is_empty() {
        text += "\nTCP, one connection, workload to workload\n";
        text += &tcp_table(report).text();
    }
    for note in &report.notes {
        text += &format!("\nnote: {note}");
    }
    if !report.notes.is_empty() {
        text.push('\n');
    }
    text
}

fn throughput_table(report: &Report, direction: Direction, size: FrameSize) -> Table {
    let mut table = Table::new(&[
        Column::Left("SYSTEM"),
        Column::Right("PDR Mpps"),
        Column::Right("SPREAD"),
        Column::Right("NDR Mpps"),
        Column::Right("OVERLOAD"),
        Column::Left("AGAINST NATIVE"),
        Column::Right("ns/PACKET"),
        Column::Right("CYCLES"),
        Column::Right("p50 us"),
        Column::Right("p99 us"),
        Column::Right("p99.9 us"),
    ]);
    for system in report.systems() {
        let Some(cell) = report.find(system, direction, size) else {
            continue;
        };
        let pdr = cell.figure(|round| round.pdr);
        let against = match system {
            System::Native => None,
            _ => report.against_native(system, direction, size),
        };
        table.row(vec![
            system.name().to_owned(),
            mpps(median(pdr)),
            pdr.map_or(String::new(), |s| format!("{:.0} %", s.relative() * 100.0)),
            mpps(median(cell.figure(|round| round.ndr))),
            mpps(median(cell.figure(|round| Some(round.overload)))),
            against.map_or(String::new(), against_text),
            cost(cell, |cost| cost.packet_ns),
            cost(cell, |cost| cost.packet_cycles),
            microseconds(cell.latency(0.5, |latency| latency.p50)),
            microseconds(cell.latency(0.5, |latency| latency.p99)),
            microseconds(cell.latency(0.5, |latency| latency.p999)),
        ]);
    }
    table
}

fn tcp_table(report: &Report) -> Table {
    let mut table = Table::new(&[
        Column::Left("SYSTEM"),
        Column::Left("OFFLOADS"),
        Column::Right("Gb/s"),
        Column::Right("SPREAD"),
        Column::Right("RETRANSMITS"),
    ]);
    for cell in &report.tcp {
        let values: Vec<_> = cell.rounds.iter().map(|round| round.bits / 1e9).collect();
        let spread = bench::report::spread(&values);
        let again: u64 = cell.rounds.iter().map(|round| round.retransmits).sum();
        table.row(vec![
            cell.system.name().to_owned(),
            if cell.offloads { "on" } else { "off" }.to_owned(),
            spread.map_or(String::new(), |s| format!("{:.2}", s.median)),
            spread.map_or(String::new(), |s| format!("{:.0} %", s.relative() * 100.0)),
            again.to_string(),
        ]);
    }
    table
}

fn comparison_text(comparison: &compare::Comparison) -> String {
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

fn against_text(verdict: Verdict) -> String {
    let ratio = verdict.ratio();
    match verdict {
        Verdict::NotConclusive(_) => format!("{ratio:.2} not conclusive"),
        _ => format!("{ratio:.2}"),
    }
}

fn median(spread: Option<Spread>) -> Option<f64> {
    spread.map(|spread| spread.median)
}

fn mpps(rate: Option<f64>) -> String {
    rate.map_or(String::new(), |rate| format!("{:.3}", rate / 1e6))
}

fn microseconds(spread: Option<Spread>) -> String {
    spread.map_or(String::new(), |s| format!("{:.1}", s.median / 1000.0))
}

fn cost(cell: &Cell, part: impl Fn(&bench::report::Cost) -> f64) -> String {
    let spread = cell.figure(|round| round.cost.as_ref().map(&part));
    spread.map_or(String::new(), |s| format!("{:.0}", s.median))
}

fn read(file: &Path) -> Result<Report, Failure> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| format!("{}: not a bench's JSON: {error}", file.display()))?;
    if report.format != bench::report::FORMAT {
        return Err(format!(
            "{}: of format {}; this version reads {}",
            file.display(),
            report.format,
            bench::report::FORMAT
        )
        .into());
    }
    Ok(report)
}

fn can_write(file: &Path) -> Result<(), Failure> {
    let opened = fs::OpenOptions::new().create(true).append(true).open(file);
    opened
        .map(drop)
        .map_err(|error| format!("cannot write {}: {error}", file.display()).into())
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text)
        .map_err(|error| format!("cannot write {}: {error}", file.display()).into())
}

fn failure(error: &BenchError) -> Failure {
    format!("bench: {error}").into()
}

fn system(text: &str) -> Result<System, String> {
    text.parse()
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.02..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("write a number of seconds from 0.02 to 60".to_owned()),
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
