//! The host's own side: the TUN device's addresses and MTU, and the routes of the host's main table,
//! which show what the node does, as Felix programs them:
//!
//! | destination | route |
//! |---|---|
//! | what is tunnelled to another node | through the TUN device |
//! | what goes to another node as it is | through the uplink, by the gateway that leads to the node |
//! | a workload of this node | through the TUN device |
//! | a block of this node | blackhole |
//!
//! All bear our mark ([`crate::kernel::ROUTE_PROTOCOL`]); routes without it are never touched. What
//! somebody else changes of ours is put right as soon as the kernel announces it, and at every
//! [`HostSide::tick`] that is due everything is compared with the kernel's own list. Routes that a
//! process left which was killed are taken over.
//!
//! What hangs on the TUN device goes with it, however the process ends; the rest is removed when this
//! is dropped, unless it is to stay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::learned::NextHops;
use super::resolve::{Delta, Encap, LocalNode, Target as WantedTarget, Wanted};
use crate::kernel::{Error, Mirror, Netlink, OwnRoute, ROUTE_PROTOCOL, Target, Touched};
use crate::wire::Mtu;

/// The devices and what is to become of routes at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    /// The TUN device.
    pub tun: String,
    /// The uplink.
    pub uplink: String,
    /// Whether routes that do not hang on the TUN device stay after a clean end.
    pub keep_routes: bool,
    /// Whether others have to tell routes again that an earlier process left: they stay until
    /// [`HostSide::forget_earlier`].
    pub awaits_learned: bool,
}

/// How host processes reach a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostWay {
    /// Through the TUN device, with this source address.
    Tun(Option<IpAddr>),
    /// As it is to another node's address, or over several of them, with this source address.
    Direct(NextHops, Option<IpAddr>),
    /// Not at all: a block of this node, where no workload has the address.
    Blackhole,
}

impl HostWay {
    fn nodes(&self) -> &[IpAddr] {
        match self {
            Self::Direct(nodes, _) => nodes,
            Self::Tun(_) | Self::Blackhole => &[],
        }
    }
}

/// The kernel's view of the host's side, as we made it.
pub struct HostSide {
    netlink: Netlink,
    devices: Devices,
    interface: u32,
    addresses: BTreeSet<IpAddr>,
    ways: BTreeMap<IpNet, HostWay>,
    /// How learned routes lead to destinations in pools.
    learned: BTreeMap<IpNet, HostWay>,
    /// How they lead to destinations in none.
    outside: BTreeMap<IpNet, HostWay>,
    /// Peers that are reached by a gateway of their own.
    reached: BTreeSet<IpAddr>,
    /// Our routes in the kernel, as far as is known.
    routes: BTreeMap<IpNet, OwnRoute>,
    nodes: BTreeMap<IpAddr, DirectNode>,
    /// Routes that the kernel refused to change, and why.
    refused: BTreeMap<IpNet, String>,
    mtu: Option<Mtu>,
    /// Whether what an earlier process left was looked for.
    taken_over: bool,
    /// Whether that stays, though nobody has asked for it yet.
    awaits: bool,
    compared: Instant,
}

/// Another node to which packets go as they are.
#[derive(Debug, Default)]
struct DirectNode {
    /// The interface and the router, or the node itself; nothing while the uplink does not lead there.
    gateway: Option<(u32, IpAddr)>,
    prefixes: BTreeSet<IpNet>,
}

impl HostSide {
    /// Brings the TUN device up.
    pub fn new(devices: Devices) -> Result<Self, Error> {
        let mut netlink = Netlink::open()?;
        let interface = netlink.link(&devices.tun)?.index;
        netlink.set_link_up(interface, true)?;
        Ok(Self {
            netlink,
            awaits: devices.awaits_learned,
            devices,
            interface,
            addresses: BTreeSet::new(),
            ways: BTreeMap::new(),
            learned: BTreeMap::new(),
            outside: BTreeMap::new(),
            reached: BTreeSet::new(),
            routes: BTreeMap::new(),
            nodes: BTreeMap::new(),
            refused: BTreeMap::new(),
            mtu: None,
            taken_over: false,
            compared: Instant::now(),
        })
    }

