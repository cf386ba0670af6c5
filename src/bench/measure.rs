//! Measuring what is between two ends: its throughput, its latency, what it costs.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::unistd::Pid;

use super::cpu::{Usage, Watched, kernel_threads};
use super::error::{BenchError, Result};
use super::load::profile::{FrameSize, Profile};
use super::load::{Load, Order, Outcome};
use super::namespace::Namespace;
use super::options::Options;
use super::report::{Ceiling, Cost, Latency, Round, Softirq};
use super::run_command;
use super::search::{Bounds, Device, Goal, Plan, Trial, search};
use super::systems::{Running, System};
use super::topology::{Direction, Topology};

/// Packets a second at which it is seen whether anything arrives at all, and for how long.
const FIRST_LOOK: f64 = 20_000.0;
const FIRST_LOOK_DURATION: Duration = Duration::from_millis(20);
/// How often that is tried.
const FIRST_LOOKS: usize = 25;

/// The least rate that is searched at.
const LEAST_RATE: f64 = 2_000.0;

/// Where the load begins and where it ends.
#[derive(Debug)]
pub struct Ends<'a> {
    /// Where packets are sent from: a namespace and its device.
    pub from: (&'a Namespace, &'a str),
    /// Where they arrive.
    pub to: (&'a Namespace, &'a str),
    /// What they look like; the size varies.
    pub profile: Profile,
}

/// Something to be measured, with the load in place.
pub struct Bench<'a> {
    what: String,
    ends: Ends<'a>,
    options: &'a Options,
    load: Load,
    /// Whose time it costs, where that is on this machine.
    watched: Option<Watched>,
    interrupted: &'a AtomicBool,
}

impl<'a> Bench<'a> {
    /// Puts generator and sink at two ends.
    pub fn new(
        what: String,
        ends: Ends<'a>,
        options: &'a Options,
        interrupted: &'a AtomicBool,
    ) -> Result<Self> {
        let mut load = Load::new(ends.profile.clone(), options.generator_cpu)?;
        let (namespace, device) = ends.to;
        load.attach_sink(namespace, device)?;
        Ok(Self {
            what,
            ends,
            options,
            load,
            watched: None,
            interrupted,
        })
    }

    /// A system that runs on the bench's own nodes; sees that packets pass.
    pub fn of_system(
        topology: &'a Topology,
        running: &Running,
        system: System,
        direction: Direction,
        options: &'a Options,
        interrupted: &'a AtomicBool,
    ) -> Result<Self> {
        let ends = ends(topology, system, direction, options);
        let what = format!("{system} {}", direction.name());
        let mut bench = Self::new(what, ends, options, interrupted)?;
        bench.watched = Some(watched(topology, running, direction, options)?);
        if !bench.passes()? {
            return Err(BenchError::System {
                system: system.name().to_owned(),
                reason: format!(
                    "no packet arrives ({}): the generator sends from {}, the sink is at {}; {}",
                    direction.name(),
                    bench.ends.from.1,
                    bench.ends.to.1,
                    running.diagnosis(),
                ),
            });
        }
        Ok(bench)
    }

