//! Medians, percentiles and ratios. Pure.

/// The middle value, or the mean of the two in the middle; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        return sorted.get(middle).copied();
    }
    Some((sorted.get(middle.checked_sub(1)?)? + sorted.get(middle)?) / 2.0)
}

/// The smallest value that is not less than so much of all of them, `fraction` from 0 to 1.
pub fn percentile(values: &[f64], fraction: f64) -> Option<f64> {
    let sorted = sorted(values);
    let rank = (fraction.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1).checked_sub(1)?).copied()
}

/// The least and the greatest.
pub fn range(values: &[f64]) -> Option<(f64, f64)> {
    let sorted = sorted(values);
    Some((*sorted.first()?, *sorted.last()?))
}

/// The ratio of each value to the one of the same round, where both are there: rounds that a noisy neighbour slowed
/// slowed both.
pub fn paired_ratios(values: &[(usize, f64)], to: &[(usize, f64)]) -> Vec<f64> {
    let of_round = |round: usize| to.iter().find(|(other, _)| *other == round);
    values
        .iter()
        .filter_map(|(round, value)| of_round(*round).map(|(_, base)| value / base))
        .filter(|ratio| ratio.is_finite())
        .collect()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.5), Some(50.0));
        assert_eq!(percentile(&hundred, 0.99), Some(99.0));
        assert_eq!(percentile(&hundred, 1.0), Some(100.0));
        assert_eq!(percentile(&hundred, 0.0), Some(1.0));
        assert_eq!(percentile(&[7.0], 0.99), Some(7.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let product = [(0, 50.0), (1, 10.0), (2, 7.0)];
        let raw = [(1, 20.0), (0, 100.0), (3, 1.0)];
        assert_eq!(paired_ratios(&product, &raw), [0.5, 0.5]);
        assert!(paired_ratios(&[(0, 1.0)], &[(0, 0.0)]).is_empty());
    }

    #[test]
    fn the_range_is_the_least_and_the_greatest() {
        assert_eq!(range(&[2.0, 9.0, 1.0]), Some((1.0, 9.0)));
        assert_eq!(range(&[]), None);
    }
}
