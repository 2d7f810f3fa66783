//! Order statistics of samples. Pure.

/// The middle of the samples; between two of them their mean. Nothing of nothing.
pub fn median(samples: &[f64]) -> Option<f64> {
    let sorted = sorted(samples);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// The smallest sample.
pub fn minimum(samples: &[f64]) -> Option<f64> {
    sorted(samples).first().copied()
}

/// The nearest-rank percentile: the smallest sample that at least `percent` of all do not exceed.
pub fn percentile(samples: &[f64], percent: f64) -> Option<f64> {
    let sorted = sorted(samples);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// The median of the ratios of samples that were taken in the same round, so that what slowed a whole round
/// down does not count. A round in which either is missing is left out.
pub fn paired_ratio(own: &[Option<f64>], other: &[Option<f64>]) -> Option<f64> {
    let ratios: Vec<f64> = own
        .iter()
        .zip(other)
        .filter_map(|(a, b)| Some((*a)? / (*b)?))
        .filter(|ratio| ratio.is_finite())
        .collect();
    median(&ratios)
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_99th_percentile_of_a_few_samples_is_the_largest() {
        assert_eq!(percentile(&[5.0, 7.0, 6.0], 99.0), Some(7.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 99.0), Some(99.0));
        assert_eq!(percentile(&[], 99.0), None);
    }

    #[test]
    fn a_ratio_pairs_samples_of_the_same_round() {
        let own = [Some(2.0), None, Some(30.0)];
        let other = [Some(1.0), Some(1.0), Some(10.0)];
        assert_eq!(paired_ratio(&own, &other), Some(2.5));
        assert_eq!(paired_ratio(&own, &[None, Some(1.0), None]), None);
    }
}
