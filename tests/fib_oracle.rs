//! The FIB against an oracle that cannot be wrong: a map per prefix length, tried from the longest.
//!
//! Seeds are fresh and printed; set UNDERPASS_SEED to repeat a run.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustc_hash::FxHashMap;
use underpass::fib::{Fib, FibError, FibWriter, NextHop};
use underpass::worker::publish::{Quiescence, QuiescentReader};

#[test]
fn v4_random_updates() {
    random_updates(Family { v6: false }, 12, 1_500, 150_000);
}

#[test]
fn v6_random_updates() {
    random_updates(Family { v6: true }, 12, 1_500, 100_000);
}

/// Rounds of updates to a clustered table, each followed by look-ups; at the end the table is
/// emptied, and no block must remain.
fn random_updates(family: Family, rounds: usize, updates: usize, look_ups: usize) {
    let mut random = Random::seeded();
    let mut both = Both::new(&Quiescence::new());
    for _ in 0..rounds {
        let mut nets = family.cluster(&mut random, updates / 2);
        nets.extend(both.oracle.nets());
        for _ in 0..updates {
            let net = random.pick(&nets);
            match random.below(5) {
                0..3 => both.insert(net, NextHop(random.below(50) as u32)),
                _ => both.remove(net),
            }
        }
        let addresses = family.addresses(&mut random, &nets, look_ups);
        both.compare(&addresses);
    }
    both.compare_with_a_fresh_table();
    for net in both.oracle.nets() {
        both.remove(net);
    }
    let stats = both.writer.stats();
    assert_eq!((stats.blocks_v4, stats.blocks_v6), (0, 0), "{stats:?}");
    let addresses = family.addresses(&mut random, &[family.default_route()], 1000);
    both.compare(&addresses);
}

#[test]
fn every_length_nested() {
    let mut random = Random::seeded();
    for family in [Family { v6: false }, Family { v6: true }] {
        let mut both = Both::new(&Quiescence::new());
        let host = family.random_address(&mut random);
        let nets: Vec<_> = (0..=family.bits())
            .map(|length| family.net(host, length))
            .collect();
        let addresses = family.addresses(&mut random, &nets, 5_000);
        let mut order: Vec<_> = (0..nets.len()).collect();
        for _ in 0..4 {
            random.shuffle(&mut order);
            for &i in &order {
                both.insert(nets[i], NextHop(i as u32));
                both.compare(&[family.address(host)]);
            }
            both.compare(&addresses);
            random.shuffle(&mut order);
            for &i in &order {
                both.remove(nets[i]);
                both.compare(&[family.address(host)]);
            }
            both.compare(&addresses);
        }
    }
}

#[test]
fn default_routes_are_routes() {
    let mut both = Both::new(&Quiescence::new());
    let addresses = ["0.0.0.0", "255.255.255.255", "10.0.0.1", "::", "ff::1"];
    let addresses = addresses.map(|a| a.parse().expect("an address"));
    for default in ["0.0.0.0/0", "::/0"] {
        let default = default.parse().expect("a prefix");
        both.insert(default, NextHop(0));
        both.compare(&addresses);
        both.insert(default, NextHop::MAX);
        both.compare(&addresses);
        assert_eq!(both.writer.get(&default), Some(NextHop::MAX));
    }
    both.insert("10.0.0.1/32".parse().expect("a prefix"), NextHop(5));
    both.compare(&addresses);
    both.remove("0.0.0.0/0".parse().expect("a prefix"));
    both.compare(&addresses);
}

#[test]
fn a_next_hop_out_of_range_is_refused() {
    let (fib, mut writer) = Fib::new(Quiescence::new());
    let net = "10.0.0.0/8".parse().expect("a prefix");
    let too_large = NextHop(NextHop::MAX.0 + 1);
    let refused = writer.insert(net, too_large);
    assert_eq!(refused, Err(FibError::NextHopOutOfRange(too_large.0, net)));
    assert!(writer.is_empty());
    assert_eq!(fib.lookup_v4(Ipv4Addr::new(10, 0, 0, 1)), None);
    let text = refused.expect_err("refused").to_string();
    let said = "next hop 8388608 of route 10.0.0.0/8 is out of range; the largest is 8388607";
    assert_eq!(text, said);
}

