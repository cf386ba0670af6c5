//! GoBGP, which can send several paths a prefix.

use std::fs;

use crate::netns::{isolated, try_sh, wait_for};
use crate::support::*;

fn gobgpd() -> Daemon {
    let text = r#"
[global.config]
  as = 64512
  router-id = "10.77.0.2"
  local-address-list = ["10.77.0.2"]
[[neighbors]]
  [neighbors.config]
    neighbor-address = "10.77.0.1"
    peer-as = 64512
  [neighbors.timers.config]
    connect-retry = 5
    idle-hold-time-after-reset = 2
    hold-time = 9
  [neighbors.graceful-restart.config]
    enabled = true
    restart-time = 60
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv4-unicast"
    [neighbors.afi-safis.mp-graceful-restart.config]
      enabled = true
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv6-unicast"
    [neighbors.afi-safis.mp-graceful-restart.config]
      enabled = true
"#;
    fs::write("/run/gobgpd.toml", text).unwrap();
    Daemon::start(
        "gobgpd",
        "gobgpd -f /run/gobgpd.toml --api-hosts 127.0.0.1:50051 --pprof-disable",
    )
}

fn ask(question: &str) -> String {
    let output = try_sh(&format!("ip netns exec them gobgp -u 127.0.0.1 {question}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn routes_go_both_ways_and_go_away() {
    isolated(|| {
        if !linked("gobgpd") {
            return;
        }
        let _gobgp = gobgpd();
        let mut us = Us::start(settings(64512));
        us.originate(&["192.168.1.0/26", "fd00:9::/122"]);
        let up = us.wait_up(&them());
        assert_eq!(up.session.expect("a session").hold_time, 9);
        ask("global rib add 10.1.0.0/24 community 64512:7 local-pref 300 med 5");
        ask("global rib add -a ipv6 fd00:1::/64 nexthop fd77::2");
        us.expect(&["10.1.0.0/24 via 10.77.0.2", "fd00:1::/64 via fd77::2"]);
        let received = us.speaker.received(Default::default()).unwrap();
        let said = &received[0].attributes;
        assert_eq!((said.local_pref, said.med), (Some(300), Some(5)));
        assert_eq!(*said.communities, [0xfc00_0007]);
        wait_for("our routes", || {
            ask("global rib").contains("192.168.1.0/26").then_some(())
        });
        wait_for("our IPv6 routes", || {
            ask("global rib -a ipv6")
                .contains("fd00:9::/122")
                .then_some(())
        });
        ask("global rib del 10.1.0.0/24");
        us.expect(&["fd00:1::/64 via fd77::2"]);
        us.originate(&[]);
        wait_for("the withdrawal", || {
            (!ask("global rib").contains("192.168.1.0/26")).then_some(())
        });
    });
}
