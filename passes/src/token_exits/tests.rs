//! The pass against models that mask the visual tokens away: extremes, mixed batches, several token
//! exits, refusals.

use eec_ir::eval::evaluate;
use eec_ir::verify::{Stage, verify};
use eec_ir::{Dim, Op, Tensor, ValueId};

use super::*;
use crate::fixtures::{self, Net, VisionLanguage, batch, int, noise, tensor};
use crate::pass::Context;
use crate::registry::Registry;
use crate::structure::analyse;

/// Text after the visual tokens, before them (with a mean at the end), and around them, of a fixed
/// and of a free length, with both kinds of masks.
fn models() -> Vec<VisionLanguage> {
    let seq = Dim::symbol("seq");
    let model = |text: [Dim; 2], mean, select| VisionLanguage { text, mean, select, blind_after: None };
    vec![
        model([int(0), int(3)], false, false),
        model([int(3), int(0)], true, true),
        model([int(2), int(3)], true, false),
        model([int(2), seq.clone()], true, true),
        model([int(0), seq], true, false),
    ]
}

fn inputs(graph: &Graph, rows: usize) -> Vec<Tensor> {
    let size = |d: &Dim| d.eval(&|s| Some(if s.as_str() == "batch" { rows as i64 } else { 3 })).unwrap() as usize;
    let make = |(i, v): (usize, &ValueId)| {
        let dims: Vec<usize> = graph.ty(*v).dims.iter().map(size).collect();
        let numbers = |n: fn(f32) -> i64| (0..dims.iter().product()).map(|k| n(noise(k, 90 + i))).collect();
        match graph.value(*v).name.as_deref() {
            Some("image") => tensor(&dims, 70, 4.0),
            // Now and then a token that does not count.
            Some("mask") => Tensor::new::<i64>(&dims, numbers(|x| i64::from(x > -0.4))).unwrap(),
            _ => Tensor::new::<i64>(&dims, numbers(|x| ((x + 0.5) * 10.9) as i64)).unwrap(),
        }
    };
    graph.inputs().iter().enumerate().map(make).collect()
}

fn span(graph: &Graph) -> Span {
    let spans = Span::find(graph, &analyse(graph).unwrap());
    assert_eq!(spans.len(), 1, "{graph}");
    spans[0].clone()
}

fn head(width: usize, classes: usize, seed: usize) -> Head {
    Head::Linear { weight: tensor(&[width, classes], seed, 2.0), bias: tensor(&[classes], seed + 1, 0.5) }
}

fn learned(block: usize, threshold: f32) -> TokenExit {
    TokenExit { block, decision: Decision::Learned { head: head(16, 2, 40 + block), threshold } }
}

fn entropy(block: usize, threshold: f32) -> TokenExit {
    TokenExit { block, decision: Decision::Entropy { head: head(8, 3, 60 + block), threshold } }
}

fn fixed(block: usize) -> TokenExit {
    TokenExit { block, decision: Decision::Always }
}

fn refused(graph: &Graph, span: Span, exits: Vec<TokenExit>) -> String {
    match apply_to(graph, &analyse(graph).unwrap(), &TokenExits { span, exits }) {
        Err(e) => e.to_string(),
        Ok(graph) => panic!("not refused:\n{graph}"),
    }
}

fn apply(graph: &Graph, exits: Vec<TokenExit>) -> Graph {
    let options = TokenExits { span: span(graph), exits };
    let made = apply_to(graph, &analyse(graph).unwrap(), &options).unwrap();
    verify(&made, Stage::Lowerable).unwrap_or_else(|e| panic!("{e}\n{made}"));
    made
}

fn run(graph: &Graph, data: &[Tensor]) -> Vec<Tensor> {
    evaluate(graph, data).unwrap()
}

fn floats(t: &Tensor) -> Vec<f32> {
    t.elements::<f32>().unwrap().into_owned()
}

fn rows(data: &[Tensor], row: usize) -> Vec<Tensor> {
    data.iter().map(|t| t.rows(row, row + 1)).collect()
}

/// The values that a decision compares with its threshold, one per row.
fn confidences(graph: &Graph, exit: impl Fn(f32) -> TokenExit, data: &[Tensor]) -> Vec<f32> {
    // Found by halving: the decision is all that can be seen from outside.
    let mut low = vec![0.0f32; data[0].dims()[0]];
    for step in 1..=12 {
        let half = 0.5f32.powi(step);
        for (row, low) in low.iter_mut().enumerate() {
            let made = apply(graph, vec![exit(*low + half)]);
            let taken = run(&made, &rows(data, row))[1].to_i64s().unwrap()[0] == 0;
            *low += if taken { half } else { 0.0 };
        }
    }
    low
}

