//! What holds of every cluster, however odd: compared with a slow reading of the rules.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;
use underpass::control::resolve::{Encap, Resolver, Target, Wanted, resolve};
use underpass::resources::{ClusterState, EncapMode, NodeName, Resource, ResourceKey, load};

const NODES: u8 = 5;

/// A small world, so that claims meet often: five nodes, eight blocks in 10.65.0.0/24, three pools.
#[derive(Debug, Clone)]
struct World {
    /// Each node's host part, subnet and prefix length, or no address.
    nodes: Vec<Option<(u8, u8, u8)>>,
    /// Node, block, confirmed.
    affinities: Vec<(u8, u8, bool)>,
    /// Node, address within 10.65.0.0/24.
    endpoints: Vec<(u8, u8)>,
    /// Prefix length, which of the networks of that length, mode.
    pools: Vec<(u8, u8, u8)>,
}

fn worlds() -> impl Strategy<Value = World> {
    let address = (1..6u8, 0..3u8, prop::sample::select(vec![16u8, 24, 32]));
    (
        prop::collection::vec(prop::option::weighted(0.8, address), usize::from(NODES)),
        prop::collection::vec((0..NODES, 0..8u8, prop::bool::weighted(0.8)), 0..10),
        prop::collection::vec((0..NODES, any::<u8>()), 0..12),
        prop::collection::vec((22..28u8, 0..4u8, 0..5u8), 0..3),
    )
        .prop_map(|(nodes, affinities, endpoints, pools)| World {
            nodes,
            affinities,
            endpoints,
            pools,
        })
}

fn yaml(world: &World) -> String {
    let mut text = String::new();
    let mut add = |kind: &str, name: String, spec: String| {
        text += &format!(
            "---\napiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\n\
             spec: {{{spec}}}\n"
        );
    };
    for (i, node) in world.nodes.iter().enumerate() {
        let spec = node.map_or(String::new(), |(host, subnet, length)| {
            format!(
                "bgp: {{ipv4Address: 172.16.{subnet}.{}/{length}}}",
                host * 10 + i as u8
            )
        });
        add("Node", format!("n{i}"), spec);
    }
    for (i, (node, block, confirmed)) in world.affinities.iter().enumerate() {
        let state = if *confirmed { "confirmed" } else { "pending" };
        let cidr = format!("10.65.0.{}/27", block * 32);
        add(
            "BlockAffinity",
            format!("a{i}"),
            format!("state: {state}, node: n{node}, cidr: {cidr}"),
        );
    }
    for (i, (node, host)) in world.endpoints.iter().enumerate() {
        add(
            "WorkloadEndpoint",
            format!("w{i}"),
            format!("node: n{node}, interfaceName: cali{i}, ipNetworks: [10.65.0.{host}]"),
        );
    }
    for (i, (length, which, mode)) in world.pools.iter().enumerate() {
        let modes = [
            "ipipMode: Always",
            "ipipMode: CrossSubnet",
            "vxlanMode: Always",
            "vxlanMode: CrossSubnet",
            "ipipMode: Never",
        ];
        let step = 1u32 << (32 - u32::from(*length));
        let base = u32::from(Ipv4Addr::new(10, 65, 0, 0)) + u32::from(*which) * step;
        let cidr = Ipv4Net::new(Ipv4Addr::from(base), *length).unwrap().trunc();
        add(
            "IPPool",
            format!("p{i}"),
            format!("cidr: {cidr}, blockSize: 27, {}", modes[usize::from(*mode)]),
        );
    }
    text
}

fn state(world: &World) -> ClusterState {
    let parsed = load::parse(Path::new("world.yaml"), &yaml(world));
    assert_eq!(parsed.problems, [], "{}", yaml(world));
    parsed.resources.into_iter().map(|(r, _)| r).collect()
}

fn node_address(state: &ClusterState, node: &NodeName) -> Option<Ipv4Net> {
    state.nodes.get(node)?.ipv4().map(|interface| interface.0)
}

