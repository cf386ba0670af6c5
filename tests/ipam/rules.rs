//! Calico's rules, each by itself.

use std::net::IpAddr;
use std::sync::Arc;

use tempfile::TempDir;
use underpass::datastore::{Datastore, Directory};
use underpass::ipam::{Ipam, IpamError, Release, Suspects, TunnelKind};
use underpass::resources::ip_pool::AllowedUse;
use underpass::resources::{Kind, Resource};

use super::contract::{endpoint, key, resources};
use super::invariants::{hold, name, pool, request};

fn ipam(documents: &[Resource]) -> (TempDir, Arc<dyn Datastore>, Ipam) {
    let root = tempfile::tempdir().unwrap();
    let store: Arc<dyn Datastore> = Arc::new(Directory::new(root.path()));
    for document in documents {
        store.create(document).unwrap();
    }
    let ipam = Ipam::new(Arc::clone(&store));
    (root, store, ipam)
}

fn document(text: &str) -> Resource {
    resources(&format!("apiVersion: projectcalico.org/v3\n{text}")).remove(0)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_node_fills_its_blocks_then_claims_then_borrows() {
    let (_root, store, ipam) = ipam(&[pool("p", "cidr: 10.65.0.0/29, blockSize: 30")]);
    let first = ipam.assign(&request("a", "h1", 3)).unwrap();
    assert_eq!(ipam.affinities(&"a".parse().unwrap()).unwrap().len(), 1);
    ipam.assign(&request("b", "h2", 1)).unwrap();
    // One of its own, and two of b's.
    let more = ipam.assign(&request("a", "h3", 3)).unwrap();
    assert_eq!(more.len(), 3);
    assert_eq!(ipam.affinities(&"a".parse().unwrap()).unwrap().len(), 1);
    let owner = ipam.owner_of(more[2]).unwrap().unwrap();
    assert_eq!(owner.secondary.unwrap()["node"], "a");
    hold(&store);
    // The last one, and no more than there are.
    assert_eq!(ipam.assign(&request("c", "h4", 5)).unwrap().len(), 1);
    let mut released = ipam.release_handle("h1").unwrap();
    released.sort();
    assert_eq!(released, first);
    assert_eq!(ipam.addresses_of("h1").unwrap(), [] as [IpAddr; 0]);
    hold(&store);
}

#[test]
fn strict_affinity_and_the_limit_of_blocks_are_kept() {
    let (_root, store, ipam) = ipam(&[pool("p", "cidr: 10.65.0.0/28, blockSize: 30")]);
    ipam.configure(|configuration| {
        configuration.strict_affinity = true;
        configuration.max_blocks_per_host = 2;
    })
    .unwrap();
    assert_eq!(ipam.assign(&request("a", "h", 16)).unwrap().len(), 8);
    ipam.configure(|configuration| configuration.auto_allocate_blocks = false)
        .unwrap();
    assert_eq!(
        ipam.assign(&request("b", "i", 1)).unwrap(),
        [] as [IpAddr; 0]
    );
    let of_a = ipam.addresses_of("h").unwrap()[0];
    ipam.release(&[Release::address(of_a)]).unwrap();
    let refused = ipam
        .assign_address(&request("b", "i", 1), of_a)
        .unwrap_err();
    assert!(matches!(refused, IpamError::Strict(..)), "{refused}");
    hold(&store);
}

#[test]
fn pools_are_chosen_by_use_node_mode_and_name() {
    let (_root, _store, ipam) = ipam(&[
        document("kind: Node\nmetadata: {name: a, labels: {rack: one}}\n"),
        pool("disabled", "cidr: 10.1.0.0/24, disabled: true"),
        pool("manual", "cidr: 10.2.0.0/24, assignmentMode: Manual"),
        pool("rack", "cidr: 10.3.0.0/24, nodeSelector: \"rack == 'one'\""),
        pool("tunnels", "cidr: 10.4.0.0/24, allowedUses: [Tunnel]"),
        pool("six", "cidr: 'fd00:65::/64'"),
    ]);
    let from = |request| ipam.assign(&request).map(|given| given[0].to_string());
    assert!(from(request("a", "h", 1)).unwrap().starts_with("10.3.0."));
    assert!(matches!(
        from(request("b", "h", 1)),
        Err(IpamError::NoPools(..))
    ));
    let mut asked = request("b", "h", 1);
    asked.pools = vec![name("manual")];
    assert!(from(asked.clone()).unwrap().starts_with("10.2.0."));
    asked.pools = vec![name("disabled")];
    let refused = from(asked.clone()).unwrap_err().to_string();
    assert!(
        refused.contains("the requested pool disabled is disabled"),
        "{refused}"
    );
    (asked.pools, asked.purpose) = (vec![], AllowedUse::Tunnel);
    assert!(from(asked.clone()).unwrap().starts_with("10.4.0."));
    (asked.purpose, asked.ipv4) = (AllowedUse::Workload, false);
    assert!(from(asked).unwrap().starts_with("fd00:65:"));
    let blocks = ipam.blocks().unwrap();
    assert!(
        blocks
            .iter()
            .any(|block| block.spec.cidr.net().prefix_len() == 122)
    );
}

#[test]
fn reserved_addresses_go_to_those_who_ask_for_them_only() {
    let (_root, store, ipam) = ipam(&[
        pool("p", "cidr: 10.65.0.0/30, blockSize: 30"),
        document(
            "kind: IPReservation\nmetadata: {name: r}\nspec: {reservedCIDRs: [10.65.0.0/31]}\n",
        ),
    ]);
    let given = ipam.assign(&request("a", "h", 4)).unwrap();
    assert_eq!(given, [address("10.65.0.2"), address("10.65.0.3")]);
    ipam.assign_address(&request("a", "i", 1), address("10.65.0.1"))
        .unwrap();
    let taken = ipam
        .assign_address(&request("a", "j", 1), address("10.65.0.1"))
        .unwrap_err();
    assert_eq!(taken, IpamError::Taken(address("10.65.0.1")));
    let outside = ipam
        .assign_address(&request("a", "j", 1), address("10.66.0.1"))
        .unwrap_err();
    assert_eq!(outside, IpamError::NoPool(address("10.66.0.1")));
    hold(&store);
}

#[test]
fn a_release_of_an_earlier_owner_is_refused() {
    let (_root, store, ipam) = ipam(&[pool("p", "cidr: 10.65.0.0/32, blockSize: 32")]);
    let only = ipam.assign(&request("a", "h", 1)).unwrap()[0];
    let earlier = ipam.check().unwrap().allocations[&only].sequence_number;
    ipam.release(&[Release::address(only)]).unwrap();
    ipam.assign(&request("a", "h", 1)).unwrap();
    let stale = Release {
        address: only,
        handle: Some("h".into()),
        sequence: earlier,
    };
    assert_eq!(ipam.release(&[stale]).unwrap_err(), IpamError::Stale(only));
    let other = Release {
        address: only,
        handle: Some("other".into()),
        sequence: None,
    };
    assert_eq!(ipam.release(&[other]).unwrap_err(), IpamError::Stale(only));
    assert_eq!(
        ipam.release(&[Release::address(only)]).unwrap(),
        [] as [IpAddr; 0]
    );
    assert_eq!(ipam.release(&[Release::address(only)]).unwrap(), [only]);
    hold(&store);
}

#[test]
fn blocks_are_given_back_empty_or_as_nobodys() {
    let (_root, store, ipam) = ipam(&[
        document("kind: Node\nmetadata: {name: a}\n"),
        pool("p", "cidr: 10.65.0.0/28, blockSize: 30"),
    ]);
    let a = "a".parse().unwrap();
    ipam.assign(&request("a", "h", 8)).unwrap();
    ipam.assign(&request("a", "i", 1)).unwrap();
    ipam.release_handle("h").unwrap();
    let own = ipam.affinities(&a).unwrap().len();
    assert_eq!(own, 3);
    // All but one of those that two looks found empty.
    let suspects = Suspects::of(&ipam.check().unwrap());
    let collected = ipam.collect(&suspects, &suspects).unwrap();
    assert_eq!(collected.blocks, 2);
    hold(&store);
    // What is left is in use: it stays until its last address goes.
    ipam.release_node(&a).unwrap();
    assert_eq!(ipam.affinities(&a).unwrap(), []);
    assert_eq!(ipam.blocks().unwrap().len(), 1);
    hold(&store);
    ipam.release_handle("i").unwrap();
    assert_eq!(ipam.blocks().unwrap(), []);
    hold(&store);
}

#[test]
fn leaked_addresses_are_found_and_collected_after_a_second_look() {
    let (_root, store, ipam) = ipam(&[
        pool("p", "cidr: 10.0.0.0/30, blockSize: 30"),
        endpoint("default", "web"),
    ]);
    // endpoint() is at 10.0.0.1.
    ipam.assign_address(&request("n1", "web", 1), address("10.0.0.1"))
        .unwrap();
    ipam.assign_address(&request("n1", "gone", 1), address("10.0.0.2"))
        .unwrap();
    let before = ipam.check().unwrap();
    assert_eq!(
        before.leaked().map(|leak| leak.ip).collect::<Vec<_>>(),
        [address("10.0.0.2")]
    );
    ipam.assign_address(&request("n1", "new", 1), address("10.0.0.3"))
        .unwrap();
    let now = ipam.check().unwrap();
    assert_eq!(now.leaked().count(), 2);
    let (before, now) = (Suspects::of(&before), Suspects::of(&now));
    let collected = ipam.collect(&before, &now).unwrap();
    assert_eq!(collected.addresses, [address("10.0.0.2")]);
    // What was given out meanwhile is waited for.
    assert!(ipam.collect(&before, &now).unwrap().addresses.is_empty());
    hold(&store);
}

#[test]
fn tunnels_get_addresses_as_their_pools_ask() {
    let (_root, store, ipam) = ipam(&[
        document("kind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv4Address: 10.30.0.11/24}}\n"),
        pool("p", "cidr: 10.65.0.0/24, ipipMode: Always"),
    ]);
    let a = "a".parse().unwrap();
    let node = || match store.get(&key(Kind::Node, "a")).unwrap() {
        Resource::Node(node) => node,
        _ => unreachable!(),
    };
    let changed = ipam.ensure_tunnel_addresses(&a).unwrap();
    assert_eq!(changed.len(), 1);
    let ipip = node().spec.bgp.unwrap().ipv4_ipip_tunnel_addr.unwrap();
    assert_eq!(
        ipam.addresses_of("ipip-tunnel-addr-a").unwrap(),
        [IpAddr::V4(ipip)]
    );
    assert_eq!(ipam.ensure_tunnel_addresses(&a).unwrap(), []);
    store
        .apply(&pool("p", "cidr: 10.65.0.0/24, vxlanMode: Always"))
        .unwrap();
    let changed = ipam.ensure_tunnel_addresses(&a).unwrap();
    assert_eq!(changed[0], (TunnelKind::Ipip, None));
    assert_eq!(node().spec.bgp.unwrap().ipv4_ipip_tunnel_addr, None);
    let vxlan = node().spec.ipv4_vxlan_tunnel_addr.unwrap();
    assert_eq!(
        ipam.addresses_of(&TunnelKind::Vxlan.handle(&a)).unwrap(),
        [IpAddr::V4(vxlan)]
    );
    assert_eq!(ipam.check().unwrap().leaked().count(), 0);
    hold(&store);
}

#[test]
fn a_pool_serves_the_namespaces_that_it_selects() {
    let (_root, store, ipam) = ipam(&[
        pool(
            "named",
            "cidr: 10.1.0.0/24, namespaceSelector: projectcalico.org/name == 'prod'",
        ),
        pool(
            "labelled",
            "cidr: 10.2.0.0/24, namespaceSelector: team == 'a'",
        ),
        document(
            "kind: Profile\nmetadata: {name: kns.shop}\nspec: {labelsToApply: {pcns.team: a}}\n",
        ),
    ]);
    for (namespace, network) in [
        ("prod", Some("10.1.0.")),
        ("shop", Some("10.2.0.")),
        ("dev", None),
    ] {
        let mut wanted = request("n1", namespace, 1);
        wanted
            .attributes
            .insert("namespace".into(), namespace.into());
        let given = ipam.assign(&wanted);
        match network {
            Some(network) => assert!(given.unwrap()[0].to_string().starts_with(network)),
            None => assert!(matches!(given, Err(IpamError::NoPools(..))), "{given:?}"),
        }
    }
    // A pool that is asked for by name need not select.
    let mut named = request("n1", "dev", 1);
    named.attributes.insert("namespace".into(), "dev".into());
    named.pools = vec![name("named")];
    assert_eq!(ipam.assign(&named).unwrap().len(), 1);
    hold(&store);
}
