//! Routes that others told: BGP peers, or another daemon by way of the kernel.
//!
//! They come as prefixes that point to groups of next hops, of which there are few. The FIB holds which
//! prefix points to which group, and nothing else does: a full table costs no second copy, and a group
//! is re-pointed by one write, whatever the number of its prefixes.
//!
//! What the node has by itself always wins over a learned route of the same prefix, and within its own
//! blocks only single addresses are taken, which other nodes have borrowed. Such routes are kept aside
//! until they may come into effect.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::resolve::{Target, Wanted};
use crate::resources::{ClusterState, EncapMode};

/// Names a group of next hops; whoever tells routes numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// A group's next hops, the preferred first.
pub type NextHops = Arc<[IpAddr]>;

/// A pool, as far as learned routes are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LearnedPool {
    /// Its prefix.
    pub cidr: IpNet,
    /// How packets to its learned blocks are carried.
    pub carried: Carried,
}

/// How packets to a pool's learned blocks are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carried {
    /// As they are.
    Direct,
    /// In IP-in-IP.
    Ipip,
    /// In IP-in-IP to other subnets, as they are within this one.
    IpipCrossSubnet,
    /// Not by learned routes: who has a block of a VXLAN pool is in the datastore.
    Elsewhere,
}

/// What is known of learned routes beside the FIB.
#[derive(Debug, Default)]
pub struct Learned {
    groups: FxHashMap<GroupId, NextHops>,
    /// Routes that are known and not in effect.
    aside: BTreeMap<IpNet, GroupId>,
    /// Routes in effect whose destination is in a pool.
    in_pools: BTreeMap<IpNet, GroupId>,
    /// Those whose destination is in none, while they are no more than [`FEW`].
    outside: BTreeMap<IpNet, GroupId>,
    /// There are more, or were: then the FIB alone knows them.
    many: bool,
    /// The most specific first.
    pools: Vec<LearnedPool>,
    own_blocks: Vec<IpNet>,
    count: usize,
}

/// So many routes to destinations in no pool are known one by one, for the host's table. A table of the
/// Internet is not: it would be there twice.
pub const FEW: usize = 16_384;

/// The pools of a cluster, the most specific first.
pub fn pools(state: &ClusterState) -> Vec<LearnedPool> {
    let carried = |ipip, vxlan| match (ipip, vxlan) {
        (EncapMode::Always, _) => Carried::Ipip,
        (EncapMode::CrossSubnet, _) => Carried::IpipCrossSubnet,
        (EncapMode::Never, EncapMode::Never) => Carried::Direct,
        (EncapMode::Never, _) => Carried::Elsewhere,
    };
    let mut pools: Vec<_> = state
        .pools
        .values()
        .map(|pool| LearnedPool {
            cidr: pool.cidr(),
            carried: carried(pool.spec.ipip_mode, pool.spec.vxlan_mode),
        })
        .collect();
    pools.sort_by_key(|pool| (std::cmp::Reverse(pool.cidr.prefix_len()), pool.cidr));
    pools
}

/// Where a learned route belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Into the FIB, by the rules of this pool, or of none.
    InEffect(Option<IpNet>),
    /// Aside.
    Aside,
}

impl Learned {
    /// Where a route belongs that the node has none of its own for.
    pub fn place(&self, prefix: IpNet) -> Place {
        let Some(pool) = self.pool_of(prefix) else {
            return Place::InEffect(None);
        };
        let single = prefix.prefix_len() == prefix.max_prefix_len();
        let own = |block: &IpNet| block.contains(&prefix);
        if pool.carried == Carried::Elsewhere || !single && self.own_blocks.iter().any(own) {
            return Place::Aside;
        }
        Place::InEffect(Some(pool.cidr))
    }

    fn pool_of(&self, prefix: IpNet) -> Option<&LearnedPool> {
        self.pools.iter().find(|pool| pool.cidr.contains(&prefix))
    }

    /// How packets to the blocks of a pool, or to destinations in no pool, are carried.
    pub fn carried(&self, pool: Option<IpNet>) -> Carried {
        let known = pool.and_then(|cidr| self.pools.iter().find(|pool| pool.cidr == cidr));
        known.map_or(Carried::Direct, |pool| pool.carried)
    }

