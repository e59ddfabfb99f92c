//! Searches the number of agreeing heads and the kept exits, for one price of an error.

use super::curve::{Search, harm};
use super::policy::{Policy, first_agreement};
use super::samples::{Costs, Samples};

/// The tuning rows. Costs are fractions of the plain model's.
pub(crate) struct PatienceSearch<'a> {
    samples: &'a Samples,
    class: &'a [Vec<u32>],
    patience: &'a [usize],
    rows: &'a [usize],
    /// The backbone up to each exit, then the whole.
    backbone: Vec<f64>,
    head: Vec<f64>,
    gains: f64,
}

impl<'a> PatienceSearch<'a> {
    /// Takes the `rows` to tune on. `class` is `[exit][row]` over all rows; `gains` as in [`harm`].
    pub(crate) fn new(
        samples: &'a Samples,
        class: &'a [Vec<u32>],
        patience: &'a [usize],
        costs: &Costs,
        rows: &'a [usize],
        gains: f64,
    ) -> Self {
        let plain = costs.plain();
        Self {
            samples,
            class,
            patience,
            rows,
            backbone: (0..=class.len()).map(|k| costs.backbone(k) / plain).collect(),
            head: costs.head.iter().map(|&h| h as f64 / plain).collect(),
            gains,
        }
    }

    /// Summed cost plus `lambda` times harm. No harm is added for rows not seen yet, as it is where
    /// thresholds are tuned: a count of heads does not sit just before the next error of these rows.
    fn objective(&self, exits: &[usize], patience: usize, lambda: f64) -> f64 {
        let mut heads = 0.0;
        let mut price = vec![0.0; self.backbone.len()];
        for &k in exits {
            heads += self.head[k];
            price[k] = self.backbone[k] + heads;
        }
        let end = self.head.len();
        price[end] = self.backbone[end] + heads;
        let mut sum = 0.0;
        for &row in self.rows {
            let exit = first_agreement(exits, patience, self.class, row);
            let harm = exit.map_or(0.0, |k| harm(self.samples, k, row, self.gains));
            sum += price[exit.unwrap_or(end)] + lambda * harm;
        }
        sum
    }

    /// Adds or takes out the exit that helps most, until none does.
    fn settle(&self, mut exits: Vec<usize>, patience: usize, lambda: f64) -> (f64, Vec<usize>) {
        let mut value = self.objective(&exits, patience, lambda);
        loop {
            let changed = (0..self.head.len()).map(|k| toggled(&exits, k));
            let valued = changed.map(|e| (self.objective(&e, patience, lambda), e));
            match valued.min_by(|(a, _), (b, _)| a.total_cmp(b)) {
                Some((now, better)) if now < value - 1e-9 => (value, exits) = (now, better),
                _ => return (value, exits),
            }
        }
    }
}

impl Search for PatienceSearch<'_> {
    fn solve(&self, lambda: f64, near: &Policy) -> Policy {
        let none = (self.objective(&[], 2, lambda), Policy::plain());
        let all: Vec<usize> = (0..self.head.len()).collect();
        let starts = [near.kept(), all];
        let tries = self.patience.iter().flat_map(|&p| starts.iter().map(move |s| (p, s)));
        let found = tries.map(|(patience, start)| {
            let (value, exits) = self.settle(start.clone(), patience, lambda);
            (value, Policy::Patience { patience, exits })
        });
        let best = found.fold(none, |best, next| if next.0 < best.0 { next } else { best });
        best.1
    }
}

/// `exits` with `k` added, or taken out if it was there; in ascending order.
fn toggled(exits: &[usize], k: usize) -> Vec<usize> {
    let mut out: Vec<usize> = exits.iter().copied().filter(|&e| e != k).collect();
    if out.len() == exits.len() {
        out.push(k);
        out.sort_unstable();
    }
    out
}
