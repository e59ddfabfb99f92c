//! The `eec` command: one file per verb.

mod bench;
mod compile;
mod eval;
mod export;
mod inputs;
mod inspect;
mod opt;
mod output;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::Error;

/// Version of every verb's `--json` output; it grows when a key changes its meaning or goes.
pub(crate) const JSON_SCHEMA: u32 = 1;

/// Makes ONNX models leave early: inputs that are easy stop at an early exit, and what comes after
/// it is not computed.
#[derive(Parser)]
#[command(name = "eec", version, arg_required_else_help = true)]
#[command(after_help = "Start with: eec compile model.onnx --data calib.npz --max-drop 0.5% -o model.eec\n\
                        Then:       eec eval model.eec --data eval.npz")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Shows a model's blocks, candidate exits, parameters and cost
    Inspect(inspect::Args),
    /// Compiles a model; with data, makes it leave early
    Compile(compile::Args),
    /// Runs a model on inputs
    Run(run::Args),
    /// Compares a compiled model with its plain form: quality, exits, work and time
    Eval(eval::Args),
    /// Measures how long a run takes
    Bench(bench::Args),
    /// Writes a model as standard ONNX, exits as `If`
    Export(export::Args),
    /// Runs passes on text IR
    Opt(opt::Args),
}

/// Runs the command with the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.verb {
        Verb::Inspect(args) => inspect::run(args),
        Verb::Compile(args) => compile::run(args),
        Verb::Run(args) => run::run(args),
        Verb::Eval(args) => eval::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Export(args) => export::run(args),
        Verb::Opt(args) => opt::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// What a verb ends with.
pub(crate) type Outcome = Result<ExitCode, Error>;
