//! The pass that lets tokens skip FFNs: before the FFN sub-block (norm, MLP, residual sum) of chosen
//! blocks a gate decides per token whether it runs. A skipped sub-block leaves the residual stream
//! as it is, or adds a small replacement. Attention always runs, so all keys and values exist
//! (FFN-SkipLLM, arXiv 2404.03865; a learned gate and a small module: Duo-LLM, arXiv 2410.10846).
//!
//! A row is a token: all dims of the sub-block's value but the last. A gate is a `Route` over the
//! rows, or an `If` where all rows must agree. Gates come before exit heads.

mod build;
mod candidate;
mod check;
mod copy;
mod decide;
mod error;
mod taps;
#[cfg(test)]
mod tests;
mod warm_up;

use eec_ir::{Graph, Tensor};

pub use crate::dense::Activation;
pub use candidate::{Candidate, candidates};
pub use error::FfnGateError;
pub use taps::with_taps;

use crate::structure::Structure;

/// The name in provenance and options.
pub const NAME: &str = "ffn-gates";

/// The pass's options.
#[derive(Clone, Debug)]
pub struct FfnGates {
    /// The gates in order of depth.
    pub gates: Vec<Gate>,
    /// When a token skips.
    pub rule: Rule,
    /// Who decides together.
    pub granularity: Granularity,
}

/// A gate: the block whose FFN it lets tokens skip.
#[derive(Clone, Debug)]
pub struct Gate {
    /// The block.
    pub block: usize,
    /// What runs in the FFN's place; `None` for nothing.
    pub replacement: Option<Replacement>,
}

/// A narrow MLP that is added to the residual stream in the FFN's place:
/// `x + activation(x · down + down_bias) · up + up_bias`.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// `[width, rank]`.
    pub down: Tensor,
    /// `[rank]`.
    pub down_bias: Tensor,
    /// The function between the layers; `None` makes it a low-rank linear map.
    pub activation: Option<Activation>,
    /// `[rank, width]`.
    pub up: Tensor,
    /// `[width]`.
    pub up_bias: Tensor,
}

/// When a token skips an FFN.
#[derive(Clone, Debug)]
pub enum Rule {
    /// Always: the graph is edited and decides nothing. Attention that loses its FFN is then a block
    /// by itself; where every other FFN goes, the structure shows pairs of attention as one block.
    Static,
    /// After an FFN that changed little (FFN-SkipLLM). Where a gated FFN ran for a token and the
    /// cosine of the residual stream before and after it is at least `threshold`, the token skips
    /// the FFNs of the next `skip_next` gated blocks. The first gate's FFN always runs. A cosine
    /// lies in `[-1, 1]` up to rounding, so 2 means never and -2 as often as the rule can; that of
    /// a zero vector is 0.
    Cosine {
        /// The least cosine after which a token skips.
        threshold: f32,
        /// Gated blocks that it then skips, 1 or more.
        skip_next: usize,
        /// Tokens at positions below this never skip. The position is the index along the token
        /// axis (the last but one of the sub-block's value) plus the length of the past, which is
        /// that of the model's caches: the dim in which they grow. Padding counts.
        warm_up: usize,
    },
    /// Where a small classifier of the residual stream before the FFN says so.
    Learned {
        /// One per gate.
        gates: Vec<LearnedGate>,
    },
    /// Where an input says so, bool `[batch, tokens]` per gate, called by [`mask_input`]: for trying
    /// decisions of any origin, such as chance.
    Given,
}

/// The input that decides for the FFN of `block` under [`Rule::Given`].
pub fn mask_input(block: usize) -> String {
    format!("skip.{block}")
}

/// A classifier of tokens: `score = x · weight + bias`, `x` the residual stream before the FFN or a
/// hidden layer of it. A token skips where its score is greater than the threshold.
#[derive(Clone, Debug)]
pub struct LearnedGate {
    /// A layer before the score.
    pub hidden: Option<HiddenLayer>,
    /// `[width, 1]`, or `[hidden, 1]`.
    pub weight: Tensor,
    /// Added to the score.
    pub bias: f32,
    /// Infinity means never, negative infinity always, whatever the score.
    pub threshold: f32,
}

/// A dense layer with its function.
#[derive(Clone, Debug)]
pub struct HiddenLayer {
    /// `[width, hidden]`.
    pub weight: Tensor,
    /// `[hidden]`.
    pub bias: Tensor,
    /// The function after it.
    pub activation: Activation,
}

/// Who decides together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Granularity {
    /// Every token for itself.
    #[default]
    Row,
    /// The FFN is skipped only if all tokens of the batch want to; this mixes samples, so no exit
    /// can stand before such a gate unless the batch is one.
    All,
}

impl Granularity {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Granularity> {
        [Granularity::Row, Granularity::All].into_iter().find(|g| g.name() == name)
    }

    /// What it is called in options.
    pub fn name(self) -> &'static str {
        match self {
            Granularity::Row => "row",
            Granularity::All => "all",
        }
    }
}

/// The graph with gates.
pub fn apply_to(graph: &Graph, structure: &Structure, options: &FfnGates) -> Result<Graph, FfnGateError> {
    build::build(graph, structure, options)
}
