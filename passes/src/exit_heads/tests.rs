//! The pass against per-sample references: never, always and in between, every rule and head.

use eec_ir::eval::evaluate;
use eec_ir::verify::{Stage, verify};
use eec_ir::{DType, Graph, Op, Tensor};

use super::*;
use crate::fixtures::{self, Net, batch, int, noise, tensor};
use crate::structure::ExitCandidate;
use crate::truncate::truncate;

const ROWS: usize = 12;
const SEQ: usize = 4;

/// Inputs of `rows` samples for a fixture.
fn inputs(graph: &Graph, rows: usize) -> Vec<Tensor> {
    let make = |(i, v): (usize, &eec_ir::ValueId)| {
        let ty = graph.ty(*v);
        let size =
            |d: &eec_ir::Dim| d.eval(&|s| Some(if s.as_str() == "seq" { SEQ } else { rows } as i64)).unwrap() as usize;
        let dims: Vec<usize> = ty.dims.iter().map(size).collect();
        let name = graph.value(*v).name.as_deref().unwrap_or_default().to_string();
        let integers =
            |f: &dyn Fn(usize) -> i64| Tensor::new(&dims, (0..dims.iter().product()).map(f).collect()).unwrap();
        match (ty.dtype, name.as_str()) {
            (DType::F32, _) => tensor(&dims, 100 + i, 4.0),
            (_, "mask") => integers(&|i| i64::from(i % SEQ < 2 + i / SEQ % 3)),
            (_, "last") => integers(&|i| (i % SEQ) as i64),
            _ => integers(&|i| ((noise(i, 55) + 0.5) * 11.0) as i64),
        }
    };
    graph.inputs().iter().enumerate().map(make).collect()
}

fn linear(graph: &Graph, structure: &Structure, block: usize) -> Head {
    let (width, classes) = (feature(graph, structure, block).unwrap().width, classes(graph, structure));
    Head::Linear { weight: tensor(&[width, classes], 200 + block, 3.0), bias: tensor(&[classes], 300 + block, 1.0) }
}

fn mlp(graph: &Graph, structure: &Structure, block: usize) -> Head {
    let (width, classes) = (feature(graph, structure, block).unwrap().width, classes(graph, structure));
    Head::Mlp {
        hidden_weight: tensor(&[width, 5], 400 + block, 3.0),
        hidden_bias: tensor(&[5], 500 + block, 1.0),
        activation: Activation::GeluTanh,
        weight: tensor(&[5, classes], 600 + block, 4.0),
        bias: tensor(&[classes], 700 + block, 1.0),
    }
}

fn classes(graph: &Graph, structure: &Structure) -> usize {
    graph.ty(structure.output).dims[1].as_const().unwrap() as usize
}

/// Row `row` of a tensor, as bytes.
fn row(t: &Tensor, row: usize) -> Vec<u8> {
    let bytes = t.bytes().len() / t.dims()[0];
    t.bytes()[row * bytes..(row + 1) * bytes].to_vec()
}

/// What every exit says of every sample, computed without the pass: logits of the truncated
/// models, confidences and classes of the heads' graph.
struct Reference {
    logits: Vec<Tensor>,
    confidence: Vec<Vec<f32>>,
    class: Vec<Vec<i64>>,
}

impl Reference {
    fn of(graph: &Graph, structure: &Structure, exits: &[Exit], signal: Signal, inputs: &[Tensor]) -> Reference {
        let mut logits: Vec<Tensor> = Vec::new();
        for exit in exits {
            let model = truncate(graph, structure, exit.block, &exit.head).unwrap();
            logits.push(evaluate(&model, inputs).unwrap().remove(0));
        }
        logits.push(evaluate(graph, inputs).unwrap().remove(0));
        let heads: Vec<HeadInput> = (0..logits.len()).map(|k| HeadInput::Logits(k, logits[0].dims()[1])).collect();
        let outputs = evaluate(&head_graph(&heads, signal).unwrap(), &logits).unwrap();
        let confidence = outputs.iter().step_by(2).map(|t| t.elements::<f32>().unwrap().into_owned()).collect();
        let class = outputs.iter().skip(1).step_by(2).map(|t| t.to_i64s().unwrap()).collect();
        Reference { logits, confidence, class }
    }

