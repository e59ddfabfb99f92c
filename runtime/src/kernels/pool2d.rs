//! Max and average pooling over NCHW, with 1-D as height 1.

use super::conv::Window;
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
            pool_plane(&window, args.kind, x, y);
        }
    });
}

fn pool_plane(window: &Window, kind: PoolKind, x: &[f32], y: &mut [f32]) {
    for (row, out) in y.chunks_exact_mut(window.out_size[1]).enumerate() {
        match kind {
            PoolKind::Max => {
                out.fill(f32::NEG_INFINITY);
                sweep(window, x, row, out, |best, x| if x > best { x } else { best });
            }
            PoolKind::Average | PoolKind::AverageWithPad { .. } => {
                out.fill(0.0);
                sweep(window, x, row, out, |sum, x| sum + x);
                divide(window, kind, row, out);
            }
        }
    }
}

/// Folds the inputs of each output of a row into it, in the order of the kernel's taps.
fn sweep(window: &Window, x: &[f32], row: usize, out: &mut [f32], fold: impl Fn(f32, f32) -> f32) {
    let [height, width] = window.kernel;
    let (size, stride) = (window.size[1], window.stride[1]);
    for tap_y in window.inside(0, window.input(0, row, 0), window.dilation[0], height) {
        let line = &x[window.input(0, row, tap_y) as usize * size..][..size];
        for tap_x in 0..width {
            let first = window.input(1, 0, tap_x);
            let inside = window.inside(1, first, stride, out.len());
            if inside.is_empty() {
                continue;
            }
            let line = &line[(first + (inside.start * stride) as isize) as usize..];
            let out = &mut out[inside];
            match stride {
                1 => out.iter_mut().zip(line).for_each(|(y, &x)| *y = fold(*y, x)),
                _ => out.iter_mut().zip(line.iter().step_by(stride)).for_each(|(y, &x)| *y = fold(*y, x)),
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
            for threads in [1, 2] {
                let mut y = vec![f32::NAN; planes * window.out_plane()];
                let args = PoolArgs { x: x.as_ptr(), y: y.as_mut_ptr(), planes, window, kind };
                // SAFETY: both operands are valid for their sizes.
                unsafe { pool2d(&Pool::new(threads), &args) };
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
