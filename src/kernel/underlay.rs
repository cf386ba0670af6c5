//! How the underlay reaches an address: the route, the next hop and its Ethernet address.
//!
//! The answer comes from the mirror, not from RTM_GETROUTE: it costs no system call, changes are
//! announced (those of a look-up are not), and routes can be left out, which matters because our own
//! host routes through the TUN may cover the far node's address. The price is that policy rules
//! (`ip rule`) and tables other than main are not followed.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::mirror::Mirror;
use super::state::{Address, Link, NextHop, Route, RouteKind};
use super::{ROUTE_PROTOCOL, Result};
use crate::wire::{MacAddr, Mtu};

/// How to reach an address over the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// The number of the interface to send on.
    pub interface: u32,
    /// Its name.
    pub interface_name: String,
    /// The router, or the destination itself if that is on the link.
    pub next_hop: IpAddr,
    /// The source address for our own packets: the route's, or the interface's that fits best.
    pub source: Option<IpAddr>,
    /// The largest packet, in bytes.
    pub mtu: Mtu,
    /// The next hop's Ethernet address.
    pub neighbour: Neighbour,
}

/// What is known of a next hop's Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    /// It is known, though perhaps unconfirmed for a while.
    Resolved(MacAddr),
    /// Nobody has asked yet, or the answer is outstanding: [`Mirror::probe`] it.
    Missing,
    /// It did not answer.
    Failed,
    /// The interface has no Ethernet addresses (a TUN, a tunnel).
    NotNeeded,
}

/// Why the underlay does not reach an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// No route covers it, or only ones whose interfaces are down.
    #[error("no route leads there over an interface that is up")]
    NoRoute,
    /// The route says: drop or refuse.
    #[error("the route there is a {0:?} route")]
    Refused(RouteKind),
    /// It is one of this host's own addresses.
    #[error("it is an address of this host")]
    Local,
    /// The kernel would put another header before the packet, which we do not.
    #[error("the route there has an encapsulation of its own")]
    Encapsulated,
}

impl Mirror {
    /// How the underlay reaches `destination`: by the most specific route, of those the one with the
    /// lowest metric. Routes that we made ([`ROUTE_PROTOCOL`]), those through ignored interfaces and
    /// those for a type of service do not count. Of several next hops, the first is taken whose
    /// neighbour has not failed.
    pub fn resolve_underlay(&self, destination: IpAddr) -> Result<Underlay, Unreachable> {
        if self.is_local(destination) {
            return Err(Unreachable::Local);
        }
        let gateway = self.reached_by.get(&destination);
        let destination = gateway.copied().unwrap_or(destination);
        let routes = self.routes.covering(destination);
        for route in routes {
            if route.protocol == ROUTE_PROTOCOL || route.tos != 0 {
                continue;
            }
            match route.kind {
                RouteKind::Unicast => {}
                RouteKind::Throw => return Err(Unreachable::NoRoute),
                refused => return Err(Unreachable::Refused(refused)),
            }
            let ways = route.next_hops.iter().filter_map(|next_hop| {
                let link = self.usable_link(next_hop)?;
                Some(self.way(route, next_hop, link, destination))
            });
            let best = ways.min_by_key(|way| way.neighbour == Neighbour::Failed);
            match best {
                Some(_) if route.encapsulated => return Err(Unreachable::Encapsulated),
                Some(way) => return Ok(way),
                None => {}
            }
        }
        Err(Unreachable::NoRoute)
    }

    /// Makes the kernel resolve a neighbour, or confirm it at once if it is known, as traffic would
    /// but without the wait. Answers and failures come through [`Mirror::process`], a failure after
    /// about 3 s. Entries that an administrator made stay untouched.
    ///
    /// The entry stays an ordinary one, which the kernel drops when nobody uses it.
    pub fn probe(&mut self, interface: u32, address: IpAddr) -> Result<()> {
        match self.neighbour(interface, address).map(|entry| &entry.state) {
            // Using them would make them dynamic (kernel, net/core/neighbour.c, __neigh_update).
            Some(NeighbourState::Permanent | NeighbourState::Noarp) => Ok(()),
            Some(NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay) => {
                self.confirm(interface, address)
            }
            _ => self.resolve(interface, address),
        }
    }

