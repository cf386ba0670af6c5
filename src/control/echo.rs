//! Echo requests that probe a path, and what comes back, of either IP version.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::ipv4::{self, Ipv4, protocol};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{checksum, icmp, icmpv6};

/// How long the host's kernel has for an answer, each of three times.
const WAIT: Duration = Duration::from_millis(500);

/// Whether a host answers an echo request of this host's own kernel, which goes by none of our ports.
pub fn kernel_ping(to: Ipv4Addr) -> bool {
    (1..=3).any(|number| ping_once(to, number).unwrap_or(false))
}

fn ping_once(to: Ipv4Addr, number: u32) -> io::Result<bool> {
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.connect(&SocketAddr::from((to, 0)).into())?;
    socket.set_read_timeout(Some(WAIT))?;
    let number = std::process::id() << 16 | number;
    let asked = request(Ipv4Addr::UNSPECIFIED.into(), to.into(), number, 64);
    socket.write_all(&asked[ipv4::HEADER_LEN..])?;
    let end = Instant::now() + WAIT;
    let mut buffer = [0; 256];
    while Instant::now() < end {
        let length = socket.read(&mut buffer)?;
        let answer = Packet::read(&buffer[..length]);
        if answer.is_some_and(|answer| answer.answered_number() == Some(number)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Bytes of an ICMP header, in both versions.
const HEADER: usize = icmp::HEADER_LEN;

/// An echo request of `size` bytes in all, which must hold its headers; IPv4 with DF set.
pub(super) fn request(source: IpAddr, destination: IpAddr, number: u32, size: usize) -> Vec<u8> {
    let mut packet = vec![0x55; size];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let ip = Ipv4 {
                header_len: ipv4::HEADER_LEN,
                tos: 0,
                total_len: size,
                identification: 0,
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: 0,
                ttl: 64,
                protocol: protocol::ICMP,
                source,
                destination,
            };
            ip.write(&mut packet);
            let message = &mut packet[ipv4::HEADER_LEN..];
            head(message, icmp::types::ECHO_REQUEST, number);
            let sum = checksum::of(message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = Ipv6 {
                traffic_class: 0,
                flow_label: 0,
                payload_len: size - ipv6::HEADER_LEN,
                next_header: protocol::ICMPV6,
                hop_limit: 64,
                source,
                destination,
            };
            ip.write(&mut packet);
            let message = &mut packet[ipv6::HEADER_LEN..];
            head(message, icmpv6::types::ECHO_REQUEST, number);
            let length = message.len();
            let pseudo =
                checksum::Checksum::pseudo_ipv6(source, destination, protocol::ICMPV6, length);
            let sum = pseudo.add_bytes(message).finish();
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        // Nobody asks for it; it is sent to nobody.
        _ => packet.clear(),
    }
    packet
}

fn head(message: &mut [u8], kind: u8, number: u32) {
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    message[4..HEADER].copy_from_slice(&number.to_be_bytes());
}

/// A packet that may be cut short, as captured or as an error quotes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads an IP header; nothing of a later fragment, behind which there is no header.
    pub(super) fn read(packet: &'a [u8]) -> Option<Self> {
        if packet.first()? >> 4 == 4 {
            let ip = Ipv4::parse_quoted(packet).ok()?;
            return (ip.fragment_offset == 0).then_some(Self {
                source: ip.source.into(),
                destination: ip.destination.into(),
                protocol: ip.protocol,
                payload: packet.get(ip.header_len..)?,
            });
        }
        let ip = Ipv6::parse_quoted(packet).ok()?;
        let layer = ipv6::upper_layer(packet).filter(|layer| layer.has_header())?;
        Some(Self {
            source: ip.source.into(),
            destination: ip.destination.into(),
            protocol: layer.protocol,
            payload: packet.get(layer.offset..)?,
        })
    }

    /// The MTU that an error names, and what it quotes.
    pub(super) fn too_big(&self) -> Option<(u16, &'a [u8])> {
        let header: &[u8; HEADER] = self.payload.first_chunk()?;
        let mtu = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let (kind, mtu) = match self.protocol {
            protocol::ICMP => {
                let needed = [
                    icmp::types::DESTINATION_UNREACHABLE,
                    icmp::codes::FRAGMENTATION_NEEDED,
                ];
                (header[..2] == needed, mtu & 0xffff)
            }
            protocol::ICMPV6 => (header[0] == icmpv6::types::PACKET_TOO_BIG, mtu),
            _ => return None,
        };
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        kind.then_some((mtu, &self.payload[HEADER..]))
    }

    /// The code of a "destination unreachable" that is about no size, and what it quotes.
    pub(super) fn unreachable(&self) -> Option<(u8, &'a [u8])> {
        let header: &[u8; HEADER] = self.payload.first_chunk()?;
        let about_it = match self.protocol {
            protocol::ICMP => {
                header[0] == icmp::types::DESTINATION_UNREACHABLE
                    && header[1] != icmp::codes::FRAGMENTATION_NEEDED
            }
            protocol::ICMPV6 => header[0] == icmpv6::types::DESTINATION_UNREACHABLE,
            _ => false,
        };
        about_it.then_some((header[1], &self.payload[HEADER..]))
    }

    /// The number of an echo request.
    pub(super) fn asked_number(&self) -> Option<u32> {
        self.number(icmp::types::ECHO_REQUEST, icmpv6::types::ECHO_REQUEST)
    }

    /// The number of an echo reply.
    pub(super) fn answered_number(&self) -> Option<u32> {
        self.number(icmp::types::ECHO_REPLY, icmpv6::types::ECHO_REPLY)
    }

    fn number(&self, v4: u8, v6: u8) -> Option<u32> {
        let header: &[u8; HEADER] = self.payload.first_chunk()?;
        let kind = match self.protocol {
            protocol::ICMP => v4,
            protocol::ICMPV6 => v6,
            _ => return None,
        };
        let number = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        (header[0] == kind).then_some(number)
    }
}
