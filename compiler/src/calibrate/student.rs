//! Student's t-test for a mean.

use std::f64::consts::PI;

/// The standard error of the mean of `values`; infinite for fewer than two.
pub(super) fn standard_error(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if values.len() < 2 {
        return f64::INFINITY;
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (variance / n).sqrt()
}

/// The p-value of "the mean is 0 or more", small where `values` are negative beyond chance.
pub(super) fn p_value_of_negative_mean(values: &[f64]) -> f64 {
    let (mean, error) = (values.iter().sum::<f64>() / values.len().max(1) as f64, standard_error(values));
    if error == 0.0 {
        return f64::from(u8::from(mean >= 0.0));
    }
    if values.len() < 2 { 1.0 } else { cdf(mean / error, values.len() - 1) }
}

/// `P(T ≤ t)` for Student's distribution with `freedom` degrees, by its finite series (Abramowitz and
/// Stegun 26.7.3 and 26.7.4).
fn cdf(t: f64, freedom: usize) -> f64 {
    let angle = (t / (freedom as f64).sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    let mut sum = 0.0;
    let first = if freedom.is_multiple_of(2) { 1.0 } else { cos };
    let (mut term, mut k) = (first, if freedom.is_multiple_of(2) { 0 } else { 1 });
    while k + 2 <= freedom {
        sum += term;
        term *= cos * cos * (k + 1) as f64 / (k + 2) as f64;
        k += 2;
    }
    let within = if freedom.is_multiple_of(2) { sin * sum } else { (angle + sin * sum) * 2.0 / PI };
    0.5 + within / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_tables() {
        // Quantiles from standard tables: one-sided 95 % and 90 %.
        for (freedom, quantile) in [(1, 6.314), (2, 2.920), (5, 2.015), (10, 1.812), (66, 1.668)] {
            assert!((cdf(quantile, freedom) - 0.95).abs() < 2e-4, "{freedom}");
            assert!((cdf(-quantile, freedom) - 0.05).abs() < 2e-4, "{freedom}");
        }
        assert!((cdf(1.296, 60) - 0.9).abs() < 2e-4);
    }

    #[test]
    fn constant_and_few_values() {
        assert_eq!(p_value_of_negative_mean(&[-1.0, -1.0, -1.0]), 0.0);
        assert_eq!(p_value_of_negative_mean(&[0.0, 0.0]), 1.0);
        assert_eq!(p_value_of_negative_mean(&[-5.0]), 1.0);
    }
}
