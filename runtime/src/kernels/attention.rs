//! Scaled dot-product attention: for a block of queries of one head the scores, their softmax and the
//! weighted values, while the scores are in a near cache.

use std::ops::Range;

use super::math::BLOCK;
use super::matmul::{BatchMatMulArgs, batch_matmul, matmul, pack_b, packed_len};
use super::scratch::with_scores;
use super::simd::Isa;
use super::{Bias, Strided};
use crate::pool::Pool;

/// Scores that a block of queries may have: they stay in the first-level cache.
const SCORES: usize = 1 << 12;

/// Queries of an item at least, so that its keys and values are read and packed for several.
const MIN_ROWS: usize = 16;

/// Multiply-adds below which a block is not worth handing to another thread.
const GRAIN: usize = 1 << 17;

/// What a score costs besides its products, in multiply-adds.
const SOFTMAX: usize = 24;

/// A matrix and its batch strides.
type Batched = (Strided, [isize; 3]);

/// `c = softmax(scale · q·k + mask) · v` for every index of the batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionArgs {
    pub(crate) batch: [usize; 3],
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) d: usize,
    pub(crate) width: usize,
    /// m×d.
    pub(crate) q: Batched,
    /// d×n.
    pub(crate) k: Batched,
    /// n×width.
    pub(crate) v: Batched,
    /// m×n.
    pub(crate) mask: Option<Batched>,
    /// m×width with contiguous columns.
    pub(crate) c: (*mut f32, [isize; 3]),
    /// Elements from one row of C to the next.
    pub(crate) c_row: isize,
    pub(crate) scale: f32,
    pub(crate) instead_of_nan: Option<f32>,
}

/// Addresses that cross threads inside a job; the pool's job ends before they do.
struct Shared<'a>(&'a AttentionArgs);

// SAFETY: threads write disjoint rows of C and only read the rest, which is valid meanwhile.
unsafe impl Sync for Shared<'_> {}

impl Shared<'_> {
    fn args(&self) -> &AttentionArgs {
        self.0
    }
}

/// Elements of keys and values above which they are not packed as a whole: threads keep what they packed.
const PACKED: usize = 1 << 20;

/// How the queries are cut. The cut decides speed only, never a result.
struct Plan {
    /// Queries of an item, which one thread computes.
    rows: usize,
    /// Queries of a block.
    block: usize,
    /// Elements of a row of scores: whole vectors.
    scores: usize,
    /// Elements of the packed keys and of the packed values.
    keys: usize,
    values: usize,
}

impl Plan {
    /// `None` if a size does not fit.
    fn new(args: &AttentionArgs, threads: usize) -> Option<Plan> {
        let batches: usize = args.batch.iter().product();
        let mut rows = args.m;
        while threads > 1 && rows >= 2 * MIN_ROWS && batches * args.m.div_ceil(rows) < 2 * threads {
            rows = rows.div_ceil(2);
        }
        let block = (SCORES / args.n.max(1)).clamp(MIN_ROWS, rows.max(MIN_ROWS));
        let block = rows.div_ceil(rows.div_ceil(block).max(1)).max(1);
        let scores = args.n.checked_next_multiple_of(BLOCK)?;
        // What one block reads once need not be packed as a whole.
        let elements = args.n.saturating_mul(args.d.saturating_add(args.width));
        let packs = rows > block && elements <= PACKED;
        let keys = if packs { packed_len(args.d, args.n)? } else { 0 };
        let values = if packs { packed_len(args.n, args.width)? } else { 0 };
        Some(Plan { rows: rows.max(1), block, scores, keys, values })
    }

    /// Elements of an item's scratch.
    fn scratch(&self) -> Option<usize> {
        self.block.checked_mul(self.scores)?.checked_add(self.keys)?.checked_add(self.values)
    }
}

impl AttentionArgs {
    /// An operand at an index of the batch and a row.
    fn at(&self, (matrix, strides): Batched, index: [usize; 3], row: usize) -> Strided {
        let offset: isize = index.iter().zip(strides).map(|(i, s)| *i as isize * s).sum();
        Strided { ptr: matrix.ptr.wrapping_offset(offset), ..matrix }.at(row, 0)
    }
}

