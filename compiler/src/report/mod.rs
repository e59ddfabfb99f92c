//! The report of a compilation: what was tried, what came of it, and how that compares with doing
//! something simpler. One struct; as text for a terminal and as one HTML file that opens offline.

mod html;
mod plot;
mod text;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::calibrate::{Costs, Outcome, Reference, Split};
use crate::dataset::Dataset;
use crate::fit::FitStats;
use crate::recipe::Recipe;

/// Version of the serialised form; it grows when a key changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// A report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The model's file.
    pub model: String,
    /// The data's file.
    pub data: String,
    /// Samples in it.
    pub samples: usize,
    /// The head's form, as in the recipe.
    pub head: String,
    /// The rule, as in the recipe.
    pub rule: String,
    /// The seed.
    pub seed: u64,
    /// What was found, if the model has places for exits.
    pub calibration: Option<Calibration>,
    /// Why blocks of the model are no places for exits.
    pub no_exit: Vec<String>,
}

/// What fitting and calibration found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// What "correct" means.
    pub reference: Reference,
    /// Samples that heads were fitted and thresholds tuned on.
    pub tune_samples: usize,
    /// Samples that all numbers are from.
    pub verify_samples: usize,
    /// Multiply-accumulates per sample.
    pub costs: Costs,
    /// Policies, rivals, verdict.
    pub outcome: Outcome,
    /// How the heads' fits went; empty for heads that are not fitted.
    pub heads: Vec<FitStats>,
}

/// What a calibration leaves to report.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) costs: &'a Costs,
    pub(crate) reference: Reference,
    pub(crate) split: &'a Split,
    pub(crate) outcome: &'a Outcome,
    pub(crate) heads: &'a [FitStats],
}

impl Report {
    /// The report of a calibration.
    pub(crate) fn new(model: &Path, data: &Dataset, recipe: &Recipe, inputs: Inputs) -> Report {
        let calibration = Calibration {
            reference: inputs.reference,
            tune_samples: inputs.split.tune.len(),
            verify_samples: inputs.split.verify.len(),
            costs: inputs.costs.clone(),
            outcome: inputs.outcome.clone(),
            heads: inputs.heads.to_vec(),
        };
        Report { calibration: Some(calibration), ..Report::without_candidates(model, data, recipe, &[]) }
    }

    /// The report for a model in which no exit can stand, for these reasons.
    pub(crate) fn without_candidates(model: &Path, data: &Dataset, recipe: &Recipe, reasons: &[String]) -> Report {
        Report {
            schema: SCHEMA,
            model: model.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            data: data.name.clone(),
            samples: data.rows,
            head: recipe.exit_heads.head.to_string(),
            rule: recipe.exit_heads.rule.to_string(),
            seed: recipe.seed,
            calibration: None,
            no_exit: reasons.to_vec(),
        }
    }

    /// For a terminal: at most 80 columns.
    pub fn text(&self) -> String {
        text::render(self)
    }

    /// One HTML file without anything outside it.
    pub fn html(&self) -> String {
        html::render(self)
    }
}

impl Calibration {
    /// What the measure is called.
    fn measure(&self) -> &'static str {
        match self.reference {
            Reference::Labels => "accuracy",
            Reference::PlainModel => "agreement with the plain model",
        }
    }

    /// The rows that compare the model with its rivals: name, accuracy, share of the plain work.
    fn comparison(&self) -> Vec<(String, f64, f64)> {
        let o = &self.outcome;
        let mut rows = vec![("plain".to_string(), o.plain.accuracy, 1.0)];
        if !o.policy.is_plain() {
            rows.push(("dynamic".into(), o.dynamic.accuracy, o.dynamic.macs_ratio));
        }
        if let Some(refused) = &o.refused {
            rows.push(("refused: the best dynamic".into(), refused.verify.accuracy, refused.verify.macs_ratio));
        }
        if let Some(rivals) = &o.rivals {
            if let Some(fixed) = &rivals.fixed_depth {
                rows.push((format!("everyone leaves after {}", fixed.name), fixed.accuracy, fixed.macs_ratio));
            }
            rows.push(("random, same histogram".into(), rivals.random.accuracy, rivals.random.macs_ratio));
        }
        rows
    }

    /// The drop and its bound, in a sentence.
    fn bound(&self) -> String {
        let d = &self.outcome.drop;
        format!(
            "Drop {:+.2} points on {} samples that fitting did not see; at most {:.2} with {:.0} % confidence, \
             {:.2} allowed. Bound: {}; fixed-sequence testing (Angelopoulos et al. 2021).",
            100.0 * d.estimate,
            d.counts.rows,
            100.0 * d.bound,
            100.0 * d.confidence,
            100.0 * d.max_drop,
            d.method.words(),
        )
    }

    /// The verdict, in a sentence.
    fn verdict(&self) -> String {
        use crate::calibrate::Verdict;
        match &self.outcome.verdict {
            Verdict::Pays => format!("Early exit pays: {:.1} % of the work.", 100.0 * self.outcome.dynamic.macs_ratio),
            Verdict::DoesNotPay { reason } => format!("Early exit does not pay here: {reason}."),
        }
    }
}
