//! The best linear map of a rank between vectors, in closed form: reduced-rank ridge regression
//! (Mukherjee and Zhu, Statistical Analysis and Data Mining, 2011). It is the ridge solution,
//! projected onto the directions in which its predictions, the penalty counted, vary most.

use super::matmul::{Matrix, Panels, product};
use super::random::Random;

/// Steps of the power method. Directions that it has not told apart by then explain nearly the same.
const POWER_STEPS: usize = 40;

/// What remains of a vector that lies in the span of others is rounding below this part of it.
const DEPENDENT: f64 = 1e-9;

/// A map `x · down · up`.
pub(super) struct LowRank {
    /// `[inputs, rank]`.
    pub(super) down: Matrix<f64>,
    /// `[rank, outputs]`; its rows are orthonormal, or zero where fewer directions are enough.
    pub(super) up: Matrix<f64>,
}

/// Sums of products over paired rows `x` and `y`.
pub(super) struct Moments {
    rows: f64,
    /// `xᵀx`, `[inputs, inputs]`.
    xx: Matrix<f64>,
    /// `xᵀy`, `[inputs, outputs]`.
    xy: Matrix<f64>,
    /// `Σ y²`.
    yy: f64,
}

impl Moments {
    /// Those of `x` `[rows, inputs]` and `y` `[rows, outputs]`.
    pub(super) fn measure(x: &Matrix<f64>, y: &Matrix<f64>) -> Self {
        let turned = Panels::left_transposed(x);
        Self {
            rows: x.rows as f64,
            xx: product(&turned, &Panels::right(x)),
            xy: product(&turned, &Panels::right(y)),
            yy: y.values.iter().map(|v| v * v).sum(),
        }
    }

    /// Those of both sets of rows.
    pub(super) fn join(mut self, other: &Moments) -> Self {
        self.rows += other.rows;
        self.yy += other.yy;
        let add = |a: &mut Matrix<f64>, b: &Matrix<f64>| a.values.iter_mut().zip(&b.values).for_each(|(a, b)| *a += b);
        add(&mut self.xx, &other.xx);
        add(&mut self.xy, &other.xy);
        self
    }

    /// The map of at most this rank with the least `Σ (y − x·B)² + l2 · rows · Σ B²`; `None` if the
    /// penalty is too small for the precision of these sums.
    pub(super) fn map(&self, rank: usize, l2: f64, seed: u64) -> Option<LowRank> {
        let mut penalised = self.xx.clone();
        for i in 0..penalised.rows {
            penalised.row_mut(i)[i] += l2 * self.rows;
        }
        let ridge = solve(penalised, self.xy.clone())?;
        // With the penalty as further rows of data, the predictions' second moments are yᵀx · B.
        let predicted = product(&Panels::left_transposed(&self.xy), &Panels::right(&ridge));
        let up = leading(&predicted, rank, seed);
        let down = product(&Panels::left(&ridge), &Panels::right_transposed(&up));
        Some(LowRank { down, up })
    }

