//! AF_XDP: packets straight from a device's queue into a worker's frames.
//!
//! ```text
//!  device queue ── XDP program (steer.bpf.c) ──► socket's rx ring ──► Frame ─┐
//!       │                 │ everything else                                  ▼
//!       ▼                 ▼                                             packet path
//!  fill ring ◄─ pool   kernel                 device ◄── tx ring ◄── Frame ──┘
//!                                                │
//!                                                └──► completion ring ──► pool
//! ```
//!
//! A worker has one UMEM ([`WorkerUmem`]), whose frames are its pool, and one socket on each queue
//! that it serves. [`Steering`] is a device's, whoever serves its queues.
//!
//! To open: [`WorkerUmem::new`], [`XdpPort::open`] for each device, [`Steering::attach`], then
//! [`Steering::register`] for each queue. To close: drop the [`Steering`] first, so that packets go to
//! the kernel again, then [`XdpPort::close`].
//!
//! Native mode needs the driver's support. veth has it: the kernel switches NAPI on at our end and
//! TCP segmentation off at the peer while the program is attached, so the peer needs nothing, in
//! whichever network namespace it is. What veth refuses is a peer MTU above a page less headroom (about
//! 3500 bytes) and a peer with more transmit queues than we have receive queues.
#![allow(unsafe_code)] // Memory that the kernel shares, and xsk-rs, whose ring calls are unsafe.

pub mod fast_path;
mod queue;
mod shared;
mod steering;
mod umem;

use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

pub use self::fast_path::FastPath;
use self::queue::Queue;
pub use self::steering::{
    Role, Steering, XdpMode, XdpModeWanted, describe_program, is_own_program,
};
pub use self::umem::{Transfer, UmemOptions, WorkerUmem};
use super::netdev::{NetDevice, receive_queues};
use super::{Capabilities, Link, Port, PortError, PortId, PortStatistics, TxOutcome};
use crate::packet::{BATCH, Batch, FramePool, HEADROOM};
use crate::wire::MacAddr;

/// Entries of a ring unless configured.
pub const DEFAULT_RING_SIZE: u32 = 2048;

/// An Ethernet header and an 802.1Q tag, which an MTU does not count.
const LINK_OVERHEAD: usize = 18;

/// How often frames that are too long make a port ask for the device's MTU at most.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Receive calls without a packet between two looks at whether the device is still there.
const CHECK_EVERY: u32 = 1 << 14;

/// Which queues of which device a port serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdpOptions {
    /// The device's name.
    pub interface: String,
    /// The queues, from 0; the end is not one of them.
    pub queues: Range<u32>,
    /// Entries of each receive and transmit ring, and frames that the kernel is given to receive into
    /// at most: a power of two.
    pub ring_size: u32,
}

/// One worker's queues of a device.
pub struct XdpPort {
    id: PortId,
    interface: String,
    capabilities: Capabilities,
    /// The longest frame that the device sends, in bytes.
    longest: usize,
    queues: Vec<Queue>,
    /// The queue that the next receive call begins with.
    next: usize,
    idle: u32,
    /// When the device was last asked for its MTU because of a frame that was too long.
    asked: Option<Instant>,
}

impl XdpPort {
    /// Opens a socket on each queue. Nothing arrives before [`Steering::register`].
    ///
    /// `pool` must hold the frames that came with `umem`; the fill rings take of them what they hold,
    /// and two batches remain. The first device that is opened with `umem` must outlive the others:
    /// see [`PortError::AnchorGone`].
    pub fn open(
        id: PortId,
        options: &XdpOptions,
        umem: &WorkerUmem,
        pool: &mut FramePool,
    ) -> Result<Self, PortError> {
        let (device, address) = check_device(options, umem)?;
        let mut port = Self {
            id,
            interface: options.interface.clone(),
            capabilities: Capabilities {
                link: Link::Ethernet(address),
                mtu: device.mtu(),
                io: io_name(umem.transfer(), None),
            },
            longest: device.mtu as usize + LINK_OVERHEAD,
            queues: Vec::new(),
            next: 0,
            idle: 0,
            asked: None,
        };
        for number in options.queues.clone() {
            match Queue::open(
                &port.interface,
                device.index,
                number,
                options.ring_size,
                umem,
                pool,
            ) {
                Ok(queue) => port.queues.push(queue),
                Err(error) => {
                    port.close(umem, pool);
                    return Err(error);
                }
            }
        }
        Ok(port)
    }

    /// The socket of a queue, for [`Steering::register`]; nothing if the port does not serve it.
    pub fn socket_fd(&self, queue: u32) -> Option<RawFd> {
        self.queues
            .iter()
            .find(|q| q.number() == queue)
            .map(Queue::descriptor)
    }

