//! Functions of single elements, with numpy's broadcasting where there are several operands.
//!
//! Specification: <https://onnx.ai/onnx/operators/>, <https://onnx.ai/onnx/repo-docs/Broadcasting.html>.
//! Integer arithmetic wraps. Functions of floats are computed in f64 and rounded once.

use std::cmp::Ordering;

use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred};
use crate::dim::Dim;
use crate::minifloat::Overflow;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// What is known of one element's function.
type Known1 = fn(&Dim) -> Option<Dim>;

/// What is known of two elements' function.
type Known2 = fn(&Dim, &Dim) -> Option<Dim>;

/// Functions of floats.
pub(super) fn infer_float(cx: &mut Infer) -> Inferred {
    cx.expect_float(0)?;
    Ok(super::Facts::of(cx.ty(0).clone()))
}

/// `Clip`: like [`infer_float`], with bounds that are numbers.
pub(super) fn infer_clip(cx: &mut Infer, min: f32, max: f32) -> Inferred {
    cx.require(!min.is_nan() && !max.is_nan(), || format!("the bounds must be numbers, found {min} and {max}"))?;
    infer_float(cx)
}

/// Functions of one number.
pub(super) fn infer_number(cx: &mut Infer, known: Known1) -> Inferred {
    cx.expect_number(0)?;
    infer_unary(cx, cx.ty(0).dtype, known)
}

/// `Not`.
pub(super) fn infer_not(cx: &mut Infer) -> Inferred {
    cx.expect_dtype(0, &[DType::Bool])?;
    infer_unary(cx, DType::Bool, |x| Some(&Dim::from(1) - x))
}

/// `IsNaN`.
pub(super) fn infer_is_nan(cx: &mut Infer) -> Inferred {
    cx.expect_float(0)?;
    infer_unary(cx, DType::Bool, |_| None)
}

/// `Cast`.
pub(super) fn infer_cast(cx: &mut Infer, to: DType) -> Inferred {
    match to {
        DType::Bool => infer_unary(cx, to, |x| known_equal(x, &Dim::default()).map(|zero| truth(!zero))),
        DType::I32 => {
            infer_unary(cx, to, |x| Some(x.as_const().map_or_else(|| x.clone(), |c| i64::from(c as i32).into())))
        }
        DType::I64 => infer_unary(cx, to, |x| Some(x.clone())),
        // Constants that do not fit are dropped, as are all floats.
        _ => infer_unary(cx, to, |x| x.as_const().map(Dim::from)),
    }
}

fn infer_unary(cx: &Infer, dtype: DType, known: Known1) -> Inferred {
    let ty = Type::new(dtype, cx.ty(0).dims.iter().cloned());
    Ok(cx.mapped(ty, |x| known(x.first()?).filter(|result| result.is_exact() || x.contains(&result))))
}

/// Functions of two numbers of one type.
pub(super) fn infer_arithmetic(cx: &mut Infer, known: Known2) -> Inferred {
    cx.expect_number(0)?;
    infer_binary(cx, None, known)
}

/// `Pow`: the exponent may have another type.
pub(super) fn infer_pow(cx: &mut Infer) -> Inferred {
    cx.expect_number(0)?;
    cx.expect_number(1)?;
    let dims = cx.broadcast(&cx.ty(0).dims, &cx.ty(1).dims)?;
    Ok(super::Facts::of(Type::new(cx.ty(0).dtype, dims)))
}

/// `BitCast`.
pub(super) fn infer_bit_cast(cx: &mut Infer, to: DType) -> Inferred {
    let x = cx.ty(0);
    let same = x.dtype.bits() == to.bits() && to != DType::Bool;
    cx.require(same, || format!("{x} has not the size of {to}"))?;
    Ok(super::Facts::of(Type::new(to, x.dims.iter().cloned())))
}

/// `BitCast`.
pub(super) fn eval_bit_cast(cx: &Eval) -> Evaluated {
    let cast = Tensor::from_bytes(cx.dtype(), cx.to(), cx.input(0).bytes().to_vec());
    cast.map_err(|e| cx.fail(e.to_string()))
}

/// Functions of one integer's bits.
pub(super) fn infer_bits(cx: &mut Infer) -> Inferred {
    cx.expect_int(0)?;
    Ok(super::Facts::of(cx.ty(0).clone()))
}

/// Functions of two integers' bits.
pub(super) fn infer_bit_pairs(cx: &mut Infer) -> Inferred {
    cx.expect_int(0)?;
    infer_binary(cx, None, |_, _| None)
}

