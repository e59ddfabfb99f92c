//! Matrix products: strided A by weights packed once at load, and batches of strided A by strided B.
//!
//! Packed B is a row of panels, each `[k][NR]`, the columns beyond n zero. NR is the width of the
//! CPU's widest tile, so packed weights live in memory only and never in a file.

use std::ops::Range;

use super::epilogue::{Block, Finish, Links, Operand};
use super::gemm::{self, Operands, Problem, Shape, Slice, pack};
use super::simd::Isa;
use super::{Bias, Strided};
use crate::pool::Pool;

/// Rows of a matrix that are packed at a time, so that a panel's source pages stay mapped.
const PACK_ROWS: usize = 64;

/// One product C = scale · A·B + bias with packed B, and its epilogue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MatMulArgs<'a> {
    /// m×k.
    pub(crate) a: Strided,
    /// k×n, as [`pack_b`] wrote it.
    pub(crate) b: *const f32,
    /// m×n with contiguous columns.
    pub(crate) c: *mut f32,
    /// Elements from one row of C to the next.
    pub(crate) c_row: isize,
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// What every finished sum is multiplied with, before the bias.
    pub(crate) scale: f32,
    pub(crate) bias: Bias,
    /// What follows.
    pub(crate) epilogue: Option<Finish<'a>>,
}

impl MatMulArgs<'_> {
    /// What the tiles read and write.
    pub(super) fn operands(&self) -> Operands {
        let MatMulArgs { a, c, c_row, scale, bias, epilogue, .. } = *self;
        let links = epilogue.map_or(Links::NONE, |e| e.links([0; 3]));
        Operands { a, c, c_row, scale, bias, links }
    }

    /// Applies the epilogue to a block of finished sums at `c`, unless links did.
    ///
    /// # Safety
    ///
    /// The block is inside C, and nobody else touches it.
    pub(super) unsafe fn finish(&self, isa: &Isa, [rows, columns]: [Range<usize>; 2], c: *mut f32) {
        if let Some(epilogue) = &self.epilogue {
            // SAFETY: the caller's promise.
            unsafe { epilogue.apply(isa, &Block { batch: [0; 3], rows, columns, c, c_row: self.c_row }) }
        }
    }
}

/// A batch of products C = scale · A·B + bias, all operands strided. The batch has up to three axes; a stride
/// of zero shares an operand along one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchMatMulArgs<'a> {
    pub(crate) batch: [usize; 3],
    /// m×k.
    pub(crate) a: Strided,
    pub(crate) a_batch: [isize; 3],
    /// k×n.
    pub(crate) b: Strided,
    pub(crate) b_batch: [isize; 3],
    /// m×n with contiguous columns.
    pub(crate) c: *mut f32,
    pub(crate) c_batch: [isize; 3],
    /// Elements from one row of C to the next.
    pub(crate) c_row: isize,
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// What every finished sum is multiplied with, before the bias.
    pub(crate) scale: f32,
    /// The same for every product.
    pub(crate) bias: Bias,
    /// What follows.
    pub(crate) epilogue: Option<Finish<'a>>,
}

impl<'a> BatchMatMulArgs<'a> {
    /// The operands of the epilogue.
    pub(crate) fn operands(&self) -> &'a [Operand] {
        self.epilogue.map_or(&[], |e| e.operands)
    }
}

impl<'a> BatchMatMulArgs<'a> {
    /// The one product without a batch, with its second operand packed.
    pub(crate) fn packed(&self, b: &[f32]) -> MatMulArgs<'a> {
        let BatchMatMulArgs { a, c, c_row, m, k, n, scale, bias, epilogue, .. } = *self;
        MatMulArgs { a, b: b.as_ptr(), c, c_row, m, k, n, scale, bias, epilogue }
    }
}

/// Columns of a packed panel on this CPU.
pub(crate) fn panel_columns() -> usize {
    Isa::get().nr()
}

/// Elements of a packed k×n matrix, or `None` if the number does not fit.
pub(crate) fn packed_len(k: usize, n: usize) -> Option<usize> {
    n.checked_next_multiple_of(panel_columns())?.checked_mul(k)
}

