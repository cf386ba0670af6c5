//! The wire formats against other implementations: scapy (tests/golden/make.py), the kernel
//! (tests/golden/partial.py) and tshark over real captures (tests/golden/captures.sh).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use pcap_file::pcap::PcapReader;
use underpass::wire::arp::{Arp, Operation};
use underpass::wire::ethernet::{self, EtherType, Ethernet, VlanTag};
use underpass::wire::icmp::{self, Icmp};
use underpass::wire::icmpv6::{self, Icmpv6};
use underpass::wire::ipv4::{self, Ipv4, protocol};
use underpass::wire::ipv6::{self, Ipv6};
use underpass::wire::nd::{NeighbourKind, NeighbourMessage, multicast_mac};
use underpass::wire::udp::{self, Udp};
use underpass::wire::vxlan::{self, Vxlan};
use underpass::wire::{MacAddr, Vni, checksum, partial};

// Link layer.

#[test]
fn ethernet_with_and_without_a_tag() {
    let golden = Fixture::load("ethernet_plain");
    let frame = Ethernet::parse(golden.bytes("packet")).unwrap();
    golden.expect("ethernet", &ethernet_fields(&frame));
    assert_eq!((frame.vlan, frame.header_len()), (None, 14));
    assert_eq!(
        written(|out| frame.write(out)),
        golden.bytes("packet")[..14]
    );

    let golden = Fixture::load("ethernet_vlan");
    let frame = Ethernet::parse(golden.bytes("packet")).unwrap();
    let tag = frame.vlan.unwrap();
    golden.expect(
        "ethernet",
        &ethernet_fields(&Ethernet {
            ethertype: EtherType::VLAN,
            ..frame
        }),
    );
    golden.expect("vlan", &vlan_fields(&tag, frame.ethertype));
    assert_eq!(frame.header_len(), 18);
    assert_eq!(
        written(|out| frame.write(out)),
        golden.bytes("packet")[..18]
    );
    assert!(Ipv4::parse(&golden.bytes("packet")[18..]).is_ok());
}

#[test]
fn arp_request_and_proxy_reply() {
    let golden = Fixture::load("arp");
    let request = Arp::parse(&golden.bytes("request")[14..]).unwrap();
    let reply = Arp::parse(&golden.bytes("reply")[14..]).unwrap();
    golden.expect("request", &arp_fields(&request));
    golden.expect("reply", &arp_fields(&reply));
    assert_eq!(request.reply(MacAddr::WORKLOAD_GATEWAY), reply);
    assert_eq!(
        Arp::request(request.sender_mac, request.sender_ip, request.target_ip),
        request
    );
    assert_eq!(
        written(|out| request.write(out)),
        golden.bytes("request")[14..]
    );
    assert_eq!(written(|out| reply.write(out)), golden.bytes("reply")[14..]);
}

// IP.

#[test]
fn ipv4_and_changes_in_place() {
    let golden = Fixture::load("ipv4_plain");
    let packet = golden.bytes("packet");
    let ip = Ipv4::parse(packet).unwrap();
    golden.expect("ipv4", &ipv4_fields(&ip));
    assert_eq!(written(|out| ip.write(out)), packet[..20]);
    let datagram = &packet[20..];
    let header = Udp::parse(datagram).unwrap();
    golden.expect("udp", &udp_fields(&header));
    assert_eq!(written(|out| header.write(out)), datagram[..8]);
    assert_eq!(
        udp::checksum_ipv4(ip.source, ip.destination, datagram),
        header.checksum
    );
    assert!(udp::verify_ipv4(ip.source, ip.destination, datagram));

    let changed = |change: fn(&mut [u8]) -> bool| changed(packet, change);
    assert_eq!(
        changed(ipv4::decrement_ttl),
        golden.bytes("ttl_decremented")
    );
    assert_eq!(
        changed(|p| ipv4::set_ttl(p, 63)),
        golden.bytes("ttl_decremented")
    );
    assert_eq!(changed(|p| ipv4::set_tos(p, 3)), golden.bytes("tos_0x03"));
    assert_eq!(
        changed(|p| ipv4::set_identification(p, 0)),
        golden.bytes("identification_0")
    );
    let cleared = changed(|p| ipv4::set_dont_fragment(p, false));
    assert_eq!(cleared, golden.bytes("dont_fragment_clear"));
}

