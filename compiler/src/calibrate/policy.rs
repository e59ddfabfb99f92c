//! A policy says where each sample leaves; measuring one gives its accuracy, cost and histogram.

use serde::{Deserialize, Serialize};

use super::samples::{Costs, Samples, Signal};

/// The threshold below every confidence: every sample that gets there leaves.
pub const ALWAYS: f32 = f32::MIN;

/// One kept exit and its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThresholdExit {
    /// Index among the candidates.
    pub exit: usize,
    /// A sample leaves if `confidence > threshold`; [`ALWAYS`] if all do.
    pub threshold: f32,
}

/// The kept exits, in order of depth, and when a sample leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum Policy {
    /// By confidence.
    Threshold {
        /// Kept exits.
        exits: Vec<ThresholdExit>,
    },
    /// By heads that agree.
    Patience {
        /// Heads in a row that must name the same class.
        patience: usize,
        /// Kept exits.
        exits: Vec<usize>,
    },
}

impl Policy {
    /// The policy without exits: the plain model.
    pub fn plain() -> Self {
        Self::Threshold { exits: vec![] }
    }

    /// Indices of the kept exits.
    pub fn kept(&self) -> Vec<usize> {
        match self {
            Self::Threshold { exits } => exits.iter().map(|e| e.exit).collect(),
            Self::Patience { exits, .. } => exits.clone(),
        }
    }

    /// Whether there are no exits.
    pub fn is_plain(&self) -> bool {
        match self {
            Self::Threshold { exits } => exits.is_empty(),
            Self::Patience { exits, .. } => exits.is_empty(),
        }
    }

    /// Whether all samples leave at one exit.
    pub fn is_one_depth(&self) -> bool {
        match self {
            Self::Threshold { exits } => exits.first().is_some_and(|e| e.threshold <= ALWAYS),
            Self::Patience { .. } => false,
        }
    }

    /// Whether the policy decides by this kind of signal. The plain model suits any.
    pub fn fits(&self, signal: &Signal) -> bool {
        matches!(
            (self, signal),
            (Self::Threshold { .. }, Signal::Confidence(_)) | (Self::Patience { .. }, Signal::Patience { .. })
        ) || self.is_plain()
    }

    /// The exit that the sample leaves at; `None` at full depth or if the signal is of another
    /// kind than the policy.
    pub fn leaves_at(&self, signal: &Signal, row: usize) -> Option<usize> {
        match (self, signal) {
            (Self::Threshold { exits }, Signal::Confidence(confidence)) => {
                exits.iter().find(|e| confidence[e.exit][row] > e.threshold).map(|e| e.exit)
            }
            (Self::Patience { patience, exits }, Signal::Patience { class, .. }) => {
                first_agreement(exits, *patience, class, row)
            }
            _ => None,
        }
    }
}

/// The first of `exits` that ends a run of `patience` heads naming the same class.
pub(crate) fn first_agreement(exits: &[usize], patience: usize, class: &[Vec<u32>], row: usize) -> Option<usize> {
    let (mut last, mut run) = (None, 0);
    for &exit in exits {
        let named = class[exit][row];
        run = if last == Some(named) { run + 1 } else { 1 };
        last = Some(named);
        if run >= patience {
            return Some(exit);
        }
    }
    None
}

/// What a policy does on a set of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Fraction of correct answers.
    pub accuracy: f64,
    /// Mean multiply-accumulates per sample, declined heads counted.
    pub macs: f64,
    /// The same as a fraction of the plain model's.
    pub macs_ratio: f64,
    /// Samples that leave at each candidate exit, then those that go to the end.
    pub exit_histogram: Vec<usize>,
    /// Samples that the plain model has right and the policy wrong.
    pub lost: usize,
    /// Samples that the plain model has wrong and the policy right.
    pub gained: usize,
}

/// Applies `policy` to `rows`.
pub fn measure(policy: &Policy, samples: &Samples, costs: &Costs, rows: &[usize]) -> Measured {
    let exits = samples.exits.len();
    let price = prices(costs, &policy.kept());
    let mut out =
        Measured { accuracy: 0.0, macs: 0.0, macs_ratio: 0.0, exit_histogram: vec![0; exits + 1], lost: 0, gained: 0 };
    let mut right = 0;
    for &row in rows {
        let exit = policy.leaves_at(&samples.signal, row);
        let plain = samples.plain_correct[row];
        let correct = exit.map_or(plain, |k| samples.correct[k][row]);
        right += usize::from(correct);
        out.lost += usize::from(plain && !correct);
        out.gained += usize::from(!plain && correct);
        out.exit_histogram[exit.unwrap_or(exits)] += 1;
    }
    let n = rows.len().max(1) as f64;
    out.accuracy = right as f64 / n;
    out.macs = out.exit_histogram.iter().zip(&price).map(|(&h, p)| h as f64 * p).sum::<f64>() / n;
    out.macs_ratio = out.macs / costs.plain();
    out
}

/// What a sample costs that leaves at each exit, then at the end, if `kept` heads run on the way.
fn prices(costs: &Costs, kept: &[usize]) -> Vec<f64> {
    let heads = |upto: usize| -> f64 { kept.iter().filter(|&&k| k <= upto).map(|&k| costs.head[k] as f64).sum() };
    (0..=costs.segment.len()).map(|k| costs.backbone(k) + heads(k)).collect()
}
