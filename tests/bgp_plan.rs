//! From Calico's resources to what a node's speaker is and tells: a table of clusters.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use underpass::bgp::attributes::{AsPath, Attributes, Segment};
use underpass::bgp::filter::{Action, Subject};
use underpass::bgp::settings::{NextHopMode, PeerKind, PeerSettings};
use underpass::control::bgp::plan::{Plan, Surroundings, plan};
use underpass::control::resolve::Resolver;
use underpass::resources::{ClusterState, load};

/// Three nodes, of which the plan is the first one's; b is in another AS, c has IPv6, too.
const NODES: &str = "
kind: Node
metadata: {name: a, labels: {rack: one}}
spec: {bgp: {ipv4Address: 10.0.0.1/24, ipv6Address: 'fd00::1/64', ipv4IPIPTunnelAddr: 192.168.0.1}}
---
kind: Node
metadata: {name: b, labels: {rack: two}}
spec: {bgp: {ipv4Address: 10.0.0.2/24, asNumber: 64513}}
---
kind: Node
metadata: {name: c, labels: {rack: one, reflector: 'yes'}}
spec: {bgp: {ipv4Address: 10.0.0.3/24, ipv6Address: 'fd00::3/64'}}
---
kind: IPPool
metadata: {name: pool}
spec: {cidr: 192.168.0.0/16, ipipMode: Always}
---
kind: BlockAffinity
metadata: {name: a-0}
spec: {node: a, cidr: 192.168.0.0/26, state: confirmed}
---
kind: BlockAffinity
metadata: {name: a-1}
spec: {node: a, cidr: 192.168.9.0/26, state: pending}
---
kind: BlockAffinity
metadata: {name: b-0}
spec: {node: b, cidr: 192.168.2.0/26, state: confirmed}
---
kind: WorkloadEndpoint
metadata: {name: own, namespace: default}
spec: {node: a, orchestrator: x, workload: own, endpoint: eth0, interfaceName: cali1, ipNetworks: [192.168.0.9/32]}
---
kind: WorkloadEndpoint
metadata: {name: borrowed, namespace: default}
spec: {node: a, orchestrator: x, workload: borrowed, endpoint: eth0, interfaceName: cali2, ipNetworks: [192.168.2.7/32]}
";

fn planned(more: &str) -> Plan {
    let mut state = ClusterState::default();
    for document in NODES.split("---").chain(more.split("---")) {
        let document = document.trim();
        if document.is_empty() {
            continue;
        }
        let text = format!("apiVersion: projectcalico.org/v3\n{document}\n");
        let parsed = load::parse(Path::new("cluster.yaml"), &text);
        assert_eq!(parsed.problems, [], "{text}");
        // A later one of the same name takes the earlier one's place.
        for (resource, _) in parsed.resources {
            state.put(resource);
        }
    }
    let name = "a".parse().expect("a name");
    let resolver = Resolver::with_bgp(&state, &name, true);
    let secrets = |name: &str, key: &str| match (name, key) {
        ("bgp", "mesh") => Ok("mesh-secret".to_owned()),
        ("bgp", "peer") => Ok("peer-secret".to_owned()),
        _ => Err(format!("there is no {name}/{key}")),
    };
    let around = Surroundings {
        secrets: &secrets,
        uplink: "eth0",
        priorities: [1024, 1024],
    };
    plan(&state, resolver.wanted(), around)
}

fn peers(plan: &Plan) -> Vec<(String, PeerKind, u32)> {
    let settings = plan.settings.as_ref().expect("a speaker");
    let mut peers: Vec<_> = settings
        .peers
        .values()
        .map(|peer| (peer.address.to_string(), peer.kind, peer.remote_as))
        .collect();
    peers.sort_by(|one, other| one.0.cmp(&other.0));
    peers
}

fn peer<'a>(plan: &'a Plan, address: &str) -> &'a PeerSettings {
    let address: IpAddr = address.parse().unwrap();
    let mut peers = plan.settings.as_ref().expect("a speaker").peers.values();
    peers
        .find(|peer| peer.address == address)
        .expect("the peer")
}

fn own(plan: &Plan) -> Vec<String> {
    plan.own
        .iter()
        .map(|route| route.prefix.to_string())
        .collect()
}

