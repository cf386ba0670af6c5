//! What a session's beginning and end mean for the tables: graceful restart (RFC 4724) and route refresh
//! (RFC 2918, RFC 7313).

use log::info;

use super::{Chore, Core, Peer};
use crate::bgp::event::Event;
use crate::bgp::message::{Family, Refresh, Step};
use crate::bgp::report::State;
use crate::bgp::rib::adj_out::Ending;
use crate::bgp::rib::{Path, PeerIndex};
use crate::bgp::session::{Agreed, ConnectionId, Time};

impl Core {
    pub(super) fn up(&mut self, index: PeerIndex) {
        self.do_chores();
        let Some(mut peer) = self.peers[index as usize].take() else {
            return;
        };
        if let Some((_, agreed)) = peer.session.established() {
            let agreed = agreed.clone();
            info!(
                "BGP: peer {} ({}): up, {}",
                peer.name,
                peer.settings.address,
                agreed.names().join(", ")
            );
            self.facts[index as usize].router_id = agreed.router_id;
            peer.reader = Some(self.reader(index, &peer.settings, &agreed));
            peer.complete = agreed.context.families.map(|on| !on);
            self.keep_or_forget(index, &mut peer, &agreed);
            for family in Family::ALL
                .into_iter()
                .filter(|family| agreed.context.families[*family as usize])
            {
                peer.out[family as usize].begin(false, Ending::Rib);
            }
            peer.agreed = Some(agreed);
            peer.up_since = Some(self.now);
            (peer.state, peer.since) = (State::Established, self.now);
            self.urgent.push_back(Event::Session {
                peer: peer.name.clone(),
                up: true,
            });
        }
        self.peers[index as usize] = Some(peer);
        self.repair();
    }

    /// A session is up again: which of the kept routes may be kept on (RFC 4724 §4.2).
    fn keep_or_forget(&mut self, index: PeerIndex, peer: &mut Peer, agreed: &Agreed) {
        if peer.keeps_until.take().is_none() {
            return;
        }
        let kept = agreed.graceful_restart.as_ref();
        for family in Family::ALL {
            let forwards = kept.is_some_and(|of| of.families.contains(&(family, true)));
            if !forwards {
                self.withdraw_stale(index, family);
            }
        }
        if self.v4.count(index).stale + self.v6.count(index).stale > 0 {
            let time = kept.map_or(0, |of| of.time).max(120);
            peer.keeps_until = Some(self.now + Time::from_secs(time.into()));
        }
    }

    pub(super) fn down(&mut self, index: PeerIndex, peer: &mut Peer, kept: bool) {
        info!(
            "BGP: peer {} ({}): down: {}",
            peer.name,
            peer.settings.address,
            peer.trouble.as_deref().unwrap_or("stopped")
        );
        let [out4, out6] = &mut peer.out;
        out4.clear(&mut self.v4);
        out6.clear(&mut self.v6);
        peer.reader = None;
        peer.up_since = None;
        let restart = peer
            .agreed
            .take()
            .and_then(|agreed| agreed.graceful_restart);
        let restart = restart.filter(|of| kept && of.time > 0 && !of.families.is_empty());
        let keeps = |family: Family| {
            restart
                .as_ref()
                .is_some_and(|of| of.families.iter().any(|(of, _)| *of == family))
        };
        // What was stale already has not been repeated in a whole session.
        if keeps(Family::V4) {
            self.v4.withdraw_all(index, |path| path.stale);
            self.v4.mark_stale(index);
        }
        if keeps(Family::V6) {
            self.v6.withdraw_all(index, |path| path.stale);
            self.v6.mark_stale(index);
        }
        let gone = Family::ALL.map(|family| !keeps(family));
        self.chores.push(Chore::Withdraw(index, gone));
        peer.keeps_until = restart.map(|of| self.now + Time::from_secs(of.time.into()));
        self.urgent.push_back(Event::Session {
            peer: peer.name.clone(),
            up: false,
        });
        if peer.keeps_until.is_none() {
            // The peer is beside the list meanwhile, and so dead to its groups.
            self.repair();
        }
    }

