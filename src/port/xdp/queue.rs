//! One queue of a device: its AF_XDP socket and four rings.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::SocketError};
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, SocketConfig};
use xsk_rs::socket::{RxQueue, Socket, SocketCreateError, TxQueue};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::umem::{CompQueue, FillQueue};

use super::umem::{Anchor, HeldChunks, Transfer, WorkerUmem, ring_size};
use crate::packet::{BATCH, Batch, Frame, FramePool, HEADROOM};
use crate::port::close_on_exec::close_on_exec;
use crate::port::{PortError, PortStatistics, TxOutcome};

/// Frames that stocking a fill ring leaves in the pool, so that sending never starves.
const POOL_RESERVE: usize = 2 * BATCH;

/// Packets that one system call sends at most, where the kernel lets us choose (Linux 6.17).
const TX_BUDGET: u32 = 256;

/// How often, and with what pauses, a busy queue is tried again: a quarter of a second in all.
const BUSY_TRIES: usize = 25;
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// One queue's socket and rings, and the chunks that the kernel holds through them.
pub(super) struct Queue {
    // Rings before chunks: nothing of the socket is left when `held` goes.
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    held: HeldChunks,
    device_index: u32,
    number: u32,
    /// Entries of the transmit ring.
    entries: u32,
    /// Chunks that the kernel has to receive into.
    stocked: u32,
    /// Chunks that it is given at most.
    depth: u32,
    /// Whether the transmit ring may hold frames that the kernel has not looked at.
    unsent: bool,
    /// Whether the device was found to be gone.
    gone: bool,
    descriptors: Box<[FrameDesc; BATCH]>,
}

impl Queue {
    /// Binds a socket to queue `number` of the device, and stocks its fill ring from `pool`.
    pub(super) fn open(
        interface: &str,
        device_index: u32,
        number: u32,
        entries: u32,
        umem: &WorkerUmem,
        pool: &mut FramePool,
    ) -> Result<Self, PortError> {
        check_pool(interface, pool)?;
        let mut anchor = umem.anchor();
        if let Some(mut queue) = unpark(&mut anchor, device_index, number) {
            queue.stock(pool);
            return Ok(queue);
        }
        let mut queue = Self::bind_patiently(interface, device_index, number, entries, umem)
            .map_err(|error| with_anchor(error, &anchor))?;
        if matches!(*anchor, Anchor::None) {
            *anchor = Anchor::InUse {
                interface: interface.to_owned(),
                index: device_index,
                queue: number,
            };
        }
        drop(anchor);
        queue.stock(pool);
        Ok(queue)
    }

    /// The kernel frees the queue of a socket that was closed, or whose process was killed, a moment
    /// later.
    fn bind_patiently(
        interface: &str,
        device_index: u32,
        number: u32,
        entries: u32,
        umem: &WorkerUmem,
    ) -> Result<Self, PortError> {
        for _ in 0..BUSY_TRIES {
            match Self::bind(interface, device_index, number, entries, umem) {
                Err(PortError::QueueBusy { .. }) => thread::sleep(BUSY_WAIT),
                result => return result,
            }
        }
        Self::bind(interface, device_index, number, entries, umem)
    }

    fn bind(
        interface: &str,
        device_index: u32,
        number: u32,
        entries: u32,
        umem: &WorkerUmem,
    ) -> Result<Self, PortError> {
        let name: Interface = interface.parse().map_err(|_| PortError::InvalidName {
            name: interface.to_owned(),
        })?;
        let config = socket_config(umem.transfer(), entries)?;
        // SAFETY: the flag that the contract asks for, XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD, is set.
        let created = unsafe { Socket::new(config, umem.umem(), &name, number) };
        let (tx, rx, rings) = created.map_err(|error| socket_error(interface, number, &error))?;
        // No rings: this very memory is bound to the queue already.
        let (fill, completion) = rings.ok_or_else(|| PortError::QueueBusy {
            interface: interface.to_owned(),
            queue: number,
        })?;
        if let Err(error) = close_on_exec(tx.fd()) {
            log::debug!("{interface}: queue {number} may be inherited: {error}");
        }
        raise_tx_budget(tx.fd().as_raw_fd(), TX_BUDGET.min(entries));
        Ok(Self {
            rx,
            tx,
            fill,
            completion,
            held: umem.held_chunks(),
            device_index,
            number,
            entries,
            stocked: 0,
            depth: umem.ring_size().min(entries),
            unsent: false,
            gone: false,
            descriptors: Box::new([FrameDesc::default(); BATCH]),
        })
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.rx.fd().as_raw_fd()
    }

