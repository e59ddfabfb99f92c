//! Reductions, `ArgMax`, running sums and what is built from them.

use eec_ir::{Dim, Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, Results, axis_index, axis_indices};
use super::pool;

/// The operand, the axes to reduce (none: nothing is reduced) and whether they stay as dims of 1. Axes
/// are an operand since opset `since`, an attribute before.
fn form(cx: &mut Cx, since: i64) -> NodeResult<(ValueId, Vec<i64>, bool)> {
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let keepdims = cx.flag("keepdims", true)?;
    let empty_is_none = cx.flag("noop_with_empty_axes", false)?;
    let listed = if cx.opset < since { cx.ints("axes")? } else { cx.const_ints(1, "list of axes")? };
    let axes = match listed.filter(|axes| !axes.is_empty()) {
        Some(axes) => axis_indices(&axes, rank)?,
        None if empty_is_none => Vec::new(),
        None => (0..rank).collect(),
    };
    Ok((x, axes.into_iter().map(|a| a as i64).collect(), keepdims))
}

/// A reduction.
pub(super) fn reduce(cx: &mut Cx, since: i64, op: fn(Vec<i64>, bool) -> Op) -> Results {
    let (x, axes, keepdims) = form(cx, since)?;
    Ok(vec![if axes.is_empty() { x } else { cx.emit(op(axes, keepdims), &[x])? }])
}

/// `after` of the sum of `before` of each element.
fn sum_of(cx: &mut Cx, before: Step, after: Step) -> Results {
    let (x, axes, keepdims) = form(cx, 18)?;
    let x = before(cx, x)?;
    let sum = cx.sum(x, axes, keepdims)?;
    Ok(vec![after(cx, sum)?])
}

type Step = fn(&mut Cx, ValueId) -> NodeResult<ValueId>;

const SAME: Step = |_, x| Ok(x);
const SIZE: Step = |cx, x| cx.unary(Op::Abs {}, x);
const SQUARE: Step = |cx, x| cx.square(x);
const ROOT: Step = |cx, x| cx.unary(Op::Sqrt {}, x);
const LOG: Step = |cx, x| cx.unary(Op::Log {}, x);

pub(super) fn l1(cx: &mut Cx) -> Results {
    sum_of(cx, SIZE, SAME)
}

pub(super) fn l2(cx: &mut Cx) -> Results {
    sum_of(cx, SQUARE, ROOT)
}

pub(super) fn sum_square(cx: &mut Cx) -> Results {
    sum_of(cx, SQUARE, SAME)
}

pub(super) fn log_sum(cx: &mut Cx) -> Results {
    sum_of(cx, SAME, LOG)
}

/// `log(Σ e^x)`, with the largest element taken out first; of nothing, or of elements that are all
/// `-inf`, it is `-inf`.
pub(super) fn log_sum_exp(cx: &mut Cx) -> Results {
    let (x, axes, keepdims) = form(cx, 18)?;
    if axes.is_empty() {
        return Ok(vec![x]);
    }
    let largest = cx.emit(Op::ReduceMax { axes: axes.clone(), keepdims: true }, &[x])?;
    // An infinity would give NaN in the difference.
    let (least, most) = (f64::from(f32::MIN), f64::from(f32::MAX));
    let shift = cx.clipped(largest, least, most)?;
    let shifted = cx.sub(x, shift)?;
    let exp = cx.unary(Op::Exp {}, shifted)?;
    let sum = cx.sum(exp, axes, keepdims)?;
    let log = cx.unary(Op::Log {}, sum)?;
    let dims = cx.dims(log);
    let shift = cx.reshape(shift, dims)?;
    Ok(vec![cx.add(log, shift)?])
}

/// A pooling over all dims after the channels.
pub(super) fn global(cx: &mut Cx, op: fn(Vec<i64>) -> Op) -> Results {
    let x = cx.input(0)?;
    let x = pool::not_empty(cx, x)?;
    let axes = (2..cx.rank(x) as i64).collect();
    Ok(vec![cx.emit(op(axes), &[x])?])
}

pub(super) fn arg_max(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    arg(cx, x)
}

/// `ArgMin`: the largest of the elements in reverse order.
pub(super) fn arg_min(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let op = if cx.ty(x).dtype.is_float() { Op::Neg {} } else { Op::BitwiseNot {} };
    let opposite = cx.unary(op, x)?;
    arg(cx, opposite)
}

/// The position of the first of the largest elements, or of the last.
fn arg(cx: &mut Cx, x: ValueId) -> Results {
    let axis = cx.axis(0)?;
    let keepdims = cx.flag("keepdims", true)?;
    let op = Op::ArgMax { axis: axis as i64, keepdims };
    if !cx.flag("select_last_index", false)? {
        return Ok(vec![cx.emit(op, &[x])?]);
    }
    let backwards = cx.reversed(x, axis)?;
    let from_end = cx.emit(op, &[backwards])?;
    let last = &cx.dims(x)[axis] - &Dim::from(1);
    let last = cx.emit(Op::Sizes { values: vec![last] }, &[])?;
    Ok(vec![cx.sub(last, from_end)?])
}

/// `CumSum` and `CumProd` along a constant axis.
pub(super) fn running(cx: &mut Cx, op: fn(i64, bool, bool) -> Op) -> Results {
    let x = cx.input(0)?;
    let (exclusive, reverse) = (cx.flag("exclusive", false)?, cx.flag("reverse", false)?);
    let axis = cx.const_int(1, "axis")?.ok_or_else(|| Refusal::new("the axis is missing"))?;
    Ok(vec![cx.emit(op(axis, exclusive, reverse), &[x])?])
}

/// Every element divided by the norm along an axis; by nothing where the norm is 0.
pub(super) fn lp_normalization(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let axis = cx.axis(-1)? as i64;
    let (before, after) = match cx.int("p")?.unwrap_or(2) {
        1 => (SIZE, SAME),
        2 => (SQUARE, ROOT),
        p => return refuse(format!("a norm of order {p} is not supported")),
    };
    let terms = before(cx, x)?;
    let sum = cx.sum(terms, vec![axis], true)?;
    let norm = after(cx, sum)?;
    let (zero, one) = (cx.number(x, 0.0)?, cx.number(x, 1.0)?);
    let none = cx.emit(Op::Equal {}, &[norm, zero])?;
    let divisor = cx.choose(none, one, norm)?;
    Ok(vec![cx.div(x, divisor)?])
}

/// The `k` largest or smallest elements along an axis. They are always sorted, as the standard allows.
pub(super) fn top_k(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let axis = cx.int("axis")?.unwrap_or(-1);
    let axis = axis_index(axis, cx.rank(x))? as i64;
    let largest = cx.flag("largest", true)?;
    cx.flag("sorted", true)?;
    let all = cx.dims(x)[axis as usize].clone();
    let k = match cx.int("k")? {
        Some(k) => Dim::from(k),
        None => match cx.late_sizes(1, "number of elements", |_| Some(all.clone()))?.as_deref() {
            Some([k]) => k.clone(),
            _ => return refuse("the number of elements must be one size"),
        },
    };
    cx.emit_all(Op::TopK { axis, k, largest }, &[x])
}
