//! The result of a calibration, and how it is decided once the curve has been tested.

use serde::{Deserialize, Serialize};

use super::Goal;
use super::bound::{DropTest, Method, Paired};
use super::policy::{Measured, Policy, measure};
use super::rivals::{Rivals, Verdict, depths, rivals, verdict};
use super::samples::{Costs, Samples, Signal, Split};

/// One policy of the curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The policy.
    pub policy: Policy,
    /// What it does on the rows it was tuned on.
    pub tune: Measured,
    /// What it does on the other rows.
    pub verify: Measured,
    /// The p-value of "it drops more than allowed"; absent where the walk did not get.
    pub p_value: Option<f64>,
    /// Whether the walk passed it.
    pub passed: bool,
}

/// The drop of accuracy of the chosen policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drop {
    /// The observed drop on the verify rows, a fraction; negative if accuracy rose.
    pub estimate: f64,
    /// The least drop that the test would have allowed this policy alone; never below 0. It bounds the
    /// drop at `confidence` only if the policy was fixed before the verify rows were seen: one chosen
    /// among those that passed is known to stay within `max_drop`, which holds for all of them at once.
    pub bound: f64,
    /// The confidence of the test.
    pub confidence: f64,
    /// What was allowed.
    pub max_drop: f64,
    /// Whether the drop was shown to stay within `max_drop`.
    pub passed: bool,
    /// How the bound was made.
    pub method: Method,
    /// The counts it was made from.
    pub counts: Paired,
}

/// One candidate exit on its own, on the verify rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExitQuality {
    /// Its name.
    pub name: String,
    /// Accuracy of its head if everyone left there.
    pub accuracy: f64,
    /// Mean confidence; absent under patience.
    pub mean_confidence: Option<f64>,
    /// Whether it is kept.
    pub kept: bool,
    /// Its threshold, if it is kept and has one.
    pub threshold: Option<f32>,
    /// Samples that leave there.
    pub leaving: usize,
    /// Accuracy on the samples that leave there; absent if none does.
    pub accuracy_of_leaving: Option<f64>,
}

/// The result of a calibration. All numbers are from the verify rows unless they say otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What to build; without exits if nothing pays.
    pub policy: Policy,
    /// Whether it pays.
    pub verdict: Verdict,
    /// The plain model.
    pub plain: Measured,
    /// The model with `policy`; the plain model's numbers if nothing pays.
    pub dynamic: Measured,
    /// The policy that was refused, if one passed the test but does not pay.
    pub refused: Option<CurvePoint>,
    /// The drop of `policy`, or of the refused one.
    pub drop: Drop,
    /// All policies tried, from conservative to aggressive; the first is the plain model.
    pub curve: Vec<CurvePoint>,
    /// The rivals of `policy`, or of the refused one; absent if no policy passed.
    pub rivals: Option<Rivals>,
    /// The candidates, in order of depth.
    pub exits: Vec<ExitQuality>,
}

/// A policy that passed, and its rivals.
struct Judged<'a> {
    point: &'a CurvePoint,
    rivals: Rivals,
    verdict: Verdict,
}

/// The policy taken and what it measured on the verifying rows.
fn taken_or_plain(taken: Option<&CurvePoint>, plain: &Measured) -> (Policy, Measured) {
    taken.map_or_else(|| (Policy::plain(), plain.clone()), |p| (p.policy.clone(), p.verify.clone()))
}

/// Takes the cheapest policy that passed and pays; if none does, says why the cheapest does not.
pub(super) fn decide(
    curve: Vec<CurvePoint>,
    test: &DropTest,
    samples: &Samples,
    costs: &Costs,
    split: &Split,
    goal: &Goal,
) -> Outcome {
    let all = depths(samples, costs, &split.verify);
    let passed = curve.iter().filter(|p| p.passed && !p.policy.is_plain()).rev();
    let judged: Vec<Judged<'_>> = passed
        .map(|point| {
            let rivals = rivals(&point.verify, all.clone());
            let verdict = verdict(&point.verify, &rivals);
            Judged { point, rivals, verdict }
        })
        .collect();
    let best = judged.iter().find(|j| j.verdict.pays()).or(judged.first());
    let plain = measure(&Policy::plain(), samples, costs, &split.verify);
    let taken = best.filter(|j| j.verdict.pays()).map(|j| j.point);
    let (policy, dynamic) = taken_or_plain(taken, &plain);
    let shown = best.map_or(&plain, |j| &j.point.verify);
    Outcome {
        exits: exit_qualities(&policy, samples, &split.verify),
        // What is taken or refused here has passed, and the plain model drops nothing.
        drop: drop_of(shown, true, test, split.verify.len(), goal),
        dynamic,
        refused: best.filter(|j| !j.verdict.pays()).map(|j| j.point.clone()),
        verdict: best.map_or_else(|| none_passed(&curve, split, goal), |j| j.verdict.clone()),
        rivals: best.map(|j| j.rivals.clone()),
        plain,
        policy,
        curve,
    }
}

