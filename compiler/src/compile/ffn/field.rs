//! What all policies share, and how one is run on the data.

use eec_ir::Graph;
use eec_passes::ffn_gates::{self, FfnGates, Granularity, Rule};
use eec_runtime::Session;

use super::super::work::{Base, pass_error};
use super::{Chance, PASS, Replacements, blocks_of};
use crate::Error;
use crate::calibrate::gates::{Contest, Family, Part, Trial, Tried};
use crate::dataset::Dataset;
use crate::model::simplified;
use crate::quality::{self, Runs, Scored, Truth};

/// What all trials share.
pub(super) struct Field<'a> {
    pub(super) base: &'a Base<'a>,
    pub(super) runs: Runs<'a>,
    /// Blocks whose FFNs may be skipped.
    pub(super) blocks: Vec<usize>,
    /// The rows that policies are fitted to and put in order on.
    pub(super) tune: Rows,
    /// The rows that they are tested on.
    pub(super) verify: Rows,
    /// FFNs of the whole model.
    pub(super) ffns: usize,
    /// The share of all FFNs that the user asks to skip.
    pub(super) share: Option<f64>,
    pub(super) granularity: Granularity,
    /// What stands for skipped FFNs.
    pub(super) replacements: Replacements,
}

/// One part of the data, and what is right on it.
pub(super) struct Rows {
    pub(super) data: Dataset,
    pub(super) truth: Truth,
}

/// A policy and how it did.
pub(super) struct Candidate {
    pub(super) options: FfnGates,
    pub(super) trial: Trial,
    /// Per part and gate, the share of decisions that were to skip.
    shares: [Vec<f64>; 2],
}

impl Field<'_> {
    /// The pass's options for gates at `blocks`.
    pub(super) fn options(&self, blocks: &[usize], rule: Rule) -> Result<FfnGates, Error> {
        Ok(FfnGates { gates: self.replacements.gates_at(blocks)?, rule, granularity: self.granularity })
    }

    pub(super) fn gated(&self, options: &FfnGates) -> Result<Graph, Error> {
        let Base { graph, structure, .. } = *self.base;
        simplified(ffn_gates::apply_to(graph, structure, options).map_err(pass_error(PASS))?)
    }

    /// Runs a policy on the tune rows.
    pub(super) fn tuned(&self, options: &FfnGates, stage: &str) -> Result<Scored, Error> {
        let Rows { data, truth } = &self.tune;
        quality::score(data, &mut self.session(options)?, truth, self.runs, stage)
    }

    /// Runs a policy on all rows.
    pub(super) fn run(&self, family: Family, options: FfnGates, stage: &str) -> Result<Candidate, Error> {
        self.run_on([&self.tune.data, &self.verify.data], family, options, stage)
    }

    fn run_on(
        &self,
        [tune, verify]: [&Dataset; 2],
        family: Family,
        options: FfnGates,
        stage: &str,
    ) -> Result<Candidate, Error> {
        let mut session = self.session(&options)?;
        let mut run = |data, truth| -> Result<_, Error> {
            let scored = quality::score(data, &mut session, truth, self.runs, stage)?;
            let shares = self.shares(&options, &scored);
            Ok((part(scored, shares.iter().sum::<f64>() / self.ffns.max(1) as f64), shares))
        };
        let (tune, of_tune) = run(tune, &self.tune.truth)?;
        let (verify, of_verify) = run(verify, &self.verify.truth)?;
        let trial = Trial { family, name: String::new(), tune, verify };
        Ok(Candidate { options, trial, shares: [of_tune, of_verify] })
    }

    fn session(&self, options: &FfnGates) -> Result<Session, Error> {
        let graph = quality::main_output_only(&self.gated(options)?, self.base.structure.main_output);
        quality::session(&graph, self.runs)
    }

    /// Per gate, the share of its decisions that were to skip.
    fn shares(&self, options: &FfnGates, scored: &Scored) -> Vec<f64> {
        match options.rule {
            Rule::Static => vec![1.0; options.gates.len()],
            Rule::Cosine { .. } | Rule::Learned { .. } | Rule::Given => {
                self.chance(scored.quality.rows()).shares(&scored.gate_rows)
            }
        }
    }

    /// Tokens per row, padding counted.
    pub(super) fn tokens(&self) -> usize {
        quality::tokens(self.base.graph, self.base.structure, &self.tune.data).max(1)
    }

    fn chance(&self, rows: usize) -> Chance {
        Chance { rows, tokens: self.tokens(), granularity: self.granularity }
    }

    /// Chance, as often at each gate as the candidate.
    pub(super) fn random(&self, contest: &Contest, candidate: &Candidate) -> Result<Option<Tried>, Error> {
        if matches!(candidate.options.rule, Rule::Static) {
            return Ok(None);
        }
        let options = FfnGates { rule: Rule::Given, ..candidate.options.clone() };
        let blocks = blocks_of(&candidate.options);
        let masked = |rows: &Rows, shares: &[f64]| self.chance(rows.data.rows).with_masks(&rows.data, &blocks, shares);
        let [tune, verify] = &candidate.shares;
        let (tune, verify) = (masked(&self.tune, tune)?, masked(&self.verify, verify)?);
        let mut random = self.run_on([&tune, &verify], Family::Random, options, "random decisions")?;
        random.trial.name = "random, same histogram".into();
        Ok(Some(contest.measure(&random.trial)))
    }
}

/// What a run gave, as calibration takes it.
pub(super) fn part(scored: Scored, skipped: f64) -> Part {
    Part { macs: scored.macs as f64, quality: scored.quality, skipped }
}
