//! What is said on the control socket: a line of JSON to ask, lines of JSON to answer.
//!
//! ```text
//! {"request":"routes"}                                     → {"routes":[…]}
//! {"request":"counters"}                                   → {"counters":{…}}
//! {"request":"fdb"}                                        → {"fdb":[…]}
//! {"request":"status"}                                     → {"status":{…}}
//! {"request":"probe_mtu","far":"worker2"}                  → {"mtu":{…}}, after half a minute at worst
//! {"request":"probe_ways","far":"worker2"}                 → {"ways":{…}}, after some seconds
//! {"request":"fast_path","on":false}                       → {"status":{…}}
//! {"request":"bgp","what":"routes","prefix":"10.0.0.0/8"}  → {"bgp":{"rows":[…],"total":…}}
//! {"request":"capture","ports":["eth0"],"snap_length":96}  → {"capture":{"ports":[…],…}}
//!                                                            {"packet":{…}} a packet
//!                                                            {"end":{"sent":…,"missed":…,…}}
//! ```
//!
//! A client ends a capture by closing its writing half, and still gets the last line. Whatever
//! cannot be answered is answered by `{"error":"…"}`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::bgp::{BgpAnswer, BgpRequest};
use super::report::{CounterReport, FdbRow, MtuReport, RouteRow, StatusReport, WaysReport};
use crate::port::Link;
use crate::port::capture::{CapturedPacket, CapturedPort, Direction};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
pub enum Request {
    /// The route table.
    Routes,
    /// The counters.
    Counters,
    /// The stations of the node's bridges.
    Fdb,
    /// How the node is.
    Status,
    /// How large a packet gets through to another node.
    #[serde(rename = "probe_mtu")]
    ProbeMtu(ProbeRequest),
    /// Which encapsulations get through to another node.
    #[serde(rename = "probe_ways")]
    ProbeWays(ProbeRequest),
    /// To forward by the fast path, or by the workers alone.
    #[serde(rename = "fast_path")]
    FastPath {
        /// By the fast path.
        on: bool,
    },
    /// What the BGP speaker has.
    Bgp(BgpRequest),
    /// Packets as they cross ports.
    Capture(CaptureRequest),
}

/// Where to probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    /// Another node's name, or any address behind one.
    pub far: String,
}

/// Which packets to copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// Names of ports; none means all.
    #[serde(default)]
    pub ports: Vec<String>,
    /// Packets after which the capture ends; without one it ends when the client goes.
    #[serde(default)]
    pub count: Option<u64>,
    /// Bytes of each packet to copy; 0 means all.
    #[serde(default)]
    pub snap_length: usize,
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The route table.
    Routes(Vec<RouteRow>),
    /// The counters.
    Counters(CounterReport),
    /// The stations of the node's bridges.
    Fdb(Vec<FdbRow>),
    /// How the node is.
    Status(StatusReport),
    /// The largest packet that gets through.
    Mtu(MtuReport),
    /// What the BGP speaker has.
    Bgp(BgpAnswer),
    /// The encapsulations that get through.
    Ways(WaysReport),
    /// A capture has begun.
    Capture(CaptureStart),
    /// A captured packet.
    Packet(PacketRow),
    /// A capture has ended.
    End(CaptureEnd),
    /// Why there is no answer.
    Error(String),
}

/// The first line of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStart {
    /// The ports that are captured.
    pub ports: Vec<PortRow>,
    /// Bytes of each packet that are copied; 0 means all.
    pub snap_length: usize,
}

/// A captured port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    /// Its number, by which packets refer to it.
    pub id: u16,
    /// The device's name.
    pub name: String,
    /// What its packets begin with.
    pub link: LinkType,
}

impl From<&CapturedPort> for PortRow {
    fn from(port: &CapturedPort) -> Self {
        let link = match port.link {
            Link::Ethernet(_) => LinkType::Ethernet,
            Link::Ip => LinkType::Ip,
        };
        Self {
            id: port.id.0,
            name: port.name.clone(),
            link,
        }
    }
}

/// What a captured packet begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkType {
    /// An Ethernet header.
    Ethernet,
    /// An IP header.
    Ip,
}

/// A captured packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketRow {
    /// The port's number.
    pub port: u16,
    /// Which way it went.
    pub direction: Direction,
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    pub time: u64,
    /// Its length in bytes before it was cut.
    pub length: usize,
    /// Its first bytes, in hexadecimal.
    #[serde(
        rename = "hex",
        serialize_with = "to_hex",
        deserialize_with = "from_hex"
    )]
    pub bytes: Vec<u8>,
}

impl From<CapturedPacket> for PacketRow {
    fn from(packet: CapturedPacket) -> Self {
        Self {
            port: packet.port.0,
            direction: packet.direction,
            time: packet.time,
            length: packet.length,
            bytes: packet.bytes,
        }
    }
}

/// The last line of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureEnd {
    /// Packets sent to the client.
    pub sent: u64,
    /// Packets that were not copied because the client did not keep up.
    pub missed: u64,
    /// Why it ended.
    pub reason: EndReason,
}

/// Why a capture ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The client wanted no more.
    Client,
    /// The wanted number of packets is reached.
    Count,
    /// The captured ports are gone.
    PortsGone,
}

fn to_hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    serializer.serialize_str(&text)
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
    bytes.ok_or_else(|| D::Error::custom("a packet's bytes must be pairs of hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_the_documentation_says() {
        let capture = |text: &str| serde_json::from_str::<Request>(text);
        assert_eq!(capture(r#"{"request":"routes"}"#).unwrap(), Request::Routes);
        assert_eq!(
            capture(r#"{"request":"capture","ports":["eth0"],"snap_length":96}"#).unwrap(),
            Request::Capture(CaptureRequest {
                ports: vec!["eth0".to_owned()],
                count: None,
                snap_length: 96
            })
        );
        let error = capture(r#"{"request":"capture","port":"eth0"}"#).unwrap_err();
        assert!(
            error.to_string().contains("unknown field `port`"),
            "{error}"
        );
        let error = capture(r#"{"request":"route"}"#).unwrap_err();
        assert!(error.to_string().contains("`routes`"), "{error}");
    }

    #[test]
    fn a_packet_survives_its_line() {
        let packet = PacketRow {
            port: 3,
            direction: Direction::Out,
            time: 1_700_000_000_123_456_789,
            length: 1500,
            bytes: vec![0x00, 0xff, 0x4a],
        };
        let line = serde_json::to_string(&Reply::Packet(packet.clone())).unwrap();
        assert!(line.contains(r#""hex":"00ff4a""#) && line.contains(r#""direction":"out""#));
        assert_eq!(
            serde_json::from_str::<Reply>(&line).unwrap(),
            Reply::Packet(packet)
        );
        for bad in ["0", "0g", "é"] {
            let line = format!(
                r#"{{"packet":{{"port":1,"direction":"in","time":1,"length":1,"hex":"{bad}"}}}}"#
            );
            assert!(serde_json::from_str::<Reply>(&line).is_err(), "{bad}");
        }
    }
}
