//! The search for throughput: trials at rates that close in on the largest one without too much loss.
//!
//! After MLRsearch (draft-ietf-bmwg-mlrsearch): several goals in one search, from the loosest to the
//! strictest; short trials first, to find where to look, then trials of full length, several at each
//! rate, of which most must pass. Bounds that do not hold at full length are searched for again with
//! steps that double.
//!
//! Pure: what is measured is behind [`Device`].

use std::time::Duration;

/// Something that packets can be sent through.
pub trait Device {
    /// Why a trial could not be made.
    type Error;

    /// Sends packets at `rate` a second for `duration`.
    fn trial(&mut self, rate: f64, duration: Duration) -> Result<Trial, Self::Error>;
}

/// What came of one trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Packets that were to be sent.
    pub intended: u64,
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that arrived.
    pub received: u64,
    /// How long was sent, in seconds.
    pub seconds: f64,
}

impl Trial {
    /// The part of what was sent that did not arrive.
    pub fn loss_ratio(&self) -> f64 {
        if self.sent == 0 {
            return 1.0;
        }
        self.sent.saturating_sub(self.received) as f64 / self.sent as f64
    }

    /// Packets a second that arrived.
    pub fn forwarding_rate(&self) -> f64 {
        if self.seconds > 0.0 {
            self.received as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// Whether the generator sent what it was to send. Where it shares a core with the system under
    /// test it may not be able to, which then is the system's limit.
    fn is_full(&self) -> bool {
        self.sent as f64 >= self.intended as f64 * FULL
    }

    fn meets(&self, goal: Goal) -> bool {
        self.is_full() && self.loss_ratio() <= goal.loss_ratio
    }
}

/// The part of a trial's packets that must have been sent for its rate to count as offered.
const FULL: f64 = 0.99;

/// What is searched for: the largest rate with a loss ratio no larger than this.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// 0 for the no-drop rate.
    pub loss_ratio: f64,
}

impl Goal {
    /// No drop rate.
    pub const NDR: Self = Self { loss_ratio: 0.0 };
    /// Partial drop rate, as FD.io CSIT defines it.
    pub const PDR: Self = Self { loss_ratio: 0.005 };
}

/// How thoroughly is searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// The largest rate that makes sense, in packets a second.
    pub most: f64,
    /// The smallest.
    pub least: f64,
    /// A trial's length while bounds are looked for.
    pub first_duration: Duration,
    /// A trial's length while bounds are confirmed.
    pub duration: Duration,
    /// Trials at each rate of which more than half must pass: an odd number.
    pub trials: usize,
    /// How close the bounds must come, relative to the upper one.
    pub width: f64,
    /// Trials at most; the bounds are what they are then.
    pub budget: usize,
}

/// The rate that a goal allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The largest rate found that meets the goal; none if none did.
    pub lower: Option<f64>,
    /// The smallest rate above it that does not; none if all did.
    pub upper: Option<f64>,
}

impl Bounds {
    /// How far the bounds are apart, relative to the upper one; where there is none, that is `most`, the
    /// largest rate that was searched at.
    pub fn width(&self, most: f64) -> f64 {
        let upper = self.upper.unwrap_or(most);
        self.lower.map_or(1.0, |lower| (upper - lower) / upper)
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// For each goal, in the order in which they were given. All follow from the same trials, so a
    /// stricter goal never has the higher rate.
    pub bounds: Vec<Bounds>,
    /// Packets a second that arrived when as many as possible were sent (FD.io CSIT: MRR).
    pub overload: f64,
    /// Trials made.
    pub trials: usize,
}

/// Searches for the rates of `goals`.
pub fn search<D: Device>(device: &mut D, goals: &[Goal], plan: &Plan) -> Result<Found, D::Error> {
    let mut search = Search {
        device,
        plan,
        made: 0,
    };
    let (overload, seen) = search.overload()?;
    let mut order: Vec<usize> = (0..goals.len()).collect();
    order.sort_by(|a, b| goals[*b].loss_ratio.total_cmp(&goals[*a].loss_ratio));
    let (mut quick, mut full) = (search.phase(true), search.phase(false));
    let mut guess = seen;
    for index in &order {
        let rough = search.close_in(goals[*index], &mut quick, guess, None)?;
        let at = rough.lower.unwrap_or(plan.least);
        let bounds = search.close_in(goals[*index], &mut full, at, rough.upper)?;
        guess = bounds.lower.unwrap_or(plan.least);
    }
    // Trials for a stricter goal may have moved the bounds of a looser one, and opened them again.
    for index in &order {
        let at = full.bounds(goals[*index]).lower.unwrap_or(plan.least);
        search.close_in(goals[*index], &mut full, at, None)?;
    }
    Ok(Found {
        bounds: goals.iter().map(|goal| full.bounds(*goal)).collect(),
        overload,
        trials: search.made,
    })
}

struct Search<'a, D> {
    device: &'a mut D,
    plan: &'a Plan,
    made: usize,
}

