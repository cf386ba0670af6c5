//! Captures and their lines against tshark, which shares no code with them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcap_file::pcap::PcapReader;
use underpass::observe::capture::PcapngFile;
use underpass::observe::dissect::Dissector;
use underpass::observe::protocol::{LinkType, PacketRow, PortRow};
use underpass::port::capture::Direction;

const PCAPS: [&str; 6] = [
    "zeek-4in4.pcap",
    "zeek-vxlan.pcap",
    "zeek-vxlan-encapsulated-http.pcap",
    "zeek-vxlan-overlapping-http-get.pcap",
    "tcpdump-vxlan.pcap",
    "tcpdump-vxlan_port_8472.pcap",
];

#[test]
fn lines_of_real_captures_agree_with_tshark() {
    let mut compared = 0;
    for name in PCAPS {
        let Some(path) = data(name) else { continue };
        let Some(rows) = tshark(&path, &FIELDS) else {
            return;
        };
        let packets = packets(&path);
        assert_eq!(packets.len(), rows.len(), "{name}");
        for (packet, row) in packets.iter().zip(&rows) {
            let line = Dissector::default().line("eth0", LinkType::Ethernet, packet);
            compare(&line, row);
            compared += 1;
        }
    }
    assert!(
        compared > 0 || data(PCAPS[0]).is_none(),
        "nothing was compared"
    );
}

const FIELDS: [&str; 15] = [
    "ip.src",
    "ip.dst",
    "vxlan.vni",
    "eth.src",
    "eth.dst",
    "udp.srcport",
    "udp.dstport",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq_raw",
    "tcp.len",
    "icmp.ident",
    "icmp.seq",
    "arp.src.proto_ipv4",
    "ip.len",
];

fn compare(line: &str, row: &[String]) {
    let field = |name: &str| {
        let index = FIELDS.iter().position(|field| *field == name).unwrap();
        row[index]
            .split(',')
            .filter(|value| !value.is_empty())
            .collect::<Vec<_>>()
    };
    for (from, to) in field("ip.src").into_iter().zip(field("ip.dst")) {
        assert!(line.contains(&format!("IP {from} > {to} ")), "{line}");
    }
    assert_in_order(line, &field("ip.src"));
    if let [vni] = field("vxlan.vni")[..] {
        let (from, to) = (field("eth.src"), field("eth.dst"));
        let inner = format!("vxlan vni {vni} | {} > {} ", from[1], to[1]);
        assert!(line.contains(&inner), "{inner}: {line}");
    }
    for (from, to) in field("udp.srcport").into_iter().zip(field("udp.dstport")) {
        assert!(line.contains(&format!("UDP {from} > {to}")), "{line}");
    }
    for ((from, to), seq) in field("tcp.srcport")
        .into_iter()
        .zip(field("tcp.dstport"))
        .zip(field("tcp.seq_raw"))
    {
        assert_in_order(
            line,
            &[&format!("TCP {from} > {to} ["), &format!("] seq {seq} ")],
        );
        assert!(
            line.contains(&format!(" data {} ", field("tcp.len")[0])),
            "{line}"
        );
    }
    // tshark gives identifier and sequence number in both byte orders.
    if let ([id, ..], [seq, ..]) = (&field("icmp.ident")[..], &field("icmp.seq")[..]) {
        assert!(line.contains(&format!(" id {id} seq {seq} ")), "{line}");
    }
    for sender in field("arp.src.proto_ipv4") {
        assert!(line.contains("ARP ") && line.contains(sender), "{line}");
    }
    assert!(
        line.ends_with(&format!("  len {}", field("ip.len")[0])),
        "{line}"
    );
}

/// Fails unless the line holds each value after the one before it.
fn assert_in_order(line: &str, values: &[&str]) {
    let mut rest = line;
    for value in values {
        let Some((_, after)) = rest.split_once(value) else {
            panic!("'{value}' is not where it should be in: {line}");
        };
        rest = after;
    }
}

#[test]
fn tshark_opens_the_pcapng_and_reads_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.pcapng");
    let ports = [
        PortRow {
            id: 4,
            name: "cali1".to_owned(),
            link: LinkType::Ethernet,
        },
        PortRow {
            id: 9,
            name: "tunl0".to_owned(),
            link: LinkType::Ip,
        },
    ];
    let frame = ping_in_ethernet();
    let row = |port, direction, time, bytes: &[u8], length| {
        let bytes = bytes.to_vec();
        PacketRow {
            port,
            direction,
            time,
            length,
            bytes,
        }
    };
    let mut file = PcapngFile::new(File::create(&path).unwrap(), &ports, 42).unwrap();
    let cut = row(
        4,
        Direction::In,
        1_700_000_000_123_456_789,
        &frame[..42],
        frame.len(),
    );
    file.write(&cut).unwrap();
    let raw = row(
        9,
        Direction::Out,
        1_700_000_001_000_000_001,
        &frame[14..],
        frame.len() - 14,
    );
    file.write(&raw).unwrap();
    let unknown = file
        .write(&row(5, Direction::In, 1, &frame, 1))
        .unwrap_err();
    assert_eq!(unknown.to_string(), "the capture has no port number 5");
    file.finish(12).unwrap();

    let fields = [
        "frame.interface_name",
        "frame.time_epoch",
        "frame.len",
        "frame.cap_len",
        "frame.encap_type",
        "frame.packet_flags_direction",
        "ip.src",
        "ip.dst",
        "icmp.type",
    ];
    let Some(rows) = tshark(&path, &fields) else {
        return;
    };
    let addresses = ["192.168.1.2", "192.168.2.2", "8"];
    let expected = [
        [
            "cali1",
            "1700000000.123456789",
            "46",
            "42",
            "1",
            "0x00000001",
        ],
        [
            "tunl0",
            "1700000001.000000001",
            "32",
            "32",
            "7",
            "0x00000002",
        ],
    ];
    assert_eq!(
        rows,
        expected.map(|row| [&row[..], &addresses[..]].concat())
    );
    let Ok(info) = Command::new("capinfos").arg(&path).output() else {
        return;
    };
    let text = String::from_utf8_lossy(&info.stdout);
    for part in ["pcapng", "nanoseconds (9)", "Number of stat entries = 1"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

fn ping_in_ethernet() -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([192, 168, 1, 2], [192, 168, 2, 2], 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut frame, &[1, 2, 3, 4])
        .unwrap();
    frame
}

/// Each packet's fields as tshark reads them; nothing, and a line that says so, without tshark.
fn tshark(file: &Path, fields: &[&str]) -> Option<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command
        .args(["-n", "-d", "udp.port==8472,vxlan", "-T", "fields", "-r"])
        .arg(file);
    fields.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let Ok(output) = command.output() else {
        println!("skipped: tshark is not installed");
        return None;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    Some(
        text.lines()
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect(),
    )
}

fn data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/data/pcaps")
        .join(name);
    if !path.exists() {
        println!("skipped: the test data {name} is not here");
        return None;
    }
    Some(path)
}

fn packets(path: &Path) -> Vec<PacketRow> {
    let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        packets.push(PacketRow {
            port: 1,
            direction: Direction::In,
            time: u64::try_from(packet.timestamp.as_nanos()).unwrap(),
            length: packet.orig_len as usize,
            bytes: packet.data.into_owned(),
        });
    }
    packets
}
