//! Rules 1 to 4 and 10 of control steps: which blocks they run, under which symbols, on which buffers, and what they bind.

use super::Verifier;
use crate::dim::Symbol;
use crate::entity::BufferId;
use crate::program::{Block, BlockId, Decision, IfStep, Join, Length, RepeatStep, RouteStep, SizeStep, Source};
use crate::types::DType;

impl Verifier<'_> {
    /// The block `id` as a child of `owner`.
    fn child(&mut self, place: &str, owner: BlockId, id: BlockId) -> Option<&Block> {
        let program = self.program;
        let Some(block) = program.blocks.get(id.0 as usize) else {
            self.report(place, format_args!("block {} of {} does not exist", id.0, program.blocks.len()));
            return None;
        };
        if id.0 <= owner.0 {
            self.report(place, format_args!("block {} is not after its owner {}", id.0, owner.0));
            return None;
        }
        if !self.owned.insert(id.0) {
            self.report(place, format_args!("block {} has two owners", id.0));
            return None;
        }
        Some(block)
    }

    fn decision(&mut self, place: &str, decision: Decision) {
        let (kind, number, count) = match decision {
            Decision::None => return,
            Decision::Exit(exit) => ("exit", exit, self.program.exits.len()),
            Decision::Gate(gate) => ("gate", gate, self.program.gates.len()),
        };
        if number as usize >= count {
            self.report(place, format_args!("{kind} {number} of {count} does not exist"));
        }
    }

    pub(super) fn branch(&mut self, place: &str, owner: BlockId, step: &IfStep, depth: usize) {
        let program = self.program;
        self.decision(place, step.decision);
        self.expect_dtype(place, step.condition, DType::Bool);
        for result in &step.results {
            self.expect_source(place, *result, Source::Result);
        }
        for id in [step.then, step.other] {
            if self.child(place, owner, id).is_none() {
                continue;
            }
            let block = program.block(id);
            if block.rows.is_some() || !block.params.is_empty() {
                self.report(place, format_args!("block {} of an if takes no parameters and no rows", id.0));
            }
            self.yields(place, id, block, step.results.iter().copied());
            self.nested(id, block, depth);
        }
    }

    pub(super) fn route(&mut self, place: &str, owner: BlockId, step: &RouteStep, depth: usize) {
        let program = self.program;
        self.decision(place, step.decision);
        self.dim(place, &step.rows);
        self.expect_dtype(place, step.mask, DType::Bool);
        for operand in &step.operands {
            self.buffer(place, operand.buffer);
            self.dim(place, &operand.row);
        }
        for result in &step.results {
            self.expect_source(place, result.buffer, Source::Result);
            self.dim(place, &result.row);
        }
        for id in [step.then, step.other] {
            if self.child(place, owner, id).is_none() {
                continue;
            }
            let block = program.block(id);
            self.params(place, id, block, &step.operands.iter().map(|o| o.buffer).collect::<Vec<_>>());
            if step.join.is_none() {
                self.yields(place, id, block, step.results.iter().map(|r| r.buffer));
            }
            self.inside(place, id, block, None, depth);
        }
        if let Some(join) = &step.join {
            self.join(place, owner, step, join, depth);
        }
    }

    fn join(&mut self, place: &str, owner: BlockId, step: &RouteStep, join: &Join, depth: usize) {
        let program = self.program;
        if let Some(length) = &join.length {
            self.dims(place, [&length.then, &length.other]);
        }
        if self.child(place, owner, join.block).is_none() {
            return;
        }
        let block = program.block(join.block);
        for id in [step.then, step.other] {
            if let Some(before) = program.blocks.get(id.0 as usize) {
                self.params(place, join.block, block, &before.yields);
            }
        }
        self.yields(place, join.block, block, step.results.iter().map(|r| r.buffer));
        self.inside(place, join.block, block, join.length.as_ref(), depth);
    }

    pub(super) fn repeat(&mut self, place: &str, owner: BlockId, step: &RepeatStep, depth: usize) {
        let program = self.program;
        if step.trips.is_none() && step.condition.is_none() {
            self.report(place, "nothing ends the loop");
        }
        if !step.rows.is_empty() && step.trips.is_none() {
            self.report(place, "nothing bounds the number of the loop's rows");
        }
        self.dims(place, step.trips.iter().chain(step.rows.iter().map(|row| &row.row)));
        step.condition.iter().for_each(|id| self.expect_dtype(place, *id, DType::Bool));
        for result in step.results.iter().chain(step.rows.iter().map(|row| &row.buffer)) {
            self.expect_source(place, *result, Source::Result);
        }
        if step.results.len() != step.carried.len() {
            let (found, expected) = (step.results.len(), step.carried.len());
            self.report(place, format_args!("the loop has {found} results for {expected} buffers that it carries"));
        }
        for (result, given) in step.results.iter().zip(&step.carried) {
            if let Some(dtype) = self.buffer(place, *given).map(|b| b.dtype) {
                self.expect_dtype(place, *result, dtype);
            }
        }
        if self.child(place, owner, step.body).is_none() {
            return;
        }
        let block = program.block(step.body);
        if block.rows.is_some() {
            self.report(place, format_args!("block {} of a loop has no rows", step.body.0));
        }
        let rest = block.params.get(1..).unwrap_or_default();
        match block.params.first() {
            Some(number) => number.iter().for_each(|id| self.expect_dtype(place, *id, DType::I64)),
            None => self.report(place, format_args!("block {} of a loop takes no number", step.body.0)),
        }
        self.takes(place, step.body, rest, &step.carried);
        let rows = step.rows.iter().map(|row| row.buffer);
        let all: Vec<BufferId> = step.condition.into_iter().chain(step.results.iter().copied()).chain(rows).collect();
        self.yields(place, step.body, block, all.into_iter());
        self.nested(step.body, block, depth);
    }

    /// Checks a block whose symbols end with it.
    fn nested(&mut self, id: BlockId, block: &Block, depth: usize) {
        let outside = self.scope.clone();
        self.block(id, block, depth + 1);
        self.scope = outside;
    }

    /// A step that binds a symbol for what follows.
    pub(super) fn late(&mut self, place: &str, step: &SizeStep) {
        self.expect_dtype(place, step.value, DType::I64);
        self.dim(place, &step.most);
        self.bind(place, &step.symbol);
        self.dims(place, step.equal.iter().flat_map(|(a, b)| [a, b]));
    }

    fn bind(&mut self, place: &str, symbol: &Symbol) {
        if !self.bound.insert(symbol.clone()) {
            self.report(place, format_args!("symbol {symbol} is bound twice"));
        }
        self.scope.insert(symbol.clone());
    }

    /// Checks a block of a route under the symbols that it binds.
    fn inside(&mut self, place: &str, id: BlockId, block: &Block, length: Option<&Length>, depth: usize) {
        let outside = self.scope.clone();
        if block.rows.is_none() {
            self.report(place, format_args!("block {} of a route has no symbol for its rows", id.0));
        }
        for symbol in block.rows.iter().chain(length.map(|l| &l.symbol)) {
            self.bind(place, symbol);
        }
        self.block(id, block, depth + 1);
        self.scope = outside;
    }

    /// Checks the parameters of a block that takes these buffers.
    fn params(&mut self, place: &str, id: BlockId, block: &Block, operands: &[BufferId]) {
        self.takes(place, id, &block.params, operands);
    }

    /// Checks these parameters of the block `id` against what they are given.
    fn takes(&mut self, place: &str, id: BlockId, params: &[Option<BufferId>], operands: &[BufferId]) {
        if params.len() != operands.len() {
            let (found, expected) = (params.len(), operands.len());
            return self.report(place, format_args!("block {} takes {found} parameters, expected {expected}", id.0));
        }
        for (param, operand) in params.iter().zip(operands) {
            if let (Some(param), Some(dtype)) = (param, self.buffer(place, *operand).map(|b| b.dtype)) {
                self.expect_dtype(place, *param, dtype);
            }
        }
    }

    fn yields(&mut self, place: &str, id: BlockId, block: &Block, results: impl ExactSizeIterator<Item = BufferId>) {
        if block.yields.len() != results.len() {
            let (found, expected) = (block.yields.len(), results.len());
            return self.report(place, format_args!("block {} yields {found} buffers, expected {expected}", id.0));
        }
        for (given, result) in block.yields.iter().zip(results) {
            if let Some(dtype) = self.buffer(place, result).map(|b| b.dtype) {
                self.expect_dtype(place, *given, dtype);
            }
        }
    }
}
