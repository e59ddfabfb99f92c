//! Matrix products, convolutions, pooling and running sums.

use eec_ir::program::{BinaryFn, Conv, Form, MatMul, Pool, PoolKind, ReductionFn, Scalar, Scan, Source, View};
use eec_ir::{BufferId, DType, Dim, NodeId, Op, Precision, ValueId};

use super::epilogue::{Sum, Then};
use super::fuse::{LoopBuilder, scalar_of};
use super::view::Shown;
use super::{LowerError, Lowering, dim_index};

/// The operands of a product, both with at least two dims.
pub(super) struct Product {
    pub(super) a: Shown,
    pub(super) b: Shown,
    pub(super) scale: f32,
    bias: Option<View>,
    /// How the second operand is stored.
    weights: Precision,
}

impl Product {
    /// Batch dims, and rows, columns and the length of a sum.
    fn space(&self) -> (Vec<Dim>, [Dim; 3]) {
        let (a, b) = (&self.a.dims, &self.b.dims);
        let (ra, rb) = (a.len(), b.len());
        (broadcast(&a[..ra - 2], &b[..rb - 2]), [a[ra - 2].clone(), b[rb - 1].clone(), a[ra - 1].clone()])
    }

    /// Axes of the result, batch dims included.
    pub(super) fn rank(&self) -> usize {
        self.a.dims.len().max(self.b.dims.len())
    }

    /// Whether the result is more than one column.
    pub(super) fn has_columns(&self) -> bool {
        self.b.dims.last().and_then(Dim::as_const) != Some(1)
    }

    /// The kernel that writes to `c`; a right side without batch dims takes all rows of the left at once.
    /// `None` if `then` cannot be its epilogue.
    fn form(&self, c: &Shown, then: Option<&Then>) -> Option<MatMul> {
        let (batch, [m, n, k]) = self.space();
        let over = |rows: &Dim, columns: &Dim| batch.iter().chain([rows, columns]).cloned().collect::<Vec<_>>();
        let (a, rb) = (self.a.expanded(&over(&m, &k)), self.b.dims.len());
        let shared = self.b.dims[..rb - 2].iter().all(|d| d.as_const() == Some(1));
        let merged = |s: &Shown| s.with_merged(0..batch.len() + 1);
        let (scale, bias, weights) = (self.scale, self.bias.clone(), self.weights);
        if let (true, Some(rows), Some(c)) = (shared, merged(&a), merged(c)) {
            let b = View { strides: self.b.view.strides[rb - 2..].to_vec(), ..self.b.view.clone() };
            let epilogue = match then {
                Some(then) => Some(then.epilogue(&merged)?),
                None => None,
            };
            let m = rows.dims[0].clone();
            return Some(MatMul {
                batch: Vec::new(),
                m,
                n,
                k,
                a: rows.view,
                b,
                c: c.view,
                scale,
                bias,
                epilogue,
                weights,
            });
        }
        let b = self.b.expanded(&over(&k, &n));
        let epilogue = match then {
            Some(then) => Some(then.epilogue(&|s| Some(s.clone()))?),
            None => None,
        };
        Some(MatMul { batch, m, n, k, a: a.view, b: b.view, c: c.view.clone(), scale, bias, epilogue, weights })
    }
}

