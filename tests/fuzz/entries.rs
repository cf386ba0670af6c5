//! One function a fuzz target: bytes in, and it panics where an invariant does not hold.
//!
//! Checksums are set right where a fuzzer could not guess them, so that it gets beyond them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use etherparse::{Ipv4Header, Ipv6Header};
use underpass::forward::{Adjacency, PortRole, Punt, Verdict};
use underpass::wire::arp::Arp;
use underpass::wire::ethernet::Ethernet;
use underpass::wire::icmp::Icmp;
use underpass::wire::icmpv6::Icmpv6;
use underpass::wire::ipv4::Ipv4;
use underpass::wire::ipv6::Ipv6;
use underpass::wire::nd::NeighbourMessage;
use underpass::wire::udp::Udp;
use underpass::wire::vxlan::Vxlan;
use underpass::wire::{Mtu, checksum, flow, icmp, icmpv6, ipv4, ipv6, partial};
use underpass::worker::slow_path::{Action, Punted};

use crate::common::over_ipv6::*;
use crate::common::*;
use crate::router::{NODE_ON_PAPER, PUNTS, Router, slow_path_ends};

/// What a target does with bytes.
pub type Entry = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub const ALL: [(&str, Entry); 10] = [
    ("parse", parse),
    ("decap_ipip", decap_ipip),
    ("decap_vxlan", decap_vxlan),
    ("forward", forward),
    ("reassembly", reassembly),
    ("fragmentation", fragmentation),
    ("quotation", quotation),
    ("slow_path", slow_path),
    ("bgp_message", crate::bgp::message),
    ("bgp_session", crate::bgp::session),
];

/// Reads the bytes as every format. What is accepted is written back as it was, and etherparse
/// accepts it too.
pub fn parse(data: &[u8]) {
    if let Ok(ip) = Ipv4::parse(data) {
        let (header, _) = Ipv4Header::from_slice(data).expect("etherparse reads it too");
        assert_eq!(header.source, ip.source.octets());
        assert_eq!(header.destination, ip.destination.octets());
        assert_eq!(usize::from(header.total_len), ip.total_len);
        assert_eq!(header.header_len(), ip.header_len);
        assert!(right_checksum(data));
        assert_eq!(header.is_fragmenting_payload(), ip.is_fragment());
        let mut written = [0; 20];
        if ip.header_len == 20 && data[6] & 0x80 == 0 {
            ip.write(&mut written);
            assert_eq!(written[..10], data[..10]);
            assert_eq!(written[12..], data[12..20]);
        }
    }
    let _ = Ipv4::parse_quoted(data);
    if let Ok(ip) = Ipv6::parse(data) {
        let (header, _) = Ipv6Header::from_slice(data).expect("etherparse reads it too");
        assert_eq!(header.source, ip.source.octets());
        assert_eq!(usize::from(header.payload_length), ip.payload_len);
        let mut written = [0; 40];
        ip.write(&mut written);
        assert_eq!(written, data[..40]);
    }
    let _ = (Ipv6::parse_quoted(data), ipv6::upper_layer(data));
    if let Ok(arp) = Arp::parse(data) {
        let mut written = [0; 28];
        arp.write(&mut written);
        assert_eq!(written, data[..28]);
    }
    if let Ok(header) = Ethernet::parse(data) {
        assert!(header.header_len() <= data.len());
    }
    if let Ok(udp) = Udp::parse(data) {
        assert!((8..=data.len()).contains(&udp.length));
    }
    let _ = (Vxlan::parse(data), NeighbourMessage::parse(data));
    let _ = Icmp::parse(data);
    let _ = Icmpv6::parse(FAR_NODE_V6, NODE_V6, data);
    assert_eq!(flow::flow_hash(data), flow::flow_hash(data));
    assert!(flow::vxlan_source_port(flow::flow_hash(data)) >= 49152);
    let mut changed = data.to_vec();
    partial::complete_checksum(&mut changed);
    icmp::echo_reply(&mut changed);
    icmpv6::echo_reply(&mut changed);
    assert_eq!(changed.len(), data.len());
}

