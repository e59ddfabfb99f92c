//! Bit-exact comparison with the plain loop: equality with one fixed chain per element is batch
//! invariance, thread invariance and correctness at once.

use super::*;
use crate::kernels::epilogue::tests::{chain, clipped, forms};
use crate::kernels::epilogue::{Join, Place};

/// Index-dependent data whose products and sums do round.
fn data(len: usize, seed: u32) -> Vec<f32> {
    let value = |i: u32| (i.wrapping_mul(2654435761).wrapping_add(seed.wrapping_mul(40503)) >> 9) as f32;
    (0..len as u32).map(|i| value(i) / (1 << 22) as f32 - 1.0).collect()
}

fn get(m: Strided, row: usize, column: usize) -> f32 {
    // SAFETY: tests pass matrices that hold the element.
    unsafe { *m.at(row, column).ptr }
}

fn strided(v: &[f32], row: isize, column: isize) -> Strided {
    Strided { ptr: v.as_ptr(), row, column }
}

fn bias_at(bias: Bias, column: usize) -> Option<f32> {
    // SAFETY: tests pass a bias that covers C.
    unsafe {
        match bias {
            Bias::None => None,
            Bias::PerColumn(b) => Some(*b.add(column)),
        }
    }
}

fn naive(isa: &Isa, a: Strided, b: Strided, [m, k, n]: [usize; 3], bias: Bias) -> Vec<f32> {
    let element = |i: usize| {
        let (row, column) = (i / n, i % n);
        let sum = (0..k).fold(0.0, |sum, p| (isa.step)(get(a, row, p), get(b, p, column), sum));
        bias_at(bias, column).map_or(sum, |bias| sum + bias)
    };
    (0..m * n).map(element).collect()
}

fn assert_bits(got: &[f32], want: &[f32], what: &str) {
    let differs = (0..want.len()).find(|&i| got[i].to_bits() != want[i].to_bits());
    if let Some(i) = differs {
        panic!("{what}: element {i} is {}, not {}", got[i], want[i]);
    }
}

fn packed(isa: &Isa, b: Strided, k: usize, n: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; n.next_multiple_of(isa.nr()) * k];
    // SAFETY: tests pass matrices of k×n.
    unsafe { pack_b_for(isa, b, k, n, &mut out) };
    out
}

/// Runs both forms with padded rows of C, and checks that the padding is left alone.
fn check(isa: &Isa, pool: &Pool, a: Strided, b: Strided, [m, k, n]: [usize; 3], bias: Bias) {
    let what = format!("{} m={m} k={k} n={n} threads={} {bias:?}", isa.name, pool.threads());
    let want = naive(isa, a, b, [m, k, n], bias);
    let weights = packed(isa, b, k, n);
    let row = n + 3;
    for form in ["packed", "batch"] {
        let mut c = vec![7.0f32; m * row];
        let (c_row, out) = (row as isize, c.as_mut_ptr());
        // SAFETY: all operands are valid for their sizes.
        unsafe {
            if form == "packed" {
                let args =
                    MatMulArgs { a, b: weights.as_ptr(), c: out, c_row, m, k, n, scale: 1.0, bias, epilogue: None };
                matmul_for(isa, pool, &args);
            } else {
                let (batch, zero) = ([1; 3], [0; 3]);
                let (a_batch, b_batch, c_batch) = (zero, zero, zero);
                let args = BatchMatMulArgs {
                    batch,
                    a,
                    a_batch,
                    b,
                    b_batch,
                    c: out,
                    c_batch,
                    c_row,
                    m,
                    k,
                    n,
                    scale: 1.0,
                    bias,
                    epilogue: None,
                };
                batch_matmul_for(isa, pool, &args);
            }
        }
        let got: Vec<f32> = c.chunks(row).flat_map(|r| r[..n].to_vec()).collect();
        assert_bits(&got, &want, &format!("{form} {what}"));
        assert!(c.chunks(row).all(|r| r[n..].iter().all(|&x| x == 7.0)), "{form} {what}: wrote outside C");
    }
}

