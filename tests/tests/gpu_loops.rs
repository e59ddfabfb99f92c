//! Loops on a GPU: their conditions and counts are taken on the device, against the CPU runtime, whose counters they
//! must share; one read-back where the host knows how many steps there may be, and few where only data says so.

use eec::cases::Case;
use eec_ir::{Graph, Tensor};
use eec_runtime::gpu::{Gpu, GpuOptions, Guard};
use eec_runtime::{Control, Counters, Options, Run, SpanKind};
use eec_tests::backend::{cpu, gpu, on_gpu_with, run};
use eec_tests::files::{cases_folder, read};
use eec_tests::values::check;

/// Two values that change places, one of them through a loop of its own; rows of every step, and its number.
const SWAPPING: &str = "graph @swapping(%x: f32[b, 4], %z: f32[b, 4], %s: f32[n]) ->
    (%y: f32[b, 4], %v: f32[b, 4], %all: f32[n, b, 4], %squares: i64[n]) {
  %y: f32[b, 4], %v: f32[b, 4], %all: f32[n, b, 4], %squares: i64[n] = Loop{trips=n}(true; %x, %z)
    do ^1(%i: i64[], %p: f32[b, 4], %q: f32[b, 4]) {
      %1: f32[b, 4] = Loop{trips=2}(true; %p)
        do ^2(%j: i64[], %h: f32[b, 4]) {
          %2: f32[b, 4] = Mul(%h, 0.75)
          yield true, %2
        }
      %3: f32[b, 4] = Add(%1, 1.0)
      %4: i64[] = Mul(%i, %i)
      yield true, %q, %3, %p, %4
    }
  return %y, %v, %all, %squares
}";

/// Doubles what it carries while it is below a bound; only the data ends it.
const WHILE: &str = "graph @while(%x: f32[4], %most: f32[]) -> (%y: f32[4], %steps: i64[]) {
  %m = ReduceMax{axes=[0], keepdims=false}(%x)
  %b = Less(%m, %most)
  %y: f32[4], %steps: i64[] = Loop{trips=TRIPS}(%b; %x, 0)  @\"doubling\"
    do ^1(%i: i64[], %p: f32[4], %k: i64[]) {
      %1 = Mul(%p, 2.0)
      %2 = ReduceMax{axes=[0], keepdims=false}(%1)
      %3 = Less(%2, %most)
      %4 = Add(%i, 1)
      yield %3, %1, %4
    }
  return %y, %steps
}";

/// For every row of a table a loop that its number ends, inside of a loop that another input ends, in a branch.
const NESTED: &str = "graph @nested(%x: f32[n, 4], %go: bool[], %rounds: i64[]) -> (%y: f32[4], %k: i64[]) {
  %z = Expand{dims=[4]}(0.0)
  %y: f32[4], %k: i64[] = If(%go)
    then ^1() {
      %1: f32[4], %2: i64[] = Loop{trips=n}(true; %z, 0)
        do ^2(%i: i64[], %p: f32[4], %c: i64[]) {
          %3 = Gather{axis=0}(%x, %i)
          %b = Less(%c, 1000)
          %4: f32[4], %5: i64[] = Loop{trips=-1}(%b; %p, %c)
            do ^3(%j: i64[], %q: f32[4], %d: i64[]) {
              %6 = Add(%q, %3)
              %7 = Tanh(%6)
              %8 = Add(%d, 1)
              %9 = Mul(%i, %rounds)
              %10 = Less(%j, %9)
              yield %10, %7, %8
            }
          yield true, %4, %5
        }
      yield %1, %2
    }
    else ^4() {
      yield %z, 0
    }
  return %y, %k
}";

fn graph(text: &str) -> Graph {
    Case::new(text).and_then(|case| case.graph()).unwrap_or_else(|e| panic!("{e}"))
}

fn floats(dims: &[usize], scale: f32) -> Tensor {
    let len: usize = dims.iter().product();
    Tensor::new(dims, (0..len).map(|i| (i % 7) as f32 * scale - scale).collect::<Vec<f32>>()).expect("a tensor")
}

fn scalar<T: eec_ir::tensor::Element>(value: T) -> Tensor {
    Tensor::new(&[], vec![value]).expect("a tensor")
}

