//! The positions of tokens, for the warm-up in which none skips.

use eec_ir::{Dim, Graph, Op, Tensor, ValueId};

use super::FfnGateError;
use super::candidate::Ffn;
use crate::emit::{Emit, EmitError};
use crate::structure::Structure;

/// How many tokens precede those of a run: the length of the caches, 0 for a model without.
/// `tokens` is how many the run adds.
pub(super) fn past(graph: &Graph, structure: &Structure, tokens: &Dim) -> Result<Dim, String> {
    let mut found: Option<Dim> = None;
    for state in &structure.states {
        let (before, after) = (graph.ty(state.input), graph.ty(graph.outputs()[state.output]));
        let grown = before.dims.iter().zip(&after.dims).find(|(b, a)| *a - *b == *tokens);
        let length = grown
            .map(|(b, _)| b.clone())
            .ok_or_else(|| format!("a state of type {before} does not grow by {tokens} tokens, it becomes {after}"))?;
        if found.as_ref().is_some_and(|f| *f != length) {
            return Err("the caches have different lengths".into());
        }
        found = Some(length);
    }
    Ok(found.unwrap_or_default())
}

/// Whether tokens are past the warm-up, bool `[rows]`.
pub(super) fn is_over(
    emit: &mut Emit,
    graph: &Graph,
    structure: &Structure,
    ffn: &Ffn,
    warm_up: usize,
) -> Result<ValueId, FfnGateError> {
    let Some((tokens, _)) = ffn.tokens.split_last().filter(|(_, before)| !before.is_empty()) else {
        let ty = graph.ty(ffn.input);
        return Err(FfnGateError::WarmUp(format!("expected a token axis between batch and width, found type {ty}")));
    };
    let start = past(graph, structure, tokens).map_err(FfnGateError::WarmUp)?;
    let limit = &start + tokens;
    let positions = emit.op("warm-up/positions", Op::Range { start, limit, delta: 1 }, &[])?;
    let least = emit.constant(Tensor::scalar(i64::try_from(warm_up).unwrap_or(i64::MAX)));
    let over = emit.op("warm-up/over", Op::GreaterOrEqual {}, &[positions, least])?;
    Ok(spread(emit, "warm-up", over, &ffn.tokens)?)
}

/// A value that broadcasts to `tokens`, one element per row: `[rows]`.
pub(super) fn spread(emit: &mut Emit, name: &str, value: ValueId, tokens: &[Dim]) -> Result<ValueId, EmitError> {
    // Expanded dim by dim first, so that the batch keeps a place of its own.
    let each = emit.op(&format!("{name}/each"), Op::Expand { dims: tokens.to_vec() }, &[value])?;
    emit.op(name, Op::Reshape { dims: vec![Dim::product(tokens)] }, &[each])
}
