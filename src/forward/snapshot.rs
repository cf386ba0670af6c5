//! What every worker reads while it forwards: one value, replaced as a whole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::{FxHashMap, FxHashSet};

use super::bridge::{BridgeId, Bridges};
use super::{Adjacency, ReversePath};
use crate::fib::Fib;
use crate::packet::{Link, PortId};
use crate::wire::{MacAddr, Vni};

/// What every worker reads: routes, adjacencies, ports and tunnel end points.
///
/// The FIB is shared between snapshots and updated in place; everything else is replaced with the
/// snapshot. An index that the FIB gives is valid in every snapshot published before it got there.
#[derive(Debug)]
pub struct Snapshot {
    /// Destination to next hop.
    pub fib: Arc<Fib>,
    /// Next hop to adjacency.
    pub adjacencies: Vec<Adjacency>,
    /// Ports by their number.
    pub ports: Vec<PortConfig>,
    /// Which tunnel packets are ours.
    pub tunnels: Tunnels,
    /// What the router calls itself.
    pub router: RouterAddresses,
    /// The virtual Ethernets that this node has a part in.
    pub bridges: Bridges,
}

impl Snapshot {
    /// Whether VXLAN packets to a UDP port may be of any network of the node's, routed or bridged.
    #[inline]
    pub fn is_vxlan_port(&self, port: u16) -> bool {
        self.tunnels.listen_on(port) || self.bridges.listen_on(port)
    }

    /// All UDP ports of the node's VXLAN packets, some perhaps twice.
    pub fn vxlan_ports(&self) -> impl Iterator<Item = u16> + '_ {
        let routed = [self.tunnels.vxlan_port, self.tunnels.also.0];
        routed
            .into_iter()
            .chain(self.bridges.udp_ports().iter().copied())
    }
}

/// The addresses that the router's own packets, ICMP errors above all, come from.
#[derive(Debug, Clone, Copy)]
pub struct RouterAddresses {
    /// The node's address, or the workloads' gateway where it has none.
    pub v4: Ipv4Addr,
    /// The same for IPv6.
    pub v6: Ipv6Addr,
}

impl RouterAddresses {
    /// The gateway that workloads have a default route to (Calico: 169.254.1.1).
    pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
    /// The same for IPv6: the link-local address made from ee:ee:ee:ee:ee:ee.
    pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
}

/// What the packet path knows of a port.
#[derive(Debug, Clone)]
pub struct PortConfig {
    /// The port's number, also its place in [`Snapshot::ports`].
    pub id: PortId,
    /// What is behind the port.
    pub role: PortRole,
    /// What its frames begin with.
    pub link: Link,
    /// From which addresses its workload may send; only looked at for workload ports.
    pub sources: WorkloadSources,
    /// Whether senders behind the port may leave TCP and UDP checksums unfinished, as veth and TAP
    /// peers do that believe in checksum offload; they are completed then.
    pub partial_checksums: bool,
}

impl PortConfig {
    /// A port that is not open: nothing comes in by it.
    pub fn closed(id: PortId) -> Self {
        Self {
            id,
            role: PortRole::Workload,
            link: Link::Ethernet(MacAddr::default()),
            sources: WorkloadSources::default(),
            partial_checksums: true,
        }
    }
}

/// What is behind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRole {
    /// The network between nodes.
    Uplink,
    /// A pod, container or VM.
    Workload,
    /// The host's own kernel, by a TUN device.
    Host,
    /// Stations of a bridge: nothing is routed.
    Bridge(BridgeId),
}

/// The addresses that a workload may send from.
#[derive(Debug, Clone, Default)]
pub struct WorkloadSources {
    /// Its own addresses, and prefixes that it is trusted to send from.
    pub allowed: Vec<IpNet>,
    /// Its own addresses, which it is told if it asks.
    pub own: Vec<IpAddr>,
}

impl WorkloadSources {
    /// Whether a workload with these addresses may send from `source`. An IPv6 link-local source is
    /// every workload's own.
    #[inline]
    pub fn allow(&self, source: IpAddr) -> bool {
        let link_local = matches!(source, IpAddr::V6(v6) if v6.is_unicast_link_local());
        link_local || self.allowed.iter().any(|net| net.contains(&source))
    }

