//! underpass' bridge at one end, Linux' vxlan device in a Linux bridge at the other; Flannel's setting;
//! and a third node, for which everything has to be sent twice.
//!
//! ```text
//!  "pod"              node "near"                 node "far" (and "third", on far's switch)
//!   eth0 ── cali1  underpass  eth0 ─────────── eth0  switch    vxlan0 ── br0: the far station
//!   10.9.0.1                10.30.0.11            10.30.0.12 (.13)       10.9.0.2 (.3)
//!   fd00:9::1               fd00:30::11           fd00:30::12            fd00:9::2 (::3)
//! ```

use std::io::Write;
use std::net::UdpSocket;
use std::time::Duration;

use underpass::observe::report::CounterReport;

use super::world::*;

const STATION: &str = "10.9.0.1";
const FAR_STATION: &str = "10.9.0.2";
const THIRD_STATION: &str = "10.9.0.3";
const STATION_V6: &str = "fd00:9::1";
const FAR_STATION_V6: &str = "fd00:9::2";

/// The bridge as most tests have it.
const TENANTS: &str = "bridges: [{name: tenants, vni: 77, ports: [cali1]}]";
/// The far kernel's device for it, and where that sends.
const WORDS: &str = "id 77 dstport 4789 local 10.30.0.12";
const NEAR: &str = "10.30.0.11";

#[test]
fn a_bridge_and_the_kernels_are_one_network_over_ipv4() {
    one_network(TENANTS, WORDS, NEAR);
}

#[test]
fn a_bridge_and_the_kernels_are_one_network_over_ipv6() {
    let bridge = "bridges: [{name: tenants, vni: 77, ports: [cali1], underlay: ipv6}]";
    let words = "id 77 dstport 4789 local fd00:30::12";
    one_network(bridge, words, "fd00:30::11");
}

/// Addresses, pings, TCP with its content compared, broadcast; and both ends learn.
fn one_network(bridge: &str, words: &str, near: &str) {
    run(|world| {
        world.cluster("vxlanMode: Never", "vxlanMode: Never");
        two_stations(words, near);
        world.start(bridge);

        ping("pod", FAR_STATION, "-s 1400 -M do");
        ping("far", STATION, "");
        ping("pod", FAR_STATION_V6, "");
        ping("far", STATION_V6, "-s 1300");
        tcp("pod", "far", FAR_STATION);
        tcp("far", "pod", STATION);
        tcp("pod", "far", FAR_STATION_V6);

        broadcast("pod", "far");
        broadcast("far", "pod");

        let (pod, far) = (mac("pod", "eth0"), mac("far", "br0"));
        let rows = world.ask("fdb");
        let place = |mac: &str, field: &str| {
            let rows = rows.as_array().expect("rows");
            let row = rows.iter().find(|row| row["mac"] == mac);
            row.map(|row| row[field].clone()).unwrap_or_default()
        };
        assert_eq!(place(&pod, "port"), "cali1", "{rows:#}");
        assert_eq!(place(&far, "node"), "far", "{rows:#}");
        let learnt = inside("far", "bridge fdb show dev vxlan0");
        let wanted = format!("{pod} dst {near}");
        assert!(learnt.contains(&wanted), "{wanted}: {learnt}");
        balanced(world);
    });
}

/// What does not fit into the tunnel is cut up if it may be, and else its sender is told.
#[test]
fn what_is_too_large_for_a_bridges_tunnel_is_cut_or_told() {
    run(|world| {
        world.cluster("vxlanMode: Never", "vxlanMode: Never");
        two_stations(WORDS, NEAR);
        // The kernel's end takes what is larger, in outer fragments if need be.
        inside("far", "ip link set br0 mtu 1450");
        world.start(TENANTS);
        ping("pod", FAR_STATION, "-s 1472 -M dont");
        let told = within("pod", || {
            try_sh(&format!(
                "ping -n -c 2 -i 0.3 -W 2 -s 1472 -M do {FAR_STATION}"
            ))
        });
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(
            text.contains("mtu = 1450") || text.contains("mtu=1450"),
            "{text}"
        );
        // TCP learns of it.
        tcp("pod", "far", FAR_STATION);
        tcp("pod", "far", FAR_STATION_V6);
        balanced(world);
    });
}

