//! A longest-prefix match that cannot be wrong, and what to ask it.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::SystemTime;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustc_hash::FxHashMap;
use underpass::fib::NextHop;

/// Maps of left-aligned network bits, one for each family and length.
#[derive(Default)]
pub struct Oracle {
    lengths: BTreeMap<(bool, u8), FxHashMap<u128, NextHop>>,
}

impl Oracle {
    pub fn insert(&mut self, net: IpNet, to: NextHop) -> Option<NextHop> {
        let family = Family::of(net.addr());
        let map = self
            .lengths
            .entry((family.v6, net.prefix_len()))
            .or_default();
        map.insert(family.bits_of(net.network()), to)
    }

    pub fn remove(&mut self, net: IpNet) -> Option<NextHop> {
        let family = Family::of(net.addr());
        let map = self.lengths.get_mut(&(family.v6, net.prefix_len()))?;
        map.remove(&family.bits_of(net.network()))
    }

    pub fn look_up(&self, address: IpAddr) -> Option<NextHop> {
        let family = Family::of(address);
        let bits = family.bits_of(address);
        let lengths = self.lengths.range((family.v6, 0)..=(family.v6, 128)).rev();
        let mut found = lengths.filter_map(|(&(_, l), map)| map.get(&first_bits(bits, l)));
        found.next().copied()
    }

    /// All prefixes, in a fixed order.
    pub fn nets(&self) -> Vec<IpNet> {
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
pub struct Family {
    pub v6: bool,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        Self {
            v6: address.is_ipv6(),
        }
    }

    pub fn has(self, net: &IpNet) -> bool {
        net.addr().is_ipv6() == self.v6
    }

    pub fn bits(self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    pub fn mask(self) -> u128 {
        u128::MAX << (128 - self.bits())
    }

    pub fn bits_of(self, address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    pub fn address(self, bits: u128) -> IpAddr {
        match self.v6 {
            true => Ipv6Addr::from_bits(bits).into(),
            false => Ipv4Addr::from_bits((bits >> 96) as u32).into(),
        }
    }

    pub fn net(self, bits: u128, length: u8) -> IpNet {
        match self.address(first_bits(bits, length)) {
            IpAddr::V4(address) => Ipv4Net::new(address, length).expect("a length").into(),
            IpAddr::V6(address) => Ipv6Net::new(address, length).expect("a length").into(),
        }
    }

    pub fn default_route(self) -> IpNet {
        self.net(0, 0)
    }

    pub fn random_address(self, random: &mut Random) -> u128 {
        random.wide() & self.mask()
    }

    /// Prefixes that nest, touch and part late: each is a variation of an earlier one.
    pub fn cluster(self, random: &mut Random, count: usize) -> Vec<IpNet> {
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
    pub fn random_length(self, random: &mut Random) -> u8 {
        let lowest = if random.below(20) == 0 { 0 } else { 12 };
        lowest + random.below(u64::from(self.bits() - lowest) + 1) as u8
    }

    /// The edges of prefixes, their neighbours, addresses inside, and addresses anywhere.
    pub fn addresses(self, random: &mut Random, nets: &[IpNet], count: usize) -> Vec<IpAddr> {
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
pub struct Random(pub u64);

impl Random {
    pub fn seeded() -> Self {
        let seed = match std::env::var("UNDERPASS_SEED") {
            Ok(text) => text.parse().expect("UNDERPASS_SEED is a number"),
            Err(_) => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(1, |d| d.as_nanos() as u64),
        };
        println!("UNDERPASS_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *self.pick_ref(from)
    }

    pub fn pick_ref<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// A full Internet table, where the shared test data is present.
pub fn internet() -> Option<Vec<IpNet>> {
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
