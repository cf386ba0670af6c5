//! The node's threads: made, started, asked and stopped together.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use mio::Poll;

use super::apply::Forwarding;
use super::ports::OpenPorts;
use super::probe::unguessable;
use crate::forward::RouterAddresses;
use crate::packet::Frame;
use crate::port::xdp::fast_path;
use crate::port::{Port, PortId};
use crate::resources::NodeConfig;
use crate::resources::config::FastPathWanted;
use crate::wire::arp::{self, Arp};
use crate::wire::ethernet::{self, EtherType, Ethernet};
use crate::wire::nd::{self, NeighbourMessage};
use crate::wire::{MacAddr, Mtu};
use crate::worker::affinity;
use crate::worker::counters::Counters;
use crate::worker::mailbox::{Inbox, Mailbox, Message, Plug, Unplugged, mailbox};
use crate::worker::run::{Parts, Worker};
use crate::worker::slow_path::{self, Event};

/// Events of the slow path that wait for the control thread.
const EVENTS: usize = 1024;

/// How long a worker may take to give a port back: a round, or a batch of packets.
const PATIENCE: Duration = Duration::from_secs(5);

/// Threads that are ready to start.
pub struct Threads {
    workers: Vec<Worker>,
    slow_path: slow_path::Thread,
    counters: Vec<Arc<Counters>>,
    handles: Handles,
}

/// Running threads.
pub struct Handles {
    workers: Vec<JoinHandle<Vec<Box<dyn Port>>>>,
    slow_path: Option<JoinHandle<()>>,
    mailboxes: Vec<Mailbox>,
    owners: Vec<Option<usize>>,
    events: Receiver<Event>,
    counters: Vec<Arc<Counters>>,
    cpus: Vec<Option<usize>>,
}

impl Threads {
    /// Makes the workers out of the open ports, and the slow path.
    pub fn prepare(
        config: &NodeConfig,
        ports: &mut OpenPorts,
        forwarding: &Forwarding,
    ) -> io::Result<Self> {
        let cpus = cpus(config);
        let (mailboxes, inboxes) = mailboxes(ports)?;
        let (events_sender, events) = bounded(EVENTS);
        let port_count = ports.configs.len();
        let (slow_sender, punted) = slow_path::queue(port_count);
        let mut counters = Vec::new();
        let mut workers = Vec::new();
        let owned = ports.workers.iter_mut().zip(inboxes).enumerate();
        for (number, (own, (poll, inbox))) in owned {
            let counted = Arc::new(Counters::new(port_count));
            counters.push(Arc::clone(&counted));
            workers.push(Worker::new(Parts {
                number,
                cpu: cpus.get(number).copied().flatten(),
                ports: std::mem::take(&mut own.ports),
                owners: ports.owners.clone(),
                pool: std::mem::take(&mut own.pool),
                poll,
                inbox,
                workers: mailboxes.clone(),
                slow_path: slow_sender.clone(),
                snapshot: forwarding.published(),
                quiescence: forwarding.quiescence().register(),
                counters: counted,
                identifications: identifications(config),
                first_identification: first_identification(),
            })?);
        }
        let slow_counters = Arc::new(Counters::new(port_count));
        counters.push(Arc::clone(&slow_counters));
        let slow_path = slow_path::Thread {
            punted,
            workers: mailboxes.clone(),
            owners: ports.owners.clone(),
            events: events_sender,
            snapshot: forwarding.published(),
            quiescence: forwarding.quiescence().register(),
            counters: slow_counters,
            first_identification: unguessable(),
        };
        let handles = Handles {
            workers: Vec::new(),
            slow_path: None,
            mailboxes,
            owners: ports.owners.clone(),
            events,
            counters: counters.clone(),
            cpus,
        };
        Ok(Self {
            workers,
            slow_path,
            counters,
            handles,
        })
    }

    /// Starts all threads; their counters are the workers' in order, then the slow path's.
    pub fn start(self) -> io::Result<(Handles, Vec<Arc<Counters>>)> {
        let mut handles = self.handles;
        for (number, worker) in self.workers.into_iter().enumerate() {
            let name = format!("worker {number}");
            let thread = thread::Builder::new()
                .name(name)
                .spawn(move || worker.run())?;
            handles.workers.push(thread);
        }
        let slow_path = self.slow_path;
        let thread = thread::Builder::new()
            .name("slow path".into())
            .spawn(|| slow_path.run())?;
        handles.slow_path = Some(thread);
        Ok((handles, self.counters))
    }
}

impl Handles {
    /// What the slow path notices.
    pub fn events(&self) -> Receiver<Event> {
        self.events.clone()
    }

    /// The mailbox of a worker that serves the uplink: the first one does.
    pub fn uplink(&self) -> Option<Mailbox> {
        self.mailboxes.first().cloned()
    }

    /// The first thread that has ended though nobody told it to.
    pub fn dead(&self) -> Option<String> {
        let worker = self.workers.iter().position(JoinHandle::is_finished);
        let slow = self.slow_path.as_ref().is_some_and(JoinHandle::is_finished);
        worker
            .map(|number| format!("worker {number} has ended unexpectedly"))
            .or_else(|| slow.then(|| "the slow path has ended unexpectedly".to_owned()))
    }

    /// Each worker's CPU, if pinned, and its counters.
    pub fn workers(&self) -> impl Iterator<Item = (Option<usize>, &Counters, bool)> {
        self.workers
            .iter()
            .zip(&self.cpus)
            .zip(&self.counters)
            .map(|((thread, cpu), counters)| (*cpu, &**counters, !thread.is_finished()))
    }

