//! Sets of FFNs that never run.

use eec_passes::ffn_gates::Rule;

use super::field::{Candidate, Field};
use crate::Error;
use crate::calibrate::gates::Family;
use crate::quality::Scored;

impl Field<'_> {
    /// Static sets of one FFN, two, …: each adds the one that hurts least on the tune rows.
    pub(super) fn static_sets(&self, plain: &Scored) -> Result<Vec<Candidate>, Error> {
        let mut chosen: Vec<usize> = Vec::new();
        let mut sets = Vec::new();
        // Beyond half of the FFNs a set is of no use, and the search would cost the square of the depth.
        for _ in 0..self.blocks.len().div_ceil(2) {
            let mut best: Option<(f64, usize, Candidate)> = None;
            for block in self.blocks.iter().filter(|b| !chosen.contains(b)) {
                let blocks: Vec<usize> = chosen.iter().copied().chain([*block]).collect();
                let options = self.options(&sorted(&blocks), Rule::Static)?;
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
}

fn sorted(blocks: &[usize]) -> Vec<usize> {
    let mut blocks = blocks.to_vec();
    blocks.sort_unstable();
    blocks
}

/// What a policy loses on rows, against the plain model.
fn harm(plain: &Scored, scored: &Scored, rows: &[usize]) -> f64 {
    let width = scored.losses.len() / plain.quality.rows().max(1);
    let sum = |s: &Scored| -> f64 {
        rows.iter().flat_map(|r| &s.losses[r * width..(r + 1) * width]).map(|l| f64::from(*l)).sum()
    };
    sum(scored) - sum(plain)
}
