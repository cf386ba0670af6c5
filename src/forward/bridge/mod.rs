//! VXLAN as a virtual Ethernet: frames of one network between ports and other tunnel end points.
//!
//! ```text
//!  1 learn     the source's place is noted; impossible sources and flapping stations are refused
//!  2 suppress  ARP and neighbour discovery go to the slow path, which answers what it knows
//!  3 look up   destination → port or remote; groups and what is unknown go everywhere
//!  4 send      unchanged by the port, or behind an outer header to the remote
//! ```
//!
//! Loops are cut where they would close: nothing goes back to where it came from, what came out of a
//! tunnel goes into none (split horizon: every end point sends to all others itself), and a station
//! that keeps moving is where it was at home for a while. There is no spanning tree; its frames, like
//! others that bridges keep to a link (IEEE 802.1D table 7-10), are dropped.

mod bridges;
mod table;

use std::net::IpAddr;

pub use bridges::{Bridge, BridgeId, Bridges, Flood, Remote, Remotes, Targets};
pub use table::{
    FLAP_HOLD, FLAP_MOVES, FLAP_WINDOW, ForwardingTable, Learnt, Place, RemoteId, Station,
};

use super::encap;
use super::{PortConfig, Punt, Snapshot, Verdict, WorkerState, ecn};
use crate::packet::{DropReason, Frame, PortId};
use crate::wire::ethernet::{self, EtherType, Ethernet};
use crate::wire::ipv4::{self, Ipv4, protocol};
use crate::wire::{MacAddr, Mtu, icmpv6, ipv6, partial};

/// What [`table`] is built on; a model checker puts its own in this place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

    /// Slots of a bucket: what a cache line has.
    pub(super) const WAYS: usize = 8;
}

/// Where a frame goes.
enum Course {
    Port(PortId),
    Remote(RemoteId),
    Everywhere,
}

/// Sends a batch of frames that came in by a port of a bridge through all stages; one verdict a
/// frame, in order.
pub(super) fn forward(
    snapshot: &Snapshot,
    state: &mut WorkerState,
    port: &PortConfig,
    id: BridgeId,
    batch: &mut [Frame],
    verdicts: &mut Vec<Verdict>,
) {
    let from = Place::Port(port.id);
    for frame in batch {
        if port.partial_checksums {
            complete_checksum(frame);
        }
        verdicts.push(receive(snapshot, state, id, from, frame));
    }
}

/// Takes a frame out of a tunnel packet, of which only the inner frame is left.
#[inline(never)]
pub(super) fn from_tunnel(
    snapshot: &Snapshot,
    port: &PortConfig,
    id: BridgeId,
    (outer_source, outer_tos): (IpAddr, u8),
    frame: &mut Frame,
) -> Verdict {
    let Some(bridge) = snapshot.bridges.get(id) else {
        return DropReason::VxlanUnknownVni.into();
    };
    let Some(remote) = bridge.remotes.at(outer_source) else {
        return DropReason::UnknownPeer.into();
    };
    if let Err(reason) = mark(outer_tos, frame.bytes_mut()) {
        return reason.into();
    }
    if port.partial_checksums {
        complete_checksum(frame);
    }
    match admit(bridge, id, Place::Remote(remote), frame) {
        Ok(Course::Port(port)) => Verdict::Transmit(port),
        Ok(Course::Everywhere) => flood(id, Place::Remote(remote)),
        Ok(Course::Remote(_)) => DropReason::BridgeSplitHorizon.into(),
        Err(verdict) => verdict,
    }
}

/// Sends on what the slow path did not answer: a frame that came from `from` and has been through
/// the first stages.
pub fn resume(
    snapshot: &Snapshot,
    state: &mut WorkerState,
    id: BridgeId,
    from: Place,
    frame: &mut Frame,
) -> Verdict {
    let Some(bridge) = snapshot.bridges.get(id) else {
        return DropReason::NoPort.into();
    };
    match Ethernet::parse(frame.bytes()) {
        Ok(header) => match look_up(bridge, from, header.destination) {
            Ok(course) => send(snapshot, state, id, from, course, frame),
            Err(reason) => reason.into(),
        },
        Err(_) => DropReason::EthernetTruncated.into(),
    }
}

/// Makes a copy of a flooded frame ready for one of its [`Targets`].
///
/// One that is too large for a remote is punted if it is for one station, whose sender is to be told;
/// about what is for many nobody is told (RFC 1122 section 3.2.2), and it is dropped.
pub fn deliver(
    snapshot: &Snapshot,
    state: &mut WorkerState,
    id: BridgeId,
    target: Place,
    frame: &mut Frame,
) -> Verdict {
    let remote = match target {
        Place::Port(port) => return Verdict::Transmit(port),
        Place::Remote(remote) => remote,
    };
    match encapsulate(snapshot, state, id, remote, frame) {
        Ok(verdict) => verdict,
        // What may be cut up was, before it was flooded.
        Err(Obstacle::TooBig(mtu)) if is_for_one(frame) && !may_be_cut(frame) => {
            let bridge = snapshot.bridges.get(id);
            let narrowest = bridge.and_then(|bridge| bridge.remotes.narrowest());
            Verdict::Punt(Punt::BridgedTooBig(narrowest.unwrap_or(mtu)))
        }
        Err(Obstacle::TooBig(_)) => DropReason::TooBig.into(),
        Err(Obstacle::Reason(reason)) => reason.into(),
    }
}

