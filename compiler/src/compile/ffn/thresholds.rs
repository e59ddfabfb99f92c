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

/// The shares of the decisions of `gates` gates at which `share` of all `ffns` is skipped, and at which
/// thresholds are tried anyway, rising.
pub(super) fn shares(gates: usize, ffns: usize, share: Option<f64>) -> Vec<f64> {
    let asked = share.map(|s| (s * ffns as f64 / gates.max(1) as f64).min(1.0));
    let mut shares: Vec<f64> = SHARES.into_iter().chain(asked).collect();
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    shares
}

/// Values on either side of a quantile, as a part of all, among which its threshold is placed.
const NEAR: usize = 200;

/// For each share, a threshold that about this share of `values` exceeds. It stands in the middle of the
/// widest gap near the quantile: tokens that inputs have in common give values that differ by rounding
/// alone, and a threshold among those would decide differently on every machine.
pub(super) fn quantiles(values: &mut [f32], shares: &[f64]) -> Vec<(f64, f32)> {
    values.sort_by(f32::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return Vec::new() };
    let threshold = |share: &f64| {
        let at = (((1.0 - share) * values.len() as f64) as usize).min(last);
        let near = values.len() / NEAR;
        let gap = |i: &usize| values[i + 1] - values[*i];
        let widest = (at.saturating_sub(near)..(at + near + 1).min(last)).max_by(|a, b| gap(a).total_cmp(&gap(b)));
        (*share, widest.map_or(values[at], |i| values[i] + 0.5 * gap(&i)))
    };
    shares.iter().map(threshold).collect()
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
        for (share, threshold) in quantiles(&mut values, &SHARES) {
            let above = values.iter().filter(|v| **v > threshold).count();
            assert!((above as f64 / 200.0 - share).abs() < 0.015, "{share}: {above}");
        }
        assert!(quantiles(&mut [], &SHARES).is_empty());
    }

    #[test]
    fn a_threshold_keeps_away_from_values_that_are_nearly_equal() {
        let mut values: Vec<f32> = (0..400).map(|i| (i / 10) as f32 + 1e-6 * (i % 10) as f32).collect();
        for (share, threshold) in quantiles(&mut values, &[0.25, 0.5, 0.75]) {
            let nearest = values.iter().map(|v| (v - threshold).abs()).fold(f32::INFINITY, f32::min);
            assert!(nearest > 0.4, "{share}: {nearest}");
        }
    }

    #[test]
    fn the_share_asked_for_is_tried() {
        assert_eq!(shares(8, 8, None), SHARES);
        assert_eq!(shares(8, 8, Some(0.8)).last(), Some(&0.8));
        assert_eq!(shares(8, 8, Some(0.25)), SHARES);
        assert!(shares(4, 8, Some(0.25)).contains(&0.5), "half of the decisions of half of the FFNs");
        assert_eq!(shares(4, 8, Some(0.8)).last(), Some(&1.0));
    }
}
