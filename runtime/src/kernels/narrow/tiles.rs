//! Products of bfloat16 on matrix tiles (Intel AMX), 16 rows by 16 columns by 32 of k per instruction, or where
//! there are none in vectors ([`dots`]).
//!
//! A is rounded once, into rows of whole tiles; a block of 32 rows and a panel of 32 columns stay in four
//! tiles over all of k. In every sum of tiles the products of even and of odd k are added up in f32 per instruction
//! and then to what was there, without denormals (Intel SDM, TDPBF16PS), so sums differ from those of other
//! CPUs by their rounding. Instructions are named in assembly, since the intrinsics are not stable.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::LazyLock;

use eec_ir::precision::to_bf16;

use super::super::matmul::MatMulArgs;
use super::super::scratch::with_scores;
use super::{BF16_COLUMNS, BF16_ROWS, Shared, dots, finish_block, finish_row, round_row};
use crate::kernels::locate;
use crate::kernels::simd::Isa;
use crate::pool::Pool;

/// Rows and columns of a tile of sums.
const TILE: usize = 16;
/// Rows of a block.
const BLOCK: usize = 2 * TILE;
/// Blocks of rows that share a panel of B as one item of work.
const BLOCKS: usize = 8;
/// Elements of A that one thread rounds alone, in less time than it takes to wake another.
const ALONE: usize = 1 << 13;
/// Multiply-adds below which an item is not worth handing to another thread.
const GRAIN: usize = 1 << 17;

/// Whether this CPU multiplies bfloat16, in tiles or in vectors.
pub(super) fn available() -> bool {
    are_available() || dots::available()
}

/// Whether this CPU has tiles for bfloat16 and the system lets this process use them.
fn are_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| has_tiles() && is_permitted());
    *AVAILABLE
}

/// Whether the CPU has tiles, bfloat16 in them and AVX-512, and the system saves their state.
fn has_tiles() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    const STATE: u64 = 1 << 17 | 1 << 18;
    if !is_x86_feature_detected!("avx512f") || !is_x86_feature_detected!("avx512bw") || __cpuid(0).eax < 7 {
        return false;
    }
    // SAFETY: the control register is read only where the system has enabled that.
    let saved = || __cpuid(1).ecx & OSXSAVE != 0 && unsafe { xcr0() } & STATE == STATE;
    __cpuid_count(7, 0).edx & BF16_AND_TILES == BF16_AND_TILES && saved()
}

/// # Safety
///
/// The system has enabled XGETBV.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: the caller's promise.
    unsafe { _xgetbv(0) }
}

/// Asks for the permission to use tiles, which Linux gives to processes, not to threads.
fn is_permitted() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    if !cfg!(target_os = "linux") {
        return false;
    }
    let failed: i64;
    // SAFETY: the system call reads no memory and changes only what this process may use.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => failed, in("rdi") ARCH_REQ_XCOMP_PERM,
             in("rsi") XFEATURE_XTILEDATA, out("rcx") _, out("r11") _, options(nostack));
    }
    failed == 0
}

/// Computes the products, as one job.
///
/// # Safety
///
/// This CPU multiplies bfloat16; otherwise as for [`super::matmuls`], with weights for bfloat16.
pub(super) unsafe fn matmuls(pool: &Pool, products: &[MatMulArgs]) {
    // A float is two bfloat16.
    let size = |args: &MatMulArgs| args.m.next_multiple_of(TILE) * args.k.next_multiple_of(BF16_ROWS) / 2;
    with_scores(products.iter().map(size).sum(), |scratch| {
        let mut rest = scratch;
        let mut rounded: Vec<(MatMulArgs, Rounded)> = Vec::with_capacity(products.len());
        for args in products {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(size(args));
            rest = after;
            let known = rounded.iter().find(|(other, _)| same_rows(other, args)).map(|(_, a)| *a);
            let a = known.unwrap_or_else(|| {
                let a = Rounded { elements: part.as_mut_ptr().cast(), row: args.k.next_multiple_of(BF16_ROWS) };
                // SAFETY: the caller's promise; the part has the rows.
                unsafe { round(pool, args, &a) };
                a
            });
            rounded.push((*args, a));
        }
        // SAFETY: the caller's promise.
        unsafe { multiply(pool, &rounded) };
    });
}

