//! The report as one HTML file: styles and plots inside, no scripts, nothing loaded.

use super::format::{bound, has_exits, headline, rule};
use super::html_tables::{asked, comparison, exits, gate_results, heads};
use super::{Narrowing, Report, Summary, charts};
use crate::calibrate::{Outcome, Verdict};
use crate::display::{coarse, points};

const STYLE: &str = include_str!("style.css");

/// Replaces the characters that mean something in HTML, in text and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// Reports on one model as a page: what narrow weights changed, one report after the other, and what all
/// mechanisms do together.
pub fn page(narrowing: Option<&Narrowing>, reports: &[Report], summary: Option<&Summary>) -> String {
    let title = reports.first().map(|r| &r.model).or(narrowing.map(|n| &n.model));
    let title = title.map(|t| escape(t)).unwrap_or_default();
    let parts = narrowing.map(Narrowing::html).into_iter().chain(reports.iter().map(Report::part));
    let body: String = parts.chain(summary.map(Summary::html)).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: early exits</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
    )
}

impl Report {
    /// The report as a page of its own.
    pub fn html(&self) -> String {
        page(None, std::slice::from_ref(self), None)
    }

    fn part(&self) -> String {
        let body = match (&self.outcome, &self.gates) {
            (Some(outcome), _) => self.results(outcome),
            (None, Some(gates)) => gate_results(self, gates),
            (None, None) => self.reasons(),
        };
        format!("{}{body}{}", self.opening(), asked(self))
    }

    fn opening(&self) -> String {
        let d = &self.data;
        let mut used = format!("{} rows of {}", d.rows, escape(&d.name));
        if d.verify_rows > 0 {
            used.push_str(&format!(", {} to tune and {} to verify", d.tune_rows, d.verify_rows));
        }
        let measured = match d.labels {
            true => String::new(),
            false => format!("; no labels, so agreement with the {} is the measure", self.base()),
        };
        let pays = self.outcome.as_ref().is_some_and(|o| o.verdict.pays())
            || self.gates.as_ref().is_some_and(|o| o.verdict.pays());
        let class = if pays { "verdict pays" } else { "verdict" };
        format!(
            "<header>\n<h1>{}</h1>\n<p class=\"data\">{used}{measured}</p>\n</header>\n<p class=\"{class}\">{}</p>\n",
            escape(&self.model),
            escape(&headline(self)),
        )
    }

    fn results(&self, outcome: &Outcome) -> String {
        let measure = self.measure();
        let mut out = String::new();
        if outcome.verdict.pays() {
            out.push_str(&figures(self, outcome));
        }
        out.push_str(&format!("<section>\n<h2>Against its rivals</h2>\n{}", comparison(self, outcome)));
        if has_exits(outcome) {
            out.push_str(&paragraph(&bound(&outcome.drop, measure)));
        }
        out.push_str("</section>\n");
        out.push_str(&format!("<div class=\"grid\">\n{}", plots(self, outcome)));
        out.push_str(&format!("<section>\n<h2>Places</h2>\n{}", exits(outcome, measure)));
        if !outcome.policy.is_plain() {
            out.push_str(&paragraph(&format!("Rule {}.", rule(outcome, &self.recipe.rule))));
        }
        out.push_str("</section>\n</div>\n");
        out.push_str(&heads(&self.heads));
        out
    }

    fn reasons(&self) -> String {
        let items: String = self.reasons.iter().map(|r| format!("<li>{}</li>\n", escape(r))).collect();
        format!("<section>\n<ul>\n{items}</ul>\n</section>\n")
    }
}

fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// The numbers to remember.
fn figures(report: &Report, outcome: &Outcome) -> String {
    let measure = report.measure();
    let drop = &outcome.drop;
    let confidence = format!("largest drop in points, at {:.0} % confidence", 100.0 * drop.confidence);
    let figures = [
        (coarse(1.0 - outcome.dynamic.macs_ratio), "of the work saved".to_owned()),
        (coarse(outcome.dynamic.accuracy), format!("{measure} with {}", report.mechanism.words())),
        (points(outcome.dynamic.accuracy - outcome.plain.accuracy), format!("points of {measure}")),
        (format!("{:.2}", 100.0 * drop.max_drop), confidence),
    ];
    let items: String =
        figures.iter().map(|(value, what)| format!("<li><b>{value}</b><span>{what}</span></li>\n")).collect();
    format!("<ul class=\"figures\">\n{items}</ul>\n")
}

fn plots(report: &Report, outcome: &Outcome) -> String {
    let (measure, mechanism) = (report.measure(), report.mechanism);
    let mut out = String::new();
    let legend = [
        ("dynamic", "policies tried; filled: within the bound"),
        ("dynamic ring", if matches!(outcome.verdict, Verdict::Pays) { "chosen" } else { "judged" }),
        ("fixed", mechanism.at_one_depth()),
        ("lot", "random, same histogram"),
    ];
    let legend = if has_exits(outcome) { &legend[..] } else { &legend[..1] };
    out.push_str(&figure("Quality over work", &charts::curve(outcome, measure, report.base()), legend));
    let all_leave = [("dynamic", "share of the verify rows")];
    out.push_str(&figure(mechanism.where_title(), &charts::histogram(outcome), &all_leave));
    let alone = format!("{measure}, everyone");
    let leaving = format!("{measure} of those that leave");
    let mut legend = vec![("fixed", alone.as_str())];
    if charts::confidence_is_a_share(outcome) {
        legend.push(("lot", "mean confidence"));
    }
    if !outcome.policy.is_plain() {
        legend.push(("dynamic", leaving.as_str()));
    }
    out.push_str(&figure(mechanism.places_title(), &charts::heads(outcome, measure), &legend));
    out
}

fn figure(title: &str, svg: &str, legend: &[(&str, &str)]) -> String {
    let keys: String = legend.iter().map(|(class, what)| format!("<li class=\"{class}\">{what}</li>\n")).collect();
    format!("<figure>\n<h2>{title}</h2>\n{svg}<ul class=\"legend\">\n{keys}</ul>\n</figure>\n")
}
