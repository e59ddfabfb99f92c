//! Every case on a GPU, with both guards: operators in all layouts against the evaluator, and models with exits,
//! gates, token exits and joins under every control against the CPU runtime, whose counters they must share.

use std::path::Path;

use eec::cases::{Case, lowered, run_passes, seeded_inputs};
use eec_ir::program::{Form, Program};
use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, Tensor};
use eec_passes::pass::Context;
use eec_runtime::gpu::{Gpu, GpuOptions, Guard};
use eec_runtime::{Control, Counters, Run, Runner};
use eec_tests::backend::{Backend, ON_GPU, cpu, gpu, on_gpu, on_gpu_with, own_gpu, run};
use eec_tests::files::{cases, cases_folder, for_each, read};
use eec_tests::has_gpu_form;
use eec_tests::values::{check as check_tensor, check_all};
use eec_tests::variants::{Layout, with_layout};

/// Of float32, relative and absolute.
const TOLERANCE: f32 = 1e-4;

/// Cases that say nothing in one layout, and why.
const IGNORED: &[(&str, Layout, &str)] = &[(
    "layernormalization",
    Layout::Broadcast,
    "rows of equal elements have no variance: the result is the mean's rounding error times 1/sqrt(epsilon)",
)];

fn case(path: &Path) -> Result<(Case, Graph), String> {
    let case = Case::new(&read(path)).map_err(|e| e.to_string())?;
    let graph = case.graph().map_err(|e| e.to_string())?;
    Ok((case, graph))
}

fn compiled(case: &Case, graph: &Graph) -> Result<Graph, String> {
    let mut graph = graph.clone();
    run_passes(&mut graph, &case.header.passes, &mut Context::default()).map_err(|e| e.to_string())?;
    Ok(graph)
}

/// Whether the host must run an operator.
fn needs_host(program: &Program) -> bool {
    program.kernels.iter().any(|k| matches!(k.form, Form::Host(_)))
}

/// How many of the guards make a difference: where nothing is decided, one.
fn guards(program: &Program) -> usize {
    if program.blocks.len() > 1 { 2 } else { 1 }
}

#[test]
fn every_operator_is_right_on_a_gpu() {
    if gpu().is_none() {
        return;
    }
    for_each(&cases("ops"), |path| {
        let (case, graph) = case(path)?;
        let mut failures = Vec::new();
        for layout in Layout::ALL {
            let ignored =
                |(name, l, _): &(&str, Layout, &str)| path.file_stem().is_some_and(|s| s == *name) && *l == layout;
            if IGNORED.iter().any(ignored) {
                continue;
            }
            let variant = match layout {
                Layout::Dense => Some(graph.clone()),
                _ => with_layout(&graph, layout)?,
            };
            let Some(variant) = variant else { continue };
            let compiled = compiled(&case, &variant)?;
            // A dim that a layout changes may have been the only one that binds its symbol.
            if layout != Layout::Dense && verify(&compiled, Stage::Lowerable).is_err() {
                continue;
            }
            failures.extend(operator(&case, &variant, &compiled).err().map(|e| format!("{layout:?}: {e}")));
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("\n  ")) }
    });
}

/// Compares `compiled` on the GPU with `graph` on the evaluator.
fn operator(case: &Case, graph: &Graph, compiled: &Graph) -> Result<(), String> {
    let program = lowered(compiled).map_err(|e| e.to_string())?;
    if !has_gpu_form(&program) {
        let refused = on_gpu(compiled, Guard::Direct).err().ok_or("it runs on a GPU, though it has no words there")?;
        return if refused.contains("no GPU form") { Ok(()) } else { Err(refused) };
    }
    if needs_host(&program) {
        return with_host(case, graph, compiled);
    }
    let backends = &ON_GPU[..guards(&program)];
    let mut prepared = backends.iter().map(|b| b.prepare(compiled)).collect::<Result<Vec<_>, _>>()?;
    for sizes in case.sizes(graph).map_err(|e| e.to_string())? {
        let inputs = seeded_inputs(graph, &sizes).map_err(|e| e.to_string())?;
        let want = Backend::Evaluator.prepare(graph)?.run(&inputs)?;
        for (backend, prepared) in backends.iter().zip(&mut prepared) {
            let at = |e: String| format!("{backend:?} at {sizes:?}: {e}");
            let have = prepared.run(&inputs).map_err(at)?;
            check_all(graph, &have, &want, TOLERANCE).map_err(at)?;
        }
    }
    Ok(())
}

