//! Capture: copies of a port's frames for an operator, as a decorator of [`Port`].
//!
//! [`Captured`] stands around a port; a [`CaptureSwitch`] is the handle by which the control side
//! attaches and detaches captures while workers run. A port that nobody captures pays one relaxed
//! atomic load a batch.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use serde::{Deserialize, Serialize};

use super::{Capabilities, Link, Port, PortId, PortStatistics, TxOutcome};
use crate::packet::{Batch, Frame, FramePool};

/// Which way a frame went, seen from the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Received from the port.
    In,
    /// Sent to the port.
    Out,
}

/// A copy of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedPacket {
    /// The port it crossed.
    pub port: PortId,
    /// Which way.
    pub direction: Direction,
    /// When its batch crossed: nanoseconds since 1970-01-01 00:00 UTC.
    pub time: u64,
    /// The frame's length in bytes, before the copy was cut.
    pub length: usize,
    /// The frame's first bytes, at most the capture's snap length.
    pub bytes: Vec<u8>,
}

/// A port that can be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedPort {
    /// The port's number.
    pub id: PortId,
    /// The device's name.
    pub name: String,
    /// What its frames begin with.
    pub link: Link,
}

/// A port whose frames can be copied.
///
/// A frame counts as sent once the port took it, even if the device refuses it afterwards: the same
/// point at which the kernel shows a packet to `tcpdump`.
#[derive(Debug)]
pub struct Captured<P: Port + ?Sized> {
    tap: Arc<Tap>,
    inner: Box<P>,
}

impl<P: Port + ?Sized> Captured<P> {
    /// Puts `port` under `switch`. Several workers' ports of one device have one number and are
    /// captured together.
    pub fn new(port: Box<P>, switch: &CaptureSwitch) -> Self {
        let name = port.name().to_owned();
        Self::named(port, name, switch)
    }

    /// As [`Captured::new`], by another name than the device's: devices in different network
    /// namespaces may be of one name.
    pub fn named(port: Box<P>, name: String, switch: &CaptureSwitch) -> Self {
        let tap = switch.tap(CapturedPort {
            id: port.id(),
            name,
            link: port.capabilities().link,
        });
        Self { tap, inner: port }
    }

    /// Whether a capture is attached to the port.
    #[inline]
    pub fn is_captured(&self) -> bool {
        self.tap.armed.load(Relaxed)
    }
}

impl<P: Port + ?Sized> Port for Captured<P> {
    fn id(&self) -> PortId {
        self.inner.id()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    #[inline]
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> io::Result<usize> {
        let before = batch.len();
        let outcome = self.inner.rx(pool, batch);
        if self.is_captured() {
            self.tap.received(&batch[before.min(batch.len())..]);
        }
        outcome
    }

    fn rx_costs_a_call(&self) -> bool {
        self.inner.rx_costs_a_call()
    }

    #[inline]
    fn tx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome {
        if self.is_captured() {
            return self.captured_tx(pool, batch);
        }
        self.inner.tx(pool, batch)
    }

    fn reap(&mut self, pool: &mut FramePool) {
        self.inner.reap(pool);
    }

    fn held(&self) -> usize {
        self.inner.held()
    }

    fn descriptors(&self) -> Vec<RawFd> {
        self.inner.descriptors()
    }

    fn statistics(&self) -> PortStatistics {
        self.inner.statistics()
    }
}

impl<P: Port + ?Sized> Captured<P> {
    /// Copies before the port takes the frames away, and hands on the copies of those it took.
    #[cold]
    fn captured_tx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome {
        let sinks = self.tap.sinks.load();
        let time = now();
        let copies: Vec<_> = sinks
            .iter()
            .map(|sink| sink.copy(self.tap.port.id, Direction::Out, time, batch))
            .collect();
        let before = batch.len();
        let outcome = self.inner.tx(pool, batch);
        let taken = before - batch.len().min(before);
        for (sink, copies) in sinks.iter().zip(copies) {
            sink.deliver(copies.into_iter().take(taken));
        }
        outcome
    }
}

/// The handle by which captures of a node's ports are switched on and off; clones are the same
/// switch.
#[derive(Debug, Clone, Default)]
pub struct CaptureSwitch {
    taps: Arc<Mutex<BTreeMap<PortId, Weak<Tap>>>>,
    watcher: Arc<OnceLock<Watcher>>,
}

/// Who is told that a port is captured from now on, or not any more.
struct Watcher(Box<dyn Fn(PortId, bool) + Send + Sync>);

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

/// Why a capture could not be attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// No port has that name.
    #[error("no port is called '{name}'; there are: {known}")]
    UnknownPort {
        /// The name asked for.
        name: String,
        /// The names there are, separated by commas.
        known: String,
    },
    /// The node has no ports.
    #[error("the node has no port to capture from")]
    NoPorts,
}