    /// Makes the kernel's side what is wanted: new first, then what goes. What the kernel refuses is
    /// logged and tried again with the next update. `delta` says what has changed since the last one.
    pub fn update(&mut self, wanted: &Wanted, delta: &Delta, mtu: Mtu, mirror: &Mirror) {
        self.set_mtu(mtu);
        let addresses = tunnel_addresses(wanted);
        for address in &addresses {
            if !self.addresses.contains(address) {
                let added = self
                    .netlink
                    .add_address(self.interface, IpNet::from(*address));
                keep(added, || self.addresses.insert(*address));
            }
        }
        let mut prefixes: BTreeSet<IpNet> = delta.routes.keys().copied().collect();
        if delta.local || !self.taken_over {
            prefixes.extend(wanted.routes.keys());
        }
        self.set_ways(&prefixes, wanted, mirror);
        for address in self.addresses.clone().difference(&addresses) {
            let removed = self
                .netlink
                .remove_address(self.interface, IpNet::from(*address));
            keep(removed, || self.addresses.remove(address));
        }
    }

    /// What learned routes lead to is reached so from now on; where the node has a route of its own, that
    /// stays.
    pub fn set_learned(
        &mut self,
        ways: BTreeMap<IpNet, HostWay>,
        wanted: &Wanted,
        mirror: &Mirror,
    ) {
        let before = std::mem::replace(&mut self.learned, ways);
        let prefixes = differences(&before, &self.learned);
        self.set_ways(&prefixes, wanted, mirror);
    }

    /// The same for learned routes to destinations in no pool. Where another program has a route to one of
    /// them, that stays.
    pub fn set_outside(
        &mut self,
        ways: BTreeMap<IpNet, HostWay>,
        wanted: &Wanted,
        mirror: &Mirror,
    ) {
        let before = std::mem::replace(&mut self.outside, ways);
        let prefixes = differences(&before, &self.outside);
        self.set_ways(&prefixes, wanted, mirror);
    }

    /// The way to a destination in no pool that others have told, unless another program has one.
    fn outside(&self, prefix: IpNet, mirror: &Mirror) -> Option<HostWay> {
        let foreign = |route: &crate::kernel::Route| route.protocol != ROUTE_PROTOCOL;
        let way = self.outside.get(&prefix)?;
        (!mirror.routes_to(prefix).iter().any(foreign)).then(|| way.clone())
    }

    /// These peers are reached as the mirror says, whatever other routes lead there.
    pub fn set_reached(&mut self, peers: BTreeSet<IpAddr>, wanted: &Wanted, mirror: &Mirror) {
        let before = std::mem::replace(&mut self.reached, peers);
        let changed = before.symmetric_difference(&self.reached);
        let prefixes: BTreeSet<IpNet> = changed.map(|peer| IpNet::from(*peer)).collect();
        if !prefixes.is_empty() {
            self.set_ways(&prefixes, wanted, mirror);
        }
    }

    /// All that others tell has been told: what an earlier process left and nobody wants goes.
    pub fn forget_earlier(&mut self, mirror: &Mirror) {
        if std::mem::take(&mut self.awaits) && self.taken_over {
            self.compare(mirror);
        }
    }

