//! From wanted routes to forwarding: adjacencies, the FIB, and the order in which they change.
//!
//! Make before break, always: what a route will point to is published and seen by every worker
//! before the route points to it, and what a route pointed to is reused only after every worker has
//! let go of it. So no update loses a packet.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::control::bridges::Bridging;
use crate::control::fast_path::FastPathMirror;
use crate::control::fence::{self, Fence};
use crate::control::resolve::{Delta, Encap, Target, Wanted};
use crate::fib::{Fib, FibWriter, NextHop};
use crate::forward::{
    Addresses, Adjacency, Bridges, Dscp, Egress, Encapsulation, FromWorkloads, OuterTtl, Peers,
    PortConfig, PortRole, RouterAddresses, Snapshot, TunnelHeader, TunnelHeaderV6, TunnelMtus,
    Tunnels, TunnelsV6,
};
use crate::port::{Link, PortId};
use crate::wire::{MacAddr, Mtu, Vni};
use crate::worker::publish::{Published, Quiescence};

/// What a route leads to; routes that lead to the same thing share a next hop, so that one write
/// changes them all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// A workload behind a port.
    Workload(PortId, IpAddr),
    /// The host's own kernel.
    Host,
    /// Another node, for the destinations of one pool: they are all carried in one way, so that the
    /// pool's mode is switched by one write.
    Remote(IpAddr, Option<IpNet>),
    /// The router itself.
    Router,
    /// One of our own blocks.
    Blackhole,
    /// Nowhere.
    Unreachable,
}

/// How packets are carried to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carriage {
    /// As they are.
    Direct,
    /// IP in IP.
    Ipip,
    /// VXLAN, to a VTEP with this Ethernet address.
    Vxlan(MacAddr),
}

impl Carriage {
    /// The packet path's name for it, on the way to a node with that address.
    pub fn encapsulation(self, node: IpAddr) -> Encapsulation {
        match (self, node) {
            (Self::Direct, _) => Encapsulation::None,
            (Self::Ipip, _) => Encapsulation::Ipip,
            (Self::Vxlan(_), IpAddr::V4(_)) => Encapsulation::Vxlan,
            (Self::Vxlan(_), IpAddr::V6(_)) => Encapsulation::VxlanOverIpv6,
        }
    }
}

/// How the underlay reaches another node, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By this Ethernet address on the uplink, with packets up to this size.
    Known(MacAddr, Mtu),
    /// The Ethernet address is being asked for.
    Asking,
    /// Not at all.
    None,
}

/// What the underlay and the workload links tell.
pub trait Facts {
    /// How to reach a node's address over the uplink.
    fn way(&self, node: IpAddr) -> Way;
    /// A workload's Ethernet address, if configured or learnt.
    fn workload_mac(&self, port: PortId, address: IpAddr) -> Option<MacAddr>;
    /// A port's MTU now.
    fn mtu(&self, port: PortId) -> Mtu;
}

/// What does not change with the routes.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// The ports, by number; addresses that workloads may send from are filled in from the routes.
    pub ports: Vec<PortConfig>,
    /// The port of each workload interface.
    pub workload_ports: BTreeMap<String, PortId>,
    /// The uplink's number and its own Ethernet address.
    pub uplink: (PortId, MacAddr),
    /// The port to the host's kernel, if there is one.
    pub host: Option<PortId>,
    /// The UDP port of VXLAN packets.
    pub vxlan_port: u16,
    /// The network.
    pub vni: Vni,
    /// Whether VXLAN's reserved bits must be zero.
    pub strict_reserved_bits: bool,
    /// How the outer TTL is chosen.
    pub ttl: OuterTtl,
    /// How the outer DSCP is chosen.
    pub dscp: Dscp,
    /// The largest packets in tunnels, where configured.
    pub tunnel_mtus: TunnelMtus,
    /// Whether VXLAN over IPv6 goes without a UDP checksum.
    pub udp_zero_checksum_v6: bool,
    /// From whom tunnel packets are taken.
    pub fence: Fence,
    /// Which ones workloads may send.
    pub from_workloads: FromWorkloads,
}

/// How each node is reached for each pool's destinations.
type Carriages = BTreeMap<(IpAddr, Option<IpNet>), Carriage>;

