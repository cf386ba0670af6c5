//! Measuring one system in one direction at one size.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::unistd::Pid;

use super::cpu::{Usage, Watched, kernel_threads};
use super::error::{BenchError, Result};
use super::load::profile::{FrameSize, Profile};
use super::load::{Load, Order, Outcome};
use super::options::Options;
use super::report::{Ceiling, Cost, Latency, Round, Softirq};
use super::run_command;
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
        bench.first_look(running)?;
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
        let outcome = self.send(pdr, self.options.latency_trial)?;
        let used = self.watched.usage() - before;
        round.reordered += outcome.received.reordered;
        round.duplicates += outcome.received.duplicates;
        round.cost = Some(self.cost(&outcome, &used, ceiling));
        Ok(())
    }

    /// The warm-up is part of what was used, so its packets count here, too.
    fn cost(&self, outcome: &Outcome, used: &Usage, ceiling: &Ceiling) -> Cost {
        let (sent, received) = (outcome.sent, outcome.received);
        let own = (sent.packets + sent.warm_up) as f64 * ceiling.packet_ns
            + sent.idle_runs as f64 * ceiling.idle_ns;
        let sender = match self.options.softirq {
            Softirq::Node => 0.0,
            Softirq::Sender => (sent.cpu.as_nanos() as f64 - own).max(0.0),
        };
        let packets = (received.packets + received.late).max(1) as f64;
        let process_ns = used.processes.as_nanos() as f64 / packets;
        let kernel_thread_ns = used.kernel_threads.as_nanos() as f64 / packets;
        let packet_ns = process_ns + kernel_thread_ns + sender / packets;
        let seconds = self.options.latency_trial.as_secs_f64();
        Cost {
            rate: sent.packets as f64 / seconds,
            packets: received.packets,
            seconds,
            packet_ns,
            packet_cycles: packet_ns * self.options.mhz / 1000.0,
            process_ns,
            kernel_thread_ns,
            sender_ns: sender / packets,
            cores: used.cores.clone(),
        }
    }

    fn first_look(&mut self, running: &Running) -> Result<()> {
        for _ in 0..FIRST_LOOKS {
            let outcome = self.send(FIRST_LOOK, FIRST_LOOK_DURATION)?;
            if outcome.received.packets > 0 {
                return Ok(());
            }
        }
        Err(BenchError::System {
            system: self.system.name().to_owned(),
            reason: format!(
                "no packet arrives ({}): the generator sends from {}, the sink is at {}; {}",
                self.direction.name(),
                self.topology.generator(self.direction).1,
                self.topology.sink(self.direction).1,
                running.diagnosis(),
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
        let before = load.discarded()?;
        let sent = load.run_cold(namespace, device, order, interrupted)?.sent;
        Ok((sent, load.discarded()? - before))
    };
    // Frames that the ring of the far end has no room for are none of the generator's merit.
    let (first, again) = (send(None, None)?, send(None, None)?);
    let (sent, arrived) = if again.1 > first.1 { again } else { first };
    let (idle, _) = send(Some(1.0), Some(0))?;
    let ns = |duration: Duration| duration.as_nanos() as f64;
    Ok(Ceiling {
        size,
        rate: arrived as f64 / options.trial.as_secs_f64(),
        packet_ns: ns(sent.cpu) / arrived.max(1) as f64,
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
            let own = site.thread_napi(options.node_cpu)?;
            if options.realtime {
                own.iter().try_for_each(|thread| realtime(*thread))?;
            }
            threads.extend(own);
        }
    }
    threads.extend(kernel_threads(|name| name.starts_with("ksoftirqd/")).into_values());
    Ok(Watched {
        processes: running.processes(topology, direction),
        kernel_threads: threads,
    })
}

/// Gives a thread or process real-time priority.
pub fn realtime(pid: Pid) -> Result<()> {
    run_command("chrt", &["--fifo", "--pid", "1", &pid.to_string()]).map(drop)
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