/// `And`, `Or`.
pub(super) fn infer_logic(cx: &mut Infer, known: Known2) -> Inferred {
    cx.expect_dtype(0, &[DType::Bool])?;
    infer_binary(cx, Some(DType::Bool), known)
}

/// `Equal`.
pub(super) fn infer_equal(cx: &mut Infer) -> Inferred {
    infer_binary(cx, Some(DType::Bool), |a, b| known_equal(a, b).map(truth))
}

/// Comparisons of numbers.
pub(super) fn infer_order(cx: &mut Infer, known: Known2) -> Inferred {
    cx.expect_number(0)?;
    infer_binary(cx, Some(DType::Bool), known)
}

fn infer_binary(cx: &mut Infer, dtype: Option<DType>, known: Known2) -> Inferred {
    cx.expect_same_dtype(0, 1)?;
    let dims = cx.broadcast(&cx.ty(0).dims, &cx.ty(1).dims)?;
    let ty = Type::new(dtype.unwrap_or(cx.ty(0).dtype), dims);
    Ok(cx.mapped(ty, |x| match x {
        // A sum that stopped at the end of 64 bits may look like an operand there.
        [a, b] => known(a, b).filter(Dim::is_exact),
        _ => None,
    }))
}

/// `Where`.
pub(super) fn infer_where(cx: &mut Infer) -> Inferred {
    cx.expect_dtype(0, &[DType::Bool])?;
    cx.expect_same_dtype(1, 2)?;
    let chosen = cx.broadcast(&cx.ty(1).dims, &cx.ty(2).dims)?;
    let dims = cx.broadcast(&cx.ty(0).dims, &chosen)?;
    let ty = Type::new(cx.ty(1).dtype, dims);
    Ok(cx.mapped(ty, |x| match x {
        [_, a, b] if a == b => Some((*a).clone()),
        [condition, a, b] => condition.as_const().map(|c| if c != 0 { (*a).clone() } else { (*b).clone() }),
        _ => None,
    }))
}

fn truth(holds: bool) -> Dim {
    i64::from(holds).into()
}

/// `-x` of a size.
pub(super) fn known_neg(x: &Dim) -> Option<Dim> {
    Some(&Dim::default() - x)
}

/// `|x|` of a size.
pub(super) fn known_abs(x: &Dim) -> Option<Dim> {
    if x.is_at_least(0) {
        return Some(x.clone());
    }
    known_neg(x).filter(|negated| negated.is_at_least(0))
}

/// The quotient of sizes, truncated: where it is exact, of constants, of sizes that are not negative (for which
/// truncation is rounding down), or of any by a constant (either side of zero by itself).
pub(super) fn known_div(a: &Dim, b: &Dim) -> Option<Dim> {
    if let (Some(x), Some(y)) = (a.as_const(), b.as_const()) {
        return x.checked_div(y).map(Dim::from);
    }
    if a.is_at_least(0) && b.is_at_least(0) {
        return a.floor_div(b);
    }
    if let Some(exact) = a.exact_div(b) {
        return Some(exact);
    }
    let zero = Dim::default();
    let side = |d: &Dim| d.larger(&zero).floor_div(b);
    b.as_const().filter(|by| *by > 0).and_then(|_| Some(&side(a)? - &side(&(&zero - a))?))
}

/// Whether sizes are equal, if that is known.
pub(super) fn known_equal(a: &Dim, b: &Dim) -> Option<bool> {
    let (above, below) = (a - b, b - a);
    match above.as_const() {
        Some(difference) => Some(difference == 0),
        None => (above.is_at_least(1) || below.is_at_least(1)).then_some(false),
    }
}

/// `a < b` of sizes.
pub(super) fn known_less(a: &Dim, b: &Dim) -> Option<Dim> {
    if (b - a).is_at_least(1) {
        return Some(truth(true));
    }
    (a - b).is_at_least(0).then(|| truth(false))
}

/// `a <= b` of sizes.
pub(super) fn known_less_or_equal(a: &Dim, b: &Dim) -> Option<Dim> {
    known_less(b, a).map(|greater| &Dim::from(1) - &greater)
}

/// `a && b`, each 0 or 1.
pub(super) fn known_and(a: &Dim, b: &Dim) -> Option<Dim> {
    Some(truth(a.as_const()? != 0 && b.as_const()? != 0))
}

