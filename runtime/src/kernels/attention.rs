//! Scaled dot-product attention: for a block of queries of one head the scores, their softmax and the
//! weighted values, while the scores are in a near cache.

use super::math::BLOCK;
use super::matmul::{BatchMatMulArgs, batch_matmul};
use super::scratch::with_scores;
use super::simd::Isa;
use super::{Bias, Strided};
use crate::pool::Pool;

/// Scores that a block of queries may have: they stay in the second-level cache.
const SCORES: usize = 1 << 15;

/// Queries of a block at least, so that its keys are read and packed for several.
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

impl AttentionArgs {
    /// Queries per block.
    fn rows(&self, threads: usize) -> usize {
        let batches: usize = self.batch.iter().product();
        let most = (SCORES / self.n.max(1)).clamp(MIN_ROWS, self.m.max(MIN_ROWS));
        let mut rows = self.m.div_ceil(self.m.div_ceil(most).max(1)).max(1);
        while threads > 1 && rows >= 2 * MIN_ROWS && batches * self.m.div_ceil(rows) < 2 * threads {
            rows = rows.div_ceil(2);
        }
        rows
    }

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
    let rows = args.rows(pool.threads());
    let blocks = args.m.div_ceil(rows);
    let items = args.batch.iter().product::<usize>() * blocks;
    let work = rows.saturating_mul(args.n).saturating_mul(args.d + args.width + SOFTMAX);
    let shared = Shared(args);
    pool.run(items, GRAIN / work.max(1), &|items| {
        let args = shared.args();
        with_scores(rows * args.n.next_multiple_of(BLOCK), |scores| {
            for item in items {
                let (head, block) = (item / blocks, item % blocks);
                let [_, middle, inner] = args.batch;
                let index = [head / inner / middle, head / inner % middle, head % inner];
                let first = block * rows;
                // SAFETY: the caller's promise, for a part of the rows of one index.
                unsafe { queries(pool, args, index, first..args.m.min(first + rows), scores) };
            }
        });
    });
}

/// The queries `rows` of one index of the batch.
///
/// # Safety
///
/// As for [`attention`]; `scores` has whole blocks for each row.
unsafe fn queries(
    pool: &Pool,
    args: &AttentionArgs,
    index: [usize; 3],
    rows: std::ops::Range<usize>,
    scores: &mut [f32],
) {
    let (m, row) = (rows.len(), args.n.next_multiple_of(BLOCK));
    let offset: isize = index.iter().zip(args.c.1).map(|(i, s)| *i as isize * s).sum();
    let c = args.c.0.wrapping_offset(offset + rows.start as isize * args.c_row);
    let product = BatchMatMulArgs {
        batch: [1; 3],
        a: args.at(args.q, index, rows.start),
        a_batch: [0; 3],
        b: args.at(args.k, index, 0),
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
    unsafe { batch_matmul(pool, &product) };
    for (i, scores) in scores[..m * row].chunks_exact_mut(row.max(1)).enumerate() {
        let (scores, padding) = scores.split_at_mut(args.n);
        padding.fill(f32::NEG_INFINITY);
        if let Some(mask) = args.mask {
            // SAFETY: the mask has n elements in this row.
            unsafe { add(scores, args.at(mask, index, rows.start + i)) };
        }
    }
    let isa = Isa::get();
    for scores in scores[..m * row].chunks_exact_mut(row.max(1)) {
        // SAFETY: the set is that of this CPU.
        unsafe { (isa.softmax)(scores, args.instead_of_nan) };
    }
    let values = BatchMatMulArgs {
        a: Strided { ptr: scores.as_ptr(), row: row as isize, column: 1 },
        b: args.at(args.v, index, 0),
        c,
        c_row: args.c_row,
        k: args.n,
        n: args.width,
        scale: 1.0,
        ..product
    };
    // SAFETY: as above; C is written by nobody else.
    unsafe { batch_matmul(pool, &values) };
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
        scores.iter_mut().zip(mask).for_each(|(score, x)| *score += x);
        return;
    }
    for (i, score) in scores.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *score += unsafe { *mask.at(0, i).ptr };
    }
}
