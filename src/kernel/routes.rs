//! Routes that we make in the kernel's main table, and nobody else's.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::mirror::{MAIN_TABLE, list_table};
use super::netlink::Netlink;
use super::state::{Route, RouteKind};
use super::{Error, Result};

/// The mark of our routes (`rtm_protocol`): `ip route show proto 117` lists them. Numbers from 5 up are
/// the user's (linux/rtnetlink.h); 117 is in nobody's list (iproute2's `rt_protos`; Calico's default
/// is 80).
pub const ROUTE_PROTOCOL: u8 = 117;

/// A route of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnRoute {
    /// Where it leads.
    pub destination: IpNet,
    /// What becomes of packets.
    pub target: Target,
    /// The source address that this host's packets should have.
    pub source: Option<IpAddr>,
    /// Its preference; the lowest wins. 0 is the family's default: 0 for IPv4, 1024 for IPv6.
    pub metric: u32,
}

/// What a route of ours does with packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Sends them out of an interface. Without a gateway the route has link scope, with one it has
    /// universe scope, as `ip route` does.
    Interface {
        /// The interface's number.
        interface: u32,
        /// The router; nothing if the destinations are on the link.
        gateway: Option<IpAddr>,
        /// Whether the gateway is on the link, whatever the interface's addresses say.
        onlink: bool,
    },
    /// Spreads flows over several routers, each with its interface's number, in order.
    Several(Vec<(u32, IpAddr)>),
    /// Drops them: a block that we own, where no more specific route leads on.
    Blackhole,
}

impl Netlink {
    /// Makes a route, or changes ours with the same destination and metric, in one step.
    ///
    /// # Errors
    /// [`Error::ForeignRoute`] if another program's route has that destination and metric.
    pub fn replace_route(&mut self, route: &OwnRoute) -> Result<()> {
        match self.make_route(route, NLM_F_EXCL) {
            Err(error) if error.errno() == Some(libc::EEXIST) => {
                // The kernel replaces by destination and metric, whoever made the route.
                if !self.owns(route)? {
                    return Err(Error::ForeignRoute {
                        destination: route.destination,
                        metric: route.metric,
                    });
                }
                self.overwrite_route(route)
            }
            other => other,
        }
    }

    /// The same for a caller who knows that the route with that destination and metric, if there is
    /// one, is ours: it costs no listing of our routes.
    pub fn overwrite_route(&mut self, route: &OwnRoute) -> Result<()> {
        self.make_route(route, NLM_F_REPLACE)
    }

    /// Removes our route with this destination and metric (0 stands for any), and says whether there
    /// was one. Routes that others made stay, even with the same destination.
    pub fn delete_route(&mut self, destination: IpNet, metric: u32) -> Result<bool> {
        let mut message = base_message(destination, metric);
        message.header.scope = RouteScope::NoWhere; // any
        let deleted = self.change(
            format_args!("deleting route {destination}"),
            RouteNetlinkMessage::DelRoute(message),
            0,
        );
        match deleted {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Our routes, those of an earlier run included.
    pub fn own_routes(&mut self) -> Result<Vec<OwnRoute>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let listed = list_table(self, family, MAIN_TABLE, Some(ROUTE_PROTOCOL))?;
            routes.extend(listed.iter().filter_map(own_route));
        }
        Ok(routes)
    }

    /// The interfaces that carry a default route, IPv4's before IPv6's and the most preferred first.
    pub fn default_route_interfaces(&mut self) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        let links = self.links()?;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut routes = list_table(self, family, MAIN_TABLE, None)?;
            routes.retain(|route| route.destination.prefix_len() == 0);
            routes.sort_by_key(|route| route.metric);
            for next_hop in routes.iter().flat_map(|route| &route.next_hops) {
                let link = links.iter().find(|link| link.index == next_hop.interface);
                names.extend(
                    link.map(|link| link.name.clone())
                        .filter(|n| !names.contains(n)),
                );
            }
        }
        Ok(names)
    }

    fn make_route(&mut self, route: &OwnRoute, flag: u16) -> Result<()> {
        let message = RouteNetlinkMessage::NewRoute(route_message(route));
        let what = format!("adding route {}", describe(route));
        self.change(what, message, NLM_F_CREATE | flag)
    }

    fn owns(&mut self, route: &OwnRoute) -> Result<bool> {
        let destination = route.destination.trunc();
        let metric = plain_metric(destination, route.metric);
        let own = self.own_routes()?;
        Ok(own
            .iter()
            .any(|own| own.destination == destination && own.metric == metric))
    }
}

