//! Narrow products against plain loops over their rounded operands.

use eec_ir::Precision;
use eec_ir::precision::to_f16;

use super::*;
use crate::kernels::Bias;
use crate::kernels::epilogue;
use crate::kernels::simd::Isa;

/// Values that differ from place to place.
fn values(len: usize, seed: u32) -> Vec<f32> {
    let value = |i: usize| {
        let x = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503));
        (x >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(value).collect()
}

struct Case {
    m: usize,
    k: usize,
    n: usize,
    precision: Precision,
}

const SHAPES: [(usize, usize, usize); 8] =
    [(1, 1, 1), (1, 576, 192), (3, 33, 31), (16, 64, 65), (17, 100, 96), (33, 257, 130), (70, 31, 40), (300, 40, 33)];

fn cases(precision: Precision) -> impl Iterator<Item = Case> {
    SHAPES.into_iter().map(move |(m, k, n)| Case { m, k, n, precision })
}

impl Case {
    fn a(&self) -> Vec<f32> {
        values(self.m * self.k, 1)
    }

    fn b(&self) -> Vec<f32> {
        values(self.k * self.n, 2)
    }

    fn packed(&self, matrix: &Matrix) -> Vec<f32> {
        let mut packed = vec![0.0; packed_len(self.precision, self.k, self.n).unwrap()];
        // SAFETY: the matrix is one of k×n elements.
        unsafe { pack(matrix, self.precision, self.k, self.n, &mut packed) };
        packed
    }

    /// Aligned as packed weights are, which tiles want for speed alone.
    fn product(&self, packed: &[f32], run: impl Fn(&MatMulArgs)) -> Vec<f32> {
        let (a, bias, mut c) = (self.a(), values(self.n, 3), vec![0.0; self.m * self.n]);
        run(&MatMulArgs {
            a: Strided { ptr: a.as_ptr(), row: self.k as isize, column: 1 },
            b: packed.as_ptr(),
            c: c.as_mut_ptr(),
            c_row: self.n as isize,
            m: self.m,
            k: self.k,
            n: self.n,
            scale: 0.5,
            bias: Bias::PerColumn(bias.as_ptr()),
            epilogue: None,
        });
        c
    }

    /// The sums in f64, with the operands rounded.
    fn expected(&self) -> Vec<f64> {
        let (mut a, mut b, bias) = (self.a(), self.b(), values(self.n, 3));
        self.precision.round(&mut b, self.n, false);
        if self.precision == Precision::Bf16 {
            self.precision.round(&mut a, self.k, false);
        }
        let sum = |i: usize, j: usize| -> f64 {
            (0..self.k).map(|p| f64::from(a[i * self.k + p]) * f64::from(b[p * self.n + j])).sum()
        };
        let places = (0..self.m).flat_map(|i| (0..self.n).map(move |j| (i, j)));
        places.map(|(i, j)| 0.5 * sum(i, j) + f64::from(bias[j])).collect()
    }

    fn check(&self, found: &[f32], what: &str) {
        for (i, (x, y)) in found.iter().zip(self.expected()).enumerate() {
            let near = (f64::from(*x) - y).abs() <= 1e-6 * (4.0 + self.k as f64 / 8.0);
            assert!(near, "{what}, {}x{}x{}: {x} instead of {y} at {i}", self.m, self.k, self.n);
        }
    }
}

fn by_rows(b: &[f32], n: usize) -> Matrix<'_> {
    Matrix::F32(Strided { ptr: b.as_ptr(), row: n as isize, column: 1 })
}

#[test]
fn every_set_multiplies_by_widened_weights() {
    let pool = Pool::new(2);
    for precision in [Precision::Bf16, Precision::Int8] {
        for case in cases(precision) {
            let b = case.b();
            let packed = case.packed(&by_rows(&b, case.n));
            for isa in Isa::available() {
                // SAFETY: the arguments are those of the case.
                let found = case.product(&packed, |args| unsafe {
                    match precision {
                        Precision::Bf16 => bf16_widened(isa, &pool, args),
                        Precision::Int8 | Precision::F16 | Precision::F32 => widened(isa, &pool, args, precision),
                    }
                });
                case.check(&found, &format!("{precision} on {}", isa.name));
            }
        }
    }
}

#[test]
fn the_best_way_multiplies_too_on_any_number_of_threads() {
    for precision in Precision::ALL {
        for case in cases(precision) {
            let b = case.b();
            let packed = case.packed(&by_rows(&b, case.n));
            let [one, two] = [1, 2].map(|threads| {
                let pool = Pool::new(threads);
                // SAFETY: the arguments are those of the case.
                case.product(&packed, |args| unsafe { matmul(&pool, args, precision) })
            });
            case.check(&one, precision.name());
            assert_eq!(one, two, "{precision}");
        }
    }
}

