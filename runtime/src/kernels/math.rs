//! Elementary functions of f32, written once as branch-free scalars: inside the kernels of an
//! instruction set the compiler turns them into its vectors. A result does not depend on the lane.
//!
//! The polynomials are minimax fits on the reduced ranges; each function states its error. `FUSED` says
//! whether the instruction set has fused multiply-adds.

/// A function of one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Function {
    Exp,
    Log,
    Tanh,
    Erf,
    Sigmoid,
}

impl Function {
    /// Every function, at the position of its number.
    pub(crate) const ALL: [Function; 5] =
        [Function::Exp, Function::Log, Function::Tanh, Function::Erf, Function::Sigmoid];
}

/// `1.5 · 2^23`: adding it rounds to an integer, which stands in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts, the first short enough that its multiples up to 2^15 are exact.
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// `(e^r - 1 - r) / r²` for |r| ≤ ln 2 / 2, to 3e-9 of `e^r`.
const EXP: [f32; 5] = [0.5, 0.166_665_12, 0.041_666_187, 0.008_369_599, 0.001_395_172];
/// The same to 1.4e-8 of `e^r - 1`.
const EXPM1: [f32; 5] = [0.499_999_97, 0.166_665_39, 0.041_667_223, 0.008_367_181, 0.001_388_239_6];
/// `(ln(1+f) - f + f²/2) / f³` for 1+f between √½ and √2, to 8e-10.
const LOG: [f32; 9] = [
    0.333_333_13,
    -0.250_000_1,
    0.200_021_19,
    -0.166_679_96,
    0.142_195_52,
    -0.124_055_89,
    0.118_881_63,
    -0.116_756_51,
    0.067_466_386,
];
/// `erf(x)/x - 1` in x² for x ≤ 0.92, to 1.5e-8.
const ERF_SMALL: [f32; 6] =
    [0.128_379_15, -0.376_124_98, 0.112_818_465, -0.026_767_727, 0.004_994_837_6, -0.000_599_943_74];
/// `-ln(1 - erf(x))` in x for 0.85 ≤ x ≤ 3.95.
const ERF_LARGE: [f32; 8] = [
    -0.000_154_501_85,
    1.129_415_6,
    0.633_552,
    0.108_049_78,
    -0.024_967_695,
    0.004_112_452,
    -0.000_422_177_92,
    2.001_773_5e-5,
];

/// Elements that are computed together: whole vectors of every instruction set.
pub(super) const BLOCK: usize = 16;

/// Replaces every value by `$function` of it. A macro, since a closure would not be compiled for the
/// instruction set of its caller.
macro_rules! each {
    ($values:ident, $function:expr) => {{
        let (blocks, rest) = $values.as_chunks_mut::<BLOCK>();
        for block in blocks {
            for value in block {
                *value = $function(*value);
            }
        }
        if !rest.is_empty() {
            let mut block = [0.0; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            for value in &mut block {
                *value = $function(*value);
            }
            rest.copy_from_slice(&block[..rest.len()]);
        }
    }};
}

/// Replaces every value by the function of it.
#[inline(always)]
pub(super) fn apply<const FUSED: bool>(function: Function, values: &mut [f32]) {
    match function {
        Function::Exp => each!(values, exp::<FUSED>),
        Function::Log => each!(values, log::<FUSED>),
        Function::Tanh => each!(values, tanh::<FUSED>),
        Function::Erf => each!(values, erf::<FUSED>),
        Function::Sigmoid => each!(values, sigmoid::<FUSED>),
    }
}

/// Adds `others` to `values`, one by one.
#[inline(always)]
pub(super) fn add(values: &mut [f32], others: &[f32]) {
    values.iter_mut().zip(others).for_each(|(value, other)| *value += other);
}

/// Replaces whole blocks of scores by their softmax, `instead` standing for NaN if there is one. Sums
/// are of the lanes of the blocks first, so that their order depends on the number of blocks alone.
#[inline(always)]
pub(super) fn softmax<const FUSED: bool>(scores: &mut [f32], instead: Option<f32>) {
    let (blocks, _) = scores.as_chunks_mut::<BLOCK>();
    let mut max = [f32::NEG_INFINITY; BLOCK];
    for block in &*blocks {
        for (max, x) in max.iter_mut().zip(block) {
            *max = larger(*x, *max);
        }
    }
    let top = fold(max, larger);
    let mut sum = [0.0; BLOCK];
    for block in &mut *blocks {
        for (sum, x) in sum.iter_mut().zip(block) {
            *x = exp_below::<FUSED>(*x - top);
            *sum += *x;
        }
    }
    // The sum is at least 1, the share of the largest.
    let inverse = 1.0 / fold(sum, |a, b| a + b);
    // As one flat loop: of nested ones the compiler takes the outer one for its vectors.
    let weights = blocks.as_flattened_mut();
    match instead {
        None => weights.iter_mut().for_each(|x| *x *= inverse),
        Some(instead) => weights.iter_mut().for_each(|x| {
            let y = *x * inverse;
            *x = if y.is_nan() { instead } else { y };
        }),
    }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// One value of a block, halves first.
#[inline(always)]
fn fold(block: [f32; BLOCK], f: impl Fn(f32, f32) -> f32) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| f(block[i + 8], block[i]));
    let four: [f32; 4] = std::array::from_fn(|i| f(eight[i + 4], eight[i]));
    f(f(four[3], four[1]), f(four[2], four[0]))
}

