//! The packet path on frames in memory, without I/O: `cargo bench --bench forward`.
//!
//! Packets of 60 bytes (Ethernet, before or inside of the tunnel), each a flow of its own, in frames
//! laid out as in a UMEM: from a page on, 2 KiB apart, [`HEADROOM`] before them. A pass goes once through all [`FRAMES`]
//! of them: it writes packets that were not sent before into [`BURST`] of them, then times `forward`
//! over these, [`BATCH`] at a time, then takes the next ones. So a packet is in the second-level cache,
//! as one is that the kernel has just copied, and the tables are wherever they fit. The cases take
//! turns, a pass each, on one thread.

#[path = "../tests/common/allocations.rs"]
mod allocations;
mod common;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Random;
use ipnet::{IpNet, Ipv4Net};
use underpass::fib::{Fib, NextHop};
use underpass::forward::{
    Adjacency, Egress, PortConfig, PortRole, ReversePath, RouterAddresses, Snapshot, TunnelHeader,
    Tunnels, Verdict, WorkerState, WorkloadSources, forward,
};
use underpass::packet::{BATCH, Frame, HEADROOM, Link, PortId};
use underpass::wire::{MacAddr, Mtu, Vni, checksum};
use underpass::worker::publish::Quiescence;

/// Frames of a pass, as many as a ring and its reserve hold.
const FRAMES: usize = 4096;
/// Frames that are filled, as by a receiving kernel, before they are forwarded.
const BURST: usize = 256;
const FRAME_SIZE: usize = 2048;
/// Where a UMEM begins, as it is mapped.
const PAGE: usize = 4096;
/// Different destinations of a case: more than any cache holds the routes of.
const DESTINATIONS: usize = 1 << 20;
const PASSES: usize = 301;
/// Far nodes, and next hops of each kind.
const NODES: u32 = 16;

const UPLINK: PortId = PortId(0);
const WORKLOAD: PortId = PortId(1);
const UPLINK_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const WORKLOAD_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const POD_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);
const VTEP_MAC: MacAddr = MacAddr([0x66, 0, 0, 0, 0, 1]);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 11);
const FIRST_FAR_NODE: u32 = 0x0a1e_0101;
const POD: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const VXLAN_PORT: u16 = 4789;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

fn main() {
    let seed = common::seed();
    let mut random = Random(seed);
    println!("{}\nseed {seed}", common::machine());
    let one = [Ipv4Net::new(Ipv4Addr::new(198, 51, 100, 0), 24).expect("a prefix")];
    let mut tables = vec![("one route", one.to_vec())];
    if let Some(text) = common::internet() {
        let nets = text.lines().filter_map(|line| line.parse().ok());
        tables.push(("full table", nets.collect()));
    }
    let mut cases: Vec<Case> = Vec::new();
    for (name, nets) in &tables {
        println!("{name}: {} prefixes", nets.len());
        let destinations: Arc<[Ipv4Addr]> = (0..DESTINATIONS)
            .map(|_| inside(&mut random, nets))
            .collect();
        let fib = fib(nets, &mut random);
        for kind in Kind::ALL {
            let snapshot = snapshot(kind, Arc::clone(&fib));
            cases.push(Case::new(name, kind, snapshot, Arc::clone(&destinations)));
        }
    }
    let mut frames: Vec<Frame> = umem();
    let mut floor = Vec::new();
    for pass in 0..PASSES {
        floor.push(touch(&mut frames));
        for case in &mut cases {
            case.pass(&mut frames, pass > 0);
        }
    }
    common::head("64-byte frames, one thread");
    common::row("(a load and a store each)", &mut floor, FRAMES, None);
    for case in &mut cases {
        let name = format!("{}, {}", case.kind.name(), case.table);
        common::row(&name, &mut case.times, FRAMES, Some(case.allocations));
    }
}