    /// As [`WorkloadSources::allow`]; most have one IPv4 address, which is looked at first.
    #[inline(always)]
    pub(super) fn allow_v4(&self, source: Ipv4Addr) -> bool {
        let own = self.allowed.first().is_some_and(|net| match net {
            IpNet::V4(net) => net.prefix_len() == 32 && net.addr() == source,
            IpNet::V6(_) => false,
        });
        own || self.allow(source.into())
    }
}

/// This node's tunnel end points, and whose tunnel packets it takes.
#[derive(Debug, Clone)]
pub struct Tunnels {
    /// The addresses of the nodes that we know.
    pub peers: Peers,
    /// This node's own underlay address: where tunnel packets are sent to.
    pub node_address: Option<Ipv4Addr>,
    /// The UDP port of VXLAN packets.
    pub vxlan_port: u16,
    /// The network that is routed.
    pub vni: Vni,
    /// Port and network that are taken as well, as they are about to be changed or were a moment ago; else
    /// the same once more.
    pub also: (u16, Vni),
    /// The Ethernet address that inner frames to this node carry.
    pub vtep_mac: MacAddr,
    /// Whether reserved bits must be zero (RFC 7348 says to ignore them).
    pub strict_reserved_bits: bool,
    /// The addresses of this node's workloads and its own: never the source of what comes in.
    pub local_addresses: Addresses,
    /// The end point over IPv6, if this node has an IPv6 address.
    pub v6: Option<TunnelsV6>,
    /// Whether the route back to an inner source must lead where the packet came from.
    pub reverse_path: ReversePath,
    /// Which tunnel packets workloads may send.
    pub from_workloads: FromWorkloads,
}

impl Tunnels {
    /// Whether VXLAN packets to a UDP port may be of the routed network.
    #[inline]
    pub fn listen_on(&self, port: u16) -> bool {
        port == self.vxlan_port || port == self.also.0
    }

    /// Whether a VXLAN packet is of the routed network.
    #[inline]
    pub fn is_routed(&self, port: u16, vni: Vni) -> bool {
        (port, vni) == (self.vxlan_port, self.vni) || (port, vni) == self.also
    }
}

/// Which tunnel packets workloads may send: none, unless they are trusted to (Calico's
/// allowIPIPPacketsFromWorkloads and allowVXLANPacketsFromWorkloads).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FromWorkloads {
    /// IP-in-IP.
    pub ipip: bool,
    /// VXLAN to a port of the node's networks.
    pub vxlan: bool,
}

/// This node's tunnel end point over IPv6: VXLAN alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelsV6 {
    /// This node's own underlay address.
    pub node_address: Ipv6Addr,
    /// The Ethernet address that inner frames to this node carry.
    pub vtep_mac: MacAddr,
    /// Whether a UDP checksum of zero is taken (RFC 6935 section 5).
    pub zero_checksum: bool,
}

/// A set of addresses.
///
/// Kept by their numbers: those are hashed by one multiplication, an [`IpAddr`] byte by byte.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    v4: FxHashSet<u32>,
    v6: FxHashSet<u128>,
    /// A bit for each value that [`Addresses::place_v4`] has for one of them.
    may_be_v4: [u64; 4],
}

impl Addresses {
    /// Whether the address is one of them.
    #[inline]
    pub fn contains(&self, address: &IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(&address.to_bits()),
            IpAddr::V6(address) => self.v6.contains(&address.to_bits()),
        }
    }

    /// Whether the IPv4 address is one of them. Most that are asked for are not, which a bit tells.
    #[inline]
    pub fn contains_v4(&self, address: Ipv4Addr) -> bool {
        let (word, bit) = Self::place_v4(address.to_bits());
        self.may_be_v4[word] >> bit & 1 != 0 && self.v4.contains(&address.to_bits())
    }

    #[inline]
    const fn place_v4(bits: u32) -> (usize, u32) {
        let byte = (bits ^ bits >> 8) & 0xff;
        ((byte >> 6) as usize, byte & 63)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let v4 = self.v4.iter().map(|bits| Ipv4Addr::from_bits(*bits).into());
        v4.chain(self.v6.iter().map(|bits| Ipv6Addr::from_bits(*bits).into()))
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.v4.clear();
        self.v6.clear();
        self.may_be_v4 = [0; 4];
    }
}

