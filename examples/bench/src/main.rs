//! Times eec and other engines on the same models and inputs: outputs are compared before any time counts, rounds
//! are interleaved, every engine has a process of its own, and medians go to a table and a JSON file.
//!
//! ```text
//! python TOOLS/materialize.py SHARED/models/bench MODELS/bench
//! cargo run --release -- --models MODELS --models SHARED/models --python .venv/bin/python
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;

mod cases;
mod dynamic;
mod engines;
mod products;
mod table;
mod timing;
mod worker;

use cases::Case;
use engines::Kind;

/// Times engines on the same models and inputs.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(flatten)]
    args: Args,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Times matrix products alone beside those of faer and gemm
    Products(products::ProductArgs),
    /// Runs one engine behind a line protocol
    #[command(hide = true)]
    Worker(worker::WorkerArgs),
}

#[derive(clap::Args)]
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
    /// The engines beside eec
    #[arg(long, value_delimiter = ',', value_enum, default_value = "onnxruntime,tract,rten")]
    engines: Vec<Kind>,
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.role {
        Some(Role::Products(args)) => products::run(args),
        Some(Role::Worker(args)) => worker::serve(args),
        None => run(&cli.args),
    };
    match outcome {
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
    for case in cases::read(&args.cases)?.into_iter().filter(wanted) {
        for threads in &args.threads {
            let timed = timing::time(args, &case, *threads).map_err(|e| format!("{}: {e}", case.name))?;
            if results.is_empty() {
                println!("{}", table::HEADER);
            }
            println!("{}", table::rows(&timed));
            results.push(table::json(&timed));
        }
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&json!({ "results": results }))?)?;
    }
    Ok(())
}
