//! What the fabric sees: each mode's packets, header by header, on the port of the node that sends
//! them.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use etherparse::{Ipv4Slice, NetSlice, SlicedPacket, TransportSlice};
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::{inside, isolated, sh};
use super::support::*;

#[test]
fn each_mode_looks_on_the_wire_as_it_should() {
    isolated(|| {
        let lab = Lab::up("ipip");
        for (mode, same_subnet, other_subnet) in [
            ("ipip", Wire::Ipip, Wire::Ipip),
            ("vxlan", Wire::Vxlan, Wire::Vxlan),
            ("direct", Wire::Bare, Wire::Bare),
            ("ipip-cross", Wire::Bare, Wire::Ipip),
            ("vxlan-cross", Wire::Bare, Wire::Vxlan),
        ] {
            lab.script(&format!("mode {mode}"));
            for (pod, address, far_node, wire) in [
                ("pod2", POD2, WORKER2, same_subnet),
                ("pod3", POD3, WORKER3, other_subnet),
            ] {
                println!("{mode}: pod1 to {pod} {wire:?}");
                check_ping(address, far_node, wire);
            }
        }
    });
}

/// How a packet crosses the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Ipip,
    Vxlan,
    Bare,
}

/// Pings from pod1 and looks at the requests as they enter the fabric and at the replies as they
/// leave it, both on worker1's port.
fn check_ping(address: Ipv4Addr, far_node: Ipv4Addr, wire: Wire) {
    let frames = capture_on("to-worker1", || {
        assert!(pings("pod1", address), "pod1 to {address}");
    });
    let of_worker1 = mac_of(WORKER1);
    let of = |sent: bool| {
        frames
            .iter()
            .filter(move |frame| (frame[6..12] == of_worker1) == sent)
    };
    let carried = |frames: &mut dyn Iterator<Item = &Vec<u8>>, outer, inner| {
        frames
            .filter(|frame| check_frame(frame, wire, outer, inner))
            .count()
    };
    let requests = carried(&mut of(true), (WORKER1, far_node), (POD1, address));
    let replies = carried(&mut of(false), (far_node, WORKER1), (address, POD1));
    assert_eq!((requests, replies), (3, 3), "{wire:?} {address}");
}

/// Whether a frame carries ICMP between the two pods; if so, everything about it must be right.
fn check_frame(
    frame: &[u8],
    wire: Wire,
    outer: (Ipv4Addr, Ipv4Addr),
    inner: (Ipv4Addr, Ipv4Addr),
) -> bool {
    let sliced = SlicedPacket::from_ethernet(frame).expect("an Ethernet frame");
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
        return false;
    };
    let (found, inner_packet) = match ip.header().protocol().0 {
        4 => (Wire::Ipip, ip.payload().payload.to_vec()),
        17 => (Wire::Vxlan, check_vxlan(&sliced, outer)),
        1 if is_pod(ip.header().source_addr()) || is_pod(ip.header().destination_addr()) => {
            (Wire::Bare, frame[14..].to_vec())
        }
        _ => return false,
    };
    assert_eq!(found, wire, "{frame:02x?}");
    if wire != Wire::Bare {
        check_outer(ip, outer);
        assert_eq!(ip.header().dont_fragment(), dont_fragment(&inner_packet));
    }
    check_inner(&inner_packet, inner, wire, outer.0 == WORKER1);
    true
}

fn check_outer(ip: &Ipv4Slice<'_>, (source, destination): (Ipv4Addr, Ipv4Addr)) {
    let header = ip.header();
    assert_eq!(
        (header.source_addr(), header.destination_addr()),
        (source, destination)
    );
    // worker3 is behind one router, which the capture is before for what worker1 sends.
    let hops = u8::from(source == WORKER3);
    assert_eq!(header.ttl(), 64 - hops);
    assert_eq!(header.ihl(), 5);
    assert_eq!(
        header.to_header().calc_header_checksum(),
        header.header_checksum()
    );
}

