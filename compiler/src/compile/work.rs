//! What all stages share: the data, how to run over it, and the model that a stage starts from.

use std::path::Path;

use eec_ir::Graph;
use eec_passes::exit_heads::ExitHeads;
use eec_passes::insert::{self, Decisions};
use eec_passes::pass::PassError;
use eec_passes::structure::Structure;
use eec_passes::token_exits::TokenExits;
use eec_runtime::Control;

use super::Compile;
use crate::Error;
use crate::calibrate::{self, Goal, Split};
use crate::capture::{Captured, capture};
use crate::dataset::Dataset;
use crate::fit;
use crate::lower::Names;
use crate::model::{Dynamic, lowered, run_options, session_of, simplified};
use crate::recipe::Recipe;

/// Parts of the fitting rows that take turns in being left out, so that thresholds are tuned on rows
/// that the head at hand did not see, and half of all rows remain to verify.
pub(super) const FOLDS: usize = 4;

/// One compilation.
pub(super) struct Work<'a> {
    /// The model's file.
    pub(super) path: &'a Path,
    pub(super) data: Option<&'a Dataset>,
    pub(super) options: &'a Compile<'a>,
    /// Stages that share the allowed drop.
    pub(super) stages: usize,
}

impl<'a> Work<'a> {
    pub(super) fn recipe(&self) -> &'a Recipe {
        &self.options.recipe
    }

    /// The data; an error that says what needs it.
    pub(super) fn data_for(&self, what: &str) -> Result<&'a Dataset, Error> {
        self.data.ok_or_else(|| Error::usage(format!("{what} needs data: give --data")))
    }

    /// Runs a graph over the whole of `data`.
    pub(super) fn run(&self, graph: &Graph, data: &Dataset, stage: &str) -> Result<Captured, Error> {
        run(self.options, graph, data, stage)
    }

    /// The same for a graph with exits.
    pub(super) fn run_dynamic(&self, dynamic: &Dynamic, data: &Dataset, stage: &str) -> Result<Captured, Error> {
        run_named(self.options, &dynamic.graph, dynamic.names(), data, stage)
    }

    /// Half of the rows to fit and tune on, half to verify.
    pub(super) fn split(&self, rows: usize) -> Result<Split, Error> {
        self.split_of(rows, 2 * FOLDS * fit::MIN_ROWS.max(calibrate::MIN_ROWS))
    }

    /// The same where `needed` rows are enough.
    pub(super) fn split_of(&self, rows: usize, needed: usize) -> Result<Split, Error> {
        if rows < needed {
            return Err(Error::request(format!(
                "fitting and calibrating needs at least {needed} rows of data, found {rows}"
            )));
        }
        let all: Vec<usize> = (0..rows).collect();
        Ok(Split::random(&all, 0.5, self.recipe().seed))
    }

    /// One stage's part of what the user allows: the drops of all stages add up to the allowed one, and
    /// the chances that one of them is larger than its part to the allowed chance (Bonferroni).
    pub(super) fn goal(&self) -> Goal {
        let parts = self.stages.max(1) as f64;
        let recipe = self.recipe();
        Goal { max_drop: recipe.max_drop.0 / parts, confidence: 1.0 - (1.0 - recipe.confidence) / parts }
    }
}

/// Runs a graph over the whole of `data`.
pub(super) fn run(options: &Compile, graph: &Graph, data: &Dataset, stage: &str) -> Result<Captured, Error> {
    run_named(options, graph, Names::default(), data, stage)
}

fn run_named(
    options: &Compile,
    graph: &Graph,
    names: Names<'_>,
    data: &Dataset,
    stage: &str,
) -> Result<Captured, Error> {
    let program = lowered(graph, names)?;
    let mut session = session_of(program, graph, run_options(options.threads))?;
    capture(&mut session, data, options.recipe.ffn_skip.batch(), Control::Auto, stage, options.progress)
}

/// The model that a stage starts from.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    pub(super) graph: &'a Graph,
    pub(super) structure: &'a Structure,
    /// Token exits that were chosen already.
    pub(super) tokens: Option<&'a TokenExits>,
    /// Whether FFN gates or edits are in the graph already.
    pub(super) gated: bool,
}

impl Base<'_> {
    /// Whether an earlier stage changed the model.
    pub(super) fn is_changed(&self) -> bool {
        self.gated || self.tokens.is_some()
    }

    /// Whether only runs tell what a sample costs: tokens leave, or decisions are in the graph.
    pub(super) fn needs_runs_for_costs(&self) -> bool {
        let has_regions = |n| !self.graph.node(n).regions.is_empty();
        self.tokens.is_some() || self.graph.nodes_in_order().into_iter().any(has_regions)
    }

    /// The model with the decisions chosen so far and these exits; `None` if nothing was inserted.
    /// `gated_ffns` are the blocks of the FFN gates that the graph has already.
    pub(super) fn dynamic(&self, exits: Option<&ExitHeads>, gated_ffns: &[usize]) -> Result<Option<Dynamic>, Error> {
        let graph = match (exits, self.tokens) {
            (None, None) if !self.gated => return Ok(None),
            (None, None) => self.graph.clone(),
            (exits, tokens) => {
                let decisions = Decisions { exits, tokens, taps: &[] };
                simplified(insert::apply(self.graph, self.structure, decisions).map_err(pass_error("insert"))?)?
            }
        };
        let blocks = exits.iter().flat_map(|e| &e.exits).map(|e| e.block);
        let tokens = self.tokens.iter().filter(|t| t.decides()).flat_map(|t| &t.exits).map(|e| e.block);
        let ffns = gated_ffns.iter().map(|b| format!("FFN {b}"));
        let gates = ffns.chain(names(tokens).into_iter().map(|b| format!("tokens after {b}"))).collect();
        Ok(Some(Dynamic { graph, exits: names(blocks), gates }))
    }
}

/// What a reader calls blocks.
pub(super) fn names(blocks: impl IntoIterator<Item = usize>) -> Vec<String> {
    blocks.into_iter().map(|b| format!("block {b}")).collect()
}

/// A failure of `pass`.
pub(super) fn pass_error<E: std::fmt::Display>(pass: &'static str) -> impl Fn(E) -> Error {
    move |reason| PassError::new(pass, reason).into()
}
