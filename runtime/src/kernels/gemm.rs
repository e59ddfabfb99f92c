//! The driver behind matmul and pointwise convolution: cuts C into blocks of rows and strips of columns,
//! shares them among the threads, and walks each through slices of k with tiles of one kernel.

use std::ops::Range;

use super::epilogue::Links;
use super::scratch::with_floats;
use super::simd::{Isa, LINE, Segment, Tile};
use super::{Bias, Strided, locate};
use crate::pool::Pool;

/// The length of a slice of k: a slice of a strip of B stays in the nearest caches while all rows of
/// the block use it, and C, which carries the sums from slice to slice, is touched rarely.
const SLICE: usize = 128;

/// The most rows of a block.
const ROWS: usize = 144;

/// Rows below which a block is not cut so that A stays in a cache: B is read again for every block.
const MIN_ROWS: usize = 48;

/// Elements of A in a block: they stay in the second-level cache while strip after strip uses them.
const BLOCK: usize = 1 << 17;

/// Multiply-adds below which a block is not worth handing to another thread.
const GRAIN: usize = 1 << 17;

/// Rows that cost as much as one row does: with few rows the time goes into reading B.
const FREE_ROWS: usize = 8;

/// The sizes of a batch of products.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) batches: usize,
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) n: usize,
}

/// What one product of the batch reads and writes, B aside.
pub(super) struct Operands {
    pub(super) a: Strided,
    pub(super) c: *mut f32,
    pub(super) c_row: isize,
    pub(super) scale: f32,
    pub(super) bias: Bias,
    pub(super) links: Links,
}

/// A slice of B: rows `ks`, columns `columns` of the product `batch`.
pub(super) struct Slice {
    pub(super) batch: usize,
    pub(super) ks: Range<usize>,
    pub(super) columns: Range<usize>,
}

/// A batch of products: where the operands are, and how a slice of B comes into rows of vectors.
pub(super) trait Problem: Sync {
    /// Whether slices of B are packed into scratch memory, again by every block of rows.
    const PACKS: bool;

    /// The operands of the product `batch`.
    fn operands(&self, batch: usize) -> Operands;

    /// The slice as rows of contiguous columns, readable in whole vectors: its first element and
    /// its row stride. `scratch` holds [`SLICE`] rows of a panel if the problem packs.
    ///
    /// # Safety
    ///
    /// The slice is inside B and the problem's memory is valid.
    unsafe fn slice(&self, isa: &Isa, slice: &Slice, scratch: &mut [f32]) -> (*const f32, isize);

    /// Applies the epilogue to a block of finished sums of the product `batch`, whose first is at `c`.
    ///
    /// # Safety
    ///
    /// The block is inside C, nobody else touches it, and the problem's memory is valid.
    unsafe fn finish(&self, isa: &Isa, batch: usize, block: [Range<usize>; 2], c: *mut f32);
}

/// How C is cut. The cut decides speed only, never a result.
struct Plan {
    shape: Shape,
    /// Rows of a block.
    rows: usize,
    /// Columns of a strip, a power-of-two fraction of a panel.
    strip: usize,
}

impl Plan {
    fn new(isa: &Isa, threads: usize, shape: Shape, packs: bool) -> Plan {
        let most = if packs { ROWS } else { (BLOCK / shape.k.max(1)).clamp(MIN_ROWS, ROWS) };
        let rows = shape.m.div_ceil(shape.m.div_ceil(most).max(1));
        let mut plan = Plan { shape, rows, strip: isa.nr() };
        let rows = shape.m.max(FREE_ROWS);
        let work = shape.batches.saturating_mul(rows).saturating_mul(shape.n).saturating_mul(shape.k);
        let want = threads.min(work / GRAIN) * 2;
        // A packed slice is shared by the rows of a block, so a block that packs keeps more of them.
        let min_rows = if packs { 64 } else { 2 * isa.max_rows(isa.tiles.len()) };
        while threads > 1 && plan.items() < want {
            let narrow = plan.strip / 2 >= 2 * isa.lanes && shape.n > plan.strip / 2;
            let short = plan.rows >= min_rows;
            match (narrow, short) {
                (true, false) => plan.strip /= 2,
                (true, true) if packs => plan.strip /= 2,
                (_, true) => plan.rows = plan.rows.div_ceil(2),
                (false, false) => break,
            }
        }
        plan
    }

    fn blocks(&self) -> usize {
        self.shape.m.div_ceil(self.rows.max(1))
    }

    fn strips(&self) -> usize {
        self.shape.n.div_ceil(self.strip)
    }

    fn items(&self) -> usize {
        self.blocks() * self.shape.batches * self.strips()
    }

    fn grain(&self) -> usize {
        let item = self.rows.max(FREE_ROWS).saturating_mul(self.strip).saturating_mul(self.shape.k.max(1));
        GRAIN.div_ceil(item)
    }

