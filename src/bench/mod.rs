//! The bench: what each mode costs, and against what, on this machine.
//!
//! It builds two nodes in namespaces of its own ([`topology`]), has the systems under test ([`systems`])
//! take turns on them, sends a load through each ([`load`]) by trials that close in on its throughput
//! ([`search`]), and writes down what it found ([`report`]). Nothing outside its namespaces is touched,
//! and nothing is left behind, however it ends ([`namespace`]).

mod cpu;
mod error;
pub mod given;
pub mod load;
mod machine;
mod measure;
pub mod namespace;
mod options;
mod priority;
pub mod report;
pub mod search;
pub mod systems;
mod tcp;
pub mod topology;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

pub use cpu::CoreTime;
pub use error::{BenchError, Result};
pub use machine::Machine;
pub use options::{MOST_DESTINATIONS, Options, Routes};
pub use report::{Report, Softirq};

use crate::resources::time::rfc3339;
use given::{Given, Interfaces};
use load::profile::FrameSize;
use measure::Bench;
use report::{Ceiling, FORMAT, Method, TcpRound};
use systems::{Place, System};
use topology::{Direction, Topology};

/// What a bench is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub of: usize,
    /// What comes next.
    pub doing: String,
}

/// Measures. `progress` hears what is being done; once `interrupted` is set, the bench ends soon with
/// [`BenchError::Interrupted`].
pub fn run(
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
    interrupted: &AtomicBool,
) -> Result<Report> {
    check_root()?;
    options.check()?;
    let machine = Machine::look();
    let mut options = options.clone();
    options.tsc_mhz = machine.tsc_mhz;
    let mut notes = Vec::new();
    if options.realtime
        && let Err(reason) = priority::raise()
    {
        options.realtime = false;
        notes.push(format!("without real-time priority: {reason}"));
    }
    let directory = namespace::PrivateDirectory::new()?;
    let place = Place {
        directory: directory.path(),
        cpu: options.node_cpu,
        destinations: options.destinations,
        routes: options.routes,
        io: options.io,
        realtime: options.realtime,
    };
    let begun = Instant::now();
    let mut run = Run {
        report: Report {
            notes,
            ..empty_report(&options, machine)
        },
        systems: Vec::new(),
        options: &options,
        place,
        progress,
        interrupted,
        done: 0,
        of: 0,
    };
    let done = match &options.given {
        Some(given) => run.between(given),
        None => run.all_systems(),
    };
    // What is being done when a signal comes may fail by it, as the programs that it runs get it, too.
    if interrupted.load(Ordering::Relaxed) {
        return Err(BenchError::Interrupted);
    }
    done?;
    let mut report = run.report;
    report.seconds = begun.elapsed().as_secs_f64();
    // It is about costs, and no reason for there being none.
    if report.nothing().is_none() {
        report.notes.extend(cpu::reservation().map(str::to_owned));
    }
    Ok(report)
}

/// Who may measure.
fn check_root() -> Result<()> {
    let user = nix::unistd::geteuid();
    if user.is_root() {
        return Ok(());
    }
    Err(BenchError::NotRoot {
        user: user.as_raw(),
    })
}

struct Run<'a> {
    options: &'a Options,
    systems: Vec<System>,
    place: Place,
    report: Report,
    progress: &'a mut dyn FnMut(&Progress),
    interrupted: &'a AtomicBool,
    done: usize,
    of: usize,
}

