//! `eec run`: one run, outputs shown, saved or compared.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use eec_ir::Tensor;
use eec_runtime::{Control, Run, Runner};
use serde_json::json;

use super::import::ImportArgs;
use super::inputs::{InputArgs, named_tensors};
use super::trace::trace;
use super::{Execution, JSON_SCHEMA, Outcome, output};
use crate::Error;
use crate::backend::Backend;
use crate::compare::{Difference, Tolerance, compare};
use crate::dataset::fitted;
use crate::model::{Form, Model};
use crate::npz::{self, Arrays};

/// Runs a model on inputs.
///
/// Inputs not given are random, seeded by --seed: floats are standard normal, integers below 10,
/// masks all ones.
///
/// Arrays from files must have the model's types, save that f64 is rounded to f32 and integers of 8 to 64
/// bits become the model's integer type if every value fits. `eec eval` and `eec compile` do the same.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The model (.eec or .onnx)
    model: PathBuf,
    #[command(flatten)]
    import: ImportArgs,
    #[command(flatten)]
    inputs: InputArgs,
    /// Writes every output under its own name, with exits also `exit_index` and
    /// `confidence`, with token exits `token_exit`
    #[arg(long, value_name = "FILE.npz", value_parser = output::named("npz"))]
    save_outputs: Option<PathBuf>,
    /// Compares outputs with these by name, in the forms of --inputs (output_0.pb, … in a folder); the
    /// process's exit code is 1 if one differs
    #[arg(long, value_name = "FILE|DIR")]
    expect: Option<PathBuf>,
    /// Absolute tolerance of --expect
    #[arg(long, default_value_t = 1e-4, requires = "expect", allow_negative_numbers = true, value_parser = tolerance)]
    atol: f32,
    /// Relative tolerance of --expect
    #[arg(long, default_value_t = 1e-4, requires = "expect", allow_negative_numbers = true, value_parser = tolerance)]
    rtol: f32,
    /// With --backend gpu: writes when everything ran, for ui.perfetto.dev; every dispatch is measured, in a second run
    #[arg(long, value_name = "FILE.json", value_parser = output::named("json"))]
    trace: Option<PathBuf>,
    #[command(flatten)]
    control: ControlArgs,
    #[command(flatten)]
    execution: Execution,
}

/// Overrides of the exits' decisions.
#[derive(clap::Args)]
pub(super) struct ControlArgs {
    /// Runs the plain model: bit-identical to compiling without exits
    #[arg(long, conflicts_with = "force_exit")]
    no_exit: bool,
    /// Leaves at exit K (from 0) whatever its rule says
    #[arg(long, value_name = "K")]
    force_exit: Option<usize>,
}

impl ControlArgs {
    /// Which form to run, and how.
    pub(super) fn resolve(&self, model: &Model) -> Result<(Form, Control), Error> {
        let exits = model.dynamic.as_ref().map_or(&[][..], |d| &d.exits);
        match self.force_exit {
            Some(k) if k >= exits.len() => {
                let file = model.path.display();
                Err(Error::usage(match exits {
                    [] => format!("--force-exit {k}: {file} has no exits"),
                    _ => format!("--force-exit {k}: {file} has the exits {}", numbered(exits)),
                }))
            }
            Some(k) => Ok((Form::Dynamic, Control::Force(k))),
            None if self.no_exit => Ok((Form::Plain, Control::Auto)),
            None => Ok((Form::Dynamic, Control::Auto)),
        }
    }
}

/// `0 (after block 2), 1 (after block 5)`.
fn numbered(exits: &[impl std::fmt::Display]) -> String {
    let names: Vec<String> = exits.iter().enumerate().map(|(k, name)| format!("{k} (after {name})")).collect();
    names.join(", ")
}

