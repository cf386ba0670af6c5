//! A session with one peer (RFC 4271 §8): pure, on a clock that is handed in.
//!
//! Both sides may open a connection at once. Each goes its way to OpenConfirm by itself
//! ([`connection`]); the one that the speaker with the higher identifier has opened lives on (§6.8).
//!
//! ```text
//!          tick                connected           OPEN              KEEPALIVE
//!   Active ────▶ Connect ─────▶ OpenSent ──────▶ OpenConfirm ──────▶ Established
//!     ▲                            │                  │                   │
//!     └──── back-off ── Idle ◀─────┴──── error, NOTIFICATION, end ────────┘
//! ```

mod backoff;
mod connection;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use self::backoff::Backoff;
use self::connection::{Connection, Heard};
use super::message::notification::{cease, code};
use super::message::open::{Capabilities, GracefulRestart, Open};
use super::message::{Family, Notification, Refresh};
use super::report::{Counters, State};
use super::settings::{PeerSettings, Settings};

pub(super) use self::connection::Agreed;

/// Time since the speaker's start.
pub(super) type Time = Duration;

/// Why a connection could not be opened.
pub(super) const NO_ANSWER: &str = "No answer";

/// Names a connection, once and for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ConnectionId(pub(super) u64);

/// Numbers without a pattern, the same again for the same seed.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// 75–100 % of a time (RFC 4271 §10).
    pub(super) fn jittered(&mut self, time: Duration) -> Duration {
        time * (75 + (self.next() % 26) as u32) / 100
    }
}

/// What a session is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    local_as: u32,
    remote_as: u32,
    router_id: Ipv4Addr,
    hold_time: u16,
    keepalive: Option<Duration>,
    passive: bool,
    capabilities: Capabilities,
}

impl Config {
    pub(super) fn new(settings: &Settings, peer: &PeerSettings) -> Self {
        let families = [(Family::V4, peer.ipv4), (Family::V6, peer.ipv6)];
        let families = families
            .into_iter()
            .filter_map(|(family, on)| on.then_some(family));
        let families: Vec<_> = families.collect();
        let restart = peer.max_restart_time.unwrap_or(settings.graceful_restart);
        let graceful_restart = (!restart.is_zero()).then(|| GracefulRestart {
            restarted: false,
            after_notification: true,
            time: restart.as_secs().min(4095) as u16,
            families: families.iter().map(|family| (*family, false)).collect(),
        });
        Self {
            local_as: peer.local_as.unwrap_or(settings.local_as),
            remote_as: peer.remote_as,
            router_id: settings.router_id,
            hold_time: settings.hold_time.as_secs() as u16,
            keepalive: peer.keepalive_time,
            passive: peer.passive,
            capabilities: Capabilities {
                four_octet_as: true,
                refresh: true,
                enhanced_refresh: true,
                extended_message: true,
                extended_next_hop: peer.ipv4,
                graceful_restart,
                add_path_send: Vec::new(),
                add_path_receive: if peer.add_path_receive {
                    families.clone()
                } else {
                    Vec::new()
                },
                families: Some(families),
            },
        }
    }

    pub(super) fn is_external(&self) -> bool {
        self.local_as != self.remote_as
    }

    /// `forwards`: what was told in the session before this one is still forwarded.
    fn open(&self, restarted: bool, forwards: bool, plain: bool) -> Open {
        let mut capabilities = self.capabilities.clone();
        if let Some(restart) = &mut capabilities.graceful_restart {
            restart.restarted = restarted;
            for (_, forwarding) in &mut restart.families {
                *forwarding = forwards;
            }
        }
        Open {
            local_as: self.local_as,
            hold_time: self.hold_time,
            router_id: self.router_id,
            capabilities: if plain {
                Capabilities::default()
            } else {
                capabilities
            },
        }
    }
}

/// What the world has to do, or to know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Open a connection to the peer.
    Connect(ConnectionId),
    /// Send this, then close.
    Close(ConnectionId, Vec<u8>),
    /// The session has ended; `kept`: in a way after which routes are kept, if the peer restarts gracefully.
    Down { kept: bool },
    /// Something went wrong, to be shown and logged.
    Trouble { text: String, ours: bool },
}

