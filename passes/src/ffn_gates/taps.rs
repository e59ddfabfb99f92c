//! What gates are fitted on: the model with its residual stream around FFNs as outputs.

use eec_ir::Graph;

use super::FfnGateError;
use super::candidate::ffn;
use crate::structure::Structure;

/// The plain model with the residual stream before and after the FFNs of `blocks` as further outputs
/// `ffn_in.B` and `ffn_out.B`, both f32 `[tokens…, width]`.
pub fn with_taps(graph: &Graph, structure: &Structure, blocks: &[usize]) -> Result<Graph, FfnGateError> {
    let mut target = graph.clone();
    let names = graph.output_names().iter().map(|n| n.to_string());
    let mut outputs: Vec<_> = names.zip(graph.outputs().iter().copied()).collect();
    for block in blocks {
        let ffn = ffn(graph, structure, *block)?;
        for (name, value) in [("ffn_in", ffn.input), ("ffn_out", ffn.output)] {
            let name = format!("{name}.{block}");
            if outputs.iter().any(|(n, _)| *n == name) {
                return Err(FfnGateError::OutputTaken(name));
            }
            outputs.push((name, value));
        }
    }
    target.set_outputs(outputs);
    Ok(target)
}
