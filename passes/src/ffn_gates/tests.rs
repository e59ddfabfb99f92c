//! The pass against per-token references: extremes, every rule, warm-up with a past, refusals.

use eec_ir::eval::evaluate;
use eec_ir::verify::{Stage, verify};
use eec_ir::{DType, Dim, Op, Tensor, ValueId};

use super::*;
use crate::clone::{ValueMap, clone_nodes};
use crate::fixtures::{self, Net, batch, int, noise, tensor};
use crate::structure::{analyse, flow};

/// Inputs for a fixture.
fn inputs(graph: &Graph, rows: usize) -> Vec<Tensor> {
    let size = |d: &Dim| match d.eval(&|s| {
        Some(["batch", "seq", "past"].iter().position(|n| *n == s.as_str()).map_or(1, |i| [rows, 4, 3][i] as i64))
    }) {
        Some(n) => n as usize,
        None => panic!("no size for {d}"),
    };
    let make = |(i, v): (usize, &ValueId)| {
        let dims: Vec<usize> = graph.ty(*v).dims.iter().map(size).collect();
        let count = dims.iter().product();
        match graph.ty(*v).dtype {
            DType::F32 => tensor(&dims, 100 + i, 4.0),
            _ => Tensor::new(&dims, (0..count).map(|i| ((noise(i, 55) + 0.5) * 9.0) as i64).collect()).unwrap(),
        }
    };
    graph.inputs().iter().enumerate().map(make).collect()
}

fn replacement(block: usize) -> Replacement {
    Replacement {
        down: tensor(&[6, 2], 10 + block, 1.0),
        down_bias: tensor(&[2], 20 + block, 1.0),
        activation: (block == 1).then_some(Activation::GeluTanh),
        up: tensor(&[2, 6], 30 + block, 1.0),
        up_bias: tensor(&[6], 40 + block, 1.0),
    }
}

fn gates(blocks: &[usize], replaced: bool) -> Vec<Gate> {
    blocks.iter().map(|b| Gate { block: *b, replacement: replaced.then(|| replacement(*b)) }).collect()
}

fn learned(blocks: &[usize], threshold: f32) -> Rule {
    let gate = |b: &usize| LearnedGate {
        hidden: (b % 2 == 1).then(|| HiddenLayer {
            weight: tensor(&[6, 3], 50 + b, 2.0),
            bias: tensor(&[3], 60 + b, 1.0),
            activation: Activation::Relu,
        }),
        weight: tensor(&[if b % 2 == 1 { 3 } else { 6 }, 1], 70 + b, 2.0),
        bias: 0.05,
        threshold,
    };
    Rule::Learned { gates: blocks.iter().map(gate).collect() }
}

fn apply(graph: &Graph, options: &FfnGates) -> Graph {
    let gated = apply_to(graph, &analyse(graph).unwrap(), options).unwrap();
    verify(&gated, Stage::Lowerable).unwrap_or_else(|e| panic!("{e}\n{gated}"));
    gated
}

fn models() -> Vec<Graph> {
    vec![fixtures::vit(&batch()), fixtures::bert(), fixtures::vit(&int(1)), fixtures::decoder(true), rows_only()]
}

/// Residual FFNs on rows f32 `[batch, 6]`, without attention.
fn rows_only() -> Graph {
    let mut net = Net::new("rows");
    let mut x = net.input("x", DType::F32, &[&batch(), &int(6)]);
    for _ in 0..3 {
        let n = net.norm(x, 6);
        let f = net.ffn(n, 6, 9);
        x = net.op(Op::Add {}, &[x, f]);
    }
    let y = net.linear(x, 6, 3);
    net.finish(y)
}

fn batch_of(graph: &Graph) -> usize {
    if graph.ty(graph.inputs()[0]).dims[0] == batch() { 3 } else { 1 }
}

fn all_blocks(graph: &Graph) -> Vec<usize> {
    (0..analyse(graph).unwrap().blocks.len()).collect()
}

