//! Whole calibrations on made-up data.

use super::synthetic::{EXITS, costs, patient, samples};
use super::*;

fn split(rows: usize, seed: u64) -> Split {
    Split::random(&(0..rows).collect::<Vec<_>>(), 0.5, seed)
}

/// A fresh set on which the true quality of a policy shows.
fn truth(policy: &Policy, fresh: &Samples) -> Measured {
    let rows: Vec<usize> = (0..fresh.plain_correct.len()).collect();
    measure(policy, fresh, &costs(), &rows)
}

#[test]
fn the_made_up_model_resembles_a_small_vision_transformer() {
    let fresh = samples(40_000, 5);
    let rows: Vec<usize> = (0..40_000).collect();
    let depths = depths(&fresh, &costs(), &rows);
    assert!((depths[0].accuracy - 0.40).abs() < 0.04, "{}", depths[0].accuracy);
    assert!((depths[EXITS].accuracy - 0.83).abs() < 0.01, "{}", depths[EXITS].accuracy);
}

#[test]
fn a_calibration_pays_and_is_reproducible() {
    let data = samples(2000, 1);
    let goal = Goal { max_drop: 0.02, confidence: 0.9 };
    let run = || calibrate(&data, &costs(), &split(2000, 2), &goal).unwrap();
    let outcome = run();
    assert_eq!(outcome, run());
    assert!(outcome.verdict.pays(), "{:?}", outcome.verdict);
    assert!(outcome.dynamic.macs_ratio < 0.95);
    assert!(outcome.drop.bound <= 0.02 && outcome.drop.bound >= outcome.drop.estimate);
    let rivals = outcome.rivals.as_ref().unwrap();
    assert!(rivals.random.accuracy < outcome.dynamic.accuracy);
    assert_eq!(outcome.dynamic.exit_histogram.iter().sum::<usize>(), 1000);
    let text = serde_json::to_string(&outcome).unwrap();
    let back: Outcome = serde_json::from_str(&text).unwrap();
    assert_eq!((back.policy, back.verdict), (outcome.policy, outcome.verdict));
}

#[test]
fn without_labels_agreement_is_bounded() {
    let mut data = samples(4000, 3);
    let plain = data.plain_correct.clone();
    for column in &mut data.correct {
        column.iter_mut().zip(&plain).for_each(|(c, p)| *c = c == p);
    }
    data.plain_correct.fill(true);
    data.reference = Reference::PlainModel;
    let goal = Goal { max_drop: 0.01, confidence: 0.9 };
    let outcome = calibrate(&data, &costs(), &split(4000, 2), &goal).unwrap();
    assert_eq!(outcome.drop.method, Method::ClopperPearson);
    assert_eq!(outcome.plain.accuracy, 1.0);
    assert!(outcome.drop.bound <= 0.01);
}

#[test]
fn patience_keeps_a_chain() {
    let data = patient(3000, 4);
    let goal = Goal { max_drop: 0.03, confidence: 0.9 };
    let outcome = calibrate(&data, &costs(), &split(3000, 2), &goal).unwrap();
    assert!(
        matches!(&outcome.policy, Policy::Patience { patience, exits }
        if exits.len() >= *patience),
        "{:?} {:?}",
        outcome.policy,
        outcome.verdict
    );
    assert!(outcome.dynamic.macs_ratio < 1.0);
}

#[test]
fn a_better_fixed_depth_is_said_in_words() {
    // Past block 4 nothing changes any more, and the confidence says nothing.
    let mut data = samples(2000, 6);
    for k in 4..EXITS {
        data.correct[k] = data.plain_correct.clone();
    }
    if let Signal::Confidence(c) = &mut data.signal {
        c.iter_mut().enumerate().for_each(|(k, column)| {
            column.iter_mut().enumerate().for_each(|(r, v)| *v = ((r * 7 + k * 13) % 101) as f32);
        });
    }
    let outcome = calibrate(&data, &costs(), &split(2000, 2), &Goal::default()).unwrap();
    let Verdict::DoesNotPay { reason } = &outcome.verdict else { panic!("it cannot pay") };
    assert!(reason.starts_with("exit after block 4 for everyone is as accurate"), "{reason}");
    assert!(outcome.policy.is_plain() && outcome.refused.is_some());
    assert_eq!(outcome.dynamic, outcome.plain);
}

