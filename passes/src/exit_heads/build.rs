//! Builds the dynamic graph: level after level, each inside the "go on" region of the exit before.

use eec_ir::{Dim, Graph, Op, RegionId, Symbol, Tensor, Type, ValueId};

use super::attach::{Attach, Scope};
use super::plan::{Outer, Plan};
use super::signal::{self, Decision};
use super::{ExitError, ExitHeads};
use crate::clone::{self, Substitution, ValueMap};
use crate::structure::Batch;

/// Logits, exit index and confidence of some rows.
type Results = [ValueId; 3];

pub(crate) struct Builder<'a> {
    pub(crate) attach: Attach<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) options: &'a ExitHeads,
}

impl Builder<'_> {
    /// Builds level `k` and everything after it in `scope`; `carry` is what the rule carries over.
    pub(crate) fn level(&mut self, k: usize, scope: &mut Scope, carry: &[ValueId]) -> Result<Results, ExitError> {
        let plan = self.plan;
        self.attach.clone_into(&plan.levels[k], scope, None)?;
        let Some(exit) = self.options.exits.get(k) else {
            return self.end(k, scope, carry);
        };
        let path = format!("exit.{k}");
        let logits = self.attach.logits(scope, exit.block, &exit.head, &path)?;
        let mut emit = self.attach.emit(scope.region, &path);
        let decision = signal::decide(&mut emit, &self.options.rule, Some(k), logits, carry)?;
        let Some(mask) = decision.mask else {
            return Err(ExitError::Thresholds { thresholds: k, exits: self.options.exits.len() });
        };
        match &self.attach.structure.batch {
            Batch::Symbolic(batch) => self.route(k, scope, mask, logits, &decision, &batch.clone()),
            Batch::Fixed(_) => self.branch(k, scope, mask, logits, &decision),
        }
    }

    /// The model's own end.
    fn end(&mut self, k: usize, scope: &Scope, carry: &[ValueId]) -> Result<Results, ExitError> {
        let logits = scope.get(self.attach.source, self.attach.structure.output, "the end")?;
        let mut emit = self.attach.emit(scope.region, "exit.end");
        let decision = signal::decide(&mut emit, &self.options.rule, None, logits, carry)?;
        let rows = emit.rows(logits);
        let index = emit.fill("index", Tensor::scalar(k as i64), &rows)?;
        Ok([logits, index, decision.confidence])
    }

    /// Exit `k` of a batch: rows of the mask leave, the others go on.
    fn route(
        &mut self,
        k: usize,
        scope: &Scope,
        mask: ValueId,
        logits: ValueId,
        decision: &Decision,
        batch: &Symbol,
    ) -> Result<Results, ExitError> {
        let plan = self.plan;
        let x = scope.get(self.attach.source, plan.cuts[k], "the exit")?;
        let mut operands = vec![mask, decision.confidence, logits, x];
        operands.extend(&decision.carry);
        for outer in &plan.outers[k] {
            operands.push(self.pack(k, scope, outer)?);
        }
        let (then, params, rows) = self.region(&operands[1..]);
        let index =
            self.attach.emit(then, &format!("exit.{k}")).fill("index", Tensor::scalar(k as i64), &rows.into())?;
        self.attach.target.set_yields(then, vec![params[1], index, params[0]]);

        let (other, params, rows) = self.region(&operands[1..]);
        let rows = Some(Substitution { from: batch.clone(), to: rows.into() });
        let mut inner = Scope { region: other, map: self.shared(scope), rows };
        inner.map.insert(plan.cuts[k], params[2]);
        let (carry, packed) = params[3..].split_at(decision.carry.len());
        for (outer, param) in plan.outers[k].iter().zip(packed) {
            self.unpack(k, &mut inner, outer, *param)?;
        }
        let results = self.level(k + 1, &mut inner, carry)?;
        self.attach.target.set_yields(other, results.to_vec());
        self.control(k, scope.region, Op::Route { exit: k as i64 }, &operands, [then, other])
    }

    /// Exit `k` of a batch of one.
    fn branch(
        &mut self,
        k: usize,
        scope: &Scope,
        mask: ValueId,
        logits: ValueId,
        decision: &Decision,
    ) -> Result<Results, ExitError> {
        let path = format!("exit.{k}");
        let condition =
            self.attach.emit(scope.region, &path).op("condition", Op::Reshape { dims: Vec::new() }, &[mask])?;
        let then = self.attach.target.new_region(None);
        let index = self.attach.emit(then, &path).fill("index", Tensor::scalar(k as i64), &Dim::from(1))?;
        self.attach.target.set_yields(then, vec![logits, index, decision.confidence]);
        let other = self.attach.target.new_region(None);
        let mut inner = Scope { region: other, ..scope.clone() };
        let results = self.level(k + 1, &mut inner, &decision.carry)?;
        self.attach.target.set_yields(other, results.to_vec());
        self.control(k, scope.region, Op::If { exit: k as i64 }, &[condition], [then, other])
    }

    fn control(
        &mut self,
        k: usize,
        region: RegionId,
        op: Op,
        operands: &[ValueId],
        regions: [RegionId; 2],
    ) -> Result<Results, ExitError> {
        let mut emit = self.attach.emit(region, &format!("exit.{k}"));
        let results = emit.control("leave-or-go-on", op, operands, regions)?;
        Ok([results[0], results[1], results[2]])
    }

    /// A region with a parameter for every operand, over fresh rows.
    fn region(&mut self, operands: &[ValueId]) -> (RegionId, Vec<ValueId>, Symbol) {
        let target = &mut self.attach.target;
        let rows = clone::fresh_rows(self.attach.source, target);
        let region = target.new_region(Some(rows.clone()));
        let param = |target: &mut Graph, v: &ValueId| {
            let ty = target.ty(*v);
            let dims = std::iter::once(Dim::from(rows.clone())).chain(ty.dims.iter().skip(1).cloned());
            let ty = Type::new(ty.dtype, dims);
            target.add_param(region, ty)
        };
        let params = operands.iter().map(|v| param(target, v)).collect();
        (region, params, rows)
    }

    /// The values of `scope` that are the same for all rows.
    fn shared(&self, scope: &Scope) -> ValueMap {
        scope.map.iter().filter(|(v, _)| self.plan.is_shared(**v)).map(|(v, w)| (*v, *w)).collect()
    }

    /// A value that the region needs, with its rows as first dim.
    fn pack(&mut self, k: usize, scope: &Scope, outer: &Outer) -> Result<ValueId, ExitError> {
        let value = scope.get(self.attach.source, outer.value, "the rest")?;
        let Some([before, rows, after]) = self.split(scope, outer) else {
            return Ok(value);
        };
        let mut emit = self.attach.emit(scope.region, &format!("exit.{k}"));
        let split = emit.op("split-rows", Op::Reshape { dims: vec![before, rows, after] }, &[value])?;
        Ok(emit.op("rows-first", Op::Transpose { perm: vec![1, 0, 2] }, &[split])?)
    }

    /// The inverse of [`Builder::pack`] on a region's parameter.
    fn unpack(&mut self, k: usize, scope: &mut Scope, outer: &Outer, param: ValueId) -> Result<(), ExitError> {
        let value = if self.split(scope, outer).is_some() {
            let dims = scope.ty(self.attach.source.ty(outer.value)).dims;
            let mut emit = self.attach.emit(scope.region, &format!("exit.{k}"));
            let back = emit.op("rows-back", Op::Transpose { perm: vec![1, 0, 2] }, &[param])?;
            emit.op("join-rows", Op::Reshape { dims }, &[back])?
        } else {
            param
        };
        scope.map.insert(outer.value, value);
        Ok(())
    }

    /// The sizes before the rows, the rows, and after them; `None` if the first dim is the rows.
    fn split(&self, scope: &Scope, outer: &Outer) -> Option<[Dim; 3]> {
        let ty = scope.ty(self.attach.source.ty(outer.value));
        let rows = Substitution::apply(scope.rows.as_ref(), &self.attach.structure.batch.dim());
        if ty.dims.first() == Some(&rows) {
            return None;
        }
        let before = Substitution::apply(scope.rows.as_ref(), &outer.before);
        let after = ty.elements().exact_div(&(&before * &rows))?;
        Some([before, rows, after])
    }
}
