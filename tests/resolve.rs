//! The routes of each mode, and who wins, as Calico has them.
//!
//! The cluster of most tests:
//!
//! ```text
//!   node1 192.168.0.1/24 ── node2 192.168.0.2/24        node3 192.168.1.3/24
//!   10.65.0.0/26            10.65.1.0/26                10.65.2.0/26
//!   pool 10.65.0.0/16
//! ```

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use underpass::control::resolve::{Encap, Target, Wanted, resolve};
use underpass::resources::{ClusterState, load};

const NODES: &str = "
apiVersion: projectcalico.org/v3
kind: NodeList
items:
- metadata: {name: node1}
  spec: {bgp: {ipv4Address: 192.168.0.1/24}, ipv4VXLANTunnelAddr: 10.65.0.1}
- metadata: {name: node2}
  spec: {bgp: {ipv4Address: 192.168.0.2/24}, ipv4VXLANTunnelAddr: 10.65.1.1}
- metadata: {name: node3}
  spec: {bgp: {ipv4Address: 192.168.1.3/24}}
";

const BLOCKS: &str = "
apiVersion: projectcalico.org/v3
kind: BlockAffinityList
items:
- metadata: {name: b1}
  spec: {state: confirmed, node: node1, cidr: 10.65.0.0/26}
- metadata: {name: b2}
  spec: {state: confirmed, node: node2, cidr: 10.65.1.0/26}
- metadata: {name: b3}
  spec: {state: confirmed, node: node3, cidr: 10.65.2.0/26}
";

fn pool(name: &str, spec: &str) -> String {
    document("IPPool", name, spec)
}

fn endpoint(name: &str, node: &str, interface: &str, address: &str) -> String {
    let spec = format!("node: {node}, interfaceName: {interface}, ipNetworks: ['{address}']");
    document("WorkloadEndpoint", name, &spec)
}

fn affinity(name: &str, node: &str, cidr: &str) -> String {
    let spec = format!("state: confirmed, node: {node}, cidr: '{cidr}'");
    document("BlockAffinity", name, &spec)
}

fn node(name: &str, spec: &str) -> String {
    document("Node", name, spec)
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\n\
         spec: {{{spec}}}\n"
    )
}

fn state(documents: &[&str]) -> ClusterState {
    let parsed = load::parse(Path::new("state.yaml"), &documents.join("\n---\n"));
    assert_eq!(parsed.problems, []);
    parsed
        .resources
        .into_iter()
        .map(|(resource, _)| resource)
        .collect()
}

fn wanted(documents: &[&str]) -> Wanted {
    resolve(&state(documents), &"node1".parse().unwrap())
}

fn route<'a>(wanted: &'a Wanted, prefix: &str) -> Option<&'a Target> {
    wanted.routes.get(&prefix.parse::<IpNet>().unwrap())
}

/// A remote route as `node via far-end encapsulation`.
fn remote(wanted: &Wanted, prefix: &str) -> String {
    match route(wanted, prefix) {
        Some(Target::Remote {
            node,
            far_end,
            encap,
            ..
        }) => {
            let encap = match encap {
                Encap::None => "direct".to_owned(),
                Encap::Ipip => "ipip".to_owned(),
                Encap::Vxlan {
                    vtep_mac,
                    vtep_address,
                } => match vtep_address {
                    Some(address) => format!("vxlan {vtep_mac} {address}"),
                    None => format!("vxlan {vtep_mac}"),
                },
            };
            format!("{node} via {far_end} {encap}")
        }
        other => format!("{other:?}"),
    }
}

/// `printf node2 | sha1sum` and `printf node3 | sha1sum`, the first five bytes.
const MAC2: &str = "66:2d:bf:44:a6:8b";
const MAC3: &str = "66:a4:6f:e0:c4:da";

