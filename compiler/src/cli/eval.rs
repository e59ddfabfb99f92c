//! `eec eval`: a compiled model beside its plain form.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::output::{self, Bars};
use super::{Execution, JSON_SCHEMA, Outcome};
use crate::Error;
use crate::capture::BATCH;
use crate::dataset::Dataset;
use crate::evaluate::{Evaluate, Evaluation, Quality, evaluate};
use crate::model::Model;
use crate::progress::{Progress, Silent};

/// Compares a compiled model with its plain form: quality, exits, work and time.
///
/// Work is counted by the run itself: multiply-accumulates of the kernels that ran, declined heads
/// included. Times are means over single samples and over batches of 32, both forms interleaved.
/// Without `labels` in the data, agreement with the plain model is the measure.
///
/// "All leave after block K" is the best fixed depth at no more work. Heads that were fitted are judged
/// at every candidate, kept or not; `final` and `file` heads only at the model's own exits.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The compiled model (.eec); an .onnx is evaluated as it is
    model: PathBuf,
    /// Data, with `labels` if it has them
    #[arg(short, long, value_name = "D.npz")]
    data: PathBuf,
    /// Uses only the first N samples
    #[arg(long, value_name = "N", value_parser = super::positive)]
    limit: Option<usize>,
    #[command(flatten)]
    execution: Execution,
}

pub(super) fn run(args: Args) -> Outcome {
    let model = Model::open(&args.model)?;
    let data = Dataset::open(&args.data, &model.plain)?;
    let data = data.truncated(args.limit.unwrap_or(usize::MAX));
    let progress: &dyn Progress = if args.execution.json { &Silent } else { &Bars::default() };
    let evaluation = evaluate(&model, &data, &Evaluate { threads: args.execution.threads, progress });
    let evaluation =
        evaluation.map_err(|e| e.about(format!("{} with {}", args.model.display(), args.data.display())))?;
    if args.execution.json {
        let mut value = serde_json::to_value(&evaluation).map_err(Error::request)?;
        value["schema"] = json!(JSON_SCHEMA);
        output::print_json(&value)?;
    } else {
        output::print(&text(&evaluation, &data))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn text(e: &Evaluation, data: &Dataset) -> String {
    let measure = if e.labels { "accuracy" } else { "agreement" };
    let plural = if e.samples == 1 { "" } else { "s" };
    let mut out = format!("{} sample{plural} of {}\n\n", e.samples, data.name);
    let many = format!("batch {BATCH}");
    let header = ["", measure, "MACs/sample", "batch 1", many.as_str()];
    let mut rows = vec![header.map(String::from).to_vec(), row("plain", &e.plain)];
    let Some(d) = &e.dynamic else {
        out.push_str(&output::table(&rows));
        out.push_str("\nThe model has no exits.\n");
        return out;
    };
    rows.push(row("dynamic", &d.quality));
    let drop = 100.0 * (d.quality.accuracy - e.plain.accuracy);
    rows.push(vec![
        "dynamic / plain".into(),
        format!("{drop:+.2} pt"),
        format!("{:.3}", d.macs_ratio),
        format!("{:.3}", d.time_ratio),
        format!("{:.3}", d.time_ratio_batch32),
    ]);
    if let Some(rivals) = &e.rivals {
        let shown = |label: String, r: &crate::evaluate::Rival| {
            vec![label, percent(r.accuracy), format!("{:.3} of plain", r.macs_ratio)]
        };
        match &rivals.fixed_depth {
            Some(fixed) => rows.push(shown(format!("all leave after {}", fixed.name), fixed)),
            None => rows.push(vec!["no fixed depth costs as little".into()]),
        }
        rows.push(shown(rivals.random.name.clone(), &rivals.random));
    }
    out.push_str(&output::table(&rows));
    out.push('\n');
    out.push_str(&histogram(d, e.samples));
    out
}

fn row(name: &str, q: &Quality) -> Vec<String> {
    vec![
        name.into(),
        percent(q.accuracy),
        output::si(q.macs),
        format!("{:.3} ms", q.batch1_ms),
        format!("{:.3} ms", q.batch32_ms),
    ]
}

/// One bar per exit, the longest 40 wide.
fn histogram(d: &crate::evaluate::DynamicQuality, samples: usize) -> String {
    let most = d.exit_histogram.iter().copied().max().unwrap_or(1).max(1);
    let names = d.exits.iter().map(|name| format!("after {name}")).chain(std::iter::once("full depth".into()));
    let bar = |(name, n): (String, &u64)| {
        let width = (40 * n).div_ceil(most) as usize;
        vec![name, n.to_string(), percent(*n as f64 / samples.max(1) as f64), "#".repeat(width)]
    };
    let rows: Vec<Vec<String>> = names.zip(&d.exit_histogram).map(bar).collect();
    let bars: Vec<String> = rows.iter().map(|r| r[3].clone()).collect();
    let cells: Vec<Vec<String>> = rows.into_iter().map(|r| r[..3].to_vec()).collect();
    output::table(&cells).lines().zip(bars).map(|(line, bar)| format!("{line}  {bar}\n")).collect()
}