/// What a message has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The session is up.
    Up,
    /// An UPDATE.
    Update,
    /// Routes are asked for, or are sent anew.
    Refresh(Refresh),
    /// Nothing that anybody need know.
    Nothing,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    config: Config,
    connections: Vec<Connection>,
    try_at: Option<Time>,
    after_failure: bool,
    backoff: Backoff,
    random: Random,
    /// The peer has said that it takes no optional parameters (RFC 5492 §3).
    plain: bool,
    /// We have restarted.
    pub(super) restarted: bool,
    /// What the peer was told leads through us only where we forward from the first moment on.
    pub(super) forwards: bool,
    /// This process has had a session with the peer: what it told then is forwarded (RFC 8538 section 4).
    was_up: bool,
    pub(super) counters: Counters,
}

impl Session {
    /// A session that begins at once.
    pub(super) fn new(config: Config, now: Time, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let try_at = (!config.passive).then(|| now + random.jittered(Duration::from_millis(200)));
        Self {
            config,
            connections: Vec::new(),
            try_at,
            after_failure: false,
            backoff: Backoff::default(),
            random,
            plain: false,
            restarted: false,
            forwards: true,
            was_up: false,
            counters: Counters::default(),
        }
    }

    pub(super) fn state(&self) -> State {
        let of_connections = self
            .connections
            .iter()
            .map(|connection| connection.state)
            .max();
        of_connections.unwrap_or(match self.after_failure && self.try_at.is_some() {
            true => State::Idle,
            false => State::Active,
        })
    }

    /// The connection that is up, and what was agreed on it.
    pub(super) fn established(&self) -> Option<(ConnectionId, &Agreed)> {
        let up = |of: &&Connection| of.state == State::Established;
        let connection = self.connections.iter().find(up)?;
        Some((connection.id, connection.agreed.as_ref()?))
    }

    pub(super) fn has(&self, id: ConnectionId) -> bool {
        self.connections
            .iter()
            .any(|connection| connection.id == id)
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.connections
            .iter()
            .map(|connection| connection.id)
            .collect()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let of_connections = self.connections.iter().filter_map(Connection::deadline);
        of_connections.chain(self.try_at).min()
    }

    /// Time has passed. `next_id` names a connection that may be opened.
    pub(super) fn tick(&mut self, now: Time, next_id: &mut u64, actions: &mut Vec<Action>) {
        for id in self.ids() {
            let Some(connection) = self.connections.iter_mut().find(|of| of.id == id) else {
                continue;
            };
            let connecting = connection.state == State::Connect;
            match connection.tick(now, &mut self.random) {
                Ok(true) => self.counters.sent.keepalives += 1,
                Ok(false) => {}
                Err(_) if connecting => self.unreached(now, id, NO_ANSWER, actions),
                Err(error) => self.fail(now, id, error, actions),
            }
        }
        if self.try_at.is_some_and(|at| at <= now) {
            self.try_at = None;
            self.after_failure = false;
            if self.connections.is_empty() {
                let id = ConnectionId(*next_id);
                *next_id += 1;
                self.connections.push(Connection::connecting(id, now));
                actions.push(Action::Connect(id));
            }
        }
    }

    /// The connection that was asked for is there.
    pub(super) fn connected(&mut self, now: Time, id: ConnectionId, local: IpAddr) {
        self.backoff.answered();
        self.opened(now, id, local);
    }

    /// It could not be opened.
    pub(super) fn unreached(
        &mut self,
        now: Time,
        id: ConnectionId,
        why: &str,
        actions: &mut Vec<Action>,
    ) {
        if !self.has(id) {
            return;
        }
        self.drop_connection(id, None, actions);
        actions.push(Action::Trouble {
            text: why.to_owned(),
            ours: false,
        });
        let pause = self.backoff.unanswered();
        self.try_again(now, pause);
    }

    /// The peer has opened a connection; false: it is to be closed at once.
    #[must_use]
    pub(super) fn accept(
        &mut self,
        now: Time,
        id: ConnectionId,
        local: IpAddr,
        actions: &mut Vec<Action>,
    ) -> bool {
        if !self.backoff.lets_in(now) {
            self.counters.refused_connections += 1;
            return false;
        }
        // The peer has given up an earlier one that we wait for.
        let waits = |of: &&Connection| !of.outgoing && of.state == State::OpenSent;
        if let Some(earlier) = self.connections.iter().find(waits).map(|of| of.id) {
            self.drop_connection(earlier, Some(collision()), actions);
        }
        self.connections.push(Connection::incoming(id, now));
        self.opened(now, id, local);
        true
    }

