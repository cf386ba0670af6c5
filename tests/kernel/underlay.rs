//! The underlay is resolved as the kernel resolves it.

use std::net::IpAddr;

use underpass::kernel::{
    Mirror, Neighbour, NeighbourState, ROUTE_PROTOCOL, RouteKind, Unreachable,
};
use underpass::wire::Mtu;

use crate::lab::{FarNamespace, add_device, in_fresh_namespace, ip, json};
use crate::truth::{gateway, settle, wait};

#[test]
fn underlay_equals_ip_route_get() {
    in_fresh_namespace(|| {
        for index in 0..3 {
            add_device(&format!("d{index}"));
            ip(&format!("addr add 10.{index}.0.1/24 dev d{index}"));
            ip(&format!("addr add fd00:{index}::1/64 dev d{index} nodad"));
            ip(&format!("link set d{index} up"));
        }
        ip("addr add 10.1.0.129/25 dev d1");
        ip("link set d1 mtu 1400");
        ip("route add default via 10.0.0.254 metric 100");
        ip("route add default via 10.1.0.254 metric 50");
        ip("route add 10.50.0.0/16 via 10.2.0.7");
        ip("route add 10.50.1.0/24 via 10.1.0.7 src 10.0.0.1");
        ip("route add 10.50.2.0/24 via 10.1.0.200");
        ip("route add 10.50.3.0/24 via 192.0.2.1 dev d2 onlink");
        ip("route add 10.50.4.0/24 via inet6 fd00:1::9 dev d1");
        ip("-6 route add default via fd00:0::254");
        ip("-6 route add fd00:50::/32 via fd00:2::7");
        let mirror = Mirror::open().unwrap();
        for destination in [
            "10.0.0.9",
            "10.1.0.9",
            "10.1.0.130",
            "10.2.0.9",
            "10.50.0.1",
            "10.50.1.1",
            "10.50.2.1",
            "10.50.3.1",
            "10.50.4.1",
            "203.0.113.9",
            "fd00:1::7",
            "fd00:50::1",
            "2001:db8::1",
        ] {
            let truth = &json(&format!("-j route get {destination}"))[0];
            let way = mirror
                .resolve_underlay(destination.parse().unwrap())
                .unwrap();
            assert_eq!(way.interface_name, truth["dev"], "{destination}");
            let next_hop = gateway(truth).unwrap_or(destination.to_owned());
            assert_eq!(way.next_hop.to_string(), next_hop, "{destination}");
            let source = way.source.map(|source| source.to_string());
            assert_eq!(
                source.as_deref(),
                truth["prefsrc"].as_str(),
                "{destination}"
            );
            let mtu = if way.interface_name == "d1" {
                1400
            } else {
                1500
            };
            assert_eq!(way.mtu, Mtu(mtu));
        }
        let own = "10.1.0.1".parse().unwrap();
        assert_eq!(mirror.resolve_underlay(own), Err(Unreachable::Local));
    });
}

#[test]
fn routes_that_lead_nowhere_or_to_us_are_told_apart() {
    in_fresh_namespace(|| {
        for name in ["d0", "d1", "tunnel"] {
            add_device(name);
            ip(&format!("link set {name} up"));
        }
        ip("addr add 10.0.0.1/24 dev d0");
        ip("addr add 10.1.0.1/24 dev d1");
        let resolve = |mirror: &mut Mirror, address: &str| {
            settle(mirror);
            let way = mirror.resolve_underlay(address.parse().unwrap());
            way.map(|way| way.next_hop.to_string())
        };
        let mut mirror = Mirror::open().unwrap();
        assert_eq!(resolve(&mut mirror, "10.9.0.1"), Err(Unreachable::NoRoute));

        ip("route add 10.9.0.0/16 via 10.0.0.9");
        assert_eq!(resolve(&mut mirror, "10.9.0.1"), Ok("10.0.0.9".to_owned()));

        // Our own TUN covers it, once it is ignored and once it is not.
        ip("route add 10.9.0.0/24 dev tunnel");
        assert_eq!(resolve(&mut mirror, "10.9.0.1"), Ok("10.9.0.1".to_owned()));
        mirror.ignore_interface("tunnel");
        assert_eq!(resolve(&mut mirror, "10.9.0.1"), Ok("10.0.0.9".to_owned()));

        // A blackhole of ours is none of the underlay's business, somebody else's is.
        ip(&format!(
            "route add blackhole 10.9.0.0/25 proto {ROUTE_PROTOCOL}"
        ));
        assert_eq!(resolve(&mut mirror, "10.9.0.1"), Ok("10.0.0.9".to_owned()));
        ip("route add blackhole 10.9.0.0/26");
        let refused = Unreachable::Refused(RouteKind::Blackhole);
        assert_eq!(resolve(&mut mirror, "10.9.0.1"), Err(refused));
        ip("route add unreachable 10.9.0.0/27");
        let refused = Unreachable::Refused(RouteKind::Unreachable);
        assert_eq!(resolve(&mut mirror, "10.9.0.1"), Err(refused));

        // Of several next hops, one that is down or failed is passed over.
        ip("route add 10.8.0.0/16 nexthop via 10.0.0.9 nexthop via 10.1.0.9");
        assert_eq!(resolve(&mut mirror, "10.8.0.1"), Ok("10.0.0.9".to_owned()));
        let interface = mirror.link_named("d0").unwrap().index;
        let first: IpAddr = "10.0.0.9".parse().unwrap();
        mirror.probe(interface, first).unwrap();
        wait(&mut mirror, |m| {
            let entry = m.neighbour(interface, first);
            entry.is_some_and(|entry| entry.state == NeighbourState::Failed)
        });
        assert_eq!(resolve(&mut mirror, "10.8.0.1"), Ok("10.1.0.9".to_owned()));
        ip("link set d1 down");
        assert_eq!(resolve(&mut mirror, "10.8.0.1"), Ok("10.0.0.9".to_owned()));
        ip("link del d0");
        assert_eq!(resolve(&mut mirror, "10.8.0.1"), Err(Unreachable::NoRoute));
    });
}

