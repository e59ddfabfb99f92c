//! Which blocks have an FFN that tokens can skip, and why others have not.
//!
//! The FFN must keep tokens apart. It is copied by itself with a symbol in the place of every dim
//! that counts tokens, and the analysis that keeps samples apart is asked about each of them.

use std::collections::HashSet;

use eec_ir::{DType, Dim, Graph, NodeId, Op, Type, ValueId};

use super::FfnGateError;
use super::copy::{Tokens, copy};
use crate::clone::ValueMap;
use crate::rows::{Rows, Track};
use crate::structure::{Block, Kind, LATE, Structure, flow};

/// A block and whether its FFN can have a gate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The block.
    pub block: usize,
    /// It can, or the reason why not.
    pub verdict: Result<(), String>,
}

/// An FFN sub-block that tokens can skip.
#[derive(Debug)]
pub(super) struct Ffn {
    /// The residual stream before it: `[tokens…, width]`.
    pub(super) input: ValueId,
    /// The residual stream after it, of the same type.
    pub(super) output: ValueId,
    /// What lies between, in execution order.
    pub(super) nodes: Vec<NodeId>,
    /// What these read besides: constants left out.
    pub(super) outer: Vec<ValueId>,
    /// The dims that count tokens.
    pub(super) tokens: Vec<Dim>,
    /// The last dim.
    pub(super) width: usize,
}

/// All blocks, each with its verdict.
pub fn candidates(graph: &Graph, structure: &Structure) -> Vec<Candidate> {
    let verdict = |b: &Block| Candidate { block: b.index, verdict: find(graph, b).map(|_| ()) };
    structure.blocks.iter().map(verdict).collect()
}

/// The FFN of block `block`.
pub(super) fn ffn(graph: &Graph, structure: &Structure, block: usize) -> Result<Ffn, FfnGateError> {
    let count = structure.blocks.len();
    let at = structure.blocks.get(block).ok_or(FfnGateError::NoBlock { block, count })?;
    find(graph, at).map_err(|reason| FfnGateError::NotACandidate { block, reason })
}

fn find(graph: &Graph, block: &Block) -> Result<Ffn, String> {
    if graph.nodes_in_order().iter().any(|n| graph.node(*n).op.exit().is_some()) {
        return Err("the model has exits already, and gates come before exit heads".into());
    }
    if !graph.late_symbols().is_empty() {
        return Err(LATE.into());
    }
    let sub_block = block.ffn().ok_or_else(|| no_ffn(block))?;
    let (input, output) = (sub_block.input, sub_block.output);
    let ty = graph.ty(input);
    if graph.ty(output) != ty {
        return Err(format!("it turns {ty} into {}, so it cannot be skipped", graph.ty(output)));
    }
    let Some((last, tokens)) = ty.dims.split_last().filter(|(_, t)| ty.dtype == DType::F32 && !t.is_empty()) else {
        return Err(format!("expected a value [tokens, width], found type {ty}"));
    };
    let width = last.as_const().and_then(|w| usize::try_from(w).ok());
    let width = width.ok_or_else(|| format!("expected a known width, found type {ty}"))?;
    let nodes = flow::between(graph, input, output);
    if nodes.iter().any(|n| graph.node(*n).op.is_control()) {
        return Err("it decides something already".into());
    }
    refuse_uses(graph, &nodes, output)?;
    refuse_plain(graph, &nodes, input)?;
    let outer = outer(graph, &nodes, input);
    let ffn = Ffn { input, output, nodes, outer, tokens: tokens.to_vec(), width };
    refuse_mixing(graph, &ffn)?;
    Ok(ffn)
}

fn no_ffn(block: &Block) -> String {
    let name = |kind| match kind {
        Kind::Attention => "attention",
        Kind::Ffn => "FFN",
        Kind::Conv => "convolutions",
        Kind::Dense => "a single layer",
    };
    let found: Vec<&str> = block.sub_blocks.iter().map(|s| name(s.kind)).collect();
    format!("it has no FFN sub-block, only {}", found.join(" and "))
}