#[test]
fn each_mode_gives_calicos_routes() {
    let vxlan2 = format!("node2 via 192.168.0.2 vxlan {MAC2} 10.65.1.1");
    let vxlan3 = format!("node3 via 192.168.1.3 vxlan {MAC3}");
    let direct2 = "node2 via 192.168.0.2 direct";
    let direct3 = "node3 via 192.168.1.3 direct";
    let ipip2 = "node2 via 192.168.0.2 ipip";
    let ipip3 = "node3 via 192.168.1.3 ipip";
    let cases = [
        ("ipipMode: Always", ipip2, ipip3),
        ("vxlanMode: Always", &vxlan2, &vxlan3),
        ("ipipMode: CrossSubnet", direct2, ipip3),
        ("vxlanMode: CrossSubnet", direct2, &vxlan3),
        ("ipipMode: Never, vxlanMode: Never", direct2, direct3),
        ("ipipMode: Always, disabled: true", ipip2, ipip3),
    ];
    for (mode, to_node2, to_node3) in cases {
        let pool = pool("p", &format!("cidr: 10.65.0.0/16, {mode}"));
        let local = endpoint("w", "node1", "cali1", "10.65.0.2/32");
        let wanted = wanted(&[NODES, BLOCKS, &pool, &local]);
        assert_eq!(remote(&wanted, "10.65.1.0/26"), to_node2, "{mode}");
        assert_eq!(remote(&wanted, "10.65.2.0/26"), to_node3, "{mode}");
        assert_eq!(route(&wanted, "10.65.0.0/26"), Some(&Target::Blackhole));
        assert_eq!(route(&wanted, "10.65.0.1/32"), Some(&Target::Host));
        assert_eq!(route(&wanted, "192.168.0.1/32"), Some(&Target::Host));
        assert_eq!(
            route(&wanted, "10.65.0.2/32"),
            Some(&Target::Workload {
                interface: "cali1".into(),
                mac: None,
                address: IpAddr::from([10, 65, 0, 2]),
            })
        );
        let swallowed = (!mode.contains("disabled")).then_some(&Target::Unreachable);
        assert_eq!(route(&wanted, "10.65.0.0/16"), swallowed);
        assert_eq!(wanted.warnings, [""; 0], "{mode}");
    }
}

#[test]
fn the_same_subnet_is_what_the_local_cidr_contains() {
    let pool = pool("p", "cidr: 10.65.0.0/16, ipipMode: CrossSubnet");
    let block = affinity("b", "other", "10.65.9.0/26");
    // The local node's CIDR, the remote node's, and whether the two share a subnet.
    for (local, other, same) in [
        ("10.0.0.1/24", "10.0.0.9/24", true),
        ("10.0.0.1/24", "10.0.1.9/24", false),
        ("10.0.0.1/16", "10.0.1.9/24", true),
        ("10.0.0.1/24", "10.0.1.9/16", false),
        ("10.0.0.1/24", "10.0.0.9/32", true),
        ("10.0.0.1/32", "10.0.0.9/24", false),
        ("10.0.0.1/32", "10.0.0.9/32", false),
        ("10.0.0.1", "10.0.0.9", false),
    ] {
        let local_node = node("node1", &format!("bgp: {{ipv4Address: {local}}}"));
        let other_node = node("other", &format!("bgp: {{ipv4Address: {other}}}"));
        let wanted = wanted(&[&local_node, &other_node, &pool, &block]);
        let expected = if same { "direct" } else { "ipip" };
        let found = remote(&wanted, "10.65.9.0/26");
        assert!(found.ends_with(expected), "{local} {other}: {found}");
        let loud = [local, other]
            .into_iter()
            .filter(|a| !a.contains('/') || a.ends_with("/32"));
        assert_eq!(wanted.warnings.len(), loud.count(), "{:?}", wanted.warnings);
    }
}

