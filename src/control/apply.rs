//! From wanted routes to forwarding: adjacencies, the FIB, and the order in which they change.
//!
//! Make before break, always: what a route will point to is published and seen by every worker
//! before the route points to it, and what a route pointed to is reused only after every worker has
//! let go of it. So no update loses a packet.

mod learn;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::control::bridges::Bridging;
use crate::control::fast_path::FastPathMirror;
use crate::control::fence::{self, Fence};
use crate::control::learned::{GroupId, Learned, NextHops};
use crate::control::resolve::{Delta, Encap, Target, Wanted};
use crate::fib::{Fib, FibError, FibWriter, NextHop};
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
    /// A group of next hops of learned routes, for the destinations of one pool, or of none.
    Learned(GroupId, Option<IpNet>),
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
    /// The Ethernet address was asked for, and nobody answered.
    Failed,
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
    /// Port and network that are taken as well; else the same once more.
    pub also: (u16, Vni),
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
    /// What each next hop is.
    by_index: Vec<Option<Hop>>,
    /// How many routes lead to each next hop.
    users: Vec<u32>,
    /// By next hop, as published.
    adjacencies: Vec<Adjacency>,
    /// Interfaces whose ports came or went since the last update.
    replugged: BTreeSet<String>,
    free: Vec<NextHop>,
    next: u32,
    fast_path: Option<FastPathMirror>,
    bridging: Bridging,
    learned: Learned,
    /// Where learned routes are to be placed anew.
    unplaced: BTreeSet<IpNet>,
    /// Whether pools are carried otherwise than at the last update.
    repooled: bool,
    /// The next hops in use of each group.
    chosen: BTreeMap<Hop, NextHops>,
    /// Sources whose packets the host's kernel translates when they leave for a destination in no pool.
    translated: Vec<IpNet>,
    /// Whether host processes may have to go another way to learned destinations in pools than they do.
    rechosen: bool,
    /// The same for destinations in none.
    rechosen_outside: bool,
}

impl Forwarding {
    /// Forwarding with no routes yet.
    pub fn new(fixed: Fixed, wanted: Wanted) -> Self {
        let quiescence = Quiescence::new();
        let (fib, writer) = Fib::new(quiescence.clone());
        let hops = BTreeMap::new();
        let peers = fence::peers(&fixed.fence, &wanted, &BTreeSet::new());
        let bridges = Bridges::default();
        let learned = Learned::default();
        let led = (&hops, &learned);
        let snapshot = snapshot(&fixed, &wanted, &fib, led, Vec::new(), peers, bridges);
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
            by_index: Vec::new(),
            users: Vec::new(),
            adjacencies: Vec::new(),
            replugged: BTreeSet::new(),
            free: Vec::new(),
            next: 0,
            fast_path: None,
            bridging: Bridging::default(),
            learned,
            unplaced: BTreeSet::new(),
            repooled: false,
            chosen: BTreeMap::new(),
            translated: Vec::new(),
            rechosen: false,
            rechosen_outside: false,
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
        self.by_index.get(next_hop.0 as usize)?.as_ref()
    }

    /// Other nodes' addresses that routes or bridges lead to.
    pub fn remote_nodes(&self) -> BTreeSet<IpAddr> {
        let remote = |hop: &Hop| match hop {
            Hop::Remote(node, _) => Some(*node),
            _ => None,
        };
        let routed = self.hops.keys().filter_map(remote);
        let learned = self.learned_peers();
        routed
            .chain(self.bridging.remotes(&self.wanted))
            .chain(learned)
            .collect()
    }

    /// What the underlay is to be asked for: other nodes, and next hops of learned routes.
    pub fn neighbours(&self) -> BTreeSet<IpAddr> {
        let mut neighbours = self.remote_nodes();
        neighbours.extend(self.learned.next_hops());
        neighbours
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
        let mut changes = self.changes(delta);
        self.place_anew(&mut changes);
        // What old routes need stays until no worker follows them any more.
        self.carry(changes.keys());
        let touched = changes.values().flatten().cloned().collect();
        self.admit(&touched);
        let concerned =
            |hop: &Hop| everything || !matches!(hop, Hop::Remote(..)) || touched.contains(hop);
        let repooled = std::mem::take(&mut self.repooled);
        self.adapt(concerned, facts);
        let learned = touched.iter().any(|hop| self.makes_peers(hop));
        let peers = everything || learned || repooled || !delta.peers.is_empty();
        self.publish(peers, facts);
        // The new adjacencies are published: once every worker has seen them, routes may use them.
        self.quiescence.synchronize();
        let (refused, unused) = self.write(changes);
        self.retire(&unused);
        let quiescence = &self.quiescence;
        self.bridging
            .retire(&self.wanted, || quiescence.synchronize());
        refused
    }

