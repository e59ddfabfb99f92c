//! Kernels that sweep the planes of an image: depthwise convolution of 3×3, and windows of poolings.

use super::{End, Lanes};

/// The output plane of a depthwise convolution with a kernel of 3×3: every output is the sum over the
/// rows of the kernel, then over its columns, of weight times `src[row * src_row + columns[column]]`.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Plane<'a> {
    pub(in crate::kernels) src: *const f32,
    pub(in crate::kernels) src_row: usize,
    /// Dense.
    pub(in crate::kernels) dst: *mut f32,
    pub(in crate::kernels) rows: usize,
    pub(in crate::kernels) width: usize,
    pub(in crate::kernels) weights: *const f32,
    pub(in crate::kernels) columns: [usize; 3],
    pub(in crate::kernels) end: End<'a>,
}

/// A part of a row of a pooling, all of whose windows lie inside the image on the row's axis: output `i` is
/// made of `src[row * src_row + i * step + tap * tap_step]` over rows, then taps.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Windows {
    pub(in crate::kernels) src: *const f32,
    pub(in crate::kernels) src_row: usize,
    pub(in crate::kernels) rows: usize,
    pub(in crate::kernels) step: usize,
    pub(in crate::kernels) taps: usize,
    pub(in crate::kernels) tap_step: usize,
    pub(in crate::kernels) dst: *mut f32,
    pub(in crate::kernels) len: usize,
}

/// Computes one [`Plane`] with rows `STEP` apart, each output a chain over the taps in order.
///
/// # Safety
///
/// The instruction set of `V`; there are nine weights, whole vectors are readable at every tap of every
/// output, and `rows` × `width` elements writable.
#[inline(always)]
pub(super) unsafe fn plane<V: Lanes, const STEP: usize>(p: &Plane<'_>) {
    // SAFETY: the caller's promise; each block of rows is inside the plane.
    unsafe {
        let weights: [V; 9] = std::array::from_fn(|tap| V::splat(*p.weights.add(tap)));
        for row in (0..p.rows).step_by(4) {
            match p.rows - row {
                1 => rows::<V, STEP, 1>(p, row, &weights),
                2 => rows::<V, STEP, 2>(p, row, &weights),
                3 => rows::<V, STEP, 3>(p, row, &weights),
                _ => rows::<V, STEP, 4>(p, row, &weights),
            }
        }
    }
}

/// Computes `R` rows of a [`Plane`] from `row` on: every vector of the source is loaded once for all of
/// them.
///
/// # Safety
///
/// As for [`plane`], with so many rows.
#[inline(always)]
unsafe fn rows<V: Lanes, const STEP: usize, const R: usize>(p: &Plane<'_>, row: usize, weights: &[V; 9]) {
    for x in (0..p.width).step_by(V::LEN) {
        // SAFETY: the caller's promise covers every address formed here.
        unsafe {
            let mut acc = [V::zero(); R];
            for y in 0..(R - 1) * STEP + 3 {
                let src = p.src.add((row * STEP + y) * p.src_row + x);
                for (tap, &column) in p.columns.iter().enumerate() {
                    let value = V::load(src.add(column));
                    for (r, sum) in acc.iter_mut().enumerate() {
                        if r * STEP <= y && y < r * STEP + 3 {
                            *sum = weights[(y - r * STEP) * 3 + tap].fma(value, *sum);
                        }
                    }
                }
            }
            for (r, &sum) in acc.iter().enumerate() {
                p.end.of(sum).store_part(p.dst.add((row + r) * p.width + x), (p.width - x).min(V::LEN));
            }
        }
    }
}

/// Folds the inputs of every window into `start`, in their order.
///
/// # Safety
///
/// The instruction set of `V`; every input is readable, and `len` elements are writable.
#[inline(always)]
pub(super) unsafe fn windows<V: Lanes>(w: &Windows, start: f32, fold: impl Fn(V, V) -> V) {
    for i in (0..w.len).step_by(V::LEN) {
        let len = (w.len - i).min(V::LEN);
        // SAFETY: only the lanes of outputs are read and written.
        unsafe {
            let mut acc = V::splat(start);
            for row in 0..w.rows {
                for tap in 0..w.taps {
                    let src = w.src.add(row * w.src_row + i * w.step + tap * w.tap_step);
                    let value = match w.step {
                        1 => V::load_span(src, 0, len),
                        step => V::load_strided(src, step, 0, len),
                    };
                    acc = fold(acc, value);
                }
            }
            acc.store_part(w.dst.add(i), len);
        }
    }
}
