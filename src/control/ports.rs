//! The node's ports: opened in one place, shared out among the workers.
//!
//! Ports have numbers, 0 for the uplink; those of interfaces that are not there yet, or come and go, are set
//! aside at the start, each with the worker that will serve it, and so are the frames that they will need:
//! [`super::plugs`] opens and closes them.
//!
//! The uplink's queues go to all workers in turn; every other port has one worker. A worker's first
//! AF_XDP socket is on the uplink, which is the device that lives longest.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::plugs::{Plugs, place};
use crate::forward::{BridgeId, PortConfig, PortRole, WorkloadSources};
use crate::kernel::{Mirror, veth};
use crate::packet::{BATCH, FramePool, HEADROOM};
use crate::port::capture::{CaptureSwitch, Captured};
use crate::port::socket::{SocketKind, SocketPort};
use crate::port::tuntap::{TunTapKind, TunTapOptions, TunTapPort};
use crate::port::xdp::{
    DEFAULT_RING_SIZE, Role, Steering, UmemOptions, WorkerUmem, XdpModeWanted, XdpOptions, XdpPort,
};
use crate::port::{Link, Port, PortError, PortId, receive_queues};
use crate::resources::config::{Io, PortKind, WorkloadPort};
use crate::resources::{Fault, NodeConfig, Problem};
use crate::wire::{MacAddr, Mtu, ethernet};

/// What one worker moves packets with.
pub struct WorkerPorts {
    /// Its free frames.
    pub pool: FramePool,
    /// Its ports.
    pub ports: Vec<Box<dyn Port>>,
    /// Frames of its memory that the control side keeps, for ports to be opened.
    pub reserve: FramePool,
    pub(super) umem: WorkerUmem,
}

/// All ports of a node, open.
pub struct OpenPorts {
    /// By worker.
    pub workers: Vec<WorkerPorts>,
    /// By port number, for the packet path.
    pub configs: Vec<PortConfig>,
    /// By port number, for people; none for a port that is not open.
    pub descriptions: Vec<Option<Description>>,
    /// By port number: the worker that alone serves it; none for the uplink, which all serve.
    pub owners: Vec<Option<usize>>,
    /// The port of each workload interface that is routed and open at the start.
    pub workload_ports: BTreeMap<String, PortId>,
    /// The port of each workload interface that is in a bridge, open or not.
    pub bridge_ports: BTreeMap<String, PortId>,
    /// Workload ports that come and go.
    pub plugs: Plugs,
    /// The uplink's own Ethernet address.
    pub uplink_mac: MacAddr,
    /// The uplink's number in the kernel: another one is another interface.
    pub uplink_index: u32,
    /// The uplink's XDP program.
    pub uplink_steering: Steering,
    /// The largest packet that every worker's frames hold, link header not counted.
    pub largest: Mtu,
    /// Under which ports can be captured.
    pub(super) switch: CaptureSwitch,
}

/// A port as people know it.
#[derive(Debug, Clone)]
pub struct Description {
    /// The name in the configuration.
    pub name: String,
    /// The device's own name, which differs for devices in other namespaces.
    pub device: String,
    /// What is behind it.
    pub role: PortRole,
    /// How its frames are moved.
    pub io: String,
    /// Whether the device is in this network namespace, where the kernel's word on its MTU counts.
    pub local: bool,
    /// The MTU when it was opened.
    pub mtu: Mtu,
}

/// Frames for Ethernet's ordinary 1500 bytes.
const SMALL_FRAME: u32 = 2048;

/// The largest frames that AF_XDP has: a page.
const LARGE_FRAME: u32 = 4096;

/// An 802.1Q tag.
const VLAN_TAG: usize = 4;

/// Entries of the rings of a port that is opened at run time, and so the frames reserved for it.
pub(super) const PLUGGED_RING: u32 = 512;

/// Frames beyond those that opening a port wants to see left.
const RESERVE: u32 = 4 * BATCH as u32;

