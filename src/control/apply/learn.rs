//! Learned routes on their way into the FIB.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Carriage, Facts, Forwarding, Hop, Way};
use crate::control::host::{HostWay, remote_way};
use crate::control::learned::{Carried, GroupId, LearnedPool, NextHops, Place};
use crate::control::resolve::Encap;
use crate::fib::NextHop;
use crate::forward::{Adjacency, Encapsulation, Several, Translated};

impl Forwarding {
    /// A group is these next hops from now on, the preferred first; with none, packets are dropped. One
    /// write re-points every prefix of the group.
    pub fn set_group(&mut self, id: GroupId, next_hops: NextHops, facts: &dyn Facts) {
        self.learned.set_group(id, next_hops);
        let of_group = |hop: &Hop| matches!(hop, Hop::Learned(group, _) if *group == id);
        let used: Vec<_> = self.hops.keys().filter(|hop| of_group(hop)).collect();
        if used.is_empty() {
            return;
        }
        let tunnelled = used.iter().any(|hop| self.makes_peers(hop));
        self.adapt(of_group, facts);
        self.publish(tunnelled, facts);
    }

    /// Forgets a group that no route points to any more.
    pub fn forget_group(&mut self, id: GroupId) {
        self.learned.forget_group(id);
    }

    /// Takes over which groups prefixes point to, or that they point to none any more: what comes or
    /// changes first, then what goes. Returns prefixes that the FIB could not take, with the reason.
    ///
    /// It takes one to two microseconds a route; the caller bounds the batch.
    pub fn learn(
        &mut self,
        routes: impl IntoIterator<Item = (IpNet, Option<GroupId>)>,
        facts: &dyn Facts,
    ) -> Vec<String> {
        let (mut entering, mut leaving) = (Vec::new(), Vec::new());
        let mut fresh = BTreeSet::new();
        for (prefix, group) in routes {
            let prefix = prefix.trunc();
            let own = self.routes.contains_key(&prefix);
            let place = group.map(|group| match own {
                true => (group, Place::Aside),
                false => (group, self.learned.place(prefix)),
            });
            match place {
                Some((group, Place::InEffect(pool))) => {
                    let hop = Hop::Learned(group, pool);
                    if !self.hops.contains_key(&hop) {
                        fresh.insert(hop.clone());
                    }
                    entering.push((prefix, hop));
                }
                Some((group, Place::Aside)) => {
                    self.learned.put_aside(prefix, group);
                    leaving.extend((!own).then_some(prefix));
                }
                None => {
                    self.learned.forget_aside(prefix);
                    leaving.extend((!own).then_some(prefix));
                }
            }
        }
        if !fresh.is_empty() {
            self.admit(&fresh);
            self.adapt(|hop| fresh.contains(hop), facts);
            self.publish(fresh.iter().any(|hop| self.makes_peers(hop)), facts);
            self.quiescence.synchronize();
        }
        let mut left = BTreeSet::new();
        let refused = self.enter(entering, &mut left);
        for prefix in leaving {
            self.leave(prefix, &mut left);
        }
        self.retire_learned(left, facts);
        refused
    }

    /// The pools are these now: learned routes in those that are others than before are carried anew, or
    /// stop being in effect. To be called before [`Forwarding::update`] with the same resources, so
    /// that a pool whose mode is switched is never without a route. Returns whether they are others.
    pub fn set_pools(&mut self, pools: Vec<LearnedPool>) -> bool {
        let changed = self.learned.set_pools(pools);
        self.repooled |= !changed.is_empty();
        self.rechosen |= self.repooled;
        self.unplaced.extend(changed);
        self.repooled
    }

    /// Learned routes that are in effect, and what each leads to.
    pub fn learned_routes(&self) -> impl Iterator<Item = (IpNet, &Hop)> {
        self.writer.iter().filter_map(|(prefix, index)| {
            let hop = self.hop(index)?;
            matches!(hop, Hop::Learned(..)).then_some((prefix, hop))
        })
    }

