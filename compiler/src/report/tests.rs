//! Reports on made-up calibrations, in both forms.

use super::text::{WIDTH, wrap};
use super::*;
use crate::calibrate::gates::{Family, Measured, Tried};
use crate::calibrate::synthetic::{costs, patient, samples};
use crate::calibrate::{ALWAYS, Goal, Policy, Samples, ThresholdExit, Verdict, calibrate, judge};
use crate::recipe::Recipe;

fn dataset(rows: usize) -> Dataset {
    Dataset { name: "pictures <&> \"words\".npz".into(), inputs: Vec::new(), labels: Some(vec![0; rows]), rows }
}

fn stats(name: &str) -> FitStats {
    FitStats {
        candidate: name.into(),
        rows: 2000,
        features: 128,
        parameters: 1290,
        l2: 0.01,
        held_out_loss: Some(1.061),
        first_loss: 2.303,
        final_loss: 0.981,
        gradient_norm: 1e-4,
        iterations: 31,
        evaluations: 77,
        converged: true,
        train_accuracy: Some(0.71),
        train_agreement: 0.74,
    }
}

fn split(samples: &Samples) -> Split {
    Split::random(&(0..samples.plain_correct.len()).collect::<Vec<_>>(), 0.5, 3)
}

fn report(samples: &Samples, max_drop: f64) -> Report {
    let outcome = calibrate(samples, &costs(), &split(samples), &Goal { max_drop, confidence: 0.9 }).unwrap();
    report_of(samples, &outcome)
}

fn report_of(samples: &Samples, outcome: &Outcome) -> Report {
    Report::new(Inputs {
        model: Path::new("models/vit<b>tiny.onnx"),
        data: &dataset(samples.plain_correct.len()),
        recipe: &Recipe::default(),
        mechanism: Mechanism::ExitHeads,
        is_changed: false,
        exits: &samples.exits,
        costs: &costs(),
        reference: samples.reference,
        split: &split(samples),
        outcome,
        stats: &samples.exits.iter().map(|e| stats(e)).collect::<Vec<_>>(),
    })
}

fn check_forms(report: &Report) {
    let text = report.text();
    let widest = text.lines().map(|l| l.chars().count()).max().unwrap_or(0);
    assert!(widest <= WIDTH, "{widest}\n{text}");
    let html = report.html();
    assert!(!html.contains("<b>tiny") && html.contains("vit&lt;b&gt;tiny.onnx"));
    for outside in ["http:", "https:", "<script", "<link", "url("] {
        let inside = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!inside.contains(outside), "{outside}");
    }
    assert!(!html.contains("could not be drawn") && !html.contains("NaN"));
    assert_eq!(html.matches("<table>").count(), html.matches("</table>").count());
    let json = serde_json::to_string(report).unwrap();
    let back: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(back.text(), text);
}

#[test]
fn a_report_that_pays() {
    let report = report(&samples(2000, 1), 0.02);
    check_forms(&report);
    assert!(report.text().contains("Exits pay:"), "{}", report.text());
    assert!(report.text().contains("the drop stays within"));
    assert_eq!(report.html().matches("<svg").count(), 3);
}

#[test]
fn a_report_that_does_not_pay() {
    let mut harmful = samples(1000, 7);
    harmful.correct.iter_mut().for_each(|c| c.fill(false));
    let report = report(&harmful, 0.005);
    check_forms(&report);
    assert!(report.text().contains("Exits do not pay: no set of exits"));
}

#[test]
fn a_fixed_rule_that_fails_the_test_is_promised_nothing() {
    let samples = samples(2000, 1);
    let judged = |threshold: f32, max_drop: f64| {
        let policy = Policy::Threshold { exits: vec![ThresholdExit { exit: 0, threshold }] };
        let outcome = judge(policy, &samples, &costs(), &split(&samples), &Goal { max_drop, confidence: 0.9 });
        report_of(&samples, &outcome.unwrap())
    };
    let (bold, tame) = (judged(ALWAYS, 0.005), judged(ALWAYS, 0.9));
    let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in [bold.text(), bold.html()].map(one_line) {
        assert!(!text.contains("stays within") && text.contains("not shown to stay within the 0.50 points"), "{text}");
        assert!(text.contains("at 90 % confidence it may be as large as"), "{text}");
    }
    assert!(one_line(tame.text()).contains("the drop stays within the 90.00 points"), "{}", tame.text());
    check_forms(&bold);
}

