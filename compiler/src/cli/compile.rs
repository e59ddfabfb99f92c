//! `eec compile`: a model in, an artifact out.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use eec_ir::Precision;
use eec_passes::ffn_gates::Granularity;
use eec_passes::registry::Registry;
use eec_runtime::replace_file;
use serde_json::json;

use super::import::ImportArgs;
use super::output::{self, Bars};
use super::{JSON_SCHEMA, Outcome};
use crate::compile::{Compile, compile};
use crate::dataset::Dataset;
use crate::model::{Form, Model};
use crate::progress::{Progress, Silent};
use crate::recipe::{self, FfnRule, Head, MaxDrop, Places, Recipe, Replace, Rule, TokenRule, VisualTokens};
use crate::{Error, report, wgsl};

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
    /// When FFN sub-blocks are skipped, per token [default: none]
    ///
    /// static: the same FFNs for all tokens, the set that calibration finds best. learned: by a gate per
    /// FFN, fitted to the loss with and without it. cosine: after an FFN that changed the token little
    /// (FFN-SkipLLM). auto: whichever of them is best. With a share (learned:25%) that share of all FFNs
    /// is skipped, whatever it costs. Attention always runs, so keys and values stay complete.
    #[arg(long, value_name = "RULE")]
    ffn_skip: Option<FfnRule>,
    /// In which blocks FFNs may be skipped: auto, or a list such as 2,4 [default: auto]
    #[arg(long, value_name = "BLOCKS")]
    ffn_skip_at: Option<Places>,
    /// What runs in the place of a skipped FFN [default: none]
    ///
    /// none: nothing. low-rank:R: a linear map of rank R. mlp:R: an MLP with R hidden units. Both are
    /// fitted on half of the data to what the FFN adds, with the model's own weights frozen; their work
    /// counts.
    #[arg(long, value_name = "MODULE")]
    ffn_replace: Option<Replace>,
    /// Who decides about an FFN together: row or all [default: row]
    ///
    /// row: every token for itself; those that need the FFN are gathered. all: it is skipped only if all
    /// tokens of the batch agree, which costs no gathering and suits decoding one token at a time. all is
    /// fitted and judged one sample at a time; larger batches skip more rarely.
    #[arg(long, value_name = "WHO", value_parser = recipe::granularity)]
    ffn_granularity: Option<Granularity>,
    /// When the visual tokens of a vision-language model leave its sequence [default: none]
    ///
    /// learned: after the first block whose gate says that the model does not need them for this input
    /// (fitted by running the model without them). entropy: where a fitted answer head is sure. fixed,
    /// fixed:BLOCK: after one block for all inputs. auto: learned, or fixed where deciding does not pay.
    #[arg(long, value_name = "RULE")]
    token_exit: Option<TokenRule>,
    /// Which tokens of the blocks' sequence are visual: auto, START:LEN, or input:NAME of a mask among
    /// the inputs [default: auto]
    ///
    /// auto finds tokens that come from a float input and are concatenated with embedded text.
    #[arg(long, value_name = "TOKENS")]
    visual_tokens: Option<VisualTokens>,
    /// After which blocks visual tokens may leave: auto, or a list such as 2,4 [default: auto]
    #[arg(long, value_name = "BLOCKS")]
    token_exits_at: Option<Places>,
    /// How the weights of matrix products are stored: f32, f16, bf16 or int8 [default: f32]
    ///
    /// f16: half the size, in the artifact and on a GPU; only weights are rounded. A CPU widens them when it loads
    /// them, so that it saves neither memory nor time. bf16: half the size; the other operand of these products is rounded to bfloat16 too, sums stay
    /// float32. int8: a quarter of the size, one scale per output and 32 inputs; only weights are rounded.
    /// Exits and gates are fitted and calibrated on the model with these weights; with data, the report
    /// compares it with the float32 model. Heads, gates, convolutions, attention and embeddings stay float32.
    #[arg(long, value_name = "TYPE")]
    precision: Option<Precision>,
    /// Passes to run last, on what the other options make; `eec opt --list-passes` shows them
    ///
    /// As in `eec opt`. Nothing is fitted or calibrated for them; judge the result with `eec eval`.
    #[arg(long, value_name = "LIST")]
    passes: Option<String>,
    /// A recipe in TOML: the same options as a file; flags override it
    #[arg(long, value_name = "FILE.toml")]
    recipe: Option<PathBuf>,
    /// Seeds splits and starting weights [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where to write the report as one HTML file [default: OUT.html when there is data]
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Writes the GPU form into this folder: dispatches.txt and a .wgsl file per shader; that of the plain model
    /// into its folder `plain`, if there is another
    #[arg(long, value_name = "DIR")]
    dump_wgsl: Option<PathBuf>,
    #[command(flatten)]
    import: ImportArgs,
    /// Threads that compute [default: all cores]
    #[arg(long, env = "EEC_THREADS", value_name = "N", value_parser = super::threads)]
    threads: Option<usize>,
    /// Prints one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Outcome {
    let recipe = args.recipe()?;
    let html = args.html_path()?;
    let model = args.import.open(&args.model)?;
    if model.dynamic.is_some() {
        return Err(Error::content(&args.model, "is compiled with exits already; compile the .onnx it was made from"));
    }
    if model.recipe.precision != Precision::F32 {
        let why = format!("has {} weights already; compile the .onnx it was made from", model.recipe.precision);
        return Err(Error::content(&args.model, why));
    }
    let data = args.data.as_deref().map(|path| Dataset::open(path, &model.plain)).transpose()?;
    let progress: &dyn Progress = if args.json { &Silent } else { &Bars::default() };
    let options = Compile { recipe, registry, threads: args.threads, progress };
    let compiled = compile(&args.model, model.plain, data.as_ref(), &options).map_err(|e| e.about(args.subject()))?;
    if let Some(folder) = &args.dump_wgsl {
        dump_wgsl(&compiled, folder)?;
    }
    compiled.save(&args.output)?;
    let html = html.filter(|_| !compiled.reports.is_empty() || compiled.narrowing.is_some());
    if let Some(path) = &html {
        let page = report::page(compiled.narrowing.as_ref(), &compiled.reports, compiled.summary.as_ref());
        replace_file(path, |out| out.write_all(page.as_bytes())).map_err(|e| Error::io(path, e))?;
    }
    args.print(&compiled, html)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the shaders of a model and how they are dispatched.