impl Lowering<'_> {
    /// A product whose one consumer adds a bias waits for it; see [`Lowering::add`]. The first one of an
    /// attention waits for the second.
    pub(super) fn matmul(&mut self, id: NodeId) -> Result<(), LowerError> {
        if let Some(waiting) = self.attentions.remove(&id) {
            return self.attention(id, waiting);
        }
        if self.begins_attention(id)? {
            return Ok(());
        }
        if self.bias_consumer(id).is_some() {
            return Ok(());
        }
        self.matmul_into(id, self.result(id), None)
    }

    /// The `Add` that only adds a bias vector over the last dim to the product `id`.
    pub(super) fn bias_consumer(&self, id: NodeId) -> Option<(NodeId, ValueId)> {
        let node = self.graph.node(id);
        let value = node.outputs[0];
        let add = self.only_consumer(value, node.parent)?;
        let user = self.graph.node(add);
        if user.op != (Op::Add {}) || self.graph.ty(value) != self.graph.ty(user.outputs[0]) {
            return None;
        }
        let bias = *user.inputs.iter().find(|v| **v != value)?;
        let ty = self.graph.ty(bias);
        let last = self.graph.ty(value).dims.last()?;
        // A vector on the right has no columns: the result's last dim is that of rows.
        let has_columns = self.graph.ty(node.inputs[1]).rank() > 1;
        let is_vector = has_columns
            && self.graph.as_constant(bias).is_some()
            && ty.dims.last() == Some(last)
            && ty.elements() == *last;
        is_vector.then_some((add, bias))
    }

    /// `Add`: the bias of a product that waits for it, or elementwise.
    pub(super) fn add(&mut self, id: NodeId) -> Result<(), LowerError> {
        for v in self.graph.node(id).inputs.clone() {
            let Some(product) = self.graph.def_node(v).filter(|n| matches!(self.graph.node(*n).op, Op::MatMul { .. }))
            else {
                continue;
            };
            if let Some((add, bias)) = self.bias_consumer(product)
                && add == id
            {
                self.current = Some(product);
                return self.matmul_into(product, self.result(id), Some(bias));
            }
        }
        self.elementwise(id)
    }

    fn matmul_into(&mut self, id: NodeId, result: ValueId, bias: Option<ValueId>) -> Result<(), LowerError> {
        let product = self.operands(id, bias)?;
        self.sum(id, result, Sum::Product(product))
    }

    /// The operands of the product `id`.
    pub(super) fn operands(&mut self, id: NodeId, bias: Option<ValueId>) -> Result<Product, LowerError> {
        let ((a, left), (b, right)) = (self.unscaled(self.input(id, 0)), self.unscaled(self.input(id, 1)));
        let (a, b) = (self.shown(a)?, self.shown(b)?);
        let bias = bias.map(|v| self.shown(v)).transpose()?.map(|s| last_axis(&s));
        let weights = self.graph.node(id).op.weights();
        Ok(Product { a: as_row(a), b: as_column(b), scale: left * right, bias, weights })
    }

    /// A value and the constant that a product of it is multiplied with: a multiplication that waits
    /// for the product (see [`Lowering::scale_of`]) is taken off.
    fn unscaled(&mut self, value: ValueId) -> (ValueId, f32) {
        let scale = self.graph.def_node(value).and_then(|n| self.scale_of(n));
        match scale.filter(|_| self.deferred.remove(&value).is_some()) {
            Some(found) => found,
            None => (value, 1.0),
        }
    }

    /// What a node multiplies by one constant, and the constant: of moderate size, so that nothing
    /// overflows or vanishes when the product comes first.
    pub(super) fn scale_of(&self, id: NodeId) -> Option<(ValueId, f32)> {
        let node = self.graph.node(id);
        let ([x, y], true) = (node.inputs.as_slice(), node.op == (Op::Mul {})) else { return None };
        let of = |x: &ValueId, c: &ValueId| {
            let scale = match self.graph.as_constant(*c).and_then(scalar_of) {
                Some(Scalar::F32(scale)) => scale,
                Some(Scalar::I64(_) | Scalar::I32(_) | Scalar::Bool(_)) | None => return None,
            };
            let same = self.graph.ty(*x) == self.graph.ty(node.outputs[0]);
            (same && (1e-6..1e6).contains(&scale.abs())).then_some((*x, scale))
        };
        of(x, y).or_else(|| of(y, x))
    }

    /// Emits one product. Gives the map that is left to do, with what it reads, and the place of `value`.
    pub(super) fn finish_product(
        &mut self,
        product: Product,
        value: ValueId,
        then: Option<Then>,
    ) -> Result<(Option<(Then, Shown)>, Shown), LowerError> {
        let (batch, [m, n, k]) = product.space();
        let dims: Vec<Dim> = batch.iter().chain([&m, &n]).cloned().collect();
        let place = self.product_place(value, &dims);
        let macs = Dim::product([&Dim::product(&batch), &m, &n, &k]);
        let is_constant = matches!(self.program.buffer(product.b.view.buffer).source, Source::Constant(_));
        let weights = product.weights;
        if weights != Precision::F32 && !(is_constant && n.as_const().is_some() && k.as_const().is_some()) {
            return Err(LowerError::new(format!("{weights} weights must be a constant")));
        }
        if !product.has_columns() && weights == Precision::F32 {
            self.column(&product, &batch, &place, macs)?;
            return Ok((None, place));
        }
        let fused = product.form(&place, then.as_ref());
        let (form, left) = match (fused, then) {
            (Some(form), _) => (form, None),
            (None, then) => {
                let sums = Shown::dense(self.buffer(DType::F32, Dim::product(&dims), Source::Temp), &dims);
                let form = product.form(&sums, None);
                let form = form.ok_or_else(|| LowerError::internal("a product has no form"))?;
                (form, then.map(|then| (then, sums)))
            }
        };
        self.emit(Form::MatMul(form), macs);
        Ok((left, place))
    }

    /// A product with one column: a sum per row, which needs no tiles.
    fn column(&mut self, p: &Product, batch: &[Dim], c: &Shown, macs: Dim) -> Result<(), LowerError> {
        let [.., m, k] = p.a.dims.as_slice() else { return Err(LowerError::internal("a product of vectors")) };
        let space: Vec<Dim> = batch.iter().chain([m, k]).cloned().collect();
        let column = p.b.selected(p.b.dims.len() - 1, &Dim::from(0));
        let mut dims = column.dims;
        let mut strides = column.view.strides;
        dims.insert(dims.len() - 1, Dim::from(1));
        strides.insert(strides.len() - 1, Dim::from(0));
        let row = Shown { dims, view: View { strides, ..column.view } };
        let mut b = LoopBuilder::rows(&space, &[space.len() - 1]);
        let (x, y) = (b.load(&p.a), b.load(&row));
        let product = b.binary(BinaryFn::Mul, x, y);
        let mut sum = b.reduce(ReductionFn::Sum, product);
        if p.scale != 1.0 {
            let scale = b.f32(p.scale);
            sum = b.binary(BinaryFn::Mul, sum, scale);
        }
        if let Some(bias) = &p.bias {
            let bias = b.load(&Shown { dims: vec![Dim::from(1)], view: bias.clone() });
            sum = b.binary(BinaryFn::Add, sum, bias);
        }
        b.store_row(&c.selected(c.dims.len() - 1, &Dim::from(0)), sum);
        self.emit(b.finish(), macs);
        Ok(())
    }

    /// A new place for a product: dense, or in the order that its one consumer, a transposition which
    /// leaves the last axis, shows densely.
    pub(super) fn product_place(&mut self, result: ValueId, dims: &[Dim]) -> Shown {
        let buffer = self.fresh(result).view.buffer;
        let Some(perm) = self.consuming_transpose(result).filter(|perm| perm.len() == dims.len()) else {
            return Shown::dense(buffer, dims);
        };
        let order: Vec<Dim> = perm.iter().map(|p| dims[*p].clone()).collect();
        let mut back = vec![0; perm.len()];
        perm.iter().enumerate().for_each(|(to, from)| back[*from] = to);
        let place = Shown::dense(buffer, &order).transposed(&back);
        self.places.insert(result, place.clone());
        place
    }

    /// The permutation of the transposition that alone reads `value`, if it leaves the last axis.
    fn consuming_transpose(&self, value: ValueId) -> Option<Vec<usize>> {
        let region = self.graph.node(self.graph.def_node(value)?).parent;
        let Op::Transpose { perm } = &self.graph.node(self.only_consumer(value, region)?).op else { return None };
        let perm: Vec<usize> = perm.iter().map(|p| dim_index(*p, perm.len())).collect();
        (perm.last() == Some(&perm.len().checked_sub(1)?)).then_some(perm)
    }

    pub(super) fn gemm(&mut self, id: NodeId, [alpha, beta]: [f32; 2], [ta, tb]: [bool; 2]) -> Result<(), LowerError> {
        let (mut a, mut b) = (self.shown(self.input(id, 0))?, self.shown(self.input(id, 1))?);
        if ta {
            a = a.transposed(&[1, 0]);
        }
        if tb {
            b = b.transposed(&[1, 0]);
        }
        let weights = self.graph.node(id).op.weights();
        let c = self.graph.node(id).inputs.get(2).copied();
        let result = self.result(id);
        let vector = |v: &ValueId| {
            let ty = self.graph.ty(*v);
            ty.dims.last() == b.dims.last() && Some(&ty.elements()) == b.dims.last()
        };
        if alpha == 1.0 && beta == 1.0 && c.as_ref().is_none_or(vector) {
            let bias = c.map(|v| self.shown(v)).transpose()?.map(|s| last_axis(&s));
            return self.sum(id, result, Sum::Product(Product { a, b, scale: 1.0, bias, weights }));
        }
        self.finish_product(Product { a, b, scale: 1.0, bias: None, weights }, result, None)?;
        self.scale_and_add(result, alpha, beta, c)
    }

    /// `alpha·result + beta·c` into a new place for `result`.
    fn scale_and_add(&mut self, result: ValueId, alpha: f32, beta: f32, c: Option<ValueId>) -> Result<(), LowerError> {
        let product = self.shown(result)?;
        let mut b = LoopBuilder::map(&product.dims);
        let (x, alpha) = (b.load(&product), b.f32(alpha));
        let mut y = b.binary(BinaryFn::Mul, x, alpha);
        if let Some(c) = c {
            let (c, beta) = (self.expression(&mut b, c)?, b.f32(beta));
            let scaled = b.binary(BinaryFn::Mul, c, beta);
            y = b.binary(BinaryFn::Add, y, scaled);
        }
        let to = self.fresh(result);
        b.store(&to, y);
        self.emit(b.finish(), Dim::from(0));
        Ok(())
    }

    pub(super) fn conv(
        &mut self,
        id: NodeId,
        group: i64,
        strides: &[i64],
        dilations: &[i64],
        pads: &[i64],
    ) -> Result<(), LowerError> {
        let x = as_images(self.shown(self.input(id, 0))?)?;
        let w_dims = nchw(&self.graph.ty(self.input(id, 1)).dims)?;
        let y_dims = nchw(&self.graph.ty(self.result(id)).dims)?;
        let w = self.dense(self.input(id, 1))?;
        let bias = self.graph.node(id).inputs.get(2).copied().map(|v| self.dense(v)).transpose()?;
        let y = self.buffer(DType::F32, Dim::product(&y_dims), Source::Temp);
        let macs = Dim::product(y_dims.iter().chain(&w_dims[1..]));
        let [_, _, h, wd] = y_dims;
        let [images, _, height, width] = nchw(&x.dims)?;
        // The channels are those of the weights, whatever they are called before.
        let channels = &w_dims[1] * &group.into();
        let pads: Vec<i64> = if pads.len() == 2 { vec![0, pads[0], 0, pads[1]] } else { pads.to_vec() };
        let form = Conv {
            x_dims: [images, channels, height, width],
            w_dims,
            y_size: [h, wd],
            group,
            strides: pair(strides)?,
            dilations: pair(dilations)?,
            pads: [pads[0], pads[1]],
            x: x.view,
            w,
            bias,
            y,
            epilogue: None,
        };
        self.sum(id, self.result(id), Sum::Conv(Box::new(form), macs))
    }

    pub(super) fn pool(&mut self, id: NodeId) -> Result<(), LowerError> {
        let ones = vec![1, 1];
        let (kind, kernel, strides, dilations, pads) = match &self.graph.node(id).op {
            Op::MaxPool { kernel, strides, dilations, pads, .. } => (PoolKind::Max, kernel, strides, dilations, pads),
            Op::AveragePool { kernel, strides, pads, count_include_pad: true, .. } => {
                (PoolKind::AverageWithPads, kernel, strides, &ones, pads)
            }
            Op::AveragePool { kernel, strides, pads, .. } => (PoolKind::Average, kernel, strides, &ones, pads),
            other => return Err(LowerError::internal(format!("{other} is not pooling"))),
        };
        let [_, _, yh, yw] = nchw(&self.graph.ty(self.result(id)).dims)?;
        let pads: [i64; 4] = match pads.as_slice() {
            [before, after] => [0, *before, 0, *after],
            other => other.try_into().map_err(|_| LowerError::new("pads must be 4 numbers"))?,
        };
        let (kernel, strides, dilations) = (pair(kernel)?, pair(strides)?, pair(dilations)?);
        let x = as_images(self.shown(self.input(id, 0))?)?;
        let x = self.with_neighbouring_channels(x);
        let y = self.fresh_in_order(self.result(id)).view.buffer;
        let (x_dims, y_size, x) = (nchw(&x.dims)?, [yh, yw], x.view);
        let form = Pool { kind, x_dims, y_size, kernel, strides, dilations, pads, x, y };
        self.emit(Form::Pool(form), Dim::from(0));
        Ok(())
    }

    pub(super) fn cumsum(&mut self, id: NodeId, axis: i64, exclusive: bool, reverse: bool) -> Result<(), LowerError> {
        let ty = self.graph.ty(self.input(id, 0)).clone();
        let axis = dim_index(axis, ty.rank());
        let (outer, inner) = (Dim::product(&ty.dims[..axis]), Dim::product(&ty.dims[axis + 1..]));
        let x = self.dense(self.input(id, 0))?;
        let y: BufferId = self.buffer_for(self.result(id), Source::Temp);
        let form = Scan { dtype: ty.dtype, outer, len: ty.dims[axis].clone(), inner, exclusive, reverse, x, y };
        self.emit(Form::Scan(form), Dim::from(0));
        Ok(())
    }
}

