//! What storing weights in a narrow form changed.

use eec_ir::Precision;
use serde::{Deserialize, Serialize};

use super::html::escape;
use super::html_tables::table;
use super::text::{WIDTH, wrap};
use crate::display::{coarse, percent, points, si, table_within};

/// The model with narrow weights beside the float32 one, both without decisions, on all rows of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Narrowing {
    /// The model's file name.
    pub model: String,
    /// The narrow form.
    pub precision: Precision,
    /// The rows.
    pub rows: usize,
    /// Whether quality is a loss in nats; otherwise a share of right answers.
    pub is_loss: bool,
    /// Whether the data has labels; otherwise agreement with the float32 model is the measure.
    pub labels: bool,
    /// Quality of the float32 model.
    pub full: f64,
    /// Quality with narrow weights.
    pub narrow: f64,
    /// Bytes of the float32 model's weights.
    pub full_bytes: u64,
    /// Bytes of all weights as they are stored.
    pub narrow_bytes: u64,
}

impl Narrowing {
    /// The comparison for a terminal.
    pub fn text(&self) -> String {
        let mut rows = vec![self.header().to_vec()];
        rows.extend(self.table_rows().map(Vec::from));
        format!("{}\n{}", wrap(&self.sentence()), table_within(&rows, WIDTH))
    }

    /// The same as a section of the page.
    pub(super) fn html(&self) -> String {
        let header = self.header();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let rows = self.table_rows().map(Vec::from).to_vec();
        let sentence = escape(&self.sentence());
        format!(
            "<section>\n<h2>Weights as {}</h2>\n<p>{sentence}</p>\n{}</section>\n",
            self.precision,
            table(&header, rows)
        )
    }

    fn sentence(&self) -> String {
        let change = match self.is_loss {
            true => format!("loss {:+.2} %", 100.0 * (self.narrow / self.full - 1.0)),
            false => format!("{} points of {}", points(self.narrow - self.full), self.measure()),
        };
        format!(
            "Weights as {}, on all {} rows: {change}, {} of the bytes. What is inserted is fitted and compared on \
             this model.",
            self.precision,
            self.rows,
            coarse(self.narrow_bytes as f64 / self.full_bytes.max(1) as f64),
        )
    }

    fn measure(&self) -> &'static str {
        match (self.is_loss, self.labels) {
            (true, _) => "loss",
            (false, true) => "accuracy",
            (false, false) => "agreement",
        }
    }

    fn header(&self) -> [String; 3] {
        ["", self.measure(), "bytes of weights"].map(String::from)
    }

    fn table_rows(&self) -> [[String; 3]; 2] {
        let quality = |q| if self.is_loss { format!("{q:.4}") } else { percent(q) };
        [
            ["float32".into(), quality(self.full), si(self.full_bytes as f64)],
            [self.precision.to_string(), quality(self.narrow), si(self.narrow_bytes as f64)],
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_change_and_both_sizes_are_shown() {
        let narrowing = Narrowing {
            model: "m.onnx".into(),
            precision: Precision::Int8,
            rows: 40,
            is_loss: false,
            labels: true,
            full: 0.9,
            narrow: 0.875,
            full_bytes: 4_000_000,
            narrow_bytes: 1_125_000,
        };
        let text = narrowing.text();
        assert!(text.contains("-2.50 points of accuracy") && text.contains("90.00 %"), "{text}");
        assert!(text.contains("1.12 M") || text.contains("1.13 M"), "{text}");
        assert!(narrowing.html().contains("<h2>Weights as int8</h2>"));
        let loss = Narrowing { is_loss: true, full: 2.0, narrow: 2.01, ..narrowing };
        assert!(loss.text().contains("loss +0.50 %"), "{}", loss.text());
    }
}