/// The uplink's number.
pub const UPLINK: PortId = PortId(0);

/// Opens every port of the configuration and attaches the XDP programs; nothing is steered yet. What
/// cannot be opened is a problem of the field that names it.
pub fn open(
    config: &NodeConfig,
    mirror: &Mirror,
    switch: &CaptureSwitch,
) -> Result<OpenPorts, Problem> {
    let of = |field: String| {
        move |error: PortError| config.problem(Fault::new(field, error.to_string(), ""))
    };
    let uplink = || of("uplink.interface".to_owned());
    let queues = uplink_queues(config).map_err(uplink())?;
    let memory = workload_queues(config, mirror)
        .map_err(|(index, error)| of(workload_field(config, index))(error))
        .and_then(|own| {
            open_memory(config, mirror, &queues, &own).map_err(of("workers".to_owned()))
        })?;
    let mut opening = Opening {
        mirror,
        switch,
        workers: memory,
        configs: Vec::new(),
        descriptions: Vec::new(),
        owners: Vec::new(),
        workload_ports: BTreeMap::new(),
        bridge_ports: BTreeMap::new(),
        plugs: Plugs::new(config),
    };
    let (uplink_mac, uplink_steering) = opening.uplink(config, queues).map_err(uplink())?;
    for (index, port) in config.workloads.iter().enumerate() {
        let bridge = config.bridge_of(&port.interface);
        let role = bridge.map_or(PortRole::Workload, |index| {
            PortRole::Bridge(BridgeId(index as u16))
        });
        let opened = opening.workload(index, port, role);
        opened.map_err(of(workload_field(config, index)))?;
    }
    if let Some(host) = &config.host {
        let opened = opening.host(&host.tun.to_string());
        opened.map_err(of("host.tun".to_owned()))?;
    }
    if let Some(interfaces) = &config.workload_interfaces {
        (0..interfaces.max).for_each(|_| opening.set_aside());
    }
    Ok(OpenPorts {
        workers: opening.workers,
        configs: opening.configs,
        descriptions: opening.descriptions,
        owners: opening.owners,
        workload_ports: opening.workload_ports,
        bridge_ports: opening.bridge_ports,
        plugs: opening.plugs,
        uplink_mac,
        uplink_index: mirror
            .link_named(config.uplink.interface.as_str())
            .map_or(0, |link| link.index),
        uplink_steering,
        largest: largest_packet(frame_size(config, mirror)),
        switch: switch.clone(),
    })
}

impl WorkerPorts {
    /// How many frames its memory has.
    pub fn frames(&self) -> usize {
        self.umem.frames()
    }
}

impl OpenPorts {
    /// The host's port, if the node has one.
    pub fn host(&self) -> Option<PortId> {
        let host = self.configs.iter().find(|port| port.role == PortRole::Host);
        host.map(|port| port.id)
    }
}

struct Opening<'a> {
    mirror: &'a Mirror,
    switch: &'a CaptureSwitch,
    workers: Vec<WorkerPorts>,
    configs: Vec<PortConfig>,
    descriptions: Vec<Option<Description>>,
    owners: Vec<Option<usize>>,
    workload_ports: BTreeMap<String, PortId>,
    bridge_ports: BTreeMap<String, PortId>,
    plugs: Plugs,
}

