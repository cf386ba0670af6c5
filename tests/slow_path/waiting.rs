//! Packets that wait for their next hop's Ethernet address.

use super::*;

#[test]
fn packets_wait_for_their_next_hop_and_go_in_order_with_one_hop_less() {
    let mut core = Core::new();
    let packets: Vec<_> = (0..5).map(|n| udp(POD, FAR_IPIP, 64, &[n])).collect();
    let (fate, actions) = core.wait(WORKLOAD, UNKNOWN, packets[0].clone());
    assert_eq!(fate, Fate::Waits);
    assert_eq!(actions, [Action::Tell(Event::Unresolved(UNKNOWN))]);
    for packet in &packets[1..] {
        let result = core.wait(WORKLOAD, UNKNOWN, packet.clone());
        assert_eq!(result, (Fate::Waits, vec![]), "it was asked for already");
    }
    core.now += Duration::from_millis(100);
    assert_eq!(core.tick(), (vec![], vec![]));

    core.resolve(UNKNOWN);
    let (fates, actions) = core.tick();
    assert_eq!(fates, [Fate::Absorbed; 5]);
    let expected: Vec<_> = packets.iter().map(|packet| hop_less(packet)).collect();
    assert_eq!(originated(&actions), expected);
    assert_eq!(core.tick(), (vec![], vec![]), "each goes once");
}

#[test]
fn a_hop_is_charged_to_what_the_host_did_not_send() {
    let mut core = Core::new();
    let from_host = udp(NODE, FAR_IPIP, 1, b"");
    assert_eq!(core.wait(HOST, UNKNOWN, from_host.clone()).0, Fate::Waits);
    let v6 = udp6(POD_V6, FAR_VXLAN_V6, 64, b"");
    assert_eq!(core.wait(WORKLOAD, UNKNOWN, v6.clone()).0, Fate::Waits);
    core.resolve(UNKNOWN);
    let (_, actions) = core.tick();
    let sent = originated(&actions);
    assert_eq!(sent[0], from_host);
    assert_eq!((sent[1][7], &sent[1][8..]), (63, &v6[8..]));
}

#[test]
fn who_waits_too_long_is_dropped_and_the_next_hop_is_asked_for_each_second() {
    let mut core = Core::new();
    let start = core.now;
    let packet = udp(POD, FAR_IPIP, 64, b"first");
    core.wait(WORKLOAD, UNKNOWN, packet.clone());
    let (mut asked, mut told) = (1, Vec::new());
    let mut ended = Vec::new();
    while core.now < start + Duration::from_secs(5) {
        core.now += Duration::from_millis(5);
        let (fates, actions) = core.tick();
        ended.extend(fates.into_iter().map(|fate| (core.now - start, fate)));
        let ask = Action::Tell(Event::Unresolved(UNKNOWN));
        asked += actions.iter().filter(|action| **action == ask).count();
        told.extend(actions.into_iter().filter(|action| *action != ask));
    }
    let expired = Fate::Dropped(DropReason::NeighbourUnresolved);
    assert_eq!(ended, [(Duration::from_secs(3), expired)]);
    assert_eq!(asked, 3, "as the kernel asks: three times, a second apart");
    let [Action::Originate(error)] = &told[..] else {
        panic!("{told:?}");
    };
    let (ip, icmp, quoted) = icmp_of(error);
    assert_eq!((ip.source, ip.destination), (NODE.octets(), POD.octets()));
    let host = icmpv4::DestUnreachableHeader::Host;
    assert_eq!(icmp.icmp_type, Icmpv4Type::DestinationUnreachable(host));
    assert_eq!(quoted, hop_less(&packet));
    let (_, actions) = core.wait(WORKLOAD, UNKNOWN, udp(POD, FAR_IPIP, 64, b"second"));
    assert_eq!(actions, [Action::Tell(Event::Unresolved(UNKNOWN))]);
}

