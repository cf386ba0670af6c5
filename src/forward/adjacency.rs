//! How to reach a next hop: the port, and the header to write in front, computed once.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::Several;
use crate::packet::{Frame, PortId};
use crate::wire::ethernet::{self, EtherType, Ethernet};
use crate::wire::ipv4::{self, Ipv4, protocol};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::udp::{self, Udp};
use crate::wire::vxlan::{self, Vxlan};
use crate::wire::{MacAddr, Mtu, Vni, checksum};

/// The longest header: Ethernet, IPv6, UDP, VXLAN, inner Ethernet, rounded up.
const MAX_HEADER: usize = 96;
/// What every header over IPv4 fits into: copied whole, it takes a few moves instead of a call.
const SHORT_HEADER: usize = 64;

/// What a next hop means.
#[derive(Debug, Clone)]
pub enum Adjacency {
    /// Send, with this header before the packet.
    Forward(Egress),
    /// Send, one of several ways.
    Several(Arc<Several>),
    /// It would be sent, but the next hop's Ethernet address is not known yet.
    Unresolved,
    /// The router itself: the slow path answers.
    Router,
    /// In one of our own blocks, without a workload that has it.
    Blackhole,
    /// Known to lead nowhere.
    Unreachable,
}

impl Adjacency {
    /// A way that packets go, the first of several; none where they are not sent.
    pub fn egress(&self) -> Option<&Egress> {
        match self {
            Self::Forward(egress) => Some(egress),
            Self::Several(several) => several.ways().first(),
            Self::Unresolved | Self::Router | Self::Blackhole | Self::Unreachable => None,
        }
    }
}

/// A way out: the port and the header that goes before a packet.
#[derive(Debug, Clone)]
pub struct Egress {
    /// The port to send by.
    pub port: PortId,
    /// The largest packet, without the header, that may be sent this way.
    pub mtu: Mtu,
    /// Whether the host's own kernel is behind the port: it counts hops itself.
    pub to_host: bool,
    /// What the header does.
    pub encapsulation: Encapsulation,
    /// The outer TTL.
    pub ttl: OuterTtl,
    /// The outer DSCP.
    pub dscp: Dscp,
    /// The header, at the end.
    header: [u8; MAX_HEADER],
    header_len: u8,
    outer_ip: u8,
    udp_checksum: bool,
    checksum_base: u32,
}

/// What is put around a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulation {
    /// Nothing but the link's own header.
    None,
    /// An IPv4 header, protocol 4 (RFC 2003).
    Ipip,
    /// IPv4, UDP, VXLAN and an inner Ethernet header (RFC 7348).
    Vxlan,
    /// The same over IPv6.
    VxlanOverIpv6,
}

impl Encapsulation {
    /// What may be around packets to an address of a pool that has IP-in-IP, or VXLAN.
    pub const fn of_pool((ipip, vxlan): (bool, bool), ipv4: bool) -> Self {
        match (ipip, vxlan, ipv4) {
            (true, _, _) => Self::Ipip,
            (_, true, true) => Self::Vxlan,
            (_, true, false) => Self::VxlanOverIpv6,
            (false, false, _) => Self::None,
        }
    }

    /// The bytes that it adds to an IP packet, the link's header not counted.
    pub const fn overhead(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Ipip => ipv4::HEADER_LEN as u16,
            Self::Vxlan => (ipv4::HEADER_LEN + VXLAN_LEN) as u16,
            Self::VxlanOverIpv6 => (ipv6::HEADER_LEN + VXLAN_LEN) as u16,
        }
    }
}

/// The largest packets that tunnels take, where that is configured rather than derived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TunnelMtus {
    /// IP-in-IP.
    pub ipip: Option<Mtu>,
    /// VXLAN over IPv4.
    pub vxlan: Option<Mtu>,
    /// VXLAN over IPv6.
    pub vxlan_v6: Option<Mtu>,
}

impl TunnelMtus {
    /// What is left of the MTU that the path to a far end has for an encapsulation.
    pub fn within(self, encapsulation: Encapsulation, path: Mtu) -> Mtu {
        let configured = match encapsulation {
            Encapsulation::None => None,
            Encapsulation::Ipip => self.ipip,
            Encapsulation::Vxlan => self.vxlan,
            Encapsulation::VxlanOverIpv6 => self.vxlan_v6,
        };
        let left = path.less(encapsulation.overhead());
        configured.map_or(left, |most| most.min(left))
    }
}

/// What VXLAN has between the outer IP header and the inner packet.
const VXLAN_LEN: usize = udp::HEADER_LEN + vxlan::HEADER_LEN + ethernet::HEADER_LEN;

/// How the outer TTL is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OuterTtl {
    /// Always this one.
    Fixed(u8),
    /// The inner packet's, after it was decremented.
    Inherit,
}

/// How the outer DSCP is chosen; ECN always follows RFC 6040.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dscp {
    /// Always this one (0 to 63).
    Fixed(u8),
    /// The inner packet's.
    Inherit,
}