#[test]
fn an_address_without_a_subnet_is_warned_about_loudly() {
    let lonely = node("node1", "bgp: {ipv4Address: 10.30.0.11/32}");
    let cross = pool("p", "cidr: 10.65.0.0/16, vxlanMode: CrossSubnet");
    assert_eq!(
        wanted(&[&lonely, &cross]).warnings,
        [
            "Node(node1) has the address 10.30.0.11/32, whose subnet holds no other node, so \
             CrossSubnet of IPPool(p) tunnels every packet that it sends to other nodes; give the \
             prefix length of its network, such as 10.30.0.11/24"
        ]
    );
    for quiet in ["vxlanMode: Always", "ipipMode: Never"] {
        let pool = pool("p", &format!("cidr: 10.65.0.0/16, {quiet}"));
        assert_eq!(wanted(&[&lonely, &pool]).warnings, [""; 0]);
    }
    let other_family = pool("p", "cidr: fd00:65::/64, vxlanMode: CrossSubnet");
    assert_eq!(wanted(&[&lonely, &other_family]).warnings, [""; 0]);
}

#[test]
fn a_block_takes_the_mode_of_its_most_specific_pool() {
    // Calico refuses pools that overlap; a datastore may hold them all the same.
    let wide = pool("wide", "cidr: 10.0.0.0/8, ipipMode: Always");
    let narrow = pool("narrow", "cidr: 10.65.1.0/24, vxlanMode: Always");
    let wanted = wanted(&[NODES, BLOCKS, &wide, &narrow]);
    assert!(remote(&wanted, "10.65.1.0/26").contains("vxlan"));
    assert!(remote(&wanted, "10.65.2.0/26").contains("ipip"));
}

#[test]
fn a_block_outside_every_pool_goes_direct_with_a_warning() {
    let pool = pool("p", "cidr: 10.65.0.0/16, ipipMode: Always");
    let stray = affinity("stray", "node3", "172.16.0.0/26");
    let wanted = wanted(&[NODES, &pool, &stray]);
    assert_eq!(
        remote(&wanted, "172.16.0.0/26"),
        "node3 via 192.168.1.3 direct"
    );
    assert_eq!(wanted.warnings.len(), 1);
    assert!(wanted.warnings[0].contains("BlockAffinity(stray)"));
    assert!(wanted.warnings[0].contains("lies in no IPPool"));
}

/// IPAM's blocks say so too: an address of node2's block that node3 has, and one that node2 has itself.
#[test]
fn addresses_that_ipam_lent_to_other_nodes_are_routed_one_by_one() {
    let block = document(
        "IPAMBlock",
        "10-65-1-64-30",
        "cidr: 10.65.1.64/30, affinity: 'host:node2', allocations: [null, 0, 1, null], \
         unallocated: [0, 3], attributes: [{handle_id: a, secondary: {node: node3}}, \
         {handle_id: b, secondary: {node: node2}}]",
    );
    let own = affinity("b4", "node2", "10.65.1.64/30");
    let pool = pool("p", "cidr: 10.65.0.0/16, ipipMode: Always");
    let wanted = wanted(&[NODES, BLOCKS, &pool, &own, &block]);
    assert_eq!(
        remote(&wanted, "10.65.1.64/30"),
        "node2 via 192.168.0.2 ipip"
    );
    assert_eq!(
        remote(&wanted, "10.65.1.65/32"),
        "node3 via 192.168.1.3 ipip"
    );
    assert_eq!(route(&wanted, "10.65.1.66/32"), None);
}

