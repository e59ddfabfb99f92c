//! Products by narrow weights: bfloat16 and 8-bit integers with scales, packed once at load. (16-bit floats are widened
//! when they are packed, and their products are those of floats.)
//!
//! Packed weights are panels of columns, zeros beyond the last one, widened slice by slice while they are
//! used, so that the sums are those of the float kernels. Where the CPU multiplies bfloat16, products of
//! bfloat16 run there, for any number of rows: the order of a sum must not depend on them.

#[cfg(target_arch = "x86_64")]
mod dots;
mod pack;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiles;

use std::ops::Range;

use eec_ir::Precision;
use eec_ir::precision::{from_bf16, to_bf16};

pub(crate) use pack::{Matrix, pack, packed_len};

use super::epilogue::{Block, Finish, Operand};
use super::gemm::{self, Operands, Problem, Shape, Slice};
use super::matmul::{self, MatMulArgs};
use super::scratch::with_scores;
use super::simd::Isa;
use super::simd::narrow::{Panel, Sweep, Widen};
use super::{Bias, Strided, locate};
use crate::pool::Pool;

/// Columns of a packed panel of bfloat16: two matrix tiles.
const BF16_COLUMNS: usize = 32;
/// Columns of a packed panel of integers: a cache line.
const INT8_COLUMNS: usize = 64;
/// Rows of bfloat16 are packed up to a multiple of this, the rows of a matrix tile.
const BF16_ROWS: usize = 32;

/// Rows for which integers are widened in registers, once for each.
const FEW_ROWS: usize = 3;
/// Integers below which a product by few rows is not worth handing to another thread.
const FEW_GRAIN: usize = 1 << 16;

/// Rows that are computed at a time hold at most this many elements of A, so that their rounded copy stays
/// small.
const MAX_ROUNDED: usize = 1 << 23;

/// Computes C = scale · A·B + bias, with B packed for `precision`.
///
/// # Safety
///
/// As for [`matmul::matmul`], with B as [`pack`] wrote it for this precision, or [`matmul::pack_b`] for
/// [`Precision::F32`] and [`Precision::F16`].
pub(crate) unsafe fn matmul(pool: &Pool, args: &MatMulArgs, precision: Precision) {
    // SAFETY: the caller's promise.
    unsafe {
        match precision {
            Precision::F32 | Precision::F16 => matmul::matmul(pool, args),
            Precision::Int8 if args.m <= FEW_ROWS => few_rows(Isa::get(), pool, std::slice::from_ref(args)),
            Precision::Int8 => widened(Isa::get(), pool, args, precision),
            Precision::Bf16 => in_parts(args, |part| bf16(pool, part)),
        }
    }
}

/// [`matmul`] for several products that do not depend on each other: one job for the threads if they have
/// few rows.
///
/// # Safety
///
/// As for [`matmul`]; no C overlaps an operand of another product either.
pub(crate) unsafe fn matmuls(pool: &Pool, products: &[MatMulArgs], precision: Precision) {
    let have = |rows: usize| products.iter().all(|args| args.m <= rows);
    // SAFETY: the caller's promise; the CPU's own products are used where it has them.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if precision == Precision::Bf16 && tiles::available() && have(BF16_ROWS) {
            return tiles::matmuls(pool, products);
        }
        if precision == Precision::Int8 && have(FEW_ROWS) {
            return few_rows(Isa::get(), pool, products);
        }
        products.iter().for_each(|args| matmul(pool, args, precision));
    }
}

/// Calls `f` with parts of the rows.
fn in_parts(args: &MatMulArgs, f: impl Fn(&MatMulArgs)) {
    let rows = (MAX_ROUNDED / args.k.max(1)).max(BF16_ROWS);
    if args.m <= rows {
        return f(args);
    }
    for row in (0..args.m).step_by(rows) {
        let moved = |o: &Operand| Operand { matrix: o.matrix.at(row, 0), ..*o };
        let operands: Vec<Operand> = args.epilogue.iter().flat_map(|e| e.operands).map(moved).collect();
        f(&MatMulArgs {
            a: args.a.at(row, 0),
            c: args.c.wrapping_offset(row as isize * args.c_row),
            m: rows.min(args.m - row),
            epilogue: args.epilogue.map(|e| Finish { operands: &operands, ..e }),
            ..*args
        });
    }
}

