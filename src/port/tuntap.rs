//! TUN and TAP: packets to and from the kernel's own stack, one system call each.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;

use nix::sched::{CloneFlags, setns};
use tun_tap::{Iface, Mode};

use super::close_on_exec::close_on_exec;
use super::netdev::{NetDevice, check_name};
use super::{Capabilities, Link, Port, PortError, PortId, PortStatistics, TxOutcome};
use crate::packet::{BATCH, Batch, FramePool};

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
}

/// What packets begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunTapKind {
    /// An IP header.
    Tun,
    /// An Ethernet header.
    Tap,
}

impl TunTapKind {
    fn name(self) -> &'static str {
        match self {
            Self::Tun => "TUN",
            Self::Tap => "TAP",
        }
    }

    fn mode(self) -> Mode {
        match self {
            Self::Tun => Mode::Tun,
            Self::Tap => Mode::Tap,
        }
    }
}

/// A TUN or TAP device.
#[derive(Debug)]
pub struct TunTapPort {
    id: PortId,
    interface: Iface,
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
        let Opened { interface, device } = open(options)?;
        let room = free_room(options, pool)?;
        let overhead = if options.kind == TunTapKind::Tap {
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
            TunTapKind::Tap => Link::Ethernet(device.address.unwrap_or_default()),
        };
        let io = options.kind.name().to_lowercase();
        let capabilities = Capabilities {
            link,
            mtu: device.mtu(),
            io,
        };
        Ok(Self {
            id,
            interface,
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
        self.interface.name()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> io::Result<usize> {
        let before = batch.len();
        while batch.len() < BATCH {
            let Some(mut frame) = pool.take() else {
                break;
            };
            let start = pool.headroom();
            let room = frame.room_from(start);
            let whole = room.len();
            match self.interface.recv(room) {
                // The driver cuts what does not fit and does not say so.
                Ok(length) if length < whole && frame.place(start..start + length) => {
                    batch.push(frame)
                }
                Ok(_) => {
                    self.statistics.rx_dropped += 1;
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

    fn tx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome {
        let mut outcome = TxOutcome::default();
        let mut done = 0;
        for frame in batch.iter() {
            match self.interface.send(frame.bytes()) {
                Ok(_) => {
                    outcome.sent += 1;
                    outcome.sent_bytes += frame.len();
                }
                Err(error) if is_transient(&error) => break,
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    outcome.oversized += 1
                }
                Err(_) => outcome.failed += 1,
            }
            done += 1;
        }
        batch.drain(..done).for_each(|frame| pool.give(frame));
        outcome
    }

    fn reap(&mut self, _pool: &mut FramePool) {}

    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.interface.as_raw_fd()]
    }

    fn statistics(&self) -> PortStatistics {
        self.statistics
    }
}

/// Whether the same call may succeed later.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    ) || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

struct Opened {
    interface: Iface,
    device: NetDevice,
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
    // Apart from TUNSETIFF, so that their errors are told apart.
    File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(driver_error)?;
    let open = || {
        let interface = Iface::without_packet_info(&options.interface, options.kind.mode())?;
        interface.set_non_blocking()?;
        close_on_exec(&interface)?;
        Ok(interface)
    };
    let interface = open().map_err(|error| device_error(options, error))?;
    let device = NetDevice::query(interface.name())?;
    Ok(Opened { interface, device })
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
