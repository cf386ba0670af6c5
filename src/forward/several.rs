//! A next hop that leads one way for some packets and another for others: equal paths over which flows are
//! spread, and packets that the host's kernel has to translate first.
//!
//! A flow keeps its way while the ways are the same, and most flows keep theirs when one way comes or goes:
//! the ways take turns in choosing their buckets, each in an order of its own (Eisenbud et al., "Maglev: A
//! Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Egress;
use crate::wire::flow;

/// A prime, many times the ways that there may be.
const BUCKETS: usize = 251;

/// Several ways, one for each packet.
#[derive(Debug, Clone)]
pub struct Several {
    ways: Box<[Egress]>,
    /// The way of each share of the flows.
    buckets: Box<[u8; BUCKETS]>,
    translated: Option<Translated>,
}

/// Packets from some sources leave through the host's kernel, which puts its own address in.
#[derive(Debug, Clone)]
pub struct Translated {
    /// The sources.
    pub sources: Vec<IpNet>,
    /// The way to the kernel.
    pub host: Egress,
}

impl Several {
    /// Ways with what names each of them, whatever others there are; up to 255 count. There may be none yet.
    pub fn new(ways: Vec<(IpAddr, Egress)>, translated: Option<Translated>) -> Self {
        let (names, ways): (Vec<_>, Vec<_>) = ways.into_iter().take(255).unzip();
        Self {
            buckets: Box::new(share(&names)),
            ways: ways.into(),
            translated,
        }
    }

    /// The ways that flows are spread over.
    pub fn ways(&self) -> &[Egress] {
        &self.ways
    }

    /// The way of an IP packet; none: it is not known yet. What the kernel itself has sent does not go back
    /// to it.
    #[inline(never)]
    pub(super) fn way(&self, from_host: bool, packet: &[u8]) -> Option<&Egress> {
        if let Some(translated) = self.translated.as_ref().filter(|_| !from_host)
            && let Some(source) = source(packet)
            && translated.sources.iter().any(|net| net.contains(&source))
        {
            return Some(&translated.host);
        }
        let [_, _, ..] = *self.ways else {
            return self.ways.first();
        };
        let share = (u64::from(flow::flow_hash(packet)) * BUCKETS as u64) >> 32;
        self.ways.get(usize::from(self.buckets[share as usize]))
    }
}

fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => {
            let bytes: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            Some(Ipv4Addr::from(bytes).into())
        }
        _ => {
            let bytes: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
    }
}

/// Who has which bucket.
fn share(names: &[IpAddr]) -> [u8; BUCKETS] {
    let mut buckets = [u8::MAX; BUCKETS];
    let mut orders: Vec<_> = names.iter().map(|name| order(*name)).collect();
    let mut left = BUCKETS;
    while left > 0 && !orders.is_empty() {
        for (way, order) in orders.iter_mut().enumerate() {
            let free = order.find(|bucket| buckets[*bucket] == u8::MAX);
            if let Some(bucket) = free {
                buckets[bucket] = way as u8;
                left -= 1;
            }
        }
    }
    buckets
}

/// The order in which a way chooses buckets, each once.
fn order(name: IpAddr) -> impl Iterator<Item = usize> {
    let bytes = match name {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    // FNV-1a, then its finish from murmur3: neighbouring addresses have nothing in common.
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    let first = (hash >> 32) as usize % BUCKETS;
    let step = (hash as u32) as usize % (BUCKETS - 1) + 1;
    (0..BUCKETS).map(move |nth| (first + nth * step) % BUCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PortId;
    use crate::wire::Mtu;

    fn name(last: u8) -> IpAddr {
        IpAddr::from([10, 30, 0, last])
    }

    fn several(names: &[u8]) -> Several {
        let way = |last: &u8| {
            (
                name(*last),
                Egress::bare(PortId(u16::from(*last)), Mtu(1500)),
            )
        };
        Several::new(names.iter().map(way).collect(), None)
    }

    /// UDP from a port of its own.
    fn packet(flow: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1];
        packet.extend([10, 9, 9, 9]);
        packet.extend(flow.to_be_bytes());
        packet.extend([0, 7, 0, 8, 0, 0]);
        packet
    }

    fn ways(several: &Several) -> Vec<u16> {
        let flows = 0..4000;
        let way = |flow| several.way(false, &packet(flow)).map(|way| way.port.0);
        flows.map(|flow| way(flow).expect("a way")).collect()
    }

    #[test]
    fn flows_are_spread_evenly_and_keep_their_way() {
        for count in [2_u8, 3, 5, 16] {
            let names: Vec<u8> = (1..=count).collect();
            let all = ways(&several(&names));
            let fair = all.len() / usize::from(count);
            for last in &names {
                let share = all.iter().filter(|way| **way == u16::from(*last)).count();
                assert!(
                    share > fair * 3 / 4 && share < fair * 5 / 4,
                    "{last} of {count}: {share}, where {fair} are fair"
                );
            }
            // One goes: its flows move, and few others.
            let less = ways(&several(&names[1..]));
            let pairs = || all.iter().zip(&less);
            assert!(less.iter().all(|way| *way != 1));
            let disturbed = pairs().filter(|(before, after)| **before != 1 && before != after);
            let others = pairs().filter(|(before, _)| **before != 1).count();
            let disturbed = disturbed.count();
            assert!(
                disturbed * 4 <= others,
                "{count}: {disturbed} of {others} moved"
            );
        }
    }

    #[test]
    fn what_is_translated_goes_to_the_host_and_the_rest_does_not() {
        let host = Egress::bare(PortId(9), Mtu(1500)).to_host();
        let sources = vec!["10.0.0.0/24".parse().unwrap()];
        let one = several(&[1]);
        let translated = Some(Translated { sources, host });
        let one = Several { translated, ..one };
        let port = |from_host, packet: &[u8]| one.way(from_host, packet).map(|way| way.port.0);
        assert_eq!(port(false, &packet(1)), Some(9));
        assert_eq!(port(true, &packet(1)), Some(1));
        let mut other = packet(1);
        other[14] = 1;
        assert_eq!(port(false, &other), Some(1));
        let none = Several {
            ways: Box::default(),
            ..one
        };
        assert!(none.way(false, &packet(1)).is_some());
        assert!(none.way(false, &other).is_none(), "not known yet");
    }

    #[test]
    fn every_way_chooses_every_bucket_once() {
        for last in 0..=255 {
            let mut all: Vec<_> = order(name(last)).collect();
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..BUCKETS));
        }
    }
}
