//! Outer fragments put together again (RFC 791 section 3.2, RFC 1122 section 3.3.2).
//!
//! Bounded in every way: bytes, packets at a time, packets of one sender, fragments of one packet, and
//! time. What does not find room takes the place of what has waited longest, of the same sender where
//! that has its share already. Fragments that overlap are an attack or a fault: the whole packet is
//! refused (RFC 5722 says so for IPv6, Linux does it for IPv4 too). Exact repetitions are neither.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::Fate;
use crate::packet::DropReason;
use crate::wire::checksum;
use crate::wire::ipv4::Ipv4;

/// How long the fragments of a packet are waited for after the first one that came (Linux's
/// `ipfrag_time`; RFC 791 suggests 15 s at least).
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes held at most, over all packets (Linux's `ipfrag_high_thresh`).
pub(super) const MOST_BYTES: usize = 4 << 20;

/// Unfinished packets of one sender (Linux's `ipfrag_max_dist` is of this size).
pub(super) const MOST_OF_ONE: usize = 64;

/// Unfinished packets over all senders.
pub(super) const MOST: usize = 1024;

/// Fragments of one packet: 65,535 bytes over links of 576.
pub(super) const MOST_FRAGMENTS: usize = 128;

/// What a fragment costs beside its bytes.
const FRAGMENT_COST: usize = 64;

/// The largest IPv4 packet.
const MOST_LENGTH: usize = 65535;

/// Packets of which fragments are missing.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    by_key: FxHashMap<Key, u64>,
    /// By the order of their first arrival.
    by_age: BTreeMap<u64, Packet>,
    arrivals: u64,
    bytes: usize,
    ended: Vec<Fate>,
}

/// What the fragments of one packet have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    identification: u16,
}

#[derive(Debug)]
struct Packet {
    key: Key,
    since: Instant,
    /// The first fragment's header, once it is there.
    header: Option<Vec<u8>>,
    /// By where they begin; none overlap.
    parts: BTreeMap<usize, Vec<u8>>,
    /// Bytes of the whole payload, once the last fragment is there.
    end: Option<usize>,
    /// A bit for each ECN field that was seen.
    ecn: u8,
}

/// What a fragment did to its packet.
enum Fit {
    New,
    Repeated,
    Contradiction,
}

impl Reassembly {
    /// Takes a fragment, an IPv4 packet. If it was the last one missing, the whole packet comes back.
    pub(super) fn add(&mut self, now: Instant, fragment: &[u8]) -> (Fate, Option<Vec<u8>>) {
        let refused = (Fate::Dropped(DropReason::OuterFragment), None);
        let Some((ip, payload)) = parse(fragment) else {
            return refused;
        };
        let key = Key {
            source: ip.source,
            destination: ip.destination,
            protocol: ip.protocol,
            identification: ip.identification,
        };
        let age = match self.by_key.get(&key) {
            Some(age) => *age,
            None => self.begin(now, key),
        };
        let Some(packet) = self.by_age.get_mut(&age) else {
            return refused;
        };
        match packet.take(&ip, &fragment[..ip.header_len], payload) {
            Fit::Repeated => return (Fate::Absorbed, None),
            Fit::Contradiction => {
                self.give_up(age, DropReason::OuterFragment);
                return refused;
            }
            Fit::New => self.bytes += payload.len() + FRAGMENT_COST,
        }
        if !packet.is_whole() {
            self.make_room(age);
            return (Fate::Waits, None);
        }
        self.finish(age)
    }

    /// Gives up what has waited too long; how each fragment ended since the last call, but for those
    /// that [`Reassembly::add`] answered for.
    pub(super) fn ended(&mut self, now: Instant) -> Vec<Fate> {
        while let Some((age, packet)) = self.by_age.first_key_value()
            && now.saturating_duration_since(packet.since) >= PATIENCE
        {
            let age = *age;
            self.give_up(age, DropReason::OuterFragment);
        }
        std::mem::take(&mut self.ended)
    }

    /// Gives up everything.
    pub(super) fn stop(&mut self) -> Vec<Fate> {
        while let Some((age, _)) = self.by_age.first_key_value() {
            let age = *age;
            self.give_up(age, DropReason::Shutdown);
        }
        std::mem::take(&mut self.ended)
    }

    /// Begins a packet, in the place of an old one if its sender, or everybody, has too many.
    fn begin(&mut self, now: Instant, key: Key) -> u64 {
        let of_sender = |packet: &&Packet| packet.key.source == key.source;
        if self.by_age.values().filter(of_sender).count() >= MOST_OF_ONE {
            let mut ages = self.by_age.iter();
            if let Some((age, _)) = ages.find(|(_, packet)| of_sender(packet)) {
                let age = *age;
                self.give_up(age, DropReason::ReassemblyFull);
            }
        }
        if self.by_age.len() >= MOST
            && let Some((age, _)) = self.by_age.first_key_value()
        {
            let age = *age;
            self.give_up(age, DropReason::ReassemblyFull);
        }
        let age = self.arrivals;
        self.arrivals += 1;
        self.by_key.insert(key, age);
        self.by_age.insert(
            age,
            Packet {
                key,
                since: now,
                header: None,
                parts: BTreeMap::new(),
                end: None,
                ecn: 0,
            },
        );
        age
    }

