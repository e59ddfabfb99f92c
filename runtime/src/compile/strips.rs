//! Precompiled functions of many values at once. Cranelift's vectors have four lanes and a call costs as
//! much as several of them, so the vector axis is walked in strips: the arguments of a strip are written
//! to the stack, one call with the CPU's own vectors replaces them by results, and what needs the results
//! reads them from there.

use cranelift::codegen::ir::StackSlot;
use cranelift::prelude::types::{F32, F32X4, I64};
use cranelift::prelude::*;
use eec_ir::program::{Expr, ExprId};

use super::lanes::{Lanes, memory};
use super::loops::Emitter;
use super::plan::{Level, precompiled};
use crate::expr::operands;
use crate::kernels::math::Function;

/// Elements of a strip: a multiple of what the unrolled loops take in one step, so that cutting an axis
/// changes the order of no sum.
const STRIP: i64 = 256;

/// Functions of a loop that get a strip of their own at most, so that the stack stays small; others are
/// called for every vector.
const MAX_STRIPS: usize = 32;

/// The strip that is being walked.
pub(super) struct Strip {
    /// Its first index on the vector axis.
    start: Value,
    /// Per expression whether a call has computed it.
    known: Vec<bool>,
}

/// A precompiled function in a loop.
#[derive(Clone, Copy)]
struct Call {
    id: usize,
    function: Function,
    argument: ExprId,
}

/// One step over a part of the vector axis: from, limit, and the carried values.
type PartBody<'f, E> = dyn FnMut(&mut E, Value, Value, Vec<Value>) -> Vec<Value> + 'f;

impl Emitter<'_, '_> {
    /// Replaces `len` floats of a slot by the function of them.
    fn apply(&mut self, function: Function, slot: StackSlot, len: Value) {
        let function = self.b.ins().iconst(I64, function as i64);
        let address = self.b.ins().stack_addr(I64, slot, 0);
        self.call_runtime(self.imports.apply, &[function, address, len]);
    }

