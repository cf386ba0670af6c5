//! What the kernel knows, in our own words: links, addresses, neighbours, routes.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags,
    RouteType, RouteVia,
};

use crate::wire::{MacAddr, Mtu};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The interface's number in its namespace.
    pub index: u32,
    /// The interface's name.
    pub name: String,
    /// The Ethernet address, if it has one.
    pub mac: Option<MacAddr>,
    /// The MTU in bytes; a loopback's 65536 reads 65535.
    pub mtu: Mtu,
    /// Whether it is administratively up (IFF_UP).
    pub up: bool,
    /// Whether it can carry packets (IFF_RUNNING): up and with a carrier.
    pub running: bool,
    /// Whether it is a loopback.
    pub loopback: bool,
    /// Whether packets need no neighbour's address (IFF_NOARP), as on TUN devices.
    pub no_neighbours: bool,
    /// The virtual device's kind, such as `veth` or `tun`; nothing for hardware.
    pub kind: Option<String>,
    /// The device behind: a veth's peer, a VLAN's carrier, …
    pub parent: Option<Parent>,
    /// The bridge, bond or VRF that it belongs to.
    pub controller: Option<u32>,
    /// Receive queues that the device was made with.
    pub rx_queues: u32,
    /// Transmit queues that the device was made with.
    pub tx_queues: u32,
    /// The bus and the name on it of the hardware behind, such as `pci` and `0000:00:05.0`.
    pub hardware: Option<(String, String)>,
}

/// The device behind a link (IFLA_LINK).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its number, in its own namespace.
    pub index: u32,
    /// The number that our namespace gives to its namespace; nothing when that is ours.
    pub netns_id: Option<i32>,
}

impl Link {
    /// Reads an announcement; nothing if it is not about a link as a whole (a bridge announces its
    /// ports' settings as links, too).
    pub(super) fn from_message(message: LinkMessage) -> Option<Self> {
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: Mtu(0),
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            loopback: flags.contains(LinkFlags::Loopback),
            no_neighbours: flags.contains(LinkFlags::Noarp),
            kind: None,
            parent: None,
            controller: None,
            rx_queues: 1,
            tx_queues: 1,
            hardware: None,
        };
        let mut mtu = None;
        let mut parent = None;
        let mut netns_id = None;
        let (mut bus, mut device) = (None, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = mac(&bytes),
                LinkAttribute::Mtu(bytes) => mtu = Some(clamp(bytes)),
                LinkAttribute::LinkInfo(infos) => link.kind = kind(&infos),
                LinkAttribute::Link(0) => {}
                LinkAttribute::Link(index) => parent = Some(index),
                LinkAttribute::LinkNetNsId(id) => netns_id = Some(id),
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::NumRxQueues(count) => link.rx_queues = count,
                LinkAttribute::NumTxQueues(count) => link.tx_queues = count,
                LinkAttribute::ParentDevName(name) => device = Some(name),
                LinkAttribute::ParentDevBusName(name) => bus = Some(name),
                _ => {}
            }
        }
        link.parent = parent.map(|index| Parent { index, netns_id });
        link.hardware = bus.zip(device);
        // Wireless events come as links with nothing but a name.
        link.mtu = mtu?;
        (!link.name.is_empty()).then_some(link)
    }
}

impl Link {
    /// Whether this is one end of a veth pair.
    pub fn is_veth(&self) -> bool {
        self.kind.as_deref() == Some("veth")
    }
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface's number.
    pub interface: u32,
    /// The address and the length of its prefix.
    pub address: IpNet,
    /// The far end's address, on a point-to-point link.
    pub peer: Option<IpAddr>,
    /// Whether it may be a packet's source: not tentative, failed or deprecated.
    pub usable: bool,
    /// IPv4: whether another address of the same prefix is preferred as the source.
    pub secondary: bool,
}

impl Address {
    pub(super) fn from_message(message: AddressMessage) -> Option<Self> {
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        let (mut local, mut address) = (None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(ip),
                AddressAttribute::Address(ip) => address = Some(ip),
                AddressAttribute::Flags(all) => flags = all,
                _ => {}
            }
        }
        // IFA_ADDRESS is the far end on point-to-point links, and the address itself elsewhere.
        let own = local.or(address)?;
        let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
        // In IPv6, the bit of IFA_F_SECONDARY means a temporary address.
        let secondary = own.is_ipv4() && flags.contains(AddressFlags::Secondary);
        Some(Self {
            interface: message.header.index,
            address: IpNet::new(own, message.header.prefix_len).ok()?,
            peer: address.filter(|ip| *ip != own),
            usable: !flags.intersects(unusable),
            secondary,
        })
    }
}

/// What the kernel knows of a neighbour's Ethernet address. Multicast groups, whose addresses are
/// computed and not announced, are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighbourEntry {
    /// The interface's number.
    pub interface: u32,
    /// The neighbour's IP address.
    pub address: IpAddr,
    /// Its Ethernet address, if known.
    pub mac: Option<MacAddr>,
    /// The entry's state. The kernel does not announce every step: an entry that reads stale may be
    /// in delay, one that is being resolved for the first time is not there yet.
    pub state: NeighbourState,
}

