//! Windows of several taps: the product of the windows of an image by the weights, of which neighbouring
//! windows share most elements where they lie ([`Layout`]).

use std::ops::Range;

use super::ConvArgs;
use super::copy::Layout;
use super::cut::Cut;
use crate::kernels::Bias;
use crate::kernels::epilogue::Links;
use crate::kernels::gemm;
use crate::kernels::scratch::{with_floats, with_offsets};
use crate::kernels::simd::{Isa, Tile};
use crate::pool::Pool;

/// The length of a slice of the sums: the weights of a slice of a panel stay in the nearest caches while all
/// outputs of an item use it.
const SLICE: usize = 192;

/// Elements that the second-level cache holds beside others.
const CACHED: usize = 1 << 17;

/// Multiply-adds below which an item is not worth handing to another thread.
const GRAIN: usize = 1 << 17;

/// How the work is cut. The cut decides speed only, never a result.
struct Plan {
    /// Products: an image of a group each.
    products: usize,
    /// The outputs of a product, in units of the layout.
    bands: Cut,
    /// Its panels of output channels.
    blocks: Cut,
    /// The parts of a window that a slice has, and the slices of a part that is longer than one.
    parts: Cut,
    slices: Cut,
}

impl Plan {
    fn new(isa: &Isa, threads: usize, args: &ConvArgs<'_>, layout: &Layout) -> Plan {
        let (filters, window) = (&args.filters, &args.window);
        let (unit, run, runs) = (layout.unit(window), layout.run(args), layout.runs(args));
        let panels = filters.group_outputs().div_ceil(isa.nr());
        let units = window.out_plane() / unit.max(1);
        let fits = |units: &usize| {
            let copy = layout.copy_len(args, *units).is_some_and(|len| len <= CACHED);
            copy && units.saturating_mul(unit * isa.nr().min(filters.group_outputs())) <= CACHED
        };
        let mut most = units.next_power_of_two();
        while most > 1 && !fits(&most) {
            most /= 2;
        }
        let products = args.images * filters.groups;
        let widest = Cut::at_most(units, most);
        let parts = Cut::into(runs, runs.div_ceil((SLICE / run.max(1)).max(1)).max(1));
        let slices = if parts.longest() > 1 { Cut::into(run, 1) } else { Cut::into(run, run.div_ceil(SLICE).max(1)) };
        let plan = Plan { products, bands: widest, blocks: Cut::into(panels, 1), parts, slices };
        let work = products.saturating_mul(window.out_plane()).saturating_mul(filters.group_outputs());
        let threads = threads.min(work.saturating_mul(filters.depth()) / GRAIN);
        if threads < 2 {
            return plan;
        }
        // As fine as may pay, and of these the cut that keeps the slowest thread least long.
        let bands = (widest.parts..=units.min(widest.parts + 2 * threads)).map(|parts| Cut::into(units, parts));
        let cuts =
            bands.flat_map(|bands| (1..=panels.min(2 * threads)).map(move |parts| (bands, Cut::into(panels, parts))));
        let time = |(bands, blocks): &(Cut, Cut)| {
            let copy = layout.copy_len(args, bands.longest()).unwrap_or(usize::MAX);
            let positions = bands.longest().saturating_mul(unit).saturating_mul(blocks.longest() * isa.tiles.len());
            let sums = positions.saturating_mul(filters.depth());
            (products * bands.parts * blocks.parts).div_ceil(threads).saturating_mul(sums.saturating_add(copy))
        };
        let (bands, blocks) = cuts.min_by_key(time).unwrap_or((widest, Cut::into(panels, 1)));
        Plan { bands, blocks, ..plan }
    }

    fn items(&self) -> usize {
        self.products * self.bands.parts * self.blocks.parts
    }
}

/// Computes a convolution.
///
/// # Safety
///
/// As for [`super::conv`], with packed weights.
pub(super) unsafe fn run(pool: &Pool, isa: &Isa, args: &ConvArgs<'_>) {
    let layout = Layout::new(args);
    let plan = Plan::new(isa, pool.threads(), args, &layout);
    let outputs = plan.bands.longest() * layout.unit(&args.window);
    let runs = layout.runs(args);
    let offset = |index: usize| match index.checked_sub(runs) {
        None => layout.part(args, index),
        Some(output) => layout.start(args, output),
    };
    with_offsets((0..runs + outputs).map(offset), |offsets| {
        let (parts, starts) = offsets.split_at(runs);
        let product = Product { isa, args, layout, plan, parts, starts };
        let copy = layout.copy_len(args, product.plan.bands.longest()).unwrap_or(usize::MAX);
        let work =
            outputs.saturating_mul(args.filters.depth()).saturating_mul(product.plan.blocks.longest() * isa.nr());
        pool.run(product.plan.items(), GRAIN.div_ceil(work.max(1)), &|items| {
            with_floats(copy, |copy| {
                for item in items {
                    // SAFETY: items are disjoint parts of the output; the rest is the caller's promise.
                    unsafe { product.item(item, copy) };
                }
            });
        });
    });
}

