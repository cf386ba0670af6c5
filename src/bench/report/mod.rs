//! What a bench found: as it is written to a file, and what follows from it.

pub mod compare;
mod figures;
pub mod html;
mod plots;
mod reading;
mod shown;
mod statistics;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::cpu::CoreTime;
use super::load::profile::FrameSize;
use super::machine::Machine;
use super::options::Routes;
use super::systems::System;
use super::topology::Direction;
use crate::resources::Io;
pub use shown::of_rounds;
pub use statistics::{Pair, Spread, Verdict, spread, verdict};

/// The version of the file's shape.
pub const FORMAT: u32 = 2;

/// What is measured of every system: a direction and a size.
pub type Setting = (Direction, FrameSize);

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// underpass's version.
    pub version: String,
    /// When it began, in UTC: `2026-01-31T12:00:00Z`.
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// The machine.
    pub machine: Machine,
    /// How it was measured.
    pub method: Method,
    /// What the generator alone reaches, by size.
    pub generator: Vec<Ceiling>,
    /// Throughput, latency, cost.
    pub cells: Vec<Cell>,
    /// TCP.
    pub tcp: Vec<TcpCell>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// How it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// How often every system had its turn.
    pub rounds: usize,
    /// The width of the search's bounds, relative.
    pub width: f64,
    /// A trial's length in seconds.
    pub trial_seconds: f64,
    /// Trials at each rate.
    pub trials: usize,
    /// Flows.
    pub flows: u32,
    /// Destinations.
    pub destinations: u32,
    /// The routes to them.
    pub routes: Routes,
    /// The generator's CPU.
    pub generator_cpu: usize,
    /// The CPU of the nodes under test.
    pub node_cpu: usize,
    /// Where a node's receive softirq ran.
    pub softirq: Softirq,
    /// How AF_XDP ports moved frames; reports from before it could be chosen do not say.
    #[serde(default)]
    pub io: Io,
    /// Whether load and nodes ran with real-time priority.
    pub realtime: bool,
    /// The interfaces that were given, if it was not on nodes of the bench's own.
    pub interfaces: Option<GivenInterfaces>,
}

/// The ends of a bench between interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenInterfaces {
    /// Packets left by this one.
    pub from: String,
    /// And came back by this one.
    pub to: String,
    /// Their source.
    pub source: Ipv4Addr,
    /// Their first destination.
    pub destination: Ipv4Addr,
}

/// Where the softirq work of a node's receiving devices runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Softirq {
    /// In NAPI threads on the node's CPU, so that one CPU bears all of the node's work.
    #[default]
    Node,
    /// As the kernel does by itself on veth: on the CPU of the sender, that is the generator's.
    Sender,
}

/// What the generator reaches when its frames are dropped on arrival.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// The frames' size.
    pub size: FrameSize,
    /// Packets a second.
    pub rate: f64,
    /// CPU time of the generator for one packet, in nanoseconds.
    pub packet_ns: f64,
    /// CPU time of one run of the generator that sends nothing.
    pub idle_ns: f64,
}

/// All rounds of one system, direction and size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The system.
    pub system: System,
    /// The direction.
    pub direction: Direction,
    /// The size.
    pub size: FrameSize,
    /// What each round found.
    pub rounds: Vec<Round>,
}

/// What one round found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Which round it is, from 1 on; reports from before this was written have no rounds left out.
    #[serde(default)]
    pub number: Option<usize>,
    /// No-drop rate in packets a second; none if the smallest rate lost some.
    pub ndr: Option<f64>,
    /// Rate with no more than 0.5 % loss.
    pub pdr: Option<f64>,
    /// Packets a second that arrive under overload.
    pub overload: f64,
    /// How far the PDR's bounds are apart, relative: more than was asked for where the search had made
    /// all trials that it may.
    pub pdr_width: f64,
    /// The same of the NDR; reports from before this was written do not say.
    #[serde(default)]
    pub ndr_width: f64,
    /// Trials that the search made.
    pub trials: usize,
    /// One-way latency at parts of the PDR.
    pub latency: Vec<Latency>,
    /// CPU time at the PDR.
    pub cost: Option<Cost>,
    /// Packets that came after a later one of their flow, of all trials for latency and cost.
    pub reordered: u64,
    /// Packets that came twice.
    pub duplicates: u64,
}

/// One-way latency in nanoseconds, generator to sink.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The load, as a part of the PDR.
    pub load: f64,
    /// Packets measured.
    pub packets: u64,
    /// Median.
    pub p50: u64,
    /// 90 % are no later.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The latest.
    pub max: u64,
}

/// CPU time of one trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Packets a second that were sent.
    pub rate: f64,
    /// Packets that arrived.
    pub packets: u64,
    /// How long, in seconds.
    pub seconds: f64,
    /// CPU time of the nodes under test for a packet, softirq included, in nanoseconds.
    pub packet_ns: f64,
    /// The same in cycles of the time stamp counter, where its frequency is known.
    pub packet_cycles: Option<f64>,
    /// Of it, in the nodes' processes.
    pub process_ns: f64,
    /// Of it, in the kernel's own threads: NAPI, ksoftirqd.
    pub kernel_thread_ns: f64,
    /// Of it, in softirq on the generator's CPU: the generator's time less its own work.
    pub sender_ns: f64,
    /// Every core's time (`/proc/stat`), whoever used it.
    pub cores: Vec<CoreTime>,
}

