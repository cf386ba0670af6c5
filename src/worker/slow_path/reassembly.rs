//! Outer fragments put together again (RFC 791 section 3.2, RFC 1122 section 3.3.2, RFC 8200 section 4.5).
//!
//! Bounded in every way: bytes, packets at a time, packets of one sender, fragments of one packet, and
//! time. What does not find room takes the place of what has waited longest, of the same sender where
//! that has its share already. Fragments that overlap are an attack or a fault: the whole packet is
//! refused (RFC 5722 says so for IPv6, Linux does it for IPv4 too). Exact repetitions are neither.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::Fate;
use super::piece::{self, Key, Piece};
use crate::packet::{DropReason, PortId};

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

/// Packets of which fragments are missing.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    by_key: FxHashMap<Key, u64>,
    /// By the order of their first arrival.
    by_age: BTreeMap<u64, Packet>,
    arrivals: u64,
    bytes: usize,
    held: usize,
    ended: Vec<Fate>,
}

#[derive(Debug)]
struct Packet {
    key: Key,
    since: Instant,
    /// What the first fragment says, once it is there.
    first: Option<First>,
    /// By where they begin; none overlap.
    parts: BTreeMap<usize, Vec<u8>>,
    /// Bytes of the whole payload, once the last fragment is there.
    end: Option<usize>,
    /// A bit for each ECN field that was seen.
    ecn: u8,
}

/// The first fragment's own: the whole packet has it too.
#[derive(Debug)]
struct First {
    header: Vec<u8>,
    next_header: u8,
    ecn: u8,
}

/// What a fragment did to its packet.
enum Fit {
    New,
    Repeated,
    Contradiction,
}

impl Reassembly {
    /// Takes a fragment, an IP packet. If it was the last one missing, the whole packet comes back.
    pub(super) fn add(&mut self, now: Instant, fragment: &[u8]) -> (Fate, Option<Vec<u8>>) {
        self.add_of(now, None, fragment)
    }