/// # Safety
///
/// As for [`matmul`].
unsafe fn bf16(pool: &Pool, args: &MatMulArgs) {
    // SAFETY: the caller's promise; the CPU's own products are used where it has them.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if tiles::available() {
            return tiles::matmuls(pool, std::slice::from_ref(args));
        }
        bf16_widened(Isa::get(), pool, args);
    }
}

/// The product of rounded A with widened weights.
///
/// # Safety
///
/// As for [`matmul`], with weights for [`Precision::Bf16`].
unsafe fn bf16_widened(isa: &Isa, pool: &Pool, args: &MatMulArgs) {
    let k = args.k;
    with_scores(args.m * k, |rounded| {
        let shared = Shared((args, rounded.as_mut_ptr()));
        pool.run(args.m, (1 << 14) / k.max(1) + 1, &|rows| {
            let (args, to) = shared.get();
            for row in rows {
                // SAFETY: every row is written by one thread, and read as the caller promised.
                unsafe {
                    let dst = std::slice::from_raw_parts_mut(to.add(row * k), k);
                    round_row(args.a, row, dst, |x| from_bf16(to_bf16(x)));
                }
            }
        });
        let a = Strided { ptr: rounded.as_ptr(), row: k as isize, column: 1 };
        // SAFETY: the caller's promise.
        unsafe { widened(isa, pool, &MatMulArgs { a, ..*args }, Precision::Bf16) };
    });
}

/// Writes `round` of the first elements of a row of A.
///
/// # Safety
///
/// The row of A is readable for as many elements.
#[inline(always)]
unsafe fn round_row<T>(a: Strided, row: usize, dst: &mut [T], round: impl Fn(f32) -> T) {
    let from = a.at(row, 0);
    if from.column == 1 {
        // SAFETY: the caller's promise.
        let src = unsafe { std::slice::from_raw_parts(from.ptr, dst.len()) };
        dst.iter_mut().zip(src).for_each(|(y, x)| *y = round(*x));
        return;
    }
    for (column, y) in dst.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *y = round(unsafe { *from.at(0, column).ptr });
    }
}

/// Arguments of one product that its threads share.
struct Shared<T>(T);

// SAFETY: threads write disjoint parts of results and only read the rest, which is valid meanwhile.
unsafe impl<T> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    fn get(&self) -> T {
        self.0
    }
}

/// Products of few rows by integers, which are widened in registers: the time goes into reading them.
///
/// # Safety
///
/// As for [`matmuls`], with weights for [`Precision::Int8`].
unsafe fn few_rows(isa: &Isa, pool: &Pool, products: &[MatMulArgs]) {
    let panels = |args: &MatMulArgs| args.n.div_ceil(INT8_COLUMNS);
    let k = products.iter().map(|args| args.k).max().unwrap_or_default();
    let shared = Shared((isa, products));
    pool.run(products.iter().map(panels).sum(), FEW_GRAIN.div_ceil(k.max(1) * INT8_COLUMNS), &|items| {
        let (isa, products) = shared.get();
        for (product, panel) in items.filter_map(|item| locate(item, products.iter().map(panels))) {
            // SAFETY: the caller's promise; panels are disjoint parts of C.
            unsafe { few_rows_by_panel(isa, &products[product], panel) };
        }
    });
}

/// # Safety
///
/// As for [`few_rows`]; nobody else touches these columns of C.
unsafe fn few_rows_by_panel(isa: &Isa, args: &MatMulArgs, panel: usize) {
    let column = panel * INT8_COLUMNS;
    let (Panel::Int8(integers, scales), width) = (Widened { args, precision: Precision::Int8 }).panel(column) else {
        return;
    };
    let mut sums = [0.0; INT8_COLUMNS];
    for row in 0..args.m {
        let a = args.a.at(row, 0);
        let (a, a_step, sums_at) = (a.ptr, a.column, sums.as_mut_ptr());
        // SAFETY: the caller's promise.
        unsafe {
            (isa.sweep)(&Sweep { a, a_step, integers, scales, width, k: args.k, sums: sums_at });
            finish_row(args, row, column, &sums);
            finish_block(isa, args, row..row + 1, column..column + INT8_COLUMNS.min(args.n - column));
        }
    }
}

