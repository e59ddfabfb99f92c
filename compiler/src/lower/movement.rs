//! Operators that move elements: views where strides can say it, copies where they cannot.

use eec_ir::program::{Expr, Scalar, Source};
use eec_ir::{DType, Dim, NodeId, ValueId};

use super::fuse::LoopBuilder;
use super::view::Shown;
use super::{LowerError, Lowering, dim_index};

impl Lowering<'_> {
    pub(super) fn reshape(&mut self, id: NodeId, dims: &[Dim]) -> Result<(), LowerError> {
        let (from, to) = (self.input(id, 0), self.result(id));
        let shown = self.shown(from)?;
        let reshaped = match shown.reshaped(dims).or_else(|| shown.renamed(dims)) {
            Some(view) => view,
            None => {
                let copied = self.copy(from, &shown);
                Shown::dense(copied.view.buffer, dims)
            }
        };
        self.places.insert(to, reshaped);
        Ok(())
    }

    pub(super) fn transpose(&mut self, id: NodeId, perm: &[i64]) -> Result<(), LowerError> {
        let shown = self.shown(self.input(id, 0))?;
        let perm: Vec<usize> = perm.iter().map(|p| dim_index(*p, shown.dims.len())).collect();
        self.places.insert(self.result(id), shown.transposed(&perm));
        Ok(())
    }

    /// To the dims of the result: where the operator says 1, the operand's own dim stays.
    pub(super) fn expand(&mut self, id: NodeId) -> Result<(), LowerError> {
        let shown = self.shown(self.input(id, 0))?;
        let result = self.result(id);
        self.places.insert(result, shown.expanded(&self.graph.ty(result).dims));
        Ok(())
    }

    pub(super) fn slice(&mut self, id: NodeId, axes: &[i64], starts: &[Dim], steps: &[i64]) -> Result<(), LowerError> {
        let mut shown = self.shown(self.input(id, 0))?;
        let rank = shown.dims.len();
        for ((axis, start), step) in axes.iter().zip(starts).zip(steps) {
            let axis = dim_index(*axis, rank);
            let len = self.graph.ty(self.result(id)).dims[axis].clone();
            shown = shown.sliced(axis, start, *step, len);
        }
        self.places.insert(self.result(id), shown);
        Ok(())
    }

    /// A gather at one known index is a view; any other is elementwise.
    pub(super) fn gather_or_select(&mut self, id: NodeId, inputs: &[ValueId], axis: i64) -> Result<(), LowerError> {
        let indices = self.graph.value(inputs[1]);
        let known = match (&indices.contents, indices.ty.rank()) {
            (Some(contents), 0) => contents.first().cloned(),
            _ => None,
        };
        let Some(at) = known else { return self.elementwise(id) };
        let shown = self.shown(inputs[0])?;
        let axis = dim_index(axis, shown.dims.len());
        let at = if at.is_at_least(0) { at } else { &at + &shown.dims[axis] };
        let inside = at.is_at_least(0) && (&shown.dims[axis] - &at).is_at_least(1);
        if !inside {
            return self.elementwise(id);
        }
        self.places.insert(self.result(id), shown.selected(axis, &at));
        Ok(())
    }

    pub(super) fn concat(&mut self, id: NodeId, axis: i64) -> Result<(), LowerError> {
        let result = self.result(id);
        let dims = self.graph.ty(result).dims.clone();
        let axis = dim_index(axis, dims.len());
        let axes = self.orders.axes(result, dims.len());
        let whole = self.buffer(self.graph.ty(result).dtype, Dim::product(&dims), Source::Temp);
        let whole = Shown::along(whole, &dims, &axes);
        let mut start = Dim::from(0);
        for v in self.graph.node(id).inputs.clone() {
            let part_dims = self.graph.ty(v).dims.clone();
            let part = whole.sliced(axis, &start, 1, part_dims[axis].clone());
            let mut b = LoopBuilder::map_along(&part.dims, &axes);
            let x = self.expression(&mut b, v)?;
            b.store(&part, x);
            self.emit(b.finish(), Dim::from(0));
            start = &start + &part_dims[axis];
        }
        self.places.insert(result, whole);
        Ok(())
    }

    /// What stays of the operand, in the middle of its padding. Fewer than no elements of padding cut some off; where
    /// nothing is added, that is a view.
    pub(super) fn pad(&mut self, id: NodeId, pads: &[Dim]) -> Result<(), LowerError> {
        let (mut from, result) = (self.shown(self.input(id, 0))?, self.result(id));
        let none = Dim::default();
        let (begins, ends) = pads.split_at(from.dims.len());
        for (axis, (begin, end)) in begins.iter().zip(ends).enumerate() {
            let cut = |pad: &Dim| (&none - pad).larger(&none);
            let rest = &(&from.dims[axis] - &cut(begin)) - &cut(end);
            if rest != from.dims[axis] {
                from = from.sliced(axis, &cut(begin), 1, rest.larger(&none));
            }
        }
        if pads.iter().all(|pad| pad.larger(&none) == none) {
            self.places.insert(result, from);
            return Ok(());
        }
        let whole = self.fresh_in_order(result);
        let axes = self.orders.axes(result, whole.dims.len());
        let mut fill = LoopBuilder::map_along(&whole.dims, &axes);
        let value = match self.graph.node(id).inputs.get(1) {
            Some(v) => self.expression(&mut fill, *v)?,
            None => fill.push(Expr::Const(zero(self.graph.ty(result).dtype)?)),
        };
        fill.store(&whole, value);
        self.emit(fill.finish(), Dim::from(0));
        let mut part = whole;
        for (axis, (begin, len)) in begins.iter().zip(&from.dims).enumerate() {
            part = part.sliced(axis, &begin.larger(&none), 1, len.clone());
        }
        self.copy_into(&from, &part, &axes);
        Ok(())
    }

    /// An i64 vector of sizes.
    pub(super) fn sizes(&mut self, id: NodeId, values: &[Dim]) -> Result<(), LowerError> {
        let to = self.fresh(self.result(id));
        let count = to.dims.first().and_then(Dim::as_const).unwrap_or(0) as usize;
        let mut b = LoopBuilder::map(&[]);
        for (i, value) in values.iter().take(count).enumerate() {
            let x = b.push(Expr::Size(value.clone()));
            b.store(&to.selected(0, &(i as i64).into()), x);
        }
        self.emit(b.finish(), Dim::from(0));
        Ok(())
    }
}

/// Zero, for types that loops compute with.
pub(super) fn zero(dtype: DType) -> Result<Scalar, LowerError> {
    match dtype {
        DType::F32 => Ok(Scalar::F32(0.0)),
        DType::I64 => Ok(Scalar::I64(0)),
        DType::I32 => Ok(Scalar::I32(0)),
        DType::Bool => Ok(Scalar::Bool(false)),
        other => Err(LowerError::internal(format!("a loop over {other}"))),
    }
}