/// A threshold that splits the rows: in the widest gap between their confidences.
fn splitting(mut found: Vec<f32>) -> f32 {
    found.sort_by(f32::total_cmp);
    let gap = (1..found.len()).max_by(|a, b| (found[*a] - found[a - 1]).total_cmp(&(found[*b] - found[b - 1])));
    let at = gap.unwrap();
    (found[at - 1] + found[at]) / 2.0
}

#[test]
fn a_fixed_token_exit_is_a_mask_without_the_span() {
    for model in models() {
        let graph = model.graph();
        let data = inputs(&graph, 3);
        for block in [0, 2] {
            let masked = VisionLanguage { blind_after: Some(block), ..model.clone() }.graph();
            let (have, want) = (run(&apply(&graph, vec![fixed(block)]), &data), run(&masked, &data));
            assert_eq!(have.len(), 1);
            assert_ne!(want, run(&graph, &data));
            let far = floats(&have[0]).iter().zip(floats(&want[0])).any(|(a, b)| (a - b).abs() > 1e-5);
            assert!(!far, "{:?} after block {block}: {have:?}, expected {want:?}", model.text);
        }
    }
}

#[test]
fn never_is_the_plain_model_and_always_the_fixed_token_exit() {
    for graph in models().iter().map(VisionLanguage::graph) {
        let data = inputs(&graph, 3);
        let exits = |threshold| [vec![learned(1, threshold)], vec![entropy(1, threshold)]];
        for never in exits(1.0) {
            let have = run(&apply(&graph, never), &data);
            assert_eq!(have[0], run(&graph, &data)[0]);
            assert_eq!(have[1].to_i64s().unwrap(), [1, 1, 1]);
        }
        for always in exits(-1.0) {
            let have = run(&apply(&graph, always), &data);
            assert_eq!(have[0], run(&apply(&graph, vec![fixed(1)]), &data)[0]);
            assert_eq!(have[1].to_i64s().unwrap(), [0, 0, 0]);
        }
    }
}

#[test]
fn rows_of_a_batch_fare_as_they_do_alone() {
    for graph in models().iter().map(VisionLanguage::graph) {
        let data = inputs(&graph, 5);
        for exit in [learned as fn(usize, f32) -> TokenExit, entropy] {
            let threshold = splitting(confidences(&graph, |t| exit(1, t), &data));
            let made = apply(&graph, vec![exit(1, threshold)]);
            let have = run(&made, &data);
            let taken = have[1].to_i64s().unwrap();
            assert!(taken.contains(&0) && taken.contains(&1), "no mixture: {taken:?}");
            let sides = [run(&apply(&graph, vec![fixed(1)]), &data), run(&graph, &data)];
            for (row, taken) in taken.iter().enumerate() {
                assert_eq!(run(&made, &rows(&data, row)), rows(&have, row));
                assert_eq!(have[0].rows(row, row + 1), sides[*taken as usize][0].rows(row, row + 1));
            }
        }
    }
}

#[test]
fn a_row_takes_the_first_token_exit_that_fires_and_no_other() {
    for graph in models().iter().map(VisionLanguage::graph) {
        let data = inputs(&graph, 6);
        let first = splitting(confidences(&graph, |t| learned(0, t), &data));
        let second = splitting(confidences(&graph, |t| entropy(1, t), &data));
        let third = splitting(confidences(&graph, |t| learned(2, t), &data));
        let exits = vec![learned(0, first), entropy(1, second), learned(2, third)];
        let alone = |exit: &TokenExit| run(&apply(&graph, vec![exit.clone()]), &data)[1].to_i64s().unwrap();
        let fires: Vec<Vec<i64>> = exits.iter().map(alone).collect();
        let want: Vec<i64> = (0..6).map(|row| (0..3).find(|k| fires[*k as usize][row] == 0).unwrap_or(3)).collect();
        let made = apply(&graph, exits);
        let have = run(&made, &data);
        assert_eq!(have[1].to_i64s().unwrap(), want);
        assert!(want.iter().any(|k| *k != want[0]), "no mixture: {want:?}");
        let mut sides: Vec<Tensor> = (0..3).map(|k| run(&apply(&graph, vec![fixed(k)]), &data).remove(0)).collect();
        sides.push(run(&graph, &data).remove(0));
        for (row, k) in want.iter().enumerate() {
            assert_eq!(have[0].rows(row, row + 1), sides[*k as usize].rows(row, row + 1), "row {row}");
            assert_eq!(run(&made, &rows(&data, row)), rows(&have, row));
        }
    }
}

