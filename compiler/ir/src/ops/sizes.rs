//! Sizes as values: what is left of shape arithmetic where data needs it.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__Shape.html>,
//! <https://onnx.ai/onnx/operators/onnx__Range.html>; `Sizes` is ours.

use super::Facts;
use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred, small_dims};
use crate::dim::Dim;
use crate::types::{DType, Type};

/// `Shape`: `start` and `end` count from the end if negative, and are clamped.
pub(super) fn infer_shape(cx: &mut Infer, start: i64, end: i64) -> Inferred {
    let dims = &cx.ty(0).dims;
    let (start, end) = shape_range(dims.len(), start, end);
    Ok(vector(dims[start..end].to_vec()))
}

/// The dims from `start` up to `end`.
fn shape_range(rank: usize, start: i64, end: i64) -> (usize, usize) {
    let clamp = |at: i64| {
        let from_front = if at < 0 { at.saturating_add(rank as i64) } else { at };
        from_front.clamp(0, rank as i64) as usize
    };
    let (start, end) = (clamp(start), clamp(end));
    (start, end.max(start))
}

/// A vector of sizes, known if there are few.
fn vector(values: Vec<Dim>) -> Facts {
    let ty = Type::new(DType::I64, [Dim::from(values.len() as i64)]);
    let contents = (values.len() <= Facts::MAX_CONTENTS).then_some(values);
    Facts { ty, contents }
}

/// `Shape`.
pub(super) fn eval_shape(cx: &Eval, start: i64, end: i64) -> Evaluated {
    let dims = cx.from(0);
    let (start, end) = shape_range(dims.len(), start, end);
    cx.finish(dims[start..end].iter().map(|d| *d as i64).collect())
}

/// `Sizes`.
pub(super) fn infer_sizes(values: &[Dim]) -> Inferred {
    Ok(vector(values.to_vec()))
}

/// `Sizes`.
pub(super) fn eval_sizes(cx: &Eval, values: &[Dim]) -> Evaluated {
    let values = values.iter().map(|v| cx.constant(v)).collect::<Result<Vec<i64>, _>>()?;
    cx.finish(values)
}

/// `LateSize`.
pub(super) fn infer_late(cx: &mut Infer, size: &Dim, most: &Dim) -> Inferred {
    cx.expect_dtype(0, &[DType::I64])?;
    let ty = cx.ty(0);
    cx.require(ty.elements().as_const() == Some(1), || format!("needs one element, found {ty}"))?;
    // While it is evaluated, it is the number that the symbol stands for.
    let named = size.as_const().is_some() || size.as_symbol().is_some_and(|symbol| !most.mentions(symbol));
    cx.require(named, || format!("`size` must be a symbol of its own, found {size}"))?;
    cx.require(most.as_const().is_none_or(|most| most >= 0), || format!("`most` must not be negative, found {most}"))?;
    Ok(Facts { ty: ty.clone(), contents: Some(vec![size.clone()]) })
}

/// `Range`.
pub(super) fn infer_range(cx: &mut Infer, start: &Dim, limit: &Dim, delta: i64) -> Inferred {
    let bad = delta == 0 || delta.unsigned_abs() > Dim::LIMIT as u64;
    cx.require(!bad, || format!("`delta` must be neither 0 nor so large, found {delta}"))?;
    let span = if delta > 0 { limit - start } else { start - limit };
    let length = span.ceil_div(delta.abs()).ok_or_else(|| cx.refuse("`delta` must not be 0"))?;
    let ty = Type::new(DType::I64, [length.larger(&Dim::default())]);
    let element = |i: i64| start + &Dim::from(i * delta);
    let contents = small_dims(&ty).map(|dims| (0..dims.iter().product::<usize>() as i64).map(element).collect());
    Ok(Facts { ty, contents })
}

/// `Range`.
pub(super) fn eval_range(cx: &Eval, start: &Dim, delta: i64) -> Evaluated {
    let start = cx.constant(start)?;
    cx.finish((0..cx.len() as i64).map(|i| start.wrapping_add(i.wrapping_mul(delta))).collect())
}
