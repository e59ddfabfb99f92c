//! Thresholds at which a given share of decisions is to skip.

use eec_passes::ffn_gates::Granularity;

/// Shares of decisions that skip, for which thresholds are tried.
const SHARES: [f64; 10] = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75];

/// The values that decide, of one value per token: each, or the least of a row's, which `per_row`
/// tokens must exceed together.
pub(super) fn deciding(values: Vec<f32>, per_row: usize, granularity: Granularity) -> Vec<f32> {
    match granularity {
        Granularity::Row => values,
        Granularity::All => {
            values.chunks(per_row.max(1)).map(|row| row.iter().copied().fold(f32::INFINITY, f32::min)).collect()
        }
    }
}

/// For each share, the value that this share of `values` exceeds.
pub(super) fn quantiles(values: &mut [f32]) -> Vec<(f64, f32)> {
    values.sort_by(f32::total_cmp);
    let at = |share: &f64| ((1.0 - share) * values.len() as f64) as usize;
    SHARES.iter().filter_map(|s| Some((*s, *values.get(at(s).min(values.len().saturating_sub(1)))?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tokens_of_a_row_exceed_a_threshold_where_the_least_does() {
        let values = vec![3.0, 1.0, 2.0, 9.0, 8.0, 7.0];
        assert_eq!(deciding(values.clone(), 3, Granularity::All), [1.0, 7.0]);
        assert_eq!(deciding(values.clone(), 3, Granularity::Row), values);
    }

    #[test]
    fn a_share_of_the_values_exceeds_its_threshold() {
        let mut values: Vec<f32> = (0..200).rev().map(|i| i as f32).collect();
        for (share, threshold) in quantiles(&mut values) {
            let above = values.iter().filter(|v| **v > threshold).count();
            assert!((above as f64 / 200.0 - share).abs() < 0.01, "{share}: {above}");
        }
        assert!(quantiles(&mut []).is_empty());
    }
}
