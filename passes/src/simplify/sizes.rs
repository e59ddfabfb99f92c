//! Sizes as values: known elements become a constant, or a `Sizes` node where data needs them.

use std::collections::HashSet;

use eec_ir::dim::Dim;
use eec_ir::op::Op;
use eec_ir::{DType, Graph, NodeId, Tensor, ValueId};

use super::{Simplify, insert_before, replace};
use crate::pass::PassError;

pub(super) fn apply(graph: &mut Graph) -> Result<bool, PassError> {
    let (mut changed, data) = (false, read_as_data(graph));
    for id in graph.nodes_in_order() {
        let node = graph.node(id);
        let [value] = node.outputs[..] else { continue };
        if node.op.is_control() || node.op.late_symbol().is_some() || is_sizes_form(graph, id) {
            continue;
        }
        let Some(contents) = graph.value(value).contents.clone() else { continue };
        let new = match contents.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>() {
            Some(elements) => Some(constant(graph, id, value, &elements)?),
            None if data.contains(&value) => sizes(graph, id, value, contents)?,
            None => None,
        };
        if let Some(new) = new {
            changed |= replace(graph, id, new);
        }
    }
    Ok(changed)
}

/// `Sizes` and what brings it into the value's type: already in final form.
fn is_sizes_form(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    match &node.op {
        Op::Sizes { .. } => true,
        Op::Reshape { .. } | Op::Cast { .. } => graph.def_node(node.inputs[0]).is_some_and(|n| is_sizes_form(graph, n)),
        _ => false,
    }
}

/// The values of which data is made: what the graph or a region gives, and operands of what gives more than sizes.
fn read_as_data(graph: &Graph) -> HashSet<ValueId> {
    let mut read: HashSet<ValueId> = graph.outputs().iter().copied().collect();
    for node in graph.nodes_in_order().into_iter().map(|id| graph.node(id)) {
        if !node.outputs.iter().all(|v| graph.value(*v).contents.is_some()) {
            read.extend(&node.inputs);
        }
        read.extend(node.regions.iter().flat_map(|r| &graph.region(*r).yields));
    }
    read
}

fn constant(graph: &mut Graph, at: NodeId, value: ValueId, elements: &[i64]) -> Result<ValueId, PassError> {
    let ty = graph.ty(value).clone();
    let dims: Option<Vec<usize>> = ty.dims.iter().map(|d| usize::try_from(d.as_const()?).ok()).collect();
    let dims = dims.ok_or_else(|| PassError::at(Simplify::NAME, graph, at, "known elements under unknown dims"))?;
    let elements: Vec<i128> = elements.iter().map(|e| i128::from(*e)).collect();
    let tensor = Tensor::from_integers(ty.dtype, &dims, &elements);
    let tensor = tensor.map_err(|e| PassError::at(Simplify::NAME, graph, at, e))?;
    Ok(graph.constant(tensor))
}

fn sizes(graph: &mut Graph, at: NodeId, value: ValueId, contents: Vec<Dim>) -> Result<Option<ValueId>, PassError> {
    let ty = graph.ty(value).clone();
    let mut new = insert_before(graph, at, Op::Sizes { values: contents }, &[])?;
    if ty.rank() != 1 {
        new = insert_before(graph, at, Op::Reshape { dims: ty.dims.clone() }, &[new])?;
    }
    if ty.dtype != DType::I64 {
        new = insert_before(graph, at, Op::Cast { to: ty.dtype }, &[new])?;
    }
    Ok(Some(new))
}
