//! What the slow path makes of a bridge's frames, on made-up time.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, icmpv4};
use underpass::forward::{BridgeId, Place, Punt};
use underpass::packet::DropReason;
use underpass::port::PortId;
use underpass::wire::nd::{NeighbourKind, NeighbourMessage};
use underpass::wire::{MacAddr, Mtu};
use underpass::worker::slow_path::{Action, Fate, Punted, SlowPath};

use crate::common::*;
use crate::paper::*;
use crate::workers::arp;

const CAROLS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 3);
const ALICES_IP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const CAROLS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 3);
const ALICES_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);

struct Core {
    paper: Paper,
    slow_path: SlowPath,
    now: Instant,
}

impl Core {
    fn new(paper: Paper) -> Self {
        Self {
            paper,
            slow_path: SlowPath::default(),
            now: Instant::now(),
        }
    }

    /// The fate of a frame with ARP or neighbour discovery from there, learnt as the packet path does.
    fn hear(&mut self, from: Place, frame: &[u8]) -> Vec<Action> {
        let source = MacAddr(frame[6..12].try_into().unwrap());
        self.paper.table().learn(source, from);
        let (fate, actions) = self.punt(Punt::Bridged(TENANTS, from), frame);
        assert_eq!(fate, Fate::Absorbed);
        assert_eq!(actions.len(), 1);
        actions
    }

    /// Which station answers Alice's question; none if it goes on.
    fn told(&mut self, asked: &[u8]) -> Option<MacAddr> {
        match &self.hear(ALICES_PLACE, asked)[..] {
            [Action::Transmit(ALICES, answer)] => Some(MacAddr(answer[6..12].try_into().unwrap())),
            actions => {
                assert_eq!(actions, on(ALICES_PLACE, asked));
                None
            }
        }
    }

