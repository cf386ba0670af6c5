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
//! Pure: no clock, no allocation, no lock, no system call, no log. What it reads is a [`Snapshot`],
//! what it changes are the frames and one worker's [`WorkerState`].

mod adjacency;
mod decap;
mod ecn;
mod encap;
mod encap_v6;
mod parse;
mod reverse_path;
mod snapshot;
mod state;
mod ttl;
mod tunnel_error;
mod verdict;
mod workload_fence;

pub use adjacency::{
    Adjacency, Dscp, Egress, Encapsulation, OuterTtl, TunnelHeader, TunnelHeaderV6,
};
pub use reverse_path::{LeadsTo, ReversePath, ReversePathMode};
pub use snapshot::{
    PeerId, Peers, PortConfig, PortRole, RouterAddresses, Snapshot, Tunnels, TunnelsV6,
    WorkloadSources,
};
pub use state::WorkerState;
pub use verdict::{Punt, Verdict};

use crate::fib::NextHop;
use crate::packet::PortId;
use crate::packet::{BATCH, DropReason, Frame};
use crate::wire::Mtu;
use parse::Ip;
use state::Flight;

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
    let mut flights = std::mem::take(&mut state.flights);
    flights.clear();
    flights.extend(batch.iter_mut().map(|frame| receive(snapshot, port, frame)));
    lookup(snapshot, state, &mut flights);
    for (frame, flight) in batch.iter_mut().zip(&flights) {
        verdicts.push(match flight {
            Flight::Lookup(ip, next_hop) => send(snapshot, state, Some(port), ip, *next_hop, frame),
            Flight::Ended(verdict) => *verdict,
        });
    }
    state.flights = flights;
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
    send(snapshot, state, None, &ip, next_hop, frame)
}

/// Sends a packet that the router itself made by a given way, whatever that way's MTU: how large a
/// packet gets through is found out so.
pub fn originate_by(egress: &Egress, state: &mut WorkerState, frame: &mut Frame) -> Verdict {
    let any_size = egress.clone().with_mtu(Mtu(u16::MAX));
    let sent = parse::ip(frame).and_then(|ip| Ok(encap::push(&any_size, state, &ip, frame)?));
    match sent {
        Ok(()) => Verdict::Transmit(egress.port),
        Err(verdict) => verdict,
    }
}

/// Stages 1 and 2 for one frame.
fn receive(snapshot: &Snapshot, port: &PortConfig, frame: &mut Frame) -> Flight {
    let received = parse::receive(port, frame).and_then(|ip| match port.role {
        PortRole::Uplink => decap::open(snapshot, port, ip, frame),
        PortRole::Workload => {
            workload_fence::check(&snapshot.tunnels, &ip, frame.bytes())?;
            Ok(ip)
        }
        PortRole::Host => Ok(ip),
    });
    match received {
        Ok(ip) => Flight::Lookup(ip, None),
        Err(verdict) => Flight::Ended(verdict),
    }
}

/// Stage 4 for the batch: all look-ups at once, so that their cache misses overlap.
fn lookup(snapshot: &Snapshot, state: &mut WorkerState, flights: &mut [Flight]) {
    state.destinations.clear();
    state
        .destinations
        .extend(flights.iter().filter_map(|flight| match flight {
            Flight::Lookup(Ip::V4(ip), _) => Some(ip.destination),
            _ => None,
        }));
    state.next_hops.clear();
    state.next_hops.resize(state.destinations.len(), None);
    snapshot
        .fib
        .lookup_v4_batch(&state.destinations, &mut state.next_hops);
    let mut found = state.next_hops.iter();
    for flight in flights {
        match flight {
            Flight::Lookup(Ip::V4(_), next_hop) => *next_hop = found.next().copied().flatten(),
            Flight::Lookup(Ip::V6(ip), next_hop) => {
                *next_hop = snapshot.fib.lookup_v6(ip.destination);
            }
            Flight::Ended(_) => {}
        }
    }
}

/// Stages 5 to 7 for one frame. `ingress` is none for what the router itself sends.
fn send(
    snapshot: &Snapshot,
    state: &mut WorkerState,
    ingress: Option<&PortConfig>,
    ip: &Ip,
    next_hop: Option<NextHop>,
    frame: &mut Frame,
) -> Verdict {
    let Some(next_hop) = next_hop else {
        return Verdict::Punt(Punt::NoRoute);
    };
    let egress = match snapshot.adjacencies.get(next_hop.0 as usize) {
        Some(Adjacency::Forward(egress)) => egress,
        Some(Adjacency::Unresolved) => return unresolved(ingress, ip, next_hop),
        Some(Adjacency::Router) => return Verdict::Punt(Punt::ToRouter),
        Some(Adjacency::Blackhole) => return Verdict::Punt(Punt::Blackhole),
        Some(Adjacency::Unreachable) | None => return Verdict::Punt(Punt::NoRoute),
    };
    if let Ip::V6(ip) = ip
        && ingress.is_some_and(|ingress| ingress.role == PortRole::Workload)
        && let Err(reason) = parse::refuse_link_local(ip)
    {
        return Verdict::Drop(reason);
    }
    let cut_outside = matches!(ip, Ip::V6(_)) && egress.cuts_outside(frame.len());
    let too_big = frame.len() > usize::from(egress.mtu.0) && !cut_outside;
    if let Some(ingress) = ingress {
        if ingress.id == egress.port && ingress.role != PortRole::Uplink {
            return same_port(ingress);
        }
        let hop = ingress.role != PortRole::Host && !egress.to_host;
        if hop && !ttl::more_than_one(ip) {
            return Verdict::Punt(Punt::TtlExpired);
        }
        if too_big {
            return Verdict::Punt(Punt::TooBig(egress.mtu));
        }
        if hop {
            ttl::decrement(ip, frame);
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

/// A packet whose next hop's Ethernet address is not known waits for it, unless this is its last hop
/// anyway: its sender is told so now, as it would be later. Behind an unresolved next hop is never
/// the host.
fn unresolved(ingress: Option<&PortConfig>, ip: &Ip, next_hop: NextHop) -> Verdict {
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
        PortRole::Uplink | PortRole::Workload => Verdict::Drop(DropReason::SamePort),
    }
}
