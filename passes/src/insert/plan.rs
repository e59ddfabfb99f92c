//! What runs where: the nodes of every level between decisions, and the values that each level
//! needs from the levels before it.

use std::collections::{BTreeSet, HashMap};

use eec_ir::{Dim, Graph, NodeId, Symbol, ValueId};

use super::attach::row_numbering;
use super::{Decisions, InsertError};
use crate::exit_heads::{ExitHeads, Rule};
use crate::rows::{Rows, Track};
use crate::structure::{Batch, ExitCandidate, Structure, flow};
use crate::token_exits::{Source, Span, TokenExits, Trace};

/// A value from before a decision that is needed after it, one slice per sample.
#[derive(Clone, Debug)]
pub(crate) struct Outer {
    /// The value.
    pub(crate) value: ValueId,
    /// The product of its sizes before the batch.
    pub(crate) before: Dim,
}

/// A decision, by its position among those of its kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Event {
    Exit(usize),
    Token(usize),
    Tap(usize),
}

/// Where a decision stands and what the levels after it need.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) event: Event,
    pub(crate) block: usize,
    /// The block's output.
    pub(crate) cut: ValueId,
    /// What the nodes after it need besides the cut, split by samples.
    pub(crate) outers: Vec<Outer>,
    /// Values that are the same for all samples, and must be shortened for the nodes after it.
    pub(crate) tables: Vec<ValueId>,
}

/// What token exits need to know.
pub(crate) struct Tokens {
    pub(crate) span: Span,
    pub(crate) trace: Trace,
    /// What stands for the sequence's length in the trace's operators.
    pub(crate) length: Symbol,
}

/// The division of a graph by its decisions.
pub(crate) struct Plan {
    /// The decisions in order of execution.
    pub(crate) places: Vec<Place>,
    /// Nodes by how many decisions they come after.
    pub(crate) levels: Vec<Vec<NodeId>>,
    /// The batch's place in every value, if the batch is symbolic.
    pub(crate) rows: Option<Rows>,
    pub(crate) tokens: Option<Tokens>,
}

impl Plan {
    /// Checks the options and divides the graph. `length` is a symbol that the model does not use.
    pub(crate) fn new(
        graph: &Graph,
        structure: &Structure,
        decisions: Decisions<'_>,
        length: Symbol,
    ) -> Result<Plan, InsertError> {
        let mut places = Vec::new();
        if let Some(exits) = decisions.exits {
            check_exits(structure, exits)?;
            places.extend(exits.exits.iter().enumerate().map(|(k, e)| (e.block, Event::Exit(k))));
        }
        if let Some(tokens) = decisions.tokens {
            tokens.check(graph, structure)?;
            places.extend(tokens.exits.iter().enumerate().map(|(k, e)| (e.block, Event::Token(k))));
        }
        for (k, tap) in decisions.taps.iter().enumerate() {
            check_candidate(structure, tap.block())?;
            places.push((tap.block(), Event::Tap(k)));
        }
        places.sort_unstable();
        let place = |(block, event): (usize, Event)| {
            let cut = structure.blocks[block].output;
            Place { event, block, cut, outers: Vec::new(), tables: Vec::new() }
        };
        let mut places: Vec<Place> = places.into_iter().map(place).collect();
        let rows = match &structure.batch {
            Batch::Symbolic(symbol) => Some(Rows::analyse(graph, symbol)),
            Batch::Fixed(_) => None,
        };
        let tokens = decisions.tokens.map(|t| trace(graph, structure, t, length)).transpose()?;
        let cuts: Vec<ValueId> = places.iter().map(|p| p.cut).collect();
        let (levels, level_of) = divide(graph, &cuts);
        let needs = Needs { graph, structure, levels: &levels, level_of: &level_of };
        for (i, place) in places.iter_mut().enumerate() {
            let needed = needs.after(i);
            if let Some(rows) = &rows {
                place.outers = outers(graph, rows, &needed, place)?;
            }
            if let (Event::Token(_), Some(tokens)) = (place.event, &tokens) {
                let outer = |v: &ValueId| place.outers.iter().any(|o| o.value == *v);
                place.tables = needed.iter().copied().filter(|v| tokens.is_table(*v) && !outer(v)).collect();
            }
        }
        Ok(Plan { places, levels, rows, tokens })
    }

    /// Whether a value is the same for all samples.
    pub(crate) fn is_shared(&self, value: ValueId) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.track(value) == Some(&Track::Free))
    }
}

impl Tokens {
    fn is_table(&self, value: ValueId) -> bool {
        self.trace.demanded.contains_key(&value)
    }
}

