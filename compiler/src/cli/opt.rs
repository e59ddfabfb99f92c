//! `eec opt`: passes on text IR.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, program, text};
use eec_passes::pass::{self, Context, Pass, PassError};
use eec_passes::registry;

use super::{Outcome, output};
use crate::lower::Names;
use crate::model::{Form, Model, lowered};
use crate::{Error, cases, wgsl};

/// Runs passes on text IR (.eir, or - for stdin) or on a model, and prints the result.
///
/// Constants that the text names by hash alone get values seeded by the hash. Passes are written
/// as `simplify, exit-heads{at=[1], head=linear, rule=maxprob:0.9}`; heads get seeded weights.
/// Of a compiled model the graph with its exits is taken.
/// The graph is verified between all passes.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Text IR (- for stdin), .onnx or .eec
    input: PathBuf,
    /// The passes, in order
    #[arg(long, value_name = "LIST", default_value = "")]
    passes: String,
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

pub(super) fn run(args: Args) -> Outcome {
    let mut graph = load(&args.input)?;
    check(&graph, "input")?;
    let passes = args.pipeline()?;
    if let Some(folder) = &args.dump_dir {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    let mut cx = Context::default();
    let mut done = 0;
    pass::run(&passes, &mut graph, &mut cx, &mut |pass, graph| {
        done += 1;
        args.after(pass, graph, done).map_err(|e| PassError::new(pass.name(), e))
    })?;
    for note in &cx.notes {
        output::warning(&format!("{}: {}: {}", note.pass, note.place, note.reason));
    }
    match args.emit {
        Emit::Ir => output::print(&graph.to_string())?,
        Emit::Program => output::print(&lowered(&graph, Names::default())?.to_string())?,
        Emit::Wgsl => {
            let program = lowered(&graph, Names::default())?;
            let gpu = wgsl::lower(&program::verify(&program).map_err(Error::request)?).map_err(Error::request)?;
            output::print(&gpu.to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// The passes that run.
    fn pipeline(&self) -> Result<Vec<Box<dyn Pass>>, Error> {
        let mut passes = registry::pipeline(&self.passes).map_err(|e| Error::usage(format!("--passes: {e}")))?;
        let position = |flag: &str, name: &str| {
            let at = passes.iter().position(|p| p.name() == name);
            at.ok_or_else(|| Error::usage(format!("{flag} {name}: no such pass in `{}`", self.passes)))
        };
        if let Some(name) = self.print_ir_after.as_deref().filter(|name| *name != "all") {
            position("--print-ir-after", name)?;
        }
        if let Some(last) = &self.stop_after {
            let at = position("--stop-after", last)?;
            passes.truncate(at + 1);
        }
        Ok(passes)
    }

    fn after(&self, pass: &dyn Pass, graph: &Graph, number: usize) -> Result<(), Error> {
        check(graph, pass.name())?;
        if self.print_ir_after.as_deref().is_some_and(|name| name == "all" || name == pass.name()) {
            eprintln!("// after {}\n{graph}", pass.name());
        }
        if let Some(folder) = &self.dump_dir {
            let path = folder.join(format!("{number:02}-{}.eir", pass.name()));
            std::fs::write(&path, graph.to_string()).map_err(|e| Error::io(&path, e))?;
        }
        Ok(())
    }
}

fn check(graph: &Graph, after: &str) -> Result<(), Error> {
    verify(graph, Stage::Imported).map(drop).map_err(|e| Error::request(format!("after {after}: {e}")))
}

fn load(path: &Path) -> Result<Graph, Error> {
    let is_model = path.extension().is_some_and(|e| e == "onnx" || e == "eec");
    if is_model {
        return Ok(Model::open(path)?.graph(Form::Dynamic).clone());
    }
    let mut source = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut source).map_err(|e| Error::io(path, e))?;
    } else {
        source = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    }
    text::parse(&source, &mut |constant| Some(cases::seeded_constant(constant))).map_err(|e| Error::content(path, e))
}
