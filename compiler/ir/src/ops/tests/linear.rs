//! Matrix products.

use super::*;
use crate::Precision;

#[test]
fn matmul_broadcasts_batches() {
    let expected = [
        4.75, 1.5, -7.5, 6.0, -6.5, 4.0, 4.75, 4.5, 1.5, 1.0, 6.0, -5.25, 4.0, 3.5, 4.5, -6.75, -6.0, 5.0, -4.5, 4.0,
        5.0, 5.0, 5.25, 5.5, 5.0, -6.0, 4.0, -6.75, 5.0, -6.0, 5.5, -5.25,
    ];
    assert_close(&Op::MATMUL, &[ramp(&[2, 1, 2, 3]), ramp(&[4, 3, 2])], &[2, 4, 2, 2], &expected);
}

#[test]
fn vectors_lose_their_dim() {
    let (m, v) = (tensor(&[2, 3], &[1.0f32, 2., 3., 4., 5., 6.]), tensor(&[3], &[1.0f32, 0.0, -1.0]));
    assert_eq!(floats(&Op::MATMUL, &[m.clone(), v.clone()]), (vec![2], vec![-2.0, -2.0]));
    let left = tensor(&[2], &[1.0f32, -1.0]);
    assert_eq!(floats(&Op::MATMUL, &[left, m.clone()]), (vec![3], vec![-3.0, -3.0, -3.0]));
    assert_eq!(floats(&Op::MATMUL, &[v.clone(), v]), (vec![], vec![2.0]));
    let batch = tensor(&[2, 3, 1], &[1.0f32, 0., 0., 0., 1., 0.]);
    assert_eq!(floats(&Op::MATMUL, &[tensor(&[3], &[5.0f32, 6., 7.]), batch]), (vec![2, 1], vec![5.0, 6.0]));
}

#[test]
fn empty_products_are_zero() {
    let (a, b) = (tensor::<f32>(&[2, 0], &[]), tensor::<f32>(&[0, 3], &[]));
    assert_eq!(floats(&Op::MATMUL, &[a, b]), (vec![2, 3], vec![0.0; 6]));
    let (a, b) = (tensor::<f32>(&[0, 4], &[]), ramp(&[4, 3]));
    assert_eq!(floats(&Op::MATMUL, &[a, b]), (vec![0, 3], vec![]));
}

#[test]
fn sums_do_not_lose_small_terms() {
    let a = tensor(&[1, 3], &[1e8f32, 1.0, -1e8]);
    assert_eq!(floats(&Op::MATMUL, &[a, tensor(&[3, 1], &[1.0f32; 3])]).1, [1.0]);
}

#[test]
fn matmul_infers_symbolic_dims() {
    let product = typed(&Op::MATMUL, &[float(&["batch", "12", "seq", "64"]), float(&["batch", "12", "64", "total"])]);
    assert_eq!(product, ("f32[batch, 12, seq, total]".into(), vec![]));
    let assumed = typed(&Op::MATMUL, &[float(&["batch", "width"]), float(&["64", "3"])]);
    assert_eq!(assumed, ("f32[batch, 3]".into(), vec!["64 = width".into()]));
    let inner = refusal(&Op::MATMUL, &[float(&["batch", "5"]), float(&["4", "3"])]);
    assert_eq!(inner, "the inner dims of f32[batch, 5] and f32[4, 3] differ: 5 is not 4");
    assert!(refusal(&Op::MATMUL, &[float(&[]), float(&["4"])]).contains("must have dims"));
    let truths = value(DType::Bool, &["2", "2"]);
    assert_eq!(refusal(&Op::MATMUL, &[truths.clone(), truths]), "operand 0 must be a number, found bool[2, 2]");
}

#[test]
fn gemm() {
    let op = Op::Gemm { alpha: 0.5, beta: 2.0, trans_a: true, trans_b: true, weights: Precision::F32 };
    let inputs = [ramp(&[3, 2]), ramp(&[4, 3]), tensor(&[2, 1], &[1.0f32, 2.0])];
    assert_close(&op, &inputs, &[2, 4], &[4.375, -1.75, -1.0, -0.25, 4.75, 7.0, 6.5, 6.0]);
    let plain = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false, weights: Precision::F32 };
    let (a, b) = (tensor(&[1, 2], &[1.0f32, 2.0]), tensor(&[2, 2], &[1.0f32, 2.0, 3.0, 4.0]));
    assert_eq!(floats(&plain, &[a.clone(), b.clone()]), (vec![1, 2], vec![7.0, 10.0]));
    assert_eq!(floats(&plain, &[a, b, tensor(&[2], &[0.5f32, -0.5])]).1, [7.5, 9.5]);
}

#[test]
fn gemm_refuses_what_does_not_fit() {
    let plain = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true, weights: Precision::F32 };
    let ab = [float(&["batch", "64"]), float(&["10", "64"])];
    assert_eq!(typed(&plain, &ab).0, "f32[batch, 10]");
    let with = |c: Facts| [ab[0].clone(), ab[1].clone(), c];
    assert_eq!(typed(&plain, &with(float(&["10"]))).0, "f32[batch, 10]");
    assert_eq!(refusal(&plain, &with(float(&["9"]))), "dims [9] do not broadcast to [batch, 10]");
    assert_eq!(refusal(&plain, &with(float(&["1", "1", "10"]))), "dims [1, 1, 10] do not broadcast to [batch, 10]");
    let shifted = refusal(&plain, &[float(&["batch", "64"]), float(&["64", "10"])]);
    assert!(shifted.ends_with("(trans_a=false, trans_b=true): 64 is not 10"), "{shifted}");
}