#[test]
fn wrong_options_are_refused_with_their_reason() {
    let graph = models()[0].graph();
    let refuse = |exits| refused(&graph, span(&graph), exits);
    assert_eq!(refuse(vec![]), "expected at least one exit, found none");
    assert_eq!(refuse(vec![learned(9, 0.5)]), "block 9 does not exist: the model has 4 blocks");
    assert!(refuse(vec![learned(2, 0.5), learned(1, 0.5)]).contains("places must be in order of depth"));
    assert!(refuse(vec![fixed(0), fixed(1)]).contains("a fixed token exit stands alone"));
    let head = Head::Final;
    let gate = TokenExit { block: 1, decision: Decision::Learned { head, threshold: 0.5 } };
    assert!(refuse(vec![gate]).contains("a gate takes a linear or mlp head"));
    let structure = analyse(&graph).unwrap();
    for (start, len) in [(-1, 2), (0, 0), (3, 5), (0, 7)] {
        assert!(Span::at(&graph, &structure, start, len).unwrap_err().contains("are not a part"), "{start}+{len}");
    }
    assert_eq!(Span::at(&graph, &structure, 0, 4).unwrap(), span(&graph));

    let vit = fixtures::vit(&int(1));
    let span = Span::at(&vit, &analyse(&vit).unwrap(), 1, 2).unwrap();
    assert!(refused(&vit, span, vec![learned(0, 0.5)]).contains("its decision needs a symbolic batch"));
}

/// Two blocks on 2 visual tokens and 3 words, and two on the mean of all.
fn pooled_midway() -> Graph {
    let mut net = Net::new("pooled-midway");
    let image = net.input("image", eec_ir::DType::F32, &[&batch(), &int(2), &int(6)]);
    let ids = net.input("words", eec_ir::DType::I64, &[&batch(), &int(3)]);
    let table = net.weight(&[11, 6]);
    let words = net.op(Op::Gather { axis: 0 }, &[table, ids]);
    let visual = net.linear(image, 6, 6);
    let mut x = net.op(Op::Concat { axis: 1 }, &[visual, words]);
    for _ in 0..2 {
        x = net.pre_norm_block(x, 2, 3);
    }
    x = net.op(Op::ReduceMean { axes: vec![1], keepdims: false }, &[x]);
    for _ in 0..2 {
        let n = net.norm(x, 6);
        let f = net.ffn(n, 6, 11);
        x = net.op(Op::Add {}, &[x, f]);
    }
    let y = net.linear(x, 6, 3);
    net.finish(y)
}

#[test]
fn every_block_is_checked_and_the_refused_one_named() {
    let graph = models()[0].graph();
    let refusal = |block: usize, reason: &str| format!("no token exit can stand after block {block}: {reason}");
    let last = "it is the last block, the model's own tail follows";
    assert_eq!(refused(&graph, span(&graph), vec![learned(0, 0.5), learned(3, 0.5)]), refusal(3, last));
    assert_eq!(refused(&graph, span(&graph), vec![fixed(3)]), refusal(3, last));

    let longer = Span { sequence: int(9), ..span(&graph) };
    let found = "expected [batch, 9, width], found f32[batch, 7, 8]";
    assert_eq!(refused(&graph, longer, vec![learned(1, 0.5)]), refusal(1, found));

    let pooled = pooled_midway();
    let found = "expected [batch, 5, width], found f32[batch, 6]";
    assert_eq!(refused(&pooled, span(&pooled), vec![entropy(0, 0.5), entropy(2, 0.5)]), refusal(2, found));
}

#[test]
fn a_tail_that_takes_a_visual_token_is_refused() {
    // The last token of a text that may be empty may be a visual one.
    for text in [[int(3), int(0)], [int(2), Dim::symbol("seq")]] {
        let graph = VisionLanguage { text, mean: false, select: false, blind_after: None }.graph();
        let reason = refused(&graph, span(&graph), vec![learned(1, 0.5)]);
        assert!(reason.starts_with("no token exit can stand after block 1: Gather"), "{reason}");
        assert!(reason.contains("positions that are not known to stay"), "{reason}");
    }
}

