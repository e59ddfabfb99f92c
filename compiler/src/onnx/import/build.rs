//! Short forms for building what an ONNX operator stands for out of several of the IR's.

use eec_ir::minifloat::Overflow;
use eec_ir::{DType, Dim, Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, axis_index};

impl Cx<'_> {
    /// A node with one operand.
    pub(super) fn unary(&mut self, op: Op, x: ValueId) -> NodeResult<ValueId> {
        self.emit(op, &[x])
    }

    pub(super) fn add(&mut self, a: ValueId, b: ValueId) -> NodeResult<ValueId> {
        self.emit(Op::Add {}, &[a, b])
    }

    pub(super) fn sub(&mut self, a: ValueId, b: ValueId) -> NodeResult<ValueId> {
        self.emit(Op::Sub {}, &[a, b])
    }

    pub(super) fn mul(&mut self, a: ValueId, b: ValueId) -> NodeResult<ValueId> {
        self.emit(Op::Mul {}, &[a, b])
    }

    pub(super) fn div(&mut self, a: ValueId, b: ValueId) -> NodeResult<ValueId> {
        self.emit(Op::Div {}, &[a, b])
    }

    pub(super) fn choose(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> NodeResult<ValueId> {
        self.emit(Op::Where {}, &[condition, a, b])
    }

    /// A scalar of an element type with the value nearest to `value`.
    pub(super) fn scalar(&mut self, dtype: DType, value: f64) -> NodeResult<ValueId> {
        let tensor = match dtype.is_float() {
            true => Tensor::from_f64s(dtype, &[], &[value], Overflow::Special)?,
            false => Tensor::from_integers(dtype, &[], &[value as i128])?,
        };
        Ok(self.constant(tensor))
    }

    /// A scalar of the element type of `like`.
    pub(super) fn number(&mut self, like: ValueId, value: f64) -> NodeResult<ValueId> {
        let dtype = self.ty(like).dtype;
        self.scalar(dtype, value)
    }

    /// `x + value`.
    pub(super) fn plus(&mut self, x: ValueId, value: f64) -> NodeResult<ValueId> {
        let value = self.number(x, value)?;
        self.add(x, value)
    }

    /// `x · value`.
    pub(super) fn times(&mut self, x: ValueId, value: f64) -> NodeResult<ValueId> {
        let value = self.number(x, value)?;
        self.mul(x, value)
    }

    /// `max(x, value)`.
    pub(super) fn at_least(&mut self, x: ValueId, value: f64) -> NodeResult<ValueId> {
        let value = self.number(x, value)?;
        self.emit(Op::Max {}, &[x, value])
    }

    /// `min(x, value)`.
    pub(super) fn at_most(&mut self, x: ValueId, value: f64) -> NodeResult<ValueId> {
        let value = self.number(x, value)?;
        self.emit(Op::Min {}, &[x, value])
    }

    /// `min(max(x, low), high)`.
    pub(super) fn clipped(&mut self, x: ValueId, low: f64, high: f64) -> NodeResult<ValueId> {
        let x = self.at_least(x, low)?;
        self.at_most(x, high)
    }

    pub(super) fn square(&mut self, x: ValueId) -> NodeResult<ValueId> {
        self.mul(x, x)
    }

    /// The first operand as f32 if it is a shorter float, and its own type.
    pub(super) fn widened(&mut self, x: ValueId) -> NodeResult<(ValueId, DType)> {
        let own = self.ty(x).dtype;
        let wide = if own.is_float() && own.bits() < 32 { DType::F32 } else { own };
        Ok((self.cast(x, wide)?, own))
    }

    pub(super) fn transposed(&mut self, x: ValueId, perm: &[usize]) -> NodeResult<ValueId> {
        if perm.iter().enumerate().all(|(i, p)| i == *p) {
            return Ok(x);
        }
        self.unary(Op::Transpose { perm: perm.iter().map(|p| *p as i64).collect() }, x)
    }

    /// `x` broadcast to `dims`, or itself if it has them.
    pub(super) fn expanded(&mut self, x: ValueId, dims: Vec<Dim>) -> NodeResult<ValueId> {
        if self.ty(x).dims == dims { Ok(x) } else { self.unary(Op::Expand { dims }, x) }
    }

    /// The elements `start..end` along one axis, by `step`.
    pub(super) fn part(&mut self, x: ValueId, axis: usize, bounds: [Dim; 2], step: i64) -> NodeResult<ValueId> {
        let [start, end] = bounds;
        self.unary(Op::Slice { axes: vec![axis as i64], starts: vec![start], ends: vec![end], steps: vec![step] }, x)
    }

    /// The elements along one axis in reverse order.
    pub(super) fn reversed(&mut self, x: ValueId, axis: usize) -> NodeResult<ValueId> {
        let last = &self.dims(x)[axis] - &Dim::from(1);
        self.part(x, axis, [last, Dim::from(-1)], -1)
    }

    /// Dims of 1 inserted so that axis 0 of a vector lies at `axis` of `rank`.
    pub(super) fn along(&mut self, vector: ValueId, axis: usize, rank: usize) -> NodeResult<ValueId> {
        let mut dims = vec![Dim::from(1); rank];
        dims[axis] = Dim::product(&self.dims(vector));
        self.reshape(vector, dims)
    }

    /// `0, 1, …` up to `limit`, as i64, along axis `axis` of `rank`.
    pub(super) fn indices(&mut self, limit: &Dim, axis: usize, rank: usize) -> NodeResult<ValueId> {
        let range = self.emit(Op::Range { start: 0.into(), limit: limit.clone(), delta: 1 }, &[])?;
        self.along(range, axis, rank)
    }

    /// A constant i64 vector.
    pub(super) fn integers(&mut self, values: Vec<i64>) -> ValueId {
        self.constant(Tensor::vector(values))
    }

    /// Sum over axes.
    pub(super) fn sum(&mut self, x: ValueId, axes: Vec<i64>, keepdims: bool) -> NodeResult<ValueId> {
        if axes.is_empty() { Ok(x) } else { self.unary(Op::ReduceSum { axes, keepdims }, x) }
    }

    /// Mean over axes, kept as dims of 1.
    pub(super) fn mean(&mut self, x: ValueId, axes: Vec<i64>) -> NodeResult<ValueId> {
        self.unary(Op::ReduceMean { axes, keepdims: true }, x)
    }

    /// A constant size along an axis.
    pub(super) fn fixed_dim(&self, x: ValueId, axis: usize) -> NodeResult<i64> {
        let dim = self.dims(x).get(axis).and_then(Dim::as_const);
        dim.ok_or_else(|| {
            Refusal::new(format!("dim {axis} of {} must be constant; `--fix-dim` makes it one", self.ty(x)))
        })
    }

    /// The attribute `axis` of operand 0, counted from the front.
    pub(super) fn axis(&mut self, default: i64) -> NodeResult<usize> {
        let x = self.input(0)?;
        let axis = self.int("axis")?.unwrap_or(default);
        axis_index(axis, self.rank(x))
    }

    /// A float attribute with a default.
    pub(super) fn float_or(&mut self, name: &str, default: f32) -> NodeResult<f64> {
        Ok(f64::from(self.float(name)?.unwrap_or(default)))
    }

    /// One integer that operand `i` holds, known before a run, if the operand is given.
    pub(super) fn const_int(&self, i: usize, what: &str) -> NodeResult<Option<i64>> {
        match self.const_ints(i, what)?.as_deref() {
            None => Ok(None),
            Some([one]) => Ok(Some(*one)),
            Some(_) => refuse(format!("the {what} must be one integer")),
        }
    }

    /// One truth value that operand `i` holds, known before a run; false if it is not given.
    pub(super) fn flag_operand(&self, i: usize, what: &str) -> NodeResult<bool> {
        Ok(self.const_ints(i, what)?.is_some_and(|flag| flag != [0]))
    }

    /// One element of operand `i`, a constant.
    pub(super) fn const_number(&self, i: usize, what: &str) -> NodeResult<Option<f64>> {
        let Some(value) = self.optional(i) else { return Ok(None) };
        match self.constant_of(value).map(Tensor::to_f64s).as_deref() {
            Some([one]) => Ok(Some(*one)),
            Some(_) => refuse(format!("the {what} must be one number")),
            None => Err(Refusal::undecided(value, format!("the {what} depends on data"))),
        }
    }

    /// The elements of operand `i` as numbers, constants.
    pub(super) fn const_numbers(&self, i: usize, what: &str) -> NodeResult<Option<Vec<f64>>> {
        let Some(value) = self.optional(i) else { return Ok(None) };
        let stored = self.constant_of(value).map(Tensor::to_f64s);
        stored.map(Some).ok_or_else(|| Refusal::undecided(value, format!("the {what} depends on data")))
    }
}
