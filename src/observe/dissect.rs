//! A packet in one line: outer and inner header side by side.
//!
//! ```text
//! 12:00:01.123456 eth0 out  IP 10.30.0.11 > 10.30.0.12 ipip | IP 192.168.1.2 > 192.168.2.2 icmp echo request id 7 seq 1  len 104
//! ```
//!
//! Times are UTC. `len` is the outer IP packet's length in bytes, or the frame's without its
//! link-layer header where there is no IP packet. What cannot be read is named in brackets.

use std::fmt::{self, Display, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpPacketSlice, IpNumber, LaxNetSlice, LaxSlicedPacket, LinkSlice, TcpSlice, TransportSlice,
    UdpSlice,
};

use super::protocol::{LinkType, PacketRow};
use crate::port::capture::Direction;
use crate::wire::MacAddr;

/// Headers in headers that are followed before the rest is taken for payload.
const DEPTH: usize = 4;

/// Writes packets as lines.
#[derive(Debug, Clone)]
pub struct Dissector {
    vxlan_ports: Vec<u16>,
}

impl Default for Dissector {
    /// Takes UDP to IANA's VXLAN port (RFC 7348) and to Linux's older one for VXLAN.
    fn default() -> Self {
        Self {
            vxlan_ports: vec![4789, 8472],
        }
    }
}

impl Dissector {
    /// Takes UDP to `port` for VXLAN, too.
    pub fn with_vxlan_port(mut self, port: u16) -> Self {
        self.vxlan_ports.push(port);
        self
    }

    /// The line for a packet captured on the port called `name`, without a newline.
    pub fn line(&self, name: &str, link: LinkType, packet: &PacketRow) -> String {
        let direction = match packet.direction {
            Direction::In => "in",
            Direction::Out => "out",
        };
        let what = self.describe(link, &packet.bytes, packet.length);
        format!("{} {name} {direction:<3}  {what}", TimeOfDay(packet.time))
    }

    /// What a packet of `length` bytes is, of which the first are `bytes`.
    pub fn describe(&self, link: LinkType, bytes: &[u8], length: usize) -> String {
        let mut text = String::new();
        let outer = match link {
            LinkType::Ethernet => self.ethernet(&mut text, bytes, Addresses::Hide, 0),
            LinkType::Ip => self.ip(&mut text, bytes, 0),
        };
        let rest = length.saturating_sub(outer.link_header);
        let length = outer
            .ip_length
            .filter(|ip| (1..=rest).contains(ip))
            .unwrap_or(rest);
        // Writing to a String cannot fail, here and below.
        let _ = write!(text, "  len {length}");
        text
    }

    fn ethernet(
        &self,
        text: &mut String,
        bytes: &[u8],
        addresses: Addresses,
        depth: usize,
    ) -> Outer {
        let Ok(packet) = LaxSlicedPacket::from_ethernet(bytes) else {
            text.push_str("[cut in the Ethernet header]");
            return Outer::default();
        };
        let payload = packet.ether_payload();
        let header = bytes.len() - payload.as_ref().map_or(0, |payload| payload.payload.len());
        if let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link
            && (addresses == Addresses::Show || packet.net.is_none())
        {
            let (from, to) = (MacAddr(ethernet.source()), MacAddr(ethernet.destination()));
            let _ = write!(text, "{from} > {to} ");
        }
        for vlan in packet.vlan_ids() {
            let _ = write!(text, "vlan {} ", vlan.value());
        }
        if packet.net.is_none() {
            match payload.map_or(0, |payload| payload.ether_type.0) {
                length @ 0..0x600 => write!(text, "802.3 length {length}"),
                number => write!(text, "ethertype {number:#06x}"),
            }
            .unwrap_or_default();
        }
        let ip_length = self.network(text, &bytes[header..], &packet, depth);
        Outer {
            link_header: header,
            ip_length,
        }
    }

    fn ip(&self, text: &mut String, bytes: &[u8], depth: usize) -> Outer {
        let Ok(packet) = LaxSlicedPacket::from_ip(bytes) else {
            text.push_str("[no IP header]");
            return Outer::default();
        };
        let ip_length = self.network(text, bytes, &packet, depth);
        Outer {
            link_header: 0,
            ip_length,
        }
    }

