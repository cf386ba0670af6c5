//! From wanted routes to forwarding: the order in which things change, and that they end as wanted.
#![allow(missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::cluster::*;
use common::*;
use ipnet::IpNet;
use proptest::prelude::*;
use underpass::control::apply::{Forwarding, Hop, Way, steered_prefixes};
use underpass::control::resolve::{Encap, Target, Wanted};
use underpass::fib::NextHop;
use underpass::forward::{Adjacency, Encapsulation, Punt, RouterAddresses, Snapshot, TunnelMtus};
use underpass::wire::{MacAddr, Mtu};
use underpass::worker::publish::{PublishedReader, QuiescentReader};

const NODE_A: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 21);
const NODE_B: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 22);
const NODE_C: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 23);
/// In the block that the tests route hither and thither.
const FAR: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 2);

/// How long something must not happen for the test to believe that it waits.
const A_WHILE: Duration = Duration::from_millis(50);
/// How long something may take at most.
const AT_MOST: Duration = Duration::from_secs(20);

#[test]
fn a_route_moves_only_when_every_reader_has_seen_where_to() {
    let mut lab = Lab::new(far_by(NODE_A, Encap::Ipip));
    let before = lab.next_hop();
    lab.apply_meanwhile(far_by(NODE_B, Encap::Ipip));

    // The new adjacency is published; the reader has not looked yet, so that no route may use it.
    wait_until(|| {
        let published = lab.published.get();
        ends(&published).contains(&End::Ipip(NODE_B))
    });
    thread::sleep(A_WHILE);
    assert_eq!(lab.next_hop(), before);

    // Now it has, and the route moves; what the reader holds knows the new way.
    lab.reader.quiescent();
    let seen = Arc::clone(lab.cached.load());
    wait_until(|| lab.next_hop() != before);
    assert_eq!(end_by(&seen, lab.next_hop()), End::Ipip(NODE_B));

    // The old next hop stays what it was until the reader has let go of it.
    thread::sleep(A_WHILE);
    assert!(!lab.applied(), "the reader may hold the old next hop");
    assert_eq!(end_by(&lab.published.get(), before), End::Ipip(NODE_A));
    lab.reader.quiescent();
    let forwarding = lab.finish();
    assert_eq!(forwarding.hop(before), None);
}

#[test]
fn a_next_hop_is_given_again_only_when_nobody_can_hold_it() {
    let mut lab = Lab::new(far_by(NODE_A, Encap::Ipip));
    let first = lab.next_hop();
    lab.apply(far_by(NODE_B, Encap::Ipip));
    let second = lab.next_hop();
    lab.apply(far_by(NODE_C, Encap::Ipip));
    assert_eq!(lab.next_hop(), first, "free numbers are used again");
    assert_ne!(first, second);
    let (published, next_hop) = (lab.published.get(), lab.next_hop());
    assert_eq!(end_by(&published, next_hop), End::Ipip(NODE_C));
    // However often, the table does not grow.
    let size = published.adjacencies.len();
    for n in 0..100 {
        lab.apply(far_by(Ipv4Addr::new(10, 30, 0, 30 + n), Encap::Ipip));
    }
    assert_eq!(lab.published.get().adjacencies.len(), size);
}

#[test]
fn a_pools_mode_changes_by_adjacencies_alone() {
    let mut lab = Lab::new(far_by(NODE_A, Encap::Ipip));
    let next_hop = lab.next_hop();
    for (encap, end) in [
        (vxlan_to(NODE_A), End::Vxlan(NODE_A, [0x66, 0, 0, 9, 0, 21])),
        (Encap::None, End::Direct(mac_of(NODE_A).0)),
        (Encap::Ipip, End::Ipip(NODE_A)),
    ] {
        lab.apply(far_by(NODE_A, encap));
        assert_eq!(lab.next_hop(), next_hop);
        assert_eq!(Sender::new().end(&lab.published.get(), FAR), end);
    }
}

