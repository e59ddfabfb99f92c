//! The stage of early exits: capture features and outputs in one pass over the data, fit a head at
//! each candidate, choose thresholds, keep the exits that pay.

use eec_ir::Dim;
use eec_passes::exit_heads::{Exit, ExitHeads, Head, Rule as ExitRule, Signal, Tap};
use eec_passes::insert::{self, Decisions};
use eec_passes::registry::Registry;
use eec_passes::structure;

use super::Compile;
use super::costs;
use super::heads::{Heads, Taps, graph_head, judge};
use super::places::Standing;
use super::work::{Base, Work, names, pass_error, run};
use crate::calibrate::{self, Costs, Policy, Reference, Samples, ThresholdExit};
use crate::capture::{Captured, Column};
use crate::dataset::Dataset;
use crate::fit::{self, FitOptions, HeadKind, Targets, argmax};
use crate::model::{Candidates, Model, simplified};
use crate::progress::Progress;
use crate::recipe::{self, Rule};
use crate::report::{self, Mechanism, Report};
use crate::{Error, onnx};

/// Numbers of agreeing heads that calibration tries when the recipe names none.
const PATIENCE: [usize; 5] = [2, 3, 4, 5, 6];

/// The stage.
pub(super) struct Exits<'a> {
    base: &'a Base<'a>,
    work: &'a Work<'a>,
    standing: Standing,
}

/// What the stage gives.
#[derive(Default)]
pub(super) struct Made {
    /// Absent if no exit pays.
    pub(super) exits: Option<ExitHeads>,
    pub(super) policy: Option<Policy>,
    pub(super) candidates: Option<Candidates>,
    pub(super) report: Option<Report>,
}

/// The class that every candidate's head names for every row, if all samples left there.
pub(crate) fn candidate_classes(
    model: &Model,
    candidates: &Candidates,
    data: &Dataset,
    threads: Option<usize>,
    progress: &dyn Progress,
) -> Result<Vec<Vec<i64>>, Error> {
    let structure = structure::analyse(&model.plain).map_err(pass_error("exit-heads"))?;
    let registry = &Registry::builtin();
    let options = Compile { recipe: model.recipe.clone(), registry, threads, progress };
    let heads: Result<Vec<Head>, Error> = candidates.heads.iter().map(graph_head).collect();
    let base = Base { graph: &model.plain, structure: &structure, tokens: None, gated: false };
    let captured = run(&options, &feature_graph(&base, &candidates.blocks, None)?, data, "reading features")?;
    let (logits, columns) = logits_and_features(&captured, base.graph, &candidates.blocks)?;
    let rows: Vec<usize> = (0..data.rows).collect();
    let taps = Taps { blocks: &candidates.blocks, columns };
    let judged = judge(&options, taps, &rows, &heads?, logits.width, Signal::MaxProb)?;
    Ok(judged.into_iter().map(|j| j.class).collect())
}

/// The model with each candidate's feature, or the logits of `head` there, as further outputs.
pub(super) fn feature_graph(base: &Base, blocks: &[usize], head: Option<&Head>) -> Result<eec_ir::Graph, Error> {
    let tap = |b: &usize| head.map_or(Tap::Feature(*b), |h| Tap::Logits(*b, h));
    let taps: Vec<Tap> = blocks.iter().map(tap).collect();
    let decisions = Decisions { exits: None, tokens: base.tokens, taps: &taps };
    insert::apply(base.graph, base.structure, decisions).map_err(pass_error("exit-heads"))
}

impl<'a> Exits<'a> {
    /// The stage on a model; an error if exits cannot stand where the recipe wants them.
    pub(super) fn new(base: &'a Base<'a>, work: &'a Work<'a>) -> Result<Self, Error> {
        let standing = Standing::of_exits(base.structure).at(&work.recipe().exit_heads.at, "exit")?;
        Ok(Exits { base, work, standing })
    }

    /// Fits and calibrates with data; takes what the recipe fixes without.
    pub(super) fn make(&self) -> Result<Made, Error> {
        match self.work.data {
            _ if self.standing.blocks.is_empty() => Ok(Made { report: self.without_candidates(), ..Made::default() }),
            Some(data) => self.fit_and_calibrate(data),
            None => Ok(Made { exits: Some(self.fixed_without_data()?), ..Made::default() }),
        }
    }

    fn without_candidates(&self) -> Option<Report> {
        let data = self.work.data?;
        let asked = self.work.recipe();
        Some(report::without_candidates(self.work.path, data, asked, Mechanism::ExitHeads, &self.standing.reasons))
    }

    fn blocks(&self) -> &[usize] {
        &self.standing.blocks
    }