    fn opened(&mut self, now: Time, id: ConnectionId, local: IpAddr) {
        let forwards = self.was_up || self.restarted && self.forwards;
        let open = self.config.open(self.restarted, forwards, self.plain);
        if let Some(connection) = self.connections.iter_mut().find(|of| of.id == id) {
            connection.opened(now, local, &open);
            self.counters.sent.opens += 1;
        }
    }

    /// Bytes have come; [`Self::step`] reads them.
    pub(super) fn received(&mut self, id: ConnectionId, bytes: &[u8]) {
        if let Some(connection) = self.connections.iter_mut().find(|of| of.id == id) {
            connection.take(bytes);
        }
    }

    /// Reads one message; an UPDATE's body goes to `body`. None: no more is there.
    pub(super) fn step(
        &mut self,
        now: Time,
        id: ConnectionId,
        body: &mut Vec<u8>,
        actions: &mut Vec<Action>,
    ) -> Option<Step> {
        let connection = self.connections.iter_mut().find(|of| of.id == id)?;
        let heard = connection.next(
            now,
            &self.config,
            &mut self.random,
            &mut self.counters,
            body,
        );
        Some(match heard {
            Ok(None) => return None,
            Ok(Some(Heard::Open)) => {
                self.counters.sent.keepalives += 1;
                self.resolve(now, id, actions);
                Step::Nothing
            }
            Ok(Some(Heard::Established)) => {
                self.was_up = true;
                self.up(id, actions);
                Step::Up
            }
            Ok(Some(Heard::Update)) => Step::Update,
            Ok(Some(Heard::Refresh(refresh))) => Step::Refresh(refresh),
            Ok(Some(Heard::Nothing)) => Step::Nothing,
            Ok(Some(Heard::Ended(notification))) => {
                self.ended(now, id, &notification, actions);
                Step::Nothing
            }
            Err(error) => {
                self.fail(now, id, error, actions);
                Step::Nothing
            }
        })
    }

    /// RFC 4271 §6.8; RFC 4724 §5 where a session is up.
    fn resolve(&mut self, now: Time, id: ConnectionId, actions: &mut Vec<Action>) {
        if let Some((up, agreed)) = self.established() {
            if agreed.graceful_restart.is_none() {
                self.drop_connection(id, Some(collision()), actions);
                return;
            }
            // It has restarted, and the end of the old connection was lost.
            self.drop_connection(up, None, actions);
            self.backoff.failed(now);
            actions.push(Action::Trouble {
                text: "Peer restarted".to_owned(),
                ours: false,
            });
            actions.push(Action::Down { kept: true });
            return;
        }
        let confirmed = self
            .connections
            .iter()
            .filter(|of| of.state == State::OpenConfirm);
        let confirmed: Vec<_> = confirmed.map(|of| (of.id, of.outgoing)).collect();
        let [_, _, ..] = confirmed[..] else {
            return;
        };
        let Some(agreed) = self.connections.iter().find_map(|of| of.agreed.as_ref()) else {
            return;
        };
        // RFC 6286 §2.3: with equal identifiers the higher AS decides.
        let ours = (self.config.router_id, self.config.local_as);
        let keep_outgoing = ours > (agreed.router_id, self.config.remote_as);
        for (loser, outgoing) in confirmed {
            if outgoing != keep_outgoing {
                self.drop_connection(loser, Some(collision()), actions);
            }
        }
    }

    fn up(&mut self, id: ConnectionId, actions: &mut Vec<Action>) {
        for other in self.ids() {
            if other != id {
                self.drop_connection(other, Some(collision()), actions);
            }
        }
        self.try_at = None;
        self.after_failure = false;
        self.counters.established += 1;
    }

    /// The peer has said why it ends the connection.
    fn ended(
        &mut self,
        now: Time,
        id: ConnectionId,
        said: &Notification,
        actions: &mut Vec<Action>,
    ) {
        if (said.code, said.subcode) == (code::OPEN, 4) {
            self.plain = true;
        }
        let lost_collision = (said.code, said.subcode) == (code::CEASE, cease::COLLISION);
        if !(lost_collision && self.connections.len() > 1) {
            actions.push(Action::Trouble {
                text: format!("Received: {said}"),
                ours: false,
            });
        }
        let kept = self.keeps_after_notification(id) && !said.is_hard_reset();
        self.end(now, id, None, kept, actions);
    }