#[test]
fn a_failed_node_is_one_adjacency_whatever_the_number_of_routes() {
    let mut wanted = at_home();
    let destinations: Vec<Ipv4Addr> = (0..4096_u32)
        .map(|n| Ipv4Addr::from_bits(0x0a80_0000 + n * 64))
        .collect();
    for (n, block) in destinations.iter().enumerate() {
        let node = [NODE_A, NODE_B][n % 2];
        let prefix = IpNet::new((*block).into(), 26).unwrap();
        add_remote(&mut wanted, prefix, node, Encap::Ipip, None);
    }
    let mut forwarding = Forwarding::new(fixed(), alone());
    let mut underlay = Underlay::default();
    assert_eq!(forwarding.apply(wanted, &underlay), [""; 0]);
    let before = forwarding.published().get();
    let next_hops = |snapshot: &Snapshot| -> Vec<_> {
        let fib = &snapshot.fib;
        destinations.iter().map(|to| fib.lookup_v4(*to)).collect()
    };

    // A reader that never comes to rest does not hold it up: nothing is taken out of the table.
    let _stuck = forwarding.quiescence().register();
    underlay.ways.insert(NODE_A.into(), Way::None);
    forwarding.refresh(&underlay);
    let after = forwarding.published().get();
    assert!(Arc::ptr_eq(&before.fib, &after.fib));
    assert_eq!(next_hops(&before), next_hops(&after));
    let differ = before.adjacencies.iter().zip(&after.adjacencies);
    let differ = differ.filter(|(one, other)| format!("{one:?}") != format!("{other:?}"));
    assert_eq!(differ.count(), 1);
    let mut sender = Sender::new();
    let failed = End::Punted(Punt::NoRoute);
    for (n, to) in destinations.iter().enumerate().step_by(100) {
        let expected = [failed, End::Ipip(NODE_B)][n % 2];
        assert_eq!(sender.end(&after, *to), expected);
    }
    underlay.ways.clear();
    forwarding.refresh(&underlay);
    let back = forwarding.published().get();
    assert_eq!(sender.end(&back, destinations[0]), End::Ipip(NODE_A));
}

#[test]
fn what_is_not_resolved_yet_is_asked_for_and_then_used() {
    let mut wanted = far_by(NODE_A, vxlan_to(NODE_A));
    add_workload(&mut wanted, INTERFACE, POD);
    let mut underlay = Underlay::default();
    underlay.ways.insert(NODE_A.into(), Way::Asking);
    underlay.silent.insert(POD.into());
    let mut forwarding = Forwarding::new(fixed(), alone());
    forwarding.apply(wanted, &underlay);
    let published = forwarding.published();
    let mut sender = Sender::new();
    for (to, hop) in [
        (FAR, Hop::Remote(NODE_A.into(), Some(net("192.168.0.0/16")))),
        (POD, Hop::Workload(WORKLOAD, POD.into())),
    ] {
        match sender.end(&published.get(), to) {
            End::Punted(Punt::Unresolved(next_hop)) => {
                assert_eq!(forwarding.hop(next_hop), Some(&hop));
            }
            other => panic!("{to}: {other:?}"),
        }
    }
    forwarding.refresh(&Underlay::default());
    assert!(matches!(
        sender.end(&published.get(), FAR),
        End::Vxlan(NODE_A, _)
    ));
    assert_eq!(sender.end(&published.get(), POD), End::Port(WORKLOAD));
}

#[test]
fn a_tunnels_mtu_is_the_paths_less_its_headers_or_what_is_configured() {
    let mut underlay = Underlay::default();
    let way = Way::Known(MacAddr([2; 6]), Mtu(9000));
    underlay.ways.insert(NODE_A.into(), way);
    for (encap, configured, mtu) in [
        (Encap::None, None, 9000),
        (Encap::Ipip, None, 8980),
        (vxlan_to(NODE_A), None, 8950),
        (Encap::Ipip, Some(Mtu(1400)), 1400),
        (vxlan_to(NODE_A), Some(Mtu(9000)), 8950),
        (Encap::None, Some(Mtu(1400)), 9000),
    ] {
        let mut fixed = fixed();
        fixed.tunnel_mtus = TunnelMtus {
            ipip: configured,
            vxlan: configured,
            vxlan_v6: configured,
        };
        let mut forwarding = Forwarding::new(fixed, alone());
        forwarding.apply(far_by(NODE_A, encap.clone()), &underlay);
        let snapshot = forwarding.published().get();
        let next_hop = snapshot.fib.lookup_v4(FAR).unwrap();
        let Adjacency::Forward(egress) = &snapshot.adjacencies[next_hop.0 as usize] else {
            panic!("{encap:?}")
        };
        assert_eq!((egress.port, egress.mtu), (UPLINK, Mtu(mtu)), "{encap:?}");
        let expected = match encap {
            Encap::None => Encapsulation::None,
            Encap::Ipip => Encapsulation::Ipip,
            Encap::Vxlan { .. } => Encapsulation::Vxlan,
        };
        assert_eq!(egress.encapsulation, expected);
    }
}