    /// The next hops of all groups.
    pub fn learned_next_hops(&self) -> BTreeSet<IpAddr> {
        self.learned.next_hops().collect()
    }

    /// Learned routes, in effect or not.
    pub fn learned_prefixes(&self) -> Vec<IpNet> {
        let in_effect = self.learned_routes().map(|(prefix, _)| prefix);
        let aside = self.learned.aside().keys().copied();
        in_effect.chain(aside).collect()
    }

    /// How many learned routes are in effect.
    pub fn learned_count(&self) -> usize {
        self.learned.len()
    }

    /// How many of these lead into IP-in-IP.
    pub fn learned_in_ipip(&self) -> usize {
        let in_pools = self.learned.in_pools().iter();
        let in_ipip = in_pools.filter(|(prefix, group)| {
            let Place::InEffect(pool) = self.learned.place(**prefix) else {
                return false;
            };
            self.carried(&Hop::Learned(**group, pool)) == Some(Carriage::Ipip)
        });
        in_ipip.count()
    }

    /// The bytes that the encapsulation of learned routes takes, whatever their number.
    pub fn learned_overhead(&self) -> u16 {
        match self.hops.keys().any(|hop| self.makes_peers(hop)) {
            true => Encapsulation::Ipip.overhead(),
            false => 0,
        }
    }

    /// How many learned routes are known and not in effect.
    pub fn aside_count(&self) -> usize {
        self.learned.aside().len()
    }

    /// The nodes or routers that a hop's packets may go to.
    pub fn next_hops(&self, hop: &Hop) -> Vec<IpAddr> {
        match hop {
            Hop::Remote(node, _) => vec![*node],
            Hop::Learned(group, _) => self.learned.group(*group).to_vec(),
            _ => Vec::new(),
        }
    }

    /// How host processes reach what is in pools by learned routes, if that may be otherwise than at the
    /// last call.
    pub fn changed_ways(&mut self) -> Option<BTreeMap<IpNet, HostWay>> {
        if !std::mem::take(&mut self.rechosen) {
            return None;
        }
        let in_effect = self
            .learned
            .in_pools()
            .iter()
            .filter_map(|(prefix, group)| {
                let Place::InEffect(pool) = self.learned.place(*prefix) else {
                    return None;
                };
                let way = self.learned_way(&Hop::Learned(*group, pool), pool)?;
                Some((*prefix, way))
            });
        Some(in_effect.collect())
    }

    /// How host processes reach what is in no pool by learned routes, if that may be otherwise than at the
    /// last call; not at all where these are too many for the host's table.
    pub fn changed_ways_outside(&mut self) -> Option<BTreeMap<IpNet, HostWay>> {
        if !std::mem::take(&mut self.rechosen_outside) {
            return None;
        }
        if self.learned.may_know_outside() {
            let known = self.learned_routes().filter_map(|(prefix, hop)| match hop {
                Hop::Learned(group, None) => Some((prefix, *group)),
                _ => None,
            });
            let known = known.collect();
            self.learned.know_outside(known);
        }
        let ways = self.learned.outside().into_iter().flatten();
        let ways = ways.filter_map(|(prefix, group)| {
            let way = self.learned_way(&Hop::Learned(*group, None), None)?;
            Some((*prefix, way))
        });
        Some(ways.collect())
    }

    /// Whether learned routes to destinations in no pool are too many for the host's table.
    pub fn too_many_outside(&self) -> bool {
        self.learned.outside().is_none()
    }

    /// How host processes reach what is behind a group: as packets go that need no tunnel, over all of its
    /// next hops; else through the TUN device, behind which they are spread.
    fn learned_way(&self, hop: &Hop, pool: Option<IpNet>) -> Option<HostWay> {
        let local = &self.wanted.local;
        let nodes = self.far_ends(hop);
        let first = *nodes.first()?;
        let tunnelled = nodes
            .iter()
            .any(|node| self.learned_carriage(*node, pool) == Carriage::Ipip);
        Some(match tunnelled {
            true => remote_way(local, first, &Encap::Ipip),
            false => HostWay::Direct(nodes.into(), local.address(first.is_ipv4())),
        })
    }

