//! Centres and scales features for the fit, and folds that into the first layer afterwards.

use super::matmul::{Matrix, Real};

/// A column whose deviation is below this part of its largest magnitude carries no more than
/// rounding noise in `f32`; scaling it up would only fit that noise.
const CONSTANT: f64 = 1e-5;

/// Mean and inverse deviation per column; the inverse is 0 for constant columns.
#[derive(Clone, Debug)]
pub(crate) struct Standardiser {
    mean: Vec<f64>,
    scale: Vec<f64>,
}

impl Standardiser {
    /// Measures the columns of the `[n, width]` matrix over `rows`.
    pub(crate) fn measure(values: &[f32], width: usize, rows: &[usize]) -> Self {
        let n = rows.len().max(1) as f64;
        let mut mean = vec![0.0; width];
        let mut square = vec![0.0; width];
        let mut largest = vec![0.0f64; width];
        for row in rows.iter().map(|&r| &values[r * width..(r + 1) * width]) {
            for ((m, l), &v) in mean.iter_mut().zip(&mut largest).zip(row) {
                *m += f64::from(v) / n;
                *l = l.max(f64::from(v).abs());
            }
        }
        for row in rows.iter().map(|&r| &values[r * width..(r + 1) * width]) {
            for ((s, m), &v) in square.iter_mut().zip(&mean).zip(row) {
                *s += (f64::from(v) - m).powi(2) / n;
            }
        }
        let scale = square.iter().zip(&largest).map(|(s, l)| {
            let deviation = s.sqrt();
            if deviation > CONSTANT * l { 1.0 / deviation } else { 0.0 }
        });
        Self { scale: scale.collect(), mean }
    }

    /// The standardised `rows`.
    pub(crate) fn apply<T: Real>(&self, values: &[f32], rows: &[usize]) -> Matrix<T> {
        let width = self.mean.len();
        let mut out = Matrix::zeros(rows.len(), width);
        for (i, &r) in rows.iter().enumerate() {
            let row = &values[r * width..(r + 1) * width];
            for (j, (out, &v)) in out.row_mut(i).iter_mut().zip(row).enumerate() {
                *out = T::from_f64((f64::from(v) - self.mean[j]) * self.scale[j]);
            }
        }
        out
    }

    /// Rewrites `weight[width, outputs]` and `bias[outputs]`, fitted on standardised features,
    /// so that they give the same result on raw ones.
    pub(crate) fn fold(&self, weight: &mut [f64], bias: &mut [f64]) {
        let outputs = bias.len().max(1);
        for (j, weights) in weight.chunks_exact_mut(outputs).enumerate() {
            for (w, b) in weights.iter_mut().zip(bias.iter_mut()) {
                *w *= self.scale[j];
                *b -= self.mean[j] * *w;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_weights_give_the_same_sums() {
        let values: Vec<f32> = (0..30).map(|i| (i as f32 * 0.7).sin() * 5.0 + 100.0).collect();
        let rows: Vec<usize> = (0..10).collect();
        let standardiser = Standardiser::measure(&values, 3, &rows);
        let x: Matrix<f64> = standardiser.apply(&values, &rows);
        let (w, b) = (vec![0.5, -1.0, 2.0, 0.25, -0.75, 1.5], vec![0.1, -0.2]);
        let (mut wf, mut bf) = (w.clone(), b.clone());
        standardiser.fold(&mut wf, &mut bf);
        for r in 0..10 {
            for o in 0..2 {
                let a: f64 = (0..3).map(|j| x.row(r)[j] * w[j * 2 + o]).sum::<f64>() + b[o];
                let raw = (0..3).map(|j| f64::from(values[r * 3 + j]) * wf[j * 2 + o]);
                assert!((a - raw.sum::<f64>() - bf[o]).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn constant_columns_get_no_weight() {
        let values = [7.0f32, 1.0, 7.0, 2.0, 7.0, 4.0];
        let standardiser = Standardiser::measure(&values, 2, &[0, 1, 2]);
        let (mut w, mut b) = (vec![3.0, 1.0], vec![0.0]);
        standardiser.fold(&mut w, &mut b);
        assert_eq!(w[0], 0.0);
        assert!(w[1] > 0.0);
    }
}