impl Opening<'_> {
    /// Opens the uplink's queues, each worker's share by that worker.
    fn uplink(
        &mut self,
        config: &NodeConfig,
        shares: Vec<Range<u32>>,
    ) -> Result<(MacAddr, Steering), PortError> {
        let interface = config.uplink.interface.to_string();
        let mut sockets = Vec::new();
        let mut ports = Vec::new();
        for (worker, queues) in shares.into_iter().enumerate() {
            let port = self.open_xdp(worker, UPLINK, &interface, queues)?;
            sockets.extend(port.sockets());
            ports.push((worker, port));
        }
        let steering = self.steer(&interface, Role::Uplink, config.uplink.io, &sockets)?;
        let mac = self.describe(&interface, &interface, PortRole::Uplink, &ports[0].1, None);
        for (worker, mut port) in ports {
            port.set_mode(steering.mode(), &self.workers[worker].umem);
            if let Some(Some(uplink)) = self.descriptions.first_mut() {
                uplink.io.clone_from(&port.capabilities().io);
            }
            self.keep(worker, Box::new(port));
        }
        Ok((mac, steering))
    }

    /// Opens a workload's port; the workers take turns.
    fn workload(
        &mut self,
        index: usize,
        config: &WorkloadPort,
        role: PortRole,
    ) -> Result<(), PortError> {
        let id = self.next_id();
        let worker = index % self.workers.len();
        let name = config.interface.to_string();
        let device = config
            .device
            .as_ref()
            .unwrap_or(&config.interface)
            .to_string();
        self.plugs.numbered(&name, id, role);
        if let PortRole::Bridge(_) = role {
            self.bridge_ports.insert(name.clone(), id);
        }
        if !config.kind.is_made() && place(config, self.mirror).is_none() {
            log::warn!("port {name} is not there yet");
            self.comes_later(id, worker);
            return Ok(());
        }
        if role == PortRole::Workload {
            self.workload_ports.insert(name.clone(), id);
        }
        let (mut frames, mut steering) = (0, None);
        let port: Box<dyn Port> = match config.kind {
            PortKind::Xdp => {
                let queues = 0..receive_queues(&device)?;
                let mut port = self.open_xdp(worker, id, &device, queues)?;
                let sockets: Vec<_> = port.sockets().collect();
                let io = config.io.unwrap_or_default();
                let attached = self.steer(&device, Role::Workload, io, &sockets)?;
                port.set_mode(attached.mode(), &self.workers[worker].umem);
                (frames, steering) = (port.held(), Some(attached));
                Box::new(port)
            }
            PortKind::Stream | PortKind::Dgram => Box::new(open_socket(id, config)?),
            PortKind::Packet => Box::new(open_held(id, config, &mut self.workers[worker].pool)?),
            PortKind::Tun | PortKind::Tap => {
                let options = TunTapOptions {
                    interface: device.clone(),
                    kind: match config.kind {
                        PortKind::Tap => TunTapKind::Tap,
                        _ => TunTapKind::Tun,
                    },
                    netns: config.netns.clone(),
                    super_packets: true,
                    multi_queue: false,
                };
                let pool = &mut self.workers[worker].pool;
                Box::new(TunTapPort::open(id, &options, pool)?)
            }
        };
        self.describe(&name, &device, role, &*port, Some(worker));
        if let Some(Some(description)) = self.descriptions.last_mut() {
            description.local = config.netns.is_none() && !config.kind.is_socket();
        }
        if !config.kind.is_made() {
            self.plugs
                .opened_at_start(&name, id, self.mirror, frames, steering);
        }
        self.keep(worker, port);
        Ok(())
    }

    /// Opens the TUN device to the host's own kernel: a queue for each worker, so that none hands
    /// packets over, or one where the kernel refuses that.
    fn host(&mut self, tun: &str) -> Result<(), PortError> {
        let id = self.next_id();
        let options = |multi_queue| TunTapOptions {
            interface: tun.to_owned(),
            kind: TunTapKind::Tun,
            netns: None,
            super_packets: true,
            multi_queue,
        };
        let several = if self.workers.len() > 1 {
            let queues = self.workers.iter_mut();
            let opened = queues.map(|own| TunTapPort::open(id, &options(true), &mut own.pool));
            opened
                .collect::<Result<Vec<_>, _>>()
                .inspect_err(|error| log::info!("{tun}: one queue for all workers: {error}"))
                .ok()
        } else {
            None
        };
        let (owner, ports) = match several {
            Some(ports) => (None, ports),
            None => {
                let own = &mut self.workers[0].pool;
                let port = TunTapPort::open(id, &options(false), own)?;
                (Some(0), vec![port])
            }
        };
        self.describe(tun, tun, PortRole::Host, &ports[0], owner);
        for (worker, port) in ports.into_iter().enumerate() {
            self.keep(worker, Box::new(port));
        }
        Ok(())
    }

    fn open_xdp(
        &mut self,
        worker: usize,
        id: PortId,
        interface: &str,
        queues: Range<u32>,
    ) -> Result<XdpPort, PortError> {
        let options = XdpOptions {
            interface: interface.to_owned(),
            queues,
            ring_size: DEFAULT_RING_SIZE,
        };
        let WorkerPorts { pool, umem, .. } = &mut self.workers[worker];
        XdpPort::open(id, &options, umem, pool)
    }

    fn steer(
        &self,
        interface: &str,
        role: Role,
        io: Io,
        sockets: &[(u32, i32)],
    ) -> Result<Steering, PortError> {
        steer(self.mirror, interface, role, io, sockets)
    }

    /// Sets a number aside for a workload's port that is opened later; the workers take turns.
    fn set_aside(&mut self) {
        let id = self.next_id();
        self.comes_later(id, usize::from(id.0) % self.workers.len());
        self.plugs.set_aside(id);
    }

    fn comes_later(&mut self, id: PortId, owner: usize) {
        self.configs.push(PortConfig::closed(id));
        self.descriptions.push(None);
        self.owners.push(Some(owner));
    }

    fn describe(
        &mut self,
        name: &str,
        device: &str,
        role: PortRole,
        port: &dyn Port,
        owner: Option<usize>,
    ) -> MacAddr {
        let capabilities = port.capabilities();
        let id = self.next_id();
        self.configs.push(PortConfig {
            id,
            role,
            link: capabilities.link,
            sources: WorkloadSources::default(),
            partial_checksums: role != PortRole::Host && may_leave_checksums(self.mirror, device),
        });
        self.descriptions.push(Some(Description {
            name: name.to_owned(),
            device: device.to_owned(),
            role,
            io: capabilities.io.clone(),
            local: true,
            mtu: capabilities.mtu,
        }));
        self.owners.push(owner);
        match capabilities.link {
            Link::Ethernet(mac) => mac,
            Link::Ip => MacAddr::default(),
        }
    }

    fn keep(&mut self, worker: usize, port: Box<dyn Port>) {
        let described = self.descriptions.get(usize::from(port.id().0));
        let name = described
            .and_then(Option::as_ref)
            .map_or_else(|| port.name().to_owned(), |port| port.name.clone());
        let captured = Captured::named(port, name, self.switch);
        self.workers[worker].ports.push(Box::new(captured));
    }

    fn next_id(&self) -> PortId {
        PortId(self.configs.len() as u16)
    }
}

