//! The vector layer: one trait over the CPU's f32 vectors, the kernels written once against it,
//! and a table of their instances for each instruction set, chosen once per process.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod images;
pub(super) mod narrow;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use std::sync::LazyLock;

use super::Bias;
use super::epilogue::{self, Add, Join, Link, Max, Min, Pair, Pass};
use super::math::{self, Function};
pub(super) use images::{Plane, Windows};

/// A vector of f32.
///
/// # Safety
///
/// Every function needs the instruction set of the implementing type. Loads and stores touch
/// `LEN` elements, the `_span` and `_part` forms only the lanes they name.
pub(super) trait Lanes: Copy {
    /// Elements of a vector.
    const LEN: usize;

    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(src: *const f32) -> Self;
    /// Lanes `lo..hi` from `src[lo..hi]`, the others zero; `src` itself may lie outside the object.
    unsafe fn load_span(src: *const f32, lo: usize, hi: usize) -> Self;
    /// [`Lanes::load_span`] of every `step`-th element: lane `i` from `src[i * step]`.
    unsafe fn load_strided(src: *const f32, step: usize, lo: usize, hi: usize) -> Self;
    /// `LEN` integers as floats.
    unsafe fn load_i8(src: *const i8) -> Self;
    /// `LEN` pairs of bfloat16: the lower halves and the upper ones.
    unsafe fn load_pairs(src: *const u32) -> [Self; 2];
    unsafe fn store(self, dst: *mut f32);
    /// Stores the first `len` lanes.
    unsafe fn store_part(self, dst: *mut f32, len: usize);
    /// `self * b + acc`: one rounding, except in the portable set, which has two.
    unsafe fn fma(self, b: Self, acc: Self) -> Self;
    unsafe fn add(self, b: Self) -> Self;
    /// Asks for the cache line of `src`, which need not be readable, to come into the second-level cache.
    fn prefetch(src: *const f32);
    unsafe fn sub(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    unsafe fn div(self, b: Self) -> Self;
    /// `self` where it is larger or NaN, else `b`.
    unsafe fn larger(self, b: Self) -> Self;
    /// `self` where it is smaller or NaN, else `b`.
    unsafe fn smaller(self, b: Self) -> Self;
    /// `self` where it is greater than `b`, else `b`; not greater where one of them is NaN.
    unsafe fn max(self, b: Self) -> Self;
    /// Writes the transpose of the `LEN`×`LEN` block at `src`; rows of both blocks are contiguous.
    unsafe fn transpose(src: *const f32, src_row: isize, dst: *mut f32, dst_row: isize);
}

/// The bits of the second bfloat16 of a pair, where they are those of the same float.
const HIGH_HALF: i32 = 0xffff_0000_u32 as i32;

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// One tile: `C[rows, columns] = A·B`, its rows and vectors per row fixed by the kernel.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) a: *const f32,
    pub(super) a_row: isize,
    pub(super) a_col: isize,
    /// Rows of B; whole vectors are read, also for the columns beyond `columns`.
    pub(super) b: *const f32,
    pub(super) b_row: isize,
    /// Where each row of B begins, instead of a multiple of `b_row`; or null.
    pub(super) b_rows: *const isize,
    pub(super) c: *mut f32,
    pub(super) c_row: isize,
    pub(super) k: usize,
    pub(super) columns: usize,
    /// Continue the sums found in C instead of starting at zero.
    pub(super) resume: bool,
    /// What the sums are multiplied with, before the bias.
    pub(super) scale: f32,
    pub(super) bias: Bias,
    /// What is prefetched meanwhile: this many cache lines for each element of k, that many bytes apart.
    pub(super) ahead: *const f32,
    pub(super) ahead_lines: usize,
    pub(super) ahead_step: usize,
    /// What joins the sums after the bias, and which row of it the tile's first one is.
    pub(super) links: &'a [Link],
    pub(super) row: usize,
}

/// Copies `count` rows of `len` elements (at most a vector), `step` apart at the source. Only `lo..hi`
/// are read, the others become zero.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) src: *const f32,
    pub(super) src_row: isize,
    pub(super) step: usize,
    pub(super) dst: *mut f32,
    pub(super) dst_row: isize,
    pub(super) count: usize,
    pub(super) len: usize,
    pub(super) lo: usize,
    pub(super) hi: usize,
}

