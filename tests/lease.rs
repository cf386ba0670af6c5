//! Addresses by DHCP and the router by its advertisement: byte for byte, as scapy reads them, and with real
//! clients behind a running node (as root only; see [`netns`]).

mod common;
#[path = "common/netns.rs"]
mod netns;

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{OTHER_WORKLOAD, POD, POD_MAC, UPLINK, WORKLOAD};
use netns::{Router, isolated, sh, try_sh, wait_for};
use underpass::forward::Punt;
use underpass::packet::{DropReason, PortId};
use underpass::wire::MacAddr;
use underpass::worker::slow_path::{Action, Event, Fate, Punted, SlowPath};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

#[test]
fn an_offer_is_these_bytes() {
    let frame = frame_for(&discover(&[]));
    let ethernet = "020000000102 eeeeeeeeeeee 0800";
    let ip = "45000148000040004011 2463 a9fe0101 c0a80102".replace("2463", &sum_of(&frame[14..34]));
    let udp = "00430044 0134";
    let fixed = "02010600 39033903 00000000 00000000 c0a80102 00000000 00000000 020000000102";
    let start: String = [ethernet, &ip, udp].concat().replace(' ', "");
    let hex = to_hex(&frame);
    assert!(hex.starts_with(&start), "{hex}\n{start}");
    assert!(
        hex[84..].starts_with(&fixed.replace(' ', "")),
        "{}",
        &hex[84..]
    );
    let options = "63825363 350102 3604a9fe0101 330400000e10 0104ffffffff \
                   790e20a9fe01010000000000a9fe0101 0304a9fe0101 1a0205aa ff";
    assert!(hex.contains(&options.replace(' ', "")), "{hex}");
}

/// Header checksums are etherparse's.
fn sum_of(header: &[u8]) -> String {
    let (ip, _) = etherparse::Ipv4Header::from_slice(header).expect("an IPv4 header");
    format!("{:04x}", ip.calc_header_checksum())
}

#[test]
fn scapy_reads_what_was_meant() {
    let Some(scapy) = Scapy::find() else {
        return;
    };
    let offer = scapy.reads(&frame_for(&discover(&[(61, &[1, 2, 3])])));
    for option in [
        "('message-type', 2)",
        "('server_id', '169.254.1.1')",
        "('lease_time', 3600)",
        "('subnet_mask', '255.255.255.255')",
        "('router', '169.254.1.1')",
        "('interface-mtu', 1450)",
        "169.254.1.1/32:0.0.0.0",
        "0.0.0.0/0:169.254.1.1",
        "('client_id', b'\\x01\\x02\\x03')",
        "yiaddr=192.168.1.2",
        "checksums ok",
    ] {
        assert!(offer.contains(option), "{option}: {offer}");
    }
}

#[test]
fn each_request_has_its_answer() {
    let asked = |kind, client: Ipv4Addr, options: &[(u8, &[u8])]| {
        let packet = request(kind, client, false, options);
        kind_in(&handle(WORKLOAD, packet).1)
    };
    let (pod, other) = (POD.octets(), [10, 9, 8, 7]);
    let none = Ipv4Addr::UNSPECIFIED;
    let gateway = GATEWAY.octets();
    // Selecting, after a restart, renewing; and an address that is not the workload's.
    assert_eq!(asked(REQUEST, none, &[(50, &pod), (54, &gateway)]), Some(5));
    assert_eq!(asked(REQUEST, none, &[(50, &pod)]), Some(5));
    assert_eq!(asked(REQUEST, POD, &[]), Some(5));
    assert_eq!(
        asked(REQUEST, none, &[(50, &other), (54, &gateway)]),
        Some(6)
    );
    assert_eq!(asked(REQUEST, other.into(), &[]), Some(6));
    assert_eq!(asked(REQUEST, none, &[]), Some(6));
    // Another server was chosen.
    assert_eq!(asked(REQUEST, none, &[(50, &pod), (54, &other)]), None);
    assert_eq!(asked(DISCOVER, none, &[(50, &other)]), Some(2));
    assert_eq!(asked(INFORM, POD, &[]), Some(5));
    assert_eq!(asked(RELEASE, POD, &[]), None);
}

#[test]
fn an_acknowledgement_tells_where_the_workload_is() {
    let (fate, actions) = handle(
        WORKLOAD,
        request(REQUEST, Ipv4Addr::UNSPECIFIED, true, &[(50, &POD.octets())]),
    );
    assert_eq!(fate, Fate::Absorbed);
    assert!(actions.contains(&Action::Tell(Event::WorkloadSeen(
        WORKLOAD,
        POD.into(),
        POD_MAC
    ))));
    let frame = transmitted(&actions).expect("an answer");
    assert_eq!(frame[..6], [0xff; 6], "who asks for a broadcast gets one");
    assert_eq!(frame[30..34], [255; 4]);
}

