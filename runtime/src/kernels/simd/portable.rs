//! Any CPU: arrays of 4 lanes, left to the compiler's vectoriser.
//!
//! Without a fused instruction a true fused multiply-add is a library call per element, so this set
//! multiplies and adds with two roundings, in every one of its kernels alike.

use super::{HIGH_HALF, Lanes, define_isa};

#[derive(Clone, Copy)]
struct F32x4([f32; 4]);

/// The first `len` elements of `src`, zeros behind them.
///
/// # Safety
///
/// The elements are readable.
#[inline(always)]
pub(super) unsafe fn read_part<const L: usize>(src: *const f32, len: usize) -> [f32; L] {
    let mut lanes = [0.0; L];
    for (i, lane) in lanes.iter_mut().enumerate().take(len) {
        // SAFETY: `i` is below `len`.
        *lane = unsafe { *src.add(i) };
    }
    lanes
}

/// Writes the first `len` lanes.
///
/// # Safety
///
/// `dst[..len]` is writable.
#[inline(always)]
pub(super) unsafe fn write_part(dst: *mut f32, lanes: &[f32], len: usize) {
    for (i, &lane) in lanes.iter().enumerate().take(len) {
        // SAFETY: `i` is below `len`.
        unsafe { *dst.add(i) = lane };
    }
}

impl Lanes for F32x4 {
    const LEN: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        F32x4([0.0; 4])
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        F32x4([x; 4])
    }

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: 4 elements are readable.
        F32x4(unsafe { src.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_part(src: *const f32, len: usize) -> Self {
        // SAFETY: `len` elements are readable.
        F32x4(unsafe { read_part(src, len) })
    }

    #[inline(always)]
    unsafe fn load_i8(src: *const i8) -> Self {
        // SAFETY: 4 elements are readable.
        F32x4(unsafe { src.cast::<[i8; 4]>().read() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn load_pairs(src: *const u32) -> [Self; 2] {
        // SAFETY: 4 pairs are readable.
        let pairs = unsafe { src.cast::<[u32; 4]>().read_unaligned() };
        [pairs.map(|p| f32::from_bits(p << 16)), pairs.map(|p| f32::from_bits(p & HIGH_HALF as u32))].map(F32x4)
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: 4 elements are writable.
        unsafe { dst.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_part(self, dst: *mut f32, len: usize) {
        // SAFETY: `len` elements are writable.
        unsafe { write_part(dst, &self.0, len) }
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, acc: Self) -> Self {
        F32x4(std::array::from_fn(|i| multiply_add(self.0[i], b.0[i], acc.0[i])))
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        F32x4(std::array::from_fn(|i| self.0[i] + b.0[i]))
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        F32x4(std::array::from_fn(|i| if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] }))
    }

    #[inline(always)]
    fn prefetch(src: *const f32) {
        let _ = src;
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        F32x4(std::array::from_fn(|i| self.0[i] - b.0[i]))
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        F32x4(std::array::from_fn(|i| self.0[i] * b.0[i]))
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        F32x4(std::array::from_fn(|i| self.0[i] / b.0[i]))
    }

    #[inline(always)]
    unsafe fn larger(self, b: Self) -> Self {
        F32x4(std::array::from_fn(|i| if self.0[i] > b.0[i] || self.0[i].is_nan() { self.0[i] } else { b.0[i] }))
    }

    #[inline(always)]
    unsafe fn smaller(self, b: Self) -> Self {
        F32x4(std::array::from_fn(|i| if self.0[i] < b.0[i] || self.0[i].is_nan() { self.0[i] } else { b.0[i] }))
    }

    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_row: isize, dst: *mut f32, dst_row: isize) {
        for i in 0..4 {
            for j in 0..4 {
                // SAFETY: 4 rows of 4 elements are readable at `src` and writable at `dst`.
                unsafe { *dst.offset(j * dst_row + i) = *src.offset(i * src_row + j) };
            }
        }
    }
}

/// `x * y + acc` with two roundings.
#[inline(always)]
fn multiply_add(x: f32, y: f32, acc: f32) -> f32 {
    x * y + acc
}

define_isa!("portable", F32x4, [], fused: false, multiply_add, {
    1: [1 2 3 4]
    2: [1 2 3 4]
});