#[inline(always)]
fn mul_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// The polynomial with these coefficients, lowest first.
#[inline(always)]
fn poly<const FUSED: bool, const N: usize>(x: f32, coefficients: &[f32; N]) -> f32 {
    let (last, rest) = (coefficients[N - 1], &coefficients[..N - 1]);
    let mut sum = last;
    for c in rest.iter().rev() {
        sum = mul_add::<FUSED>(sum, x, *c);
    }
    sum
}

/// `x = n · ln 2 + r` with |r| at most half of ln 2: r and n.
#[inline(always)]
fn reduce_ln2<const FUSED: bool>(x: f32) -> (f32, i32) {
    let shifted = mul_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FUSED>(n, -LN2[0], x);
    let i = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    (mul_add::<FUSED>(n, -LN2[1], r), i)
}

/// `2^i` for i between -126 and 127.
#[inline(always)]
fn power_of_two(i: i32) -> f32 {
    f32::from_bits((i.wrapping_add(127) as u32) << 23)
}

/// A value that is not negative, with the sign of `x`.
#[inline(always)]
fn with_sign(value: f32, x: f32) -> f32 {
    f32::from_bits(value.to_bits() | (x.to_bits() & (1 << 31)))
}

/// e^x, to 1 ulp; the scale is applied in halves, so that subnormal results round once. What vanishes
/// (masked scores do) is computed at 0 instead: CPUs take a hundred cycles over an underflow.
#[inline(always)]
fn exp<const FUSED: bool>(x: f32) -> f32 {
    let x = if x > 89.0 { 89.0 } else { x };
    let vanishes = x < -104.0;
    let x = if vanishes { 0.0 } else { x };
    let (r, i) = reduce_ln2::<FUSED>(x);
    let p = mul_add::<FUSED>(r * r, poly::<FUSED, 5>(r, &EXP), r) + 1.0;
    let half = i >> 1;
    let p = p * power_of_two(half) * power_of_two(i.wrapping_sub(half));
    if vanishes { 0.0 } else { p }
}

/// e^x for x at most 0, to 1 ulp; 0 where the result would be subnormal.
#[inline(always)]
fn exp_below<const FUSED: bool>(x: f32) -> f32 {
    let vanishes = x < -87.0;
    let (r, i) = reduce_ln2::<FUSED>(if vanishes { 0.0 } else { x });
    let p = mul_add::<FUSED>(r * r, poly::<FUSED, 5>(r, &EXP), r) + 1.0;
    if vanishes { 0.0 } else { p * power_of_two(i) }
}

/// ln x, to 1 ulp; NaN below zero.
#[inline(always)]
fn log<const FUSED: bool>(x: f32) -> f32 {
    let subnormal = x < f32::MIN_POSITIVE;
    let normal = if subnormal { x * 8_388_608.0 } else { x };
    let bits = normal.to_bits() as i32;
    let exponent = bits.wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32) >> 23;
    let f = f32::from_bits(bits.wrapping_sub(exponent << 23) as u32) - 1.0;
    let e = exponent as f32 - if subnormal { 23.0 } else { 0.0 };
    let square = f * f;
    let tail = square * f * poly::<FUSED, 9>(f, &LOG);
    let tail = mul_add::<FUSED>(e, LN2[1], tail);
    let tail = mul_add::<FUSED>(square, -0.5, tail);
    let y = mul_add::<FUSED>(e, LN2[0], f + tail);
    let y = if x < f32::INFINITY { y } else { x };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x < 0.0 { f32::NAN } else { y }
}

