//! What a dynamic model has to beat: fixed depths at the same work, and leaving by chance.

use serde::{Deserialize, Serialize};

use super::mixture::{Choice, Mixture, ROUNDING, Share, best_mixture};
use super::policy::Measured;
use super::samples::{Costs, Samples};
use crate::display::coarse;

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
    /// The best mixture of `depths`, by index, that executes no more than the dynamic model; absent if
    /// every depth costs more.
    pub fixed_depth: Option<Mixture>,
    /// Random decisions with the same histogram: one mixture of depths, so never better than the best.
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

impl FixedDepth {
    /// As a point of multiply-accumulates and accuracy.
    pub fn choice(&self) -> Choice {
        Choice { work: self.macs, quality: self.accuracy }
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
        exits.map(|(k, (name, correct))| depth(k, name, correct, costs.alone[k] as f64)).collect();
    all.push(depth(all.len(), "full depth", &samples.plain_correct, costs.plain()));
    all
}

/// The expected accuracy if `histogram` samples, chosen at random, leave at depths of these accuracies.
pub fn random_accuracy(histogram: &[u64], accuracies: impl IntoIterator<Item = f64>) -> f64 {
    let samples = histogram.iter().sum::<u64>().max(1) as f64;
    histogram.iter().zip(accuracies).map(|(n, accuracy)| *n as f64 / samples * accuracy).sum()
}

/// The rivals of a dynamic model that did `dynamic`, given all depths on the same rows.
pub fn rivals(dynamic: &Measured, depths: Vec<FixedDepth>) -> Rivals {
    let histogram: Vec<u64> = dynamic.exit_histogram.iter().map(|n| *n as u64).collect();
    Rivals {
        fixed_depth: best_mixture(&depths.iter().map(FixedDepth::choice).collect::<Vec<_>>(), dynamic.macs),
        random: Random {
            accuracy: random_accuracy(&histogram, depths.iter().map(|d| d.accuracy)),
            macs_ratio: dynamic.macs_ratio,
        },
        depths,
    }
}

/// Judges `dynamic` against doing nothing and against its rivals.
pub fn verdict(dynamic: &Measured, rivals: &Rivals) -> Verdict {
    let (quality, work) = (coarse(dynamic.accuracy), coarse(dynamic.macs_ratio));
    let reason = if dynamic.macs_ratio >= 1.0 {
        format!("with exits {work} of the work without them is executed, so nothing is saved")
    } else if let Some(mixture) = rivals.fixed_depth.as_ref().filter(|m| m.quality >= dynamic.accuracy) {
        format!("{}; with exits {quality} at {work})", as_good(mixture, dynamic, &rivals.depths))
    } else {
        return Verdict::Pays;
    };
    Verdict::DoesNotPay { reason }
}

/// How a mixture does as well as the dynamic model; ends inside a parenthesis.
fn as_good(mixture: &Mixture, dynamic: &Measured, depths: &[FixedDepth]) -> String {
    let place = |s: &Share| match depths.get(s.choice) {
        Some(depth) if s.choice + 1 < depths.len() => format!("after {}", depth.name),
        Some(_) | None => "at the end".into(),
    };
    let who = match &mixture.shares[..] {
        [one] => format!("exit {} for everyone", place(one)),
        all => {
            let part = |s: &Share| format!("{} for {}", place(s), coarse(s.share));
            format!("exit {}, by chance,", all.iter().map(part).collect::<Vec<_>>().join(" and "))
        }
    };
    let less = mixture.work < dynamic.macs * (1.0 - ROUNDING);
    let work = if less { "at fewer MACs" } else { "at the same MACs" };
    let ratio = dynamic.macs_ratio * mixture.work / dynamic.macs;
    format!("{who} is as accurate {work} ({} correct at {} of the work", coarse(mixture.quality), coarse(ratio))
}