    /// The exit of a sample under a threshold rule.
    fn by_threshold(&self, thresholds: &[f32], row: usize) -> (usize, f32) {
        let leaves = |k: &usize| self.confidence[*k][row] > thresholds[*k];
        let exit = (0..thresholds.len()).find(leaves).unwrap_or(thresholds.len());
        (exit, self.confidence[exit][row])
    }

    /// The exit of a sample under patience.
    fn by_patience(&self, count: usize, row: usize) -> (usize, f32) {
        let exits = self.logits.len() - 1;
        let mut run = 0;
        for k in 0..=exits {
            run = if k > 0 && self.class[k][row] == self.class[k - 1][row] { run + 1 } else { 1 };
            if k == exits || run >= count {
                return (k, run as f32);
            }
        }
        unreachable!("the last round returns")
    }

    /// Checks the dynamic model's outputs row by row; returns how many rows took each exit.
    fn check(&self, outputs: &[Tensor], decide: impl Fn(usize) -> (usize, f32)) -> Vec<usize> {
        let [logits, index, confidence] = outputs else {
            panic!("expected 3 outputs, found {}", outputs.len());
        };
        let mut histogram = vec![0; self.logits.len()];
        for r in 0..logits.dims()[0] {
            let (exit, sure) = decide(r);
            assert_eq!(index.to_i64s().unwrap()[r], exit as i64, "exit of row {r}");
            assert_eq!(confidence.elements::<f32>().unwrap()[r].to_bits(), sure.to_bits(), "confidence of row {r}");
            assert_eq!(row(logits, r), row(&self.logits[exit], r), "logits of row {r}");
            histogram[exit] += 1;
        }
        histogram
    }
}

fn candidates(structure: &Structure) -> Vec<usize> {
    structure.blocks.iter().filter(|b| b.exit == ExitCandidate::Yes).map(|b| b.index).collect()
}

fn exits_of(graph: &Graph, structure: &Structure, head: impl Fn(&Graph, &Structure, usize) -> Head) -> Vec<Exit> {
    candidates(structure).into_iter().map(|block| Exit { block, head: head(graph, structure, block) }).collect()
}

/// Thresholds that let about a third of the samples leave at every exit.
fn middling(reference: &Reference, exits: usize) -> Vec<f32> {
    let third = |k: usize| {
        let mut sorted = reference.confidence[k].clone();
        sorted.sort_by(f32::total_cmp);
        sorted[sorted.len() * 2 / 3]
    };
    (0..exits).map(third).collect()
}

fn run(graph: &Graph, exits: &[Exit], rule: Rule, inputs: &[Tensor]) -> Vec<Tensor> {
    let dynamic = apply(graph, &ExitHeads { exits: exits.to_vec(), rule }).unwrap();
    verify(&dynamic, Stage::Dynamic).unwrap();
    evaluate(&dynamic, inputs).unwrap()
}

fn models() -> Vec<Graph> {
    let batch = batch();
    vec![
        fixtures::vit(&batch),
        fixtures::bert(),
        fixtures::resnet(&batch),
        fixtures::mlp(&batch),
        fixtures::last_token(),
        gated(fixtures::vit(&batch), "rule=learned:0"),
        gated(fixtures::vit(&batch), "rule=cosine:0.9/1/2, replace=3"),
        gated(fixtures::bert(), "rule=cosine:0.9/2/0"),
    ]
}

/// The model with gates at all FFNs.
fn gated(mut graph: Graph, options: &str) -> Graph {
    let passes =
        crate::registry::Registry::builtin().pipeline(&format!("ffn-gates{{at=[0, 1, 2], {options}}}")).unwrap();
    passes.iter().for_each(|p| assert!(p.run(&mut graph, &mut crate::pass::Context::default()).is_ok()));
    graph
}

