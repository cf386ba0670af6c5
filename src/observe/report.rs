//! What a node reports about itself: plain values, also the JSON of the control socket.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::bgp::BgpStatus;
use crate::packet::DropReason;
use crate::port::PortStatistics;
use crate::wire::MacAddr;

/// One route of the node's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// The destinations.
    pub destination: IpNet,
    /// What happens to packets for them.
    pub kind: RouteKind,
    /// How they are carried; nothing for kinds that carry none.
    #[serde(default)]
    pub encapsulation: Option<Encapsulation>,
    /// The node where the destination is; this node's own name for a local workload.
    #[serde(default)]
    pub node: Option<String>,
    /// The tunnel's other end.
    #[serde(default)]
    pub far_end: Option<IpAddr>,
    /// The router or node on the underlay that frames are handed to.
    #[serde(default)]
    pub next_hop: Option<IpAddr>,
    /// Other nodes or routers, over which flows are spread beside the first one.
    #[serde(default)]
    pub others: Vec<IpAddr>,
    /// The Ethernet address that frames are sent to.
    #[serde(default)]
    pub mac: Option<MacAddr>,
    /// The device under which operators know the way: the host TUN's name for IP-in-IP,
    /// `vxlan.calico` for VXLAN, the uplink or workload port otherwise.
    #[serde(default)]
    pub interface: Option<String>,
    /// The largest IP packet that goes this way, in bytes.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Whether packets can be sent now.
    pub state: RouteState,
    /// The IP pool that the destination is from.
    #[serde(default)]
    pub pool: Option<String>,
}

impl RouteRow {
    /// What `ip route` shows as the gateway: the far end of a tunnel, else the next hop.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.far_end.or(self.next_hop)
    }
}

/// A station of a bridge, or a remote that flooded frames go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbRow {
    /// The bridge's name.
    pub bridge: String,
    /// Its network.
    pub vni: u32,
    /// The station's address; zero for a remote that flooded frames go to.
    pub mac: MacAddr,
    /// The port that it is behind.
    #[serde(default)]
    pub port: Option<String>,
    /// The tunnel end point that it is behind.
    #[serde(default)]
    pub remote: Option<IpAddr>,
    /// That end point's node, if it is a known one.
    #[serde(default)]
    pub node: Option<String>,
    /// How its place is known.
    pub kind: FdbKind,
    /// Seconds since it was last heard of, if its place was learnt.
    #[serde(default)]
    pub age: Option<u32>,
    /// Whether its place is held on to because it has moved too often.
    #[serde(default)]
    pub flapping: bool,
}

/// How the place of a station is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FdbKind {
    /// It is configured.
    Static,
    /// It was learnt.
    Learned,
    /// It is no station: flooded frames go there.
    Flood,
}

impl FdbKind {
    /// Its name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Learned => "learned",
            Self::Flood => "flood",
        }
    }
}

/// How a bridge is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeStatus {
    /// Its name.
    pub name: String,
    /// Its network.
    pub vni: u32,
    /// The UDP port of its packets.
    pub udp_port: u16,
    /// The address that they are sent from.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Its ports on this node.
    pub ports: u64,
    /// Its other tunnel end points.
    pub remotes: u64,
    /// Those of them to which the way is known.
    pub reachable: u64,
    /// Stations that are learnt now.
    pub stations: u64,
    /// Stations that can be learnt at most.
    pub limit: u64,
    /// Times that a station was not learnt for want of room.
    pub refused: u64,
    /// Times that a station has moved.
    pub moves: u64,
    /// Times that a station's IP address was not learnt for want of room.
    #[serde(default)]
    pub neighbours_refused: u64,
}

/// The largest packet that gets through to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MtuReport {
    /// Who answered.
    pub destination: IpAddr,
    /// The node that it is behind, if its name is known.
    #[serde(default)]
    pub node: Option<String>,
    /// That node's address.
    pub far_end: IpAddr,
    /// The largest inner packet that was answered, in bytes.
    pub inner: u16,
    /// The bytes that the tunnel puts around it.
    pub overhead: u16,
    /// What keeps a larger one from getting through.
    pub limit: MtuLimit,
}

/// Which encapsulations get through to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaysReport {
    /// Who was asked.
    pub destination: IpAddr,
    /// The node that it is behind, if its name is known.
    #[serde(default)]
    pub node: Option<String>,
    /// That node's address.
    pub far_end: IpAddr,
    /// The one in use first.
    pub ways: Vec<Way>,
}

/// One encapsulation, and whether a packet in it was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// `direct`, `ipip` or `vxlan`.
    pub encapsulation: String,
    /// What became of it.
    pub outcome: WayOutcome,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WayOutcome {
    /// It was answered.
    Answered,
    /// Somebody says that it goes no further (ICMP destination unreachable).
    Refused {
        /// Who.
        by: IpAddr,
        /// The error's code (RFC 792, RFC 1812 section 5.2.7.1).
        code: u8,
    },
    /// Nothing came back.
    Lost,
}

