//! Gates fitted by counterfactual, from the loss of every token with the FFN and without it (after
//! Duo-LLM, arXiv 2410.10846).

use eec_ir::Tensor;
use eec_passes::ffn_gates::{LearnedGate, Rule};

use super::features::Tokens;
use super::field::{Candidate, Field};
use super::thresholds::{deciding, quantiles, shares};
use crate::Error;
use crate::calibrate::gates::Family;
use crate::fit::{self, Features, FitOptions, Targets};
use crate::quality::Scored;

impl Field<'_> {
    /// Learned gates at rising thresholds.
    pub(super) fn learned(&self, plain: &Scored, seed: u64) -> Result<Vec<Candidate>, Error> {
        let harms = self.counterfactual(plain)?;
        let (rows, features) = (self.fit_rows(), self.before()?);
        let mut gates = Vec::new();
        let mut scores: Vec<f32> = Vec::new();
        self.runs.progress.begin("fitting gates", self.blocks.len());
        for ((block, x), harm) in self.blocks.iter().zip(&features).zip(&harms) {
            let head = self.fit_gate(*block, x, harm, rows, seed)?;
            let score = |row| {
                let logits = head.logits(row);
                logits[1] - logits[0]
            };
            let of_tokens = x.values.chunks(x.width).map(score).collect();
            scores.extend(deciding(of_tokens, x.count() / rows.max(1), self.granularity));
            gates.push(head);
            self.runs.progress.advance(1);
        }
        self.runs.progress.end();
        let mut out = Vec::new();
        let shares = shares(gates.len(), self.ffns, self.share);
        for (share, threshold) in quantiles(&mut scores, &shares) {
            let learned: Result<Vec<LearnedGate>, Error> = gates.iter().map(|h| learned_gate(h, threshold)).collect();
            let options = self.options(&self.blocks, Rule::Learned { gates: learned? })?;
            let stage = format!("learned gates, {:.0} % of tokens", 100.0 * share);
            let mut candidate = self.run(Family::Learned, options, &stage)?;
            candidate.trial.name = format!("learned gates, {:.0} % of FFNs skipped", 100.0 * candidate.trial.skipped());
            out.push(candidate);
        }
        Ok(out)
    }

    /// Per gated block, what skipping its FFN for all tokens adds to the loss of each token (or row) of the
    /// tune rows; `plain` is the plain model on them.
    fn counterfactual(&self, plain: &Scored) -> Result<Vec<Vec<f32>>, Error> {
        let mut harms = Vec::new();
        for block in &self.blocks {
            let options = self.options(&[*block], Rule::Static)?;
            let scored = self.tuned(&options, &format!("without FFN {block}"))?;
            harms.push(scored.losses.iter().zip(&plain.losses).map(|(without, with)| without - with).collect());
        }
        Ok(harms)
    }

    /// A gate whose target is the more certain, the more skipping lowers the loss.
    fn fit_gate(&self, block: usize, x: &Tokens, harm: &[f32], rows: usize, seed: u64) -> Result<fit::Head, Error> {
        let per_row = x.count() / rows.max(1);
        let harm_of = |token: usize| {
            let (row, width) = (token / per_row.max(1), harm.len() / self.tune.data.rows.max(1));
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
}

/// A two-class head as a gate: the second logit less the first.
fn learned_gate(head: &fit::Head, threshold: f32) -> Result<LearnedGate, Error> {
    let (w, b) = (&head.output.weight, &head.output.bias);
    let column: Vec<f32> = w.chunks(2).map(|pair| pair[1] - pair[0]).collect();
    let weight = Tensor::new(&[column.len(), 1], column).map_err(Error::request)?;
    Ok(LearnedGate { hidden: None, weight, bias: b[1] - b[0], threshold })
}