/// The one writer of what workers read.
pub struct Forwarding {
    fixed: Fixed,
    writer: FibWriter,
    fib: Arc<Fib>,
    quiescence: Quiescence,
    published: Published<Snapshot>,
    wanted: Wanted,
    routes: BTreeMap<IpNet, Hop>,
    carriages: Carriages,
    hops: BTreeMap<Hop, NextHop>,
    /// How many routes lead to each hop.
    users: BTreeMap<Hop, usize>,
    /// By next hop, as published.
    adjacencies: Vec<Adjacency>,
    /// Interfaces whose ports came or went since the last update.
    replugged: BTreeSet<String>,
    free: Vec<NextHop>,
    next: u32,
    fast_path: Option<FastPathMirror>,
    bridging: Bridging,
}

impl Forwarding {
    /// Forwarding with no routes yet.
    pub fn new(fixed: Fixed, wanted: Wanted) -> Self {
        let quiescence = Quiescence::new();
        let (fib, writer) = Fib::new(quiescence.clone());
        let hops = BTreeMap::new();
        let peers = fence::peers(&fixed.fence, &wanted);
        let bridges = Bridges::default();
        let snapshot = snapshot(&fixed, &wanted, &fib, &hops, Vec::new(), peers, bridges);
        Self {
            fixed,
            writer,
            fib,
            quiescence,
            published: Published::new(snapshot),
            wanted,
            routes: BTreeMap::new(),
            carriages: Carriages::new(),
            hops,
            users: BTreeMap::new(),
            adjacencies: Vec::new(),
            replugged: BTreeSet::new(),
            free: Vec::new(),
            next: 0,
            fast_path: None,
            bridging: Bridging::default(),
        }
    }

    /// Has a fast path follow from now on, before there are routes.
    pub fn set_fast_path(&mut self, mut mirror: FastPathMirror) {
        mirror.update(&self.published.get());
        self.fast_path = Some(mirror);
    }

    /// What the fast path follows by, if there is one.
    pub fn fast_path(&self) -> Option<&FastPathMirror> {
        self.fast_path.as_ref()
    }

    /// The same, to have ports join and leave.
    pub fn fast_path_mut(&mut self) -> Option<&mut FastPathMirror> {
        self.fast_path.as_mut()
    }

    /// The same with these bridges; workers see them from the next [`Forwarding::refresh`] on.
    pub fn with_bridges(mut self, bridging: Bridging) -> Self {
        self.bridging = bridging;
        self
    }

    /// The bridges.
    pub fn bridging(&self) -> &Bridging {
        &self.bridging
    }

    /// Lets the bridges' time pass, in seconds.
    pub fn tick(&mut self, now: u32) {
        self.bridging.tick(now);
    }

    /// What workers read.
    pub fn published(&self) -> Published<Snapshot> {
        self.published.clone()
    }

    /// Where workers register.
    pub fn quiescence(&self) -> Quiescence {
        self.quiescence.clone()
    }

    /// What does not change.
    pub fn fixed(&self) -> &Fixed {
        &self.fixed
    }