#[test]
fn ipv4_options() {
    let golden = Fixture::load("ipv4_options");
    let ip = Ipv4::parse(golden.bytes("packet")).unwrap();
    golden.expect("ipv4", &ipv4_fields(&ip));
    let decremented = changed(golden.bytes("packet"), ipv4::decrement_ttl);
    assert_eq!(decremented, golden.bytes("ttl_decremented"));
}

#[test]
fn ipv4_checksum_of_zero() {
    let golden = Fixture::load("ipv4_checksum_zero");
    let packet = golden.bytes("packet");
    let ip = Ipv4::parse(packet).unwrap();
    golden.expect("ipv4", &ipv4_fields(&ip));
    assert_eq!(packet[10..12], [0, 0]);
    assert_eq!(written(|out| ip.write(out)), packet[..20]);
    let decremented = changed(packet, ipv4::decrement_ttl);
    assert_eq!(decremented, golden.bytes("ttl_decremented"));
    assert_eq!(changed(&decremented, |p| ipv4::set_ttl(p, 64)), packet);
    let marked = changed(packet, |p| ipv4::set_tos(p, 3));
    assert_eq!(marked, golden.bytes("tos_0x03"));
    assert_eq!(changed(&marked, |p| ipv4::set_tos(p, 0)), packet);
}

#[test]
fn ipv4_fragments() {
    let golden = Fixture::load("ipv4_fragments");
    let first = Ipv4::parse(golden.bytes("first")).unwrap();
    let last = Ipv4::parse(golden.bytes("last")).unwrap();
    golden.expect("first", &ipv4_fields(&first));
    golden.expect("last", &ipv4_fields(&last));
    assert!(first.is_fragment() && first.is_first_fragment());
    assert!(last.is_fragment() && !last.is_first_fragment());
    assert_eq!(written(|out| first.write(out)), golden.bytes("first")[..20]);
    assert_eq!(written(|out| last.write(out)), golden.bytes("last")[..20]);
}

#[test]
fn ipv6_and_changes_in_place() {
    let golden = Fixture::load("ipv6_plain");
    let packet = golden.bytes("packet");
    let ip = Ipv6::parse(packet).unwrap();
    golden.expect("ipv6", &ipv6_fields(&ip));
    assert_eq!(written(|out| ip.write(out)), packet[..40]);
    let datagram = &packet[40..];
    let header = Udp::parse(datagram).unwrap();
    golden.expect("udp", &udp_fields(&header));
    assert_eq!(
        udp::checksum_ipv6(ip.source, ip.destination, datagram),
        header.checksum
    );
    assert!(udp::verify_ipv6(ip.source, ip.destination, datagram));

    let decremented = changed(packet, ipv6::decrement_hop_limit);
    assert_eq!(decremented, golden.bytes("hop_limit_decremented"));
    let marked = changed(packet, |p| ipv6::set_traffic_class(p, 0x47));
    assert_eq!(marked, golden.bytes("traffic_class_0x47"));
}

#[test]
fn ipv6_extension_headers() {
    let golden = Fixture::load("ipv6_extensions");
    let packet = golden.bytes("packet");
    golden.expect("ipv6", &ipv6_fields(&Ipv6::parse(packet).unwrap()));
    let upper = ipv6::upper_layer(packet).unwrap();
    let fragment = upper.fragment.unwrap();
    golden.expect(
        "upper",
        &[
            ("protocol", text(upper.protocol)),
            ("offset", text(upper.offset)),
            ("fragment_offset", text(fragment.offset)),
            ("more", text(fragment.more)),
            ("identification", text(fragment.identification)),
            ("segments_left", text(upper.segments_left)),
        ],
    );
}

// Tunnels.

#[test]
fn vxlan_over_ipv4() {
    for name in ["vxlan_v4", "vxlan_v4_checksum"] {
        let golden = Fixture::load(name);
        let packet = expect_ethernet(&golden);
        let ip = Ipv4::parse(packet).unwrap();
        golden.expect("outer", &ipv4_fields(&ip));
        let datagram = &packet[20..];
        assert!(udp::verify_ipv4(ip.source, ip.destination, datagram));
        let header = expect_vxlan(&golden, datagram);
        let computed = udp::checksum_ipv4(ip.source, ip.destination, datagram);
        assert_eq!(
            header.checksum,
            if name == "vxlan_v4" { 0 } else { computed }
        );
        let outer = written(|out| ip.write(out));
        assert_eq!(outer, packet[..20]);
    }
}

