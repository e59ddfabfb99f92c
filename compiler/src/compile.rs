//! The road of a model from its plain graph to one with calibrated exits: find the candidates,
//! capture features and outputs in one pass over the data, fit a head at each candidate, choose
//! thresholds, insert the exits that pay.

use std::path::Path;

use eec_ir::{Graph, Symbol, Tensor, cost};
use eec_passes::exit_heads::{self, Exit, ExitHeads, Head, HeadInput, Rule as ExitRule, Signal, Tap};
use eec_passes::pass::PassError;
use eec_passes::structure::{self, ExitCandidate, Structure};
use eec_passes::truncate::truncate;
use eec_runtime::Control;

use crate::calibrate::{self, Costs, Goal, Policy, Reference, Samples, Split, ThresholdExit};
use crate::capture::{BATCH, Captured, Column, capture};
use crate::dataset::Dataset;
use crate::fit::{self, Features, FitOptions, FitStats, HeadKind, L2, Targets, argmax};
use crate::model::{Candidates, Dynamic, Model, lowered, run_options, session_of, simplified};
use crate::progress::Progress;
use crate::recipe::{self, Places, Recipe, Rule};
use crate::report::{self, Report};
use crate::{Error, onnx};

/// Numbers of agreeing heads that calibration tries when the recipe names none.
const PATIENCE: [usize; 5] = [2, 3, 4, 5, 6];

/// Parts of the fitting rows that take turns in being left out, so that thresholds are tuned on rows
/// that the head at hand did not see, and half of all rows remain to verify.
const FOLDS: usize = 4;

/// How to compile.
pub struct Compile<'a> {
    /// What to make of the model.
    pub recipe: Recipe,
    /// Threads for the runs over the data; all cores if absent.
    pub threads: Option<usize>,
    /// Told about long work.
    pub progress: &'a dyn Progress,
}

/// Compiles a simplified plain model. With data the exits are fitted and calibrated; without,
/// only exits that need neither can be made (a `final` or `file` head and a rule with a number).
///
/// # Errors
///
/// A model whose structure admits no exits where the recipe names some, options that need data,
/// data that does not fit, and whatever fails on the way, with file and node.
pub fn compile(path: &Path, plain: Graph, data: Option<&Dataset>, options: &Compile) -> Result<Model, Error> {
    let mut model = Model::new(path, plain);
    model.recipe = options.recipe.clone();
    let wants_exits = match options.recipe.exit_heads.at {
        Places::None => false,
        Places::Auto => data.is_some(),
        Places::Blocks(_) => true,
    };
    if !wants_exits {
        return Ok(model);
    }
    let structure = structure::analyse(&model.plain).map_err(pass_error)?;
    let candidates = candidates(&structure, &options.recipe.exit_heads.at)?;
    let job = Job { plain: &model.plain, structure: &structure, blocks: &candidates.blocks, options };
    match data {
        _ if candidates.blocks.is_empty() => {
            model.report = data.map(|d| report::without_candidates(path, d, &options.recipe, &candidates.reasons));
        }
        Some(data) => {
            let made = job.fit_and_calibrate(data)?;
            model.report = Some(made.report(path, data, &options.recipe));
            model.candidates = made.candidates(&candidates.blocks);
            model.dynamic = made.dynamic;
            model.policy = Some(made.policy);
        }
        None => model.dynamic = Some(job.fixed_without_data()?),
    }
    Ok(model)
}

fn pass_error(reason: impl std::fmt::Display) -> Error {
    PassError::new("exit-heads", reason).into()
}

/// Blocks where exits may stand, and why others may not.
struct Standing {
    blocks: Vec<usize>,
    reasons: Vec<String>,
}

