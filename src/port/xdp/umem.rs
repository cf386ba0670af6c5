//! The frames' memory, registered with the kernel (UMEM), and which of it the kernel holds.
//!
//! A chunk is either a [`Frame`] in our hands or held by the kernel through exactly one queue.
//! [`HeldChunks::lend`] ends the frame, [`HeldChunks::take_back`] makes it anew; there is never a
//! reference to memory that the kernel may write.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{Umem, umem::UmemCreateError};

use super::queue::Queue;
use crate::packet::{Frame, FramePool, HEADROOM, KERNEL_HEADROOM};
use crate::port::PortError;

/// How a worker's UMEM is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UmemOptions {
    /// How many frames; [`UmemOptions::for_queues`] says how many are needed.
    pub frames: u32,
    /// A frame's whole buffer in bytes: 2048 or 4096. [`HEADROOM`] of them are before the packet.
    pub frame_size: u32,
    /// Entries of each queue's fill and completion ring: a power of two.
    pub ring_size: u32,
    /// Whether the device reads and writes frames by itself; with `ZeroCopy` every device that uses
    /// this memory must be able to.
    pub transfer: Transfer,
}

/// How packets get from a device into frames and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transfer {
    /// The kernel copies; every device can do that.
    #[default]
    Copy,
    /// The device does it, if its driver can; else opening the port fails.
    ZeroCopy,
}

impl UmemOptions {
    /// Frames for `queues` queues of 2048 entries: both rings of each full, and as much again as one
    /// ring in the worker's hands.
    pub fn for_queues(queues: u32) -> Self {
        let ring_size = super::DEFAULT_RING_SIZE;
        let frames = queues
            .saturating_mul(2)
            .saturating_add(1)
            .saturating_mul(ring_size);
        Self {
            frames,
            frame_size: 2048,
            ring_size,
            transfer: Transfer::Copy,
        }
    }
}

/// One worker's packet memory, shared by all its AF_XDP sockets.
///
/// The memory is never unmapped: frames outlive every owner that could be named here.
pub struct WorkerUmem {
    region: Arc<Region>,
    ring_size: u32,
    anchor: Mutex<Anchor>,
}

/// The socket that the kernel knows the memory by, which is the first that was bound.
///
/// All others join it (XDP_SHARED_UMEM), so it must stay bound as long as any may come: libxdp does
/// not close it before the memory goes, which is never. It therefore waits here when its port is
/// closed, for the next port on the same queue.
pub(super) enum Anchor {
    None,
    InUse {
        interface: String,
        index: u32,
        queue: u32,
    },
    Parked {
        interface: String,
        queue: Box<Queue>,
    },
}

impl WorkerUmem {
    /// Maps and registers the memory, and hands out its frames, for the worker's pool.
    ///
    /// Call it in the network namespace of the devices that will use it.
    pub fn new(options: &UmemOptions) -> Result<(Self, Vec<Frame>), PortError> {
        let config = umem_config(options)?;
        let frames = NonZeroU32::new(options.frames)
            .ok_or_else(|| umem_error(options, "there must be at least one".to_owned()))?;
        let (umem, descriptors) =
            Umem::new(config, frames, false).map_err(|error| creation_error(options, &error))?;
        // The mapping goes with the last handle; this one is never dropped, so that frames may be
        // `'static`.
        std::mem::forget(umem.clone());

        let region = Arc::new(Region::new(umem, descriptors, options));
        let frames = (0..region.descriptors.len())
            // SAFETY: nobody else has a chunk of a mapping that was made just now, and each number
            // comes once.
            .map(|chunk| unsafe { region.frame(chunk) })
            .collect();
        let umem = Self {
            region,
            ring_size: options.ring_size,
            anchor: Mutex::new(Anchor::None),
        };
        Ok((umem, frames))
    }

    /// A frame's whole buffer in bytes.
    pub fn frame_size(&self) -> usize {
        self.region.frame_size
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.region.descriptors.len()
    }

    /// How packets get into frames and back.
    pub fn transfer(&self) -> Transfer {
        self.region.transfer
    }

    /// Gives `pool` the frames of ports that were dropped since the last call.
    pub fn reclaim(&self, pool: &mut FramePool) {
        let mut orphans = self.region.orphans();
        orphans.drain(..).for_each(|frame| pool.give(frame));
    }

    pub(super) fn ring_size(&self) -> u32 {
        self.ring_size
    }

