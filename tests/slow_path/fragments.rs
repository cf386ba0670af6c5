//! What is too large for its way out: packets that may be cut, and the router's own errors.

use super::*;

#[test]
fn a_packet_that_may_be_cut_is_cut_and_comes_together_again() {
    for (ingress, ttl) in [(WORKLOAD, 63), (UPLINK, 63), (HOST, 64)] {
        for (length, mtu) in [(1460, 1480), (1480, 1450), (4000, 576), (1253, 1280)] {
            let payload: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let mut packet = udp(POD, FAR_IPIP, 64, &payload);
            rewrite(&mut packet, |header| {
                header.dont_fragment = false;
                header.identification = 0x1234;
            });
            let punt = Punt::TooBig(Mtu(mtu));
            let (fate, actions) = Core::new().handle(ingress, punt, packet.clone());
            assert_eq!(fate, Fate::Absorbed);
            let fragments = originated(&actions);
            assert!(fragments.len() > 1 && fragments.len() == actions.len());
            for fragment in &fragments {
                assert!(fragment.len() <= usize::from(mtu));
                let (header, _) = Ipv4Header::from_slice(fragment).unwrap();
                assert_eq!((header.time_to_live, header.identification), (ttl, 0x1234));
                assert_eq!(header.header_checksum, header.calc_header_checksum());
            }
            assert_eq!(reassembled(&fragments), packet[20..]);
        }
    }
}

/// What is a fragment already, and not the last, stays one of several: the cut pieces lie where it lay.
#[test]
fn a_fragment_is_cut_further_and_all_comes_together_again() {
    let payload: Vec<u8> = (0..2900).map(|n| (n % 251) as u8).collect();
    let mut whole = udp(POD, FAR_IPIP, 64, &payload);
    rewrite(&mut whole, |header| header.dont_fragment = false);
    let cut = |packet: Vec<u8>, mtu| -> Vec<Vec<u8>> {
        let (fate, actions) = Core::new().handle(WORKLOAD, Punt::TooBig(Mtu(mtu)), packet);
        assert_eq!(fate, Fate::Absorbed);
        originated(&actions)
            .into_iter()
            .map(<[u8]>::to_vec)
            .collect()
    };
    let first_cut = cut(whole.clone(), 1500);
    assert_eq!(first_cut.len(), 2);
    let pieces: Vec<_> = first_cut
        .into_iter()
        .flat_map(|part| cut(part, 576))
        .collect();
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    assert_eq!(reassembled(&pieces), whole[20..]);
}

#[test]
fn a_packet_at_its_last_hop_is_not_cut() {
    let mut packet = udp(POD, FAR_IPIP, 1, &[0; 1460]);
    rewrite(&mut packet, |header| header.dont_fragment = false);
    let result = Core::new().handle(WORKLOAD, Punt::TooBig(Mtu(1480)), packet);
    assert_eq!(result, (Fate::Dropped(DropReason::TooBig), vec![]));
}

/// As what fits: the host counts its hop itself, and says when it is the last.
#[test]
fn what_is_cut_for_the_host_is_not_charged_a_hop() {
    for ttl in [64, 1] {
        let mut packet = udp(POD, NODE, ttl, &[0; 1460]);
        rewrite(&mut packet, |header| header.dont_fragment = false);
        let (fate, actions) = Core::new().handle(WORKLOAD, Punt::TooBig(Mtu(1450)), packet);
        assert_eq!(fate, Fate::Absorbed);
        let fragments = originated(&actions);
        assert_eq!(fragments.len(), 2);
        assert!(fragments.iter().all(|fragment| fragment[8] == ttl));
    }
}

/// What the router says itself is made to fit its way: it quotes less (RFC 1812 section 4.3.2.3: as much as
/// possible).
#[test]
fn an_error_that_its_way_does_not_take_quotes_less() {
    let mut core = Core::new();
    let unknown = udp(FAR_IPIP, POD, 64, &[0x5a; 474]);
    let (_, actions) = core.handle(UPLINK, Punt::Blackhole, unknown.clone());
    let [whole] = originated(&actions)[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(whole.len(), 530);
    let (fate, actions) = core.handle_own(Punt::TooBig(Mtu(502)), whole.to_vec());
    assert_eq!(fate, Fate::Absorbed);
    let [shorter] = originated(&actions)[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(shorter.len(), 502);
    let (ip, icmp, quoted) = icmp_of(shorter);
    assert_eq!(ip.destination, FAR_IPIP.octets());
    assert!(matches!(
        icmp.icmp_type,
        Icmpv4Type::DestinationUnreachable(_)
    ));
    assert_eq!(quoted, &unknown[..474]);
    // But not to less than the header and eight bytes; and not what others said.
    let (fate, actions) = core.handle_own(Punt::TooBig(Mtu(55)), whole.to_vec());
    assert_eq!((fate, actions), (Fate::Dropped(DropReason::TooBig), vec![]));
    let mut of_others = whole.to_vec();
    rewrite(&mut of_others, |header| header.source = POD.octets());
    let (fate, actions) = core.handle_own(Punt::TooBig(Mtu(502)), of_others);
    assert_eq!((fate, actions), (Fate::Dropped(DropReason::TooBig), vec![]));
}
