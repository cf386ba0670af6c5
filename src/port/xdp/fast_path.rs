//! The fast path: a program that forwards what needs nothing but a header more or less, and its maps.
//!
//! [`FastPath`] is loaded once a node; a device's [`Steering`](super::Steering) shows it the packets
//! that it steals. It does what the maps say, and hands everything else to the workers' sockets. What
//! the values mean is `fast.bpf.c`'s; who writes them is the control thread.
//!
//! Values that must change as one are written where nobody reads yet, and come into force by one store
//! into memory that the program reads too: [`FastPath::set_next_hop`], [`FastPath::set_settings`].
//! Where a place is to be written again, [`grace`] waits until no program can be reading it.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::xdp::DevMap;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, XskMap};
use aya::programs::{ProgramError, ProgramFd, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, Pod};
use ipnet::IpNet;

pub use super::shared::grace;
use super::shared::{Mapped, check_grace};
use super::steering::{chain, ignore_absent};
use crate::port::netdev::NetDevice;
use crate::port::{PortError, PortId};
use crate::wire::MacAddr;

/// The compiled `fast.bpf.c`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fast.bpf.o"));

/// The fast path's program and maps. Its program is gone when the last device that shows it packets
/// is.
pub struct FastPath {
    ebpf: Ebpf,
    gate: Arc<Mapped>,
    ports: Arc<Mapped>,
    next_hops: Mapped,
    host_bits: Mapped,
    counters: Arc<PerCpuArray<MapData, PortCounts>>,
    /// The slot of the settings that were written last.
    slot: u32,
}

/// Ports that the maps have room for.
pub const PORTS: usize = 1024;
/// Queues of a port that the maps have room for.
pub const QUEUES: u32 = 64;
/// Next hops that the maps have room for.
pub const NEXT_HOPS: usize = 65536;
/// Interface indices that the program finds without hashing.
const INTERFACES: u32 = 16384;
/// Values of an IPv4 address's last 16 bits.
const HOST_BITS: usize = 1 << 16;
/// Slots for adjacencies; slot 0 is none.
pub const ADJACENCIES: usize = 16384;

/// UDP ports of VXLAN that a program can tell a workload's packets by: those of the routed network before
/// and after a change, and one for each that the uplink's program can tell bridges' by.
pub const FENCED_PORTS: usize = super::steering::MORE_VXLAN_PORTS + 3;

/// What belongs to the node as a whole: `struct settings`. Numbers are in network byte order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// This node's underlay address.
    pub node_ipv4: [u8; 4],
    /// The same for IPv6.
    pub node_ipv6: [u8; 16],
    /// The bits below, in the machine's order.
    pub flags: u32,
    /// The UDP port of VXLAN.
    pub vxlan_port: [u8; 2],
    /// The UDP ports that a workload's packets go up for, then zeros.
    pub fenced_ports: [[u8; 2]; FENCED_PORTS],
    /// The Ethernet address that inner frames to this node carry.
    pub vtep_mac: [u8; 6],
    /// The same over IPv6.
    pub vtep_mac_ipv6: [u8; 6],
    /// The network.
    pub vni: [u8; 3],
    /// 0 off, 1 loose, 2 strict.
    pub reverse_path: u8,
    /// How far apart the outer identifications of a CPU are, in the machine's order; 0: none are given,
    /// and packets that need one go up.
    pub identification_step: u16,
}

impl Settings {
    /// The node has an IPv4 address.
    pub const HAS_IPV4: u32 = 1;
    /// The node has an IPv6 address.
    pub const HAS_IPV6: u32 = 2;
    /// VXLAN over IPv6 is taken without UDP checksum.
    pub const ZERO_CHECKSUM_IPV6: u32 = 4;
    /// VXLAN's reserved bits must be zero.
    pub const STRICT_RESERVED_BITS: u32 = 8;
}