/// What keeps larger packets from getting through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MtuLimit {
    /// This node's own uplink.
    Uplink {
        /// Its name.
        interface: String,
        /// Its MTU in bytes.
        mtu: u16,
    },
    /// A link behind this router, which said so.
    Link {
        /// Who said so.
        router: IpAddr,
    },
    /// A link behind this router, which said so of the packet within: it lies behind the tunnel.
    BehindTunnel {
        /// Who said so.
        router: IpAddr,
    },
    /// Something that drops larger packets and says nothing.
    Silent,
}

/// What happens to packets for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// They are forwarded.
    Unicast,
    /// They are dropped: a block of this node's, of which no workload has the address.
    Blackhole,
    /// They are dropped and the sender is told.
    Unreachable,
    /// They are for the router itself.
    Local,
    /// They are for the host, through its TUN device.
    Host,
}

impl RouteKind {
    /// Its name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Local => "local",
            Self::Host => "host",
        }
    }
}

/// How a packet is carried to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// As it is.
    None,
    /// In IP (RFC 2003).
    Ipip,
    /// In VXLAN (RFC 7348).
    Vxlan,
}

impl Encapsulation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Ipip, Self::Vxlan];

    /// Its name in tables, JSON and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ipip => "ipip",
            Self::Vxlan => "vxlan",
        }
    }
}

/// Whether a route's packets can be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteState {
    /// Yes; or there is nothing to resolve.
    Resolved,
    /// The next hop's Ethernet address is not known yet.
    Unresolved,
}

/// What a node has counted since it started; packets and bytes as they crossed the ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterReport {
    /// The ports, in the order of their numbers.
    pub ports: Vec<PortCounters>,
    /// Drops, one entry a reason, in the order of [`DropReason::ALL`].
    pub drops: Vec<DropCount>,
    /// Packets handed to the slow path. Each ends as sent, dropped or absorbed, so this is no part
    /// of the balance.
    pub punted: u64,
    /// Packets that the router consumed: what was addressed to it, what it answered, fragments that
    /// became part of another packet.
    pub absorbed: u64,
    /// Packets that the router made: answers, ICMP errors, fragments after a packet's first, copies of
    /// a bridged frame after its first.
    pub originated: u64,
    /// Packets that wait now, for a neighbour or for the rest of their fragments.
    #[serde(default)]
    pub waiting: u64,
    /// Packets, of those received, that XDP programs forwarded; nothing without a fast path.
    #[serde(default)]
    pub fast_path: Option<u64>,
}

impl CounterReport {
    /// Sets `drops` from counters indexed by [`DropReason`].
    pub fn set_drops(&mut self, counts: &[u64; DropReason::COUNT]) {
        let entry = |(reason, packets): (&DropReason, &u64)| DropCount {
            reason: reason.name().to_owned(),
            packets: *packets,
        };
        self.drops = DropReason::ALL.iter().zip(counts).map(entry).collect();
    }

    /// The sums by which every packet is accounted for.
    pub fn balance(&self) -> Balance {
        Balance {
            received: self.ports.iter().map(|port| port.rx_packets).sum(),
            originated: self.originated,
            sent: self.ports.iter().map(|port| port.tx_packets).sum(),
            dropped: self.drops.iter().map(|drop| drop.packets).sum(),
            absorbed: self.absorbed,
            waiting: self.waiting,
        }
    }
}

/// One port's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    /// The device's name.
    pub name: String,
    /// What it is for: `uplink`, `workload`, `host`.
    pub kind: String,
    /// How frames are moved: `af_xdp native copy`, `tun`, …
    pub io: String,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received, link-layer headers included.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent, link-layer headers included.
    pub tx_bytes: u64,
    /// What the kernel counts for an AF_XDP port; nothing for others.
    #[serde(default)]
    pub xdp: Option<XdpStatistics>,
}

/// What the kernel counts for a port's AF_XDP sockets (`struct xdp_statistics`, linux/if_xdp.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpStatistics {
    /// Received frames dropped for want of a buffer or of sense.
    pub rx_dropped: u64,
    /// Received frames that found the receive ring full.
    pub rx_ring_full: u64,
    /// Received frames that found the fill ring empty.
    pub rx_fill_ring_empty: u64,
    /// Descriptors in the fill ring that the kernel refused.
    pub rx_invalid_descriptors: u64,
    /// Descriptors in the transmit ring that the kernel refused.
    pub tx_invalid_descriptors: u64,
}

