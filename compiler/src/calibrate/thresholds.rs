//! Searches thresholds for one price of an error: coordinate descent in which each threshold is
//! the exact optimum given the others, and exits that do not pay are taken out.

use super::curve::{Search, harm};
use super::policy::{ALWAYS, Policy, ThresholdExit};
use super::samples::{Costs, Samples};

/// Improvements below this part of one sample's plain cost do not count.
const TOLERANCE: f64 = 1e-9;
/// Most sweeps over all exits; each lowers the objective, so few are needed.
const MAX_SWEEPS: usize = 50;

/// Errors that a threshold is expected to let pass beyond those it was tuned on: one sits just
/// before the next error of the tuning rows, so on other rows about half a gap more comes through.
const UNSEEN: f64 = 1.0;

/// Exits whose absence is tried at each step.
const TAKEN_OUT: usize = 3;

/// One threshold per candidate; `None` where the exit is left out.
type Thresholds = Vec<Option<f32>>;

/// The tuning rows, ready for repeated sweeps. Costs are fractions of the plain model's.
pub(crate) struct ThresholdSearch {
    rows: usize,
    /// `[exit][row]`.
    confidence: Vec<Vec<f32>>,
    /// `[exit][row]`: the harm of leaving there, in errors.
    harm: Vec<Vec<f64>>,
    /// `[exit]`: rows from the surest to the least sure.
    order: Vec<Vec<usize>>,
    /// The backbone before each exit, then the tail.
    segment: Vec<f64>,
    head: Vec<f64>,
}

impl ThresholdSearch {
    /// Takes the `rows` to tune on. `confidence` is `[exit][row]` over all rows; `gains` as in
    /// [`harm`].
    pub(crate) fn new(samples: &Samples, confidence: &[Vec<f32>], costs: &Costs, rows: &[usize], gains: f64) -> Self {
        let pick = |c: &Vec<f32>| -> Vec<f32> { rows.iter().map(|&r| c[r]).collect() };
        let harm = |k: usize| rows.iter().map(|&r| harm(samples, k, r, gains)).collect();
        let confidence: Vec<Vec<f32>> = confidence.iter().map(pick).collect();
        let (plain, all) = (costs.plain(), costs.segment.iter().chain([&costs.tail]));
        Self {
            rows: rows.len(),
            harm: (0..confidence.len()).map(harm).collect(),
            order: confidence.iter().map(|c| descending(c)).collect(),
            confidence,
            segment: all.map(|&s| s as f64 / plain).collect(),
            head: costs.head.iter().map(|&h| h as f64 / plain).collect(),
        }
    }

    fn exits(&self) -> usize {
        self.head.len()
    }

    /// The first kept exit that each row leaves at, or the number of exits.
    fn leaving(&self, t: &Thresholds) -> Vec<usize> {
        let leaves = |row: usize| {
            (0..self.exits()).find(|&k| t[k].is_some_and(|t| self.confidence[k][row] > t)).unwrap_or(self.exits())
        };
        (0..self.rows).map(leaves).collect()
    }

    /// Summed cost plus `lambda` times harm, the part that is not seen yet included.
    fn objective(&self, t: &Thresholds, lambda: f64) -> f64 {
        let mut paid = 0.0;
        let price: Vec<f64> = (0..=self.exits())
            .map(|k| {
                paid += self.segment[k];
                paid += t.get(k).copied().flatten().map_or(0.0, |_| self.head[k]);
                paid
            })
            .collect();
        let rows = self.leaving(t).into_iter().enumerate();
        let kept = t.iter().flatten().count() as f64;
        let harm = |row: usize, k: usize| self.harm.get(k).map_or(0.0, |h| h[row]);
        lambda * UNSEEN * kept + rows.map(|(row, k)| price[k] + lambda * harm(row, k)).sum::<f64>()
    }

    /// Optimises every threshold once, from the deepest exit to the first, leaving `banned` out.
    fn sweep(&self, t: &mut Thresholds, lambda: f64, banned: Option<usize>) {
        // Exits before k keep their thresholds until k is done, so this says who gets to k.
        let leaving = self.leaving(t);
        // What going on costs each row after exit k, head k not counted.
        let mut on = vec![self.segment[self.exits()]; self.rows];
        for k in (0..self.exits()).rev() {
            t[k] = match banned {
                Some(b) if b == k => None,
                _ => self.best_threshold(k, lambda, &on, &leaving),
            };
            for (row, on) in on.iter_mut().enumerate() {
                if let Some(t) = t[k] {
                    if self.confidence[k][row] > t {
                        *on = lambda * self.harm[k][row];
                    }
                    *on += self.head[k];
                }
                *on += self.segment[k];
            }
        }
    }

