//! Few outputs per group, which would leave most of a vector idle: vectors lie along the positions of a row
//! instead. The rows that the windows meet are copied in planes, one per channel, with their pads; the product
//! of the weights by rows of the planes is turned around in the end.
//!
//! With strides a row of a plane is in phases: phase p has the columns p, p + stride, …, so that neighbouring
//! outputs meet neighbouring elements.

use super::ConvArgs;
use super::copy::{is_in_proportion, reach};
use super::cut::Cut;
use crate::kernels::Bias;
use crate::kernels::epilogue::{Operation, Pass};
use crate::kernels::gemm::{self, transpose_part};
use crate::kernels::scratch::{with_floats, with_offsets};
use crate::kernels::simd::{Isa, Tile};
use crate::kernels::{Strided, image::Window};
use crate::pool::Pool;

/// Elements that the second-level cache holds beside others.
const CACHED: usize = 1 << 16;

/// Multiply-adds below which an item is not worth handing to another thread.
const GRAIN: usize = 1 << 17;

/// The planes of some rows.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    /// Columns of a phase.
    phase: usize,
    /// Elements of a row: all phases.
    row: usize,
    /// Output rows that are computed together.
    rows: usize,
}

impl Planes {
    /// The planes for a convolution, if this form is the faster one and they are in proportion to the image.
    pub(super) fn new(isa: &Isa, args: &ConvArgs<'_>) -> Option<Planes> {
        let Window { out_size: [height, width], kernel, stride, dilation, .. } = args.window;
        let few = args.filters.group_outputs() * 4 <= isa.lanes * 3 && width * 2 >= isa.lanes;
        if !few || !is_in_proportion(&args.window) || args.filters.depth() == 0 {
            return None;
        }
        let phase = width.checked_add((kernel[1] - 1).checked_mul(dilation[1])? / stride[1])?;
        let mut planes = Planes { phase, row: phase.checked_mul(stride[1])?, rows: 1 };
        let fits = |planes: &Planes| planes.len(isa, args).is_some_and(|len| len <= CACHED);
        while planes.rows < height && fits(&Planes { rows: planes.rows + 1, ..planes }) {
            planes.rows += 1;
        }
        planes.len(isa, args).map(|_| planes)
    }

    /// Rows of a plane for so many output rows.
    fn height(&self, args: &ConvArgs<'_>, rows: usize) -> Option<usize> {
        reach(&args.window, 0, rows)
    }

    /// Elements of all planes and of the result for so many rows; a vector may begin at the last element.
    fn len(&self, isa: &Isa, args: &ConvArgs<'_>) -> Option<usize> {
        let plane = self.height(args, self.rows)?.checked_mul(self.row)?;
        let planes = plane.checked_mul(args.filters.in_channels)?.checked_add(isa.lanes)?;
        planes.checked_add(self.rows.checked_mul(args.window.out_size[1])?.checked_mul(args.filters.out_channels)?)
    }
}

/// Computes a convolution.
///
/// # Safety
///
/// As for [`super::conv`], with packed weights.
pub(super) unsafe fn run(pool: &Pool, isa: &Isa, args: &ConvArgs<'_>, planes: Planes) {
    let Window { out_size: [height, width], kernel, stride, dilation, .. } = args.window;
    let threads = pool.threads().min(args.images * height);
    // As many bands for each thread.
    let parts = height.div_ceil(planes.rows);
    let bands = Cut::into(height, if threads < 2 { parts } else { parts.next_multiple_of(threads).min(height) });
    let planes = Planes { rows: bands.longest(), ..planes };
    let (inputs, depth) = (args.filters.group_inputs(), args.filters.depth());
    let plane = planes.height(args, planes.rows).unwrap_or(0) * planes.row;
    let offset = |k: usize| {
        let (tap, channel) = (k / inputs, k % inputs);
        let (y, x) = (tap / kernel[1] * dilation[0], tap % kernel[1] * dilation[1]);
        (channel * plane + y * planes.row + x % stride[1] * planes.phase + x / stride[1]) as isize
    };
    let scratch = planes.len(isa, args).unwrap_or(usize::MAX);
    let work = bands.longest().saturating_mul(width).saturating_mul(args.filters.out_channels).saturating_mul(depth);
    with_offsets((0..depth).map(offset), |offsets| {
        let product = Product { isa, args, planes, plane, bands, offsets };
        pool.run(args.images * bands.parts, GRAIN.div_ceil(work.max(1)), &|items| {
            with_floats(scratch, |scratch| {
                for item in items {
                    // SAFETY: items are disjoint rows of the output; the rest is the caller's promise.
                    unsafe { product.band(item, scratch) };
                }
            });
        });
    });
}

struct Product<'a> {
    isa: &'a Isa,
    args: &'a ConvArgs<'a>,
    planes: Planes,
    /// Elements of a plane.
    plane: usize,
    bands: Cut,
    /// Where the taps of the first output are, in the order of the weights.
    offsets: &'a [isize],
}

// SAFETY: threads write disjoint rows of the output and only read the rest, which is valid meanwhile.
unsafe impl Sync for Product<'_> {}

