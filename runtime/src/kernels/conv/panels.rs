//! Weights times patches: rows of the product are output channels, its vectors lie along the image.
//! Weights are packed once into panels of as many rows as a tile has; patches are packed a strip of
//! columns at a time and serve all panels of a block while they are near.

use std::ops::Range;

use super::cut::Cut;
use super::patches::Patches;
use super::{ConvArgs, ConvShape};
use crate::kernels::epilogue::{Block, Links};
use crate::kernels::scratch::with_floats;
use crate::kernels::simd::{Isa, LINE, Tile};
use crate::kernels::{Bias, Strided};
use crate::pool::Pool;

/// The length of a slice of k at most: a slice of a strip stays in the nearest caches while the panels
/// of a block pass over it.
const SLICE: usize = 256;

/// Elements of a slice of a block's weights, and of a block of the output, that stay in the
/// second-level cache together.
const CACHED: usize = 1 << 17;

/// Multiply-adds below which an item is not worth handing to another thread.
const GRAIN: usize = 1 << 17;

/// Packing a vector takes as long as multiplying it with so many rows.
pub(super) const PACKING: usize = 8;

/// Panels up to which patches that lie in rows are rather used there than packed.
const FEW_PANELS: usize = 4;

/// Vectors of a strip at most: tiles of so many load least for what they compute.
const STRIP: usize = 3;

/// Vectors per row of the widest tile used.
pub(super) fn width(isa: &Isa) -> usize {
    isa.tiles.len().min(STRIP)
}

/// The panels of a group's output channels.
pub(super) fn rows(isa: &Isa, shape: &ConvShape) -> Cut {
    Cut::at_most(shape.group_outputs(), isa.max_rows(width(isa)))
}

/// Packs weights: per group, per panel, per element of the patch one value for each row.
///
/// # Safety
///
/// `w` is readable for the weights of `shape`, and `dst` is as long.
pub(super) unsafe fn pack(isa: &Isa, shape: &ConvShape, w: *const f32, dst: &mut [f32]) {
    let (rows, depth) = (rows(isa, shape), shape.depth());
    if depth == 0 {
        return;
    }
    let mut left = dst;
    for group in 0..shape.groups {
        for rows in rows.iter() {
            let (panel, rest) = left.split_at_mut(rows.len() * depth);
            left = rest;
            let first = w.wrapping_add((group * shape.group_outputs() + rows.start) * depth);
            for (k, column) in panel.chunks_exact_mut(rows.len()).enumerate() {
                for (row, value) in column.iter_mut().enumerate() {
                    // SAFETY: row and element are inside the weights.
                    *value = unsafe { *first.add(row * depth + k) };
                }
            }
        }
    }
}

/// How the output is cut: an item is a block of panels by a band of columns. The cut decides speed only,
/// never a result.
#[derive(Clone, Copy)]
struct Plan {
    /// Pairs of a group and an image.
    products: usize,
    /// Output channels of a group in panels.
    rows: Cut,
    /// Panels in blocks.
    blocks: Cut,
    /// Vectors of columns in bands.
    bands: Cut,
    /// The patch in slices.
    slices: Cut,
    /// Whether a panel passes along the band before the next one does.
    along: bool,
}

impl Plan {
    fn new(isa: &Isa, threads: usize, args: &ConvArgs<'_>) -> Plan {
        let shape = &args.shape;
        let (depth, columns) = (shape.depth(), shape.window.out_plane());
        let rows = rows(isa, shape);
        let slices = Cut::into(depth, depth.div_ceil(SLICE).max(1));
        let slice = slices.longest().max(1);
        let blocks = Cut::at_most(rows.parts, CACHED / (slice * rows.longest().max(1)));
        let band = CACHED / (blocks.longest() * rows.longest()).max(slice);
        let bands = Cut::at_most(columns.div_ceil(isa.lanes), band / isa.lanes);
        // An output that the caches do not hold, and that takes few steps, is best written row by row.
        let along = depth <= SLICE / 4 && rows.total * columns > 3 * CACHED;
        let plan = Plan { products: shape.groups * args.images, rows, blocks, bands, slices, along };
        let work = plan.products.saturating_mul(rows.total * columns).saturating_mul(depth);
        plan.shared(threads.min(work / GRAIN))
    }

    /// The finer cut that lets `threads` threads end soonest.
    fn shared(self, threads: usize) -> Plan {
        if threads < 2 {
            return self;
        }
        // Blocks as fine as may pay, and with each the bands that give all threads as much to do.
        let most = self.blocks.total.min(self.blocks.parts + 2 * threads);
        let blocks = (self.blocks.parts..=most).map(|parts| Cut::into(self.blocks.total, parts));
        let bands = |blocks: Cut| {
            let items = self.products * blocks.parts;
            let rounds = (items * self.bands.parts).div_ceil(threads);
            let parts = |rounds: usize| (rounds * threads).div_ceil(items.max(1));
            let cut = move |parts: usize| Cut::into(self.bands.total, parts.clamp(self.bands.parts, self.bands.total));
            [self.bands.parts, parts(rounds), parts(rounds + 1)].map(cut)
        };
        let cuts = blocks.flat_map(|blocks| bands(blocks).map(|bands| (blocks, bands)));
        let plans = cuts.map(|(blocks, bands)| Plan { blocks, bands, ..self });
        plans.min_by_key(|plan| plan.time(threads)).unwrap_or(self)
    }

