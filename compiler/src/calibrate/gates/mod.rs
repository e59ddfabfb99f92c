//! Chooses among gated models that were run on the data: the least work whose loss of quality stays
//! inside what the user allows. Gates act on each other, so every policy is measured by running
//! it, not predicted from one table as exits are. Knows arrays only.
//!
//! Policies that no other beats on the *tune* rows are put in order from cautious to bold; on the
//! *verify* rows they are tested in that order until one fails (Learn then Test, Angelopoulos et
//! al., arXiv 2110.01052). For answers that are right or wrong the test is that of exits; for
//! losses it is Student's t-test on the differences between rows, which holds where their mean is
//! near normal.

mod contest;
mod measure;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use contest::Contest;

use super::Verdict;

/// How gates decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// The same FFNs never run.
    Static,
    /// A token skips FFNs after one that changed it little.
    Cosine,
    /// A fitted gate per FFN.
    Learned,
    /// Chance, as often per FFN as in the policy it is compared with.
    Random,
}

impl Family {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Family::Static => "static",
            Family::Cosine => "cosine",
            Family::Learned => "learned",
            Family::Random => "random",
        }
    }
}

/// Quality per row.
#[derive(Clone, Debug, PartialEq)]
pub enum Quality {
    /// Whether the answer is right.
    Correct(Vec<bool>),
    /// The mean loss in nats, lower is better.
    Loss(Vec<f64>),
}

impl Quality {
    /// The mean over all rows: of right answers, or of losses.
    pub fn mean(&self) -> f64 {
        measure::mean(self)
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Quality::Correct(rows) => rows.len(),
            Quality::Loss(rows) => rows.len(),
        }
    }
}

/// What running a policy on one part of the rows gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Quality per row.
    pub quality: Quality,
    /// Multiply-accumulates on all of its rows, gates counted.
    pub macs: f64,
    /// Share of the FFNs (of all blocks) that were skipped, over tokens.
    pub skipped: f64,
}

/// A policy that was run on both parts of the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// How it decides.
    pub family: Family,
    /// For a reader: "learned, 25 % of FFNs skipped".
    pub name: String,
    /// On the rows that policies are fitted to and put in order on.
    pub tune: Part,
    /// On the rows that they are tested on.
    pub verify: Part,
}

impl Trial {
    /// Share of the FFNs (of all blocks) that were skipped, over the tokens of both parts.
    pub fn skipped(&self) -> f64 {
        let parts = [&self.tune, &self.verify].map(|p| (p.quality.rows() as f64, p.skipped));
        let rows: f64 = parts.iter().map(|(rows, _)| rows).sum();
        parts.iter().map(|(rows, share)| rows * share).sum::<f64>() / rows.max(1.0)
    }
}

/// What a policy does on a set of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Mean accuracy, or mean loss in nats.
    pub quality: f64,
    /// What it loses: accuracy as a fraction, or loss relative to the plain model's; negative for a gain.
    pub drop: f64,
}

/// One policy with its measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// How it decides.
    pub family: Family,
    /// For a reader.
    pub name: String,
    /// Executed ÷ plain multiply-accumulates on all rows.
    pub macs_ratio: f64,
    /// Share of FFNs skipped.
    pub skipped: f64,
    /// On the rows it was tuned on.
    pub tune: Measured,
    /// On the others.
    pub verify: Measured,
    /// The p-value of "it drops more than allowed"; absent where the walk did not get.
    pub p_value: Option<f64>,
    /// Whether the walk passed it.
    pub passed: bool,
}

/// The result of a calibration of gates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateOutcome {
    /// Whether quality is a loss.
    pub is_loss: bool,
    /// The plain model on the verify rows.
    pub plain: Measured,
    /// The position in `tried` of the policy to build; absent for the plain model.
    pub chosen: Option<usize>,
    /// The share of FFNs that was asked for, if the policy chosen skips another by more than one FFN.
    #[serde(default)]
    pub missed: Option<f64>,
    /// Whether it pays, or why nothing does.
    pub verdict: Verdict,
    /// The best static set at no more work than the policy judged.
    pub best_static: Option<usize>,
    /// Chance with the same histogram as the policy judged.
    pub random: Option<Tried>,
    /// All policies, as they were given.
    pub tried: Vec<Tried>,
    /// What was allowed.
    pub max_drop: f64,
    /// The confidence of the bound.
    pub confidence: f64,
}
