//! How large the numbers can be that data gives: what a model makes sizes of needs memory for the largest. An
//! estimate that runs check, from the operators that made the numbers.

use std::collections::HashMap;

use eec_ir::graph::Def;
use eec_ir::{DType, Dim, Graph, NodeId, Op, Tensor, ValueId};

/// Numbers are followed through so many operators.
const MAX_DEPTH: usize = 64;

/// So many numbers are looked at for one size.
const MAX_VALUES: usize = 1 << 12;

/// The largest element that `value` can have, if its operators tell.
pub(super) fn largest(graph: &Graph, value: ValueId) -> Option<Dim> {
    Search { graph, known: HashMap::new() }.value(value, MAX_DEPTH)
}

/// Whether no element of `value` is negative, as far as its operators tell.
pub(super) fn never_negative(graph: &Graph, value: ValueId) -> bool {
    is_at_least(graph, value, 0, MAX_DEPTH)
}

struct Search<'g> {
    graph: &'g Graph,
    known: HashMap<ValueId, Option<Dim>>,
}

impl Search<'_> {
    fn value(&mut self, value: ValueId, depth: usize) -> Option<Dim> {
        if let Some(known) = self.known.get(&value) {
            return known.clone();
        }
        if self.known.len() > MAX_VALUES {
            return None;
        }
        let found = self.find(value, depth).filter(|d| d.parts() <= Dim::MAX_PARTS / 8);
        self.known.insert(value, found.clone());
        found
    }

    fn find(&mut self, value: ValueId, depth: usize) -> Option<Dim> {
        let graph = self.graph;
        if let Some(contents) = &graph.value(value).contents {
            return contents.iter().cloned().reduce(|a, b| a.larger(&b));
        }
        if let Some(tensor) = graph.as_constant(value) {
            return constant(tensor);
        }
        let of_type = || {
            let (_, most) = graph.ty(value).dtype.integer_range()?;
            (most <= 1 << 8).then(|| Dim::from(most as i64))
        };
        let depth = depth.checked_sub(1)?;
        match graph.value(value).def {
            Def::Node(node, result) => self.node(node, result, depth).or_else(of_type),
            Def::Param(..) | Def::Const(_) => of_type(),
        }
    }

    fn node(&mut self, id: NodeId, result: usize, depth: usize) -> Option<Dim> {
        let graph = self.graph;
        let node = graph.node(id);
        let dims = |i: usize| &graph.ty(node.inputs[i]).dims;
        let last = |axis: &i64| Some(along(dims(0), *axis)? - &Dim::from(1));
        match &node.op {
            Op::Cast { to: DType::F16 | DType::BF16 } => {
                // What is rounded up grows by less than this.
                let most = self.value(node.inputs[0], depth)?.larger(&Dim::default());
                Some(&(&most + &most.floor_div(&128.into())?) + &1.into())
            }
            Op::Cast { .. } | Op::Reshape { .. } | Op::Transpose { .. } | Op::Expand { .. } | Op::Slice { .. } => {
                self.value(node.inputs[0], depth)
            }
            Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherND { .. } | Op::LateSize { .. } => {
                self.value(node.inputs[0], depth)
            }
            Op::Floor {} | Op::Ceil {} | Op::Round {} | Op::ReduceMax { .. } | Op::ReduceMin { .. } => {
                self.value(node.inputs[0], depth)
            }
            Op::Relu {} => Some(self.value(node.inputs[0], depth)?.larger(&Dim::default())),
            Op::Pad { .. } => Some(self.of_all(&node.inputs, depth)?.larger(&Dim::default())),
            Op::Not {} | Op::IsNaN {} | Op::Sign {} => Some(1.into()),
            Op::Clip { max, .. } if max.is_finite() => Some((max.ceil() as i64).into()),
            Op::Min {} => match [self.value(node.inputs[0], depth), self.value(node.inputs[1], depth)] {
                [Some(a), Some(b)] => Some(a.smaller(&b)),
                [a, b] => a.or(b),
            },
            Op::Max {} | Op::Concat { .. } => self.of_all(&node.inputs, depth),
            Op::Where {} => self.of_all(&node.inputs[1..], depth),
            Op::Add {} => Some(&self.value(node.inputs[0], depth)? + &self.value(node.inputs[1], depth)?),
            Op::Sub {} => {
                // A slice that goes backwards ends at -1 at the earliest.
                let least = [0, -1].into_iter().find(|least| is_at_least(graph, node.inputs[1], *least, depth))?;
                Some(&self.value(node.inputs[0], depth)? - &least.into())
            }
            Op::Mul {} => self.product(&node.inputs, depth),
            Op::Div {} => {
                let least = graph.as_constant(node.inputs[1])?.to_f64s().into_iter().reduce(f64::min)?;
                let times = (1.0 / least).ceil().max(1.0);
                let factor = (least > 0.0 && times < Dim::LIMIT as f64).then(|| Dim::from(times as i64))?;
                Some(&self.value(node.inputs[0], depth)?.larger(&Dim::default()) * &factor)
            }
            Op::Mod { .. } => Some(self.value(node.inputs[1], depth)?.larger(&Dim::default())),
            Op::ReduceSum { axes, .. } => {
                let (one, all) = (self.value(node.inputs[0], depth)?, dims(0));
                let summed = axes.iter().map(|axis| along(all, *axis)).collect::<Option<Vec<_>>>()?;
                Some(&one.larger(&Dim::default()) * &Dim::product(summed))
            }
            Op::CumSum { axis, .. } => {
                Some(&self.value(node.inputs[0], depth)?.larger(&Dim::default()) * along(dims(0), *axis)?)
            }
            Op::ArgMax { axis, .. } => last(axis),
            Op::TopK { axis, .. } if result == 1 => last(axis),
            Op::TopK { .. } => self.value(node.inputs[0], depth),
            Op::NonZero {} | Op::Unique { .. } => Some(Dim::product(dims(0))),
            Op::NonMaxSuppression { .. } if result == 1 => along(&graph.ty(node.outputs[0]).dims, 0).cloned(),
            Op::NonMaxSuppression { .. } => {
                Some(dims(1).iter().cloned().reduce(|a, b| a.larger(&b))?.larger(&dims(0)[0]))
            }
            Op::If { .. } => {
                let given = node.regions.iter().map(|r| graph.region(*r).yields.get(result).copied());
                self.of_all(&given.collect::<Option<Vec<_>>>()?, depth)
            }
            Op::Equal {} | Op::Less {} | Op::LessOrEqual {} | Op::Greater {} | Op::GreaterOrEqual {} => Some(1.into()),
            Op::And {} | Op::Or {} => Some(1.into()),
            // Of these nothing is known, or nothing that sizes are made of.
            Op::Neg {} | Op::Abs {} | Op::Sqrt {} | Op::Reciprocal {} | Op::Exp {} | Op::Log {} | Op::Sin {} => None,
            Op::Cos {} | Op::Tanh {} | Op::Erf {} | Op::Sigmoid {} | Op::Gelu { .. } | Op::Clip { .. } => None,
            Op::Tan {} | Op::Asin {} | Op::Acos {} | Op::Atan {} | Op::Sinh {} | Op::Cosh {} => None,
            Op::Asinh {} | Op::Acosh {} | Op::Atanh {} | Op::BitwiseNot {} | Op::CastUnsaturated { .. } => None,
            Op::BitCast { .. } | Op::Pow {} | Op::BitShift { .. } | Op::BitwiseAnd {} => None,
            Op::BitwiseOr {} | Op::BitwiseXor {} | Op::MatMul { .. } | Op::Gemm { .. } | Op::Conv { .. } => None,
            Op::MaxPool { .. } | Op::AveragePool { .. } | Op::Softmax { .. } | Op::LogSoftmax { .. } => None,
            Op::LayerNormalization { .. } | Op::ReduceMean { .. } | Op::ReduceProd { .. } | Op::CumProd { .. } => None,
            Op::ScatterElements { .. } | Op::ScatterND { .. } | Op::Shape { .. } | Op::Sizes { .. } => None,
            Op::Range { .. } | Op::Route { .. } | Op::Loop { .. } => None,
            Op::DeformConv { .. } | Op::RoiAlign { .. } | Op::Det {} => None,
        }
    }

    fn of_all(&mut self, values: &[ValueId], depth: usize) -> Option<Dim> {
        let all = values.iter().map(|v| self.value(*v, depth)).collect::<Option<Vec<_>>>()?;
        all.into_iter().reduce(|a, b| a.larger(&b))
    }

    /// Of two that are not negative; a factor of at most 1 makes nothing larger.
    fn product(&mut self, operands: &[ValueId], depth: usize) -> Option<Dim> {
        let [a, b] = operands else { return None };
        for (factor, other) in [(a, b), (b, a)] {
            let scalar = self.graph.as_constant(*factor).filter(|t| t.dtype().is_float()).map(Tensor::to_f64s);
            if scalar.is_some_and(|all| all.iter().all(|x| (0.0..=1.0).contains(x))) {
                return Some(self.value(*other, depth)?.larger(&Dim::default()));
            }
        }
        let (a, b) = (self.value(*a, depth)?, self.value(*b, depth)?);
        (a.is_at_least(0) && b.is_at_least(0)).then(|| &a * &b)
    }
}

