//! How often a source is told of its errors (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::packet::PortId;

/// Messages a source may get at once.
const BURST: f64 = 10.0;
/// Messages a source gets each second after that.
const RATE: f64 = 10.0;
/// Messages all sources behind one port may get together at once, and each second.
const TOTAL: f64 = 1000.0;
/// Sources that are remembered; those for which there is no room have their port's total alone.
const SOURCES: usize = 4096;

/// Token buckets: one a source, one a port, so that what one port brings silences nobody behind another.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    sources: HashMap<(Option<PortId>, IpAddr), Bucket>,
    totals: HashMap<Option<PortId>, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Limiter {
    /// Whether `source` may be told one thing more about what came in by a port; none is for what others
    /// say of the node's own packets.
    pub(super) fn allow(&mut self, now: Instant, ingress: Option<PortId>, source: IpAddr) -> bool {
        let full = |tokens| Bucket {
            tokens,
            filled: now,
        };
        let total = self.totals.entry(ingress).or_insert_with(|| full(TOTAL));
        total.fill(now, TOTAL, TOTAL);
        if total.tokens < 1.0 {
            return false;
        }
        total.tokens -= 1.0;
        let key = (ingress, source);
        if !self.sources.contains_key(&key) && self.sources.len() >= SOURCES {
            self.forget_full(now);
            if self.sources.len() >= SOURCES {
                return true;
            }
        }
        let bucket = self.sources.entry(key).or_insert_with(|| full(BURST));
        bucket.fill(now, RATE, BURST);
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        } else if let Some(total) = self.totals.get_mut(&ingress) {
            total.tokens += 1.0;
        }
        allowed
    }

    /// Forgets the sources whose bucket is full again: it makes no difference.
    fn forget_full(&mut self, now: Instant) {
        self.sources.retain(|_, bucket| {
            bucket.fill(now, RATE, BURST);
            bucket.tokens < BURST
        });
    }
}

impl Bucket {
    fn fill(&mut self, now: Instant, rate: f64, most: f64) {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * rate).min(most);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn source(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[test]
    fn a_source_has_a_burst_and_then_a_rate() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let mut allow = |at, who| limiter.allow(at, None, who);
        let passed = (0..100).filter(|_| allow(start, source(1))).count();
        assert_eq!(passed, 10);
        assert!(allow(start, source(2)), "another source has its own");
        let later = start + Duration::from_millis(500);
        let passed = (0..100).filter(|_| allow(later, source(1))).count();
        assert_eq!(passed, 5);
    }

    #[test]
    fn many_sources_share_a_total_and_take_bounded_memory() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let passed = (0..100_000)
            .filter(|n| limiter.allow(start, None, source(*n)))
            .count();
        assert_eq!(passed, 1000);
        assert!(limiter.sources.len() <= SOURCES);
        assert!(limiter.allow(start + Duration::from_secs(2), None, source(200_000)));
    }

    #[test]
    fn what_one_port_brings_silences_nobody_behind_another() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        for port in 0..10 {
            let flood = (0..10_000).map(|n| source(port * 10_000 + n));
            let passed = flood.filter(|who| limiter.allow(start, Some(PortId(port as u16)), *who));
            assert_eq!(passed.count(), 1000, "port {port}");
        }
        assert!(limiter.sources.len() <= SOURCES);
        assert!(limiter.allow(start, Some(PortId(99)), source(1)));
    }
}
