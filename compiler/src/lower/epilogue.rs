//! Epilogues: a product or convolution that only elementwise nodes read waits for them, and takes the map
//! that computes them as its epilogue if nothing outside that map needs it.

use eec_ir::program::{Conv, Epilogue, ExprId, Form, View};
use eec_ir::{DType, Dim, NodeId, ValueId};

use super::fuse::{self, LoopBuilder};
use super::linear::Product;
use super::view::Shown;
use super::{LowerError, Lowering};

/// A product or convolution that is not computed yet; what it reads is.
pub(super) struct Waiting {
    node: NodeId,
    sum: Sum,
}

/// What makes the sums.
pub(super) enum Sum {
    Product(Product),
    /// A convolution and its multiply-accumulates.
    Conv(Box<Conv>, Dim),
}

/// A map over finished sums, `Reduced(0)` in its expressions, and which of them is the result.
pub(super) struct Then {
    map: LoopBuilder,
    result: ExprId,
}

impl Then {
    /// The map as an epilogue, its operands seen through `view`; `None` if kernels cannot compute it so.
    pub(super) fn epilogue(&self, view: &dyn Fn(&Shown) -> Option<Shown>) -> Option<Epilogue> {
        let dims = self.map.ordered_dims();
        let operand = |v: &View| Some(view(&Shown { view: v.clone(), dims: dims.clone() })?.view);
        let operands = self.map.inputs.iter().map(operand).collect::<Option<Vec<_>>>()?;
        let contiguous = |s: &Dim| matches!(s.as_const(), Some(0 | 1));
        let epilogue = Epilogue { operands, exprs: self.map.exprs.clone(), value: self.result };
        let fits = epilogue.operands.iter().all(|v| v.strides.last().is_some_and(contiguous));
        (fits && epilogue.check().is_ok()).then_some(epilogue)
    }

    /// The map as a kernel of its own, over the sums at `from`.
    fn alone(mut self, from: &Shown, to: &Shown) -> Form {
        self.map.load_sum(from);
        self.map.store(to, self.result);
        self.map.finish()
    }
}

impl Lowering<'_> {
    /// Computes the node `node`'s result `value`, or leaves it to the map that alone reads it.
    pub(super) fn sum(&mut self, node: NodeId, value: ValueId, sum: Sum) -> Result<(), LowerError> {
        let waiting = Waiting { node, sum };
        if self.feeds_a_map(value, &waiting) {
            self.waiting.insert(value, waiting);
            return Ok(());
        }
        self.finish_sum(waiting, value, None).map(drop)
    }

    /// Whether all that reads a result is elementwise over the same space, in the same region.
    fn feeds_a_map(&self, value: ValueId, waiting: &Waiting) -> bool {
        let region = self.graph.node(waiting.node).parent;
        let (ty, users) = (self.graph.ty(value), &self.uses[value.index()]);
        let pointwise = |user: &NodeId| {
            let user = self.graph.node(*user);
            user.parent == region && fuse::is_pointwise(&user.op) && self.graph.ty(user.outputs[0]).dims == ty.dims
        };
        let tiled = match &waiting.sum {
            Sum::Product(product) => {
                product.has_columns() && product.rank() == ty.rank() && !self.orders.is_last(value)
            }
            Sum::Conv(..) => true,
        };
        tiled
            && ty.dtype == DType::F32
            && !users.is_empty()
            && users.iter().all(pointwise)
            && !self.yielded.contains(&value)
    }

    /// The waiting result that nothing reads but the map that computes `value`; of several the last one,
    /// since others may be of use to it.
    pub(super) fn sum_inside(&self, value: ValueId) -> Option<ValueId> {
        let mut inside = Vec::new();
        self.collect_map(value, &mut inside);
        let operands = inside.iter().flat_map(|id| &self.graph.node(*id).inputs).copied();
        let alone = |v: &ValueId| self.uses[v.index()].iter().all(|user| inside.contains(user));
        operands.filter(|v| self.waiting.contains_key(v)).filter(alone).max()
    }

    /// The nodes that the map for `value` computes.
    fn collect_map(&self, value: ValueId, inside: &mut Vec<NodeId>) {
        let Some(id) = self.graph.def_node(value) else { return };
        inside.push(id);
        let deferred = self.graph.node(id).inputs.iter().filter(|v| self.deferred.contains_key(v));
        deferred.for_each(|v| self.collect_map(*v, inside));
    }

    /// Computes `value`, which is `result` of the map `map` over the waiting `sum`.
    pub(super) fn fuse_sum(
        &mut self,
        sum: ValueId,
        map: LoopBuilder,
        result: ExprId,
        value: ValueId,
    ) -> Result<Shown, LowerError> {
        let waiting = self.waiting.remove(&sum).ok_or_else(|| LowerError::internal("a sum has no place"))?;
        self.finish_sum(waiting, value, Some(Then { map, result }))
    }

    /// Emits what was waiting, with `then` as its epilogue or as a kernel after it; the result is `value`.
    pub(super) fn finish_sum(
        &mut self,
        waiting: Waiting,
        value: ValueId,
        then: Option<Then>,
    ) -> Result<Shown, LowerError> {
        let current = self.current.replace(waiting.node);
        let (left, place) = match waiting.sum {
            Sum::Product(product) => self.finish_product(product, value, then)?,
            Sum::Conv(conv, macs) => self.finish_conv(*conv, macs, value, then),
        };
        self.current = current;
        if let Some((then, from)) = left {
            self.emit(then.alone(&from, &place), Dim::from(0));
        }
        Ok(place)
    }

    /// Emits a convolution. Gives the map that is left to do, with what it reads, and the place of `value`.
    fn finish_conv(
        &mut self,
        mut conv: Conv,
        macs: Dim,
        value: ValueId,
        then: Option<Then>,
    ) -> (Option<(Then, Shown)>, Shown) {
        let dims = &self.graph.ty(value).dims;
        // Images, positions, channels.
        let merged = |operand: &Shown| operand.with_merged(1..dims.len() - 1);
        conv.epilogue = then.as_ref().and_then(|t| t.epilogue(&merged));
        let (y, fused) = (self.in_order(value, conv.y), conv.epilogue.is_some());
        self.emit(Form::Conv(conv), macs);
        match then.filter(|_| !fused) {
            Some(then) => (Some((then, y)), self.fresh_in_order(value)),
            None => {
                self.places.insert(value, y.clone());
                (None, y)
            }
        }
    }
}
