//! The elements of any tensor as f64 or as integers of 128 bits, and tensors made from those.
//!
//! Evaluation computes in these and rounds once: floats to the nearest value, integers by dropping high
//! bits.

use crate::minifloat::{self, Overflow};
use crate::tensor::{Tensor, TensorError};
use crate::types::{Class, DType};

/// The elements of `tensor`, each from its `N` bytes.
fn each<const N: usize, R>(tensor: &Tensor, f: impl Fn([u8; N]) -> R) -> Vec<R> {
    tensor.bytes().as_chunks::<N>().0.iter().map(|b| f(*b)).collect()
}

fn concat<const N: usize>(bytes: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    bytes.flatten().collect()
}

impl Tensor {
    /// The elements as f64, which is exact but for large integers.
    pub fn to_f64s(&self) -> Vec<f64> {
        let dtype = self.dtype();
        let small = move |bits: u16| minifloat::decode(dtype, bits).unwrap_or(f64::NAN);
        match (dtype, dtype.size()) {
            (DType::F32, _) => each(self, |b| f64::from(f32::from_le_bytes(b))),
            (DType::F64, _) => each(self, f64::from_le_bytes),
            (_, 2) if dtype.is_float() => each(self, |b| small(u16::from_le_bytes(b))),
            (_, _) if dtype.is_float() => each(self, |[b]| small(b.into())),
            (..) => self.to_i128s().unwrap_or_default().into_iter().map(|x| x as f64).collect(),
        }
    }

    /// Integer or boolean elements; `None` for floats.
    pub fn to_i128s(&self) -> Option<Vec<i128>> {
        let signed = self.dtype().class() == Class::Signed;
        Some(match self.dtype().size() {
            _ if self.dtype().is_float() => return None,
            8 if signed => each(self, |b| i64::from_le_bytes(b).into()),
            8 => each(self, |b| u64::from_le_bytes(b).into()),
            4 if signed => each(self, |b| i32::from_le_bytes(b).into()),
            4 => each(self, |b| u32::from_le_bytes(b).into()),
            2 if signed => each(self, |b| i16::from_le_bytes(b).into()),
            2 => each(self, |b| u16::from_le_bytes(b).into()),
            _ if signed => each(self, |b| i8::from_le_bytes(b).into()),
            _ => each(self, |[b]| b.into()),
        })
    }

    /// Integer or boolean elements that fit 64 bits with sign; `None` for floats and larger elements.
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        if let Some(elements) = self.elements::<i64>() {
            return Some(elements.into_owned());
        }
        self.to_i128s()?.into_iter().map(|x| i64::try_from(x).ok()).collect()
    }

    /// A tensor of the float type `dtype` with the values nearest to `data`.
    pub fn from_f64s(dtype: DType, dims: &[usize], data: &[f64], overflow: Overflow) -> Result<Tensor, TensorError> {
        let small = |x: &f64| minifloat::encode(dtype, *x, overflow).unwrap_or_default();
        let bytes = match (dtype, dtype.size()) {
            (DType::F32, _) => return Tensor::new(dims, data.iter().map(|x| *x as f32).collect()),
            (DType::F64, _) => concat(data.iter().map(|x| x.to_le_bytes())),
            (_, 2) => concat(data.iter().map(|x| small(x).to_le_bytes())),
            (..) => data.iter().map(|x| small(x) as u8).collect(),
        };
        Tensor::from_bytes(dtype, dims, bytes)
    }

    /// A tensor of the integer type `dtype` with the low bits of `data`, or of truth values that say
    /// which of it is not 0.
    pub fn from_integers(dtype: DType, dims: &[usize], data: &[i128]) -> Result<Tensor, TensorError> {
        let bytes = match (dtype, dtype.size()) {
            (DType::I64, _) => return Tensor::new(dims, data.iter().map(|x| *x as i64).collect()),
            (DType::I32, _) => return Tensor::new(dims, data.iter().map(|x| *x as i32).collect()),
            (DType::Bool, _) => data.iter().map(|x| u8::from(*x != 0)).collect(),
            (_, 8) => concat(data.iter().map(|x| (*x as u64).to_le_bytes())),
            (_, 4) => concat(data.iter().map(|x| (*x as u32).to_le_bytes())),
            (_, 2) => concat(data.iter().map(|x| (*x as u16).to_le_bytes())),
            (..) => data.iter().map(|x| low_bits(dtype, *x)).collect(),
        };
        Tensor::from_bytes(dtype, dims, bytes)
    }
}

/// The low bits of `x` that a type of at most 8 bits keeps, sign-extended if it has a sign.
fn low_bits(dtype: DType, x: i128) -> u8 {
    let unused = 8 - dtype.bits();
    let high = (x as u8) << unused;
    if dtype.class() == Class::Signed { ((high as i8) >> unused) as u8 } else { high >> unused }
}

/// Whether a byte is a value of a type that does not use all its codes.
pub(crate) fn is_code(dtype: DType, byte: u8) -> bool {
    match dtype {
        DType::Bool => byte <= 1,
        DType::F4E2M1 => byte < 16,
        DType::I4 | DType::U4 | DType::I2 | DType::U2 => low_bits(dtype, byte.into()) == byte,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_keep_their_low_bits() -> Result<(), TensorError> {
        let of = |dtype| Tensor::from_integers(dtype, &[3], &[-1, 130, 1 << 40]).map(|t| t.to_i128s());
        assert_eq!(of(DType::I8)?, Some(vec![-1, -126, 0]));
        assert_eq!(of(DType::U8)?, Some(vec![255, 130, 0]));
        assert_eq!(of(DType::U64)?, Some(vec![u64::MAX.into(), 130, 1 << 40]));
        assert_eq!(of(DType::I4)?, Some(vec![-1, 2, 0]));
        assert_eq!(of(DType::U2)?, Some(vec![3, 2, 0]));
        assert_eq!(of(DType::Bool)?, Some(vec![1, 1, 1]));
        assert_eq!(Tensor::from_integers(DType::U64, &[1], &[-1])?.to_i64s(), None);
        Ok(())
    }

    #[test]
    fn floats_round_once() -> Result<(), TensorError> {
        let of = |dtype| Tensor::from_f64s(dtype, &[2], &[0.1, -3.0], Overflow::Special).map(|t| t.to_f64s());
        assert_eq!(of(DType::F64)?, [0.1, -3.0]);
        assert_eq!(of(DType::F32)?, [f64::from(0.1f32), -3.0]);
        assert_eq!(of(DType::F16)?, [0.0999755859375, -3.0]);
        assert_eq!(of(DType::BF16)?, [0.10009765625, -3.0]);
        Ok(())
    }

    #[test]
    fn bytes_beyond_a_narrow_type_are_refused() {
        assert!(Tensor::from_bytes(DType::U4, &[1], vec![16]).is_err());
        assert!(Tensor::from_bytes(DType::I4, &[1], vec![0xf8]).is_ok());
        assert!(Tensor::from_bytes(DType::I4, &[1], vec![0x08]).is_err());
    }
}
