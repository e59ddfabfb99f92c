//! Narrow weights in the order in which the kernels read them.

use std::ops::Range;

use eec_ir::Precision;
use eec_ir::precision::{from_f16, int8_scale, to_bf16, to_f16, to_int8};

use super::{BF16_COLUMNS, BF16_ROWS, INT8_COLUMNS};
use crate::kernels::Strided;

/// A k×n matrix of weights as it is stored. Elements lie at strides from the pointer, scales densely:
/// a row of n for every [`Precision::GROUP`] rows.
#[derive(Clone, Copy)]
pub(crate) enum Matrix<'a> {
    /// Floats, not yet rounded or already.
    F32(Strided),
    /// Bits of 16-bit floats.
    F16 { bits: &'a [u16], row: usize, column: usize },
    /// Bits of bfloat16.
    Bf16 { bits: &'a [u16], row: usize, column: usize },
    /// Integers and scales.
    Int8 { integers: &'a [i8], row: usize, column: usize, scales: &'a [f32] },
}

/// Floats that the packed k×n matrix takes the memory of, in whole cache lines; `None` if the number does
/// not fit.
pub(crate) fn packed_len(precision: Precision, k: usize, n: usize) -> Option<usize> {
    let elements = |columns: usize, rows: usize| n.checked_next_multiple_of(columns)?.checked_mul(rows);
    match precision {
        Precision::F32 | Precision::F16 => crate::kernels::matmul::packed_len(k, n)?.checked_next_multiple_of(16),
        Precision::Bf16 => Some(elements(BF16_COLUMNS, k.checked_next_multiple_of(BF16_ROWS)?)? / 2),
        Precision::Int8 => {
            let scales = elements(INT8_COLUMNS, k.div_ceil(Precision::GROUP))?;
            (elements(INT8_COLUMNS, k)? / 4).checked_add(scales)
        }
    }
}

/// Packs a matrix into `dst`, [`packed_len`] zeros.
///
/// # Safety
///
/// A matrix of floats is readable for k×n elements.
///
/// # Panics
///
/// If another matrix has fewer elements, or `dst` fewer.
pub(crate) unsafe fn pack(matrix: &Matrix, precision: Precision, k: usize, n: usize, dst: &mut [f32]) {
    match precision {
        Precision::F32 => {
            if let Matrix::F32(source) = matrix {
                let len = crate::kernels::matmul::packed_len(k, n).unwrap_or_default();
                // SAFETY: the caller's promise.
                unsafe { crate::kernels::matmul::pack_b(*source, k, n, &mut dst[..len]) };
            }
        }
        // SAFETY: the caller's promise.
        Precision::F16 => unsafe { pack_f16(matrix, k, n, dst) },
        // SAFETY: the caller's promise.
        Precision::Bf16 => unsafe { pack_bf16(matrix, k, n, dst) },
        // SAFETY: the caller's promise.
        Precision::Int8 => unsafe { pack_int8(matrix, k, n, dst) },
    }
}

/// Floats again, rounded to what 16 bits hold.
///
/// # Safety
///
/// As for [`pack`].
unsafe fn pack_f16(matrix: &Matrix, k: usize, n: usize, dst: &mut [f32]) {
    let mut widened = vec![0.0; k * n];
    for (row, column) in places(0..k, 0..n, matrix.has_contiguous_rows()) {
        widened[row * n + column] = match *matrix {
            // SAFETY: the caller's promise.
            Matrix::F32(source) => from_f16(to_f16(unsafe { *source.at(row, column).ptr })),
            Matrix::F16 { bits, row: r, column: c } => from_f16(bits[row * r + column * c]),
            Matrix::Bf16 { .. } | Matrix::Int8 { .. } => unreachable!("weights of another form"),
        };
    }
    let source = Strided { ptr: widened.as_ptr(), row: n as isize, column: 1 };
    let len = crate::kernels::matmul::packed_len(k, n).unwrap_or_default();
    // SAFETY: it has k rows of n.
    unsafe { crate::kernels::matmul::pack_b(source, k, n, &mut dst[..len]) };
}

/// # Safety
///
/// As for [`pack`].
unsafe fn pack_bf16(matrix: &Matrix, k: usize, n: usize, dst: &mut [f32]) {
    // SAFETY: floats are two of any 16 bits each.
    let dst: &mut [u16] = unsafe { dst.align_to_mut().1 };
    let panel = k.next_multiple_of(BF16_ROWS) * BF16_COLUMNS;
    for (first, dst) in (0..n).step_by(BF16_COLUMNS).zip(dst.chunks_mut(panel)) {
        for (row, column) in places(0..k, first..n.min(first + BF16_COLUMNS), matrix.has_contiguous_rows()) {
            let bits = match *matrix {
                // SAFETY: the caller's promise.
                Matrix::F32(source) => to_bf16(unsafe { *source.at(row, column).ptr }),
                Matrix::Bf16 { bits, row: r, column: c } => bits[row * r + column * c],
                Matrix::F16 { .. } | Matrix::Int8 { .. } => unreachable!("weights of another form"),
            };
            dst[(row / 2 * BF16_COLUMNS + column - first) * 2 + row % 2] = bits;
        }
    }
}

/// # Safety
///
/// As for [`pack`].
unsafe fn pack_int8(matrix: &Matrix, k: usize, n: usize, dst: &mut [f32]) {
    let panels = n.div_ceil(INT8_COLUMNS);
    let (integers, scales) = dst.split_at_mut(panels * INT8_COLUMNS * k / 4);
    // SAFETY: a float is four of any 8 bits each.
    let integers: &mut [i8] = unsafe { integers.align_to_mut().1 };
    let panels =
        integers.chunks_mut(INT8_COLUMNS * k).zip(scales.chunks_mut(k.div_ceil(Precision::GROUP) * INT8_COLUMNS));
    for (first, (integers, scales)) in (0..n).step_by(INT8_COLUMNS).zip(panels) {
        let groups = integers.chunks_mut(INT8_COLUMNS * Precision::GROUP).zip(scales.chunks_mut(INT8_COLUMNS));
        for (group, (integers, scales)) in groups.enumerate() {
            let rows = group * Precision::GROUP..k.min((group + 1) * Precision::GROUP);
            // SAFETY: the caller's promise.
            unsafe { pack_group(matrix, n, rows, first, integers, scales) };
        }
    }
}

/// The rows of a group and the columns of a panel.
///
/// # Safety
///
/// As for [`pack`].
unsafe fn pack_group(
    matrix: &Matrix,
    n: usize,
    rows: Range<usize>,
    first: usize,
    integers: &mut [i8],
    scales: &mut [f32],
) {
    let columns = first..n.min(first + INT8_COLUMNS);
    let places = || places(rows.clone(), columns.clone(), matrix.has_contiguous_rows());
    let at = |row: usize, column: usize| (row - rows.start) * INT8_COLUMNS + column - first;
    match *matrix {
        Matrix::F32(source) => {
            let mut values = [0.0; INT8_COLUMNS * Precision::GROUP];
            // SAFETY: the caller's promise.
            places().for_each(|(row, column)| values[at(row, column)] = unsafe { *source.at(row, column).ptr });
            for column in columns.clone() {
                let of_column = || rows.clone().map(|row| at(row, column));
                let scale = int8_scale(of_column().map(|i| values[i]));
                of_column().for_each(|i| integers[i] = to_int8(values[i], scale));
                scales[column - first] = scale;
            }
        }
        Matrix::Int8 { integers: from, row: r, column: c, scales: of } => {
            places().for_each(|(row, column)| integers[at(row, column)] = from[row * r + column * c]);
            let of = &of[rows.start / Precision::GROUP * n..];
            scales[..columns.len()].copy_from_slice(&of[columns.clone()]);
        }
        Matrix::F16 { .. } | Matrix::Bf16 { .. } => unreachable!("weights of another form"),
    }
}

impl Matrix<'_> {
    /// Whether neighbours in a row are neighbours in memory.
    fn has_contiguous_rows(&self) -> bool {
        match self {
            Matrix::F32(source) => source.column == 1,
            Matrix::F16 { column, .. } | Matrix::Bf16 { column, .. } | Matrix::Int8 { column, .. } => *column == 1,
        }
    }
}

/// All places of a part, in the order of memory.
fn places(rows: Range<usize>, columns: Range<usize>, by_rows: bool) -> impl Iterator<Item = (usize, usize)> {
    let (outer, inner) = if by_rows { (rows, columns) } else { (columns, rows) };
    outer.flat_map(move |o| inner.clone().map(move |i| if by_rows { (o, i) } else { (i, o) }))
}
