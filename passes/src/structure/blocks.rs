//! From segments to blocks: weighted segments become units, units become blocks.
//!
//! A unit is a residual sub-block, or in plain parts one weighted operator; it ends where the next
//! unit begins, as far as the operators between keep its type (so a unit's final activation or
//! norm belongs to it). Attention units join the FFN unit that follows them. In a model with
//! residual sub-blocks, what is plain before the first and after the last is stem and tail, save
//! for runs with the operators of a residual sub-block (the units of MobileNets that change
//! resolution). In a model without, the last weighted operator is the tail's classifier.

use eec_ir::graph::Node;
use eec_ir::{Graph, NodeId, Op, ValueId};

use super::cuts::Segment;
use super::flow;
use super::path::DataPath;

/// What a residual sub-block or a plain part computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A softmax over products of data with data.
    Attention,
    /// Two or more weighted products, no attention.
    Ffn,
    /// Convolutions.
    Conv,
    /// Any other weighted computation.
    Dense,
}

/// A run of segments `start..end` with one weighted sub-block.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) kind: Kind,
    residual: bool,
    signature: Vec<Signature>,
}

/// What makes weighted operators comparable between units: name, kernel, grouped or not.
type Signature = (&'static str, Vec<i64>, bool);

/// Whether `node` multiplies data by weights: a product with exactly one operand on the path.
pub(crate) fn is_weighted(graph: &Graph, path: &DataPath, node: NodeId) -> bool {
    let n = graph.node(node);
    match n.op {
        Op::Gemm { .. } | Op::Conv { .. } | Op::MatMul { .. } => count_data(graph, path, n) == 1,
        _ => false,
    }
}

/// How many of the two factors of a product carry data. The path does not reach into regions: there,
/// constants are what carries none.
fn count_data(graph: &Graph, path: &DataPath, node: &Node) -> usize {
    let carries = |v: &&ValueId| match node.parent == Graph::ROOT {
        true => path.contains(**v),
        false => !flow::is_constant(graph, **v),
    };
    node.inputs.iter().take(2).filter(carries).count()
}

/// Whether `node` multiplies data by data.
fn is_data_product(graph: &Graph, path: &DataPath, node: NodeId) -> bool {
    let n = graph.node(node);
    matches!(n.op, Op::MatMul { .. }) && count_data(graph, path, n) == 2
}

/// What kind of sub-block these nodes are; `None` if nothing in them is weighted.
pub(crate) fn classify(graph: &Graph, path: &DataPath, nodes: &[NodeId]) -> Option<Kind> {
    let nodes = with_inner(graph, nodes);
    let weighted: Vec<&Op> =
        nodes.iter().filter(|n| is_weighted(graph, path, **n)).map(|n| &graph.node(*n).op).collect();
    let has_softmax = nodes.iter().any(|n| matches!(graph.node(*n).op, Op::Softmax { .. }));
    if weighted.is_empty() {
        return None;
    }
    if has_softmax && nodes.iter().any(|n| is_data_product(graph, path, *n)) {
        return Some(Kind::Attention);
    }
    if weighted.iter().any(|op| matches!(op, Op::Conv { .. })) {
        return Some(Kind::Conv);
    }
    Some(if weighted.len() > 1 { Kind::Ffn } else { Kind::Dense })
}

/// `nodes` and those of the regions that they own.
fn with_inner(graph: &Graph, nodes: &[NodeId]) -> Vec<NodeId> {
    let mut all = nodes.to_vec();
    let regions = nodes.iter().flat_map(|n| &graph.node(*n).regions);
    regions.for_each(|r| graph.visit(*r, &mut |inner| all.push(inner)));
    all
}

/// The units of a chain of segments, in order.
pub(crate) fn units(graph: &Graph, path: &DataPath, segments: &[Segment]) -> Vec<Unit> {
    let mut units = raw_units(graph, path, segments);
    extend_to_next(graph, segments, &mut units);
    let Some(first) = units.iter().position(|u| u.residual) else {
        units.pop();
        return units;
    };
    let last = units.iter().rposition(|u| u.residual).unwrap_or(first);
    let wanted: Vec<Vec<Signature>> =
        units.iter().filter(|u| u.residual && u.kind == Kind::Conv).map(|u| u.signature.clone()).collect();
    let mut before = merge_runs_backward(&units[..first], &wanted);
    let between = merge_runs(&units[first..=last], &wanted);
    before.extend(between);
    let (after, _) = merge_prefix(&units[last + 1..], &wanted);
    before.extend(after);
    before
}

fn raw_units(graph: &Graph, path: &DataPath, segments: &[Segment]) -> Vec<Unit> {
    let unit = |(i, s): (usize, &Segment)| {
        let kind = classify(graph, path, &s.nodes)?;
        let weighted = s.nodes.iter().filter(|n| is_weighted(graph, path, **n));
        let signature = weighted.map(|n| signature(graph, *n)).collect();
        Some(Unit { start: i, end: i + 1, kind, residual: s.branches, signature })
    };
    segments.iter().enumerate().filter_map(unit).collect()
}

fn signature(graph: &Graph, node: NodeId) -> Signature {
    let n = graph.node(node);
    match &n.op {
        Op::Conv { group, .. } => {
            let weight = n.inputs.get(1).and_then(|w| graph.ty(*w).const_dims()).unwrap_or_default();
            (n.op.name(), weight.get(2..).unwrap_or_default().to_vec(), *group > 1)
        }
        op => (op.name(), Vec::new(), false),
    }
}

/// Lets every unit end at the last value before the next unit that still has its result's type. A
/// residual sub-block that no other follows ends as those before it did.
fn extend_to_next(graph: &Graph, segments: &[Segment], units: &mut [Unit]) {
    let mut suffix: Option<Vec<&'static str>> = None;
    for i in 0..units.len() {
        let next = units.get(i + 1).cloned();
        let unit = &mut units[i];
        let ty = graph.ty(segments[unit.end - 1].output);
        let same_type = |s: &&Segment| graph.ty(s.output) == ty;
        let light = &segments[unit.end..next.as_ref().map_or(segments.len(), |n| n.start)];
        let ends_run = unit.residual && !next.is_some_and(|n| n.residual);
        let count = if ends_run {
            known_suffix(graph, light, suffix.as_deref())
        } else {
            light.iter().take_while(same_type).count()
        };
        if unit.residual {
            suffix = Some(light[..count].iter().flat_map(|s| names(graph, s)).collect());
        }
        unit.end += count;
    }
}

fn names(graph: &Graph, segment: &Segment) -> Vec<&'static str> {
    segment.nodes.iter().map(|n| graph.node(*n).op.name()).collect()
}