/// Applies the epilogue to stored sums.
///
/// # Safety
///
/// The block is inside C, and nobody else touches it.
unsafe fn finish_block(isa: &Isa, args: &MatMulArgs, rows: Range<usize>, columns: Range<usize>) {
    let Some(epilogue) = &args.epilogue else { return };
    let c = args.c.wrapping_offset(rows.start as isize * args.c_row + columns.start as isize);
    // SAFETY: the caller's promise.
    unsafe { epilogue.apply_all(isa, &Block { batch: [0; 3], rows, columns, c, c_row: args.c_row }) }
}

/// Applies scale and bias to finished sums of one row from `column` on, and stores those inside C.
///
/// # Safety
///
/// The row and at least one column are inside C, which nobody else touches there.
#[inline(always)]
unsafe fn finish_row<const N: usize>(args: &MatMulArgs, row: usize, column: usize, sums: &[f32; N]) {
    let columns = N.min(args.n - column);
    let mut finished = *sums;
    if args.scale != 1.0 {
        finished.iter_mut().for_each(|x| *x *= args.scale);
    }
    // SAFETY: the bias covers rows and columns of C, and this part of C is writable.
    unsafe {
        match args.bias {
            Bias::None => {}
            Bias::PerColumn(bias) => {
                let bias = std::slice::from_raw_parts(bias.add(column), columns);
                finished.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
            }
        }
        let c = args.c.offset(row as isize * args.c_row + column as isize);
        std::ptr::copy_nonoverlapping(finished.as_ptr(), c, columns);
    }
}

/// The product with weights widened slice by slice.
///
/// # Safety
///
/// As for [`matmul`], with narrow weights.
unsafe fn widened(isa: &Isa, pool: &Pool, args: &MatMulArgs, precision: Precision) {
    let shape = Shape { batches: 1, m: args.m, k: args.k, n: args.n };
    // SAFETY: the caller's promise.
    unsafe { gemm::run(pool, isa, shape, &Widened { args, precision }) }
}

struct Widened<'a> {
    args: &'a MatMulArgs<'a>,
    precision: Precision,
}

// SAFETY: threads write disjoint parts of C and only read the rest, which is valid meanwhile.
unsafe impl Sync for Widened<'_> {}

impl Widened<'_> {
    /// The panel that holds a column, from there on, and the columns of a panel.
    fn panel(&self, column: usize) -> (Panel, usize) {
        let MatMulArgs { b, k, n, .. } = *self.args;
        if self.precision == Precision::Bf16 {
            let pairs = b.cast::<u32>();
            let (panel, at) = (column / BF16_COLUMNS, column % BF16_COLUMNS);
            let rows = k.next_multiple_of(BF16_ROWS) / 2;
            return (Panel::Bf16(pairs.wrapping_add(panel * rows * BF16_COLUMNS + at)), BF16_COLUMNS);
        }
        let (panel, at) = (column / INT8_COLUMNS, column % INT8_COLUMNS);
        let scales = b.wrapping_byte_add(n.div_ceil(INT8_COLUMNS) * INT8_COLUMNS * k);
        let groups = k.div_ceil(Precision::GROUP);
        let integers = b.cast::<i8>().wrapping_add(panel * k * INT8_COLUMNS + at);
        (Panel::Int8(integers, scales.wrapping_add(panel * groups * INT8_COLUMNS + at)), INT8_COLUMNS)
    }
}

impl Problem for Widened<'_> {
    const PACKS: bool = true;

    fn operands(&self, _batch: usize) -> Operands {
        self.args.operands()
    }

    unsafe fn finish(&self, isa: &Isa, _batch: usize, block: [Range<usize>; 2], c: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { self.args.finish(isa, block, c) }
    }

    unsafe fn slice(&self, isa: &Isa, slice: &Slice, scratch: &mut [f32]) -> (*const f32, isize) {
        let columns = slice.columns.len().next_multiple_of(isa.lanes);
        debug_assert!(scratch.len() >= slice.ks.len() * columns);
        let mut done = 0;
        while done < columns {
            let column = slice.columns.start + done;
            let (panel, width) = self.panel(column);
            let part = (width - column % width).min(columns - done);
            let dst = scratch.as_mut_ptr().wrapping_add(done);
            let widen = Widen { panel, width, rows: slice.ks.clone(), columns: part, dst, dst_row: columns };
            // SAFETY: panels are whole vectors wide, and scratch holds a slice of a strip of them.
            unsafe { (isa.widen)(&widen) };
            done += part;
        }
        (scratch.as_ptr(), columns as isize)
    }
}
