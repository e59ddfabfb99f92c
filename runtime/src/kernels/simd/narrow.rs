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

/// # Safety
///
/// As for [`widen`].
#[inline(always)]
unsafe fn widen_int8<V: Lanes>(w: &Widen, integers: *const i8, scales: *const f32) {
    let mut dst = w.dst;
    for row in w.rows.clone() {
        let (from, scale) = (integers.wrapping_add(row * w.width), scales.wrapping_add(row / Precision::GROUP * w.width));
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
