//! What fitting and calibration run: the model with its features as outputs, and the heads alone.

use eec_ir::{Graph, Symbol, ValueId};

use super::attach::{Attach, Scope};
use super::plan::check_candidate;
use super::signal::{self, Signal};
use super::{ExitError, Head, head};
use crate::clone::ValueMap;
use crate::emit::Emit;
use crate::structure::Structure;

/// What to capture at an exit.
#[derive(Clone, Debug)]
pub enum Tap<'h> {
    /// The pooled feature after this block, as output `feature.K`.
    Feature(usize),
    /// The logits of this head after this block, as output `logits.K`.
    Logits(usize, &'h Head),
}

/// The plain model with the pooled features after `blocks` as further outputs `feature.K`
/// (f32 `[batch, width]`). Other outputs of the model than the main one are dropped.
pub fn with_features(graph: &Graph, structure: &Structure, blocks: &[usize]) -> Result<Graph, ExitError> {
    with_taps(graph, structure, &blocks.iter().map(|b| Tap::Feature(*b)).collect::<Vec<_>>())
}

/// The plain model with what `taps` ask for as further outputs, in that order.
pub fn with_taps(graph: &Graph, structure: &Structure, taps: &[Tap]) -> Result<Graph, ExitError> {
    let mut target = graph.clone();
    let scope = whole(graph);
    let mut attach = Attach { source: graph, structure, target: &mut target, pass: "exit-heads" };
    let name = graph.output_names().get(structure.main_output).map(|n| n.to_string()).unwrap_or_default();
    let mut outputs = vec![(name, structure.output)];
    for tap in taps {
        let (block, what) = match tap {
            Tap::Feature(block) => (*block, "feature"),
            Tap::Logits(block, _) => (*block, "logits"),
        };
        check_candidate(structure, block)?;
        let name = format!("{what}.{block}");
        let value = match tap {
            Tap::Feature(_) => attach.feature(&scope, block, &name)?.0,
            Tap::Logits(_, head) => attach.logits(&scope, block, head, &name)?,
        };
        outputs.push((name, value));
    }
    target.set_outputs(outputs);
    target.remove_dead();
    Ok(target)
}

/// The scope of a graph's own clone: every value stands for itself.
pub(crate) fn whole(graph: &Graph) -> Scope {
    let map: ValueMap = (0..graph.value_count()).map(|i| (ValueId::new(i), ValueId::new(i))).collect();
    Scope { region: Graph::ROOT, map, rows: None }
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
pub fn head_graph(heads: &[HeadInput], signal: Signal) -> Result<Graph, ExitError> {
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

fn fitted_logits(graph: &mut Graph, batch: &Symbol, block: usize, head: &Head) -> Result<ValueId, ExitError> {
    let misfit = |reason: &str| ExitError::Head { head: head.name(), block, reason: reason.to_string() };
    let width = head.width().ok_or_else(|| misfit("expected a head that takes a feature"))?;
    let x = graph.add_input(&format!("feature.{block}"), head::matrix_type(batch, width));
    let mut emit = Emit::new(graph, Graph::ROOT, "exit-heads", format!("exit.{block}"));
    head::on_feature(&mut emit, head, x)?.ok_or_else(|| misfit("expected a head that takes a feature"))
}
