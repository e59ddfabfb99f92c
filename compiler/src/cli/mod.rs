//! The `eec` command: one file per verb.

mod adapters;
mod backend;
mod bench;
mod compile;
mod dims;
mod eval;
mod explain;
mod export;
mod hwbench;
mod import;
mod inputs;
mod inspect;
mod opt;
mod output;
mod profile;
mod reduce;
mod run;
mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use eec_passes::registry::Registry;

use crate::Error;
use crate::backend::Backend;

/// Version of every verb's `--json` output; it grows when a key changes its meaning or goes.
pub(crate) const JSON_SCHEMA: u32 = 2;

/// The exit code of wrong usage, as clap has it.
const USAGE: u8 = 2;

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

// Each verb's help is the documentation of its `Args`.
#[derive(Subcommand)]
enum Verb {
    Inspect(inspect::Args),
    Compile(compile::Args),
    Run(run::Args),
    Eval(eval::Args),
    Bench(bench::Args),
    Export(export::Args),
    Opt(opt::Args),
    Explain(explain::Args),
    Reduce(reduce::Args),
    Adapters(adapters::Args),
    Hwbench(hwbench::Args),
}

/// Runs the command with the process's arguments.
pub fn main() -> ExitCode {
    main_with(&Registry::builtin())
}

/// The same with the passes of `registry`: a program that registers its own is the whole command, with
/// these passes beside eec's in `opt`, `explain`, `reduce` and recipes.
///
/// ```no_run
/// use eec_passes::registry::{Entry, Registry};
/// # fn entry() -> Entry { Entry::new("prune", "removes nothing", |_| unimplemented!()) }
///
/// fn main() -> std::process::ExitCode {
///     match Registry::builtin().with(entry()) {
///         Ok(registry) => eec::cli::main_with(&registry),
///         Err(error) => {
///             eprintln!("error: {error}");
///             std::process::ExitCode::FAILURE
///         }
///     }
/// }
/// ```
pub fn main_with(registry: &Registry) -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.verb {
        Verb::Inspect(args) => inspect::run(args),
        Verb::Compile(args) => compile::run(args, registry),
        Verb::Run(args) => run::run(args),
        Verb::Eval(args) => eval::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Export(args) => export::run(args),
        Verb::Opt(args) => opt::run(args, registry),
        Verb::Explain(args) => explain::run(args, registry),
        Verb::Reduce(args) => reduce::run(args, registry),
        Verb::Adapters(args) => adapters::run(args),
        Verb::Hwbench(args) => hwbench::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            if matches!(error, Error::Usage(_)) { USAGE.into() } else { ExitCode::FAILURE }
        }
    }
}

/// A count from text.
fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "expected a number of 1 or more".to_string())
}

/// The most threads that a run takes.
const MAX_THREADS: usize = 1024;

/// A number of threads from text.
fn threads(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|n| (1..=MAX_THREADS).contains(n));
    count.ok_or_else(|| format!("expected a number from 1 to {MAX_THREADS}; without one, all cores are used"))
}

/// How the verbs that run a model run it and print what they found.
#[derive(clap::Args)]
struct Execution {
    #[command(flatten)]
    backend: backend::BackendArgs,
    /// Threads that compute [default: all cores]
    #[arg(long, env = "EEC_THREADS", value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Prints one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Execution {
    /// Fails if a flag means nothing here, before anything is done.
    fn check(&self) -> Result<(), Error> {
        self.backend.check()
    }

    /// The backend, opened.
    fn backend(&self) -> Result<Backend, Error> {
        self.backend.open(self.threads)
    }
}

/// What a verb ends with.
pub(crate) type Outcome = Result<ExitCode, Error>;
