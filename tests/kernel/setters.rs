//! What we set is what `ip` then shows, and only ours goes.

use std::collections::BTreeSet;

use ipnet::IpNet;
use underpass::kernel::{Error, Netlink, OwnRoute, Target};
use underpass::wire::Mtu;

use crate::lab::{FarNamespace, add_device, in_fresh_namespace, ip, json};
use crate::truth::flags;

#[test]
fn links_and_addresses_are_set() {
    in_fresh_namespace(|| {
        let far = FarNamespace::with_pair();
        add_device("d0");
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.link("d0").unwrap();
        netlink.set_link_up(link.index, true).unwrap();
        netlink.set_link_mtu(link.index, Mtu(1450)).unwrap();
        let shown = &json("-j link show d0")[0];
        assert_eq!(shown["mtu"], 1450);
        assert!(flags(shown).contains("UP"));

        for address in ["10.0.0.1/24", "fd00::1/64"] {
            let address: IpNet = address.parse().unwrap();
            let has = || {
                let family = if address.addr().is_ipv4() { "-4" } else { "-6" };
                let shown = json(&format!("-j {family} addr show d0"));
                let infos = shown[0]["addr_info"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                infos
                    .iter()
                    .any(|info| info["local"] == address.addr().to_string())
            };
            netlink.add_address(link.index, address).unwrap();
            netlink.add_address(link.index, address).unwrap();
            assert!(has());
            netlink.remove_address(link.index, address).unwrap();
            netlink.remove_address(link.index, address).unwrap();
            assert!(!has());
        }
        netlink.set_link_up(link.index, false).unwrap();
        assert!(!flags(&json("-j link show d0")[0]).contains("UP"));

        netlink.move_link_to_netns(link.index, far.file()).unwrap();
        let there = far.ip("-o link show d0");
        assert!(there.contains("d0"));
        assert!(matches!(netlink.link("d0"), Err(Error::NoInterface(name)) if name == "d0"));
        let error = netlink.link("a-name-that-is-too-long").unwrap_err();
        assert!(matches!(error, Error::NoInterface(_)));
    });
}

#[test]
fn routes_are_made_changed_listed_and_deleted() {
    in_fresh_namespace(|| {
        add_device("d0");
        ip("addr add 10.0.0.1/24 dev d0");
        ip("addr add fd00::1/64 dev d0 nodad");
        ip("link set d0 up");
        let mut netlink = Netlink::open().unwrap();
        let interface = netlink.link("d0").unwrap().index;
        let via = |gateway: &str, onlink| Target::Interface {
            interface,
            gateway: Some(gateway.parse().unwrap()),
            onlink,
        };
        let direct = Target::Interface {
            interface,
            gateway: None,
            onlink: false,
        };
        let wanted = [
            (
                route("10.20.0.0/16", direct.clone()),
                "10.20.0.0/16 dev d0 scope link",
            ),
            (
                route("10.21.0.0/16", via("10.0.0.9", false)),
                "10.21.0.0/16 via 10.0.0.9 dev d0",
            ),
            (
                route("10.22.0.0/26", via("192.0.2.1", true)),
                "10.22.0.0/26 via 192.0.2.1 dev d0 onlink",
            ),
            (
                route("10.23.0.0/26", Target::Blackhole),
                "blackhole 10.23.0.0/26",
            ),
            (
                route("fd00:20::/64", direct.clone()),
                "fd00:20::/64 dev d0 metric 1024 pref medium",
            ),
            (
                route("fd00:21::/64", via("fd00::9", false)),
                "fd00:21::/64 via fd00::9 dev d0 metric 1024 pref medium",
            ),
            (
                route("fd00:22::/122", Target::Blackhole),
                "blackhole fd00:22::/122 dev lo metric 1024 pref medium",
            ),
            (
                OwnRoute {
                    metric: 77,
                    source: Some("10.0.0.1".parse().unwrap()),
                    ..route("10.24.0.0/16", direct)
                },
                "10.24.0.0/16 dev d0 scope link src 10.0.0.1 metric 77",
            ),
        ];
        for (route, _) in &wanted {
            netlink.replace_route(route).unwrap();
            netlink.replace_route(route).unwrap();
        }
        let list = || {
            format!(
                "{}{}",
                ip("route show proto 117"),
                ip("-6 route show proto 117")
            )
        };
        let shown: BTreeSet<String> = list()
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let expected = wanted.iter().map(|(_, text)| (*text).to_owned());
        assert_eq!(shown, expected.collect());

        let mut listed = netlink.own_routes().unwrap();
        listed.sort_by_key(|route| route.destination.to_string());
        let mut all: Vec<_> = wanted.iter().map(|(route, _)| route.clone()).collect();
        all.sort_by_key(|route| route.destination.to_string());
        assert_eq!(listed, all);

        // A changed route takes the old one's place.
        netlink
            .replace_route(&route("10.20.0.0/16", via("10.0.0.8", false)))
            .unwrap();
        assert!(ip("route show 10.20.0.0/16").starts_with("10.20.0.0/16 via 10.0.0.8 dev d0"));
        assert_eq!(ip("route show 10.20.0.0/16").lines().count(), 1);

        for (route, _) in &wanted {
            assert!(
                netlink
                    .delete_route(route.destination, route.metric)
                    .unwrap()
            );
            assert!(
                !netlink
                    .delete_route(route.destination, route.metric)
                    .unwrap()
            );
        }
        assert_eq!(list().trim(), "");
    });
}

#[test]
fn other_programs_routes_are_left_alone() {
    in_fresh_namespace(|| {
        add_device("d0");
        ip("addr add 10.0.0.1/24 dev d0");
        ip("addr add fd00::1/64 dev d0 nodad");
        ip("link set d0 up");
        let mut netlink = Netlink::open().unwrap();
        for (family, destination, gateway) in [
            ("-4", "10.20.0.0/16", "10.0.0.9"),
            ("-6", "fd00:20::/64", "fd00::9"),
        ] {
            ip(&format!(
                "{family} route add {destination} via {gateway} proto bird"
            ));
            // Of the destination alone: the peer's link-local route comes when it comes.
            let routes = || ip(&format!("{family} route show exact {destination}"));
            let before = routes();
            let ours = route(destination, Target::Blackhole);
            let error = netlink.replace_route(&ours).unwrap_err();
            assert!(matches!(error, Error::ForeignRoute { .. }), "{error}");
            assert!(!netlink.delete_route(ours.destination, 0).unwrap());
            assert_eq!(routes(), before);

            // Beside it, with another metric, and gone again.
            let ours = OwnRoute {
                metric: 2000,
                ..ours
            };
            netlink.replace_route(&ours).unwrap();
            assert_eq!(netlink.own_routes().unwrap(), std::slice::from_ref(&ours));
            assert!(netlink.delete_route(ours.destination, 0).unwrap());
            assert_eq!(routes(), before);
        }
    });
}

#[test]
fn refusals_carry_the_kernels_words() {
    in_fresh_namespace(|| {
        add_device("d0");
        ip("link set d0 up");
        let mut netlink = Netlink::open().unwrap();
        let interface = netlink.link("d0").unwrap().index;
        let gateway = Some("192.0.2.1".parse().unwrap());
        let target = Target::Interface {
            interface,
            gateway,
            onlink: false,
        };
        let error = netlink
            .replace_route(&route("10.9.0.0/16", target))
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("10.9.0.0/16 via 192.0.2.1"), "{text}");
        assert!(text.contains("Nexthop has invalid gateway"), "{text}");
        assert_eq!(error.errno(), Some(libc::ENETUNREACH));
        let error = netlink.set_link_up(9999, true).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENODEV));
    });
}

