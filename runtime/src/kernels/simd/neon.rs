//! NEON: 4 lanes, 32 registers.

use std::arch::aarch64::*;

use super::{HIGH_HALF, Lanes, define_isa, portable};

#[derive(Clone, Copy)]
struct F32x4(float32x4_t);

impl Lanes for F32x4 {
    const LEN: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the trait's caller has NEON.
        F32x4(unsafe { vdupq_n_f32(0.0) })
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the trait's caller has NEON.
        F32x4(unsafe { vdupq_n_f32(x) })
    }

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: 4 elements are readable.
        F32x4(unsafe { vld1q_f32(src) })
    }

    #[inline(always)]
    unsafe fn load_part(src: *const f32, len: usize) -> Self {
        // SAFETY: `len` elements are readable.
        unsafe {
            if len >= Self::LEN {
                return Self::load(src);
            }
            Self::load(portable::read_part::<4>(src, len).as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn load_i8(src: *const i8) -> Self {
        // SAFETY: 4 elements are readable.
        unsafe {
            let bytes = vcreate_s8(u64::from(src.cast::<u32>().read_unaligned()));
            F32x4(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes)))))
        }
    }

    #[inline(always)]
    unsafe fn load_pairs(src: *const u32) -> [Self; 2] {
        // SAFETY: 4 pairs are readable.
        unsafe {
            let pairs = vld1q_u32(src);
            let high = vandq_u32(pairs, vdupq_n_u32(HIGH_HALF as u32));
            [vshlq_n_u32::<16>(pairs), high].map(|half| F32x4(vreinterpretq_f32_u32(half)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: 4 elements are writable.
        unsafe { vst1q_f32(dst, self.0) }
    }

    #[inline(always)]
    unsafe fn store_part(self, dst: *mut f32, len: usize) {
        // SAFETY: `len` elements are writable.
        unsafe {
            if len >= Self::LEN {
                return self.store(dst);
            }
            let mut lanes = [0.0; 4];
            self.store(lanes.as_mut_ptr());
            portable::write_part(dst, &lanes, len);
        }
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, acc: Self) -> Self {
        // SAFETY: the trait's caller has NEON.
        F32x4(unsafe { vfmaq_f32(acc.0, self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: the trait's caller has NEON.
        F32x4(unsafe { vaddq_f32(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: the trait's caller has NEON.
        F32x4(unsafe { vbslq_f32(vcgtq_f32(self.0, b.0), self.0, b.0) })
    }

    #[inline(always)]
    fn prefetch(src: *const f32) {
        // A hint that stable Rust does not offer here.
        let _ = src;
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: the trait's caller has NEON.
        F32x4(unsafe { vsubq_f32(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: the trait's caller has NEON.
        F32x4(unsafe { vmulq_f32(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: the trait's caller has NEON.
        F32x4(unsafe { vdivq_f32(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn larger(self, b: Self) -> Self {
        // SAFETY: the trait's caller has NEON.
        F32x4(unsafe {
            let number = vceqq_f32(self.0, self.0);
            vbslq_f32(vornq_u32(vcgtq_f32(self.0, b.0), number), self.0, b.0)
        })
    }

    #[inline(always)]
    unsafe fn smaller(self, b: Self) -> Self {
        // SAFETY: the trait's caller has NEON.
        F32x4(unsafe {
            let number = vceqq_f32(self.0, self.0);
            vbslq_f32(vornq_u32(vcltq_f32(self.0, b.0), number), self.0, b.0)
        })
    }

    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_row: isize, dst: *mut f32, dst_row: isize) {
        // SAFETY: 4 rows of 4 elements are readable at `src` and writable at `dst`.
        unsafe {
            let row = |i: isize| vld1q_f32(src.offset(i * src_row));
            let put = |i: isize, row| vst1q_f32(dst.offset(i * dst_row), row);
            let (r0, r1, r2, r3) = (row(0), row(1), row(2), row(3));
            let even = vreinterpretq_f64_f32(vtrn1q_f32(r0, r1));
            let odd = vreinterpretq_f64_f32(vtrn2q_f32(r0, r1));
            let even2 = vreinterpretq_f64_f32(vtrn1q_f32(r2, r3));
            let odd2 = vreinterpretq_f64_f32(vtrn2q_f32(r2, r3));
            put(0, vreinterpretq_f32_f64(vtrn1q_f64(even, even2)));
            put(1, vreinterpretq_f32_f64(vtrn1q_f64(odd, odd2)));
            put(2, vreinterpretq_f32_f64(vtrn2q_f64(even, even2)));
            put(3, vreinterpretq_f32_f64(vtrn2q_f64(odd, odd2)));
        }
    }
}

define_isa!("neon", F32x4, ["neon"], fused: true, f32::mul_add, {
    1: [1 2 3 4 5 6 7 8]
    2: [1 2 3 4 5 6 7 8]
    3: [1 2 3 4 5 6 7 8]
    4: [1 2 3 4 5 6]
});
