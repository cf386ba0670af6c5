//! What is measured, and how thoroughly.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{BenchError, Result};
use super::given::Given;
use super::load::profile::{self, FrameSize};
use super::report::Softirq;
use super::systems::System;
use super::topology::Direction;
use crate::resources::Io;

/// Addresses that a workload can have: half of its node's half of the pool.
pub const MOST_DESTINATIONS: u32 = 16384;

/// What is measured, and how thoroughly.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The systems, in the order in which the first round takes them.
    pub systems: Vec<System>,
    /// The directions.
    pub directions: Vec<Direction>,
    /// The sizes.
    pub sizes: Vec<FrameSize>,
    /// How often every system has its turn.
    pub rounds: usize,
    /// Flows: a power of two.
    pub flows: u32,
    /// Destinations: a power of two.
    pub destinations: u32,
    /// How far nodes have routes of their own for them.
    pub routes: Routes,
    /// The relative width of the search's bounds.
    pub width: f64,
    /// A trial's length while bounds are looked for.
    pub first_trial: Duration,
    /// A trial's length while bounds are confirmed.
    pub trial: Duration,
    /// Trials at each rate: an odd number.
    pub trials: usize,
    /// Trials of one search at most.
    pub budget: usize,
    /// A trial's length for latency and cost.
    pub latency_trial: Duration,
    /// Parts of the PDR at which latency is measured.
    pub loads: Vec<f64>,
    /// How long each TCP connection lasts; none: no TCP.
    pub tcp: Option<Duration>,
    /// The generator's CPU.
    pub generator_cpu: usize,
    /// The CPU of the nodes under test.
    pub node_cpu: usize,
    /// Where nodes' receive softirq runs.
    pub softirq: Softirq,
    /// How AF_XDP ports move frames.
    pub io: Io,
    /// Whether the load and the nodes run before everything else on the machine (SCHED_FIFO), so that
    /// what else runs there disturbs less.
    pub realtime: bool,
    /// The frequency of the CPU's time stamp counter, from which cycles are reckoned.
    pub tsc_mhz: Option<f64>,
    /// Interfaces to measure between, in place of systems on nodes of the bench's own.
    pub given: Option<Given>,
}

/// The routes that a node has to the other node's workloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Routes {
    /// One for each 64 addresses, as Calico's blocks are by default.
    #[default]
    Blocks,
    /// One for each address.
    Hosts,
}

impl Routes {
    /// Their prefix length.
    pub const fn length(self) -> u8 {
        match self {
            Self::Blocks => 26,
            Self::Hosts => 32,
        }
    }
}

impl Options {
    /// What a user gets who asks for nothing else, on the first and the last CPU that this process may
    /// use: about half an hour.
    pub fn standard() -> Result<Self> {
        let cpus = crate::worker::affinity::available();
        let (Some(first), Some(last)) = (cpus.first(), cpus.last()) else {
            return Err(BenchError::Option("no CPU may be used".to_owned()));
        };
        if first == last {
            return Err(BenchError::Option(
                "a bench needs two CPUs, one for the load and one for what is measured".to_owned(),
            ));
        }
        Ok(Self {
            systems: System::ALL.to_vec(),
            directions: vec![Direction::Encap, Direction::Decap],
            sizes: vec![FrameSize::Bytes(64), FrameSize::Imix],
            rounds: 3,
            flows: 1024,
            destinations: 1024,
            routes: Routes::default(),
            width: 0.01,
            first_trial: Duration::from_millis(50),
            trial: Duration::from_millis(300),
            trials: 3,
            budget: 40,
            latency_trial: Duration::from_millis(500),
            loads: vec![0.1, 0.5, 0.9],
            tcp: Some(Duration::from_secs(3)),
            generator_cpu: *first,
            node_cpu: *last,
            softirq: Softirq::default(),
            io: Io::default(),
            realtime: true,
            tsc_mhz: None,
            given: None,
        })
    }

    /// All sizes of RFC 2544 and a mix of them, all directions, longer trials: hours.
    pub fn thorough() -> Result<Self> {
        let sizes = FrameSize::RFC_2544.into_iter();
        Ok(Self {
            directions: Direction::ALL.to_vec(),
            sizes: sizes.chain([FrameSize::Imix]).collect(),
            rounds: 5,
            first_trial: Duration::from_millis(100),
            trial: Duration::from_secs(1),
            budget: 80,
            latency_trial: Duration::from_secs(2),
            tcp: Some(Duration::from_secs(10)),
            ..Self::standard()?
        })
    }

    /// A short run: a minute or two.
    pub fn quick() -> Result<Self> {
        Ok(Self {
            directions: vec![Direction::Encap],
            sizes: vec![FrameSize::Bytes(64)],
            rounds: 3,
            width: 0.03,
            trial: Duration::from_millis(100),
            trials: 1,
            budget: 30,
            latency_trial: Duration::from_millis(200),
            tcp: None,
            ..Self::standard()?
        })
    }

    /// Whether the numbers make sense.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: &str| Err(BenchError::Option(text.to_owned()));
        if self.systems.is_empty() || self.directions.is_empty() || self.sizes.is_empty() {
            return wrong("name at least one system, one direction and one size");
        }
        if self.rounds == 0 || self.trials.is_multiple_of(2) {
            return wrong("there must be at least one round, and an odd number of trials");
        }
        if !(0.001..=0.5).contains(&self.width) {
            return wrong("the width is a part of the rate: write a number from 0.001 to 0.5");
        }
        if self.destinations > MOST_DESTINATIONS {
            return wrong("destinations: write a power of two up to 16384");
        }
        profile::check(self.flows, self.destinations)?;
        if self.trial.is_zero() || self.latency_trial.is_zero() || self.first_trial.is_zero() {
            return wrong("a trial takes some time");
        }
        if self.generator_cpu == self.node_cpu {
            return wrong("the generator and the nodes need a CPU each");
        }
        let cpus = crate::worker::affinity::available();
        for cpu in [self.generator_cpu, self.node_cpu] {
            if !cpus.contains(&cpu) {
                return Err(BenchError::Option(format!(
                    "CPU {cpu} may not be used by this process; these may: {cpus:?}"
                )));
            }
        }
        Ok(())
    }
}