    /// Gives up the oldest packets until the rest fits; `newest` comes last, and fits by itself.
    fn make_room(&mut self, newest: u64) {
        while self.bytes > MOST_BYTES {
            let Some((age, _)) = self.by_age.iter().find(|(age, _)| **age != newest) else {
                return;
            };
            let age = *age;
            self.give_up(age, DropReason::ReassemblyFull);
        }
    }

    /// Ends a packet that is whole.
    fn finish(&mut self, age: u64) -> (Fate, Option<Vec<u8>>) {
        let refused = Fate::Dropped(DropReason::OuterFragment);
        let Some(packet) = self.forget(age) else {
            return (refused, None);
        };
        let others = packet.parts.len().saturating_sub(1);
        let (fate, whole) = match packet.build() {
            Some(whole) => (Fate::Absorbed, Some(whole)),
            None => (refused, None),
        };
        self.ended.extend(std::iter::repeat_n(fate, others));
        (fate, whole)
    }

    /// Drops all fragments of a packet that have come.
    fn give_up(&mut self, age: u64, reason: DropReason) {
        if let Some(packet) = self.forget(age) {
            let fate = Fate::Dropped(reason);
            self.ended
                .extend(std::iter::repeat_n(fate, packet.parts.len()));
        }
    }

    fn forget(&mut self, age: u64) -> Option<Packet> {
        let packet = self.by_age.remove(&age)?;
        self.by_key.remove(&packet.key);
        let bytes: usize = packet.parts.values().map(Vec::len).sum();
        self.bytes -= bytes + packet.parts.len() * FRAGMENT_COST;
        Some(packet)
    }
}

impl Packet {
    fn take(&mut self, ip: &Ipv4, header: &[u8], payload: &[u8]) -> Fit {
        let start = usize::from(ip.fragment_offset);
        let end = start + payload.len();
        if let Some(part) = self.parts.get(&start)
            && part == payload
            && (ip.more_fragments || self.end == Some(end))
        {
            return Fit::Repeated;
        }
        let before = self.parts.range(..=start).next_back();
        let overlaps = before.is_some_and(|(at, part)| at + part.len() > start)
            || self.parts.range(start..end).next().is_some();
        let beyond = self.end.is_some_and(|whole| end > whole)
            || !ip.more_fragments
                && (self.end.is_some() || self.parts.range(end..).next().is_some());
        if overlaps || beyond || self.parts.len() >= MOST_FRAGMENTS {
            return Fit::Contradiction;
        }
        if start == 0 {
            self.header = Some(header.to_vec());
        }
        if !ip.more_fragments {
            self.end = Some(end);
        }
        self.ecn |= 1 << (ip.tos & 0b11);
        self.parts.insert(start, payload.to_vec());
        Fit::New
    }

    fn is_whole(&self) -> bool {
        let held: usize = self.parts.values().map(Vec::len).sum();
        self.header.is_some() && self.end == Some(held)
    }

    /// The packet as it was before it was fragmented; nothing if its header and payload are too long
    /// together, or its congestion marks contradict one another.
    fn build(&self) -> Option<Vec<u8>> {
        let header = self.header.as_ref()?;
        let total_len = header.len() + self.end?;
        let length = u16::try_from(total_len).ok()?;
        let mut whole = Vec::with_capacity(total_len);
        whole.extend_from_slice(header);
        whole[1] = header[1] & !0b11 | ecn(self.ecn)?;
        whole[2..4].copy_from_slice(&length.to_be_bytes());
        whole[6..8].fill(0);
        whole[10..12].fill(0);
        let sum = checksum::of(&whole);
        whole[10..12].copy_from_slice(&sum.to_be_bytes());
        self.parts.values().for_each(|part| whole.extend(part));
        Some(whole)
    }
}

/// The ECN field of a packet whose fragments had these, a bit for each (RFC 3168 section 5.3; what
/// the RFC leaves open as Linux decides it, net/ipv4/ip_fragment.c): congestion that one fragment met
/// is the packet's; marked and unmarked fragments do not belong together.
fn ecn(seen: u8) -> Option<u8> {
    const NOT_ECT: u8 = 1;
    const ECT_1: u8 = 1 << 1;
    const ECT_0: u8 = 1 << 2;
    const CE: u8 = 1 << 3;
    match seen {
        NOT_ECT => Some(0b00),
        ECT_1 => Some(0b01),
        // Both: which one is the sender's is not known, and ECT(0) is the one that RFC 3168 prefers.
        ECT_0 => Some(0b10),
        marked if marked & NOT_ECT != 0 => None,
        marked if marked & CE != 0 => Some(0b11),
        _ => Some(0b10),
    }
}

/// A fragment's header and payload, if it is one that can be part of a packet.
fn parse(fragment: &[u8]) -> Option<(Ipv4, &[u8])> {
    let ip = Ipv4::parse(fragment).ok().filter(Ipv4::is_fragment)?;
    let payload = fragment.get(ip.header_len..ip.total_len)?;
    let whole = ip.header_len + usize::from(ip.fragment_offset) + payload.len();
    let sensible = !payload.is_empty()
        && (!ip.more_fragments || payload.len().is_multiple_of(8))
        && whole <= MOST_LENGTH;
    sensible.then_some((ip, payload))
}