/// An inner packet behind a right outer IPv4 header. Byte 0: the outer TOS; byte 1: flags.
pub fn decap_ipip(data: &[u8]) {
    let Some((&[tos, flags], rest)) = data.split_first_chunk() else {
        return;
    };
    let mut inner = rest[..rest.len().min(1480)].to_vec();
    if flags & 1 != 0 {
        mend(&mut inner);
    }
    let mut packet = ipip(FAR_NODE, NODE, &inner);
    packet[1] = tos;
    if flags & 2 != 0 {
        // A fragment, first or later.
        packet[6] = flags & 0x20;
        packet[7] = flags >> 6;
    }
    mend(&mut packet);
    opened(&packet, &inner, tos);
}

/// An inner packet, or a VXLAN header and what follows, behind right outer headers of either family.
/// Byte 0: the outer TOS; byte 1: flags.
pub fn decap_vxlan(data: &[u8]) {
    let Some((&[tos, flags], rest)) = data.split_first_chunk() else {
        return;
    };
    let over_v6 = flags & 1 != 0;
    let rest = &rest[..rest.len().min(1430)];
    let vtep = if over_v6 { VTEP_MAC_V6 } else { VTEP_MAC };
    let mut payload = Vec::new();
    let mut inner = rest.to_vec();
    if flags & 2 == 0 {
        mend(&mut inner);
        payload.extend_from_slice(&CALICO_VXLAN);
        payload.extend(ethernet(FAR_VTEP_MAC, vtep, &inner));
    } else {
        payload.extend_from_slice(rest);
        inner.clear();
    }
    let packet = if over_v6 {
        let mut packet = ipv6_header(FAR_NODE_V6, 17, tos, payload.len() + 8);
        let (ip, _) = Ipv6Header::from_slice(&packet).unwrap();
        let mut udp =
            etherparse::UdpHeader::without_ipv4_checksum(50000, 4789, payload.len()).unwrap();
        if flags & 4 != 0 {
            udp.checksum = udp.calc_checksum_ipv6(&ip, &payload).unwrap();
        }
        packet.extend(udp.to_bytes());
        packet.extend(&payload);
        packet
    } else {
        let at = payload.split_first_chunk::<8>();
        let Some((header, frame)) = at else { return };
        let mut packet = vxlan(FAR_NODE, *header, frame);
        packet[1] = tos;
        mend(&mut packet);
        packet
    };
    opened(&packet, &inner, tos);
}

/// Sends a tunnel packet in; what reaches the workload is the inner packet with a hop less and its
/// congestion mark as RFC 6040 has it.
fn opened(packet: &[u8], inner: &[u8], outer_tos: u8) {
    let (verdict, out) = with_router(|router| router.one(UPLINK, &from_uplink(packet)));
    let Verdict::Transmit(port) = verdict else {
        return;
    };
    if port != WORKLOAD || inner.is_empty() {
        return;
    }
    let out = &out[14..];
    let mark = |inner: u8| match (inner & 3, outer_tos & 3) {
        (0, _) => 0,
        (_, 3) => 3,
        (2, 1) => 1,
        (inner, _) => inner,
    };
    assert!(outer_tos & 3 != 3 || mark(tos_of(inner)) == 3);
    assert_eq!(tos_of(out), tos_of(inner) & !3 | mark(tos_of(inner)));
    match out[0] >> 4 {
        4 => {
            assert_eq!(out[8], inner[8] - 1);
            let header_len = usize::from(out[0] & 15) * 4;
            assert_eq!(out[12..header_len], inner[12..header_len]);
        }
        _ => {
            assert_eq!(out[7], inner[7] - 1);
            assert_eq!(out[8..40], inner[8..40]);
        }
    }
}

fn tos_of(packet: &[u8]) -> u8 {
    match packet[0] >> 4 {
        4 => packet[1],
        _ => packet[0] << 4 | packet[1] >> 4,
    }
}