    /// The connection has gone without a word.
    pub(super) fn lost(
        &mut self,
        now: Time,
        id: ConnectionId,
        why: &str,
        actions: &mut Vec<Action>,
    ) {
        let Some(connection) = self.connections.iter().find(|of| of.id == id) else {
            return;
        };
        if connection.state == State::Connect {
            self.unreached(now, id, why, actions);
            return;
        }
        if connection.state == State::Established || self.connections.len() == 1 {
            actions.push(Action::Trouble {
                text: why.to_owned(),
                ours: false,
            });
        }
        self.end(now, id, None, true, actions);
    }

    /// We end the connection, and say why.
    pub(super) fn fail(
        &mut self,
        now: Time,
        id: ConnectionId,
        error: Notification,
        actions: &mut Vec<Action>,
    ) {
        if !self.has(id) {
            return;
        }
        self.counters.errors += 1;
        actions.push(Action::Trouble {
            text: error.to_string(),
            ours: true,
        });
        let kept = self.keeps_after_notification(id) && error.code != code::CEASE;
        self.end(now, id, Some(error), kept, actions);
    }

    /// RFC 8538 §4: both have said that they keep routes.
    fn keeps_after_notification(&self, id: ConnectionId) -> bool {
        let Some((up, agreed)) = self.established() else {
            return false;
        };
        let restart = agreed.graceful_restart.as_ref();
        up == id && restart.is_some_and(|restart| restart.after_notification)
    }

    /// Whether the peer keeps our routes if we go without a word.
    pub(super) fn is_kept(&self) -> bool {
        self.established()
            .is_some_and(|(_, agreed)| agreed.graceful_restart.is_some())
    }

    /// Ends everything, with a last word if there is one; [`Self::start`] begins anew.
    pub(super) fn stop(&mut self, said: Option<&Notification>, actions: &mut Vec<Action>) {
        let was_up = self.established().is_some();
        for id in self.ids() {
            self.drop_connection(id, said.cloned(), actions);
        }
        self.try_at = None;
        if was_up {
            actions.push(Action::Down { kept: false });
        }
    }

    /// Begins anew after a [`Self::stop`], perhaps with another configuration.
    pub(super) fn start(&mut self, now: Time, config: Config) {
        self.try_at =
            (!config.passive).then(|| now + self.random.jittered(Duration::from_millis(500)));
        self.after_failure = false;
        self.config = config;
    }

    /// Policies have changed, and nothing of the session.
    pub(super) fn replace_config(&mut self, config: Config) {
        self.config = config;
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// What is to be sent before anything else.
    pub(super) fn take_unsent(&mut self, id: ConnectionId, to: &mut Vec<u8>) {
        if let Some(connection) = self.connections.iter_mut().find(|of| of.id == id) {
            to.append(&mut connection.unsent);
        }
    }

    /// Puts something behind what is to be sent before routes.
    pub(super) fn say(&mut self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(connection) = self.connections.iter_mut().find(|of| of.id == id) {
            write(&mut connection.unsent);
        }
    }

    fn end(
        &mut self,
        now: Time,
        id: ConnectionId,
        said: Option<Notification>,
        kept: bool,
        actions: &mut Vec<Action>,
    ) {
        let was_up = self.established().is_some_and(|(up, _)| up == id);
        self.drop_connection(id, said, actions);
        if was_up {
            actions.push(Action::Down { kept });
        }
        if self.connections.is_empty() {
            let pause = self.backoff.failed(now);
            self.after_failure = true;
            self.try_again(now, pause);
        }
    }

    fn try_again(&mut self, now: Time, pause: Duration) {
        if self.connections.is_empty() {
            self.try_at = (!self.config.passive).then(|| now + self.random.jittered(pause));
        }
    }

    fn drop_connection(
        &mut self,
        id: ConnectionId,
        said: Option<Notification>,
        actions: &mut Vec<Action>,
    ) {
        let Some(place) = self.connections.iter().position(|of| of.id == id) else {
            return;
        };
        // What ends a session for good must not be taken for a restart (RFC 8538 §3.1).
        let hard = self.keeps_after_notification(id);
        let mut connection = self.connections.swap_remove(place);
        let mut last = std::mem::take(&mut connection.unsent);
        if let Some(said) = said.filter(|_| connection.state >= State::OpenSent) {
            let said = match hard && said.code == code::CEASE {
                true => said.hardened(),
                false => said,
            };
            said.write(&mut last);
            self.counters.sent.notifications += 1;
        }
        actions.push(Action::Close(id, last));
    }
}

fn collision() -> Notification {
    Notification::cease(cease::COLLISION, "")
}

#[cfg(test)]
mod tests;
