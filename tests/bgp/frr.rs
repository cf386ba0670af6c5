//! FRR's bgpd, without zebra.

use std::fs;

use crate::netns::{isolated, try_sh, wait_for};
use crate::support::*;

fn bgpd(options: &str) -> Daemon {
    let text = format!(
        "hostname frr
router bgp 64513
 bgp router-id 10.77.0.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
 neighbor 10.77.0.1 remote-as 64512
 neighbor 10.77.0.1 timers connect 1
 {options}
 address-family ipv4 unicast
  network 10.1.0.0/24
 exit-address-family
 address-family ipv6 unicast
  network fd00:1::/64
  neighbor 10.77.0.1 activate
  neighbor 10.77.0.1 route-map v6 out
 exit-address-family
!
route-map v6 permit 10
 set ipv6 next-hop global fd77::2
!
"
    );
    fs::create_dir_all("/run/frr").unwrap();
    fs::write("/run/frr/bgpd.conf", text).unwrap();
    Daemon::start(
        "bgpd",
        "/usr/lib/frr/bgpd -Z -S -f /run/frr/bgpd.conf -i /run/frr/bgpd.pid --vty_socket /run/frr -l 10.77.0.2 --log stdout",
    )
}

fn ask(question: &str) -> String {
    let output = try_sh(&format!(
        "vtysh --vty_socket /run/frr -d bgpd -c '{question}'"
    ));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn routes_go_both_ways_and_go_away() {
    isolated(|| {
        if !linked("bgpd") {
            return;
        }
        let _frr = bgpd("");
        let mut us = Us::start(settings(64513));
        us.originate(&["192.168.1.0/26", "fd00:9::/122"]);
        let up = us.wait_up(&them());
        let agreed = up.session.expect("a session").capabilities;
        for capability in [
            "IPv4 unicast",
            "IPv6 unicast",
            "4-octet AS",
            "route refresh",
            "extended message",
            "graceful restart",
        ] {
            assert!(agreed.contains(&capability), "{capability}: {agreed:?}");
        }
        us.expect(&["10.1.0.0/24 via 10.77.0.2", "fd00:1::/64 via fd77::2"]);
        wait_for("our IPv4 route", || {
            ask("show bgp ipv4 unicast 192.168.1.0/26")
                .contains("64512")
                .then_some(())
        });
        wait_for("our IPv6 route", || {
            ask("show bgp ipv6 unicast fd00:9::/122")
                .contains("64512")
                .then_some(())
        });
        us.originate(&[]);
        wait_for("the withdrawal", || {
            (!ask("show bgp ipv4 unicast 192.168.1.0/26").contains("64512")).then_some(())
        });
        us.originate(&["192.168.1.0/26"]);
        // They ask for everything again.
        ask("clear bgp ipv4 unicast 10.77.0.1 soft in");
        wait_for("a refresh", || {
            (us.neighbor(&them()).counters.received.refreshes > 0).then_some(())
        });
        wait_for("our route", || {
            ask("show bgp ipv4 unicast 192.168.1.0/26")
                .contains("64512")
                .then_some(())
        });
        assert_eq!(us.neighbor(&them()).counters.established, 1);
        ask("clear bgp ipv4 unicast 10.77.0.1");
        us.wait_error(&them(), "Received: Administrative reset");
        us.wait_up(&them());
        us.expect(&["10.1.0.0/24 via 10.77.0.2", "fd00:1::/64 via fd77::2"]);
    });
}

#[test]
fn a_crash_and_a_password() {
    isolated(|| {
        if !linked("bgpd") {
            return;
        }
        let first = bgpd("neighbor 10.77.0.1 password sesame");
        let mut settings = settings(64513);
        settings.peers.get_mut(&them()).unwrap().password = Some("sesame".to_owned());
        let mut us = Us::start(settings);
        us.wait_up(&them());
        us.expect(&["10.1.0.0/24 via 10.77.0.2", "fd00:1::/64 via fd77::2"]);
        first.kill();
        wait_for("the crash", || {
            us.neighbor(&them()).restarting.then_some(())
        });
        us.expect(&["10.1.0.0/24 via 10.77.0.2", "fd00:1::/64 via fd77::2"]);
    });
}
