//! What a graph costs. Multiply-accumulates count matrix products and convolutions, nothing else;
//! this is the definition that every report uses.

use std::collections::{BTreeSet, HashMap};

use crate::dim::Dim;
use crate::entity::{ConstId, NodeId};
use crate::graph::{Def, Graph};
use crate::op::Op;
use crate::ops::control;
use crate::tensor::Tensor;
use crate::types::DType;

/// The multiply-accumulates of a node's run: for a `Loop` whose number of steps is a size, those of all
/// steps. What other regions cost depends on data and is not counted.
pub fn total_macs(graph: &Graph, node: NodeId) -> Dim {
    let n = graph.node(node);
    let (Op::Loop { trips }, Some(body)) = (&n.op, n.regions.first()) else { return macs(graph, node) };
    let Some(steps) = control::bound(trips) else { return Dim::default() };
    let nodes = graph.region(*body).nodes.iter();
    &steps * &nodes.fold(Dim::default(), |sum, n| &sum + &total_macs(graph, *n))
}

/// The multiply-accumulates of one node, without those of the regions that it owns.
pub fn macs(graph: &Graph, node: NodeId) -> Dim {
    let results = || graph.node(node).outputs.first().map_or_else(Dim::default, |v| graph.ty(*v).elements());
    &results() * &products_per_result(graph, node)
}

/// Products summed for each element of the result.
fn products_per_result(graph: &Graph, node: NodeId) -> Dim {
    let inputs = &graph.node(node).inputs;
    let dims = |operand: usize| inputs.get(operand).map_or(&[][..], |v| graph.ty(*v).dims.as_slice());
    let size = |dim: Option<&Dim>| dim.cloned().unwrap_or_default();
    match &graph.node(node).op {
        Op::MatMul { .. } => size(dims(0).last()),
        Op::Gemm { trans_a, .. } => size(dims(0).get(usize::from(!trans_a))),
        Op::Conv { .. } | Op::DeformConv { .. } => Dim::product(dims(1).iter().skip(1)),
        Op::Neg {} | Op::Abs {} | Op::Sqrt {} | Op::Reciprocal {} | Op::Exp {} | Op::Log {} => Dim::default(),
        Op::Sin {} | Op::Cos {} | Op::Tanh {} | Op::Erf {} | Op::Sigmoid {} | Op::Relu {} => Dim::default(),
        Op::Gelu { .. } | Op::Clip { .. } | Op::Not {} | Op::IsNaN {} | Op::Cast { .. } => Dim::default(),
        Op::Add {} | Op::Sub {} | Op::Mul {} | Op::Div {} | Op::Pow {} | Op::Max {} | Op::Min {} => Dim::default(),
        Op::And {} | Op::Or {} | Op::Equal {} | Op::Less {} | Op::LessOrEqual {} => Dim::default(),
        Op::Greater {} | Op::GreaterOrEqual {} | Op::Where {} => Dim::default(),
        Op::Floor {} | Op::Ceil {} | Op::Round {} | Op::Sign {} | Op::Tan {} | Op::Asin {} | Op::Acos {} => {
            Dim::default()
        }
        Op::Atan {} | Op::Sinh {} | Op::Cosh {} | Op::Asinh {} | Op::Acosh {} | Op::Atanh {} => Dim::default(),
        Op::BitwiseNot {} | Op::CastUnsaturated { .. } | Op::BitCast { .. } => Dim::default(),
        Op::Mod { .. } | Op::BitShift { .. } | Op::BitwiseAnd {} | Op::BitwiseOr {} | Op::BitwiseXor {} => {
            Dim::default()
        }
        Op::ReduceProd { .. } | Op::CumProd { .. } | Op::TopK { .. } => Dim::default(),
        Op::NonZero {} | Op::Unique { .. } | Op::NonMaxSuppression { .. } | Op::LateSize { .. } => Dim::default(),
        Op::ScatterElements { .. } | Op::ScatterND { .. } => Dim::default(),
        Op::MaxPool { .. } | Op::AveragePool { .. } | Op::RoiAlign { .. } | Op::Det {} => Dim::default(),
        Op::Softmax { .. } | Op::LogSoftmax { .. } | Op::LayerNormalization { .. } => Dim::default(),
        Op::ReduceSum { .. } | Op::ReduceMean { .. } | Op::ReduceMax { .. } | Op::ReduceMin { .. } => Dim::default(),
        Op::ArgMax { .. } | Op::CumSum { .. } => Dim::default(),
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Expand { .. } | Op::Concat { .. } => Dim::default(),
        Op::Slice { .. } | Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherND { .. } => Dim::default(),
        Op::Pad { .. } | Op::Shape { .. } | Op::Sizes { .. } | Op::Range { .. } => Dim::default(),
        Op::If { .. } | Op::Route { .. } | Op::Loop { .. } => Dim::default(),
    }
}

/// The multiply-accumulates of the graph's own nodes; of regions only those of loops are counted.
pub fn graph_macs(graph: &Graph) -> Dim {
    graph.region(Graph::ROOT).nodes.iter().fold(Dim::from(0), |sum, n| &sum + &total_macs(graph, *n))
}

/// How many loops end when data says so: their multiply-accumulates are not in [`graph_macs`].
pub fn uncounted_loops(graph: &Graph) -> usize {
    let is_uncounted = |n: &NodeId| matches!(&graph.node(*n).op, Op::Loop { trips } if control::bound(trips).is_none());
    graph.nodes_in_order().iter().filter(|n| is_uncounted(n)).count()
}

/// The elements of all float constants that live nodes read, each constant once, of any width.
pub fn parameters(graph: &Graph) -> u64 {
    weights(graph, graph.nodes_in_order()).map(|t| t.len() as u64).sum()
}

/// The bytes of all float constants that these nodes and those of their regions read, each constant once, as they
/// are stored.
pub fn weight_bytes(graph: &Graph, nodes: &[NodeId]) -> u64 {
    let mut all_nodes = nodes.to_vec();
    for region in nodes.iter().flat_map(|n| &graph.node(*n).regions) {
        graph.visit(*region, &mut |inner| all_nodes.push(inner));
    }
    let nodes = &all_nodes;
    let narrow = |node: &NodeId| Some((graph.node(*node).inputs.get(1).copied()?, graph.node(*node).op.weights()));
    let saved: HashMap<ConstId, u64> = nodes
        .iter()
        .filter_map(narrow)
        .filter_map(|(value, precision)| {
            let Def::Const(id) = graph.value(value).def else { return None };
            let tensor = Some(graph.constants().tensor(id)).filter(|t| t.dtype() == DType::F32)?;
            Some((id, (tensor.bytes().len() as u64).saturating_sub(precision.bytes(tensor.len() as u64))))
        })
        .collect();
    let all: u64 = weights(graph, nodes.iter().copied()).map(|t| t.bytes().len() as u64).sum();
    all - saved.values().sum::<u64>()
}

fn weights(graph: &Graph, nodes: impl IntoIterator<Item = NodeId>) -> impl Iterator<Item = &Tensor> {
    let mut used = BTreeSet::new();
    for node in nodes {
        for value in &graph.node(node).inputs {
            if let Def::Const(id) = graph.value(*value).def {
                used.insert(id);
            }
        }
    }
    used.into_iter().map(|id| graph.constants().tensor(id)).filter(|t| t.dtype().is_float())
}