#[test]
fn patience_and_missing_candidates() {
    check_forms(&report(&patient(2000, 4), 0.05));
    let reasons = ["block 0 has state that later blocks need".to_owned(), "x".repeat(200)];
    let none = without_candidates(
        Path::new("vit<b>tiny.onnx"),
        &dataset(9),
        &Recipe::default(),
        Mechanism::ExitHeads,
        &reasons,
    );
    check_forms(&none);
    assert!(none.text().contains("no block of the model can have one"));
    assert!(none.html().contains("<li>block 0 has state"));
}

#[test]
fn heads_are_those_of_the_rule() {
    let head = |mechanism, rule: &str| {
        let (model, data) = (Path::new("m.onnx"), dataset(9));
        let recipe = Recipe::from_toml(&format!("[token-exit]\nrule = \"{rule}\"\n")).unwrap_or_else(|e| panic!("{e}"));
        without_candidates(model, &data, &recipe, mechanism, &[]).recipe.head
    };
    let heads = ["learned", "entropy", "fixed:3"].map(|rule| head(Mechanism::TokenExits, rule));
    assert_eq!(heads, ["mlp on the text", "linear, of the answer", "none"]);
    assert_eq!(head(Mechanism::FfnGates, "learned"), "none", "no FFN is skipped");
}

#[test]
fn a_share_that_was_missed_is_said() {
    let measured = |drop| Measured { quality: 3.0 + drop, drop };
    let set = Tried {
        family: Family::Static,
        name: "never the FFNs 3, 4".into(),
        macs_ratio: 0.9,
        skipped: 0.25,
        tune: measured(0.2),
        verify: measured(0.3),
        p_value: Some(0.9),
        passed: false,
    };
    let outcome = |missed| GateOutcome {
        is_loss: true,
        plain: measured(0.0),
        chosen: Some(0),
        missed,
        verdict: Verdict::DoesNotPay { reason: "it was not shown".into() },
        best_static: None,
        random: None,
        tried: vec![set.clone()],
        max_drop: 0.01,
        confidence: 0.9,
    };
    let built = "Built as asked (never the FFNs 3, 4), but it does not pay: it was not shown.";
    assert_eq!(gates::headline(&outcome(None)), built);
    let missed = gates::headline(&outcome(Some(0.8)));
    assert_eq!(missed.strip_prefix(built), Some(" 80.0 % of the FFNs were asked for, 25.0 % are skipped."));
}

#[test]
fn lines_break_at_spaces_and_inside_words_that_are_too_long() {
    let text = wrap(&format!("{} {}", "a".repeat(79), "b".repeat(170)));
    let lengths: Vec<usize> = text.lines().map(str::len).collect();
    assert_eq!(lengths, [79, 80, 80, 10]);
}

/// Writes pages to look at; run with `--ignored` and `REPORT_DIR` set.
#[test]
#[ignore = "writes files"]
fn write_pages() {
    let Some(folder) = std::env::var_os("REPORT_DIR").map(std::path::PathBuf::from) else { return };
    let mut harmful = samples(1000, 7);
    harmful.correct.iter_mut().for_each(|c| c.fill(false));
    let pages = [
        ("pays", report(&samples(4000, 1), 0.005)),
        ("not", report(&harmful, 0.005)),
        ("patience", report(&patient(3000, 4), 0.03)),
    ];
    for (name, report) in pages {
        println!("{}", report.text());
        std::fs::write(folder.join(name).with_extension("html"), report.html()).unwrap();
    }
}
