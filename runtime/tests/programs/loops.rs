//! Maps, reductions and gathers.

use eec_ir::program::{BinaryFn, Expr, Indexed, Per, ReductionFn, Scalar, UnaryFn};
use eec_ir::{DType, Tensor};
use eec_runtime::ErrorKind;

use crate::build::{Builder, LoopBuilder, d, dense, floats, n, ramp, view};

/// `relu(x + row) * column` with broadcasts, over `[batch, 5, 7]`.
fn broadcast() -> Builder {
    let mut b = Builder::new("broadcast");
    let dims = [d("batch"), n(5), n(7)];
    let x = b.input("x", DType::F32, &dims);
    let row = b.input("row", DType::F32, &[n(7)]);
    let column = b.input("column", DType::F32, &[n(5)]);
    let y = b.temp(DType::F32, eec_ir::Dim::product(&dims));
    let mut l = LoopBuilder::new(&dims);
    let x = l.load(view(x, dense(&dims)));
    let row = l.load(view(row, vec![n(0), n(0), n(1)]));
    let column = l.load(view(column, vec![n(0), n(1), n(0)]));
    let sum = l.expr(Expr::Binary(BinaryFn::Add, x, row));
    let zero = l.expr(Expr::Const(Scalar::F32(0.0)));
    let relu = l.expr(Expr::Binary(BinaryFn::Max, sum, zero));
    let product = l.expr(Expr::Binary(BinaryFn::Mul, relu, column));
    l.store(Per::Element, view(y, dense(&dims)), product);
    b.run_kernel("map", l.0);
    b.output("y", y, &dims);
    b
}

#[test]
fn broadcast_map() {
    let b = broadcast();
    for batch in [1usize, 2, 9] {
        let (x, row, column) = (ramp(&[batch, 5, 7], 0.1), ramp(&[7], 1.0), ramp(&[5], 0.3));
        let run = b.run(&[("x", x.clone()), ("row", row.clone()), ("column", column.clone())]);
        let (x, row, column) = (floats(&x), floats(&row), floats(&column));
        let expected: Vec<f32> = (0..x.len()).map(|i| (x[i] + row[i % 7]).max(0.0) * column[i / 7 % 5]).collect();
        assert_eq!(floats(&run.outputs[0].1), expected, "batch {batch}");
        assert_eq!(run.outputs[0].1.dims(), [batch, 5, 7]);
        assert_eq!((run.counters.kernels, run.counters.macs), (1, 1));
    }
}

/// y = x transposed, with the rows backwards and every second column: `[4, 11] → [6, 4]`.
#[test]
fn transposed_backwards_strided() {
    let mut b = Builder::new("views");
    let x = b.input("x", DType::F32, &[n(4), n(11)]);
    let y = b.temp(DType::F32, n(24));
    let z = b.temp(DType::F32, n(24));
    let mut l = LoopBuilder::new(&[n(6), n(4)]);
    let mut source = view(x, vec![n(-2), n(11)]);
    source.offset = n(10);
    let value = l.load(source);
    let half = l.expr(Expr::Const(Scalar::F32(0.5)));
    let value = l.expr(Expr::Binary(BinaryFn::Mul, value, half));
    l.store(Per::Element, view(y, vec![n(4), n(1)]), value);
    l.store(Per::Row, view(z, vec![n(1), n(6)]), value);
    b.run_kernel("views", l.0);
    b.output("y", y, &[n(6), n(4)]);
    b.output("z", z, &[n(4), n(6)]);
    let x = ramp(&[4, 11], 1.0);
    let run = b.run(&[("x", x.clone())]);
    let x = floats(&x);
    let y: Vec<f32> = (0..24).map(|i| x[(i % 4) * 11 + 10 - 2 * (i / 4)] * 0.5).collect();
    let z: Vec<f32> = (0..24).map(|i| x[(i / 6) * 11 + 10 - 2 * (i % 6)] * 0.5).collect();
    assert_eq!(floats(&run.outputs[0].1), y);
    assert_eq!(floats(&run.outputs[1].1), z);
}

