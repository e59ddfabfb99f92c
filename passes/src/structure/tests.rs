//! Structure of small models: block counts, parts, candidates, and near misses.

use eec_ir::{DType, Dim, Graph, Op, Tensor, ValueId};

use super::{Batch, ExitCandidate, Kind, Structure, analyse};
use crate::fixtures::{self, Net, batch, dims, int};

fn types(graph: &Graph, structure: &Structure) -> Vec<String> {
    structure.blocks.iter().map(|b| graph.ty(b.output).to_string()).collect()
}

fn refusal(structure: &Structure, block: usize) -> &str {
    match &structure.blocks[block].exit {
        ExitCandidate::Yes => "",
        ExitCandidate::No(reason) => reason,
    }
}

fn kinds(structure: &Structure) -> Vec<Vec<Kind>> {
    structure.blocks.iter().map(|b| b.sub_blocks.iter().map(|s| s.kind).collect()).collect()
}

/// The operators that lead from the last block to the output.
fn tail(graph: &Graph, structure: &Structure) -> Vec<&'static str> {
    structure.tail.nodes.iter().map(|n| graph.node(*n).op.name()).collect()
}

#[test]
fn pre_norm_transformer_has_one_block_per_attention_and_ffn() {
    let graph = fixtures::vit(&batch());
    let s = analyse(&graph).unwrap();
    assert_eq!(kinds(&s), vec![vec![Kind::Attention, Kind::Ffn]; 3]);
    assert_eq!(types(&graph, &s), vec!["f32[batch, 5, 6]"; 3]);
    assert_eq!(tail(&graph, &s), ["LayerNormalization", "Gather", "MatMul", "Add"]);
    assert_eq!(s.blocks[0].exit, ExitCandidate::Yes);
    assert_eq!(s.blocks[1].exit, ExitCandidate::Yes);
    assert!(refusal(&s, 2).contains("last block"));
    // q, k, v and output: 4·5·6·6; scores and their use: 2·2·5·5·3; FFN: 2·5·6·11.
    assert_eq!(s.blocks[1].part.macs, &Dim::from(720 + 300 + 660) * &batch());
    assert_eq!(s.blocks[1].attention().unwrap().part.macs, &Dim::from(1020) * &batch());
}

#[test]
fn post_norm_blocks_end_after_their_norm_and_masks_are_no_data() {
    let graph = fixtures::bert();
    let s = analyse(&graph).unwrap();
    assert_eq!(kinds(&s), vec![vec![Kind::Attention, Kind::Ffn]; 3]);
    assert_eq!(tail(&graph, &s), ["Gather", "MatMul", "Add", "Tanh", "MatMul", "Add"]);
    for block in &s.blocks {
        let last = graph.def_node(block.output).unwrap();
        assert_eq!(graph.node(last).op.name(), "LayerNormalization");
    }
    assert_eq!(s.sources.len(), 1);
    assert_eq!(s.blocks[1].exit, ExitCandidate::Yes);
}

#[test]
fn residual_units_end_after_their_activation() {
    let graph = fixtures::resnet(&batch());
    let s = analyse(&graph).unwrap();
    assert_eq!(kinds(&s), vec![vec![Kind::Conv]; 4]);
    assert_eq!(
        types(&graph, &s),
        ["f32[batch, 4, 8, 6]", "f32[batch, 4, 8, 6]", "f32[batch, 6, 4, 3]", "f32[batch, 6, 4, 3]"]
    );
    for block in &s.blocks {
        assert_eq!(graph.node(graph.def_node(block.output).unwrap()).op.name(), "Relu");
    }
    assert_eq!(s.stem.nodes.len(), 2);
    assert_eq!(tail(&graph, &s), ["ReduceMean", "Reshape", "MatMul", "Add"]);
}

#[test]
fn plain_chain_has_one_block_per_layer_and_the_classifier_as_tail() {
    let graph = fixtures::mlp(&batch());
    let s = analyse(&graph).unwrap();
    assert_eq!(types(&graph, &s), ["f32[batch, 7]", "f32[batch, 7]", "f32[batch, 9]"]);
    assert_eq!(tail(&graph, &s), ["MatMul", "Add"]);
    for block in &s.blocks {
        assert_eq!(graph.node(graph.def_node(block.output).unwrap()).op.name(), "Relu");
    }
}

