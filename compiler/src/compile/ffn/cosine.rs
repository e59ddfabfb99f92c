//! The cosine rule of FFN-SkipLLM (arXiv 2404.03865).

use eec_passes::ffn_gates::{Granularity, Rule};

use super::features::Tokens;
use super::field::{Candidate, Field};
use super::thresholds::{deciding, quantiles, shares};
use crate::Error;
use crate::calibrate::gates::Family;

/// FFNs skipped after a saturated one, as tried.
const SKIP_NEXT: [usize; 2] = [1, 2];

/// First tokens that the rule exempts, as published for attention sinks, on models of text.
const WARM_UP: usize = 4;

/// FFNs without which the rule skips none: it leaves the first alone, and needs one that runs before
/// the first that can be skipped.
pub(super) const LEAST: usize = 3;

impl Field<'_> {
    /// The cosine rule at rising thresholds.
    pub(super) fn cosine(&self) -> Result<Vec<Candidate>, Error> {
        let (before, after) = (self.before()?, self.after()?);
        let mut out = Vec::new();
        // The first FFN is cold: it makes the residual stream what the others add to.
        let inner = 1.min(self.blocks.len())..self.blocks.len();
        let per_row = self.tokens();
        let of_block = |i| deciding(cosines(&before[i], &after[i]), per_row, self.granularity);
        let mut cosines: Vec<f32> = inner.clone().flat_map(of_block).collect();
        let shares = shares(inner.len(), self.ffns, self.share);
        for skip_next in SKIP_NEXT {
            for (_, threshold) in quantiles(&mut cosines, &shares) {
                let rule = Rule::Cosine { threshold, skip_next, warm_up: self.warm_up() };
                let options = self.options(&self.blocks[inner.clone()], rule)?;
                let mut candidate = self.run(Family::Cosine, options, "cosine rules")?;
                let skipped = 100.0 * candidate.trial.skipped();
                candidate.trial.name =
                    format!("cosine above {threshold:.4}, next {skip_next}: {skipped:.0} % of FFNs skipped");
                out.push(candidate);
            }
        }
        Ok(out)
    }

    fn warm_up(&self) -> usize {
        match self.granularity {
            Granularity::Row if self.tune.truth.per_token => WARM_UP,
            // Exempt tokens would hold back all others of a run.
            Granularity::Row | Granularity::All => 0,
        }
    }
}

/// The cosine of every token with its counterpart.
fn cosines(before: &Tokens, after: &Tokens) -> Vec<f32> {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(p, q)| p * q).sum::<f32>();
    let pairs = before.values.chunks(before.width).zip(after.values.chunks(after.width));
    pairs.map(|(a, b)| dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt()).max(f32::MIN_POSITIVE)).collect()
}
