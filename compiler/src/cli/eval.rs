//! `eec eval`: a compiled model beside its plain form.

use std::path::PathBuf;
use std::process::ExitCode;

use eec_ir::{Graph, Precision};
use serde_json::json;

use super::import::ImportArgs;
use super::output::{self, Bars};
use super::{Execution, JSON_SCHEMA, Outcome};
use crate::Error;
use crate::calibrate::Verdict;
use crate::capture::BATCH;
use crate::dataset::Dataset;
use crate::display::{mixed_part, percent, quality};
use crate::evaluate::{DynamicQuality, Evaluate, Evaluation, Mix, Part, Quality, Rival, Rivals, evaluate};
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
/// Without `labels` in the data, agreement with the plain model is the measure, or with the float32 model if
/// --against gives it. There the row `plain` is the model with narrow weights and without decisions.
///
/// "Fixed depth, mixed to equal work" is the best that fixed depths can do at the same work: each sample
/// leaves after one of two blocks, by chance. Heads that were fitted are judged at every candidate, kept
/// or not; `final` and `file` heads only at the model's own exits. Token exits and skipped FFNs are
/// compared with fixed choices in the same way.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The compiled model (.eec); an .onnx is evaluated as it is
    model: PathBuf,
    /// Data, with `labels` if it has them
    #[arg(short, long, value_name = "D.npz")]
    data: PathBuf,
    /// The float32 model (.onnx) that a model with narrow weights was compiled from, to compare with
    #[arg(long, value_name = "MODEL.onnx")]
    against: Option<PathBuf>,
    /// Uses only the first N samples
    #[arg(long, value_name = "N", value_parser = super::positive)]
    limit: Option<usize>,
    #[command(flatten)]
    import: ImportArgs,
    #[command(flatten)]
    execution: Execution,
}