    /// Describes the packet from its network layer on, which begins at `bytes`, and says how long
    /// its header says that it is.
    fn network(
        &self,
        text: &mut String,
        bytes: &[u8],
        packet: &LaxSlicedPacket<'_>,
        depth: usize,
    ) -> Option<usize> {
        let length = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                let (from, to) = (header.source_addr(), header.destination_addr());
                let _ = write!(text, "IP {from} > {to}");
                if header.is_fragmenting_payload() {
                    let offset = usize::from(header.fragments_offset().value()) * 8;
                    fragment(
                        text,
                        header.identification(),
                        offset,
                        header.more_fragments(),
                    );
                }
                Some(usize::from(header.total_len()))
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                let (from, to) = (header.source_addr(), header.destination_addr());
                let _ = write!(text, "IP6 {from} > {to}");
                if ip.is_payload_fragmented() {
                    text.push_str(" fragment");
                }
                Some(usize::from(header.payload_length()) + 40)
            }
            Some(LaxNetSlice::Arp(packet)) => {
                arp(text, packet);
                None
            }
            None => None,
        };
        let cut = length.unwrap_or(0).saturating_sub(bytes.len());
        self.transport(text, packet, cut, depth);
        if let Some((_, layer)) = &packet.stop_err {
            let _ = write!(text, " [cut or malformed: {layer}]");
        }
        length
    }

    /// Describes what the IP packet carries; `cut` bytes of it are missing.
    fn transport(&self, text: &mut String, packet: &LaxSlicedPacket<'_>, cut: usize, depth: usize) {
        match &packet.transport {
            Some(TransportSlice::Udp(udp)) => self.udp(text, udp, depth),
            Some(TransportSlice::Tcp(segment)) => tcp(text, segment, cut),
            Some(TransportSlice::Icmpv4(icmp)) => {
                icmpv4(text, icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8());
                if matches!(icmp.type_u8(), 3 | 11 | 12) {
                    self.quoted(text, icmp.payload(), depth);
                }
            }
            Some(TransportSlice::Icmpv6(icmp)) => {
                let (kind, code) = (icmp.type_u8(), icmp.code_u8());
                icmpv6(text, kind, code, icmp.bytes5to8(), icmp.payload());
                if matches!(kind, 1..=4) {
                    self.quoted(text, icmp.payload(), depth);
                }
            }
            Some(TransportSlice::Igmp(_)) => text.push_str(" igmp"),
            None => self.other(text, packet, depth),
        }
    }

    fn other(&self, text: &mut String, packet: &LaxSlicedPacket<'_>, depth: usize) {
        let Some(payload) = packet.ip_payload() else {
            return;
        };
        let name = match payload.ip_number {
            IpNumber::IPV4 => "ipip",
            IpNumber::IPV6 => "ip6ip",
            // A first fragment may end within its transport header; a later one has none.
            number if payload.fragmented || packet.stop_err.is_some() => {
                let _ = write!(text, " protocol {}", number.0);
                return;
            }
            number => {
                let keyword = number.keyword_str().map(str::to_ascii_lowercase);
                let _ = match keyword {
                    Some(keyword) => write!(text, " {keyword}"),
                    None => write!(text, " protocol {}", number.0),
                };
                return;
            }
        };
        let _ = write!(text, " {name}");
        if !payload.fragmented && depth < DEPTH {
            text.push_str(" | ");
            self.ip(text, payload.payload, depth + 1);
        }
    }

    fn udp(&self, text: &mut String, udp: &UdpSlice<'_>, depth: usize) {
        let (from, to) = (udp.source_port(), udp.destination_port());
        let _ = write!(text, " UDP {from} > {to}");
        if !self.vxlan_ports.contains(&to) {
            return;
        }
        // RFC 7348 section 5: flags, 24 reserved bits, the VNI's 24 bits, 8 reserved bits.
        let Some(([flags, _, _, _, a, b, c, _], inner)) = udp.payload().split_first_chunk() else {
            text.push_str(" vxlan [cut]");
            return;
        };
        let vni = u32::from_be_bytes([0, *a, *b, *c]);
        let _ = match flags & 0x08 {
            0 => write!(text, " vxlan without vni"),
            _ => write!(text, " vxlan vni {vni}"),
        };
        if depth < DEPTH {
            text.push_str(" | ");
            self.ethernet(text, inner, Addresses::Show, depth + 1);
        }
    }

    /// The packet that an ICMP error is about.
    fn quoted(&self, text: &mut String, bytes: &[u8], depth: usize) {
        if depth < DEPTH {
            text.push_str(" about (");
            self.ip(text, bytes, DEPTH);
            text.push(')');
        }
    }
}

/// Whether Ethernet addresses are part of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Addresses {
    Show,
    Hide,
}

#[derive(Debug, Default)]
struct Outer {
    link_header: usize,
    ip_length: Option<usize>,
}

fn fragment(text: &mut String, id: u16, offset: usize, more: bool) {
    let more = if more { "+" } else { "" };
    let _ = write!(text, " fragment {id} at {offset}{more}");
}