/// Computes an attention.
///
/// # Safety
///
/// For every index of the batch q, k, v and the mask are readable and c writable as described, and c
/// overlaps nothing that is read.
pub(crate) unsafe fn attention(pool: &Pool, args: &AttentionArgs) {
    if args.width == 0 {
        return;
    }
    let plan = Plan::new(args, pool.threads());
    // Sizes that do not fit ask for more memory than there is.
    let Some((plan, scratch)) = plan.and_then(|p| p.scratch().map(|s| (p, s))) else {
        return with_scores(usize::MAX / size_of::<f32>(), |_| ());
    };
    let blocks = args.m.div_ceil(plan.rows);
    let items = args.batch.iter().product::<usize>() * blocks;
    let work = plan.rows.saturating_mul(args.n).saturating_mul(args.d + args.width + SOFTMAX);
    let shared = Shared(args);
    pool.run(items, GRAIN / work.max(1), &|items| {
        let args = shared.args();
        with_scores(scratch, |scratch| {
            for item in items {
                let (head, block) = (item / blocks, item % blocks);
                let [_, middle, inner] = args.batch;
                let index = [head / inner / middle, head / inner % middle, head % inner];
                let first = block * plan.rows;
                let rows = first..args.m.min(first + plan.rows);
                // SAFETY: the caller's promise, for a part of the rows of one index.
                unsafe { Head { pool, args, plan: &plan, index }.queries(rows, scratch) };
            }
        });
    });
}

/// One index of the batch.
struct Head<'a> {
    pool: &'a Pool,
    args: &'a AttentionArgs,
    plan: &'a Plan,
    index: [usize; 3],
}

impl Head<'_> {
    /// Computes the queries `rows`.
    ///
    /// # Safety
    ///
    /// As for [`attention`]; `scratch` is as long as the plan says.
    unsafe fn queries(&self, rows: Range<usize>, scratch: &mut [f32]) {
        let (args, plan) = (self.args, self.plan);
        let (keys, rest) = scratch.split_at_mut(plan.keys);
        let (values, scores) = rest.split_at_mut(plan.values);
        let packed = if plan.keys > 0 {
            // SAFETY: the operands are valid, and the parts have the lengths of what is packed.
            unsafe {
                pack_b(args.at(args.k, self.index, 0), args.d, args.n, keys);
                pack_b(args.at(args.v, self.index, 0), args.n, args.width, values);
            }
            Some([&*keys, &*values])
        } else {
            None
        };
        for first in rows.clone().step_by(plan.block) {
            // SAFETY: the caller's promise, for a part of the rows.
            unsafe { self.block(first..rows.end.min(first + plan.block), packed, scores) };
        }
    }

    /// Computes one block of queries.
    ///
    /// # Safety
    ///
    /// As for [`attention`]; `packed` are the packed keys and values, if the plan has them, and `scores`
    /// has whole vectors for each row.
    unsafe fn block(&self, rows: Range<usize>, packed: Option<[&[f32]; 2]>, scores: &mut [f32]) {
        let (args, m, row) = (self.args, rows.len(), self.plan.scores);
        let offset: isize = self.index.iter().zip(args.c.1).map(|(i, s)| *i as isize * s).sum();
        let product = BatchMatMulArgs {
            batch: [1; 3],
            a: args.at(args.q, self.index, rows.start),
            a_batch: [0; 3],
            b: args.at(args.k, self.index, 0),
            b_batch: [0; 3],
            c: scores.as_mut_ptr(),
            c_batch: [0; 3],
            c_row: row as isize,
            m,
            k: args.d,
            n: args.n,
            scale: args.scale,
            bias: Bias::None,
            epilogue: None,
        };
        // SAFETY: the operands are parts of valid ones, and the scores have room for m rows.
        unsafe { self.multiply(&product, packed.map(|p| p[0])) };
        let scores = &mut scores[..m * row];
        for (i, scores) in scores.chunks_exact_mut(row.max(1)).enumerate() {
            // SAFETY: the mask has n elements in this row.
            unsafe { self.weigh(rows.start + i, scores) };
        }
        let weighted = BatchMatMulArgs {
            a: Strided { ptr: scores.as_ptr(), row: row as isize, column: 1 },
            b: args.at(args.v, self.index, 0),
            c: args.c.0.wrapping_offset(offset + rows.start as isize * args.c_row),
            c_row: args.c_row,
            k: args.n,
            n: args.width,
            scale: 1.0,
            ..product
        };
        // SAFETY: as above; C is written by nobody else.
        unsafe { self.multiply(&weighted, packed.map(|p| p[1])) };
    }

    /// Turns a row of scores into weights; what pads it gets none.
    ///
    /// # Safety
    ///
    /// The mask is readable for this query.
    unsafe fn weigh(&self, query: usize, scores: &mut [f32]) {
        let (of_keys, padding) = scores.split_at_mut(self.args.n);
        padding.fill(f32::NEG_INFINITY);
        if let Some(mask) = self.args.mask {
            // SAFETY: the caller's promise.
            unsafe { add(of_keys, self.args.at(mask, self.index, query)) };
        }
        // SAFETY: the set is that of this CPU.
        unsafe { (Isa::get().softmax)(scores, self.args.instead_of_nan) };
    }

    /// Computes a product, with its second operand packed if it is.
    ///
    /// # Safety
    ///
    /// The operands are valid, and `packed` holds b.
    unsafe fn multiply(&self, product: &BatchMatMulArgs, packed: Option<&[f32]>) {
        // SAFETY: the caller's promise.
        unsafe {
            match packed {
                Some(b) => matmul(self.pool, &product.packed(b)),
                None => batch_matmul(self.pool, product),
            }
        }
    }
}