/// Frames on all ports of a whole node. A frame: byte 0 the port (and whether its IPv4 checksums are
/// set right), bytes 1 and 2 its length, then its bytes.
pub fn forward(data: &[u8]) {
    let frames = frames(data);
    let account = with_router(|router| {
        router.run(frames.iter().map(|(port, frame)| (*port, frame.as_slice())))
    });
    assert!(account.balances(), "{account:?}");
}

/// The frames that [`forward`] reads.
fn frames(mut data: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((&[port, high, low], rest)) = data.split_first_chunk()
        && frames.len() < 200
    {
        let length = usize::from(u16::from_be_bytes([high, low]))
            .min(rest.len())
            .min(2000);
        let (frame, rest) = rest.split_at(length);
        let mut frame = frame.to_vec();
        let ports = &NODE_ON_PAPER.ports;
        let role = ports[usize::from(port & 0x7f) % ports.len()].role;
        let at = if role == PortRole::Host { 0 } else { 14 };
        if port & 0x80 == 0 && frame.len() > at {
            mend(&mut frame[at..]);
            mend_inner(&mut frame[at..]);
        }
        frames.push((usize::from(port & 0x7f), frame));
        data = rest;
    }
    frames
}

/// Outer fragments, 6 bytes each: flags, identification, where it begins (2), length (2). What comes
/// together is what a slow and plain model says.
pub fn reassembly(data: &[u8]) {
    let mut model: BTreeMap<(bool, u8), Vec<Option<u8>>> = BTreeMap::new();
    let mut punted = Vec::new();
    for record in data.chunks_exact(6).take(200) {
        let v6 = record[0] & 1 != 0;
        let more = record[0] & 2 == 0;
        let start = usize::from(u16::from_be_bytes([record[2], record[3]]) & 0x1fff) * 8;
        let mut length = usize::from(u16::from_be_bytes([record[4], record[5]])) % 1481;
        if record[0] & 4 == 0 {
            length &= !7;
        }
        let id = record[1] & 0x4f;
        let seen = model.entry((v6, id)).or_default();
        if seen.len() < start + length {
            seen.resize(start + length, None);
        }
        let payload: Vec<u8> = (start..start + length)
            .map(|at| byte_at(id, at) ^ (record[0] & 0x80))
            .collect();
        for (at, byte) in payload.iter().enumerate() {
            seen[start + at] = Some(*byte);
        }
        let packet = if v6 {
            outer_fragment_v6(id, start, more, &payload)
        } else {
            outer_fragment_v4(id, start, more, record[0] >> 3 & 3, &payload)
        };
        punted.push(Punted {
            ingress: Some(UPLINK),
            punt: Punt::OuterFragment,
            packet,
        });
    }
    for action in slow_path_ends(punted.into_iter()) {
        let Action::Receive(UPLINK, frame) = action else {
            panic!("{action:?}");
        };
        let packet = &frame[14..];
        let (v6, id, payload) = if packet[0] >> 4 == 4 {
            let (header, payload) = Ipv4Header::from_slice(packet).unwrap();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), packet.len());
            assert!(!header.is_fragmenting_payload());
            (false, packet[5], payload)
        } else {
            let (header, payload) = Ipv6Header::from_slice(packet).unwrap();
            assert_eq!(usize::from(header.payload_length), payload.len());
            // The flow label carries the identification: fragments of one packet have it in common.
            (true, packet[3], payload)
        };
        // Every byte of it came in, at its place.
        let seen = &model[&(v6, id)];
        for (at, byte) in payload.iter().enumerate() {
            assert!(seen[at].is_some(), "byte {at} was never sent");
            assert_eq!(byte & 0x7f, byte_at(id, at) & 0x7f);
        }
    }
}

fn byte_at(id: u8, at: usize) -> u8 {
    (at as u8)
        .wrapping_mul(7)
        .wrapping_add((at >> 8) as u8 ^ id)
        & 0x7f
}

fn outer_fragment_v4(id: u8, start: usize, more: bool, ecn: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = ipip(FAR_NODE, NODE, payload);
    let word = (start / 8) as u16 | if more { 0x2000 } else { 0 };
    packet[1] = ecn;
    packet[4..6].copy_from_slice(&u16::from(id).to_be_bytes());
    packet[6..8].copy_from_slice(&word.to_be_bytes());
    mend(&mut packet);
    packet
}

