//! Code for a loop: `fn(args, begin, end)` over a range of its outer index space.
//!
//! With a vector axis among the outer ones the range counts all outer indices, and the body is
//! emitted twice, for four neighbours and for one. With a reduced vector axis it counts rows.
//! Either way the order of every reduction depends on its length alone, and a value on its index
//! alone, not on where a range begins.

use std::collections::HashMap;

use cranelift::codegen::ir::{Inst, StackSlot};
use cranelift::prelude::types::I64;
use cranelift::prelude::*;
use eec_ir::dim::Dim;
use eec_ir::program::{ExprId, Per};

use super::callee::{Callee, constant};
use super::lanes::Lanes;
use super::math::Math;
use super::plan::{Level, LoopCode, Plan, for_each_dim};
use super::size;
use super::strips::Strip;
use crate::context::field;
use crate::expr::operands;

/// Position of the context's address among the arguments.
pub(crate) const ARG_CONTEXT: usize = 0;
/// Position of the number that errors carry.
pub(crate) const ARG_KERNEL: usize = 1;
/// Position of the first buffer: inputs, then stores, then the values of the symbols.
pub(crate) const ARG_BUFFERS: usize = 2;

/// The runtime's functions that loops call.
#[derive(Clone, Copy)]
pub(super) struct Imports {
    pub(super) sin: Callee,
    pub(super) cos: Callee,
    pub(super) pow: Callee,
    pub(super) apply: Callee,
}

/// The state of emitting one loop.
pub(super) struct Emitter<'a, 'b> {
    pub(super) b: &'a mut FunctionBuilder<'b>,
    pub(super) code: &'a LoopCode,
    pub(super) plan: &'a Plan,
    pub(super) imports: Imports,
    /// Whether the CPU has fused multiply-adds.
    pub(super) fused: bool,
    pub(super) args: Value,
    sizes: HashMap<Dim, Value>,
    /// First element of every view: inputs, then stores.
    bases: Vec<Value>,
    /// The same for the current row.
    rows: Vec<Value>,
    /// The current index along every axis.
    pub(super) at: Vec<Value>,
    /// Whether four neighbours are being computed.
    pub(super) wide: bool,
    pub(super) cache: Vec<Option<Lanes>>,
    pub(super) reduced: Vec<Lanes>,
    /// The part of the vector axis for which precompiled functions were called.
    pub(super) strip: Option<Strip>,
    /// Per expression where its values for a strip are.
    pub(super) slots: Vec<Option<StackSlot>>,
    /// Where a function gets the values that are being computed.
    pub(super) vector_slot: Option<StackSlot>,
}

/// A pass over the inner axes: called with the accumulator slot and the accumulators.
type InnerBody<'f, 'a, 'b> = dyn FnMut(&mut Emitter<'a, 'b>, usize, Vec<Value>) -> Vec<Value> + 'f;

/// One step of a counted loop: called with its index and the carried values.
type StepBody<'f, E> = dyn FnMut(&mut E, Value, Vec<Value>) -> Vec<Value> + 'f;

/// Emits the function's body into the builder's entry block, whose parameters are its arguments.
pub(super) fn emit(
    b: &mut FunctionBuilder<'_>,
    code: &LoopCode,
    plan: &Plan,
    imports: Imports,
    fused: bool,
    symbols: &[eec_ir::Symbol],
) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let params: Vec<Value> = b.block_params(entry).to_vec();
    let zero = b.ins().iconst(I64, 0);
    let mut emitter = Emitter {
        code,
        plan,
        imports,
        fused,
        args: params[0],
        sizes: HashMap::new(),
        bases: Vec::new(),
        rows: Vec::new(),
        at: vec![zero; plan.axes.len()],
        wide: false,
        cache: vec![None; code.body.exprs.len()],
        reduced: vec![Lanes::One(zero); code.body.reductions.len()],
        strip: None,
        slots: vec![None; code.body.exprs.len()],
        vector_slot: None,
        b,
    };
    emitter.prepare(symbols);
    emitter.rows(params[1], params[2]);
    emitter.b.ins().return_(&[]);
    emitter.b.seal_all_blocks();
}

