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
use crate::calibrate::gates::{Contest, Family, GateOutcome, Trial};
use crate::calibrate::{MIN_ROWS, Split};
use crate::dataset::Dataset;
use crate::quality::{self, Runs, Scored, Truth};
use crate::recipe::{FfnRule, FfnSkip};
use crate::report::{self, Mechanism, Report};

use field::{Candidate, Field, Rows, part};

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
    /// The blocks whose FFNs never run.
    pub(super) removed: Vec<usize>,
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
        let mut standing = Standing::of(verdicts).at(&self.recipe().at, "FFN gate")?;
        let too_few = self.too_few(standing.blocks.len());
        let stands = !standing.blocks.is_empty() && too_few.is_none();
        standing.reasons.extend(too_few);
        if !stands {
            let (asked, why) = (self.work.recipe(), &standing.reasons);
            let report = report::without_candidates(self.work.path, data, asked, Mechanism::FfnGates, why);
            return Ok(Made { report: Some(report), ..Made::default() });
        }
        let split = self.work.split_of(data.rows, 2 * MIN_ROWS)?;
        let (mut field, plain) = self.field(data, &split, standing.blocks)?;
        field.replacements = field.fit_replacements(self.recipe().replace, self.work.recipe().seed)?;
        let (made, outcome) = self.choose(field, plain)?;
        let report = Report::of_gates(self.work.path, data, self.work.recipe(), &split, outcome);
        Ok(Made { report: Some(report), ..made })
    }

    /// Why the rule can skip none of as many FFNs; `None` if it can.
    fn too_few(&self, ffns: usize) -> Option<String> {
        let few = matches!(self.recipe().rule, FfnRule::Cosine(_)) && ffns < cosine::LEAST;
        few.then(|| {
            format!(
                "the cosine rule needs at least {} FFNs to skip any, found {ffns}: it leaves the first alone, and only \
                 an FFN that ran says whether those after it are skipped",
                cosine::LEAST
            )
        })
    }

    /// What all trials share, and the plain model on both parts of the rows.
    fn field(&self, data: &Dataset, split: &Split, blocks: Vec<usize>) -> Result<(Field<'_>, [Scored; 2]), Error> {
        let Base { graph, structure, .. } = *self.base;
        let options = self.work.options;
        let runs = Runs { threads: options.threads, progress: options.progress, batch: self.recipe().batch() };
        let mut session = quality::session(&quality::main_output_only(graph, structure.main_output), runs)?;
        let per_token = quality::scores_tokens(graph, structure)?;
        let mut run = |rows: &[usize]| -> Result<_, Error> {
            let data = data.select(rows);
            let truth = Truth::new(&data, &mut session, 0, per_token, runs)?;
            let scored = quality::score(&data, &mut session, &truth, runs, "plain model")?;
            Ok((Rows { data, truth }, scored))
        };
        let ((tune, of_tune), (verify, of_verify)) = (run(&split.tune)?, run(&split.verify)?);
        let ffns = structure.blocks.iter().filter(|b| b.ffn().is_some()).count();
        let FfnSkip { granularity, rule, .. } = *self.recipe();
        let (share, replacements) = (rule.share(), Replacements::default());
        Ok((
            Field { base: self.base, runs, blocks, tune, verify, ffns, share, granularity, replacements },
            [of_tune, of_verify],
        ))
    }

    fn choose(&self, field: Field, [tune, verify]: [Scored; 2]) -> Result<(Made, GateOutcome), Error> {
        let rule = self.recipe().rule;
        let candidates = self.candidates(&field, &tune)?;
        let (tune, verify) = (part(tune, 0.0), part(verify, 0.0));
        let plain = Trial { family: Family::Static, name: "plain".into(), tune, verify };
        let goal = self.work.goal();
        let trials: Vec<Trial> = candidates.iter().map(|c| c.trial.clone()).collect();
        let tried: Vec<usize> = (0..trials.len()).filter(|i| rule.tries(trials[*i].family)).collect();
        // A share that the user names leaves one policy, which is built whether it pays or not.
        let wanted = rule.share().map(|share| nearest(&trials, &tried, share));
        let may = wanted.map_or(tried, |i| i.into_iter().collect());
        let contest = Contest::new(&plain, &trials, &may, &goal)?;
        let judged = wanted.unwrap_or(contest.best);
        let random = judged.map(|i| field.random(&contest, &candidates[i])).transpose()?.flatten();
        let mut outcome = contest.outcome(judged, random);
        if wanted.is_some() {
            outcome.chosen = judged;
            outcome.missed = rule.share().zip(judged).and_then(|(s, i)| missed(s, trials[i].skipped(), field.ffns));
        }
        let chosen = outcome.chosen.map(|i| &candidates[i].options);
        let graph = chosen.map(|options| field.gated(options)).transpose()?;
        let (removed, decide) = match chosen {
            None => (Vec::new(), Vec::new()),
            Some(set) if matches!(set.rule, Rule::Static) => (blocks_of(set), Vec::new()),
            Some(gates) => (Vec::new(), blocks_of(gates)),
        };
        let (static_order, replacements) = (growth(&candidates), field.replacements);
        Ok((Made { graph, removed, decide, static_order, replacements, report: None }, outcome))
    }

    /// The policies that are tried, and static sets to compare them with; `plain` on the tune rows.
    fn candidates(&self, field: &Field, plain: &Scored) -> Result<Vec<Candidate>, Error> {
        let rule = self.recipe().rule;
        let mut candidates = field.static_sets()?;
        if rule.tries(Family::Learned) {
            candidates.extend(field.learned(plain, self.work.recipe().seed)?);
        }
        if rule.tries(Family::Cosine) {
            candidates.extend(field.cosine()?);
        }
        Ok(candidates)
    }
}

/// The blocks in the order in which they entered the static sets, which grow by one block each; a set
/// itself lists them by depth.
fn growth(candidates: &[Candidate]) -> Vec<usize> {
    let mut order = Vec::new();
    for set in candidates.iter().filter(|c| c.trial.family == Family::Static) {
        order.extend(blocks_of(&set.options).into_iter().find(|b| !order.contains(b)));
    }
    order
}

fn blocks_of(options: &FfnGates) -> Vec<usize> {
    options.gates.iter().map(|g| g.block).collect()
}

/// Of the trials at these positions, the one whose share of skipped FFNs is nearest on the tune rows.
fn nearest(trials: &[Trial], among: &[usize], share: f64) -> Option<usize> {
    let near = |i: &usize| (trials[*i].tune.skipped - share).abs();
    among.iter().copied().min_by(|a, b| near(a).total_cmp(&near(b)))
}

/// The share asked for, if another was reached by more than one FFN.
fn missed(asked: f64, reached: f64, ffns: usize) -> Option<f64> {
    Some(asked).filter(|_| (asked - reached).abs() * ffns as f64 > 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_missed_by_more_than_one_ffn() {
        assert_eq!(missed(0.8, 0.75, 8), None);
        assert_eq!(missed(0.8, 0.5, 8), Some(0.8));
        assert_eq!(missed(0.1, 0.25, 8), Some(0.1));
    }
}
