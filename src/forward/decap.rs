//! Stage 2: tunnel packets from known nodes are opened.
//!
//! Decapsulation of every mode is always on, whatever mode packets are sent in: that is what lets a
//! mode be switched under traffic.

use std::net::IpAddr;

use super::parse::{self, Ip};
use super::{PortConfig, Punt, Snapshot, Verdict, bridge, ecn, reverse_path, tunnel_error};
use crate::packet::{DropReason, Frame};
use crate::wire::ethernet::{EtherType, Ethernet};
use crate::wire::ipv4::{self, Ipv4, protocol};
use crate::wire::ipv6::Ipv6;
use crate::wire::udp::{self, Udp};
use crate::wire::vxlan::{self, Vxlan, VxlanError};
use crate::wire::{MacAddr, ipv6};

/// Opens the packet if it is a tunnel packet to this node, else lets it go on as it is. The frame
/// then holds the inner packet. A tunnel within a tunnel is payload.
#[inline]
pub(super) fn open(
    snapshot: &Snapshot,
    port: &PortConfig,
    ip: Ip,
    frame: &mut Frame,
) -> Result<Ip, Verdict> {
    let opened = match ip {
        Ip::V4(outer) => open_ipv4(snapshot, port, &outer, frame)?,
        Ip::V6(outer) => open_ipv6(snapshot, port, &outer, frame)?,
    };
    let Some(outer) = opened else {
        refuse_impossible(snapshot, &ip)?;
        return Ok(ip);
    };
    let ip = inner(snapshot, &outer, frame)?;
    if port.partial_checksums {
        parse::complete_checksum(&ip, frame);
    }
    Ok(ip)
}

/// What an outer header has said, once it is off.
struct Outer {
    source: IpAddr,
    tos: u8,
    /// What the inner Ethernet frame carries; none in IP-in-IP.
    ethertype: Option<EtherType>,
}

/// Takes an outer IPv4 header and what belongs to it off, if this is a tunnel packet to this node.
#[inline]
fn open_ipv4(
    snapshot: &Snapshot,
    port: &PortConfig,
    outer: &Ipv4,
    frame: &mut Frame,
) -> Result<Option<Outer>, Verdict> {
    let tunnels = &snapshot.tunnels;
    if tunnels.node_address != Some(outer.destination) {
        return Ok(None);
    }
    let ethertype = match outer.protocol {
        protocol::IPIP => {
            if !tunnels.peers.contains(outer.source) {
                return Err(DropReason::UnknownPeer.into());
            }
            whole(outer)?;
            frame.strip(outer.header_len);
            None
        }
        protocol::UDP => {
            let peer = check_sender(snapshot, outer.source.into())?;
            whole(outer)?;
            let right = |udp: &Udp, datagram: &[u8]| {
                udp.checksum == 0 || udp::verify_ipv4(outer.source, outer.destination, datagram)
            };
            let datagram = Datagram {
                port,
                source: outer.source.into(),
                peer,
                tos: outer.tos,
                outer_len: outer.header_len,
                vtep_mac: tunnels.vtep_mac,
            };
            Some(strip_vxlan(snapshot, &datagram, right, frame)?)
        }
        protocol::ICMP if tunnel_error::quotes_tunnel(snapshot, outer, frame.bytes()) => {
            return Err(Verdict::Punt(Punt::TunnelError));
        }
        _ => return Ok(None),
    };
    Ok(Some(Outer {
        source: outer.source.into(),
        tos: outer.tos,
        ethertype,
    }))
}