#[test]
fn the_snapshot_says_who_may_send_what() {
    let mut wanted = far_by(NODE_A, Encap::Ipip);
    add_workload(&mut wanted, INTERFACE, POD);
    let workload = wanted.workloads.get_mut(INTERFACE).unwrap();
    workload.allowed_sources.insert(net("10.99.0.0/16"));
    wanted.local.ipip_tunnel_addr = Some(Ipv4Addr::new(192, 168, 1, 1));
    let mut forwarding = Forwarding::new(fixed(), alone());
    forwarding.apply(wanted, &Underlay::default());
    let snapshot = forwarding.published().get();
    let sources = &snapshot.ports[usize::from(WORKLOAD.0)].sources;
    let allowed = |address: [u8; 4]| sources.allow(IpAddr::from(address));
    assert!(allowed(POD.octets()) && allowed([10, 99, 1, 1]));
    assert!(!allowed(OTHER_POD.octets()) && !allowed([10, 98, 1, 1]));
    let other = &snapshot.ports[usize::from(OTHER_WORKLOAD.0)].sources;
    assert!(other.allow(OTHER_POD.into()) && !other.allow(POD.into()));
    let tunnels = &snapshot.tunnels;
    assert!(tunnels.peers.contains(NODE_A) && !tunnels.peers.contains(NODE_B));
    assert_eq!(tunnels.node_address, Some(NODE));
    for local in [POD, NODE, Ipv4Addr::new(192, 168, 1, 1)] {
        assert!(tunnels.local_addresses.contains(&IpAddr::V4(local)));
    }
    assert_eq!(snapshot.router.v4, NODE);
    let mut sender = Sender::new();
    let gateway = sender.end(&snapshot, RouterAddresses::GATEWAY_V4);
    assert_eq!(gateway, End::Punted(Punt::ToRouter));
}

/// A block and 200 addresses of it move to and fro together, while a reader watches each address: at
/// every moment it is where it was or where it goes, never where another prefix would have it.
#[test]
fn an_address_goes_from_its_old_way_to_its_new_one_and_nowhere_else() {
    let addresses: Vec<Ipv4Addr> = (1..=200).map(|n| Ipv4Addr::new(192, 168, 2, n)).collect();
    let with = |hosts: Option<(Ipv4Addr, Ipv4Addr)>| {
        let mut wanted = at_home();
        let mut add = |prefix, node| add_remote(&mut wanted, prefix, node, Encap::Ipip, None);
        add(net("192.168.0.0/16"), NODE_A);
        if let Some((node, block)) = hosts {
            add(net("192.168.2.0/24"), block);
            for address in &addresses {
                add(IpNet::from(IpAddr::V4(*address)), node);
            }
        }
        wanted
    };
    // All addresses are at A or B; what the block alone says of them in between is C or D.
    let node_d = Ipv4Addr::new(10, 30, 0, 24);
    let states = [
        with(None),
        with(Some((NODE_B, NODE_C))),
        with(None),
        with(Some((NODE_B, node_d))),
    ];
    let mut forwarding = Forwarding::new(fixed(), states[0].clone());
    forwarding.apply(states[0].clone(), &Underlay::default());
    let watcher = Watcher::start(&forwarding, addresses.clone(), |_, end| {
        end == End::Ipip(NODE_A) || end == End::Ipip(NODE_B)
    });
    for wanted in states.iter().cycle().take(400) {
        forwarding.apply(wanted.clone(), &Underlay::default());
    }
    let looked = watcher.stop();
    assert!(looked > 10_000, "the reader looked {looked} times only");
}

