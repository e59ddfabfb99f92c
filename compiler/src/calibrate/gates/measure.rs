//! What policies lose on rows, and how surely.

use super::super::Goal;
use super::super::bound::DropTest;
use super::super::samples::Reference;
use super::super::student;
use super::{Measured, Quality};

/// The value of each row: 1 or 0 for an answer, the loss.
fn values(quality: &Quality) -> Vec<f64> {
    match quality {
        Quality::Correct(rows) => rows.iter().map(|right| f64::from(u8::from(*right))).collect(),
        Quality::Loss(rows) => rows.clone(),
    }
}

pub(super) fn mean(quality: &Quality) -> f64 {
    values(quality).iter().sum::<f64>() / quality.rows().max(1) as f64
}

pub(super) fn compare(plain: &Quality, policy: &Quality) -> Measured {
    let (before, after) = (mean(plain), mean(policy));
    let drop = match plain {
        Quality::Correct(_) => before - after,
        Quality::Loss(_) => (after - before) / before.max(f64::MIN_POSITIVE),
    };
    Measured { quality: after, drop }
}

/// Per row, the policy's value less `times` the plain model's.
fn excess(plain: &Quality, policy: &Quality, times: f64) -> Vec<f64> {
    values(policy).iter().zip(values(plain)).map(|(after, before)| after - times * before).collect()
}

/// The standard error of the drop, in its own unit.
pub(super) fn standard_error(plain: &Quality, policy: &Quality) -> f64 {
    let unit = match plain {
        Quality::Correct(_) => 1.0,
        Quality::Loss(_) => mean(plain).max(f64::MIN_POSITIVE),
    };
    student::standard_error(&excess(plain, policy, 1.0)) / unit
}

/// The p-value of "the drop is above the allowed one".
pub(super) fn p_value(plain: &Quality, policy: &Quality, goal: &Goal) -> f64 {
    match (plain, policy) {
        (Quality::Correct(before), Quality::Correct(after)) => {
            let count = |was: bool| before.iter().zip(after).filter(|(b, a)| **b == was && **a != was).count();
            let test = DropTest::new(Reference::Labels, 1.0 - goal.confidence, before.len());
            test.p_value(count(true), count(false), goal.max_drop)
        }
        // The drop is relative, so the excess over the allowed one is a difference per row.
        _ => student::p_value_of_negative_mean(&excess(plain, policy, 1.0 + goal.max_drop)),
    }
}
