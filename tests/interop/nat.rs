//! natOutgoing, with a server outside that knows nothing of pods.
//!
//! ```text
//!  pod ── underpass ── up0 ── the kernel of "near" ── wan0 ──── eth0 "outside" 198.51.100.2
//! ```

use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

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
fn without_nft_there_is_one_warning_and_all_else_works_and_with_it_nat_does() {
    run(|world| {
        outside();
        world.cluster(NAT, NAT);
        far_vxlan(false, "");
        // Nothing is found where programs are looked for; `underpass` itself is named by its path.
        replace_nft("/dev/null");
        world.start("");
        ping("pod", FAR_POD, "");
        until("the status says so", || !nat_trouble(world).is_empty());
        let trouble = nat_trouble(world);
        assert!(trouble.contains("natOutgoing does not work"), "{trouble}");
        // It was tried again by then.
        thread::sleep(Duration::from_secs(3));
        let log = world.log();
        assert_eq!(log.matches("natOutgoing does not work").count(), 1, "{log}");

        // Installed while the node runs.
        give_nft_back();
        until("nft is found", || world.log().contains("works again"));
        assert_eq!(seen_by(SERVER), "198.51.100.1");
        assert_eq!(nat_trouble(world), "");
    });
}

#[test]
fn an_nft_that_hangs_holds_nothing_up_for_long() {
    run(|world| {
        outside();
        world.cluster(NAT, NAT);
        script_as_nft("exec sleep 600");
        let begun = Instant::now();
        world.start("");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(8), "started in {took:?}");
        for _ in 0..3 {
            let begun = Instant::now();
            world.ask("status");
            // Less than the watchdog's ten seconds.
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(8), "answered in {took:?}");
            thread::sleep(Duration::from_secs(1));
        }
        assert!(nat_trouble(world).contains("timed out"));
    });
}

#[test]
fn a_table_that_nobody_owns_is_made_again_when_it_was_flushed() {
    run(|world| {
        outside();
        world.cluster(NAT, NAT);
        // As a kernel before 5.12 would, this one refuses to have tables owned.
        script_as_nft("sed -u 's/flags owner/flags unknown/' | /mnt/nft -i");
        world.start("");
        assert!(world.log().contains("no owned tables"), "{}", world.log());
        assert_eq!(seen_by(SERVER), "198.51.100.1");
        sh("nft flush ruleset");
        // It is looked at every ten seconds.
        thread::sleep(Duration::from_secs(5));
        until("the table is back", || ruleset().contains("masquerade"));
        assert_eq!(seen_by(SERVER), "198.51.100.1");
        sh("nft flush table inet underpass-near");
        thread::sleep(Duration::from_secs(5));
        until("the rules are back", || ruleset().contains("masquerade"));
        let log = world.log();
        assert_eq!(log.matches("making it again").count(), 2, "{log}");
        world.signal(Signal::SIGTERM);
        assert_eq!(ruleset(), "");
    });
}

/// What comes to VXLAN's port is taken from the kernel, answers to a masqueraded flow as well.
#[test]
fn no_udp_flow_gets_a_port_of_vxlan() {
    run(|world| {
        outside();
        world.cluster(NAT, NAT);
        felix_port(world, 40000);
        world.start("");
        for server in [SERVER, SERVER_V6] {
            let ports = udp_ports_seen_by(server, 60);
            let spared = ports.iter().all(|port| (1024..40000).contains(port));
            assert!(spared, "{ports:?}");
        }
        assert_eq!(seen_by(SERVER), "198.51.100.1");
        assert_eq!(seen_by(SERVER_V6), "fd00:51::1");

        // One that VXLAN is about to have counts as well.
        felix_port(world, 20000);
        let both = "udp masquerade to :40001-65535 fully-random";
        until("both are spared", || ruleset().matches(both).count() == 2);
    });
}

/// Has the cluster's VXLAN use that port.
fn felix_port(world: &World, port: u16) {
    let felix = format!(
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\n\
         spec: {{vxlanPort: {port}}}\n"
    );
    world.resource("felix", &felix);
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

/// Has another file take the place of `nft` wherever it is looked for, in the test's mount namespace.
fn replace_nft(by: &str) {
    sh(&format!(
        "for f in /usr/sbin/nft /sbin/nft /usr/bin/nft /bin/nft; do [ ! -e $f ] || mount --bind {by} $f; done"
    ));
}

fn give_nft_back() {
    sh(
        "for f in /usr/sbin/nft /sbin/nft /usr/bin/nft /bin/nft; do \
         while mountpoint -q $f; do umount $f; done; done",
    );
}

/// Has a line of shell be what `nft -i` does; for all else it stays the program, at `/mnt/nft`.
fn script_as_nft(interactive: &str) {
    sh("mount -t tmpfs tmpfs /mnt && cp $(readlink -f $(command -v nft)) /mnt/nft");
    let script = format!("#!/bin/sh\n[ \"$1\" = -i ] || exec /mnt/nft \"$@\"\n{interactive}\n");
    std::fs::write("/mnt/script", script).expect("a script");
    sh("chmod +x /mnt/script");
    replace_nft("/mnt/script");
}

/// What the node's status says of natOutgoing.
fn nat_trouble(world: &World) -> String {
    let status = world.ask("status");
    let components = status["components"].as_array().expect("components");
    let of_nat = components.iter().filter(|one| one["name"] == "natOutgoing");
    let details: Vec<_> = of_nat.filter_map(|one| one["detail"].as_str()).collect();
    details.join("\n")
}

/// The ports that a server outside sees the pod's UDP flows come from; each is answered.
fn udp_ports_seen_by(server: &str, flows: usize) -> Vec<u16> {
    let at = SocketAddr::new(server.parse().expect("an address"), 5353);
    let server = within("outside", || UdpSocket::bind(at).expect("a socket"));
    let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let patience = Some(Duration::from_secs(10));
    server.set_read_timeout(patience).expect("a timeout");
    let flow = || {
        let client = within("pod", || UdpSocket::bind(any).expect("a socket"));
        client.set_read_timeout(patience).expect("a timeout");
        client.send_to(b"question", at).expect("sent");
        let (_, from) = server.recv_from(&mut [0; 16]).expect("the question");
        server.send_to(b"answer", from).expect("sent");
        client.recv_from(&mut [0; 16]).expect("the answer");
        from.port()
    };
    (0..flows).map(|_| flow()).collect()
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
