//! The fast path does what the packet path would: the same packets go through the XDP program
//! (BPF_PROG_TEST_RUN) and through [`underpass::forward`]. What the program sends itself must have the
//! bytes and the port that forward gives; what forward drops or punts must have gone up, unchanged.
//! As root only; see [`netns`].

mod common;
#[path = "common/netns.rs"]
mod netns;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::fates;
use common::*;
use netns::{isolated, sh};
use underpass::control::fast_path::FastPathMirror;
use underpass::fib::NextHop;
use underpass::forward::{
    Adjacency, Bridge, Bridges, Dscp, Egress, Encapsulation, ForwardingTable, LeadsTo, OuterTtl,
    PeerId, ReversePath, ReversePathMode, Snapshot, TunnelHeaderV6, TunnelsV6, Verdict,
    WorkerState,
};
use underpass::packet::{Frame, HEADROOM};
use underpass::port::PortId;
use underpass::port::xdp::fast_path::{FastPath, FastPort};
use underpass::wire::{Mtu, Vni, checksum};

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

const NODE_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x11);
const FAR_NODE_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x12);

/// The ports that have devices, with their interfaces' indices: the last is one that the program finds by
/// hashing. The host's is a TUN device, which the fast path does not serve.
const DEVICES: [(PortId, &str, u32); 3] = [
    (UPLINK, "uplink0", 11),
    (WORKLOAD, "pod0", 16383),
    (OTHER_WORKLOAD, "pod1", 16384),
];

/// A node whose packets go both ways.
struct Twin {
    snapshot: Snapshot,
    mirror: FastPathMirror,
    indexes: BTreeMap<PortId, u32>,
    state: WorkerState,
    frame: Vec<Frame>,
    sent: BTreeMap<PortId, u64>,
    output: Vec<u8>,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// By the program.
    Fast(PortId),
    /// By forward.
    Slow,
}

impl Twin {
    fn new(snapshot: Snapshot) -> Self {
        let mut mirror = FastPathMirror::new(FastPath::load().unwrap(), 1);
        let mut indexes = BTreeMap::new();
        for (id, device, index) in DEVICES {
            sh(&format!(
                "ip link show {device} >/dev/null 2>&1 || ip link add {device} index {index} type veth peer name {device}p"
            ));
            indexes.insert(id, index);
            let port = FastPort {
                id,
                device,
                workload: id != UPLINK,
                partial_checksums: snapshot.ports[usize::from(id.0)].partial_checksums,
                sockets: &[],
            };
            mirror.fast_path().add_port(&port).unwrap();
            mirror.fast_path().ports().open(id, true, true);
        }
        mirror.update(&snapshot);
        for (prefix, next_hop) in ROUTES {
            mirror.insert_route(prefix.parse().unwrap(), NextHop(next_hop));
        }
        assert_eq!(mirror.failure(), None);
        Self {
            snapshot,
            mirror,
            indexes,
            state: WorkerState::new(0, 1),
            frame: vec![Frame::leak(8192, HEADROOM)],
            sent: BTreeMap::new(),
            output: vec![0; 8192],
        }
    }

    /// Has the maps follow the snapshot.
    fn follow(&mut self) {
        self.mirror.update(&self.snapshot);
        assert_eq!(self.mirror.failure(), None);
    }

    /// Sends a frame both ways; an error if they disagree.
    fn send(&mut self, ingress: PortId, bytes: &[u8]) -> Result<Way, String> {
        let (verdict, expected) = self.forward(ingress, bytes);
        let (action, output) = self.run(ingress, bytes);
        if action == XDP_PASS {
            let unchanged = bytes.starts_with(&output);
            let trimmed = bytes.len() - output.len();
            if unchanged && (trimmed == 0 || self.forward(ingress, &output) == (verdict, expected))
            {
                return Ok(Way::Slow);
            }
            return Err(format!("it went up changed: {output:02x?}"));
        }
        if action != XDP_REDIRECT {
            return Err(format!("the program says {action}"));
        }
        let port = self.sent_by();
        if verdict != Verdict::Transmit(port) {
            return Err(format!("{verdict:?}, but the program sent it by {port:?}"));
        }
        if without_identification(&output)? != without_identification(&expected)? {
            return Err(format!(
                "{expected:02x?}\nfrom forward, from the program\n{output:02x?}"
            ));
        }
        Ok(Way::Fast(port))
    }

