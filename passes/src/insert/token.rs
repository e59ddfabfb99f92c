//! A token exit: rows of the mask lose the span's tokens, and all go on in the same region, once
//! with the shorter sequence and once with the longer one.

use eec_ir::{Dim, Op, RegionId, Tensor, ValueId};

use super::attach::Scope;
use super::build::{Builder, Carry, Results};
use super::plan::{Outer, Place, Tokens};
use super::regions::{Packed, Region, joined};
use super::{Emit, InsertError};
use crate::clone::{self, Substitution};
use crate::exit_heads::head;
use crate::exit_heads::signal::{self, Signal};
use crate::token_exits::{Axis, Decision, TokenExits, kept_positions, shorten, text_feature};

/// The name in provenance.
const PASS: &str = "token-exits";

/// A token exit where it stands.
struct TokenExit<'s> {
    /// Its position among the decisions.
    place: usize,
    /// Its number.
    number: usize,
    scope: &'s Scope,
    leave: Leave,
    carry: &'s Carry,
    path: String,
}

/// Which rows' tokens leave.
#[derive(Clone, Copy)]
struct Leave {
    /// Bool `[rows]`.
    mask: ValueId,
    /// The gate whose answer the mask is; -1 if the gate was asked before.
    gate: i64,
}

impl Builder<'_> {
    /// What the first level carries: no token exit was taken yet.
    pub(super) fn first_carry(&mut self) -> Result<Carry, InsertError> {
        let Some(tokens) = self.decisions.tokens.filter(|t| t.decides()) else {
            return Ok(Carry::default());
        };
        let rows = self.attach.structure.batch.dim();
        let mut emit = self.emit(eec_ir::Graph::ROOT, "token-exit");
        let none = emit.fill("none", Tensor::scalar(tokens.exits.len() as i64), &rows)?;
        Ok(Carry { token: Some(none), ..Carry::default() })
    }

    /// An emitter of this pass's nodes.
    fn emit(&mut self, region: RegionId, path: &str) -> Emit<'_> {
        Emit::new(self.attach.target, region, PASS, path.to_string())
    }

    /// Token exit `number`, which is decision `place`.
    pub(super) fn token(
        &mut self,
        place: usize,
        number: usize,
        scope: &mut Scope,
        carry: &Carry,
    ) -> Result<Results, InsertError> {
        let (Some(options), Some(tokens)) = (self.decisions.tokens, &self.plan.tokens) else {
            return Err(InsertError::NoExits);
        };
        let path = format!("token-exit.{number}");
        let Some(fires) = self.fires(options, number, place, scope, &path)? else {
            self.shorten_here(place, tokens, scope, &path)?;
            return self.level(place + 1, scope, carry);
        };
        let leave = self.leave(options, number, fires, scope, carry, &path)?;
        self.split(tokens, &TokenExit { place, number, scope, leave, carry, path })
    }

    /// What the decision says of rows whose tokens are there, bool `[rows]`; `None` if all leave.
    fn fires(
        &mut self,
        options: &TokenExits,
        number: usize,
        place: usize,
        scope: &Scope,
        path: &str,
    ) -> Result<Option<ValueId>, InsertError> {
        let exit = &options.exits[number];
        let (logits, signal, threshold) = match &exit.decision {
            Decision::Always => return Ok(None),
            Decision::Entropy { head, threshold } => {
                (self.attach.named(PASS).logits(scope, exit.block, head, path)?, Signal::Entropy, *threshold)
            }
            Decision::Learned { head, threshold } => {
                let x = scope.get(self.attach.source, self.plan.places[place].cut, path)?;
                let length = self.attach.target.ty(x).dims[1].clone();
                let mut emit = self.emit(scope.region, path);
                let feature = text_feature(&mut emit, &options.span, &length, x)?;
                let misfit = || InsertError::Head {
                    head: head.name(),
                    block: exit.block,
                    reason: "a gate takes a linear or mlp head".into(),
                };
                let logits = head::on_feature(&mut emit, head, feature)?.ok_or_else(misfit)?;
                (logits, Signal::Class(1), *threshold)
            }
        };
        let mut emit = self.emit(scope.region, path);
        let confidence = signal::confidence(&mut emit, signal, logits)?;
        let threshold = emit.constant(Tensor::scalar(threshold));
        Ok(Some(emit.op("fires", Op::Greater {}, &[confidence, threshold])?))
    }

    /// Which rows' tokens leave. Whoever overrides a gate overrides no more than its own answer: a gate
    /// after another one is asked for the rows whose tokens are still there, and for no others.
    fn leave(
        &mut self,
        options: &TokenExits,
        number: usize,
        fires: ValueId,
        scope: &Scope,
        carry: &Carry,
        path: &str,
    ) -> Result<Leave, InsertError> {
        let gate = (self.first_gate + number) as i64;
        let Some(taken) = carry.token.filter(|_| number > 0) else { return Ok(Leave { mask: fires, gate }) };
        let mut emit = self.emit(scope.region, path);
        let none = emit.constant(Tensor::scalar(options.exits.len() as i64));
        let here = emit.op("still-there", Op::Equal {}, &[taken, none])?;

        let asked = self.region(&[fires]);
        let answers = [self.answer(&[], true, path)?, self.answer(&[], false, path)?];
        let ask = Op::Route { exit: -1, gate };
        let answer = self.emit(asked.id, path).control("ask", ask, &asked.params, answers.to_vec())?;
        self.attach.target.set_yields(asked.id, answer);
        let gone = self.answer(&[fires], false, path)?;
        let op = Op::Route { exit: -1, gate: -1 };
        let masks = self.emit(scope.region, path).control("leave", op, &[here, fires], vec![asked.id, gone])?;
        Ok(Leave { mask: masks[0], gate: -1 })
    }

    /// A region over some rows of `operands` that yields `answer` for each of them.
    fn answer(&mut self, operands: &[ValueId], answer: bool, path: &str) -> Result<RegionId, InsertError> {
        let region = self.region(operands);
        let rows = Dim::from(region.rows);
        let mask = self.emit(region.id, path).fill("answer", Tensor::scalar(u8::from(answer)), &rows)?;
        self.attach.target.set_yields(region.id, vec![mask]);
        Ok(region.id)
    }

    /// Shortens the sequence for all rows of `scope`.
    fn shorten_here(
        &mut self,
        place: usize,
        tokens: &Tokens,
        scope: &mut Scope,
        path: &str,
    ) -> Result<(), InsertError> {
        let place = &self.plan.places[place];
        let rows = scope.rows_dim(self.attach.structure);
        let values: Vec<ValueId> =
            place.outers.iter().map(|o| o.value).chain(place.tables.iter().copied()).chain([place.cut]).collect();
        let kept = kept_positions(&mut self.emit(scope.region, path), &tokens.span)?;
        for value in values {
            let axes = tokens.trace.axes(value);
            if !axes.is_empty() {
                let here = self.here(scope, value)?;
                let short = shorten(&mut self.emit(scope.region, path), here, axes, kept, &rows)?;
                scope.map.insert(value, short);
            }
        }
        scope.length = Some(Substitution { from: tokens.length.clone(), to: tokens.span.kept() });
        Ok(())
    }

    /// The counterpart of a source value, which may be a constant.
    fn here(&mut self, scope: &mut Scope, value: ValueId) -> Result<ValueId, InsertError> {
        match clone::counterpart(self.attach.source, self.attach.target, &mut scope.map, value) {
            Some(v) => Ok(v),
            None => scope.get(self.attach.source, value, "the rest"),
        }
    }

    /// Splits the rows by the mask, shortens some, and builds the rest over both.
    fn split(&mut self, tokens: &Tokens, exit: &TokenExit) -> Result<Results, InsertError> {
        let (place, path) = (&self.plan.places[exit.place], exit.path.as_str());
        let x = exit.scope.get(self.attach.source, place.cut, "the token exit")?;
        let packed = self.pack_all(place, exit.scope, path)?;
        let mut operands = vec![exit.leave.mask, x];
        operands.extend(exit.carry.values());
        operands.extend(packed.iter().map(|p| p.value));
        let mut outside = exit.scope.clone();
        let tables = place.tables.iter().map(|v| self.here(&mut outside, *v)).collect::<Result<Vec<_>, _>>()?;

        let then = self.region(&operands[1..]);
        let short = self.shortened(place, tokens, exit, &then, &packed, &tables)?;
        let other = self.region(&operands[1..]);
        let long: Vec<ValueId> = other.params.iter().chain(&tables).copied().collect();
        let join = self.join(&then, &short, &other, &long);
        self.attach.target.set_yields(then.id, short);
        self.attach.target.set_yields(other.id, long);

        let mut inner = self.inside(exit.scope, &join.region);
        inner.length = Some(Substitution { from: tokens.length.clone(), to: join.length });
        let params = &join.region.params;
        let carried = 1..1 + exit.carry.values().len();
        let outers = carried.end..carried.end + packed.len();
        inner.map.insert(place.cut, params[0]);
        self.unpack_all(place, exit.scope, &packed, &params[outers.clone()], &mut inner, path)?;
        inner.map.extend(place.tables.iter().copied().zip(params[outers.end..].iter().copied()));
        let kept = exit.carry.with(&params[carried]);
        let results = self.level(exit.place + 1, &mut inner, &kept)?;
        self.attach.target.set_yields(join.region.id, results);
        let op = Op::Route { exit: -1, gate: exit.leave.gate };
        let regions = vec![then.id, other.id, join.region.id];
        Ok(self.emit(exit.scope.region, path).control("leave-or-stay", op, &operands, regions)?)
    }

    /// What the region of the rows whose tokens leave yields: its parameters, then the tables, short.
    fn shortened(
        &mut self,
        place: &Place,
        tokens: &Tokens,
        exit: &TokenExit,
        then: &Region,
        packed: &[Packed],
        tables: &[ValueId],
    ) -> Result<Vec<ValueId>, InsertError> {
        let carried = exit.carry.values().len();
        let mut axes = vec![tokens.trace.axes(place.cut).to_vec()];
        axes.resize(1 + carried, Vec::new());
        for (outer, packed) in place.outers.iter().zip(packed) {
            axes.push(packed_axes(place, tokens, outer, packed)?);
        }
        axes.extend(place.tables.iter().map(|v| tokens.trace.axes(*v).to_vec()));
        let rows = Dim::from(then.rows.clone());
        let mut emit = self.emit(then.id, exit.path.as_str());
        let number = emit.fill("number", Tensor::scalar(exit.number as i64), &rows)?;
        let kept = kept_positions(&mut emit, &tokens.span)?;
        let mut short = Vec::with_capacity(axes.len());
        for (axes, value) in axes.iter().zip(then.params.iter().chain(tables)) {
            short.push(shorten(&mut emit, *value, axes, kept, &rows)?);
        }
        if carried > 0 {
            // The token exit is the last value that is carried.
            short[carried] = number;
        }
        Ok(short)
    }

    /// The region over both groups, with a parameter per value that they yield.
    fn join(&mut self, then: &Region, short: &[ValueId], other: &Region, long: &[ValueId]) -> Join {
        let (source, target) = (self.attach.source, &mut *self.attach.target);
        let [rows, length] = ["r", "t"].map(|prefix| clone::fresh_symbol(source, target, prefix));
        let id = target.new_join(Some(rows.clone()), Some(length.clone()));
        let length = Dim::from(length);
        let [a, b, c] = [&then.rows, &other.rows, &rows].map(|s| Dim::from(s.clone()));
        let mut params = Vec::with_capacity(short.len());
        for (x, y) in short.iter().zip(long) {
            let ty = joined(target, *x, *y, [&a, &b, &c], &length);
            params.push(target.add_param(id, ty));
        }
        Join { region: Region { id, params, rows }, length }
    }
}

/// The region after a token exit, and the length of the sequence in it.
struct Join {
    region: Region,
    length: Dim,
}

/// Where a packed value holds the sequence. One with others before its rows cannot be shortened.
fn packed_axes(place: &Place, tokens: &Tokens, outer: &Outer, packed: &Packed) -> Result<Vec<Axis>, InsertError> {
    packed.axes(tokens.trace.axes(outer.value)).ok_or_else(|| InsertError::NotACandidate {
        what: "token exit",
        block: place.block,
        reason: format!("value {} holds the sequence, and the batch is not before all others in it", outer.value),
    })
}
