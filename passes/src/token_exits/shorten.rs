//! Takes the span's tokens out of a value.

use eec_ir::{Dim, Op, Tensor, ValueId};

use super::{Axis, Span};
use crate::insert::{Emit, InsertError};

/// The positions of the tokens that stay, i64 `[kept]`.
pub(crate) fn kept_positions(emit: &mut Emit, span: &Span) -> Result<ValueId, InsertError> {
    if let (Some(start), Some(end), Some(all)) =
        (span.start.as_const(), span.end().as_const(), span.sequence.as_const())
    {
        return Ok(emit.constant(Tensor::vector((0..start).chain(end..all).collect::<Vec<i64>>())));
    }
    let range = |start: Dim, limit: Dim| Op::Range { start, limit, delta: 1 };
    let before = emit.op("before", range(Dim::default(), span.start.clone()), &[])?;
    let after = emit.op("after", range(span.end(), span.sequence.clone()), &[])?;
    Ok(emit.op("kept", Op::Concat { axis: 0 }, &[before, after])?)
}

/// `value` without the span's tokens on `axes`; `kept` are [`kept_positions`], `rows` the rows that
/// may share a dim with the sequence.
pub(crate) fn shorten(
    emit: &mut Emit,
    value: ValueId,
    axes: &[Axis],
    kept: ValueId,
    rows: &Dim,
) -> Result<ValueId, InsertError> {
    let mut value = value;
    for a in axes {
        let dims = emit.ty(value).dims.clone();
        value = match dims[a.axis].exact_div(rows).filter(|_| a.with_batch) {
            Some(length) => {
                let split = [&dims[..a.axis], &[rows.clone(), length], &dims[a.axis + 1..]].concat();
                let split = emit.op("split", Op::Reshape { dims: split }, &[value])?;
                let short = emit.op("shorten", Op::Gather { axis: a.axis as i64 + 1 }, &[split, kept])?;
                let left = rows * &emit.ty(kept).elements();
                let joined = [&dims[..a.axis], &[left], &dims[a.axis + 1..]].concat();
                emit.op("join", Op::Reshape { dims: joined }, &[short])?
            }
            None => emit.op("shorten", Op::Gather { axis: a.axis as i64 }, &[value, kept])?,
        };
    }
    Ok(value)
}