    fn forward(&mut self, ingress: PortId, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        assert!(self.frame[0].fill(bytes, HEADROOM));
        let mut verdicts = Vec::new();
        let Self {
            snapshot,
            state,
            frame,
            ..
        } = self;
        underpass::forward::forward(snapshot, state, ingress, frame, &mut verdicts);
        (verdicts[0], frame[0].bytes().to_vec())
    }

    fn run(&mut self, ingress: PortId, bytes: &[u8]) -> (u32, Vec<u8>) {
        use aya::programs::{TestRun, TestRunOptions};
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let context: Vec<u8> = [0, bytes.len() as u32, 0, self.indexes[&ingress], 0, 0]
            .iter()
            .flat_map(|word: &u32| word.to_ne_bytes())
            .collect();
        let program = self.mirror.fast_path().program_mut().unwrap();
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(bytes),
                data_out: Some(&mut self.output),
                ctx_in: Some(&context),
                ..TestRunOptions::new()
            })
            .unwrap();
        let length = result.data_size_out as usize;
        (result.return_value, self.output[..length].to_vec())
    }

    /// The port by which the program has sent a packet since the last call.
    fn sent_by(&mut self) -> PortId {
        let counters = self.mirror.fast_path().counters();
        let mut by = None;
        for (id, ..) in DEVICES {
            let now = counters.port(id).tx_packets;
            if self.sent.insert(id, now).unwrap_or(0) != now {
                by = Some(id);
            }
        }
        by.expect("a redirect is counted")
    }
}