/// A block of output rows of a depthwise convolution: `len` (at most a vector) outputs per row, each
/// the sum over `taps` of weight times `src[offset]`.
#[derive(Clone, Copy)]
pub(super) struct Stencil {
    pub(super) src: *const f32,
    pub(super) src_row: isize,
    pub(super) dst: *mut f32,
    pub(super) dst_row: isize,
    pub(super) len: usize,
    pub(super) weights: *const f32,
    pub(super) offsets: *const isize,
    pub(super) taps: usize,
    pub(super) bias: Option<f32>,
}

pub(super) type TileFn = unsafe fn(&Tile<'_>);
pub(super) type StencilFn = unsafe fn(&Stencil);

/// The kernels of one instruction set.
pub(crate) struct Isa {
    /// For the messages of tests.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests name the instruction set"))]
    pub(super) name: &'static str,
    /// Elements of a vector.
    pub(crate) lanes: usize,
    /// `tiles[v - 1][r - 1]` computes `r` rows of `v` vectors.
    pub(super) tiles: &'static [&'static [TileFn]],
    /// Copies one segment.
    pub(super) copy: unsafe fn(&Segment),
    /// Widens a part of a panel of narrow weights.
    pub(super) widen: unsafe fn(&narrow::Widen),
    /// Multiplies a row by a panel of integers.
    pub(super) sweep: unsafe fn(&narrow::Sweep),
    /// Transposes a block of `lanes` × `lanes`.
    pub(super) transpose: unsafe fn(*const f32, isize, *mut f32, isize),
    /// `stencils[r - 1]` computes `r` rows.
    pub(super) stencils: [StencilFn; 4],
    /// `planes[s - 1]` computes a plane whose rows are `s` rows of the source apart.
    pub(super) planes: [unsafe fn(&Plane); 2],
    /// The greatest input of each window, negative infinity if all are NaN.
    pub(super) max_windows: unsafe fn(&Windows),
    /// The sum of the inputs of each window.
    pub(super) sum_windows: unsafe fn(&Windows),
    /// Replaces every value by the function of it.
    pub(crate) apply: unsafe fn(Function, &mut [f32]),
    /// Adds the second list to the first.
    pub(super) add: unsafe fn(&mut [f32], &[f32]),
    /// Replaces whole blocks of scores by their softmax.
    pub(super) softmax: unsafe fn(&mut [f32], Option<f32>),
    /// Makes one pass of an epilogue.
    pub(super) pass: unsafe fn(&Pass),
    /// Multiply-adds in registers: as many vectors of them as it returns.
    pub(crate) compute: unsafe fn(steps: usize) -> usize,
    /// Reads whole vectors and gives something that depends on all of them.
    pub(crate) read: unsafe fn(&[f32]) -> f32,
    /// One step of a sum, for reference: `x * y + acc`.
    #[cfg(test)]
    pub(super) step: fn(f32, f32, f32) -> f32,
}

impl Isa {
    /// Columns of a packed panel of B.
    pub(super) fn nr(&self) -> usize {
        self.lanes * self.tiles.len()
    }

    /// The most rows of a tile of `vectors` vectors.
    pub(super) fn max_rows(&self, vectors: usize) -> usize {
        self.tiles[vectors - 1].len()
    }

    /// The best set that this CPU has.
    pub(crate) fn get() -> &'static Isa {
        static BEST: LazyLock<&'static Isa> = LazyLock::new(|| Isa::available()[0]);
        &BEST
    }

    /// All sets that this CPU has, the best first.
    pub(super) fn available() -> Vec<&'static Isa> {
        let mut found: Vec<&'static Isa> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                found.push(&avx512::ISA);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(&avx2::ISA);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            found.push(&neon::ISA);
        }
        found.push(&portable::ISA);
        found
    }
}

