//! What each operator does with the token sequence.

use eec_ir::{Dim, Op, Tensor, Type, elementwise_broadcast, elementwise_unary};

use super::trace::{Axes, Axis, Source};
use crate::rows::normal;

/// One node as the rules see it, and what they find.
pub(super) struct Rule<'a> {
    pub(super) source: Source<'a>,
    /// The type of the node's first result.
    pub(super) out: &'a Type,
    /// Types of the operands, and the axes that hold the sequence; `None` for values from before the cut.
    pub(super) operands: Vec<(&'a Type, Option<Axes>)>,
    /// The second operand, if it is a constant.
    pub(super) indices: Option<&'a Tensor>,
    /// Operands from before the cut that must be shortened.
    pub(super) demands: Vec<(usize, Axes)>,
    /// The operator with the length as a symbol, if it mentions the length.
    pub(super) op: Option<Op>,
}

impl Rule<'_> {
    /// The axes of the result that hold the sequence.
    pub(super) fn apply(&mut self, op: &Op) -> Result<Axes, String> {
        match op {
            elementwise_unary!() => self.first(),
            elementwise_broadcast!() => self.broadcast(0..self.operands.len(), self.out.rank()),
            Op::MatMul { .. } => self.matmul(),
            Op::Gemm { trans_a: false, .. } => self.gemm(),
            Op::Softmax { .. } | Op::LogSoftmax { .. } => self.first(),
            Op::LayerNormalization { axis, .. } => self.layer_norm(*axis),
            Op::ReduceSum { axes, keepdims }
            | Op::ReduceMean { axes, keepdims }
            | Op::ReduceProd { axes, keepdims }
            | Op::ReduceMax { axes, keepdims }
            | Op::ReduceMin { axes, keepdims } => self.reduce(axes, *keepdims),
            Op::ArgMax { axis, keepdims } => self.arg_max(*axis, *keepdims),
            Op::Reshape { .. } => self.reshape(),
            Op::Expand { .. } => self.expand(),
            Op::Transpose { perm } => self.transpose(perm),
            Op::Concat { axis } => self.concat(*axis),
            Op::Slice { axes, starts, ends, steps } => self.slice(axes, starts, ends, steps),
            Op::Gather { axis } => self.gather(*axis),
            Op::Route { .. } => self.route(),
            Op::Gemm { trans_a: true, .. }
            | Op::Conv { .. }
            | Op::DeformConv { .. }
            | Op::RoiAlign { .. }
            | Op::Det {}
            | Op::MaxPool { .. }
            | Op::AveragePool { .. }
            | Op::CumSum { .. }
            | Op::CumProd { .. }
            | Op::TopK { .. }
            | Op::NonZero {}
            | Op::Unique { .. }
            | Op::NonMaxSuppression { .. }
            | Op::LateSize { .. }
            | Op::ScatterElements { .. }
            | Op::ScatterND { .. }
            | Op::GatherElements { .. }
            | Op::GatherND { .. }
            | Op::Pad { .. }
            | Op::Shape { .. }
            | Op::Sizes { .. }
            | Op::Range { .. }
            | Op::If { .. }
            | Op::Loop { .. } => Err("the token sequence is not followed through it".into()),
        }
    }

    fn ty(&self, operand: usize) -> &Type {
        self.operands[operand].0
    }

    /// The axes of an operand after the cut; none for one from before it.
    fn axes(&self, operand: usize) -> &[Axis] {
        self.operands.get(operand).and_then(|(_, axes)| axes.as_deref()).unwrap_or_default()
    }

    /// The axes of the first operand, unchanged.
    fn first(&self) -> Result<Axes, String> {
        Ok(self.axes(0).to_vec())
    }

    /// Asks that an operand from before the cut holds the sequence on `axis`, where it has its size.
    fn align(&mut self, operand: usize, axis: Axis) -> Result<(), String> {
        let (ty, known) = &self.operands[operand];
        let dim = &ty.dims[axis.axis];
        if dim.as_const() == Some(1) && self.source.span.sequence.as_const() != Some(1) {
            return Ok(());
        }
        if let Some(known) = known {
            let aligned = known.contains(&axis);
            return if aligned { Ok(()) } else { Err(format!("an operand of type {ty} does not hold the sequence")) };
        }
        if *dim != self.source.size(axis) {
            return Err(format!("the sequence meets size {dim} of {ty}"));
        }
        match self.demands.iter_mut().find(|(o, _)| *o == operand) {
            Some((_, axes)) if axes.contains(&axis) => {}
            Some((_, axes)) => {
                axes.push(axis);
                axes.sort_unstable();
            }
            None => self.demands.push((operand, vec![axis])),
        }
        Ok(())
    }

    /// Operands aligned at the last of `rank` axes; each must hold the sequence where one of them does.
    fn broadcast(&mut self, operands: std::ops::Range<usize>, rank: usize) -> Result<Axes, String> {
        let mut found = Axes::new();
        for o in operands.clone() {
            let shift = rank.saturating_sub(self.ty(o).rank());
            found.extend(self.axes(o).iter().map(|a| a.moved(a.axis + shift)));
        }
        found.sort_unstable();
        found.dedup();
        for o in operands {
            let shift = rank.saturating_sub(self.ty(o).rank());
            for a in &found {
                if let Some(axis) = a.axis.checked_sub(shift).filter(|axis| *axis < self.ty(o).rank()) {
                    self.align(o, a.moved(axis))?;
                }
            }
        }
        Ok(found)
    }

    /// The sequence may be among the rows, the columns, the batch dims, or summed over by both.
    fn matmul(&mut self) -> Result<Axes, String> {
        let (ra, rb, rank) = (self.ty(0).rank(), self.ty(1).rank(), self.out.rank());
        if ra < 2 || rb < 2 {
            return Err("a product with a vector is not followed".into());
        }
        let (a, b) = (self.axes(0).to_vec(), self.axes(1).to_vec());
        let summed = Axis::alone;
        if a.contains(&summed(ra - 1)) {
            self.align(1, summed(rb - 2))?;
        }
        if b.contains(&summed(rb - 2)) {
            self.align(0, summed(ra - 1))?;
        }
        if a.contains(&Axis::with_batch(ra - 1)) || b.contains(&Axis::with_batch(rb - 2)) {
            return Err("the sum runs over the batch".into());
        }
        let mut found: Axes = a.iter().filter(|x| x.axis == ra - 2).map(|x| x.moved(rank - 2)).collect();
        found.extend(b.iter().filter(|x| x.axis == rb - 1).map(|x| x.moved(rank - 1)));
        let outer = a.iter().filter(|x| x.axis + 2 < ra).chain(b.iter().filter(|x| x.axis + 2 < rb));
        match outer.count() {
            0 => Ok(found),
            _ => Err("the sequence among the batch dims of a product is not followed".into()),
        }
    }

    fn gemm(&mut self) -> Result<Axes, String> {
        let rows = self.axes(0).to_vec();
        let outside = |a: &Axis| a.axis != 0;
        if rows.iter().any(outside) || !self.axes(1).is_empty() || !self.axes(2).is_empty() {
            return Err("the sequence must be among the rows of the first operand".into());
        }
        if self.operands.len() > 2 && self.ty(2).rank() == 2 {
            rows.iter().try_for_each(|a| self.align(2, *a))?;
        }
        Ok(rows)
    }

    fn layer_norm(&mut self, axis: i64) -> Result<Axes, String> {
        let axis = normal(axis, self.ty(0).rank())?;
        if self.axes(0).iter().any(|a| a.axis >= axis) {
            return Err("it normalises over the sequence".into());
        }
        self.first()
    }

    /// A reduction over the sequence is one over the tokens that are left.
    fn reduce(&self, axes: &[i64], keepdims: bool) -> Result<Axes, String> {
        let rank = self.ty(0).rank();
        let reduced = axes.iter().map(|a| normal(*a, rank)).collect::<Result<Vec<_>, _>>()?;
        let kept = self.axes(0).iter().filter(|a| !reduced.is_empty() && !reduced.contains(&a.axis));
        if self.axes(0).iter().any(|a| a.with_batch && (reduced.is_empty() || reduced.contains(&a.axis))) {
            return Err("it reduces the batch".into());
        }
        let before = |axis: usize| if keepdims { 0 } else { reduced.iter().filter(|r| **r < axis).count() };
        Ok(kept.map(|a| a.moved(a.axis - before(a.axis))).collect())
    }

    fn arg_max(&self, axis: i64, keepdims: bool) -> Result<Axes, String> {
        let at = normal(axis, self.ty(0).rank())?;
        if self.axes(0).iter().any(|a| a.axis == at) {
            return Err("it names a position in the sequence".into());
        }
        self.reduce(&[axis], keepdims)
    }

    fn reshape(&mut self) -> Result<Axes, String> {
        let from = self.ty(0);
        let axes: Result<Axes, String> = self.axes(0).iter().map(|a| self.after_reshape(from, *a)).collect();
        let axes = axes?;
        self.op = Some(Op::Reshape { dims: self.source.with_length(&self.out.dims, &axes) });
        Ok(axes)
    }

    /// The axis of the result that holds the sequence, as the sizes before it tell.
    fn after_reshape(&self, from: &Type, axis: Axis) -> Result<Axis, String> {
        let Source { batch, span, .. } = self.source;
        let before = Dim::product(&from.dims[..axis.axis]);
        let before = if axis.with_batch { &before * batch } else { before };
        let mut product = Dim::from(1);
        for (i, dim) in self.out.dims.iter().enumerate() {
            if product == before && *dim == span.sequence {
                return Ok(Axis::alone(i));
            }
            if &product * batch == before && *dim == batch * &span.sequence {
                return Ok(Axis::with_batch(i));
            }
            product = &product * dim;
        }
        Err(format!("reshaping {from} to {} spreads the sequence over dims", self.out))
    }

    fn expand(&mut self) -> Result<Axes, String> {
        let shift = self.out.rank().saturating_sub(self.ty(0).rank());
        let axes: Axes = self.axes(0).iter().map(|a| a.moved(a.axis + shift)).collect();
        self.op = Some(Op::Expand { dims: self.source.with_length(&self.out.dims, &axes) });
        Ok(axes)
    }

    fn transpose(&self, perm: &[i64]) -> Result<Axes, String> {
        let to = |a: &Axis| perm.iter().position(|p| *p == a.axis as i64).map(|axis| a.moved(axis));
        let axes: Option<Axes> = self.axes(0).iter().map(to).collect();
        let mut axes = axes.ok_or("its permutation leaves out the sequence")?;
        axes.sort_unstable();
        Ok(axes)
    }

    fn concat(&mut self, axis: i64) -> Result<Axes, String> {
        let axis = normal(axis, self.out.rank())?;
        let found = self.broadcast(0..self.operands.len(), self.out.rank())?;
        if found.iter().any(|a| a.axis == axis) {
            return Err("it adds tokens to the sequence".into());
        }
        Ok(found)
    }

    /// Along the sequence: all of it, or a part that lies before the span or after it.
    fn slice(&mut self, axes: &[i64], starts: &[Dim], ends: &[Dim], steps: &[i64]) -> Result<Axes, String> {
        let span = self.source.span;
        let length = Dim::from(self.source.length.clone());
        let (mut starts, mut ends) = (starts.to_vec(), ends.to_vec());
        let mut left = self.axes(0).to_vec();
        for (i, axis) in axes.iter().enumerate() {
            let axis = normal(*axis, self.ty(0).rank())?;
            let Some(at) = left.iter().position(|a| a.axis == axis) else { continue };
            if left[at].with_batch {
                return Err("it cuts a dim of batch and sequence".into());
            }
            if starts[i] == Dim::default() && ends[i] == span.sequence && steps[i] == 1 {
                ends[i] = length.clone();
                continue;
            }
            left.remove(at);
            if (&starts[i] - &span.end()).is_at_least(0) && (&ends[i] - &span.end()).is_at_least(0) && steps[i] > 0 {
                let back = |d: &Dim| &(d - &span.sequence) + &length;
                (starts[i], ends[i]) = (back(&starts[i]), back(&ends[i]));
            } else if !(&span.start - &ends[i]).is_at_least(0) || steps[i] < 0 {
                return Err("it takes tokens of the span that leaves".into());
            }
        }
        self.op = Some(Op::Slice { axes: axes.to_vec(), starts, ends, steps: steps.to_vec() });
        Ok(left)
    }

    /// Along the sequence: at constant positions that stay what they are without the span.
    fn gather(&mut self, axis: i64) -> Result<Axes, String> {
        let axis = normal(axis, self.ty(0).rank())?;
        if !self.axes(1).is_empty() || self.operands[0].1.is_none() {
            return Err("its indices depend on the sequence".into());
        }
        let along = self.axes(0).iter().any(|a| a.axis == axis);
        if along && !self.positions_stay() {
            return Err("it takes tokens at positions that are not known to stay".into());
        }
        let added = self.ty(1).rank();
        let others = self.axes(0).iter().filter(|a| a.axis != axis);
        Ok(others.map(|a| if a.axis < axis { *a } else { a.moved(a.axis + added - 1) }).collect())
    }

    /// Rows that are tokens, as those of an FFN's gate: each for itself.
    fn route(&mut self) -> Result<Axes, String> {
        let rows = vec![Axis::with_batch(0)];
        for operand in 0..self.operands.len() {
            self.align(operand, rows[0])?;
        }
        let known = self.operands.iter().all(|(_, axes)| axes.as_ref().is_none_or(|a| *a == rows));
        if known { Ok(rows) } else { Err("its rows are not tokens".into()) }
    }

    /// Whether the constant indices count from an end of the sequence that the span is not between.
    fn positions_stay(&self) -> bool {
        let span = self.source.span;
        let before = |i: i64| i >= 0 && (&span.start - &Dim::from(i)).is_at_least(1);
        let after = |i: i64| i < 0 && (&(&span.sequence - &span.end()) + &Dim::from(i)).is_at_least(0);
        let indices = self.indices.and_then(|t| t.to_i64s());
        indices.is_some_and(|list| list.iter().all(|i| before(*i) || after(*i)))
    }
}
