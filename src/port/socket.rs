//! A workload behind a unix socket: Ethernet frames of a QEMU guest, with neither root nor a device.
//!
//! ```text
//!  -netdev stream,server=off,addr.type=unix,addr.path=SOCKET     4 bytes of length (big-endian), a frame, …
//!  -netdev dgram,remote.type=unix,remote.path=SOCKET,local.…     a frame a datagram
//! ```
//!
//! The port listens; who connects, or last sent a datagram, is the workload. One that ends leaves the
//! port as it is for the next. A length that no frame has ends a connection, as nobody knows where the next
//! frame begins.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::net::{UnixDatagram, UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token};

use super::{Capabilities, Link, Port, PortError, PortId, PortStatistics, Refused, TxOutcome};
use crate::packet::{BATCH, Batch, FramePool};
use crate::wire::{MacAddr, Mtu};

/// The longest frame: a full packet, an Ethernet header and an 802.1Q tag.
const LONGEST: usize = Mtu::ETHERNET.0 as usize + 18;

/// Bytes before each frame of a stream.
const PREFIX: usize = 4;

/// Bytes of a stream that are read at once.
const READ: usize = 64 * 1024;

/// Bytes that wait for a stream's reader at most; what comes then is told to wait.
const UNSENT: usize = 256 * 1024;

/// What is behind the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// A connection, its frames behind their lengths.
    Stream,
    /// A frame a datagram.
    Datagram,
}

/// A unix socket that serves one workload.
#[derive(Debug)]
pub struct SocketPort {
    id: PortId,
    name: String,
    path: PathBuf,
    /// The socket's, to know it by.
    inode: Option<u64>,
    capabilities: Capabilities,
    statistics: PortStatistics,
    /// Readable when any of the port's sockets is: the workload's changes, this does not.
    poll: Poll,
    events: Events,
    ends: Ends,
}

#[derive(Debug)]
enum Ends {
    Stream {
        listener: UnixListener,
        workload: Option<Connection>,
    },
    Datagram {
        socket: UnixDatagram,
        workload: Option<SocketAddr>,
    },
}

/// A connected workload.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    /// What was read and not taken yet begins at `start`.
    received: Vec<u8>,
    start: usize,
    unsent: Vec<u8>,
}

impl SocketPort {
    /// Listens at `path`; what an ended process left there is removed.
    pub fn open(id: PortId, name: &str, kind: SocketKind, path: &Path) -> Result<Self, PortError> {
        let failed = |source| PortError::UnixSocket {
            name: name.to_owned(),
            path: path.to_owned(),
            source,
        };
        let io = match kind {
            SocketKind::Stream => "unix stream",
            SocketKind::Datagram => "unix dgram",
        };
        let poll = Poll::new().map_err(failed)?;
        let ends = listen(kind, path, &poll).map_err(failed)?;
        Ok(Self {
            id,
            name: name.to_owned(),
            path: path.to_owned(),
            inode: inode(path),
            capabilities: Capabilities {
                // Nobody's but the router's own, as on every workload port.
                link: Link::Ethernet(MacAddr::WORKLOAD_GATEWAY),
                mtu: Mtu::ETHERNET,
                io: io.to_owned(),
            },
            statistics: PortStatistics::default(),
            ends,
            poll,
            events: Events::with_capacity(8),
        })
    }
}

const TOKEN: Token = Token(0);

fn listen(kind: SocketKind, path: &Path, poll: &Poll) -> io::Result<Ends> {
    remove_left_over(path)?;
    let registry = poll.registry();
    Ok(match kind {
        SocketKind::Stream => {
            let mut listener = UnixListener::bind(path)?;
            registry.register(&mut listener, TOKEN, Interest::READABLE)?;
            Ends::Stream {
                listener,
                workload: None,
            }
        }
        SocketKind::Datagram => {
            let mut socket = UnixDatagram::bind(path)?;
            registry.register(&mut socket, TOKEN, Interest::READABLE)?;
            Ends::Datagram {
                socket,
                workload: None,
            }
        }
    })
}