    /// Gives memory back after a large table has gone: the routes that are left move into new tables, which
    /// workers read from their next batch on. To be called now and then; says whether it has done so.
    pub fn give_memory_back(&mut self, facts: &dyn Facts) -> bool {
        /// Blocks of a KiB each: for less it is not worth while.
        const MUCH: usize = 8192;
        let stats = self.writer.stats();
        let used = stats.blocks_v4 + stats.blocks_v6;
        let free = stats.blocks_free + stats.blocks_waiting;
        if free < MUCH || free < used * 3 {
            return false;
        }
        match self.writer.rebuilt(self.quiescence.clone()) {
            Ok((fib, writer)) => {
                self.fib = fib;
                self.publish(false, facts);
                self.quiescence.synchronize();
                self.writer = writer;
                true
            }
            Err(error) => {
                log::error!("the route table could not be made anew: {error}");
                false
            }
        }
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
        let is_learned = |prefix: &IpNet| {
            let hop = self.writer.get(prefix).and_then(|index| self.hop(index));
            matches!(hop, Some(Hop::Learned(..)))
        };
        let shall_be = |prefix| {
            let own = route(&self.fixed, &self.wanted, prefix);
            let hop = own.or_else(|| self.aside_hop(prefix));
            // What the node never had of its own does not go.
            (hop.is_some() || !is_learned(&prefix)).then_some((prefix, hop))
        };
        prefixes.into_iter().filter_map(shall_be).collect()
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
                let count = self.next as usize;
                self.by_index.resize(count, None);
                self.users.resize(count, 0);
                self.by_index[index.0 as usize] = Some(hop.clone());
            }
        }
    }

    /// Computes the adjacencies of those hops anew.
    fn adapt(&mut self, concerned: impl Fn(&Hop) -> bool, facts: &dyn Facts) {
        let mut adjacencies = std::mem::take(&mut self.adjacencies);
        adjacencies.resize(self.next as usize, Adjacency::Unreachable);
        let mut chosen = std::mem::take(&mut self.chosen);
        for (hop, index) in self.hops.iter().filter(|(hop, _)| concerned(hop)) {
            if let Hop::Learned(group, _) = hop {
                let choice = self.choice(*group, facts);
                let before = chosen.insert(hop.clone(), choice.clone());
                let other = before != Some(choice);
                self.rechosen |= other;
                self.rechosen_outside |= other;
            }
            if self.goes_elsewhere(hop) {
                // About to be left, and until then as good as it was.
                continue;
            }
            let choice = chosen.get(hop).map_or(&[][..], |choice| choice);
            adjacencies[index.0 as usize] = self.adjacency(hop, choice, facts);
        }
        self.adjacencies = adjacencies;
        self.chosen = chosen;
    }

    /// Has workers see what is known now; `peers` says whether other nodes are others than before.
    fn publish(&mut self, peers: bool, facts: &dyn Facts) {
        let peers = match peers {
            true => fence::peers(&self.fixed.fence, &self.wanted, &self.learned_peers()),
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
            learned,
            ..
        } = self;
        let bridges = bridging.snapshot(fixed, wanted, facts);
        let adjacencies = adjacencies.clone();
        let led = (&*hops, &*learned);
        let snapshot = snapshot(fixed, wanted, fib, led, adjacencies, peers, bridges);
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
    fn write(&mut self, changes: BTreeMap<IpNet, Option<Hop>>) -> (Vec<String>, BTreeSet<NextHop>) {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for (prefix, hop) in changes {
            match hop {
                Some(hop) if self.writer.get(&prefix) != self.hops.get(&hop).copied() => {
                    changed.push((prefix, hop));
                }
                Some(_) => {}
                None => gone.push(prefix),
            }
        }
        gone.sort_by_key(IpNet::prefix_len);
        let mut left = BTreeSet::new();
        let refused = self.enter(changed, &mut left);
        for prefix in gone {
            self.leave(prefix, &mut left);
        }
        (refused, left)
    }

    /// Points a prefix to a hop. What no route leads to any more is added to `left`.
    fn point(
        &mut self,
        prefix: IpNet,
        hop: &Hop,
        left: &mut BTreeSet<NextHop>,
    ) -> Result<(), FibError> {
        let Some(index) = self.hops.get(hop).copied() else {
            return Ok(());
        };
        let before = self.writer.insert(prefix, index)?;
        if before == Some(index) {
            return Ok(());
        }
        self.users[index.0 as usize] += 1;
        let learned = before.and_then(|before| match self.hop(before) {
            Some(Hop::Learned(group, _)) => Some(*group),
            _ => None,
        });
        if let Hop::Learned(group, pool) = hop {
            self.rechosen |= pool.is_some();
            self.rechosen_outside = true;
            self.routes.remove(&prefix);
            self.learned.forget_aside(prefix);
            self.learned
                .entered(prefix, *group, *pool, learned.is_none());
        } else {
            self.routes.insert(prefix, hop.clone());
            if let Some(group) = learned {
                self.rechosen = true;
                self.rechosen_outside = true;
                self.learned.left(prefix);
                self.learned.put_aside(prefix, group);
            }
        }
        left.extend(before.filter(|before| self.release(*before)));
        if self.is_mirrored(prefix, hop)
            && let Some(mirror) = &mut self.fast_path
        {
            mirror.insert_route(prefix, index);
        }
        Ok(())
    }

    /// Removes a prefix. What no route leads to any more is added to `left`.
    fn leave(&mut self, prefix: IpNet, left: &mut BTreeSet<NextHop>) {
        let Some(before) = self.writer.remove(&prefix) else {
            return;
        };
        let hop = self.hop(before);
        let is_learned = matches!(hop, Some(Hop::Learned(..)));
        let mirrored = hop.is_some_and(|hop| self.is_mirrored(prefix, hop));
        if is_learned {
            self.rechosen |= matches!(hop, Some(Hop::Learned(_, Some(_))));
            self.rechosen_outside = true;
            self.learned.left(prefix);
        } else {
            self.routes.remove(&prefix);
        }
        left.extend(self.release(before).then_some(before));
        if mirrored && let Some(mirror) = &mut self.fast_path {
            mirror.remove_route(prefix);
        }
    }

    /// One route less leads to a next hop; whether it was the last.
    fn release(&mut self, next_hop: NextHop) -> bool {
        let users = &mut self.users[next_hop.0 as usize];
        *users -= 1;
        *users == 0
    }

    /// Frees those next hops that no route leads to any more, once no worker can hold them.
    fn retire(&mut self, left: &BTreeSet<NextHop>) {
        let unused = |next_hop: &&NextHop| self.users[next_hop.0 as usize] == 0;
        let unused: Vec<NextHop> = left.iter().filter(unused).copied().collect();
        if unused.is_empty() {
            return;
        }
        self.quiescence.synchronize();
        for next_hop in &unused {
            let Some(hop) = self.by_index[next_hop.0 as usize].take() else {
                continue;
            };
            self.hops.remove(&hop);
            self.chosen.remove(&hop);
            if let Hop::Remote(node, pool) = hop {
                self.carriages.remove(&(node, pool));
            }
        }
        if let Some(mirror) = &mut self.fast_path {
            mirror.retire(&unused);
        }
        self.free.extend(unused);
    }

    /// Whether the fast path is told of a route. Its maps are too small for a table of the Internet:
    /// learned routes outside pools are the workers', to whom it passes what it has no route for.
    fn is_mirrored(&self, prefix: IpNet, hop: &Hop) -> bool {
        let within = |own: &IpNet| own.prefix_len() > 0 && own.contains(&prefix);
        match hop {
            Hop::Learned(_, None) => self.fast_path.is_some() && self.routes.keys().any(within),
            _ => true,
        }
    }

    fn adjacency(&self, hop: &Hop, choice: &[IpAddr], facts: &dyn Facts) -> Adjacency {
        match hop {
            Hop::Router => Adjacency::Router,
            Hop::Blackhole => Adjacency::Blackhole,
            Hop::Unreachable => Adjacency::Unreachable,
            Hop::Host => self
                .to_host(facts)
                .map_or(Adjacency::Router, Adjacency::Forward),
            Hop::Workload(port, address) => self.workload(*port, *address, facts),
            Hop::Learned(_, pool) => self.learned_adjacency(*pool, choice, facts),
            Hop::Remote(node, pool) => self.carriage(*node, *pool).map_or(
                // No route leads here any more; it is about to be retired.
                Adjacency::Unreachable,
                |carriage| self.remote(*node, carriage, facts),
            ),
        }
    }

    fn to_host(&self, facts: &dyn Facts) -> Option<Egress> {
        let port = self.fixed.host?;
        Some(Egress::bare(port, facts.mtu(port)).to_host())
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
            // A neighbour that did not answer may do so again: packets keep asking.
            Way::Asking | Way::Failed => return Adjacency::Unresolved,
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
    (hops, learned): (&BTreeMap<Hop, NextHop>, &Learned),
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
    let reverse_path = fence::reverse_path(&fixed.fence, &peers, hops, learned, adjacencies.len());
    Snapshot {
        fib: Arc::clone(fib),
        adjacencies,
        ports,
        tunnels: Tunnels {
            peers,
            node_address,
            vxlan_port: fixed.vxlan_port,
            vni: fixed.vni,
            also: fixed.also,
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
