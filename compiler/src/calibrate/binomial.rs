//! Binomial probabilities that stay accurate in the tails, and the interval of Clopper and
//! Pearson (Biometrika 26, 1934).

/// `ln k!` for `k` up to a limit.
#[derive(Clone, Debug)]
pub(crate) struct LnFactorial(Vec<f64>);

impl LnFactorial {
    /// Tabulates `0..=n`.
    pub(crate) fn up_to(n: usize) -> Self {
        let mut table = Vec::with_capacity(n + 1);
        let mut sum = 0.0;
        table.push(sum);
        for k in 1..=n {
            sum += (k as f64).ln();
            table.push(sum);
        }
        Self(table)
    }

    /// `P(X = k)` for `X ~ Binomial(n, p)`.
    pub(crate) fn pmf(&self, k: usize, n: usize, p: f64) -> f64 {
        if p <= 0.0 || p >= 1.0 {
            return f64::from(u8::from(k == if p <= 0.0 { 0 } else { n }));
        }
        let ways = self.0[n] - self.0[k] - self.0[n - k];
        (ways + k as f64 * p.ln() + (n - k) as f64 * (-p).ln_1p()).exp()
    }

    /// `P(X ≤ k)`. Sums away from the mode, so few terms matter.
    pub(crate) fn cdf(&self, k: usize, n: usize, p: f64) -> f64 {
        if k >= n {
            return 1.0;
        }
        if p <= 0.0 || p >= 1.0 {
            return f64::from(u8::from(p <= 0.0));
        }
        let odds = p / (1.0 - p);
        if (k as f64) < n as f64 * p {
            let steps = (1..=k).rev().map(|j| j as f64 / ((n - j + 1) as f64 * odds));
            tail(self.pmf(k, n, p), steps)
        } else {
            let steps = (k + 2..=n).map(|j| (n - j + 1) as f64 * odds / j as f64);
            1.0 - tail(self.pmf(k + 1, n, p), steps)
        }
    }
}

/// `first · (1 + r₁ + r₁r₂ + …)`, until terms no longer count.
fn tail(first: f64, ratios: impl Iterator<Item = f64>) -> f64 {
    let (mut term, mut sum) = (first, first);
    for ratio in ratios {
        term *= ratio;
        sum += term;
        if term < sum * 1e-16 {
            break;
        }
    }
    sum.min(1.0)
}

/// The upper end of the one-sided interval for `p` at level `1 − alpha`: `k` of `n` were seen.
pub(crate) fn upper(table: &LnFactorial, k: usize, n: usize, alpha: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    bisect(k as f64 / n as f64, 1.0, |p| table.cdf(k, n, p) <= alpha)
}

/// The lower end of the one-sided interval.
pub(crate) fn lower(table: &LnFactorial, k: usize, n: usize, alpha: f64) -> f64 {
    1.0 - upper(table, n - k, n, alpha)
}

/// The least `x` in `from..to` for which `test` holds, given that it holds from some point on;
/// rounded up, so that the test holds at the result.
pub(crate) fn bisect(from: f64, to: f64, test: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (from, to);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if test(middle) {
            high = middle
        } else {
            low = middle
        }
        if high - low < 1e-7 * high {
            break;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cdf_is_the_sum_of_the_probabilities() {
        let table = LnFactorial::up_to(40);
        for p in [0.0, 0.03, 0.5, 0.91, 1.0] {
            let mut sum = 0.0;
            for k in 0..=40 {
                sum += table.pmf(k, 40, p);
                assert!((table.cdf(k, 40, p) - sum).abs() < 1e-12, "{p} {k}");
            }
        }
    }

    #[test]
    fn clopper_pearson_agrees_with_closed_forms() {
        let table = LnFactorial::up_to(1000);
        // Nothing seen: 1 − alpha^(1/n). Everything seen, from below: alpha^(1/n).
        let end = 0.1f64.powf(1.0 / 1000.0);
        assert!((upper(&table, 0, 1000, 0.1) - (1.0 - end)).abs() < 1e-6);
        assert!((lower(&table, 1000, 1000, 0.1) - end).abs() < 1e-6);
        assert_eq!(upper(&table, 1000, 1000, 0.1), 1.0);
    }
}
