//! The last stage: passes that the recipe names, on what the other stages made.

use eec_ir::verify::Stage;
use eec_passes::pass::Context;
use eec_passes::pipeline;

use super::Compile;
use crate::Error;
use crate::cases::exit_count;
use crate::model::{Dynamic, Form, Inserted, Model, simplified};

/// Runs the passes; the result is the model's dynamic form.
pub(super) fn run(model: &mut Model, options: &Compile) -> Result<(), Error> {
    let asked = options.recipe.passes.trim();
    if asked.is_empty() {
        return Ok(());
    }
    let passes = options.registry.pipeline(asked).map_err(|e| Error::request(format!("passes: {e}")))?;
    let mut graph = model.graph(Form::Dynamic).clone();
    let settings = pipeline::Options { stage: Stage::Dynamic, ..pipeline::Options::default() };
    pipeline::run(&passes, &mut graph, &mut Context::default(), &settings, &mut std::io::sink())?;
    let graph = simplified(graph)?;
    let (mut exits, mut gates) = match model.dynamic.take() {
        Some(dynamic) => (dynamic.exits, dynamic.gates),
        None => (Vec::new(), Vec::new()),
    };
    let gate_count = graph.nodes_in_order().into_iter().filter(|n| graph.node(*n).op.gate().is_some()).count();
    let Inserted { exits_of_passes, gates_of_passes, .. } = &mut model.inserted;
    *exits_of_passes = name_new("exit", &mut exits, exit_count(&graph))?;
    *gates_of_passes = name_new("gate", &mut gates, gate_count)?;
    model.dynamic = Some(Dynamic { graph, exits, gates });
    Ok(())
}

/// Adds names up to `count`; returns how many.
fn name_new(kind: &str, names: &mut Vec<String>, count: usize) -> Result<usize, Error> {
    let known = names.len();
    if count < known {
        return Err(Error::request(format!("passes: of {known} {kind}s that were calibrated {count} are left")));
    }
    names.extend((known..count).map(|k| format!("{kind} {k}")));
    Ok(count - known)
}
