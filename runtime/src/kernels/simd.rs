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
mod tile;

use std::sync::LazyLock;

use super::epilogue::{self, Add, Clip, Join, Link, Max, Min, Pair, Pass};
use super::math::{self, Function};
pub(super) use images::{End, Reach, Stretch};
pub(super) use tile::{LINE, Tile};

/// A vector of f32.
///
/// # Safety
///
/// Every function needs the instruction set of the implementing type. Loads and stores touch
/// `LEN` elements, the `_part` forms only the lanes they name.
pub(super) trait Lanes: Copy {
    /// Elements of a vector.
    const LEN: usize;

    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(src: *const f32) -> Self;
    /// The first `len` lanes, the others zero.
    unsafe fn load_part(src: *const f32, len: usize) -> Self;
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
    unsafe fn sub(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    unsafe fn div(self, b: Self) -> Self;
    /// `self` where it is larger or NaN, else `b`.
    unsafe fn larger(self, b: Self) -> Self;
    /// `self` where it is smaller or NaN, else `b`.
    unsafe fn smaller(self, b: Self) -> Self;
    /// [`Lanes::larger`] of `lo`, then [`Lanes::smaller`] of `hi`, with `lo` not above `hi`, which is not zero.
    #[inline(always)]
    unsafe fn clip(self, lo: Self, hi: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { self.larger(lo).smaller(hi) }
    }
    /// `self` where it is greater than `b`, else `b`; not greater where one of them is NaN.
    unsafe fn max(self, b: Self) -> Self;
    /// Asks for the cache line of `src`, which need not be readable, to come into the second-level cache.
    fn prefetch(src: *const f32);
    /// Writes the transpose of the `LEN`×`LEN` block at `src`; rows of both blocks are contiguous.
    unsafe fn transpose(src: *const f32, src_row: isize, dst: *mut f32, dst_row: isize);
}

/// The bits of the second bfloat16 of a pair, where they are those of the same float.
const HIGH_HALF: i32 = 0xffff_0000_u32 as i32;

/// Copies `count` rows of `len` elements, at most a vector, and fills up the vectors with zeros.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) src: *const f32,
    pub(super) src_row: isize,
    pub(super) dst: *mut f32,
    pub(super) dst_row: isize,
    pub(super) count: usize,
    pub(super) len: usize,
}

pub(super) type TileFn = unsafe fn(&Tile<'_>);
pub(super) type StretchFn = unsafe fn(&Stretch<'_>);

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
    /// Computes outputs of a depthwise convolution.
    pub(super) stencil: StretchFn,
    /// Computes the greatest elements of windows, negative infinity if all are NaN.
    pub(super) greatest: StretchFn,
    /// Computes the sums of windows.
    pub(super) sum: StretchFn,
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

/// Copies one [`Segment`].
///
/// # Safety
///
/// The instruction set of `V`; each row is readable for `len` elements and writable for a vector.
#[inline(always)]
unsafe fn copy<V: Lanes>(s: &Segment) {
    let (mut src, mut dst) = (s.src, s.dst);
    for _ in 0..s.count {
        // SAFETY: the caller's promise, for each row.
        unsafe { V::load_part(src, s.len).store(dst) };
        src = src.wrapping_offset(s.src_row);
        dst = dst.wrapping_offset(s.dst_row);
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
            unsafe { super::tile::tile::<$lanes, MR, NV>(t) }
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
        unsafe fn stretch<F: super::images::Fold>(s: &super::Stretch<'_>) {
            // SAFETY: as for `tile`.
            unsafe { super::images::stretch::<$lanes, F>(s) }
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
            stencil: stretch::<super::images::Weighted>,
            greatest: stretch::<super::images::Greatest>,
            sum: stretch::<super::images::Sum>,
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