    /// Takes other settings over, and has workers see what follows from them.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Fixed), facts: &dyn Facts) {
        change(&mut self.fixed);
        self.adapt(|_| true, facts);
        self.publish(true, facts);
    }

    /// Takes a workload's port over, which a worker serves from now on. Routes lead there with the next
    /// [`Forwarding::apply`].
    pub fn plug(&mut self, interface: &str, config: PortConfig) {
        let id = config.id;
        self.replugged.insert(interface.to_owned());
        if config.role == PortRole::Workload {
            self.fixed.workload_ports.insert(interface.to_owned(), id);
        }
        if let Some(port) = self.fixed.ports.get_mut(usize::from(id.0)) {
            *port = config;
        }
    }

    /// Forgets a workload's port. Routes lead elsewhere with the next [`Forwarding::apply`]; its worker
    /// is to serve it until then.
    pub fn unplug(&mut self, interface: &str) {
        self.replugged.insert(interface.to_owned());
        self.fixed.workload_ports.remove(interface);
    }

    /// Takes another Ethernet address of the uplink's over; whether it is another. The adjacencies
    /// have it with the next [`Forwarding::refresh`].
    pub fn set_uplink_address(&mut self, address: MacAddr) -> bool {
        let (port, own) = &mut self.fixed.uplink;
        if *own == address {
            return false;
        }
        *own = address;
        if let Some(config) = self.fixed.ports.get_mut(usize::from(port.0)) {
            config.link = Link::Ethernet(address);
        }
        true
    }

    /// What was wanted last.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The routes as they are, each with what it leads to.
    pub fn routes(&self) -> &BTreeMap<IpNet, Hop> {
        &self.routes
    }

    /// What a next hop that a worker asked about is.
    pub fn hop(&self, next_hop: NextHop) -> Option<&Hop> {
        self.hops
            .iter()
            .find(|(_, index)| **index == next_hop)
            .map(|(hop, _)| hop)
    }

    /// Other nodes' addresses that routes or bridges lead to.
    pub fn remote_nodes(&self) -> BTreeSet<IpAddr> {
        let remote = |hop: &Hop| match hop {
            Hop::Remote(node, _) => Some(*node),
            _ => None,
        };
        let routed = self.hops.keys().filter_map(remote);
        routed.chain(self.bridging.remotes(&self.wanted)).collect()
    }

    /// How a node is reached for the destinations of a pool, if any route leads there.
    pub fn carriage(&self, node: IpAddr, pool: Option<IpNet>) -> Option<Carriage> {
        self.carriages.get(&(node, pool)).copied()
    }

    /// Makes the routes what `wanted` says. Returns prefixes that the FIB could not take, with the
    /// reason.
    pub fn apply(&mut self, wanted: Wanted, facts: &dyn Facts) -> Vec<String> {
        let delta = Delta::between(&self.wanted, &wanted);
        self.change(&wanted, &delta, facts, true)
    }

    /// The same where it is known what has changed since the last call; only that is looked at.
    pub fn update(&mut self, wanted: &Wanted, delta: &Delta, facts: &dyn Facts) -> Vec<String> {
        let everything = delta.local || self.routes.is_empty();
        self.change(wanted, delta, facts, everything)
    }

    fn change(
        &mut self,
        wanted: &Wanted,
        delta: &Delta,
        facts: &dyn Facts,
        everything: bool,
    ) -> Vec<String> {
        self.wanted.update(wanted, delta);
        let changes = self.changes(delta);
        // What old routes need stays until no worker follows them any more.
        self.carry(changes.keys());
        let touched = changes.values().flatten().cloned().collect();
        self.admit(&touched);
        let concerned =
            |hop: &Hop| everything || !matches!(hop, Hop::Remote(..)) || touched.contains(hop);
        self.adapt(concerned, facts);
        self.publish(everything || !delta.peers.is_empty(), facts);
        // The new adjacencies are published: once every worker has seen them, routes may use them.
        self.quiescence.synchronize();
        let (refused, unused) = self.write(changes);
        self.retire(&unused);
        let quiescence = &self.quiescence;
        self.bridging
            .retire(&self.wanted, || quiescence.synchronize());
        refused
    }

    /// Computes the adjacencies anew from what is known now and publishes them: a neighbour learnt,
    /// moved or lost is one write, whatever the number of routes.
    pub fn refresh(&mut self, facts: &dyn Facts) {
        self.adapt(|_| true, facts);
        self.publish(false, facts);
    }

    /// The routes that may be others than before, as they shall be.
    fn changes(&mut self, delta: &Delta) -> BTreeMap<IpNet, Option<Hop>> {
        let workloads = &self.wanted.workloads;
        let replugged = std::mem::take(&mut self.replugged);
        let replugged = replugged
            .iter()
            .filter_map(|interface| workloads.get(interface))
            .flat_map(|workload| &workload.addresses)
            .map(|address| IpNet::from(*address));
        let mut prefixes: BTreeSet<IpNet> = delta.routes.keys().copied().collect();
        prefixes.extend(replugged);
        if self.routes.is_empty() {
            prefixes.extend(self.wanted.routes.keys());
            prefixes.extend(own_prefixes());
        }
        let shall_be = |prefix| (prefix, route(&self.fixed, &self.wanted, prefix));
        prefixes.into_iter().map(shall_be).collect()
    }

    /// Notes how other nodes are reached for these prefixes.
    fn carry<'a>(&mut self, prefixes: impl Iterator<Item = &'a IpNet>) {
        for prefix in prefixes {
            if let Some(Target::Remote {
                far_end,
                pool,
                encap,
                ..
            }) = self.wanted.routes.get(prefix)
            {
                let carriage = match encap {
                    Encap::None => Carriage::Direct,
                    Encap::Ipip => Carriage::Ipip,
                    Encap::Vxlan { vtep_mac, .. } => Carriage::Vxlan(*vtep_mac),
                };
                self.carriages.insert((*far_end, *pool), carriage);
            }
        }
    }

    /// Gives a next hop to what has none yet.
    fn admit(&mut self, hops: &BTreeSet<Hop>) {
        for hop in hops {
            if !self.hops.contains_key(hop) {
                let index = self.free.pop().unwrap_or_else(|| {
                    self.next += 1;
                    NextHop(self.next - 1)
                });
                self.hops.insert(hop.clone(), index);
            }
        }
    }

    /// Computes the adjacencies of those hops anew.
    fn adapt(&mut self, concerned: impl Fn(&Hop) -> bool, facts: &dyn Facts) {
        let mut adjacencies = std::mem::take(&mut self.adjacencies);
        adjacencies.resize(self.next as usize, Adjacency::Unreachable);
        for (hop, index) in self.hops.iter().filter(|(hop, _)| concerned(hop)) {
            adjacencies[index.0 as usize] = self.adjacency(hop, facts);
        }
        self.adjacencies = adjacencies;
    }

    /// Has workers see what is known now; `peers` says whether other nodes are others than before.
    fn publish(&mut self, peers: bool, facts: &dyn Facts) {
        let peers = match peers {
            true => fence::peers(&self.fixed.fence, &self.wanted),
            false => self.published.get().tunnels.peers.clone(),
        };
        let Self {
            fixed,
            wanted,
            fib,
            hops,
            adjacencies,
            fast_path,
            bridging,
            ..
        } = self;
        let bridges = bridging.snapshot(fixed, wanted, facts);
        let adjacencies = adjacencies.clone();
        let snapshot = snapshot(fixed, wanted, fib, hops, adjacencies, peers, bridges);
        let snapshot = Arc::new(snapshot);
        self.published.publish(Arc::clone(&snapshot));
        if let Some(mirror) = fast_path {
            mirror.update(&snapshot);
        }
    }

    /// Writes the changes to the FIB: what is new or changed, the longest prefixes first, then what
    /// goes, the shortest first. So an address goes from its old way straight to its new one, and
    /// never by that of a prefix which covers it only in between. Says what could not be written, and
    /// which hops no route leads to any more.
    fn write(&mut self, changes: BTreeMap<IpNet, Option<Hop>>) -> (Vec<String>, BTreeSet<Hop>) {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for (prefix, hop) in changes {
            match hop {
                Some(hop) if self.routes.get(&prefix) != Some(&hop) => changed.push((prefix, hop)),
                Some(_) => {}
                None => gone.push(prefix),
            }
        }
        changed.sort_by_key(|(prefix, _)| Reverse(prefix.prefix_len()));
        gone.sort_by_key(IpNet::prefix_len);
        let (mut refused, mut left) = (Vec::new(), BTreeSet::new());
        for (prefix, hop) in changed {
            if let Some(index) = self.hops.get(&hop) {
                match self.writer.insert(prefix, *index) {
                    Ok(_) => {
                        if let Some(mirror) = &mut self.fast_path {
                            mirror.insert_route(prefix, *index);
                        }
                    }
                    Err(error) => refused.push(format!("{prefix}: {error}")),
                }
            }
            *self.users.entry(hop.clone()).or_default() += 1;
            let old = self.routes.insert(prefix, hop);
            left.extend(old.filter(|old| self.leave(old)));
        }
        for prefix in gone {
            self.writer.remove(&prefix);
            if let Some(mirror) = &mut self.fast_path {
                mirror.remove_route(prefix);
            }
            let old = self.routes.remove(&prefix);
            left.extend(old.filter(|old| self.leave(old)));
        }
        (refused, left)
    }

    /// One route less leads to a hop; whether it was the last.
    fn leave(&mut self, hop: &Hop) -> bool {
        let Some(users) = self.users.get_mut(hop) else {
            return false;
        };
        *users -= 1;
        let last = *users == 0;
        if last {
            self.users.remove(hop);
        }
        last
    }

    /// Frees those next hops that no route leads to any more, once no worker can hold them.
    fn retire(&mut self, left: &BTreeSet<Hop>) {
        let unused: Vec<&Hop> = left
            .iter()
            .filter(|hop| !self.users.contains_key(hop))
            .collect();
        if unused.is_empty() {
            return;
        }
        self.quiescence.synchronize();
        let mut freed = Vec::new();
        for hop in unused {
            freed.extend(self.hops.remove(hop));
            if let Hop::Remote(node, pool) = hop {
                self.carriages.remove(&(*node, *pool));
            }
        }
        if let Some(mirror) = &mut self.fast_path {
            mirror.retire(&freed);
        }
        self.free.extend(freed);
    }

    fn adjacency(&self, hop: &Hop, facts: &dyn Facts) -> Adjacency {
        match hop {
            Hop::Router => Adjacency::Router,
            Hop::Blackhole => Adjacency::Blackhole,
            Hop::Unreachable => Adjacency::Unreachable,
            Hop::Host => self.fixed.host.map_or(Adjacency::Router, |port| {
                Adjacency::Forward(Egress::bare(port, facts.mtu(port)).to_host())
            }),
            Hop::Workload(port, address) => self.workload(*port, *address, facts),
            Hop::Remote(node, pool) => self.carriage(*node, *pool).map_or(
                // No route leads here any more; it is about to be retired.
                Adjacency::Unreachable,
                |carriage| self.remote(*node, carriage, facts),
            ),
        }
    }

    fn workload(&self, port: PortId, address: IpAddr, facts: &dyn Facts) -> Adjacency {
        let mtu = facts.mtu(port);
        let Some(config) = self.fixed.ports.get(usize::from(port.0)) else {
            return Adjacency::Unreachable;
        };
        match (config.link, facts.workload_mac(port, address)) {
            (Link::Ip, _) => Adjacency::Forward(Egress::bare(port, mtu)),
            (Link::Ethernet(_), Some(mac)) => {
                Adjacency::Forward(Egress::ethernet(port, mtu, MacAddr::WORKLOAD_GATEWAY, mac))
            }
            (Link::Ethernet(_), None) => Adjacency::Unresolved,
        }
    }

    fn remote(&self, node: IpAddr, carriage: Carriage, facts: &dyn Facts) -> Adjacency {
        let (port, own_mac) = self.fixed.uplink;
        let (mac, path) = match facts.way(node) {
            Way::Known(mac, mtu) => (mac, mtu),
            Way::Asking => return Adjacency::Unresolved,
            Way::None => return Adjacency::Unreachable,
        };
        if carriage == Carriage::Direct {
            return Adjacency::Forward(Egress::ethernet(port, path, own_mac, mac));
        }
        let encapsulation = carriage.encapsulation(node);
        let mtu = self.fixed.tunnel_mtus.within(encapsulation, path);
        let egress = match self.tunnel(node, carriage) {
            Some(Tunnel::V4(tunnel)) => Egress::tunnel(port, mtu, own_mac, mac, &tunnel),
            Some(Tunnel::V6(tunnel)) => Egress::tunnel_v6(port, mtu, own_mac, mac, &tunnel),
            None => return Adjacency::Unreachable,
        };
        Adjacency::Forward(egress.marking(self.fixed.ttl, self.fixed.dscp))
    }

    /// The tunnel to another node; none for what cannot be: without an own address of the same
    /// family, and IP-in-IP over IPv6.
    fn tunnel(&self, node: IpAddr, carriage: Carriage) -> Option<Tunnel> {
        let (local, fixed) = (&self.wanted.local, &self.fixed);
        let vxlan = |own: MacAddr| match carriage {
            Carriage::Vxlan(vtep) => Some((fixed.vni, fixed.vxlan_port, own, vtep)),
            Carriage::Direct | Carriage::Ipip => None,
        };
        match node {
            IpAddr::V4(far_end) => Some(Tunnel::V4(TunnelHeader {
                source: local.ipv4?.addr(),
                far_end,
                vxlan: vxlan(local.vtep_mac),
            })),
            IpAddr::V6(far_end) => Some(Tunnel::V6(TunnelHeaderV6 {
                source: local.ipv6?.addr(),
                far_end,
                vxlan: vxlan(local.vtep_mac_v6)?,
                zero_checksum: fixed.udp_zero_checksum_v6,
            })),
        }
    }
}