#[test]
fn never_leaving_is_the_plain_model_and_always_leaving_the_truncated_one() {
    for graph in models() {
        let s = analyse(&graph).unwrap();
        let exits = exits_of(&graph, &s, linear);
        let data = inputs(&graph, ROWS);
        let reference = Reference::of(&graph, &s, &exits, Signal::MaxProb, &data);
        for (threshold, exit) in [(1.5, exits.len()), (-1.0, 0)] {
            let thresholds = vec![threshold; exits.len()];
            let rule = Rule::Threshold { signal: Signal::MaxProb, thresholds: thresholds.clone() };
            let outputs = run(&graph, &exits, rule, &data);
            let histogram = reference.check(&outputs, |r| reference.by_threshold(&thresholds, r));
            assert_eq!(histogram[exit], ROWS, "{}", graph.name);
        }
    }
}

#[test]
fn in_between_every_sample_takes_its_own_exit() {
    for graph in models() {
        let s = analyse(&graph).unwrap();
        let exits = exits_of(&graph, &s, linear);
        assert!(exits.len() >= 2, "{}", graph.name);
        let data = inputs(&graph, ROWS);
        for signal in [Signal::MaxProb, Signal::Margin, Signal::Entropy] {
            let reference = Reference::of(&graph, &s, &exits, signal, &data);
            let thresholds = middling(&reference, exits.len());
            let rule = Rule::Threshold { signal, thresholds: thresholds.clone() };
            let outputs = run(&graph, &exits, rule, &data);
            let histogram = reference.check(&outputs, |r| reference.by_threshold(&thresholds, r));
            let used = histogram.iter().filter(|n| **n > 0).count();
            assert!(used >= 3, "{}, {signal:?}: {histogram:?}", graph.name);
        }
    }
}

#[test]
fn patience_counts_agreeing_heads() {
    for graph in models() {
        let s = analyse(&graph).unwrap();
        let exits = exits_of(&graph, &s, mlp);
        let data = inputs(&graph, ROWS);
        let reference = Reference::of(&graph, &s, &exits, Signal::MaxProb, &data);
        for count in [1, 2, 4] {
            let outputs = run(&graph, &exits, Rule::Patience { count }, &data);
            let histogram = reference.check(&outputs, |r| reference.by_patience(count, r));
            if count == 1 {
                assert_eq!(histogram[0], ROWS);
            }
        }
    }
}

#[test]
fn the_models_own_tail_is_a_head_where_types_agree() {
    let graph = fixtures::bert();
    let s = analyse(&graph).unwrap();
    let exits = exits_of(&graph, &s, |_, _, _| Head::Final);
    let data = inputs(&graph, ROWS);
    let reference = Reference::of(&graph, &s, &exits, Signal::Entropy, &data);
    let thresholds = middling(&reference, exits.len());
    let rule = Rule::Threshold { signal: Signal::Entropy, thresholds: thresholds.clone() };
    let outputs = run(&graph, &exits, rule, &data);
    assert!(reference.check(&outputs, |r| reference.by_threshold(&thresholds, r))[2] > 0);

    let graph = fixtures::resnet(&batch());
    let s = analyse(&graph).unwrap();
    let error = truncate(&graph, &s, 0, &Head::Final).unwrap_err().to_string();
    assert!(error.contains("tail takes f32[batch, 6, 4, 3]") && error.contains("f32[batch, 4, 8, 6]"), "{error}");
}

