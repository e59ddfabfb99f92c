//! Constants in a narrow form: what an artifact stores of weights that were rounded to it, and how they
//! become floats again. Nothing is lost, so their content hash is that of the floats.
//!
//! bfloat16 and 16-bit floats: the bits of every element, 2 bytes. 8-bit integers: one byte per element, zeros up to a
//! multiple of 4, then the scales, a row of n floats for every group of rows of the k×n weights.

use eec_ir::precision::{from_bf16, from_f16, from_int8, int8_scale, to_bf16, to_f16, to_int8};
use eec_ir::tensor::Storage;
use eec_ir::{Precision, Tensor};

/// How a constant is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Layout {
    pub(super) precision: Precision,
    /// Whether rows are the columns of the weights.
    pub(super) transposed: bool,
}

/// A matrix in a narrow form.
pub(crate) struct Narrow {
    layout: Layout,
    dims: [usize; 2],
    storage: Storage,
    offset: usize,
}

impl Layout {
    /// Rows and columns of the weights that a matrix of these dims holds.
    fn oriented(self, [rows, columns]: [usize; 2]) -> [usize; 2] {
        if self.transposed { [columns, rows] } else { [rows, columns] }
    }

    /// Bytes of the integers up to the scales, or of all bits, and elements of the scales.
    fn sizes(self, dims: [usize; 2]) -> Option<[usize; 2]> {
        let elements = dims[0].checked_mul(dims[1])?;
        let [k, n] = self.oriented(dims);
        match self.precision {
            Precision::F32 => Some([elements.checked_mul(4)?, 0]),
            Precision::F16 | Precision::Bf16 => Some([elements.checked_mul(2)?, 0]),
            Precision::Int8 => {
                Some([elements.checked_next_multiple_of(4)?, k.div_ceil(Precision::GROUP).checked_mul(n)?])
            }
        }
    }

    /// Bytes that a matrix takes; `None` if the number does not fit.
    pub(super) fn bytes(self, dims: [usize; 2]) -> Option<usize> {
        let [first, scales] = self.sizes(dims)?;
        first.checked_add(scales.checked_mul(4)?)
    }

    /// What is stored of a matrix of floats; `None` if it would not be the same floats again.
    pub(super) fn encode(self, tensor: &Tensor) -> Option<Vec<u8>> {
        let [rows, columns] = *tensor.dims() else { return None };
        let values = tensor.elements::<f32>()?;
        let mut rounded = values.to_vec();
        self.precision.round(&mut rounded, columns, self.transposed);
        if rounded.iter().zip(values.iter()).any(|(a, b)| a.to_bits() != b.to_bits()) {
            return None;
        }
        match self.precision {
            Precision::F32 => None,
            Precision::F16 => Some(values.iter().flat_map(|x| to_f16(*x).to_le_bytes()).collect()),
            Precision::Bf16 => Some(values.iter().flat_map(|x| to_bf16(*x).to_le_bytes()).collect()),
            Precision::Int8 => self.integers(&values, [rows, columns]),
        }
    }

    fn integers(self, values: &[f32], dims: [usize; 2]) -> Option<Vec<u8>> {
        let [k, n] = self.oriented(dims);
        let at = |row: usize, column: usize| if self.transposed { column * k + row } else { row * n + column };
        let mut scales = Vec::with_capacity(self.sizes(dims)?[1]);
        for first in (0..k).step_by(Precision::GROUP) {
            let rows = first..k.min(first + Precision::GROUP);
            scales.extend((0..n).map(|column| int8_scale(rows.clone().map(|row| values[at(row, column)]))));
        }
        let place = |i: usize| if self.transposed { [i % k, i / k] } else { [i / n, i % n] };
        let integer = |(i, x): (usize, &f32)| {
            let [row, column] = place(i);
            to_int8(*x, scales[row / Precision::GROUP * n + column]) as u8
        };
        let mut bytes: Vec<u8> = values.iter().enumerate().map(integer).collect();
        bytes.resize(self.sizes(dims)?[0], 0);
        bytes.extend(scales.iter().flat_map(|s| s.to_le_bytes()));
        Some(bytes)
    }
}