/// A tunnel of either family.
enum Tunnel {
    V4(TunnelHeader),
    V6(TunnelHeaderV6),
}

/// This node's own underlay address, from which its tunnels start.
pub fn node_address(wanted: &Wanted) -> Option<Ipv4Addr> {
    wanted.local.ipv4.map(|net| net.addr())
}

/// This node's own underlay addresses, of either family.
pub fn node_addresses(wanted: &Wanted) -> Vec<IpAddr> {
    let v4 = wanted.local.ipv4.map(|net| IpAddr::V4(net.addr()));
    let v6 = wanted.local.ipv6.map(|net| IpAddr::V6(net.addr()));
    v4.into_iter().chain(v6).collect()
}

/// The destinations that an uplink takes from the kernel: local workloads, blocks and tunnel
/// addresses, but never the node's own addresses, which stay the kernel's.
pub fn steered_prefixes(wanted: &Wanted) -> BTreeSet<IpNet> {
    let own = |net: &IpNet| {
        let host = net.prefix_len() == net.max_prefix_len();
        host && node_addresses(wanted).contains(&net.addr())
    };
    wanted
        .routes
        .iter()
        .filter(|(net, target)| is_steered(target) && !own(net))
        .map(|(net, _)| *net)
        .collect()
}

/// Whether packets to such a target are this node's own.
pub fn is_steered(target: &Target) -> bool {
    matches!(
        target,
        Target::Workload { .. } | Target::Host | Target::Blackhole
    )
}

