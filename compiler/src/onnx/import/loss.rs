//! Losses.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__NegativeLogLikelihoodLoss.html>,
//! <https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html>.

use eec_ir::{Dim, Op, ValueId};

use super::super::error::{NodeResult, refuse};
use super::node::{Cx, Results};

pub(super) fn negative_log_likelihood(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    Ok(vec![likelihood(cx, x)?])
}

/// The loss of the logarithm of the softmax, which is the second result.
pub(super) fn softmax_cross_entropy(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let log = cx.unary(Op::LogSoftmax { axis: 1 }, x)?;
    Ok(vec![likelihood(cx, log)?, log])
}

/// `-weight[target]·x[target]` along axis 1, reduced as the attributes say.
fn likelihood(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let target = cx.input(1)?;
    let reduction = cx.word("reduction")?.unwrap_or_else(|| "mean".into());
    let ignored = cx.int("ignore_index")?;
    let classes = cx.dims(x)[1].clone();
    let (loss, weight) = terms(cx, x, target, ignored, &classes)?;
    let axes: Vec<i64> = (0..cx.rank(target) as i64).collect();
    match reduction.as_str() {
        "none" => Ok(loss),
        "sum" => cx.sum(loss, axes, false),
        "mean" => {
            let (total, count) = (cx.sum(loss, axes.clone(), false)?, cx.sum(weight, axes, false)?);
            cx.div(total, count)
        }
        other => refuse(format!("reduction `{other}` is not known")),
    }
}

/// The loss and the weight of every target.
fn terms(
    cx: &mut Cx,
    x: ValueId,
    target: ValueId,
    ignored: Option<i64>,
    classes: &Dim,
) -> NodeResult<(ValueId, ValueId)> {
    let (zero, one) = (cx.number(x, 0.0)?, cx.number(x, 1.0)?);
    let skipped = match ignored {
        Some(index) => {
            let index = cx.number(target, index as f64)?;
            Some(cx.emit(Op::Equal {}, &[target, index])?)
        }
        None => None,
    };
    // A class that is ignored need not be one.
    let class = match skipped {
        Some(skipped) => {
            let first = cx.number(target, 0.0)?;
            cx.choose(skipped, first, target)?
        }
        None => target,
    };
    let own = cx.dims(target);
    let mut row = own.clone();
    row.insert(1, 1.into());
    let at = cx.reshape(class, row)?;
    let picked = cx.emit(Op::GatherElements { axis: 1 }, &[x, at])?;
    let picked = cx.reshape(picked, own.clone())?;
    let mut weight = match cx.optional(2) {
        Some(weights) => {
            let weights = cx.reshape(weights, vec![classes.clone()])?;
            cx.emit(Op::Gather { axis: 0 }, &[weights, class])?
        }
        None => cx.expanded(one, own)?,
    };
    if let Some(skipped) = skipped {
        weight = cx.choose(skipped, zero, weight)?;
    }
    let negative = cx.unary(Op::Neg {}, picked)?;
    Ok((cx.mul(negative, weight)?, weight))
}
