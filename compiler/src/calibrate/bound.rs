//! A one-sided confidence bound on the drop of accuracy, from paired outcomes.
//!
//! Each sample changes by `d = plain right − dynamic right ∈ {−1, 0, 1}`; the drop is `E[d]`.
//!
//! *With labels*: the exact unconditional test of non-inferiority for paired proportions. Tables
//! (lost, gained) are ordered by the score statistic with the constrained estimate of the nuisance
//! parameter (Nam, Biometrics 53, 1997; Tango, Statistics in Medicine 17, 1998); the p-value is
//! the largest probability, over the nuisance parameter, of a table no worse than the one seen
//! (Hsueh, Liu and Chen, Biometrics 57, 2001). The nuisance parameter, the share of samples whose
//! outcome changes, is confined to its own interval of level `1 − β`, and `β` is added to the
//! p-value (Berger and Boos, JASA 89, 1994), so validity does not rest on large samples. The
//! largest value is taken over a grid. Inequalities for bounded variables (Hoeffding, empirical
//! Bernstein) do not use that most samples do not change, and allow nothing at 1500 samples and
//! half a point.
//!
//! *Without labels* the plain model is always right, `d ∈ {0, 1}`, and the bound is that of
//! Clopper and Pearson.

use serde::{Deserialize, Serialize};

use super::binomial::{LnFactorial, bisect, lower, upper};
use super::samples::Reference;

/// Values of the nuisance parameter that are tried.
const GRID: usize = 32;
/// The part of the error level that is spent on confining the nuisance parameter.
const NUISANCE: f64 = 0.01;

/// Paired outcomes on `rows` samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    /// Samples compared.
    pub rows: usize,
    /// Plain right, dynamic wrong.
    pub lost: usize,
    /// Plain wrong, dynamic right.
    pub gained: usize,
}

impl Paired {
    /// The observed drop, a fraction; negative if the dynamic model is better.
    pub fn drop(&self) -> f64 {
        (self.lost as f64 - self.gained as f64) / self.rows.max(1) as f64
    }
}

/// How a bound was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Exact unconditional score test for paired proportions.
    PairedExact,
    /// Clopper and Pearson's interval for a proportion.
    ClopperPearson,
}

impl Method {
    /// The method that suits the reference.
    pub fn of(reference: Reference) -> Self {
        match reference {
            Reference::Labels => Self::PairedExact,
            Reference::PlainModel => Self::ClopperPearson,
        }
    }

    /// In words, for a report.
    pub fn words(self) -> &'static str {
        match self {
            Self::PairedExact => "unconditional paired score test (Hsueh, Liu and Chen 2001), its supremum on a grid",
            Self::ClopperPearson => "exact binomial bound (Clopper and Pearson 1934)",
        }
    }
}

/// Tests at one error level on one number of rows.
#[derive(Clone, Debug)]
pub(crate) struct DropTest {
    method: Method,
    alpha: f64,
    rows: usize,
    table: LnFactorial,
}

impl DropTest {
    /// Prepares tests on `rows` samples at level `alpha`.
    pub(crate) fn new(reference: Reference, alpha: f64, rows: usize) -> Self {
        Self { method: Method::of(reference), alpha, rows, table: LnFactorial::up_to(rows) }
    }

    /// The method used.
    pub(crate) fn method(&self) -> Method {
        self.method
    }

    /// The p-value of "the drop is `margin` or more".
    pub(crate) fn p_value(&self, lost: usize, gained: usize, margin: f64) -> f64 {
        match self.method {
            Method::ClopperPearson => self.table.cdf(lost, self.rows, margin),
            Method::PairedExact => self.paired_p_value(lost, gained, margin),
        }
    }

    /// Whether a drop above `margin` is ruled out at the level.
    pub(crate) fn passes(&self, lost: usize, gained: usize, margin: f64) -> bool {
        self.p_value(lost, gained, margin) <= self.alpha
    }

