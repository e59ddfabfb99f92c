//! What a calibration of FFN gates says, as lines of a table and sentences.

use super::Report;
use crate::calibrate::Verdict;
use crate::calibrate::gates::{GateOutcome, Measured, Tried};
use crate::display::{coarse, percent, points};

/// The verdict in one line, and the share of FFNs if another was asked for.
pub(super) fn headline(outcome: &GateOutcome) -> String {
    let mut line = verdict(outcome);
    if let Some((asked, chosen)) = outcome.missed.zip(outcome.chosen) {
        let reached = coarse(outcome.tried[chosen].skipped);
        line.push_str(&format!(" {} of the FFNs were asked for, {reached} are skipped.", coarse(asked)));
    }
    line
}

fn verdict(outcome: &GateOutcome) -> String {
    match (&outcome.verdict, outcome.chosen.map(|i| &outcome.tried[i])) {
        (Verdict::Pays, Some(chosen)) => format!(
            "Skipping FFNs pays: {} of the work saved by {}, {} ({:.2} allowed).",
            coarse(1.0 - chosen.macs_ratio),
            chosen.name,
            change(outcome, &chosen.verify),
            100.0 * outcome.max_drop,
        ),
        (Verdict::DoesNotPay { reason }, Some(chosen)) => {
            format!("Built as asked ({}), but it does not pay: {reason}.", chosen.name)
        }
        (Verdict::DoesNotPay { reason }, None) => format!("Skipping FFNs does not pay: {reason}."),
        (Verdict::Pays, None) => "Nothing was chosen.".into(),
    }
}

fn change(outcome: &GateOutcome, measured: &Measured) -> String {
    match outcome.is_loss {
        true => format!("loss {:+.2} %", 100.0 * measured.drop),
        false => format!("{} points of accuracy", points(-measured.drop)),
    }
}

/// The columns of [`rows`].
pub(super) fn header(outcome: &GateOutcome) -> [String; 5] {
    let quality = if outcome.is_loss { "loss" } else { "accuracy" };
    ["", quality, "change", "FFNs skipped", "work"].map(String::from)
}

/// The plain model, the policy and its rivals, on the verify rows.
pub(super) fn rows(outcome: &GateOutcome) -> Vec<[String; 5]> {
    let named = |role: &str, i: usize| {
        let tried = &outcome.tried[i];
        row(outcome, format!("{role}: {}", tried.name), tried)
    };
    let quality = quality(outcome, &outcome.plain);
    let mut rows = vec![["plain model".into(), quality, String::new(), coarse(0.0), coarse(1.0)]];
    rows.extend(outcome.chosen.map(|i| named("chosen", i)));
    rows.extend(outcome.best_static.map(|i| named("static rival", i)));
    rows.extend(outcome.random.as_ref().map(|t| row(outcome, t.name.clone(), t)));
    rows
}

/// The policies tried, on the verify rows.
pub(super) fn tried(outcome: &GateOutcome) -> Vec<[String; 5]> {
    outcome.tried.iter().map(|t| row(outcome, t.name.clone(), t)).collect()
}

fn row(outcome: &GateOutcome, name: String, t: &Tried) -> [String; 5] {
    [name, quality(outcome, &t.verify), change(outcome, &t.verify), coarse(t.skipped), coarse(t.macs_ratio)]
}

fn quality(outcome: &GateOutcome, measured: &Measured) -> String {
    if outcome.is_loss { format!("{:.4}", measured.quality) } else { percent(measured.quality) }
}

/// What is known about the drop, as a sentence; empty if nothing was chosen.
pub(super) fn bound(report: &Report, outcome: &GateOutcome) -> String {
    let Some(chosen) = outcome.chosen.map(|i| &outcome.tried[i]) else { return String::new() };
    let allowed = if outcome.is_loss {
        format!("{:.2} % of the loss", 100.0 * outcome.max_drop)
    } else {
        format!("{:.2} points", 100.0 * outcome.max_drop)
    };
    let test = if outcome.is_loss {
        "Student's t-test on the differences between rows"
    } else {
        "unconditional paired score test"
    };
    let rows = report.data.verify_rows;
    if chosen.passed {
        format!(
            "With {:.0} % confidence the drop stays within the {allowed} allowed ({test} on {rows} rows that nothing was \
             tuned on; policies tested in a fixed order, Learn then Test, Angelopoulos et al. 2021), if the rows are \
             independent and like those to come.",
            100.0 * outcome.confidence
        )
    } else {
        format!("It was not shown to stay within the {allowed} allowed ({test} on {rows} rows).")
    }
}