/// A vector on the left of a product is one row.
fn as_row(a: Shown) -> Shown {
    if a.dims.len() > 1 {
        return a;
    }
    let strides = std::iter::once(Dim::from(0)).chain(a.view.strides.iter().cloned()).collect();
    Shown { dims: std::iter::once(Dim::from(1)).chain(a.dims).collect(), view: View { strides, ..a.view } }
}

/// A vector on the right of a product is one column.
fn as_column(mut b: Shown) -> Shown {
    if b.dims.len() == 1 {
        b.dims.push(Dim::from(1));
        b.view.strides.push(Dim::from(1));
    }
    b
}

/// The last axis alone, of a view whose other dims are 1.
fn last_axis(shown: &Shown) -> View {
    let strides = shown.view.strides.last().cloned().into_iter().collect();
    View { strides, ..shown.view.clone() }
}

/// Batch dims of a product: right-aligned, 1 gives way.
fn broadcast(a: &[Dim], b: &[Dim]) -> Vec<Dim> {
    let rank = a.len().max(b.len());
    let dim = |d: &[Dim], i: usize| (i + d.len()).checked_sub(rank).map_or(Dim::from(1), |j| d[j].clone());
    (0..rank).map(|i| if dim(a, i).as_const() == Some(1) { dim(b, i) } else { dim(a, i) }).collect()
}

