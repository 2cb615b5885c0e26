//! Percentiles of what was measured, in milliseconds. Measures nothing.

use serde::Serialize;

/// The middle and the tail of some durations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p95: f64,
}

impl Percentiles {
    /// `None` of nothing. A percentile is one of the values: the smallest that is not below so many of them.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let place = (sorted.len() * percent).div_ceil(100);
            sorted.get(place.checked_sub(1)?).copied()
        };
        Some(Self {
            count: sorted.len(),
            p50: rank(50)?,
            p95: rank(95)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_smallest_value_that_is_not_below_so_many() {
        let of = |values: &[f64]| Percentiles::of(values).map(|of| (of.count, of.p50, of.p95));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7.0]), Some((1, 7.0, 7.0)));
        assert_eq!(of(&[2.0, 1.0]), Some((2, 1.0, 2.0)));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(of(&hundred), Some((100, 50.0, 95.0)));
        let twenty: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(of(&twenty), Some((20, 10.0, 19.0)));
    }
}