    /// Has these destinations reached as is wanted. At the first call what an earlier process left is
    /// taken over, or removed.
    fn set_ways(&mut self, prefixes: &BTreeSet<IpNet>, wanted: &Wanted, mirror: &Mirror) {
        for prefix in prefixes {
            let peer = prefix.addr();
            let single = prefix.prefix_len() == prefix.max_prefix_len();
            let reached = || {
                (single && self.reached.contains(&peer))
                    .then(|| HostWay::Direct([peer].into(), None))
            };
            let learned = || self.learned.get(prefix).cloned();
            let outside = || self.outside(*prefix, mirror);
            let way = way(wanted, *prefix).or_else(reached).or_else(learned);
            let way = way.or_else(outside);
            self.set_way(*prefix, way, mirror);
        }
        if std::mem::replace(&mut self.taken_over, true) {
            let mut prefixes = prefixes.clone();
            prefixes.extend(self.refused.keys());
            self.settle(prefixes, mirror);
        } else {
            self.compare(mirror);
        }
    }

    /// Sets the device's MTU.
    pub fn set_mtu(&mut self, mtu: Mtu) {
        if self.mtu != Some(mtu) {
            let set = self.netlink.set_link_mtu(self.interface, mtu);
            keep(set, || self.mtu = Some(mtu));
        }
    }

    /// Puts right what others did to our routes, and follows the gateways to other nodes; `links` says
    /// whether interfaces came, went or changed, which may let in what was refused.
    pub fn follow(&mut self, touched: &Touched, links: bool, mirror: &Mirror) {
        if !self.taken_over {
            return;
        }
        let mut prefixes = self.rerouted(mirror);
        if links {
            prefixes.extend(self.refused.keys());
        }
        if touched.everything {
            self.compare(mirror);
        }
        for destination in &touched.destinations {
            // Another program's route to what others told us may have come, or gone.
            let told =
                self.outside.contains_key(destination) && !self.learned.contains_key(destination);
            let way = self.outside(*destination, mirror);
            if told && self.ways.get(destination) != way.as_ref() {
                self.set_way(*destination, way, mirror);
                prefixes.insert(*destination);
            }
            let routes = mirror.routes_to(*destination);
            let ours = routes.iter().filter_map(OwnRoute::of);
            let (ours, strays): (Vec<_>, Vec<_>) = ours.partition(|route| route.metric == 0);
            strays.iter().for_each(|stray| self.remove_stray(stray));
            let ours = ours.into_iter().next();
            if ours.as_ref() != self.routes.get(destination) {
                self.note(*destination, ours);
                prefixes.insert(*destination);
            } else if self.refused.contains_key(destination) {
                prefixes.insert(*destination);
            }
        }
        self.settle(prefixes, mirror);
    }

    /// Compares everything with the kernel's list if that was done longer ago than `interval`.
    pub fn tick(&mut self, interval: Option<Duration>, mirror: &Mirror) {
        if interval.is_some_and(|interval| self.compared.elapsed() >= interval) {
            self.compare(mirror);
        }
    }

    /// Why routes are missing that the kernel refused, by destination.
    pub fn refused(&self) -> &BTreeMap<IpNet, String> {
        &self.refused
    }

    /// How many routes of ours the kernel has.
    pub fn route_count(&self) -> usize {
        self.routes.len()
    }
}

// What shall be.
impl HostSide {
    fn set_way(&mut self, prefix: IpNet, way: Option<HostWay>, mirror: &Mirror) {
        let old = match &way {
            Some(way) => self.ways.insert(prefix, way.clone()),
            None => self.ways.remove(&prefix),
        };
        if old == way {
            return;
        }
        for node in old.iter().flat_map(HostWay::nodes) {
            if let Some(direct) = self.nodes.get_mut(node) {
                direct.prefixes.remove(&prefix);
                if direct.prefixes.is_empty() {
                    self.nodes.remove(node);
                }
            }
        }
        for node in way.iter().flat_map(HostWay::nodes) {
            let uplink = &self.devices.uplink;
            let direct = self.nodes.entry(*node).or_insert_with(|| DirectNode {
                gateway: gateway(mirror, uplink, *node),
                prefixes: BTreeSet::new(),
            });
            direct.prefixes.insert(prefix);
        }
    }

