//! What a bridge leaves to the slow path: ARP and neighbour discovery, and frames too large for a tunnel.
//!
//! Suppression: who has learnt where an address is answers for it, so that the question need not go
//! to every node (RFC 9161 describes it for EVPN). What is not known is sent on as it came, and so is what
//! two stations say that they have: anybody can say so, and who asks hears both, as without suppression.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::limiter::Limiter;
use super::{Action, Fate, error, fragment};
use crate::forward::{Bridge, BridgeId, Place, RouterAddresses, Snapshot};
use crate::packet::DropReason;
use crate::port::PortId;
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::ethernet::{self, EtherType, Ethernet};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::Ipv6;
use crate::wire::nd::{self, NeighbourKind, NeighbourMessage};
use crate::wire::{MacAddr, Mtu};

/// Addresses that are remembered, of all bridges together; each has an equal share, so that no station of
/// one fills that of another.
const CAPACITY: usize = 16384;

/// The least share, however many bridges there are.
const LEAST: usize = 256;

/// How often room is made for others at most, while there is none.
const SWEEP: Duration = Duration::from_secs(1);

/// Which station has which address, by bridge, as its own messages said.
#[derive(Debug, Default)]
pub(super) struct Neighbours(HashMap<BridgeId, Addresses>);

/// The addresses of one bridge.
#[derive(Debug, Default)]
struct Addresses {
    known: HashMap<IpAddr, Known>,
    /// When there was no room, and the old ones were looked for.
    swept: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    mac: MacAddr,
    /// What an IPv6 station has said of that; it must not be told otherwise in its name, or hosts give
    /// up their default route (RFC 4861 section 7.2.5).
    router: Option<bool>,
    heard: Instant,
    /// When another station than the one before was heard to have the address, while that was there.
    contested: Option<Instant>,
}

/// What a message says of its sender, and what it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message {
    sender: Option<(IpAddr, MacAddr, Option<bool>)>,
    question: Option<IpAddr>,
}

impl Neighbours {
    /// Answers a frame with ARP or neighbour discovery if a port's station asks for what is known to be
    /// elsewhere; else sends it on.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        (id, from): (BridgeId, Place),
        frame: Vec<u8>,
        actions: &mut Vec<Action>,
    ) -> Fate {
        let Some(bridge) = snapshot.bridges.get(id) else {
            return Fate::Dropped(DropReason::NoPort);
        };
        let Ok(header) = Ethernet::parse(&frame) else {
            return Fate::Dropped(DropReason::EthernetTruncated);
        };
        let share = (CAPACITY / snapshot.bridges.len().max(1)).max(LEAST);
        let addresses = self.0.entry(id).or_default();
        let body = &frame[header.header_len()..];
        let message = read(&header, body);
        if let Some(sender) = message.and_then(|message| message.sender) {
            addresses.learn(now, bridge, share, sender);
        }
        let answer = match (from, message.and_then(|message| message.question)) {
            (Place::Port(port), Some(target)) => addresses
                .find(now, bridge, target)
                // The asker's own address, and what is on the asker's own link, are not ours to tell.
                .filter(|(mac, _)| *mac != header.source && is_elsewhere(bridge, *mac, from))
                .and_then(|known| answer(&header, body, known))
                .map(|answer| Action::Transmit(port, answer)),
            _ => None,
        };
        actions.push(answer.unwrap_or(Action::Bridge(id, from, frame)));
        Fate::Absorbed
    }
}

impl Addresses {
    /// Takes note that a station has an address, if there is room for one more.
    fn learn(
        &mut self,
        now: Instant,
        bridge: &Bridge,
        share: usize,
        (address, mac, router): (IpAddr, MacAddr, Option<bool>),
    ) {
        if mac.is_multicast() || mac == MacAddr::default() {
            return;
        }
        if !self.known.contains_key(&address) && !self.has_room(now, bridge, share) {
            bridge.neighbours_refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let new = Known {
            mac,
            router,
            heard: now,
            contested: None,
        };
        let known = self.known.entry(address).or_insert(new);
        *known = known.followed_by(new, bridge);
    }

    /// Whether there is room for one more, once those that are too old are forgotten.
    fn has_room(&mut self, now: Instant, bridge: &Bridge, share: usize) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.known.len() >= share && self.swept.is_none_or(|at| since(at) >= SWEEP) {
            let ageing = u64::from(bridge.ageing);
            self.known
                .retain(|_, known| is_fresh(now, known.heard, ageing));
            self.swept = Some(now);
        }
        self.known.len() < share
    }

    /// The station that has an address, and whether it is a router, as configured or else as learnt.
    fn find(&self, now: Instant, bridge: &Bridge, address: IpAddr) -> Option<(MacAddr, bool)> {
        if let Some(configured) = bridge.neighbours.get(&address) {
            return Some(*configured);
        }
        let ageing = bridge.ageing.into();
        let known = self.known.get(&address)?;
        let router = match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(_) => known.router?,
        };
        let holds = is_fresh(now, known.heard, ageing) && !known.is_contested(now, ageing);
        holds.then_some((known.mac, router))
    }
}

impl Known {
    /// What is known of an address once its station, or another, was heard to have it. One that takes it
    /// over from a station that is not there any more is believed at once.
    fn followed_by(self, new: Self, bridge: &Bridge) -> Self {
        let (now, ageing) = (new.heard, bridge.ageing.into());
        if self.mac == new.mac {
            return Self {
                router: new.router.or(self.router),
                contested: self.contested,
                ..new
            };
        }
        let is_there = || bridge.place_of(self.mac).is_some();
        let rivals =
            is_fresh(now, self.heard, ageing) && (self.is_contested(now, ageing) || is_there());
        Self {
            contested: rivals.then_some(now),
            ..new
        }
    }