#[test]
fn a_probed_neighbour_is_resolved_confirmed_and_missed() {
    in_fresh_namespace(|| {
        let far = FarNamespace::with_pair();
        let mut mirror = Mirror::open().unwrap();
        let interface = mirror.link_named("near").unwrap().index;
        let mac = far.mac();
        for address in ["10.1.0.2", "fd00:1::2"] {
            let address: IpAddr = address.parse().unwrap();
            let seen = |mirror: &Mirror| mirror.resolve_underlay(address).unwrap().neighbour;
            assert_eq!(seen(&mirror), Neighbour::Missing);

            mirror.probe(interface, address).unwrap();
            wait(&mut mirror, |m| seen(m) == Neighbour::Resolved(mac));
            // An ordinary entry, as a packet would have made it.
            let entry = &json(&format!("-j -d neigh show {address} dev near"))[0];
            assert_eq!(entry["state"][0], "REACHABLE");
            assert!(entry.get("extern_learn").is_none() && entry.get("managed").is_none());

            // One that has grown stale is confirmed.
            ip(&format!("neigh change {address} dev near nud stale"));
            let state = |m: &Mirror| m.neighbour(interface, address).map(|n| n.state);
            wait(&mut mirror, |m| state(m) == Some(NeighbourState::Stale));
            mirror.refresh([(interface, address)]).unwrap();
            wait(&mut mirror, |m| state(m) == Some(NeighbourState::Reachable));
        }

        // An address that nobody has.
        let nobody: IpAddr = "10.1.0.77".parse().unwrap();
        mirror.refresh([(interface, nobody)]).unwrap();
        wait(&mut mirror, |m| {
            m.resolve_underlay(nobody).unwrap().neighbour == Neighbour::Failed
        });

        // The far end goes silent while its entry is fresh.
        let peer: IpAddr = "10.1.0.2".parse().unwrap();
        far.ip("addr flush dev far");
        mirror.probe(interface, peer).unwrap();
        wait(&mut mirror, |m| {
            m.resolve_underlay(peer).unwrap().neighbour == Neighbour::Failed
        });

        // And comes back.
        far.ip("addr add 10.1.0.2/24 dev far");
        mirror.refresh([(interface, peer)]).unwrap();
        wait(&mut mirror, |m| {
            m.resolve_underlay(peer).unwrap().neighbour == Neighbour::Resolved(mac)
        });
    });
}

#[test]
fn a_probe_leaves_an_administrators_entry_alone() {
    in_fresh_namespace(|| {
        let _far = FarNamespace::with_pair();
        ip("neigh add 10.1.0.5 dev near lladdr 02:00:00:00:00:05");
        let mut mirror = Mirror::open().unwrap();
        let interface = mirror.link_named("near").unwrap().index;
        let address = "10.1.0.5".parse().unwrap();
        mirror.probe(interface, address).unwrap();
        mirror.refresh([(interface, address)]).unwrap();
        let entry = &json("-j neigh show 10.1.0.5 dev near")[0];
        assert_eq!(entry["state"][0], "PERMANENT");
        assert_eq!(entry["lladdr"], "02:00:00:00:00:05");
    });
}
