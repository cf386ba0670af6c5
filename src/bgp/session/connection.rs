//! One TCP connection's part of the finite state machine (RFC 4271 §8): messages in the right order, hold
//! and keepalive timers. Which of two connections lives on is the session's to say.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{Config, ConnectionId, Random, Time};
use crate::bgp::message::notification::code;
use crate::bgp::message::open::{Capabilities, GracefulRestart, Open};
use crate::bgp::message::update::Context;
use crate::bgp::message::{
    self, Family, HEADER, Kind, LONGEST, LONGEST_EXTENDED, Notification, Refresh,
};
use crate::bgp::report::{Counters, State};

/// Until the peer's OPEN is there (RFC 4271 §8.2.2, "a large value").
const OPEN_HOLD: Duration = Duration::from_secs(240);
/// Until a connection is there.
const CONNECT: Duration = Duration::from_secs(10);
/// More keepalives are not put before a peer that does not read.
const UNSENT: usize = 1024;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    /// We have opened it.
    pub(super) outgoing: bool,
    pub(super) state: State,
    pub(super) agreed: Option<Agreed>,
    pub(super) unsent: Vec<u8>,
    local: Option<IpAddr>,
    received: Vec<u8>,
    read: usize,
    hold_at: Option<Time>,
    keepalive_at: Option<Time>,
}

/// What both sides have agreed by their OPENs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bgp) struct Agreed {
    pub(in crate::bgp) router_id: Ipv4Addr,
    pub(in crate::bgp) local: IpAddr,
    pub(in crate::bgp) hold_time: u16,
    pub(in crate::bgp) keepalive: Duration,
    /// How the peer's UPDATEs are read.
    pub(in crate::bgp) context: Context,
    /// The longest message that the peer takes.
    pub(in crate::bgp) longest: usize,
    pub(in crate::bgp) refresh: bool,
    pub(in crate::bgp) enhanced_refresh: bool,
    pub(in crate::bgp) graceful_restart: Option<GracefulRestart>,
}

impl Agreed {
    /// What both can, for people.
    pub(in crate::bgp) fn names(&self) -> Vec<&'static str> {
        let [v4, v6] = self.context.families;
        let named = [
            (v4, "IPv4 unicast"),
            (v6, "IPv6 unicast"),
            (self.context.four_octet, "4-octet AS"),
            (self.refresh, "route refresh"),
            (self.enhanced_refresh, "enhanced route refresh"),
            (self.longest > LONGEST, "extended message"),
            (self.graceful_restart.is_some(), "graceful restart"),
            (self.context.path_ids.contains(&true), "ADD-PATH receive"),
            (self.context.extended_next_hop, "extended next hop"),
        ];
        named
            .into_iter()
            .filter_map(|(there, name)| there.then_some(name))
            .collect()
    }
}

/// What a message has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// An OPEN that can be agreed on.
    Open,
    /// The session is up.
    Established,
    /// An UPDATE, whose body was handed out.
    Update,
    Refresh(Refresh),
    /// Nothing that anybody need know.
    Nothing,
    /// The peer ends the connection.
    Ended(Notification),
}

impl Connection {
    /// One that is being opened.
    pub(super) fn connecting(id: ConnectionId, now: Time) -> Self {
        Self {
            id,
            outgoing: true,
            state: State::Connect,
            agreed: None,
            unsent: Vec::new(),
            local: None,
            received: Vec::new(),
            read: 0,
            hold_at: Some(now + CONNECT),
            keepalive_at: None,
        }
    }

    /// One that the peer has opened.
    pub(super) fn incoming(id: ConnectionId, now: Time) -> Self {
        Self {
            outgoing: false,
            ..Self::connecting(id, now)
        }
    }

    /// It is there: the OPEN is sent.
    pub(super) fn opened(&mut self, now: Time, local: IpAddr, open: &Open) {
        self.local = Some(local);
        self.state = State::OpenSent;
        self.hold_at = Some(now + OPEN_HOLD);
        open.write(&mut self.unsent);
    }