#[test]
fn nobody_else_is_answered() {
    for port in [UPLINK, PortId(2), PortId(77)] {
        let (fate, actions) = handle(port, discover(&[]));
        assert_eq!(
            (fate, actions),
            (Fate::Dropped(DropReason::NotAnswered), vec![]),
            "{port:?}"
        );
    }
    // A relay's, a server's own, one without the cookie, and cut off anywhere.
    let whole = discover(&[(50, &POD.octets())]);
    let spoilt = |at: usize, byte: u8| {
        let mut packet = whole.clone();
        packet[28 + at] = byte;
        packet[26..28].fill(0);
        packet
    };
    let mut bad = vec![
        spoilt(24, 10),
        spoilt(0, 2),
        spoilt(236, 0),
        spoilt(1, 6),
        spoilt(242, 99),
    ];
    bad.extend((28..whole.len() - 1).map(|length| cut(&whole, length)));
    for packet in bad {
        let (fate, actions) = handle(WORKLOAD, packet.clone());
        assert!(transmitted(&actions).is_none(), "{}", to_hex(&packet));
        assert_eq!(
            fate,
            Fate::Dropped(DropReason::NotAnswered),
            "{}",
            to_hex(&packet)
        );
    }
}

/// A whole packet with less of the message.
fn cut(packet: &[u8], length: usize) -> Vec<u8> {
    let message = packet.get(28..length).unwrap_or_default();
    // The end of the options is one of the bytes that are missing; what is left may be whole.
    let message = if message.len() >= 240 {
        &message[..240]
    } else {
        message
    };
    broadcast(Ipv4Addr::UNSPECIFIED, message)
}

#[test]
fn a_flood_is_answered_in_measure() {
    let mut slow_path = SlowPath::default();
    let mut actions = Vec::new();
    let now = Instant::now();
    for _ in 0..1000 {
        slow_path.handle(
            now,
            &common::snapshot(),
            punted(WORKLOAD, discover(&[])),
            &mut actions,
        );
    }
    assert_eq!(actions.len(), 10);
    // Another workload is answered all the same.
    let before = actions.len();
    slow_path.handle(
        now,
        &common::snapshot(),
        punted(OTHER_WORKLOAD, discover(&[])),
        &mut actions,
    );
    assert_eq!(actions.len(), before + 1);
}

#[test]
fn a_router_advertises_itself_now_and_again() {
    let mut slow_path = SlowPath::default();
    let (mut actions, now) = (Vec::new(), Instant::now());
    let snapshot = common::snapshot();
    let solicitation = router_solicitation(255);
    let packet = |packet: &[u8]| Punted {
        ingress: Some(WORKLOAD),
        punt: Punt::NeighbourDiscovery,
        packet: packet.to_vec(),
    };
    slow_path.handle(now, &snapshot, packet(&solicitation), &mut actions);
    let first = transmitted(&actions).expect("an advertisement");
    let expected = "333300000001 eeeeeeeeeeee 86dd 60000000 0020 3aff fe80000000000000eceeeefffeeeeeee \
                    ff020000000000000000000000000001 8600";
    let hex = to_hex(&first);
    assert!(hex.starts_with(&expected.replace(' ', "")), "{hex}");
    // Hop limit 64, no flags, 9000 s, then the Ethernet address and an MTU of 1450.
    assert!(
        hex.ends_with("4000232800000000000000000101eeeeeeeeeeee05010000000005aa"),
        "{hex}"
    );
    assert!(etherparse::SlicedPacket::from_ethernet(&first).is_ok());

    actions.clear();
    slow_path.tick(now + Duration::from_secs(599), &snapshot, &mut actions);
    assert_eq!(actions, []);
    slow_path.tick(now + Duration::from_secs(600), &snapshot, &mut actions);
    assert_eq!(transmitted(&actions), Some(first.clone()));
    // Asked again and again, it answers all at once after three seconds.
    actions.clear();
    for millis in [100, 1500, 2900] {
        let later = now + Duration::from_secs(600) + Duration::from_millis(millis);
        let fate = slow_path.handle(later, &snapshot, packet(&solicitation), &mut actions);
        assert_eq!(fate, Fate::Absorbed);
        slow_path.tick(later, &snapshot, &mut actions);
        assert_eq!(actions, []);
    }
    slow_path.tick(now + Duration::from_secs(603), &snapshot, &mut actions);
    assert_eq!(transmitted(&actions), Some(first));
    // From a router's far side, or of a workload without IPv6, it is not heeded.
    actions.clear();
    slow_path.handle(
        now,
        &snapshot,
        packet(&router_solicitation(254)),
        &mut actions,
    );
    let mut other = packet(&solicitation);
    other.ingress = Some(OTHER_WORKLOAD);
    slow_path.handle(now, &snapshot, other, &mut actions);
    assert_eq!(actions, []);
}

