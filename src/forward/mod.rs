//! The pure packet path, one stage a file.
//!
//! ```text
//!  1 parse    link header off, IP header checked, trimmed, martians and spoofed sources refused
//!  2 decap    IPIP and VXLAN from known nodes opened; the inner packet goes on
//!  3 policy   (its place: between the inner packet's header and the route it will take)
//!  4 lookup   destination → next hop → adjacency, for the whole batch at once
//!  5 ttl      one less, once per router
//!  6 encap    the adjacency's precomputed header pushed and patched
//!  7 verdict  transmit, drop with one reason, or punt to the slow path
//! ```
//!
//! Almost all packets take stages 1 and 2 in one step, [`ordinary`].
//!
//! What a bridge's port receives, or a bridge's network carries, is not routed: [`bridge`] has its
//! stages.
//!
//! Pure: no clock, no allocation, no lock, no system call, no log. What it reads is a [`Snapshot`],
//! what it changes are the frames and one worker's [`WorkerState`].

mod adjacency;
mod bridge;
mod decap;
mod ecn;
mod encap;
mod encap_v6;
mod ordinary;
mod parse;
mod reverse_path;
mod several;
mod snapshot;
mod state;
mod ttl;
mod tunnel_error;
mod verdict;
mod workload_fence;

pub use adjacency::{
    Adjacency, Dscp, Egress, Encapsulation, OuterTtl, TunnelHeader, TunnelHeaderV6, TunnelMtus,
};
pub use bridge::{
    Bridge, BridgeId, Bridges, FLAP_HOLD, FLAP_MOVES, FLAP_WINDOW, Flood, ForwardingTable, Learnt,
    Place, Remote, RemoteId, Remotes, Station, Targets, deliver, resume,
};
pub use reverse_path::{LeadsTo, ReversePath, ReversePathMode};
pub use several::{Several, Translated};
pub use snapshot::{
    Addresses, FromWorkloads, PeerId, Peers, PortConfig, PortRole, RouterAddresses, Snapshot,
    Tunnels, TunnelsV6, WorkloadSources,
};
pub use state::WorkerState;
pub use verdict::{Punt, Verdict};

use std::net::Ipv4Addr;

use crate::fib::{Answer, NextHop};
use crate::packet::PortId;
use crate::packet::{BATCH, DropReason, Frame};
use crate::wire::{Mtu, ipv4};
use parse::{Ip, Traits};
use state::{Destinations, Flight};

/// Sends a batch that came in by `ingress` through all stages and leaves one verdict a frame, in
/// order, in `verdicts`.
///
/// A frame whose verdict is [`Verdict::Transmit`] holds what is to go out by that port; one that is
/// punted holds what [`Punt`] says.
///
/// # Panics
/// If the batch is longer than [`BATCH`].
pub fn forward(
    snapshot: &Snapshot,
    state: &mut WorkerState,
    ingress: PortId,
    batch: &mut [Frame],
    verdicts: &mut Vec<Verdict>,
) {
    assert!(batch.len() <= BATCH, "a batch of {} frames", batch.len());
    let Some(port) = snapshot.ports.get(usize::from(ingress.0)) else {
        verdicts.extend(batch.iter().map(|_| Verdict::Drop(DropReason::NoPort)));
        return;
    };
    if let PortRole::Bridge(bridge) = port.role {
        return bridge::forward(snapshot, state, port, bridge, batch, verdicts);
    }
    fetch(batch);
    // Almost every batch is ordinary packets alone, which need no list of where each stands.
    let mut destinations = [Ipv4Addr::UNSPECIFIED; BATCH];
    let count = ordinary::open(snapshot, port, batch, &mut destinations);
    if count < batch.len() {
        return forward_any(
            snapshot,
            state,
            port,
            batch,
            &destinations[..count],
            verdicts,
        );
    }
    let mut next_hops = [Answer::NONE; BATCH];
    snapshot
        .fib
        .lookup_v4_batch(&destinations[..count], &mut next_hops[..count]);
    let each = batch.iter_mut().zip(&next_hops);
    verdicts
        .extend(each.map(|(frame, answer)| send_ordinary(snapshot, state, port, *answer, frame)));
}

