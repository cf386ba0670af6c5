//! The XDP program on a device and the maps that it decides by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, ProgramArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, Xdp, XdpMode as AttachMode, loaded_programs};
use aya::{Ebpf, EbpfLoader, Pod};
use ipnet::IpNet;

use super::fast_path::{FastPath, FastPort};
use crate::port::netdev::{NetDevice, receive_queues};
use crate::port::{PortError, PortId};
use crate::wire::MacAddr;

/// The compiled `steer.bpf.c`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));

/// Which packets of a device are stolen from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// All.
    Workload,
    /// Those with the device's own Ethernet destination and no 802.1Q tag that are IP-in-IP or VXLAN
    /// to one of the node's addresses, or to an address in one of its prefixes; and ICMP destination
    /// unreachable, or ICMPv6 packet too big, to one of the node's addresses that quotes such a packet from
    /// one of them.
    ///
    /// Later fragments of a VXLAN packet follow its first one; those that come before it are taken from
    /// who has sent fragments of VXLAN within the last half minute. A tag that the device takes off
    /// the frame is not seen: switch that off (`ethtool -K IF rxvlan off`) where the uplink carries
    /// VLANs. VXLAN over IPv6 behind an extension header but a fragment's is left to the kernel.
    Uplink,
}

/// How the program is to be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XdpModeWanted {
    /// Native, or generic where the driver does not support native.
    #[default]
    Auto,
    /// By the driver, or not at all.
    Native,
    /// By the network stack, which every device allows.
    Generic,
}

/// How the program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// By the driver, before the kernel makes a socket buffer.
    Native,
    /// By the network stack.
    Generic,
}

/// A device's XDP program, its maps, and the link that holds it there.
///
/// Dropping this detaches the program. So does the kernel when the process ends in whatever way, as
/// the link (BPF_LINK_CREATE) lives as long as its descriptor.
pub struct Steering {
    // First: detached before the maps go.
    _link: FdLink,
    ebpf: Ebpf,
    interface: String,
    role: Role,
    mode: XdpMode,
    fallback: Option<String>,
    /// The registered sockets, by queue.
    sockets: BTreeMap<u32, RawFd>,
    config: Config,
    node_addresses: BTreeSet<IpAddr>,
    local_prefixes: BTreeSet<IpNet>,
}

/// `struct config` of the program.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Config {
    device_address: [u8; 6],
    vxlan_port: [u8; 2],
    more_vxlan_ports: [[u8; 2]; MORE_VXLAN_PORTS],
}

/// UDP ports of VXLAN packets beside the first one that a program compares with.
pub const MORE_VXLAN_PORTS: usize = 7;

// SAFETY: bytes only, without padding.
unsafe impl Pod for Config {}

impl Steering {
    /// Attaches the program to a device of the calling thread's network namespace.
    ///
    /// It passes every packet to the kernel until sockets are registered; an uplink's also until
    /// addresses or prefixes are set. The VXLAN port is 4789 unless set.
    pub fn attach(interface: &str, role: Role, wanted: XdpModeWanted) -> Result<Self, PortError> {
        let device = NetDevice::query(interface)?;
        if let Some(&id) = device.xdp_programs.first() {
            return Err(foreign(interface, Some(id)));
        }
        let mut ebpf = load(interface)?;
        let program = program(&mut ebpf, role).map_err(|reason| failed(interface, reason))?;
        let (link, mode, fallback) = attach(program, interface, device.index, wanted)?;
        let mut steering = Self {
            _link: link,
            ebpf,
            interface: interface.to_owned(),
            role,
            mode,
            fallback,
            sockets: BTreeMap::new(),
            config: Config {
                device_address: device.address.unwrap_or_default().0,
                vxlan_port: 4789_u16.to_be_bytes(),
                more_vxlan_ports: Default::default(),
            },
            node_addresses: BTreeSet::new(),
            local_prefixes: BTreeSet::new(),
        };
        steering.write_config()?;
        if let Some(reason) = steering.fallback() {
            log::warn!("{interface}: XDP in generic mode, which is slower: {reason}");
        }
        Ok(steering)
    }