// SAFETY: integers only; the sizes of the fields add up to a multiple of the alignment, so that there
// is no padding.
unsafe impl Pod for Settings {}

/// A way out: `struct adjacency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct FastAdjacency {
    /// The port's number.
    pub port: u16,
    /// The largest packet without the header.
    pub mtu: u16,
    /// 0 none, 1 IP-in-IP, 2 VXLAN, 3 VXLAN over IPv6.
    pub encapsulation: u8,
    /// Bit 0: the outer TTL is the packet's; bit 1: the outer DSCP is.
    pub flags: u8,
    /// The outer TTL otherwise.
    pub ttl: u8,
    /// The outer DSCP otherwise.
    pub dscp: u8,
    /// The ones' complement sum of the outer IPv4 header without what is patched.
    pub checksum_base: u32,
    /// Nothing.
    pub unused: u32,
    /// The header.
    pub header: [u8; 88],
}

// SAFETY: integers only, without padding.
unsafe impl Pod for FastAdjacency {}

/// Where the routes of a next hop lead, for the reverse path: see [`FastPath::set_next_hop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FastLeadsTo {
    /// Unreachable, or a blackhole.
    Nowhere,
    /// To this node, or out into the world.
    Elsewhere,
    /// To the known node of this number.
    Peer(u32),
}

impl FastLeadsTo {
    const fn code(self) -> u32 {
        match self {
            Self::Nowhere => 0,
            Self::Elsewhere => 1,
            Self::Peer(number) => number + 2,
        }
    }
}

/// What a port needs to be served.
#[derive(Debug, Clone, Copy)]
pub struct FastPort<'a> {
    /// Its number, under [`PORTS`].
    pub id: PortId,
    /// Its device, in the calling thread's namespace.
    pub device: &'a str,
    /// Whether a workload is behind it.
    pub workload: bool,
    /// Whether senders may leave checksums unfinished.
    pub partial_checksums: bool,
    /// Its queues' sockets.
    pub sockets: &'a [(u32, RawFd)],
}

/// What the fast path has moved by one port; `struct counters`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortCounts {
    /// Packets received and sent on.
    pub rx_packets: u64,
    /// Their bytes, link header included.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Their bytes, link header included.
    pub tx_bytes: u64,
    /// Packets received that could not be sent, as their port went away that moment.
    pub lost: u64,
}

// SAFETY: integers only, without padding.
unsafe impl Pod for PortCounts {}

/// Reads what the fast path counts and switches it, from any thread.
#[derive(Clone)]
pub struct FastCounters {
    counters: Arc<PerCpuArray<MapData, PortCounts>>,
    gate: Arc<Mapped>,
}

/// Switches single ports, from any thread.
#[derive(Clone)]
pub struct FastPorts(Arc<Mapped>);

/// The halves of the value of `gate`.
const GATE_SLOT: usize = 0;
const GATE_SUSPENDED: usize = 4;

/// `struct port`: its flags, and its Ethernet address.
const PORT_SIZE: usize = 12_usize.next_multiple_of(8);
const PORT_IN: u32 = 1;
const PORT_OUT: u32 = 2;
const PORT_CAPTURED: u32 = 4;
const PORT_WORKLOAD: u32 = 8;
const PORT_PARTIAL: u32 = 16;

/// `struct source`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Source {
    port: u32,
    address: [u8; 16],
}

// SAFETY: bytes and an integer, without padding.
unsafe impl Pod for Source {}

