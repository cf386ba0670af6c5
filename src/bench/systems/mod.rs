//! The systems under test, all on the same topology.

pub mod documents;
mod kernel;
mod ovs;
mod underpass;
pub mod wire;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::error::{BenchError, Result};
use super::options::Routes;
use super::topology::{Direction, Outer, Site, Topology};
use crate::resources::Io;

/// A system under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// The kernel's own routing, without a tunnel.
    Native,
    /// underpass, without a tunnel.
    Direct,
    /// underpass, IP-in-IP.
    Ipip,
    /// underpass, VXLAN.
    Vxlan,
    /// underpass, CrossSubnet with VXLAN, the nodes in one subnet.
    Cross,
    /// underpass, CrossSubnet with VXLAN, the nodes in different subnets.
    CrossFar,
    /// underpass with its fast path, without a tunnel.
    FastDirect,
    /// underpass with its fast path, IP-in-IP.
    FastIpip,
    /// underpass with its fast path, VXLAN.
    FastVxlan,
    /// The kernel's VXLAN.
    KernelVxlan,
    /// The kernel's IP-in-IP.
    KernelIpip,
    /// Frames passed on unchanged from one AF_XDP port to another: the limit of this I/O.
    Wire,
    /// Open vSwitch's userspace datapath with AF_XDP ports, VXLAN.
    Ovs,
    /// What is between two given interfaces.
    Given,
}

impl System {
    /// All that run on nodes of the bench's own, native routing first.
    pub const ALL: [Self; 13] = [
        Self::Native,
        Self::Direct,
        Self::Ipip,
        Self::Vxlan,
        Self::Cross,
        Self::CrossFar,
        Self::FastDirect,
        Self::FastIpip,
        Self::FastVxlan,
        Self::KernelVxlan,
        Self::KernelIpip,
        Self::Wire,
        Self::Ovs,
    ];

    /// What the others are compared with: routing as it is, the limit of AF_XDP, other ways to tunnel.
    pub const BASES: [Self; 4] = [Self::Native, Self::Wire, Self::KernelVxlan, Self::Ovs];

    /// Its name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Direct => "direct",
            Self::Ipip => "ipip",
            Self::Vxlan => "vxlan",
            Self::Cross => "cross",
            Self::CrossFar => "cross-far",
            Self::FastDirect => "fast-direct",
            Self::FastIpip => "fast-ipip",
            Self::FastVxlan => "fast-vxlan",
            Self::KernelVxlan => "kernel-vxlan",
            Self::KernelIpip => "kernel-ipip",
            Self::Wire => "wire",
            Self::Ovs => "ovs",
            Self::Given => "given",
        }
    }

    /// What it is, in a few words.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Native => "kernel routing, no tunnel",
            Self::Direct => "underpass, no tunnel",
            Self::Ipip => "underpass, IP-in-IP",
            Self::Vxlan => "underpass, VXLAN",
            Self::Cross => "underpass, CrossSubnet, same subnet: no tunnel",
            Self::CrossFar => "underpass, CrossSubnet, other subnet: VXLAN",
            Self::FastDirect => "underpass, XDP fast path, no tunnel",
            Self::FastIpip => "underpass, XDP fast path, IP-in-IP",
            Self::FastVxlan => "underpass, XDP fast path, VXLAN",
            Self::KernelVxlan => "kernel routing, kernel's vxlan device",
            Self::KernelIpip => "kernel routing, kernel's ipip device",
            Self::Wire => "AF_XDP port to port, frames unchanged",
            Self::Ovs => "Open vSwitch, userspace datapath, AF_XDP, VXLAN, no routing",
            Self::Given => "what is between the given interfaces",
        }
    }

    /// What its packets on the uplink are in.
    pub const fn outer(self) -> Outer {
        match self {
            Self::Native
            | Self::Direct
            | Self::Cross
            | Self::FastDirect
            | Self::Wire
            | Self::Given => Outer::Plain,
            Self::Ipip | Self::FastIpip | Self::KernelIpip => Outer::Ipip,
            Self::Vxlan | Self::CrossFar | Self::FastVxlan | Self::KernelVxlan | Self::Ovs => {
                Outer::Vxlan
            }
        }
    }

    /// Whether underpass forwards by its fast path.
    pub const fn has_fast_path(self) -> bool {
        matches!(self, Self::FastDirect | Self::FastIpip | Self::FastVxlan)
    }

    /// Whether TCP passes: what does not route leaves Ethernet addresses as they are.
    pub const fn carries_tcp(self) -> bool {
        !matches!(self, Self::Wire | Self::Ovs | Self::Given)
    }

    /// Whether it can be measured in that direction.
    pub fn has(self, direction: Direction) -> bool {
        match self {
            // Two of its polling threads on one CPU would keep each other waiting.
            Self::Ovs => direction != Direction::Path,
            _ => true,
        }
    }

    /// Why it cannot be measured on this machine.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::KernelVxlan => kernel::missing("vxlan", "id 4096 dstport 4789"),
            Self::KernelIpip => kernel::missing("ipip", ""),
            Self::Ovs => ovs::missing(),
            _ => None,
        }
    }

    /// Starts it on the nodes under test, and waits until it forwards. The other node's devices stay
    /// free for the generator and the sink.
    pub fn start(
        self,
        topology: &Topology,
        direction: Direction,
        place: &Place,
    ) -> Result<Running> {
        match self {
            Self::Native => kernel::native(topology, place),
            Self::KernelVxlan => kernel::vxlan(topology, place),
            Self::KernelIpip => kernel::ipip(topology, place),
            Self::Direct
            | Self::Ipip
            | Self::Vxlan
            | Self::Cross
            | Self::CrossFar
            | Self::FastDirect
            | Self::FastIpip
            | Self::FastVxlan => underpass::start(self, topology, direction, place),
            Self::Wire => wire::start(topology, direction, place),
            Self::Ovs => ovs::start(topology, direction, place),
            Self::Given => Err(BenchError::Option(format!(
                "{self} is measured between two interfaces, not started"
            ))),
        }
    }
}