    /// The device.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// How the program is attached.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Why it is not attached in native mode, if that was tried.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Sends a queue's stolen packets to that socket, which must be bound to the queue.
    pub fn register(&mut self, queue: u32, socket: RawFd) -> Result<(), PortError> {
        let mut sockets: XskMap<_> = self.map("sockets")?;
        sockets
            .set(queue, socket, 0)
            .map_err(|error| self.map_error("register a socket", &error))?;
        self.sockets.insert(queue, socket);
        Ok(())
    }

    /// Leaves a queue's packets to the kernel. A socket that is closed leaves by itself.
    pub fn unregister(&mut self, queue: u32) -> Result<(), PortError> {
        let mut sockets: XskMap<_> = self.map("sockets")?;
        ignore_absent(sockets.unset(queue))
            .map_err(|error| self.map_error("remove a socket", &error))
    }

    /// Makes the port known to the fast path, by its number, and shows stolen packets to it from now
    /// on. It hands them to the sockets that are registered.
    pub fn join(
        &mut self,
        fast: &mut FastPath,
        id: PortId,
        partial_checksums: bool,
    ) -> Result<(), PortError> {
        let sockets: Vec<_> = self.sockets.iter().map(|(at, to)| (*at, *to)).collect();
        fast.add_port(&FastPort {
            id,
            device: &self.interface,
            workload: self.role == Role::Workload,
            partial_checksums,
            sockets: &sockets,
        })?;
        let mut programs: ProgramArray<_> = self.map("fast_path")?;
        programs
            .set(0, fast.program()?, 0)
            .map_err(|error| self.map_error("set the fast path", &error))
    }

    /// The UDP port that VXLAN packets to the node have.
    pub fn set_vxlan_port(&mut self, port: u16) -> Result<(), PortError> {
        self.config.vxlan_port = port.to_be_bytes();
        self.write_config()
    }

    /// Further UDP ports of VXLAN packets, in place of those before; what is beyond
    /// [`MORE_VXLAN_PORTS`] is left out.
    pub fn set_more_vxlan_ports(&mut self, ports: &[u16]) -> Result<(), PortError> {
        let mut more = [[0; 2]; MORE_VXLAN_PORTS];
        for (place, port) in more.iter_mut().zip(ports) {
            *place = port.to_be_bytes();
        }
        self.config.more_vxlan_ports = more;
        self.write_config()
    }

    /// The Ethernet destination of packets that may be stolen, when the device's own has changed.
    pub fn set_device_address(&mut self, address: MacAddr) -> Result<(), PortError> {
        self.config.device_address = address.0;
        self.write_config()
    }

