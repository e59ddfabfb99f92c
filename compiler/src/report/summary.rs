//! What several mechanisms do together, against the plain model.

use serde::{Deserialize, Serialize};

use super::html::escape;
use super::html_tables::table;
use super::text::{WIDTH, wrap};
use crate::display::{coarse, percent, points, si, table_within};

/// The compiled model beside the plain one, on the rows that nothing was tuned on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The rows.
    pub verify_rows: usize,
    /// Whether quality is a loss in nats; otherwise a share of right answers.
    pub is_loss: bool,
    /// Whether the data has labels; otherwise agreement with the plain model is the measure.
    pub labels: bool,
    /// Quality of the plain model.
    pub plain: f64,
    /// Quality of the compiled model.
    pub compiled: f64,
    /// Multiply-accumulates of the plain model per sample.
    pub plain_macs: f64,
    /// Executed multiply-accumulates of the compiled model per sample.
    pub compiled_macs: f64,
    /// What all mechanisms together may lose: accuracy as a fraction, or loss relative to the plain model's.
    pub max_drop: f64,
    /// What the compiled model does otherwise than the plain one.
    pub changes: Vec<String>,
}

impl Summary {
    /// Executed ÷ plain multiply-accumulates.
    pub fn work(&self) -> f64 {
        self.compiled_macs / self.plain_macs
    }

    /// The summary for a terminal.
    pub fn text(&self) -> String {
        let mut rows = vec![self.header().to_vec()];
        rows.extend(self.rows().map(Vec::from));
        format!("{}\n{}", wrap(&self.sentence()), table_within(&rows, WIDTH))
    }

    /// The same as a section of the page.
    pub(super) fn html(&self) -> String {
        let rows = self.rows().map(Vec::from).to_vec();
        let header = self.header();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let sentence = escape(&self.sentence());
        format!("<section>\n<h2>All together</h2>\n<p>{sentence}</p>\n{}</section>\n", table(&header, rows))
    }

    fn sentence(&self) -> String {
        let (change, allowed) = match self.is_loss {
            true => (
                format!("loss {:+.2} %", 100.0 * (self.compiled / self.plain - 1.0)),
                format!("{:.2} %", 100.0 * self.max_drop),
            ),
            false => (
                format!("{} points of {}", points(self.compiled - self.plain), self.measure()),
                format!("{:.2}", 100.0 * self.max_drop),
            ),
        };
        format!(
            "All together, on the {} rows to verify: {} of the plain model's work, {change} ({allowed} allowed); {}.",
            self.verify_rows,
            coarse(self.work()),
            self.changes.join("; "),
        )
    }

    fn measure(&self) -> &'static str {
        match (self.is_loss, self.labels) {
            (true, _) => "loss",
            (false, true) => "accuracy",
            (false, false) => "agreement",
        }
    }

    fn header(&self) -> [String; 4] {
        ["", self.measure(), "MACs/sample", "work"].map(String::from)
    }

    fn rows(&self) -> [[String; 4]; 2] {
        let quality = |q| if self.is_loss { format!("{q:.4}") } else { percent(q) };
        let row = |name: &str, q, macs, work| [name.into(), quality(q), si(macs), coarse(work)];
        [
            row("plain model", self.plain, self.plain_macs, 1.0),
            row("compiled model", self.compiled, self.compiled_macs, self.work()),
        ]
    }
}
