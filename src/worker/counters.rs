//! Counters: one set a thread, never shared for writing.
//!
//! Each counter has one writer, so an increment is a plain load and store (relaxed, no lock prefix);
//! whoever wants totals reads all sets and adds them up.
//!
//! The balance that they must keep once nothing is under way:
//!
//! ```text
//!  received + originated = transmitted + dropped + absorbed + waiting
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use crate::packet::DropReason;
use crate::port::{PortId, PortStatistics, Refused};

/// A number that one thread counts up and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the counter's one writer may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Overwrites the value. Only the counter's one writer may call it.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one thread counts. Aligned so that no two threads write to one cache line, nor to a pair that
/// the processor fetches together.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    /// By [`PortId`].
    pub ports: Vec<PortCounters>,
    /// By [`DropReason`].
    drops: [Counter; DropReason::COUNT],
    /// Packets handed to the slow path.
    pub punted: Counter,
    /// Packets that the router itself made or sent again.
    pub originated: Counter,
    /// Packets that ended here because they were for the router, or went on as others.
    pub absorbed: Counter,
    /// Packets that wait now, in the slow path: for a neighbour, or for the rest of their fragments.
    pub waiting: Counter,
    /// Rounds of the hot loop, and those in which there was something to do.
    pub rounds: Counter,
    /// Rounds with work.
    pub busy_rounds: Counter,
    /// Times the worker went to sleep.
    pub sleeps: Counter,
}

/// What one thread counts for one port; aligned as [`Counters`].
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PortCounters {
    /// Packets received.
    pub rx_packets: Counter,
    /// Bytes received, link header included.
    pub rx_bytes: Counter,
    /// Packets that the device took.
    pub tx_packets: Counter,
    /// Bytes that the device took, link header included.
    pub tx_bytes: Counter,
    /// What the device and the kernel counted, as of the last look.
    pub device: DeviceCounters,
}

/// [`PortStatistics`] as counters.
#[derive(Debug, Default)]
pub struct DeviceCounters {
    malformed: Counter,
    oversized: Counter,
    no_frame: Counter,
    rx_dropped: Counter,
    rx_ring_full: Counter,
    rx_fill_ring_empty: Counter,
    rx_invalid_descriptors: Counter,
    tx_invalid_descriptors: Counter,
}

impl DeviceCounters {
    /// Takes over what a port says.
    pub fn set(&self, statistics: &PortStatistics) {
        self.malformed.set(statistics.refused.malformed);
        self.oversized.set(statistics.refused.oversized);
        self.no_frame.set(statistics.refused.no_frame);
        self.rx_dropped.set(statistics.rx_dropped);
        self.rx_ring_full.set(statistics.rx_ring_full);
        self.rx_fill_ring_empty.set(statistics.rx_fill_ring_empty);
        self.rx_invalid_descriptors
            .set(statistics.rx_invalid_descriptors);
        self.tx_invalid_descriptors
            .set(statistics.tx_invalid_descriptors);
    }

    /// The values of the last look.
    pub fn get(&self) -> PortStatistics {
        PortStatistics {
            refused: Refused {
                malformed: self.malformed.get(),
                oversized: self.oversized.get(),
                no_frame: self.no_frame.get(),
            },
            rx_dropped: self.rx_dropped.get(),
            rx_ring_full: self.rx_ring_full.get(),
            rx_fill_ring_empty: self.rx_fill_ring_empty.get(),
            rx_invalid_descriptors: self.rx_invalid_descriptors.get(),
            tx_invalid_descriptors: self.tx_invalid_descriptors.get(),
        }
    }
}

impl Counters {
    /// Counters for `ports` ports, all zero.
    pub fn new(ports: usize) -> Self {
        Self {
            ports: (0..ports).map(|_| PortCounters::default()).collect(),
            drops: std::array::from_fn(|_| Counter::default()),
            punted: Counter::default(),
            originated: Counter::default(),
            absorbed: Counter::default(),
            waiting: Counter::default(),
            rounds: Counter::default(),
            busy_rounds: Counter::default(),
            sleeps: Counter::default(),
        }
    }

    /// Counts `n` packets dropped for one reason.
    #[inline]
    pub fn dropped(&self, reason: DropReason, n: u64) {
        self.drops[reason as usize].add(n);
    }

    /// Takes over what a port says: frames that it has refused since the last look came in, and were dropped.
    pub fn look_at(&self, id: PortId, statistics: &PortStatistics) {
        let Some(port) = self.port(id) else { return };
        let (before, now) = (port.device.get().refused, statistics.refused);
        for (reason, before, now) in [
            (DropReason::MalformedFrame, before.malformed, now.malformed),
            (DropReason::Oversized, before.oversized, now.oversized),
            (DropReason::NoFrame, before.no_frame, now.no_frame),
        ] {
            port.rx_packets.add(now - before);
            self.dropped(reason, now - before);
        }
        port.device.set(statistics);
    }

    /// Another port may have this number next, and count from zero.
    pub fn forget(&self, id: PortId) {
        if let Some(port) = self.port(id) {
            port.device.set(&PortStatistics::default());
        }
    }

    /// Packets dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }

    /// The counters of one port.
    #[inline]
    pub fn port(&self, id: PortId) -> Option<&PortCounters> {
        self.ports.get(usize::from(id.0))
    }
}