/// Four dims; a 1-D signal has height 1.
fn nchw(dims: &[Dim]) -> Result<[Dim; 4], LowerError> {
    match dims {
        [n, c, h, w] => Ok([n.clone(), c.clone(), h.clone(), w.clone()]),
        [n, c, w] => Ok([n.clone(), c.clone(), 1.into(), w.clone()]),
        _ => Err(LowerError::new(format!(
            "only 1-D and 2-D convolution and pooling are supported, found {} dims",
            dims.len()
        ))),
    }
}

/// Images; a 1-D signal has height 1, and a single channel any neighbours.
fn as_images(mut shown: Shown) -> Result<Shown, LowerError> {
    let dims = nchw(&shown.dims)?;
    if shown.dims.len() == 3 {
        shown.view.strides.insert(2, Dim::from(0));
    }
    if dims[1].as_const() == Some(1) {
        shown.view.strides[1] = Dim::from(1);
    }
    Ok(Shown { dims: dims.to_vec(), ..shown })
}

/// Height and width; one number is a width.
fn pair(values: &[i64]) -> Result<[i64; 2], LowerError> {
    match values {
        [h, w] => Ok([*h, *w]),
        [w] => Ok([1, *w]),
        _ => Err(LowerError::new(format!("needs 1 or 2 numbers, found {values:?}"))),
    }
}