/// How many of the segments after a unit belong to it: those with the operators that followed the
/// unit before, or else the activations.
fn known_suffix(graph: &Graph, light: &[Segment], wanted: Option<&[&'static str]>) -> usize {
    let Some(mut wanted) = wanted else {
        return light.iter().take_while(|s| s.nodes.iter().all(|n| is_activation(&graph.node(*n).op))).count();
    };
    let mut count = 0;
    for segment in light {
        let found = names(graph, segment);
        match wanted.strip_prefix(found.as_slice()) {
            Some(rest) if !found.is_empty() => wanted = rest,
            _ => break,
        }
        count += 1;
    }
    count
}

/// Whether an operator is an activation, or part of one written out.
pub(crate) fn is_activation(op: &Op) -> bool {
    matches!(
        op,
        Op::Relu {} | Op::Clip { .. } | Op::Sigmoid {} | Op::Tanh {} | Op::Gelu { .. } | Op::Erf {} | Op::Max {}
    )
}

/// Joins plain units that together have the operators of a residual sub-block; others stay alone.
fn merge_runs(units: &[Unit], wanted: &[Vec<Signature>]) -> Vec<Unit> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < units.len() {
        let (merged, used) = merge_prefix(&units[at..], wanted);
        if used == 0 {
            out.push(units[at].clone());
            at += 1;
        } else {
            out.extend(merged);
            at += used;
        }
    }
    out
}

/// The run at the front of `units` that looks like a residual sub-block, and how many it takes.
fn merge_prefix(units: &[Unit], wanted: &[Vec<Signature>]) -> (Option<Unit>, usize) {
    for signature in wanted {
        let count = signature.len();
        let Some(run) = units.get(..count).filter(|run| run.iter().all(|u| !u.residual)) else {
            continue;
        };
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        if run.iter().flat_map(|u| &u.signature).eq(signature) {
            let (start, end) = (first.start, last.end);
            let unit = Unit { start, end, kind: Kind::Conv, residual: false, signature: signature.clone() };
            return (Some(unit), count);
        }
    }
    (None, 0)
}

/// The runs right before the first residual sub-block that look like one, in order.
fn merge_runs_backward(units: &[Unit], wanted: &[Vec<Signature>]) -> Vec<Unit> {
    let mut out = Vec::new();
    let mut end = units.len();
    'search: loop {
        for signature in wanted {
            let Some(start) = end.checked_sub(signature.len()) else {
                continue;
            };
            if let (Some(unit), _) = merge_prefix(&units[start..end], std::slice::from_ref(signature)) {
                out.insert(0, unit);
                end = start;
                continue 'search;
            }
        }
        return out;
    }
}

/// Groups units into blocks: attention units with the FFN that follows them, others alone. A block
/// has as many attention units as the shortest run of them: in longer ones FFNs are missing.
pub(crate) fn group(units: &[Unit]) -> Vec<Vec<Unit>> {
    let runs = units.chunk_by(|a, b| a.kind == Kind::Attention && b.kind == Kind::Attention);
    let usual = runs.filter(|r| r[0].kind == Kind::Attention).map(<[Unit]>::len).min().unwrap_or(0);
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < units.len() {
        let attentions = closed_run(&units[at..]);
        let count = if attentions > 0 && attentions <= usual { attentions + 1 } else { 1 };
        blocks.push(units[at..at + count].to_vec());
        at += count;
    }
    blocks
}

/// How many adjacent attention units `units` begin with, if an FFN follows them at once; else 0.
fn closed_run(units: &[Unit]) -> usize {
    let attentions = units.iter().take_while(|u| u.kind == Kind::Attention).count();
    let adjacent = units.windows(2).take(attentions).all(|w| w[0].end == w[1].start);
    let closes = units.get(attentions).is_some_and(|u| u.kind == Kind::Ffn);
    if adjacent && closes { attentions } else { 0 }
}