/// A causal mask made from indices, with bools, integers, casts and selects.
#[test]
fn indices_bools_and_casts() {
    let mut b = Builder::new("mask");
    let seq = d("seq");
    let dims = [d("batch"), seq.clone(), seq.clone()];
    let keep = b.input("keep", DType::Bool, &[d("batch"), seq.clone()]);
    let x = b.input("x", DType::F32, &dims);
    let len = eec_ir::Dim::product(&dims);
    let (y, flags, count) =
        (b.temp(DType::F32, len.clone()), b.temp(DType::Bool, len.clone()), b.temp(DType::I64, len));
    let mut l = LoopBuilder::new(&dims);
    let keep = l.load(view(keep, vec![seq.clone(), n(0), n(1)]));
    let x = l.load(view(x, dense(&dims)));
    let (i, j) = (l.expr(Expr::Index(1)), l.expr(Expr::Index(2)));
    let causal = l.expr(Expr::Binary(BinaryFn::LessOrEqual, j, i));
    let both = l.expr(Expr::Binary(BinaryFn::And, causal, keep));
    let low = l.expr(Expr::Const(Scalar::F32(-1.0e4)));
    let masked = l.expr(Expr::Select(both, x, low));
    let bonus = l.expr(Expr::Cast(DType::F32, keep));
    let masked = l.expr(Expr::Binary(BinaryFn::Add, masked, bonus));
    let size = l.expr(Expr::Size(seq.clone()));
    let product = l.expr(Expr::Binary(BinaryFn::Mul, i, size));
    let flat = l.expr(Expr::Binary(BinaryFn::Add, product, j));
    let whole = l.expr(Expr::Cast(DType::I64, x));
    let flat = l.expr(Expr::Binary(BinaryFn::Sub, flat, whole));
    let not = l.expr(Expr::Unary(UnaryFn::Not, both));
    l.store(Per::Element, view(y, dense(&dims)), masked);
    l.store(Per::Element, view(flags, dense(&dims)), not);
    l.store(Per::Element, view(count, dense(&dims)), flat);
    b.run_kernel("mask", l.0);
    b.output("y", y, &dims);
    b.output("flags", flags, &dims);
    b.output("count", count, &dims);
    for seq in [1usize, 3, 6, 13] {
        let keep: Vec<u8> = (0..2 * seq).map(|i| u8::from(i % 3 != 1)).collect();
        let x = ramp(&[2, seq, seq], 0.7);
        let run = b.run(&[("keep", Tensor::new(&[2, seq], keep.clone()).unwrap()), ("x", x.clone())]);
        let x = floats(&x);
        for (at, value) in x.iter().enumerate() {
            let (batch, i, j) = (at / seq / seq, at / seq % seq, at % seq);
            let k = keep[batch * seq + j] != 0;
            let both = j <= i && k;
            let y = (if both { *value } else { -1.0e4 }) + if k { 1.0 } else { 0.0 };
            assert_eq!(floats(&run.outputs[0].1)[at], y);
            assert_eq!(run.outputs[1].1.bytes()[at], u8::from(!both));
            let count = (i * seq + j) as i64 - *value as i64;
            assert_eq!(run.outputs[2].1.elements::<i64>().unwrap()[at], count);
        }
    }
}

#[test]
fn integer_arithmetic_wraps_and_division_reports_zero() {
    let mut b = Builder::new("integers");
    let x = b.input("x", DType::I32, &[d("n")]);
    let y = b.input("y", DType::I32, &[d("n")]);
    let out = b.temp(DType::I32, d("n"));
    let floats_out = b.temp(DType::F32, d("n"));
    let mut l = LoopBuilder::new(&[d("n")]);
    let x = l.load(view(x, vec![n(1)]));
    let y = l.load(view(y, vec![n(1)]));
    let q = l.expr(Expr::Binary(BinaryFn::Div, x, y));
    let twice = l.expr(Expr::Binary(BinaryFn::Mul, q, y));
    let sum = l.expr(Expr::Binary(BinaryFn::Add, twice, q));
    let f = l.expr(Expr::Cast(DType::F32, sum));
    l.store(Per::Element, view(out, vec![n(1)]), sum);
    l.store(Per::Element, view(floats_out, vec![n(1)]), f);
    b.run_kernel("layer/div", l.0);
    b.output("out", out, &[d("n")]);
    b.output("floats", floats_out, &[d("n")]);
    let xs = vec![7, -7, i32::MIN, i32::MAX, 9];
    let ys = vec![2, 2, -1, -3, 4];
    let run = b.run(&[("x", Tensor::vector(xs.clone())), ("y", Tensor::vector(ys.clone()))]);
    let expected: Vec<i32> = xs
        .iter()
        .zip(&ys)
        .map(|(x, y)| {
            let q = x.wrapping_div(*y);
            q.wrapping_mul(*y).wrapping_add(q)
        })
        .collect();
    assert_eq!(run.outputs[0].1.elements::<i32>().unwrap().into_owned(), expected);
    assert_eq!(floats(&run.outputs[1].1), expected.iter().map(|v| *v as f32).collect::<Vec<_>>());
    let error = b.try_run(&[("x", Tensor::vector(vec![1, 2])), ("y", Tensor::vector(vec![1, 0]))], 1).unwrap_err();
    assert_eq!((error.kind(), error.node_path()), (ErrorKind::Kernel, Some("layer/div")));
    assert!(error.to_string().contains("divided by zero"), "{error}");
}