#[test]
fn borrowed_addresses_are_routed_one_by_one() {
    let pool = pool("p", "cidr: 10.65.0.0/16, ipipMode: CrossSubnet");
    let own = endpoint("own", "node2", "cali1", "10.65.1.7/32");
    let of_third = endpoint("of-third", "node2", "cali2", "10.65.2.7/32");
    let of_local = endpoint("of-local", "node3", "cali1", "10.65.0.9/32");
    let of_none = endpoint("of-none", "node3", "cali2", "10.65.77.7/32");
    let here = endpoint("here", "node1", "cali3", "10.65.1.8/32");
    let wanted = wanted(&[
        NODES, BLOCKS, &pool, &own, &of_third, &of_local, &of_none, &here,
    ]);
    assert_eq!(
        route(&wanted, "10.65.1.7/32"),
        None,
        "its block's route covers it"
    );
    assert_eq!(
        remote(&wanted, "10.65.2.7/32"),
        "node2 via 192.168.0.2 direct"
    );
    assert_eq!(
        remote(&wanted, "10.65.0.9/32"),
        "node3 via 192.168.1.3 ipip"
    );
    assert_eq!(
        remote(&wanted, "10.65.77.7/32"),
        "node3 via 192.168.1.3 ipip"
    );
    assert!(matches!(
        route(&wanted, "10.65.1.8/32"),
        Some(Target::Workload { interface, .. }) if interface == "cali3"
    ));
}

#[test]
fn a_tunnel_address_outside_its_nodes_blocks_is_routed() {
    let pool = pool("p", "cidr: 10.65.0.0/16, ipipMode: Always");
    let borrower = node(
        "node4",
        "bgp: {ipv4Address: 192.168.0.4/24, ipv4IPIPTunnelAddr: 10.65.1.9}",
    );
    let wanted = wanted(&[NODES, BLOCKS, &pool, &borrower]);
    assert_eq!(
        remote(&wanted, "10.65.1.9/32"),
        "node4 via 192.168.0.4 ipip"
    );
    assert_eq!(
        route(&wanted, "10.65.1.1/32"),
        None,
        "node2's own block covers it"
    );
}

#[test]
fn a_nodes_own_address_is_never_routed_into_a_tunnel() {
    let pool = pool("p", "cidr: 192.168.0.0/16, ipipMode: Always");
    let odd = endpoint("odd", "node2", "cali1", "192.168.1.3");
    let wanted = wanted(&[NODES, &pool, &odd]);
    assert_eq!(route(&wanted, "192.168.1.3/32"), None);
    assert_eq!(
        route(&wanted, "192.168.0.0/16"),
        None,
        "nodes live in the pool"
    );
}

#[test]
fn only_confirmed_affinities_of_hosts_are_routed() {
    let pool = pool("p", "cidr: 10.65.0.0/16");
    for spec in [
        "state: pending, node: node2, cidr: 10.65.1.0/26",
        "state: pendingDeletion, node: node2, cidr: 10.65.1.0/26",
        "state: confirmed, deleted: 'true', node: node2, cidr: 10.65.1.0/26",
        "state: confirmed, type: virtual, node: node2, cidr: 10.65.1.0/26",
    ] {
        let wanted = wanted(&[NODES, &pool, &document("BlockAffinity", "b", spec)]);
        assert_eq!(route(&wanted, "10.65.1.0/26"), None, "{spec}");
    }
}

#[test]
fn the_lower_name_wins_a_tie_among_nodes_that_can_be_reached() {
    let pool = pool("p", "cidr: 10.65.0.0/16");
    let second = affinity("x", "node3", "10.65.9.0/26");
    let first = affinity("y", "node2", "10.65.9.0/26");
    let unknown = affinity("z", "node0", "10.65.9.0/26");
    let wanted = wanted(&[NODES, &pool, &second, &first, &unknown]);
    assert_eq!(
        remote(&wanted, "10.65.9.0/26"),
        "node2 via 192.168.0.2 direct"
    );
    assert!(
        wanted
            .warnings
            .iter()
            .any(|w| w.contains("node0, node2, node3"))
    );
    assert!(wanted.warnings.iter().any(|w| w.contains("no Node(node0)")));
}