/// The packet inside, once UDP, VXLAN and the inner Ethernet header are found right (RFC 7348).
fn check_vxlan(sliced: &SlicedPacket<'_>, outer: (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    let Some(TransportSlice::Udp(udp)) = &sliced.transport else {
        panic!("no UDP datagram");
    };
    assert_eq!(udp.destination_port(), 4789);
    assert!(udp.source_port() >= 49152, "{}", udp.source_port());
    assert_eq!(udp.checksum(), 0);
    let payload = udp.payload();
    assert_eq!(
        payload[..8],
        [0x08, 0, 0, 0, 0x00, 0x10, 0x00, 0],
        "flags and VNI 4096"
    );
    let inner = &payload[8..];
    assert_eq!(inner[..6], vtep_mac(outer.1));
    assert_eq!(inner[6..12], vtep_mac(outer.0));
    assert_eq!(inner[12..14], [0x08, 0x00], "IPv4 inside");
    inner[14..].to_vec()
}

/// As Calico derives it: 66 and the first five bytes of SHA-1 over the node's name.
fn vtep_mac(node: Ipv4Addr) -> [u8; 6] {
    let name = match node {
        WORKER1 => "worker1",
        WORKER2 => "worker2",
        WORKER3 => "worker3",
        other => panic!("{other} is no node that this test sends to"),
    };
    let digest = sh(&format!("printf %s {name} | sha1sum"));
    let byte = |n: usize| u8::from_str_radix(&digest[2 * n..2 * n + 2], 16).expect("hex");
    [0x66, byte(0), byte(1), byte(2), byte(3), byte(4)]
}

fn check_inner(packet: &[u8], (source, destination): (Ipv4Addr, Ipv4Addr), wire: Wire, sent: bool) {
    let sliced = SlicedPacket::from_ip(packet).expect("an inner packet");
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
        panic!("not IPv4: {packet:02x?}");
    };
    let header = ip.header();
    assert_eq!(
        (header.source_addr(), header.destination_addr()),
        (source, destination)
    );
    // One hop, the sending node; a bare packet from the other subnet was routed by the fabric too.
    let routed = wire == Wire::Bare && source == POD3;
    assert_eq!(header.ttl(), 63 - u8::from(routed));
    assert_eq!(
        header.to_header().calc_header_checksum(),
        header.header_checksum()
    );
    let Some(TransportSlice::Icmpv4(icmp)) = &sliced.transport else {
        panic!("not ICMP: {packet:02x?}");
    };
    assert_eq!(icmp.type_u8(), if sent { 8 } else { 0 });
    assert_eq!(
        etherparse::checksum::Sum16BitWords::new()
            .add_slice(icmp.slice())
            .ones_complement(),
        0
    );
}

fn dont_fragment(packet: &[u8]) -> bool {
    packet[6] & 0x40 != 0
}

fn is_pod(address: Ipv4Addr) -> bool {
    address.octets()[..2] == [192, 168]
}

/// A node's Ethernet address in the lab shows its IPv4 address.
fn mac_of(node: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = node.octets();
    [2, 0, a, b, c, d]
}

/// The frames that cross one of the fabric's ports, either way, while `action` runs.
pub fn capture_on(port: &str, action: impl FnOnce()) -> Vec<Vec<u8>> {
    let (socket, index) = inside(&space("fabric"), || {
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket = Socket::new(
            Domain::from(libc::AF_PACKET),
            Type::from(libc::SOCK_RAW),
            Some(all),
        )
        .expect("packet socket");
        (
            socket,
            nix::net::if_::if_nametoindex(port).expect("fabric port"),
        )
    });
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("timeout");
    action();
    // What was sent before the action ended is in the socket's buffer by now.
    thread::sleep(Duration::from_millis(50));
    let (mut frames, mut buffer) = (Vec::new(), vec![0; 65536]);
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, Some(from))) if from.ifindex() == index as usize => {
                frames.push(buffer[..length].to_vec());
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    frames
}
