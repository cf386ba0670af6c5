//! Stage 1: the link header comes off, the IP header is checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{PortConfig, PortRole, Punt, RouterAddresses, Verdict};
use crate::packet::Link;
use crate::packet::{DropReason, Frame};
use crate::wire::ethernet::{EtherType, Ethernet};
use crate::wire::icmpv6::types;
use crate::wire::ipv4::{self, Ipv4, Ipv4Error};
use crate::wire::ipv6::{Ipv6, Ipv6Error};
use crate::wire::{MacAddr, dhcp, ipv6, partial};

/// A packet's own header, once it was found to be sound.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ip {
    V4(Ipv4),
    V6(Ipv6),
}

impl Ip {
    pub(super) fn source(&self) -> IpAddr {
        match self {
            Self::V4(ip) => ip.source.into(),
            Self::V6(ip) => ip.source.into(),
        }
    }

    pub(super) fn destination(&self) -> IpAddr {
        match self {
            Self::V4(ip) => ip.destination.into(),
            Self::V6(ip) => ip.destination.into(),
        }
    }
}

/// What the stages behind the look-up need to know of a packet's own header. Small, as a batch of
/// them waits for its look-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traits {
    pub(super) is_v6: bool,
    /// TOS or traffic class.
    pub(super) tos: u8,
    /// TTL or hop limit, as it came.
    pub(super) ttl: u8,
    /// IPv6 routers never fragment (RFC 8200 section 5).
    pub(super) dont_fragment: bool,
}

impl Traits {
    /// Those of an IPv4 packet; none if it is shorter than a header.
    #[inline(always)]
    pub(super) fn of_ipv4(packet: &[u8]) -> Option<Self> {
        let header: &[u8; ipv4::HEADER_LEN] = packet.first_chunk()?;
        Some(Self {
            is_v6: false,
            tos: header[1],
            ttl: header[8],
            dont_fragment: header[6] & 0x40 != 0,
        })
    }
}

impl From<&Ip> for Traits {
    #[inline]
    fn from(ip: &Ip) -> Self {
        match ip {
            Ip::V4(ip) => Self {
                is_v6: false,
                tos: ip.tos,
                ttl: ip.ttl,
                dont_fragment: ip.dont_fragment,
            },
            Ip::V6(ip) => Self {
                is_v6: true,
                tos: ip.traffic_class,
                ttl: ip.hop_limit,
                dont_fragment: true,
            },
        }
    }
}

/// Takes the link header off a received frame and checks its IP header; the frame then holds the IP
/// packet alone. What came from a workload is checked for its source; a checksum that the sender's
/// kernel left to hardware is completed.
#[inline]
pub(super) fn receive(port: &PortConfig, frame: &mut Frame) -> Result<Ip, Verdict> {
    let link = match port.link {
        Link::Ethernet(own) => Some(ethernet(port.role, own, frame)?),
        Link::Ip => None,
    };
    let ip = ip(frame)?;
    if link.is_some_and(|link| link.ethertype != ethertype_of(&ip)) {
        return Err(DropReason::IpVersion.into());
    }
    if port.role == PortRole::Workload {
        from_workload(port, &ip, frame)?;
    }
    if port.partial_checksums {
        complete_checksum(&ip, frame);
    }
    if martian_source(ip.source()) {
        return Err(DropReason::MartianSource.into());
    }
    if let Err(reason) = refuse_destination(ip.destination()) {
        return Err(asks_for_address(port, &ip, frame).unwrap_or(reason.into()));
    }
    // A router must not forward to one station what the link brought to all, nor answer it
    // (RFC 1812 sections 5.3.4 and 4.3.2.7).
    if link.is_some_and(|link| link.destination.is_multicast()) {
        return Err(DropReason::Multicast.into());
    }
    Ok(ip)
}

/// Checks the IP header at the frame's front and trims link padding behind the packet.
#[inline]
pub(super) fn ip(frame: &mut Frame) -> Result<Ip, Verdict> {
    match frame.bytes().first().map(|byte| byte >> 4) {
        Some(4) => {
            let ip = Ipv4::parse(frame.bytes()).map_err(|error| match error {
                Ipv4Error::Truncated => DropReason::Ipv4Truncated,
                Ipv4Error::Version => DropReason::IpVersion,
                Ipv4Error::HeaderLength => DropReason::Ipv4HeaderLength,
                Ipv4Error::TotalLength => DropReason::Ipv4TotalLength,
                Ipv4Error::Checksum => DropReason::Ipv4Checksum,
            })?;
            frame.trim(ip.total_len);
            Ok(Ip::V4(ip))
        }
        Some(6) => {
            let ip = Ipv6::parse(frame.bytes()).map_err(|error| match error {
                Ipv6Error::Truncated => DropReason::Ipv6Truncated,
                Ipv6Error::Version => DropReason::IpVersion,
                Ipv6Error::PayloadLength => DropReason::Ipv6PayloadLength,
            })?;
            frame.trim(ipv6::HEADER_LEN + ip.payload_len);
            Ok(Ip::V6(ip))
        }
        Some(_) => Err(DropReason::IpVersion.into()),
        None => Err(DropReason::Ipv4Truncated.into()),
    }
}

