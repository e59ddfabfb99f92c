//! Weights of products in a narrow form: constants are rounded to what it holds, and the products say so.
//!
//! What is inserted later (heads, gates) keeps 32-bit floats, as do convolutions, attention, embeddings and
//! products by a vector, which have no matrix to save.

use std::borrow::Cow;

use eec_ir::{Graph, NodeId, Op, Precision, Tensor, ValueId, ops};

use crate::pass::{Changed, Context, Pass, PassError};

/// The pass.
#[derive(Clone, Copy, Debug)]
pub struct StoreWeights {
    /// The form.
    pub precision: Precision,
}

impl StoreWeights {
    /// Its name.
    pub const NAME: &'static str = "store-weights";

    /// Whether the weights of one node can be stored in the form, or why not; `None` if it is no product.
    pub(crate) fn verdict(self, graph: &Graph, id: NodeId) -> Option<Result<(), &'static str>> {
        let node = graph.node(id);
        let (_, transposed) = self.narrowed(&node.op)?;
        Some(node.inputs.get(1).ok_or("it has no weights").and_then(|w| self.rounded(graph, *w, transposed).map(drop)))
    }

    /// Stores the weights of one product, if they can be.
    fn apply(self, graph: &mut Graph, id: NodeId, cx: &mut Context) -> Result<bool, PassError> {
        let node = graph.node(id).clone();
        let Some((op, transposed)) = self.narrowed(&node.op) else { return Ok(false) };
        let weights = node.inputs.get(1).ok_or("it has no weights");
        let weights = match weights.and_then(|w| self.rounded(graph, *w, transposed)) {
            Ok(weights) => weights,
            Err(reason) => {
                cx.refused(StoreWeights::NAME, graph.describe(id), reason);
                return Ok(false);
            }
        };
        let failed = |graph: &Graph, e: &dyn std::fmt::Display| PassError::at(StoreWeights::NAME, graph, id, e);
        let mut inputs = node.inputs.clone();
        inputs[1] = graph.constant(weights);
        let made = graph.append1(node.parent, op, &inputs, node.origin.clone());
        let value = made.map_err(|e| failed(graph, &e))?;
        graph.move_last_before(id);
        let old = node.outputs[0];
        if let Some(name) = graph.value(old).name.clone() {
            graph.set_name(value, &name);
        }
        graph.replace_uses(old, value).map_err(|e| failed(graph, &e))?;
        Ok(true)
    }

    /// The product with its weights in the form, and whether they are transposed.
    fn narrowed(self, op: &Op) -> Option<(Op, bool)> {
        let weights = self.precision;
        match *op {
            Op::MatMul { weights: Precision::F32 } => Some((Op::MatMul { weights }, false)),
            Op::Gemm { alpha, beta, trans_a, trans_b, weights: Precision::F32 } => {
                Some((Op::Gemm { alpha, beta, trans_a, trans_b, weights }, trans_b))
            }
            _ => None,
        }
    }

    /// A constant matrix rounded; the reason for other values, for one column, and where a weight is not finite
    /// or would not be.
    fn rounded(self, graph: &Graph, value: ValueId, transposed: bool) -> Result<Tensor, &'static str> {
        let tensor = constant(graph, value).ok_or("its second operand is computed")?;
        let values = tensor.elements::<f32>().ok_or("its weights are no 32-bit floats")?;
        let [rows, columns] = *tensor.dims() else { return Err("its weights are no matrix") };
        let outputs = if transposed { rows } else { columns };
        if outputs < 2 || values.is_empty() {
            return Err("it is a product by a vector");
        }
        if values.iter().any(|x| !x.is_finite()) {
            return Err("a weight is not finite");
        }
        let mut values = values.into_owned();
        self.precision.round(&mut values, columns, transposed);
        if values.iter().any(|x| !x.is_finite()) {
            return Err("a weight is larger than its form holds");
        }
        Tensor::new(tensor.dims(), values).map_err(|_| "its weights are no matrix")
    }
}

/// A constant, or what one becomes that is turned around.
fn constant(graph: &Graph, value: ValueId) -> Option<Cow<'_, Tensor>> {
    if let Some(tensor) = graph.as_constant(value) {
        return Some(Cow::Borrowed(tensor));
    }
    let node = graph.node(graph.def_node(value)?);
    let (Op::Transpose { .. }, [from]) = (&node.op, &node.inputs[..]) else { return None };
    let turned = ops::eval(&node.op, &[graph.as_constant(*from)?.clone()], &|_| None);
    turned.ok()?.into_iter().next().map(Cow::Owned)
}

impl Pass for StoreWeights {
    fn name(&self) -> &'static str {
        StoreWeights::NAME
    }

    fn keeps_origin(&self) -> bool {
        true
    }

    fn run(&self, graph: &mut Graph, cx: &mut Context) -> Result<Changed, PassError> {
        let mut changed = false;
        if self.precision != Precision::F32 {
            for id in graph.nodes_in_order() {
                changed |= self.apply(graph, id, cx)?;
            }
            graph.remove_dead();
        }
        Ok(changed.into())
    }
}

#[cfg(test)]
mod tests {
    use eec_ir::{DType, Dim, Origin, Type};

    use super::*;

    fn product(weights: Tensor, op: Op) -> Graph {
        let mut graph = Graph::new("fc");
        let x = graph.add_input("x", Type::new(DType::F32, [Dim::from(3), Dim::from(2)]));
        let w = graph.constant(weights);
        let y = graph.append1(Graph::ROOT, op, &[x, w], Origin::source("fc")).unwrap();
        graph.set_outputs(vec![("y".into(), y)]);
        graph
    }

    fn run(graph: &mut Graph, precision: Precision) -> Changed {
        StoreWeights { precision }.run(graph, &mut Context::default()).unwrap()
    }

    #[test]
    fn weights_are_rounded_once_and_the_product_says_so() {
        let mut graph = product(Tensor::new(&[2, 2], vec![1.001f32, 2.0, -3.003, 4.0]).unwrap(), Op::MATMUL);
        assert_eq!(run(&mut graph, Precision::Bf16), Changed::Yes);
        let node = graph.node(graph.def_node(graph.outputs()[0]).unwrap());
        assert_eq!(node.op, Op::MatMul { weights: Precision::Bf16 });
        let weights = graph.as_constant(node.inputs[1]).unwrap();
        assert_eq!(*weights.elements::<f32>().unwrap(), [1.0, 2.0, -3.0, 4.0]);
        assert_eq!(run(&mut graph, Precision::Bf16), Changed::No);
    }

    #[test]
    fn vectors_broken_weights_and_floats_stay() {
        let broken = Tensor::new(&[2, 2], vec![1.0, f32::NAN, 1.0, 1.0]).unwrap();
        let column = Tensor::new(&[2, 1], vec![1.001f32, 2.0]).unwrap();
        for weights in [broken, column] {
            assert_eq!(run(&mut product(weights, Op::MATMUL), Precision::Int8), Changed::No);
        }
        let large = Tensor::new(&[2, 2], vec![1.0f32, 65520.0, 1.0, 1.0]).unwrap();
        assert_eq!(run(&mut product(large.clone(), Op::MATMUL), Precision::F16), Changed::No);
        assert_eq!(run(&mut product(large, Op::MATMUL), Precision::Bf16), Changed::Yes);
        let matrix = Tensor::new(&[2, 2], vec![1.001f32; 4]).unwrap();
        assert_eq!(run(&mut product(matrix, Op::MATMUL), Precision::F32), Changed::No);
    }
}
