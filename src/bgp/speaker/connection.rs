//! A connection's socket and what waits to be sent on it.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;

use crate::bgp::session::Time;

/// So much is asked of the core at a time: a peer that does not read costs no more.
const BUFFER: usize = 128 * 1024;
/// After a last word the peer gets so long to read it.
const LINGER: Time = Time::from_secs(2);

/// A connection.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) phase: Phase,
    /// There may be more to read.
    pub(super) readable: bool,
    /// The socket takes nothing at the moment.
    blocked: bool,
    unsent: Vec<u8>,
    sent: usize,
    progress: Time,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
    /// The last word is said; it is closed then, or when the peer has closed it.
    Closing(Time),
}

impl Connection {
    pub(super) fn new(stream: TcpStream, phase: Phase, now: Time) -> Self {
        Self {
            stream,
            phase,
            readable: phase == Phase::Open,
            blocked: false,
            unsent: Vec::new(),
            sent: 0,
            progress: now,
        }
    }

    /// Whether an attempt to connect has come to an end.
    pub(super) fn outcome(&mut self) -> Option<io::Result<()>> {
        if let Ok(Some(error)) | Err(error) = self.stream.take_error() {
            return Some(Err(error));
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.phase = Phase::Open;
                Some(Ok(()))
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Reads into a buffer: how much; none: nothing is there now; 0: the peer has closed.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.stream.read(buffer) {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The socket takes something again.
    pub(super) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Whether more can be asked for.
    pub(super) fn has_room(&self) -> bool {
        self.phase == Phase::Open && !self.blocked && self.unsent.len() < BUFFER
    }

    /// Where to put it, and how much of it.
    pub(super) fn room(&mut self) -> (&mut Vec<u8>, usize) {
        (&mut self.unsent, BUFFER)
    }

    /// Sends what can be sent; true: everything.
    pub(super) fn flush(&mut self, now: Time) -> io::Result<bool> {
        while self.sent < self.unsent.len() && !self.blocked {
            match self.stream.write(&self.unsent[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    self.progress = now;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.unsent.len() {
            self.unsent.clear();
            self.sent = 0;
            self.progress = now;
        } else if self.sent >= BUFFER / 2 {
            self.unsent.drain(..self.sent);
            self.sent = 0;
        }
        Ok(self.unsent.is_empty())
    }

    /// How long the peer has taken nothing of what waits.
    pub(super) fn stalled_for(&self, now: Time) -> Time {
        match self.unsent.is_empty() {
            true => Time::ZERO,
            false => now.saturating_sub(self.progress),
        }
    }

    /// Says a last word. The connection is not closed before the peer could read it: unread bytes of the
    /// peer's would make of the end a reset, which throws it away.
    pub(super) fn close(&mut self, last: &[u8], now: Time) {
        self.unsent.extend_from_slice(last);
        self.phase = Phase::Closing(now + LINGER);
        if self.flush(now).unwrap_or(true) {
            let _ = self.stream.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Whether a closing connection is at its end; what still comes is thrown away.
    pub(super) fn is_over(&mut self, now: Time) -> bool {
        let Phase::Closing(until) = self.phase else {
            return false;
        };
        if now >= until {
            return true;
        }
        match self.flush(now) {
            Ok(true) => drop(self.stream.shutdown(std::net::Shutdown::Write)),
            Ok(false) => {}
            Err(_) => return true,
        }
        let mut thrown_away = [0; 4096];
        // A peer that goes on sending is cut off in the end.
        for _ in 0..16 {
            match self.read(&mut thrown_away) {
                Ok(Some(0)) | Err(_) => return true,
                Ok(Some(_)) => {}
                Ok(None) => return false,
            }
        }
        false
    }
}
