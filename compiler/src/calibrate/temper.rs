//! More cautious forms of a policy: the same exits, where only the surest of those that would
//! leave still do. Errors gather near a threshold, so they fall faster than the savings.

use super::policy::{Policy, ThresholdExit};
use super::thresholds::halfway;

/// `policy` with its thresholds raised until a `share` of the `rows` that leave at each exit
/// still do. `confidence` is `[exit][row]`. Policies without thresholds come back unchanged.
pub(crate) fn temper(policy: &Policy, confidence: &[Vec<f32>], rows: &[usize], share: f64) -> Policy {
    let Policy::Threshold { exits } = policy else { return policy.clone() };
    let mut leaving: Vec<Vec<f32>> = vec![vec![]; exits.len()];
    for &row in rows {
        if let Some(i) = exits.iter().position(|e| confidence[e.exit][row] > e.threshold) {
            leaving[i].push(confidence[exits[i].exit][row]);
        }
    }
    let raised = exits
        .iter()
        .zip(leaving)
        .filter_map(|(e, confidences)| Some(ThresholdExit { exit: e.exit, threshold: raise(confidences, share)? }));
    Policy::Threshold { exits: raised.collect() }
}

/// A threshold that about `share` of `confidences` pass; `None` if none would. Equal values pass
/// together or not at all.
fn raise(mut confidences: Vec<f32>, share: f64) -> Option<f32> {
    confidences.sort_by(|a, b| b.total_cmp(a));
    let wanted = (confidences.len() as f64 * share).floor() as usize;
    let below = *confidences.get(wanted)?;
    let above = confidences.iter().rev().find(|c| **c > below)?;
    Some(halfway(below, *above))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surest_share_still_leaves() {
        let confidence = vec![(0..10).map(|r| r as f32).collect::<Vec<_>>()];
        let policy = Policy::Threshold { exits: vec![ThresholdExit { exit: 0, threshold: 1.5 }] };
        let rows: Vec<usize> = (0..10).collect();
        let Policy::Threshold { exits } = temper(&policy, &confidence, &rows, 0.5) else { panic!("same rule") };
        // Eight leave; of 9, 8, 7, 6 | 5, 4, 3, 2 the upper half stays.
        assert_eq!(exits, [ThresholdExit { exit: 0, threshold: 5.5 }]);
        let equal = vec![vec![7.0f32; 10]];
        assert!(temper(&policy, &equal, &rows, 0.5).is_plain());
    }
}
