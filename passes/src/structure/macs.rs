//! Multiply-accumulate counts as symbolic sizes.

use eec_ir::{Dim, Graph, NodeId, Op, ValueId};

/// The multiply-accumulates of one node: those of matrix products and convolutions; other
/// operators count as none. Regions of a control operator are not counted.
pub fn node_macs(graph: &Graph, node: NodeId) -> Dim {
    let n = graph.node(node);
    let Some(out) = n.outputs.first().map(|v| graph.ty(*v).elements()) else {
        return Dim::default();
    };
    if matches!(n.op, Op::MatMul {} | Op::Gemm { .. } | Op::Conv { .. }) {
        return &out * &depth(graph, &n.op, &n.inputs);
    }
    Dim::default()
}

/// The sum of [`node_macs`] over `nodes`.
pub fn nodes_macs(graph: &Graph, nodes: &[NodeId]) -> Dim {
    nodes
        .iter()
        .fold(Dim::default(), |sum, n| &sum + &node_macs(graph, *n))
}

/// The length of the sum behind one element of a product's result.
fn depth(graph: &Graph, op: &Op, inputs: &[ValueId]) -> Dim {
    let dims = |i: usize| {
        inputs
            .get(i)
            .map(|v| graph.ty(*v).dims.as_slice())
            .unwrap_or_default()
    };
    let from_end = |dims: &[Dim], back: usize| {
        let at = dims.len().checked_sub(back);
        at.and_then(|i| dims.get(i))
            .cloned()
            .unwrap_or_else(|| Dim::from(1))
    };
    match op {
        Op::Gemm { trans_a: true, .. } => from_end(dims(0), 2),
        // A weight is `[m, c/group, kh, kw]`.
        Op::Conv { .. } => Dim::product(dims(1).iter().skip(1)),
        _ => from_end(dims(0), 1),
    }
}