impl FastPath {
    /// Loads the program. It is off, and no device shows it packets.
    pub fn load() -> Result<Self, PortError> {
        check_grace().map_err(|reason| refused(reason.to_owned()))?;
        let mut ebpf = EbpfLoader::new()
            .load(OBJECT)
            .map_err(|error| refused(format!("its maps cannot be made: {}", chain(&error))))?;
        let program: Result<&mut Xdp, ProgramError> = ebpf
            .program_mut("fast_path")
            .ok_or_else(|| refused("the object has no program 'fast_path'".to_owned()))?
            .try_into();
        program
            .and_then(Xdp::load)
            .map_err(|error| refused(format!("the program cannot be loaded: {}", chain(&error))))?;
        let counters = ebpf
            .take_map("counters")
            .ok_or_else(|| no_map("counters"))?;
        let counters =
            PerCpuArray::try_from(counters).map_err(|error| map_error("read", &error))?;
        let mut fast = Self {
            gate: Arc::new(mapped(&ebpf, "gate", 8)?),
            ports: Arc::new(mapped(&ebpf, "ports", PORTS * PORT_SIZE)?),
            next_hops: mapped(&ebpf, "next_hops", NEXT_HOPS * 8)?,
            host_bits: mapped(&ebpf, "host_bits_ipv4", HOST_BITS / 8)?,
            counters: Arc::new(counters),
            ebpf,
            slot: 0,
        };
        fast.start_identifications(0)?;
        Ok(fast)
    }

    /// The program, for a device's steering.
    pub(super) fn program(&self) -> Result<&ProgramFd, PortError> {
        let program: Result<&Xdp, ProgramError> = self
            .ebpf
            .program("fast_path")
            .ok_or_else(|| no_map("fast_path"))?
            .try_into();
        program
            .and_then(Xdp::fd)
            .map_err(|error| refused(error.to_string()))
    }

    /// The program itself, to run it by hand.
    pub fn program_mut(&mut self) -> Option<&mut Xdp> {
        self.ebpf.program_mut("fast_path")?.try_into().ok()
    }

    /// Reads what is counted.
    pub fn counters(&self) -> FastCounters {
        FastCounters {
            counters: Arc::clone(&self.counters),
            gate: Arc::clone(&self.gate),
        }
    }

    /// Switches single ports.
    pub fn ports(&self) -> FastPorts {
        FastPorts(Arc::clone(&self.ports))
    }

    /// Makes a port known; what arrives there goes to its sockets until it is [`FastPorts::open`].
    pub fn add_port(&mut self, port: &FastPort<'_>) -> Result<(), PortError> {
        let number = u32::from(port.id.0);
        if usize::from(port.id.0) >= PORTS {
            return Err(refused(format!(
                "{}: there are {PORTS} ports already",
                port.device
            )));
        }
        let device = NetDevice::query(port.device)?;
        let mut flags = 0;
        if port.workload {
            flags |= PORT_WORKLOAD;
        }
        if port.partial_checksums {
            flags |= PORT_PARTIAL;
        }
        self.set_mac(port.id, device.address.unwrap_or_default());
        self.ports
            .word(flags_at(port.id))
            .store(flags, Ordering::Release);
        let mut sockets: XskMap<_> = self.map("sockets")?;
        for (queue, socket) in port.sockets {
            if *queue < QUEUES {
                sockets
                    .set(number * QUEUES + queue, *socket, 0)
                    .map_err(|error| map_error("register a socket", &error))?;
            }
        }
        let mut targets: DevMap<_> = self.map("targets")?;
        targets
            .set(number, device.index, None, 0)
            .map_err(|error| refused(format!("cannot aim at {}: {error}", port.device)))?;
        self.set_interface(device.index, Some(number))
    }

    /// Forgets a port, whose device may be gone: nothing is sent by it any more.
    pub fn remove_port(&mut self, port: PortId, interface: u32) -> Result<(), PortError> {
        self.ports().open(port, false, false);
        self.set_interface(interface, None)
    }

    fn set_interface(&mut self, index: u32, port: Option<u32>) -> Result<(), PortError> {
        let number = port.map(|port| port + 1);
        if index >= INTERFACES {
            return self.put("interfaces_beyond", index, number);
        }
        let mut interfaces: Array<_, u32> = self.map("interfaces")?;
        interfaces
            .set(index, number.unwrap_or(0), 0)
            .map_err(|error| map_error("enter an interface", &error))
    }

