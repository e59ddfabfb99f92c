//! Routes with a join: the same values as the continuation written twice, to the last bit, whatever the
//! mask; what runs, how often, and under which control.

use eec::cases::{Case, seeded_constant};
use eec_ir::text::parse;
use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, Tensor, eval};
use eec_passes::clone::{clone_nodes, with_inputs};
use eec_runtime::{Control, Run, Session};
use eec_tests::backend::{cpu, run};
use eec_tests::files::{cases_folder, read};
use eec_tests::values::{check_all, row};

/// Reads the mask from an input, keeps three positions of seven where it holds, and goes on with
/// `REST`, which is a second such route inside (`INNER`) between two layers.
const HEAD: &str =
    "graph @g(%x: f32[batch, 7, 4], %m: bool[batch], %n: bool[batch], %w: f32[4, 4]) -> (%y: f32[batch, 4]) {
  %e = MatMul(%x, %w)
  %mask = Reshape{dims=[batch, 1]}(%n)
  %second = Expand{dims=[batch, 4]}(%mask)
  %y = Route{gate=0}(%m; %e, %second)
";

/// One layer on `H`, of `T` positions and `R` rows, into `H.out`.
const LAYER: &str = "
  %H.a = MatMul(%H, %w)
  %H.b = Transpose{perm=[0, 2, 1]}(%H.a)
  %H.c = MatMul(%H, %H.b)
  %H.d = Softmax{axis=-1}(%H.c)
  %H.e = MatMul(%H.d, %H)
  %H.f = Tanh(%H.e)
  %H.out = Add(%H.f, %H)
";

/// Whether the rows that a second mask names drop more, as a route over `R` rows.
const SECOND: &str = "
  %H.g = Not(%S)
  %H.h = Not(%H.g)
  %H.i = Cast{to=i64}(%H.h)
  %H.j = ReduceMax{axes=[1], keepdims=0}(%H.i)
  %H.m = Cast{to=bool}(%H.j)
";

fn layer(name: &str) -> String {
    LAYER.replace('H', name)
}

fn second(name: &str, operand: &str) -> String {
    SECOND.replace('S', operand).replace('H', name)
}

fn pooled(name: &str) -> String {
    format!("{}  %{name}.y = ReduceMean{{axes=[1], keepdims=0}}(%{name}.out)\n  yield %{name}.y\n", layer(name))
}

fn short(from: &str, to: &str, positions: i64) -> String {
    format!("  %{to} = Slice{{axes=[1], starts=[0], ends=[{positions}], steps=[1]}}(%{from})\n")
}

/// The model with each continuation once.
fn joined() -> Graph {
    let inner = format!(
        "{}{}  %h.z = Route{{gate=1}}(%h.m; %h.out)
      then ^4[r3](%c: f32[r3, t, 4]) {{\n{}yield %c2\n}}
      else ^5[r4](%d: f32[r4, t, 4]) {{\nyield %d\n}}
      join ^6[r5, u](%k: f32[r5, u, 4]) {{\n{}}}
    yield %h.z\n",
        layer("h"),
        second("h", "s"),
        short("c", "c2", 2),
        pooled("k")
    );
    graph(&format!(
        "{HEAD}
    then ^1[r0](%a: f32[r0, 7, 4], %a1: bool[r0, 4]) {{\n{}yield %a2, %a1\n}}
    else ^2[r1](%b: f32[r1, 7, 4], %b1: bool[r1, 4]) {{\nyield %b, %b1\n}}
    join ^3[r2, t](%h: f32[r2, t, 4], %s: bool[r2, 4]) {{\n{inner}}}
  return %y\n}}",
        short("a", "a2", 3)
    ))
}

/// The same model with every continuation written on both sides.
fn branched() -> Graph {
    let side = |p: &str, rows: &str, given: &str, from: &str, positions: i64| {
        let (inner, outer) = (format!("{rows}i"), format!("{rows}o"));
        let start = if positions == 3 { short(given, from, 3) } else { String::new() };
        format!(
            "{start}{}{}  %{p}.z = Route(%{from}.m; %{from}.out)
      then [{inner}](%{p}c: f32[{inner}, {positions}, 4]) {{\n{}{}}}
      else [{outer}](%{p}d: f32[{outer}, {positions}, 4]) {{\n{}}}
    yield %{p}.z\n",
            layer(from),
            second(from, &format!("{given}1")),
            short(&format!("{p}c"), &format!("{p}k"), 2),
            pooled(&format!("{p}k")),
            pooled(&format!("{p}d")),
        )
    };
    graph(&format!(
        "{}
    then ^1[r0](%a: f32[r0, 7, 4], %a1: bool[r0, 4]) {{\n{}}}
    else ^2[r1](%b: f32[r1, 7, 4], %b1: bool[r1, 4]) {{\n{}}}
  return %y\n}}",
        HEAD.replace("{gate=0}", ""),
        side("p", "r0", "a", "a2", 3),
        side("q", "r1", "b", "b", 7),
    ))
}

