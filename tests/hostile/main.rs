//! A million malformed packets beside a running flow, on every kind of port: the flow loses nothing, each
//! malformed packet is counted under its reason, and nothing grows.
//!
//! What is sent waits for what was counted, so no ring overflows however slow the machine is: what is
//! shown is what packets do, not how fast.
#![allow(missing_docs)]

#[path = "../common/fast_path.rs"]
mod fast_path;
#[path = "../sizes/lab.rs"]
#[allow(dead_code)]
mod lab;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::{Ipv4Header, PacketBuilder};
use lab::{Lab, Mode, Shape, inside, run, wait_for};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockType, bind, send, socket, socketpair,
};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 11);
const FAR_NODE: Ipv4Addr = Ipv4Addr::new(10, 30, 1, 12);
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 99);
const POD: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
const FAR_POD: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 10);
const GATEWAY_MAC: [u8; 6] = [0xee; 6];

/// Packets that are sent and not counted yet, at most: fewer than a veth's ring holds.
const WINDOW: u64 = 128;

/// Packets on the uplink, on the workload's port, and by the host's TUN device.
const PACKETS: [u64; 3] = [800_000, 150_000, 50_000];

/// A malformed packet and the one reason for which it is dropped.
type Bad = (&'static str, Vec<u8>);

#[test]
fn a_million_malformed_packets_beside_a_flow_harm_nothing() {
    run(|| {
        let lab = Lab::start(Shape {
            mode: Mode::Ipip,
            uplink: 1500,
            narrow: 1500,
        });
        wait_for("a first answer", || {
            let ping = lab::said("ip netns exec pod1 ping -c 1 -W 1 192.168.2.10");
            ping.contains(" 0% packet loss")
        });
        let kinds = [
            ("mid1", "node", uplink()),
            ("pod1", "eth0", workload()),
            ("node1", "tunl0", host()),
        ];
        let before = Counted::ask(&lab);
        let resident = resident_kib(&lab);
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        let flow = Flow::default();
        // Before the first packet goes.
        let echoing = inside("pod2", || UdpSocket::bind("192.168.2.10:7").expect("echo"));
        thread::scope(|scope| {
            let echo = scope.spawn(|| flow.echo(&echoing));
            let sender = scope.spawn(|| inside("pod1", || flow.send()));
            for ((namespace, device, bad), packets) in kinds.into_iter().zip(PACKETS) {
                let link = (device != "tunl0").then(|| link_header(namespace, device));
                let packets = send_all(&lab, namespace, device, link, &bad, packets);
                for (reason, count) in packets {
                    *expected.entry(reason).or_default() += count;
                }
            }
            flow.over.store(true, Ordering::SeqCst);
            sender.join().expect("sender");
            flow.ended.store(true, Ordering::SeqCst);
            echo.join().expect("echo");
        });
        let (sent, returned) = (
            flow.sent.load(Ordering::SeqCst),
            flow.returned.load(Ordering::SeqCst),
        );
        assert!(sent > 100, "a flow of {sent} packets is none");
        assert_eq!(returned, sent, "the flow lost packets");

        let after = Counted::ask(&lab);
        for (reason, count) in &expected {
            assert_eq!(
                after.drops(reason) - before.drops(reason),
                *count,
                "{reason}"
            );
        }
        let dropped: u64 = expected.values().sum();
        assert_eq!(dropped, PACKETS.iter().sum::<u64>());
        assert_eq!(after.total - before.total, dropped, "none is counted twice");
        wait_for("the balance", || Counted::ask(&lab).difference == 0);
        let grown = resident_kib(&lab).saturating_sub(resident);
        assert!(grown < 8192, "{grown} KiB more than before");
        println!("{sent} packets of the flow, {dropped} malformed ones, {grown} KiB grown");
    });
}

/// Sends packets in turn, waits for their being counted, and says how many there were of each reason.
fn send_all(
    lab: &Lab,
    namespace: &str,
    device: &str,
    link: Option<Vec<u8>>,
    bad: &[Bad],
    packets: u64,
) -> BTreeMap<&'static str, u64> {
    let frames: Vec<Vec<u8>> = bad
        .iter()
        .map(|(_, packet)| [link.as_deref().unwrap_or_default(), packet].concat())
        .collect();
    let wire = inside(namespace, || packet_socket(device));
    let start = Counted::ask(lab).total;
    let mut of_reason = BTreeMap::new();
    for sent in 0..packets {
        let nth = sent as usize % bad.len();
        while send(
            wire.as_raw_fd(),
            &frames[nth],
            nix::sys::socket::MsgFlags::empty(),
        )
        .is_err()
        {
            thread::sleep(Duration::from_micros(100));
        }
        *of_reason.entry(bad[nth].0).or_default() += 1;
        if (sent + 1).is_multiple_of(WINDOW / 2) || sent + 1 == packets {
            let wanted = sent + 1 - if sent + 1 == packets { 0 } else { WINDOW / 2 };
            let end = Instant::now() + Duration::from_secs(30);
            while Counted::ask(lab).total < start + wanted {
                assert!(
                    Instant::now() < end,
                    "{device}: {sent} sent, {}",
                    lab.ask(1, "counters")
                );
            }
        }
    }
    of_reason
}

