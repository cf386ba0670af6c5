//! The load: packets made and counted inside the kernel.
//!
//! ```text
//!  BPF_PROG_TEST_RUN, live frames             tc ingress
//!  generate_* ──redirect──► veth ══ system under test ══ veth ──► sink: counted, dropped
//!    sequence, time stamp                                           loss, order, copies, latency
//! ```
//!
//! The generator's program runs without pause on one core. At each run it looks at the clock and sends
//! a packet if one is due, so a rate is kept to within the time of a batch of 64 runs, a few
//! microseconds.

mod generator;
pub mod profile;
mod sink;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::links::FdLink;
use aya::programs::{ProgramError, SchedClassifier, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use hdrhistogram::Histogram;
use nix::unistd::{Pid, gettid};

use super::error::{BenchError, Result};
use super::namespace::{Namespace, pin};
use generator::Orders;
pub use generator::Sent;
use profile::Profile;
pub use sink::Received;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/load.bpf.o"));

/// How long packets may take to arrive after the last was sent.
const LATE: Duration = Duration::from_millis(1000);
/// How long nothing must arrive for the rest to be taken as lost.
const QUIET: Duration = Duration::from_millis(50);
/// How long the system under test is warmed up before a trial.
const WARM_UP: Duration = Duration::from_millis(20);

/// A generator and a sink in place.
pub struct Load {
    // Before the programs: detached first.
    links: Vec<FdLink>,
    ebpf: Ebpf,
    profile: Profile,
    cpu: usize,
    trial: u16,
}

/// How packets are to be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Order {
    /// Packets a second; none: as many as can be.
    pub rate: Option<f64>,
    /// How long.
    pub duration: Duration,
    /// How many at most.
    pub limit: Option<u64>,
}

/// What became of the packets of one order.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the generator did.
    pub sent: Sent,
    /// What the sink saw.
    pub received: Received,
    /// One-way latencies in nanoseconds.
    pub latency: Histogram<u64>,
}

impl Load {
    /// Loads the programs; the generator is to run on `cpu`.
    pub fn new(profile: Profile, cpu: usize) -> Result<Self> {
        profile::check(profile.flows, profile.destinations)?;
        let ebpf = EbpfLoader::new()
            .load(OBJECT)
            .map_err(|error| BenchError::Load(chain(&error)))?;
        let mut load = Self {
            links: Vec::new(),
            ebpf,
            profile,
            cpu,
            trial: 0,
        };
        let name = load.profile.program();
        load.xdp(name)?
            .load()
            .map_err(|error| BenchError::Load(chain(&error)))?;
        Ok(load)
    }

    /// Attaches the sink at a device's tc ingress hook.
    pub fn attach_sink(&mut self, namespace: &Namespace, device: &str) -> Result<()> {
        let program: &mut SchedClassifier = self
            .ebpf
            .program_mut("sink")
            .ok_or_else(|| BenchError::Load("no program 'sink'".to_owned()))?
            .try_into()
            .map_err(|error: aya::programs::ProgramError| BenchError::Load(chain(&error)))?;
        let mut attach = || {
            use aya::programs::TcAttachType::Ingress;
            program.load()?;
            let id = program.attach(device, Ingress)?;
            let link = program.take_link(id)?;
            held(FdLink::try_from(link))
        };
        let link = namespace.run(|| {
            attach().map_err(|error: aya::programs::ProgramError| {
                BenchError::Load(format!("the sink at {device}: {}", chain(&error)))
            })
        })?;
        self.links.push(link);
        Ok(())
    }

    /// Attaches the program that counts and drops all frames as they arrive: what the generator alone
    /// can do.
    pub fn attach_discard(&mut self, namespace: &Namespace, device: &str) -> Result<()> {
        let program = self.xdp("discard")?;
        let mut attach = || {
            program.load()?;
            let id = program.attach(device, XdpMode::Driver)?;
            let link = program.take_link(id)?;
            held(FdLink::try_from(link))
        };
        let link = namespace.run(|| {
            attach().map_err(|error: aya::programs::ProgramError| {
                BenchError::Load(format!("discarding at {device}: {}", chain(&error)))
            })
        })?;
        self.links.push(link);
        Ok(())
    }

