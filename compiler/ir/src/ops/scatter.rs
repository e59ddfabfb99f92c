//! Operators that write elements at computed positions. A negative index counts from the end; of
//! several updates of one element the last one stands, or all are combined with it.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__ScatterElements.html>,
//! <https://onnx.ai/onnx/operators/onnx__ScatterND.html>.

use super::eval_context::{Eval, Evaluated};
use super::gather::INDEX;
use super::infer_context::{Infer, Inferred};
use super::{EvalError, Facts, elementwise, index};
use crate::attr::Combine;
use crate::dim::Dim;

/// `ScatterElements`.
pub(super) fn infer_elements(cx: &mut Infer, axis: i64) -> Inferred {
    cx.expect_dtype(1, INDEX)?;
    cx.expect_same_dtype(0, 2)?;
    let (data, indices, updates) = (cx.ty(0), cx.ty(1), cx.ty(2));
    cx.expect_rank(1, data.rank())?;
    cx.expect_rank(2, data.rank())?;
    let axis = cx.axis(axis, data.rank())?;
    for i in 0..data.rank() {
        cx.unify(&indices.dims[i], &updates.dims[i], || format!("dim {i} of {indices} and {updates}"))?;
        if i != axis {
            cx.at_most(&indices.dims[i], &data.dims[i], || format!("dim {i} of {indices} and {data}"))?;
        }
    }
    Ok(Facts::of(data.clone()))
}

/// `ScatterElements`.
pub(super) fn eval_elements(cx: &Eval, axis: i64, combine: Combine) -> Evaluated {
    let positions = index::gather_elements(cx.from(0), cx.axis(axis)?, cx.from(1), &cx.integers(1)?);
    scatter(cx, &positions.map_err(|e| cx.fail(e.to_string()))?, combine)
}

/// `ScatterND`: the length of the index tuples must be constant.
pub(super) fn infer_nd(cx: &mut Infer) -> Inferred {
    cx.expect_dtype(1, INDEX)?;
    cx.expect_same_dtype(0, 2)?;
    let (data, indices, updates) = (cx.ty(0), cx.ty(1), cx.ty(2));
    let depth = indices.dims.last().and_then(Dim::as_const).and_then(|d| usize::try_from(d).ok());
    let fits = |depth: &usize| (1..=data.rank()).contains(depth);
    let Some(depth) = depth.filter(fits) else {
        return Err(cx.refuse(format!("the last dim of {indices} is no number of coordinates of {data}")));
    };
    let tuples = &indices.dims[..indices.rank() - 1];
    let wanted: Vec<Dim> = tuples.iter().chain(&data.dims[depth..]).cloned().collect();
    cx.expect_rank(2, wanted.len())?;
    for (i, dim) in wanted.iter().enumerate() {
        cx.unify(dim, &updates.dims[i], || format!("dim {i} of the updates {updates}"))?;
    }
    Ok(Facts::of(data.clone()))
}

/// `ScatterND`.
pub(super) fn eval_nd(cx: &Eval, combine: Combine) -> Evaluated {
    let depth = cx.from(1).last().copied().unwrap_or(0);
    let positions = index::gather_nd(cx.from(0), 0, depth, &cx.integers(1)?);
    scatter(cx, &positions.map_err(|e| cx.fail(e.to_string()))?, combine)
}

/// The data with every update at its position.
fn scatter(cx: &Eval, positions: &[usize], combine: Combine) -> Evaluated {
    if combine == Combine::None {
        let data = cx.input(0);
        let mut from: Vec<usize> = (0..data.len()).collect();
        positions.iter().enumerate().for_each(|(i, at)| from[*at] = data.len() + i);
        return cx.moved(&[data, cx.input(2)], &from);
    }
    if cx.is_float() {
        return cx.finish_floats(combined(cx.floats(0), &cx.floats(2), positions, float(combine)));
    }
    let (data, updates): (Result<_, EvalError>, _) = (cx.wide(0), cx.wide(2)?);
    cx.finish_integers(combined(data?, &updates, positions, integer(combine)))
}

fn combined<T: Copy>(mut data: Vec<T>, updates: &[T], positions: &[usize], f: fn(T, T) -> T) -> Vec<T> {
    positions.iter().zip(updates).for_each(|(at, update)| data[*at] = f(data[*at], *update));
    data
}

fn float(combine: Combine) -> fn(f64, f64) -> f64 {
    match combine {
        Combine::None => |_, b| b,
        Combine::Add => |a, b| a + b,
        Combine::Mul => |a, b| a * b,
        Combine::Max => elementwise::larger,
        Combine::Min => elementwise::smaller,
    }
}

fn integer(combine: Combine) -> fn(i128, i128) -> i128 {
    match combine {
        Combine::None => |_, b| b,
        Combine::Add => i128::wrapping_add,
        Combine::Mul => i128::wrapping_mul,
        Combine::Max => i128::max,
        Combine::Min => i128::min,
    }
}
