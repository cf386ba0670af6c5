//! A node's own configuration: its ports, threads, tunnels and where its resources are.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::bgp_use::Bgp;
use super::bridge::{self, Bridge};
use super::datastore::Datastore;
use super::fence::Fence;
use super::load::read_text;
use super::name::{InterfaceName, NodeName};
use super::problem::{Fault, Origin, Position, Problem};
use super::upkeep::Upkeep;
use super::workload_interfaces::WorkloadInterfaces;
use super::yaml::{Tree, documents};
use crate::wire::Vni;

/// A node's configuration, checked in itself; what the machine makes of it is known only later
/// ([`NodeConfig::problem`] gives that the same shape).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeConfig {
    /// The name of this node's Node resource.
    pub node: NodeName,
    /// The port on the network between nodes.
    pub uplink: Uplink,
    /// The ports that workloads sit behind.
    #[serde(default)]
    pub workloads: Vec<WorkloadPort>,
    /// Ports that are opened as workloads come; none of them if absent.
    #[serde(default)]
    pub workload_interfaces: Option<WorkloadInterfaces>,
    /// The TUN device of the node's own processes; none on a router without host traffic.
    #[serde(default)]
    pub host: Option<Host>,
    /// The threads that move packets.
    #[serde(default)]
    pub workers: Workers,
    /// VXLAN.
    #[serde(default)]
    pub vxlan: Vxlan,
    /// What goes for tunnels of either kind.
    #[serde(default)]
    pub tunnel: Tunnel,
    /// From whom tunnel packets are taken.
    #[serde(default)]
    pub fence: Fence,
    /// Whether XDP programs forward what they can.
    #[serde(default)]
    pub fast_path: FastPathWanted,
    /// Who tells where other nodes' blocks are.
    #[serde(default)]
    pub bgp: Bgp,
    /// Virtual Ethernets that this node has a part in.
    #[serde(default)]
    pub bridges: Vec<Bridge>,
    /// Where the cluster's resources are.
    pub datastore: Datastore,
    /// What this node does for the cluster's records.
    #[serde(default)]
    pub upkeep: Upkeep,
    /// Where health is served; nowhere if absent.
    #[serde(default)]
    pub health: Option<SocketAddr>,
    /// Where metrics are served; nowhere if absent.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// The control socket's path, if not the default one; see [`NodeConfig::control_socket`].
    #[serde(default)]
    pub control: Option<PathBuf>,
    /// How much is logged.
    #[serde(default)]
    pub log: LogLevel,
    #[serde(skip)]
    places: Option<Places>,
}

/// The port on the network between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Uplink {
    /// The device.
    pub interface: InterfaceName,
    /// How its frames are moved.
    #[serde(default)]
    pub io: Io,
    /// Receive queues to serve, from queue 0; see [`NodeConfig::uplink_queues`].
    #[serde(default)]
    pub queues: Option<usize>,
    /// Whether the device may be the one that the machine's default route leaves by.
    #[serde(default)]
    pub allow_default_route: bool,
}

/// How an AF_XDP port moves frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Io {
    /// In the driver if it can, else generic with a warning.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's generic path.
    Generic,
}

impl Io {
    /// As configurations have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// A port that a workload sits behind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadPort {
    /// What WorkloadEndpoints call it (spec.interfaceName); for AF_XDP also the device.
    pub interface: InterfaceName,
    /// How it is opened.
    #[serde(default)]
    pub kind: PortKind,
    /// How its frames are moved; AF_XDP only.
    #[serde(default)]
    pub io: Option<Io>,
    /// The network namespace that a TUN or TAP device lives in; this one if absent.
    #[serde(default)]
    pub netns: Option<String>,
    /// The TUN or TAP device's name there, if it is not `interface`.
    #[serde(default)]
    pub device: Option<InterfaceName>,
    /// The unix socket's path; sockets only.
    #[serde(default)]
    pub socket: Option<PathBuf>,
}

/// How a workload's port is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PortKind {
    /// An existing device, by AF_XDP.
    #[default]
    Xdp,
    /// A TUN device that underpass makes: IP packets.
    Tun,
    /// A TAP device that underpass makes: Ethernet frames.
    Tap,
    /// An existing device that another program holds, such as QEMU's TAP, by a packet socket: for
    /// senders that leave checksums and segmentation to it.
    Packet,
    /// A unix socket that a program connects to: Ethernet frames, each behind its length.
    Stream,
    /// A unix socket that a program sends datagrams to: an Ethernet frame each.
    Dgram,
}

