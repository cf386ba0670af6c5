//! The `bridges` of a node's configuration: VXLAN as a virtual Ethernet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;

use super::config::{NodeConfig, PortKind, Vxlan};
use super::name::InterfaceName;
use super::net::HostAddress;
use super::problem::Fault;
use crate::wire::{MacAddr, Vni};

/// One virtual Ethernet that this node has a part in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bridge {
    /// What it is called, on this node.
    pub name: String,
    /// The network.
    #[serde(deserialize_with = "super::config::vni")]
    pub vni: Vni,
    /// The UDP port of its packets, if not `vxlan.port`.
    #[serde(default)]
    pub udp_port: Option<u16>,
    /// Workload ports of kind xdp or tap, by their interface.
    #[serde(default)]
    pub ports: Vec<InterfaceName>,
    /// The family of the addresses between which its packets go; IPv4 if this node has an address of
    /// that, unless its remotes say otherwise.
    #[serde(default)]
    pub underlay: Option<Underlay>,
    /// Whether the datastore's other nodes are in it.
    #[serde(default = "yes")]
    pub known_nodes: bool,
    /// Tunnel end points in it that are no nodes of the datastore.
    #[serde(default)]
    pub remotes: Vec<HostAddress>,
    /// Stations whose place is not to be learnt.
    #[serde(default)]
    pub forwarding: Vec<Station>,
    /// Stations whose IP address is not to be learnt.
    #[serde(default)]
    pub neighbours: Vec<Neighbour>,
    /// Whether the places of stations are learnt.
    #[serde(default = "yes")]
    pub learning: bool,
    /// Seconds after which a station that was not heard of is forgotten; 0: never.
    #[serde(default = "five_minutes")]
    pub ageing: u32,
    /// Stations that are learnt at most.
    #[serde(default = "default_limit")]
    pub limit: u32,
    /// Whether ARP and neighbour solicitations for known addresses are answered here.
    #[serde(default = "yes")]
    pub arp_suppression: bool,
    /// Whether frames to 01:80:c2:00:00:00 to 0f are forwarded: spanning tree, LACP, LLDP and others.
    #[serde(default)]
    pub link_local_groups: bool,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Underlay {
    Ipv4,
    Ipv6,
}

/// A station and where it is: behind a port, or behind a remote.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Station {
    /// Its address.
    pub mac: MacAddr,
    /// One of the bridge's ports.
    #[serde(default)]
    pub port: Option<InterfaceName>,
    /// The address of a node, or of one of the bridge's remotes.
    #[serde(default)]
    pub remote: Option<HostAddress>,
}

/// A station and its IP address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Neighbour {
    /// Its IP address.
    pub address: HostAddress,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Whether it is an IPv6 router, which neighbour advertisements say of it.
    #[serde(default)]
    pub router: bool,
}

impl Underlay {
    /// Whether an address is of this family.
    pub fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::Ipv4)
    }
}

impl Bridge {
    /// The UDP port of its packets.
    pub fn udp_port(&self, config: &NodeConfig) -> u16 {
        self.udp_port.unwrap_or(config.vxlan.port)
    }

    /// The family that the configuration names, itself or by a remote.
    pub fn given_underlay(&self) -> Option<Underlay> {
        let family = |remote: &HostAddress| match remote.0 {
            IpAddr::V4(_) => Underlay::Ipv4,
            IpAddr::V6(_) => Underlay::Ipv6,
        };
        self.underlay.or(self.remotes.first().map(family))
    }
}

/// UDP ports of VXLAN beside `vxlan.port`: what the uplink's XDP program compares with.
pub const MORE_UDP_PORTS: usize = 7;

const LIMIT: std::ops::RangeInclusive<u32> = 1..=1 << 18;

