//! 2-D convolution over NCHW, with 1-D as height 1: an implicit matmul whose B is made of patches,
//! packed slice by slice while they are used; depthwise convolution has a form of its own.

use std::ops::Range;

use super::depthwise;
use super::epilogue::{Block, Finish, Links};
use super::gemm::{self, Operands, Problem, Shape, Slice, pack};
use super::simd::{Isa, Segment};
use super::{Bias, Strided};
use crate::pool::Pool;

/// A convolution. Pairs are (height, width); sizes of the output are the caller's, so only the pads
/// before the image count, and those after it may differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvArgs<'a> {
    /// `[images, in_channels, size]`.
    pub(crate) x: *const f32,
    /// `[out_channels, in_channels / groups, kernel]`.
    pub(crate) w: *const f32,
    /// One value per output channel, or null.
    pub(crate) bias: *const f32,
    /// `[images, out_channels, out_size]`.
    pub(crate) y: *mut f32,
    pub(crate) images: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    /// Divides both channel counts; at least one.
    pub(crate) groups: usize,
    pub(crate) window: Window,
    /// What follows: its matrices are the planes of an image, one row per channel, and its last batch axis
    /// the images.
    pub(crate) epilogue: Option<Finish<'a>>,
}

/// How a window moves over an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) size: [usize; 2],
    pub(crate) out_size: [usize; 2],
    pub(crate) kernel: [usize; 2],
    /// At least one.
    pub(crate) stride: [usize; 2],
    /// At least one.
    pub(crate) dilation: [usize; 2],
    /// Rows and columns before the image.
    pub(crate) pad: [usize; 2],
}

impl Window {
    /// Elements of an input plane.
    pub(super) fn plane(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Elements of an output plane.
    pub(super) fn out_plane(&self) -> usize {
        self.out_size[0] * self.out_size[1]
    }

    /// Elements of the kernel.
    pub(super) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// The input coordinate on `axis` that output `out` meets at `tap`; negative in the pad.
    pub(super) fn input(&self, axis: usize, out: usize, tap: usize) -> isize {
        (out * self.stride[axis] + tap * self.dilation[axis]) as isize - self.pad[axis] as isize
    }

    /// Which of `count` steps of `step` from `first` land inside the image on `axis`.
    pub(super) fn inside(&self, axis: usize, first: isize, step: usize, count: usize) -> Range<usize> {
        let steps = |distance: isize| (distance.max(0) as usize).div_ceil(step).min(count);
        let (lo, hi) = (steps(-first), steps(self.size[axis] as isize - first));
        lo.min(hi)..hi
    }

    /// Whether each output meets just the input of the same coordinates.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.pad == [0, 0] && self.size == self.out_size
    }
}

/// Computes a convolution.
///
/// # Safety
///
/// The pointers are valid for the shapes in [`ConvArgs`], its stated bounds hold, and the output
/// overlaps nothing that is read.
pub(crate) unsafe fn conv(pool: &Pool, args: &ConvArgs<'_>) {
    // SAFETY: the caller's promise.
    unsafe { conv_for(Isa::get(), pool, args) }
}

/// [`conv`] on one instruction set.
///
/// # Safety
///
/// As for [`conv`].
unsafe fn conv_for(isa: &Isa, pool: &Pool, args: &ConvArgs<'_>) {
    if args.in_channels == args.groups
        && args.out_channels <= args.groups.saturating_mul(depthwise::MAX_MULTIPLE)
        && let Some(padded) = depthwise::Padded::new(args.window, isa.lanes)
    {
        // SAFETY: the caller's promise, and each group has one input channel.
        return unsafe { depthwise::run(pool, isa, args, padded) };
    }
    let problem = Patches(args);
    let shape = Shape {
        batches: args.groups * args.images,
        m: problem.group_outputs(),
        k: problem.depth(),
        n: args.window.out_plane(),
    };
    // SAFETY: the caller's promise.
    unsafe { gemm::run(pool, isa, shape, &problem) }
}

/// Weights times patches, one product per group and image, groups slowest so that a group's weights
/// serve all images while they are near.
struct Patches<'a>(&'a ConvArgs<'a>);

// SAFETY: threads write disjoint parts of the output and only read the rest, which is valid meanwhile.
unsafe impl Sync for Patches<'_> {}

