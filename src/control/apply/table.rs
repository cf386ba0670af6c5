//! The FIB and its one writer: which prefix points to which next hop, and the order in which that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Fixed, Forwarding, Hop};
use crate::control::resolve::{Delta, Target, Wanted};
use crate::fib::{FibError, NextHop};
use crate::forward::RouterAddresses;

impl Forwarding {
    /// The routes that may be others than before, as they shall be.
    pub(super) fn changes(&mut self, delta: &Delta) -> BTreeMap<IpNet, Option<Hop>> {
        let workloads = &self.wanted.workloads;
        let replugged = std::mem::take(&mut self.replugged);
        let replugged = replugged
            .iter()
            .filter_map(|interface| workloads.get(interface))
            .flat_map(|workload| &workload.addresses)
            .map(|address| IpNet::from(*address));
        let mut prefixes: BTreeSet<IpNet> = delta.routes.keys().copied().collect();
        prefixes.extend(replugged);
        if self.routes.is_empty() {
            prefixes.extend(self.wanted.routes.keys());
            prefixes.extend(own_prefixes());
        }
        let is_learned = |prefix: &IpNet| {
            let hop = self.writer.get(prefix).and_then(|index| self.hop(index));
            matches!(hop, Some(Hop::Learned(..)))
        };
        let shall_be = |prefix| {
            let own = route(&self.fixed, &self.wanted, prefix);
            let hop = own.or_else(|| self.aside_hop(prefix));
            // What the node never had of its own does not go.
            (hop.is_some() || !is_learned(&prefix)).then_some((prefix, hop))
        };
        prefixes.into_iter().filter_map(shall_be).collect()
    }

    /// Writes the changes to the FIB: what is new or changed, the longest prefixes first, then what
    /// goes, the shortest first. So an address goes from its old way straight to its new one, and
    /// never by that of a prefix which covers it only in between. Says what could not be written, and
    /// which hops no route leads to any more.
    pub(super) fn write(
        &mut self,
        changes: BTreeMap<IpNet, Option<Hop>>,
    ) -> (Vec<String>, BTreeSet<NextHop>) {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for (prefix, hop) in changes {
            match hop {
                Some(hop) if self.writer.get(&prefix) != self.hops.get(&hop).copied() => {
                    changed.push((prefix, hop));
                }
                Some(_) => {}
                None => gone.push(prefix),
            }
        }
        gone.sort_by_key(IpNet::prefix_len);
        let mut left = BTreeSet::new();
        let refused = self.enter(changed, &mut left);
        for prefix in gone {
            self.leave(prefix, &mut left);
        }
        (refused, left)
    }

    /// Points a prefix to a hop. What no route leads to any more is added to `left`.
    pub(super) fn point(
        &mut self,
        prefix: IpNet,
        hop: &Hop,
        left: &mut BTreeSet<NextHop>,
    ) -> Result<(), FibError> {
        let Some(index) = self.hops.get(hop).copied() else {
            return Ok(());
        };
        let before = self.writer.insert(prefix, index)?;
        if before == Some(index) {
            return Ok(());
        }
        self.users[index.0 as usize] += 1;
        let learned = before.and_then(|before| match self.hop(before) {
            Some(Hop::Learned(group, _)) => Some(*group),
            _ => None,
        });
        if let Hop::Learned(group, pool) = hop {
            self.rechosen |= pool.is_some();
            self.rechosen_outside = true;
            self.routes.remove(&prefix);
            self.learned.forget_aside(prefix);
            self.learned
                .entered(prefix, *group, *pool, learned.is_none());
        } else {
            self.routes.insert(prefix, hop.clone());
            if let Some(group) = learned {
                self.rechosen = true;
                self.rechosen_outside = true;
                self.learned.left(prefix);
                self.learned.put_aside(prefix, group);
            }
        }
        left.extend(before.filter(|before| self.release(*before)));
        if self.is_mirrored(prefix, hop)
            && let Some(mirror) = &mut self.fast_path
        {
            mirror.insert_route(prefix, index);
        }
        Ok(())
    }