impl CaptureSwitch {
    /// A switch without ports.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `watcher` told, from now on, when a port is captured and when it is not any more. The
    /// first watcher stays.
    pub fn watch(&self, watcher: impl Fn(PortId, bool) + Send + Sync + 'static) {
        let _ = self.watcher.set(Watcher(Box::new(watcher)));
    }

    /// The ports there are now, by number.
    pub fn ports(&self) -> Vec<CapturedPort> {
        self.live_taps()
            .iter()
            .map(|tap| tap.port.clone())
            .collect()
    }

    /// Starts a capture on the ports of the given names, on all there are if none is given.
    ///
    /// Each frame is copied up to `snap_length` bytes (0: whole) into a channel of `capacity`
    /// packets; a frame that finds it full is counted by [`Capture::missed`]. The capture ends when
    /// the returned value is dropped; its channel ends when all its ports are gone.
    pub fn attach(
        &self,
        names: &[String],
        snap_length: usize,
        capacity: usize,
    ) -> Result<Capture, CaptureError> {
        let taps = self.named_taps(names)?;
        let (sender, packets) = bounded(capacity);
        let counts = Arc::new(Counts::default());
        let sink = Arc::new(Sink {
            sender,
            snap_length: if snap_length == 0 {
                usize::MAX
            } else {
                snap_length
            },
            counts: Arc::clone(&counts),
        });
        for tap in &taps {
            tap.change(|sinks| sinks.push(Arc::clone(&sink)));
        }
        let ports = taps.iter().map(|tap| tap.port.clone()).collect();
        let taps = taps.iter().map(Arc::downgrade).collect();
        Ok(Capture {
            packets,
            counts,
            ports,
            taps,
        })
    }

    fn named_taps(&self, names: &[String]) -> Result<Vec<Arc<Tap>>, CaptureError> {
        let taps = self.live_taps();
        if taps.is_empty() {
            return Err(CaptureError::NoPorts);
        }
        for name in names {
            if !taps.iter().any(|tap| tap.port.name == *name) {
                let known: Vec<_> = taps.iter().map(|tap| tap.port.name.as_str()).collect();
                return Err(CaptureError::UnknownPort {
                    name: name.clone(),
                    known: known.join(", "),
                });
            }
        }
        let wanted = |tap: &Arc<Tap>| names.is_empty() || names.contains(&tap.port.name);
        Ok(taps.into_iter().filter(wanted).collect())
    }

    fn live_taps(&self) -> Vec<Arc<Tap>> {
        let mut taps = lock(&self.taps);
        taps.retain(|_, tap| tap.strong_count() > 0);
        taps.values().filter_map(Weak::upgrade).collect()
    }

    fn tap(&self, port: CapturedPort) -> Arc<Tap> {
        let mut taps = lock(&self.taps);
        let known = taps.get(&port.id).and_then(Weak::upgrade);
        if let Some(tap) = known.filter(|tap| tap.port == port) {
            return tap;
        }
        let id = port.id;
        let tap = Arc::new(Tap {
            port,
            armed: AtomicBool::new(false),
            sinks: ArcSwap::default(),
            changing: Mutex::new(()),
            watcher: Arc::clone(&self.watcher),
        });
        taps.insert(id, Arc::downgrade(&tap));
        tap
    }
}

/// A running capture; dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    packets: Receiver<CapturedPacket>,
    counts: Arc<Counts>,
    ports: Vec<CapturedPort>,
    taps: Vec<Weak<Tap>>,
}

impl Capture {
    /// The copies, in the order in which each worker made them.
    pub fn packets(&self) -> &Receiver<CapturedPacket> {
        &self.packets
    }

    /// The ports it was attached to.
    pub fn ports(&self) -> &[CapturedPort] {
        &self.ports
    }

    /// Frames copied into the channel so far.
    pub fn captured(&self) -> u64 {
        self.counts.captured.load(Relaxed)
    }

    /// Frames that found the channel full so far.
    pub fn missed(&self) -> u64 {
        self.counts.missed.load(Relaxed)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        for tap in self.taps.iter().filter_map(Weak::upgrade) {
            tap.change(|sinks| sinks.retain(|sink| !Arc::ptr_eq(&sink.counts, &self.counts)));
        }
    }
}

