//! Weights times patches that are never packed: the planes of a band of rows are copied once, with their
//! pads, and every row of the matrix of patches is a stretch of that copy. The product runs over the
//! positions of the copy, the few between two rows of the output included, which are then left out.
//!
//! With strides the copy of a plane is in phases: phase (p, q) has the rows p, p + stride, … of the padded
//! plane and of these the columns q, q + stride, …, so that neighbouring outputs meet neighbouring elements.

use std::ops::Range;

use super::cut::Cut;
use super::{ConvArgs, ConvShape, Window, panels};
use crate::kernels::Bias;
use crate::kernels::epilogue::Links;
use crate::kernels::scratch::{with_floats, with_offsets};
use crate::kernels::simd::{Isa, Segment, Tile};
use crate::pool::Pool;

/// The length of a slice of k at most: what a strip reads for it stays in the first-level cache.
const SLICE: usize = 256;

/// Elements of a band's copy, and of its product, that stay in the second-level cache together.
const CACHED: usize = 1 << 17;

/// Multiply-adds below which a band is not worth handing to another thread.
const GRAIN: usize = 1 << 17;

/// Output channels up to which a copy in phases pays: patches that many panels share are better packed.
const FEW: usize = 64;

/// The padded copy of the planes of a group.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    shape: ConvShape,
    /// From one row of a phase to the next. Of the one phase without strides, the pad after a row is the pad
    /// before the next one.
    pitch: usize,
    /// Rows of a phase that a row of output meets, less one.
    reach: usize,
    /// The same for columns.
    across: usize,
    lanes: usize,
}

impl Layout {
    /// The layout for a convolution, if computing the positions between the rows costs less than packing.
    pub(super) fn new(isa: &Isa, shape: &ConvShape) -> Option<Layout> {
        let window = shape.window;
        if window.taps() < 2 || window.out_plane() == 0 || shape.depth() == 0 {
            return None;
        }
        let reach = |axis: usize| (window.kernel[axis] - 1).saturating_mul(window.dilation[axis]) / window.stride[axis];
        let [reach, across] = [0, 1].map(reach);
        let all = window.out_size[1].checked_add(across)?;
        if window.stride != [1, 1] && shape.group_outputs() > FEW {
            return None;
        }
        let pitch = if window.stride == [1, 1] {
            let after = all.saturating_sub(window.pad[1].checked_add(window.size[1])?);
            window.size[1].checked_add(after.max(window.pad[1]))?.max(window.out_size[1])
        } else {
            all
        };
        let layout = Layout { shape: *shape, pitch, reach, across, lanes: isa.lanes };
        let positions = window.out_size[0].checked_mul(pitch)?.div_ceil(isa.lanes);
        let packed = window.out_plane().div_ceil(isa.lanes);
        let extra = positions.saturating_sub(packed).checked_mul(shape.group_outputs())?;
        let fits = layout.copy_len(1)? <= CACHED && shape.group_outputs().checked_mul(pitch)? <= CACHED;
        (fits && extra <= packed * panels::PACKING).then_some(layout)
    }

    /// Elements of a phase of a plane for so many rows of output; the last tap's last vector ends in it.
    fn phase_len(&self, rows: usize) -> Option<usize> {
        let rows = rows.checked_add(self.reach)?;
        rows.checked_mul(self.pitch)?.checked_add(self.across)?.checked_add(self.lanes)
    }

    /// Elements of all phases of a plane.
    fn plane_len(&self, rows: usize) -> Option<usize> {
        let [height, width] = self.shape.window.stride;
        self.phase_len(rows)?.checked_mul(height)?.checked_mul(width)
    }

    /// Elements of the copy of all planes.
    fn copy_len(&self, rows: usize) -> Option<usize> {
        self.plane_len(rows)?.checked_mul(self.shape.group_inputs())
    }

    /// Vectors of positions of so many rows of output.
    fn vectors(&self, rows: usize) -> usize {
        (rows * self.pitch).div_ceil(self.lanes)
    }

    /// The output's rows in bands that the caches hold, and that let `threads` threads end soonest.
    fn bands(&self, threads: usize, products: usize) -> Cut {
        let (rows, per_row) = (self.shape.window.out_size[0], self.pitch * self.shape.group_outputs());
        let fits = |most: &usize| most * per_row <= CACHED && self.copy_len(*most).is_some_and(|len| len <= CACHED);
        let most = (1..=rows).take_while(fits).last().unwrap_or(1);
        let widest = Cut::at_most(rows, most);
        let finer = widest.parts..=rows.min(widest.parts + 2 * threads);
        let time = |cut: &Cut| {
            (products * cut.parts).div_ceil(threads) * (self.vectors(cut.longest()) + self.vectors(self.reach))
        };
        if threads < 2 { widest } else { finer.map(|parts| Cut::into(rows, parts)).min_by_key(time).unwrap_or(widest) }
    }

