//! Code for the expressions of a loop, for one index or four neighbours.

use cranelift::codegen::ir::AtomicRmwOp;
use cranelift::prelude::types::{F32, F32X4, I32, I32X4, I64};
use cranelift::prelude::*;
use eec_ir::DType;
use eec_ir::program::{BinaryFn, Expr, ExprId, Indexed, Per, Scalar, UnaryFn};

use super::callee::Callee;
use super::lanes::{self, Lanes, join, join_mask, memory};
use super::loops::{ARG_CONTEXT, ARG_KERNEL, Emitter};
use super::math::SINE_LIMIT;
use crate::context::{Fault, field};
use crate::kernels::math::Function;

impl Emitter<'_, '_> {
    fn dtype(&self, id: ExprId) -> DType {
        self.plan.places[id.0 as usize].dtype
    }

    fn cached(&mut self, id: ExprId) -> Lanes {
        match self.cache[id.0 as usize] {
            Some(value) => value,
            None => Lanes::One(self.b.ins().iconst(I64, 0)),
        }
    }

    /// A float or bool at the current width, or an integer as a scalar.
    pub(super) fn one(&mut self, id: ExprId) -> Value {
        let (value, dtype) = (self.cached(id), self.dtype(id));
        match value {
            Lanes::One(v) if !self.wide || lanes::is_scalar(dtype) => v,
            Lanes::Many(parts) if lanes::is_scalar(dtype) => parts[0],
            _ => lanes::widen(self.b, dtype, value),
        }
    }

    /// The scalars of a value: one, or four if the current width is four.
    fn parts(&mut self, id: ExprId) -> Vec<Value> {
        let (value, dtype) = (self.cached(id), self.dtype(id));
        match value {
            Lanes::One(v) if !self.wide => vec![v],
            _ => lanes::scalars(self.b, dtype, value).to_vec(),
        }
    }

    /// Scalars of a type as a value.
    fn pack(&mut self, dtype: DType, parts: &[Value]) -> Lanes {
        match (parts, dtype) {
            (&[a, b, c, d], DType::F32) => Lanes::Wide(join(self.b, F32X4, [a, b, c, d])),
            (&[a, b, c, d], DType::Bool) => Lanes::Wide(join_mask(self.b, [a, b, c, d])),
            (&[a, b, c, d], _) => Lanes::Many([a, b, c, d]),
            _ => Lanes::One(parts[0]),
        }
    }

    /// A float or bool of the current width.
    fn whole(&self, value: Value) -> Lanes {
        if self.wide { Lanes::Wide(value) } else { Lanes::One(value) }
    }

    /// Computes an expression whose operands are in the cache, at the current width.
    pub(super) fn expr(&mut self, id: usize) -> Lanes {
        let code = self.code;
        let dtype = self.plan.places[id].dtype;
        match &code.body.exprs[id] {
            Expr::Load(input) => {
                let address = self.address(*input as usize);
                self.load(dtype, *input as usize, address)
            }
            Expr::LoadAt { input, at } => self.load_at(dtype, *input as usize, at),
            Expr::Index(axis) => self.index(*axis as usize),
            Expr::Size(dim) => Lanes::One(self.size(dim)),
            Expr::Const(scalar) => Lanes::One(self.constant(*scalar)),
            Expr::Unary(function, a) => self.unary(*function, *a),
            Expr::Binary(function, a, b) => self.binary(*function, *a, *b),
            Expr::Select(condition, a, b) => self.choice(*condition, *a, *b),
            Expr::Cast(to, a) => self.cast(*to, *a),
            Expr::Reduced(index) => self.reduced[*index as usize],
        }
    }

    fn constant(&mut self, scalar: Scalar) -> Value {
        match scalar {
            Scalar::F32(x) => self.b.ins().f32const(x),
            Scalar::I64(x) => self.b.ins().iconst(I64, x),
            Scalar::I32(x) => self.b.ins().iconst(I32, i64::from(x)),
            Scalar::Bool(x) => self.b.ins().iconst(types::I8, i64::from(x)),
        }
    }