/// Packs the k×n matrix `src` into `dst`, all of which is written.
///
/// # Safety
///
/// `src` is readable for k×n elements.
///
/// # Panics
///
/// If `dst` is not exactly [`packed_len`] long.
pub(crate) unsafe fn pack_b(src: Strided, k: usize, n: usize, dst: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { pack_b_for(Isa::get(), src, k, n, dst) }
}

/// [`pack_b`] for one instruction set.
///
/// # Safety
///
/// As for [`pack_b`].
pub(super) unsafe fn pack_b_for(isa: &Isa, src: Strided, k: usize, n: usize, dst: &mut [f32]) {
    let nr = isa.nr();
    assert_eq!(Some(dst.len()), n.checked_next_multiple_of(nr).and_then(|n| n.checked_mul(k)));
    if k == 0 {
        return;
    }
    for (index, panel) in dst.chunks_exact_mut(k * nr).enumerate() {
        let columns = (n - index * nr).min(nr);
        for (row, part) in (0..k).step_by(PACK_ROWS).zip(panel.chunks_mut(PACK_ROWS * nr)) {
            let rows = part.len() / nr;
            // SAFETY: the part has `rows` rows of `nr` columns, of which the source has `columns`.
            unsafe { pack(isa, src.at(row, index * nr), rows, columns, part.as_mut_ptr(), nr, nr) };
        }
    }
}

/// Computes C = scale · A·B + bias with packed B.
///
/// # Safety
///
/// A is readable for m×k elements, the bias for m or n; `b` was packed by [`pack_b`] for k×n in this
/// process; C is writable for m×n and overlaps nothing that is read.
pub(crate) unsafe fn matmul(pool: &Pool, args: &MatMulArgs<'_>) {
    // SAFETY: the caller's promise.
    unsafe { matmul_for(Isa::get(), pool, args) }
}

/// [`matmul`] on one instruction set.
///
/// # Safety
///
/// As for [`matmul`], with B packed for this set.
pub(super) unsafe fn matmul_for(isa: &Isa, pool: &Pool, args: &MatMulArgs<'_>) {
    let shape = Shape { batches: 1, m: args.m, k: args.k, n: args.n };
    // SAFETY: the caller's promise.
    unsafe { gemm::run(pool, isa, shape, &Packed(args)) }
}

/// [`matmul`] for several products that do not depend on each other, as one job.
///
/// # Safety
///
/// As for [`matmul`]; no C overlaps an operand of another product either.
pub(crate) unsafe fn matmuls<const N: usize>(pool: &Pool, args: &[MatMulArgs<'_>; N]) {
    let products = args.each_ref().map(Packed);
    let shape = |args: &MatMulArgs| Shape { batches: 1, m: args.m, k: args.k, n: args.n };
    let problems = products.each_ref().map(|p| (shape(p.0), p));
    // SAFETY: the caller's promise.
    unsafe { gemm::run_all(pool, Isa::get(), &problems) }
}

/// Computes a batch of products.
///
/// # Safety
///
/// For every product A is readable for m×k elements, B for k×n, the bias for m or n; C is writable for
/// m×n and overlaps nothing that is read and no other C.
pub(crate) unsafe fn batch_matmul(pool: &Pool, args: &BatchMatMulArgs<'_>) {
    // SAFETY: the caller's promise.
    unsafe { batch_matmul_for(Isa::get(), pool, args) }
}

/// [`batch_matmul`] on one instruction set.
///
/// # Safety
///
/// As for [`batch_matmul`].
unsafe fn batch_matmul_for(isa: &Isa, pool: &Pool, args: &BatchMatMulArgs<'_>) {
    let batches = args.batch.iter().fold(1, |product: usize, &axis| product.saturating_mul(axis));
    let shape = Shape { batches, m: args.m, k: args.k, n: args.n };
    // SAFETY: the caller's promise.
    unsafe { gemm::run(pool, isa, shape, &Batch(args)) }
}

/// The product with packed B.
struct Packed<'a>(&'a MatMulArgs<'a>);

// SAFETY: threads write disjoint parts of C and only read the rest, which is valid meanwhile.
unsafe impl Sync for Packed<'_> {}

impl Problem for Packed<'_> {
    const PACKS: bool = false;

    fn operands(&self, _batch: usize) -> Operands {
        self.0.operands()
    }

    unsafe fn slice(&self, isa: &Isa, slice: &Slice, _scratch: &mut [f32]) -> (*const f32, isize) {
        let nr = isa.nr();
        let (panel, column) = (slice.columns.start / nr, slice.columns.start % nr);
        let offset = (panel * self.0.k + slice.ks.start) * nr + column;
        (self.0.b.wrapping_add(offset), nr as isize)
    }

    unsafe fn finish(&self, isa: &Isa, _batch: usize, block: [Range<usize>; 2], c: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { self.0.finish(isa, block, c) }
    }
}