fn arp(text: &mut String, arp: &ArpPacketSlice<'_>) {
    let ipv4 = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).map(Ipv4Addr::from);
    let mac = <[u8; 6]>::try_from(arp.sender_hw_addr()).map(MacAddr);
    let (Ok(sender), Ok(target), Ok(mac)) = (
        ipv4(arp.sender_protocol_addr()),
        ipv4(arp.target_protocol_addr()),
        mac,
    ) else {
        text.push_str("ARP for other than Ethernet and IPv4");
        return;
    };
    let _ = match arp.operation().0 {
        1 => write!(text, "ARP who has {target} tell {sender} at {mac}"),
        2 => write!(text, "ARP {sender} is at {mac}"),
        other => write!(text, "ARP operation {other}"),
    };
}

fn tcp(text: &mut String, tcp: &TcpSlice<'_>, cut: usize) {
    let flags: String = [
        (tcp.syn(), 'S'),
        (tcp.fin(), 'F'),
        (tcp.rst(), 'R'),
        (tcp.psh(), 'P'),
        (tcp.urg(), 'U'),
        (tcp.ece(), 'E'),
        (tcp.cwr(), 'W'),
        (tcp.ack(), '.'),
    ]
    .into_iter()
    .filter_map(|(set, letter)| set.then_some(letter))
    .collect();
    let (from, to, seq) = (
        tcp.source_port(),
        tcp.destination_port(),
        tcp.sequence_number(),
    );
    let _ = write!(text, " TCP {from} > {to} [{flags}] seq {seq}");
    if tcp.ack() {
        let _ = write!(text, " ack {}", tcp.acknowledgment_number());
    }
    let _ = write!(
        text,
        " win {} data {}",
        tcp.window_size(),
        tcp.payload().len() + cut
    );
}

/// RFC 792, RFC 1191 (the MTU in "fragmentation needed").
fn icmpv4(text: &mut String, kind: u8, code: u8, word: [u8; 4]) {
    text.push_str(" icmp ");
    let low = u16::from_be_bytes([word[2], word[3]]);
    let _ = match (kind, code) {
        (0, _) => echo(text, "reply", word),
        (8, _) => echo(text, "request", word),
        (3, 0) => write!(text, "net unreachable"),
        (3, 1) => write!(text, "host unreachable"),
        (3, 2) => write!(text, "protocol unreachable"),
        (3, 3) => write!(text, "port unreachable"),
        (3, 4) => write!(text, "fragmentation needed mtu {low}"),
        (3, 9 | 10 | 13) => write!(text, "prohibited"),
        (5, _) => write!(text, "redirect to {}", Ipv4Addr::from(word)),
        (11, 0) => write!(text, "time exceeded in transit"),
        (11, 1) => write!(text, "reassembly time exceeded"),
        _ => write!(text, "type {kind} code {code}"),
    };
}

/// RFC 4443, RFC 4861.
fn icmpv6(text: &mut String, kind: u8, code: u8, word: [u8; 4], payload: &[u8]) {
    text.push_str(" icmp6 ");
    let target = payload.first_chunk::<16>().copied().map(Ipv6Addr::from);
    let _ = match (kind, target) {
        (128, _) => echo(text, "request", word),
        (129, _) => echo(text, "reply", word),
        (1, _) => write!(text, "unreachable code {code}"),
        (2, _) => write!(text, "packet too big mtu {}", u32::from_be_bytes(word)),
        (3, _) => write!(text, "time exceeded code {code}"),
        (133, _) => write!(text, "router solicitation"),
        (134, _) => write!(text, "router advertisement"),
        (135, Some(target)) => write!(text, "neighbour solicitation who has {target}"),
        (136, Some(target)) => write!(text, "neighbour advertisement of {target}"),
        _ => write!(text, "type {kind} code {code}"),
    };
}

fn echo(text: &mut String, what: &str, [a, b, c, d]: [u8; 4]) -> fmt::Result {
    let (id, seq) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    write!(text, "echo {what} id {id} seq {seq}")
}

/// Nanoseconds since 1970 as a time of day in UTC, to the microsecond.
struct TimeOfDay(u64);