/// What the workers' sides of one port share with the switch.
#[derive(Debug)]
struct Tap {
    port: CapturedPort,
    /// Whether `sinks` holds any: what the packet path reads.
    armed: AtomicBool,
    sinks: ArcSwap<Vec<Arc<Sink>>>,
    /// Held while `sinks` and `armed` change together.
    changing: Mutex<()>,
    watcher: Arc<OnceLock<Watcher>>,
}

impl Tap {
    fn change(&self, edit: impl FnOnce(&mut Vec<Arc<Sink>>)) {
        let _guard = lock(&self.changing);
        let mut sinks = self.sinks.load().as_ref().clone();
        edit(&mut sinks);
        let armed = !sinks.is_empty();
        self.sinks.store(Arc::new(sinks));
        self.armed.store(armed, Relaxed);
        if let Some(Watcher(tell)) = self.watcher.get() {
            tell(self.port.id, armed);
        }
    }

    #[cold]
    fn received(&self, frames: &[Frame]) {
        if frames.is_empty() {
            return;
        }
        let time = now();
        for sink in self.sinks.load().iter() {
            sink.deliver(
                sink.copy(self.port.id, Direction::In, time, frames)
                    .into_iter(),
            );
        }
    }
}

/// Where one capture's copies go.
#[derive(Debug)]
struct Sink {
    sender: Sender<CapturedPacket>,
    snap_length: usize,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    captured: AtomicU64,
    missed: AtomicU64,
}

impl Sink {
    /// Copies of `frames`; nothing in place of those for which the channel has no room.
    fn copy(
        &self,
        port: PortId,
        direction: Direction,
        time: u64,
        frames: &[Frame],
    ) -> Vec<Option<CapturedPacket>> {
        let room = self
            .sender
            .capacity()
            .map_or(usize::MAX, |all| all - self.sender.len().min(all));
        let copy = |(index, frame): (usize, &Frame)| {
            let kept = frame.len().min(self.snap_length);
            (index < room).then(|| CapturedPacket {
                port,
                direction,
                time,
                length: frame.len(),
                bytes: frame.bytes()[..kept].to_vec(),
            })
        };
        frames.iter().enumerate().map(copy).collect()
    }

    fn deliver(&self, copies: impl Iterator<Item = Option<CapturedPacket>>) {
        for copy in copies {
            let outcome = copy.map(|packet| self.sender.try_send(packet));
            match outcome {
                Some(Ok(())) => self.counts.captured.fetch_add(1, Relaxed),
                None | Some(Err(TrySendError::Full(_))) => self.counts.missed.fetch_add(1, Relaxed),
                Some(Err(TrySendError::Disconnected(_))) => return,
            };
        }
    }
}

