//! The stage of FFN gates. Every policy is run on the data, since gates act on each other: static sets
//! grown one FFN at a time, cosine rules (FFN-SkipLLM, arXiv 2404.03865), and learned gates fitted
//! by counterfactual, from the loss of every token with and without the FFN.

use eec_ir::{DType, Graph, Tensor};
use eec_passes::ffn_gates::{self, FfnGates, Gate, Granularity, LearnedGate, Rule};

use super::places::Standing;
use super::work::{Base, Work, pass_error};
use crate::Error;
use crate::calibrate::gates::{Contest, Family, GateOutcome, Trial, Tried};
use crate::calibrate::{MIN_ROWS, Split};
use crate::dataset::Dataset;
use crate::fit::{self, Features, FitOptions, Targets};
use crate::model::simplified;
use crate::quality::{self, Runs, Scored, Truth};
use crate::recipe::{FfnRule, FfnSkip};
use crate::report::{self, Mechanism, Report};

/// Tokens that gates are fitted on; more do not make a linear gate better.
const FIT_TOKENS: usize = 16_384;

/// Shares of tokens whose gate fires, for which thresholds are tried.
const SHARES: [f64; 10] = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75];

/// FFNs skipped after a saturated one, as tried for the cosine rule.
const SKIP_NEXT: [usize; 2] = [1, 2];

/// First tokens that the cosine rule exempts, as published for attention sinks, on models of text.
const WARM_UP: usize = 4;

/// The name of the pass in errors.
const PASS: &str = "ffn-gates";

/// The stage.
pub(super) struct Ffn<'a> {
    pub(super) base: &'a Base<'a>,
    pub(super) work: &'a Work<'a>,
}

/// What the stage gives.
#[derive(Default)]
pub(super) struct Made {
    /// The model with gates; absent if none pays.
    pub(super) graph: Option<Graph>,
    /// The blocks of gates that decide.
    pub(super) decide: Vec<usize>,
    /// FFNs in the order in which a static set grows.
    pub(super) static_order: Vec<usize>,
    pub(super) report: Option<Report>,
}

/// What all trials share.
struct Field<'a> {
    base: &'a Base<'a>,
    data: &'a Dataset,
    truth: Truth,
    runs: Runs<'a>,
    blocks: Vec<usize>,
    split: Split,
    /// FFNs of the whole model.
    ffns: usize,
}

/// A policy and how it did.
struct Candidate {
    options: FfnGates,
    trial: Trial,
    /// Per gate, the share of tokens that skipped.
    shares: Vec<f64>,
}