/// The same where the host computes what has no shader, if it is told to.
fn with_host(case: &Case, graph: &Graph, compiled: &Graph) -> Result<(), String> {
    let gpu = gpu().ok_or("there is no adapter")?;
    let refused = on_gpu(compiled, Guard::Direct).err().ok_or("it runs on a GPU, though its evaluator is needed")?;
    if !refused.contains("--host-ops") {
        return Err(refused);
    }
    let mut session = on_gpu_with(gpu, compiled, GpuOptions { host_ops: true, ..GpuOptions::of(gpu) })?;
    let steps = session.program().kernels.iter().filter(|k| matches!(k.form, Form::Host(_))).count() as u64;
    for sizes in case.sizes(graph).map_err(|e| e.to_string())? {
        let inputs = seeded_inputs(graph, &sizes).map_err(|e| e.to_string())?;
        let want = Backend::Evaluator.prepare(graph)?.run(&inputs)?;
        for again in [false, true] {
            let have = run(&mut session, compiled, &inputs, Control::Auto)?;
            let counted = &have.counters;
            if counted.gpu.host_steps != steps || counted.gpu.submits != steps + 1 || counted.per_kernel.contains(&0) {
                return Err(format!("counted {counted:?}, again: {again}"));
            }
            let have: Vec<Tensor> = have.outputs.into_iter().map(|(_, t)| t).collect();
            check_all(graph, &have, &want, TOLERANCE).map_err(|e| format!("{sizes:?}, again: {again}: {e}"))?;
        }
    }
    Ok(())
}

#[test]
fn every_model_runs_as_on_the_cpu_under_every_control() {
    if gpu().is_none() {
        return;
    }
    let areas = ["exits", "ffn", "joins", "loops", "models", "simplify", "tokens", "truncate", "weights", "wgsl"];
    let paths: Vec<_> = areas.iter().flat_map(|area| cases(area)).collect();
    for_each(&paths, |path| {
        if read(path).lines().any(|l| l.starts_with(";! expect-error")) {
            return Ok(());
        }
        let (case, before) = case(path)?;
        let after = compiled(&case, &before)?;
        // What needs the host is tried with the operators.
        if verify(&after, Stage::Lowerable).is_err() || needs_host(&lowered(&after).map_err(|e| e.to_string())?) {
            return Ok(());
        }
        for sizes in case.sizes(&before).map_err(|e| e.to_string())? {
            let inputs = seeded_inputs(&before, &sizes).map_err(|e| e.to_string())?;
            model(&after, &inputs).map_err(|e| format!("{sizes:?}: {e}"))?;
        }
        Ok(())
    });
}

/// Runs a graph on both backends under every control.
fn model(graph: &Graph, inputs: &[Tensor]) -> Result<(), String> {
    let mut reference = cpu(graph, 1)?;
    let exits = reference.exits().len();
    let forced = (0..=exits).filter(|_| exits > 0).map(Control::Force);
    let controls: Vec<Control> = [Control::Auto, Control::Never, Control::Gates].into_iter().chain(forced).collect();
    let program = lowered(graph).map_err(|e| e.to_string())?;
    for guard in [Guard::Direct, Guard::Indirect].into_iter().take(guards(&program)) {
        let mut session = on_gpu(graph, guard)?;
        for control in &controls {
            let want = run(&mut reference, graph, inputs, *control)?;
            let have = run(&mut session, graph, inputs, *control)?;
            same(&have, &want).map_err(|e| format!("{guard:?}, {control:?}: {e}"))?;
        }
    }
    Ok(())
}

/// Checks outputs, and that the same kernels did the same work in one submission.
fn same(have: &Run, want: &Run) -> Result<(), String> {
    for ((name, have), (_, want)) in have.outputs.iter().zip(&want.outputs) {
        check_tensor(name, have, want, TOLERANCE)?;
    }
    if have.counters.gpu.submits != 1 {
        return Err(format!("{} submissions", have.counters.gpu.submits));
    }
    let counted = Counters { gpu: want.counters.gpu, ..have.counters.clone() };
    if counted == want.counters {
        return Ok(());
    }
    Err(format!("counted {counted:?}\nexpected {:?}", want.counters))
}

