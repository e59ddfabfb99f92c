//! The last stage: passes that the recipe names, on what the other stages made.

use std::collections::HashMap;

use eec_ir::verify::Stage;
use eec_ir::{Graph, NodeId, ValueId};
use eec_passes::pass::Context;
use eec_passes::{pipeline, structure};

use super::Compile;
use super::work::names;
use crate::Error;
use crate::model::{Dynamic, Form, Model, simplified};

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
    let nodes = graph.nodes_in_order();
    let mut exit_nodes: Vec<NodeId> = nodes.iter().copied().filter(|n| graph.node(*n).op.exit().is_some()).collect();
    exit_nodes.sort_by_key(|n| graph.node(*n).op.exit());
    let new_exits = exit_nodes.get(exits.len()..).ok_or_else(|| gone("exits", exits.len(), exit_nodes.len()))?;
    let blocks = blocks(&model.plain, &graph, new_exits);
    exits.extend(match &blocks {
        Some(blocks) => names(blocks.iter().copied()),
        None => (exits.len()..exit_nodes.len()).map(|k| format!("exit {k}")).collect(),
    });
    let gate_count = nodes.iter().filter(|n| graph.node(**n).op.gate().is_some()).count();
    let new_gates = gate_count.checked_sub(gates.len()).ok_or_else(|| gone("gates", gates.len(), gate_count))?;
    gates.extend((gates.len()..gate_count).map(|k| format!("gate {k}")));
    model.inserted.gates_of_passes = new_gates;
    match blocks {
        Some(blocks) => model.inserted.exits.extend(blocks),
        None => model.inserted.exits_of_passes = new_exits.len(),
    }
    model.dynamic = Some(Dynamic { graph, exits, gates });
    Ok(())
}

fn gone(what: &str, known: usize, found: usize) -> Error {
    Error::request(format!("passes: of {known} {what} that were calibrated {found} are left"))
}

/// The blocks after which exits stand: those whose output a decision's operands come from. `None` if one
/// stands elsewhere, or nodes have no names by which a copy could be told.
fn blocks(plain: &Graph, graph: &Graph, exits: &[NodeId]) -> Option<Vec<usize>> {
    let structure = structure::analyse(plain).ok()?;
    let named = |b: &structure::Block| Some((source(plain, b.output)?.to_string(), b.index));
    let outputs: HashMap<String, usize> = structure.blocks.iter().filter_map(named).collect();
    let block = |exit: &NodeId| {
        let operands = graph.node(*exit).inputs.iter();
        operands.filter_map(|v| outputs.get(source(graph, *v)?).copied()).max()
    };
    exits.iter().map(block).collect()
}

/// The name of the source model's node that computes a value.
fn source(graph: &Graph, value: ValueId) -> Option<&str> {
    let origin = &graph.node(graph.def_node(value)?).origin;
    origin.source.as_deref().filter(|name| origin.pass.is_none() && !name.is_empty())
}
