//! `eec hwbench`: what this machine can do at most.

use std::process::ExitCode;
#[cfg(feature = "gpu")]
use std::time::Duration;

use eec_runtime::Limits;
#[cfg(feature = "gpu")]
use eec_runtime::gpu::{Gpu, GpuLimits, GuardTimes};
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
        Name::Cpu => cpu(args.threads),
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
    let gpu = Gpu::open(args.adapter.adapter.as_deref())?;
    let (limits, guards) = (GpuLimits::measure(&gpu)?, GuardTimes::measure(&gpu)?);
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let products: Vec<(usize, f64)> = limits.products.iter().map(|(size, rate)| (*size, 2e-9 * rate)).collect();
    let copied = 1e-9 * limits.copied_bytes_per_second;
    let value = json!({
        "backend": "gpu", "adapter": gpu.adapter().name,
        "products": products.iter().map(|(n, rate)| json!({ "size": n, "gflops": rate })).collect::<Vec<_>>(),
        "copy_gbytes_per_s": copied, "submit_us": us(limits.submit), "readback_us": us(limits.readback),
        "guards": {
            "direct": { "ran_us": us(guards.direct_ran), "skipped_us": us(guards.direct_skipped) },
            "indirect": { "ran_us": us(guards.indirect_ran), "skipped_us": us(guards.indirect_skipped) },
            "best": guards.best.name(),
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
    line(
        "direct dispatch, run / skipped",
        format!("{:.2} / {:.2} us", us(guards.direct_ran), us(guards.direct_skipped)),
    );
    line(
        "indirect dispatch, run / skipped",
        format!("{:.2} / {:.2} us", us(guards.indirect_ran), us(guards.indirect_skipped)),
    );
    let text = format!("{}\n{}guard: {}\n", gpu.adapter().name, output::table(&rows), guards.best.name());
    Ok((value, text))
}