fn candidates(structure: &Structure, at: &Places) -> Result<Standing, Error> {
    let mut found = Standing { blocks: Vec::new(), reasons: Vec::new() };
    for block in &structure.blocks {
        match &block.exit {
            ExitCandidate::Yes => found.blocks.push(block.index),
            ExitCandidate::No(reason) => found.reasons.push(format!("block {}: {reason}", block.index)),
        }
    }
    let Places::Blocks(wanted) = at else { return Ok(found) };
    let refused: Vec<String> = wanted.iter().filter(|b| !found.blocks.contains(b)).map(usize::to_string).collect();
    if refused.is_empty() {
        return Ok(Standing { blocks: wanted.clone(), ..found });
    }
    let known: Vec<String> = found.blocks.iter().map(usize::to_string).collect();
    let reasons = if found.reasons.is_empty() { String::new() } else { format!("; {}", found.reasons.join("; ")) };
    Err(pass_error(format!(
        "no exit can stand after block {} (candidates: {}{reasons})",
        refused.join(", "),
        if known.is_empty() { "none".into() } else { known.join(", ") },
    )))
}

/// One model and what is asked of it.
struct Job<'a> {
    plain: &'a Graph,
    structure: &'a Structure,
    blocks: &'a [usize],
    options: &'a Compile<'a>,
}

/// What fitting and calibration give.
pub(crate) struct Made {
    dynamic: Option<Dynamic>,
    policy: Policy,
    outcome: calibrate::Outcome,
    stats: Vec<FitStats>,
    exits: Vec<String>,
    /// Empty for heads that are not fitted.
    heads: Vec<fit::Head>,
    costs: Costs,
    reference: Reference,
    split: Split,
}

/// The heads of all candidates.
struct Heads {
    /// What the model gets.
    all: Vec<Head>,
    /// Heads that saw all fitting rows but these, for an honest look at these: thresholds are tuned
    /// on them. Empty for heads that are not fitted.
    folds: Vec<(Vec<usize>, Vec<Head>)>,
    /// As they were fitted; empty for heads that are not.
    fitted: Vec<fit::Head>,
    stats: Vec<FitStats>,
}

impl Made {
    fn candidates(&self, blocks: &[usize]) -> Option<Candidates> {
        let (heads, costs) = (self.heads.clone(), self.costs.clone());
        (!heads.is_empty()).then(|| Candidates { blocks: blocks.to_vec(), heads, costs })
    }

    fn report(&self, path: &Path, data: &Dataset, recipe: &Recipe) -> Report {
        Report::new(report::Inputs {
            model: path,
            data,
            recipe,
            exits: &self.exits,
            costs: &self.costs,
            reference: self.reference,
            split: &self.split,
            outcome: &self.outcome,
            stats: &self.stats,
        })
    }
}

/// The class that every candidate's head names for every row, if all samples left there.
pub(crate) fn candidate_classes(
    model: &Model,
    candidates: &Candidates,
    data: &Dataset,
    threads: Option<usize>,
    progress: &dyn Progress,
) -> Result<Vec<Vec<i64>>, Error> {
    let structure = structure::analyse(&model.plain).map_err(pass_error)?;
    let options = Compile { recipe: model.recipe.clone(), threads, progress };
    let job = Job { plain: &model.plain, structure: &structure, blocks: &candidates.blocks, options: &options };
    let heads: Result<Vec<Head>, Error> = candidates.heads.iter().map(graph_head).collect();
    let captured = job.capture_taps(data, None)?;
    let (logits, features) = logits_and_features(&captured)?;
    let rows: Vec<usize> = (0..data.rows).collect();
    let judged = job.judge_heads(features, &rows, &heads?, logits.width)?;
    Ok(judged.into_iter().map(|j| j.class).collect())
}

