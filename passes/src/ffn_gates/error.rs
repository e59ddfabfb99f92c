//! Why gates cannot be inserted.

use crate::clone::CloneError;
use crate::emit::EmitError;

/// Why gates cannot be inserted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FfnGateError {
    /// No gate was asked for.
    #[error("expected at least one gate, found none")]
    NoGates,
    /// A block that does not exist.
    #[error("block {block} does not exist: the model has {count} blocks")]
    NoBlock {
        /// Block asked for.
        block: usize,
        /// Number of blocks.
        count: usize,
    },
    /// The block's FFN cannot have a gate.
    #[error("the FFN of block {block} cannot have a gate: {reason}")]
    NotACandidate {
        /// Block.
        block: usize,
        /// Reason.
        reason: String,
    },
    /// The gates are not in order of depth.
    #[error("gates must be in order of depth: block {next} follows block {block}")]
    Order {
        /// A gate's block.
        block: usize,
        /// The next gate's.
        next: usize,
    },
    /// Not one classifier per gate.
    #[error("expected one classifier per gate, found {learned} for {gates} gates")]
    Learned {
        /// Classifiers given.
        learned: usize,
        /// Gates given.
        gates: usize,
    },
    /// A weight does not fit.
    #[error("the {what} at block {block} must be f32[{expected}], found {found}")]
    Weight {
        /// Block.
        block: usize,
        /// Which weight.
        what: &'static str,
        /// Dims expected.
        expected: String,
        /// Type found.
        found: String,
    },
    /// A countdown of nothing.
    #[error("the cosine rule must skip at least 1 block, found 0")]
    SkipNext,
    /// Tokens cannot be carried from one gate to the next.
    #[error("the cosine rule needs the same tokens at all gates: block {block} has {found}, the first gate {expected}")]
    Tokens {
        /// Block.
        block: usize,
        /// Its tokens.
        found: String,
        /// The first gate's.
        expected: String,
    },
    /// The positions of tokens are not known.
    #[error("a warm-up needs the positions of tokens: {0}")]
    WarmUp(String),
    /// An output has the name of one that taps add.
    #[error("the model already has an output named `{0}`")]
    OutputTaken(String),
    /// A part of the model could not be copied.
    #[error(transparent)]
    Clone(#[from] CloneError),
    /// An inserted node does not type-check.
    #[error(transparent)]
    Emit(#[from] EmitError),
}
