//! Reports on made-up calibrations, in both forms.

use super::text::{WIDTH, wrap};
use super::*;
use crate::calibrate::synthetic::{costs, patient, samples};
use crate::calibrate::{Goal, Samples, calibrate};
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

fn report(samples: &Samples, max_drop: f64) -> Report {
    let rows = samples.plain_correct.len();
    let split = Split::random(&(0..rows).collect::<Vec<_>>(), 0.5, 3);
    let outcome = calibrate(samples, &costs(), &split, &Goal { max_drop, confidence: 0.9 }).unwrap();
    Report::new(Inputs {
        model: Path::new("models/vit<b>tiny.onnx"),
        data: &dataset(rows),
        recipe: &Recipe::default(),
        mechanism: Mechanism::ExitHeads,
        exits: &samples.exits,
        costs: &costs(),
        reference: samples.reference,
        split: &split,
        outcome: &outcome,
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
    let mut report = report(&samples(2000, 1), 0.02);
    report.time_ratio_batch1 = Some(0.71);
    check_forms(&report);
    assert!(report.text().contains("Exits pay:"), "{}", report.text());
    assert!(report.text().contains("71.0 % of the plain model's time for single samples"));
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
