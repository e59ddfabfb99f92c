//! What the GPU form of whole models is made of: dispatches per block, shared shaders, and refusals that name all.

use std::collections::BTreeSet;

use eec::cases::{Case, lowered, run_passes};
use eec::wgsl::{self, LowerError};
use eec_ir::KernelId;
use eec_ir::gpu::{Dispatch, GpuProgram, Param, Role, verify};
use eec_ir::program::{self, Program};
use eec_passes::pass::Context;
use eec_tests::files::{cases_folder, read};

fn gpu_form(case: &str, passes: &str) -> (Program, Result<GpuProgram, LowerError>) {
    let case = Case::new(&read(&cases_folder().join(case).with_extension("eir"))).expect("a case");
    let mut graph = case.graph().expect("a graph");
    run_passes(&mut graph, passes, &mut Context::default()).expect("passes");
    let program = lowered(&graph).expect("a program");
    let gpu = wgsl::lower(&program::verify(&program).expect("a valid program"));
    (program, gpu)
}

/// The dispatches of the kernels whose names begin so.
fn of_block<'g>(program: &Program, gpu: &'g GpuProgram, prefix: &str) -> Vec<&'g Dispatch> {
    let named = |d: &&Dispatch| match d.role {
        Role::Kernel(kernel) => program.kernel(kernel).name.starts_with(prefix),
        Role::Control | Role::Rows | Role::Output(_) | Role::Host(_) => false,
    };
    gpu.dispatches.iter().filter(named).collect()
}

#[test]
fn a_transformer_block_is_seven_dispatches_of_shared_shaders() {
    for (case, block) in [("models/bert", "layer"), ("models/vit", "block")] {
        let (program, gpu) = gpu_form(case, "simplify");
        let gpu = gpu.expect("a GPU form");
        assert_eq!(verify(&program, &gpu), Vec::<String>::new());
        let [first, second] = [1, 2].map(|k| of_block(&program, &gpu, &format!("{block}.{k}.")));
        assert_eq!((first.len(), second.len()), (7, 7), "{case}");
        for (a, b) in first.iter().zip(&second) {
            assert_eq!((a.shader, &a.groups, a.params.len()), (b.shader, &b.groups, b.params.len()), "{case}");
        }
        let products = first.iter().filter(|d| d.with.len() == 2).count();
        assert_eq!(products, 1, "{case}: queries, keys and values together");
    }
}

#[test]
fn every_block_of_a_model_with_exits_is_guarded_by_its_own_word() {
    let (program, gpu) =
        gpu_form("models/vit", "simplify, exit-heads{at=[0, 1], head=linear, rule=maxprob:2}, simplify");
    let gpu = gpu.expect("a GPU form");
    let guarded: BTreeSet<u32> = gpu.dispatches.iter().map(|d| d.block.0).collect();
    assert!(guarded.len() > 2, "{guarded:?}");
    for dispatch in &gpu.dispatches {
        assert_eq!(dispatch.params[0], eec_ir::gpu::Param::Live(dispatch.block));
        assert_eq!(dispatch.params.len() % 4, 0);
    }
    assert_eq!(verify(&program, &gpu), Vec::<String>::new());
}

#[test]
fn what_has_no_shader_is_a_step_of_the_host() {
    let (program, gpu) = gpu_form("ops/products", "");
    let gpu = gpu.expect("a GPU form");
    let names: Vec<&str> = gpu.host_kernels().map(|id| program.kernel(id).name.as_str()).collect();
    assert_eq!(names, ["ReduceProd !0", "ReduceProd !1", "CumProd !2", "CumProd !3"]);
    assert_eq!(verify(&program, &gpu), Vec::<String>::new());
    let mut wrong = gpu.clone();
    let step = wrong.dispatches.iter_mut().find(|d| matches!(d.role, Role::Host(_))).expect("a step");
    step.params.truncate(2);
    assert_eq!(verify(&program, &wrong).len(), 1);
}

/// Rows that need an operator of the host, which cannot know whether there are any.
const BEHIND_A_DECISION: &str = "graph @hidden(%m: bool[n], %x: f32[n, 6]) -> (%y: f32[n, 6]) {
  %y: f32[n, 6] = Route(%m; %x)
    then ^1[r0](%a: f32[r0, 6]) { yield %a }
    else ^2[r1](%b: f32[r1, 6]) {
      %c: f32[r1, 6] = CumProd{axis=1}(%b)
      yield %c
    }
  return %y
}";

#[test]
fn the_host_cannot_stand_behind_a_decision() {
    let graph = Case::new(BEHIND_A_DECISION).and_then(|case| case.graph()).expect("a graph");
    let program = lowered(&graph).expect("a program");
    let gpu = wgsl::lower(&program::verify(&program).expect("a valid program"));
    let Err(LowerError::Unsupported(refused)) = gpu else { panic!("it has a GPU form") };
    let [problem] = refused.problems.as_slice() else { panic!("{refused}") };
    assert!(problem.place.contains("CumProd") && problem.reason.contains("decided on the device"), "{refused}");
}

#[test]
fn loops_that_repeat_what_they_cannot_are_refused() {
    let (program, gpu) = gpu_form("ops/loop_rows", "");
    let gpu = gpu.expect("a GPU form");
    assert_eq!(verify(&program, &gpu), Vec::<String>::new());
    let [outer, inner] = gpu.repeats.as_slice() else { panic!("{:?}", gpu.repeats) };
    assert!(outer.dispatches.start < inner.dispatches.start && inner.dispatches.end < outer.dispatches.end);
    let refuse = |change: &dyn Fn(&mut GpuProgram), expected: &str| {
        let mut wrong = gpu.clone();
        change(&mut wrong);
        let problems = verify(&program, &wrong).join("; ");
        assert!(problems.contains(expected), "expected {expected}, found {problems}");
    };
    let all = gpu.dispatches.len() as u32;
    refuse(&|g| g.repeats[0].dispatches = 0..4, "loop 0: it cannot repeat the dispatches 0 to 4");
    refuse(&|g| g.repeats[1].dispatches.end = all + 1, "loop 1: it cannot repeat");
    refuse(&|g| g.repeats.swap(0, 1), "loop 1: it cannot repeat");
    let end = outer.dispatches.end;
    refuse(&|g| g.repeats[1].dispatches.end = end + 1, "loop 1: it is not inside");
    refuse(&|g| g.repeats[0].body = program::BlockId(0), "loop 0: block 0 is the body of none");
    refuse(&|g| g.dispatches[end as usize - 1].params[2] = Param::Step(2), "Step(2) does not exist");
    let kernel = KernelId::new(0);
    refuse(&|g| g.dispatches[end as usize - 1].role = Role::Host(kernel), "loop 0: a step of the host stands in it");
}
