//! BGP: the decoder of messages, and a speaker with a peer that does anything.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use underpass::bgp::attributes::OwnRoute;
use underpass::bgp::event::{Event, NextHopGroupId};
use underpass::bgp::offline::{self, Offline, Reading, Said};
use underpass::bgp::report::State;
use underpass::bgp::settings::{PeerSettings, Settings};

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEERS: [(Ipv4Addr, u32); 2] = [
    (Ipv4Addr::new(10, 0, 0, 2), 64512),
    (Ipv4Addr::new(10, 0, 0, 3), 65001),
];

/// Byte 0: flags; then a message. What an UPDATE says is written and read again, and says the same.
pub fn message(data: &[u8]) {
    let Some((flags, message)) = data.split_first() else {
        return;
    };
    let reading = Reading {
        external: flags & 1 != 0,
        four_octet: flags & 2 != 0,
        path_ids: flags & 4 != 0,
    };
    match offline::read(message, reading) {
        Err((code, _)) => assert!(matches!(code, 1 | 2 | 3 | 7), "code {code}"),
        Ok(Some(Said::Routes(announced, withdrawn))) => {
            for prefix in &withdrawn {
                assert_eq!(*prefix, prefix.trunc());
            }
            for (attributes, prefixes) in &announced {
                assert!(prefixes.iter().all(|prefix| *prefix == prefix.trunc()));
                assert_eq!(attributes.as_path.count(0), 0);
                again(attributes, prefixes);
            }
        }
        Ok(_) => {}
    }
}

fn again(attributes: &underpass::bgp::attributes::Attributes, prefixes: &[IpNet]) {
    let inside = Reading {
        external: false,
        four_octet: true,
        path_ids: false,
    };
    let Some(bytes) = offline::write(attributes, prefixes, true) else {
        return;
    };
    let (mut rest, mut found) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let length = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
        let Ok(Some(Said::Routes(mut announced, withdrawn))) =
            offline::read(&rest[..length], inside)
        else {
            panic!("our own message is not read");
        };
        assert!(announced.len() == 1 && withdrawn.is_empty());
        let (said, nets) = announced.remove(0);
        assert_eq!(said, *attributes);
        found.extend(nets);
        rest = &rest[length..];
    }
    assert_eq!(found, prefixes);
}

/// Records: what to do, a length (2), so many bytes. Whatever two peers do, the consumer is told a table
/// that holds together, and when all is over nothing is left.
pub fn session(mut data: &[u8]) {
    let mut world = World::new();
    for _ in 0..200 {
        let Some((&[action, high, low], rest)) = data.split_first_chunk() else {
            break;
        };
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        world.act(action, bytes);
        data = rest;
    }
    world.end();
}

struct World {
    speaker: Offline,
    /// By peer, the connection that it has opened last.
    connections: [Option<u64>; 2],
    groups: BTreeMap<NextHopGroupId, usize>,
    routes: BTreeMap<IpNet, NextHopGroupId>,
}

impl World {
    fn new() -> Self {
        let mut settings = Settings::new(64512, US);
        settings.local_addresses = [US.into()].into();
        for (address, number) in PEERS {
            let peer = PeerSettings {
                route_reflector_client: true,
                max_prefixes: 500,
                ..PeerSettings::new(address.into(), number)
            };
            settings.peers.insert(address.to_string().into(), peer);
        }
        let mut speaker = Offline::new(settings).expect("settings that can be");
        speaker.originate(vec![OwnRoute::new("192.168.0.0/26".parse().unwrap())]);
        Self {
            speaker,
            connections: [None; 2],
            groups: BTreeMap::new(),
            routes: BTreeMap::new(),
        }
    }

