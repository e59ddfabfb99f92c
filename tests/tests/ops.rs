//! Every operator on every backend: cases of `cases/ops`, each with its inputs in every layout.

use std::collections::BTreeSet;
use std::path::Path;

use eec::cases::{Case, run_passes, seeded_inputs};
use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, Op};
use eec_passes::pass::Context;
use eec_tests::backend::{Backend, COMPILED};
use eec_tests::files::{cases, for_each, read};
use eec_tests::values::check_all;
use eec_tests::variants::{Layout, with_layout};

/// Sums in another order, or transcendental functions that are not correctly rounded.
const TOLERANCE: f32 = 1e-5;

/// Operators whose result in f32 depends on how it is computed; all others have one right answer.
const ROUNDED: &[&str] = &[
    "Exp",
    "Log",
    "Sin",
    "Cos",
    "Tanh",
    "Erf",
    "Sigmoid",
    "Gelu",
    "Pow",
    "MatMul",
    "Gemm",
    "Conv",
    "AveragePool",
    "Softmax",
    "LogSoftmax",
    "LayerNormalization",
    "ReduceSum",
    "ReduceMean",
    "CumSum",
];

/// Cases that say nothing in one layout, and why.
const IGNORED: &[(&str, Layout, &str)] = &[(
    "layernormalization",
    Layout::Broadcast,
    "rows of equal elements have no variance: the result is the mean's rounding error times 1/sqrt(epsilon)",
)];

fn ignored(path: &Path, layout: Layout) -> bool {
    let is = |(name, l, _): &&(&str, Layout, &str)| path.file_stem().is_some_and(|s| s == *name) && *l == layout;
    IGNORED.iter().find(is).is_some_and(|(name, l, reason)| {
        println!("ignored: {name} {l:?}: {reason}");
        true
    })
}

fn tolerance(graph: &Graph) -> f32 {
    let rounded = |name: &str| ROUNDED.contains(&name);
    match graph.nodes_in_order().iter().any(|n| rounded(graph.node(*n).op.name())) {
        true => TOLERANCE,
        false => 0.0,
    }
}

fn case(path: &Path) -> Result<(Case, Graph), String> {
    let case = Case::new(&read(path)).map_err(|e| e.to_string())?;
    let graph = case.graph().map_err(|e| e.to_string())?;
    Ok((case, graph))
}

/// Compares `compiled` on all backends with `graph` on the evaluator.
fn check(case: &Case, graph: &Graph, compiled: &Graph) -> Result<(), String> {
    let mut prepared = COMPILED.iter().map(|b| b.prepare(compiled)).collect::<Result<Vec<_>, _>>()?;
    for sizes in case.sizes(graph).map_err(|e| e.to_string())? {
        let inputs = seeded_inputs(graph, &sizes).map_err(|e| e.to_string())?;
        let want = Backend::Evaluator.prepare(graph)?.run(&inputs)?;
        for (backend, prepared) in COMPILED.iter().zip(&mut prepared) {
            let at = |e: String| format!("{backend:?} at {sizes:?}: {e}");
            let have = prepared.run(&inputs).map_err(at)?;
            check_all(graph, &have, &want, tolerance(graph)).map_err(at)?;
        }
    }
    Ok(())
}

/// The graph after the case's passes, which take out what cannot be lowered.
fn compiled(case: &Case, graph: &Graph) -> Result<Graph, String> {
    let mut graph = graph.clone();
    run_passes(&mut graph, &case.header.passes, &mut Context::default()).map_err(|e| e.to_string())?;
    Ok(graph)
}

#[test]
fn every_operator_has_a_case() {
    let mut seen = BTreeSet::new();
    for path in cases("ops") {
        let (_, graph) = case(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        seen.extend(graph.nodes_in_order().iter().map(|n| graph.node(*n).op.name()));
    }
    let missing: Vec<&&str> = Op::NAMES.iter().filter(|n| !seen.contains(*n)).collect();
    assert!(missing.is_empty(), "no case under cases/ops has {missing:?}");
}

#[test]
fn every_operator_is_right_on_every_backend() {
    for_each(&cases("ops"), |path| {
        let (case, graph) = case(path)?;
        let mut failures = Vec::new();
        for layout in Layout::ALL.into_iter().filter(|l| !ignored(path, *l)) {
            let variant = match layout {
                Layout::Dense => Some(graph.clone()),
                _ => with_layout(&graph, layout)?,
            };
            let Some(variant) = variant else { continue };
            let compiled = compiled(&case, &variant)?;
            // A dim that a layout changes may have been the only one that binds its symbol.
            if layout == Layout::Dense || verify(&compiled, Stage::Lowerable).is_ok() {
                failures.extend(check(&case, &variant, &compiled).err().map(|e| format!("{layout:?}: {e}")));
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("\n  ")) }
    });
}