    fn index(&mut self, axis: usize) -> Lanes {
        let Some(axis) = self.plan.index[axis] else {
            return Lanes::One(self.b.ins().iconst(I64, 0));
        };
        let first = self.at[axis];
        if !self.wide {
            return Lanes::One(first);
        }
        Lanes::Many([0, 1, 2, 3].map(|lane| self.b.ins().iadd_imm_s(first, lane)))
    }

    fn load_scalar(&mut self, dtype: DType, address: Value) -> Value {
        match dtype {
            DType::Bool => lanes::load_bool(self.b, address),
            _ => self.b.ins().load(lanes::scalar_type(dtype), memory(), address, 0),
        }
    }

    /// Loads from a view at the current width; `address` is that of the first lane.
    fn load(&mut self, dtype: DType, view: usize, address: Value) -> Lanes {
        if !self.wide {
            return Lanes::One(self.load_scalar(dtype, address));
        }
        match (self.is_contiguous(view), dtype) {
            (true, DType::F32) => Lanes::Wide(self.b.ins().load(F32X4, memory(), address, 0)),
            (true, DType::Bool) => Lanes::Wide(lanes::load_mask(self.b, address)),
            _ => {
                let parts = [0, 1, 2, 3].map(|lane| {
                    let address = self.lane_address(address, view, lane);
                    self.load_scalar(dtype, address)
                });
                self.pack(dtype, &parts)
            }
        }
    }

    fn load_at(&mut self, dtype: DType, view: usize, at: &[Indexed]) -> Lanes {
        let mut address = self.address(view);
        let varying = at.iter().any(|c| self.plan.places[c.index.0 as usize].varies);
        if !varying {
            for coordinate in at {
                let value = self.cached(coordinate.index);
                let index = lanes::scalars(self.b, self.dtype(coordinate.index), value)[0];
                address = self.indexed(address, coordinate, index, dtype);
            }
            return self.load(dtype, view, address);
        }
        let indices: Vec<Vec<Value>> = at.iter().map(|c| self.parts(c.index)).collect();
        let mut parts = Vec::new();
        for lane in 0..indices[0].len() {
            let mut address = if lane == 0 { address } else { self.lane_address(address, view, lane as i64) };
            for (coordinate, indices) in at.iter().zip(&indices) {
                address = self.indexed(address, coordinate, indices[lane], dtype);
            }
            parts.push(self.load_scalar(dtype, address));
        }
        self.pack(dtype, &parts)
    }

