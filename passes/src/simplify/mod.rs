//! Simplification: what exporters write in many nodes becomes what it means.
//!
//! One pass to a fixed point over one list of rules: sizes as values become constants or `Sizes`,
//! constant operands are folded, movement chains collapse, equal nodes merge, dead nodes go.

mod fold;
pub(crate) mod merge;
mod movement;
mod sizes;

use eec_ir::op::Op;
use eec_ir::verify::Stage;
use eec_ir::{Graph, NodeId, Origin, ValueId};

use crate::pass::{Changed, Context, Pass, PassError};

/// The pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Simplify;

impl Simplify {
    /// Its name.
    pub const NAME: &'static str = "simplify";
    /// Every round shortens some chain, so a chain of this length is reached by no real model;
    /// the limit guards against rules that undo each other.
    const MAX_ROUNDS: usize = 64;
}

impl Pass for Simplify {
    fn name(&self) -> &'static str {
        Simplify::NAME
    }

    fn keeps_origin(&self) -> bool {
        true
    }

    fn run(&self, graph: &mut Graph, _cx: &mut Context) -> Result<Changed, PassError> {
        let mut changed = graph.remove_dead() > 0;
        for _ in 0..Simplify::MAX_ROUNDS {
            let mut round = false;
            // Sizes first: they turn shape arithmetic into constants that folding then sees.
            for rule in [sizes::apply, fold::apply, movement::apply, merge::apply] {
                round |= rule(graph)?;
            }
            round |= graph.remove_dead() > 0;
            changed |= round;
            if !round {
                return Ok(changed.into());
            }
        }
        Err(PassError::new(Simplify::NAME, format!("no fixed point after {} rounds", Simplify::MAX_ROUNDS)))
    }

    fn leads_to(&self) -> Option<Stage> {
        Some(Stage::Dynamic)
    }
}

/// Inserts `op` before `at` and returns its result; provenance is that of `at`.
fn insert_before(graph: &mut Graph, at: NodeId, op: Op, inputs: &[ValueId]) -> Result<ValueId, PassError> {
    let (region, origin): (_, Origin) = (graph.node(at).parent, graph.node(at).origin.clone());
    let made = graph.append1(region, op, inputs, origin);
    let value = made.map_err(|e| PassError::at(Simplify::NAME, graph, at, e))?;
    graph.move_last_before(at);
    Ok(value)
}

/// Replaces the only result of `at` by `new`, if their types are equal. Returns whether it did.
fn replace(graph: &mut Graph, at: NodeId, new: ValueId) -> bool {
    let old = graph.node(at).outputs[0];
    graph.replace_uses(old, new).is_ok()
}
