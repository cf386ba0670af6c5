//! A whole node on memory ports in one thread: the packet path and the slow path, without clocks.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use underpass::fib::{Fib, NextHop};
use underpass::forward::{
    self, Bridge, BridgeId, Bridges, Egress, Flood, ForwardingTable, LeadsTo, PeerId, Peers, Place,
    PortRole, Punt, Remote, RemoteId, Remotes, ReversePath, ReversePathMode, Snapshot,
    TunnelHeader, TunnelHeaderV6, Verdict, WorkerState,
};
use underpass::packet::{BATCH, Batch, DropReason, Frame, FramePool, HEADROOM};
use underpass::port::memory::{MemoryPort, MemoryWire};
use underpass::port::{Link, Port, PortId};
use underpass::wire::{MacAddr, Mtu, Vni};
use underpass::worker::publish::Quiescence;
use underpass::worker::slow_path::{Action, Fate, Punted, SlowPath};

use crate::common::over_ipv6::*;
use crate::common::*;

/// The ports of the node's bridge, and the bridge.
const STATIONS: [PortId; 2] = [PortId(4), PortId(5)];
const BRIDGE: BridgeId = BridgeId(0);

/// The node: both families in the underlay, every kind of adjacency, sources judged loosely, a bridge.
pub static NODE_ON_PAPER: LazyLock<Snapshot> = LazyLock::new(dual_stack);

fn dual_stack() -> Snapshot {
    let mut snapshot = snapshot();
    let v6 = over_ipv6(true);
    let over_v6 = snapshot.adjacencies.len() as u32;
    snapshot.adjacencies.push(v6.adjacencies[VXLAN_HOP].clone());
    let (fib, mut writer) = Fib::new(Quiescence::new());
    for (prefix, next_hop) in [
        ("0.0.0.0/0", 5),
        ("192.168.0.0/16", 8),
        ("192.168.1.0/26", 7),
        ("192.168.1.2/32", 0),
        ("192.168.1.3/32", 10),
        ("192.168.2.0/26", 1),
        ("192.168.3.0/26", 2),
        ("192.168.4.0/26", 3),
        ("192.168.5.0/26", 9),
        ("192.168.6.0/26", over_v6),
        ("169.254.1.1/32", 6),
        ("10.30.0.11/32", 5),
        ("fd00:0:0:1::2/128", 0),
        ("fd00:0:0:1::/122", 7),
        ("fd00:0:0:2::/122", 1),
        ("fd00:0:0:3::/122", over_v6),
        ("fd00:0:0:4::/122", 2),
        ("fd00:30::11/128", 5),
        ("fe80::ecee:eeff:feee:eeee/128", 6),
    ] {
        writer
            .insert(prefix.parse().unwrap(), NextHop(next_hop))
            .unwrap();
    }
    snapshot.fib = fib;
    let nodes = [
        (IpAddr::V4(FAR_NODE), PeerId(0)),
        (IpAddr::V6(FAR_NODE_V6), PeerId(0)),
    ];
    let external = vec!["10.40.0.0/24".parse().unwrap()];
    snapshot.tunnels.peers = Peers::new(nodes, external);
    snapshot.tunnels.v6 = v6.tunnels.v6;
    let leads_to = vec![LeadsTo::Node(PeerId(0)); snapshot.adjacencies.len()];
    snapshot.tunnels.reverse_path = ReversePath {
        mode: ReversePathMode::Loose,
        leads_to,
    };
    for id in STATIONS {
        let mut port = snapshot.ports[usize::from(WORKLOAD.0)].clone();
        (port.id, port.role) = (id, PortRole::Bridge(BRIDGE));
        port.link = Link::Ethernet(WORKLOAD_DEVICE_MAC);
        snapshot.ports.push(port);
    }
    snapshot.bridges = Bridges::new(vec![bridge()]);
    snapshot
}