/// Computes one tile. Each element is one chain of [`Lanes::fma`] over k in order, whatever the
/// tile's shape, so results do not depend on how the work was cut.
///
/// # Safety
///
/// The instruction set of `V`; A is readable for `MR` × k, B for k × `NV` vectors, C writable for
/// `MR` × `columns`, with `columns` above `NV - 1` vectors and at most `NV`; the bias covers the tile.
#[inline(always)]
unsafe fn tile<V: Lanes, const MR: usize, const NV: usize>(t: &Tile<'_>) {
    // SAFETY: the caller's promise covers every address formed below.
    unsafe {
        let mut acc = [[V::zero(); NV]; MR];
        if t.resume {
            for (i, row) in acc.iter_mut().enumerate() {
                *row = load_columns(t.c.offset(i as isize * t.c_row), t.columns);
            }
        }
        // Opaque, or the compiler makes each row's address from the one before: a chain as long as the step.
        let rows: [*const f32; MR] =
            std::array::from_fn(|i| std::hint::black_box(t.a.wrapping_offset(i as isize * t.a_row)));
        match t.ahead_lines {
            _ if !t.b_rows.is_null() => sweep_scattered(t, &rows, &mut acc),
            ..=1 => sweep::<V, MR, NV, 1>(t, &rows, &mut acc),
            2 => sweep::<V, MR, NV, 2>(t, &rows, &mut acc),
            _ => sweep::<V, MR, NV, 4>(t, &rows, &mut acc),
        }
        if t.scale != 1.0 {
            let scale = V::splat(t.scale);
            acc.iter_mut().flatten().for_each(|sum| *sum = sum.mul(scale));
        }
        add_bias::<V, MR, NV>(&mut acc, t);
        for link in t.links {
            match link.join {
                Join::Add => join::<V, Add, MR, NV>(&mut acc, link, t),
                Join::Max => join::<V, Max, MR, NV>(&mut acc, link, t),
                Join::Min => join::<V, Min, MR, NV>(&mut acc, link, t),
            }
        }
        for (i, row) in acc.iter().enumerate() {
            store_columns(t.c.offset(i as isize * t.c_row), row, t.columns);
        }
    }
}

/// Adds A·B to the sums of a tile, and prefetches from up to `AHEAD` cache lines per element of k.
///
/// # Safety
///
/// As for [`tile`]; `rows` are the rows of A.
#[inline(always)]
unsafe fn sweep<V: Lanes, const MR: usize, const NV: usize, const AHEAD: usize>(
    t: &Tile<'_>,
    rows: &[*const f32; MR],
    acc: &mut [[V; NV]; MR],
) {
    let (mut at, mut b, mut ahead) = (0, t.b, t.ahead);
    for _ in 0..t.k {
        // SAFETY: the caller's promise, for each element of k.
        unsafe {
            for j in 0..AHEAD {
                V::prefetch(ahead.wrapping_byte_add(j * LINE));
            }
            step(rows, at, b, acc);
        }
        at += t.a_col;
        b = b.wrapping_offset(t.b_row);
        ahead = ahead.wrapping_byte_add(t.ahead_step);
    }
}

/// Adds A·B to the sums of a tile whose rows of B are anywhere, and prefetches one cache line per element of k.
///
/// # Safety
///
/// As for [`tile`]; `rows` are the rows of A, and there are `k` rows of B.
#[inline(always)]
unsafe fn sweep_scattered<V: Lanes, const MR: usize, const NV: usize>(
    t: &Tile<'_>,
    rows: &[*const f32; MR],
    acc: &mut [[V; NV]; MR],
) {
    let (mut at, mut ahead) = (0, t.ahead);
    for k in 0..t.k {
        V::prefetch(ahead);
        // SAFETY: the caller's promise, for each element of k.
        unsafe { step(rows, at, t.b.offset(*t.b_rows.add(k)), acc) };
        at += t.a_col;
        ahead = ahead.wrapping_byte_add(t.ahead_step);
    }
}

/// Adds the products of one column of A and one row of B to the sums of a tile.
///
/// # Safety
///
/// As for [`tile`], with `a` and `b` at the same place of k.
#[inline(always)]
unsafe fn step<V: Lanes, const MR: usize, const NV: usize>(
    rows: &[*const f32; MR],
    at: isize,
    b: *const f32,
    acc: &mut [[V; NV]; MR],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut columns = [V::zero(); NV];
        for (j, column) in columns.iter_mut().enumerate() {
            *column = V::load(b.add(j * V::LEN));
        }
        for (row, a) in acc.iter_mut().zip(rows) {
            let x = V::splat(*a.offset(at));
            for (sum, &column) in row.iter_mut().zip(&columns) {
                *sum = x.fma(column, *sum);
            }
        }
    }
}

/// Adds the bias of a tile to its finished sums.
///
/// # Safety
///
/// As for [`tile`].
#[inline(always)]
unsafe fn add_bias<V: Lanes, const MR: usize, const NV: usize>(acc: &mut [[V; NV]; MR], t: &Tile) {
    // SAFETY: the bias covers the tile's rows or columns.
    unsafe {
        match t.bias {
            Bias::None => {}
            Bias::PerColumn(bias) => {
                let bias: [V; NV] = load_columns(bias, t.columns);
                for row in acc {
                    for (sum, &bias) in row.iter_mut().zip(&bias) {
                        *sum = sum.add(bias);
                    }
                }
            }
            Bias::PerRow(bias) => {
                for (i, row) in acc.iter_mut().enumerate() {
                    let bias = V::splat(*bias.add(i));
                    for sum in row {
                        *sum = sum.add(bias);
                    }
                }
            }
        }
    }
}