impl Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000);
        let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
        write!(f, "{hours:02}:{minutes:02}:{:02}.{micros:06}", seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn echo_request() -> Vec<u8> {
        let builder =
            PacketBuilder::ipv4([192, 168, 1, 2], [192, 168, 2, 2], 63).icmpv4_echo_request(7, 1);
        let mut packet = Vec::new();
        builder.write(&mut packet, &[0; 56]).unwrap();
        packet
    }

    fn ipip(inner: &[u8]) -> Vec<u8> {
        let ip = etherparse::Ipv4Header::new(
            u16::try_from(inner.len()).unwrap(),
            64,
            IpNumber::IPV4,
            [10, 30, 0, 11],
            [10, 30, 0, 12],
        )
        .unwrap();
        [&ip.to_bytes()[..], inner].concat()
    }

    fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
        let addresses = [[0x02, 0, 0, 0, 0, 2], [0x02, 0, 0, 0, 0, 1]].concat();
        [&addresses[..], &ethertype.to_be_bytes(), payload].concat()
    }

    #[test]
    fn ipip_shows_both_headers() {
        let bytes = ethernet(0x0800, &ipip(&echo_request()));
        let packet = PacketRow {
            port: 1,
            direction: Direction::Out,
            time: 43_201_123_456_789,
            length: bytes.len(),
            bytes,
        };
        assert_eq!(
            Dissector::default().line("eth0", LinkType::Ethernet, &packet),
            "12:00:01.123456 eth0 out  IP 10.30.0.11 > 10.30.0.12 ipip | \
             IP 192.168.1.2 > 192.168.2.2 icmp echo request id 7 seq 1  len 104"
        );
    }

    #[test]
    fn vxlan_shows_the_inner_ethernet_header() {
        let inner = ethernet(0x0800, &echo_request());
        let payload = [&[8, 0, 0, 0, 0, 0x10, 0, 0], &inner[..]].concat();
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 30, 0, 11], [10, 30, 0, 12], 64)
            .udp(51234, 4789)
            .write(&mut bytes, &payload)
            .unwrap();
        let text = Dissector::default().describe(LinkType::Ip, &bytes, bytes.len());
        assert_eq!(
            text,
            "IP 10.30.0.11 > 10.30.0.12 UDP 51234 > 4789 vxlan vni 4096 | \
             02:00:00:00:00:01 > 02:00:00:00:00:02 \
             IP 192.168.1.2 > 192.168.2.2 icmp echo request id 7 seq 1  len 134"
        );
        // To another port it is plain UDP, unless that port is said to be VXLAN's.
        bytes[22..24].copy_from_slice(&9999u16.to_be_bytes());
        let text = Dissector::default().describe(LinkType::Ip, &bytes, bytes.len());
        assert_eq!(text, "IP 10.30.0.11 > 10.30.0.12 UDP 51234 > 9999  len 134");
        let dissector = Dissector::default().with_vxlan_port(9999);
        assert!(
            dissector
                .describe(LinkType::Ip, &bytes, bytes.len())
                .contains("vni 4096 | ")
        );
    }

    #[test]
    fn a_cut_packet_shows_what_there_is_and_its_whole_length() {
        let bytes = ethernet(0x0800, &ipip(&echo_request()));
        let text = Dissector::default().describe(LinkType::Ethernet, &bytes[..44], bytes.len());
        assert_eq!(
            text,
            "IP 10.30.0.11 > 10.30.0.12 ipip | [no IP header]  len 104"
        );
        let text = Dissector::default().describe(LinkType::Ethernet, &bytes[..9], bytes.len());
        assert!(text.starts_with("[cut in the Ethernet header]"), "{text}");
    }

    #[test]
    fn an_icmp_error_shows_the_packet_that_it_is_about() {
        let error =
            etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1480 };
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([192, 168, 1, 1], [192, 168, 1, 2], 64)
            .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(error))
            .write(&mut bytes, &echo_request()[..28])
            .unwrap();
        let text = Dissector::default().describe(LinkType::Ip, &bytes, bytes.len());
        assert_eq!(
            text,
            "IP 192.168.1.1 > 192.168.1.2 icmp fragmentation needed mtu 1480 \
             about (IP 192.168.1.2 > 192.168.2.2 icmp echo request id 7 seq 1)  len 56"
        );
    }

    proptest! {
        #[test]
        fn garbage_gives_one_line(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for link in [LinkType::Ethernet, LinkType::Ip] {
                let text = Dissector::default().describe(link, &bytes, bytes.len());
                prop_assert!(text.chars().all(|c| !c.is_control()));
            }
        }

        #[test]
        fn damaged_tunnels_give_one_line(
            cut in 0usize..140,
            at in 0usize..118,
            with in any::<u8>(),
        ) {
            let mut bytes = ethernet(0x0800, &ipip(&ipip(&echo_request()[..64])));
            let place = at % bytes.len();
            bytes[place] = with;
            bytes.truncate(cut);
            let text = Dissector::default().describe(LinkType::Ethernet, &bytes, 118);
            prop_assert!(text.chars().all(|c| !c.is_control()));
        }
    }
}