#[test]
fn never_is_the_plain_model_and_always_the_static_edit() {
    for graph in models() {
        let (blocks, data) = (all_blocks(&graph), inputs(&graph, batch_of(&graph)));
        let plain = evaluate(&graph, &data).unwrap();
        for (granularity, replaced) in
            [(Granularity::Row, false), (Granularity::Row, true), (Granularity::All, false), (Granularity::All, true)]
        {
            let run = |blocks: &[usize], rule: Rule| {
                let options = FfnGates { gates: gates(blocks, replaced), rule, granularity };
                evaluate(&apply(&graph, &options), &data).unwrap()
            };
            let edited = run(&blocks, Rule::Static);
            assert_ne!(edited, plain, "{}", graph.name);
            assert_eq!(run(&blocks, learned(&blocks, f32::INFINITY)), plain, "{}", graph.name);
            assert_eq!(run(&blocks, learned(&blocks, f32::NEG_INFINITY)), edited, "{}", graph.name);
            let cosine = |threshold| Rule::Cosine { threshold, skip_next: 9, warm_up: 0 };
            assert_eq!(run(&blocks, cosine(2.0)), plain, "{}", graph.name);
            assert_eq!(run(&blocks, cosine(-2.0)), run(&blocks[1..], Rule::Static), "{}", graph.name);
        }
    }
}

#[test]
fn a_static_edit_has_no_decision_and_none_of_the_ffns_nodes() {
    let graph = fixtures::vit(&batch());
    let s = analyse(&graph).unwrap();
    let options = FfnGates { gates: gates(&[0, 2], false), rule: Rule::Static, granularity: Granularity::Row };
    let edited = apply(&graph, &options);
    let gone: usize = [0, 2].iter().map(|b| s.blocks[*b].ffn().unwrap().part.nodes.len()).sum();
    assert_eq!(edited.nodes_in_order().len(), graph.nodes_in_order().len() - gone);
    assert!(edited.nodes_in_order().iter().all(|n| !edited.node(*n).op.is_control()));
}

/// The part of `graph` from one value to another, as a model.
fn piece(graph: &Graph, from: ValueId, to: ValueId) -> Graph {
    let mut target = Graph::new("piece");
    let x = target.add_input("x", graph.ty(from).clone());
    let mut map = ValueMap::from([(from, x)]);
    let nodes = flow::between(graph, from, to);
    clone_nodes(graph, &nodes, &mut target, Graph::ROOT, &mut map, crate::clone::Changes::default()).unwrap();
    target.set_outputs(vec![("y".into(), map[&to])]);
    target
}

fn floats(t: &Tensor) -> Vec<f32> {
    t.elements::<f32>().unwrap().into_owned()
}

/// A transformer of width 6 run sub-block by sub-block; `skips` is told of every token at every FFN
/// the residual stream before and after it, and says whether it is skipped.
fn by_hand(graph: &Graph, data: &Tensor, mut skips: impl FnMut(usize, usize, &[f32], &[f32]) -> bool) -> Tensor {
    let s = analyse(graph).unwrap();
    let step = |from, to, x: &Tensor| evaluate(&piece(graph, from, to), std::slice::from_ref(x)).unwrap().remove(0);
    let mut x = step(graph.inputs()[0], s.blocks[0].input, data);
    for (b, block) in s.blocks.iter().enumerate() {
        let ffn = block.ffn().unwrap();
        let before = step(block.input, ffn.input, &x);
        let after = step(ffn.input, ffn.output, &before);
        let (mut stream, after) = (floats(&before), floats(&after));
        for (token, (x, y)) in stream.chunks_mut(6).zip(after.chunks(6)).enumerate() {
            if !skips(b, token, x, y) {
                x.copy_from_slice(y);
            }
        }
        x = Tensor::new(before.dims(), stream).unwrap();
    }
    step(s.tail_input(), s.output, &x)
}

fn cos(x: &[f32], y: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(x, y) / (dot(x, x).sqrt() * dot(y, y).sqrt())
}

