//! Real workers and a real slow path on memory ports.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use mio::Poll;
use underpass::forward::Snapshot;
use underpass::packet::{Batch, DropReason, FramePool, HEADROOM};
use underpass::port::memory::{MemoryPort, MemoryWire};
use underpass::port::{Capabilities, Port, PortId, PortStatistics, TxOutcome};
use underpass::worker::counters::Counters;
use underpass::worker::mailbox::{Inbox, Mailbox, Message, mailbox};
use underpass::worker::publish::{Published, Quiescence};
use underpass::worker::run::{Parts, Worker};
use underpass::worker::slow_path::{self, Event};

/// How long anything may take at most.
pub const AT_MOST: Duration = Duration::from_secs(60);

/// What a worker of a test is made of: the ports that it serves, and how many frames it has.
pub struct Share {
    pub ports: Vec<PortId>,
    pub frames: usize,
}

/// Workers that run, or wait to be started.
pub struct Rig {
    /// The wires, by port number.
    pub wires: Vec<MemoryWire>,
    /// The workers' counters in order, then the slow path's.
    pub counters: Vec<Arc<Counters>>,
    pub mailboxes: Vec<Mailbox>,
    pub events: Receiver<Event>,
    ready: Vec<Option<Worker>>,
    running: Vec<JoinHandle<Vec<Box<dyn Port>>>>,
    slow_path: Option<JoinHandle<()>>,
    pools: Vec<Pool>,
    /// Frames injected that a worker can take in.
    injected: AtomicU64,
}

/// How many frames a worker's pool had at the last look.
#[derive(Clone)]
struct Pool {
    frames: usize,
    free: Arc<AtomicUsize>,
}

/// A worker's mailbox that the test itself reads.
pub struct Puppet {
    pub inbox: Inbox,
    // The mailbox's waker is registered there.
    _poll: Poll,
}

/// Bytes in a frame: headroom, and an Ethernet frame with room to spare.
const CAPACITY: usize = 2048;

impl Rig {
    /// Workers of these shares, all running.
    pub fn start(snapshot: Published<Snapshot>, quiescence: &Quiescence, shares: &[Share]) -> Self {
        let mut rig = Self::prepare(snapshot, quiescence, shares);
        (0..shares.len()).for_each(|number| rig.run(number));
        rig
    }

    /// Workers of these shares, none running but the slow path.
    pub fn prepare(
        snapshot: Published<Snapshot>,
        quiescence: &Quiescence,
        shares: &[Share],
    ) -> Self {
        Self::with_puppet(snapshot, quiescence, shares, &[]).0
    }

    /// As [`Rig::prepare`], and one worker more, which is the test itself and serves `played`.
    pub fn with_puppet(
        snapshot: Published<Snapshot>,
        quiescence: &Quiescence,
        shares: &[Share],
        played: &[PortId],
    ) -> (Self, Puppet) {
        let ports = snapshot.get().ports.clone();
        let owner = |id: PortId| {
            let share = shares.iter().position(|share| share.ports.contains(&id));
            share.or(played.contains(&id).then_some(shares.len()))
        };
        let owners: Vec<_> = ports.iter().map(|port| owner(port.id)).collect();
        let (mut wires, mut devices) = (Vec::new(), Vec::new());
        for port in &ports {
            let (device, wire) = MemoryPort::new(port.id, port.link).unwrap();
            devices.push(Some(device));
            wires.push(wire);
        }
        let (mut mailboxes, mut inboxes) = (Vec::new(), Vec::new());
        for share in shares.iter().map(|share| share.frames).chain([1]) {
            let poll = Poll::new().unwrap();
            let (mailbox, inbox) = mailbox(&poll, share).unwrap();
            mailboxes.push(mailbox);
            inboxes.push((poll, inbox));
        }
        let (poll, inbox) = inboxes.pop().unwrap();
        let puppet = Puppet { inbox, _poll: poll };
        if played.is_empty() {
            mailboxes.pop();
        }
        let (punted_sender, punted) = slow_path::queue(ports.len());
        let (events_sender, events) = bounded(1024);
        let counters: Vec<_> = (0..=shares.len())
            .map(|_| Arc::new(Counters::new(ports.len())))
            .collect();
        let pools: Vec<_> = shares
            .iter()
            .map(|share| Pool {
                frames: share.frames,
                free: Arc::new(AtomicUsize::new(share.frames)),
            })
            .collect();
        let mut ready = Vec::new();
        for (number, (share, (poll, inbox))) in shares.iter().zip(inboxes).enumerate() {
            let own = share.ports.iter().map(|id| {
                let port = devices[usize::from(id.0)].take().expect("one owner a port");
                let free = Arc::clone(&pools[number].free);
                Box::new(Watched { port, free }) as Box<dyn Port>
            });
            let worker = Worker::new(Parts {
                number,
                cpu: None,
                ports: own.collect(),
                owners: owners.clone(),
                pool: FramePool::with_memory(share.frames, CAPACITY, HEADROOM),
                poll,
                inbox,
                workers: mailboxes.clone(),
                slow_path: punted_sender.clone(),
                snapshot: snapshot.clone(),
                quiescence: quiescence.register(),
                counters: Arc::clone(&counters[number]),
                identifications: shares.len() as u16,
                first_identification: 0,
            });
            ready.push(Some(worker.unwrap()));
        }
        let slow_path = slow_path::Thread {
            punted,
            workers: mailboxes.clone(),
            owners,
            events: events_sender,
            snapshot,
            quiescence: quiescence.register(),
            counters: Arc::clone(&counters[shares.len()]),
            first_identification: 0,
        };
        let rig = Self {
            wires,
            counters,
            mailboxes,
            events,
            ready,
            running: Vec::new(),
            slow_path: Some(thread::spawn(|| slow_path.run())),
            pools,
            injected: AtomicU64::new(0),
        };
        (rig, puppet)
    }

