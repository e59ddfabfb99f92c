//! The tile of a matrix product, the kernel that all products spend their time in: written once against
//! [`Lanes`], with its rows and vectors per row fixed by its instance.

use super::Lanes;
use crate::kernels::Bias;
use crate::kernels::epilogue::{Add, Clip, Join, Link, Max, Min, Pair};

/// Bytes of a cache line.
pub(in crate::kernels) const LINE: usize = 64;

/// One tile: `C[rows, columns] = A·B`, its rows and vectors per row fixed by the kernel.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Tile<'a> {
    pub(in crate::kernels) a: *const f32,
    pub(in crate::kernels) a_row: isize,
    /// Where each row of A begins, instead of a multiple of `a_row`; or null.
    pub(in crate::kernels) a_rows: *const isize,
    pub(in crate::kernels) a_col: isize,
    /// Where the runs of A begin in every row, of `k` elements each: the sums go over one after the other.
    pub(in crate::kernels) runs: &'a [isize],
    /// Rows of B; whole vectors are read, also for the columns beyond `columns`.
    pub(in crate::kernels) b: *const f32,
    pub(in crate::kernels) b_row: isize,
    /// Where each row of B begins, instead of a multiple of `b_row`; or null. Then A has one run.
    pub(in crate::kernels) b_rows: *const isize,
    pub(in crate::kernels) c: *mut f32,
    pub(in crate::kernels) c_row: isize,
    /// Elements of a run.
    pub(in crate::kernels) k: usize,
    pub(in crate::kernels) columns: usize,
    /// Continue the sums found in C instead of starting at zero.
    pub(in crate::kernels) resume: bool,
    /// What the sums are multiplied with, before the bias.
    pub(in crate::kernels) scale: f32,
    pub(in crate::kernels) bias: Bias,
    /// What is prefetched meanwhile: this many cache lines for each element of k, that many bytes apart.
    pub(in crate::kernels) ahead: *const f32,
    pub(in crate::kernels) ahead_lines: usize,
    pub(in crate::kernels) ahead_step: usize,
    /// What joins the sums after the bias, and at which row and column of it the tile begins.
    pub(in crate::kernels) links: &'a [Link],
    pub(in crate::kernels) row: usize,
    pub(in crate::kernels) column: usize,
    /// What the sums are clipped to in the end.
    pub(in crate::kernels) clip: Option<Clip>,
}

/// Computes one tile. Each element is one chain of [`Lanes::fma`] over k in order, whatever the
/// tile's shape, so results do not depend on how the work was cut.
///
/// # Safety
///
/// The instruction set of `V`; A is readable for `MR` × k, B for k × `NV` vectors, C writable for
/// `MR` × `columns`, with `columns` above `NV - 1` vectors and at most `NV`; the bias covers the tile.
#[inline(always)]
pub(super) unsafe fn tile<V: Lanes, const MR: usize, const NV: usize>(t: &Tile<'_>) {
    // SAFETY: the caller's promise covers every address formed below.
    unsafe {
        for link in t.links {
            fetch::<V, MR, NV>(link, t);
        }
        let mut acc = [[V::zero(); NV]; MR];
        if t.resume {
            for (i, row) in acc.iter_mut().enumerate() {
                *row = load_columns(t.c.offset(i as isize * t.c_row), t.columns);
            }
        }
        // Opaque, or the compiler makes each row's address from the one before: a chain as long as the step.
        let rows: [*const f32; MR] = std::array::from_fn(|i| {
            let row = if t.a_rows.is_null() { i as isize * t.a_row } else { *t.a_rows.add(i) };
            std::hint::black_box(t.a.wrapping_offset(row))
        });
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
        if let Some(clip) = t.clip {
            let (lo, hi) = (V::splat(clip.lo), V::splat(clip.hi));
            for row in &mut acc {
                for sum in row {
                    *sum = sum.clip(lo, hi);
                }
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
    let (mut b, mut ahead) = (t.b, t.ahead);
    for &run in t.runs {
        let mut at = run;
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
}

/// Adds A·B to the sums of a tile whose rows of B are anywhere.
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
    let mut at = 0;
    for k in 0..t.k {
        // SAFETY: the caller's promise, for each element of k.
        unsafe { step(rows, at, t.b.offset(*t.b_rows.add(k)), acc) };
        at += t.a_col;
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
    // SAFETY: the bias covers the tile's columns.
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
        }
    }
}

/// Asks for the values of a link that has one for each element, which may be far away.
#[inline(always)]
fn fetch<V: Lanes, const MR: usize, const NV: usize>(link: &Link, t: &Tile<'_>) {
    if link.other.column != 0 {
        for row in 0..MR {
            for vector in 0..NV {
                V::prefetch(link.other.at(t.row + row, t.column + vector * V::LEN).ptr);
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
    let first = link.other.at(t.row, t.column);
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
        out[last] = V::load_part(src.add(last * V::LEN), columns - last * V::LEN);
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