/// The batch of strided products.
struct Batch<'a>(&'a BatchMatMulArgs<'a>);

// SAFETY: as for `Packed`.
unsafe impl Sync for Batch<'_> {}

impl Batch<'_> {
    /// The position of a product along the axes of the batch.
    fn index(&self, batch: usize) -> [usize; 3] {
        let [_, middle, inner] = self.0.batch;
        [batch / inner / middle, batch / inner % middle, batch % inner]
    }

    /// The offset of a product's operand.
    fn offset(&self, batch: usize, strides: [isize; 3]) -> isize {
        self.index(batch).iter().zip(strides).map(|(&i, stride)| i as isize * stride).sum()
    }

    /// Whether a slice can be used where it lies: rows of whole vectors that are read so seldom, or
    /// lie so close, that packing would cost more than it saves.
    fn in_place(&self, isa: &Isa, columns: usize) -> bool {
        let close = self.0.b.row.unsigned_abs() <= 2 * isa.nr();
        let seldom = self.0.m <= 2 * isa.max_rows(isa.tiles.len());
        self.0.b.column == 1 && columns.is_multiple_of(isa.lanes) && (close || seldom)
    }
}

impl Problem for Batch<'_> {
    const PACKS: bool = true;

    fn operands(&self, batch: usize) -> Operands {
        let args = self.0;
        let a = args.a.ptr.wrapping_offset(self.offset(batch, args.a_batch));
        let c = args.c.wrapping_offset(self.offset(batch, args.c_batch));
        let links = args.epilogue.map_or(Links::NONE, |e| e.links(self.index(batch)));
        Operands { a: Strided { ptr: a, ..args.a }, c, c_row: args.c_row, scale: args.scale, bias: args.bias, links }
    }

    unsafe fn slice(&self, isa: &Isa, slice: &Slice, scratch: &mut [f32]) -> (*const f32, isize) {
        let args = self.0;
        let product = args.b.ptr.wrapping_offset(self.offset(slice.batch, args.b_batch));
        let b = Strided { ptr: product, ..args.b }.at(slice.ks.start, slice.columns.start);
        let columns = slice.columns.len();
        if self.in_place(isa, columns) {
            return (b.ptr, b.row);
        }
        let width = columns.next_multiple_of(isa.lanes);
        debug_assert!(scratch.len() >= slice.ks.len() * width);
        // SAFETY: the slice is inside B, and scratch holds a slice of a strip of whole vectors.
        unsafe { pack(isa, b, slice.ks.len(), columns, scratch.as_mut_ptr(), width, width) };
        (scratch.as_ptr(), width as isize)
    }

    unsafe fn finish(&self, isa: &Isa, batch: usize, [rows, columns]: [Range<usize>; 2], c: *mut f32) {
        if let Some(epilogue) = &self.0.epilogue {
            let block = Block { batch: self.index(batch), rows, columns, c, c_row: self.0.c_row };
            // SAFETY: the caller's promise.
            unsafe { epilogue.apply(isa, &block) }
        }
    }
}

#[cfg(test)]
mod tests;