impl OwnRoute {
    /// A route of the kernel's table as one of ours; nothing if another program made it, or it has a
    /// shape that we never make.
    pub fn of(route: &Route) -> Option<Self> {
        (route.protocol == ROUTE_PROTOCOL)
            .then(|| own_route(route))
            .flatten()
    }
}

fn route_message(route: &OwnRoute) -> RouteMessage {
    let mut message = base_message(route.destination, route.metric);
    match &route.target {
        Target::Interface {
            interface,
            gateway,
            onlink,
        } => {
            let (interface, gateway, onlink) = (*interface, *gateway, *onlink);
            message.header.kind = RouteType::Unicast;
            message.attributes.push(RouteAttribute::Oif(interface));
            if let Some(gateway) = gateway {
                message
                    .attributes
                    .push(gateway_attribute(route.destination, gateway));
            } else if route.destination.addr().is_ipv4() {
                message.header.scope = RouteScope::Link;
            }
            if onlink {
                message.header.flags = RouteFlags::Onlink;
            }
        }
        Target::Several(ways) => {
            message.header.kind = RouteType::Unicast;
            let next_hops = ways.iter().map(|(interface, gateway)| {
                let mut next_hop = RouteNextHop::default();
                next_hop.interface_index = *interface;
                next_hop.attributes = vec![gateway_attribute(route.destination, *gateway)];
                next_hop
            });
            let next_hops = RouteAttribute::MultiPath(next_hops.collect());
            message.attributes.push(next_hops);
        }
        Target::Blackhole => message.header.kind = RouteType::BlackHole,
    }
    if let Some(source) = route.source {
        message
            .attributes
            .push(RouteAttribute::PrefSource(source.into()));
    }
    message
}

fn gateway_attribute(destination: IpNet, gateway: IpAddr) -> RouteAttribute {
    if gateway.is_ipv4() == destination.addr().is_ipv4() {
        RouteAttribute::Gateway(gateway.into())
    } else {
        RouteAttribute::Via(gateway.into())
    }
}

/// The destination, the metric and our mark.
fn base_message(destination: IpNet, metric: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = match destination {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    let network = destination.network();
    message
        .attributes
        .push(RouteAttribute::Destination(network.into()));
    if metric != 0 {
        message.attributes.push(RouteAttribute::Priority(metric));
    }
    message
}

/// One of our routes as the kernel lists it; nothing for a shape that we never make.
fn own_route(route: &Route) -> Option<OwnRoute> {
    let target = match (route.kind, route.next_hops.as_slice()) {
        (RouteKind::Blackhole, _) => Target::Blackhole,
        (RouteKind::Unicast, [next_hop]) => Target::Interface {
            interface: next_hop.interface,
            gateway: next_hop.gateway,
            onlink: next_hop.onlink,
        },
        (RouteKind::Unicast, next_hops) => {
            let ways = next_hops
                .iter()
                .map(|next_hop| Some((next_hop.interface, next_hop.gateway?)));
            let mut ways: Vec<_> = ways.collect::<Option<_>>()?;
            ways.sort_unstable();
            Target::Several(ways)
        }
        _ => return None,
    };
    Some(OwnRoute {
        destination: route.destination,
        target,
        source: route.source,
        metric: plain_metric(route.destination, route.metric),
    })
}

/// The metric, with 0 for what the kernel makes of 0.
fn plain_metric(destination: IpNet, metric: u32) -> u32 {
    /// IP6_RT_PRIO_USER (linux/ipv6_route.h).
    const IPV6_DEFAULT: u32 = 1024;
    match destination {
        IpNet::V6(_) if metric == IPV6_DEFAULT => 0,
        _ => metric,
    }
}

fn describe(route: &OwnRoute) -> String {
    let mut text = route.destination.to_string();
    match &route.target {
        Target::Several(ways) => {
            for (interface, gateway) in ways {
                text += &format!(" via {gateway} on interface {interface}");
            }
        }
        Target::Interface {
            interface, gateway, ..
        } => {
            if let Some(gateway) = gateway {
                text += &format!(" via {gateway}");
            }
            text += &format!(" on interface {interface}");
        }
        Target::Blackhole => text.insert_str(0, "blackhole "),
    }
    text
}
