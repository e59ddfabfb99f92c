//! How the weights of a matrix product are stored, and what that makes of their values.
//!
//! All narrow forms are idempotent: rounding values that are already of the form changes nothing. So
//! a graph that holds rounded weights, a file that holds their bits, and a program that packs them anew
//! all mean the same product.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a product's weights are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// As 32-bit floats: nothing is rounded.
    #[default]
    F32,
    /// As bfloat16. The other operand is rounded to bfloat16 too, on every CPU; sums are 32-bit floats.
    Bf16,
    /// As 8-bit integers times one scale per column and [`Precision::GROUP`] rows. The other operand and all
    /// sums are 32-bit floats, and so are the weights once they are read: `q · scale` is exact.
    Int8,
    /// As 16-bit floats of IEEE 754. The other operand and all sums are 32-bit floats, and so are the weights once
    /// they are read.
    F16,
}

impl Precision {
    /// Every form.
    pub const ALL: [Precision; 4] = [Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8];

    /// Rows of a column that share a scale.
    pub const GROUP: usize = 32;

    /// The name in the text form, in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        }
    }

    /// The form with this name.
    pub fn from_name(name: &str) -> Option<Precision> {
        Precision::ALL.into_iter().find(|p| p.name() == name)
    }

    /// The bytes of so many weights, their scales included (those of whole groups).
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            Precision::F32 => 4 * elements,
            Precision::F16 | Precision::Bf16 => 2 * elements,
            Precision::Int8 => elements + 4 * elements.div_ceil(Precision::GROUP as u64),
        }
    }

    /// Rounds a row-major matrix in place, as the weights of a product that sums over its rows, or over
    /// its columns if `transposed`. An empty matrix stays empty.
    pub fn round(self, values: &mut [f32], columns: usize, transposed: bool) {
        match self {
            Precision::F32 => {}
            Precision::F16 => values.iter_mut().for_each(|x| *x = from_f16(to_f16(*x))),
            Precision::Bf16 => values.iter_mut().for_each(|x| *x = from_bf16(to_bf16(*x))),
            Precision::Int8 if transposed => {
                values.chunks_mut(columns.max(1)).flat_map(|row| row.chunks_mut(Precision::GROUP)).for_each(round_group)
            }
            Precision::Int8 => {
                values.chunks_mut(columns.max(1) * Precision::GROUP).for_each(|rows| round_columns(rows, columns))
            }
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no precision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a precision: f32, f16, bf16 or int8")]
pub struct UnknownPrecision(String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(text: &str) -> Result<Precision, UnknownPrecision> {
        Precision::from_name(text).ok_or_else(|| UnknownPrecision(text.to_string()))
    }
}

/// The nearest bfloat16, ties to even, as its bits; NaN stays NaN.
#[inline]
pub fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The value of a bfloat16.
#[inline]
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Units in which the smallest 16-bit floats count.
const F16_UNIT: f32 = 1.0 / 16_777_216.0;

/// What the exponent of a 32-bit float is larger by than that of a 16-bit float of its value, as bits of the former.
const F16_BIAS: u32 = (127 - 15) << 23;

/// The nearest 16-bit float, ties to even, as its bits; NaN stays NaN.
#[inline]
pub fn to_f16(x: f32) -> u16 {
    const INFINITE: u32 = 0x7c00;
    let (sign, size) = ((x.to_bits() >> 16) as u16 & 0x8000, x.to_bits() & 0x7fff_ffff);
    let least_normal = F16_BIAS + (1 << 23);
    let code = match size {
        _ if x.is_nan() => INFINITE | 0x200,
        // Exact, but for the rounding.
        _ if size < least_normal => (f32::from_bits(size) / F16_UNIT).round_ties_even() as u32,
        _ => (((size - F16_BIAS) + 0xfff + (size >> 13 & 1)) >> 13).min(INFINITE),
    };
    sign | code as u16
}

/// The value of a 16-bit float.
#[inline]
pub fn from_f16(bits: u16) -> f32 {
    let (sign, code) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
    let size = match code {
        0..0x400 => (code as f32 * F16_UNIT).to_bits(),
        0x400..0x7c00 => (code << 13) + F16_BIAS,
        _ => (code << 13) | 0x7f80_0000,
    };
    f32::from_bits(sign | size)
}

/// The largest 8-bit integer that stands for a weight; its negative is the smallest.
const MAX_INT8: f32 = 127.0;

/// The scale of a group of weights: the largest magnitude stands for 127. It has 16 significant bits, so
/// that its product with every 8-bit integer is exact and the group's scale is found again in its rounded
/// values. 0 for a group of (almost) zeros; NaN if a weight is not finite.
pub fn int8_scale(group: impl IntoIterator<Item = f32>) -> f32 {
    const LEAST: f32 = 1e-30;
    const DROPPED: u32 = 8;
    let largest = group.into_iter().fold(0.0f32, |most, x| if x.is_finite() { most.max(x.abs()) } else { f32::NAN });
    if largest.is_nan() {
        return f32::NAN;
    }
    if largest < LEAST {
        return 0.0;
    }
    let bits = (largest / MAX_INT8).to_bits() + (1 << (DROPPED - 1));
    f32::from_bits(bits >> DROPPED << DROPPED)
}

/// The integer that stands for a weight of a group with this scale.
#[inline]
pub fn to_int8(x: f32, scale: f32) -> i8 {
    // A zero scale gives NaN or an infinity here, and the scale makes either of them zero again.
    (x / scale).round_ties_even().clamp(-MAX_INT8, MAX_INT8) as i8
}

/// The weight that an integer stands for.
#[inline]
pub fn from_int8(q: i8, scale: f32) -> f32 {
    f32::from(q) * scale
}

fn round_group(group: &mut [f32]) {
    let scale = int8_scale(group.iter().copied());
    group.iter_mut().for_each(|x| *x = from_int8(to_int8(*x, scale), scale));
}

/// [`round_group`] for every column of some rows.
fn round_columns(rows: &mut [f32], columns: usize) {
    for column in 0..columns {
        let scale = int8_scale(rows.iter().skip(column).step_by(columns).copied());
        rows.iter_mut().skip(column).step_by(columns).for_each(|x| *x = from_int8(to_int8(*x, scale), scale));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of many magnitudes and both signs.
    fn values(count: u32) -> Vec<f32> {
        let value = |i: u32| {
            let bits = i.wrapping_mul(2_654_435_761);
            (bits as i32 as f32) / 2.0f32.powi((bits % 61) as i32)
        };
        (0..count).map(value).collect()
    }

    #[test]
    fn bf16_rounds_to_the_nearest_ties_to_even() {
        let round = |x: f32| from_bf16(to_bf16(x));
        assert_eq!(round(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(round(1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0);
        assert_eq!(round(-1.0 - 1.01 / 256.0), -1.0 - 2.0 / 256.0);
        assert_eq!(round(f32::MAX), f32::INFINITY);
        assert_eq!(round(f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert!(round(f32::from_bits(0x7f80_0001)).is_nan());
    }

    #[test]
    fn f16_is_that_of_the_evaluators() {
        use crate::minifloat::{Overflow, decode, encode};
        use crate::types::DType;
        for bits in 0..=u16::MAX {
            let (have, want) = (from_f16(bits), decode(DType::F16, bits).unwrap() as f32);
            assert!(have.to_bits() == want.to_bits() || have.is_nan() && want.is_nan(), "{bits:#x}: {have} {want}");
            if have.is_nan() {
                assert!(from_f16(to_f16(have)).is_nan());
                continue;
            }
            // The value, its neighbours and what lies half way between two codes.
            let next = from_f16(bits ^ 1);
            for x in [have, have.next_up(), have.next_down(), (have + next) / 2.0, (have + 3.0 * next) / 4.0] {
                if !x.is_nan() {
                    assert_eq!(Some(to_f16(x)), encode(DType::F16, f64::from(x), Overflow::Special), "{x:e}");
                }
            }
        }
    }

    #[test]
    fn rounding_again_changes_nothing() {
        for precision in Precision::ALL {
            for transposed in [false, true] {
                let mut once = values(7 * 100);
                precision.round(&mut once, 100, transposed);
                let mut twice = once.clone();
                precision.round(&mut twice, 100, transposed);
                assert_eq!(once, twice, "{precision}, transposed: {transposed}");
            }
        }
    }

    #[test]
    fn int8_errs_by_half_a_step_within_its_group() {
        let original = values(96 * 5);
        let mut rounded = original.clone();
        Precision::Int8.round(&mut rounded, 5, false);
        for column in 0..5 {
            for first in (0..96).step_by(Precision::GROUP) {
                let at = |row: usize| (first + row) * 5 + column;
                let scale = int8_scale((0..Precision::GROUP).map(|row| original[at(row)]));
                for row in 0..Precision::GROUP {
                    assert!((original[at(row)] - rounded[at(row)]).abs() <= 0.5001 * scale);
                }
            }
        }
        let mut turned: Vec<f32> = (0..5).flat_map(|c| (0..96).map(move |r| r * 5 + c)).map(|i| original[i]).collect();
        Precision::Int8.round(&mut turned, 96, true);
        assert!((0..5).all(|c| (0..96).all(|r| turned[c * 96 + r] == rounded[r * 5 + c])));
    }

    #[test]
    fn groups_without_a_scale_are_zero_or_nan() {
        let mut tiny = [1e-38, -1e-40, 0.0];
        Precision::Int8.round(&mut tiny, 3, true);
        assert_eq!(tiny, [0.0; 3]);
        let mut broken = [1.0, f32::INFINITY];
        Precision::Int8.round(&mut broken, 2, true);
        assert!(broken.iter().all(|x| x.is_nan()));
    }
}