/// What is done with the packets of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    VxlanEncap,
    VxlanDecap,
    IpipEncap,
    IpipDecap,
    Direct,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::VxlanEncap,
        Self::VxlanDecap,
        Self::IpipEncap,
        Self::IpipDecap,
        Self::Direct,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::VxlanEncap => "VXLAN encap",
            Self::VxlanDecap => "VXLAN decap",
            Self::IpipEncap => "IPIP encap",
            Self::IpipDecap => "IPIP decap",
            Self::Direct => "direct",
        }
    }

    fn is_decap(self) -> bool {
        matches!(self, Self::VxlanDecap | Self::IpipDecap)
    }

    /// The ports that packets come in and go out by.
    fn ports(self) -> (PortId, PortId) {
        if self.is_decap() {
            (UPLINK, WORKLOAD)
        } else {
            (WORKLOAD, UPLINK)
        }
    }

    /// How packets leave to the far node of that number.
    fn egress(self, node: u32) -> Egress {
        let far_end = Ipv4Addr::from_bits(FIRST_FAR_NODE + node);
        let far_mac = MacAddr([2, 0, 0, 1, 0, node as u8]);
        let far_vtep = MacAddr([0x66, 0, 0, 1, 0, node as u8]);
        let tunnel = |vxlan| TunnelHeader {
            source: NODE,
            far_end,
            vxlan,
        };
        let tunnel = match self {
            Self::VxlanEncap => tunnel(Some((Vni::CALICO, VXLAN_PORT, VTEP_MAC, far_vtep))),
            Self::IpipEncap => tunnel(None),
            Self::Direct => return Egress::ethernet(UPLINK, Mtu(1500), UPLINK_MAC, far_mac),
            Self::VxlanDecap | Self::IpipDecap => {
                return Egress::ethernet(WORKLOAD, Mtu(1500), WORKLOAD_MAC, far_mac);
            }
        };
        Egress::tunnel(UPLINK, Mtu(1450), UPLINK_MAC, far_mac, &tunnel)
    }
}

/// One line of the result.
struct Case {
    table: &'static str,
    kind: Kind,
    snapshot: Snapshot,
    state: WorkerState,
    destinations: Arc<[Ipv4Addr]>,
    sent: usize,
    verdicts: Vec<Verdict>,
    times: Vec<Duration>,
    allocations: usize,
}

impl Case {
    fn new(
        table: &'static str,
        kind: Kind,
        snapshot: Snapshot,
        destinations: Arc<[Ipv4Addr]>,
    ) -> Self {
        Self {
            table,
            kind,
            snapshot,
            state: WorkerState::new(0, 1),
            destinations,
            sent: 0,
            verdicts: Vec::with_capacity(FRAMES),
            times: Vec::with_capacity(PASSES),
            allocations: 0,
        }
    }

    fn pass(&mut self, frames: &mut [Frame], counts: bool) {
        let (ingress, egress) = self.kind.ports();
        let expected = Verdict::Transmit(egress);
        let (mut time, mut allocated) = (Duration::ZERO, 0);
        for burst in frames.chunks_mut(BURST) {
            self.fill(burst);
            self.verdicts.clear();
            let (state, verdicts) = (&mut self.state, &mut self.verdicts);
            let before = allocations::count();
            let start = Instant::now();
            for batch in burst.chunks_mut(BATCH) {
                forward(&self.snapshot, state, ingress, batch, verdicts);
            }
            time += start.elapsed();
            allocated += allocations::count() - before;
            let wrong = verdicts.iter().find(|verdict| **verdict != expected);
            assert_eq!((wrong, verdicts.len()), (None, BURST), "{:?}", self.kind);
        }
        if counts {
            self.times.push(time);
            self.allocations += allocated;
        }
    }

    fn fill(&mut self, burst: &mut [Frame]) {
        for frame in burst {
            let destination = self.destinations[self.sent % DESTINATIONS];
            let packet = packet(self.kind, destination, self.sent as u32);
            assert!(frame.fill(packet.bytes(), HEADROOM));
            self.sent += 1;
        }
    }
}

/// What cannot be done without: one load and one store in each packet.
fn touch(frames: &mut [Frame]) -> Duration {
    let mut time = Duration::ZERO;
    for burst in frames.chunks_mut(BURST) {
        for (frame, number) in burst.iter_mut().zip(0..) {
            let packet = packet(Kind::Direct, POD, number);
            assert!(frame.fill(packet.bytes(), HEADROOM));
        }
        let start = Instant::now();
        for frame in &mut *burst {
            let bytes = frame.bytes_mut();
            bytes[22] = bytes[22].wrapping_sub(1);
        }
        black_box(burst);
        time += start.elapsed();
    }
    time
}

/// Frames as a UMEM has them: one behind the other.
fn umem() -> Vec<Frame> {
    let memory = Box::leak(vec![0; FRAMES * FRAME_SIZE + PAGE].into_boxed_slice());
    let at = memory.as_ptr().align_offset(PAGE);
    let chunks = memory[at..].chunks_exact_mut(FRAME_SIZE).take(FRAMES);
    chunks.map(|chunk| Frame::new(chunk, HEADROOM)).collect()
}

/// The table, with next hops in random order.
fn fib(nets: &[Ipv4Net], random: &mut Random) -> Arc<Fib> {
    let (fib, mut writer) = Fib::new(Quiescence::new());
    for net in nets {
        let to = NextHop(random.below(u64::from(NODES)) as u32);
        writer.insert(IpNet::V4(*net), to).expect("room");
    }
    fib
}

