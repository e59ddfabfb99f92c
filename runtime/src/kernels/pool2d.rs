//! Max and average pooling, with 1-D as height 1, of images whose channels are neighbours.

use super::image::{Image, Window};
use super::simd::{End, Isa, Stretch};
use crate::pool::Pool;

/// Window elements below which rows are not worth handing to another thread.
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

/// A pooling. The output's sizes are the caller's, so rounding up is its choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolArgs {
    /// `[images, channels, size]`, its channels neighbours.
    pub(crate) x: Image,
    /// `[images, out_size, channels]`, dense.
    pub(crate) y: *mut f32,
    pub(crate) images: usize,
    pub(crate) channels: usize,
    pub(crate) window: Window,
    pub(crate) kind: PoolKind,
}

// SAFETY: `pool2d` writes disjoint rows and only reads the rest, which is valid meanwhile.
unsafe impl Sync for PoolArgs {}

/// Pools every channel. A window that meets no input gives negative infinity or zero.
///
/// # Safety
///
/// The pointers are valid for the sizes in [`PoolArgs`], the channels of `x` are one element apart, the bounds
/// of [`Window`] hold, and the output overlaps nothing that is read.
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
    let [height, width] = args.window.out_size;
    let work = width.saturating_mul(args.channels).saturating_mul(args.window.taps().max(1));
    if work == 0 {
        return;
    }
    pool.run(args.images * height, GRAIN.div_ceil(work), &|rows| {
        for row in rows {
            // SAFETY: the row is one of the output, and no other thread writes it.
            unsafe { pool_row(isa, args, row / height, row % height) };
        }
    });
}

/// Computes row `y` of an image.
///
/// # Safety
///
/// As for [`pool2d`]; nobody else touches the row.
unsafe fn pool_row(isa: &Isa, args: &PoolArgs, image: usize, y: usize) {
    let PoolArgs { x, channels, window, kind, .. } = args;
    let kernel = if *kind == PoolKind::Max { isa.greatest } else { isa.sum };
    for outputs in window.stretches() {
        let position = (image * window.out_size[0] + y) * window.out_size[1] + outputs.start;
        let count = counted(window, *kind, 0, y) * counted(window, *kind, 1, outputs.start);
        let divisor = (*kind != PoolKind::Max && count > 0).then_some(count as f32);
        let stretch = Stretch {
            src: window.reach(x, image, y, &outputs).0,
            weights: std::ptr::null(),
            weights_row: 0,
            dst: args.y.wrapping_add(position * channels),
            outputs: outputs.len(),
            channels: *channels,
            end: End { divisor, ..End::NONE },
        };
        // SAFETY: the taps are inside the image, and the outputs the caller's.
        unsafe { kernel(&stretch) };
    }
}

/// How many taps along `axis` count for the output `out`: those inside the image, or inside the image
/// with its pads.
fn counted(window: &Window, kind: PoolKind, axis: usize, out: usize) -> usize {
    let PoolKind::AverageWithPad { pad_end } = kind else { return window.taps_inside(axis, out).len() };
    let room = (window.size[axis] + pad_end[axis]) as isize - window.input(axis, out, 0);
    (room.max(0) as usize).div_ceil(window.dilation[axis]).min(window.kernel[axis])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vector and a part of one.
    const CHANNELS: usize = 19;

    const PLAIN: Window =
        Window { size: [7, 9], out_size: [7, 9], kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };

    fn data(len: usize) -> Vec<f32> {
        (0..len as u32).map(|i| (i.wrapping_mul(2654435761) >> 9) as f32 / 4e6 - 1.5).collect()
    }

    /// The output at `i` by the plain loop over the taps.
    fn naive(window: &Window, kind: PoolKind, x: &[f32], i: usize) -> f32 {
        let (channel, position) = (i % CHANNELS, i / CHANNELS);
        let (image, pixel) = (position / window.out_plane(), position % window.out_plane());
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
                let value = x[((image as isize * height + y) * width + x_) as usize * CHANNELS + channel];
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
        let images = 2;
        let row = window.size[1] * CHANNELS;
        let x = data(images * window.size[0] * row);
        let [image, row, column] = [window.size[0] * row, row, CHANNELS].map(|n| n as isize);
        let source = Image { ptr: x.as_ptr(), image, channel: 1, row, column };
        for kind in [PoolKind::Max, PoolKind::Average, PoolKind::AverageWithPad { pad_end: [1, 2] }] {
            for (isa, threads) in Isa::available().into_iter().zip([1, 2].into_iter().cycle()) {
                let mut y = vec![f32::NAN; images * window.out_plane() * CHANNELS];
                let args = PoolArgs { x: source, y: y.as_mut_ptr(), images, channels: CHANNELS, window, kind };
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