/// Two stations' ports, remotes over either family, the one over IPv6 behind a narrow path; one whose way
/// is not known, and one that has gone.
fn bridge() -> Bridge {
    let none = MacAddr::default();
    let network = (Vni::new(77).unwrap(), 4789, none, none);
    let over_v4 = TunnelHeader {
        source: NODE,
        far_end: FAR_NODE,
        vxlan: Some(network),
    };
    let over_v6 = TunnelHeaderV6 {
        source: NODE_V6,
        far_end: FAR_NODE_V6,
        vxlan: network,
        zero_checksum: false,
    };
    let way = |egress: Egress| Some(egress.for_frames());
    let (from, to) = (UPLINK_MAC, FAR_UPLINK_MAC);
    let remote = |address: IpAddr, egress| Some(Remote { address, egress });
    let remotes = vec![
        remote(
            FAR_NODE.into(),
            way(Egress::tunnel(UPLINK, Mtu(1450), from, to, &over_v4)),
        ),
        remote(
            FAR_NODE_V6.into(),
            way(Egress::tunnel_v6(UPLINK, Mtu(1210), from, to, &over_v6)),
        ),
        remote("10.30.0.13".parse().unwrap(), None),
        None,
    ];
    let configured = MacAddr([2, 0, 0, 0, 9, 3]);
    let far = Place::Remote(RemoteId::new(1).unwrap());
    Bridge {
        vni: Vni::new(77).unwrap(),
        udp_port: 4789,
        ports: STATIONS.to_vec(),
        remotes: Remotes::new(remotes),
        stations: [(configured, far)].into_iter().collect(),
        neighbours: [("10.9.0.3".parse().unwrap(), (configured, false))]
            .into_iter()
            .collect(),
        table: Arc::new(ForwardingTable::new(32, 300, 1)),
        learning: true,
        ageing: 300,
        suppression: true,
        neighbours_refused: Default::default(),
        link_local_groups: false,
    }
}

/// What moves packets between the node's ports, and counts how each one ends.
pub struct Router {
    ports: Vec<MemoryPort>,
    wires: Vec<MemoryWire>,
    pool: FramePool,
    frames: usize,
    state: WorkerState,
    incoming: Batch,
    outgoing: Batch,
    verdicts: Vec<Verdict>,
}

/// One run's account.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub received: usize,
    pub originated: usize,
    pub sent: usize,
    pub dropped: usize,
    pub absorbed: usize,
    pub waiting: usize,
}

