//! Small models that a Python script writes, with inputs and what ONNX Runtime computes from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use eec::cases::lowered;
use eec::npz::read_npz;
use eec::onnx::{export_bytes, import, import_bytes};
use eec_ir::program::Form;
use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, Tensor, eval};
use eec_passes::pass::{Context, Pass};
use eec_passes::simplify::Simplify;
use eec_runtime::gpu::Guard;
use eec_runtime::{Control, check_runs};

use crate::backend::{cpu, gpu, on_gpu, run};
use crate::has_gpu_form;
use crate::shared::python;
use crate::values::check;

/// Writes the models of `tests/python/SCRIPT` to a new folder and checks each of them on the evaluator, on the CPU, as
/// its own export that is read back and, where they can run there, on a GPU; the failures of all are reported
/// together. `EEC_CASE` chooses some by a part of their names.
///
/// # Panics
/// The script or a model fails.
pub fn check_written(script: &str, tolerance: f32) {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("no folder: {e}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let done = Command::new(&python).arg(&script).arg(folder.path()).output();
    let done = done.unwrap_or_else(|e| panic!("{}: {e}", python.display()));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let cases = cases_in(folder.path());
    let failure = |case: &PathBuf| check_case(case, tolerance).err().map(|e| format!("{}: {e}", name_of(case)));
    let failures: Vec<String> = cases.iter().filter_map(failure).collect();
    assert!(failures.is_empty(), "{} of {} models failed\n{}", failures.len(), cases.len(), failures.join("\n"));
}

fn cases_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let wanted = std::env::var("EEC_CASE").unwrap_or_default();
    let mut cases: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    cases.retain(|c| name_of(c).contains(&wanted));
    cases.sort();
    assert!(!cases.is_empty(), "the script wrote no models");
    cases
}

fn name_of(case: &Path) -> String {
    case.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn check_case(case: &Path, tolerance: f32) -> Result<(), String> {
    let read = |name: &str| read_npz(&case.join(name)).map_err(|e| e.to_string());
    let inputs = read("inputs.npz")?;
    let mut graph = import(&case.join("model.onnx")).map_err(|e| e.to_string())?;
    let name = |v: &eec_ir::ValueId| graph.value(*v).name.clone().unwrap_or_default();
    let ordered =
        graph.inputs().iter().map(|v| inputs.get(&*name(v)).cloned().ok_or_else(|| format!("no {}", name(v))));
    let ordered = ordered.collect::<Result<Vec<Tensor>, String>>()?;
    let evaluated = eval::evaluate(&graph, &ordered).map_err(|e| format!("evaluator: {e}"));
    Simplify.run(&mut graph, &mut Context::default()).map_err(|e| format!("simplify: {e}"))?;
    check_runs(&lowered(&graph).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let mut session = cpu(&graph, 2)?;
    let done = run(&mut session, &graph, &ordered, Control::Auto);
    if let Ok(error) = std::fs::read_to_string(case.join("error.txt")) {
        return fails(evaluated, &error).and_then(|()| fails(done, &error));
    }
    let (evaluated, done, expected) = (evaluated?, done?, read("expected.npz")?);
    compare(&graph, &evaluated, &expected, tolerance).map_err(|e| format!("evaluator: {e}"))?;
    let outputs: Vec<Tensor> = done.outputs.into_iter().map(|(_, t)| t).collect();
    compare(&graph, &outputs, &expected, tolerance)?;
    check_read_back(&graph, &ordered, &expected, tolerance).map_err(|e| format!("read back: {e}"))?;
    check_on_gpu(&graph, &ordered, &expected, tolerance).map_err(|e| format!("on a GPU: {e}"))
}

/// The same for the graph as an ONNX model, imported again.
fn check_read_back(
    graph: &Graph,
    inputs: &[Tensor],
    expected: &BTreeMap<String, Tensor>,
    tolerance: f32,
) -> Result<(), String> {
    let bytes = export_bytes(graph).map_err(|e| e.to_string())?;
    let mut again = import_bytes(&bytes, "export", None).map_err(|e| e.to_string())?;
    Simplify.run(&mut again, &mut Context::default()).map_err(|e| format!("simplify: {e}"))?;
    verify(&again, Stage::Lowerable).map_err(|e| e.to_string())?;
    let outputs = eval::evaluate(&again, inputs).map_err(|e| e.to_string())?;
    compare(&again, &outputs, expected, tolerance)
}

/// Whether a run failed with this in its message.
fn fails<T>(done: Result<T, String>, error: &str) -> Result<(), String> {
    match done {
        Err(found) if found.contains(error) => Ok(()),
        Err(found) => Err(format!("should fail with {error:?}, not {found:?}")),
        Ok(_) => Err(format!("should fail with {error:?}")),
    }
}

/// The same on a GPU, if there is one, for what has shaders and words there.
fn check_on_gpu(
    graph: &Graph,
    inputs: &[Tensor],
    expected: &BTreeMap<String, Tensor>,
    tolerance: f32,
) -> Result<(), String> {
    let program = lowered(graph).map_err(|e| e.to_string())?;
    let needs_host = program.kernels.iter().any(|k| matches!(k.form, Form::Host(_)));
    if gpu().is_none() || !has_gpu_form(&program) || needs_host {
        return Ok(());
    }
    let done = run(&mut on_gpu(graph, Guard::Indirect)?, graph, inputs, Control::Auto)?;
    let outputs: Vec<Tensor> = done.outputs.into_iter().map(|(_, t)| t).collect();
    compare(graph, &outputs, expected, tolerance.max(1e-4))
}

fn compare(
    graph: &Graph,
    outputs: &[Tensor],
    expected: &BTreeMap<String, Tensor>,
    tolerance: f32,
) -> Result<(), String> {
    if outputs.len() != expected.len() {
        return Err(format!("{} outputs, expected {}", outputs.len(), expected.len()));
    }
    for (name, have) in graph.output_names().iter().zip(outputs) {
        check(name, have, expected.get(&**name).ok_or_else(|| format!("{name} is not expected"))?, tolerance)?;
    }
    Ok(())
}
