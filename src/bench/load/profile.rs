//! What the packets look like: addresses, flows, sizes, and the tunnel that they are already in.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::bench::error::{BenchError, Result};
use crate::wire::checksum;
use crate::wire::{MacAddr, Vni};

/// The UDP port that the load is sent to: discard (RFC 863).
pub const PORT: u16 = 9;

/// As many flows have source ports of their own, from 1024 on; `FLOWS` of the program.
pub const MOST_FLOWS: u32 = 32768;

/// VXLAN's UDP port (RFC 7348).
const VXLAN_PORT: u16 = 4789;

/// Ethernet, IPv4 and UDP headers, and what the sink reads behind them.
const LEAST: u16 = 14 + 20 + 8 + 16;

/// Frames of as many lengths are sent in turn.
pub const SIZES: usize = 12;

/// What the packets look like.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The Ethernet source and destination.
    pub ethernet: (MacAddr, MacAddr),
    /// The IPv4 source.
    pub source: Ipv4Addr,
    /// The first IPv4 destination; the others follow it.
    pub destination: Ipv4Addr,
    /// How many destinations there are: a power of two, no more than flows.
    pub destinations: u32,
    /// How many flows: a power of two, up to [`MOST_FLOWS`]. Each has a UDP source port of its own.
    pub flows: u32,
    /// Frame lengths.
    pub size: FrameSize,
    /// The tunnel that the packets are in.
    pub tunnel: Option<Tunnel>,
}

/// The tunnel that packets are in when they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunnel {
    /// IP-in-IP (RFC 2003).
    Ipip {
        /// The outer source.
        source: Ipv4Addr,
        /// The outer destination.
        destination: Ipv4Addr,
    },
    /// VXLAN (RFC 7348).
    Vxlan {
        /// The outer source.
        source: Ipv4Addr,
        /// The outer destination.
        destination: Ipv4Addr,
        /// The network.
        vni: Vni,
        /// The inner Ethernet source and destination.
        ethernet: (MacAddr, MacAddr),
    },
}

/// Frame lengths as RFC 2544 counts them: the frame that the workload sends or gets, the four bytes
/// of the frame check sequence included, tunnel headers not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameSize {
    /// All of this length.
    Bytes(u16),
    /// The simple IMIX: 7 of 64 bytes, 4 of 594 and one of the largest.
    Imix,
}

impl FrameSize {
    /// The sizes of RFC 2544 section 9.1, the largest so that it fits a 1500-byte link with 50 bytes
    /// of VXLAN in front.
    pub const RFC_2544: [Self; 7] = [
        Self::Bytes(64),
        Self::Bytes(128),
        Self::Bytes(256),
        Self::Bytes(512),
        Self::Bytes(1024),
        Self::Bytes(1280),
        Self::Bytes(Self::LARGEST),
    ];

    /// 1518 less VXLAN's 50.
    pub const LARGEST: u16 = 1468;

    /// The frames' lengths without the frame check sequence, in the order in which they are sent.
    fn lengths(self) -> [u16; SIZES] {
        match self {
            Self::Bytes(bytes) => [bytes.saturating_sub(4); SIZES],
            Self::Imix => {
                let (small, middle, large) = (60, 590, Self::LARGEST - 4);
                [
                    small, middle, small, small, middle, small, large, small, middle, small,
                    middle, small,
                ]
            }
        }
    }

    /// Its name with what it is in: `64 bytes`, `imix`.
    pub fn in_words(self) -> String {
        match self {
            Self::Bytes(bytes) => format!("{bytes} bytes"),
            Self::Imix => "imix".to_owned(),
        }
    }

    /// The mean length, the frame check sequence included.
    pub fn mean(self) -> f64 {
        let sum: u32 = self.lengths().iter().map(|length| u32::from(*length)).sum();
        f64::from(sum) / SIZES as f64 + 4.0
    }
}

impl std::fmt::Display for FrameSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Imix => f.write_str("imix"),
        }
    }
}

impl std::str::FromStr for FrameSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Self::Imix);
        }
        match text.parse::<u16>() {
            Ok(bytes) if (64..=Self::LARGEST).contains(&bytes) => Ok(Self::Bytes(bytes)),
            _ => Err(format!(
                "write imix, or a frame length from 64 to {} bytes: 1518 less the 50 of VXLAN",
                Self::LARGEST
            )),
        }
    }
}