    fn rule(&self) -> &Rule {
        &self.work.recipe().exit_heads.rule
    }

    fn fit_and_calibrate(&self, data: &Dataset) -> Result<Made, Error> {
        let split = self.work.split(data.rows)?;
        let head = self.unfitted_head()?;
        let graph = feature_graph(self.base, self.blocks(), head.as_ref())?;
        let captured = self.work.run(&graph, data, "reading features")?;
        let (logits, columns) = logits_and_features(&captured, self.base.graph, self.blocks())?;
        check_labels(data, logits.width)?;
        let taps = Taps { blocks: self.blocks(), columns };
        let heads = match head {
            Some(head) => Heads::unfitted(head, self.blocks().len()),
            None => {
                let targets = Targets { logits: &logits.floats, classes: logits.width, labels: data.labels.as_deref() };
                let targets = vec![targets; self.blocks().len()];
                let seed = self.work.recipe().seed;
                let options = FitOptions { kind: self.head_kind(), seed, ..FitOptions::default() };
                Heads::fit(self.work, taps, &targets, &split.tune, options)?
            }
        };
        let samples = self.samples(data, logits, taps, &heads)?;
        let costs = self.costs(data, &heads.all)?;
        let goal = self.work.goal();
        let outcome = match self.fixed_policy(logits.width)? {
            Some(policy) => calibrate::judge(policy, &samples, &costs, &split, &goal)?,
            None => calibrate::calibrate(&samples, &costs, &split, &goal)?,
        };
        let report = Report::new(report::Inputs {
            model: self.work.path,
            data,
            recipe: self.work.recipe(),
            mechanism: Mechanism::ExitHeads,
            is_changed: self.base.is_changed(),
            exits: &samples.exits,
            costs: &costs,
            reference: samples.reference,
            split: &split,
            outcome: &outcome,
            stats: &heads.stats,
        });
        let policy = outcome.policy.clone();
        Ok(Made {
            exits: self.exits(&policy, &heads.all),
            candidates: self.candidates(heads.fitted, costs),
            policy: Some(policy),
            report: Some(report),
        })
    }

    /// What fixed depths are judged with; only for heads on the plain model.
    fn candidates(&self, heads: Vec<fit::Head>, costs: Costs) -> Option<Candidates> {
        let known = !heads.is_empty() && !self.base.is_changed();
        known.then(|| Candidates { blocks: self.blocks().to_vec(), heads, costs })
    }

    /// The head that every candidate gets if it needs no fit.
    fn unfitted_head(&self) -> Result<Option<Head>, Error> {
        Ok(match &self.work.recipe().exit_heads.head {
            recipe::Head::Linear | recipe::Head::Mlp(_) => None,
            recipe::Head::Final => Some(Head::Final),
            recipe::Head::File(path) => Some(Head::Custom(Box::new(simplified(onnx::import(path)?)?))),
        })
    }