struct Product<'a> {
    isa: &'a Isa,
    args: &'a ConvArgs<'a>,
    layout: Layout,
    plan: Plan,
    /// Where the parts of a window begin.
    parts: &'a [isize],
    /// Where the windows of a band's outputs begin.
    starts: &'a [isize],
}

// SAFETY: threads write disjoint parts of the output and only read the rest, which is valid meanwhile.
unsafe impl Sync for Product<'_> {}

impl Product<'_> {
    /// Computes the outputs of a band for a block of panels.
    ///
    /// # Safety
    ///
    /// The item is one of the plan, and the copy as long as a band needs.
    unsafe fn item(&self, item: usize, copy: &mut [f32]) {
        let Product { isa, args, layout, plan, .. } = self;
        let filters = &args.filters;
        let (block, rest) = (item % plan.blocks.parts, item / plan.blocks.parts);
        let (band, product) = (rest % plan.bands.parts, rest / plan.bands.parts);
        let (image, group) = (product / filters.groups, product % filters.groups);
        let unit = layout.unit(&args.window);
        let units = plan.bands.part(band);
        let outputs = units.start * unit..units.end * unit;
        let len = layout.copy_len(args, units.len()).unwrap_or(0);
        let (nr, depth) = (isa.nr(), filters.depth());
        let group_len = filters.group_len(isa).unwrap_or(0);
        // SAFETY: the outputs and panels are those of the item.
        unsafe {
            let a = layout.windows(isa, args, [image, group], outputs.clone(), &mut copy[..len]);
            for panel in plan.blocks.part(block) {
                let columns = panel * nr..filters.group_outputs().min((panel + 1) * nr);
                let channels = group * filters.group_outputs();
                let channels = channels + columns.start..channels + columns.end;
                let weights = args.packed.wrapping_add(group * group_len + panel * depth * nr);
                let width = filters.panel(isa, panel);
                self.panel(a, (weights, width), image, [outputs.clone(), channels.clone()]);
                args.finish(isa, image, [outputs.clone(), channels]);
            }
        }
    }

    /// Computes the channels of a panel of weights, `width` wide, for the windows that begin at `a`.
    ///
    /// # Safety
    ///
    /// As for [`Product::item`].
    unsafe fn panel(
        &self,
        a: *const f32,
        (weights, width): (*const f32, usize),
        image: usize,
        [outputs, channels]: [Range<usize>; 2],
    ) {
        let Product { isa, args, plan, .. } = self;
        let links = args.epilogue.map_or(Links::NONE, |e| e.links([0, 0, image]));
        let c = args.output(image, outputs.start).wrapping_add(channels.start);
        let mut done = 0;
        let slices = plan.parts.iter().flat_map(|parts| plan.slices.iter().map(move |ks| (parts.clone(), ks)));
        for (parts, ks) in slices {
            let length = parts.len() * ks.len();
            let last = done + length == args.filters.depth();
            let b = weights.wrapping_add(done * width);
            let tile = Tile {
                a: a.wrapping_add(ks.start),
                a_row: 0,
                a_rows: self.starts.as_ptr(),
                a_col: 1,
                runs: &self.parts[parts],
                b,
                b_row: width as isize,
                b_rows: std::ptr::null(),
                c,
                c_row: args.filters.out_channels as isize,
                k: ks.len(),
                columns: channels.len(),
                resume: done > 0,
                scale: 1.0,
                bias: if last { Bias::per_column(args.bias).at(channels.start) } else { Bias::None },
                // The next slice of the panel comes from memory right behind this one.
                ahead: b.wrapping_add(length * width),
                ahead_lines: 0,
                ahead_step: width * size_of::<f32>(),
                links: if last { links.all() } else { &[] },
                row: outputs.start,
                column: channels.start,
                clip: links.clip.filter(|_| last),
            };
            // SAFETY: the windows of the outputs are readable from `a` on, and the output for the channels.
            unsafe { gemm::tiles(isa, tile, outputs.len()) };
            done += length;
        }
    }
}