/// Opens a unix socket for a workload.
pub(super) fn open_socket(id: PortId, port: &WorkloadPort) -> Result<SocketPort, PortError> {
    let kind = match port.kind {
        PortKind::Dgram => SocketKind::Datagram,
        _ => SocketKind::Stream,
    };
    let path = port.socket.as_deref().unwrap_or(Path::new(""));
    SocketPort::open(id, &port.interface.to_string(), kind, path)
}

/// Opens a packet socket on a device that another program holds.
pub(super) fn open_held(
    id: PortId,
    port: &WorkloadPort,
    pool: &mut FramePool,
) -> Result<TunTapPort, PortError> {
    let options = TunTapOptions {
        interface: port.interface.to_string(),
        kind: TunTapKind::Held,
        netns: None,
        super_packets: true,
        multi_queue: false,
    };
    TunTapPort::open(id, &options, pool)
}

/// Attaches a device's XDP program, which steers each queue's packets to its socket.
pub(super) fn steer(
    mirror: &Mirror,
    interface: &str,
    role: Role,
    io: Io,
    sockets: &[(u32, i32)],
) -> Result<Steering, PortError> {
    let wanted = match io {
        Io::Auto => XdpModeWanted::Auto,
        Io::Native => XdpModeWanted::Native,
        Io::Generic => XdpModeWanted::Generic,
    };
    let mut steering = Steering::attach(interface, role, wanted)?;
    for (queue, socket) in sockets {
        steering.register(*queue, *socket)?;
    }
    finish_checksums(mirror, interface);
    Ok(steering)
}

