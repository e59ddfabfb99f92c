//! `eec reduce`: makes a failing case small.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use eec_passes::registry::Registry;

use super::import::ImportArgs;
use super::{Outcome, opt, output};
use crate::Error;
use crate::cases::Case;
use crate::reduce::reduce;

/// Shrinks a case that fails to a small one that fails in the same way, and prints it.
///
/// A case is text IR with a header, as in the test suites; it fails if a pass fails or leaves an invalid
/// graph, if the result cannot be lowered, or if its values are not those before the passes (as the header
/// allows) on the evaluator or on a backend. Leaves out passes, ends the graph earlier, and replaces nodes
/// by their operands or by inputs.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The case (.eir, - for stdin), or a model (.onnx or .eec) whose weights do not matter
    case: PathBuf,
    /// The passes, instead of those of the header
    #[arg(long, value_name = "LIST")]
    passes: Option<String>,
    #[command(flatten)]
    import: ImportArgs,
}

pub(super) fn run(args: Args, registry: &Registry) -> Outcome {
    let source = args.source()?;
    // Attempts that panic are attempts like others; what the smallest one does is said at the end.
    std::panic::set_hook(Box::new(|_| ()));
    let reduced = reduce(&source, registry);
    let _ = std::panic::take_hook();
    let reduced = reduced.map_err(|e| Error::content(&args.case, e))?;
    let (passes, nodes) = (reduced.passes, reduced.nodes);
    eprintln!("fails by {} with {passes} passes on {nodes} nodes:\n{}", reduced.kind, reduced.message.trim_end());
    output::print(&reduced.text)?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// What the file or stdin holds, which is text.
    fn text(&self) -> Result<String, Error> {
        self.import.expect_none(&self.case)?;
        let mut bytes = Vec::new();
        match self.case == Path::new("-") {
            true => drop(io::stdin().read_to_end(&mut bytes).map_err(|e| Error::io(&self.case, e))?),
            false => bytes = std::fs::read(&self.case).map_err(|e| Error::io(&self.case, e))?,
        }
        let why = "is no text; a case is text IR, and a model is given as a file named .onnx or .eec";
        String::from_utf8(bytes).map_err(|_| Error::content(&self.case, why))
    }

    /// The case's text, with the passes of the flag.
    fn source(&self) -> Result<String, Error> {
        let is_model = self.case.extension().is_some_and(|e| e == "onnx" || e == "eec");
        let text = match is_model {
            true => opt::read_graph(&self.case, &self.import)?.to_string(),
            false => self.text()?,
        };
        let Some(passes) = &self.passes else { return Ok(text) };
        // The header must be one that can be read before a line of it is replaced.
        Case::new(&text).map_err(|e| Error::content(&self.case, e))?;
        let is_passes = |l: &&str| l.strip_prefix(";!").is_some_and(|l| l.trim_start().starts_with("passes"));
        let others: String = text.lines().filter(|l| !is_passes(l)).map(|l| format!("{l}\n")).collect();
        Ok(format!(";! passes = \"{passes}\"\n{others}"))
    }
}