/// `a || b`, each 0 or 1.
pub(super) fn known_or(a: &Dim, b: &Dim) -> Option<Dim> {
    Some(truth(a.as_const()? != 0 || b.as_const()? != 0))
}

/// Functions of floats.
pub(super) fn eval_float(cx: &Eval, f: impl Fn(f64) -> f64) -> Evaluated {
    cx.finish_floats(cx.floats(0).into_iter().map(f).collect())
}

/// Functions of one number.
pub(super) fn eval_number(cx: &Eval, float: fn(f64) -> f64, integer: fn(i128) -> i128) -> Evaluated {
    match cx.is_float() {
        true => eval_float(cx, float),
        false => cx.finish_integers(cx.wide(0)?.into_iter().map(integer).collect()),
    }
}

/// `Clip`: the upper bound wins; NaN stays.
pub(super) fn eval_clip(cx: &Eval, min: f32, max: f32) -> Evaluated {
    let (min, max) = (f64::from(min), f64::from(max));
    eval_float(cx, |x| {
        let raised = if x < min { min } else { x };
        if raised > max { max } else { raised }
    })
}

/// `Not`.
pub(super) fn eval_not(cx: &Eval) -> Evaluated {
    cx.finish(cx.elements::<u8>(0)?.iter().map(|x| 1 - x).collect::<Vec<u8>>())
}

/// `IsNaN`.
pub(super) fn eval_is_nan(cx: &Eval) -> Evaluated {
    cx.finish_truths(cx.floats(0).iter().map(|x| x.is_nan()))
}

/// `Cast`: float to integer truncates and saturates to 64 bits or what the type has, of integers the low
/// bits are kept; `saturate` says what becomes of values beyond the largest of an 8-bit float.
pub(super) fn eval_cast(cx: &Eval, saturate: bool) -> Evaluated {
    let (x, to) = (cx.input(0), cx.dtype());
    if to.is_float() {
        let narrow = to.bits() <= 8 && saturate;
        let overflow = if narrow { Overflow::Saturate } else { Overflow::Special };
        let cast = Tensor::from_f64s(to, cx.to(), &x.to_f64s(), overflow);
        return cast.map_err(|e| cx.fail(e.to_string()));
    }
    if !x.dtype().is_float() {
        return cx.finish_integers(cx.wide(0)?);
    }
    if to == DType::Bool {
        return cx.finish_truths(cx.floats(0).iter().map(|v| *v != 0.0));
    }
    // Of types of less than a byte the low bits are kept, as NumPy's `ml_dtypes` does.
    let (least, largest) = if to.bits() < 8 { (i128::MIN, i128::MAX) } else { to.integer_range().unwrap_or_default() };
    cx.finish_integers(cx.floats(0).iter().map(|v| (*v as i128).clamp(least, largest)).collect())
}

/// Functions of two numbers of one type; the one of integers gives `None` for a division by zero.
pub(super) fn eval_arithmetic(
    cx: &Eval,
    float: fn(f64, f64) -> f64,
    integer: fn(i128, i128) -> Option<i128>,
) -> Evaluated {
    if cx.is_float() {
        let (x, y) = (cx.floats(0), cx.floats(1));
        return cx.finish_floats(pairs(cx, 0, 1).map(|(i, j)| float(x[i], y[j])).collect());
    }
    let (x, y) = (cx.wide(0)?, cx.wide(1)?);
    let all: Option<Vec<i128>> = pairs(cx, 0, 1).map(|(i, j)| integer(x[i], y[j])).collect();
    cx.finish_integers(all.ok_or_else(|| cx.fail("integer division by zero"))?)
}

/// The positions of two operands' elements for each of the result's.
fn pairs(cx: &Eval, a: usize, b: usize) -> impl Iterator<Item = (usize, usize)> {
    cx.broadcast(a).into_iter().zip(cx.broadcast(b))
}

/// The quotient, truncated; `None` for a division by zero.
pub(super) fn integer_quotient(a: i128, b: i128) -> Option<i128> {
    (b != 0).then(|| a.wrapping_div(b))
}

/// The remainder with the divisor's sign, as numpy's `mod`.
pub(super) fn modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
}

/// [`modulo`] of integers; `None` for a division by zero.
pub(super) fn integer_modulo(a: i128, b: i128) -> Option<i128> {
    let rest = integer_remainder(a, b)?;
    Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
}

