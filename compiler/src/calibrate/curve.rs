//! The curve of cost against accuracy on the tuning rows, from conservative to aggressive.

use super::policy::{Measured, Policy, measure};
use super::samples::{Costs, Samples, Signal};
use super::{patience::PatienceSearch, temper::temper, thresholds::ThresholdSearch};

/// A part of the search: how gains count, and which prices of an error are tried.
struct Family {
    /// Weight of an answer that is right where the plain model is wrong, against one lost.
    gains: f64,
    /// The dearest and the cheapest price of an error, in runs of the plain model.
    prices: (f64, f64),
    /// Prices tried at first, evenly spaced in the logarithm.
    first: usize,
    /// Prices added where neighbouring points lie farthest apart.
    more: usize,
}

/// Counting gains in full finds the most accurate policies. Not counting them finds those that
/// change few answers: their drop is known more sharply, so they pass the test where others do
/// not. At the dearest price one error among a thousand samples outweighs all that exits could
/// save; at the cheapest an answer is hardly worth computing.
const FAMILIES: [Family; 2] = [
    Family { gains: 1.0, prices: (1000.0, 0.3), first: 20, more: 12 },
    Family { gains: 0.0, prices: (1000.0, 10.0), first: 12, more: 8 },
];
/// Standard errors added to a drop to predict its bound; this only ranks policies.
const PREDICTED: f64 = 1.3;
/// Of the samples that leave under the curve's first policy, the shares that still leave under the
/// policies put before it.
const CAUTION: [f64; 3] = [0.4, 0.6, 0.8];
/// Most points of the curve that may pass, as far as the tuning rows tell. The test pays nothing
/// for a point, but needless ones give chance more opportunities to stop it early.
const NEAR_POINTS: usize = 16;
/// Most points beyond, for the reader.
const FAR_POINTS: usize = 10;

/// Finds a policy of low cost for a given price of an error.
pub(crate) trait Search {
    /// Minimises mean cost (in runs of the plain model) plus `lambda` times the error rate. `near`
    /// is the solution at a neighbouring price, to start from.
    fn solve(&self, lambda: f64, near: &Policy) -> Policy;
}

/// The harm of sample `row` leaving at exit `k`, in errors: 1 if it loses a right answer, `-gains`
/// if it gains one.
pub(crate) fn harm(samples: &Samples, k: usize, row: usize, gains: f64) -> f64 {
    match (samples.plain_correct[row], samples.correct[k][row]) {
        (true, false) => 1.0,
        (false, true) => -gains,
        (true, true) | (false, false) => 0.0,
    }
}

/// What the finished curve will be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// The largest drop of accuracy.
    pub(crate) max_drop: f64,
    /// Rows of the test.
    pub(crate) verify_rows: usize,
}

impl Question {
    /// The bound that the test would find if other rows are like the tuning rows.
    fn predicted(&self, tune: &Measured) -> f64 {
        let rows: usize = tune.exit_histogram.iter().sum();
        let share = |count: usize| count as f64 / rows.max(1) as f64;
        let changed = share(tune.lost + tune.gained + 1);
        let error = (changed / self.verify_rows.max(1) as f64).sqrt();
        (share(tune.lost) - share(tune.gained)).max(0.0) + PREDICTED * error
    }
}

/// One solution.
struct Solved {
    lambda: f64,
    policy: Policy,
    tune: Measured,
}

