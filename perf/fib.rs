//! Look-ups and updates of the FIB on a full Internet table: `cargo bench --bench fib`.
//!
//! Each figure is the best and the median of some rounds, on one thread. Keys are fresh in every
//! run and distinct; the seed is printed, and UNDERPASS_SEED repeats it.

mod common;

use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Random;
use ipnet::IpNet;
use underpass::fib::{Answer, Fib, FibWriter, NextHop};
use underpass::worker::publish::Quiescence;

const KEYS: usize = 1 << 21;
const BATCH: usize = 64;
const NEXT_HOPS: u64 = 16;
const LOOK_UP_ROUNDS: usize = 21;
const UPDATES: usize = 100_000;
const PAGE: usize = 4096;

fn main() {
    let Some(text) = common::internet() else {
        return;
    };
    let nets: Vec<IpNet> = text
        .lines()
        .map(|line| line.trim().parse().expect("a prefix"))
        .collect();
    let seed = common::seed();
    let mut random = Random(seed);
    println!("{}\nseed {seed}\n", common::machine());
    let (v6, v4): (Vec<IpNet>, Vec<IpNet>) = nets.iter().partition(|n| n.addr().is_ipv6());
    let (fib, mut writer) = memory(&v4, &v6, &mut random);
    println!(
        "\n{:34} {:>12} {:>12} {:>10}",
        "one thread", "best M/s", "median M/s", "best ns"
    );
    bare_loads(&mut random);
    look_ups_v4(&fib, &v4, &mut random);
    look_ups_v6(&fib, &v6, &mut random);
    println!();
    updates("IPv4", &mut writer, &v4, &mut random);
    updates("IPv6", &mut writer, &v6, &mut random);
}

/// Builds the tables, and prints what each step takes of time and memory.
fn memory(v4: &[IpNet], v6: &[IpNet], random: &mut Random) -> (Arc<Fib>, FibWriter) {
    println!(
        "{:28} {:>9} {:>12} {:>14} {:>12}",
        "", "ms", "tables, MB", "with RIB, MB", "blocks"
    );
    let before = resident();
    let start = Instant::now();
    let (fib, mut writer) = Fib::new(Quiescence::new());
    let row = |what: &str, start: Instant, writer: &FibWriter| {
        let stats = writer.stats();
        println!(
            "{what:28} {:9.2} {:12.2} {:14.2} {:12}",
            start.elapsed().as_secs_f64() * 1e3,
            table_bytes(writer) as f64 / 1e6,
            resident().saturating_sub(before) as f64 / 1e6,
            stats.blocks_v4 + stats.blocks_v6,
        );
    };
    row("fresh", start, &writer);
    let defaults = ["0.0.0.0/0", "::/0"].map(|net| net.parse().expect("a prefix"));
    let steps = [
        ("two default routes", &defaults[..], 0),
        ("", v4, 4),
        ("", v6, 6),
    ];
    for (what, nets, family) in steps {
        let start = Instant::now();
        for &net in nets {
            let to = NextHop(random.below(NEXT_HOPS) as u32);
            writer.insert(net, to).expect("room");
        }
        let counted = format!("{} IPv{family} prefixes", nets.len());
        row(if family == 0 { what } else { &counted }, start, &writer);
    }
    // The keys without a route would otherwise be answered by the default routes.
    for net in &defaults {
        writer.remove(net);
    }
    (fib, writer)
}

/// One load from an array per key: what the machine can do at this moment, to judge the rest by.
fn bare_loads(random: &mut Random) {
    for megabytes in [1, 16, 64] {
        let array: Vec<u32> = (0..megabytes << 18).map(|i| i & 15).collect();
        let keys = distinct(|| random.next() as u32);
        let look_up = |key: u32| Some(NextHop(array[key as usize & (array.len() - 1)]));
        let kind = format!("of {megabytes} MB");
        report("bare load", &kind, "single", time_single(&keys, look_up));
        let dependent = time_dependent(&keys, |key, by| key ^ by, look_up);
        report("bare load", &kind, "dependent", dependent);
    }
}

fn look_ups_v4(fib: &Fib, nets: &[IpNet], random: &mut Random) {
    let anywhere = distinct(|| Ipv4Addr::from_bits(random.next() as u32));
    let routed = distinct(|| match inside(random, nets) {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    });
    for (kind, keys) in [("random", anywhere), ("in the table", routed)] {
        report(
            "IPv4",
            kind,
            "single",
            time_single(&keys, |key| fib.lookup_v4(key)),
        );
        let batched = time_batches(&keys, |keys, answers| fib.lookup_v4_batch(keys, answers));
        report("IPv4", kind, "batches", batched);
        let follow = |key: Ipv4Addr, by| Ipv4Addr::from_bits(key.to_bits() ^ by);
        report(
            "IPv4",
            kind,
            "dependent",
            time_dependent(&keys, follow, |key| fib.lookup_v4(key)),
        );
    }
}

fn look_ups_v6(fib: &Fib, nets: &[IpNet], random: &mut Random) {
    let anywhere = distinct(|| Ipv6Addr::from_bits(1 << 125 | random.wide() >> 3));
    let routed = distinct(|| match inside(random, nets) {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
    });
    for (kind, keys) in [("random in 2000::/3", anywhere), ("in the table", routed)] {
        report(
            "IPv6",
            kind,
            "single",
            time_single(&keys, |key| fib.lookup_v6(key)),
        );
        let batched = time_batches(&keys, |keys, answers| fib.lookup_v6_batch(keys, answers));
        report("IPv6", kind, "batches", batched);
        let follow = |key: Ipv6Addr, by| Ipv6Addr::from_bits(key.to_bits() ^ u128::from(by));
        report(
            "IPv6",
            kind,
            "dependent",
            time_dependent(&keys, follow, |key| fib.lookup_v6(key)),
        );
    }
}