    /// Bytes have come.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        if self.read == self.received.len() {
            self.received.clear();
        } else if self.read > 0 {
            self.received.drain(..self.read);
        }
        self.read = 0;
        self.received.extend_from_slice(bytes);
    }

    /// Reads one message: none while it is not all there; an error ends the connection. An UPDATE's body
    /// goes to `body`.
    pub(super) fn next(
        &mut self,
        now: Time,
        config: &Config,
        random: &mut Random,
        counters: &mut Counters,
        body: &mut Vec<u8>,
    ) -> Result<Option<Heard>, Notification> {
        let waiting = &self.received[self.read..];
        let Some((kind, length)) = message::header(waiting, self.longest_received(config))? else {
            return Ok(None);
        };
        if waiting.len() < length {
            return Ok(None);
        }
        count(counters, kind);
        let range = self.read + HEADER..self.read + length;
        self.read += length;
        body.clear();
        body.extend_from_slice(&self.received[range]);
        self.hear(now, kind, body, config, random).map(Some)
    }

    fn longest_received(&self, config: &Config) -> usize {
        match config.capabilities.extended_message && self.state >= State::OpenConfirm {
            true => LONGEST_EXTENDED,
            false => LONGEST,
        }
    }

    fn hear(
        &mut self,
        now: Time,
        kind: Kind,
        body: &[u8],
        config: &Config,
        random: &mut Random,
    ) -> Result<Heard, Notification> {
        match (self.state, kind) {
            (_, Kind::Notification) => Ok(Heard::Ended(Notification::read(body))),
            (State::OpenSent, Kind::Open) => {
                let open = Open::read(body)?;
                self.agree(now, &open, config, random)?;
                Ok(Heard::Open)
            }
            (State::OpenConfirm, Kind::Keepalive) => {
                self.state = State::Established;
                self.restart_hold(now);
                Ok(Heard::Established)
            }
            (State::Established, Kind::Keepalive) => {
                self.restart_hold(now);
                Ok(Heard::Nothing)
            }
            (State::Established, Kind::Update) => {
                self.restart_hold(now);
                Ok(Heard::Update)
            }
            (State::Established, Kind::Refresh) => {
                self.restart_hold(now);
                Refresh::read(body).map(Heard::Refresh)
            }
            (state, kind) => Err(unexpected(state, kind)),
        }
    }

    /// RFC 4271 §6.2.
    fn agree(
        &mut self,
        now: Time,
        open: &Open,
        config: &Config,
        random: &mut Random,
    ) -> Result<(), Notification> {
        if open.local_as != config.remote_as {
            let [.., high, low] = open.local_as.to_be_bytes();
            return Err(Notification::new(code::OPEN, 2)
                .with_data([high, low])
                .detail(format!(
                    "{}, where {} is expected",
                    open.local_as, config.remote_as
                )));
        }
        if open.router_id == config.router_id && open.local_as == config.local_as {
            return Err(Notification::new(code::OPEN, 3)
                .with_data(open.router_id.octets())
                .detail(format!("{}, which is ours", open.router_id)));
        }
        let agreed = config.agree(open, self.local.unwrap_or(IpAddr::V4(config.router_id)))?;
        self.agreed = Some(agreed);
        self.state = State::OpenConfirm;
        self.restart_hold(now);
        self.keepalive(now, random);
        Ok(())
    }

    fn restart_hold(&mut self, now: Time) {
        let hold = self.agreed.as_ref().map_or(0, |agreed| agreed.hold_time);
        self.hold_at = (hold > 0).then(|| now + Duration::from_secs(hold.into()));
    }

    fn keepalive(&mut self, now: Time, random: &mut Random) {
        if self.unsent.len() < UNSENT {
            message::write(&mut self.unsent, Kind::Keepalive, &[]);
        }
        let every = self
            .agreed
            .as_ref()
            .map_or(Duration::ZERO, |agreed| agreed.keepalive);
        self.keepalive_at = (!every.is_zero()).then(|| now + random.jittered(every));
    }

    /// Time has passed; true: a keepalive was put before the peer. An error ends the connection.
    pub(super) fn tick(&mut self, now: Time, random: &mut Random) -> Result<bool, Notification> {
        if self.hold_at.is_some_and(|at| at <= now) {
            return Err(Notification::hold_timer());
        }
        let due = self.keepalive_at.is_some_and(|at| at <= now);
        if due {
            self.keepalive(now, random);
        }
        Ok(due)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        [self.hold_at, self.keepalive_at]
            .into_iter()
            .flatten()
            .min()
    }
}

/// RFC 6608: the data is the message's type.
fn unexpected(state: State, kind: Kind) -> Notification {
    let subcode = match state {
        State::OpenSent => 1,
        State::OpenConfirm => 2,
        State::Established => 3,
        _ => 0,
    };
    Notification::new(code::FSM, subcode)
        .with_data([kind.code()])
        .detail(kind.name())
}

fn count(counters: &mut Counters, kind: Kind) {
    let received = &mut counters.received;
    *match kind {
        Kind::Open => &mut received.opens,
        Kind::Update => &mut received.updates,
        Kind::Notification => &mut received.notifications,
        Kind::Keepalive => &mut received.keepalives,
        Kind::Refresh => &mut received.refreshes,
    } += 1;
}

impl Config {
    /// What both can do; an error if that leaves nothing to talk about.
    fn agree(&self, open: &Open, local: IpAddr) -> Result<Agreed, Notification> {
        let (ours, theirs) = (&self.capabilities, &open.capabilities);
        // Whoever says nothing of families talks about IPv4 (RFC 4760 §8).
        let talks = |of: &Capabilities, family| match &of.families {
            Some(families) => families.contains(&family),
            None => family == Family::V4,
        };
        let families = Family::ALL.map(|family| talks(ours, family) && talks(theirs, family));
        if families == [false; 2] {
            let wanted = Family::ALL
                .into_iter()
                .filter(|family| talks(ours, *family));
            let data: Vec<_> = wanted
                .flat_map(|family| [1, 4, 0, family.afi() as u8, 0, 1])
                .collect();
            return Err(Notification::new(code::OPEN, 7)
                .with_data(data)
                .detail("no address family is spoken by both"));
        }
        let path_ids = Family::ALL.map(|family| {
            ours.add_path_receive.contains(&family) && theirs.add_path_send.contains(&family)
        });
        let hold_time = self.hold_time.min(open.hold_time);
        let third = Duration::from_secs(hold_time.into()) / 3;
        let keepalive = match hold_time {
            0 => Duration::ZERO,
            _ => self.keepalive.map_or(third, |wanted| wanted.min(third)),
        };
        let both = |of: fn(&Capabilities) -> bool| of(ours) && of(theirs);
        let extended = both(|of| of.extended_message);
        Ok(Agreed {
            router_id: open.router_id,
            local,
            hold_time,
            keepalive,
            context: Context {
                external: self.remote_as != self.local_as,
                four_octet: both(|of| of.four_octet_as),
                families,
                path_ids,
                extended_next_hop: both(|of| of.extended_next_hop),
            },
            longest: if extended { LONGEST_EXTENDED } else { LONGEST },
            refresh: both(|of| of.refresh),
            enhanced_refresh: both(|of| of.enhanced_refresh),
            graceful_restart: theirs
                .graceful_restart
                .clone()
                .filter(|_| ours.graceful_restart.is_some()),
        })
    }
}