    /// The mean squared error of a map per row.
    pub(super) fn error(&self, map: &LowRank) -> f64 {
        let crossed = product(&Panels::left(&self.xy), &Panels::right_transposed(&map.up));
        let spread = product(&Panels::left(&self.xx), &Panels::right(&map.down));
        (self.yy - 2.0 * dot(&crossed.values, &map.down.values) + dot(&spread.values, &map.down.values)) / self.rows
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `matrix⁻¹ · right` of a positive definite matrix by Cholesky's decomposition; `None` for any other.
fn solve(mut matrix: Matrix<f64>, mut right: Matrix<f64>) -> Option<Matrix<f64>> {
    let n = matrix.rows;
    for i in 0..n {
        for j in 0..=i {
            let rest = matrix.row(i)[j] - dot(&matrix.row(i)[..j], &matrix.row(j)[..j]);
            if i == j && !(rest > 0.0 && rest.is_finite()) {
                return None;
            }
            let pivot = matrix.row(j)[j];
            matrix.row_mut(i)[j] = if i == j { rest.sqrt() } else { rest / pivot };
        }
    }
    for i in 0..n {
        (0..i).for_each(|j| subtract(&mut right, i, j, matrix.row(i)[j]));
        scale(right.row_mut(i), 1.0 / matrix.row(i)[i]);
    }
    for i in (0..n).rev() {
        (i + 1..n).for_each(|j| subtract(&mut right, i, j, matrix.row(j)[i]));
        scale(right.row_mut(i), 1.0 / matrix.row(i)[i]);
    }
    Some(right)
}

/// Takes `factor` times row `j` off row `i`, another one.
fn subtract(m: &mut Matrix<f64>, i: usize, j: usize, factor: f64) {
    let (low, high) = (i.min(j), i.max(j));
    let (first, second) = m.values.split_at_mut(high * m.columns);
    let (first, second) = (&mut first[low * m.columns..][..m.columns], &mut second[..m.columns]);
    let (to, from) = if i < j { (first, second) } else { (second, first) };
    to.iter_mut().zip(from).for_each(|(to, from)| *to -= factor * *from);
}

fn scale(row: &mut [f64], factor: f64) {
    row.iter_mut().for_each(|v| *v *= factor);
}

/// The leading eigenvectors of a positive semidefinite matrix, as rows: orthogonal iteration (Golub and
/// Van Loan, Matrix Computations, 2013, section 8.2.4).
fn leading(matrix: &Matrix<f64>, count: usize, seed: u64) -> Matrix<f64> {
    let mut random = Random::new(seed);
    let values: Vec<f64> = (0..count * matrix.rows).map(|_| random.normal()).collect();
    let mut vectors = Matrix::from_f64(count, matrix.rows, &values);
    let matrix = Panels::right(matrix);
    orthonormalise(&mut vectors);
    for _ in 0..POWER_STEPS {
        vectors = product(&Panels::left(&vectors), &matrix);
        orthonormalise(&mut vectors);
    }
    vectors
}

/// Makes rows orthonormal by Gram and Schmidt; those that depend on the rows before become zero.
fn orthonormalise(m: &mut Matrix<f64>) {
    for i in 0..m.rows {
        let before = dot(m.row(i), m.row(i)).sqrt();
        // Once more takes off what rounding left the first time.
        for _ in 0..2 {
            for j in 0..i {
                let along = dot(m.row(i), m.row(j));
                subtract(m, i, j, along);
            }
        }
        let rest = dot(m.row(i), m.row(i)).sqrt();
        let inverse = if rest > DEPENDENT * before { 1.0 / rest } else { 0.0 };
        scale(m.row_mut(i), inverse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rows: usize, columns: usize, seed: u64) -> Matrix<f64> {
        let mut random = Random::new(seed);
        let values: Vec<f64> = (0..rows * columns).map(|_| random.normal()).collect();
        Matrix::from_f64(rows, columns, &values)
    }

    fn times(a: &Matrix<f64>, b: &Matrix<f64>) -> Matrix<f64> {
        product(&Panels::left(a), &Panels::right(b))
    }

    fn distance(a: &Matrix<f64>, b: &Matrix<f64>) -> f64 {
        a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn a_map_of_low_rank_is_found_again() {
        let (x, map) = (random(60, 7, 1), times(&random(7, 2, 2), &random(2, 9, 3)));
        let moments = Moments::measure(&x, &times(&x, &map));
        for rank in [2, 5] {
            let found = moments.map(rank, 1e-12, 0).unwrap();
            assert!(distance(&times(&found.down, &found.up), &map) < 1e-6, "rank {rank}");
            assert!(moments.error(&found).abs() < 1e-9);
        }
        assert!(moments.error(&moments.map(1, 1e-12, 0).unwrap()) > 0.1);
    }

    /// The penalised loss of any other map of the rank is larger.
    #[test]
    fn no_map_nearby_is_better() {
        let (x, y) = (random(40, 6, 4), random(40, 5, 5));
        let moments = Moments::measure(&x, &y);
        let l2 = 0.05;
        let found = moments.map(2, l2, 0).unwrap();
        let loss = |down: &Matrix<f64>, up: &Matrix<f64>| {
            let map = times(down, up);
            let error = distance_squared(&times(&x, &map), &y);
            error + l2 * 40.0 * map.values.iter().map(|v| v * v).sum::<f64>()
        };
        let least = loss(&found.down, &found.up);
        for i in 0..200 {
            let (mut down, mut up) = (found.down.clone(), found.up.clone());
            let step = |m: &mut Matrix<f64>, by: &Matrix<f64>| {
                m.values.iter_mut().zip(&by.values).for_each(|(v, b)| *v += 0.02 * b);
            };
            step(&mut down, &random(6, 2, 100 + i));
            step(&mut up, &random(2, 5, 400 + i));
            assert!(loss(&down, &up) > least, "step {i}");
        }
        let predicted = times(&times(&x, &found.down), &found.up);
        assert!((moments.error(&found) - distance_squared(&predicted, &y) / 40.0).abs() < 1e-9);
    }

    fn distance_squared(a: &Matrix<f64>, b: &Matrix<f64>) -> f64 {
        a.values.iter().zip(&b.values).map(|(a, b)| (a - b).powi(2)).sum()
    }

    #[test]
    fn moments_add_up() {
        let (x, y) = (random(30, 4, 6), random(30, 3, 7));
        let part = |from: usize, to: usize| {
            let rows: Vec<usize> = (from..to).collect();
            Moments::measure(&x.select(&rows), &y.select(&rows))
        };
        let (whole, joined) = (Moments::measure(&x, &y), part(0, 11).join(&part(11, 30)));
        assert!(distance(&whole.xx, &joined.xx) < 1e-12 && distance(&whole.xy, &joined.xy) < 1e-12);
        assert!((whole.yy - joined.yy).abs() < 1e-12 && whole.rows == joined.rows);
    }

    #[test]
    fn sums_without_spread_need_a_penalty() {
        let x = Matrix::<f64>::zeros(10, 3);
        let moments = Moments::measure(&x, &random(10, 2, 8));
        assert!(moments.map(1, 0.0, 0).is_none());
        assert!(moments.map(1, 1e-3, 0).unwrap().down.values.iter().all(|v| *v == 0.0));
    }
}