impl PortKind {
    /// Whether underpass makes the device.
    pub fn is_made(self) -> bool {
        matches!(self, Self::Tun | Self::Tap)
    }

    /// Whether it is a unix socket.
    pub fn is_socket(self) -> bool {
        matches!(self, Self::Stream | Self::Dgram)
    }
}

/// The TUN device of the node's own processes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Host {
    /// The device's name.
    #[serde(default = "tunl0")]
    pub tun: InterfaceName,
    /// Its MTU in bytes; 0 derives it from the uplink's.
    #[serde(default)]
    pub mtu: u16,
    /// Whether those of our routes in the host's table that do not hang on the device (to what is
    /// reached as it is, and the blackholes of own blocks) stay after a clean end.
    #[serde(default)]
    pub keep_routes: bool,
}

/// The threads that move packets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workers {
    /// How many; see [`Workers::count`].
    #[serde(default)]
    count: Option<usize>,
    /// The CPU of each; if absent, the last ones that the process may use.
    #[serde(default)]
    pub cpus: Option<Vec<usize>>,
    /// UMEM frames of each.
    #[serde(default = "default_frames")]
    pub frames: u32,
}

/// VXLAN (RFC 7348).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Vxlan {
    /// The UDP port.
    pub port: u16,
    /// The network identifier.
    #[serde(deserialize_with = "vni")]
    pub vni: Vni,
    /// Whether packets with reserved bits set are dropped.
    pub strict_reserved_bits: bool,
}

/// What goes for tunnels of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Tunnel {
    /// The outer TTL or hop limit.
    pub ttl: Ttl,
    /// The outer DSCP.
    pub dscp: Dscp,
    /// The largest inner packet in bytes; 0 derives it from the uplink's MTU.
    pub mtu: u16,
    /// Whether VXLAN over IPv6 goes without a UDP checksum, and is taken without one.
    pub udp_zero_checksum_v6: bool,
    /// No ICMP error is believed that says that an IPv4 path takes fewer bytes.
    pub min_path_mtu: u16,
    /// Seconds between probes of each path for its MTU; 0 for none but those that a doubt calls for.
    pub probe_paths: u16,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            ttl: Ttl::default(),
            dscp: Dscp::default(),
            mtu: 0,
            udp_zero_checksum_v6: false,
            // Linux's net.ipv4.route.min_pmtu.
            min_path_mtu: 552,
            probe_paths: 0,
        }
    }
}

/// An outer TTL: `inherit`, or a number from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// This one.
    Fixed(u8),
    /// The inner packet's.
    Inherit,
}

/// An outer DSCP: `inherit`, or a number from 0 to 63.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dscp {
    /// This one.
    Fixed(u8),
    /// The inner packet's.
    #[default]
    Inherit,
}

/// Whether XDP programs forward what they can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FastPathWanted {
    /// No: every packet goes through a worker.
    #[default]
    Off,
    /// By the ports that allow it.
    Auto,
    /// As `auto`, and the node does not start if the uplink does not allow it.
    On,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the levels are the log crate's")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// What a UNIX socket's address holds at most, in bytes (`sun_path`, with its final zero).
const SOCKET_PATH_MAX: usize = 107;

const FRAMES: std::ops::RangeInclusive<u32> = 256..=1 << 20;
const WORKERS: std::ops::RangeInclusive<usize> = 1..=256;
/// The least MTU of IPv4 (RFC 791).
pub(super) const MTU_MIN: u16 = 68;

impl WorkloadPort {
    /// What is wrong with the socket's path, and what would be right.
    fn socket_fault(&self) -> Option<(String, String)> {
        match (&self.socket, self.kind.is_socket()) {
            (None, true) => Some((
                "a port of kind stream or dgram is a unix socket".to_owned(),
                format!(
                    "write its path, such as /run/underpass/{}.sock",
                    self.interface
                ),
            )),
            (Some(_), false) => Some((
                "only ports of kind stream and dgram have it".to_owned(),
                "remove it, or write kind: stream".to_owned(),
            )),
            (Some(path), true) if path.as_os_str().len() > SOCKET_PATH_MAX => Some((
                format!("a unix socket's path has at most {SOCKET_PATH_MAX} bytes"),
                "write a shorter one".to_owned(),
            )),
            _ => None,
        }
    }
}

