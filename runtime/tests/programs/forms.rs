//! Products, convolutions, poolings and running sums.

use eec_ir::program::{Attention, BinaryFn, Conv, Expr, Form, MatMul, Per, Pool, PoolKind, Scalar, Scan, View};
use eec_ir::{BufferId, DType, Dim, Precision, Tensor};
use eec_runtime::{Control, ErrorKind};

use crate::build::{Builder, LoopBuilder, d, dense, floats, n, ramp, view};
use crate::loops::assert_close;

#[test]
fn product_with_packed_weights_and_bias() {
    let mut b = Builder::new("linear");
    let (rows, k, m) = (d("rows"), n(33), n(21));
    let x = b.input("x", DType::F32, &[rows.clone(), k.clone()]);
    let w = b.constant(ramp(&[33, 21], 0.05));
    let bias = b.constant(ramp(&[21], 1.0));
    let y = b.temp(DType::F32, &rows * &m);
    // The weight once as it is, once as if stored transposed.
    let t = b.constant(transposed(&ramp(&[33, 21], 0.05)));
    let z = b.temp(DType::F32, &rows * &m);
    for (b_view, c) in [(view(w, vec![n(21), n(1)]), y), (view(t, vec![n(1), n(33)]), z)] {
        let form = MatMul {
            batch: vec![],
            m: rows.clone(),
            n: m.clone(),
            k: k.clone(),
            a: view(x, vec![k.clone(), n(1)]),
            b: b_view,
            c: view(c, vec![m.clone(), n(1)]),
            weights: Precision::F32,
            scale: 1.0,
            bias: Some(view(bias, vec![n(1)])),
            epilogue: None,
        };
        b.run_kernel("fc", Form::MatMul(form));
    }
    b.output("y", y, &[rows.clone(), m.clone()]);
    b.output("z", z, &[rows, m]);
    let x = ramp(&[5, 33], 0.1);
    let run = b.run(&[("x", x.clone())]);
    let (x, w, bias) = (floats(&x), floats(&ramp(&[33, 21], 0.05)), floats(&ramp(&[21], 1.0)));
    let y: Vec<f32> = (0..105)
        .map(|i| (0..33).map(|k| x[i / 21 * 33 + k] * w[k * 21 + i % 21]).sum::<f32>() + bias[i % 21])
        .collect();
    assert_close(&floats(&run.outputs[0].1), &y, 1e-4);
    assert_eq!(run.outputs[0].1, run.outputs[1].1);
}

fn transposed(t: &Tensor) -> Tensor {
    let (r, c) = (t.dims()[0], t.dims()[1]);
    let v = floats(t);
    Tensor::new(&[c, r], (0..r * c).map(|i| v[i % r * c + i / r]).collect()).unwrap()
}

/// Attention's scores: `[b, h, s, e] · [b, h, s, e]ᵀ`, heads inside the rows of `[b, s, h·e]`, over
/// four batch axes.
#[test]
fn batched_product_with_strided_heads() {
    let mut b = Builder::new("scores");
    let (batch, heads, seq, width) = (d("batch"), n(3), d("seq"), n(8));
    let row = &heads * &width;
    let dims = [batch.clone(), seq.clone(), row.clone()];
    let q = b.input("q", DType::F32, &dims);
    let k = b.input("k", DType::F32, &dims);
    let out = [n(1), batch.clone(), n(1), heads.clone(), seq.clone(), seq.clone()];
    let y = b.temp(DType::F32, Dim::product(&out));
    let outer = &seq * &row;
    let a = view(q, vec![n(0), outer.clone(), n(0), width.clone(), row.clone(), n(1)]);
    let kt = view(k, vec![n(0), outer, n(0), width.clone(), n(1), row.clone()]);
    let form = MatMul {
        batch: out[..4].to_vec(),
        m: seq.clone(),
        n: seq.clone(),
        k: width,
        a,
        b: kt,
        c: view(y, dense(&out)),
        weights: Precision::F32,
        scale: 0.25,
        bias: None,
        epilogue: None,
    };
    b.run_kernel("scores", Form::MatMul(form));
    b.output("y", y, &[batch, heads, seq.clone(), seq]);
    let (q, k) = (ramp(&[2, 5, 24], 0.1), ramp(&[2, 5, 24], 0.07));
    let run = b.run(&[("q", q.clone()), ("k", k.clone())]);
    let (q, k) = (floats(&q), floats(&k));
    let at = |t: &[f32], b: usize, h: usize, s: usize, e: usize| t[(b * 5 + s) * 24 + h * 8 + e];
    let score = |i: usize| {
        let product = |e| at(&q, i / 75, i / 25 % 3, i / 5 % 5, e) * at(&k, i / 75, i / 25 % 3, i % 5, e);
        (0..8).map(product).sum::<f32>() * 0.25
    };
    assert_close(&floats(&run.outputs[0].1), &(0..150).map(score).collect::<Vec<_>>(), 1e-4);
}