fn told(peer: &PeerSettings, prefix: &str, from_peer: bool) -> bool {
    let subject = Subject {
        prefix: prefix.parse::<IpNet>().unwrap(),
        from_peer,
        interface: None,
        says: &Attributes::own([10, 0, 0, 1].into()),
        default_local_pref: 100,
    };
    peer.export.decide(&subject) == Action::Accept
}

fn configuration(spec: &str) -> String {
    format!("---\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}\n")
}

fn bgp_peer(spec: &str) -> String {
    format!("---\nkind: BGPPeer\nmetadata: {{name: peer}}\nspec: {{{spec}}}\n")
}

use PeerKind::{Global, NodeSpecific, NodeToNodeMesh as Mesh};

#[test]
fn without_a_word_there_is_a_mesh_in_calicos_as() {
    let plan = planned("");
    let entry = |address: &str, kind, number| (address.to_owned(), kind, number);
    assert_eq!(
        peers(&plan),
        [
            entry("10.0.0.2", Mesh, 64513),
            entry("10.0.0.3", Mesh, 64512),
            entry("fd00::3", Mesh, 64512)
        ]
    );
    let settings = plan.settings.as_ref().unwrap();
    assert_eq!(
        (settings.local_as, settings.router_id),
        (64512, "10.0.0.1".parse().unwrap())
    );
    let listen: BTreeSet<SocketAddr> = ["0.0.0.0:179", "[::]:179"]
        .map(|address| address.parse().unwrap())
        .into();
    assert_eq!(settings.listen, listen);
    // Its block and what it borrowed of b's, but nothing beneath and nothing unconfirmed.
    assert_eq!(own(&plan), ["192.168.0.0/26", "192.168.2.7/32"]);
    let b = peer(&plan, "10.0.0.2");
    assert!(b.passive, "the node with the higher address connects");
    assert!(b.ipv4 && !b.ipv6 && b.source == Some("10.0.0.1".parse().unwrap()));
    assert!(!peer(&plan, "fd00::3").ipv4);
    assert!(told(b, "192.168.0.0/26", false) && !told(b, "203.0.113.0/24", true));
}

/// Clusters and the peers that come of them.
#[test]
fn peers_are_those_that_the_resources_say() {
    let mesh_off = configuration("nodeToNodeMeshEnabled: false");
    for (name, more, expected) in [
        (
            "a global peer beside the mesh",
            bgp_peer("peerIP: 10.0.0.254, asNumber: 65000"),
            vec![
                ("10.0.0.2", Mesh),
                ("10.0.0.254", Global),
                ("10.0.0.3", Mesh),
                ("fd00::3", Mesh),
            ],
        ),
        (
            "the mesh off",
            mesh_off.clone() + &bgp_peer("peerIP: '10.0.0.254:1790', asNumber: 65000"),
            vec![("10.0.0.254", Global)],
        ),
        (
            "one node's peer",
            mesh_off.clone() + &bgp_peer("node: a, peerIP: 10.0.0.254, asNumber: 65000"),
            vec![("10.0.0.254", NodeSpecific)],
        ),
        (
            "the peer of this rack",
            mesh_off.clone()
                + &bgp_peer("nodeSelector: rack == 'one', peerIP: 10.0.0.254, asNumber: 65000"),
            vec![("10.0.0.254", NodeSpecific)],
        ),
        (
            "nodes by their labels",
            mesh_off.clone() + &bgp_peer("nodeSelector: all(), peerSelector: has(reflector)"),
            vec![("10.0.0.3", NodeSpecific), ("fd00::3", NodeSpecific)],
        ),
        (
            "the other way round: c's peers are the nodes of rack one",
            mesh_off.clone() + &bgp_peer("node: c, peerSelector: rack == 'one'"),
            vec![("10.0.0.3", NodeSpecific), ("fd00::3", NodeSpecific)],
        ),
        (
            "a peer that is a node of the mesh is there once",
            bgp_peer("node: a, peerIP: 10.0.0.3"),
            vec![
                ("10.0.0.2", Mesh),
                ("10.0.0.3", NodeSpecific),
                ("fd00::3", Mesh),
            ],
        ),
    ] {
        let plan = planned(&more);
        let found: Vec<_> = peers(&plan)
            .into_iter()
            .map(|(address, kind, _)| (address, kind))
            .collect();
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(a, kind)| (a.to_owned(), kind))
            .collect();
        assert_eq!(found, expected, "{name}");
        assert_eq!(plan.problems, [""; 0], "{name}");
    }
    for (name, more) in [
        ("the mesh off and no peer", mesh_off.clone()),
        ("another node's peer", mesh_off.clone() + &bgp_peer("node: b, peerIP: 10.0.0.254, asNumber: 65000")),
        (
            "only the other way, which is forbidden",
            mesh_off + &bgp_peer("node: c, peerSelector: rack == 'one', reversePeering: Manual"),
        ),
        (
            "VXLAN alone",
            "---\nkind: IPPool\nmetadata: {name: pool}\nspec: {cidr: 192.168.0.0/16, vxlanMode: Always}\n".to_owned(),
        ),
    ] {
        assert_eq!(planned(&more).settings, None, "{name}");
    }
}

