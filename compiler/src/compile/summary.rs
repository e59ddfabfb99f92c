//! What all stages do together, measured on the rows that none of them was tuned on.

use eec_passes::structure;

use super::work::Work;
use crate::Error;
use crate::model::{Form, Model, run_options};
use crate::quality::{self, Runs, Truth};
use crate::report::Summary;

/// The compiled model against the plain one; `None` unless several stages reported and something was
/// built.
pub(super) fn of(model: &Model, work: &Work) -> Result<Option<Summary>, Error> {
    let composed = model.reports.len() > 1 && model.dynamic.is_some();
    let Some(data) = work.data.filter(|_| composed) else { return Ok(None) };
    let verify = data.select(&work.split_of(data.rows, 0)?.verify);
    let structure = structure::analyse(&model.plain).map_err(Error::request)?;
    let per_token = quality::scores_tokens(&model.plain, &structure)?;
    let (options, recipe) = (work.options, work.recipe());
    let runs = Runs { threads: options.threads, progress: options.progress, batch: recipe.ffn_skip.batch() };
    let mut plain = model.session(Form::Plain, run_options(options.threads))?;
    let truth = Truth::new(&verify, &mut plain, structure.main_output, per_token, runs)?;
    let plain = quality::score(&verify, &mut plain, &truth, runs, "plain model")?;
    let mut compiled = model.session(Form::Dynamic, run_options(options.threads))?;
    let compiled = quality::score(&verify, &mut compiled, &truth, runs, "compiled model")?;
    Ok(Some(Summary {
        verify_rows: verify.rows,
        is_loss: per_token,
        labels: data.labels.is_some(),
        plain: plain.quality.mean(),
        compiled: compiled.quality.mean(),
        plain_macs: plain.macs_per_row(),
        compiled_macs: compiled.macs_per_row(),
        max_drop: recipe.max_drop.0,
        changes: model.changes(),
    }))
}
