//! Elements as 32-bit words: floats by their bits, integers and truth values as `i32`; weights also as two 16-bit floats.

use std::borrow::Cow;

use eec_ir::precision::to_f16;
use eec_ir::{DType, Tensor};

/// Whether elements of this type have a form on a GPU.
pub(super) fn has_words(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::I64 | DType::I32 | DType::Bool)
}

/// The tensor's elements as the bytes of words, or which integer does not fit.
pub(super) fn encode(tensor: &Tensor) -> Result<Cow<'_, [u8]>, String> {
    let words: Vec<i32> = match tensor.dtype() {
        DType::F32 | DType::I32 => return Ok(Cow::Borrowed(tensor.bytes())),
        DType::Bool => tensor.bytes().iter().map(|b| i32::from(*b != 0)).collect(),
        DType::I64 => tensor.to_i64s().unwrap_or_default().into_iter().map(narrowed).collect::<Result<_, _>>()?,
        other => return Err(format!("elements of type {other} have no form on a GPU")),
    };
    Ok(Cow::Owned(bytemuck::cast_slice(&words).to_vec()))
}

/// The tensor's floats, rounded to 16 bits, two in a word; a last one alone is followed by a zero.
pub(super) fn halves(tensor: &Tensor) -> Result<Cow<'_, [u8]>, String> {
    let floats = tensor.elements::<f32>().ok_or("holds no floats")?;
    let mut bytes: Vec<u8> = floats.iter().flat_map(|x| to_f16(*x).to_le_bytes()).collect();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(Cow::Owned(bytes))
}

fn narrowed(value: i64) -> Result<i32, String> {
    i32::try_from(value).map_err(|_| format!("holds {value}, which does not fit into the 32 bits of a GPU's integers"))
}

/// The tensor whose elements are these words, given as bytes.
pub(super) fn decode(dtype: DType, dims: &[usize], bytes: &[u8]) -> Result<Tensor, String> {
    let words = || bytes.as_chunks().0.iter().map(|w| i32::from_le_bytes(*w));
    let bytes = match dtype {
        DType::F32 | DType::I32 => bytes.to_vec(),
        DType::Bool => words().map(|w| u8::from(w != 0)).collect(),
        DType::I64 => words().flat_map(|w| i64::from(w).to_le_bytes()).collect(),
        other => return Err(format!("elements of type {other} have no form on a GPU")),
    };
    Tensor::from_bytes(dtype, dims, bytes).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_return_from_words() {
        let tensors = [
            Tensor::vector(vec![1.5f32, f32::NEG_INFINITY, -0.0]),
            Tensor::vector(vec![i64::from(i32::MIN), -1, 7]),
            Tensor::vector(vec![-3i32, 4]),
            Tensor::vector(vec![1u8, 0, 1]),
        ];
        for tensor in tensors {
            let words = encode(&tensor).expect("it fits").into_owned();
            assert_eq!(words.len(), 4 * tensor.len());
            assert_eq!(decode(tensor.dtype(), tensor.dims(), &words).expect("as many words"), tensor);
        }
    }

    #[test]
    fn halves_stand_in_pairs() {
        let words = halves(&Tensor::vector(vec![1.0f32, -2.0, 0.5])).expect("floats").into_owned();
        assert_eq!(words, [0x00, 0x3c, 0x00, 0xc0, 0x00, 0x38, 0, 0]);
        assert!(halves(&Tensor::vector(vec![1i32])).is_err());
    }

    #[test]
    fn an_integer_that_does_not_fit_is_named() {
        let error = encode(&Tensor::vector(vec![1i64, 1 << 31])).expect_err("it does not fit");
        assert!(error.contains("2147483648"), "{error}");
    }
}