fn dump_wgsl(model: &Model, folder: &Path) -> Result<(), Error> {
    wgsl::dump(&model.gpu_program(Form::Dynamic)?, folder)?;
    match model.dynamic {
        Some(_) => wgsl::dump(&model.gpu_program(Form::Plain)?, &folder.join("plain")),
        None => Ok(()),
    }
}

impl Args {
    /// Where the report goes; both results can be written there.
    fn html_path(&self) -> Result<Option<PathBuf>, Error> {
        let sources = [Some(&self.model), self.data.as_ref(), self.recipe.as_ref()];
        let sources: Vec<&Path> = sources.into_iter().flatten().map(PathBuf::as_path).collect();
        output::check_writable(&self.output, &sources)?;
        if self.report.is_some() && self.data.is_none() {
            return Err(Error::usage("--report needs --data: without data there is nothing to report"));
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
        recipe.precision = self.precision.unwrap_or(recipe.precision);
        recipe.passes = self.passes.clone().unwrap_or(recipe.passes);
        let heads = &mut recipe.exit_heads;
        heads.at = self.exits.clone().unwrap_or_else(|| heads.at.clone());
        heads.head = self.head.clone().unwrap_or_else(|| heads.head.clone());
        heads.rule = self.rule.clone().unwrap_or_else(|| heads.rule.clone());
        let ffns = &mut recipe.ffn_skip;
        ffns.rule = self.ffn_skip.unwrap_or(ffns.rule);
        ffns.at = self.ffn_skip_at.clone().unwrap_or_else(|| ffns.at.clone());
        ffns.replace = self.ffn_replace.unwrap_or(ffns.replace);
        ffns.granularity = self.ffn_granularity.unwrap_or(ffns.granularity);
        let tokens = &mut recipe.token_exit;
        tokens.rule = self.token_exit.unwrap_or(tokens.rule);
        tokens.tokens = self.visual_tokens.clone().unwrap_or_else(|| tokens.tokens.clone());
        tokens.at = self.token_exits_at.clone().unwrap_or_else(|| tokens.at.clone());
        recipe.check().map_err(Error::usage)?;
        Ok(recipe)
    }

    /// What was written, in a few words.
    fn what(&self, model: &Model) -> String {
        let changes = model.changes();
        if changes.is_empty() {
            let hint =
                if self.data.is_none() { "; decisions need --data, or fixed heads, rules and places" } else { "" };
            return format!("the plain model{hint}");
        }
        changes.join("; ")
    }

    fn print(&self, model: &Model, html: Option<PathBuf>) -> Result<(), Error> {
        let exits = model.dynamic.as_ref().map_or(&[][..], |d| &d.exits);
        if self.json {
            return output::print_json(&json!({
                "schema": JSON_SCHEMA,
                "output": self.output,
                "exits": exits,
                "gates": model.dynamic.as_ref().map_or(&[][..], |d| &d.gates),
                "edits": output::edits(model),
                "reports": model.reports,
                "summary": model.summary,
                "narrowing": model.narrowing,
                "html": html,
            }));
        }
        let mut text = String::new();
        if let Some(narrowing) = &model.narrowing {
            text.push_str(&format!("{}\n", narrowing.text()));
        }
        for report in &model.reports {
            text.push_str(&report.text());
            text.push('\n');
        }
        if let Some(summary) = &model.summary {
            text.push_str(&format!("{}\n", summary.text()));
        }
        let what = self.what(model);
        text.push_str(&format!("wrote {} ({what})\n", self.output.display()));
        if let Some(html) = html {
            text.push_str(&format!("wrote {}\n", html.display()));
        }
        output::print(&text)
    }
}