#[test]
fn sessions_have_what_their_bgppeer_says() {
    let plan = planned(&bgp_peer(
        "peerIP: '10.0.0.254:1790', asNumber: 65000, localASNumber: 64999, ttlSecurity: 1, \
         numAllowedLocalASNumbers: 2, keepOriginalNextHop: true, maxRestartTime: 60s, \
         keepaliveTime: 5s, sourceAddress: None, password: {secretKeyRef: {name: bgp, key: peer}}",
    ));
    let found = peer(&plan, "10.0.0.254");
    assert_eq!(
        (found.port, found.local_as, found.ttl_security),
        (1790, Some(64999), Some(1))
    );
    assert_eq!(
        (found.allowed_local_as, found.next_hop),
        (2, NextHopMode::Keep)
    );
    assert_eq!(found.max_restart_time, Some(Duration::from_secs(60)));
    assert_eq!(found.keepalive_time, Some(Duration::from_secs(5)));
    assert_eq!(
        (found.source, found.password.as_deref()),
        (None, Some("peer-secret"))
    );
    assert!(!found.passive);

    let mesh = configuration(
        "nodeMeshPassword: {secretKeyRef: {name: bgp, key: mesh}}, nodeMeshMaxRestartTime: 30s, \
         listenPort: 1179, bindMode: NodeIP, asNumber: 64600",
    );
    let plan = planned(&mesh);
    let c = peer(&plan, "10.0.0.3");
    assert_eq!(
        (c.port, c.remote_as, c.password.as_deref()),
        (1179, 64600, Some("mesh-secret"))
    );
    assert_eq!(c.max_restart_time, Some(Duration::from_secs(30)));
    let listen = &plan.settings.as_ref().unwrap().listen;
    assert!(listen.contains(&"10.0.0.1:1179".parse().unwrap()));

    // A password that cannot be had: no session rather than one without.
    let plan = planned(&bgp_peer(
        "peerIP: 10.0.0.254, asNumber: 1, password: {secretKeyRef: {name: x, key: y}}",
    ));
    assert_eq!(peers(&plan).len(), 3);
    assert!(
        plan.problems[0].contains("there is no x/y"),
        "{:?}",
        plan.problems
    );
}

#[test]
fn reflectors_reflect_to_who_is_in_no_cluster_of_theirs() {
    let cluster = "---\nkind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv4Address: 10.0.0.1/24, routeReflectorClusterID: 1.0.0.1}}\n";
    let peering = bgp_peer("nodeSelector: all(), peerSelector: all()");
    let plan = planned(&format!("{cluster}{peering}"));
    assert_eq!(
        plan.settings.as_ref().unwrap().cluster_id,
        Some("1.0.0.1".parse().unwrap())
    );
    assert!(peer(&plan, "10.0.0.3").route_reflector_client);
    // b is in another AS.
    assert!(!peer(&plan, "10.0.0.2").route_reflector_client);
    // A reflector is in no mesh.
    assert_eq!(planned(cluster).settings, None);
}

