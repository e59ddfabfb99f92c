//! Code for reductions over the inner axes: accumulators, how values enter them, and their end.
//!
//! The order in which a sum adds depends on its length alone.

use cranelift::prelude::types::{F32, F32X4, I64};
use cranelift::prelude::*;
use eec_ir::DType;
use eec_ir::program::{ExprId, ReductionFn};

use super::lanes::{self, Lanes};
use super::loops::Emitter;
use super::plan::Level;

/// Vector accumulators of one sum, so that additions overlap.
const UNROLL: usize = 4;

impl Emitter<'_, '_> {
    /// Reductions that run together.
    pub(super) fn stage(&mut self, stage: &[usize]) {
        let body = &self.code.body;
        let roots: Vec<ExprId> = stage.iter().map(|r| body.reductions[*r].value).collect();
        self.ensure(&roots, self.outside());
        let horizontal = self.plan.horizontal() && self.plan.wide;
        let vectors = match (horizontal, self.plan.is_light(self.code)) {
            (false, _) => 0,
            (true, true) => UNROLL,
            (true, false) => 1,
        };
        let mut carried = Vec::new();
        let mut first = Vec::new();
        for r in stage {
            first.push(carried.len());
            self.start(*r, vectors, &mut carried);
        }
        let carried = self.inner(&roots, self.plan.outer, vectors.max(1), carried, &mut |e, slot, mut carried| {
            e.ensure(&roots, Level::Inner);
            for (r, first) in stage.iter().zip(&first) {
                e.accumulate(*r, &mut carried[*first..], slot);
            }
            carried
        });
        for (r, first) in stage.iter().zip(first) {
            self.reduced[*r] = self.finish(*r, &carried[first..], vectors);
        }
    }

    fn reduction(&self, index: usize) -> (ReductionFn, DType, ExprId) {
        let reduction = &self.code.body.reductions[index];
        (reduction.function, self.plan.places[reduction.value.0 as usize].dtype, reduction.value)
    }

    /// The first values of a reduction's accumulators: vectors, then the scalar ones.
    fn start(&mut self, index: usize, vectors: usize, carried: &mut Vec<Value>) {
        let (function, dtype, _) = self.reduction(index);
        let ty = lanes::scalar_type(dtype);
        let (float, int) = match function {
            ReductionFn::Sum => (0.0, 0),
            ReductionFn::Max | ReductionFn::ArgMax => {
                (f32::NEG_INFINITY, if dtype == DType::I32 { i64::from(i32::MIN) } else { i64::MIN })
            }
            ReductionFn::Min => (f32::INFINITY, if dtype == DType::I32 { i64::from(i32::MAX) } else { i64::MAX }),
        };
        let scalar = if dtype == DType::F32 { self.b.ins().f32const(float) } else { self.b.ins().iconst(ty, int) };
        let wide = vectors > 0 || (self.wide && dtype == DType::F32);
        let vector = if wide { Some(self.b.ins().splat(F32X4, scalar)) } else { None };
        carried.extend(vector.into_iter().cycle().take(vectors));
        carried.push(if vectors == 0 { vector.unwrap_or(scalar) } else { scalar });
        if function == ReductionFn::ArgMax {
            carried.push(self.b.ins().iconst(I64, 0));
        }
    }

    /// Adds the current value to a reduction's accumulator `slot`.
    fn accumulate(&mut self, index: usize, carried: &mut [Value], slot: usize) {
        let (function, dtype, value) = self.reduction(index);
        let value = self.one(value);
        if function != ReductionFn::ArgMax {
            carried[slot] = self.combine(function, dtype, carried[slot], value);
            return;
        }
        let best = carried[0];
        let better = match dtype {
            DType::F32 => self.b.ins().fcmp(FloatCC::GreaterThan, value, best),
            _ => self.b.ins().icmp(IntCC::SignedGreaterThan, value, best),
        };
        let mut flat = self.b.ins().iconst(I64, 0);
        for axis in self.plan.outer..self.plan.axes.len() {
            let extent = self.extent(axis);
            flat = self.b.ins().imul(flat, extent);
            flat = self.b.ins().iadd(flat, self.at[axis]);
        }
        carried[0] = self.b.ins().select(better, value, best);
        carried[1] = self.b.ins().select(better, flat, carried[1]);
    }

    fn combine(&mut self, function: ReductionFn, dtype: DType, a: Value, b: Value) -> Value {
        let wide = self.b.func.dfg.value_type(a) == F32X4;
        match (function, dtype) {
            (ReductionFn::Sum, DType::F32) => self.b.ins().fadd(a, b),
            (ReductionFn::Sum, _) => self.b.ins().iadd(a, b),
            (ReductionFn::Max | ReductionFn::ArgMax, DType::F32) => self.math(wide).extreme(FloatCC::GreaterThan, b, a),
            (ReductionFn::Min, DType::F32) => self.math(wide).extreme(FloatCC::LessThan, b, a),
            (ReductionFn::Max | ReductionFn::ArgMax, _) => self.b.ins().smax(a, b),
            (ReductionFn::Min, _) => self.b.ins().smin(a, b),
        }
    }

    /// The result of a reduction: neighbours first, the scalar rest last.
    fn finish(&mut self, index: usize, carried: &[Value], vectors: usize) -> Lanes {
        let (function, dtype, _) = self.reduction(index);
        if function == ReductionFn::ArgMax {
            return Lanes::One(carried[1]);
        }
        let mut scalar = carried[vectors];
        let mut parts = carried[..vectors].to_vec();
        while parts.len() > 1 {
            parts = parts.chunks(2).map(|p| self.combine(function, dtype, p[0], p[p.len() - 1])).collect();
        }
        if let Some(vector) = parts.first() {
            let [a, b, c, d] = lanes::split(self.b, *vector);
            let (ab, cd) = (self.combine(function, dtype, a, b), self.combine(function, dtype, c, d));
            let sum = self.combine(function, dtype, ab, cd);
            scalar = self.combine(function, dtype, sum, scalar);
        }
        let wide = self.b.func.dfg.value_type(scalar) != F32 && dtype == DType::F32;
        if wide { Lanes::Wide(scalar) } else { Lanes::One(scalar) }
    }
}
