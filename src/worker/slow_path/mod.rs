//! The slow path: what a packet needs that the hot loop must not spend time on.
//!
//! One thread takes punted packets, answers ARP, neighbour discovery and echo requests, makes ICMP
//! errors, fragments, puts outer fragments together, heeds errors about our tunnel packets, and lets
//! packets wait for a neighbour. The core ([`SlowPath`]) is pure: time
//! comes in, actions go out. Every punted packet ends under exactly one count: absorbed or dropped.

mod answer;
mod bridged;
mod error;
mod fragment;
mod lease;
mod limiter;
mod link_local;
mod piece;
mod queue;
mod quote;
mod reassembly;
mod seen;
mod waiting;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender};

use super::counters::Counters;
use super::mailbox::{Mailbox, Message};
use super::publish::{Published, QuiescentReader};
use crate::fib::NextHop;
use crate::forward::{Adjacency, BridgeId, Place, Punt, RouterAddresses, Snapshot};
use crate::packet::DropReason;
use crate::port::{Link, PortId};
use crate::wire::dhcp::Request;
use crate::wire::ethernet::{self, EtherType, Ethernet};
use crate::wire::{MacAddr, Mtu, ipv6, router};

use bridged::Neighbours;
use limiter::Limiter;
pub use queue::{QueueReceiver, QueueSender, queue};
use quote::Trouble;
use reassembly::Reassembly;
use seen::Seen;
use waiting::{GivenUp, Waiting};

/// A packet handed to the slow path.
#[derive(Debug)]
pub struct Punted {
    /// The port that it came in by; none for what the router itself sends, and for what has waited: it
    /// is charged no hop here.
    pub ingress: Option<PortId>,
    /// Why it was punted; says what `packet` begins with.
    pub punt: Punt,
    /// The packet.
    pub packet: Vec<u8>,
}

/// What the slow path has noticed, for the control side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A workload's own message gave this Ethernet address for this IP address.
    WorkloadSeen(PortId, IpAddr, MacAddr),
    /// Packets wait for this next hop's Ethernet address.
    Unresolved(NextHop),
    /// The underlay says that packets to this node, outer header included, fit up to this size.
    PathMtu(IpAddr, Mtu),
}

/// What is to be done for a punted packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Route this IP packet and send it.
    Originate(Vec<u8>),
    /// Send this frame by this port.
    Transmit(PortId, Vec<u8>),
    /// Treat this frame as if this port had received it.
    Receive(PortId, Vec<u8>),
    /// Send this frame on in a bridge, as one that came from there.
    Bridge(BridgeId, Place, Vec<u8>),
    /// Tell the control side.
    Tell(Event),
}

/// How a punted packet ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was for the router, or went on as other packets.
    Absorbed,
    /// It was dropped.
    Dropped(DropReason),
    /// It waits, and will be counted when that is over.
    Waits,
}

/// The slow path's state, without its thread.
#[derive(Debug, Default)]
pub struct SlowPath {
    limiter: Limiter,
    waiting: Waiting,
    reassembly: Reassembly,
    /// What is for the router itself, apart, so that nobody takes room from the tunnels.
    own_reassembly: Reassembly,
    /// The identification of the last IPv6 packet that was fragmented outside.
    identification: u32,
    neighbours: Neighbours,
    advertised: lease::Advertised,
    seen: Seen,
}