#[test]
fn what_is_told_follows_pools_filters_and_services() {
    let more = configuration(
        "serviceClusterIPs: [{cidr: 10.96.0.0/12}], serviceExternalIPs: [{cidr: 203.0.113.0/28}], \
         communities: [{name: blocks, value: '64512:100'}], \
         prefixAdvertisements: [{cidr: 192.168.0.0/16, communities: [blocks, '1:2:3']}]",
    ) + "---
kind: IPPool
metadata: {name: quiet}
spec: {cidr: 172.20.0.0/16, ipipMode: Always, disableBGPExport: true}
---
kind: IPPool
metadata: {name: vxlan}
spec: {cidr: 172.21.0.0/16, vxlanMode: Always}
---
kind: BGPFilter
metadata: {name: filter}
spec:
  exportV4:
  - {cidr: 192.168.0.0/16, matchOperator: In, prefixLength: {min: 32}, action: Reject}
  - {cidr: 198.51.100.0/24, matchOperator: Equal, action: Accept}
  - {peerType: iBGP, action: Reject}
  importV4:
  - {cidr: 192.168.0.0/16, matchOperator: NotIn, action: Reject}
" + &bgp_peer("peerIP: 10.0.0.254, asNumber: 65000, filters: [filter]");
    let plan = planned(&more);
    assert_eq!(
        own(&plan),
        [
            "10.96.0.0/12",
            "192.168.0.0/26",
            "192.168.2.7/32",
            "203.0.113.0/28"
        ]
    );
    let says = &plan.own[1].says;
    assert_eq!(says.communities, [64512 << 16 | 100]);
    assert_eq!(says.large_communities, [[1, 2, 3]]);
    assert_eq!(plan.own[0].says.communities, [0; 0]);
    let external = peer(&plan, "10.0.0.254");
    for (prefix, expected) in [
        ("192.168.0.0/26", true),
        ("192.168.2.7/32", false),
        ("198.51.100.0/24", true),
        ("10.96.0.0/12", true),
        ("172.20.0.0/26", false),
        ("172.21.0.0/26", false),
        ("8.8.8.0/24", false),
        ("0.0.0.0/0", false),
    ] {
        assert_eq!(told(external, prefix, false), expected, "{prefix}");
    }
    assert!(
        told(peer(&plan, "10.0.0.3"), "192.168.2.7/32", false),
        "the mesh has no filter"
    );
    // What peers told goes on within the AS, and to another one with its own next hop alone.
    assert!(told(peer(&plan, "10.0.0.3"), "192.168.7.0/26", true));
    assert!(!told(external, "192.168.7.0/26", true));
    let keeping = planned(&bgp_peer(
        "peerIP: 10.0.0.254, asNumber: 65000, nextHopMode: Keep",
    ));
    assert!(told(peer(&keeping, "10.0.0.254"), "192.168.7.0/26", true));
    let import = |prefix: &str| {
        let subject = Subject {
            prefix: prefix.parse().unwrap(),
            from_peer: true,
            interface: None,
            says: &Attributes::own([10, 0, 0, 1].into()),
            default_local_pref: 100,
        };
        external.import.decide(&subject)
    };
    assert_eq!(import("192.168.7.0/26"), Action::Accept);
    assert_eq!(import("8.8.8.0/24"), Action::Reject);
    // One that is not there is said.
    let plan = planned(&bgp_peer(
        "peerIP: 10.0.0.254, asNumber: 65000, filters: [none]",
    ));
    assert!(plan.problems[0].contains("there is no BGPFilter(none)"));
}