#[test]
fn vxlan_over_ipv6() {
    let golden = Fixture::load("vxlan_v6");
    let packet = expect_ethernet(&golden);
    let ip = Ipv6::parse(packet).unwrap();
    golden.expect("outer", &ipv6_fields(&ip));
    let header = expect_vxlan(&golden, &packet[40..]);
    assert!(udp::verify_ipv6(ip.source, ip.destination, &packet[40..]));
    let computed = udp::checksum_ipv6(ip.source, ip.destination, &packet[40..]);
    assert_eq!(header.checksum, computed);
}

#[test]
fn ipip() {
    let golden = Fixture::load("ipip");
    let outer = Ipv4::parse(golden.bytes("packet")).unwrap();
    let inner = Ipv4::parse(&golden.bytes("packet")[outer.header_len..]).unwrap();
    golden.expect("outer", &ipv4_fields(&outer));
    golden.expect("inner", &ipv4_fields(&inner));
    let headers = [
        written(|out| outer.write(out)),
        written(|out| inner.write(out)),
    ]
    .concat();
    assert_eq!(headers, golden.bytes("packet")[..40]);
}

// ICMP.

#[test]
fn icmp_echo() {
    let golden = Fixture::load("icmp_echo");
    let request = Icmp::parse(&golden.bytes("request")[20..]).unwrap();
    golden.expect(
        "request",
        &[
            ("type", text(request.message_type)),
            ("code", text(request.code)),
            ("identifier", text(request.identifier())),
            ("sequence", text(request.sequence())),
        ],
    );
    assert_eq!(
        changed(golden.bytes("request"), icmp::echo_reply),
        golden.bytes("reply")
    );
}

#[test]
fn icmp_errors() {
    use icmp::ErrorKind;
    use icmp::codes::{HOST_UNREACHABLE, NET_UNREACHABLE, TTL_EXCEEDED};
    let unreachable = ErrorKind::DestinationUnreachable;
    for (name, kind) in [
        ("icmp_net_unreachable", unreachable(NET_UNREACHABLE)),
        ("icmp_host_unreachable", unreachable(HOST_UNREACHABLE)),
        (
            "icmp_fragmentation_needed",
            ErrorKind::FragmentationNeeded { mtu: 1430 },
        ),
        ("icmp_time_exceeded", ErrorKind::TimeExceeded(TTL_EXCEEDED)),
    ] {
        let golden = Fixture::load(name);
        let packet = golden.bytes("packet");
        let ip = Ipv4::parse(packet).unwrap();
        golden.expect("ipv4", &ipv4_fields(&ip));
        let message = Icmp::parse(&packet[20..]).unwrap();
        let mtu = message.next_hop_mtu().map_or("none".to_owned(), text);
        golden.expect(
            "icmp",
            &[
                ("type", text(message.message_type)),
                ("code", text(message.code)),
                ("mtu", mtu),
            ],
        );
        let original = golden.bytes("original");
        assert!(icmp::may_answer(&Ipv4::parse(original).unwrap(), original));
        assert!(!icmp::may_answer(&ip, packet));
        let error =
            written(|out| icmp::write_error(kind, original, ip.source, ip.destination, out));
        assert_eq!(error, packet, "{name}");
    }
}

#[test]
fn icmpv6_echo() {
    let golden = Fixture::load("icmpv6_echo");
    let ip = Ipv6::parse(golden.bytes("request")).unwrap();
    let message = &golden.bytes("request")[40..];
    let request = Icmpv6::parse(ip.source, ip.destination, message).unwrap();
    golden.expect(
        "request",
        &[
            ("type", text(request.message_type)),
            ("code", text(request.code)),
            ("identifier", text(request.identifier())),
            ("sequence", text(request.sequence())),
        ],
    );
    assert_eq!(
        changed(golden.bytes("request"), icmpv6::echo_reply),
        golden.bytes("reply")
    );
}

