//! Code for the control steps: branches, routes that split rows and put results together, loops, and sizes that data
//! decides.

use cranelift::prelude::types::{I8, I64};
use cranelift::prelude::*;
use eec_ir::BufferId;
use eec_ir::dim::Symbol;
use eec_ir::program::{BlockId, Decision, IfStep, Join, RepeatStep, RouteStep, RowBuffer, SizeStep};

use super::entry::Entry;
use super::lanes::memory;
use crate::call::{AUTO, NEVER};
use crate::context::{Fault, field};

/// The rows of a route: the mask, how many there are, and how many go to each side.
#[derive(Clone, Copy)]
struct Rows {
    mask: Value,
    all: Value,
    taken: Value,
    rest: Value,
}

/// What a route's rows do, as mask values: go to `then`, or to `else`.
const THEN: i64 = 1;
const ELSE: i64 = 0;

impl Entry<'_, '_> {
    /// The position of a decision among the exits and then the gates.
    fn position(&self, decision: Decision) -> Option<usize> {
        match decision {
            Decision::None => None,
            Decision::Exit(exit) => Some(exit as usize),
            Decision::Gate(gate) => Some(self.program.exits.len() + gate as usize),
        }
    }

    /// The control word of a decision.
    fn control(&mut self, decision: Decision) -> Value {
        match self.position(decision) {
            Some(at) => self.b.ins().load(I64, memory(), self.tables.controls, (at * 8) as i32),
            None => self.number(AUTO),
        }
    }

    fn count_rows(&mut self, decision: Decision, rows: Value) {
        if let Some(at) = self.position(decision) {
            self.count(1 + at, rows);
        }
    }

    pub(super) fn branch(&mut self, step: &IfStep) {
        let program = self.program;
        let holds = self.truth(step.condition);
        let control = self.control(step.decision);
        let automatic = self.b.ins().icmp_imm_s(IntCC::Equal, control, AUTO);
        let forced = self.b.ins().icmp_imm_s(IntCC::NotEqual, control, NEVER);
        let taken = self.b.ins().select(automatic, holds, forced);
        let one = self.b.ins().uextend(I64, taken);
        self.count_rows(step.decision, one);
        let [then, other, after] = [0; 3].map(|_| self.b.create_block());
        self.b.ins().brif(taken, then, &[], other, &[]);
        for (block, id) in [(then, step.then), (other, step.other)] {
            self.b.switch_to_block(block);
            self.block(id);
            self.alias(&step.results, &program.block(id).yields);
            self.b.ins().jump(after, &[]);
        }
        self.b.switch_to_block(after);
    }

    /// Whether the one element of a `Bool` buffer is true.
    fn truth(&mut self, id: BufferId) -> Value {
        let condition = self.pointer(id);
        let byte = self.b.ins().load(I8, memory(), condition, 0);
        self.b.ins().icmp_imm_s(IntCC::NotEqual, byte, 0)
    }