/// A convolution of `f32[batch, 4, 7, 9]` with two groups; its result has the channels last.
pub(crate) fn convolution() -> Builder {
    let mut b = Builder::new("conv");
    let x = b.input("x", DType::F32, &[d("batch"), n(4), n(7), n(9)]);
    let w = b.constant(ramp(&[6, 2, 3, 2], 0.1));
    let bias = b.constant(ramp(&[6], 1.0));
    let y = b.temp(DType::F32, &d("batch") * &n(6 * 4 * 9));
    let form = Conv {
        x_dims: [d("batch"), n(4), n(7), n(9)],
        w_dims: [n(6), n(2), n(3), n(2)],
        y_size: [n(4), n(9)],
        group: 2,
        strides: [2, 1],
        dilations: [1, 2],
        pads: [1, 1],
        x: view(x, dense(&[d("batch"), n(4), n(7), n(9)])),
        w,
        bias: Some(bias),
        y,
        epilogue: None,
    };
    b.run_kernel("conv", Form::Conv(form));
    b.output("y", y, &[d("batch"), n(4), n(9), n(6)]);
    b
}

#[test]
fn convolution_with_groups_strides_and_pads() {
    let b = convolution();
    let x = ramp(&[3, 4, 7, 9], 0.1);
    let run = b.run(&[("x", x.clone())]);
    let (x, w, bias) = (floats(&x), floats(&ramp(&[6, 2, 3, 2], 0.1)), floats(&ramp(&[6], 1.0)));
    let mut expected = Vec::new();
    for (image, r, c, o) in (0..3 * 4 * 9 * 6).map(|i| (i / 216, i / 54 % 4, i / 6 % 9, i % 6)) {
        let mut sum = 0.0;
        for (ch, i, j) in (0..12).map(|t| (t / 6, t / 2 % 3, t % 2)) {
            let (row, column) = (2 * r as i64 + i as i64 - 1, c as i64 + 2 * j as i64 - 1);
            if (0..7).contains(&row) && (0..9).contains(&column) {
                let at = ((image * 4 + o / 3 * 2 + ch) * 7 + row as usize) * 9 + column as usize;
                sum += x[at] * w[((o * 2 + ch) * 3 + i) * 2 + j];
            }
        }
        expected.push(sum + bias[o]);
    }
    assert_close(&floats(&run.outputs[0].1), &expected, 1e-4);
}

/// A pooling of `f32[batch, 5, 5, 3]`, channels last.
pub(crate) fn pooling(kind: PoolKind) -> Builder {
    let mut b = Builder::new("pool");
    let x = b.input("x", DType::F32, &[d("batch"), n(5), n(5), n(3)]);
    let y = b.temp(DType::F32, &d("batch") * &n(27));
    let form = Pool {
        kind,
        x_dims: [d("batch"), n(3), n(5), n(5)],
        y_size: [n(3), n(3)],
        kernel: [3, 3],
        strides: [2, 2],
        dilations: [1, 1],
        pads: [1; 4],
        x: view(x, vec![n(75), n(1), n(15), n(3)]),
        y,
    };
    b.run_kernel("pool", Form::Pool(form));
    b.output("y", y, &[d("batch"), n(3), n(3), n(3)]);
    b
}

