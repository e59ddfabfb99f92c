//! Operators that read elements at computed positions. A negative index counts from the end.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__Gather.html>,
//! <https://onnx.ai/onnx/operators/onnx__GatherElements.html>,
//! <https://onnx.ai/onnx/operators/onnx__GatherND.html>.

use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred};
use super::{Facts, index};
use crate::dim::Dim;
use crate::types::{DType, Type};

pub(super) const INDEX: &[DType] = &[DType::I64, DType::I32];

/// `Gather`.
pub(super) fn infer_gather(cx: &mut Infer, axis: i64) -> Inferred {
    cx.expect_dtype(1, INDEX)?;
    let (data, indices) = (cx.ty(0), cx.ty(1));
    let axis = cx.axis(axis, data.rank())?;
    let (outer, inner) = (&data.dims[..axis], &data.dims[axis + 1..]);
    let dims = outer.iter().chain(&indices.dims).chain(inner).cloned();
    let positions = cx.contents(1).and_then(|(_, c)| c.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>());
    Ok(cx.moved(Type::new(data.dtype, dims), &[0], |from, _| index::gather(from.first()?, axis, &positions?).ok()))
}

/// `Gather`.
pub(super) fn eval_gather(cx: &Eval, axis: i64) -> Evaluated {
    let positions = index::gather(cx.from(0), cx.axis(axis)?, &cx.integers(1)?);
    cx.moved(&[cx.input(0)], &positions.map_err(|e| cx.fail(e.to_string()))?)
}

/// `GatherElements`.
pub(super) fn infer_elements(cx: &mut Infer, axis: i64) -> Inferred {
    cx.expect_dtype(1, INDEX)?;
    let (data, indices) = (cx.ty(0), cx.ty(1));
    cx.expect_rank(1, data.rank())?;
    let axis = cx.axis(axis, data.rank())?;
    for i in (0..data.rank()).filter(|i| *i != axis) {
        cx.at_most(&indices.dims[i], &data.dims[i], || format!("dim {i} of {indices} and {data}"))?;
    }
    Ok(Facts::of(Type::new(data.dtype, indices.dims.iter().cloned())))
}

/// `GatherElements`.
pub(super) fn eval_elements(cx: &Eval, axis: i64) -> Evaluated {
    let positions = index::gather_elements(cx.from(0), cx.axis(axis)?, cx.to(), &cx.integers(1)?);
    cx.moved(&[cx.input(0)], &positions.map_err(|e| cx.fail(e.to_string()))?)
}

/// `GatherND`: the length of the index tuples must be constant.
pub(super) fn infer_nd(cx: &mut Infer, batch_dims: i64) -> Inferred {
    cx.expect_dtype(1, INDEX)?;
    let (data, indices) = (cx.ty(0), cx.ty(1));
    let depth = indices.dims.last().and_then(Dim::as_const).and_then(|d| usize::try_from(d).ok());
    let Some((depth, batch)) = depth.zip(usize::try_from(batch_dims).ok()) else {
        return Err(cx.refuse(format!("batch_dims {batch_dims} or the last dim of {indices} is no constant size")));
    };
    let fits = batch < indices.rank() && depth > 0 && batch.checked_add(depth).is_some_and(|n| n <= data.rank());
    cx.require(fits, || format!("{depth} coordinates after {batch} batch dims do not index {data} by {indices}"))?;
    for i in 0..batch {
        cx.unify(&data.dims[i], &indices.dims[i], || format!("batch dim {i} of {data} and {indices}"))?;
    }
    let tuples = &indices.dims[..indices.rank() - 1];
    let dims = tuples.iter().chain(&data.dims[batch + depth..]).cloned();
    Ok(Facts::of(Type::new(data.dtype, dims)))
}

/// `GatherND`.
pub(super) fn eval_nd(cx: &Eval, batch_dims: i64) -> Evaluated {
    let depth = cx.from(1).last().copied().unwrap_or(0);
    let positions = index::gather_nd(cx.from(0), batch_dims as usize, depth, &cx.integers(1)?);
    cx.moved(&[cx.input(0)], &positions.map_err(|e| cx.fail(e.to_string()))?)
}
