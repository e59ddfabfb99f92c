//! Operators that move elements: the result's elements are some of the operands'.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__Reshape.html>, `Transpose`, `Expand`,
//! `Concat`, `Slice`, `Pad`. Target dims, bounds and pads are attributes here, already normalised.

use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred};
use super::{EvalError, index};
use crate::dim::Dim;
use crate::tensor::Tensor;
use crate::types::Type;

/// `Reshape`.
pub(super) fn infer_reshape(cx: &mut Infer, dims: &[Dim]) -> Inferred {
    let x = cx.ty(0);
    check_sizes(cx, "dims", dims)?;
    let ty = Type::new(x.dtype, dims.iter().cloned());
    cx.require(ty.is_manageable(), || "`dims` are too many, or their expressions too large".into())?;
    cx.unify(&x.elements(), &ty.elements(), || format!("{x} has not as many elements as {ty}"))?;
    Ok(cx.moved(ty, &[0], |from, _| Some((0..from.first()?.iter().product()).collect())))
}

fn check_sizes(cx: &Infer, name: &str, dims: &[Dim]) -> Result<(), super::InferError> {
    let negative = dims.iter().any(|d| d.as_const().is_some_and(|c| c < 0));
    cx.require(!negative, || format!("`{name}` must not be negative, found {dims:?}"))
}

/// `Reshape`.
pub(super) fn eval_reshape(cx: &Eval) -> Evaluated {
    cx.input(0).reshaped(cx.to()).map_err(|e| cx.fail(e.to_string()))
}

/// `Transpose`.
pub(super) fn infer_transpose(cx: &mut Infer, perm: &[i64]) -> Inferred {
    let x = cx.ty(0);
    let complete = perm.len() == x.rank() && perm.iter().all(|p| *p >= 0);
    cx.require(complete, || format!("`perm` must permute the dims of {x}, found {perm:?}"))?;
    let axes = cx.axes(perm, x.rank())?;
    let ty = Type::new(x.dtype, axes.iter().map(|a| x.dims[*a].clone()));
    Ok(cx.moved(ty, &[0], |from, _| Some(index::transpose(from.first()?, &axes))))
}

/// `Transpose`.
pub(super) fn eval_transpose(cx: &Eval, perm: &[i64]) -> Evaluated {
    cx.moved(&[cx.input(0)], &index::transpose(cx.from(0), &cx.axes(perm)?))
}

/// `Expand`: a target dim of 1 keeps the operand's.
pub(super) fn infer_expand(cx: &mut Infer, dims: &[Dim]) -> Inferred {
    let x = cx.ty(0);
    check_sizes(cx, "dims", dims)?;
    let dims = cx.broadcast(&x.dims, dims)?;
    Ok(cx.moved(Type::new(x.dtype, dims), &[0], |from, to| Some(index::broadcast(from.first()?, to))))
}

/// `Expand`.
pub(super) fn eval_expand(cx: &Eval) -> Evaluated {
    cx.moved(&[cx.input(0)], &cx.broadcast(0))
}

/// `Concat`.
pub(super) fn infer_concat(cx: &mut Infer, axis: i64) -> Inferred {
    let first = cx.ty(0);
    let axis = cx.axis(axis, first.rank())?;
    let mut dims = first.dims.clone();
    for operand in 1..cx.inputs().len() {
        cx.expect_same_dtype(0, operand)?;
        cx.expect_rank(operand, first.rank())?;
        let next = cx.ty(operand);
        for (i, dim) in dims.iter_mut().enumerate() {
            *dim = match i == axis {
                true => &*dim + &next.dims[i],
                false => cx.unify(dim, &next.dims[i], || format!("{first} and {next} differ in dim {i}"))?,
            };
        }
    }
    let all: Vec<usize> = (0..cx.inputs().len()).collect();
    Ok(cx.moved(Type::new(first.dtype, dims), &all, |from, _| Some(index::concat(from, axis))))
}

/// `Concat`.
pub(super) fn eval_concat(cx: &Eval, axis: i64, inputs: &[Tensor]) -> Evaluated {
    let parts: Vec<Vec<usize>> = inputs.iter().map(|t| t.dims().to_vec()).collect();
    cx.moved(&inputs.iter().collect::<Vec<_>>(), &index::concat(&parts, cx.axis(axis)?))
}

/// The attributes of a slice, one per sliced axis.
#[derive(Clone, Copy)]
pub(super) struct Slice<'a> {
    pub(super) axes: &'a [i64],
    pub(super) starts: &'a [Dim],
    pub(super) ends: &'a [Dim],
    pub(super) steps: &'a [i64],
}

