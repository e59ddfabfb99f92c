//! The primary data path: the float values that carry the model's data from its sources to its
//! main output.
//!
//! An edge leads from a float operand to a float result. Integers, booleans and what is computed
//! from them (masks, positions, rope tables) are not data, nor are carried states. Sources are
//! float inputs and embeddings: a `Gather` of a constant float table at indices that come from an
//! input. A model without those takes integer inputs cast to float as data.

use eec_ir::{DType, Graph, NodeId, Op, ValueId};

use super::cuts::Dominators;
use super::flow;
use super::states::StatePair;

/// The primary data path.
#[derive(Clone, Debug)]
pub(crate) struct DataPath {
    /// Where data enters.
    pub(crate) sources: Vec<ValueId>,
    /// The main output's value.
    pub(crate) output: ValueId,
    /// Whether a value (by index) carries data from a source to the main output.
    on_path: Vec<bool>,
}

impl DataPath {
    /// The path of `graph` to `output`; `None` if no source reaches it.
    pub(crate) fn find(graph: &Graph, states: &[StatePair], output: ValueId) -> Option<DataPath> {
        let reaching = |sources: Vec<ValueId>| {
            let leads = leads_to(graph, output);
            let sources: Vec<ValueId> = sources.into_iter().filter(|v| leads[v.index()]).collect();
            (!sources.is_empty()).then_some(sources)
        };
        let sources = reaching(primary_sources(graph, states)).or_else(|| reaching(cast_sources(graph)))?;
        Some(DataPath::new(graph, without_conditions(graph, sources, output), output))
    }

    fn new(graph: &Graph, sources: Vec<ValueId>, output: ValueId) -> DataPath {
        let (after, before) = (reached(graph, &sources), leads_to(graph, output));
        let on_path = after.iter().zip(&before).map(|(a, b)| *a && *b).collect();
        DataPath { sources, output, on_path }
    }

    /// Whether a value is on the path.
    pub(crate) fn contains(&self, value: ValueId) -> bool {
        self.on_path[value.index()]
    }

    /// The values that carry data into `node`, each once.
    pub(crate) fn operands(&self, graph: &Graph, node: NodeId) -> Vec<ValueId> {
        let mut values = flow::reads(graph, node);
        values.retain(|v| self.contains(*v));
        values.sort();
        values.dedup();
        values
    }

    /// The nodes whose results are on the path, sources excluded, in execution order.
    pub(crate) fn nodes<'g>(&'g self, graph: &'g Graph) -> impl Iterator<Item = NodeId> + 'g {
        let carries = |v: &ValueId| self.contains(*v) && !self.sources.contains(v);
        graph.region(Graph::ROOT).nodes.iter().copied().filter(move |n| graph.node(*n).outputs.iter().any(carries))
    }

    /// Pairs of a value and a value computed from it; none lead into sources.
    pub(crate) fn edges(&self, graph: &Graph) -> Vec<(ValueId, ValueId)> {
        let mut edges = Vec::new();
        for node in self.nodes(graph) {
            for out in graph.node(node).outputs.iter().filter(|v| self.contains(**v)) {
                edges.extend(self.operands(graph, node).into_iter().map(|v| (v, *out)));
            }
        }
        edges
    }
}

fn primary_sources(graph: &Graph, states: &[StatePair]) -> Vec<ValueId> {
    let is_data = |v: &ValueId| graph.ty(*v).dtype == DType::F32 && states.iter().all(|p| p.input != *v);
    let mut sources: Vec<ValueId> = graph.inputs().iter().copied().filter(is_data).collect();
    let from_input = flow::depends_on_input(graph);
    for id in &graph.region(Graph::ROOT).nodes {
        let node = graph.node(*id);
        let (Op::Gather { .. }, &[table, indices]) = (&node.op, node.inputs.as_slice()) else {
            continue;
        };
        let is_table = flow::is_constant(graph, table) && graph.ty(table).dtype == DType::F32;
        if is_table && from_input[indices.index()] {
            sources.extend_from_slice(&node.outputs);
        }
    }
    sources
}

fn cast_sources(graph: &Graph) -> Vec<ValueId> {
    let from_input = flow::depends_on_input(graph);
    let is_cast = |id: &NodeId| {
        let node = graph.node(*id);
        let from = node.inputs.first();
        matches!(node.op, Op::Cast { to: DType::F32 })
            && from.is_some_and(|v| from_input[v.index()] && graph.ty(*v).dtype != DType::F32)
    };
    let casts = graph.region(Graph::ROOT).nodes.iter().filter(|id| is_cast(id));
    casts.flat_map(|id| graph.node(*id).outputs.clone()).collect()
}

/// For every value, whether data reaches it from `sources` along float edges.
fn reached(graph: &Graph, sources: &[ValueId]) -> Vec<bool> {
    let mut marked = vec![false; graph.value_count()];
    sources.iter().for_each(|v| marked[v.index()] = true);
    for id in &graph.region(Graph::ROOT).nodes {
        if flow::reads(graph, *id).iter().any(|v| marked[v.index()]) {
            for out in graph.node(*id).outputs.iter().filter(|v| graph.ty(**v).dtype == DType::F32) {
                marked[out.index()] = true;
            }
        }
    }
    marked
}

/// For every float value, whether it leads to `output` along float edges.
fn leads_to(graph: &Graph, output: ValueId) -> Vec<bool> {
    let mut marked = vec![false; graph.value_count()];
    marked[output.index()] = true;
    for id in graph.region(Graph::ROOT).nodes.iter().rev() {
        if graph.node(*id).outputs.iter().any(|v| marked[v.index()]) {
            for v in flow::reads(graph, *id).iter().filter(|v| graph.ty(**v).dtype == DType::F32) {
                marked[v.index()] = true;
            }
        }
    }
    marked
}

/// Leaves out sources that are conditions: those that join the path of the others in several of
/// its segments, as a float mask, a gathered rope table or an encoder's states do in every layer.
fn without_conditions(graph: &Graph, mut sources: Vec<ValueId>, output: ValueId) -> Vec<ValueId> {
    let mut at = sources.len();
    while at > 0 && sources.len() > 1 {
        at -= 1;
        let mut others = sources.clone();
        let tested = others.remove(at);
        if joins_in_several_segments(graph, tested, &others, output) {
            sources = others;
        }
    }
    sources
}

fn joins_in_several_segments(graph: &Graph, tested: ValueId, others: &[ValueId], output: ValueId) -> bool {
    let main = DataPath::new(graph, others.to_vec(), output);
    if !main.contains(output) {
        return false;
    }
    let alone = reached(graph, &[tested]);
    let dominators = Dominators::of(graph, &main);
    let mut first = None;
    for node in main.nodes(graph) {
        let enters = |v: &ValueId| alone[v.index()] && !main.contains(*v);
        if !graph.node(node).inputs.iter().any(enters) {
            continue;
        }
        let segment = graph.node(node).outputs.iter().find_map(|v| dominators.segment(*v));
        if segment.is_some() && first.is_some() && first != segment {
            return true;
        }
        first = first.or(segment);
    }
    false
}