pub(super) fn run(args: Args) -> Outcome {
    args.execution.check()?;
    // With --against the model itself is compiled, and the flags of the import are for what it is compared with.
    let model = if args.against.is_some() { Model::open(&args.model)? } else { args.import.open(&args.model)? };
    let data = Dataset::open(&args.data, &model.plain)?;
    let data = data.truncated(args.limit.unwrap_or(usize::MAX));
    let progress: &dyn Progress = if args.execution.json { &Silent } else { &Bars::default() };
    let float32 = args.against.as_deref().map(|path| original(args.import.open(path)?, &model)).transpose()?;
    let backend = args.execution.backend()?;
    let options = Evaluate { backend: &backend, threads: args.execution.threads, float32: float32.as_ref(), progress };
    let evaluation = evaluate(&model, &data, &options);
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

/// The model `original`, which must be float32 and take and give what `model` does.
fn original(original: Model, model: &Model) -> Result<Model, Error> {
    let path = original.path.as_path();
    if original.recipe.precision != Precision::F32 {
        return Err(Error::content(path, format!("has {} weights itself", original.recipe.precision)));
    }
    let ports = |graph: &Graph| {
        let inputs = graph.inputs().iter().map(|v| graph.value(*v).name.as_deref().unwrap_or_default().to_string());
        inputs.chain(graph.output_names().iter().map(|name| name.to_string())).collect::<Vec<_>>()
    };
    if ports(&original.plain) != ports(&model.plain) {
        let (found, expected) = (ports(&original.plain).join(", "), ports(&model.plain).join(", "));
        return Err(Error::content(path, format!("has the inputs and outputs {found}, expected {expected}")));
    }
    Ok(original)
}

fn text(e: &Evaluation, data: &Dataset) -> String {
    let plural = if e.samples == 1 { "" } else { "s" };
    let mut out = format!("{} sample{plural} of {}\n\n", e.samples, data.name);
    let mut rows = vec![header(e), row("plain", &e.plain)];
    if let Some(float32) = &e.float32 {
        rows.insert(1, row("float32", float32));
        rows.push(ratios("plain / float32", &e.plain, float32));
    }
    let Some(d) = &e.dynamic else {
        out.push_str(&output::table(&rows));
        out.push_str("\nThe model decides nothing: it has no exits and no gates.\n");
        return out;
    };
    rows.push(row("dynamic", &d.quality));
    rows.push(ratios("dynamic / plain", &d.quality, &e.plain));
    if let Some(rivals) = &e.rivals {
        rows.extend(rival_rows(rivals, d));
    }
    out.push_str(&output::table(&rows));
    if let Some(Verdict::DoesNotPay { reason }) = &e.verdict {
        out.push_str(&format!("\nAdaptivity does not pay here: {reason}.\n"));
    }
    let decisions = decisions(e, d);
    if decisions.is_empty() { out } else { format!("{out}\n{decisions}") }
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

fn ratios(name: &str, q: &Quality, to: &Quality) -> Vec<String> {
    let points = q.accuracy.zip(to.accuracy).map(|(a, b)| format!("{:+.2} pt", 100.0 * (a - b)));
    let relative = q.loss.zip(to.loss).map(|(a, b)| format!("{:+.2} %", 100.0 * (a / b - 1.0)));
    let ratio = |a: f64, b: f64| format!("{:.3}", a / b);
    let mut row = vec![
        name.into(),
        points.or(relative).unwrap_or_default(),
        ratio(q.macs, to.macs),
        ratio(q.batch1_ms, to.batch1_ms),
        ratio(q.batch32_ms, to.batch32_ms),
    ];
    row.extend(q.token_ms.zip(to.token_ms).map(|(a, b)| ratio(a, b)));
    row
}

fn rival_rows(rivals: &Rivals, d: &DynamicQuality) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if rivals.fixed_depth.is_none() && !d.exits.is_empty() {
        rows.push(vec!["no fixed depth costs as little".into()]);
    }
    let mixes = [&rivals.fixed_depth, &rivals.fixed_tokens, &rivals.static_ffns];
    rows.extend(mixes.into_iter().flatten().flat_map(mix_rows));
    rows.extend(rivals.random.iter().map(|r| rival_row(r.name.clone(), r)));
    rows
}

/// A mix and the choices in it, if they are several.
fn mix_rows(mix: &Mix) -> Vec<Vec<String>> {
    let part = |p: &Part| rival_row(mixed_part(p.share, &p.choice.name), &p.choice);
    let parts = mix.parts.iter().filter(|_| mix.parts.len() > 1).map(part);
    std::iter::once(rival_row(mix.whole.name.clone(), &mix.whole)).chain(parts).collect()
}

fn rival_row(name: String, r: &Rival) -> Vec<String> {
    vec![name, quality(r.accuracy, r.loss), format!("{:.3} of plain", r.macs_ratio)]
}

/// Where samples left, where visual tokens did, and how many tokens skipped each FFN.
fn decisions(e: &Evaluation, d: &DynamicQuality) -> String {
    let mean = |what: &str, block: Option<f64>| {
        let last = e.blocks.saturating_sub(1);
        block.map(|b| format!("{what}: after block {b:.2} (staying counts as the last, block {last})\n"))
    };
    let exits = d.exits.iter().map(|name| format!("after {name}")).chain(["full depth".into()]);
    let (ffns, tokens) = d.gates.split_at(d.gates.len().saturating_sub(d.token_exit_histogram.len().saturating_sub(1)));
    let gates = tokens.iter().map(|g| g.name.clone()).chain(["tokens stay".into()]);
    let of = Some(e.samples.max(1));
    let parts = [
        if d.exits.is_empty() { String::new() } else { bars(exits.zip(d.exit_histogram.iter().copied()), of) },
        mean("mean exit", d.mean_exit).unwrap_or_default(),
        bars(gates.zip(d.token_exit_histogram.iter().copied()), of),
        mean("mean token exit", d.mean_token_exit).unwrap_or_default(),
        bars(ffns.iter().map(|g| (g.name.clone(), g.rows)), None),
    ];
    parts.concat()
}

/// One bar per line, the longest 40 wide; with shares of `of`, if it is given.
fn bars(counts: impl Iterator<Item = (String, u64)>, of: Option<usize>) -> String {
    let counts: Vec<(String, u64)> = counts.collect();
    let most = counts.iter().map(|(_, n)| *n).max().unwrap_or(1).max(1);
    let cells = |(name, n): &(String, u64)| {
        let share = of.map(|of| percent(*n as f64 / of as f64));
        [name.clone(), n.to_string()].into_iter().chain(share).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = counts.iter().map(cells).collect();
    let bar = |n: u64| "#".repeat((40 * n).div_ceil(most) as usize);
    let lines = output::table(&rows);
    lines
        .lines()
        .zip(&counts)
        .map(|(line, (_, n))| format!("{line}  {}", bar(*n)).trim_end().to_owned() + "\n")
        .collect()
}
