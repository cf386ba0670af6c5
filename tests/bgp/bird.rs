//! BIRD 2.

use std::fs;
use std::thread;

use underpass::bgp::settings::PeerSettings;
use underpass::bgp::{Start, Stop};

use crate::netns::{isolated, try_sh, wait_for};
use crate::support::*;

/// BIRD at one of the other namespace's addresses, with static routes; `bgp` goes into its peers' blocks.
fn bird(
    name: &str,
    router: &str,
    local_as: u32,
    peers: &[(&str, &str)],
    routes: &[&str],
    bgp: &str,
    arguments: &str,
) -> Daemon {
    let v4: Vec<_> = routes.iter().filter(|route| !route.contains(':')).collect();
    let v6: Vec<_> = routes.iter().filter(|route| route.contains(':')).collect();
    let block = |routes: &[&&str]| -> String {
        routes
            .iter()
            .map(|route| format!("route {route};\n"))
            .collect()
    };
    let peers: String = peers
        .iter()
        .map(|(name, neighbor)| {
            format!(
                "protocol bgp {name} {{
                    local {router} as {local_as}; neighbor {neighbor}; {bgp} strict bind on;
                    connect retry time 1; connect delay time 1; error wait time 1, 2;
                    ipv4 {{ import all; export all; }};
                    ipv6 {{ import all; export all; }};
                 }}\n"
            )
        })
        .collect();
    let text = format!(
        "router id {router};
         protocol device {{}}
         protocol static s4 {{ ipv4; {} }}
         protocol static s6 {{ ipv6; {} }}
         {peers}",
        block(&v4),
        block(&v6)
    );
    let config = format!("/run/{name}.conf");
    fs::write(&config, text).unwrap();
    Daemon::start(
        name,
        &format!("bird -f -c {config} -s /run/{name}.ctl -P /run/{name}.pid {arguments}"),
    )
}

/// BIRD in another AS than ours, with the routes of this file.
fn usual_bird(options: &str) -> Daemon {
    let us = [("node", "10.77.0.1 as 64512")];
    bird("bird", "10.77.0.2", 64513, &us, ROUTES, options, "")
}

