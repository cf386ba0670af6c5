//! RFC 7606 attribute by attribute, and what a right UPDATE says.

use super::*;
use crate::bgp::attributes::{AsPath, Segment};
use crate::bgp::message::HEADER;
use crate::bgp::message::encode::{self, Format};

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 10, 0, 0, 1];
const PREFIX: &[u8] = &[24, 10, 1, 2];

const EXTERNAL: Context = Context {
    external: true,
    four_octet: true,
    families: [true; 2],
    path_ids: [false; 2],
    extended_next_hop: true,
};
const INTERNAL: Context = Context {
    external: false,
    ..EXTERNAL
};

fn body(withdrawn: &[u8], attributes: &[&[u8]], announced: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = (withdrawn.len() as u16).to_be_bytes().to_vec();
    body.extend(withdrawn);
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend(attributes);
    body.extend(announced);
    body
}

fn with(attribute: &[u8], context: &Context) -> Result<Update, Notification> {
    Update::read(
        &body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, attribute], PREFIX),
        context,
    )
}

fn instead(code: u8, attribute: &[u8]) -> Result<Update, Notification> {
    let right = [ORIGIN, AS_PATH, NEXT_HOP]
        .into_iter()
        .filter(|of| of[1] != code);
    let attributes: Vec<_> = right.chain([attribute]).collect();
    Update::read(&body(&[], &attributes, PREFIX), &EXTERNAL)
}

/// What became of a message's one route.
#[derive(Debug, PartialEq)]
enum Fate {
    Taken,
    Discarded,
    Withdrawn,
    Reset(u8),
}

fn fate(outcome: Result<Update, Notification>) -> Fate {
    match outcome {
        Err(error) => {
            assert_eq!(error.code, 3);
            Fate::Reset(error.subcode)
        }
        Ok(update) if update.treated_as_withdraw => {
            assert!(update.announced.is_empty() && update.withdrawn.len() == 1);
            assert!(update.problems.iter().any(|problem| !problem.discarded));
            Fate::Withdrawn
        }
        Ok(update) => {
            assert_eq!((update.announced.len(), update.withdrawn.len()), (1, 0));
            match update.problems.is_empty() {
                true => Fate::Taken,
                false => Fate::Discarded,
            }
        }
    }
}

#[test]
fn malformed_mandatory_attributes() {
    for (code, attribute, expected) in [
        (1, &[0x40, 1, 1, 3][..], Fate::Withdrawn),
        (1, &[0x40, 1, 2, 0, 0], Fate::Withdrawn),
        (1, &[0x40, 1, 0], Fate::Withdrawn),
        (1, &[0xc0, 1, 1, 0], Fate::Withdrawn),
        (1, &[0x60, 1, 1, 0], Fate::Taken),
        (1, &[0x50, 1, 0, 1, 2], Fate::Taken),
        (1, &[], Fate::Withdrawn),
        // AS_PATH: type, length of a segment, a byte too many, AS 0.
        (2, &[0x40, 2, 6, 5, 1, 0, 0, 0, 1], Fate::Withdrawn),
        (2, &[0x40, 2, 6, 3, 1, 0, 0, 0, 1], Fate::Withdrawn),
        (2, &[0x40, 2, 6, 2, 2, 0, 0, 0, 1], Fate::Withdrawn),
        (2, &[0x40, 2, 7, 2, 1, 0, 0, 0, 1, 2], Fate::Withdrawn),
        (2, &[0x40, 2, 2, 2, 0], Fate::Withdrawn),
        (2, &[0x40, 2, 6, 2, 1, 0, 0, 0, 0], Fate::Withdrawn),
        (2, &[0x80, 2, 6, 2, 1, 0, 0, 0, 1], Fate::Withdrawn),
        (2, &[0x40, 2, 0], Fate::Taken),
        (2, &[0x40, 2, 6, 1, 1, 0, 0, 0, 1], Fate::Taken),
        (2, &[], Fate::Withdrawn),
        (3, &[0x40, 3, 3, 10, 0, 0], Fate::Withdrawn),
        (3, &[0x40, 3, 5, 10, 0, 0, 1, 2], Fate::Withdrawn),
        (3, &[0x40, 3, 0], Fate::Withdrawn),
        (3, &[], Fate::Withdrawn),
    ] {
        assert_eq!(fate(instead(code, attribute)), expected, "{attribute:?}");
    }
}

