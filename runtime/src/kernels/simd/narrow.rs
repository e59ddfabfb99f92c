//! Narrow weights made floats again: bfloat16 by shifting, 8-bit integers by their scales. Both are exact.

use std::ops::Range;

use eec_ir::Precision;

use super::Lanes;

/// Where the packed weights of a panel are.
#[derive(Clone, Copy)]
pub(in crate::kernels) enum Panel {
    /// Pairs of rows, interleaved: for every column two bfloat16, of an even row and the odd one after it.
    Bf16(*const u32),
    /// Rows of integers, and a row of scales for every [`Precision::GROUP`] of them.
    Int8(*const i8, *const f32),
}

/// Rows `rows` of a panel, `width` columns apart, of which the first `columns` from the panel's pointers on
/// go to `dst`.
#[derive(Clone)]
pub(in crate::kernels) struct Widen {
    pub(in crate::kernels) panel: Panel,
    pub(in crate::kernels) width: usize,
    pub(in crate::kernels) rows: Range<usize>,
    /// Whole vectors.
    pub(in crate::kernels) columns: usize,
    pub(in crate::kernels) dst: *mut f32,
    pub(in crate::kernels) dst_row: usize,
}

/// Widens one part of a panel.
///
/// # Safety
///
/// The instruction set of `V`; the panel has the rows and columns, `dst` has as many.
#[inline(always)]
pub(super) unsafe fn widen<V: Lanes>(w: &Widen) {
    // SAFETY: the caller's promise.
    unsafe {
        match w.panel {
            Panel::Bf16(pairs) => widen_bf16::<V>(w, pairs),
            Panel::Int8(integers, scales) => widen_int8::<V>(w, integers, scales),
        }
    }
}

/// A row of A times a panel of integers.
#[derive(Clone)]
pub(in crate::kernels) struct Sweep {
    pub(in crate::kernels) a: *const f32,
    /// From one element of A to the next.
    pub(in crate::kernels) a_step: isize,
    pub(in crate::kernels) integers: *const i8,
    pub(in crate::kernels) scales: *const f32,
    /// Columns of the panel and of the result, a multiple of four vectors.
    pub(in crate::kernels) width: usize,
    pub(in crate::kernels) k: usize,
    pub(in crate::kernels) sums: *mut f32,
}

/// How far ahead of their use integers are fetched, in bytes.
const AHEAD: usize = 4096;

/// Computes one row of sums, each the chain over k that a tile of widened weights computes.
///
/// # Safety
///
/// The instruction set of `V`; A has k elements, the panel k rows and their scales, the sums its width.
#[inline(always)]
pub(super) unsafe fn sweep<V: Lanes>(s: &Sweep) {
    const NV: usize = 4;
    for column in (0..s.width).step_by(NV * V::LEN) {
        // SAFETY: the caller's promise; rows and columns are inside the panel.
        unsafe {
            let mut sums = [V::zero(); NV];
            for first in (0..s.k).step_by(Precision::GROUP) {
                let mut scales = [V::zero(); NV];
                for (j, scale) in scales.iter_mut().enumerate() {
                    *scale = V::load(s.scales.add(first / Precision::GROUP * s.width + column + j * V::LEN));
                }
                for row in first..s.k.min(first + Precision::GROUP) {
                    let x = V::splat(*s.a.offset(row as isize * s.a_step));
                    let from = s.integers.add(row * s.width + column);
                    V::prefetch(from.wrapping_add(AHEAD).cast());
                    for (j, sum) in sums.iter_mut().enumerate() {
                        let weight = V::load_i8(from.add(j * V::LEN)).fma(scales[j], V::zero());
                        *sum = x.fma(weight, *sum);
                    }
                }
            }
            for (j, sum) in sums.into_iter().enumerate() {
                sum.store(s.sums.add(column + j * V::LEN));
            }
        }
    }
}

/// # Safety
///
/// As for [`widen`].
#[inline(always)]
unsafe fn widen_int8<V: Lanes>(w: &Widen, integers: *const i8, scales: *const f32) {
    let mut dst = w.dst;
    for row in w.rows.clone() {
        let (from, scale) =
            (integers.wrapping_add(row * w.width), scales.wrapping_add(row / Precision::GROUP * w.width));
        for column in (0..w.columns).step_by(V::LEN) {
            // SAFETY: the row and its scales are in the panel, the column in both.
            unsafe {
                let x = V::load_i8(from.add(column)).fma(V::load(scale.add(column)), V::zero());
                x.store(dst.add(column));
            }
        }
        dst = dst.wrapping_add(w.dst_row);
    }
}

/// # Safety
///
/// As for [`widen`].
#[inline(always)]
unsafe fn widen_bf16<V: Lanes>(w: &Widen, pairs: *const u32) {
    for pair in w.rows.start / 2..w.rows.end.div_ceil(2) {
        let from = pairs.wrapping_add(pair * w.width);
        for column in (0..w.columns).step_by(V::LEN) {
            // SAFETY: the pair of rows is in the panel; rows outside of those wanted are not stored.
            unsafe {
                for (half, x) in V::load_pairs(from.add(column)).into_iter().enumerate() {
                    let row = 2 * pair + half;
                    if w.rows.contains(&row) {
                        x.store(w.dst.add((row - w.rows.start) * w.dst_row + column));
                    }
                }
            }
        }
    }
}
