//! `Pad`: with a constant an operator of the IR, with elements of the operand a gather per axis.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__Pad.html>. Amounts may be symbolic; fewer than none cut off,
//! before the other side is filled from what is left. Those that data decides must not be fewer.

use eec_ir::{Dim, Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, axis_indices};

/// Which element of an axis stands at a place outside of it.
#[derive(Clone, Copy)]
enum Source {
    /// The nearest one.
    Edge,
    /// As if the axis began again.
    Wrap,
    /// As if the axis went back, without the element at its end.
    Reflect,
}

/// `Pad` with a constant, or with elements of the operand.
pub(super) fn pad(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let mode = cx.word("mode")?.unwrap_or_else(|| "constant".into());
    let (listed, value) = if cx.opset < 11 {
        let pads = cx.ints("pads")?.map(|v| v.into_iter().map(Dim::from).collect());
        let value = cx.float("value")?.unwrap_or(0.0);
        (pads, Some(cx.constant(Tensor::scalar(value))))
    } else {
        (cx.late_sizes(1, "padding", |_| None)?, cx.optional(2))
    };
    let listed: Vec<Dim> = listed.ok_or_else(|| Refusal::new("the padding is missing"))?;
    let axes = match cx.const_ints(3, "list of axes")? {
        Some(axes) => axis_indices(&axes, rank)?,
        None => (0..rank).collect(),
    };
    if listed.len() != 2 * axes.len() {
        return refuse(format!("{} paddings are listed for {} axes", listed.len(), axes.len()));
    }
    let mut pads = vec![Dim::from(0); 2 * rank];
    for (i, axis) in axes.iter().enumerate() {
        pads[*axis] = listed[i].clone();
        pads[rank + axis] = listed[axes.len() + i].clone();
    }
    let source = match mode.as_str() {
        "constant" => None,
        "edge" => Some(Source::Edge),
        "wrap" => Some(Source::Wrap),
        "reflect" => Some(Source::Reflect),
        other => return refuse(format!("mode `{other}` is not known")),
    };
    if let Some(source) = source {
        return Ok(vec![repeated(cx, x, &pads, source)?]);
    }
    let zero = |v: &ValueId| cx.constant_of(*v).is_some_and(|t| t.bytes().iter().all(|b| *b == 0));
    let operands: Vec<ValueId> = std::iter::once(x).chain(value.filter(|v| !zero(v))).collect();
    Ok(vec![cx.emit(Op::Pad { pads }, &operands)?])
}

/// The operand surrounded by elements of its own.
fn repeated(cx: &mut Cx, mut x: ValueId, pads: &[Dim], source: Source) -> NodeResult<ValueId> {
    let rank = cx.rank(x);
    for axis in 0..rank {
        let [before, after, size] = [&pads[axis], &pads[axis + rank], &cx.dims(x)[axis]].map(Dim::clone);
        if [&before, &after].into_iter().all(|pad| pad.as_const() == Some(0)) {
            continue;
        }
        let positions = match (before.as_const(), after.as_const(), size.as_const()) {
            (Some(before), Some(after), Some(size)) => listed(cx, [before, after], size, source)?,
            _ => computed(cx, [before, after], size, source)?,
        };
        x = cx.emit(Op::Gather { axis: axis as i64 }, &[x, positions])?;
    }
    Ok(x)
}

/// The positions of an axis of constant size.
fn listed(cx: &mut Cx, [before, after]: [i64; 2], size: i64, source: Source) -> NodeResult<ValueId> {
    if size < 1 || before.abs().max(after.abs()) > 1 << 24 {
        return refuse(format!("a dim of {size} cannot be padded by {before} and {after}"));
    }
    cx.may_compute(size.saturating_add(before.max(0) + after.max(0)))?;
    let cut = (-before).max(0);
    let left = size - cut - (-after).max(0);
    if left < 1 {
        return refuse(format!("nothing is left of a dim of {size} that is padded by {before} and {after}"));
    }
    let position = |i: i64| match source {
        Source::Edge => i.clamp(0, left - 1),
        Source::Wrap => i.rem_euclid(left),
        Source::Reflect => {
            let period = (2 * (left - 1)).max(1);
            let at = i.rem_euclid(period);
            at.min(period - at).min(left - 1)
        }
    };
    Ok(cx.integers((-before..size + after).map(|i| cut + position(i - cut)).collect()))
}

/// The positions of an axis whose size, or that of its padding, is symbolic: the same, computed by a run.
fn computed(cx: &mut Cx, [before, after]: [Dim; 2], size: Dim, source: Source) -> NodeResult<ValueId> {
    let (none, one) = (Dim::default(), Dim::from(1));
    let [cut, cut_after] = [&before, &after].map(|pad| (&none - pad).larger(&none));
    let left = &(&size - &cut) - &cut_after;
    let last = &left - &one;
    let period = match source {
        Source::Edge => none.clone(),
        Source::Wrap => left.clone(),
        Source::Reflect => (&last + &last).larger(&one),
    };
    // As many periods later, no place is negative.
    let shift = &(&before.larger(&none) * &period) - &cut;
    let range = Op::Range { start: &shift - &before, limit: &(&size + &after) + &shift, delta: 1 };
    let places = cx.emit(range, &[])?;
    let at = inside(cx, places, &last, &period, source)?;
    if cut == none {
        return Ok(at);
    }
    let cut = cx.number_of(&cut)?;
    cx.add(at, cut)
}

/// Places as positions up to `last`.
fn inside(cx: &mut Cx, places: ValueId, last: &Dim, period: &Dim, source: Source) -> NodeResult<ValueId> {
    let last = cx.number_of(last)?;
    if let Source::Edge = source {
        let places = cx.at_least(places, 0.0)?;
        return cx.emit(Op::Min {}, &[places, last]);
    }
    let period = cx.number_of(period)?;
    let turns = cx.div(places, period)?;
    let begun = cx.mul(turns, period)?;
    let at = cx.sub(places, begun)?;
    match source {
        Source::Edge | Source::Wrap => Ok(at),
        Source::Reflect => {
            let back = cx.sub(period, at)?;
            let at = cx.emit(Op::Min {}, &[at, back])?;
            cx.emit(Op::Min {}, &[at, last])
        }
    }
}
