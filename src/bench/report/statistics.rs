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

/// Compares what two systems reached in the same rounds. `width` is how far each figure may be from
/// the truth, relative. One round decides nothing, and neither do rounds without a figure.
pub fn verdict(own: &[Option<f64>], other: &[Option<f64>], width: f64) -> Option<Verdict> {
    let pairs = own.iter().zip(other);
    let ratios: Vec<f64> = pairs
        .filter_map(|(own, other)| Some((*own)? / (*other)?))
        .filter(|ratio| ratio.is_finite())
        .collect();
    let ratio = spread(&ratios)?.median;
    let complete = ratios.len() == own.len() && own.len() == other.len() && own.len() > 1;
    let all = |test: &dyn Fn(f64) -> bool| complete && ratios.iter().all(|ratio| test(*ratio));
    Some(if all(&|ratio| ratio > 1.0 + width) {
        Verdict::Higher(ratio)
    } else if all(&|ratio| ratio < 1.0 - width) {
        Verdict::Lower(ratio)
    } else if all(&|ratio| (ratio - 1.0).abs() <= 2.0 * width) {
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

    #[test]
    fn rounds_that_disagree_are_not_conclusive() {
        let rounds = |values: &[f64]| values.iter().map(|v| Some(*v)).collect::<Vec<_>>();
        let native = rounds(&[100.0, 100.0, 100.0]);
        let against = |values: &[f64]| verdict(&rounds(values), &native, 0.01).unwrap();
        assert_eq!(against(&[130.0, 120.0, 125.0]), Verdict::Higher(1.25));
        assert_eq!(against(&[70.0, 80.0, 75.0]), Verdict::Lower(0.75));
        assert_eq!(against(&[100.0, 101.0, 99.5]), Verdict::Equal(1.0));
        assert_eq!(against(&[130.0, 90.0, 125.0]), Verdict::NotConclusive(1.25));
    }

    #[test]
    fn one_round_or_a_missing_figure_decides_nothing() {
        let one = verdict(&[Some(200.0)], &[Some(100.0)], 0.01);
        assert_eq!(one, Some(Verdict::NotConclusive(2.0)));
        let missing = verdict(
            &[Some(200.0), None, Some(200.0)],
            &[Some(100.0), Some(100.0), Some(100.0)],
            0.01,
        );
        assert_eq!(missing, Some(Verdict::NotConclusive(2.0)));
        assert_eq!(verdict(&[None], &[Some(1.0)], 0.01), None);
    }
}