    /// Asks on a workload's link for the Ethernet address of one of its addresses.
    pub fn ask_workload(&self, port: PortId, address: IpAddr) {
        let owner = self
            .owners
            .get(usize::from(port.0))
            .copied()
            .flatten()
            .unwrap_or(0);
        if let Some(mailbox) = self.mailboxes.get(owner) {
            // A full mailbox: the next packet for the workload asks again.
            let _ = mailbox.post(Message::Transmit(port, question(address)));
        }
    }

    /// Has a worker serve a port from now on.
    pub fn open(&self, worker: usize, port: Box<dyn Port>) {
        if let Some(mailbox) = self.mailboxes.get(worker) {
            insist(mailbox, Message::Open(Plug(port)));
        }
    }

    /// Has a worker give a port back, and with it as many frames as make `frames` with those that the
    /// kernel holds; nothing if it does not answer.
    pub fn close(&self, worker: usize, port: PortId, frames: usize) -> Option<Unplugged> {
        let mailbox = self.mailboxes.get(worker)?;
        let (back, given) = bounded(1);
        insist(mailbox, Message::Close { port, frames, back });
        given.recv_timeout(PATIENCE).ok()
    }

    /// Gives a worker frames of its own.
    pub fn give_back(&self, worker: usize, frames: Vec<Frame>) {
        if let Some(mailbox) = self.mailboxes.get(worker) {
            frames
                .into_iter()
                .for_each(|frame| mailbox.give_back(frame));
        }
    }

    /// Stops the workers, then the slow path, and gives back the ports, still open.
    pub fn stop(self) -> Vec<Box<dyn Port>> {
        let Self {
            workers,
            slow_path,
            mailboxes,
            ..
        } = self;
        for mailbox in &mailboxes {
            insist(mailbox, Message::Stop);
        }
        let ended = workers.into_iter().filter_map(|thread| thread.join().ok());
        let ports = ended.flatten().collect();
        // The workers held the slow path's queue open.
        drop(mailboxes);
        if let Some(thread) = slow_path
            && thread.join().is_err()
        {
            log::error!("the slow path had failed");
        }
        ports
    }
}

/// Tells a worker something, however full its mailbox is.
fn insist(mailbox: &Mailbox, mut message: Message) {
    for _ in 0..1000 {
        match mailbox.post(message) {
            Ok(()) => return,
            Err(back) => message = back,
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// How many give outer identifications: the workers, and the CPUs of the fast path, if there may be
/// one, so that none gives another's.
pub fn identifications(config: &NodeConfig) -> u16 {
    let cpus = match config.fast_path {
        FastPathWanted::Off => 0,
        FastPathWanted::Auto | FastPathWanted::On => fast_path::cpus(),
    };
    (config.worker_count() + cpus) as u16
}

/// Where this process' outer identifications begin: not where those of the process before did, of whose packets
/// fragments may still be waited for (RFC 6864 section 4.1), nor where anybody can guess (RFC 7739).
pub fn first_identification() -> u16 {
    static FIRST: LazyLock<u16> = LazyLock::new(|| unguessable() as u16);
    *FIRST
}

type Inboxes = Vec<(Poll, Inbox)>;

fn mailboxes(ports: &OpenPorts) -> io::Result<(Vec<Mailbox>, Inboxes)> {
    let mut mailboxes = Vec::new();
    let mut inboxes = Vec::new();
    for worker in &ports.workers {
        let poll = Poll::new()?;
        let (mailbox, inbox) = mailbox(&poll, worker.frames())?;
        mailboxes.push(mailbox);
        inboxes.push((poll, inbox));
    }
    Ok((mailboxes, inboxes))
}

/// Each worker's CPU: as configured, else the last ones that the process may use, one a worker.
fn cpus(config: &NodeConfig) -> Vec<Option<usize>> {
    let count = config.worker_count();
    if let Some(cpus) = &config.workers.cpus {
        return cpus.iter().copied().map(Some).collect();
    }
    let available = affinity::available();
    let first = available.len().saturating_sub(count);
    let mut cpus: Vec<_> = available[first..].iter().copied().map(Some).collect();
    // More workers than CPUs: the rest is left to the scheduler.
    cpus.resize(count, None);
    cpus
}

/// Who has this address? As the gateway asks.
fn question(address: IpAddr) -> Vec<u8> {
    let source = MacAddr::WORKLOAD_GATEWAY;
    let mut frame = vec![0; usize::from(Mtu::ETHERNET.0)];
    let (destination, ethertype) = match address {
        IpAddr::V4(_) => (MacAddr::BROADCAST, EtherType::ARP),
        IpAddr::V6(v6) => (
            nd::multicast_mac(nd::solicited_node_multicast(v6)),
            EtherType::IPV6,
        ),
    };
    let header = Ethernet {
        destination,
        source,
        ethertype,
        vlan: None,
    };
    header.write(&mut frame);
    let body = &mut frame[ethernet::HEADER_LEN..];
    let length = match address {
        IpAddr::V4(v4) => {
            Arp::request(source, RouterAddresses::GATEWAY_V4, v4).write(body);
            arp::LEN
        }
        IpAddr::V6(v6) => {
            NeighbourMessage::solicitation(RouterAddresses::GATEWAY_V6, source, v6).write(body)
        }
    };
    frame.truncate(ethernet::HEADER_LEN + length);
    frame
}
