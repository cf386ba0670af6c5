//! The socket on which a running node is asked about itself.
//!
//! A unix socket, readable and writable by its owner only; [`super::protocol`] is spoken on it. Each
//! client has a thread of its own, so one that is slow or dead keeps nobody waiting but itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::NodeView;
use super::protocol::{
    CaptureEnd, CaptureRequest, CaptureStart, EndReason, PortRow, Reply, Request,
};
use crate::port::capture::Capture;

/// Clients that are served at a time.
const CLIENTS: usize = 32;

/// The longest request, in bytes.
const REQUEST: u64 = 64 * 1024;

/// How long a client may take to ask, and to make room for more of an answer other than a capture.
const PATIENCE: Duration = Duration::from_secs(10);

/// The running server; dropping it ends its clients' connections and removes the socket.
pub struct ControlSocket {
    path: PathBuf,
    /// The socket's inode, by which it is told from a successor's.
    inode: u64,
    listener: Arc<UnixListener>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlSocketError {
    /// A running node has it.
    #[error(
        "{path} is the control socket of a node that runs already (process {pid}); stop that node, \
         or give this one a path of its own"
    )]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The process that listens on it.
        pid: i32,
    },
    /// Something else is there.
    #[error("{path} is there and is no socket; remove it, or give the control socket another path")]
    NoSocket {
        /// What is there.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ControlSocket {
    /// Serves `view` at `path`, whose directory is made if it is missing. A socket that a dead
    /// process left there is replaced.
    pub fn start(path: &Path, view: Arc<dyn NodeView>) -> Result<Self, ControlSocketError> {
        refuse_if_taken(path)?;
        let listener = Arc::new(bind(path)?);
        let io = |what| {
            move |source| ControlSocketError::Io {
                what,
                path: path.into(),
                source,
            }
        };
        let inode = fs::metadata(path).map_err(io("look at"))?.ino();
        let shared = Arc::new(Shared {
            view,
            stopping: AtomicBool::new(false),
            clients: Mutex::new(BTreeMap::new()),
        });
        let (accepting, served) = (Arc::clone(&listener), Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("control socket".to_owned())
            .spawn(move || accept(&accepting, &served))
            .map_err(io("start a thread for"))?;
        Ok(Self {
            path: path.into(),
            inode,
            listener,
            shared,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
        // Ends the accept call that the thread waits in.
        let _ =
            nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn refuse_if_taken(path: &Path) -> Result<(), ControlSocketError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(ControlSocketError::NoSocket { path: path.into() });
    }
    // Nobody listens on a dead process's socket.
    let Ok(stream) = UnixStream::connect(path) else {
        return Ok(());
    };
    let pid = getsockopt(&stream, PeerCredentials).map_or(0, |peer| peer.pid());
    Err(ControlSocketError::InUse {
        path: path.into(),
        pid,
    })
}

/// Binds under another name and renames, so that at `path` there is never a socket with other
/// permissions, nor none where a stale one was.
fn bind(path: &Path) -> Result<UnixListener, ControlSocketError> {
    let io = |what| {
        move |source| ControlSocketError::Io {
            what,
            path: path.into(),
            source,
        }
    };
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        fs::create_dir_all(directory).map_err(io("make the directory of"))?;
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(io("listen on"))?;
    let placed = fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&fresh, path));
    if let Err(source) = placed {
        let _ = fs::remove_file(&fresh);
        return Err(io("put a socket at")(source));
    }
    Ok(listener)
}

/// What the server's threads share.
struct Shared {
    view: Arc<dyn NodeView>,
    stopping: AtomicBool,
    /// The clients' connections, to end them when the server stops.
    clients: Mutex<BTreeMap<u64, UnixStream>>,
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, BTreeMap<u64, UnixStream>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for id in 0.. {
        let stream = match listener.accept() {
            _ if shared.stopping.load(SeqCst) => break,
            Ok((stream, _)) => stream,
            Err(error) => {
                log::warn!("control socket: {error}");
                // Out of descriptors, most likely: they come back when clients go.
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        threads.retain(|thread| !thread.is_finished());
        match admit(stream, shared, id) {
            Ok(Some(thread)) => threads.push(thread),
            Ok(None) => {}
            Err(error) => log::warn!("control socket: a client was turned away: {error}"),
        }
    }
    for client in shared.clients().values() {
        let _ = client.shutdown(Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn admit(stream: UnixStream, shared: &Arc<Shared>, id: u64) -> io::Result<Option<JoinHandle<()>>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let count = shared.clients().len();
    if count >= CLIENTS {
        let text = format!("{count} clients are served already; end one and try again");
        // So short a line always finds room in a new connection's buffer.
        send(&mut &stream, &Reply::Error(text))?;
        return Ok(None);
    }
    shared.clients().insert(id, stream.try_clone()?);
    let served = Arc::clone(shared);
    let thread = thread::Builder::new()
        .name(format!("control client {id}"))
        .spawn(move || {
            // A client that went away or did not read is the end of its connection, no more.
            if let Err(error) = serve(&stream, &*served.view) {
                log::debug!("control client {id}: {error}");
            }
            served.clients().remove(&id);
        });
    if thread.is_err() {
        shared.clients().remove(&id);
    }
    thread.map(Some)
}

/// Answers one client's requests until it has no more.
fn serve(stream: &UnixStream, view: &dyn NodeView) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = BufWriter::new(stream);
    loop {
        let mut line = Vec::new();
        if (&mut reader).take(REQUEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let request = match parse(&line) {
            Ok(request) => request,
            Err(text) => {
                send(&mut writer, &Reply::Error(text))?;
                return leave(stream);
            }
        };
        let reply = match request {
            Request::Routes => Reply::Routes(view.routes()),
            Request::Counters => Reply::Counters(view.counters()),
            Request::Fdb => Reply::Fdb(view.fdb()),
            Request::Status => Reply::Status(view.status()),
            Request::ProbeMtu(wanted) => match view.probe_mtu(&wanted) {
                Ok(report) => Reply::Mtu(report),
                Err(text) => Reply::Error(text),
            },
            Request::Bgp(wanted) => match view.bgp(&wanted) {
                Ok(answer) => Reply::Bgp(answer),
                Err(text) => Reply::Error(text),
            },
            Request::ProbeWays(wanted) => match view.probe_ways(&wanted) {
                Ok(report) => Reply::Ways(report),
                Err(text) => Reply::Error(text),
            },
            Request::FastPath { on } => match view.switch_fast_path(on) {
                Ok(()) => Reply::Status(view.status()),
                Err(text) => Reply::Error(text),
            },
            Request::Capture(wanted) => match view.capture(&wanted) {
                Ok(capture) => return stream_packets(stream, reader, &wanted, &capture),
                Err(error) => Reply::Error(error.to_string()),
            },
        };
        send(&mut writer, &reply)?;
    }
}

/// Ends the connection once the client has said all that it wanted, within bounds: ended earlier, it
/// would fail to write and not read why.
fn leave(stream: &UnixStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream.take(16 * REQUEST), &mut io::sink()).map(drop)
}

fn parse(line: &[u8]) -> Result<Request, String> {
    if !line.ends_with(b"\n") {
        return Err(format!(
            "a request is one line of JSON of at most {REQUEST} bytes with a newline at its end"
        ));
    }
    serde_json::from_slice(line).map_err(|error| {
        format!("not a request: {error}; write one such as {{\"request\":\"routes\"}}")
    })
}

fn send(writer: &mut impl Write, reply: &Reply) -> io::Result<()> {
    put(writer, reply)?;
    writer.flush()
}

fn put(writer: &mut impl Write, reply: &Reply) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, reply)?;
    writer.write_all(b"\n")
}

/// Sends packets until the client has enough or is gone.
///
/// A client that reads slowly holds up this thread only: the channel fills and packets are missed.
fn stream_packets(
    stream: &UnixStream,
    mut reader: BufReader<&UnixStream>,
    wanted: &CaptureRequest,
    capture: &Capture,
) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    let (watched, gone) = bounded::<()>(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            wait_for_end(&mut reader);
            drop(watched);
        });
        let outcome = send_packets(stream, wanted, capture, &gone);
        // Lets the watching thread's read end.
        let _ = stream.shutdown(Shutdown::Both);
        outcome
    })
}

