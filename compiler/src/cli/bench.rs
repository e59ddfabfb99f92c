//! `eec bench`: how long a run takes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use eec_ir::Tensor;
use eec_runtime::{Control, Counters, GpuCounters, Runner};
use serde_json::{Value, json};

use super::import::ImportArgs;
use super::inputs::InputArgs;
use super::run::ControlArgs;
use super::{Execution, JSON_SCHEMA, Outcome, output, profile};
use crate::Error;
use crate::backend::Backend;
use crate::model::{Form, Model};

/// Measures how long a run takes: median, 90th percentile and least of many.
///
/// Of a dynamic model, every exit forced and the plain model are measured beside the run, and it is told
/// where the run's rows left: a time with early exits is that of these inputs.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The model (.eec or .onnx)
    model: PathBuf,
    #[command(flatten)]
    import: ImportArgs,
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    control: ControlArgs,
    /// Runs before measuring
    #[arg(long, default_value_t = 5, value_name = "N")]
    warmup: usize,
    /// Runs measured
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = super::positive)]
    iters: usize,
    /// Also measures every kernel: time, GFLOP/s, GB/s and the share of the machine's limit
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "name", value_name = "BY")]
    profile: Option<profile::By>,
    #[command(flatten)]
    execution: Execution,
}

/// Times of one form or depth in milliseconds, and where the rows of a run left.
struct Times {
    median: f64,
    p90: f64,
    min: f64,
    exit_rows: Vec<u64>,
    gpu: GpuCounters,
}

/// All that was measured.
struct Measured {
    run: Times,
    /// The model without exits, if it has any and they decide.
    plain: Option<Times>,
    /// Every exit forced, by name.
    depths: Vec<(String, Times)>,
    /// Rows of a run.
    rows: u64,
    exits: Vec<String>,
    /// `cpu` or `gpu`.
    backend: &'static str,
    /// Threads, on the CPU.
    threads: Option<usize>,
    /// What ran it, for people.
    device: String,
    load_ms: f64,
    /// Of the process; in MiB, as all that follows.
    peak_mb: Option<f64>,
    weights_mb: f64,
    /// The arena of the run's own buffers.
    buffers_mb: f64,
}

