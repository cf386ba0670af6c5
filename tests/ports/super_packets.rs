//! Super-packets of TUN devices, against the kernel's own segmentation.
//!
//! ```text
//!  in (raw, or the port under test) ──► kernel forwards ──► out (a packet a read)
//! ```
//!
//! `out` is opened without super-packets, so what it reads is what the kernel makes of them.
#![allow(unsafe_code)] // A TUN device's ioctl.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder, TcpHeader, ip_number};
use underpass::packet::{BATCH, Batch, FramePool, HEADROOM};
use underpass::port::tuntap::{TunTapKind, TunTapOptions, TunTapPort};
use underpass::port::{Port, PortError, PortId, Refused};
use underpass::wire::checksum::{self, Checksum};

use crate::lab::{PATIENCE, run, sh};

const SOURCE_V6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const DESTINATION_V6: [u8; 16] = [0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

#[test]
fn segments_are_those_that_the_kernel_makes() {
    run(|| {
        let mut lab = Lab::new(true);
        let mut cases = Vec::new();
        for is_v6 in [false, true] {
            for (size, length) in [
                (1400, 60_000),
                (1400, 2800),
                (536, 537),
                (100, 1),
                (1200, 1199),
            ] {
                cases.push(Super {
                    is_v6,
                    size,
                    length,
                    ..Super::default()
                });
            }
            for length in [1300 * 40 + 5, 1300] {
                cases.push(Super {
                    is_v6,
                    is_tcp: false,
                    size: 1300,
                    length,
                    ..Super::default()
                });
            }
            // FIN, PSH and CWR each belong to one segment; ECN's gso type comes with CWR.
            for flags in [0x11, 0x18, 0x98, 0xd9] {
                cases.push(Super {
                    is_v6,
                    flags,
                    size: 1000,
                    length: 4500,
                    ..Super::default()
                });
            }
            cases.push(Super {
                is_v6,
                options: true,
                size: 700,
                length: 3000,
                ..Super::default()
            });
            cases.push(Super {
                is_v6,
                dont_fragment: true,
                size: 700,
                length: 3000,
                ..Super::default()
            });
        }
        let mut segments = 0;
        for case in cases {
            let packet = case.bytes();
            lab.route_to("out");
            lab.input.write_all(&packet).unwrap();
            let expected = read(&mut lab.out, &mut lab.pool, case.count());
            lab.route_to("cut");
            lab.input.write_all(&packet).unwrap();
            let cut = read(lab.cut.as_mut().unwrap(), &mut lab.pool, case.count());
            assert_eq!(expected.len(), case.count(), "{case:?}");
            assert_same(&cut, &expected, &case);
            segments += cut.len() as u64;
        }
        let sent = received("cut", "tx_packets");
        assert!(sent < segments / 3, "{sent} reads for {segments} segments");
    });
}

/// A super-packet of more segments than a batch or the pool holds goes on with the next call.
#[test]
fn a_super_packet_waits_for_room() {
    run(|| {
        sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        let mut lab = Lab::new(true);
        sh("ip route replace 10.2.0.0/16 dev cut");
        let case = Super {
            size: 300,
            length: 300 * 150,
            ..Super::default()
        };
        lab.input.write_all(&case.bytes()).unwrap();
        let mut port = lab.cut.take().unwrap();
        let mut few = FramePool::with_memory(10, 2048, HEADROOM);
        let mut batch = Batch::new();
        assert_eq!(wait(|| port.rx(&mut few, &mut batch).unwrap()), 10);
        assert_eq!(
            port.rx(&mut few, &mut batch).unwrap(),
            0,
            "no frame is free"
        );
        let mut many = FramePool::with_memory(200, 2048, HEADROOM);
        assert_eq!(port.rx(&mut many, &mut batch).unwrap(), BATCH - 10);
        batch.clear();
        assert_eq!(port.rx(&mut many, &mut batch).unwrap(), BATCH);
        batch.clear();
        assert_eq!(port.rx(&mut many, &mut batch).unwrap(), 150 - 2 * BATCH);
        assert_eq!(port.statistics().refused, Refused::default());
    });
}

/// What goes in as separate packets comes out as the very same ones, whatever was put together on the
/// way; that something was is seen in what the device counts.
#[test]
fn what_is_put_together_comes_apart_again_as_it_was() {
    run(|| {
        let mut lab = Lab::new(false);
        lab.route_to("out");
        let mut port = open("in", true, &mut lab.pool);
        sh("ip link set in up");
        let mut random = Random(7);
        let mut sent = 0;
        for _ in 0..150 {
            let packets = traffic(&mut random);
            sent += packets.len() as u64;
            let mut batch: Batch = packets
                .iter()
                .map(|packet| frame(&mut lab.pool, packet))
                .collect();
            let outcome = port.tx(&mut lab.pool, &mut batch);
            assert_eq!((outcome.sent, batch.len()), (packets.len(), 0));
            let bytes: usize = packets.iter().map(Vec::len).sum();
            assert_eq!(outcome.sent_bytes, bytes);
            let out = read(&mut lab.out, &mut lab.pool, packets.len());
            let expected = by_flow(packets.iter().map(|packet| forwarded(packet)).collect());
            let out = by_flow(out);
            assert!(out.keys().eq(expected.keys()));
            for (flow, packets) in expected {
                assert_same(&out[&flow], &packets, &flow);
            }
        }
        let written = received("in", "rx_packets");
        assert!(written < sent / 2, "{written} writes for {sent} packets");
        assert!(
            written > sent / 20,
            "{written} writes for {sent} packets: too few to be true"
        );
    });
}

/// A whole flow in one write.
#[test]
fn a_batch_of_one_flow_is_one_write() {
    run(|| {
        sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        let mut lab = Lab::new(false);
        lab.route_to("out");
        let mut port = open("in", true, &mut lab.pool);
        sh("ip link set in up");
        for is_tcp in [true, false] {
            let before = received("in", "rx_packets");
            let packets: Vec<_> = (0..40_u32)
                .map(|n| {
                    let flow = Packet {
                        is_tcp,
                        sequence: n * 1000,
                        identification: n as u16,
                        ..Packet::default()
                    };
                    flow.bytes()
                })
                .collect();
            let mut batch: Batch = packets
                .iter()
                .map(|packet| frame(&mut lab.pool, packet))
                .collect();
            assert_eq!(port.tx(&mut lab.pool, &mut batch).sent, 40);
            let expected: Vec<_> = packets.iter().map(|packet| forwarded(packet)).collect();
            let out = read(&mut lab.out, &mut lab.pool, 40);
            assert_same(&out, &expected, &is_tcp);
            assert_eq!(received("in", "rx_packets") - before, 1);
        }
    });
}

/// A TAP's packets have an Ethernet header before them, and neighbours, which are asked for.
#[test]
fn a_tap_has_super_packets_too() {
    run(|| {
        sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        let mut pool = FramePool::with_memory(400, 2048, HEADROOM);
        let options = TunTapOptions {
            interface: "tap5".to_owned(),
            kind: TunTapKind::Tap,
            netns: None,
            super_packets: true,
            multi_queue: false,
        };
        let mut port = TunTapPort::open(PortId(1), &options, &mut pool).unwrap();
        assert_eq!(port.capabilities().io, "tap gso");
        sh(
            "ip link set tap5 addrgenmode none up; ip addr add 10.5.0.1/24 dev tap5; \
            ip neigh add 10.5.0.2 lladdr 02:00:00:00:00:05 dev tap5; sysctl -qw net.ipv4.ip_forward=1",
        );
        let mut lab = Lab::new(false);
        sh("ip route replace 10.2.0.0/16 via 10.5.0.2 dev tap5");
        let case = Super {
            size: 1200,
            length: 12_000,
            ..Super::default()
        };
        lab.input.write_all(&case.bytes()).unwrap();
        let cut = read(&mut port, &mut pool, 10);
        assert_eq!(received("tap5", "tx_packets"), 1);
        lab.route_to("out");
        lab.input.write_all(&case.bytes()).unwrap();
        let expected = read(&mut lab.out, &mut lab.pool, 10);
        let packets: Vec<_> = cut.iter().map(|frame| frame[14..].to_vec()).collect();
        assert_same(&packets, &expected, &case);
        assert!(
            cut.iter()
                .all(|frame| frame[..6] == [2, 0, 0, 0, 0, 5] && frame[12..14] == [8, 0])
        );

        // And back, with the addresses turned round: to the router, which sends them to `out`.
        let address = sh("cat /sys/class/net/tap5/address");
        let own: Vec<u8> = address
            .trim()
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        let packets: Vec<_> = (0..20_u32)
            .map(|n| {
                Packet {
                    sequence: n * 1000,
                    identification: n as u16,
                    ..Packet::default()
                }
                .bytes()
            })
            .collect();
        let mut batch: Batch = packets
            .iter()
            .map(|packet| {
                frame(
                    &mut pool,
                    &[&own[..], &[2, 0, 0, 0, 0, 5, 8, 0], packet].concat(),
                )
            })
            .collect();
        let before = received("tap5", "rx_packets");
        assert_eq!(port.tx(&mut pool, &mut batch).sent, 20);
        let expected: Vec<_> = packets.iter().map(|packet| forwarded(packet)).collect();
        let out = read(&mut lab.out, &mut lab.pool, 20);
        assert_same(&out, &expected, &"what came by the TAP");
        assert_eq!(received("tap5", "rx_packets") - before, 1);
    });
}

/// Each queue of a device is a port; a packet comes out of one of them, and a flow stays where packets
/// of its other direction went in.
#[test]
fn a_device_has_as_many_queues_as_are_opened() {
    run(|| {
        sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        let mut pool = FramePool::with_memory(400, 2048, HEADROOM);
        let queue = |multi_queue, pool: &mut FramePool| {
            let options = TunTapOptions {
                interface: "cut".to_owned(),
                kind: TunTapKind::Tun,
                netns: None,
                super_packets: true,
                multi_queue,
            };
            TunTapPort::open(PortId(1), &options, pool)
        };
        let mut queues = [(); 2].map(|()| queue(true, &mut pool).unwrap());
        assert!(matches!(
            queue(false, &mut pool),
            Err(PortError::DeviceKind { .. })
        ));
        let mut lab = Lab::new(false);
        sh("ip route replace 10.2.0.0/16 dev cut");
        for flow in 0..40 {
            let packet = Packet {
                flow,
                ..Packet::default()
            };
            lab.input
                .write_all(&[&[0; 10], &packet.bytes()[..]].concat())
                .unwrap();
        }
        let counts = queues.each_mut().map(|port| read(port, &mut pool, 1).len());
        assert_eq!(counts.iter().sum::<usize>(), 40);
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    });
}

/// A persistent device can be opened without super-packets after it was opened with them.
#[test]
fn a_persistent_device_is_left_as_one_that_finishes_its_packets() {
    run(|| {
        sh("ip tuntap add kept mode tun; ip link set kept up");
        let mut pool = FramePool::with_memory(10, 2048, HEADROOM);
        let features =
            || sh("ethtool -k kept | grep -E '^(tx-checksumming|tcp-segmentation-offload):'");
        let before = features();
        let port = open("kept", true, &mut pool);
        assert_ne!(features(), before);
        assert_eq!(port.capabilities().io, "tun gso");
        drop(port);
        assert_eq!(features(), before);
        assert_eq!(open("kept", false, &mut pool).capabilities().io, "tun");
    });
}

/// Devices between which the kernel forwards.
struct Lab {
    input: File,
    out: TunTapPort,
    cut: Option<TunTapPort>,
    pool: FramePool,
}

impl Lab {
    /// `raw` is written to directly; `out`, and if wanted `cut`, are where packets may be routed to.
    fn new(with_cut: bool) -> Self {
        let mut pool = FramePool::with_memory(400, 2048, HEADROOM);
        let input = raw("raw", libc::IFF_TUN);
        let out = open("out", false, &mut pool);
        let cut = with_cut.then(|| open("cut", true, &mut pool));
        sh(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
            net.ipv4.conf.all.rp_filter=0",
        );
        sh(
            "for name in raw out cut; do ip link show $name >/dev/null 2>&1 && \
            ip link set $name addrgenmode none up; done; true",
        );
        Self {
            input,
            out,
            cut,
            pool,
        }
    }

    fn route_to(&self, device: &str) {
        sh(&format!(
            "ip route replace 10.2.0.0/16 dev {device}; ip -6 route replace fd00:2::/32 dev {device} \
             2>/dev/null || true"
        ));
    }
}

fn open(interface: &str, super_packets: bool, pool: &mut FramePool) -> TunTapPort {
    let options = TunTapOptions {
        interface: interface.to_owned(),
        kind: TunTapKind::Tun,
        netns: None,
        super_packets,
        multi_queue: false,
    };
    TunTapPort::open(PortId(1), &options, pool).unwrap()
}

/// A TUN or TAP device whose packets are written with a header of the test's own.
pub fn raw(interface: &str, mode: libc::c_int) -> File {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .unwrap();
    let mut request = [0_u8; 40];
    request[..interface.len()].copy_from_slice(interface.as_bytes());
    let flags = (mode | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the descriptor is open and the request is as large as a struct ifreq.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    file
}

pub fn frame(pool: &mut FramePool, packet: &[u8]) -> underpass::packet::Frame {
    let mut frame = pool.take().unwrap();
    assert!(frame.fill(packet, HEADROOM));
    frame
}

/// Reads `count` packets of the test's, and says if more come at once.
pub fn read(port: &mut TunTapPort, pool: &mut FramePool, count: usize) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut batch = Batch::new();
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let got = port.rx(pool, &mut batch).unwrap();
        for frame in batch.drain(..) {
            // What the kernel says on its own account, multicast above all, does not count.
            if is_of_the_test(frame.bytes()) {
                packets.push(frame.bytes().to_vec());
            }
            pool.give(frame);
        }
        if packets.len() >= count && got == 0 {
            break;
        }
    }
    packets
}

