//! Floats of 16 bits and fewer: their bits to and from f64.
//!
//! Sources: IEEE 754 (f16), <https://onnx.ai/onnx/technical/float8.html>,
//! <https://onnx.ai/onnx/technical/float4.html>, OCP Microscaling Formats (f8e8m0, f4e2m1).

use crate::types::DType;

/// What the largest exponent, or a lone code, stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Special {
    /// The largest exponent holds infinities and NaNs.
    Ieee,
    /// All ones is NaN; there is no infinity.
    OneNan,
    /// Negative zero's code is NaN; there is neither infinity nor negative zero.
    ZeroNan,
    /// Every code is a number.
    None,
}

/// A sign bit, bits of exponent and bits of mantissa.
#[derive(Clone, Copy)]
struct Format {
    exponent: u32,
    mantissa: u32,
    bias: i32,
    special: Special,
}

/// What becomes of a value beyond the largest one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overflow {
    /// The largest value of its sign.
    Saturate,
    /// Infinity, or NaN where there is none.
    Special,
}

fn format(dtype: DType) -> Option<Format> {
    let format = |exponent, mantissa, bias, special| Some(Format { exponent, mantissa, bias, special });
    match dtype {
        DType::F16 => format(5, 10, 15, Special::Ieee),
        DType::BF16 => format(8, 7, 127, Special::Ieee),
        DType::F8E4M3FN => format(4, 3, 7, Special::OneNan),
        DType::F8E4M3FNUZ => format(4, 3, 8, Special::ZeroNan),
        DType::F8E5M2 => format(5, 2, 15, Special::Ieee),
        DType::F8E5M2FNUZ => format(5, 2, 16, Special::ZeroNan),
        DType::F4E2M1 => format(2, 1, 1, Special::None),
        _ => None,
    }
}

impl Format {
    fn sign(self) -> u16 {
        1 << (self.exponent + self.mantissa)
    }

    /// The code of the largest finite value.
    fn largest(self) -> u16 {
        let all = self.sign() - 1;
        match self.special {
            Special::Ieee => all - (1 << self.mantissa),
            Special::OneNan => all - 1,
            Special::ZeroNan | Special::None => all,
        }
    }

    fn infinity(self) -> Option<u16> {
        (self.special == Special::Ieee).then(|| self.largest() + 1)
    }

    fn nan(self) -> u16 {
        match self.special {
            Special::Ieee => self.largest() + 1 + (1 << (self.mantissa - 1)),
            Special::OneNan => self.sign() - 1,
            Special::ZeroNan => self.sign(),
            // As NumPy's `ml_dtypes` has it: negative zero.
            Special::None => self.sign(),
        }
    }

    fn decode(self, bits: u16) -> f64 {
        let (negative, code) = (bits & self.sign() != 0, bits & (self.sign() - 1));
        if self.special == Special::ZeroNan && bits == self.sign() {
            return f64::NAN;
        }
        let size = match code {
            _ if Some(code) == self.infinity() => f64::INFINITY,
            _ if code > self.largest() => f64::NAN,
            _ => self.magnitude(code),
        };
        if negative { -size } else { size }
    }

    fn magnitude(self, code: u16) -> f64 {
        let (exponent, mantissa) = (i32::from(code >> self.mantissa), f64::from(code & ((1 << self.mantissa) - 1)));
        let one = f64::from(1u32 << self.mantissa);
        match exponent {
            0 => mantissa / one * 2f64.powi(1 - self.bias),
            _ => (1.0 + mantissa / one) * 2f64.powi(exponent - self.bias),
        }
    }

    /// The nearest value, of two equally near ones the even one.
    fn encode(self, x: f64, overflow: Overflow) -> u16 {
        if x.is_nan() {
            return self.nan();
        }
        let sign = if x.is_sign_negative() { self.sign() } else { 0 };
        let code = self.nearest(x.abs());
        if code > self.largest() {
            return match (overflow, self.infinity()) {
                (Overflow::Special, Some(infinity)) => sign | infinity,
                (Overflow::Special, None) if self.special != Special::None => {
                    if self.special == Special::OneNan {
                        sign | self.nan()
                    } else {
                        self.nan()
                    }
                }
                (Overflow::Saturate | Overflow::Special, _) => sign | self.largest(),
            };
        }
        if code == 0 && self.special == Special::ZeroNan { 0 } else { sign | code }
    }