/// tanh x as `u / (u + 2)` with `u = e^2|x| - 1`, to 2e-7.
#[inline(always)]
fn tanh<const FUSED: bool>(x: f32) -> f32 {
    let y = x.abs() + x.abs();
    let y = if y > 44.0 { 44.0 } else { y };
    let (r, i) = reduce_ln2::<FUSED>(y);
    let p = mul_add::<FUSED>(r * r, poly::<FUSED, 5>(r, &EXPM1), r);
    let scale = power_of_two(i);
    let u = mul_add::<FUSED>(scale, p, scale - 1.0);
    with_sign(u / (u + 2.0), x)
}

/// 1 / (1 + e^-x), to 2e-7; 0 where e^-x overflows, below -88.7.
#[inline(always)]
fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (exp::<FUSED>(-x) + 1.0)
}

/// erf x, to 2e-7: a polynomial near zero, `1 - e^-g(|x|)` beyond.
#[inline(always)]
fn erf<const FUSED: bool>(x: f32) -> f32 {
    let small = mul_add::<FUSED>(x, poly::<FUSED, 6>(x * x, &ERF_SMALL), x);
    let a = x.abs();
    let clamped = if a > 3.95 { 3.95 } else { a };
    let large = with_sign(1.0 - exp::<FUSED>(-poly::<FUSED, 8>(clamped, &ERF_LARGE)), x);
    if a < 0.9 { small } else { large }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::Isa;

    /// Values of all sizes and signs, and the special ones.
    fn values() -> Vec<f32> {
        let sizes = (-40..40).map(|e| 1.37 * (e as f32 * 0.5).exp2());
        let mut all: Vec<f32> = sizes.flat_map(|x| [x, -x]).collect();
        all.extend([
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::MIN_POSITIVE / 8.0,
            -103.9,
            88.7,
            -90.0,
        ]);
        all
    }

    /// Prints the speed of functions; run it in release with `--ignored --nocapture`.
    #[test]
    #[ignore = "a measurement, not a check"]
    fn speed() {
        let isa = Isa::get();
        for row in [32, 80, 128, 512] {
            let start: Vec<f32> = (0..128 * row).map(|i| (i * 7919 % 1000) as f32 / 100.0).collect();
            let mut scores = start.clone();
            // SAFETY: the set is one that this CPU has.
            let best = crate::kernels::best_seconds(|| {
                scores.copy_from_slice(&start);
                scores.chunks_mut(row).for_each(|r| unsafe { (isa.softmax)(r, None) });
            });
            println!("softmax of rows of {row}: {:.2} ns for 16 values", best * 1e9 / (128 * row / 16) as f64);
        }
        for function in Function::ALL {
            let mut values: Vec<f32> = (0..4096).map(|i| (i * 7919 % 1000) as f32 / 1000.0).collect();
            // SAFETY: as above.
            let best = crate::kernels::best_seconds(|| unsafe { (isa.apply)(function, &mut values) });
            println!("{function:?}: {:.2} ns for 16 values", best * 1e9 / 256.0);
        }
    }

    #[test]
    fn functions_stand_at_their_numbers() {
        assert!(Function::ALL.into_iter().enumerate().all(|(i, f)| f as usize == i));
    }

    #[test]
    fn a_value_does_not_depend_on_where_it_stands() {
        for isa in Isa::available() {
            for function in Function::ALL {
                let mut all = values();
                // SAFETY: the set is one that this CPU has.
                unsafe { (isa.apply)(function, &mut all) };
                for (x, want) in values().into_iter().zip(all) {
                    let mut one = [x];
                    // SAFETY: as above.
                    unsafe { (isa.apply)(function, &mut one) };
                    assert_eq!(one[0].to_bits(), want.to_bits(), "{function:?} of {x} with {}", isa.name);
                }
            }
        }
    }

    #[test]
    fn functions_are_as_near_as_they_say() {
        for isa in Isa::available() {
            for function in Function::ALL {
                let mut all = values();
                // SAFETY: the set is one that this CPU has.
                unsafe { (isa.apply)(function, &mut all) };
                for (x, y) in values().into_iter().zip(all) {
                    let wide = f64::from(x);
                    let want = match function {
                        Function::Exp => wide.exp(),
                        Function::Log => wide.ln(),
                        Function::Tanh => wide.tanh(),
                        Function::Erf => libm::erf(wide),
                        Function::Sigmoid if x < -88.7 => 0.0,
                        Function::Sigmoid => 1.0 / (1.0 + (-wide).exp()),
                    };
                    let near = (f64::from(y) - want).abs() <= 3e-7 * want.abs() + 1e-44;
                    let same = (f64::from(y) == f64::from(want as f32)) || (y.is_nan() && want.is_nan());
                    assert!(near || same, "{function:?} of {x} with {} is {y}, not {want}", isa.name);
                }
            }
        }
    }
}