    /// The addresses of this node that tunnel packets come to: all of them, in place of those
    /// before. New ones are in force before old ones go.
    pub fn set_node_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), PortError> {
        let wanted: BTreeSet<_> = addresses.iter().copied().collect();
        for &address in wanted.difference(&self.node_addresses.clone()) {
            self.node_address(address, true)?;
            self.node_addresses.insert(address);
        }
        for &address in self.node_addresses.clone().difference(&wanted) {
            self.node_address(address, false)?;
            self.node_addresses.remove(&address);
        }
        Ok(())
    }

    /// The prefixes whose packets are all stolen: all of them, in place of those before. New ones are
    /// in force before old ones go.
    pub fn set_local_prefixes(&mut self, prefixes: &[IpNet]) -> Result<(), PortError> {
        let wanted: BTreeSet<_> = prefixes.iter().map(IpNet::trunc).collect();
        for &prefix in wanted.difference(&self.local_prefixes.clone()) {
            self.add_local_prefix(prefix)?;
        }
        for &prefix in self.local_prefixes.clone().difference(&wanted) {
            self.remove_local_prefix(prefix)?;
        }
        Ok(())
    }

    /// Steals packets into `prefix` as well.
    pub fn add_local_prefix(&mut self, prefix: IpNet) -> Result<(), PortError> {
        let prefix = prefix.trunc();
        self.local_prefix(prefix, true)?;
        self.local_prefixes.insert(prefix);
        Ok(())
    }

    /// Leaves packets into `prefix` to the kernel again.
    pub fn remove_local_prefix(&mut self, prefix: IpNet) -> Result<(), PortError> {
        let prefix = prefix.trunc();
        self.local_prefix(prefix, false)?;
        self.local_prefixes.remove(&prefix);
        Ok(())
    }

    fn node_address(&mut self, address: IpAddr, present: bool) -> Result<(), PortError> {
        let result = match address {
            IpAddr::V4(address) => self
                .map("node_ipv4")
                .map(|map| put(map, address.octets(), present))?,
            IpAddr::V6(address) => self
                .map("node_ipv6")
                .map(|map| put(map, address.octets(), present))?,
        };
        result.map_err(|error| self.map_error(&format!("set the node's address {address}"), &error))
    }

    fn local_prefix(&mut self, prefix: IpNet, present: bool) -> Result<(), PortError> {
        let length = u32::from(prefix.prefix_len());
        let result = match prefix.addr() {
            IpAddr::V4(address) => self.map("local_ipv4").map(|map| {
                put_prefix(map, Key::new(length, Ipv4Addr::octets(&address)), present)
            })?,
            IpAddr::V6(address) => self.map("local_ipv6").map(|map| {
                put_prefix(map, Key::new(length, Ipv6Addr::octets(&address)), present)
            })?,
        };
        result.map_err(|error| self.map_error(&format!("set the prefix {prefix}"), &error))
    }

    fn write_config(&mut self) -> Result<(), PortError> {
        let config = self.config;
        let mut map: Array<_, Config> = self.map("config")?;
        map.set(0, config, 0)
            .map_err(|error| self.map_error("configure the program", &error))
    }

    fn map<'a, M: TryFrom<&'a mut Map, Error = MapError>>(
        &'a mut self,
        name: &str,
    ) -> Result<M, PortError> {
        let Self {
            ebpf, interface, ..
        } = self;
        let map = ebpf
            .map_mut(name)
            .ok_or_else(|| failed(interface, format!("the program has no map '{name}'")))?;
        M::try_from(map).map_err(|error| failed(interface, format!("map '{name}': {error}")))
    }

    fn map_error(&self, what: &str, error: &MapError) -> PortError {
        let reason = match error {
            MapError::SyscallError(call) => call.io_error.to_string(),
            other => other.to_string(),
        };
        failed(&self.interface, format!("cannot {what}: {reason}"))
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

fn put<K: Pod>(
    mut map: HashMap<&mut MapData, K, u8>,
    key: K,
    present: bool,
) -> Result<(), MapError> {
    if present {
        map.insert(key, 1, 0)
    } else {
        ignore_absent(map.remove(&key))
    }
}

fn put_prefix<K: Pod>(
    mut map: LpmTrie<&mut MapData, K, u8>,
    key: Key<K>,
    present: bool,
) -> Result<(), MapError> {
    if present {
        map.insert(&key, 1, 0)
    } else {
        ignore_absent(map.remove(&key))
    }
}

pub(super) fn ignore_absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(())
        }
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}

fn load(interface: &str) -> Result<Ebpf, PortError> {
    let queues = receive_queues(interface)?.max(1);
    EbpfLoader::new()
        .map_max_entries("sockets", queues)
        .load(OBJECT)
        .map_err(|error| {
            if has_errno(&error, &[libc::EPERM, libc::EACCES]) {
                PortError::NoPermission {
                    what: format!("to load the XDP program for '{interface}'"),
                }
            } else {
                failed(
                    interface,
                    format!("the program cannot be loaded: {}", chain(&error)),
                )
            }
        })
}

fn program(ebpf: &mut Ebpf, role: Role) -> Result<&mut Xdp, String> {
    let name = match role {
        Role::Workload => "steer_workload",
        Role::Uplink => "steer_uplink",
    };
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| format!("the object has no program '{name}'"))?;
    let program: &mut Xdp = program
        .try_into()
        .map_err(|error: ProgramError| error.to_string())?;
    program
        .load()
        .map_err(|error| format!("the program cannot be loaded: {}", chain(&error)))?;
    Ok(program)
}

type Attached = (FdLink, XdpMode, Option<String>);

