//! A small HTTP/1.1 server for answers without requests' bodies (RFC 9112): one request a connection.
//!
//! Nothing that a client does holds up another: each connection has a thread, a deadline, and a bound on
//! what is read of it; when there are too many, the oldest has to go.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long one write waits for a client to make room.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// How long is waited for a client to take its answer and close.
const LINGER: Duration = Duration::from_millis(500);

/// Bytes of a request's head at most.
const MOST_BYTES: usize = 8192;

/// Connections at a time.
const CONNECTIONS: usize = 32;

/// What is answered to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The body's type.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

/// A request's method and its target up to the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// `GET`, …
    pub method: &'a str,
    /// `/metrics`, …
    pub path: &'a str,
}

/// A running server; it stops when dropped.
pub struct Server {
    address: SocketAddr,
    listener: TcpListener,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The open connections, oldest first, to be closed when others need their place.
type Open = Arc<Mutex<VecDeque<(u64, TcpStream)>>>;

impl Server {
    /// Listens on an address and has `handler` answer.
    pub fn start(
        address: SocketAddr,
        handler: impl Fn(Request<'_>) -> Answer + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (accepting, stop) = (listener.try_clone()?, Arc::clone(&stopping));
        let handler = Arc::new(handler);
        let thread = thread::Builder::new()
            .name(format!("http {}", address.port()))
            .spawn(move || accept(&accepting, &stop, &handler))?;
        Ok(Self {
            address,
            listener,
            stopping,
            thread: Some(thread),
        })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts (Linux).
        let _ =
            nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept<H>(listener: &TcpListener, stopping: &AtomicBool, handler: &Arc<H>)
where
    H: Fn(Request<'_>) -> Answer + Send + Sync + 'static,
{
    let open = Open::default();
    let mut number = 0;
    while !stopping.load(Ordering::SeqCst) {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(_) if stopping.load(Ordering::SeqCst) => break,
            Err(error) => {
                // Too many open files, or a client that has gone.
                log::debug!("http: accept: {error}");
                thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        number += 1;
        if let Err(error) = attend(number, stream, &open, handler) {
            log::debug!("http: {error}");
        }
    }
    for (_, stream) in lock(&open).drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Answers a connection in a thread of its own, in the place of the oldest one if need be.
fn attend<H>(number: u64, stream: TcpStream, open: &Open, handler: &Arc<H>) -> io::Result<()>
where
    H: Fn(Request<'_>) -> Answer + Send + Sync + 'static,
{
    let mut connections = lock(open);
    if connections.len() >= CONNECTIONS
        && let Some((_, oldest)) = connections.pop_front()
    {
        let _ = oldest.shutdown(Shutdown::Both);
    }
    connections.push_back((number, stream.try_clone()?));
    drop(connections);
    let (open, handler) = (Arc::clone(open), Arc::clone(handler));
    let left = Arc::clone(&open);
    let started = thread::Builder::new().name("http".into()).spawn(move || {
        let served = serve(stream, &*handler);
        if let Err(error) = served {
            log::debug!("http: {error}");
        }
        lock(&open).retain(|(other, _)| *other != number);
    });
    if let Err(error) = started {
        lock(&left).retain(|(other, _)| *other != number);
        return Err(error);
    }
    Ok(())
}

fn serve(mut stream: TcpStream, handler: &impl Fn(Request<'_>) -> Answer) -> io::Result<()> {
    stream.set_write_timeout(Some(SEND_TIMEOUT))?;
    let head = read_head(&mut stream)?;
    let text = String::from_utf8_lossy(&head);
    let (answer, with_body) = match parse(&text) {
        Some(request) => (handler(request), request.method != "HEAD"),
        None => (Answer::plain(400, "this is no HTTP request\n"), true),
    };
    stream.write_all(&encode(&answer, with_body))?;
    stream.shutdown(Shutdown::Write)?;
    discard(&mut stream);
    Ok(())
}

/// What a client sends until an empty line.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
    while !ends_with_empty_line(&head) && head.len() < MOST_BYTES {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(head)
}

/// Reads on for a moment: to close with something unread would take the answer from the client.
fn discard(stream: &mut TcpStream) {
    let deadline = Instant::now() + LINGER;
    let mut chunk = [0; 1024];
    for _ in 0..64 {
        let read = remaining(deadline)
            .and_then(|time| stream.set_read_timeout(Some(time)))
            .and_then(|()| stream.read(&mut chunk));
        if !read.is_ok_and(|read| read > 0) {
            return;
        }
    }
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

fn ends_with_empty_line(head: &[u8]) -> bool {
    head.windows(4).any(|window| window == b"\r\n\r\n") || head.windows(2).any(|w| w == b"\n\n")
}

fn parse(head: &str) -> Option<Request<'_>> {
    let mut words = head.lines().next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let right = words.next().is_none()
        && version.starts_with("HTTP/1.")
        && !method.is_empty()
        && method.bytes().all(|byte| byte.is_ascii_uppercase());
    right.then(|| Request {
        method,
        path: target.split('?').next().unwrap_or_default(),
    })
}

impl Answer {
    /// A line of text.
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            content_type: "text/plain; charset=utf-8",
            body: text.into(),
        }
    }
}

fn encode(answer: &Answer, with_body: bool) -> Vec<u8> {
    let reason = match answer.code {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Service Unavailable",
    };
    let allow = if answer.code == 405 {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let mut bytes = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        answer.code,
        answer.content_type,
        answer.body.len(),
    )
    .into_bytes();
    if with_body {
        bytes.extend_from_slice(answer.body.as_bytes());
    }
    bytes
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_read_and_nothing_else() {
        let of = |head| parse(head).map(|request| (request.method, request.path));
        assert_eq!(
            of("GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"),
            Some(("GET", "/a"))
        );
        assert_eq!(of("HEAD /a HTTP/1.0\n\n"), Some(("HEAD", "/a")));
        for bad in [
            "",
            "GET",
            "GET /a",
            "GET /a HTTP/2",
            "get /a HTTP/1.1",
            "GET  /a HTTP/1.1",
            "\0\0\0 /",
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let answer = Answer::plain(200, "four");
        let with = String::from_utf8(encode(&answer, true)).unwrap();
        assert!(
            with.ends_with("Content-Length: 4\r\nConnection: close\r\n\r\nfour"),
            "{with}"
        );
        let without = String::from_utf8(encode(&answer, false)).unwrap();
        assert!(
            without.ends_with("Content-Length: 4\r\nConnection: close\r\n\r\n"),
            "{without}"
        );
    }
}