/// Whether the programs can follow these numbers.
pub fn check(flows: u32, destinations: u32) -> Result<()> {
    let wrong = |what: &str| Err(BenchError::Option(what.to_owned()));
    if !flows.is_power_of_two() || flows > MOST_FLOWS {
        return Err(BenchError::Option(format!(
            "flows: write a power of two up to {MOST_FLOWS}"
        )));
    }
    if !destinations.is_power_of_two() || destinations > flows {
        return wrong("destinations: write a power of two, no more than there are flows");
    }
    Ok(())
}

impl Profile {
    /// The BPF program that makes such packets.
    pub(super) fn program(&self) -> &'static str {
        match self.tunnel {
            None => "generate_plain",
            Some(Tunnel::Ipip { .. }) => "generate_ipip",
            Some(Tunnel::Vxlan { .. }) => "generate_vxlan",
        }
    }

    /// Whole frames' lengths without the frame check sequence, tunnel headers included.
    pub(super) fn lengths(&self) -> [u16; SIZES] {
        let overhead = match self.tunnel {
            None => 0,
            Some(Tunnel::Ipip { .. }) => 20,
            Some(Tunnel::Vxlan { .. }) => 50,
        };
        self.size
            .lengths()
            .map(|length| length.max(LEAST) + overhead)
    }

    /// All headers of a packet: what varies is zero.
    pub(super) fn template(&self) -> Vec<u8> {
        let mut bytes = ethernet(self.ethernet);
        match self.tunnel {
            None => {}
            Some(Tunnel::Ipip {
                source,
                destination,
            }) => bytes.extend(ipv4(4, source, destination)),
            Some(Tunnel::Vxlan {
                source,
                destination,
                vni,
                ethernet: inner,
            }) => {
                bytes.extend(ipv4(17, source, destination));
                bytes.extend(udp(VXLAN_PORT));
                bytes.extend([8, 0, 0, 0]);
                bytes.extend((vni.get() << 8).to_be_bytes());
                bytes.extend(ethernet(inner));
            }
        }
        bytes.extend(ipv4(17, self.source, Ipv4Addr::UNSPECIFIED));
        bytes.extend(udp(PORT));
        bytes
    }

    /// The sums over the inner and the outer IPv4 header of the template, as the program adds to
    /// them: in the machine's byte order, not complemented.
    pub(super) fn sums(&self, template: &[u8]) -> (u16, u16) {
        let inner = template.len() - 28;
        let sum = |at: usize| checksum::sum(&template[at..at + 20]).folded().to_be();
        (sum(inner), sum(14))
    }
}

fn ethernet((source, destination): (MacAddr, MacAddr)) -> Vec<u8> {
    let mut bytes = destination.0.to_vec();
    bytes.extend(source.0);
    bytes.extend([0x08, 0x00]);
    bytes
}

fn ipv4(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes
}

fn udp(port: u16) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for size in FrameSize::RFC_2544.into_iter().chain([FrameSize::Imix]) {
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for wrong in ["63", "1469", "1518", "", "large"] {
            assert!(wrong.parse::<FrameSize>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn as_many_flows_are_accepted_as_have_ports_of_their_own() {
        assert!(check(MOST_FLOWS, 1).is_ok());
        let error = check(2 * MOST_FLOWS, 1).unwrap_err().to_string();
        assert!(error.contains("up to 32768"), "{error}");
        // The last one's port; the program takes as many bits of a flow's number.
        assert!(u16::try_from(1024 + MOST_FLOWS - 1).is_ok());
        let program = include_str!("load.bpf.c");
        assert!(program.contains(&format!("FLOWS = {MOST_FLOWS},")));
    }

    #[test]
    fn imix_is_seven_to_four_to_one() {
        let lengths = FrameSize::Imix.lengths();
        let count = |wanted| lengths.iter().filter(|length| **length == wanted).count();
        assert_eq!((count(60), count(590), count(1464)), (7, 4, 1));
        let mean = f64::from(7 * 64 + 4 * 594 + 1468) / 12.0;
        assert!((FrameSize::Imix.mean() - mean).abs() < 1e-9);
    }
}
