//! How often a source is told of its errors (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// Messages a source may get at once.
const BURST: f64 = 10.0;
/// Messages a source gets each second after that.
const RATE: f64 = 10.0;
/// Messages all sources together may get at once, and each second.
const TOTAL: f64 = 1000.0;
/// Sources that are remembered; a new one beyond that finds the forgotten ones gone.
const SOURCES: usize = 4096;

/// Token buckets: one a source, one for all.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    sources: HashMap<IpAddr, Bucket>,
    total: Option<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Limiter {
    /// Whether `source` may be told one thing more.
    pub(super) fn allow(&mut self, now: Instant, source: IpAddr) -> bool {
        if !self.sources.contains_key(&source) && self.sources.len() >= SOURCES {
            self.forget_full(now);
            if self.sources.len() >= SOURCES {
                return false;
            }
        }
        let full = |tokens| Bucket {
            tokens,
            filled: now,
        };
        let bucket = self.sources.entry(source).or_insert_with(|| full(BURST));
        bucket.fill(now, RATE, BURST);
        let total = self.total.get_or_insert_with(|| full(TOTAL));
        total.fill(now, TOTAL, TOTAL);
        let allowed = bucket.tokens >= 1.0 && total.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
            total.tokens -= 1.0;
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
        let passed = (0..100).filter(|_| limiter.allow(start, source(1))).count();
        assert_eq!(passed, 10);
        assert!(
            limiter.allow(start, source(2)),
            "another source has its own"
        );
        let later = start + Duration::from_millis(500);
        let passed = (0..100).filter(|_| limiter.allow(later, source(1))).count();
        assert_eq!(passed, 5);
    }

    #[test]
    fn many_sources_share_a_total_and_take_bounded_memory() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let passed = (0..100_000)
            .filter(|n| limiter.allow(start, source(*n)))
            .count();
        assert_eq!(passed, 1000);
        assert!(limiter.sources.len() <= SOURCES);
        assert!(limiter.allow(start + Duration::from_secs(2), source(200_000)));
    }
}
