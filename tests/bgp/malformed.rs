//! A peer that sends what it must not: the running speaker's answers, by the RFCs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use underpass::bgp::report::State;

use crate::netns::{PATIENCE, cpu_time, inside, isolated, wait_for};
use crate::scale::resident;
use crate::support::*;

const THEIR_AS: u16 = 65001;

/// A peer made by hand.
struct Hand(TcpStream);

impl Hand {
    fn connect() -> Self {
        let stream = inside("them", || {
            TcpStream::connect((US, 179)).expect("a connection")
        });
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Until routes may be sent.
    fn established(us: &Us) -> Self {
        let mut hand = Self::connect();
        hand.send(&open(4, THEIR_AS, 90, [10, 77, 0, 2], &[]));
        assert_eq!(hand.receive().unwrap()[18], 1);
        hand.send(&keepalive());
        assert_eq!(hand.receive().unwrap()[18], 4);
        us.wait_up(&them());
        hand
    }

    fn send(&mut self, bytes: &[u8]) {
        // The other end may have gone already.
        let _ = self.0.write_all(bytes);
    }

    /// A whole message; none at the end.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut message = vec![0; 19];
        self.0.read_exact(&mut message).ok()?;
        let length = usize::from(u16::from_be_bytes([message[16], message[17]]));
        message.resize(length, 0);
        self.0.read_exact(&mut message[19..]).ok()?;
        Some(message)
    }

