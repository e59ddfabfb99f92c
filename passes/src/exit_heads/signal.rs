//! Confidences and decisions, built from standard operators on an exit's logits.
//!
//! The same functions build the dynamic graph and the graph that calibration runs, so both see
//! equal bits. All confidences grow with certainty.

use eec_ir::{Op, Tensor, ValueId};

use super::rule::{self, AtExit, Decision, Rule};
use crate::insert::{Emit, InsertError};

/// How sure a classifier is, from its logits `[rows, classes]`; larger is surer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// The largest probability, in `[1/classes, 1]`.
    MaxProb,
    /// The largest probability less the second largest, in `[0, 1]`.
    Margin,
    /// `1 - H/ln(classes)` for the entropy `H` of the probabilities in nats, in `[0, 1]`.
    Entropy,
    /// The probability of one class, in `[0, 1]`.
    Class(usize),
}

/// The number of classes of logits; an error below two.
fn classes(emit: &Emit, logits: ValueId) -> Result<i64, InsertError> {
    let ty = emit.ty(logits);
    let found = ty.dims.get(1).and_then(|d| d.as_const()).filter(|c| *c >= 2 && ty.rank() == 2);
    found.ok_or_else(|| InsertError::Classes(ty.to_string()))
}

/// The confidence `[rows]` of logits `[rows, classes]`.
pub(crate) fn confidence(emit: &mut Emit, signal: Signal, logits: ValueId) -> Result<ValueId, InsertError> {
    let classes = classes(emit, logits)?;
    match signal {
        Signal::MaxProb => {
            let p = emit.op("softmax", Op::Softmax { axis: 1 }, &[logits])?;
            Ok(emit.op("confidence", max_over_classes(false), &[p])?)
        }
        Signal::Margin => margin(emit, logits, classes),
        Signal::Entropy => entropy(emit, logits, classes),
        Signal::Class(class) => {
            let p = emit.op("softmax", Op::Softmax { axis: 1 }, &[logits])?;
            let class = emit.constant(Tensor::scalar(class as i64));
            Ok(emit.op("confidence", Op::Gather { axis: 1 }, &[p, class])?)
        }
    }
}

fn max_over_classes(keepdims: bool) -> Op {
    Op::ReduceMax { axes: vec![1], keepdims }
}

fn margin(emit: &mut Emit, logits: ValueId, classes: i64) -> Result<ValueId, InsertError> {
    let p = emit.op("softmax", Op::Softmax { axis: 1 }, &[logits])?;
    let best = emit.op("best", Op::ArgMax { axis: 1, keepdims: true }, &[p])?;
    let numbers = emit.constant(Tensor::vector((0..classes).collect::<Vec<i64>>()));
    let is_best = emit.op("is-best", Op::Equal {}, &[numbers, best])?;
    let zero = emit.constant(Tensor::scalar(0.0f32));
    let others = emit.op("others", Op::Where {}, &[is_best, zero, p])?;
    let first = emit.op("first", max_over_classes(false), &[p])?;
    let second = emit.op("second", max_over_classes(false), &[others])?;
    Ok(emit.op("confidence", Op::Sub {}, &[first, second])?)
}

fn entropy(emit: &mut Emit, logits: ValueId, classes: i64) -> Result<ValueId, InsertError> {
    let p = emit.op("softmax", Op::Softmax { axis: 1 }, &[logits])?;
    let log_p = emit.op("log-softmax", Op::LogSoftmax { axis: 1 }, &[logits])?;
    let terms = emit.op("terms", Op::Mul {}, &[p, log_p])?;
    let negative = emit.op("negative-entropy", Op::ReduceSum { axes: vec![1], keepdims: false }, &[terms])?;
    let scale = emit.constant(Tensor::scalar((1.0 / (classes as f64).ln()) as f32));
    let scaled = emit.op("scaled", Op::Mul {}, &[negative, scale])?;
    let one = emit.constant(Tensor::scalar(1.0f32));
    Ok(emit.op("confidence", Op::Add {}, &[scaled, one])?)
}

/// The class `[rows]` (i64) of logits: the first largest.
pub(crate) fn class(emit: &mut Emit, logits: ValueId) -> Result<ValueId, InsertError> {
    classes(emit, logits)?;
    Ok(emit.op("class", Op::ArgMax { axis: 1, keepdims: false }, &[logits])?)
}

/// What `rule` decides.
pub(crate) fn decide(emit: &mut Emit, rule: &Rule, at: &AtExit<'_>) -> Result<Decision, InsertError> {
    match rule {
        Rule::Threshold { signal, thresholds } => {
            let confidence = confidence(emit, *signal, at.logits)?;
            let threshold = at.exit.and_then(|k| thresholds.get(k));
            let mask = threshold.map(|t| {
                let t = emit.constant(Tensor::scalar(*t));
                emit.op("leave", Op::Greater {}, &[confidence, t])
            });
            Ok(Decision { mask: mask.transpose()?, confidence, carry: Vec::new() })
        }
        Rule::Patience { count } => {
            let (class, run) = agreement(emit, at.logits, at.carry)?;
            let mask = at.exit.map(|_| {
                let count = emit.constant(Tensor::scalar(*count as f32));
                emit.op("leave", Op::GreaterOrEqual {}, &[run, count])
            });
            Ok(Decision { mask: mask.transpose()?, confidence: run, carry: vec![class, run] })
        }
        Rule::Custom(custom) => {
            let decision = custom.decide(emit, at)?;
            rule::check(emit, custom.as_ref(), at, &decision)?;
            Ok(decision)
        }
    }
}

/// The class, and how many exits in a row, this one included, have named it (as f32).
fn agreement(emit: &mut Emit, logits: ValueId, carry: &[ValueId]) -> Result<(ValueId, ValueId), InsertError> {
    let class = class(emit, logits)?;
    let &[before, run] = carry else {
        let rows = emit.rows(logits);
        return Ok((class, emit.fill("run", Tensor::scalar(1.0f32), &rows)?));
    };
    let same = emit.op("same", Op::Equal {}, &[class, before])?;
    let one = emit.constant(Tensor::scalar(1.0f32));
    let longer = emit.op("longer", Op::Add {}, &[run, one])?;
    Ok((class, emit.op("run", Op::Where {}, &[same, longer, one])?))
}
