//! Reductions and normalisations along axes, accumulated in f64.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__ReduceSum.html> and its neighbours,
//! <https://onnx.ai/onnx/operators/onnx__Softmax.html> (since 13: one axis),
//! <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html>,
//! <https://onnx.ai/onnx/operators/onnx__CumSum.html>. `axes` is never empty here.

use super::elementwise::{larger, smaller};
use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred};
use super::{Facts, index};
use crate::dim::Dim;
use crate::types::{DType, Type};

/// `Softmax`, `LogSoftmax`: the operand's type.
pub(super) fn infer_softmax(cx: &mut Infer, axis: i64) -> Inferred {
    cx.expect_float(0)?;
    cx.axis(axis, cx.ty(0).rank())?;
    Ok(Facts::of(cx.ty(0).clone()))
}

/// `CumSum`.
pub(super) fn infer_cumsum(cx: &mut Infer, axis: i64) -> Inferred {
    cx.expect_number(0)?;
    cx.axis(axis, cx.ty(0).rank())?;
    Ok(Facts::of(cx.ty(0).clone()))
}

/// `LayerNormalization`: scale and bias broadcast to the normalised dims.
pub(super) fn infer_layer_norm(cx: &mut Infer, axis: i64) -> Inferred {
    cx.expect_float(0)?;
    let x = cx.ty(0);
    let axis = cx.axis(axis, x.rank())?;
    for operand in 1..cx.inputs().len() {
        cx.expect_same_dtype(0, operand)?;
        cx.broadcast_to(&cx.ty(operand).dims, &x.dims[axis..])?;
    }
    Ok(Facts::of(x.clone()))
}

/// `ReduceSum`, `ReduceProd`, `ReduceMean`.
pub(super) fn infer_reduce(cx: &mut Infer, axes: &[i64], keepdims: bool) -> Inferred {
    cx.expect_number(0)?;
    reduced(cx, cx.ty(0).dtype, axes, keepdims)
}

/// `ReduceMax`, `ReduceMin`.
pub(super) fn infer_extreme(cx: &mut Infer, axes: &[i64], keepdims: bool) -> Inferred {
    reduced(cx, cx.ty(0).dtype, axes, keepdims)
}

/// `ArgMax`: of at least one element.
pub(super) fn infer_arg_max(cx: &mut Infer, axis: i64, keepdims: bool) -> Inferred {
    cx.expect_number(0)?;
    let x = cx.ty(0);
    let empty = x.dims[cx.axis(axis, x.rank())?].as_const() == Some(0);
    cx.require(!empty, || format!("axis {axis} of {x} has no elements"))?;
    reduced(cx, DType::I64, &[axis], keepdims)
}

fn reduced(cx: &Infer, dtype: DType, axes: &[i64], keepdims: bool) -> Inferred {
    let x = cx.ty(0);
    cx.require(!axes.is_empty(), || "`axes` must not be empty".into())?;
    let axes = cx.axes(axes, x.rank())?;
    let size = |(i, dim): (usize, &Dim)| match (axes.contains(&i), keepdims) {
        (true, true) => Some(Dim::from(1)),
        (true, false) => None,
        (false, _) => Some(dim.clone()),
    };
    let dims: Vec<Dim> = x.dims.iter().enumerate().filter_map(size).collect();
    Ok(Facts::of(Type::new(dtype, dims)))
}

/// `f` of each row along `axes`, the rows in row-major order.
fn rows<T: Copy, R>(x: &[T], dims: &[usize], axes: &[usize], f: impl Fn(&[T]) -> R) -> Vec<R> {
    let (order, length) = index::rows(dims, axes);
    let count = dims.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| d).product();
    let row = |i: usize| order[i * length..(i + 1) * length].iter().map(|at| x[*at]).collect::<Vec<T>>();
    (0..count).map(|i| f(&row(i))).collect()
}

/// `f` of each row along `axes`, whose results go where the row's elements stood.
fn along(cx: &Eval, axes: &[usize], f: impl Fn(&[f64]) -> Vec<f64>) -> Evaluated {
    let x = cx.floats(0);
    let (order, _) = index::rows(cx.from(0), axes);
    let mut out = vec![0.0; x.len()];
    let results = rows(&x, cx.from(0), axes, f).into_iter().flatten();
    order.into_iter().zip(results).for_each(|(at, result)| out[at] = result);
    cx.finish_floats(out)
}

/// `Softmax`.
pub(super) fn eval_softmax(cx: &Eval, axis: i64) -> Evaluated {
    along(cx, &[cx.axis(axis)?], |row| {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exps: Vec<f64> = row.iter().map(|x| (x - largest).exp()).collect();
        let sum: f64 = exps.iter().sum();
        exps.into_iter().map(|e| e / sum).collect()
    })
}

/// `LogSoftmax`.
pub(super) fn eval_log_softmax(cx: &Eval, axis: i64) -> Evaluated {
    along(cx, &[cx.axis(axis)?], |row| {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = row.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
        row.iter().map(|x| x - largest - log_sum).collect()
    })
}