fn receive(
    snapshot: &Snapshot,
    state: &mut WorkerState,
    id: BridgeId,
    from: Place,
    frame: &mut Frame,
) -> Verdict {
    let Some(bridge) = snapshot.bridges.get(id) else {
        return DropReason::NoPort.into();
    };
    match admit(bridge, id, from, frame) {
        Ok(course) => send(snapshot, state, id, from, course, frame),
        Err(verdict) => verdict,
    }
}

/// Stages 1 to 3.
fn admit(bridge: &Bridge, id: BridgeId, from: Place, frame: &Frame) -> Result<Course, Verdict> {
    let header = Ethernet::parse(frame.bytes()).map_err(|_| DropReason::EthernetTruncated)?;
    learn(bridge, header.source, from)?;
    let link_local = is_link_local_group(header.destination);
    if link_local && (!bridge.link_local_groups || header.destination == PAUSE) {
        return Err(DropReason::BridgeLinkLocal.into());
    }
    if bridge.suppression && asks_for_neighbour(&header, frame.bytes()) {
        return Err(Verdict::Punt(Punt::Bridged(id, from)));
    }
    Ok(look_up(bridge, from, header.destination)?)
}

/// Stage 1. Where a bridge does not learn, a static entry still says where its station must be.
#[inline]
fn learn(bridge: &Bridge, source: MacAddr, from: Place) -> Result<(), DropReason> {
    if source.is_multicast() || source == MacAddr::default() {
        return Err(DropReason::BridgeSource);
    }
    match bridge.stations.get(&source) {
        Some(place) if *place == from => return Ok(()),
        Some(_) => return Err(DropReason::BridgeStatic),
        None => {}
    }
    if bridge.learning && bridge.table.learn(source, from) == Learnt::Flapping {
        return Err(DropReason::BridgeFlapping);
    }
    Ok(())
}

/// Stage 3.
#[inline]
fn look_up(bridge: &Bridge, from: Place, destination: MacAddr) -> Result<Course, DropReason> {
    if destination.is_multicast() {
        return Ok(Course::Everywhere);
    }
    match (bridge.place_of(destination), from) {
        (Some(place), from) if place == from => Err(DropReason::SamePort),
        (Some(Place::Port(port)), _) => Ok(Course::Port(port)),
        (Some(Place::Remote(_)), Place::Remote(_)) => Err(DropReason::BridgeSplitHorizon),
        (Some(Place::Remote(remote)), _) => Ok(Course::Remote(remote)),
        (None, _) => Ok(Course::Everywhere),
    }
}

/// Stage 4.
#[inline]
fn send(
    snapshot: &Snapshot,
    state: &mut WorkerState,
    id: BridgeId,
    from: Place,
    course: Course,
    frame: &mut Frame,
) -> Verdict {
    let remote = match course {
        Course::Port(port) => return Verdict::Transmit(port),
        Course::Everywhere => return everywhere(snapshot, id, from, frame),
        Course::Remote(remote) => remote,
    };
    match encapsulate(snapshot, state, id, remote, frame) {
        Ok(verdict) => verdict,
        Err(Obstacle::TooBig(mtu)) => Verdict::Punt(Punt::BridgedTooBig(mtu)),
        Err(Obstacle::Reason(reason)) => reason.into(),
    }
}

/// Floods a frame, unless it may be cut up and has to be for one of the tunnels: then each port and
/// each remote gets the pieces.
fn everywhere(snapshot: &Snapshot, id: BridgeId, from: Place, frame: &Frame) -> Verdict {
    let bridge = snapshot.bridges.get(id);
    let narrowest = bridge.and_then(|bridge| bridge.remotes.narrowest());
    match (narrowest, from) {
        (Some(mtu), Place::Port(_))
            if is_too_big(frame, mtu) && is_for_one(frame) && may_be_cut(frame) =>
        {
            Verdict::Punt(Punt::BridgedTooBig(mtu))
        }
        _ => flood(id, from),
    }
}

/// Why a frame does not go into a tunnel.
enum Obstacle {
    /// Behind its Ethernet header may be no more than this.
    TooBig(Mtu),
    Reason(DropReason),
}