#[test]
fn inverted_units_without_skip_are_blocks_too() {
    let mut net = Net::new("mobile");
    let x = net.input("x", DType::F32, &[&batch(), &int(3), &int(8), &int(8)]);
    let mut x = net.conv(x, 3, 4, 3, 2);
    for (from, to, skip) in [(4, 5, false), (5, 5, true), (5, 5, true), (5, 7, false)] {
        let y = net.conv(x, from, 9, 1, 1);
        let y = net.op(Op::Relu {}, &[y]);
        let y = net.conv(y, 9, to, 3, 1);
        x = if skip { net.op(Op::Add {}, &[x, y]) } else { y };
    }
    let x = net.conv(x, 7, 11, 1, 1);
    let x = net.op(Op::ReduceMean { axes: vec![2, 3], keepdims: false }, &[x]);
    let y = net.linear(x, 11, 3);
    let graph = net.finish(y);
    let s = analyse(&graph).unwrap();
    let expected = ["f32[batch, 5, 4, 4]", "f32[batch, 5, 4, 4]", "f32[batch, 5, 4, 4]", "f32[batch, 7, 4, 4]"];
    assert_eq!(types(&graph, &s), expected);
    assert_eq!(s.stem.nodes.len(), 1);
    assert_eq!(tail(&graph, &s), ["Conv", "ReduceMean", "MatMul", "Add"]);
}

#[test]
fn two_sources_start_the_chain_where_they_join() {
    let (batch, mut net) = (batch(), Net::new("vqa"));
    let pixels = net.input("pixels", DType::F32, &[&batch, &int(4), &int(6)]);
    let ids = net.input("ids", DType::I64, &[&batch, &int(3)]);
    let seen = net.pre_norm_block(pixels, 2, 3);
    let table = net.weight(&[9, 6]);
    let words = net.op(Op::Gather { axis: 0 }, &[table, ids]);
    let mut x = net.op(Op::Concat { axis: 1 }, &[seen, words]);
    for _ in 0..2 {
        x = net.pre_norm_block(x, 2, 3);
    }
    let x = net.select(x, 1, 6);
    let y = net.linear(x, 6, 3);
    let graph = net.finish(y);
    let s = analyse(&graph).unwrap();
    assert_eq!(types(&graph, &s), ["f32[batch, 7, 6]"; 2]);
    assert_eq!(s.sources.len(), 2);
    assert!(s.stem.macs != Dim::default());
}

#[test]
fn a_float_mask_that_enters_every_layer_is_a_condition() {
    let (batch, mut net) = (batch(), Net::new("masked"));
    let mut x = net.input("x", DType::F32, &[&batch, &int(4), &int(6)]);
    let mask = net.input("mask", DType::F32, &[&batch, &int(1), &int(1), &int(4)]);
    for _ in 0..3 {
        x = net.post_norm_block(x, 2, 3, mask);
    }
    let x = net.select(x, 1, 0);
    let y = net.linear(x, 6, 3);
    let graph = net.finish(y);
    let s = analyse(&graph).unwrap();
    assert_eq!(s.blocks.len(), 3);
    assert_eq!(s.sources, [graph.inputs()[0]]);
}

#[test]
fn caches_are_states_and_forbid_exits_before_them() {
    let graph = fixtures::decoder(false);
    let s = analyse(&graph).unwrap();
    assert_eq!(s.main_output, 0);
    let pairs: Vec<(ValueId, usize)> = s.states.iter().map(|p| (p.input, p.output)).collect();
    assert_eq!(pairs, [(graph.inputs()[1], 1), (graph.inputs()[2], 2)]);
    assert_eq!(s.blocks.len(), 2);
    assert_eq!(refusal(&s, 0), "the state output `present.1` is computed after it");
    assert!(refusal(&s, 1).contains("last block"));
}

/// The model after passes.
fn after(mut graph: Graph, passes: &str) -> Graph {
    for pass in crate::registry::Registry::builtin().pipeline(passes).unwrap() {
        pass.run(&mut graph, &mut crate::pass::Context::default()).unwrap();
    }
    graph
}

