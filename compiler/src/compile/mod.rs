//! The road of a model from its plain graph to one that decides at run time: stage after stage, each
//! fitted and calibrated on the model that the stages before it made.

mod costs;
mod exits;
mod heads;
mod places;
mod tokens;
mod work;

use std::path::Path;

use eec_ir::Graph;
use eec_passes::structure;

use crate::Error;
use crate::dataset::Dataset;
use crate::model::Model;
use crate::progress::Progress;
use crate::recipe::{Places, Recipe, TokenRule};

pub(crate) use exits::candidate_classes;

use exits::Exits;
use tokens::Tokens;
use work::{Base, Work};

/// How to compile.
pub struct Compile<'a> {
    /// What to make of the model.
    pub recipe: Recipe,
    /// Threads for the runs over the data; all cores if absent.
    pub threads: Option<usize>,
    /// Told about long work.
    pub progress: &'a dyn Progress,
}

/// Compiles a simplified plain model. With data, token exits and exit heads are fitted and
/// calibrated, in this order; without, only what needs neither can be made (token exits at a fixed
/// block, exits with a `final` or `file` head and a rule with a number).
///
/// # Errors
///
/// A model whose structure admits no decisions where the recipe names some, options that need data,
/// data that does not fit, and whatever fails on the way, with file and node.
pub fn compile(path: &Path, plain: Graph, data: Option<&Dataset>, options: &Compile) -> Result<Model, Error> {
    let mut model = Model::new(path, plain);
    model.recipe = options.recipe.clone();
    let recipe = &options.recipe;
    let wants_tokens = recipe.token_exit.rule != TokenRule::None;
    let wants_exits = match recipe.exit_heads.at {
        Places::None => false,
        Places::Auto => data.is_some(),
        Places::Blocks(_) => true,
    };
    if !wants_exits && !wants_tokens {
        return Ok(model);
    }
    let structure = structure::analyse(&model.plain).map_err(|e| Error::request(e))?;
    let stages = usize::from(wants_tokens) + usize::from(wants_exits);
    let work = Work { path, data, options, stages };
    let mut base = Base { graph: &model.plain, structure: &structure, tokens: None };
    let mut tokens = None;
    if wants_tokens {
        let made = Tokens { base: &base, work: &work }.make()?;
        model.reports.extend(made.report);
        tokens = made.options;
    }
    base.tokens = tokens.as_ref();
    if wants_exits {
        let made = Exits::new(&base, &work)?.make()?;
        model.dynamic = base.with_exits(made.exits.as_ref())?;
        model.policy = made.policy;
        model.candidates = made.candidates;
        model.reports.extend(made.report);
    } else {
        model.dynamic = base.with_exits(None)?;
    }
    Ok(model)
}