pub(super) fn run(args: Args) -> Outcome {
    args.execution.check()?;
    let clock = Instant::now();
    let model = args.import.open(&args.model)?;
    let (form, control) = args.control.resolve(&model)?;
    let about = |e: Error| e.about(args.model.display());
    let backend = args.execution.backend()?;
    let session = model.runner(form, &backend).map_err(about)?;
    let load_ms = clock.elapsed().as_secs_f64() * 1e3;
    let inputs = args.inputs.resolve(&model.plain)?;
    let named: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    let measured = measure_all(&model, &backend, session, &named, control, load_ms, &args).map_err(about)?;
    let profiled = |by| profile::measure(&model, form, &backend, &named, control, by, args.iters).map_err(about);
    let profile = args.profile.map(profiled).transpose()?;
    if args.execution.json {
        let mut value = as_json(&measured, args.iters);
        if let Some(profile) = &profile {
            value["profile"] = profile.json();
        }
        output::print_json(&value)?;
    } else {
        let profile = profile.map_or_else(String::new, |p| format!("\n{}", p.text()));
        output::print(&format!("{}{profile}", text(&measured, args.iters)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure_all(
    model: &Model,
    backend: &Backend,
    mut session: Box<dyn Runner>,
    inputs: &[(&str, Tensor)],
    control: Control,
    load_ms: f64,
    args: &Args,
) -> Result<Measured, Error> {
    let run = measure(&mut *session, inputs, control, args)?;
    let exits: Vec<String> = session.exits().into_iter().map(String::from).collect();
    let decided = control == Control::Auto && !(exits.is_empty() && session.gates().is_empty());
    let mut depths = Vec::new();
    for (k, name) in exits.iter().enumerate().filter(|_| decided) {
        depths.push((name.clone(), measure(&mut *session, inputs, Control::Force(k), args)?));
    }
    // The plain session comes last, so that it adds nothing to the memory of the measured one.
    let (threads, device, peak_mb) = (session.threads(), session.device(), peak_mb());
    let [weights_mb, buffers_mb] = [session.weight_bytes(), session.arena_bytes()].map(|b| b as f64 / MIB);
    let plain = if decided {
        let mut plain = model.runner(Form::Plain, backend)?;
        Some(measure(&mut *plain, inputs, Control::Auto, args)?)
    } else {
        None
    };
    let rows = inputs.iter().find_map(|(_, t)| t.dims().first()).map_or(1, |n| *n as u64);
    let backend = backend.name();
    Ok(Measured { run, plain, depths, rows, exits, backend, threads, device, load_ms, peak_mb, weights_mb, buffers_mb })
}

fn measure(session: &mut dyn Runner, inputs: &[(&str, Tensor)], control: Control, args: &Args) -> Result<Times, Error> {
    for _ in 0..args.warmup {
        session.run(inputs, control)?;
    }
    let (mut times, mut counters) = (Vec::with_capacity(args.iters), Counters::default());
    for _ in 0..args.iters {
        let clock = Instant::now();
        let run = session.run(inputs, control)?;
        times.push(clock.elapsed().as_secs_f64() * 1e3);
        counters = run.counters;
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    Ok(Times { median: at(0.5), p90: at(0.9), min: times[0], exit_rows: counters.exit_rows, gpu: counters.gpu })
}

impl Measured {
    /// How many rows left at each exit, and at full depth.
    fn histogram(&self) -> Vec<u64> {
        let left: u64 = self.run.exit_rows.iter().sum();
        self.run.exit_rows.iter().copied().chain([self.rows.saturating_sub(left)]).collect()
    }

    /// `3 after block 2, 1 at full depth`.
    fn places(&self) -> String {
        let names = self.exits.iter().map(|name| format!("after {name}")).chain(["at full depth".to_string()]);
        let places = self.histogram().into_iter().zip(names).filter(|(n, _)| *n > 0);
        places.map(|(n, name)| format!("{n} {name}")).collect::<Vec<_>>().join(", ")
    }
}

fn as_json(m: &Measured, iters: usize) -> Value {
    let mut value = json!({
        "schema": JSON_SCHEMA, "backend": m.backend, "threads": m.threads, "device": m.device,
        "load_ms": m.load_ms, "peak_mb": m.peak_mb, "iters": iters,
        "weights_mb": m.weights_mb, "buffers_mb": m.buffers_mb,
    });
    merge(&mut value, &m.run);
    if m.backend == "gpu" {
        value["submits"] = json!(m.run.gpu.submits);
        value["dispatches"] = json!(m.run.gpu.dispatches);
        value["host_steps"] = json!(m.run.gpu.host_steps);
        value["waits"] = json!(m.run.gpu.waits);
        value["readback_bytes"] = json!(m.run.gpu.readback_bytes);
    }
    if !m.exits.is_empty() {
        value["exits"] = json!(m.exits);
        value["exit_histogram"] = json!(m.histogram());
    }
    if let Some(plain) = &m.plain {
        merge(&mut value["plain"], plain);
        let depth = |(name, times): &(String, Times)| {
            let mut exit = json!({ "exit": name });
            merge(&mut exit, times);
            exit
        };
        if !m.exits.is_empty() {
            value["per_exit"] = m.depths.iter().map(depth).collect();
        }
    }
    value
}

fn merge(value: &mut Value, times: &Times) {
    value["median_ms"] = json!(times.median);
    value["p90_ms"] = json!(times.p90);
    value["min_ms"] = json!(times.min);
}

fn text(m: &Measured, iters: usize) -> String {
    let cells = |name: String, t: &Times| vec![name, ms(t.median), ms(t.p90), ms(t.min)];
    let mut rows = vec![["", "median", "p90", "min"].map(String::from).to_vec(), cells("run".into(), &m.run)];
    rows.extend(m.depths.iter().map(|(name, t)| cells(format!("forced exit after {name}"), t)));
    rows.extend(m.plain.iter().map(|t| cells("plain model".into(), t)));
    let beyond = |mb: f64| format!(", peak memory {mb:.0} MB, {:.0} MB beyond the weights", mb - m.weights_mb);
    let peak = m.peak_mb.map_or_else(String::new, beyond);
    let peak = format!("{peak} ({:.1} MB of buffers)", m.buffers_mb);
    let left = if m.exits.is_empty() { String::new() } else { format!("rows of the run: {}\n", m.places()) };
    let host = match m.run.gpu.host_steps {
        0 => String::new(),
        steps => {
            format!("of every run {steps} kernels ran on the host, {} bytes were read back\n", m.run.gpu.readback_bytes)
        }
    };
    let (device, load) = (&m.device, ms(m.load_ms));
    format!("{}\n{left}{host}{device}, {iters} runs, load {load}{peak}\n", output::table(&rows))
}

fn ms(value: f64) -> String {
    format!("{value:.3} ms")
}

const MIB: f64 = 1024.0 * 1024.0;

/// Peak resident memory of the process, where the system tells (Linux).
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kb: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kb * 1024.0 / MIB)
}
