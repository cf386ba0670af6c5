//! Ports: where packets come in and go out.
//!
//! A port's implementation belongs to one worker and is never shared; a device that several workers
//! serve is several [`Port`]s, one a queue set.

pub mod capture;
mod close_on_exec;
mod error;
pub mod heap;
pub mod memory;
mod netdev;
pub mod socket;
pub mod tuntap;
pub mod xdp;

use std::io;
use std::os::fd::RawFd;

pub use error::PortError;
pub use netdev::{receive_queues, xdp_programs};

use crate::packet::{Batch, FramePool};
pub use crate::packet::{Link, PortId};
use crate::wire::Mtu;

/// What a port can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// What frames begin with.
    pub link: Link,
    /// The device's MTU when the port was opened.
    pub mtu: Mtu,
    /// How frames are moved, for people: `af_xdp native copy`, `tun`, …
    pub io: String,
}

/// What only the port, the device or the kernel can count, since the port was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortStatistics {
    /// What the port itself has read and not handed on.
    pub refused: Refused,
    /// Received frames that the kernel dropped for want of a buffer or of sense.
    pub rx_dropped: u64,
    /// Received frames that found the receive ring full.
    pub rx_ring_full: u64,
    /// Received frames that found the fill ring empty.
    pub rx_fill_ring_empty: u64,
    /// Descriptors in the fill ring that the kernel refused.
    pub rx_invalid_descriptors: u64,
    /// Descriptors in the transmit ring that the kernel refused.
    pub tx_invalid_descriptors: u64,
}

/// Frames that a port has read and not handed on. No AF_XDP port's: the kernel places those.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    /// Those whose virtio header or length makes no sense.
    pub malformed: u64,
    /// Those, or segments of a super-packet, that are longer than a buffer.
    pub oversized: u64,
    /// Those for which no buffer was free.
    pub no_frame: u64,
}

/// One worker's side of a device: batches in, batches out, never blocking.
pub trait Port: Send {
    /// The port's number.
    fn id(&self) -> PortId;

    /// The device's name.
    fn name(&self) -> &str;

    /// What the port can do.
    fn capabilities(&self) -> &Capabilities;

    /// Appends received frames to `batch` until it holds [`crate::packet::BATCH`] or no more are
    /// there, and says how many it appended. Frames are taken from `pool`.
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> io::Result<usize>;

    /// Sends frames from the front of `batch`, and says how many it took. A taken frame comes back to
    /// `pool` once the device is done with it; one that the device has no room for stays in `batch`,
    /// in order; one that can never be sent (too long for the device) is an error's business:
    /// `TxOutcome` says how many were refused and given back to the pool.
    fn tx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome;

    /// Takes back the buffers of frames that have been sent; cheap when there are none.
    fn reap(&mut self, pool: &mut FramePool);

    /// Frames that the device or the kernel holds, to receive into or to send. With those in the pool
    /// and in the worker's hands they are all that the worker's memory has.
    fn held(&self) -> usize {
        0
    }

    /// Descriptors that become readable when the port has something to receive, for an idle worker to
    /// sleep on.
    fn descriptors(&self) -> Vec<RawFd>;

    /// What the device and the kernel have counted.
    fn statistics(&self) -> PortStatistics;
}

/// What became of the frames given to [`Port::tx`]; what is in neither is still in the batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TxOutcome {
    /// Frames that the device took.
    pub sent: usize,
    /// Bytes in them.
    pub sent_bytes: usize,
    /// Frames too long for the device's buffers, given back to the pool.
    pub oversized: usize,
    /// Frames that the device refused with an error, given back to the pool.
    pub failed: usize,
}