impl SlowPath {
    /// Treats one punted packet.
    pub fn handle(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        punted: Punted,
        actions: &mut Vec<Action>,
    ) -> Fate {
        let Punted {
            ingress,
            punt,
            packet,
        } = punted;
        let hop = ingress.is_some_and(|id| !is_host(snapshot, id));
        match punt {
            Punt::Arp => answer::arp((now, &mut self.seen), snapshot, ingress, &packet, actions),
            Punt::NeighbourDiscovery if router::solicitation(&packet).is_some() => {
                let (advertised, limiter) = (&mut self.advertised, &mut self.limiter);
                lease::advertise(now, advertised, limiter, snapshot, ingress, actions)
            }
            Punt::NeighbourDiscovery => {
                let seen = (now, &mut self.seen);
                answer::neighbour(seen, snapshot, ingress, &packet, actions)
            }
            Punt::Dhcp => {
                let own = (&mut self.limiter, &mut self.seen);
                lease::dhcp(now, own, snapshot, ingress, &packet, actions)
            }
            Punt::ToRouter => self.for_router(now, snapshot, ingress, (packet, false), actions),
            Punt::Unresolved(next_hop) => {
                let from = (ingress, hop);
                self.waiting.add(now, next_hop, packet, from, actions)
            }
            Punt::TooBig(mtu) if fragment::allowed(&packet) => {
                // The host counts its hop itself.
                let hop = hop && !is_for_host(snapshot, &packet);
                let fragments = fragment::fragment(packet, mtu, hop);
                originate(fragments, actions)
            }
            Punt::TooBig(mtu) if ingress.is_none() && error::is_of(snapshot, &packet) => originate(
                error::shortened(packet, mtu).map(|error| vec![error]),
                actions,
            ),
            Punt::NoRoute | Punt::Blackhole | Punt::TtlExpired | Punt::TooBig(_) => {
                self.report(now, snapshot, punt, ingress, &packet, actions);
                Fate::Dropped(punt.drop_reason())
            }
            Punt::CutOutside(port, path) => self.cut_outside(port, path, &packet, actions),
            Punt::OuterFragment => self.reassemble(now, snapshot, ingress, &packet, actions),
            Punt::TunnelError => self.heed(now, snapshot, &packet, actions),
            Punt::Bridged(bridge, from) => {
                let bridged = (bridge, from);
                self.neighbours
                    .handle(now, snapshot, bridged, packet, actions)
            }
            Punt::BridgedTooBig(mtu) => {
                let limiter = &mut self.limiter;
                bridged::too_big(now, limiter, mtu, ingress, &packet, actions)
            }
        }
    }

    /// Lets go of packets that need not wait any more, and says how each ended.
    pub fn tick(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        actions: &mut Vec<Action>,
    ) -> Vec<Fate> {
        self.advertised.tick(now, snapshot, actions);
        let (mut fates, given_up) = self.waiting.release(now, snapshot, actions);
        // A next hop did not say its Ethernet address (RFC 1812 section 5.2.7.1, RFC 4861 section 7.2.2).
        // Nobody sent what the router made itself.
        let sent = |given_up: &GivenUp| given_up.ingress.is_some();
        for GivenUp { ingress, packet } in given_up.into_iter().filter(sent) {
            let about = (ingress, &packet[..]);
            self.explain(now, snapshot, error::Kind::HostUnreachable, about, actions);
        }
        fates.extend(self.reassembly.ended(now));
        fates.extend(self.own_reassembly.ended(now));
        fates
    }

    /// Gives up every packet that still waits.
    pub fn stop(&mut self) -> Vec<Fate> {
        let mut fates = self.waiting.give_up();
        fates.extend(self.reassembly.stop());
        fates.extend(self.own_reassembly.stop());
        fates
    }