fn snapshot(kind: Kind, fib: Arc<Fib>) -> Snapshot {
    let port = |id, role, mac| PortConfig {
        id,
        role,
        link: Link::Ethernet(mac),
        sources: WorkloadSources {
            allowed: vec![IpNet::from(IpAddr::V4(POD))],
            own: vec![IpAddr::V4(POD)],
        },
        partial_checksums: role == PortRole::Workload,
    };
    Snapshot {
        fib,
        adjacencies: (0..NODES)
            .map(|node| Adjacency::Forward(kind.egress(node)))
            .collect(),
        ports: vec![
            port(UPLINK, PortRole::Uplink, UPLINK_MAC),
            port(WORKLOAD, PortRole::Workload, WORKLOAD_MAC),
        ],
        tunnels: Tunnels {
            peers: (0..NODES)
                .map(|node| Ipv4Addr::from_bits(FIRST_FAR_NODE + node))
                .collect(),
            node_address: Some(NODE),
            vxlan_port: VXLAN_PORT,
            vni: Vni::CALICO,
            also: (VXLAN_PORT, Vni::CALICO),
            vtep_mac: VTEP_MAC,
            strict_reserved_bits: false,
            local_addresses: [NODE, POD].map(IpAddr::V4).into_iter().collect(),
            v6: None,
            reverse_path: ReversePath::default(),
            from_workloads: Default::default(),
        },
        router: RouterAddresses {
            v4: NODE,
            v6: RouterAddresses::GATEWAY_V6,
        },
        bridges: Default::default(),
    }
}

/// A packet as it comes in, built without an allocation: the refill is most of the run.
struct Packet {
    bytes: [u8; 128],
    start: usize,
}

impl Packet {
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn push(&mut self, header: &[u8]) {
        self.start -= header.len();
        self.bytes[self.start..][..header.len()].copy_from_slice(header);
    }

    fn push_ethernet(&mut self, destination: MacAddr, source: MacAddr) {
        self.push(&[8, 0]);
        self.push(&source.0);
        self.push(&destination.0);
    }

    fn push_ipv4(&mut self, protocol: u8, source: Ipv4Addr, destination: Ipv4Addr) {
        let total_len = (self.bytes().len() + 20) as u16;
        let mut header = [
            0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        header[2..4].copy_from_slice(&total_len.to_be_bytes());
        header[12..16].copy_from_slice(&source.octets());
        header[16..].copy_from_slice(&destination.octets());
        let sum = checksum::of(&header).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        self.push(&header);
    }

    /// A UDP header; the checksum is given, or left out if it is none.
    fn push_udp(&mut self, source_port: u16, destination_port: u16, checksum: u16) {
        let length = (self.bytes().len() + 8) as u16;
        let words = [source_port, destination_port, length, checksum];
        for word in words.into_iter().rev() {
            self.push(&word.to_be_bytes());
        }
    }
}

fn packet(kind: Kind, destination: Ipv4Addr, number: u32) -> Packet {
    let mut packet = Packet {
        bytes: [0; 128],
        start: 128 - 18,
    };
    let node = number % NODES;
    let far_node = Ipv4Addr::from_bits(FIRST_FAR_NODE + node);
    let source = if kind.is_decap() {
        Ipv4Addr::new(172, 16, (number >> 8) as u8, number as u8)
    } else {
        POD
    };
    // Some checksum: the packet path looks whether it is finished, not whether it is right.
    packet.push_udp((number >> 4) as u16 | 1, 9, 0x1234);
    packet.push_ipv4(17, source, destination);
    match kind {
        Kind::VxlanEncap | Kind::IpipEncap | Kind::Direct => {
            packet.push_ethernet(MacAddr::WORKLOAD_GATEWAY, POD_MAC);
            return packet;
        }
        Kind::IpipDecap => packet.push_ipv4(4, far_node, NODE),
        Kind::VxlanDecap => {
            packet.push_ethernet(VTEP_MAC, MacAddr([0x66, 0, 0, 1, 0, node as u8]));
            packet.push(&[8, 0, 0, 0, 0, 0x10, 0, 0]);
            packet.push_udp(49152 | number as u16, VXLAN_PORT, 0);
            packet.push_ipv4(17, far_node, NODE);
        }
    }
    packet.push_ethernet(UPLINK_MAC, MacAddr([2, 0, 0, 1, 0, node as u8]));
    packet
}

/// An address that may be forwarded to, in a prefix: each prefix is as likely as the other.
fn inside(random: &mut Random, nets: &[Ipv4Net]) -> Ipv4Addr {
    loop {
        let net = nets[random.below(nets.len() as u64) as usize];
        let host = random.next() as u32 & net.hostmask().to_bits();
        let address = Ipv4Addr::from_bits(net.network().to_bits() | host);
        let first = address.octets()[0];
        if first != 0 && first != 127 && first < 224 {
            return address;
        }
    }
}