#[test]
fn the_cosine_rule_counts_down_token_by_token() {
    let (graph, data) = (fixtures::vit(&batch()), tensor(&[4, 5, 7], 100, 4.0));
    let mut seen = Vec::new();
    by_hand(&graph, &data, |_, _, x, y| {
        seen.push(cos(x, y));
        false
    });
    seen.sort_by(f64::total_cmp);
    // Between two cosines that are well apart, near the middle.
    let middle = seen.len() / 3..seen.len() * 2 / 3;
    let gap = middle.max_by(|a, b| (seen[a + 1] - seen[*a]).total_cmp(&(seen[b + 1] - seen[*b]))).unwrap();
    let threshold = ((seen[gap] + seen[gap + 1]) / 2.0) as f32;
    for (blocks, skip_next, warm_up) in
        [(vec![0, 1, 2], 1, 0), (vec![0, 1, 2], 2, 0), (vec![0, 2], 1, 0), (vec![0, 1, 2], 2, 3)]
    {
        let (mut left, mut skipped) = ([0usize; 20], 0);
        let want = by_hand(&graph, &data, |b, token, x, y| {
            if !blocks.contains(&b) {
                return false;
            }
            let skip = left[token] > 0 && token % 5 >= warm_up;
            let restarted = !skip && cos(x, y) >= f64::from(threshold);
            left[token] = if restarted { skip_next } else { left[token].saturating_sub(1) };
            skipped += usize::from(skip);
            skip
        });
        let rule = Rule::Cosine { threshold, skip_next, warm_up };
        let options = FfnGates { gates: gates(&blocks, false), rule, granularity: Granularity::Row };
        let have = evaluate(&apply(&graph, &options), std::slice::from_ref(&data)).unwrap().remove(0);
        assert_eq!(have, want, "{blocks:?}, {skip_next}, {warm_up}");
        assert!((4..40).contains(&skipped), "{skipped} skips are no mixture");
    }
}

/// A gate's score of a token, in double precision.
fn score(gate: &LearnedGate, x: &[f32]) -> f64 {
    let dense = |x: &[f64], weight: &Tensor, bias: &[f32]| -> Vec<f64> {
        let (w, width) = (floats(weight), bias.len());
        let column = |j: usize| x.iter().enumerate().map(|(i, x)| x * f64::from(w[i * width + j])).sum::<f64>();
        bias.iter().enumerate().map(|(j, b)| column(j) + f64::from(*b)).collect()
    };
    let mut feature: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    if let Some(hidden) = &gate.hidden {
        assert_eq!(hidden.activation, Activation::Relu);
        feature = dense(&feature, &hidden.weight, &floats(&hidden.bias)).into_iter().map(|h| h.max(0.0)).collect();
    }
    dense(&feature, &gate.weight, &[gate.bias])[0]
}

#[test]
fn learned_gates_decide_token_by_token() {
    let (graph, data) = (fixtures::vit(&batch()), tensor(&[4, 5, 7], 100, 4.0));
    let blocks = [0, 1, 2];
    let Rule::Learned { gates: mut classifiers } = learned(&blocks, 0.0) else { panic!("learned") };
    // Thresholds in the middle of what the plain model's tokens score.
    let mut scores = [const { Vec::new() }; 3];
    by_hand(&graph, &data, |b, _, x, _| {
        scores[b].push(score(&classifiers[b], x));
        false
    });
    for (gate, scores) in classifiers.iter_mut().zip(&mut scores) {
        scores.sort_by(f64::total_cmp);
        gate.threshold = ((scores[9] + scores[10]) / 2.0) as f32;
    }
    let mut skipped = [0; 3];
    let want = by_hand(&graph, &data, |b, _, x, _| {
        let skip = score(&classifiers[b], x) > f64::from(classifiers[b].threshold);
        skipped[b] += usize::from(skip);
        skip
    });
    assert!(skipped.iter().all(|n| (1..20).contains(n)), "no mixture: {skipped:?}");
    let rule = Rule::Learned { gates: classifiers };
    let options = FfnGates { gates: gates(&blocks, false), rule, granularity: Granularity::Row };
    let gated = apply(&graph, &options);
    let have = evaluate(&gated, std::slice::from_ref(&data)).unwrap().remove(0);
    assert_eq!(have, want);
    for row in 0..4 {
        let alone = evaluate(&gated, &[data.rows(row, row + 1)]).unwrap().remove(0);
        assert_eq!(alone, have.rows(row, row + 1), "row {row}");
    }
}

