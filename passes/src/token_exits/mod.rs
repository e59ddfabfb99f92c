//! Token exits: after a layer chosen per input, all visual tokens leave the sequence of a
//! vision-language model (DyVTE, Wu et al., arXiv 2411.19628). The layers after it work on the
//! remaining tokens, which keep their original positions: masks, position tables and hidden states
//! are gathered, nothing of the network is copied twice.
//!
//! A decision is a `Route` with a `join`: the rows whose visual tokens leave are shortened in one
//! region, the others are as they are in the other, and both go on in the rest of the model, whose
//! length is known only at run time. The output `token_exit` (i64 `[batch]`) is the number of the
//! token exit that a row took, their count if it took none.

mod gate;
mod rules;
mod shorten;
mod span;
#[cfg(test)]
mod tests;
mod trace;

use eec_ir::{Graph, Symbol, Tensor};

pub use gate::{text_feature_width, with_taps};
pub use span::Span;

pub(crate) use gate::text_feature;
pub(crate) use shorten::{kept_positions, shorten};
pub(crate) use trace::{Axis, Source, Trace};

use crate::exit_heads::Head;
use crate::insert::{self, Decisions, InsertError, check_order};
use crate::structure::{Batch, ExitCandidate, Structure};

/// The name of the added output with the number of the token exit that each sample took.
pub const TOKEN_EXIT: &str = "token_exit";

/// The options: which tokens, and where they may leave.
#[derive(Clone, Debug)]
pub struct TokenExits {
    /// The tokens that leave.
    pub span: Span,
    /// The places in order of depth.
    pub exits: Vec<TokenExit>,
}

/// A place where tokens may leave.
#[derive(Clone, Debug)]
pub struct TokenExit {
    /// The block after which they leave.
    pub block: usize,
    /// For which inputs.
    pub decision: Decision,
}

/// For which inputs tokens leave.
#[derive(Clone, Debug)]
pub enum Decision {
    /// For all: a static edit without a decision. It stands alone.
    Always,
    /// Where the probability of the second of two classes is above the threshold. The head reads the
    /// mean of the text tokens and the last token (see [`text_feature_width`]).
    Learned {
        /// From the text feature to two classes: stay, leave.
        head: Head,
        /// In `[0, 1]`; 1 or more means never and -1 always.
        threshold: f32,
    },
    /// Where the confidence of an answer head, `1 - H/ln(classes)`, is above the threshold.
    Entropy {
        /// As for an early exit after the block.
        head: Head,
        /// In `[0, 1]`; 1 or more means never and -1 always.
        threshold: f32,
    },
}

impl TokenExits {
    /// Whether anything is decided at run time.
    pub fn decides(&self) -> bool {
        self.exits.iter().any(|e| !matches!(e.decision, Decision::Always))
    }

    pub(crate) fn check(&self, graph: &Graph, structure: &Structure) -> Result<(), InsertError> {
        let count = structure.blocks.len();
        let blocks: Vec<usize> = self.exits.iter().map(|e| e.block).collect();
        check_order(&blocks)?;
        if let Some(block) = blocks.iter().copied().find(|b| *b >= count) {
            return Err(InsertError::NoBlock { block, count });
        }
        let Some(first) = self.exits.first() else { return Err(InsertError::NoExits) };
        let refuse = |reason: &str| {
            Err(InsertError::NotACandidate { what: "token exit", block: first.block, reason: reason.into() })
        };
        if self.exits.iter().any(|e| matches!(e.decision, Decision::Always)) && self.exits.len() > 1 {
            return refuse("a fixed token exit stands alone");
        }
        if self.decides() && matches!(structure.batch, Batch::Fixed(_)) {
            return refuse("its decision needs a symbolic batch");
        }
        blocks.into_iter().try_for_each(|block| {
            let refuse = |reason| InsertError::NotACandidate { what: "token exit", block, reason };
            candidate(graph, structure, &self.span, block).map_err(refuse)
        })
    }
}

/// The graph with token exits.
pub fn apply_to(graph: &Graph, structure: &Structure, options: &TokenExits) -> Result<Graph, InsertError> {
    insert::apply(graph, structure, Decisions { tokens: Some(options), ..Decisions::default() })
}

/// For every block, whether tokens may leave after it, or why not: for all inputs, or where a gate
/// `decides`. Every block is tried alone.
pub fn candidates(graph: &Graph, structure: &Structure, span: &Span, decides: bool) -> Vec<Result<(), String>> {
    (0..structure.blocks.len()).map(|block| try_alone(graph, structure, span, block, decides)).collect()
}

/// Puts a token exit after `block`, so that the verdict is that of the insertion.
fn try_alone(graph: &Graph, structure: &Structure, span: &Span, block: usize, decides: bool) -> Result<(), String> {
    let decision = if decides { probe(graph, structure, block)? } else { Decision::Always };
    let options = TokenExits { span: span.clone(), exits: vec![TokenExit { block, decision }] };
    match apply_to(graph, structure, &options) {
        Ok(_) => Ok(()),
        Err(InsertError::NotACandidate { reason, .. }) => Err(reason),
        Err(error) => Err(error.to_string()),
    }
}

/// A gate after `block` that nobody asks.
fn probe(graph: &Graph, structure: &Structure, block: usize) -> Result<Decision, String> {
    let width = text_feature_width(graph, structure, block).ok_or("the width of its value is not known")?;
    let weight = Tensor::new(&[width, 2], vec![0.0f32; 2 * width]).map_err(|e| e.to_string())?;
    let head = Head::Linear { weight, bias: Tensor::vector(vec![0.0f32; 2]) };
    Ok(Decision::Learned { head, threshold: 1.0 })
}

/// Whether tokens may leave after a block of the structure, or why not.
fn candidate(graph: &Graph, structure: &Structure, span: &Span, block: usize) -> Result<(), String> {
    let block = &structure.blocks[block];
    if let ExitCandidate::No(reason) = &block.exit {
        return Err(reason.clone());
    }
    let ty = graph.ty(block.output);
    if ty.rank() != 3 || ty.dims[1] != span.sequence {
        return Err(format!("expected [batch, {}, width], found {ty}", span.sequence));
    }
    let source = Source { graph, batch: &structure.batch.dim(), span, length: &Symbol::new("tokens") };
    Trace::new(source, block.output).map(drop)
}
