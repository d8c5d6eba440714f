//! Order statistics of a handful of rounds, or of a thousand samples.

/// Where a series of rounds or samples lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// The interval that holds the true median with about 95 % confidence, whatever the distribution; all that was
    /// measured if there are fewer than eight values.
    pub(super) sure: (f64, f64),
}

impl Summary {
    /// Of at least one value.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let count = sorted.len() as f64;
        // Ranks of the binomial distribution's normal approximation.
        let rank = ((count - 1.96 * count.sqrt()) / 2.0).max(0.0) as usize;
        Some(Self {
            median: quantile(&sorted, 0.5)?,
            min,
            max,
            sure: (sorted[rank], sorted[sorted.len() - 1 - rank]),
        })
    }

    /// From the smallest to the largest value, relative to the median.
    pub(super) fn spread(&self) -> f64 {
        (self.max - self.min) / self.median
    }

    /// Whether the two medians can be told apart.
    pub(super) fn differs(&self, other: &Self) -> bool {
        self.sure.0 > other.sure.1 || self.sure.1 < other.sure.0
    }
}

/// The values in ascending order.
pub(super) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The quantile of ascending values, interpolated between neighbours.
pub(super) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let position = share * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (position.floor() as usize, position.ceil() as usize);
    Some(sorted[low] + (sorted[high] - sorted[low]) * position.fract())
}

/// The median of values in any order.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

/// Each round relative to the same round of a base: rounds are interleaved, so what the machine did meanwhile cancels.
///
/// Rounds that have no counterpart are set against the base's median.
pub(super) fn ratios(rounds: &[f64], base: &[f64]) -> Vec<f64> {
    let Some(middle) = median(base).filter(|middle| *middle > 0.0) else {
        return Vec::new();
    };
    let pairs = rounds.iter().enumerate();
    let base = |round| base.get(round).copied().filter(|rate| *rate > 0.0);
    pairs
        .map(|(round, rate)| rate / base(round).unwrap_or(middle))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts_are_known() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn quantiles_are_interpolated() {
        let values = [10.0, 20.0, 30.0, 40.0, 50.0];
        assert_eq!(quantile(&values, 0.0), Some(10.0));
        assert_eq!(quantile(&values, 0.9), Some(46.0));
        assert_eq!(quantile(&values, 1.0), Some(50.0));
    }

    #[test]
    fn spread_is_the_range_relative_to_the_median() {
        let summary = Summary::of(&[95.0, 100.0, 105.0]).unwrap();
        assert!((summary.spread() - 0.1).abs() < 1e-12);
        assert_eq!(summary.sure, (95.0, 105.0));
    }

    #[test]
    fn many_samples_narrow_down_the_median() {
        let samples: Vec<_> = (0..100).map(f64::from).collect();
        assert_eq!(Summary::of(&samples).unwrap().sure, (40.0, 59.0));
    }

    #[test]
    fn ratios_pair_the_rounds() {
        assert_eq!(ratios(&[5.0, 8.0], &[10.0, 16.0]), [0.5, 0.5]);
        assert_eq!(ratios(&[6.0, 6.0], &[3.0]), [2.0, 2.0]);
        assert!(ratios(&[6.0], &[]).is_empty());
    }
}