    /// How many punted packets wait now: each was handled with [`Fate::Waits`] and has not ended.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.reassembly.len() + self.own_reassembly.len()
    }

    /// When [`SlowPath::tick`] is due, if anything waits.
    fn deadline(&self) -> Duration {
        if self.waiting.is_empty() {
            Duration::from_millis(500)
        } else {
            waiting::RETRY
        }
    }

    fn for_router(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        ingress: Option<PortId>,
        (packet, came_in_pieces): (Vec<u8>, bool),
        actions: &mut Vec<Action>,
    ) -> Fate {
        // What is for the router is put together (RFC 1812 section 4.2.2.8).
        if fragment::is_one(&packet) {
            let link = answer::workload(snapshot, ingress).map(|port| port.id);
            return match self.own_reassembly.add_of(now, link, &packet) {
                (_, Some(whole)) => self.for_router(now, snapshot, ingress, (whole, true), actions),
                (fate, None) => fate,
            };
        }
        if Request::parse(&packet).is_ok() {
            // A client that renews its lease with the server alone.
            let own = (&mut self.limiter, &mut self.seen);
            return lease::dhcp(now, own, snapshot, ingress, &packet, actions);
        }
        if answer::expects_port_unreachable(&packet) {
            let about = (ingress, &packet[..]);
            let kind = error::Kind::PortUnreachable;
            return if self.explain(now, snapshot, kind, about, actions) {
                Fate::Absorbed
            } else {
                Fate::Dropped(DropReason::RateLimited)
            };
        }
        match answer::echo(packet) {
            Some(reply) => {
                self.identification = self.identification.wrapping_add(1);
                let pieces = match came_in_pieces {
                    true => fragment::for_any_link(reply, self.identification),
                    false => vec![reply],
                };
                actions.extend(
                    pieces
                        .into_iter()
                        .map(link_local::answer(snapshot, ingress)),
                );
                Fate::Absorbed
            }
            None => Fate::Dropped(DropReason::NotAnswered),
        }
    }

    /// Tells the sender by ICMP why its packet did not get through, where that is allowed.
    fn report(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        punt: Punt,
        ingress: Option<PortId>,
        packet: &[u8],
        actions: &mut Vec<Action>,
    ) {
        let kind = match punt {
            Punt::NoRoute => error::Kind::NetworkUnreachable,
            Punt::Blackhole => error::Kind::HostUnreachable,
            Punt::TtlExpired => error::Kind::TimeExceeded,
            Punt::TooBig(mtu) => error::Kind::TooBig(mtu),
            Punt::Arp
            | Punt::NeighbourDiscovery
            | Punt::Dhcp
            | Punt::ToRouter
            | Punt::Unresolved(_)
            | Punt::CutOutside(..)
            | Punt::OuterFragment
            | Punt::TunnelError
            | Punt::Bridged(..)
            | Punt::BridgedTooBig(_) => return,
        };
        self.explain(now, snapshot, kind, (ingress, packet), actions);
    }

    /// Tells the sender of a packet that came in by a port what went wrong with it; whether that may be told.
    fn explain(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        kind: error::Kind,
        (ingress, packet): (Option<PortId>, &[u8]),
        actions: &mut Vec<Action>,
    ) -> bool {
        let error = error::message(&voice(snapshot, packet), kind, packet);
        let answer = link_local::answer(snapshot, ingress);
        self.tell((now, ingress), error, answer, actions)
    }

    /// Sends an ICMP error, if there is one and its receiver may be told one thing more about what came in
    /// by that port.
    fn tell(
        &mut self,
        (now, ingress): (Instant, Option<PortId>),
        error: Option<(IpAddr, Vec<u8>)>,
        answer: impl Fn(Vec<u8>) -> Action,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some((source, message)) = error else {
            return false;
        };
        let allowed = self.limiter.allow(now, ingress, source);
        if allowed {
            actions.push(answer(message));
        }
        allowed
    }

    /// Puts fragments of a tunnel packet together; the whole one goes in again where they came in.
    fn reassemble(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        ingress: Option<PortId>,
        fragment: &[u8],
        actions: &mut Vec<Action>,
    ) -> Fate {
        let Some(port) = ingress.and_then(|id| snapshot.ports.get(usize::from(id.0))) else {
            return Fate::Dropped(DropReason::NoPort);
        };
        let (fate, whole) = self.reassembly.add(now, fragment);
        if let Some(packet) = whole {
            actions.push(Action::Receive(port.id, framed(port.link, &packet)));
        }
        fate
    }

    /// Fragments a tunnel packet outside, as the node that made it may (RFC 2473 section 7.1).
    fn cut_outside(
        &mut self,
        port: PortId,
        path: Mtu,
        frame: &[u8],
        actions: &mut Vec<Action>,
    ) -> Fate {
        self.identification = self.identification.wrapping_add(1);
        match fragment::outside(frame, path, self.identification) {
            Some(frames) => {
                let sent = frames
                    .into_iter()
                    .map(|frame| Action::Transmit(port, frame));
                actions.extend(sent);
                Fate::Absorbed
            }
            None => Fate::Dropped(DropReason::TooBig),
        }
    }

    /// Heeds an ICMP error about one of our own tunnel packets: what it says of the path is told to
    /// the control side, and its like goes to the inner packet's sender (RFC 2003 section 4).
    fn heed(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        packet: &[u8],
        actions: &mut Vec<Action>,
    ) -> Fate {
        let Some(found) = quote::read(snapshot, packet) else {
            return Fate::Dropped(DropReason::InvalidQuote);
        };
        let kind = match found.trouble {
            Trouble::TooBig(path) => {
                let event = Event::PathMtu(found.far_end, path);
                actions.push(Action::Tell(event));
                // What hardly any link has, and what is said where lies were told, is believed only when
                // the control side says so; the inner sender then hears of it by its next packet, as the
                // sender of a bridged frame always does.
                let doubted = snapshot.tunnels.peers.is_doubted(found.far_end);
                if found.bridged || doubted || usize::from(path.0) < ipv6::MIN_MTU {
                    return Fate::Absorbed;
                }
                // It will be cut up before the tunnel from now on.
                if fragment::allowed(found.inner) {
                    return Fate::Absorbed;
                }
                error::Kind::TooBig(path.less(found.overhead))
            }
            // A bridge is no router: what does not arrive is its stations' business.
            Trouble::Unreachable | Trouble::TimeExceeded if found.bridged => {
                return Fate::Absorbed;
            }
            Trouble::Unreachable => error::Kind::HostUnreachable,
            // Who gave the outer header its TTL asked for no more hops than it had, as Linux sees it.
            Trouble::TimeExceeded if quote::inherits_ttl(snapshot, found.inner) => {
                return Fate::Absorbed;
            }
            Trouble::TimeExceeded => error::Kind::HostUnreachable,
        };
        if quote::inner_is_ours(snapshot, found.inner) {
            let router = voice(snapshot, found.inner);
            let error = error::about_quote(&router, kind, found.inner);
            self.tell((now, None), error, Action::Originate, actions);
        }
        Fate::Absorbed
    }
}

