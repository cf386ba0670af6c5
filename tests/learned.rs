//! Learned routes: what comes into effect where, held against a naive model of the rules; and that a next
//! hop that fails is one write.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use common::cluster::*;
use common::*;
use ipnet::IpNet;
use proptest::prelude::*;
use underpass::control::apply::{Forwarding, Way};
use underpass::control::host::HostWay;
use underpass::control::learned::{Carried, GroupId, LearnedPool};
use underpass::control::resolve::{Delta, Encap, Target, Wanted};
use underpass::forward::Punt;

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 21);
const ALSO_NEAR: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 22);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 30, 1, 23);

/// Prefixes that routes are learned to.
const PREFIXES: [&str; 10] = [
    "192.168.2.0/26",
    "192.168.2.2/32",
    "192.168.1.0/26",
    "192.168.1.0/27",
    "192.168.1.9/32",
    "192.168.3.0/26",
    "203.0.113.0/24",
    "203.0.113.128/25",
    "10.30.0.11/32",
    "0.0.0.0/0",
];

/// Where packets are sent in search of the truth.
const ADDRESSES: [[u8; 4]; 9] = [
    [192, 168, 2, 1],
    [192, 168, 2, 2],
    [192, 168, 1, 9],
    [192, 168, 1, 40],
    [192, 168, 3, 3],
    [203, 0, 113, 5],
    [203, 0, 113, 200],
    [10, 30, 0, 11],
    [8, 8, 8, 8],
];

/// Everything that decides.
#[derive(Debug, Clone)]
struct World {
    wanted: Wanted,
    pool: Carried,
    learned: BTreeMap<IpNet, GroupId>,
    groups: BTreeMap<GroupId, Vec<Ipv4Addr>>,
    underlay: Underlay,
}

#[derive(Debug, Clone)]
enum Step {
    Learn(Vec<(usize, Option<u32>)>),
    Group(u32, Vec<Ipv4Addr>),
    Pool(Carried),
    /// The datastore has, or has no longer, a block of another node.
    Block(usize, bool),
    OwnBlock(bool),
    Way(Ipv4Addr, Way),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || prop::sample::select(vec![NEAR, ALSO_NEAR, FAR]);
    let known = Way::Known(MAC, underpass::wire::Mtu(1500));
    let ways = prop::sample::select(vec![known, Way::Asking, Way::Failed, Way::None]);
    let carried = prop::sample::select(vec![
        Carried::Direct,
        Carried::Ipip,
        Carried::IpipCrossSubnet,
        Carried::Elsewhere,
    ]);
    let change = (0..PREFIXES.len(), prop::option::weighted(0.7, 0..3_u32));
    let step = prop_oneof![
        4 => prop::collection::vec(change, 1..6).prop_map(Step::Learn),
        2 => (0..3_u32, prop::collection::vec(node(), 0..3)).prop_map(|(g, n)| Step::Group(g, n)),
        1 => carried.prop_map(Step::Pool),
        1 => (prop::sample::select(vec![0, 1, 5]), any::<bool>()).prop_map(|(p, on)| Step::Block(p, on)),
        1 => any::<bool>().prop_map(Step::OwnBlock),
        2 => (node(), ways).prop_map(|(n, w)| Step::Way(n, w)),
    ];
    prop::collection::vec(step, 1..25)
}

const MAC: underpass::wire::MacAddr = underpass::wire::MacAddr([2, 0, 0, 9, 9, 9]);

fn pool() -> IpNet {
    net("192.168.0.0/16")
}

impl World {
    fn new() -> Self {
        let wanted = at_home();
        Self {
            wanted,
            pool: Carried::Ipip,
            learned: BTreeMap::new(),
            groups: (0..3).map(|id| (GroupId(id), vec![NEAR, FAR])).collect(),
            underlay: Underlay::default(),
        }
    }