    /// The Ethernet address that frames to a port carry, workloads' gateway address apart.
    pub fn set_mac(&mut self, port: PortId, mac: MacAddr) {
        let [a, b, c, d, e, f] = mac.0;
        let at = flags_at(port) + 4;
        let (first, last) = (
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, 0, 0]),
        );
        // A frame that meets half of the change goes up.
        self.ports.word(at).store(first, Ordering::Release);
        self.ports.word(at + 4).store(last, Ordering::Release);
    }

    /// Adds a route, or points the one that is there to another next hop. Single addresses have a map
    /// of their own; when it is full they go to the prefixes.
    pub fn insert_route(&mut self, prefix: IpNet, next_hop: u32) -> Result<(), PortError> {
        let length = u32::from(prefix.prefix_len());
        if prefix.prefix_len() == prefix.max_prefix_len() && self.insert_host(prefix, next_hop)? {
            // It may have gone there while there was no room.
            return self.remove_prefix(prefix);
        }
        let result = match prefix.network() {
            IpAddr::V4(address) => {
                let mut routes: LpmTrie<_, [u8; 4], u32> = self.map("routes_ipv4")?;
                routes.insert(&Key::new(length, address.octets()), next_hop, 0)
            }
            IpAddr::V6(address) => {
                let mut routes: LpmTrie<_, [u8; 16], u32> = self.map("routes_ipv6")?;
                routes.insert(&Key::new(length, address.octets()), next_hop, 0)
            }
        };
        result.map_err(|error| map_error(&format!("insert the route {prefix}"), &error))
    }

    /// Whether there was room.
    fn insert_host(&mut self, host: IpNet, next_hop: u32) -> Result<bool, PortError> {
        let result = match host.addr() {
            IpAddr::V4(address) => {
                self.announce_host(address);
                let mut hosts: HashMap<_, [u8; 4], u32> = self.map("hosts_ipv4")?;
                hosts.insert(address.octets(), next_hop, 0)
            }
            IpAddr::V6(address) => {
                let mut hosts: HashMap<_, [u8; 16], u32> = self.map("hosts_ipv6")?;
                hosts.insert(address.octets(), next_hop, 0)
            }
        };
        match result {
            Err(MapError::SyscallError(call))
                if call.io_error.raw_os_error() == Some(libc::E2BIG) =>
            {
                Ok(false)
            }
            result => result
                .map(|()| true)
                .map_err(|error| map_error(&format!("insert the route {host}"), &error)),
        }
    }

    /// Has the program look among the single addresses for those that end as this one. It stays so.
    fn announce_host(&self, address: Ipv4Addr) {
        let [.., a, b] = address.octets();
        let bit = usize::from(u16::from_le_bytes([a, b]));
        self.host_bits
            .long(bit / 64 * 8)
            .fetch_or(1 << (bit % 64), Ordering::Release);
    }

    /// Removes a route, if it is there.
    pub fn remove_route(&mut self, prefix: IpNet) -> Result<(), PortError> {
        // First from among the prefixes, which must not come to light by what is removed after.
        self.remove_prefix(prefix)?;
        match prefix.network() {
            _ if prefix.prefix_len() < prefix.max_prefix_len() => Ok(()),
            IpAddr::V4(address) => self.put("hosts_ipv4", address.octets(), None::<u32>),
            IpAddr::V6(address) => self.put("hosts_ipv6", address.octets(), None::<u32>),
        }
    }

    fn remove_prefix(&mut self, prefix: IpNet) -> Result<(), PortError> {
        let length = u32::from(prefix.prefix_len());
        let result = match prefix.network() {
            IpAddr::V4(address) => {
                let mut routes: LpmTrie<_, [u8; 4], u32> = self.map("routes_ipv4")?;
                routes.remove(&Key::new(length, address.octets()))
            }
            IpAddr::V6(address) => {
                let mut routes: LpmTrie<_, [u8; 16], u32> = self.map("routes_ipv6")?;
                routes.remove(&Key::new(length, address.octets()))
            }
        };
        ignore_absent(result)
            .map_err(|error| map_error(&format!("remove the route {prefix}"), &error))
    }

    /// Writes an adjacency into a slot that no next hop has, nor had before the last [`grace`].
    pub fn set_adjacency(&mut self, slot: u32, adjacency: &FastAdjacency) -> Result<(), PortError> {
        let mut slots: Array<_, FastAdjacency> = self.map("adjacencies")?;
        slots
            .set(slot, adjacency, 0)
            .map_err(|error| map_error("write an adjacency", &error))
    }

    /// Points a next hop to the adjacency in a slot, to none by slot 0: packets to it go up then. One
    /// store, whatever the number of routes.
    pub fn set_next_hop(&mut self, next_hop: u32, slot: u32, leads_to: FastLeadsTo) {
        if (next_hop as usize) < NEXT_HOPS {
            let value = u64::from(leads_to.code()) << 32 | u64::from(slot);
            self.next_hops
                .long(next_hop as usize * 8)
                .store(value, Ordering::Release);
        }
    }

    /// Puts other settings in the place of those in force; with the first ones the fast path is on.
    pub fn set_settings(&mut self, settings: &Settings) -> Result<(), PortError> {
        let next = if self.slot == 1 { 2 } else { 1 };
        // Nobody reads what was replaced before.
        grace();
        let mut slots: Array<_, Settings> = self.map("settings")?;
        slots
            .set(next, settings, 0)
            .map_err(|error| map_error("write the settings", &error))?;
        self.slot = next;
        self.gate.word(GATE_SLOT).store(next, Ordering::Release);
        Ok(())
    }

    /// Hands all packets to the workers, for good or until there are other settings.
    pub fn give_up(&self) {
        self.gate.word(GATE_SLOT).store(0, Ordering::Release);
    }

    /// Lets a workload's port send from an address, or not any more.
    pub fn set_source(
        &mut self,
        port: PortId,
        address: IpAddr,
        present: bool,
    ) -> Result<(), PortError> {
        let key = Source {
            port: port.0.into(),
            address: mapped_address(address),
        };
        self.put("sources", key, present.then_some(1_u8))
    }

    /// Takes tunnel packets from the known node of that number, or from nobody any more.
    pub fn set_peer(&mut self, address: IpAddr, number: Option<u32>) -> Result<(), PortError> {
        let code = number.map(|number| FastLeadsTo::Peer(number).code());
        self.put("peers", mapped_address(address), code)
    }

    /// Refuses an address as the source of tunnelled packets, or not any more.
    pub fn set_local_address(&mut self, address: IpAddr, present: bool) -> Result<(), PortError> {
        self.put(
            "local_addresses",
            mapped_address(address),
            present.then_some(1_u8),
        )
    }

    /// Begins the outer identifications of each CPU at `first` and the numbers after it.
    pub fn start_identifications(&mut self, first: u16) -> Result<(), PortError> {
        let values: Vec<u32> = (0..cpus() as u32)
            .map(|cpu| cpu + u32::from(first))
            .collect();
        let values = PerCpuValues::try_from(values).map_err(|error| refused(error.to_string()))?;
        let mut map: PerCpuArray<_, u32> = self.map("identification")?;
        map.set(0, values, 0)
            .map_err(|error| map_error("start identifications", &error))
    }

    fn put<K: Pod, V: Pod>(
        &mut self,
        name: &str,
        key: K,
        value: Option<V>,
    ) -> Result<(), PortError> {
        let mut map: HashMap<_, K, V> = self.map(name)?;
        let result = match value {
            Some(value) => map.insert(key, value, 0),
            None => ignore_absent(map.remove(&key)),
        };
        result.map_err(|error| map_error(&format!("write to '{name}'"), &error))
    }

    fn map<'a, M: TryFrom<&'a mut Map, Error = MapError>>(
        &'a mut self,
        name: &str,
    ) -> Result<M, PortError> {
        let map = self.ebpf.map_mut(name).ok_or_else(|| no_map(name))?;
        M::try_from(map).map_err(|error| map_error(&format!("use '{name}'"), &error))
    }
}

