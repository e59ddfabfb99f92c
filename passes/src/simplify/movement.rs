//! Movement chains: each rule is the formula it rewrites.

use eec_ir::op::Op;
use eec_ir::{DType, Dim, Graph, NodeId, ValueId};

use super::{insert_before, replace};
use crate::pass::PassError;

pub(super) fn apply(graph: &mut Graph) -> Result<bool, PassError> {
    let mut changed = false;
    for id in graph.nodes_in_order() {
        if let Some(new) = rewrite(graph, id)? {
            changed |= replace(graph, id, new);
        }
    }
    Ok(changed)
}

fn rewrite(graph: &mut Graph, id: NodeId) -> Result<Option<ValueId>, PassError> {
    let node = graph.node(id);
    let (op, inputs) = (node.op.clone(), node.inputs.clone());
    if let Some(same) = identity(graph, id, &op, &inputs) {
        return Ok(Some(same));
    }
    match &op {
        Op::Reshape { dims } => {
            if let Some(swapped) = transposed_matrices(graph, id, inputs[0], dims)? {
                return Ok(Some(swapped));
            }
            // Reshape(Reshape(x)) = Reshape(x)
            match operand(graph, inputs[0]) {
                Some((Op::Reshape { .. }, x)) => Ok(Some(insert_before(graph, id, op, &[x[0]])?)),
                _ => Ok(None),
            }
        }
        // Transpose(Transpose(x, p), q) = Transpose(x, p∘q)
        Op::Transpose { perm: outer } => match operand(graph, inputs[0]) {
            Some((Op::Transpose { perm: inner }, x)) => {
                let perm = outer.iter().filter_map(|q| inner.get(*q as usize).copied()).collect();
                Ok(Some(insert_before(graph, id, Op::Transpose { perm }, &[x[0]])?))
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Movement that moves nothing, and logic with a neutral constant.
fn identity(graph: &Graph, id: NodeId, op: &Op, inputs: &[ValueId]) -> Option<ValueId> {
    let same_type = || graph.ty(inputs[0]) == graph.ty(graph.node(id).outputs[0]);
    match op {
        Op::Reshape { .. } | Op::Expand { .. } | Op::Cast { .. } => same_type().then_some(inputs[0]),
        Op::Transpose { perm } => perm.iter().enumerate().all(|(i, p)| i as i64 == *p).then_some(inputs[0]),
        Op::Concat { .. } => (inputs.len() == 1).then_some(inputs[0]),
        Op::Slice { steps, .. } => (steps.iter().all(|s| *s == 1) && same_type()).then_some(inputs[0]),
        Op::And {} => [(0, 1), (1, 0)].into_iter().find(|(c, _)| is_true(graph, inputs[*c])).map(|(_, x)| inputs[x]),
        _ => None,
    }
}

fn is_true(graph: &Graph, value: ValueId) -> bool {
    let tensor = graph.as_constant(value).filter(|t| t.dtype() == DType::Bool);
    tensor.is_some_and(|t| t.bytes().iter().all(|b| *b == 1))
}

/// The operator and operands that define a value.
fn operand(graph: &Graph, value: ValueId) -> Option<(&Op, &[ValueId])> {
    let node = graph.node(graph.def_node(value)?);
    Some((&node.op, &node.inputs))
}

/// `Reshape(Transpose(Reshape(x, [p, r, c]), [0, 2, 1]), [lead…, c, r]) =
/// Transpose(Reshape(x, [lead…, r, c]), last two swapped)`: how exporters write the transposed keys
/// of attention.
fn transposed_matrices(
    graph: &mut Graph,
    id: NodeId,
    value: ValueId,
    dims: &[Dim],
) -> Result<Option<ValueId>, PassError> {
    let Some((Op::Transpose { perm }, t)) = operand(graph, value) else { return Ok(None) };
    let Some((Op::Reshape { .. }, x)) = operand(graph, t[0]) else { return Ok(None) };
    let (flat, x, n) = (graph.ty(t[0]), x[0], dims.len());
    if perm != &[0, 2, 1] || n < 3 || dims[n - 2] != flat.dims[2] || dims[n - 1] != flat.dims[1] {
        return Ok(None);
    }
    let mut rows = dims.to_vec();
    rows.swap(n - 2, n - 1);
    let mut perm: Vec<i64> = (0..n as i64).collect();
    perm.swap(n - 2, n - 1);
    let matrices = insert_before(graph, id, Op::Reshape { dims: rows }, &[x])?;
    Ok(Some(insert_before(graph, id, Op::Transpose { perm }, &[matrices])?))
}