    /// The node or router that a hop's packets go to now, if they go to another one; the first of several.
    pub fn far_end(&self, hop: &Hop) -> Option<IpAddr> {
        self.far_ends(hop).first().copied()
    }

    /// All nodes or routers that a hop's packets go to now.
    pub fn far_ends<'a>(&'a self, hop: &'a Hop) -> &'a [IpAddr] {
        match hop {
            Hop::Remote(node, _) => std::slice::from_ref(node),
            Hop::Learned(..) => self.chosen.get(hop).map_or(&[], |chosen| chosen),
            _ => &[],
        }
    }

    /// How a hop's packets are carried to another node or router, if they are.
    pub fn carried(&self, hop: &Hop) -> Option<Carriage> {
        match hop {
            Hop::Remote(node, pool) => self.carriage(*node, *pool),
            Hop::Learned(_, pool) => Some(self.learned_carriage(self.far_end(hop)?, *pool)),
            _ => None,
        }
    }

    /// The next hops that a group's packets go to: all that are known to be there, else the first that may
    /// be.
    pub(super) fn choice(&self, group: GroupId, facts: &dyn Facts) -> NextHops {
        let next_hops = self.learned.group(group).iter().copied();
        let ranked = next_hops.map(|node| match facts.way(node) {
            Way::Known(..) => (0, node),
            Way::Asking => (1, node),
            Way::Failed => (2, node),
            Way::None => (3, node),
        });
        let ranked: Vec<_> = ranked.collect();
        let there = ranked.iter().filter(|(rank, _)| *rank == 0);
        let there: NextHops = there.map(|(_, node)| *node).collect();
        if !there.is_empty() {
            return there;
        }
        let first = ranked.iter().min_by_key(|(rank, _)| rank);
        first.map(|(_, node)| *node).into_iter().collect()
    }

    /// Where packets go by a group of which these next hops are in use, to destinations of a pool or of
    /// none.
    pub(super) fn learned_adjacency(
        &self,
        pool: Option<IpNet>,
        choice: &[IpAddr],
        facts: &dyn Facts,
    ) -> Adjacency {
        let Some(first) = choice.first() else {
            return Adjacency::Blackhole;
        };
        let way = |node: IpAddr| self.remote(node, self.learned_carriage(node, pool), facts);
        let ways = choice.iter().filter_map(|node| match way(*node) {
            Adjacency::Forward(egress) => Some((*node, egress)),
            _ => None,
        });
        let mut ways: Vec<_> = ways.collect();
        let translated = pool.is_none().then(|| self.translation(facts)).flatten();
        match (ways.len(), &translated) {
            // What is to be translated waits, too: the kernel goes the same way.
            (0, _) => way(*first),
            (1, None) => Adjacency::Forward(ways.remove(0).1),
            _ => Adjacency::Several(Several::new(ways, translated).into()),
        }
    }

    fn translation(&self, facts: &dyn Facts) -> Option<Translated> {
        let host = self.to_host(facts)?;
        let sources = self.translated.clone();
        (!sources.is_empty()).then_some(Translated { sources, host })
    }

    /// What comes from these sources is translated by the host's kernel when it leaves for a destination
    /// in no pool, by whatever route.
    pub fn set_translated(&mut self, sources: Vec<IpNet>, facts: &dyn Facts) {
        if self.translated != sources {
            self.translated = sources;
            self.adapt(|hop| matches!(hop, Hop::Learned(_, None)), facts);
            self.publish(false, facts);
        }
    }

