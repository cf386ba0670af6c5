//! The hot loop: receive a batch, forward it, send it; sleep when there is nothing to do.

mod pace;
mod plug;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::affinity;
use super::counters::Counters;
use super::mailbox::{Inbox, Mailbox, Message};
use super::publish::{Published, PublishedReader, QuiescentReader};
use super::slow_path::{Punted, QueueSender};
use crate::forward::{self, BridgeId, Flood, Place, Punt, Snapshot, Verdict, WorkerState};
use crate::packet::{BATCH, Batch, DropReason, Frame, FramePool};
use crate::port::{Port, PortId};
use pace::Pace;

/// Empty rounds before a worker goes to sleep. A round over three AF_XDP rings takes well under a
/// microsecond, one with a TUN device about a microsecond (a `read` that finds nothing).
const SPIN_ROUNDS: u32 = 100;

/// Rounds after which a worker that never sleeps looks after its ports all the same.
const LOOK_AFTER_ROUNDS: u64 = 1 << 14;

/// How long a worker sleeps at most: then it looks whether all is well.
const NAP: Duration = Duration::from_millis(500);

/// How long it sleeps at most while it is short of frames: no port tells when those that were sent,
/// or handed to another worker, are free again, and without them nothing is received.
const SHORT_NAP: Duration = Duration::from_millis(1);

/// Free frames below which a worker is short of them; fewer if it has few from the start.
const SHORT_OF_FRAMES: usize = 4 * BATCH;

/// How long a worker that stops waits for the others to hand over what they have for it.
const LINGER: Duration = Duration::from_secs(1);

/// How often a full transmit ring is tried again before its frames are dropped.
const TX_RETRIES: usize = 8;

/// What a worker is made of.
pub struct Parts {
    /// Its number, from 0.
    pub number: usize,
    /// The CPU to pin it to, if any.
    pub cpu: Option<usize>,
    /// The ports that it serves.
    pub ports: Vec<Box<dyn Port>>,
    /// For each port of the node, by number, the worker that serves it, or will when it is opened; none
    /// for one that every worker has a part of.
    pub owners: Vec<Option<usize>>,
    /// Its free frames.
    pub pool: FramePool,
    /// What it sleeps in; its mailbox is registered there.
    pub poll: Poll,
    /// Its mailbox.
    pub inbox: Inbox,
    /// All workers' mailboxes, by number; its own is among them.
    pub workers: Vec<Mailbox>,
    /// Where it hands packets to the slow path.
    pub slow_path: QueueSender,
    /// What it reads.
    pub snapshot: Published<Snapshot>,
    /// How it says that it has let go of what it read.
    pub quiescence: QuiescentReader,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// How many give outer identifications, workers and others: each takes one in so many.
    pub identifications: u16,
    /// Where they begin, all of them together.
    pub first_identification: u16,
}

/// A worker: one thread's ports and all that moves their packets.
pub struct Worker {
    number: usize,
    cpu: Option<usize>,
    ports: Vec<Box<dyn Port>>,
    /// When to look at each of them.
    paces: Vec<Pace>,
    routes: Vec<Way>,
    outgoing: Vec<Batch>,
    incoming: Batch,
    verdicts: Vec<Verdict>,
    pool: FramePool,
    state: WorkerState,
    poll: Poll,
    inbox: Inbox,
    workers: Vec<Mailbox>,
    slow_path: QueueSender,
    snapshot: PublishedReader<Snapshot>,
    quiescence: QuiescentReader,
    counters: Arc<Counters>,
    short_of_frames: usize,
    stopping: bool,
    finished: bool,
}

/// How a worker reaches a port of the node.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// It serves the port itself: the index into its ports.
    Own(usize),
    /// Another worker does.
    Other(usize),
    /// Nobody does.
    None,
}

fn pace_of(port: &dyn Port) -> Pace {
    Pace::new(port.rx_costs_a_call())
}

