//! Building one [`Loop`]: elementwise chains, gathers and indices become expressions of it.

use eec_ir::program::{
    BinaryFn, Expr, ExprId, Form, Indexed, Loop, Per, Reduction, ReductionFn, Scalar, Store, UnaryFn, View,
};
use eec_ir::{DType, Dim, Op, Tensor, ValueId};

use super::movement::zero;
use super::view::Shown;
use super::{LowerError, Lowering};

/// A loop under construction. Its index space is that of `dims`; `order` says which axes are
/// parallel and which are reduced.
pub(super) struct LoopBuilder {
    dims: Vec<Dim>,
    outer: Vec<usize>,
    inner: Vec<usize>,
    pub(super) inputs: Vec<View>,
    pub(super) exprs: Vec<Expr>,
    reductions: Vec<Reduction>,
    stores: Vec<Store>,
    /// The product or convolution whose finished elements are `Reduced(0)` in a map that is to follow it.
    pub(super) sum: Option<ValueId>,
}

impl LoopBuilder {
    /// A map over `dims`.
    pub(super) fn map(dims: &[Dim]) -> Self {
        LoopBuilder::rows(dims, &[])
    }

    /// A map over `dims` that goes along its axes in the given order.
    pub(super) fn map_along(dims: &[Dim], axes: &[usize]) -> Self {
        LoopBuilder { outer: axes.to_vec(), ..LoopBuilder::map(dims) }
    }

    /// Rows of `dims` along the axes `inner` (ascending).
    pub(super) fn rows(dims: &[Dim], inner: &[usize]) -> Self {
        LoopBuilder {
            dims: dims.to_vec(),
            outer: (0..dims.len()).filter(|a| !inner.contains(a)).collect(),
            inner: inner.to_vec(),
            inputs: Vec::new(),
            exprs: Vec::new(),
            reductions: Vec::new(),
            stores: Vec::new(),
            sum: None,
        }
    }

    /// The index space's dims, axis by axis.
    pub(super) fn dims(&self) -> &[Dim] {
        &self.dims
    }

    /// The index space's dims in the order in which the loop goes along them.
    pub(super) fn ordered_dims(&self) -> Vec<Dim> {
        self.in_order(&self.dims)
    }

    fn in_order(&self, of_axes: &[Dim]) -> Vec<Dim> {
        self.outer.iter().chain(&self.inner).map(|a| of_axes[*a].clone()).collect()
    }

    /// Adds an expression, or finds the equal one.
    pub(super) fn push(&mut self, expr: Expr) -> ExprId {
        let at = self.exprs.iter().position(|e| *e == expr).unwrap_or_else(|| {
            self.exprs.push(expr);
            self.exprs.len() - 1
        });
        ExprId(at as u32)
    }

    fn input(&mut self, view: View) -> u32 {
        let at = self.inputs.iter().position(|v| *v == view).unwrap_or_else(|| {
            self.inputs.push(view);
            self.inputs.len() - 1
        });
        at as u32
    }

    /// Loads the current element of what is shown, broadcast to the index space.
    pub(super) fn load(&mut self, shown: &Shown) -> ExprId {
        let strides = self.in_order(&shown.strides_over(&self.dims.clone()));
        let input = self.input(View { strides, ..shown.view.clone() });
        self.push(Expr::Load(input))
    }

    /// Loads from `shown` what was `Reduced(0)`.
    pub(super) fn load_sum(&mut self, shown: &Shown) {
        let strides = self.in_order(&shown.view.strides);
        let input = self.input(View { strides, ..shown.view.clone() });
        self.exprs.iter_mut().filter(|e| **e == Expr::Reduced(0)).for_each(|e| *e = Expr::Load(input));
    }

    /// Loads at computed coordinates; `strides` are per axis of the index space.
    pub(super) fn load_at(&mut self, shown: &Shown, strides: &[Dim], at: Vec<Indexed>) -> ExprId {
        let strides = self.in_order(strides);
        let input = self.input(View { strides, ..shown.view.clone() });
        self.push(Expr::LoadAt { input, at })
    }

