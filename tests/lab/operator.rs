//! What an operator sees: routes that change with the mode, captures, hops of a traceroute.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etherparse::{Icmpv4Type, NetSlice, SlicedPacket, TransportSlice, icmpv4};
use pcap_file::pcapng::{Block, PcapNgReader};
use socket2::{Domain, Protocol, Socket, Type};
use underpass::observe::report::{Encapsulation, RouteRow};

use super::netns::{PATIENCE, UNDERPASS, ask, inside, isolated, sh, try_sh, udp_socket};
use super::support::*;

#[test]
fn routes_follow_the_mode() {
    isolated(|| {
        let lab = Lab::up("ipip");
        for (mode, same_subnet, other_subnet) in [
            ("ipip", Encapsulation::Ipip, Encapsulation::Ipip),
            ("direct", Encapsulation::None, Encapsulation::None),
            ("vxlan", Encapsulation::Vxlan, Encapsulation::Vxlan),
            ("ipip-cross", Encapsulation::None, Encapsulation::Ipip),
            ("vxlan-cross", Encapsulation::None, Encapsulation::Vxlan),
        ] {
            lab.script(&format!("mode {mode}"));
            let shown = ask("routes", &socket("worker1"));
            let rows: Vec<RouteRow> = serde_json::from_value(shown).expect("routes");
            let near = check_route(&rows, "192.168.2.0/26", "worker2", WORKER2, same_subnet);
            assert_eq!(near.next_hop, Some(IpAddr::V4(WORKER2)), "{mode}");
            let far = check_route(&rows, "192.168.3.0/26", "worker3", WORKER3, other_subnet);
            let router = IpAddr::from([10, 30, 0, 254]);
            assert_eq!(far.next_hop, Some(router), "{mode}");
            check_table(&rows);
        }
    });
}

