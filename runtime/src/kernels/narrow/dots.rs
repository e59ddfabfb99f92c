//! Products of bfloat16 in vectors (AVX-512 BF16): two products of 16 columns per instruction.
//!
//! In every sum the products of an odd and of an even k are added to what was there, each rounded, without
//! denormals (Intel SDM, VDPBF16PS), so sums differ from those of other CPUs by their rounding.

use std::arch::x86_64::*;
use std::sync::LazyLock;

use super::BF16_COLUMNS;

/// Pairs of a vector.
const LANES: usize = 16;

/// The most rows whose sums are in registers together: more addresses than registers hold would be read again
/// at every step.
const ROWS: usize = 8;

/// Whether this CPU multiplies bfloat16 in vectors.
pub(super) fn available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16")
    });
    *AVAILABLE
}

/// Sums of the first `count` rows of A, `a_row` elements apart, over `pairs` pairs of k.
///
/// # Safety
///
/// The CPU multiplies bfloat16 in vectors; A has the rows, B a panel of as many pairs, and there are sums for
/// every row.
pub(super) unsafe fn sums(
    a: *const u16,
    a_row: usize,
    count: usize,
    b: *const u16,
    pairs: usize,
    sums: &mut [[f32; BF16_COLUMNS]],
) {
    let mut first = 0;
    while first < count {
        let left = count - first;
        let rows = left.div_ceil(left.div_ceil(ROWS));
        let (a, to) = (a.wrapping_add(first * a_row), &mut sums[first..first + rows]);
        // SAFETY: the caller's promise, for some of the rows.
        unsafe {
            match rows {
                1 => of_rows::<1>(a, a_row, b, pairs, to),
                2 => of_rows::<2>(a, a_row, b, pairs, to),
                3 => of_rows::<3>(a, a_row, b, pairs, to),
                4 => of_rows::<4>(a, a_row, b, pairs, to),
                5 => of_rows::<5>(a, a_row, b, pairs, to),
                6 => of_rows::<6>(a, a_row, b, pairs, to),
                7 => of_rows::<7>(a, a_row, b, pairs, to),
                _ => of_rows::<ROWS>(a, a_row, b, pairs, to),
            }
        }
        first += rows;
    }
}

/// # Safety
///
/// As for [`sums`], for `N` rows.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn of_rows<const N: usize>(
    a: *const u16,
    a_row: usize,
    b: *const u16,
    pairs: usize,
    sums: &mut [[f32; BF16_COLUMNS]],
) {
    const VECTORS: usize = BF16_COLUMNS / LANES;
    // SAFETY: the caller's promise covers every address formed here.
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); VECTORS]; N];
        // Opaque, or the compiler makes each address from the one before: a chain as long as the step.
        let rows: [*const i32; N] = std::array::from_fn(|i| std::hint::black_box(a.add(i * a_row).cast()));
        let mut b: *const i32 = b.cast();
        for pair in 0..pairs {
            let mut columns = [_mm512_setzero_si512(); VECTORS];
            for (j, column) in columns.iter_mut().enumerate() {
                *column = _mm512_loadu_si512(b.add(j * LANES).cast());
            }
            for (row, sums) in rows.iter().zip(&mut acc) {
                let x = _mm512_set1_epi32(row.add(pair).read_unaligned());
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = _mm512_dpbf16_ps(
                        *sum,
                        std::mem::transmute::<__m512i, __m512bh>(x),
                        std::mem::transmute::<__m512i, __m512bh>(column),
                    );
                }
            }
            b = b.add(BF16_COLUMNS);
        }
        for (to, sums) in sums.iter_mut().zip(&acc) {
            for (j, sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(to.as_mut_ptr().add(j * LANES), *sum);
            }
        }
    }
}
