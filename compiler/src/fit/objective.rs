//! The full-batch loss of one or two dense layers and its gradient, over one flat vector of
//! parameters: `W₁[d, h], b₁[h], W₂[h, outputs], b₂[outputs]`, or `W[d, outputs], b[outputs]`.

use super::head::{Activation, Dense, Head};
use super::loss::Loss;
use super::matmul::{Matrix, Panels, Real, product};
use super::random::Random;
use super::standardise::Standardiser;

/// The layers of a head or of another small module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) inputs: usize,
    pub(crate) hidden: Option<(usize, Activation)>,
    pub(crate) outputs: usize,
}

impl Shape {
    /// The length of the hidden layer's parameters, 0 for a linear head.
    fn split(&self) -> usize {
        self.hidden.map_or(0, |(h, _)| (self.inputs + 1) * h)
    }

    /// Inputs of the last layer.
    fn last_inputs(&self) -> usize {
        self.hidden.map_or(self.inputs, |(h, _)| h)
    }

    /// Number of parameters.
    pub(crate) fn parameters(&self) -> usize {
        self.split() + (self.last_inputs() + 1) * self.outputs
    }

    /// Where to start: zeros for a linear head, whose loss is convex; He's initialisation
    /// (arXiv 1502.01852) for a hidden layer, with a small output layer.
    pub(crate) fn start(&self, seed: u64) -> Vec<f64> {
        let mut parameters = vec![0.0; self.parameters()];
        let Some((h, _)) = self.hidden else {
            return parameters;
        };
        let mut random = Random::new(seed);
        let deviation = (2.0 / self.inputs.max(1) as f64).sqrt();
        for p in &mut parameters[..self.inputs * h] {
            *p = random.normal() * deviation;
        }
        let deviation = 0.1 / (h.max(1) as f64).sqrt();
        for p in &mut parameters[self.split()..][..h * self.outputs] {
            *p = random.normal() * deviation;
        }
        parameters
    }

    /// The head with these parameters, taking raw features.
    pub(crate) fn head(&self, parameters: &[f64], standardiser: &Standardiser) -> Head {
        let (first, last) = parameters.split_at(self.split());
        let fold = self.hidden.is_none().then_some(standardiser);
        Head {
            hidden: self.hidden.map(|(h, activation)| (dense(first, self.inputs, h, Some(standardiser)), activation)),
            output: dense(last, self.last_inputs(), self.outputs, fold),
        }
    }
}

/// Rounds one layer to `f32`, with the standardisation of its inputs folded in.
pub(super) fn dense(parameters: &[f64], inputs: usize, outputs: usize, fold: Option<&Standardiser>) -> Dense {
    let (weight, bias) = parameters.split_at(inputs * outputs);
    let (mut weight, mut bias) = (weight.to_vec(), bias.to_vec());
    if let Some(standardiser) = fold {
        standardiser.fold(&mut weight, &mut bias);
    }
    let round = |v: &[f64]| v.iter().map(|&x| x as f32).collect();
    Dense { inputs, outputs, weight: round(&weight), bias: round(&bias) }
}

/// Standardised features and targets, packed for repeated evaluation.
pub(crate) struct Objective<T, L> {
    shape: Shape,
    features: Panels<T>,
    transposed: Panels<T>,
    loss: L,
    /// Weight of `½ · Σ W²`; biases are free.
    pub(crate) l2: f64,
}

impl<T: Real, L: Loss> Objective<T, L> {
    /// Packs `features[rows, inputs]`.
    pub(crate) fn new(shape: Shape, features: &Matrix<T>, loss: L, l2: f64) -> Self {
        Self { shape, features: Panels::left(features), transposed: Panels::left_transposed(features), loss, l2 }
    }

    /// The loss without the penalty.
    pub(crate) fn data_loss(&self, parameters: &[f64]) -> f64 {
        let (mut logits, _) = self.forward(parameters);
        self.loss.loss_and_gradient(&mut logits)
    }