/// The outcome of a policy that stays whatever is found: the curve's second point.
pub(super) fn of_fixed(
    curve: Vec<CurvePoint>,
    test: &DropTest,
    samples: &Samples,
    costs: &Costs,
    split: &Split,
    goal: &Goal,
) -> Outcome {
    let plain = measure(&Policy::plain(), samples, costs, &split.verify);
    let (policy, dynamic) = taken_or_plain(curve.last(), &plain);
    let passed = curve.last().is_none_or(|p| p.passed);
    let drop = drop_of(&dynamic, passed, test, split.verify.len(), goal);
    // One depth for all samples is what rivals are made of: it pays if it saves work.
    let rivals = (!policy.is_one_depth()).then(|| rivals(&dynamic, depths(samples, costs, &split.verify)));
    let judged = match &rivals {
        Some(rivals) => verdict(&dynamic, rivals),
        None if dynamic.macs_ratio < 1.0 => Verdict::Pays,
        None => Verdict::DoesNotPay { reason: "it saves no work".into() },
    };
    let verdict = if passed || !judged.pays() { judged } else { exceeds(&drop) };
    let exits = exit_qualities(&policy, samples, &split.verify);
    Outcome { policy, verdict, plain, dynamic, refused: None, drop, curve, rivals, exits }
}

/// Takes the cheapest fixed depth that passed. Depths are their own rivals: what saves work pays.
pub(super) fn of_depths(
    curve: Vec<CurvePoint>,
    test: &DropTest,
    samples: &Samples,
    costs: &Costs,
    split: &Split,
    goal: &Goal,
) -> Outcome {
    let plain = measure(&Policy::plain(), samples, costs, &split.verify);
    let saves = |p: &&CurvePoint| p.passed && !p.policy.is_plain() && p.verify.macs_ratio < 1.0;
    let best = curve.iter().filter(saves).min_by(|a, b| a.verify.macs.total_cmp(&b.verify.macs)).cloned();
    let (policy, dynamic) = taken_or_plain(best.as_ref(), &plain);
    Outcome {
        exits: exit_qualities(&policy, samples, &split.verify),
        drop: drop_of(&dynamic, true, test, split.verify.len(), goal),
        verdict: if best.is_some() { Verdict::Pays } else { none_passed(&curve, split, goal) },
        rivals: None,
        refused: None,
        policy,
        plain,
        dynamic,
        curve,
    }
}

fn exceeds(drop: &Drop) -> Verdict {
    let [bound, allowed] = [drop.bound, drop.max_drop].map(|d| format!("{:.2}", 100.0 * d));
    let reason =
        format!("the drop may be {bound} points at {:.0} % confidence; {allowed} are allowed", 100.0 * drop.confidence);
    Verdict::DoesNotPay { reason }
}

fn drop_of(shown: &Measured, passed: bool, test: &DropTest, rows: usize, goal: &Goal) -> Drop {
    let counts = Paired { rows, lost: shown.lost, gained: shown.gained };
    // The plain model's drop is known without a test.
    let is_plain = shown.exit_histogram.last() == Some(&rows);
    let bound = if is_plain { 0.0 } else { test.bound(counts.lost, counts.gained, goal.max_drop) };
    Drop {
        estimate: counts.drop(),
        bound,
        confidence: goal.confidence,
        max_drop: goal.max_drop,
        passed,
        method: test.method(),
        counts,
    }
}

fn none_passed(curve: &[CurvePoint], split: &Split, goal: &Goal) -> Verdict {
    let reason = if curve.len() < 2 {
        "no set of exits saves work on the tuning rows, declined heads counted".to_owned()
    } else {
        format!(
            "no set of exits keeps the drop within {:.2} points at {:.0} % confidence \
             on {} verify rows",
            100.0 * goal.max_drop,
            100.0 * goal.confidence,
            split.verify.len()
        )
    };
    Verdict::DoesNotPay { reason }
}

fn exit_qualities(policy: &Policy, samples: &Samples, rows: &[usize]) -> Vec<ExitQuality> {
    let left: Vec<Option<usize>> = rows.iter().map(|&r| policy.leaves_at(&samples.signal, r)).collect();
    let kept = policy.kept();
    let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
    let quality = |(k, name): (usize, &String)| {
        let right = |r: &usize| samples.correct[k][*r];
        let here = rows.iter().zip(&left).filter(|(_, l)| **l == Some(k)).map(|(r, _)| r);
        let (leaving, good) = here.fold((0, 0), |(n, g), r| (n + 1, g + usize::from(right(r))));
        ExitQuality {
            name: name.clone(),
            accuracy: share(rows.iter().filter(|r| right(r)).count(), rows.len()),
            mean_confidence: mean_confidence(samples, k, rows),
            kept: kept.contains(&k),
            threshold: threshold(policy, k),
            leaving,
            accuracy_of_leaving: (leaving > 0).then(|| share(good, leaving)),
        }
    };
    samples.exits.iter().enumerate().map(quality).collect()
}

fn threshold(policy: &Policy, k: usize) -> Option<f32> {
    match policy {
        Policy::Threshold { exits } => exits.iter().find(|e| e.exit == k).map(|e| e.threshold),
        Policy::Patience { .. } => None,
    }
}

fn mean_confidence(samples: &Samples, k: usize, rows: &[usize]) -> Option<f64> {
    match &samples.signal {
        Signal::Confidence(c) => Some(rows.iter().map(|&r| f64::from(c[k][r])).sum::<f64>() / rows.len().max(1) as f64),
        Signal::Patience { .. } => None,
    }
}