fn trace(graph: &Graph, structure: &Structure, tokens: &TokenExits, length: Symbol) -> Result<Tokens, InsertError> {
    let span = tokens.span.clone();
    let block = tokens.exits.first().map_or(0, |e| e.block);
    let source = Source { graph, batch: &structure.batch.dim(), span: &span, length: &length };
    let trace = Trace::new(source, structure.blocks[block].output);
    let trace = trace.map_err(|reason| InsertError::NotACandidate { what: "token exit", block, reason })?;
    Ok(Tokens { span, trace, length })
}

/// What levels read from the levels before them.
struct Needs<'a> {
    graph: &'a Graph,
    structure: &'a Structure,
    levels: &'a [Vec<NodeId>],
    level_of: &'a HashMap<ValueId, usize>,
}

impl Needs<'_> {
    /// The values from before decision `i`, constants included, that nodes after it read.
    fn after(&self, i: usize) -> BTreeSet<ValueId> {
        let after = self.levels.iter().skip(i + 1).flatten();
        let read = after.flat_map(|n| needs(self.graph, self.structure, *n));
        read.filter(|v| self.level_of.get(v).copied().unwrap_or(0) <= i).collect()
    }
}

fn outers(graph: &Graph, rows: &Rows, needed: &BTreeSet<ValueId>, place: &Place) -> Result<Vec<Outer>, InsertError> {
    let mut outers = Vec::new();
    for value in needed.iter().copied().filter(|v| *v != place.cut && !flow::is_constant(graph, *v)) {
        match rows.track(value) {
            Some(Track::Free) => {}
            Some(Track::Rows(before)) => outers.push(Outer { value, before: before.clone() }),
            None => {
                let (value, ty) = (value.to_string(), graph.ty(value).to_string());
                return Err(InsertError::Outer { value, ty, block: place.block });
            }
        }
    }
    Ok(outers)
}

/// What a copy of `node` in a region reads from outside.
fn needs(graph: &Graph, structure: &Structure, node: NodeId) -> Vec<ValueId> {
    let numbering = match &structure.batch {
        Batch::Symbolic(batch) => row_numbering(graph, batch, node),
        Batch::Fixed(_) => Vec::new(),
    };
    let inner: Vec<ValueId> = numbering.iter().flat_map(|n| graph.node(*n).outputs.clone()).collect();
    let all = numbering.iter().chain([&node]).flat_map(|n| flow::reads(graph, *n));
    all.filter(|v| !inner.contains(v)).collect()
}

/// The live nodes of every level, and the level of every value that a node defines.
fn divide(graph: &Graph, cuts: &[ValueId]) -> (Vec<Vec<NodeId>>, HashMap<ValueId, usize>) {
    let live = flow::ancestors(graph, graph.outputs());
    let mut levels = vec![Vec::new(); cuts.len() + 1];
    let mut level_of: HashMap<ValueId, usize> = HashMap::new();
    // Two decisions after one block share their cut: what follows comes after both.
    let level_at: HashMap<ValueId, usize> = cuts.iter().enumerate().map(|(i, v)| (*v, i + 1)).collect();
    for id in &graph.region(Graph::ROOT).nodes {
        let node = graph.node(*id);
        if !node.outputs.iter().any(|v| live[v.index()]) {
            continue;
        }
        let level_after = |v: &ValueId| level_at.get(v).or_else(|| level_of.get(v)).copied().unwrap_or(0);
        let level = flow::reads(graph, *id).iter().map(level_after).max().unwrap_or(0);
        levels[level].push(*id);
        level_of.extend(node.outputs.iter().map(|v| (*v, level)));
    }
    (levels, level_of)
}

fn check_exits(structure: &Structure, options: &ExitHeads) -> Result<(), InsertError> {
    if options.exits.is_empty() {
        return Err(InsertError::NoExits);
    }
    if let Rule::Threshold { thresholds, .. } = &options.rule
        && thresholds.len() != options.exits.len()
    {
        return Err(InsertError::Thresholds { thresholds: thresholds.len(), exits: options.exits.len() });
    }
    let blocks: Vec<usize> = options.exits.iter().map(|e| e.block).collect();
    check_order(&blocks)?;
    blocks.iter().try_for_each(|b| check_candidate(structure, *b))
}

/// An error if the blocks are not in order of depth.
pub(crate) fn check_order(blocks: &[usize]) -> Result<(), InsertError> {
    match blocks.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(InsertError::Order { block: pair[0], next: pair[1] }),
        None => Ok(()),
    }
}

/// An error if no exit may stand after `block`.
pub(crate) fn check_candidate(structure: &Structure, block: usize) -> Result<(), InsertError> {
    let count = structure.blocks.len();
    match &structure.blocks.get(block).ok_or(InsertError::NoBlock { block, count })?.exit {
        ExitCandidate::Yes => Ok(()),
        ExitCandidate::No(reason) => Err(InsertError::NotACandidate { what: "exit", block, reason: reason.clone() }),
    }
}
