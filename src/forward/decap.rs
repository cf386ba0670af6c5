//! Stage 2: tunnel packets from known nodes are opened.
//!
//! Decapsulation of every mode is always on, whatever mode packets are sent in: that is what lets a
//! mode be switched under traffic.

use super::parse::{self, Ip};
use super::tunnel_error;
use super::{PortConfig, Punt, Snapshot, Verdict, ecn};
use crate::packet::{DropReason, Frame};
use crate::wire::ethernet::{EtherType, Ethernet};
use crate::wire::ipv4::{self, Ipv4, protocol};
use crate::wire::udp::{self, Udp};
use crate::wire::vxlan::{self, Vxlan, VxlanError};
use crate::wire::{ipv6, partial};

/// Opens the packet if it is a tunnel packet to this node, else lets it go on as it is. The frame
/// then holds the inner packet. A tunnel within a tunnel is payload.
#[inline]
pub(super) fn open(
    snapshot: &Snapshot,
    port: &PortConfig,
    ip: Ip,
    frame: &mut Frame,
) -> Result<Ip, Verdict> {
    let Ip::V4(outer) = ip else {
        return Ok(ip);
    };
    if snapshot.tunnels.node_address != Some(outer.destination) {
        return Ok(ip);
    }
    let ethertype = match outer.protocol {
        protocol::IPIP => {
            check_outer(snapshot, &outer)?;
            frame.strip(outer.header_len);
            None
        }
        protocol::UDP => {
            check_outer(snapshot, &outer)?;
            Some(strip_vxlan(snapshot, &outer, frame)?)
        }
        protocol::ICMP if tunnel_error::quotes_tunnel(&snapshot.tunnels, &outer, frame.bytes()) => {
            return Err(Verdict::Punt(Punt::TunnelError));
        }
        _ => return Ok(ip),
    };
    let ip = inner(snapshot, &outer, ethertype, frame)?;
    if port.partial_checksums {
        partial::complete_checksum(frame.bytes_mut());
    }
    Ok(ip)
}

/// Only known nodes may send tunnel packets; fragments are put together first.
#[inline]
fn check_outer(snapshot: &Snapshot, outer: &Ipv4) -> Result<(), Verdict> {
    if !snapshot.tunnels.peers.contains(outer.source) {
        return Err(DropReason::UnknownPeer.into());
    }
    if outer.is_fragment() {
        return Err(Verdict::Punt(Punt::OuterFragment));
    }
    Ok(())
}

/// Takes the outer IPv4, UDP, VXLAN and inner Ethernet headers off; says what the inner frame
/// carries.
#[inline]
fn strip_vxlan(
    snapshot: &Snapshot,
    outer: &Ipv4,
    frame: &mut Frame,
) -> Result<EtherType, DropReason> {
    let tunnels = &snapshot.tunnels;
    let datagram = &frame.bytes()[outer.header_len..];
    let udp = Udp::parse(datagram).map_err(|_| DropReason::UdpLength)?;
    let datagram = &datagram[..udp.length];
    if udp.destination_port != tunnels.vxlan_port {
        return Err(DropReason::NotForUs);
    }
    if udp.checksum != 0 && !udp::verify_ipv4(outer.source, outer.destination, datagram) {
        return Err(DropReason::UdpChecksum);
    }
    let payload = &datagram[udp::HEADER_LEN..];
    let header = Vxlan::parse(payload).map_err(|error| match error {
        VxlanError::Truncated => DropReason::VxlanTruncated,
        VxlanError::NoVni => DropReason::VxlanNoVni,
    })?;
    if tunnels.strict_reserved_bits && header.reserved_bits_set {
        return Err(DropReason::VxlanReservedBits);
    }
    if header.vni != tunnels.vni {
        return Err(DropReason::VxlanUnknownVni);
    }
    let inner = &payload[vxlan::HEADER_LEN..];
    let ethernet = Ethernet::parse(inner).map_err(|_| DropReason::VxlanTruncated)?;
    if ethernet.destination != tunnels.vtep_mac {
        return Err(DropReason::VxlanInnerNotForUs);
    }
    let length = outer.header_len + udp.length;
    frame.trim(length);
    frame.strip(outer.header_len + udp::HEADER_LEN + vxlan::HEADER_LEN + ethernet.header_len());
    Ok(ethernet.ethertype)
}

/// Checks the inner packet that the frame now holds, and lets the outer congestion mark in.
#[inline]
fn inner(
    snapshot: &Snapshot,
    outer: &Ipv4,
    ethertype: Option<EtherType>,
    frame: &mut Frame,
) -> Result<Ip, Verdict> {
    let ip = match (ethertype, frame.bytes().first().map(|byte| byte >> 4)) {
        (None | Some(EtherType::IPV4), Some(4)) | (Some(EtherType::IPV6), Some(6)) => {
            parse::ip(frame)?
        }
        _ => return Err(DropReason::InnerProtocol.into()),
    };
    refuse_spoofed(snapshot, &ip)?;
    let ip = mark(outer.tos, ip, frame)?;
    Ok(ip)
}

/// What comes from another node cannot have one of our own addresses, nor one that nobody has.
#[inline]
fn refuse_spoofed(snapshot: &Snapshot, ip: &Ip) -> Result<(), DropReason> {
    let source = ip.source();
    if parse::martian_source(source) || snapshot.tunnels.local_addresses.contains(&source) {
        return Err(DropReason::SpoofedInner);
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
