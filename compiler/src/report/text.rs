//! The report as plain text, at most 80 columns wide.

use super::format::{bound, contenders, has_exits, headline, leaving, rule, threshold};
use super::{Report, gates};
use crate::calibrate::Outcome;
use crate::display::{coarse, percent, si, table_within};

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
            parts.push(table_within(&rows, WIDTH));
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
    table_within(&rows, WIDTH)
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
    table_within(&rows, WIDTH)
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
