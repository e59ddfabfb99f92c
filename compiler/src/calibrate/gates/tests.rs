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
    assert!(matches!(&only.verdict, Verdict::DoesNotPay { reason } if reason.starts_with("static loses 0.2")));
    let both = judged(&[learned, fixed], &[Family::Learned, Family::Static]);
    assert_eq!(both.chosen, Some(1));
}

/// What is said of trial `wanted`, and whether it is built.
fn wanted(wanted: usize, trials: &[Trial], random: Option<&Trial>) -> (Option<usize>, String) {
    let plain = trial(Family::Static, plain_loss, 100.0);
    let (split, goal) = (split(), Goal { max_drop: 0.01, confidence: 0.9 });
    let families = [Family::Learned, Family::Static];
    let contest = Contest::new(&plain, trials, &families, &split, &goal).unwrap();
    let random = random.map(|r| contest.measure(r));
    let outcome = contest.outcome(Some(wanted), random);
    let reason = match outcome.verdict {
        Verdict::Pays => String::new(),
        Verdict::DoesNotPay { reason } => reason,
    };
    (outcome.chosen, reason)
}

#[test]
fn what_did_not_pass_the_test_or_saves_nothing_does_not_pay() {
    let harmless = |r: usize| plain_loss(r) + 0.001 * (r % 3) as f64;
    for family in [Family::Static, Family::Learned] {
        let (chosen, reason) = wanted(0, &[trial(family, |r| plain_loss(r) + 0.5, 60.0)], None);
        assert!(chosen.is_none() && reason.starts_with("it was not shown to keep the drop within 1.00 %"), "{reason}");
        let (chosen, reason) = wanted(0, &[trial(family, harmless, 100.0)], None);
        assert_eq!((chosen, reason.as_str()), (None, "it saves no work"));
        assert_eq!(wanted(0, &[trial(family, harmless, 60.0)], None), (Some(0), String::new()));
    }
}

#[test]
fn a_static_set_that_did_not_pass_takes_nobodys_place() {
    let learned = trial(Family::Learned, |r| plain_loss(r) + 0.01 + 0.002 * (r % 3) as f64, 60.0);
    let unsure = trial(Family::Static, |r| plain_loss(r) + if r % 2 == 0 { -2.0 } else { 2.0 }, 60.0);
    let outcome = judged(&[learned, unsure], &[Family::Learned, Family::Static]);
    let [learned, unsure] = &outcome.tried[..] else { panic!("two were tried") };
    assert!(learned.passed && !unsure.passed && unsure.verify.drop <= learned.verify.drop);
    assert_eq!((outcome.chosen, outcome.best_static), (None, Some(1)));
}

#[test]
fn chance_that_is_as_good_beats_deciding() {
    let with = |family, harm: f64| trial(family, move |r| plain_loss(r) + harm + 0.002 * (r % 3) as f64, 60.0);
    let learned = [with(Family::Learned, 0.005)];
    let (chosen, reason) = wanted(0, &learned, Some(&with(Family::Random, 0.005)));
    assert!(chosen.is_none() && reason.starts_with("random decisions with the same histogram lose 0.2"), "{reason}");
    assert_eq!(wanted(0, &learned, Some(&with(Family::Random, 0.01))), (Some(0), String::new()));
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