    /// The current index along an axis.
    pub(super) fn index(&mut self, axis: usize) -> ExprId {
        let at = self.outer.iter().chain(&self.inner).position(|a| *a == axis).unwrap_or(axis);
        self.push(Expr::Index(at as u32))
    }

    pub(super) fn f32(&mut self, value: f32) -> ExprId {
        self.push(Expr::Const(Scalar::F32(value)))
    }

    pub(super) fn unary(&mut self, f: UnaryFn, x: ExprId) -> ExprId {
        self.push(Expr::Unary(f, x))
    }

    pub(super) fn binary(&mut self, f: BinaryFn, a: ExprId, b: ExprId) -> ExprId {
        self.push(Expr::Binary(f, a, b))
    }

    /// Adds a reduction of `value` over the inner axes and gives its result.
    pub(super) fn reduce(&mut self, function: ReductionFn, value: ExprId) -> ExprId {
        self.reductions.push(Reduction { function, value });
        self.push(Expr::Reduced(self.reductions.len() as u32 - 1))
    }

    /// The number of inner elements as f32.
    pub(super) fn inner_len(&mut self) -> ExprId {
        let len = Dim::product(self.inner.iter().map(|a| &self.dims[*a]));
        match len.as_const() {
            Some(n) => self.f32(n as f32),
            None => {
                let size = self.push(Expr::Size(len));
                self.push(Expr::Cast(DType::F32, size))
            }
        }
    }

    /// Stores `value` once per element; `to` has the dims of the index space.
    pub(super) fn store(&mut self, to: &Shown, value: ExprId) {
        let per = if self.inner.is_empty() { Per::Row } else { Per::Element };
        let strides = self.in_order(&to.view.strides);
        self.stores.push(Store { per, view: View { strides, ..to.view.clone() }, value });
    }

    /// Stores `value` once per row; `to` has the dims of the outer axes.
    pub(super) fn store_row(&mut self, to: &Shown, value: ExprId) {
        self.stores.push(Store { per: Per::Row, view: to.view.clone(), value });
    }

    /// The loop.
    pub(super) fn finish(self) -> Form {
        let pick = |axes: &[usize]| axes.iter().map(|a| self.dims[*a].clone()).collect();
        Form::Loop(Loop {
            dims: pick(&self.outer),
            inner: pick(&self.inner),
            inputs: self.inputs,
            exprs: self.exprs,
            reductions: self.reductions,
            stores: self.stores,
        })
    }
}

/// A constant of one element as a scalar.
pub(super) fn scalar_of(tensor: &Tensor) -> Option<Scalar> {
    if tensor.len() != 1 {
        return None;
    }
    match tensor.dtype() {
        DType::F32 => tensor.elements::<f32>().map(|v| Scalar::F32(v[0])),
        DType::I64 => tensor.elements::<i64>().map(|v| Scalar::I64(v[0])),
        DType::I32 => tensor.elements::<i32>().map(|v| Scalar::I32(v[0])),
        DType::Bool => tensor.elements::<u8>().map(|v| Scalar::Bool(v[0] != 0)),
        _ => None,
    }
}

/// What an operator is to a loop. No `_` arm, so that a new operator is placed on purpose.
enum Role {
    /// A function of one operand.
    Unary(UnaryFn),
    /// A function of two operands.
    Binary(BinaryFn),
    /// A function of two operands in reverse order.
    Swapped(BinaryFn),
    /// Elementwise, in several expressions.
    Composite,
    /// Loads at computed coordinates, or the coordinate itself.
    Indexing,
    /// Nothing that a loop computes element by element.
    Other,
}