    /// `address` moved by a computed coordinate; one that is out of range counts as 0 and is reported.
    fn indexed(&mut self, address: Value, coordinate: &Indexed, index: Value, dtype: DType) -> Value {
        let index = if self.dtype(coordinate.index) == DType::I32 { self.b.ins().sextend(I64, index) } else { index };
        let extent = self.size(&coordinate.extent);
        let negative = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, index, 0);
        let wrapped = self.b.ins().iadd(index, extent);
        let index = self.b.ins().select(negative, wrapped, index);
        let bad = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, index, extent);
        self.report(bad, Fault::Index);
        let zero = self.b.ins().iconst(I64, 0);
        let index = self.b.ins().select(bad, zero, index);
        let stride = self.size(&coordinate.stride);
        let step = self.b.ins().imul(index, stride);
        let bytes = self.b.ins().imul_imm_s(step, dtype.size() as i64);
        self.b.ins().iadd(address, bytes)
    }

    /// Reports a fault of this kernel if `bad` holds; the first one is kept.
    fn report(&mut self, bad: Value, fault: Fault) {
        let (cold, after) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(cold);
        self.b.ins().brif(bad, cold, &[], after, &[]);
        self.b.switch_to_block(cold);
        let (context, kernel) = (self.arg(ARG_CONTEXT), self.arg(ARG_KERNEL));
        let slot = self.b.ins().iadd_imm_s(context, i64::from(field::ERROR));
        let code = self.b.ins().bor_imm_s(kernel, (fault as i64) << 32);
        // Faults are ordered, and any one of them is a true report: the largest number stays.
        self.b.ins().atomic_rmw(I64, MemFlagsData::trusted(), AtomicRmwOp::Umax, slot, code);
        self.b.ins().jump(after, &[]);
        self.b.switch_to_block(after);
    }

    fn unary(&mut self, function: UnaryFn, a: ExprId) -> Lanes {
        let dtype = self.dtype(a);
        if lanes::is_scalar(dtype) {
            let parts: Vec<Value> = self.parts(a).into_iter().map(|x| self.int_unary(function, x)).collect();
            return self.pack(dtype, &parts);
        }
        let (x, wide) = (self.one(a), self.wide);
        let y = match function {
            UnaryFn::Neg => self.b.ins().fneg(x),
            UnaryFn::Abs => self.b.ins().fabs(x),
            UnaryFn::Sqrt => self.b.ins().sqrt(x),
            UnaryFn::Reciprocal => {
                let one = self.math(wide).float(1.0);
                self.b.ins().fdiv(one, x)
            }
            UnaryFn::Exp => self.precompiled(Function::Exp, x),
            UnaryFn::Log => self.precompiled(Function::Log, x),
            UnaryFn::Tanh => self.precompiled(Function::Tanh, x),
            UnaryFn::Erf => self.precompiled(Function::Erf, x),
            UnaryFn::Sigmoid => self.precompiled(Function::Sigmoid, x),
            UnaryFn::Sin => self.sine(x, 0),
            UnaryFn::Cos => self.sine(x, 1),
            UnaryFn::Floor => self.b.ins().floor(x),
            UnaryFn::Ceil => self.b.ins().ceil(x),
            UnaryFn::Round => self.b.ins().nearest(x),
            UnaryFn::Not if wide => self.b.ins().bnot(x),
            UnaryFn::Not => self.b.ins().bxor_imm_s(x, 1),
            UnaryFn::IsNaN => self.b.ins().fcmp(FloatCC::Unordered, x, x),
        };
        self.whole(y)
    }

    fn int_unary(&mut self, function: UnaryFn, x: Value) -> Value {
        if function == UnaryFn::Neg { self.b.ins().ineg(x) } else { self.b.ins().iabs(x) }
    }

    /// sin or cos: inline up to a limit, precompiled beyond it and on CPUs without fused multiply-adds.
    fn sine(&mut self, x: Value, quarter: i32) -> Value {
        let function = if quarter == 0 { self.imports.sin } else { self.imports.cos };
        let wide = self.wide;
        if !self.fused {
            return self.call_each(function, &[x]);
        }
        let fast = self.math(wide).sine(x, quarter);
        let (size, limit) = (self.b.ins().fabs(x), self.math(wide).float(SINE_LIMIT));
        let large = self.b.ins().fcmp(FloatCC::GreaterThan, size, limit);
        let any = if wide { self.b.ins().vany_true(large) } else { large };
        let (cold, after) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(cold);
        let result = self.b.append_block_param(after, if wide { F32X4 } else { F32 });
        self.b.ins().brif(any, cold, &[], after, &[fast.into()]);
        self.b.switch_to_block(cold);
        let exact = self.call_each(function, &[x]);
        let chosen = self.math(wide).select(large, exact, fast);
        self.b.ins().jump(after, &[chosen.into()]);
        self.b.switch_to_block(after);
        result
    }

    /// Calls a precompiled scalar function for every lane.
    fn call_each(&mut self, function: Callee, args: &[Value]) -> Value {
        let call = |e: &mut Self, args: &[Value]| {
            let call = e.call_runtime(function, args);
            e.b.inst_results(call)[0]
        };
        if !self.wide {
            return call(self, args);
        }
        let split: Vec<[Value; 4]> = args.iter().map(|v| lanes::split(self.b, *v)).collect();
        let parts = [0, 1, 2, 3].map(|lane| {
            let args: Vec<Value> = split.iter().map(|v| v[lane]).collect();
            call(self, &args)
        });
        join(self.b, F32X4, parts)
    }

    fn binary(&mut self, function: BinaryFn, a: ExprId, b: ExprId) -> Lanes {
        match self.dtype(a) {
            DType::F32 => {
                let exponent = self.code.body.exprs[b.0 as usize].clone();
                let (x, y) = (self.one(a), self.one(b));
                let value = self.float_binary(function, x, y, &exponent);
                self.whole(value)
            }
            DType::Bool => {
                let (x, y) = (self.one(a), self.one(b));
                let value = match function {
                    BinaryFn::And | BinaryFn::Mul | BinaryFn::Min => self.b.ins().band(x, y),
                    BinaryFn::Or | BinaryFn::Add | BinaryFn::Max => self.b.ins().bor(x, y),
                    BinaryFn::Equal
                    | BinaryFn::Sub
                    | BinaryFn::Div
                    | BinaryFn::Pow
                    | BinaryFn::Less
                    | BinaryFn::LessOrEqual => self.b.ins().icmp(IntCC::Equal, x, y),
                };
                self.whole(value)
            }
            // Integers of 32 and 64 bits: the verifier refuses all others.
            _ => {
                let (xs, ys) = (self.parts(a), self.parts(b));
                let parts: Vec<Value> = xs.into_iter().zip(ys).map(|(x, y)| self.int_binary(function, x, y)).collect();
                let compares = matches!(function, BinaryFn::Equal | BinaryFn::Less | BinaryFn::LessOrEqual);
                self.pack(if compares { DType::Bool } else { self.dtype(a) }, &parts)
            }
        }
    }

    fn float_binary(&mut self, function: BinaryFn, x: Value, y: Value, exponent: &Expr) -> Value {
        let wide = self.wide;
        match function {
            BinaryFn::Add => self.b.ins().fadd(x, y),
            BinaryFn::Sub => self.b.ins().fsub(x, y),
            BinaryFn::Mul => self.b.ins().fmul(x, y),
            BinaryFn::Div => self.b.ins().fdiv(x, y),
            BinaryFn::Max => self.math(wide).extreme(FloatCC::GreaterThan, x, y),
            BinaryFn::Min => self.math(wide).extreme(FloatCC::LessThan, x, y),
            BinaryFn::Equal => self.b.ins().fcmp(FloatCC::Equal, x, y),
            BinaryFn::Less => self.b.ins().fcmp(FloatCC::LessThan, x, y),
            BinaryFn::LessOrEqual => self.b.ins().fcmp(FloatCC::LessThanOrEqual, x, y),
            BinaryFn::Pow => match exponent {
                Expr::Const(Scalar::F32(p)) if *p == 1.0 => x,
                Expr::Const(Scalar::F32(p)) if *p == 2.0 => self.b.ins().fmul(x, x),
                Expr::Const(Scalar::F32(p)) if *p == 3.0 => {
                    let square = self.b.ins().fmul(x, x);
                    self.b.ins().fmul(square, x)
                }
                _ => self.call_each(self.imports.pow, &[x, y]),
            },
            // The verifier refuses these for floats.
            BinaryFn::And | BinaryFn::Or => x,
        }
    }

    fn int_binary(&mut self, function: BinaryFn, x: Value, y: Value) -> Value {
        match function {
            BinaryFn::Add => self.b.ins().iadd(x, y),
            BinaryFn::Sub => self.b.ins().isub(x, y),
            BinaryFn::Mul => self.b.ins().imul(x, y),
            BinaryFn::Div => self.int_div(x, y),
            BinaryFn::Max => self.b.ins().smax(x, y),
            BinaryFn::Min => self.b.ins().smin(x, y),
            BinaryFn::Equal => self.b.ins().icmp(IntCC::Equal, x, y),
            BinaryFn::Less => self.b.ins().icmp(IntCC::SignedLessThan, x, y),
            BinaryFn::LessOrEqual => self.b.ins().icmp(IntCC::SignedLessThanOrEqual, x, y),
            // The verifier refuses these for integers.
            BinaryFn::And | BinaryFn::Or | BinaryFn::Pow => x,
        }
    }

    /// Division that reports a zero divisor, and wraps where the quotient does not fit.
    fn int_div(&mut self, x: Value, y: Value) -> Value {
        let zero = self.b.ins().icmp_imm_s(IntCC::Equal, y, 0);
        self.report(zero, Fault::Division);
        let minus = self.b.ins().icmp_imm_s(IntCC::Equal, y, -1);
        let special = self.b.ins().bor(zero, minus);
        let ty = self.b.func.dfg.value_type(y);
        let one = self.b.ins().iconst(ty, 1);
        let divisor = self.b.ins().select(special, one, y);
        let quotient = self.b.ins().sdiv(x, divisor);
        let negated = self.b.ins().ineg(x);
        self.b.ins().select(minus, negated, quotient)
    }

    fn choice(&mut self, condition: ExprId, a: ExprId, b: ExprId) -> Lanes {
        let dtype = self.dtype(a);
        if !lanes::is_scalar(dtype) && self.wide {
            let (mask, x, y) = (self.one(condition), self.one(a), self.one(b));
            if dtype == DType::F32 {
                return Lanes::Wide(self.math(true).select(mask, x, y));
            }
            return Lanes::Wide(self.b.ins().bitselect(mask, x, y));
        }
        let (conditions, xs, ys) = (self.parts(condition), self.parts(a), self.parts(b));
        let mut parts = Vec::new();
        for ((condition, x), y) in conditions.into_iter().zip(xs).zip(ys) {
            parts.push(self.b.ins().select(condition, x, y));
        }
        self.pack(dtype, &parts)
    }

    fn cast(&mut self, to: DType, a: ExprId) -> Lanes {
        let from = self.dtype(a);
        if from == to {
            return self.cached(a);
        }
        if self.wide && (from, to) == (DType::Bool, DType::F32) {
            let (mask, one) = (self.one(a), self.math(true).float(1.0));
            let one = self.b.ins().bitcast(I32X4, MemFlagsData::new(), one);
            let bits = self.b.ins().band(mask, one);
            return Lanes::Wide(self.b.ins().bitcast(F32X4, MemFlagsData::new(), bits));
        }
        if (from, to) == (DType::F32, DType::Bool) {
            let (x, wide) = (self.one(a), self.wide);
            let zero = self.math(wide).float(0.0);
            let value = self.b.ins().fcmp(FloatCC::NotEqual, x, zero);
            return self.whole(value);
        }
        let parts: Vec<Value> = self.parts(a).into_iter().map(|x| self.cast_scalar(from, to, x)).collect();
        self.pack(to, &parts)
    }

    fn cast_scalar(&mut self, from: DType, to: DType, x: Value) -> Value {
        let target = lanes::scalar_type(to);
        match (from, to) {
            (DType::F32, DType::I64 | DType::I32) => self.b.ins().fcvt_to_sint_sat(target, x),
            (DType::I64 | DType::I32, DType::F32) => self.b.ins().fcvt_from_sint(target, x),
            (DType::Bool, DType::F32) => {
                let wide = self.b.ins().uextend(I32, x);
                self.b.ins().fcvt_from_sint(target, wide)
            }
            (DType::I64 | DType::I32, DType::Bool) => self.b.ins().icmp_imm_s(IntCC::NotEqual, x, 0),
            (DType::Bool, DType::I64 | DType::I32) => self.b.ins().uextend(target, x),
            (DType::I32, DType::I64) => self.b.ins().sextend(target, x),
            (DType::I64, DType::I32) => self.b.ins().ireduce(target, x),
            (DType::F32, DType::F32 | DType::Bool) | (DType::I64, DType::I64) | (DType::I32, DType::I32) => x,
            (DType::Bool, DType::Bool) => x,
            // The verifier refuses all others.
            _ => x,
        }
    }

    /// Makes a store at the current index.
    pub(super) fn store(&mut self, index: usize) {
        let code = self.code;
        let store = &code.body.stores[index];
        let (view, dtype) = (code.inputs.len() + index, self.dtype(store.value));
        let row = store.per == Per::Row && self.plan.horizontal();
        let address = if row { self.row_address(view) } else { self.address(view) };
        if self.wide && self.is_contiguous(view) && !lanes::is_scalar(dtype) {
            let value = self.one(store.value);
            return match dtype {
                DType::Bool => lanes::store_mask(self.b, value, address),
                _ => {
                    self.b.ins().store(memory(), value, address, 0);
                }
            };
        }
        for (lane, part) in self.parts(store.value).into_iter().enumerate() {
            let address = if lane == 0 { address } else { self.lane_address(address, view, lane as i64) };
            self.b.ins().store(memory(), part, address, 0);
        }
    }
}