#[test]
fn gates_leave_the_structure_as_it_is() {
    for graph in [fixtures::vit(&batch()), fixtures::bert(), fixtures::vit(&int(1))] {
        let plain = analyse(&graph).unwrap();
        for options in ["rule=learned:0", "rule=learned:0, granularity=all", "rule=cosine:0.5/1/0, replace=3"] {
            for simplify in ["", ", simplify"] {
                let gated = after(graph.clone(), &format!("ffn-gates{{at=[0, 2], {options}}}{simplify}"));
                let s = analyse(&gated).unwrap();
                assert_eq!(kinds(&s), kinds(&plain), "{options}");
                assert_eq!(types(&gated, &s), types(&graph, &plain), "{options}");
                assert_eq!(tail(&gated, &s), tail(&graph, &plain), "{options}");
                // A gate that all must agree on mixes samples.
                let mixes = options.contains("all") && s.batch == Batch::Symbolic(eec_ir::Symbol::new("batch"));
                assert_eq!(s.blocks[0].exit == ExitCandidate::Yes, !mixes, "{options}");
            }
        }
    }
}

#[test]
fn attention_without_its_ffn_is_a_block_of_its_own() {
    for (at, expected) in [("[0]", [1, 2, 2]), ("[1]", [2, 1, 2]), ("[0, 2]", [1, 2, 1]), ("[0, 1, 2]", [1, 1, 1])] {
        let edited = after(fixtures::vit(&batch()), &format!("ffn-gates{{at={at}, rule=static}}"));
        let s = analyse(&edited).unwrap();
        assert_eq!(s.blocks.iter().map(|b| b.sub_blocks.len()).collect::<Vec<_>>(), expected, "{at}");
    }
}

#[test]
fn per_token_outputs_are_refused() {
    let s = analyse(&fixtures::decoder(true)).unwrap();
    assert!(refusal(&s, 1).contains("per-token outputs"), "{}", refusal(&s, 1));
}

#[test]
fn a_recurrent_state_is_no_data() {
    let mut net = Net::new("cell");
    let x = net.input("x", DType::F32, &[&batch(), &int(4)]);
    let h = net.input("h", DType::F32, &[&batch(), &int(6)]);
    let a = net.linear(x, 4, 6);
    let b = net.linear(h, 6, 6);
    let sum = net.op(Op::Add {}, &[a, b]);
    let h = net.op(Op::Tanh {}, &[sum]);
    let y = net.linear(h, 6, 2);
    net.graph.set_outputs(vec![("y".into(), y), ("h_out".into(), h)]);
    let s = analyse(&net.graph).unwrap();
    assert_eq!(s.states.len(), 1);
    assert_eq!(s.sources, [net.graph.inputs()[0]]);
}

#[test]
fn a_fixed_batch_of_several_is_refused_and_of_one_is_not() {
    let several = analyse(&fixtures::mlp(&int(4))).unwrap();
    assert_eq!(several.batch, Batch::Fixed(4));
    assert!(refusal(&several, 0).contains("fixed at 4"));
    let one = analyse(&fixtures::mlp(&int(1))).unwrap();
    assert_eq!(one.blocks[0].exit, ExitCandidate::Yes);
}

/// Three layers, with `mix` applied after the second.
fn mixed(mix: impl Fn(&mut Net, ValueId) -> ValueId) -> Structure {
    let mut net = Net::new("mixed");
    let x = net.input("x", DType::F32, &[&batch(), &int(6)]);
    let a = net.linear(x, 6, 7);
    let b = net.linear(a, 7, 7);
    let b = mix(&mut net, b);
    let c = net.linear(b, 7, 8);
    let y = net.linear(c, 8, 3);
    analyse(&net.finish(y)).unwrap()
}

#[test]
fn operators_that_mix_samples_forbid_exits_before_them_only() {
    let mean = |net: &mut Net, x| {
        let mean = net.op(Op::ReduceMean { axes: vec![0], keepdims: true }, &[x]);
        net.op(Op::Sub {}, &[x, mean])
    };
    let running = |net: &mut Net, x| net.op(Op::CumSum { axis: 0, exclusive: false, reverse: false }, &[x]);
    let softmax = |net: &mut Net, x| net.op(Op::Softmax { axis: 0 }, &[x]);
    let swap = |net: &mut Net, x| {
        let x = net.op(Op::Transpose { perm: vec![1, 0] }, &[x]);
        let x = net.op(Op::Reshape { dims: dims(&[&batch(), &int(7)]) }, &[x]);
        net.op(Op::Neg {}, &[x])
    };
    type Mix<'a> = &'a dyn Fn(&mut Net, ValueId) -> ValueId;
    let samples: [(&str, Mix); 4] =
        [("ReduceMean", &mean), ("CumSum", &running), ("Softmax", &softmax), ("Reshape", &swap)];
    for (name, mix) in samples {
        let s = mixed(mix);
        assert!(refusal(&s, 0).starts_with("samples do not stay apart"), "{name}: {}", refusal(&s, 0));
        assert!(refusal(&s, 0).contains(name), "{name}: {}", refusal(&s, 0));
    }
}