    fn head_kind(&self) -> HeadKind {
        match self.work.recipe().exit_heads.head {
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
    fn samples(&self, data: &Dataset, logits: &Column, taps: Taps<'_>, heads: &Heads) -> Result<Samples, Error> {
        let judged = heads.judge(self.work, taps, data.rows, logits.width, self.signal())?;
        let plain: Vec<i64> = (0..data.rows).map(|r| argmax(logits.row(r)) as i64).collect();
        let truth = data.labels.as_ref().unwrap_or(&plain);
        let equal = |answers: &[i64]| answers.iter().zip(truth).map(|(a, t)| a == t).collect();
        Ok(Samples {
            exits: names(self.blocks().iter().copied()),
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

    /// Costs from the graphs where no token leaves and nothing is decided before an exit; else measured, as
    /// means over the data.
    fn costs(&self, data: &Dataset, heads: &[Head]) -> Result<Costs, Error> {
        if !self.base.needs_runs_for_costs() {
            return costs::of_exits(self.base, self.blocks(), heads, data);
        }
        let mut reached = Vec::with_capacity(heads.len());
        for (block, head) in self.blocks().iter().zip(heads) {
            let exits = vec![Exit { block: *block, head: head.clone() }];
            let rule = ExitRule::Threshold { signal: Signal::MaxProb, thresholds: vec![-1.0] };
            let head_macs = self.head_macs(*block, head, data)?;
            let executed = self.executed(Some(&ExitHeads { exits, rule }), data)?;
            reached.push((executed.saturating_sub(head_macs), head_macs));
        }
        let mut before = 0;
        let mut segments = Vec::with_capacity(reached.len());
        for (backbone, _) in &reached {
            segments.push(backbone.saturating_sub(before));
            before = before.max(*backbone);
        }
        let whole = self.executed(None, data)?;
        let head = reached.into_iter().map(|(_, head)| head).collect();
        Ok(Costs::of_parts(segments, head, whole.saturating_sub(before)))
    }

    /// Mean multiply-accumulates of a sample in a run of the model so far with these exits.
    fn executed(&self, exits: Option<&ExitHeads>, data: &Dataset) -> Result<u64, Error> {
        let run = match self.base.dynamic(exits, &[])? {
            Some(dynamic) => self.work.run_dynamic(&dynamic, data, "measuring work")?,
            None => self.work.run(self.base.graph, data, "measuring work")?,
        };
        Ok(run.macs / data.rows.max(1) as u64)
    }

    fn head_macs(&self, block: usize, head: &Head, data: &Dataset) -> Result<u64, Error> {
        let plain = Base { tokens: None, ..*self.base };
        let alone = costs::of_exits(&plain, &[block], std::slice::from_ref(head), data)?;
        Ok(alone.head.first().copied().unwrap_or(0))
    }

    /// The policy that a rule with a number stands for: all candidates kept.
    fn fixed_policy(&self, classes: usize) -> Result<Option<Policy>, Error> {
        let all = 0..self.blocks().len();
        let threshold = match self.rule() {
            Rule::MaxProb(t) | Rule::Margin(t) => *t,
            Rule::Entropy(Some(_)) if classes < 2 => {
                return Err(Error::request("an entropy needs at least 2 classes, which the model does not have"));
            }
            // The confidence is 1 - H/ln(classes); the rule is an upper limit of H.
            Rule::Entropy(t) => t.map(|t| 1.0 - t / (classes as f32).ln()),
            Rule::Patience(counts) => {
                let [patience] = counts[..] else { return Ok(None) };
                return Ok(Some(Policy::Patience { patience, exits: all.collect() }));
            }
        };
        let exits = |threshold| all.map(|exit| ThresholdExit { exit, threshold }).collect();
        Ok(threshold.map(|threshold| Policy::Threshold { exits: exits(threshold) }))
    }

    fn fixed_without_data(&self) -> Result<ExitHeads, Error> {
        let Some(head) = self.unfitted_head()? else {
            return Err(Error::usage("fitting heads needs data: give --data, or --head final or file:HEAD.onnx"));
        };
        let ty = self.base.graph.ty(self.base.structure.output);
        let classes = ty.dims.last().and_then(Dim::as_const).and_then(|c| usize::try_from(c).ok());
        let classes = classes.ok_or_else(|| Error::request(format!("the number of classes is not known in {ty}")))?;
        let policy = self.fixed_policy(classes)?.ok_or_else(|| {
            Error::usage("choosing thresholds needs data: give --data, or a rule with a number such as maxprob:0.9")
        })?;
        let made = self.exits(&policy, &vec![head; self.blocks().len()]);
        made.ok_or_else(|| Error::request("no exit to insert"))
    }

    /// The policy's exits; `None` if it has none.
    fn exits(&self, policy: &Policy, heads: &[Head]) -> Option<ExitHeads> {
        let kept = policy.kept();
        let exit = |k: &usize| Exit { block: self.blocks()[*k], head: heads[*k].clone() };
        let rule = match policy {
            Policy::Threshold { exits } => {
                let thresholds = exits.iter().map(|e| e.threshold).collect();
                ExitRule::Threshold { signal: self.signal(), thresholds }
            }
            Policy::Patience { patience, .. } => ExitRule::Patience { count: *patience },
        };
        (!kept.is_empty()).then(|| ExitHeads { exits: kept.iter().map(exit).collect(), rule })
    }
}

/// The model's output and the candidates' features, as captured.
fn logits_and_features<'c>(
    captured: &'c Captured,
    model: &eec_ir::Graph,
    blocks: &[usize],
) -> Result<(&'c Column, &'c [Column]), Error> {
    let logits = captured.columns.first().ok_or_else(|| Error::request("the model has no output"))?;
    let from = model.outputs().len();
    let taps = captured.columns.get(from..from + blocks.len());
    Ok((logits, taps.ok_or_else(|| Error::request("a candidate has no feature"))?))
}

/// Labels must name classes that the model has.
pub(super) fn check_labels(data: &Dataset, classes: usize) -> Result<(), Error> {
    let labels = data.labels.as_deref().unwrap_or_default();
    match labels.iter().position(|l| usize::try_from(*l).map_or(true, |l| l >= classes)) {
        Some(row) => Err(Error::request(format!(
            "{}: the label {} in row {row} is no class of the model, which has {classes}",
            data.name, labels[row]
        ))),
        None => Ok(()),
    }
}