#[test]
fn icmpv6_errors() {
    use icmpv6::ErrorKind;
    use icmpv6::codes::{HOP_LIMIT_EXCEEDED, NO_ROUTE};
    for (name, kind) in [
        (
            "icmpv6_no_route",
            ErrorKind::DestinationUnreachable(NO_ROUTE),
        ),
        (
            "icmpv6_packet_too_big",
            ErrorKind::PacketTooBig { mtu: 1430 },
        ),
        (
            "icmpv6_time_exceeded",
            ErrorKind::TimeExceeded(HOP_LIMIT_EXCEEDED),
        ),
    ] {
        let golden = Fixture::load(name);
        let packet = golden.bytes("packet");
        let ip = Ipv6::parse(packet).unwrap();
        golden.expect("ipv6", &ipv6_fields(&ip));
        let message = Icmpv6::parse(ip.source, ip.destination, &packet[40..]).unwrap();
        let mtu = message.mtu().map_or("none".to_owned(), text);
        golden.expect(
            "icmpv6",
            &[
                ("type", text(message.message_type)),
                ("code", text(message.code)),
                ("mtu", mtu),
            ],
        );
        let original = golden.bytes("original");
        assert!(icmpv6::may_answer(
            &Ipv6::parse(original).unwrap(),
            original
        ));
        assert!(!icmpv6::may_answer(&ip, packet));
        let error =
            written(|out| icmpv6::write_error(kind, original, ip.source, ip.destination, out));
        assert_eq!(error, packet, "{name}");
    }
}

#[test]
fn neighbour_discovery() {
    for name in ["nd_neighbour", "nd_duplicate_address"] {
        let golden = Fixture::load(name);
        let (request, answer) = (golden.bytes("solicitation"), golden.bytes("advertisement"));
        let solicitation = NeighbourMessage::parse(request).unwrap();
        let advertisement = NeighbourMessage::parse(answer).unwrap();
        golden.expect("solicitation", &neighbour_fields(&solicitation));
        golden.expect("advertisement", &neighbour_fields(&advertisement));
        assert_eq!(
            solicitation.advertisement(MacAddr::WORKLOAD_GATEWAY),
            advertisement
        );
        assert_eq!(written(|out| solicitation.write(out)), request);
        assert_eq!(written(|out| advertisement.write(out)), answer);
        let asker: MacAddr = "66:3e:ca:a4:db:65".parse().unwrap();
        let asked = NeighbourMessage::solicitation(solicitation.source, asker, solicitation.target);
        assert_eq!(asked, solicitation);
        assert_eq!(
            multicast_mac(asked.destination).to_string(),
            "33:33:ff:56:78:9a"
        );
    }
}

// Checksums that the kernel leaves unfinished.

#[test]
fn what_the_kernel_leaves_on_a_veth_is_completed() {
    let names = [
        "partial_udp4",
        "partial_udp6",
        "partial_tcp4",
        "partial_tcp6",
        "partial_tcp4_segment",
    ];
    for name in names.into_iter().chain(["partial_tcp6_segment"]) {
        let golden = Fixture::load(name);
        let complete = changed(golden.bytes("partial"), partial::complete_checksum);
        assert_eq!(complete, golden.bytes("complete"), "{name}");

        let mut right = golden.bytes("complete").to_vec();
        assert!(!partial::complete_checksum(&mut right), "{name}");
        assert_eq!(right, golden.bytes("complete"), "{name}");
    }
}

#[test]
fn fragments_and_other_protocols_keep_their_checksum() {
    let kept = |change: fn(&mut [u8])| {
        let golden = Fixture::load("partial_udp4");
        let mut packet = golden.bytes("partial").to_vec();
        golden.bytes("complete");
        change(&mut packet);
        let before = packet.clone();
        !partial::complete_checksum(&mut packet) && packet == before
    };
    assert!(kept(|p| p[6] = 0x20), "first fragment");
    assert!(kept(|p| (p[6], p[7]) = (0, 1)), "later fragment");
    assert!(kept(|p| p[9] = 132), "SCTP");
    assert!(kept(|p| p[27] ^= 1), "another checksum");
    assert!(kept(|p| (p[26], p[27]) = (0, 0)), "no checksum");
    assert!(kept(|p| p[3] = 27), "no whole UDP header");
}

// The fixtures themselves.