/// Checks outputs and that the same kernels did the same work, as often.
fn same(have: &Run, want: &Run, at: &str) {
    for ((name, have), (_, want)) in have.outputs.iter().zip(&want.outputs) {
        check(name, have, want, 1e-4).unwrap_or_else(|e| panic!("{at}: {e}"));
    }
    let counted = Counters { gpu: want.counters.gpu, measures: Vec::new(), ..have.counters.clone() };
    assert_eq!(counted, want.counters, "{at}");
}

/// Runs a graph on these inputs on both backends, with both guards and these options; gives the GPU's runs.
fn compared(graph: &Graph, all: &[Vec<Tensor>], change: impl Fn(&mut GpuOptions)) -> Vec<Run> {
    let Some(gpu) = gpu() else { return Vec::new() };
    let mut reference = cpu(graph, 1).expect("a session");
    let mut runs = Vec::new();
    for guard in [Guard::Direct, Guard::Indirect] {
        let mut options = GpuOptions { guard, ..GpuOptions::of(gpu) };
        change(&mut options);
        let mut session = on_gpu_with(gpu, graph, options).unwrap_or_else(|e| panic!("{e}"));
        for (i, inputs) in all.iter().enumerate() {
            let want = run(&mut reference, graph, inputs, Control::Auto).expect("a run");
            let have = run(&mut session, graph, inputs, Control::Auto).unwrap_or_else(|e| panic!("inputs {i}: {e}"));
            same(&have, &want, &format!("{guard:?}, inputs {i}"));
            runs.push(have);
        }
    }
    runs
}

fn swapping_inputs(rows: usize, steps: usize) -> Vec<Tensor> {
    vec![floats(&[rows, 4], 0.5), floats(&[rows, 4], -1.5), floats(&[steps], 1.0)]
}

fn while_inputs(most: f32) -> Vec<Tensor> {
    vec![Tensor::vector(vec![0.25f32, 1.0, -3.0, 0.5]), scalar(most)]
}

fn nested_inputs(rows: usize, go: bool, rounds: i64) -> Vec<Tensor> {
    vec![floats(&[rows, 4], 0.25), scalar(u8::from(go)), scalar(rounds)]
}

/// The loop that [`WHILE`] is, with so many steps at most; -1 stands for any number.
fn doubling(trips: i64) -> Graph {
    graph(&WHILE.replace("TRIPS", &trips.to_string()))
}

#[test]
fn a_loop_over_a_symbolic_length_is_one_submission_with_one_read_back() {
    let sizes = [(3, 0), (3, 1), (2, 5), (0, 3), (40, 4), (2, 5)];
    let inputs: Vec<Vec<Tensor>> = sizes.iter().map(|(rows, steps)| swapping_inputs(*rows, *steps)).collect();
    for run in compared(&graph(SWAPPING), &inputs, |_| ()) {
        assert_eq!((run.counters.gpu.submits, run.counters.gpu.waits), (1, 1));
    }
}

#[test]
fn a_loop_that_data_ends_before_its_count_runs_nothing_more() {
    let inputs: Vec<Vec<Tensor>> = [0.5, 3.0, 100.0, 1e30].map(while_inputs).to_vec();
    for run in compared(&doubling(60), &inputs, |_| ()) {
        assert_eq!((run.counters.gpu.submits, run.counters.gpu.waits), (1, 1));
        assert!(run.counters.gpu.dispatches > 60 * 4, "all steps are recorded: {:?}", run.counters.gpu);
    }
}

#[test]
fn a_loop_without_a_count_is_asked_about_a_few_times() {
    let inputs: Vec<Vec<Tensor>> = [0.5, 3.0, 1e30].map(while_inputs).to_vec();
    let waits = |trips, ahead| -> Vec<u64> {
        let runs = compared(&doubling(trips), &inputs, |o| o.steps_ahead = ahead);
        runs.iter().take(3).map(|run| run.counters.gpu.waits).collect()
    };
    if gpu().is_none() {
        return;
    }
    // 0, 2 and 100 steps: those after 16, after 32 more, and after 64 more are asked about.
    for trips in [-1, 1 << 40] {
        assert_eq!(waits(trips, 1024), [2, 2, 4]);
    }
    assert_eq!(waits(-1, 20), [2, 2, 7]);
    // A count that is larger than what is recorded ahead is as good as none.
    assert_eq!(waits(3000, 1024), [2, 2, 4]);
    assert_eq!(waits(3000, 3000), [1, 1, 1]);
}

