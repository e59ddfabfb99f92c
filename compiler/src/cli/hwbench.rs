//! `eec hwbench`: what this machine can do at most.

use std::process::ExitCode;
#[cfg(feature = "gpu")]
use std::time::Duration;

use eec_runtime::Limits;
#[cfg(feature = "gpu")]
use eec_runtime::gpu::{Gpu, GpuLimits, GuardTime, GuardTimes, Spread};
use serde_json::{Value, json};

use super::backend::{AdapterArgs, Name};
use super::{JSON_SCHEMA, Outcome, output, threads};

/// Measures the machine's limits: products and memory of the CPU, or with --backend gpu products, copies, the time
/// to submit and read back, and the two ways to keep skipped work from running.
///
/// What is found for a GPU's guards decides from then on which one `--gpu-guard auto` takes.
#[derive(clap::Args)]
pub(super) struct Args {
    /// What is measured
    #[arg(long, env = "EEC_BACKEND", value_enum, default_value_t = Name::Cpu)]
    backend: Name,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Threads that compute [default: all cores]
    #[arg(long, env = "EEC_THREADS", value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Prints one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Outcome {
    let (mut value, text) = match args.backend {
        Name::Cpu => {
            args.adapter.expect_none()?;
            cpu(args.threads)
        }
        Name::Gpu => gpu(&args)?,
    };
    if args.json {
        value["schema"] = json!(JSON_SCHEMA);
        output::print_json(&value)?;
    } else {
        output::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cpu(threads: Option<usize>) -> (Value, String) {
    let limits = Limits::measure(threads.unwrap_or(0));
    let (gflops, gbytes) = (2e-9 * limits.macs_per_second, 1e-9 * limits.bytes_per_second);
    (
        json!({ "backend": "cpu", "gflops": gflops, "gbytes_per_s": gbytes }),
        format!("multiply-adds from registers  {gflops:.0} GFLOP/s\nreading memory                {gbytes:.1} GB/s\n"),
    )
}

#[cfg(not(feature = "gpu"))]
fn gpu(_args: &Args) -> Result<(Value, String), crate::Error> {
    Err(crate::backend::without_gpu())
}

#[cfg(feature = "gpu")]
fn gpu(args: &Args) -> Result<(Value, String), crate::Error> {
    let gpu = Gpu::open(args.adapter.name().as_deref())?;
    let (limits, guards) = (GpuLimits::measure(&gpu)?, GuardTimes::measure(&gpu)?);
    let products: Vec<(usize, f64)> = limits.products.iter().map(|(size, rate)| (*size, 2e-9 * rate)).collect();
    let copied = 1e-9 * limits.copied_bytes_per_second;
    let value = json!({
        "backend": "gpu", "adapter": gpu.adapter().name,
        "products": products.iter().map(|(n, rate)| json!({ "size": n, "gflops": rate })).collect::<Vec<_>>(),
        "copy_gbytes_per_s": copied, "submit_us": us(limits.submit), "readback_us": us(limits.readback),
        "guards": {
            "direct": guard_json(&guards.direct), "indirect": guard_json(&guards.indirect),
            "best": guards.best.name(), "clear": guards.clear,
        },
    });
    let mut rows: Vec<Vec<String>> = products
        .iter()
        .map(|(n, rate)| vec![format!("float32 product, {n} x {n} x {n}"), format!("{rate:.1} GFLOP/s")])
        .collect();
    let mut line = |name: &str, value: String| rows.push(vec![name.into(), value]);
    line("copy, read and written", format!("{copied:.1} GB/s"));
    line("submit and wait", format!("{:.1} us", us(limits.submit)));
    line("submit, wait and read back", format!("{:.1} us", us(limits.readback)));
    for (name, guard) in [("direct", &guards.direct), ("indirect", &guards.indirect)] {
        line(&format!("{name} dispatch that runs"), spread_text(&guard.ran));
        line(&format!("{name} dispatch that is skipped"), spread_text(&guard.skipped));
    }
    let why = if guards.clear { "" } else { ", the default: the rounds disagree about which costs less" };
    let text = format!("{}\n{}guard: {}{why}\n", gpu.adapter().name, output::table(&rows), guards.best.name());
    Ok((value, text))
}

#[cfg(feature = "gpu")]
fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(feature = "gpu")]
fn guard_json(guard: &GuardTime) -> Value {
    let range = |spread: &Spread| [us(spread.least), us(spread.most)];
    json!({
        "ran_us": us(guard.ran.median), "ran_us_range": range(&guard.ran),
        "skipped_us": us(guard.skipped.median), "skipped_us_range": range(&guard.skipped),
    })
}

/// The median with the range of all rounds.
#[cfg(feature = "gpu")]
fn spread_text(spread: &Spread) -> String {
    format!("{:.2} us ({:.2} to {:.2})", us(spread.median), us(spread.least), us(spread.most))
}