#[test]
fn host_bits_are_ignored() {
    let (fib, mut writer) = Fib::new(Quiescence::new());
    let untidy: IpNet = "10.1.2.3/24".parse().expect("a prefix");
    assert_eq!(writer.insert(untidy, NextHop(1)), Ok(None));
    let first = fib.lookup_v4(Ipv4Addr::new(10, 1, 2, 0));
    assert_eq!(
        (first, writer.get(&untidy.trunc())),
        (Some(NextHop(1)), Some(NextHop(1)))
    );
    let routes: Vec<_> = writer.iter().collect();
    assert_eq!(
        (routes, writer.len()),
        (vec![(untidy.trunc(), NextHop(1))], 1)
    );
    assert_eq!(writer.remove(&untidy), Some(NextHop(1)));
    assert_eq!((writer.remove(&untidy), writer.len()), (None, 0));
}

#[test]
fn a_batch_of_unequal_slices_answers_the_shorter() {
    let (fib, mut writer) = Fib::new(Quiescence::new());
    let default = "0.0.0.0/0".parse().expect("a prefix");
    writer.insert(default, NextHop(1)).expect("room");
    let destinations = [Ipv4Addr::LOCALHOST; 70];
    let mut answers = [None; 45];
    fib.lookup_v4_batch(&destinations, &mut answers);
    assert_eq!(answers, [Some(NextHop(1)); 45]);
    let mut answers = [None; 100];
    fib.lookup_v4_batch(&destinations, &mut answers);
    let answered = answers.iter().filter(|a| a.is_some()).count();
    assert_eq!(
        (answered, answers[69], answers[70]),
        (70, Some(NextHop(1)), None)
    );
}

/// A block that was taken out is not used again before the reader was quiescent, and is after.
#[test]
fn a_block_waits_for_an_online_reader() {
    let domain = Quiescence::new();
    let mut reader = domain.register();
    let (_, mut writer) = Fib::new(domain);
    let blocks = |writer: &FibWriter| {
        let stats = writer.stats();
        (stats.blocks_v4, stats.blocks_waiting, stats.blocks_free)
    };
    let hosts = [1, 2, 3].map(|i| IpNet::from(IpAddr::from([10, 0, i, 1])));
    writer.insert(hosts[0], NextHop(1)).expect("room");
    writer.remove(&hosts[0]);
    assert_eq!(blocks(&writer), (0, 1, 0));
    writer.insert(hosts[1], NextHop(1)).expect("room");
    assert_eq!(blocks(&writer), (1, 1, 0), "a new block, the old one waits");
    reader.quiescent();
    writer.insert(hosts[2], NextHop(1)).expect("room");
    assert_eq!(blocks(&writer), (2, 0, 0), "the old one is used again");
    reader.offline();
    writer.remove(&hosts[1]);
    writer.remove(&hosts[2]);
    writer.insert(hosts[0], NextHop(1)).expect("room");
    assert_eq!(blocks(&writer), (1, 0, 1), "nobody to wait for");
}

/// A path of which all but the ends is empty takes a block per end, however long it is.
#[test]
fn empty_levels_take_no_blocks() {
    let (fib, mut writer) = Fib::new(Quiescence::new());
    let mut blocks_after = |text: &str| {
        let net = text.parse().expect("a prefix");
        writer.insert(net, NextHop(1)).expect("room");
        writer.stats().blocks_v6
    };
    assert_eq!(blocks_after("fd00:10:244:1::7/128"), 1);
    assert_eq!(blocks_after("fd00:10:244:1::8/128"), 1, "the same block");
    assert_eq!(
        blocks_after("fd00:10:244:2::/122"),
        3,
        "another, and where they part"
    );
    assert_eq!(blocks_after("fd00::/16"), 3);
    let at = |text: &str| fib.lookup_v6(text.parse().expect("an address"));
    assert_eq!(at("fd00:10:244:1::7"), Some(NextHop(1)));
    assert_eq!(at("fd01:10:244:1::7"), None);
}

