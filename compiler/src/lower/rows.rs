//! Row reductions: softmax, layer normalisation, sums, means, extremes.

use eec_ir::program::{BinaryFn, Expr, ExprId, ReductionFn, Scalar, UnaryFn};
use eec_ir::{Dim, NodeId, Op, ValueId};

use super::fuse::{LoopBuilder, scalar_of};
use super::view::Shown;
use super::{LowerError, Lowering, dim_index};

/// Which reduction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sum,
    Mean,
    Max,
    Min,
    ArgMax,
}

/// A replacement of NaN by a constant.
pub(super) struct Guard {
    pub(super) nodes: [NodeId; 2],
    pub(super) instead: Scalar,
    pub(super) result: ValueId,
}

impl Lowering<'_> {
    pub(super) fn softmax(&mut self, id: NodeId, axis: i64, log: bool) -> Result<(), LowerError> {
        let dims = self.graph.ty(self.input(id, 0)).dims.clone();
        let mut b = LoopBuilder::rows(&dims, &[dim_index(axis, dims.len())]);
        let x = self.expression(&mut b, self.input(id, 0))?;
        let max = b.reduce(ReductionFn::Max, x);
        let shifted = b.binary(BinaryFn::Sub, x, max);
        let exp = b.unary(UnaryFn::Exp, shifted);
        let sum = b.reduce(ReductionFn::Sum, exp);
        let y = if log {
            let log_sum = b.unary(UnaryFn::Log, sum);
            b.binary(BinaryFn::Sub, shifted, log_sum)
        } else {
            b.binary(BinaryFn::Div, exp, sum)
        };
        let (y, to) = match self.nan_guard(self.result(id)) {
            Some(guard) => {
                let (nan, instead) = (b.unary(UnaryFn::IsNaN, y), b.push(Expr::Const(guard.instead)));
                self.done.extend(guard.nodes);
                (b.push(Expr::Select(nan, instead, y)), self.fresh(guard.result))
            }
            None => (y, self.fresh(self.result(id))),
        };
        b.store(&to, y);
        self.emit(b.finish(), Dim::from(0));
        Ok(())
    }

    /// The guard of `value` against NaN, `Where(IsNaN(x), c, x)`, that exporters write after a softmax
    /// whose rows may be masked as a whole; nothing else reads `value`.
    pub(super) fn nan_guard(&self, value: ValueId) -> Option<Guard> {
        let region = self.graph.node(self.graph.def_node(value)?).parent;
        let users = &self.uses[value.index()];
        let is_nan = users.iter().copied().find(|n| self.graph.node(*n).op == Op::IsNaN {})?;
        let condition = self.result(is_nan);
        let chosen = self.only_consumer(condition, region)?;
        let alone = users.iter().all(|n| [is_nan, chosen].contains(n)) && !self.yielded.contains(&value);
        let node = self.graph.node(chosen);
        let ([c, instead, x], true) = (node.inputs.as_slice(), node.op == Op::Where {}) else { return None };
        let same_type = self.graph.ty(value) == self.graph.ty(node.outputs[0]);
        if !(alone && same_type && *c == condition && *x == value) {
            return None;
        }
        let instead = self.graph.as_constant(*instead).and_then(scalar_of)?;
        Some(Guard { nodes: [is_nan, chosen], instead, result: node.outputs[0] })
    }

    pub(super) fn layer_norm(&mut self, id: NodeId, axis: i64, epsilon: f32) -> Result<(), LowerError> {
        let dims = self.graph.ty(self.input(id, 0)).dims.clone();
        let inner: Vec<usize> = (dim_index(axis, dims.len())..dims.len()).collect();
        let mut b = LoopBuilder::rows(&dims, &inner);
        let x = self.expression(&mut b, self.input(id, 0))?;
        let n = b.inner_len();
        let mean = mean_of(&mut b, x, n);
        let centred = b.binary(BinaryFn::Sub, x, mean);
        let square = b.binary(BinaryFn::Mul, centred, centred);
        let variance = mean_of(&mut b, square, n);
        let epsilon = b.f32(epsilon);
        let sum = b.binary(BinaryFn::Add, variance, epsilon);
        let root = b.unary(UnaryFn::Sqrt, sum);
        let inverse = b.unary(UnaryFn::Reciprocal, root);
        let mut y = b.binary(BinaryFn::Mul, centred, inverse);
        for (i, f) in [(1, BinaryFn::Mul), (2, BinaryFn::Add)] {
            if let Some(v) = self.graph.node(id).inputs.get(i).copied() {
                let v = self.expression(&mut b, v)?;
                y = b.binary(f, y, v);
            }
        }
        let to = self.fresh(self.result(id));
        b.store(&to, y);
        self.emit(b.finish(), Dim::from(0));
        Ok(())
    }

    pub(super) fn reduce(&mut self, id: NodeId, axes: &[i64], kind: Kind) -> Result<(), LowerError> {
        let dims = self.graph.ty(self.input(id, 0)).dims.clone();
        let mut inner: Vec<usize> = axes.iter().map(|a| dim_index(*a, dims.len())).collect();
        inner.sort_unstable();
        let mut b = LoopBuilder::rows(&dims, &inner);
        let x = self.expression(&mut b, self.input(id, 0))?;
        let y = match kind {
            Kind::Sum => b.reduce(ReductionFn::Sum, x),
            Kind::Max => b.reduce(ReductionFn::Max, x),
            Kind::Min => b.reduce(ReductionFn::Min, x),
            Kind::ArgMax => b.reduce(ReductionFn::ArgMax, x),
            Kind::Mean => {
                let n = b.inner_len();
                mean_of(&mut b, x, n)
            }
        };
        let to = self.fresh(self.result(id));
        let outer: Vec<Dim> = (0..dims.len()).filter(|a| !inner.contains(a)).map(|a| dims[a].clone()).collect();
        b.store_row(&Shown::dense(to.view.buffer, &outer), y);
        self.emit(b.finish(), Dim::from(0));
        Ok(())
    }
}

fn mean_of(b: &mut LoopBuilder, x: ExprId, n: ExprId) -> ExprId {
    let sum = b.reduce(ReductionFn::Sum, x);
    b.binary(BinaryFn::Div, sum, n)
}