#[test]
fn an_epilogue_is_a_map_over_the_product() {
    let pool = Pool::new(2);
    // One with more than MAX_ROUNDED elements in its rows.
    let large = (MAX_ROUNDED / 4096 + 40, 4096, 3);
    for (precision, (m, k, n)) in
        Precision::ALL.into_iter().flat_map(|p| SHAPES.into_iter().chain([large]).map(move |s| (p, s)))
    {
        let case = Case { m, k, n, precision };
        let (b, residual, limits) = (case.b(), values(m * n, 4), values(n, 5));
        let packed = case.packed(&by_rows(&b, n));
        let at = |x: &[f32], row: usize| Operand {
            matrix: Strided { ptr: x.as_ptr(), row: row as isize, column: 1 },
            batch: [0; 3],
        };
        let operands = [at(&residual, n), at(&limits, 0)];
        let run = |epilogue: Option<Finish>| {
            // SAFETY: the arguments are those of the case, the operands as large as C and as its rows.
            case.product(&packed, |args| unsafe { matmul(&pool, &MatMulArgs { epilogue, ..*args }, precision) })
        };
        let plain = run(None);
        let expected = plain.iter().enumerate().map(|(i, x)| (x + residual[i]).max(-0.25).min(limits[i % n]));
        let expected: Vec<u32> = expected.map(f32::to_bits).collect();
        for steps in epilogue::tests::chain() {
            let found = run(Some(Finish { steps: &steps, operands: &operands }));
            let found: Vec<u32> = found.into_iter().map(f32::to_bits).collect();
            assert!(found == expected, "{precision}, {m}x{k}x{n}, links {}", steps.links.is_some());
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let pool = Pool::new(2);
    for precision in [Precision::Bf16, Precision::Int8] {
        let case = Case { m: 70, k: 321, n: 100, precision };
        let mut b = case.b();
        // Sums of nothing, whose sign a scale decides.
        b.chunks_mut(case.n).for_each(|row| row[0] = 0.0);
        let packed = case.packed(&by_rows(&b, case.n));
        // SAFETY: the arguments are those of the case, or of one of its rows.
        let run = |args: MatMulArgs| unsafe {
            matmul(&pool, &MatMulArgs { scale: -0.5, bias: Bias::None, ..args }, precision);
        };
        let all = case.product(&packed, |args| run(*args));
        for row in [0, 15, 16, 40, 69] {
            let alone = case.product(&packed, |args| run(MatMulArgs { a: args.a.at(row, 0), m: 1, ..*args }));
            let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
            assert_eq!(bits(&alone[..case.n]), bits(&all[row * case.n..][..case.n]), "{precision}, row {row}");
        }
    }
}

#[test]
fn weights_pack_alike_from_floats_bits_and_transposed() {
    for case in [Precision::F16, Precision::Bf16, Precision::Int8].into_iter().flat_map(cases) {
        let (k, n) = (case.k, case.n);
        let b = case.b();
        let turned: Vec<f32> = (0..n).flat_map(|j| (0..k).map(move |i| (i, j))).map(|(i, j)| b[i * n + j]).collect();
        // As bits: integers may look like NaN.
        let packed = |matrix: &Matrix| case.packed(matrix).into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        let expected = packed(&by_rows(&b, n));
        let from_turned = packed(&Matrix::F32(Strided { ptr: turned.as_ptr(), row: 1, column: k as isize }));
        assert!(expected == from_turned, "{k}x{n} {}", case.precision);
        let to_bits: fn(f32) -> u16 = if case.precision == Precision::F16 { to_f16 } else { to_bf16 };
        let bits: Vec<u16> = b.iter().map(|x| to_bits(*x)).collect();
        let scale = |group: usize, j: usize| {
            let rows = group * Precision::GROUP..k.min((group + 1) * Precision::GROUP);
            eec_ir::precision::int8_scale(rows.map(|i| b[i * n + j]))
        };
        let scales: Vec<f32> = (0..k.div_ceil(Precision::GROUP))
            .flat_map(|g| (0..n).map(move |j| (g, j)))
            .map(|(g, j)| scale(g, j))
            .collect();
        let integer = |i: usize| eec_ir::precision::to_int8(b[i], scales[i / n / Precision::GROUP * n + i % n]);
        let integers: Vec<i8> = (0..k * n).map(integer).collect();
        let stored = match case.precision {
            Precision::F16 => Matrix::F16 { bits: &bits, row: n, column: 1 },
            Precision::Bf16 => Matrix::Bf16 { bits: &bits, row: n, column: 1 },
            Precision::Int8 | Precision::F32 => {
                Matrix::Int8 { integers: &integers, row: n, column: 1, scales: &scales }
            }
        };
        assert!(expected == packed(&stored), "{k}x{n} {}", case.precision);
    }
}

/// Speed, for people: `cargo test --release -p eec-runtime narrow::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn speed() {
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        for (m, k, n, copies) in
            [(1, 576, 1536, 60), (1, 576, 49152, 2), (128, 768, 768, 1), (128, 768, 3072, 1), (128, 3072, 768, 1)]
        {
            for precision in Precision::ALL {
                let case = Case { m, k, n, precision };
                let b = case.b();
                // Copies, so that weights come from memory as they do in a model.
                let packed = vec![case.packed(&by_rows(&b, n)); copies];
                let seconds = crate::kernels::best_seconds(|| {
                    for packed in &packed {
                        // SAFETY: the arguments are those of the case.
                        case.product(packed, |args| unsafe { matmul(&pool, args, precision) });
                    }
                }) / copies as f64;
                let bytes = packed[0].len() * 4;
                println!(
                    "{threads} threads, {m}x{k}x{n} {precision}: {:.1} us, {:.0} GFLOP/s, {:.1} GB/s",
                    seconds * 1e6,
                    2e-9 * (m * k * n) as f64 / seconds,
                    1e-9 * bytes as f64 / seconds
                );
            }
        }
    }
}