    /// Frames that the kernel holds, to receive into or to send.
    pub(super) fn held(&self) -> usize {
        self.held.count()
    }

    /// Appends at most `limit` received frames, and says how many.
    pub(super) fn receive(
        &mut self,
        limit: usize,
        pool: &mut FramePool,
        batch: &mut Batch,
    ) -> usize {
        let limit = limit.min(BATCH);
        // SAFETY: the ring and `held` are of the same UMEM.
        let count = unsafe { self.rx.consume(&mut self.descriptors[..limit]) };
        let mut appended = 0;
        for descriptor in &self.descriptors[..count] {
            self.stocked = self.stocked.saturating_sub(1);
            let Some(mut frame) = self.held.take_back(descriptor.addr()) else {
                continue;
            };
            let start = self.held.offset(descriptor.addr());
            if frame.place(start..start + descriptor.lengths().data()) {
                batch.push(frame);
                appended += 1;
            } else {
                pool.give(frame);
            }
        }
        self.stock(pool);
        appended
    }

    /// Gives the kernel frames to receive into, as many as it takes and the pool can spare.
    pub(super) fn stock(&mut self, pool: &mut FramePool) {
        let mut missing = self.depth - self.stocked;
        // A few at a time are not worth a look at the shared ring, but for an almost empty one.
        while missing >= BATCH as u32 || missing > self.depth / 2 {
            let free = self.fill.nb_free(BATCH as u32);
            let spare = pool.available().saturating_sub(POOL_RESERVE);
            let wanted = (missing.min(free) as usize).min(spare).min(BATCH);
            let mut count = 0;
            while count < wanted {
                let Some(frame) = self.take_own(pool) else {
                    break;
                };
                match self.held.lend(frame) {
                    Ok(descriptor) => self.descriptors[count] = descriptor,
                    Err(frame) => {
                        pool.give(frame);
                        break;
                    }
                }
                count += 1;
            }
            if count == 0 {
                break;
            }
            // SAFETY: `lend` ended the frames of these chunks, which are of this ring's UMEM.
            let produced = unsafe { self.fill.produce(&self.descriptors[..count]) };
            self.return_unproduced(produced, count, pool);
            self.stocked += produced as u32;
            missing = self.depth - self.stocked;
            if produced < count {
                break;
            }
        }
        if self.fill.needs_wakeup() {
            // Only a driver that does zero-copy asks for this, and it is told by poll; a failure
            // means that the device is down or gone, which `rx` reports.
            let _ = self.rx.poll(0);
        }
    }

    /// Sends frames from the front of `batch`.
    pub(super) fn transmit(
        &mut self,
        longest: usize,
        pool: &mut FramePool,
        batch: &mut Batch,
    ) -> TxOutcome {
        let mut outcome = TxOutcome::default();
        while !batch.is_empty() && !self.gone {
            let limit = self.sendable(pool, batch);
            if limit == 0 {
                break;
            }
            let mut count = 0;
            for frame in batch.drain(..limit) {
                let length = frame.len();
                match self.prepare(frame, longest, pool) {
                    Ok(descriptor) => {
                        self.descriptors[count] = descriptor;
                        outcome.sent += 1;
                        outcome.sent_bytes += length;
                        count += 1;
                    }
                    Err(Refusal::Oversized) => outcome.oversized += 1,
                    Err(Refusal::Failed) => outcome.failed += 1,
                }
            }
            // SAFETY: `lend` ended the frames of these chunks, which are of this ring's UMEM.
            let produced = unsafe { self.tx.produce(&self.descriptors[..count]) };
            debug_assert_eq!(produced, count, "the ring had room");
            outcome.sent -= count - produced;
            outcome.failed += count - produced;
            self.return_unproduced(produced, count, pool);
            self.unsent |= produced > 0;
            self.gone = self.kick().is_err();
        }
        outcome
    }

    /// Takes back the frames that have been sent.
    pub(super) fn reap(&mut self, pool: &mut FramePool) {
        if self.unsent {
            self.gone = self.kick().is_err();
        }
        loop {
            // SAFETY: the ring and `held` are of the same UMEM.
            let count = unsafe { self.completion.consume(&mut self.descriptors[..]) };
            for descriptor in &self.descriptors[..count] {
                if let Some(frame) = self.held.take_back(descriptor.addr()) {
                    pool.give(frame);
                }
            }
            if count < BATCH {
                return;
            }
        }
    }

