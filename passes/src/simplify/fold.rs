//! Constant folding by the reference evaluator.

use eec_ir::ops;
use eec_ir::{Graph, NodeId, Op, Tensor, ValueId};

use super::{Simplify, replace};
use crate::pass::PassError;

/// A folded constant may be this much larger than what it is computed from. Folding an `Expand` or
/// a lookup table beyond that would put into the artifact what a kernel makes faster than it loads.
const MAX_GROWTH_BYTES: usize = 64 << 10;

pub(super) fn apply(graph: &mut Graph) -> Result<bool, PassError> {
    let (mut changed, uses) = (false, graph.uses());
    for id in graph.nodes_in_order() {
        if is_tied_matrix(graph, id, &uses) {
            continue;
        }
        if let Some(tensor) = fold(graph, id)? {
            let value = graph.constant(tensor);
            changed |= replace(graph, id, value);
        }
    }
    Ok(changed)
}

/// Whether the node turns around a large matrix for products alone, while others read it as it is, as an
/// embedding that is also the last product's: kernels pack a matrix either way, and a second one would take its
/// room again.
fn is_tied_matrix(graph: &Graph, id: NodeId, uses: &[Vec<NodeId>]) -> bool {
    let node = graph.node(id);
    let (Op::Transpose { .. }, [value]) = (&node.op, &node.inputs[..]) else { return false };
    let large = |t: &Tensor| t.bytes().len() > MAX_GROWTH_BYTES && t.dims().len() == 2;
    let users = |value: ValueId| uses.get(value.index()).map_or(&[][..], Vec::as_slice);
    let is_product = |user: &NodeId| {
        let user = graph.node(*user);
        matches!(user.op, Op::MatMul { .. } | Op::Gemm { .. }) && user.inputs.get(1) == Some(&node.outputs[0])
    };
    let tied = users(*value).iter().any(|user| *user != id);
    tied && graph.as_constant(*value).is_some_and(large) && users(node.outputs[0]).iter().all(is_product)
}

fn fold(graph: &Graph, id: NodeId) -> Result<Option<Tensor>, PassError> {
    let node = graph.node(id);
    if node.op.is_control() || node.outputs.len() != 1 || has_symbols(&node.op) {
        return Ok(None);
    }
    let inputs: Option<Vec<Tensor>> = node.inputs.iter().map(|v| graph.as_constant(*v).cloned()).collect();
    let (Some(inputs), Some(dims)) = (inputs, graph.ty(node.outputs[0]).const_dims()) else {
        return Ok(None);
    };
    let before: usize = inputs.iter().map(|t| t.bytes().len()).sum();
    let elements = dims.iter().try_fold(graph.ty(node.outputs[0]).dtype.size() as i64, |a, d| a.checked_mul(*d));
    let limit = (before + MAX_GROWTH_BYTES) as i64;
    if elements.is_none_or(|bytes| bytes > limit) {
        return Ok(None);
    }
    let results = ops::eval(&node.op, &inputs, &|_| None);
    let results = results.map_err(|e| PassError::at(Simplify::NAME, graph, id, e))?;
    Ok(results.into_iter().next())
}

/// Whether an attribute is a size that only a run knows.
fn has_symbols(op: &Op) -> bool {
    let mut symbolic = false;
    op.clone().map_dims(&mut |d| {
        symbolic |= d.as_const().is_none();
        d.clone()
    });
    symbolic
}