    /// The destinations whose gateway is another than before.
    fn rerouted(&mut self, mirror: &Mirror) -> BTreeSet<IpNet> {
        let mut rerouted = BTreeSet::new();
        for (node, direct) in &mut self.nodes {
            let gateway = gateway(mirror, &self.devices.uplink, *node);
            if gateway != direct.gateway {
                direct.gateway = gateway;
                rerouted.extend(&direct.prefixes);
            }
        }
        rerouted
    }

    fn route(&self, destination: IpNet) -> Option<OwnRoute> {
        let through = |interface, gateway| Target::Interface {
            interface,
            gateway,
            onlink: false,
        };
        let (target, source) = match self.ways.get(&destination)? {
            HostWay::Blackhole => (Target::Blackhole, None),
            HostWay::Tun(source) => (through(self.interface, None), *source),
            HostWay::Direct(nodes, source) => {
                let gateway = |node: &IpAddr| self.nodes.get(node)?.gateway;
                let gateways: BTreeSet<_> = nodes.iter().filter_map(gateway).collect();
                let gateways: Vec<_> = gateways.into_iter().collect();
                match gateways[..] {
                    [(interface, gateway)] => (through(interface, Some(gateway)), *source),
                    // Whoever sends there is told by the router that it is out of reach.
                    [] => (through(self.interface, None), *source),
                    _ => (Target::Several(gateways), *source),
                }
            }
        };
        Some(OwnRoute {
            destination,
            target,
            source,
            metric: 0,
        })
    }
}

// What is.
impl HostSide {
    /// Takes the kernel's list of our routes for true, and makes of it what shall be.
    fn compare(&mut self, mirror: &Mirror) {
        self.compared = Instant::now();
        let listed = match self.netlink.own_routes() {
            Ok(listed) => listed,
            Err(error) => return log::error!("the host's routes: {error}"),
        };
        let mut prefixes: BTreeSet<IpNet> = self.ways.keys().copied().collect();
        self.routes.clear();
        for route in listed {
            if route.metric == 0 {
                // What nobody wants goes, unless somebody may want it yet.
                if !self.awaits {
                    prefixes.insert(route.destination);
                }
                self.routes.insert(route.destination, route);
            } else {
                self.remove_stray(&route);
            }
        }
        self.settle(prefixes, mirror);
    }

    /// Removes a route that bears our mark, and a metric that we never give.
    fn remove_stray(&mut self, route: &OwnRoute) {
        let deleted = self.netlink.delete_route(route.destination, route.metric);
        keep(deleted, || ());
    }

    fn note(&mut self, destination: IpNet, route: Option<OwnRoute>) {
        match route {
            Some(route) => self.routes.insert(destination, route),
            None => self.routes.remove(&destination),
        };
    }

    /// Makes the routes to these destinations what they shall be.
    fn settle(&mut self, prefixes: BTreeSet<IpNet>, mirror: &Mirror) {
        let (there, gone): (Vec<_>, Vec<_>) = prefixes
            .into_iter()
            .map(|prefix| (prefix, self.route(prefix)))
            .partition(|(_, route)| route.is_some());
        for (destination, route) in there {
            let Some(route) = route else { continue };
            if self.routes.get(&destination) == Some(&route) {
                self.refused.remove(&destination);
                continue;
            }
            let made = if self.is_ours(destination, mirror) {
                self.netlink.overwrite_route(&route)
            } else {
                self.netlink.replace_route(&route)
            };
            if self.accept(destination, made).is_some() {
                self.routes.insert(destination, route);
            }
        }
        for (destination, _) in gone {
            self.refused.remove(&destination);
            if self.routes.contains_key(&destination) {
                let deleted = self.netlink.delete_route(destination, 0);
                if self.accept(destination, deleted).is_some() {
                    self.routes.remove(&destination);
                }
            }
        }
    }

    /// Whether the route of this destination that ours would replace is ours already.
    fn is_ours(&self, destination: IpNet, mirror: &Mirror) -> bool {
        let foreign = |route: &crate::kernel::Route| route.protocol != ROUTE_PROTOCOL;
        self.routes.contains_key(&destination) && !mirror.routes_to(destination).iter().any(foreign)
    }