/// Whether two products have the same first operand.
fn same_rows(x: &MatMulArgs, y: &MatMulArgs) -> bool {
    let of = |args: &MatMulArgs| (args.a.ptr, args.a.row, args.a.column, args.m, args.k);
    of(x) == of(y)
}

/// Rows of A as bfloat16, zeros beyond k.
#[derive(Clone, Copy)]
struct Rounded {
    elements: *mut u16,
    /// Elements of a row.
    row: usize,
}

/// # Safety
///
/// As for [`matmuls`].
unsafe fn round(pool: &Pool, args: &MatMulArgs, to: &Rounded) {
    let shared = Shared((args, *to));
    pool.run(args.m, ALONE.div_ceil(to.row.max(1)), &|rows| {
        let (args, to) = shared.get();
        for i in rows {
            // SAFETY: rows are disjoint parts of the scratch.
            unsafe {
                let dst = std::slice::from_raw_parts_mut(to.elements.add(i * to.row), to.row);
                round_one(args, i, dst);
            }
        }
    });
}

/// # Safety
///
/// The CPU has AVX-512; the row is inside A.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn round_one(args: &MatMulArgs, row: usize, dst: &mut [u16]) {
    let (elements, padding) = dst.split_at_mut(args.k);
    // SAFETY: the caller's promise.
    unsafe { round_row(args.a, row, elements, to_bf16) };
    padding.fill(0);
}

/// Panels of B, and parts of the rows that share one as an item of work.
fn items(args: &MatMulArgs) -> [usize; 2] {
    [args.n.div_ceil(BF16_COLUMNS), args.m.div_ceil(BLOCK * BLOCKS)]
}

/// # Safety
///
/// As for [`matmuls`], with the rows of every product rounded.
unsafe fn multiply(pool: &Pool, products: &[(MatMulArgs, Rounded)]) {
    let count = |args: &MatMulArgs| items(args).iter().product::<usize>();
    let work = |args: &MatMulArgs| args.m.clamp(TILE, BLOCK * BLOCKS) * BF16_COLUMNS * args.k.max(1);
    let grain = products.iter().map(|(args, _)| GRAIN.div_ceil(work(args))).min().unwrap_or(1);
    let shared = Shared(products);
    pool.run(products.iter().map(|(args, _)| count(args)).sum(), grain, &|items| {
        // SAFETY: tiles are available.
        let tiles = are_available().then(|| unsafe { Configured::new() });
        let products = shared.get();
        for (product, at) in items.filter_map(|at| locate(at, products.iter().map(|(args, _)| count(args)))) {
            let (args, a) = &products[product];
            // SAFETY: items are disjoint parts of C; the rest is the caller's promise.
            unsafe { item(args, a, at, tiles.as_ref()) };
        }
    });
}

/// One panel of B for a part of the rows.
///
/// # Safety
///
/// As for [`multiply`]; nobody else touches this part of C.
unsafe fn item(args: &MatMulArgs, a: &Rounded, item: usize, tiles: Option<&Configured>) {
    let [panels, _] = items(args);
    let (part, panel) = (item / panels, item % panels);
    let rows = part * BLOCK * BLOCKS..args.m.min((part + 1) * BLOCK * BLOCKS);
    for first in rows.clone().step_by(BLOCK) {
        let count = BLOCK.min(rows.end - first);
        let a = Rounded { elements: a.elements.wrapping_add(first * a.row), ..*a };
        // SAFETY: the block is inside C and nobody else's.
        unsafe { block(args, &a, [first, count], panel, tiles) };
    }
}

/// A block of sums as it comes from the tiles.
#[repr(C, align(64))]
struct Sums([[f32; BF16_COLUMNS]; BLOCK]);

/// One block of C: `count` rows from `first` on, the columns of one panel.
///
/// # Safety
///
/// As for [`matmuls`]; `a` holds the rows, up to a whole tile.
unsafe fn block(args: &MatMulArgs, a: &Rounded, [first, count]: [usize; 2], panel: usize, tiles: Option<&Configured>) {
    let mut sums = Sums([[0.0; BF16_COLUMNS]; BLOCK]);
    let b = args.b.cast::<u16>().wrapping_add(panel * a.row * BF16_COLUMNS);
    let steps = a.row / BF16_ROWS;
    // Four blocks fetch the next panel together.
    let quarter = a.row * BF16_COLUMNS / 4;
    let ahead = b.wrapping_add(quarter * (4 + first / BLOCK % BLOCKS));
    // SAFETY: the caller's promise.
    unsafe {
        match tiles {
            _ if steps == 0 => {}
            None => dots::sums(a.elements, a.row, count, b, a.row / 2, &mut sums.0),
            Some(_) if count > TILE => two_rows(a, b, ahead, steps, &mut sums),
            Some(_) => one_row(a, b, steps, &mut sums),
        }
        let column = panel * BF16_COLUMNS;
        finish(args, &sums, [first, count], column);
        finish_block(Isa::get(), args, first..first + count, column..args.n.min(column + BF16_COLUMNS));
    }
}