/// Routes come, go, change their node and their encapsulation while a reader watches.
#[test]
fn readers_find_a_way_whatever_changes() {
    let pool = Some(net("192.168.0.0/16"));
    let wanted = |round: u8| {
        let mut wanted = at_home();
        let node = [NODE_A, NODE_B][usize::from(round % 2)];
        let encap = |node| match round % 3 {
            0 => Encap::Ipip,
            1 => vxlan_to(node),
            _ => Encap::None,
        };
        add_remote(&mut wanted, net("192.168.2.0/26"), node, encap(node), pool);
        // A node a round that nobody watches, so that numbers of next hops are used again.
        let passing = Ipv4Addr::new(10, 30, 0, 100 + round);
        add_remote(
            &mut wanted,
            net("192.168.7.0/26"),
            passing,
            Encap::Ipip,
            None,
        );
        wanted
    };
    let mut forwarding = Forwarding::new(fixed(), alone());
    forwarding.apply(wanted(0), &Underlay::default());
    let watcher = Watcher::start(&forwarding, vec![FAR, POD], |address, end| match end {
        End::Port(port) => address == POD && port == WORKLOAD,
        End::Ipip(node) | End::Vxlan(node, _) => address == FAR && [NODE_A, NODE_B].contains(&node),
        End::Direct(mac) => address == FAR && [mac_of(NODE_A).0, mac_of(NODE_B).0].contains(&mac),
        End::Punted(_) => false,
    });
    for round in 0..600 {
        forwarding.apply(wanted((round % 100) as u8), &Underlay::default());
    }
    let looked = watcher.stop();
    assert!(looked > 10_000, "the reader looked {looked} times only");
}

proptest! {
    /// After any sequence of wanted routes each address goes where the last of them says.
    #[test]
    fn forwarding_is_what_was_wanted_last(worlds in proptest::collection::vec(world(), 1..8)) {
        let mut forwarding = Forwarding::new(fixed(), alone());
        let underlay = Underlay::default();
        let mut sender = Sender::new();
        for wanted in worlds {
            let refused = forwarding.apply(wanted.clone(), &underlay);
            prop_assert!(refused.is_empty());
            let snapshot = forwarding.published().get();
            for address in probes(&wanted) {
                let expected = naive(&wanted, address);
                prop_assert_eq!(sender.end(&snapshot, address), expected, "{}", address);
            }
            let hops: BTreeSet<&Hop> = forwarding.routes().values().collect();
            prop_assert!(snapshot.adjacencies.len() >= hops.len());
        }
    }

    /// The kernel keeps what is sent to the node itself, and nothing local escapes the uplink.
    #[test]
    fn steered_is_what_is_local_but_the_nodes_own_addresses(
        mut wanted in world(),
        own in prop::sample::select(vec!["10.30.0.11/24", "10.128.0.1/8", "10.128.1.64/26"]),
    ) {
        wanted.local.ipv4 = Some(own.parse().unwrap());
        let address = wanted.local.ipv4.unwrap().addr();
        wanted.routes.insert(IpNet::from(IpAddr::V4(address)), Target::Host);
        let steered = steered_prefixes(&wanted);
        prop_assert!(!steered.contains(&IpNet::from(IpAddr::V4(address))));
        for (prefix, target) in &wanted.routes {
            let local = !matches!(target, Target::Remote { .. } | Target::Unreachable);
            let host = *prefix == IpNet::from(IpAddr::V4(address));
            prop_assert_eq!(steered.contains(prefix), local && !host, "{}", prefix);
        }
    }
}

#[test]
fn an_ipv6_address_of_the_node_is_not_steered_either() {
    let mut wanted = at_home();
    wanted.local.ipv6 = Some("fd00:30::11/64".parse().unwrap());
    wanted.routes.insert(net("fd00:30::11/128"), Target::Host);
    wanted.routes.insert(net("fd00:1::/122"), Target::Blackhole);
    let steered = steered_prefixes(&wanted);
    assert!(steered.contains(&net("fd00:1::/122")));
    assert!(!steered.contains(&net("fd00:30::11/128")));
    assert!(!steered.contains(&net("10.30.0.11/32")));
    assert!(steered.contains(&net("192.168.1.2/32")));
}

