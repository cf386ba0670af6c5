//! Addresses and networks, as resources write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::problem::Fault;
use super::text::by_text;

/// A network whose host bits are all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNet);

/// A network; host bits are cleared when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(pub IpNet);

/// A network or one address, kept as it is written: host bits may be set, and an address alone
/// stands for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    written: IpNet,
    alone: bool,
}

/// A BGP peer's address, and its port if it is not BGP's own: `10.0.0.1`, `10.0.0.1:1790`,
/// `[fd00::1]:1790`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: Option<NonZeroU16>,
}

/// One address, written alone or as a /32 or /128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAddress(pub IpAddr);

/// An IPv4 address with its network's prefix length; without one, /32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Interface(pub Ipv4Net);

/// An IPv6 address with its network's prefix length; without one, /128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv6Interface(pub Ipv6Net);

/// A BGP autonomous system's number (RFC 6793), written as a number or as `high.low`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsNumber(pub u32);

/// A text that is no address or network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Not an address and a prefix length.
    #[error("'{0}' is not a CIDR; write a network such as 10.65.0.0/16 or fd00:65::/64")]
    NotCidr(String),
    /// Host bits are set. Calico's text.
    #[error("'{written}' is not strictly masked; write {masked}")]
    NotMasked {
        /// What stands there.
        written: IpNet,
        /// The network that it lies in.
        masked: IpNet,
    },
    /// More than one address.
    #[error("'{0}' contains more than one address; write one, as a /32 or a /128")]
    NotOneAddress(String),
    /// No address at all.
    #[error("'{0}' is not an address; write one such as 10.65.0.2/32 or fd00:65::2/128")]
    NotAddress(String),
    /// Not a node's address.
    #[error(
        "'{0}' is not an IPv4 address of a node; \
         write a unicast address and its network's prefix length, such as 10.30.0.11/24"
    )]
    NotIpv4Interface(String),
    /// Not a node's address.
    #[error(
        "'{0}' is not an IPv6 address of a node; \
         write a unicast address and its network's prefix length, such as fd00:30::11/64"
    )]
    NotIpv6Interface(String),
    /// Not a peer's address.
    #[error(
        "'{0}' is not a peer's address; \
         write one such as 10.0.0.1, 10.0.0.1:1790 or [fd00::1]:1790"
    )]
    NotPeer(String),
    /// Not the number of an autonomous system.
    #[error("'{0}' is not an AS number; write one from 1 to 4294967295, or as 1.10")]
    NotAsNumber(String),
}

by_text!(
    Cidr,
    Prefix,
    Network,
    PeerAddress,
    HostAddress,
    Ipv4Interface,
    Ipv6Interface
);

impl Cidr {
    /// The network, or nothing if host bits are set.
    pub fn new(net: IpNet) -> Option<Self> {
        (net.trunc() == net).then_some(Self(net))
    }

    /// The network.
    pub fn net(self) -> IpNet {
        self.0
    }

    /// Whether this and another network share an address.
    pub fn overlaps(self, other: IpNet) -> bool {
        self.0.contains(&other) || other.contains(&self.0)
    }
}

impl FromStr for Cidr {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let written: IpNet = text.parse().map_err(|_| NetError::NotCidr(text.into()))?;
        Self::new(written).ok_or(NetError::NotMasked {
            written,
            masked: written.trunc(),
        })
    }
}

impl FromStr for Prefix {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let net: Result<IpNet, _> = text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(|net| Self(net.trunc()))
            .map_err(|_| NetError::NotCidr(text.into()))
    }
}

impl Network {
    /// The network, without host bits.
    pub fn net(self) -> IpNet {
        self.written.trunc()
    }

    /// What is wrong where Calico wants a network without host bits.
    pub(super) fn check_masked(self, faults: &mut Vec<Fault>, field: &str) {
        let (written, masked) = (self.written, self.net());
        if written != masked {
            let reason = format!("'{written}' is not strictly masked");
            faults.push(Fault::new(field, reason, format!("write {masked}")));
        }
    }
}

impl FromStr for Network {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let written = address.into();
            return Ok(Self {
                written,
                alone: true,
            });
        }
        let written = text.parse().map_err(|_| NetError::NotCidr(text.into()))?;
        Ok(Self {
            written,
            alone: false,
        })
    }
}

impl FromStr for PeerAddress {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        if let Ok(address) = text.parse() {
            return Ok(Self {
                address,
                port: None,
            });
        }
        let socket: Option<SocketAddr> = text.parse().ok();
        let parsed = socket.and_then(|socket| {
            let port = NonZeroU16::new(socket.port())?;
            Some(Self {
                address: socket.ip(),
                port: Some(port),
            })
        });
        parsed.ok_or_else(|| NetError::NotPeer(text.into()))
    }
}