impl NodeConfig {
    /// Reads and checks a configuration file.
    pub fn load(file: &Path) -> Result<Self, Vec<Problem>> {
        let text = read_text(file).map_err(|problem| vec![problem])?;
        Self::parse(file, &text)
    }

    /// Reads and checks a configuration; `file` is what it is called in problems, and what relative
    /// paths start from.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let tree = only_document(file, text).map_err(|problem| vec![problem])?;
        let mut config: Self = tree
            .decode(&[])
            .map_err(|(position, fault)| vec![problem_at(file, position, fault)])?;
        config.places = Some(Places {
            file: file.into(),
            tree: tree.into(),
        });
        let problems: Vec<Problem> = config
            .validate()
            .into_iter()
            .map(|fault| config.problem(fault))
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let directory = file.parent().unwrap_or(Path::new(""));
        config.datastore.resolve(directory);
        Ok(config)
    }

    /// A fault of a field, such as `uplink.interface`, as a problem with the field's line and
    /// column.
    pub fn problem(&self, fault: Fault) -> Problem {
        let origin = match &self.places {
            Some(Places { file, tree }) => Origin {
                file: Arc::clone(file),
                position: Some(tree.position_of(&fault.field)),
            },
            None => Origin::file(Path::new("")),
        };
        fault.at(origin)
    }

    /// The file that it was read from.
    pub fn file(&self) -> Option<&Path> {
        self.places.as_ref().map(|places| &*places.file)
    }

    /// Whether the file says anything of a field, such as `vxlan.port`: a default is no word of its
    /// author's.
    pub fn says(&self, field: &str) -> bool {
        let places = self.places.as_ref();
        places.is_some_and(|places| places.tree.at(field).is_some())
    }

    /// How many workers there are.
    pub fn worker_count(&self) -> usize {
        self.workers.count()
    }

    /// How many of the uplink's receive queues are served, of `present`: as given, else all, as a
    /// device spreads what it receives over all of them; never fewer than one a worker.
    pub fn uplink_queues(&self, present: u32) -> usize {
        let all = || self.worker_count().max(present as usize);
        self.uplink.queues.unwrap_or_else(all)
    }

    /// The place in `bridges` of the one that has this port.
    pub fn bridge_of(&self, interface: &InterfaceName) -> Option<usize> {
        let has = |bridge: &Bridge| bridge.ports.contains(interface);
        self.bridges.iter().position(has)
    }

    /// The control socket's path: as given, else `/run/underpass/<node>.sock`.
    pub fn control_socket(&self) -> PathBuf {
        let default = || Path::new("/run/underpass").join(format!("{}.sock", self.node));
        self.control.clone().unwrap_or_else(default)
    }

    /// Takes the routed network's port and VNI from elsewhere; what is wrong with the bridges then.
    pub fn take_vxlan(&mut self, port: u16, vni: Vni) -> Vec<Problem> {
        (self.vxlan.port, self.vxlan.vni) = (port, vni);
        let mut faults = Vec::new();
        bridge::validate(self, &mut faults);
        faults
            .into_iter()
            .map(|fault| self.problem(fault))
            .collect()
    }

    fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.validate_ports(&mut faults);
        self.validate_names(&mut faults);
        if let Some(interfaces) = &self.workload_interfaces {
            interfaces.validate(&mut faults);
        }
        self.workers.validate(&mut faults);
        self.validate_uplink_queues(&mut faults);
        self.validate_numbers(&mut faults);
        self.validate_services(&mut faults);
        self.bgp.validate(&mut faults);
        self.upkeep.validate(&mut faults);
        bridge::validate(self, &mut faults);
        faults
    }

    fn validate_ports(&self, faults: &mut Vec<Fault>) {
        for (index, port) in self.workloads.iter().enumerate() {
            let field = |name: &str| format!("workloads[{index}].{name}");
            let not_xdp = port.kind != PortKind::Xdp;
            if not_xdp && port.io.is_some() {
                faults.push(Fault::new(
                    field("io"),
                    "only AF_XDP ports have it",
                    "remove it, or write kind: xdp",
                ));
            }
            for (name, given) in [
                ("netns", port.netns.is_some()),
                ("device", port.device.is_some()),
            ] {
                if given && !port.kind.is_made() {
                    faults.push(Fault::new(
                        field(name),
                        "only ports of kind tun and tap have it",
                        "remove it, or write kind: tun",
                    ));
                }
            }
            faults.extend(
                port.socket_fault()
                    .map(|(reason, remedy)| Fault::new(field("socket"), reason, remedy)),
            );
            let netns = port.netns.as_deref().unwrap_or("default");
            if netns.is_empty() || netns == "." || netns == ".." || netns.contains('/') {
                faults.push(Fault::new(
                    field("netns"),
                    format!("'{netns}' is not a network namespace's name"),
                    "write a name as `ip netns list` shows it",
                ));
            }
        }
    }

    /// No two ports may be one device, nor bear one name.
    fn validate_names(&self, faults: &mut Vec<Fault>) {
        let mut names = BTreeMap::new();
        let mut devices = BTreeMap::new();
        let mut claim = |field: String, name: &InterfaceName, netns: Option<&str>, device| {
            let device: &InterfaceName = device;
            let netns = netns.map(str::to_owned);
            let taken = names
                .insert(name.clone(), field.clone())
                .or(devices.insert((netns, device.clone()), field.clone()));
            if let Some(first) = taken {
                faults.push(Fault::new(
                    field,
                    format!("'{name}' is also {first}"),
                    "give each port a device and a name of its own",
                ));
            }
        };
        let uplink = &self.uplink.interface;
        claim("uplink.interface".into(), uplink, None, uplink);
        if let Some(host) = &self.host {
            claim("host.tun".into(), &host.tun, None, &host.tun);
        }
        for (index, port) in self.workloads.iter().enumerate() {
            let field = format!("workloads[{index}].interface");
            let device = port.device.as_ref().unwrap_or(&port.interface);
            claim(field, &port.interface, port.netns.as_deref(), device);
        }
    }

    fn validate_uplink_queues(&self, faults: &mut Vec<Fault>) {
        let workers = self.worker_count();
        if let Some(queues) = self.uplink.queues.filter(|&queues| queues < workers) {
            faults.push(Fault::new(
                "uplink.queues",
                format!("{queues} queues are fewer than the {workers} workers that serve them"),
                format!("write at least {workers}, or fewer workers"),
            ));
        }
    }

    fn validate_numbers(&self, faults: &mut Vec<Fault>) {
        let host_mtu = self.host.as_ref().map_or(0, |host| host.mtu);
        for (field, mtu) in [("host.mtu", host_mtu), ("tunnel.mtu", self.tunnel.mtu)] {
            if (1..MTU_MIN).contains(&mtu) {
                faults.push(Fault::new(
                    field,
                    format!("{mtu} bytes are too few for IP"),
                    format!("write {MTU_MIN} or more, or 0 to have it derived"),
                ));
            }
        }
        let least = self.tunnel.min_path_mtu;
        if !(MTU_MIN..=1280).contains(&least) {
            faults.push(Fault::new(
                "tunnel.minPathMtu",
                format!("{least} bytes are not what a path's MTU is held against"),
                format!("write a number from {MTU_MIN} to 1280, 552 by default"),
            ));
        }
        if (1..10).contains(&self.tunnel.probe_paths) {
            faults.push(Fault::new(
                "tunnel.probePaths",
                format!("every {} seconds is too often", self.tunnel.probe_paths),
                "write 10 or more, or 0 for none",
            ));
        }
        if self.vxlan.port == 0 {
            faults.push(Fault::new(
                "vxlan.port",
                "0 is not a port",
                "write a number from 1 to 65535, 4789 by default",
            ));
        }
    }

    fn validate_services(&self, faults: &mut Vec<Fault>) {
        for (field, address) in [("health", self.health), ("metrics", self.metrics)] {
            if address.is_some_and(|address| address.port() == 0) {
                faults.push(Fault::new(
                    field,
                    "0 is not a port",
                    "write an address and a port, such as 127.0.0.1:9099",
                ));
            }
        }
        if self.metrics.is_some() && self.metrics == self.health {
            faults.push(Fault::new(
                "metrics",
                "health has the same address",
                "write another port, such as 127.0.0.1:9091",
            ));
        }
        let socket = self.control_socket();
        if !socket.is_absolute() || socket.as_os_str().len() > SOCKET_PATH_MAX {
            faults.push(Fault::new(
                "control",
                format!("'{}' cannot be a socket's path", socket.display()),
                format!("write an absolute path of at most {SOCKET_PATH_MAX} bytes"),
            ));
        }
        faults.extend(self.datastore.validate("datastore."));
    }
}

