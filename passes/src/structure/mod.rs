//! A model's structure, found by the graph's form: batch, stem, blocks, tail, states, and where an
//! early exit may stand. Names play no part.

mod blocks;
mod cuts;
pub(crate) mod flow;
mod legal;
mod path;
mod states;
#[cfg(test)]
mod tests;

use eec_ir::{Dim, Graph, NodeId, Op, Symbol, ValueId, cost};

pub use blocks::Kind;
pub use states::StatePair;

pub(crate) use legal::LATE;

use blocks::Unit;
use cuts::{Dominators, Segment};
use path::DataPath;

/// How many samples one run takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Batch {
    /// Any number, of this name.
    Symbolic(Symbol),
    /// Always this many.
    Fixed(i64),
}

impl Batch {
    /// The number of samples as a size.
    pub fn dim(&self) -> Dim {
        match self {
            Batch::Symbolic(symbol) => symbol.clone().into(),
            Batch::Fixed(n) => (*n).into(),
        }
    }
}

/// Whether an early exit may stand after a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExitCandidate {
    /// It may.
    Yes,
    /// It may not, for this reason.
    No(String),
}

/// A part of the model on the primary data path.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its nodes on the data path, in execution order.
    pub nodes: Vec<NodeId>,
    /// Their multiply-accumulates in one run.
    pub macs: Dim,
}

/// An attention, FFN or convolution sub-block.
#[derive(Clone, Debug)]
pub struct SubBlock {
    /// What it computes.
    pub kind: Kind,
    /// The value it starts from, which its skip connection also takes.
    pub input: ValueId,
    /// The value it ends in.
    pub output: ValueId,
    /// Its nodes and cost.
    pub part: Part,
}

/// A block: what the model repeats.
#[derive(Clone, Debug)]
pub struct Block {
    /// Position from the input, from 0.
    pub index: usize,
    /// The value it starts from.
    pub input: ValueId,
    /// The value it ends in: a value that all data passes.
    pub output: ValueId,
    /// Its nodes and cost, the operators between its sub-blocks included.
    pub part: Part,
    /// Its sub-blocks in order.
    pub sub_blocks: Vec<SubBlock>,
    /// Whether an exit may stand after it.
    pub exit: ExitCandidate,
}

impl Block {
    /// Its attention sub-block, the first if there are several.
    pub fn attention(&self) -> Option<&SubBlock> {
        self.sub_blocks.iter().find(|s| s.kind == Kind::Attention)
    }

    /// Its FFN sub-block.
    pub fn ffn(&self) -> Option<&SubBlock> {
        self.sub_blocks.iter().find(|s| s.kind == Kind::Ffn)
    }
}

impl Structure {
    /// The value the tail starts from: the last block's output.
    pub fn tail_input(&self) -> ValueId {
        self.tail_cuts.first().copied().unwrap_or(self.output)
    }
}

/// A model's structure.
#[derive(Clone, Debug)]
pub struct Structure {
    /// The batch: the first dim of the main output.
    pub batch: Batch,
    /// Where data enters: float inputs and embeddings.
    pub sources: Vec<ValueId>,
    /// State carried from one run to the next.
    pub states: Vec<StatePair>,
    /// Position of the main output among the outputs: the first float one that is no state.
    pub main_output: usize,
    /// The main output's value.
    pub output: ValueId,
    /// What precedes the first block.
    pub stem: Part,
    /// The blocks, in order.
    pub blocks: Vec<Block>,
    /// What follows the last block.
    pub tail: Part,
    /// The values of the tail that all data passes, from the last block's output to the main output.
    pub tail_cuts: Vec<ValueId>,
}

/// Why a graph has no structure that passes can work on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StructureError {
    /// No output can be the main one.
    #[error("expected a float output that carries no state, found none")]
    NoMainOutput,
    /// No data reaches the main output.
    #[error("no float input and no embedding of an integer input reaches the output `{0}`")]
    NoData(String),
    /// The batch cannot be told.
    #[error("expected the batch as first dim of the output `{output}`, found type {ty}")]
    NoBatch {
        /// Output.
        output: String,
        /// Its type.
        ty: String,
    },
}

