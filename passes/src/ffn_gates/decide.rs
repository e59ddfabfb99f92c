//! What a gate computes: scores, cosines, the countdown, and what runs in an FFN's place.

use eec_ir::{DType, Op, Tensor, ValueId};

use super::{LearnedGate, Replacement};
use crate::dense::{activate, dense};
use crate::emit::{Emit, EmitError};

/// The score `[rows]` of rows `x` `[rows, width]`.
pub(super) fn score(emit: &mut Emit, gate: &LearnedGate, x: ValueId) -> Result<ValueId, EmitError> {
    let mut feature = x;
    if let Some(hidden) = &gate.hidden {
        let layer = dense(emit, "hidden", x, &hidden.weight, &hidden.bias)?;
        feature = activate(emit, hidden.activation, layer)?;
    }
    let column = dense(emit, "score/column", feature, &gate.weight, &Tensor::vector(vec![gate.bias]))?;
    let rows = emit.rows(column);
    emit.op("score", Op::Reshape { dims: vec![rows] }, &[column])
}

/// Whether rows skip, bool `[rows]`, for scores below infinity.
pub(super) fn exceeds(emit: &mut Emit, score: ValueId, threshold: f32) -> Result<ValueId, EmitError> {
    let threshold = emit.constant(Tensor::scalar(threshold));
    emit.op("skip", Op::Greater {}, &[score, threshold])
}

/// The cosine `[rows]` of the rows of `x` and `y`, both `[rows, width]`; 0 where one is zero.
pub(super) fn cosine(emit: &mut Emit, x: ValueId, y: ValueId) -> Result<ValueId, EmitError> {
    let dot = dot(emit, "dot", x, y)?;
    let (xx, yy) = (dot_root(emit, "norm-before", x)?, dot_root(emit, "norm-after", y)?);
    let norms = emit.op("norms", Op::Mul {}, &[xx, yy])?;
    let least = emit.constant(Tensor::scalar(f32::MIN_POSITIVE));
    let norms = emit.op("norms/positive", Op::Max {}, &[norms, least])?;
    emit.op("cosine", Op::Div {}, &[dot, norms])
}

fn dot(emit: &mut Emit, name: &str, x: ValueId, y: ValueId) -> Result<ValueId, EmitError> {
    let products = emit.op(&format!("{name}/products"), Op::Mul {}, &[x, y])?;
    emit.op(name, Op::ReduceSum { axes: vec![1], keepdims: false }, &[products])
}

fn dot_root(emit: &mut Emit, name: &str, x: ValueId) -> Result<ValueId, EmitError> {
    let square = dot(emit, &format!("{name}/square"), x, x)?;
    emit.op(name, Op::Sqrt {}, &[square])
}

/// Whether rows with `left` FFNs still to skip (i64 `[rows]`) skip the next.
pub(super) fn pending(emit: &mut Emit, left: ValueId) -> Result<ValueId, EmitError> {
    let zero = emit.constant(Tensor::scalar(0i64));
    emit.op("skip", Op::Greater {}, &[left, zero])
}

/// The countdown after a gate that rows passed: one less, and not below 0.
pub(super) fn tick(emit: &mut Emit, left: ValueId) -> Result<ValueId, EmitError> {
    let (one, zero) = (emit.constant(Tensor::scalar(1i64)), emit.constant(Tensor::scalar(0i64)));
    let less = emit.op("left/less", Op::Sub {}, &[left, one])?;
    emit.op("left", Op::Max {}, &[less, zero])
}

/// The countdown after an FFN that ran: `skip_next` where it changed little, else as [`tick`].
pub(super) fn restart(
    emit: &mut Emit,
    [x, y, left]: [ValueId; 3],
    threshold: f32,
    skip_next: usize,
) -> Result<ValueId, EmitError> {
    let cosine = cosine(emit, x, y)?;
    let threshold = emit.constant(Tensor::scalar(threshold));
    let little = emit.op("changed-little", Op::GreaterOrEqual {}, &[cosine, threshold])?;
    let less = tick(emit, left)?;
    let skip_next = emit.constant(Tensor::scalar(i64::try_from(skip_next).unwrap_or(i64::MAX)));
    emit.op("left/restarted", Op::Where {}, &[little, skip_next, less])
}

/// Whether all rows of a mask `[rows]` are true, bool `[]`.
pub(super) fn all(emit: &mut Emit, mask: ValueId) -> Result<ValueId, EmitError> {
    let numbers = emit.op("all/numbers", Op::Cast { to: DType::F32 }, &[mask])?;
    let least = emit.op("all/least", Op::ReduceMin { axes: vec![0], keepdims: false }, &[numbers])?;
    let zero = emit.constant(Tensor::scalar(0.0f32));
    emit.op("all", Op::Greater {}, &[least, zero])
}

/// What stands for the sub-block's result on `x` `[…, width]` where it is skipped.
pub(super) fn instead(emit: &mut Emit, with: Option<&Replacement>, x: ValueId) -> Result<ValueId, EmitError> {
    let Some(with) = with else {
        return Ok(x);
    };
    let mut narrow = dense(emit, "down", x, &with.down, &with.down_bias)?;
    if let Some(activation) = with.activation {
        narrow = activate(emit, activation, narrow)?;
    }
    let wide = dense(emit, "up", narrow, &with.up, &with.up_bias)?;
    emit.op("replaced", Op::Add {}, &[x, wide])
}