/// The frame with its outer identification and checksum zeroed, the checksum once it was found right.
/// Only the identification may differ: each side counts its own.
fn without_identification(frame: &[u8]) -> Result<Vec<u8>, String> {
    let mut frame = frame.to_vec();
    if frame.get(12..15) == Some(&[8, 0, 0x45]) {
        if !checksum::is_valid(&frame[14..34]) {
            return Err(format!("its IP checksum is wrong: {frame:02x?}"));
        }
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    Ok(frame)
}

/// The node of [`common`], with a tunnel end point over IPv6 and a way by it.
fn with_ipv6_underlay() -> Snapshot {
    let mut snapshot = snapshot();
    snapshot.tunnels.v6 = Some(TunnelsV6 {
        node_address: NODE_V6,
        vtep_mac: VTEP_MAC,
        zero_checksum: true,
    });
    let far = TunnelHeaderV6 {
        source: NODE_V6,
        far_end: FAR_NODE_V6,
        vxlan: (Vni::CALICO, 4789, VTEP_MAC, FAR_VTEP_MAC),
        zero_checksum: true,
    };
    let egress = Egress::tunnel_v6(UPLINK, Mtu(1430), UPLINK_MAC, FAR_UPLINK_MAC, &far);
    snapshot.adjacencies[3] = Adjacency::Forward(egress);
    snapshot.tunnels.peers = underpass::forward::Peers::new(
        [
            (FAR_NODE.into(), PeerId(0)),
            (FAR_NODE_V6.into(), PeerId(0)),
        ],
        vec!["10.30.0.96/28".parse().unwrap()],
    );
    snapshot
}

fn with_reverse_path(mode: ReversePathMode) -> Snapshot {
    let mut snapshot = snapshot();
    let leads_to = |adjacency: &Adjacency| match adjacency {
        Adjacency::Forward(egress) if egress.port == UPLINK => match egress.encapsulation {
            // The direct way leads to another node than the tunnels.
            Encapsulation::None => LeadsTo::Node(PeerId(7)),
            _ => LeadsTo::Node(PeerId(0)),
        },
        Adjacency::Forward(_) | Adjacency::Several(_) | Adjacency::Router => LeadsTo::Elsewhere,
        Adjacency::Unresolved => LeadsTo::Node(PeerId(0)),
        Adjacency::Blackhole | Adjacency::Unreachable => LeadsTo::Nowhere,
    };
    snapshot.tunnels.reverse_path = ReversePath {
        mode,
        leads_to: snapshot.adjacencies.iter().map(leads_to).collect(),
    };
    snapshot
}

fn with_marks() -> Snapshot {
    let mut snapshot = with_ipv6_underlay();
    snapshot.tunnels.strict_reserved_bits = true;
    for adjacency in &mut snapshot.adjacencies {
        if let Adjacency::Forward(egress) = adjacency {
            *egress = egress.clone().marking(OuterTtl::Inherit, Dscp::Fixed(46));
        }
    }
    snapshot
}

/// VXLAN on three UDP ports: workloads may send to none of them.
fn with_more_vxlan_ports() -> Snapshot {
    let mut snapshot = snapshot();
    snapshot.tunnels.also = (2000, Vni::CALICO);
    snapshot.bridges = Bridges::new(vec![Bridge {
        vni: Vni::new(1).unwrap(),
        udp_port: 8472,
        ports: Vec::new(),
        remotes: Default::default(),
        stations: Default::default(),
        neighbours: Default::default(),
        table: Arc::new(ForwardingTable::new(16, 300, 1)),
        learning: true,
        ageing: 300,
        suppression: true,
        neighbours_refused: Default::default(),
        link_local_groups: false,
    }]);
    snapshot
}

/// Every kind of node that packets are sent through.
fn nodes() -> Vec<(&'static str, Snapshot)> {
    vec![
        ("plain", snapshot()),
        ("IPv6 underlay, an external node", with_ipv6_underlay()),
        ("loose", with_reverse_path(ReversePathMode::Loose)),
        ("strict", with_reverse_path(ReversePathMode::Strict)),
        ("strict bits, inherited TTL, fixed DSCP", with_marks()),
        (
            "a bridge, a VXLAN port about to change",
            with_more_vxlan_ports(),
        ),
    ]
}

/// A small generator, so that a failure's number is enough to see it again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_in(&mut self, limit: usize) -> bool {
        self.below(limit) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// An inner packet: mostly in order, of addresses that mean something to the node.
fn inner(
    random: &mut Random,
    sources: &[std::net::IpAddr],
    destinations: &[std::net::IpAddr],
) -> Vec<u8> {
    use std::net::IpAddr;
    let size = match random.below(8) {
        0 => 0,
        1 => random.below(1500),
        2 => 1380 + random.below(100),
        _ => random.below(200),
    };
    let mut payload: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
    // What an ICMP error would quote.
    if random.one_in(4) {
        let inner = udp(FAR_IPIP, POD, 64, b"quoted");
        payload = match random.below(3) {
            0 => ipip(NODE, FAR_NODE, &inner),
            1 => vxlan(FAR_NODE, CALICO_VXLAN, &ethernet(VTEP_MAC, POD_MAC, &inner)),
            _ => inner,
        };
    }
    let ttl = random.pick(&[64, 64, 64, 255, 3, 2, 1, 0]);
    let source = random.pick(sources);
    let same_family = |address: &&IpAddr| address.is_ipv4() == source.is_ipv4();
    let destinations: Vec<IpAddr> = destinations.iter().filter(same_family).copied().collect();
    let destination = random.pick(&destinations);
    let ports = (
        random.below(65536) as u16,
        random.pick(&[53, 80, 4789, 8472, 2000]),
    );
    let builder = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            etherparse::PacketBuilder::ipv4(source.octets(), destination.octets(), ttl)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            etherparse::PacketBuilder::ipv6(source.octets(), destination.octets(), ttl)
        }
        _ => unreachable!("one family"),
    };
    let mut packet = Vec::new();
    let kind = random.pick(&[0, 1, 3, 5, 8, 11, 128, 129, 133, 135, 137]);
    match random.below(6) {
        0 | 1 => builder.udp(ports.0, ports.1).write(&mut packet, &payload),
        2 | 3 => builder
            .tcp(ports.0, ports.1, 1, 2)
            .write(&mut packet, &payload),
        4 if source.is_ipv4() => builder
            .icmpv4_raw(kind, 0, [0; 4])
            .write(&mut packet, &payload),
        4 => builder
            .icmpv6_raw(kind, 0, [0; 4])
            .write(&mut packet, &payload),
        _ => {
            let protocol = random.pick(&[4, 33, 41, 47, 50, 51, 132, 136, 200, 0, 43, 44, 60]);
            let written = builder.write(&mut packet, etherparse::IpNumber(200), &payload);
            set_protocol(&mut packet, protocol);
            written
        }
    }
    .unwrap();
    if random.one_in(8) {
        unfinish(&mut packet);
    }
    packet
}

