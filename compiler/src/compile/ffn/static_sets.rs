//! Sets of FFNs that never run.

use eec_passes::ffn_gates::Rule;

use super::field::{Candidate, Field};
use crate::Error;
use crate::calibrate::gates::Family;

impl Field<'_> {
    /// Static sets of one FFN, two, …: each adds the one that hurts least on the tune rows.
    pub(super) fn static_sets(&self) -> Result<Vec<Candidate>, Error> {
        let mut chosen: Vec<usize> = Vec::new();
        let mut sets = Vec::new();
        for count in 1..=largest(self.blocks.len(), self.ffns, self.share) {
            let stage = format!("static sets of {count}");
            let mut best: Option<(f64, Vec<usize>)> = None;
            for block in self.blocks.iter().filter(|b| !chosen.contains(b)) {
                let blocks = sorted(chosen.iter().copied().chain([*block]).collect());
                let scored = self.tuned(&self.options(&blocks, Rule::Static)?, &stage)?;
                let loss = scored.losses.iter().map(|l| f64::from(*l)).sum();
                if best.as_ref().is_none_or(|(least, _)| loss < *least) {
                    best = Some((loss, blocks));
                }
            }
            let Some((_, blocks)) = best else { break };
            let mut candidate = self.run(Family::Static, self.options(&blocks, Rule::Static)?, &stage)?;
            let named: Vec<String> = blocks.iter().map(usize::to_string).collect();
            candidate.trial.name = format!("never the FFNs {}", named.join(", "));
            sets.push(candidate);
            chosen = blocks;
        }
        Ok(sets)
    }
}

/// The size of the largest set. Beyond half of the FFNs a set is seldom of use, and the search costs the
/// square of its size, so only a share of all `ffns` that is asked for leads further.
fn largest(blocks: usize, ffns: usize, share: Option<f64>) -> usize {
    let asked = (share.unwrap_or(0.0) * ffns as f64).round() as usize;
    asked.max(blocks.div_ceil(2)).min(blocks)
}

fn sorted(mut blocks: Vec<usize>) -> Vec<usize> {
    blocks.sort_unstable();
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_grow_to_the_share_asked_for_or_to_half() {
        assert_eq!(largest(8, 8, None), 4);
        assert_eq!(largest(8, 8, Some(0.25)), 4);
        assert_eq!(largest(8, 8, Some(0.8)), 6);
        assert_eq!(largest(3, 8, Some(0.8)), 3);
    }
}
