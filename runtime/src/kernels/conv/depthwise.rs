//! One filter for each channel: vectors of channels go over the windows of neighbouring outputs, and taps
//! outside the image are left out.

use super::ConvArgs;
use super::copy::copy_positions;
use crate::kernels::epilogue::Links;
use crate::kernels::image::{Image, Window};
use crate::kernels::scratch::with_scores;
use crate::kernels::simd::{End, Isa, Stretch};
use crate::pool::Pool;

/// Multiply-adds below which rows are not worth handing to another thread.
const GRAIN: usize = 1 << 15;

/// Computes a convolution with one filter for each channel.
///
/// # Safety
///
/// As for [`super::conv`], with packed weights.
pub(super) unsafe fn run(pool: &Pool, isa: &Isa, args: &ConvArgs<'_>) {
    let (size, channels) = (args.window.size, args.filters.in_channels);
    if args.x.channel == 1 {
        // SAFETY: the caller's promise.
        return unsafe { Rows { isa, args, x: args.x, first: 0 }.run(pool, args.images) };
    }
    let (row, column) = (size[1] * channels, channels as isize);
    with_scores(size[0] * row, |copy| {
        for image in 0..args.images {
            let turned = Turned { isa, args, image, to: copy.as_mut_ptr() };
            // SAFETY: rows are disjoint and inside the copy.
            pool.run(size[0], GRAIN.div_ceil(row.max(1)), &|rows| rows.for_each(|y| unsafe { turned.row(y) }));
            let x = Image { ptr: copy.as_ptr(), image: 0, channel: 1, row: row as isize, column };
            // SAFETY: the copy is the image; the rest is the caller's promise.
            unsafe { Rows { isa, args, x, first: image }.run(pool, 1) };
        }
    });
}

/// A copy of an image with its channels last, as the threads share it.
struct Turned<'a> {
    isa: &'a Isa,
    args: &'a ConvArgs<'a>,
    image: usize,
    to: *mut f32,
}

// SAFETY: threads write disjoint rows and only read the rest, which is valid meanwhile.
unsafe impl Sync for Turned<'_> {}

impl Turned<'_> {
    /// Copies a row.
    ///
    /// # Safety
    ///
    /// The row is one of the image and inside the copy, and nobody else touches it there.
    unsafe fn row(&self, y: usize) {
        let (x, channels, width) = (&self.args.x, self.args.filters.in_channels, self.args.window.size[1]);
        let len = width * channels;
        // SAFETY: the caller's promise.
        unsafe {
            let to = std::slice::from_raw_parts_mut(self.to.add(y * len), len);
            copy_positions(self.isa, x, x.at(self.image, 0, y as isize, 0), width, channels, to);
        }
    }
}

/// The rows of the output, as the threads share them.
struct Rows<'a> {
    isa: &'a Isa,
    args: &'a ConvArgs<'a>,
    /// The images, channels last.
    x: Image,
    /// Which image of the output the first of `x` is.
    first: usize,
}

// SAFETY: threads write disjoint rows and only read the rest, which is valid meanwhile.
unsafe impl Sync for Rows<'_> {}

impl Rows<'_> {
    /// Computes the outputs of so many images of `x`.
    ///
    /// # Safety
    ///
    /// `x` is readable for them, and the caller's promise holds for the rest.
    unsafe fn run(&self, pool: &Pool, images: usize) {
        let Window { out_size: [height, width], .. } = self.args.window;
        let work = width.saturating_mul(self.args.filters.out_channels).saturating_mul(self.args.window.taps());
        pool.run(images * height, GRAIN.div_ceil(work.max(1)), &|items| {
            for item in items {
                // SAFETY: items are disjoint rows of the output.
                unsafe { self.row(item / height, item % height) };
            }
        });
    }

    /// Computes row `y` of an image.
    ///
    /// # Safety
    ///
    /// The row is one of the output, and nobody else touches it.
    unsafe fn row(&self, image: usize, y: usize) {
        let Rows { isa, args, x, first } = self;
        let (window, channels) = (&args.window, args.filters.out_channels);
        let links = args.epilogue.map_or(Links::NONE, |e| e.links([0, 0, first + image]));
        for outputs in window.stretches() {
            let (src, [row, column]) = window.reach(x, image, y, &outputs);
            let position = y * window.out_size[1] + outputs.start;
            let stretch = Stretch {
                src,
                weights: args.packed.wrapping_add((row * window.kernel[1] + column) * channels),
                weights_row: window.kernel[1] * channels,
                dst: args.output(first + image, position),
                outputs: outputs.len(),
                channels,
                end: End { bias: args.bias, divisor: None, links: links.all(), position, clip: links.clip },
            };
            // SAFETY: the taps are inside the image, and the outputs the caller's.
            unsafe { (isa.stencil)(&stretch) };
        }
        let row = y * window.out_size[1]..(y + 1) * window.out_size[1];
        // SAFETY: the row is the caller's.
        unsafe { args.finish(isa, first + image, [row, 0..channels]) };
    }
}
