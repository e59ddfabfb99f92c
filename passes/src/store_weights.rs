//! Weights of products in a narrow form: constants are rounded to what it holds, and the products say so.
//!
//! What is inserted later (heads, gates) keeps 32-bit floats, as do convolutions, attention, embeddings and
//! products by a vector, which have no matrix to save.

use eec_ir::{DType, Graph, NodeId, Op, Precision, Tensor, ValueId};

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

    /// Stores the weights of one product, if they can be.
    fn apply(self, graph: &mut Graph, id: NodeId) -> Result<bool, PassError> {
        let node = graph.node(id).clone();
        let Some((op, transposed)) = self.narrowed(&node.op) else { return Ok(false) };
        let Some(weights) = node.inputs.get(1).and_then(|w| self.rounded(graph, *w, transposed)) else {
            return Ok(false);
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

    /// A constant matrix rounded; `None` for other values, for one column, and where a weight is not finite.
    fn rounded(self, graph: &Graph, value: ValueId, transposed: bool) -> Option<Tensor> {
        let tensor = graph.as_constant(value).filter(|t| t.dtype() == DType::F32)?;
        let [rows, columns] = *tensor.dims() else { return None };
        let outputs = if transposed { rows } else { columns };
        let mut values = tensor.elements::<f32>()?.into_owned();
        if outputs < 2 || values.is_empty() || values.iter().any(|x| !x.is_finite()) {
            return None;
        }
        self.precision.round(&mut values, columns, transposed);
        Tensor::new(tensor.dims(), values).ok()
    }
}

impl Pass for StoreWeights {
    fn name(&self) -> &'static str {
        StoreWeights::NAME
    }

    fn run(&self, graph: &mut Graph, _cx: &mut Context) -> Result<Changed, PassError> {
        let mut changed = false;
        if self.precision != Precision::F32 {
            for id in graph.nodes_in_order() {
                changed |= self.apply(graph, id)?;
            }
            graph.remove_dead();
        }
        Ok(changed.into())
    }
}

#[cfg(test)]
mod tests {
    use eec_ir::{Dim, Origin, Type};

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
        let matrix = Tensor::new(&[2, 2], vec![1.001f32; 4]).unwrap();
        assert_eq!(run(&mut product(matrix, Op::MATMUL), Precision::F32), Changed::No);
    }
}
