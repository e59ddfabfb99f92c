//! AVX2 with FMA: 8 lanes, 16 registers.

use std::arch::x86_64::*;

use super::{HIGH_HALF, Lanes, define_isa};

#[derive(Clone, Copy)]
struct F32x8(__m256);

/// The mask of the first `len` lanes, in the form of the masked moves.
#[inline(always)]
unsafe fn first(len: usize) -> __m256i {
    // SAFETY: register arithmetic; the caller has AVX2.
    unsafe {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(len.min(8) as i32), lane)
    }
}

impl Lanes for F32x8 {
    const LEN: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the trait's caller has AVX2.
        F32x8(unsafe { _mm256_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the trait's caller has AVX2.
        F32x8(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: 8 elements are readable.
        F32x8(unsafe { _mm256_loadu_ps(src) })
    }

    #[inline(always)]
    unsafe fn load_part(src: *const f32, len: usize) -> Self {
        // SAFETY: only the readable lanes are in the mask.
        F32x8(unsafe { _mm256_maskload_ps(src, first(len)) })
    }

    #[inline(always)]
    unsafe fn load_i8(src: *const i8) -> Self {
        // SAFETY: 8 elements are readable.
        F32x8(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(src.cast()))) })
    }

    #[inline(always)]
    unsafe fn load_pairs(src: *const u32) -> [Self; 2] {
        // SAFETY: 8 pairs are readable.
        unsafe {
            let pairs = _mm256_loadu_si256(src.cast());
            let high = _mm256_and_si256(pairs, _mm256_set1_epi32(HIGH_HALF));
            [_mm256_slli_epi32::<16>(pairs), high].map(|half| F32x8(_mm256_castsi256_ps(half)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: 8 elements are writable.
        unsafe { _mm256_storeu_ps(dst, self.0) }
    }

    #[inline(always)]
    unsafe fn store_part(self, dst: *mut f32, len: usize) {
        // A masked store is slow on some CPUs, so whole vectors take the plain one.
        if len >= Self::LEN {
            // SAFETY: 8 elements are writable.
            return unsafe { self.store(dst) };
        }
        // SAFETY: only the writable lanes are in the mask.
        unsafe { _mm256_maskstore_ps(dst, first(len), self.0) }
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, acc: Self) -> Self {
        // SAFETY: the trait's caller has FMA.
        F32x8(unsafe { _mm256_fmadd_ps(self.0, b.0, acc.0) })
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: the trait's caller has AVX2.
        F32x8(unsafe { _mm256_add_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: the trait's caller has AVX2.
        F32x8(unsafe { _mm256_max_ps(self.0, b.0) })
    }

    #[inline(always)]
    fn prefetch(src: *const f32) {
        // SAFETY: a prefetch faults nowhere; the trait's caller has SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(src.cast()) }
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: the trait's caller has AVX2.
        F32x8(unsafe { _mm256_sub_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: the trait's caller has AVX2.
        F32x8(unsafe { _mm256_mul_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: the trait's caller has AVX2.
        F32x8(unsafe { _mm256_div_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn larger(self, b: Self) -> Self {
        // SAFETY: register arithmetic; of a NaN and a number the instruction takes the second.
        F32x8(unsafe {
            let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0);
            _mm256_blendv_ps(_mm256_max_ps(self.0, b.0), self.0, nan)
        })
    }

    #[inline(always)]
    unsafe fn smaller(self, b: Self) -> Self {
        // SAFETY: register arithmetic; of a NaN and a number the instruction takes the second.
        F32x8(unsafe {
            let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0);
            _mm256_blendv_ps(_mm256_min_ps(self.0, b.0), self.0, nan)
        })
    }

    #[inline(always)]
    unsafe fn clip(self, lo: Self, hi: Self) -> Self {
        // SAFETY: register arithmetic; of a NaN and a number the instruction takes the second.
        F32x8(unsafe {
            let above = _mm256_cmp_ps::<_CMP_NLE_UQ>(self.0, lo.0);
            _mm256_blendv_ps(lo.0, _mm256_min_ps(hi.0, self.0), above)
        })
    }

    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_row: isize, dst: *mut f32, dst_row: isize) {
        // SAFETY: 8 rows of 8 elements are readable at `src` and writable at `dst`.
        unsafe {
            let mut rows = [_mm256_setzero_ps(); 8];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm256_loadu_ps(src.offset(i as isize * src_row));
            }
            let quads = transpose_quads(rows);
            for c in 0..4 {
                let left = _mm256_permute2f128_ps::<0x20>(quads[c], quads[4 + c]);
                let right = _mm256_permute2f128_ps::<0x31>(quads[c], quads[4 + c]);
                _mm256_storeu_ps(dst.offset(c as isize * dst_row), left);
                _mm256_storeu_ps(dst.offset((4 + c) as isize * dst_row), right);
            }
        }
    }
}

/// Transposes every 4×4 block inside each half of the rows and each 128-bit lane.
#[inline(always)]
unsafe fn transpose_quads(rows: [__m256; 8]) -> [__m256; 8] {
    let mut out = rows;
    for (group, r) in out.chunks_exact_mut(4).zip(rows.chunks_exact(4)) {
        // SAFETY: register arithmetic; the caller has AVX2.
        unsafe {
            let low = _mm256_castps_pd(_mm256_unpacklo_ps(r[0], r[1]));
            let low2 = _mm256_castps_pd(_mm256_unpacklo_ps(r[2], r[3]));
            let high = _mm256_castps_pd(_mm256_unpackhi_ps(r[0], r[1]));
            let high2 = _mm256_castps_pd(_mm256_unpackhi_ps(r[2], r[3]));
            group[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, low2));
            group[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, low2));
            group[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high, high2));
            group[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high, high2));
        }
    }
    out
}

define_isa!("avx2", F32x8, ["avx2,fma"], fused: true, f32::mul_add, {
    1: [1 2 3 4 5 6 7 8]
    2: [1 2 3 4 5 6]
});