#[test]
fn every_shape_stride_and_thread_count_gives_the_same_bits() {
    let (one, two) = (Pool::new(1), Pool::new(2));
    for isa in Isa::available() {
        for m in [1, 2, 3, 5, 7, 8, 12, 13, 37] {
            for (k, n) in [(1, 1), (3, 15), (17, 16), (40, 33), (64, 64), (300, 65), (19, 130)] {
                let (a, b) = (data(m * k, 1), data(k * n, 2));
                let columns = data(n, 4);
                let (m_, k_, n_) = (m as isize, k as isize, n as isize);
                let sizes = [m, k, n];
                for pool in [&one, &two] {
                    check(isa, pool, strided(&a, k_, 1), strided(&b, n_, 1), sizes, Bias::None);
                    check(isa, pool, strided(&a, 1, m_), strided(&b, 1, k_), sizes, Bias::None);
                }
                let bias = Bias::PerColumn(columns.as_ptr());
                check(isa, &two, strided(&a, k_, 1), strided(&b, 1, k_), sizes, bias);
            }
        }
    }
}

/// Ranges that are clipped to in one step and others, of sums that are no numbers, infinite, or zeros of both signs.
#[test]
fn a_range_gives_the_same_bits_in_one_step_and_in_two() {
    let pool = Pool::new(1);
    let b = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1e-30, 1e-30, 0.0, 0.25, -0.25, 0.75, 2.0, -3.0];
    let (a, n) = ([1.0, 1e-30], b.len());
    let (residual, limit) = (vec![0.0; 2 * n], vec![f32::INFINITY; n]);
    let operand = |v: &[f32], row| Operand { matrix: strided(v, row, 1), batch: [0; 3] };
    let operands = [operand(&residual, n as isize), operand(&limit, 0)];
    let ranges = [[0.0, 6.0], [-0.0, 1.0], [-0.25, 0.75], [0.25, 0.25], [-0.25, 0.0], [0.0, -0.0], [0.75, 0.25]];
    let of = |limits: &[(Join, f32)]| limits.iter().map(|(j, x)| (*j, Place::Const(*x))).collect::<Vec<_>>();
    let one_sided = [of(&[(Join::Max, 0.0)]), of(&[(Join::Min, 0.0)]), of(&[(Join::Min, 0.5)])].map(|j| forms(&j));
    for isa in Isa::available() {
        let weights = packed(isa, strided(&b, n as isize, 1), 1, n);
        for both in ranges.map(clipped).into_iter().chain(one_sided.clone()) {
            let [links, passes] = both.map(|steps| {
                let mut c = vec![7.0f32; 2 * n];
                let args = MatMulArgs {
                    a: strided(&a, 1, 1),
                    b: weights.as_ptr(),
                    c: c.as_mut_ptr(),
                    c_row: n as isize,
                    m: 2,
                    k: 1,
                    n,
                    scale: 1.0,
                    bias: Bias::None,
                    epilogue: Some(Finish { steps: &steps, operands: &operands }),
                };
                // SAFETY: all operands are valid for their sizes.
                unsafe { matmul_for(isa, &pool, &args) };
                c
            });
            assert_bits(&links, &passes, isa.name);
        }
    }
}

#[test]
fn an_epilogue_gives_the_same_bits_in_registers_and_in_passes() {
    let two = Pool::new(2);
    for isa in Isa::available() {
        for [m, k, n] in [[1, 40, 33], [37, 300, 65], [150, 20, 129]] {
            let (a, b, residual, limit) = (data(m * k, 1), data(k * n, 2), data(m * n, 3), data(n, 4));
            let weights = packed(isa, strided(&b, n as isize, 1), k, n);
            let operand = |v: &[f32], row| Operand { matrix: strided(v, row, 1), batch: [0; 3] };
            let operands = [operand(&residual, n as isize), operand(&limit, 0)];
            let [links, passes] = chain().map(|steps| {
                let mut c = vec![7.0f32; m * n];
                let args = MatMulArgs {
                    a: strided(&a, k as isize, 1),
                    b: weights.as_ptr(),
                    c: c.as_mut_ptr(),
                    c_row: n as isize,
                    m,
                    k,
                    n,
                    scale: 1.0,
                    bias: Bias::None,
                    epilogue: Some(Finish { steps: &steps, operands: &operands }),
                };
                // SAFETY: all operands are valid for their sizes.
                unsafe { matmul_for(isa, &two, &args) };
                c
            });
            let sums = naive(isa, strided(&a, k as isize, 1), strided(&b, n as isize, 1), [m, k, n], Bias::None);
            let joined = |i: usize| (sums[i] + residual[i]).max(-0.25).min(limit[i % n]);
            assert_bits(&links, &(0..m * n).map(joined).collect::<Vec<f32>>(), isa.name);
            assert_bits(&passes, &links, isa.name);
        }
    }
}

