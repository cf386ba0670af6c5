//! Packets that can be told apart, and what must become of each.

use std::collections::BTreeMap;

use underpass::forward::Verdict;
use underpass::packet::DropReason;
use underpass::port::PortId;

use crate::common::fates::{self, arp_request, rewrite};
use crate::common::*;

/// What the last eight bytes of a numbered frame begin with.
const MARK: u64 = 0xa5c3_96e1 << 32;

/// A frame that goes on, and what it is when it leaves.
#[derive(Clone)]
pub struct Template {
    pub name: &'static str,
    pub ingress: PortId,
    pub egress: PortId,
    frame: Vec<u8>,
    leaves: Vec<u8>,
}

impl Template {
    /// One for each way through the node on paper.
    pub fn all() -> Vec<Self> {
        let snapshot = snapshot();
        let payload = [b"some payload".as_slice(), &[0; 8]].concat();
        let forwarded = fates::forwarded(&payload).into_iter();
        forwarded
            .map(|case| {
                let (verdict, leaves) = forward_one(&snapshot, case.port, &case.frame);
                let Verdict::Transmit(egress) = verdict else {
                    panic!("{}: {verdict:?}", case.name)
                };
                Self {
                    name: case.name,
                    ingress: case.port,
                    egress,
                    frame: case.frame,
                    leaves,
                }
            })
            .collect()
    }

    /// Those that come in by one port and leave by another.
    pub fn between(ingress: PortId, egress: PortId) -> Vec<Self> {
        let mut all = Self::all();
        all.retain(|template| (template.ingress, template.egress) == (ingress, egress));
        all
    }

    /// The frame with a number, as it comes in.
    pub fn frame(&self, number: u32) -> Vec<u8> {
        numbered(&self.frame, number)
    }
}

/// `frame` with a number in its last eight bytes.
pub fn numbered(frame: &[u8], number: u32) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let at = frame.len() - 8;
    frame[at..].copy_from_slice(&(MARK | u64::from(number)).to_be_bytes());
    frame
}

/// The number of a numbered frame.
pub fn number(frame: &[u8]) -> Option<u32> {
    let last = u64::from_be_bytes(*frame.last_chunk()?);
    (last & !0xffff_ffff == MARK).then_some(last as u32)
}

/// What was sent and has not been seen again; each number must be seen once.
#[derive(Default)]
pub struct Ledger {
    templates: Vec<usize>,
    seen: Vec<bool>,
    /// Frames without a number, by the port that they left by.
    pub others: BTreeMap<PortId, Vec<Vec<u8>>>,
}

impl Ledger {
    /// The number of a new frame of this template.
    pub fn issue(&mut self, template: usize) -> u32 {
        self.templates.push(template);
        self.seen.push(false);
        (self.seen.len() - 1) as u32
    }

    /// Takes in what left by a port: the right frame, by the right port, for the first time.
    pub fn take(&mut self, templates: &[Template], port: PortId, frames: Vec<Vec<u8>>) {
        for frame in frames {
            let Some(number) = number(&frame) else {
                self.others.entry(port).or_default().push(frame);
                continue;
            };
            let template = &templates[self.templates[number as usize]];
            assert_eq!(template.egress, port, "{}", template.name);
            assert!(
                frame == numbered(&template.leaves, number),
                "{} was changed",
                template.name
            );
            let seen = &mut self.seen[number as usize];
            assert!(!*seen, "{} left twice", template.name);
            *seen = true;
        }
    }

    pub fn issued(&self) -> u64 {
        self.seen.len() as u64
    }

    pub fn arrived(&self) -> u64 {
        self.seen.iter().filter(|seen| **seen).count() as u64
    }

    pub fn other_frames(&self) -> u64 {
        self.others.values().map(|frames| frames.len() as u64).sum()
    }
}

/// What becomes of a packet that does not simply go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// It is dropped; whether it is answered is the rate limit's business.
    Dropped(DropReason),
    /// It ends here and is answered.
    Absorbed,
    /// It ends here if the rate limit allows an answer, else it is dropped for that.
    AbsorbedOrLimited,
    /// It goes on in two fragments.
    Fragmented,
    /// The port cannot take it in.
    Refused,
}

/// Packets that do not simply go on, with the port that they come in by.
pub fn ends() -> Vec<(&'static str, PortId, Vec<u8>, End)> {
    let mut ends: Vec<_> = fates::dropped()
        .into_iter()
        .filter(|case| case.port != PortId(99))
        .map(|case| match case.verdict {
            Verdict::Drop(reason) => (case.name, case.port, case.frame, End::Dropped(reason)),
            other => panic!("{}: {other:?}", case.name),
        })
        .collect();
    let pod = |destination, ttl, payload: &[u8]| from_pod(&udp(POD, destination, ttl, payload));
    let big = |dont_fragment| {
        let mut packet = udp(POD, FAR_IPIP, 64, &[7; 1460]);
        rewrite(&mut packet, |header| header.dont_fragment = dont_fragment);
        from_pod(&packet)
    };
    let from_far = |ttl, destination| {
        let inner = udp(FAR_IPIP, destination, ttl, b"x");
        from_uplink(&ipip(FAR_NODE, NODE, &inner))
    };
    let dropped = End::Dropped;
    use DropReason as R;
    ends.extend([
        (
            "TTL 1",
            WORKLOAD,
            pod(FAR_IPIP, 1, b""),
            dropped(R::TtlExpired),
        ),
        (
            "tunnelled, TTL 1",
            UPLINK,
            from_far(1, POD),
            dropped(R::TtlExpired),
        ),
        (
            "no route",
            WORKLOAD,
            pod(fates::NOWHERE, 9, b""),
            dropped(R::NoRoute),
        ),
        (
            "blackhole",
            WORKLOAD,
            pod(fates::NOBODY, 9, b""),
            dropped(R::Blackhole),
        ),
        (
            "tunnelled, blackhole",
            UPLINK,
            from_far(9, fates::NOBODY),
            dropped(R::Blackhole),
        ),
        ("too big", WORKLOAD, big(true), dropped(R::TooBig)),
        ("too big, may be cut", WORKLOAD, big(false), End::Fragmented),
        (
            "TCP to the router",
            WORKLOAD,
            tcp_to_router(),
            dropped(R::NotAnswered),
        ),
        (
            "UDP to the router",
            WORKLOAD,
            pod(fates::GATEWAY, 9, b""),
            End::AbsorbedOrLimited,
        ),
        ("echo", WORKLOAD, echo(), End::Absorbed),
        (
            "ARP",
            WORKLOAD,
            arp_request(POD, fates::GATEWAY),
            End::Absorbed,
        ),
        (
            "spoofed ARP",
            WORKLOAD,
            arp_request(OTHER_POD, fates::GATEWAY),
            dropped(R::SpoofedSource),
        ),
        ("longer than a frame", UPLINK, vec![0; 2000], End::Refused),
    ]);
    ends
}

fn tcp_to_router() -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4(POD.octets(), fates::GATEWAY.octets(), 64)
        .tcp(1000, 80, 1, 1024)
        .write(&mut packet, b"")
        .unwrap();
    from_pod(&packet)
}

fn echo() -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4(POD.octets(), fates::GATEWAY.octets(), 64)
        .icmpv4_echo_request(7, 8)
        .write(&mut packet, b"ping")
        .unwrap();
    from_pod(&packet)
}