    /// A number becomes the size that a symbol stands for, if it is one.
    pub(super) fn late(&mut self, step: &SizeStep) {
        let from = self.pointer(step.value);
        let value = self.b.ins().load(I64, memory(), from, 0);
        let most = self.size(&step.most);
        // As an unsigned number, one below zero is larger than any size.
        let fits = self.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, value, most);
        let slot = self.symbols.get(&step.symbol).copied().unwrap_or_default();
        // The error of a number that does not fit says which it is.
        self.bind(Some(&step.symbol), value);
        self.leave_unless(fits, Fault::Size, slot);
        for (a, b) in &step.equal {
            let (a, b) = (self.size(a), self.size(b));
            let equal = self.b.ins().icmp(IntCC::Equal, a, b);
            self.leave_unless(equal, Fault::Unequal, slot);
        }
    }

    /// Ends the run with a fault unless `holds`.
    fn leave_unless(&mut self, holds: Value, fault: Fault, number: usize) {
        let [fails, goes_on] = [0; 2].map(|_| self.b.create_block());
        self.b.ins().brif(holds, goes_on, &[], fails, &[]);
        self.b.switch_to_block(fails);
        let code = self.number((fault as i64) << 32 | number as i64);
        self.b.ins().store(memory(), code, self.tables.context, field::ERROR);
        self.b.ins().jump(self.tables.leave, &[]);
        self.b.switch_to_block(goes_on);
    }

    /// A loop. A result stands for what is carried: at first for what the loop was given, then in turn for
    /// its own memory and the parameter's, so that a step reads one while the next one's is written.
    pub(super) fn repeat(&mut self, step: &RepeatStep) {
        let program = self.program;
        let block = program.block(step.body);
        let limit = match &step.trips {
            Some(trips) => self.size(trips),
            None => self.number(i64::MAX),
        };
        let first = match step.condition {
            Some(condition) => self.truth(condition),
            None => self.b.ins().iconst(I8, 1),
        };
        self.alias(&step.results, &step.carried);
        for row in &step.rows {
            self.own(row.buffer);
        }
        let [check, turn, count, after] = [0; 4].map(|_| self.b.create_block());
        let (number, goes_on) = (self.b.append_block_param(check, I64), self.b.append_block_param(check, I8));
        let zero = self.number(0);
        self.b.ins().jump(check, &[zero.into(), first.into()]);

        self.b.switch_to_block(check);
        let in_range = self.b.ins().icmp(IntCC::SignedLessThan, number, limit);
        let runs = self.b.ins().band(in_range, goes_on);
        let made = self.b.append_block_param(after, I64);
        self.b.ins().brif(runs, turn, &[], after, &[number.into()]);
        self.b.switch_to_block(turn);
        // What a kernel that failed leaves may let a loop go on for long.
        let fault = self.b.ins().load(I64, memory(), self.tables.context, field::ERROR);
        self.b.ins().brif(fault, self.tables.leave, &[], count, &[]);
        self.b.switch_to_block(count);
        let left = self.b.ins().load(I64, memory(), self.tables.context, field::STEPS);
        let fewer = self.b.ins().iadd_imm_s(left, -1);
        self.b.ins().store(memory(), fewer, self.tables.context, field::STEPS);
        self.leave_unless(left, Fault::Steps, step.body.0 as usize);
        let (first, params) = block.params.split_first().map_or((None, &[][..]), |(n, rest)| (*n, rest));
        if let Some(id) = first {
            let place = self.pointer(id);
            self.b.ins().store(memory(), number, place, 0);
        }
        let used = params.iter().zip(&step.results).filter_map(|(p, r)| Some(((*p)?, *r)));
        let (names, targets): (Vec<_>, Vec<_>) = used.unzip();
        self.alias(&names, &targets);
        self.block(step.body);
        let next = match step.condition {
            Some(_) => self.truth(block.yields[0]),
            None => self.b.ins().iconst(I8, 1),
        };
        self.carry_on(step, params, number);
        let number = self.b.ins().iadd_imm_s(number, 1);
        self.b.ins().jump(check, &[number.into(), next.into()]);
        self.b.switch_to_block(after);
        if step.condition.is_some() {
            let left = self.b.ins().isub(limit, made);
            step.rows.iter().for_each(|row| self.clear(row, made, left));
        }
    }

    /// Makes `count` rows from `first` on zeros; none if it is negative.
    fn clear(&mut self, row: &RowBuffer, first: Value, count: Value) {
        let (base, bytes) = (self.pointer(row.buffer), self.row_bytes(row));
        let before = self.b.ins().imul(first, bytes);
        let (to, size) = (self.b.ins().iadd(base, before), self.b.ins().imul(count, bytes));
        self.call(self.helpers.zero_bytes, &[to, size]);
    }

    /// Puts what step `number` of a loop yielded where the next step, and what follows the loop, read it.
    fn carry_on(&mut self, step: &RepeatStep, params: &[Option<BufferId>], number: Value) {
        let program = self.program;
        let given = &program.block(step.body).yields[usize::from(step.condition.is_some())..];
        let mut next = Vec::with_capacity(step.results.len());
        for ((result, param), given) in step.results.iter().zip(params).zip(given) {
            let mut to = self.home(*result);
            if let Some(param) = param {
                let (other, now) = (self.home(*param), self.pointer(*result));
                let taken = self.b.ins().icmp(IntCC::Equal, now, to);
                to = self.b.ins().select(taken, other, to);
            }
            let buffer = program.buffer(*result);
            let (from, elements) = (self.pointer(*given), self.size(&buffer.len));
            let bytes = self.b.ins().imul_imm_s(elements, buffer.dtype.size() as i64);
            self.call(self.helpers.copy_bytes, &[to, from, bytes]);
            next.push((*result, to));
        }
        for (row, given) in step.rows.iter().zip(&given[step.results.len()..]) {
            let (first, from, bytes) = (self.pointer(row.buffer), self.pointer(*given), self.row_bytes(row));
            let before = self.b.ins().imul(number, bytes);
            let to = self.b.ins().iadd(first, before);
            self.call(self.helpers.copy_bytes, &[to, from, bytes]);
        }
        next.into_iter().for_each(|(result, to)| self.set_pointer(result, to));
    }

    /// Makes every buffer of `names` stand for the one of `targets`.
    fn alias(&mut self, names: &[BufferId], targets: &[BufferId]) {
        let targets: Vec<Value> = targets.iter().map(|t| self.pointer(*t)).collect();
        names.iter().zip(targets).for_each(|(name, target)| self.set_pointer(*name, target));
    }

    /// Makes a buffer stand for itself again, which in a join or a loop may have stood for another one the
    /// time before; gives its first byte.
    fn own(&mut self, id: BufferId) -> Value {
        let home = self.home(id);
        self.set_pointer(id, home);
        home
    }

    /// The first byte of a buffer's own memory.
    fn home(&mut self, id: BufferId) -> Value {
        self.b.ins().load(I64, memory(), self.tables.homes, (id.index() * 8) as i32)
    }

    /// Splits the rows. Each block is emitted once, and run on all rows in place or on its gathered ones.
    pub(super) fn route(&mut self, step: &RouteStep) {
        let all = self.size(&step.rows);
        let (mask, control) = (self.pointer(step.mask), self.control(step.decision));
        let taken = self.call_for(self.helpers.count_rows, &[mask, all, control]);
        self.count_rows(step.decision, taken);
        let rest = self.b.ins().isub(all, taken);
        let rows = Rows { mask, all, taken, rest };
        let after = self.b.create_block();
        match &step.join {
            Some(join) => self.joined(step, join, rows, after),
            None => self.split(step, rows, after),
        }
        self.b.switch_to_block(after);
    }

    /// A route whose blocks yield its results; ends in `after`.
    fn split(&mut self, step: &RouteStep, rows: Rows, after: Block) {
        let program = self.program;
        let [then, then_done, other, mixed] = [0; 4].map(|_| self.b.create_block());
        let [all_then, all_other] = [0; 2].map(|_| self.b.create_block());
        let results: Vec<BufferId> = step.results.iter().map(|r| r.buffer).collect();

        self.b.ins().brif(rows.taken, then, &[], then_done, &[]);
        self.b.switch_to_block(then);
        self.side(step, step.then, rows, rows.taken, THEN);
        self.b.ins().brif(rows.rest, then_done, &[], all_then, &[]);
        self.b.switch_to_block(all_then);
        self.alias(&results, &program.block(step.then).yields);
        self.b.ins().jump(after, &[]);

        self.b.switch_to_block(then_done);
        self.b.ins().brif(rows.rest, other, &[], after, &[]);
        self.b.switch_to_block(other);
        self.side(step, step.other, rows, rows.rest, ELSE);
        self.b.ins().brif(rows.taken, mixed, &[], all_other, &[]);
        self.b.switch_to_block(all_other);
        self.alias(&results, &program.block(step.other).yields);
        self.b.ins().jump(after, &[]);

        self.b.switch_to_block(mixed);
        for (id, wanted) in [(step.then, THEN), (step.other, ELSE)] {
            let wanted = self.number(wanted);
            self.scatter(step, id, rows, wanted);
        }
        self.b.ins().jump(after, &[]);
    }

    /// A route whose blocks are followed by a join, which both enter with the side as parameter; ends
    /// in `after`. If there are rows on both sides, the join runs twice and its results are written to
    /// their rows after each time.
    fn joined(&mut self, step: &RouteStep, join: &Join, rows: Rows, after: Block) {
        let program = self.program;
        let [then, then_done, other, body, whole, part] = [0; 6].map(|_| self.b.create_block());
        let side = self.b.append_block_param(body, I64);

        self.b.ins().brif(rows.taken, then, &[], then_done, &[]);
        self.b.switch_to_block(then);
        self.side(step, step.then, rows, rows.taken, THEN);
        self.enter(step.then, join, rows.taken, THEN, body);

        self.b.switch_to_block(then_done);
        self.b.ins().brif(rows.rest, other, &[], after, &[]);
        self.b.switch_to_block(other);
        self.side(step, step.other, rows, rows.rest, ELSE);
        self.enter(step.other, join, rows.rest, ELSE, body);

        self.b.switch_to_block(body);
        self.block(join.block);
        let two_sides = self.b.ins().select(rows.taken, rows.rest, rows.taken);
        self.b.ins().brif(two_sides, part, &[], whole, &[]);
        self.b.switch_to_block(whole);
        let results: Vec<BufferId> = step.results.iter().map(|r| r.buffer).collect();
        self.alias(&results, &program.block(join.block).yields);
        self.b.ins().jump(after, &[]);

        self.b.switch_to_block(part);
        self.scatter(step, join.block, rows, side);
        self.b.ins().brif(side, then_done, &[], after, &[]);
    }

    /// Goes from the end of `from` into the join, on its `count` rows.
    fn enter(&mut self, from: BlockId, join: &Join, count: Value, side: i64, body: Block) {
        let program = self.program;
        let block = program.block(join.block);
        let pairs = block.params.iter().zip(&program.block(from).yields);
        let (params, given): (Vec<_>, Vec<_>) = pairs.filter_map(|(p, y)| Some(((*p)?, *y))).unzip();
        self.alias(&params, &given);
        if let Some(length) = &join.length {
            let value = self.size(if side == THEN { &length.then } else { &length.other });
            self.bind(Some(&length.symbol), value);
        }
        self.bind(block.rows.as_ref(), count);
        let side = self.number(side);
        self.b.ins().jump(body, &[side.into()]);
    }

    /// Gives a symbol its value.
    fn bind(&mut self, symbol: Option<&Symbol>, value: Value) {
        if let Some(slot) = symbol.and_then(|s| self.symbols.get(s)) {
            self.b.ins().store(memory(), value, self.tables.symbols, (*slot * 8) as i32);
        }
    }

    /// One block of a route on `count` of the rows: those whose mask is `wanted`.
    fn side(&mut self, step: &RouteStep, id: BlockId, rows: Rows, count: Value, wanted: i64) {
        let program = self.program;
        let block = program.block(id);
        let used: Vec<(BufferId, &RowBuffer)> =
            block.params.iter().zip(&step.operands).filter_map(|(p, o)| Some(((*p)?, o))).collect();
        let [whole, part, start] = [0; 3].map(|_| self.b.create_block());
        let all = self.b.ins().icmp(IntCC::Equal, count, rows.all);
        self.b.ins().brif(all, whole, &[], part, &[]);
        self.b.switch_to_block(whole);
        let (params, operands): (Vec<_>, Vec<_>) = used.iter().map(|(p, o)| (*p, o.buffer)).unzip();
        self.alias(&params, &operands);
        self.b.ins().jump(start, &[]);
        self.b.switch_to_block(part);
        let wanted = self.number(wanted);
        for (param, operand) in used {
            let (to, from, bytes) = (self.own(param), self.pointer(operand.buffer), self.row_bytes(operand));
            self.call(self.helpers.gather_rows, &[to, from, rows.mask, rows.all, bytes, wanted]);
        }
        self.b.ins().jump(start, &[]);
        self.b.switch_to_block(start);
        self.bind(block.rows.as_ref(), count);
        self.block(id);
    }

    fn row_bytes(&mut self, rows: &RowBuffer) -> Value {
        let elements = self.size(&rows.row);
        self.b.ins().imul_imm_s(elements, self.program.buffer(rows.buffer).dtype.size() as i64)
    }

    /// Writes what the block `from` yielded to the results' rows whose mask is `wanted`.
    fn scatter(&mut self, step: &RouteStep, from: BlockId, rows: Rows, wanted: Value) {
        let program = self.program;
        for (result, given) in step.results.iter().zip(&program.block(from).yields) {
            let given = self.pointer(*given);
            let (to, bytes) = (self.own(result.buffer), self.row_bytes(result));
            self.call(self.helpers.scatter_rows, &[to, given, rows.mask, rows.all, bytes, wanted]);
        }
    }
}