/// Rows of a table by index.
pub(crate) fn embedding() -> Builder {
    let mut b = Builder::new("embedding");
    let (seq, width) = (d("seq"), n(9));
    let ids = b.input("ids", DType::I64, std::slice::from_ref(&seq));
    let table = b.constant(ramp(&[20, 9], 0.25));
    let y = b.temp(DType::F32, &seq * &width);
    let mut l = LoopBuilder::new(&[seq.clone(), width.clone()]);
    let ids = l.load(view(ids, vec![n(1), n(0)]));
    let table = l.input(view(table, vec![n(0), n(1)]));
    let row = l.expr(Expr::LoadAt { input: table, at: vec![Indexed { index: ids, extent: n(20), stride: n(9) }] });
    l.store(Per::Element, view(y, vec![width.clone(), n(1)]), row);
    b.run_kernel("embed/gather", l.0);
    b.output("y", y, &[seq, width]);
    b
}

#[test]
fn gather_rows_and_refuse_a_bad_index() {
    let b = embedding();
    let ids = vec![3i64, 0, -1, 19, -20];
    let run = b.run(&[("ids", Tensor::vector(ids.clone()))]);
    let table = floats(&ramp(&[20, 9], 0.25));
    let expected: Vec<f32> = ids.iter().flat_map(|i| table[(i.rem_euclid(20) as usize) * 9..][..9].to_vec()).collect();
    assert_eq!(floats(&run.outputs[0].1), expected);
    for bad in [20, -21, i64::MAX, i64::MIN] {
        let error = b.try_run(&[("ids", Tensor::vector(vec![0, bad]))], 2).unwrap_err();
        assert_eq!((error.kind(), error.node_path()), (ErrorKind::Kernel, Some("embed/gather")), "{bad}");
    }
}

/// A gather along the vector axis: `y[i] = sin-free table[ids[i]] + x[i]`.
#[test]
fn gather_of_single_elements() {
    let mut b = Builder::new("pick");
    let ids = b.input("ids", DType::I32, &[d("n")]);
    let x = b.input("x", DType::F32, &[d("n")]);
    let table = b.constant(ramp(&[13], 1.0));
    let y = b.temp(DType::F32, d("n"));
    let mut l = LoopBuilder::new(&[d("n")]);
    let ids = l.load(view(ids, vec![n(1)]));
    let x = l.load(view(x, vec![n(1)]));
    let table = l.input(view(table, vec![n(0)]));
    let picked = l.expr(Expr::LoadAt { input: table, at: vec![Indexed { index: ids, extent: n(13), stride: n(1) }] });
    let sum = l.expr(Expr::Binary(BinaryFn::Add, picked, x));
    l.store(Per::Element, view(y, vec![n(1)]), sum);
    b.run_kernel("pick", l.0);
    b.output("y", y, &[d("n")]);
    let ids: Vec<i32> = (0..11).map(|i| (i * 5) % 13).collect();
    let x = ramp(&[11], 0.125);
    let run = b.run(&[("ids", Tensor::vector(ids.clone())), ("x", x.clone())]);
    let (table, x) = (floats(&ramp(&[13], 1.0)), floats(&x));
    let expected: Vec<f32> = ids.iter().zip(x).map(|(i, x)| table[*i as usize] + x).collect();
    assert_eq!(floats(&run.outputs[0].1), expected);
}