/// What node1 has counted.
struct Counted {
    total: u64,
    difference: i64,
    drops: BTreeMap<String, u64>,
}

impl Counted {
    fn ask(lab: &Lab) -> Self {
        let socket = lab.config(1).with_extension("sock");
        let mut stream = UnixStream::connect(socket).expect("the control socket");
        stream
            .write_all(b"{\"request\":\"counters\"}\n")
            .expect("a question");
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .expect("an answer");
        let answer: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let counters = &answer["counters"];
        let number = |value: &serde_json::Value| value.as_u64().expect("a number");
        let drops: BTreeMap<_, _> = counters["drops"]
            .as_array()
            .expect("drops")
            .iter()
            .map(|drop| {
                (
                    drop["reason"].as_str().expect("a name").to_owned(),
                    number(&drop["packets"]),
                )
            })
            .collect();
        let ports = counters["ports"].as_array().expect("ports");
        let sum = |of: &str| ports.iter().map(|port| number(&port[of])).sum::<u64>();
        let total = drops.values().sum();
        let ended = sum("tx_packets")
            + total
            + number(&counters["absorbed"])
            + number(&counters["waiting"]);
        let begun = sum("rx_packets") + number(&counters["originated"]);
        Self {
            total,
            difference: begun as i64 - ended as i64,
            drops,
        }
    }

    fn drops(&self, reason: &str) -> u64 {
        *self
            .drops
            .get(reason)
            .unwrap_or_else(|| panic!("no reason {reason}"))
    }
}

fn resident_kib(lab: &Lab) -> u64 {
    let status: serde_json::Value =
        serde_json::from_str(&lab.ask(1, "status -o json")).expect("status");
    let pid = status["pid"].as_u64().expect("a process");
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("VmRSS");
    line.split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("a number")
}

/// UDP from pod1 to pod2 and back, a packet at a time and many a second.
#[derive(Default)]
struct Flow {
    over: AtomicBool,
    ended: AtomicBool,
    sent: AtomicU64,
    returned: AtomicU64,
}