/// Where a tunnel begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelHeader {
    /// This node's underlay address.
    pub source: Ipv4Addr,
    /// The far node's.
    pub far_end: Ipv4Addr,
    /// For VXLAN: the network, the UDP port and the two VTEPs' Ethernet addresses (ours, theirs).
    pub vxlan: Option<(Vni, u16, MacAddr, MacAddr)>,
}

/// Where a VXLAN tunnel over IPv6 begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelHeaderV6 {
    /// This node's underlay address.
    pub source: Ipv6Addr,
    /// The far node's.
    pub far_end: Ipv6Addr,
    /// The network, the UDP port and the two VTEPs' Ethernet addresses (ours, theirs).
    pub vxlan: (Vni, u16, MacAddr, MacAddr),
    /// Whether the UDP checksum is left zero (RFC 6935).
    pub zero_checksum: bool,
}

impl Egress {
    /// A port whose packets have no link header: a TUN device.
    pub fn bare(port: PortId, mtu: Mtu) -> Self {
        Self::with_header(port, mtu, Encapsulation::None, &[], 0)
    }

    /// Plain Ethernet, from `source` to `destination`.
    pub fn ethernet(port: PortId, mtu: Mtu, source: MacAddr, destination: MacAddr) -> Self {
        let mut header = [0; ethernet::HEADER_LEN];
        write_ethernet(source, destination, EtherType::IPV4, &mut header);
        Self::with_header(port, mtu, Encapsulation::None, &header, 0)
    }

    /// A tunnel through an Ethernet uplink whose next hop on the link is `destination`; `mtu` is the
    /// largest inner packet.
    pub fn tunnel(
        port: PortId,
        mtu: Mtu,
        source: MacAddr,
        destination: MacAddr,
        tunnel: &TunnelHeader,
    ) -> Self {
        let mut header = [0; MAX_HEADER];
        let ip_at = ethernet::HEADER_LEN;
        write_ethernet(source, destination, EtherType::IPV4, &mut header);
        let protocol = if tunnel.vxlan.is_some() {
            protocol::UDP
        } else {
            protocol::IPIP
        };
        Ipv4 {
            header_len: ipv4::HEADER_LEN,
            tos: 0,
            total_len: 0,
            identification: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 0,
            protocol,
            source: tunnel.source,
            destination: tunnel.far_end,
        }
        .write(&mut header[ip_at..]);
        // The checksum is computed from the template's sum; its own field must not be in it.
        header[ip_at + 10..ip_at + 12].fill(0);
        let mut len = ip_at + ipv4::HEADER_LEN;
        if let Some(vxlan) = tunnel.vxlan {
            len += write_vxlan(vxlan, &mut header[len..]);
        }
        let encapsulation = if tunnel.vxlan.is_some() {
            Encapsulation::Vxlan
        } else {
            Encapsulation::Ipip
        };
        Self::with_header(port, mtu, encapsulation, &header[..len], ip_at)
    }

    /// As [`Egress::tunnel`], over IPv6. IP-in-IP has no such form.
    pub fn tunnel_v6(
        port: PortId,
        mtu: Mtu,
        source: MacAddr,
        destination: MacAddr,
        tunnel: &TunnelHeaderV6,
    ) -> Self {
        let mut header = [0; MAX_HEADER];
        let ip_at = ethernet::HEADER_LEN;
        write_ethernet(source, destination, EtherType::IPV6, &mut header);
        Ipv6 {
            traffic_class: 0,
            flow_label: 0,
            payload_len: 0,
            next_header: protocol::UDP,
            hop_limit: 0,
            source: tunnel.source,
            destination: tunnel.far_end,
        }
        .write(&mut header[ip_at..]);
        let mut len = ip_at + ipv6::HEADER_LEN;
        len += write_vxlan(tunnel.vxlan, &mut header[len..]);
        let encapsulation = Encapsulation::VxlanOverIpv6;
        let mut egress = Self::with_header(port, mtu, encapsulation, &header[..len], ip_at);
        egress.udp_checksum = !tunnel.zero_checksum;
        egress
    }

    /// The same VXLAN tunnel for whole frames, which bring their own inner Ethernet header.
    pub fn for_frames(self) -> Self {
        let own = self.header_len() - ethernet::HEADER_LEN;
        let mut header = [0; MAX_HEADER];
        header[MAX_HEADER - own..].copy_from_slice(&self.header()[..own]);
        Self {
            header,
            header_len: own as u8,
            ..self
        }
    }

    /// The Ethernet address that packets leave for, if there is one.
    pub fn link_destination(&self) -> Option<MacAddr> {
        let header = self.header();
        let ethernet = header.len() >= ethernet::HEADER_LEN;
        let address = header.first_chunk().filter(|_| ethernet)?;
        Some(MacAddr(*address))
    }

    /// The same way, marked as leading to the host's own kernel.
    pub fn to_host(mut self) -> Self {
        self.to_host = true;
        self
    }