#[test]
fn all_rows_must_agree() {
    let (graph, data) = (rows_only(), tensor(&[4, 6], 100, 4.0));
    let options =
        |granularity| FfnGates { gates: gates(&[0, 1, 2], false), rule: learned(&[0, 1, 2], 0.1), granularity };
    let (all, row) = (apply(&graph, &options(Granularity::All)), apply(&graph, &options(Granularity::Row)));
    let one = |g: &Graph, r| evaluate(g, &[data.rows(r, r + 1)]).unwrap();
    assert!((0..4).all(|r| one(&all, r) == one(&row, r)), "a batch of one decides for itself");
    let run = |g: &Graph| evaluate(g, std::slice::from_ref(&data)).unwrap();
    assert_eq!(run(&all), run(&graph), "here at every gate some row wants to stay");
    assert_ne!(run(&row), run(&graph));
}

#[test]
fn a_warm_up_counts_the_past() {
    let graph = fixtures::decoder(true);
    let data = inputs(&graph, 2);
    let blocks = [0, 1];
    let run = |gates: Vec<Gate>, rule| {
        evaluate(&apply(&graph, &FfnGates { gates, rule, granularity: Granularity::Row }), &data).unwrap()
    };
    let plain = evaluate(&graph, &data).unwrap();
    let edited = run(gates(&blocks[1..], false), Rule::Static);
    // The past has 3 tokens and the run adds positions 3 and 4.
    for (warm_up, skips) in [(0, [true, true]), (3, [true, true]), (4, [false, true]), (5, [false, false])] {
        let have = run(gates(&blocks, false), Rule::Cosine { threshold: -2.0, skip_next: 1, warm_up });
        assert_eq!(have[1..], plain[1..], "states do not depend on the last FFN");
        let per_token = |t: &Tensor| floats(t).chunks(3).map(<[f32]>::to_vec).collect::<Vec<_>>();
        let (have, plain, edited) = (per_token(&have[0]), per_token(&plain[0]), per_token(&edited[0]));
        for (i, have) in have.iter().enumerate() {
            let want = if skips[i % 2] { &edited[i] } else { &plain[i] };
            assert_eq!(have, want, "token {i} with a warm-up of {warm_up}");
        }
    }
}

#[test]
fn taps_are_the_stream_around_the_ffns() {
    let (graph, data) = (fixtures::vit(&batch()), tensor(&[2, 5, 7], 100, 4.0));
    let tapped = with_taps(&graph, &analyse(&graph).unwrap(), &[1]).unwrap();
    let names: Vec<&str> = tapped.output_names().iter().map(|n| &**n).collect();
    assert_eq!(names, ["logits", "ffn_in.1", "ffn_out.1"]);
    let outputs = evaluate(&tapped, std::slice::from_ref(&data)).unwrap();
    let mut around = [Vec::new(), Vec::new()];
    by_hand(&graph, &data, |b, _, x, y| {
        if b == 1 {
            around[0].extend_from_slice(x);
            around[1].extend_from_slice(y);
        }
        false
    });
    assert_eq!([floats(&outputs[1]), floats(&outputs[2])], around);
}

