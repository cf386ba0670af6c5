//! Protocols and ports, as policies and endpoints name them.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An IP protocol, by one of Calico's names or by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

/// A port, a range of ports, or the name that endpoints give a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// From the first to the last, both included; never 0.
    Numbers(u16, u16),
    /// What an endpoint's `ports` call it.
    Named(String),
}

/// A text that is no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Not in the range of port numbers. Calico's words.
    #[error(
        "'{0}': port range invalid, port number must be between 1 and 65535; write such a number"
    )]
    OutOfRange(String),
    /// The last port is before the first. Calico's words.
    #[error("'{0}': port range invalid; write the lower port first, as in 8000:9000")]
    Backward(String),
    /// Neither a number, nor a range, nor a name.
    #[error(
        "'{0}' is not a port; write one such as 80, 8000:9000 or the name of an endpoint's port"
    )]
    NotPort(String),
}

/// Calico's names of protocols, with IANA's numbers.
const PROTOCOLS: [(&str, u8); 6] = [
    ("TCP", 6),
    ("UDP", 17),
    ("ICMP", 1),
    ("ICMPv6", 58),
    ("SCTP", 132),
    ("UDPLite", 136),
];

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);

    /// Whether its packets have ports that policies look at.
    pub fn has_ports(self) -> bool {
        matches!(self.0, 6 | 17 | 132)
    }
}

impl Port {
    /// A single port.
    pub fn single(port: u16) -> Self {
        Self::Numbers(port, port)
    }

    /// Whether a port's number is in the range; names are not numbers.
    pub fn contains(&self, port: u16) -> bool {
        matches!(self, Self::Numbers(first, last) if (*first..=*last).contains(&port))
    }
}

/// Whether a text can be an endpoint's port name: Kubernetes' `IsValidPortName` (RFC 6335 §5.1).
pub(super) fn is_port_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=15).contains(&name.len())
        && name.chars().all(inner)
        && name.contains(|c: char| c.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// What a policy may call a port: more than endpoints may (Calico's `Port.UnmarshalJSON`).
fn is_named_port(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    (1..=128).contains(&name.len()) && name.chars().all(inner)
}

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = |part: &str| match part.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(PortError::OutOfRange(text.to_owned())),
        };
        if is_number(text) {
            return number(text).map(Self::single);
        }
        if let Some((first, last)) = text.split_once(':')
            && is_number(first)
            && is_number(last)
        {
            let (first, last) = (number(first)?, number(last)?);
            return match first <= last {
                true => Ok(Self::Numbers(first, last)),
                false => Err(PortError::Backward(text.to_owned())),
            };
        }
        match is_named_port(text) {
            true => Ok(Self::Named(text.to_owned())),
            false => Err(PortError::NotPort(text.to_owned())),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbers(first, last) if first == last => write!(f, "{first}"),
            Self::Numbers(first, last) => write!(f, "{first}:{last}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Numbers(first, last) if first == last => serializer.serialize_u16(*first),
            _ => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = Port;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port such as 80, 8000:9000 or the name of an endpoint's port")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Port, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Port, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::custom(PortError::OutOfRange(number.to_string()))),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Port, E> {
        text.parse().map_err(E::custom)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PROTOCOLS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match PROTOCOLS.iter().any(|(_, number)| *number == self.0) {
            true => serializer.collect_str(self),
            false => serializer.serialize_u8(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProtocolVisitor)
    }
}

struct ProtocolVisitor;

impl Visitor<'_> for ProtocolVisitor {
    type Value = Protocol;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Protocol, E> {
        match u8::try_from(number) {
            Ok(number) if number != 0 => Ok(Protocol(number)),
            _ => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Protocol, E> {
        if let Ok(number) = name.parse::<u64>() {
            return self.visit_u64(number);
        }
        if let Some(&(_, number)) = PROTOCOLS.iter().find(|(known, _)| *known == name) {
            return Ok(Protocol(number));
        }
        let near = PROTOCOLS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        Err(match near {
            Some((known, _)) => {
                E::custom(format!("'{name}': protocol name invalid; write {known}"))
            }
            None => E::invalid_value(de::Unexpected::Str(name), &self),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_ranges_or_names() {
        for (text, port) in [
            ("80", Port::single(80)),
            ("8000:9000", Port::Numbers(8000, 9000)),
            ("http-alt", Port::Named("http-alt".into())),
        ] {
            assert_eq!(text.parse(), Ok(port.clone()));
            assert_eq!(port.to_string(), text);
        }
        for bad in [
            "", "0", "65536", "0:1", "9:8", "1:65536", "a:b", "a b", "1:2:3",
        ] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
        assert!(Port::Numbers(8, 9).contains(9) && !Port::Numbers(8, 9).contains(10));
    }

    #[test]
    fn names_of_endpoints_ports_are_kubernetes() {
        assert!(["http", "a", "a-1", "1a"].into_iter().all(is_port_name));
        assert!(
            !["", "1", "a--b", "-a", "a-", "A", "sixteen-letters-x", "a_b"]
                .into_iter()
                .any(is_port_name)
        );
    }
}
