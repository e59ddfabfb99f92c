//! Chooses the exits to keep and when samples leave there: the least expected work whose loss of
//! accuracy stays inside what the user allows, with a confidence bound. Knows arrays only.
//!
//! On the *tune* rows a sweep over the price of an error gives a curve of policies from
//! conservative to aggressive. On the *verify* rows the curve is walked in that order while a test
//! rules out a drop above the allowed one (fixed-sequence testing, as in Learn then Test,
//! Angelopoulos et al., arXiv 2110.01052). The order was fixed before these rows were seen and the
//! walk stops at the first failure, so all policies passed hold together at the stated confidence,
//! and any of them may be taken: the cheapest that also beats its rivals.

mod binomial;
mod bound;
mod curve;
mod error;
pub mod gates;
mod mixture;
mod outcome;
mod patience;
mod policy;
mod rivals;
mod samples;
mod student;
#[cfg(test)]
pub(crate) mod synthetic;
mod temper;
#[cfg(test)]
mod tests;
mod thresholds;

use serde::{Deserialize, Serialize};

pub use bound::{Method, Paired};
pub use error::CalibrateError;
pub use mixture::{Choice, Mixture, Share, best_mixture, frontier};
pub use outcome::{CurvePoint, Drop, ExitQuality, Outcome};
pub use policy::{ALWAYS, Measured, Policy, ThresholdExit, measure};
pub use rivals::{FixedDepth, Random, Rivals, Verdict, depths, random_accuracy, rivals, verdict};
pub use samples::{Costs, MIN_ROWS, Reference, Samples, Signal, Split};

use bound::DropTest;
use curve::Question;

/// What the user allows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// The largest drop of accuracy, a fraction: 0.005 is half a point.
    pub max_drop: f64,
    /// The confidence that the drop stays inside, in `(0, 1)`.
    pub confidence: f64,
}

impl Default for Goal {
    /// Half a point at 90 %.
    fn default() -> Self {
        Self { max_drop: 0.005, confidence: 0.9 }
    }
}

/// Calibrates the exits of one model.
///
/// # Errors
///
/// Inputs of different lengths, confidences that are not finite, rows out of range or in both
/// parts, fewer than [`MIN_ROWS`] rows in a part, options out of range.
pub fn calibrate(samples: &Samples, costs: &Costs, split: &Split, goal: &Goal) -> Result<Outcome, CalibrateError> {
    let test = prepare(samples, costs, split, goal)?;
    let question = Question { max_drop: goal.max_drop, verify_rows: split.verify.len() };
    let curve = curve::trace(samples, costs, &split.tune, question);
    let curve = walk(points(curve, samples, costs, split), &test, goal.max_drop);
    Ok(outcome::decide(curve, &test, samples, costs, split, goal))
}

/// Judges a policy that the user chose: it stays, whether it pays or not. A single policy needs no
/// tuning, but the rows are split and checked as in [`calibrate`], so the numbers compare.
///
/// # Errors
///
/// As [`calibrate`]; also a policy of another kind than the signal, or exits that do not exist.
pub fn judge(
    policy: Policy,
    samples: &Samples,
    costs: &Costs,
    split: &Split,
    goal: &Goal,
) -> Result<Outcome, CalibrateError> {
    let test = prepare(samples, costs, split, goal)?;
    if policy.kept().iter().any(|&k| k >= samples.exits.len()) || !policy.fits(&samples.signal) {
        return Err(CalibrateError::Option { option: "the policy", range: "of the signal's kind, on candidate exits" });
    }
    let curve = [Policy::plain(), policy].map(|p| (p.clone(), measure(&p, samples, costs, &split.tune)));
    let curve = walk(points(curve.to_vec(), samples, costs, split), &test, goal.max_drop);
    Ok(outcome::of_fixed(curve, &test, samples, costs, split, goal))
}

/// Chooses one exit for all samples: the shallowest that keeps the drop inside, tested from the
/// deepest on.
///
/// # Errors
///
/// As [`calibrate`].
pub fn fixed_depth(samples: &Samples, costs: &Costs, split: &Split, goal: &Goal) -> Result<Outcome, CalibrateError> {
    let test = prepare(samples, costs, split, goal)?;
    let at = |exit| Policy::Threshold { exits: vec![ThresholdExit { exit, threshold: ALWAYS }] };
    let policies = std::iter::once(Policy::plain()).chain((0..samples.exits.len()).rev().map(at));
    let curve = policies.map(|p| (p.clone(), measure(&p, samples, costs, &split.tune))).collect();
    let curve = walk(points(curve, samples, costs, split), &test, goal.max_drop);
    Ok(outcome::of_depths(curve, &test, samples, costs, split, goal))
}

/// Checks everything and sets up the test.
fn prepare(samples: &Samples, costs: &Costs, split: &Split, goal: &Goal) -> Result<DropTest, CalibrateError> {
    check_goal(goal)?;
    samples::check(samples, costs, split)?;
    Ok(DropTest::new(samples.reference, 1.0 - goal.confidence, split.verify.len()))
}

/// Measures each policy on the verify rows as well.
fn points(curve: Vec<(Policy, Measured)>, samples: &Samples, costs: &Costs, split: &Split) -> Vec<CurvePoint> {
    let point = |(policy, tune): (Policy, Measured)| CurvePoint {
        verify: measure(&policy, samples, costs, &split.verify),
        policy,
        tune,
        p_value: None,
        passed: false,
    };
    curve.into_iter().map(point).collect()
}

/// Tests the points in order until one fails. The first point is the plain model, which drops
/// nothing.
fn walk(mut curve: Vec<CurvePoint>, test: &DropTest, max_drop: f64) -> Vec<CurvePoint> {
    for point in &mut curve {
        let verify = &point.verify;
        if !point.policy.is_plain() {
            point.p_value = Some(test.p_value(verify.lost, verify.gained, max_drop));
        }
        point.passed = point.policy.is_plain() || test.passes(verify.lost, verify.gained, max_drop);
        if !point.passed {
            break;
        }
    }
    curve
}

fn check_goal(goal: &Goal) -> Result<(), CalibrateError> {
    if !(0.0..1.0).contains(&goal.max_drop) {
        return Err(CalibrateError::Option { option: "max_drop", range: "0 or more and below 1" });
    }
    if !(goal.confidence > 0.0 && goal.confidence < 1.0) {
        return Err(CalibrateError::Option { option: "confidence", range: "between 0 and 1" });
    }
    Ok(())
}