impl Extend<IpAddr> for Addresses {
    fn extend<I: IntoIterator<Item = IpAddr>>(&mut self, addresses: I) {
        for address in addresses {
            match address {
                IpAddr::V4(address) => {
                    let (word, bit) = Self::place_v4(address.to_bits());
                    self.may_be_v4[word] |= 1 << bit;
                    self.v4.insert(address.to_bits())
                }
                IpAddr::V6(address) => self.v6.insert(address.to_bits()),
            };
        }
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut set = Self::default();
        set.extend(addresses);
        set
    }
}

/// From whom tunnel packets are taken; addresses as in [`Addresses`].
#[derive(Debug, Clone, Default)]
pub struct Peers {
    v4: FxHashMap<u32, PeerId>,
    v6: FxHashMap<u128, PeerId>,
    external: Vec<IpNet>,
    doubted: Addresses,
}

/// A known node, whichever of its addresses is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

impl Peers {
    /// The nodes by their addresses, and the senders that are none of the cluster's nodes but may
    /// send as if they were (Calico's externalNodesList).
    pub fn new(nodes: impl IntoIterator<Item = (IpAddr, PeerId)>, external: Vec<IpNet>) -> Self {
        let mut peers = Self {
            external,
            ..Self::default()
        };
        for (address, id) in nodes {
            match address {
                IpAddr::V4(address) => peers.v4.insert(address.to_bits(), id),
                IpAddr::V6(address) => peers.v6.insert(address.to_bits(), id),
            };
        }
        peers
    }

    /// Whether tunnel packets from `source` are taken.
    #[inline]
    pub fn contains(&self, source: impl Into<IpAddr>) -> bool {
        let source = source.into();
        self.node(source).is_some() || self.external.iter().any(|net| net.contains(&source))
    }

    /// The same, these alone doubted: far ends about whose paths ICMP errors have said what was not so.
    pub fn doubting(self, far_ends: impl IntoIterator<Item = IpAddr>) -> Self {
        let doubted = far_ends.into_iter().collect();
        Self { doubted, ..self }
    }

    /// Whether what an ICMP error says of the path to this far end is measured before anybody is told.
    pub fn is_doubted(&self, far_end: IpAddr) -> bool {
        self.doubted.contains(&far_end)
    }

    /// Whether a known node has this IPv4 address.
    #[inline]
    pub fn knows_v4(&self, address: Ipv4Addr) -> bool {
        self.v4.contains_key(&address.to_bits())
    }

    /// The known nodes' addresses, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = (IpAddr, PeerId)> + '_ {
        let v4 = self.v4.iter();
        let v4 = v4.map(|(bits, id)| (Ipv4Addr::from_bits(*bits).into(), *id));
        let v6 = self.v6.iter();
        v4.chain(v6.map(|(bits, id)| (Ipv6Addr::from_bits(*bits).into(), *id)))
    }

    /// The known node that has this address.
    #[inline]
    pub fn node(&self, address: IpAddr) -> Option<PeerId> {
        match address {
            IpAddr::V4(address) => self.v4.get(&address.to_bits()).copied(),
            IpAddr::V6(address) => self.v6.get(&address.to_bits()).copied(),
        }
    }
}

/// Nodes with one address each.
impl FromIterator<Ipv4Addr> for Peers {
    fn from_iter<I: IntoIterator<Item = Ipv4Addr>>(addresses: I) -> Self {
        let numbered = addresses.into_iter().zip(0..);
        Self::new(
            numbered.map(|(address, id)| (address.into(), PeerId(id))),
            Vec::new(),
        )
    }
}
