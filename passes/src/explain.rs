//! Why passes can or cannot apply to a model, place by place: what `eec explain` shows.

use eec_ir::{Graph, Precision, cost};

use crate::ffn_gates as ffn;
use crate::pass::{Context, Pass};
use crate::select_early::SelectEarly;
use crate::simplify::Simplify;
use crate::store_weights::StoreWeights;
use crate::structure::{ExitCandidate, Structure, analyse};
use crate::token_exits::{self, Span};

const MODEL: &str = "the model";
const TOKENS: &str = "token-exits";

/// The structure; a refusal for the whole model if it has none, or no blocks.
fn structure(pass: &'static str, graph: &Graph, cx: &mut Context) -> Option<Structure> {
    match analyse(graph) {
        Ok(structure) if structure.blocks.is_empty() => cx.refused(pass, MODEL, "it has no blocks"),
        Ok(structure) => return Some(structure),
        Err(reason) => cx.refused(pass, MODEL, reason.to_string()),
    }
    None
}

fn note(pass: &'static str, block: usize, verdict: Result<String, String>, cx: &mut Context) {
    let place = format!("block {block}");
    match verdict {
        Ok(what) => cx.applies(pass, place, what),
        Err(reason) => cx.refused(pass, place, reason),
    }
}

/// After which blocks samples may leave, for any `pass` that inserts exits there.
pub fn exits(pass: &'static str, graph: &Graph, cx: &mut Context) {
    let Some(structure) = structure(pass, graph, cx) else { return };
    for block in &structure.blocks {
        let verdict = match &block.exit {
            ExitCandidate::Yes => Ok(format!("an exit can stand after it, on {}", graph.ty(block.output))),
            ExitCandidate::No(reason) => Err(reason.clone()),
        };
        note(pass, block.index, verdict, cx);
    }
}

/// Whose FFNs tokens can skip.
pub(crate) fn ffn_gates(graph: &Graph, cx: &mut Context) {
    let Some(structure) = structure(ffn::NAME, graph, cx) else { return };
    for candidate in ffn::candidates(graph, &structure) {
        let verdict = candidate.verdict.map(|()| "tokens can skip its FFN".to_string());
        note(ffn::NAME, candidate.block, verdict, cx);
    }
}

/// After which blocks visual tokens may leave.
pub(crate) fn token_exits(graph: &Graph, cx: &mut Context) {
    let Some(structure) = structure(TOKENS, graph, cx) else { return };
    let spans = Span::find(graph, &structure);
    let Some(span) = spans.first() else {
        let reason = "it has no visual tokens: no tokens from a float input are concatenated with embedded text";
        return cx.refused(TOKENS, MODEL, reason);
    };
    let what = format!("tokens {} to {} can leave after it", span.start, span.end());
    for (block, verdict) in token_exits::candidates(graph, &structure, span, true).into_iter().enumerate() {
        note(TOKENS, block, verdict.map(|()| what.clone()), cx);
    }
}

/// How many nodes simplification would remove.
pub(crate) fn simplify(graph: &Graph, cx: &mut Context) {
    let mut simple = graph.clone();
    let count = |g: &Graph| g.nodes_in_order().len();
    match Simplify.run(&mut simple, &mut Context::default()) {
        Err(error) => cx.refused(Simplify::NAME, MODEL, error.to_string()),
        Ok(_) => match (count(graph), count(&simple)) {
            (before, after) if before == after => cx.refused(Simplify::NAME, MODEL, "it is simple already"),
            (before, after) => cx.applies(Simplify::NAME, MODEL, format!("{before} nodes become {after}")),
        },
    }
}

/// How much work is for rows that nobody reads.
pub(crate) fn select_early(graph: &Graph, cx: &mut Context) {
    let mut selected = graph.clone();
    match SelectEarly.run(&mut selected, &mut Context::default()) {
        Err(error) => cx.refused(SelectEarly::NAME, MODEL, error.to_string()),
        Ok(_) => match (cost::graph_macs(graph), cost::graph_macs(&selected)) {
            (before, after) if before == after => {
                cx.refused(SelectEarly::NAME, MODEL, "no product has rows that nobody reads");
            }
            (before, after) => {
                cx.applies(SelectEarly::NAME, MODEL, format!("{before} multiply-accumulates become {after}"));
            }
        },
    }
}

/// Which products can store their weights in a narrow form.
pub(crate) fn store_weights(graph: &Graph, cx: &mut Context) {
    let pass = StoreWeights { precision: Precision::Int8 };
    for id in graph.nodes_in_order() {
        match pass.verdict(graph, id) {
            None => {}
            Some(Ok(())) => cx.applies(StoreWeights::NAME, graph.describe(id), "its weights can be stored narrow"),
            Some(Err(reason)) => cx.refused(StoreWeights::NAME, graph.describe(id), reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::pass::Verdict;

    fn verdicts(explain: impl Fn(&Graph, &mut Context), graph: &Graph) -> Vec<(String, bool)> {
        let mut cx = Context::default();
        explain(graph, &mut cx);
        cx.notes.into_iter().map(|n| (n.place, matches!(n.verdict, Verdict::Applies(_)))).collect()
    }

    #[test]
    fn every_block_has_a_verdict() {
        let graph = fixtures::vit(&fixtures::batch());
        let blocks = analyse(&graph).unwrap().blocks.len();
        let found = verdicts(|g, cx| exits("exit-heads", g, cx), &graph);
        let expected: Vec<(String, bool)> = (0..blocks).map(|b| (format!("block {b}"), b + 1 < blocks)).collect();
        assert_eq!(found, expected);
        assert_eq!(verdicts(ffn_gates, &graph).len(), blocks);
    }

    #[test]
    fn what_holds_for_the_whole_model_is_said_once() {
        let graph = fixtures::vit(&fixtures::batch());
        assert_eq!(verdicts(token_exits, &graph), [(MODEL.to_string(), false)]);
        let mut simple = graph;
        Simplify.run(&mut simple, &mut Context::default()).unwrap();
        assert_eq!(verdicts(simplify, &simple), [(MODEL.to_string(), false)]);
    }

    #[test]
    fn products_by_weights_and_others_are_told_apart() {
        let found = verdicts(store_weights, &fixtures::vit(&fixtures::batch()));
        assert!(found.iter().any(|(_, applies)| *applies) && found.iter().any(|(_, applies)| !*applies), "{found:?}");
    }
}