#[test]
fn real_clients_get_addresses_and_reach_each_other() {
    isolated(|| {
        if !try_sh("busybox udhcpc --help").status.success()
            && try_sh("command -v busybox").stdout.is_empty()
        {
            println!("skipped: no busybox here, whose udhcpc is the client");
            return;
        }
        let _router = node_with_two_pods();
        for (pod, address) in [("pod1", "192.168.1.10"), ("pod2", "192.168.1.11")] {
            ask_for_address(pod);
            let shown = sh(&format!(
                "ip -n {pod} -4 -o addr show dev eth0; ip -n {pod} route"
            ));
            assert!(shown.contains(&format!("{address}/32")), "{shown}");
            assert!(
                shown.contains("default via 169.254.1.1 dev eth0"),
                "{shown}"
            );
            let link = sh(&format!("ip -n {pod} link show eth0"));
            assert!(link.contains("mtu 1450"), "{link}");
        }
        assert!(ping_able("pod1", "192.168.1.11"), "pod1 to pod2");
        // Both: one asks, the other answers by its own.
        for pod in ["pod1", "pod2"] {
            let routes = wait_for("the router's advertisement", || {
                let routes = sh(&format!("ip -n {pod} -6 route show default"));
                routes.contains("proto ra").then_some(routes)
            });
            assert!(
                routes.contains("via fe80::ecee:eeff:feee:eeee dev eth0"),
                "{routes}"
            );
        }
        let mtu = sh("ip netns exec pod1 cat /proc/sys/net/ipv6/conf/eth0/mtu");
        assert_eq!(mtu.trim(), "1450");
        assert!(ping_able("pod1", "fd00::11"), "pod1 to pod2 over IPv6");
    });
}

/// A node whose pods have links and nothing else.
fn node_with_two_pods() -> Router {
    sh("ip netns add n1; ip netns add far; ip -n n1 link set lo up");
    sh("ip -n n1 link add eth0 type veth peer name eth0 netns far; ip -n far link set eth0 up");
    sh("ip -n n1 addr add 10.30.0.11/24 dev eth0; ip -n n1 link set eth0 up");
    for (pod, port) in [("pod1", "cali1"), ("pod2", "cali2")] {
        sh(&format!(
            "ip netns add {pod}; ip -n n1 link add {port} type veth peer name eth0 netns {pod}"
        ));
        sh(&format!(
            "ip -n n1 link set {port} up; ip -n {pod} link set lo up"
        ));
    }
    fs::create_dir_all("/run/n1/datastore").expect("a directory");
    let endpoint = |number: u8| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
             metadata: {{name: n1-lab-pod{number}-eth0, namespace: default}}\n\
             spec: {{node: n1, orchestrator: lab, workload: pod{number}, endpoint: eth0, \
             interfaceName: cali{number}, ipNetworks: [192.168.1.{}/32, \"fd00::1{}/128\"]}}\n---\n",
            9 + number,
            number - 1
        )
    };
    let pools = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: v4}\n\
                 spec: {cidr: 192.168.0.0/16, vxlanMode: Always}\n---\n\
                 apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: v6}\n\
                 spec: {cidr: \"fd00::/64\"}\n---\n";
    let node = |name: &str, address: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {name}}}\n\
             spec: {{bgp: {{ipv4Address: {address}}}}}\n---\n"
        )
    };
    let block = "apiVersion: projectcalico.org/v3\nkind: BlockAffinity\nmetadata: {name: b2}\n\
                 spec: {node: n2, cidr: 192.168.2.0/26, state: confirmed}\n";
    let all = node("n1", "10.30.0.11/24")
        + &node("n2", "10.30.0.12/24")
        + pools
        + &endpoint(1)
        + &endpoint(2)
        + block;
    fs::write("/run/n1/datastore/all.yaml", all).expect("a file");
    let config = "node: n1\nuplink: {interface: eth0}\nworkloads: [{interface: cali1}, {interface: cali2}]\n\
                  host: {tun: tunl0}\ndatastore: {directory: /run/n1/datastore}\n";
    fs::write("/run/n1/node.yaml", config).expect("a file");
    let router = Router::start("n1", Path::new("/run/n1/node.yaml"));
    // Up only now: a kernel asks for routers when its link comes up.
    for pod in ["pod1", "pod2"] {
        sh(&format!(
            "ip netns exec {pod} sysctl -qw net.ipv6.conf.eth0.accept_ra=1 net.ipv6.conf.eth0.accept_dad=0"
        ));
        sh(&format!("ip -n {pod} link set eth0 up"));
    }
    sh(
        "ip -n pod1 addr add fd00::10/128 dev eth0 nodad; ip -n pod2 addr add fd00::11/128 dev eth0 nodad",
    );
    router
}