impl Worker {
    /// Puts a worker together and registers its ports with its poll.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let ports = parts.ports;
        plug::register(&parts.poll, &ports)?;
        let routes = parts
            .owners
            .iter()
            .enumerate()
            .map(
                |(id, owner)| match ports.iter().position(|port| usize::from(port.id().0) == id) {
                    Some(own) => Way::Own(own),
                    None => owner
                        .filter(|owner| *owner != parts.number)
                        .map_or(Way::None, Way::Other),
                },
            )
            .collect();
        Ok(Self {
            number: parts.number,
            cpu: parts.cpu,
            paces: ports.iter().map(|port| pace_of(port.as_ref())).collect(),
            outgoing: ports
                .iter()
                .map(|_| Batch::with_capacity(4 * BATCH))
                .collect(),
            ports,
            routes,
            incoming: Batch::with_capacity(BATCH),
            verdicts: Vec::with_capacity(BATCH),
            short_of_frames: SHORT_OF_FRAMES.min(parts.pool.available() / 2),
            pool: parts.pool,
            state: WorkerState::new(
                parts.first_identification.wrapping_add(parts.number as u16),
                parts.identifications,
            ),
            poll: parts.poll,
            inbox: parts.inbox,
            workers: parts.workers,
            slow_path: parts.slow_path,
            snapshot: parts.snapshot.reader(),
            quiescence: parts.quiescence,
            counters: parts.counters,
            stopping: false,
            finished: false,
        })
    }

    /// Moves packets until told to stop; then sends what is queued and gives the ports back, so that
    /// their sockets are closed only after the kernel was told to steer nothing to them.
    pub fn run(mut self) -> Vec<Box<dyn Port>> {
        if let Some(cpu) = self.cpu
            && !affinity::pin(cpu)
        {
            log::warn!(
                "worker {}: the kernel would not pin it to CPU {cpu}",
                self.number
            );
        }
        let mut empty_rounds = 0;
        while !self.stopping {
            if self.round() {
                empty_rounds = 0;
                continue;
            }
            empty_rounds += 1;
            if empty_rounds >= SPIN_ROUNDS {
                self.sleep();
                empty_rounds = 0;
            }
        }
        self.drain();
        self.ports
    }

    /// One turn over all ports and the mailbox; whether there was anything to do.
    fn round(&mut self) -> bool {
        self.quiescence.quiescent();
        let mut busy = false;
        for index in 0..self.ports.len() {
            if self.paces[index].is_due() {
                let found = self.receive(index);
                self.paces[index].note(found);
                busy |= found;
            }
        }
        busy |= self.read_mail();
        if self.counters.rounds.get().is_multiple_of(LOOK_AFTER_ROUNDS) {
            self.look_after_ports();
        }
        self.counters.rounds.add(1);
        self.counters.busy_rounds.add(u64::from(busy));
        busy
    }

    /// Receives a batch from one port, forwards it, and sends what is to be sent.
    fn receive(&mut self, index: usize) -> bool {
        let port = &mut self.ports[index];
        let id = port.id();
        match port.rx(&mut self.pool, &mut self.incoming) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => {
                log::debug!("{}: receive: {error}", port.name());
                return false;
            }
        }
        if let Some(counters) = self.counters.port(id) {
            counters.rx_packets.add(self.incoming.len() as u64);
            counters
                .rx_bytes
                .add(self.incoming.iter().map(|frame| frame.len() as u64).sum());
        }
        self.forward(id);
        self.flush();
        true
    }

    /// Forwards the incoming batch as one that came in by this port.
    fn forward(&mut self, ingress: PortId) {
        let snapshot = self.snapshot.load();
        self.verdicts.clear();
        forward::forward(
            snapshot,
            &mut self.state,
            ingress,
            &mut self.incoming,
            &mut self.verdicts,
        );
        self.carry_out(ingress);
    }

    /// Carries out the verdicts on the incoming batch.
    fn carry_out(&mut self, ingress: PortId) {
        let mut incoming = std::mem::take(&mut self.incoming);
        let verdicts = std::mem::take(&mut self.verdicts);
        for (frame, verdict) in incoming.drain(..).zip(&verdicts) {
            self.dispose(ingress, frame, *verdict);
        }
        (self.incoming, self.verdicts) = (incoming, verdicts);
    }

    fn dispose(&mut self, ingress: PortId, frame: Frame, verdict: Verdict) {
        match verdict {
            Verdict::Transmit(port) => self.queue(port, frame),
            Verdict::Drop(reason) => self.discard(frame, reason),
            Verdict::Punt(punt) => self.punt(Some(ingress), frame, punt),
            Verdict::Flood(flood) => self.flood(flood, frame),
        }
    }

    /// Sends a frame to everybody in a bridge but its sender. The copies after the first are packets of
    /// our own making, and counted so.
    fn flood(&mut self, flood: Flood, frame: Frame) {
        let snapshot = Arc::clone(self.snapshot.load());
        let mut targets = snapshot.bridges.targets(flood);
        let mut told = false;
        let Some(first) = targets.next() else {
            return self.discard(frame, DropReason::BridgeNobody);
        };
        for target in targets {
            self.counters.originated.add(1);
            match self.copy(frame.bytes()) {
                Ok(copy) => self.deliver(&snapshot, flood, target, copy, &mut told),
                Err(reason) => self.counters.dropped(reason, 1),
            }
        }
        self.deliver(&snapshot, flood, first, frame, &mut told);
    }

    /// Sends one copy of a flooded frame. Of those that are too large the first one has the sender told,
    /// which is once for all.
    fn deliver(
        &mut self,
        snapshot: &Snapshot,
        flood: Flood,
        target: Place,
        mut frame: Frame,
        told: &mut bool,
    ) {
        let verdict = forward::deliver(snapshot, &mut self.state, flood.bridge, target, &mut frame);
        match (verdict, flood.from) {
            (Verdict::Punt(punt @ Punt::BridgedTooBig(_)), Place::Port(port)) if !*told => {
                *told = true;
                self.punt(Some(port), frame, punt);
            }
            (Verdict::Punt(punt @ Punt::CutOutside(..)), Place::Port(port)) => {
                self.punt(Some(port), frame, punt);
            }
            _ => self.dispose_of_own(frame, verdict),
        }
    }

    /// Queues a frame for a port, here or with the worker that serves it.
    fn queue(&mut self, port: PortId, frame: Frame) {
        match self
            .routes
            .get(usize::from(port.0))
            .copied()
            .unwrap_or(Way::None)
        {
            Way::Own(index) => self.outgoing[index].push(frame),
            Way::Other(_) if self.finished => self.discard(frame, DropReason::Shutdown),
            Way::Other(worker) => {
                let owner = self.number;
                let handoff = Message::Handoff { port, frame, owner };
                if let Err(Message::Handoff { frame, .. }) = self.workers[worker].post(handoff) {
                    self.discard(frame, DropReason::HandoffFull);
                }
            }
            Way::None => self.discard(frame, DropReason::NoPort),
        }
    }

    fn discard(&mut self, frame: Frame, reason: DropReason) {
        self.counters.dropped(reason, 1);
        self.pool.give(frame);
    }

    /// Hands a copy of the packet to the slow path. The copy allocates: that is what makes this way
    /// slow, and the queue's bound is what keeps a flood of it harmless.
    fn punt(&mut self, ingress: Option<PortId>, frame: Frame, punt: Punt) {
        if self.slow_path.is_full(ingress, punt) {
            return self.go_without(frame, punt);
        }
        let punted = Punted {
            ingress,
            punt,
            packet: frame.bytes().to_vec(),
        };
        if self.slow_path.send(punted) {
            self.counters.punted.add(1);
            self.pool.give(frame);
        } else {
            self.go_without(frame, punt);
        }
    }

    /// What becomes of a packet that the slow path has no room for. A bridge's question goes to those whom
    /// it asks, as if nothing were known here.
    fn go_without(&mut self, frame: Frame, punt: Punt) {
        match punt {
            Punt::Bridged(bridge, from) => self.resume(bridge, from, frame),
            _ => self.discard(frame, DropReason::SlowPathFull),
        }
    }

    /// Sends all that is queued.
    fn flush(&mut self) {
        for index in 0..self.ports.len() {
            if !self.outgoing[index].is_empty() {
                self.transmit(index);
            }
        }
    }

    fn transmit(&mut self, index: usize) {
        let (port, batch) = (&mut self.ports[index], &mut self.outgoing[index]);
        let counters = &self.counters;
        for _ in 0..=TX_RETRIES {
            let outcome = port.tx(&mut self.pool, batch);
            if let Some(counters) = counters.port(port.id()) {
                counters.tx_packets.add(outcome.sent as u64);
                counters.tx_bytes.add(outcome.sent_bytes as u64);
            }
            counters.dropped(DropReason::Oversized, outcome.oversized as u64);
            counters.dropped(DropReason::TxError, outcome.failed as u64);
            if batch.is_empty() {
                return;
            }
            port.reap(&mut self.pool);
        }
        counters.dropped(DropReason::TxRingFull, batch.len() as u64);
        batch.drain(..).for_each(|frame| self.pool.give(frame));
    }

    /// Does what other threads ask for; a batch of requests at a time.
    fn read_mail(&mut self) -> bool {
        while let Ok(frame) = self.inbox.returns.try_recv() {
            self.pool.give(frame);
        }
        let mut read = 0;
        while read < BATCH
            && let Ok(message) = self.inbox.messages.try_recv()
        {
            read += 1;
            match message {
                Message::Handoff { port, frame, owner } => self.take_over(port, frame, owner),
                Message::Originate(packet) => self.originate(&packet),
                Message::Transmit(port, bytes) => self.send_as_is(port, &bytes),
                Message::Receive(port, bytes) => self.receive_again(port, &bytes),
                Message::Bridge(bridge, from, bytes) => self.bridge(bridge, from, &bytes),
                Message::Open(port) => self.plug_in(port.0),
                Message::Close { port, frames, back } => self.unplug(port, frames, &back),
                Message::Stop => self.stopping = true,
            }
        }
        if read > 0 {
            self.flush();
        }
        read > 0
    }

    /// Copies a handed-over packet into a frame of our own: pools differ, and so may UMEMs.
    fn take_over(&mut self, port: PortId, foreign: Frame, owner: usize) {
        match self.copy(foreign.bytes()) {
            Ok(frame) => self.queue(port, frame),
            Err(reason) => self.counters.dropped(reason, 1),
        }
        self.workers[owner].give_back(foreign);
    }

    fn originate(&mut self, packet: &[u8]) {
        self.counters.originated.add(1);
        let mut frame = match self.copy(packet) {
            Ok(frame) => frame,
            Err(reason) => return self.counters.dropped(reason, 1),
        };
        match forward::originate(self.snapshot.load(), &mut self.state, &mut frame) {
            // That is known only now of what has waited, or was made here. What the slow path makes of it
            // is smaller, and no error is sent about an error: it does not come again and again. Who asked
            // before its Ethernet address was known gets its answer as soon as it is.
            Verdict::Punt(punt @ (Punt::TooBig(_) | Punt::Unresolved(_))) => {
                self.punt(None, frame, punt)
            }
            verdict => self.dispose_of_own(frame, verdict),
        }
    }

    /// Sends on a frame of a bridge that the slow path has looked at.
    fn bridge(&mut self, bridge: BridgeId, from: Place, bytes: &[u8]) {
        self.counters.originated.add(1);
        match self.copy(bytes) {
            Ok(frame) => self.resume(bridge, from, frame),
            Err(reason) => self.counters.dropped(reason, 1),
        }
    }

    /// Sends a bridge's frame on from where the slow path has its place.
    fn resume(&mut self, bridge: BridgeId, from: Place, mut frame: Frame) {
        let snapshot = self.snapshot.load();
        let verdict = forward::resume(snapshot, &mut self.state, bridge, from, &mut frame);
        self.dispose_of_own(frame, verdict);
    }

    /// Carries out the verdict on a packet that comes from the slow path, or is a copy. The slow path
    /// has had its turn: it must not be given its own packets again and again. What it cuts up outside goes
    /// out as it is.
    fn dispose_of_own(&mut self, frame: Frame, verdict: Verdict) {
        match verdict {
            Verdict::Transmit(port) => self.queue(port, frame),
            Verdict::Drop(reason) => self.discard(frame, reason),
            Verdict::Punt(punt @ Punt::CutOutside(..)) => self.punt(None, frame, punt),
            Verdict::Punt(punt) => self.discard(frame, punt.drop_reason()),
            Verdict::Flood(flood) => self.flood(flood, frame),
        }
    }

    fn send_as_is(&mut self, port: PortId, bytes: &[u8]) {
        self.counters.originated.add(1);
        match self.copy(bytes) {
            Ok(frame) => self.queue(port, frame),
            Err(reason) => self.counters.dropped(reason, 1),
        }
    }

    /// Forwards a frame that was put together out of received ones, as if it had come in so.
    fn receive_again(&mut self, port: PortId, bytes: &[u8]) {
        self.counters.originated.add(1);
        match self.copy(bytes) {
            Ok(frame) => {
                self.incoming.push(frame);
                self.forward(port);
            }
            Err(reason) => self.counters.dropped(reason, 1),
        }
    }

    fn copy(&mut self, packet: &[u8]) -> Result<Frame, DropReason> {
        let headroom = self.pool.headroom();
        let mut frame = self.pool.take().ok_or(DropReason::NoFrame)?;
        if frame.fill(packet, headroom) {
            return Ok(frame);
        }
        self.pool.give(frame);
        Err(DropReason::Oversized)
    }

    /// Sleeps until a port has something to receive or somebody left a message.
    fn sleep(&mut self) {
        self.look_after_ports();
        self.inbox.about_to_sleep();
        if self.inbox.is_empty() {
            self.quiescence.offline();
            let mut events = Events::with_capacity(16);
            let short = self.pool.available() < self.short_of_frames;
            let nap = if short { SHORT_NAP } else { NAP };
            if let Err(error) = self.poll.poll(&mut events, Some(nap))
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("worker {}: poll: {error}", self.number);
            }
            self.quiescence.online();
            self.counters.sleeps.add(1);
            self.paces.iter_mut().for_each(Pace::reset);
        }
        self.inbox.awake();
    }

    /// What is done while nothing is urgent: frames come home, device counters are read.
    fn look_after_ports(&mut self) {
        for port in &mut self.ports {
            port.reap(&mut self.pool);
            self.counters.look_at(port.id(), &port.statistics());
        }
    }

    /// The end: nothing more is received, and what is queued, here or with the other workers, is
    /// sent. Each says when it hands nothing over any more, so that none leaves too early.
    fn drain(&mut self) {
        while self.read_mail() {}
        self.flush();
        self.finished = true;
        self.inbox.finish();
        let deadline = Instant::now() + LINGER;
        loop {
            let last = self.workers.iter().all(Mailbox::has_finished);
            if self.read_mail() {
                continue;
            }
            if last || Instant::now() >= deadline {
                break;
            }
            thread::sleep(SHORT_NAP / 10);
        }
        self.look_after_ports();
        self.quiescence.offline();
    }
}