    /// The penalised loss and its gradient.
    pub(crate) fn evaluate(&self, parameters: &[f64]) -> (f64, Vec<f64>) {
        let (mut residual, trace) = self.forward(parameters);
        let mut value = self.loss.loss_and_gradient(&mut residual);
        let mut gradient = vec![0.0; parameters.len()];
        let split = self.shape.split();
        match trace {
            None => write_layer(&mut gradient, &self.transposed, &residual),
            Some(trace) => {
                let hidden = Panels::left_transposed(&trace.values);
                write_layer(&mut gradient[split..], &hidden, &residual);
                let back = trace.back(&residual);
                write_layer(&mut gradient[..split], &self.transposed, &back);
            }
        }
        for (from, len) in self.weight_ranges() {
            for (g, p) in gradient[from..from + len].iter_mut().zip(&parameters[from..]) {
                *g += self.l2 * p;
                value += 0.5 * self.l2 * p * p;
            }
        }
        (value, gradient)
    }

    /// Logits, and what the hidden layer leaves for the way back.
    fn forward(&self, parameters: &[f64]) -> (Matrix<T>, Option<Trace<T>>) {
        let s = &self.shape;
        let (first, last) = parameters.split_at(s.split());
        let output = weight(last, s.last_inputs(), s.outputs);
        let Some((h, activation)) = s.hidden else {
            return (layer(&self.features, &output, &last[s.inputs * s.outputs..]), None);
        };
        let mut values = layer(&self.features, &weight(first, s.inputs, h), &first[s.inputs * h..]);
        let mut slopes = Matrix::zeros(values.rows, h);
        for (v, slope) in values.values.iter_mut().zip(&mut slopes.values) {
            (*v, *slope) = activation.value_and_slope(*v);
        }
        let logits = layer(&Panels::left(&values), &output, &last[h * s.outputs..]);
        (logits, Some(Trace { values, slopes, output }))
    }

    /// Start and length of the weights, without biases.
    fn weight_ranges(&self) -> [(usize, usize); 2] {
        let s = &self.shape;
        let hidden = s.hidden.map_or(0, |(h, _)| s.inputs * h);
        [(0, hidden), (s.split(), s.last_inputs() * s.outputs)]
    }
}

/// The hidden layer of one evaluation.
struct Trace<T> {
    /// Activations, `[rows, hidden]`.
    values: Matrix<T>,
    /// Derivatives of the activation, `[rows, hidden]`.
    slopes: Matrix<T>,
    /// Weights of the output layer, `[hidden, outputs]`.
    output: Matrix<T>,
}

impl<T: Real> Trace<T> {
    /// The gradient at the hidden layer's sums, given that at the logits.
    fn back(&self, residual: &Matrix<T>) -> Matrix<T> {
        let mut back = product(&Panels::left(residual), &Panels::right_transposed(&self.output));
        for (b, slope) in back.values.iter_mut().zip(&self.slopes.values) {
            *b = *b * *slope;
        }
        back
    }
}

/// The weights at the front of one layer's parameters.
fn weight<T: Real>(parameters: &[f64], inputs: usize, outputs: usize) -> Matrix<T> {
    Matrix::from_f64(inputs, outputs, &parameters[..inputs * outputs])
}

/// `x · weight + bias`.
fn layer<T: Real>(x: &Panels<T>, weight: &Matrix<T>, bias: &[f64]) -> Matrix<T> {
    let mut out = product(x, &Panels::right(weight));
    let bias: Vec<T> = bias.iter().map(|&b| T::from_f64(b)).collect();
    for row in out.values.chunks_exact_mut(bias.len().max(1)) {
        for (v, b) in row.iter_mut().zip(&bias) {
            *v += *b;
        }
    }
    out
}

/// Writes the gradients of one layer's weights and biases to the front of `gradient`.
fn write_layer<T: Real>(gradient: &mut [f64], transposed: &Panels<T>, residual: &Matrix<T>) {
    let weights = product(transposed, &Panels::right(residual));
    let (w, b) = gradient.split_at_mut(weights.values.len());
    for (g, v) in w.iter_mut().zip(&weights.values) {
        *g = v.to_f64();
    }
    for (g, v) in b.iter_mut().zip(residual.column_sums()) {
        *g = v;
    }
}

#[cfg(test)]
#[path = "objective_tests.rs"]
mod tests;