impl Ffn<'_> {
    fn recipe(&self) -> &FfnSkip {
        &self.work.recipe().ffn_skip
    }

    /// Tries, chooses and builds.
    pub(super) fn make(&self) -> Result<Made, Error> {
        let data = self.work.data_for("choosing which FFNs to skip")?;
        let Base { graph, structure, .. } = *self.base;
        let verdicts = ffn_gates::candidates(graph, structure).into_iter().map(|c| c.verdict);
        let standing = Standing::of(verdicts).at(&self.recipe().at, "FFN gate")?;
        if standing.blocks.is_empty() {
            let (asked, why) = (self.work.recipe(), &standing.reasons);
            let report = report::without_candidates(self.work.path, data, asked, Mechanism::FfnGates, why);
            return Ok(Made { report: Some(report), ..Made::default() });
        }
        let runs = Runs { threads: self.work.options.threads, progress: self.work.options.progress };
        let plain = quality::main_output_only(graph, structure.main_output);
        let mut session = quality::session(&plain, runs)?;
        let per_token = quality::scores_tokens(graph, structure)?;
        let truth = Truth::new(data, &mut session, 0, per_token, runs)?;
        let scored = quality::score(data, &mut session, &truth, runs, "plain model")?;
        let split = self.work.split_of(data.rows, 2 * MIN_ROWS)?;
        let ffns = structure.blocks.iter().filter(|b| b.ffn().is_some()).count();
        let field = Field { base: self.base, data, truth, runs, blocks: standing.blocks, split, ffns };
        self.choose(&field, &scored)
    }

    fn choose(&self, field: &Field, plain: &Scored) -> Result<Made, Error> {
        let rule = self.recipe().rule;
        let mut candidates = field.static_sets(plain)?;
        let static_order = growth(&candidates);
        if rule.tries(Family::Learned) {
            candidates.extend(field.learned(plain, self.work.recipe().seed)?);
        }
        if rule.tries(Family::Cosine) {
            candidates.extend(field.cosine()?);
        }
        let plain_trial = Trial {
            family: Family::Static,
            name: "plain".into(),
            quality: plain.quality.clone(),
            macs: plain.macs_per_row(),
            skipped: 0.0,
        };
        let goal = self.work.goal();
        let trials: Vec<Trial> = candidates.iter().map(|c| c.trial.clone()).collect();
        let contest = Contest::new(&plain_trial, &trials, &rule.families(), &field.split, &goal)?;
        let wanted = rule.share().map(|share| nearest(&trials, &rule.families(), share));
        let judged = self.judged(&contest, wanted);
        let random = judged.map(|i| field.random(&contest, &candidates[i])).transpose()?.flatten();
        let mut outcome = contest.outcome(judged, random);
        if wanted.is_some() {
            // A share that the user names is built, whether it pays or not.
            outcome.chosen = judged;
        }
        self.build(field, outcome, &candidates, static_order)
    }

    /// The policy to judge: the one with the share asked for, or the cheapest that passed. With `auto` a
    /// static set that is as good takes its place.
    fn judged(&self, contest: &Contest, wanted: Option<Option<usize>>) -> Option<usize> {
        let judged = wanted.unwrap_or(contest.best)?;
        let rival = contest.best_static(judged).filter(|_| self.recipe().rule == FfnRule::Auto);
        let as_good = |s: &usize| {
            let (a, b) = (&contest.tried[*s], &contest.tried[judged]);
            a.tune.drop <= b.tune.drop && a.verify.drop <= b.verify.drop
        };
        rival.filter(as_good).or(Some(judged))
    }

    fn build(
        &self,
        field: &Field,
        outcome: GateOutcome,
        candidates: &[Candidate],
        static_order: Vec<usize>,
    ) -> Result<Made, Error> {
        let chosen = outcome.chosen.map(|i| &candidates[i].options);
        let graph = chosen.map(|options| field.gated(options)).transpose()?;
        let decides = chosen.filter(|o| !matches!(o.rule, Rule::Static));
        let decide = decides.map_or_else(Vec::new, blocks_of);
        let report = Report::of_gates(self.work.path, field.data, self.work.recipe(), &field.split, outcome);
        Ok(Made { graph, decide, static_order, report: Some(report) })
    }
}

/// The blocks in the order in which they entered sets that grow by one block each; a set itself lists
/// them by depth.
fn growth(sets: &[Candidate]) -> Vec<usize> {
    let mut order = Vec::new();
    for set in sets {
        order.extend(blocks_of(&set.options).into_iter().find(|b| !order.contains(b)));
    }
    order
}

fn blocks_of(options: &FfnGates) -> Vec<usize> {
    options.gates.iter().map(|g| g.block).collect()
}

/// The trial of these families whose share of skipped FFNs is nearest.
fn nearest(trials: &[Trial], families: &[Family], share: f64) -> Option<usize> {
    let near = |i: &usize| (trials[*i].skipped - share).abs();
    let mine = (0..trials.len()).filter(|i| families.contains(&trials[*i].family));
    mine.min_by(|a, b| near(a).total_cmp(&near(b)))
}