    /// Keeps neighbours that are in use resolved and confirmed; to be called about once a second.
    /// Packets that we send past the kernel do not tell it that an entry is used, so without this it
    /// would never notice that a neighbour moved or went. Confirmed entries cost nothing; a change of
    /// one that fails is announced like every other.
    pub fn refresh(&mut self, in_use: impl IntoIterator<Item = (u32, IpAddr)>) -> Result<()> {
        use NeighbourState as State;
        for (interface, address) in in_use {
            let confirmed = [State::Reachable, State::Probe];
            let state = self.neighbour(interface, address).map(|entry| &entry.state);
            if state.is_none_or(|state| !confirmed.contains(state)) {
                self.probe(interface, address)?;
            }
        }
        Ok(())
    }
}

impl Mirror {
    fn usable_link(&self, next_hop: &NextHop) -> Option<&Link> {
        let link = self.link(next_hop.interface)?;
        (link.up && !self.ignored.contains(&link.name)).then_some(link)
    }

    fn way(&self, route: &Route, next_hop: &NextHop, link: &Link, destination: IpAddr) -> Underlay {
        let gateway = next_hop.gateway.unwrap_or(destination);
        let source = route.source.or_else(|| {
            let addresses = self.addresses(link.index);
            source_address(addresses, gateway, destination)
        });
        Underlay {
            interface: link.index,
            interface_name: link.name.clone(),
            next_hop: gateway,
            source,
            mtu: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            neighbour: self.neighbour_of(link, gateway),
        }
    }

    fn neighbour_of(&self, link: &Link, next_hop: IpAddr) -> Neighbour {
        if link.no_neighbours || link.loopback {
            return Neighbour::NotNeeded;
        }
        match self.neighbour(link.index, next_hop) {
            Some(entry) if entry.state == NeighbourState::Failed => Neighbour::Failed,
            Some(entry) => entry.mac.map_or(Neighbour::Missing, Neighbour::Resolved),
            None => Neighbour::Missing,
        }
    }

    /// Starts resolution; nothing more than a packet to the neighbour would (`ip neigh … use`).
    fn resolve(&mut self, interface: u32, address: IpAddr) -> Result<()> {
        let mut message = neighbour_message(interface, address);
        message.header.flags = NeighbourFlags::Use;
        self.netlink.change(
            format_args!("resolving neighbour {address} on interface {interface}"),
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Moves a known entry to the state in which the kernel asks the neighbour directly (`ip neigh
    /// change … nud probe`). If it has become unknown meanwhile, it is resolved.
    fn confirm(&mut self, interface: u32, address: IpAddr) -> Result<()> {
        let mut message = neighbour_message(interface, address);
        message.header.state = NeighbourState::Probe;
        let confirmed = self.netlink.change(
            format_args!("confirming neighbour {address} on interface {interface}"),
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_REPLACE,
        );
        match confirmed {
            Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::ENOENT)) => {
                self.resolve(interface, address)
            }
            other => other,
        }
    }
}

fn neighbour_message(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = interface;
    let destination = NeighbourAttribute::Destination(address.into());
    message.attributes.push(destination);
    message
}

/// The source that the kernel would choose among an interface's addresses, for the common cases:
/// IPv4, the first whose prefix holds the next hop, else the first (`inet_select_addr`); IPv6, of the
/// destination's scope and with the longest prefix in common (RFC 6724, section 5, rules 2 and 8).
fn source_address(addresses: &[Address], next_hop: IpAddr, destination: IpAddr) -> Option<IpAddr> {
    let of_family = |address: &&Address| {
        address.usable && address.address.addr().is_ipv4() == destination.is_ipv4()
    };
    let mut usable = addresses.iter().filter(of_family);
    let chosen = match destination {
        IpAddr::V4(_) => {
            let mut primary = usable.filter(|address| !address.secondary);
            let first = primary.clone().next();
            primary
                .find(|address| on_link(address).contains(&next_hop))
                .or(first)
        }
        IpAddr::V6(destination) => {
            let link_local = destination.is_unicast_link_local();
            usable
                .clone()
                .filter(|address| is_link_local(address.address.addr()) == link_local)
                .max_by_key(|address| common_bits(address.address.addr(), destination))
                .or_else(|| usable.next())
        }
    };
    chosen.map(|address| address.address.addr())
}

fn on_link(address: &Address) -> IpNet {
    let end = address.peer.unwrap_or(address.address.addr());
    IpNet::new(end, address.address.prefix_len()).unwrap_or(address.address)
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn common_bits(one: IpAddr, other: Ipv6Addr) -> u32 {
    match one {
        IpAddr::V6(one) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        IpAddr::V4(_) => 0,
    }
}