impl FastCounters {
    /// What was moved by a port so far, on all CPUs.
    pub fn port(&self, port: PortId) -> PortCounts {
        let mut total = PortCounts::default();
        let Ok(values) = self.counters.get(&u32::from(port.0), 0) else {
            return total;
        };
        for value in values.iter() {
            total.rx_packets += value.rx_packets;
            total.rx_bytes += value.rx_bytes;
            total.tx_packets += value.tx_packets;
            total.tx_bytes += value.tx_bytes;
            total.lost += value.lost;
        }
        total
    }

    /// Switches the fast path on or off, as an operator wishes, whatever else changes.
    pub fn switch(&self, on: bool) {
        self.gate
            .word(GATE_SUSPENDED)
            .store(u32::from(!on), Ordering::Release);
    }

    /// Whether an operator lets it work.
    pub fn is_on(&self) -> bool {
        self.gate.word(GATE_SUSPENDED).load(Ordering::Acquire) == 0
    }
}

impl FastPorts {
    /// Says whether packets that arrive on a port may take the fast path, and whether packets may be
    /// sent by it on that way.
    pub fn open(&self, port: PortId, arriving: bool, leaving: bool) {
        self.change(port, PORT_IN, arriving);
        self.change(port, PORT_OUT, leaving);
    }