/// Routes in 10.128.0.0/14, of every target and length, that often cover each other.
fn world() -> impl Strategy<Value = Wanted> {
    let length = prop::sample::select(vec![14_u8, 16, 20, 24, 26, 30, 32]);
    let route = (0..1_u32 << 18, length, 0..7_u8, 0..4_u8);
    (proptest::collection::vec(route, 0..40), any::<u8>()).prop_map(|(routes, modes)| {
        let mut wanted = alone();
        for (bits, length, target, node) in routes {
            // Few distinct bits, so that prefixes meet.
            let bits = 0x0a80_0000 | (bits & 0x30303);
            let prefix = IpNet::new(IpAddr::V4(Ipv4Addr::from_bits(bits)), length)
                .unwrap()
                .trunc();
            let interface = [INTERFACE, OTHER_INTERFACE, "unknown"][usize::from(node % 3)];
            let target = match target {
                0 => Target::Workload {
                    interface: interface.to_owned(),
                    mac: None,
                    address: prefix.addr(),
                },
                1 => Target::Host,
                2 => Target::Blackhole,
                3 => Target::Unreachable,
                _ => {
                    let far_end = Ipv4Addr::new(10, 30, 0, 50 + node);
                    let encap = match (modes >> (2 * node)) & 3 {
                        0 => Encap::None,
                        1 => Encap::Ipip,
                        _ => vxlan_to(far_end),
                    };
                    add_remote(&mut wanted, prefix, far_end, encap, None);
                    continue;
                }
            };
            wanted.routes.insert(prefix, target);
        }
        wanted
    })
}

/// The edges of each prefix and what lies beside them, the gateway, and the world.
fn probes(wanted: &Wanted) -> Vec<Ipv4Addr> {
    let mut probes = vec![
        RouterAddresses::GATEWAY_V4,
        Ipv4Addr::new(203, 0, 113, 9),
        Ipv4Addr::new(10, 131, 255, 255),
    ];
    for prefix in wanted.routes.keys() {
        if let (IpAddr::V4(first), IpAddr::V4(last)) = (prefix.network(), prefix.broadcast()) {
            let (first, last) = (first.to_bits(), last.to_bits());
            let edges = [first - 1, first, first + 1, last, last + 1];
            probes.extend(edges.map(Ipv4Addr::from_bits));
        }
    }
    probes
}

/// The longest of all prefixes that cover the address, by looking at each.
fn naive(wanted: &Wanted, address: Ipv4Addr) -> End {
    if address == RouterAddresses::GATEWAY_V4 {
        return End::Punted(Punt::ToRouter);
    }
    let address = IpAddr::V4(address);
    wanted
        .routes
        .iter()
        .filter(|(prefix, _)| prefix.contains(&address))
        .max_by_key(|(prefix, _)| prefix.prefix_len())
        .map_or(End::Port(HOST), |(_, target)| End::of(target))
}

/// The far block by one node, for the pool that all is in.
fn far_by(node: Ipv4Addr, encap: Encap) -> Wanted {
    let mut wanted = at_home();
    let pool = Some(net("192.168.0.0/16"));
    add_remote(&mut wanted, net("192.168.2.0/26"), node, encap, pool);
    wanted
}

/// Where each adjacency of the snapshot leads that has a far end.
fn ends(snapshot: &Snapshot) -> Vec<End> {
    (0..snapshot.adjacencies.len() as u32)
        .map(|index| end_by(snapshot, NextHop(index)))
        .collect()
}

