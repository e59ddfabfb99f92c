//! Fits exit heads after training, with the backbone frozen: features at a candidate exit in,
//! the weights of a small classifier out. Also fits narrow modules that stand for an FFN. Knows
//! arrays only, no graph and no files.
//!
//! A head learns from the labels, if there are any, and from the model's own final logits. The
//! features are standardised for the fit and the standardisation is folded into the returned
//! weights, so a head is a plain MatMul and Add on raw features. The optimiser is full-batch
//! L-BFGS; the result is a function of the inputs, the options and the seed.

mod bottleneck;
mod error;
mod head;
mod inputs;
mod loss;
mod low_rank;
mod matmul;
mod objective;
mod optimise;
pub mod random;
mod standardise;
#[cfg(test)]
mod tests;
mod train;

use serde::{Deserialize, Serialize};

pub use bottleneck::{Bottleneck, Narrow, fit_bottleneck};
pub use error::FitError;
pub use head::{Activation, Dense, Head, argmax};
pub use inputs::{Features, Targets};

use loss::Soft;
use matmul::Matrix;
use standardise::Standardiser;
use train::{Trained, shape, train};

/// Fewest rows a head is fitted on.
pub const MIN_ROWS: usize = 16;

/// The form of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum HeadKind {
    /// One dense layer.
    Linear,
    /// One hidden layer.
    Mlp {
        /// Hidden units; `min(d, 64)` if absent, so that the head stays cheap beside a block.
        width: Option<usize>,
        /// The function between the layers.
        activation: Activation,
    },
}

/// The L2 penalty `½ · λ · Σ W²` on weights over standardised features; biases are free.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum L2 {
    /// This λ.
    Fixed(f64),
    /// The λ with the least loss on a fifth of the rows, drawn by the seed.
    Chosen,
}

/// How to fit a head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitOptions {
    /// The form of the head.
    pub kind: HeadKind,
    /// Weight α of the labels against the model's own output, in `[0, 1]`. Ignored without labels.
    pub alpha: f64,
    /// Temperature T of the distillation, above 0.
    pub temperature: f64,
    /// The penalty.
    pub l2: L2,
    /// Most iterations of the final fit.
    pub max_iterations: u64,
    /// Seed of the held-out rows and of a hidden layer's starting weights.
    pub seed: u64,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self { kind: HeadKind::Linear, alpha: 0.5, temperature: 2.0, l2: L2::Chosen, max_iterations: 120, seed: 0 }
    }
}

/// How the fit of one head went. Losses are means per row, in nats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitStats {
    /// The candidate exit.
    pub candidate: String,
    /// Rows trained on.
    pub rows: usize,
    /// Length of a feature row.
    pub features: usize,
    /// Trainable numbers.
    pub parameters: usize,
    /// The penalty used.
    pub l2: f64,
    /// Loss on the held-out rows at that penalty; absent if the penalty was not chosen.
    pub held_out_loss: Option<f64>,
    /// Loss before the fit.
    pub first_loss: f64,
    /// Loss after it, without the penalty.
    pub final_loss: f64,
    /// Norm of the gradient after it.
    pub gradient_norm: f64,
    /// Iterations of the final fit.
    pub iterations: u64,
    /// Evaluations of loss and gradient, the choice of the penalty included.
    pub evaluations: u64,
    /// Whether the final fit met a tolerance before its limit of iterations.
    pub converged: bool,
    /// Accuracy on the rows trained on; absent without labels.
    pub train_accuracy: Option<f64>,
    /// How often head and model name the same class on the rows trained on.
    pub train_agreement: f64,
}

/// A head and how it came to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FittedHead {
    /// The weights.
    pub head: Head,
    /// The record.
    pub stats: FitStats,
}

/// Fits one head on `rows` of the data.
///
/// # Errors
///
/// Inputs of the wrong length, rows or labels out of range, features or logits that are not
/// finite, fewer than [`MIN_ROWS`] rows, options out of range. A class that never occurs is fine.
///
/// ```
/// use eec::fit::{Features, FitOptions, Targets, fit_head};
///
/// // 40 rows of 2 features; the sign of the first decides between 2 classes.
/// let x: Vec<f32> = (0..80).map(|i| if i % 4 < 2 { 1.0 } else { -1.0 } + i as f32 * 1e-3).collect();
/// let logits: Vec<f32> = (0..80).map(|i| if (i % 4 < 2) == (i % 2 == 0) { 3.0 } else { 0.0 }).collect();
/// let features = Features { candidate: "block.0", rows: 40, width: 2, values: &x };
/// let targets = Targets { logits: &logits, classes: 2, labels: None };
/// let rows: Vec<usize> = (0..40).collect();
/// let fitted = fit_head(&features, &targets, &rows, &FitOptions::default())?;
/// assert_eq!(fitted.stats.train_agreement, 1.0);
/// # Ok::<(), eec::fit::FitError>(())
/// ```
pub fn fit_head(
    features: &Features<'_>,
    targets: &Targets<'_>,
    rows: &[usize],
    options: &FitOptions,
) -> Result<FittedHead, FitError> {
    let labels = inputs::check(features, targets, rows, options)?;
    let c = targets.classes;
    let logits: Vec<f32> = rows.iter().flat_map(|&r| &targets.logits[r * c..(r + 1) * c]).copied().collect();
    let soft = Soft::new(&logits, c, labels.clone(), options.alpha, options.temperature);
    let standardiser = Standardiser::measure(features.values, features.width, rows);
    let x: Matrix<f32> = standardiser.apply(features.values, rows);
    let shape = shape(features.width, c, options.kind);
    let fit = train(shape, &x, &soft, options)
        .map_err(|reason| FitError::Optimiser { candidate: features.candidate.to_owned(), reason })?;
    let head = shape.head(&fit.minimum.parameters, &standardiser);
    let stats = statistics(features, rows, &labels, &logits, &head, &fit);
    Ok(FittedHead { head, stats })
}

/// Measures the finished head, as rounded and on raw features.
fn statistics(
    features: &Features<'_>,
    rows: &[usize],
    labels: &[usize],
    logits: &[f32],
    head: &Head,
    fit: &Trained,
) -> FitStats {
    let n = rows.len().max(1) as f64;
    let said: Vec<usize> = rows.iter().map(|&r| argmax(&head.logits(features.row(r)))).collect();
    let teacher = logits.chunks_exact((logits.len() / rows.len().max(1)).max(1)).map(argmax);
    let agree = said.iter().zip(teacher).filter(|(a, b)| **a == *b).count();
    let right = said.iter().zip(labels).filter(|(a, b)| a == b).count();
    FitStats {
        candidate: features.candidate.to_owned(),
        rows: rows.len(),
        features: features.width,
        parameters: fit.minimum.parameters.len(),
        l2: fit.l2,
        held_out_loss: fit.held_out_loss,
        first_loss: fit.first_loss,
        final_loss: fit.final_loss,
        gradient_norm: fit.minimum.gradient_norm,
        iterations: fit.minimum.iterations,
        evaluations: fit.evaluations,
        converged: fit.minimum.converged,
        train_accuracy: (!labels.is_empty()).then(|| right as f64 / n),
        train_agreement: agree as f64 / n,
    }
}