impl NeighbourEntry {
    pub(super) fn from_message(message: NeighbourMessage) -> Option<Self> {
        let header = message.header;
        if header.flags.contains(NeighbourFlags::Proxy) {
            return None;
        }
        let (mut address, mut lladdr) = (None, None);
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                    address = Some(IpAddr::V4(ip));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                    address = Some(IpAddr::V6(ip));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = mac(&bytes),
                _ => {}
            }
        }
        Some(Self {
            interface: header.ifindex,
            address: address.filter(|ip| !ip.is_multicast())?,
            mac: lladdr,
            state: header.state,
        })
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// What becomes of packets.
    pub kind: RouteKind,
    /// Its preference among routes to the same destination; the lowest wins.
    pub metric: u32,
    /// The type of service that it is limited to; 0 is any.
    pub tos: u8,
    /// Who made it (`rt_protos` of iproute2): 2 the kernel, 4 an administrator, …
    pub protocol: u8,
    /// The source address that packets of this host should have.
    pub source: Option<IpAddr>,
    /// The route's own MTU, if it is less than its interface's.
    pub mtu: Option<Mtu>,
    /// Whether the kernel puts another header before the packet (a lightweight tunnel).
    pub encapsulated: bool,
    /// The ways to go; several with multipath routing, none for a blackhole.
    pub next_hops: Vec<NextHop>,
}

/// What a route does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends them on.
    Unicast,
    /// Drops them silently.
    Blackhole,
    /// Refuses them: host unreachable.
    Unreachable,
    /// Refuses them: administratively prohibited.
    Prohibit,
    /// Ends the look-up in this table.
    Throw,
    /// Another type of linux/rtnetlink.h.
    Other(u8),
}

/// One way of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHop {
    /// The interface's number.
    pub interface: u32,
    /// The router, or nothing if the destination itself is on the link. May be an IPv6 address in an
    /// IPv4 route (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// Its share, from 1.
    pub weight: u16,
    /// Whether the gateway is taken to be on the link whatever the addresses say.
    pub onlink: bool,
}

impl Route {
    /// Reads a route and the number of its table; nothing if it is of another family, or a cached
    /// exception.
    pub(super) fn from_message(message: RouteMessage) -> Option<(u32, Self)> {
        let header = message.header;
        let unspecified: IpAddr = match header.address_family {
            AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        if header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let mut route = Self {
            destination: IpNet::new(unspecified, header.destination_prefix_length).ok()?,
            kind: header.kind.into(),
            metric: 0,
            tos: header.tos,
            protocol: header.protocol.into(),
            source: None,
            mtu: None,
            encapsulated: false,
            next_hops: Vec::new(),
        };
        let mut table = u32::from(header.table);
        let (mut gateway, mut interface) = (None, None);
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = number,
                RouteAttribute::Destination(address) => {
                    let address = ip(&address)?;
                    route.destination =
                        IpNet::new(address, header.destination_prefix_length).ok()?;
                }
                RouteAttribute::Priority(metric) => route.metric = metric,
                RouteAttribute::PrefSource(address) => route.source = ip(&address),
                RouteAttribute::Metrics(metrics) => route.mtu = mtu_metric(&metrics),
                RouteAttribute::Encap(_) => route.encapsulated = true,
                RouteAttribute::Gateway(address) => gateway = ip(&address),
                RouteAttribute::Via(via) => gateway = via_ip(&via),
                RouteAttribute::Oif(index) => interface = Some(index),
                RouteAttribute::MultiPath(next_hops) => {
                    for next_hop in next_hops {
                        let onlink = next_hop.flags.contains(RouteNextHopFlags::Onlink);
                        let (mut gateway, interface) = (None, next_hop.interface_index);
                        let weight = u16::from(next_hop.hops) + 1;
                        for attribute in next_hop.attributes {
                            match attribute {
                                RouteAttribute::Gateway(address) => gateway = ip(&address),
                                RouteAttribute::Via(via) => gateway = via_ip(&via),
                                RouteAttribute::Encap(_) => route.encapsulated = true,
                                _ => {}
                            }
                        }
                        route.next_hops.push(NextHop {
                            interface,
                            gateway,
                            weight,
                            onlink,
                        });
                    }
                }
                _ => {}
            }
        }
        // IPv6 gives the loopback as the interface of routes that lead nowhere.
        if let (Some(interface), RouteKind::Unicast) = (interface, route.kind) {
            route.next_hops.push(NextHop {
                interface,
                gateway,
                weight: 1,
                onlink: header.flags.contains(RouteFlags::Onlink),
            });
        }
        Some((table, route))
    }
}

impl From<RouteType> for RouteKind {
    fn from(kind: RouteType) -> Self {
        match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::BlackHole => Self::Blackhole,
            RouteType::Unreachable => Self::Unreachable,
            RouteType::Prohibit => Self::Prohibit,
            RouteType::Throw => Self::Throw,
            other => Self::Other(other.into()),
        }
    }
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}

fn clamp(mtu: u32) -> Mtu {
    Mtu(u16::try_from(mtu).unwrap_or(u16::MAX))
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn via_ip(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(ip) => Some((*ip).into()),
        RouteVia::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn mtu_metric(metrics: &[RouteMetric]) -> Option<Mtu> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(bytes) if *bytes > 0 => Some(clamp(*bytes)),
        _ => None,
    })
}