#[test]
fn loops_inside_loops_behind_a_decision_end_by_themselves() {
    let inputs = [(3, true, 2), (1, true, 0), (3, false, 2), (0, true, 1), (4, true, 7)];
    let inputs: Vec<Vec<Tensor>> = inputs.iter().map(|(n, go, k)| nested_inputs(*n, *go, *k)).collect();
    for ahead in [1, 2, 7, 1024] {
        for run in compared(&graph(NESTED), &inputs, |o| o.steps_ahead = ahead) {
            assert!(run.counters.gpu.waits <= 60, "{ahead}: {:?}", run.counters.gpu);
        }
    }
}

#[test]
fn loops_that_take_too_many_steps_fail_and_the_session_goes_on() {
    let Some(gpu) = gpu() else { return };
    // Of three steps the first is the fourth too many, the last ends in time.
    for (trips, limit) in [(-1, 99), (1 << 20, 99), (101, 99), (-1, 0)] {
        let graph = doubling(trips);
        let options = GpuOptions { step_limit: limit, ..GpuOptions::of(gpu) };
        let mut session = on_gpu_with(gpu, &graph, options).expect("a session");
        for _ in 0..2 {
            let error = run(&mut session, &graph, &while_inputs(1e30), Control::Auto).expect_err("too many steps");
            let expected = format!("\"doubling\": loops take more than {limit} steps");
            assert!(error.contains(&expected), "{trips}, {limit}: {error}");
            run(&mut session, &graph, &while_inputs(0.5), Control::Auto).expect("a run without a step");
        }
    }
    let enough = GpuOptions { step_limit: 100, ..GpuOptions::of(gpu) };
    let graph = doubling(-1);
    let mut session = on_gpu_with(gpu, &graph, enough).expect("a session");
    run(&mut session, &graph, &while_inputs(1e30), Control::Auto).expect("100 steps");
    // Steps of all loops count together.
    let graph = self::graph(SWAPPING);
    for (limit, fits) in [(15, true), (14, false)] {
        let options = GpuOptions { step_limit: limit, ..GpuOptions::of(gpu) };
        let mut session = on_gpu_with(gpu, &graph, options).expect("a session");
        let on_cpu = eec::cases::lowered(&graph).expect("a program");
        let options = Options { threads: 1, step_limit: limit, ..Options::default() };
        let mut reference = eec_runtime::Session::new(on_cpu, &constants(&graph), options).expect("a session");
        let want = run(&mut reference, &graph, &swapping_inputs(2, 5), Control::Auto);
        let have = run(&mut session, &graph, &swapping_inputs(2, 5), Control::Auto);
        assert_eq!((have.is_ok(), want.is_ok()), (fits, fits), "{limit}");
        assert_eq!(have.err(), want.err());
    }
}

fn constants(graph: &Graph) -> impl Fn(eec_ir::ContentHash) -> Option<Tensor> + '_ {
    |hash| graph.constants().find(hash).map(|id| graph.constants().tensor(id).clone())
}

/// A kernel that fails in a loop that would never end.
const FAILING: &str = "graph @failing(%x: f32[3, 4], %most: i64[]) -> (%y: f32[4]) {
  %z = Expand{dims=[4]}(0.0)
  %y: f32[4] = Loop{trips=-1}(true; %z)
    do ^1(%i: i64[], %p: f32[4]) {
      %1 = Gather{axis=0}(%x, %i)
      %2 = Add(%p, %1)
      %3 = Less(%i, %most)
      yield %3, %2
    }
  return %y
}";

#[test]
fn a_kernel_that_fails_ends_all_loops() {
    let Some(gpu) = gpu() else { return };
    let graph = graph(FAILING);
    let mut session = on_gpu_with(gpu, &graph, GpuOptions::of(gpu)).expect("a session");
    let inputs = |most: i64| [floats(&[3, 4], 1.0), scalar(most)];
    let error = run(&mut session, &graph, &inputs(1 << 30), Control::Auto).expect_err("the table has three rows");
    assert!(error.contains("\"Add !2\": an index is out of range"), "{error}");
    run(&mut session, &graph, &inputs(2), Control::Auto).expect("three steps");
}

