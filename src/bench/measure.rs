//! Measuring one system in one direction at one size.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::unistd::Pid;

use super::cpu::{Usage, Watched, kernel_threads};
use super::error::{BenchError, Result};
use super::load::profile::{FrameSize, Profile};
use super::load::{Load, Order, Outcome};
use super::options::Options;
use super::report::{Ceiling, Cost, Latency, Round, Softirq};
use super::search::{Bounds, Device, Goal, Plan, Trial, search};
use super::systems::{Running, System};
use super::topology::{Direction, Topology};

/// Packets a second at which it is seen whether anything arrives at all, and for how long.
const FIRST_LOOK: f64 = 20_000.0;
const FIRST_LOOK_DURATION: Duration = Duration::from_millis(20);
/// How often that is tried: neighbours and routes may have to settle.
const FIRST_LOOKS: usize = 25;

/// The least rate that is searched at.
const LEAST_RATE: f64 = 2_000.0;

/// A running system with the load in place.
pub struct Bench<'a> {
    topology: &'a Topology,
    system: System,
    direction: Direction,
    options: &'a Options,
    load: Load,
    watched: Watched,
    interrupted: &'a AtomicBool,
}

impl<'a> Bench<'a> {
    /// Puts generator and sink in place, and sees that packets arrive.
    pub fn new(
        topology: &'a Topology,
        running: &Running,
        system: System,
        direction: Direction,
        options: &'a Options,
        interrupted: &'a AtomicBool,
    ) -> Result<Self> {
        let size = options.sizes[0];
        let mut load = Load::new(
            profile(topology, system, direction, size, options),
            options.generator_cpu,
        )?;
        let (namespace, device) = topology.sink(direction);
        load.attach_sink(namespace, device)?;
        let mut bench = Self {
            topology,
            system,
            direction,
            options,
            load,
            watched: watched(topology, running, direction, options)?,
            interrupted,
        };
        bench.first_look()?;
        Ok(bench)
    }

    /// Searches the throughput, then measures latency and cost at parts of it.
    pub fn measure(&mut self, size: FrameSize, ceiling: &Ceiling) -> Result<Round> {
        let profile = profile(
            self.topology,
            self.system,
            self.direction,
            size,
            self.options,
        );
        self.load.set_profile(profile)?;
        let plan = Plan {
            most: ceiling.rate,
            least: LEAST_RATE.min(ceiling.rate / 2.0),
            first_duration: self.options.first_trial,
            duration: self.options.trial,
            trials: self.options.trials,
            width: self.options.width,
            budget: self.options.budget,
        };
        let found = search(self, &[Goal::NDR, Goal::PDR], &plan)?;
        let (ndr, pdr) = (found.bounds[0], found.bounds[1]);
        let mut round = Round {
            ndr: ndr.lower,
            pdr: pdr.lower,
            overload: found.overload,
            pdr_width: pdr.width(),
            trials: found.trials,
            latency: Vec::new(),
            cost: None,
            reordered: 0,
            duplicates: 0,
        };
        if let Bounds {
            lower: Some(pdr), ..
        } = pdr
        {
            self.look_closer(pdr, ceiling, &mut round)?;
        }
        Ok(round)
    }

    fn look_closer(&mut self, pdr: f64, ceiling: &Ceiling, round: &mut Round) -> Result<()> {
        for load in self.options.loads.clone() {
            let outcome = self.send(pdr * load, self.options.latency_trial)?;
            round.latency.push(latency(load, &outcome.latency));
            round.reordered += outcome.received.reordered;
            round.duplicates += outcome.received.duplicates;
        }
        let before = self.watched.usage();
        let start = Instant::now();
        let outcome = self.send(pdr, self.options.latency_trial)?;
        let used = self.watched.usage() - before;
        round.reordered += outcome.received.reordered;
        round.duplicates += outcome.received.duplicates;
        round.cost = Some(self.cost(&outcome, &used, start.elapsed(), ceiling));
        Ok(())
    }

    fn cost(&self, outcome: &Outcome, used: &Usage, took: Duration, ceiling: &Ceiling) -> Cost {
        let packets = outcome.received.packets.max(1) as f64;
        let own = outcome.sent.packets as f64 * ceiling.packet_ns
            + outcome.sent.idle_runs as f64 * ceiling.idle_ns;
        let sender = match self.options.softirq {
            Softirq::Node => 0.0,
            Softirq::Sender => (outcome.sent.cpu.as_nanos() as f64 - own).max(0.0),
        };
        // The processes also ran while the system was warmed up and the last packets were waited for.
        let share = outcome.sent.elapsed.as_secs_f64() / took.as_secs_f64().max(1e-9);
        let process = used.processes.as_nanos() as f64 * share.min(1.0);
        let kernel_threads = used.kernel_threads.as_nanos() as f64 * share.min(1.0);
        let total = process + kernel_threads + sender;
        Cost {
            rate: outcome.sent.packets as f64 / outcome.sent.elapsed.as_secs_f64().max(1e-9),
            packets: outcome.received.packets,
            seconds: outcome.sent.elapsed.as_secs_f64(),
            packet_ns: total / packets,
            packet_cycles: total / packets * self.options.mhz / 1000.0,
            process_ns: process / packets,
            kernel_thread_ns: kernel_threads / packets,
            sender_ns: sender / packets,
            cores: used.cores.clone(),
        }
    }

