//! Packed matrix products for the fit: one operand in panels of rows, the other in panels of
//! columns, so that the inner loop runs over fixed-width arrays and the compiler vectorises it.

use std::ops::{Add, AddAssign, Mul, Sub};

/// Rows of the left operand that one tile covers.
const TILE_ROWS: usize = 4;
/// Columns of the right operand that one tile covers.
const TILE_COLUMNS: usize = 8;
/// Products summed in one go. Short runs keep both panels in the first-level cache, and partial
/// sums keep the rounding error of `f32` from growing with the number of samples.
const DEPTH: usize = 256;

/// The scalar that a fit computes in: `f32` for speed, `f64` for checking gradients.
pub(crate) trait Real:
    Copy + Default + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + AddAssign
{
    /// Rounds `x` to this type.
    fn from_f64(x: f64) -> Self;
    /// Widens to `f64`.
    fn to_f64(self) -> f64;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
}

impl Real for f32 {
    fn from_f64(x: f64) -> Self {
        x as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn tanh(self) -> Self {
        f32::tanh(self)
    }
}

impl Real for f64 {
    fn from_f64(x: f64) -> Self {
        x
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn tanh(self) -> Self {
        f64::tanh(self)
    }
}

/// A row-major `[rows, columns]` matrix.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix<T> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Vec<T>,
}

impl<T: Real> Matrix<T> {
    /// All zeros.
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![T::default(); rows * columns] }
    }

    /// Rounds a row-major slice of `rows * columns` values.
    pub(crate) fn from_f64(rows: usize, columns: usize, values: &[f64]) -> Self {
        Self { rows, columns, values: values.iter().map(|&v| T::from_f64(v)).collect() }
    }

    /// Row `i`.
    pub(crate) fn row(&self, i: usize) -> &[T] {
        &self.values[i * self.columns..(i + 1) * self.columns]
    }

    /// Row `i`, to be changed.
    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [T] {
        &mut self.values[i * self.columns..(i + 1) * self.columns]
    }

    /// The rows `rows` alone, in that order.
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        let values = rows.iter().flat_map(|&r| self.row(r)).copied().collect();
        Self { rows: rows.len(), columns: self.columns, values }
    }

    /// The sum over rows, one value per column.
    pub(crate) fn column_sums(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.columns];
        for row in self.values.chunks_exact(self.columns.max(1)) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value.to_f64();
            }
        }
        sums
    }
}

/// One operand cut into panels of `width` lines; a panel holds, for each step along the summed
/// dimension, its `width` values side by side. Missing lines of the last panel are zero.
#[derive(Clone, Debug)]
pub(crate) struct Panels<T> {
    lines: usize,
    depth: usize,
    width: usize,
    values: Vec<T>,
}

impl<T: Real> Panels<T> {
    /// `m` as a left operand: its rows are the lines, its columns are summed over.
    pub(crate) fn left(m: &Matrix<T>) -> Self {
        Self::pack(m.rows, m.columns, TILE_ROWS, |line, k| m.values[line * m.columns + k])
    }

    /// The transpose of `m` as a left operand: its rows are summed over.
    pub(crate) fn left_transposed(m: &Matrix<T>) -> Self {
        Self::pack(m.columns, m.rows, TILE_ROWS, |line, k| m.values[k * m.columns + line])
    }

    /// `m` as a right operand: its rows are summed over.
    pub(crate) fn right(m: &Matrix<T>) -> Self {
        Self::pack(m.columns, m.rows, TILE_COLUMNS, |line, k| m.values[k * m.columns + line])
    }

    /// The transpose of `m` as a right operand: its columns are summed over.
    pub(crate) fn right_transposed(m: &Matrix<T>) -> Self {
        Self::pack(m.rows, m.columns, TILE_COLUMNS, |line, k| m.values[line * m.columns + k])
    }