impl Router {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let mut router = Self {
            ports: Vec::new(),
            wires: Vec::new(),
            pool: FramePool::with_memory(2 * BATCH, 4096, HEADROOM),
            frames: 2 * BATCH,
            state: WorkerState::new(0, 1),
            incoming: Batch::with_capacity(BATCH),
            outgoing: Batch::with_capacity(1),
            verdicts: Vec::with_capacity(BATCH),
        };
        for port in &NODE_ON_PAPER.ports {
            let (device, wire) = MemoryPort::new(port.id, port.link).unwrap();
            router.ports.push(device);
            router.wires.push(wire);
        }
        router
    }

    /// Has the ports receive these frames, in this order and in batches of one port's, and follows
    /// every packet to its end.
    pub fn run<'a>(&mut self, frames: impl Iterator<Item = (usize, &'a [u8])>) -> Account {
        let mut account = Account::default();
        let mut slow_path = SlowPath::default();
        let start = Instant::now();
        let mut last = None;
        // What an input does must not depend on the one before.
        let bridge = NODE_ON_PAPER.bridges.get(BRIDGE).expect("a bridge");
        bridge.table.forget(|_| true);
        for (port, frame) in frames {
            let port = port % self.ports.len();
            if last.is_some_and(|last| last != port) {
                self.drain(start, &mut slow_path, &mut account);
            }
            self.wires[port].inject(frame);
            last = Some(port);
        }
        self.drain(start, &mut slow_path, &mut account);
        // Two minutes later nothing waits any more, but for what then is stopped.
        let mut actions = Vec::new();
        let late = start + Duration::from_secs(120);
        let ended = slow_path.tick(late, &NODE_ON_PAPER, &mut actions);
        ended.into_iter().for_each(|fate| account.end_waiting(fate));
        self.carry_out(late, actions, &mut slow_path, &mut account);
        let ended = slow_path.stop();
        ended.into_iter().for_each(|fate| account.end_waiting(fate));
        assert_eq!(self.pool.available(), self.frames, "frames are lost");
        account
    }

    /// Forwards one frame; the verdict and what the frame holds.
    pub fn one(&mut self, ingress: PortId, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let mut frame = self.pool.take().expect("a frame");
        assert!(frame.fill(bytes, HEADROOM));
        let mut verdicts = Vec::new();
        let mut batch = [frame];
        forward::forward(
            &NODE_ON_PAPER,
            &mut self.state,
            ingress,
            &mut batch,
            &mut verdicts,
        );
        let [frame] = batch;
        let held = frame.bytes().to_vec();
        self.pool.give(frame);
        (verdicts[0], held)
    }

    fn drain(&mut self, now: Instant, slow_path: &mut SlowPath, account: &mut Account) {
        for index in 0..self.ports.len() {
            loop {
                let taken = self.ports[index].rx(&mut self.pool, &mut self.incoming);
                if taken.unwrap() == 0 {
                    break;
                }
                account.received += self.incoming.len();
                self.forward(now, self.ports[index].id(), slow_path, account);
            }
            self.wires[index].sent();
        }
    }

    fn forward(
        &mut self,
        now: Instant,
        ingress: PortId,
        slow_path: &mut SlowPath,
        account: &mut Account,
    ) {
        let mut verdicts = std::mem::take(&mut self.verdicts);
        let mut batch = std::mem::take(&mut self.incoming);
        verdicts.clear();
        forward::forward(
            &NODE_ON_PAPER,
            &mut self.state,
            ingress,
            &mut batch,
            &mut verdicts,
        );
        assert_eq!(verdicts.len(), batch.len(), "one verdict a frame");
        for (frame, verdict) in batch.drain(..).zip(&verdicts) {
            match *verdict {
                Verdict::Punt(punt) => {
                    self.punt(now, (Some(ingress), punt), frame, slow_path, account);
                }
                verdict => self.dispose_of_own(now, verdict, frame, slow_path, account),
            }
        }
        (self.incoming, self.verdicts) = (batch, verdicts);
    }

    fn punt(
        &mut self,
        now: Instant,
        (ingress, punt): (Option<PortId>, Punt),
        frame: Frame,
        slow_path: &mut SlowPath,
        account: &mut Account,
    ) {
        let mut actions = Vec::new();
        let punted = Punted {
            ingress,
            punt,
            packet: frame.bytes().to_vec(),
        };
        self.pool.give(frame);
        account.punted(slow_path.handle(now, &NODE_ON_PAPER, punted, &mut actions));
        let ended = slow_path.tick(now, &NODE_ON_PAPER, &mut actions);
        ended.into_iter().for_each(|fate| account.end_waiting(fate));
        self.carry_out(now, actions, slow_path, account);
    }

    /// The verdict on a packet that the slow path has had already, or a copy.
    fn dispose_of_own(
        &mut self,
        now: Instant,
        verdict: Verdict,
        frame: Frame,
        slow_path: &mut SlowPath,
        account: &mut Account,
    ) {
        match verdict {
            Verdict::Transmit(port) => {
                well_formed(port, frame.bytes());
                self.send(port, frame, account);
            }
            Verdict::Flood(flood) => self.flood(now, flood, frame, slow_path, account),
            Verdict::Punt(punt @ Punt::CutOutside(..)) => {
                self.punt(now, (None, punt), frame, slow_path, account);
            }
            Verdict::Drop(_) | Verdict::Punt(_) => {
                account.dropped += 1;
                self.pool.give(frame);
            }
        }
    }

    /// A copy to each target; what is too large is told once.
    fn flood(
        &mut self,
        now: Instant,
        flood: Flood,
        frame: Frame,
        slow_path: &mut SlowPath,
        account: &mut Account,
    ) {
        let mut told = false;
        let targets: Vec<_> = NODE_ON_PAPER.bridges.targets(flood).collect();
        assert!(!targets.is_empty(), "somebody is always there");
        account.originated += targets.len() - 1;
        for target in targets {
            let mut copy = self.pool.take().expect("a frame");
            assert!(copy.fill(frame.bytes(), HEADROOM));
            let state = &mut self.state;
            let verdict = forward::deliver(&NODE_ON_PAPER, state, BRIDGE, target, &mut copy);
            match (verdict, flood.from) {
                (Verdict::Punt(punt @ Punt::BridgedTooBig(_)), Place::Port(port)) if !told => {
                    told = true;
                    self.punt(now, (Some(port), punt), copy, slow_path, account);
                }
                _ => self.dispose_of_own(now, verdict, copy, slow_path, account),
            }
        }
        self.pool.give(frame);
    }

    fn carry_out(
        &mut self,
        now: Instant,
        actions: Vec<Action>,
        slow_path: &mut SlowPath,
        account: &mut Account,
    ) {
        for action in actions {
            let bytes = match &action {
                Action::Tell(_) => continue,
                Action::Originate(bytes)
                | Action::Transmit(_, bytes)
                | Action::Receive(_, bytes)
                | Action::Bridge(.., bytes) => bytes,
            };
            account.originated += 1;
            let mut frame = self.pool.take().expect("a frame");
            if !frame.fill(bytes, HEADROOM) {
                account.dropped += 1;
                self.pool.give(frame);
                continue;
            }
            let state = &mut self.state;
            match action {
                Action::Tell(_) => {}
                Action::Originate(_) => {
                    let verdict = forward::originate(&NODE_ON_PAPER, state, &mut frame);
                    match verdict {
                        Verdict::Punt(punt @ (Punt::TooBig(_) | Punt::Unresolved(_))) => {
                            self.punt(now, (None, punt), frame, slow_path, account);
                        }
                        _ => self.dispose_of_own(now, verdict, frame, slow_path, account),
                    }
                }
                Action::Bridge(id, from, _) => {
                    let verdict = forward::resume(&NODE_ON_PAPER, state, id, from, &mut frame);
                    self.dispose_of_own(now, verdict, frame, slow_path, account);
                }
                // To a workload that may be ARP.
                Action::Transmit(port, _) => {
                    if role(port) == PortRole::Uplink {
                        well_formed(port, frame.bytes());
                    }
                    self.send(port, frame, account);
                }
                // What was put together or cut up comes in again.
                Action::Receive(port, _) => {
                    self.incoming.push(frame);
                    self.forward(now, port, slow_path, account);
                }
            }
        }
    }

    fn send(&mut self, port: PortId, frame: Frame, account: &mut Account) {
        self.outgoing.push(frame);
        let device = &mut self.ports[usize::from(port.0)];
        account.sent += device.tx(&mut self.pool, &mut self.outgoing).sent;
        assert!(self.outgoing.is_empty());
    }
}