/// A link in the middle of the underlay that is narrower than both ends': what is sent with DF set arrives
/// in outer fragments, either way.
#[test]
fn bridged_packets_that_may_not_be_cut_cross_a_narrow_link() {
    run(|world| {
        world.cluster("vxlanMode: Never", "vxlanMode: Never");
        narrow_middle(1400);
        two_stations(WORDS, NEAR);
        for (namespace, device) in [("pod", "eth0"), ("far", "br0")] {
            inside(namespace, &format!("ip link set {device} mtu 1450"));
        }
        world.start(TENANTS);
        ping("pod", FAR_STATION, "-M do -s 1422");
        ping("far", STATION, "-M do -s 1422");
        tcp("pod", "far", FAR_STATION);
        tcp("far", "pod", STATION);
        tcp("pod", "far", FAR_STATION_V6);
        assert_eq!(world.drops("invalid_quote"), 0);
        balanced(world);
    });
}

/// Over IPv6 routers do not fragment: what they say of a narrow link in the middle is learnt, and told to the
/// station whose next frame is too large, though the far end is no node of the cluster.
#[test]
fn a_bridges_narrow_ipv6_path_is_learnt_and_told() {
    run(|world| {
        world.cluster("vxlanMode: Never", "vxlanMode: Never");
        narrow_middle(1400);
        narrow_middle_takes_ipv6();
        two_stations("id 77 dstport 4789 local fd00:30::12", "fd00:30::11");
        inside("far", "ip link set br0 mtu 1430");
        world.start("bridges: [{name: tenants, vni: 77, ports: [cali1], underlay: ipv6}]");
        ping("pod", FAR_STATION, "");
        let large = format!("ping -n -c 4 -i 0.5 -W 1 -s 1372 -M do {FAR_STATION}");
        let told = within("pod", || try_sh(&large));
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(
            text.contains("mtu = 1330") || text.contains("mtu=1330"),
            "{text}"
        );
        ping("pod", FAR_STATION, "-M do -s 1302");
        inside("pod", "ip route flush cache; ip -6 route flush cache");
        tcp("pod", "far", FAR_STATION);
        tcp("pod", "far", FAR_STATION_V6);
        tcp("far", "pod", STATION);
        assert_eq!(world.drops("invalid_quote"), 0);
        balanced(world);
    });
}

/// Each of Flannel's nodes is one station, and flanneld writes what would be learnt: who has which
/// address, and where it is.
#[test]
fn flannels_setting_works() {
    run(|world| {
        world.cluster("vxlanMode: Never", "vxlanMode: Never");
        let pod = mac("pod", "eth0");
        inside(
            "far",
            &format!(
                "ip link add flannel.1 mtu 1450 type vxlan id 1 local 10.30.0.12 dstport 8472 nolearning;
                 ip addr add 10.244.2.0/32 dev flannel.1; ip link set flannel.1 up;
                 ip neigh add 10.244.1.0 lladdr {pod} dev flannel.1 nud permanent;
                 bridge fdb add {pod} dev flannel.1 dst 10.30.0.11;
                 ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink src 10.244.2.0"
            ),
        );
        let far = mac("far", "flannel.1");
        inside(
            "pod",
            &format!(
                "ip link set eth0 mtu 1450; ip addr add 10.244.1.0/32 dev eth0;
                 ip neigh add 10.244.2.0 lladdr {far} dev eth0 nud permanent;
                 ip route add 10.244.2.0/24 via 10.244.2.0 dev eth0 onlink src 10.244.1.0"
            ),
        );
        world.start(&format!(
            "bridges: [{{name: flannel, vni: 1, udpPort: 8472, ports: [cali1], learning: false,\n  \
             forwarding: [{{mac: \"{pod}\", port: cali1}}, {{mac: \"{far}\", remote: 10.30.0.12}}]}}]"
        ));
        let capture = Capture::start("far", "udp port 8472");
        ping("pod", "10.244.2.0", "");
        ping("far", "10.244.1.0", "");
        let frames = capture.stop();
        let read = dissected(&frames, 8472);
        let pings = read.iter().filter(|fields| fields[2] == "icmp").count();
        assert!(pings >= 12 && read.len() == frames.len(), "{read:?}");
        // Both ends' packets, ours and the kernel's, are read alike.
        for (frame, fields) in frames.iter().zip(&read) {
            assert_eq!(fields[..2], ["0x0800", "1"], "{frame:02x?}");
            assert_eq!(fields[3], "", "{frame:02x?}");
        }
        tcp("pod", "far", "10.244.2.0");
        tcp("far", "pod", "10.244.1.0");
        let kinds: Vec<_> = rows(world)
            .into_iter()
            .map(|row| row["kind"].clone())
            .collect();
        assert!(!kinds.contains(&"learned".into()), "{kinds:?}");
        balanced(world);
    });
}

