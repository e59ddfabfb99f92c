//! Which nodes and values follow from which: reads of a node, what depends on a value.

use std::collections::HashSet;

use eec_ir::graph::Def;
use eec_ir::{Graph, NodeId, ValueId};

/// Everything a node reads: its operands and what its regions use from outside.
pub(crate) fn reads(graph: &Graph, node: NodeId) -> Vec<ValueId> {
    let n = graph.node(node);
    let mut out = n.inputs.clone();
    let mut inner = HashSet::new();
    for region in &n.regions {
        out.extend_from_slice(&graph.region(*region).yields);
        inner.extend(graph.region(*region).params.iter().copied());
        graph.visit(*region, &mut |id| {
            let node = graph.node(id);
            out.extend_from_slice(&node.inputs);
            inner.extend(node.outputs.iter().copied());
            for r in &node.regions {
                out.extend_from_slice(&graph.region(*r).yields);
                inner.extend(graph.region(*r).params.iter().copied());
            }
        });
    }
    out.retain(|v| !inner.contains(v));
    out
}

/// For every value, whether it depends on one of `seeds` (the seeds included), through operands of
/// any type. Looks at the root region.
pub(crate) fn dependents(graph: &Graph, seeds: &[ValueId]) -> Vec<bool> {
    let mut marked = vec![false; graph.value_count()];
    seeds.iter().for_each(|v| marked[v.index()] = true);
    for id in &graph.region(Graph::ROOT).nodes {
        if reads(graph, *id).iter().any(|v| marked[v.index()]) {
            graph.node(*id).outputs.iter().for_each(|v| marked[v.index()] = true);
        }
    }
    marked
}

/// For every value, whether one of `targets` depends on it (the targets included).
pub(crate) fn ancestors(graph: &Graph, targets: &[ValueId]) -> Vec<bool> {
    let mut marked = vec![false; graph.value_count()];
    targets.iter().for_each(|v| marked[v.index()] = true);
    for id in graph.region(Graph::ROOT).nodes.iter().rev() {
        if graph.node(*id).outputs.iter().any(|v| marked[v.index()]) {
            reads(graph, *id).iter().for_each(|v| marked[v.index()] = true);
        }
    }
    marked
}

/// Whether a value depends on a graph input by its elements, not by sizes alone.
pub(crate) fn depends_on_input(graph: &Graph) -> Vec<bool> {
    dependents(graph, graph.inputs())
}

/// The nodes of the root region between `from` and `to`: on a way from one to the other.
pub(crate) fn between(graph: &Graph, from: ValueId, to: ValueId) -> Vec<NodeId> {
    let (after, before) = (dependents(graph, &[from]), ancestors(graph, &[to]));
    let on_way = |id: &NodeId| {
        let node = graph.node(*id);
        node.outputs.iter().any(|v| before[v.index()] && after[v.index()] && *v != from)
    };
    graph.region(Graph::ROOT).nodes.iter().copied().filter(on_way).collect()
}

/// Whether a value is a constant.
pub(crate) fn is_constant(graph: &Graph, value: ValueId) -> bool {
    matches!(graph.value(value).def, Def::Const(_))
}