/// RFC 4861 section 7.2.2; within the bounds that other errors have.
#[test]
fn the_senders_of_what_waited_in_vain_are_told_within_bounds() {
    let mut core = Core::new();
    for _ in 0..50 {
        core.wait(WORKLOAD, UNKNOWN, udp6(POD_V6, FAR_VXLAN_V6, 64, b"x"));
    }
    core.wait(HOST, UNKNOWN, udp(NODE, FAR_IPIP, 64, b"the host's own"));
    let error = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Host);
    let about = written(
        PacketBuilder::ipv4(POD.octets(), FAR_IPIP.octets(), 64).icmpv4(error),
        b"",
    );
    core.wait(WORKLOAD, UNKNOWN, about);
    core.now += Duration::from_secs(3);
    let (fates, actions) = core.tick();
    let expired = Fate::Dropped(DropReason::NeighbourUnresolved);
    assert_eq!(fates, vec![expired; 52]);
    let told = originated(&actions);
    let (to_host, to_pod) = told.split_last().expect("somebody is told");
    assert_eq!(to_pod.len(), 10);
    let address = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Address);
    assert!(to_pod.iter().all(|packet| icmpv6_type(packet) == address));
    assert_eq!(icmp_of(to_host).0.destination, NODE.octets());
    assert_eq!(core.tick(), (vec![], vec![]), "once");
}

#[test]
fn one_next_hop_does_not_wait_for_another() {
    let mut core = Core::new();
    let other = NextHop(4);
    core.snapshot.adjacencies[4] = Adjacency::Unresolved;
    let (one, two) = (udp(POD, FAR_IPIP, 64, b"1"), udp(POD, FAR_IPIP, 64, b"2"));
    core.wait(WORKLOAD, UNKNOWN, one.clone());
    let (_, actions) = core.wait(WORKLOAD, other, two.clone());
    assert_eq!(actions, [Action::Tell(Event::Unresolved(other))]);
    core.resolve(other);
    assert_eq!(originated(&core.tick().1), [hop_less(&two)]);
    core.snapshot.adjacencies[9] = Adjacency::Unreachable;
    assert_eq!(
        originated(&core.tick().1),
        [hop_less(&one)],
        "it is routed again and finds out"
    );
}

#[test]
fn only_so_many_wait_and_all_are_counted_at_the_end() {
    let mut core = Core::new();
    let fates: Vec<Fate> = (0..1000)
        .map(|_| core.wait(WORKLOAD, UNKNOWN, udp(POD, FAR_IPIP, 64, b"")).0)
        .collect();
    let waiting = fates.iter().filter(|fate| **fate == Fate::Waits).count();
    let refused = Fate::Dropped(DropReason::NeighbourUnresolved);
    let dropped = fates.iter().filter(|fate| **fate == refused).count();
    assert_eq!((waiting, dropped), (128, 872));
    // Others wait for their next hops all the same, and each next hop's first when all room is taken.
    let mut asked = 0;
    for hop in 10..30 {
        let hop = NextHop(hop);
        core.snapshot.adjacencies.resize(30, Adjacency::Unresolved);
        for nth in 0..128 {
            let (fate, actions) = core.wait(WORKLOAD, hop, udp(POD, FAR_IPIP, 64, b""));
            asked += actions.len();
            assert!(fate == Fate::Waits || nth > 0, "{hop:?}");
        }
    }
    assert_eq!(asked, 20, "once each, however many wait");
    let given_up = core.core.stop();
    assert_eq!(
        given_up,
        vec![Fate::Dropped(DropReason::Shutdown); 512 + 17]
    );
    assert!(core.core.stop().is_empty());
}

#[test]
fn a_packet_at_its_last_hop_does_not_wait() {
    let result = Core::new().wait(WORKLOAD, UNKNOWN, udp(POD, FAR_IPIP, 1, b""));
    assert_eq!(result, (Fate::Dropped(DropReason::TtlExpired), vec![]));
}