/// The slow path's thread: what it listens to and whom it tells.
pub struct Thread {
    /// Packets from the workers.
    pub punted: QueueReceiver,
    /// The workers; the one that serves a port sends by it.
    pub workers: Vec<Mailbox>,
    /// For each port, the worker that serves it.
    pub owners: Vec<Option<usize>>,
    /// Where events go.
    pub events: Sender<Event>,
    /// What it reads.
    pub snapshot: Published<Snapshot>,
    /// How it says that it has let go of what it read.
    pub quiescence: QuiescentReader,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Where the identifications of the IPv6 packets that it fragments begin; nobody can guess it (RFC 7739).
    pub first_identification: u32,
}

impl Thread {
    /// Works until every worker has let go of its end of the queue.
    pub fn run(mut self) {
        let mut core = SlowPath {
            identification: self.first_identification,
            ..SlowPath::default()
        };
        let mut actions = Vec::new();
        let mut looked = Instant::now();
        let mut patience = Duration::ZERO;
        loop {
            self.quiescence.offline();
            let received = self.punted.receive(patience);
            self.quiescence.online();
            let now = Instant::now();
            let snapshot = self.snapshot.get();
            match received {
                Ok(punted) => {
                    let fate = core.handle(now, &snapshot, punted, &mut actions);
                    self.count(fate);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // Not after each packet of a flood.
            patience = waiting::RETRY;
            if now.saturating_duration_since(looked) >= waiting::RETRY {
                let ended = core.tick(now, &snapshot, &mut actions);
                ended.into_iter().for_each(|fate| self.count(fate));
                (looked, patience) = (now, core.deadline());
            }
            self.counters.waiting.set(core.waiting() as u64);
            actions.drain(..).for_each(|action| self.carry_out(action));
        }
        core.stop().into_iter().for_each(|fate| self.count(fate));
        self.counters.waiting.set(0);
    }

    fn count(&self, fate: Fate) {
        match fate {
            Fate::Absorbed => self.counters.absorbed.add(1),
            Fate::Dropped(reason) => self.counters.dropped(reason, 1),
            Fate::Waits => {}
        }
    }

    fn carry_out(&self, action: Action) {
        let (worker, message) = match action {
            Action::Originate(packet) => (0, Message::Originate(packet)),
            Action::Transmit(port, frame) => (self.owner(port), Message::Transmit(port, frame)),
            Action::Receive(port, frame) => (self.owner(port), Message::Receive(port, frame)),
            Action::Bridge(bridge, from, frame) => {
                let owner = match from {
                    Place::Port(port) => self.owner(port),
                    Place::Remote(_) => 0,
                };
                (owner, Message::Bridge(bridge, from, frame))
            }
            Action::Tell(event) => {
                // A control side that is behind will hear of it again from the next packet.
                let _ = self.events.try_send(event);
                return;
            }
        };
        // A worker counts a message as originated when it reads it; one that it never reads is
        // counted here.
        let Some(mailbox) = self.workers.get(worker) else {
            return self.lost(DropReason::NoPort);
        };
        if mailbox.post(message).is_err() {
            self.lost(if mailbox.has_finished() {
                DropReason::Shutdown
            } else {
                DropReason::HandoffFull
            });
        }
    }

    /// The worker that serves a port; the first one serves the uplink, among others.
    fn owner(&self, port: PortId) -> usize {
        let owner = self.owners.get(usize::from(port.0)).copied().flatten();
        owner.unwrap_or(0)
    }

    fn lost(&self, reason: DropReason) {
        self.counters.originated.add(1);
        self.counters.dropped(reason, 1);
    }
}

/// Sends packets that the router made, if it could.
fn originate(packets: Option<Vec<Vec<u8>>>, actions: &mut Vec<Action>) -> Fate {
    let Some(packets) = packets else {
        return Fate::Dropped(DropReason::TooBig);
    };
    actions.extend(packets.into_iter().map(Action::Originate));
    Fate::Absorbed
}

/// The addresses that an error about this packet comes from. The host's kernel takes nothing that
/// claims to come from an address of its own, so it is told by the gateway's.
fn voice(snapshot: &Snapshot, about: &[u8]) -> RouterAddresses {
    match addresses(about) {
        Some((source, _)) if leads_to_host(snapshot, source) => RouterAddresses {
            v4: RouterAddresses::GATEWAY_V4,
            v6: RouterAddresses::GATEWAY_V6,
        },
        _ => snapshot.router,
    }
}

fn is_for_host(snapshot: &Snapshot, packet: &[u8]) -> bool {
    addresses(packet).is_some_and(|(_, destination)| leads_to_host(snapshot, destination))
}

/// Whether packets to this address go to the node's own kernel.
fn leads_to_host(snapshot: &Snapshot, address: IpAddr) -> bool {
    let next_hop = match address {
        IpAddr::V4(address) => snapshot.fib.lookup_v4(address),
        IpAddr::V6(address) => snapshot.fib.lookup_v6(address),
    };
    let adjacency = next_hop.and_then(|hop| snapshot.adjacencies.get(hop.0 as usize));
    matches!(adjacency, Some(Adjacency::Forward(egress)) if egress.to_host)
}

/// Source and destination of an IP packet, which may be cut short.
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    use crate::wire::{ipv4::Ipv4, ipv6::Ipv6};
    match packet.first()? >> 4 {
        4 => {
            let ip = Ipv4::parse_quoted(packet).ok()?;
            Some((ip.source.into(), ip.destination.into()))
        }
        6 => {
            let ip = Ipv6::parse_quoted(packet).ok()?;
            Some((ip.source.into(), ip.destination.into()))
        }
        _ => None,
    }
}

/// An IP packet as a port receives it, addressed to the port.
fn framed(link: Link, packet: &[u8]) -> Vec<u8> {
    let Link::Ethernet(own) = link else {
        return packet.to_vec();
    };
    let mut frame = vec![0; ethernet::HEADER_LEN];
    let header = Ethernet {
        destination: own,
        source: MacAddr::default(),
        ethertype: if packet.first().is_some_and(|byte| byte >> 4 == 6) {
            EtherType::IPV6
        } else {
            EtherType::IPV4
        },
        vlan: None,
    };
    header.write(&mut frame);
    frame.extend_from_slice(packet);
    frame
}

fn is_host(snapshot: &Snapshot, id: PortId) -> bool {
    snapshot
        .ports
        .get(usize::from(id.0))
        .is_some_and(|port| port.role == crate::forward::PortRole::Host)
}