#[test]
fn a_second_pass_over_a_join_is_refused() {
    let rule = "token-exits{at=[1], rule=learned:0.5}";
    let fixed = "token-exits{at=[1], rule=fixed}";
    for again in [rule, fixed, "exit-heads{at=[2], rule=maxprob:0.5}", "exit-heads{at=[0], rule=maxprob:0.5}"] {
        let mut graph = models()[0].graph();
        let passes = Registry::builtin().pipeline(&format!("{rule}, {again}")).unwrap();
        passes[0].run(&mut graph, &mut Context::default()).unwrap();
        let error = passes[1].run(&mut graph, &mut Context::default()).err().unwrap().to_string();
        assert!(error.contains("are inserted together"), "{again}: {error}");
    }
}

#[test]
fn a_model_without_visual_tokens_is_refused() {
    let bert = fixtures::bert();
    assert_eq!(Span::find(&bert, &analyse(&bert).unwrap()), []);
    assert_eq!(Span::find(&fixtures::vit(&batch()), &analyse(&fixtures::vit(&batch())).unwrap()), []);
    let mut graph = bert;
    let pass = &Registry::builtin().pipeline("token-exits{at=[1], rule=fixed}").unwrap()[0];
    assert!(pass.run(&mut graph, &mut Context::default()).unwrap_err().to_string().contains("no visual tokens"));
}

/// `graph` with FFNs that tokens skip after one that changed them little. The countdown and the
/// warm-up of every token, `[batch*tokens]`, are needed after each block.
fn with_countdown(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    let passes = Registry::builtin().pipeline("ffn-gates{at=[0, 1, 2, 3], rule=cosine:0.5/1/2}").unwrap();
    passes[0].run(&mut graph, &mut Context::default()).unwrap();
    graph
}

#[test]
fn what_ffn_gates_know_of_tokens_goes_on_with_those_that_are_left() {
    for plain in models().iter().map(VisionLanguage::graph) {
        let (graph, data) = (with_countdown(&plain), inputs(&plain, 5));
        assert_ne!(run(&graph, &data), run(&plain, &data), "no token skips");
        let structure = analyse(&graph).unwrap();
        let verdicts = candidates(&graph, &structure, &span(&graph), true);
        assert!(verdicts[..3].iter().all(Result::is_ok), "{verdicts:?}");
        let twice = |threshold| run(&apply(&graph, vec![learned(0, threshold), learned(1, threshold)]), &data);
        assert_eq!(twice(1.0)[0], run(&graph, &data)[0]);
        let left = run(&apply(&graph, vec![fixed(0)]), &data);
        assert_eq!(twice(-1.0)[0], left[0]);
        let threshold = splitting(confidences(&graph, |t| learned(1, t), &data));
        let made = apply(&graph, vec![learned(1, threshold)]);
        let have = run(&made, &data);
        let taken = have[1].to_i64s().unwrap();
        let sides = [run(&apply(&graph, vec![fixed(1)]), &data), run(&graph, &data)];
        assert!(taken.contains(&0) && taken.contains(&1), "no mixture: {taken:?}");
        for (row, taken) in taken.iter().enumerate() {
            assert_eq!(run(&made, &rows(&data, row)), rows(&have, row));
            assert_eq!(have[0].rows(row, row + 1), sides[*taken as usize][0].rows(row, row + 1));
        }
    }
}

/// Blocks on 2 visual tokens and 3 words, and FFNs that weigh the tokens by f32 `[5, batch, 1]`.
fn batch_inside() -> Graph {
    let mut net = Net::new("batch-inside");
    let image = net.input("image", eec_ir::DType::F32, &[&batch(), &int(2), &int(6)]);
    let ids = net.input("words", eec_ir::DType::I64, &[&batch(), &int(3)]);
    let weights = net.input("weights", eec_ir::DType::F32, &[&batch(), &int(5), &int(1)]);
    let table = net.weight(&[11, 6]);
    let words = net.op(Op::Gather { axis: 0 }, &[table, ids]);
    let visual = net.linear(image, 6, 6);
    let mut x = net.op(Op::Concat { axis: 1 }, &[visual, words]);
    let swap = Op::Transpose { perm: vec![1, 0, 2] };
    let weights = net.op(swap.clone(), &[weights]);
    for _ in 0..3 {
        x = net.pre_norm_block(x, 2, 3);
        let n = net.norm(x, 6);
        let n = net.op(swap.clone(), &[n]);
        let n = net.op(Op::Mul {}, &[n, weights]);
        let n = net.op(swap.clone(), &[n]);
        let f = net.ffn(n, 6, 11);
        x = net.op(Op::Add {}, &[x, f]);
    }
    let x = net.op(Op::ReduceMean { axes: vec![1], keepdims: false }, &[x]);
    let y = net.linear(x, 6, 3);
    net.finish(y)
}