    /// Where a packet may end by the rules as people say them.
    fn ends(&self, address: Ipv4Addr) -> Vec<End> {
        let address = IpAddr::V4(address);
        let mut ways: BTreeMap<u8, Vec<End>> = BTreeMap::new();
        for (prefix, group) in &self.learned {
            if prefix.contains(&address)
                && let Some(ends) = self.learned_ends(*prefix, *group)
            {
                ways.insert(prefix.prefix_len(), ends);
            }
        }
        ways.insert(0, vec![End::Port(HOST)]);
        for (prefix, target) in &self.wanted.routes {
            if prefix.contains(&address) {
                ways.insert(prefix.prefix_len(), vec![End::of(target)]);
            }
        }
        ways.pop_last().expect("the default route").1
    }

    fn learned_ends(&self, prefix: IpNet, group: GroupId) -> Option<Vec<End>> {
        let in_pool = pool().contains(&prefix);
        let own_block = net("192.168.1.0/26");
        let has_block = self.wanted.routes.contains_key(&own_block);
        if in_pool && self.pool == Carried::Elsewhere
            || has_block && own_block.contains(&prefix) && prefix.prefix_len() < 32
        {
            return None;
        }
        let nodes = &self.groups[&group];
        let usual = Way::Known(MAC, underpass::wire::Mtu(1500));
        let way = |node: &Ipv4Addr| {
            let told = self.underlay.ways.get(&IpAddr::V4(*node));
            told.copied().unwrap_or(usual)
        };
        let known = nodes
            .iter()
            .filter(|node| matches!(way(node), Way::Known(..)));
        let ends = known.map(|node| {
            let near = node.octets()[2] == 0;
            let tunnelled = match self.pool {
                Carried::Ipip => in_pool,
                Carried::IpipCrossSubnet => in_pool && !near,
                _ => false,
            };
            let told = self.underlay.ways.contains_key(&IpAddr::V4(*node));
            match tunnelled {
                true => End::Ipip(*node),
                false if told => End::Direct(MAC.0),
                false => End::Direct(mac_of(*node).0),
            }
        });
        let ends: Vec<_> = ends.collect();
        if !ends.is_empty() {
            return Some(ends);
        }
        let asked = nodes.iter().any(|node| way(node) != Way::None);
        Some(vec![End::Punted(match (nodes.is_empty(), asked) {
            (true, _) => Punt::Blackhole,
            (false, true) => UNRESOLVED,
            (false, false) => Punt::NoRoute,
        })])
    }
}

/// Which next hop it is does not matter here.
const UNRESOLVED: Punt = Punt::Unresolved(underpass::fib::NextHop(0));

