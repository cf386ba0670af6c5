//! The FIB against an oracle that cannot be wrong: a map per prefix length, tried from the longest.
//!
//! Seeds are fresh and printed; set UNDERPASS_SEED to repeat a run.

#[path = "fib_oracle/naive.rs"]
mod naive;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use naive::{Family, Oracle, Random, internet};
use underpass::fib::{Answer, Fib, FibError, FibWriter, NextHop};
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
    // Around the largest that the answers by 24 bits have room for, and beyond, too.
    let hops: Vec<u32> = (0..40)
        .chain(0x7ffc..0x8004)
        .chain([0xfffe, 0xffff, 0x1_0000, NextHop::MAX.0])
        .collect();
    let mut both = Both::new(&Quiescence::new());
    for _ in 0..rounds {
        let mut nets = family.cluster(&mut random, updates / 2);
        nets.extend(both.oracle.nets());
        for _ in 0..updates {
            let net = random.pick(&nets);
            match random.below(5) {
                0..3 => both.insert(net, NextHop(hops[random.below(hops.len() as u64) as usize])),
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
    let mut answers = [Answer::NONE; 45];
    fib.lookup_v4_batch(&destinations, &mut answers);
    assert_eq!(answers.map(Answer::next_hop), [Some(NextHop(1)); 45]);
    let mut answers = [Answer::NONE; 100];
    fib.lookup_v4_batch(&destinations, &mut answers);
    let answers = answers.map(Answer::next_hop);
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
    let hosts = [1, 2, 3].map(|i| IpNet::from(IpAddr::from([10, i, 0, 1])));
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

/// More blocks than the first chunk of storage holds: a host in each of 80,000 /24.
#[test]
fn hosts_everywhere() {
    let mut random = Random::seeded();
    let family = Family { v6: false };
    let mut both = Both::new(&Quiescence::new());
    let hosts: Vec<_> = (0..80_000)
        .map(|i| family.net(((i * 199 * 256) + 7) << 96, 32))
        .collect();
    for &host in &hosts {
        both.insert(host, NextHop(random.below(1000) as u32));
    }
    assert!(both.writer.stats().blocks_v4 > 1 << 16);
    both.compare(&family.addresses(&mut random, &hosts, 200_000));
    for &host in &hosts {
        both.remove(host);
    }
    assert_eq!(both.writer.stats().blocks_v4, 0);
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
        // Every other region's are beyond what the answers by 24 bits have room for.
        let hop = |i| NextHop(number % 2 * 0x8000 + number * 100 + i);
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
    let (mut to_v4, mut to_v6) = (vec![Answer::NONE; v4.len()], vec![Answer::NONE; v6.len()]);
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
        .map(|a| a.expect("as many").next_hop())
        .collect()
}