impl Field<'_> {
    fn gated(&self, options: &FfnGates) -> Result<Graph, Error> {
        let Base { graph, structure, .. } = *self.base;
        simplified(ffn_gates::apply_to(graph, structure, options).map_err(pass_error(PASS))?)
    }

    /// Runs a policy on all rows.
    fn run(&self, family: Family, options: FfnGates, stage: &str) -> Result<(Candidate, Scored), Error> {
        let graph = quality::main_output_only(&self.gated(&options)?, self.base.structure.main_output);
        self.run_graph(family, options, &graph, self.data, stage)
    }

    fn run_graph(
        &self,
        family: Family,
        options: FfnGates,
        graph: &Graph,
        data: &Dataset,
        stage: &str,
    ) -> Result<(Candidate, Scored), Error> {
        let mut session = quality::session(graph, self.runs)?;
        let scored = quality::score(data, &mut session, &self.truth, self.runs, stage)?;
        let tokens = (self.tokens() * self.data.rows).max(1) as f64;
        let shares: Vec<f64> = match options.rule {
            Rule::Static => vec![1.0; options.gates.len()],
            _ => scored.gate_rows.iter().map(|n| *n as f64 / tokens).collect(),
        };
        let trial = Trial {
            family,
            name: String::new(),
            quality: scored.quality.clone(),
            macs: scored.macs_per_row(),
            skipped: shares.iter().sum::<f64>() / self.ffns.max(1) as f64,
        };
        Ok((Candidate { options, trial, shares }, scored))
    }

    /// Tokens per row, padding counted.
    fn tokens(&self) -> usize {
        quality::tokens(self.base.graph, self.base.structure, self.data).max(1)
    }

    /// Static sets of one FFN, two, …: each adds the one that hurts least on the tune rows.
    fn static_sets(&self, plain: &Scored) -> Result<Vec<Candidate>, Error> {
        let mut chosen: Vec<usize> = Vec::new();
        let mut sets = Vec::new();
        // Beyond half of the FFNs a set is of no use, and the search would cost the square of the depth.
        for _ in 0..self.blocks.len().div_ceil(2) {
            let mut best: Option<(f64, usize, Candidate)> = None;
            for block in self.blocks.iter().filter(|b| !chosen.contains(b)) {
                let blocks: Vec<usize> = chosen.iter().copied().chain([*block]).collect();
                let options =
                    FfnGates { gates: gates_at(&sorted(&blocks)), rule: Rule::Static, granularity: Granularity::Row };
                let stage = format!("static sets of {}", blocks.len());
                let (candidate, scored) = self.run(Family::Static, options, &stage)?;
                let loss = harm(plain, &scored, &self.split.tune);
                if best.as_ref().is_none_or(|(least, ..)| loss < *least) {
                    best = Some((loss, *block, candidate));
                }
            }
            let Some((_, block, mut candidate)) = best else { break };
            chosen.push(block);
            let named: Vec<String> = sorted(&chosen).iter().map(usize::to_string).collect();
            candidate.trial.name = format!("never the FFNs {}", named.join(", "));
            sets.push(candidate);
        }
        Ok(sets)
    }

    /// Learned gates at rising thresholds.
    fn learned(&self, plain: &Scored, seed: u64) -> Result<Vec<Candidate>, Error> {
        let harms = self.counterfactual(plain)?;
        let (features, rows) = self.features("ffn_in")?;
        let mut gates = Vec::new();
        let mut scores: Vec<f32> = Vec::new();
        self.runs.progress.begin("fitting gates", self.blocks.len());
        for ((block, x), harm) in self.blocks.iter().zip(&features).zip(&harms) {
            let head = self.fit_gate(*block, x, harm, &rows, seed)?;
            scores.extend(x.values.chunks(x.width).map(|row| {
                let logits = head.logits(row);
                logits[1] - logits[0]
            }));
            gates.push(head);
            self.runs.progress.advance(1);
        }
        self.runs.progress.end();
        let mut out = Vec::new();
        for (share, threshold) in quantiles(&mut scores, &SHARES) {
            let learned: Result<Vec<LearnedGate>, Error> = gates.iter().map(|h| learned_gate(h, threshold)).collect();
            let rule = Rule::Learned { gates: learned? };
            let options = FfnGates { gates: gates_at(&self.blocks), rule, granularity: Granularity::Row };
            let stage = format!("learned gates, {:.0} % of tokens", 100.0 * share);
            let (mut candidate, _) = self.run(Family::Learned, options, &stage)?;
            candidate.trial.name = format!("learned gates, {:.0} % of FFNs skipped", 100.0 * candidate.trial.skipped);
            out.push(candidate);
        }
        Ok(out)
    }

    /// Per gated block, what skipping its FFN for all tokens adds to the loss of each token (or row).
    fn counterfactual(&self, plain: &Scored) -> Result<Vec<Vec<f32>>, Error> {
        let mut harms = Vec::new();
        for block in &self.blocks {
            let options = FfnGates { gates: gates_at(&[*block]), rule: Rule::Static, granularity: Granularity::Row };
            let (_, scored) = self.run(Family::Static, options, &format!("without FFN {block}"))?;
            harms.push(scored.losses.iter().zip(&plain.losses).map(|(without, with)| without - with).collect());
        }
        Ok(harms)
    }

    /// A gate whose target is the more certain, the more skipping lowers the loss.
    fn fit_gate(&self, block: usize, x: &Tokens, harm: &[f32], rows: &[usize], seed: u64) -> Result<fit::Head, Error> {
        let per_row = x.count() / rows.len().max(1);
        let harm_of = |token: usize| {
            let row = rows[token / per_row.max(1)];
            let width = harm.len() / self.data.rows.max(1);
            harm[row * width + (token % per_row.max(1)).min(width - 1)]
        };
        let harms: Vec<f32> = (0..x.count()).map(harm_of).collect();
        let scale = harms.iter().map(|h| h.abs()).sum::<f32>() / harms.len().max(1) as f32;
        let logits: Vec<f32> = harms.iter().flat_map(|h| [0.0, (-h / scale.max(1e-9)).clamp(-8.0, 8.0)]).collect();
        let name = format!("FFN {block}");
        let features = Features { candidate: &name, rows: x.count(), width: x.width, values: &x.values };
        let targets = Targets { logits: &logits, classes: 2, labels: None };
        let options = FitOptions { temperature: 1.0, seed, ..FitOptions::default() };
        let all: Vec<usize> = (0..x.count()).collect();
        Ok(fit::fit_head(&features, &targets, &all, &options)?.head)
    }

    /// The cosine rule at rising thresholds.
    fn cosine(&self) -> Result<Vec<Candidate>, Error> {
        let (before, _) = self.features("ffn_in")?;
        let (after, _) = self.features("ffn_out")?;
        let mut out = Vec::new();
        let warm_up = if self.truth.per_token { WARM_UP } else { 0 };
        // The first FFN is cold: it makes the residual stream what the others add to.
        let inner = 1.min(self.blocks.len())..self.blocks.len();
        let mut cosines: Vec<f32> = inner.clone().flat_map(|i| before[i].cosines(&after[i])).collect();
        for skip_next in SKIP_NEXT {
            for (_, threshold) in quantiles(&mut cosines, &SHARES) {
                let rule = Rule::Cosine { threshold, skip_next, warm_up };
                let gates = gates_at(&self.blocks[inner.clone()]);
                let options = FfnGates { gates, rule, granularity: Granularity::Row };
                let (mut candidate, _) = self.run(Family::Cosine, options, "cosine rules")?;
                let skipped = 100.0 * candidate.trial.skipped;
                candidate.trial.name =
                    format!("cosine above {threshold:.4}, next {skip_next}: {skipped:.0} % of FFNs skipped");
                out.push(candidate);
            }
        }
        Ok(out)
    }

    /// The gated blocks' values on rows that were fitted on, and those rows.
    fn features(&self, tap: &str) -> Result<(Vec<Tokens>, Vec<usize>), Error> {
        let Base { graph, structure, .. } = *self.base;
        let per_row = self.tokens();
        let rows: Vec<usize> = self.split.tune.iter().copied().take((FIT_TOKENS / per_row).max(1)).collect();
        let tapped = ffn_gates::with_taps(graph, structure, &self.blocks).map_err(pass_error(PASS))?;
        let names: Vec<String> = self.blocks.iter().map(|b| format!("{tap}.{b}")).collect();
        let mut only = tapped.clone();
        let kept = tapped.output_names().iter().zip(tapped.outputs());
        only.set_outputs(
            kept.filter(|(n, _)| names.iter().any(|w| **w == ***n)).map(|(n, v)| (n.to_string(), *v)).collect(),
        );
        only.remove_dead();
        let mut session = quality::session(&only, self.runs)?;
        let data = self.data.select(&rows);
        let captured = crate::capture::capture(
            &mut session,
            &data,
            crate::capture::BATCH,
            eec_runtime::Control::Auto,
            "reading FFN inputs",
            self.runs.progress,
        )?;
        let width = |column: &crate::capture::Column| column.width / per_row;
        let tokens = |name: &String| {
            let column = captured.column(name)?;
            Ok(Tokens { width: width(column).max(1), values: column.floats.clone() })
        };
        let tokens: Result<Vec<Tokens>, Error> = names.iter().map(tokens).collect();
        Ok((tokens?, rows))
    }

    /// Chance, as often at each gate as the candidate.
    fn random(&self, contest: &Contest, candidate: &Candidate) -> Result<Option<Tried>, Error> {
        if matches!(candidate.options.rule, Rule::Static) {
            return Ok(None);
        }
        let options = FfnGates { rule: Rule::Given, ..candidate.options.clone() };
        let graph = quality::main_output_only(&self.gated(&options)?, self.base.structure.main_output);
        let blocks = blocks_of(&candidate.options);
        let data = with_random_masks(self.data, self.tokens(), &blocks, &candidate.shares)?;
        let (mut random, _) = self.run_graph(Family::Random, options, &graph, &data, "random decisions")?;
        random.trial.name = "random, same histogram".into();
        Ok(Some(contest.measure(&random.trial)))
    }
}

