//! Linux' own vxlan device at the other end, set up as Calico does.

use etherparse::{NetSlice, SlicedPacket, TransportSlice, UdpSlice};

use super::world::*;

const VXLAN: &str = "vxlanMode: Always";

#[test]
fn vxlan_over_ipv4_without_udp_checksums() {
    over_ipv4("noudpcsum");
}

#[test]
fn vxlan_over_ipv4_with_udp_checksums_from_the_kernel() {
    over_ipv4("udpcsum");
}

#[test]
fn vxlan_over_ipv6_with_udp_checksums() {
    over_ipv6("", "");
}

#[test]
fn vxlan_over_ipv6_without_udp_checksums() {
    over_ipv6(
        "udp6zerocsumtx udp6zerocsumrx",
        "tunnel: {udpZeroChecksumV6: true}",
    );
}

#[test]
fn zero_checksums_over_ipv6_are_refused_by_default() {
    run(|world| {
        world.cluster(VXLAN, VXLAN);
        far_vxlan(true, "udp6zerocsumtx");
        world.start("");
        assert!(!is_answered("far", POD_V6));
        until("it is counted", || world.drops("udp_checksum") > 0);
    });
}

/// Who tunnels IPv6 over IPv4, as Calico does not, is heard as well; the answers go over IPv6.
#[test]
fn ipv6_that_comes_over_ipv4_is_taken() {
    run(|world| {
        world.cluster(VXLAN, VXLAN);
        far_vxlan(false, "");
        far_vxlan(true, "");
        inside(
            "far",
            "ip neigh add fd00:65:1::1 lladdr 66:00:00:00:04:01 dev vxlan.calico nud permanent;
             ip route del fd00:65:1::/122; ip route add fd00:65:1::/122 via fd00:65:1::1 dev vxlan.calico onlink src fd00:65:2::10",
        );
        world.start("fence: {reversePath: strict}");
        let capture = Capture::start("far", "udp port 4789");
        ping("far", POD_V6, "");
        let frames = capture.stop();
        let over = |version: u8| frames.iter().any(|frame| frame[14] >> 4 == version);
        assert!(over(4) && over(6));
    });
}

#[test]
fn bare_ipv6_and_neighbour_discovery() {
    run(|world| {
        world.cluster(VXLAN, "vxlanMode: Never");
        inside(
            "far",
            "ip route add fd00:65:1::/122 via fd00:30::11 dev eth0 src fd00:65:2::10",
        );
        world.start("");
        ping("pod", FAR_POD_V6, "");
        ping("far", POD_V6, "");
        tcp("pod", "far", FAR_POD_V6);
        tcp("far", "pod", POD_V6);
        let gateway = inside("pod", "ip -6 neigh show fe80::ecee:eeff:feee:eeee dev eth0");
        assert!(gateway.contains("ee:ee:ee:ee:ee:ee"), "{gateway}");
        // The gateway itself, and the node, by the same way.
        ping("pod", "fe80::ecee:eeff:feee:eeee%eth0", "-I fd00:65:1::10");
        ping("pod", "fd00:30::11", "");
    });
}

/// Workload links of 1500 bytes, a link of 1400 in the middle: near, underpass learns the path MTU from the
/// router before it and tells the pod; far, the kernel lets the router there fragment the tunnel packets,
/// which underpass puts together.
#[test]
fn a_narrow_link_in_the_middle_is_learnt_and_told() {
    run(|world| {
        world.cluster(VXLAN, VXLAN);
        narrow_middle(1400);
        far_vxlan(false, "noudpcsum");
        world.start("");
        tcp("pod", "far", FAR_POD);
        tcp("far", "pod", POD);
        // 1350 bytes with IP and ICMP headers, and 50 around them.
        ping("pod", FAR_POD, "-M do -s 1322");
        let line = format!("ping -n -c 2 -i 0.2 -W 1 -M do -s 1323 {FAR_POD}");
        let told = within("pod", || try_sh(&line));
        let told = String::from_utf8_lossy(&told.stdout).into_owned()
            + &String::from_utf8_lossy(&told.stderr);
        assert!(
            told.contains("mtu = 1350") || told.contains("mtu=1350"),
            "{told}"
        );
        // What the far kernel sends is larger than the link, and comes in pieces.
        let capture = Capture::start("far", "udp port 4789 or (ip[6:2] & 0x3fff != 0)");
        ping("far", POD, "-s 1400");
        assert!(capture.stop().iter().any(|frame| frame.len() > 1400 + 50));
    });
}