#[test]
fn malformed_other_attributes() {
    for (attribute, outside, inside) in [
        (&[0x80, 4, 4, 0, 0, 0, 1][..], Fate::Taken, Fate::Taken),
        (&[0x80, 4, 3, 0, 0, 1], Fate::Withdrawn, Fate::Withdrawn),
        (&[0x80, 4, 0], Fate::Withdrawn, Fate::Withdrawn),
        (&[0xc0, 4, 4, 0, 0, 0, 1], Fate::Withdrawn, Fate::Withdrawn),
        (&[0x40, 5, 4, 0, 0, 0, 1], Fate::Discarded, Fate::Taken),
        (&[0x40, 5, 3, 0, 0, 1], Fate::Discarded, Fate::Withdrawn),
        (&[0x40, 6, 0], Fate::Taken, Fate::Taken),
        (&[0x40, 6, 1, 0], Fate::Discarded, Fate::Discarded),
        (
            &[0xc0, 7, 8, 0, 0, 0, 1, 1, 1, 1, 1],
            Fate::Taken,
            Fate::Taken,
        ),
        (
            &[0xc0, 7, 6, 0, 1, 1, 1, 1, 1],
            Fate::Discarded,
            Fate::Discarded,
        ),
        (&[0xc0, 7, 0], Fate::Discarded, Fate::Discarded),
        (
            &[0xc0, 7, 8, 0, 0, 0, 0, 1, 1, 1, 1],
            Fate::Discarded,
            Fate::Discarded,
        ),
        (&[0xc0, 8, 4, 0, 1, 0, 1], Fate::Taken, Fate::Taken),
        (
            &[0xc0, 8, 5, 0, 1, 0, 1, 0],
            Fate::Withdrawn,
            Fate::Withdrawn,
        ),
        (&[0xc0, 8, 0], Fate::Withdrawn, Fate::Withdrawn),
        (&[0x80, 9, 4, 1, 1, 1, 1], Fate::Discarded, Fate::Taken),
        (&[0x80, 9, 3, 1, 1, 1], Fate::Discarded, Fate::Withdrawn),
        (&[0x80, 10, 4, 1, 1, 1, 1], Fate::Discarded, Fate::Taken),
        (&[0x80, 10, 3, 1, 1, 1], Fate::Discarded, Fate::Withdrawn),
        (&[0x80, 10, 0], Fate::Discarded, Fate::Withdrawn),
        (
            &[0xc0, 16, 8, 0, 2, 0, 1, 0, 0, 0, 1],
            Fate::Taken,
            Fate::Taken,
        ),
        (
            &[0xc0, 16, 7, 0, 2, 0, 1, 0, 0, 0],
            Fate::Withdrawn,
            Fate::Withdrawn,
        ),
        (&[0xc0, 17, 0], Fate::Discarded, Fate::Discarded),
        (&[0xc0, 18, 0], Fate::Discarded, Fate::Discarded),
        (
            &[
                0xc0, 25, 20, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
            ],
            Fate::Taken,
            Fate::Taken,
        ),
        (&[0xc0, 25, 1, 0], Fate::Withdrawn, Fate::Withdrawn),
        (
            &[0xc0, 32, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
            Fate::Taken,
            Fate::Taken,
        ),
        (&[0xc0, 32, 4, 0, 0, 0, 1], Fate::Withdrawn, Fate::Withdrawn),
        // Unknown: optional or not, transitive or not; the first again.
        (&[0xc0, 99, 1, 0], Fate::Taken, Fate::Taken),
        (&[0x80, 99, 1, 0], Fate::Taken, Fate::Taken),
        (&[0x40, 99, 1, 0], Fate::Reset(2), Fate::Reset(2)),
        (&[0x40, 1, 1, 2], Fate::Discarded, Fate::Discarded),
        // Longer than what is there.
        (&[0xc0, 8, 200, 0, 1], Fate::Withdrawn, Fate::Withdrawn),
        (&[0xd0, 8, 0], Fate::Withdrawn, Fate::Withdrawn),
        (&[0xc0], Fate::Withdrawn, Fate::Withdrawn),
    ] {
        assert_eq!(
            fate(with(attribute, &EXTERNAL)),
            outside,
            "outside {attribute:?}"
        );
        assert_eq!(
            fate(with(attribute, &INTERNAL)),
            inside,
            "inside {attribute:?}"
        );
    }
}

#[test]
fn what_ends_the_session() {
    let reach = |value: &[u8]| [&[0x80, 14, value.len() as u8][..], value].concat();
    let unreach = |value: &[u8]| [&[0x80, 15, value.len() as u8][..], value].concat();
    let v6 = |length: u8| {
        let mut value = vec![0, 2, 1, length];
        value.extend(vec![0x20; length.into()]);
        value.extend([0, 32, 0x20, 1, 0xd, 0xb8]);
        reach(&value)
    };
    for (attribute, subcode) in [
        (reach(&[0, 2]), 9),
        (v6(15), 9),
        (v6(0), 9),
        (v6(48), 9),
        (reach(&[0, 1, 1, 5, 1, 2, 3, 4, 5, 0]), 9),
        (reach(&[0, 2, 1, 200, 1]), 9),
        (
            reach(&[&[0, 1, 1, 4, 10, 0, 0, 1, 0, 33][..], &[1, 2, 3, 4, 5]].concat()),
            9,
        ),
        (reach(&[0, 1, 1, 4, 10, 0, 0, 1, 0, 24, 1]), 9),
        (unreach(&[0]), 9),
        (unreach(&[0, 2, 1, 129]), 9),
        (unreach(&[0, 2, 1, 64, 1]), 9),
        ([unreach(&[0, 2, 1]), unreach(&[0, 2, 1])].concat(), 1),
        ([v6(16), v6(16)].concat(), 1),
    ] {
        assert_eq!(
            fate(with(&attribute, &EXTERNAL)),
            Fate::Reset(subcode),
            "{attribute:?}"
        );
    }
    for (bytes, subcode) in [
        (vec![0, 9, 0, 0], 1),
        (vec![0, 0, 0, 9], 1),
        (vec![0, 0, 0], 1),
        (body(&[33, 1, 2, 3, 4, 5], &[], &[]), 10),
        (body(&[24, 1], &[], &[]), 10),
        (
            body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], &[33, 1, 2, 3, 4, 5]),
            10,
        ),
        (body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], &[24, 1]), 10),
        // Malformed, and no route to take as withdrawn (§5.2).
        (body(&[], &[&[0x40, 1, 1, 9]], &[]), 6),
        (body(PREFIX, &[&[0x40, 1, 2, 0, 0]], &[]), 5),
    ] {
        let error = Update::read(&bytes, &EXTERNAL).unwrap_err();
        assert_eq!((error.code, error.subcode), (3, subcode), "{bytes:?}");
    }
}