#[test]
fn the_cosine_with_zero_is_zero() {
    let mut graph = Graph::new("cosines");
    let ty = eec_ir::Type::new(DType::F32, [batch(), int(6)]);
    let [x, y] = ["x", "y"].map(|name| graph.add_input(name, ty.clone()));
    let mut emit = crate::emit::Emit::new(&mut graph, Graph::ROOT, NAME, "ffn.0".into());
    let cosine = decide::cosine(&mut emit, x, y).unwrap();
    graph.set_outputs(vec![("cosine".into(), cosine)]);
    let (zero, one) = (Tensor::new(&[1, 6], vec![0.0f32; 6]).unwrap(), Tensor::new(&[1, 6], vec![1.0f32; 6]).unwrap());
    for pair in [[zero.clone(), zero.clone()], [zero, one]] {
        assert_eq!(floats(&evaluate(&graph, &pair).unwrap()[0]), [0.0]);
    }
}

#[test]
fn gates_know_their_pass() {
    let graph = fixtures::bert();
    let rule = Rule::Cosine { threshold: 0.9, skip_next: 1, warm_up: 2 };
    let gated = apply(&graph, &FfnGates { gates: gates(&[0, 1], true), rule, granularity: Granularity::Row });
    let inserted =
        gated.nodes_in_order().iter().filter(|n| gated.node(**n).origin.pass.as_deref() == Some(NAME)).count();
    let own = gated.nodes_in_order().len() - inserted;
    assert_eq!(own, graph.nodes_in_order().len());
    let ids: Vec<_> = gated.nodes_in_order().into_iter().filter(|n| gated.node(*n).op.is_control()).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.iter().all(|n| gated.node(*n).op.exit().is_none()));
}

/// One residual FFN whose inner value [batch, 5, 6] passes through `mix`, between two plain ones.
fn mixed(mix: impl Fn(&mut Net, ValueId) -> ValueId) -> Vec<Candidate> {
    let mut net = Net::new("mixed");
    let mut x = net.input("x", DType::F32, &[&batch(), &int(5), &int(6)]);
    for i in 0..3 {
        let mut y = net.ffn(x, 6, 7);
        if i == 1 {
            y = mix(&mut net, y);
        }
        x = net.op(Op::Add {}, &[x, y]);
    }
    let x = net.select(x, 1, 0);
    let y = net.linear(x, 6, 3);
    let graph = net.finish(y);
    candidates(&graph, &analyse(&graph).unwrap())
}

fn verdicts(candidates: &[Candidate]) -> Vec<&str> {
    candidates.iter().map(|c| c.verdict.as_ref().err().map_or("", String::as_str)).collect()
}

#[test]
fn what_mixes_tokens_is_refused() {
    let mean = |net: &mut Net, x| {
        let mean = net.op(Op::ReduceMean { axes: vec![1], keepdims: true }, &[x]);
        net.op(Op::Sub {}, &[x, mean])
    };
    let softmax = |net: &mut Net, x| net.op(Op::Softmax { axis: 1 }, &[x]);
    let places = |net: &mut Net, x| {
        let w = net.weight(&[1, 5, 6]);
        net.op(Op::Mul {}, &[x, w])
    };
    let swap = |net: &mut Net, x| {
        let x = net.op(Op::Transpose { perm: vec![1, 0, 2] }, &[x]);
        net.op(Op::Reshape { dims: vec![batch(), int(5), int(6)] }, &[x])
    };
    type Mix<'a> = &'a dyn Fn(&mut Net, ValueId) -> ValueId;
    let mixes: [(&str, Mix); 4] = [("ReduceMean", &mean), ("Softmax", &softmax), ("Mul", &places), ("Reshape", &swap)];
    for (name, mix) in mixes {
        let found = mixed(mix);
        let reason = verdicts(&found)[1];
        assert!(reason.contains(name) && reason.contains("tokens do not stay apart"), "{name}: {reason}");
        assert!(found[0].verdict.is_ok() && found[2].verdict.is_ok(), "{name}");
    }
}

#[test]
fn flattened_tokens_are_followed() {
    let flat = |net: &mut Net, x| {
        let rows = &batch() * &int(5);
        let y = net.op(Op::Reshape { dims: vec![rows, int(2), int(3)] }, &[x]);
        let y = net.op(Op::Softmax { axis: 2 }, &[y]);
        net.op(Op::Reshape { dims: vec![batch(), int(5), int(6)] }, &[y])
    };
    assert_eq!(verdicts(&mixed(flat)), ["", "", ""]);
}

