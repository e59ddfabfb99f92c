//! The span of visual tokens in the sequence that the blocks work on.
//!
//! It is found by form: in the stem, tokens computed from a float input (the vision side) and tokens
//! looked up by an integer input (embedded text) are concatenated along the token axis, and the
//! result, up to operators that keep its type, enters the first block.

use eec_ir::{DType, Dim, Graph, NodeId, Op, ValueId};

use crate::structure::{Structure, flow};

/// Tokens `start..start + len` of a sequence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first token.
    pub start: Dim,
    /// The number of tokens, above 0.
    pub len: Dim,
    /// The length of the whole sequence.
    pub sequence: Dim,
}

impl Span {
    /// The position after the last token.
    pub fn end(&self) -> Dim {
        &self.start + &self.len
    }

    /// Tokens after the span.
    pub fn after(&self) -> Dim {
        &self.sequence - &self.end()
    }

    /// Tokens outside the span.
    pub fn kept(&self) -> Dim {
        &self.sequence - &self.len
    }

    /// Tokens `start..start + len` of the sequence that the blocks of `structure` work on.
    pub fn at(graph: &Graph, structure: &Structure, start: i64, len: i64) -> Result<Span, String> {
        let ty = structure.blocks.first().map(|b| graph.ty(b.input)).ok_or("the model has no blocks")?;
        let sequence = ty.dims.get(1).filter(|_| ty.rank() == 3).cloned();
        let sequence = sequence.ok_or_else(|| format!("expected blocks on [batch, tokens, width], found {ty}"))?;
        let span = Span { start: start.into(), len: len.into(), sequence };
        if start < 0 || len < 1 || !span.after().is_at_least(0) || span.kept() == Dim::default() {
            return Err(format!("tokens {start} to {} are not a part of a sequence of {}", start + len, span.sequence));
        }
        Ok(span)
    }

    /// The spans that come from a vision side.
    pub fn find(graph: &Graph, structure: &Structure) -> Vec<Span> {
        let Some(first) = structure.blocks.first() else { return Vec::new() };
        let visual = flow::dependents(graph, &float_inputs(graph));
        let mut joins = structure.stem.nodes.iter().filter(|id| {
            let node = graph.node(**id);
            let same_type = graph.ty(node.outputs[0]) == graph.ty(first.input);
            same_type && matches!(node.op, Op::Concat { .. }) && visual[node.outputs[0].index()]
        });
        joins.next_back().map_or_else(Vec::new, |id| visual_operands(graph, *id, &visual))
    }
}

fn float_inputs(graph: &Graph) -> Vec<ValueId> {
    graph.inputs().iter().copied().filter(|v| graph.ty(*v).dtype == DType::F32).collect()
}

/// The operands of a concatenation along axis 1 that come from the vision side, if others do not.
fn visual_operands(graph: &Graph, id: NodeId, visual: &[bool]) -> Vec<Span> {
    let node = graph.node(id);
    let ty = graph.ty(node.outputs[0]);
    let along_tokens = matches!(node.op, Op::Concat { axis } if axis == 1 || axis == 1 - ty.rank() as i64);
    let reads_text = |v: &&ValueId| !visual[v.index()] && !flow::is_constant(graph, **v);
    if ty.rank() != 3 || !along_tokens || !node.inputs.iter().any(|v| reads_text(&v)) {
        return Vec::new();
    }
    let (mut start, mut spans) = (Dim::default(), Vec::new());
    for v in &node.inputs {
        let len = graph.ty(*v).dims[1].clone();
        if visual[v.index()] {
            spans.push(Span { start: start.clone(), len: len.clone(), sequence: ty.dims[1].clone() });
        }
        start = &start + &len;
    }
    spans
}