/// Has a veth's far end finish its packets, if it can be reached: AF_XDP hands on what it leaves
/// undone, checksums and segmentation alike. Where it cannot, the packet path completes checksums.
fn finish_checksums(mirror: &Mirror, interface: &str) {
    let Some(link) = mirror.link_named(interface) else {
        return;
    };
    match veth::disable_peer_tx_offloads(link) {
        Ok(Some(features)) if !features.is_empty() => {
            log::info!(
                "{interface}: switched off at its veth peer: {}",
                features.join(", ")
            );
        }
        Ok(_) => {}
        Err(error) => log::warn!("{interface}: its veth peer keeps its offloads: {error}"),
    }
}

/// Whether senders behind a device may leave checksums to it: those of virtual devices do, and a
/// device that we cannot see may be one.
pub(super) fn may_leave_checksums(mirror: &Mirror, device: &str) -> bool {
    mirror
        .link_named(device)
        .is_none_or(|link| link.kind.is_some())
}

/// Which of the uplink's queues each worker serves.
fn uplink_queues(config: &NodeConfig) -> Result<Vec<Range<u32>>, PortError> {
    let interface = config.uplink.interface.to_string();
    let present = receive_queues(&interface)?;
    let served = config.uplink_queues(present);
    if served < present as usize {
        log::warn!(
            "{interface}: of its {present} receive queues {served} are served; what arrives on the \
             others goes to the kernel and is not forwarded; leave uplink.queues out, or have the \
             device use fewer (ethtool -L {interface} combined {served})"
        );
    }
    Ok(shares(served, config.worker_count()))
}

/// How many queues each workload's port has to serve, none if it comes later; the failing one by its place in
/// the list.
fn workload_queues(config: &NodeConfig, mirror: &Mirror) -> Result<Vec<u32>, (usize, PortError)> {
    let queues = |(index, port): (usize, &WorkloadPort)| match port.kind {
        PortKind::Xdp if place(port, mirror).is_some() => {
            receive_queues(&port.interface.to_string()).map_err(|error| (index, error))
        }
        _ => Ok(0),
    };
    config.workloads.iter().enumerate().map(queues).collect()
}

/// The field that says which device a workload's port is.
fn workload_field(config: &NodeConfig, index: usize) -> String {
    let port = &config.workloads[index];
    let field = if port.device.is_some() {
        "device"
    } else {
        "interface"
    };
    format!("workloads[{index}].{field}")
}

/// Every worker's packet memory: enough for the queues that it will serve.
fn open_memory(
    config: &NodeConfig,
    mirror: &Mirror,
    uplink: &[Range<u32>],
    workloads: &[u32],
) -> Result<Vec<WorkerPorts>, PortError> {
    memory_options(config, mirror, uplink, workloads)
        .enumerate()
        .map(|(worker, options)| {
            let reserved = reserved_frames(config, mirror, worker);
            let (umem, mut frames) = WorkerUmem::new(&options)?;
            let kept = frames.split_off(frames.len() - reserved as usize);
            Ok(WorkerPorts {
                pool: FramePool::new(frames, HEADROOM),
                ports: Vec::new(),
                reserve: FramePool::new(kept, HEADROOM),
                umem,
            })
        })
        .collect()
}