fn plain(end: End) -> End {
    match end {
        End::Punted(Punt::Unresolved(_)) => End::Punted(UNRESOLVED),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn learned_routes_are_placed_by_the_rules_however_they_came(steps in steps()) {
        let mut world = World::new();
        let mut forwarding = Forwarding::new(fixed(), alone());
        forwarding.set_pools(vec![LearnedPool { cidr: pool(), carried: world.pool }]);
        forwarding.apply(world.wanted.clone(), &world.underlay);
        for (id, nodes) in &world.groups {
            let nodes: Vec<IpAddr> = nodes.iter().map(|node| IpAddr::V4(*node)).collect();
            forwarding.set_group(*id, nodes.into(), &world.underlay);
        }
        let mut sender = Sender::new();
        let mut told: BTreeMap<IpNet, HostWay> = BTreeMap::new();
        for step in steps {
            take(&mut world, &mut forwarding, &step);
            let snapshot = forwarding.published().get();
            for address in ADDRESSES.map(Ipv4Addr::from).into_iter().chain([POD]) {
                let found = plain(sender.end(&snapshot, address));
                let right = world.ends(address);
                prop_assert!(
                    right.contains(&found),
                    "{address}: {found:?} is not of {right:?} after {step:?} in {world:#?}"
                );
            }
            if let Some(ways) = forwarding.changed_ways() {
                told = ways;
            }
            check_host(&world, &told)?;
            let known = forwarding.learned_count() + forwarding.aside_count();
            prop_assert_eq!(known, world.learned.len());
        }
        // All withdrawn: nothing is left but what the node has by itself.
        let all = world.learned.keys().map(|prefix| (*prefix, None));
        forwarding.learn(all.collect::<Vec<_>>(), &world.underlay);
        prop_assert_eq!((forwarding.learned_count(), forwarding.aside_count()), (0, 0));
        prop_assert_eq!(forwarding.learned_routes().count(), 0);
    }
}

fn take(world: &mut World, forwarding: &mut Forwarding, step: &Step) {
    match step {
        Step::Learn(changes) => {
            let mut batch = BTreeMap::new();
            for (prefix, group) in changes {
                batch.insert(net(PREFIXES[*prefix]), group.map(GroupId));
            }
            for (prefix, group) in &batch {
                match group {
                    Some(group) => world.learned.insert(*prefix, *group),
                    None => world.learned.remove(prefix),
                };
            }
            assert_eq!(forwarding.learn(batch, &world.underlay), [""; 0]);
        }
        Step::Group(id, nodes) => {
            world.groups.insert(GroupId(*id), nodes.clone());
            let nodes: Arc<[IpAddr]> = nodes.iter().map(|node| IpAddr::V4(*node)).collect();
            forwarding.set_group(GroupId(*id), nodes, &world.underlay);
        }
        Step::Pool(carried) => {
            world.pool = *carried;
            forwarding.set_pools(vec![LearnedPool {
                cidr: pool(),
                carried: *carried,
            }]);
            // A pool's mode is news even where no route of the datastore's changes with it.
            forwarding.update(&world.wanted.clone(), &Delta::default(), &world.underlay);
        }
        Step::Block(prefix, there) => {
            let mut wanted = world.wanted.clone();
            let prefix = net(PREFIXES[*prefix]);
            wanted.routes.remove(&prefix);
            if *there {
                add_remote(&mut wanted, prefix, NEAR, vxlan_to(NEAR), Some(pool()));
            }
            // The model's end for a node whose way was told is not of interest here.
            world.underlay.ways.remove(&IpAddr::V4(NEAR));
            forwarding.refresh(&world.underlay);
            forwarding.apply(wanted.clone(), &world.underlay);
            world.wanted = wanted;
        }
        Step::OwnBlock(there) => {
            let mut wanted = world.wanted.clone();
            wanted.routes.remove(&net("192.168.1.0/26"));
            if *there {
                wanted
                    .routes
                    .insert(net("192.168.1.0/26"), Target::Blackhole);
            }
            forwarding.apply(wanted.clone(), &world.underlay);
            world.wanted = wanted;
        }
        Step::Way(node, way) => {
            let by_datastore = |target: &Target| matches!(target, Target::Remote { far_end, .. } if *far_end == IpAddr::V4(*node));
            if !world.wanted.routes.values().any(by_datastore) {
                world.underlay.ways.insert((*node).into(), *way);
                forwarding.refresh(&world.underlay);
            }
        }
    }
}

/// Host processes go the way that packets of workloads go.
fn check_host(world: &World, told: &BTreeMap<IpNet, HostWay>) -> Result<(), TestCaseError> {
    for (prefix, group) in &world.learned {
        let own = world.wanted.routes.contains_key(prefix);
        let ends = world.learned_ends(*prefix, *group).unwrap_or_default();
        let sent = |end: &End| matches!(end, End::Ipip(_) | End::Direct(_));
        if own || !pool().contains(prefix) || !ends.iter().any(sent) {
            continue;
        }
        // Where some of several ways are tunnels, it is the TUN device behind which flows are spread.
        let expected = Some(ends.iter().any(|end| matches!(end, End::Ipip(_))));
        let found = told.get(prefix).map(|way| matches!(way, HostWay::Tun(_)));
        prop_assert_eq!(found, expected, "{}", prefix);
    }
    Ok(())
}

#[test]
fn a_failed_next_hop_is_one_write_whatever_the_number_of_prefixes() {
    let mut forwarding = Forwarding::new(fixed(), alone());
    let mut underlay = Underlay::default();
    forwarding.apply(at_home(), &underlay);
    let both: Arc<[IpAddr]> = [NEAR.into(), ALSO_NEAR.into()].into();
    forwarding.set_group(GroupId(7), both, &underlay);
    let prefixes = (0..50_000_u32).map(|n| {
        let prefix = IpNet::new(Ipv4Addr::from_bits(0x2000_0000 + n * 256).into(), 24);
        (prefix.expect("a prefix"), Some(GroupId(7)))
    });
    assert_eq!(forwarding.learn(prefixes, &underlay), [""; 0]);
    let to = Ipv4Addr::new(32, 1, 2, 3);
    let mut sender = Sender::new();
    // One flow for each of a thousand destinations: how many go to which node.
    let mut shares = |snapshot: &underpass::forward::Snapshot| {
        let flows = (0..1000).map(|n| Ipv4Addr::from_bits(to.to_bits() + n * 256));
        let ends: Vec<End> = flows.map(|to| sender.end(snapshot, to)).collect();
        [NEAR, ALSO_NEAR].map(|node| {
            let there = End::Direct(mac_of(node).0);
            ends.iter().filter(|end| **end == there).count()
        })
    };
    let before = forwarding.published().get();
    let next_hop = before.fib.lookup_v4(to);
    let [near, also] = shares(&before);
    assert!(
        near + also == 1000 && near.abs_diff(also) < 150,
        "{near} {also}"
    );
    // A worker that never comes to rest does not hold it up.
    let _stuck = forwarding.quiescence().register();
    underlay.ways.insert(NEAR.into(), Way::Failed);
    forwarding.refresh(&underlay);
    let after = forwarding.published().get();
    assert!(Arc::ptr_eq(&before.fib, &after.fib));
    assert_eq!(after.fib.lookup_v4(to), next_hop);
    assert_eq!(shares(&after), [0, 1000]);
    // The peers' own word is one write, too.
    forwarding.set_group(GroupId(7), Arc::new([]), &underlay);
    let none = forwarding.published().get();
    assert_eq!(none.fib.lookup_v4(to), next_hop);
    assert_eq!(sender.end(&none, to), End::Punted(Punt::Blackhole));
}

#[test]
fn whoever_learned_routes_lead_to_by_tunnel_may_send_tunnel_packets() {
    let underlay = Underlay::default();
    let mut forwarding = Forwarding::new(fixed(), alone());
    let mut wanted = at_home();
    add_remote(
        &mut wanted,
        net("192.168.9.0/26"),
        ALSO_NEAR,
        Encap::Ipip,
        Some(pool()),
    );
    forwarding.set_pools(vec![LearnedPool {
        cidr: pool(),
        carried: Carried::Ipip,
    }]);
    forwarding.apply(wanted, &underlay);
    let knows = |forwarding: &Forwarding, node: Ipv4Addr| {
        forwarding.published().get().tunnels.peers.contains(node)
    };
    let group = GroupId(1);
    forwarding.set_group(group, [NEAR.into()].into(), &underlay);
    forwarding.learn([(net("203.0.113.0/24"), Some(group))], &underlay);
    assert!(
        !knows(&forwarding, NEAR),
        "outside pools nothing is tunnelled"
    );
    forwarding.learn([(net("192.168.2.0/26"), Some(group))], &underlay);
    assert!(knows(&forwarding, NEAR) && knows(&forwarding, ALSO_NEAR));
    forwarding.set_group(group, [FAR.into()].into(), &underlay);
    assert!(knows(&forwarding, FAR) && !knows(&forwarding, NEAR));
    forwarding.learn([(net("192.168.2.0/26"), None)], &underlay);
    assert!(!knows(&forwarding, FAR) && knows(&forwarding, ALSO_NEAR));
}

#[test]
fn what_is_translated_leaves_by_the_host_whatever_was_learned() {
    let underlay = Underlay::default();
    let mut forwarding = Forwarding::new(fixed(), alone());
    forwarding.set_pools(vec![LearnedPool {
        cidr: pool(),
        carried: Carried::Direct,
    }]);
    forwarding.apply(at_home(), &underlay);
    forwarding.set_group(GroupId(1), [NEAR.into()].into(), &underlay);
    let routes = ["203.0.113.0/24", "192.168.2.0/26"].map(|prefix| (net(prefix), Some(GroupId(1))));
    forwarding.learn(routes, &underlay);
    let (outside, inside) = (Ipv4Addr::new(203, 0, 113, 5), Ipv4Addr::new(192, 168, 2, 5));
    let mut sender = Sender::new();
    let mut ends = |forwarding: &Forwarding| {
        let snapshot = forwarding.published().get();
        [outside, inside].map(|to| sender.end_from(POD, &snapshot, to))
    };
    let direct = End::Direct(mac_of(NEAR).0);
    assert_eq!(ends(&forwarding), [direct, direct]);
    forwarding.set_translated(vec![net("192.168.0.0/16")], &underlay);
    assert_eq!(ends(&forwarding), [End::Port(HOST), direct]);
    forwarding.set_translated(vec![net("172.16.0.0/16")], &underlay);
    assert_eq!(ends(&forwarding), [direct, direct]);
    // The host's own kernel goes that way, too.
    let ways = forwarding.changed_ways_outside().expect("news");
    let expected = HostWay::Direct(
        [NEAR.into()].into(),
        Some(Ipv4Addr::new(10, 30, 0, 11).into()),
    );
    assert_eq!(ways, BTreeMap::from([(net("203.0.113.0/24"), expected)]));
}

#[test]
fn a_table_of_the_internet_is_not_the_hosts_and_gives_its_memory_back() {
    let underlay = Underlay::default();
    let mut forwarding = Forwarding::new(fixed(), alone());
    forwarding.apply(at_home(), &underlay);
    forwarding.set_group(GroupId(1), [NEAR.into()].into(), &underlay);
    let prefix = |n: u32| IpNet::new(Ipv4Addr::from_bits(0x2000_0000 + n * 256).into(), 26);
    let prefix = |n: u32| prefix(n).expect("a prefix");
    let all = |count: std::ops::Range<u32>, group: Option<GroupId>| {
        count.map(move |n| (prefix(n), group))
    };
    forwarding.learn(all(0..1000, Some(GroupId(1))), &underlay);
    assert_eq!(forwarding.changed_ways_outside().expect("news").len(), 1000);
    forwarding.learn(all(1000..20_000, Some(GroupId(1))), &underlay);
    assert!(forwarding.too_many_outside());
    assert_eq!(forwarding.changed_ways_outside(), Some(BTreeMap::new()));
    let before = forwarding.published().get();
    forwarding.give_memory_back(&underlay);
    assert!(Arc::ptr_eq(&before.fib, &forwarding.published().get().fib));
    forwarding.learn(all(100..20_000, None), &underlay);
    assert_eq!(forwarding.changed_ways_outside().expect("news").len(), 100);
    forwarding.give_memory_back(&underlay);
    let after = forwarding.published().get();
    assert!(!Arc::ptr_eq(&before.fib, &after.fib));
    let mut sender = Sender::new();
    for (n, end) in [(0, End::Direct(mac_of(NEAR).0)), (200, End::Port(HOST))] {
        let IpAddr::V4(to) = prefix(n).addr() else {
            unreachable!()
        };
        assert_eq!(sender.end(&after, to), end, "{to}");
    }
    assert_eq!(forwarding.learned_count(), 100);
    forwarding.learn(all(0..100, None), &underlay);
    assert_eq!(forwarding.learned_routes().count(), 0);
}