#[test]
fn a_watched_table_shows_tunl0_giving_way_to_eth0() {
    isolated(|| {
        let lab = Lab::up("ipip");
        let mut watch = Command::new(UNDERPASS)
            .args([
                "routes",
                "--node",
                "worker1",
                "--watch",
                "--interval",
                "0.05",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("underpass routes");
        let mut lines = BufReader::new(watch.stdout.take().expect("its output")).lines();
        let mut interface = || {
            let line = lines.by_ref().map(|line| line.expect("a line"));
            let mut line = line.filter(|line| line.starts_with("192.168.2.0/26"));
            let line = line.next().expect("the route once more");
            let words: Vec<_> = line.split_whitespace().collect();
            words[4].to_owned()
        };
        assert_eq!(interface(), "tunl0");
        lab.script("mode direct");
        assert_eq!(interface(), "eth0");
        lab.script("mode vxlan");
        assert_eq!(interface(), "vxlan.calico");
        watch.kill().expect("kill");
        watch.wait().expect("wait");
    });
}

#[test]
fn a_capture_holds_outer_and_inner_headers() {
    isolated(|| {
        let lab = Lab::up("ipip");
        for (mode, dissected) in [
            ("ipip", "eth:ethertype:ip:ip:icmp:data"),
            (
                "vxlan",
                "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:icmp:data",
            ),
            ("direct", "eth:ethertype:ip:icmp:data"),
        ] {
            lab.script(&format!("mode {mode}"));
            let file = format!("/run/{mode}.pcapng");
            let mut capture = capture(&["--port", "eth0", "--count", "6", "--write", &file]);
            assert!(pings("pod1", POD2), "{mode}");
            assert!(capture.wait().expect("wait").success(), "{mode}");
            check_pcapng(&file, mode);
            check_with_tshark(&file, dissected);
        }
    });
}

#[test]
fn a_capture_of_a_workload_port_and_of_the_host_port_shows_bare_packets() {
    isolated(|| {
        let _lab = Lab::up("ipip");
        for (port, from, file) in [
            ("cali1", "pod1", "/run/workload.pcapng"),
            ("tunl0", "worker1", "/run/host.pcapng"),
        ] {
            // The workload learns its gateway's Ethernet address before.
            assert!(pings(from, POD2));
            let mut capture = capture(&["--port", port, "--count", "6", "--write", file]);
            assert!(pings(from, POD2));
            assert!(capture.wait().expect("wait").success());
            let packets = packets_in(file);
            assert_eq!(packets.len(), 6, "{port}");
            for packet in packets {
                // The node asks where its workload is, every five seconds.
                if port == "cali1" && packet[12..14] == [8, 6] {
                    continue;
                }
                let sliced = match port {
                    "tunl0" => SlicedPacket::from_ip(&packet),
                    _ => SlicedPacket::from_ethernet(&packet),
                };
                let sliced = sliced.expect("a packet");
                assert!(
                    matches!(sliced.transport, Some(TransportSlice::Icmpv4(_))),
                    "{port}"
                );
            }
        }
    });
}

/// Each router on the way answers when the TTL ends there; the fabric is one in direct mode alone.
#[test]
fn a_traceroute_names_every_router() {
    isolated(|| {
        let lab = Lab::up("ipip");
        // worker3 does not know yet where pod3 is, which is no reason not to answer.
        assert_eq!(trace("pod1", POD3), [WORKER1, WORKER3]);
        lab.script("mode vxlan");
        assert_eq!(trace("pod1", POD3), [WORKER1, WORKER3]);
        lab.script("mode direct");
        let fabric = Ipv4Addr::new(10, 30, 0, 254);
        assert_eq!(trace("pod1", POD3), [WORKER1, fabric, WORKER3]);
        assert_eq!(trace("pod1", POD2), [WORKER1, WORKER2]);
    });
}

fn check_route<'a>(
    rows: &'a [RouteRow],
    block: &str,
    node: &str,
    address: Ipv4Addr,
    encapsulation: Encapsulation,
) -> &'a RouteRow {
    let block = block.parse().expect("a prefix");
    let found = rows.iter().find(|row| row.destination == block);
    let row = found.unwrap_or_else(|| panic!("no route to {block}: {rows:?}"));
    let (interface, mtu) = match encapsulation {
        Encapsulation::None => ("eth0", 1500),
        Encapsulation::Ipip => ("tunl0", 1480),
        Encapsulation::Vxlan => ("vxlan.calico", 1450),
    };
    assert_eq!(row.encapsulation, Some(encapsulation), "{row:?}");
    assert_eq!(row.interface.as_deref(), Some(interface), "{row:?}");
    assert_eq!(row.mtu, Some(mtu), "{row:?}");
    assert_eq!(row.node.as_deref(), Some(node), "{row:?}");
    let far_end = (encapsulation != Encapsulation::None).then_some(IpAddr::V4(address));
    assert_eq!(row.far_end, far_end, "{row:?}");
    row
}

/// The table for people says of each destination what the JSON does.
fn check_table(rows: &[RouteRow]) {
    let text = sh(&format!("{UNDERPASS} routes --node worker1"));
    let mut lines = text.lines();
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with("DESTINATION")),
        "{text}"
    );
    for (line, row) in lines.zip(rows) {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[0], row.destination.to_string());
        let interface = row.interface.as_deref().unwrap_or("-");
        assert_eq!(words[4], interface, "{line}");
    }
    assert_eq!(text.lines().count(), 1 + rows.len());
}

/// Starts `underpass capture` on worker1 and waits until it captures.
fn capture(arguments: &[&str]) -> Child {
    let mut child = Command::new(UNDERPASS)
        .args(["capture", "--node", "worker1"])
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("underpass capture");
    let errors = child.stderr.take().expect("its standard error");
    let mut lines = BufReader::new(errors).lines();
    let first = lines.next().expect("a line").expect("a line");
    assert!(first.starts_with("capturing from"), "{first}");
    std::thread::spawn(move || lines.for_each(drop));
    child
}

