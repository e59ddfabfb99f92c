//! What fitting and calibration run: the model with its features as outputs, and the heads alone.

use eec_ir::{Graph, Symbol, ValueId};

use super::signal::{self, Signal};
use super::{Head, head};
use crate::insert::{Attach, Emit, InsertError, check_candidate, whole};
use crate::structure::Structure;

/// What to capture at an exit.
#[derive(Clone, Debug)]
pub enum Tap<'h> {
    /// The pooled feature after this block, as output `feature.K`.
    Feature(usize),
    /// The logits of this head after this block, as output `logits.K`.
    Logits(usize, &'h Head),
}

impl Tap<'_> {
    /// The block.
    pub fn block(&self) -> usize {
        let (Tap::Feature(block) | Tap::Logits(block, _)) = self;
        *block
    }

    /// The name of its output.
    pub fn output(&self) -> String {
        match self {
            Tap::Feature(block) => format!("feature.{block}"),
            Tap::Logits(block, _) => format!("logits.{block}"),
        }
    }
}

/// The plain model with the pooled features after `blocks` as further outputs `feature.K`
/// (f32 `[batch, width]`). Other outputs of the model than the main one are dropped.
pub fn with_features(graph: &Graph, structure: &Structure, blocks: &[usize]) -> Result<Graph, InsertError> {
    with_taps(graph, structure, &blocks.iter().map(|b| Tap::Feature(*b)).collect::<Vec<_>>())
}

/// The plain model with what `taps` ask for as further outputs, in that order.
pub fn with_taps(graph: &Graph, structure: &Structure, taps: &[Tap]) -> Result<Graph, InsertError> {
    let mut target = graph.clone();
    let scope = whole(graph);
    let mut attach = Attach { source: graph, structure, target: &mut target, pass: "exit-heads", ops: None };
    let name = graph.output_names().get(structure.main_output).map(|n| n.to_string()).unwrap_or_default();
    let mut outputs = vec![(name, structure.output)];
    for tap in taps {
        check_candidate(structure, tap.block())?;
        outputs.push((tap.output(), attach.tap(&scope, tap)?));
    }
    target.set_outputs(outputs);
    target.remove_dead();
    Ok(target)
}

/// An exit's classifier for [`head_graph`].
#[derive(Clone, Debug)]
pub enum HeadInput<'h> {
    /// A fitted head of the block, from the input `feature.K`.
    Fitted(usize, &'h Head),
    /// The logits themselves, from the input `logits.K`, of so many classes.
    Logits(usize, usize),
}

/// A graph from `feature.K` (f32 `[batch, width]`) or `logits.K` (f32 `[batch, classes]`) to
/// `confidence.K` (f32 `[batch]`) and `class.K` (i64 `[batch]`) for every head, built by the
/// functions that build the dynamic graph, so that its confidences are equal to the last bit.
pub fn head_graph(heads: &[HeadInput], signal: Signal) -> Result<Graph, InsertError> {
    let mut graph = Graph::new("heads");
    let batch = Symbol::new("batch");
    let mut outputs = Vec::new();
    for input in heads {
        let (block, logits) = match input {
            HeadInput::Logits(block, classes) => {
                let ty = head::matrix_type(&batch, *classes);
                (*block, graph.add_input(&format!("logits.{block}"), ty))
            }
            HeadInput::Fitted(block, head) => (*block, fitted_logits(&mut graph, &batch, *block, head)?),
        };
        let mut emit = Emit::new(&mut graph, Graph::ROOT, "exit-heads", format!("exit.{block}"));
        outputs.push((format!("confidence.{block}"), signal::confidence(&mut emit, signal, logits)?));
        outputs.push((format!("class.{block}"), signal::class(&mut emit, logits)?));
    }
    graph.set_outputs(outputs);
    Ok(graph)
}

fn fitted_logits(graph: &mut Graph, batch: &Symbol, block: usize, head: &Head) -> Result<ValueId, InsertError> {
    let misfit = |reason: &str| InsertError::Head { head: head.name(), block, reason: reason.to_string() };
    let width = head.width().ok_or_else(|| misfit("expected a head that takes a feature"))?;
    let x = graph.add_input(&format!("feature.{block}"), head::matrix_type(batch, width));
    let mut emit = Emit::new(graph, Graph::ROOT, "exit-heads", format!("exit.{block}"));
    head::on_feature(&mut emit, head, x)?.ok_or_else(|| misfit("expected a head that takes a feature"))
}