#[test]
fn a_chosen_policy_stays_and_is_judged() {
    let (data, split, goal) = (samples(2000, 1), split(2000, 2), Goal { max_drop: 0.02, confidence: 0.9 });
    let found = calibrate(&data, &costs(), &split, &goal).unwrap();
    let judged = judge(found.policy.clone(), &data, &costs(), &split, &goal).unwrap();
    assert_eq!((&judged.dynamic, &judged.drop, &judged.rivals), (&found.dynamic, &found.drop, &found.rivals));
    assert!(judged.verdict.pays());

    let exits = vec![ThresholdExit { exit: 3, threshold: 0.6 }, ThresholdExit { exit: 8, threshold: ALWAYS }];
    let bold = Policy::Threshold { exits };
    let judged = judge(bold.clone(), &data, &costs(), &split, &goal).unwrap();
    assert_eq!(judged.policy, bold);
    assert!(judged.drop.bound > 0.02, "{:?}", judged.drop);
    assert!(matches!(&judged.verdict, Verdict::DoesNotPay { .. }));

    let wrong = Policy::Patience { patience: 2, exits: vec![1, 2] };
    assert!(judge(wrong, &data, &costs(), &split, &goal).is_err());
}

#[test]
fn exits_that_only_harm_are_declined() {
    let mut data = samples(1000, 7);
    data.correct.iter_mut().for_each(|c| c.fill(false));
    let outcome = calibrate(&data, &costs(), &split(1000, 2), &Goal::default()).unwrap();
    assert!(outcome.policy.is_plain() && outcome.rivals.is_none());
    assert!(matches!(&outcome.verdict, Verdict::DoesNotPay { reason } if reason.contains("no set")));
    assert_eq!(outcome.drop.bound, 0.0);
}

#[test]
fn bad_data_is_refused() {
    let refuse = |change: &dyn Fn(&mut Samples, &mut Split, &mut Goal)| {
        let (mut data, mut split, mut goal) = (samples(100, 1), split(100, 1), Goal::default());
        change(&mut data, &mut split, &mut goal);
        calibrate(&data, &costs(), &split, &goal).unwrap_err().to_string()
    };
    assert!(refuse(&|d, _, _| d.correct[3].truncate(99)).contains("exit 'block 3': correct holds 99"));
    assert!(refuse(&|d, _, _| d.exits.truncate(4)).contains("segment costs holds 10"));
    assert!(refuse(&|d, _, _| d.exits.clear()).contains("no candidate exit"));
    assert!(refuse(&|_, s, _| s.tune[0] = 100).contains("row 100 of the tune rows"));
    assert!(refuse(&|_, s, _| s.tune[0] = s.verify[0]).contains("used twice"));
    assert!(refuse(&|_, s, _| s.verify.truncate(5)).contains("5 verify rows"));
    assert!(refuse(&|_, _, g| g.max_drop = -0.1).contains("max_drop"));
    assert!(refuse(&|_, _, g| g.confidence = 1.0).contains("confidence"));
    assert!(refuse(&|d, _, _| d.reference = Reference::PlainModel).contains("cannot be wrong"));
    let nan = |d: &mut Samples, _: &mut Split, _: &mut Goal| {
        if let Signal::Confidence(c) = &mut d.signal {
            c[2][17] = f32::NAN;
        }
    };
    assert!(refuse(&nan).contains("exit 'block 2': the confidence of row 17"));
}

/// What calibrations allow and how often the true drop is larger than the allowed one.
/// Run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "prints a study of many calibrations"]
fn study_of_level_and_savings() {
    let fresh = samples(200_000, 999);
    let plain = truth(&Policy::plain(), &fresh).accuracy;
    let best = curve::trace(
        &fresh,
        &costs(),
        &(0..5_000).collect::<Vec<_>>(),
        curve::Question { max_drop: 0.01, verify_rows: 2000 },
    );
    for (policy, tune) in &best {
        let m = truth(policy, &fresh);
        println!("ideal {:.3} drop {:.4} (tune {:.3})", m.macs_ratio, plain - m.accuracy, tune.macs_ratio);
    }
    for (rows, max_drop) in [(2000, 0.005), (4000, 0.005), (2000, 0.01), (4000, 0.01), (3000, 0.005)] {
        let (runs, goal) = (60, Goal { max_drop, confidence: 0.9 });
        let (mut exceeded, mut paid, mut ratio, mut drop, mut points) = (0, 0, 0.0, 0.0, 0);
        let start = std::time::Instant::now();
        for seed in 0..runs {
            let data = samples(rows, 1000 + seed);
            let outcome = calibrate(&data, &costs(), &split(rows, seed), &goal).unwrap();
            let m = truth(&outcome.policy, &fresh);
            exceeded += usize::from(plain - m.accuracy > max_drop);
            paid += usize::from(outcome.verdict.pays());
            ratio += m.macs_ratio / runs as f64;
            drop += (plain - m.accuracy) / runs as f64;
            points += outcome.curve.len();
        }
        println!(
            "verify {} drop {max_drop}: paid {paid}/{runs}, MACs {ratio:.3}, true drop {drop:.4}, \
             exceeded {exceeded}, points {}, {:.2} s each",
            rows / 2,
            points as f64 / runs as f64,
            start.elapsed().as_secs_f64() / runs as f64
        );
    }
}