#[test]
fn a_verdict_is_that_of_the_insertion() {
    let graph = batch_inside();
    let structure = analyse(&graph).unwrap();
    let span = span(&graph);
    let verdicts = candidates(&graph, &structure, &span, true);
    for (block, verdict) in verdicts.iter().enumerate().take(2) {
        let reason = verdict.as_ref().unwrap_err();
        assert!(reason.contains("the batch is not before all others in it"), "{reason}");
        let head = head(12, 2, 40);
        let exit = TokenExit { block, decision: Decision::Learned { head, threshold: 0.5 } };
        let refusal = format!("no token exit can stand after block {block}: {reason}");
        assert_eq!(refused(&graph, span.clone(), vec![exit]), refusal);
    }
    let fixed_verdicts = candidates(&graph, &structure, &span, false);
    assert!(fixed_verdicts[..2].iter().all(Result::is_ok), "{fixed_verdicts:?}");
    apply(&graph, vec![fixed(0)]);

    let vit = fixtures::vit(&int(1));
    let structure = analyse(&vit).unwrap();
    let span = Span::at(&vit, &structure, 1, 2).unwrap();
    let reason = candidates(&vit, &structure, &span, true)[0].clone().unwrap_err();
    assert_eq!(reason, "its decision needs a symbolic batch");
}

/// Why tokens 1 and 2 of five may not leave a value f32 `[batch, 5, 6]` that passes through `op`.
fn follow(op: impl Fn(&mut Net, ValueId) -> ValueId) -> Result<(), String> {
    let mut net = Net::new("one-op");
    let x = net.input("x", eec_ir::DType::F32, &[&batch(), &int(5), &int(6)]);
    let y = op(&mut net, x);
    let graph = net.finish(y);
    let span = Span { start: int(1), len: int(2), sequence: int(5) };
    let length = Symbol::new("tokens");
    Trace::new(Source { graph: &graph, batch: &batch(), span: &span, length: &length }, x).map(drop)
}

fn blocked(expected: &str, op: impl Fn(&mut Net, ValueId) -> ValueId) {
    let found = follow(op).expect_err(expected);
    assert!(found.contains(expected), "expected `{expected}`, found `{found}`");
}

fn slice(axis: i64, start: i64, end: i64) -> Op {
    Op::Slice { axes: vec![axis], starts: vec![int(start)], ends: vec![int(end)], steps: vec![1] }
}

#[test]
fn operators_that_tie_tokens_to_their_places_are_refused() {
    blocked("normalises over the sequence", |net, x| {
        let (scale, bias) = (net.weight(&[5, 6]), net.weight(&[5, 6]));
        net.op(Op::LayerNormalization { axis: 1, epsilon: 1e-5 }, &[x, scale, bias])
    });
    blocked("takes tokens of the span", |net, x| net.op(slice(1, 2, 4), &[x]));
    blocked("takes tokens of the span", |net, x| net.op(slice(1, 0, 2), &[x]));
    blocked("not known to stay", |net, x| net.select(x, 1, 1));
    blocked("not known to stay", |net, x| net.select(x, 1, -3));
    blocked("adds tokens", |net, x| net.op(Op::Concat { axis: 1 }, &[x, x]));
    blocked("not followed through", |net, x| net.op(Op::CumSum { axis: 1, exclusive: false, reverse: false }, &[x]));
    blocked("not followed through", |net, x| {
        let w = net.weight(&[3, 5, 3]);
        let op = Op::Conv { group: 1, strides: vec![1], dilations: vec![1], pads: vec![1, 1] };
        net.op(op, &[x, w])
    });
    blocked("spreads the sequence", |net, x| net.op(Op::Reshape { dims: vec![batch(), int(30)] }, &[x]));
    assert_eq!(follow(|net, x| net.op(slice(1, 0, 1), &[x])), Ok(()));
    assert_eq!(follow(|net, x| net.op(slice(1, 3, 5), &[x])), Ok(()));
    assert_eq!(follow(|net, x| net.select(x, 1, 0)), Ok(()));
    assert_eq!(follow(|net, x| net.select(x, 1, -2)), Ok(()));
    assert_eq!(follow(|net, x| net.select(x, 2, 4)), Ok(()));
}