/// Takes the Ethernet header off, if the frame is for us and carries IP.
#[inline]
fn ethernet(role: PortRole, own: MacAddr, frame: &mut Frame) -> Result<Ethernet, Verdict> {
    let header = Ethernet::parse(frame.bytes()).map_err(|_| DropReason::EthernetTruncated)?;
    if header.vlan.is_some_and(|tag| tag.id != 0) {
        return Err(DropReason::VlanTag.into());
    }
    match header.ethertype {
        EtherType::ARP if role == PortRole::Workload => return Err(Verdict::Punt(Punt::Arp)),
        EtherType::IPV4 | EtherType::IPV6 => {}
        _ => return Err(DropReason::UnknownEthertype.into()),
    }
    let to_us = header.destination == own
        || (role == PortRole::Workload && header.destination == MacAddr::WORKLOAD_GATEWAY);
    // Multicast goes on to the IP header: neighbour discovery is among it.
    if !to_us && !header.destination.is_multicast() {
        return Err(DropReason::NotForUs.into());
    }
    frame.strip(header.header_len());
    Ok(header)
}

/// Completes a checksum that the sender's kernel left to hardware.
#[inline]
pub(super) fn complete_checksum(ip: &Ip, frame: &mut Frame) {
    match ip {
        Ip::V4(ip) => partial::complete_ipv4(ip, frame.bytes_mut()),
        Ip::V6(_) => partial::complete_checksum(frame.bytes_mut()),
    };
}

fn ethertype_of(ip: &Ip) -> EtherType {
    match ip {
        Ip::V4(_) => EtherType::IPV4,
        Ip::V6(_) => EtherType::IPV6,
    }
}

#[inline]
fn from_workload(port: &PortConfig, ip: &Ip, frame: &mut Frame) -> Result<(), Verdict> {
    if let Ip::V6(header) = ip
        && is_solicitation(header, frame)
    {
        return Err(Verdict::Punt(Punt::NeighbourDiscovery));
    }
    if !port.sources.allow(ip.source()) {
        return Err(asks_for_address(port, ip, frame).unwrap_or(DropReason::SpoofedSource.into()));
    }
    Ok(())
}

/// A DHCP client has no address yet, or writes to all servers on the link.
#[cold]
fn asks_for_address(port: &PortConfig, ip: &Ip, frame: &Frame) -> Option<Verdict> {
    let Ip::V4(ip) = ip else {
        return None;
    };
    let may_ask = port.role == PortRole::Workload
        && matches!(port.link, Link::Ethernet(_))
        && (ip.source.is_unspecified() || ip.destination.is_broadcast());
    (may_ask && dhcp::is_for_server(ip, frame.bytes())).then_some(Verdict::Punt(Punt::Dhcp))
}

/// A router or neighbour message without extension headers (RFC 6980 forbids fragments of them).
fn is_solicitation(ip: &Ipv6, frame: &Frame) -> bool {
    let kind = frame.bytes().get(ipv6::HEADER_LEN).copied();
    ip.next_header == ipv4::protocol::ICMPV6
        && kind.is_some_and(|kind| {
            (types::ROUTER_SOLICITATION..=types::NEIGHBOUR_ADVERTISEMENT).contains(&kind)
        })
}

/// Whether no packet may come from this address (RFC 1812 section 5.3.7, RFC 4291): "this network",
/// loopback, multicast, class E, unspecified.
#[inline]
pub(super) fn martian_source(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(source) => never_forwarded_v4(source),
        IpAddr::V6(source) => source.is_multicast() || never_forwarded_v6(source),
    }
}

/// Addresses of no packet between nodes: loopback, none, and IPv4 in IPv6's clothes (RFC 6890 table 20).
#[inline]
fn never_forwarded_v6(address: Ipv6Addr) -> bool {
    address.is_loopback() || address.is_unspecified() || address.to_ipv4_mapped().is_some()
}

/// Refuses destinations that are never forwarded; multicast has a reason of its own.
#[inline]
pub(super) fn refuse_destination(destination: IpAddr) -> Result<(), DropReason> {
    let (group, never) = match destination {
        IpAddr::V4(v4) => (
            v4.is_multicast() || v4.is_broadcast(),
            never_forwarded_v4(v4),
        ),
        IpAddr::V6(v6) => (v6.is_multicast(), never_forwarded_v6(v6)),
    };
    match (group, never) {
        (true, _) => Err(DropReason::Multicast),
        (false, true) => Err(DropReason::MartianDestination),
        (false, false) => Ok(()),
    }
}

/// Refuses what must stay on a workload's link (RFC 4291 section 2.5.6), where only the gateway is.
#[inline]
pub(super) fn refuse_off_link(ip: &Ip) -> Result<(), DropReason> {
    match ip {
        Ip::V6(ip) if ip.destination != RouterAddresses::GATEWAY_V6 => refuse_link_local(ip),
        _ => Ok(()),
    }
}

/// Refuses what must stay on its link.
#[inline]
pub(super) fn refuse_link_local(ip: &Ipv6) -> Result<(), DropReason> {
    if ip.source.is_unicast_link_local() {
        return Err(DropReason::MartianSource);
    }
    if ip.destination.is_unicast_link_local() {
        return Err(DropReason::MartianDestination);
    }
    Ok(())
}

/// Whether an address is neither a sender's nor a receiver's: "this network", loopback, multicast, class E.
#[inline]
pub(super) fn never_forwarded_v4(address: Ipv4Addr) -> bool {
    const NEVER: [bool; 256] = never_first();
    NEVER[usize::from(address.octets()[0])]
}

const fn never_first() -> [bool; 256] {
    let mut never = [false; 256];
    never[0] = true;
    never[127] = true;
    let mut first = 224;
    while first < never.len() {
        never[first] = true;
        first += 1;
    }
    never
}