impl Account {
    pub fn balances(&self) -> bool {
        self.waiting == 0
            && self.received + self.originated == self.sent + self.dropped + self.absorbed
    }

    fn punted(&mut self, fate: Fate) {
        match fate {
            Fate::Absorbed => self.absorbed += 1,
            Fate::Dropped(_) => self.dropped += 1,
            Fate::Waits => self.waiting += 1,
        }
    }

    fn end_waiting(&mut self, fate: Fate) {
        assert_ne!(fate, Fate::Waits);
        self.waiting = self.waiting.checked_sub(1).expect("nothing waited");
        self.punted(fate);
    }
}

fn role(port: PortId) -> PortRole {
    NODE_ON_PAPER.ports[usize::from(port.0)].role
}

/// What goes out is a packet that another implementation can read, no longer than the link takes; what
/// stations say to one another is their business.
fn well_formed(port: PortId, frame: &[u8]) {
    if matches!(role(port), PortRole::Bridge(_)) {
        return;
    }
    let (sliced, link) = if role(port) == PortRole::Host {
        (etherparse::SlicedPacket::from_ip(frame), 0)
    } else {
        (etherparse::SlicedPacket::from_ethernet(frame), 14)
    };
    assert!(frame.len() <= 1500 + link, "{} bytes", frame.len());
    let packet = &frame[link..];
    if packet[0] >> 4 == 4 {
        let (header, _) = etherparse::Ipv4Header::from_slice(packet).expect("an IPv4 header");
        assert!(crate::entries::right_checksum(packet));
        assert_eq!(usize::from(header.total_len), packet.len());
    } else {
        let (header, _) = etherparse::Ipv6Header::from_slice(packet).expect("an IPv6 header");
        assert_eq!(usize::from(header.payload_length) + 40, packet.len());
    }
    // Damage behind the headers is the sender's and the receiver's business.
    drop(sliced);
}

/// Every reason for a punt, for entries that pick one.
pub const PUNTS: [Punt; 14] = [
    Punt::Arp,
    Punt::NeighbourDiscovery,
    Punt::ToRouter,
    Punt::NoRoute,
    Punt::Blackhole,
    Punt::TtlExpired,
    Punt::TooBig(Mtu(1280)),
    Punt::Unresolved(NextHop(9)),
    Punt::OuterFragment,
    Punt::TunnelError,
    Punt::Dhcp,
    Punt::Bridged(BRIDGE, Place::Port(STATIONS[0])),
    Punt::BridgedTooBig(Mtu(1210)),
    Punt::CutOutside(UPLINK, Mtu(1280)),
];

/// Counts what a slow path alone does with packets; everything ends in the end.
pub fn slow_path_ends(punted: impl Iterator<Item = Punted>) -> Vec<Action> {
    let (mut slow_path, start) = (SlowPath::default(), Instant::now());
    let (mut actions, mut account) = (Vec::new(), Account::default());
    for (nth, punted) in punted.enumerate() {
        let now = start + Duration::from_millis(nth as u64);
        account.punted(slow_path.handle(now, &NODE_ON_PAPER, punted, &mut actions));
        let ended = slow_path.tick(now, &NODE_ON_PAPER, &mut actions);
        ended.into_iter().for_each(|fate| account.end_waiting(fate));
    }
    let ended = slow_path.stop();
    assert!(
        ended
            .iter()
            .all(|fate| *fate == Fate::Dropped(DropReason::Shutdown))
    );
    ended.into_iter().for_each(|fate| account.end_waiting(fate));
    assert_eq!(account.waiting, 0);
    actions
}
