//! Path MTUs learnt from the underlay's ICMP errors, a far end each (RFC 1191 section 6.3).
//!
//! What is learnt is forgotten after ten minutes: the path may have changed for the better, and the
//! next packet that is too large tells if it has not. Bounded, and says so when it is full.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::wire::Mtu;

/// How long a path MTU is believed (RFC 1191 section 6.3 recommends 10 minutes).
pub const LIFETIME: Duration = Duration::from_secs(600);

/// Far ends whose path MTU is remembered at most.
pub const CAPACITY: usize = 4096;

/// No IPv4 path has less (RFC 1191 section 3).
const LEAST_V4: Mtu = Mtu(68);

/// No IPv6 path has less (RFC 8200 section 5).
const LEAST_V6: Mtu = Mtu(1280);

/// The path MTUs that are believed now.
#[derive(Debug, Default)]
pub struct PathMtus {
    learnt: BTreeMap<IpAddr, Learnt>,
}

#[derive(Debug, Clone, Copy)]
struct Learnt {
    mtu: Mtu,
    at: Instant,
}

/// What became of a piece of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The path MTU is lower now.
    Lowered,
    /// Nothing new: not lower than what was known, or lower than any path's.
    Ignored,
    /// There is no room for another far end.
    Full,
}

impl PathMtus {
    /// Takes in that packets up to `mtu` reach a far end; `known` is what was believed so far, from
    /// the uplink or from here. Only what is lower is news.
    pub fn learn(&mut self, now: Instant, far_end: IpAddr, mtu: Mtu, known: Mtu) -> News {
        let least = if far_end.is_ipv4() {
            LEAST_V4
        } else {
            LEAST_V6
        };
        if mtu < least || mtu >= known || self.get(far_end).is_some_and(|known| mtu >= known) {
            return News::Ignored;
        }
        if self.learnt.len() >= CAPACITY && !self.learnt.contains_key(&far_end) {
            return News::Full;
        }
        self.learnt.insert(far_end, Learnt { mtu, at: now });
        News::Lowered
    }

    /// The path MTU that was learnt for a far end.
    pub fn get(&self, far_end: IpAddr) -> Option<Mtu> {
        self.learnt.get(&far_end).map(|learnt| learnt.mtu)
    }

    /// Forgets what is too old; the far ends that it was about.
    pub fn expire(&mut self, now: Instant) -> Vec<IpAddr> {
        let old = |learnt: &Learnt| now.saturating_duration_since(learnt.at) >= LIFETIME;
        let expired: Vec<_> = self
            .learnt
            .iter()
            .filter(|(_, learnt)| old(learnt))
            .map(|(far_end, _)| *far_end)
            .collect();
        for far_end in &expired {
            self.learnt.remove(far_end);
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 30, 0, 12));
    const LINK: Mtu = Mtu(1500);

    #[test]
    fn only_what_is_lower_and_possible_is_learnt() {
        let (mut paths, now) = (PathMtus::default(), Instant::now());
        for (mtu, news, then) in [
            (1500, News::Ignored, None),
            (9000, News::Ignored, None),
            (67, News::Ignored, None),
            (1400, News::Lowered, Some(Mtu(1400))),
            (1400, News::Ignored, Some(Mtu(1400))),
            (1420, News::Ignored, Some(Mtu(1400))),
            (68, News::Lowered, Some(Mtu(68))),
        ] {
            assert_eq!(paths.learn(now, FAR, Mtu(mtu), LINK), news, "{mtu}");
            assert_eq!(paths.get(FAR), then, "{mtu}");
        }
        let v6: IpAddr = "fd00::2".parse().unwrap();
        assert_eq!(paths.learn(now, v6, Mtu(1279), LINK), News::Ignored);
        assert_eq!(paths.learn(now, v6, Mtu(1280), LINK), News::Lowered);
    }

    #[test]
    fn ten_minutes_later_it_is_forgotten() {
        let (mut paths, start) = (PathMtus::default(), Instant::now());
        paths.learn(start, FAR, Mtu(1400), LINK);
        // A repetition is no reason to believe it for longer; something lower is.
        let later = start + LIFETIME - Duration::from_secs(1);
        assert_eq!(paths.learn(later, FAR, Mtu(1400), LINK), News::Ignored);
        assert!(paths.expire(later).is_empty());
        assert_eq!(paths.expire(start + LIFETIME), [FAR]);
        assert_eq!(paths.get(FAR), None);
        paths.learn(start, FAR, Mtu(1400), LINK);
        paths.learn(later, FAR, Mtu(1300), LINK);
        assert!(paths.expire(start + LIFETIME).is_empty());
        assert_eq!(paths.get(FAR), Some(Mtu(1300)));
    }

    #[test]
    fn a_full_table_says_so_and_keeps_what_it_has() {
        let (mut paths, now) = (PathMtus::default(), Instant::now());
        let far = |n: usize| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n as u32));
        for n in 0..CAPACITY {
            assert_eq!(paths.learn(now, far(n), Mtu(1400), LINK), News::Lowered);
        }
        assert_eq!(paths.learn(now, far(CAPACITY), Mtu(1400), LINK), News::Full);
        assert_eq!(paths.learn(now, far(0), Mtu(1300), LINK), News::Lowered);
        assert_eq!(paths.expire(now + LIFETIME).len(), CAPACITY);
        assert_eq!(
            paths.learn(now, far(CAPACITY), Mtu(1400), LINK),
            News::Lowered
        );
    }
}
