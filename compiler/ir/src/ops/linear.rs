//! Matrix products and determinants, accumulated in f64; operands are rounded first where the weights are narrow.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__MatMul.html>,
//! <https://onnx.ai/onnx/operators/onnx__Gemm.html>, <https://onnx.ai/onnx/operators/onnx__Det.html>.

use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred};
use super::{Facts, InferError, index};
use crate::dim::Dim;
use crate::precision::Precision;
use crate::types::{DType, Type};

/// `MatMul`: a vector is a row on the left and a column on the right, and leaves no dim behind.
pub(super) fn infer_matmul(cx: &mut Infer, weights: Precision) -> Inferred {
    let (a, b) = (cx.ty(0), cx.ty(1));
    cx.require(weights == Precision::F32 || b.rank() == 2, || {
        format!("{weights} weights must be a matrix, found {b}")
    })?;
    expect_numbers(cx, weights)?;
    cx.expect_same_dtype(0, 1)?;
    cx.require(a.rank() > 0 && b.rank() > 0, || format!("operands must have dims, found {a} and {b}"))?;
    let (a_batch, m, k) = match a.dims.as_slice() {
        [batch @ .., m, k] => (batch, Some(m), k),
        [k] => (&[][..], None, k),
        [] => return Err(cx.refuse("the first operand has no dims")),
    };
    let (b_batch, other, n) = match b.dims.as_slice() {
        [batch @ .., k, n] => (batch, k, Some(n)),
        [k] => (&[][..], k, None),
        [] => return Err(cx.refuse("the second operand has no dims")),
    };
    cx.unify(k, other, || format!("the inner dims of {a} and {b} differ"))?;
    let mut dims = cx.broadcast(a_batch, b_batch)?;
    dims.extend(m.into_iter().chain(n).cloned());
    Ok(Facts::of(Type::new(a.dtype, dims)))
}

/// `MatMul`.
pub(super) fn eval_matmul(cx: &Eval, weights: Precision) -> Evaluated {
    if cx.is_float() {
        let columns = cx.from(1).last().copied().unwrap_or_default();
        let [a, b] = rounded(cx, weights, columns, false);
        return cx.finish_floats(products(cx, &a, &b, |sum, x, y| sum + x * y));
    }
    let (a, b) = (cx.wide(0)?, cx.wide(1)?);
    cx.finish_integers(products(cx, &a, &b, |sum, x, y| sum.wrapping_add(x.wrapping_mul(y))))
}

/// `Det`: matrices in the last two dims.
pub(super) fn infer_det(cx: &mut Infer) -> Inferred {
    cx.expect_float(0)?;
    let x = cx.ty(0);
    let [batch @ .., rows, columns] = x.dims.as_slice() else {
        return Err(cx.refuse(format!("operand 0 must have at least 2 dims, found {x}")));
    };
    cx.unify(rows, columns, || format!("the matrices of {x} are not square"))?;
    Ok(Facts::of(Type::new(x.dtype, batch.iter().cloned())))
}

/// `Det`.
pub(super) fn eval_det(cx: &Eval) -> Evaluated {
    let (x, size) = (cx.floats(0), cx.from(0).last().copied().unwrap_or_default());
    let matrix = |i: usize| x[i * size * size..][..size * size].to_vec();
    cx.finish_floats((0..cx.len()).map(|i| determinant(matrix(i), size)).collect())
}

/// By Gaussian elimination in a column's largest element first; 1 of no elements.
fn determinant(mut a: Vec<f64>, n: usize) -> f64 {
    let mut product = 1.0;
    for k in 0..n {
        let largest = |i: &usize, j: &usize| a[i * n + k].abs().total_cmp(&a[j * n + k].abs());
        let pivot = (k..n).max_by(largest).unwrap_or(k);
        if pivot != k {
            (0..n).for_each(|j| a.swap(k * n + j, pivot * n + j));
            product = -product;
        }
        let by = a[k * n + k];
        product *= by;
        for i in (k + 1..n).filter(|_| by != 0.0) {
            let factor = a[i * n + k] / by;
            (k..n).for_each(|j| a[i * n + j] -= factor * a[k * n + j]);
        }
    }
    product
}

