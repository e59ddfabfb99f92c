//! The report as text.

use super::{Calibration, Report};
use crate::table::table;

/// Renders for a terminal.
pub(super) fn render(report: &Report) -> String {
    let mut out = format!("{} on {} ({} samples)\n", report.model, report.data, report.samples);
    out.push_str(&format!("head {}, rule {}, seed {}\n\n", report.head, report.rule, report.seed));
    match &report.calibration {
        Some(calibration) => out.push_str(&body(calibration)),
        None => {
            out.push_str("No exit can stand anywhere in this model; the result is the plain model.\n");
            report.no_exit.iter().for_each(|reason| out.push_str(&format!("  {reason}\n")));
        }
    }
    out
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn body(c: &Calibration) -> String {
    let mut out = wrapped(&c.verdict());
    let header = ["", c.measure(), "MACs"].map(String::from).to_vec();
    let rows = c.comparison().into_iter().map(|(name, accuracy, macs)| vec![name, percent(accuracy), format!("{macs:.3}")]);
    out.push('\n');
    out.push_str(&table(&std::iter::once(header).chain(rows).collect::<Vec<_>>()));
    out.push('\n');
    out.push_str(&wrapped(&c.bound()));
    out.push('\n');
    out.push_str(&exits(c));
    out
}

/// One line per kept exit.
fn exits(c: &Calibration) -> String {
    let kept: Vec<_> = c.outcome.exits.iter().filter(|e| e.kept).collect();
    if kept.is_empty() {
        return format!("{} candidate exits, none kept.\n", c.outcome.exits.len());
    }
    let header = ["exit after", "threshold", "leave", "right when leaving"].map(String::from).to_vec();
    let row = |e: &&crate::calibrate::ExitQuality| {
        vec![
            e.name.clone(),
            e.threshold.map_or_else(|| "-".into(), |t| format!("{t:.4}")),
            percent(e.leaving as f64 / c.verify_samples.max(1) as f64),
            e.accuracy_of_leaving.map_or_else(|| "-".into(), percent),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(kept.iter().map(row)).collect();
    format!("{}\n{} of {} candidate exits kept.\n", table(&rows), kept.len(), c.outcome.exits.len())
}

/// Breaks a paragraph at 80 columns.
fn wrapped(text: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if column > 0 && column + 1 + len > 80 {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += len;
    }
    out.push('\n');
    out
}
