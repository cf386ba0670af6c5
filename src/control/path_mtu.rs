//! Path MTUs, a far end each: what the underlay's ICMP errors say (RFC 1191 section 6.3), held against
//! what packets of our own find (RFC 4821, RFC 8899).
//!
//! ```text
//!  an error says M        M < floor ─▶ ignored       M ≥ 1280 ─▶ believed, then measured
//!                         else, or after a lie ─▶ measured, then believed
//!  measured: N fits ─▶ that is the path's MTU    M < N ─▶ and the error was a lie
//!            nothing answers ─▶ the error is believed
//! ```
//!
//! What is known is measured again each minute, and forgotten after ten. Bounded, and says so when it is
//! full.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::wire::{Mtu, icmp};

/// How long a path MTU is believed (RFC 1191 section 6.3 recommends 10 minutes), and how long a far end
/// is remembered that lies were told about.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// How often a path whose MTU is known is measured again: it may have become wider.
pub const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How long a measurement is thought to hold: a path is not measured more often.
pub const FRESH: Duration = Duration::from_secs(2);

/// Far ends that something is remembered of at most.
pub const CAPACITY: usize = 4096;

/// Hardly any link has less, so an error that says so is not believed at once; and no IPv6 path has
/// (RFC 8200 section 5).
const CREDIBLE: Mtu = Mtu(1280);

/// What a router on a link of 1500 bytes is taken to mean, at most, that names no MTU.
const PLATEAU: Mtu = Mtu(1492);

/// What is known of paths now.
#[derive(Debug)]
pub struct PathMtus {
    floor: Mtu,
    paths: BTreeMap<IpAddr, Path>,
}

#[derive(Debug, Clone, Copy)]
struct Path {
    /// What is believed, and since when.
    mtu: Option<(Mtu, Instant)>,
    /// The least that errors said which is not measured yet, believed or not, and when that was.
    claim: Option<(Mtu, Instant)>,
    /// When a measurement refuted what an error had said.
    lied: Option<Instant>,
    /// When it was measured last, or when that began.
    measured: Option<Instant>,
}

impl Path {
    fn is_fresh(&self, now: Instant) -> bool {
        self.measured
            .is_some_and(|at| now.saturating_duration_since(at) < FRESH)
    }
}

/// What became of a piece of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The path MTU is lower now; to be measured.
    Lowered,
    /// Not believed yet; to be measured.
    Doubted,
    /// The path MTU is higher again.
    Raised,
    /// As before, but what an error had said, and nobody believed, is not so: to be doubted from now on.
    Refuted,
    /// Nothing new: not lower than what was known.
    Ignored,
    /// Lower than any path's.
    TooLow,
    /// There is no room for another far end.
    Full,
}

impl PathMtus {
    /// Nothing known yet. No error is believed that says that an IPv4 path takes less than `floor`.
    pub fn new(floor: Mtu) -> Self {
        Self {
            floor,
            paths: BTreeMap::new(),
        }
    }

    /// An ICMP error says that packets up to `mtu` reach a far end; `link` is what the uplink takes.
    pub fn claim(&mut self, now: Instant, far_end: IpAddr, mtu: Mtu, link: Mtu) -> News {
        let least = if far_end.is_ipv4() {
            self.floor
        } else {
            CREDIBLE
        };
        if mtu < least {
            return News::TooLow;
        }
        if mtu >= self.get(far_end).unwrap_or(link) {
            return News::Ignored;
        }
        let Some(path) = self.path(far_end) else {
            return News::Full;
        };
        let lower = path.claim.is_none_or(|(least, _)| mtu < least);
        if lower {
            path.claim = Some((mtu, now));
        }
        if mtu < CREDIBLE || path.lied.is_some() {
            return News::Doubted;
        }
        path.mtu = Some((mtu, now));
        News::Lowered
    }

