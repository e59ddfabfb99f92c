//! The verifier. What a well-formed graph is, by stage; later stages include the earlier ones:
//!
//! `Imported`
//!  1. Every operand and yield names a value of the graph, defined before its use in the same region
//!     or in one around it.
//!  2. Every live node stands in one region, once, and knows that region; every region has one owner
//!     and knows it; a value knows the node or region that defines it.
//!  3. A node has as many operands as its operator takes, and regions only if it is a control
//!     operator: two, for a `Route` also three, for a `Loop` one.
//!  4. The types of a node's results are what inference gives for its operands today. This covers
//!     what control operators ask of their regions' parameters and yields.
//!  5. Inputs and outputs have names, no two inputs and no two outputs the same, one per output.
//!  6. Dims and sizes in attributes stay inside [`Dim::LIMIT`], constant dims are not negative, and
//!     symbols are those of the inputs, of a region around the node, or of a `LateSize` before it.
//!  7. The row symbol of a region of a `Route`, and the length symbol that its third region, the join,
//!     may have, belong to that region alone; no other region has one. The symbol of a `LateSize` is its alone.
//!  8. What a region of a `Route` reads from outside does not depend on the row: its type does not
//!     mention the symbols of the mask's rows.
//!
//! `Typed`
//!  9. There is no `Shape` node: sizes are symbolic expressions.
//!
//! `Dynamic`
//! 10. Early exits are numbered 0, 1, … in execution order, each gives a result, and no exit stands
//!     in the `then` region of another, whose rows have left, or in a `Loop`, which would ask it again.
//!
//! 11. Gates have the numbers 0, 1, … in any order, each once, and no node is an exit and a gate.
//!
//! `Lowerable`
//! 12. Every symbol of an input's type is by itself a dim of some input, so that a run can bind it.
//!
//! All violations are collected, each with the line of its node.

mod scope;
mod stages;

use std::fmt;

use crate::entity::NodeId;
use crate::graph::Graph;
use crate::text::Printer;

#[cfg(doc)]
use crate::dim::Dim;

/// How far a graph has come, and so which invariants hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Well formed: after import or parsing.
    Imported,
    /// Sizes are symbolic: after simplification.
    Typed,
    /// Exits and gates are well formed: after the dynamic passes.
    Dynamic,
    /// Ready to be lowered.
    Lowerable,
}

/// The proof that a graph holds the invariants of a stage. It borrows the graph, so nothing can
/// change while the proof is in use.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'g> {
    graph: &'g Graph,
    stage: Stage,
}

impl<'g> Verified<'g> {
    /// The graph.
    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    /// The stage whose invariants hold, and those of the stages before it.
    pub fn stage(&self) -> Stage {
        self.stage
    }
}

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyError {
    /// The number of the invariant in the [module's documentation](self).
    pub invariant: u8,
    /// The offending node, unless the graph as a whole offends.
    pub node: Option<NodeId>,
    /// Its line, or the graph's name.
    pub line: String,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  ^ {} (invariant {})", self.line, self.message, self.invariant)
    }
}

/// All violations of a graph, in execution order per group of invariants; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyErrors {
    /// The stage that was asked for.
    pub stage: Stage,
    /// The violations.
    pub errors: Vec<VerifyError>,
}

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.errors.len();
        write!(f, "the graph breaks {count} invariant(s) of the stage {:?}", self.stage)?;
        self.errors.iter().try_for_each(|e| write!(f, "\n{e}"))
    }
}

impl std::error::Error for VerifyErrors {}

/// Checks the invariants of `stage` and of the stages before it.
pub fn verify(graph: &Graph, stage: Stage) -> Result<Verified<'_>, VerifyErrors> {
    let mut found = Found { graph, printer: None, errors: Vec::new() };
    let sound = scope::check(&mut found);
    stages::check_interface(&mut found);
    if sound {
        stages::check_nodes(&mut found, stage);
    }
    if found.errors.is_empty() {
        Ok(Verified { graph, stage })
    } else {
        Err(VerifyErrors { stage, errors: found.errors })
    }
}

/// The violations found so far.
struct Found<'g> {
    graph: &'g Graph,
    printer: Option<Printer<'g>>,
    errors: Vec<VerifyError>,
}

impl<'g> Found<'g> {
    /// The printer, made when it is first needed: a graph without errors prints nothing.
    fn printer(&mut self) -> &Printer<'g> {
        let graph = self.graph;
        self.printer.get_or_insert_with(|| Printer::new(graph))
    }

    /// Notes that `node`, or the graph, breaks an invariant.
    fn report(&mut self, invariant: u8, node: Option<NodeId>, message: impl Into<String>) {
        let line = match node {
            Some(node) => self.printer().node_line(node),
            None => format!("graph @{}", self.graph.name),
        };
        self.errors.push(VerifyError { invariant, node, line, message: message.into() });
    }
}
