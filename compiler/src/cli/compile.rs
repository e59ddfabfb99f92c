//! `eec compile`: a model in, an artifact out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::output::{self, Bars};
use super::{JSON_SCHEMA, Outcome};
use crate::Error;
use crate::compile::{Compile, compile};
use crate::dataset::Dataset;
use crate::file::write_whole;
use crate::model::Model;
use crate::progress::{Progress, Silent};
use crate::recipe::{self, Head, MaxDrop, Places, Recipe, Rule};

/// Compiles a model; with data, makes it leave early.
///
/// Finds the places where exits can stand by the model's structure. On half of the data it fits a
/// head at each, with the model's own weights frozen, and chooses thresholds; on the other half,
/// which neither has seen, it bounds the loss of quality. Keeps only the exits that pay; when none
/// does, the result is the plain model and the report says why.
///
/// The data is an .npz file with one array per model input, first axis the sample, and optionally
/// `labels` (one integer class per sample). Without labels, agreement with the plain model is the
/// measure.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The model (.onnx, or an .eec without exits)
    model: PathBuf,
    /// Where to write the artifact
    #[arg(short, long, value_name = "OUT.eec", value_parser = output::named("eec"))]
    output: PathBuf,
    /// Data to fit and calibrate on; without it the model is compiled as it is
    #[arg(short, long, value_name = "D.npz")]
    data: Option<PathBuf>,
    /// The allowed drop of accuracy, in percentage points or as a fraction: 0.5% is 0.005 [default: 0.5%]
    #[arg(long, value_name = "DROP", allow_hyphen_values = true)]
    max_drop: Option<MaxDrop>,
    /// The confidence that the drop stays inside, between 0 and 1 [default: 0.9]
    #[arg(long, value_name = "C", allow_hyphen_values = true, value_parser = recipe::confidence)]
    confidence: Option<f64>,
    /// After which blocks samples may leave: auto, none, or a list such as 3,6 (blocks as `eec inspect`
    /// counts them) [default: auto]
    #[arg(long, value_name = "BLOCKS")]
    exits: Option<Places>,
    /// The heads [default: linear]
    ///
    /// linear: the model's own pooling and norm, then one dense layer. mlp, mlp:WIDTH: the same with a
    /// hidden layer. final: the model's own norm and classifier, weights shared. file:HEAD.onnx: a model
    /// of yours, from the value after the block to logits.
    #[arg(long, value_name = "HEAD")]
    head: Option<Head>,
    /// When a sample leaves; with a number (maxprob:0.9) the rule is fixed, else calibrated
    /// [default: maxprob]
    ///
    /// maxprob: the largest probability is above the threshold. entropy: the entropy in nats is below
    /// it. margin: the two largest probabilities differ by more. patience: that many heads in a row
    /// name the same class.
    #[arg(long, value_name = "RULE")]
    rule: Option<Rule>,
    /// A recipe in TOML: the same options as a file; flags override it
    #[arg(long, value_name = "FILE.toml")]
    recipe: Option<PathBuf>,
    /// Seeds splits and starting weights [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where to write the report as one HTML file [default: OUT.html when there is data]
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Threads for the runs over the data [default: all cores]
    #[arg(long, env = "EEC_THREADS", value_name = "N")]
    threads: Option<usize>,
    /// Prints one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Outcome {
    let recipe = args.recipe()?;
    let html = args.html_path()?;
    let model = Model::open(&args.model)?;
    if model.dynamic.is_some() {
        return Err(Error::content(&args.model, "is compiled with exits already; compile the .onnx it was made from"));
    }
    let data = args.data.as_deref().map(|path| Dataset::open(path, &model.plain)).transpose()?;
    let progress: &dyn Progress = if args.json { &Silent } else { &Bars::default() };
    let options = Compile { recipe, threads: args.threads, progress };
    let compiled = compile(&args.model, model.plain, data.as_ref(), &options).map_err(|e| e.about(args.subject()))?;
    compiled.save(&args.output)?;
    if let (Some(path), Some(report)) = (&html, &compiled.report) {
        write_whole(path, report.html().as_bytes()).map_err(|e| Error::io(path, e))?;
    }
    args.print(&compiled, html.filter(|_| compiled.report.is_some()))?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Where the report goes; both results can be written there.
    fn html_path(&self) -> Result<Option<PathBuf>, Error> {
        let sources = [Some(&self.model), self.data.as_ref(), self.recipe.as_ref()];
        let sources: Vec<&Path> = sources.into_iter().flatten().map(PathBuf::as_path).collect();
        output::check_writable(&self.output, &sources)?;
        if self.report.is_some() && self.data.is_none() {
            return Err(Error::request("--report needs --data: without data there is nothing to report"));
        }
        let html = self.report.clone().or_else(|| self.data.is_some().then(|| self.output.with_extension("html")));
        if let Some(html) = &html {
            output::check_writable(html, &sources)?;
            if *html == self.output {
                return Err(Error::content(
                    html,
                    "is named for both the artifact and the report; give --report a name",
                ));
            }
        }
        Ok(html)
    }

    /// What errors of the work itself are about.
    fn subject(&self) -> String {
        match &self.data {
            Some(data) => format!("{} with {}", self.model.display(), data.display()),
            None => self.model.display().to_string(),
        }
    }

    /// The recipe file, or the defaults, under the flags.
    fn recipe(&self) -> Result<Recipe, Error> {
        let mut recipe = match &self.recipe {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
                Recipe::from_toml(&text).map_err(|e| Error::content(path, e.to_string().trim_end()))?
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
        let what = match exits {
            [] if self.data.is_none() => {
                "the plain model; exits need --data, or --exits with fixed heads and rule".into()
            }
            [] => "the plain model".to_string(),
            [exit] => format!("one exit, after {exit}"),
            exits => format!("{} exits, after {}", exits.len(), exits.join(", ")),
        };
        text.push_str(&format!("wrote {} ({what})\n", self.output.display()));
        if let Some(html) = html {
            text.push_str(&format!("wrote {}\n", html.display()));
        }
        output::print(&text)
    }
}