    /// The same for a fragment from a link where who sends can choose among addresses: all who are on it
    /// have one sender's share, and meet nobody else's fragments.
    pub(super) fn add_of(
        &mut self,
        now: Instant,
        link: Option<PortId>,
        fragment: &[u8],
    ) -> (Fate, Option<Vec<u8>>) {
        let refused = (Fate::Dropped(DropReason::OuterFragment), None);
        let Some(mut piece) = Piece::parse(fragment) else {
            return refused;
        };
        piece.key.link = link;
        if piece.is_atomic() {
            // It is none of the packet's that others with its identification belong to (RFC 6946 section 4).
            return match First::of(&piece).whole(&piece.key, piece.payload.len(), piece.ecn) {
                Some(header) => (Fate::Absorbed, Some([&header, piece.payload].concat())),
                None => refused,
            };
        }
        let age = match self.by_key.get(&piece.key) {
            Some(age) => *age,
            None => self.begin(now, piece.key),
        };
        let Some(packet) = self.by_age.get_mut(&age) else {
            return refused;
        };
        match packet.take(&piece) {
            Fit::Repeated => return (Fate::Absorbed, None),
            Fit::Contradiction => {
                self.give_up(age, DropReason::OuterFragment);
                return refused;
            }
            Fit::New => {
                self.bytes += piece.payload.len() + FRAGMENT_COST;
                self.held += 1;
            }
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

    /// Fragments that are held.
    pub(super) fn len(&self) -> usize {
        self.held
    }

    /// Begins a packet, in the place of an old one if its sender, or everybody, has too many.
    fn begin(&mut self, now: Instant, key: Key) -> u64 {
        let of_sender = |packet: &&Packet| match key.link {
            Some(_) => packet.key.link == key.link,
            None => packet.key.source == key.source,
        };
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
                first: None,
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
        self.held -= packet.parts.len();
        Some(packet)
    }
}

impl Packet {
    fn take(&mut self, piece: &Piece<'_>) -> Fit {
        let (start, payload, more) = (piece.start, piece.payload, piece.more);
        let end = start + payload.len();
        if let Some(part) = self.parts.get(&start)
            && part == payload
            && more == (self.end != Some(end))
        {
            return Fit::Repeated;
        }
        let before = self.parts.range(..=start).next_back();
        let overlaps = before.is_some_and(|(at, part)| at + part.len() > start)
            || self.parts.range(start..end).next().is_some();
        let beyond = self.end.is_some_and(|whole| end > whole)
            || !more && (self.end.is_some() || self.parts.range(end..).next().is_some());
        if overlaps || beyond || self.parts.len() >= MOST_FRAGMENTS {
            return Fit::Contradiction;
        }
        if start == 0 {
            self.first = Some(First::of(piece));
        }
        if !more {
            self.end = Some(end);
        }
        self.ecn |= 1 << piece.ecn;
        self.parts.insert(start, payload.to_vec());
        Fit::New
    }

    fn is_whole(&self) -> bool {
        let held: usize = self.parts.values().map(Vec::len).sum();
        self.first.is_some() && self.end == Some(held)
    }

    /// The packet as it was before it was fragmented; nothing if its header and payload are too long
    /// together, or its congestion marks contradict one another.
    fn build(&self) -> Option<Vec<u8>> {
        let first = self.first.as_ref()?;
        let ecn = ecn(self.ecn, first.ecn)?;
        let mut whole = first.whole(&self.key, self.end?, ecn)?;
        self.parts.values().for_each(|part| whole.extend(part));
        Some(whole)
    }
}

impl First {
    fn of(piece: &Piece<'_>) -> Self {
        Self {
            header: piece.header.to_vec(),
            next_header: piece.next_header,
            ecn: piece.ecn,
        }
    }

    /// The header of the whole packet.
    fn whole(&self, key: &Key, payload_len: usize, ecn: u8) -> Option<Vec<u8>> {
        piece::whole_header(key, (&self.header, self.next_header), payload_len, ecn)
    }
}

/// The ECN field of a packet whose fragments had these, a bit for each, and its first one that (RFC 3168 section 5.3; what
/// the RFC leaves open as Linux decides it, net/ipv4/ip_fragment.c): congestion that one fragment met
/// is the packet's; marked and unmarked fragments do not belong together.
fn ecn(seen: u8, first: u8) -> Option<u8> {
    const NOT_ECT: u8 = 1;
    const CE: u8 = 1 << 3;
    match seen {
        NOT_ECT => Some(0b00),
        marked if marked & NOT_ECT != 0 => None,
        marked if marked & CE != 0 => Some(0b11),
        _ => Some(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4::Ipv4;
    use crate::wire::ipv6::Ipv6;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    /// A fragment of a packet from 10.0.0.`host` with the given identification, its header right.
    fn fragment(host: u8, id: u16, at: usize, payload: &[u8], more: bool) -> Vec<u8> {
        let ip = Ipv4 {
            header_len: 20,
            tos: 0,
            total_len: 20 + payload.len(),
            identification: id,
            dont_fragment: false,
            more_fragments: more,
            fragment_offset: at as u16,
            ttl: 64,
            protocol: 4,
            source: Ipv4Addr::new(10, 0, 0, host),
            destination: Ipv4Addr::new(10, 0, 1, 1),
        };
        let mut packet = vec![0; 20];
        assert_eq!(ip.write(&mut packet), 20);
        packet.extend_from_slice(payload);
        packet
    }

    fn marked(mut packet: Vec<u8>, ecn: u8) -> Vec<u8> {
        assert!(crate::wire::ipv4::set_tos(&mut packet, ecn));
        packet
    }

    fn payload(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n * 7 + n / 256) as u8).collect()
    }

    const DROPPED: Fate = Fate::Dropped(DropReason::OuterFragment);

    #[test]
    fn the_last_missing_fragment_makes_the_packet_whole() {
        let (mut pool, now) = (Reassembly::default(), Instant::now());
        let bytes = payload(3000);
        let parts = [
            fragment(1, 7, 1480, &bytes[1480..2960], true),
            fragment(1, 7, 2960, &bytes[2960..], false),
            fragment(1, 7, 0, &bytes[..1480], true),
        ];
        assert_eq!(pool.add(now, &parts[0]), (Fate::Waits, None));
        assert_eq!(pool.add(now, &parts[1]), (Fate::Waits, None));
        assert_eq!(pool.add(now, &parts[0]), (Fate::Absorbed, None), "again");
        let (fate, whole) = pool.add(now, &parts[2]);
        assert_eq!(fate, Fate::Absorbed);
        let whole = whole.unwrap();
        let ip = Ipv4::parse(&whole).unwrap();
        assert_eq!((ip.total_len, ip.is_fragment()), (3020, false));
        assert_eq!(whole[20..], bytes);
        assert_eq!(pool.ended(now), [Fate::Absorbed; 2]);
        assert_eq!(
            (pool.bytes, pool.by_age.len(), pool.by_key.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn what_is_missing_is_waited_for_thirty_seconds() {
        let (mut pool, start) = (Reassembly::default(), Instant::now());
        pool.add(start, &fragment(1, 7, 0, &[0; 800], true));
        let later = start + Duration::from_secs(20);
        pool.add(later, &fragment(1, 7, 1600, &[0; 8], false));
        assert!(
            pool.ended(start + PATIENCE - Duration::from_millis(1))
                .is_empty()
        );
        // Counted from the first one that came, not from the last.
        assert_eq!(pool.ended(start + PATIENCE), [DROPPED; 2]);
        assert_eq!(pool.bytes, 0);
    }

    #[test]
    fn fragments_that_contradict_one_another_are_all_refused() {
        let first = || fragment(1, 7, 0, &[1; 800], true);
        let last = || fragment(1, 7, 1600, &[2; 80], false);
        for (what, bad) in [
            (
                "overlaps the one before",
                fragment(1, 7, 792, &[0; 80], true),
            ),
            (
                "overlaps the one behind",
                fragment(1, 7, 1592, &[0; 16], true),
            ),
            ("lies within one", fragment(1, 7, 80, &[1; 80], true)),
            ("covers one", fragment(1, 7, 1592, &[2; 160], true)),
            (
                "same place, other bytes",
                fragment(1, 7, 0, &[3; 800], true),
            ),
            ("same place, shorter", fragment(1, 7, 0, &[1; 792], true)),
            ("beyond the end", fragment(1, 7, 1680, &[0; 8], true)),
            ("another end", fragment(1, 7, 2400, &[0; 8], false)),
            (
                "an end before the end",
                fragment(1, 7, 1000, &[0; 8], false),
            ),
            (
                "the last one again, not last",
                fragment(1, 7, 1600, &[2; 80], true),
            ),
        ] {
            let (mut pool, now) = (Reassembly::default(), Instant::now());
            pool.add(now, &first());
            pool.add(now, &last());
            assert_eq!(pool.add(now, &bad), (DROPPED, None), "{what}");
            assert_eq!(pool.ended(now), [DROPPED; 2], "{what}");
            assert_eq!(pool.bytes, 0, "{what}");
        }
    }

    #[test]
    fn what_cannot_be_a_fragment_is_refused_by_itself() {
        let (mut pool, now) = (Reassembly::default(), Instant::now());
        for (what, bad) in [
            ("no fragment", fragment(1, 7, 0, &[0; 80], false)),
            ("empty", fragment(1, 7, 80, &[], true)),
            ("not a multiple of eight", fragment(1, 7, 0, &[0; 81], true)),
            (
                "beyond 65,535 bytes",
                fragment(1, 7, 65528, &[0; 80], false),
            ),
            ("cut", fragment(1, 7, 0, &[0; 80], true)[..50].to_vec()),
        ] {
            assert_eq!(pool.add(now, &bad), (DROPPED, None), "{what}");
        }
        assert!(pool.by_age.is_empty());
    }

    #[test]
    fn congestion_met_by_one_fragment_is_the_packets() {
        for (ecns, outcome) in [
            ([0, 0], Some(0)),
            ([1, 1], Some(1)),
            ([2, 2], Some(2)),
            ([2, 1], Some(2)),
            ([1, 2], Some(1)),
            ([2, 3], Some(3)),
            ([3, 1], Some(3)),
            ([3, 3], Some(3)),
            ([0, 3], None),
            ([2, 0], None),
        ] {
            let (mut pool, now) = (Reassembly::default(), Instant::now());
            pool.add(now, &marked(fragment(1, 7, 0, &[0; 80], true), ecns[0]));
            let (fate, whole) = pool.add(now, &marked(fragment(1, 7, 80, &[0; 8], false), ecns[1]));
            let got = whole.map(|whole| Ipv4::parse(&whole).unwrap().tos);
            assert_eq!(got, outcome, "{ecns:?}");
            let expected = if outcome.is_some() {
                Fate::Absorbed
            } else {
                DROPPED
            };
            assert_eq!(
                (fate, pool.ended(now)),
                (expected, vec![expected]),
                "{ecns:?}"
            );
        }
    }

    /// An IPv6 packet with a fragment header, from fd00::1 to fd00::2.
    fn fragment_v6(next_header: u8, at: usize, payload: &[u8], more: bool) -> Vec<u8> {
        let mut packet = vec![0; 40];
        let ip = Ipv6 {
            traffic_class: 0,
            flow_label: 0,
            payload_len: 8 + payload.len(),
            next_header: 44,
            hop_limit: 64,
            source: "fd00::1".parse().unwrap(),
            destination: "fd00::2".parse().unwrap(),
        };
        ip.write(&mut packet);
        let word = (at as u16 | u16::from(more)).to_be_bytes();
        packet.extend([next_header, 0, word[0], word[1], 0, 0, 0, 7]);
        packet.extend_from_slice(payload);
        packet
    }

    /// RFC 6946 section 4: a whole packet is no business of the fragments that have its identification.
    #[test]
    fn a_whole_packet_leaves_the_fragments_of_its_identification_alone() {
        let (mut pool, now) = (Reassembly::default(), Instant::now());
        let first = fragment_v6(17, 0, &[1; 80], true);
        assert_eq!(pool.add(now, &first), (Fate::Waits, None));
        let (fate, whole) = pool.add(now, &fragment_v6(17, 0, b"whole", false));
        assert_eq!(fate, Fate::Absorbed);
        assert_eq!(whole.unwrap()[40..], *b"whole");
        let (fate, whole) = pool.add(now, &fragment_v6(17, 80, &[2; 8], false));
        assert_eq!(fate, Fate::Absorbed);
        assert_eq!(whole.unwrap().len(), 40 + 88);
        assert_eq!(pool.ended(now), [Fate::Absorbed]);
    }

    /// RFC 8200 section 4.5: what the first fragment says is behind is what counts.
    #[test]
    fn the_first_fragment_says_what_an_ipv6_packet_carries() {
        let (mut pool, now) = (Reassembly::default(), Instant::now());
        pool.add(now, &fragment_v6(60, 80, &[2; 8], false));
        let (_, whole) = pool.add(now, &fragment_v6(17, 0, &[1; 80], true));
        assert_eq!(whole.unwrap()[6], 17);
    }

    #[test]
    fn one_senders_flood_takes_no_room_from_another() {
        let (mut pool, now) = (Reassembly::default(), Instant::now());
        pool.add(now, &fragment(2, 1, 0, &[5; 80], true));
        let mut given_up = 0;
        for id in 0..10_000 {
            pool.add(now, &fragment(1, id, 0, &[0; 1480], true));
            given_up += pool.ended(now).len();
        }
        assert_eq!(given_up, 10_000 - MOST_OF_ONE);
        assert_eq!(pool.by_age.len(), MOST_OF_ONE + 1);
        let (_, whole) = pool.add(now, &fragment(2, 1, 80, &[6; 8], false));
        assert!(whole.is_some());
    }

    /// A workload has as many link-local addresses as it likes, and others may have the same ones.
    #[test]
    fn one_links_senders_share_alike_and_meet_nobody_elses_fragments() {
        let (mut pool, now) = (Reassembly::default(), Instant::now());
        let (flooders, others) = (Some(PortId(1)), Some(PortId(2)));
        pool.add_of(now, others, &fragment(1, 0, 0, &[5; 80], true));
        for host in 0..=255 {
            for id in 0..8 {
                pool.add_of(now, flooders, &fragment(host, id, 0, &[0; 80], true));
            }
        }
        assert_eq!(pool.by_age.len(), MOST_OF_ONE + 1);
        let last = fragment(1, 0, 80, &[6; 8], false);
        let (_, whole) = pool.add_of(now, others, &last);
        assert_eq!(whole.unwrap()[20..100], [5; 80]);
    }

    #[test]
    fn memory_and_packets_are_bounded_whoever_sends() {
        let (mut pool, now) = (Reassembly::default(), Instant::now());
        let full = Fate::Dropped(DropReason::ReassemblyFull);
        let (mut sent, mut ended) = (0, 0);
        for id in 0..200 {
            for host in 0..=255 {
                for at in [0, 8000] {
                    pool.add(now, &fragment(host, id, at, &[0; 8000], true));
                    sent += 1;
                }
                let gone = pool.ended(now);
                assert!(gone.iter().all(|fate| *fate == full));
                ended += gone.len();
                assert!(pool.bytes <= MOST_BYTES && pool.by_age.len() <= MOST);
            }
        }
        assert_eq!(pool.by_age.len(), pool.by_key.len());
        let held: usize = pool.by_age.values().map(|packet| packet.parts.len()).sum();
        assert_eq!(held + ended, sent);
        assert_eq!(pool.stop().len(), held);
        assert_eq!(pool.bytes, 0);

        let mut many = (0..MOST_FRAGMENTS).map(|n| fragment(1, 1, n * 16, &[0; 8], true));
        assert!(many.all(|part| pool.add(now, &part).0 == Fate::Waits));
        let one_more = fragment(1, 1, MOST_FRAGMENTS * 16, &[0; 8], true);
        assert_eq!(pool.add(now, &one_more).0, DROPPED);
        assert_eq!(pool.ended(now).len(), MOST_FRAGMENTS);
    }

    proptest! {
        /// However a packet is cut, whatever comes twice and in whatever order, it comes out as it was.
        #[test]
        fn any_cut_in_any_order_comes_together(
            length in 9_usize..6000,
            cuts in proptest::collection::vec(1_usize..750, 0..12),
            order in proptest::collection::vec(any::<u64>(), 26),
            twice in any::<bool>(),
        ) {
            let bytes = payload(length);
            let mut at: Vec<_> = cuts.into_iter().map(|cut| cut * 8).filter(|c| *c < length).collect();
            at.extend([0, 8]);
            at.sort_unstable();
            at.dedup();
            let ends = at.iter().skip(1).copied().chain([length]);
            let mut parts: Vec<_> = at
                .iter()
                .zip(ends)
                .map(|(start, end)| fragment(1, 9, *start, &bytes[*start..end], end < length))
                .collect();
            if twice {
                parts.extend(parts.clone());
            }
            let mut order = order.into_iter().cycle();
            parts.sort_by_cached_key(|_| order.next());
            let (mut pool, now) = (Reassembly::default(), Instant::now());
            let mut wholes = Vec::new();
            let mut fates = Vec::new();
            for part in &parts {
                let (fate, whole) = pool.add(now, part);
                wholes.extend(whole);
                fates.push(fate);
                fates.extend(pool.ended(now));
            }
            prop_assert!(!wholes.is_empty());
            for whole in &wholes {
                prop_assert_eq!(&whole[20..], &bytes[..]);
                prop_assert!(Ipv4::parse(whole).is_ok());
            }
            fates.extend(pool.stop());
            let counted = fates.iter().filter(|fate| **fate != Fate::Waits).count();
            prop_assert_eq!(counted, parts.len());
        }

        /// Any bytes at all, and any headers: no panic, bounds kept, each fragment counted once.
        #[test]
        fn anything_is_taken_without_harm(
            packets in proptest::collection::vec(
                (any::<bool>(), 0_u8..3, 0_u16..4, 0_u16..9000, any::<bool>(),
                 proptest::collection::vec(any::<u8>(), 0..200)),
                0..200,
            ),
        ) {
            let (mut pool, start) = (Reassembly::default(), Instant::now());
            let mut counted = 0;
            for (n, (raw, host, id, at, more, bytes)) in packets.iter().enumerate() {
                let now = start + Duration::from_millis(500 * n as u64);
                let at = usize::from(*at & 0x1fff) * 8;
                let packet = if *raw { bytes.clone() } else { fragment(*host, *id, at & 0xffff, bytes, *more) };
                let (fate, _) = pool.add(now, &packet);
                counted += usize::from(fate != Fate::Waits) + pool.ended(now).len();
                prop_assert!(pool.bytes <= MOST_BYTES && pool.by_age.len() <= MOST);
                prop_assert_eq!(pool.by_age.len(), pool.by_key.len());
            }
            counted += pool.stop().len();
            prop_assert_eq!((counted, pool.bytes), (packets.len(), 0));
        }
    }
}