/// Gates without replacements.
pub(crate) fn gates_at(blocks: &[usize]) -> Vec<Gate> {
    blocks.iter().map(|b| Gate { block: *b, replacement: None }).collect()
}

/// The data with a mask per gate among its inputs, which lets that share of the tokens skip.
pub(crate) fn with_random_masks(
    data: &Dataset,
    tokens: usize,
    blocks: &[usize],
    shares: &[f64],
) -> Result<Dataset, Error> {
    let mut random = fit::random::Random::new(0x5eed);
    let mut out = data.clone();
    for (block, share) in blocks.iter().zip(shares) {
        let mask = (0..data.rows * tokens).map(|_| u8::from(random.uniform() < *share)).collect();
        let mask = Tensor::from_bytes(DType::Bool, &[data.rows, tokens], mask).map_err(Error::request)?;
        out.inputs.push((ffn_gates::mask_input(*block), mask));
    }
    Ok(out)
}

/// Vectors of tokens.
struct Tokens {
    width: usize,
    values: Vec<f32>,
}

impl Tokens {
    fn count(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// The cosine of every token with its counterpart.
    fn cosines<'a>(&'a self, other: &'a Tokens) -> impl Iterator<Item = f32> + 'a {
        self.values.chunks(self.width).zip(other.values.chunks(other.width)).map(|(a, b)| {
            let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(p, q)| p * q).sum::<f32>();
            dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt()).max(f32::MIN_POSITIVE)
        })
    }
}