/// Pushes the outer header to a remote before the frame; what is to be done with the two.
#[inline]
fn encapsulate(
    snapshot: &Snapshot,
    state: &mut WorkerState,
    id: BridgeId,
    remote: RemoteId,
    frame: &mut Frame,
) -> Result<Verdict, Obstacle> {
    let bridge = snapshot.bridges.get(id);
    let egress = bridge
        .and_then(|bridge| bridge.remotes.get(remote)?.egress.as_ref())
        .ok_or(Obstacle::Reason(DropReason::NeighbourUnresolved))?;
    let too_big = is_too_big(frame, egress.mtu);
    if too_big && !need_not_be_smaller(frame) {
        return Err(Obstacle::TooBig(egress.mtu));
    }
    encap::push_frame(egress, state, frame).map_err(Obstacle::Reason)?;
    Ok(if too_big {
        Verdict::Punt(Punt::CutOutside(egress.port, egress.path_mtu()))
    } else {
        Verdict::Transmit(egress.port)
    })
}

fn flood(bridge: BridgeId, from: Place) -> Verdict {
    Verdict::Flood(Flood { bridge, from })
}

/// A tag counts as payload: what leaves is as long with it as without.
#[inline]
fn is_too_big(frame: &Frame, mtu: Mtu) -> bool {
    frame.len() > usize::from(mtu.0) + ethernet::HEADER_LEN
}

/// Whether a frame carries an IPv6 packet that fits any link, so that no sender sends it smaller (RFC 8200
/// section 5): a tunnel through a path that is too narrow for it fragments outside (RFC 2473 section 7.1).
#[cold]
fn need_not_be_smaller(frame: &Frame) -> bool {
    let frame = frame.bytes();
    matches!(ethernet::network(frame),
        Some((EtherType::IPV6, at)) if frame.len() - at <= ipv6::MIN_MTU)
}

/// Whether a frame is for one station.
fn is_for_one(frame: &Frame) -> bool {
    Ethernet::parse(frame.bytes()).is_ok_and(|header| !header.destination.is_multicast())
}

/// Whether a frame carries an IPv4 packet that may be fragmented.
fn may_be_cut(frame: &Frame) -> bool {
    let frame = frame.bytes();
    matches!(ethernet::network(frame),
        Some((EtherType::IPV4, at)) if Ipv4::may_be_fragmented(&frame[at..]))
}

/// Where MAC control frames go, pauses among them: never farther than the link (IEEE 802.3 annex 31B).
const PAUSE: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0x00, 0x00, 0x01]);

/// The groups of protocols between neighbours on a link: 01:80:c2:00:00:00 to 0f.
#[inline]
fn is_link_local_group(mac: MacAddr) -> bool {
    let [prefix @ .., last] = mac.0;
    prefix == [0x01, 0x80, 0xc2, 0x00, 0x00] && last < 0x10
}

/// Whether a frame is ARP, or a neighbour solicitation or advertisement, and untagged: addresses
/// within a VLAN are another network's.
#[inline]
fn asks_for_neighbour(header: &Ethernet, frame: &[u8]) -> bool {
    if header.vlan.is_some() {
        return false;
    }
    match header.ethertype {
        EtherType::ARP => true,
        EtherType::IPV6 => {
            let packet = &frame[ethernet::HEADER_LEN..];
            let kind = packet.get(ipv6::HEADER_LEN).copied();
            packet.get(6) == Some(&protocol::ICMPV6)
                && matches!(
                    kind,
                    Some(
                        icmpv6::types::NEIGHBOUR_SOLICITATION
                            | icmpv6::types::NEIGHBOUR_ADVERTISEMENT
                    )
                )
        }
        _ => false,
    }
}

/// Finishes a checksum that a sender's kernel has left to hardware.
fn complete_checksum(frame: &mut Frame) {
    if let Some((EtherType::IPV4 | EtherType::IPV6, at)) = ethernet::network(frame.bytes()) {
        partial::complete_checksum(&mut frame.bytes_mut()[at..]);
    }
}

/// Lets the outer congestion mark into an inner IP packet (RFC 6040); other payloads have no place
/// for it.
fn mark(outer_tos: u8, frame: &mut [u8]) -> Result<(), DropReason> {
    let Some((ethertype, at)) = ethernet::network(frame) else {
        return Ok(());
    };
    let packet = &mut frame[at..];
    match ethertype {
        EtherType::IPV4 if packet.len() >= ipv4::HEADER_LEN => {
            let tos = ecn::decapsulate(outer_tos, packet[1])?;
            if tos != packet[1] {
                ipv4::set_tos(packet, tos);
            }
        }
        EtherType::IPV6 if packet.len() >= ipv6::HEADER_LEN => {
            let class = packet[0] << 4 | packet[1] >> 4;
            let marked = ecn::decapsulate(outer_tos, class)?;
            if marked != class {
                ipv6::set_traffic_class(packet, marked);
            }
        }
        _ => {}
    }
    Ok(())
}