    /// Removes a prefix. What no route leads to any more is added to `left`.
    pub(super) fn leave(&mut self, prefix: IpNet, left: &mut BTreeSet<NextHop>) {
        let Some(before) = self.writer.remove(&prefix) else {
            return;
        };
        let hop = self.hop(before);
        let is_learned = matches!(hop, Some(Hop::Learned(..)));
        let mirrored = hop.is_some_and(|hop| self.is_mirrored(prefix, hop));
        if is_learned {
            self.rechosen |= matches!(hop, Some(Hop::Learned(_, Some(_))));
            self.rechosen_outside = true;
            self.learned.left(prefix);
        } else {
            self.routes.remove(&prefix);
        }
        left.extend(self.release(before).then_some(before));
        if mirrored && let Some(mirror) = &mut self.fast_path {
            mirror.remove_route(prefix);
        }
    }

    /// One route less leads to a next hop; whether it was the last.
    fn release(&mut self, next_hop: NextHop) -> bool {
        let users = &mut self.users[next_hop.0 as usize];
        *users -= 1;
        *users == 0
    }

    /// Frees those next hops that no route leads to any more, once no worker can hold them.
    pub(super) fn retire(&mut self, left: &BTreeSet<NextHop>) {
        let unused = |next_hop: &&NextHop| self.users[next_hop.0 as usize] == 0;
        let unused: Vec<NextHop> = left.iter().filter(unused).copied().collect();
        if unused.is_empty() {
            return;
        }
        self.quiescence.synchronize();
        for next_hop in &unused {
            let Some(hop) = self.by_index[next_hop.0 as usize].take() else {
                continue;
            };
            self.hops.remove(&hop);
            self.chosen.remove(&hop);
            if let Hop::Remote(node, pool) = hop {
                self.carriages.remove(&(node, pool));
            }
        }
        if let Some(mirror) = &mut self.fast_path {
            mirror.retire(&unused);
        }
        self.free.extend(unused);
    }

    /// Whether the fast path is told of a route. Its maps are too small for a table of the Internet:
    /// learned routes outside pools are the workers', to whom it passes what it has no route for.
    fn is_mirrored(&self, prefix: IpNet, hop: &Hop) -> bool {
        let within = |own: &IpNet| own.prefix_len() > 0 && own.contains(&prefix);
        match hop {
            Hop::Learned(_, None) => self.fast_path.is_some() && self.routes.keys().any(within),
            _ => true,
        }
    }
}

/// Prefixes that have routes whatever is wanted, for [`route`].
fn own_prefixes() -> [IpNet; 4] {
    [
        IpNet::V4(Ipv4Net::default()),
        IpNet::V6(Ipv6Net::default()),
        IpAddr::V4(RouterAddresses::GATEWAY_V4).into(),
        IpAddr::V6(RouterAddresses::GATEWAY_V6).into(),
    ]
}

/// A prefix's route: the gateway's own addresses, then what is wanted, and whatever else there is in
/// the world by the host's kernel.
fn route(fixed: &Fixed, wanted: &Wanted, prefix: IpNet) -> Option<Hop> {
    let gateway: [IpAddr; 2] = [
        RouterAddresses::GATEWAY_V4.into(),
        RouterAddresses::GATEWAY_V6.into(),
    ];
    if gateway.iter().any(|own| IpNet::from(*own) == prefix) {
        return Some(Hop::Router);
    }
    if let Some(target) = wanted.routes.get(&prefix) {
        return Some(hop(fixed, &prefix, target));
    }
    (prefix.prefix_len() == 0 && fixed.host.is_some()).then_some(Hop::Host)
}

fn hop(fixed: &Fixed, net: &IpNet, target: &Target) -> Hop {
    match target {
        Target::Workload { interface, .. } => match fixed.workload_ports.get(interface) {
            Some(port) => Hop::Workload(*port, net.addr()),
            None => Hop::Unreachable,
        },
        Target::Host => Hop::Host,
        Target::Blackhole => Hop::Blackhole,
        Target::Unreachable => Hop::Unreachable,
        Target::Remote { far_end, pool, .. } => Hop::Remote(*far_end, *pool),
    }
}
