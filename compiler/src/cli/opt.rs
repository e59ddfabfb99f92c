//! `eec opt`: passes on text IR.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, program, text};
use eec_passes::pass::{Changed, Context, Pass, Verdict};
use eec_passes::pipeline::{self, Record, RunError, Which};
use eec_passes::registry::Registry;
use eec_runtime::MAGIC;

use super::import::ImportArgs;
use super::{Outcome, output};
use crate::lower::Names;
use crate::model::{Form, lowered};
use crate::{Error, cases, wgsl};

/// Runs passes on text IR or on a model, and prints the result.
///
/// Constants that the text names by hash alone get values seeded by the hash. Passes are written
/// as `simplify, exit-heads{at=[1], head=linear, rule=maxprob:0.9}`; heads get seeded weights.
/// Of a compiled model the graph with its exits is taken. The graph is verified after every pass.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Text IR (.eir), .onnx or .eec; stdin, text or ONNX, if it is - or left out
    #[arg(default_value = "-", hide_default_value = true)]
    input: PathBuf,
    /// The passes, in order
    #[arg(long, value_name = "LIST")]
    passes: Option<String>,
    /// Lists the passes there are, with their options, and does nothing else
    #[arg(long)]
    list_passes: bool,
    /// What to print
    #[arg(long, value_enum, default_value_t = Emit::Ir)]
    emit: Emit,
    /// Stops after the first pass of this name
    #[arg(long, value_name = "PASS")]
    stop_after: Option<String>,
    /// Prints the IR to stderr after each pass of this name; `all` for every pass
    #[arg(long, value_name = "PASS")]
    print_ir_after: Option<String>,
    /// Writes the IR after each pass into this folder
    #[arg(long, value_name = "DIR")]
    dump_dir: Option<PathBuf>,
    /// Prints to stderr what every pass took and did
    #[arg(long)]
    timing: bool,
    #[command(flatten)]
    import: ImportArgs,
}

/// The forms of the result.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Emit {
    /// The graph's text
    Ir,
    /// The compiled program's text
    Program,
    /// Its GPU form: dispatches and shaders
    Wgsl,
}

pub(super) fn run(args: Args, registry: &Registry) -> Outcome {
    if args.list_passes {
        output::print(&list(registry))?;
        return Ok(ExitCode::SUCCESS);
    }
    let passes = args.passes.as_deref().map_or_else(|| Ok(Vec::new()), |list| pipeline_of(list, registry))?;
    let mut graph = read_graph(&args.input, &args.import)?;
    verify(&graph, Stage::Imported).map_err(|e| Error::content(&args.input, e))?;
    let mut cx = Context::default();
    let records = pipeline::run(&passes, &mut graph, &mut cx, &args.options(), &mut io::stderr());
    let records = records.map_err(|e| match e {
        RunError::NoSuchPass { .. } => Error::usage(e),
        RunError::Pass(_) | RunError::Invalid { .. } | RunError::Dump { .. } => Error::from(e),
    })?;
    for note in &cx.notes {
        if let Verdict::Refused(reason) = &note.verdict {
            output::warning(&format!("{}: {}: {reason}", note.pass, note.place));
        }
    }
    if args.timing {
        eprint!("{}", timing(&records));
    }
    match args.emit {
        Emit::Ir => output::print(&graph.to_string())?,
        Emit::Program => output::print(&lowered(&graph, Names::default())?.to_string())?,
        Emit::Wgsl => {
            let program = lowered(&graph, Names::default())?;
            let gpu = wgsl::lower(&program::verify(&program).map_err(Error::request)?)?;
            output::print(&gpu.to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn options(&self) -> pipeline::Options {
        let which = |name: &String| if name == "all" { Which::All } else { Which::Named(name.clone()) };
        pipeline::Options {
            stop_after: self.stop_after.clone(),
            print_after: self.print_ir_after.as_ref().map(which),
            dump_dir: self.dump_dir.clone(),
            ..pipeline::Options::default()
        }
    }
}

/// The passes of `--passes`, of which there is one at least.
pub(super) fn pipeline_of(list: &str, registry: &Registry) -> Result<Vec<Box<dyn Pass>>, Error> {
    let passes = registry.pipeline(list).map_err(|e| Error::usage(format!("--passes: {e}")))?;
    match passes.is_empty() {
        true => Err(Error::usage(format!("--passes {list:?} names no pass; `eec opt --list-passes` shows them"))),
        false => Ok(passes),
    }
}

/// Every pass with what it does and its options.
fn list(registry: &Registry) -> String {
    let mut text = String::new();
    for entry in registry.entries() {
        text.push_str(&format!("{}: {}\n", entry.name, entry.doc));
        for (key, doc) in &entry.options {
            text.push_str(&format!("    {key}={doc}\n"));
        }
    }
    text
}

/// What every pass took and did.
pub(super) fn timing(records: &[Record]) -> String {
    let mut rows = vec![["pass", "time", "nodes before", "after", "inserted"].map(String::from).to_vec()];
    for r in records {
        let name = match r.changed {
            Changed::Yes => r.pass.to_string(),
            Changed::No => format!("{} (no change)", r.pass),
        };
        let time = format!("{:.3} ms", r.time.as_secs_f64() * 1e3);
        rows.push(vec![name, time, r.nodes[0].to_string(), r.nodes[1].to_string(), r.inserted.to_string()]);
    }
    output::table(&rows)
}

/// The graph of a model, imported so, or of text IR whose constants are seeded; `-` is stdin.
pub(super) fn read_graph(path: &Path, import: &ImportArgs) -> Result<Graph, Error> {
    let bytes = match path.extension().and_then(|e| e.to_str()) {
        _ if path == Path::new("-") => {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
            bytes
        }
        Some("onnx" | "eec") => return Ok(import.open(path)?.graph(Form::Dynamic).clone()),
        Some(_) | None => std::fs::read(path).map_err(|e| Error::io(path, e))?,
    };
    if bytes.starts_with(&MAGIC) {
        let why =
            "holds a compiled model, which is read from a file named .eec alone; here text IR or ONNX is expected";
        return Err(Error::content(path, why));
    }
    match text_of(&bytes) {
        Some(source) => {
            import.expect_none(path)?;
            let mut seeded = |constant: &text::ConstRef| Some(cases::seeded_constant(constant));
            text::parse(source, &mut seeded).map_err(|e| Error::content(path, e))
        }
        None => import.import(&bytes, path),
    }
}

/// The bytes as text; none if they are not UTF-8 or hold control characters, as every ONNX file does.
fn text_of(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.chars().all(|c| !c.is_control() || c.is_whitespace()).then_some(text)
}
