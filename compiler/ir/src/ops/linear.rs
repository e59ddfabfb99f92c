//! Matrix products, accumulated in f64; operands are rounded first where the weights are narrow.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__MatMul.html>,
//! <https://onnx.ai/onnx/operators/onnx__Gemm.html>.

use std::borrow::Cow;

use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred};
use super::{Facts, index};
use crate::dim::Dim;
use crate::precision::Precision;
use crate::types::{DType, Type};

/// `MatMul`: a vector is a row on the left and a column on the right, and leaves no dim behind.
pub(super) fn infer_matmul(cx: &mut Infer, weights: Precision) -> Inferred {
    let (a, b) = (cx.ty(0), cx.ty(1));
    cx.require(weights == Precision::F32 || b.rank() == 2, || {
        format!("{weights} weights must be a matrix, found {b}")
    })?;
    cx.expect_dtype(0, &[DType::F32])?;
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
    Ok(Facts::of(Type::new(DType::F32, dims)))
}

/// `MatMul`.
pub(super) fn eval_matmul(cx: &Eval, weights: Precision) -> Evaluated {
    let (mut a, mut b) = (cx.elements::<f32>(0)?, cx.elements::<f32>(1)?);
    round(&mut a, &mut b, weights, cx.from(1).last().copied().unwrap_or_default(), false);
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
        let product = multiply(&a[i * m * k..(i + 1) * m * k], &b[j * k * n..(j + 1) * k * n], [m, k, n]);
        out.extend(product.into_iter().map(|x| x as f32));
    }
    cx.finish(out)
}

/// Rounds the operands of a product by `weights`, whose second has rows of `columns` elements.
fn round<'a>(a: &mut Cow<'a, [f32]>, b: &mut Cow<'a, [f32]>, weights: Precision, columns: usize, transposed: bool) {
    match weights {
        Precision::F32 => {}
        Precision::Bf16 => [a, b].into_iter().for_each(|x| weights.round(x.to_mut(), columns, transposed)),
        Precision::Int8 => weights.round(b.to_mut(), columns, transposed),
    }
}

/// The product of dense `[m, k]` and `[k, n]`.
fn multiply(a: &[f32], b: &[f32], [m, k, n]: [usize; 3]) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    for (i, row) in out.chunks_exact_mut(n).enumerate() {
        for (p, b_row) in b.chunks_exact(n).enumerate() {
            let factor = f64::from(a[i * k + p]);
            for (sum, x) in row.iter_mut().zip(b_row) {
                *sum += factor * f64::from(*x);
            }
        }
    }
    out
}

/// `Gemm`.
pub(super) fn infer_gemm(cx: &mut Infer, trans_a: bool, trans_b: bool) -> Inferred {
    cx.expect_dtype(0, &[DType::F32])?;
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
    Ok(Facts::of(Type::new(DType::F32, dims)))
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
    let (mut a, mut b) = (cx.elements::<f32>(0)?, cx.elements::<f32>(1)?);
    round(&mut a, &mut b, weights, cx.from(1)[1], trans_b);
    let matrix = |x: &[f32], dims: &[usize], transposed: bool| {
        let order = index::transpose(dims, if transposed { &[1, 0] } else { &[0, 1] });
        order.into_iter().map(|i| x[i]).collect::<Vec<f32>>()
    };
    let (m, n) = (cx.to()[0], cx.to()[1]);
    let k = cx.from(0)[usize::from(!trans_a)];
    let (a, b) = (matrix(&a, cx.from(0), trans_a), matrix(&b, cx.from(1), trans_b));
    let mut sums = multiply(&a, &b, [m, k, n]);
    sums.iter_mut().for_each(|x| *x *= f64::from(alpha));
    if cx.optional(2).is_some() {
        let c = cx.elements::<f32>(2)?;
        let added = cx.broadcast(2).into_iter().map(|i| f64::from(beta) * f64::from(c[i]));
        sums.iter_mut().zip(added).for_each(|(x, y)| *x += y);
    }
    cx.finish(sums.into_iter().map(|x| x as f32).collect())
}