#[test]
fn prefixes_of_nobody_are_left_out() {
    let announced = [PREFIX, &[8, 224], &[4, 0xe0], &[0]].concat();
    let update = Update::read(
        &body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], &announced),
        &EXTERNAL,
    );
    let update = update.unwrap();
    let (_, prefixes) = &update.announced[0];
    let found: Vec<_> = prefixes.v4.iter().map(|(_, net)| net.to_string()).collect();
    assert_eq!(found, ["10.1.2.0/24", "0.0.0.0/0"]);
    assert_eq!(update.problems.len(), 1);
    let only_v6 = Context {
        families: [false, true],
        ..EXTERNAL
    };
    let update = Update::read(
        &body(PREFIX, &[ORIGIN, AS_PATH, NEXT_HOP], PREFIX),
        &only_v6,
    )
    .unwrap();
    assert!(update.announced.is_empty() && update.withdrawn.is_empty());
}

#[test]
fn ends_of_rib() {
    let end = |bytes: &[u8]| Update::read(bytes, &EXTERNAL).unwrap().end_of_rib;
    assert_eq!(end(&[0; 4]), Some(Family::V4));
    assert_eq!(
        end(&body(&[], &[&[0x80, 15, 3, 0, 2, 1]], &[])),
        Some(Family::V6)
    );
    assert_eq!(end(&body(&[], &[&[0x80, 15, 4, 0, 2, 1, 0]], &[])), None);
    assert_eq!(end(&body(PREFIX, &[], &[])), None);
    for family in Family::ALL {
        let mut message = Vec::new();
        encode::end_of_rib(&mut message, family);
        assert_eq!(end(&message[HEADER..]), Some(family));
    }
}