#[test]
fn a_batch_of_one_branches() {
    for graph in [fixtures::vit(&int(1)), fixtures::resnet(&int(1)), fixtures::mlp(&int(1))] {
        let s = analyse(&graph).unwrap();
        let exits = exits_of(&graph, &s, linear);
        let data = inputs(&graph, 1);
        let reference = Reference::of(&graph, &s, &exits, Signal::Margin, &data);
        for leave_at in 0..=exits.len() {
            let thresholds: Vec<f32> = (0..exits.len()).map(|k| if k == leave_at { -1.0 } else { 1.0 }).collect();
            let rule = Rule::Threshold { signal: Signal::Margin, thresholds: thresholds.clone() };
            let dynamic = apply(&graph, &ExitHeads { exits: exits.clone(), rule }).unwrap();
            assert!(dynamic.nodes_in_order().iter().all(|n| !matches!(dynamic.node(*n).op, Op::Route { .. })));
            verify(&dynamic, Stage::Dynamic).unwrap();
            let outputs = evaluate(&dynamic, &data).unwrap();
            let histogram = reference.check(&outputs, |r| reference.by_threshold(&thresholds, r));
            assert_eq!(histogram[leave_at], 1);
        }
    }
}

#[test]
fn features_and_heads_alone_give_the_bits_of_the_dynamic_graph() {
    for graph in models() {
        let s = analyse(&graph).unwrap();
        let exits = exits_of(&graph, &s, mlp);
        let data = inputs(&graph, ROWS);
        let blocks = candidates(&s);
        let tapped = with_features(&graph, &s, &blocks).unwrap();
        let names: Vec<String> = tapped.output_names().iter().map(|n| n.to_string()).collect();
        assert_eq!(names[..2], ["logits".to_string(), format!("feature.{}", blocks[0])]);
        let features = evaluate(&tapped, &data).unwrap().split_off(1);
        let heads: Vec<HeadInput> = exits.iter().map(|e| HeadInput::Fitted(e.block, &e.head)).collect();
        let alone = evaluate(&head_graph(&heads, Signal::Margin).unwrap(), &features).unwrap();
        let reference = Reference::of(&graph, &s, &exits, Signal::Margin, &data);
        for (k, pair) in alone.chunks_exact(2).enumerate() {
            assert_eq!(pair[0].elements::<f32>().unwrap().as_ref(), reference.confidence[k].as_slice());
            assert_eq!(pair[1].to_i64s().unwrap(), reference.class[k]);
        }
    }
}

/// A head as a user's graph: mean over positions, then one layer.
fn user_head(rows: &eec_ir::Dim, width: usize, classes: usize) -> Head {
    let mut net = Net::new("user");
    let x = net.input("h", DType::F32, &[rows, &int(5), &int(width as i64)]);
    let x = net.op(Op::ReduceMax { axes: vec![1], keepdims: false }, &[x]);
    let y = net.linear(x, width, classes);
    Head::Custom(Box::new(net.finish(y)))
}

