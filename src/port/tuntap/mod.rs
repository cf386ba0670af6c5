//! TUN and TAP: packets to and from the kernel's own stack.
//!
//! A TAP that another program holds, as QEMU does, is served by a packet socket instead: what that program
//! writes comes by it, with the same header.
//!
//! Where the kernel can, one system call moves a whole super-packet of one flow ([`super_packets`]);
//! where it cannot, a packet each.

mod barrier;
mod device;
mod super_packets;
mod taken_tag;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;

use nix::sched::{CloneFlags, setns};
use tun_tap::{Iface, Mode};

use self::barrier::Barrier;
use self::device::Device;
use self::super_packets::SuperPackets;
use super::close_on_exec::close_on_exec;
use super::netdev::{NetDevice, check_name};
use super::{Capabilities, Link, Port, PortError, PortId, PortStatistics, TxOutcome};
use crate::packet::{BATCH, Batch, FramePool};
use crate::wire::ethernet;

/// An Ethernet header and an 802.1Q tag, which an MTU does not count.
const LINK_OVERHEAD: usize = 18;

/// Which device, and what kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunTapOptions {
    /// The device's name. One that exists and is of the kind is taken over, as it is configured; else
    /// one is made that goes when the port is closed.
    pub interface: String,
    /// Whether packets begin with an IP or an Ethernet header.
    pub kind: TunTapKind,
    /// The network namespace (a name in /var/run/netns) that the device is in; nothing: the calling
    /// thread's.
    pub netns: Option<String>,
    /// Whether super-packets are wanted where the kernel has them.
    pub super_packets: bool,
    /// Whether this is one of several queues of the device, each of which is opened so; needs
    /// super-packets.
    pub multi_queue: bool,
}

/// What packets begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunTapKind {
    /// An IP header.
    Tun,
    /// An Ethernet header.
    Tap,
    /// An Ethernet header, on an interface that another program holds; it must be there.
    Held,
}

impl TunTapKind {
    fn name(self) -> &'static str {
        match self {
            Self::Tun => "TUN",
            Self::Tap => "TAP",
            Self::Held => "packet",
        }
    }

    fn mode(self) -> Mode {
        match self {
            Self::Tun => Mode::Tun,
            Self::Tap | Self::Held => Mode::Tap,
        }
    }

    fn is_ethernet(self) -> bool {
        self != Self::Tun
    }
}

/// How packets are moved.
#[derive(Debug)]
enum Io {
    /// One a system call.
    Plain(Iface),
    /// Many, where they are of one flow.
    SuperPackets(Box<SuperPackets>),
}

/// A TUN or TAP device.
#[derive(Debug)]
pub struct TunTapPort {
    id: PortId,
    interface: String,
    io: Io,
    capabilities: Capabilities,
    statistics: PortStatistics,
}

impl TunTapPort {
    /// Opens the device; `pool` is the one that its frames will come from, which must have a frame
    /// free. Addresses, routes and whether it is up are left as they are.
    ///
    /// The address in a TAP's [`Link::Ethernet`] is the device's, that is the kernel's end.
    pub fn open(
        id: PortId,
        options: &TunTapOptions,
        pool: &mut FramePool,
    ) -> Result<Self, PortError> {
        let Opened { opened, device } = open(options)?;
        let room = free_room(options, pool)?;
        let overhead = if options.kind.is_ethernet() {
            LINK_OVERHEAD
        } else {
            0
        };
        if device.mtu as usize + overhead > room {
            return Err(PortError::MtuTooLarge {
                interface: options.interface.clone(),
                mtu: device.mtu,
                frame_size: room + pool.headroom(),
                largest: room.saturating_sub(overhead),
            });
        }
        let link = match options.kind {
            TunTapKind::Tun => Link::Ip,
            TunTapKind::Tap | TunTapKind::Held => {
                Link::Ethernet(device.address.unwrap_or_default())
            }
        };
        let kind = options.kind.name().to_lowercase();
        let (io, description) = match opened {
            Handle::Plain(interface) => (Io::Plain(interface), kind),
            Handle::SuperPackets(device) => {
                let network = match options.kind {
                    TunTapKind::Tun => 0,
                    TunTapKind::Tap | TunTapKind::Held => ethernet::HEADER_LEN,
                };
                let io = Io::SuperPackets(Box::new(SuperPackets::new(device, network)));
                (io, format!("{kind} gso"))
            }
        };
        let capabilities = Capabilities {
            link,
            mtu: device.mtu(),
            io: description,
        };
        Ok(Self {
            id,
            interface: options.interface.clone(),
            io,
            capabilities,
            statistics: PortStatistics::default(),
        })
    }
}