/// All rounds of TCP through one system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcpCell {
    /// The system.
    pub system: System,
    /// Whether the links had checksum and segmentation offloads.
    pub offloads: bool,
    /// Each round's goodput in bits a second.
    pub rounds: Vec<TcpRound>,
}

/// One iperf3 run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TcpRound {
    /// Bits a second that were received.
    pub bits: f64,
    /// Segments sent again.
    pub retransmits: u64,
}

impl Report {
    /// The cell, made if there is none yet.
    pub(super) fn cell(
        &mut self,
        system: System,
        direction: Direction,
        size: FrameSize,
    ) -> &mut Cell {
        let is =
            |cell: &Cell| (cell.system, cell.direction, cell.size) == (system, direction, size);
        let index = self.cells.iter().position(is).unwrap_or_else(|| {
            self.cells.push(Cell {
                system,
                direction,
                size,
                rounds: Vec::new(),
            });
            self.cells.len() - 1
        });
        &mut self.cells[index]
    }

    /// Why nothing was measured, if nothing was.
    pub fn nothing(&self) -> Option<String> {
        /// More reasons than these are left to the notes.
        const REASONS: usize = 3;
        if !self.cells.is_empty() || !self.tcp.is_empty() {
            return None;
        }
        let reasons = self.notes.iter().take(REASONS).map(String::as_str);
        let mut text = reasons.collect::<Vec<_>>().join("; ");
        if self.notes.len() > REASONS {
            text += "; …";
        }
        Some(text)
    }

    /// The cell, if it was measured.
    pub fn find(&self, system: System, direction: Direction, size: FrameSize) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|cell| (cell.system, cell.direction, cell.size) == (system, direction, size))
    }

    /// The directions and sizes that were measured.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings: Vec<_> = self
            .cells
            .iter()
            .map(|cell| (cell.direction, cell.size))
            .collect();
        settings.sort_unstable();
        settings.dedup();
        settings
    }

    /// The systems that were measured, in the order of [`System::ALL`].
    pub fn systems(&self) -> Vec<System> {
        let measured = |system: &System| {
            self.cells.iter().any(|cell| cell.system == *system)
                || self.tcp.iter().any(|cell| cell.system == *system)
        };
        let all = System::ALL.into_iter().chain([System::Given]);
        all.filter(measured).collect()
    }

    /// How a system compares with another by a figure of the same rounds, larger being better.
    pub fn against(
        &self,
        system: System,
        base: System,
        (direction, size): Setting,
        figure: impl Fn(&Round) -> Option<f64>,
    ) -> Option<Verdict> {
        let (own, base) = (
            self.find(system, direction, size)?,
            self.find(base, direction, size)?,
        );
        verdict(&own.pairs(base, figure), self.method.width)
    }

    /// What others are compared with, as far as it was measured.
    pub fn bases(&self, direction: Direction) -> Vec<System> {
        let measured = |base: &System| {
            let mut cells = self.cells.iter();
            cells.any(|cell| (cell.system, cell.direction) == (*base, direction))
        };
        System::BASES.into_iter().filter(measured).collect()
    }
}

impl Round {
    /// Packets a second for each core that is busy with them, softirq included.
    pub fn per_core(&self) -> Option<f64> {
        let cost = self.cost.as_ref()?;
        (cost.packet_ns > 0.0).then(|| 1e9 / cost.packet_ns)
    }

    /// The latency at a part of the PDR.
    pub fn latency_at(&self, load: f64) -> Option<&Latency> {
        self.latency
            .iter()
            .find(|one| (one.load - load).abs() < 1e-9)
    }
}

impl Cell {
    /// A figure of this and of another system, by rounds; those that only one of both has, too.
    pub fn pairs(&self, other: &Self, figure: impl Fn(&Round) -> Option<f64>) -> Vec<Pair> {
        let (own, other) = (self.numbered(), other.numbered());
        let numbers: BTreeSet<_> = own.keys().chain(other.keys()).collect();
        let pair = |number| {
            let both = [&own, &other].map(|rounds| rounds.get(number).copied());
            let [own, other] = both.map(|round| round.and_then(&figure));
            let widths = both.into_iter().flatten().map(|round| round.pdr_width);
            Pair {
                own,
                other,
                open: widths.fold(0.0, f64::max),
            }
        };
        numbers.into_iter().map(pair).collect()
    }

    /// The rounds by their numbers.
    fn numbered(&self) -> BTreeMap<usize, &Round> {
        let rounds = self.rounds.iter().enumerate();
        rounds
            .map(|(place, round)| (round.number.unwrap_or(place + 1), round))
            .collect()
    }

    /// Median and spread of a figure over the rounds that have it.
    pub fn figure(&self, figure: impl Fn(&Round) -> Option<f64>) -> Option<Spread> {
        let values: Vec<_> = self.rounds.iter().filter_map(figure).collect();
        spread(&values)
    }

    /// Median and spread of a latency at a load.
    pub fn latency(&self, load: f64, percentile: impl Fn(&Latency) -> u64) -> Option<Spread> {
        self.figure(|round| Some(percentile(round.latency_at(load)?) as f64))
    }

    /// The loads at which latency was measured, as parts of the PDR.
    pub fn loads(&self) -> Vec<f64> {
        let first = self.rounds.iter().find(|round| !round.latency.is_empty());
        let latencies = first.map(|round| round.latency.iter().map(|one| one.load));
        latencies.into_iter().flatten().collect()
    }
}