#[test]
fn the_internet() {
    let Some(nets) = internet() else { return };
    let mut random = Random::seeded();
    let mut both = Both::new(&Quiescence::new());
    for &net in &nets {
        both.insert(net, NextHop(random.below(16) as u32));
    }
    for family in [Family { v6: false }, Family { v6: true }] {
        let own: Vec<_> = nets.iter().copied().filter(|n| family.has(n)).collect();
        let addresses = family.addresses(&mut random, &own, 700_000);
        both.compare(&addresses);
    }
    both.compare_with_a_fresh_table();
    for _ in 0..nets.len() / 4 {
        both.remove(random.pick(&nets));
    }
    for family in [Family { v6: false }, Family { v6: true }] {
        let own: Vec<_> = nets.iter().copied().filter(|n| family.has(n)).collect();
        let addresses = family.addresses(&mut random, &own, 300_000);
        both.compare(&addresses);
    }
    for net in nets {
        both.remove(net);
    }
    let stats = both.writer.stats();
    assert_eq!((stats.blocks_v4, stats.blocks_v6), (0, 0), "{stats:?}");
}

#[test]
fn v4_readers_beside_the_writer() {
    readers_beside_the_writer(Family { v6: false });
}

#[test]
fn v6_readers_beside_the_writer() {
    readers_beside_the_writer(Family { v6: true });
}

/// Regions with a stable cover and stable hosts, in which other routes come and go. A region's next
/// hops are its own, so that an answer from a reused block is seen as foreign.
fn readers_beside_the_writer(family: Family) {
    const READERS: usize = 3;
    let mut random = Random::seeded();
    let domain = Quiescence::new();
    let (fib, mut writer) = Fib::new(domain.clone());
    let regions: Vec<_> = (0..64)
        .map(|i| Region::new(family, &mut random, i))
        .collect();
    for region in &regions {
        for (net, to) in &region.stable {
            writer.insert(*net, *to).expect("room");
        }
    }
    let questions: Arc<Vec<_>> = Arc::new(
        regions
            .iter()
            .flat_map(|r| r.questions(&mut random))
            .collect(),
    );
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (fib, reader) = (Arc::clone(&fib), domain.register());
            let (questions, stop) = (Arc::clone(&questions), Arc::clone(&stop));
            let (answered, seed) = (Arc::clone(&answered), random.next());
            std::thread::spawn(move || {
                let count = ask(&fib, reader, &questions, &stop, Random(seed));
                answered.fetch_add(count, Ordering::Relaxed);
            })
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(3);
    let mut updates = 0;
    while Instant::now() < until && !readers.iter().any(|r| r.is_finished()) {
        for _ in 0..200 {
            let region = &regions[random.below(regions.len() as u64) as usize];
            region.flap(&mut writer, &mut random);
            updates += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader
            .join()
            .expect("a reader met an answer that was never right");
    }
    let stats = writer.stats();
    let answered = answered.load(Ordering::Relaxed);
    println!("{answered} look-ups beside {updates} updates; {stats:?}");
    assert!(
        answered > 10_000 && updates > 10_000,
        "too few to mean anything"
    );
    let blocks = stats.blocks_v4 + stats.blocks_v6 + stats.blocks_waiting + stats.blocks_free;
    assert!(
        blocks * 2 < updates,
        "blocks are used again: {blocks} for {updates} updates"
    );
}

/// Asks until told to stop, with a quiescent state after each batch and a nap now and then.
fn ask(
    fib: &Fib,
    mut reader: QuiescentReader,
    questions: &[Question],
    stop: &AtomicBool,
    mut random: Random,
) -> u64 {
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let batch: Vec<_> = (0..100).map(|_| random.pick_ref(questions)).collect();
        let addresses: Vec<_> = batch.iter().map(|q| q.address).collect();
        let answers = match random.below(2) {
            0 => look_up_batch(fib, &addresses),
            _ => addresses.iter().map(|&a| look_up(fib, a)).collect(),
        };
        for (question, answer) in batch.iter().zip(answers) {
            let legal = answer.is_some_and(|a| question.legal.contains(&a));
            assert!(legal, "{answer:?} for {question:?}");
            answered += 1;
        }
        reader.quiescent();
        if random.below(64) == 0 {
            reader.offline();
            std::thread::sleep(Duration::from_micros(random.below(200)));
            reader.online();
        }
    }
    answered
}

