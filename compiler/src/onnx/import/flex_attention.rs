//! `FlexAttention`: an attention whose scores and probabilities graphs of the node change.
//!
//! Specification: the domain `ai.onnx.preview` of <https://onnx.ai/onnx/operators/>.

use std::collections::HashMap;

use eec_ir::{DType, Op, RegionId, ValueId};

use super::super::error::{Failure, Refusal};
use super::super::proto::NodeProto;
use super::Importer;
use super::attention::repeated_heads;
use super::control::{Body, check_count};
use super::rearrange::known_type;

impl Importer<'_> {
    /// Queries and keys are each scaled by the root of the scale, as the specification has it.
    pub(super) fn import_flex_attention(
        &mut self,
        region: RegionId,
        mut node: NodeProto,
    ) -> Result<Option<Vec<ValueId>>, Failure> {
        let has = |node: &NodeProto, name: &str| node.attribute.iter().any(|a| a.name == name);
        let mut graphs = [None, None];
        for (graph, name) in graphs.iter_mut().zip(["score_mod", "prob_mod"]) {
            if has(&node, name) {
                *graph = Some(Body::take(&mut node, name, name)?);
            }
        }
        let [score_mod, prob_mod] = graphs;
        let operands = self.operands(&node.input)?;
        let mut cx = self.context(region, node.clone(), operands);
        let (scale, precision) = (cx.float("scale")?, cx.int("softmax_precision")?.map(known_type).transpose()?);
        cx.nothing_left()?;
        let (q, k, v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
        if [q, k, v].iter().any(|x| cx.rank(*x) != 4) {
            return Err(Refusal::new("queries, keys and values need four dims").into());
        }
        let (own, size) = (cx.ty(v).dtype, cx.fixed_dim(q, 3)?);
        let group = cx.dims(q)[1].exact_div(&cx.dims(k)[1]);
        let group = group.ok_or_else(|| Refusal::new("the heads of queries are no multiple of those of keys"))?;
        let (k, v) = (repeated_heads(&mut cx, k, &group)?, repeated_heads(&mut cx, v, &group)?);
        let root = f64::from(scale.unwrap_or(1.0 / (size as f32).sqrt()).sqrt());
        let (q, k) = (cx.times(q, root)?, cx.times(k, root)?);
        let k = cx.transposed(k, &[0, 1, 3, 2])?;
        let scores = cx.emit(Op::MATMUL, &[q, k])?;
        let computed = precision.unwrap_or(if own.bits() < 32 { DType::F32 } else { own });
        let scores = cx.cast(scores, computed)?;
        let Some(scores) = self.changed(region, score_mod, scores)? else { return Ok(None) };
        let mut cx = self.context(region, node.clone(), Vec::new());
        let probabilities = cx.unary(Op::Softmax { axis: -1 }, scores)?;
        let Some(probabilities) = self.changed(region, prob_mod, probabilities)? else { return Ok(None) };
        let mut cx = self.context(region, node, Vec::new());
        let v = cx.cast(v, computed)?;
        let y = cx.emit(Op::MATMUL, &[probabilities, v])?;
        Ok(Some(vec![cx.cast(y, own)?]))
    }

    /// What a graph of one input and one output makes of `x`; `x` itself without a graph.
    fn changed(&mut self, region: RegionId, graph: Option<Body>, x: ValueId) -> Result<Option<ValueId>, Failure> {
        let Some(mut graph) = graph else { return Ok(Some(x)) };
        check_count("inputs", graph.inputs.len(), 1)?;
        check_count("results", graph.outputs.len(), 1)?;
        let nodes = std::mem::take(&mut graph.graph.node);
        let results =
            self.with_body(graph, |importer, body| importer.import_body(region, body, nodes, &[x], &HashMap::new()))?;
        Ok(results.map(|results| results[0]))
    }
}