    fn act(&mut self, action: u8, bytes: &[u8]) {
        let peer = usize::from(action & 1);
        match action >> 1 & 7 {
            0 => {
                let from = IpAddr::V4(PEERS[peer].0);
                let taken = self.speaker.connect(from, US.into());
                self.connections[peer] = taken.or(self.connections[peer]);
            }
            1 => self.send(peer, bytes),
            // A message with a right header: type, body.
            2 | 3 => {
                let Some((kind, body)) = bytes.split_first() else {
                    return;
                };
                self.send(peer, &framed(*kind, body));
            }
            4 => {
                if let Some(connection) = self.connections[peer].take() {
                    self.speaker.close(connection);
                }
            }
            5 => {
                let seconds = bytes.first().copied().unwrap_or(1);
                self.speaker.pass(Duration::from_secs(seconds.into()));
            }
            6 => self.events(),
            _ => {
                // As far as it goes without mistakes.
                self.act(action & 1, &[]);
                self.send(peer, &open(PEERS[peer]));
                self.send(peer, &framed(4, &[]));
            }
        }
        self.check_sent();
    }

    fn send(&mut self, peer: usize, bytes: &[u8]) {
        if let Some(connection) = self.connections[peer] {
            self.speaker.receive(connection, bytes);
        }
    }