    /// Whether the device was found to be gone.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Asks the kernel whether the device is gone, which it says once: a system call.
    pub(super) fn check(&mut self) {
        // SAFETY: the descriptor is the socket's, which is open as long as `rx` is.
        let socket = unsafe { BorrowedFd::borrow_raw(self.descriptor()) };
        self.gone |= getsockopt(&socket, SocketError).is_ok_and(|error| error == libc::ENETDOWN);
    }

    /// Adds this queue's counts to `total`.
    pub(super) fn add_statistics(&self, total: &mut PortStatistics) {
        let Ok(counted) = self.rx.fd().xdp_statistics() else {
            return;
        };
        total.rx_dropped += counted.rx_dropped();
        total.rx_ring_full += counted.rx_ring_full();
        total.rx_fill_ring_empty += counted.rx_fill_ring_empty_descs();
        total.rx_invalid_descriptors += counted.rx_invalid_descs();
        total.tx_invalid_descriptors += counted.tx_invalid_descs();
    }

    /// Closes the socket and gives all its frames to `pool`.
    ///
    /// The first socket of the UMEM stays open, in the UMEM, with what is in its rings. With zero-copy
    /// the frames are given up: the driver lets go of them at a time that cannot be known.
    pub(super) fn close(mut self, interface: &str, umem: &WorkerUmem, pool: &mut FramePool) {
        self.reap(pool);
        let mut anchor = umem.anchor();
        let is_anchor = matches!(&*anchor, Anchor::InUse { index, queue, .. }
            if (*index, *queue) == (self.device_index, self.number));
        if is_anchor {
            *anchor = Anchor::Parked {
                interface: interface.to_owned(),
                queue: Box::new(self),
            };
            return;
        }
        drop(anchor);
        drop(self);
        umem.reclaim(pool);
    }

    /// How many frames from the front of `batch` can go now: there must be room in the ring, and a
    /// frame of our own for each that is not.
    fn sendable(&mut self, pool: &FramePool, batch: &Batch) -> usize {
        let most = batch.len().min(BATCH);
        let free = self.tx.nb_free(most as u32) as usize;
        let mut copies = pool.available();
        let takes = |frame: &&Frame| {
            let own = self.held.owns(frame);
            let possible = own || copies > 0;
            copies -= usize::from(!own && possible);
            possible
        };
        batch.iter().take(most.min(free)).take_while(takes).count()
    }

    /// Makes `frame` the kernel's, its packet where the kernel expects it.
    fn prepare(
        &mut self,
        frame: Frame,
        longest: usize,
        pool: &mut FramePool,
    ) -> Result<FrameDesc, Refusal> {
        let refusal = if frame.len() > longest.min(self.held.room()) {
            Some(Refusal::Oversized)
        } else if frame.len() < ETHERNET_HEADER {
            Some(Refusal::Failed)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            pool.give(frame);
            return Err(refusal);
        }
        let mut frame = if self.held.owns(&frame) {
            frame
        } else {
            self.copy(frame, pool)?
        };
        // A frame with room for its packet behind the headroom always takes it there.
        let moved = frame.move_to(HEADROOM);
        match self.held.lend(frame) {
            Ok(descriptor) if moved => Ok(descriptor),
            Ok(descriptor) => {
                pool.give(
                    self.held
                        .take_back(descriptor.addr())
                        .ok_or(Refusal::Failed)?,
                );
                Err(Refusal::Oversized)
            }
            Err(frame) => {
                pool.give(frame);
                Err(Refusal::Failed)
            }
        }
    }

    /// The packet in a frame of this memory; the foreign frame goes to the pool in its stead.
    fn copy(&self, foreign: Frame, pool: &mut FramePool) -> Result<Frame, Refusal> {
        let Some(mut own) = self.take_own(pool) else {
            pool.give(foreign);
            return Err(Refusal::Failed);
        };
        let copied = own.fill(foreign.bytes(), HEADROOM);
        pool.give(foreign);
        if copied {
            return Ok(own);
        }
        pool.give(own);
        Err(Refusal::Oversized)
    }

    /// A free frame of this memory. Foreign ones, which a worker's pool gets for those that it copied,
    /// are left in the pool.
    fn take_own(&self, pool: &mut FramePool) -> Option<Frame> {
        let frame = pool.take()?;
        if self.held.owns(&frame) {
            return Some(frame);
        }
        let mut foreign = vec![frame];
        let own = loop {
            match pool.take() {
                Some(frame) if self.held.owns(&frame) => break Some(frame),
                Some(frame) => foreign.push(frame),
                None => break None,
            }
        };
        foreign.into_iter().for_each(|frame| pool.give(frame));
        own
    }