/// Three requests and three replies, the requests with all headers of the mode.
fn check_pcapng(file: &str, mode: &str) {
    let packets = packets_in(file);
    let mut requests = 0;
    for packet in &packets {
        let sliced = SlicedPacket::from_ethernet(packet).expect("a frame");
        let Some(NetSlice::Ipv4(outer)) = &sliced.net else {
            panic!("{mode}: {packet:02x?}");
        };
        let inner = match mode {
            "ipip" => outer.payload().payload.to_vec(),
            "vxlan" => packet[14 + 20 + 8 + 8 + 14..].to_vec(),
            _ => packet[14..].to_vec(),
        };
        let inner = SlicedPacket::from_ip(&inner).expect("an inner packet");
        let Some(NetSlice::Ipv4(header)) = &inner.net else {
            panic!("{mode}: {packet:02x?}");
        };
        let header = header.header();
        let expected = if mode == "direct" {
            (POD1, POD2)
        } else {
            (WORKER1, WORKER2)
        };
        let outer = (
            outer.header().source_addr(),
            outer.header().destination_addr(),
        );
        if (header.source_addr(), header.destination_addr()) == (POD1, POD2) {
            requests += 1;
            assert_eq!(outer, expected, "{mode}");
        }
    }
    assert_eq!((packets.len(), requests), (6, 3), "{mode}");
}

fn packets_in(file: &str) -> Vec<Vec<u8>> {
    let file = std::fs::File::open(file).expect("the capture");
    let mut reader = PcapNgReader::new(file).expect("pcapng");
    let mut packets = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.expect("a block") {
            assert_eq!(packet.original_len as usize, packet.data.len());
            packets.push(packet.data.into_owned());
        }
    }
    packets
}

/// Wireshark's own reader finds the same protocols and nothing wrong.
fn check_with_tshark(file: &str, dissected: &str) {
    if !try_sh("command -v tshark").status.success() {
        println!("tshark is not installed: {file} is not shown to it");
        return;
    }
    let text = sh(&format!(
        "tshark -r {file} -T fields -e frame.protocols 2>/dev/null"
    ));
    let protocols: Vec<_> = text.lines().collect();
    assert_eq!(protocols, [dissected; 6]);
    let filter = "_ws.malformed or ip.checksum.status == 0 or icmp.checksum.status == 0";
    let wrong = sh(&format!(
        "tshark -r {file} -o ip.check_checksum:TRUE -Y '{filter}' 2>/dev/null"
    ));
    assert_eq!(wrong, "");
}

/// The routers that say that the TTL ended with them, in order, until the destination itself says
/// that nobody listens there.
fn trace(from: &str, to: Ipv4Addr) -> Vec<Ipv4Addr> {
    let errors = inside(&space(from), || {
        let raw = Type::from(libc::SOCK_RAW);
        Socket::new(Domain::IPV4, raw, Some(Protocol::ICMPV4)).expect("raw socket")
    });
    errors.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let probes = udp_socket(&space(from), 0);
    let mut routers = Vec::new();
    for ttl in 1..8 {
        probes.set_ttl(ttl).expect("TTL");
        // What an earlier port-unreachable left on the socket ends one call.
        let target = SocketAddrV4::new(to, 33434 + ttl as u16);
        while probes.send_to(b"probe", target).is_err() {}
        // Under the rate limit of either end, whatever came before.
        std::thread::sleep(Duration::from_millis(100));
        match receive_error(&errors, target) {
            (router, true) => routers.push(router),
            (destination, false) => {
                assert_eq!(destination, to);
                return routers;
            }
        }
    }
    panic!("{to} did not answer; routers: {routers:?}");
}

/// Who sent the error about the probe to `target`, and whether it is time exceeded.
fn receive_error(socket: &Socket, target: SocketAddrV4) -> (Ipv4Addr, bool) {
    use std::io::Read;
    let mut buffer = [0; 1500];
    loop {
        let length = { socket }.read(&mut buffer);
        let length = length.unwrap_or_else(|error| panic!("no ICMP error about {target}: {error}"));
        let sliced = SlicedPacket::from_ip(&buffer[..length]).expect("an ICMP packet");
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) =
            (&sliced.net, &sliced.transport)
        else {
            continue;
        };
        let exceeded = match icmp.icmp_type() {
            Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit) => true,
            Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port) => false,
            _ => continue,
        };
        // The error quotes the probe: its IPv4 header and the ports behind it (RFC 792).
        let quoted = icmp.payload();
        let destination = Ipv4Addr::new(quoted[16], quoted[17], quoted[18], quoted[19]);
        let port = u16::from_be_bytes([quoted[22], quoted[23]]);
        if SocketAddrV4::new(destination, port) == target {
            return (ip.header().source_addr(), exceeded);
        }
    }
}