/// The rules of Calico 3.31 on: what a route says decides, and is changed. Calico's own names for them in
/// BIRD: bgp_community, bgp_large_community, bgp_path, krt_metric (2147483647 − LOCAL_PREF).
#[test]
fn filters_by_what_routes_say_and_changes_of_it() {
    let filter = "---\nkind: BGPFilter\nmetadata: {name: rich}\nspec:
  importV4:
  - {action: Reject, communities: {values: ['65000:100']}}
  - {action: Reject, communities: {values: ['65000:10:20']}}
  - {action: Reject, asPathPrefix: [65000, 65001]}
  - {action: Reject, priority: 512}
  - {action: Reject, interface: 'vxlan*'}
  - {action: Reject, interface: 'et*0', cidr: 10.9.0.0/16, matchOperator: In}
  - action: Accept
    operations:
    - {addCommunity: {value: '65001:200'}}
    - {addCommunity: {value: '1:2:3'}}
    - {prependASPath: {prefix: [65010, 65011]}}
    - {setPriority: {value: 100}}
";
    let plan = planned(&format!(
        "{filter}{}",
        bgp_peer("peerIP: 10.0.0.254, asNumber: 65000, filters: [rich]")
    ));
    assert_eq!(plan.problems, Vec::<String>::new());
    let peer = peer(&plan, "10.0.0.254");
    let judged = |prefix: &str, change: &dyn Fn(&mut Attributes)| {
        let mut says = Attributes::own([10, 0, 0, 254].into());
        says.as_path = AsPath([Segment::Sequence([65000, 65009].into())].into());
        change(&mut says);
        let subject = Subject {
            prefix: prefix.parse().unwrap(),
            from_peer: true,
            interface: plan.settings.as_ref().unwrap().interface.as_deref(),
            says: &says,
            default_local_pref: plan.settings.as_ref().unwrap().default_local_pref,
        };
        let (action, changes) = peer.import.judge(&subject);
        let mut changed = says.clone();
        changes.iter().for_each(|change| change.apply(&mut changed));
        (action, changed)
    };
    let rejected =
        |prefix: &str, change: &dyn Fn(&mut Attributes)| judged(prefix, change).0 == Action::Reject;
    let plain = |_: &mut Attributes| {};
    assert!(rejected("10.8.0.0/24", &|says| says.communities =
        [0xfde8_0064].into()));
    assert!(!rejected("10.8.0.0/24", &|says| says.communities =
        [0xfde8_0065].into()));
    assert!(rejected("10.8.0.0/24", &|says| says.large_communities =
        [[65000, 10, 20]].into()));
    assert!(rejected("10.8.0.0/24", &|says| {
        says.as_path = AsPath([Segment::Sequence([65000, 65001, 65002].into())].into());
    }));
    assert!(rejected("10.8.0.0/24", &|says| says.local_pref =
        Some(2_147_483_647 - 512)));
    assert!(rejected("10.9.1.0/24", &plain), "by the uplink, eth0");
    let (action, changed) = judged("10.8.0.0/24", &plain);
    assert_eq!(action, Action::Accept);
    assert_eq!(*changed.communities, [0xfde9_00c8]);
    assert_eq!(*changed.large_communities, [[1, 2, 3]]);
    assert_eq!(changed.as_path.to_string(), "65010 65011 65000 65009");
    assert_eq!(changed.local_pref, Some(2_147_483_547));
}

/// confd has BIRD tell 2147483647 less the route's priority as LOCAL_PREF.
#[test]
fn own_routes_have_the_preference_of_their_priority() {
    let plan = planned("");
    assert_eq!(
        plan.settings.as_ref().unwrap().default_local_pref,
        2_147_482_623
    );
    let said: BTreeSet<_> = plan.own.iter().map(|route| route.says.local_pref).collect();
    assert_eq!(said, [Some(2_147_482_623)].into());
}

#[test]
fn a_peer_without_its_password_is_named() {
    let plan = planned(&bgp_peer(
        "peerIP: 10.0.0.254, asNumber: 65000, password: {secretKeyRef: {name: bgp, key: none}}",
    ));
    let unopened: Vec<_> = plan
        .unopened
        .iter()
        .map(|peer| (peer.address.to_string(), peer.kind, peer.reason.as_str()))
        .collect();
    assert_eq!(
        unopened,
        [(
            "10.0.0.254".to_owned(),
            Global,
            "No password: there is no bgp/none"
        )]
    );
}

#[test]
fn a_peer_behind_a_gateway_is_reached_by_it_and_ignored_interfaces_are_said() {
    let plan = planned(&format!(
        "{}{}",
        configuration("ignoredInterfaces: ['docker*']"),
        bgp_peer("peerIP: 10.9.9.9, asNumber: 65000, reachableBy: 10.0.0.254")
    ));
    let gateway = plan.reached_by[&"10.9.9.9".parse::<IpAddr>().unwrap()];
    assert_eq!(gateway.to_string(), "10.0.0.254");
    assert!(plan.problems[0].contains("ignoredInterfaces has no effect"));
}

/// After a restart peers keep routes of this node, but none that lead through it before it has heard of
/// them again.
#[test]
fn transit_is_what_leads_through_this_node() {
    let transit = |spec: &str| {
        let plan = planned(&bgp_peer(&format!("peerIP: 10.0.0.254, {spec}")));
        peer(&plan, "10.0.0.254").transit
    };
    assert!(!transit("asNumber: 65000"));
    assert!(!transit("asNumber: 64512"));
    assert!(!transit("asNumber: 65000, nextHopMode: Keep"));
    assert!(transit("asNumber: 64512, nextHopMode: Self"));
}
