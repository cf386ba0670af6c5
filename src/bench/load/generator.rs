//! The sending side: orders into a map, and runs of the program until they are carried out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::Array;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::profile::{PORT, Profile, SIZES};
use super::{Order, chain};
use crate::bench::cpu;
use crate::bench::error::{BenchError, Result};

/// Runs between two looks at the transmit side: the kernel sends what a batch redirects at once.
const BATCH: u32 = 64;

/// Runs of one system call at most: half a second if nothing is sent.
const RUNS: f64 = 8e6;

/// How far the generator may fall behind its schedule and catch up.
const LAG: Duration = Duration::from_micros(200);
/// The same in packets, for high rates: a burst that a veth's ring of 256 takes.
const LAG_PACKETS: f64 = 64.0;

/// `struct generator` of the program up to what it counts, as bytes.
const TEMPLATE: usize = 128;
const VALUE: usize = 10 * 8 + 4 * 4 + 4 * 2 + SIZES * 2 + TEMPLATE;
type Value = [u64; VALUE / 8];

/// What one run of the generator is to do.
pub(super) struct Orders<'a> {
    pub(super) profile: &'a Profile,
    pub(super) order: Order,
    pub(super) trial: u16,
    pub(super) device: &'a str,
    pub(super) thread: Pid,
}

/// What the generator did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sent {
    /// Packets given to the device.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Packets that were due while the generator could not run.
    pub skipped: u64,
    /// Runs of the program that sent nothing.
    pub idle_runs: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// CPU time of the generator's thread, with what the kernel did in it.
    pub cpu: Duration,
}

/// Carries out the orders in the calling thread, which is in the device's namespace.
pub(super) fn run(ebpf: &mut Ebpf, orders: &Orders<'_>, interrupted: &AtomicBool) -> Result<Sent> {
    let Order {
        duration, limit, ..
    } = orders.order;
    let frame = vec![0; usize::from(longest(orders.profile))];
    let value = value(orders)?;
    let start = Instant::now();
    let cpu_before = cpu::of_thread(orders.thread);
    map(ebpf)?
        .set(0, value, 0)
        .map_err(|error| BenchError::Load(chain(&error)))?;

    // What is left of the time, in runs as long as those before, and fewer: the last are short.
    let mut nanoseconds_a_run = 100.0;
    let mut runs_done = 0.0;
    while start.elapsed() < duration && !interrupted.load(Ordering::Relaxed) {
        let left = (duration - start.elapsed()).as_nanos() as f64;
        let runs = (left / nanoseconds_a_run * 0.9).clamp(f64::from(BATCH), RUNS) as u32;
        program(ebpf, orders.profile)?
            .test_run(TestRunOptions {
                data_in: Some(&frame),
                repeat: runs,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            })
            .map_err(refused)?;
        runs_done += f64::from(runs);
        nanoseconds_a_run = start.elapsed().as_nanos() as f64 / runs_done;
        if limit.is_some() && sent(ebpf)?.packets >= limit.unwrap_or_default() {
            break;
        }
    }
    let mut sent = sent(ebpf)?;
    sent.elapsed = start.elapsed().min(duration);
    sent.cpu = cpu::of_thread(orders.thread).saturating_sub(cpu_before);
    Ok(sent)
}

fn longest(profile: &Profile) -> u16 {
    profile.lengths().into_iter().max().unwrap_or_default()
}

fn value(orders: &Orders<'_>) -> Result<Value> {
    let Orders { profile, order, .. } = orders;
    let interface = nix::net::if_::if_nametoindex(orders.device)
        .map_err(BenchError::errno(format!("interface '{}'", orders.device)))?;
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(BenchError::errno("the clock"))?;
    let start = Duration::from(now).as_nanos() as u64;
    let interval = order.rate.map_or(0, |rate| (1024.0e9 / rate) as u64);
    let lag = (LAG.as_nanos() as f64 * 1024.0).min(LAG_PACKETS * interval as f64);
    let template = profile.template();
    let (inner_sum, outer_sum) = profile.sums(&template);

    let mut bytes = Vec::with_capacity(VALUE);
    for number in [
        start,
        start + order.duration.as_nanos() as u64,
        interval,
        lag as u64,
        order.limit.unwrap_or(u64::MAX),
        0, // due
        0, // sent
        0, // bytes
        0, // skipped
        0, // early
    ] {
        bytes.extend(number.to_ne_bytes());
    }
    for number in [
        interface,
        profile.flows - 1,
        profile.destinations - 1,
        profile.destination.to_bits(),
    ] {
        bytes.extend(number.to_ne_bytes());
    }
    let sizes = profile.lengths();
    for number in [orders.trial, PORT, inner_sum, outer_sum]
        .into_iter()
        .chain(sizes)
    {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(&template);
    bytes.resize(VALUE, 0);
    let mut value = [0; VALUE / 8];
    for (word, bytes) in value.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    Ok(value)
}

fn sent(ebpf: &mut Ebpf) -> Result<Sent> {
    let value = map(ebpf)?
        .get(&0, 0)
        .map_err(|error| BenchError::Load(chain(&error)))?;
    Ok(Sent {
        packets: value[6],
        bytes: value[7],
        skipped: value[8],
        idle_runs: value[9],
        ..Sent::default()
    })
}

fn map(ebpf: &mut Ebpf) -> Result<Array<&mut aya::maps::MapData, Value>> {
    let map = ebpf
        .map_mut("generator")
        .ok_or_else(|| BenchError::Load("no map 'generator'".to_owned()))?;
    Array::try_from(map).map_err(|error| BenchError::Load(chain(&error)))
}

fn program<'a>(ebpf: &'a mut Ebpf, profile: &Profile) -> Result<&'a mut Xdp> {
    ebpf.program_mut(profile.program())
        .ok_or_else(|| BenchError::Load(format!("no program '{}'", profile.program())))?
        .try_into()
        .map_err(|error: aya::programs::ProgramError| BenchError::Load(chain(&error)))
}

fn refused(error: aya::programs::ProgramError) -> BenchError {
    BenchError::Load(format!(
        "the kernel does not run the generator (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18): {}",
        chain(&error)
    ))
}
