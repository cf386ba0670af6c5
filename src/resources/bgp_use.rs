//! Who tells a node where other nodes' blocks are: `bgp` in its configuration.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::name::InterfaceName;
use super::problem::Fault;

/// Who tells where blocks are that VXLAN does not carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Bgp {
    /// The datastore: there is no BGP.
    #[default]
    Off,
    /// Peers, by underpass's own speaker.
    Internal(Internal),
    /// Another daemon that puts its routes into the kernel.
    External(External),
}

/// Underpass's own speaker.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Internal {
    /// Where secrets are, a file `NAME/KEY` each, as Kubernetes mounts them.
    pub secrets: PathBuf,
}

impl Default for Internal {
    fn default() -> Self {
        Self {
            secrets: PathBuf::from("/etc/underpass/secrets"),
        }
    }
}

/// Which of the kernel's routes another daemon made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct External {
    /// Those of this table; the main one if absent.
    pub table: Option<u32>,
    /// Those with one of these protocols; any if empty.
    pub protocols: BTreeSet<RouteProtocol>,
    /// Those that leave by one of these interfaces; any if empty.
    pub interfaces: Vec<InterfaceName>,
}

/// A route's protocol, by number or as iproute2 (`rt_protos`) names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteProtocol(pub u8);

const NAMES: &[(&str, u8)] = &[
    ("kernel", 2),
    ("boot", 3),
    ("static", 4),
    ("gated", 8),
    ("ra", 9),
    ("mrt", 10),
    ("zebra", 11),
    ("bird", 12),
    ("dnrouted", 13),
    ("xorp", 14),
    ("ntk", 15),
    ("dhcp", 16),
    ("keepalived", 18),
    ("babel", 42),
    ("openr", 99),
    ("bgp", 186),
    ("isis", 187),
    ("ospf", 188),
    ("rip", 189),
    ("eigrp", 192),
];

impl Bgp {
    /// What is wrong beyond single fields' syntax.
    pub fn validate(&self, faults: &mut Vec<Fault>) {
        let Self::External(external) = self else {
            return;
        };
        let main = external.table.is_none_or(|table| table == MAIN_TABLE);
        if main && external.protocols.is_empty() && external.interfaces.is_empty() {
            faults.push(Fault::new(
                "bgp.external",
                "every route of the host's main table would be taken",
                "say which the daemon makes: table, protocols (such as [bird]) or interfaces",
            ));
        }
        if external.table == Some(0) || external.table == Some(LOCAL_TABLE) {
            faults.push(Fault::new(
                "bgp.external.table",
                "this table is the kernel's own",
                "write the number of the daemon's table, such as 1790, or 254 for the main one",
            ));
        }
    }
}

const MAIN_TABLE: u32 = 254;
const LOCAL_TABLE: u32 = 255;

impl<'de> Deserialize<'de> for Bgp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BgpVisitor)
    }
}

struct BgpVisitor;

impl<'de> Visitor<'de> for BgpVisitor {
    type Value = Bgp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("off, internal, or a mapping with internal or external")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Bgp, E> {
        match text {
            "off" => Ok(Bgp::Off),
            "internal" => Ok(Bgp::Internal(Internal::default())),
            "external" => Ok(Bgp::External(External::default())),
            other => Err(E::custom(format!(
                "'{other}' is no way to know where blocks are; write off, internal or external"
            ))),
        }
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<Bgp, E> {
        match on {
            false => Ok(Bgp::Off),
            true => Ok(Bgp::Internal(Internal::default())),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bgp, A::Error> {
        let found = match map.next_key::<String>()?.as_deref() {
            Some("internal") => Bgp::Internal(map.next_value()?),
            Some("external") => Bgp::External(map.next_value()?),
            Some(other) => {
                return Err(de::Error::custom(format!(
                    "'{other}' is no way to know where blocks are; write off, or a mapping with internal or \
                     external"
                )));
            }
            None => {
                return Err(de::Error::custom(
                    "an empty mapping does not say how to know where blocks are; write off, internal, or a \
                     mapping with internal or external",
                ));
            }
        };
        match map.next_key::<String>()? {
            Some(more) => Err(de::Error::custom(format!(
                "'{more}' cannot be beside it; write one of internal and external"
            ))),
            None => Ok(found),
        }
    }
}

impl<'de> Deserialize<'de> for RouteProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProtocolVisitor)
    }
}

struct ProtocolVisitor;

impl Visitor<'_> for ProtocolVisitor {
    type Value = RouteProtocol;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a route protocol's name, such as bird or bgp, or its number from 1 to 255")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<RouteProtocol, E> {
        match u8::try_from(number) {
            Ok(number @ 1..) => Ok(RouteProtocol(number)),
            _ => Err(E::custom(format!(
                "{number} is no route protocol; write a number from 1 to 255"
            ))),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RouteProtocol, E> {
        let named = NAMES.iter().find(|(name, _)| *name == text);
        if let Some((_, number)) = named {
            return Ok(RouteProtocol(*number));
        }
        match text.parse::<u64>() {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::custom(format!(
                "'{text}' is no route protocol; write a name such as bird, bgp or zebra, or a number"
            ))),
        }
    }
}