/// The same for IPv6, over which there is VXLAN alone; with extension headers but for a fragment's it is
/// not one of ours.
#[inline]
fn open_ipv6(
    snapshot: &Snapshot,
    port: &PortConfig,
    outer: &Ipv6,
    frame: &mut Frame,
) -> Result<Option<Outer>, Verdict> {
    let Some(tunnels) = snapshot.tunnels.v6 else {
        return Ok(None);
    };
    if tunnels.node_address != outer.destination {
        return Ok(None);
    }
    match outer.next_header {
        protocol::UDP | protocol::FRAGMENT => {}
        protocol::ICMPV6 if tunnel_error::quotes_tunnel_v6(snapshot, outer, frame.bytes()) => {
            return Err(Verdict::Punt(Punt::TunnelError));
        }
        _ => return Ok(None),
    }
    let peer = check_sender(snapshot, outer.source.into())?;
    if outer.next_header == protocol::FRAGMENT {
        return Err(Verdict::Punt(Punt::OuterFragment));
    }
    let right = |udp: &Udp, datagram: &[u8]| {
        (udp.checksum == 0 && tunnels.zero_checksum)
            || udp::verify_ipv6(outer.source, outer.destination, datagram)
    };
    let datagram = Datagram {
        port,
        source: outer.source.into(),
        peer,
        tos: outer.traffic_class,
        outer_len: ipv6::HEADER_LEN,
        vtep_mac: tunnels.vtep_mac,
    };
    let ethertype = strip_vxlan(snapshot, &datagram, right, frame)?;
    Ok(Some(Outer {
        source: outer.source.into(),
        tos: outer.traffic_class,
        ethertype: Some(ethertype),
    }))
}

/// Only known nodes may send what is routed, and only a bridge's remotes what is bridged; whether it
/// is a known node.
#[inline]
fn check_sender(snapshot: &Snapshot, source: IpAddr) -> Result<bool, DropReason> {
    let peer = snapshot.tunnels.peers.contains(source);
    if peer || snapshot.bridges.take_from(source) {
        Ok(peer)
    } else {
        Err(DropReason::UnknownPeer)
    }
}

/// Fragments are put together first.
#[inline]
fn whole(outer: &Ipv4) -> Result<(), Verdict> {
    if outer.is_fragment() {
        return Err(Verdict::Punt(Punt::OuterFragment));
    }
    Ok(())
}

/// What is known of a UDP datagram before its own header is read.
struct Datagram<'a> {
    port: &'a PortConfig,
    source: IpAddr,
    /// Whether the sender is a known node.
    peer: bool,
    tos: u8,
    /// Bytes of the outer IP header.
    outer_len: usize,
    vtep_mac: MacAddr,
}

/// Takes the outer IP, UDP, VXLAN and inner Ethernet headers off; says what the inner frame carries.
/// `checksum_right` judges the whole datagram. What belongs to a bridge ends here.
#[inline]
fn strip_vxlan(
    snapshot: &Snapshot,
    outer: &Datagram<'_>,
    checksum_right: impl Fn(&Udp, &[u8]) -> bool,
    frame: &mut Frame,
) -> Result<EtherType, Verdict> {
    let tunnels = &snapshot.tunnels;
    let outer_len = outer.outer_len;
    let datagram = &frame.bytes()[outer_len..];
    let udp = Udp::parse(datagram).map_err(|_| DropReason::UdpLength)?;
    let datagram = &datagram[..udp.length];
    let port = udp.destination_port;
    if !snapshot.is_vxlan_port(port) {
        return Err(DropReason::NotForUs.into());
    }
    if !checksum_right(&udp, datagram) {
        return Err(DropReason::UdpChecksum.into());
    }
    let payload = &datagram[udp::HEADER_LEN..];
    let header = Vxlan::parse(payload).map_err(|error| match error {
        VxlanError::Truncated => DropReason::VxlanTruncated,
        VxlanError::NoVni => DropReason::VxlanNoVni,
    })?;
    if tunnels.strict_reserved_bits && header.reserved_bits_set {
        return Err(DropReason::VxlanReservedBits.into());
    }
    if !tunnels.is_routed(port, header.vni) {
        let network = snapshot.bridges.network(port, header.vni);
        let bridge = network.ok_or(DropReason::VxlanUnknownVni)?;
        frame.trim(outer_len + udp.length);
        frame.strip(outer_len + udp::HEADER_LEN + vxlan::HEADER_LEN);
        let sender = (outer.source, outer.tos);
        let verdict = bridge::from_tunnel(snapshot, outer.port, bridge, sender, frame);
        return Err(verdict);
    }
    if !outer.peer {
        return Err(DropReason::UnknownPeer.into());
    }
    let inner = &payload[vxlan::HEADER_LEN..];
    let ethernet = Ethernet::parse(inner).map_err(|_| DropReason::VxlanTruncated)?;
    if ethernet.destination != outer.vtep_mac {
        return Err(DropReason::VxlanInnerNotForUs.into());
    }
    // RFC 7348 section 6.1: not even a priority tag.
    if ethernet.vlan.is_some() {
        return Err(DropReason::VlanTag.into());
    }
    frame.trim(outer_len + udp.length);
    frame.strip(outer_len + udp::HEADER_LEN + vxlan::HEADER_LEN + ethernet.header_len());
    Ok(ethernet.ethertype)
}