/// Prefixes that have routes whatever is wanted, for [`route`].
fn own_prefixes() -> [IpNet; 4] {
    [
        IpNet::V4(Ipv4Net::default()),
        IpNet::V6(Ipv6Net::default()),
        IpAddr::V4(RouterAddresses::GATEWAY_V4).into(),
        IpAddr::V6(RouterAddresses::GATEWAY_V6).into(),
    ]
}

/// A prefix's route: the gateway's own addresses, then what is wanted, and whatever else there is in
/// the world by the host's kernel.
fn route(fixed: &Fixed, wanted: &Wanted, prefix: IpNet) -> Option<Hop> {
    let gateway: [IpAddr; 2] = [
        RouterAddresses::GATEWAY_V4.into(),
        RouterAddresses::GATEWAY_V6.into(),
    ];
    if gateway.iter().any(|own| IpNet::from(*own) == prefix) {
        return Some(Hop::Router);
    }
    if let Some(target) = wanted.routes.get(&prefix) {
        return Some(hop(fixed, &prefix, target));
    }
    (prefix.prefix_len() == 0 && fixed.host.is_some()).then_some(Hop::Host)
}

fn hop(fixed: &Fixed, net: &IpNet, target: &Target) -> Hop {
    match target {
        Target::Workload { interface, .. } => match fixed.workload_ports.get(interface) {
            Some(port) => Hop::Workload(*port, net.addr()),
            None => Hop::Unreachable,
        },
        Target::Host => Hop::Host,
        Target::Blackhole => Hop::Blackhole,
        Target::Unreachable => Hop::Unreachable,
        Target::Remote { far_end, pool, .. } => Hop::Remote(*far_end, *pool),
    }
}