struct Question {
    address: IpAddr,
    legal: Vec<NextHop>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (one of {:?})", self.address, self.legal)
    }
}

struct Region {
    family: Family,
    stable: Vec<(IpNet, NextHop)>,
    flapping: Vec<IpNet>,
    /// A flapping route points to one of these.
    hops: [NextHop; 2],
}

impl Region {
    /// A cover of 20 or 40 bits, four hosts in it, and forty routes between the two in length.
    fn new(family: Family, random: &mut Random, number: u32) -> Self {
        let length = if family.v6 { 40 } else { 20 };
        let top = u128::from(number + 1) << (128 - u32::from(length));
        let address = |random: &mut Random| top | random.wide() >> length & family.mask();
        let hop = |i| NextHop(number * 100 + i);
        let mut stable = vec![(family.net(top, length), hop(0))];
        while stable.len() < 5 {
            let host = family.net(address(random), family.bits());
            if stable.iter().all(|(net, _)| *net != host) {
                stable.push((host, hop(stable.len() as u32)));
            }
        }
        let flapping = (0..40)
            .map(|_| {
                let near = match random.below(2) {
                    0 => family.bits_of(random.pick(&stable).0.addr()),
                    _ => address(random),
                };
                let lengths = u64::from(family.bits() - length);
                family.net(near, length + 1 + random.below(lengths) as u8)
            })
            .filter(|net| stable.iter().all(|(s, _)| s != net))
            .collect();
        let hops = [hop(50), hop(51)];
        Self {
            family,
            stable,
            flapping,
            hops,
        }
    }

    /// The stable hosts, which have one answer, and addresses around the flapping routes, which may
    /// have the cover's or a flapping route's.
    fn questions(&self, random: &mut Random) -> Vec<Question> {
        let hosts = &self.stable[1..];
        let mut questions: Vec<_> = hosts
            .iter()
            .map(|(net, to)| Question {
                address: net.addr(),
                legal: vec![*to],
            })
            .collect();
        for address in self.family.addresses(random, &self.flapping, 100) {
            let inside = self.stable[0].0.contains(&address);
            if inside && !hosts.iter().any(|(net, _)| net.addr() == address) {
                let mut legal = vec![self.stable[0].1];
                if self.flapping.iter().any(|net| net.contains(&address)) {
                    legal.extend(self.hops);
                }
                questions.push(Question { address, legal });
            }
        }
        questions
    }

    fn flap(&self, writer: &mut FibWriter, random: &mut Random) {
        let net = random.pick(&self.flapping);
        match random.below(2) {
            0 => drop(writer.remove(&net)),
            _ => drop(writer.insert(net, random.pick(&self.hops)).expect("room")),
        }
    }
}

/// The table and the oracle, updated together.
struct Both {
    fib: Arc<Fib>,
    writer: FibWriter,
    oracle: Oracle,
}

impl Both {
    fn new(domain: &Quiescence) -> Self {
        let (fib, writer) = Fib::new(domain.clone());
        let oracle = Oracle::default();
        Self {
            fib,
            writer,
            oracle,
        }
    }

    fn insert(&mut self, net: IpNet, to: NextHop) {
        let previous = self.writer.insert(net, to).expect("room");
        assert_eq!(previous, self.oracle.insert(net, to), "insert {net}");
    }