    /// The queues that the port serves, each with its socket.
    pub fn sockets(&self) -> impl Iterator<Item = (u32, RawFd)> + '_ {
        self.queues
            .iter()
            .map(|queue| (queue.number(), queue.descriptor()))
    }

    /// Puts the mode that the device's steering got into the port's [`Capabilities::io`].
    pub fn set_mode(&mut self, mode: XdpMode, umem: &WorkerUmem) {
        self.capabilities.io = io_name(umem.transfer(), Some(mode));
    }

    /// Closes the sockets and gives their frames to `pool`; drop the device's [`Steering`] before.
    ///
    /// A port that is dropped instead closes its sockets too, and its frames wait for
    /// [`WorkerUmem::reclaim`]; but the first socket ever opened with `umem`, which here stays bound
    /// for the next port on its queue, must not be dropped while others are to come. With
    /// [`Transfer::ZeroCopy`] the frames are lost in any case.
    pub fn close(self, umem: &WorkerUmem, pool: &mut FramePool) {
        for queue in self.queues {
            queue.close(&self.interface, umem, pool);
        }
    }
}

impl Port for XdpPort {
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
        let mut received = 0;
        let count = self.queues.len();
        for turn in 0..count {
            let room = BATCH.saturating_sub(batch.len());
            if room == 0 {
                break;
            }
            received += self.queues[(self.next + turn) % count].receive(room, pool, batch);
        }
        self.next = (self.next + 1) % count;
        if received > 0 {
            self.idle = 0;
            return Ok(received);
        }
        self.check_device_when_idle()?;
        Ok(0)
    }

    /// All frames leave by the port's first queue, which keeps their order.
    fn tx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome {
        let queue = &mut self.queues[0];
        queue.reap(pool);
        let mut outcome = queue.transmit(self.longest, pool, batch);
        if outcome.oversized > 0 {
            self.follow_mtu();
        }
        let queue = &self.queues[0];
        if queue.is_gone() {
            outcome.failed += batch.len();
            batch.drain(..).for_each(|frame| pool.give(frame));
        }
        outcome
    }

    fn reap(&mut self, pool: &mut FramePool) {
        self.queues[0].reap(pool);
    }

    fn held(&self) -> usize {
        self.queues.iter().map(Queue::held).sum()
    }

    fn descriptors(&self) -> Vec<RawFd> {
        self.queues.iter().map(Queue::descriptor).collect()
    }

    fn statistics(&self) -> PortStatistics {
        let mut total = PortStatistics::default();
        self.queues
            .iter()
            .for_each(|queue| queue.add_statistics(&mut total));
        total
    }
}

impl XdpPort {
    /// A frame was too long: perhaps the device's MTU was raised since it was last asked for.
    #[cold]
    fn follow_mtu(&mut self) {
        let now = Instant::now();
        if self.asked.is_some_and(|asked| now - asked < ASK_EVERY) {
            return;
        }
        self.asked = Some(now);
        if let Ok(device) = NetDevice::query(&self.interface) {
            self.longest = device.mtu as usize + LINK_OVERHEAD;
            self.capabilities.mtu = device.mtu();
        }
    }

    fn check_device_when_idle(&mut self) -> io::Result<()> {
        self.idle += 1;
        if self.idle >= CHECK_EVERY {
            self.idle = 0;
            self.queues.iter_mut().for_each(Queue::check);
        }
        if self.queues.iter().any(Queue::is_gone) {
            return Err(io::Error::from_raw_os_error(libc::ENETDOWN));
        }
        Ok(())
    }
}

/// The device and its Ethernet address, if it has one and the queues that are wanted, and its packets
/// fit into a frame.
fn check_device(
    options: &XdpOptions,
    umem: &WorkerUmem,
) -> Result<(NetDevice, MacAddr), PortError> {
    let interface = &options.interface;
    let device = NetDevice::query(interface)?;
    let address = device.address.ok_or_else(|| PortError::NotEthernet {
        interface: interface.clone(),
    })?;
    if options.queues.is_empty() {
        return Err(PortError::NoQueues {
            interface: interface.clone(),
        });
    }
    let present = receive_queues(interface)?;
    if options.queues.end > present {
        let wanted = options.queues.clone();
        return Err(PortError::TooFewQueues {
            interface: interface.clone(),
            wanted,
            present,
        });
    }
    let largest = umem.frame_size() - HEADROOM - LINK_OVERHEAD;
    if device.mtu as usize > largest {
        let (interface, frame_size) = (interface.clone(), umem.frame_size());
        return Err(PortError::MtuTooLarge {
            interface,
            mtu: device.mtu,
            frame_size,
            largest,
        });
    }
    Ok((device, address))
}

fn io_name(transfer: Transfer, mode: Option<XdpMode>) -> String {
    let transfer = match transfer {
        Transfer::Copy => "copy",
        Transfer::ZeroCopy => "zero-copy",
    };
    match mode {
        Some(mode) => format!("af_xdp {mode} {transfer}"),
        None => format!("af_xdp {transfer}"),
    }
}