#[test]
fn a_users_graph_is_a_head_if_it_fits() {
    let graph = fixtures::vit(&batch());
    let s = analyse(&graph).unwrap();
    let exits = exits_of(&graph, &s, |_, _, _| user_head(&eec_ir::Dim::symbol("n"), 6, 4));
    let data = inputs(&graph, ROWS);
    let reference = Reference::of(&graph, &s, &exits, Signal::MaxProb, &data);
    let thresholds = middling(&reference, exits.len());
    let rule = Rule::Threshold { signal: Signal::MaxProb, thresholds: thresholds.clone() };
    let outputs = run(&graph, &exits, rule, &data);
    assert!(reference.check(&outputs, |r| reference.by_threshold(&thresholds, r))[1] > 0);

    let rows = eec_ir::Dim::symbol("n");
    for (head, wanted) in [
        (user_head(&rows, 7, 4), "its input has type f32[n, 5, 7], the exit's value f32[batch, 5, 6]"),
        (user_head(&rows, 6, 3), "expected logits of type f32[batch, 4], found f32[batch, 3]"),
    ] {
        let error = truncate(&graph, &s, 0, &head).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn one_exit_of_many_blocks_and_an_empty_group_work() {
    let graph = fixtures::resnet(&batch());
    let s = analyse(&graph).unwrap();
    let exits = vec![Exit { block: 1, head: linear(&graph, &s, 1) }];
    for rows in [1, 3] {
        let data = inputs(&graph, rows);
        let reference = Reference::of(&graph, &s, &exits, Signal::MaxProb, &data);
        let thresholds = vec![reference.confidence[0][0].next_down()];
        let rule = Rule::Threshold { signal: Signal::MaxProb, thresholds: thresholds.clone() };
        let outputs = run(&graph, &exits, rule, &data);
        assert!(reference.check(&outputs, |r| reference.by_threshold(&thresholds, r))[0] > 0);
    }
}

#[test]
fn outputs_have_names_types_and_provenance() {
    let graph = fixtures::vit(&batch());
    let s = analyse(&graph).unwrap();
    let exits = exits_of(&graph, &s, linear);
    let rule = Rule::Threshold { signal: Signal::MaxProb, thresholds: vec![0.5; 2] };
    let dynamic = apply(&graph, &ExitHeads { exits, rule }).unwrap();
    let names: Vec<&str> = dynamic.output_names().iter().map(|n| &**n).collect();
    assert_eq!(names, ["logits", "exit_index", "confidence"]);
    let types: Vec<String> = dynamic.outputs().iter().map(|v| dynamic.ty(*v).to_string()).collect();
    assert_eq!(types, ["f32[batch, 4]", "i64[batch]", "f32[batch]"]);
    let routes: Vec<i64> = dynamic
        .nodes_in_order()
        .into_iter()
        .filter_map(|n| match dynamic.node(n).op {
            Op::Route { exit, .. } => {
                assert_eq!(dynamic.node(n).origin.pass.as_deref(), Some("exit-heads"));
                Some(exit)
            }
            _ => None,
        })
        .collect();
    assert_eq!(routes, [0, 1]);
}

#[test]
fn wrong_options_are_refused_with_their_reason() {
    let graph = fixtures::vit(&batch());
    let s = analyse(&graph).unwrap();
    let exit = |block| Exit { block, head: linear(&graph, &s, 0) };
    let refuse = |exits: Vec<Exit>, thresholds: Vec<f32>| {
        let rule = Rule::Threshold { signal: Signal::MaxProb, thresholds };
        apply(&graph, &ExitHeads { exits, rule }).unwrap_err().to_string()
    };
    assert_eq!(refuse(vec![], vec![]), "expected at least one exit, found none");
    assert_eq!(refuse(vec![exit(0)], vec![]), "expected one threshold per exit, found 0 for 1 exits");
    assert_eq!(
        refuse(vec![exit(1), exit(0)], vec![0.5; 2]),
        "places must be in order of depth: block 0 follows block 1"
    );
    assert_eq!(refuse(vec![exit(7)], vec![0.5]), "block 7 does not exist: the model has 3 blocks");
    assert!(refuse(vec![exit(2)], vec![0.5]).contains("last block"));
    let narrow = Head::Linear { weight: tensor(&[5, 4], 1, 1.0), bias: tensor(&[4], 2, 1.0) };
    let error = refuse(vec![Exit { block: 0, head: narrow }], vec![0.5]);
    assert_eq!(error, "the linear head at block 0 does not fit: the feature has width 6, its weight takes Some(5)");
    let few = Head::Linear { weight: tensor(&[6, 3], 1, 1.0), bias: tensor(&[3], 2, 1.0) };
    let error = refuse(vec![Exit { block: 0, head: few }], vec![0.5]);
    assert!(error.contains("expected logits of type f32[batch, 4], found f32[batch, 3]"), "{error}");
}

#[test]
fn a_taken_output_name_and_a_single_class_are_refused() {
    let mut graph = fixtures::mlp(&batch());
    let s = analyse(&graph).unwrap();
    let exits = vec![Exit { block: 0, head: linear(&graph, &s, 0) }];
    let rule = Rule::Threshold { signal: Signal::MaxProb, thresholds: vec![0.5] };
    graph.set_outputs(vec![("confidence".into(), s.output)]);
    let error = apply(&graph, &ExitHeads { exits, rule }).unwrap_err();
    assert_eq!(error, InsertError::OutputTaken("confidence".into()));

    let error = head_graph(&[HeadInput::Logits(0, 1)], Signal::Entropy).unwrap_err();
    assert!(error.to_string().contains("at least 2 classes"), "{error}");
}
