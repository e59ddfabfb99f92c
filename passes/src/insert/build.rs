//! Builds the dynamic graph: level after level, each inside a region of the decision before it.

use eec_ir::{Tensor, ValueId};

use super::attach::{Attach, Scope};
use super::plan::{Event, Plan};
use super::{Decisions, InsertError};
use crate::exit_heads::{AtExit, signal};

/// What later decisions of a row need from earlier ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Carry {
    /// What the rule of the exits carries over.
    pub(super) rule: Vec<ValueId>,
    /// What was read after blocks.
    pub(super) taps: Vec<ValueId>,
    /// The number of the token exit taken so far, i64 `[rows]`; their count if none was.
    pub(super) token: Option<ValueId>,
}

impl Carry {
    /// All values, as operands of a decision.
    pub(super) fn values(&self) -> Vec<ValueId> {
        self.rule.iter().chain(&self.taps).copied().chain(self.token).collect()
    }

    /// The same with values in the order of [`Carry::values`].
    pub(super) fn with(&self, values: &[ValueId]) -> Carry {
        let (rule, rest) = values.split_at(self.rule.len().min(values.len()));
        let (taps, token) = rest.split_at(self.taps.len().min(rest.len()));
        Carry { rule: rule.to_vec(), taps: taps.to_vec(), token: token.first().copied() }
    }
}

/// Logits of some rows, then what [`super::added_outputs`] lists.
pub(super) type Results = Vec<ValueId>;

pub(super) struct Builder<'a> {
    pub(super) attach: Attach<'a>,
    pub(super) plan: &'a Plan,
    pub(super) decisions: Decisions<'a>,
    /// The number of the first gate, after those that the model has already.
    pub(super) first_gate: usize,
}

impl Builder<'_> {
    /// Builds level `i` and everything after it in `scope`.
    pub(super) fn level(&mut self, i: usize, scope: &mut Scope, carry: &Carry) -> Result<Results, InsertError> {
        let plan = self.plan;
        self.attach.clone_into(&plan.levels[i], scope, None)?;
        match plan.places.get(i).map(|p| p.event) {
            Some(Event::Exit(k)) => self.exit(i, k, scope, carry),
            Some(Event::Token(k)) => self.token(i, k, scope, carry),
            Some(Event::Tap(k)) => {
                let tap = self.attach.tap(scope, &self.decisions.taps[k])?;
                let taps = carry.taps.iter().copied().chain([tap]).collect();
                self.level(i + 1, scope, &Carry { taps, ..carry.clone() })
            }
            None => self.end(scope, carry),
        }
    }

    /// The model's own end.
    fn end(&mut self, scope: &Scope, carry: &Carry) -> Result<Results, InsertError> {
        let logits = scope.get(self.attach.source, self.attach.structure.output, "the end")?;
        let Some(options) = self.decisions.exits else {
            return Ok(self.results(logits, None, carry));
        };
        let mut emit = self.attach.emit(scope.region, "exit.end");
        let at = AtExit { exit: None, logits, feature: None, carry: &carry.rule };
        let decision = signal::decide(&mut emit, &options.rule, &at)?;
        let rows = emit.rows(logits);
        let index = emit.fill("index", Tensor::scalar(options.exits.len() as i64), &rows)?;
        Ok(self.results(logits, Some([index, decision.confidence]), carry))
    }

    pub(super) fn results(&self, logits: ValueId, exit: Option<[ValueId; 2]>, carry: &Carry) -> Results {
        let exit = exit.into_iter().flatten();
        std::iter::once(logits).chain(exit).chain(carry.taps.iter().copied()).chain(carry.token).collect()
    }
}