pub(super) fn run(args: Args) -> Outcome {
    args.execution.check()?;
    let model = args.import.open(&args.model)?;
    let (form, control) = args.control.resolve(&model)?;
    for path in args.save_outputs.iter().chain(&args.trace) {
        let sources = [Some(&args.model), args.expect.as_ref(), args.inputs.inputs.as_ref()];
        output::check_writable(path, &sources.into_iter().flatten().map(PathBuf::as_path).collect::<Vec<_>>())?;
    }
    let inputs = args.inputs.resolve(&model.plain)?;
    let graph = model.graph(form);
    let names: Vec<&str> = graph.output_names().iter().map(AsRef::as_ref).collect();
    let expected = args.expect.as_deref().map(|path| expected(path, &names)).transpose()?;
    let about = |e: Error| e.about(args.model.display());
    let backend = args.execution.backend()?;
    if args.trace.is_some() && matches!(backend, Backend::Cpu { .. }) {
        return Err(Error::usage("--trace needs --backend gpu: of the CPU, `eec bench --profile` shows the times"));
    }
    let mut session = model.measured_runner(form, &backend, args.trace.is_some()).map_err(about)?;
    let named: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    if args.trace.is_some() {
        // Drivers may compile shaders when they first run.
        session.run(&named, control).map_err(|e| about(e.into()))?;
    }
    let result = session.run(&named, control).map_err(|e| about(e.into()))?;
    if let Some(path) = &args.trace {
        let text = trace(&result, &session.program().name).to_string();
        let written = eec_runtime::replace_file(path, |out| out.write_all(text.as_bytes()));
        written.map_err(|e| Error::io(path, e))?;
    }
    if let Some(path) = &args.save_outputs {
        npz::write_npz(path, result.outputs.iter().map(|(n, t)| (n.as_str(), t)))?;
    }
    let differences = match (&expected, &args.expect) {
        (Some(expected), Some(path)) => {
            differences(&result, expected, path, Tolerance { atol: args.atol, rtol: args.rtol })?
        }
        _ => Vec::new(),
    };
    args.print(&result, &differences, &backend, &*session)?;
    Ok(if differences.iter().all(|(_, d)| d.within) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The expected outputs in a file or folder, all of which the model has.
fn expected(path: &Path, names: &[&str]) -> Result<Arrays, Error> {
    let arrays = named_tensors(path, names, "output")?;
    match arrays.keys().find(|name| !names.contains(&name.as_str())) {
        Some(unknown) => {
            let why = format!("`{unknown}` is no output of the model (outputs: {})", names.join(", "));
            Err(Error::content(path, why))
        }
        None => Ok(arrays),
    }
}

/// Every expected array against the output of its name; one without an output is an error.
fn differences(run: &Run, expected: &Arrays, path: &Path, t: Tolerance) -> Result<Vec<(String, Difference)>, Error> {
    let one = |(name, want): (&String, &Tensor)| {
        let have = run.outputs.iter().find(|(n, _)| n == name);
        let (_, have) = have.ok_or_else(|| Error::content(path, format!("`{name}` is no output of the model")))?;
        let want = if have.dtype().is_float() { fitted(want.clone(), have.dtype()) } else { want.clone() };
        Ok((name.clone(), compare(have, &want, t)))
    };
    expected.iter().map(one).collect()
}

impl Args {
    fn print(
        &self,
        run: &Run,
        differences: &[(String, Difference)],
        backend: &Backend,
        session: &dyn Runner,
    ) -> Result<(), Error> {
        let (exits, gates, counters) = (session.exits(), session.gates(), &run.counters);
        if self.execution.json {
            let mut counted = json!({
                "kernels": counters.kernels, "macs": counters.macs,
                "exit_rows": counters.exit_rows, "gate_rows": counters.gate_rows,
            });
            if backend.name() == "gpu" {
                counted["submits"] = json!(counters.gpu.submits);
                counted["dispatches"] = json!(counters.gpu.dispatches);
                counted["host_steps"] = json!(counters.gpu.host_steps);
                counted["waits"] = json!(counters.gpu.waits);
                counted["readback_bytes"] = json!(counters.gpu.readback_bytes);
            }
            return output::print_json(&json!({
                "schema": JSON_SCHEMA,
                "backend": backend.name(),
                "outputs": run.outputs.iter().map(|(name, t)| json!({
                    "name": name, "dtype": t.dtype().name(), "shape": t.dims(),
                })).collect::<Vec<_>>(),
                "counters": counted,
                "exits": exits,
                "gates": gates,
                "expect": differences.iter().map(|(name, d)| json!({
                    "name": name, "within": d.within, "max_abs": d.max_abs, "detail": d.detail,
                })).collect::<Vec<_>>(),
            }));
        }
        let mut text = String::new();
        for (name, t) in &run.outputs {
            text.push_str(&format!("{name}: {}{:?} = {}\n", t.dtype(), t.dims(), preview(t)));
        }
        if !exits.is_empty() {
            text.push_str(&format!("exits: {}, {} (full depth)\n", numbered(&exits), exits.len()));
        }
        let kernels = if counters.kernels == 1 { "kernel" } else { "kernels" };
        text.push_str(&format!("{} {kernels}, {} MACs", counters.kernels, output::si(counters.macs as f64)));
        if backend.name() == "gpu" {
            let gpu = &counters.gpu;
            text.push_str(&format!(
                " on {}: {} dispatches, {} submit, {} bytes read back",
                session.device(),
                gpu.dispatches,
                gpu.submits,
                gpu.readback_bytes
            ));
            if gpu.host_steps > 0 {
                text.push_str(&format!(", {} on the host in between", gpu.host_steps));
            }
        }
        text.push('\n');
        for (name, d) in differences {
            let verdict = if d.within { "as expected" } else { "DIFFERS" };
            text.push_str(&format!("{name}: {verdict} ({})\n", d.detail));
        }
        output::print(&text)
    }
}

/// The first elements.
fn tolerance(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|x: &f32| x.is_finite() && *x >= 0.0);
    value.ok_or_else(|| "not a number from 0 on".into())
}

fn preview(t: &Tensor) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = match t.dtype().is_float() {
        true => t.to_f64s().iter().take(SHOWN).map(|x| format!("{x:.4}")).collect(),
        false => t.to_i128s().unwrap_or_default().iter().take(SHOWN).map(i128::to_string).collect(),
    };
    let more = if t.len() > SHOWN { ", …" } else { "" };
    format!("[{}{more}]", shown.join(", "))
}
