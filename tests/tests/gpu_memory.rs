//! What adapters can hold: constants and temporary buffers beyond one binding, weights as halves, and refusals of what
//! does not fit.

use eec::cases::{Case, run_passes, seeded_inputs};
use eec_ir::precision::from_f16;
use eec_ir::{DType, Dim, Graph, Op, Origin, Precision, Symbol, Tensor, Type};
use eec_passes::pass::Context;
use eec_runtime::gpu::{GpuOptions, GpuSession, Guard};
use eec_runtime::{Control, Counters, Runner};
use eec_tests::backend::{Backend, gpu, on_gpu_in_pieces, on_gpu_with, own_gpu, run};
use eec_tests::files::{cases_folder, read};
use eec_tests::values::check_all;

/// Of float32, relative and absolute.
const TOLERANCE: f32 = 1e-4;

/// A table and matrices of more than 16 KiB, whose rows are gathered and multiplied, as floats and as halves.
const LARGE: &str = "graph @large(%x: f32[m, 101], %i: i64[m]) -> (%a: f32[m, 300], %b: f32[m, 101], %c: f32[m, 191]) {
  %a = Gemm{trans_b=1}(%x, const f32[300, 101] #01, const f32[300] #02)
  %g = Gather{axis=0}(const f32[300, 101] #01, %i)
  %b = Add(%g, %x)
  %c = MatMul{weights=f16}(%b, const f32[101, 191] #03)
  return %a, %b, %c
}";

fn large(rows: i64) -> (Graph, Vec<Tensor>) {
    let graph = graph(LARGE);
    let sizes = [(eec_ir::Symbol::new("m"), rows)].into_iter().collect();
    let inputs = seeded_inputs(&graph, &sizes).expect("inputs");
    (graph, inputs)
}

/// Compares a session with the evaluator on several numbers of rows.
fn as_evaluated(session: &mut GpuSession) {
    for rows in [1, 7, 70] {
        let (graph, inputs) = large(rows);
        let want = Backend::Evaluator.prepare(&graph).and_then(|mut e| e.run(&inputs)).expect("values");
        let have = run(session, &graph, &inputs, Control::Auto).expect("a run");
        let have: Vec<Tensor> = have.outputs.into_iter().map(|(_, t)| t).collect();
        check_all(&graph, &have, &want, TOLERANCE).unwrap_or_else(|e| panic!("{rows} rows: {e}"));
    }
}

#[test]
fn halves_take_half_the_memory_and_give_what_the_rounded_floats_do() {
    let Some(gpu) = gpu() else { return };
    let (graph, _) = large(1);
    let mut session = on_gpu_with(gpu, &graph, GpuOptions::of(gpu)).expect("a session");
    as_evaluated(&mut session);
    let halves = (101usize * 191).div_ceil(2);
    let floats = 300 * 101 + 300usize.next_multiple_of(16);
    assert_eq!(session.weight_bytes(), 4 * (halves + floats));
}

#[test]
fn every_float_of_16_bits_is_read_as_what_it_is() {
    let Some(gpu) = gpu() else { return };
    let finite = (0..=u16::MAX).map(from_f16).filter(|x| x.is_finite());
    let weights = Tensor::new(&[64, 992], finite.collect()).expect("63488 values");
    let mut graph = Graph::new("codes");
    let x = graph.add_input("x", Type::new(DType::F32, [Dim::symbol("m"), Dim::from(64)]));
    let w = graph.constant(weights.clone());
    let product = Op::MatMul { weights: Precision::F16 };
    let y = graph.append1(Graph::ROOT, product, &[x, w], Origin::source("codes")).expect("a product");
    graph.set_outputs(vec![("y".into(), y)]);
    let identity = (0..64 * 64).map(|i| if i / 64 == i % 64 { 1.0f32 } else { 0.0 }).collect();
    let identity = Tensor::new(&[64, 64], identity).expect("a matrix");
    let mut session = on_gpu_with(gpu, &graph, GpuOptions::of(gpu)).expect("a session");
    let codes = run(&mut session, &graph, &[identity], Control::Auto).expect("a run").outputs.remove(0).1;
    let (have, want) = (codes.elements::<f32>().expect("floats"), weights.elements::<f32>().expect("floats"));
    assert!(have.iter().zip(want.iter()).all(|(have, want)| have == want));
}

#[test]
fn constants_beyond_a_binding_are_split() {
    if gpu().is_none() {
        return;
    }
    const BYTES: u64 = 1 << 17;
    let small = own_gpu(|adapter| adapter.limits.binding_bytes = BYTES / 2);
    let (graph, _) = large(7);
    let refused = on_gpu_with(&small, &graph, GpuOptions::of(&small)).err().expect("a table of 121200 bytes");
    assert!(refused.contains("121200 bytes") && refused.contains(&small.adapter().name), "{refused}");
    let small = own_gpu(|adapter| adapter.limits.binding_bytes = BYTES);
    for words in [1 << 12, 1 << 13] {
        let mut session = on_gpu_in_pieces(&small, &graph, GpuOptions::of(&small), words).expect("a session");
        // The outputs of 400 rows are larger than a binding as well.
        for rows in [1, 7, 400, 20] {
            let (graph, inputs) = large(rows);
            let want = Backend::Evaluator.prepare(&graph).and_then(|mut e| e.run(&inputs)).expect("values");
            let have = run(&mut session, &graph, &inputs, Control::Auto).expect("a run");
            let have: Vec<Tensor> = have.outputs.into_iter().map(|(_, t)| t).collect();
            check_all(&graph, &have, &want, TOLERANCE).unwrap_or_else(|e| panic!("{words} words, {rows} rows: {e}"));
        }
    }
    let few = own_gpu(|adapter| adapter.limits.storage_buffers = 6);
    let refused = on_gpu_in_pieces(&few, &graph, GpuOptions::of(&few), 1 << 10).err().expect("too many bindings");
    assert!(refused.contains("storage buffers"), "{refused}");
}

/// A case after these passes.
fn case(name: &str, passes: &str) -> Graph {
    let case = Case::new(&read(&cases_folder().join(name).with_extension("eir"))).expect("a case");
    let mut graph = case.graph().expect("a graph");
    run_passes(&mut graph, passes, &mut Context::default()).expect("passes");
    graph
}

/// What the host reads and writes is longer than a binding.
const HOST: &str = "graph @host(%x: f32[n, 64]) -> (%y: f32[n]) {
  %1 = Tanh(%x)
  %2 = CumProd{axis=1}(%1)
  %3 = Add(%2, %1)
  %y = ReduceSum{axes=[1], keepdims=false}(%3)
  return %y
}";

fn graph(text: &str) -> Graph {
    Case::new(text).and_then(|case| case.graph()).expect("a graph")
}

fn inputs(graph: &Graph, batch: i64) -> Vec<Tensor> {
    let sizes = [("batch", batch), ("seq", 5), ("n", batch)].map(|(symbol, n)| (Symbol::new(symbol), n));
    seeded_inputs(graph, &sizes.into_iter().collect()).expect("inputs")
}

#[test]
fn temporary_buffers_beyond_a_binding_take_several() {
    let Some(gpu) = gpu() else { return };
    const EXITING: &str = "simplify, exit-heads{at=[0, 1], head=linear, rule=maxprob:2}, simplify";
    for (name, passes, bytes) in [
        ("models/vit", EXITING, 1 << 12),
        ("models/bert", "simplify", 1 << 12),
        ("loops/exits", "simplify, exit-heads{at=[0, 1], rule=maxprob:0.4/0.4}", 1 << 10),
        ("host", "", 1 << 10),
    ] {
        let graph = if name == "host" { graph(HOST) } else { case(name, passes) };
        let small = own_gpu(|adapter| adapter.limits.binding_bytes = bytes);
        for guard in [Guard::Direct, Guard::Indirect] {
            let options = |gpu| GpuOptions { guard, host_ops: true, ..GpuOptions::of(gpu) };
            let mut whole = on_gpu_with(gpu, &graph, options(gpu)).expect("a session");
            let mut split = on_gpu_in_pieces(&small, &graph, options(&small), bytes as u32 / 4).expect("a session");
            let exits = split.exits().len();
            let controls = [Control::Auto, Control::Never].into_iter().chain((0..exits).map(Control::Force));
            for (batch, control) in controls.flat_map(|c| [(1, c), (9, c), (4, c)]) {
                let at = format!("{name}, {guard:?}, batch {batch}, {control:?}");
                let inputs = inputs(&graph, batch);
                let want = run(&mut whole, &graph, &inputs, control).expect("a run");
                let have = run(&mut split, &graph, &inputs, control).unwrap_or_else(|e| panic!("{at}: {e}"));
                assert_eq!(have.outputs, want.outputs, "{at}");
                assert_eq!(Counters { gpu: want.counters.gpu, ..have.counters }, want.counters, "{at}");
            }
            assert!(split.arena_bytes() as u64 > bytes, "{name}: {} bytes fit", split.arena_bytes());
            let made = small.objects_made();
            run(&mut split, &graph, &inputs(&graph, 9), Control::Auto).expect("a run");
            assert_eq!(small.objects_made(), made, "{name}: a warm run makes nothing");
        }
    }
}

#[test]
fn temporary_buffers_that_take_too_many_bindings_are_refused() {
    if gpu().is_none() {
        return;
    }
    let graph = case("models/vit", "simplify");
    let few = own_gpu(|adapter| {
        adapter.limits.binding_bytes = 1 << 12;
        adapter.limits.storage_buffers = 8;
    });
    let mut session = on_gpu_in_pieces(&few, &graph, GpuOptions::of(&few), 1 << 10).expect("a session");
    run(&mut session, &graph, &inputs(&graph, 1), Control::Auto).expect("a run");
    for _ in 0..2 {
        let refused = run(&mut session, &graph, &inputs(&graph, 60), Control::Auto).expect_err("many bindings");
        assert!(refused.contains("temporary buffers take") && refused.contains(&few.adapter().name), "{refused}");
        run(&mut session, &graph, &inputs(&graph, 1), Control::Auto).expect("a run");
    }
}
