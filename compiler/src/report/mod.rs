//! The report of a calibration: one struct that an artifact carries, as text for a terminal and as
//! one HTML file that needs nothing else.

mod charts;
mod format;
mod gates;
mod html;
mod html_tables;
mod narrowing;
mod summary;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use html::escape;
pub use html::page;
pub use narrowing::Narrowing;
pub use summary::Summary;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::calibrate::gates::GateOutcome;
use crate::calibrate::{Costs, Outcome, Reference, Split};
use crate::dataset::Dataset;
use crate::fit::FitStats;
use crate::recipe::{FfnRule, Recipe, TokenRule};

/// The version of [`Report`]'s JSON form. It grows when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 3;

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// Samples leave after a block.
    ExitHeads,
    /// Visual tokens leave after a block.
    TokenExits,
    /// FFNs are skipped.
    FfnGates,
}

impl Mechanism {
    /// `exits`.
    fn words(self) -> &'static str {
        match self {
            Mechanism::ExitHeads => "exits",
            Mechanism::TokenExits => "token exits",
            Mechanism::FfnGates => "FFN gates",
        }
    }

    /// The same at the start of a sentence.
    fn title(self) -> &'static str {
        match self {
            Mechanism::ExitHeads => "Exits",
            Mechanism::TokenExits => "Token exits",
            Mechanism::FfnGates => "FFN gates",
        }
    }

    /// The same choice for all inputs: at a place, or a set of FFNs.
    pub(crate) fn for_all(self, choice: &str) -> String {
        match self {
            Mechanism::ExitHeads => format!("all leave after {choice}"),
            Mechanism::TokenExits => format!("tokens always leave after {choice}"),
            Mechanism::FfnGates => format!("never {choice}"),
        }
    }

    /// The best that such choices can do at the dynamic model's work.
    pub(crate) fn mixed(self) -> &'static str {
        match self {
            Mechanism::ExitHeads => "fixed depth, mixed to equal work",
            Mechanism::TokenExits => "fixed token exit, mixed to equal work",
            Mechanism::FfnGates => "static FFNs, mixed to equal work",
        }
    }

    fn at_one_depth(self) -> &'static str {
        match self {
            Mechanism::ExitHeads | Mechanism::FfnGates => "everyone leaves at one depth; line: mixed by chance",
            Mechanism::TokenExits => "tokens leave at one depth; line: mixed by chance",
        }
    }

    fn where_title(self) -> &'static str {
        match self {
            Mechanism::ExitHeads | Mechanism::FfnGates => "Where samples leave",
            Mechanism::TokenExits => "Where tokens leave",
        }
    }

    fn places_title(self) -> &'static str {
        match self {
            Mechanism::ExitHeads | Mechanism::FfnGates => "How right and how sure heads are",
            Mechanism::TokenExits => "How right answers are without the tokens",
        }
    }
}

/// What was asked for and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What decides.
    pub mechanism: Mechanism,
    /// Whether the model that it started from was changed by a mechanism before.
    #[serde(default)]
    pub is_changed: bool,
    /// The model's file name.
    pub model: String,
    /// The data.
    pub data: Data,
    /// What was asked for.
    pub recipe: Asked,
    /// The candidates' names, in order of depth; empty if no exits were possible.
    pub exits: Vec<String>,
    /// Work per sample and segment; absent if no exits were possible.
    pub costs: Option<Costs>,
    /// Quality, thresholds, curve, rivals and verdict; absent if no exits were possible.
    pub outcome: Option<Outcome>,
    /// The same for FFN gates.
    pub gates: Option<GateOutcome>,
    /// How each head was fitted, in order of depth; empty for heads that were not.
    pub heads: Vec<FitStats>,
    /// Why blocks cannot have exits, if none can.
    pub reasons: Vec<String>,
}

/// The data of a calibration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// The file's name.
    pub name: String,
    /// Its rows.
    pub rows: usize,
    /// Whether it has labels; otherwise agreement with the plain model is the measure.
    pub labels: bool,
    /// Rows that thresholds were tuned on.
    pub tune_rows: usize,
    /// Rows that the result was verified on.
    pub verify_rows: usize,
}

/// The recipe in the words of the command's flags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Where decisions may stand.
    pub places: String,
    /// The heads' form.
    pub head: String,
    /// When a sample leaves.
    pub rule: String,
    /// The allowed drop of accuracy, a fraction.
    pub max_drop: f64,
    /// The confidence of the bound.
    pub confidence: f64,
    /// The seed of all random choices.
    pub seed: u64,
}

