//! Cut points: the values that all data passes on its way to the main output, by dominators of the
//! data path, and the segments between neighbouring ones.

use std::collections::{HashMap, HashSet};

use eec_ir::graph::Node;
use eec_ir::{Graph, NodeId, Op, ValueId};
use petgraph::algo::dominators::{self, simple_fast};
use petgraph::graph::{DiGraph, NodeIndex};

use super::path::DataPath;

/// The dominator chain of the main output, and the segment every value of the path belongs to.
pub(crate) struct Dominators {
    /// Values that all data passes, from the first to the main output.
    pub(crate) chain: Vec<ValueId>,
    segments: HashMap<ValueId, usize>,
}

impl Dominators {
    /// The dominators of the path, from a virtual root that leads to all sources.
    pub(crate) fn of(graph: &Graph, path: &DataPath) -> Dominators {
        let mut view = View::default();
        let root = view.digraph.add_node(None);
        for source in path.sources.iter().filter(|v| path.contains(**v)) {
            let to = view.vertex(*source);
            view.digraph.add_edge(root, to, ());
        }
        for (from, to) in path.edges(graph) {
            let (from, to) = (view.vertex(from), view.vertex(to));
            view.digraph.add_edge(from, to, ());
        }
        let output = view.vertex(path.output);
        let tree = simple_fast(&view.digraph, root);
        let mut chain: Vec<ValueId> =
            tree.dominators(output).into_iter().flatten().filter_map(|i| view.digraph[i]).collect();
        chain.reverse();
        let inner = inside_gates(graph);
        chain.retain(|v| !inner.contains(v));
        let segments = view.segments(&tree, &chain);
        Dominators { chain, segments }
    }

    /// The segment that a value lies in: `i + 1` for values after `chain[i]` up to `chain[i + 1]`,
    /// 0 for values up to `chain[0]`.
    pub(crate) fn segment(&self, value: ValueId) -> Option<usize> {
        self.segments.get(&value).copied()
    }
}

/// The values between the residual stream and the gates of FFNs: the stream as rows, which is no
/// place of the model.
fn inside_gates(graph: &Graph) -> HashSet<ValueId> {
    let nodes = graph.region(Graph::ROOT).nodes.iter().map(|n| graph.node(*n));
    let gates = nodes.filter(|n| matches!(n.op, Op::Route { .. }) && n.op.exit().is_none());
    gates.filter_map(|gate| rows_of_gate(graph, gate)).flatten().collect()
}

/// The rows that a gate takes and gives, if they are a reshaped stream that is reshaped back.
fn rows_of_gate(graph: &Graph, gate: &Node) -> Option<[ValueId; 2]> {
    let (before, after) = (*gate.inputs.get(1)?, *gate.outputs.first()?);
    let reshape = |n: &&Node| matches!(n.op, Op::Reshape { .. });
    let stream = graph.def_node(before).map(|n| graph.node(n)).filter(reshape)?.inputs[0];
    let users = graph.region(Graph::ROOT).nodes.iter().map(|n| graph.node(*n)).filter(reshape);
    let mut back = users.filter(|n| n.inputs[0] == after);
    let is_back = back.any(|n| graph.ty(n.outputs[0]) == graph.ty(stream));
    (is_back && graph.ty(stream) != graph.ty(before)).then_some([before, after])
}

/// The data path as a petgraph graph; the root has no value.
#[derive(Default)]
struct View {
    digraph: DiGraph<Option<ValueId>, ()>,
    vertices: HashMap<ValueId, NodeIndex>,
}

impl View {
    fn vertex(&mut self, value: ValueId) -> NodeIndex {
        *self.vertices.entry(value).or_insert_with(|| self.digraph.add_node(Some(value)))
    }

    fn segments(&self, tree: &dominators::Dominators<NodeIndex>, chain: &[ValueId]) -> HashMap<ValueId, usize> {
        let position: HashMap<ValueId, usize> = chain.iter().enumerate().map(|(i, v)| (*v, i)).collect();
        let segment_of = |vertex: NodeIndex| {
            let above = tree.strict_dominators(vertex)?;
            let nearest = above.filter_map(|i| self.digraph[i]).find_map(|v| position.get(&v));
            Some(nearest.map_or(0, |i| i + 1))
        };
        self.vertices.iter().filter_map(|(value, vertex)| Some((*value, segment_of(*vertex)?))).collect()
    }
}

/// The part of the data path between two neighbouring values of the chain.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// The value it starts from.
    pub(crate) input: ValueId,
    /// The value it ends in.
    pub(crate) output: ValueId,
    /// Its nodes in execution order.
    pub(crate) nodes: Vec<NodeId>,
    /// Whether its first value has several consumers: a skip connection or parallel branches.
    pub(crate) branches: bool,
}

/// The segments between the values of the chain.
pub(crate) fn segments(graph: &Graph, path: &DataPath, dominators: &Dominators) -> Vec<Segment> {
    let mut nodes: Vec<Vec<NodeId>> = vec![Vec::new(); dominators.chain.len()];
    let mut consumers: HashMap<ValueId, usize> = HashMap::new();
    for id in path.nodes(graph) {
        let segment = graph.node(id).outputs.iter().find_map(|v| dominators.segment(*v));
        if let Some(list) = segment.and_then(|s| s.checked_sub(1)).and_then(|s| nodes.get_mut(s)) {
            list.push(id);
        }
        path.operands(graph, id).into_iter().for_each(|v| *consumers.entry(v).or_default() += 1);
    }
    let pairs = dominators.chain.windows(2).zip(nodes);
    pairs
        .map(|(pair, nodes)| {
            // Inside a gate the skip connection is one of its regions.
            let gated = nodes.iter().any(|n| graph.node(*n).op.is_control());
            let branches = gated || consumers.get(&pair[0]).is_some_and(|n| *n > 1);
            Segment { input: pair[0], output: pair[1], nodes, branches }
        })
        .collect()
}

/// The nodes up to the first value of the chain.
pub(crate) fn before_chain(graph: &Graph, path: &DataPath, dominators: &Dominators) -> Vec<NodeId> {
    let first = |n: &NodeId| graph.node(*n).outputs.iter().any(|v| dominators.segment(*v) == Some(0));
    path.nodes(graph).filter(first).collect()
}