    /// Packets of our own were sent: the largest that got through, if any did.
    pub fn measured(
        &mut self,
        now: Instant,
        far_end: IpAddr,
        found: Option<Mtu>,
        link: Mtu,
    ) -> News {
        let Some(path) = self.path(far_end) else {
            return News::Full;
        };
        let begun = path.measured.replace(now);
        let claim = path.claim.take();
        // The path may have changed meanwhile: that has to be measured again.
        if claim.is_some_and(|(_, since)| begun.is_some_and(|begun| since > begun)) {
            path.claim = claim;
            return News::Ignored;
        }
        let claim = claim.map(|(claim, _)| claim);
        let before = path.mtu.map(|(mtu, _)| mtu);
        let doubted = path.lied.is_some();
        let lied = |(said, found): (Mtu, Mtu)| {
            // Who names no MTU is taken to mean a plateau: that guess is ours.
            let guessed = said <= PLATEAU && icmp::PLATEAUS.contains(&said.0);
            said < found && !(found < link && guessed)
        };
        if claim.zip(found).is_some_and(lied) {
            path.lied = Some(now);
        }
        path.mtu = match found {
            Some(found) => (found < link).then_some((found, now)),
            // It cannot be found out: what was said has to do.
            None => claim.map(|claim| (claim, now)).or(path.mtu),
        };
        let after = path.mtu.map(|(mtu, _)| mtu);
        match (before.unwrap_or(link), after.unwrap_or(link)) {
            (before, after) if after < before => News::Lowered,
            (before, after) if after > before => News::Raised,
            _ if path.lied.is_some() && !doubted => News::Refuted,
            _ => News::Ignored,
        }
    }

    /// Whether a far end's path was measured a moment ago: it need not be again.
    pub fn is_fresh(&self, now: Instant, far_end: IpAddr) -> bool {
        self.paths
            .get(&far_end)
            .is_some_and(|path| path.is_fresh(now))
    }

    /// Whether errors have said something of a far end's path that is not measured yet.
    pub fn is_claimed(&self, far_end: IpAddr) -> bool {
        self.paths
            .get(&far_end)
            .is_some_and(|path| path.claim.is_some())
    }

    /// A far end's path begins to be measured.
    pub fn begin(&mut self, now: Instant, far_end: IpAddr) {
        if let Some(path) = self.path(far_end) {
            path.measured = Some(now);
        }
    }

    /// The far ends whose paths are to be measured again: a claim waits, or it is a minute ago.
    pub fn due(&self, now: Instant) -> Vec<IpAddr> {
        let due = |path: &&Path| {
            let age = path.measured.map(|at| now.saturating_duration_since(at));
            let patience = if path.claim.is_some() {
                FRESH
            } else {
                LOOK_AGAIN
            };
            (path.claim.is_some() || path.mtu.is_some()) && age.is_none_or(|age| age >= patience)
        };
        let due = self.paths.iter().filter(|(_, path)| due(path));
        due.map(|(far_end, _)| *far_end).collect()
    }

    /// The path MTU that is believed of a far end.
    pub fn get(&self, far_end: IpAddr) -> Option<Mtu> {
        let (mtu, _) = self.paths.get(&far_end)?.mtu?;
        Some(mtu)
    }

    /// The far ends that lies were told about: what an error says of one is measured first.
    pub fn doubted(&self) -> impl Iterator<Item = IpAddr> {
        let doubted = self.paths.iter().filter(|(_, path)| path.lied.is_some());
        doubted.map(|(far_end, _)| *far_end)
    }

    /// Forgets what is too old; the far ends whose path MTU is believed no more.
    pub fn expire(&mut self, now: Instant) -> Vec<IpAddr> {
        let old = |at: Instant| now.saturating_duration_since(at) >= LIFETIME;
        let mut expired = Vec::new();
        self.paths.retain(|far_end, path| {
            if path.mtu.is_some_and(|(_, at)| old(at)) {
                (path.mtu, path.claim) = (None, None);
                expired.push(*far_end);
            }
            path.lied = path.lied.filter(|at| !old(*at));
            path.mtu.is_some() || path.claim.is_some() || path.lied.is_some() || path.is_fresh(now)
        });
        expired
    }

