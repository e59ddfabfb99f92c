//! Selections, and sine and cosine, as straight-line code for one f32 or four: the same operations in
//! both, so that a value does not depend on the lane that computes it. Other elementary functions are
//! precompiled.
//!
//! The polynomials are minimax fits on the reduced range.

use cranelift::codegen::ir::ConstantData;
use cranelift::prelude::types::{F32, F32X4, I32, I32X4};
use cranelift::prelude::*;

/// `1.5 · 2^23`: adding it rounds to an integer, which stands in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;
/// π/2 in three parts for fused multiply-adds.
const HALF_PI: [f32; 3] = [1.570_796_4, -4.371_139e-8, -1.715_124_5e-15];
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
