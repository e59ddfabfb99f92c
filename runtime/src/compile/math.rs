//! Elementary functions as straight-line code, for one f32 or four: the same operations in both, so
//! that a value does not depend on the lane that computes it.
//!
//! The polynomials are minimax fits on the reduced ranges; each function states its error.

use cranelift::codegen::ir::ConstantData;
use cranelift::prelude::types::{F32, F32X4, I32, I32X4};
use cranelift::prelude::*;

/// `1.5 · 2^23`: adding it rounds to an integer, which stands in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts, the first short enough that its multiples up to 2^15 are exact.
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// π/2 in three parts for fused multiply-adds.
const HALF_PI: [f32; 3] = [1.570_796_4, -4.371_139e-8, -1.715_124_5e-15];
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
/// `(sin r - r) / r³` in r² for |r| ≤ π/4.
const SIN: [f32; 4] = [-0.166_666_67, 0.008_333_329, -0.000_198_393_04, 2.718_046_5e-6];
/// `(cos r - 1 + r²/2) / r⁴` in r² for |r| ≤ π/4.
const COS: [f32; 3] = [0.041_666_646, -0.001_388_731, 2.443_241_3e-5];

/// Emits functions of values of one type: `F32`, or `F32X4` with comparisons as `I32X4` masks.
pub(super) struct Math<'a, 'b> {
    pub(super) b: &'a mut FunctionBuilder<'b>,
    pub(super) wide: bool,
    /// Whether the CPU has fused multiply-adds.
    pub(super) fused: bool,
}

impl Math<'_, '_> {
    /// A float constant.
    pub(super) fn float(&mut self, x: f32) -> Value {
        if !self.wide {
            return self.b.ins().f32const(x);
        }
        self.constant(F32X4, x.to_bits())
    }

    fn int(&mut self, x: i32) -> Value {
        if !self.wide {
            return self.b.ins().iconst(I32, i64::from(x));
        }
        self.constant(I32X4, x as u32)
    }

    fn constant(&mut self, ty: Type, bits: u32) -> Value {
        let bytes: Vec<u8> = [bits.to_le_bytes(); 4].concat();
        let constant = self.b.func.dfg.constants.insert(ConstantData::from(bytes));
        self.b.ins().vconst(ty, constant)
    }

    fn mul_add(&mut self, a: Value, b: Value, c: Value) -> Value {
        if self.fused {
            return self.b.ins().fma(a, b, c);
        }
        let product = self.b.ins().fmul(a, b);
        self.b.ins().fadd(product, c)
    }

    /// `x · k + c` for a constant k.
    fn scaled(&mut self, x: Value, k: f32, c: Value) -> Value {
        let k = self.float(k);
        self.mul_add(x, k, c)
    }

    /// The polynomial with these coefficients, lowest first.
    fn poly(&mut self, x: Value, coefficients: &[f32]) -> Value {
        let mut rest = coefficients.iter().rev();
        let first = rest.next().map_or(0.0, |c| *c);
        let mut sum = self.float(first);
        for c in rest {
            let c = self.float(*c);
            sum = self.mul_add(sum, x, c);
        }
        sum
    }

    fn bits(&mut self, x: Value) -> Value {
        self.recast(if self.wide { I32X4 } else { I32 }, x)
    }

    fn as_float(&mut self, x: Value) -> Value {
        self.recast(if self.wide { F32X4 } else { F32 }, x)
    }

    fn recast(&mut self, ty: Type, x: Value) -> Value {
        let order = codegen::ir::Endianness::Little;
        let flags = if self.wide { MemFlagsData::new().with_endianness(order) } else { MemFlagsData::new() };
        self.b.ins().bitcast(ty, flags, x)
    }

    /// A value that is not negative, with the sign of `x`.
    fn with_sign(&mut self, value: Value, x: Value) -> Value {
        let (x, value, sign) = (self.bits(x), self.bits(value), self.int(i32::MIN));
        let sign = self.b.ins().band(x, sign);
        let bits = self.b.ins().bor(value, sign);
        self.as_float(bits)
    }

    /// A condition on two values.
    pub(super) fn compare(&mut self, cc: FloatCC, a: Value, b: Value) -> Value {
        self.b.ins().fcmp(cc, a, b)
    }

    /// `a` where the condition holds, else `b`.
    pub(super) fn select(&mut self, condition: Value, a: Value, b: Value) -> Value {
        if !self.wide {
            return self.b.ins().select(condition, a, b);
        }
        let mask = self.as_float(condition);
        self.b.ins().bitselect(mask, a, b)
    }