    /// Searches the throughput, then measures latency and cost at parts of it, as the round `number`.
    pub fn measure(&mut self, number: usize, size: FrameSize, ceiling: &Ceiling) -> Result<Round> {
        self.load.set_profile(Profile {
            size,
            ..self.ends.profile.clone()
        })?;
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
            number: Some(number),
            ndr: ndr.lower,
            pdr: pdr.lower,
            overload: found.overload,
            pdr_width: pdr.width(plan.most),
            ndr_width: ndr.width(plan.most),
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
        let Some(watched) = self.watched.clone() else {
            return Ok(());
        };
        // Only while packets are sent: what polls without ever sleeping uses time also afterwards.
        let mut seen = Vec::new();
        let mut look = || seen.push(watched.usage());
        let (namespace, device) = self.ends.from;
        let order = order(pdr, self.options.latency_trial);
        let load = &mut self.load;
        let outcome = load.run_watched(namespace, device, order, &mut look, self.interrupted)?;
        let after = seen.pop().unwrap_or_default();
        let used = after - seen.pop().unwrap_or_default();
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
        let generator = self.options.generator_cpu;
        let in_generator = sent.cpu + used.softirq_apart(generator);
        let sender = match self.options.softirq {
            Softirq::Node => 0.0,
            Softirq::Sender => (in_generator.as_nanos() as f64 - own).max(0.0),
        };
        let kernel_threads = used.kernel_threads + used.softirq_apart(self.options.node_cpu);
        let packets = (received.packets + received.late).max(1) as f64;
        let process_ns = used.processes.as_nanos() as f64 / packets;
        let kernel_thread_ns = kernel_threads.as_nanos() as f64 / packets;
        let packet_ns = process_ns + kernel_thread_ns + sender / packets;
        let seconds = self.options.latency_trial.as_secs_f64();
        Cost {
            rate: sent.packets as f64 / seconds,
            packets: received.packets,
            seconds,
            packet_ns,
            packet_cycles: self.options.tsc_mhz.map(|mhz| packet_ns * mhz / 1000.0),
            process_ns,
            kernel_thread_ns,
            sender_ns: sender / packets,
            cores: used.cores.clone(),
        }
    }

    /// Whether anything arrives; neighbours and routes may have to settle.
    pub fn passes(&mut self) -> Result<bool> {
        for _ in 0..FIRST_LOOKS {
            let outcome = self.send(FIRST_LOOK, FIRST_LOOK_DURATION)?;
            if outcome.received.packets > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn send(&mut self, rate: f64, duration: Duration) -> Result<Outcome> {
        let (namespace, device) = self.ends.from;
        let order = order(rate, duration);
        self.load.run(namespace, device, order, self.interrupted)
    }
}

fn order(rate: f64, duration: Duration) -> Order {
    Order {
        rate: Some(rate),
        duration,
        limit: None,
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
            "{}: {rate:.0} pps for {duration:?}: sent {} of {}, received {}, loss {:.4} %",
            self.what,
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
    let ends = ends(topology, System::Native, direction, options);
    let profile = Profile {
        size,
        ..ends.profile
    };
    let mut load = Load::new(profile, options.generator_cpu)?;
    let (ingress, device) = topology.ingress(direction);
    load.attach_discard(ingress, device)?;
    let mut send = |rate, limit| {
        let before = load.discarded()?;
        let order = Order {
            rate,
            duration: options.trial,
            limit,
        };
        let sent = load.run_cold(ends.from.0, ends.from.1, order, interrupted)?;
        Ok((sent.sent, load.discarded()? - before))
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

impl Bench<'_> {
    /// What the generator gives to the device at most, whatever becomes of it.
    pub fn offered(&mut self, size: FrameSize) -> Result<Ceiling> {
        self.load.set_profile(Profile {
            size,
            ..self.ends.profile.clone()
        })?;
        let order = Order {
            rate: None,
            duration: self.options.first_trial,
            limit: None,
        };
        let (namespace, device) = self.ends.from;
        let sent = self
            .load
            .run(namespace, device, order, self.interrupted)?
            .sent;
        Ok(Ceiling {
            size,
            rate: sent.packets as f64 / order.duration.as_secs_f64(),
            packet_ns: sent.cpu.as_nanos() as f64 / (sent.packets + sent.warm_up).max(1) as f64,
            idle_ns: 0.0,
        })
    }
}

fn ends<'a>(
    topology: &'a Topology,
    system: System,
    direction: Direction,
    options: &Options,
) -> Ends<'a> {
    Ends {
        from: topology.generator(direction),
        to: topology.sink(direction),
        profile: topology.profile(
            direction,
            system.outer(),
            options.sizes[0],
            options.flows,
            options.destinations,
        ),
    }
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

/// Takes real-time priority from a process that has inherited it.
pub fn ordinary(pid: Pid) -> Result<()> {
    let arguments = ["--other", "--all-tasks", "--pid", "0", &pid.to_string()];
    run_command("chrt", &arguments).map(drop)
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
