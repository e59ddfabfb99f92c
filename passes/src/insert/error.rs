//! Why decisions cannot be inserted.

use crate::clone::CloneError;
use crate::emit::EmitError;
use crate::structure::StructureError;

/// Why decisions cannot be inserted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The graph has no structure.
    #[error(transparent)]
    Structure(#[from] StructureError),
    /// No exit was asked for.
    #[error("expected at least one exit, found none")]
    NoExits,
    /// A block that does not exist.
    #[error("block {block} does not exist: the model has {count} blocks")]
    NoBlock {
        /// Block asked for.
        block: usize,
        /// Number of blocks.
        count: usize,
    },
    /// A decision may not stand after the block.
    #[error("no {what} can stand after block {block}: {reason}")]
    NotACandidate {
        /// The kind of decision.
        what: &'static str,
        /// Block.
        block: usize,
        /// Reason.
        reason: String,
    },
    /// The exits are not in order of depth.
    #[error("places must be in order of depth: block {next} follows block {block}")]
    Order {
        /// An exit's block.
        block: usize,
        /// The next exit's.
        next: usize,
    },
    /// Not one threshold per exit.
    #[error("expected one threshold per exit, found {thresholds} for {exits} exits")]
    Thresholds {
        /// Thresholds given.
        thresholds: usize,
        /// Exits given.
        exits: usize,
    },
    /// An output has the name of one that the pass adds.
    #[error("the model already has an output named `{0}`")]
    OutputTaken(String),
    /// The model has exits or token exits, which later decisions cannot be inserted between.
    #[error("the model has exits or token exits already: early exits and token exits are inserted together")]
    Decided,
    /// The model has sizes that data decides.
    #[error("{}", crate::structure::LATE)]
    Late,
    /// The head does not fit the model.
    #[error("the {head} head at block {block} does not fit: {reason}")]
    Head {
        /// The kind of head.
        head: &'static str,
        /// Block.
        block: usize,
        /// What was expected and found.
        reason: String,
    },
    /// The decision of a rule does not fit.
    #[error("the rule of {pass} at {}: {reason}", .exit.map_or("the model's end".into(), |k| format!("exit {k}")))]
    Rule {
        /// The pass that brings the rule.
        pass: &'static str,
        /// The exit; `None` for the model's end.
        exit: Option<usize>,
        /// What was expected and found.
        reason: String,
    },
    /// A confidence needs two classes or more.
    #[error("a confidence needs at least 2 classes, found an output of type {0}")]
    Classes(String),
    /// A value that the rest of the model needs cannot be split by samples.
    #[error("value {value} of type {ty} is needed after block {block}, and the batch's place in it is not known")]
    Outer {
        /// Value.
        value: String,
        /// Type.
        ty: String,
        /// Block.
        block: usize,
    },
    /// A part of the model could not be copied.
    #[error(transparent)]
    Clone(#[from] CloneError),
    /// An inserted node does not type-check.
    #[error(transparent)]
    Emit(#[from] EmitError),
}
