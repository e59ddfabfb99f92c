//! The stage of FFN gates. Every policy is run on the data, since gates act on each other: static sets
//! grown one FFN at a time, cosine rules (FFN-SkipLLM, arXiv 2404.03865), and learned gates fitted
//! by counterfactual, from the loss of every token with and without the FFN. Where a module is to
//! stand for a skipped FFN, it is fitted first and every policy runs with it.

mod chance;
mod cosine;
mod features;
mod field;
mod learned;
mod replace;
mod static_sets;
mod thresholds;

use eec_ir::Graph;
use eec_passes::ffn_gates::{self, FfnGates, Rule};

pub(crate) use chance::Chance;
pub use replace::Replacements;

use super::places::Standing;
use super::work::{Base, Work};
use crate::Error;
use crate::calibrate::MIN_ROWS;
use crate::calibrate::gates::{Contest, Family, GateOutcome, Trial};
use crate::quality::{self, Runs, Scored, Truth};
use crate::recipe::FfnSkip;
use crate::report::{self, Mechanism, Report};

use field::{Candidate, Field};

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
    /// What stands for skipped FFNs.
    pub(super) replacements: Replacements,
    pub(super) report: Option<Report>,
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
        let granularity = self.recipe().granularity;
        let batch = self.recipe().batch();
        let runs = Runs { threads: self.work.options.threads, progress: self.work.options.progress, batch };
        let plain = quality::main_output_only(graph, structure.main_output);
        let mut session = quality::session(&plain, runs)?;
        let per_token = quality::scores_tokens(graph, structure)?;
        let truth = Truth::new(data, &mut session, 0, per_token, runs)?;
        let scored = quality::score(data, &mut session, &truth, runs, "plain model")?;
        let split = self.work.split_of(data.rows, 2 * MIN_ROWS)?;
        let ffns = structure.blocks.iter().filter(|b| b.ffn().is_some()).count();
        let replacements = Replacements::default();
        let blocks = standing.blocks;
        let mut field = Field { base: self.base, data, truth, runs, blocks, split, ffns, granularity, replacements };
        field.replacements = field.fit_replacements(self.recipe().replace, self.work.recipe().seed)?;
        self.choose(field, &scored)
    }

    fn choose(&self, field: Field, plain: &Scored) -> Result<Made, Error> {
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
        let judged = wanted.unwrap_or(contest.best);
        let random = judged.map(|i| field.random(&contest, &candidates[i])).transpose()?.flatten();
        let mut outcome = contest.outcome(judged, random);
        if wanted.is_some() {
            // A share that the user names is built, whether it pays or not.
            outcome.chosen = judged;
        }
        self.build(field, outcome, &candidates, static_order)
    }

    fn build(
        &self,
        field: Field,
        outcome: GateOutcome,
        candidates: &[Candidate],
        static_order: Vec<usize>,
    ) -> Result<Made, Error> {
        let chosen = outcome.chosen.map(|i| &candidates[i].options);
        let graph = chosen.map(|options| field.gated(options)).transpose()?;
        let decides = chosen.filter(|o| !matches!(o.rule, Rule::Static));
        let decide = decides.map_or_else(Vec::new, blocks_of);
        let report = Report::of_gates(self.work.path, field.data, self.work.recipe(), &field.split, outcome);
        Ok(Made { graph, decide, static_order, replacements: field.replacements, report: Some(report) })
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