    fn select_if(&mut self, x: Value, cc: FloatCC, limit: f32, a: Value, b: Value) -> Value {
        let limit = self.float(limit);
        let condition = self.compare(cc, x, limit);
        self.select(condition, a, b)
    }

    /// The larger (`GreaterThan`) or smaller (`LessThan`) of two; NaN if either is NaN.
    pub(super) fn extreme(&mut self, cc: FloatCC, a: Value, b: Value) -> Value {
        let wins = self.compare(cc, a, b);
        let nan = self.compare(FloatCC::Unordered, a, a);
        let first = self.b.ins().bor(wins, nan);
        self.select(first, a, b)
    }

    /// The nearest integer to `x · k`: as a float, and as an integer of the same width.
    fn nearest(&mut self, x: Value, k: f32) -> (Value, Value) {
        let round = self.float(ROUND);
        let shifted = self.scaled(x, k, round);
        let n = self.b.ins().fsub(shifted, round);
        let (bits, zero) = (self.bits(shifted), self.int(ROUND.to_bits() as i32));
        (n, self.b.ins().isub(bits, zero))
    }

    /// `x = n · ln 2 + r` with |r| at most half of ln 2: r and n.
    fn reduce_ln2(&mut self, x: Value) -> (Value, Value) {
        let (n, i) = self.nearest(x, std::f32::consts::LOG2_E);
        let r = self.scaled(n, -LN2[0], x);
        (self.scaled(n, -LN2[1], r), i)
    }

    /// `2^i` for i between -126 and 127.
    fn power_of_two(&mut self, i: Value) -> Value {
        let bias = self.int(127);
        let exponent = self.b.ins().iadd(i, bias);
        let bits = self.b.ins().ishl_imm_u(exponent, 23);
        self.as_float(bits)
    }

    /// e^x, to 1 ulp; the scale is applied in halves, so that subnormal results round once. What vanishes
    /// (masked scores do) is computed at 0 instead: CPUs take a hundred cycles over an underflow.
    pub(super) fn exp(&mut self, x: Value) -> Value {
        let (high, low, zero) = (self.float(89.0), self.float(-104.0), self.float(0.0));
        let x = self.select_if(x, FloatCC::GreaterThan, 89.0, high, x);
        let vanishes = self.compare(FloatCC::LessThan, x, low);
        let x = self.select(vanishes, zero, x);
        let (r, i) = self.reduce_ln2(x);
        let q = self.poly(r, &EXP);
        let square = self.b.ins().fmul(r, r);
        let p = self.mul_add(square, q, r);
        let one = self.float(1.0);
        let p = self.b.ins().fadd(p, one);
        let half = self.b.ins().sshr_imm_u(i, 1);
        let rest = self.b.ins().isub(i, half);
        let (a, b) = (self.power_of_two(half), self.power_of_two(rest));
        let p = self.b.ins().fmul(p, a);
        let p = self.b.ins().fmul(p, b);
        self.select(vanishes, zero, p)
    }

    /// ln x, to 1 ulp; NaN below zero.
    pub(super) fn log(&mut self, x: Value) -> Value {
        let scale = self.float(8_388_608.0);
        let scaled = self.b.ins().fmul(x, scale);
        let normal = self.select_if(x, FloatCC::LessThan, f32::MIN_POSITIVE, scaled, x);
        let bits = self.bits(normal);
        let root = self.int(std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32);
        let above = self.b.ins().isub(bits, root);
        let exponent = self.b.ins().sshr_imm_u(above, 23);
        let shift = self.b.ins().ishl_imm_u(exponent, 23);
        let mantissa = self.b.ins().isub(bits, shift);
        let (mantissa, one) = (self.as_float(mantissa), self.float(1.0));
        let f = self.b.ins().fsub(mantissa, one);
        let e = self.b.ins().fcvt_from_sint(if self.wide { F32X4 } else { F32 }, exponent);
        let (zero, added) = (self.float(0.0), self.float(23.0));
        let added = self.select_if(x, FloatCC::LessThan, f32::MIN_POSITIVE, added, zero);
        let e = self.b.ins().fsub(e, added);
        let y = self.log_of_mantissa(f, e);
        let y = self.select_if(x, FloatCC::LessThan, f32::INFINITY, y, x);
        let (nan, minus) = (self.float(f32::NAN), self.float(f32::NEG_INFINITY));
        let y = self.select_if(x, FloatCC::Equal, 0.0, minus, y);
        self.select_if(x, FloatCC::LessThan, 0.0, nan, y)
    }