fn wait_for_end(reader: &mut impl Read) {
    let mut ignored = [0; 256];
    loop {
        match reader.read(&mut ignored) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
        }
    }
}

fn send_packets(
    stream: &UnixStream,
    wanted: &CaptureRequest,
    capture: &Capture,
    gone: &Receiver<()>,
) -> io::Result<()> {
    let mut writer = BufWriter::new(stream);
    let ports = capture.ports().iter().map(PortRow::from).collect();
    let start = CaptureStart {
        ports,
        snap_length: wanted.snap_length,
    };
    send(&mut writer, &Reply::Capture(start))?;
    let mut sent = 0;
    let reason = loop {
        if wanted.count.is_some_and(|count| sent >= count) {
            break EndReason::Count;
        }
        let packet = select! {
            recv(gone) -> _ => break EndReason::Client,
            recv(capture.packets()) -> packet => packet,
        };
        let Ok(packet) = packet else {
            break EndReason::PortsGone;
        };
        put(&mut writer, &Reply::Packet(packet.into()))?;
        sent += 1;
        if capture.packets().is_empty() {
            writer.flush()?;
        }
    };
    send(
        &mut writer,
        &Reply::End(CaptureEnd {
            sent,
            missed: capture.missed(),
            reason,
        }),
    )
}