/// Policies and what they do on the tuning rows, by falling cost and rising drop. The first one is
/// the plain model.
pub(crate) fn trace(samples: &Samples, costs: &Costs, tune: &[usize], question: Question) -> Vec<(Policy, Measured)> {
    let mut points = vec![];
    // Without labels nothing can be gained.
    let plain_is_right = samples.plain_correct.iter().all(|c| *c);
    let families = if plain_is_right { &FAMILIES[..1] } else { &FAMILIES[..] };
    for family in families {
        let gains = family.gains;
        let search: Box<dyn Search> = match &samples.signal {
            Signal::Confidence(c) => Box::new(ThresholdSearch::new(samples, c, costs, tune, gains)),
            Signal::Patience { class, patience } => {
                Box::new(PatienceSearch::new(samples, class, patience, costs, tune, gains))
            }
        };
        let solve = |lambda: f64, near: &Policy| {
            let policy = search.solve(lambda, near);
            Solved { lambda, tune: measure(&policy, samples, costs, tune), policy }
        };
        let mut solved = sweep(family, &solve);
        refine(&mut solved, family.more, &solve);
        points.extend(solved.into_iter().map(|s| (s.policy, s.tune)));
    }
    let (near, far): (Vec<_>, Vec<_>) = frontier(points, &question)
        .into_iter()
        .partition(|(_, m)| question.predicted(m) <= 2.0 * question.max_drop + 0.005);
    let measured = |policy: Policy| (policy.clone(), measure(&policy, samples, costs, tune));
    let start = near.first().or(far.first()).map(|(policy, _)| policy);
    let cautious: Vec<Policy> = start.map_or(vec![], |policy| cautious(policy, &samples.signal, tune));
    let start = std::iter::once(Policy::plain()).chain(cautious).map(measured);
    let start = start.filter(|(policy, m)| policy.is_plain() || m.macs_ratio < 1.0);
    start.chain(thin(near, NEAR_POINTS)).chain(thin(far, FAR_POINTS)).collect()
}

/// Forms of the curve's first policy for when even that one changes too many answers.
fn cautious(policy: &Policy, signal: &Signal, tune: &[usize]) -> Vec<Policy> {
    match signal {
        Signal::Confidence(c) => CAUTION.iter().map(|&share| temper(policy, c, tune, share)).collect(),
        // The search tries all counts of heads at every price; between two counts there is nothing.
        Signal::Patience { .. } => vec![],
    }
}

/// Solves for falling prices, each from the last solution.
fn sweep(family: &Family, solve: &impl Fn(f64, &Policy) -> Solved) -> Vec<Solved> {
    let (dearest, cheapest) = family.prices;
    let step = (cheapest / dearest).powf(1.0 / (family.first - 1) as f64);
    let mut solved: Vec<Solved> = vec![];
    for i in 0..family.first {
        let near = solved.last().map_or_else(Policy::plain, |s| s.policy.clone());
        solved.push(solve(dearest * step.powi(i as i32), &near));
    }
    solved
}

/// Adds prices between the two neighbours whose costs differ most.
fn refine(solved: &mut Vec<Solved>, more: usize, solve: &impl Fn(f64, &Policy) -> Solved) {
    for _ in 0..more {
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

/// Keeps the points that save work and that no other one beats in both cost and predicted bound,
/// by falling cost.
fn frontier(mut points: Vec<(Policy, Measured)>, question: &Question) -> Vec<(Policy, Measured)> {
    points.retain(|(policy, m)| !policy.is_plain() && m.macs_ratio < 1.0);
    let key = |m: &Measured| (m.macs_ratio, question.predicted(m));
    points.sort_by(|(_, a), (_, b)| {
        let (a, b) = (key(a), key(b));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    let mut least = f64::INFINITY;
    points.retain(|(_, m)| {
        let better = question.predicted(m) < least;
        least = least.min(question.predicted(m));
        better
    });
    points.reverse();
    points
}

/// At most `most` points, spread evenly over the costs between the ends.
fn thin(points: Vec<(Policy, Measured)>, most: usize) -> Vec<(Policy, Measured)> {
    let costs: Vec<f64> = points.iter().map(|(_, m)| m.macs_ratio).collect();
    let (Some(&first), Some(&last)) = (costs.first(), costs.last()) else { return points };
    if points.len() <= most {
        return points;
    }
    let mut kept = vec![false; points.len()];
    for i in 0..most {
        let wanted = first + (last - first) * i as f64 / (most - 1) as f64;
        let distance = |j: &usize| (costs[*j] - wanted).abs();
        if let Some(j) = (0..points.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))) {
            kept[j] = true;
        }
    }
    points.into_iter().zip(kept).filter_map(|(p, kept)| kept.then_some(p)).collect()
}