/// Finds what is wrong with the bridges of a configuration.
pub(super) fn validate(config: &NodeConfig, faults: &mut Vec<Fault>) {
    let mut seen = Seen::default();
    for (index, bridge) in config.bridges.iter().enumerate() {
        let one = One {
            config,
            bridge,
            field: format!("bridges[{index}]"),
        };
        one.validate_network(&mut seen, faults);
        one.validate_ports(&mut seen, faults);
        one.validate_remotes(faults);
        one.validate_stations(faults);
        one.validate_neighbours(faults);
    }
    let ports: BTreeSet<u16> = config
        .bridges
        .iter()
        .map(|bridge| bridge.udp_port(config))
        .filter(|port| *port != config.vxlan.port)
        .collect();
    if ports.len() > MORE_UDP_PORTS {
        faults.push(Fault::new(
            "bridges",
            format!("{} UDP ports beside vxlan.port are too many", ports.len()),
            format!("use at most {MORE_UDP_PORTS}; bridges of different VNIs can share one"),
        ));
    }
}

/// What bridges may not have in common, and the field that has it.
#[derive(Default)]
struct Seen<'a> {
    names: BTreeMap<&'a str, String>,
    networks: BTreeMap<(u16, Vni), String>,
    ports: BTreeMap<&'a InterfaceName, String>,
}

struct One<'a> {
    config: &'a NodeConfig,
    bridge: &'a Bridge,
    field: String,
}

