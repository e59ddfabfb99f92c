//! `eec eval`: a compiled model beside its plain form.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::output::{self, Bars};
use super::{Execution, JSON_SCHEMA, Outcome};
use crate::Error;
use crate::capture::BATCH;
use crate::dataset::Dataset;
use crate::evaluate::{DynamicQuality, Evaluate, Evaluation, GateUse, Quality, Rival, Rivals, evaluate};
use crate::model::Model;
use crate::progress::{Progress, Silent};

/// Compares a compiled model with its plain form: quality, exits, gates, work and time.
///
/// Quality is accuracy for a model that scores classes per sample, and the mean loss in nats for one
/// that scores classes per token. For a model that carries state, `token` is the time of one token when
/// tokens are fed one by one.
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

/// Accuracy or loss.
fn quality(accuracy: Option<f64>, loss: Option<f64>) -> String {
    accuracy.map(percent).or(loss.map(|l| format!("{l:.4}"))).unwrap_or_default()
}

fn text(e: &Evaluation, data: &Dataset) -> String {
    let plural = if e.samples == 1 { "" } else { "s" };
    let mut out = format!("{} sample{plural} of {}\n\n", e.samples, data.name);
    let mut rows = vec![header(e), row("plain", &e.plain)];
    let Some(d) = &e.dynamic else {
        out.push_str(&output::table(&rows));
        out.push_str("\nThe model decides nothing: it has no exits and no gates.\n");
        return out;
    };
    rows.push(row("dynamic", &d.quality));
    rows.push(ratios(d, &e.plain));
    if let Some(rivals) = &e.rivals {
        rows.extend(rival_rows(rivals, d));
    }
    out.push_str(&output::table(&rows));
    out.push('\n');
    if !d.exits.is_empty() {
        out.push_str(&histogram(d, e.samples));
    }
    if !d.gates.is_empty() {
        out.push_str(&gates(d));
    }
    out
}

fn header(e: &Evaluation) -> Vec<String> {
    let measure = match (e.plain.loss, e.labels) {
        (Some(_), _) => "loss",
        (None, true) => "accuracy",
        (None, false) => "agreement",
    };
    let many = format!("batch {BATCH}");
    let mut header = ["", measure, "MACs/sample", "batch 1", many.as_str()].map(String::from).to_vec();
    header.extend(e.plain.token_ms.map(|_| "token".to_string()));
    header
}

fn row(name: &str, q: &Quality) -> Vec<String> {
    let mut row = vec![
        name.into(),
        quality(q.accuracy, q.loss),
        output::si(q.macs),
        format!("{:.3} ms", q.batch1_ms),
        format!("{:.3} ms", q.batch32_ms),
    ];
    row.extend(q.token_ms.map(|ms| format!("{ms:.3} ms")));
    row
}

fn ratios(d: &DynamicQuality, plain: &Quality) -> Vec<String> {
    let points = d.quality.accuracy.zip(plain.accuracy).map(|(a, b)| format!("{:+.2} pt", 100.0 * (a - b)));
    let relative = d.quality.loss.zip(plain.loss).map(|(a, b)| format!("{:+.2} %", 100.0 * (a / b - 1.0)));
    let mut row = vec![
        "dynamic / plain".into(),
        points.or(relative).unwrap_or_default(),
        format!("{:.3}", d.macs_ratio),
        format!("{:.3}", d.time_ratio),
        format!("{:.3}", d.time_ratio_batch32),
    ];
    row.extend(d.token_time_ratio.map(|r| format!("{r:.3}")));
    row
}

fn rival_rows(rivals: &Rivals, d: &DynamicQuality) -> Vec<Vec<String>> {
    let shown =
        |label: String, r: &Rival| vec![label, quality(r.accuracy, r.loss), format!("{:.3} of plain", r.macs_ratio)];
    let mut rows = Vec::new();
    match &rivals.fixed_depth {
        Some(r) => rows.push(shown(format!("all leave after {}", r.name), r)),
        None if !d.exits.is_empty() => rows.push(vec!["no fixed depth costs as little".into()]),
        None => {}
    }
    rows.extend(rivals.fixed_tokens.iter().map(|r| shown(format!("tokens always leave after {}", r.name), r)));
    rows.extend(rivals.static_ffns.iter().map(|r| shown(format!("never {}", r.name), r)));
    rows.extend(rivals.random.iter().map(|r| shown(r.name.clone(), r)));
    rows
}

/// How often each gate took effect.
fn gates(d: &DynamicQuality) -> String {
    let most = d.gates.iter().map(|g| g.rows).max().unwrap_or(1).max(1);
    let bar = |g: &GateUse| "#".repeat((40 * g.rows).div_ceil(most) as usize);
    let cells: Vec<Vec<String>> = d.gates.iter().map(|g| vec![g.name.clone(), g.rows.to_string()]).collect();
    let bars = d.gates.iter().map(bar);
    output::table(&cells).lines().zip(bars).map(|(line, bar)| format!("{line}  {bar}\n")).collect()
}

/// One bar per exit, the longest 40 wide.
fn histogram(d: &DynamicQuality, samples: usize) -> String {
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