/// Who has an address by the rules, read naively: `Some(None)` is this node, by a workload.
fn expected_holder(state: &ClusterState, local: &NodeName, address: Ipv4Addr) -> Option<NodeName> {
    let ip = IpAddr::V4(address);
    let reachable = |node: &NodeName| node == local || node_address(state, node).is_some();
    let users: Vec<&NodeName> = state
        .endpoints
        .values()
        .filter(|endpoint| endpoint.addresses().any(|own| own == ip))
        .map(|endpoint| &endpoint.spec.node)
        .collect();
    if users.contains(&local) {
        return Some(local.clone());
    }
    if let Some(user) = users.into_iter().filter(|node| reachable(node)).min() {
        return Some(user.clone());
    }
    let blocks = state.affinities.values();
    blocks
        .filter(|affinity| affinity.is_routed() && affinity.block().contains(&ip))
        .map(|affinity| &affinity.spec.node)
        .filter(|node| reachable(node))
        .min()
        .cloned()
}

/// Whether packets to an address on a node are to be tunnelled, read naively.
fn expected_tunnel(state: &ClusterState, local: Ipv4Net, far: Ipv4Addr, to: Ipv4Addr) -> bool {
    let block = Ipv4Net::new(to, 27).unwrap().trunc();
    let pool = state
        .pools
        .values()
        .filter(|pool| pool.cidr().contains(&IpNet::V4(block)))
        .max_by_key(|pool| pool.cidr().prefix_len());
    let Some(pool) = pool else { return false };
    let modes = [pool.spec.ipip_mode, pool.spec.vxlan_mode];
    modes.contains(&EncapMode::Always)
        || modes.contains(&EncapMode::CrossSubnet) && !local.contains(&far)
}

fn lookup(wanted: &Wanted, address: Ipv4Addr) -> Option<(&IpNet, &Target)> {
    let matching = wanted
        .routes
        .iter()
        .filter(|(prefix, _)| prefix.contains(&IpAddr::V4(address)));
    matching.max_by_key(|(prefix, _)| prefix.prefix_len())
}

/// Pools of one CIDR are refused by Calico and leave it open which one counts.
fn pools_are_distinct(state: &ClusterState) -> bool {
    let mut cidrs: Vec<IpNet> = state.pools.values().map(|pool| pool.cidr()).collect();
    cidrs.sort();
    cidrs.windows(2).all(|pair| pair[0] != pair[1])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Every address of the world goes where a naive reading of the rules says.
    #[test]
    fn every_address_goes_to_its_holder(world in worlds()) {
        let state = state(&world);
        prop_assume!(pools_are_distinct(&state));
        let local: NodeName = "n1".parse().unwrap();
        let Some(local_net) = node_address(&state, &local) else { return Ok(()) };
        let wanted = resolve(&state, &local);
        for host in 0..=255u8 {
            let address = Ipv4Addr::new(10, 65, 0, host);
            let holder = expected_holder(&state, &local, address);
            match (lookup(&wanted, address), holder) {
                (Some((_, Target::Workload { address: to, .. })), Some(holder)) => {
                    prop_assert_eq!(&holder, &local);
                    prop_assert_eq!(*to, IpAddr::V4(address));
                }
                (Some((_, Target::Blackhole)), Some(holder)) => prop_assert_eq!(&holder, &local),
                (Some((prefix, Target::Remote { node, far_end, encap, .. })), Some(holder)) => {
                    prop_assert_eq!(node, &holder, "{}", address);
                    let far = node_address(&state, node).unwrap().addr();
                    prop_assert_eq!(*far_end, IpAddr::V4(far));
                    // A /32 is looked up by itself, and may lie in a pool that its block does not.
                    if prefix.prefix_len() == 27 {
                        let tunnelled = expected_tunnel(&state, local_net, far, address);
                        prop_assert_eq!(*encap != Encap::None, tunnelled, "{}", address);
                    }
                }
                (Some((_, Target::Unreachable)) | None, None) => {}
                (found, holder) => prop_assert!(false, "{}: {:?} {:?}", address, found, holder),
            }
        }
    }

    /// The order in which resources come does not matter, and nothing is kept from before.
    #[test]
    fn the_result_depends_on_the_resources_alone(world in worlds()) {
        let state = state(&world);
        let local: NodeName = "n0".parse().unwrap();
        let text = yaml(&world);
        let mut documents: Vec<&str> = text.split("---\n").collect();
        documents.reverse();
        let parsed = load::parse(Path::new("reversed.yaml"), &documents.join("---\n"));
        let reversed: ClusterState = parsed.resources.into_iter().map(|(r, _)| r).collect();
        prop_assert_eq!(resolve(&state, &local), resolve(&reversed, &local));
    }

    /// What one node sends in a tunnel, its far end knows the sender of.
    #[test]
    fn tunnels_lead_to_nodes_that_know_the_sender(world in worlds()) {
        let state = state(&world);
        let mut all: BTreeMap<NodeName, Wanted> = BTreeMap::new();
        for name in state.nodes.keys() {
            all.insert(name.clone(), resolve(&state, name));
        }
        for (name, wanted) in &all {
            for target in wanted.routes.values() {
                let Target::Remote { node, encap, .. } = target else { continue };
                prop_assert_ne!(node, name);
                if *encap == Encap::None { continue }
                let from = IpAddr::V4(wanted.local.ipv4.unwrap().addr());
                let known = all[node].peers.contains_key(&from);
                let same_address = all[node].local.ipv4.map(|net| IpAddr::V4(net.addr())) == Some(from);
                prop_assert!(known || same_address, "{} -> {}", name, node);
            }
        }
    }
}