fn sorted(blocks: &[usize]) -> Vec<usize> {
    let mut blocks = blocks.to_vec();
    blocks.sort_unstable();
    blocks
}

/// What a policy loses on rows, against the plain model.
fn harm(plain: &Scored, scored: &Scored, rows: &[usize]) -> f64 {
    let width = scored.losses.len() / plain_rows(plain).max(1);
    let sum = |s: &Scored| -> f64 {
        rows.iter().flat_map(|r| &s.losses[r * width..(r + 1) * width]).map(|l| f64::from(*l)).sum()
    };
    sum(scored) - sum(plain)
}

fn plain_rows(plain: &Scored) -> usize {
    match &plain.quality {
        crate::calibrate::gates::Quality::Correct(rows) => rows.len(),
        crate::calibrate::gates::Quality::Loss(rows) => rows.len(),
    }
}

/// For each share, the value that this share of `values` exceeds.
fn quantiles(values: &mut [f32], shares: &[f64]) -> Vec<(f64, f32)> {
    values.sort_by(f32::total_cmp);
    let at = |share: &f64| ((1.0 - share) * values.len() as f64) as usize;
    shares.iter().filter_map(|s| Some((*s, *values.get(at(s).min(values.len().saturating_sub(1)))?))).collect()
}

/// A two-class head as a gate: the second logit less the first.
fn learned_gate(head: &fit::Head, threshold: f32) -> Result<LearnedGate, Error> {
    let (w, b) = (&head.output.weight, &head.output.bias);
    let column: Vec<f32> = w.chunks(2).map(|pair| pair[1] - pair[0]).collect();
    let weight = Tensor::new(&[column.len(), 1], column).map_err(Error::request)?;
    Ok(LearnedGate { hidden: None, weight, bias: b[1] - b[0], threshold })
}