    fn pack(lines: usize, depth: usize, width: usize, at: impl Fn(usize, usize) -> T) -> Self {
        let mut values = Vec::with_capacity(lines.div_ceil(width) * width * depth);
        for first in (0..lines).step_by(width) {
            for k in 0..depth {
                values.extend((first..first + width).map(|line| if line < lines { at(line, k) } else { T::default() }));
            }
        }
        Self { lines, depth, width, values }
    }

    /// The steps `from..to` of panel `index`.
    fn slice(&self, index: usize, from: usize, to: usize) -> &[T] {
        let start = index * self.depth * self.width;
        &self.values[start + from * self.width..start + to * self.width]
    }
}

/// The product of a left and a right operand, `[left.lines, right.lines]`. Both must have the
/// same depth. The order of summation depends on the shapes alone.
pub(crate) fn product<T: Real>(left: &Panels<T>, right: &Panels<T>) -> Matrix<T> {
    debug_assert_eq!(left.depth, right.depth);
    let mut out = Matrix::zeros(left.lines, right.lines);
    for from in (0..left.depth).step_by(DEPTH) {
        let to = (from + DEPTH).min(left.depth);
        for j in 0..right.lines.div_ceil(TILE_COLUMNS) {
            let b = right.slice(j, from, to);
            for i in 0..left.lines.div_ceil(TILE_ROWS) {
                let tile = tile(left.slice(i, from, to), b);
                add_tile(&mut out, i * TILE_ROWS, j * TILE_COLUMNS, &tile);
            }
        }
    }
    out
}

/// The inner product of two panel slices.
#[inline]
fn tile<T: Real>(a: &[T], b: &[T]) -> [[T; TILE_COLUMNS]; TILE_ROWS] {
    let mut sums = [[T::default(); TILE_COLUMNS]; TILE_ROWS];
    let (a, _) = a.as_chunks::<TILE_ROWS>();
    let (b, _) = b.as_chunks::<TILE_COLUMNS>();
    for (a, b) in a.iter().zip(b) {
        for (sums, &a) in sums.iter_mut().zip(a) {
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
    }
    sums
}

/// Adds the part of `tile` that lies inside `out`.
fn add_tile<T: Real>(out: &mut Matrix<T>, row: usize, column: usize, tile: &[[T; TILE_COLUMNS]; TILE_ROWS]) {
    let last = out.rows.min(row + TILE_ROWS);
    for (i, sums) in (row..last).zip(tile) {
        for (value, &sum) in out.row_mut(i)[column..].iter_mut().zip(sums) {
            *value += sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(rows: usize, columns: usize, step: f64) -> Matrix<f64> {
        let values: Vec<f64> = (0..rows * columns).map(|i| (i as f64 * step).sin()).collect();
        Matrix::from_f64(rows, columns, &values)
    }

    #[test]
    fn products_agree_with_the_definition_in_all_orientations() {
        let (a, b) = (ramp(7, 300, 0.37), ramp(300, 11, 0.11));
        let mut expected = Matrix::<f64>::zeros(7, 11);
        for i in 0..7 {
            for j in 0..11 {
                expected.row_mut(i)[j] = (0..300).map(|k| a.row(i)[k] * b.row(k)[j]).sum();
            }
        }
        let turn = |m: &Matrix<f64>| {
            let mut t = Matrix::zeros(m.columns, m.rows);
            for i in 0..m.rows {
                for j in 0..m.columns {
                    t.row_mut(j)[i] = m.row(i)[j];
                }
            }
            t
        };
        let (at, bt) = (turn(&a), turn(&b));
        for left in [Panels::left(&a), Panels::left_transposed(&at)] {
            for right in [Panels::right(&b), Panels::right_transposed(&bt)] {
                let got = product(&left, &right);
                for (g, e) in got.values.iter().zip(&expected.values) {
                    assert!((g - e).abs() < 1e-12, "{g} {e}");
                }
            }
        }
    }
}