/// What was measured with trials of one length.
struct Phase {
    duration: Duration,
    trials: usize,
    width: f64,
    measured: Vec<(f64, Vec<Trial>)>,
}

impl<D: Device> Search<'_, D> {
    fn phase(&self, quick: bool) -> Phase {
        Phase {
            duration: if quick {
                self.plan.first_duration
            } else {
                self.plan.duration
            },
            trials: if quick { 1 } else { self.plan.trials.max(1) },
            width: self.plan.width * if quick { 3.0 } else { 1.0 },
            measured: Vec::new(),
        }
    }

    /// What arrives when all that is possible is sent; and the largest rate seen, as a system that
    /// spends its time on dropping does better when only that is sent.
    fn overload(&mut self) -> Result<(f64, f64), D::Error> {
        let first = self.trial(self.plan.most, self.plan.first_duration)?;
        let rate = self.bounded(first.forwarding_rate());
        let second = self.trial(rate, self.plan.first_duration)?;
        let overload = first.forwarding_rate();
        Ok((overload, overload.max(second.forwarding_rate())))
    }

    /// Brackets the goal's rate from `guess` on, then halves the bracket until it is narrow.
    fn close_in(
        &mut self,
        goal: Goal,
        phase: &mut Phase,
        guess: f64,
        likely_upper: Option<f64>,
    ) -> Result<Bounds, D::Error> {
        let mut next = Some(self.bounded(guess));
        let mut likely_upper = likely_upper;
        let mut step = phase.width;
        while let Some(rate) = next {
            if self.made >= self.plan.budget {
                break;
            }
            self.measure(goal, phase, rate)?;
            let bounds = phase.bounds(goal);
            next = match (bounds.lower, bounds.upper) {
                (Some(lower), Some(upper)) => {
                    let narrow = upper - lower <= phase.width * upper;
                    (!narrow).then(|| (lower * upper).sqrt())
                }
                (Some(lower), None) if lower >= self.plan.most => None,
                (Some(lower), None) => {
                    let hint = likely_upper.take().filter(|upper| *upper > lower);
                    let up = hint.unwrap_or(lower * (1.0 + step));
                    step *= 2.0;
                    Some(self.bounded(up))
                }
                (None, Some(upper)) if upper <= self.plan.least => None,
                (None, Some(upper)) => {
                    let down = upper * (1.0 - step.min(0.75));
                    step *= 2.0;
                    Some(self.bounded(down))
                }
                (None, None) => None,
            };
        }
        Ok(phase.bounds(goal))
    }

    /// Makes trials at a rate until it is clear whether most meet the goal.
    fn measure(&mut self, goal: Goal, phase: &mut Phase, rate: f64) -> Result<(), D::Error> {
        while phase.verdict(rate, goal).is_none() {
            let trial = self.trial(rate, phase.duration)?;
            phase.add(rate, trial);
        }
        Ok(())
    }

    fn trial(&mut self, rate: f64, duration: Duration) -> Result<Trial, D::Error> {
        self.made += 1;
        self.device.trial(rate, duration)
    }

    fn bounded(&self, rate: f64) -> f64 {
        rate.clamp(self.plan.least, self.plan.most)
    }
}

impl Phase {
    fn add(&mut self, rate: f64, trial: Trial) {
        match self.measured.iter_mut().find(|(known, _)| *known == rate) {
            Some((_, trials)) => trials.push(trial),
            None => self.measured.push((rate, vec![trial])),
        }
    }

    /// Whether a rate meets the goal; nothing as long as further trials could change that.
    fn verdict(&self, rate: f64, goal: Goal) -> Option<bool> {
        let (_, trials) = self.measured.iter().find(|(known, _)| *known == rate)?;
        let good = trials.iter().filter(|trial| trial.meets(goal)).count();
        let most = self.trials / 2 + 1;
        if good >= most {
            return Some(true);
        }
        (trials.len() - good >= most).then_some(false)
    }