    /// The time of the thread that has most to do, in steps of a vector by a row.
    fn time(&self, threads: usize) -> usize {
        let rows = self.blocks.longest() * self.rows.longest();
        self.items().div_ceil(threads) * self.bands.longest() * (rows + PACKING)
    }

    fn items(&self) -> usize {
        self.products * self.blocks.parts * self.bands.parts
    }

    /// Items that are worth a thread.
    fn grain(&self, isa: &Isa) -> usize {
        let item = self.blocks.longest() * self.rows.longest() * self.bands.longest() * isa.lanes;
        GRAIN.div_ceil(item.saturating_mul(self.slices.total).max(1))
    }
}

/// What the threads share.
struct Product<'a> {
    isa: &'a Isa,
    args: &'a ConvArgs<'a>,
    plan: Plan,
}

// SAFETY: threads write disjoint parts of the output and only read the rest, which is valid meanwhile.
unsafe impl Sync for Product<'_> {}

/// Computes a convolution with packed weights.
///
/// # Safety
///
/// As for [`super::conv`], with `packed` not null.
pub(super) unsafe fn run(pool: &Pool, isa: &Isa, args: &ConvArgs<'_>) {
    let plan = Plan::new(isa, pool.threads(), args);
    let vectors = if plan.along { plan.bands.longest() } else { width(isa) };
    let scratch = plan.slices.longest() * vectors * isa.lanes;
    let product = Product { isa, args, plan };
    pool.run(plan.items(), plan.grain(isa), &|range| {
        with_floats(scratch, |scratch| {
            for item in range {
                // SAFETY: items are disjoint parts of the output; the rest is the caller's promise.
                unsafe { product.item(item).run(scratch) };
            }
        });
    });
}

impl Product<'_> {
    /// An item. Bands vary fastest and blocks slowest, so that neighbouring items share weights.
    fn item(&self, item: usize) -> Item<'_> {
        let Product { isa, args, plan } = self;
        let (band, rest) = (item % plan.bands.parts, item / plan.bands.parts);
        let (product, block) = (rest % plan.products, rest / plan.products);
        let (group, image) = (product / args.images, product % args.images);
        let (channel, plane) = (group * args.shape.group_outputs(), args.shape.window.out_plane());
        let (vectors, panels) = (plan.bands.part(band), plan.blocks.part(block));
        let lines = (width(isa) * isa.lanes * size_of::<f32>()).div_ceil(LINE);
        Item {
            isa,
            args,
            plan,
            patches: Patches::new(isa, args, image, group),
            a: args.packed.wrapping_add(channel * args.shape.depth()),
            bias: if args.bias.is_null() { Bias::None } else { Bias::PerRow(args.bias) }.at(channel, 0),
            links: args.epilogue.map_or(Links::NONE, |e| e.links([0, 0, image]).at(channel, 0)),
            image,
            channel,
            c: args.y.wrapping_add((image * args.shape.out_channels + channel) * plane),
            plane,
            first: vectors.start * isa.lanes,
            strips: Cut::at_most(vectors.len(), width(isa)),
            fetches: lines.div_ceil(panels.len().max(1)),
            panels,
        }
    }
}

/// A block of panels by a band of columns of one product.
struct Item<'a> {
    isa: &'a Isa,
    args: &'a ConvArgs<'a>,
    plan: &'a Plan,
    patches: Patches<'a>,
    /// Weights, bias and output of the product.
    a: *const f32,
    bias: Bias,
    links: Links,
    c: *mut f32,
    image: usize,
    /// The product's first output channel.
    channel: usize,
    /// Columns of the product.
    plane: usize,
    panels: Range<usize>,
    /// The first column of the band.
    first: usize,
    /// Vectors of the band in strips.
    strips: Cut,
    /// Cache lines of a row of patches that each panel fetches for the next strip.
    fetches: usize,
}

