//! Where an early exit may stand: the checks of every block's output, with the reason of a refusal.

use eec_ir::{Graph, NodeId, ValueId};

use super::{Batch, ExitCandidate, Structure, flow};
use crate::rows::Rows;

/// Why nothing is inserted into a model with sizes that data decides: they would have to be made anew for the rows
/// that stay.
pub(crate) const LATE: &str = "data decides sizes of the model while it runs";

/// Sets every block's candidacy.
pub(crate) fn mark_candidates(graph: &Graph, structure: &mut Structure) {
    let rows = match &structure.batch {
        Batch::Symbolic(symbol) => Some(Rows::analyse(graph, symbol)),
        Batch::Fixed(_) => None,
    };
    let live = flow::ancestors(graph, graph.outputs());
    let count = structure.blocks.len();
    for index in 0..count {
        let value = structure.blocks[index].output;
        let after = flow::dependents(graph, &[value]);
        let last = "it is the last block, the model's own tail follows";
        let refusal = refuse_outputs(graph, structure, &after)
            .or_else(|| refuse_model(graph, structure))
            .or_else(|| (index + 1 == count).then(|| last.to_string()))
            .or_else(|| refuse_value(graph, structure, value))
            .or_else(|| refuse_mixing(graph, value, rows.as_ref()?, &after, &live));
        structure.blocks[index].exit = refusal.map_or(ExitCandidate::Yes, ExitCandidate::No);
    }
}

/// A reason that holds for every exit of the model.
fn refuse_model(graph: &Graph, structure: &Structure) -> Option<String> {
    if !graph.late_symbols().is_empty() {
        return Some(LATE.into());
    }
    let ty = graph.ty(structure.output);
    if ty.rank() != 2 {
        return Some(format!("per-token outputs need other exits: expected an output [batch, classes], found {ty}"));
    }
    match structure.batch {
        Batch::Fixed(n) if n != 1 => {
            Some(format!("the batch is fixed at {n}: samples exit one by one from a symbolic batch or a batch of 1"))
        }
        Batch::Fixed(_) | Batch::Symbolic(_) => None,
    }
}

fn refuse_value(graph: &Graph, structure: &Structure, value: ValueId) -> Option<String> {
    let (ty, batch) = (graph.ty(value), structure.batch.dim());
    let differs = ty.dims.first() != Some(&batch);
    differs.then(|| format!("expected {batch} as its first dim, found type {ty}"))
}

fn refuse_mixing(graph: &Graph, value: ValueId, rows: &Rows, after: &[bool], live: &[bool]) -> Option<String> {
    let follows = |v: &ValueId| after[v.index()] && live[v.index()] && *v != value;
    let nodes = graph.region(Graph::ROOT).nodes.iter();
    let mut following = nodes.filter(|id| graph.node(**id).outputs.iter().any(follows));
    let reason = following.find_map(|id: &NodeId| rows.problem(*id))?;
    Some(format!("samples do not stay apart: {reason}"))
}

fn refuse_outputs(graph: &Graph, structure: &Structure, after: &[bool]) -> Option<String> {
    let others = graph.outputs().iter().enumerate().filter(|(i, _)| *i != structure.main_output);
    let (index, _) = others.into_iter().find(|(_, v)| after[v.index()])?;
    let name = graph.output_names().get(index).map(|n| n.to_string()).unwrap_or_default();
    let what = if structure.states.iter().any(|s| s.output == index) { "the state output" } else { "the output" };
    Some(format!("{what} `{name}` is computed after it"))
}
