//! What a fit minimises. For a head `α · CE(label) + (1 − α) · T² · KL(teacher ‖ student)`, teacher
//! and student both at temperature `T` (Hinton, Vinyals and Dean, arXiv 1503.02531); for a map
//! between vectors half the squared error. Both are means over rows.

use super::matmul::{Matrix, Real};

/// A loss of layers' outputs, whose targets it holds.
pub(crate) trait Loss: Clone {
    /// The targets of `rows` alone, in that order.
    fn select(&self, rows: &[usize]) -> Self;

    /// The mean loss over rows; `outputs` become its gradient.
    fn loss_and_gradient<T: Real>(&self, outputs: &mut Matrix<T>) -> f64;
}

/// The vectors that outputs should equal.
#[derive(Clone, Debug)]
pub(crate) struct Squares {
    /// `[rows, outputs]`.
    pub(crate) targets: Matrix<f32>,
}

impl Loss for Squares {
    fn select(&self, rows: &[usize]) -> Self {
        Self { targets: self.targets.select(rows) }
    }

    fn loss_and_gradient<T: Real>(&self, outputs: &mut Matrix<T>) -> f64 {
        let rows = outputs.rows.max(1) as f64;
        let mut total = 0.0;
        for (out, target) in outputs.values.iter_mut().zip(&self.targets.values) {
            let error = out.to_f64() - f64::from(*target);
            total += 0.5 * error * error;
            *out = T::from_f64(error / rows);
        }
        total / rows
    }
}

/// What the head should say about each row of a fit.
#[derive(Clone, Debug)]
pub(crate) struct Soft {
    classes: usize,
    temperature: f64,
    /// Weight of the labels, 0 without labels.
    alpha: f64,
    labels: Vec<usize>,
    /// Teacher probabilities at `temperature`, `[rows, classes]`.
    teacher: Vec<f64>,
    /// Σ t ln t of each teacher row, the part of KL that no head can change.
    negentropy: Vec<f64>,
}

impl Soft {
    /// Takes the teacher's logits `[rows, classes]` and the labels (empty if there are none).
    pub(crate) fn new(logits: &[f32], classes: usize, labels: Vec<usize>, alpha: f64, temperature: f64) -> Self {
        let mut teacher: Vec<f64> = logits.iter().map(|&v| f64::from(v)).collect();
        let mut negentropy = Vec::with_capacity(logits.len() / classes.max(1));
        for row in teacher.chunks_exact_mut(classes.max(1)) {
            let norm = softmax(row, temperature);
            negentropy.push(row.iter().map(|&t| if t > 0.0 { t * t.ln() } else { 0.0 }).sum());
            debug_assert!(norm.is_finite());
        }
        let alpha = if labels.is_empty() { 0.0 } else { alpha };
        Self { classes, temperature, alpha, labels, teacher, negentropy }
    }

    /// Adds `α · CE` of row `i`.
    fn add_label(&self, i: usize, z: &[f64], gradient: &mut [f64]) -> f64 {
        let Some(&label) = self.labels.get(i).filter(|_| self.alpha > 0.0) else {
            return 0.0;
        };
        let mut s = z.to_vec();
        let norm = softmax(&mut s, 1.0);
        for (g, s) in gradient.iter_mut().zip(&s) {
            *g += self.alpha * s;
        }
        gradient[label] -= self.alpha;
        self.alpha * (norm - z[label])
    }

    /// Adds `(1 − α) · T² · KL` of row `i`.
    fn add_teacher(&self, i: usize, z: &[f64], gradient: &mut [f64]) -> f64 {
        let weight = 1.0 - self.alpha;
        if weight <= 0.0 {
            return 0.0;
        }
        let t = &self.teacher[i * self.classes..(i + 1) * self.classes];
        let mut s = z.to_vec();
        let norm = softmax(&mut s, self.temperature);
        let mut cross = 0.0;
        for (((g, s), t), z) in gradient.iter_mut().zip(&s).zip(t).zip(z) {
            *g += weight * self.temperature * (s - t);
            cross += t * (norm - z / self.temperature);
        }
        weight * self.temperature.powi(2) * (cross + self.negentropy[i])
    }
}

impl Loss for Soft {
    fn select(&self, rows: &[usize]) -> Self {
        let c = self.classes;
        let pick = |r: &usize| self.labels.get(*r).copied();
        Self {
            labels: rows.iter().filter_map(pick).collect(),
            teacher: rows.iter().flat_map(|&r| &self.teacher[r * c..(r + 1) * c]).copied().collect(),
            negentropy: rows.iter().map(|&r| self.negentropy[r]).collect(),
            ..*self
        }
    }

    fn loss_and_gradient<T: Real>(&self, logits: &mut Matrix<T>) -> f64 {
        let rows = logits.rows.max(1) as f64;
        let mut total = 0.0;
        let mut z = vec![0.0; self.classes];
        let mut gradient = vec![0.0; self.classes];
        for i in 0..logits.rows {
            for (z, v) in z.iter_mut().zip(logits.row(i)) {
                *z = v.to_f64();
            }
            gradient.fill(0.0);
            total += self.add_label(i, &z, &mut gradient) + self.add_teacher(i, &z, &mut gradient);
            for (out, g) in logits.row_mut(i).iter_mut().zip(&gradient) {
                *out = T::from_f64(g / rows);
            }
        }
        total / rows
    }
}

/// Replaces `z` by `softmax(z / temperature)` and returns `ln Σ exp(z / temperature)`.
fn softmax(z: &mut [f64], temperature: f64) -> f64 {
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max) / temperature;
    let mut sum = 0.0;
    for z in z.iter_mut() {
        *z = (*z / temperature - largest).exp();
        sum += *z;
    }
    for z in z.iter_mut() {
        *z /= sum;
    }
    largest + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_student_has_no_distillation_loss() {
        let logits: Vec<f32> = (0..12).map(|i| (i as f32 * 1.3).cos() * 3.0).collect();
        let soft = Soft::new(&logits, 4, vec![], 0.7, 2.0);
        let wide: Vec<f64> = logits.iter().map(|&v| f64::from(v)).collect();
        let mut z = Matrix::<f64>::from_f64(3, 4, &wide);
        assert!(soft.loss_and_gradient(&mut z).abs() < 1e-12);
        assert!(z.values.iter().all(|g| g.abs() < 1e-12));
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let soft = Soft::new(&[3e4, -3e4], 2, vec![1], 0.5, 1.0);
        let mut z = Matrix::<f32>::from_f64(1, 2, &[1e4, -1e4]);
        assert!((soft.loss_and_gradient(&mut z) - 1e4).abs() < 1.0);
    }
}
