//! A port without a device, for tests.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Capabilities, Link, Port, PortId, PortStatistics, TxOutcome};
use crate::packet::{BATCH, Batch, FramePool};
use crate::wire::Mtu;

/// The worker's end of a memory port.
#[derive(Debug)]
pub struct MemoryPort {
    id: PortId,
    name: String,
    capabilities: Capabilities,
    shared: Arc<Mutex<Shared>>,
    bell: UnixStream,
}

/// The test's end of a memory port; clones are the same wire.
#[derive(Debug, Clone)]
pub struct MemoryWire {
    shared: Arc<Mutex<Shared>>,
    bell: Arc<UnixStream>,
}

#[derive(Debug, Default)]
struct Shared {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
    room: Option<usize>,
    statistics: PortStatistics,
}

impl MemoryPort {
    /// A port, and the wire that it hangs on. Its MTU is Ethernet's.
    ///
    /// # Errors
    /// When the process has no descriptors left for the pair of sockets that wakes a sleeping worker.
    pub fn new(id: PortId, link: Link) -> io::Result<(Self, MemoryWire)> {
        let (bell, ringer) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ringer.set_nonblocking(true)?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let wire = MemoryWire {
            shared: Arc::clone(&shared),
            bell: Arc::new(ringer),
        };
        let capabilities = Capabilities {
            link,
            mtu: Mtu::ETHERNET,
            io: "memory".to_owned(),
        };
        Ok((
            Self {
                id,
                name: format!("memory{}", id.0),
                capabilities,
                shared,
                bell,
            },
            wire,
        ))
    }

    /// The same port with another MTU.
    #[must_use]
    pub fn with_mtu(mut self, mtu: Mtu) -> Self {
        self.capabilities.mtu = mtu;
        self
    }
}

impl MemoryWire {
    /// Has the port receive `frame`.
    pub fn inject(&self, frame: &[u8]) {
        lock(&self.shared).received.push_back(frame.to_vec());
        // A full socket already wakes the worker.
        let _ = (&*self.bell).write(&[0]);
    }

    /// Takes the frames that the port has sent since the last call, in order.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        lock(&self.shared).sent.drain(..).collect()
    }

    /// How many injected frames the port has not received.
    pub fn waiting(&self) -> usize {
        lock(&self.shared).received.len()
    }

    /// Lets the port send that many frames until [`MemoryWire::sent`] takes them; nothing: any number.
    pub fn set_room(&self, frames: Option<usize>) {
        lock(&self.shared).room = frames;
    }
}

impl Port for MemoryPort {
    fn id(&self) -> PortId {
        self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> io::Result<usize> {
        let mut shared = lock(&self.shared);
        let before = batch.len();
        while batch.len() < BATCH && !shared.received.is_empty() {
            let Some(mut frame) = pool.take() else {
                break;
            };
            let Some(bytes) = shared.received.pop_front() else {
                break;
            };
            if frame.fill(&bytes, pool.headroom()) {
                batch.push(frame);
            } else {
                shared.statistics.rx_dropped += 1;
                pool.give(frame);
            }
        }
        if shared.received.is_empty() {
            silence(&self.bell);
        }
        Ok(batch.len() - before)
    }

    fn tx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome {
        let mut shared = lock(&self.shared);
        let room = shared
            .room
            .map_or(usize::MAX, |room| room.saturating_sub(shared.sent.len()));
        let mut outcome = TxOutcome::default();
        for frame in batch.drain(..room.min(batch.len())) {
            outcome.sent += 1;
            outcome.sent_bytes += frame.len();
            shared.sent.push_back(frame.bytes().to_vec());
            pool.give(frame);
        }
        outcome
    }

    fn reap(&mut self, _pool: &mut FramePool) {}

    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.bell.as_raw_fd()]
    }

    fn statistics(&self) -> PortStatistics {
        lock(&self.shared).statistics
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn silence(mut bell: &UnixStream) {
    let mut rung = [0; 256];
    while matches!(bell.read(&mut rung), Ok(count) if count > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Interest, Poll, Token, unix::SourceFd};
    use std::time::Duration;

    fn port() -> (MemoryPort, MemoryWire, FramePool) {
        let (port, wire) = MemoryPort::new(PortId(1), Link::Ip).unwrap();
        (port, wire, FramePool::with_memory(100, 512, 64))
    }

    #[test]
    fn a_frame_goes_through_and_comes_back_to_the_pool() {
        let (mut port, wire, mut pool) = port();
        wire.inject(b"packet");
        let mut batch = Batch::new();
        assert_eq!(port.rx(&mut pool, &mut batch).unwrap(), 1);
        assert_eq!(
            (batch[0].bytes(), batch[0].range().start),
            (&b"packet"[..], 64)
        );
        let outcome = port.tx(&mut pool, &mut batch);
        assert_eq!((outcome.sent, outcome.sent_bytes), (1, 6));
        assert_eq!(wire.sent(), [b"packet"]);
        assert_eq!(pool.available(), 100);
    }

    #[test]
    fn a_batch_is_never_overfilled_and_a_long_frame_is_counted() {
        let (mut port, wire, mut pool) = port();
        wire.inject(&[0; 449]);
        (0..BATCH + 5).for_each(|_| wire.inject(b"x"));
        let mut batch = Batch::new();
        assert_eq!(port.rx(&mut pool, &mut batch).unwrap(), BATCH);
        assert_eq!((wire.waiting(), port.statistics().rx_dropped), (5, 1));
        assert_eq!(port.rx(&mut pool, &mut batch).unwrap(), 0);
    }

    #[test]
    fn what_finds_no_room_stays_in_the_batch_in_order() {
        let (mut port, wire, mut pool) = port();
        (0..4_u8).for_each(|n| wire.inject(&[n]));
        wire.set_room(Some(3));
        let mut batch = Batch::new();
        port.rx(&mut pool, &mut batch).unwrap();
        assert_eq!(port.tx(&mut pool, &mut batch).sent, 3);
        assert_eq!(batch[0].bytes(), [3]);
        assert_eq!(wire.sent(), [[0], [1], [2]]);
        assert_eq!(port.tx(&mut pool, &mut batch).sent, 1);
    }

    #[test]
    fn the_descriptor_is_readable_as_long_as_there_is_something_to_receive() {
        let (mut port, wire, mut pool) = port();
        let mut poll = Poll::new().unwrap();
        let descriptor = port.descriptors()[0];
        poll.registry()
            .register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE)
            .unwrap();
        let mut events = Events::with_capacity(4);
        let mut rung = |poll: &mut Poll| {
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            !events.is_empty()
        };
        assert!(!rung(&mut poll));
        wire.inject(b"x");
        assert!(rung(&mut poll));
        port.rx(&mut pool, &mut Batch::new()).unwrap();
        assert!(!rung(&mut poll));
    }
}