    /// The pools are these now. Returns the prefixes within which routes are to be placed anew.
    pub fn set_pools(&mut self, pools: Vec<LearnedPool>) -> Vec<IpNet> {
        let differ = |one: &[LearnedPool], other: &[LearnedPool]| -> Vec<IpNet> {
            let alone = one.iter().filter(|pool| !other.contains(pool));
            alone.map(|pool| pool.cidr).collect()
        };
        let mut changed = differ(&self.pools, &pools);
        changed.extend(differ(&pools, &self.pools));
        self.pools = pools;
        changed
    }

    /// Takes this node's own blocks over. Returns the prefixes within which routes are to be placed anew.
    pub fn set_own_blocks(&mut self, wanted: &Wanted) -> Vec<IpNet> {
        let blackholes = wanted.routes.iter();
        let blocks: Vec<IpNet> = blackholes
            .filter(|(_, target)| **target == Target::Blackhole)
            .map(|(prefix, _)| *prefix)
            .collect();
        let before = std::mem::replace(&mut self.own_blocks, blocks);
        let now = self
            .own_blocks
            .iter()
            .filter(|block| !before.contains(block));
        let gone = before
            .iter()
            .filter(|block| !self.own_blocks.contains(block));
        now.chain(gone).copied().collect()
    }

    /// A group's next hops; none of a group that is not known.
    pub fn group(&self, id: GroupId) -> &[IpAddr] {
        self.groups.get(&id).map_or(&[], |next_hops| &**next_hops)
    }

    /// A group is these next hops from now on.
    pub fn set_group(&mut self, id: GroupId, next_hops: NextHops) {
        self.groups.insert(id, next_hops);
    }

    /// Forgets a group that no route points to.
    pub fn forget_group(&mut self, id: GroupId) {
        self.groups.remove(&id);
    }

    /// Every next hop of every group.
    pub fn next_hops(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.groups.values().flat_map(|group| group.iter().copied())
    }

    /// How many routes are in effect.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no route is in effect.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Routes that are known and not in effect.
    pub fn aside(&self) -> &BTreeMap<IpNet, GroupId> {
        &self.aside
    }

    /// Routes in effect whose destination is in a pool.
    pub fn in_pools(&self) -> &BTreeMap<IpNet, GroupId> {
        &self.in_pools
    }

    /// Routes in effect whose destination is in no pool; none if there are too many.
    pub fn outside(&self) -> Option<&BTreeMap<IpNet, GroupId>> {
        (!self.many).then_some(&self.outside)
    }

    /// Whether they were too many, and are few enough again to be known by [`Learned::know_outside`].
    pub fn may_know_outside(&self) -> bool {
        self.many && self.count - self.in_pools.len() <= FEW / 2
    }

    /// These are all of them.
    pub fn know_outside(&mut self, routes: BTreeMap<IpNet, GroupId>) {
        self.outside = routes;
        self.many = false;
    }

    /// A route is known and not in effect.
    pub fn put_aside(&mut self, prefix: IpNet, group: GroupId) {
        self.aside.insert(prefix, group);
    }

    /// A route is not known, or about to come into effect.
    pub fn forget_aside(&mut self, prefix: IpNet) -> Option<GroupId> {
        // Most tables have nothing aside, and most routes come while that is so.
        (!self.aside.is_empty())
            .then(|| self.aside.remove(&prefix))
            .flatten()
    }

    /// Notes that a route came into effect; `fresh` if there was no learned one.
    pub fn entered(&mut self, prefix: IpNet, group: GroupId, pool: Option<IpNet>, fresh: bool) {
        self.count += usize::from(fresh);
        match pool {
            Some(_) => {
                self.in_pools.insert(prefix, group);
                self.outside.remove(&prefix);
            }
            None => {
                if !self.in_pools.is_empty() {
                    self.in_pools.remove(&prefix);
                }
                self.note_outside(prefix, group);
            }
        }
    }

    fn note_outside(&mut self, prefix: IpNet, group: GroupId) {
        if self.many {
            return;
        }
        self.outside.insert(prefix, group);
        if self.outside.len() > FEW {
            self.many = true;
            self.outside = BTreeMap::new();
        }
    }

    /// Notes that a route went out of effect.
    pub fn left(&mut self, prefix: IpNet) {
        self.count -= 1;
        if !self.in_pools.is_empty() {
            self.in_pools.remove(&prefix);
        }
        if !self.outside.is_empty() {
            self.outside.remove(&prefix);
        }
    }
}
