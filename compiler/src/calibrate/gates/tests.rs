//! Made-up losses and answers: what is chosen, what is refused, who is beaten.

use super::super::Goal;
use super::super::samples::Split;
use super::*;

fn trial(family: Family, losses: impl Fn(usize) -> f64, macs: f64) -> Trial {
    let quality = Quality::Loss((0..80).map(losses).collect());
    Trial { family, name: family.words().into(), quality, macs, skipped: 0.25 }
}

fn plain_loss(row: usize) -> f64 {
    3.0 + (row % 7) as f64 * 0.1
}

fn split() -> Split {
    Split { tune: (0..40).collect(), verify: (40..80).collect() }
}

fn judged(trials: &[Trial], families: &[Family]) -> GateOutcome {
    let plain = trial(Family::Static, plain_loss, 100.0);
    let (split, goal) = (split(), Goal { max_drop: 0.01, confidence: 0.9 });
    let contest = Contest::new(&plain, trials, families, &split, &goal).unwrap();
    let best = contest.best;
    contest.outcome(best, None)
}

#[test]
fn the_cheapest_policy_inside_the_drop_is_chosen() {
    let noise = |row: usize| ((row * 37) % 11) as f64 * 0.001;
    let good = trial(Family::Learned, |r| plain_loss(r) + noise(r), 80.0);
    let better = trial(Family::Learned, |r| plain_loss(r) + 0.01 + noise(r), 60.0);
    let bad = trial(Family::Learned, |r| plain_loss(r) + 0.2 + noise(r), 40.0);
    let outcome = judged(&[bad, good, better], &[Family::Learned]);
    assert_eq!(outcome.chosen, Some(2));
    assert!(!outcome.tried[0].passed && outcome.tried[0].p_value.is_some_and(|p| p > 0.5));
}

#[test]
fn a_static_set_that_is_as_good_beats_deciding() {
    let learned = trial(Family::Learned, |r| plain_loss(r) + 0.01 + 0.002 * (r % 3) as f64, 60.0);
    let fixed = trial(Family::Static, |r| plain_loss(r) + 0.005 + 0.002 * (r % 3) as f64, 60.0);
    let only = judged(&[learned.clone(), fixed.clone()], &[Family::Learned]);
    assert_eq!((only.chosen, only.best_static), (None, Some(1)));
    assert!(matches!(&only.verdict, Verdict::DoesNotPay { reason } if reason.contains("adaptivity does not pay")));
    let both = judged(&[learned, fixed], &[Family::Learned, Family::Static]);
    assert_eq!(both.chosen, Some(1));
}

#[test]
fn accuracy_uses_the_test_of_exits() {
    let correct = |wrong: usize| Quality::Correct((0..400).map(|r| r % 50 >= wrong).collect());
    let make = |family, wrong, macs| Trial { family, name: "t".into(), quality: correct(wrong), macs, skipped: 0.1 };
    let plain = make(Family::Static, 0, 100.0);
    let split = Split { tune: (0..200).collect(), verify: (200..400).collect() };
    let goal = Goal { max_drop: 0.05, confidence: 0.9 };
    let trials = [make(Family::Cosine, 1, 80.0), make(Family::Cosine, 5, 70.0)];
    let contest = Contest::new(&plain, &trials, &[Family::Cosine], &split, &goal).unwrap();
    assert_eq!(contest.best, Some(0));
    assert!((contest.tried[0].verify.drop - 0.02).abs() < 1e-12);
}