fn role(op: &Op) -> Role {
    match op {
        Op::Neg {} => Role::Unary(UnaryFn::Neg),
        Op::Abs {} => Role::Unary(UnaryFn::Abs),
        Op::Sqrt {} => Role::Unary(UnaryFn::Sqrt),
        Op::Reciprocal {} => Role::Unary(UnaryFn::Reciprocal),
        Op::Exp {} => Role::Unary(UnaryFn::Exp),
        Op::Log {} => Role::Unary(UnaryFn::Log),
        Op::Sin {} => Role::Unary(UnaryFn::Sin),
        Op::Cos {} => Role::Unary(UnaryFn::Cos),
        Op::Tanh {} => Role::Unary(UnaryFn::Tanh),
        Op::Erf {} => Role::Unary(UnaryFn::Erf),
        Op::Sigmoid {} => Role::Unary(UnaryFn::Sigmoid),
        Op::Not {} => Role::Unary(UnaryFn::Not),
        Op::IsNaN {} => Role::Unary(UnaryFn::IsNaN),
        Op::Floor {} => Role::Unary(UnaryFn::Floor),
        Op::Ceil {} => Role::Unary(UnaryFn::Ceil),
        Op::Round {} => Role::Unary(UnaryFn::Round),
        Op::Add {} => Role::Binary(BinaryFn::Add),
        Op::Sub {} => Role::Binary(BinaryFn::Sub),
        Op::Mul {} => Role::Binary(BinaryFn::Mul),
        Op::Div {} => Role::Binary(BinaryFn::Div),
        Op::Pow {} => Role::Binary(BinaryFn::Pow),
        Op::Max {} => Role::Binary(BinaryFn::Max),
        Op::Min {} => Role::Binary(BinaryFn::Min),
        Op::And {} => Role::Binary(BinaryFn::And),
        Op::Or {} => Role::Binary(BinaryFn::Or),
        Op::Equal {} => Role::Binary(BinaryFn::Equal),
        Op::Less {} => Role::Binary(BinaryFn::Less),
        Op::LessOrEqual {} => Role::Binary(BinaryFn::LessOrEqual),
        Op::Greater {} => Role::Swapped(BinaryFn::Less),
        Op::GreaterOrEqual {} => Role::Swapped(BinaryFn::LessOrEqual),
        Op::Relu {} | Op::Gelu { .. } | Op::Clip { .. } | Op::Cast { .. } | Op::Where {} | Op::Sign {} => {
            Role::Composite
        }
        Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherND { .. } | Op::Range { .. } => Role::Indexing,
        Op::MatMul { .. } | Op::Gemm { .. } | Op::Conv { .. } | Op::MaxPool { .. } | Op::AveragePool { .. } => {
            Role::Other
        }
        Op::Softmax { .. } | Op::LogSoftmax { .. } | Op::LayerNormalization { .. } | Op::CumSum { .. } => Role::Other,
        Op::ReduceSum { .. } | Op::ReduceMean { .. } | Op::ReduceMax { .. } | Op::ReduceMin { .. } => Role::Other,
        Op::Tan {} | Op::Asin {} | Op::Acos {} => Role::Other,
        Op::Atan {} | Op::Sinh {} | Op::Cosh {} | Op::Asinh {} | Op::Acosh {} | Op::Atanh {} => Role::Other,
        Op::BitwiseNot {} | Op::CastUnsaturated { .. } | Op::BitCast { .. } => Role::Other,
        Op::Mod { .. } | Op::BitShift { .. } | Op::BitwiseAnd {} | Op::BitwiseOr {} | Op::BitwiseXor {} => Role::Other,
        Op::ReduceProd { .. } | Op::CumProd { .. } | Op::TopK { .. } => Role::Other,
        Op::NonZero {} | Op::Unique { .. } | Op::NonMaxSuppression { .. } | Op::LateSize { .. } => Role::Other,
        Op::ScatterElements { .. } | Op::ScatterND { .. } => Role::Other,
        Op::DeformConv { .. } | Op::RoiAlign { .. } | Op::Det {} => Role::Other,
        Op::ArgMax { .. } | Op::Reshape { .. } | Op::Transpose { .. } | Op::Expand { .. } | Op::Concat { .. } => {
            Role::Other
        }
        Op::Slice { .. } | Op::Pad { .. } | Op::Shape { .. } | Op::Sizes { .. } => Role::Other,
        Op::If { .. } | Op::Route { .. } | Op::Loop { .. } => Role::Other,
    }
}

