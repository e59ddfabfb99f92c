//! What policies lose on rows, and how surely.

use super::super::Goal;
use super::super::bound::DropTest;
use super::super::samples::Reference;
use super::super::student;
use super::{Measured, Quality, Trial};

/// The value of a row: 1 or 0 for an answer, the loss.
fn value(quality: &Quality, row: usize) -> f64 {
    match quality {
        Quality::Correct(rows) => f64::from(u8::from(rows[row])),
        Quality::Loss(rows) => rows[row],
    }
}

pub(super) fn mean(quality: &Quality, rows: &[usize]) -> f64 {
    rows.iter().map(|r| value(quality, *r)).sum::<f64>() / rows.len().max(1) as f64
}

pub(super) fn compare(plain: &Trial, trial: &Trial, rows: &[usize]) -> Measured {
    let (before, after) = (mean(&plain.quality, rows), mean(&trial.quality, rows));
    let drop = match plain.quality {
        Quality::Correct(_) => before - after,
        Quality::Loss(_) => (after - before) / before.max(f64::MIN_POSITIVE),
    };
    Measured { quality: after, drop }
}

/// What each row adds to the drop.
fn differences(plain: &Trial, trial: &Trial, rows: &[usize]) -> Vec<f64> {
    let sign = match plain.quality {
        Quality::Correct(_) => -1.0,
        Quality::Loss(_) => 1.0,
    };
    rows.iter().map(|r| sign * (value(&trial.quality, *r) - value(&plain.quality, *r))).collect()
}

/// The standard error of the drop, in its own unit.
pub(super) fn standard_error(plain: &Trial, trial: &Trial, rows: &[usize]) -> f64 {
    let unit = match plain.quality {
        Quality::Correct(_) => 1.0,
        Quality::Loss(_) => mean(&plain.quality, rows).max(f64::MIN_POSITIVE),
    };
    student::standard_error(&differences(plain, trial, rows)) / unit
}

/// The p-value of "the drop is above the allowed one".
pub(super) fn p_value(plain: &Trial, trial: &Trial, rows: &[usize], goal: &Goal) -> f64 {
    match (&plain.quality, &trial.quality) {
        (Quality::Correct(before), Quality::Correct(after)) => {
            let count = |was: bool| rows.iter().filter(|r| before[**r] == was && after[**r] != was).count();
            let test = DropTest::new(Reference::Labels, 1.0 - goal.confidence, rows.len());
            test.p_value(count(true), count(false), goal.max_drop)
        }
        // The drop is relative, so the excess over the allowed one is a difference per row.
        _ => {
            let excess: Vec<f64> = rows
                .iter()
                .map(|r| value(&trial.quality, *r) - (1.0 + goal.max_drop) * value(&plain.quality, *r))
                .collect();
            student::p_value_of_negative_mean(&excess)
        }
    }
}
