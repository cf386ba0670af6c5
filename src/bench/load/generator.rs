//! The sending side: orders into a map, and runs of the program until they are carried out.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::Array;
use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::profile::{PORT, Profile, SIZES};
use super::{Order, chain};
use crate::bench::cpu;
use crate::bench::error::{BenchError, Result};

/// Runs between two looks at the transmit side: the kernel sends what a batch redirects at once.
const BATCH: u32 = 64;

/// No run is faster than this: so many runs outlast any order, if no signal ends them.
const FASTEST_RUN: Duration = Duration::from_nanos(5);

/// The signal that ends the runs in time.
const DEADLINE: Signal = Signal::SIGUSR1;

/// How far the generator may fall behind its schedule and catch up.
const LAG: Duration = Duration::from_micros(200);
/// The same in packets, for high rates: a burst that a veth's ring of 256 takes.
const LAG_PACKETS: f64 = 64.0;

/// `struct generator` of the program up to what it counts, as bytes.
const TEMPLATE: usize = 104;
const VALUE: usize = 12 * 8 + 6 * 4 + 4 * 2 + SIZES * 2 + TEMPLATE;
type Value = [u64; VALUE / 8];

/// What one run of the generator is to do.
pub(super) struct Orders<'a> {
    pub(super) profile: &'a Profile,
    pub(super) order: Order,
    pub(super) warm_up: Duration,
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
    /// Packets sent before the trial to warm the system up.
    pub warm_up: u64,
    /// Runs of the program that sent nothing.
    pub idle_runs: u64,
    /// CPU time of the generator's thread, with what the kernel did in it, the warm-up included.
    pub cpu: Duration,
}

/// Carries out the orders in the calling thread, which is in the device's namespace.
///
/// One system call does it all, as each begins with new memory and ends with a wait for the kernel's
/// readers (RCU). A timer's signal ends it.
pub(super) fn run(ebpf: &mut Ebpf, orders: &Orders<'_>, interrupted: &AtomicBool) -> Result<Sent> {
    let frame = vec![0; usize::from(longest(orders.profile))];
    let length = orders.warm_up + orders.order.duration;
    let mut alarm = alarm(orders.thread)?;
    let cpu_before = cpu::of_thread(orders.thread);
    map(ebpf)?
        .set(0, value(orders)?, 0)
        .map_err(|error| BenchError::Load(chain(&error)))?;
    let start = Instant::now();
    alarm
        .set(
            Expiration::OneShot(length.into()),
            TimerSetTimeFlags::empty(),
        )
        .map_err(BenchError::errno("setting a timer"))?;
    while start.elapsed() < length && !interrupted.load(Ordering::Relaxed) {
        let left = length.saturating_sub(start.elapsed());
        let runs = left.as_nanos() / FASTEST_RUN.as_nanos() + u128::from(BATCH);
        let result = program(ebpf, orders.profile)?.test_run(TestRunOptions {
            data_in: Some(&frame),
            repeat: u32::try_from(runs).unwrap_or(u32::MAX),
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        });
        match result {
            Err(error) if !is_signal(&error) => return Err(refused(&error)),
            _ => {}
        }
    }
    let mut sent = sent(ebpf)?;
    sent.cpu = cpu::of_thread(orders.thread).saturating_sub(cpu_before);
    Ok(sent)
}

/// A timer whose signal only ends what the thread is waiting for.
fn alarm(thread: Pid) -> Result<Timer> {
    static HANDLED: OnceLock<bool> = OnceLock::new();
    let handled = HANDLED.get_or_init(|| {
        let heard = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(DEADLINE as i32, heard).is_ok()
    });
    if !handled {
        return Err(BenchError::Load(format!("{DEADLINE} cannot be handled")));
    }
    let event = SigEvent::new(SigevNotify::SigevThreadId {
        signal: DEADLINE,
        thread_id: thread.as_raw(),
        si_value: 0,
    });
    Timer::new(ClockId::CLOCK_MONOTONIC, event).map_err(BenchError::errno("making a timer"))
}

fn is_signal(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(call) if call.io_error.kind() == ErrorKind::Interrupted)
}

fn longest(profile: &Profile) -> u16 {
    profile.lengths().into_iter().max().unwrap_or_default()
}

fn value(orders: &Orders<'_>) -> Result<Value> {
    let Orders { profile, order, .. } = orders;
    let interface = nix::net::if_::if_nametoindex(orders.device)
        .map_err(BenchError::errno(format!("interface '{}'", orders.device)))?;
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(BenchError::errno("the clock"))?;
    let begin = Duration::from(now).as_nanos() as u64;
    let start = begin + orders.warm_up.as_nanos() as u64;
    let interval = order.rate.map_or(0, |rate| (1024.0e9 / rate) as u64);
    let lag = (LAG.as_nanos() as f64 * 1024.0).min(LAG_PACKETS * interval as f64);
    let template = profile.template();
    let (inner_sum, outer_sum) = profile.sums(&template);

    let mut bytes = Vec::with_capacity(VALUE);
    for number in [
        begin,
        start,
        start + order.duration.as_nanos() as u64,
        interval,
        lag as u64,
        order.limit.unwrap_or(u64::MAX),
        0, // due
        0, // warmed
        0, // sent
        0, // bytes
        0, // skipped
        0, // idle
    ] {
        bytes.extend(number.to_ne_bytes());
    }
    for number in [
        interface,
        profile.flows - 1,
        profile.destinations - 1,
        profile.destination.to_bits(),
        0, // turn
        0, // unused
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
        warm_up: value[7],
        packets: value[8],
        bytes: value[9],
        skipped: value[10],
        idle_runs: value[11],
        cpu: Duration::ZERO,
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
        .map_err(|error: ProgramError| BenchError::Load(chain(&error)))
}

fn refused(error: &ProgramError) -> BenchError {
    BenchError::Load(format!(
        "the kernel does not run the generator (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18): {}",
        chain(error)
    ))
}