fn attach(
    program: &mut Xdp,
    interface: &str,
    index: u32,
    wanted: XdpModeWanted,
) -> Result<Attached, PortError> {
    let mut fallback = None;
    if wanted != XdpModeWanted::Generic {
        match attach_in(program, index, AttachMode::Driver) {
            Ok(link) => return Ok((link, XdpMode::Native, None)),
            Err(error) if has_errno(&error, &[libc::EBUSY, libc::EEXIST]) => {
                return Err(occupied(interface));
            }
            Err(error) if wanted == XdpModeWanted::Native => {
                return Err(failed(
                    interface,
                    format!("native mode: {}", meaning(&error)),
                ));
            }
            Err(error) => fallback = Some(format!("native mode is refused: {}", meaning(&error))),
        }
    }
    match attach_in(program, index, AttachMode::Skb) {
        Ok(link) => Ok((link, XdpMode::Generic, fallback)),
        Err(error) if has_errno(&error, &[libc::EBUSY, libc::EEXIST]) => Err(occupied(interface)),
        Err(error) => Err(failed(
            interface,
            format!("generic mode: {}", meaning(&error)),
        )),
    }
}

/// aya attaches by netlink where it cannot make a link; such a program would stay behind a crash, so
/// it is detached and refused.
fn attach_in(program: &mut Xdp, index: u32, mode: AttachMode) -> Result<FdLink, ProgramError> {
    let id = program.attach_to_if_index(index, mode)?;
    let link = program.take_link(id)?;
    FdLink::try_from(link).map_err(|_| {
        ProgramError::SyscallError(aya::sys::SyscallError {
            call: "bpf_link_create",
            io_error: std::io::Error::from_raw_os_error(libc::EINVAL),
        })
    })
}

/// What the kernel means by the error, as it gives no text with it.
fn meaning(error: &ProgramError) -> String {
    let Some(errno) = errno(error) else {
        return chain(error);
    };
    let meaning = match errno {
        libc::EOPNOTSUPP => "the driver does not support it",
        libc::ERANGE => {
            "the MTU of the device or, on veth, of its peer is too large for it (veth: about 3500)"
        }
        libc::ENOSPC => {
            "on veth, the peer has more transmit queues than this device has receive queues"
        }
        libc::EINVAL => {
            "the driver does not support it in the device's present configuration (LRO, MTU, header split), or the kernel is older than 5.9 and has no links"
        }
        libc::ENOMEM => "the driver has no room for another queue",
        libc::EPERM | libc::EACCES => {
            "no permission; run as root or with CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON"
        }
        _ => "the kernel gives no reason",
    };
    format!("{} ({meaning})", std::io::Error::from_raw_os_error(errno))
}

/// The device got a program between our look and the attempt.
fn occupied(interface: &str) -> PortError {
    let id = NetDevice::query(interface)
        .ok()
        .and_then(|device| device.xdp_programs.first().copied());
    foreign(interface, id)
}

fn foreign(interface: &str, id: Option<u32>) -> PortError {
    let program = match id {
        Some(id) => describe_program(id),
        None => "one that went away again".to_owned(),
    };
    PortError::ForeignProgram {
        interface: interface.to_owned(),
        program,
    }
}

/// Whether a program is one that an underpass attached, by its name.
pub fn is_own_program(id: u32) -> bool {
    matches!(program_name(id).as_str(), "steer_workload" | "steer_uplink")
}

fn program_name(id: u32) -> String {
    loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// What is known of an XDP program: id, name, and whose it is if it is an underpass's.
pub fn describe_program(id: u32) -> String {
    let name = program_name(id);
    match name.as_str() {
        "" => format!("id {id}"),
        "steer_workload" | "steer_uplink" => format!(
            "id {id}, name '{name}', which an underpass that is running holds: it goes when that process ends"
        ),
        name => format!("id {id}, name '{name}'"),
    }
}

fn failed(interface: &str, reason: String) -> PortError {
    PortError::Steering {
        interface: interface.to_owned(),
        reason,
    }
}

fn has_errno(error: &(dyn std::error::Error + 'static), wanted: &[i32]) -> bool {
    errno(error).is_some_and(|errno| wanted.contains(&errno))
}

/// The first operating system error among an error's causes.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    causes(error).find_map(|cause| {
        let call = cause
            .downcast_ref::<aya::sys::SyscallError>()
            .map(|call| &call.io_error);
        call.or(cause.downcast_ref::<std::io::Error>())?
            .raw_os_error()
    })
}

pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = causes(error).map(ToString::to_string).collect();
    parts.dedup();
    parts.join(": ")
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}