fn memory_options(
    config: &NodeConfig,
    mirror: &Mirror,
    uplink: &[Range<u32>],
    workloads: &[u32],
) -> impl Iterator<Item = UmemOptions> {
    let count = config.worker_count();
    let frame_size = frame_size(config, mirror);
    uplink.iter().enumerate().map(move |(worker, uplink)| {
        let own: u32 = workloads.iter().skip(worker).step_by(count).sum();
        let mut options = UmemOptions::for_queues(uplink.len() as u32 + own);
        let reserved = reserved_frames(config, mirror, worker);
        options.frames = options.frames.max(config.workers.frames) + reserved;
        options.frame_size = frame_size;
        options
    })
}

/// Bytes of memory that a node locks for its packets; of devices that are not there, none.
pub fn packet_memory(config: &NodeConfig, mirror: &Mirror) -> u64 {
    let queues = |interface: String| receive_queues(&interface).unwrap_or(0);
    let uplink = config.uplink_queues(queues(config.uplink.interface.to_string()));
    let ports = config.workloads.iter();
    let ports = ports.filter(|port| port.kind == PortKind::Xdp);
    let workloads: Vec<u32> = ports
        .map(|port| queues(port.interface.to_string()))
        .collect();
    let uplink = shares(uplink, config.worker_count());
    memory_options(config, mirror, &uplink, &workloads)
        .map(|options| u64::from(options.frames) * u64::from(options.frame_size))
        .sum()
}

/// Frames that a worker's share of the ports that come later needs.
fn reserved_frames(config: &NodeConfig, mirror: &Mirror, worker: usize) -> u32 {
    let count = config.worker_count();
    let automatic = config.workload_interfaces.as_ref();
    let automatic = automatic.map_or(0, |interfaces| interfaces.max.div_ceil(count));
    let own = config.workloads.iter().skip(worker).step_by(count);
    let (mut later, mut held) = (automatic as u32, false);
    for port in own {
        later += u32::from(port.kind == PortKind::Xdp && place(port, mirror).is_none());
        held |= port.kind == PortKind::Packet;
    }
    // A packet port wants to see one, to know how large it is.
    let reserve = if later > 0 { RESERVE } else { u32::from(held) };
    later * PLUGGED_RING + reserve
}

/// Small frames where every device's packets fit into them, else the largest there are: opening a
/// port refuses what does not fit into those either.
fn frame_size(config: &NodeConfig, mirror: &Mirror) -> u32 {
    let workloads = config
        .workloads
        .iter()
        .map(|port| port.device.as_ref().unwrap_or(&port.interface));
    let small = std::iter::once(&config.uplink.interface)
        .chain(workloads)
        .filter_map(|name| mirror.link_named(&name.to_string()))
        .all(|link| link.mtu <= largest_packet(SMALL_FRAME));
    if small { SMALL_FRAME } else { LARGE_FRAME }
}

/// The largest MTU of an AF_XDP port.
pub const LARGEST_MTU: Mtu = largest_packet(LARGE_FRAME);

/// The largest packet that fits behind the headroom and a link header with an 802.1Q tag.
const fn largest_packet(frame_size: u32) -> Mtu {
    Mtu((frame_size as usize - HEADROOM - ethernet::HEADER_LEN - VLAN_TAG) as u16)
}

/// `queues` queues shared out among `workers` workers, each a run of its own; the first get one more
/// where it does not come out even.
fn shares(queues: usize, workers: usize) -> Vec<Range<u32>> {
    let mut start = 0;
    (0..workers)
        .map(|worker| {
            let length = queues / workers + usize::from(worker < queues % workers);
            let share = start as u32..(start + length) as u32;
            start += length;
            share
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_has_one_worker() {
        assert_eq!(shares(1, 2), [0..1, 1..1]);
        assert_eq!(shares(5, 2), [0..3, 3..5]);
        assert_eq!(shares(2, 2), [0..1, 1..2]);
    }
}