/// Whether the operator is computed element by element and so can be part of a loop.
pub(super) fn is_elementwise(op: &Op) -> bool {
    !matches!(role(op), Role::Other)
}

/// Whether the operator is a function of the elements at the same place.
pub(super) fn is_pointwise(op: &Op) -> bool {
    !matches!(role(op), Role::Indexing | Role::Other)
}

/// Whether computing the operator several times costs less than keeping its result.
pub(super) fn is_cheap(op: &Op) -> bool {
    match role(op) {
        Role::Unary(f) => matches!(f, UnaryFn::Neg | UnaryFn::Abs | UnaryFn::Not | UnaryFn::IsNaN),
        Role::Binary(f) => f != BinaryFn::Pow,
        Role::Swapped(_) => true,
        Role::Composite => !matches!(op, Op::Gelu { .. }),
        Role::Indexing | Role::Other => false,
    }
}

impl Lowering<'_> {
    /// The expression for `value` in the loop: inlined if it was deferred, else a load.
    pub(super) fn expression(&mut self, b: &mut LoopBuilder, value: ValueId) -> Result<ExprId, LowerError> {
        if let Some(scalar) = self.graph.as_constant(value).and_then(scalar_of) {
            return Ok(b.push(Expr::Const(scalar)));
        }
        if b.sum == Some(value) {
            return Ok(b.push(Expr::Reduced(0)));
        }
        if self.deferred.contains_key(&value) {
            return self.inlined(b, value);
        }
        let shown = self.shown(value)?;
        Ok(b.load(&shown))
    }

    /// The expression that computes an elementwise node's result at the current index.
    pub(super) fn inlined(&mut self, b: &mut LoopBuilder, value: ValueId) -> Result<ExprId, LowerError> {
        let Some(id) = self.graph.def_node(value) else {
            return Err(LowerError::internal("an inlined value has no node"));
        };
        let node = self.graph.node(id);
        let (op, inputs) = (node.op.clone(), node.inputs.clone());
        match &op {
            Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherND { .. } => return self.gather(b, &op, &inputs),
            Op::Range { start, delta, .. } => return Ok(range(b, start, *delta)),
            Op::Pow {} => {
                if let Some(square_or_root) = self.simple_power(b, &inputs)? {
                    return Ok(square_or_root);
                }
            }
            _ => {}
        }
        let mut args = Vec::with_capacity(inputs.len());
        for v in &inputs {
            args.push(self.expression(b, *v)?);
        }
        self.apply(b, &op, &inputs, &args)
    }

    fn apply(&self, b: &mut LoopBuilder, op: &Op, inputs: &[ValueId], args: &[ExprId]) -> Result<ExprId, LowerError> {
        match (role(op), args) {
            (Role::Unary(f), [x]) => return Ok(b.unary(f, *x)),
            (Role::Binary(f), [x, y]) => {
                let y = self.exponent(b, op, inputs, *y);
                return Ok(b.binary(f, *x, y));
            }
            (Role::Swapped(f), [x, y]) => return Ok(b.binary(f, *y, *x)),
            _ => {}
        }
        match (op, args) {
            (Op::Relu {}, [x]) => {
                let zero = b.push(Expr::Const(zero(self.graph.ty(inputs[0]).dtype)?));
                Ok(b.binary(BinaryFn::Max, *x, zero))
            }
            (Op::Sign {}, [x]) => sign(b, *x, zero(self.graph.ty(inputs[0]).dtype)?),
            (Op::Clip { min, max }, [x]) => Ok(clip(b, *x, *min, *max)),
            (Op::Gelu { tanh }, [x]) => Ok(gelu(b, *x, *tanh)),
            (Op::Cast { to }, [x]) if self.graph.ty(inputs[0]).dtype == *to => Ok(*x),
            (Op::Cast { to }, [x]) => Ok(b.push(Expr::Cast(*to, *x))),
            (Op::Where {}, [c, x, y]) => Ok(b.push(Expr::Select(*c, *x, *y))),
            _ => Err(LowerError::internal(format!("{op} is not elementwise"))),
        }
    }

    /// The second operand of `op`; a power's exponent takes the type of its base.
    fn exponent(&self, b: &mut LoopBuilder, op: &Op, inputs: &[ValueId], y: ExprId) -> ExprId {
        let types = (self.graph.ty(inputs[0]).dtype, self.graph.ty(inputs[1]).dtype);
        if *op == (Op::Pow {}) && types.0 == DType::F32 && types.1 != DType::F32 {
            return b.push(Expr::Cast(DType::F32, y));
        }
        y
    }

    /// `x^2` and `x^0.5` without a general power.
    fn simple_power(&mut self, b: &mut LoopBuilder, inputs: &[ValueId]) -> Result<Option<ExprId>, LowerError> {
        let exponent = self.graph.as_constant(inputs[1]).and_then(scalar_of);
        let exponent = match exponent {
            Some(Scalar::F32(e)) => e,
            Some(Scalar::I64(e)) => e as f32,
            Some(Scalar::I32(e)) => e as f32,
            Some(Scalar::Bool(_)) | None => return Ok(None),
        };
        if exponent == 2.0 {
            let x = self.expression(b, inputs[0])?;
            return Ok(Some(b.binary(BinaryFn::Mul, x, x)));
        }
        if exponent == 0.5 && self.graph.ty(inputs[0]).dtype == DType::F32 {
            let x = self.expression(b, inputs[0])?;
            return Ok(Some(b.unary(UnaryFn::Sqrt, x)));
        }
        Ok(None)
    }

    /// The indexed loads of the gather family; the loop's index space is the result's.
    fn gather(&mut self, b: &mut LoopBuilder, op: &Op, inputs: &[ValueId]) -> Result<ExprId, LowerError> {
        let (data, indices) = (self.shown(inputs[0])?, self.shown(inputs[1])?);
        let rank = data.dims.len();
        let axis_of = |a: i64| if a < 0 { (a + rank as i64) as usize } else { a as usize };
        let space = b.dims().to_vec();
        let zero = || Dim::from(0);
        match op {
            Op::Gather { axis } => {
                let axis = axis_of(*axis);
                let after = rank - axis - 1;
                let index = load_window(b, &indices, &space, axis, &zero());
                let middle = std::iter::repeat_with(zero).take(indices.dims.len());
                let strides: Vec<Dim> = data.view.strides[..axis].iter().cloned().chain(middle).collect();
                let strides: Vec<Dim> =
                    strides.into_iter().chain(data.view.strides[rank - after..].iter().cloned()).collect();
                Ok(b.load_at(&data, &strides, vec![coordinate(&data, axis, index)]))
            }
            Op::GatherElements { axis } => {
                let axis = axis_of(*axis);
                let index = b.load(&indices);
                let mut strides = data.view.strides.clone();
                strides[axis] = zero();
                Ok(b.load_at(&data, &strides, vec![coordinate(&data, axis, index)]))
            }
            _ => {
                let Op::GatherND { batch_dims } = op else { return Err(LowerError::internal("not a gather")) };
                self.gather_nd(b, *batch_dims as usize, &data, &indices)
            }
        }
    }

    fn gather_nd(
        &self,
        b: &mut LoopBuilder,
        batch: usize,
        data: &Shown,
        indices: &Shown,
    ) -> Result<ExprId, LowerError> {
        let last = indices.dims.len() - 1;
        let tuple = indices.dims[last]
            .as_const()
            .ok_or_else(|| LowerError::internal("GatherND tuple length is not constant"))?;
        let space = b.dims().to_vec();
        let mut at = Vec::new();
        for l in 0..tuple as usize {
            let one = indices.selected(last, &(l as i64).into());
            let index = load_window(b, &one, &space, 0, &Dim::from(0));
            at.push(coordinate(data, batch + l, index));
        }
        let mut strides = vec![Dim::from(0); space.len()];
        strides[..batch].clone_from_slice(&data.view.strides[..batch]);
        let rest = &data.view.strides[batch + tuple as usize..];
        let start = space.len() - rest.len();
        strides[start..].clone_from_slice(rest);
        Ok(b.load_at(data, &strides, at))
    }
}

