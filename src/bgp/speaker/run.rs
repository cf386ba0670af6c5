//! The loop: waits for sockets, commands and time, and lets the core do the rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use log::{debug, info, warn};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};

use super::connection::{Connection, Phase};
use super::{Command, Deaf, Error, Start, Stop, socket};
use crate::bgp::core::{Core, Output};
use crate::bgp::event::Event;
use crate::bgp::report::State;
use crate::bgp::session::{ConnectionId, Time};
use crate::bgp::settings::{PeerSettings, Settings};

pub(super) const WAKER: Token = Token(0);
/// Listeners have odd tokens, connections even ones.
const fn listener(nth: usize) -> Token {
    Token(nth * 2 + 1)
}
const fn connection(id: ConnectionId) -> Token {
    Token(id.0 as usize * 2)
}

/// A connection's bytes are read in turns, so that nobody keeps the others waiting.
const READ: usize = 64 * 1024;
const READS: usize = 4;
/// How soon a full channel is tried again.
const FULL: Duration = Duration::from_millis(1);
/// How often the kernel is asked for signatures that did not fit.
const SIGNATURES: Time = Time::from_secs(3);
/// How often it is tried again to listen where that was not possible.
const LISTEN: Time = Time::from_secs(2);
/// How long last words may take at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Everything the thread has.
pub(super) struct Runner {
    poll: mio::Poll,
    core: Core,
    settings: Settings,
    began: Instant,
    epoch: SystemTime,
    commands: Receiver<Command>,
    tell: Sender<Event>,
    untold: VecDeque<Event>,
    listeners: BTreeMap<SocketAddr, (Token, TcpListener)>,
    next_listener: usize,
    listen_at: Option<Time>,
    deaf: Deaf,
    passwords: BTreeMap<IpAddr, String>,
    connections: BTreeMap<ConnectionId, Connection>,
    buffer: Vec<u8>,
    signatures: Signatures,
}

impl Runner {
    pub(super) fn new(
        poll: mio::Poll,
        (commands, tell): (Receiver<Command>, Sender<Event>),
        deaf: Deaf,
        settings: &Settings,
        start: Start,
    ) -> Self {
        let seed = RandomState::new().hash_one(settings.router_id);
        let kept_by = match start {
            Start::Fresh => None,
            Start::Restarted(peers) => Some(peers),
        };
        Self {
            poll,
            core: Core::new(settings.clone(), kept_by, seed),
            settings: settings.clone(),
            began: Instant::now(),
            epoch: SystemTime::now(),
            commands,
            tell,
            untold: VecDeque::new(),
            listeners: BTreeMap::new(),
            next_listener: 0,
            listen_at: None,
            deaf,
            passwords: BTreeMap::new(),
            connections: BTreeMap::new(),
            buffer: vec![0; READ],
            signatures: Signatures::new(),
        }
    }

    pub(super) fn run(mut self) {
        let mut happened = mio::Events::with_capacity(256);
        loop {
            if let Err(error) = self.poll.poll(&mut happened, self.patience())
                && error.kind() != io::ErrorKind::Interrupted
            {
                warn!("BGP: waiting failed: {error}");
                return;
            }
            for event in &happened {
                self.happened(event);
            }
            if let Some(how) = self.obey() {
                self.stop(how);
                return;
            }
            self.read();
            // Before anything that walks over the tables.
            self.pass_events();
            self.tick();
            self.output();
            self.write();
            self.pass_events();
        }
    }

    fn now(&self) -> Time {
        self.began.elapsed()
    }

    fn patience(&self) -> Option<Duration> {
        let now = self.now();
        if self
            .connections
            .values()
            .any(|of| of.readable && of.phase == Phase::Open)
        {
            return Some(Duration::ZERO);
        }
        let full = (!self.untold.is_empty()).then_some(FULL);
        let due = self.core.deadline().map(|at| at.saturating_sub(now));
        let closing = self.connections.values().filter_map(|of| match of.phase {
            Phase::Closing(until) => Some(until.saturating_sub(now)),
            _ => None,
        });
        // Stalled connections and bad signatures are looked for now and then.
        closing
            .chain(due)
            .chain(full)
            .chain([Duration::from_secs(1)])
            .min()
    }