    fn is_contested(&self, now: Instant, ageing: u64) -> bool {
        self.contested.is_some_and(|at| is_fresh(now, at, ageing))
    }
}

fn is_fresh(now: Instant, heard: Instant, ageing: u64) -> bool {
    ageing == 0 || now.saturating_duration_since(heard) < Duration::from_secs(ageing)
}

/// Whether a station is known to be somewhere else: only then would the question have to be carried.
fn is_elsewhere(bridge: &Bridge, mac: MacAddr, from: Place) -> bool {
    bridge.place_of(mac).is_some_and(|place| place != from)
}

/// What a frame says. What it says in another station's name is no news of that.
fn read(header: &Ethernet, body: &[u8]) -> Option<Message> {
    let message = match header.ethertype {
        EtherType::ARP => read_arp(&Arp::parse(body).ok()?),
        _ => read_neighbour(&NeighbourMessage::parse(body).ok()?),
    };
    let sender = message.sender.filter(|(_, mac, _)| *mac == header.source);
    Some(Message { sender, ..message })
}

/// Probes and announcements are everybody's business (RFC 5227): they are no questions.
fn read_arp(message: &Arp) -> Message {
    let sender = IpAddr::V4(message.sender_ip);
    let request = message.operation == Operation::Request
        && !message.is_probe()
        && message.sender_ip != message.target_ip;
    Message {
        sender: (!sender.is_unspecified()).then_some((sender, message.sender_mac, None)),
        question: request.then_some(IpAddr::V4(message.target_ip)),
    }
}

/// Duplicate address detection is everybody's business (RFC 4862 section 5.4).
fn read_neighbour(message: &NeighbourMessage) -> Message {
    let source = IpAddr::V6(message.source);
    match message.kind {
        NeighbourKind::Solicitation => Message {
            sender: message.link_address.map(|mac| (source, mac, None)),
            question: (!source.is_unspecified()).then_some(IpAddr::V6(message.target)),
        },
        NeighbourKind::Advertisement { router, .. } => Message {
            sender: message
                .link_address
                .map(|mac| (IpAddr::V6(message.target), mac, Some(router))),
            question: None,
        },
    }
}

/// The frame that a station would answer with.
fn answer(asked: &Ethernet, body: &[u8], (mac, router): (MacAddr, bool)) -> Option<Vec<u8>> {
    let mut frame = vec![0; ethernet::HEADER_LEN + nd::MAX_LEN.max(arp::LEN)];
    let header = Ethernet {
        destination: asked.source,
        source: mac,
        ethertype: asked.ethertype,
        vlan: None,
    };
    let at = header.write(&mut frame);
    let length = match asked.ethertype {
        EtherType::ARP => Arp::parse(body).ok()?.reply(mac).write(&mut frame[at..]),
        _ => {
            let asked = NeighbourMessage::parse(body).ok()?;
            let kind = NeighbourKind::Advertisement {
                router,
                solicited: true,
                override_cached: true,
            };
            let answer = NeighbourMessage {
                kind,
                ..asked.advertisement(mac)
            };
            answer.write(&mut frame[at..])
        }
    };
    frame.truncate(at + length);
    (length > 0).then_some(frame)
}

/// A frame whose payload is larger than its tunnel takes: an IPv4 packet that may be cut up is, and goes
/// in again where it came in; the sender of another IP packet is told, by the address that it wrote
/// to, since a bridge has none of its own (as Linux' vxlan device tells it).
pub(super) fn too_big(
    now: Instant,
    limiter: &mut Limiter,
    mtu: Mtu,
    ingress: Option<PortId>,
    frame: &[u8],
    actions: &mut Vec<Action>,
) -> Fate {
    let dropped = Fate::Dropped(DropReason::TooBig);
    let Some((port, (ethertype, at))) = ingress.zip(ethernet::network(frame)) else {
        return dropped;
    };
    let (header, packet) = frame.split_at(at);
    // What tags take is the payload's loss.
    let mtu = mtu.less((at - ethernet::HEADER_LEN) as u16);
    if ethertype == EtherType::IPV4 && fragment::allowed(packet) {
        let fragments = fragment::fragment(packet.to_vec(), mtu, false).unwrap_or_default();
        if fragments.is_empty() {
            return dropped;
        }
        let framed = fragments.iter().map(|packet| [header, packet].concat());
        actions.extend(framed.map(|frame| Action::Receive(port, frame)));
        return Fate::Absorbed;
    }
    let Some(voice) = destination(ethertype, packet) else {
        return dropped;
    };
    if let Some((source, message)) = error::message(&voice, error::Kind::TooBig(mtu), packet)
        && limiter.allow(now, Some(port), source)
    {
        let mut back = [header, &message[..]].concat();
        back[..6].copy_from_slice(&frame[6..12]);
        back[6..12].copy_from_slice(&frame[..6]);
        actions.push(Action::Transmit(port, back));
    }
    dropped
}

/// Whom an IP packet was sent to, as the one who answers.
fn destination(ethertype: EtherType, packet: &[u8]) -> Option<RouterAddresses> {
    let mut voice = RouterAddresses {
        v4: RouterAddresses::GATEWAY_V4,
        v6: RouterAddresses::GATEWAY_V6,
    };
    match ethertype {
        EtherType::IPV4 => voice.v4 = Ipv4::parse(packet).ok()?.destination,
        EtherType::IPV6 => voice.v6 = Ipv6::parse(packet).ok()?.destination,
        _ => return None,
    }
    Some(voice)
}