/// Applies scale and bias to the rows of a block, and stores them.
///
/// # Safety
///
/// The CPU has AVX-512; otherwise as for [`finish_row`], for all rows.
#[target_feature(enable = "avx512f")]
unsafe fn finish(args: &MatMulArgs, sums: &Sums, [first, count]: [usize; 2], column: usize) {
    for (i, sums) in sums.0.iter().enumerate().take(count) {
        // SAFETY: the caller's promise.
        unsafe { finish_row(args, first + i, column, sums) };
    }
}

/// Bytes from one row of sums, and of a panel of B, to the next.
const SUMS_ROW: usize = BF16_COLUMNS * size_of::<f32>();

/// Sums of up to 32 rows; meanwhile a quarter of a panel, from `ahead` on, is fetched into the second-level
/// cache.
///
/// # Safety
///
/// Tiles are configured; A has 32 rows and B a panel of `steps` times 32 elements of k, at least one.
unsafe fn two_rows(a: &Rounded, b: *const u16, ahead: *const u16, steps: usize, sums: &mut Sums) {
    // SAFETY: the tiles are read and written inside the operands.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {a_row}]",
            "tileloadd tmm6, [{b} + {b_row}]",
            "tileloadd tmm7, [{b} + {b_row} + 64]",
            "tileloadd tmm5, [{a2} + {a_row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            ".irp at, 0, 64, 128, 192, 256, 320, 384, 448",
            "prefetcht1 [{ahead} + \\at]",
            ".endr",
            "add {a}, 64",
            "add {a2}, 64",
            "add {b}, 2048",
            "add {ahead}, 512",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {b_row}], tmm0",
            "tilestored [{c} + {b_row} + 64], tmm1",
            "tilestored [{c} + {b_row} + 2048], tmm2",
            "tilestored [{c} + {b_row} + 2112], tmm3",
            a = inout(reg) a.elements => _,
            a2 = inout(reg) a.elements.add(TILE * a.row) => _,
            ahead = inout(reg) ahead => _,
            a_row = in(reg) a.row * size_of::<u16>(),
            b = inout(reg) b => _,
            b_row = in(reg) SUMS_ROW,
            c = in(reg) sums.0.as_mut_ptr(),
            steps = inout(reg) steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Sums of up to 16 rows, while what follows in B is fetched: reading it takes most of the time.
///
/// # Safety
///
/// As for [`two_rows`], with 16 rows.
unsafe fn one_row(a: &Rounded, b: *const u16, steps: usize, sums: &mut Sums) {
    // SAFETY: the tiles are read and written inside the operands.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "2:",
            "tileloadd tmm4, [{a} + {a_row}]",
            "tileloadd tmm6, [{b} + {b_row}]",
            "tileloadd tmm7, [{b} + {b_row} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            ".irp at, 0, 64, 128, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960",
            "prefetcht0 [{b} + \\at + 4096]",
            "prefetcht0 [{b} + \\at + 5120]",
            ".endr",
            "add {a}, 64",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {b_row}], tmm0",
            "tilestored [{c} + {b_row} + 64], tmm1",
            a = inout(reg) a.elements => _,
            a_row = in(reg) a.row * size_of::<u16>(),
            b = inout(reg) b => _,
            b_row = in(reg) SUMS_ROW,
            c = in(reg) sums.0.as_mut_ptr(),
            steps = inout(reg) steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// All tiles of this thread as 16 rows of 64 bytes, until it is dropped.
struct Configured;

/// What LDTILECFG reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configured {
    /// # Safety
    ///
    /// Tiles are available.
    unsafe fn new() -> Configured {
        let mut all = Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        all.row_bytes[..8].fill(64);
        all.rows[..8].fill(TILE as u8);
        // SAFETY: the configuration is one of this CPU's.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &all, options(nostack, readonly)) };
        Configured
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: tiles are available; no one uses those of this thread any more.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