#[test]
fn the_fixtures_are_what_scapy_makes() {
    let script = golden_directory().join("make.py");
    let status = Command::new("/usr/bin/python3")
        .args(["-B", "-c", "import scapy"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !status {
        println!("skipped: no python3-scapy to make the golden packets again");
        return;
    }
    let output = Command::new("/usr/bin/python3")
        .arg("-B")
        .arg(script)
        .arg("--check")
        .output();
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

// Captures.

#[test]
fn captures_read_as_tshark_reads_them() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/pcaps");
    if !directory.is_dir() {
        println!("skipped: no captures in {}", directory.display());
        return;
    }
    let mut packets = 0;
    for (name, count) in [
        ("tcpdump-vxlan", 10),
        ("tcpdump-vxlan_port_8472", 10),
        ("zeek-4in4", 1),
        ("zeek-vxlan", 10),
        ("zeek-vxlan-encapsulated-http", 12),
        ("zeek-vxlan-overlapping-http-get", 42),
    ] {
        let capture = File::open(directory.join(name).with_extension("pcap")).unwrap();
        let mut reader = PcapReader::new(capture).unwrap();
        let expected =
            fs::read_to_string(golden_directory().join(format!("captures/{name}.txt"))).unwrap();
        let mut lines = expected.lines().skip(1);
        while let Some(packet) = reader.next_packet() {
            let read = Reading::of(&packet.unwrap().data);
            assert_eq!(
                Some(read.line().as_str()),
                lines.next(),
                "{name}, packet {packets}"
            );
            packets += 1;
        }
        assert_eq!(
            (lines.next(), expected.lines().count() - 1),
            (None, count),
            "{name}"
        );
    }
    assert_eq!(packets, 85);
}

/// A packet's fields by name, in the order of captures.sh, each with its values from outermost to
/// innermost.
#[derive(Default)]
struct Reading(BTreeMap<&'static str, Vec<String>>);

impl Reading {
    const FIELDS: [&str; 18] = [
        "frame.len",
        "eth.src",
        "eth.dst",
        "eth.type",
        "ip.src",
        "ip.dst",
        "ip.ttl",
        "ip.id",
        "ip.len",
        "ip.proto",
        "ip.flags.df",
        "udp.srcport",
        "udp.dstport",
        "udp.length",
        "udp.checksum",
        "vxlan.vni",
        "arp.opcode",
        "icmp.type",
    ];

    fn of(frame: &[u8]) -> Self {
        let mut reading = Self::default();
        reading.put("frame.len", frame.len());
        reading.ethernet(frame);
        reading
    }

    fn line(&self) -> String {
        let value = |field| {
            self.0
                .get(field)
                .map_or(String::new(), |values| values.join(","))
        };
        Self::FIELDS.map(value).join("|")
    }

    fn put(&mut self, field: &'static str, value: impl Display) {
        assert!(Self::FIELDS.contains(&field), "{field}");
        self.0.entry(field).or_default().push(value.to_string());
    }

    fn ethernet(&mut self, frame: &[u8]) {
        let header = Ethernet::parse(frame).unwrap();
        self.put("eth.src", header.source);
        self.put("eth.dst", header.destination);
        self.put("eth.type", format!("0x{:04x}", header.ethertype.0));
        let payload = &frame[header.header_len()..];
        match header.ethertype {
            EtherType::IPV4 => self.ipv4(payload),
            EtherType::ARP => match Arp::parse(payload).unwrap().operation {
                Operation::Request => self.put("arp.opcode", 1),
                Operation::Reply => self.put("arp.opcode", 2),
            },
            other => panic!("the captures have no {other}"),
        }
    }

    fn ipv4(&mut self, packet: &[u8]) {
        let ip = Ipv4::parse(packet).unwrap();
        self.put("ip.src", ip.source);
        self.put("ip.dst", ip.destination);
        self.put("ip.ttl", ip.ttl);
        self.put("ip.id", format!("0x{:04x}", ip.identification));
        self.put("ip.len", ip.total_len);
        self.put("ip.proto", ip.protocol);
        self.put("ip.flags.df", u8::from(ip.dont_fragment));
        let payload = &packet[ip.header_len..ip.total_len];
        match ip.protocol {
            protocol::IPIP => self.ipv4(payload),
            protocol::UDP => self.udp(&ip, payload),
            protocol::ICMP => self.put("icmp.type", Icmp::parse(payload).unwrap().message_type),
            protocol::TCP => assert_right_tcp_checksum(&ip, payload),
            other => panic!("the captures have no protocol {other}"),
        }
    }

    fn udp(&mut self, ip: &Ipv4, datagram: &[u8]) {
        let header = Udp::parse(datagram).unwrap();
        self.put("udp.srcport", header.source_port);
        self.put("udp.dstport", header.destination_port);
        self.put("udp.length", header.length);
        self.put("udp.checksum", format!("0x{:04x}", header.checksum));
        if [vxlan::UDP_PORT, 8472].contains(&header.destination_port) {
            assert!(udp::verify_ipv4(ip.source, ip.destination, datagram));
            let tunnel = Vxlan::parse(&datagram[udp::HEADER_LEN..]).unwrap();
            assert!(!tunnel.reserved_bits_set);
            self.put("vxlan.vni", tunnel.vni);
            self.ethernet(&datagram[udp::HEADER_LEN + vxlan::HEADER_LEN..]);
        }
    }
}

/// tshark calls all TCP checksums in the captures good (tcp.checksum.status 1).
fn assert_right_tcp_checksum(ip: &Ipv4, segment: &[u8]) {
    use checksum::Checksum;
    let pseudo = Checksum::pseudo_ipv4(ip.source, ip.destination, protocol::TCP, segment.len());
    assert_eq!(pseudo.add_bytes(segment).folded(), 0xffff);
}

// Fixtures.

/// A file of tests/golden: packets, and fields that all have to be asked for.
struct Fixture {
    name: &'static str,
    values: BTreeMap<String, String>,
    packets: BTreeMap<String, Vec<u8>>,
    asked: RefCell<BTreeSet<String>>,
}

impl Fixture {
    fn load(name: &'static str) -> Self {
        let path = golden_directory().join(name).with_extension("txt");
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; run make.py", path.display()));
        let mut fixture = Self {
            name,
            values: BTreeMap::new(),
            packets: BTreeMap::new(),
            asked: Default::default(),
        };
        let mut packet = String::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((key, value)) = line.split_once(" = ") {
                fixture.values.insert(key.to_owned(), value.to_owned());
            } else if let Some(key) = line.strip_suffix(" =") {
                packet = key.to_owned();
                fixture.packets.insert(packet.clone(), Vec::new());
            } else {
                fixture
                    .packets
                    .get_mut(&packet)
                    .unwrap()
                    .extend(from_hex(line.trim()));
            }
        }
        fixture
    }

    fn bytes(&self, key: &str) -> &[u8] {
        self.asked.borrow_mut().insert(key.to_owned());
        self.packets
            .get(key)
            .unwrap_or_else(|| panic!("{} has no packet {key}", self.name))
    }

    /// Asserts that the fields under `prefix` are exactly these.
    fn expect(&self, prefix: &str, fields: &[(&str, String)]) {
        let fields: BTreeMap<_, _> = fields
            .iter()
            .map(|(key, value)| (format!("{prefix}.{key}"), value.clone()))
            .collect();
        let expected: BTreeMap<_, _> = self
            .values
            .iter()
            .filter(|(key, _)| {
                key.split_once('.')
                    .is_some_and(|(start, _)| start == prefix)
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(fields, expected, "{}", self.name);
        self.asked.borrow_mut().extend(fields.into_keys());
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let asked = self.asked.borrow();
        let all = self.values.keys().chain(self.packets.keys());
        let left: Vec<_> = all.filter(|key| !asked.contains(*key)).collect();
        assert!(
            left.is_empty(),
            "{}: nothing compared with {left:?}",
            self.name
        );
    }
}

fn golden_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn from_hex(digits: &str) -> impl Iterator<Item = u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte)
}

/// What a writer wrote into a buffer larger than it needs.
fn written(write: impl FnOnce(&mut [u8]) -> usize) -> Vec<u8> {
    let mut out = vec![0xa5; 2048];
    let length = write(&mut out);
    assert!(length > 0);
    assert!(out[length..].iter().all(|byte| *byte == 0xa5));
    out.truncate(length);
    out
}

fn changed(packet: &[u8], change: impl FnOnce(&mut [u8]) -> bool) -> Vec<u8> {
    let mut packet = packet.to_vec();
    assert!(change(&mut packet));
    packet
}

/// Compares the outer Ethernet header and returns what is behind it.
fn expect_ethernet(golden: &Fixture) -> &[u8] {
    let frame = golden.bytes("packet");
    let header = Ethernet::parse(frame).unwrap();
    golden.expect("ethernet", &ethernet_fields(&header));
    &frame[ethernet::HEADER_LEN..]
}

/// Compares everything from the outer UDP header on and returns that header.
fn expect_vxlan(golden: &Fixture, datagram: &[u8]) -> Udp {
    let header = Udp::parse(datagram).unwrap();
    golden.expect("udp", &udp_fields(&header));
    let tunnel = Vxlan::parse(&datagram[8..]).unwrap();
    assert!(!tunnel.reserved_bits_set);
    golden.expect(
        "vxlan",
        &[("vni", text(tunnel.vni)), ("flags", "0x08".to_owned())],
    );
    let vni = Vni::new(tunnel.vni.get()).unwrap();
    assert_eq!(written(|out| Vxlan::write(vni, out)), datagram[8..16]);
    let inner = Ethernet::parse(&datagram[16..]).unwrap();
    golden.expect("inner_ethernet", &ethernet_fields(&inner));
    golden.expect(
        "inner",
        &ipv4_fields(&Ipv4::parse(&datagram[30..]).unwrap()),
    );
    header
}

// Fields, named as make.py names them.

type Fields = Vec<(&'static str, String)>;

fn text(value: impl Display) -> String {
    value.to_string()
}

fn ethernet_fields(header: &Ethernet) -> Fields {
    vec![
        ("destination", text(header.destination)),
        ("source", text(header.source)),
        ("ethertype", format!("0x{:04x}", header.ethertype.0)),
    ]
}

fn vlan_fields(tag: &VlanTag, ethertype: EtherType) -> Fields {
    vec![
        ("priority", text(tag.priority)),
        ("drop_eligible", text(tag.drop_eligible)),
        ("id", text(tag.id)),
        ("ethertype", format!("0x{:04x}", ethertype.0)),
    ]
}

fn arp_fields(message: &Arp) -> Fields {
    let operation = match message.operation {
        Operation::Request => 1,
        Operation::Reply => 2,
    };
    vec![
        ("operation", text(operation)),
        ("sender_mac", text(message.sender_mac)),
        ("sender_ip", text(message.sender_ip)),
        ("target_mac", text(message.target_mac)),
        ("target_ip", text(message.target_ip)),
    ]
}

fn ipv4_fields(ip: &Ipv4) -> Fields {
    vec![
        ("header_len", text(ip.header_len)),
        ("tos", text(ip.tos)),
        ("total_len", text(ip.total_len)),
        ("identification", text(ip.identification)),
        ("dont_fragment", text(ip.dont_fragment)),
        ("more_fragments", text(ip.more_fragments)),
        ("fragment_offset", text(ip.fragment_offset)),
        ("ttl", text(ip.ttl)),
        ("protocol", text(ip.protocol)),
        ("source", text(ip.source)),
        ("destination", text(ip.destination)),
    ]
}

fn ipv6_fields(ip: &Ipv6) -> Fields {
    vec![
        ("traffic_class", text(ip.traffic_class)),
        ("flow_label", text(ip.flow_label)),
        ("payload_len", text(ip.payload_len)),
        ("next_header", text(ip.next_header)),
        ("hop_limit", text(ip.hop_limit)),
        ("source", text(ip.source)),
        ("destination", text(ip.destination)),
    ]
}

fn udp_fields(header: &Udp) -> Fields {
    vec![
        ("source_port", text(header.source_port)),
        ("destination_port", text(header.destination_port)),
        ("length", text(header.length)),
        ("checksum", format!("0x{:04x}", header.checksum)),
    ]
}

fn neighbour_fields(message: &NeighbourMessage) -> Fields {
    let (message_type, flags) = match message.kind {
        NeighbourKind::Solicitation => (135, vec![]),
        NeighbourKind::Advertisement {
            router,
            solicited,
            override_cached,
        } => (
            136,
            vec![
                ("router", text(router)),
                ("solicited", text(solicited)),
                ("override", text(override_cached)),
            ],
        ),
    };
    let link_address = message.link_address.map_or("none".to_owned(), text);
    let mut fields = vec![
        ("type", text(message_type)),
        ("code", text(0)),
        ("source", text(message.source)),
        ("destination", text(message.destination)),
        ("target", text(message.target)),
        ("link_address", link_address),
    ];
    fields.extend(flags);
    fields
}
