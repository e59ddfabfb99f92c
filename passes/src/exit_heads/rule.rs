//! When a sample leaves: eec's own rules, and those of others through [`ExitRule`].

use std::fmt;
use std::sync::Arc;

use eec_ir::{DType, ValueId};

use super::Signal;
use crate::emit::Emit;
use crate::insert::InsertError;

/// When a sample leaves.
#[derive(Clone, Debug)]
pub enum Rule {
    /// At the first exit whose confidence is greater than its threshold (Teerapittayanon et al.,
    /// BranchyNet, arXiv 1709.01686). No confidence exceeds 1 and none is below 0, so 1 or more
    /// means never and -1 always.
    Threshold {
        /// The confidence.
        signal: Signal,
        /// One per exit.
        thresholds: Vec<f32>,
    },
    /// At the first exit where this many exits in a row, that one included, name the same class
    /// (Zhou et al., PABEE, arXiv 2006.04152). The confidence is the length of the run.
    Patience {
        /// Exits in a row.
        count: usize,
    },
    /// As a rule from outside this crate says; see [`Rule::custom`].
    Custom(Arc<dyn ExitRule>),
}

impl Rule {
    /// A rule of one's own.
    pub fn custom(rule: impl ExitRule + 'static) -> Rule {
        Rule::Custom(Arc::new(rule))
    }

    /// The pass that inserted nodes name as theirs.
    pub(crate) fn pass(&self) -> &'static str {
        match self {
            Rule::Threshold { .. } | Rule::Patience { .. } => super::NAME,
            Rule::Custom(rule) => rule.pass(),
        }
    }

    /// Whether it reads the feature at every exit.
    pub(crate) fn reads_feature(&self) -> bool {
        match self {
            Rule::Threshold { .. } | Rule::Patience { .. } => false,
            Rule::Custom(rule) => rule.reads_feature(),
        }
    }
}

/// Decides who leaves at an exit, from what is known there. It builds its decision from operators of the
/// IR, so that every backend and every export can run it.
pub trait ExitRule: fmt::Debug + Send + Sync {
    /// The pass that inserted nodes name as theirs: the one that brings the rule.
    fn pass(&self) -> &'static str;

    /// Whether it reads [`AtExit::feature`], which costs the model's pooling at every exit.
    fn reads_feature(&self) -> bool {
        false
    }

    /// The decision for the rows at hand.
    ///
    /// # Errors
    ///
    /// Operators that do not fit what they are given.
    fn decide(&self, emit: &mut Emit<'_>, at: &AtExit<'_>) -> Result<Decision, InsertError>;
}

/// What is known where a decision is made. All values have the same rows.
#[derive(Clone, Copy, Debug)]
pub struct AtExit<'a> {
    /// The exit's number, from 0; `None` at the model's end, where all rows that are left arrive.
    pub exit: Option<usize>,
    /// The head's logits, f32 `[rows, classes]`; the model's own at its end.
    pub logits: ValueId,
    /// The pooled hidden state, f32 `[rows, width]`, if the rule reads it; `None` at the model's end.
    pub feature: Option<ValueId>,
    /// [`Decision::carry`] of the exit before; empty at the first.
    pub carry: &'a [ValueId],
}

/// What is decided at an exit.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Whether a row leaves, bool `[rows]`; `None` at the model's end, and only there.
    pub mask: Option<ValueId>,
    /// How sure the decision is, f32 `[rows]`: what the output `confidence` holds.
    pub confidence: ValueId,
    /// What the next decision needs of every row, each `[rows, …]`; as many, of the same types, at
    /// every exit. What is carried from the last exit reaches the model's end.
    pub carry: Vec<ValueId>,
}

/// Refuses a decision of a rule from outside that the insertion cannot use.
pub(super) fn check(emit: &Emit<'_>, rule: &dyn ExitRule, at: &AtExit<'_>, made: &Decision) -> Result<(), InsertError> {
    let refuse = |reason: String| Err(InsertError::Rule { pass: rule.pass(), exit: at.exit, reason });
    let rows = emit.rows(at.logits);
    let is_per_row = |v: ValueId, dtype| {
        let ty = emit.ty(v);
        ty.dtype == dtype && ty.dims == [rows.clone()]
    };
    match made.mask {
        Some(mask) if at.exit.is_some() && !is_per_row(mask, DType::Bool) => {
            return refuse(format!("expected a mask bool[{rows}], found {}", emit.ty(mask)));
        }
        None if at.exit.is_some() => return refuse("it gives no mask".into()),
        Some(_) if at.exit.is_none() => return refuse("it gives a mask where nothing can leave".into()),
        Some(_) | None => {}
    }
    if !is_per_row(made.confidence, DType::F32) {
        return refuse(format!("expected a confidence f32[{rows}], found {}", emit.ty(made.confidence)));
    }
    if let Some(v) = made.carry.iter().find(|v| emit.ty(**v).dims.first() != Some(&rows)) {
        return refuse(format!("expected to carry values over the {rows} rows, found {}", emit.ty(*v)));
    }
    let before: Vec<_> = at.carry.iter().map(|v| emit.ty(*v)).collect();
    let is_first = at.exit.is_none_or(|k| k == 0);
    if !is_first && before.iter().copied().ne(made.carry.iter().map(|v| emit.ty(*v))) {
        let types = |list: Vec<String>| format!("[{}]", list.join(", "));
        let found = types(made.carry.iter().map(|v| emit.ty(*v).to_string()).collect());
        let wanted = types(before.iter().map(ToString::to_string).collect());
        return refuse(format!("expected to carry {wanted} on, found {found}"));
    }
    Ok(())
}