    /// How often an address of a bridge was not learnt for want of room.
    fn refused(&self, id: BridgeId) -> u64 {
        let bridge = self.paper.snapshot.bridges.get(id).unwrap();
        bridge.neighbours_refused.load(Ordering::Relaxed)
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn punt(&mut self, punt: Punt, frame: &[u8]) -> (Fate, Vec<Action>) {
        let punted = Punted {
            ingress: Some(ALICES),
            punt,
            packet: frame.to_vec(),
        };
        let mut actions = Vec::new();
        let fate = self
            .slow_path
            .handle(self.now, &self.paper.snapshot, punted, &mut actions);
        (fate, actions)
    }
}

const ALICES_PLACE: Place = Place::Port(ALICES);

fn question(target: Ipv4Addr) -> Vec<u8> {
    let nobody = MacAddr::default();
    arp(1, ALICE, ALICES_IP, nobody, target, MacAddr::BROADCAST)
}

fn on(from: Place, frame: &[u8]) -> Vec<Action> {
    vec![Action::Bridge(TENANTS, from, frame.to_vec())]
}

#[test]
fn an_address_is_answered_for_as_long_as_it_and_its_station_are_known() {
    let mut core = Core::new(Paper::new());
    let asked = question(CAROLS);
    assert_eq!(core.hear(ALICES_PLACE, &asked), on(ALICES_PLACE, &asked));
    let reply = arp(2, CAROL, CAROLS, ALICE, ALICES_IP, ALICE);
    assert_eq!(core.hear(remote(0), &reply), on(remote(0), &reply));
    let answer = vec![Action::Transmit(ALICES, reply.clone())];
    assert_eq!(core.hear(ALICES_PLACE, &asked), answer);
    // From a tunnel it is for the other end to answer; it is asked on to the ports.
    assert_eq!(core.hear(remote(1), &asked), on(remote(1), &asked));
    core.hear(ALICES_PLACE, &asked);
    // A station that is not known any more may be gone.
    core.paper.table().forget(|place| place == remote(0));
    assert_eq!(core.hear(ALICES_PLACE, &asked), on(ALICES_PLACE, &asked));
    core.hear(remote(0), &reply);
    core.now += Duration::from_secs(299);
    assert_eq!(core.hear(ALICES_PLACE, &asked), answer);
    core.now += Duration::from_secs(1);
    assert_eq!(core.hear(ALICES_PLACE, &asked), on(ALICES_PLACE, &asked));
}

#[test]
fn what_is_on_the_askers_own_link_and_what_all_must_hear_goes_on() {
    let mut core = Core::new(Paper::new());
    // Carol is behind Alice's port, and answers for herself.
    core.hear(
        ALICES_PLACE,
        &arp(2, CAROL, CAROLS, ALICE, ALICES_IP, ALICE),
    );
    let asked = question(CAROLS);
    assert_eq!(core.hear(ALICES_PLACE, &asked), on(ALICES_PLACE, &asked));
    // Carol moves; her announcement is heard by all, and so is a probe for her address.
    let announcement = arp(
        1,
        CAROL,
        CAROLS,
        MacAddr::default(),
        CAROLS,
        MacAddr::BROADCAST,
    );
    assert_eq!(
        core.hear(remote(0), &announcement),
        on(remote(0), &announcement)
    );
    assert!(matches!(
        core.hear(ALICES_PLACE, &asked)[..],
        [Action::Transmit(..)]
    ));
    let nobody = MacAddr::default();
    let probe = arp(
        1,
        ALICE,
        Ipv4Addr::UNSPECIFIED,
        nobody,
        CAROLS,
        MacAddr::BROADCAST,
    );
    assert_eq!(core.hear(ALICES_PLACE, &probe), on(ALICES_PLACE, &probe));
    // Carol goes, and another station takes the address over: it is told at once.
    core.paper.table().forget(|place| place == remote(0));
    let mut news = announcement.clone();
    news[6..12].copy_from_slice(&DAVE.0);
    news[22..28].copy_from_slice(&DAVE.0);
    core.hear(remote(1), &news);
    assert_eq!(core.told(&asked), Some(DAVE));
}

/// A question for Carol's address, and what a station sends that says it has that.
type Claims = [(Vec<u8>, fn(MacAddr) -> Vec<u8>); 2];

fn claims() -> Claims {
    let announce = |mac| {
        let nobody = MacAddr::default();
        arp(1, mac, CAROLS, nobody, CAROLS, MacAddr::BROADCAST)
    };
    let advertise = |mac| {
        let kind = NeighbourKind::Advertisement {
            router: false,
            solicited: false,
            override_cached: true,
        };
        let everybody = "ff02::1".parse().unwrap();
        let answer = NeighbourMessage::solicitation(ALICES_V6, ALICE, CAROLS_V6).advertisement(mac);
        let message = NeighbourMessage {
            kind,
            destination: everybody,
            ..answer
        };
        nd(mac, &message)
    };
    [(question(CAROLS), announce), (solicitation(), advertise)]
}

/// Anybody can say that an address is his: where its station is still there, who asks hears both.
#[test]
fn an_address_that_two_stations_claim_is_answered_for_by_themselves() {
    for (asked, claim) in claims() {
        let mut core = Core::new(Paper::new());
        core.hear(remote(0), &claim(CAROL));
        assert_eq!(core.told(&asked), Some(CAROL));
        core.hear(remote(1), &claim(DAVE));
        assert_eq!(core.hear(ALICES_PLACE, &asked), on(ALICES_PLACE, &asked));
        core.wait(100);
        core.hear(remote(0), &claim(CAROL));
        assert_eq!(core.told(&asked), None, "they do not take turns");
        // From now on there is one that has it.
        core.wait(200);
        core.hear(remote(0), &claim(CAROL));
        core.wait(99);
        assert_eq!(core.told(&asked), None);
        core.wait(1);
        assert_eq!(core.told(&asked), Some(CAROL));
    }
}

/// A forger that no place is known of, the table being full, does not end the contest for a second one.
#[test]
fn who_is_nowhere_ends_no_contest() {
    for (asked, claim) in claims() {
        let mut core = Core::new(Paper::new());
        core.hear(remote(0), &claim(CAROL));
        core.punt(Punt::Bridged(TENANTS, remote(1)), &claim(NOBODY));
        core.hear(remote(1), &claim(DAVE));
        assert_eq!(core.told(&asked), None);
    }
}

#[test]
fn what_is_said_in_anothers_name_is_not_learnt() {
    for (asked, claim) in claims() {
        let mut core = Core::new(Paper::new());
        core.paper.table().learn(CAROL, remote(0));
        let mut forged = claim(CAROL);
        forged[6..12].copy_from_slice(&DAVE.0);
        core.hear(remote(1), &forged);
        assert_eq!(core.told(&asked), None);
        core.hear(remote(0), &claim(CAROL));
        assert_eq!(core.told(&asked), Some(CAROL));
    }
}

#[test]
fn configured_addresses_are_answered_for_and_not_learnt_anew() {
    let paper = Paper::with(|bridge| {
        bridge.neighbours.insert(CAROLS.into(), (CAROL, false));
        bridge.neighbours.insert(CAROLS_V6.into(), (CAROL, true));
        bridge.stations.insert(CAROL, remote(0));
    });
    let mut core = Core::new(paper);
    for station in [DAVE, BOB, DAVE] {
        core.hear(remote(1), &arp(2, station, CAROLS, ALICE, ALICES_IP, ALICE));
    }
    let [Action::Transmit(_, answer)] = &core.hear(ALICES_PLACE, &question(CAROLS))[..] else {
        panic!("no answer");
    };
    assert_eq!(*answer, arp(2, CAROL, CAROLS, ALICE, ALICES_IP, ALICE));
    let asked = solicitation();
    let [Action::Transmit(_, answer)] = &core.hear(ALICES_PLACE, &asked)[..] else {
        panic!("no answer");
    };
    let message = NeighbourMessage::parse(&answer[14..]).unwrap();
    let router = true;
    assert_eq!(message.kind, advertised(router));
}

#[test]
fn a_neighbour_is_advertised_as_it_advertised_itself() {
    for router in [true, false] {
        let mut core = Core::new(Paper::new());
        let asked = solicitation();
        // Her own question says where Carol is, but not whether she is a router.
        let from_carol = nd(
            CAROL,
            &NeighbourMessage::solicitation(CAROLS_V6, CAROL, ALICES_V6),
        );
        core.hear(remote(0), &from_carol);
        assert_eq!(core.hear(ALICES_PLACE, &asked), on(ALICES_PLACE, &asked));
        let advertisement = NeighbourMessage {
            kind: advertised(router),
            ..NeighbourMessage::solicitation(ALICES_V6, ALICE, CAROLS_V6).advertisement(CAROL)
        };
        let advertisement = nd(CAROL, &advertisement);
        core.hear(remote(0), &advertisement);
        let [Action::Transmit(ALICES, answer)] = &core.hear(ALICES_PLACE, &asked)[..] else {
            panic!("no answer");
        };
        assert_eq!((&answer[..6], &answer[6..12]), (&ALICE.0[..], &CAROL.0[..]));
        assert_eq!(answer[14..], advertisement[14..]);
    }
}

fn advertised(router: bool) -> NeighbourKind {
    NeighbourKind::Advertisement {
        router,
        solicited: true,
        override_cached: true,
    }
}

fn solicitation() -> Vec<u8> {
    nd(
        ALICE,
        &NeighbourMessage::solicitation(ALICES_V6, ALICE, CAROLS_V6),
    )
}

fn nd(source: MacAddr, message: &NeighbourMessage) -> Vec<u8> {
    let mut packet = vec![0; 100];
    let length = message.write(&mut packet);
    let to = MacAddr([0x33, 0x33, 0xff, 0, 0, 3]);
    ethernet(source, to, &packet[..length])
}

#[test]
fn memory_for_addresses_is_bounded() {
    let mut core = Core::new(Paper::with(|bridge| bridge.learning = false));
    for number in 0..40_000_u32 {
        let address = Ipv4Addr::from_bits(0x0a0a_0000 + number);
        core.hear(remote(0), &arp(2, CAROL, address, ALICE, ALICES_IP, ALICE));
    }
    assert_eq!(core.refused(TENANTS), 40_000 - 16_384);
    core.paper.table().learn(CAROL, remote(0));
    let known = |core: &mut Core, number: u32| {
        let asked = question(Ipv4Addr::from_bits(0x0a0a_0000 + number));
        matches!(core.hear(ALICES_PLACE, &asked)[..], [Action::Transmit(..)])
    };
    assert!(known(&mut core, 0) && known(&mut core, 16_000));
    assert!(!known(&mut core, 39_999), "there was no room");
}

/// A station that has any number of addresses takes no room from another bridge's, and it is counted.
#[test]
fn each_bridge_has_room_for_addresses_of_its_own() {
    const OTHERS: BridgeId = BridgeId(1);
    let mut core = Core::new(Paper::new().with_second());
    for number in 0..9_000_u32 {
        let address = Ipv4Addr::from_bits(0x0a0a_0000 + number);
        core.hear(remote(0), &arp(2, CAROL, address, ALICE, ALICES_IP, ALICE));
    }
    assert_eq!(core.refused(TENANTS), 9_000 - 8_192);
    let other_bridge = |core: &Core| core.paper.snapshot.bridges.get(OTHERS).unwrap().clone();
    other_bridge(&core).table.learn(DAVE, remote(0));
    let reply = arp(2, DAVE, CAROLS, ALICE, ALICES_IP, ALICE);
    core.punt(Punt::Bridged(OTHERS, remote(0)), &reply);
    let (_, actions) = core.punt(Punt::Bridged(OTHERS, ALICES_PLACE), &question(CAROLS));
    assert_eq!(actions, [Action::Transmit(ALICES, reply)]);
    assert_eq!(core.refused(OTHERS), 0);
    // What is too old makes room.
    core.wait(300);
    core.hear(remote(0), &arp(2, CAROL, CAROLS, ALICE, ALICES_IP, ALICE));
    assert_eq!(core.told(&question(CAROLS)), Some(CAROL));
}

// Frames too large.

/// A packet from Alice to Carol that fills an Ethernet frame.
pub fn large(ttl: u8, dont_fragment: bool) -> Vec<u8> {
    let packet = udp(ALICES_IP, CAROLS, ttl, &[7; 1472]);
    let (mut header, payload) = etherparse::Ipv4Header::from_slice(&packet).unwrap();
    header.dont_fragment = dont_fragment;
    header.header_checksum = header.calc_header_checksum();
    let mut packet = Vec::new();
    header.write(&mut packet).unwrap();
    packet.extend_from_slice(payload);
    packet
}

fn too_big(core: &mut Core, mtu: u16, frame: &[u8]) -> (Fate, Vec<Action>) {
    core.punt(Punt::BridgedTooBig(Mtu(mtu)), frame)
}

#[test]
fn the_sender_of_a_frame_too_large_is_told_in_its_receivers_name() {
    let mut core = Core::new(Paper::new());
    let packet = large(64, true);
    let (fate, actions) = too_big(&mut core, 1450, &ethernet(ALICE, CAROL, &packet));
    assert_eq!(fate, Fate::Dropped(DropReason::TooBig));
    let [Action::Transmit(ALICES, told)] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!((&told[..6], &told[6..12]), (&ALICE.0[..], &CAROL.0[..]));
    let sliced = SlicedPacket::from_ethernet(told).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
        panic!("not IPv4");
    };
    assert_eq!(ip.header().source_addr(), CAROLS);
    assert_eq!(ip.header().destination_addr(), ALICES_IP);
    let Some(TransportSlice::Icmpv4(icmp)) = &sliced.transport else {
        panic!("not ICMP");
    };
    let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1450 };
    assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(needed));
    // Within bounds.
    let frame = ethernet(ALICE, CAROL, &packet);
    let told = (0..100).filter(|_| !too_big(&mut core, 1450, &frame).1.is_empty());
    assert_eq!(told.count(), 9, "ten at once, of which one has been told");
}