impl Job<'_> {
    fn recipe(&self) -> &Recipe {
        &self.options.recipe
    }

    fn rule(&self) -> &Rule {
        &self.recipe().exit_heads.rule
    }

    fn names(&self, blocks: &[usize]) -> Vec<String> {
        blocks.iter().map(|b| format!("block {b}")).collect()
    }

    fn fit_and_calibrate(&self, data: &Dataset) -> Result<Made, Error> {
        let split = self.split(data.rows)?;
        let heads = self.unfitted_heads()?;
        let captured = self.capture_taps(data, heads.as_ref())?;
        let logits = captured.columns.first().ok_or_else(|| Error::request("the model has no output"))?;
        check_labels(data, logits.width)?;
        self.check_classes(logits.width)?;
        let heads = match heads {
            Some(head) => {
                Heads { all: vec![head; self.blocks.len()], folds: Vec::new(), fitted: Vec::new(), stats: Vec::new() }
            }
            None => self.fit_heads(data, &captured, &split.tune)?,
        };
        let samples = self.samples(data, &captured, &heads)?;
        let costs = self.costs(data, &heads.all)?;
        let goal = Goal { max_drop: self.recipe().max_drop.0, confidence: self.recipe().confidence };
        let outcome = match self.fixed_policy(logits.width) {
            Some(policy) => calibrate::judge(policy, &samples, &costs, &split, &goal)?,
            None => calibrate::calibrate(&samples, &costs, &split, &goal)?,
        };
        let policy = outcome.policy.clone();
        let dynamic = self.dynamic(&policy, &heads.all)?;
        let reference = samples.reference;
        Ok(Made {
            dynamic,
            policy,
            outcome,
            stats: heads.stats,
            exits: samples.exits,
            heads: heads.fitted,
            costs,
            reference,
            split,
        })
    }

    /// Half of the rows to fit heads and tune thresholds, half to verify.
    fn split(&self, rows: usize) -> Result<Split, Error> {
        let needed = 2 * FOLDS * fit::MIN_ROWS.max(calibrate::MIN_ROWS);
        if rows < needed {
            return Err(Error::request(format!(
                "fitting and calibrating needs at least {needed} rows of data, found {rows}"
            )));
        }
        let all: Vec<usize> = (0..rows).collect();
        Ok(Split::random(&all, 0.5, self.recipe().seed))
    }

    /// The head that every candidate gets if it needs no fit.
    fn unfitted_heads(&self) -> Result<Option<Head>, Error> {
        Ok(match &self.recipe().exit_heads.head {
            recipe::Head::Linear | recipe::Head::Mlp(_) => None,
            recipe::Head::Final => Some(Head::Final),
            recipe::Head::File(path) => Some(Head::Custom(Box::new(simplified(onnx::import(path)?)?))),
        })
    }

    /// One pass over the data: the model's output, and each candidate's feature or logits.
    fn capture_taps(&self, data: &Dataset, head: Option<&Head>) -> Result<Captured, Error> {
        let tap = |b: &usize| head.map_or(Tap::Feature(*b), |h| Tap::Logits(*b, h));
        let taps: Vec<Tap> = self.blocks.iter().map(tap).collect();
        let graph = exit_heads::with_taps(self.plain, self.structure, &taps).map_err(pass_error)?;
        self.run(&graph, data, "reading features")
    }

    fn run(&self, graph: &Graph, data: &Dataset, stage: &str) -> Result<Captured, Error> {
        let program = lowered(graph, &[])?;
        let mut session = session_of(program, graph, run_options(self.options.threads))?;
        capture(&mut session, data, BATCH, Control::Auto, stage, self.options.progress)
    }

    /// Fits every candidate's head on `rows`, and once more per fold without the fold's rows.
    fn fit_heads(&self, data: &Dataset, captured: &Captured, rows: &[usize]) -> Result<Heads, Error> {
        let (logits, features) = logits_and_features(captured)?;
        let targets = Targets { logits: &logits.floats, classes: logits.width, labels: data.labels.as_deref() };
        let options = FitOptions { kind: self.head_kind(), seed: self.recipe().seed, ..FitOptions::default() };
        let folds = folds(rows);
        let mut heads = Heads {
            all: Vec::new(),
            folds: folds.iter().map(|(out, _)| (out.clone(), Vec::new())).collect(),
            fitted: Vec::new(),
            stats: Vec::new(),
        };
        self.options.progress.begin("fitting heads", self.blocks.len());
        for (name, column) in self.names(self.blocks).iter().zip(features) {
            let features = Features { candidate: name, rows: data.rows, width: column.width, values: &column.floats };
            let fitted = fit::fit_head(&features, &targets, rows, &options)?;
            let same_penalty = FitOptions { l2: L2::Fixed(fitted.stats.l2), ..options };
            for ((_, heads), (_, inside)) in heads.folds.iter_mut().zip(&folds) {
                heads.push(graph_head(&fit::fit_head(&features, &targets, inside, &same_penalty)?.head)?);
            }
            heads.all.push(graph_head(&fitted.head)?);
            heads.fitted.push(fitted.head);
            heads.stats.push(fitted.stats);
            self.options.progress.advance(1);
        }
        self.options.progress.end();
        Ok(heads)
    }

    fn head_kind(&self) -> HeadKind {
        match self.recipe().exit_heads.head {
            recipe::Head::Mlp(width) => HeadKind::Mlp { width, activation: fit::Activation::Relu },
            recipe::Head::Linear | recipe::Head::Final | recipe::Head::File(_) => HeadKind::Linear,
        }
    }

    fn signal(&self) -> Signal {
        match self.rule() {
            Rule::MaxProb(_) | Rule::Patience(_) => Signal::MaxProb,
            Rule::Entropy(_) => Signal::Entropy,
            Rule::Margin(_) => Signal::Margin,
        }
    }

    /// Confidences and classes of the heads on all rows, each by a head that did not see the row.
    fn samples(&self, data: &Dataset, captured: &Captured, heads: &Heads) -> Result<Samples, Error> {
        let (logits, features) = logits_and_features(captured)?;
        let all: Vec<usize> = (0..data.rows).collect();
        let mut judged = self.judge_heads(features, &all, &heads.all, logits.width)?;
        for (rows, heads) in &heads.folds {
            let fold = self.judge_heads(features, rows, heads, logits.width)?;
            for (whole, part) in judged.iter_mut().zip(&fold) {
                whole.overwrite(rows, part);
            }
        }
        let plain: Vec<i64> = all.iter().map(|r| argmax(logits.row(*r)) as i64).collect();
        let truth = data.labels.as_ref().unwrap_or(&plain);
        let equal = |answers: &[i64]| answers.iter().zip(truth).map(|(a, t)| a == t).collect();
        Ok(Samples {
            exits: self.names(self.blocks),
            correct: judged.iter().map(|j| equal(&j.class)).collect(),
            plain_correct: equal(&plain),
            reference: if data.labels.is_some() { Reference::Labels } else { Reference::PlainModel },
            signal: match self.rule() {
                Rule::Patience(counts) => calibrate::Signal::Patience {
                    class: judged.iter().map(|j| j.class.iter().map(|c| *c as u32).collect()).collect(),
                    patience: if counts.is_empty() { PATIENCE.to_vec() } else { counts.clone() },
                },
                Rule::MaxProb(_) | Rule::Entropy(_) | Rule::Margin(_) => {
                    calibrate::Signal::Confidence(judged.into_iter().map(|j| j.confidence).collect())
                }
            },
        })
    }

    /// What `heads` say on `rows`, computed by the nodes that the dynamic model will run.
    fn judge_heads(
        &self,
        features: &[Column],
        rows: &[usize],
        heads: &[Head],
        classes: usize,
    ) -> Result<Vec<Judged>, Error> {
        let inputs: Vec<HeadInput> = self
            .blocks
            .iter()
            .zip(heads)
            .map(|(b, h)| if h.takes_feature() { HeadInput::Fitted(*b, h) } else { HeadInput::Logits(*b, classes) })
            .collect();
        let graph = exit_heads::head_graph(&inputs, self.signal()).map_err(pass_error)?;
        let arrays: Result<Vec<_>, Error> = features.iter().map(|c| Ok((c.name.clone(), c.select(rows)?))).collect();
        let data = Dataset { name: "features".into(), inputs: arrays?, labels: None, rows: rows.len() };
        let captured = self.run(&graph, &data, "judging heads")?;
        let judged = |block: &usize| {
            Ok(Judged {
                confidence: captured.column(&format!("confidence.{block}"))?.floats.clone(),
                class: captured.column(&format!("class.{block}"))?.ints.clone(),
            })
        };
        self.blocks.iter().map(judged).collect()
    }

    /// Multiply-accumulates of one sample, from the programs that run: the model up to each
    /// candidate, with and without its head.
    fn costs(&self, data: &Dataset, heads: &[Head]) -> Result<Costs, Error> {
        let macs = |dim: &eec_ir::Dim| self.per_sample(dim, data);
        let mut backbone = macs(&self.structure.stem.macs)?;
        let mut before = 0;
        let (mut segment, mut head) = (Vec::new(), Vec::new());
        let mut exits = self.blocks.iter().zip(heads).peekable();
        for block in &self.structure.blocks {
            backbone += macs(&block.part.macs)?;
            if let Some((_, h)) = exits.next_if(|(b, _)| **b == block.index) {
                segment.push(backbone - before);
                before = backbone;
                let static_model = truncate(self.plain, self.structure, block.index, h).map_err(pass_error)?;
                head.push(macs(&cost::graph_macs(&static_model))?.saturating_sub(backbone));
            }
        }
        let total = macs(&cost::graph_macs(self.plain))?;
        Ok(Costs { segment, head, tail: total.saturating_sub(before) })
    }

    /// A size for one sample, other dims as in the data.
    fn per_sample(&self, dim: &eec_ir::Dim, data: &Dataset) -> Result<u64, Error> {
        let batch = self.structure.batch.dim();
        let find = |s: &Symbol| {
            if batch.as_symbol() == Some(s) {
                return Some(1);
            }
            let places = self.plain.inputs().iter().zip(&data.inputs);
            let mut sizes = places.flat_map(|(v, (_, t))| self.plain.ty(*v).dims.iter().zip(t.dims()));
            sizes.find(|(d, _)| d.as_symbol() == Some(s)).map(|(_, n)| *n as i64)
        };
        let value = dim.eval(&find).and_then(|n| u64::try_from(n).ok());
        value.ok_or_else(|| Error::request(format!("the cost {dim} cannot be evaluated for this data")))
    }

    /// Entropy is relative to that of equally likely classes, of which there are at least two.
    fn check_classes(&self, classes: usize) -> Result<(), Error> {
        if classes >= 2 || !matches!(self.rule(), Rule::Entropy(_)) {
            return Ok(());
        }
        Err(Error::request("the rule entropy needs a model with 2 classes or more, and their number must be known"))
    }

    /// The policy that a rule with a number stands for: all candidates kept.
    fn fixed_policy(&self, classes: usize) -> Option<Policy> {
        let all = 0..self.blocks.len();
        let threshold = match self.rule() {
            Rule::MaxProb(t) | Rule::Margin(t) => (*t)?,
            // The confidence is 1 - H/ln(classes); the rule is an upper limit of H.
            Rule::Entropy(t) => 1.0 - (*t)? / (classes as f32).ln(),
            Rule::Patience(counts) => {
                let [patience] = counts[..] else { return None };
                return Some(Policy::Patience { patience, exits: all.collect() });
            }
        };
        Some(Policy::Threshold { exits: all.map(|exit| ThresholdExit { exit, threshold }).collect() })
    }

    fn fixed_without_data(&self) -> Result<Dynamic, Error> {
        let Some(head) = self.unfitted_heads()? else {
            return Err(Error::request("fitting heads needs data: give --data, or --head final or file:HEAD.onnx"));
        };
        let classes = self.plain.ty(self.structure.output).dims.last().and_then(eec_ir::Dim::as_const).unwrap_or(0);
        let classes = usize::try_from(classes).unwrap_or(0);
        self.check_classes(classes)?;
        let policy = self.fixed_policy(classes);
        let policy = policy.ok_or_else(|| {
            Error::request("choosing thresholds needs data: give --data, or a rule with a number such as maxprob:0.9")
        })?;
        let made = self.dynamic(&policy, &vec![head; self.blocks.len()])?;
        made.ok_or_else(|| Error::request("no exit to insert"))
    }

    /// The graph with the policy's exits.
    fn dynamic(&self, policy: &Policy, heads: &[Head]) -> Result<Option<Dynamic>, Error> {
        let kept = policy.kept();
        if kept.is_empty() {
            return Ok(None);
        }
        let exits = kept.iter().map(|k| Exit { block: self.blocks[*k], head: heads[*k].clone() }).collect();
        let rule = match policy {
            Policy::Threshold { exits } => {
                ExitRule::Threshold { signal: self.signal(), thresholds: exits.iter().map(|e| e.threshold).collect() }
            }
            Policy::Patience { patience, .. } => ExitRule::Patience { count: *patience },
        };
        let graph = exit_heads::apply_to(self.plain, self.structure, &ExitHeads { exits, rule }).map_err(pass_error)?;
        let blocks: Vec<usize> = kept.iter().map(|k| self.blocks[*k]).collect();
        Ok(Some(Dynamic { graph: simplified(graph)?, exits: self.names(&blocks) }))
    }
}