    pub(super) fn do_chores(&mut self) {
        for chore in std::mem::take(&mut self.chores) {
            match chore {
                Chore::Withdraw(index, [v4, v6]) => {
                    if v4 {
                        self.v4.withdraw_all(index, |_| true);
                    }
                    if v6 {
                        self.v6.withdraw_all(index, |_| true);
                    }
                }
                Chore::NextHops(changed) => {
                    let concerns = |paths: &[Path]| {
                        paths
                            .iter()
                            .any(|path| changed.contains(&path.attributes.next_hop))
                    };
                    self.v4.touch_all(concerns);
                    self.v6.touch_all(concerns);
                }
            }
        }
    }

    pub(super) fn forget_stale(&mut self, index: PeerIndex, peer: &mut Peer) {
        info!(
            "BGP: peer {}: routes of before its restart are forgotten",
            peer.name
        );
        peer.keeps_until = None;
        self.repair();
        for family in Family::ALL {
            self.withdraw_stale(index, family);
        }
    }

    pub(super) fn withdraw_stale(&mut self, index: PeerIndex, family: Family) {
        match family {
            Family::V4 if self.v4.count(index).stale > 0 => {
                self.v4.withdraw_all(index, |path| path.stale)
            }
            Family::V6 if self.v6.count(index).stale > 0 => {
                self.v6.withdraw_all(index, |path| path.stale)
            }
            _ => {}
        }
    }

    pub(super) fn refresh(
        &mut self,
        index: PeerIndex,
        peer: &mut Peer,
        refresh: Refresh,
        id: ConnectionId,
    ) {
        let enhanced = peer
            .agreed
            .as_ref()
            .is_some_and(|agreed| agreed.enhanced_refresh);
        let agreed = |family: &Family| {
            peer.agreed
                .as_ref()
                .is_some_and(|agreed| agreed.context.families[*family as usize])
        };
        let Some(family) = refresh.family.filter(agreed) else {
            return;
        };
        match refresh.step {
            Step::Request => {
                let end = if enhanced {
                    Ending::Refresh
                } else {
                    Ending::Nothing
                };
                if peer.out[family as usize].begin(true, end) && enhanced {
                    peer.session
                        .say(id, |to| Refresh::write(to, family, Step::Begin));
                    peer.session.counters.sent.refreshes += 1;
                }
            }
            Step::Begin if enhanced => match family {
                Family::V4 => self.v4.mark_stale(index),
                Family::V6 => self.v6.mark_stale(index),
            },
            Step::End if enhanced => self.withdraw_stale(index, family),
            _ => {}
        }
    }

    /// Every peer has sent its routes, or need not be waited for.
    pub(super) fn begin_when_ready(&mut self) {
        if self.start.ready {
            return;
        }
        let now = self.now;
        let there = |peer: &Peer| {
            let Some(agreed) = &peer.agreed else {
                return false;
            };
            let restart = agreed.graceful_restart.as_ref();
            // One that has restarted, too, waits for us (RFC 4724 §4.1).
            let waits = restart.is_some_and(|restart| restart.restarted);
            let quiet = peer
                .up_since
                .is_some_and(|since| now >= since + Time::from_secs(5));
            peer.complete == [true; 2] || waits || restart.is_none() && quiet
        };
        let waits_for = self.start.waits_for.as_ref();
        let mut waited_for = self
            .peers
            .iter()
            .flatten()
            .filter(|peer| waits_for.is_none_or(|names| names.contains(&peer.name)));
        if now < self.start.ends && !waited_for.all(there) {
            return;
        }
        self.start.ready = true;
        self.start.defers = false;
        for peer in self.peers.iter_mut().flatten() {
            peer.session.restarted = false;
        }
    }
}