    /// Takes up another profile of the same tunnel: other sizes, flows, addresses.
    pub fn set_profile(&mut self, profile: Profile) -> Result<()> {
        profile::check(profile.flows, profile.destinations)?;
        if profile.program() != self.profile.program() {
            return Err(BenchError::Load(
                "one load has one kind of tunnel".to_owned(),
            ));
        }
        self.profile = profile;
        Ok(())
    }

    /// Sends from a device by an order, after a moment of the same to warm up, and waits for what
    /// arrives.
    pub fn run(
        &mut self,
        namespace: &Namespace,
        device: &str,
        order: Order,
        interrupted: &AtomicBool,
    ) -> Result<Outcome> {
        self.send(namespace, device, order, WARM_UP, &mut || {}, interrupted)
    }

    /// [`Load::run`]; `look` is called right before the first and right after the last packet is sent.
    pub fn run_watched(
        &mut self,
        namespace: &Namespace,
        device: &str,
        order: Order,
        look: &mut dyn FnMut(),
        interrupted: &AtomicBool,
    ) -> Result<Outcome> {
        self.send(namespace, device, order, WARM_UP, look, interrupted)
    }

    /// [`Load::run`] without the warm-up: the sink sees no other packets.
    pub fn run_cold(
        &mut self,
        namespace: &Namespace,
        device: &str,
        order: Order,
        interrupted: &AtomicBool,
    ) -> Result<Outcome> {
        self.send(
            namespace,
            device,
            order,
            Duration::ZERO,
            &mut || {},
            interrupted,
        )
    }

    fn send(
        &mut self,
        namespace: &Namespace,
        device: &str,
        order: Order,
        warm_up: Duration,
        look: &mut dyn FnMut(),
        interrupted: &AtomicBool,
    ) -> Result<Outcome> {
        // 0 is the number of no trial.
        self.trial = self.trial.checked_add(1).unwrap_or(1);
        sink::reset(&mut self.ebpf, u32::from(self.trial))?;
        look();
        let sent = self.generate(namespace, device, order, warm_up, interrupted)?;
        look();
        if interrupted.load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        let received = self.wait_for_the_rest(sent.packets)?;
        let latency = sink::latency(&mut self.ebpf)?;
        Ok(Outcome {
            sent,
            received,
            latency,
        })
    }

    /// Frames that [`Load::attach_discard`]'s program has counted.
    pub fn discarded(&mut self) -> Result<u64> {
        sink::discarded(&mut self.ebpf)
    }

    fn generate(
        &mut self,
        namespace: &Namespace,
        device: &str,
        order: Order,
        warm_up: Duration,
        interrupted: &AtomicBool,
    ) -> Result<Sent> {
        let Self {
            ebpf,
            profile,
            cpu,
            trial,
            ..
        } = self;
        namespace.run(|| {
            pin(Pid::from_raw(0), *cpu)?;
            let orders = Orders {
                profile,
                order,
                warm_up,
                trial: *trial,
                device,
                thread: gettid(),
            };
            generator::run(ebpf, &orders, interrupted)
        })
    }

    fn wait_for_the_rest(&mut self, sent: u64) -> Result<Received> {
        let start = Instant::now();
        let mut received = sink::received(&mut self.ebpf)?;
        let mut last_news = start;
        while received.packets < sent && start.elapsed() < LATE && last_news.elapsed() < QUIET {
            thread::sleep(Duration::from_millis(1));
            let now = sink::received(&mut self.ebpf)?;
            if now.packets != received.packets {
                last_news = Instant::now();
            }
            received = now;
        }
        Ok(received)
    }

    fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        self.ebpf
            .program_mut(name)
            .ok_or_else(|| BenchError::Load(format!("no program '{name}'")))?
            .try_into()
            .map_err(|error: aya::programs::ProgramError| BenchError::Load(chain(&error)))
    }
}

/// The link by its descriptor; a kernel without links for such programs is too old.
fn held<E>(link: Result<FdLink, E>) -> Result<FdLink, ProgramError> {
    link.map_err(|_| {
        ProgramError::SyscallError(aya::sys::SyscallError {
            call: "bpf_link_create",
            io_error: std::io::Error::from_raw_os_error(libc::EOPNOTSUPP),
        })
    })
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.contains(&line) {
            text = format!("{text}: {line}");
        }
        cause = error.source();
    }
    text
}