/// What a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The model's file.
    pub model: &'a Path,
    /// The data.
    pub data: &'a Dataset,
    /// What was asked for.
    pub recipe: &'a Recipe,
    /// What decides.
    pub mechanism: Mechanism,
    /// Whether the model was changed by a mechanism before.
    pub is_changed: bool,
    /// The candidates' names, in order of depth.
    pub exits: &'a [String],
    /// Work per sample and segment.
    pub costs: &'a Costs,
    /// What quality was measured against.
    pub reference: Reference,
    /// The rows used.
    pub split: &'a Split,
    /// The result.
    pub outcome: &'a Outcome,
    /// How each head was fitted.
    pub stats: &'a [FitStats],
}

impl Report {
    /// The report of a calibration.
    pub fn new(inputs: Inputs<'_>) -> Report {
        let data = Data {
            labels: inputs.reference == Reference::Labels,
            tune_rows: inputs.split.tune.len(),
            verify_rows: inputs.split.verify.len(),
            ..data(inputs.data)
        };
        Report {
            data,
            is_changed: inputs.is_changed,
            exits: inputs.exits.to_vec(),
            costs: Some(inputs.costs.clone()),
            outcome: Some(inputs.outcome.clone()),
            heads: inputs.stats.to_vec(),
            ..bare(inputs.model, inputs.data, inputs.recipe, inputs.mechanism)
        }
    }

    /// The report of a calibration of FFN gates.
    pub fn of_gates(model: &Path, data: &Dataset, recipe: &Recipe, split: &Split, outcome: GateOutcome) -> Report {
        let bare = bare(model, data, recipe, Mechanism::FfnGates);
        let (tune_rows, verify_rows) = (split.tune.len(), split.verify.len());
        Report { data: Data { tune_rows, verify_rows, ..bare.data }, gates: Some(outcome), ..bare }
    }

    /// What the mechanism was added to.
    fn base(&self) -> &'static str {
        if self.is_changed { "model so far" } else { "plain model" }
    }

    /// What quality means here: `accuracy` or `agreement`.
    fn measure(&self) -> &'static str {
        if self.data.labels { "accuracy" } else { "agreement" }
    }
}

/// The report on a model in which no exit can stand, for these reasons.
pub fn without_candidates(
    model: &Path,
    data: &Dataset,
    recipe: &Recipe,
    mechanism: Mechanism,
    reasons: &[String],
) -> Report {
    Report { reasons: reasons.to_vec(), ..bare(model, data, recipe, mechanism) }
}

fn bare(model: &Path, dataset: &Dataset, recipe: &Recipe, mechanism: Mechanism) -> Report {
    Report {
        schema: SCHEMA,
        mechanism,
        is_changed: false,
        model: model.file_name().unwrap_or(model.as_os_str()).to_string_lossy().into_owned(),
        data: data(dataset),
        recipe: Asked {
            places: match mechanism {
                Mechanism::ExitHeads => recipe.exit_heads.at.to_string(),
                Mechanism::TokenExits => recipe.token_exit.at.to_string(),
                Mechanism::FfnGates => recipe.ffn_skip.at.to_string(),
            },
            head: match mechanism {
                Mechanism::ExitHeads => recipe.exit_heads.head.to_string(),
                Mechanism::TokenExits => match recipe.token_exit.rule {
                    TokenRule::Learned | TokenRule::Auto => "mlp on the text".into(),
                    TokenRule::Entropy => "linear, of the answer".into(),
                    TokenRule::Fixed(_) | TokenRule::None => "none".into(),
                },
                Mechanism::FfnGates => match recipe.ffn_skip.rule {
                    FfnRule::Learned(_) | FfnRule::Auto => "linear on the token".into(),
                    FfnRule::Cosine(_) | FfnRule::Static(_) | FfnRule::None => "none".into(),
                },
            },
            rule: match mechanism {
                Mechanism::ExitHeads => recipe.exit_heads.rule.to_string(),
                Mechanism::TokenExits => recipe.token_exit.rule.to_string(),
                Mechanism::FfnGates => recipe.ffn_skip.words(),
            },
            max_drop: recipe.max_drop.0,
            confidence: recipe.confidence,
            seed: recipe.seed,
        },
        exits: Vec::new(),
        costs: None,
        outcome: None,
        gates: None,
        heads: Vec::new(),
        reasons: Vec::new(),
    }
}

fn data(dataset: &Dataset) -> Data {
    Data {
        name: dataset.name.clone(),
        rows: dataset.rows,
        labels: dataset.labels.is_some(),
        tune_rows: 0,
        verify_rows: 0,
    }
}