impl std::fmt::Display for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for System {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|system| system.name() == text)
            .ok_or_else(|| {
                let names: Vec<_> = Self::ALL.iter().map(|system| system.name()).collect();
                format!("write one of {}", names.join(", "))
            })
    }
}

/// Where systems under test run and keep their files.
#[derive(Debug, Clone)]
pub struct Place {
    /// A directory that goes with this process.
    pub directory: PathBuf,
    /// The CPU of the nodes under test.
    pub cpu: usize,
    /// How many of the workload's addresses the load is sent to.
    pub destinations: u32,
    /// The routes to them.
    pub routes: Routes,
    /// How AF_XDP ports move frames.
    pub io: Io,
    /// Whether what forwards has real-time priority.
    pub realtime: bool,
}

impl Place {
    /// The prefixes that the addresses of a site's workload are routed by.
    fn prefixes(&self, site: &Site) -> impl Iterator<Item = Ipv4Net> {
        let length = self.routes.length();
        let each = 1 << (32 - length);
        let first = site.workload_address.to_bits();
        (0..self.destinations.div_ceil(each))
            .filter_map(move |number| Ipv4Net::new((first + number * each).into(), length).ok())
    }

    /// The addresses of a site's workload.
    fn addresses(&self, site: &Site) -> impl Iterator<Item = Ipv4Addr> {
        let first = site.workload_address.to_bits();
        (0..self.destinations).map(move |number| (first + number).into())
    }
}

/// A system under test; dropping this ends its processes.
#[derive(Debug, Default)]
pub struct Running {
    /// By site: `a` or `b`.
    processes: Vec<(&'static str, Process)>,
    /// What they need beside them, and whose time does not count.
    helpers: Vec<Process>,
    /// Control sockets of nodes that have one.
    sockets: Vec<PathBuf>,
}

impl Running {
    /// The processes of the nodes under test.
    pub fn processes(&self, topology: &Topology, direction: Direction) -> Vec<Pid> {
        let sites: Vec<_> = topology.nodes(direction).iter().map(|s| s.name).collect();
        let of_sites = self
            .processes
            .iter()
            .filter(|(site, _)| sites.contains(site));
        of_sites.map(|(_, process)| process.pid()).collect()
    }

    /// What its nodes say of packets that they did not send on, for an error's text.
    pub fn diagnosis(&self) -> String {
        let said = self.sockets.iter().map(|socket| underpass::drops(socket));
        let said: Vec<_> = said.filter(|text| !text.is_empty()).collect();
        said.join("; ")
    }

    fn add(&mut self, site: &'static str, process: Process) {
        self.processes.push((site, process));
    }
}

/// A child process and where its messages go; it is ended when this is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let file = std::fs::File::create(log)
            .map_err(BenchError::io(format!("making {}", log.display())))?;
        let errors = file.try_clone().map_err(BenchError::io("a log's file"))?;
        let child = command
            .stdout(file)
            .stderr(errors)
            .stdin(Stdio::null())
            .spawn()
            .map_err(BenchError::io("starting a system under test"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Waits for `ready`; an error has the end of the log.
    fn wait_for(
        &mut self,
        system: System,
        patience: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            if ready() {
                return Ok(());
            }
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if ended || start.elapsed() > patience {
                let what = if ended {
                    "it ended while it started"
                } else {
                    "it was not ready in time"
                };
                return Err(self.failed(system, what));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn failed(&self, system: System, what: &str) -> BenchError {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        let last: Vec<_> = lines.into_iter().rev().collect();
        BenchError::System {
            system: system.name().to_owned(),
            reason: format!("{what}; its last words: {}", last.join(" | ")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGTERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(5) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}