    /// The code nearest to a positive value, as if exponents went on for ever.
    fn nearest(self, x: f64) -> u16 {
        let least = 1 - self.bias;
        let exponent = if x == 0.0 { least } else { exponent_of(x).max(least) };
        if exponent > self.bias + 2 {
            return u16::MAX;
        }
        let steps = (x * 2f64.powi(self.mantissa as i32 - exponent)).round_ties_even();
        // A value below the least normal one has no leading 1 and exponent code 0.
        let code = steps as u32 + ((exponent - least) as u32) * (1 << self.mantissa);
        u16::try_from(code).unwrap_or(u16::MAX)
    }
}

/// The exponent of the leading bit of a positive number.
fn exponent_of(x: f64) -> i32 {
    let biased = (x.to_bits() >> 52) as i32;
    // Subnormal f64s are below the least value of every format here.
    if biased == 0 { -1074 } else { biased - 1023 }
}

/// The value of these bits of a float of at most 16 bits; `None` for other types.
pub fn decode(dtype: DType, bits: u16) -> Option<f64> {
    if dtype == DType::F8E8M0 {
        return Some(if bits == 255 { f64::NAN } else { 2f64.powi(i32::from(bits) - 127) });
    }
    format(dtype).map(|f| f.decode(bits))
}

/// The bits of the nearest value of a float of at most 16 bits; `None` for other types.
pub fn encode(dtype: DType, x: f64, overflow: Overflow) -> Option<u16> {
    if dtype == DType::F8E8M0 {
        return Some(encode_power(x, overflow));
    }
    format(dtype).map(|f| f.encode(x, overflow))
}

/// F8E8M0: the least power of two that is not smaller, as ONNX casts unless it is told otherwise.
fn encode_power(x: f64, overflow: Overflow) -> u16 {
    if x.is_nan() || x < 0.0 || x.is_infinite() {
        return 255;
    }
    let exponent = exponent_of(x);
    let up = exponent + i32::from(x > 2f64.powi(exponent)) + 127;
    if up > 254 {
        return if overflow == Overflow::Saturate { 254 } else { 255 };
    }
    up.max(0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &[DType] = &[
        DType::F16,
        DType::BF16,
        DType::F8E4M3FN,
        DType::F8E4M3FNUZ,
        DType::F8E5M2,
        DType::F8E5M2FNUZ,
        DType::F8E8M0,
        DType::F4E2M1,
    ];

    #[test]
    fn every_code_comes_back() {
        for dtype in SMALL {
            for bits in 0..(1u32 << dtype.bits()) {
                let value = decode(*dtype, bits as u16);
                let again = value.and_then(|v| encode(*dtype, v, Overflow::Special));
                if value.is_some_and(|v| !v.is_nan()) {
                    assert_eq!(again, Some(bits as u16), "{dtype} {bits:#x} is {value:?}");
                }
            }
        }
    }

    #[test]
    fn values_round_to_even_and_overflow_as_asked() {
        let f16 = |x| encode(DType::F16, x, Overflow::Special);
        assert_eq!((f16(65504.0), f16(65519.9), f16(65520.0)), (Some(0x7bff), Some(0x7bff), Some(0x7c00)));
        assert_eq!((f16(2f64.powi(-25)), f16(1.5 * 2f64.powi(-24))), (Some(0), Some(2)));
        let f8 = |x, o| encode(DType::F8E4M3FN, x, o).and_then(|b| decode(DType::F8E4M3FN, b));
        assert_eq!(f8(1e6, Overflow::Saturate), Some(448.0));
        assert!(f8(1e6, Overflow::Special).is_some_and(f64::is_nan));
        let power = |x| encode(DType::F8E8M0, x, Overflow::Saturate);
        assert_eq!((power(4.0), power(4.1), power(0.0), power(3e38)), (Some(129), Some(130), Some(0), Some(254)));
        let f4 = |x| encode(DType::F4E2M1, x, Overflow::Saturate).and_then(|b| decode(DType::F4E2M1, b));
        assert_eq!((f4(2.5), f4(5.0), f4(-100.0)), (Some(2.0), Some(4.0), Some(-6.0)));
    }
}