#[test]
fn other_refusals_have_their_reasons() {
    assert!(
        verdicts(&candidates(&fixtures::resnet(&batch()), &analyse(&fixtures::resnet(&batch())).unwrap()))[0]
            .contains("no FFN sub-block, only convolutions")
    );
    let graph = fixtures::last_token();
    assert!(verdicts(&candidates(&graph, &analyse(&graph).unwrap()))[0].contains("differs between tokens"));

    let mut inner = fixtures::vit(&batch());
    let s = analyse(&inner).unwrap();
    let norm = inner.node(s.blocks[0].ffn().unwrap().part.nodes[0]).outputs[0];
    inner.set_outputs(vec![("logits".into(), s.output), ("norm".into(), norm)]);
    assert!(verdicts(&candidates(&inner, &analyse(&inner).unwrap()))[0].contains("used outside the FFN"));

    let rule = Rule::Cosine { threshold: 0.5, skip_next: 1, warm_up: 0 };
    let graph = fixtures::vit(&batch());
    let twice = apply(&graph, &FfnGates { gates: gates(&[0], false), rule, granularity: Granularity::Row });
    assert_eq!(verdicts(&candidates(&twice, &analyse(&twice).unwrap())), ["it decides something already", "", ""]);

    let mut exits = fixtures::vit(&batch());
    let passes = "exit-heads{at=[0], rule=maxprob:0.5}";
    crate::registry::Registry::builtin().pipeline(passes).unwrap()[0]
        .run(&mut exits, &mut crate::pass::Context::default())
        .unwrap();
    let s = analyse(&fixtures::vit(&batch())).unwrap();
    assert!(verdicts(&candidates(&exits, &s))[0].contains("gates come before exit heads"));
}

#[test]
fn wrong_options_are_refused_with_their_reason() {
    let graph = fixtures::vit(&batch());
    let s = analyse(&graph).unwrap();
    let refuse = |gates: Vec<Gate>, rule| {
        apply_to(&graph, &s, &FfnGates { gates, rule, granularity: Granularity::Row }).unwrap_err().to_string()
    };
    let cosine = |skip_next| Rule::Cosine { threshold: 0.5, skip_next, warm_up: 0 };
    assert_eq!(refuse(vec![], Rule::Static), "expected at least one gate, found none");
    assert_eq!(refuse(gates(&[1, 0], false), Rule::Static), "gates must be in order of depth: block 0 follows block 1");
    assert_eq!(refuse(gates(&[7], false), Rule::Static), "block 7 does not exist: the model has 3 blocks");
    assert_eq!(refuse(gates(&[0], false), cosine(0)), "the cosine rule must skip at least 1 block, found 0");
    assert_eq!(
        refuse(gates(&[0], false), learned(&[0, 1], 0.0)),
        "expected one classifier per gate, found 2 for 1 gates"
    );
    let mut wide = gates(&[0], true);
    wide.iter_mut().for_each(|g| g.replacement.as_mut().unwrap().up = tensor(&[2, 5], 1, 1.0));
    assert_eq!(
        refuse(wide, Rule::Static),
        "the replacement's second weight at block 0 must be f32[2, 6], found f32[2, 5]"
    );
    let error = with_taps(&graph, &s, &[9]).unwrap_err();
    assert_eq!(error, FfnGateError::NoBlock { block: 9, count: 3 });
    let warm = Rule::Cosine { threshold: 0.5, skip_next: 1, warm_up: 1 };
    let rows = rows_only();
    let options = FfnGates { gates: gates(&[0, 1], false), rule: warm, granularity: Granularity::Row };
    let error = apply_to(&rows, &analyse(&rows).unwrap(), &options).unwrap_err().to_string();
    assert!(error.contains("expected a token axis"), "{error}");
}