fn graph(text: &str) -> Graph {
    let graph = parse(text, &mut |c| Some(seeded_constant(c))).unwrap_or_else(|e| panic!("{e}"));
    verify(&graph, Stage::Lowerable).unwrap_or_else(|e| panic!("{e}"));
    graph
}

/// Inputs whose rows take these sides of the two routes.
fn inputs(masks: &[(u8, u8)]) -> Vec<Tensor> {
    let rows = masks.len();
    let ramp =
        |count: usize, step: usize| (0..count).map(|i| (i * step % 97) as f32 / 48.0 - 1.0).collect::<Vec<f32>>();
    let mask = |m: Vec<u8>| Tensor::new(&[rows], m).expect("a mask");
    vec![
        Tensor::new(&[rows, 7, 4], ramp(rows * 28, 31)).expect("rows"),
        mask(masks.iter().map(|m| m.0).collect()),
        mask(masks.iter().map(|m| m.1).collect()),
        Tensor::new(&[4, 4], ramp(16, 29)).expect("weights"),
    ]
}

/// Mixed, on one side of one route or of both, one row, none.
fn masks() -> Vec<Vec<(u8, u8)>> {
    let mut all = vec![vec![]];
    for pair in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        all.extend([vec![pair], vec![pair; 3]]);
    }
    all.extend([vec![(0, 0), (1, 1), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1)], vec![(1, 0), (0, 0)]]);
    // The second route is mixed in one run of the first one's join, and all of one side in the other.
    all.extend([vec![(1, 0), (0, 0), (0, 1), (1, 0)], vec![(1, 1), (0, 0), (1, 0), (0, 0)]]);
    all.extend([vec![(1, 1), (0, 1), (1, 1), (0, 0)], vec![(1, 0), (0, 1), (1, 1), (0, 1)]]);
    all
}

