//! What a node does with its BGP speaker.

use std::collections::BTreeSet;

use super::Node;
use crate::bgp::event::Event;
use crate::control::apply::{Facts, Way};
use crate::control::bgp::plan::{Plan, Surroundings, plan};
use crate::control::bgp::side::{Changed, secret};
use crate::control::learned::{FEW, GroupId, NextHops};
use crate::observe::bgp::BgpStatus;
use crate::observe::report::Component;
use crate::resources::bgp_use::Bgp;

/// Events that are taken in before anything else is looked at.
const BURST: usize = 256;

impl Node {
    /// Makes the speaker what the resources say.
    pub(super) fn follow_bgp_resources(&mut self) {
        let Bgp::Internal(internal) = &self.config.bgp else {
            return;
        };
        let secrets = |name: &str, key: &str| secret(&internal.secrets, name, key);
        let around = Surroundings {
            secrets: &secrets,
            uplink: self.config.uplink.interface.as_str(),
            priorities: self.settings.route_priorities,
        };
        let mut plan = plan(&self.state, self.resolver.wanted(), around);
        self.reach_peers(&mut plan);
        if self.bgp.update(plan) == Changed::Speaker {
            self.forget_learned();
        }
        if !self.bgp.speaks() {
            self.forget_earlier_host_routes();
        }
    }

    /// Has peers with a gateway of their own (reachableBy) reached by it: by the host's processes, of which
    /// the speaker is one, and by what is forwarded to them.
    fn reach_peers(&mut self, plan: &mut Plan) {
        if self.host.is_none() && !plan.reached_by.is_empty() {
            plan.problems.push(
                "BGPPeer: reachableBy makes a route in the host's table, which this node does not write: \
                 add `host: {}` to its configuration, or the route by hand"
                    .to_owned(),
            );
        }
        self.mirror.set_reached_by(plan.reached_by.clone());
        if let Some(host) = &mut self.host {
            let peers = plan.reached_by.keys().copied().collect();
            host.set_reached(peers, self.resolver.wanted(), &self.mirror);
        }
    }

    /// Sees to a speaker that nobody needs, and whether a password has come that was missing.
    pub(super) fn look_after_bgp(&mut self) {
        if self.bgp.lacks_passwords() {
            self.follow_bgp_resources();
        }
        if self.bgp.tick() == Changed::Speaker {
            self.forget_learned();
        }
    }

    /// Takes in what the speaker tells, as it comes, and what has come meanwhile.
    pub(super) fn hear_speaker(&mut self, first: Event) {
        let events = self.bgp.events();
        let mut next = Some(first);
        let mut new_groups = false;
        for _ in 0..BURST {
            let Some(event) = next.take().or_else(|| events.try_recv().ok()) else {
                break;
            };
            new_groups |= matches!(event, Event::Group { .. });
            self.heed_speaker(event);
        }
        if new_groups {
            self.probe_nodes();
        }
        self.follow_next_hops();
        self.show_learned_routes();
    }

    fn heed_speaker(&mut self, event: Event) {
        match event {
            Event::Group { id, next_hops } => {
                let next_hops: NextHops = next_hops.iter().map(|hop| hop.address).collect();
                self.set_group(GroupId(id.0), next_hops);
            }
            Event::Routes(changes) => {
                let changes = changes
                    .iter()
                    .map(|change| (change.prefix, change.group.map(|group| GroupId(group.0))));
                for refused in self.learn_routes(changes.collect()) {
                    log::error!("no room in the route table for {refused}");
                }
            }
            Event::GroupGone(id) => self.forwarding.forget_group(GroupId(id.0)),
            Event::Session { peer, up } => {
                log::info!("BGP: {peer}: {}", if up { "established" } else { "down" });
                self.bgp.note_session(peer, up);
            }
            Event::Converged => {
                log::info!(
                    "BGP: converged: {} learned routes",
                    self.forwarding.learned_count()
                );
                self.show_learned_routes();
                self.show_learned_routes_outside();
                self.forget_earlier_host_routes();
            }
        }
    }

    /// Tells the speaker which next hops the underlay does not lead to.
    pub(super) fn follow_next_hops(&mut self) {
        if !matches!(self.config.bgp, Bgp::Internal(_)) {
            return;
        }
        let facts = self.facts();
        let mut known: BTreeSet<_> = self.forwarding.learned_next_hops();
        known.extend(self.bgp.unreachable());
        known.retain(|next_hop| matches!(facts.way(*next_hop), Way::Failed | Way::None));
        self.bgp.set_unreachable(known);
    }

    /// Takes all learned routes out.
    fn forget_learned(&mut self) {
        let routes = self.forwarding.learned_prefixes();
        if !routes.is_empty() {
            self.learn_routes(routes.into_iter().map(|prefix| (prefix, None)).collect());
            self.show_learned_routes();
        }
    }

    pub(super) fn bgp_status(&self) -> BgpStatus {
        let (mode, neighbors) = match &self.config.bgp {
            Bgp::Off => ("off", Vec::new()),
            Bgp::External(_) => ("external", Vec::new()),
            Bgp::Internal(_) => ("internal", self.bgp.neighbors()),
        };
        BgpStatus {
            mode: mode.to_owned(),
            neighbors: neighbors.into_iter().map(Into::into).collect(),
            learned: self.forwarding.learned_count() as u64,
            aside: self.forwarding.aside_count() as u64,
            problems: self.bgp_problems(),
        }
    }

    fn bgp_problems(&self) -> Vec<String> {
        let mut problems = self.bgp.problems();
        if self.too_many_outside && self.host.is_some() {
            problems.push(format!(
                "more than {FEW} learned routes lead outside of pools; the host's table has none of them"
            ));
        }
        problems
    }

    /// BGP as a part of the node, while it speaks it: where there is nobody to speak with, nobody waits.
    pub(super) fn bgp_component(&self) -> Option<Component> {
        if !self.bgp.runs() {
            return None;
        }
        let readiness = self.bgp.readiness();
        let ready = readiness.is_ok();
        let detail = readiness.err().unwrap_or_else(|| {
            let neighbors = self.bgp.neighbors();
            let up = |n: &&crate::bgp::report::NeighborReport| n.session.is_some();
            let up = neighbors.iter().filter(up).count();
            format!(
                "{up} of {} session(s) established, {} learned route(s)",
                neighbors.len(),
                self.forwarding.learned_count()
            )
        });
        Some(Component {
            name: "bgp".to_owned(),
            live: true,
            ready,
            detail,
        })
    }
}