fn ask(name: &str, question: &str) -> String {
    let output = try_sh(&format!("birdc -s /run/{name}.ctl '{question}'"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn knows(name: &str, prefix: &str) -> bool {
    ask(name, &format!("show route {prefix}")).contains(prefix)
}

#[track_caller]
fn wait_known(name: &str, prefix: &str, known: bool) {
    wait_for(&format!("{prefix} known: {known}"), || {
        (knows(name, prefix) == known).then_some(())
    });
}

const ROUTES: &[&str] = &[
    "10.1.0.0/24 via 10.77.0.2",
    "10.2.0.0/16 blackhole",
    "fd00:1::/64 via fd77::2",
];

#[test]
fn routes_go_both_ways_and_go_away() {
    isolated(|| {
        if !linked("bird") {
            return;
        }
        let _bird = usual_bird("");
        let mut us = Us::start(settings(64513));
        us.originate(&["192.168.1.0/26", "fd00:9::/122"]);
        us.wait_up(&them());
        us.expect(&[
            "10.1.0.0/24 via 10.77.0.2",
            "10.2.0.0/16 via 10.77.0.2",
            "fd00:1::/64 via fd77::2",
        ]);
        wait_known("bird", "192.168.1.0/26", true);
        wait_known("bird", "fd00:9::/122", true);
        let shown = ask("bird", "show route all 192.168.1.0/26");
        assert!(
            shown.contains("BGP.as_path: 64512") && shown.contains("BGP.next_hop: 10.77.0.1"),
            "{shown}"
        );
        if there("bgpdump") {
            let mut dump = Vec::new();
            us.speaker.dump(&mut dump).unwrap();
            fs::write("/run/dump.mrt", dump).unwrap();
            let read = try_sh("bgpdump -m /run/dump.mrt").stdout;
            let read = String::from_utf8(read).unwrap();
            let row = |line: &str| {
                line.split('|')
                    .skip(3)
                    .take(6)
                    .collect::<Vec<_>>()
                    .join("|")
            };
            let rows: Vec<_> = read.lines().map(row).collect();
            assert_eq!(
                rows,
                [
                    "10.77.0.2|64513|10.1.0.0/24|64513|IGP|10.77.0.2",
                    "10.77.0.2|64513|10.2.0.0/16|64513|IGP|10.77.0.2",
                    "10.77.0.2|64513|fd00:1::/64|64513|IGP|fd77::2",
                ]
            );
        }
        // Withdrawals, of theirs and of ours.
        ask("bird", "disable s6");
        us.expect(&["10.1.0.0/24 via 10.77.0.2", "10.2.0.0/16 via 10.77.0.2"]);
        us.originate(&["192.168.1.64/26", "fd00:9::/122"]);
        wait_known("bird", "192.168.1.64/26", true);
        wait_known("bird", "192.168.1.0/26", false);
        // A reset by them, then by us.
        ask("bird", "restart node");
        us.wait_error(&them(), "Received: Administrative reset");
        us.wait_up(&them());
        us.expect(&["10.1.0.0/24 via 10.77.0.2", "10.2.0.0/16 via 10.77.0.2"]);
        assert!(us.speaker.reset(&them(), false).unwrap());
        wait_for("a reset", || {
            ask("bird", "show protocols all node")
                .contains("Administrative reset")
                .then_some(())
        });
        us.wait_up(&them());
        us.expect(&["10.1.0.0/24 via 10.77.0.2", "10.2.0.0/16 via 10.77.0.2"]);
        // A shutdown with a text.
        ask("bird", "disable node \"back at noon\"");
        us.wait_error(&them(), "back at noon");
        us.expect(&[]);
        ask("bird", "enable node");
        us.wait_up(&them());
        us.speaker.stop(Stop::Shutdown("gone home".to_owned()));
        wait_for("the shutdown's text", || {
            ask("bird", "show protocols all node")
                .contains("gone home")
                .then_some(())
        });
        wait_known("bird", "192.168.1.64/26", false);
    });
}

#[test]
fn graceful_restart_of_either_side() {
    isolated(|| {
        if !linked("bird") {
            return;
        }
        let start = |arguments: &str| {
            bird(
                "bird",
                "10.77.0.2",
                64512,
                &[("node", "10.77.0.1 as 64512")],
                &ROUTES[..1],
                "graceful restart on;",
                arguments,
            )
        };
        let first = start("");
        let mut us = Us::start(settings(64512));
        us.originate(&["192.168.1.0/26"]);
        us.wait_up(&them());
        us.expect(&["10.1.0.0/24 via 10.77.0.2"]);
        wait_known("bird", "192.168.1.0/26", true);
        // They crash and come back: nothing is withdrawn.
        first.kill();
        wait_for("the crash", || {
            us.neighbor(&them()).restarting.then_some(())
        });
        thread::sleep(SHORT);
        us.expect(&["10.1.0.0/24 via 10.77.0.2"]);
        let _second = start("-R");
        us.wait_up(&them());
        wait_for("its routes again", || {
            us.listen();
            let all = us.speaker.received(Default::default()).unwrap();
            (all.len() == 1 && !all[0].stale).then_some(())
        });
        assert_eq!(us.withdrawn, []);
        us.expect(&["10.1.0.0/24 via 10.77.0.2"]);
        wait_known("bird", "192.168.1.0/26", true);
        // We restart: they keep our routes meanwhile, and take the new ones.
        us.speaker.stop(Stop::Restarting);
        wait_for("the restart seen", || {
            ask("bird", "show protocols all node")
                .contains("Neighbor graceful restart")
                .then_some(())
        });
        thread::sleep(SHORT);
        assert!(knows("bird", "192.168.1.0/26"));
        let mut us = Us::start_as(settings(64512), Start::Restarted([them()].into()));
        us.originate(&["192.168.1.0/26", "192.168.1.64/26"]);
        us.wait_up(&them());
        us.expect(&["10.1.0.0/24 via 10.77.0.2"]);
        wait_known("bird", "192.168.1.64/26", true);
        assert!(knows("bird", "192.168.1.0/26"));
        wait_for("the end of the restart", || {
            us.listen();
            us.converged.then_some(())
        });
    });
}

#[test]
fn passwords_and_ttl_security() {
    isolated(|| {
        if !linked("bird") {
            return;
        }
        let options = "password \"sesame\"; ttl security on;";
        let _bird = usual_bird(options);
        let with = |password: Option<&str>, passive| {
            let mut settings = settings(64513);
            let peer = settings.peers.get_mut(&them()).unwrap();
            peer.password = password.map(str::to_owned);
            peer.ttl_security = Some(1);
            peer.passive = passive;
            settings
        };
        let us = Us::start(with(Some("wrong"), false));
        us.wait_error(&them(), "Wrong password");
        us.speaker.configure(with(None, false)).unwrap();
        us.wait_error(&them(), "The peer has a password");
        us.speaker.configure(with(Some("sesame"), false)).unwrap();
        us.wait_up(&them());
        us.speaker.configure(with(Some("sesame"), true)).unwrap();
        wait_for("a passive session", || {
            let report = us.neighbor(&them());
            (report.counters.established == 2).then_some(())
        });
        us.wait_up(&them());
    });
}

#[test]
fn routes_are_reflected() {
    isolated(|| {
        if !linked("bird") {
            return;
        }
        let peer = [("node", "10.77.0.1 as 64512")];
        let _one = bird(
            "one",
            "10.77.0.2",
            64512,
            &peer,
            &["10.1.0.0/24 via 10.77.0.2", "fd00:1::/64 via fd77::2"],
            "",
            "",
        );
        let _two = bird(
            "two",
            "10.77.0.3",
            64512,
            &peer,
            &["10.2.0.0/24 via 10.77.0.3"],
            "",
            "",
        );
        let mut settings = settings(64512);
        settings.cluster_id = Some([9, 9, 9, 9].into());
        let other = "other".into();
        settings
            .peers
            .insert("other".into(), PeerSettings::new(OTHERS.into(), 64512));
        let us = Us::start(settings.clone());
        us.wait_up(&them());
        us.wait_up(&other);
        thread::sleep(SHORT);
        assert!(
            !knows("two", "10.1.0.0/24"),
            "internal routes go no further"
        );
        settings
            .peers
            .get_mut(&them())
            .unwrap()
            .route_reflector_client = true;
        us.speaker.configure(settings.clone()).unwrap();
        wait_known("two", "10.1.0.0/24", true);
        wait_known("two", "fd00:1::/64", true);
        wait_known("one", "10.2.0.0/24", true);
        let shown = ask("two", "show route all 10.1.0.0/24");
        for said in [
            "BGP.originator_id: 10.77.0.2",
            "BGP.cluster_list: 9.9.9.9",
            "BGP.next_hop: 10.77.0.2",
        ] {
            assert!(shown.contains(said), "{said}: {shown}");
        }
        assert_eq!(
            us.neighbor(&them()).counters.established,
            1,
            "no session has ended"
        );
        ask("one", "disable s4");
        wait_known("two", "10.1.0.0/24", false);
    });
}

#[test]
fn sessions_over_ipv6_and_a_wrong_as() {
    isolated(|| {
        if !linked("bird") {
            return;
        }
        let _bird = bird(
            "bird",
            "10.77.0.2",
            64513,
            &[("us4", "10.77.0.1 as 64999")],
            &["10.2.0.0/16 blackhole"],
            "",
            "",
        );
        let text = fs::read_to_string("/run/bird.conf").unwrap();
        let v6 = "protocol bgp us6 { local fd77::2 as 64513; neighbor fd77::1 as 64512;
            connect retry time 1; connect delay time 1; error wait time 1, 2;
            ipv4 { import all; export all; extended next hop on; }; ipv6 { import all; export all; }; }";
        fs::write("/run/bird.conf", format!("{text}\n{v6}\n")).unwrap();
        wait_for("birdc", || {
            ask("bird", "configure")
                .contains("Reconfigured")
                .then_some(())
        });
        let mut settings = settings(64513);
        let mut peer = PeerSettings::new("fd77::2".parse().unwrap(), 64513);
        peer.passive = false;
        settings.peers.insert("six".into(), peer);
        settings.next_hop_v4 = None;
        let mut us = Us::start(settings);
        us.originate(&["192.168.1.0/26", "fd00:9::/122"]);
        us.wait_up(&"six".into());
        us.wait_error(&them(), "Bad peer AS");
        // IPv4 routes with IPv6 next hops, both ways (RFC 8950).
        us.expect(&["10.2.0.0/16 via fd77::2"]);
        wait_known("bird", "192.168.1.0/26", true);
        wait_known("bird", "fd00:9::/122", true);
    });
}

#[test]
fn several_paths_of_one_peer() {
    isolated(|| {
        if !linked("bird") {
            return;
        }
        let text = "router id 10.77.0.2; protocol device {}
            protocol static a { ipv4; route 10.1.0.0/24 via 10.77.0.2; }
            protocol static b { ipv4; route 10.1.0.0/24 via 10.77.0.3; }
            protocol bgp node { local 10.77.0.2 as 64512; neighbor 10.77.0.1 as 64512;
              connect delay time 1; ipv4 { import all; export all; add paths tx; next hop keep; }; }";
        fs::write("/run/bird.conf", text).unwrap();
        let line = "bird -f -c /run/bird.conf -s /run/bird.ctl -P /run/bird.pid";
        let _bird = Daemon::start("bird", line);
        let mut us = Us::start(settings(64512));
        let up = us.wait_up(&them());
        assert!(
            up.session
                .expect("a session")
                .capabilities
                .contains(&"ADD-PATH receive")
        );
        us.expect(&["10.1.0.0/24 via 10.77.0.2,10.77.0.3"]);
        let received = us.speaker.received(Default::default()).unwrap();
        assert!(received.len() == 2 && received[0].path_id != received[1].path_id);
        ask("bird", "disable a");
        us.expect(&["10.1.0.0/24 via 10.77.0.3"]);
        ask("bird", "disable b");
        us.expect(&[]);
    });
}