impl<'a, 'b> Emitter<'a, 'b> {
    /// Loads an argument.
    pub(super) fn arg(&mut self, index: usize) -> Value {
        self.b.ins().load(I64, constant(), self.args, (index * 8) as i32)
    }

    /// Calls a function of the runtime.
    pub(super) fn call_runtime(&mut self, callee: Callee, args: &[Value]) -> Inst {
        let context = self.arg(ARG_CONTEXT);
        let callees = self.b.ins().load(I64, constant(), context, field::CALLEES);
        callee.call(self.b, callees, args)
    }

    /// Computes every size and the first element of every view once, in the entry block.
    fn prepare(&mut self, symbols: &[eec_ir::Symbol]) {
        let views = self.code.inputs.len() + self.code.stores.len();
        let values: Vec<Value> = (0..symbols.len()).map(|i| self.arg(ARG_BUFFERS + views + i)).collect();
        let by_name: HashMap<_, _> = symbols.iter().zip(values).collect();
        let zero = self.at[0];
        let mut all: Vec<Dim> = Vec::new();
        for_each_dim(&self.code.body, &mut |dim| all.push(dim.clone()));
        all.extend(self.plan.axes.iter().map(|a| a.extent.clone()));
        all.extend(self.plan.inputs.iter().chain(&self.plan.stores).flatten().cloned());
        for dim in all {
            if !self.sizes.contains_key(&dim) {
                let value = size::emit(self.b, &dim, &mut |_, s| by_name.get(s).copied().unwrap_or(zero));
                self.sizes.insert(dim, value);
            }
        }
        let body = &self.code.body;
        let views: Vec<_> = body.inputs.iter().chain(body.stores.iter().map(|s| &s.view)).collect();
        for (i, view) in views.into_iter().enumerate() {
            let base = self.arg(ARG_BUFFERS + i);
            let offset = self.size(&view.offset);
            let bytes = self.element_size(i);
            let bytes = self.b.ins().imul_imm_s(offset, bytes);
            let base = self.b.ins().iadd(base, bytes);
            self.bases.push(base);
        }
    }

    fn element_size(&self, view: usize) -> i64 {
        self.code.inputs.iter().chain(&self.code.stores).nth(view).map_or(1, |d| d.size() as i64)
    }

    /// The value of a size; all are computed at the start.
    pub(super) fn size(&mut self, dim: &Dim) -> Value {
        match self.sizes.get(dim) {
            Some(value) => *value,
            None => self.b.ins().iconst(I64, dim.as_const().unwrap_or(0)),
        }
    }

    pub(super) fn extent(&mut self, axis: usize) -> Value {
        let plan = self.plan;
        self.size(&plan.axes[axis].extent)
    }

