//! What a dynamic model has to beat: the best static depth, and leaving by chance.

use serde::{Deserialize, Serialize};

use super::policy::Measured;
use super::samples::{Costs, Samples};

/// The model cut after one exit, that exit's head for everyone, no rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FixedDepth {
    /// Index of the exit; the number of exits for the plain model.
    pub exit: usize,
    /// Its name.
    pub name: String,
    /// Fraction of correct answers.
    pub accuracy: f64,
    /// Multiply-accumulates per sample.
    pub macs: f64,
    /// The same as a fraction of the plain model's.
    pub macs_ratio: f64,
}

/// As many samples leave at each exit as in the dynamic model, but chosen at random.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Random {
    /// Expected fraction of correct answers, computed exactly.
    pub accuracy: f64,
    /// Fraction of the plain model's multiply-accumulates: the dynamic model's.
    pub macs_ratio: f64,
}

/// The rivals, measured on the same rows as the dynamic model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rivals {
    /// The most accurate depth that executes no more than the dynamic model.
    pub fixed_depth: Option<FixedDepth>,
    /// Random decisions with the same histogram.
    pub random: Random,
    /// Every depth, the plain model last.
    pub depths: Vec<FixedDepth>,
}

/// Whether the dynamic model is worth having.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It saves work inside the allowed drop, and no rival does as well.
    Pays,
    /// It does not.
    DoesNotPay {
        /// Why, for a reader.
        reason: String,
    },
}

impl Verdict {
    /// Whether it pays.
    pub fn pays(&self) -> bool {
        matches!(self, Self::Pays)
    }
}

/// Every depth on `rows`, the plain model last.
pub fn depths(samples: &Samples, costs: &Costs, rows: &[usize]) -> Vec<FixedDepth> {
    let accuracy = |correct: &[bool]| rows.iter().filter(|&&r| correct[r]).count() as f64 / rows.len().max(1) as f64;
    let depth = |exit: usize, name: &str, correct: &[bool], macs: f64| FixedDepth {
        exit,
        name: name.to_owned(),
        accuracy: accuracy(correct),
        macs,
        macs_ratio: macs / costs.plain(),
    };
    let exits = samples.exits.iter().zip(&samples.correct).enumerate();
    let mut all: Vec<FixedDepth> =
        exits.map(|(k, (name, correct))| depth(k, name, correct, costs.backbone(k) + costs.head[k] as f64)).collect();
    all.push(depth(all.len(), "full depth", &samples.plain_correct, costs.plain()));
    all
}

/// The rivals of a dynamic model that did `dynamic`, given all depths on the same rows.
pub fn rivals(dynamic: &Measured, depths: Vec<FixedDepth>) -> Rivals {
    let affordable = depths.iter().filter(|d| d.macs <= dynamic.macs);
    // Of equally accurate depths, the cheaper one.
    let best = affordable.max_by(|a, b| a.accuracy.total_cmp(&b.accuracy).then(b.macs.total_cmp(&a.macs)));
    let samples: usize = dynamic.exit_histogram.iter().sum();
    let shares = dynamic.exit_histogram.iter().map(|&h| h as f64 / samples.max(1) as f64);
    Rivals {
        fixed_depth: best.cloned(),
        random: Random {
            accuracy: shares.zip(&depths).map(|(share, d)| share * d.accuracy).sum(),
            macs_ratio: dynamic.macs_ratio,
        },
        depths,
    }
}

/// Judges `dynamic` against doing nothing and against its rivals.
pub fn verdict(dynamic: &Measured, rivals: &Rivals) -> Verdict {
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let reason = if dynamic.macs_ratio >= 1.0 {
        format!("with exits {} of the plain model's work is executed, so nothing is saved", percent(dynamic.macs_ratio))
    } else if let Some(d) = rivals.fixed_depth.as_ref().filter(|d| d.accuracy >= dynamic.accuracy) {
        let work = if d.macs < dynamic.macs { "at fewer MACs" } else { "at the same MACs" };
        format!(
            "exit after {} for everyone is as accurate {work} ({} correct at {} of the work; \
             with exits {} at {})",
            d.name,
            percent(d.accuracy),
            percent(d.macs_ratio),
            percent(dynamic.accuracy),
            percent(dynamic.macs_ratio)
        )
    } else if rivals.random.accuracy >= dynamic.accuracy {
        format!(
            "random decisions with the same histogram are as accurate ({} correct; with exits {})",
            percent(rivals.random.accuracy),
            percent(dynamic.accuracy)
        )
    } else {
        return Verdict::Pays;
    };
    Verdict::DoesNotPay { reason }
}