/// Joins the values of a link to the sums of a tile.
///
/// # Safety
///
/// As for [`tile`]; the link's values are readable for the tile.
#[inline(always)]
unsafe fn join<V: Lanes, F: Pair, const MR: usize, const NV: usize>(
    acc: &mut [[V; NV]; MR],
    link: &Link,
    t: &Tile<'_>,
) {
    let first = link.other.at(t.row, 0);
    // SAFETY: the caller's promise.
    unsafe {
        if first.column == 0 {
            for (i, row) in acc.iter_mut().enumerate() {
                let other = V::splat(*first.at(i, 0).ptr);
                for sum in row {
                    *sum = F::of(*sum, other);
                }
            }
            return;
        }
        for (i, row) in acc.iter_mut().enumerate() {
            let others: [V; NV] = load_columns(first.at(i, 0).ptr, t.columns);
            for (sum, &other) in row.iter_mut().zip(&others) {
                *sum = F::of(*sum, other);
            }
        }
    }
}

/// Loads `columns` elements into `NV` vectors, the last of which may be partial.
///
/// # Safety
///
/// `src` is readable for `columns` elements, more than `NV - 1` vectors and at most `NV`.
#[inline(always)]
unsafe fn load_columns<V: Lanes, const NV: usize>(src: *const f32, columns: usize) -> [V; NV] {
    let last = NV - 1;
    // SAFETY: `last` whole vectors and the rest are inside `columns`.
    unsafe {
        let mut out = [V::zero(); NV];
        for (j, vector) in out.iter_mut().enumerate().take(last) {
            *vector = V::load(src.add(j * V::LEN));
        }
        out[last] = V::load_span(src.add(last * V::LEN), 0, columns - last * V::LEN);
        out
    }
}

/// Stores the first `columns` elements of `NV` vectors.
///
/// # Safety
///
/// As for [`load_columns`], with `dst` writable.
#[inline(always)]
unsafe fn store_columns<V: Lanes, const NV: usize>(dst: *mut f32, row: &[V; NV], columns: usize) {
    let last = NV - 1;
    // SAFETY: `last` whole vectors and the rest are inside `columns`.
    unsafe {
        for (j, vector) in row.iter().enumerate().take(last) {
            vector.store(dst.add(j * V::LEN));
        }
        row[last].store_part(dst.add(last * V::LEN), columns - last * V::LEN);
    }
}

/// Copies one [`Segment`].
///
/// # Safety
///
/// The instruction set of `V`; each row is readable in `lo..hi` and writable in `..len`.
#[inline(always)]
unsafe fn copy<V: Lanes>(s: &Segment) {
    let (mut src, mut dst) = (s.src, s.dst);
    for _ in 0..s.count {
        // SAFETY: the caller's promise, for each row.
        unsafe {
            let row = match s.step {
                1 => V::load_span(src, s.lo, s.hi),
                step => V::load_strided(src, step, s.lo, s.hi),
            };
            row.store_part(dst, s.len);
        }
        src = src.wrapping_offset(s.src_row);
        dst = dst.wrapping_offset(s.dst_row);
    }
}

/// Computes `R` rows of a [`Stencil`], each output a chain over the taps in order.
///
/// # Safety
///
/// The instruction set of `V`; whole vectors are readable at every tap of every row, `len` elements
/// of every row writable, and there are `taps` weights and offsets.
#[inline(always)]
unsafe fn stencil<V: Lanes, const R: usize>(s: &Stencil) {
    // SAFETY: the caller's promise covers every address formed below.
    unsafe {
        let mut acc = [V::zero(); R];
        for tap in 0..s.taps {
            let weight = V::splat(*s.weights.add(tap));
            let src = s.src.offset(*s.offsets.add(tap));
            for (r, sum) in acc.iter_mut().enumerate() {
                *sum = weight.fma(V::load(src.offset(r as isize * s.src_row)), *sum);
            }
        }
        for (r, &sum) in acc.iter().enumerate() {
            let sum = s.bias.map_or(sum, |bias| sum.add(V::splat(bias)));
            sum.store_part(s.dst.offset(r as isize * s.dst_row), s.len);
        }
    }
}

/// Chains of multiply-adds that hide each other's latency.
const CHAINS: usize = 12;

