//! Applying what is different, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use log::info;

use super::{Chore, Core, Peer};
use crate::bgp::attributes::{Attributes, OwnRoute};
use crate::bgp::message::notification::cease;
use crate::bgp::message::{Family, Notification};
use crate::bgp::report::State;
use crate::bgp::rib::adj_out::{AdjOut, Ending};
use crate::bgp::rib::table::{Key, V4, V6};
use crate::bgp::rib::{OWN, Path, PeerFacts, PeerIndex};
use crate::bgp::session::{Config, Session, Time};
use crate::bgp::settings::{PeerName, PeerSettings, Settings};

impl Core {
    /// Applies settings that have been checked.
    pub(in crate::bgp) fn configure(&mut self, now: Time, settings: Settings) {
        self.now = now;
        let old = std::mem::replace(&mut self.settings, settings.clone());
        self.facts[OWN as usize].router_id = settings.router_id;
        for (name, peer) in &old.peers {
            if !settings.peers.contains_key(name) {
                self.remove(name, peer);
            }
        }
        for (name, peer) in &settings.peers {
            match old.peers.get(name) {
                None => self.add(name, peer),
                Some(before) => self.change(name, before, peer),
            }
        }
        let common = |of: &Settings| Settings {
            peers: BTreeMap::new(),
            listen: BTreeSet::new(),
            ..of.clone()
        };
        if common(&old) != common(&settings) {
            self.policies_changed();
        }
        self.settle();
    }

    /// Sets all own routes.
    pub(in crate::bgp) fn originate(&mut self, now: Time, routes: Vec<OwnRoute>) {
        self.now = now;
        let new: BTreeMap<_, _> = routes
            .into_iter()
            .map(|route| (route.prefix.trunc(), route))
            .collect();
        let old = std::mem::take(&mut self.own);
        for prefix in old.keys().filter(|prefix| !new.contains_key(prefix)) {
            match prefix {
                IpNet::V4(net) => self.v4.withdraw(V4::of(*net), OWN, 0),
                IpNet::V6(net) => self.v6.withdraw(V6::of(*net), OWN, 0),
            };
        }
        for (prefix, route) in &new {
            let before = old.get(prefix);
            if before != Some(route) {
                self.announce_own(*prefix, route);
            }
            if before.is_some_and(|before| before.interface != route.interface) {
                self.touch(*prefix);
            }
        }
        self.own = new;
        self.settle();
    }

    /// Sets all next hops that are out of reach.
    pub(in crate::bgp) fn set_unreachable(&mut self, now: Time, next_hops: BTreeSet<IpAddr>) {
        self.now = now;
        let changed: BTreeSet<_> = self
            .unreachable
            .symmetric_difference(&next_hops)
            .copied()
            .collect();
        if changed.is_empty() {
            return;
        }
        self.unreachable = next_hops;
        self.repair();
        self.chores.push(Chore::NextHops(changed));
    }

