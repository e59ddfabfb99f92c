//! An early exit: rows of the mask leave with the head's logits, the others go on.

use eec_ir::{Dim, Op, Tensor, ValueId};

use super::InsertError;
use super::attach::Scope;
use super::build::{Builder, Carry, Results};
use crate::exit_heads::{AtExit, signal};
use crate::structure::Batch;

/// An exit where it stands.
struct Exit<'s> {
    /// Its position among the decisions.
    place: usize,
    /// Its number.
    number: usize,
    scope: &'s Scope,
    mask: ValueId,
    logits: ValueId,
    confidence: ValueId,
    carry: Carry,
    path: String,
}

impl Builder<'_> {
    /// Exit `number`, which is decision `place`.
    pub(super) fn exit(
        &mut self,
        place: usize,
        number: usize,
        scope: &mut Scope,
        carry: &Carry,
    ) -> Result<Results, InsertError> {
        let options = self.decisions.exits.ok_or(InsertError::NoExits)?;
        let exit = &options.exits[number];
        let path = format!("exit.{number}");
        let logits = self.attach.logits(scope, exit.block, &exit.head, &path)?;
        let feature = match options.rule.reads_feature() {
            true => Some(self.attach.feature(scope, exit.block, &format!("{path}/feature"))?.0),
            false => None,
        };
        let mut emit = self.attach.emit(scope.region, &path);
        let at = AtExit { exit: Some(number), logits, feature, carry: &carry.rule };
        let decision = signal::decide(&mut emit, &options.rule, &at)?;
        let Some(mask) = decision.mask else {
            return Err(InsertError::Thresholds { thresholds: number, exits: options.exits.len() });
        };
        let carry = Carry { rule: decision.carry, ..carry.clone() };
        let exit = Exit { place, number, scope, mask, logits, confidence: decision.confidence, carry, path };
        match &self.attach.structure.batch {
            Batch::Symbolic(_) => self.route(&exit),
            Batch::Fixed(_) => self.branch(&exit),
        }
    }

    /// The exit of a batch: a `Route`.
    fn route(&mut self, exit: &Exit) -> Result<Results, InsertError> {
        let (place, path) = (&self.plan.places[exit.place], exit.path.as_str());
        let x = exit.scope.get(self.attach.source, place.cut, "the exit")?;
        let packed = self.pack_all(place, exit.scope, path)?;
        let mut operands = vec![exit.mask, exit.confidence, exit.logits, x];
        operands.extend(exit.carry.values());
        let carried = 3..operands.len() - 1;
        operands.extend(packed.iter().map(|p| p.value));

        let then = self.region(&operands[1..]);
        let number = Tensor::scalar(exit.number as i64);
        let index = self.attach.emit(then.id, path).fill("index", number, &then.rows.clone().into())?;
        let kept = exit.carry.with(&then.params[carried.clone()]);
        let leave = self.results(then.params[1], Some([index, then.params[0]]), &kept);
        self.attach.target.set_yields(then.id, leave);

        let other = self.region(&operands[1..]);
        let mut inner = self.inside(exit.scope, &other);
        inner.map.insert(place.cut, other.params[2]);
        let outers = &other.params[carried.end..];
        self.unpack_all(place, exit.scope, &packed, outers, &mut inner, path)?;
        let kept = exit.carry.with(&other.params[carried]);
        let results = self.level(exit.place + 1, &mut inner, &kept)?;
        self.attach.target.set_yields(other.id, results);
        let op = Op::Route { exit: exit.number as i64, gate: -1 };
        let mut emit = self.attach.emit(exit.scope.region, path);
        Ok(emit.control("leave-or-go-on", op, &operands, vec![then.id, other.id])?)
    }

    /// The exit of a batch of one: an `If`.
    fn branch(&mut self, exit: &Exit) -> Result<Results, InsertError> {
        let (region, path) = (exit.scope.region, exit.path.as_str());
        let reshape = Op::Reshape { dims: Vec::new() };
        let condition = self.attach.emit(region, path).op("condition", reshape, &[exit.mask])?;
        let then = self.attach.target.new_region(None);
        let number = Tensor::scalar(exit.number as i64);
        let index = self.attach.emit(then, path).fill("index", number, &Dim::from(1))?;
        let leave = self.results(exit.logits, Some([index, exit.confidence]), &exit.carry);
        self.attach.target.set_yields(then, leave);
        let other = self.attach.target.new_region(None);
        let mut inner = Scope { region: other, ..exit.scope.clone() };
        let results = self.level(exit.place + 1, &mut inner, &exit.carry)?;
        self.attach.target.set_yields(other, results);
        let op = Op::If { exit: exit.number as i64, gate: -1 };
        let mut emit = self.attach.emit(region, path);
        Ok(emit.control("leave-or-go-on", op, &[condition], vec![then, other])?)
    }
}