#[test]
fn large_products_are_cut_without_a_trace() {
    let two = Pool::new(2);
    for isa in Isa::available() {
        for [m, k, n] in [[301, 270, 70], [150, 600, 129], [1, 700, 520], [6, 515, 1000]] {
            let (a, b) = (data(m * k, 5), data(k * n, 6));
            let (a, b) = (strided(&a, k as isize, 1), strided(&b, n as isize, 1));
            check(isa, &two, a, b, [m, k, n], Bias::None);
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let (pool, isa) = (Pool::new(2), Isa::get());
    let [m, k, n] = [37, 290, 200];
    let (a, b) = (data(m * k, 7), data(k * n, 8));
    let weights = packed(isa, strided(&b, n as isize, 1), k, n);
    let run = |first: usize, count: usize| {
        let mut c = vec![0.0f32; count * n];
        let a = strided(&a[first * k..], k as isize, 1);
        let (b, out, c_row) = (weights.as_ptr(), c.as_mut_ptr(), n as isize);
        let args = MatMulArgs { a, b, c: out, c_row, m: count, k, n, scale: 1.0, bias: Bias::None, epilogue: None };
        // SAFETY: all operands are valid for their sizes.
        unsafe { matmul(&pool, &args) };
        c
    };
    let all = run(0, m);
    for row in 0..m {
        assert_bits(&run(row, 1), &all[row * n..][..n], "a row alone");
    }
}

#[test]
fn empty_sizes_give_the_bias_or_zeros() {
    let pool = Pool::new(2);
    let (a, b, bias) = (data(64, 1), data(64, 2), data(64, 3));
    for isa in Isa::available() {
        for sizes in [[0, 4, 4], [4, 4, 0], [4, 0, 4], [0, 0, 0]] {
            let (a, b) = (strided(&a, 4, 1), strided(&b, 1, 4));
            for bias in [Bias::None, Bias::PerColumn(bias.as_ptr())] {
                check(isa, &pool, a, b, sizes, bias);
            }
        }
    }
}

/// Attention over [batch, seq, heads, dim] without a transpose in memory, with shared key heads.
#[test]
fn batches_take_strides_on_every_axis() {
    let (batch, heads, share, queries, keys, dim) = (2, 3, 2, 5, 37, 24);
    let q = data(batch * queries * heads * share * dim, 1);
    let key = data(batch * keys * heads * dim, 2);
    let q_row = heads * share * dim;
    for isa in Isa::available() {
        for threads in [1, 3] {
            let mut c = vec![0.0f32; batch * heads * share * queries * keys];
            let args = BatchMatMulArgs {
                batch: [batch, heads, share],
                a: strided(&q, q_row as isize, 1),
                a_batch: [(queries * q_row) as isize, (share * dim) as isize, dim as isize],
                b: strided(&key, 1, (heads * dim) as isize),
                b_batch: [(keys * heads * dim) as isize, dim as isize, 0],
                c: c.as_mut_ptr(),
                c_batch: [heads * share, share, 1].map(|x| (x * queries * keys) as isize),
                c_row: keys as isize,
                m: queries,
                k: dim,
                n: keys,
                scale: 1.0,
                bias: Bias::None,
                epilogue: None,
            };
            // SAFETY: all operands are valid for their sizes.
            unsafe { batch_matmul_for(isa, &Pool::new(threads), &args) };
            for (i, got) in c.chunks(queries * keys).enumerate() {
                let (b, h, s) = (i / share / heads, i / share % heads, i % share);
                let a = args.a.at(b * queries, (h * share + s) * dim);
                let k = Strided { ptr: key[(b * keys * heads + h) * dim..].as_ptr(), ..args.b };
                let want = naive(isa, a, k, [queries, dim, keys], Bias::None);
                assert_bits(got, &want, &format!("{} product {i}", isa.name));
            }
        }
    }
}

#[test]
fn packing_pads_with_zeros() {
    for isa in Isa::available() {
        let (k, n, nr) = (70, isa.nr() + 3, isa.nr());
        let src = data(k * n, 9);
        for b in [strided(&src, n as isize, 1), strided(&src, 1, k as isize)] {
            let out = packed(isa, b, k, n);
            for (i, &x) in out.iter().enumerate() {
                let (panel, row, column) = (i / (k * nr), i / nr % k, i % nr);
                let column = panel * nr + column;
                let want = if column < n { get(b, row, column) } else { 0.0 };
                assert_eq!(x.to_bits(), want.to_bits(), "{} row {row} column {column}", isa.name);
            }
        }
    }
}

/// Prints the speed of a few shapes; run it in release with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn speed() {
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        for [m, k, n] in [
            [128, 768, 3072],
            [128, 768, 768],
            [128, 3072, 768],
            [1024, 768, 3072],
            [1024, 3072, 768],
            [24, 128, 64],
            [16, 768, 3072],
            [1, 768, 3072],
        ] {
            let (a, b) = (data(m * k, 1), data(k * n, 2));
            let mut weights = crate::pages::Pages::new(4 * packed_len(k, n).unwrap()).unwrap();
            let mut c = crate::pages::Pages::new(4 * m * n).unwrap();
            // SAFETY: `b` holds the matrix.
            unsafe { pack_b(strided(&b, n as isize, 1), k, n, &mut weights.floats_mut()[..packed_len(k, n).unwrap()]) };
            let (b, out, c_row) = (weights.floats().as_ptr(), c.floats_mut().as_mut_ptr(), n as isize);
            let args = MatMulArgs {
                a: strided(&a, k as isize, 1),
                b,
                c: out,
                c_row,
                m,
                k,
                n,
                scale: 1.0,
                bias: Bias::None,
                epilogue: None,
            };
            // SAFETY: all operands are valid for their sizes.
            let best = crate::kernels::best_seconds(|| unsafe { matmul(&pool, &args) });
            let (flops, bytes) = (2.0 * (m * k * n) as f64, 4.0 * (k * n) as f64);
            println!(
                "{threads} threads, {m}x{k}x{n}: {:.1} us, {:.1} GFLOP/s, B at {:.1} GB/s",
                best * 1e6,
                flops / best / 1e9,
                bytes / best / 1e9
            );
        }
    }
}