impl Run<'_> {
    fn all_systems(&mut self) -> Result<()> {
        self.choose_systems();
        if self.systems.is_empty() {
            return Ok(());
        }
        self.ceilings()?;
        for round in 0..self.options.rounds {
            self.round(round)?;
        }
        Ok(())
    }

    /// What is between two interfaces of this machine.
    fn between(&mut self, given: &Given) -> Result<()> {
        let interfaces = Interfaces::look(given)?;
        let (rounds, sizes) = (self.options.rounds, self.options.sizes.clone());
        self.of = rounds * sizes.len();
        for round in 0..rounds {
            let ends = interfaces.ends(self.options);
            let what = format!("{} to {}", given.from, given.to);
            let mut bench = Bench::new(what.clone(), ends, self.options, self.interrupted)?;
            if !bench.passes()? {
                return Err(given.nothing_arrives());
            }
            for size in &sizes {
                self.step(&format!("round {}/{rounds}: {what}, {size}", round + 1))?;
                let mut most = bench.offered(*size)?;
                if let Some(line) = interfaces.line_rate(*size) {
                    most.rate = most.rate.min(line);
                }
                if round == 0 {
                    self.report.generator.push(most);
                }
                let found = bench.measure(round + 1, *size, &most)?;
                let cell = self.report.cell(System::Given, Direction::Path, *size);
                cell.rounds.push(found);
            }
        }
        Ok(())
    }

    fn choose_systems(&mut self) {
        for system in &self.options.systems {
            match system.missing() {
                Some(reason) => self
                    .report
                    .notes
                    .push(format!("{system} left out: {reason}")),
                None => self.systems.push(*system),
            }
        }
        if self.options.tcp.is_some()
            && let Some(reason) = tcp::missing()
        {
            self.report.notes.push(format!("TCP left out: {reason}"));
        }
        let cells: usize = self
            .systems
            .iter()
            .map(|system| self.directions(*system).len() * self.options.sizes.len())
            .sum();
        let tcp = self.systems.iter().filter(|s| self.tcp_variants(**s) > 0);
        let tcp: usize = tcp.map(|system| self.tcp_variants(*system)).sum();
        self.of = self.options.sizes.len() + self.options.rounds * (cells + tcp);
    }

    fn directions(&self, system: System) -> Vec<Direction> {
        let directions = self.options.directions.iter().copied();
        directions.filter(|one| system.has(*one)).collect()
    }

    fn ceilings(&mut self) -> Result<()> {
        for size in self.options.sizes.clone() {
            self.step(&format!("the generator alone, {size} bytes"))?;
            let topology = Topology::build()?;
            let ceiling = measure::ceiling(&topology, size, self.options, self.interrupted)?;
            self.report.generator.push(ceiling);
        }
        Ok(())
    }

    /// Every system's turn, each round from another one on.
    fn round(&mut self, round: usize) -> Result<()> {
        let mut systems = self.systems.clone();
        if !systems.is_empty() {
            let count = systems.len();
            systems.rotate_left(round % count);
        }
        for system in systems {
            match self.turn(round, system) {
                Err(_) if self.interrupted.load(Ordering::Relaxed) => {
                    return Err(BenchError::Interrupted);
                }
                Err(error) => {
                    let note = format!("round {}, {system}: {error}", round + 1);
                    log::warn!("{note}");
                    self.report.notes.push(note);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn turn(&mut self, round: usize, system: System) -> Result<()> {
        for direction in self.directions(system) {
            let topology = Topology::build()?;
            let running = system.start(&topology, direction, &self.place)?;
            let mut bench = Bench::of_system(
                &topology,
                &running,
                system,
                direction,
                self.options,
                self.interrupted,
            )?;
            for ceiling in self.report.generator.clone() {
                let Ceiling { size, .. } = ceiling;
                let of = self.options.rounds;
                self.step(&format!(
                    "round {}/{of}: {system}, {}, {size}",
                    round + 1,
                    direction.name()
                ))?;
                let found = bench.measure(round + 1, size, &ceiling)?;
                self.report.cell(system, direction, size).rounds.push(found);
            }
        }
        self.tcp(round, system)
    }

    fn tcp(&mut self, round: usize, system: System) -> Result<()> {
        let Some(duration) = self.options.tcp else {
            return Ok(());
        };
        for offloads in [false, true].into_iter().take(self.tcp_variants(system)) {
            let with = if offloads { "with" } else { "without" };
            self.step(&format!(
                "round {}/{}: {system}, TCP {with} offloads",
                round + 1,
                self.options.rounds
            ))?;
            let topology = Topology::build()?;
            for site in [&topology.a, &topology.b] {
                site.set_offloads(offloads)?;
            }
            let _running = system.start(&topology, Direction::Path, &self.place)?;
            let measured = tcp::measure(&topology, duration, self.options, self.interrupted)?;
            self.add_tcp(system, offloads, measured);
        }
        Ok(())
    }

    /// Without offloads, as AF_XDP needs it; for the kernel also with them.
    fn tcp_variants(&self, system: System) -> usize {
        if self.options.tcp.is_none() || tcp::missing().is_some() || !system.carries_tcp() {
            return 0;
        }
        match system {
            System::Native | System::KernelVxlan | System::KernelIpip => 2,
            _ => 1,
        }
    }

    fn add_tcp(&mut self, system: System, offloads: bool, round: TcpRound) {
        let cells = &mut self.report.tcp;
        let is = |cell: &report::TcpCell| (cell.system, cell.offloads) == (system, offloads);
        match cells.iter_mut().find(|cell| is(cell)) {
            Some(cell) => cell.rounds.push(round),
            None => cells.push(report::TcpCell {
                system,
                offloads,
                rounds: vec![round],
            }),
        }
    }

    fn step(&mut self, doing: &str) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        log::info!("{doing}");
        (self.progress)(&Progress {
            done: self.done,
            of: self.of,
            doing: doing.to_owned(),
        });
        self.done += 1;
        Ok(())
    }
}

fn empty_report(options: &Options, machine: Machine) -> Report {
    Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: rfc3339(SystemTime::now()),
        seconds: 0.0,
        machine,
        method: Method {
            rounds: options.rounds,
            width: options.width,
            trial_seconds: options.trial.as_secs_f64(),
            trials: options.trials,
            flows: options.flows,
            destinations: options.destinations,
            generator_cpu: options.generator_cpu,
            node_cpu: options.node_cpu,
            routes: options.routes,
            softirq: options.softirq,
            io: options.io,
            realtime: options.realtime,
            interfaces: options.given.as_ref().map(|given| report::GivenInterfaces {
                from: given.from.clone(),
                to: given.to.clone(),
                source: given.source,
                destination: given.destination,
            }),
        },
        generator: Vec::new(),
        cells: Vec::new(),
        tcp: Vec::new(),
        notes: Vec::new(),
    }
}

/// Runs a command that must succeed, in the calling thread's namespace.
fn run_command(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(BenchError::io(format!("running {program}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(BenchError::Command {
        command: format!("{program} {}", arguments.join(" ")),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// The sizes that a run may have, for the command line.
pub fn size(text: &str) -> Result<FrameSize, String> {
    text.parse()
}
