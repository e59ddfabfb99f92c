//! Depthwise convolution: each plane is copied once into a padded form in which every tap of a
//! vector of outputs is one contiguous load, and then swept row by row.

use std::ops::Range;

use super::conv::{ConvArgs, Window};
use super::epilogue::Links;
use super::scratch::{with_floats, with_offsets};
use super::simd::{End, Isa, Plane, Segment, Stencil};
use crate::pool::Pool;

/// Output channels per input channel up to which this form beats the matmul.
pub(super) const MAX_MULTIPLE: usize = 2;

/// Elements that a padded plane may have for each element of the planes read and written, and in any
/// case: wide dilations and strides would need far more than the image has.
const MAX_GROWTH: usize = 8;
const FREE_ELEMENTS: usize = 1 << 14;

/// Multiply-adds below which planes are not worth handing to another thread.
const GRAIN: usize = 1 << 15;

/// The padded form of a plane. A row holds one phase after another, `stride` of them: phase `p` has
/// the columns `p`, `p + stride`, … of the padded input row, so that neighbouring outputs meet
/// neighbouring elements whatever the stride.
#[derive(Clone, Copy)]
pub(super) struct Padded {
    window: Window,
    rows: usize,
    phase: usize,
    len: usize,
}

impl Padded {
    /// The layout for a window, with room for whole vectors of `lanes`; `None` if the output is empty
    /// or the padded plane would be out of proportion.
    pub(super) fn new(window: Window, lanes: usize) -> Option<Padded> {
        // A kernel without taps sums nothing; as one tap of weight nothing it would need weights.
        let window = Window { kernel: window.kernel.map(|k| k.max(1)), ..window };
        let reach = |axis: usize| (window.kernel[axis] - 1).checked_mul(window.dilation[axis]);
        let rows = window.out_size[0].checked_sub(1)?.checked_mul(window.stride[0])?.checked_add(reach(0)?)?;
        let rows = rows.checked_add(1)?;
        let phase = window.out_size[1].checked_add(reach(1)? / window.stride[1])?;
        // A vector may begin at the last element.
        let len = rows.checked_mul(phase)?.checked_mul(window.stride[1])?.checked_add(lanes)?;
        let most = window.plane().checked_add(window.out_plane())?.saturating_mul(MAX_GROWTH).max(FREE_ELEMENTS);
        (len <= most).then_some(Padded { window, rows, phase, len })
    }

    fn row(&self) -> usize {
        self.phase * self.window.stride[1]
    }

    /// Where the taps of the first output are, in the order of the weights.
    fn offsets(self) -> impl ExactSizeIterator<Item = isize> {
        let [height, width] = self.window.kernel;
        (0..height * width).map(move |tap| {
            let (y, x) = (tap / width * self.window.dilation[0], tap % width * self.window.dilation[1]);
            let stride = self.window.stride[1];
            (y * self.row() + x % stride * self.phase + x / stride) as isize
        })
    }

    /// Fills `dst` from a plane.
    ///
    /// # Safety
    ///
    /// `plane` is readable for the window's input, and `dst` is `len` long.
    unsafe fn fill(&self, isa: &Isa, plane: *const f32, dst: &mut [f32]) {
        let window = &self.window;
        let inside = window.inside(0, -(window.pad[0] as isize), 1, self.rows);
        dst[..inside.start * self.row()].fill(0.0);
        dst[inside.end * self.row()..].fill(0.0);
        let first_row = inside.start as isize - window.pad[0] as isize;
        // The phases of a stretch of the plane read the same lines.
        for column in (0..self.phase).step_by(isa.lanes) {
            let len = isa.lanes.min(self.phase - column);
            for phase in 0..window.stride[1] {
                let x = (column * window.stride[1] + phase) as isize - window.pad[1] as isize;
                let lanes = window.inside(1, x, window.stride[1], len);
                let segment = Segment {
                    src: plane.wrapping_offset(first_row * window.size[1] as isize + x),
                    src_row: window.size[1] as isize,
                    step: window.stride[1],
                    dst: dst[inside.start * self.row() + phase * self.phase + column..].as_mut_ptr(),
                    dst_row: self.row() as isize,
                    count: inside.len(),
                    len,
                    lo: lanes.start,
                    hi: lanes.end,
                };
                // SAFETY: only rows and lanes inside the image are read, and `dst` has all rows.
                unsafe { (isa.copy)(&segment) };
            }
        }
    }

    /// Computes one output plane of a kernel of 3×3 from the padded form at `first.src`, if the rows of
    /// the kernel and of the output are as close as that needs.
    ///
    /// # Safety
    ///
    /// As for [`Padded::sweep`].
    unsafe fn sweep_3x3(&self, isa: &Isa, first: &Stencil<'_>) -> bool {
        let Window { kernel, stride, dilation, out_size, .. } = self.window;
        if kernel != [3, 3] || dilation[0] != 1 || stride[0] > isa.planes.len() {
            return false;
        }
        let mut offsets = self.offsets();
        let plane = Plane {
            src: first.src,
            src_row: self.row(),
            dst: first.dst,
            rows: out_size[0],
            width: out_size[1],
            weights: first.weights,
            columns: std::array::from_fn(|_| offsets.next().unwrap_or(0) as usize),
            end: first.end,
        };
        // SAFETY: the padded form has a vector at every tap of every output; the rest is the caller's promise.
        unsafe { (isa.planes[stride[0] - 1])(&plane) };
        true
    }