/// Finds the structure of a graph. Its outputs should all be live and shape arithmetic folded.
///
/// ```
/// use eec_ir::text::parse;
/// use eec_passes::structure::{ExitCandidate, analyse};
///
/// let source = "graph @mlp(%x: f32[n, 4]) -> (%y: f32[n, 2]) {
///   %0 = MatMul(%x, const f32[4, 4] {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1})
///   %1 = Relu(%0)
///   %2 = MatMul(%1, const f32[4, 3] {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3})
///   %3 = Relu(%2)
///   %y = MatMul(%3, const f32[3, 2] {1, 2, 3, 4, 5, 6})
///   return %y
/// }";
/// let structure = analyse(&parse(source, &mut |_| None)?)?;
/// assert_eq!(structure.blocks.len(), 2);
/// assert_eq!(structure.blocks[0].exit, ExitCandidate::Yes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn analyse(graph: &Graph) -> Result<Structure, StructureError> {
    let (states, main_output) = states::find(graph);
    let main_output = main_output.ok_or(StructureError::NoMainOutput)?;
    let output = graph.outputs()[main_output];
    let name = || graph.output_names().get(main_output).map(|n| n.to_string()).unwrap_or_default();
    let path = DataPath::find(graph, &states, output).ok_or_else(|| StructureError::NoData(name()))?;
    let batch = batch_of(graph, output)
        .ok_or_else(|| StructureError::NoBatch { output: name(), ty: graph.ty(output).to_string() })?;
    let dominators = Dominators::of(graph, &path);
    let segments = cuts::segments(graph, &path, &dominators);
    let mut stem = cuts::before_chain(graph, &path, &dominators);
    let groups = blocks::group(&blocks::units(graph, &path, &segments));
    let first = groups.first().and_then(|g| g.first()).map_or(0, |u| u.start);
    let last = groups.last().and_then(|g| g.last()).map_or(0, |u| u.end);
    stem.extend(nodes_of(&segments[..first]));
    let mut structure = Structure {
        batch,
        main_output,
        output,
        stem: part(graph, stem),
        blocks: groups.iter().enumerate().map(|(i, g)| block(graph, &segments, i, g)).collect(),
        tail: part(graph, nodes_of(&segments[last..])),
        tail_cuts: dominators.chain.get(last..).unwrap_or_default().to_vec(),
        sources: path.sources,
        states,
    };
    legal::mark_candidates(graph, &mut structure);
    Ok(structure)
}

/// The first dim of the output, unless it counts the steps of a loop, or as many as data decides.
fn batch_of(graph: &Graph, output: ValueId) -> Option<Batch> {
    let first = graph.ty(output).dims.first()?;
    let counts = |op: &Op| matches!(op, Op::Loop { trips } if trips == first);
    let is_count = |n: &NodeId| counts(&graph.node(*n).op) || graph.node(*n).op.late_symbol() == first.as_symbol();
    if first.as_symbol().is_some() && graph.nodes_in_order().iter().any(is_count) {
        return None;
    }
    let fixed = first.as_const().filter(|n| *n > 0).map(Batch::Fixed);
    fixed.or_else(|| first.as_symbol().cloned().map(Batch::Symbolic))
}

fn nodes_of(segments: &[Segment]) -> Vec<NodeId> {
    segments.iter().flat_map(|s| s.nodes.iter().copied()).collect()
}

/// The multiply-accumulates of `nodes` in one run.
pub fn nodes_macs(graph: &Graph, nodes: &[NodeId]) -> Dim {
    nodes.iter().fold(Dim::default(), |sum, n| &sum + &cost::total_macs(graph, *n))
}

fn part(graph: &Graph, nodes: Vec<NodeId>) -> Part {
    Part { macs: nodes_macs(graph, &nodes), nodes }
}

/// The block of a group of units, which is never empty.
fn block(graph: &Graph, segments: &[Segment], index: usize, group: &[Unit]) -> Block {
    let sub_block = |u: &Unit| {
        let run = &segments[u.start..u.end];
        SubBlock {
            kind: u.kind,
            input: run[0].input,
            output: run[run.len() - 1].output,
            part: part(graph, nodes_of(run)),
        }
    };
    let run = &segments[group[0].start..group[group.len() - 1].end];
    Block {
        index,
        input: run[0].input,
        output: run[run.len() - 1].output,
        part: part(graph, nodes_of(run)),
        sub_blocks: group.iter().map(sub_block).collect(),
        exit: ExitCandidate::Yes,
    }
}