/// What one head says, per row.
struct Judged {
    confidence: Vec<f32>,
    class: Vec<i64>,
}

impl Judged {
    /// Takes the answers at `rows` from `part`, which has only these.
    fn overwrite(&mut self, rows: &[usize], part: &Judged) {
        for ((row, confidence), class) in rows.iter().zip(&part.confidence).zip(&part.class) {
            self.confidence[*row] = *confidence;
            self.class[*row] = *class;
        }
    }
}

/// The model's output and the candidates' features, as captured.
fn logits_and_features(captured: &Captured) -> Result<(&Column, &[Column]), Error> {
    captured.columns.split_first().ok_or_else(|| Error::request("the model has no output"))
}

/// The rows of each fold, and the rows outside it.
fn folds(rows: &[usize]) -> Vec<(Vec<usize>, Vec<usize>)> {
    let part = |k: usize| {
        let inside = |i: &usize| i % FOLDS == k;
        let (out, kept): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(inside);
        let pick = |at: Vec<usize>| at.into_iter().map(|i| rows[i]).collect();
        (pick(out), pick(kept))
    };
    (0..FOLDS).map(part).collect()
}

/// Labels must name classes that the model has.
fn check_labels(data: &Dataset, classes: usize) -> Result<(), Error> {
    let labels = data.labels.as_deref().unwrap_or_default();
    match labels.iter().position(|l| usize::try_from(*l).map_or(true, |l| l >= classes)) {
        Some(row) => Err(Error::request(format!(
            "{}: the label {} in row {row} is no class of the model, which has {classes}",
            data.name, labels[row]
        ))),
        None => Ok(()),
    }
}

/// A fitted head as the pass takes it.
fn graph_head(head: &fit::Head) -> Result<Head, Error> {
    let dense = |d: &fit::Dense| -> Result<(Tensor, Tensor), Error> {
        let weight = Tensor::new(&[d.inputs, d.outputs], d.weight.clone()).map_err(Error::request)?;
        Ok((weight, Tensor::vector(d.bias.clone())))
    };
    let (weight, bias) = dense(&head.output)?;
    Ok(match &head.hidden {
        None => Head::Linear { weight, bias },
        Some((hidden, activation)) => {
            let (hidden_weight, hidden_bias) = dense(hidden)?;
            let activation = match activation {
                fit::Activation::Relu => exit_heads::Activation::Relu,
                fit::Activation::GeluTanh => exit_heads::Activation::GeluTanh,
            };
            Head::Mlp { hidden_weight, hidden_bias, activation, weight, bias }
        }
    })
}
