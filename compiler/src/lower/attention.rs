//! Scaled dot-product attention: a product of queries and keys, perhaps scaled, perhaps masked by a sum,
//! its softmax over the last axis, and the product with values, if nothing else reads what is between.

use eec_ir::program::{Attention, Form, Scalar, View};
use eec_ir::{DType, Dim, NodeId, Op, ValueId};

use super::linear::Product;
use super::{LowerError, Lowering, dim_index};

/// An attention whose last product is not reached yet.
pub(super) struct Waiting {
    scores: Product,
    mask: Option<ValueId>,
    instead_of_nan: Option<f32>,
}

/// The nodes of an attention after the product of queries and keys.
struct Chain {
    /// Computed with it.
    nodes: Vec<NodeId>,
    scale: f32,
    mask: Option<ValueId>,
    instead_of_nan: Option<f32>,
    /// The product with values.
    last: NodeId,
}

impl Lowering<'_> {
    /// Keeps the product `id` for its attention, if it begins one.
    pub(super) fn begins_attention(&mut self, id: NodeId) -> Result<bool, LowerError> {
        if self.graph.node(id).op != Op::MATMUL {
            return Ok(false);
        }
        let Some(chain) = self.chain(id) else { return Ok(false) };
        let mut scores = self.operands(id, None)?;
        scores.scale *= chain.scale;
        self.done.extend(chain.nodes);
        let waiting = Waiting { scores, mask: chain.mask, instead_of_nan: chain.instead_of_nan };
        self.attentions.insert(chain.last, waiting);
        Ok(true)
    }

    /// What follows the scores `id` up to the product with values.
    fn chain(&self, id: NodeId) -> Option<Chain> {
        let (scores, region) = (self.result(id), self.graph.node(id).parent);
        let ty = self.graph.ty(scores);
        let batch = ty.rank().checked_sub(2)?;
        let matrices = self.graph.node(id).inputs.iter().all(|v| self.graph.ty(*v).rank() >= 2);
        if !matrices || ty.dtype != DType::F32 || !(1..=Attention::MAX_BATCH).contains(&batch) {
            return None;
        }
        let (mut value, mut nodes, mut scale, mut mask) = (scores, Vec::new(), 1.0, None);
        let mut next = self.only_consumer(value, region)?;
        if let Some((_, factor)) = self.scale_of(next) {
            (scale, value) = (factor, self.result(next));
            nodes.push(next);
            next = self.only_consumer(value, region)?;
        }
        if self.graph.node(next).op == (Op::Add {}) {
            mask = Some(self.graph.node(next).inputs.iter().copied().find(|v| *v != value)?);
            value = self.result(next);
            nodes.push(next);
            next = self.only_consumer(value, region)?;
        }
        let Op::Softmax { axis } = self.graph.node(next).op else { return None };
        let last_axis = dim_index(axis, ty.rank()) + 1 == ty.rank();
        if !last_axis || self.graph.ty(value) != ty {
            return None;
        }
        nodes.push(next);
        value = self.result(next);
        let guard = self.nan_guard(value);
        let instead_of_nan = match guard.as_ref().map(|g| g.instead) {
            Some(Scalar::F32(x)) => Some(x),
            Some(Scalar::I64(_) | Scalar::I32(_) | Scalar::Bool(_)) => return None,
            None => None,
        };
        if let Some(guard) = guard {
            nodes.extend(guard.nodes);
            value = guard.result;
        }
        let last = self.only_consumer(value, region)?;
        let node = self.graph.node(last);
        let [left, right] = node.inputs[..] else { return None };
        let product = node.op == (Op::MATMUL) && left == value && right != value;
        let same_batch = self.graph.ty(node.outputs[0]).dims.get(..batch) == Some(&ty.dims[..batch]);
        let same_rank = self.graph.ty(node.outputs[0]).rank() == ty.rank();
        let plain = product && same_rank && same_batch && self.bias_consumer(last).is_none();
        plain.then_some(Chain { nodes, scale, mask, instead_of_nan, last })
    }

    /// Emits the attention that ends with the product `id`.
    pub(super) fn attention(&mut self, id: NodeId, waiting: Waiting) -> Result<(), LowerError> {
        let Waiting { scores, mask, instead_of_nan } = waiting;
        let mask = mask.map(|v| self.shown(v)).transpose()?;
        let (v, result) = (self.shown(self.input(id, 1))?, self.result(id));
        let (q, k) = (scores.a, scores.b);
        let last = |dims: &[Dim], back: usize| dims[dims.len() - back].clone();
        let (m, d, n, width) = (last(&q.dims, 2), last(&q.dims, 1), last(&k.dims, 1), last(&v.dims, 1));
        let dims = &self.graph.ty(result).dims;
        let batch = dims[..dims.len() - 2].to_vec();
        let space = |a: &Dim, b: &Dim| batch.iter().chain([a, b]).cloned().collect::<Vec<Dim>>();
        let c = self.product_place(result, &space(&m, &width));
        let over = |shown: &super::Shown, a: &Dim, b: &Dim| -> View { shown.expanded(&space(a, b)).view };
        let macs = Dim::product([&Dim::product(&batch), &m, &n, &(&d + &width)]);
        let form = Attention {
            q: over(&q, &m, &d),
            k: over(&k, &d, &n),
            v: over(&v, &n, &width),
            mask: mask.map(|mask| over(&mask, &m, &n)),
            c: c.view,
            scale: scores.scale,
            instead_of_nan,
            batch,
            m,
            n,
            d,
            width,
        };
        self.emit(Form::Attention(form), macs);
        Ok(())
    }
}
