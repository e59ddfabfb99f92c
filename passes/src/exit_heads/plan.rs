//! What runs where: the nodes of every level between exits, and the values that each level needs
//! from the levels before it.

use std::collections::{BTreeSet, HashMap};

use eec_ir::{Dim, Graph, NodeId, ValueId};

use super::attach::row_numbering;
use super::{ExitError, ExitHeads, Rule};
use crate::rows::{Rows, Track};
use crate::structure::{Batch, ExitCandidate, Structure, flow};

/// A value from before an exit that is needed after it, one slice per sample.
#[derive(Clone, Debug)]
pub(crate) struct Outer {
    /// The value.
    pub(crate) value: ValueId,
    /// The product of its sizes before the batch.
    pub(crate) before: Dim,
}

/// The division of a graph by its exits.
pub(crate) struct Plan {
    /// The exits' values.
    pub(crate) cuts: Vec<ValueId>,
    /// Nodes by how many exits they come after.
    pub(crate) levels: Vec<Vec<NodeId>>,
    /// Per exit, what the nodes after it need besides its value, split by samples.
    pub(crate) outers: Vec<Vec<Outer>>,
    /// The batch's place in every value, if the batch is symbolic.
    pub(crate) rows: Option<Rows>,
}

impl Plan {
    /// Checks the options and divides the graph.
    pub(crate) fn new(graph: &Graph, structure: &Structure, options: &ExitHeads) -> Result<Plan, ExitError> {
        check(structure, options)?;
        let cuts: Vec<ValueId> = options.exits.iter().map(|e| structure.blocks[e.block].output).collect();
        let rows = match &structure.batch {
            Batch::Symbolic(symbol) => Some(Rows::analyse(graph, symbol)),
            Batch::Fixed(_) => None,
        };
        let (levels, level_of) = divide(graph, &cuts);
        let mut plan = Plan { cuts, levels, outers: Vec::new(), rows };
        for (k, exit) in options.exits.iter().enumerate() {
            let outers = plan.outers_of(graph, structure, &level_of, k, exit.block)?;
            plan.outers.push(outers);
        }
        Ok(plan)
    }

    fn outers_of(
        &self,
        graph: &Graph,
        structure: &Structure,
        level_of: &HashMap<ValueId, usize>,
        exit: usize,
        block: usize,
    ) -> Result<Vec<Outer>, ExitError> {
        let Some(rows) = &self.rows else {
            return Ok(Vec::new());
        };
        let after = self.levels.iter().skip(exit + 1).flatten();
        let needed: BTreeSet<ValueId> = after.flat_map(|n| needs(graph, structure, *n)).collect();
        let mut outers = Vec::new();
        for value in needed {
            let before = level_of.get(&value).copied().unwrap_or(0) <= exit;
            if !before || value == self.cuts[exit] || flow::is_constant(graph, value) {
                continue;
            }
            match rows.track(value) {
                Some(Track::Free) => {}
                Some(Track::Rows(before)) => outers.push(Outer { value, before: before.clone() }),
                None => {
                    let (value, ty) = (value.to_string(), graph.ty(value).to_string());
                    return Err(ExitError::Outer { value, ty, block });
                }
            }
        }
        Ok(outers)
    }

    /// Whether a value is the same for all samples.
    pub(crate) fn is_shared(&self, value: ValueId) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.track(value) == Some(&Track::Free))
    }
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
    let exit_at: HashMap<ValueId, usize> = cuts.iter().enumerate().map(|(k, v)| (*v, k + 1)).collect();
    for id in &graph.region(Graph::ROOT).nodes {
        let node = graph.node(*id);
        if !node.outputs.iter().any(|v| live[v.index()]) {
            continue;
        }
        let level_after = |v: &ValueId| exit_at.get(v).or_else(|| level_of.get(v)).copied().unwrap_or(0);
        let level = flow::reads(graph, *id).iter().map(level_after).max().unwrap_or(0);
        levels[level].push(*id);
        level_of.extend(node.outputs.iter().map(|v| (*v, level)));
    }
    (levels, level_of)
}

fn check(structure: &Structure, options: &ExitHeads) -> Result<(), ExitError> {
    if options.exits.is_empty() {
        return Err(ExitError::NoExits);
    }
    if let Rule::Threshold { thresholds, .. } = &options.rule
        && thresholds.len() != options.exits.len()
    {
        return Err(ExitError::Thresholds { thresholds: thresholds.len(), exits: options.exits.len() });
    }
    for pair in options.exits.windows(2) {
        if pair[0].block >= pair[1].block {
            return Err(ExitError::Order { block: pair[0].block, next: pair[1].block });
        }
    }
    options.exits.iter().try_for_each(|e| check_candidate(structure, e.block))
}

/// An error if no exit may stand after `block`.
pub(crate) fn check_candidate(structure: &Structure, block: usize) -> Result<(), ExitError> {
    let count = structure.blocks.len();
    match &structure.blocks.get(block).ok_or(ExitError::NoBlock { block, count })?.exit {
        ExitCandidate::Yes => Ok(()),
        ExitCandidate::No(reason) => Err(ExitError::NotACandidate { block, reason: reason.clone() }),
    }
}