/// As a distribution's own script would act on the answer.
fn ask_for_address(pod: &str) {
    let script = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\n\
                  ip addr add $ip/32 dev $interface\nip link set $interface mtu $mtu\n\
                  set -- $staticroutes\nwhile [ $# -ge 2 ]; do\n\
                  if [ $2 = 0.0.0.0 ]; then ip route add $1 dev $interface; \
                  else ip route add ${1%0.0.0.0/0}default via $2 dev $interface; fi\nshift 2\ndone\n";
    fs::write(
        "/run/udhcpc",
        script.replace("${1%0.0.0.0/0}default", "default"),
    )
    .expect("a file");
    sh("chmod 755 /run/udhcpc");
    sh(&format!(
        "ip netns exec {pod} busybox udhcpc -i eth0 -f -q -n -t 10 -T 1 -O staticroutes -O mtu -s /run/udhcpc 2>&1"
    ));
}

fn ping_able(pod: &str, to: &str) -> bool {
    try_sh(&format!(
        "ip netns exec {pod} ping -n -c 3 -i 0.2 -W 10 {to}"
    ))
    .status
    .success()
}

// What a client sends.

fn discover(options: &[(u8, &[u8])]) -> Vec<u8> {
    request(DISCOVER, Ipv4Addr::UNSPECIFIED, false, options)
}

fn request(kind: u8, client: Ipv4Addr, to_all: bool, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[4..8].copy_from_slice(&0x3903_3903_u32.to_be_bytes());
    message[10] = if to_all { 0x80 } else { 0 };
    message[12..16].copy_from_slice(&client.octets());
    message[28..34].copy_from_slice(&POD_MAC.0);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend_from_slice(&[53, 1, kind]);
    for (code, value) in options {
        message.extend_from_slice(&[*code, value.len() as u8]);
        message.extend_from_slice(value);
    }
    message.push(255);
    broadcast(client, &message)
}

fn broadcast(from: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ipv4(from.octets(), [255; 4], 64).udp(68, 67);
    let mut packet = Vec::new();
    builder.write(&mut packet, message).expect("a packet");
    packet
}

fn router_solicitation(hop_limit: u8) -> Vec<u8> {
    let source = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    let all_routers = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let builder = etherparse::PacketBuilder::ipv6(source.octets(), all_routers.octets(), hop_limit);
    let mut packet = Vec::new();
    builder
        .icmpv6_raw(133, 0, [0; 4])
        .write(&mut packet, &[])
        .expect("a packet");
    packet
}

// What is answered.

fn punted(port: PortId, packet: Vec<u8>) -> Punted {
    Punted {
        ingress: Some(port),
        punt: Punt::Dhcp,
        packet,
    }
}

fn handle(port: PortId, packet: Vec<u8>) -> (Fate, Vec<Action>) {
    let mut actions = Vec::new();
    let fate = SlowPath::default().handle(
        Instant::now(),
        &common::snapshot(),
        punted(port, packet),
        &mut actions,
    );
    (fate, actions)
}

fn frame_for(packet: &[u8]) -> Vec<u8> {
    transmitted(&handle(WORKLOAD, packet.to_vec()).1).expect("an answer")
}

fn transmitted(actions: &[Action]) -> Option<Vec<u8>> {
    actions.iter().find_map(|action| match action {
        Action::Transmit(port, frame) if *port == WORKLOAD => {
            assert_eq!(frame[6..12], MacAddr::WORKLOAD_GATEWAY.0);
            Some(frame.clone())
        }
        _ => None,
    })
}

/// The message type of the answer.
fn kind_in(actions: &[Action]) -> Option<u8> {
    let frame = transmitted(actions)?;
    let options = &frame[14 + 28 + 240..];
    assert_eq!(options[..2], [53, 1]);
    Some(options[2])
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Scapy;

impl Scapy {
    fn find() -> Option<Self> {
        let found = try_sh("/usr/bin/python3 -c 'import scapy'")
            .status
            .success();
        if !found {
            println!("skipped: no scapy here");
        }
        found.then_some(Self)
    }

    /// What scapy reads in a frame, and whether its checksums are those that scapy would write.
    fn reads(&self, frame: &[u8]) -> String {
        let script = "import sys\nfrom scapy.all import Ether, IP, UDP, BOOTP, DHCP, raw\n\
            p = Ether(bytes.fromhex(sys.stdin.read()))\nq = p.copy()\ndel q[IP].chksum\ndel q[UDP].chksum\n\
            print('yiaddr=' + p[BOOTP].yiaddr, p[DHCP].options,\n\
            'checksums ok' if raw(q) == raw(p) else 'checksums differ')\n";
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut input = child.stdin.take().expect("stdin");
        input.write_all(to_hex(frame).as_bytes()).expect("write");
        drop(input);
        let output = child.wait_with_output().expect("python3");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