/// A socket at which nobody listens; one that is in use, or no socket, is left alone.
fn remove_left_over(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixDatagram;
    let is_socket = fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    // Connecting to a socket of either kind is refused if nobody has it open.
    let tried = UnixDatagram::unbound()?.connect(path);
    let nobody = tried.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    if is_socket && nobody {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// What is at the path may be somebody else's by now.
impl Drop for SocketPort {
    fn drop(&mut self) {
        if inode(&self.path) == self.inode {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|socket| socket.ino())
}

impl Port for SocketPort {
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
        let before = batch.len();
        let statistics = &mut self.statistics;
        match &mut self.ends {
            Ends::Stream { listener, workload } => {
                if let Some(connection) = workload
                    && let Err(error) = connection.receive(pool, batch, &mut statistics.refused)
                {
                    statistics.refused.malformed +=
                        u64::from(error.kind() == ErrorKind::InvalidData);
                    log::info!(
                        "{}: the workload's connection has ended: {error}",
                        self.name
                    );
                    *workload = None;
                }
                if workload.is_none() {
                    *workload = accept(listener, &self.poll, &self.name);
                }
            }
            Ends::Datagram { socket, workload } => {
                receive_datagrams(socket, workload, pool, batch, &mut statistics.refused);
            }
        }
        if batch.len() == before {
            // What was told is heard: the worker may sleep until there is more.
            let _ = self.poll.poll(&mut self.events, Some(Duration::ZERO));
        }
        Ok(batch.len() - before)
    }

    fn rx_costs_a_call(&self) -> bool {
        true
    }

    fn tx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome {
        let mut outcome = TxOutcome::default();
        let mut done = 0;
        for frame in batch.iter() {
            let sent = match &mut self.ends {
                Ends::Stream { workload, .. } => match workload {
                    Some(connection) => connection.send(frame.bytes()),
                    None => Err(ErrorKind::NotConnected.into()),
                },
                Ends::Datagram { socket, workload } => match workload {
                    Some(address) => send_datagram(socket, address, frame.bytes()),
                    None => Err(ErrorKind::NotConnected.into()),
                },
            };
            match sent {
                Ok(()) => {
                    outcome.sent += 1;
                    outcome.sent_bytes += frame.len();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => outcome.failed += 1,
            }
            done += 1;
        }
        batch.drain(..done).for_each(|frame| pool.give(frame));
        outcome
    }

    fn reap(&mut self, _pool: &mut FramePool) {
        if let Ends::Stream {
            workload: Some(connection),
            ..
        } = &mut self.ends
        {
            // What fails here fails again when it is read, where it is told.
            let _ = connection.flush();
        }
    }

    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.poll.as_raw_fd()]
    }

    fn statistics(&self) -> PortStatistics {
        self.statistics
    }
}

fn accept(listener: &UnixListener, poll: &Poll, name: &str) -> Option<Connection> {
    let (mut stream, _) = listener.accept().ok()?;
    let interest = Interest::READABLE | Interest::WRITABLE;
    if let Err(error) = poll.registry().register(&mut stream, TOKEN, interest) {
        log::warn!("{name}: a workload's connection cannot be waited for: {error}");
        return None;
    }
    log::info!("{name}: a workload has connected");
    Some(Connection {
        stream,
        received: Vec::with_capacity(READ),
        start: 0,
        unsent: Vec::new(),
    })
}

impl Connection {
    /// Takes whole frames until the batch is full or nothing more is there.
    fn receive(
        &mut self,
        pool: &mut FramePool,
        batch: &mut Batch,
        refused: &mut Refused,
    ) -> io::Result<()> {
        // Frames that are refused count, too: others have their turn whatever one sends.
        let mut tried = batch.len();
        loop {
            while tried < BATCH {
                let Some(frame) = self.next_frame()? else {
                    break;
                };
                let end = frame.end;
                take(pool, batch, refused, &self.received[frame]);
                self.start = end;
                tried += 1;
            }
            if tried >= BATCH || !self.read_more()? {
                return Ok(());
            }
        }
    }

    /// Where the next whole frame is; nothing if it is still on its way.
    fn next_frame(&self) -> io::Result<Option<std::ops::Range<usize>>> {
        let unread = &self.received[self.start..];
        let Some(prefix) = unread.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length == 0 || length > LONGEST {
            let reason = format!("a frame of {length} bytes; they have 1 to {LONGEST}");
            return Err(io::Error::new(ErrorKind::InvalidData, reason));
        }
        let start = self.start + PREFIX;
        Ok((unread.len() >= PREFIX + length).then_some(start..start + length))
    }

    /// Reads what is there; false if nothing is.
    fn read_more(&mut self) -> io::Result<bool> {
        self.received.drain(..self.start);
        self.start = 0;
        let before = self.received.len();
        self.received.resize(before + READ, 0);
        let read = self.stream.read(&mut self.received[before..]);
        self.received
            .truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if is_transient(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.unsent.len() + PREFIX + frame.len() > UNSENT {
            self.flush()?;
            if self.unsent.len() + PREFIX + frame.len() > UNSENT {
                return Err(ErrorKind::WouldBlock.into());
            }
        }
        let length = frame.len() as u32;
        self.unsent.extend_from_slice(&length.to_be_bytes());
        self.unsent.extend_from_slice(frame);
        self.flush()
    }

    /// Hands on what the reader has room for; the rest waits.
    fn flush(&mut self) -> io::Result<()> {
        let mut done = 0;
        let outcome = loop {
            if done == self.unsent.len() {
                break Ok(());
            }
            match self.stream.write(&self.unsent[done..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if is_transient(&error) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.unsent.drain(..done);
        outcome
    }
}

/// A datagram's sender is the workload from then on.
fn receive_datagrams(
    socket: &UnixDatagram,
    workload: &mut Option<SocketAddr>,
    pool: &mut FramePool,
    batch: &mut Batch,
    refused: &mut Refused,
) {
    // One byte more than a frame has, by which one that was cut is known.
    let mut buffer = [0; LONGEST + 1];
    // Those that are refused count, too: others have their turn whatever one sends.
    for _ in batch.len()..BATCH {
        let (length, sender) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(_) => return,
        };
        if !sender.is_unnamed() {
            *workload = Some(sender);
        }
        match buffer.get(..length).filter(|frame| frame.len() <= LONGEST) {
            Some(frame) => take(pool, batch, refused, frame),
            None => refused.malformed += 1,
        }
    }
}

fn send_datagram(socket: &UnixDatagram, to: &SocketAddr, frame: &[u8]) -> io::Result<()> {
    let path = to.as_pathname().ok_or(ErrorKind::NotConnected)?;
    socket.send_to(frame, path).map(drop)
}

/// Puts these bytes into the batch, in a frame of the pool's.
fn take(pool: &mut FramePool, batch: &mut Batch, refused: &mut Refused, bytes: &[u8]) {
    let headroom = pool.headroom();
    let Some(mut frame) = pool.take() else {
        refused.no_frame += 1;
        return;
    };
    if frame.fill(bytes, headroom) {
        batch.push(frame);
    } else {
        refused.oversized += 1;
        pool.give(frame);
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
