//! What fitting and calibration run: the model with its residual stream around FFNs as outputs, and
//! the gates' signals alone.

use eec_ir::{DType, Dim, Graph, Type};

use super::candidate::ffn;
use super::check::check_learned;
use super::{FfnGateError, LearnedGate, NAME, decide};
use crate::emit::Emit;
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

/// A graph from `ffn_in.B` (f32 `[rows, width]`) to `score.B` (f32 `[rows]`) for the gate of every
/// block, by the functions that build the gated graph. Thresholds play no part.
pub fn score_graph(gates: &[(usize, &LearnedGate)]) -> Result<Graph, FfnGateError> {
    let mut graph = Graph::new("scores");
    let mut outputs = Vec::new();
    for (block, gate) in gates {
        let first = gate.hidden.as_ref().map_or(&gate.weight, |h| &h.weight);
        let width = first.dims().first().copied().unwrap_or_default();
        check_learned(gate, *block, width)?;
        let x = graph.add_input(&format!("ffn_in.{block}"), rows_type(width));
        let mut emit = Emit::new(&mut graph, Graph::ROOT, NAME, format!("ffn.{block}"));
        outputs.push((format!("score.{block}"), decide::score(&mut emit, gate, x)?));
    }
    graph.set_outputs(outputs);
    Ok(graph)
}

/// A graph from `ffn_in.B` and `ffn_out.B` (f32 `[rows, width]`) to `cosine.B` (f32 `[rows]`) for
/// every block, by the functions that build the gated graph.
pub fn cosine_graph(blocks: &[usize], width: usize) -> Result<Graph, FfnGateError> {
    let mut graph = Graph::new("cosines");
    let mut outputs = Vec::new();
    for block in blocks {
        let x = graph.add_input(&format!("ffn_in.{block}"), rows_type(width));
        let y = graph.add_input(&format!("ffn_out.{block}"), rows_type(width));
        let mut emit = Emit::new(&mut graph, Graph::ROOT, NAME, format!("ffn.{block}"));
        outputs.push((format!("cosine.{block}"), decide::cosine(&mut emit, x, y)?));
    }
    graph.set_outputs(outputs);
    Ok(graph)
}

fn rows_type(width: usize) -> Type {
    Type::new(DType::F32, [Dim::symbol("rows"), Dim::from(width as i64)])
}