    /// Notes what was done, or says once why it could not be.
    fn accept<T>(&mut self, destination: IpNet, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(done) => {
                self.refused.remove(&destination);
                Some(done)
            }
            Err(error) => {
                let reason = error.to_string();
                if self.refused.get(&destination) != Some(&reason) {
                    log::error!("the host's routes: {reason}");
                }
                self.refused.insert(destination, reason);
                None
            }
        }
    }
}

impl Drop for HostSide {
    fn drop(&mut self) {
        if self.devices.keep_routes {
            return;
        }
        for destination in self.routes.keys() {
            let deleted = self.netlink.delete_route(*destination, 0);
            keep(deleted, || ());
        }
    }
}

/// The destinations to which the ways are not the same.
fn differences(
    before: &BTreeMap<IpNet, HostWay>,
    now: &BTreeMap<IpNet, HostWay>,
) -> BTreeSet<IpNet> {
    let gone = before.keys().filter(|prefix| !now.contains_key(*prefix));
    let changed = now
        .iter()
        .filter(|(prefix, way)| before.get(*prefix) != Some(*way));
    gone.chain(changed.map(|(prefix, _)| prefix))
        .copied()
        .collect()
}

/// Notes what was done, or says why it could not be.
fn keep<T, U>(result: Result<T, Error>, done: impl FnOnce() -> U) -> Option<U> {
    match result {
        Ok(_) => Some(done()),
        Err(error) => {
            log::error!("the host's routes: {error}");
            None
        }
    }
}

/// The interface and the router by which the uplink reaches a node.
fn gateway(mirror: &Mirror, uplink: &str, node: IpAddr) -> Option<(u32, IpAddr)> {
    let way = mirror.resolve_underlay(node).ok()?;
    (way.interface_name == uplink).then_some((way.interface, way.next_hop))
}

/// The addresses that the TUN device carries: the node's tunnel addresses, as Calico's tunl0 and
/// vxlan.calico do.
fn tunnel_addresses(wanted: &Wanted) -> BTreeSet<IpAddr> {
    let local = &wanted.local;
    let v4 = [local.ipip_tunnel_addr, local.vxlan_tunnel_addr];
    let v4 = v4.into_iter().flatten().map(IpAddr::V4);
    v4.chain(local.vxlan_tunnel_addr_v6.map(IpAddr::V6))
        .collect()
}

/// How host processes reach a prefix, if they do.
fn way(wanted: &Wanted, prefix: IpNet) -> Option<HostWay> {
    let local = &wanted.local;
    let own = local.address(prefix.addr().is_ipv4());
    match wanted.routes.get(&prefix)? {
        WantedTarget::Remote { encap, far_end, .. } => Some(remote_way(local, *far_end, encap)),
        WantedTarget::Workload { .. } => Some(HostWay::Tun(own)),
        WantedTarget::Blackhole => Some(HostWay::Blackhole),
        WantedTarget::Host | WantedTarget::Unreachable => None,
    }
}

/// How host processes reach what is behind another node: the source address that they should have is
/// the tunnel's if packets are tunnelled, so that answers are too; else the node's own.
pub fn remote_way(local: &LocalNode, far_end: IpAddr, encap: &Encap) -> HostWay {
    let is_v4 = far_end.is_ipv4();
    let tunnel = match encap {
        Encap::None => return HostWay::Direct([far_end].into(), local.address(is_v4)),
        Encap::Ipip => local.ipip_tunnel_addr.map(IpAddr::V4),
        Encap::Vxlan { .. } if is_v4 => local.vxlan_tunnel_addr.map(IpAddr::V4),
        Encap::Vxlan { .. } => local.vxlan_tunnel_addr_v6.map(IpAddr::V6),
    };
    HostWay::Tun(tunnel.or_else(|| local.address(is_v4)))
}