    fn path(&mut self, far_end: IpAddr) -> Option<&mut Path> {
        let full = self.paths.len() >= CAPACITY;
        match self.paths.entry(far_end) {
            std::collections::btree_map::Entry::Occupied(path) => Some(path.into_mut()),
            std::collections::btree_map::Entry::Vacant(_) if full => None,
            std::collections::btree_map::Entry::Vacant(place) => Some(place.insert(Path {
                mtu: None,
                claim: None,
                lied: None,
                measured: None,
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 30, 0, 12));
    const LINK: Mtu = Mtu(1500);

    fn paths() -> (PathMtus, Instant) {
        (PathMtus::new(Mtu(552)), Instant::now())
    }

    #[test]
    fn only_what_is_lower_and_possible_is_learnt() {
        let (mut paths, now) = paths();
        for (mtu, news, then) in [
            (1500, News::Ignored, None),
            (9000, News::Ignored, None),
            (551, News::TooLow, None),
            (1400, News::Lowered, Some(Mtu(1400))),
            (1400, News::Ignored, Some(Mtu(1400))),
            (1420, News::Ignored, Some(Mtu(1400))),
            (1280, News::Lowered, Some(Mtu(1280))),
            (1279, News::Doubted, Some(Mtu(1280))),
        ] {
            assert_eq!(paths.claim(now, FAR, Mtu(mtu), LINK), news, "{mtu}");
            assert_eq!(paths.get(FAR), then, "{mtu}");
        }
        let v6: IpAddr = "fd00::2".parse().unwrap();
        assert_eq!(paths.claim(now, v6, Mtu(1279), LINK), News::TooLow);
        assert_eq!(paths.claim(now, v6, Mtu(1280), LINK), News::Lowered);
    }

    #[test]
    fn a_lie_is_found_out_and_the_next_one_not_believed() {
        let (mut paths, now) = paths();
        assert_eq!(paths.claim(now, FAR, Mtu(1300), LINK), News::Lowered);
        assert_eq!(paths.measured(now, FAR, Some(LINK), LINK), News::Raised);
        assert_eq!(paths.get(FAR), None);
        assert_eq!(paths.claim(now, FAR, Mtu(1300), LINK), News::Doubted);
        assert_eq!(paths.get(FAR), None);
        assert_eq!(paths.measured(now, FAR, Some(LINK), LINK), News::Ignored);
        assert!(paths.doubted().eq([FAR]));
        // Ten minutes later it is believed again.
        paths.expire(now + LIFETIME);
        assert_eq!(paths.doubted().count(), 0);
        assert_eq!(
            paths.claim(now + LIFETIME, FAR, Mtu(1300), LINK),
            News::Lowered
        );
    }

    /// Who lies about a path that is narrower than the link, and known to be, is believed once as well.
    #[test]
    fn a_lie_about_a_narrow_path_is_found_out_too() {
        let (mut paths, now) = paths();
        let narrow = Some(Mtu(1400));
        assert_eq!(paths.claim(now, FAR, Mtu(1400), LINK), News::Lowered);
        assert_eq!(paths.measured(now, FAR, narrow, LINK), News::Ignored);
        assert_eq!(paths.doubted().count(), 0, "it was the truth");
        assert_eq!(paths.claim(now, FAR, Mtu(1280), LINK), News::Lowered);
        assert_eq!(paths.measured(now, FAR, narrow, LINK), News::Raised);
        assert!(paths.doubted().eq([FAR]));
        assert_eq!(paths.claim(now, FAR, Mtu(1280), LINK), News::Doubted);
        assert_eq!(paths.get(FAR), narrow);
        assert_eq!(paths.measured(now, FAR, narrow, LINK), News::Ignored);
        // The truth is believed all the same.
        let narrower = Some(Mtu(1280));
        assert_eq!(paths.claim(now, FAR, Mtu(1280), LINK), News::Doubted);
        assert_eq!(paths.measured(now, FAR, narrower, LINK), News::Lowered);
        assert_eq!(paths.get(FAR), narrower);
    }

    /// A path may become narrower while it is measured: that it was wider then makes no liar of who says so.
    #[test]
    fn what_is_said_during_a_measurement_is_left_to_the_next() {
        let (mut paths, now) = paths();
        paths.begin(now, FAR);
        let (meanwhile, end) = (now + FRESH / 2, now + FRESH);
        assert_eq!(paths.claim(meanwhile, FAR, Mtu(1400), LINK), News::Lowered);
        assert_eq!(paths.measured(end, FAR, Some(LINK), LINK), News::Ignored);
        let narrow = Some(Mtu(1400));
        assert_eq!((paths.get(FAR), paths.doubted().count()), (narrow, 0));
        assert_eq!(paths.due(end + FRESH), [FAR]);
        paths.begin(end + FRESH, FAR);
        let news = paths.measured(end + FRESH, FAR, narrow, LINK);
        assert_eq!((news, paths.get(FAR)), (News::Ignored, narrow));
        assert_eq!(paths.doubted().count(), 0);
        assert!(paths.due(end + FRESH + FRESH).is_empty());
        // So it is when something else was said before.
        paths.claim(end, FAR, Mtu(1390), LINK);
        paths.begin(end, FAR);
        paths.claim(end + FRESH / 2, FAR, Mtu(1300), LINK);
        let news = paths.measured(end + FRESH, FAR, Some(Mtu(1390)), LINK);
        assert_eq!((news, paths.get(FAR)), (News::Ignored, Some(Mtu(1300))));
        assert_eq!(paths.doubted().count(), 0);
    }

    #[test]
    fn a_lie_right_after_a_measurement_is_measured_when_that_is_no_more_fresh() {
        let (mut paths, now) = paths();
        paths.claim(now, FAR, Mtu(1400), LINK);
        paths.measured(now, FAR, Some(Mtu(1400)), LINK);
        let soon = now + FRESH / 2;
        assert_eq!(paths.claim(soon, FAR, Mtu(1280), LINK), News::Lowered);
        assert!(paths.due(soon).is_empty());
        assert_eq!(paths.due(now + FRESH), [FAR]);
    }

    /// Who names no MTU is taken to mean the next plateau, which may be less than what fits.
    #[test]
    fn a_router_that_names_no_mtu_is_no_liar() {
        let (mut paths, now) = paths();
        for plateau in [1492, 1006] {
            paths.claim(now, FAR, Mtu(plateau), LINK);
            paths.measured(now, FAR, Some(Mtu(1496)), LINK);
            assert_eq!(paths.doubted().count(), 0, "{plateau}");
        }
        paths.claim(now, FAR, Mtu(1006), LINK);
        assert_eq!(paths.measured(now, FAR, Some(LINK), LINK), News::Raised);
        assert!(paths.doubted().eq([FAR]), "nothing is narrow");
    }

    /// That a path became wider does not make a liar of who said what it was.
    #[test]
    fn an_error_about_a_path_that_became_wider_was_no_lie() {
        let (mut paths, now) = paths();
        paths.claim(now, FAR, Mtu(1400), LINK);
        paths.measured(now, FAR, Some(Mtu(1400)), LINK);
        let later = now + LOOK_AGAIN;
        assert_eq!(paths.measured(later, FAR, Some(LINK), LINK), News::Raised);
        assert_eq!(paths.doubted().count(), 0);
        assert_eq!(paths.claim(later, FAR, Mtu(1400), LINK), News::Lowered);
    }

    #[test]
    fn a_great_drop_is_believed_when_it_is_measured_or_cannot_be() {
        let (mut paths, now) = paths();
        assert_eq!(paths.claim(now, FAR, Mtu(600), LINK), News::Doubted);
        assert_eq!(
            paths.measured(now, FAR, Some(Mtu(620)), LINK),
            News::Lowered
        );
        assert_eq!(
            paths.get(FAR),
            Some(Mtu(620)),
            "what is measured, not what is said"
        );
        let other: IpAddr = [10, 30, 0, 13].into();
        assert_eq!(paths.claim(now, other, Mtu(600), LINK), News::Doubted);
        assert_eq!(paths.measured(now, other, None, LINK), News::Lowered);
        assert_eq!(paths.get(other), Some(Mtu(600)));
        // Nor is what was never believed and is not so.
        let liar: IpAddr = [10, 30, 0, 15].into();
        assert_eq!(paths.claim(now, liar, Mtu(600), LINK), News::Doubted);
        assert_eq!(paths.measured(now, liar, Some(LINK), LINK), News::Refuted);
        assert!(paths.doubted().eq([FAR, liar]));
        assert_eq!(paths.claim(now, liar, Mtu(1300), LINK), News::Doubted);
        // Silence alone proves nothing.
        let third: IpAddr = [10, 30, 0, 14].into();
        assert_eq!(paths.measured(now, third, None, LINK), News::Ignored);
        assert_eq!(paths.get(third), None);
    }

    #[test]
    fn a_path_that_became_wider_is_noticed_within_a_minute() {
        let (mut paths, now) = paths();
        paths.claim(now, FAR, Mtu(1400), LINK);
        assert_eq!(paths.due(now), [FAR]);
        assert!(!paths.is_fresh(now, FAR), "nobody has begun yet");
        paths.begin(now, FAR);
        assert!(paths.is_fresh(now, FAR) && !paths.is_fresh(now + FRESH, FAR));
        assert_eq!(
            paths.measured(now, FAR, Some(Mtu(1400)), LINK),
            News::Ignored
        );
        assert!(
            paths
                .due(now + LOOK_AGAIN - Duration::from_secs(1))
                .is_empty()
        );
        assert_eq!(paths.due(now + LOOK_AGAIN), [FAR]);
        let later = now + LOOK_AGAIN;
        assert_eq!(
            paths.measured(later, FAR, Some(Mtu(1450)), LINK),
            News::Raised
        );
        assert_eq!(paths.get(FAR), Some(Mtu(1450)));
    }

    #[test]
    fn ten_minutes_later_it_is_forgotten() {
        let (mut paths, start) = paths();
        paths.claim(start, FAR, Mtu(1400), LINK);
        // A repetition is no reason to believe it for longer; something lower is, and a measurement.
        let later = start + LIFETIME - Duration::from_secs(1);
        assert_eq!(paths.claim(later, FAR, Mtu(1400), LINK), News::Ignored);
        assert!(paths.expire(later).is_empty());
        assert_eq!(paths.expire(start + LIFETIME), [FAR]);
        assert_eq!(paths.get(FAR), None);
        paths.claim(start, FAR, Mtu(1400), LINK);
        paths.claim(later, FAR, Mtu(1300), LINK);
        assert!(paths.expire(start + LIFETIME).is_empty());
        assert_eq!(paths.get(FAR), Some(Mtu(1300)));
        paths.measured(later, FAR, Some(Mtu(1300)), LINK);
        assert!(
            paths
                .expire(later + LIFETIME - Duration::from_secs(1))
                .is_empty()
        );
        assert_eq!(paths.expire(later + LIFETIME), [FAR]);
        assert!(paths.paths.is_empty());
    }

    #[test]
    fn a_full_table_says_so_and_keeps_what_it_has() {
        let (mut paths, now) = paths();
        let far = |n: usize| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n as u32));
        for n in 0..CAPACITY {
            assert_eq!(paths.claim(now, far(n), Mtu(1400), LINK), News::Lowered);
        }
        assert_eq!(paths.claim(now, far(CAPACITY), Mtu(1400), LINK), News::Full);
        assert_eq!(paths.claim(now, far(0), Mtu(1300), LINK), News::Lowered);
        assert_eq!(paths.expire(now + LIFETIME).len(), CAPACITY);
        assert_eq!(
            paths.claim(now, far(CAPACITY), Mtu(1400), LINK),
            News::Lowered
        );
    }
}
