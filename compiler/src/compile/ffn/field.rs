//! What all policies share, and how one is run on the data.

use eec_ir::Graph;
use eec_passes::ffn_gates::{self, FfnGates, Granularity, Rule};

use super::super::work::{Base, pass_error};
use super::{Chance, PASS, Replacements, blocks_of};
use crate::Error;
use crate::calibrate::Split;
use crate::calibrate::gates::{Contest, Family, Trial, Tried};
use crate::dataset::Dataset;
use crate::model::simplified;
use crate::quality::{self, Runs, Scored, Truth};

/// What all trials share.
pub(super) struct Field<'a> {
    pub(super) base: &'a Base<'a>,
    pub(super) data: &'a Dataset,
    pub(super) truth: Truth,
    pub(super) runs: Runs<'a>,
    /// Blocks whose FFNs may be skipped.
    pub(super) blocks: Vec<usize>,
    pub(super) split: Split,
    /// FFNs of the whole model.
    pub(super) ffns: usize,
    pub(super) granularity: Granularity,
    /// What stands for skipped FFNs.
    pub(super) replacements: Replacements,
}

/// A policy and how it did.
pub(super) struct Candidate {
    pub(super) options: FfnGates,
    pub(super) trial: Trial,
    /// Per gate, the share of its decisions that were to skip.
    shares: Vec<f64>,
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

    /// Runs a policy on all rows.
    pub(super) fn run(&self, family: Family, options: FfnGates, stage: &str) -> Result<(Candidate, Scored), Error> {
        self.run_on(self.data, family, options, stage)
    }

    fn run_on(
        &self,
        data: &Dataset,
        family: Family,
        options: FfnGates,
        stage: &str,
    ) -> Result<(Candidate, Scored), Error> {
        let graph = quality::main_output_only(&self.gated(&options)?, self.base.structure.main_output);
        let mut session = quality::session(&graph, self.runs)?;
        let scored = quality::score(data, &mut session, &self.truth, self.runs, stage)?;
        let shares = match options.rule {
            Rule::Static => vec![1.0; options.gates.len()],
            Rule::Cosine { .. } | Rule::Learned { .. } | Rule::Given => self.chance().shares(&scored.gate_rows),
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
    pub(super) fn tokens(&self) -> usize {
        quality::tokens(self.base.graph, self.base.structure, self.data).max(1)
    }

    fn chance(&self) -> Chance {
        Chance { rows: self.data.rows, tokens: self.tokens(), granularity: self.granularity }
    }

    /// Chance, as often at each gate as the candidate.
    pub(super) fn random(&self, contest: &Contest, candidate: &Candidate) -> Result<Option<Tried>, Error> {
        if matches!(candidate.options.rule, Rule::Static) {
            return Ok(None);
        }
        let options = FfnGates { rule: Rule::Given, ..candidate.options.clone() };
        let blocks = blocks_of(&candidate.options);
        let data = self.chance().with_masks(self.data, &blocks, &candidate.shares)?;
        let (mut random, _) = self.run_on(&data, Family::Random, options, "random decisions")?;
        random.trial.name = "random, same histogram".into();
        Ok(Some(contest.measure(&random.trial)))
    }
}