/// A world's resources; some nodes have a tunnel's address among the workloads'.
fn resources(world: &World) -> BTreeMap<ResourceKey, Resource> {
    let mut text = yaml(world);
    for i in (0..NODES).step_by(2) {
        let plain = format!("{{name: n{i}}}\nspec: {{bgp: {{");
        let tunnel = format!("{plain}ipv4IPIPTunnelAddr: 10.65.0.{}, ", 40 * i + 1);
        text = text.replace(&plain, &tunnel);
    }
    let parsed = load::parse(Path::new("world.yaml"), &text);
    assert_eq!(parsed.problems, [], "{text}");
    let keyed = parsed.resources.into_iter().map(|(r, _)| (r.key(), r));
    keyed.collect()
}

proptest! {
    /// From world to world by single changes: what is wanted never depends on what was.
    #[test]
    fn following_changes_ends_where_starting_anew_does(
        worlds in prop::collection::vec(worlds(), 1..4),
        local in 0..NODES,
        every in 1..6usize,
    ) {
        let local: NodeName = format!("n{local}").parse().unwrap();
        let mut state = ClusterState::default();
        let mut resolver = Resolver::new(&state, &local);
        let mut follower = resolver.wanted().clone();
        let mut present = BTreeMap::new();
        let mut changes = 0;
        for world in &worlds {
            let next = resources(world);
            let keys: std::collections::BTreeSet<_> =
                present.keys().chain(next.keys()).cloned().collect();
            for key in keys {
                match next.get(&key) {
                    Some(resource) if present.get(&key) == Some(resource) => continue,
                    Some(resource) => resolver.put(&mut state, resource.clone()),
                    None => resolver.delete(&mut state, &key),
                }
                changes += 1;
                if changes % every == 0 {
                    let delta = resolver.settle(&state);
                    prop_assert_eq!(resolver.wanted(), &resolve(&state, &local));
                    follower.update(resolver.wanted(), &delta);
                    prop_assert_eq!(&follower, resolver.wanted());
                }
            }
            present = next;
        }
        let delta = resolver.settle(&state);
        follower.update(resolver.wanted(), &delta);
        prop_assert_eq!(&follower, &resolve(&state, &local));
        prop_assert!(resolver.settle(&state).is_empty());
    }
}
