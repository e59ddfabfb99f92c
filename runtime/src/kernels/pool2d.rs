//! Max and average pooling over NCHW, with 1-D as height 1.

use std::ops::Range;

use super::conv::Window;
use super::simd::{Isa, Windows};
use crate::pool::Pool;

/// Window elements below which planes are not worth handing to another thread.
const GRAIN: usize = 1 << 14;

/// What a window of inputs becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolKind {
    /// The greatest input; NaN counts as less than anything, and so does the pad.
    Max,
    /// The mean of the inputs inside the image.
    Average,
    /// The mean with the pad as zeros: also with what of the window lies in the pad, though not
    /// with what lies beyond it.
    AverageWithPad {
        /// Rows and columns of pad after the image.
        pad_end: [usize; 2],
    },
}

/// A pooling of every plane. The output's sizes are the caller's, so rounding up is its choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolArgs {
    /// `[planes, size]`.
    pub(crate) x: *const f32,
    /// `[planes, out_size]`.
    pub(crate) y: *mut f32,
    /// Images times channels.
    pub(crate) planes: usize,
    pub(crate) window: Window,
    pub(crate) kind: PoolKind,
}

// SAFETY: `pool2d` writes disjoint planes and only reads the rest, which is valid meanwhile.
unsafe impl Sync for PoolArgs {}

/// Pools every plane. A window that meets no input gives negative infinity or zero.
///
/// # Safety
///
/// The pointers are valid for the shapes in [`PoolArgs`], the bounds of [`Window`] hold, and the
/// output overlaps nothing that is read.
pub(crate) unsafe fn pool2d(pool: &Pool, args: &PoolArgs) {
    // SAFETY: the caller's promise.
    unsafe { pool2d_for(Isa::get(), pool, args) }
}

/// [`pool2d`] on one instruction set.
///
/// # Safety
///
/// As for [`pool2d`].
unsafe fn pool2d_for(isa: &Isa, pool: &Pool, args: &PoolArgs) {
    let window = args.window;
    let work = window.out_plane().saturating_mul(window.taps().max(1));
    if work == 0 {
        return;
    }
    pool.run(args.planes, GRAIN.div_ceil(work), &|planes| {
        for plane in planes {
            // SAFETY: `plane` is one of the planes, and no other thread writes it.
            let (x, y) = unsafe {
                let x = args.x.add(plane * window.plane());
                let y = args.y.add(plane * window.out_plane());
                (std::slice::from_raw_parts(x, window.plane()), std::slice::from_raw_parts_mut(y, window.out_plane()))
            };
            pool_plane(isa, &window, args.kind, x, y);
        }
    });
}

fn pool_plane(isa: &Isa, window: &Window, kind: PoolKind, x: &[f32], y: &mut [f32]) {
    let inner = inner(window);
    let outer = [0..inner.start, inner.end..window.out_size[1]];
    for (row, out) in y.chunks_exact_mut(window.out_size[1]).enumerate() {
        match kind {
            PoolKind::Max => {
                sweep(isa.max_windows, window, x, row, inner.clone(), out);
                outer.iter().for_each(|columns| {
                    out[columns.clone()].fill(f32::NEG_INFINITY);
                    fold(window, x, row, columns.clone(), out, |best, x| if x > best { x } else { best });
                });
            }
            PoolKind::Average | PoolKind::AverageWithPad { .. } => {
                sweep(isa.sum_windows, window, x, row, inner.clone(), out);
                outer.iter().for_each(|columns| {
                    out[columns.clone()].fill(0.0);
                    fold(window, x, row, columns.clone(), out, |sum, x| sum + x);
                });
                divide(window, kind, row, out);
            }
        }
    }
}

/// The output columns whose windows lie inside the image's columns.
fn inner(window: &Window) -> Range<usize> {
    let width = window.out_size[1];
    let Some(last) = window.kernel[1].checked_sub(1) else { return 0..0 };
    let first = window.inside(1, window.input(1, 0, 0), window.stride[1], width);
    let last = window.inside(1, window.input(1, 0, last), window.stride[1], width);
    first.start..last.end.clamp(first.start, first.end.max(first.start))
}

/// The rows of taps that lie inside the image for an output row.
fn tap_rows(window: &Window, row: usize) -> Range<usize> {
    window.inside(0, window.input(0, row, 0), window.dilation[0], window.kernel[0])
}

/// Computes the output `columns` of a row, whose windows lie inside the image's columns.
fn sweep(kernel: unsafe fn(&Windows), window: &Window, x: &[f32], row: usize, columns: Range<usize>, out: &mut [f32]) {
    let taps = tap_rows(window, row);
    if columns.is_empty() {
        return;
    }
    let (line, size) = (window.input(0, row, taps.start), window.size[1]);
    let first = line * size as isize + window.input(1, columns.start, 0);
    let windows = Windows {
        src: x.as_ptr().wrapping_offset(first),
        src_row: window.dilation[0] * size,
        rows: taps.len(),
        step: window.stride[1],
        taps: window.kernel[1],
        tap_step: window.dilation[1],
        dst: out[columns.clone()].as_mut_ptr(),
        len: columns.len(),
    };
    // SAFETY: the rows and columns of every window are inside the plane, and the outputs inside the row;
    // the kernel is one of this CPU's.
    unsafe { kernel(&windows) };
}