impl Item<'_> {
    /// Computes the item, slice after slice of k.
    ///
    /// # Safety
    ///
    /// As for [`run`]; nobody else touches this part of the output, and `scratch` holds a slice of a
    /// strip, or of the band if panels pass along it.
    unsafe fn run(&self, scratch: &mut [f32]) {
        for ks in self.plan.slices.iter() {
            // SAFETY: slices, panels and strips are the item's.
            unsafe {
                if self.plan.along {
                    self.strips().for_each(|strip| self.pack(&ks, strip, scratch));
                    for panel in self.panels.clone() {
                        self.strips().for_each(|strip| self.tile(&ks, panel, strip, scratch));
                    }
                } else {
                    for strip in self.strips() {
                        self.pack(&ks, strip, scratch);
                        self.panels.clone().for_each(|panel| self.tile(&ks, panel, strip, scratch));
                    }
                }
            }
        }
    }

    fn strips(&self) -> Range<usize> {
        0..self.strips.parts
    }

    /// The columns of a strip.
    fn columns(&self, strip: usize) -> Range<usize> {
        let vectors = self.strips.part(strip);
        self.first + vectors.start * self.isa.lanes..self.plane.min(self.first + vectors.end * self.isa.lanes)
    }

    /// Where the packed patches of a strip begin in the scratch memory.
    fn offset(&self, ks: &Range<usize>, strip: usize) -> usize {
        if self.plan.along { self.strips.part(strip).start * self.isa.lanes * ks.len() } else { 0 }
    }

    /// The patches of a strip where they lie, if that is better than to pack them.
    fn in_place(&self, ks: &Range<usize>, columns: &Range<usize>) -> Option<Strided> {
        let whole = columns.len().is_multiple_of(self.isa.lanes);
        let matrix = self.patches.in_place().filter(|_| whole && self.panels.len() <= FEW_PANELS)?;
        Some(matrix.at(ks.start, columns.start))
    }

    /// Packs the patches of a strip for a slice of k.
    ///
    /// # Safety
    ///
    /// As for [`Item::run`].
    unsafe fn pack(&self, ks: &Range<usize>, strip: usize, scratch: &mut [f32]) {
        let columns = self.columns(strip);
        if self.in_place(ks, &columns).is_none() {
            let width = self.strips.part(strip).len() * self.isa.lanes;
            // SAFETY: the slice is inside the patches, and the scratch has room for it.
            unsafe { self.patches.pack(ks.clone(), columns, &mut scratch[self.offset(ks, strip)..], width) };
        }
    }

    /// Computes a tile for a slice of k.
    ///
    /// # Safety
    ///
    /// As for [`Item::run`], with the strip packed.
    unsafe fn tile(&self, ks: &Range<usize>, panel: usize, strip: usize, scratch: &[f32]) {
        let (rows, columns) = (self.plan.rows.part(panel), self.columns(strip));
        let vectors = columns.len().div_ceil(self.isa.lanes);
        let b = self.in_place(ks, &columns).unwrap_or_else(|| Strided {
            ptr: scratch[self.offset(ks, strip)..].as_ptr(),
            row: (vectors * self.isa.lanes) as isize,
            column: 1,
        });
        let (ahead, ahead_lines, ahead_step) = self.ahead(ks, panel, strip, columns.end);
        let last = ks.end == self.plan.slices.total;
        let tile = Tile {
            a: self.weights(ks, &rows),
            a_row: 1,
            a_col: rows.len() as isize,
            b: b.ptr,
            b_row: b.row,
            b_rows: std::ptr::null(),
            c: self.c.wrapping_add(rows.start * self.plane + columns.start),
            c_row: self.plane as isize,
            k: ks.len(),
            columns: columns.len(),
            resume: ks.start > 0,
            scale: 1.0,
            bias: if last { self.bias.at(rows.start, 0) } else { Bias::None },
            ahead,
            ahead_lines,
            ahead_step,
            links: if last { self.links.all() } else { &[] },
            row: rows.start,
            column: columns.start,
            clip: self.links.clip.filter(|_| last),
        };
        // SAFETY: a panel's rows of valid operands, on this instruction set; the block is the tile's.
        unsafe {
            self.isa.tiles[vectors - 1][rows.len() - 1](&tile);
            if let Some(epilogue) = self.args.epilogue.filter(|_| last) {
                let rows = self.channel + rows.start..self.channel + rows.end;
                let c_row = tile.c_row;
                epilogue.apply(self.isa, &Block { batch: [0, 0, self.image], rows, columns, c: tile.c, c_row });
            }
        }
    }

    /// The weights of a panel for a slice of k.
    fn weights(&self, ks: &Range<usize>, rows: &Range<usize>) -> *const f32 {
        self.a.wrapping_add(rows.start * self.plan.slices.total + ks.start * rows.len())
    }

    /// What a tile fetches for later ones, as in [`Tile`]: in the first strip the weights of the next panel, later
    /// its part of the rows of the next strip's patches, which begin at `next`, where they lie in the image.
    fn ahead(&self, ks: &Range<usize>, panel: usize, strip: usize, next: usize) -> (*const f32, usize, usize) {
        if strip == 0 && panel + 1 < self.panels.end {
            let rows = self.plan.rows.part(panel + 1);
            return (self.weights(ks, &rows), 1, rows.len() * size_of::<f32>());
        }
        let first = (panel - self.panels.start) * self.fetches * LINE / size_of::<f32>();
        if strip + 1 < self.strips.parts
            && first < self.strips.part(strip + 1).len() * self.isa.lanes
            && let Some(planes) = self.patches.in_place()
        {
            let src = planes.at(ks.start, next + first);
            return (src.ptr, self.fetches, src.row.unsigned_abs() * size_of::<f32>());
        }
        (self.a, 0, 0)
    }
}
