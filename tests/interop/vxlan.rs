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
        assert!(world.drops("udp_checksum") > 0, "{}", world.log());
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

fn over_ipv4(checksums: &str) {
    run(|world| {
        world.cluster(VXLAN, VXLAN);
        far_vxlan(false, checksums);
        world.start("");
        talk(POD, FAR_POD);
        for (outer, class, sent, udp) in captured(false) {
            let NetSlice::Ipv4(outer) = outer.net.as_ref().expect("outer") else {
                panic!("not over IPv4");
            };
            let header = outer.header();
            assert_eq!(header.ttl(), 64);
            assert_eq!(header.dcp().value() << 2 | header.ecn().value(), class);
            if sent {
                assert_eq!(udp.checksum(), 0, "none over IPv4");
                assert!(udp.source_port() >= 49152);
            } else {
                assert_eq!(udp.checksum() != 0, checksums == "udpcsum");
            }
        }
    });
}

fn over_ipv6(words: &str, configuration: &str) {
    run(|world| {
        world.cluster(VXLAN, VXLAN);
        far_vxlan(true, words);
        world.start(configuration);
        talk(POD_V6, FAR_POD_V6);
        for (outer, class, sent, udp) in captured(true) {
            let NetSlice::Ipv6(outer) = outer.net.as_ref().expect("outer") else {
                panic!("not over IPv6");
            };
            let header = outer.header().to_header();
            assert_eq!(header.traffic_class, class);
            assert_eq!(udp.checksum() == 0, !words.is_empty());
            if udp.checksum() != 0 {
                let right = udp.to_header().calc_checksum_ipv6(&header, udp.payload());
                assert_eq!(udp.checksum(), right.expect("a checksum"), "sent: {sent}");
            }
            if sent {
                assert_eq!(header.hop_limit, 64);
                assert_ne!(header.flow_label.value(), 0);
                assert!(udp.source_port() >= 49152);
            }
        }
    });
}

/// Pings and TCP, both ways.
fn talk(pod: &str, far: &str) {
    ping("pod", far, "");
    ping("far", pod, "");
    tcp("pod", "far", far);
    tcp("far", "pod", pod);
}

/// Marked pings from the pod; what is seen of each tunnel packet: the outer headers, the TOS or
/// traffic class that it must have, and whether underpass sent it.
fn captured(ipv6: bool) -> Vec<(SlicedPacket<'static>, u8, bool, UdpSlice<'static>)> {
    let far = if ipv6 { FAR_POD_V6 } else { FAR_POD };
    let mut seen = Vec::new();
    // AF21 with ECT(0), CE, and nothing.
    for class in [0x4a, 0x03, 0x00] {
        let capture = Capture::start("far", "udp port 4789");
        ping("pod", far, &format!("-Q {class} -t 33"));
        let frames = capture.stop();
        assert!(frames.len() >= 6, "{} tunnel packets", frames.len());
        for frame in frames {
            let frame: &'static [u8] = frame.leak();
            let outer = SlicedPacket::from_ethernet(frame).expect("a packet");
            let Some(TransportSlice::Udp(udp)) = outer.transport.clone() else {
                panic!("not UDP");
            };
            assert_eq!(udp.destination_port(), 4789);
            assert_eq!(udp.payload()[..8], [8, 0, 0, 0, 0, 0x10, 0, 0]);
            let sent = seen_inner(&udp, ipv6, class);
            // Linux' vxlan device sends with TOS 0 unless told to inherit.
            seen.push((
                outer,
                if sent { class } else { seen_class(frame) },
                sent,
                udp,
            ));
        }
    }
    assert!(seen.iter().filter(|(_, _, sent, _)| *sent).count() >= 9);
    seen
}

/// Checks the inner packet; whether it came from the pod.
fn seen_inner(udp: &UdpSlice<'_>, ipv6: bool, class: u8) -> bool {
    let inner = SlicedPacket::from_ethernet(&udp.payload()[8..]).expect("inner");
    match (inner.net, ipv6) {
        (Some(NetSlice::Ipv4(ip)), false) => {
            let header = ip.header();
            let sent = header.source_addr().to_string() == POD;
            if sent {
                assert_eq!(header.ttl(), 32, "one hop less than 33");
                assert_eq!(header.dcp().value() << 2 | header.ecn().value(), class);
            }
            sent
        }
        (Some(NetSlice::Ipv6(ip)), true) => {
            let header = ip.header();
            let sent = header.source_addr().to_string() == POD_V6;
            if sent {
                assert_eq!(header.hop_limit(), 32, "one hop less than 33");
                assert_eq!(header.traffic_class(), class);
            }
            sent
        }
        (other, _) => panic!("{other:?}"),
    }
}

fn seen_class(frame: &[u8]) -> u8 {
    match frame[14] >> 4 {
        4 => frame[15],
        _ => frame[14] << 4 | frame[15] >> 4,
    }
}