/// Folds the inputs of the output `columns` of a row into them, in the order of the kernel's taps.
fn fold(
    window: &Window,
    x: &[f32],
    row: usize,
    columns: Range<usize>,
    out: &mut [f32],
    fold: impl Fn(f32, f32) -> f32,
) {
    for column in columns {
        let first = window.input(1, column, 0);
        for tap_y in tap_rows(window, row) {
            let line = &x[window.input(0, row, tap_y) as usize * window.size[1]..][..window.size[1]];
            for tap_x in window.inside(1, first, window.dilation[1], window.kernel[1]) {
                out[column] = fold(out[column], line[window.input(1, column, tap_x) as usize]);
            }
        }
    }
}

/// Turns the sums of a row into means.
fn divide(window: &Window, kind: PoolKind, row: usize, out: &mut [f32]) {
    let pads = match kind {
        PoolKind::AverageWithPad { pad_end } => Some(pad_end),
        PoolKind::Max | PoolKind::Average => None,
    };
    let rows = counted(window, 0, row, pads);
    for (column, sum) in out.iter_mut().enumerate() {
        let count = rows * counted(window, 1, column, pads);
        if count > 0 {
            *sum /= count as f32;
        }
    }
}

/// How many taps along `axis` count for the output `out`: those inside the image, or inside the image
/// with its pads.
fn counted(window: &Window, axis: usize, out: usize, pads: Option<[usize; 2]>) -> usize {
    let (first, step, taps) = (window.input(axis, out, 0), window.dilation[axis], window.kernel[axis]);
    match pads {
        None => window.inside(axis, first, step, taps).len(),
        Some(pad_end) => {
            let room = (window.size[axis] + pad_end[axis]) as isize - first;
            (room.max(0) as usize).div_ceil(step).min(taps)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Window =
        Window { size: [7, 9], out_size: [7, 9], kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };

    fn data(len: usize) -> Vec<f32> {
        (0..len as u32).map(|i| (i.wrapping_mul(2654435761) >> 9) as f32 / 4e6 - 1.5).collect()
    }

    /// The output at `i` by the plain loop over the taps.
    fn naive(window: &Window, kind: PoolKind, x: &[f32], i: usize) -> f32 {
        let (plane, pixel) = (i / window.out_plane(), i % window.out_plane());
        let out = [pixel / window.out_size[1], pixel % window.out_size[1]];
        let (mut best, mut sum, mut inside, mut padded) = (f32::NEG_INFINITY, 0.0, 0, 0);
        for tap in 0..window.taps() {
            let tap = [tap / window.kernel[1], tap % window.kernel[1]];
            let [y, x_] = [0, 1].map(|axis| window.input(axis, out[axis], tap[axis]));
            let [height, width] = window.size.map(|s| s as isize);
            if let PoolKind::AverageWithPad { pad_end } = kind {
                padded += usize::from(y < height + pad_end[0] as isize && x_ < width + pad_end[1] as isize);
            }
            if (0..height).contains(&y) && (0..width).contains(&x_) {
                let value = x[plane * window.plane() + (y * width + x_) as usize];
                (best, sum, inside) = (best.max(value), sum + value, inside + 1);
            }
        }
        match kind {
            PoolKind::Max => best,
            PoolKind::Average => sum / inside.max(1) as f32,
            PoolKind::AverageWithPad { .. } => sum / padded.max(1) as f32,
        }
    }

    fn check(window: Window) {
        let planes = 5;
        let x = data(planes * window.plane());
        for kind in [PoolKind::Max, PoolKind::Average, PoolKind::AverageWithPad { pad_end: [1, 2] }] {
            for (isa, threads) in Isa::available().into_iter().zip([1, 2].into_iter().cycle()) {
                let mut y = vec![f32::NAN; planes * window.out_plane()];
                let args = PoolArgs { x: x.as_ptr(), y: y.as_mut_ptr(), planes, window, kind };
                // SAFETY: both operands are valid for their sizes.
                unsafe { pool2d_for(isa, &Pool::new(threads), &args) };
                for (i, &got) in y.iter().enumerate() {
                    let want = naive(&window, kind, &x, i);
                    assert_eq!(got.to_bits(), want.to_bits(), "{kind:?} {window:?}: {i} is {got}, not {want}");
                }
            }
        }
    }

    #[test]
    fn windows_of_every_kind() {
        check(PLAIN);
        check(Window { size: [60, 70], out_size: [60, 70], ..PLAIN });
        check(Window { stride: [2, 2], out_size: [4, 5], ..PLAIN });
        check(Window { kernel: [2, 4], stride: [3, 1], out_size: [3, 8], pad: [0, 1], ..PLAIN });
        check(Window { dilation: [2, 3], out_size: [5, 5], ..PLAIN });
        check(Window { size: [1, 30], kernel: [1, 5], stride: [1, 3], out_size: [1, 10], pad: [0, 2], ..PLAIN });
        check(Window { kernel: [7, 9], out_size: [1, 1], pad: [0, 0], ..PLAIN });
    }

    #[test]
    fn rounding_up_and_windows_in_the_pad() {
        check(Window { stride: [2, 4], out_size: [5, 4], ..PLAIN });
        check(Window { kernel: [2, 2], stride: [2, 2], out_size: [9, 9], pad: [4, 5], ..PLAIN });
    }

    #[test]
    fn empty_sizes() {
        check(Window { size: [0, 9], ..PLAIN });
        check(Window { out_size: [0, 9], ..PLAIN });
        check(Window { kernel: [0, 3], ..PLAIN });
    }
}