/// The remainder with the dividend's sign; `None` for a division by zero.
pub(super) fn integer_remainder(a: i128, b: i128) -> Option<i128> {
    (b != 0).then(|| a.wrapping_rem(b))
}

/// Functions of the bits of two integers.
pub(super) fn eval_bits(cx: &Eval, f: fn(i128, i128) -> i128) -> Evaluated {
    let (x, y) = (cx.wide(0)?, cx.wide(1)?);
    cx.finish_integers(pairs(cx, 0, 1).map(|(i, j)| f(x[i], y[j])).collect())
}

/// `BitShift`: bits that leave the type are lost, and a shift by its width or more leaves none (or, to
/// the right, the sign).
pub(super) fn eval_shift(cx: &Eval, right: bool) -> Evaluated {
    let by = |n: i128| u32::try_from(n).unwrap_or(127).min(127);
    let shifted = |(x, n): (i128, i128)| if right { x >> by(n) } else { x.checked_shl(by(n)).unwrap_or(0) };
    let (x, y) = (cx.wide(0)?, cx.wide(1)?);
    cx.finish_integers(pairs(cx, 0, 1).map(|(i, j)| shifted((x[i], y[j]))).collect())
}

/// The larger; NaN if either is.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The smaller; NaN if either is.
pub(super) fn smaller(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

/// `Pow`: integer powers of integers wrap, and a negative exponent truncates the fraction; all else
/// is computed in f64.
pub(super) fn eval_pow(cx: &Eval) -> Evaluated {
    if cx.is_float() || cx.input(1).dtype().is_float() {
        let (x, y) = (cx.floats(0), cx.floats(1));
        let powers = pairs(cx, 0, 1).map(|(i, j)| x[i].powf(y[j]));
        return match cx.is_float() {
            true => cx.finish_floats(powers.collect()),
            false => cx.finish_integers(powers.map(|p| p as i128).collect()),
        };
    }
    let (x, y) = (cx.wide(0)?, cx.wide(1)?);
    let all: Option<Vec<i128>> = pairs(cx, 0, 1).map(|(i, j)| integer_power(x[i], y[j])).collect();
    cx.finish_integers(all.ok_or_else(|| cx.fail("a negative power of integer zero"))?)
}

/// `base^exponent`, wrapping; `None` for a negative power of zero.
fn integer_power(base: i128, exponent: i128) -> Option<i128> {
    if exponent < 0 {
        return match base {
            0 => None,
            1 => Some(1),
            -1 => Some(if exponent % 2 == 0 { 1 } else { -1 }),
            _ => Some(0),
        };
    }
    let (mut result, mut square, mut left) = (1i128, base, exponent);
    while left > 0 {
        if left % 2 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        left /= 2;
    }
    Some(result)
}

/// `And`, `Or`.
pub(super) fn eval_logic(cx: &Eval, f: fn(u8, u8) -> u8) -> Evaluated {
    let (x, y) = (cx.elements::<u8>(0)?, cx.elements::<u8>(1)?);
    cx.finish(pairs(cx, 0, 1).map(|(i, j)| f(x[i], y[j])).collect())
}

/// Comparisons: `f` of the elements' order, which NaN has not.
pub(super) fn eval_comparison(cx: &Eval, f: fn(Option<Ordering>) -> bool) -> Evaluated {
    if cx.input(0).dtype().is_float() {
        let (x, y) = (cx.floats(0), cx.floats(1));
        return cx.finish_truths(pairs(cx, 0, 1).map(|(i, j)| f(x[i].partial_cmp(&y[j]))));
    }
    let (x, y) = (cx.wide(0)?, cx.wide(1)?);
    cx.finish_truths(pairs(cx, 0, 1).map(|(i, j)| f(Some(x[i].cmp(&y[j])))))
}

/// `Where`.
pub(super) fn eval_where(cx: &Eval) -> Evaluated {
    let condition = cx.elements::<u8>(0)?;
    let (a, b) = (cx.input(1), cx.input(2));
    let choices = cx.broadcast(0).into_iter().zip(pairs(cx, 1, 2));
    let positions: Vec<usize> = choices.map(|(c, (i, j))| if condition[c] != 0 { i } else { a.len() + j }).collect();
    cx.moved(&[a, b], &positions)
}

/// The sign as -1, 0 or 1; NaN stays.
pub(super) fn sign(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() { x } else { x.signum() }
}

/// The Gaussian error linear unit.
pub(super) fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// The tanh approximation of [`gelu`].
pub(super) fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}
