//! The mirror shows what `ip` shows.

use std::process::Command;

use underpass::kernel::{Mirror, sysctl};

use crate::lab::{add_device, in_fresh_namespace, ip, ip_batch, ip_may_fail};
use crate::truth::{agree, agree_after, build_everything, rest, settle, wait};

#[test]
fn mirror_equals_ip_at_the_start_and_after_changes() {
    in_fresh_namespace(|| {
        build_everything();
        let mut mirror = Mirror::open().unwrap();
        agree(&mut mirror);

        for change in [
            "link set v0 mtu 1400",
            "link set v0 address 02:00:00:00:00:77",
            "link add d7 type veth peer name d7-peer",
            "addr add 10.7.0.1/24 dev d7",
            "addr add 10.7.0.2/24 dev d7",
            "link set d7 up",
            "addr add fd00:7::1/64 dev d7 nodad",
            "route add 10.30.0.0/16 via 10.7.0.9 dev d7",
            "route add 10.30.0.0/16 via 10.7.0.8 dev d7 metric 7",
            "route replace 10.30.0.0/16 via 10.7.0.10 dev d7",
            "route append 10.30.0.0/16 via 10.7.0.11 dev d7",
            "route del 10.30.0.0/16 via 10.7.0.10 dev d7",
            "route change 10.4.0.0/16 via 10.0.0.2 dev v0",
            "route add 10.31.0.0/16 dev d7 table 100",
            "-6 route add fd00:31::/48 via fd00:7::9 metric 9",
            "-6 route append fd00:31::/48 via fd00:7::8 metric 9",
            "-6 route append fd00:31::/48 via fd00:7::7 metric 9",
            "-6 route del fd00:31::/48 via fd00:7::8 metric 9",
            "-6 route replace fd00:31::/48 via fd00:7::6 metric 9",
            "neigh add 10.7.0.44 dev d7 lladdr 02:00:00:00:00:44",
            "neigh replace 10.7.0.44 dev d7 lladdr 02:00:00:00:00:45 nud stale",
            "neigh del 10.7.0.44 dev d7",
            "addr del 10.7.0.1/24 dev d7",
            "link set d7 name renamed",
            "link set renamed down",
            "link del renamed",
            "link set v1 master br0",
            "link set v1 nomaster",
        ] {
            ip(change);
            agree_after(&mut mirror, change);
        }
    });
}

#[test]
fn changes_say_what_changed_and_where() {
    in_fresh_namespace(|| {
        // IPv6 changes addresses and neighbours by itself.
        let mut quiet = sysctl::Sysctls::new();
        quiet.set_ipv6_disabled("default", true).unwrap();
        ip("link set lo up");
        let mut mirror = Mirror::open().unwrap();
        assert!(!settle(&mut mirror).any());

        add_device("d0");
        let changes = settle(&mut mirror);
        assert!(changes.links && !changes.routes && changes.interfaces.contains("d0"));

        ip("addr add 10.0.0.1/24 dev d0");
        let changes = settle(&mut mirror);
        assert!(changes.addresses && !changes.routes && changes.interfaces.contains("d0"));

        ip("link set d0 up");
        let changes = settle(&mut mirror);
        assert!(changes.links && changes.routes);
        // The carrier comes a little later.
        wait(&mut mirror, |m| m.link_named("d0").unwrap().running);
        wait(&mut mirror, |m| m.link_named("d0-peer").unwrap().running);
        rest(&mut mirror);

        ip("neigh add 10.0.0.9 dev d0 lladdr 02:00:00:00:00:09");
        let changes = settle(&mut mirror);
        assert!(changes.neighbours && changes.interfaces.contains("d0"));
        assert!(!changes.links && !changes.addresses && !changes.routes);

        ip("route add 10.9.0.0/16 via 10.0.0.9");
        let changes = settle(&mut mirror);
        assert!(changes.routes && changes.interfaces.is_empty());
        assert!(!changes.links && !changes.addresses && !changes.neighbours && !changes.overrun);
        assert!(!settle(&mut mirror).any());
    });
}

#[test]
fn routes_that_go_unannounced_are_noticed() {
    in_fresh_namespace(|| {
        for lost in [
            "link set d0 down",
            "link del d0",
            "addr del 10.0.0.1/24 dev d0",
            "addr flush dev d0 scope global",
            "nexthop del id 5",
        ] {
            add_device("d0");
            ip("addr add 10.0.0.1/24 dev d0");
            ip("addr add 10.8.0.1/24 dev d0");
            ip("link set d0 up");
            ip("nexthop add id 5 via 10.0.0.5 dev d0");
            ip("route add 10.90.0.0/16 via 10.0.0.9");
            ip("route add 10.91.0.0/16 via 10.8.0.9 src 10.0.0.1");
            ip("route add 10.92.0.0/16 nhid 5");
            let mut mirror = Mirror::open().unwrap();
            agree(&mut mirror);
            let before = mirror.routes().count();
            ip(lost);
            agree_after(&mut mirror, lost);
            assert!(mirror.routes().count() < before, "{lost} drops no route");
            ip_may_fail("link del d0");
            ip_may_fail("nexthop flush");
        }
    });
}

/// The kernel announces that a link goes down before it drops the link's routes. Here it takes a while
/// to drop them, and the mirror looks all the time.
#[test]
fn a_mirror_that_looks_at_once_does_not_look_too_early() {
    in_fresh_namespace(|| {
        add_device("d0");
        ip("addr add 10.0.0.1/24 dev d0");
        ip("link set d0 up");
        ip_batch(&many_routes(20_000));
        let mut mirror = Mirror::open().unwrap();
        assert!(mirror.routes().count() > 20_000);
        // In this thread's namespace, like all commands here.
        let mut down = Command::new("ip")
            .args(["link", "set", "d0", "down"])
            .spawn()
            .unwrap();
        while down.try_wait().unwrap().is_none() {
            settle(&mut mirror);
        }
        agree(&mut mirror);
        assert!(mirror.routes().count() < 20_000);
    });
}

#[test]
fn an_overrun_is_healed_by_reading_anew() {
    in_fresh_namespace(|| {
        const ROUTES: usize = 20_000;
        add_device("d0");
        ip("addr add 10.0.0.1/8 dev d0");
        ip("link set d0 up");
        let mut mirror = Mirror::with_receive_buffer(8 * 1024).unwrap();
        ip_batch(&many_routes(ROUTES));
        add_device("d1");
        let changes = mirror.process().unwrap();
        assert!(changes.overrun && changes.routes && changes.links);
        assert!(mirror.routes().count() > ROUTES);
        agree(&mut mirror);

        // And what comes after it is followed as before.
        ip("route del 100.1.1.0/24");
        let changes = mirror.process().unwrap();
        assert!(changes.routes && !changes.overrun);
        agree(&mut mirror);
    });
}

#[test]
fn the_usual_buffer_holds_ten_thousand_routes() {
    in_fresh_namespace(|| {
        const ROUTES: usize = 10_000;
        add_device("d0");
        ip("addr add 10.0.0.1/8 dev d0");
        ip("link set d0 up");
        let mut mirror = Mirror::open().unwrap();
        ip_batch(&many_routes(ROUTES));
        loop {
            let changes = mirror.process().unwrap();
            assert!(!changes.overrun);
            if !changes.more {
                break;
            }
        }
        agree(&mut mirror);
    });
}

/// `ip -batch` lines for routes of 24 bits over 10.0.0.9.
fn many_routes(count: usize) -> String {
    (0..count)
        .map(|n| format!("route add 100.{}.{}.0/24 via 10.0.0.9\n", n / 256, n % 256))
        .collect()
}
