//! State carried from one run to the next: pairs of an input and an output, recognised by form.
//!
//! A cache is an input that a `Concat`, reached by movement only, extends into an output. A
//! recurrent state is an input and an output of the same type, the output not the main one.

use eec_ir::{DType, Graph, Op, ValueId};

use super::flow;

/// An input and the output that takes its place in the next run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatePair {
    /// The input.
    pub input: ValueId,
    /// Position of the output among the graph's outputs.
    pub output: usize,
}

/// Whether an operator only moves elements of its first operand.
pub(crate) fn is_movement(op: &Op) -> bool {
    matches!(op, Op::Reshape { .. } | Op::Transpose { .. } | Op::Expand { .. } | Op::Slice { .. })
}

/// The state pairs of a graph, and the position of its main output: the first float output that
/// carries no state.
pub(crate) fn find(graph: &Graph) -> (Vec<StatePair>, Option<usize>) {
    let mut pairs = caches(graph);
    let is_float = |v: &ValueId| graph.ty(*v).dtype == DType::F32;
    let main = graph.outputs().iter().enumerate().position(|(i, v)| is_float(v) && pairs.iter().all(|p| p.output != i));
    let Some(main) = main else {
        return (pairs, None);
    };
    pairs.extend(recurrent(graph, main, &pairs));
    (pairs, Some(main))
}

fn caches(graph: &Graph) -> Vec<StatePair> {
    let mut pairs: Vec<StatePair> = Vec::new();
    let inputs = graph.inputs().iter().filter(|v| graph.ty(**v).dtype == DType::F32);
    for input in inputs {
        let extended = extended_by_concat(graph, *input);
        let free = |i: &usize| pairs.iter().all(|p| p.output != *i);
        let output = (0..graph.outputs().len()).filter(free).find(|i| extended[graph.outputs()[*i].index()]);
        pairs.extend(output.map(|output| StatePair { input: *input, output }));
    }
    // An output that only joins inputs is a result, not a state, if nothing else is left.
    if pairs.len() == graph.outputs().len() { Vec::new() } else { pairs }
}

/// The values that follow from `input` by movement with at least one `Concat` on the way.
fn extended_by_concat(graph: &Graph, input: ValueId) -> Vec<bool> {
    let (mut moved, mut extended) = (vec![false; graph.value_count()], vec![false; graph.value_count()]);
    moved[input.index()] = true;
    for id in &graph.region(Graph::ROOT).nodes {
        let node = graph.node(*id);
        let concat = matches!(node.op, Op::Concat { .. });
        if !concat && !is_movement(&node.op) {
            continue;
        }
        let any = |marks: &[bool]| node.inputs.iter().any(|v| marks[v.index()]);
        let (from_moved, from_extended) = (any(&moved), any(&extended));
        for out in &node.outputs {
            extended[out.index()] = from_extended || (concat && from_moved);
            moved[out.index()] = from_moved && !concat;
        }
    }
    extended
}

/// Inputs paired in order with outputs of equal type that depend on them. At least one float input
/// must remain as data, else nothing is taken for state.
fn recurrent(graph: &Graph, main: usize, caches: &[StatePair]) -> Vec<StatePair> {
    let mut pairs: Vec<StatePair> = Vec::new();
    let inputs: Vec<ValueId> =
        graph.inputs().iter().copied().filter(|v| caches.iter().all(|p| p.input != *v)).collect();
    for input in inputs.iter().filter(|v| graph.ty(**v).dtype == DType::F32) {
        let after = flow::dependents(graph, &[*input]);
        let taken = |i: usize| i == main || caches.iter().chain(&pairs).any(|p| p.output == i);
        let fits = |v: ValueId| after[v.index()] && v != *input && graph.ty(v) == graph.ty(*input);
        let output = (0..graph.outputs().len()).find(|i| !taken(*i) && fits(graph.outputs()[*i]));
        pairs.extend(output.map(|output| StatePair { input: *input, output }));
    }
    if pairs.len() >= inputs.len() { Vec::new() } else { pairs }
}
