//! Inserts decisions between the blocks of a model: early exits, after which a row's answer is
//! known, and token exits, after which a row's sequence is shorter.
//!
//! The plain graph is divided at the decisions into levels. Every level is copied once, into a
//! region of the decision before it, with what stands for the batch (and for the length of the
//! sequence) there.

mod attach;
mod build;
mod error;
mod exit;
mod plan;
mod regions;
mod token;

use eec_ir::Graph;

pub use error::InsertError;

pub(crate) use crate::emit::Emit;
pub(crate) use attach::{Attach, Scope, whole};
pub(crate) use plan::{check_candidate, check_order};

use crate::clone::{self, Substitution};
use crate::exit_heads::{self, CONFIDENCE, EXIT_INDEX, ExitHeads, Tap};
use crate::structure::Structure;
use crate::token_exits::{TOKEN_EXIT, TokenExits};
use build::Builder;
use plan::Plan;

/// The decisions to insert.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decisions<'a> {
    /// Early exits. After the same block they come before token exits.
    pub exits: Option<&'a ExitHeads>,
    /// Token exits.
    pub tokens: Option<&'a TokenExits>,
    /// What to read after blocks, once the decisions after the block are made; not with exits, which
    /// samples would leave by. Adds the outputs `feature.K` and `logits.K`.
    pub taps: &'a [Tap<'a>],
}

/// The graph with decisions. Exits add the outputs [`EXIT_INDEX`] and [`CONFIDENCE`], token exits
/// that decide add [`TOKEN_EXIT`].
pub fn apply(graph: &Graph, structure: &Structure, decisions: Decisions<'_>) -> Result<Graph, InsertError> {
    if has_joins(graph) {
        return Err(InsertError::Decided);
    }
    if !graph.late_symbols().is_empty() {
        return Err(InsertError::Late);
    }
    let names: Vec<String> = graph.output_names().iter().map(|n| n.to_string()).collect();
    let added = added_outputs(decisions);
    if let Some(taken) = names.iter().find(|n| added.contains(n)) {
        return Err(InsertError::OutputTaken(taken.clone()));
    }
    if decisions.tokens.is_some() && graph.nodes_in_order().iter().any(|n| graph.node(*n).op.exit().is_some()) {
        return Err(InsertError::Decided);
    }
    let (mut target, map) = clone::with_inputs(graph);
    let plan = Plan::new(graph, structure, decisions, target.fresh_symbol("tokens"))?;
    let length = plan.tokens.as_ref().map(|t| Substitution { from: t.length.clone(), to: t.span.sequence.clone() });
    let mut scope = Scope { region: Graph::ROOT, map, rows: None, length };
    let ops = plan.tokens.as_ref().map(|t| &t.trace.ops);
    let pass = decisions.exits.map_or(exit_heads::NAME, |e| e.rule.pass());
    let attach = Attach { source: graph, structure, target: &mut target, pass, ops };
    let first_gate = graph.nodes_in_order().iter().filter(|n| graph.node(**n).op.gate().is_some()).count();
    let mut builder = Builder { attach, plan: &plan, decisions, first_gate };
    let carry = builder.first_carry()?;
    let results = builder.level(0, &mut scope, &carry)?;
    let mut outputs = Vec::new();
    for (i, (name, value)) in names.into_iter().zip(graph.outputs()).enumerate() {
        let kept = if i == structure.main_output {
            results[0]
        } else {
            match clone::counterpart(graph, &mut target, &mut scope.map, *value) {
                Some(v) => v,
                None => scope.get(graph, *value, &name)?,
            }
        };
        outputs.push((name, kept));
    }
    outputs.extend(added.into_iter().zip(results[1..].iter().copied()));
    target.set_outputs(outputs);
    Ok(target)
}

/// Whether sequences of two lengths meet somewhere.
fn has_joins(graph: &Graph) -> bool {
    let nodes = graph.nodes_in_order();
    let mut regions = nodes.iter().flat_map(|n| &graph.node(*n).regions);
    regions.any(|r| graph.region(*r).length.is_some())
}

/// The outputs that the decisions add, in the order of a level's results.
fn added_outputs(decisions: Decisions<'_>) -> Vec<String> {
    let exits = decisions.exits.map_or(&[][..], |_| &[EXIT_INDEX, CONFIDENCE]);
    let taps = decisions.taps.iter().map(Tap::output);
    let tokens = decisions.tokens.filter(|t| t.decides()).map(|_| TOKEN_EXIT.to_string());
    exits.iter().map(|n| n.to_string()).chain(taps).chain(tokens).collect()
}