/// Loads `shown`, whose axes are the axes of the index space from `first` on.
fn load_window(b: &mut LoopBuilder, shown: &Shown, space: &[Dim], first: usize, zero: &Dim) -> ExprId {
    let mut strides = vec![zero.clone(); space.len()];
    strides[first..first + shown.dims.len()].clone_from_slice(&shown.view.strides);
    let strides = b.in_order(&strides);
    let input = b.input(View { strides, ..shown.view.clone() });
    b.push(Expr::Load(input))
}

fn coordinate(data: &Shown, axis: usize, index: ExprId) -> Indexed {
    Indexed { index, extent: data.dims[axis].clone(), stride: data.view.strides[axis].clone() }
}

fn range(b: &mut LoopBuilder, start: &Dim, delta: i64) -> ExprId {
    let index = b.index(0);
    let step = b.push(Expr::Const(Scalar::I64(delta)));
    let scaled = b.binary(BinaryFn::Mul, index, step);
    let start = b.push(Expr::Size(start.clone()));
    b.binary(BinaryFn::Add, start, scaled)
}

/// 1 above zero, -1 below, and what else there is (zero, NaN) as it is.
fn sign(b: &mut LoopBuilder, x: ExprId, zero: Scalar) -> Result<ExprId, LowerError> {
    let one = match zero {
        Scalar::F32(_) => Scalar::F32(1.0),
        Scalar::I64(_) => Scalar::I64(1),
        Scalar::I32(_) => Scalar::I32(1),
        Scalar::Bool(_) => return Err(LowerError::internal("the sign of a truth value")),
    };
    let (zero, one) = (b.push(Expr::Const(zero)), b.push(Expr::Const(one)));
    let minus = b.unary(UnaryFn::Neg, one);
    let (above, below) = (b.binary(BinaryFn::Less, zero, x), b.binary(BinaryFn::Less, x, zero));
    let low = b.push(Expr::Select(below, minus, x));
    Ok(b.push(Expr::Select(above, one, low)))
}

