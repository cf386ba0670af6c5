//! Medians, spreads, and whether rounds agree.

/// A figure over several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle one; the mean of the two in the middle of an even number.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
    /// How many rounds.
    pub rounds: usize,
}

impl Spread {
    /// The same in another unit.
    pub fn scaled(self, by: f64) -> Self {
        Self {
            median: self.median * by,
            least: self.least * by,
            most: self.most * by,
            ..self
        }
    }

    /// The distance between the smallest and the largest, relative to the median.
    pub fn relative(&self) -> f64 {
        if self.median == 0.0 {
            0.0
        } else {
            (self.most - self.least) / self.median
        }
    }
}

/// How one system compares with another, round by round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// All rounds found more, beyond what the search leaves open; the median ratio.
    Higher(f64),
    /// All rounds found less.
    Lower(f64),
    /// All rounds found the same, within what the search leaves open.
    Equal(f64),
    /// Rounds disagree.
    NotConclusive(f64),
}

impl Verdict {
    /// The median ratio.
    pub fn ratio(self) -> f64 {
        match self {
            Self::Higher(ratio)
            | Self::Lower(ratio)
            | Self::Equal(ratio)
            | Self::NotConclusive(ratio) => ratio,
        }
    }

    /// Whether rounds agree.
    pub fn is_conclusive(self) -> bool {
        !matches!(self, Self::NotConclusive(_))
    }
}

/// Median and spread; nothing of nothing.
pub fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, most) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    };
    Some(Spread {
        median,
        least,
        most,
        rounds: sorted.len(),
    })
}

/// Whether a search left more open than it was to. What is left of a width that was reached is not the
/// same number to the last digit.
pub(super) fn ended_early(open: f64, width: f64) -> bool {
    open > width * 1.001
}

/// What two systems reached in one round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The one that is compared.
    pub own: Option<f64>,
    /// The one that it is compared with.
    pub other: Option<f64>,
    /// How far each of both may be from the truth, relative: more than the search was to leave open
    /// where it ended early.
    pub open: f64,
}

impl Pair {
    /// The one as a part of the other, if both have a figure.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.own? / self.other?).filter(|ratio| ratio.is_finite())
    }
}

/// Compares what two systems reached in the same rounds. `width` is what the search was to leave open,
/// relative. One round decides nothing, and neither do rounds without a figure.
pub fn verdict(pairs: &[Pair], width: f64) -> Option<Verdict> {
    let ratios: Vec<_> = pairs
        .iter()
        .filter_map(|pair| Some((pair.ratio()?, pair.open.max(width))))
        .collect();
    let ratio = spread(&ratios.iter().map(|(ratio, _)| *ratio).collect::<Vec<_>>())?.median;
    let complete = ratios.len() == pairs.len() && pairs.len() > 1;
    let all = |test: &dyn Fn(f64, f64) -> bool| {
        complete && ratios.iter().all(|(ratio, open)| test(*ratio, *open))
    };
    Some(if all(&|ratio, open| ratio > 1.0 + open) {
        Verdict::Higher(ratio)
    } else if all(&|ratio, open| ratio < 1.0 - open) {
        Verdict::Lower(ratio)
    } else if all(&|ratio, open| open <= width && (ratio - 1.0).abs() <= 2.0 * width) {
        Verdict::Equal(ratio)
    } else {
        Verdict::NotConclusive(ratio)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(spread(&[]), None);
        let odd = spread(&[3.0, 1.0, 8.0]).unwrap();
        assert_eq!(
            (odd.median, odd.least, odd.most, odd.rounds),
            (3.0, 1.0, 8.0, 3)
        );
        let even = spread(&[4.0, 1.0, 2.0, 8.0]).unwrap();
        assert_eq!((even.median, even.relative()), (3.0, 7.0 / 3.0));
    }

    fn pairs(own: &[Option<f64>], other: &[Option<f64>], open: f64) -> Vec<Pair> {
        let pairs = own.iter().zip(other);
        pairs
            .map(|(own, other)| Pair {
                own: *own,
                other: *other,
                open,
            })
            .collect()
    }

    fn against_native(values: [f64; 3], open: f64) -> Verdict {
        let pairs = pairs(&values.map(Some), &[Some(100.0); 3], open);
        verdict(&pairs, 0.01).unwrap()
    }

    #[test]
    fn rounds_that_disagree_are_not_conclusive() {
        let against = |values| against_native(values, 0.01);
        assert_eq!(against([130.0, 120.0, 125.0]), Verdict::Higher(1.25));
        assert_eq!(against([70.0, 80.0, 75.0]), Verdict::Lower(0.75));
        assert_eq!(against([100.0, 101.0, 99.5]), Verdict::Equal(1.0));
        assert_eq!(against([130.0, 90.0, 125.0]), Verdict::NotConclusive(1.25));
    }

    #[test]
    fn what_a_search_left_open_decides_nothing() {
        let against = |values| against_native(values, 0.22);
        assert_eq!(against([130.0, 125.0, 127.0]), Verdict::Higher(1.27));
        assert_eq!(against([130.0, 120.0, 125.0]), Verdict::NotConclusive(1.25));
        assert_eq!(against([100.0, 100.0, 100.0]), Verdict::NotConclusive(1.0));
    }

    #[test]
    fn one_round_or_a_missing_figure_decides_nothing() {
        let verdict = |own: &[_], other: &[_]| verdict(&pairs(own, other, 0.01), 0.01);
        let one = verdict(&[Some(200.0)], &[Some(100.0)]);
        assert_eq!(one, Some(Verdict::NotConclusive(2.0)));
        let missing = verdict(&[Some(200.0), None, Some(200.0)], &[Some(100.0); 3]);
        assert_eq!(missing, Some(Verdict::NotConclusive(2.0)));
        assert_eq!(verdict(&[None], &[Some(1.0)]), None);
    }
}
