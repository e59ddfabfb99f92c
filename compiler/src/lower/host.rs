//! Operators without a compiled form, or on element types that loops do not compute with: the runtime
//! calls their reference evaluators.

use eec_ir::program::{Dense, Form, Host};
use eec_ir::{DType, Dim, Graph, NodeId, Op, ValueId};

use super::{LowerError, Lowering};

/// The nodes that the host runs, in order.
pub fn host_nodes(graph: &Graph) -> Vec<NodeId> {
    graph.nodes_in_order().into_iter().filter(|id| !is_compiled(graph, *id)).collect()
}

/// Whether the node's operator has a compiled form that its operands and results allow.
pub(super) fn is_compiled(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let dtype = |v: &ValueId| graph.ty(*v).dtype;
    let mut types = node.inputs.iter().chain(&node.outputs).map(dtype);
    let first = || node.inputs.first().map(|v| graph.ty(*v));
    match &node.op {
        // Bits are moved whatever they stand for.
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Expand { .. } | Op::Slice { .. } => true,
        Op::Concat { .. } => !has_late_differences(graph, node.inputs.iter().flat_map(|v| &graph.ty(*v).dims)),
        Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherND { .. } | Op::Where {} => true,
        Op::Shape { .. } | Op::If { .. } | Op::Route { .. } | Op::Loop { .. } | Op::LateSize { .. } => true,
        Op::Pad { pads } => types.all(DType::is_compiled) && !has_late_differences(graph, pads),
        Op::Pow {} => dtype(&node.inputs[0]) == DType::F32 && types.all(DType::is_compiled),
        Op::Conv { .. } => first().is_some_and(|x| x.rank() <= 4) && types.all(|t| t == DType::F32),
        Op::MaxPool { .. } | Op::AveragePool { .. } => {
            first().is_some_and(|x| x.rank() == 4) && types.all(|t| t == DType::F32)
        }
        Op::MatMul { .. } | Op::ReduceMean { .. } => types.all(|t| t == DType::F32),
        Op::ReduceMax { .. } | Op::ReduceMin { .. } => types.all(|t| t.is_compiled() && t != DType::Bool),
        Op::Tan {} | Op::Asin {} | Op::Acos {} | Op::Atan {} | Op::Sinh {} | Op::Cosh {} => false,
        Op::Asinh {} | Op::Acosh {} | Op::Atanh {} | Op::BitwiseNot {} | Op::CastUnsaturated { .. } => false,
        Op::BitCast { .. } | Op::Mod { .. } | Op::BitShift { .. } | Op::BitwiseAnd {} => false,
        Op::BitwiseOr {} | Op::BitwiseXor {} | Op::ReduceProd { .. } | Op::CumProd { .. } => false,
        Op::TopK { .. } | Op::ScatterElements { .. } | Op::ScatterND { .. } => false,
        Op::NonZero {} | Op::Unique { .. } | Op::NonMaxSuppression { .. } => false,
        Op::DeformConv { .. } | Op::RoiAlign { .. } | Op::Det {} => false,
        _ => types.all(DType::is_compiled),
    }
}

/// Whether data decides how a whole is parted, as in `late0` and `n-late0`: of each part alone a run knows how large
/// it may be, which is not enough to check compiled accesses for.
fn has_late_differences<'d>(graph: &Graph, dims: impl IntoIterator<Item = &'d Dim>) -> bool {
    let mut differences = dims.into_iter().filter(|d| !d.is_at_least(0)).peekable();
    if differences.peek().is_none() {
        return false;
    }
    let late = graph.late_symbols();
    differences.any(|dim| late.iter().any(|symbol| dim.mentions(symbol)))
}

impl Lowering<'_> {
    /// A call of the node's evaluator, on whole buffers.
    pub(super) fn host(&mut self, id: NodeId) -> Result<(), LowerError> {
        let graph = self.graph;
        let node = graph.node(id);
        let dims = |v: ValueId| graph.ty(v).dims.clone();
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for v in &node.inputs {
            inputs.push(Dense { buffer: self.dense(*v)?, dims: dims(*v) });
        }
        let results = node.outputs.iter();
        let outputs = results.map(|v| Dense { buffer: self.fresh(*v).view.buffer, dims: dims(*v) }).collect();
        self.emit(Form::Host(Host { op: node.op.clone(), inputs, outputs }), Dim::from(0));
        Ok(())
    }
}