/// The elements of a `MatMul` over numbers for which `add` gives `sum + x·y`.
fn products<T: Copy + Default>(cx: &Eval, a: &[T], b: &[T], add: fn(T, T, T) -> T) -> Vec<T> {
    let (a_batch, m, k) = match cx.from(0) {
        [batch @ .., m, k] => (batch, *m, *k),
        _ => (&[][..], 1, cx.input(0).len()),
    };
    let (b_batch, n) = match cx.from(1) {
        [batch @ .., _, n] => (batch, *n),
        _ => (&[][..], 1),
    };
    let vectors = usize::from(cx.from(0).len() == 1) + usize::from(cx.from(1).len() == 1);
    let batch = &cx.to()[..(cx.to().len() + vectors).saturating_sub(2)];
    let blocks = index::broadcast(a_batch, batch).into_iter().zip(index::broadcast(b_batch, batch));
    let mut out = Vec::with_capacity(cx.len());
    for (i, j) in blocks {
        out.extend(multiply(&a[i * m * k..(i + 1) * m * k], &b[j * k * n..(j + 1) * k * n], [m, k, n], add));
    }
    out
}

/// Refuses operands that are no numbers, or not f32 where the second is stored in a narrow form.
fn expect_numbers(cx: &Infer, weights: Precision) -> Result<(), InferError> {
    if weights == Precision::F32 { cx.expect_number(0) } else { cx.expect_dtype(0, &[DType::F32]) }
}

/// The operands of a product, rounded as `weights` implies; the second has rows of `columns` elements.
fn rounded(cx: &Eval, weights: Precision, columns: usize, transposed: bool) -> [Vec<f64>; 2] {
    let round = |operand: usize| {
        let mut x: Vec<f32> = cx.floats(operand).into_iter().map(|x| x as f32).collect();
        weights.round(&mut x, columns, transposed);
        x.into_iter().map(f64::from).collect()
    };
    match weights {
        Precision::F32 => [cx.floats(0), cx.floats(1)],
        Precision::Bf16 => [round(0), round(1)],
        Precision::F16 | Precision::Int8 => [cx.floats(0), round(1)],
    }
}

/// The product of dense `[m, k]` and `[k, n]`.
fn multiply<T: Copy + Default>(a: &[T], b: &[T], [m, k, n]: [usize; 3], add: fn(T, T, T) -> T) -> Vec<T> {
    let mut out = vec![T::default(); m * n];
    for (i, row) in out.chunks_exact_mut(n).enumerate() {
        for (p, b_row) in b.chunks_exact(n).enumerate() {
            for (sum, x) in row.iter_mut().zip(b_row) {
                *sum = add(*sum, a[i * k + p], *x);
            }
        }
    }
    out
}

/// `Gemm`.
pub(super) fn infer_gemm(cx: &mut Infer, [trans_a, trans_b]: [bool; 2], weights: Precision) -> Inferred {
    cx.expect_float(0)?;
    expect_numbers(cx, weights)?;
    cx.expect_same_dtype(0, 1)?;
    cx.expect_rank(0, 2)?;
    cx.expect_rank(1, 2)?;
    let (a, b) = (cx.ty(0), cx.ty(1));
    let ([m, k], [other, n]) = (oriented(&a.dims, trans_a), oriented(&b.dims, trans_b));
    cx.unify(&k, &other, || format!("the inner dims of {a} and {b} differ (trans_a={trans_a}, trans_b={trans_b})"))?;
    let dims = [m, n];
    if let Some(c) = cx.optional(2) {
        cx.expect_same_dtype(0, 2)?;
        cx.broadcast_to(&c.dims, &dims)?;
    }
    Ok(Facts::of(Type::new(a.dtype, dims)))
}

/// The rows and columns of a matrix that may be transposed first.
fn oriented(dims: &[Dim], transposed: bool) -> [Dim; 2] {
    let (rows, columns) = (dims[0].clone(), dims[1].clone());
    if transposed { [columns, rows] } else { [rows, columns] }
}

/// `Gemm`.
pub(super) fn eval_gemm(
    cx: &Eval,
    [alpha, beta]: [f32; 2],
    [trans_a, trans_b]: [bool; 2],
    weights: Precision,
) -> Evaluated {
    let [a, b] = rounded(cx, weights, cx.from(1)[1], trans_b);
    let matrix = |x: &[f64], dims: &[usize], transposed: bool| {
        let order = index::transpose(dims, if transposed { &[1, 0] } else { &[0, 1] });
        order.into_iter().map(|i| x[i]).collect::<Vec<f64>>()
    };
    let (m, n) = (cx.to()[0], cx.to()[1]);
    let k = cx.from(0)[usize::from(!trans_a)];
    let (a, b) = (matrix(&a, cx.from(0), trans_a), matrix(&b, cx.from(1), trans_b));
    let mut sums = multiply(&a, &b, [m, k, n], |sum, x, y| sum + x * y);
    sums.iter_mut().for_each(|x| *x *= f64::from(alpha));
    if cx.optional(2).is_some() {
        let c = cx.floats(2);
        let added = cx.broadcast(2).into_iter().map(|i| f64::from(beta) * c[i]);
        sums.iter_mut().zip(added).for_each(|(x, y)| *x += y);
    }
    cx.finish_floats(sums)
}
