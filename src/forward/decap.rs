//! Stage 2: tunnel packets from known nodes are opened.
//!
//! Decapsulation of every mode is always on, whatever mode packets are sent in: that is what lets a
//! mode be switched under traffic.

use std::net::IpAddr;

use super::parse::{self, Ip};
use super::{PortConfig, Punt, Snapshot, Verdict, ecn, reverse_path, tunnel_error};
use crate::packet::{DropReason, Frame};
use crate::wire::ethernet::{EtherType, Ethernet};
use crate::wire::ipv4::{self, Ipv4, protocol};
use crate::wire::ipv6::Ipv6;
use crate::wire::udp::{self, Udp};
use crate::wire::vxlan::{self, Vxlan, VxlanError};
use crate::wire::{MacAddr, ipv6, partial};

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
        Ip::V4(outer) => open_ipv4(snapshot, &outer, frame)?,
        Ip::V6(outer) => open_ipv6(snapshot, &outer, frame)?,
    };
    let Some(outer) = opened else {
        return Ok(ip);
    };
    let ip = inner(snapshot, &outer, frame)?;
    if port.partial_checksums {
        partial::complete_checksum(frame.bytes_mut());
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
    outer: &Ipv4,
    frame: &mut Frame,
) -> Result<Option<Outer>, Verdict> {
    let tunnels = &snapshot.tunnels;
    if tunnels.node_address != Some(outer.destination) {
        return Ok(None);
    }
    let ethertype = match outer.protocol {
        protocol::IPIP => {
            check_outer(snapshot, outer)?;
            frame.strip(outer.header_len);
            None
        }
        protocol::UDP => {
            check_outer(snapshot, outer)?;
            let right = |udp: &Udp, datagram: &[u8]| {
                udp.checksum == 0 || udp::verify_ipv4(outer.source, outer.destination, datagram)
            };
            Some(strip_vxlan(
                snapshot,
                outer.header_len,
                tunnels.vtep_mac,
                right,
                frame,
            )?)
        }
        protocol::ICMP if tunnel_error::quotes_tunnel(tunnels, outer, frame.bytes()) => {
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
        protocol::ICMPV6
            if tunnel_error::quotes_tunnel_v6(&snapshot.tunnels, outer, frame.bytes()) =>
        {
            return Err(Verdict::Punt(Punt::TunnelError));
        }
        _ => return Ok(None),
    }
    if !snapshot.tunnels.peers.contains(outer.source) {
        return Err(DropReason::UnknownPeer.into());
    }
    if outer.next_header == protocol::FRAGMENT {
        return Err(Verdict::Punt(Punt::OuterFragment));
    }
    let right = |udp: &Udp, datagram: &[u8]| {
        (udp.checksum == 0 && tunnels.zero_checksum)
            || udp::verify_ipv6(outer.source, outer.destination, datagram)
    };
    let ethertype = strip_vxlan(snapshot, ipv6::HEADER_LEN, tunnels.vtep_mac, right, frame)?;
    Ok(Some(Outer {
        source: outer.source.into(),
        tos: outer.traffic_class,
        ethertype: Some(ethertype),
    }))
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

/// Takes the outer IP header of `outer_len` bytes, UDP, VXLAN and inner Ethernet headers off; says
/// what the inner frame carries. `checksum_right` judges the whole datagram.
#[inline]
fn strip_vxlan(
    snapshot: &Snapshot,
    outer_len: usize,
    vtep_mac: MacAddr,
    checksum_right: impl Fn(&Udp, &[u8]) -> bool,
    frame: &mut Frame,
) -> Result<EtherType, DropReason> {
    let tunnels = &snapshot.tunnels;
    let datagram = &frame.bytes()[outer_len..];
    let udp = Udp::parse(datagram).map_err(|_| DropReason::UdpLength)?;
    let datagram = &datagram[..udp.length];
    if udp.destination_port != tunnels.vxlan_port {
        return Err(DropReason::NotForUs);
    }
    if !checksum_right(&udp, datagram) {
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
    if ethernet.destination != vtep_mac {
        return Err(DropReason::VxlanInnerNotForUs);
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
