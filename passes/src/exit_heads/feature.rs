//! The feature that a fitted head takes: the model's own pooling, or a mean.
//!
//! The model pools in its tail: norm, then class token, last token, mean or average pool, up to the
//! first value `[batch, width]`. That part is applied to an exit's value if it has the type of the
//! tail's own input. Else (stages of a ConvNet) the feature is the mean over positions.

use eec_ir::{Graph, NodeId, Op, ValueId};

use crate::emit::{Emit, EmitError};
use crate::insert::InsertError;
use crate::structure::{Kind, Structure, flow};

/// How to get the feature at an exit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeaturePlan {
    /// The computation.
    pub pooling: Pooling,
    /// The feature's length.
    pub width: usize,
}

/// The computation of a feature `[batch, width]` from an exit's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pooling {
    /// The value is the feature.
    None,
    /// These nodes of the tail, up to this value, applied to the exit's value.
    Own {
        /// Nodes in execution order.
        nodes: Vec<NodeId>,
        /// The value in the tail.
        value: ValueId,
    },
    /// The mean over these axes.
    Mean {
        /// Axes, ascending.
        axes: Vec<i64>,
    },
}

/// The feature at the exit after block `block`.
pub fn feature(graph: &Graph, structure: &Structure, block: usize) -> Result<FeaturePlan, InsertError> {
    let count = structure.blocks.len();
    let at = structure.blocks.get(block).ok_or(InsertError::NoBlock { block, count })?;
    let ty = graph.ty(at.output);
    if ty == graph.ty(structure.tail_input())
        && let Some(plan) = own_pooling(graph, structure)
    {
        return Ok(plan);
    }
    let rank = ty.rank() as i64;
    let is_conv = at.sub_blocks.iter().any(|s| s.kind == Kind::Conv);
    let (channel, axes) =
        if is_conv { (1, (2..rank).collect()) } else { (rank - 1, (1..rank - 1).collect::<Vec<_>>()) };
    let width = usize::try_from(channel).ok().and_then(|c| ty.dims.get(c)).and_then(|d| d.as_const());
    match width.and_then(|w| usize::try_from(w).ok()) {
        Some(width) if rank == 2 => Ok(FeaturePlan { pooling: Pooling::None, width }),
        Some(width) if rank > 2 => Ok(FeaturePlan { pooling: Pooling::Mean { axes }, width }),
        _ => {
            let reason = format!("expected channels of a known number in the exit's value, found type {ty}");
            Err(InsertError::NotACandidate { what: "exit", block, reason })
        }
    }
}

/// The tail up to its first value `[batch, width]`.
fn own_pooling(graph: &Graph, structure: &Structure) -> Option<FeaturePlan> {
    let batch = structure.batch.dim();
    let is_row = |v: &&ValueId| {
        let ty = graph.ty(**v);
        ty.rank() == 2 && ty.dims[0] == batch && **v != structure.output
    };
    let value = *structure.tail_cuts.iter().find(is_row)?;
    let width = graph.ty(value).dims.get(1)?.as_const().and_then(|w| usize::try_from(w).ok())?;
    let input = structure.tail_input();
    if value == input {
        return Some(FeaturePlan { pooling: Pooling::None, width });
    }
    let nodes = flow::between(graph, input, value);
    Some(FeaturePlan { pooling: Pooling::Own { nodes, value }, width })
}

/// The mean of `x` over `axes`.
pub(crate) fn mean(emit: &mut Emit, axes: &[i64], x: ValueId) -> Result<ValueId, EmitError> {
    emit.op("mean", Op::ReduceMean { axes: axes.to_vec(), keepdims: false }, &[x])
}
