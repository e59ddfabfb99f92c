//! Storing weights in a narrow form, and what that costs in quality.

use std::path::Path;

use eec_ir::{Graph, cost};
use eec_passes::pass::{Changed, Context, Pass};
use eec_passes::store_weights::StoreWeights;
use eec_passes::structure;

use super::Compile;
use crate::Error;
use crate::dataset::Dataset;
use crate::model::Model;
use crate::quality::{self, Runs, Truth};
use crate::report::Narrowing;

/// The plain model with its weights stored as the recipe says.
pub(super) fn model(path: &Path, plain: Graph, data: Option<&Dataset>, options: &Compile) -> Result<Model, Error> {
    let precision = options.recipe.precision;
    let mut stored = plain.clone();
    let changed = StoreWeights { precision }.run(&mut stored, &mut Context::default())?;
    let narrowing = match data.filter(|_| changed == Changed::Yes) {
        Some(data) => Some(measured(path, [&plain, &stored], data, options)?),
        None => None,
    };
    let mut model = Model::new(path, stored);
    (model.recipe, model.narrowing) = (options.recipe.clone(), narrowing);
    Ok(model)
}

/// Compares the model with narrow weights with the plain one, on all of the data.
fn measured(path: &Path, [plain, stored]: [&Graph; 2], data: &Dataset, options: &Compile) -> Result<Narrowing, Error> {
    let structure = structure::analyse(plain).map_err(Error::request)?;
    let per_token = quality::scores_tokens(plain, &structure)?;
    let batch = options.recipe.ffn_skip.batch();
    let runs = Runs { threads: options.threads, progress: options.progress, batch };
    let graphs = [plain, stored].map(|graph| quality::main_output_only(graph, structure.main_output));
    let mut session = quality::session(&graphs[0], runs)?;
    let truth = Truth::new(data, &mut session, 0, per_token, runs)?;
    let full = quality::score(data, &mut session, &truth, runs, "float32 model")?;
    let mut session = quality::session(&graphs[1], runs)?;
    let narrow = quality::score(data, &mut session, &truth, runs, "narrow weights")?;
    Ok(Narrowing {
        model: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        precision: options.recipe.precision,
        rows: data.rows,
        is_loss: per_token,
        labels: data.labels.is_some(),
        full: full.quality.mean(),
        narrow: narrow.quality.mean(),
        full_bytes: cost::weight_bytes(plain, &plain.nodes_in_order()),
        narrow_bytes: cost::weight_bytes(stored, &stored.nodes_in_order()),
    })
}