    /// `ln(1 + f) + e · ln 2`.
    fn log_of_mantissa(&mut self, f: Value, e: Value) -> Value {
        let p = self.poly(f, &LOG);
        let square = self.b.ins().fmul(f, f);
        let cube = self.b.ins().fmul(square, f);
        let tail = self.b.ins().fmul(cube, p);
        let tail = self.scaled(e, LN2[1], tail);
        let tail = self.scaled(square, -0.5, tail);
        let sum = self.b.ins().fadd(f, tail);
        self.scaled(e, LN2[0], sum)
    }

    /// tanh x as `u / (u + 2)` with `u = e^2|x| - 1`, to 2e-7.
    pub(super) fn tanh(&mut self, x: Value) -> Value {
        let a = self.b.ins().fabs(x);
        let y = self.b.ins().fadd(a, a);
        let limit = self.float(44.0);
        let y = self.select_if(y, FloatCC::GreaterThan, 44.0, limit, y);
        let (r, i) = self.reduce_ln2(y);
        let q = self.poly(r, &EXPM1);
        let square = self.b.ins().fmul(r, r);
        let p = self.mul_add(square, q, r);
        let (scale, one, two) = (self.power_of_two(i), self.float(1.0), self.float(2.0));
        let rest = self.b.ins().fsub(scale, one);
        let u = self.mul_add(scale, p, rest);
        let below = self.b.ins().fadd(u, two);
        let t = self.b.ins().fdiv(u, below);
        self.with_sign(t, x)
    }

    /// 1 / (1 + e^-x), to 2e-7.
    pub(super) fn sigmoid(&mut self, x: Value) -> Value {
        let negated = self.b.ins().fneg(x);
        let e = self.exp(negated);
        let one = self.float(1.0);
        let below = self.b.ins().fadd(e, one);
        self.b.ins().fdiv(one, below)
    }

    /// erf x, to 2e-7: a polynomial near zero, `1 - e^-g(|x|)` beyond.
    pub(super) fn erf(&mut self, x: Value) -> Value {
        let square = self.b.ins().fmul(x, x);
        let p = self.poly(square, &ERF_SMALL);
        let small = self.mul_add(x, p, x);
        let a = self.b.ins().fabs(x);
        let limit = self.float(3.95);
        let clamped = self.select_if(a, FloatCC::GreaterThan, 3.95, limit, a);
        let g = self.poly(clamped, &ERF_LARGE);
        let g = self.b.ins().fneg(g);
        let (e, one) = (self.exp(g), self.float(1.0));
        let large = self.b.ins().fsub(one, e);
        let large = self.with_sign(large, x);
        self.select_if(a, FloatCC::LessThan, 0.9, small, large)
    }

    /// sin (`quarter` 0) or cos (`quarter` 1) of x up to [`SINE_LIMIT`], absolute error below 1.5e-7.
    pub(super) fn sine(&mut self, x: Value, quarter: i32) -> Value {
        let (n, i) = self.nearest(x, std::f32::consts::FRAC_2_PI);
        let mut r = self.scaled(n, -HALF_PI[0], x);
        r = self.scaled(n, -HALF_PI[1], r);
        r = self.scaled(n, -HALF_PI[2], r);
        let square = self.b.ins().fmul(r, r);
        let cube = self.b.ins().fmul(square, r);
        let p = self.poly(square, &SIN);
        let sin = self.mul_add(cube, p, r);
        let p = self.poly(square, &COS);
        let (fourth, one) = (self.b.ins().fmul(square, square), self.float(1.0));
        let start = self.scaled(square, -0.5, one);
        let cos = self.mul_add(fourth, p, start);
        let quarter = self.int(quarter);
        let i = self.b.ins().iadd(i, quarter);
        // Odd quarters take the cosine, the second and third are negative.
        let (bit, zero) = (self.int(1), self.int(0));
        let odd = self.b.ins().band(i, bit);
        let odd = self.b.ins().icmp(IntCC::NotEqual, odd, zero);
        let y = self.select(odd, cos, sin);
        let two = self.int(2);
        let sign = self.b.ins().band(i, two);
        let sign = self.b.ins().ishl_imm_u(sign, 30);
        let bits = self.bits(y);
        let bits = self.b.ins().bxor(bits, sign);
        self.as_float(bits)
    }
}

/// Up to here the quotient by π/2 is exact enough for [`Math::sine`].
pub(super) const SINE_LIMIT: f32 = 48_000.0;