fn snapshot(
    fixed: &Fixed,
    wanted: &Wanted,
    fib: &Arc<Fib>,
    hops: &BTreeMap<Hop, NextHop>,
    adjacencies: Vec<Adjacency>,
    peers: Peers,
    bridges: Bridges,
) -> Snapshot {
    let mut ports = fixed.ports.clone();
    let mut local_addresses = Addresses::default();
    local_addresses.extend(wanted.local.addresses());
    for (interface, workload) in &wanted.workloads {
        local_addresses.extend(workload.addresses.iter().copied());
        if let Some(port) = fixed.workload_ports.get(interface) {
            let sources = &mut ports[usize::from(port.0)].sources;
            sources.own.extend(&workload.addresses);
            sources.allowed.extend(
                workload
                    .addresses
                    .iter()
                    .map(|address| IpNet::from(*address)),
            );
            sources.allowed.extend(&workload.allowed_sources);
        }
    }
    let node_address = node_address(wanted);
    let v6_address = wanted.local.ipv6.map(|net| net.addr());
    let reverse_path = fence::reverse_path(&fixed.fence, &peers, hops, adjacencies.len());
    Snapshot {
        fib: Arc::clone(fib),
        adjacencies,
        ports,
        tunnels: Tunnels {
            peers,
            node_address,
            vxlan_port: fixed.vxlan_port,
            vni: fixed.vni,
            vtep_mac: wanted.local.vtep_mac,
            strict_reserved_bits: fixed.strict_reserved_bits,
            local_addresses,
            v6: v6_address.map(|node_address| TunnelsV6 {
                node_address,
                vtep_mac: wanted.local.vtep_mac_v6,
                zero_checksum: fixed.udp_zero_checksum_v6,
            }),
            reverse_path,
            from_workloads: fixed.from_workloads,
        },
        router: RouterAddresses {
            v4: node_address.unwrap_or(RouterAddresses::GATEWAY_V4),
            v6: v6_address.unwrap_or(RouterAddresses::GATEWAY_V6),
        },
        bridges,
    }
}