/// The same over IPv6, where no router fragments: each end learns of the link, and tells who sends.
#[test]
fn a_narrow_link_in_the_middle_of_an_ipv6_underlay_is_learnt_and_told() {
    run(|world| {
        world.cluster(VXLAN, VXLAN);
        narrow_middle(1400);
        narrow_middle_takes_ipv6();
        far_vxlan(true, "");
        world.start("");
        tcp("pod", "far", FAR_POD_V6);
        tcp("far", "pod", POD_V6);
        // 1330 bytes with IPv6 and ICMPv6 headers, and 70 around them.
        ping("pod", FAR_POD_V6, "-M do -s 1282");
        let learnt = inside("pod", &format!("ip -6 route get {FAR_POD_V6}"));
        assert!(learnt.contains("mtu 1330"), "{learnt}");
        assert_eq!(world.drops("invalid_quote"), 0);
    });
}

fn over_ipv4(checksums: &str) {
    run(|world| {
        world.cluster(VXLAN, VXLAN);
        far_vxlan(false, checksums);
        world.start("");
        talk(POD, FAR_POD);
        for Seen { frame, class } in captured(FAR_POD, POD) {
            let (outer, udp) = outer(&frame);
            let Some(NetSlice::Ipv4(ip)) = outer else {
                panic!("not over IPv4");
            };
            let header = ip.header();
            let Some(class) = class else {
                assert_eq!(udp.checksum() != 0, checksums == "udpcsum");
                continue;
            };
            assert_eq!(header.ttl(), 64);
            assert_eq!(header.dcp().value() << 2 | header.ecn().value(), class);
            assert_eq!(udp.checksum(), 0, "none over IPv4");
        }
    });
}

fn over_ipv6(words: &str, configuration: &str) {
    run(|world| {
        world.cluster(VXLAN, VXLAN);
        far_vxlan(true, words);
        world.start(configuration);
        talk(POD_V6, FAR_POD_V6);
        for Seen { frame, class } in captured(FAR_POD_V6, POD_V6) {
            let (outer, udp) = outer(&frame);
            let Some(NetSlice::Ipv6(ip)) = outer else {
                panic!("not over IPv6");
            };
            let header = ip.header().to_header();
            assert_eq!(udp.checksum() == 0, !words.is_empty());
            if udp.checksum() != 0 {
                let right = udp.to_header().calc_checksum_ipv6(&header, udp.payload());
                assert_eq!(udp.checksum(), right.expect("a checksum"));
            }
            if let Some(class) = class {
                assert_eq!((header.hop_limit, header.traffic_class), (64, class));
                assert_ne!(header.flow_label.value(), 0);
            }
        }
    });
}

/// Pings, all of them answered once both ends know their neighbours, and TCP; both ways.
fn talk(pod: &str, far: &str) {
    ping("pod", far, "");
    ping("far", pod, "");
    ping_all("pod", far, "");
    ping_all("far", pod, "");
    tcp("pod", "far", far);
    tcp("far", "pod", pod);
}

/// A tunnel packet.
struct Seen {
    frame: Vec<u8>,
    /// The TOS or traffic class that it must have; none for what the far kernel sent.
    class: Option<u8>,
}

/// Pings from the pod, marked; the tunnel packets that this makes.
fn captured(far: &str, pod: &str) -> Vec<Seen> {
    let mut seen = Vec::new();
    // AF21 with ECT(0), CE, and nothing.
    for class in [0x4a, 0x03, 0x00] {
        let capture = Capture::start("far", "udp port 4789");
        ping_all("pod", far, &format!("-Q {class} -t 33"));
        for frame in capture.stop() {
            let sent = is_from_pod(&frame, pod, class);
            seen.push(Seen {
                frame,
                class: sent.then_some(class),
            });
        }
    }
    let sent = seen.iter().filter(|seen| seen.class.is_some()).count();
    assert!(sent >= 9 && seen.len() >= 18, "{sent} of {}", seen.len());
    seen
}

/// Whether the inner packet is from the pod; it must be as the pod sent it, but for one hop.
fn is_from_pod(frame: &[u8], pod: &str, class: u8) -> bool {
    let (_, udp) = outer(frame);
    let inner = SlicedPacket::from_ethernet(&udp.payload()[8..]).expect("inner");
    let (source, hops, found) = match inner.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let tos = header.dcp().value() << 2 | header.ecn().value();
            (header.source_addr().to_string(), header.ttl(), tos)
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let source = header.source_addr().to_string();
            (source, header.hop_limit(), header.traffic_class())
        }
        other => panic!("{other:?}"),
    };
    if source != pod {
        return false;
    }
    assert_eq!((hops, found), (32, class), "one hop less than 33");
    assert!(udp.source_port() >= 49152);
    true
}

/// The outer headers, which must be VXLAN's.
fn outer(frame: &[u8]) -> (Option<NetSlice<'_>>, UdpSlice<'_>) {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a packet");
    let Some(TransportSlice::Udp(udp)) = sliced.transport else {
        panic!("not UDP");
    };
    assert_eq!(udp.destination_port(), 4789);
    assert_eq!(udp.payload()[..8], [8, 0, 0, 0, 0, 0x10, 0, 0]);
    (sliced.net, udp)
}