#[test]
fn default_routes_name_their_interfaces() {
    in_fresh_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        assert_eq!(netlink.default_route_interfaces().unwrap(), [""; 0]);
        for index in 0..3 {
            add_device(&format!("d{index}"));
            ip(&format!("addr add 10.{index}.0.1/24 dev d{index}"));
            ip(&format!("addr add fd00:{index}::1/64 dev d{index} nodad"));
            ip(&format!("link set d{index} up"));
        }
        ip("-6 route add default via fd00:2::9");
        assert_eq!(netlink.default_route_interfaces().unwrap(), ["d2"]);
        ip("route add default via 10.0.0.9 metric 20");
        ip("route add default via 10.1.0.9 metric 10");
        assert_eq!(
            netlink.default_route_interfaces().unwrap(),
            ["d1", "d0", "d2"]
        );
    });
}

#[test]
fn routes_over_several_routers_are_made_listed_and_changed() {
    in_fresh_namespace(|| {
        add_device("d0");
        ip("addr add 10.0.0.1/24 dev d0");
        ip("addr add fd00::1/64 dev d0 nodad");
        ip("link set d0 up");
        let mut netlink = Netlink::open().unwrap();
        let interface = netlink.link("d0").unwrap().index;
        let several = |gateways: &[&str]| {
            let ways = gateways
                .iter()
                .map(|gateway| (interface, gateway.parse().unwrap()));
            Target::Several(ways.collect())
        };
        let v4 = route("10.20.0.0/16", several(&["10.0.0.8", "10.0.0.9"]));
        let v6 = route("fd00:20::/64", several(&["fd00::8", "fd00::9"]));
        for route in [&v4, &v6] {
            netlink.replace_route(route).unwrap();
            netlink.overwrite_route(route).unwrap();
        }
        assert_eq!(netlink.own_routes().unwrap(), [v4.clone(), v6.clone()]);
        let shown = ip("route show 10.20.0.0/16");
        assert!(
            shown.contains("nexthop via 10.0.0.8 dev d0 weight 1"),
            "{shown}"
        );
        assert!(
            shown.contains("nexthop via 10.0.0.9 dev d0 weight 1"),
            "{shown}"
        );
        let fewer = route(
            "10.20.0.0/16",
            several(&["10.0.0.9", "10.0.0.10", "10.0.0.11"]),
        );
        let one = route(
            "fd00:20::/64",
            Target::Interface {
                interface,
                gateway: Some("fd00::9".parse().unwrap()),
                onlink: false,
            },
        );
        for route in [&fewer, &one] {
            netlink.overwrite_route(route).unwrap();
        }
        assert_eq!(netlink.own_routes().unwrap(), [fewer, one]);
        assert!(netlink.delete_route(v4.destination, 0).unwrap());
        assert!(netlink.delete_route(v6.destination, 0).unwrap());
        assert_eq!(netlink.own_routes().unwrap(), []);
    });
}

fn route(destination: &str, target: Target) -> OwnRoute {
    OwnRoute {
        destination: destination.parse().unwrap(),
        target,
        source: None,
        metric: 0,
    }
}
