//! The committed corpus of the fuzz targets, and packets of other implementations, without a fuzzer.
#![allow(missing_docs)]

#[path = "fuzz/bgp.rs"]
mod bgp;
mod common;
#[path = "fuzz/entries.rs"]
mod entries;
#[path = "fuzz/router.rs"]
mod router;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::fates;

#[test]
fn the_committed_corpus_has_no_finding() {
    for (target, entry) in entries::ALL {
        let mut inputs = 0;
        for file in fs::read_dir(corpus(target)).expect("a corpus") {
            let path = file.unwrap().path();
            let data = fs::read(&path).unwrap();
            let run = std::panic::catch_unwind(|| entry(&data));
            assert!(run.is_ok(), "{target}: {}", path.display());
            inputs += 1;
        }
        assert!(inputs > 10, "{target}: {inputs} inputs");
    }
}

/// Searches beyond the corpus for a bounded time, as `scripts/fuzz` does with coverage to guide it:
/// UNDERPASS_FUZZ_SECONDS a target, 3 if it is not given. A finding is left in a file, whose place and
/// seed the failure names.
#[test]
fn mutations_of_the_corpus_have_no_finding() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seconds = number("UNDERPASS_FUZZ_SECONDS").unwrap_or(3);
    let seed = number("UNDERPASS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    for (target, entry) in entries::ALL {
        let mut mutator = Mutator::new(target, seed);
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut executions = 0;
        while Instant::now() < end {
            for _ in 0..16 {
                let input = mutator.next();
                if std::panic::catch_unwind(|| entry(&input)).is_err() {
                    let path = std::env::temp_dir().join(format!("underpass-fuzz-{target}"));
                    fs::write(&path, &input).unwrap();
                    panic!("{target}, seed {seed}: the input is in {}", path.display());
                }
                executions += 1;
            }
        }
        println!("{target}: {executions} executions in {seconds} s, seed {seed}, no finding");
        assert!(executions > 0);
    }
}

/// Inputs made of a target's corpus by small changes and by putting pieces of two together.
struct Mutator {
    corpus: Vec<Vec<u8>>,
    random: Random,
}

impl Mutator {
    const LONGEST: usize = 4096;

    fn new(target: &str, seed: u64) -> Self {
        let files = fs::read_dir(corpus(target)).expect("a corpus");
        let mut corpus: Vec<_> = files
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect();
        corpus.sort();
        let random = Random(seed);
        Self { corpus, random }
    }

