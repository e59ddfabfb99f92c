//! Reductions, `ArgMax` and `CumSum`.

use eec_ir::{Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, axis_indices};

/// A reduction whose axes are an operand since opset `since`, an attribute before.
pub(super) fn reduce(cx: &mut Cx, since: i64, op: fn(Vec<i64>, bool) -> Op) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let keepdims = cx.flag("keepdims", true)?;
    let empty_is_none = cx.flag("noop_with_empty_axes", false)?;
    let listed = if cx.opset < since { cx.ints("axes")? } else { cx.const_ints(1, "list of axes")? };
    let axes = match listed.filter(|axes| !axes.is_empty()) {
        Some(axes) => axis_indices(&axes, rank)?,
        None if empty_is_none => return Ok(vec![x]),
        None => (0..rank).collect(),
    };
    let axes = axes.into_iter().map(|a| a as i64).collect();
    Ok(vec![cx.emit(op(axes, keepdims), &[x])?])
}

/// A pooling over all dims after the channels.
pub(super) fn global(cx: &mut Cx, op: fn(Vec<i64>) -> Op) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let axes = (2..cx.rank(x) as i64).collect();
    Ok(vec![cx.emit(op(axes), &[x])?])
}

/// `ArgMax`, the first of equals.
pub(super) fn arg_max(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let axis = cx.int("axis")?.unwrap_or(0);
    let keepdims = cx.flag("keepdims", true)?;
    if cx.flag("select_last_index", false)? {
        return refuse("`select_last_index` is not supported");
    }
    Ok(vec![cx.emit(Op::ArgMax { axis, keepdims }, &[x])?])
}

/// `CumSum` along a constant axis.
pub(super) fn cum_sum(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let (exclusive, reverse) = (cx.flag("exclusive", false)?, cx.flag("reverse", false)?);
    let axis = cx.const_ints(1, "axis")?.filter(|a| a.len() == 1).and_then(|a| a.first().copied());
    let axis = axis.ok_or_else(|| Refusal::new("the axis must be one integer"))?;
    Ok(vec![cx.emit(Op::CumSum { axis, exclusive, reverse }, &[x])?])
}