#[test]
fn poolings() {
    let x = ramp(&[2, 5, 5, 3], 1.0);
    for kind in [PoolKind::Max, PoolKind::Average, PoolKind::AverageWithPads] {
        let found = floats(&pooling(kind).run(&[("x", x.clone())]).outputs[0].1);
        let v = floats(&x);
        let window = |i: usize| {
            let inside = (0..9).filter_map(|t| {
                let (r, c) = ((i / 9 % 3 * 2 + t / 3).checked_sub(1)?, (i / 3 % 3 * 2 + t % 3).checked_sub(1)?);
                (r < 5 && c < 5).then(|| v[i / 27 * 75 + (r * 5 + c) * 3 + i % 3])
            });
            let inside: Vec<f32> = inside.collect();
            match kind {
                PoolKind::Max => inside.iter().copied().fold(f32::MIN, f32::max),
                PoolKind::Average => inside.iter().sum::<f32>() / inside.len() as f32,
                PoolKind::AverageWithPads => inside.iter().sum::<f32>() / 9.0,
            }
        };
        assert_close(&found, &(0..54).map(window).collect::<Vec<_>>(), 1e-5);
    }
}

/// Running sums along the middle axis of `i64[2, len, 3]`.
pub(crate) fn running_sum(exclusive: bool, reverse: bool) -> Builder {
    let mut b = Builder::new("scan");
    let x = b.input("x", DType::I64, &[n(2), d("len"), n(3)]);
    let y = b.temp(DType::I64, &d("len") * &n(6));
    let form = Scan { dtype: DType::I64, outer: n(2), len: d("len"), inner: n(3), exclusive, reverse, x, y };
    b.run_kernel("scan", Form::Scan(form));
    b.output("y", y, &[n(2), d("len"), n(3)]);
    b
}

#[test]
fn running_sums() {
    for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
        let b = running_sum(exclusive, reverse);
        let v: Vec<i64> = (0..24).map(|i| (i * i) % 17 - 5).collect();
        let run = b.run(&[("x", Tensor::new(&[2, 4, 3], v.clone()).unwrap())]);
        let expected: Vec<i64> = (0..24usize)
            .map(|i| {
                let step = i / 3 % 4;
                let range: Vec<usize> = if reverse { (step..4).collect() } else { (0..=step).collect() };
                range.into_iter().filter(|s| !exclusive || *s != step).map(|s| v[i / 12 * 12 + s * 3 + i % 3]).sum()
            })
            .collect();
        assert_eq!(run.outputs[0].1.elements::<i64>().unwrap().into_owned(), expected, "{exclusive} {reverse}");
    }
}

/// A product of two matrices of one element under `axes` batch axes of one, and a map with `views`
/// inputs.
fn wide(axes: usize, views: usize) -> Builder {
    let mut b = Builder::new("wide");
    let x = b.input("x", DType::F32, &[n(1)]);
    let (y, z) = (b.temp(DType::F32, n(1)), b.temp(DType::F32, n(1)));
    let strides = vec![n(1); axes + 2];
    let form = MatMul {
        batch: vec![n(1); axes],
        m: n(1),
        n: n(1),
        k: n(1),
        a: view(x, strides.clone()),
        b: view(x, strides.clone()),
        c: view(y, strides),
        weights: Precision::F32,
        scale: 1.0,
        bias: None,
        epilogue: None,
    };
    b.run_kernel("product", Form::MatMul(form));
    let mut l = LoopBuilder::new(&[n(1)]);
    let loads: Vec<_> = (0..views).map(|_| l.load(view(x, vec![n(1)]))).collect();
    l.store(Per::Element, view(z, vec![n(1)]), loads[0]);
    b.run_kernel("map", l.0);
    b.output("y", y, &[n(1)]);
    b.output("z", z, &[n(1)]);
    b
}