    fn happened(&mut self, event: &mio::event::Event) {
        let token = event.token();
        if token == WAKER {
            return;
        }
        if token.0 % 2 == 1 {
            self.accept(token);
            return;
        }
        let id = ConnectionId(token.0 as u64 / 2);
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        if event.is_writable() {
            connection.unblock();
        }
        if connection.phase == Phase::Connecting {
            match connection.outcome() {
                None => {}
                Some(Ok(())) => self.connected(id),
                Some(Err(error)) => self.lost(id, &error),
            }
        }
    }

    fn accept(&mut self, token: Token) {
        let listener = self.listeners.values().find(|(of, _)| *of == token);
        let Some((_, listener)) = listener else {
            return;
        };
        let mut accepted = Vec::new();
        loop {
            match listener.accept() {
                Ok(one) => accepted.push(one),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!("BGP: a connection could not be accepted: {error}");
                    break;
                }
            }
        }
        for (stream, from) in accepted {
            self.welcome(stream, from);
        }
    }

    fn welcome(&mut self, stream: TcpStream, from: SocketAddr) {
        let scope_id = match from {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(from) => from.scope_id(),
        };
        let same = |peer: &&PeerSettings| peer.address == from.ip();
        let Some(peer) = self.settings.peers.values().find(same) else {
            debug!("BGP: {from} is no peer, and is not let in");
            return;
        };
        let ready = socket::accepted(&stream, peer).and_then(|()| stream.local_addr());
        let local = match ready {
            Ok(local) => local.ip(),
            Err(error) => {
                debug!("BGP: {from}: {error}");
                return;
            }
        };
        let now = self.now();
        if let Some(id) = self.core.accept(now, from.ip(), scope_id, local) {
            self.add(id, Connection::new(stream, Phase::Open, now));
        }
    }

    fn add(&mut self, id: ConnectionId, mut connection_: Connection) {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        match registry.register(&mut connection_.stream, connection(id), interest) {
            Ok(()) => drop(self.connections.insert(id, connection_)),
            Err(error) => self.core.lost(self.now(), id, &error.to_string()),
        }
    }

    fn connected(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.readable = true;
        match connection.stream.local_addr() {
            Ok(local) => self.core.connected(self.now(), id, local.ip()),
            Err(error) => self.lost(id, &error),
        }
    }

    fn lost(&mut self, id: ConnectionId, error: &io::Error) {
        self.connections.remove(&id);
        self.core.lost(self.now(), id, &text(error));
    }

    fn read(&mut self) {
        let readable = |(id, of): (&ConnectionId, &Connection)| {
            (of.readable && of.phase == Phase::Open).then_some(*id)
        };
        let ids: Vec<_> = self.connections.iter().filter_map(readable).collect();
        let mut buffer = std::mem::take(&mut self.buffer);
        for id in ids {
            for _ in 0..READS {
                let Some(connection) = self.connections.get_mut(&id) else {
                    break;
                };
                if !connection.readable || connection.phase != Phase::Open {
                    break;
                }
                match connection.read(&mut buffer) {
                    Ok(None) => break,
                    Ok(Some(0)) => {
                        self.lost(id, &io::ErrorKind::UnexpectedEof.into());
                        break;
                    }
                    Ok(Some(count)) => {
                        self.core.received(self.now(), id, &buffer[..count]);
                        self.output();
                    }
                    Err(error) => {
                        self.lost(id, &error);
                        break;
                    }
                }
            }
        }
        self.buffer = buffer;
    }

    fn tick(&mut self) {
        let now = self.now();
        if self.core.deadline().is_some_and(|at| at <= now) {
            self.core.tick(now);
        }
        let stalled = |(id, of): (&ConnectionId, &Connection)| {
            let waits = of.phase == Phase::Open && of.stalled_for(now) > self.core.send_hold(*id);
            waits.then_some(*id)
        };
        let stalled: Vec<_> = self.connections.iter().filter_map(stalled).collect();
        for id in stalled {
            self.core.stalled(now, id);
        }
        self.connections
            .retain(|_, connection| !connection.is_over(now));
        self.look_for_bad_signatures(now);
        if self.listen_at.is_some_and(|at| at <= now) {
            let settings = self.settings.clone();
            if self.listen(&settings).is_ok() {
                info!("BGP: listening after all");
            }
        }
    }

    fn output(&mut self) {
        for output in self.core.outputs() {
            match output {
                Output::Connect { id, peer } => {
                    let Some(peer) = self.settings.peers.get(&peer) else {
                        continue;
                    };
                    match socket::connect(peer) {
                        Ok(stream) => {
                            self.add(id, Connection::new(stream, Phase::Connecting, self.now()))
                        }
                        Err(error) => self.core.lost(self.now(), id, &text(&error)),
                    }
                }
                Output::Close { id, last } => {
                    let now = self.now();
                    if let Some(connection) = self.connections.get_mut(&id) {
                        match connection.phase {
                            Phase::Connecting => drop(self.connections.remove(&id)),
                            _ => connection.close(&last, now),
                        }
                    }
                }
            }
        }
    }

    fn write(&mut self) {
        let now = self.now();
        let mut failed = Vec::new();
        for (id, connection) in &mut self.connections {
            // As much as the socket takes, within reason.
            for _ in 0..READS {
                if !connection.has_room() {
                    break;
                }
                let (to, limit) = connection.room();
                self.core.write(*id, to, limit);
                let empty = to.is_empty();
                if let Err(error) = connection.flush(now) {
                    failed.push((*id, error));
                    break;
                }
                if empty {
                    break;
                }
            }
        }
        for (id, error) in failed {
            self.lost(id, &error);
        }
    }

    fn pass_events(&mut self) {
        loop {
            if self.untold.is_empty() {
                self.untold.extend(self.core.events());
            }
            let Some(event) = self.untold.pop_front() else {
                return;
            };
            match self.tell.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.untold.push_front(event);
                    return;
                }
                // Nobody listens: what is told is forgotten.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// Some way to end, if one is asked for.
    fn obey(&mut self) -> Option<Stop> {
        while let Ok(command) = self.commands.try_recv() {
            let now = self.now();
            match command {
                Command::Configure(settings, reply) => {
                    let outcome = self.configure(*settings);
                    let _ = reply.send(outcome);
                }
                Command::Originate(routes) => self.core.originate(now, routes),
                Command::Unreachable(next_hops) => self.core.set_unreachable(now, next_hops),
                Command::Neighbors(reply) => drop(reply.send(self.core.neighbors(self.epoch))),
                Command::Routes(view, query, reply) => {
                    let _ = reply.send(self.core.routes(view, &query, self.epoch));
                }
                Command::Advertised(peer, query, reply) => {
                    let _ = reply.send(self.core.advertised(&peer, &query, self.epoch));
                }
                Command::Reset(peer, softly, reply) => {
                    let _ = reply.send(self.core.reset(now, &peer, softly));
                }
                Command::Shared(reply) => drop(reply.send(self.core.shared())),
                Command::Stop(how) => return Some(how),
            }
        }
        None
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Error> {
        self.core.configure(self.now(), settings.clone());
        let outcome = self.listen(&settings);
        self.settings = settings;
        outcome
    }

    /// Listens where it is said, and nowhere else.
    pub(super) fn listen(&mut self, settings: &Settings) -> Result<(), Error> {
        self.listeners
            .retain(|address, _| settings.listen.contains(address));
        let mut outcome = Ok(());
        let mut deaf = BTreeMap::new();
        self.listen_at = None;
        for address in &settings.listen {
            if self.listeners.contains_key(address) {
                continue;
            }
            if let Err(error) = self.listen_on(*address) {
                self.listen_at = Some(self.now() + LISTEN);
                deaf.insert(*address, error.to_string());
                outcome = Err(Error::Listen(*address, error));
            }
        }
        *self.deaf.lock().unwrap_or_else(PoisonError::into_inner) = deaf;
        self.set_passwords(settings);
        outcome
    }

    fn listen_on(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut listener_ = socket::listen(address)?;
        let token = listener(self.next_listener);
        self.next_listener += 1;
        self.poll
            .registry()
            .register(&mut listener_, token, Interest::READABLE)?;
        for (peer, password) in &self.passwords {
            if peer.is_ipv4() == address.is_ipv4() {
                socket::set_password(&listener_, *peer, password)?;
            }
        }
        self.listeners.insert(address, (token, listener_));
        Ok(())
    }

    fn set_passwords(&mut self, settings: &Settings) {
        let of_peer = |peer: &PeerSettings| Some((peer.address, peer.password.clone()?));
        let wanted: BTreeMap<_, _> = settings.peers.values().filter_map(of_peer).collect();
        let gone = self
            .passwords
            .keys()
            .filter(|peer| !wanted.contains_key(peer));
        let gone: Vec<_> = gone.map(|peer| (*peer, String::new())).collect();
        let fresh = wanted
            .iter()
            .filter(|(peer, password)| self.passwords.get(peer) != Some(password));
        let fresh: Vec<_> = fresh
            .map(|(peer, password)| (*peer, password.clone()))
            .collect();
        for (peer, password) in gone.into_iter().chain(fresh) {
            for (address, (_, listener)) in &self.listeners {
                if address.is_ipv4() != peer.is_ipv4() {
                    continue;
                }
                if let Err(error) = socket::set_password(listener, peer, &password) {
                    warn!("BGP: the password of {peer} cannot be set: {error}");
                }
            }
        }
        self.passwords = wanted;
    }

    /// The kernel drops what is signed wrongly, and says so in counters alone.
    fn look_for_bad_signatures(&mut self, now: Time) {
        if !self.signatures.is_due(now) {
            return;
        }
        let neighbors = self.core.neighbors(self.epoch);
        let down: BTreeSet<_> = neighbors
            .iter()
            .filter(|of| of.state != State::Established)
            .map(|of| &of.name)
            .collect();
        if down.is_empty() {
            self.signatures.read();
            return;
        }
        let (wrong, unexpected) = self.signatures.read();
        for name in down {
            let Some(peer) = self.settings.peers.get(name) else {
                continue;
            };
            match peer.password.is_some() {
                true if wrong => self.core.hint(
                    name,
                    "Wrong password: TCP MD5 signatures do not fit (RFC 2385)",
                ),
                false if unexpected => self.core.hint(
                    name,
                    "The peer has a password (TCP MD5), and none is configured here",
                ),
                _ => {}
            }
        }
    }

    fn stop(mut self, how: Stop) {
        match how {
            Stop::Shutdown(text) => self.core.stop(&text, false),
            Stop::Restarting => self.core.stop("restarting", true),
        }
        self.output();
        let end = Instant::now() + FAREWELL;
        let mut happened = mio::Events::with_capacity(64);
        while !self.connections.is_empty() && Instant::now() < end {
            let _ = self
                .poll
                .poll(&mut happened, Some(Duration::from_millis(20)));
            for event in &happened {
                if let Some(connection) = self
                    .connections
                    .get_mut(&ConnectionId(event.token().0 as u64 / 2))
                {
                    connection.unblock();
                }
            }
            let now = self.now();
            self.connections
                .retain(|_, of| of.phase != Phase::Connecting && !of.is_over(now));
        }
    }
}

/// As BIRD says it.
fn text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "Connection closed".to_owned(),
        io::ErrorKind::ConnectionRefused => "Socket: Connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "Connection reset".to_owned(),
        _ => format!("Socket: {error}"),
    }
}