impl Narrow {
    /// The matrix whose bytes start at `offset`; `None` if there are too few or they are not aligned.
    pub(super) fn new(layout: Layout, dims: [usize; 2], storage: Storage, offset: usize) -> Option<Narrow> {
        let end = offset.checked_add(layout.bytes(dims)?)?;
        let bytes = (*storage).as_ref().get(offset..end)?;
        let aligned = bytes.as_ptr().addr().is_multiple_of(align_of::<f32>());
        aligned.then_some(Narrow { layout, dims, storage, offset })
    }

    /// Bytes that it takes.
    pub(super) fn stored_bytes(&self) -> usize {
        self.layout.bytes(self.dims).unwrap_or(usize::MAX)
    }

    /// Where its first byte is.
    #[cfg(unix)]
    pub(super) fn address(&self) -> usize {
        (*self.storage).as_ref().as_ptr().addr() + self.offset
    }

    /// How it is stored.
    pub(crate) fn precision(&self) -> Precision {
        self.layout.precision
    }

    /// Whether its groups run along rows: it holds the transposed weights.
    pub(crate) fn is_transposed(&self) -> bool {
        self.layout.transposed
    }

    /// Rows and columns as stored.
    pub(crate) fn dims(&self) -> [usize; 2] {
        self.dims
    }

    /// The integers or bits, and the scales.
    fn parts(&self) -> (&[u8], &[f32]) {
        let [first, scales] = self.layout.sizes(self.dims).unwrap_or_default();
        let (data, rest) = (*self.storage).as_ref()[self.offset..].split_at(first);
        // What follows bits need not be aligned for floats.
        let scales = if scales == 0 { &[] } else { bytemuck::cast_slice(&rest[..4 * scales]) };
        (data, scales)
    }

    /// The bits of all elements, if they are floats of 16 bits.
    pub(crate) fn bits(&self) -> &[u16] {
        bytemuck::cast_slice(self.parts().0)
    }

    /// The integers of all elements and their scales, if they have some.
    pub(crate) fn integers_and_scales(&self) -> (&[i8], &[f32]) {
        let (integers, scales) = self.parts();
        (bytemuck::cast_slice(&integers[..self.dims[0] * self.dims[1]]), scales)
    }

    fn values(&self) -> Vec<f32> {
        match self.layout.precision {
            Precision::F32 => Vec::new(),
            Precision::F16 => self.bits().iter().map(|b| from_f16(*b)).collect(),
            Precision::Bf16 => self.bits().iter().map(|b| from_bf16(*b)).collect(),
            Precision::Int8 => {
                let ([k, n], transposed) = (self.layout.oriented(self.dims), self.layout.transposed);
                let (integers, scales) = self.integers_and_scales();
                let scale = |i: usize| match transposed {
                    true => scales[i % k / Precision::GROUP * n + i / k],
                    false => scales[i / n / Precision::GROUP * n + i % n],
                };
                integers.iter().enumerate().map(|(i, q)| from_int8(*q, scale(i))).collect()
            }
        }
    }

    /// The floats.
    pub(crate) fn widened(&self) -> Option<Tensor> {
        Tensor::new(&self.dims, self.values()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(layout: Layout, [rows, columns]: [usize; 2]) -> Tensor {
        let mut values: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.37).sin()).collect();
        layout.precision.round(&mut values, columns, layout.transposed);
        Tensor::new(&[rows, columns], values).unwrap()
    }

    #[test]
    fn rounded_weights_come_back_bit_by_bit() {
        for precision in [Precision::F16, Precision::Bf16, Precision::Int8] {
            for transposed in [false, true] {
                let layout = Layout { precision, transposed };
                for dims in [[1, 1], [33, 7], [5, 70]] {
                    let tensor = rounded(layout, dims);
                    let bytes = layout.encode(&tensor).unwrap();
                    assert_eq!(Some(bytes.len()), layout.bytes(dims));
                    let narrow = Narrow::new(layout, dims, std::sync::Arc::new(bytes), 0).unwrap();
                    assert_eq!(narrow.widened(), Some(tensor));
                }
            }
        }
    }

    #[test]
    fn other_floats_and_missing_bytes_are_refused() {
        let layout = Layout { precision: Precision::Bf16, transposed: false };
        assert!(layout.encode(&Tensor::new(&[1, 2], vec![1.0f32, 1.001]).unwrap()).is_none());
        assert!(Narrow::new(layout, [3, 3], std::sync::Arc::new(vec![0u8; 17]), 0).is_none());
        assert!(Narrow::new(layout, [usize::MAX, 3], std::sync::Arc::new(vec![0u8; 17]), 0).is_none());
    }
}
