//! From wanted routes to forwarding: adjacencies, the FIB, and the order in which they change.
//!
//! Make before break, always: what a route will point to is published and seen by every worker
//! before the route points to it, and what a route pointed to is reused only after every worker has
//! let go of it. So no update loses a packet.

mod adjacencies;
mod learn;
mod snapshot;
mod steered;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::control::bridges::Bridging;
use crate::control::fast_path::FastPathMirror;
use crate::control::fence::{self, Fence};
use crate::control::learned::{GroupId, Learned, NextHops};
use crate::control::resolve::{Delta, Wanted};
use crate::fib::{Fib, FibWriter, NextHop};
use crate::forward::{
    Adjacency, Bridges, Dscp, Encapsulation, FromWorkloads, OuterTtl, PortConfig, PortRole,
    Snapshot, TunnelMtus,
};
use crate::port::{Link, PortId};
use crate::wire::{MacAddr, Mtu, Vni};
use crate::worker::publish::{Published, Quiescence};
use snapshot::snapshot;

pub use steered::{is_steered, node_address, node_addresses, steered_prefixes};

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
    /// The nodes about whose paths ICMP errors lied of late.
    fn doubted(&self) -> Vec<IpAddr> {
        Vec::new()
    }
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
}
