//! Functions that are computed for many values at once, along axes of every length.

use eec_ir::program::{BinaryFn, Expr, ExprId, Per, ReductionFn, UnaryFn};
use eec_ir::{DType, Dim, Tensor};

use crate::build::{Builder, LoopBuilder, d, dense, floats, n, ramp, view};
use crate::loops::assert_close;

/// Lengths around a vector, an unrolled step and a strip.
const LENGTHS: [usize; 9] = [1, 3, 4, 17, 255, 256, 257, 511, 1000];

fn unary(l: &mut LoopBuilder, f: UnaryFn, x: ExprId) -> ExprId {
    l.expr(Expr::Unary(f, x))
}

/// `y = tanh(exp(x) · sigmoid(x))`: functions of functions, on one thread and on several.
#[test]
fn functions_of_functions_in_a_map() {
    let mut b = Builder::new("map");
    let dims = [d("rows"), d("len")];
    let x = b.input("x", DType::F32, &dims);
    let y = b.temp(DType::F32, Dim::product(&dims));
    let mut l = LoopBuilder::new(&dims);
    let x = l.load(view(x, dense(&dims)));
    let (e, s) = (unary(&mut l, UnaryFn::Exp, x), unary(&mut l, UnaryFn::Sigmoid, x));
    let product = l.expr(Expr::Binary(BinaryFn::Mul, e, s));
    let t = unary(&mut l, UnaryFn::Tanh, product);
    l.store(Per::Element, view(y, dense(&dims)), t);
    b.run_kernel("map", l.0);
    b.output("y", y, &dims);
    for len in LENGTHS {
        let x = ramp(&[3, len], 0.05);
        let found = b.try_run(&[("x", x.clone())], 1).unwrap().outputs.remove(0).1;
        let one = |x: f32| {
            let x = f64::from(x);
            (x.exp() / (1.0 + (-x).exp())).tanh() as f32
        };
        let expected: Vec<f32> = floats(&x).into_iter().map(one).collect();
        assert_close(&floats(&found), &expected, 1e-5);
        assert_eq!(found, b.try_run(&[("x", x)], 3).unwrap().outputs.remove(0).1, "{len} elements");
    }
}

/// `y = erf(x) + Σ exp(x)` along the last axis or the first: a reduction and a second pass over the same
/// functions.
#[test]
fn functions_in_rows_of_every_length() {
    for transposed in [false, true] {
        let mut b = Builder::new("rows");
        let (rows, len) = (d("rows"), d("len"));
        let dims = [rows.clone(), len.clone()];
        let strides = if transposed { vec![n(1), rows.clone()] } else { dense(&dims) };
        let x = b.input("x", DType::F32, &dims);
        let y = b.temp(DType::F32, Dim::product(&dims));
        let mut l = LoopBuilder::with_inner(&[rows], &[len]);
        let x = l.load(view(x, strides.clone()));
        let (e, f) = (unary(&mut l, UnaryFn::Exp, x), unary(&mut l, UnaryFn::Erf, x));
        let sum = l.reduce(ReductionFn::Sum, e);
        let value = l.expr(Expr::Binary(BinaryFn::Add, f, sum));
        let scaled = l.expr(Expr::Binary(BinaryFn::Add, value, e));
        l.store(Per::Element, view(y, strides), scaled);
        b.run_kernel("rows", l.0);
        b.output("y", y, &dims);
        for len in LENGTHS {
            let x = ramp(&[5, len], 0.02);
            let values = floats(&x);
            let at = |row: usize, i: usize| if transposed { i * 5 + row } else { row * len + i };
            let mut expected = vec![0.0; values.len()];
            for row in 0..5 {
                let sum: f64 = (0..len).map(|i| f64::from(values[at(row, i)]).exp()).sum();
                for i in 0..len {
                    let x = f64::from(values[at(row, i)]);
                    expected[at(row, i)] = (libm::erf(x) + sum + x.exp()) as f32;
                }
            }
            assert_close(&floats(&b.run(&[("x", x)]).outputs[0].1), &expected, 1e-5);
        }
    }
}

/// `count` times tanh, one after the other.
fn tower(count: usize) -> Builder {
    let mut b = Builder::new("tower");
    let x = b.input("x", DType::F32, &[n(700)]);
    let y = b.temp(DType::F32, n(700));
    let mut l = LoopBuilder::new(&[n(700)]);
    let mut value = l.load(view(x, vec![n(1)]));
    for _ in 0..count {
        value = unary(&mut l, UnaryFn::Tanh, value);
    }
    l.store(Per::Element, view(y, vec![n(1)]), value);
    b.run_kernel("tower", l.0);
    b.output("y", y, &[n(700)]);
    b
}

#[test]
fn many_functions_in_one_loop_take_little_stack() {
    let x = ramp(&[700], 0.02);
    let expected: Vec<f32> =
        floats(&x).into_iter().map(|x| (0..2000).fold(f64::from(x), |x, _| x.tanh()) as f32).collect();
    assert_close(&floats(&tower(2000).try_run(&[("x", x)], 2).unwrap().outputs[0].1), &expected, 1e-3);
    let error = tower(5000).try_run(&[("x", Tensor::new(&[700], vec![0.0f32; 700]).unwrap())], 1).unwrap_err();
    assert!(error.to_string().contains("expressions"), "{error}");
}