    /// Where each row of the matrix of patches begins in the copy, whose phases have so many elements.
    fn offsets(self, phase: usize) -> impl ExactSizeIterator<Item = isize> {
        let Window { kernel, stride, dilation, .. } = self.shape.window;
        let taps = self.shape.window.taps();
        (0..self.shape.depth()).map(move |k| {
            let (channel, tap) = (k / taps, k % taps);
            let (y, x) = (tap / kernel[1] * dilation[0], tap % kernel[1] * dilation[1]);
            let phases = (channel * stride[0] + y % stride[0]) * stride[1] + x % stride[1];
            (phases * phase + y / stride[0] * self.pitch + x / stride[1]) as isize
        })
    }
}

/// What the threads share.
struct Product<'a> {
    isa: &'a Isa,
    args: &'a ConvArgs<'a>,
    layout: Layout,
    bands: Cut,
    panels: Cut,
    slices: Cut,
    /// Elements of the copy of a phase, and of all phases of a plane.
    phase: usize,
    plane: usize,
    offsets: &'a [isize],
}

// SAFETY: threads write disjoint rows of the output and only read the rest, which is valid meanwhile.
unsafe impl Sync for Product<'_> {}

/// Computes a convolution with weights in panels.
///
/// # Safety
///
/// As for [`super::conv`], with `packed` not null and the layout that of the shape.
pub(super) unsafe fn run(pool: &Pool, isa: &Isa, args: &ConvArgs<'_>, layout: Layout) {
    let (shape, products) = (args.shape, args.shape.groups * args.images);
    let work = shape.group_outputs().saturating_mul(shape.depth()).saturating_mul(shape.window.out_plane());
    let bands = layout.bands(pool.threads().min(products.saturating_mul(work) / GRAIN), products);
    let [phase, plane] =
        [layout.phase_len(bands.longest()), layout.plane_len(bands.longest())].map(Option::unwrap_or_default);
    with_offsets(layout.offsets(phase), |offsets| {
        let (panels, depth) = (panels::rows(isa, &shape), shape.depth());
        let slices = Cut::into(depth, depth.div_ceil(SLICE).max(1));
        let product = Product { isa, args, layout, bands, panels, slices, phase, plane, offsets };
        let copy = plane * shape.group_inputs();
        let result = shape.group_outputs() * layout.vectors(bands.longest()) * isa.lanes;
        pool.run(products * bands.parts, GRAIN.div_ceil((work / bands.parts.max(1)).max(1)), &|items| {
            with_floats(copy + result, |scratch| {
                let (copy, result) = scratch.split_at_mut(copy);
                for item in items {
                    // SAFETY: items are disjoint rows of the output; the rest is the caller's promise.
                    unsafe { product.item(item, copy, result) };
                }
            });
        });
    });
}