/// Whether all elements of `value` are at least `bound`, 0 or less.
fn is_at_least(graph: &Graph, value: ValueId, bound: i64, depth: usize) -> bool {
    if let Some(contents) = &graph.value(value).contents {
        return contents.iter().all(|d| d.is_at_least(bound));
    }
    if let Some(tensor) = graph.as_constant(value) {
        return tensor.to_i64s().is_some_and(|all| all.iter().all(|n| *n >= bound));
    }
    if graph.ty(value).dtype.integer_range().is_some_and(|(least, _)| least >= bound.into()) {
        return true;
    }
    let (Some(node), Some(depth)) = (graph.def_node(value), depth.checked_sub(1)) else { return false };
    let node = graph.node(node);
    let operand = |i: usize| is_at_least(graph, node.inputs[i], bound, depth);
    match &node.op {
        Op::ArgMax { .. } | Op::NonZero {} | Op::Relu {} | Op::LateSize { .. } => true,
        Op::Cast { to } => !narrows(graph.ty(node.inputs[0]).dtype, *to) && operand(0),
        Op::Reshape { .. } | Op::ReduceMax { .. } | Op::Slice { .. } | Op::Gather { .. } => operand(0),
        Op::ReduceSum { .. } => is_at_least(graph, node.inputs[0], 0, depth),
        Op::Max {} => operand(0) || operand(1),
        Op::Min {} => operand(0) && operand(1),
        Op::Where {} => operand(1) && operand(2),
        _ => false,
    }
}

/// Whether sizes of type `from` may not fit `to`, and so become negative. None is beyond 32 bits.
fn narrows(from: DType, to: DType) -> bool {
    let most = |dtype: DType| dtype.integer_range().map(|(_, most)| most.min(i32::MAX.into()));
    most(from).zip(most(to)).is_some_and(|(from, to)| from > to)
}

fn along(dims: &[Dim], axis: i64) -> Option<&Dim> {
    let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
    dims.get(usize::try_from(axis).ok()?)
}

fn constant(tensor: &Tensor) -> Option<Dim> {
    if tensor.dtype() == DType::I64 {
        return tensor.to_i64s()?.into_iter().max().filter(|n| n.abs() < Dim::LIMIT).map(Dim::from);
    }
    let most = tensor.to_f64s().into_iter().reduce(f64::max)?;
    (most.abs() < Dim::LIMIT as f64).then(|| Dim::from(most.ceil() as i64))
}