impl XdpStatistics {
    /// The counters with the names under which they are exported.
    pub const fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("rx_dropped", self.rx_dropped),
            ("rx_ring_full", self.rx_ring_full),
            ("rx_fill_ring_empty", self.rx_fill_ring_empty),
            ("rx_invalid_descriptors", self.rx_invalid_descriptors),
            ("tx_invalid_descriptors", self.tx_invalid_descriptors),
        ]
    }
}

impl From<PortStatistics> for XdpStatistics {
    fn from(statistics: PortStatistics) -> Self {
        Self {
            rx_dropped: statistics.rx_dropped,
            rx_ring_full: statistics.rx_ring_full,
            rx_fill_ring_empty: statistics.rx_fill_ring_empty,
            rx_invalid_descriptors: statistics.rx_invalid_descriptors,
            tx_invalid_descriptors: statistics.tx_invalid_descriptors,
        }
    }
}

/// Packets dropped under one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// The reason's name ([`DropReason::name`]).
    pub reason: String,
    /// How many.
    pub packets: u64,
}

/// Every packet that came in or was made must have left, been dropped or been absorbed, or waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Packets received on all ports.
    pub received: u64,
    /// Packets that the router made.
    pub originated: u64,
    /// Packets sent on all ports.
    pub sent: u64,
    /// Packets dropped, all reasons.
    pub dropped: u64,
    /// Packets that the router consumed.
    pub absorbed: u64,
    /// Packets that wait.
    pub waiting: u64,
}

impl Balance {
    /// Packets unaccounted for: those in flight while the counters were read, if positive and
    /// passing; a fault in the accounts otherwise.
    pub fn difference(&self) -> i128 {
        let sum = |parts: &[u64]| parts.iter().copied().map(i128::from).sum::<i128>();
        sum(&[self.received, self.originated])
            - sum(&[self.sent, self.dropped, self.absorbed, self.waiting])
    }
}

/// How a node and its parts are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The node's name.
    pub node: String,
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// The node's address on the underlay.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The uplink's name.
    #[serde(default)]
    pub uplink: Option<String>,
    /// Routes by how they carry packets.
    pub routes: Vec<RouteCount>,
    /// The workers.
    pub workers: Vec<WorkerStatus>,
    /// The parts, and whether each does its work.
    pub components: Vec<Component>,
    /// The bridges.
    #[serde(default)]
    pub bridges: Vec<BridgeStatus>,
    /// BGP.
    #[serde(default)]
    pub bgp: Box<BgpStatus>,
    /// The configuration that it was started with.
    #[serde(default)]
    pub config: Option<PathBuf>,
}

impl StatusReport {
    /// Whether no part is beyond recovery: what a supervisor restarts the process by.
    pub fn is_live(&self) -> bool {
        self.components.iter().all(|component| component.live)
    }

    /// Whether every part does its work: what traffic is sent by.
    pub fn is_ready(&self) -> bool {
        self.is_live() && self.components.iter().all(|component| component.ready)
    }
}

/// Routes of one encapsulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCount {
    /// How they carry packets.
    pub encapsulation: Encapsulation,
    /// How many there are.
    pub routes: u64,
}

/// One worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub id: u32,
    /// The processor it is pinned to.
    #[serde(default)]
    pub cpu: Option<u32>,
    /// The part of the last interval in which it had packets to move, 0 to 1.
    pub busy: f64,
}

/// A part of the node, for health checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its name: `datastore`, `worker 0`, `port eth0`, …
    pub name: String,
    /// Whether it runs; if not, only a restart helps.
    pub live: bool,
    /// Whether it does its work.
    pub ready: bool,
    /// What it does or waits for, in a sentence.
    #[serde(default)]
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_balance_counts_each_packet_once() {
        let port = PortCounters {
            rx_packets: 100,
            tx_packets: 90,
            ..PortCounters::default()
        };
        let mut report = CounterReport {
            ports: vec![port.clone(), port],
            punted: 7,
            absorbed: 12,
            originated: 4,
            ..CounterReport::default()
        };
        let mut drops = [0; DropReason::COUNT];
        drops[DropReason::NoRoute as usize] = 11;
        drops[DropReason::Shutdown as usize] = 1;
        report.set_drops(&drops);
        assert_eq!(report.balance().difference(), 0);
        assert_eq!(
            report.drops[DropReason::NoRoute as usize].reason,
            "no_route"
        );
        report.absorbed += 2;
        assert_eq!(report.balance().difference(), -2);
    }

    #[test]
    fn names_are_those_of_the_json() {
        for encapsulation in Encapsulation::ALL {
            let json = serde_json::to_value(encapsulation).unwrap();
            assert_eq!(json, encapsulation.name());
        }
        for kind in [
            RouteKind::Unicast,
            RouteKind::Blackhole,
            RouteKind::Unreachable,
            RouteKind::Local,
            RouteKind::Host,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