/// Says that something else follows the IP header.
fn set_protocol(packet: &mut [u8], protocol: u8) {
    if packet[0] >> 4 == 6 {
        packet[6] = protocol;
        return;
    }
    packet[9] = protocol;
    packet[10..12].fill(0);
    let sum = checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Leaves the transport checksum as a kernel leaves it to its device: the pseudo-header's sum.
fn unfinish(packet: &mut [u8]) {
    use underpass::wire::checksum::Checksum;
    let (protocol, start, pseudo) = match packet[0] >> 4 {
        4 => {
            let ip = underpass::wire::ipv4::Ipv4::parse(packet).unwrap();
            let sum =
                Checksum::pseudo_ipv4(ip.source, ip.destination, ip.protocol, ip.payload_len());
            (ip.protocol, ip.header_len, sum)
        }
        _ => {
            let ip = underpass::wire::ipv6::Ipv6::parse(packet).unwrap();
            let sum =
                Checksum::pseudo_ipv6(ip.source, ip.destination, ip.next_header, ip.payload_len);
            (ip.next_header, 40, sum)
        }
    };
    let field = match protocol {
        6 => start + 16,
        17 => start + 6,
        _ => return,
    };
    packet[field..field + 2].copy_from_slice(&pseudo.folded().to_be_bytes());
}

/// Changes single fields of the IPv4 header at `at`, if there is one, and mostly sets its checksum.
fn change_ipv4(random: &mut Random, packet: &mut [u8], at: usize) {
    let Some(header) = packet.get_mut(at..at + 20) else {
        return;
    };
    if header[0] >> 4 != 4 {
        if header[0] >> 4 == 6 && random.one_in(2) {
            header[0] = 0x60 | random.next() as u8 & 0x0f;
            header[1] = random.next() as u8;
        }
        return;
    }
    match random.below(8) {
        0 | 1 => header[1] = random.next() as u8,
        2 => header[6] ^= 0x40,
        3 => header[6] ^= random.pick(&[0x80, 0x20, 0x01]),
        4 => header[4..6].copy_from_slice(&(random.next() as u16).to_be_bytes()),
        5 => header[0] = random.pick(&[0x45, 0x46, 0x44, 0x4f, 0x55]),
        6 => header[8] = random.pick(&[0, 1, 2, 255]),
        _ => {
            let length = u16::from_be_bytes([header[2], header[3]]);
            let length = length.wrapping_add(random.below(9) as u16).wrapping_sub(4);
            header[2..4].copy_from_slice(&length.to_be_bytes());
        }
    }
    if !random.one_in(16) {
        header[10..12].fill(0);
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// A frame and the port that it comes in by.
fn generate(random: &mut Random) -> (PortId, Vec<u8>) {
    use std::net::IpAddr;
    let stranger: IpAddr = std::net::Ipv4Addr::from_bits(random.next() as u32).into();
    let pods: [IpAddr; 3] = [POD.into(), OTHER_POD.into(), POD_V6.into()];
    let far: [IpAddr; 7] = [
        FAR_IPIP.into(),
        FAR_VXLAN.into(),
        FAR_DIRECT.into(),
        FAR_VXLAN_V6.into(),
        "fd00:0:0:2::2".parse().unwrap(),
        fates::UNRESOLVED.into(),
        NODE.into(),
    ];
    let odd: [IpAddr; 10] = [
        fates::WORLD.into(),
        fates::NOWHERE.into(),
        fates::NOBODY.into(),
        fates::GATEWAY.into(),
        "ff02::1".parse().unwrap(),
        "::1".parse().unwrap(),
        "fe80::9".parse().unwrap(),
        FAR_NODE.into(),
        POD.to_ipv6_mapped().into(),
        stranger,
    ];
    let all: Vec<IpAddr> = pods.iter().chain(&far).chain(&odd).copied().collect();
    if random.one_in(2) {
        let port = random.pick(&[WORKLOAD, WORKLOAD, WORKLOAD, OTHER_WORKLOAD]);
        let own: &[IpAddr] = if port == WORKLOAD {
            &[POD.into(), POD_V6.into()]
        } else {
            &[OTHER_POD.into()]
        };
        let sources = if random.one_in(12) { &all[..] } else { own };
        let mut packet = inner(random, sources, &all);
        if random.one_in(3) {
            change_ipv4(random, &mut packet, 0);
        }
        (port, from_pod(&packet))
    } else {
        let sources = if random.one_in(8) {
            &all[..]
        } else {
            &far[..4]
        };
        let destinations = if random.one_in(4) {
            &all[..]
        } else {
            &pods[..]
        };
        let mut packet = inner(random, sources, destinations);
        if random.one_in(3) {
            change_ipv4(random, &mut packet, 0);
        }
        (UPLINK, from_uplink(&outer(random, &packet)))
    }
}

/// The packet in a tunnel packet, or as it is.
fn outer(random: &mut Random, packet: &[u8]) -> Vec<u8> {
    let sender = random.pick(&[FAR_NODE, FAR_NODE, FAR_NODE, FAR_NODE, STRANGER, FAR_IPIP]);
    let vtep = random.pick(&[VTEP_MAC, VTEP_MAC, VTEP_MAC, VTEP_MAC, POD_MAC]);
    let frame = ethernet(FAR_VTEP_MAC, vtep, packet);
    let mut header = CALICO_VXLAN;
    if random.one_in(8) {
        header[random.below(8)] ^= 1 << random.below(8);
    }
    let mut outer = match random.below(8) {
        0 => return packet.to_vec(),
        1..4 => ipip(sender, NODE, packet),
        4 => return vxlan_over_ipv6(random, header, &frame),
        _ => vxlan(sender, header, &frame),
    };
    if random.one_in(16)
        && let Some(checksum) = outer.get_mut(26..28)
    {
        checksum.copy_from_slice(&(random.next() as u16).to_be_bytes());
    }
    if random.one_in(3) {
        change_ipv4(random, &mut outer, 0);
    }
    outer
}

fn vxlan_over_ipv6(random: &mut Random, header: [u8; 8], frame: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let as_v6 = FAR_NODE.to_ipv6_mapped();
    let sender = random.pick(&[FAR_NODE_V6, FAR_NODE_V6, FAR_NODE_V6, POD_V6, as_v6]);
    etherparse::PacketBuilder::ipv6(sender.octets(), NODE_V6.octets(), 64)
        .udp(50000, 4789)
        .write(&mut packet, &[&header[..], frame].concat())
        .unwrap();
    if !random.one_in(4) {
        packet[46..48].fill(0);
    }
    change_ipv4(random, &mut packet, 0);
    packet
}

/// Damages a frame in one frame of four: bytes, its length, its padding.
fn damage(random: &mut Random, frame: &mut Vec<u8>) {
    if !random.one_in(4) {
        return;
    }
    for _ in 0..=random.below(3) {
        match random.below(4) {
            0 => frame.truncate(14 + random.below(frame.len() - 13)),
            1 => frame.extend((0..random.below(40)).map(|_| 0)),
            _ => {
                let at = random.below(frame.len().min(120));
                frame[at] ^= 1 << random.below(8);
            }
        }
    }
}

/// Frames through each kind of node; together some hundred thousand.
const CASES: usize = 60_000;

#[test]
fn the_program_treats_packets_as_forward_does() {
    isolated(|| {
        for (what, snapshot) in nodes() {
            let mut twin = Twin::new(snapshot);
            let mut ways: BTreeMap<(PortId, Way), usize> = BTreeMap::new();
            for case in 0..CASES {
                let mut random = Random(case as u64);
                let (ingress, mut frame) = generate(&mut random);
                damage(&mut random, &mut frame);
                match twin.send(ingress, &frame) {
                    Ok(way) => *ways.entry((ingress, way)).or_default() += 1,
                    Err(error) => {
                        panic!("{what}, case {case}, by {ingress:?}: {frame:02x?}\n{error}")
                    }
                }
            }
            println!("{what}: {ways:?}");
            for (ingress, egress) in [
                (WORKLOAD, UPLINK),
                (WORKLOAD, OTHER_WORKLOAD),
                (OTHER_WORKLOAD, WORKLOAD),
                (UPLINK, WORKLOAD),
                (UPLINK, UPLINK),
            ] {
                let fast = ways
                    .get(&(ingress, Way::Fast(egress)))
                    .copied()
                    .unwrap_or(0);
                assert!(
                    fast > CASES / 2000,
                    "{what}: only {fast} from {ingress:?} to {egress:?}"
                );
            }
        }
    });
}

#[test]
fn what_is_in_order_takes_the_fast_path() {
    isolated(|| {
        let mut twin = Twin::new(snapshot());
        for case in fates::all() {
            let served = |port: PortId| DEVICES.iter().any(|(id, ..)| *id == port);
            if !served(case.port) || case.frame.len() < 14 {
                continue;
            }
            let wanted = match case.verdict {
                Verdict::Transmit(port) if served(port) => Way::Fast(port),
                _ => Way::Slow,
            };
            assert_eq!(
                twin.send(case.port, &case.frame),
                Ok(wanted),
                "{}",
                case.name
            );
        }
    });
}

/// A frame from the pod to an address, or from another node to the pod.
fn frame(name: &str) -> (PortId, Vec<u8>) {
    let mut all = fates::forwarded(b"payload").into_iter();
    let case = all
        .find(|case| case.name == name)
        .expect("a case of that name");
    (case.port, case.frame)
}

#[test]
fn the_maps_follow_the_snapshot() {
    isolated(|| {
        let mut twin = Twin::new(snapshot());
        let (by, encap) = frame("IPIP encap");
        let (from, decap) = frame("VXLAN decap");
        assert_eq!(twin.send(by, &encap), Ok(Way::Fast(UPLINK)));

        // The neighbour is lost, and comes back by VXLAN.
        let before = std::mem::replace(&mut twin.snapshot.adjacencies[1], Adjacency::Unresolved);
        twin.follow();
        assert_eq!(twin.send(by, &encap), Ok(Way::Slow));
        twin.snapshot.adjacencies[1] = twin.snapshot.adjacencies[2].clone();
        twin.follow();
        assert_eq!(twin.send(by, &encap), Ok(Way::Fast(UPLINK)));

        // The mode is switched as often as there are slots, and more.
        let ways = [before, twin.snapshot.adjacencies[2].clone()];
        for round in 0..40_000 {
            twin.snapshot.adjacencies[1] = ways[round % 2].clone();
            twin.follow();
            if round % 1000 == 0 {
                assert_eq!(
                    twin.send(by, &encap),
                    Ok(Way::Fast(UPLINK)),
                    "round {round}"
                );
            }
        }

        // The far node is none any more; the workload loses its address.
        assert_eq!(twin.send(from, &decap), Ok(Way::Fast(WORKLOAD)));
        twin.snapshot.tunnels.peers = [STRANGER].into_iter().collect();
        twin.follow();
        assert_eq!(twin.send(from, &decap), Ok(Way::Slow));
        twin.snapshot.ports[usize::from(WORKLOAD.0)]
            .sources
            .allowed
            .clear();
        twin.follow();
        assert_eq!(twin.send(by, &encap), Ok(Way::Slow));
    });
}

#[test]
fn routes_captures_and_the_switch_are_heeded() {
    isolated(|| {
        let mut twin = Twin::new(snapshot());
        let (by, encap) = frame("IPIP encap");
        let (from, decap) = frame("IPIP decap");
        let ports = twin.mirror.fast_path().ports();
        for (port, other) in [(WORKLOAD, UPLINK), (UPLINK, WORKLOAD)] {
            ports.set_captured(port, true);
            // What arrives on the port, and what would leave by it.
            assert_eq!(twin.send(by, &encap), Ok(Way::Slow));
            assert_eq!(twin.send(from, &decap), Ok(Way::Slow));
            ports.set_captured(port, false);
            ports.open(port, true, false);
            let expected = [by, from].map(|ingress| {
                if ingress == other {
                    Way::Slow
                } else {
                    Way::Fast(other)
                }
            });
            assert_eq!(twin.send(by, &encap), Ok(expected[0]));
            assert_eq!(twin.send(from, &decap), Ok(expected[1]));
            ports.open(port, true, true);
        }
        let switch = twin.mirror.fast_path().counters();
        switch.switch(false);
        assert_eq!(twin.send(by, &encap), Ok(Way::Slow));
        switch.switch(true);
        assert_eq!(twin.send(by, &encap), Ok(Way::Fast(UPLINK)));

        // Without its route the packet's destination is in the unreachable pool.
        twin.mirror.remove_route("192.168.2.0/26".parse().unwrap());
        let action = twin.run(by, &encap).0;
        assert_eq!(action, XDP_PASS);
        let before = twin.mirror.fast_path().counters().port(UPLINK).tx_packets;
        twin.mirror
            .insert_route("192.168.2.0/24".parse().unwrap(), NextHop(2));
        assert_eq!(twin.run(by, &encap).0, XDP_REDIRECT);
        let after = twin.mirror.fast_path().counters().port(UPLINK).tx_packets;
        assert_eq!(after - before, 1);
    });
}
