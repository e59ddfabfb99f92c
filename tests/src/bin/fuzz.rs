//! Fuzzes one target: `fuzz TARGET [--seconds N | --count N] [--seed S] [--from K]`.
//!
//! Stops at the first finding, writes its input to `TARGET-S-K` in the current folder and exits with 1. Inputs are
//! numbered: `--from K --count 1` feeds the one with number K again.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use eec_tests::fuzz::{Target, seeds};

/// Feeds a target with mutated inputs until one is a finding.
#[derive(Parser)]
struct Args {
    /// onnx_bytes, ir_text, artifact_bytes, npz_bytes or passes
    #[arg(value_parser = target)]
    target: Target,
    /// How long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many inputs at most
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Which sequence of inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The number of the first input
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Prints the number of every input before it is fed, for those that end the process
    #[arg(long)]
    trace: bool,
}

fn target(name: &str) -> Result<Target, String> {
    Target::from_name(name).ok_or_else(|| "no such target".into())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seeds = seeds(args.target);
    let (name, start) = (args.target.name(), Instant::now());
    std::panic::set_hook(Box::new(|_| {}));
    let mut done = 0;
    while done < args.count && start.elapsed() < Duration::from_secs(args.seconds) {
        let number = args.from + done;
        if args.trace {
            println!("{number}");
        }
        let input = args.target.input(&seeds, args.seed, number);
        if let Err(finding) = args.target.feed(&input) {
            let file = format!("{name}-{}-{number}", args.seed);
            println!("{name}: input {number} of sequence {}: {finding}", args.seed);
            match std::fs::write(&file, &input) {
                Ok(()) => println!("wrote {file}"),
                Err(e) => println!("{file} cannot be written: {e}"),
            }
            return ExitCode::FAILURE;
        }
        done += 1;
    }
    println!("{name}: {done} inputs in {:.0} s, no finding", start.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}