    /// Every byte that is sent is part of a message that can be read, and a NOTIFICATION is the last.
    fn check_sent(&mut self) {
        let inside = Reading {
            external: false,
            four_octet: true,
            path_ids: false,
        };
        for connection in self.connections.into_iter().flatten() {
            let sent = self.speaker.sent(connection);
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let said = offline::read(rest, inside)
                    .expect("a right message")
                    .expect("a whole one");
                rest = &rest[usize::from(u16::from_be_bytes([rest[16], rest[17]]))..];
                if let Said::Notification(text) = said {
                    assert!(
                        !text.is_empty() && rest.is_empty() && !self.speaker.is_open(connection)
                    );
                }
            }
        }
    }

    fn events(&mut self) {
        for event in self.speaker.events() {
            match event {
                Event::Group { id, next_hops } => drop(self.groups.insert(id, next_hops.len())),
                Event::GroupGone(id) => {
                    assert!(self.groups.remove(&id).is_some());
                    assert!(self.routes.values().all(|group| *group != id));
                }
                Event::Routes(changes) => {
                    for change in changes {
                        let before = match change.group {
                            Some(group) => {
                                assert!(self.groups.contains_key(&group));
                                self.routes.insert(change.prefix, group)
                            }
                            None => self.routes.remove(&change.prefix),
                        };
                        assert_ne!(before, change.group, "no change");
                    }
                }
                Event::Session { .. } | Event::Converged => {}
            }
        }
        let received = self.speaker.received();
        let neighbors = self.speaker.neighbors();
        let counted: usize = neighbors.iter().map(|of| of.received_prefixes).sum();
        assert_eq!(counted, received.len());
        assert!(received.len() <= 2 * 500);
        let used = received
            .iter()
            .filter(|route| route.best && route.unusable.is_none());
        let used: std::collections::BTreeSet<_> = used.map(|route| route.prefix).collect();
        assert_eq!(used.len(), self.routes.len());
    }

    fn end(mut self) {
        self.events();
        for connection in self.connections.into_iter().flatten() {
            self.speaker.close(connection);
        }
        self.speaker.pass(Duration::from_secs(10_000));
        self.events();
        assert!(self.routes.is_empty() && self.groups.is_empty());
        for neighbor in self.speaker.neighbors() {
            assert_ne!(neighbor.state, State::Established);
            assert_eq!(
                (neighbor.received_prefixes, neighbor.advertised_prefixes),
                (0, 0)
            );
        }
    }
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![255; 16];
    bytes.extend((19 + body.len() as u16).to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

fn open((address, number): (Ipv4Addr, u32)) -> Vec<u8> {
    let mut body = vec![4];
    body.extend((number as u16).to_be_bytes());
    body.extend([0, 90]);
    body.extend(address.octets());
    // Both families, route refresh, graceful restart, four bytes an AS.
    let capabilities: &[u8] = &[
        1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 70, 0, 64, 10, 0, 120, 0, 1, 1, 128, 0, 2, 1, 128,
    ];
    let mut capabilities = capabilities.to_vec();
    capabilities.extend([65, 4]);
    capabilities.extend(number.to_be_bytes());
    body.extend([capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
    body.extend(capabilities);
    framed(1, &body)
}

fn update(attributes: &[&[u8]], announced: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = vec![0, 0];
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend(attributes);
    body.extend(announced);
    body
}

/// UPDATEs with everything in them.
fn updates() -> Vec<Vec<u8>> {
    const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
    const PATH: &[u8] = &[0x40, 2, 12, 2, 1, 0, 0, 0xfd, 0xe9, 1, 1, 0, 0, 0, 7];
    const HOP: &[u8] = &[0x40, 3, 4, 10, 0, 0, 3];
    let more: [&[u8]; 13] = [
        &[0x80, 4, 4, 0, 0, 0, 1],
        &[0x40, 5, 4, 0, 0, 0, 200],
        &[0x40, 6, 0],
        &[0xc0, 7, 8, 0, 0, 0, 1, 1, 1, 1, 1],
        &[0xc0, 8, 4, 0, 1, 0, 1],
        &[0x80, 9, 4, 1, 1, 1, 1],
        &[0x80, 10, 4, 1, 1, 1, 1],
        &[0xc0, 16, 8, 0, 2, 0, 1, 0, 0, 0, 1],
        &[0xc0, 17, 6, 2, 1, 0, 0, 0, 9],
        &[0xc0, 32, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
        &[0xc0, 99, 1, 0],
        &[
            0x80, 14, 30, 0, 2, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0,
            64, 0xfd, 0, 0, 1, 0, 0, 0, 0,
        ],
        &[0x80, 15, 12, 0, 2, 1, 64, 0xfd, 0, 0, 1, 0, 0, 0, 0],
    ];
    let mut all = vec![
        vec![0; 4],
        update(&[&[0x80, 15, 3, 0, 2, 1]], &[]),
        vec![0, 4, 24, 10, 1, 2, 0, 0],
        update(&[ORIGIN, PATH, HOP], &[24, 10, 1, 2, 0, 32, 10, 1, 2, 3]),
        update(&[ORIGIN, PATH, HOP], &[0, 0, 0, 7, 24, 10, 1, 2]),
    ];
    all.extend(more.map(|one| update(&[ORIGIN, PATH, HOP, one], &[24, 10, 1, 2])));
    let whole: Vec<&[u8]> = [ORIGIN, PATH, HOP].into_iter().chain(more).collect();
    all.push(update(&whole, &[16, 10, 9]));
    all
}

/// Seeds of [`message`].
#[allow(dead_code)]
pub fn messages() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for flags in [2, 3, 6, 1] {
        seeds.extend(
            updates()
                .iter()
                .map(|body| [&[flags][..], &framed(2, body)].concat()),
        );
    }
    seeds.push([&[0][..], &open(PEERS[0])].concat());
    seeds.push([&[0][..], &framed(3, &[6, 2, 3, b'b', b'y', b'e'])].concat());
    seeds.push([&[0][..], &framed(5, &[0, 1, 1, 1])].concat());
    seeds
}

/// Seeds of [`session`].
#[allow(dead_code)]
pub fn sessions() -> Vec<Vec<u8>> {
    let record = |action: u8, bytes: &[u8]| {
        let length = (bytes.len() as u16).to_be_bytes();
        [&[action][..], &length, bytes].concat()
    };
    let said = |peer: u8, kind: u8, body: &[u8]| record(4 | peer, &[&[kind][..], body].concat());
    let up = |peer: u8| record(14 | peer, &[]);
    let mut seeds = Vec::new();
    for peer in [0, 1] {
        for body in updates() {
            let other = updates().swap_remove(3);
            let all = [
                up(peer),
                said(peer, 2, &body),
                record(12, &[]),
                up(1 - peer),
                said(1 - peer, 2, &other),
            ];
            seeds.push(
                [
                    all.concat(),
                    record(8 | peer, &[]),
                    record(10, &[30]),
                    up(peer),
                ]
                .concat(),
            );
        }
    }
    let greeting = [
        record(0, &[]),
        record(2, &open(PEERS[0])),
        record(2, &framed(4, &[])),
    ]
    .concat();
    seeds.push(greeting.clone());
    seeds.push([greeting.clone(), record(0, &[]), record(2, &open(PEERS[0]))].concat());
    seeds.push(
        [
            greeting.clone(),
            said(0, 5, &[0, 1, 0, 1]),
            record(10, &[200]),
        ]
        .concat(),
    );
    seeds.push([greeting, said(0, 3, &[6, 4])].concat());
    seeds
}
