//! `eec explain`: why passes did or did not apply, place by place.

use std::path::PathBuf;
use std::process::ExitCode;

use eec_ir::verify::{Stage, verify};
use eec_passes::pass::{Changed, Context, Note, Verdict};
use eec_passes::pipeline::{self, Record};
use eec_passes::registry::{Entry, Registry};
use serde_json::{Value, json};

use super::import::ImportArgs;
use super::{JSON_SCHEMA, Outcome, opt, output};
use crate::Error;
use crate::model::Form;

/// Shows for every pass and every place of a model whether the pass can apply there, and why not.
///
/// With --passes these passes run, and what they noted and inserted is shown instead. Of a compiled
/// model the decisions that were calibrated are shown too, with what they were judged by.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The model (.onnx or .eec), or text IR (.eir, - for stdin)
    model: PathBuf,
    /// Only this pass
    #[arg(long, value_name = "PASS", conflicts_with = "passes")]
    pass: Option<String>,
    /// Runs these passes and shows what they noted
    #[arg(long, value_name = "LIST")]
    passes: Option<String>,
    #[command(flatten)]
    import: ImportArgs,
    /// Prints one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// A pass and its verdicts.
struct Explained {
    name: String,
    doc: Option<&'static str>,
    notes: Vec<Note>,
    /// What its run did; absent where it did not run.
    record: Option<Record>,
    /// Whether it can tell without running.
    tells: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Outcome {
    let is_model = args.model.extension().is_some_and(|e| e == "onnx" || e == "eec");
    let model = if is_model { Some(args.import.open(&args.model)?) } else { None };
    let graph = match &model {
        Some(model) => model.graph(Form::Plain).clone(),
        None => opt::read_graph(&args.model, &args.import)?,
    };
    verify(&graph, Stage::Imported).map_err(|e| Error::content(&args.model, e))?;
    let explained = match &args.passes {
        Some(passes) => ran(graph, passes, registry)?,
        None => entries(registry, args.pass.as_deref())?.into_iter().map(|e| surveyed(&graph, e)).collect(),
    };
    let reports: Vec<String> = model.iter().flat_map(|m| &m.reports).map(|r| r.text()).collect();
    if args.json {
        let passes: Vec<Value> = explained.iter().map(as_json).collect();
        let reports: Vec<_> = model.iter().flat_map(|m| &m.reports).collect();
        output::print_json(&json!({ "schema": JSON_SCHEMA, "passes": passes, "reports": reports }))?;
    } else {
        let text: String = explained.iter().map(as_text).chain(reports).collect::<Vec<_>>().join("\n");
        output::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The entries asked for.
fn entries<'r>(registry: &'r Registry, only: Option<&str>) -> Result<Vec<&'r Entry>, Error> {
    let found: Vec<&Entry> = registry.entries().iter().filter(|e| only.is_none_or(|name| name == e.name)).collect();
    if found.is_empty() {
        let known: Vec<&str> = registry.entries().iter().map(|e| e.name).collect();
        let (name, known) = (only.unwrap_or_default(), known.join(", "));
        return Err(Error::usage(format!("--pass {name}: expected one of the passes {known}")));
    }
    Ok(found)
}

/// What the pass says of a graph without running.
fn surveyed(graph: &eec_ir::Graph, entry: &Entry) -> Explained {
    let mut cx = Context::default();
    let tells = entry.explain(graph, &mut cx);
    Explained { name: entry.name.into(), doc: Some(entry.doc), notes: cx.notes, record: None, tells }
}

/// Runs the passes one after the other.
fn ran(mut graph: eec_ir::Graph, passes: &str, registry: &Registry) -> Result<Vec<Explained>, Error> {
    let passes = opt::pipeline_of(passes, registry)?;
    let mut explained = Vec::new();
    for pass in passes {
        let (name, mut cx) = (pass.name(), Context::default());
        let options = pipeline::Options::default();
        let records = pipeline::run(&[pass], &mut graph, &mut cx, &options, &mut std::io::sink())?;
        let record = records.into_iter().next();
        explained.push(Explained { name: name.into(), doc: None, notes: cx.notes, record, tells: true });
    }
    Ok(explained)
}

fn as_text(explained: &Explained) -> String {
    let mut text = match explained.doc {
        Some(doc) => format!("{}: {doc}\n", explained.name),
        None => format!("{}\n", explained.name),
    };
    if let Some(record) = &explained.record {
        let changed = if record.changed == Changed::Yes { "changed the graph" } else { "changed nothing" };
        let [before, after] = record.nodes;
        text.push_str(&format!("  {changed}: {before} nodes before, {after} after, {} inserted\n", record.inserted));
    }
    if !explained.tells {
        text.push_str("  can tell only by running: give --passes\n");
    }
    let row = |note: &Note| match &note.verdict {
        Verdict::Applies(what) => [note.place.clone(), format!("yes: {what}")],
        Verdict::Refused(reason) => [note.place.clone(), format!("no: {reason}")],
    };
    let rows: Vec<[String; 2]> = explained.notes.iter().map(row).collect();
    let width = rows.iter().map(|[place, _]| place.chars().count()).max().unwrap_or(0);
    rows.iter().for_each(|[place, verdict]| text.push_str(&format!("  {place:<width$}  {verdict}\n")));
    text
}

fn as_json(explained: &Explained) -> Value {
    let place = |note: &Note| match &note.verdict {
        Verdict::Applies(what) => json!({ "place": note.place, "applies": true, "what": what }),
        Verdict::Refused(reason) => json!({ "place": note.place, "applies": false, "reason": reason }),
    };
    let record = explained.record.as_ref().map(|r| {
        json!({
            "changed": r.changed == Changed::Yes, "inserted": r.inserted, "nodes_before": r.nodes[0],
            "nodes_after": r.nodes[1],
        })
    });
    let places: Vec<Value> = explained.notes.iter().map(place).collect();
    json!({ "pass": explained.name, "doc": explained.doc, "run": record, "places": places })
}
