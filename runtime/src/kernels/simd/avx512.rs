//! AVX-512: 16 lanes, 32 registers; tails are masks.

use std::arch::x86_64::*;

use super::{HIGH_HALF, Lanes, define_isa};

#[derive(Clone, Copy)]
struct F32x16(__m512);

/// The mask of lanes `..len`.
#[inline(always)]
fn first(len: usize) -> __mmask16 {
    ((1u32 << len.min(16)) - 1) as __mmask16
}

impl Lanes for F32x16 {
    const LEN: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the trait's caller has AVX-512.
        F32x16(unsafe { _mm512_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the trait's caller has AVX-512.
        F32x16(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: 16 elements are readable.
        F32x16(unsafe { _mm512_loadu_ps(src) })
    }

    #[inline(always)]
    unsafe fn load_part(src: *const f32, len: usize) -> Self {
        // SAFETY: only the readable lanes are in the mask.
        F32x16(unsafe { _mm512_maskz_loadu_ps(first(len), src) })
    }

    #[inline(always)]
    unsafe fn load_i8(src: *const i8) -> Self {
        // SAFETY: 16 elements are readable.
        F32x16(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(src.cast()))) })
    }

    #[inline(always)]
    unsafe fn load_pairs(src: *const u32) -> [Self; 2] {
        // SAFETY: 16 pairs are readable.
        unsafe {
            let pairs = _mm512_loadu_si512(src.cast());
            let high = _mm512_and_si512(pairs, _mm512_set1_epi32(HIGH_HALF));
            [_mm512_slli_epi32::<16>(pairs), high].map(|half| F32x16(_mm512_castsi512_ps(half)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: 16 elements are writable.
        unsafe { _mm512_storeu_ps(dst, self.0) }
    }

    #[inline(always)]
    unsafe fn store_part(self, dst: *mut f32, len: usize) {
        // SAFETY: only the writable lanes are in the mask.
        unsafe { _mm512_mask_storeu_ps(dst, first(len), self.0) }
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, acc: Self) -> Self {
        // SAFETY: the trait's caller has AVX-512.
        F32x16(unsafe { _mm512_fmadd_ps(self.0, b.0, acc.0) })
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: the trait's caller has AVX-512.
        F32x16(unsafe { _mm512_add_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: the trait's caller has AVX-512.
        F32x16(unsafe { _mm512_max_ps(self.0, b.0) })
    }

    #[inline(always)]
    fn prefetch(src: *const f32) {
        // SAFETY: a prefetch faults nowhere; the trait's caller has SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(src.cast()) }
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: the trait's caller has AVX-512.
        F32x16(unsafe { _mm512_sub_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: the trait's caller has AVX-512.
        F32x16(unsafe { _mm512_mul_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: the trait's caller has AVX-512.
        F32x16(unsafe { _mm512_div_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn larger(self, b: Self) -> Self {
        // SAFETY: register arithmetic; of a NaN and a number the instruction takes the second.
        F32x16(unsafe {
            let number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(self.0, self.0);
            _mm512_mask_max_ps(self.0, number, self.0, b.0)
        })
    }

    #[inline(always)]
    unsafe fn smaller(self, b: Self) -> Self {
        // SAFETY: register arithmetic; of a NaN and a number the instruction takes the second.
        F32x16(unsafe {
            let number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(self.0, self.0);
            _mm512_mask_min_ps(self.0, number, self.0, b.0)
        })
    }

    #[inline(always)]
    unsafe fn clip(self, lo: Self, hi: Self) -> Self {
        // SAFETY: register arithmetic; of a NaN and a number the instruction takes the second.
        F32x16(unsafe {
            let above = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(self.0, lo.0);
            _mm512_mask_min_ps(lo.0, above, hi.0, self.0)
        })
    }

    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_row: isize, dst: *mut f32, dst_row: isize) {
        // SAFETY: 16 rows of 16 elements are readable at `src` and writable at `dst`.
        unsafe {
            let mut rows = [_mm512_setzero_ps(); 16];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_ps(src.offset(i as isize * src_row));
            }
            let columns = transpose_lanes(transpose_quads(rows));
            for (i, &column) in columns.iter().enumerate() {
                _mm512_storeu_ps(dst.offset(i as isize * dst_row), column);
            }
        }
    }
}

/// Transposes every 4×4 block inside each group of four rows and each 128-bit lane: lane `l` of
/// `out[4 * g + c]` holds column `4 * l + c` of rows `4 * g..4 * g + 4`.
#[inline(always)]
unsafe fn transpose_quads(rows: [__m512; 16]) -> [__m512; 16] {
    let mut out = rows;
    for (group, r) in out.chunks_exact_mut(4).zip(rows.chunks_exact(4)) {
        // SAFETY: register arithmetic; the caller has AVX-512.
        unsafe {
            let low = _mm512_castps_pd(_mm512_unpacklo_ps(r[0], r[1]));
            let low2 = _mm512_castps_pd(_mm512_unpacklo_ps(r[2], r[3]));
            let high = _mm512_castps_pd(_mm512_unpackhi_ps(r[0], r[1]));
            let high2 = _mm512_castps_pd(_mm512_unpackhi_ps(r[2], r[3]));
            group[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, low2));
            group[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, low2));
            group[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, high2));
            group[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, high2));
        }
    }
    out
}

/// Transposes the 4×4 matrix of 128-bit lanes that [`transpose_quads`] leaves for each column `c`.
#[inline(always)]
unsafe fn transpose_lanes(quads: [__m512; 16]) -> [__m512; 16] {
    let mut out = quads;
    for c in 0..4 {
        let [q0, q1, q2, q3] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
        // SAFETY: register arithmetic; the caller has AVX-512.
        unsafe {
            let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(q0, q1);
            let even2 = _mm512_shuffle_f32x4::<0b10_00_10_00>(q2, q3);
            let odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(q0, q1);
            let odd2 = _mm512_shuffle_f32x4::<0b11_01_11_01>(q2, q3);
            out[c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(even, even2);
            out[4 + c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(odd, odd2);
            out[8 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(even, even2);
            out[12 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(odd, odd2);
        }
    }
    out
}

define_isa!("avx512", F32x16, ["avx512f"], fused: true, f32::mul_add, {
    1: [1 2 3 4 5 6 7 8]
    2: [1 2 3 4 5 6 7 8]
    3: [1 2 3 4 5 6 7 8]
    4: [1 2 3 4 5 6]
});