/// A broadcast reaches every node once: near sends to both, and passes nothing on that came out of a
/// tunnel.
#[test]
fn three_nodes_each_hear_a_broadcast_once() {
    run(|world| {
        world.cluster("vxlanMode: Never", "vxlanMode: Never");
        third_node();
        station("pod", "eth0", STATION, STATION_V6);
        kernel_bridge(
            "far",
            "id 77 dstport 4789 local 10.30.0.12",
            &["10.30.0.11", "10.30.0.13"],
        );
        kernel_bridge(
            "third",
            "id 77 dstport 4789 local 10.30.0.13",
            &["10.30.0.11", "10.30.0.12"],
        );
        station("far", "br0", FAR_STATION, FAR_STATION_V6);
        station("third", "br0", THIRD_STATION, "fd00:9::3");
        world.start("bridges: [{name: tenants, vni: 77, ports: [cali1], remotes: [10.30.0.13]}]");
        for (from, to) in [
            ("pod", THIRD_STATION),
            ("third", STATION),
            ("far", THIRD_STATION),
        ] {
            ping(from, to, "");
        }
        tcp("pod", "third", THIRD_STATION);
        for (from, others) in [
            ("pod", ["far", "third"]),
            ("far", ["pod", "third"]),
            ("third", ["pod", "far"]),
        ] {
            let ears: Vec<_> = others.iter().map(|name| (name, ear(name))).collect();
            shout(from, "everybody");
            for (name, ear) in ears {
                assert_eq!(heard(&ear), ["everybody"], "{from} to {name}");
            }
        }
        balanced(world);
    });
}

/// A station that moves is found at its new place, both ways; one that is silent is forgotten.
#[test]
fn stations_move_and_are_forgotten() {
    run(|world| {
        world.cluster("vxlanMode: Never", "vxlanMode: Never");
        third_node();
        station("pod", "eth0", STATION, STATION_V6);
        kernel_bridge(
            "far",
            "id 77 dstport 4789 local 10.30.0.12",
            &["10.30.0.11", "10.30.0.13"],
        );
        kernel_bridge(
            "third",
            "id 77 dstport 4789 local 10.30.0.13",
            &["10.30.0.11", "10.30.0.12"],
        );
        // The station that moves.
        for name in ["far", "third"] {
            inside(name, "ip link set br0 address 02:00:00:00:00:99");
        }
        station("far", "br0", FAR_STATION, FAR_STATION_V6);
        world.start(
            "bridges: [{name: tenants, vni: 77, ports: [cali1], remotes: [10.30.0.13], ageing: 3}]",
        );
        let place = |world: &World| {
            let rows = rows(world);
            let row = rows.iter().find(|row| row["mac"] == "02:00:00:00:00:99");
            row.map(|row| row["remote"].clone()).unwrap_or_default()
        };
        ping("pod", FAR_STATION, "");
        assert_eq!(place(world), "10.30.0.12");
        inside("far", "ip addr flush dev br0; ip link set br0 down");
        station("third", "br0", FAR_STATION, FAR_STATION_V6);
        // Its announcement, or its first word.
        ping("third", STATION, "");
        assert_eq!(place(world), "10.30.0.13");
        ping("pod", FAR_STATION, "");
        inside("third", "ip link set br0 down");
        until("the station is forgotten", || place(world).is_null());
        balanced(world);
    });
}

