//! Messages to the router that are answered: ARP, neighbour discovery, echo.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::seen::Seen;
use super::{Action, Fate, link_local};
use crate::forward::{PortConfig, PortRole, RouterAddresses, Snapshot};
use crate::packet::DropReason;
use crate::port::{Link, PortId};
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::ethernet::{self, EtherType, Ethernet};
use crate::wire::nd::{self, NeighbourKind, NeighbourMessage};
use crate::wire::{MacAddr, icmp, icmpv6, udp};

pub(super) const NOT_ANSWERED: Fate = Fate::Dropped(DropReason::NotAnswered);

/// Proxy ARP on a workload port: any address but the workload's own is at ee:ee:ee:ee:ee:ee, as
/// Calico's host end answers. What the message says of its sender is learnt. A probe is answered for
/// the gateway's address only, as Linux answers it for its own addresses only.
pub(super) fn arp(
    (now, seen): (Instant, &mut Seen),
    snapshot: &Snapshot,
    ingress: Option<PortId>,
    frame: &[u8],
    actions: &mut Vec<Action>,
) -> Fate {
    let Some(port) = workload(snapshot, ingress) else {
        return NOT_ANSWERED;
    };
    let Ok(header) = Ethernet::parse(frame) else {
        return Fate::Dropped(DropReason::EthernetTruncated);
    };
    let Ok(message) = Arp::parse(&frame[header.header_len()..]) else {
        return NOT_ANSWERED;
    };
    let sender = IpAddr::V4(message.sender_ip);
    if !message.is_probe() {
        if !port.sources.allow(sender) {
            return Fate::Dropped(DropReason::SpoofedSource);
        }
        seen.tell(now, port, (sender, message.sender_mac), actions);
    }
    // Who asks for an address of its own looks for a duplicate (RFC 5227), and who has none yet asks
    // for one that it may be about to get, before we hear of that. Only the gateway's is taken.
    let own = port.sources.allow(IpAddr::V4(message.target_ip));
    let may_be_free = message.is_probe() && message.target_ip != RouterAddresses::GATEWAY_V4;
    if message.operation != Operation::Request || own || may_be_free {
        return Fate::Absorbed;
    }
    let mut answer = vec![0; ethernet::HEADER_LEN + arp::LEN];
    let at = write_ethernet(header.source, EtherType::ARP, &mut answer);
    message
        .reply(MacAddr::WORKLOAD_GATEWAY)
        .write(&mut answer[at..]);
    actions.push(Action::Transmit(port.id, answer));
    Fate::Absorbed
}

/// Proxy neighbour discovery on a workload port (RFC 4861, RFC 4389 in spirit): any address but the
/// workload's own is at ee:ee:ee:ee:ee:ee.
pub(super) fn neighbour(
    (now, seen): (Instant, &mut Seen),
    snapshot: &Snapshot,
    ingress: Option<PortId>,
    packet: &[u8],
    actions: &mut Vec<Action>,
) -> Fate {
    let Some(port) = workload(snapshot, ingress) else {
        return NOT_ANSWERED;
    };
    let Ok(message) = NeighbourMessage::parse(packet) else {
        return NOT_ANSWERED;
    };
    let own = |address: Ipv6Addr| port.sources.allow(IpAddr::V6(address));
    let duplicate_detection = message.source.is_unspecified();
    if !duplicate_detection && !own(message.source) {
        return Fate::Dropped(DropReason::SpoofedSource);
    }
    // A solicitation tells where its sender is, an advertisement where its target is.
    let solicitation = message.kind == NeighbourKind::Solicitation;
    let told_of = if solicitation {
        message.source
    } else {
        message.target
    };
    if let Some(mac) = message.link_address {
        seen.tell(now, port, (IpAddr::V6(told_of), mac), actions);
    }
    // Every link-local address counts as the workload's own, but for the gateway's; and so does what
    // it may be about to get (RFC 4862 section 5.4).
    let ours = message.target == RouterAddresses::GATEWAY_V6
        || !(duplicate_detection || own(message.target));
    if !solicitation || !ours {
        return Fate::Absorbed;
    }
    let answer = message.advertisement(MacAddr::WORKLOAD_GATEWAY);
    // Who asks by unicast need not say where it is (RFC 4861 section 4.3).
    let to = if answer.destination.is_multicast() {
        Some(nd::multicast_mac(answer.destination))
    } else {
        let station = || link_local::way_to_station(snapshot, port)?.link_destination();
        message.link_address.or_else(station)
    };
    let Some(to) = to else {
        return NOT_ANSWERED;
    };
    let mut frame = vec![0; ethernet::HEADER_LEN + nd::MAX_LEN];
    let at = write_ethernet(to, EtherType::IPV6, &mut frame);
    let length = answer.write(&mut frame[at..]);
    frame.truncate(at + length);
    actions.push(Action::Transmit(port.id, frame));
    Fate::Absorbed
}

/// The answer to an echo request, as a whole IP packet; none for anything else, or if the request's
/// checksum is wrong.
pub(super) fn echo(mut packet: Vec<u8>) -> Option<Vec<u8>> {
    let answered = match packet.first()? >> 4 {
        4 => icmp::echo_reply(&mut packet),
        6 => icmpv6::echo_reply(&mut packet),
        _ => false,
    };
    answered.then_some(packet)
}

/// Whether the packet is for a port of the router's, of which none is open: UDP, as traceroute sends. One
/// with a wrong checksum is for nobody (RFC 1122 section 4.1.3.4, RFC 8200 section 8.1).
pub(super) fn expects_port_unreachable(packet: &[u8]) -> bool {
    let Ok(sliced) = SlicedPacket::from_ip(packet) else {
        return false;
    };
    let Some(TransportSlice::Udp(datagram)) = sliced.transport else {
        return false;
    };
    match sliced.net {
        Some(NetSlice::Ipv4(ip)) if !ip.is_payload_fragmented() => {
            let ip = ip.header();
            udp::verify_ipv4(ip.source_addr(), ip.destination_addr(), datagram.slice())
        }
        Some(NetSlice::Ipv6(ip)) if !ip.is_payload_fragmented() => {
            let ip = ip.header();
            udp::verify_ipv6(ip.source_addr(), ip.destination_addr(), datagram.slice())
        }
        _ => false,
    }
}

pub(super) fn workload(snapshot: &Snapshot, ingress: Option<PortId>) -> Option<&PortConfig> {
    let port = snapshot.ports.get(usize::from(ingress?.0))?;
    let ethernet = matches!(port.link, Link::Ethernet(_));
    (port.role == PortRole::Workload && ethernet).then_some(port)
}

pub(super) fn write_ethernet(destination: MacAddr, ethertype: EtherType, out: &mut [u8]) -> usize {
    let source = MacAddr::WORKLOAD_GATEWAY;
    Ethernet {
        destination,
        source,
        ethertype,
        vlan: None,
    }
    .write(out)
}