impl Workers {
    /// How many there are: as given, else one for each CPU given, else one.
    pub fn count(&self) -> usize {
        let cpus = self.cpus.as_ref().map(Vec::len);
        self.count.or(cpus).unwrap_or(1)
    }

    fn validate(&self, faults: &mut Vec<Fault>) {
        let count = self.count();
        if !WORKERS.contains(&count) {
            faults.push(Fault::new(
                "workers.count",
                format!("{count} is no number of workers"),
                format!(
                    "write a number from {} to {}",
                    WORKERS.start(),
                    WORKERS.end()
                ),
            ));
        }
        let cpus = self.cpus.as_deref().unwrap_or_default();
        if self.cpus.is_some() && cpus.len() != count {
            faults.push(Fault::new(
                "workers.cpus",
                format!("{} CPUs do not match {count} workers", cpus.len()),
                "write one CPU for each worker",
            ));
        }
        for (index, cpu) in cpus.iter().enumerate() {
            if cpus[..index].contains(cpu) {
                faults.push(Fault::new(
                    format!("workers.cpus[{index}]"),
                    format!("CPU {cpu} is given twice"),
                    "write a different CPU for each worker",
                ));
            }
        }
        if !FRAMES.contains(&self.frames) {
            faults.push(Fault::new(
                "workers.frames",
                format!("{} is no number of frames", self.frames),
                format!("write a number from {} to {}", FRAMES.start(), FRAMES.end()),
            ));
        }
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            count: None,
            cpus: None,
            frames: default_frames(),
        }
    }
}