/// A question for an address that is known to be elsewhere does not cross the underlay.
#[test]
fn known_addresses_are_answered_here() {
    run(|world| {
        world.cluster("vxlanMode: Never", "vxlanMode: Never");
        two_stations(WORDS, NEAR);
        let far = mac("far", "br0");
        world.start(&format!(
            "bridges: [{{name: tenants, vni: 77, ports: [cali1],\n  \
             neighbours: [{{address: 10.9.0.7, mac: \"{far}\"}}]}}]"
        ));
        ping("pod", FAR_STATION, "");
        ping("pod", FAR_STATION_V6, "");
        // The inner EtherType, behind UDP's header, VXLAN's and two addresses.
        let arp_or_ipv6 = "udp port 4789 and (udp[28:2] = 0x0806 or udp[28:2] = 0x86dd)";
        let capture = Capture::start("far", arp_or_ipv6);
        within("pod", || {
            sh("ip neigh flush dev eth0; sleep 0.1");
            for (address, option) in [
                (FAR_STATION, "-4"),
                ("10.9.0.7", "-4"),
                (FAR_STATION_V6, "-6"),
            ] {
                try_sh(&format!("ping {option} -n -c 1 -W 1 {address}"));
                let found = sh(&format!("ip {option} neigh show {address} dev eth0"));
                assert!(found.contains(&far), "{address}: {found}");
            }
        });
        let pod = mac_bytes(&mac("pod", "eth0"));
        let sent = capture.stop();
        let inner = sent.iter().map(|frame| &frame[50..]);
        let from_pod: Vec<&[u8]> = inner.filter(|inner| inner[6..12] == pod).collect();
        for inner in &from_pod {
            let asks = match inner[12..14] {
                [0x08, 0x06] => inner[14 + 7] == 1,
                // Unicast probes of a neighbour that is known go to the neighbour itself.
                _ => icmpv6_type(inner) == Some(135) && inner[0] == 0x33,
            };
            assert!(!asks, "{inner:02x?}");
        }
        // Its ping does cross, which needed no question.
        let echo = |inner: &&[u8]| icmpv6_type(inner) == Some(128);
        assert!(from_pod.iter().any(echo), "{sent:02x?}");
        balanced(world);
    });
}

/// The type of the ICMPv6 message that a frame carries, if it carries one.
fn icmpv6_type(frame: &[u8]) -> Option<u8> {
    let is_icmpv6 = frame[12..14] == [0x86, 0xdd] && frame[14 + 6] == 58;
    is_icmpv6.then(|| frame[14 + 40])
}

fn rows(world: &World) -> Vec<serde_json::Value> {
    world.ask("fdb").as_array().expect("rows").clone()
}

/// Every packet is accounted for.
fn balanced(world: &World) {
    let mut last = CounterReport::default();
    until("the accounts are even", || {
        let now: CounterReport =
            serde_json::from_value(world.ask("counters")).expect("a counter report");
        let even = now == last && now.balance().difference() == 0;
        last = now;
        even
    });
}