/// The kernel's counters of segments dropped for their signature, in this network namespace.
struct Signatures {
    due: Time,
    wrong: u64,
    unexpected: u64,
}

impl Signatures {
    fn new() -> Self {
        let mut signatures = Self {
            due: SIGNATURES,
            wrong: 0,
            unexpected: 0,
        };
        signatures.read();
        signatures
    }

    fn is_due(&mut self, now: Time) -> bool {
        let due = now >= self.due;
        if due {
            self.due = now + SIGNATURES;
        }
        due
    }

    /// Whether there are more since the last time: wrong or missing ones, and unexpected ones.
    fn read(&mut self) -> (bool, bool) {
        let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default();
        let wrong = counter(&text, "TCPMD5Failure") + counter(&text, "TCPMD5NotFound");
        let unexpected = counter(&text, "TCPMD5Unexpected");
        let more = (wrong > self.wrong, unexpected > self.unexpected);
        (self.wrong, self.unexpected) = (wrong, unexpected);
        more
    }
}

/// One of `TcpExt:`, of which one line has the names and the next the numbers.
fn counter(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    let mut pairs = names.split(' ').zip(values.split(' '));
    let value = pairs.find(|(of, _)| *of == name).map(|(_, value)| value);
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters() {
        let text = "TcpExt: A TCPMD5Failure B\nTcpExt: 1 7 3\nIpExt: TCPMD5Failure\nIpExt: 9\n";
        assert_eq!(counter(text, "TCPMD5Failure"), 7);
        assert_eq!(counter(text, "C"), 0);
    }
}
