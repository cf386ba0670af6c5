//! What a workload is told that asks for its address: DHCP and router advertisements on workload ports.
//!
//! The address is the one that its WorkloadEndpoint gives, so that nothing is kept here of who was told
//! what; all that is remembered is to whom a router must go on to advertise itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::answer::{NOT_ANSWERED, workload, write_ethernet};
use super::limiter::Limiter;
use super::seen::Seen;
use super::{Action, Fate};
use crate::forward::{Adjacency, PortConfig, PortRole, RouterAddresses, Snapshot};
use crate::packet::DropReason;
use crate::port::PortId;
use crate::wire::dhcp::{Lease, MessageType, Request};
use crate::wire::ethernet::{self, EtherType};
use crate::wire::ipv4::Ipv4;
use crate::wire::router::{ADVERTISEMENT_LEN, Advertisement};
use crate::wire::{MacAddr, Mtu, ipv6, nd};

/// How long a workload goes on without asking: it then hears of another MTU.
const LEASE: Duration = Duration::from_secs(3600);

/// How long a router is one without being heard of again, and how often it is heard of: the most that
/// RFC 4861 section 6.2.1 allows.
const ROUTER_LIFETIME: u16 = 9000;
const ADVERTISE_EVERY: Duration = Duration::from_secs(600);

/// How long all who listen are left alone (RFC 4861 section 10, MIN_DELAY_BETWEEN_RAS).
const ADVERTISE_AFTER: Duration = Duration::from_secs(3);

/// To whom the router goes on to advertise itself, when it did last, and when it does next.
#[derive(Debug, Default)]
pub(super) struct Advertised(BTreeMap<PortId, (Instant, Instant)>);

/// Answers a DHCP client.
pub(super) fn dhcp(
    now: Instant,
    (limiter, seen): (&mut Limiter, &mut Seen),
    snapshot: &Snapshot,
    ingress: Option<PortId>,
    packet: &[u8],
    actions: &mut Vec<Action>,
) -> Fate {
    let Some(port) = workload(snapshot, ingress) else {
        return NOT_ANSWERED;
    };
    let (Some(address), Ok(request)) = (own_v4(port), Request::parse(packet)) else {
        return NOT_ANSWERED;
    };
    // No relay is on a workload's link.
    if !request.relay.is_unspecified() {
        return NOT_ANSWERED;
    }
    let Some(kind) = kind_of_answer(&request, address) else {
        return Fate::Absorbed;
    };
    if !limiter.allow(now, ingress, address.into()) {
        return Fate::Dropped(DropReason::RateLimited);
    }
    if kind == MessageType::Ack {
        seen.tell(now, port, (address.into(), request.mac), actions);
    }
    let lease = Lease {
        address,
        router: RouterAddresses::GATEWAY_V4,
        mtu: mtu(snapshot, port),
        seconds: LEASE.as_secs() as u32,
    };
    let answer = lease.answer(&request, kind);
    let to_all = Ipv4::parse(&answer).is_ok_and(|ip| ip.destination.is_broadcast());
    let receiver = if to_all {
        MacAddr::BROADCAST
    } else {
        request.mac
    };
    let mut frame = vec![0; ethernet::HEADER_LEN];
    write_ethernet(receiver, EtherType::IPV4, &mut frame);
    frame.extend_from_slice(&answer);
    actions.push(Action::Transmit(port.id, frame));
    Fate::Absorbed
}

/// What a request is answered by (RFC 2131 section 4.3); nothing if it means another server, or wants no
/// answer.
fn kind_of_answer(request: &Request, address: Ipv4Addr) -> Option<MessageType> {
    match request.kind {
        MessageType::Discover => Some(MessageType::Offer),
        MessageType::Inform => Some(MessageType::Ack),
        MessageType::Request => {
            let ours = |server| server == RouterAddresses::GATEWAY_V4;
            if !request.server.is_none_or(ours) {
                return None;
            }
            let held = Some(request.client).filter(|client| !client.is_unspecified());
            match request.requested.or(held) == Some(address) {
                true => Some(MessageType::Ack),
                false => Some(MessageType::Nak),
            }
        }
        _ => None,
    }
}

/// Answers a router solicitation, if the workload has an IPv6 address.
pub(super) fn advertise(
    now: Instant,
    advertised: &mut Advertised,
    limiter: &mut Limiter,
    snapshot: &Snapshot,
    ingress: Option<PortId>,
    actions: &mut Vec<Action>,
) -> Fate {
    let Some(port) = workload(snapshot, ingress) else {
        return NOT_ANSWERED;
    };
    let Some(address) = own_v6(port) else {
        return NOT_ANSWERED;
    };
    if !limiter.allow(now, ingress, address) {
        return Fate::Dropped(DropReason::RateLimited);
    }
    match advertised.0.get_mut(&port.id) {
        Some((last, due)) if now < *last + ADVERTISE_AFTER => *due = *last + ADVERTISE_AFTER,
        _ => {
            let times = (now, now + ADVERTISE_EVERY);
            advertised.0.insert(port.id, times);
            actions.push(advertisement(snapshot, port));
        }
    }
    Fate::Absorbed
}

impl Advertised {
    /// Advertises again where it is time; a port that is gone, or has no IPv6 any more, is forgotten.
    pub(super) fn tick(&mut self, now: Instant, snapshot: &Snapshot, actions: &mut Vec<Action>) {
        self.0.retain(|id, (last, due)| {
            let port = workload(snapshot, Some(*id)).filter(|port| own_v6(port).is_some());
            if let Some(port) = port
                && *due <= now
            {
                (*last, *due) = (now, now + ADVERTISE_EVERY);
                actions.push(advertisement(snapshot, port));
            }
            port.is_some()
        });
    }
}

fn advertisement(snapshot: &Snapshot, port: &PortConfig) -> Action {
    let advertisement = Advertisement {
        router: RouterAddresses::GATEWAY_V6,
        mac: MacAddr::WORKLOAD_GATEWAY,
        mtu: mtu(snapshot, port).max(Mtu(ipv6::MIN_MTU as u16)),
        lifetime: ROUTER_LIFETIME,
    };
    let mut frame = vec![0; ethernet::HEADER_LEN + ADVERTISEMENT_LEN];
    let to = nd::multicast_mac(nd::ALL_NODES);
    let at = write_ethernet(to, EtherType::IPV6, &mut frame);
    advertisement.write(&mut frame[at..]);
    Action::Transmit(port.id, frame)
}

fn own_v4(port: &PortConfig) -> Option<Ipv4Addr> {
    let mut own = port.sources.own.iter();
    own.find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

fn own_v6(port: &PortConfig) -> Option<IpAddr> {
    port.sources.own.iter().copied().find(IpAddr::is_ipv6)
}

/// The largest packet that gets from a workload to everybody: the least of the ways to the host, to other
/// nodes and back.
fn mtu(snapshot: &Snapshot, port: &PortConfig) -> Mtu {
    let ways = snapshot.adjacencies.iter().flat_map(|way| match way {
        Adjacency::Forward(egress) => std::slice::from_ref(egress),
        Adjacency::Several(several) => several.ways(),
        _ => &[],
    });
    let of_others = |id: PortId| {
        let role = snapshot.ports.get(usize::from(id.0)).map(|port| port.role);
        matches!(role, Some(PortRole::Uplink | PortRole::Host))
    };
    let ways = ways.filter(|egress| egress.port == port.id || of_others(egress.port));
    ways.map(|egress| egress.mtu).min().unwrap_or(Mtu::ETHERNET)
}