    /// The product, rows and columns of an item. Strips vary fastest and blocks slowest, so that
    /// neighbouring items share a block of A.
    fn item(&self, item: usize) -> (usize, Range<usize>, Range<usize>) {
        let strip = item % self.strips();
        let batch = item / self.strips() % self.shape.batches;
        let block = item / self.strips() / self.shape.batches;
        let rows = block * self.rows..self.shape.m.min((block + 1) * self.rows);
        let columns = strip * self.strip..self.shape.n.min((strip + 1) * self.strip);
        (batch, rows, columns)
    }
}

/// Computes C = scale · A·B + bias and its epilogue for every product of the batch.
///
/// # Safety
///
/// The operands of every product are valid for its shape and no C overlaps another operand.
pub(super) unsafe fn run<P: Problem>(pool: &Pool, isa: &Isa, shape: Shape, problem: &P) {
    // SAFETY: the caller's promise.
    unsafe { run_all(pool, isa, &[(shape, problem)]) }
}

/// [`run`] for problems that do not depend on each other, shared among the threads as one job: waiting
/// for a thread takes as long as a small product.
///
/// # Safety
///
/// As for [`run`]; no C overlaps an operand of another problem either.
pub(super) unsafe fn run_all<P: Problem, const N: usize>(pool: &Pool, isa: &Isa, problems: &[(Shape, &P); N]) {
    let plans = problems.each_ref().map(|(shape, _)| Plan::new(isa, pool.threads(), *shape, P::PACKS));
    let scratch = plans.iter().map(|p| if P::PACKS { SLICE.min(p.shape.k) * p.strip } else { 0 }).max().unwrap_or(0);
    let items = plans.iter().map(Plan::items).sum();
    let grain = plans.iter().map(Plan::grain).min().unwrap_or(1);
    pool.run(items, grain, &|items| {
        with_floats(scratch, |scratch| {
            for (product, item) in items.filter_map(|item| locate(item, plans.iter().map(Plan::items))) {
                // SAFETY: items are disjoint parts of C; the rest is the caller's promise.
                unsafe { block(isa, &plans[product], problems[product].1, item, scratch) };
            }
        });
    });
}

/// Computes one item of the plan: a block of rows of a strip, slice after slice of k.
///
/// # Safety
///
/// As for [`run`]; nobody else touches this part of C.
unsafe fn block<P: Problem>(isa: &Isa, plan: &Plan, problem: &P, item: usize, scratch: &mut [f32]) {
    let (batch, rows, columns) = plan.item(item);
    let operands = problem.operands(batch);
    let k = plan.shape.k;
    let slices = k.div_ceil(SLICE).max(1);
    let length = k.div_ceil(slices);
    for index in 0..slices {
        let ks = (index * length).min(k)..((index + 1) * length).min(k);
        let a = operands.a.at(rows.start, ks.start);
        let c = rows.start as isize * operands.c_row + columns.start as isize;
        let last = index + 1 == slices;
        let slice = Slice { batch, ks, columns: columns.clone() };
        // SAFETY: the slice is inside B; the addresses are inside the operands.
        unsafe {
            let (b, b_row) = problem.slice(isa, &slice, scratch);
            // Of a whole panel the next slice comes from memory right behind this one, and while this one
            // is used there is time to fetch it.
            let in_order = !P::PACKS && b_row == plan.strip as isize;
            let tile = Tile {
                a: a.ptr,
                a_row: a.row,
                a_rows: std::ptr::null(),
                runs: &[0],
                a_col: a.column,
                b,
                b_row,
                b_rows: std::ptr::null(),
                c: operands.c.offset(c),
                c_row: operands.c_row,
                k: slice.ks.len(),
                columns: columns.len(),
                resume: index > 0,
                scale: if last { operands.scale } else { 1.0 },
                bias: if last { operands.bias.at(columns.start) } else { Bias::None },
                ahead: b.wrapping_offset(if in_order { slice.ks.len() as isize * b_row } else { 0 }),
                ahead_lines: 0,
                ahead_step: if in_order { plan.strip * size_of::<f32>() } else { 0 },
                links: if last { operands.links.all() } else { &[] },
                row: rows.start,
                column: columns.start,
                clip: operands.links.clip.filter(|_| last),
            };
            tiles(isa, tile, rows.len());
            if last {
                problem.finish(isa, batch, [rows.clone(), columns.clone()], tile.c);
            }
        }
    }
}

/// Runs a tile over `rows` rows, cut as evenly as the kernels allow.
///
/// # Safety
///
/// `tile` describes `rows` rows of valid operands.
pub(super) unsafe fn tiles(isa: &Isa, mut tile: Tile<'_>, rows: usize) {
    let kernels = isa.tiles[tile.columns.div_ceil(isa.lanes) - 1];
    let mut left = rows;
    // Every tile prefetches its part, evenly: bursts would fill the queues that its own loads wait in.
    tile.ahead_step /= rows.div_ceil(kernels.len());
    tile.ahead_lines = tile.ahead_step.div_ceil(LINE);
    while left > 0 {
        let count = left.div_ceil(left.div_ceil(kernels.len()));
        // SAFETY: `count` of the remaining rows, on the instruction set of `isa`.
        unsafe { kernels[count - 1](&tile) };
        if tile.a_rows.is_null() {
            tile.a = tile.a.wrapping_offset(count as isize * tile.a_row);
        } else {
            tile.a_rows = tile.a_rows.wrapping_add(count);
        }
        tile.c = tile.c.wrapping_offset(count as isize * tile.c_row);
        tile.ahead = tile.ahead.wrapping_byte_add(tile.ahead_step * tile.k * tile.runs.len());
        tile.row += count;
        left -= count;
    }
}