impl Port for TunTapPort {
    fn id(&self) -> PortId {
        self.id
    }

    fn name(&self) -> &str {
        &self.interface
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> io::Result<usize> {
        match &mut self.io {
            Io::Plain(interface) => rx(interface, pool, batch, &mut self.statistics),
            Io::SuperPackets(io) => io.rx(pool, batch, &mut self.statistics),
        }
    }

    fn rx_costs_a_call(&self) -> bool {
        true
    }

    fn tx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome {
        match &mut self.io {
            Io::Plain(interface) => tx(interface, pool, batch),
            Io::SuperPackets(io) => io.tx(pool, batch),
        }
    }

    fn reap(&mut self, _pool: &mut FramePool) {}

    fn descriptors(&self) -> Vec<RawFd> {
        vec![match &self.io {
            Io::Plain(interface) => interface.as_raw_fd(),
            Io::SuperPackets(io) => io.device().file.as_raw_fd(),
        }]
    }

    fn statistics(&self) -> PortStatistics {
        self.statistics
    }
}

/// Receives a packet a system call.
fn rx(
    interface: &Iface,
    pool: &mut FramePool,
    batch: &mut Batch,
    statistics: &mut PortStatistics,
) -> io::Result<usize> {
    let before = batch.len();
    // What is refused counts, too: others have their turn whatever one sends.
    for _ in before..BATCH {
        let Some(mut frame) = pool.take() else {
            break;
        };
        let start = pool.headroom();
        let room = frame.room_from(start);
        let whole = room.len();
        match interface.recv(room) {
            // The driver cuts what does not fit and does not say so.
            Ok(length) if length < whole && frame.place(start..start + length) => batch.push(frame),
            Ok(_) => {
                statistics.refused.oversized += 1;
                pool.give(frame);
            }
            Err(error) => {
                pool.give(frame);
                if is_transient(&error) || batch.len() > before {
                    break;
                }
                return Err(error);
            }
        }
    }
    Ok(batch.len() - before)
}

/// Sends a packet a system call.
fn tx(interface: &Iface, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome {
    let mut outcome = TxOutcome::default();
    let mut done = 0;
    for frame in batch.iter() {
        match interface.send(frame.bytes()) {
            Ok(_) => {
                outcome.sent += 1;
                outcome.sent_bytes += frame.len();
            }
            Err(error) if is_transient(&error) => break,
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => outcome.oversized += 1,
            Err(_) => outcome.failed += 1,
        }
        done += 1;
    }
    batch.drain(..done).for_each(|frame| pool.give(frame));
    outcome
}

/// Whether the same call may succeed later.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    ) || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

struct Opened {
    opened: Handle,
    device: NetDevice,
}

enum Handle {
    Plain(Iface),
    SuperPackets(Device),
}

/// Opens the device where it is. A thread enters the namespace, as it is a thread's property; the
/// descriptor stays with the device when the thread has ended.
fn open(options: &TunTapOptions) -> Result<Opened, PortError> {
    check_name(&options.interface)?;
    let Some(name) = &options.netns else {
        return open_here(options);
    };
    let failed = |source| PortError::Namespace {
        name: name.clone(),
        source,
    };
    let opened = thread::scope(|scope| {
        let opener = scope.spawn(|| {
            enter(name).map_err(failed)?;
            open_here(options)
        });
        opener.join()
    });
    opened.unwrap_or_else(|_| {
        Err(failed(io::Error::other(
            "the thread that enters it panicked",
        )))
    })
}

fn enter(namespace: &str) -> io::Result<()> {
    if namespace.is_empty() || namespace.contains('/') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let file = File::open(format!("/var/run/netns/{namespace}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

fn open_here(options: &TunTapOptions) -> Result<Opened, PortError> {
    if options.kind == TunTapKind::Held {
        return open_held(options);
    }
    // Apart from TUNSETIFF, so that their errors are told apart.
    File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(driver_error)?;
    let failed = |error| device_error(options, error);
    let opened = match with_super_packets(options) {
        Ok(device) => Handle::SuperPackets(device),
        Err(error) if options.multi_queue => return Err(failed(error)),
        Err(_) => Handle::Plain(open_plain(options).map_err(failed)?),
    };
    let device = NetDevice::query(&options.interface)?;
    Ok(Opened { opened, device })
}

/// An interface that another program holds: the kernel's stack gets nothing of it any more.
fn open_held(options: &TunTapOptions) -> Result<Opened, PortError> {
    let device = NetDevice::query(&options.interface)?;
    if device.address.is_none() {
        return Err(PortError::NotEthernet {
            interface: options.interface.clone(),
        });
    }
    let barrier = Barrier::attach(&options.interface)?;
    let held = Device::open_held(device.index, barrier);
    let held = held.map_err(|source| PortError::TunTap {
        interface: options.interface.clone(),
        kind: options.kind.name(),
        source,
    })?;
    Ok(Opened {
        opened: Handle::SuperPackets(held),
        device,
    })
}

/// The device with super-packets, if they are wanted and the kernel has them. What is wrong with the
/// device itself shows when it is opened without.
fn with_super_packets(options: &TunTapOptions) -> io::Result<Device> {
    if !options.super_packets {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let opened = Device::open(&options.interface, options.kind, options.multi_queue);
    opened.inspect_err(|error| log::debug!("{}: no super-packets: {error}", options.interface))
}

fn open_plain(options: &TunTapOptions) -> io::Result<Iface> {
    let interface = Iface::without_packet_info(&options.interface, options.kind.mode())?;
    interface.set_non_blocking()?;
    close_on_exec(&interface)?;
    Ok(interface)
}

fn driver_error(source: io::Error) -> PortError {
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => PortError::NoPermission {
            what: "to open /dev/net/tun".to_owned(),
        },
        _ => PortError::NoTunDriver { source },
    }
}

fn device_error(options: &TunTapOptions, source: io::Error) -> PortError {
    let (interface, kind) = (options.interface.clone(), options.kind.name());
    match source.raw_os_error() {
        Some(libc::EBUSY) => PortError::DeviceBusy { interface },
        Some(libc::EINVAL | libc::EEXIST) => PortError::DeviceKind {
            interface,
            wanted: kind,
        },
        Some(libc::EPERM | libc::EACCES) => PortError::NoPermission {
            what: format!("to open {kind} device '{interface}'"),
        },
        _ => PortError::TunTap {
            interface,
            kind,
            source,
        },
    }
}

/// Bytes that a packet can have in a frame of `pool`.
fn free_room(options: &TunTapOptions, pool: &mut FramePool) -> Result<usize, PortError> {
    let Some(frame) = pool.take() else {
        return Err(PortError::PoolTooSmall {
            interface: options.interface.clone(),
            available: 0,
            needed: 1,
        });
    };
    // One byte less than the buffer, by which `rx` knows that nothing was cut.
    let room = frame.capacity().saturating_sub(pool.headroom() + 1);
    pool.give(frame);
    Ok(room)
}
