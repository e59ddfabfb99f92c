//! Times eec and ONNX Runtime on the same models and inputs: outputs are compared before any time
//! counts, rounds are interleaved, and medians go to a table and a JSON file.
//!
//! ```text
//! python TOOLS/materialize.py SHARED/models/bench MODELS/bench
//! cargo run --release -- --models MODELS --models SHARED/models --python .venv/bin/python
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use eec::compare::{Tolerance, compare};
use eec::model::Model;
use serde_json::{Value, json};

mod cases;
mod engines;

use cases::Case;
use engines::{Eec, Engine, OnnxRuntime};

/// Times engines on the same models and inputs.
#[derive(Parser)]
struct Args {
    /// Folders where models are looked for; may be repeated
    #[arg(long, required = true)]
    models: Vec<PathBuf>,
    /// The list of cases
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/cases.toml"))]
    cases: PathBuf,
    /// Only cases whose name contains this; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// The Python that has numpy and onnxruntime
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Numbers of threads
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Interleaved rounds
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// The result as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Engines keep their threads spinning for a while after a run; the next one waits that out.
const PAUSE: Duration = Duration::from_millis(100);

/// Outputs of different engines may differ by the order of their sums.
const TOLERANCE: Tolerance = Tolerance { atol: 2e-3, rtol: 2e-3 };

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let wanted = |c: &Case| args.only.is_empty() || args.only.iter().any(|o| c.name.contains(o.as_str()));
    let mut results = Vec::new();
    println!("| case | threads | eec ms | ONNX Runtime ms | ratio | ratio of least |");
    println!("|---|---|---|---|---|---|");
    for case in cases::read(&args.cases)?.into_iter().filter(wanted) {
        for threads in &args.threads {
            results.push(time(args, &case, *threads).map_err(|e| format!("{}: {e}", case.name))?);
        }
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&json!({ "results": results }))?)?;
    }
    Ok(())
}

fn time(args: &Args, case: &Case, threads: usize) -> Result<Value, Box<dyn Error>> {
    let path = args.models.iter().map(|folder| folder.join(&case.model)).find(|p| p.exists());
    let path = path.ok_or_else(|| format!("{} is in none of the folders of models", case.model))?;
    let model = Model::open(&path)?;
    let inputs = cases::inputs(&model.plain, &case.dims)?;
    let work = tempfile::tempdir()?;
    let mut engines: Vec<Box<dyn Engine>> = vec![
        Box::new(Eec::new(&model, &inputs, threads)?),
        Box::new(OnnxRuntime::new(&args.python, &path, &inputs, threads, work.path())?),
    ];
    drop(model);
    check(&engines)?;
    let mut times = vec![Vec::new(); engines.len()];
    for round in 0..args.rounds + 1 {
        for (engine, times) in engines.iter_mut().zip(&mut times) {
            std::thread::sleep(PAUSE);
            let time = engine.run(case.repeat)?;
            // The first round warms up.
            if round > 0 {
                times.push(time);
            }
        }
    }
    times.iter_mut().for_each(|t| t.sort_by(f64::total_cmp));
    Ok(summary(&case.name, threads, &engines, &times))
}

/// Every engine's outputs must be those of the first one.
fn check(engines: &[Box<dyn Engine>]) -> Result<(), Box<dyn Error>> {
    let Some((first, rest)) = engines.split_first() else { return Ok(()) };
    for engine in rest {
        for (name, want) in engine.outputs() {
            let have = first.outputs().get(name).ok_or_else(|| format!("eec has no output {name}"))?;
            let difference = compare(have, want, TOLERANCE);
            if !difference.within {
                return Err(format!("output {name} differs from {}: {}", engine.name(), difference.detail).into());
            }
        }
    }
    Ok(())
}

/// Prints the row of the table; `times` are sorted.
fn summary(name: &str, threads: usize, engines: &[Box<dyn Engine>], times: &[Vec<f64>]) -> Value {
    let median = |t: &[f64]| t[t.len() / 2];
    let ratios = [median(&times[1]) / median(&times[0]), times[1][0] / times[0][0]];
    println!(
        "| {name} | {threads} | {:.3} | {:.3} | {:.2} | {:.2} |",
        median(&times[0]),
        median(&times[1]),
        ratios[0],
        ratios[1]
    );
    let engines: Vec<Value> = engines
        .iter()
        .zip(times)
        .map(|(e, t)| json!({ "engine": e.name(), "median_ms": median(t), "min_ms": t[0], "times_ms": t }))
        .collect();
    json!({ "case": name, "threads": threads, "engines": engines, "ratio": ratios[0], "ratio_of_least": ratios[1] })
}