fn outer_fragment_v6(id: u8, start: usize, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = ipv6_header(FAR_NODE_V6, 44, 0, payload.len() + 8);
    packet[3] = id;
    let word = start as u16 | u16::from(more);
    packet.extend([17, 0]);
    packet.extend(word.to_be_bytes());
    packet.extend(u32::from(id).to_be_bytes());
    packet.extend(payload);
    packet
}

/// Whether the node on paper routes an address to its own kernel.
fn is_for_host(address: Ipv4Addr) -> bool {
    let node = &*NODE_ON_PAPER;
    let next_hop = node.fib.lookup_v4(address);
    let adjacency = next_hop.and_then(|hop| node.adjacencies.get(hop.0 as usize));
    matches!(adjacency, Some(Adjacency::Forward(egress)) if egress.to_host)
}

/// An IPv4 packet cut up for an MTU comes together again in etherparse. Bytes 0 and 1: the MTU.
pub fn fragmentation(data: &[u8]) {
    let Some((&[high, low], rest)) = data.split_first_chunk() else {
        return;
    };
    let mut packet = rest.to_vec();
    mend(&mut packet);
    // What is punted was sound, but for its size.
    match (Ipv4::parse(&packet), Ipv6::parse(&packet)) {
        (Ok(ip), _) => packet.truncate(ip.total_len),
        (_, Ok(ip)) => packet.truncate(ip.total_len()),
        _ => return,
    }
    let mtu = Mtu(u16::from_be_bytes([high, low]));
    let punted = Punted {
        ingress: Some(WORKLOAD),
        punt: Punt::TooBig(mtu),
        packet: packet.clone(),
    };
    let mut pool = etherparse::defrag::IpDefragPool::<(), ()>::new();
    let (mut whole, mut cut) = (None, Vec::new());
    let actions = slow_path_ends(std::iter::once(punted));
    if packet[0] >> 4 != 4 || packet[6] & 0x40 != 0 {
        // Not cut: there may be an error about it.
        return;
    }
    for action in actions {
        let Action::Originate(fragment) = action else {
            panic!("{action:?}");
        };
        let (header, payload) = Ipv4Header::from_slice(&fragment).expect("a packet");
        assert!(fragment.len() <= usize::from(mtu.0));
        assert!(right_checksum(&fragment));
        // The host counts its hop itself.
        let hop = u8::from(!is_for_host(header.destination.into()));
        assert_eq!(header.time_to_live, packet[8] - hop);
        cut.extend_from_slice(payload);
        let sliced = etherparse::SlicedPacket::from_ip(&fragment);
        if let Ok(sliced) = sliced {
            whole = pool.process_sliced_packet(&sliced, (), ()).ok().flatten();
        }
    }
    if cut.is_empty() {
        return;
    }
    let (header, payload) = Ipv4Header::from_slice(&packet).unwrap();
    let length = usize::from(header.total_len) - header.header_len();
    assert_eq!(cut, payload[..length]);
    if let Some(whole) = whole {
        assert_eq!(whole.payload, cut);
    }
}