impl Flow {
    fn echo(&self, socket: &UdpSocket) {
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("timeout");
        let mut buffer = [0; 2048];
        while !self.ended.load(Ordering::SeqCst) {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&buffer[..length], from).expect("answer");
            }
        }
    }

    /// The next packet goes when the last one is back: what does not come within seconds is lost.
    fn send(&self) {
        let socket = UdpSocket::bind("192.168.1.10:0").expect("flow");
        socket.connect("192.168.2.10:7").expect("flow");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("timeout");
        let mut buffer = [0; 2048];
        while !self.over.load(Ordering::SeqCst) {
            let number = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
            let mut payload = [0x5a; 1000];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            socket.send(&payload).expect("send");
            match socket.recv(&mut buffer) {
                Ok(length) if buffer[..length] == payload => {
                    self.returned.fetch_add(1, Ordering::SeqCst);
                }
                other => println!("packet {number} of the flow: {other:?}"),
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A socket that sends by a device.
fn packet_socket(device: &str) -> OwnedFd {
    let Some(address) = link_address(device) else {
        return relay(device);
    };
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .expect("socket");
    bind(socket.as_raw_fd(), &address).expect("bind");
    socket
}

/// The same for a device without a link address, which safe Rust cannot bind to: another process does,
/// and sends what comes to it until this end is closed.
fn relay(device: &str) -> OwnedFd {
    const SENDER: &str = "import socket, sys\n\
        given = socket.socket(fileno=0)\n\
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
        wire.bind((sys.argv[1], 0x0800))\n\
        while packet := given.recv(65536): wire.send(packet)";
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .expect("socketpair");
    let mut sender = Command::new("python3")
        .args(["-c", SENDER, device])
        .stdin(theirs)
        .spawn()
        .expect("python3");
    thread::spawn(move || sender.wait());
    ours
}

fn address(device: &str) -> LinkAddr {
    link_address(device).expect("the device's link address")
}

fn link_address(device: &str) -> Option<LinkAddr> {
    nix::ifaddrs::getifaddrs()
        .expect("devices")
        .filter(|entry| entry.interface_name == device)
        .find_map(|entry| entry.address?.as_link_addr().copied())
}

/// The Ethernet header of what is sent by a device to the node.
fn link_header(namespace: &str, device: &str) -> Vec<u8> {
    let own = inside(namespace, || address(device).addr().expect("an address"));
    let to = match device {
        "node" => inside("node1", || address("eth0").addr().expect("an address")),
        _ => GATEWAY_MAC,
    };
    [&to[..], &own, &[0x08, 0]].concat()
}

fn udp(source: Ipv4Addr, destination: Ipv4Addr, ttl: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(source.octets(), destination.octets(), ttl)
        .udp(1000, 2000)
        .write(&mut packet, &[0x11; 90])
        .expect("a packet");
    packet
}

/// A packet with one of its bytes replaced, its header's checksum left as it was.
fn with(packet: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at] = byte;
    packet
}

/// A packet with another header, its checksum right.
fn changed(packet: &[u8], change: impl Fn(&mut Ipv4Header)) -> Vec<u8> {
    let (mut header, rest) = Ipv4Header::from_slice(packet).expect("a header");
    change(&mut header);
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], rest].concat()
}

fn ipip(source: Ipv4Addr, inner: &[u8]) -> Vec<u8> {
    wrapped(source, 4, inner)
}