/// softmax over the last axis of `[rows, width]`.
pub(crate) fn softmax(rows: eec_ir::Dim, width: eec_ir::Dim) -> Builder {
    let mut b = Builder::new("softmax");
    let dims = [rows.clone(), width.clone()];
    let x = b.input("x", DType::F32, &dims);
    let y = b.temp(DType::F32, &rows * &width);
    let mut l = LoopBuilder::with_inner(&[rows], std::slice::from_ref(&width));
    let x = l.load(view(x, dense(&dims)));
    let max = l.reduce(ReductionFn::Max, x);
    let shifted = l.expr(Expr::Binary(BinaryFn::Sub, x, max));
    let exp = l.expr(Expr::Unary(UnaryFn::Exp, shifted));
    let sum = l.reduce(ReductionFn::Sum, exp);
    let y_value = l.expr(Expr::Binary(BinaryFn::Div, exp, sum));
    l.store(Per::Element, view(y, dense(&dims)), y_value);
    b.run_kernel("softmax", l.0);
    b.output("y", y, &dims);
    b
}

pub(crate) fn softmax_of(x: &[f32], width: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let e: Vec<f64> = row.iter().map(|v| f64::from(*v - max).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(|v| (v / sum) as f32).collect::<Vec<_>>()
    };
    x.chunks(width).flat_map(row).collect()
}

pub(crate) fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance * e.abs().max(1e-3), "element {i}: expected {e}, found {f}");
    }
}

#[test]
fn softmax_rows() {
    let b = softmax(d("rows"), d("width"));
    for (rows, width) in [(1, 1), (3, 5), (4, 16), (2, 67), (5, 197)] {
        let x = ramp(&[rows, width], 0.3);
        let run = b.run(&[("x", x.clone())]);
        assert_close(&floats(&run.outputs[0].1), &softmax_of(&floats(&x), width), 1e-6);
    }
}

/// Layer norm in two passes, with the mean and the inverse deviation as row results.
#[test]
fn layer_norm_rows() {
    let mut b = Builder::new("norm");
    let (rows, width) = (d("rows"), n(37));
    let dims = [rows.clone(), width.clone()];
    let x = b.input("x", DType::F32, &dims);
    let scale = b.constant(ramp(&[37], 0.1));
    let (y, means) = (b.temp(DType::F32, &rows * &width), b.temp(DType::F32, rows.clone()));
    let mut l = LoopBuilder::with_inner(std::slice::from_ref(&rows), std::slice::from_ref(&width));
    let x = l.load(view(x, dense(&dims)));
    let scale = l.load(view(scale, vec![n(0), n(1)]));
    let count = l.expr(Expr::Const(Scalar::F32(37.0)));
    let sum = l.reduce(ReductionFn::Sum, x);
    let mean = l.expr(Expr::Binary(BinaryFn::Div, sum, count));
    let centred = l.expr(Expr::Binary(BinaryFn::Sub, x, mean));
    let square = l.expr(Expr::Binary(BinaryFn::Mul, centred, centred));
    let squares = l.reduce(ReductionFn::Sum, square);
    let variance = l.expr(Expr::Binary(BinaryFn::Div, squares, count));
    let epsilon = l.expr(Expr::Const(Scalar::F32(1e-5)));
    let variance = l.expr(Expr::Binary(BinaryFn::Add, variance, epsilon));
    let deviation = l.expr(Expr::Unary(UnaryFn::Sqrt, variance));
    let normal = l.expr(Expr::Binary(BinaryFn::Div, centred, deviation));
    let scaled = l.expr(Expr::Binary(BinaryFn::Mul, normal, scale));
    l.store(Per::Element, view(y, dense(&dims)), scaled);
    l.store(Per::Row, view(means, vec![n(1)]), mean);
    b.run_kernel("norm", l.0);
    b.output("y", y, &dims);
    b.output("means", means, &[rows]);
    let x = ramp(&[6, 37], 0.2);
    let run = b.run(&[("x", x.clone())]);
    let (x, scale) = (floats(&x), floats(&ramp(&[37], 0.1)));
    let mut expected = Vec::new();
    for row in x.chunks(37) {
        let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / 37.0;
        let variance = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / 37.0;
        expected.extend(
            row.iter()
                .zip(&scale)
                .map(|(v, s)| ((f64::from(*v) - mean) / (variance + 1e-5).sqrt() * f64::from(*s)) as f32),
        );
    }
    assert_close(&floats(&run.outputs[0].1), &expected, 1e-5);
    let means: Vec<f32> = x.chunks(37).map(|r| r.iter().sum::<f32>() / 37.0).collect();
    assert_close(&floats(&run.outputs[1].1), &means, 1e-5);
}