impl<'a> One<'a> {
    fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.field)
    }

    /// Who made the routed network what it is, where the file does not say it.
    fn whose(&self) -> &'static str {
        let (vxlan, default) = (&self.config.vxlan, Vxlan::default());
        let told = |field: &str, is_default: bool| !is_default && !self.config.says(field);
        let elsewhere = told("vxlan.port", vxlan.port == default.port)
            || told("vxlan.vni", vxlan.vni == default.vni);
        match elsewhere {
            true => ", as FelixConfiguration has it and this file does not",
            false => "",
        }
    }

    fn validate_network(&self, seen: &mut Seen<'a>, faults: &mut Vec<Fault>) {
        let bridge = self.bridge;
        if bridge.name.is_empty() || bridge.name.chars().any(char::is_whitespace) {
            faults.push(Fault::new(
                self.field("name"),
                format!("'{}' is not a name", bridge.name),
                "write one without spaces, such as tenants",
            ));
        }
        let name = self.field("name");
        if let Some(first) = seen.names.insert(&bridge.name, name.clone()) {
            let reason = format!("'{}' is also {first}", bridge.name);
            faults.push(Fault::new(
                name,
                reason,
                "give each bridge a name of its own",
            ));
        }
        let port = bridge.udp_port(self.config);
        if port == 0 {
            faults.push(Fault::new(
                self.field("udpPort"),
                "0 is not a port",
                "write a number from 1 to 65535, such as 8472, or leave it out for vxlan.port",
            ));
        }
        let vni = self.field("vni");
        let routed = &self.config.vxlan;
        if (port, bridge.vni) == (routed.port, routed.vni) {
            faults.push(Fault::new(
                vni,
                format!(
                    "VNI {} on UDP port {port} is the routed network{}",
                    bridge.vni,
                    self.whose()
                ),
                "write another VNI, or another udpPort",
            ));
        } else if let Some(first) = seen.networks.insert((port, bridge.vni), vni.clone()) {
            faults.push(Fault::new(
                vni,
                format!("VNI {} on UDP port {port} is also {first}", bridge.vni),
                "give each bridge a VNI of its own, or a udpPort",
            ));
        }
        if !LIMIT.contains(&bridge.limit) {
            faults.push(Fault::new(
                self.field("limit"),
                format!("{} is no number of stations", bridge.limit),
                format!("write a number from {} to {}", LIMIT.start(), LIMIT.end()),
            ));
        }
    }

    fn validate_ports(&self, seen: &mut Seen<'a>, faults: &mut Vec<Fault>) {
        for (index, port) in self.bridge.ports.iter().enumerate() {
            let field = self.field(&format!("ports[{index}]"));
            let workload = self
                .config
                .workloads
                .iter()
                .find(|workload| workload.interface == *port);
            match workload.map(|workload| workload.kind) {
                None => faults.push(Fault::new(
                    field.clone(),
                    format!("'{port}' is no workload port"),
                    "name the interface of one of `workloads`, or add it there",
                )),
                Some(PortKind::Tun) => faults.push(Fault::new(
                    field.clone(),
                    format!("'{port}' is of kind tun, which carries no Ethernet frames"),
                    "make it kind: tap",
                )),
                Some(_) => {}
            }
            if let Some(first) = seen.ports.insert(port, field.clone()) {
                faults.push(Fault::new(
                    field,
                    format!("'{port}' is also {first}"),
                    "put each port into one bridge",
                ));
            }
        }
    }

    fn validate_remotes(&self, faults: &mut Vec<Fault>) {
        let Some(underlay) = self.bridge.given_underlay() else {
            return;
        };
        for (index, remote) in self.bridge.remotes.iter().enumerate() {
            let field = self.field(&format!("remotes[{index}]"));
            let address = remote.0;
            if !underlay.has(address) {
                faults.push(Fault::new(
                    field.clone(),
                    format!(
                        "{address} is not of the underlay's family, {}",
                        underlay.name()
                    ),
                    "write addresses of one family, or another `underlay`",
                ));
            }
            if address.is_multicast() || address.is_unspecified() || address.is_loopback() {
                faults.push(Fault::new(
                    field.clone(),
                    format!("{address} is not a tunnel end point's address"),
                    "write a unicast address; a multicast underlay is not supported",
                ));
            }
            if self.bridge.remotes[..index].contains(remote) {
                let reason = format!("{address} is given twice");
                faults.push(Fault::new(field, reason, "write it once"));
            }
        }
    }

    fn validate_stations(&self, faults: &mut Vec<Fault>) {
        let mut seen = BTreeMap::new();
        for (index, station) in self.bridge.forwarding.iter().enumerate() {
            let field = self.field(&format!("forwarding[{index}]"));
            self.validate_mac(station.mac, &field, faults);
            if let Some(first) = seen.insert(station.mac, field.clone()) {
                faults.push(Fault::new(
                    format!("{field}.mac"),
                    format!("{} is also {first}", station.mac),
                    "write one place for each station",
                ));
            }
            match (&station.port, &station.remote) {
                (Some(port), None) if !self.bridge.ports.contains(port) => faults.push(Fault::new(
                    format!("{field}.port"),
                    format!("'{port}' is no port of this bridge"),
                    "name one of its `ports`",
                )),
                (None, Some(remote)) if !self.may_be_remote(remote) => faults.push(Fault::new(
                    format!("{field}.remote"),
                    format!("{} is no remote of this bridge", remote.0),
                    "add it to `remotes`",
                )),
                (Some(_), None) | (None, Some(_)) => {}
                _ => faults.push(Fault::new(
                    field,
                    "a station is behind a port or behind a remote",
                    "write either `port` or `remote`",
                )),
            }
        }
    }

    /// The datastore's nodes are not known here: what may be one is believed.
    fn may_be_remote(&self, remote: &HostAddress) -> bool {
        let family = self.bridge.given_underlay();
        let right = family.is_none_or(|underlay| underlay.has(remote.0));
        self.bridge.remotes.contains(remote) || (self.bridge.known_nodes && right)
    }

    fn validate_neighbours(&self, faults: &mut Vec<Fault>) {
        for (index, neighbour) in self.bridge.neighbours.iter().enumerate() {
            let field = self.field(&format!("neighbours[{index}]"));
            self.validate_mac(neighbour.mac, &field, faults);
            let earlier = &self.bridge.neighbours[..index];
            if earlier.iter().any(|one| one.address == neighbour.address) {
                faults.push(Fault::new(
                    format!("{field}.address"),
                    format!("{} is given twice", neighbour.address.0),
                    "write one station for each address",
                ));
            }
        }
    }

    fn validate_mac(&self, mac: MacAddr, field: &str, faults: &mut Vec<Fault>) {
        if mac.is_multicast() || mac == MacAddr::default() {
            faults.push(Fault::new(
                format!("{field}.mac"),
                format!("{mac} is not one station's address"),
                "write a unicast address, such as 02:00:00:00:00:01",
            ));
        }
    }
}

impl Underlay {
    fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

fn yes() -> bool {
    true
}

fn five_minutes() -> u32 {
    300
}

fn default_limit() -> u32 {
    8192
}