    pub(super) fn umem(&self) -> &Umem {
        &self.region.umem
    }

    pub(super) fn held_chunks(&self) -> HeldChunks {
        HeldChunks::new(Arc::clone(&self.region))
    }

    pub(super) fn anchor(&self) -> MutexGuard<'_, Anchor> {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mapping, and a descriptor of each chunk, whose address is [`HEADROOM`] bytes into it.
struct Region {
    umem: Umem,
    base: usize,
    frame_size: usize,
    transfer: Transfer,
    descriptors: Box<[FrameDesc]>,
    /// Frames whose port was dropped, for [`WorkerUmem::reclaim`].
    orphans: Mutex<Vec<Frame>>,
}

impl Region {
    fn new(umem: Umem, descriptors: Vec<FrameDesc>, options: &UmemOptions) -> Self {
        // SAFETY: the descriptor is of this UMEM, whose memory nobody uses yet; the slice is empty
        // and only its address is taken.
        let first = unsafe { umem.headroom(&descriptors[0]) };
        let base = first.contents().as_ptr().addr();
        Self {
            umem,
            base,
            frame_size: options.frame_size as usize,
            transfer: options.transfer,
            descriptors: descriptors.into_boxed_slice(),
            orphans: Mutex::default(),
        }
    }

    fn orphans(&self) -> MutexGuard<'_, Vec<Frame>> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chunk at `address` bytes into the mapping.
    fn chunk_at(&self, address: usize) -> Option<usize> {
        let chunk = address / self.frame_size;
        (chunk < self.descriptors.len()).then_some(chunk)
    }

    /// The chunk that is the frame's buffer, if it is one of this mapping.
    fn chunk_of(&self, frame: &Frame) -> Option<usize> {
        let address = frame.buffer_address().checked_sub(self.base)?;
        self.chunk_at(address)
    }

    /// The frame over a chunk.
    ///
    /// # Safety
    ///
    /// There must be no other frame over it, and the kernel must not hold it.
    unsafe fn frame(&self, chunk: usize) -> Frame {
        assert!(chunk < self.descriptors.len());
        let start = self.base + chunk * self.frame_size;
        // SAFETY: the bytes lie within the mapping, which is readable, writable, initialised (the
        // kernel's zeroes) and never unmapped. The pointer that mmap returned was given to C as an
        // integer (xsk_umem__create registers the mapping by its address), so its provenance, that
        // of the whole mapping, is exposed and is the one picked up here. Nobody else refers to the
        // bytes: the caller vouches for frames and kernel, and xsk-rs makes references only in
        // `lend`, at a time when there is no frame.
        let buffer = unsafe {
            let pointer = std::ptr::with_exposed_provenance_mut::<u8>(start);
            std::slice::from_raw_parts_mut(pointer, self.frame_size)
        };
        Frame::new(buffer, HEADROOM)
    }
}

/// The chunks that the kernel holds through one queue.
pub(super) struct HeldChunks {
    region: Arc<Region>,
    held: Box<[u64]>,
}

impl HeldChunks {
    fn new(region: Arc<Region>) -> Self {
        let words = region.descriptors.len().div_ceil(64);
        Self {
            region,
            held: vec![0; words].into_boxed_slice(),
        }
    }

    /// Whether the frame is of this memory.
    pub(super) fn owns(&self, frame: &Frame) -> bool {
        self.region.chunk_of(frame).is_some()
    }