fn is_of_the_test(frame: &[u8]) -> bool {
    [0, 14, 18, 22].iter().any(|network| {
        frame.get(network + 16..network + 20) == Some(&[10, 2, 0, 9])
            || frame.get(network + 24..network + 40) == Some(&DESTINATION_V6)
    })
}

/// As `assert_eq`, without filling the screen.
pub fn assert_same(got: &[Vec<u8>], expected: &[Vec<u8>], what: &dyn std::fmt::Debug) {
    for (number, (got, expected)) in got.iter().zip(expected).enumerate() {
        let differs = got.iter().zip(expected).position(|(a, b)| a != b);
        assert_eq!(
            (differs, got.len()),
            (None, expected.len()),
            "packet {number} differs first at that byte: {what:?}"
        );
    }
    assert_eq!(got.len(), expected.len(), "packets of {what:?}");
}

pub fn wait(mut receive: impl FnMut() -> usize) -> usize {
    let end = Instant::now() + PATIENCE;
    loop {
        let count = receive();
        if count > 0 || Instant::now() > end {
            return count;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn received(device: &str, counter: &str) -> u64 {
    sh(&format!("cat /sys/class/net/{device}/statistics/{counter}"))
        .trim()
        .parse()
        .unwrap()
}

/// A packet one hop further.
fn forwarded(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return packet;
    }
    packet[8] -= 1;
    let length = usize::from(packet[0] & 0xf) * 4;
    packet[10..12].fill(0);
    let sum = checksum::of(&packet[..length]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Packets in order, by addresses and ports. What identifies a packet that may not be fragmented means
/// nothing (RFC 6864), and the kernel numbers segments anew: it is left out.
fn by_flow(packets: Vec<Vec<u8>>) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for mut packet in packets {
        let (addresses, ports) = if packet[0] >> 4 == 6 {
            (8..40, 40)
        } else {
            (12..20, usize::from(packet[0] & 0xf) * 4)
        };
        let flow = [&packet[addresses], &packet[ports..ports + 4]].concat();
        if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        flows.entry(flow).or_default().push(packet);
    }
    flows
}

/// A super-packet and its header.
#[derive(Debug, Clone, Copy)]
pub struct Super {
    pub is_v6: bool,
    pub is_tcp: bool,
    pub flags: u8,
    pub options: bool,
    pub dont_fragment: bool,
    pub size: u16,
    pub length: usize,
}

impl Default for Super {
    fn default() -> Self {
        Self {
            is_v6: false,
            is_tcp: true,
            flags: 0x10,
            options: false,
            dont_fragment: false,
            size: 1000,
            length: 1000,
        }
    }
}

impl Super {
    pub fn count(&self) -> usize {
        self.length.div_ceil(usize::from(self.size))
    }

    /// What is in it, whole.
    pub fn packet(&self) -> Packet {
        Packet {
            is_v6: self.is_v6,
            is_tcp: self.is_tcp,
            flags: self.flags,
            options: self.options,
            dont_fragment: self.dont_fragment,
            identification: 0xfffe,
            sequence: 0xffff_ff00,
            length: self.length,
            ..Packet::default()
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes_behind(&[])
    }

    /// The same with a link header.
    pub fn bytes_behind(&self, link: &[u8]) -> Vec<u8> {
        let mut packet = self.packet().bytes();
        let transport = if self.is_v6 { 40 } else { 20 };
        let (protocol, field, least) = if self.is_tcp { (6, 16, 20) } else { (17, 6, 8) };
        let segment = packet.len() - transport;
        let addresses = if self.is_v6 { 8..40 } else { 12..20 };
        let pseudo = Checksum::new()
            .add_bytes(&packet[addresses])
            .add_bytes(&(segment as u32).to_be_bytes())
            .add_word(protocol);
        packet[transport + field..transport + field + 2]
            .copy_from_slice(&pseudo.folded().to_be_bytes());
        let transport = link.len() + transport;
        if self.length <= usize::from(self.size) {
            // One segment is no super-packet: the kernel takes it as a packet with a partial checksum.
            return [&self.header(0, transport, field, least)[..], link, &packet].concat();
        }
        let kind = match (self.is_tcp, self.is_v6) {
            (true, false) => 1,
            (true, true) => 4,
            (false, _) => 5,
        };
        let kind = if self.flags & 0x80 != 0 {
            kind | 0x80
        } else {
            kind
        };
        [
            &self.header(kind, transport, field, least)[..],
            link,
            &packet,
        ]
        .concat()
    }

    fn header(&self, kind: u8, transport: usize, field: usize, least: usize) -> [u8; 10] {
        let mut header = [0; 10];
        header[0] = 1;
        header[1] = kind;
        header[2..4].copy_from_slice(&((transport + least) as u16).to_ne_bytes());
        if kind != 0 {
            header[4..6].copy_from_slice(&self.size.to_ne_bytes());
        }
        header[6..8].copy_from_slice(&(transport as u16).to_ne_bytes());
        header[8..].copy_from_slice(&(field as u16).to_ne_bytes());
        header
    }
}

/// A packet of one of a few flows.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    pub is_v6: bool,
    pub is_tcp: bool,
    pub flow: u16,
    pub flags: u8,
    pub options: bool,
    pub dont_fragment: bool,
    pub identification: u16,
    pub sequence: u32,
    pub ttl: u8,
    pub dscp: u8,
    pub window: u16,
    pub length: usize,
    pub breaks_checksum: bool,
}

impl Default for Packet {
    fn default() -> Self {
        Self {
            is_v6: false,
            is_tcp: true,
            flow: 0,
            flags: 0x10,
            options: false,
            dont_fragment: false,
            identification: 0,
            sequence: 0,
            ttl: 64,
            dscp: 0,
            window: 500,
            length: 1000,
            breaks_checksum: false,
        }
    }
}

impl Packet {
    pub fn bytes(&self) -> Vec<u8> {
        let payload: Vec<u8> = (0..self.length)
            .map(|n| (n as u32).wrapping_add(self.sequence) as u8)
            .collect();
        let ip = if self.is_v6 {
            let header = Ipv6Header {
                traffic_class: self.dscp << 2,
                hop_limit: self.ttl,
                source: SOURCE_V6,
                destination: DESTINATION_V6,
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        } else {
            let mut header =
                Ipv4Header::new(0, self.ttl, ip_number::TCP, [10, 1, 0, 9], [10, 2, 0, 9]).unwrap();
            header.identification = self.identification;
            header.dont_fragment = self.dont_fragment;
            header.dscp = self.dscp.try_into().unwrap();
            IpHeaders::Ipv4(header, Default::default())
        };
        let builder = PacketBuilder::ip(ip);
        let mut packet = Vec::new();
        if self.is_tcp {
            let mut header = TcpHeader::new(1000 + self.flow, 80, self.sequence, self.window);
            header.acknowledgment_number = 77;
            [header.fin, header.syn, header.rst, header.psh] =
                [0, 1, 2, 3].map(|bit| self.flags >> bit & 1 == 1);
            [header.ack, header.urg, header.ece, header.cwr] =
                [4, 5, 6, 7].map(|bit| self.flags >> bit & 1 == 1);
            if self.options {
                header
                    .set_options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])
                    .unwrap();
            }
            builder
                .tcp_header(header)
                .write(&mut packet, &payload)
                .unwrap();
        } else {
            builder
                .udp(2000 + self.flow, 53)
                .write(&mut packet, &payload)
                .unwrap();
        }
        if self.breaks_checksum {
            *packet.last_mut().unwrap() ^= 0x55;
        }
        packet
    }
}

/// A batch of a few flows' packets, most of which go on where the one before of their flow ended.
fn traffic(random: &mut Random) -> Vec<Vec<u8>> {
    let mut flows: Vec<Packet> = (0..4_u16)
        .map(|flow| Packet {
            is_v6: random.one_in(3),
            is_tcp: !random.one_in(3),
            flow,
            options: random.one_in(2),
            dont_fragment: random.one_in(2),
            identification: random.next() as u16,
            sequence: random.next() as u32,
            length: 200 + random.below(1000),
            ..Packet::default()
        })
        .collect();
    let mut packets = Vec::new();
    let mut index = 0;
    while packets.len() < BATCH {
        if random.one_in(5) {
            index = random.below(flows.len());
        }
        let flow = &mut flows[index];
        let mut packet = *flow;
        match random.below(60) {
            0 => packet.sequence = packet.sequence.wrapping_add(1),
            1 => packet.flags |= 0x08,
            2 => packet.flags |= 0x01,
            3 => packet.flags |= 0x80,
            4 => packet.flags |= 0x40,
            5 => packet.flags |= 0x02,
            6 => packet.ttl = 63,
            7 => packet.dscp = 46,
            8 => packet.window = 501,
            9 => packet.length = 0,
            10 => packet.length /= 2,
            11 => packet.length += 1,
            12 => packet.identification = packet.identification.wrapping_add(9),
            13 => packet.options ^= packet.is_tcp,
            14 => packet.dont_fragment ^= true,
            15 => packet.breaks_checksum = packet.length > 0,
            16 => packet.sequence = packet.sequence.wrapping_sub(packet.length as u32),
            _ => {}
        }
        flow.sequence = packet.sequence.wrapping_add(packet.length as u32);
        if !flow.dont_fragment || random.one_in(2) {
            flow.identification = packet.identification.wrapping_add(1);
        }
        packets.push(packet.bytes());
    }
    packets
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}