impl Product<'_> {
    /// Computes a band of rows of one product.
    ///
    /// # Safety
    ///
    /// As for [`run`]; nobody else touches this part of the output, and the scratch has room for a band.
    unsafe fn item(&self, item: usize, copy: &mut [f32], result: &mut [f32]) {
        let (rows, product) = (self.bands.part(item % self.bands.parts), item / self.bands.parts);
        let (group, image) = (product / self.args.images, product % self.args.images);
        let shape = &self.args.shape;
        let planes = image * shape.in_channels + group * shape.group_inputs();
        let channel = group * shape.group_outputs();
        // SAFETY: the planes, channels and rows are those of the item.
        unsafe {
            for (channel, dst) in copy.chunks_exact_mut(self.plane).enumerate() {
                let src = self.args.x.wrapping_add((planes + channel) * shape.window.plane());
                for (number, phase) in dst.chunks_exact_mut(self.phase).enumerate() {
                    let width = shape.window.stride[1];
                    self.fill(src, &rows, [number / width, number % width], phase);
                }
            }
            let by_row = self.args.epilogue.and_then(|e| e.links_by_row([0, 0, image]));
            let links = by_row.map_or(Links::NONE, |links| links.at(channel, 0));
            self.multiply(channel, self.layout.vectors(rows.len()), &links, copy, result);
            let y = (image * shape.out_channels + channel) * shape.window.out_plane();
            self.store(self.args.y.wrapping_add(y), &rows, result);
            let columns = rows.start * shape.window.out_size[1]..rows.end * shape.window.out_size[1];
            let c = self.args.y.wrapping_add(y + columns.start);
            if by_row.is_none() {
                self.args.finish(self.isa, image, [channel..channel + shape.group_outputs(), columns], c);
            }
        }
    }

    /// Copies a phase of a plane's rows for a band of output into `dst`, with their pads.
    ///
    /// # Safety
    ///
    /// `src` is readable for a plane, and `dst` as long as the copy of a phase.
    unsafe fn fill(&self, src: *const f32, rows: &Range<usize>, phase: [usize; 2], dst: &mut [f32]) {
        let (window, pitch) = (&self.args.shape.window, self.layout.pitch);
        let [down, across] = window.stride;
        let first = (rows.start * down + phase[0]) as isize - window.pad[0] as isize;
        let inside = window.inside(0, first, down, rows.len() + self.layout.reach);
        dst[..inside.start * pitch].fill(0.0);
        dst[inside.end * pitch..].fill(0.0);
        let top = (first + (inside.start * down) as isize) * window.size[1] as isize;
        for column in (0..pitch).step_by(self.isa.lanes) {
            let len = self.isa.lanes.min(pitch - column);
            let x = (column * across + phase[1]) as isize - window.pad[1] as isize;
            let lanes = window.inside(1, x, across, len);
            let segment = Segment {
                src: src.wrapping_offset(top + x),
                src_row: (down * window.size[1]) as isize,
                step: across,
                dst: dst[inside.start * pitch + column..].as_mut_ptr(),
                dst_row: pitch as isize,
                count: inside.len(),
                len,
                lo: lanes.start,
                hi: lanes.end,
            };
            // SAFETY: only rows and lanes inside the image are read, and `dst` has all rows.
            unsafe { (self.isa.copy)(&segment) };
        }
    }

    /// Multiplies the weights of the channels from `channel` on with the patches in `copy`; `links` begin at that
    /// channel and have one value for each.
    ///
    /// # Safety
    ///
    /// The copy is filled for so many vectors, and the result has room for them.
    unsafe fn multiply(&self, channel: usize, vectors: usize, links: &Links, copy: &[f32], result: &mut [f32]) {
        let (lanes, depth) = (self.isa.lanes, self.slices.total);
        for ks in self.slices.iter() {
            let last = ks.end == depth;
            let bias = if self.args.bias.is_null() || !last { Bias::None } else { Bias::PerRow(self.args.bias) };
            for strip in Cut::at_most(vectors, panels::width(self.isa)).iter() {
                for rows in self.panels.iter() {
                    let panel = |row: usize| self.args.packed.wrapping_add((channel + row) * depth);
                    // The first strip fetches the weights of the next panel, which may be as long.
                    let next = panel(rows.end).wrapping_add(ks.start * rows.len());
                    let tile = Tile {
                        a: panel(rows.start).wrapping_add(ks.start * rows.len()),
                        a_row: 1,
                        a_col: rows.len() as isize,
                        b: copy[strip.start * lanes..].as_ptr(),
                        b_row: 0,
                        b_rows: self.offsets[ks.start..].as_ptr(),
                        c: result[(rows.start * vectors + strip.start) * lanes..].as_mut_ptr(),
                        c_row: (vectors * lanes) as isize,
                        k: ks.len(),
                        columns: strip.len() * lanes,
                        resume: ks.start > 0,
                        scale: 1.0,
                        bias: bias.at(channel + rows.start, 0),
                        ahead: next,
                        ahead_lines: 1,
                        ahead_step: if strip.start == 0 { rows.len() * size_of::<f32>() } else { 0 },
                        links: if last { links.all() } else { &[] },
                        row: rows.start,
                        column: 0,
                        clip: links.clip.filter(|_| last),
                    };
                    // SAFETY: a panel's rows of valid operands, on this instruction set.
                    unsafe { self.isa.tiles[strip.len() - 1][rows.len() - 1](&tile) };
                }
            }
        }
    }

    /// Writes the result of a band to the output of its product, without the positions between the rows.
    ///
    /// # Safety
    ///
    /// `y` is writable for all channels of the group.
    unsafe fn store(&self, y: *mut f32, rows: &Range<usize>, result: &[f32]) {
        let (window, lanes) = (&self.args.shape.window, self.isa.lanes);
        let width = window.out_size[1];
        for channel in 0..self.panels.total {
            let src = channel * self.layout.vectors(rows.len()) * lanes;
            for column in (0..width).step_by(lanes) {
                let len = lanes.min(width - column);
                let segment = Segment {
                    src: result[src + column..].as_ptr(),
                    src_row: self.layout.pitch as isize,
                    step: 1,
                    dst: y.wrapping_add(channel * window.out_plane() + rows.start * width + column),
                    dst_row: width as isize,
                    count: rows.len(),
                    len,
                    lo: 0,
                    hi: len,
                };
                // SAFETY: rows of the result, and as many of the output.
                unsafe { (self.isa.copy)(&segment) };
            }
        }
    }
}
