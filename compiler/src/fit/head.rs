//! A fitted head: dense layers in the form the graph takes them, `x · W + b`.

use serde::{Deserialize, Serialize};

use super::matmul::Real;

/// The function between the two layers of an `mlp` head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// The tanh form of GELU, ONNX `Gelu(approximate = "tanh")`
    /// (Hendrycks and Gimpel, arXiv 1606.08415, section 2).
    GeluTanh,
}

impl Activation {
    /// The value and the derivative at `x`.
    pub(crate) fn value_and_slope<T: Real>(self, x: T) -> (T, T) {
        let c = T::from_f64;
        match self {
            Self::Relu if x > c(0.0) => (x, c(1.0)),
            Self::Relu => (c(0.0), c(0.0)),
            Self::GeluTanh => {
                let (root, cubic) = (c(0.797_884_560_802_865_4), c(0.044_715));
                let t = (root * (x + cubic * x * x * x)).tanh();
                let bent = root * (c(1.0) + c(3.0) * cubic * x * x);
                let half = c(0.5) * (c(1.0) + t);
                (x * half, half + c(0.5) * x * (c(1.0) - t * t) * bent)
            }
        }
    }
}

/// One dense layer, `y[outputs] = x[inputs] · weight[inputs, outputs] + bias[outputs]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dense {
    /// Length of the layer's input.
    pub inputs: usize,
    /// Length of its output.
    pub outputs: usize,
    /// Row-major `[inputs, outputs]`, as MatMul takes it.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

impl Dense {
    /// Applies the layer to one row. Sums in `f64`.
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut sums: Vec<f64> = self.bias.iter().map(|&b| f64::from(b)).collect();
        for (&x, weights) in x.iter().zip(self.weight.chunks_exact(self.outputs.max(1))) {
            for (sum, &w) in sums.iter_mut().zip(weights) {
                *sum += f64::from(x) * f64::from(w);
            }
        }
        sums.iter().map(|&s| s as f32).collect()
    }
}

/// The weights of a head. It takes raw features: their standardisation is folded in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The hidden layer and its activation; absent in a linear head.
    pub hidden: Option<(Dense, Activation)>,
    /// The layer that gives the logits.
    pub output: Dense,
}

impl Head {
    /// The logits `[classes]` of one feature row `[d]`, for checks and statistics.
    pub fn logits(&self, features: &[f32]) -> Vec<f32> {
        let Some((layer, activation)) = &self.hidden else {
            return self.output.apply(features);
        };
        let hidden: Vec<f32> = layer.apply(features).iter().map(|&x| activation.value_and_slope(x).0).collect();
        self.output.apply(&hidden)
    }

    /// Multiply-accumulates for one row.
    pub fn macs(&self) -> u64 {
        let layer = |l: &Dense| l.inputs as u64 * l.outputs as u64;
        self.hidden.as_ref().map_or(0, |(l, _)| layer(l)) + layer(&self.output)
    }
}

/// The index of the largest value, the first one among equals; 0 for an empty row.
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = i;
        }
    }
    best
}