#[test]
fn an_ipv6_sender_is_told_of_a_tunnel_too_narrow() {
    let mut core = Core::new(Paper::new());
    let packet = udp6(ALICES_V6, CAROLS_V6, 64, &[0; 1452]);
    let (fate, actions) = too_big(&mut core, 1430, &ethernet(ALICE, CAROL, &packet));
    assert_eq!(fate, Fate::Dropped(DropReason::TooBig));
    let [Action::Transmit(ALICES, told)] = &actions[..] else {
        panic!("{actions:?}");
    };
    let sliced = SlicedPacket::from_ethernet(told).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = &sliced.transport else {
        panic!("not ICMPv6");
    };
    assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1430 });
}

#[test]
fn a_frame_that_may_be_cut_up_goes_in_again_in_pieces() {
    let mut core = Core::new(Paper::new());
    let packet = large(1, false);
    let whole = ethernet(ALICE, CAROL, &packet);
    let (fate, actions) = too_big(&mut core, 1450, &whole);
    assert_eq!(fate, Fate::Absorbed);
    let mut payload = Vec::new();
    for action in &actions {
        let Action::Receive(PortId(4), piece) = action else {
            panic!("{action:?}");
        };
        assert!(piece.len() <= 1450 + 14);
        assert_eq!((&piece[..14], piece[22]), (&whole[..14], 1), "no hop");
        payload.extend_from_slice(&piece[34..]);
    }
    assert_eq!(payload, packet[20..]);
    // What is no IP packet is lost, and counted.
    let (fate, actions) = too_big(&mut core, 1450, &frame(ALICE, CAROL, &[0; 1500]));
    assert_eq!(
        (fate, actions.len()),
        (Fate::Dropped(DropReason::TooBig), 0)
    );
}