/// Prints the speed of attention's products; run it in release with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn attention_speed() {
    let (heads, dim) = (12, 64);
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        for (queries, keys) in [(1, 512), (1, 2048), (128, 128), (512, 512)] {
            let (q, key) = (data(heads * queries * dim, 1), data(heads * keys * dim, 2));
            let mut scores = vec![0.0f32; heads * queries * keys];
            let mut mixed = vec![0.0f32; heads * queries * dim];
            let [row, line] = [(heads * dim) as isize, dim as isize];
            let plane = (queries * keys) as isize;
            let first = BatchMatMulArgs {
                batch: [1, 1, heads],
                a: strided(&q, row, 1),
                a_batch: [0, 0, line],
                b: strided(&key, 1, row),
                b_batch: [0, 0, line],
                c: scores.as_mut_ptr(),
                c_batch: [0, 0, plane],
                c_row: keys as isize,
                m: queries,
                k: dim,
                n: keys,
                scale: 1.0,
                bias: Bias::None,
                epilogue: None,
            };
            let second = BatchMatMulArgs {
                a: strided(&scores, keys as isize, 1),
                a_batch: [0, 0, plane],
                b: strided(&key, row, 1),
                c: mixed.as_mut_ptr(),
                c_batch: [0, 0, line],
                c_row: row,
                k: keys,
                n: dim,
                ..first
            };
            for (name, args) in [("scores", first), ("mix", second)] {
                // SAFETY: all operands are valid for their sizes.
                let best = crate::kernels::best_seconds(|| unsafe { batch_matmul(&pool, &args) });
                let flops = 2.0 * (heads * queries * keys * dim) as f64;
                let (us, rate) = (best * 1e6, flops / best / 1e9);
                println!("{threads} threads, {name} {queries}x{keys}: {us:.1} us, {rate:.1} GFLOP/s");
            }
        }
    }
}

#[test]
fn a_scale_multiplies_the_finished_sums_before_the_bias() {
    // Several slices of k, so that a scale applied to a part of a sum would show.
    let [m, k, n] = [5, 600, 37];
    let (a, b, bias) = (data(m * k, 11), data(k * n, 12), data(n, 13));
    for isa in Isa::available() {
        let weights = packed(isa, strided(&b, n as isize, 1), k, n);
        let run = |scale: f32, bias: Bias| {
            let mut c = vec![f32::NAN; m * n];
            let (a, c_row) = (strided(&a, k as isize, 1), n as isize);
            let args =
                MatMulArgs { a, b: weights.as_ptr(), c: c.as_mut_ptr(), c_row, m, k, n, scale, bias, epilogue: None };
            // SAFETY: all operands are valid for their sizes.
            unsafe { matmul_for(isa, &Pool::new(1), &args) };
            c
        };
        let plain = run(1.0, Bias::None);
        let want: Vec<f32> = plain.iter().enumerate().map(|(i, x)| x * 0.3 + bias[i % n]).collect();
        assert_bits(&run(0.3, Bias::PerColumn(bias.as_ptr())), &want, isa.name);
    }
}