    /// What [`FastPorts::open`] said last.
    pub fn is_open(&self, port: PortId) -> (bool, bool) {
        if usize::from(port.0) >= PORTS {
            return (false, false);
        }
        let flags = self.0.word(flags_at(port)).load(Ordering::Acquire);
        (flags & PORT_IN != 0, flags & PORT_OUT != 0)
    }

    /// While a port is captured, what arrives on it and what leaves by it goes through the workers.
    pub fn set_captured(&self, port: PortId, captured: bool) {
        self.change(port, PORT_CAPTURED, captured);
    }

    fn change(&self, port: PortId, flag: u32, on: bool) {
        if usize::from(port.0) >= PORTS {
            return;
        }
        let flags = self.0.word(flags_at(port));
        if on {
            flags.fetch_or(flag, Ordering::AcqRel);
        } else {
            flags.fetch_and(!flag, Ordering::AcqRel);
        }
    }
}

/// CPUs that the program may run on: each counts, and gives outer identifications, by itself.
pub fn cpus() -> usize {
    nr_cpus().unwrap_or(1)
}

fn mapped_address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

const fn flags_at(port: PortId) -> usize {
    port.0 as usize * PORT_SIZE
}

fn mapped(ebpf: &Ebpf, name: &str, length: usize) -> Result<Mapped, PortError> {
    let map: Result<&MapData, _> = match ebpf.map(name) {
        Some(Map::Array(map)) => Ok(map),
        _ => Err(no_map(name)),
    };
    Mapped::new(std::os::fd::AsFd::as_fd(map?.fd()), length)
        .map_err(|error| refused(format!("map '{name}' cannot be shared: {error}")))
}

fn no_map(name: &str) -> PortError {
    refused(format!("the object has no '{name}'"))
}

fn map_error(what: &str, error: &MapError) -> PortError {
    let reason = match error {
        MapError::SyscallError(call) => call.io_error.to_string(),
        other => other.to_string(),
    };
    refused(format!("cannot {what}: {reason}"))
}

fn refused(reason: String) -> PortError {
    PortError::FastPath { reason }
}