    /// Starts a worker.
    pub fn run(&mut self, number: usize) {
        let worker = self.ready[number].take().expect("it was not started yet");
        self.running.push(thread::spawn(|| worker.run()));
    }

    pub fn wire(&self, port: PortId) -> &MemoryWire {
        &self.wires[usize::from(port.0)]
    }

    /// Has a port receive a frame.
    pub fn inject(&self, port: PortId, frame: &[u8]) {
        if frame.len() <= CAPACITY - HEADROOM {
            self.injected.fetch_add(1, Ordering::Relaxed);
        }
        self.wire(port).inject(frame);
    }

    /// Waits until nothing is under way: all that was injected is received, and the balance holds.
    pub fn settle(&self) {
        let injected = self.injected.load(Ordering::Relaxed);
        let mut balance = self.balance();
        let settled = || {
            balance = self.balance();
            balance.received == injected && balance.is_even()
        };
        wait_until("the balance to hold", settled);
        assert_eq!(balance.received, injected);
    }

    /// Waits until all workers have slept after `settle`: all frames are home then.
    pub fn rest(&self) {
        self.settle();
        let before: Vec<u64> = self.sleeps().collect();
        // A worker looks after its ports, and so at its pool, before it sleeps.
        wait_until("the workers to sleep twice", || {
            self.sleeps()
                .zip(&before)
                .all(|(now, then)| now >= then + 2)
        });
    }

    /// Frames that are not in their worker's pool, for each worker.
    pub fn missing_frames(&self) -> Vec<usize> {
        self.pools
            .iter()
            .map(|pool| pool.frames - pool.free.load(Ordering::Acquire))
            .collect()
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.counters.iter().map(|c| c.drops(reason)).sum()
    }

    pub fn sum(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(|counters| of(counters)).sum()
    }

    pub fn balance(&self) -> Balance {
        let ports = |of: &dyn Fn(&underpass::worker::counters::PortCounters) -> u64| {
            self.sum(|counters| counters.ports.iter().map(of).sum())
        };
        Balance {
            // What goes out is read first: a packet that moves meanwhile is seen as under way.
            transmitted: ports(&|port| port.tx_packets.get()),
            dropped: DropReason::ALL.iter().map(|r| self.drops(*r)).sum(),
            absorbed: self.sum(|counters| counters.absorbed.get()),
            originated: self.sum(|counters| counters.originated.get()),
            received: ports(&|port| port.rx_packets.get()),
        }
    }

    /// Stops all workers, as a node does, and then the slow path; the ports that came back.
    pub fn stop(&mut self) -> Vec<Box<dyn Port>> {
        for mailbox in &self.mailboxes {
            wait_until("room to say stop", || {
                mailbox.has_finished() || mailbox.post(Message::Stop).is_ok()
            });
        }
        let ended = self.running.drain(..).flat_map(|t| t.join().unwrap());
        let ports = ended.collect();
        self.mailboxes.clear();
        self.ready.clear();
        self.slow_path.take().unwrap().join().unwrap();
        ports
    }

    fn sleeps(&self) -> impl Iterator<Item = u64> {
        let workers = &self.counters[..self.running.len()];
        workers.iter().map(|counters| counters.sleeps.get())
    }
}

/// Both sides of what must be equal when nothing is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    pub received: u64,
    pub originated: u64,
    pub transmitted: u64,
    pub dropped: u64,
    pub absorbed: u64,
}

impl Balance {
    pub fn is_even(&self) -> bool {
        self.received + self.originated == self.transmitted + self.dropped + self.absorbed
    }
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + AT_MOST;
    while !done() {
        assert!(Instant::now() < deadline, "waited {AT_MOST:?} for {what}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// A memory port that notes how many frames its worker's pool has when it is looked after.
struct Watched {
    port: MemoryPort,
    free: Arc<AtomicUsize>,
}

impl Port for Watched {
    fn id(&self) -> PortId {
        self.port.id()
    }

    fn name(&self) -> &str {
        self.port.name()
    }

    fn capabilities(&self) -> &Capabilities {
        self.port.capabilities()
    }

    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> io::Result<usize> {
        self.port.rx(pool, batch)
    }

    fn tx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome {
        self.port.tx(pool, batch)
    }

    fn reap(&mut self, pool: &mut FramePool) {
        self.port.reap(pool);
        self.free.store(pool.available(), Ordering::Release);
    }

    fn descriptors(&self) -> Vec<RawFd> {
        self.port.descriptors()
    }

    fn statistics(&self) -> PortStatistics {
        self.port.statistics()
    }
}