#[test]
fn a_warm_run_with_loops_makes_no_object() {
    if gpu().is_none() {
        return;
    }
    // Of its own, so that no other test makes anything on it.
    let gpu = Gpu::open(std::env::var("EEC_ADAPTER").ok().as_deref()).expect("an adapter");
    for (text, inputs, fewer) in [
        (SWAPPING.to_string(), swapping_inputs(5, 6), swapping_inputs(5, 2)),
        (WHILE.replace("TRIPS", "-1"), while_inputs(1e30), while_inputs(9.0)),
        (NESTED.to_string(), nested_inputs(4, true, 3), nested_inputs(2, true, 9)),
    ] {
        let graph = graph(&text);
        let mut session = on_gpu_with(&gpu, &graph, GpuOptions::of(&gpu)).expect("a session");
        run(&mut session, &graph, &inputs, Control::Auto).expect("a run");
        let made = gpu.objects_made();
        for warm in [&inputs, &fewer, &inputs] {
            run(&mut session, &graph, warm, Control::Auto).expect("a run");
            assert_eq!(gpu.objects_made(), made);
        }
    }
}

#[test]
fn a_long_loop_is_cut_without_reading_between() {
    let layers = Case::new(&read(&cases_folder().join("loops/exits.eir"))).and_then(|case| case.graph());
    for run in compared(&layers.expect("a graph"), &[vec![floats(&[3, 30, 6], 0.25)]], |o| o.submission_macs = 1) {
        assert!(run.counters.gpu.submits > 90, "a product of every step: {:?}", run.counters.gpu);
        assert_eq!(run.counters.gpu.waits, 1);
    }
    // More steps than are recorded ahead, and more dispatches than a submission holds, but all of them are made.
    for run in compared(&graph(SWAPPING), &[swapping_inputs(1, 2000)], |_| ()) {
        assert!(run.counters.gpu.submits > 1, "{:?}", run.counters.gpu);
        assert_eq!(run.counters.gpu.waits, 1);
    }
}

#[test]
fn every_step_is_measured_where_the_adapter_has_a_clock() {
    let Some(gpu) = gpu().filter(|gpu| gpu.adapter().features.contains(&"timestamps")) else { return };
    for (graph, inputs) in [
        (graph(SWAPPING), swapping_inputs(2, 5)),
        (doubling(60), while_inputs(9.0)),
        // More dispatches than have room for their times at once.
        (graph(SWAPPING), swapping_inputs(1, 700)),
    ] {
        let options = GpuOptions { profile: true, ..GpuOptions::of(gpu) };
        let mut session = on_gpu_with(gpu, &graph, options).expect("a session");
        let have = run(&mut session, &graph, &inputs, Control::Auto).expect("a run");
        let want = run(&mut cpu(&graph, 1).expect("a session"), &graph, &inputs, Control::Auto).expect("a run");
        same(&have, &want, "measured");
        let kernels = have.timeline.iter().filter(|span| span.kind == SpanKind::Kernel);
        assert_eq!(kernels.filter(|span| span.ran).count() as u64, have.counters.kernels);
        let macs: u64 = have.counters.measures.iter().map(|m| m.macs).sum();
        assert_eq!(macs, have.counters.macs);
        for (measure, runs) in have.counters.measures.iter().zip(&have.counters.per_kernel) {
            assert_eq!(*runs == 0, measure.bytes == 0, "{measure:?} of {runs} runs");
        }
    }
}

#[test]
fn a_number_of_steps_may_be_a_formula_that_is_below_zero() {
    let text = "graph @fewer(%x: f32[n, 4]) -> (%y: f32[4]) {
  %z = Expand{dims=[4]}(1.0)
  %y: f32[4] = Loop{trips=n-2}(true; %z)
    do ^1(%i: i64[], %p: f32[4]) {
      %1 = Gather{axis=0}(%x, %i)
      %2 = Add(%p, %1)
      yield true, %2
    }
  return %y
}";
    let graph = graph(text);
    let inputs: Vec<Vec<Tensor>> = [0, 1, 2, 3, 9].iter().map(|n| vec![floats(&[*n, 4], 0.5)]).collect();
    compared(&graph, &inputs, |_| ());
}

#[test]
fn rows_that_part_at_every_step_are_counted_at_every_step() {
    let case = Case::new(&read(&cases_folder().join("ops/loop_route.eir"))).expect("a case");
    let graph = case.graph().expect("a graph");
    let mask = |n: usize| Tensor::new(&[n], (0..n).map(|i| u8::from(i % 3 == 0)).collect::<Vec<u8>>());
    let inputs = |n: usize| vec![floats(&[n, 4], 0.5), mask(n).expect("a tensor")];
    let runs = compared(&graph, &[inputs(5), inputs(1), inputs(8)], |_| ());
    assert!(runs.iter().all(|run| run.counters.macs > 0));
}
