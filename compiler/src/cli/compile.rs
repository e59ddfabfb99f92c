//! `eec compile`: a model in, an artifact out.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::output::{self, Bars};
use super::{JSON_SCHEMA, Outcome};
use crate::compile::{Compile, compile};
use crate::dataset::Dataset;
use crate::model::Model;
use crate::progress::{Progress, Silent};
use crate::recipe::{Head, MaxDrop, Places, Recipe, Rule};
use crate::Error;

/// Compiles a model; with data, makes it leave early.
///
/// Finds the places where exits can stand by the model's structure, fits a head at each on half of
/// the data with the model's own weights frozen, chooses thresholds on a quarter, and bounds the
/// loss of quality on the last quarter. Keeps only the exits that pay; when none does, the result
/// is the plain model and the report says why.
///
/// The data is an .npz file with one array per model input, first axis the sample, and optionally
/// `labels` (one integer class per sample). Without labels, agreement with the plain model is the
/// measure.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The model (.onnx)
    model: PathBuf,
    /// Where to write the artifact
    #[arg(short, long, value_name = "OUT.eec")]
    output: PathBuf,
    /// Data to fit and calibrate on
    #[arg(short, long, value_name = "D.npz")]
    data: Option<PathBuf>,
    /// The allowed drop of accuracy in percentage points [default: 0.5%]
    #[arg(long, value_name = "DROP")]
    max_drop: Option<MaxDrop>,
    /// The confidence that the drop stays inside, between 0 and 1 [default: 0.9]
    #[arg(long, value_name = "C")]
    confidence: Option<f64>,
    /// After which blocks samples may leave: auto, none, or a list such as 3,6 [default: auto]
    #[arg(long, value_name = "BLOCKS")]
    exits: Option<Places>,
    /// The heads: linear, mlp, mlp:WIDTH, final or file:HEAD.onnx [default: linear]
    #[arg(long)]
    head: Option<Head>,
    /// When a sample leaves: maxprob, entropy, margin or patience; with a number (maxprob:0.9) it
    /// is fixed, else calibrated [default: maxprob]
    #[arg(long)]
    rule: Option<Rule>,
    /// A recipe in TOML; flags go before it
    #[arg(long, value_name = "FILE.toml")]
    recipe: Option<PathBuf>,
    /// Seeds splits and starting weights [default: 0]
    #[arg(long)]
    seed: Option<u64>,
    /// Where to write the report as one HTML file [default: OUT.html when there is data]
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Threads for the runs over the data [default: all cores]
    #[arg(long, env = "EEC_THREADS")]
    threads: Option<usize>,
    /// Prints one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Outcome {
    let recipe = args.recipe()?;
    output::check_writable(&args.output)?;
    let model = Model::open(&args.model)?;
    if model.dynamic.is_some() {
        return Err(Error::content(&args.model, "is compiled with exits already; compile the .onnx it was made from"));
    }
    let data = args.data.as_deref().map(|path| Dataset::open(path, &model.plain));
    let data = data.transpose()?;
    let progress: &dyn Progress = if args.json { &Silent } else { &Bars::default() };
    let options = Compile { recipe, threads: args.threads, progress };
    let compiled = compile(&args.model, model.plain, data.as_ref(), &options)?;
    compiled.save(&args.output)?;
    let html = args.report.clone().or_else(|| data.is_some().then(|| args.output.with_extension("html")));
    if let (Some(path), Some(report)) = (&html, &compiled.report) {
        std::fs::write(path, report.html()).map_err(|e| Error::io(path, e))?;
    }
    args.print(&compiled, html.filter(|_| compiled.report.is_some()))?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// The recipe file, or the defaults, under the flags.
    fn recipe(&self) -> Result<Recipe, Error> {
        let mut recipe = match &self.recipe {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
                Recipe::from_toml(&text).map_err(|e| Error::content(path, e))?
            }
            None => Recipe::default(),
        };
        recipe.max_drop = self.max_drop.unwrap_or(recipe.max_drop);
        recipe.confidence = self.confidence.unwrap_or(recipe.confidence);
        recipe.seed = self.seed.unwrap_or(recipe.seed);
        let heads = &mut recipe.exit_heads;
        heads.at = self.exits.clone().unwrap_or_else(|| heads.at.clone());
        heads.head = self.head.clone().unwrap_or_else(|| heads.head.clone());
        heads.rule = self.rule.clone().unwrap_or_else(|| heads.rule.clone());
        Ok(recipe)
    }

    fn print(&self, model: &Model, html: Option<PathBuf>) -> Result<(), Error> {
        let exits = model.dynamic.as_ref().map_or(&[][..], |d| &d.exits);
        if self.json {
            return output::print_json(&json!({
                "schema": JSON_SCHEMA,
                "output": self.output,
                "exits": exits,
                "report": model.report,
                "html": html,
            }));
        }
        let mut text = String::new();
        if let Some(report) = &model.report {
            text.push_str(&report.text());
            text.push('\n');
        }
        let what = if exits.is_empty() { "the plain model".to_string() } else { format!("{} exits", exits.len()) };
        text.push_str(&format!("wrote {} ({what})\n", self.output.display()));
        if let Some(html) = html {
            text.push_str(&format!("wrote {}\n", html.display()));
        }
        output::print(&text)
    }
}