/// Any batch; its first packets are ordinary and have been opened, and these are their destinations.
#[inline(never)]
fn forward_any(
    snapshot: &Snapshot,
    state: &mut WorkerState,
    port: &PortConfig,
    batch: &mut [Frame],
    opened: &[Ipv4Addr],
    verdicts: &mut Vec<Verdict>,
) {
    let mut flights = std::mem::take(&mut state.flights);
    flights.clear();
    let destinations = &mut state.destinations;
    destinations.v4.clear();
    destinations.v6.clear();
    destinations.v4.extend_from_slice(opened);
    let (before, others) = batch.split_at_mut(opened.len());
    let before = before
        .iter()
        .filter_map(|frame| Traits::of_ipv4(frame.bytes()));
    flights.extend(before.map(|ip| Flight::Lookup(ip, None)));
    flights.extend(
        others
            .iter_mut()
            .map(|frame| receive(snapshot, port, frame, destinations)),
    );
    lookup(snapshot, state, &mut flights);
    verdicts.extend(
        batch
            .iter_mut()
            .zip(&flights)
            .map(|(frame, flight)| match flight {
                Flight::Lookup(ip, next_hop) => {
                    send(snapshot, state, Some(port), *ip, *next_hop, frame)
                }
                Flight::Ended(verdict) => *verdict,
            }),
    );
    state.flights = flights;
}

/// Touches every packet, so that their cache misses overlap: the stages go packet by packet, and
/// one packet's work is longer than what a core looks ahead.
#[inline]
fn fetch(batch: &[Frame]) {
    let touched = batch.iter().map(|frame| frame.byte(0));
    std::hint::black_box(touched.fold(0, |all, byte| all ^ byte));
}

/// Sends a packet that the router itself made: an IP packet without a link header, looked up and
/// encapsulated as if it had come in, but neither checked for its source nor charged a hop.
pub fn originate(snapshot: &Snapshot, state: &mut WorkerState, frame: &mut Frame) -> Verdict {
    let ip = match parse::ip(frame) {
        Ok(ip) => ip,
        Err(verdict) => return verdict,
    };
    let next_hop = match &ip {
        Ip::V4(ip) => snapshot.fib.lookup_v4(ip.destination),
        Ip::V6(ip) => snapshot.fib.lookup_v6(ip.destination),
    };
    send(snapshot, state, None, Traits::from(&ip), next_hop, frame)
}

/// Sends a packet that the router itself made by a given way, whatever that way's MTU: how large a
/// packet gets through is found out so.
pub fn originate_by(egress: &Egress, state: &mut WorkerState, frame: &mut Frame) -> Verdict {
    let any_size = egress.clone().with_mtu(Mtu(u16::MAX));
    let sent = parse::ip(frame)
        .and_then(|ip| Ok(encap::push(&any_size, state, Traits::from(&ip), frame)?));
    match sent {
        Ok(()) => Verdict::Transmit(egress.port),
        Err(verdict) => verdict,
    }
}

/// Stages 1 and 2 for one frame; what it is to be looked up by is left in `destinations`.
fn receive(
    snapshot: &Snapshot,
    port: &PortConfig,
    frame: &mut Frame,
    destinations: &mut Destinations,
) -> Flight {
    let mut to = [Ipv4Addr::UNSPECIFIED];
    if ordinary::open(snapshot, port, std::slice::from_mut(frame), &mut to) == 1
        && let Some(ip) = Traits::of_ipv4(frame.bytes())
    {
        destinations.v4.extend(to);
        return Flight::Lookup(ip, None);
    }
    match stages_1_and_2(snapshot, port, frame) {
        Ok(ip) => {
            match &ip {
                Ip::V4(ip) => destinations.v4.push(ip.destination),
                Ip::V6(ip) => destinations.v6.push(ip.destination),
            }
            Flight::Lookup(Traits::from(&ip), None)
        }
        Err(verdict) => Flight::Ended(verdict),
    }
}