    /// The same way, for packets of up to another size.
    pub(super) fn with_mtu(mut self, mtu: Mtu) -> Self {
        self.mtu = mtu;
        self
    }

    /// The same way with another outer TTL and DSCP.
    pub fn marking(mut self, ttl: OuterTtl, dscp: Dscp) -> Self {
        (self.ttl, self.dscp) = (ttl, dscp);
        self
    }

    /// Whether an IPv6 packet of this length is fragmented outside the tunnel: it is too large for the
    /// path, and no smaller one need be sent, as 1280 bytes fit any link (RFC 8200 section 5, RFC 2473
    /// section 7.1).
    #[inline]
    pub(super) fn cuts_outside(&self, length: usize) -> bool {
        length > usize::from(self.mtu.0)
            && length <= ipv6::MIN_MTU
            && self.encapsulation != Encapsulation::None
    }

    /// The largest packet with its outer IP header that may be sent this way.
    pub(super) fn path_mtu(&self) -> Mtu {
        Mtu(self.mtu.0.saturating_add(self.encapsulation.overhead()))
    }

    /// The link's header before an IPv6 packet that goes this way as it is, which a tunnel's does not.
    pub fn link_header_v6(&self) -> Option<Vec<u8>> {
        if self.encapsulation != Encapsulation::None {
            return None;
        }
        let mut header = self.header().to_vec();
        if let Some(ethertype) = header.len().checked_sub(2) {
            header[ethertype..].copy_from_slice(&EtherType::IPV6.0.to_be_bytes());
        }
        Some(header)
    }

    /// Pushes the header before the packet in the frame, to be patched there; false if there is no
    /// room for it.
    #[inline]
    pub(super) fn push_header(&self, frame: &mut Frame) -> bool {
        let length = self.header_len();
        if let Some(short) = self.header.last_chunk::<SHORT_HEADER>()
            && length <= SHORT_HEADER
        {
            frame.push_end_of(short, length)
        } else {
            frame.push(&self.header[MAX_HEADER - length..])
        }
    }

    /// The header, if the caller knows its length.
    #[inline(always)]
    pub(super) fn header_end<const N: usize>(&self) -> Option<&[u8; N]> {
        self.header.last_chunk()
    }

    /// The header's length in bytes.
    #[inline]
    pub(super) fn header_len(&self) -> usize {
        usize::from(self.header_len)
    }

    /// The header as it is before a packet's own values are patched in.
    #[inline]
    pub fn header(&self) -> &[u8] {
        &self.header[MAX_HEADER - self.header_len()..]
    }

    /// Where the outer IP header begins within the header.
    #[inline]
    pub(super) fn outer_ip(&self) -> usize {
        usize::from(self.outer_ip)
    }

    /// The ones' complement sum of the outer IPv4 header without what is patched.
    #[inline]
    pub fn checksum_base(&self) -> u32 {
        self.checksum_base
    }

    /// Whether the outer UDP checksum is computed.
    #[inline]
    pub fn udp_checksum(&self) -> bool {
        self.udp_checksum
    }

    fn with_header(
        port: PortId,
        mtu: Mtu,
        encapsulation: Encapsulation,
        bytes: &[u8],
        outer_ip: usize,
    ) -> Self {
        let mut header = [0; MAX_HEADER];
        header[MAX_HEADER - bytes.len()..].copy_from_slice(bytes);
        let checksum_base = match encapsulation {
            Encapsulation::None | Encapsulation::VxlanOverIpv6 => 0,
            Encapsulation::Ipip | Encapsulation::Vxlan => {
                u32::from(!checksum::of(&bytes[outer_ip..outer_ip + ipv4::HEADER_LEN]))
            }
        };
        Self {
            port,
            mtu,
            to_host: false,
            encapsulation,
            ttl: OuterTtl::Fixed(64),
            dscp: Dscp::Inherit,
            header,
            header_len: bytes.len() as u8,
            outer_ip: outer_ip as u8,
            udp_checksum: false,
            checksum_base,
        }
    }
}

fn write_ethernet(source: MacAddr, destination: MacAddr, ethertype: EtherType, out: &mut [u8]) {
    Ethernet {
        destination,
        source,
        ethertype,
        vlan: None,
    }
    .write(out);
}

/// Writes UDP, VXLAN and inner Ethernet headers, without what depends on the packet; returns their
/// length.
fn write_vxlan(
    (vni, destination_port, own_mac, far_mac): (Vni, u16, MacAddr, MacAddr),
    out: &mut [u8],
) -> usize {
    let udp = Udp {
        source_port: 0,
        destination_port,
        length: 0,
        checksum: 0,
    };
    udp.write(out);
    Vxlan::write(vni, &mut out[udp::HEADER_LEN..]);
    let ethernet_at = udp::HEADER_LEN + vxlan::HEADER_LEN;
    write_ethernet(own_mac, far_mac, EtherType::IPV4, &mut out[ethernet_at..]);
    VXLAN_LEN
}