    /// How packets of a learned route are carried to a next hop.
    pub fn learned_carriage(&self, node: IpAddr, pool: Option<IpNet>) -> Carriage {
        let near = self.wanted.local.shares_subnet_with(node);
        match self.learned.carried(pool) {
            Carried::Ipip => Carriage::Ipip,
            Carried::IpipCrossSubnet if !near => Carriage::Ipip,
            _ => Carriage::Direct,
        }
    }
}

// What the rest of forwarding asks.
impl Forwarding {
    /// The far ends of tunnels that learned routes lead into: they may send tunnel packets, too.
    pub(super) fn learned_peers(&self) -> BTreeSet<IpAddr> {
        let hops = self.hops.keys().filter(|hop| self.makes_peers(hop));
        hops.flat_map(|hop| match hop {
            Hop::Learned(group, _) => self.learned.group(*group),
            _ => &[],
        })
        .copied()
        .collect()
    }

    /// What a prefix leads to by a route that is known aside, where the node has none of its own.
    pub(super) fn aside_hop(&self, prefix: IpNet) -> Option<Hop> {
        let group = *self.learned.aside().get(&prefix)?;
        match self.learned.place(prefix) {
            Place::InEffect(pool) => Some(Hop::Learned(group, pool)),
            Place::Aside => None,
        }
    }

    /// Adds the learned routes that changed pools or blocks place anew.
    pub(super) fn place_anew(&mut self, changes: &mut BTreeMap<IpNet, Option<Hop>>) {
        let blocks = self.learned.set_own_blocks(&self.wanted);
        let mut within = std::mem::take(&mut self.unplaced);
        within.extend(blocks);
        for area in within {
            let mut known: Vec<(IpNet, GroupId)> = Vec::new();
            for (prefix, index) in self.writer.within(&area) {
                if let Some(Hop::Learned(group, _)) = self.hop(index) {
                    known.push((prefix, *group));
                }
            }
            let aside = self.learned.aside().iter();
            let aside = aside.filter(|(prefix, _)| area.contains(*prefix));
            known.extend(aside.map(|(prefix, group)| (*prefix, *group)));
            for (prefix, group) in known {
                if changes.get(&prefix).is_some_and(Option::is_some)
                    || self.routes.contains_key(&prefix) && !changes.contains_key(&prefix)
                {
                    continue;
                }
                let hop = match self.learned.place(prefix) {
                    Place::InEffect(pool) => Some(Hop::Learned(group, pool)),
                    Place::Aside => {
                        self.learned.put_aside(prefix, group);
                        None
                    }
                };
                changes.insert(prefix, hop);
            }
        }
    }

    /// Points learned prefixes to their hops, which every worker knows. What no route leads to any more
    /// is added to `left`.
    pub(super) fn enter(
        &mut self,
        mut entering: Vec<(IpNet, Hop)>,
        left: &mut BTreeSet<NextHop>,
    ) -> Vec<String> {
        entering.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.prefix_len()));
        let mut refused = Vec::new();
        for (prefix, hop) in entering {
            if let Err(error) = self.point(prefix, &hop, left) {
                refused.push(format!("{prefix}: {error}"));
            }
        }
        refused
    }

    pub(super) fn makes_peers(&self, hop: &Hop) -> bool {
        let Hop::Learned(_, pool) = hop else {
            return false;
        };
        let carried = self.learned.carried(*pool);
        matches!(carried, Carried::Ipip | Carried::IpipCrossSubnet)
    }

    /// Whether a hop is of a pool whose routes are no more learned, now that it is a VXLAN pool.
    pub(super) fn goes_elsewhere(&self, hop: &Hop) -> bool {
        let Hop::Learned(_, pool) = hop else {
            return false;
        };
        self.learned.carried(*pool) == Carried::Elsewhere
    }

    fn retire_learned(&mut self, left: BTreeSet<NextHop>, facts: &dyn Facts) {
        let made = |index: &NextHop| self.hop(*index).is_some_and(|hop| self.makes_peers(hop));
        let peers = left.iter().any(made);
        self.retire(&left);
        if peers {
            self.publish(true, facts);
        }
    }
}
