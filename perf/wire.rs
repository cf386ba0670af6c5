//! Checksums, flow hashes, super-packets cut and put together: `cargo bench --bench wire`.
//!
//! Each figure is the best and the median of some rounds over packets that lie in the first or second
//! cache level, on one thread; the cases take turns.

#[path = "../tests/common/allocations.rs"]
mod allocations;
mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use underpass::wire::coalesce::{MAX_HEADERS, Part, Run};
use underpass::wire::partial;
use underpass::wire::segment::Segments;
use underpass::wire::virtio_net::{Gso, GsoKind, PartialChecksum};
use underpass::wire::{checksum, flow};

/// Operations of a round.
const COUNT: usize = 4400;
const ROUNDS: usize = 301;
/// Segments of a super-packet of 64 KB, as an MTU of 1450 makes them.
const SEGMENTS: usize = 44;
const SEGMENT_SIZE: usize = 1410;
const HEADERS: usize = 40;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

fn main() {
    println!("{}", common::machine());
    let whole = super_packet();
    let segments = segments(&whole);
    let mut out = [0; 2048];
    let mut datagram = segments[0].clone();
    let mut cases: Vec<Case> = vec![
        case("checksum, 20 bytes", 1, |_| {
            checksum::of(black_box(&whole[..20])).into()
        }),
        case("checksum, 64 bytes", 1, |_| {
            checksum::of(black_box(&whole[..64])).into()
        }),
        case("checksum, 1450 bytes", 1, |_| {
            checksum::of(black_box(&whole[..1450])).into()
        }),
        case("partial checksum looked for, none", 1, |_| {
            partial::complete_checksum(black_box(&mut datagram)).into()
        }),
        case("flow hash, IPv4 and TCP", 1, |_| {
            flow::flow_hash(black_box(&whole)) as usize
        }),
        case("segment of 1450 bytes cut", SEGMENTS, |_| {
            let segments = Segments::of(black_box(&whole), 0, GSO, Some(PARTIAL)).expect("sound");
            (0..segments.count())
                .map(|number| segments.write(&whole, number, &mut out))
                .sum()
        }),
        case("segment of 1450 bytes joined", SEGMENTS, |_| {
            let first = Part::of(black_box(&segments[0]), 0).expect("sound");
            let mut run = Run::new(first);
            for segment in &segments[1..] {
                let part = Part::of(segment, 0).expect("sound");
                assert!(run.join(&segments[0], &part, segment));
            }
            run.headers(&segments[0], &mut [0; MAX_HEADERS]).0
        }),
    ];
    for round in 0..ROUNDS {
        for case in &mut cases {
            case.round(round > 0);
        }
    }
    common::head("one thread");
    for case in &mut cases {
        common::row(case.name, &mut case.times, COUNT, Some(case.allocations));
    }
}

struct Case<'a> {
    name: &'static str,
    /// Operations of one call.
    of_call: usize,
    call: Box<dyn FnMut(usize) -> usize + 'a>,
    times: Vec<Duration>,
    allocations: usize,
}

fn case<'a>(name: &'static str, of_call: usize, call: impl FnMut(usize) -> usize + 'a) -> Case<'a> {
    Case {
        name,
        of_call,
        call: Box::new(call),
        times: Vec::with_capacity(ROUNDS),
        allocations: 0,
    }
}

impl Case<'_> {
    fn round(&mut self, counts: bool) {
        let before = allocations::count();
        let start = Instant::now();
        for number in 0..COUNT / self.of_call {
            black_box((self.call)(number));
        }
        let time = start.elapsed();
        if counts {
            self.times.push(time);
            self.allocations += allocations::count() - before;
        }
    }
}

const GSO: Gso = Gso {
    kind: GsoKind::TcpV4,
    ecn: false,
    segment_size: SEGMENT_SIZE as u16,
};

const PARTIAL: PartialChecksum = PartialChecksum {
    start: 20,
    offset: 16,
};

/// A TCP segment of 62,040 bytes over IPv4.
fn super_packet() -> Vec<u8> {
    let mut packet: Vec<u8> = (0..HEADERS + SEGMENTS * SEGMENT_SIZE)
        .map(|n| (n * 7) as u8)
        .collect();
    let total_len = (packet.len() as u16).to_be_bytes();
    packet[..12].copy_from_slice(&[
        0x45,
        0,
        total_len[0],
        total_len[1],
        0,
        0,
        0x40,
        0,
        64,
        6,
        0,
        0,
    ]);
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = checksum::of(&packet[..20]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet[32..34].copy_from_slice(&[0x50, 0x10]);
    let length = (packet.len() - 20) as u16;
    let pseudo = checksum::sum(&packet[12..20]).add_word(6).add_word(length);
    packet[36..38].copy_from_slice(&pseudo.folded().to_be_bytes());
    packet
}

fn segments(whole: &[u8]) -> Vec<Vec<u8>> {
    let segments = Segments::of(whole, 0, GSO, Some(PARTIAL)).expect("sound");
    (0..segments.count())
        .map(|number| {
            let mut out = vec![0; 2048];
            let length = segments.write(whole, number, &mut out);
            out.truncate(length);
            out
        })
        .collect()
}