/// Mean over the middle axis: neighbours along the last axis share vectors.
#[test]
fn sums_over_a_middle_axis_and_two_axes() {
    let mut b = Builder::new("middle");
    let dims = [d("batch"), n(6), n(11)];
    let x = b.input("x", DType::F32, &dims);
    let y = b.temp(DType::F32, &d("batch") * &n(11));
    let z = b.temp(DType::F32, n(6));
    let mut l = LoopBuilder::with_inner(&[d("batch"), n(11)], &[n(6)]);
    let v = l.load(view(x, vec![n(66), n(1), n(11)]));
    let sum = l.reduce(ReductionFn::Sum, v);
    let max = l.reduce(ReductionFn::Max, v);
    let both = l.expr(Expr::Binary(BinaryFn::Add, sum, max));
    l.store(Per::Row, view(y, vec![n(11), n(1)]), both);
    b.run_kernel("middle", l.0);
    let mut l = LoopBuilder::with_inner(&[n(6)], &[d("batch"), n(11)]);
    let v = l.load(view(x, vec![n(11), n(66), n(1)]));
    let sum = l.reduce(ReductionFn::Sum, v);
    let min = l.reduce(ReductionFn::Min, v);
    let both = l.expr(Expr::Binary(BinaryFn::Add, sum, min));
    l.store(Per::Row, view(z, vec![n(1)]), both);
    b.run_kernel("two", l.0);
    b.output("y", y, &[d("batch"), n(11)]);
    b.output("z", z, &[n(6)]);
    let x = ramp(&[3, 6, 11], 1.0);
    let run = b.run(&[("x", x.clone())]);
    let x = floats(&x);
    let at = |b: usize, i: usize, j: usize| x[(b * 6 + i) * 11 + j];
    let fold = |v: Vec<f32>, max: bool| {
        v.iter().sum::<f32>()
            + v.iter().copied().fold(if max { f32::MIN } else { f32::MAX }, if max { f32::max } else { f32::min })
    };
    let y: Vec<f32> = (0..33).map(|o| fold((0..6).map(|i| at(o / 11, i, o % 11)).collect(), true)).collect();
    let z: Vec<f32> = (0..6).map(|i| fold((0..33).map(|o| at(o / 11, i, o % 11)).collect(), false)).collect();
    assert_eq!(floats(&run.outputs[0].1), y);
    assert_eq!(floats(&run.outputs[1].1), z);
}

#[test]
fn argmax_takes_the_first_and_spans_axes() {
    let mut b = Builder::new("argmax");
    let dims = [d("rows"), n(2), n(5)];
    let x = b.input("x", DType::F32, &dims);
    let y = b.temp(DType::I64, d("rows"));
    let mut l = LoopBuilder::with_inner(&[d("rows")], &[n(2), n(5)]);
    let v = l.load(view(x, dense(&dims)));
    let best = l.reduce(ReductionFn::ArgMax, v);
    l.store(Per::Row, view(y, vec![n(1)]), best);
    b.run_kernel("argmax", l.0);
    b.output("y", y, &[d("rows")]);
    let mut x = vec![-1.0f32; 40];
    (x[3], x[7], x[10], x[29], x[38]) = (2.0, 2.0, 0.5, 4.0, 9.0);
    let run = b.run(&[("x", Tensor::new(&[4, 2, 5], x).unwrap())]);
    assert_eq!(run.outputs[0].1.elements::<i64>().unwrap().into_owned(), [3, 0, 9, 8]);
}

#[test]
fn a_row_does_not_depend_on_its_batch_nor_on_threads() {
    let b = softmax(d("rows"), n(53));
    let x = ramp(&[300, 53], 0.17);
    let one = b.try_run(&[("x", x.clone())], 1).unwrap();
    let four = b.try_run(&[("x", x.clone())], 4).unwrap();
    assert_eq!(one.outputs[0].1, four.outputs[0].1);
    for row in [0usize, 1, 137, 299] {
        let alone = Tensor::new(&[1, 53], floats(&x)[row * 53..][..53].to_vec()).unwrap();
        let alone = b.run(&[("x", alone)]);
        assert_eq!(floats(&alone.outputs[0].1), floats(&one.outputs[0].1)[row * 53..][..53]);
    }
}

#[test]
fn empty_dims_run() {
    let b = softmax(d("rows"), d("width"));
    for (rows, width) in [(0, 5), (3, 0), (0, 0)] {
        let run = b.run(&[("x", Tensor::new::<f32>(&[rows, width], vec![]).unwrap())]);
        assert_eq!(run.outputs[0].1.dims(), [rows, width]);
    }
}