    fn strides(&self, view: usize) -> &'a [Dim] {
        let plan = self.plan;
        plan.inputs.iter().chain(&plan.stores).nth(view).map_or(&[], Vec::as_slice)
    }

    /// `address` moved along `axis` by `index` elements' strides of `view`.
    fn moved(&mut self, address: Value, view: usize, axis: usize, index: Value) -> Value {
        let stride = &self.strides(view)[axis];
        if stride.as_const() == Some(0) {
            return address;
        }
        let stride = self.size(stride);
        let step = self.b.ins().imul(stride, index);
        let bytes = self.element_size(view);
        let bytes = self.b.ins().imul_imm_s(step, bytes);
        self.b.ins().iadd(address, bytes)
    }

    /// The address of a view's element at the current index.
    pub(super) fn address(&mut self, view: usize) -> Value {
        let mut address = self.rows[view];
        for axis in self.plan.row_axes().end..self.plan.axes.len() {
            let index = self.at[axis];
            address = self.moved(address, view, axis, index);
        }
        address
    }

    /// The address of a view's element for the current row.
    pub(super) fn row_address(&self, view: usize) -> Value {
        self.rows[view]
    }

    /// The address of the lane `lane` of a view whose first lane is at `address`.
    pub(super) fn lane_address(&mut self, address: Value, view: usize, lane: i64) -> Value {
        let index = self.b.ins().iconst(I64, lane);
        self.moved(address, view, self.plan.vector, index)
    }

    /// Whether neighbours along the vector axis are neighbours in memory.
    pub(super) fn is_contiguous(&self, view: usize) -> bool {
        self.strides(view)[self.plan.vector].as_const() == Some(1)
    }

    /// Forgets what was computed at `level` and inside it.
    pub(super) fn clear(&mut self, level: Level) {
        for (slot, place) in self.cache.iter_mut().zip(&self.plan.places) {
            if place.level >= level {
                *slot = None;
            }
        }
    }

    /// Computes what `roots` need, as far as it belongs to `level` or outside it.
    pub(super) fn ensure(&mut self, roots: &[ExprId], level: Level) {
        let mut needed = vec![false; self.code.body.exprs.len()];
        roots.iter().for_each(|r| needed[r.0 as usize] = true);
        for id in (0..needed.len()).rev() {
            if needed[id] && self.cache[id].is_none() && !self.in_strip(id) {
                operands(&self.code.body.exprs[id], &mut |o| needed[o.0 as usize] = true);
            }
        }
        for id in (0..needed.len()).filter(|id| needed[*id]) {
            let place = self.plan.places[id];
            if place.level <= level && self.cache[id].is_none() {
                let outside = self.wide;
                self.wide = outside && place.varies;
                let value = self.strip_value(id).unwrap_or_else(|| self.expr(id));
                self.wide = outside;
                self.cache[id] = Some(value);
            }
        }
    }

    /// Counts from `start` while a whole `step` fits below `limit`; returns where it stopped.
    pub(super) fn count(
        &mut self,
        start: Value,
        limit: Value,
        step: i64,
        carried: Vec<Value>,
        body: &mut StepBody<'_, Self>,
    ) -> (Value, Vec<Value>) {
        let (inside, after) = (self.b.create_block(), self.b.create_block());
        for block in [inside, after] {
            self.b.append_block_param(block, I64);
            for value in &carried {
                let ty = self.b.func.dfg.value_type(*value);
                self.b.append_block_param(block, ty);
            }
        }
        let last = self.b.ins().iadd_imm_s(limit, -step);
        self.jump_while(start, last, inside, after, &carried);
        self.b.switch_to_block(inside);
        let params = self.b.block_params(inside).to_vec();
        let carried = body(self, params[0], params[1..].to_vec());
        let next = self.b.ins().iadd_imm_s(params[0], step);
        self.jump_while(next, last, inside, after, &carried);
        self.b.switch_to_block(after);
        let params = self.b.block_params(after).to_vec();
        (params[0], params[1..].to_vec())
    }

    fn jump_while(&mut self, index: Value, last: Value, inside: Block, after: Block, carried: &[Value]) {
        let more = self.b.ins().icmp(IntCC::SignedLessThanOrEqual, index, last);
        let args: Vec<_> = [index].iter().chain(carried).map(|v| (*v).into()).collect();
        self.b.ins().brif(more, inside, &args, after, &args);
    }

    /// The row loop over `begin..end`.
    fn rows(&mut self, begin: Value, end: Value) {
        let plan = self.plan;
        let horizontal = plan.horizontal();
        let axes: Vec<usize> = plan.row_axes().collect();
        let zero = self.at[0];
        let (row, column) = if horizontal {
            (begin, zero)
        } else if axes.is_empty() {
            (zero, begin)
        } else {
            let width = self.extent(plan.vector);
            let row = self.b.ins().sdiv(begin, width);
            (row, self.b.ins().srem(begin, width))
        };
        let mut start = vec![begin, column];
        start.extend(self.coordinates(&axes, row));
        let (inside, after) = (self.b.create_block(), self.b.create_block());
        for _ in &start {
            self.b.append_block_param(inside, I64);
        }
        self.jump(inside, &start);
        self.b.switch_to_block(inside);
        let params = self.b.block_params(inside).to_vec();
        let (position, column) = (params[0], params[1]);
        axes.iter().zip(&params[2..]).for_each(|(axis, value)| self.at[*axis] = *value);
        self.enter_row();
        let position = if horizontal {
            self.row();
            self.b.ins().iadd_imm_s(position, 1)
        } else {
            self.columns(position, column, end)
        };
        let mut next = vec![position, zero];
        next.extend(self.advanced(&axes, &params[2..]));
        let more = self.b.ins().icmp(IntCC::SignedLessThan, position, end);
        let args: Vec<_> = next.iter().map(|v| (*v).into()).collect();
        self.b.ins().brif(more, inside, &args, after, &[]);
        self.b.switch_to_block(after);
    }

    fn jump(&mut self, block: Block, args: &[Value]) {
        let args: Vec<_> = args.iter().map(|v| (*v).into()).collect();
        self.b.ins().jump(block, &args);
    }

    /// The index of row `row` along every row axis.
    fn coordinates(&mut self, axes: &[usize], row: Value) -> Vec<Value> {
        let mut rest = row;
        let mut found = Vec::new();
        for (i, axis) in axes.iter().enumerate().rev() {
            if i == 0 {
                found.push(rest);
            } else {
                let extent = self.extent(*axis);
                found.push(self.b.ins().srem(rest, extent));
                rest = self.b.ins().sdiv(rest, extent);
            }
        }
        found.reverse();
        found
    }

    /// The coordinates of the next row.
    fn advanced(&mut self, axes: &[usize], coordinates: &[Value]) -> Vec<Value> {
        let mut next = coordinates.to_vec();
        let mut carry = self.b.ins().iconst(I64, 1);
        for (i, axis) in axes.iter().enumerate().rev() {
            let sum = self.b.ins().iadd(coordinates[i], carry);
            if i == 0 {
                next[0] = sum;
                break;
            }
            let extent = self.extent(*axis);
            let wraps = self.b.ins().icmp(IntCC::Equal, sum, extent);
            let zero = self.b.ins().iconst(I64, 0);
            next[i] = self.b.ins().select(wraps, zero, sum);
            carry = self.b.ins().uextend(I64, wraps);
        }
        next
    }

    /// Moves every view to the current row.
    fn enter_row(&mut self) {
        self.clear(Level::Row);
        self.rows = self.bases.clone();
        for view in 0..self.rows.len() {
            for axis in self.plan.row_axes() {
                let index = self.at[axis];
                self.rows[view] = self.moved(self.rows[view], view, axis, index);
            }
        }
        if !self.plan.horizontal() {
            let roots = self.roots();
            self.ensure(&roots, Level::Row);
        }
    }

    fn roots(&self) -> Vec<ExprId> {
        let body = &self.code.body;
        body.reductions.iter().map(|r| r.value).chain(body.stores.iter().map(|s| s.value)).collect()
    }

    /// The outer indices of the current row from `column` on, as far as the range goes; returns the
    /// position after them.
    fn columns(&mut self, position: Value, column: Value, end: Value) -> Value {
        let width = self.extent(self.plan.vector);
        let left = self.b.ins().isub(end, position);
        let reach = self.b.ins().iadd(column, left);
        let limit = self.b.ins().smin(width, reach);
        // With reductions a cell walks inner axes, whose values differ at every step.
        let roots = if self.code.body.reductions.is_empty() { self.roots() } else { Vec::new() };
        self.strips(&roots, Level::Lane, [column, limit], Vec::new(), &mut |e, mut from, limit, carried| {
            if e.plan.wide {
                (from, _) = e.count(from, limit, 4, Vec::new(), &mut |e, i, _| e.cell(i, true));
            }
            e.count(from, limit, 1, Vec::new(), &mut |e, i, _| e.cell(i, false));
            carried
        });
        let done = self.b.ins().isub(limit, column);
        self.b.ins().iadd(position, done)
    }

    /// One outer index, or four.
    fn cell(&mut self, index: Value, wide: bool) -> Vec<Value> {
        self.wide = wide;
        self.at[self.plan.vector] = index;
        self.clear(Level::Lane);
        self.row();
        self.clear(Level::Lane);
        self.wide = false;
        Vec::new()
    }

    /// The level outside the inner axes.
    pub(super) fn outside(&self) -> Level {
        if self.plan.horizontal() { Level::Row } else { Level::Lane }
    }

    /// All reductions and stores of the current outer index.
    fn row(&mut self) {
        let (code, plan) = (self.code, self.plan);
        for stage in &plan.stages {
            self.stage(stage);
        }
        let of =
            |per| -> Vec<usize> { (0..code.body.stores.len()).filter(|s| code.body.stores[*s].per == per).collect() };
        let values = |stores: &[usize]| -> Vec<ExprId> { stores.iter().map(|s| code.body.stores[*s].value).collect() };
        let elements = of(Per::Element);
        if !elements.is_empty() {
            let roots = values(&elements);
            self.ensure(&roots, self.outside());
            self.inner(&roots, plan.outer, 1, Vec::new(), &mut |e, _, carried| {
                e.ensure(&roots, Level::Inner);
                elements.iter().for_each(|s| e.store(*s));
                carried
            });
        }
        let rows = of(Per::Row);
        self.ensure(&values(&rows), self.outside());
        rows.iter().for_each(|s| self.store(*s));
    }

    /// Walks the inner axes from `axis` on. A vector axis runs in steps of `4·unroll`, 4 and 1 with
    /// the slots `0..unroll`, 0, and the one after the vectors'.
    pub(super) fn inner(
        &mut self,
        roots: &[ExprId],
        axis: usize,
        unroll: usize,
        carried: Vec<Value>,
        body: &mut InnerBody<'_, 'a, 'b>,
    ) -> Vec<Value> {
        if axis == self.plan.axes.len() {
            self.clear(Level::Inner);
            let carried = body(self, 0, carried);
            self.clear(Level::Inner);
            return carried;
        }
        let (zero, extent) = (self.b.ins().iconst(I64, 0), self.extent(axis));
        if axis != self.plan.vector {
            let step = &mut |e: &mut Self, index, carried| {
                e.at[axis] = index;
                e.inner(roots, axis + 1, unroll, carried, &mut *body)
            };
            return self.count(zero, extent, 1, carried, step).1;
        }
        self.strips(roots, Level::Inner, [zero, extent], carried, &mut |e, from, limit, carried| {
            e.part(axis, unroll, [from, limit], carried, &mut *body)
        })
    }

    /// Walks a part of a vector axis.
    fn part(
        &mut self,
        axis: usize,
        unroll: usize,
        [mut from, limit]: [Value; 2],
        mut carried: Vec<Value>,
        body: &mut InnerBody<'_, 'a, 'b>,
    ) -> Vec<Value> {
        let mut scalar_slot = 0;
        if self.plan.wide {
            let widths: &[usize] = if unroll > 1 { &[unroll, 1] } else { &[1] };
            for vectors in widths {
                let step = &mut |e: &mut Self, index, carried| {
                    e.wide = true;
                    let carried = (0..*vectors)
                        .fold(carried, |carried, slot| e.element(axis, index, slot, slot, &mut *body, carried));
                    e.wide = false;
                    carried
                };
                (from, carried) = self.count(from, limit, 4 * *vectors as i64, carried, step);
            }
            scalar_slot = unroll;
        }
        let step = &mut |e: &mut Self, index, carried| e.element(axis, index, 0, scalar_slot, &mut *body, carried);
        self.count(from, limit, 1, carried, step).1
    }

    /// One step of a vector axis, `vectors` vectors after `index`.
    fn element(
        &mut self,
        axis: usize,
        index: Value,
        vectors: usize,
        slot: usize,
        body: &mut InnerBody<'_, 'a, 'b>,
        carried: Vec<Value>,
    ) -> Vec<Value> {
        self.at[axis] = self.b.ins().iadd_imm_s(index, 4 * vectors as i64);
        self.clear(Level::Inner);
        let carried = body(self, slot, carried);
        self.clear(Level::Inner);
        carried
    }

    /// The emitter of float functions for one value or four.
    pub(super) fn math(&mut self, wide: bool) -> Math<'_, 'b> {
        Math { b: self.b, wide, fused: self.fused }
    }
}