#[test]
fn the_same_operators_along_other_axes_are_allowed() {
    let s = mixed(|net, x| {
        let mean = net.op(Op::ReduceMean { axes: vec![1], keepdims: true }, &[x]);
        let x = net.op(Op::Sub {}, &[x, mean]);
        let x = net.op(Op::CumSum { axis: 1, exclusive: false, reverse: false }, &[x]);
        let x = net.op(Op::Transpose { perm: vec![1, 0] }, &[x]);
        let x = net.op(Op::Softmax { axis: 0 }, &[x]);
        net.op(Op::Transpose { perm: vec![1, 0] }, &[x])
    });
    assert_eq!(s.blocks[0].exit, ExitCandidate::Yes);
    assert_eq!(s.blocks[1].exit, ExitCandidate::Yes);
}

#[test]
fn gathering_by_row_number_is_followed_and_by_other_numbers_refused() {
    let s = analyse(&fixtures::last_token()).unwrap();
    assert_eq!((s.blocks.len(), &s.blocks[0].exit), (3, &ExitCandidate::Yes));

    let mut net = Net::new("other-row");
    let x = net.input("x", DType::F32, &[&batch(), &int(3), &int(6)]);
    let at = net.input("at", DType::I64, &[&batch(), &int(2)]);
    let a = net.linear(x, 6, 6);
    let b = net.linear(a, 6, 6);
    let picked = net.op(Op::GatherND { batch_dims: 0 }, &[b, at]);
    let y = net.linear(picked, 6, 2);
    let s = analyse(&net.finish(y)).unwrap();
    assert!(refusal(&s, 0).contains("row's own number"), "{}", refusal(&s, 0));
}

#[test]
fn graphs_without_data_or_batch_are_errors() {
    let mut net = Net::new("constant");
    net.input("x", DType::F32, &[&batch(), &int(6)]);
    let value = net.graph.constant(Tensor::vector(vec![1.0f32, 2.0]));
    let y = net.op(Op::Neg {}, &[value]);
    let error = analyse(&net.finish(y)).unwrap_err();
    assert_eq!(error.to_string(), "no float input and no embedding of an integer input reaches the output `logits`");

    let mut net = Net::new("ids");
    let ids = net.input("ids", DType::I64, &[&batch()]);
    let graph = net.finish(ids);
    assert!(analyse(&graph).unwrap_err().to_string().contains("float output"));
}

fn parsed(source: &str) -> Graph {
    eec_ir::text::parse(source, &mut |_| None).expect("a graph")
}

#[test]
fn the_steps_of_a_loop_and_what_data_counts_are_no_batch() {
    let steps = parsed(
        "graph @steps(%x: f32[n, 2], %s: f32[2]) -> (%rows: f32[n, 2]) {
           %last: f32[2], %rows: f32[n, 2] = Loop{trips=n}(true; %s)
             do (%i: i64[], %v: f32[2]) {
               %e: f32[2] = Gather(%x, %i)
               %w: f32[2] = Add(%v, %e)
               yield true, %w, %w
             }
           return %rows
         }",
    );
    let error = analyse(&steps).unwrap_err().to_string();
    assert!(error.contains("expected the batch as first dim of the output `rows`"), "{error}");
    let found = parsed(
        "graph @found(%x: f32[n, 2], %k: i64[]) -> (%y: f32[m, 2]) {
           %s: i64[] = LateSize{size=m, most=n}(%k)
           %p: f32[m, 2] = Slice{axes=[0], starts=[0], ends=[m], steps=[1]}(%x)
           %y: f32[m, 2] = Relu(%p)
           return %y
         }",
    );
    assert!(analyse(&found).unwrap_err().to_string().contains("output `y`"));
}

#[test]
fn nothing_stands_in_a_model_whose_sizes_data_decides() {
    let mut graph = fixtures::vit(&batch());
    assert_eq!(analyse(&graph).unwrap().blocks[0].exit, ExitCandidate::Yes);
    let count = graph.constant(Tensor::scalar(2i64));
    let op = Op::LateSize { size: Dim::symbol("late"), most: 4.into() };
    graph.append1(Graph::ROOT, op, &[count], eec_ir::Origin::source("count")).unwrap();
    assert_eq!(refusal(&analyse(&graph).unwrap(), 0), "data decides sizes of the model while it runs");
}