/// What tshark reads in tunnel packets to that UDP port: VXLAN's flags and VNI, the innermost protocol,
/// and what is malformed.
fn dissected(frames: &[Vec<u8>], udp_port: u16) -> Vec<Vec<String>> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let mut capture = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    capture.extend([[0; 4], [0; 4], 65535_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat());
    for frame in frames {
        let length = (frame.len() as u32).to_le_bytes();
        capture.extend([[0; 4], [0; 4], length, length].concat());
        capture.extend(frame);
    }
    file.write_all(&capture).expect("a capture");
    let text = sh(&format!(
        "tshark -r {} -d udp.port=={udp_port},vxlan -T fields -E separator=';' \
         -e vxlan.flags -e vxlan.vni -e frame.protocols -e _ws.malformed 2>/dev/null",
        file.path().display()
    ));
    let fields = |line: &str| {
        let mut fields: Vec<String> = line.split(';').map(str::to_owned).collect();
        if let Some(protocols) = fields.get_mut(2) {
            let innermost = protocols.split(':').rfind(|protocol| *protocol != "data");
            *protocols = innermost.unwrap_or_default().to_owned();
        }
        fields
    };
    text.lines().map(fields).collect()
}

/// Makes a Linux bridge of a vxlan device, which floods to these remotes.
fn kernel_bridge(namespace: &str, words: &str, remotes: &[&str]) {
    inside(
        namespace,
        &format!(
            "ip link add vxlan0 type vxlan {words}; ip link add br0 type bridge;
             ip link set vxlan0 master br0; ip link set vxlan0 up"
        ),
    );
    for remote in remotes {
        let line = format!("bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst {remote}");
        inside(namespace, &line);
    }
}

/// A station at either end: the pod, and the far kernel's own bridge.
fn two_stations(words: &str, near: &str) {
    station("pod", "eth0", STATION, STATION_V6);
    kernel_bridge("far", words, &[near]);
    station("far", "br0", FAR_STATION, FAR_STATION_V6);
}

fn station(namespace: &str, device: &str, v4: &str, v6: &str) {
    inside(
        namespace,
        &format!(
            "ip link set {device} up; ip addr add {v4}/24 brd + dev {device};
             ip addr add {v6}/64 dev {device} nodad"
        ),
    );
}

/// A third node on the same underlay: far becomes its switch.
fn third_node() {
    add_namespace("third");
    inside(
        "far",
        "ip addr flush dev eth0; ip link add switch type bridge; ip link set eth0 master switch;
         ip link set switch up; ip addr add 10.30.0.12/24 dev switch;
         ip link add port3 type veth peer name eth0 netns third;
         ip link set port3 master switch; ip link set port3 up;
         ethtool -K switch tx off > /dev/null",
    );
    inside(
        "third",
        "ethtool -K eth0 tx off tso off gso off > /dev/null; ip link set eth0 up;
         ip addr add 10.30.0.13/24 dev eth0",
    );
}

fn mac(namespace: &str, device: &str) -> String {
    let text = inside(namespace, &format!("ip -br link show {device}"));
    let found = text
        .split_whitespace()
        .find(|word| word.matches(':').count() == 5);
    found.expect("an address").to_owned()
}

fn mac_bytes(mac: &str) -> Vec<u8> {
    mac.split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
        .collect()
}

const SHOUTING: u16 = 5999;

/// Hears what is broadcast.
fn ear(namespace: &str) -> UdpSocket {
    within(namespace, || {
        let ear = UdpSocket::bind(("0.0.0.0", SHOUTING)).expect("a socket");
        ear.set_read_timeout(Some(Duration::from_millis(700)))
            .expect("a timeout");
        ear
    })
}

fn shout(namespace: &str, words: &str) {
    within(namespace, || {
        let mouth = UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
        mouth.set_broadcast(true).expect("broadcast");
        mouth
            .send_to(words.as_bytes(), ("10.9.0.255", SHOUTING))
            .expect("sent");
    });
}

fn heard(ear: &UdpSocket) -> Vec<String> {
    let mut words = Vec::new();
    let mut buffer = [0; 64];
    while let Ok((length, _)) = ear.recv_from(&mut buffer) {
        words.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    words
}

fn broadcast(from: &str, to: &str) {
    let ear = ear(to);
    shout(from, "here");
    assert_eq!(heard(&ear), ["here"], "{from} to {to}");
}