/// Adds one row of a mask.
///
/// # Safety
///
/// The mask is readable for as many columns as there are scores.
unsafe fn add(scores: &mut [f32], mask: Strided) {
    if mask.column == 1 {
        // SAFETY: the caller's promise.
        let mask = unsafe { std::slice::from_raw_parts(mask.ptr, scores.len()) };
        // SAFETY: the set is that of this CPU.
        return unsafe { (Isa::get().add)(scores, mask) };
    }
    for (i, score) in scores.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *score += unsafe { *mask.at(0, i).ptr };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints the speed of attention; run it in release with `--ignored --nocapture`.
    #[test]
    #[ignore = "a measurement, not a check"]
    fn speed() {
        let pool = Pool::new(1);
        for (heads, m, n, d) in
            [(12, 128, 128, 64), (12, 197, 197, 64), (3, 65, 65, 32), (4, 24, 24, 32), (9, 1, 129, 64)]
        {
            let row = (heads * d) as isize;
            let q: Vec<f32> = (0..m * heads * d).map(|i| (i * 7919 % 1000) as f32 / 1000.0).collect();
            let k: Vec<f32> = (0..n * heads * d).map(|i| (i * 7907 % 1000) as f32 / 1000.0).collect();
            let mask = vec![0.0f32; m * n];
            let mut c = vec![0.0f32; m * heads * d];
            for mask in [None, Some((Strided { ptr: mask.as_ptr(), row: n as isize, column: 1 }, [0; 3]))] {
                let args = AttentionArgs {
                    batch: [1, 1, heads],
                    m,
                    n,
                    d,
                    width: d,
                    q: (Strided { ptr: q.as_ptr(), row, column: 1 }, [0, 0, d as isize]),
                    k: (Strided { ptr: k.as_ptr(), row: 1, column: row }, [0, 0, d as isize]),
                    v: (Strided { ptr: k.as_ptr(), row, column: 1 }, [0, 0, d as isize]),
                    mask,
                    c: (c.as_mut_ptr(), [0, 0, d as isize]),
                    c_row: row,
                    scale: 0.125,
                    instead_of_nan: None,
                };
                // SAFETY: all operands are valid for their sizes.
                let best = crate::kernels::best_seconds(|| unsafe { attention(&pool, &args) });
                let rate = 4.0 * (heads * m * n * d) as f64 / best / 1e9;
                println!(
                    "{heads} heads, {m}x{n}x{d}, mask {}: {:.1} us, {rate:.1} GFLOP/s",
                    mask.is_some(),
                    best * 1e6
                );
            }
        }
    }
}