    /// Computes one output plane from the padded form at `first.src`.
    ///
    /// # Safety
    ///
    /// `first` describes the output at (0, 0) of a valid plane.
    unsafe fn sweep(&self, isa: &Isa, first: Stencil<'_>) {
        // SAFETY: the caller's promise.
        if unsafe { self.sweep_3x3(isa, &first) } {
            return;
        }
        let [height, width] = self.window.out_size;
        let block = isa.stencils.len() * isa.lanes;
        let whole = width - width % block;
        let down = self.row() * self.window.stride[0];
        // Rows of many vectors go in blocks of neighbouring vectors, the rest in blocks of rows.
        for y in 0..height {
            for x in (0..whole).step_by(block) {
                let lanes = isa.lanes as isize;
                let at = first.at(y * down + x, y * width + x);
                let wide = Stencil { src_row: lanes, dst_row: lanes, len: isa.lanes, ..at };
                // SAFETY: the block is inside the row.
                unsafe { (isa.stencils[isa.stencils.len() - 1])(&wide) };
            }
        }
        for x in (whole..width).step_by(isa.lanes) {
            for y in (0..height).step_by(isa.stencils.len()) {
                let rows = isa.stencils.len().min(height - y);
                let at = first.at(y * down + x, y * width + x);
                let len = isa.lanes.min(width - x);
                let tall = Stencil { src_row: down as isize, dst_row: width as isize, len, ..at };
                // SAFETY: the rows and columns are inside the plane.
                unsafe { (isa.stencils[rows - 1])(&tall) };
            }
        }
    }
}

impl Stencil<'_> {
    /// The same taps at another output.
    fn at(self, src: usize, dst: usize) -> Self {
        Stencil { src: self.src.wrapping_add(src), dst: self.dst.wrapping_add(dst), ..self }
    }
}

/// The planes of a convolution, as the threads share them.
struct Planes<'a> {
    args: &'a ConvArgs<'a>,
    isa: &'a Isa,
    padded: Padded,
    offsets: &'a [isize],
}

// SAFETY: threads write disjoint planes and only read the rest, which is valid meanwhile.
unsafe impl Sync for Planes<'_> {}

impl Planes<'_> {
    /// Computes the outputs of the input planes of a range.
    ///
    /// # Safety
    ///
    /// The range is one of input planes; `scratch` holds two padded planes.
    unsafe fn run(&self, planes: Range<usize>, scratch: &mut [f32]) {
        let (mut this, mut next) = scratch.split_at_mut(self.padded.len);
        let fill = |index: usize, dst: &mut [f32]| {
            let plane = self.args.x.wrapping_add(index * self.args.shape.window.plane());
            // SAFETY: the caller's promise.
            unsafe { self.padded.fill(self.isa, plane, dst) };
        };
        fill(planes.start, this);
        for index in planes.clone() {
            // A load that overlaps two stores waits until both are in the cache: meanwhile the next
            // plane is filled.
            if index + 1 < planes.end {
                fill(index + 1, next);
            }
            // SAFETY: the caller's promise.
            unsafe { self.outputs(index, this) };
            std::mem::swap(&mut this, &mut next);
        }
    }

    /// Computes the outputs of one input plane.
    ///
    /// # Safety
    ///
    /// `index` is an input plane, whose padded form is `padded`.
    unsafe fn outputs(&self, index: usize, padded: &[f32]) {
        let args = self.args;
        let multiple = args.shape.out_channels / args.shape.groups;
        let (image, group) = (index / args.shape.groups, index % args.shape.groups);
        let by_row = args.epilogue.and_then(|e| e.links_by_row([0, 0, image]));
        for channel in group * multiple..(group + 1) * multiple {
            let links = by_row.map_or(Links::NONE, |links| links.at(channel, 0));
            let out = (image * args.shape.out_channels + channel) * args.shape.window.out_plane();
            // SAFETY: the weights and the bias have all output channels, the output all planes.
            unsafe {
                let first = Stencil {
                    src: padded.as_ptr(),
                    src_row: 0,
                    dst: args.y.wrapping_add(out),
                    dst_row: 0,
                    len: 0,
                    weights: args.w.add(channel * self.offsets.len()),
                    offsets: self.offsets.as_ptr(),
                    taps: self.offsets.len(),
                    end: End {
                        bias: (!args.bias.is_null()).then(|| *args.bias.add(channel)),
                        links: links.all(),
                        clip: links.clip,
                    },
                };
                self.padded.sweep(self.isa, first);
                if by_row.is_none() {
                    args.finish(self.isa, image, [channel..channel + 1, 0..args.shape.window.out_plane()], first.dst);
                }
            }
        }
    }
}

/// Computes a convolution with one input channel per group.
///
/// # Safety
///
/// As for [`super::conv::conv`]; `padded` is the layout of this convolution's window.
pub(super) unsafe fn run(pool: &Pool, isa: &Isa, args: &ConvArgs<'_>, padded: Padded) {
    let planes = args.images * args.shape.groups;
    let work = args.shape.window.out_plane() * args.shape.out_channels / args.shape.groups;
    if planes == 0 || work == 0 {
        return;
    }
    let taps = args.shape.window.taps();
    let grain = GRAIN.div_ceil(work.saturating_mul(taps.max(1)));
    with_offsets(padded.offsets().take(taps), |offsets| {
        let shared = Planes { args, isa, padded, offsets };
        pool.run(planes, grain, &|range| {
            // SAFETY: planes are disjoint; the rest is the caller's promise.
            with_floats(2 * padded.len, |scratch| unsafe { shared.run(range, scratch) });
        });
    });
}
