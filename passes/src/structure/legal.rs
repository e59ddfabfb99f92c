//! Where an early exit may stand: the checks of every block's output, with the reason of a refusal.

use eec_ir::{Graph, NodeId, ValueId};

use super::{Batch, ExitCandidate, Structure, flow};
use crate::rows::Rows;

/// Sets every block's candidacy.
pub(crate) fn mark_candidates(graph: &Graph, structure: &mut Structure) {
    let rows = match &structure.batch {
        Batch::Symbolic(symbol) => Some(Rows::analyse(graph, symbol)),
        Batch::Fixed(_) => None,
    };
    let common = refuse_model(graph, structure);
    let live = flow::ancestors(graph, graph.outputs());
    let count = structure.blocks.len();
    for index in 0..count {
        let value = structure.blocks[index].output;
        let refusal = match &common {
            Some(reason) => Some(reason.clone()),
            None if index + 1 == count => {
                Some("it is the last block, the model's own tail follows".into())
            }
            None => refuse_value(graph, structure, value, rows.as_ref(), &live),
        };
        structure.blocks[index].exit = refusal.map_or(ExitCandidate::Yes, ExitCandidate::No);
    }
}

/// A reason that holds for every exit of the model.
fn refuse_model(graph: &Graph, structure: &Structure) -> Option<String> {
    let ty = graph.ty(structure.output);
    if ty.rank() != 2 {
        return Some(format!(
            "per-token outputs need other exits: expected an output [batch, classes], found {ty}"
        ));
    }
    match structure.batch {
        Batch::Fixed(n) if n != 1 => Some(format!(
            "the batch is fixed at {n}: samples exit one by one from a symbolic batch or a batch of 1"
        )),
        Batch::Fixed(_) | Batch::Symbolic(_) => None,
    }
}

fn refuse_value(
    graph: &Graph,
    structure: &Structure,
    value: ValueId,
    rows: Option<&Rows>,
    live: &[bool],
) -> Option<String> {
    let (ty, batch) = (graph.ty(value), structure.batch.dim());
    if ty.dims.first() != Some(&batch) {
        return Some(format!(
            "expected {batch} as its first dim, found type {ty}"
        ));
    }
    let after = flow::dependents(graph, &[value]);
    if let Some(reason) = refuse_outputs(graph, structure, &after) {
        return Some(reason);
    }
    let rows = rows?;
    let follows = |id: &&NodeId| {
        graph
            .node(**id)
            .outputs
            .iter()
            .any(|v| after[v.index()] && live[v.index()] && *v != value)
    };
    let follow = graph.region(Graph::ROOT).nodes.iter().filter(follows);
    follow
        .into_iter()
        .find_map(|id| rows.problem(*id))
        .map(|reason| format!("samples do not stay apart: {reason}"))
}

fn refuse_outputs(graph: &Graph, structure: &Structure, after: &[bool]) -> Option<String> {
    let others = graph
        .outputs()
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != structure.main_output);
    let (index, _) = others.into_iter().find(|(_, v)| after[v.index()])?;
    let name = graph
        .output_names()
        .get(index)
        .map(|n| n.to_string())
        .unwrap_or_default();
    let what = if structure.states.iter().any(|s| s.output == index) {
        "the state output"
    } else {
        "the output"
    };
    Some(format!("{what} `{name}` is computed after it"))
}