fn wrapped(source: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv4Header::new(
        payload.len() as u16,
        64,
        protocol.into(),
        source.octets(),
        NODE.octets(),
    );
    let mut header = header.expect("a header");
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

/// A VXLAN packet from the far node: UDP length and checksum, VXLAN header, inner frame.
fn vxlan(length: Option<u16>, checksum: u16, header: [u8; 8], frame: &[u8]) -> Vec<u8> {
    let length = length.unwrap_or(8 + 8 + frame.len() as u16);
    let mut datagram = Vec::new();
    for word in [50000, 4789, length, checksum] {
        datagram.extend_from_slice(&word.to_be_bytes());
    }
    datagram.extend_from_slice(&header);
    datagram.extend_from_slice(frame);
    wrapped(FAR_NODE, 17, &datagram)
}

/// What every port refuses of an IP packet.
fn headers(good: &[u8]) -> Vec<Bad> {
    vec![
        ("ip_version", with(good, 0, 0x55)),
        ("ipv4_header_length", with(good, 0, 0x44)),
        (
            "ipv4_total_length",
            changed(good, |header| header.total_len = 19),
        ),
        (
            "ipv4_total_length",
            changed(good, |header| header.total_len = 9000),
        ),
        ("ipv4_checksum", with(good, 10, good[10] ^ 0x5a)),
        ("ipv4_truncated", good[..19].to_vec()),
    ]
}

/// What comes by the uplink and is the node's: tunnel packets, and what is for its block.
fn uplink() -> Vec<Bad> {
    let inner = udp(FAR_POD, POD, 64);
    let mut bad: Vec<Bad> = headers(&inner)
        .into_iter()
        // A pair of packets, of which the inner is damaged.
        .map(|(reason, packet)| match packet[0] >> 4 {
            4 => (reason, ipip(FAR_NODE, &packet)),
            _ => ("inner_protocol", ipip(FAR_NODE, &packet)),
        })
        .collect();
    let calico = [8, 0, 0, 0, 0, 0x10, 0, 0];
    let frame = [&[2; 6][..], &[2; 6], &[8, 0], &inner].concat();
    bad.extend([
        ("unknown_peer", ipip(STRANGER, &inner)),
        ("ipv4_checksum", with(&ipip(FAR_NODE, &inner), 10, 0x12)),
        (
            "ipv4_total_length",
            changed(&ipip(FAR_NODE, &inner), |header| header.total_len += 100),
        ),
        ("inner_protocol", ipip(FAR_NODE, b"no packet")),
        ("spoofed_inner", ipip(FAR_NODE, &udp(POD, POD, 64))),
        (
            "spoofed_inner",
            ipip(FAR_NODE, &udp(Ipv4Addr::LOCALHOST, POD, 64)),
        ),
        (
            "multicast",
            ipip(FAR_NODE, &udp(FAR_POD, Ipv4Addr::new(224, 0, 0, 5), 64)),
        ),
        (
            "martian_destination",
            ipip(FAR_NODE, &udp(FAR_POD, Ipv4Addr::new(250, 0, 0, 5), 64)),
        ),
        (
            "reverse_path",
            ipip(FAR_NODE, &udp(Ipv4Addr::new(192, 168, 77, 7), POD, 64)),
        ),
        (
            "ecn_not_ect_ce",
            changed(&ipip(FAR_NODE, &inner), |header| {
                header.ecn = 3.try_into().unwrap()
            }),
        ),
        ("udp_length", vxlan(Some(7), 0, calico, &frame)),
        ("udp_length", vxlan(Some(9000), 0, calico, &frame)),
        ("udp_checksum", vxlan(None, 0x1234, calico, &frame)),
        ("vxlan_truncated", vxlan(None, 0, calico, &frame[..13])),
        ("vxlan_no_vni", vxlan(None, 0, [0; 8], &frame)),
        (
            "vxlan_unknown_vni",
            vxlan(None, 0, [8, 0, 0, 0, 0, 0, 9, 0], &frame),
        ),
        ("vxlan_inner_not_for_us", vxlan(None, 0, calico, &frame)),
        ("martian_source", udp(Ipv4Addr::new(224, 1, 1, 1), POD, 64)),
    ]);
    bad
}

/// What a workload sends and must not.
fn workload() -> Vec<Bad> {
    let good = udp(POD, FAR_POD, 64);
    let mut bad = headers(&good);
    // Their Ethernet header says IPv4, whatever they are.
    bad.extend([
        ("spoofed_source", udp(FAR_POD, POD, 64)),
        ("multicast", udp(POD, Ipv4Addr::BROADCAST, 64)),
        ("martian_destination", udp(POD, Ipv4Addr::LOCALHOST, 64)),
        ("same_port", udp(POD, POD, 64)),
        (
            "tunnel_from_workload",
            changed(&good, |header| header.protocol = 4.into()),
        ),
        ("ip_version", good_v6()),
    ]);
    bad
}

/// What the host's kernel would hardly send.
fn host() -> Vec<Bad> {
    let mut bad = headers(&udp(NODE, FAR_POD, 64));
    let mut v6 = good_v6();
    v6[4] = 0xff;
    bad.extend([
        ("ipv6_truncated", good_v6()[..39].to_vec()),
        ("ipv6_payload_length", v6),
        (
            "martian_source",
            udp(Ipv4Addr::new(127, 0, 0, 1), FAR_POD, 64),
        ),
    ]);
    bad
}

fn good_v6() -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64)
        .udp(1, 2)
        .write(&mut packet, &[0x22; 40])
        .expect("a packet");
    packet
}

#[test]
fn each_reason_is_one_that_there_is() {
    let names: Vec<_> = underpass::packet::DropReason::ALL
        .iter()
        .map(|reason| reason.name())
        .collect();
    for (reason, packet) in [uplink(), workload(), host()].concat() {
        assert!(names.contains(&reason) && !packet.is_empty(), "{reason}");
    }
}
