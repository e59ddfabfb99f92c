//! `eec bench`: how long a run takes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use eec_ir::Tensor;
use eec_runtime::{Control, Session};
use serde_json::{Value, json};

use super::inputs::InputArgs;
use super::run::ControlArgs;
use super::{Execution, JSON_SCHEMA, Outcome, output};
use crate::Error;
use crate::model::{Model, run_options};

/// Measures how long a run takes: median, 90th percentile and least of many, per exit depth.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The model (.eec or .onnx)
    model: PathBuf,
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
    #[command(flatten)]
    execution: Execution,
}

/// Times in milliseconds.
struct Times {
    median: f64,
    p90: f64,
    min: f64,
}

pub(super) fn run(args: Args) -> Outcome {
    let clock = Instant::now();
    let model = Model::open(&args.model)?;
    let (form, control) = args.control.resolve(&model)?;
    let about = |e: Error| e.about(args.model.display());
    let mut session = model.session(form, run_options(args.execution.threads)).map_err(about)?;
    let load_ms = clock.elapsed().as_secs_f64() * 1e3;
    let inputs = args.inputs.resolve(&model.plain)?;
    let named: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    let times = measure(&mut session, &named, control, &args).map_err(about)?;
    let exits: Vec<String> = session.exits().into_iter().map(String::from).collect();
    let mut depths = Vec::new();
    if control == Control::Auto {
        for (k, name) in exits.iter().enumerate() {
            depths.push((name.clone(), measure(&mut session, &named, Control::Force(k), &args).map_err(about)?));
        }
    }
    let threads = session.threads();
    if args.execution.json {
        let mut value = json!({
            "schema": JSON_SCHEMA, "backend": "cpu", "threads": threads,
            "load_ms": load_ms, "peak_mb": peak_mb(), "iters": args.iters,
        });
        merge(&mut value, &times);
        if !depths.is_empty() {
            value["per_exit"] = depths
                .iter()
                .map(|(name, t)| {
                    let mut exit = json!({ "exit": name });
                    merge(&mut exit, t);
                    exit
                })
                .collect();
        }
        output::print_json(&value)?;
    } else {
        output::print(&text(&times, &depths, load_ms, threads, args.iters))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn merge(value: &mut Value, times: &Times) {
    value["median_ms"] = json!(times.median);
    value["p90_ms"] = json!(times.p90);
    value["min_ms"] = json!(times.min);
}

fn measure(session: &mut Session, inputs: &[(&str, Tensor)], control: Control, args: &Args) -> Result<Times, Error> {
    for _ in 0..args.warmup {
        session.run(inputs, control)?;
    }
    let mut times = Vec::with_capacity(args.iters);
    for _ in 0..args.iters {
        let clock = Instant::now();
        session.run(inputs, control)?;
        times.push(clock.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    Ok(Times { median: at(0.5), p90: at(0.9), min: times[0] })
}

fn text(times: &Times, depths: &[(String, Times)], load_ms: f64, threads: usize, iters: usize) -> String {
    let cells = |name: String, t: &Times| vec![name, ms(t.median), ms(t.p90), ms(t.min)];
    let mut rows = vec![["", "median", "p90", "min"].map(String::from).to_vec(), cells("run".into(), times)];
    rows.extend(depths.iter().map(|(name, t)| cells(format!("forced exit after {name}"), t)));
    let peak = peak_mb().map_or_else(String::new, |mb| format!(", peak memory {mb:.0} MB"));
    format!("{}\ncpu, {threads} threads, {iters} runs, load {}{peak}\n", output::table(&rows), ms(load_ms))
}

fn ms(value: f64) -> String {
    format!("{value:.3} ms")
}

/// Peak resident memory of the process, where the system tells (Linux).
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kb: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kb / 1024.0)
}