/// An ICMP error about one of our packets: what it quotes is anything. Byte 0: flags; 1: the code;
/// 2 and 3: the MTU.
pub fn quotation(data: &[u8]) {
    let Some((&[flags, code, high, low], quoted)) = data.split_first_chunk() else {
        return;
    };
    let mut message = vec![3, code, 0, 0, 0, flags >> 4, high, low];
    let packet = if flags & 1 == 0 {
        message.extend_from_slice(quoted);
        let sum = checksum::of(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = Vec::new();
        ipv4_header(
            "10.30.0.254".parse().unwrap(),
            NODE,
            1,
            message.len().min(65000),
        )
        .write(&mut packet)
        .unwrap();
        packet.extend(message);
        packet
    } else {
        message[0] = 1 + code % 4;
        message.extend_from_slice(quoted);
        message.truncate(65000);
        let router = "fd00:30::ff".parse().unwrap();
        let mut packet = ipv6_header(router, 58, 0, message.len());
        let sum = checksum::Checksum::pseudo_ipv6(router, NODE_V6, 58, message.len())
            .add_bytes(&message)
            .finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        packet.extend(message);
        packet
    };
    // Through the whole node, and past its first look.
    let frame = from_uplink(&packet);
    if frame.len() < 3500 {
        let account = with_router(|router| router.run([(0, frame.as_slice())].into_iter()));
        assert!(account.balances(), "{account:?}");
    }
    let punted = Punted {
        ingress: Some(UPLINK),
        punt: Punt::TunnelError,
        packet,
    };
    for action in slow_path_ends(std::iter::once(punted)) {
        if let Action::Originate(error) = action {
            assert!(error.len() <= 1280);
            etherparse::SlicedPacket::from_ip(&error).expect("an error that can be read");
        }
    }
}

/// Any packet for any reason. Byte 0: the reason; byte 1: the port.
pub fn slow_path(data: &[u8]) {
    let Some((&[reason, port], rest)) = data.split_first_chunk() else {
        return;
    };
    let mut packet = rest[..rest.len().min(3000)].to_vec();
    if reason & 0x80 == 0 {
        mend(&mut packet);
        mend_inner(&mut packet);
    }
    let punt = PUNTS[usize::from(reason & 0x7f) % PUNTS.len()];
    let mut punted = Vec::new();
    for _ in 0..3 {
        punted.push(Punted {
            ingress: NODE_ON_PAPER
                .ports
                .get(usize::from(port % 7))
                .map(|port| port.id),
            punt,
            packet: packet.clone(),
        });
    }
    for action in slow_path_ends(punted.into_iter()) {
        if let Action::Originate(made) = action {
            assert!(matches!(made.first().map(|byte| byte >> 4), Some(4 | 6)));
        }
    }
}

/// Whether an IPv4 header's checksum is right, by etherparse where it can say: it takes no header whose
/// reserved flag (RFC 3514) is set for what it is.
pub fn right_checksum(packet: &[u8]) -> bool {
    let Ok((header, _)) = Ipv4Header::from_slice(packet) else {
        return false;
    };
    let (found, computed) = (header.header_checksum, header.calc_header_checksum());
    // Zero has two forms in ones' complement, and either verifies (RFC 1071 section 1).
    packet[6] & 0x80 != 0 || found == computed || (found, computed) == (0xffff, 0)
}

/// Sets the header checksum of an IPv4 packet right.
pub fn mend(packet: &mut [u8]) {
    let header_len = packet.first().map_or(0, |byte| usize::from(byte & 15) * 4);
    if packet.first().is_some_and(|byte| byte >> 4 == 4)
        && (20..=packet.len()).contains(&header_len)
    {
        packet[10..12].fill(0);
        let sum = checksum::of(&packet[..header_len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The same for a packet within an IP-in-IP or VXLAN packet, and for an ICMP message.
fn mend_inner(packet: &mut [u8]) {
    let (protocol, at) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => (packet.get(9).copied(), usize::from(packet[0] & 15) * 4),
        Some(6) => (packet.get(6).copied(), 40),
        _ => return,
    };
    let inner = match protocol {
        Some(ipv4::protocol::IPIP) => at,
        Some(ipv4::protocol::UDP) => at + 30,
        Some(ipv4::protocol::ICMP) => {
            if let Some(message) = packet.get_mut(at..)
                && message.len() >= 8
            {
                message[2..4].fill(0);
                let sum = checksum::of(message);
                message[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            return;
        }
        _ => return,
    };
    if let Some(inner) = packet.get_mut(inner..) {
        mend(inner);
    }
}

fn with_router<R>(work: impl FnOnce(&mut Router) -> R) -> R {
    thread_local! {
        static ROUTER: RefCell<Router> = RefCell::new(Router::new());
    }
    ROUTER.with_borrow_mut(work)
}
