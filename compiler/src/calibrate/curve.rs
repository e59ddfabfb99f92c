//! The curve of cost against accuracy on the tuning rows, from conservative to aggressive.

use super::policy::{Measured, Policy, measure};
use super::samples::{Costs, Samples, Signal};
use super::{patience::PatienceSearch, thresholds::ThresholdSearch};

/// The dearest and the cheapest price of an error, in runs of the plain model. At the dearest, one
/// error among a thousand samples outweighs all that exits could save; at the cheapest, an answer
/// is hardly worth computing.
const PRICES: (f64, f64) = (2000.0, 0.3);
/// Prices tried at first, evenly spaced in the logarithm.
const FIRST_PRICES: usize = 24;
/// Prices added where neighbouring points lie farthest apart.
const MORE_PRICES: usize = 32;
/// Most points of a finished curve. The test that walks it pays nothing for a point, but needless
/// ones give chance more opportunities to stop it early.
pub(crate) const MAX_POINTS: usize = 24;

/// Finds a policy of low cost for a given price of an error.
pub(crate) trait Search {
    /// Minimises mean cost (in runs of the plain model) plus `lambda` times the error rate. `near`
    /// is the solution at a neighbouring price, to start from.
    fn solve(&self, lambda: f64, near: &Policy) -> Policy;
}

/// One solution.
struct Solved {
    lambda: f64,
    policy: Policy,
    tune: Measured,
}

/// Policies and what they do on the tuning rows, by falling cost and accuracy. The first one is
/// the plain model.
pub(crate) fn trace(samples: &Samples, costs: &Costs, tune: &[usize]) -> Vec<(Policy, Measured)> {
    let search: Box<dyn Search> = match &samples.signal {
        Signal::Confidence(confidence) => Box::new(ThresholdSearch::new(samples, confidence, costs, tune)),
        Signal::Patience { class, patience } => Box::new(PatienceSearch::new(samples, class, patience, costs, tune)),
    };
    let solve = |lambda: f64, near: &Policy| {
        let policy = search.solve(lambda, near);
        Solved { lambda, tune: measure(&policy, samples, costs, tune), policy }
    };
    let mut solved = sweep(&solve);
    refine(&mut solved, &solve);
    let plain = (Policy::plain(), measure(&Policy::plain(), samples, costs, tune));
    let points = solved.into_iter().map(|s| (s.policy, s.tune));
    thin(frontier(std::iter::once(plain).chain(points).collect()))
}

/// Solves for falling prices, each from the last solution.
fn sweep(solve: &impl Fn(f64, &Policy) -> Solved) -> Vec<Solved> {
    let step = (PRICES.1 / PRICES.0).powf(1.0 / (FIRST_PRICES - 1) as f64);
    let mut solved: Vec<Solved> = vec![];
    for i in 0..FIRST_PRICES {
        let near = solved.last().map_or_else(Policy::plain, |s| s.policy.clone());
        solved.push(solve(PRICES.0 * step.powi(i as i32), &near));
    }
    solved
}

/// Adds prices between the two neighbours whose costs differ most.
fn refine(solved: &mut Vec<Solved>, solve: &impl Fn(f64, &Policy) -> Solved) {
    for _ in 0..MORE_PRICES {
        let gap = |i: usize| {
            let close = solved[i].lambda / solved[i + 1].lambda < 1.01;
            if close { 0.0 } else { (solved[i].tune.macs_ratio - solved[i + 1].tune.macs_ratio).abs() }
        };
        let Some(widest) = (0..solved.len() - 1).max_by(|&a, &b| gap(a).total_cmp(&gap(b))) else {
            return;
        };
        let lambda = (solved[widest].lambda * solved[widest + 1].lambda).sqrt();
        let between = solve(lambda, &solved[widest].policy);
        solved.insert(widest + 1, between);
    }
}

/// Keeps the points that no other one beats in both cost and accuracy, and the plain model, by
/// falling cost.
fn frontier(mut points: Vec<(Policy, Measured)>) -> Vec<(Policy, Measured)> {
    let plain = points.remove(0);
    points.retain(|(policy, m)| !policy.is_plain() && m.macs_ratio < plain.1.macs_ratio);
    points.sort_by(|(_, a), (_, b)| a.macs_ratio.total_cmp(&b.macs_ratio).then(b.accuracy.total_cmp(&a.accuracy)));
    let mut best = f64::NEG_INFINITY;
    points.retain(|(_, m)| {
        let better = m.accuracy > best;
        best = best.max(m.accuracy);
        better
    });
    points.push(plain);
    points.reverse();
    points
}

/// At most [`MAX_POINTS`] points, spread evenly over the costs between the ends.
fn thin(points: Vec<(Policy, Measured)>) -> Vec<(Policy, Measured)> {
    let costs: Vec<f64> = points.iter().map(|(_, m)| m.macs_ratio).collect();
    let (Some(&first), Some(&last)) = (costs.first(), costs.last()) else {
        return points;
    };
    if points.len() <= MAX_POINTS {
        return points;
    }
    let mut kept = vec![false; points.len()];
    for i in 0..MAX_POINTS {
        let wanted = first + (last - first) * i as f64 / (MAX_POINTS - 1) as f64;
        let distance = |j: &usize| (costs[*j] - wanted).abs();
        if let Some(j) = (0..points.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))) {
            kept[j] = true;
        }
    }
    points.into_iter().zip(kept).filter_map(|(p, kept)| kept.then_some(p)).collect()
}