    /// Code, subcode and data of the NOTIFICATION that ends the connection.
    fn notification(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut found = None;
        while let Some(message) = self.receive() {
            if message[18] == 3 {
                found = Some((message[19], message[20], message[21..].to_vec()));
            }
        }
        found
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![255; 16];
    bytes.extend((19 + body.len() as u16).to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

fn open(version: u8, number: u16, hold: u16, id: [u8; 4], parameters: &[u8]) -> Vec<u8> {
    let mut body = vec![version];
    body.extend(number.to_be_bytes());
    body.extend(hold.to_be_bytes());
    body.extend(id);
    body.push(parameters.len() as u8);
    body.extend(parameters);
    message(1, &body)
}

fn keepalive() -> Vec<u8> {
    message(4, &[])
}

fn update(attributes: &[&[u8]], announced: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = vec![0, 0];
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend(attributes);
    body.extend(announced);
    message(2, &body)
}

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
/// Two bytes an AS: the hand says nothing of four.
const AS_PATH: &[u8] = &[0x40, 2, 4, 2, 1, 0xfd, 0xe9];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 10, 77, 0, 2];
const PREFIX: &[u8] = &[24, 10, 1, 2];

fn passive() -> Us {
    let mut settings = settings(THEIR_AS.into());
    settings.peers.get_mut(&them()).unwrap().passive = true;
    Us::start(settings)
}

#[test]
fn every_error_has_its_notification() {
    isolated(|| {
        link();
        let us = passive();
        let right = || open(4, THEIR_AS, 90, [10, 77, 0, 2], &[]);
        let with = |change: fn(&mut Vec<u8>)| {
            let mut bytes = keepalive();
            change(&mut bytes);
            bytes
        };
        // In place of the OPEN.
        for (sent, code, subcode, data) in [
            (with(|bytes| bytes[3] = 0), 1, 1, None),
            (with(|bytes| bytes[17] = 18), 1, 2, Some(vec![0, 18])),
            (with(|bytes| bytes[16] = 255), 1, 2, Some(vec![255, 19])),
            (with(|bytes| bytes[18] = 77), 1, 3, Some(vec![77])),
            (open(3, THEIR_AS, 90, [1; 4], &[]), 2, 1, Some(vec![0, 4])),
            (open(4, 65009, 90, [1; 4], &[]), 2, 2, None),
            (open(4, 0, 90, [1; 4], &[]), 2, 2, None),
            (open(4, THEIR_AS, 90, [0; 4], &[]), 2, 3, None),
            (open(4, THEIR_AS, 90, [1; 4], &[9, 0]), 2, 4, None),
            (open(4, THEIR_AS, 1, [1; 4], &[]), 2, 6, None),
            (open(4, THEIR_AS, 2, [1; 4], &[]), 2, 6, None),
            (open(4, THEIR_AS, 90, [1; 4], &[2, 9, 1]), 2, 0, None),
            // IPv4 labelled routes alone.
            (
                open(4, THEIR_AS, 90, [1; 4], &[2, 6, 1, 4, 0, 1, 0, 4]),
                2,
                7,
                None,
            ),
            (keepalive(), 5, 1, Some(vec![4])),
            (update(&[], &[]), 5, 1, Some(vec![2])),
        ] {
            let mut hand = Hand::connect();
            hand.send(&sent);
            let found = hand
                .notification()
                .unwrap_or_else(|| panic!("no answer to {sent:?}"));
            assert_eq!((found.0, found.1), (code, subcode), "{sent:?}");
            assert!(
                data.is_none_or(|data| data == found.2),
                "{sent:?}: {found:?}"
            );
        }
        for (sent, subcode) in [(right(), 2), (update(&[], &[]), 2)] {
            let mut hand = Hand::connect();
            hand.send(&right());
            hand.send(&sent);
            assert_eq!(
                hand.notification().map(|of| (of.0, of.1)),
                Some((5, subcode))
            );
        }
        // Once it is up.
        for (sent, code, subcode) in [
            (right(), 5, 3),
            (message(2, &[0, 9, 0, 0]), 3, 1),
            (
                update(&[ORIGIN, AS_PATH, NEXT_HOP], &[33, 1, 2, 3, 4, 5]),
                3,
                10,
            ),
            (
                update(&[ORIGIN, AS_PATH, NEXT_HOP, &[0x40, 99, 0]], PREFIX),
                3,
                2,
            ),
            (
                update(&[ORIGIN, AS_PATH, NEXT_HOP, &[0x80, 14, 2, 0, 1]], PREFIX),
                3,
                9,
            ),
            (message(5, &[0, 1, 0]), 7, 1),
            (message(4, &[1]), 1, 2),
        ] {
            let mut hand = Hand::established(&us);
            hand.send(&sent);
            let found = hand
                .notification()
                .unwrap_or_else(|| panic!("no answer to {sent:?}"));
            assert_eq!((found.0, found.1), (code, subcode), "{sent:?}");
            wait_for("the end", || {
                (us.neighbor(&them()).state != State::Established).then_some(())
            });
        }
        let report = us.neighbor(&them());
        assert_eq!(
            report.last_error.as_deref(),
            Some("Bad message length: 20 bytes")
        );
        assert!(report.counters.errors >= 22, "{report:?}");
    });
}

#[test]
fn malformed_attributes_withdraw_and_the_session_lives() {
    isolated(|| {
        link();
        let mut us = passive();
        let mut hand = Hand::established(&us);
        let good = update(&[ORIGIN, AS_PATH, NEXT_HOP], PREFIX);
        hand.send(&good);
        us.expect(&["10.1.2.0/24 via 10.77.0.2"]);
        hand.send(&update(&[&[0x40, 1, 1, 9], AS_PATH, NEXT_HOP], PREFIX));
        us.expect(&[]);
        hand.send(&good);
        us.expect(&["10.1.2.0/24 via 10.77.0.2"]);
        // Our AS, AS 0, our address as next hop.
        let own_as = &[0x40, 2, 6, 2, 2, 0xfd, 0xe9, 0xfc, 0][..];
        for attributes in [
            [ORIGIN, own_as, NEXT_HOP],
            [ORIGIN, AS_PATH, &[0x40, 3, 4, 10, 77, 0, 1]],
            [ORIGIN, &[0x40, 2, 4, 2, 1, 0, 0], NEXT_HOP],
        ] {
            hand.send(&update(&attributes, PREFIX));
            us.expect(&[]);
            hand.send(&good);
            us.expect(&["10.1.2.0/24 via 10.77.0.2"]);
        }
        let counters = us.neighbor(&them()).counters;
        assert_eq!(
            (
                counters.treated_as_withdraw,
                counters.loops,
                counters.bad_next_hops
            ),
            (2, 1, 1)
        );
        assert_eq!(counters.established, 1);
    });
}

#[test]
fn a_peer_that_does_not_read_costs_no_memory() {
    isolated(|| {
        link();
        let us = passive();
        let mut hand = Hand::established(&us);
        // A hundred times as much as its socket and our buffer hold.
        let prefix = |nth: u32, round: u8| {
            let mut route = underpass::bgp::attributes::OwnRoute::new(
                ipnet::Ipv4Net::new_assert((0x0a00_0000 | nth << 8).into(), 24).into(),
            );
            route.says.communities = vec![round.into(); 200];
            route
        };
        let before = resident();
        for round in 0..40 {
            us.speaker
                .originate((0..20_000).map(|nth| prefix(nth, round)).collect())
                .unwrap();
            us.neighbor(&them());
        }
        assert!(resident().saturating_sub(before) < 100, "{} MB", resident());
        // It reads at last, and finds each prefix as it is now.
        let (mut latest, mut announced) = (0, 0);
        while latest < 20_000 {
            let message = hand.receive().expect("an UPDATE");
            if message[18] == 2 {
                announced += 1;
                // The last byte of the first community tells the round.
                let attributes = &message[23..];
                let at = attributes
                    .windows(2)
                    .position(|of| of[1] == 8 && of[0] & 0xc0 == 0xc0);
                let is_latest = at.is_some_and(|at| attributes[at + 7] == 39);
                let length = usize::from(u16::from_be_bytes([message[21], message[22]]));
                let nlri = message.len() - 23 - length;
                latest += if is_latest { nlri / 4 } else { 0 };
            }
        }
        println!("{announced} UPDATEs");
    });
}

#[test]
fn a_silent_peer_and_one_that_floods() {
    isolated(|| {
        link();
        let us = passive();
        let mut hand = Hand::connect();
        hand.send(&open(4, THEIR_AS, 3, [10, 77, 0, 2], &[]));
        hand.send(&keepalive());
        assert_eq!(
            hand.notification().map(|of| (of.0, of.1)),
            Some((4, 0)),
            "3 s of silence"
        );
        us.wait_error(&them(), "Hold timer expired");
        // Connections without end cost little, and in the end are closed unheard.
        let (begin, before) = (Instant::now(), cpu_time(std::process::id()));
        let mut unheard = 0;
        for _ in 0..300 {
            let mut hand = Hand::connect();
            hand.send(&[0; 19]);
            unheard += u32::from(hand.notification().is_none());
        }
        assert!(unheard > 150, "{unheard}");
        assert!(us.neighbor(&them()).counters.refused_connections > 150);
        println!(
            "300 connections: {:?} of {:?}",
            cpu_time(std::process::id()) - before,
            begin.elapsed()
        );
        // Somebody who is no peer.
        let stream = inside("them", || {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            let from: std::net::SocketAddr = "10.77.0.3:0".parse().unwrap();
            socket.bind(&from.into()).unwrap();
            let to: std::net::SocketAddr = "10.77.0.1:179".parse().unwrap();
            socket.connect(&to.into()).unwrap();
            TcpStream::from(socket)
        });
        assert!(Hand(stream).receive().is_none());
        thread::sleep(Duration::from_millis(10));
    });
}