#[test]
fn path_identifiers() {
    let context = Context {
        path_ids: [true, false],
        ..EXTERNAL
    };
    let announced = [&[0, 0, 0, 7][..], PREFIX, &[0, 0, 0, 8], PREFIX].concat();
    let withdrawn = [&[0, 0, 0, 9][..], PREFIX].concat();
    let bytes = body(&withdrawn, &[ORIGIN, AS_PATH, NEXT_HOP], &announced);
    let update = Update::read(&bytes, &context).unwrap();
    let ids = |prefixes: &Prefixes| prefixes.v4.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    assert_eq!(ids(&update.announced[0].1), [7, 8]);
    assert_eq!(ids(&update.withdrawn), [9]);
}

fn rich() -> Attributes {
    Attributes {
        as_path: AsPath(
            [
                Segment::Sequence([65000, 4_200_000_000].into()),
                Segment::Set([5, 6].into()),
            ]
            .into(),
        ),
        med: Some(7),
        local_pref: Some(200),
        atomic_aggregate: true,
        aggregator: Some((4_200_000_001, [1, 2, 3, 4].into())),
        communities: [0xfffd_0001, 2].into(),
        extended_communities: [[0, 2, 0, 1, 0, 0, 0, 1]].into(),
        large_communities: [[1, 2, 3]].into(),
        originator_id: Some([9, 9, 9, 9].into()),
        cluster_list: [[8, 8, 8, 8].into(), [7, 7, 7, 7].into()].into(),
        unknown: [crate::bgp::attributes::Unknown {
            code: 99,
            value: [1, 2, 3].into(),
        }]
        .into(),
        ..Attributes::own([10, 0, 0, 1].into())
    }
}

#[test]
fn what_is_written_is_read() {
    let v6 = Attributes {
        next_hop: "2001:db8::1".parse().unwrap(),
        link_local: Some("fe80::1".parse().unwrap()),
        ..rich()
    };
    let one_v6 = Attributes {
        link_local: None,
        ..v6.clone()
    };
    let prefixes = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| text.parse().unwrap())
            .collect::<Vec<ipnet::IpNet>>()
    };
    for (attributes, nets) in [
        (
            rich(),
            prefixes(&["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "10.1.128.0/17"]),
        ),
        (one_v6.clone(), prefixes(&["10.0.0.0/8"])),
        (v6, prefixes(&["::/0", "2001:db8::/33", "2001:db8::1/128"])),
        (one_v6, prefixes(&["2001:db8:1::/48"])),
    ] {
        for four_octet in [true, false] {
            let context = Context {
                four_octet,
                ..INTERNAL
            };
            let mut message = Vec::new();
            let format = Format {
                four_octet,
                longest: 4096,
            };
            assert!(encode::announce(&mut message, &attributes, &nets, format));
            let update = Update::read(&message[HEADER..], &context).unwrap();
            assert_eq!(update.problems, []);
            let [(read, found)] = &update.announced[..] else {
                panic!("{update:?}")
            };
            assert_eq!(*read, attributes);
            let found = found.v4.iter().map(|(_, net)| (*net).into());
            let found6 = update.announced[0]
                .1
                .v6
                .iter()
                .map(|(_, net)| (*net).into());
            assert_eq!(found.chain(found6).collect::<Vec<ipnet::IpNet>>(), nets);
            let mut message = Vec::new();
            encode::withdraw(&mut message, &nets, 4096);
            let update = Update::read(&message[HEADER..], &context).unwrap();
            assert_eq!(update.withdrawn.len(), nets.len());
        }
    }
}

#[test]
fn many_prefixes_are_packed_into_few_messages() {
    let nets: Vec<ipnet::IpNet> = (0..2000u32)
        .map(|nth| ipnet::Ipv4Net::new_assert((nth << 8).into(), 24).into())
        .collect();
    let (mut message, mut seen) = (Vec::new(), 0);
    let format = Format {
        four_octet: true,
        longest: 4096,
    };
    assert!(encode::announce(&mut message, &rich(), &nets, format));
    let mut rest = &message[..];
    while !rest.is_empty() {
        let length = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
        assert!(length <= 4096);
        let update = Update::read(&rest[HEADER..length], &INTERNAL).unwrap();
        seen += update.announced[0].1.len();
        rest = &rest[length..];
    }
    assert_eq!(seen, 2000);
    let long = Attributes {
        communities: vec![1; 2000].into(),
        ..rich()
    };
    let mut message = Vec::new();
    assert!(!encode::announce(&mut message, &long, &nets, format));
    assert!(message.is_empty());
    let extended = Format {
        longest: 65535,
        ..format
    };
    assert!(encode::announce(&mut message, &long, &nets, extended));
}