    /// The threshold of exit `k` with the least sum over the rows that get there, or `None` if
    /// the head costs more than it saves. One pass over the rows, surest first.
    fn best_threshold(&self, k: usize, lambda: f64, on: &[f64], leaving: &[usize]) -> Option<f32> {
        let reached = || self.order[k].iter().copied().filter(|&row| leaving[row] >= k);
        let mut next = reached().skip(1).map(|row| self.confidence[k][row]);
        let (mut best, mut least) = (None, -TOLERANCE);
        let (mut sum, mut count) = (0.0, 0usize);
        for row in reached() {
            sum += lambda * self.harm[k][row] - on[row];
            count += 1;
            let (here, below) = (self.confidence[k][row], next.next());
            if sum < least && below.is_none_or(|below| below < here) {
                least = sum;
                best = Some(below.map_or(ALWAYS, |below| halfway(below, here)));
            }
        }
        best.filter(|_| least + self.head[k] * (count as f64) + lambda * UNSEEN < -TOLERANCE)
    }

    /// Sweeps until nothing improves.
    fn descend(&self, t: &mut Thresholds, lambda: f64, banned: Option<usize>) -> f64 {
        let mut value = self.objective(t, lambda);
        for _ in 0..MAX_SWEEPS {
            let before = t.clone();
            self.sweep(t, lambda, banned);
            let now = self.objective(t, lambda);
            if now >= value - TOLERANCE {
                if now > value {
                    *t = before;
                }
                break;
            }
            value = now;
        }
        self.objective(t, lambda)
    }

    /// Descends from `t`, then takes out any exit whose absence lowers the objective once the
    /// others have adapted, until none is left. Single thresholds cannot see such a step.
    fn settle(&self, mut t: Thresholds, lambda: f64) -> (f64, Thresholds) {
        let mut value = self.descend(&mut t, lambda, None);
        while let Some((now, without)) = self.take_out(&t, value, lambda) {
            (value, t) = (now, without);
        }
        (value, t)
    }

    /// The best result of taking one exit out, if it is below `value`. Only the exits that are
    /// missed least before the others adapt are tried.
    fn take_out(&self, t: &Thresholds, value: f64, lambda: f64) -> Option<(f64, Thresholds)> {
        let kept = (0..self.exits()).filter(|&k| t[k].is_some());
        let mut missed: Vec<(f64, Thresholds, usize)> = kept
            .map(|k| {
                let mut without = t.clone();
                without[k] = None;
                (self.objective(&without, lambda), without, k)
            })
            .collect();
        missed.sort_by(|a, b| a.0.total_cmp(&b.0));
        let adapted = missed.into_iter().take(TAKEN_OUT).map(|(_, mut without, k)| {
            self.descend(&mut without, lambda, Some(k));
            (self.descend(&mut without, lambda, None), without)
        });
        adapted.min_by(|a, b| a.0.total_cmp(&b.0)).filter(|(now, _)| *now < value - TOLERANCE)
    }

    fn policy(&self, t: &Thresholds) -> Policy {
        let exits = t.iter().enumerate();
        let exits = exits.filter_map(|(exit, t)| t.map(|threshold| ThresholdExit { exit, threshold }));
        Policy::Threshold { exits: exits.collect() }
    }
}

impl Search for ThresholdSearch {
    fn solve(&self, lambda: f64, near: &Policy) -> Policy {
        let mut warm = vec![None; self.exits()];
        if let Policy::Threshold { exits } = near {
            for e in exits {
                warm[e.exit] = Some(e.threshold);
            }
        }
        let (a, first) = self.settle(warm, lambda);
        let (b, second) = self.settle(vec![None; self.exits()], lambda);
        self.policy(if a <= b { &first } else { &second })
    }
}

/// Indices of `values` from the largest to the smallest.
fn descending(values: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order
}

/// A threshold `t` with `below ≤ t < above`, halfway if `f32` has a number there.
pub(super) fn halfway(below: f32, above: f32) -> f32 {
    let middle = (0.5 * (f64::from(below) + f64::from(above))) as f32;
    if middle < above { middle } else { below }
}

#[cfg(test)]
#[path = "thresholds_tests.rs"]
mod tests;