impl Patches<'_> {
    fn group_inputs(&self) -> usize {
        self.0.in_channels / self.0.groups
    }

    fn group_outputs(&self) -> usize {
        self.0.out_channels / self.0.groups
    }

    /// The length of a sum: elements of a patch.
    fn depth(&self) -> usize {
        self.group_inputs() * self.0.window.taps()
    }

    /// The group and image of a product.
    fn place(&self, batch: usize) -> (usize, usize) {
        (batch / self.0.images, batch % self.0.images)
    }

    /// The first input plane of a product.
    fn planes(&self, batch: usize) -> *const f32 {
        let (group, image) = self.place(batch);
        let plane = image * self.0.in_channels + group * self.group_inputs();
        self.0.x.wrapping_add(plane * self.0.window.plane())
    }

    /// Packs the slice's patches into rows of `width`; lanes beyond its columns are left as they are.
    ///
    /// # Safety
    ///
    /// The slice is inside B, and `dst` holds its rows.
    unsafe fn pack(&self, isa: &Isa, slice: &Slice, dst: &mut [f32], width: usize) {
        let (window, out_width) = (&self.0.window, self.0.window.out_size[1]);
        let mut column = slice.columns.start;
        while column < slice.columns.end {
            let (y, x) = (column / out_width, column % out_width);
            let len = isa.lanes.min(out_width - x).min(slice.columns.end - column);
            for tap in 0..window.taps() {
                let run = Run { y, x, len, tap, column: column - slice.columns.start };
                // SAFETY: the run is a part of the slice.
                unsafe { self.pack_run(isa, slice, run, dst, width) };
            }
            column += len;
        }
    }

    /// Packs one tap of one run for all channels of the slice.
    ///
    /// # Safety
    ///
    /// As for [`Patches::pack`]; the run is inside the slice.
    unsafe fn pack_run(&self, isa: &Isa, slice: &Slice, run: Run, dst: &mut [f32], width: usize) {
        let window = &self.0.window;
        let taps = window.taps();
        // Row `channel * taps + tap` of B holds this tap of that channel.
        let first = slice.ks.start.saturating_sub(run.tap).div_ceil(taps);
        let end = slice.ks.end.saturating_sub(run.tap).div_ceil(taps);
        if first >= end {
            return;
        }
        let [tap_y, tap_x] = [run.tap / window.kernel[1], run.tap % window.kernel[1]];
        let (y, x) = (window.input(0, run.y, tap_y), window.input(1, run.x, tap_x));
        let row_is_inside = y >= 0 && y < window.size[0] as isize;
        let inside = if row_is_inside { window.inside(1, x, window.stride[1], run.len) } else { 0..0 };
        let src = y * window.size[1] as isize + x + (first * window.plane()) as isize;
        let segment = Segment {
            src: self.planes(slice.batch).wrapping_offset(src),
            src_row: window.plane() as isize,
            step: window.stride[1],
            dst: dst[(first * taps + run.tap - slice.ks.start) * width + run.column..].as_mut_ptr(),
            dst_row: (taps * width) as isize,
            count: end - first,
            len: run.len,
            lo: inside.start,
            hi: inside.end,
        };
        // SAFETY: only lanes inside the image are read; each row ends inside its row of `dst`.
        unsafe { (isa.copy)(&segment) };
    }
}

/// At most a vector of neighbouring outputs of one row, seen through one tap of the kernel.
#[derive(Clone, Copy)]
struct Run {
    y: usize,
    x: usize,
    len: usize,
    tap: usize,
    /// Its first column in the slice.
    column: usize,
}

impl Problem for Patches<'_> {
    const PACKS: bool = true;

    fn operands(&self, batch: usize) -> Operands {
        let args = self.0;
        let (group, image) = self.place(batch);
        let channel = group * self.group_outputs();
        let (depth, plane) = (self.depth(), args.window.out_plane());
        let ptr = args.w.wrapping_add(channel * depth);
        let bias = if args.bias.is_null() { Bias::None } else { Bias::PerRow(args.bias) };
        Operands {
            a: Strided { ptr, row: depth as isize, column: 1 },
            c: args.y.wrapping_add((image * args.out_channels + channel) * plane),
            c_row: plane as isize,
            scale: 1.0,
            bias: bias.at(channel, 0),
            links: args.epilogue.map_or(Links::NONE, |e| e.links([0, 0, image]).at(channel, 0)),
        }
    }

    unsafe fn slice(&self, isa: &Isa, slice: &Slice, scratch: &mut [f32]) -> (*const f32, isize) {
        let columns = slice.columns.len();
        let width = columns.next_multiple_of(isa.lanes);
        let window = &self.0.window;
        // SAFETY: the slice is inside B, and scratch holds a slice of a strip of whole vectors.
        unsafe {
            if window.is_pointwise() {
                let planes = Strided { ptr: self.planes(slice.batch), row: window.plane() as isize, column: 1 };
                let src = planes.at(slice.ks.start, slice.columns.start);
                pack(isa, src, slice.ks.len(), columns, scratch.as_mut_ptr(), width, width);
            } else {
                self.pack(isa, slice, scratch, width);
            }
        }
        (scratch.as_ptr(), width as isize)
    }

    unsafe fn finish(&self, isa: &Isa, batch: usize, [rows, columns]: [Range<usize>; 2], c: *mut f32) {
        let Some(epilogue) = &self.0.epilogue else { return };
        let (group, image) = self.place(batch);
        let channel = group * self.group_outputs();
        let rows = channel + rows.start..channel + rows.end;
        let block = Block { batch: [0, 0, image], rows, columns, c, c_row: self.0.window.out_plane() as isize };
        // SAFETY: the caller's promise.
        unsafe { epilogue.apply(isa, &block) }
    }
}

#[cfg(test)]
mod tests;