/// Where the snapshot's adjacency of this number leads.
fn end_by(snapshot: &Snapshot, next_hop: NextHop) -> End {
    // A table of one route, so that the number alone decides.
    let quiescence = underpass::worker::publish::Quiescence::new();
    let (fib, mut writer) = underpass::fib::Fib::new(quiescence);
    writer.insert(net("0.0.0.0/0"), next_hop).unwrap();
    let probe = Snapshot {
        fib,
        adjacencies: snapshot.adjacencies.clone(),
        ports: snapshot.ports.clone(),
        tunnels: snapshot.tunnels.clone(),
        router: snapshot.router,
        bridges: snapshot.bridges.clone(),
    };
    Sender::new().end(&probe, FAR)
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + AT_MOST;
    while !done() {
        assert!(
            Instant::now() < deadline,
            "it did not happen in {AT_MOST:?}"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// Forwarding with one reader that the test moves by hand.
struct Lab {
    forwarding: Option<Forwarding>,
    applying: Option<thread::JoinHandle<Forwarding>>,
    published: underpass::worker::publish::Published<Snapshot>,
    cached: PublishedReader<Snapshot>,
    reader: QuiescentReader,
}

impl Lab {
    fn new(wanted: Wanted) -> Self {
        let mut forwarding = Forwarding::new(fixed(), alone());
        forwarding.apply(wanted, &Underlay::default());
        let published = forwarding.published();
        let mut cached = published.reader();
        cached.load();
        Self {
            published,
            cached,
            reader: forwarding.quiescence().register(),
            forwarding: Some(forwarding),
            applying: None,
        }
    }

    /// The next hop of the far block now.
    fn next_hop(&self) -> NextHop {
        self.published.get().fib.lookup_v4(FAR).unwrap()
    }

    /// Applies while the reader sleeps.
    fn apply(&mut self, wanted: Wanted) {
        self.reader.offline();
        let forwarding = self.forwarding.as_mut().unwrap();
        forwarding.apply(wanted, &Underlay::default());
        self.reader.online();
    }

    /// Starts to apply; the reader is in the midst of a batch.
    fn apply_meanwhile(&mut self, wanted: Wanted) {
        let mut forwarding = self.forwarding.take().unwrap();
        self.applying = Some(thread::spawn(move || {
            forwarding.apply(wanted, &Underlay::default());
            forwarding
        }));
    }

    fn applied(&self) -> bool {
        self.applying.as_ref().unwrap().is_finished()
    }

    fn finish(mut self) -> Forwarding {
        self.applying.take().unwrap().join().unwrap()
    }
}

/// A reader thread that follows the rules of a worker and looks where addresses lead.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<usize, String>>,
}

impl Watcher {
    fn start(
        forwarding: &Forwarding,
        addresses: Vec<Ipv4Addr>,
        allowed: impl Fn(Ipv4Addr, End) -> bool + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, published) = (Arc::clone(&stop), forwarding.published());
        let mut reader = forwarding.quiescence().register();
        let thread = thread::spawn(move || {
            let (mut cached, mut sender) = (published.reader(), Sender::new());
            let mut looked = 0;
            while !told.load(Ordering::Relaxed) {
                reader.quiescent();
                let snapshot = cached.load();
                for address in &addresses {
                    let end = sender.end(snapshot, *address);
                    if !allowed(*address, end) {
                        return Err(format!("{address} led to {end:?}"));
                    }
                    looked += 1;
                }
            }
            Ok(looked)
        });
        Self { stop, thread }
    }

    /// How often it looked.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap()
    }
}

#[test]
fn hops_of_the_routes_are_those_of_the_fib() {
    let mut forwarding = Forwarding::new(fixed(), alone());
    forwarding.apply(far_by(NODE_A, Encap::Ipip), &Underlay::default());
    let fib = Arc::clone(&forwarding.published().get().fib);
    let mut seen = BTreeMap::new();
    for (prefix, hop) in forwarding.routes() {
        let next_hop = match prefix.addr() {
            IpAddr::V4(address) => fib.lookup_v4(address),
            IpAddr::V6(address) => fib.lookup_v6(address),
        };
        let next_hop = next_hop.unwrap();
        assert_eq!(forwarding.hop(next_hop), Some(hop), "{prefix}");
        seen.insert(next_hop, hop);
    }
    assert_eq!(forwarding.remote_nodes(), BTreeSet::from([NODE_A.into()]));
    assert_eq!(seen.len(), 7, "one next hop for each thing: {seen:?}");
}
