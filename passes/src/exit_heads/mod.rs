//! The pass that inserts early exits: after chosen blocks a classifier looks at the intermediate
//! value, and samples it is sure of leave with its answer; the rest of the model does not run for
//! them.
//!
//! Every exit is a `Route` on the batch (an `If` for a batch of one): the rows that leave yield the
//! head's logits, the others go on in the second region, which holds the next exit. Results come
//! back in the order of the batch. Outputs `exit_index` (i64 `[batch]`, the number of exits for
//! samples that ran to the end) and `confidence` (f32 `[batch]`) are added.

pub(crate) mod feature;
pub(crate) mod head;
mod rule;
pub(crate) mod signal;
mod taps;
#[cfg(test)]
mod tests;

use eec_ir::Graph;

pub use feature::{FeaturePlan, Pooling, feature};
pub use head::Head;
pub use rule::{AtExit, Decision, ExitRule, Rule};
pub use signal::Signal;
pub use taps::{HeadInput, Tap, head_graph, with_features, with_taps};

pub use crate::dense::Activation;

use crate::insert::{self, Decisions, InsertError};
use crate::structure::{Structure, analyse};

/// An exit: where it stands and what classifies there.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The block after which it stands.
    pub block: usize,
    /// Its classifier.
    pub head: Head,
}

/// The pass's options.
#[derive(Clone, Debug)]
pub struct ExitHeads {
    /// The exits in order of depth.
    pub exits: Vec<Exit>,
    /// When a sample leaves.
    pub rule: Rule,
}

/// The name in provenance and options.
pub(crate) const NAME: &str = "exit-heads";
/// The name of the added output with the number of the exit that each sample took.
pub const EXIT_INDEX: &str = "exit_index";
/// The name of the added output with the confidence at that exit.
pub const CONFIDENCE: &str = "confidence";

/// The graph with exits.
pub fn apply(graph: &Graph, options: &ExitHeads) -> Result<Graph, InsertError> {
    let structure = analyse(graph)?;
    apply_to(graph, &structure, options)
}

/// The graph with exits, for a structure that is known already.
pub fn apply_to(graph: &Graph, structure: &Structure, options: &ExitHeads) -> Result<Graph, InsertError> {
    insert::apply(graph, structure, Decisions { exits: Some(options), ..Decisions::default() })
}