impl Product<'_> {
    /// Computes a band of rows of an image.
    ///
    /// # Safety
    ///
    /// Nobody else touches them; the scratch has room for planes and results of the longest band.
    unsafe fn band(&self, item: usize, scratch: &mut [f32]) {
        let Product { isa, args, plane, bands, .. } = self;
        let (image, rows) = (item / bands.parts, bands.part(item % bands.parts));
        let filters = &args.filters;
        let (planes, result) = scratch.split_at_mut(plane * filters.in_channels + isa.lanes);
        let width = args.window.out_size[1];
        let positions = rows.len() * width;
        // SAFETY: the caller's promise.
        unsafe {
            self.fill(image, rows.start, planes);
            for group in 0..filters.groups {
                for row in 0..rows.len() {
                    self.row(group, row, planes, &mut result[..positions * filters.out_channels]);
                }
            }
            let values = Strided { ptr: result.as_ptr(), row: positions as isize, column: 1 };
            if !args.bias.is_null() {
                let b = Strided { ptr: args.bias, row: 1, column: 0 };
                let (to, to_row, operation) = (result.as_mut_ptr(), values.row, Operation::Add);
                (isa.pass)(&Pass {
                    operation,
                    rows: filters.out_channels,
                    columns: positions,
                    a: values,
                    b,
                    to,
                    to_row,
                });
            }
            let first = rows.start * width;
            self.turn(values, positions, args.output(image, first));
            args.finish_all(isa, image, [first..first + positions, 0..filters.out_channels]);
        }
    }

    /// Copies the rows of the input that the output rows from `row` on need, as far as there are any.
    ///
    /// # Safety
    ///
    /// The image is valid, and `planes` as long as all planes.
    unsafe fn fill(&self, image: usize, row: usize, planes: &mut [f32]) {
        let Product { isa, args, planes: Planes { phase, row: len, .. }, plane, .. } = self;
        let (window, channels, lanes) = (&args.window, args.filters.in_channels, isa.lanes);
        let step = window.stride[1];
        for y in 0..plane / (*len).max(1) {
            let from_y = window.input(0, row, 0) + y as isize;
            for p in 0..step {
                let left = p as isize - window.pad[1] as isize;
                let inside = match (0..window.size[0] as isize).contains(&from_y) {
                    true => window.inside(1, left, step, *phase),
                    false => 0..0,
                };
                let at = y * len + p * phase;
                for channel in 0..channels {
                    let to = &mut planes[channel * plane + at..][..*phase];
                    to[..inside.start].fill(0.0);
                    to[inside.end.max(inside.start)..].fill(0.0);
                }
                let column = step as isize * args.x.column;
                let src = |channel: usize, x: usize| args.x.at(image, channel, from_y, left + (x * step) as isize);
                if args.x.channel == 1 && channels * 4 > lanes {
                    for x in inside.clone().step_by(lanes) {
                        for channel in (0..channels).step_by(lanes) {
                            let block = [(inside.end - x).min(lanes), (channels - channel).min(lanes)];
                            let to = planes[channel * plane + at + x..].as_mut_ptr();
                            // SAFETY: these positions are inside the image, and inside their planes.
                            unsafe {
                                transpose_part(isa, src(channel, x), column, block, to, *plane as isize, block[0]);
                            }
                        }
                    }
                    continue;
                }
                for channel in 0..channels {
                    let to = &mut planes[channel * plane + at..][inside.clone()];
                    let first = src(channel, inside.start);
                    for (x, to) in to.iter_mut().enumerate() {
                        // SAFETY: the position is inside the image.
                        *to = unsafe { *first.wrapping_offset(x as isize * column) };
                    }
                }
            }
        }
    }

    /// Computes the channels of a group for a row, `row` after the first one of the planes.
    ///
    /// # Safety
    ///
    /// The planes hold what the row needs, and `result` has room for all channels.
    unsafe fn row(&self, group: usize, row: usize, planes: &[f32], result: &mut [f32]) {
        let Product { isa, args, plane, .. } = self;
        let filters = &args.filters;
        let (inputs, outputs, width) = (filters.group_inputs(), filters.group_outputs(), args.window.out_size[1]);
        let positions = result.len() / filters.out_channels;
        let b = planes[group * inputs * plane + row * args.window.stride[0] * self.planes.row..].as_ptr();
        for x in (0..width).step_by(isa.nr()) {
            let c = &mut result[group * outputs * positions + row * width + x..];
            let tile = Tile {
                a: args.packed.wrapping_add(group * filters.group_len(isa).unwrap_or(0)),
                a_row: 1,
                a_rows: std::ptr::null(),
                a_col: filters.panel(isa, 0) as isize,
                runs: &[0],
                b: b.wrapping_add(x),
                b_row: 0,
                b_rows: self.offsets.as_ptr(),
                c: c.as_mut_ptr(),
                c_row: positions as isize,
                k: self.offsets.len(),
                columns: (width - x).min(isa.nr()),
                resume: false,
                scale: 1.0,
                bias: Bias::None,
                ahead: b,
                ahead_lines: 0,
                ahead_step: 0,
                links: &[],
                row: 0,
                column: 0,
                clip: None,
            };
            // SAFETY: the planes have whole vectors from every tap on, and the result room for the row.
            unsafe { gemm::tiles(isa, tile, outputs) };
        }
    }

    /// Writes the transpose of the values, a row of `positions` for each channel, to `y`.
    ///
    /// # Safety
    ///
    /// `y` is writable for all channels of the positions.
    unsafe fn turn(&self, values: Strided, positions: usize, y: *mut f32) {
        let (channels, lanes) = (self.args.filters.out_channels, self.isa.lanes);
        for position in (0..positions).step_by(lanes) {
            for channel in (0..channels).step_by(lanes) {
                let block = [(channels - channel).min(lanes), (positions - position).min(lanes)];
                let (src, to) = (values.at(channel, position), y.wrapping_add(position * channels + channel));
                // SAFETY: the block is inside the values and the output.
                unsafe { transpose_part(self.isa, src.ptr, src.row, block, to, channels as isize, block[0]) };
            }
        }
    }
}