    /// A slot for `len` floats.
    fn slot(&mut self, len: i64) -> StackSlot {
        self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 4 * len as u32, 4))
    }

    /// A function of the one or four values that are being computed.
    pub(super) fn precompiled(&mut self, function: Function, x: Value) -> Value {
        let (ty, len) = if self.wide { (F32X4, 4) } else { (F32, 1) };
        let slot = match self.vector_slot {
            Some(slot) => slot,
            None => self.slot(4),
        };
        self.vector_slot = Some(slot);
        self.b.ins().stack_store(I64, x, slot, 0);
        let len = self.b.ins().iconst(I64, len);
        self.apply(function, slot, len);
        self.b.ins().stack_load(I64, ty, slot, 0)
    }

    /// The value of an expression that a call has computed for the strip.
    pub(super) fn strip_value(&mut self, id: usize) -> Option<Lanes> {
        let strip = self.strip.as_ref()?;
        let (known, start) = (strip.known[id], strip.start);
        let slot = self.slots[id].filter(|_| known)?;
        let address = self.strip_address(slot, start);
        Some(if self.wide {
            Lanes::Wide(self.b.ins().load(F32X4, memory(), address, 0))
        } else {
            Lanes::One(self.b.ins().load(F32, memory(), address, 0))
        })
    }

    /// Whether a call has computed the expression for the strip.
    pub(super) fn in_strip(&self, id: usize) -> bool {
        self.strip.as_ref().is_some_and(|s| s.known[id])
    }

    /// Where a strip's values for the current index are.
    fn strip_address(&mut self, slot: StackSlot, start: Value) -> Value {
        let at = self.at[self.plan.vector];
        let index = self.b.ins().isub(at, start);
        let bytes = self.b.ins().ishl_imm_u(index, 2);
        let base = self.b.ins().stack_addr(I64, slot, 0);
        self.b.ins().iadd(base, bytes)
    }

    /// The precompiled functions that `roots` need along the vector axis, arguments first.
    fn calls(&self, roots: &[ExprId]) -> Vec<Call> {
        let exprs = &self.code.body.exprs;
        let mut needed = vec![false; exprs.len()];
        roots.iter().for_each(|r| needed[r.0 as usize] = true);
        for id in (0..needed.len()).rev().filter(|id| self.plan.places[*id].varies) {
            if needed[id] {
                operands(&exprs[id], &mut |o| needed[o.0 as usize] = true);
            }
        }
        let call = |id: usize| match exprs[id] {
            Expr::Unary(f, argument) => precompiled(f).map(|function| Call { id, function, argument }),
            _ => None,
        };
        let varies = |id: &usize| needed[*id] && self.plan.places[*id].varies;
        let mut free = MAX_STRIPS.saturating_sub(self.slots.iter().flatten().count());
        let mut has_slot = |call: &Call| {
            let known = self.slots[call.id].is_some();
            let fits = known || free > 0;
            free -= usize::from(fits && !known);
            fits
        };
        (0..exprs.len()).filter(varies).filter_map(call).filter(&mut has_slot).collect()
    }

    /// Walks `from..limit` of the vector axis: as a whole, or in strips if `roots` need precompiled
    /// functions along it. Values at `level` are computed anew for every index.
    pub(super) fn strips(
        &mut self,
        roots: &[ExprId],
        level: Level,
        [from, limit]: [Value; 2],
        carried: Vec<Value>,
        body: &mut PartBody<'_, Self>,
    ) -> Vec<Value> {
        let calls = self.calls(roots);
        if calls.is_empty() || !self.plan.wide {
            return body(self, from, limit, carried);
        }
        let (inside, after) = (self.b.create_block(), self.b.create_block());
        self.b.append_block_param(inside, I64);
        for value in &carried {
            let ty = self.b.func.dfg.value_type(*value);
            self.b.append_block_param(inside, ty);
            self.b.append_block_param(after, ty);
        }
        let args = |first: Option<Value>, rest: &[Value]| -> Vec<_> {
            first.iter().chain(rest).map(|v| (*v).into()).collect()
        };
        let any = self.b.ins().icmp(IntCC::SignedLessThan, from, limit);
        self.b.ins().brif(any, inside, &args(Some(from), &carried), after, &args(None, &carried));
        self.b.switch_to_block(inside);
        let params = self.b.block_params(inside).to_vec();
        let start = params[0];
        let end = self.b.ins().iadd_imm_s(start, STRIP);
        let end = self.b.ins().smin(end, limit);
        let outside = self.strip.replace(Strip { start, known: vec![false; self.code.body.exprs.len()] });
        for call in calls {
            self.call(call, level, [start, end]);
        }
        let carried = body(self, start, end, params[1..].to_vec());
        self.strip = outside;
        let more = self.b.ins().icmp(IntCC::SignedLessThan, end, limit);
        self.b.ins().brif(more, inside, &args(Some(end), &carried), after, &args(None, &carried));
        self.b.switch_to_block(after);
        self.b.block_params(after).to_vec()
    }

    /// Computes a call for the strip's indices, unless the pass before over the same row has left it there:
    /// a row that is one strip is computed once.
    fn call(&mut self, call: Call, level: Level, range: [Value; 2]) {
        let one_row = level == Level::Inner && self.plan.outer + 1 == self.plan.axes.len();
        let known = self.slots[call.id];
        let slot = match known {
            Some(slot) => slot,
            None => self.slot(STRIP),
        };
        self.slots[call.id] = Some(slot);
        if known.is_some() && one_row {
            let (again, after) = (self.b.create_block(), self.b.create_block());
            let extent = self.extent(self.plan.vector);
            let cut = self.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, extent, STRIP);
            self.b.ins().brif(cut, again, &[], after, &[]);
            self.b.switch_to_block(again);
            self.fill(call, slot, level, range);
            self.b.ins().jump(after, &[]);
            self.b.switch_to_block(after);
        } else {
            self.fill(call, slot, level, range);
        }
        if let Some(strip) = &mut self.strip {
            strip.known[call.id] = true;
        }
    }

    /// Writes a call's arguments for the strip's indices to a slot, and replaces them by results.
    fn fill(&mut self, call: Call, slot: StackSlot, level: Level, [start, end]: [Value; 2]) {
        let mut from = start;
        for wide in [true, false] {
            let step = if wide { 4 } else { 1 };
            (from, _) = self.count(from, end, step, Vec::new(), &mut |e, index, _| {
                e.at[e.plan.vector] = index;
                e.wide = wide;
                e.clear(level);
                e.ensure(&[call.argument], level);
                let (x, address) = (e.one(call.argument), e.strip_address(slot, start));
                e.b.ins().store(memory(), x, address, 0);
                e.clear(level);
                e.wide = false;
                Vec::new()
            });
        }
        let len = self.b.ins().isub(end, start);
        self.apply(call.function, slot, len);
    }
}