/// Checks the inner packet that the frame now holds, and lets the outer congestion mark in.
#[inline]
fn inner(snapshot: &Snapshot, outer: &Outer, frame: &mut Frame) -> Result<Ip, Verdict> {
    let ip = match (outer.ethertype, frame.bytes().first().map(|byte| byte >> 4)) {
        (None | Some(EtherType::IPV4), Some(4)) | (Some(EtherType::IPV6), Some(6)) => {
            parse::ip(frame)?
        }
        _ => return Err(DropReason::InnerProtocol.into()),
    };
    refuse_spoofed(snapshot, &ip)?;
    reverse_path::check(snapshot, outer.source, ip.source())?;
    let ip = mark(outer.tos, ip, frame)?;
    Ok(ip)
}

/// What comes from the underlay outside of a tunnel cannot have one of our own addresses either, the
/// workloads' among them (Linux calls its own martian, and leaves theirs to `rp_filter`), nor an IPv6 one that
/// is of a link alone.
#[inline]
fn refuse_impossible(snapshot: &Snapshot, ip: &Ip) -> Result<(), DropReason> {
    if snapshot.tunnels.local_addresses.contains(&ip.source()) {
        return Err(DropReason::MartianSource);
    }
    match ip {
        Ip::V4(_) => Ok(()),
        Ip::V6(ip) => parse::refuse_link_local(ip),
    }
}

/// What comes from another node cannot have one of our own addresses, nor one that nobody has.
#[inline]
fn refuse_spoofed(snapshot: &Snapshot, ip: &Ip) -> Result<(), DropReason> {
    let source = ip.source();
    if parse::martian_source(source) || snapshot.tunnels.local_addresses.contains(&source) {
        return Err(DropReason::SpoofedInner);
    }
    // No link reaches through a tunnel between routers.
    if let Ip::V6(ip) = ip {
        parse::refuse_link_local(ip).map_err(|_| DropReason::SpoofedInner)?;
    }
    parse::refuse_destination(ip.destination())
}

/// Sets the inner packet's congestion mark as RFC 6040 says.
#[inline]
fn mark(outer_tos: u8, mut ip: Ip, frame: &mut Frame) -> Result<Ip, DropReason> {
    match &mut ip {
        Ip::V4(inner) => {
            let tos = ecn::decapsulate(outer_tos, inner.tos)?;
            if tos != inner.tos {
                inner.tos = tos;
                ipv4::set_tos(frame.bytes_mut(), tos);
            }
        }
        Ip::V6(inner) => {
            let class = ecn::decapsulate(outer_tos, inner.traffic_class)?;
            if class != inner.traffic_class {
                inner.traffic_class = class;
                ipv6::set_traffic_class(frame.bytes_mut(), class);
            }
        }
    }
    Ok(ip)
}