    /// The least margin, 0 or more, at which the test passes. It passes at `tested` exactly if
    /// the result is no larger than `tested`.
    pub(crate) fn bound(&self, lost: usize, gained: usize, tested: f64) -> f64 {
        let test = |margin: f64| self.passes(lost, gained, margin);
        let least = (lost as f64 - gained as f64).max(0.0) / self.rows.max(1) as f64;
        if test(tested) { bisect(least.min(tested), tested, test) } else { bisect(least.max(tested), 1.0, test) }
    }

    fn paired_p_value(&self, lost: usize, gained: usize, margin: f64) -> f64 {
        let (n, changed) = (self.rows, lost + gained);
        let beta = self.alpha * NUISANCE;
        let low = lower(&self.table, changed, n, beta / 2.0).max(margin);
        let high = upper(&self.table, changed, n, beta / 2.0);
        if low > high {
            return beta;
        }
        let seen = score(n, lost, gained, margin) + 1e-9;
        let first = spread(n, low).0;
        let last = spread(n, high).1;
        let cuts: Vec<Option<usize>> = (first..=last).map(|m| last_no_worse(n, m, margin, seen)).collect();
        let largest = (0..GRID)
            .map(|i| low + (high - low) * i as f64 / (GRID - 1) as f64)
            .map(|share| self.probability(share, margin, first, &cuts))
            .fold(0.0, f64::max);
        (largest + beta).min(1.0)
    }

    /// The probability of a table no worse than the one seen if the drop is `margin` and `share`
    /// of the samples change. `cuts[m - first]` is the most that may be lost when `m` change.
    fn probability(&self, share: f64, margin: f64, first: usize, cuts: &[Option<usize>]) -> f64 {
        let (from, to) = spread(self.rows, share);
        let lost = if share > 0.0 { (0.5 * (share + margin) / share).min(1.0) } else { 0.5 };
        let mut sum = 0.0;
        for m in from.max(first)..=to.min(first + cuts.len() - 1) {
            if let Some(cut) = cuts[m - first] {
                sum += self.table.pmf(m, self.rows, share) * self.table.cdf(cut, m, lost);
            }
        }
        sum
    }
}

/// The numbers of successes that a binomial with these parameters gives but for about 1e-12.
fn spread(n: usize, p: f64) -> (usize, usize) {
    let (mean, reach) = (n as f64 * p, 8.0 * (n as f64 * p * (1.0 - p)).sqrt() + 15.0);
    ((mean - reach).max(0.0) as usize, ((mean + reach) as usize).min(n))
}

/// The largest number lost out of `m` changed whose score is at most `seen`.
fn last_no_worse(n: usize, m: usize, margin: f64, seen: f64) -> Option<usize> {
    // The score grows with the number lost, so the first one above `seen` is found by halving.
    let (mut low, mut high) = (0, m + 1);
    while low < high {
        let middle = usize::midpoint(low, high);
        if score(n, middle, m - middle, margin) <= seen { low = middle + 1 } else { high = middle }
    }
    low.checked_sub(1)
}

/// The score statistic for "the drop is `margin`": the excess over its standard error, with the
/// gained share estimated under that hypothesis (the root of a quadratic).
fn score(n: usize, lost: usize, gained: usize, margin: f64) -> f64 {
    let (n, a, b) = (n as f64, lost as f64, gained as f64);
    let linear = a + b - 2.0 * n * margin + margin * (a - b);
    let root = (linear * linear + 8.0 * n * b * margin * (1.0 - margin)).sqrt();
    let estimate = ((linear + root) / (4.0 * n)).max(0.0);
    let variance = n * (2.0 * estimate + margin - margin * margin);
    let excess = a - b - n * margin;
    if variance > 0.0 { excess / variance.sqrt() } else { 0.0 }
}

#[cfg(test)]
#[path = "bound_tests.rs"]
mod tests;