#[test]
fn axes_and_views_are_of_bounded_number() {
    let x = || [("x", Tensor::vector(vec![3f32]))];
    assert_eq!(floats(&wide(62, 3).run(&x()).outputs[0].1), [9.0]);
    for (axes, views, part) in [(63, 1, "65 axes, more than 64"), (0, 20_000, "20001 inputs and stores")] {
        let error = wide(axes, views).try_run(&x(), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Program);
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// Attention over strided heads of `[batch, seq, heads · width]`, with a mask shared by the heads one of
/// whose rows hides everything, on one thread and on several.
#[test]
fn attention_with_strided_heads_and_a_mask() {
    let mut b = Builder::new("attention");
    let (batch, heads, queries, keys, width) = (d("batch"), n(3), d("queries"), d("keys"), n(10));
    let row = &heads * &width;
    let q = b.input("q", DType::F32, &[batch.clone(), queries.clone(), row.clone()]);
    let k = b.input("k", DType::F32, &[batch.clone(), keys.clone(), row.clone()]);
    let v = b.input("v", DType::F32, &[batch.clone(), keys.clone(), row.clone()]);
    let mask = b.input("mask", DType::F32, &[batch.clone(), queries.clone(), keys.clone()]);
    let c = b.temp(DType::F32, Dim::product([&batch, &queries, &row]));
    let by_query = |buffer| view(buffer, vec![&queries * &row, width.clone(), row.clone(), n(1)]);
    let form = Attention {
        batch: vec![batch.clone(), heads.clone()],
        m: queries.clone(),
        n: keys.clone(),
        d: width.clone(),
        width: width.clone(),
        q: by_query(q),
        k: view(k, vec![&keys * &row, width.clone(), n(1), row.clone()]),
        v: view(v, vec![&keys * &row, width.clone(), row.clone(), n(1)]),
        mask: Some(view(mask, vec![&queries * &keys, n(0), keys.clone(), n(1)])),
        c: by_query(c),
        scale: 0.5,
        instead_of_nan: Some(0.0),
    };
    b.run_kernel("attention", Form::Attention(form));
    b.output("c", c, &[batch, queries, row]);
    for (queries, keys) in [(1, 1), (1, 65), (37, 50), (70, 130), (5, 2500)] {
        let (q, k) = (ramp(&[2, queries, 30], 0.02), ramp(&[2, keys, 30], 0.02));
        let v = ramp(&[2, keys, 30], 0.02);
        let hidden = |i: usize| i / keys == 0 || (i % keys > i / keys % queries && keys > queries);
        let mask = (0..2 * queries * keys).map(|i| if hidden(i) { f32::NEG_INFINITY } else { 0.01 * i as f32 % 1.0 });
        let mask = Tensor::new(&[2, queries, keys], mask.collect()).unwrap();
        let inputs = [("q", q.clone()), ("k", k.clone()), ("v", v.clone()), ("mask", mask.clone())];
        let one = b.try_run(&inputs, 1).unwrap();
        let want = attended(&floats(&q), &floats(&k), &floats(&v), &floats(&mask), [queries, keys]);
        assert_close(&floats(&one.outputs[0].1), &want, 1e-4);
        assert_eq!(one.outputs[0].1, b.try_run(&inputs, 3).unwrap().outputs[0].1, "threads change nothing");
    }
}

/// Attention in f64, 2 × 3 heads of width 10.
fn attended(q: &[f32], k: &[f32], v: &[f32], mask: &[f32], [queries, keys]: [usize; 2]) -> Vec<f32> {
    let mut out = vec![0.0; q.len()];
    for (at, out) in out.iter_mut().enumerate() {
        let (batch, query, column) = (at / 30 / queries, at / 30 % queries, at % 30);
        let head = column / 10 * 10;
        let row =
            |rows: &[f32], count: usize, index: usize, c: usize| f64::from(rows[(batch * count + index) * 30 + c]);
        let score = |key: usize| {
            let dot: f64 = (head..head + 10).map(|c| row(q, queries, query, c) * row(k, keys, key, c)).sum();
            0.5 * dot + f64::from(mask[(batch * queries + query) * keys + key])
        };
        let scores: Vec<f64> = (0..keys).map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        let share = |s: &f64| if sum.is_nan() { 0.0 } else { (s - max).exp() / sum };
        *out = scores.iter().enumerate().map(|(key, s)| share(s) * row(v, keys, key, column)).sum::<f64>() as f32;
    }
    out
}

/// One head of 2 queries, 3 keys and width `width`, without a mask.
pub(crate) fn small_attention(b: &mut Builder, width: i64) -> Attention {
    let q = b.input("q", DType::F32, &[n(2), n(4)]);
    let k = b.input("k", DType::F32, &[n(3), n(4)]);
    let c = b.temp(DType::F32, n(2 * width));
    b.output("c", c, &[n(2), n(width)]);
    Attention {
        batch: vec![],
        m: n(2),
        n: n(3),
        d: n(4),
        width: n(width),
        q: view(q, vec![n(4), n(1)]),
        k: view(k, vec![n(1), n(4)]),
        v: view(k, vec![n(4), n(1)]),
        mask: None,
        c: view(c, vec![n(width), n(1)]),
        scale: 1.0,
        instead_of_nan: None,
    }
}

#[test]
fn attention_keeps_nan_where_nothing_replaces_it() {
    let mut b = Builder::new("nan");
    let form = small_attention(&mut b, 4);
    b.run_kernel("attention", Form::Attention(form));
    let q = Tensor::new(&[2, 4], vec![f32::NAN, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]).unwrap();
    let k = ramp(&[3, 4], 0.1);
    let found = floats(&b.run(&[("q", q), ("k", k)]).outputs[0].1);
    assert!(found[..4].iter().all(|x| x.is_nan()) && found[4..].iter().all(|x| x.is_finite()), "{found:?}");
}

#[test]
fn attention_that_reads_outside_is_refused() {
    let far = |form: &mut Attention, view: fn(&mut Attention) -> &mut View| view(form).offset = n(1 << 40);
    let views: [fn(&mut Attention) -> &mut View; 4] = [|f| &mut f.q, |f| &mut f.k, |f| &mut f.v, |f| &mut f.c];
    for (i, view) in views.into_iter().enumerate() {
        for width in [4, 0] {
            let mut b = Builder::new("hostile");
            let mut form = small_attention(&mut b, width);
            far(&mut form, view);
            b.run_kernel("attention", Form::Attention(form));
            let run = b.try_run(&[("q", ramp(&[2, 4], 1.0)), ("k", ramp(&[3, 4], 1.0))], 1);
            // Of values without width, neither these nor the result have an element to touch.
            assert_eq!(run.is_err(), width > 0 || i < 2, "view {i}, width {width}");
        }
    }
}

#[test]
fn attention_over_no_keys_is_zero() {
    let mut b = Builder::new("nothing");
    let keys = d("keys");
    let q = b.input("q", DType::F32, &[n(2), n(4)]);
    let k = b.input("k", DType::F32, &[keys.clone(), n(4)]);
    let c = b.temp(DType::F32, n(8));
    let form = Attention {
        batch: vec![],
        m: n(2),
        n: keys.clone(),
        d: n(4),
        width: n(4),
        q: view(q, vec![n(4), n(1)]),
        k: view(k, vec![n(1), n(4)]),
        v: view(k, vec![n(4), n(1)]),
        mask: None,
        c: view(c, vec![n(4), n(1)]),
        scale: 1.0,
        instead_of_nan: None,
    };
    b.run_kernel("attention", Form::Attention(form));
    b.output("c", c, &[n(2), n(4)]);
    let run = b.run(&[("q", ramp(&[2, 4], 1.0)), ("k", Tensor::new::<f32>(&[0, 4], vec![]).unwrap())]);
    assert_eq!(floats(&run.outputs[0].1), vec![0.0; 8]);
}

/// Products one after the other, of which the third reads the first one's result.
pub(crate) fn three_products() -> Builder {
    let mut b = Builder::new("three");
    let rows = d("rows");
    let x = b.input("x", DType::F32, &[rows.clone(), n(40)]);
    let product = |b: &mut Builder, from, columns: i64, scale: f32| {
        let w = b.constant(ramp(&[40, columns as usize], scale));
        let y = b.temp(DType::F32, &rows * &n(columns));
        let form = MatMul {
            batch: vec![],
            m: rows.clone(),
            n: n(columns),
            k: n(40),
            a: view(from, vec![n(40), n(1)]),
            b: view(w, vec![n(columns), n(1)]),
            c: view(y, vec![n(columns), n(1)]),
            weights: Precision::F32,
            scale: 1.0,
            bias: None,
            epilogue: None,
        };
        b.run_kernel("product", Form::MatMul(form));
        y
    };
    let first = product(&mut b, x, 40, 0.01);
    let second = product(&mut b, x, 130, 0.02);
    let third = product(&mut b, first, 70, 0.03);
    for (name, y, columns) in [("a", first, 40), ("b", second, 130), ("c", third, 70)] {
        b.output(name, y, &[rows.clone(), n(columns)]);
    }
    b
}

#[test]
fn products_that_follow_each_other() {
    let b = three_products();
    let times = |x: &[f32], columns: usize, scale: f32| -> Vec<f32> {
        let w = floats(&ramp(&[40, columns], scale));
        let dot = |i: usize| (0..40).map(|k| x[i / columns * 40 + k] * w[k * columns + i % columns]).sum();
        (0..x.len() / 40 * columns).map(dot).collect()
    };
    for rows in [1, 7, 150] {
        let x = ramp(&[rows, 40], 0.1);
        let run = b.try_run(&[("x", x.clone())], 3).unwrap();
        let first = times(&floats(&x), 40, 0.01);
        let expected = [first.clone(), times(&floats(&x), 130, 0.02), times(&first, 70, 0.03)];
        for ((_, found), expected) in run.outputs.iter().zip(expected) {
            let scale = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let found = floats(found);
            assert!(found.iter().zip(&expected).all(|(f, e)| (f - e).abs() <= 1e-5 * scale), "{rows} rows");
        }
        assert_eq!(run.outputs, b.try_run(&[("x", x)], 1).unwrap().outputs);
        assert_eq!(run.counters.per_kernel, [1, 1, 1]);
    }
}

/// Products of different operands, each read for the last time: results must not take an operand's place
/// while another product still reads it.
#[test]
fn products_of_operands_that_end() {
    const WIDTH: i64 = 320;
    let mut b = Builder::new("ends");
    let (rows, width) = (d("rows"), n(WIDTH));
    let dims = [rows.clone(), width.clone()];
    let x = b.input("x", DType::F32, &dims);
    let w = b.constant(ramp(&[WIDTH as usize, WIDTH as usize], 0.001));
    let copies: Vec<BufferId> = (1..4)
        .map(|factor| {
            let copy = b.temp(DType::F32, Dim::product(&dims));
            let mut l = LoopBuilder::new(&dims);
            let value = l.load(view(x, dense(&dims)));
            let factor = l.expr(Expr::Const(Scalar::F32(factor as f32)));
            let scaled = l.expr(Expr::Binary(BinaryFn::Mul, value, factor));
            l.store(Per::Element, view(copy, dense(&dims)), scaled);
            b.run_kernel("copy", l.0);
            copy
        })
        .collect();
    let results: Vec<BufferId> = copies
        .iter()
        .map(|from| {
            let y = b.temp(DType::F32, Dim::product(&dims));
            let form = MatMul {
                batch: vec![],
                m: rows.clone(),
                n: width.clone(),
                k: width.clone(),
                a: view(*from, dense(&dims)),
                b: view(w, vec![width.clone(), n(1)]),
                c: view(y, dense(&dims)),
                weights: Precision::F32,
                scale: 1.0,
                bias: None,
                epilogue: None,
            };
            b.run_kernel("product", Form::MatMul(form));
            y
        })
        .collect();
    for (name, y) in ["one", "two", "three"].into_iter().zip(results) {
        b.output(name, y, &dims);
    }
    let x = ramp(&[60, WIDTH as usize], 0.1);
    let alone = b.try_run(&[("x", x.clone())], 1).unwrap().outputs;
    let mut session = b.session(2).unwrap();
    for _ in 0..50 {
        assert_eq!(session.run(&[("x", x.clone())], Control::Auto).unwrap().outputs, alone);
    }
    let first = floats(&alone[0].1);
    for (factor, (name, y)) in (1..).zip(&alone) {
        let times = first.iter().map(|v| v * factor as f32).collect::<Vec<f32>>();
        let largest = times.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let near = floats(y).iter().zip(&times).all(|(f, e)| (f - e).abs() <= 1e-5 * largest);
        assert!(near, "{name}");
    }
}