    fn announce_own(&mut self, prefix: IpNet, route: &OwnRoute) {
        let none: IpAddr = match prefix {
            IpNet::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpNet::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let says = &route.says;
        let attributes = self.store.intern(Attributes {
            med: says.med,
            local_pref: says.local_pref,
            communities: says.communities.as_slice().into(),
            large_communities: says.large_communities.as_slice().into(),
            ..Attributes::own(says.next_hop.unwrap_or(none))
        });
        let path = Path {
            attributes,
            path_id: 0,
            since: self.now.as_secs() as u32,
            peer: OWN,
            stale: false,
            unusable: None,
        };
        match prefix {
            IpNet::V4(net) => self.v4.announce(V4::of(net), path),
            IpNet::V6(net) => self.v6.announce(V6::of(net), path),
        }
    }

    fn touch(&mut self, prefix: IpNet) {
        match prefix {
            IpNet::V4(net) => {
                if let Some(slot) = self.v4.find(V4::of(net)) {
                    self.v4.touch(slot);
                }
            }
            IpNet::V6(net) => {
                if let Some(slot) = self.v6.find(V6::of(net)) {
                    self.v6.touch(slot);
                }
            }
        }
    }

    /// Others may have to hear what a peer told, or no more.
    fn touch_all_of(&mut self, index: PeerIndex) {
        let told = |paths: &[Path]| paths.iter().any(|path| path.peer == index);
        self.v4.touch_all(told);
        self.v6.touch_all(told);
    }

    fn add(&mut self, name: &PeerName, settings: &PeerSettings) {
        let index = self.peers.len() as PeerIndex;
        let config = Config::new(&self.settings, settings);
        self.facts
            .push(self.facts_of(settings, &config, Ipv4Addr::UNSPECIFIED));
        self.seed = self
            .seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(u64::from(index) | 1);
        let mut session = Session::new(config, self.now, self.seed >> 16);
        session.restarted = self.start.defers;
        session.forwards = !settings.transit;
        self.peers.push(Some(Peer {
            name: name.clone(),
            settings: settings.clone(),
            session,
            agreed: None,
            reader: None,
            out: [AdjOut::default(), AdjOut::default()],
            state: State::Active,
            since: self.now,
            up_since: None,
            trouble: None,
            keeps_until: None,
            complete: [false; 2],
            log: super::peer::LogLimit::default(),
        }));
        info!(
            "BGP: peer {name} ({}, AS {}) is new",
            settings.address, settings.remote_as
        );
    }

    fn remove(&mut self, name: &PeerName, settings: &PeerSettings) {
        let Some(index) = self.index(name) else {
            return;
        };
        let said = Notification::cease(cease::DECONFIGURED, "");
        self.with(index, |core, peer, actions| {
            peer.session.stop(Some(&said), actions);
            core.chores.push(Chore::Withdraw(index, [true; 2]));
        });
        self.peers[index as usize] = None;
        self.repair();
        info!("BGP: peer {name} ({}) is gone", settings.address);
    }

    fn change(&mut self, name: &PeerName, before: &PeerSettings, after: &PeerSettings) {
        let Some(index) = self.index(name) else {
            return;
        };
        let config = Config::new(&self.settings, after);
        let now = self.now;
        let router_id = self.facts[index as usize].router_id;
        self.facts[index as usize] = self.facts_of(after, &config, router_id);
        self.with(index, |core, peer, actions| {
            peer.settings = after.clone();
            peer.session.forwards = !after.transit;
            if !before.same_session(after) || *peer.session.config() != config {
                let said = Notification::cease(cease::CONFIGURATION, "");
                peer.session.stop(Some(&said), actions);
                peer.session.start(now, config);
                peer.keeps_until = None;
                core.chores.push(Chore::Withdraw(index, [true; 2]));
            } else if before != after {
                peer.session.replace_config(config);
                core.policy_changed(index, peer);
                if before.route_reflector_client != after.route_reflector_client {
                    core.touch_all_of(index);
                }
            }
        });
    }

    /// Everything that is judged or told is looked at again.
    fn policies_changed(&mut self) {
        for index in self.indices() {
            self.with(index, |core, peer, _| core.policy_changed(index, peer));
        }
        self.v4.touch_all(|_| true);
        self.v6.touch_all(|_| true);
    }

    fn policy_changed(&mut self, index: PeerIndex, peer: &mut Peer) {
        self.judge_all(index, peer);
        let Some(agreed) = &peer.agreed else {
            return;
        };
        peer.reader = Some(self.reader(index, &peer.settings, agreed));
        for family in Family::ALL {
            if agreed.context.families[family as usize] {
                peer.out[family as usize].begin(false, Ending::Nothing);
            }
        }
    }

    fn facts_of(&self, settings: &PeerSettings, config: &Config, router_id: Ipv4Addr) -> PeerFacts {
        PeerFacts {
            external: config.is_external(),
            client: settings.route_reflector_client,
            router_id,
            address: settings.address,
            scope_id: settings.scope_id,
        }
    }
}