/// Nanoseconds since 1970; they fit into 64 bits until the year 2554.
fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What the locks guard is whole after each statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Mtu;

    /// A port that loops what it sends back to its receive side, `room` frames at most a call.
    #[derive(Debug)]
    struct Loop {
        id: PortId,
        name: String,
        capabilities: Capabilities,
        waiting: Batch,
        room: usize,
    }

    impl Loop {
        fn new(id: u16, room: usize) -> Box<Self> {
            let capabilities = Capabilities {
                link: Link::Ip,
                mtu: Mtu::ETHERNET,
                io: "loop".to_owned(),
            };
            let name = format!("loop{id}");
            Box::new(Self {
                id: PortId(id),
                name,
                capabilities,
                waiting: Batch::new(),
                room,
            })
        }
    }

    impl Port for Loop {
        fn id(&self) -> PortId {
            self.id
        }
        fn name(&self) -> &str {
            &self.name
        }
        fn capabilities(&self) -> &Capabilities {
            &self.capabilities
        }
        fn rx(&mut self, _: &mut FramePool, batch: &mut Batch) -> io::Result<usize> {
            let count = self.waiting.len();
            batch.append(&mut self.waiting);
            Ok(count)
        }
        fn tx(&mut self, _: &mut FramePool, batch: &mut Batch) -> TxOutcome {
            let sent = self.room.min(batch.len());
            let sent_bytes = batch[..sent].iter().map(Frame::len).sum();
            self.waiting.extend(batch.drain(..sent));
            TxOutcome {
                sent,
                sent_bytes,
                ..TxOutcome::default()
            }
        }
        fn reap(&mut self, _: &mut FramePool) {}
        fn descriptors(&self) -> Vec<RawFd> {
            Vec::new()
        }
        fn statistics(&self) -> PortStatistics {
            PortStatistics::default()
        }
    }

    fn frames(pool: &mut FramePool, contents: &[&[u8]]) -> Batch {
        let fill = |content: &&[u8]| {
            let mut frame = pool.take().unwrap();
            assert!(frame.fill(content, 16));
            frame
        };
        contents.iter().map(fill).collect()
    }

    fn drain(capture: &Capture) -> Vec<(u16, Direction, usize, Vec<u8>)> {
        let row = |p: CapturedPacket| (p.port.0, p.direction, p.length, p.bytes);
        capture.packets().try_iter().map(row).collect()
    }

    #[test]
    fn what_is_taken_and_what_is_received_is_copied_up_to_the_snap_length() {
        let switch = CaptureSwitch::new();
        let mut pool = FramePool::with_memory(8, 128, 16);
        let mut port = Captured::new(Loop::new(3, 2), &switch);
        let capture = switch.attach(&["loop3".to_owned()], 4, 16).unwrap();

        let mut batch = frames(&mut pool, &[b"first", b"2nd", b"not taken"]);
        assert_eq!(port.tx(&mut pool, &mut batch).sent, 2);
        let mut batch = frames(&mut pool, &[b"was there before"]);
        assert_eq!(port.rx(&mut pool, &mut batch).unwrap(), 2);

        assert_eq!(
            drain(&capture),
            [
                (3, Direction::Out, 5, b"firs".to_vec()),
                (3, Direction::Out, 3, b"2nd".to_vec()),
                (3, Direction::In, 5, b"firs".to_vec()),
                (3, Direction::In, 3, b"2nd".to_vec()),
            ]
        );
        assert_eq!((capture.captured(), capture.missed()), (4, 0));
    }

    #[test]
    fn a_full_channel_counts_and_never_blocks() {
        let switch = CaptureSwitch::new();
        let mut pool = FramePool::with_memory(8, 128, 16);
        let mut port = Captured::new(Loop::new(1, 64), &switch);
        let capture = switch.attach(&[], 0, 3).unwrap();
        for _ in 0..2 {
            let mut batch = frames(&mut pool, &[b"a", b"b"]);
            port.tx(&mut pool, &mut batch);
        }
        assert_eq!((capture.captured(), capture.missed()), (3, 1));
        assert_eq!(drain(&capture).len(), 3);
        let mut batch = Batch::new();
        port.rx(&mut pool, &mut batch).unwrap();
        assert_eq!((capture.captured(), capture.missed()), (6, 2));
    }

    #[test]
    fn two_captures_of_one_port_are_independent() {
        let switch = CaptureSwitch::new();
        let mut pool = FramePool::with_memory(8, 128, 16);
        let mut one = Captured::new(Loop::new(1, 64), &switch);
        let mut two = Captured::new(Loop::new(2, 64), &switch);
        let short = switch.attach(&["loop1".to_owned()], 1, 16).unwrap();
        let whole = switch.attach(&[], 0, 16).unwrap();
        one.tx(
            &mut pool,
            &mut frames(&mut FramePool::with_memory(1, 64, 16), &[b"xyz"]),
        );
        two.tx(
            &mut pool,
            &mut frames(&mut FramePool::with_memory(1, 64, 16), &[b"abc"]),
        );
        assert_eq!(drain(&short), [(1, Direction::Out, 3, b"x".to_vec())]);
        assert_eq!(drain(&whole).len(), 2);
        drop(short);
        assert!(one.is_captured());
        drop(whole);
        assert!(!one.is_captured() && !two.is_captured());
    }

    #[test]
    fn workers_of_one_device_share_a_tap_and_the_channel_ends_with_the_last() {
        let switch = CaptureSwitch::new();
        let first = Captured::new(Loop::new(1, 64), &switch);
        let second: Captured<dyn Port> = Captured::new(Loop::new(1, 64), &switch);
        assert_eq!(switch.ports().len(), 1);
        let capture = switch.attach(&[], 0, 16).unwrap();
        drop(first);
        assert!(second.is_captured());
        drop(second);
        assert!(capture.packets().recv().is_err());
        assert!(switch.ports().is_empty());
        assert_eq!(switch.attach(&[], 0, 1).unwrap_err(), CaptureError::NoPorts);
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_there_are() {
        let switch = CaptureSwitch::new();
        let _ports = [1, 2].map(|id| Captured::new(Loop::new(id, 1), &switch));
        let error = switch.attach(&["eth9".to_owned()], 0, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no port is called 'eth9'; there are: loop1, loop2"
        );
    }
}