impl FromStr for HostAddress {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let net: IpNet = text
            .parse()
            .map_err(|_| NetError::NotAddress(text.into()))?;
        if net.prefix_len() == net.max_prefix_len() {
            Ok(Self(net.addr()))
        } else {
            Err(NetError::NotOneAddress(text.into()))
        }
    }
}

impl FromStr for Ipv4Interface {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        text.parse()
            .or_else(|_| text.parse::<Ipv4Addr>().map(Ipv4Net::from))
            .ok()
            .filter(|net: &Ipv4Net| is_node_address(net.addr().into()))
            .map(Self)
            .ok_or_else(|| NetError::NotIpv4Interface(text.into()))
    }
}

impl FromStr for Ipv6Interface {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        text.parse()
            .or_else(|_| text.parse::<Ipv6Addr>().map(Ipv6Net::from))
            .ok()
            .filter(|net: &Ipv6Net| is_node_address(net.addr().into()))
            .map(Self)
            .ok_or_else(|| NetError::NotIpv6Interface(text.into()))
    }
}

fn is_node_address(address: IpAddr) -> bool {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast)
}

impl FromStr for AsNumber {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let number = match text.split_once('.') {
            Some((high, low)) => match (high.parse::<u16>(), low.parse::<u16>()) {
                (Ok(high), Ok(low)) => Some(u32::from(high) << 16 | u32::from(low)),
                _ => None,
            },
            None => text.parse().ok(),
        };
        number
            .filter(|&number| number != 0)
            .map(Self)
            .ok_or_else(|| NetError::NotAsNumber(text.into()))
    }
}

impl Serialize for AsNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for AsNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AsNumberVisitor)
    }
}

struct AsNumberVisitor;

impl Visitor<'_> for AsNumberVisitor {
    type Value = AsNumber;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an AS number from 1 to 4294967295")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<AsNumber, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<AsNumber, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<AsNumber, E> {
        text.parse().map_err(E::custom)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.alone {
            true => self.written.addr().fmt(f),
            false => self.written.fmt(f),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port.get()).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpNet::from(self.0).fmt(f)
    }
}

impl fmt::Display for Ipv4Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Ipv6Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for AsNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error<T: FromStr<Err = NetError>>(text: &str) -> String {
        text.parse::<T>().err().expect(text).to_string()
    }

    #[test]
    fn networks_are_strictly_masked() {
        assert_eq!(
            error::<Cidr>("10.65.0.1/16"),
            "'10.65.0.1/16' is not strictly masked; write 10.65.0.0/16"
        );
        assert!(error::<Cidr>("<CIDR>").starts_with("'<CIDR>' is not a CIDR"));
        assert!(error::<Cidr>("10.65.0.0").contains("not a CIDR"));
        assert!(error::<Cidr>("10.65.0.0/33").contains("not a CIDR"));
        assert_eq!(
            "10.1.2.3/8".parse::<Prefix>().unwrap().to_string(),
            "10.0.0.0/8"
        );
    }

    #[test]
    fn an_endpoint_address_is_one_address() {
        for text in ["10.65.0.2", "10.65.0.2/32"] {
            assert_eq!(
                text.parse::<HostAddress>().unwrap().to_string(),
                "10.65.0.2/32"
            );
        }
        assert!(error::<HostAddress>("10.65.0.0/26").contains("more than one address"));
        assert!(error::<HostAddress>("x").contains("not an address"));
    }

    #[test]
    fn a_node_address_keeps_its_prefix_length_and_is_unicast() {
        let interface: Ipv4Interface = "10.244.0.1/24".parse().unwrap();
        assert_eq!(interface.0.prefix_len(), 24);
        assert_eq!(interface.to_string(), "10.244.0.1/24");
        assert_eq!(
            "10.0.0.1".parse::<Ipv4Interface>().unwrap().0.prefix_len(),
            32
        );
        for bad in [
            "0.0.0.0/0",
            "127.0.0.1/8",
            "224.0.0.1/24",
            "255.255.255.255",
            "fd00::1/64",
        ] {
            assert!(bad.parse::<Ipv4Interface>().is_err(), "{bad}");
        }
        assert!("10.0.0.1/24".parse::<Ipv6Interface>().is_err());
    }

    #[test]
    fn as_numbers_may_be_dotted() {
        assert_eq!("64512".parse(), Ok(AsNumber(64512)));
        assert_eq!("1.10".parse(), Ok(AsNumber(65546)));
        for bad in ["0", "-1", "4294967296", "1.65536", "x"] {
            assert!(bad.parse::<AsNumber>().is_err(), "{bad}");
        }
    }
}