fn stages_1_and_2(
    snapshot: &Snapshot,
    port: &PortConfig,
    frame: &mut Frame,
) -> Result<Ip, Verdict> {
    parse::receive(port, frame).and_then(|ip| match port.role {
        PortRole::Uplink => decap::open(snapshot, port, ip, frame),
        PortRole::Workload => {
            workload_fence::check(snapshot, &ip, frame.bytes())?;
            parse::refuse_off_link(&ip)?;
            Ok(ip)
        }
        PortRole::Host | PortRole::Bridge(_) => Ok(ip),
    })
}

/// Stage 4 for the batch: all look-ups at once, so that their cache misses overlap.
fn lookup(snapshot: &Snapshot, state: &mut WorkerState, flights: &mut [Flight]) {
    let Destinations { v4, v6 } = &state.destinations;
    let next_hops = &mut state.next_hops;
    next_hops.clear();
    next_hops.resize(v4.len() + v6.len(), Answer::NONE);
    let (v4_hops, v6_hops) = next_hops.split_at_mut(v4.len());
    snapshot.fib.lookup_v4_batch(v4, v4_hops);
    snapshot.fib.lookup_v6_batch(v6, v6_hops);
    let (mut v4_hops, mut v6_hops) = (v4_hops.iter(), v6_hops.iter());
    for flight in flights {
        if let Flight::Lookup(ip, next_hop) = flight {
            let found = if ip.is_v6 {
                v6_hops.next()
            } else {
                v4_hops.next()
            };
            *next_hop = found.and_then(|answer| answer.next_hop());
        }
    }
}

/// Stages 5 to 7 for an ordinary packet: at once, if there is one way, which takes it.
#[inline(always)]
fn send_ordinary(
    snapshot: &Snapshot,
    state: &mut WorkerState,
    ingress: &PortConfig,
    answer: Answer,
    frame: &mut Frame,
) -> Verdict {
    let next_hop = answer.next_hop();
    let adjacency = next_hop.and_then(|to| snapshot.adjacencies.get(to.0 as usize));
    if let Some(Adjacency::Forward(egress)) = adjacency {
        let (goes_back, is_hop) = (goes_back(ingress, egress), is_hop(ingress, egress));
        let fits = frame.len() <= usize::from(egress.mtu.0);
        let goes = !goes_back && is_hop && fits && frame.byte(ipv4::TTL) > 1;
        if goes && encap::push_before_ipv4::<true>(egress, state, frame) {
            return Verdict::Transmit(egress.port);
        }
    }
    send_by_stages(snapshot, state, ingress, next_hop, frame)
}

#[inline(never)]
fn send_by_stages(
    snapshot: &Snapshot,
    state: &mut WorkerState,
    ingress: &PortConfig,
    next_hop: Option<NextHop>,
    frame: &mut Frame,
) -> Verdict {
    match Traits::of_ipv4(frame.bytes()) {
        Some(ip) => send(snapshot, state, Some(ingress), ip, next_hop, frame),
        None => Verdict::Drop(DropReason::Ipv4Truncated),
    }
}