/// What is computed inside must not be needed elsewhere.
fn refuse_uses(graph: &Graph, nodes: &[NodeId], output: ValueId) -> Result<(), String> {
    let own: HashSet<NodeId> = nodes.iter().copied().collect();
    let made: HashSet<ValueId> = nodes.iter().flat_map(|n| graph.node(*n).outputs.clone()).collect();
    let inner = |v: &ValueId| made.contains(v) && *v != output;
    let outside = graph.region(Graph::ROOT).nodes.iter().filter(|n| !own.contains(n));
    let mut reads = outside.flat_map(|n| flow::reads(graph, *n)).chain(graph.outputs().iter().copied());
    let used = reads.find(|v| inner(v)).and_then(|v| graph.def_node(v));
    used.map_or(Ok(()), |n| Err(format!("{}: its result is used outside the FFN", graph.describe(n))))
}

/// The input must be a term of a sum inside: the residual connection.
fn refuse_plain(graph: &Graph, nodes: &[NodeId], input: ValueId) -> Result<(), String> {
    let mut same = HashSet::from([input]);
    for id in nodes {
        let node = graph.node(*id);
        let carries = node.inputs.iter().any(|v| same.contains(v));
        match node.op {
            Op::Add {} if carries => return Ok(()),
            Op::Reshape { .. } if carries => same.extend(&node.outputs),
            _ => {}
        }
    }
    Err("it has no residual connection".into())
}

/// What the nodes read from outside, constants and `input` left out.
fn outer(graph: &Graph, nodes: &[NodeId], input: ValueId) -> Vec<ValueId> {
    let made: HashSet<ValueId> = nodes.iter().flat_map(|n| graph.node(*n).outputs.clone()).collect();
    let mut outer: Vec<ValueId> = nodes.iter().flat_map(|n| flow::reads(graph, *n)).collect();
    outer.retain(|v| *v != input && !made.contains(v) && !flow::is_constant(graph, *v));
    outer.sort();
    outer.dedup();
    outer
}

/// Every token's result must depend on that token alone.
fn refuse_mixing(graph: &Graph, ffn: &Ffn) -> Result<(), String> {
    let mut alone = Graph::new("ffn");
    let mut map = ValueMap::new();
    for value in &ffn.outer {
        let ty = graph.ty(*value);
        let tokens = Tokens { from: ffn.tokens.clone(), to: Vec::new() };
        if ty.dims.iter().any(|d| tokens.count_in(d)) {
            return Err(format!("it reads a value of type {ty} from outside, which differs between tokens"));
        }
        map.insert(*value, alone.add_input("outer", ty.clone()));
    }
    let symbols: Vec<_> = ffn.tokens.iter().map(|_| alone.fresh_symbol("token")).collect();
    let to: Vec<Dim> = symbols.iter().cloned().map(Dim::from).collect();
    let ty = Type::new(DType::F32, to.iter().cloned().chain([Dim::from(ffn.width as i64)]));
    map.insert(ffn.input, alone.add_input("x", ty.clone()));
    let tokens = Tokens { from: ffn.tokens.clone(), to: to.clone() };
    copy(graph, &ffn.nodes, &mut alone, Graph::ROOT, &mut map, &tokens)?;
    let output = map.get(&ffn.output).copied().ok_or("its result is not computed")?;
    let rows: Vec<Rows> = symbols.iter().map(|symbol| Rows::analyse(&alone, symbol)).collect();
    let nodes = &alone.region(Graph::ROOT).nodes;
    if let Some(reason) = rows.iter().find_map(|r| nodes.iter().find_map(|n| r.problem(*n))) {
        return Err(format!("tokens do not stay apart: {reason}"));
    }
    let in_place = |(axis, r): (usize, &Rows)| r.track(output) == Some(&Track::Rows(Dim::product(&to[..axis])));
    match *alone.ty(output) == ty && rows.iter().enumerate().all(in_place) {
        true => Ok(()),
        false => Err("tokens change their places".into()),
    }
}
