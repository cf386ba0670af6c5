//! The trial search on simulated devices of every kind.

use std::time::Duration;

use proptest::prelude::*;
use underpass::bench::search::{Device, Found, Goal, Plan, Trial, search};

/// Forwards all up to `clean` packets a second; up to `capacity` it loses the part `leak` of them; no
/// more than `capacity` ever leave it.
#[derive(Debug, Clone)]
struct Simulated {
    clean: f64,
    capacity: f64,
    leak: f64,
    /// One trial in so many is spoilt by something else.
    spoilt: usize,
    rates: Vec<f64>,
}

impl Device for Simulated {
    type Error = std::convert::Infallible;

    fn trial(&mut self, rate: f64, duration: Duration) -> Result<Trial, Self::Error> {
        self.rates.push(rate);
        let seconds = duration.as_secs_f64();
        let sent = (rate * seconds).round();
        let passed = if rate <= self.clean {
            sent
        } else {
            (sent * (1.0 - self.leak)).min(self.capacity * seconds)
        };
        let spoilt = self.rates.len().is_multiple_of(self.spoilt);
        Ok(Trial {
            intended: sent as u64,
            sent: sent as u64,
            received: (if spoilt { passed * 0.9 } else { passed }).floor() as u64,
            seconds,
        })
    }
}

const PLAN: Plan = Plan {
    most: 4e6,
    least: 2e3,
    first_duration: Duration::from_millis(100),
    duration: Duration::from_secs(1),
    trials: 3,
    width: 0.01,
    budget: 400,
};

fn find(device: &mut Simulated, plan: &Plan) -> Found {
    search(device, &[Goal::NDR, Goal::PDR], plan).unwrap()
}

fn device(leak: std::ops::Range<f64>) -> impl Strategy<Value = Simulated> {
    (3e3..3.9e6_f64, 0.3..1.0_f64, leak).prop_map(|(capacity, part, leak)| Simulated {
        clean: (capacity * part).max(2.5e3),
        capacity,
        leak,
        spoilt: usize::MAX,
        rates: Vec::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A leak below the PDR's half per cent parts the two rates: NDR is where it begins, PDR where the
    /// capacity ends.
    #[test]
    fn bounds_hold_the_rates_that_the_device_has(mut device in device(0.001..0.004)) {
        let found = find(&mut device, &PLAN);
        let pdr = device.capacity / 0.995;
        for (bounds, truth) in found.bounds.iter().zip([device.clean, pdr]) {
            let lower = bounds.lower.unwrap();
            // A packet more or less at the lowest rates.
            prop_assert!(lower <= truth * 1.001, "{bounds:?} {truth}");
            match bounds.upper {
                Some(upper) => prop_assert!(upper >= truth * 0.999 && bounds.width(PLAN.most) <= PLAN.width),
                None => prop_assert!(lower >= PLAN.most),
            }
        }
    }

    /// A leak above it is as bad as a limit: both rates are where it begins.
    #[test]
    fn a_leak_above_the_goal_is_a_limit(mut device in device(0.006..0.5)) {
        let found = find(&mut device, &PLAN);
        for bounds in &found.bounds {
            let (lower, upper) = (bounds.lower.unwrap(), bounds.upper.unwrap());
            prop_assert!(lower <= device.clean * 1.001 && upper >= device.clean * 0.999, "{bounds:?}");
            prop_assert!(bounds.width(PLAN.most) <= PLAN.width);
        }
    }

    /// Whatever the device does: rates stay in range, the budget holds, and no drop never beats some.
    #[test]
    fn any_search_ends_in_order(
        mut device in device(0.0..1.0),
        spoilt in 1_usize..9,
        budget in 1_usize..60,
    ) {
        device.spoilt = spoilt;
        let plan = Plan { budget, ..PLAN };
        let found = find(&mut device, &plan);
        prop_assert!(device.rates.iter().all(|rate| (plan.least..=plan.most).contains(rate)));
        prop_assert_eq!(found.trials, device.rates.len());
        prop_assert!(found.trials <= budget + plan.trials + 1, "{} {budget}", found.trials);
        let (ndr, pdr) = (found.bounds[0], found.bounds[1]);
        prop_assert!(ndr.lower.is_none_or(|ndr| pdr.lower.is_some_and(|pdr| ndr <= pdr)), "{ndr:?} {pdr:?}");
        for bounds in [ndr, pdr] {
            if let (Some(lower), Some(upper)) = (bounds.lower, bounds.upper) {
                prop_assert!(lower < upper);
            }
        }
    }
}
