//! The report as plain text, at most 80 columns wide.

use super::format::{bound, coarse, contenders, has_exits, headline, leaving, percent, rule, si, threshold};
use super::{Report, gates};
use crate::calibrate::Outcome;

/// Columns of a terminal.
pub(super) const WIDTH: usize = 80;

impl Report {
    /// The report for a terminal.
    pub fn text(&self) -> String {
        let d = &self.data;
        let mut head = format!("{}, {} rows of {}", self.model, d.rows, d.name);
        if d.verify_rows > 0 {
            head.push_str(&format!(" ({} to tune, {} to verify)", d.tune_rows, d.verify_rows));
        }
        let mut parts = vec![wrap(&head), wrap(&headline(self))];
        if let Some(outcome) = &self.outcome {
            parts.push(comparison(self, outcome));
            parts.push(exits(outcome, self.measure()));
            if has_exits(outcome) {
                parts.push(wrap(&bound(&outcome.drop, self.measure())));
            }
            if !outcome.policy.is_plain() {
                parts.push(wrap(&format!("Rule {}.", rule(outcome, &self.recipe.rule))));
            }
        }
        if let Some(outcome) = &self.gates {
            let mut rows = vec![gates::header(outcome)];
            rows.extend(gates::rows(outcome));
            parts.push(table(&rows));
            parts.push(wrap(&gates::bound(self, outcome)).trim_start().to_string());
        }
        let reasons: String = self.reasons.iter().map(|r| wrap(&format!("- {r}"))).collect();
        parts.push(reasons);
        parts.retain(|p| !p.is_empty());
        parts.join("\n")
    }
}

fn comparison(report: &Report, outcome: &Outcome) -> String {
    let mut rows = vec![["".into(), report.measure().into(), "MACs/sample".into(), "work".into()]];
    for c in contenders(report, outcome) {
        rows.push([c.name, percent(c.quality), si(c.macs), coarse(c.work)]);
    }
    table(&rows)
}

fn exits(outcome: &Outcome, measure: &str) -> String {
    let shares = leaving(outcome);
    let mut rows =
        vec![["place".into(), "everyone there".into(), "threshold".into(), "leave".into(), format!("their {measure}")]];
    for (exit, share) in outcome.exits.iter().zip(&shares) {
        rows.push([
            exit.name.clone(),
            percent(exit.accuracy),
            threshold(exit),
            if *share > 0.0 { coarse(*share) } else { "-".into() },
            exit.accuracy_of_leaving.map_or("-".into(), percent),
        ]);
    }
    let end = shares.last().copied().unwrap_or(1.0);
    rows.push(["full depth".into(), percent(outcome.plain.accuracy), String::new(), coarse(end), String::new()]);
    table(&rows)
}

/// The first column to the left, the others to the right. Long names are cut to fit the width.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let others: usize = widths[1..].iter().map(|w| w + 2).sum();
    widths[0] = widths[0].min(WIDTH.saturating_sub(others));
    let line = |row: &[String; N]| {
        let mut line = format!("{:<w$}", cut(&row[0], widths[0]), w = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        line.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// `text` with its end replaced by `…` if it is longer than `width`.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Breaks at spaces; a word that is longer than a line is broken too.
pub(super) fn wrap(text: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        let characters: Vec<char> = word.chars().collect();
        for (i, piece) in characters.chunks(WIDTH).enumerate() {
            let breaks = i > 0 || column + 1 + piece.len() > WIDTH;
            if column > 0 {
                out.push(if breaks { '\n' } else { ' ' });
                column = if breaks { 0 } else { column + 1 };
            }
            out.extend(piece);
            column += piece.len();
        }
    }
    out.push('\n');
    out
}