    fn remove(&mut self, net: IpNet) {
        let removed = self.writer.remove(&net);
        assert_eq!(removed, self.oracle.remove(net), "remove {net}");
    }

    fn compare(&self, addresses: &[IpAddr]) {
        let batched = look_up_batch(&self.fib, addresses);
        for (&address, batched) in addresses.iter().zip(batched) {
            let right = self.oracle.look_up(address);
            assert_eq!(look_up(&self.fib, address), right, "{address}");
            assert_eq!(batched, right, "{address} in a batch");
        }
    }

    /// The table's shape follows from its routes, not from how they came and went.
    fn compare_with_a_fresh_table(&self) {
        let (_, mut fresh) = Fib::new(Quiescence::new());
        for (net, to) in self.writer.iter() {
            fresh.insert(net, to).expect("room");
        }
        let (stats, expected) = (self.writer.stats(), fresh.stats());
        let shape =
            |s: underpass::fib::FibStats| (s.routes_v4, s.routes_v6, s.blocks_v4, s.blocks_v6);
        assert_eq!(shape(stats), shape(expected));
    }
}

fn look_up(fib: &Fib, address: IpAddr) -> Option<NextHop> {
    match address {
        IpAddr::V4(address) => fib.lookup_v4(address),
        IpAddr::V6(address) => fib.lookup_v6(address),
    }
}

/// One batch per family; the answers in the order of the addresses.
fn look_up_batch(fib: &Fib, addresses: &[IpAddr]) -> Vec<Option<NextHop>> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.push(*address),
            IpAddr::V6(address) => v6.push(*address),
        }
    }
    let (mut to_v4, mut to_v6) = (vec![None; v4.len()], vec![None; v6.len()]);
    fib.lookup_v4_batch(&v4, &mut to_v4);
    fib.lookup_v6_batch(&v6, &mut to_v6);
    let (mut to_v4, mut to_v6) = (to_v4.into_iter(), to_v6.into_iter());
    let answer = |address: &IpAddr| {
        if address.is_ipv4() {
            to_v4.next()
        } else {
            to_v6.next()
        }
    };
    addresses
        .iter()
        .map(answer)
        .map(|a| a.expect("as many"))
        .collect()
}

/// Maps of left-aligned network bits, one for each family and length.
#[derive(Default)]
struct Oracle {
    lengths: BTreeMap<(bool, u8), FxHashMap<u128, NextHop>>,
}

impl Oracle {
    fn insert(&mut self, net: IpNet, to: NextHop) -> Option<NextHop> {
        let family = Family::of(net.addr());
        let map = self
            .lengths
            .entry((family.v6, net.prefix_len()))
            .or_default();
        map.insert(family.bits_of(net.network()), to)
    }

    fn remove(&mut self, net: IpNet) -> Option<NextHop> {
        let family = Family::of(net.addr());
        let map = self.lengths.get_mut(&(family.v6, net.prefix_len()))?;
        map.remove(&family.bits_of(net.network()))
    }

    fn look_up(&self, address: IpAddr) -> Option<NextHop> {
        let family = Family::of(address);
        let bits = family.bits_of(address);
        let lengths = self.lengths.range((family.v6, 0)..=(family.v6, 128)).rev();
        let mut found = lengths.filter_map(|(&(_, l), map)| map.get(&first_bits(bits, l)));
        found.next().copied()
    }

    /// All prefixes, in a fixed order.
    fn nets(&self) -> Vec<IpNet> {
        let mut nets = Vec::new();
        for (&(v6, length), map) in &self.lengths {
            let mut keys: Vec<_> = map.keys().copied().collect();
            keys.sort_unstable();
            nets.extend(keys.iter().map(|&bits| Family { v6 }.net(bits, length)));
        }
        nets
    }
}