    /// How many chunks the kernel holds.
    pub(super) fn count(&self) -> usize {
        self.held
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// The longest packet that a frame takes behind its headroom.
    pub(super) fn room(&self) -> usize {
        self.region.frame_size - HEADROOM
    }

    /// Ends `frame` and says how the kernel knows it: the packet is as long as the frame's and
    /// begins [`HEADROOM`] bytes in, where the caller has moved it. A foreign frame comes back.
    #[inline]
    pub(super) fn lend(&mut self, frame: Frame) -> Result<FrameDesc, Frame> {
        let Some(chunk) = self.region.chunk_of(&frame) else {
            return Err(frame);
        };
        let length = end(frame);
        self.held[chunk / 64] |= 1 << (chunk % 64);
        let mut descriptor = self.region.descriptors[chunk];
        // SAFETY: the descriptor is of this UMEM. The chunk's one frame ended above (a frame keeps
        // its buffer to itself, so its address within the mapping means that it was the chunk's), and
        // the kernel does not know the chunk before the caller produces the descriptor.
        let mut data = unsafe { self.region.umem.data_mut(&mut descriptor) };
        data.cursor().set_pos(length);
        Ok(descriptor)
    }

    /// The frame of the chunk at `address` bytes into the memory, which the kernel has given back;
    /// nothing if the kernel was not lent it through this queue.
    #[inline]
    pub(super) fn take_back(&mut self, address: usize) -> Option<Frame> {
        let chunk = self.region.chunk_at(address)?;
        let (word, bit) = (&mut self.held[chunk / 64], 1 << (chunk % 64));
        if *word & bit == 0 {
            return None;
        }
        *word &= !bit;
        // SAFETY: the bit says that `lend` ended the chunk's frame and none was made since; the kernel
        // has passed the chunk through its receive or completion ring, after which it does not
        // touch it.
        Some(unsafe { self.region.frame(chunk) })
    }

    /// Where in its chunk an address lies.
    #[inline]
    pub(super) fn offset(&self, address: usize) -> usize {
        address % self.region.frame_size
    }

    /// Makes the frames of all chunks that are held.
    ///
    /// # Safety
    ///
    /// The queue's socket must be closed and must have been one in copy mode, where the kernel itself
    /// does the writing and is done with it when close returns.
    unsafe fn take_back_all(&mut self, mut each: impl FnMut(Frame)) {
        for word in 0..self.held.len() {
            while self.held[word] != 0 {
                let bit = self.held[word].trailing_zeros();
                self.held[word] &= self.held[word] - 1;
                // SAFETY: the bit says that there is no frame over the chunk, the caller that the
                // kernel is done with it.
                each(unsafe { self.region.frame(word * 64 + bit as usize) });
            }
        }
    }
}

/// A queue closes its socket before it drops this. In copy mode the frames are free then, and wait for
/// [`WorkerUmem::reclaim`]; with zero-copy they are given up, as the driver lets go of them at a time
/// that cannot be known.
impl Drop for HeldChunks {
    fn drop(&mut self) {
        if self.region.transfer == Transfer::Copy {
            let region = Arc::clone(&self.region);
            let mut orphans = region.orphans();
            // SAFETY: the queue's rings, which come before this field, were the socket's only handles,
            // so it is closed; it was in copy mode.
            unsafe { self.take_back_all(|frame| orphans.push(frame)) };
        }
    }
}

/// Ends a frame, and with it the one reference to its chunk.
fn end(frame: Frame) -> usize {
    frame.len()
}

fn umem_config(options: &UmemOptions) -> Result<UmemConfig, PortError> {
    check_size("the frame size", options.frame_size, 2048, 4096)?;
    let ring = ring_size(options.ring_size)?;
    let frame_size = FrameSize::new(options.frame_size)
        .map_err(|error| umem_error(options, error.to_string()))?;
    // The kernel's own headroom is part of ours.
    UmemConfig::builder()
        .frame_headroom((HEADROOM - KERNEL_HEADROOM) as u32)
        .frame_size(frame_size)
        .fill_queue_size(ring)
        .comp_queue_size(ring)
        .build()
        .map_err(|error| umem_error(options, error.to_string()))
}

/// A ring's size as libxdp wants it.
pub(super) fn ring_size(size: u32) -> Result<QueueSize, PortError> {
    let (least, most) = (64, 1 << 15);
    check_size("the ring size", size, least, most)?;
    QueueSize::new(size).map_err(|_| PortError::BadSize {
        what: "the ring size",
        given: size,
        least,
        most,
    })
}

fn check_size(what: &'static str, given: u32, least: u32, most: u32) -> Result<(), PortError> {
    if given.is_power_of_two() && (least..=most).contains(&given) {
        return Ok(());
    }
    Err(PortError::BadSize {
        what,
        given,
        least,
        most,
    })
}

fn creation_error(options: &UmemOptions, error: &UmemCreateError) -> PortError {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match cause.and_then(std::io::Error::raw_os_error) {
        Some(libc::EAFNOSUPPORT) => PortError::NoAfXdp,
        Some(libc::EPERM | libc::EACCES) => PortError::NoPermission {
            what: "to open an AF_XDP socket".to_owned(),
        },
        _ => umem_error(
            options,
            cause.map_or_else(|| error.to_string(), ToString::to_string),
        ),
    }
}

fn umem_error(options: &UmemOptions, reason: String) -> PortError {
    PortError::Umem {
        frames: options.frames,
        frame_size: options.frame_size,
        reason,
    }
}
