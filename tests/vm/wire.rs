//! What crosses the fabric, byte by byte.

use super::lab::POD2;
use super::netns::try_sh;

const WORKER1: [u8; 4] = [10, 30, 0, 11];
const WORKER2: [u8; 4] = [10, 30, 0, 12];
const PODS: [u8; 8] = [192, 168, 1, 10, 192, 168, 2, 10];

/// Has pod1 ping pod2 and looks at the headers of a request as it comes to worker2, which tcpdump has read.
pub fn carries(encapsulation: &str, pod1: &str) {
    let filter = match encapsulation {
        "ipip" => "ip proto 4",
        "vxlan" => "udp dst port 4789",
        _ => "icmp[icmptype] = icmp-echo",
    };
    let capture =
        format!("timeout 15 tcpdump -nx -i to-worker2 -c 1 -Q out '{filter}' 2>/dev/null");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/vm-lab");
    let ping =
        format!("sleep 1; bash {script} exec {pod1} -- ping -n -c 3 -i 0.2 {POD2} >/dev/null");
    let output = try_sh(&format!(
        "({ping}) & ip netns exec vm-fabric {capture}; wait"
    ));
    let packet = bytes(&String::from_utf8_lossy(&output.stdout));
    assert!(packet.len() > 27, "nothing matched {filter}: {output:?}");
    let nodes = [WORKER1, WORKER2].concat();
    let inner = match encapsulation {
        "ipip" => {
            // RFC 2003: no options, TTL of its own, protocol 4.
            assert_eq!(packet[0], 0x45, "{packet:02x?}");
            assert_eq!((packet[8], packet[9]), (64, 4), "{packet:02x?}");
            assert_eq!(packet[12..20], nodes, "{packet:02x?}");
            20
        }
        "vxlan" => {
            // RFC 7348: UDP to 4789, the I flag and VNI 4096, the inner frame's type IPv4.
            assert_eq!((packet[0], packet[8], packet[9]), (0x45, 64, 17));
            assert_eq!(packet[12..20], nodes, "{packet:02x?}");
            assert_eq!(packet[22..24], [0x12, 0xb5], "{packet:02x?}");
            assert_eq!(packet[28..36], [8, 0, 0, 0, 0, 0x10, 0, 0]);
            assert_eq!(packet[48..50], [8, 0], "{packet:02x?}");
            50
        }
        _ => 0,
    };
    let inner = &packet[inner..];
    assert_eq!(
        (inner[0], inner[8], inner[9]),
        (0x45, 63, 1),
        "{inner:02x?}"
    );
    assert_eq!(inner[12..20], PODS, "{inner:02x?}");
}

/// The bytes of tcpdump's lines `0x0010:  0a1e 000b …`.
fn bytes(text: &str) -> Vec<u8> {
    let lines = text
        .lines()
        .filter(|line| line.trim_start().starts_with("0x"));
    let words = lines.flat_map(|line| line.split_whitespace().skip(1));
    let digits: String = words.collect();
    (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hex"))
        .collect()
}