    fn next(&mut self) -> Vec<u8> {
        let nth = self.random.below(self.corpus.len());
        let mut input = self.corpus[nth].clone();
        for _ in 0..=self.random.below(6) {
            self.change(&mut input);
        }
        input.truncate(Self::LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        const NOTABLE: [u8; 10] = [0, 1, 0x45, 0x60, 4, 6, 17, 0x7f, 0x80, 0xff];
        let at = self.random.below(input.len() + 1);
        let rest = input.len() - at;
        match self.random.below(7) {
            0 if rest > 0 => input[at] ^= 1 << self.random.below(8),
            1 if rest > 0 => input[at] = self.random.below(256) as u8,
            2 if rest > 0 => input[at] = NOTABLE[self.random.below(NOTABLE.len())],
            3 => input.truncate(at),
            4 => {
                let gone = self.random.below(rest.min(64) + 1);
                input.drain(at..at + gone);
            }
            5 => {
                let more = vec![self.random.below(256) as u8; self.random.below(64)];
                input.splice(at..at, more);
            }
            _ => {
                let other = &self.corpus[self.random.below(self.corpus.len())];
                let from = self.random.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) as usize % bound
    }
}

#[test]
fn what_others_have_made_is_taken_by_every_target() {
    for (target, entry) in entries::ALL {
        for seed in seeds(target) {
            let run = std::panic::catch_unwind(|| entry(&seed));
            assert!(run.is_ok(), "{target}: {seed:02x?}");
        }
    }
}

#[test]
fn every_target_has_its_program_and_its_corpus() {
    let named: BTreeSet<_> = entries::ALL
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let programs = names(&fuzz().join("targets"), ".rs");
    assert_eq!(programs, named);
    assert_eq!(names(&fuzz().join("corpus"), ""), named);
}

/// Writes the seeds into the corpus, for a fuzzer to begin with: after an entry's format has changed.
#[test]
#[ignore = "writes into tests/fuzz/corpus"]
fn write_seeds() {
    for (target, _) in entries::ALL {
        fs::create_dir_all(corpus(target)).unwrap();
        for (nth, seed) in seeds(target).iter().enumerate() {
            fs::write(corpus(target).join(format!("seed-{nth:03}")), seed).unwrap();
        }
    }
}

/// Inputs made of scapy's packets, of captures, and of packets of every fate.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let packets = others_packets();
    let prefixed = |prefixes: &[&[u8]]| -> Vec<Vec<u8>> {
        prefixes
            .iter()
            .flat_map(|prefix| packets.iter().map(|packet| [*prefix, packet].concat()))
            .collect()
    };
    match target {
        "parse" => packets,
        "decap_ipip" => prefixed(&[&[0, 1], &[3, 0]]),
        "decap_vxlan" => prefixed(&[&[0, 0], &[1, 5], &[2, 2]]),
        "fragmentation" => prefixed(&[&[2, 64], &[0, 68]]),
        "quotation" => prefixed(&[&[0, 4, 4, 0], &[1, 1, 4, 0], &[0, 1, 0, 0]]),
        "slow_path" => (0..router::PUNTS.len() as u8)
            .flat_map(|punt| prefixed(&[&[punt, punt % 3]]))
            .collect(),
        "bgp_message" => bgp::messages(),
        "bgp_session" => bgp::sessions(),
        "forward" => sequences(&packets),
        "reassembly" => fragments(),
        other => panic!("no seeds for {other}"),
    }
}

/// Sequences of frames: all fates together, and each packet on each kind of port.
fn sequences(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let record = |port: u16, frame: &[u8]| {
        let length = (frame.len() as u16).to_be_bytes();
        [&[port as u8][..], &length, frame].concat()
    };
    let all: Vec<_> = fates::all();
    let mut sequences: Vec<Vec<u8>> = all
        .iter()
        .filter(|case| case.port.0 < 4)
        .map(|case| record(case.port.0, &case.frame))
        .collect();
    sequences.push(sequences.concat());
    for packet in packets {
        sequences.push(record(0, &common::from_uplink(packet)));
        sequences.push([record(1, &common::from_pod(packet)), record(2, packet)].concat());
    }
    sequences
}

/// Records of [`entries::reassembly`]: in order, last first, repeated, overlapping, of both families.
fn fragments() -> Vec<Vec<u8>> {
    let piece = |flags: u8, id: u8, block: u16, length: u16| {
        [
            &[flags, id][..],
            &block.to_be_bytes(),
            &length.to_be_bytes(),
        ]
        .concat()
    };
    let mut inputs = Vec::new();
    for family in [0, 1] {
        let (first, middle, last) = (
            piece(family, 7, 0, 1480),
            piece(family, 7, 185, 1480),
            piece(family | 6, 7, 370, 77),
        );
        inputs.push([first.clone(), middle.clone(), last.clone()].concat());
        inputs.push([last.clone(), middle.clone(), first.clone()].concat());
        inputs.push([middle.clone(), middle.clone(), last.clone(), first.clone()].concat());
        inputs.push([first.clone(), piece(family, 7, 100, 1480), last.clone()].concat());
        inputs.push([first, piece(family | 2, 7, 8000, 1480), last].concat());
        inputs.push((0..150).flat_map(|id| piece(family, id, 0, 64)).collect());
        inputs.push(
            (0..140)
                .flat_map(|nth| piece(family, 1, nth * 2, 8))
                .collect(),
        );
    }
    inputs
}

/// Whole IP packets: scapy's, and the inner and outer ones of captures.
fn others_packets() -> Vec<Vec<u8>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut packets = BTreeSet::new();
    for directory in [golden.clone(), golden.join("captures")] {
        for file in fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "txt") {
                packets.extend(hexadecimal(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    packets.extend(captured());
    for case in fates::all() {
        packets.insert(case.frame.get(14..).unwrap_or_default().to_vec());
    }
    packets
        .into_iter()
        .filter(|packet| packet.len() <= 700)
        .collect()
}

/// The IP packets of the captures in `../shared/data`, where that is there, and what is within them.
fn captured() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/pcaps");
    let mut packets = Vec::new();
    for file in fs::read_dir(directory).into_iter().flatten() {
        let capture = fs::File::open(file.unwrap().path()).unwrap();
        let mut reader = pcap_file::pcap::PcapReader::new(capture).unwrap();
        while let Some(packet) = reader.next_packet() {
            let frame = packet.unwrap().data;
            // The outer packet, and what is behind Ethernet, IPv4, UDP, VXLAN and Ethernet.
            packets.extend(
                [14, 64]
                    .iter()
                    .filter_map(|at| frame.get(*at..))
                    .map(<[u8]>::to_vec),
            );
        }
    }
    packets.retain(|packet| matches!(packet.first(), Some(0x45 | 0x60)));
    packets.truncate(40);
    packets
}

/// The packets of one of the golden files: runs of lines of hexadecimal digits.
fn hexadecimal(text: &str) -> Vec<Vec<u8>> {
    let mut packets = vec![Vec::new()];
    for line in text.lines() {
        let digits = line.strip_prefix("  ").unwrap_or(line).trim();
        let bytes: Option<Vec<u8>> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
            .collect();
        match bytes {
            Some(bytes) if !bytes.is_empty() => packets.last_mut().unwrap().extend(bytes),
            _ => packets.push(Vec::new()),
        }
    }
    packets.retain(|packet| packet.len() >= 20);
    packets
}

fn names(directory: &Path, suffix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            Some(name.strip_suffix(suffix)?.to_owned())
        })
        .collect()
}

fn corpus(target: &str) -> PathBuf {
    fuzz().join("corpus").join(target)
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}