impl Default for Vxlan {
    fn default() -> Self {
        Self {
            port: 4789,
            vni: Vni::CALICO,
            strict_reserved_bits: false,
        }
    }
}

impl Default for Ttl {
    fn default() -> Self {
        Self::Fixed(64)
    }
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::Off,
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

fn default_frames() -> u32 {
    8192
}

fn tunl0() -> InterfaceName {
    InterfaceName::tunl0()
}

pub(super) fn vni<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vni, D::Error> {
    let number = u32::deserialize(deserializer)?;
    Vni::new(number).ok_or_else(|| {
        de::Error::custom(format!(
            "{number} does not fit into 24 bits; write a number from 0 to 16777215"
        ))
    })
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = deserializer.deserialize_any(NumberOrInherit {
            least: 1,
            most: u8::MAX,
        })?;
        Ok(number.map_or(Self::Inherit, Self::Fixed))
    }
}

impl<'de> Deserialize<'de> for Dscp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = deserializer.deserialize_any(NumberOrInherit { least: 0, most: 63 })?;
        Ok(number.map_or(Self::Inherit, Self::Fixed))
    }
}

/// A number within bounds, or nothing for `inherit`.
struct NumberOrInherit {
    least: u8,
    most: u8,
}

impl Visitor<'_> for NumberOrInherit {
    type Value = Option<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most } = self;
        write!(f, "inherit, or a number from {least} to {most}")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Option<u8>, E> {
        match u8::try_from(number) {
            Ok(number) if (self.least..=self.most).contains(&number) => Ok(Some(number)),
            _ => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<u8>, E> {
        match text {
            "inherit" => Ok(None),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

/// Where a configuration's fields stand in its file.
#[derive(Debug, Clone)]
struct Places {
    file: Arc<Path>,
    tree: Arc<Tree>,
}

fn problem_at(file: &Path, position: Position, fault: Fault) -> Problem {
    fault.at(Origin {
        file: file.into(),
        position: Some(position),
    })
}

fn only_document(file: &Path, text: &str) -> Result<Tree, Problem> {
    let mut all = documents(text);
    if all.len() > 1 {
        return Err(Problem::with_file(
            file,
            format!("holds {} documents", all.len()),
            "write one document; resources belong into the datastore's directory",
        ));
    }
    match all.pop() {
        Some(Ok(tree)) => Ok(tree),
        Some(Err((position, fault))) => Err(problem_at(file, position, fault)),
        None => Err(Problem::with_file(
            file,
            "is empty",
            "write at least node, uplink and datastore",
        )),
    }
}