    /// The largest rate below all that fail, and the smallest that fails.
    fn bounds(&self, goal: Goal) -> Bounds {
        let rates = |wanted: bool| {
            self.measured
                .iter()
                .map(|(rate, _)| *rate)
                .filter(move |rate| self.verdict(*rate, goal) == Some(wanted))
        };
        let upper = rates(false).min_by(f64::total_cmp);
        let lower = rates(true)
            .filter(|rate| upper.is_none_or(|upper| *rate < upper))
            .max_by(f64::total_cmp);
        Bounds { lower, upper }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device on a virtual clock: it forwards `capacity` packets a second, loses `noise` of every
    /// so-many-th trial, and from `flood` packets a second on forwards only half of its capacity.
    struct Simulated {
        capacity: f64,
        flood: f64,
        most: f64,
        bad_every: usize,
        trials: usize,
        clock: Duration,
    }

    impl Default for Simulated {
        fn default() -> Self {
            Self {
                capacity: 437_000.0,
                flood: f64::INFINITY,
                most: f64::INFINITY,
                bad_every: usize::MAX,
                trials: 0,
                clock: Duration::ZERO,
            }
        }
    }

    impl Device for Simulated {
        type Error = ();

        fn trial(&mut self, rate: f64, duration: Duration) -> Result<Trial, ()> {
            self.trials += 1;
            self.clock += duration;
            let seconds = duration.as_secs_f64();
            let sent = rate.min(self.most) * seconds;
            let capacity = if rate < self.flood {
                self.capacity
            } else {
                self.capacity / 2.0
            };
            let mut received = sent.min(capacity * seconds).round();
            if self.trials.is_multiple_of(self.bad_every) {
                received *= 0.97;
            }
            Ok(Trial {
                intended: (rate * seconds).round() as u64,
                sent: sent.round() as u64,
                received: received as u64,
                seconds,
            })
        }
    }

    fn plan() -> Plan {
        Plan {
            most: 2e6,
            least: 1e3,
            first_duration: Duration::from_millis(100),
            duration: Duration::from_secs(1),
            trials: 3,
            width: 0.01,
            budget: 200,
        }
    }

    fn find(device: &mut Simulated) -> Found {
        search(device, &[Goal::NDR, Goal::PDR], &plan()).unwrap()
    }

    fn assert_near(bounds: Bounds, wanted: f64) {
        let (lower, upper) = (bounds.lower.unwrap(), bounds.upper.unwrap());
        assert!(
            lower <= wanted * 1.0001 && upper >= wanted * 0.9999,
            "{bounds:?} {wanted}"
        );
        assert!(bounds.width(plan().most) <= 0.01, "{bounds:?}");
    }

    #[test]
    fn both_rates_are_found_to_a_hundredth() {
        for capacity in [1_500.0, 88_000.0, 437_000.0, 1_900_000.0] {
            let mut device = Simulated {
                capacity,
                ..Simulated::default()
            };
            let found = find(&mut device);
            assert_near(found.bounds[0], capacity);
            assert_near(found.bounds[1], capacity / 0.995);
            assert!((found.overload / capacity - 1.0).abs() < 0.01);
            assert!(device.clock < Duration::from_secs(60), "{:?}", device.clock);
        }
    }

    #[test]
    fn a_device_that_loses_nothing_has_no_upper_bound() {
        let mut device = Simulated {
            capacity: 1e9,
            ..Simulated::default()
        };
        let found = find(&mut device);
        for bounds in found.bounds {
            assert_eq!((bounds.lower, bounds.upper), (Some(2e6), None));
            assert_eq!(bounds.width(plan().most), 0.0);
        }
    }

    #[test]
    fn a_generator_that_cannot_send_more_is_the_limit() {
        let mut device = Simulated {
            capacity: 1e9,
            most: 610_000.0,
            ..Simulated::default()
        };
        let found = find(&mut device);
        assert_near(found.bounds[0], 610_000.0 / FULL);
    }

    #[test]
    fn a_device_that_breaks_down_under_overload_is_found_below_it() {
        let mut device = Simulated {
            flood: 500_000.0,
            ..Simulated::default()
        };
        assert_near(find(&mut device).bounds[0], 437_000.0);
    }

    #[test]
    fn one_bad_trial_in_three_does_not_move_the_rate() {
        let mut device = Simulated {
            bad_every: 4,
            ..Simulated::default()
        };
        let found = find(&mut device);
        assert!(
            found.bounds[0].lower.unwrap() > 0.9 * 437_000.0,
            "{found:?}"
        );
    }

    #[test]
    fn what_always_loses_ends_at_the_least_rate() {
        let mut device = Simulated {
            bad_every: 1,
            ..Simulated::default()
        };
        let found = find(&mut device);
        assert_eq!(found.bounds[0].lower, None);
        assert_eq!(found.bounds[0].upper, Some(1e3));
        assert!(found.trials < 100, "{}", found.trials);
    }

    #[test]
    fn the_budget_ends_a_search() {
        let mut device = Simulated::default();
        let plan = Plan {
            budget: 7,
            ..plan()
        };
        let found = search(&mut device, &[Goal::NDR], &plan).unwrap();
        assert!(found.trials <= 7 + plan.trials, "{}", found.trials);
        assert!(
            found.bounds[0].width(plan.most) > plan.width,
            "{:?}",
            found.bounds
        );
    }

    #[test]
    fn bounds_without_an_upper_one_are_as_wide_as_what_was_not_tried() {
        let bounds = |lower| Bounds { lower, upper: None };
        assert_eq!(bounds(Some(150.0)).width(200.0), 0.25);
        assert_eq!(bounds(Some(200.0)).width(200.0), 0.0);
        assert_eq!(bounds(None).width(200.0), 1.0);
    }
}