    fn first_look(&mut self) -> Result<()> {
        for _ in 0..FIRST_LOOKS {
            let outcome = self.send(FIRST_LOOK, FIRST_LOOK_DURATION)?;
            if outcome.received.packets > 0 {
                return Ok(());
            }
        }
        Err(BenchError::System {
            system: self.system.name().to_owned(),
            reason: format!(
                "no packet arrives ({}): the generator sends from {}, the sink is at {}",
                self.direction.name(),
                self.topology.generator(self.direction).1,
                self.topology.sink(self.direction).1,
            ),
        })
    }

    fn send(&mut self, rate: f64, duration: Duration) -> Result<Outcome> {
        let order = Order {
            rate: Some(rate),
            duration,
            limit: None,
        };
        let (namespace, device) = self.topology.generator(self.direction);
        self.load.run(namespace, device, order, self.interrupted)
    }
}

impl Device for Bench<'_> {
    type Error = BenchError;

    fn trial(&mut self, rate: f64, duration: Duration) -> Result<Trial> {
        let outcome = self.send(rate, duration)?;
        let trial = Trial {
            intended: (rate * duration.as_secs_f64()) as u64,
            sent: outcome.sent.packets,
            received: outcome.received.packets,
            seconds: duration.as_secs_f64(),
        };
        log::debug!(
            "{} {}: {rate:.0} pps for {duration:?}: sent {} of {}, received {}, loss {:.4} %",
            self.system,
            self.direction.name(),
            trial.sent,
            trial.intended,
            trial.received,
            trial.loss_ratio() * 100.0
        );
        Ok(trial)
    }
}

/// What the generator reaches alone, and what it costs itself: frames are dropped as they arrive.
pub fn ceiling(
    topology: &Topology,
    size: FrameSize,
    options: &Options,
    interrupted: &AtomicBool,
) -> Result<Ceiling> {
    let direction = Direction::Encap;
    let mut load = Load::new(
        profile(topology, System::Native, direction, size, options),
        options.generator_cpu,
    )?;
    let (ingress, device) = topology.ingress(direction);
    load.attach_discard(ingress, device)?;
    let (namespace, device) = topology.generator(direction);
    let mut send = |rate, limit| {
        let order = Order {
            rate,
            duration: options.trial,
            limit,
        };
        load.run_cold(namespace, device, order, interrupted)
    };
    let mut best = send(None, None)?.sent;
    let again = send(None, None)?.sent;
    if again.packets > best.packets {
        best = again;
    }
    let idle = send(Some(1.0), Some(0))?.sent;
    let ns = |duration: Duration| duration.as_nanos() as f64;
    Ok(Ceiling {
        size,
        rate: best.packets as f64 / best.elapsed.as_secs_f64().max(1e-9),
        packet_ns: ns(best.cpu) / best.packets.max(1) as f64,
        idle_ns: ns(idle.cpu) / idle.idle_runs.max(1) as f64,
    })
}

fn profile(
    topology: &Topology,
    system: System,
    direction: Direction,
    size: FrameSize,
    options: &Options,
) -> Profile {
    topology.profile(
        direction,
        system.outer(),
        size,
        options.flows,
        options.destinations,
    )
}

/// Whose time counts as the nodes'.
fn watched(
    topology: &Topology,
    running: &Running,
    direction: Direction,
    options: &Options,
) -> Result<Watched> {
    let mut threads: Vec<Pid> = Vec::new();
    if options.softirq == Softirq::Node {
        for site in topology.nodes(direction) {
            threads.extend(site.thread_napi(options.node_cpu)?);
        }
    }
    threads.extend(kernel_threads(|name| name.starts_with("ksoftirqd/")).into_values());
    Ok(Watched {
        processes: running.processes(topology, direction),
        kernel_threads: threads,
    })
}

fn latency(load: f64, histogram: &Histogram<u64>) -> Latency {
    Latency {
        load,
        packets: histogram.len(),
        p50: histogram.value_at_quantile(0.5),
        p90: histogram.value_at_quantile(0.9),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
    }
}