/// Stages 5 to 7 for one frame. `ingress` is none for what the router itself sends.
#[inline(always)]
fn send(
    snapshot: &Snapshot,
    state: &mut WorkerState,
    ingress: Option<&PortConfig>,
    ip: Traits,
    next_hop: Option<NextHop>,
    frame: &mut Frame,
) -> Verdict {
    let Some(next_hop) = next_hop else {
        return Verdict::Punt(Punt::NoRoute);
    };
    let adjacency = snapshot.adjacencies.get(next_hop.0 as usize);
    let egress = match adjacency {
        Some(Adjacency::Forward(egress)) => egress,
        _ => match not_one_way(adjacency, ingress, ip, next_hop, frame.bytes()) {
            Ok(egress) => egress,
            Err(verdict) => return verdict,
        },
    };
    let cut_outside = ip.is_v6 && egress.cuts_outside(frame.len());
    let too_big = frame.len() > usize::from(egress.mtu.0) && !cut_outside;
    if let Some(ingress) = ingress {
        if goes_back(ingress, egress) {
            return same_port(ingress);
        }
        let hop = is_hop(ingress, egress);
        if hop && !ttl::more_than_one(ip) {
            return Verdict::Punt(Punt::TtlExpired);
        }
        if too_big {
            return Verdict::Punt(Punt::TooBig(egress.mtu));
        }
        if hop {
            ttl::decrement(ip.is_v6, frame.bytes_mut());
        }
    } else if too_big {
        return Verdict::Punt(Punt::TooBig(egress.mtu));
    }
    match encap::push(egress, state, ip, frame) {
        Ok(()) if cut_outside => Verdict::Punt(Punt::CutOutside(egress.port, egress.path_mtu())),
        Ok(()) => Verdict::Transmit(egress.port),
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Whether a packet would leave by the port that it came in by, where nobody else is behind that.
#[inline(always)]
fn goes_back(ingress: &PortConfig, egress: &Egress) -> bool {
    ingress.id == egress.port && ingress.role != PortRole::Uplink
}

/// Whether this router is a hop on the packet's way: the host is no other node.
#[inline(always)]
fn is_hop(ingress: &PortConfig, egress: &Egress) -> bool {
    ingress.role != PortRole::Host && !egress.to_host
}

/// The way of a packet's flow where the adjacency has several, or what is to become of it where it has none.
#[inline(never)]
fn not_one_way<'a>(
    adjacency: Option<&'a Adjacency>,
    ingress: Option<&PortConfig>,
    ip: Traits,
    next_hop: NextHop,
    packet: &[u8],
) -> Result<&'a Egress, Verdict> {
    Err(match adjacency {
        Some(Adjacency::Forward(egress)) => return Ok(egress),
        Some(Adjacency::Several(several)) => {
            let from_host = ingress.is_some_and(|ingress| ingress.role == PortRole::Host);
            let way = several.way(from_host, packet);
            return way.ok_or_else(|| unresolved(ingress, ip, next_hop));
        }
        Some(Adjacency::Unresolved) => unresolved(ingress, ip, next_hop),
        Some(Adjacency::Router) => Verdict::Punt(Punt::ToRouter),
        Some(Adjacency::Blackhole) => Verdict::Punt(Punt::Blackhole),
        Some(Adjacency::Unreachable) | None => Verdict::Punt(Punt::NoRoute),
    })
}

/// A packet whose next hop's Ethernet address is not known waits for it, unless this is its last hop
/// anyway: its sender is told so now, as it would be later. Behind an unresolved next hop is never
/// the host.
fn unresolved(ingress: Option<&PortConfig>, ip: Traits, next_hop: NextHop) -> Verdict {
    let hop = ingress.is_some_and(|ingress| ingress.role != PortRole::Host);
    if hop && !ttl::more_than_one(ip) {
        return Verdict::Punt(Punt::TtlExpired);
    }
    Verdict::Punt(Punt::Unresolved(next_hop))
}

/// A packet would go back where it came from. From the kernel that means that the kernel believes
/// in a route which we do not have: say so, or the two would pass it to and fro for ever.
fn same_port(ingress: &PortConfig) -> Verdict {
    match ingress.role {
        PortRole::Host => Verdict::Punt(Punt::NoRoute),
        PortRole::Uplink | PortRole::Workload | PortRole::Bridge(_) => {
            Verdict::Drop(DropReason::SamePort)
        }
    }
}