/// Packs `k`×`n` elements of `src` into rows of `width` elements at `dst`, with zeros from `n` up to
/// `padded` columns, a whole number of vectors.
///
/// # Safety
///
/// `src` is readable for `k`×`n` elements, `dst` writable for `k` rows of `width >= padded >= n`.
pub(super) unsafe fn pack(isa: &Isa, src: Strided, k: usize, n: usize, dst: *mut f32, width: usize, padded: usize) {
    // SAFETY: both parts stay inside the caller's bounds.
    unsafe {
        if src.column == 1 {
            return pack_rows(isa, src, k, n, dst, width, padded);
        }
        if src.row == 1 {
            return pack_transposed(isa, src, k, n, dst, width, padded);
        }
        pack_elements(src, k, n, dst, width, padded);
    }
}

/// [`pack`] for contiguous rows.
///
/// # Safety
///
/// As for [`pack`].
unsafe fn pack_rows(isa: &Isa, src: Strided, k: usize, n: usize, dst: *mut f32, width: usize, padded: usize) {
    for column in (0..padded).step_by(isa.lanes) {
        let segment = Segment {
            src: src.ptr.wrapping_add(column),
            src_row: src.row,
            dst: dst.wrapping_add(column),
            dst_row: width as isize,
            count: k,
            len: n.saturating_sub(column).min(isa.lanes),
        };
        // SAFETY: the segment reads below `n` and writes below `padded`.
        unsafe { (isa.copy)(&segment) };
    }
}

/// The most lanes of a vector.
pub(super) const MAX_LANES: usize = 16;

/// [`pack`] for contiguous columns, block by block.
///
/// # Safety
///
/// As for [`pack`], with a row stride of 1.
unsafe fn pack_transposed(isa: &Isa, src: Strided, k: usize, n: usize, dst: *mut f32, width: usize, padded: usize) {
    let lanes = isa.lanes;
    for column in (0..padded).step_by(lanes) {
        let columns = n.saturating_sub(column).min(lanes);
        for row in (0..k).step_by(lanes) {
            let rows = (k - row).min(lanes);
            let to = dst.wrapping_add(row * width + column);
            // SAFETY: a block of `rows` × `columns` at (row, column) is inside the source, and one of
            // `rows` × `lanes` inside the destination.
            unsafe {
                transpose_part(isa, src.at(row, column).ptr, src.column, [columns, rows], to, width as isize, lanes);
            }
        }
    }
}

/// Transposes a block of `rows`×`columns`, each at most a vector, into `columns` rows of `width` elements,
/// at least `rows` and at most a vector: zeros where the block has none.
///
/// # Safety
///
/// Rows of `columns` elements are readable at `src`, and rows of `width` writable at `dst`.
pub(super) unsafe fn transpose_part(
    isa: &Isa,
    src: *const f32,
    src_row: isize,
    [rows, columns]: [usize; 2],
    dst: *mut f32,
    dst_row: isize,
    width: usize,
) {
    let lanes = isa.lanes;
    // SAFETY: whole blocks are the caller's, others go by way of whole ones.
    unsafe {
        if rows == lanes && columns == lanes {
            return (isa.transpose)(src, src_row, dst, dst_row);
        }
        let (mut from, mut turned) = ([0.0; MAX_LANES * MAX_LANES], [0.0; MAX_LANES * MAX_LANES]);
        for i in 0..rows {
            let row = src.wrapping_offset(i as isize * src_row);
            std::ptr::copy_nonoverlapping(row, from.as_mut_ptr().add(i * lanes), columns);
        }
        (isa.transpose)(from.as_ptr(), lanes as isize, turned.as_mut_ptr(), lanes as isize);
        for i in 0..columns {
            let row = dst.wrapping_offset(i as isize * dst_row);
            std::ptr::copy_nonoverlapping(turned.as_ptr().add(i * lanes), row, width);
        }
    }
}

/// [`pack`] for any strides.
///
/// # Safety
///
/// As for [`pack`].
unsafe fn pack_elements(src: Strided, k: usize, n: usize, dst: *mut f32, width: usize, padded: usize) {
    for row in 0..k {
        for column in 0..padded {
            // SAFETY: reads are below `n`, writes below `padded`.
            unsafe {
                let x = if column < n { *src.at(row, column).ptr } else { 0.0 };
                *dst.add(row * width + column) = x;
            }
        }
    }
}
