//! Operators that pick elements by their order.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__TopK.html>.

use std::cmp::Ordering;

use super::eval_context::{Eval, Evaluated};
use super::infer_context::Infer;
use super::{Facts, InferError, index};
use crate::dim::Dim;
use crate::types::{DType, Type};

/// `TopK`: values and positions.
pub(super) fn infer_top_k(cx: &mut Infer, axis: i64, k: &Dim) -> Result<Vec<Facts>, InferError> {
    cx.expect_number(0)?;
    let x = cx.ty(0);
    let axis = cx.axis(axis, x.rank())?;
    cx.require(k.as_const().is_none_or(|k| k >= 0), || format!("`k` must not be negative, found {k}"))?;
    cx.at_most(k, &x.dims[axis], || format!("`k` elements of axis {axis} of {x}"))?;
    let mut dims = x.dims.clone();
    dims[axis] = k.clone();
    Ok(vec![Facts::of(Type::new(x.dtype, dims.iter().cloned())), Facts::of(Type::new(DType::I64, dims))])
}

/// `TopK`, sorted, equal elements in their order; NaN counts as larger than all others.
pub(super) fn eval_top_k(cx: &Eval, axis: i64, largest: bool) -> Evaluated {
    let axis = cx.axis(axis)?;
    let chosen = match cx.input(0).dtype().is_float() {
        true => chosen(cx, axis, largest, &cx.floats(0), order),
        false => chosen(cx, axis, largest, &cx.wide(0)?, Ord::cmp),
    };
    if cx.output() == 1 {
        return cx.finish_integers(chosen.into_iter().map(|(_, i)| i as i128).collect());
    }
    cx.moved(&[cx.input(0)], &chosen.into_iter().map(|(at, _)| at).collect::<Vec<_>>())
}

fn order(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// For every element of the result, its position in the operand and along the axis.
fn chosen<T>(cx: &Eval, axis: usize, largest: bool, x: &[T], order: fn(&T, &T) -> Ordering) -> Vec<(usize, usize)> {
    let (positions, length) = index::rows(cx.from(0), &[axis]);
    let (targets, k) = index::rows(cx.to(), &[axis]);
    let mut out = vec![(0, 0); targets.len()];
    for (row, targets) in positions.chunks(length.max(1)).zip(targets.chunks(k.max(1))) {
        let mut sorted: Vec<usize> = (0..row.len()).collect();
        sorted.sort_by(|i, j| {
            let order = order(&x[row[*i]], &x[row[*j]]);
            if largest { order.reverse() } else { order }
        });
        targets.iter().zip(sorted).for_each(|(target, i)| out[*target] = (row[i], i));
    }
    out
}
