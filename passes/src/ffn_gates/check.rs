//! Checks of the options against the model.

use eec_ir::{DType, Dim, Graph, Tensor};

use super::candidate::{Ffn, ffn};
use super::{FfnGateError, FfnGates, Gate, LearnedGate, Replacement, Rule};
use crate::structure::Structure;

type Result<T> = std::result::Result<T, FfnGateError>;

/// Checks the options; returns the FFNs of the gates.
pub(super) fn check(graph: &Graph, structure: &Structure, options: &FfnGates) -> Result<Vec<Ffn>> {
    let gates = &options.gates;
    if gates.is_empty() {
        return Err(FfnGateError::NoGates);
    }
    if let Some([a, b]) = gates.array_windows().find(|[a, b]| a.block >= b.block) {
        return Err(FfnGateError::Order { block: a.block, next: b.block });
    }
    let ffns = gates.iter().map(|g| ffn(graph, structure, g.block)).collect::<Result<Vec<_>>>()?;
    for (gate, ffn) in gates.iter().zip(&ffns) {
        gate.replacement.as_ref().map_or(Ok(()), |r| check_replacement(r, gate.block, ffn.width))?;
    }
    match &options.rule {
        Rule::Static | Rule::Given => {}
        Rule::Cosine { skip_next: 0, .. } => return Err(FfnGateError::SkipNext),
        Rule::Cosine { .. } => check_same_tokens(gates, &ffns)?,
        Rule::Learned { gates: learned } if learned.len() != gates.len() => {
            return Err(FfnGateError::Learned { learned: learned.len(), gates: gates.len() });
        }
        Rule::Learned { gates: learned } => {
            for ((gate, ffn), learned) in gates.iter().zip(&ffns).zip(learned) {
                check_learned(learned, gate.block, ffn.width)?;
            }
        }
    }
    Ok(ffns)
}

/// The countdown goes with its token.
fn check_same_tokens(gates: &[Gate], ffns: &[Ffn]) -> Result<()> {
    let shown = |f: &Ffn| f.tokens.iter().map(Dim::to_string).collect::<Vec<_>>().join(", ");
    let Some(first) = ffns.first() else { return Ok(()) };
    match gates.iter().zip(ffns).find(|(_, f)| f.tokens != first.tokens) {
        None => Ok(()),
        Some((g, f)) => Err(FfnGateError::Tokens { block: g.block, found: shown(f), expected: shown(first) }),
    }
}

fn check_replacement(with: &Replacement, block: usize, width: usize) -> Result<()> {
    let rank = with.down_bias.len();
    check_weight("replacement's first weight", &with.down, &[width, rank], block)?;
    check_weight("replacement's first bias", &with.down_bias, &[rank], block)?;
    check_weight("replacement's second weight", &with.up, &[rank, width], block)?;
    check_weight("replacement's second bias", &with.up_bias, &[width], block)
}

/// An error if a classifier does not fit an FFN of `width` at `block`.
pub(super) fn check_learned(gate: &LearnedGate, block: usize, width: usize) -> Result<()> {
    let mut from = width;
    if let Some(hidden) = &gate.hidden {
        from = hidden.bias.len();
        check_weight("gate's hidden weight", &hidden.weight, &[width, from], block)?;
        check_weight("gate's hidden bias", &hidden.bias, &[from], block)?;
    }
    check_weight("gate's weight", &gate.weight, &[from, 1], block)
}

fn check_weight(what: &'static str, weight: &Tensor, dims: &[usize], block: usize) -> Result<()> {
    if weight.dtype() == DType::F32 && weight.dims() == dims {
        return Ok(());
    }
    let expected = dims.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    Err(FfnGateError::Weight { block, what, expected, found: weight.ty().to_string() })
}