fn clip(b: &mut LoopBuilder, x: ExprId, min: f32, max: f32) -> ExprId {
    let (low, high) = (b.f32(min), b.f32(max));
    let x = if min == f32::NEG_INFINITY { x } else { b.binary(BinaryFn::Max, x, low) };
    if max == f32::INFINITY { x } else { b.binary(BinaryFn::Min, x, high) }
}

/// `x·Φ(x)`, exactly or by the tanh approximation (Hendrycks and Gimpel 2016).
fn gelu(b: &mut LoopBuilder, x: ExprId, tanh: bool) -> ExprId {
    let (half, one) = (b.f32(0.5), b.f32(1.0));
    let inner = if tanh {
        let (c, root) = (b.f32(0.044_715), b.f32((2.0 / std::f32::consts::PI).sqrt()));
        let square = b.binary(BinaryFn::Mul, x, x);
        let cube = b.binary(BinaryFn::Mul, square, x);
        let scaled = b.binary(BinaryFn::Mul, cube, c);
        let sum = b.binary(BinaryFn::Add, x, scaled);
        let arg = b.binary(BinaryFn::Mul, root, sum);
        b.unary(UnaryFn::Tanh, arg)
    } else {
        let c = b.f32(std::f32::consts::FRAC_1_SQRT_2);
        let arg = b.binary(BinaryFn::Mul, x, c);
        b.unary(UnaryFn::Erf, arg)
    };
    let sum = b.binary(BinaryFn::Add, one, inner);
    let halved = b.binary(BinaryFn::Mul, half, x);
    b.binary(BinaryFn::Mul, halved, sum)
}