/// Addresses of one family as 128 left-aligned bits, and random ones of them.
#[derive(Clone, Copy)]
struct Family {
    v6: bool,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        Self {
            v6: address.is_ipv6(),
        }
    }

    fn has(self, net: &IpNet) -> bool {
        net.addr().is_ipv6() == self.v6
    }

    fn bits(self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    fn mask(self) -> u128 {
        u128::MAX << (128 - self.bits())
    }

    fn bits_of(self, address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    fn address(self, bits: u128) -> IpAddr {
        match self.v6 {
            true => Ipv6Addr::from_bits(bits).into(),
            false => Ipv4Addr::from_bits((bits >> 96) as u32).into(),
        }
    }

    fn net(self, bits: u128, length: u8) -> IpNet {
        match self.address(first_bits(bits, length)) {
            IpAddr::V4(address) => Ipv4Net::new(address, length).expect("a length").into(),
            IpAddr::V6(address) => Ipv6Net::new(address, length).expect("a length").into(),
        }
    }

    fn default_route(self) -> IpNet {
        self.net(0, 0)
    }

    fn random_address(self, random: &mut Random) -> u128 {
        random.wide() & self.mask()
    }

    /// Prefixes that nest, touch and part late: each is a variation of an earlier one.
    fn cluster(self, random: &mut Random, count: usize) -> Vec<IpNet> {
        let mut nets = vec![self.default_route()];
        for _ in 0..4 {
            let address = self.random_address(random);
            nets.push(self.net(address, 8 + random.below(20) as u8));
        }
        while nets.len() < count {
            let near = random.pick(&nets);
            let (mut bits, mut length) = (self.bits_of(near.addr()), near.prefix_len());
            match random.below(5) {
                0 => length = self.random_length(random),
                1 => length = self.bits(),
                // Not the first bits, so that few routes are as short as to fill the table.
                2 => bits ^= 1 << (127 - 6 - random.below(u64::from(self.bits()) - 6)),
                3 => bits ^= random.wide() >> length.min(127) & self.mask(),
                _ => {
                    bits ^= random.wide() >> length.min(127) & self.mask();
                    length = length
                        .saturating_add(random.below(9) as u8)
                        .min(self.bits());
                }
            }
            nets.push(self.net(bits, length));
        }
        nets
    }

    /// Any length, the short ones seldom: each writes to as much of the table as it covers.
    fn random_length(self, random: &mut Random) -> u8 {
        let lowest = if random.below(20) == 0 { 0 } else { 12 };
        lowest + random.below(u64::from(self.bits() - lowest) + 1) as u8
    }

    /// The edges of prefixes, their neighbours, addresses inside, and addresses anywhere.
    fn addresses(self, random: &mut Random, nets: &[IpNet], count: usize) -> Vec<IpAddr> {
        let one = 1 << (128 - self.bits());
        let mut some = || {
            let net = random.pick(nets);
            let first = self.bits_of(net.network());
            let last = self.bits_of(net.broadcast());
            let bits = match random.below(7) {
                0 => first,
                1 => last,
                2 => first.wrapping_sub(one),
                3 => last.wrapping_add(one),
                4 | 5 => first | random.wide() & (first ^ last),
                _ => random.wide(),
            };
            self.address(bits & self.mask())
        };
        (0..count).map(|_| some()).collect()
    }
}

fn first_bits(bits: u128, length: u8) -> u128 {
    bits & !u128::MAX.checked_shr(length.into()).unwrap_or(0)
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let seed = match std::env::var("UNDERPASS_SEED") {
            Ok(text) => text.parse().expect("UNDERPASS_SEED is a number"),
            Err(_) => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(1, |d| d.as_nanos() as u64),
        };
        println!("UNDERPASS_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *self.pick_ref(from)
    }

    fn pick_ref<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// A full Internet table, where the shared test data is present.
fn internet() -> Option<Vec<IpNet>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/prefixes.txt.gz");
    let Ok(file) = std::fs::File::open(&path) else {
        println!("skipped: no {}", path.display());
        return None;
    };
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(file);
    decoder.read_to_string(&mut text).expect("a gzip file");
    Some(
        text.lines()
            .map(|line| line.trim().parse().expect("a prefix"))
            .collect(),
    )
}