impl Slice<'_> {
    /// The first position and the step along every axis of `rank`.
    fn plan(&self, axes: &[usize], rank: usize) -> Option<(Vec<usize>, Vec<isize>)> {
        let (mut starts, mut steps) = (vec![0; rank], vec![1; rank]);
        for (i, axis) in axes.iter().enumerate() {
            starts[*axis] = usize::try_from(self.starts.get(i)?.as_const()?).ok()?;
            steps[*axis] = isize::try_from(*self.steps.get(i)?).ok()?;
        }
        Some((starts, steps))
    }
}

/// `Slice`.
pub(super) fn infer_slice(cx: &mut Infer, slice: Slice) -> Inferred {
    let x = cx.ty(0);
    let count = slice.axes.len();
    let lengths = [slice.starts.len(), slice.ends.len(), slice.steps.len()];
    cx.require(lengths == [count; 3], || {
        format!("{count} axes need as many starts, ends and steps, found {lengths:?}")
    })?;
    let axes = cx.axes(slice.axes, x.rank())?;
    let mut dims = x.dims.clone();
    for (i, axis) in axes.iter().enumerate() {
        dims[*axis] = slice_length(cx, &dims[*axis], &slice.starts[i], &slice.ends[i], slice.steps[i])?;
    }
    Ok(cx.moved(Type::new(x.dtype, dims), &[0], |from, to| {
        let from = from.first()?;
        let (starts, steps) = slice.plan(&axes, from.len())?;
        Some(index::slice(from, to, &starts, &steps))
    }))
}

/// The number of elements of a slice along one axis, whose bounds are checked.
fn slice_length(cx: &mut Infer, size: &Dim, start: &Dim, end: &Dim, step: i64) -> Result<Dim, super::InferError> {
    let bad = step == 0 || step.unsigned_abs() > Dim::LIMIT as u64;
    cx.require(!bad, || format!("a step must be neither 0 nor so large, found {step}"))?;
    let (least, most) = if step > 0 { (0, size.clone()) } else { (-1, size - &Dim::from(1)) };
    let bounds = || format!("the bounds {start} and {end} of a step {step} are outside of a dim of size {size}");
    cx.at_most(&least.into(), start, bounds)?;
    cx.at_most(&least.into(), end, bounds)?;
    cx.at_most(start, &most, bounds)?;
    cx.at_most(end, &most, bounds)?;
    let span = if step > 0 { end - start } else { start - end };
    let length = span.ceil_div(step.abs()).ok_or_else(|| cx.refuse("a step must not be 0"))?;
    Ok(length.larger(&Dim::default()))
}

/// `Slice`.
pub(super) fn eval_slice(cx: &Eval, slice: Slice) -> Evaluated {
    let Some((starts, steps)) = slice.plan(&cx.axes(slice.axes)?, cx.from(0).len()) else {
        return Err(cx.fail(format!("the starts {:?} are not positions", slice.starts)));
    };
    cx.moved(&[cx.input(0)], &index::slice(cx.from(0), cx.to(), &starts, &steps))
}

/// `Pad`: fewer than no elements cut some off.
pub(super) fn infer_pad(cx: &mut Infer, pads: &[Dim]) -> Inferred {
    let x = cx.ty(0);
    let rank = x.rank();
    cx.require(pads.len() == 2 * rank, || format!("{x} needs {} pads, found {pads:?}", 2 * rank))?;
    let mut operands = vec![0];
    if let Some(value) = cx.optional(1) {
        cx.expect_same_dtype(0, 1)?;
        let single = value.elements().as_const() == Some(1);
        cx.require(single, || format!("the padding must be one element, found {value}"))?;
        operands.push(1);
    }
    let size = |(i, dim): (usize, &Dim)| &(dim + &pads[i]) + &pads[i + rank];
    let dims: Vec<Dim> = x.dims.iter().enumerate().map(size).collect();
    check_sizes(cx, "dims after padding", &dims)?;
    let begins: Option<Vec<i64>> = pads[..rank].iter().map(Dim::as_const).collect();
    Ok(cx.moved(Type::new(x.dtype, dims), &operands, |from, to| {
        let from = from.first()?;
        Some(index::pad(from, to, &begins?, from.iter().product()))
    }))
}

/// `Pad`.
pub(super) fn eval_pad(cx: &Eval, pads: &[Dim]) -> Evaluated {
    let x = cx.input(0);
    let begins = pads.iter().take(x.dims().len()).map(|p| cx.constant(p)).collect::<Result<Vec<_>, EvalError>>()?;
    let operands: Vec<&Tensor> = std::iter::once(x).chain(cx.optional(1)).collect();
    cx.moved(&operands, &index::pad(x.dims(), cx.to(), &begins, x.len()))
}
