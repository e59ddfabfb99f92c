//! The tables of the page.

use super::format::{contenders, leaving, threshold};
use super::html::escape;
use super::{Report, gates};
use crate::calibrate::Outcome;
use crate::calibrate::gates::GateOutcome;
use crate::display::{coarse, percent, si};
use crate::fit::FitStats;

/// The model against its rivals.
pub(super) fn comparison(report: &Report, outcome: &Outcome) -> String {
    let rows =
        contenders(report, outcome).into_iter().map(|c| vec![c.name, percent(c.quality), si(c.macs), coarse(c.work)]);
    table(&["", report.measure(), "MACs per sample", &format!("of the {}", report.base())], rows.collect())
}

/// The candidates, one by one.
pub(super) fn exits(outcome: &Outcome, measure: &str) -> String {
    let shares = leaving(outcome);
    let dash = || "–".to_owned();
    let mut rows: Vec<Vec<String>> = outcome
        .exits
        .iter()
        .zip(&shares)
        .map(|(exit, share)| {
            vec![
                exit.name.clone(),
                percent(exit.accuracy),
                exit.mean_confidence.map_or_else(dash, |c| format!("{c:.3}")),
                threshold(exit),
                if *share > 0.0 { coarse(*share) } else { dash() },
                exit.accuracy_of_leaving.map_or_else(dash, percent),
            ]
        })
        .collect();
    let end = shares.last().copied().unwrap_or(1.0);
    rows.push(vec!["full depth".into(), percent(outcome.plain.accuracy), dash(), dash(), coarse(end), dash()]);
    let leave = format!("their {measure}");
    table(&["place", "everyone there", "mean confidence", "threshold", "leave", &leave], rows)
}

/// How the heads were fitted; empty if none was.
pub(super) fn heads(stats: &[FitStats]) -> String {
    if stats.is_empty() {
        return String::new();
    }
    let rows = stats.iter().map(|s| {
        vec![
            s.candidate.clone(),
            s.rows.to_string(),
            s.features.to_string(),
            s.parameters.to_string(),
            format!("{:.0e}", s.l2),
            format!("{:.3} → {:.3}", s.first_loss, s.final_loss),
            s.held_out_loss.map_or_else(|| "–".into(), |l| format!("{l:.3}")),
            format!("{}{}", s.iterations, if s.converged { "" } else { " (limit)" }),
            percent(s.train_agreement),
        ]
    });
    let header = [
        "head after",
        "rows",
        "features",
        "parameters",
        "L2",
        "loss",
        "held-out loss",
        "iterations",
        "agrees with the model",
    ];
    format!("<section>\n<h2>Fit of the heads</h2>\n{}</section>\n", table(&header, rows.collect()))
}

/// What was asked for.
pub(super) fn asked(report: &Report) -> String {
    let r = &report.recipe;
    let rows = [
        ("places", r.places.clone()),
        ("heads", r.head.clone()),
        ("rule", r.rule.clone()),
        ("allowed drop", format!("{:.2} points at {:.0} % confidence", 100.0 * r.max_drop, 100.0 * r.confidence)),
        ("seed", r.seed.to_string()),
    ];
    let items: String = rows.iter().map(|(k, v)| format!("<dt>{k}</dt><dd>{}</dd>\n", escape(v))).collect();
    format!("<section>\n<h2>Asked for</h2>\n<dl>\n{items}</dl>\n</section>\n")
}

/// Cells are escaped here. The first column is the row's name.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let head: String = header.iter().map(|h| format!("<th scope=\"col\">{}</th>", escape(h))).collect();
    let mut body = String::new();
    for row in rows {
        body.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            body.push_str(&if i == 0 { format!("<th scope=\"row\">{cell}</th>") } else { format!("<td>{cell}</td>") });
        }
        body.push_str("</tr>\n");
    }
    format!("<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n")
}

/// A calibration of FFN gates: what was chosen against its rivals, then everything tried.
pub(super) fn gate_results(report: &Report, outcome: &GateOutcome) -> String {
    let cells = |rows: Vec<[String; 5]>| rows.into_iter().map(Vec::from).collect::<Vec<Vec<String>>>();
    let header = gates::header(outcome);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    format!(
        "<section>\n<h2>Against its rivals</h2>\n{}<p>{}</p>\n</section>\n<section>\n<h2>Everything tried</h2>\n{}</section>\n",
        table(&header, cells(gates::rows(outcome))),
        escape(&gates::bound(report, outcome)),
        table(&header, cells(gates::tried(outcome))),
    )
}