    /// Has the kernel send what is in the ring. In copy mode one call sends a number of packets at
    /// most, so it is made again as long as it makes progress.
    fn kick(&mut self) -> io::Result<()> {
        let mut waiting = self.waiting();
        while waiting > 0 && self.tx.needs_wakeup() {
            self.tx.wakeup()?;
            let left = self.waiting();
            if left >= waiting {
                break;
            }
            waiting = left;
        }
        self.unsent = waiting > 0;
        Ok(())
    }

    /// Frames in the transmit ring that the kernel has not taken.
    fn waiting(&mut self) -> u32 {
        self.entries - self.tx.nb_free_exact().min(self.entries)
    }

    fn return_unproduced(&mut self, produced: usize, count: usize, pool: &mut FramePool) {
        for descriptor in &self.descriptors[produced..count] {
            if let Some(frame) = self.held.take_back(descriptor.addr()) {
                pool.give(frame);
            }
        }
    }
}

/// Why a frame cannot be sent.
enum Refusal {
    Oversized,
    Failed,
}

const ETHERNET_HEADER: usize = 14;

/// Before a socket is bound, as the first one of a memory stays bound.
fn check_pool(interface: &str, pool: &FramePool) -> Result<(), PortError> {
    let (available, needed) = (pool.available(), POOL_RESERVE + BATCH);
    if available >= needed {
        return Ok(());
    }
    Err(PortError::PoolTooSmall {
        interface: interface.to_owned(),
        available,
        needed,
    })
}

fn unpark(anchor: &mut Anchor, device_index: u32, number: u32) -> Option<Queue> {
    match std::mem::replace(anchor, Anchor::None) {
        Anchor::Parked { interface, queue }
            if (queue.device_index, queue.number) == (device_index, number) =>
        {
            *anchor = Anchor::InUse {
                interface,
                index: device_index,
                queue: number,
            };
            Some(*queue)
        }
        other => {
            *anchor = other;
            None
        }
    }
}

/// EBADF from bind means that the socket to join is bound no more.
fn with_anchor(error: PortError, anchor: &Anchor) -> PortError {
    let gone = matches!(&error, PortError::Socket { source, .. } if source.raw_os_error() == Some(libc::EBADF));
    match anchor {
        Anchor::InUse { interface, .. } | Anchor::Parked { interface, .. } if gone => {
            PortError::AnchorGone {
                anchor: interface.clone(),
            }
        }
        _ => error,
    }
}

fn socket_config(transfer: Transfer, entries: u32) -> Result<SocketConfig, PortError> {
    let size = ring_size(entries)?;
    let transfer = match transfer {
        Transfer::Copy => BindFlags::XDP_COPY,
        Transfer::ZeroCopy => BindFlags::XDP_ZEROCOPY,
    };
    Ok(SocketConfig::builder()
        .rx_queue_size(size)
        .tx_queue_size(size)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(transfer | BindFlags::XDP_USE_NEED_WAKEUP)
        .build())
}

fn socket_error(interface: &str, queue: u32, error: &SocketCreateError) -> PortError {
    let cause = std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    let interface = interface.to_owned();
    match cause {
        Some(libc::EBUSY) => PortError::QueueBusy { interface, queue },
        Some(libc::EAFNOSUPPORT) => PortError::NoAfXdp,
        Some(libc::EPERM | libc::EACCES) => PortError::NoPermission {
            what: format!("to open an AF_XDP socket on '{interface}'"),
        },
        Some(errno) => PortError::Socket {
            interface,
            queue,
            source: io::Error::from_raw_os_error(errno),
        },
        None => PortError::Socket {
            interface,
            queue,
            source: io::Error::other(error.to_string()),
        },
    }
}

/// XDP_MAX_TX_SKB_BUDGET (linux/if_xdp.h, Linux 6.17): packets that one sendto sends in copy mode, 32
/// if unset. An older kernel does not know it, and nothing is lost by that but time.
fn raise_tx_budget(socket: RawFd, packets: u32) {
    const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
    // SAFETY: the socket is open, and the option's value is a u32 that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            std::ptr::from_ref(&packets).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if result != 0 {
        log::debug!("XDP_MAX_TX_SKB_BUDGET: {}", io::Error::last_os_error());
    }
}
