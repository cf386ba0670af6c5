//! A bare AF_XDP wire: frames pass from one port to another unchanged, by the ports and memory that a
//! worker has. What it reaches is the limit of this I/O.

use std::io;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::{Place, Process, Running, System};
use crate::bench::error::{BenchError, Result};
use crate::bench::topology::{Direction, Topology};
use crate::packet::{BATCH, Batch, FramePool, HEADROOM};
use crate::port::xdp::{
    DEFAULT_RING_SIZE, Role, Steering, UmemOptions, WorkerUmem, XdpModeWanted, XdpOptions, XdpPort,
};
use crate::port::{Port, PortError, PortId};
use crate::resources::Io;

/// The verb by which the binary runs a wire; see [`run`].
pub const VERB: &str = "bench-wire";

/// What a wire says once it is up.
const UP: &str = "the wire is up";

const PATIENCE: Duration = Duration::from_secs(5);

/// Empty rounds before it sleeps, as a worker.
const SPIN_ROUNDS: u32 = 100;

const NAP: Duration = Duration::from_millis(500);

/// How often a full transmit ring is tried again before its frames are dropped, as a worker.
const TX_RETRIES: usize = 8;

/// Starts a wire on each node under test, from its workload to its uplink and back.
pub(super) fn start(topology: &Topology, direction: Direction, place: &Place) -> Result<Running> {
    let own = std::env::current_exe().map_err(BenchError::io("finding this program's file"))?;
    let mut running = Running::default();
    for site in topology.nodes(direction) {
        if place.io == Io::Generic {
            site.enable_napi()?;
            site.enable_workload_napi()?;
        }
        let mut command = site.node.command(Some(place.cpu), &own)?;
        command.args([VERB, &site.port, &site.uplink]);
        command.args(["--io", place.io.name()]);
        let log = place.directory.join(format!("wire-{}.log", site.name));
        let mut process = Process::spawn(command, &log)?;
        process.wait_for(System::Wire, PATIENCE, || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains(UP))
        })?;
        running.add(site.name, process);
    }
    Ok(running)
}

/// Passes frames between two devices until the process is ended.
pub fn run(devices: [&str; 2], io: Io) -> Result<()> {
    let wanted = match io {
        Io::Auto => XdpModeWanted::Auto,
        Io::Native => XdpModeWanted::Native,
        Io::Generic => XdpModeWanted::Generic,
    };
    let open = || -> Result<Wire, PortError> {
        let (umem, frames) = WorkerUmem::new(&UmemOptions::for_queues(2))?;
        let mut pool = FramePool::new(frames, HEADROOM);
        let mut ports = Vec::new();
        for (number, device) in devices.into_iter().enumerate() {
            let options = XdpOptions {
                interface: device.to_owned(),
                queues: 0..1,
                ring_size: DEFAULT_RING_SIZE,
            };
            let id = PortId(number as u16);
            ports.push(XdpPort::open(id, &options, &umem, &mut pool)?);
        }
        let mut steering = Vec::new();
        for (device, port) in devices.into_iter().zip(&ports) {
            let mut one = Steering::attach(device, Role::Workload, wanted)?;
            for (queue, socket) in port.sockets() {
                one.register(queue, socket)?;
            }
            steering.push(one);
        }
        Ok(Wire {
            _steering: steering,
            ports,
            pool,
        })
    };
    let wire = open().map_err(|error| BenchError::System {
        system: System::Wire.name().to_owned(),
        reason: error.to_string(),
    })?;
    println!("{UP}");
    wire.pass().map_err(BenchError::io("the wire"))
}

struct Wire {
    _steering: Vec<Steering>,
    ports: Vec<XdpPort>,
    pool: FramePool,
}

impl Wire {
    fn pass(mut self) -> io::Result<()> {
        let mut poll = Poll::new()?;
        for descriptor in self.ports.iter().flat_map(Port::descriptors) {
            let mut source = SourceFd(&descriptor);
            poll.registry()
                .register(&mut source, Token(0), Interest::READABLE)?;
        }
        let mut events = Events::with_capacity(4);
        let mut batch = Batch::with_capacity(BATCH);
        let mut empty_rounds = 0;
        loop {
            let moved = self.turn(0, 1, &mut batch)? + self.turn(1, 0, &mut batch)?;
            empty_rounds = if moved == 0 { empty_rounds + 1 } else { 0 };
            if empty_rounds >= SPIN_ROUNDS {
                match poll.poll(&mut events, Some(NAP)) {
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                    _ => empty_rounds = 0,
                }
            }
        }
    }

    fn turn(&mut self, from: usize, to: usize, batch: &mut Batch) -> io::Result<usize> {
        let count = self.ports[from].rx(&mut self.pool, batch)?;
        for _ in 0..=TX_RETRIES {
            if batch.is_empty() {
                return Ok(count);
            }
            self.ports[to].tx(&mut self.pool, batch);
            if !batch.is_empty() {
                self.ports[to].reap(&mut self.pool);
            }
        }
        batch.drain(..).for_each(|frame| self.pool.give(frame));
        Ok(count)
    }
}
