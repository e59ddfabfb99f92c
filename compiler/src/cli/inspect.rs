//! `eec inspect`: a model's structure and cost.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use eec_ir::{Dim, Graph, Op, Symbol, cost};
use eec_passes::structure::{self, Block, ExitCandidate, Part, Structure};
use eec_passes::token_exits::Span;
use eec_runtime::replace_file;
use serde_json::{Value, json};

use super::dims::Dims;
use super::import::ImportArgs;
use super::{JSON_SCHEMA, Outcome, inputs, output};
use crate::Error;
use crate::lower::host_nodes;
use crate::model::{Form, Model};
use crate::onnx::{ImportErrorKind, UnsupportedForm, UnsupportedOp};
use crate::view::{self, View};

/// Shows a model's inputs and outputs, parameters, blocks with their cost, where exits can stand,
/// and which tokens are visual.
///
/// Blocks are found by the graph's form, not by names. Multiply-accumulates (MACs) count matrix
/// products and convolutions. They are those of one sample unless --dim sets the batch, and
/// formulas where another dim is symbolic and --dim does not give it. Bytes are those of the weights
/// that a part reads; a weight that parts share counts in each.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The model (.onnx or .eec)
    model: PathBuf,
    /// A symbolic dim's value for costs: NAME=N; may be repeated
    #[arg(long, value_name = "NAME=N", value_parser = super::dims::dim_arg)]
    dim: Vec<(String, i64)>,
    /// Draws the graph with its regions, exits and measured cost as one HTML page
    ///
    /// The model runs on random inputs, in a form in which nobody leaves and everything is measured.
    /// With - the page goes to stdout, and nothing else does.
    #[arg(long, value_name = "FILE.html|-", value_parser = output::named_or_stdout("html"))]
    html: Option<PathBuf>,
    /// The same for Graphviz
    #[arg(long, value_name = "FILE.dot|-", value_parser = output::named_or_stdout("dot"))]
    dot: Option<PathBuf>,
    /// Threads that compute what is measured [default: all cores]
    #[arg(long, env = "EEC_THREADS", value_name = "N", value_parser = super::threads)]
    threads: Option<usize>,
    #[command(flatten)]
    import: ImportArgs,
    /// Prints one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Outcome {
    let to_stdout = args.html.iter().chain(&args.dot).filter(|path| is_stdout(path)).count();
    if to_stdout + usize::from(args.json && to_stdout > 0) > 1 {
        return Err(Error::usage("stdout takes one of --html, --dot and --json"));
    }
    let model = match args.import.open(&args.model) {
        Err(Error::Import(e)) if args.json => return unsupported(&e),
        other => other?,
    };
    let mut dims = super::dims::given_dims(&args.dim, &model.plain)?;
    let structure = structure::analyse(&model.plain);
    if let Some(batch) = structure.as_ref().ok().and_then(|s| s.batch.dim().as_symbol().cloned()) {
        dims.entry(batch).or_insert(1);
    }
    if args.html.is_some() || args.dot.is_some() {
        args.draw(&model, &dims)?;
    }
    if to_stdout > 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let size = |d: &Dim| d.substitute(&|s: &Symbol| dims.get(s).map(|n| Dim::from(*n)));
    if args.json {
        output::print_json(&as_json(&model, structure.as_ref().ok(), &size))?;
    } else {
        let found = structure.as_ref().map_err(ToString::to_string);
        output::print(&as_text(&model, found, &size))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Measures the model and writes the drawings.
    fn draw(&self, model: &Model, dims: &Dims) -> Result<(), Error> {
        for path in self.html.iter().chain(&self.dot).filter(|path| !is_stdout(path)) {
            output::check_writable(path, &[&self.model])?;
        }
        let about = |e: Error| e.about(self.model.display());
        let mut view = View::new(model, &|symbol| dims.get(symbol).copied());
        view.measure(&inputs::random(&model.plain, &self.dim)?, self.threads).map_err(about)?;
        let texts = [(&self.html, view::html as fn(&View<'_>) -> String), (&self.dot, view::dot)];
        for (path, text) in texts.into_iter().filter_map(|(path, form)| Some((path.as_ref()?, form(&view)))) {
            match is_stdout(path) {
                true => output::print(&text)?,
                false => {
                    replace_file(path, |out| out.write_all(text.as_bytes())).map_err(|e| Error::io(path, e))?;
                }
            }
        }
        Ok(())
    }
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// A model that cannot be imported is still described by what stands in the way.
fn unsupported(error: &crate::onnx::ImportError) -> Outcome {
    let mut ops: Vec<Value> = Vec::new();
    if let ImportErrorKind::Unsupported(found) = error.kind() {
        let op = |op: &UnsupportedOp| {
            let mut entry = json!({ "domain": op.domain, "op": op.name, "count": op.count });
            if let Some(reason) = op.reason {
                entry["reason"] = reason.into();
            }
            entry
        };
        let form = |f: &UnsupportedForm| json!({ "domain": "", "op": f.op, "count": f.count, "reason": f.reason });
        ops.extend(found.ops.iter().map(op).chain(found.forms.iter().map(form)));
    }
    output::print_json(&json!({ "schema": JSON_SCHEMA, "error": error.to_string(), "unsupported_ops": ops }))?;
    Ok(ExitCode::FAILURE)
}

fn ports(
    graph: &Graph,
    names: impl Iterator<Item = String>,
    values: &[eec_ir::ValueId],
) -> Vec<(String, String, Vec<String>)> {
    let port = |(name, v): (String, &eec_ir::ValueId)| {
        let ty = graph.ty(*v);
        (name, ty.dtype.to_string(), ty.dims.iter().map(Dim::to_string).collect())
    };
    names.zip(values).map(port).collect()
}

fn input_ports(graph: &Graph) -> Vec<(String, String, Vec<String>)> {
    let names = graph.inputs().iter().map(|v| graph.value(*v).name.as_deref().unwrap_or_default().to_string());
    ports(graph, names.collect::<Vec<_>>().into_iter(), graph.inputs())
}

fn output_ports(graph: &Graph) -> Vec<(String, String, Vec<String>)> {
    ports(graph, graph.output_names().iter().map(ToString::to_string), graph.outputs())
}

fn number(d: &Dim) -> Value {
    d.as_const().map_or_else(|| json!(d.to_string()), |n| json!(n))
}

fn as_json(model: &Model, structure: Option<&Structure>, size: &dyn Fn(&Dim) -> Dim) -> Value {
    let graph = &model.plain;
    let list = |ports: Vec<(String, String, Vec<String>)>| -> Vec<Value> {
        ports.into_iter().map(|(name, dtype, shape)| json!({ "name": name, "dtype": dtype, "shape": shape })).collect()
    };
    let block = |b: &Block| {
        let (candidate, reason) = match &b.exit {
            ExitCandidate::Yes => (true, None),
            ExitCandidate::No(reason) => (false, Some(reason)),
        };
        json!({
            "index": b.index, "macs": number(&size(&b.part.macs)),
            "bytes": cost::weight_bytes(graph, &b.part.nodes), "exit_candidate": candidate, "reason": reason,
            "attention": b.attention().is_some(), "ffn": b.ffn().is_some(),
            "output": graph.ty(b.output).to_string(),
        })
    };
    let span =
        |s: &Span| json!({ "start": number(&s.start), "length": number(&s.len), "sequence": number(&s.sequence) });
    json!({
        "schema": JSON_SCHEMA,
        "inputs": list(input_ports(graph)),
        "outputs": list(output_ports(model.graph(Form::Dynamic))),
        "parameters": cost::parameters(graph),
        "macs": number(&size(&cost::graph_macs(graph))),
        "uncounted_loops": cost::uncounted_loops(graph),
        "nodes": graph.nodes_in_order().len(),
        "blocks": structure.map_or_else(Vec::new, |s| s.blocks.iter().map(block).collect()),
        "token_spans": structure.map_or_else(Vec::new, |s| Span::find(graph, s).iter().map(span).collect()),
        "host_ops": host_ops(graph).iter().map(|(op, count)| json!({ "op": op, "count": count })).collect::<Vec<_>>(),
        "unsupported_ops": [],
        "gpu": gpu_json(model),
        "edits": output::edits(model),
        "gates": model.dynamic.as_ref().map_or(&[][..], |d| &d.gates),
        "exits": model.dynamic.as_ref().map_or(&[][..], |d| &d.exits),
        "recipe": model.dynamic.as_ref().map(|_| &model.recipe),
    })
}

/// Whether the model runs on a GPU: the kernels that only the host can run there, or what stands in the way.
fn gpu(model: &Model) -> Result<Vec<String>, String> {
    model.gpu_verdict(Form::Dynamic).map_err(|e| e.to_string())?
}

fn gpu_json(model: &Model) -> Value {
    match gpu(model) {
        Ok(host) => json!({ "runs": true, "host_kernels": host, "reason": null }),
        Err(reason) => json!({ "runs": false, "host_kernels": [], "reason": reason }),
    }
}

fn gpu_text(model: &Model) -> String {
    match gpu(model) {
        Ok(host) if host.is_empty() => "  runs on a GPU\n".into(),
        Ok(host) => format!("  runs on a GPU with --host-ops, for {}\n", host.join(", ")),
        Err(reason) => format!("  does not run on a GPU: {}\n", reason.replace('\n', "\n  ")),
    }
}

/// The operators that run by their evaluators, and how many nodes do.
fn host_ops(graph: &Graph) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for id in host_nodes(graph) {
        *counts.entry(graph.node(id).op.name()).or_default() += 1;
    }
    counts
}

fn macs_text(d: &Dim) -> String {
    d.as_const().map_or_else(|| d.to_string(), |n| output::si(n as f64))
}

fn as_text(model: &Model, structure: Result<&Structure, String>, size: &dyn Fn(&Dim) -> Dim) -> String {
    let graph = &model.plain;
    let mut text = format!("{}\n", model.path.display());
    for (what, list) in [("input", input_ports(graph)), ("output", output_ports(model.graph(Form::Dynamic)))] {
        for (name, dtype, dims) in list {
            text.push_str(&format!("  {what:<6} {name}: {dtype}[{}]\n", dims.join(", ")));
        }
    }
    let macs = macs_text(&size(&cost::graph_macs(graph)));
    let (parameters, nodes) = (output::si(cost::parameters(graph) as f64), graph.nodes_in_order().len());
    text.push_str(&format!("  {parameters} parameters, {nodes} nodes, MACs: {macs}\n"));
    if let loops @ 1.. = cost::uncounted_loops(graph) {
        text.push_str(&format!("  MACs without those of {loops} loops that end when data says so\n"));
    }
    let branches =
        graph.nodes_in_order().into_iter().filter(|id| matches!(graph.node(*id).op, Op::If { .. } | Op::Route { .. }));
    if let branches @ 1.. = branches.count() {
        text.push_str(&format!("  MACs without what stands in the branches of {branches} nodes, which data chooses\n"));
    }
    let host: Vec<String> = host_ops(graph).into_iter().map(|(op, count)| format!("{op} (×{count})")).collect();
    if !host.is_empty() {
        text.push_str(&format!("  not compiled, run by their evaluators: {}\n", host.join(", ")));
    }
    text.push_str(&gpu_text(model));
    for change in model.changes() {
        text.push_str(&format!("  {change}\n"));
    }
    match structure {
        Ok(structure) if structure.blocks.is_empty() => {
            text.push_str("\nno blocks: between the values that all data passes there is no matrix product or ");
            text.push_str("convolution with weights but the classifier's\n");
        }
        Ok(structure) => text.push_str(&blocks_text(graph, structure, size)),
        Err(reason) => text.push_str(&format!("\nno blocks: {reason}\n")),
    }
    text
}

fn blocks_text(graph: &Graph, structure: &Structure, size: &dyn Fn(&Dim) -> Dim) -> String {
    let mut rows = vec![["part", "what", "value after it", "exit", "MACs", "bytes"].map(String::from).to_vec()];
    let bytes = |part: &Part| output::si(cost::weight_bytes(graph, &part.nodes) as f64);
    let end = |name: &str, part: &Part| {
        let none = String::new;
        vec![name.into(), none(), none(), none(), macs_text(&size(&part.macs)), bytes(part)]
    };
    rows.push(end("stem", &structure.stem));
    let mut reasons: Vec<String> = Vec::new();
    for b in &structure.blocks {
        let what: Vec<&str> = [(b.attention().is_some(), "attention"), (b.ffn().is_some(), "ffn")]
            .into_iter()
            .filter_map(|(is, name)| is.then_some(name))
            .collect();
        let exit = match &b.exit {
            ExitCandidate::Yes => "yes",
            ExitCandidate::No(reason) => {
                if !reasons.contains(reason) {
                    reasons.push(reason.clone());
                }
                "no"
            }
        };
        let ty = graph.ty(b.output).to_string();
        rows.push(vec![
            format!("block {}", b.index),
            what.join(" + "),
            ty,
            exit.into(),
            macs_text(&size(&b.part.macs)),
            bytes(&b.part),
        ]);
    }
    rows.push(end("tail", &structure.tail));
    let mut text = format!("\n{}", output::table(&rows));
    for span in Span::find(graph, structure) {
        text.push_str(&format!("visual tokens: {} from {} on, of {}\n", span.len, span.start, span.sequence));
    }
    for reason in reasons {
        text.push_str(&format!("no exit: {reason}\n"));
    }
    text
}
