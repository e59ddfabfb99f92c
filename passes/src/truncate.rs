//! The static model that ends at an exit for every sample: stem, blocks up to the exit, its head.
//! The rival that a dynamic model has to beat, and the judge of a forced exit.

use eec_ir::{Graph, ValueId};

use crate::exit_heads::Head;
use crate::insert::{Attach, InsertError, check_candidate, whole};
use crate::structure::{Structure, flow};

/// The model cut after `block`, with `head` in the place of everything after. Outputs keep their
/// names; all but the main one must be computed before the cut.
pub fn truncate(graph: &Graph, structure: &Structure, block: usize, head: &Head) -> Result<Graph, InsertError> {
    check_candidate(structure, block)?;
    let after = flow::dependents(graph, &[structure.blocks[block].output]);
    let mut target = graph.clone();
    let mut attach = Attach { source: graph, structure, target: &mut target, pass: "truncate", ops: None };
    let logits = attach.logits(&whole(graph), block, head, &format!("exit.{block}"))?;
    let output = |(i, v): (usize, &ValueId)| match i == structure.main_output {
        true => Some(logits),
        false => (!after[v.index()]).then_some(*v),
    };
    let values = graph.outputs().iter().enumerate().map(output);
    let names = graph.output_names().iter().map(|n| n.to_string());
    let outputs = names.zip(values).filter_map(|(n, v)| Some((n, v?))).collect();
    target.set_outputs(outputs);
    target.remove_dead();
    Ok(target)
}