fn ran(session: &mut Session, graph: &Graph, inputs: &[Tensor], control: Control) -> Run {
    run(session, graph, inputs, control).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_join_is_its_body_on_both_sides() {
    let (joined, branched) = (joined(), branched());
    for threads in [1, 2] {
        let mut one = cpu(&joined, threads).expect("lowers");
        let mut two = cpu(&branched, threads).expect("lowers");
        // Twice, so that nothing is left over from a run of other rows.
        for masks in masks().into_iter().chain(masks()) {
            let inputs = inputs(&masks);
            let want = eval::evaluate(&branched, &inputs).expect("evaluates");
            assert_eq!(eval::evaluate(&joined, &inputs).expect("evaluates"), want, "{masks:?}");
            let have = ran(&mut one, &joined, &inputs, Control::Auto);
            let twice = ran(&mut two, &branched, &inputs, Control::Auto);
            assert_eq!(have.outputs, twice.outputs, "{masks:?}, {threads} threads");
            assert_eq!(have.counters.macs, twice.counters.macs, "{masks:?}: the same work");
            check_all(&joined, &tensors(&have), &want, 1e-5).unwrap_or_else(|e| panic!("{e}"));
            let count = |f: fn(&(u8, u8)) -> u8| masks.iter().map(|m| u64::from(f(m))).sum::<u64>();
            assert_eq!(have.counters.gate_rows, [count(|m| m.0), count(|m| m.1)], "{masks:?}");
        }
    }
}

fn tensors(run: &Run) -> Vec<Tensor> {
    run.outputs.iter().map(|(_, t)| t.clone()).collect()
}

#[test]
fn a_row_fares_alone_as_in_a_batch() {
    let graph = joined();
    let mut session = cpu(&graph, 2).expect("lowers");
    for masks in masks() {
        let inputs = inputs(&masks);
        let batch = ran(&mut session, &graph, &inputs, Control::Auto);
        let mut macs = 0;
        for r in 0..masks.len() {
            let mut alone: Vec<Tensor> = inputs[..3].iter().map(|t| row(t, r)).collect();
            alone.push(inputs[3].clone());
            let run = ran(&mut session, &graph, &alone, Control::Auto);
            assert_eq!(run.outputs[0].1, row(&batch.outputs[0].1, r), "{masks:?}, row {r}");
            macs += run.counters.macs;
        }
        assert_eq!(batch.counters.macs, macs, "{masks:?}: a batch costs what its rows cost");
    }
}

#[test]
fn a_copy_computes_the_same() {
    let graph = joined();
    let (mut copy, mut map) = with_inputs(&graph);
    let nodes = &graph.region(Graph::ROOT).nodes;
    clone_nodes(&graph, nodes, &mut copy, Graph::ROOT, &mut map, Default::default()).expect("type-checks");
    copy.set_outputs(vec![("y".into(), map[&graph.outputs()[0]])]);
    verify(&copy, Stage::Lowerable).expect("holds all invariants");
    // Inner values have lost their names, and nothing else.
    let lines = |g: &Graph| g.to_string().lines().count();
    assert_eq!(lines(&copy), lines(&graph));
    assert_eq!(copy.to_string().matches("join ^").count(), 2);
    let inputs = inputs(&[(0, 0), (1, 1), (0, 1), (1, 0)]);
    assert_eq!(eval::evaluate(&copy, &inputs), eval::evaluate(&graph, &inputs));
}

#[test]
fn a_length_that_is_not_as_assumed_is_refused() {
    let text = joined().to_string();
    let keeps =
        |n: u8| [format!("{n} == min({n}, t)"), format!("f32[r3, {n}, 4] = Slice{{axes=[1], starts=[0], ends=[{n}]")];
    assert!(keeps(2).iter().all(|part| text.contains(part)), "{text}");
    // Four positions of the three that the first gate leaves.
    let text = keeps(2).iter().zip(keeps(4)).fold(text.clone(), |text, (two, four)| text.replace(two, &four));
    let (graph, inputs) = (graph(&text), inputs(&[(1, 1)]));
    let mut session = cpu(&graph, 1).expect("lowers");
    let failures = [
        run(&mut session, &graph, &inputs, Control::Auto).err(),
        eval::evaluate(&graph, &inputs).err().map(|e| e.to_string()),
    ];
    for failure in failures {
        let text = failure.unwrap_or_default();
        assert!(text.contains("make them 4 and 3"), "{text}");
    }
}

#[test]
fn gates_are_called_by_their_nodes() {
    let source = read(&cases_folder().join("joins/shorter.eir"));
    let graph = Case::new(&source).and_then(|case| case.graph()).expect("a graph");
    assert_eq!(cpu(&graph, 1).expect("lowers").gates(), ["layer.1/token-exit"]);
}

#[test]
fn controls_decide_for_all_rows() {
    let graph = joined();
    let mut session = cpu(&graph, 1).expect("lowers");
    let mixed = [(0, 0), (1, 1), (0, 1), (1, 0), (1, 1)];
    for (control, side) in [(Control::Never, 0), (Control::Gates, 1)] {
        let all: Vec<_> = mixed.iter().map(|_| (side, side)).collect();
        let want = ran(&mut session, &graph, &inputs(&all), Control::Auto);
        let have = ran(&mut session, &graph, &inputs(&mixed), control);
        assert_eq!((have.outputs, have.counters), (want.outputs, want.counters), "{control:?}");
    }
    // With nothing of the model's own exits to force, the gates decide by themselves.
    let auto = ran(&mut session, &graph, &inputs(&mixed), Control::Auto);
    let force = ran(&mut session, &graph, &inputs(&mixed), Control::Force(0));
    assert_eq!((auto.outputs, auto.counters), (force.outputs, force.counters));
}

#[test]
fn the_continuation_stands_once_and_runs_once_per_group() {
    let graph = joined();
    let mut session = cpu(&graph, 1).expect("lowers");
    let most = |session: &Session, run: &Run| {
        let kernels = session.program().kernels.iter().zip(&run.counters.per_kernel);
        kernels.map(|(_, n)| *n).max().unwrap_or(0)
    };
    for (masks, runs) in [(vec![(1, 1); 4], 1), (vec![(1, 0), (0, 0)], 2), (vec![(1, 0), (0, 0), (0, 1), (1, 1)], 4)] {
        let run = ran(&mut session, &graph, &inputs(&masks), Control::Auto);
        assert_eq!(most(&session, &run), runs, "{masks:?}");
    }
}