/// A small model after these passes, and inputs for a batch.
fn small(name: &str, passes: &str, batch: i64) -> (Graph, Vec<Tensor>) {
    let path = cases_folder().join("models").join(name).with_extension("eir");
    let (case, mut graph) = case(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
    drop(case);
    run_passes(&mut graph, passes, &mut Context::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let sizes = [("batch", batch), ("seq", 5), ("n", batch)].map(|(symbol, n)| (eec_ir::Symbol::new(symbol), n));
    let inputs = seeded_inputs(&graph, &sizes.into_iter().collect()).unwrap_or_else(|e| panic!("{name}: {e}"));
    (graph, inputs)
}

const EXITING: &str = "simplify, exit-heads{at=[0, 1], head=linear, rule=maxprob:2}, simplify";

#[test]
fn nothing_behind_a_taken_exit_runs() {
    if gpu().is_none() {
        return;
    }
    for (batch, guard) in [1, 8].into_iter().flat_map(|b| [(b, Guard::Direct), (b, Guard::Indirect)]) {
        let (graph, inputs) = small("vit", EXITING, batch);
        let mut session = on_gpu(&graph, guard).expect("a session");
        for exit in 0..2 {
            let run = run(&mut session, &graph, &inputs, Control::Force(exit)).expect("a run");
            let runs_of = |block: usize| -> u64 {
                let named = |name: &str| name.starts_with(&format!("block.{block}."));
                let kernels = session.program().kernels.iter().zip(&run.counters.per_kernel);
                kernels.filter(|(kernel, _)| named(&kernel.name)).map(|(_, n)| n).sum()
            };
            for block in 0..4 {
                assert_eq!(runs_of(block) > 0, block <= exit, "batch {batch}, {guard:?}, exit {exit}, block {block}");
            }
            let mut rows = [0, 0];
            rows[exit] = batch as u64;
            assert_eq!(run.counters.exit_rows, rows);
        }
    }
}

#[test]
fn a_warm_run_makes_no_object() {
    if gpu().is_none() {
        return;
    }
    // Of its own, so that no other test makes anything on it.
    let gpu = Gpu::open(std::env::var("EEC_ADAPTER").ok().as_deref()).expect("an adapter");
    let (graph, inputs) = small("vit", EXITING, 3);
    let mut session = on_gpu_with(&gpu, &graph, GpuOptions::of(&gpu)).expect("a session");
    let cold = run(&mut session, &graph, &inputs, Control::Auto).expect("a run");
    let made = gpu.objects_made();
    for control in [Control::Auto, Control::Force(0), Control::Never, Control::Auto] {
        let warm = run(&mut session, &graph, &inputs, control).expect("a run");
        assert_eq!(gpu.objects_made(), made, "{control:?}");
        if control == Control::Auto {
            assert_eq!(warm.outputs, cold.outputs);
        }
    }
    let (_, fewer) = small("vit", EXITING, 2);
    run(&mut session, &graph, &fewer, Control::Auto).expect("a run");
    assert_eq!(gpu.objects_made(), made, "a smaller batch has room");
}

#[test]
fn a_long_run_is_cut_without_reading_between() {
    let Some(gpu) = gpu() else { return };
    let (graph, inputs) = small("vit", EXITING, 4);
    let options = GpuOptions::of(gpu);
    let mut whole = on_gpu_with(gpu, &graph, options.clone()).expect("a session");
    let mut cut = on_gpu_with(gpu, &graph, GpuOptions { submission_macs: 1, ..options }).expect("a session");
    for control in [Control::Auto, Control::Force(1)] {
        let want = run(&mut whole, &graph, &inputs, control).expect("a run");
        let have = run(&mut cut, &graph, &inputs, control).expect("a run");
        assert!(have.counters.gpu.submits > 10, "{}", have.counters.gpu.submits);
        assert_eq!((have.counters.gpu.readback_bytes, have.outputs), (want.counters.gpu.readback_bytes, want.outputs));
        assert_eq!(have.counters.per_kernel, want.counters.per_kernel);
    }
}

#[test]
fn every_dispatch_is_measured_where_the_adapter_has_a_clock() {
    let Some(gpu) = gpu() else { return };
    let (graph, inputs) = small("vit", EXITING, 2);
    let measured = on_gpu_with(gpu, &graph, GpuOptions { profile: true, ..GpuOptions::of(gpu) });
    if !gpu.adapter().features.contains(&"timestamps") {
        assert!(measured.is_err_and(|e| e.contains("no timestamps") && e.contains(&gpu.adapter().name)));
        return;
    }
    let mut session = measured.expect("a session");
    let run = run(&mut session, &graph, &inputs, Control::Force(0)).expect("a run");
    let measures = &run.counters.measures;
    assert_eq!(measures.len(), session.program().kernels.len());
    assert_eq!(measures.iter().map(|m| m.macs).sum::<u64>(), run.counters.macs);
    for (measure, ran) in measures.iter().zip(&run.counters.per_kernel) {
        assert_eq!(*ran == 0, measure.bytes == 0, "{measure:?} of {ran} runs");
    }
    assert!(run.timeline.iter().any(|s| s.name == "exit after exit 0" && s.ran), "{:?}", run.timeline);
    assert!(run.timeline.iter().all(|s| s.start_ns <= s.end_ns));
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    let Some(gpu) = gpu() else { return };
    let (graph, inputs) = small("vit", EXITING, 2);
    let mut small =
        on_gpu_with(gpu, &graph, GpuOptions { memory_limit: 64, ..GpuOptions::of(gpu) }).expect("a session");
    let refused = run(&mut small, &graph, &inputs, Control::Auto).expect_err("there is no room");
    assert!(refused.contains("limit of 64 bytes"), "{refused}");
    let refused = run(&mut small, &graph, &inputs, Control::Force(7)).expect_err("there is no such exit");
    assert!(refused.contains("cannot be forced"), "{refused}");
}

#[test]
fn reductions_are_right_with_subgroups_and_without() {
    let Some(gpu) = gpu() else { return };
    let works = gpu.subgroups().expect("a device");
    let (case, graph) = case(&cases_folder().join("wgsl/rows.eir")).expect("a case");
    for sizes in case.sizes(&graph).expect("sizes") {
        let inputs = seeded_inputs(&graph, &sizes).expect("inputs");
        let want = Backend::Evaluator.prepare(&graph).and_then(|mut e| e.run(&inputs)).expect("values");
        for subgroups in [false, true] {
            let options = GpuOptions { subgroups, ..GpuOptions::of(gpu) };
            let mut session = on_gpu_with(gpu, &graph, options).expect("a session");
            assert_eq!(session.uses_subgroups(), subgroups && works);
            let have = run(&mut session, &graph, &inputs, Control::Auto).expect("a run");
            let have: Vec<Tensor> = have.outputs.into_iter().map(|(_, t)| t).collect();
            check_all(&graph, &have, &want, TOLERANCE).unwrap_or_else(|e| panic!("{subgroups}, {sizes:?}: {e}"));
        }
    }
}

#[test]
fn a_lost_device_is_an_error_of_every_later_run() {
    if gpu().is_none() {
        return;
    }
    let gpu = own_gpu(|_| ());
    let (graph, inputs) = small("vit", EXITING, 2);
    let mut session = on_gpu_with(&gpu, &graph, GpuOptions::of(&gpu)).expect("a session");
    run(&mut session, &graph, &inputs, Control::Auto).expect("a run");
    gpu.give_up();
    for _ in 0..2 {
        let error = run(&mut session, &graph, &inputs, Control::Auto).expect_err("there is no device");
        assert!(error.contains(&gpu.adapter().name) && error.contains("given up"), "{error}");
    }
    let error = on_gpu_with(&gpu, &graph, GpuOptions::of(&gpu)).err().expect("there is no device");
    assert!(error.contains(&gpu.adapter().name), "{error}");
}

#[test]
fn a_run_that_does_not_end_is_given_up() {
    if gpu().is_none() {
        return;
    }
    let gpu = own_gpu(|_| ());
    let (graph, inputs) = small("vit", EXITING, 8);
    let options = GpuOptions { patience: std::time::Duration::ZERO, ..GpuOptions::of(&gpu) };
    let mut session = on_gpu_with(&gpu, &graph, options).expect("a session");
    for _ in 0..2 {
        let error = run(&mut session, &graph, &inputs, Control::Auto).expect_err("no time was given");
        assert!(error.contains(&gpu.adapter().name) && error.contains("did not finish"), "{error}");
    }
}

#[test]
fn a_host_that_fails_leaves_the_session_whole() {
    let Some(gpu) = gpu() else { return };
    let text = "graph @one(%x: f32[n, 4], %i: i64[n]) -> (%y: f32[n, 4]) {
  %g = Gather{axis=0}(%x, %i)
  %y = CumProd{axis=1}(%g)
  return %y
}";
    let graph = Case::new(text).and_then(|case| case.graph()).expect("a graph");
    let mut session =
        on_gpu_with(gpu, &graph, GpuOptions { host_ops: true, ..GpuOptions::of(gpu) }).expect("a session");
    let x = Tensor::new(&[2, 4], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).expect("a tensor");
    for (index, right) in [(7, false), (1, true)] {
        let inputs = [x.clone(), Tensor::vector(vec![0i64, index])];
        let outcome = run(&mut session, &graph, &inputs, Control::Auto);
        match right {
            true => assert!(outcome.is_ok_and(|r| r.outputs[0].1.elements::<f32>().expect("floats")[7] == 1680.0)),
            false => assert!(outcome.is_err_and(|e| e.contains("out of range"))),
        }
    }
}