#[test]
fn a_local_workload_beats_everything_of_its_prefix() {
    let pool = pool("p", "cidr: 10.65.0.0/16, blockSize: 32");
    let local = endpoint("z", "node1", "cali1", "10.65.3.3");
    let remote_one = endpoint("a", "node2", "cali1", "10.65.3.3");
    let block = affinity("b", "node2", "10.65.3.3/32");
    let wanted = wanted(&[NODES, &pool, &local, &remote_one, &block]);
    assert!(matches!(
        route(&wanted, "10.65.3.3/32"),
        Some(Target::Workload { .. })
    ));
    assert!(
        wanted
            .warnings
            .iter()
            .any(|w| w.contains("in use on the nodes node1, node2"))
    );
}

#[test]
fn own_blocks_of_one_address_are_no_blackholes() {
    let v4 = pool("v4", "cidr: 10.65.0.0/16, blockSize: 32");
    let v6 = pool("v6", "cidr: fd00:65::/64, blockSize: 128");
    let one = affinity("b1", "node1", "10.65.0.5/32");
    let six = affinity("b2", "node1", "fd00:65::5/128");
    let wanted = wanted(&[NODES, &v4, &v6, &one, &six]);
    assert_eq!(route(&wanted, "10.65.0.5/32"), None);
    assert_eq!(route(&wanted, "fd00:65::5/128"), None);
}

#[test]
fn nothing_is_routed_by_a_node_without_an_address() {
    let pool4 = pool("p4", "cidr: 10.65.0.0/16, ipipMode: Always");
    let pool6 = pool("p6", "cidr: fd00:65::/64, vxlanMode: Always");
    let nameless = node("node9", "");
    let b4 = affinity("b4", "node9", "10.65.9.0/26");
    let b6 = affinity("b6", "node2", "fd00:65::/122");
    let pod = endpoint("w", "node9", "cali1", "10.65.9.1");
    let wanted = wanted(&[NODES, &pool4, &pool6, &nameless, &b4, &b6, &pod]);
    for prefix in ["10.65.9.0/26", "10.65.9.1/32", "fd00:65::/122"] {
        assert_eq!(route(&wanted, prefix), None, "{prefix}");
    }
    assert_eq!(wanted.warnings.len(), 2, "{:?}", wanted.warnings);
    assert!(
        wanted
            .warnings
            .iter()
            .any(|w| w.contains("Node(node9) with an ipv4Address"))
    );
    assert!(
        wanted
            .warnings
            .iter()
            .any(|w| w.contains("Node(node2) with an ipv6Address"))
    );
}

#[test]
fn without_its_own_node_nothing_is_tunnelled() {
    let tunnelled = pool("p", "cidr: 10.65.0.0/16, ipipMode: Always");
    let documents = [NODES, BLOCKS, &tunnelled];
    let wanted = resolve(&state(&documents), &"node7".parse().unwrap());
    assert!(
        !wanted
            .routes
            .values()
            .any(|target| matches!(target, Target::Remote { .. }))
    );
    assert!(wanted.warnings[0].contains("no Node(node7), which is this node"));
}

#[test]
fn ipv6_goes_by_vxlan_or_direct_over_ipv6() {
    let nodes = [
        node("node1", "bgp: {ipv6Address: 'fd00:30::1/64'}"),
        node(
            "node2",
            "bgp: {ipv6Address: 'fd00:30::2/64'}, ipv6VXLANTunnelAddr: 'fd00:65::40:0'",
        ),
        node(
            "node3",
            "bgp: {ipv6Address: 'fd00:31::3/64'}, vxlanTunnelMACAddrV6: '02:00:00:00:00:03'",
        ),
    ];
    let blocks = [
        affinity("b2", "node2", "fd00:65::40:0/122"),
        affinity("b3", "node3", "fd00:65::80:0/122"),
    ];
    let all = |mode: &str| {
        let pool = pool("p", &format!("cidr: 'fd00:65::/64', vxlanMode: {mode}"));
        wanted(&[
            &nodes[0], &nodes[1], &nodes[2], &blocks[0], &blocks[1], &pool,
        ])
    };
    let always = all("Always");
    assert_eq!(
        remote(&always, "fd00:65::40:0/122"),
        "node2 via fd00:30::2 vxlan 66:32:42:ed:de:d5 fd00:65::40:0"
    );
    let cross = all("CrossSubnet");
    assert_eq!(
        remote(&cross, "fd00:65::40:0/122"),
        "node2 via fd00:30::2 direct"
    );
    assert_eq!(
        remote(&cross, "fd00:65::80:0/122"),
        "node3 via fd00:31::3 vxlan 02:00:00:00:00:03"
    );
    assert_eq!(route(&cross, "fd00:65::/64"), Some(&Target::Unreachable));
}

