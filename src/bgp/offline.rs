//! The speaker without sockets and clocks, and messages by themselves: for tests, fuzzers and studies.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use super::attributes::{Attributes, OwnRoute};
use super::core::{Core, Output, View};
use super::event::Event;
use super::message::encode::{self, Format};
use super::message::open::Open;
use super::message::update::{Context, Update};
use super::message::{HEADER, LONGEST, LONGEST_EXTENDED, Notification, Refresh, header};
use super::report::{NeighborReport, RouteQuery, RouteReport};
use super::session::ConnectionId;
use super::settings::{Settings, SettingsError};

/// A speaker whose peers and time are the caller's.
pub struct Offline {
    core: Core,
    now: Duration,
    /// Connections that are open, and what is to be sent on them.
    open: Vec<(ConnectionId, Vec<u8>)>,
    /// What was sent before a connection was closed.
    closed: Vec<(ConnectionId, Vec<u8>)>,
}

impl Offline {
    /// A speaker at the time 0; it never connects by itself.
    pub fn new(mut settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        for peer in settings.peers.values_mut() {
            peer.passive = true;
        }
        Ok(Self {
            core: Core::new(settings, None, 1),
            now: Duration::ZERO,
            open: Vec::new(),
            closed: Vec::new(),
        })
    }

    /// A peer connects: the connection's number, if it is let in.
    pub fn connect(&mut self, from: IpAddr, local: IpAddr) -> Option<u64> {
        let id = self.core.accept(self.now, from, 0, local)?;
        self.open.push((id, Vec::new()));
        self.settle();
        Some(id.0)
    }

    /// Bytes come on a connection.
    pub fn receive(&mut self, connection: u64, bytes: &[u8]) {
        self.core
            .received(self.now, ConnectionId(connection), bytes);
        self.settle();
    }

    /// The peer closes a connection.
    pub fn close(&mut self, connection: u64) {
        self.open.retain(|(id, _)| id.0 != connection);
        self.core
            .lost(self.now, ConnectionId(connection), "Connection closed");
        self.settle();
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.core.deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.core.tick(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// Whether a connection is open.
    pub fn is_open(&self, connection: u64) -> bool {
        self.open.iter().any(|(id, _)| id.0 == connection)
    }

    /// What was sent on a connection since the last call.
    pub fn sent(&mut self, connection: u64) -> Vec<u8> {
        let mut all = self.open.iter_mut().chain(&mut self.closed);
        let found = all.find(|(id, _)| id.0 == connection);
        found
            .map(|(_, sent)| std::mem::take(sent))
            .unwrap_or_default()
    }

    /// Sets all own routes.
    pub fn originate(&mut self, routes: Vec<OwnRoute>) {
        self.core.originate(self.now, routes);
        self.settle();
    }

    /// What happened since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        let mut all = Vec::new();
        loop {
            let events = self.core.events();
            if events.is_empty() {
                return all;
            }
            all.extend(events);
        }
    }

    /// All neighbours; times begin at the epoch.
    pub fn neighbors(&self) -> Vec<NeighborReport> {
        self.core.neighbors(SystemTime::UNIX_EPOCH)
    }

    /// What peers have told.
    pub fn received(&self) -> Vec<RouteReport> {
        let all = RouteQuery::default();
        self.core
            .routes(View::Received, &all, SystemTime::UNIX_EPOCH)
    }

    fn settle(&mut self) {
        for output in self.core.outputs() {
            if let Output::Close { id, last } = output
                && let Some(place) = self.open.iter().position(|(of, _)| *of == id)
            {
                let (id, mut sent) = self.open.swap_remove(place);
                sent.extend(last);
                self.closed.push((id, sent));
            }
        }
        for (id, sent) in &mut self.open {
            self.core.write(*id, sent, LONGEST_EXTENDED);
        }
    }
}

/// What the reading of UPDATEs depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The sender is in another AS.
    pub external: bool,
    /// AS numbers have four bytes.
    pub four_octet: bool,
    /// Prefixes have path identifiers.
    pub path_ids: bool,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// An UPDATE's routes: those that are there, by what is said of them, and those that are gone.
    Routes(Vec<(Attributes, Vec<IpNet>)>, Vec<IpNet>),
    /// A NOTIFICATION, for people.
    Notification(String),
    /// Another message that is right.
    Other,
}

/// Reads one message; an error is the NOTIFICATION's code and subcode that it is answered with. None: it is
/// not all there.
pub fn read(message: &[u8], reading: Reading) -> Result<Option<Said>, (u8, u8)> {
    let code = |error: Notification| (error.code, error.subcode);
    let Some((kind, length)) = header(message, LONGEST_EXTENDED).map_err(code)? else {
        return Ok(None);
    };
    let Some(body) = message.get(HEADER..length) else {
        return Ok(None);
    };
    use super::message::Kind;
    Ok(Some(match kind {
        Kind::Open => Open::read(body).map(|_| Said::Other).map_err(code)?,
        Kind::Keepalive => Said::Other,
        Kind::Refresh => Refresh::read(body).map(|_| Said::Other).map_err(code)?,
        Kind::Notification => Said::Notification(Notification::read(body).to_string()),
        Kind::Update => routes(body, reading).map_err(code)?,
    }))
}

fn routes(body: &[u8], reading: Reading) -> Result<Said, Notification> {
    let context = Context {
        external: reading.external,
        four_octet: reading.four_octet,
        families: [true; 2],
        path_ids: [reading.path_ids; 2],
        extended_next_hop: true,
    };
    let update = Update::read(body, &context)?;
    let nets = |of: &super::message::update::Prefixes| -> Vec<IpNet> {
        let v4 = of.v4.iter().map(|(_, net)| IpNet::V4(*net));
        v4.chain(of.v6.iter().map(|(_, net)| IpNet::V6(*net)))
            .collect()
    };
    let announced = update
        .announced
        .iter()
        .map(|(said, of)| (said.clone(), nets(of)));
    Ok(Said::Routes(announced.collect(), nets(&update.withdrawn)))
}

/// Writes UPDATEs for prefixes of one family; none: the attributes leave no room in a message.
pub fn write(attributes: &Attributes, prefixes: &[IpNet], four_octet: bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let format = Format {
        four_octet,
        longest: LONGEST,
    };
    encode::announce(&mut bytes, attributes, prefixes, format).then_some(bytes)
}