/// Independent look-ups, one call each.
fn time_single<K: Copy>(keys: &[K], look_up: impl Fn(K) -> Option<NextHop>) -> Vec<Duration> {
    rounds(|| {
        for &key in keys {
            black_box(look_up(key));
        }
    })
}

/// Independent look-ups, [`BATCH`] a call.
fn time_batches<K>(keys: &[K], look_up: impl Fn(&[K], &mut [Answer])) -> Vec<Duration> {
    rounds(|| {
        let mut answers = [Answer::NONE; BATCH];
        for keys in keys.chunks_exact(BATCH) {
            look_up(keys, &mut answers);
            black_box(&answers);
        }
    })
}

/// Look-ups of which each waits for the one before: the latency.
fn time_dependent<K: Copy>(
    keys: &[K],
    follow: impl Fn(K, u32) -> K,
    look_up: impl Fn(K) -> Option<NextHop>,
) -> Vec<Duration> {
    let none = black_box(0);
    let next = |last: u32, &key: &K| number(look_up(follow(key, last & none)));
    rounds(|| {
        black_box(keys.iter().fold(0, next));
    })
}

fn number(answer: Option<NextHop>) -> u32 {
    answer.map_or(0, |to| to.0 + 1)
}

fn rounds(look_up_all: impl Fn()) -> Vec<Duration> {
    let round = || {
        let start = Instant::now();
        look_up_all();
        start.elapsed()
    };
    round();
    let mut times: Vec<_> = (0..LOOK_UP_ROUNDS).map(|_| round()).collect();
    times.sort_unstable();
    times
}

fn report(family: &str, kind: &str, way: &str, times: Vec<Duration>) {
    let rate = |time: Duration| KEYS as f64 / time.as_secs_f64() / 1e6;
    let (best, median) = (times[0], times[times.len() / 2]);
    println!(
        "{:34} {:12.1} {:12.1} {:10.2}",
        format!("{family} {kind}, {way}"),
        rate(best),
        rate(median),
        best.as_secs_f64() * 1e9 / KEYS as f64,
    );
}

/// Updates of prefixes that the table has: all of them are there again at the end.
fn updates(family: &str, writer: &mut FibWriter, nets: &[IpNet], random: &mut Random) {
    let nets: Vec<_> = (0..UPDATES).map(|_| pick(random, nets)).collect();
    let rate = |what: &str, updates: usize, start: Instant| {
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{:34} {:12.0} updates/s {:8.2} µs each",
            format!("{family} {what}"),
            updates as f64 / seconds,
            seconds * 1e6 / updates as f64
        );
    };
    let start = Instant::now();
    for (i, &net) in nets.iter().enumerate() {
        writer
            .insert(net, NextHop(16 + i as u32 % 2))
            .expect("room");
    }
    rate("another next hop", nets.len(), start);
    let start = Instant::now();
    for &net in &nets {
        let to = writer.remove(&net).expect("a prefix of the table");
        writer.insert(net, to).expect("room");
    }
    rate("remove and insert", 2 * nets.len(), start);
}

/// As many different keys as [`KEYS`], in random order.
fn distinct<K: Ord + Copy>(mut key: impl FnMut() -> K) -> Vec<K> {
    let mut seen = std::collections::BTreeSet::new();
    let mut keys = Vec::with_capacity(KEYS);
    while keys.len() < KEYS {
        let key = key();
        if seen.insert(key) {
            keys.push(key);
        }
    }
    keys
}

/// Bytes of both tables: the first levels and IPv4's answers by 24 bits, if they were touched everywhere,
/// and the blocks.
fn table_bytes(writer: &FibWriter) -> usize {
    const FIRST_LEVEL: usize = 4 << 16;
    const DIRECT: usize = 2 << 24;
    const BLOCK: usize = (256 + 1 + 4) * 4;
    let stats = writer.stats();
    let blocks = stats.blocks_v4 + stats.blocks_v6 + stats.blocks_waiting + stats.blocks_free;
    let families = [stats.blocks_v4, stats.blocks_v6];
    let first_levels = families.iter().filter(|blocks| **blocks > 0).count();
    let direct = usize::from(stats.blocks_v4 > 0) * DIRECT;
    first_levels * FIRST_LEVEL + direct + blocks * BLOCK
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("our own statm");
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|field| field.parse::<usize>().ok());
    pages.expect("a number of pages") * PAGE
}

fn pick(random: &mut Random, nets: &[IpNet]) -> IpNet {
    nets[random.below(nets.len() as u64) as usize]
}

/// An address of a prefix: each prefix is as likely as the other.
fn inside(random: &mut Random, nets: &[IpNet]) -> IpAddr {
    match pick(random, nets) {
        IpNet::V4(net) => {
            let host = random.next() as u32 & net.hostmask().to_bits();
            Ipv4Addr::from_bits(net.network().to_bits() | host).into()
        }
        IpNet::V6(net) => {
            let host = random.wide() & net.hostmask().to_bits();
            Ipv6Addr::from_bits(net.network().to_bits() | host).into()
        }
    }
}