#[test]
fn pools_swallow_only_what_is_the_workloads_own() {
    for (spec, swallowed) in [
        ("cidr: 10.65.0.0/16", true),
        ("cidr: 10.0.0.0/8, disabled: true", false),
        ("cidr: 10.1.0.0/20, allowedUses: [LoadBalancer]", false),
        ("cidr: 192.168.0.0/24", false),
    ] {
        let wanted = wanted(&[NODES, &pool("p", spec)]);
        let any = wanted
            .routes
            .values()
            .any(|target| *target == Target::Unreachable);
        assert_eq!(any, swallowed, "{spec}");
    }
}

#[test]
fn peers_are_the_other_nodes_addresses() {
    let double = node(
        "node4",
        "bgp: {ipv4Address: 192.168.0.2/24, ipv6Address: 'fd00::4/64'}",
    );
    let as_local = node("node5", "bgp: {ipv4Address: 192.168.0.1/24}");
    let wanted = wanted(&[NODES, &double, &as_local]);
    let peers: Vec<String> = wanted
        .peers
        .iter()
        .map(|(address, peer)| format!("{address} {}", peer.node))
        .collect();
    assert_eq!(
        peers,
        ["192.168.0.2 node2", "192.168.1.3 node3", "fd00::4 node4"]
    );
    assert_eq!(
        wanted.peers[&IpAddr::from([192, 168, 0, 2])]
            .vtep_mac
            .to_string(),
        MAC2
    );
    assert_eq!(wanted.warnings.len(), 2, "{:?}", wanted.warnings);
}

#[test]
fn workloads_know_what_they_may_send_from() {
    let spec = "node: node1, interfaceName: cali1, mac: '02:00:00:00:00:09', \
                ipNetworks: [10.65.0.2/32, 'fd00:65::2/128'], \
                allowSpoofedSourcePrefixes: [10.9.9.9/24]";
    let first = document("WorkloadEndpoint", "a", spec);
    let same_interface = endpoint("b", "node1", "cali1", "10.65.0.3");
    let same_address = endpoint("c", "node1", "cali2", "10.65.0.2");
    let hosts_address = endpoint("d", "node1", "cali3", "192.168.0.1");
    let wanted = wanted(&[
        NODES,
        &first,
        &same_interface,
        &same_address,
        &hosts_address,
    ]);
    let workload = &wanted.workloads["cali1"];
    assert_eq!(workload.endpoint, "default/a");
    assert_eq!(workload.addresses.len(), 2);
    assert_eq!(workload.mac.unwrap().to_string(), "02:00:00:00:00:09");
    let sources: Vec<String> = workload
        .allowed_sources
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(sources, ["10.9.9.0/24"]);
    assert_eq!(route(&wanted, "10.65.0.3/32"), None);
    assert!(wanted.workloads["cali2"].addresses.is_empty());
    assert_eq!(route(&wanted, "192.168.0.1/32"), Some(&Target::Host));
    assert_eq!(wanted.warnings.len(), 3, "{:?}", wanted.warnings);
}

#[test]
fn a_block_of_another_size_than_its_pools_is_told() {
    let pool = pool("p", "cidr: 10.65.0.0/16, blockSize: 28");
    let wanted = wanted(&[NODES, &pool, &affinity("b", "node2", "10.65.1.0/26")]);
    assert!(wanted.warnings[0].contains("IPPool(p) has blocks of /28"));
}
