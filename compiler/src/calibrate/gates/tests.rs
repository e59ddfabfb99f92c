//! Made-up losses and answers: what is chosen, what is refused, who is beaten.

use std::ops::Range;

use super::super::Goal;
use super::*;

/// Half of the rows to tune on, half to verify on, at the same work per row.
fn parts(quality: impl Fn(Range<usize>) -> Quality, rows: usize, macs: f64) -> [Part; 2] {
    let part = |rows: Range<usize>| Part { macs: macs * rows.len() as f64, quality: quality(rows), skipped: 0.25 };
    [part(0..rows / 2), part(rows / 2..rows)]
}

fn trial(family: Family, losses: impl Fn(usize) -> f64, macs: f64) -> Trial {
    let [tune, verify] = parts(|rows| Quality::Loss(rows.map(&losses).collect()), 80, macs);
    Trial { family, name: family.words().into(), tune, verify }
}

fn plain_loss(row: usize) -> f64 {
    3.0 + (row % 7) as f64 * 0.1
}

/// The contest of trials, of which those of some families may be chosen.
fn contest<'a>(plain: &'a Trial, trials: &[Trial], families: &[Family], goal: &'a Goal) -> Contest<'a> {
    let may: Vec<usize> = (0..trials.len()).filter(|i| families.contains(&trials[*i].family)).collect();
    Contest::new(plain, trials, &may, goal).unwrap()
}

const GOAL: Goal = Goal { max_drop: 0.01, confidence: 0.9 };

fn judged(trials: &[Trial], families: &[Family]) -> GateOutcome {
    let plain = trial(Family::Static, plain_loss, 100.0);
    let contest = contest(&plain, trials, families, &GOAL);
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
    let contest = contest(&plain, trials, &[Family::Learned, Family::Static], &GOAL);
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
    let correct = |wrong: usize| move |rows: Range<usize>| Quality::Correct(rows.map(|r| r % 50 >= wrong).collect());
    let make = |family, wrong, macs| {
        let [tune, verify] = parts(correct(wrong), 400, macs);
        Trial { family, name: "t".into(), tune, verify }
    };
    let plain = make(Family::Static, 0, 100.0);
    let goal = Goal { max_drop: 0.05, confidence: 0.9 };
    let trials = [make(Family::Cosine, 1, 80.0), make(Family::Cosine, 5, 70.0)];
    let contest = contest(&plain, &trials, &[Family::Cosine], &goal);
    assert_eq!(contest.best, Some(0));
    assert!((contest.tried[0].verify.drop - 0.02).abs() < 1e-12);
}

#[test]
fn work_on_verify_rows_plays_no_part_in_the_order_of_tests() {
    let with = |harm: f64, macs| trial(Family::Learned, move |r| plain_loss(r) + harm + 0.001 * (r % 3) as f64, macs);
    let (cautious, mut bold) = (with(0.005, 80.0), with(0.01, 60.0));
    let tested = |trials: &[Trial]| -> (Vec<bool>, Option<usize>) {
        let outcome = judged(trials, &[Family::Learned]);
        (outcome.tried.iter().map(|t| t.p_value.is_some()).collect(), outcome.chosen)
    };
    assert_eq!(tested(&[cautious.clone(), bold.clone()]), (vec![true, true], Some(1)));
    bold.verify.macs *= 1.8;
    assert_eq!(tested(&[cautious, bold]), (vec![true, true], Some(1)));
}

#[test]
fn a_policy_that_is_asked_for_is_tested_alone() {
    let with = |harm: f64, macs| trial(Family::Learned, move |r| plain_loss(r) + harm + 0.001 * (r % 3) as f64, macs);
    let mut unlucky = with(0.001, 80.0);
    unlucky.verify.quality = with(0.5, 80.0).verify.quality;
    let (plain, trials) = (trial(Family::Static, plain_loss, 100.0), [unlucky, with(0.01, 60.0)]);
    assert_eq!(contest(&plain, &trials, &[Family::Learned], &GOAL).best, None);
    assert_eq!(Contest::new(&plain, &trials, &[1], &GOAL).unwrap().best, Some(1));
}