/// Multiply-adds from register to register; the number of vectors of them.
///
/// # Safety
///
/// The instruction set of `V`.
#[inline(always)]
unsafe fn compute<V: Lanes>(steps: usize) -> usize {
    // SAFETY: register arithmetic.
    unsafe {
        let mut acc = [V::zero(); CHAINS];
        let (x, y) = (V::splat(std::hint::black_box(0.5)), V::splat(std::hint::black_box(0.25)));
        for _ in 0..steps {
            for sum in &mut acc {
                *sum = x.fma(y, *sum);
            }
        }
        std::hint::black_box(acc);
    }
    steps * CHAINS
}

/// Adds up whole vectors of `values`; what is left of them is not read.
///
/// # Safety
///
/// The instruction set of `V`.
#[inline(always)]
unsafe fn read<V: Lanes>(values: &[f32]) -> f32 {
    const STREAMS: usize = 4;
    // SAFETY: every chunk is as long as the vectors loaded from it; `out` is a whole vector.
    unsafe {
        let mut acc = [V::zero(); STREAMS];
        for chunk in values.chunks_exact(STREAMS * V::LEN) {
            for (i, sum) in acc.iter_mut().enumerate() {
                *sum = sum.add(V::load(chunk.as_ptr().add(i * V::LEN)));
            }
        }
        let mut out = [0.0; 16];
        acc.into_iter().fold(V::zero(), |a, b| a.add(b)).store_part(out.as_mut_ptr(), V::LEN);
        out.iter().sum()
    }
}

/// Defines `ISA`, the table of one instruction set's kernels, in the module that calls it.
macro_rules! define_isa {
    ($name:literal, $lanes:ty, [$($feature:literal)?], fused: $fused:literal, $step:expr, { $($nv:literal: [$($mr:literal)*])* }) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn tile<const MR: usize, const NV: usize>(t: &super::Tile<'_>) {
            // SAFETY: the caller keeps the promises of the generic kernel; the features are here.
            unsafe { super::tile::<$lanes, MR, NV>(t) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn copy(s: &super::Segment) {
            // SAFETY: as for `tile`.
            unsafe { super::copy::<$lanes>(s) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn widen(w: &super::narrow::Widen) {
            // SAFETY: as for `tile`.
            unsafe { super::narrow::widen::<$lanes>(w) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn sweep(s: &super::narrow::Sweep) {
            // SAFETY: as for `tile`.
            unsafe { super::narrow::sweep::<$lanes>(s) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn transpose(src: *const f32, src_row: isize, dst: *mut f32, dst_row: isize) {
            // SAFETY: as for `tile`.
            unsafe { <$lanes as super::Lanes>::transpose(src, src_row, dst, dst_row) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn stencil<const R: usize>(s: &super::Stencil) {
            // SAFETY: as for `tile`.
            unsafe { super::stencil::<$lanes, R>(s) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn plane<const STEP: usize>(p: &super::Plane) {
            // SAFETY: as for `tile`.
            unsafe { super::images::plane::<$lanes, STEP>(p) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn max_windows(w: &super::Windows) {
            // SAFETY: as for `tile`.
            unsafe { super::images::windows::<$lanes>(w, f32::NEG_INFINITY, |best, x| super::Lanes::max(x, best)) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn sum_windows(w: &super::Windows) {
            // SAFETY: as for `tile`.
            unsafe { super::images::windows::<$lanes>(w, 0.0, |sum, x| super::Lanes::add(sum, x)) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn apply(function: super::Function, values: &mut [f32]) {
            super::math::apply::<{ $fused }>(function, values)
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn add(values: &mut [f32], others: &[f32]) {
            super::math::add(values, others)
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn softmax(scores: &mut [f32], instead: Option<f32>) {
            super::math::softmax::<{ $fused }>(scores, instead)
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn pass(p: &super::Pass) {
            // SAFETY: as for `tile`.
            unsafe { super::epilogue::pass::<$lanes>(p) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn compute(steps: usize) -> usize {
            // SAFETY: as for `tile`.
            unsafe { super::compute::<$lanes>(steps) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn read(values: &[f32]) -> f32 {
            // SAFETY: as for `tile`.
            unsafe { super::read::<$lanes>(values) }
        }

        /// The kernels of this instruction set.
        pub(super) static ISA: super::Isa = super::Isa {
            name: $name,
            lanes: <$lanes as super::Lanes>::LEN,
            tiles: &[$(&[$(tile::<$mr, $nv>),*]),*],
            copy,
            widen,
            sweep,
            transpose,
            stencils: [stencil::<1>, stencil::<2>, stencil::<3>, stencil::<4>],
            planes: [plane::<1>, plane::<2>],
            max_windows,
            sum_windows,
            apply,
            add,
            softmax,
            pass,
            compute,
            read,
            #[cfg(test)]
            step: $step,
        };
    };
}
use define_isa;
