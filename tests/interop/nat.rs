//! natOutgoing, with a server outside that knows nothing of pods.
//!
//! ```text
//!  pod ── underpass ── up0 ── the kernel of "near" ── wan0 ──── eth0 "outside" 198.51.100.2
//! ```

use std::io::Write;
use std::net::TcpListener;
use std::thread;

use nix::sys::signal::Signal;

use super::world::*;

const SERVER: &str = "198.51.100.2";
const SERVER_V6: &str = "fd00:51::2";
const NAT: &str = "vxlanMode: Always, natOutgoing: true";
const NO_NAT: &str = "vxlanMode: Always";

#[test]
fn pods_reach_the_world_by_the_nodes_address() {
    run(|world| {
        outside();
        world.cluster(NAT, NAT);
        world.start("");
        assert_eq!(seen_by(SERVER), "198.51.100.1");
        assert_eq!(seen_by(SERVER_V6), "fd00:51::1");
        ping("pod", SERVER, "");
        assert!(ruleset().contains("table inet underpass-near"));

        // What goes to other workloads keeps its address.
        far_vxlan(false, "");
        let capture = Capture::start("far", "udp port 4789");
        ping("pod", FAR_POD, "");
        let frames = capture.stop();
        let inner_source = |frame: &Vec<u8>| frame[14 + 20 + 8 + 8 + 14 + 12..][..4].to_vec();
        assert!(
            frames
                .iter()
                .any(|frame| inner_source(frame) == [192, 168, 1, 10])
        );

        // One family's pool without NAT, then neither.
        world.cluster(NO_NAT, NAT);
        until("no NAT of IPv4", || !ruleset().contains("ip saddr"));
        assert!(ruleset().contains("ip6 saddr"));
        world.cluster(NO_NAT, NO_NAT);
        until("the table is gone", || !ruleset().contains("underpass"));
        world.cluster(NAT, NO_NAT);
        until("the table is back", || ruleset().contains("ip saddr"));
        assert_eq!(seen_by(SERVER), "198.51.100.1");
    });
}

#[test]
fn nothing_of_the_table_outlives_the_process() {
    run(|world| {
        outside();
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            world.cluster(NAT, NAT);
            world.start("");
            assert_eq!(seen_by(SERVER), "198.51.100.1");
            world.signal(signal);
            until("the table is gone", || ruleset().is_empty());
            until("the TUN device is gone", || {
                !try_sh("ip link show up0").status.success()
            });
        }
    });
}

#[test]
fn rules_come_back_when_nft_is_killed() {
    run(|world| {
        outside();
        world.cluster(NAT, NAT);
        world.start("");
        let pid = world.pid();
        let nft = sh(&format!("cat /proc/{pid}/task/*/children"));
        let held = sh(&format!("ls -l /proc/{}/fd", nft.trim()));
        for foreign in ["net/tun", "bpf", "mem"] {
            assert!(!held.contains(foreign), "nft has inherited: {held}");
        }
        let sockets = held.matches("socket:").count();
        assert_eq!(sockets, 1, "its own, to netlink, and no AF_XDP one: {held}");
        sh(&format!("kill -9 {nft}"));
        // By then the kernel has removed its table.
        until("the end is noticed", || {
            world.log().contains("nft has ended; starting it again")
        });
        until("the rules are back", || ruleset().contains("masquerade"));
        assert_eq!(seen_by(SERVER), "198.51.100.1");
    });
}

#[test]
fn a_table_that_was_left_is_taken_over() {
    run(|world| {
        outside();
        sh("nft add table inet underpass-near; nft add chain inet underpass-near left");
        world.cluster(NAT, NAT);
        world.start("");
        assert!(!ruleset().contains("left"), "{}", ruleset());
        assert_eq!(seen_by(SERVER), "198.51.100.1");
    });
}

#[test]
fn without_nft_there_is_one_warning_and_all_else_works() {
    run(|world| {
        outside();
        world.cluster(NAT, NAT);
        far_vxlan(false, "");
        // Nothing is found where programs are looked for; `underpass` itself is named by its path.
        sh(
            "for f in /usr/sbin/nft /sbin/nft /usr/bin/nft /bin/nft; do [ ! -e $f ] || mount --bind /dev/null $f; done",
        );
        world.start("");
        ping("pod", FAR_POD, "");
        let log = world.log();
        assert_eq!(log.matches("natOutgoing does not work").count(), 1, "{log}");
    });
}

/// Namespace "outside", joined to "near", which forwards.
fn outside() {
    add_namespace("outside");
    sh("ip link add wan0 type veth peer name eth0 netns outside");
    sh(
        "ip addr add 198.51.100.1/24 dev wan0; ip addr add fd00:51::1/64 dev wan0 nodad; ip link set wan0 up",
    );
    inside(
        "outside",
        "ip addr add 198.51.100.2/24 dev eth0; ip addr add fd00:51::2/64 dev eth0 nodad; ip link set eth0 up",
    );
    sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
}

/// The address that a server outside sees the pod come from; it says so, and the pod reads it.
fn seen_by(server: &str) -> String {
    let at: std::net::SocketAddr = match server.contains(':') {
        true => format!("[{server}]:80").parse().expect("an address"),
        false => format!("{server}:80").parse().expect("an address"),
    };
    let listener = within("outside", || TcpListener::bind(at).expect("listen"));
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, from) = listener.accept().expect("accept");
            write!(stream, "{}", from.ip()).expect("sent");
        });
        within("pod", || {
            let patience = std::time::Duration::from_secs(10);
            let stream = std::net::TcpStream::connect_timeout(&at, patience).expect("connect");
            std::io::read_to_string(stream).expect("the server's word")
        })
    })
}

fn ruleset() -> String {
    sh("nft list ruleset")
}
