//! The gradient against central differences, and the scalar types against each other.

use super::super::loss::{Soft, Squares};
use super::*;

fn objective<T: Real>(hidden: Option<(usize, Activation)>) -> Objective<T, Soft> {
    let shape = Shape { inputs: 5, hidden, outputs: 3 };
    let x: Vec<f64> = (0..45).map(|i| (i as f64 * 0.61).sin() * 1.5).collect();
    let logits: Vec<f32> = (0..27).map(|i| (i as f32 * 0.83).cos() * 2.0).collect();
    let labels = (0..9).map(|i| i % 3).collect();
    let soft = Soft::new(&logits, 3, labels, 0.4, 2.5);
    Objective::new(shape, &Matrix::from_f64(9, 5, &x), soft, 0.03)
}

fn of_squares(hidden: Option<(usize, Activation)>) -> Objective<f64, Squares> {
    let Objective { shape, features, transposed, l2, .. } = objective(hidden);
    let targets: Vec<f64> = (0..27).map(|i| (i as f64 * 0.83).cos() * 2.0).collect();
    Objective { shape, features, transposed, loss: Squares { targets: Matrix::from_f64(9, 3, &targets) }, l2 }
}

fn point(shape: &Shape) -> Vec<f64> {
    (0..shape.parameters()).map(|i| (i as f64 * 0.47).sin() * 0.8).collect()
}

#[test]
fn gradient_agrees_with_central_differences() {
    for hidden in [None, Some((4, Activation::GeluTanh)), Some((4, Activation::Relu))] {
        agrees(&objective::<f64>(hidden));
        agrees(&of_squares(hidden));
    }
}

fn agrees<L: Loss>(objective: &Objective<f64, L>) {
    let mut p = point(&objective.shape);
    let (_, gradient) = objective.evaluate(&p);
    for i in 0..p.len() {
        let (middle, h) = (p[i], 1e-5);
        p[i] = middle + h;
        let above = objective.evaluate(&p).0;
        p[i] = middle - h;
        let below = objective.evaluate(&p).0;
        p[i] = middle;
        let slope = (above - below) / (2.0 * h);
        assert!((slope - gradient[i]).abs() < 1e-7, "{:?} {i}: {slope} {}", objective.shape, gradient[i]);
    }
}

#[test]
fn single_precision_follows_double() {
    for hidden in [None, Some((4, Activation::GeluTanh))] {
        let (wide, narrow) = (objective::<f64>(hidden), objective::<f32>(hidden));
        let p = point(&wide.shape);
        let ((a, ga), (b, gb)) = (wide.evaluate(&p), narrow.evaluate(&p));
        assert!((a - b).abs() < 1e-5);
        assert!(ga.iter().zip(&gb).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
