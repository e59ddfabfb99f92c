//! The road of a model from its plain graph to one that decides at run time: stage after stage, each
//! fitted and calibrated on the model that the stages before it made.

mod costs;
mod exits;
mod ffn;
mod heads;
mod narrowing;
mod passes;
mod places;
mod summary;
mod tokens;
mod work;

use std::path::Path;

use eec_ir::Graph;
use eec_passes::registry::Registry;
use eec_passes::structure;

use crate::Error;
use crate::dataset::Dataset;
use crate::model::Model;
use crate::progress::Progress;
use crate::recipe::{FfnRule, Places, Recipe, TokenRule};

pub use ffn::Replacements;

pub(crate) use exits::candidate_classes;
pub(crate) use ffn::Chance;
pub(crate) use tokens::fixed_token_exit;

use exits::Exits;
use ffn::Ffn;
use tokens::Tokens;
use work::{Base, Work};

/// How to compile.
pub struct Compile<'a> {
    /// What to make of the model.
    pub recipe: Recipe,
    /// The passes that the recipe's key `passes` can name.
    pub registry: &'a Registry,
    /// Threads for the runs over the data; all cores if absent.
    pub threads: Option<usize>,
    /// Told about long work.
    pub progress: &'a dyn Progress,
}

/// Compiles a simplified plain model. Weights are stored as the recipe says before anything else. With
/// data, FFN gates, token exits and exit heads are fitted and calibrated, in this order; without, only
/// what needs neither can be made (token exits at a fixed block, exits with a `final` or `file` head and
/// a rule with a number). The passes that the recipe names run last.
///
/// # Errors
///
/// A model whose structure admits no decisions where the recipe names some, options that need data,
/// data that does not fit, and whatever fails on the way, with file and node.
pub fn compile(path: &Path, plain: Graph, data: Option<&Dataset>, options: &Compile) -> Result<Model, Error> {
    let recipe = &options.recipe;
    let mut model = narrowing::model(path, plain, data, options)?;
    let wants_ffn = recipe.ffn_skip.rule != FfnRule::None;
    let wants_tokens = recipe.token_exit.rule != TokenRule::None;
    let wants_exits = match recipe.exit_heads.at {
        Places::None => false,
        Places::Auto => data.is_some(),
        Places::Blocks(_) => true,
    };
    if data.is_none() {
        recipe.check_without_data().map_err(Error::usage)?;
    }
    let stages = [wants_ffn, wants_tokens, wants_exits].into_iter().filter(|w| *w).count();
    if stages == 0 {
        passes::run(&mut model, options)?;
        return Ok(model);
    }
    let work = Work { path, data, options, stages };
    let structure = structure::analyse(&model.plain).map_err(Error::request)?;
    let gated = match wants_ffn {
        true => {
            let base = Base { graph: &model.plain, structure: &structure, tokens: None, gated: false };
            Ffn { base: &base, work: &work }.make()?
        }
        false => ffn::Made::default(),
    };
    model.reports.extend(gated.report);
    model.inserted.static_ffns = gated.static_order;
    model.inserted.removed_ffns = gated.removed;
    model.inserted.gated_ffns = gated.decide;
    model.inserted.replacements = gated.replacements;
    let is_gated = gated.graph.is_some();
    let graph = gated.graph.unwrap_or_else(|| model.plain.clone());
    let structure = structure::analyse(&graph).map_err(Error::request)?;
    let mut base = Base { graph: &graph, structure: &structure, tokens: None, gated: is_gated };
    let tokens = match wants_tokens {
        true => Tokens::new(&base, &work)?.make()?,
        false => tokens::Made::default(),
    };
    model.reports.extend(tokens.report);
    model.inserted.tokens = tokens.places;
    base.tokens = tokens.options.as_ref();
    let exits = if wants_exits { Exits::new(&base, &work)?.make()? } else { exits::Made::default() };
    model.reports.extend(exits.report);
    model.policy = exits.policy;
    model.candidates = exits.candidates;
    model.inserted.exits = exits.exits.iter().flat_map(|e| &e.exits).map(|e| e.block).collect();
    model.dynamic = base.dynamic(exits.exits.as_ref(), &model.inserted.gated_ffns)?;
    model.summary = summary::of(&model, &work)?;
    passes::run(&mut model, options)?;
    Ok(model)
}