/// `LayerNormalization`: the biased variance, as everywhere.
pub(super) fn eval_layer_norm(cx: &Eval, axis: i64, epsilon: f32) -> Evaluated {
    let axis = cx.axis(axis)?;
    let normalised = &cx.from(0)[axis..];
    let affine = |operand: usize| {
        let tensor = cx.optional(operand)?;
        let x = tensor.to_f64s();
        Some(index::broadcast(tensor.dims(), normalised).into_iter().map(|i| x[i]).collect::<Vec<f64>>())
    };
    let (scale, bias) = (affine(1).unwrap_or_default(), affine(2));
    let axes: Vec<usize> = (axis..cx.from(0).len()).collect();
    along(cx, &axes, |row| {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
        let factor = 1.0 / (variance + f64::from(epsilon)).sqrt();
        let scaled = row.iter().zip(&scale).map(|(x, s)| (x - mean) * factor * s);
        scaled.enumerate().map(|(i, x)| x + bias.as_ref().map_or(0.0, |b| b[i])).collect()
    })
}

/// `ReduceSum`: integers wrap.
pub(super) fn eval_sum(cx: &Eval, axes: &[i64]) -> Evaluated {
    reduce(cx, axes, |row| row.iter().sum(), |row| row.iter().fold(0, |a: i128, b| a.wrapping_add(*b)))
}

/// `ReduceProd`: integers wrap.
pub(super) fn eval_prod(cx: &Eval, axes: &[i64]) -> Evaluated {
    reduce(cx, axes, |row| row.iter().product(), |row| row.iter().fold(1, |a: i128, b| a.wrapping_mul(*b)))
}

/// `ReduceMean`; of integers, the truncated one.
pub(super) fn eval_mean(cx: &Eval, axes: &[i64]) -> Evaluated {
    let mean = |row: &[f64]| row.iter().sum::<f64>() / row.len() as f64;
    reduce(cx, axes, mean, |row| row.iter().sum::<i128>().checked_div(row.len() as i128).unwrap_or(0))
}

/// `ReduceMax`: of nothing it is the least value.
pub(super) fn eval_max(cx: &Eval, axes: &[i64]) -> Evaluated {
    let (least, _) = cx.dtype().integer_range().unwrap_or_default();
    let largest = |row: &[f64]| row.iter().copied().fold(f64::NEG_INFINITY, larger);
    reduce(cx, axes, largest, |row| row.iter().copied().fold(least, i128::max))
}

/// `ReduceMin`: of nothing it is the greatest value.
pub(super) fn eval_min(cx: &Eval, axes: &[i64]) -> Evaluated {
    let (_, greatest) = cx.dtype().integer_range().unwrap_or_default();
    let smallest = |row: &[f64]| row.iter().copied().fold(f64::INFINITY, smaller);
    reduce(cx, axes, smallest, |row| row.iter().copied().fold(greatest, i128::min))
}

fn reduce(cx: &Eval, axes: &[i64], float: impl Fn(&[f64]) -> f64, integer: impl Fn(&[i128]) -> i128) -> Evaluated {
    let axes = cx.axes(axes)?;
    match cx.is_float() {
        true => cx.finish_floats(rows(&cx.floats(0), cx.from(0), &axes, float)),
        false => cx.finish_integers(rows(&cx.wide(0)?, cx.from(0), &axes, integer)),
    }
}

/// `ArgMax`: the first of equal ones; NaN is never larger.
pub(super) fn eval_arg_max(cx: &Eval, axis: i64) -> Evaluated {
    let axes = [cx.axis(axis)?];
    match cx.input(0).dtype().is_float() {
        true => cx.finish(rows(&cx.floats(0), cx.from(0), &axes, first_largest)),
        false => cx.finish(rows(&cx.wide(0)?, cx.from(0), &axes, first_largest)),
    }
}

fn first_largest<T: PartialOrd>(row: &[T]) -> i64 {
    let better = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
    (0..row.len()).fold(0, better) as i64
}

/// `CumSum`.
pub(super) fn eval_cumsum(cx: &Eval, axis: i64, exclusive: bool, reverse: bool) -> Evaluated {
    let way = Way { exclusive, reverse };
    cumulate(cx, axis, |row| way.running(row, 0.0, |a, b| a + b), |row| way.running(row, 0, i128::wrapping_add))
}

/// `CumProd`.
pub(super) fn eval_cumprod(cx: &Eval, axis: i64, exclusive: bool, reverse: bool) -> Evaluated {
    let way = Way { exclusive, reverse };
    cumulate(cx, axis, |row| way.running(row, 1.0, |a, b| a * b), |row| way.running(row, 1, i128::wrapping_mul))
}

fn cumulate(
    cx: &Eval,
    axis: i64,
    float: impl Fn(&[f64]) -> Vec<f64>,
    integer: impl Fn(&[i128]) -> Vec<i128>,
) -> Evaluated {
    let axes = [cx.axis(axis)?];
    if cx.is_float() {
        return along(cx, &axes, float);
    }
    let x = cx.wide(0)?;
    let (order, _) = index::rows(cx.from(0), &axes);
    let mut out = vec![0; x.len()];
    let results = rows(&x, cx.from(0), &axes, integer);
    order.into_iter().zip(results.into_iter().flatten()).for_each(|(at, result)| out[at] = result);
    cx.finish_integers(out)
}

/// How a running sum or product goes.
#[derive(Clone, Copy)]
struct Way {
    /// Leaves out the element itself.
    exclusive: bool,
    /// From the end.
    reverse: bool,
}

impl Way {
    fn running<T: Copy>(self, row: &[T], start: T, add: fn(T, T) -> T) -> Vec<T> {
        let mut sum = start;
        let step = |x: &T| {
            let before = sum;
            sum = add(sum, *x);
            if self.exclusive { before } else { sum }
        };
        if !self.reverse {
            return row.iter().map(step).collect();
        }
        let mut backwards: Vec<T> = row.iter().rev().map(step).collect();
        backwards.reverse();
        backwards
    }
}
