//! `eec export`: standard ONNX out.

use std::path::PathBuf;
use std::process::ExitCode;

use super::import::ImportArgs;
use super::{Outcome, output};
use crate::model::Form;
use crate::onnx;

/// Writes a model as standard ONNX (opset 20), its exits as `If`.
///
/// Samples of a batch are routed by gather, `If` and scatter, so any engine can run the file.
/// Nodes that eec inserted carry the pass's name as metadata `eec.pass`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The model (.eec or .onnx)
    model: PathBuf,
    /// Where to write it
    #[arg(short, long, value_name = "OUT.onnx", value_parser = output::named("onnx"))]
    output: PathBuf,
    /// The model without its exits
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    import: ImportArgs,
}

pub(super) fn run(args: Args) -> Outcome {
    output::check_writable(&args.output, &[&args.model])?;
    let model = args.import.open(&args.model)?;
    let form = if args.plain { Form::Plain } else { Form::Dynamic };
    onnx::export(model.graph(form), &args.output)?;
    output::print(&format!("wrote {}\n", args.output.display()))?;
    Ok(ExitCode::SUCCESS)
}
