//! Connections, as whoever has the sockets tells of them: bytes come in, and are asked for.

use std::net::IpAddr;

use super::{Core, Peer};
use crate::bgp::message::Notification;
use crate::bgp::message::notification::code;
use crate::bgp::report::State;
use crate::bgp::session::{Action, ConnectionId, Step, Time};
use crate::bgp::settings::PeerName;

impl Core {
    /// A connection that was asked for is there.
    pub(in crate::bgp) fn connected(&mut self, now: Time, id: ConnectionId, local: IpAddr) {
        self.now = now;
        self.with_connection(id, |_, peer, _| peer.session.connected(now, id, local));
    }

    /// Somebody has connected: the connection's name, if it is wanted.
    pub(in crate::bgp) fn accept(
        &mut self,
        now: Time,
        from: IpAddr,
        scope_id: u32,
        local: IpAddr,
    ) -> Option<ConnectionId> {
        self.now = now;
        let same = |peer: &&Peer| {
            peer.settings.address == from
                && (peer.settings.scope_id == scope_id || peer.settings.scope_id == 0)
        };
        let name = self
            .peers
            .iter()
            .flatten()
            .find(same)
            .map(|peer| peer.name.clone())?;
        let index = self.index(&name)?;
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let mut taken = false;
        self.with(index, |_, peer, actions| {
            taken = peer.session.accept(now, id, local, actions);
        });
        if taken {
            self.connections.insert(id, index);
        }
        taken.then_some(id)
    }

    /// Bytes have come.
    pub(in crate::bgp) fn received(&mut self, now: Time, id: ConnectionId, bytes: &[u8]) {
        self.now = now;
        let Some(index) = self.index_of(id) else {
            return;
        };
        let mut body = std::mem::take(&mut self.body);
        self.with(index, |_, peer, _| peer.session.received(id, bytes));
        loop {
            let mut step = None;
            self.with(index, |core, peer, actions| {
                step = peer.session.step(now, id, &mut body, actions);
                if step == Some(Step::Update) {
                    core.update(index, peer, &body, id, actions);
                }
                if let Some(Step::Refresh(refresh)) = step {
                    core.refresh(index, peer, refresh, id);
                }
            });
            match step {
                None => break,
                Some(Step::Up) => self.up(index),
                Some(_) => {}
            }
        }
        self.body = body;
        self.settle();
    }

    /// A connection has ended, or could not be opened.
    pub(in crate::bgp) fn lost(&mut self, now: Time, id: ConnectionId, why: &str) {
        self.now = now;
        self.with_connection(id, |_, peer, actions| {
            peer.session.lost(now, id, why, actions)
        });
        self.settle();
    }

    /// The peer has not read for too long (RFC 9687).
    pub(in crate::bgp) fn stalled(&mut self, now: Time, id: ConnectionId) {
        self.now = now;
        self.with_connection(id, |_, peer, actions| {
            let error =
                Notification::new(code::SEND_HOLD_TIMER, 0).detail("the peer does not read");
            peer.session.fail(now, id, error, actions);
        });
        self.settle();
    }

    /// How long a peer may take nothing of what is sent before the connection is [`Self::stalled`];
    /// RFC 9687 §3.2.
    pub(in crate::bgp) fn send_hold(&self, id: ConnectionId) -> Time {
        let peer = self
            .index_of(id)
            .and_then(|index| self.peers[index as usize].as_ref());
        let agreed = peer.and_then(|peer| peer.agreed.as_ref());
        let hold = agreed.map_or(0, |agreed| agreed.hold_time);
        Time::from_secs(u64::from(hold) * 2).max(Time::from_secs(480))
    }

    /// Something hinders a peer that is not up, which only whoever has sockets can know.
    pub(in crate::bgp) fn hint(&mut self, name: &PeerName, text: &str) {
        let Some(index) = self.index(name) else {
            return;
        };
        self.with(index, |_, peer, actions| {
            if peer.state != State::Established && peer.trouble.as_deref() != Some(text) {
                actions.push(Action::Trouble {
                    text: text.to_owned(),
                    ours: false,
                });
            }
        });
    }

    /// Appends what a connection is to send, until `limit` bytes are there.
    pub(in crate::bgp) fn write(&mut self, id: ConnectionId, to: &mut Vec<u8>, limit: usize) {
        let Some(index) = self.index_of(id) else {
            return;
        };
        let Some(mut peer) = self.peers[index as usize].take() else {
            return;
        };
        peer.session.take_unsent(id, to);
        let up = peer.session.established().is_some_and(|(up, _)| up == id);
        // Whoever keeps nothing loses nothing by hearing early what there is.
        if up && !(self.start.defers && peer.session.forwards) {
            self.tell(&mut peer, to, limit);
        }
        self.peers[index as usize] = Some(peer);
    }
}
